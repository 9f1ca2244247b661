# CALL pgmq.upgrade_queues(): queues of the PL/pgSQL extension become like fresh ones, while senders and readers work.
# Whatever ends a call, another one goes on.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use OldPgmq;

my $DEADLINE = 180;
my $node = PostgreSQL::Test::Cluster->new('upgrade');
$node->init;
$node->append_conf('postgresql.conf', q{
fsync = off
autovacuum = off
log_statement = none
max_prepared_transactions = 2
});
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN; CREATE ROLE other LOGIN; CREATE DATABASE fresh');

# psql(db, role, sql): exit code, output, errors
sub psql
{
	my ($db, $role, $sql) = @_;
	my ($out, $err) = ('', '');
	my $rc = $node->psql($db, $sql, stdout => \$out, stderr => \$err, on_error_stop => 0, extra_params => [ '-U', $role ]);

	return ($rc, $out, $err);
}

sub start_sql
{
	my ($db, $role, $name, @sql) = @_;
	my $run = { name => $name, out => '', err => '' };

	$run->{harness} = IPC::Run::start(
		[ 'psql', '-XAtq', '-U', $role, '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db) . " application_name=$name",
			map { ('-c', $_) } @sql ],
		'<', \'', '>', \$run->{out}, '2>', \$run->{err});
	return $run;
}

sub until_true
{
	my ($code, $name) = @_;
	my $end = time + $DEADLINE;

	while (time < $end)
	{
		return 1 if $code->();
		usleep(20_000);
	}
	diag("not in $DEADLINE seconds: $name");
	return 0;
}

# Whether the session of that name waits for a lock
sub waits
{
	my ($name) = @_;

	return until_true(sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE application_name = '$name' AND wait_event_type = 'Lock'") > 0
	}, "$name waits");
}

# The indexes and triggers of queues, and what their sequences are
sub shapes
{
	my ($db, @queues) = @_;
	my $names = join(', ', map { ("'q_$_'", "'a_$_'", "'g_$_'") } @queues);

	return $node->safe_psql($db, qq{
		SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index AS x JOIN pg_class AS c ON c.oid = indrelid
		 WHERE relnamespace = 'pgmq'::regnamespace AND relname IN ($names) ORDER BY indexrelid::regclass::text;
		SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
		 WHERE relnamespace = 'pgmq'::regnamespace AND relname IN ($names) AND NOT tgisinternal ORDER BY tgname, relname;
		SELECT relname, relowner::regrole = (SELECT datdba FROM pg_database WHERE datname = current_database())::regrole, relpersistence FROM pg_class AS c
		 WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ '^([qag]_|archived)' AND relkind IN ('S', 'i', 'I')
		   AND relname !~ '_p0' AND relname ~ '_(${\ join('|', @queues)})_' ORDER BY 1});
}

my $LEFT = q{SELECT queue_name, is_partitioned, needs_vt_index, needs_id_index, needs_group_index, needs_logged_sequence,
	needs_statement_trigger, needs_retention, needs_complete_tables FROM pgmq.queues_to_upgrade ORDER BY queue_name COLLATE "C"};

sub old_database
{
	my ($db, $version) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER boss");
	my ($rc, $out, $err) = psql($db, 'boss', old_installation($version) . old_queues($version) . "CREATE EXTENSION pgmq VERSION 'unpackaged'");
	is($err, '', "$version: is there");
	$node->safe_psql($db, old_extension($version));
	($rc, $out, $err) = psql($db, 'boss', 'ALTER EXTENSION pgmq UPDATE');
	is($err, '', "$version: is updated");
}

###################################################### all kinds, while they are in use

$node->safe_psql('fresh', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('orders'), pgmq.create('Mixed'), pgmq.create_unlogged('unlogged'), pgmq.create('aged'),
		pgmq.create_fifo_index('orders'), pgmq.enable_notify_insert('orders')});
is($node->safe_psql('fresh', $LEFT), '', 'a fresh installation has nothing to upgrade');

old_database('old', '1.13.1');
$node->safe_psql('old', 'GRANT USAGE ON SCHEMA pgmq TO other');
is($node->safe_psql('old', $LEFT), join("\n",
	'Mixed|f|t|f|f|f|f|f|f', 'aged|f|t|f|f|f|f|f|f', 'orders|f|t|f|t|f|t|f|f', 'part|t|t|f|f|f|t|t|f', 'timed|t|t|t|f|f|f|t|f', 'unlogged|f|t|f|f|t|f|f|f'),
	'the view lists what each queue lacks');
is((psql('old', 'boss', $LEFT))[1], $node->safe_psql('old', $LEFT), 'and the owner of the extension may read it');
like((psql('old', 'other', $LEFT))[2], qr/permission denied for view queues_to_upgrade/, 'another role may not');
$node->safe_psql('old', 'GRANT SELECT ON pgmq.queues_to_upgrade TO other');
like((psql('old', 'other', $LEFT))[2], qr/permission denied for table meta/, 'unless it may read pgmq.meta as well');
is($node->safe_psql('old', q{SELECT relowner::regrole, has_table_privilege('pg_monitor', oid, 'SELECT') FROM pg_class WHERE relname = 'queues_to_upgrade'}),
	'boss|t', 'pg_monitor may');

# Enough to do, so that builds and clients meet
my @queues = qw(orders mixed unlogged part timed aged);
$node->safe_psql('old', join(';', map { qq{
	INSERT INTO pgmq.q_$_ (vt, message, headers) SELECT clock_timestamp(), '{"old": true}', jsonb_build_object('x-pgmq-group', i % 50)
	  FROM generate_series(1, 3000) AS i} } @queues) . q{;
	CREATE TABLE public.sent (queue text, id bigint);
	CREATE TABLE public.got (queue text, id bigint)});
my $before = $node->safe_psql('old', join(' UNION ALL ', map { "SELECT '$_', count(*) FROM pgmq.q_$_" } @queues) . ' ORDER BY 1');
my $script = "${\ $node->basedir}/clients.sql";
append_to_file($script, join("\n", map { my $read = $_ eq 'orders' ? 'read_grouped' : 'read'; qq{
	WITH s AS (SELECT pgmq.send('$_', '{"new": true}', '{"x-pgmq-group": "n"}'::jsonb) AS id) INSERT INTO public.sent SELECT '$_', id FROM s;
	INSERT INTO public.got SELECT '$_', msg_id FROM pgmq.$read('$_', 3600, 2);} } @queues));
my ($bench_out, $bench_err) = ('', '');
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '8', '-f', $script, $node->connstr('old') ],
	'>', \$bench_out, '2>', \$bench_err);
until_true(sub { $node->safe_psql('old', 'SELECT count(*) FROM public.sent') > 50 }, 'clients work');
my ($rc, $out, $err) = psql('old', 'boss', 'CALL pgmq.upgrade_queues()');
is("$rc: $err", '0: ', 'the owner upgrades all queues');
is($node->safe_psql('old', $LEFT), '', 'nothing is left');
ok($bench->pumpable, 'while clients worked');
IPC::Run::finish($bench);
is($bench->result(0), 0, 'which had no errors') or diag($bench_err);
unlike($bench_err . $bench_out, qr/ERROR|aborted in/, 'none at all');

is(shapes('old', qw(orders mixed unlogged aged)), shapes('fresh', qw(orders mixed unlogged aged)),
	'queues are those of a fresh installation: indexes, triggers, sequences, owners');
is($node->safe_psql('old', q{
	SELECT regexp_replace(pg_get_indexdef(indexrelid), '.* ON ', ''), indisvalid FROM pg_index
	 WHERE indrelid IN ('pgmq.q_part'::regclass, 'pgmq.q_timed'::regclass) ORDER BY indexrelid::regclass::text;
	SELECT tgname, tgtype FROM pg_trigger WHERE tgrelid = 'pgmq.q_part'::regclass;
	SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pgmq.q_part_p0'::regclass;
	SELECT * FROM pgmq.partition_config ORDER BY 1}), join("\n",
	'ONLY pgmq.q_part USING btree (msg_id)|t', 'ONLY pgmq.q_part USING btree (vt, msg_id) WHERE (vt <> enqueued_at)|t',
	'ONLY pgmq.q_timed USING btree (msg_id)|t', 'ONLY pgmq.q_timed USING btree (enqueued_at)|t',
	'ONLY pgmq.q_timed USING btree (vt, msg_id) WHERE (vt <> enqueued_at)|t',
	'trigger_notify_queue_insert_listeners|4', '0', 'part||f|f|', 'timed||f|f|'),
	'partitioned ones have all but a primary key, and keep unread messages');
is($node->safe_psql('old', q{SELECT count(*) FROM pg_class WHERE relname ~ '[$]'; SELECT count(*) FROM pg_index WHERE NOT indisvalid}), "0\n0", 'no index is left over');

# Nobody got a message twice, and none is gone
is($node->safe_psql('old', 'SELECT count(*) - count(DISTINCT (queue, id)) FROM public.got'), '0', 'no message was read twice');
is($node->safe_psql('old', join(' UNION ALL ', map { "SELECT '$_', (SELECT count(*) FROM pgmq.q_$_) - (SELECT count(*) FROM public.sent WHERE queue = '$_')" } @queues)
	. ' ORDER BY 1'), $before, 'none is gone');
is($node->safe_psql('old', q{
	SELECT bool_and(id) FROM (SELECT q.msg_id < lead(q.msg_id) OVER (PARTITION BY headers ORDER BY last_read_at, msg_id) AS id
	  FROM pgmq.q_orders AS q WHERE last_read_at IS NOT NULL AND msg_id > 10) AS o WHERE id IS NOT NULL}), 't', 'groups were read in their order');
# Groups without a note are found
$node->safe_psql('old', 'UPDATE pgmq.q_orders SET vt = enqueued_at');
is($node->safe_psql('old', q{
	SELECT count(DISTINCT headers) FROM pgmq.read_grouped_head('orders', 3600, 1000);
	SELECT count(DISTINCT headers) FROM pgmq.q_orders}), $node->safe_psql('old', q{
	SELECT count(DISTINCT headers) FROM pgmq.q_orders; SELECT count(DISTINCT headers) FROM pgmq.q_orders}), 'all groups are found');
# A read uses the new index
is($node->safe_psql('old', join(';', map { "SELECT count(*) FROM pgmq.send_batch('$_', '{1,2,3,4,5}'::jsonb[]); SELECT count(*) FROM pgmq.read('$_', 0, 5)" }
	qw(mixed part timed unlogged))), join("\n", (5) x 8), 'queues are read');
is((psql('old', 'boss', 'CALL pgmq.upgrade_queues()'))[2], '', 'another call has nothing to do');

###################################################### an older version, one queue at a time

old_database('older', '1.9.0');
($rc, $out, $err) = psql('older', 'boss', q{CALL pgmq.upgrade_queues('MIXED')});
is("$rc: $err", '0: ', 'one queue, in any spelling');
unlike($node->safe_psql('older', $LEFT), qr/mixed/i, 'it lacks nothing more');
like($node->safe_psql('older', $LEFT), qr/^orders\|f\|t\|f\|t\|f\|t\|f\|f$/m, 'others do');
# The trigger has no argument: its channel stays that of the table
like((psql('older', 'boss', q{CALL pgmq.upgrade_queues(); LISTEN "pgmq.q_orders.INSERT"; SELECT pgmq.send('orders', '1') > 0}))[1],
	qr/Asynchronous notification "pgmq.q_orders.INSERT"/, 'the new trigger notifies');
is($node->safe_psql('older', $LEFT), '', 'all are upgraded');

###################################################### where and for whom it works

like((psql('older', 'boss', "BEGIN; CALL pgmq.upgrade_queues()"))[2], qr/ERROR:  pgmq.upgrade_queues cannot run inside/, 'not in a transaction block');
like((psql('older', 'boss', 'DO $$ BEGIN CALL pgmq.upgrade_queues(); END $$'))[2], qr/ERROR:  pgmq.upgrade_queues cannot run inside/, 'nor in a DO block');
like((psql('older', 'boss', q{CREATE PROCEDURE public.p() LANGUAGE plpgsql AS 'BEGIN COMMIT; CALL pgmq.upgrade_queues(); END'; CALL public.p()}))[2],
	qr/ERROR:  pgmq.upgrade_queues cannot run inside/, 'nor in a procedure');
like((psql('older', 'boss', q{CALL pgmq.upgrade_queues('nothing')}))[2], qr/relation "pgmq.q_nothing" does not exist/, 'a queue must exist');
like((psql('older', 'boss', q{SET default_transaction_read_only = on; CALL pgmq.upgrade_queues()}))[2], qr/cannot execute CALL in a read-only transaction/, 'it writes');
# By the extended protocol, prepared
append_to_file("${\ $node->basedir}/call.sql", 'CALL pgmq.upgrade_queues();');

sub make_old
{
	my (@names) = @_;

	foreach my $name (@names)
	{
		$node->safe_psql('older', qq{
			SELECT pgmq.create('$name');
			ALTER TABLE pgmq.q_$name OWNER TO boss;
			ALTER TABLE pgmq.a_$name OWNER TO boss;
			DROP INDEX pgmq.q_${name}_vt_idx;
			CREATE INDEX q_${name}_vt_idx ON pgmq.q_$name (vt);
			SELECT pgmq.send('$name', '1')});
	}
}

make_old(qw(one two));
command_ok([ 'pgbench', '-n', '-c', '1', '-t', '2', '-M', 'prepared', '-U', 'boss', '-f', "${\ $node->basedir}/call.sql", $node->connstr('older') ],
	'by a prepared statement');
is($node->safe_psql('older', $LEFT), '', 'it has done its work');

# In a session with a cursor that is held, a prepared statement and a failure
make_old(qw(one two));
$node->safe_psql('older', 'CREATE TABLE pgmq."q_one_vt_idx$old" ()');
($rc, $out, $err) = psql('older', 'boss', q{
	BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 3); FETCH h; COMMIT;
	PREPARE reading AS SELECT count(*) FROM pgmq.read('two', 0, 1); EXECUTE reading;
	CALL pgmq.upgrade_queues();
	FETCH ALL FROM h; EXECUTE reading});
is($out, "1\n1\n2\n3\n1", 'a session keeps what it has');
like($err, qr/WARNING:  upgrade of queue "one" failed/, 'also when a queue fails');
$node->safe_psql('older', 'DROP TABLE pgmq."q_one_vt_idx$old"; CALL pgmq.upgrade_queues()');

# Queues of others
make_old(qw(one two));
$node->safe_psql('older', q{ALTER TABLE pgmq.q_one OWNER TO other; GRANT USAGE, CREATE ON SCHEMA pgmq TO other; GRANT SELECT ON pgmq.meta TO other});
($rc, $out, $err) = psql('older', 'boss', 'CALL pgmq.upgrade_queues()');
like($err, qr/^psql:\S+ NOTICE:  queue "one" belongs to another role and is skipped$/, 'a queue of another role is skipped');
is($node->safe_psql('older', $LEFT), 'one|f|t|f|f|f|f|f|f', 'and the others are upgraded');
like((psql('older', 'boss', q{CALL pgmq.upgrade_queues('one')}))[2], qr/must be owner of table q_one/, 'by its name it is an error');
is((psql('older', 'other', q{CALL pgmq.upgrade_queues('one')}))[2], '', 'its owner upgrades it');

# Code of an owner does not get the rights of a superuser that calls
make_old('one');
$node->safe_psql('older', q{
	ALTER TABLE pgmq.q_one OWNER TO other;
	SET ROLE other;
	CREATE FUNCTION pgmq.spy(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN RAISE LOG 'spy % runs as %', what, current_user; RETURN true; END $$;
	CREATE INDEX spying ON pgmq.q_one (msg_id) WHERE pgmq.spy('in a condition');
	CREATE INDEX spying_too ON pgmq.q_one (pgmq.spy('in an expression'));
	ALTER TABLE pgmq.q_one ADD CHECK (pgmq.spy('in a constraint'));
	-- what a name of the command could be taken for
	CREATE FUNCTION pgmq.differ(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT pgmq.spy($$in an operator$$)';
	CREATE OPERATOR pgmq.<> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = pgmq.differ)});
my $offset = -s $node->logfile;
is((psql('older', 'postgres', q{SET search_path = pgmq, pg_catalog; CALL pgmq.upgrade_queues()}))[2], '', 'a superuser upgrades a queue of another role');
unlike(slurp_file($node->logfile, $offset), qr/spy .* runs as (?!other)/, 'code of that role runs as that role');
is($node->safe_psql('older', q{SELECT relowner::regrole, pg_get_expr(indpred, indrelid) FROM pg_class JOIN pg_index ON indexrelid = oid WHERE relname = 'q_one_vt_idx'}),
	'other|(vt <> enqueued_at)', 'the index is that of the owner');
$node->safe_psql('older', q{SELECT pgmq.drop_queue('one'); DROP OPERATOR pgmq.<> (timestamptz, timestamptz)});

###################################################### what can go wrong

# A failure of one queue
make_old(qw(bad good));
$node->safe_psql('older', 'CREATE TABLE pgmq."q_bad_vt_idx$new" ()');
($rc, $out, $err) = psql('older', 'boss', 'CALL pgmq.upgrade_queues()');
like($err, qr/WARNING:  upgrade of queue "bad" failed \(index on vt\): relation pgmq."q_bad_vt_idx\$new" exists and is no index of queue "bad"/, 'a failure is a warning');
is($node->safe_psql('older', $LEFT), 'bad|f|t|f|f|f|f|f|f', 'and the other queue is upgraded');
like((psql('older', 'boss', q{CALL pgmq.upgrade_queues('bad')}))[2], qr/ERROR:  upgrade of queue "bad" failed/, 'for one queue it is an error');
$node->safe_psql('older', 'DROP TABLE pgmq."q_bad_vt_idx$new"');
is((psql('older', 'boss', q{CALL pgmq.upgrade_queues('bad')}))[2], '', 'which can be put right');
$node->safe_psql('older', 'CREATE TABLE pgmq.g_bad (); CREATE INDEX q_bad_fifo_idx ON pgmq.q_bad USING gin (headers)');
like((psql('older', 'boss', q{CALL pgmq.upgrade_queues('bad')}))[2], qr/ERROR:  upgrade of queue "bad" failed \(index for groups\): relation pgmq.g_bad exists/,
	'the name of the helper table is taken');
is($node->safe_psql('older', q{SELECT count(*) FROM pg_class WHERE relname ~ '^q_bad_fifo_idx.'}), '0', 'and no index was built in vain');
$node->safe_psql('older', 'DROP TABLE pgmq.g_bad');
is((psql('older', 'boss', q{CALL pgmq.upgrade_queues('bad')}))[2], '', 'it is free again');

# holds(sql): an open transaction of an application
my $held;
sub hold
{
	my ($sql) = @_;

	$held = start_sql('older', 'postgres', 'holder', "BEGIN; $sql; SELECT pg_sleep(1000)");
	return until_true(sub {
		$node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'}) > 0
	}, 'a transaction is open');
}

sub release
{
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'});
	$held->{harness}->finish;
	return;
}

# It is cancelled, terminated, or the server crashes, while an index is built
foreach my $how (qw(cancel terminate crash))
{
	make_old(qw(one two));
	ok(hold(q{SELECT pgmq.send('one', '2')}), "$how: a sender's transaction is open");
	my $call = start_sql('older', 'boss', 'upgrade', 'CALL pgmq.upgrade_queues()');
	ok(waits('upgrade'), "$how: the call waits for it");
	is($node->safe_psql('older', q{SELECT count(*) FROM pgmq.read('one', 0, 1); SELECT pgmq.send('one', '3') > 0}), "1\nt", "$how: others do not");
	is($node->safe_psql('older', q{SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE application_name = 'upgrade'}), 't', "$how: it holds no snapshot");
	if ($how eq 'crash')
	{
		$node->stop('immediate');
		$node->start;
		eval { $call->{harness}->finish; $held->{harness}->finish };
	}
	else
	{
		$node->safe_psql('postgres', "SELECT pg_${how}_backend(pid) FROM pg_stat_activity WHERE application_name = 'upgrade'");
		$call->{harness}->finish;
		like($call->{err}, $how eq 'cancel' ? qr/^ERROR:  canceling statement due to user request/ : qr/terminating connection/, "$how: the call ends");
		release();
	}
	is($node->safe_psql('older', q{SELECT c.relname, indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE indrelid = 'pgmq.q_one'::regclass ORDER BY 1}),
		"q_one_pkey|t\nq_one_vt_idx|t\nq_one_vt_idx\$new|f", "$how: an index is incomplete");
	is($node->safe_psql('older', $LEFT), "one|f|t|f|f|f|f|f|f\ntwo|f|t|f|f|f|f|f|f", "$how: the view says so");
	is((psql('older', 'boss', 'CALL pgmq.upgrade_queues()'))[2], '', "$how: another call");
	is($node->safe_psql('older', "$LEFT; SELECT c.relname, indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE indrelid = 'pgmq.q_one'::regclass ORDER BY 1"),
		"q_one_pkey|t\nq_one_vt_idx|t", "$how: rebuilds it");
}

# The session goes on after a call that was cancelled
make_old('one');
ok(hold(q{SELECT pgmq.send('one', '2')}), 'a transaction is open');
is((psql('older', 'boss', q{SET statement_timeout = '1s'; CALL pgmq.upgrade_queues(); RESET statement_timeout;
	SELECT current_user, count(*) FROM pgmq.read('one', 0, 1); BEGIN; SELECT pgmq.send('one', '4') > 0; COMMIT;
	SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid' AND relation IS DISTINCT FROM 'pg_locks'::regclass}))[1],
	"boss|1\nt\n0", 'a session goes on after a timeout, as itself and without locks');

# A lock that is not free in the time that the caller allows: the build fails, and is made again
my $timed = start_sql('older', 'boss', 'upgrade', q{SET lock_timeout = '300ms'}, 'CALL pgmq.upgrade_queues()');
my %begun;
ok(until_true(sub { $begun{$node->safe_psql('older', q{SELECT l.virtualxid FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
	WHERE l.virtualxid IS NOT NULL AND a.application_name = 'upgrade'})} = 1; keys %begun > 8 }, 'attempts'),
	'a build fails');
release();
$timed->{harness}->finish;
is($timed->{err} . $node->safe_psql('older', "$LEFT; SELECT c.relname, indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE indrelid = 'pgmq.q_one'::regclass ORDER BY 1"),
	"q_one_pkey|t\nq_one_vt_idx|t", 'and is made again');

# What a call can leave that has ended at any moment, and another isolation level
make_old('one');
$node->safe_psql('older', q{
	SET ROLE boss;
	ALTER INDEX pgmq.q_one_vt_idx RENAME TO "q_one_vt_idx$old";
	CREATE INDEX q_one_vt_idx ON pgmq.q_one (vt, msg_id) WHERE vt <> enqueued_at;
	CREATE INDEX "q_one_fifo_idx$new" ON pgmq.q_one (msg_id)});
is($node->safe_psql('older', $LEFT), 'one|f|t|f|t|f|f|f|f', 'the view shows what is left over');
is((psql('older', 'boss', q{SET default_transaction_isolation = serializable; CALL pgmq.upgrade_queues(); SHOW transaction_isolation}))[1], 'serializable', 'at any isolation level');
is($node->safe_psql('older', "$LEFT; SELECT c.relname FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE indrelid = 'pgmq.q_one'::regclass ORDER BY 1"),
	"q_one_pkey\nq_one_vt_idx", 'it is gone');

# A name that needs quotes
$node->safe_psql('older', q{SELECT pgmq.create('We"ird %s'); ALTER TABLE pgmq."q_we""ird %s" OWNER TO boss; ALTER TABLE pgmq."a_we""ird %s" OWNER TO boss;
	DROP INDEX pgmq."q_we""ird %s_vt_idx"; CREATE INDEX "q_we""ird %s_vt_idx" ON pgmq."q_we""ird %s" (vt)});
is((psql('older', 'boss', q{CALL pgmq.upgrade_queues('wE"ird %s')}))[2] . $node->safe_psql('older', $LEFT), '', 'a queue with any name');

# Two at a time
make_old('one');
ok(hold(q{SELECT pgmq.send('one', '2')}), 'a transaction is open');
my $first = start_sql('older', 'boss', 'upgrade', 'CALL pgmq.upgrade_queues()');
ok(waits('upgrade'), 'one call waits');
like((psql('older', 'boss', 'CALL pgmq.upgrade_queues()'))[2], qr/NOTICE:  queue "one" is being upgraded by another session/, 'another one leaves the queue to it');
release();
$first->{harness}->finish;
is($first->{err} . $node->safe_psql('older', $LEFT), '', 'which completes it');

# A queue is dropped or renamed meanwhile
make_old(qw(one three two));
ok(hold(q{SELECT pgmq.send('one', '2')}), 'a transaction is open');
my $call = start_sql('older', 'boss', 'upgrade', 'CALL pgmq.upgrade_queues()');
ok(waits('upgrade'), 'a call waits');
$node->safe_psql('older', q{SELECT pgmq.drop_queue('three'); ALTER TABLE pgmq.q_two RENAME TO q_three});
release();
$call->{harness}->finish;
is($call->{err}, '', 'queues that are gone are no failure');
$node->safe_psql('older', q{ALTER TABLE pgmq.q_three RENAME TO q_two; CALL pgmq.upgrade_queues()});

# A trigger and a retention need a lock for an instant: they are tried again
make_old('one');
$node->safe_psql('older', q{CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_one
	DEFERRABLE FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners('one')});
ok(hold(q{SELECT pgmq.send('one', '2')}), 'a transaction is open');
$call = start_sql('older', 'boss', 'upgrade', 'CALL pgmq.upgrade_queues()');
ok(waits('upgrade'), 'a call waits for an instant at a time');
is($node->safe_psql('older', q{SET statement_timeout = '20s'; SELECT pgmq.send('one', '3') > 0}), 't', 'senders pass');
release();
$call->{harness}->finish;
is($call->{err} . $node->safe_psql('older', $LEFT), '', 'in the end it is done');

# A trigger that is off stays as it is
make_old('off');
$node->safe_psql('older', q{CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_off
	DEFERRABLE FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners('off');
	ALTER TABLE pgmq.q_off DISABLE TRIGGER trigger_notify_queue_insert_listeners; CALL pgmq.upgrade_queues()});
is($node->safe_psql('older', q{SELECT tgenabled, tgtype FROM pg_trigger WHERE tgrelid = 'pgmq.q_off'::regclass}), 'D|5', 'a trigger that is off stays off');

# What a create() leaves that was at work during the update: no columns, and members of the extension
$node->safe_psql('older', q{SET ROLE boss; SELECT pgmq.create('late');
	ALTER TABLE pgmq.a_late DROP COLUMN headers, DROP COLUMN last_read_at; ALTER TABLE pgmq.q_late DROP COLUMN last_read_at;
	ALTER EXTENSION pgmq ADD TABLE pgmq.q_late; ALTER EXTENSION pgmq ADD TABLE pgmq.a_late; ALTER EXTENSION pgmq ADD SEQUENCE pgmq.q_late_msg_id_seq});
is($node->safe_psql('older', $LEFT), 'late|f|f|f|f|f|f|f|t', 'the view shows incomplete tables');
like((psql('older', 'boss', q{SELECT pgmq.drop_queue('late')}))[2], qr/because extension pgmq requires it/, 'which the extension requires');
is((psql('older', 'boss', 'CALL pgmq.upgrade_queues()'))[2] . $node->safe_psql('older', $LEFT), '', 'they are completed');
is((psql('older', 'boss', q{SELECT pgmq.send('late', '1', '{"h": 1}'::jsonb); SELECT count(*) FROM pgmq.read('late', 0, 1) WHERE last_read_at IS NOT NULL;
	SELECT pgmq.archive('late', 1); SELECT headers FROM pgmq.a_late WHERE last_read_at IS NOT NULL; SELECT pgmq.drop_queue('late')}))[1],
	qq{1\n1\nt\n{"h": 1}\nt}, 'and work');

# The ids that an unlogged sequence has in advance
$node->safe_psql('older', q{SET ROLE boss; SELECT pgmq.create_unlogged('ids'); SELECT pgmq.send('ids', '1');
	ALTER SEQUENCE pgmq.q_ids_msg_id_seq SET UNLOGGED});
is((psql('older', 'boss', q{CALL pgmq.upgrade_queues('ids')}))[2], '', 'a sequence becomes logged');
is($node->safe_psql('older', q{SELECT log_cnt FROM pgmq.q_ids_msg_id_seq; SELECT count(*) FROM pgmq.send_batch('ids', '{1,2,3,4}'::jsonb[])}),
	"0\n4", 'and has no ids in advance');
$node->stop('immediate');
$node->start;
cmp_ok($node->safe_psql('older', q{SELECT pgmq.send('ids', '1')}), '>', 5, 'after a crash no id is given again');
$node->safe_psql('older', q{SELECT pgmq.drop_queue('ids')});

###################################################### partitions

# An interrupted build of a partitioned queue goes on with the partitions that are left
$node->safe_psql('older', q{
	SET ROLE boss;
	ALTER TABLE pgmq.q_part DETACH PARTITION pgmq.q_part_p0;
	DROP INDEX pgmq.q_part_vt_idx;
	ALTER TABLE pgmq.q_part ATTACH PARTITION pgmq.q_part_p0 FOR VALUES FROM (0) TO (10000);
	CREATE TABLE pgmq.q_part_p1 PARTITION OF pgmq.q_part FOR VALUES FROM (10000) TO (20000) PARTITION BY RANGE (msg_id);
	CREATE TABLE pgmq.q_part_p1a PARTITION OF pgmq.q_part_p1 FOR VALUES FROM (10000) TO (15000);
	CREATE TABLE pgmq.q_part_p1b PARTITION OF pgmq.q_part_p1 FOR VALUES FROM (15000) TO (20000)});
is($node->safe_psql('older', $LEFT), 'part|t|t|f|f|f|f|f|f', 'the index of a partitioned queue is missing');
# A prepared transaction has no snapshot, which each build would wait for
$node->safe_psql('older', q{BEGIN; INSERT INTO pgmq.q_part_p1b (msg_id, vt, message) VALUES (15000, now(), '1'); PREPARE TRANSACTION 'open'});
$call = start_sql('older', 'boss', 'upgrade', q{CALL pgmq.upgrade_queues('part')});
ok(until_true(sub { $node->safe_psql('older', q{SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid = 'pgmq.q_part_p1b'::regclass}) > 0 }, 'build'),
	'a call builds the last part');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'upgrade'});
$call->{harness}->finish;
$node->safe_psql('older', q{ROLLBACK PREPARED 'open'});
my $parts = $node->safe_psql('older', q{SELECT indexrelid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
	WHERE relname ~ '^q_part_p(0|1a)_vt_msg' AND relispartition ORDER BY 1});
like($parts, qr/^\d+\n\d+$/, 'the others are in place');
# New partitions have the index from the start
$node->safe_psql('older', q{SET ROLE boss; CREATE TABLE pgmq.q_part_p2 PARTITION OF pgmq.q_part FOR VALUES FROM (20000) TO (30000)});
is((psql('older', 'boss', q{CALL pgmq.upgrade_queues('part')}))[2], '', 'another call');
is($node->safe_psql('older', "$LEFT; SELECT count(*) FROM pg_index WHERE NOT indisvalid"), '0', 'completes the index');
is($node->safe_psql('older', q{SELECT indexrelid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
	WHERE relname ~ '^q_part_p(0|1a)_vt_msg' AND relispartition ORDER BY 1}), $parts, 'and keeps what was there');

# The partition that is missing is dropped, so nothing makes the index valid
$node->safe_psql('older', q{
	SET ROLE boss;
	DROP INDEX pgmq.q_part_vt_idx;
	CREATE INDEX q_part_vt_idx ON ONLY pgmq.q_part (vt, msg_id) WHERE vt <> enqueued_at;
	DROP TABLE pgmq.q_part_p0, pgmq.q_part_p1, pgmq.q_part_p2, pgmq.q_part_default});
is((psql('older', 'boss', q{CALL pgmq.upgrade_queues('part')}))[2], '', 'an index that does not become valid');
is($node->safe_psql('older', $LEFT), '', 'is made anew');

$node->stop;
done_testing();
