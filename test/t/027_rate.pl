# rate_limit: over k periods at most k + 1 times the rate, whatever kinds of reads are at work; a rollback refunds
# nothing; after a restart or a crash the rate starts empty; who waits is woken when it allows more.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use FindBin;
use IPC::Run ();
use lib $FindBin::RealBin;
use PgmqSql;
use PgmqWaiters;

my $node = PostgreSQL::Test::Cluster->new('rate');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
max_connections = 120
max_prepared_transactions = 2
restart_after_crash = on
pgmq.recheck_interval = '10min'
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', q{CREATE EXTENSION pgmq});

my $FILL = q{SELECT count(*) FROM pgmq.send_batch('q', array_fill('{"a": 1}'::jsonb, '{1000}'),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', i) FROM generate_series(1, 1000) AS i))};

# A queue of 5,000 messages with a rate
sub make_queue
{
	my ($create, $rate, $period) = @_;

	$node->safe_psql('postgres', q{SELECT pgmq.drop_queue('q')}) if $node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.meta});
	$node->safe_psql('postgres', "SELECT pgmq.$create; SELECT pgmq.create_fifo_index('q');" . join(';', ($FILL) x 5)
		. qq{; SELECT pgmq.set_policy('q', rate_limit => $rate, rate_period => '$period')});
	return;
}

#################################################################### many consumers

my ($RATE, $PERIOD_MS, $SECONDS) = (40, 500, 5);
my @reads = (q{pgmq.read('q', 600, 3)}, q{pgmq.pop('q', 2)}, q{pgmq.read_with_poll('q', 600, 7, 1)},
	q{pgmq.read_grouped('q', 600, 3)}, q{pgmq.read_grouped_rr('q', 600, 5)}, q{pgmq.read_grouped_head_with_poll('q', 600, 30, 1)});

# With each row stands when its call began and when it was over: what lies between two moments was handed out there.
$node->safe_psql('postgres', q{CREATE UNLOGGED TABLE seen (began timestamptz, over timestamptz, count int)});
foreach my $i (0 .. $#reads)
{
	append_to_file($node->basedir . "/read$i.sql", "INSERT INTO seen (began, count, over) SELECT statement_timestamp(), (SELECT count(*) FROM $reads[$i]), clock_timestamp();\n");
}
$node->safe_psql('postgres', 'CREATE EXTENSION pg_partman');
foreach my $create (q{create('q')}, q{create_unlogged('q')}, q{create_partitioned('q', '500')})
{
	$node->safe_psql('postgres', 'TRUNCATE seen');
	make_queue($create, $RATE, "$PERIOD_MS ms");
	my ($out, $err) = ('', '');
	ok(IPC::Run::run([ 'pgbench', '-n', '-c', '64', '-T', $SECONDS, (map { ('-f', $node->basedir . "/read$_.sql") } 0 .. $#reads),
		$node->connstr('postgres') ], '>', \$out, '2>', \$err), "$create: 64 consumers read") or diag($err);
	foreach my $k (1 .. 4)
	{
		is($node->safe_psql('postgres', qq{
			WITH windows AS (
				SELECT a.began, (SELECT sum(count) FROM seen b WHERE b.began >= a.began AND b.over <= a.began + $k * interval '$PERIOD_MS ms') AS got
				FROM seen a WHERE count > 0)
			SELECT max(got) <= ($k + 1) * $RATE FROM windows}), 't', "$create: $k periods");
	}
	my $got = $node->safe_psql('postgres', 'SELECT sum(count) FROM seen');
	cmp_ok($got, '>=', $RATE * $SECONDS * 1000 / $PERIOD_MS * 0.7, "$create: the rate was used ($got)");
}

############################################################### transactions, restarts

my $READ = q{SELECT count(*) FROM pgmq.read('q', 600, 3)};

make_queue(q{create('q')}, 5, '1 hour');
sql_is("BEGIN; $READ; ROLLBACK; $READ; $READ", "3\n2\n0", 'a rollback refunds nothing');
make_queue(q{create('q')}, 5, '1 hour');
sql_is("BEGIN; SAVEPOINT s; $READ; ROLLBACK TO s; $READ; PREPARE TRANSACTION 'p'; $READ; ROLLBACK PREPARED 'p'; $READ", "3\n2\n0\n0",
	'nor does a savepoint or a prepared transaction');

# A call that fails has handed out nothing
make_queue(q{create('q')}, 5, '1 hour');
$node->safe_psql('postgres', q{
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
	CREATE TRIGGER fail AFTER UPDATE ON pgmq.q_q FOR EACH STATEMENT EXECUTE FUNCTION fail()});
said($READ, qr/no/, 'a read fails') foreach 1 .. 3;
$node->safe_psql('postgres', 'DROP TRIGGER fail ON pgmq.q_q');
sql_is("$READ; $READ", "3\n2", 'and costs nothing');

# Read-only transactions and callers without rights neither
make_queue(q{create('q')}, 5, '1 hour');
said("BEGIN READ ONLY; $READ", qr/read-only transaction/, 'a read-only transaction is refused');
$node->safe_psql('postgres', 'CREATE ROLE nobody; GRANT USAGE ON SCHEMA pgmq TO nobody; GRANT UPDATE ON pgmq.q_q TO nobody');
said($READ, qr/permission denied/, 'a caller who may not read is refused', role => 'nobody');
sql_is("$READ; $READ; $READ", "3\n2\n0", 'and costs nothing');

foreach my $stop (qw(fast immediate))
{
	make_queue(q{create('q')}, 5, '1 hour');
	$node->stop($stop);
	$node->start;
	sql_is($READ, '0', "after a stop ($stop) the rate starts empty");
}

# The server goes on after a crash, and its start was long ago
make_queue(q{create('q')}, 5, '5 s');
$node->poll_query_until('postgres', q{SELECT clock_timestamp() > pg_postmaster_start_time() + interval '6 s'});
my $victim = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $victim->query_safe('SELECT pg_backend_pid()');
my $killed = Time::HiRes::time();
kill 'KILL', $pid;
until_true(sub { ($node->psql('postgres', q{SELECT 1}))[0] == 0 && !-d "/proc/$pid" }, 'the server is back');
my ($got) = sql(q{SELECT count(*) FROM pgmq.read('q', 600, 10)});
cmp_ok($got, '<=', Time::HiRes::time() - $killed + 1, 'after a crash the rate starts empty');
eval { $victim->quit };
# A new rate starts with a full period, also on a server that has just started
make_queue(q{create('q')}, 5, '1 hour');
sql_is("$READ; $READ; $READ", "3\n2\n0", 'a new rate starts full');
sql_is("SELECT pgmq.set_policy('q', rate_limit => 5); $READ", "\n0", 'and not when it is set again');

########################################################################## waiting

my %waits = (
	read => q{SELECT count(*) FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)},
	condition => q{SELECT count(*) FROM pgmq.read_with_poll('q', 600, 1, 600, 600000, '{"a": 1}')},
	grouped => q{SELECT count(*) FROM pgmq.read_grouped_with_poll('q', 600, 1, 600, 600000)},
	wait => q{CALL pgmq.wait('q', 600000)},
	wait_grouped => q{CALL pgmq.wait_grouped('q', 600000)});

foreach my $kind (sort keys %waits)
{
	foreach my $end ('time', 'raised', 'reset')
	{
		make_queue(q{create('q')}, 3, $end eq 'time' ? '900 ms' : '1 hour');
		$node->safe_psql('postgres', q{SELECT pgmq.read('q', 600, 3)});
		$node->safe_psql('postgres', q{SELECT pgmq.set_policy('q', rate_period => '3 s')}) if $end eq 'time';
		my @waiters = map { start_waiter($node, "${kind}_$_", $waits{$kind}, may_end => $end eq 'time') } 1 .. 3;
		$node->safe_psql('postgres', q{SELECT pgmq.set_policy('q', rate_limit => 1000000)}) if $end eq 'raised';
		$node->safe_psql('postgres', q{SELECT pgmq.reset_policy('q')}) if $end eq 'reset';
		is(join(' ', map { ended($_) } @waiters), join(' ', ($kind =~ /^wait/ ? 't' : '1') x 3), "$kind: all are woken: $end");
	}
}

$node->stop;
done_testing();
