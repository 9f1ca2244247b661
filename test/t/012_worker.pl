# Maintenance by itself: the background worker of a preloaded library, and pg_cron.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('worker');
$node->init;
$node->append_conf('postgresql.conf', qq{
fsync = off
shared_preload_libraries = 'pgmq, pg_cron'
pgmq.databases = 'older, one, two, "Capital", missing'
pgmq.maintenance_interval = 1
cron.use_background_workers = on
cron.database_name = 'postgres'
max_worker_processes = 12
});
$node->start;

sub sql_is
{
	my ($db, $query, $expected, $name) = @_;
	my ($rc, $out, $err) = $node->psql($db, $query);

	chomp($out, $err);
	is($out, $expected, $name) or diag($err);
}

sub wait_for_sql
{
	my ($db, $query, $name) = @_;

	ok($node->poll_query_until($db, $query), $name);
}

my $EMPTY_DEFAULT = "SELECT count(*) = 0 FROM pgmq.q_work_default";
my $FILL = "SELECT count(*) FROM pgmq.send_batch('work', array_fill('{}'::jsonb, '{100}'))";
my $CREATE = "CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman; SELECT pgmq.create_partitioned('work', '10', NULL, 2)";

# A database without the extension is left alone, and one that has the PL/pgSQL extension, before an update and after
# the way back
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'older', 'one', 'two', '"Capital"';
$node->safe_psql('older', old_installation('1.13.1') . old_queues('1.13.1') . q{
	CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq VERSION 'unpackaged'});
my $older = -s $node->logfile;
wait_for_sql('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pgmq launcher' AND application_name = 'pgmq launcher' AND datname IS NULL",
	'the launcher shows in pg_stat_activity, connected to no database');
$node->safe_psql($_, "$CREATE; $FILL") foreach 'one', 'two', 'Capital';
wait_for_sql($_, $EMPTY_DEFAULT, "database $_ is maintained") foreach 'one', 'two', 'Capital';

unlike(slurp_file($node->logfile, $older), qr/WARNING|ERROR.*pgmq/, 'a database of the PL/pgSQL extension is left alone');

# A role that the settings of the database name is not the worker's
$node->safe_psql('two', 'CREATE ROLE elsewhere; GRANT USAGE ON SCHEMA pgmq TO elsewhere; GRANT SELECT ON pgmq.q_work_default TO elsewhere; ALTER DATABASE two SET role = elsewhere');
$node->safe_psql('two', "SET role = none; $FILL");
wait_for_sql('two', $EMPTY_DEFAULT, 'the role that the settings of a database name is not the worker\'s');
$node->safe_psql('postgres', 'ALTER DATABASE two RESET role');

# Seen at work: a step that waits for a lock
my $holder = $node->background_psql('one');
$holder->query_safe('BEGIN; LOCK TABLE pgmq.q_work_default IN ACCESS SHARE MODE');
$node->safe_psql('one', $FILL);
wait_for_sql('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pgmq maintenance' AND datname = 'one'
	AND application_name = 'pgmq maintenance' AND query = 'pgmq.maintain(): pgmq.q_work, default partition'}, 'a worker shows what it is at');
# and the others are not kept from theirs
$node->safe_psql('two', $FILL);
wait_for_sql('two', $EMPTY_DEFAULT, 'another database is maintained meanwhile');
$holder->query_safe('COMMIT');
wait_for_sql('one', $EMPTY_DEFAULT, 'and this one, as soon as it can be');
$holder->quit;

# A failing queue does not stop the others
$node->safe_psql('one', q{
	SELECT pgmq.create_partitioned('broken', '10', NULL, 2);
	SELECT setval('pgmq.q_broken_msg_id_seq', 1000); CREATE TABLE pgmq.q_broken_p1000 ()});
my $logged = -s $node->logfile;
$node->safe_psql('one', $FILL);
wait_for_sql('one', $EMPTY_DEFAULT, 'beside a queue that fails');
ok($node->wait_for_log(qr/WARNING:  maintenance of queue "broken" failed/, $logged), 'which is in the log');
$node->safe_psql('one', 'DROP TABLE pgmq.q_broken_p1000');

# Code of a queue's owner does not run as the worker
$node->safe_psql('one', q{
	CREATE ROLE mallory;
	GRANT ALL ON SCHEMA pgmq, partman TO mallory; GRANT ALL ON ALL TABLES IN SCHEMA pgmq, partman TO mallory;
	CREATE TABLE witness (who text); GRANT INSERT ON witness TO PUBLIC;
	SET ROLE mallory;
	SELECT pgmq.create_partitioned('trap', '10', NULL, 2);
	RESET ROLE;
	GRANT CREATE ON SCHEMA public TO mallory;
	SET ROLE mallory;
	CREATE FUNCTION public.spring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.witness VALUES (current_user); RETURN COALESCE(NEW, OLD); END';
	CREATE TRIGGER trap BEFORE INSERT OR DELETE ON pgmq.q_trap FOR EACH ROW EXECUTE FUNCTION public.spring();
	ALTER TABLE pgmq.q_trap ENABLE ALWAYS TRIGGER trap});
$node->safe_psql('one', "SELECT count(*) FROM pgmq.send_batch('trap', array_fill('{}'::jsonb, '{60}'))");
wait_for_sql('one', "SELECT count(*) = 0 FROM pgmq.q_trap_default", 'a queue with a trigger that fires always');
sql_is('one', "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname ~ '^q_trap'", 'mallory', 'the worker acted as the owner');
sql_is('one', "SELECT who, count(*) FROM witness GROUP BY 1", 'postgres|60', 'and no trigger has fired, after the sends');

# A worker that is terminated is replaced, and so is the launcher
$holder = $node->background_psql('one');
$holder->query_safe('BEGIN; LOCK TABLE pgmq.q_work_default IN ACCESS SHARE MODE');
$node->safe_psql('one', $FILL);
wait_for_sql('postgres', "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'pgmq maintenance' AND datname = 'one'", 'a worker is terminated');
$holder->query_safe('COMMIT');
$holder->quit;
wait_for_sql('one', $EMPTY_DEFAULT, 'the next one does its work');

# DROP DATABASE is not kept from it, while rounds go on
$node->safe_psql('postgres', 'CREATE DATABASE gone');
$node->safe_psql('postgres', "ALTER SYSTEM SET pgmq.databases = 'one, gone'");
$node->reload;
$node->safe_psql('gone', "$CREATE; $FILL");
wait_for_sql('gone', $EMPTY_DEFAULT, 'after a reload a new database is maintained');
my ($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE gone');
is($rc, 0, 'it can be dropped') or diag($err);
foreach my $round (1 .. 3)
{
	$node->safe_psql('one', $FILL);
	wait_for_sql('one', $EMPTY_DEFAULT, "the others go on, round $round");
}
# A worker that was already on its way when the database was dropped is the only one that misses it
my @missed = slurp_file($node->logfile) =~ /FATAL:  database .* does not exist/g;
cmp_ok(scalar(@missed), '<=', 1, 'and nobody looks for it');

# DROP EXTENSION, and a crash
$node->safe_psql('one', "SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues(); DROP EXTENSION pgmq");
$node->stop('immediate');
$node->start;
$node->safe_psql('one', "CREATE EXTENSION pgmq; SELECT pgmq.create_partitioned('work', '10', NULL, 2); $FILL");
wait_for_sql('one', $EMPTY_DEFAULT, 'after a crash, with the extension made anew');

# Off
$node->safe_psql('postgres', "ALTER SYSTEM SET pgmq.databases = ''");
$node->reload;

# The other way: pg_cron
$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron');
$node->safe_psql('postgres', "$CREATE; $FILL");
# A schedule by the minute would have the test wait for one
$node->safe_psql('postgres', "SELECT cron.schedule('pgmq', '\@reboot', 'CALL pgmq.maintain()')");
$node->restart;
wait_for_sql('postgres', $EMPTY_DEFAULT, 'pg_cron calls maintain()');
wait_for_sql('postgres', "SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'succeeded' AND command = 'CALL pgmq.maintain()'", 'with success');
sql_is('postgres', "SELECT count(*) FROM cron.job_run_details WHERE status = 'failed'", 0, 'each time');

$node->stop;
done_testing();
