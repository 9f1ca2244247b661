# One bad queue does not keep maintenance from the others: rows that say anything, code of an owner that does
# not end, intervals that have no end.  Nothing keeps the server from stopping.
use strict;
use warnings;

use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('limits');
$node->init;
$node->append_conf('postgresql.conf', qq{
fsync = off
autovacuum = off
shared_preload_libraries = 'pgmq'
pgmq.databases = 'one, two'
pgmq.maintenance_interval = 1
pgmq.maintenance_step_timeout = 500
max_worker_processes = 12
});
$node->start;
sql_on($node, 'one');

sub others_are_maintained
{
	my ($name) = @_;

	$node->safe_psql($_, "SELECT count(*) FROM pgmq.send_batch('good', array_fill('{}'::jsonb, '{100}'))") foreach 'one', 'two';
	ok($node->poll_query_until($_, 'SELECT count(*) = 0 FROM pgmq.q_good_default'), "$name: the good queue of database $_ is maintained") foreach 'one', 'two';
}

# Which databases have workers, from now on
sub databases
{
	my ($list) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET pgmq.databases = '$list'");
	$node->reload;
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgmq maintenance' AND datname = 'one'}), 'no worker is left') if $list !~ /one/;
}

# The server stops although the code of an owner is at work
sub stops_at_once
{
	my ($name) = @_;
	my $pid = $node->{_pid};

	kill 'INT', $pid or die "no postmaster $pid";
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	select(undef, undef, undef, 0.05) while -e $node->data_dir . '/postmaster.pid' && time < $deadline;
	ok(!-e $node->data_dir . '/postmaster.pid', "$name: the server stops");
	$node->_update_pid(0);
	$node->start;
}

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'one', 'two';
$node->safe_psql($_, q{CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman; SELECT pgmq.create_partitioned('good', '10', NULL, 2)}) foreach 'one', 'two';
$node->safe_psql('one', q{
	CREATE ROLE maker LOGIN; GRANT USAGE, CREATE ON SCHEMA pgmq, public TO maker; GRANT USAGE ON SCHEMA partman TO maker;
	GRANT SELECT, INSERT, DELETE ON pgmq.meta TO maker; GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.partition_config TO maker});
others_are_maintained('at first');

# Intervals that are none
my @bad = (
	[ '1 mon -719 hours', qr/ERROR:  partition_interval must be free of positive and negative units at a time, got 1 mon -719 hours/ ],
	[ '-1 mon 40 days', qr/ERROR:  partition_interval must be free of positive and negative units/ ],
	[ '1 day -1 second', qr/ERROR:  partition_interval must be free of positive and negative units/ ],
	[ '0 seconds', qr/ERROR:  partition_interval must be greater than 0/ ],
	[ '-1 day', qr/ERROR:  partition_interval must be greater than 0/ ],
	[ '-1 mon -1 day', qr/ERROR:  partition_interval must be greater than 0/ ],
	[ '1 microsecond', qr/ERROR:  partition_interval must be at least 1 second/ ],
	[ '999999 years', qr/ERROR: / ],
	[ 'infinity', qr/ERROR: / ],
	[ '9223372036854775807', qr/ERROR: / ],
	[ '-10', qr/ERROR:  partition_interval must be greater than 0/ ],
	[ '', qr/ERROR: / ]);
foreach my $case (@bad)
{
	said("SELECT pgmq.create_partitioned('bad', '$case->[0]', NULL, 2)", $case->[1], "create_partitioned with '$case->[0]'");
}
sql_is(q{SELECT pgmq.create('plain'); SELECT pgmq.create_partitioned('timed', '1 day')}, '', 'queues to convert and to set');
said(q{SELECT pgmq.convert_archive_partitioned('plain', '1 mon -719 hours')}, qr/ERROR:  partition_interval must be free of positive and negative units/, 'convert_archive_partitioned');
said(q{SELECT pgmq.convert_archive_partitioned('plain', '1 day', '1 mon -719 hours')}, qr/ERROR:  retention_interval must be free of positive and negative units/, 'its retention');
said(q{SELECT pgmq.set_retention('timed', '1 mon -719 hours')}, qr/ERROR:  retention_interval must be free of positive and negative units/, 'set_retention');
said(q{SELECT pgmq.create_partitioned('bad', '10', '-5')}, qr/ERROR:  retention_interval must be at least 0/, 'a retention below 0');
# and the same in the tables that maintenance reads; rows far away, and at the ends of the range
my @rows = map { my $i = $_->[0]; $i eq '' ? () : "'$i'" } @bad;
$node->safe_psql('one', q{
	SELECT pgmq.create_partitioned('far', '1 day', NULL, 2), pgmq.create_partitioned('ends', '10', NULL, 2), pgmq.create_partitioned('bad', '1 day', NULL, 2), pgmq.create_partitioned('badid', '10', NULL, 2)});
foreach my $interval ("'1 mon -719 hours'", "'-1 day'", "'0'", "'garbage'", "'infinity'", "'300000 years'", "'1 microsecond'")
{
	$node->safe_psql('one', qq{
		UPDATE partman.part_config SET partition_interval = $interval WHERE parent_table ~ '_bad(id)?\$';
		INSERT INTO pgmq.q_bad (enqueued_at, vt, message) VALUES (now() + interval '75 days', now(), '{}'), (now() - interval '75 days', now(), '{}')});
	my ($out, $err) = sql("SET statement_timeout = '60s'; CALL pgmq.maintain()");
	unlike($err, qr/ERROR|timeout/, "partition_interval $interval in part_config: maintain() ends");
}
others_are_maintained('beside intervals that are none');
$node->safe_psql('one', q{UPDATE partman.part_config SET partition_interval = '1 day', premake = 2147483647 WHERE parent_table ~ '_bad$';
	UPDATE partman.part_config SET partition_interval = '10' WHERE parent_table ~ '_badid$'});
foreach my $retention ("'1 mon -719 hours'", "'garbage'", "'-5'", "'infinity'", "'300000 years'")
{
	$node->safe_psql('one', qq{UPDATE pgmq.partition_config SET retention_interval = $retention WHERE queue_name IN ('far', 'ends')});
	my ($out, $err) = sql("SET statement_timeout = '60s'; CALL pgmq.maintain()");
	unlike($err, qr/ERROR|timeout/, "retention_interval $retention in partition_config: maintain() ends");
}
$node->safe_psql('one', q{
	UPDATE pgmq.partition_config SET retention_interval = NULL WHERE queue_name IN ('far', 'ends', 'bad', 'badid');
	SELECT pgmq.drop_queue('bad'), pgmq.drop_queue('badid');
	INSERT INTO pgmq.q_far (enqueued_at, vt, message) SELECT t, now(), '1' FROM unnest(ARRAY['4713-01-01 BC', '294276-12-30', '0001-01-01', '9999-12-31', 'infinity', '-infinity', 'now']::timestamptz[]) AS t;
	INSERT INTO pgmq.q_ends (msg_id, vt, message) SELECT i, now(), '1' FROM unnest(ARRAY[-9223372036854775808, 9223372036854775807, 0, -1, -9223372036854775801, 9223372036854775800, 4611686018427387904]) AS i;
	SELECT setval('pgmq.q_ends_msg_id_seq', 9223372036854775806)});
my ($out, $err) = sql("SET statement_timeout = '60s'; CALL pgmq.maintain()");
unlike($err, qr/ERROR|timeout/, 'rows at the ends of the range');
others_are_maintained('beside rows at the ends of the range');
sql_is('SELECT (SELECT count(*) FROM pgmq.q_far), (SELECT count(*) FROM pgmq.q_ends)', '7|7', 'no message is lost');
$node->safe_psql('one', q{SELECT pgmq.drop_queue('far'), pgmq.drop_queue('ends'), pgmq.drop_queue('timed'), pgmq.drop_queue('plain')});

# Rows of pgmq.meta that are no queues
$node->safe_psql('one', q{
	CREATE VIEW pgmq.q_v AS SELECT 1::bigint AS msg_id; CREATE TABLE pgmq.q_bare (); CREATE TABLE pgmq.q_listed (a int) PARTITION BY LIST (a); CREATE SEQUENCE pgmq.q_seq;
	INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('a;b', true, false), ('--', true, false), ('$', true, false), ('', true, false), ('v', true, false), ('bare', true, false), ('listed', true, false), ('seq', true, false), ('none', true, false)});
said('CALL pgmq.maintain()', qr/WARNING:  queue "a;b" is skipped: no queue can have this name/, 'a name that is none is passed over');
others_are_maintained('beside rows that are no queues');
$node->safe_psql('one', q{ALTER TABLE pgmq.meta REPLICA IDENTITY FULL; ALTER TABLE pgmq.meta ALTER queue_name DROP NOT NULL; INSERT INTO pgmq.meta VALUES (NULL, false, false)});
said('CALL pgmq.maintain()', qr/WARNING:  queue "<NULL>" is skipped: a queue must have a name/, 'so is NULL');
others_are_maintained('beside a NULL');
$node->safe_psql('one', q{DELETE FROM pgmq.meta WHERE queue_name IS NULL OR queue_name <> 'good'; ALTER TABLE pgmq.meta ALTER queue_name SET NOT NULL;
	DROP VIEW pgmq.q_v; DROP TABLE pgmq.q_bare, pgmq.q_listed; DROP SEQUENCE pgmq.q_seq});
# A queue without its columns, and one without its sequence
$node->safe_psql('one', q{
	SELECT pgmq.create_partitioned('cols', '10', NULL, 2), pgmq.create_partitioned('seq', '10', NULL, 2);
	SELECT count(*) FROM pgmq.send_batch('cols', array_fill('{}'::jsonb, '{40}')); SELECT count(*) FROM pgmq.send_batch('seq', array_fill('{}'::jsonb, '{40}'));
	ALTER TABLE pgmq.q_cols RENAME msg_id TO id; ALTER TABLE pgmq.q_cols DROP vt;
	ALTER SEQUENCE pgmq.q_seq_msg_id_seq RENAME TO q_seq_seq; CREATE TABLE pgmq.q_seq_msg_id_seq (last_value bigint, is_called boolean)});
sql('CALL pgmq.maintain()');
others_are_maintained('beside queues without columns or sequence');
sql_is('SELECT count(*) FROM pgmq.q_seq_default', 0, 'the sequence is found by its column');
$node->safe_psql('one', q{SELECT pgmq.drop_queue('cols'), pgmq.drop_queue('seq'); DROP TABLE pgmq.q_seq_msg_id_seq});

# Code of an owner that sleeps, or does not end, or does not let itself be cancelled
my %code = (
	sleeps => 'PERFORM pg_sleep(100000);',
	loops => 'LOOP NULL; END LOOP;',
	catches => 'LOOP BEGIN PERFORM pg_sleep(100000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;');
foreach my $kind (sort keys %code)
{
	my $position = -s $node->logfile;

	$node->safe_psql('one', qq{
		SET ROLE maker;
		SELECT pgmq.create_partitioned('slow', '10', NULL, 2); SELECT count(*) FROM pgmq.send_batch('slow', array_fill('{}'::jsonb, '{40}'));
		CREATE FUNCTION public.slow(bigint) RETURNS boolean LANGUAGE plpgsql AS \$\$BEGIN
			IF current_setting('application_name') = 'pgmq maintenance' OR current_setting('my.wait', true) = 'on' THEN $code{$kind} END IF; RETURN true; END\$\$;
		ALTER TABLE pgmq.q_slow ADD CHECK (public.slow(msg_id))});
	others_are_maintained("beside code that $kind");
	my $catches = $kind eq 'catches';
	ok($node->wait_for_log(qr/WARNING:  maintenance of queue "slow" took too long \(default partition\)/, $position), "code that $kind is cancelled, and the log says so") if !$catches;
	ok($node->wait_for_log(qr/FATAL:  terminating background worker "pgmq maintenance" due to administrator command/, $position), 'a worker that is not cancelled is terminated') if $catches;
	ok($node->wait_for_log(qr/LOG:  pgmq: maintenance of database \d+ failed in a step of role \d+, next attempt for its queues in 2 seconds/, $position), 'and its queues have their next turn later') if $catches;
	others_are_maintained("beside code that $kind, again");

	# A session that calls, without the worker beside it
	databases('two');
	said(q{SET my.wait = 'on'; CALL pgmq.maintain(); SELECT pgmq.send('good', '1')},
		$catches ? qr/terminating connection due to administrator command/ : qr/WARNING:  maintenance of queue "slow" took too long/, "a session that calls, beside code that $kind");
	said(q{SET my.wait = 'on'; BEGIN; CALL pgmq.maintain(); SELECT pgmq.send('good', '1'); COMMIT},
		$catches ? qr/terminating connection due to administrator command/ : qr/WARNING:  maintenance of queue "slow" took too long/, 'in a transaction block as well');
	said(q{SET pgmq.maintenance_step_timeout = '1h'; SET my.wait = 'on'; SET statement_timeout = '300ms'; CALL pgmq.maintain()}, qr/^ERROR:  canceling statement due to statement timeout/m,
		q{the caller's statement_timeout ends the call}) if !$catches;
	foreach my $how ($catches ? 'terminate' : ('cancel', 'terminate'))
	{
		my ($sout, $serr) = ('', '');
		my $call = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('one'), '-c', "SET application_name = 'caller'", '-c', "SET pgmq.maintenance_step_timeout = '1h'",
			'-c', "SET my.wait = 'on'", '-c', 'CALL pgmq.maintain()' ], '>', \$sout, '2>', \$serr);

		ok($node->poll_query_until('one', qq{SELECT bool_or(pg_${how}_backend(pid)) FROM pg_stat_activity WHERE application_name = 'caller' AND query ~ '^CALL' AND state = 'active'
			AND EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = pg_stat_activity.pid AND l.relation = 'pgmq.q_slow_default'::regclass AND mode = 'AccessExclusiveLock')}), "$how while code $kind");
		$call->finish;
		like($serr, $how eq 'cancel' ? qr/ERROR:  canceling statement due to user request/ : qr/terminating connection due to administrator command/, "a caller's session: $how while code $kind");
	}
	databases('one, two');
	ok($node->poll_query_until('one', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pgmq maintenance' AND query ~ 'q_slow, default partition'}), "the worker is at code that $kind");
	stops_at_once($kind);
	$node->safe_psql('one', q{ALTER TABLE pgmq.q_slow DROP CONSTRAINT q_slow_msg_id_check; DROP FUNCTION public.slow(bigint)});
	ok($node->poll_query_until('one', 'SELECT count(*) = 0 FROM pgmq.q_slow_default'), 'without the code the queue is maintained');
	sql_is(q{SELECT count(*) FROM pgmq.q_slow; SELECT pgmq.drop_queue('slow')}, "40\nt", 'and has lost nothing');
}

# Many queues of one owner, each with code that is slow but within the limit, are not maintained before the others' turn
$node->safe_psql('one', q{
	SET ROLE maker;
	CREATE FUNCTION public.lags() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
		IF current_setting('application_name') = 'pgmq maintenance' AND current_setting('my.lagged', true) IS DISTINCT FROM txid_current()::text THEN
			PERFORM set_config('my.lagged', txid_current()::text, true), pg_sleep(0.4); END IF; RETURN true; END$$;
	DO $$BEGIN FOR i IN 1..60 LOOP
		PERFORM pgmq.create_partitioned('lag' || i, '10', NULL, 2);
		PERFORM pgmq.send_batch('lag' || i, array_fill('{}'::jsonb, '{40}'));
		EXECUTE format('ALTER TABLE pgmq.q_lag%s ADD CHECK (public.lags())', i); END LOOP; END$$});
$node->safe_psql('postgres', q{ALTER SYSTEM SET pgmq.maintenance_step_timeout = '30s'});
$node->reload;
my $lagging = 'SELECT ' . join(' + ', map { "EXISTS (SELECT FROM pgmq.q_lag${_}_default)::int" } 1 .. 60);
foreach my $trial (1 .. 3)
{
	my $before = $node->safe_psql('one', $lagging);
	my $after;

	others_are_maintained("beside 60 queues with slow code, $trial");
	$after = $node->safe_psql('one', $lagging);
	cmp_ok($before - $after, '<=', 25, "after few of those (before $before, then $after)");
}
$node->safe_psql('postgres', 'ALTER SYSTEM RESET pgmq.maintenance_step_timeout');
$node->reload;
$node->safe_psql('one', q{DO $$BEGIN FOR i IN 1..60 LOOP PERFORM pgmq.drop_queue('lag' || i); END LOOP; END$$; DROP FUNCTION public.lags()});

# A worker that dies each time is started more and more seldom; others are not held up
my $position = -s $node->logfile;
$node->safe_psql('one', 'ALTER TABLE pgmq.meta RENAME TO meta_away; CREATE VIEW pgmq.meta AS TABLE pgmq.meta_away');
foreach my $seconds (2, 4, 8)
{
	ok($node->wait_for_log(qr/LOG:  pgmq: maintenance of database \d+ failed, next attempt in $seconds seconds/, $position), "after a worker that died: $seconds seconds");
}
$node->safe_psql('two', "SELECT count(*) FROM pgmq.send_batch('good', array_fill('{}'::jsonb, '{100}'))");
ok($node->poll_query_until('two', 'SELECT count(*) = 0 FROM pgmq.q_good_default'), 'the other database is maintained meanwhile');
$node->safe_psql('one', q{DROP VIEW pgmq.meta; ALTER TABLE pgmq.meta_away RENAME TO meta});
others_are_maintained('when it is mended');

# After its start the launcher waits for as long as it always does
$node->safe_psql('postgres', q{ALTER SYSTEM SET pgmq.maintenance_interval = '1h'});
$node->restart;
$node->safe_psql('one', "SELECT count(*) FROM pgmq.send_batch('good', array_fill('{}'::jsonb, '{100}'))");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pgmq launcher'}), 'the launcher is there');
sql_is('SELECT count(*) > 0 FROM pgmq.q_good_default', 't', 'and has started no worker yet');

$node->stop;
done_testing();
