# The examples of docs/waiting.md that wait for messages, each with its real client: they
# wait, they are woken, and they get what was sent.  All intervals are ten minutes, so
# nothing but a wake-up ends a wait in time.  (Those that listen are in 022_notify.pl.)
use strict;
use warnings;

use File::Basename;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(ok_until);

my $LONG = 600_000;

my $node = PostgreSQL::Test::Cluster->new('clients');
$node->init;
$node->append_conf('postgresql.conf', q{
pgmq.recheck_interval = '10min'
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{CREATE EXTENSION pgmq});
sql(q{SELECT pgmq.create('orders')});
sql(q{SELECT pgmq.create('invoices')});

my $page = slurp_file(dirname(__FILE__) . '/../../docs/waiting.md');

# A loop that pops loses what it has in hand when it is killed; one that works inside of the transaction that
# has read never counts a failed try, because read_ct is rolled back with it
unlike($page, qr/pgmq\.pop\(/, 'no loop pops');
unlike($page, qr/conn\.transaction|\bBEGIN;/, 'no loop works inside of a transaction');

# example(language, pattern): the only block in this language that has the pattern and
# does not listen; its time limits are made long
sub example
{
	my ($language, $pattern) = @_;
	my @found = grep { /$pattern/ && !/LISTEN/ } $page =~ /^```\Q$language\E\n(.*?)^```/msg;

	is(scalar(@found), 1, "$language, $pattern: there is an example");
	$found[0] =~ s/\b30000\b/$LONG/g;
	$found[0] =~ s/max_poll_seconds => 5\b/max_poll_seconds => 600, poll_interval_ms => $LONG/;
	return $found[0];
}

sub one_waits
{
	return ok_until("$_[0] waits", sub {
		sql(q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND query LIKE '%pgmq.%'}) eq '1' });
}

# consumes(name, command, code, port, host, queues): a program that consumes for ever gets three messages
sub consumes
{
	my ($name, $command, $code, $port, $host, @queues) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/consumer';
	my ($out, $err) = ('', '');
	# certificates of this machine, which are perhaps not in a chroot: node complains
	delete local $ENV{NODE_EXTRA_CA_CERTS};
	local %ENV = (%ENV, PGHOST => $host, PGPORT => $port, PGDATABASE => 'postgres', PGUSER => sql('SELECT current_user'));

	PostgreSQL::Test::Utils::append_to_file($file, $code);
	my $client = IPC::Run::start([ @$command, $file ], '<', \undef, '>', \$out, '2>', \$err);
	foreach my $n (1 .. 3)
	{
		my $queue = $queues[ $n % @queues ];

		one_waits($name) or diag($err);
		sql(qq{SELECT pgmq.send('$queue', '"$n for $name"')});
		ok_until("$name: message $n comes", sub { $client->pump_nb; return $out =~ /$n for \Q$name\E$/m });
	}
	ok_until("$name: and all are gone", sub {
		sql('SELECT count(*) FROM (SELECT FROM pgmq.q_orders UNION ALL SELECT FROM pgmq.q_invoices) AS q') eq '0' });
	$client->kill_kill;
	is($err, '', "$name: no complaints");
	ok_until("$name: its backend ends with it", sub {
		sql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%pgmq.%'}) eq '0' });
}

# psql_once(name, connection, script): it waits, gets a message, and ends
sub psql_once
{
	my ($name, $connection, $script) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	my ($out, $err) = ('', '');

	PostgreSQL::Test::Utils::append_to_file($file, $script);
	my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $connection, '-f', $file ], '<', \undef, '>', \$out, '2>', \$err);
	one_waits($name);
	sql(q{SELECT pgmq.send('orders', '"for psql"')});
	ok_until("$name: the message comes", sub { $psql->pump_nb if $psql->pumpable; $out =~ /^\d+\|"for psql"$/m });
	$psql->finish;
	is($err, '', "$name: no complaints");
	sql(q{SELECT pgmq.purge_queue('orders')});
}

foreach my $pattern ('read_with_poll', 'gset')
{
	psql_once("psql, $pattern", $node->connstr('postgres'), example('sql', $pattern));
}

my @python = ('/usr/bin/python3');
consumes('psycopg', \@python, example('python', 'pgmq\.wait\('), $node->port, $node->host, 'orders');
consumes('psycopg, wait_any', \@python, example('python', 'wait_any'), $node->port, $node->host, 'orders', 'invoices');
consumes('psycopg, wait_grouped', \@python, example('python', 'wait_grouped'), $node->port, $node->host, 'orders');
consumes('node-postgres', ['node'], example('js', 'pgmq\.wait'), $node->port, $node->host, 'orders');

# psycopg without autocommit is told what to do
my ($stdout, $stderr) = ('', '');
IPC::Run::run([ @python, '-c', qq{
import psycopg
with psycopg.connect("@{[$node->connstr('postgres')]}") as conn:
    conn.execute("CALL pgmq.wait('orders', 10)")
} ], '>', \$stdout, '2>', \$stderr);
like($stderr, qr/ActiveSqlTransaction.*autocommit/s, 'psycopg in a transaction gets the hint');

# pgbouncer in transaction mode as on the page on clients, with two connections to the server, and psycopg with the option named there
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $clients = slurp_file(dirname(__FILE__) . '/../../docs/clients.md');
my ($ini) = $clients =~ /^```ini\n(.*?)^```/ms or die 'no pgbouncer.ini';
my ($option) = $clients =~ /^\| psycopg \| `connect\((.*)\)` \|$/m or die 'no option for psycopg';
my $pooled = example('python', 'pgmq\.wait\(');
$pooled =~ s/autocommit=True/autocommit=True, $option/ or die 'no autocommit';
my ($host, $user) = ($node->host, sql('SELECT current_user'));
my $server_port = $node->port;
$ini =~ s/default_pool_size = \d+/default_pool_size = 2/;
PostgreSQL::Test::Utils::append_to_file("$dir/users", qq{"$user" ""\n});
PostgreSQL::Test::Utils::append_to_file("$dir/pgbouncer.ini", qq{
[databases]
* = host=$host port=$server_port
$ini
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
logfile = $dir/log
});
my $bouncer = IPC::Run::start([ 'pgbouncer', '-q', "$dir/pgbouncer.ini" ], '<', \undef, '>', \my $bouncer_out, '2>', \my $bouncer_err);
ok_until('pgbouncer is up', sub { -S "$dir/.s.PGSQL.$port" }) or diag($bouncer_err);
consumes('pgbouncer', \@python, $pooled, $port, $dir, 'orders');
psql_once('pgbouncer, read_with_poll', "host=$dir port=$port dbname=postgres user=$user", example('sql', 'read_with_poll'));
$bouncer->kill_kill;

$node->stop;
done_testing();
