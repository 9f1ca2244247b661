# An extension that requires pgmq, as pg_later and pg_vectorize do: its script makes a queue, its init() makes others, its
# functions call ours and use the tables of queues directly, and it has views and functions on our functions and types.
# It works on this extension, and it goes on after an update from the PL/pgSQL extension 1.11.1 below it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;
use PgmqSql;

chomp(my $extensions = `pg_config --sharedir` =~ s/\n//r . '/extension');
plan skip_all => 'the directory of extensions cannot be written' unless -w $extensions;
my @files = ("$extensions/pgmq_jobs.control", "$extensions/pgmq_jobs--1.0.sql");
END { unlink @files if @files }
append_to_file($files[0], "default_version = '1.0'\nschema = jobs\nrelocatable = false\nrequires = 'pgmq'\n");
append_to_file($files[1], <<'EOS');
SELECT pgmq.create('jobs_of_script');

CREATE FUNCTION jobs.init() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmq.create(queue) FROM unnest('{jobs,results}'::text[]) AS queue
	  WHERE NOT EXISTS (SELECT FROM pgmq.meta WHERE queue_name = queue);
END $$;

CREATE FUNCTION jobs.exec(query text, delay integer DEFAULT 0) RETURNS bigint LANGUAGE sql AS $$
	SELECT pgmq.send('jobs', jsonb_build_object('query', query), delay) $$;

CREATE FUNCTION jobs.work() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	job pgmq.message_record;
	result jsonb;
	done integer := 0;
BEGIN
	FOR job IN SELECT * FROM pgmq.read(queue_name => 'jobs', vt => 60, qty => 10)
	LOOP
		EXECUTE format('SELECT to_jsonb(r) FROM (%s) AS r', job.message ->> 'query') INTO result;
		PERFORM pgmq.send('results', jsonb_build_object('job', job.msg_id, 'result', result));
		IF NOT pgmq.archive('jobs', job.msg_id) THEN
			RAISE 'job % is gone', job.msg_id;
		END IF;
		done := done + 1;
	END LOOP;
	RETURN done;
END $$;

-- The tables directly
CREATE FUNCTION jobs.result(job bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT message -> 'result' FROM pgmq.q_results WHERE (message ->> 'job')::bigint = job);
END $$;

CREATE FUNCTION jobs.exec_now(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	id bigint;
BEGIN
	INSERT INTO pgmq.q_jobs (vt, message) VALUES (clock_timestamp(), jsonb_build_object('query', query)) RETURNING msg_id INTO id;
	RETURN id;
END $$;

CREATE FUNCTION jobs.hurry() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE pgmq.q_jobs SET vt = clock_timestamp() WHERE vt > clock_timestamp();
END $$;

CREATE FUNCTION jobs.pending() RETURNS bigint
BEGIN ATOMIC
	SELECT count(*) FROM pgmq.q_jobs_of_script WHERE vt <= clock_timestamp();
END;

-- Our functions and types, by more than their names
CREATE VIEW jobs.lengths AS SELECT queue_name, queue_length FROM pgmq.metrics_all();
CREATE FUNCTION jobs.next() RETURNS SETOF pgmq.message_record
BEGIN ATOMIC
	SELECT * FROM pgmq.read('jobs_of_script', 0, 1);
END;
CREATE TABLE jobs.history (job pgmq.message_record, at timestamptz DEFAULT now());
CREATE FUNCTION jobs.changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmq.send('jobs_of_script', to_jsonb(NEW));
	RETURN NEW;
END $$;
EOS

my $node = PostgreSQL::Test::Cluster->new('dependents');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', 'CREATE DATABASE fresh; CREATE DATABASE updated');

# begin: some jobs are done, one is late, one is new, and one is being worked on
sub begin
{
	my ($db) = @_;

	sql_on($node, $db);
	sql_is(q{SELECT jobs.init(); SELECT jobs.exec('SELECT 40 + 2 AS sum'), jobs.exec('SELECT 1 AS one'); SELECT jobs.work(); SELECT jobs.work();
		SELECT jobs.result(1), jobs.result(2), jobs.result(3)},
		qq(\n1|2\n2\n0\n{"sum": 42}|{"one": 1}|), "$db: jobs are done");
	sql_is(q{SELECT jobs.exec('SELECT 3 AS n'); SELECT count(*) FROM pgmq.read('jobs', 3600, 1); SELECT jobs.exec('SELECT 4 AS n', 3600), jobs.exec('SELECT 5 AS n');
		CREATE TABLE public.goods (id integer PRIMARY KEY, name text);
		CREATE TRIGGER changed AFTER INSERT OR UPDATE ON public.goods FOR EACH ROW EXECUTE FUNCTION jobs.changed();
		INSERT INTO public.goods VALUES (1, 'tea'); INSERT INTO jobs.history (job) SELECT n FROM jobs.next() AS n},
		"3\n1\n4|5", "$db: others are on their way");
	return;
}

# go_on: what begin() has left is there, and everything works
sub go_on
{
	my ($db) = @_;

	sql_is(q{SELECT jobs.work(); SELECT jobs.result(5); SELECT queue_name, queue_length FROM jobs.lengths ORDER BY 1},
		qq(1\n{"n": 5}\njobs|2\njobs_of_script|1\nresults|3), "$db: the work goes on");
	sql_is(q{SELECT jobs.exec_now('SELECT 6 AS n')}, '6', "$db: a job is written by hand");
	# Such a row is found within pgmq.rescan_interval
	ok_until("$db: and is done", sub { (sql('SELECT jobs.work() = 1 AND jobs.result(6) IS NOT NULL'))[0] eq 't' });
	sql_is(q{SELECT jobs.hurry()}, '', "$db: vt is written by hand");
	ok_until("$db: and the two jobs are done", sub { (sql('SELECT jobs.work() >= 0 AND jobs.result(3) IS NOT NULL AND jobs.result(4) IS NOT NULL'))[0] eq 't' });
	sql_is(q{SELECT count(*), max(msg_id), max(read_ct) FROM pgmq.a_jobs; SELECT count(*) FROM pgmq.q_jobs}, "6|6|2\n0", "$db: all jobs are in the archive");
	sql_is(q{UPDATE public.goods SET name = 'milk'; SELECT jobs.pending(); SELECT (n).msg_id, (n).read_ct, (n).message FROM jobs.next() AS n;
		SELECT (job).msg_id, (job).message FROM jobs.history}, qq(2\n1|2|{"id": 1, "name": "tea"}\n1|{"id": 1, "name": "tea"}), "$db: triggers, types, and functions of SQL");

	# What depends on what
	said('DROP EXTENSION pgmq', qr/ERROR:  cannot drop extension pgmq because other objects depend on it\nDETAIL:.*extension pgmq_jobs depends on extension pgmq/s,
		"$db: DROP EXTENSION pgmq refuses");
	sql_is(q{BEGIN; SET client_min_messages = error; DROP EXTENSION pgmq CASCADE; SELECT count(*) FROM pg_extension WHERE extname ~ 'pgmq'; SELECT to_regclass('pgmq.q_jobs_of_script'), to_regclass('pgmq.q_jobs'); ROLLBACK},
		"0\n|pgmq.q_jobs", "$db: and with CASCADE removes both, and the queue that is a part of the other");
	said(q{SELECT pgmq.drop_queue('jobs_of_script')}, qr/ERROR:  cannot drop table pgmq\.q_jobs_of_script because extension pgmq_jobs requires it/, "$db: such a queue cannot be dropped");
	sql_is(q{SELECT pgmq.create_fifo_index('jobs'); SELECT pgmq.enable_notify_insert('jobs_of_script'); SELECT count(*) FROM pgmq.read_grouped('jobs_of_script', 0, 5);
		SELECT pgmq.create_fifo_index('jobs_of_script'); SELECT count(*) FROM pgmq.read_grouped('jobs_of_script', 0, 5);
		UPDATE public.goods SET name = 'sugar'; SELECT msg_id FROM pgmq.pop('jobs_of_script', 3)}, "\n\n2\n\n2\n1\n2\n3", "$db: indexes and notifications of such queues");

	# In a restore the script of the other extension makes its queue first.  What pgmq keeps about it comes after that.
	my $about = q{SELECT * FROM pgmq.meta ORDER BY 1};
	my $kept = $node->safe_psql($db, $about);
	$node->safe_psql('postgres', "CREATE DATABASE ${db}_restored");
	$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/$db.dump", '-d', $node->connstr($db) ], "$db: dump");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', '2', '-d', $node->connstr("${db}_restored"), "$dir/$db.dump" ], "$db: restore");
	is($node->safe_psql("${db}_restored", $about), $kept, "$db: the list of queues is restored");
	is($node->safe_psql("${db}_restored", q{SELECT pgmq.send('jobs_of_script', '1'); SELECT msg_id FROM pgmq.read('jobs', 0, 1);
		SELECT queue_name, throttle_interval_ms FROM pgmq.notify_insert_throttle}), "1\njobs_of_script|250", "$db: and the queues work");
	said(q{INSERT INTO pgmq.meta VALUES ('jobs_of_script', false, true, now())}, qr/ERROR:  duplicate key/, "$db: but a row that says something else is refused");
	said(q{INSERT INTO pgmq.meta VALUES ('jobs', false, false, now())}, qr/ERROR:  duplicate key/, "$db: and one for another queue");

	# Without the other extension
	sql_is(q{DROP TRIGGER changed ON public.goods; SET client_min_messages = error; DROP EXTENSION pgmq_jobs;
		SELECT queue_name, queue_length FROM pgmq.metrics_all(); SELECT queue_name FROM pgmq.list_queues(); SELECT pgmq.drop_queue('jobs_of_script'); SELECT pgmq.create('jobs_of_script');
		SELECT pgmq.send('jobs_of_script', '1'); SELECT msg_id FROM pgmq.read('jobs', 0, 1)},
		"jobs|0\nresults|6\njobs\njobs_of_script\nresults\nt\n\n1", "$db: when it is gone, pgmq works on");
	return;
}

$node->safe_psql('fresh', 'CREATE EXTENSION pgmq_jobs CASCADE');
begin('fresh');
go_on('fresh');

SKIP:
{
	my $why_not = why_not_released();
	skip $why_not, 1 if $why_not;
	$node->safe_psql('updated', "CREATE EXTENSION pgmq VERSION '1.11.1'; CREATE EXTENSION pgmq_jobs");
	# A session that has worked before, and goes on
	my $session = $node->background_psql('updated');
	$session->query_safe('SELECT jobs.init(); SELECT jobs.work(); PREPARE result AS SELECT jobs.result(2)');
	begin('updated');
	is($session->query_safe('EXECUTE result'), '{"one": 1}', 'updated: a session before the update');
	$node->safe_psql('updated', 'ALTER EXTENSION pgmq UPDATE');
	sql_is(q{SELECT extversion > '2' FROM pg_extension WHERE extname = 'pgmq'}, 't', 'updated: it is ours');
	is($session->query_safe('BEGIN; SELECT jobs.work(), jobs.result(5), count(*) FROM jobs.next(); EXECUTE result; ROLLBACK'),
		qq(1|{"n": 5}|1\n{"one": 1}), 'updated: the session goes on');
	$session->quit;
	go_on('updated');
}

$node->stop;
done_testing();
