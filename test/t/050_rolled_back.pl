# Every call in a part of a transaction that is rolled back, and then again: it must
# do the same, and nothing of the first time may be left in the session's memory.
# (On the server with assertions, freed memory is overwritten.)
use strict;
use warnings;

use File::Basename;
use lib dirname(__FILE__);
use PgmqVerbs;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('rolled_back');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', "fsync = off\nmax_prepared_transactions = 5");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');
$node->safe_psql('postgres', PgmqVerbs::setup(1));

$node->safe_psql('postgres', "SELECT pgmq.create('side'); SELECT pgmq.enable_notify_insert('side', 0)");

my @verbs = PgmqVerbs::verbs(1);

# No call is missing here
is( $node->safe_psql('postgres', sprintf(q{
		SELECT p.proname FROM pg_proc p
		 WHERE p.pronamespace = 'pgmq'::regnamespace AND p.prorettype <> 'trigger'::regtype
		   AND $verbs$%s$verbs$ !~ ('pgmq\.' || p.proname || '\(')
		 ORDER BY 1}, join("\n", @verbs, PgmqVerbs::calls()))),
	'', 'every function and procedure is called here');

############################################################## in PL/pgSQL

$node->safe_psql('postgres', q{
	CREATE FUNCTION run(sql text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		result text;
	BEGIN
		EXECUTE 'SELECT string_agg(x, '','') FROM (' || sql || ') AS verb (x)' INTO result;
		RETURN coalesce(result, '');
	END $$;
	-- Its result, and nothing that it has done
	CREATE FUNCTION undone(sql text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION USING ERRCODE = 'UNDO1', MESSAGE = run(sql);
	EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
		RETURN SQLERRM;
	END $$;
	-- The same with parts that are rolled back and parts that are kept inside each other
	CREATE FUNCTION nested(sql text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		inner_result text;
		outer_result text;
	BEGIN
		BEGIN
			PERFORM count(*) FROM pgmq.send('side', '1');
			inner_result := undone(sql);
			BEGIN
				outer_result := run(sql);
			EXCEPTION WHEN no_data_found THEN
				NULL;
			END;
			PERFORM count(*) FROM pgmq.send('side', '2');
			PERFORM undone('SELECT s::text FROM pgmq.send(''side'', ''3'') AS s');
			IF inner_result IS DISTINCT FROM outer_result THEN
				RAISE 'once % and then %', inner_result, outer_result;
			END IF;
			RAISE EXCEPTION USING ERRCODE = 'UNDO2', MESSAGE = outer_result;
		EXCEPTION WHEN SQLSTATE 'UNDO2' THEN
			RETURN SQLERRM;
		END;
	END $$;
	-- A user's trigger that fails in the middle of a call
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF current_setting('test.fail', true) = 'on' THEN
			RAISE EXCEPTION USING ERRCODE = 'FAIL1', MESSAGE = 'failed';
		END IF;
		RETURN NULL;
	END $$;
	CREATE FUNCTION failed(sql text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('test.fail', 'on', true);
		PERFORM undone(sql);
		PERFORM set_config('test.fail', 'off', true);
		RETURN 'did not fail';
	EXCEPTION WHEN SQLSTATE 'FAIL1' THEN
		RETURN 'failed';
	END $$;
	DO $$
	DECLARE
		t text;
	BEGIN
		FOR t IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p')
			AND NOT relispartition AND relname ~ '^[aqg]_' LOOP
			EXECUTE format('CREATE TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION fail()', t);
		END LOOP;
	END $$;
});

sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

# All in one session: what is left behind is found there
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('SET client_min_messages = error');

my %failed;
my @expected;
for my $verb (@verbs)
{
	my $sql = literal($verb);
	my $undone = $session->query_safe("SELECT undone($sql)");
	my $nested = $session->query_safe("SELECT nested($sql)");
	my $failed = $session->query_safe("SELECT failed($sql)");
	my $kept = $session->query_safe("SELECT run($sql)");

	is("$undone, $nested", "$kept, $kept", $verb);
	$failed{$failed}++;
	push @expected, $kept;
}
cmp_ok($failed{failed}, '>', 40, 'triggers made calls fail in the middle');

################################################## in savepoints, and prepared

$node->safe_psql('postgres', "SELECT count(pgmq.drop_queue(queue_name)) FROM pgmq.list_queues() WHERE queue_name <> 'side'");
$node->safe_psql('postgres', PgmqVerbs::setup(1));
for my $verb (@verbs)
{
	my @results;

	# psql makes a call of each statement; what it prints is of the last
	my $run = 'SELECT run(' . literal($verb) . ')';

	push @results, $session->query_safe("BEGIN; SELECT FROM pgmq.send('side', '1') \\gset\nSAVEPOINT a; $run");
	push @results, $session->query_safe("ROLLBACK TO a; SAVEPOINT b; SAVEPOINT c; $run");
	push @results, $session->query_safe("RELEASE c; ROLLBACK TO b; RELEASE b; SAVEPOINT d; $run");
	push @results, $session->query_safe("RELEASE d; ROLLBACK; BEGIN; $run");
	$session->query("PREPARE TRANSACTION 'p'; ROLLBACK; ROLLBACK PREPARED 'p'");
	$session->{stderr} = '';
	# What a prepared transaction gives back is found by the next sweep, in its time
	push @results, $session->query_safe("SELECT count(pgmq.rescan(queue_name)) AS rescanned FROM pgmq.list_queues() \\gset\n$run");
	is(join(' / ', @results), join(' / ', ($results[-1]) x @results), "savepoints: $verb");
	is($results[-1], shift @expected, "the same as before: $verb");
}

# A transaction that sent to a queue that notifies can't be prepared, and nothing of it is left
$session->query_safe($_)
  for "SELECT pgmq.enable_notify_insert('t2', 60000)", 'BEGIN', "SELECT pgmq.send('t2', '1')";
$session->query("PREPARE TRANSACTION 'p'");
like($session->{stderr}, qr/cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY/, 'refused');
$session->{stderr} = '';
$session->query_safe($_) for 'ROLLBACK', "SELECT pgmq.send('t2', '1')";

############################################### cursors, across savepoints

# Five snapshots in the memory of a transaction, which a send must not write over
for my $round (1 .. 3)
{
	$session->query_safe($_)
	  for 'BEGIN', 'SAVEPOINT a', "SELECT pgmq.send('t2', '1')", 'ROLLBACK TO a', 'COMMIT',
	  'BEGIN', 'SAVEPOINT x', (map { "DECLARE c$_ CURSOR FOR SELECT * FROM pg_class" } 1 .. 5),
	  'SAVEPOINT s1', "SELECT pgmq.send('t2', '2')", 'FETCH 5 FROM c1', 'FETCH 5 FROM c2', 'CLOSE c2', 'CLOSE c1',
	  'ROLLBACK TO x', 'COMMIT', "SELECT pgmq.send('t2', '3')";
}
pass('sends in savepoints beside cursors');

$session->query_safe("SELECT count(*) FROM pgmq.send_batch('t1', array_fill('1'::jsonb, '{20}'))");
$session->query_safe($_)
  for 'BEGIN', 'SAVEPOINT a',
  "DECLARE c CURSOR FOR SELECT message FROM pgmq.read('t1', 3600, 10)",
  "DECLARE d CURSOR FOR SELECT pgmq.pop('t1', 5)",
  "DECLARE e CURSOR FOR SELECT pgmq.send('t1', '1') FROM generate_series(1, 3)";
is($session->query_safe('FETCH 3 FROM c') =~ tr/\n//, 2, 'three messages through a cursor');
$session->query_safe($_) for 'FETCH 2 FROM d', 'FETCH 2 FROM e', 'SAVEPOINT b', 'FETCH 1 FROM c', 'FETCH 1 FROM d',
  "SELECT pgmq.pop('t1', 2)", 'ROLLBACK TO b';
is($session->query_safe('FETCH ALL FROM c') =~ tr/\n//, 5, 'and the others, after a savepoint that fetched one');
$session->query_safe($_) for 'FETCH ALL FROM d', 'FETCH ALL FROM e', 'ROLLBACK TO a', "SELECT pgmq.pop('t1', 2)",
  "DECLARE h CURSOR WITH HOLD FOR SELECT message FROM pgmq.read('t1', 3600, 10)", 'COMMIT';
is($session->query_safe('FETCH ALL FROM h') =~ tr/\n//, 9, 'a cursor that is held has its messages after the commit');
$session->query_safe($_) for 'CLOSE h', "SELECT pgmq.send('t1', '1')";

######################################## the procedures, where they may be called

for my $call (PgmqVerbs::calls(),
	q{DO $$ BEGIN CALL pgmq.maintain(); END $$},
	q{DO $$ BEGIN BEGIN CALL pgmq.upgrade_queues(); EXCEPTION WHEN OTHERS THEN NULL; END; END $$},
	q{DO $$ DECLARE s bool; BEGIN CALL pgmq.wait('v', 1, s); END $$},
	q{DO $$ BEGIN BEGIN CALL pgmq.maintain(); EXCEPTION WHEN OTHERS THEN NULL; END; END $$},
	q{DO $$ DECLARE s bool; BEGIN BEGIN CALL pgmq.wait('v', 1, s); EXCEPTION WHEN OTHERS THEN NULL; END; END $$},
	q{DO $$ DECLARE t text[]; BEGIN BEGIN CALL pgmq.wait_any('{v,vn}', 1, t); EXCEPTION WHEN OTHERS THEN NULL; END; END $$})
{
	$session->query_safe($_) for $call, "SELECT pgmq.send('v', '1')", "SELECT pgmq.read('v', 0, 1)";
	pass($call);
}

is($session->query_safe('SELECT 1'), '1', 'the session lives');
$session->quit;
$node->stop;
done_testing();
