# A role that makes many of something: triggers for notifications, rows about queues that
# don't exist, queues that it locks.  The others are hardly delayed, and lose nothing.
# The time limits here are far above what a call takes, and below what it took when each of them cost something.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('crowds');
$node->init;
$node->append_conf('postgresql.conf', q{
fsync = off
autovacuum = off
max_locks_per_transaction = 256
log_min_messages = error
shared_preload_libraries = 'pgmq'
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE ROLE stranger;
	CREATE ROLE maker;
	GRANT USAGE ON SCHEMA pgmq TO stranger, maker;
	GRANT CREATE ON SCHEMA pgmq TO maker;
	GRANT SELECT, INSERT ON pgmq.meta TO maker;
	SELECT pgmq.create('orders');
	SELECT pgmq.enable_notify_insert('orders', 3600000)});

# ---- triggers that speak for queues that don't exist ----

# notifications_of(how many sends): of a transaction each, by a session that listens
sub notifications_of
{
	my ($sends) = @_;
	my $out = $node->safe_psql('postgres', qq{LISTEN "pgmq.q_orders.INSERT";\n} . qq{SELECT pgmq.send('orders', '1');\n} x $sends);

	return scalar(() = $out =~ /Asynchronous notification "pgmq\.q_orders\.INSERT"/g);
}

$node->safe_psql('postgres', q{
	CREATE TABLE many (i int);
	ALTER TABLE many OWNER TO stranger;
	SET ROLE stranger;
	DO $$ BEGIN FOR i IN 1..3000 LOOP
		EXECUTE format('CREATE TRIGGER t%s AFTER INSERT ON many FOR EACH STATEMENT EXECUTE FUNCTION pgmq.notify_queue_listeners(%L)', i, 'n' || i);
	END LOOP; END $$});
my $stranger = $node->background_psql('postgres');
my $pid = $stranger->query_safe('SELECT pg_backend_pid()');
$stranger->query_until(qr/started/, "\\echo started\nSET ROLE stranger;\n" .
	'DO $$ BEGIN FOR i IN 1..100000 LOOP INSERT INTO many VALUES (1); COMMIT; END LOOP; END $$;' . "\n");
$node->poll_query_until('postgres', 'SELECT count(*) > 3 FROM many') or die;
is(notifications_of(20), 1, 'one notification in an interval, while a stranger announces 3,000 queues');
is(notifications_of(20), 0, 'and no more in the same interval');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");

# ---- rows about queues that don't exist ----

$node->safe_psql('postgres', q{SET ROLE maker; INSERT INTO pgmq.meta SELECT 'none' || i, true, false FROM generate_series(1, 60000) AS i});
foreach my $call ('SELECT count(*) FROM pgmq.list_partitions()', 'SELECT count(*) FROM pgmq.metrics_all()', 'SELECT pgmq.create_fifo_indexes_all()')
{
	my ($out, $err);

	$node->psql('postgres', "SET statement_timeout = '15s'; $call", stdout => \$out, stderr => \$err);
	unlike($err, qr/ERROR/, "$call beside 60,000 rows without queues");
}
$node->safe_psql('postgres', 'TRUNCATE pgmq.meta CASCADE');

# ---- queues that are locked ----

$node->safe_psql('postgres', q{
	SET ROLE maker;
	SELECT count(*) FROM (SELECT pgmq.create('locked' || i) FROM generate_series(1, 150) AS i) AS c;
	SELECT pgmq.create('open')});
my $maker = $node->background_psql('postgres');
$maker->query_safe(q{
	SET ROLE maker;
	BEGIN;
	DO $$ BEGIN FOR i IN 1..150 LOOP EXECUTE format('LOCK TABLE pgmq.q_locked%s IN ACCESS EXCLUSIVE MODE', i); END LOOP; END $$});
foreach my $call ('SELECT pgmq.create_fifo_indexes_all()', 'SELECT count(*) FROM pgmq.metrics_all()')
{
	my ($out, $err);

	$node->psql('postgres', "SET statement_timeout = '20s'; $call", stdout => \$out, stderr => \$err);
	unlike($err, qr/ERROR/, "$call beside 150 locked queues");
	is(scalar(() = $err =~ /queue "locked\d+" is skipped: canceling statement due to lock timeout/g), 150, 'which it skips');
}
is($node->safe_psql('postgres', q{SELECT to_regclass('pgmq.g_open') IS NOT NULL}), 't', 'and not the others');
$maker->quit;

$node->stop;
done_testing();
