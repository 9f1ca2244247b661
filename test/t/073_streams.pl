# docs/streams.md: its two consumers keep their promises while they are killed and the server crashes.  Each event takes
# effect exactly once, and in order within its shard; also after a replay beside them.  An event that fails stops its shard, or
# goes to a queue.  The hash of a key is what the page says.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DocExamples;
use POSIX ':sys_wait_h';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use PgmqSql qw($DEADLINE ok_until);
use Time::HiRes qw(usleep);

my $EVENTS = 300;
my $SHARDS = 4;

my $node = PostgreSQL::Test::Cluster->new('streams');
$node->init;
$node->append_conf('postgresql.conf', 'log_min_messages = error');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE shop');

sub sql { return $node->safe_psql('shop', $_[0]); }

my $page = DocExamples::page('streams');
my ($python) = grep { /def consume/ } $page =~ /^```python\n(.*?)^```\n/msg;
my ($set_aside) = $page =~ /^```python\n( +try:\n.*?)^```\n/ms;
my ($hash) = grep { /def hash_of/ } $page =~ /^```python\n(.*?)^```\n/msg;
my ($js) = $page =~ /^```js\n(.*?)^```\n/ms;
my ($table) = $page =~ /^(CREATE TABLE invoices .*;)$/m;
my ($retry) = $page =~ /^```sql\n(SELECT pgmq\.create\('billing_retry'.*?)^```\n/ms;
my ($replay) = $page =~ /^```sql\n(BEGIN;\nSELECT pgmq\.seek.*?)^```\n/ms;

ok($python && $set_aside && $hash && $js && $table && $retry && $replay, 'the page has what is tested');

# "n" is the order in which results were written.  A price of -1 does not work until it is repaired.  One of 999 takes
# longer than a lease, the first time.
sql(qq{CREATE EXTENSION pgmq; SELECT pgmq.create_stream('orders', $SHARDS); SELECT pgmq.subscribe('orders', 'billing'); $table $retry
	ALTER TABLE invoices ADD n bigserial;
	CREATE SEQUENCE slow;
	CREATE TABLE broken AS SELECT true;
	CREATE FUNCTION work() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		IF NEW.price = -1 AND EXISTS (SELECT FROM broken) THEN
			RAISE 'does not work';
		ELSIF NEW.price = 999 AND nextval('slow') = 1 THEN
			PERFORM pg_sleep(4);
		ELSE
			PERFORM pg_sleep(random() * 0.005);
		END IF;
		RETURN NEW;
	END \$\$;
	CREATE TRIGGER work BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION work()});

###################################################### the consumers

my $dir = PostgreSQL::Test::Utils::tempdir();
my $user = sql('SELECT current_user');
my %consumers;

# The page's programs, except for the time of a lease, and for how many events they receive
sub program
{
	my ($file, $code) = @_;

	$code =~ s/vt => 60, qty => 100\b/vt => 2, qty => 7/ or die "$file does not receive";
	append_to_file("$dir/$file", $code);
	return "$dir/$file";
}

my %command = (
	psycopg => [ '/usr/bin/python3', program('consumer.py', $python) ],
	'node-postgres' => [ 'node', program('consumer.js', $js) ]);

sub start_consumer
{
	my ($name) = @_;
	my $pid = fork();

	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>>', "$dir/out") or POSIX::_exit(1);
		open(STDERR, '>>', "$dir/err") or POSIX::_exit(1);
		delete $ENV{NODE_EXTRA_CA_CERTS};		# of this machine, perhaps not in a chroot: node complains
		%ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'shop', PGUSER => $user, PYTHONDONTWRITEBYTECODE => 1);
		exec(@{ $command{$name} }) or POSIX::_exit(1);
	}
	$consumers{$pid} = $name;
	return;
}

sub end_consumer
{
	my ($pid) = @_;

	kill('KILL', $pid);
	waitpid($pid, 0);
	return delete $consumers{$pid};
}

sub end_consumers { end_consumer($_) foreach keys %consumers; return; }

# publish(prices, customers): event after event, those of some transactions together
sub publish
{
	my ($count, $price, $customers) = @_;

	sql(qq{SELECT count(pgmq.publish('orders', '{"price": $price}', key => 'customer-' || n % $customers)) FROM generate_series(1, $count) AS n});
	return;
}

my $MISSING = 'SELECT count(*) FROM pgmq.s_orders AS e WHERE NOT EXISTS (SELECT FROM invoices WHERE event_id = e.event_id)';

sub consumed
{
	my ($name) = @_;

	ok_until("$name: each event has its result", sub { sql($MISSING) eq '0' }) or diag(slurp_file("$dir/out"));
	is(sql('SELECT count(*) - count(DISTINCT event_id) FROM invoices'), '0', "$name: once");
	is( sql('SELECT count(*) FROM (SELECT n, lag(n) OVER (PARTITION BY shard ORDER BY event_id) AS before'
			. ' FROM invoices JOIN pgmq.s_orders USING (event_id)) AS i WHERE before > n'),
		'0', "$name: in the order of its shard");
	return;
}

# Each of the two alone
foreach my $name (sort keys %command)
{
	start_consumer($name);
	publish(20, 1, 5);
	consumed($name);
	end_consumers();
}
is(slurp_file("$dir/out"), '', 'no program has had to connect again');

# Together, while they are killed and the server crashes
start_consumer($_) foreach 'psycopg', 'psycopg', 'node-postgres', 'node-postgres';
my ($killed, $crashes) = (0, 0);
for (my $round = 0; $round < $EVENTS / 10; $round++)
{
	publish(10, 2, 13);
	if ($round % 10 == 5)
	{
		$node->stop('immediate');
		$node->start;
		$crashes++;
	}
	elsif ($round % 3 == 0)
	{
		my @pids = keys %consumers;

		start_consumer(end_consumer($pids[ rand(@pids) ]));
		$killed++;
	}
	usleep(rand(100_000));
}
note("$killed consumers were killed, and the server crashed $crashes times");
consumed('killed');

# A lease ends during the work: another consumer receives the events, and the first one rolls back
publish(1, 999, 1);
consumed('overtaken');
cmp_ok(sql('SELECT last_value FROM slow'), '>', 1, 'overtaken: two were at work');
publish(20, 4, 13);
consumed('after that');

# A replay beside consumers
$replay =~ s/'reports'/'billing'/ && $replay =~ s/revenue/invoices/ or die 'no replay';
publish(100, 5, 13);
sql($replay) foreach 1 .. 3;
consumed('replayed');

# An event that fails stops its shard; the others go on
publish(1, -1, 1);
publish(40, 6, 13);
my ($failed, $shard) = split /\|/, sql(q{SELECT event_id, shard FROM pgmq.s_orders WHERE message ->> 'price' = '-1'});
ok_until('failed: the other shards go on', sub {
	sql("SELECT count(*) FROM pgmq.s_orders AS e WHERE shard <> $shard AND NOT EXISTS (SELECT FROM invoices WHERE event_id = e.event_id)") eq '0' });
is(sql("SELECT count(*) FROM invoices JOIN pgmq.s_orders USING (event_id) WHERE shard = $shard AND event_id >= $failed"), '0', 'failed: its shard stops');
ok_until('failed: the event comes again', sub { (() = slurp_file("$dir/out") =~ /does not work/g) > 1 });
sql('TRUNCATE broken');
consumed('repaired');

# Or it goes to a queue
end_consumers();
$python =~ s/^from psycopg$|^import psycopg$/import psycopg\nfrom psycopg.types.json import Jsonb/m or die;
$python =~ s/^ +handle\(conn, event_id, message\)\n/$set_aside/m or die 'no line that calls handle';
unlink "$dir/consumer.py";
program('consumer.py', $python);
sql('INSERT INTO broken VALUES (true)');
publish(1, -1, 1);
publish(20, 7, 1);
start_consumer('psycopg');
ok_until('set aside: the others are done', sub { sql($MISSING) eq '1' });
is( sql(q{SELECT message, (headers ->> 'x-event-id')::bigint = (SELECT max(event_id) FROM pgmq.s_orders WHERE message ->> 'price' = '-1'),
		headers ->> 'x-error' LIKE '%does not work%' FROM pgmq.q_billing_retry}),
	'{"price": -1}|t|t', 'set aside: and this one is in the queue');
end_consumers();
is(slurp_file("$dir/err"), '', 'no program complains');

###################################################### the hash

my @vectors = map { [ /^\| (.*?) \| `([0-9a-f]{16})` \| (\d+) \| (\d+) \|$/ ] } grep { /^\|.*\| `[0-9a-f]{16}`/ } split /\n/, $page;
my @keys = map { $_->[0] eq 'the empty text' ? '' : $_->[0] =~ s/^`(.*)`.*/$1/r } @vectors;
my ($out, $err) = run_command([ '/usr/bin/python3', '-c', "import sys\n$hash\nfor key in sys.argv[1:]: print('%016x' % hash_of(key))", @keys ]);
is($out, join("\n", map { $_->[1] } @vectors), 'the hashes of ' . @vectors . ' keys') or diag($err);
is_deeply([ map { [ hex(substr($_->[1], -8)) % 4, hex(substr($_->[1], -8)) % 64 ] } @vectors ], [ map { [ @$_[ 2, 3 ] ] } @vectors ], 'and their shards');
foreach my $case ([ 4, 2 ], [ 64, 3 ])
{
	my ($shards, $column) = @$case;

	sql("SELECT pgmq.create_stream('of_$shards', $shards)");
	sql("SELECT pgmq.publish('of_$shards', '1', key => '$_')") foreach @keys;
	is(sql("SELECT string_agg(shard::text, ' ' ORDER BY event_id) FROM pgmq.s_of_$shards"), join(' ', map { $_->[$column] } @vectors),
		"the server has the same, of $shards");
}

$node->stop;
done_testing();
