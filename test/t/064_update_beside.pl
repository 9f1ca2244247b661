# What other sessions do while the PL/pgSQL extension is updated: they create queues, and hold locks in any order.  And
# queues that come later: from a call of the old create(), or from a dump of an old version.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('beside');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN');

my $UPDATE = 'ALTER EXTENSION pgmq UPDATE';

sub as_boss
{
	my ($db, $sql) = @_;

	return $node->safe_psql($db, $sql, extra_params => [ '-U', 'boss', '-v', 'ON_ERROR_STOP=1' ]);
}

sub old_database
{
	my ($db, $version) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER boss");
	as_boss($db, old_installation($version) . old_queues($version) . "CREATE EXTENSION pgmq VERSION 'unpackaged'");
	$node->safe_psql($db, old_extension($version));
}

# An update in another session
sub start_update
{
	my ($db, $before) = @_;
	my $run = { err => '', out => '' };

	$run->{harness} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($db) . ' user=boss application_name=update',
			'-c', $before // 'SET lock_timeout = 0', '-c', $UPDATE ],
		'<', \'', '>', \$run->{out}, '2>', \$run->{err});
	$node->poll_query_until($db, qq{SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
		WHERE application_name = 'update' AND NOT granted}) or die 'the update does not wait';
	return $run;
}

sub ended
{
	my ($run) = @_;

	IPC::Run::finish($run->{harness});
	return $run->{err};
}

sub version_of
{
	my ($db) = @_;

	return $node->safe_psql($db, q{SELECT extversion FROM pg_extension WHERE extname = 'pgmq'});
}

sub works
{
	my ($db, $queue, $name) = @_;

	is(as_boss($db, qq{SELECT pgmq.purge_queue('$queue') >= 0; SELECT pgmq.send('$queue', '{"n": 1}', '{"h": 1}'::jsonb) > 0;
		SELECT count(*), count(headers), count(last_read_at) FROM pgmq.read('$queue', 60, 1);
		SELECT count(*) FROM pgmq.archive('$queue', ARRAY(SELECT msg_id FROM pgmq.q_$queue)) AS id}), "t\nt\n1|1|1\n1", $name);
}

###################################################### create() of the old extension

old_database('creating', '1.4.4');
# As it was, and it can be stopped between its steps
as_boss('creating', q{
	CREATE FUNCTION public.stop(step integer) RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN IF current_setting('test.step', true) = step::text THEN PERFORM pg_advisory_xact_lock(step); END IF; END $$;
	CREATE OR REPLACE FUNCTION pgmq."create"(queue_name text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		columns constant text := 'read_ct int NOT NULL DEFAULT 0, enqueued_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL, message jsonb';
	BEGIN
		PERFORM public.stop(1);
		EXECUTE format('CREATE TABLE pgmq.%I (msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, %s)', 'q_' || queue_name, columns);
		EXECUTE format('CREATE TABLE pgmq.%I (msg_id bigint PRIMARY KEY, archived_at timestamptz NOT NULL DEFAULT now(), %s)', 'a_' || queue_name, columns);
		PERFORM public.stop(2);
		INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES (queue_name, false, false);
		PERFORM public.stop(3);
	END $$;
	SELECT pgmq."create"('earlier')});
my $stopper = $node->background_psql('creating');
$stopper->query_safe("SELECT pg_advisory_lock($_)") foreach 1 .. 3;
my @creators;
foreach my $step (1 .. 3)
{
	my $creator = { err => '' };

	$creator->{harness} = IPC::Run::start([ 'psql', '-XAtq', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('creating') . " user=boss application_name=create$step",
		'-c', "SET test.step = $step", '-c', "SELECT pgmq.create('stopped$step')" ], '<', \'', '2>', \$creator->{err});
	$node->poll_query_until('creating', "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'create$step' AND wait_event_type = 'Lock'")
		or die "no create at step $step";
	push @creators, $creator;
}
my $update = start_update('creating');
is(version_of('creating'), '1.4.4', 'an update waits for a queue whose row is written');
# It gives up its locks again and again
is(as_boss('creating', q{SELECT pgmq.send('earlier', '1'); SELECT count(*) FROM pgmq.meta WHERE queue_name = 'earlier'}), "1\n1", 'and senders do not wait for long meanwhile');
$stopper->query_safe('SELECT pg_advisory_unlock(3)');
is(ended($update), '', 'it goes on when the transaction has ended');
is(version_of('creating'), $NEW_VERSION, 'and is complete');
$stopper->query_safe("SELECT pg_advisory_unlock($_)") foreach 1, 2;
is(join('', map { IPC::Run::finish($_->{harness}); $_->{err} } @creators), '', 'all calls of the old create() have succeeded');
$stopper->quit;
works('creating', $_, "a queue of the old create(): $_") foreach qw(stopped1 stopped2 stopped3 orders);

# create() completes a queue that comes in another way
$node->safe_psql('creating', q{SET ROLE boss; ALTER TABLE pgmq.q_mixed DROP COLUMN last_read_at; ALTER TABLE pgmq.a_mixed DROP COLUMN headers;
	ALTER TABLE pgmq.q_part DROP COLUMN headers; SELECT pgmq.create('mixed')});
works('creating', 'mixed', 'create() adds columns');

###################################################### transactions that hold locks

foreach my $version (qw(1.9.0 1.13.1))
{
	(my $db = "locks_$version") =~ tr/./_/;
	old_database($db, $version);
	# Each of these first locks the first table, then the second; in each pair one of them has the order of the update
	my @pairs = ([ 'q_orders', 'a_orders' ], [ 'a_mixed', 'q_mixed' ], [ 'q_part', 'q_timed' ], [ 'q_unlogged', 'a_part' ]);
	push @pairs, [ 'notify_insert_throttle', 'q_timed' ], [ 'a_timed', 'notify_insert_throttle' ], [ 'meta', 'notify_insert_throttle' ];
	push @pairs, [ 'topic_bindings', 'meta' ], [ 'meta', 'topic_bindings' ], [ 'notify_insert_throttle', 'topic_bindings' ]
		if $version eq '1.13.1';
	foreach my $pair (@pairs)
	{
		$pair->[2] = $node->background_psql($db);
		$pair->[2]->query_safe("SET deadlock_timeout = '1s'");
		$pair->[2]->query_safe('BEGIN');
		$pair->[2]->query_safe("LOCK TABLE pgmq.$pair->[0] IN ROW EXCLUSIVE MODE");
	}
	$update = start_update($db);
	foreach my $pair (@pairs)
	{
		is(eval { $pair->[2]->query_safe("LOCK TABLE pgmq.$pair->[1] IN ROW EXCLUSIVE MODE"); 'locked' } // $@, 'locked', "$version: $pair->[0], then $pair->[1]");
	}
	is(version_of($db), $version, "$version: the update waits");
	$_->[2]->query_safe('COMMIT') foreach @pairs;
	is(ended($update), '', "$version: no deadlock");
	is(version_of($db), $NEW_VERSION, "$version: updated");
	$_->[2]->quit foreach @pairs;
}

old_database('held', '1.9.0');
my $holder = $node->background_psql('held');
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE pgmq.a_timed IN ROW EXCLUSIVE MODE');
$update = start_update('held', "SET lock_timeout = '2s'");
like(ended($update), qr/^ERROR:  55P03: could not lock table pgmq.a_timed: it is in constant use$/m, 'a table that is held for too long');
is(version_of('held'), '1.9.0', 'has changed nothing');
$holder->query_safe('COMMIT');
$holder->quit;
is(as_boss('held', "SET lock_timeout = '2s'; $UPDATE; SHOW lock_timeout"), '2s', 'and the next attempt succeeds');

###################################################### dumps

my $dir = PostgreSQL::Test::Utils::tempdir();

sub restored
{
	my ($from, $to) = @_;

	$node->command_ok([ 'pg_dump', '-f', "$dir/$from.sql", '-d', $node->connstr($from) ], "pg_dump of $from");
	$node->safe_psql('postgres', "CREATE DATABASE $to OWNER boss");
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/$from.sql", '-d', $node->connstr($to) ], "restored to $to");
}

# Of an installation that is adopted and not updated
my $rows = q{SELECT queue_name FROM pgmq.meta ORDER BY 1; SELECT pattern, queue_name FROM pgmq.topic_bindings ORDER BY 1;
	SELECT queue_name, throttle_interval_ms FROM pgmq.notify_insert_throttle ORDER BY 1; SELECT count(*) FROM pgmq.q_orders};
$node->safe_psql('postgres', 'CREATE DATABASE adopted OWNER boss');
as_boss('adopted', old_installation('1.11.1') . old_queues('1.11.1') . "CREATE EXTENSION pgmq VERSION 'unpackaged'");
restored('adopted', 'r_adopted');
like($node->safe_psql('adopted', $rows), qr/^orders\n.*^#\|mixed\n.*^orders\|0\n.*^5$/ms, 'there are rows');
is($node->safe_psql('r_adopted', $rows), $node->safe_psql('adopted', $rows), 'a dump between adoption and update has all rows');

# Of versions that lack columns
foreach my $version (qw(1.6.0 1.9.0))
{
	(my $db = "dumped_$version") =~ tr/./_/;
	old_database($db, $version);
	restored($db, "r_$db");
	is($node->safe_psql("r_$db", q{SELECT queue_name, count(*) FROM pgmq.list_queues(), pgmq.read(queue_name, 60, 1) GROUP BY 1 ORDER BY 1}),
		"Mixed|1\nmixed|1\norders|1\npart|1\ntimed|1\nunlogged|1", "$version: queues of a dump can be read");
}

$node->stop;
done_testing();
