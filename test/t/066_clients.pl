# Clients.  Their programs in docs/clients.md do what the page says.  And the same calls, made with each of them on the
# PL/pgSQL extension as it was released and on ours, have the same results: columns, types, rows, notices and errors, as
# the client sees them.  What a machine has not is left out: node and npm's packages, the released extension, Java.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::Local 'timegm';

use DocExamples;
use OldPgmq;
use PgmqSql qw($DEADLINE ok_until);

my $CLIENTS = "$FindBin::RealBin/../clients";
my $JDBC = '/usr/share/java/postgresql.jar';
my $PACKAGES = 'pgmq-js@1.3.1 postgres@3.4.9';

my $dir = PostgreSQL::Test::Utils::tempdir();
my $java = -e $JDBC && system('javac -version >/dev/null 2>&1') == 0;

# certificates of this machine, which are perhaps not in a chroot: node complains
my %certificates = map { $_ => delete $ENV{$_} } grep { exists $ENV{$_} } 'NODE_EXTRA_CA_CERTS';
my $why_no_packages;
{
	local %ENV = (%ENV, %certificates);
	$why_no_packages = 'packages of npm cannot be fetched'
	  if system("cd $dir && npm_config_cache=$dir/cache npm_config_update_notifier=false npm_config_fetch_retries=0 "
		. "npm install --silent --no-audit --no-fund --prefix $dir/npm $PACKAGES >npm.log 2>&1") != 0;
}
my $why_not_released;
{
	local %ENV = (%ENV, %certificates);
	$why_not_released = why_not_released();
}

# JDBC has no sockets but those of the network
my $node = PostgreSQL::Test::Cluster->new('clients');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nlog_statement = none\n" . ($java ? "listen_addresses = '127.0.0.1'" : ''));
$node->start;

my $user = $node->safe_psql('postgres', 'SELECT current_user');
my $page = DocExamples::page('clients');

# The pooler is as the page says, but for the number of its connections, and for what is of this machine
my $pooler_dir = PostgreSQL::Test::Utils::tempdir_short();
my $pooler_port = PostgreSQL::Test::Cluster::get_free_port();
my ($ini) = $page =~ /^```ini\n(.*?)^```/ms or die 'no pgbouncer.ini';
$ini =~ s/default_pool_size = \d+/default_pool_size = 2/ or die;
append_to_file("$pooler_dir/users", qq{"$user" ""\n});
append_to_file("$pooler_dir/pgbouncer.ini", "[databases]\n* = host=" . $node->host . ' port=' . $node->port . "\n$ini
listen_port = $pooler_port
unix_socket_dir = $pooler_dir
auth_type = trust
auth_file = $pooler_dir/users
logfile = $pooler_dir/log
" . ($java ? "listen_addr = 127.0.0.1\n" : ''));
my $pooler = IPC::Run::start([ 'pgbouncer', '-q', "$pooler_dir/pgbouncer.ini" ], '<', \undef, '>', \my $pooler_out, '2>', \my $pooler_err);
ok_until('pgbouncer is up', sub { -S "$pooler_dir/.s.PGSQL.$pooler_port" }) or diag($pooler_err);

my %environment = (PGHOST => $node->host, PGPORT => $node->port, PGUSER => $user, PGDATABASE => 'clients', TZ => 'UTC', PGTZ => 'UTC',
	PYTHONDONTWRITEBYTECODE => 1);

# run_client(command...): its output; it must end well, and complain about nothing
sub run_client
{
	my ($name, @command) = @_;
	my ($out, $err) = ('', '');

	local %ENV = (%ENV, %environment);
	my $program = IPC::Run::start(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($DEADLINE));
	my $ended = eval { $program->finish };
	$program->kill_kill unless defined $ended;
	ok($ended && $err eq '', "$name: the program ends well") or diag($@ // '', $err, substr($out, -1000));
	return $out;
}

sub written
{
	my ($name, $content) = @_;

	append_to_file("$dir/$name", $content);
	return "$dir/$name";
}

###################################################### the programs of the page

sub sql { return $node->safe_psql('clients', $_[0]); }

my ($setup) = $page =~ /^```sql\n(.*?)^```/ms or die 'no SQL';
$node->safe_psql('postgres', 'CREATE DATABASE clients');
sql("CREATE EXTENSION pgmq; $setup");

my @python = $page =~ /^```python\n(.*?)^```/msg;
my @js = $page =~ /^```js\n(.*?)^```/msg;
my @java = $page =~ /^```java\n(.*?)^```/msg;
is(scalar(@python) . ' ' . @js . ' ' . @java, '2 3 1', 'the page has its programs');

# sells(name, items, command...): a program sends messages, or it sends one, works on it and deletes it
sub sells
{
	my ($name, @command) = @_;
	my $out = run_client($name, @command);

	is(sql('SELECT (SELECT count(*) FROM pgmq.q_orders), (SELECT string_agg(item, $$ $$) FROM sales)'), '0|tea', "$name: sends, waits, reads, writes and deletes")
	  unless $name =~ /pgmq-js/;
	is(sql('TRUNCATE sales; SELECT count(*) FROM pgmq.q_orders'), '0', "$name: nothing is left");
	return $out;
}

sub sends
{
	my ($name, @command) = @_;

	run_client($name, @command);
	is(sql(q{SELECT string_agg(message ->> 'item', ' ' ORDER BY msg_id), count(DISTINCT enqueued_at - vt) FROM pgmq.q_orders; TRUNCATE pgmq.q_orders}),
		'tea milk sugar|1', "$name: sends");
}

my $number = 0;
foreach my $program (@python)
{
	my ($name) = grep { $program =~ /\Q$_\E/ } qw(send_batch);
	my @command = ('/usr/bin/python3', written('page' . ++$number . '.py', $program));

	$program =~ /for item in/ ? sends("psycopg, $name", @command) : sells('psycopg' . ($name ? ", $name" : ''), @command);

	# Behind the pooler, with the option that the page names
	my ($option) = $page =~ /^\| psycopg \| `connect\((.*)\)` \|$/m or die 'no option for psycopg';
	$program =~ s/autocommit=True/autocommit=True, $option/ or die 'no autocommit';
	local @environment{qw(PGHOST PGPORT)} = ($pooler_dir, $pooler_port);
	@command = ('/usr/bin/python3', written("pooled$number.py", $program));
	$program =~ /for item in/ ? sends("psycopg, $name, pooled", @command) : sells(join(', ', 'psycopg', $name // (), 'pooled'), @command);
}

foreach my $program (@js)
{
	my ($package) = $program =~ /require\('([\w-]+)'\)/;

	SKIP:
	{
		skip "$package: $why_no_packages", 1 if $why_no_packages && $package ne 'pg';
		local $ENV{NODE_PATH} = $package eq 'pg' ? $ENV{NODE_PATH} : "$dir/npm/node_modules";
		# This client knows nothing of the environment
		$program =~ s/host: 'localhost', port: 5432, database: 'shop', user: 'app'/"host: '" . $node->host . "', port: " . $node->port . ", database: 'clients', user: '$user'"/e
		  or $package ne 'pgmq-js' or die 'the page does not connect';
		my $out = sells($package, 'node', written("page-$package.js", $program));
		is($out, "sold tea\n", "$package: sends, reads and deletes") if $package eq 'pgmq-js';
		next unless $package eq 'pg';
		local @environment{qw(PGHOST PGPORT)} = ($pooler_dir, $pooler_port);
		sells("$package, pooled", 'node', "$dir/page-$package.js");
	}
}

SKIP:
{
	skip 'JDBC: no driver, or no Java', 1 unless $java;
	$java[0] =~ s{localhost:5432/shop\?user=app}{'127.0.0.1:' . $node->port . "/clients?user=$user"}e or die 'the page does not connect';
	sells('JDBC', 'java', '-Xshare:auto', '-XX:TieredStopAtLevel=1', '-cp', $JDBC, written('Orders.java', $java[0]));
}

###################################################### the same calls on both

# What depends on the clock becomes its distance from the time of the run
sub time_of
{
	my ($text, $epoch, $from, $until) = @_;

	foreach my $later (0, 7200)
	{
		return 'TIME' . ($later ? " + $later" : '') if $epoch >= $from + $later - 1 && $epoch <= $until + $later + 1;
	}
	return $text;
}

# comparable(output, from, until): by way and database, the lines of each call.  Rows have no order where ours
# differs on purpose, and none where there is none.
sub comparable
{
	my ($output, $from, $until) = @_;
	my %seen;

	foreach my $part (split /^== /m, $output)
	{
		my ($database, $way, $lines) = $part =~ /\A(\w+) (.*?)\n(.*)\z/s or next;

		# times in text, and in binary records
		$lines =~ s{(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|\+00(?::00)?)?}{
			time_of($&, timegm($6, $5, $4, $3, $2 - 1, $1), $from, $until)}ge;
		$lines =~ s{000004a000000008([0-9a-f]{16})}{time_of($&, hex($1) / 1e6 + 946_684_800, $from, $until)}ge;
		$lines =~ s/(age_?sec=\w+:"?)\d+/$1SECONDS/gi;
		foreach my $call (split /^-- /m, $lines)
		{
			my ($statement, @printed) = split /\n/, $call;
			next unless defined $statement;
			@printed = ((grep { !/^row / } @printed), sort grep { /^row / } @printed) unless $statement =~ /send_batch|ORDER BY/;
			push @{ $seen{$way}{$database} }, [ $statement, @printed ];
		}
	}
	return %seen;
}

# The attribute that 1.13.0 has added
sub without_new_column
{
	my (@printed) = @_;

	s/ default_partition_length:\S+//, s/ \| default_partition_length=[^|]*$// foreach @printed;
	return @printed;
}

# compare(seen): for each way, one test of all its calls
sub compare
{
	my (%seen) = @_;

	foreach my $way (sort keys %seen)
	{
		my ($old, $ours) = map { $seen{$way}{$_} } qw(old ours);
		my @differences = map {
			my ($then, $now) = map { join("\n", without_new_column(@{ $_ // ['nothing'] })) } $old->[$_], $ours->[$_];
			$then eq $now ? () : "$then\nbut ours:\n$now\n"
		} 0 .. (@$old > @$ours ? $#$old : $#$ours);

		is(scalar(@differences), 0, "$way: the same results of " . @$ours . ' calls') or diag(@differences[ 0 .. ($#differences > 9 ? 9 : $#differences) ]);
		like(join("\n", map { @$_ } @$ours), qr/queue_visible_length=\S+ \| default_partition_length=\S+$/m, "$way: the new attribute is the last one")
		  unless $way =~ /pgmq-js/;
		next if $way =~ /without|pgmq-js/;
		is(join("\n", map { "$_->[0]: $_->[1]" } grep { $_->[0] !~ /^error/ && grep { /^error/ } @$_[1 .. $#$_] } @$ours), '', "$way: what should work works")
		  unless $way =~ /pipeline/;
		cmp_ok(scalar(grep { grep { /^error \w{5} / } @$_[1 .. $#$_] } @$ours), '>', 30, "$way: what should fail fails");
		ok(grep({ $_->[0] =~ /^told/ && $_->[1] =~ /^told/ } @$ours), "$way: a notification arrives") unless $way =~ /pooled|pipeline/;
	}
}

# The page's table of types, by what was printed for a message with an object and without headers
sub check_types
{
	my ($name, $ours) = @_;
	my ($cells) = $page =~ /^\| \Q$name\E(?:, [^|]*)? \| (.*) \|$/m or return fail("$name is in the table of types");
	my @lines = map { @$_ } @$ours;
	my ($row) = grep { /vt=.*message=(\w+:)?\{"?\w+"?[:=]/ && !/headers=\w+:\{/ } @lines;
	my ($deleted) = map { /^(?:row delete=|result )(\w+)/ } map { @$_[1 .. $#$_] } grep { $_->[0] =~ /^ ?(SELECT pgmq\.delete\(|delete$)/ } @$ours;
	my %column = $row =~ /(\w+)=(\w*)/g;

	is(join(' | ', map({ $_ // '' } $column{msg_id} // $column{msgId}, $column{read_ct} // $column{readCount}, $column{vt}, $column{message} || 'Object', $column{headers}),
		$deleted), $cells =~ s/\| +\|/|  |/r, "$name: the types are those of the page");
	return;
}

sub compare_client
{
	my ($name, @command) = @_;
	my $from = time;
	my %seen = comparable(run_client($name, @command, 'old', 'ours'), $from, time);

	compare(%seen);
	my ($way) = grep { /, (plain|template)$/ } keys %seen;
	check_types($name, $seen{$way}{ours}) if $way;
	note("$name: " . (time - $from) . ' s');
	return;
}

SKIP:
{
	skip $why_not_released, 1 if $why_not_released;
	$node->safe_psql('postgres', 'CREATE DATABASE old; CREATE DATABASE ours');
	$node->safe_psql('old', "CREATE EXTENSION pgmq VERSION '1.11.1'");
	$node->safe_psql('ours', 'CREATE EXTENSION pgmq');
	@environment{qw(POOLER_HOST POOLER_PORT)} = ($pooler_dir, $pooler_port);

	my $calls = "$CLIENTS/calls.txt";
	compare_client('psycopg', '/usr/bin/python3', "$CLIENTS/psycopg3.py", $calls);
	SKIP:
	{
		skip $why_no_packages, 1 if $why_no_packages;
		local $ENV{NODE_PATH} = "$dir/npm/node_modules";
		compare_client('node-postgres', 'node', "$CLIENTS/node_postgres.js", $calls);
		compare_client('postgres.js', 'node', "$CLIENTS/postgres_js.js", $calls);
		compare_client('pgmq-js', 'node', "$CLIENTS/pgmq_js.js");
	}
	SKIP:
	{
		skip 'JDBC: no driver, or no Java', 1 unless $java;
		compare_client('JDBC', 'java', '-Xshare:auto', '-XX:TieredStopAtLevel=1', '-cp', $JDBC, "$CLIENTS/Jdbc.java", $calls);
	}
}

$pooler->kill_kill;
$node->stop;
done_testing();
