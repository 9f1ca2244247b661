# Queues of every kind and a stream, sessions that use them, and what a copy of them must be: for tests of dumps, replicas and
# pg_upgrade.
#
# A copy must hold one moment of the queues: what was sent by then is there, was archived, or was deleted.  Senders and
# readers note what they do in tables of the same database, in the same transaction, so each copy brings along what
# must be in it.
package LoadedQueues;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

our @EXPORT = qw(%SEEN loaded_queues start_sql end_sql work_done wait_for_work check_copy);

# Mixed case, unlogged, by id, by time, with groups, with notifications, with topics
my @QUEUES = qw(orders scratch ids times grp);
my %grouped = (ids => 1, grp => 1);

my ($settings, $catalogs);

my $SETUP = q{
	CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
	SELECT pgmq.create('Orders'), pgmq.create_unlogged('scratch'), pgmq.create('grp'),
		pgmq.create_partitioned('ids', '1000', '1000', drop_consumed => true), pgmq.create_partitioned('times', '1 day', '7 days', 2);
	SELECT pgmq.create_fifo_index('ids'), pgmq.create_fifo_index('grp'),
		pgmq.enable_notify_insert('orders', 0), pgmq.enable_notify_insert('times', 60000);
	SELECT pgmq.create_stream('events', 3), pgmq.subscribe('events', 'all'), pgmq.subscribe('events', 'none'), pgmq.bind_topic_stream('stream.*', 'events');
	-- More bindings than queues: workers of pg_restore begin with the largest table
	SELECT count(pgmq.bind_topic(format('load.%s.%s', i, q), q)) FROM generate_series(0, 99) AS i, unnest('{orders,scratch,ids}'::text[]) AS q;
	SELECT pgmq.bind_topic('load.#', 'times'), pgmq.bind_topic('load.*', 'grp'), pgmq.bind_topic('load.*', 'Orders');

	CREATE SCHEMA load;
	CREATE TABLE load.control (stop boolean PRIMARY KEY);
	INSERT INTO load.control VALUES (false);
	CREATE TABLE load.sent (queue text, msg_id bigint, PRIMARY KEY (queue, msg_id));
	CREATE TABLE load.gone (queue text, msg_id bigint, PRIMARY KEY (queue, msg_id));
	CREATE TABLE load.published (event_id bigint PRIMARY KEY);
	CREATE TABLE load.received (event_id bigint PRIMARY KEY);

	CREATE PROCEDURE load.send() LANGUAGE plpgsql AS $$
	DECLARE
		queue text;
		i integer := 0;
	BEGIN
		WHILE NOT (SELECT stop FROM load.control) LOOP
			i := i + 1;
			FOREACH queue IN ARRAY '{orders,scratch,ids,times,grp}'::text[] LOOP
				INSERT INTO load.sent SELECT queue, id FROM pgmq.send_batch(queue, ARRAY[to_jsonb(i), jsonb_build_object('i', i)],
					ARRAY[jsonb_build_object('x-pgmq-group', 'g' || i % 7), jsonb_build_object('x-pgmq-group', 'h' || i % 5)]) AS id;
			END LOOP;
			INSERT INTO load.sent SELECT lower(queue_name), msg_id FROM pgmq.send_batch_topic('load.' || i % 100, ARRAY['"topic"'::jsonb]);
			INSERT INTO load.published SELECT pgmq.publish_batch('events', ARRAY[to_jsonb(i), '1'], ARRAY['k' || i % 10, 'l' || i % 9]);
			COMMIT;
			PERFORM pg_sleep(0.02);
		END LOOP;
	END $$;

	-- Some messages are deleted, some archived, and some stay leased, with their groups
	CREATE PROCEDURE load.read() LANGUAGE plpgsql AS $$
	DECLARE
		queue text;
		ids bigint[];
		i integer := 0;
	BEGIN
		WHILE NOT (SELECT stop FROM load.control) LOOP
			i := i + 1;
			FOREACH queue IN ARRAY '{orders,scratch,times}'::text[] LOOP
				INSERT INTO load.gone SELECT queue, msg_id FROM pgmq.pop(queue, 1);
				ids := ARRAY(SELECT msg_id FROM pgmq.read(queue, 3600, 4));
				INSERT INTO load.gone SELECT queue, d FROM pgmq.delete(queue, ids[2:2]) AS d;
				PERFORM pgmq.archive(queue, ids[3:]);
			END LOOP;
			FOREACH queue IN ARRAY '{ids,grp}'::text[] LOOP
				ids := ARRAY(SELECT msg_id FROM pgmq.read_grouped(queue, 3600, 4));
				INSERT INTO load.gone SELECT queue, d FROM pgmq.delete(queue, ids[CASE WHEN i % 20 = 0 THEN 3 ELSE 2 END:]) AS d;
				PERFORM pgmq.archive(queue, ids[1:1]);
			END LOOP;
			-- Some are not done, and come again
			WITH got AS MATERIALIZED (SELECT * FROM pgmq.receive('events', 'all', 0, 10) LIMIT CASE WHEN i % 3 = 0 THEN 7 ELSE 10 END),
				done AS MATERIALIZED (SELECT pgmq.advance('events', 'all', shard, max(event_id), lease) AS done FROM got GROUP BY shard, lease)
				INSERT INTO load.received SELECT event_id FROM got WHERE (SELECT done FROM done);
			COMMIT;
			PERFORM pg_sleep(0.05);
		END LOOP;
	END $$};

# loaded_queues(node): the database "origin" with these queues
sub loaded_queues
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'CREATE DATABASE origin');
	$node->safe_psql('origin', $SETUP);
	$settings = settings($node, 'origin');
	$catalogs = catalogs($node, 'origin');
}

# start_sql(node, database, statement): in a session of its own, which ends by itself
sub start_sql
{
	my ($where, $db, $sql) = @_;
	my %run = (out => '');

	$run{harness} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $where->connstr($db), '-c', $sql ],
		'<', \undef, '>&', \$run{out}, IPC::Run::timeout(2 * $PostgreSQL::Test::Utils::timeout_default));
	return \%run;
}

sub end_sql
{
	my ($run) = @_;

	$run->{harness}->finish;
	chomp $run->{out};
	return $run->{out};
}

# How many messages were sent, and how many were deleted
sub work_done
{
	my ($node) = @_;

	return split(/\|/, $node->safe_psql('origin', 'SELECT (SELECT count(*) FROM load.sent), (SELECT count(*) FROM load.gone)'));
}

# Until much more than that has been done
sub wait_for_work
{
	my ($node, $sent, $gone) = @_;

	$node->poll_query_until('origin', "SELECT (SELECT count(*) FROM load.sent) >= $sent + 200 AND (SELECT count(*) FROM load.gone) >= $gone + 20")
		or die 'senders and readers do not go on';
}

# So much was looked at
our %SEEN = (sent => 0, copies => 0, visible => 0, leased => 0, heads => 0);

sub settings
{
	my ($where, $db) = @_;

	return $where->safe_psql($db, q{
		SELECT * FROM pgmq.meta ORDER BY 1;
		SELECT pattern, queue_name, bound_at, compiled_regex FROM pgmq.topic_bindings ORDER BY 1, 2;
		SELECT queue_name, throttle_interval_ms FROM pgmq.notify_insert_throttle ORDER BY 1;
		SELECT * FROM pgmq.partition_config ORDER BY 1;
		SELECT * FROM pgmq.stream ORDER BY 1; SELECT * FROM pgmq.subscription ORDER BY 1, 2; SELECT * FROM pgmq.topic_stream_bindings});
}

# Statements that each return one row: [what it shows, SQL, the row]
sub steps
{
	my (@queues) = @_;
	my $names = join(', ', map { "'$_'" } @queues);
	my $there = join(' UNION ALL ', map { my $q = $_; map { "SELECT '$q', msg_id FROM pgmq.${_}_$q" } qw(q a) } @queues);
	my @steps = (
		[ 'what was sent is there, or gone', "SELECT count(*) FROM (SELECT * FROM load.sent WHERE queue IN ($names) EXCEPT ALL ($there UNION ALL TABLE load.gone)) AS lost", 0 ],
		[ 'nothing else is', "SELECT count(*) FROM (($there UNION ALL SELECT * FROM load.gone WHERE queue IN ($names)) EXCEPT ALL TABLE load.sent) AS more", 0 ]);

	foreach my $q (@queues)
	{
		push @steps, [ "$q: metrics", "SELECT queue_length = (SELECT count(*) FROM pgmq.q_$q), queue_visible_length = (SELECT count(*) FROM pgmq.q_$q WHERE vt <= clock_timestamp()),
			total_messages = (SELECT last_value FROM pgmq.q_${q}_msg_id_seq) FROM pgmq.metrics('$q')", 't|t|t' ];
		push @steps, $grouped{$q} ?
			# The first message of each group, unless it is leased
			[ "$q: the first read by groups", "SELECT (SELECT array_agg(head ORDER BY head) FROM (SELECT min(msg_id) AS head, (array_agg(vt ORDER BY msg_id))[1] AS vt
				FROM pgmq.q_$q GROUP BY coalesce(headers->>'x-pgmq-group', '_default_fifo_group')) AS h WHERE vt <= clock_timestamp())
				IS NOT DISTINCT FROM (SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.read_grouped_head('$q', 3600, 1000000))", 't' ] :
			[ "$q: the first read", "SELECT (SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.q_$q WHERE vt <= clock_timestamp())
				IS NOT DISTINCT FROM (SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.read('$q', 3600, 1000000))", 't' ];
		push @steps, [ "$q: all of it is leased", "SELECT count(*) FROM pgmq." . ($grouped{$q} ? 'read_grouped_rr' : 'read') . "('$q', 1, 10)", 0 ];
		push @steps, [ "$q: ids go on", "SELECT id > (SELECT max(msg_id) FROM load.sent WHERE queue = '$q'), pgmq.archive('$q', id) FROM pgmq.send('$q', '\"new\"') AS id", 't|t' ];
	}
	foreach my $q (grep { $grouped{$_} } @queues)
	{
		push @steps, [ "$q: leases end", "SELECT count(*) > 0 FROM pgmq.set_vt('$q', ARRAY(SELECT msg_id FROM pgmq.q_$q), 0)", 't' ];
		push @steps, [ "$q: all of it, in the order of groups", qq{
			CREATE TEMPORARY TABLE all_$q AS SELECT msg_id FROM pgmq.q_$q;
			CREATE TEMPORARY TABLE got_$q (place serial, grp text, msg_id bigint);
			DO \$\$
			DECLARE
				ids bigint[];
			BEGIN
				LOOP
					WITH m AS (SELECT * FROM pgmq.read_grouped('$q', 3600, 500)),
						g AS (INSERT INTO got_$q (grp, msg_id) SELECT coalesce(headers->>'x-pgmq-group', ''), msg_id FROM m RETURNING msg_id)
						SELECT array_agg(msg_id) FROM g INTO ids;
					EXIT WHEN ids IS NULL;
					PERFORM pgmq.delete('$q', ids);
					COMMIT;
				END LOOP;
			END \$\$;
			SELECT (SELECT count(*) FROM pgmq.q_$q), (SELECT count(*) FROM (TABLE all_$q EXCEPT SELECT msg_id FROM got_$q) AS lost), (SELECT bool_and(sorted) FROM
				(SELECT array_agg(msg_id ORDER BY place) = array_agg(msg_id ORDER BY msg_id) AS sorted FROM got_$q GROUP BY grp) AS g)}, '0|0|t' ];
	}
	push @steps, [ 'the events that were published are there', 'SELECT count(*) > 100, count(*) - (SELECT count(*) FROM load.published),
		count(*) FILTER (WHERE event_id IN (TABLE load.published)) - count(*) FROM pgmq.s_events', 't|0|0' ];
	push @steps, [ 'nobody holds up the stream', q{SELECT count(*), count(held_up_by) FROM pgmq.stream_lag('events')}, '6|0' ];
	push @steps, [ 'each subscription receives what it had not received, in order', q{
		CREATE TEMPORARY TABLE events (place serial, subscription text, shard integer, event_id bigint, lease bigint);
		DO $$
		DECLARE
			n bigint;
		BEGIN
			LOOP
				INSERT INTO events (subscription, shard, event_id, lease)
					SELECT s, shard, event_id, lease FROM unnest('{all,none}'::text[]) AS s, pgmq.receive('events', s, 60, 100);
				GET DIAGNOSTICS n = ROW_COUNT;
				EXIT WHEN n = 0;
				PERFORM pgmq.advance('events', subscription, shard, max(event_id), lease) FROM events GROUP BY subscription, shard, lease;
				COMMIT;
			END LOOP;
		END $$;
		SELECT (SELECT count(*) FROM ((SELECT event_id FROM events WHERE subscription = 'all' UNION ALL TABLE load.received) EXCEPT ALL SELECT event_id FROM pgmq.s_events) AS more),
			(SELECT count(*) FROM (SELECT event_id FROM pgmq.s_events EXCEPT ALL (SELECT event_id FROM events WHERE subscription = 'all' UNION ALL TABLE load.received)) AS lost),
			(SELECT array_agg(event_id ORDER BY event_id) FROM events WHERE subscription = 'none') = ARRAY(SELECT event_id FROM pgmq.s_events ORDER BY 1),
			(SELECT bool_and(sorted) FROM (SELECT array_agg(event_id ORDER BY place) = array_agg(event_id ORDER BY event_id) AS sorted FROM events GROUP BY subscription, shard) AS s)},
		'0|0|t|t' ];
	push @steps, [ 'ids of events go on', q{SELECT id > (SELECT max(event_id) FROM load.published) FROM pgmq.publish('events', '"new"') AS id}, 't' ];
	push @steps, [ 'topics', q{SELECT pgmq.send_topic('load.1', '1'), pgmq.send_topic('load.1.ids', '1'), pgmq.send_topic('other', '1'), pgmq.send_topic('stream.1', '1')}, '3|2|0|1' ];
	push @steps, [ 'maintenance', q{CALL pgmq.maintain(); SELECT count(*) > 0, bool_or(queue = 'ids') FROM pgmq.list_partitions()}, 't|t' ];
	return @steps;
}

# check_copy(node, database, what it is, options: sent: so many had been sent before;
# unlogged: there are such queues; fresh: the catalogs of a fresh installation)
sub check_copy
{
	my ($where, $db, $how, %options) = @_;
	my @queues = grep { $options{unlogged} // 1 || $_ ne 'scratch' } @QUEUES;
	my @steps = steps(@queues);

	my ($sent, $visible, $leased, $heads) = split(/\|/, $where->safe_psql($db, q{
		SELECT (SELECT count(*) FROM load.sent), (SELECT count(*) FROM pgmq.q_orders WHERE vt <= now()), (SELECT count(*) FROM pgmq.q_times WHERE vt > now()),
			(SELECT count(DISTINCT headers) FROM pgmq.q_grp)}));
	cmp_ok($sent, '>=', $options{sent}, "$how: what was sent before is there");
	$SEEN{sent} += $sent;
	$SEEN{copies}++;
	$SEEN{visible} += $visible;
	$SEEN{leased} += $leased;
	$SEEN{heads} += $heads;

	is(settings($where, $db), $settings, "$how: the list of queues, bindings and settings");
	is(catalogs($where, $db), $options{fresh} // $catalogs, "$how: the catalogs");
	my ($out, $err);
	$where->psql($db, join(";\n", 'SET client_min_messages = error', map { $_->[1] } @steps), stdout => \$out, stderr => \$err, on_error_stop => 1);
	my @rows = split(/\n/, $out);
	is(shift(@rows) // 'nothing', $_->[2], "$how: $_->[0]") foreach @steps;
	is($err, '', "$how: no error");

	# One waits, and is told
	$where->safe_psql($db, 'SELECT count(*) FROM pgmq.purge_queue($$orders$$)');
	my $waiter = start_sql($where, $db, q{SET application_name = 'waiter'; SELECT message FROM pgmq.read_with_poll('orders', 60, 10, 120, 60000)});
	$where->poll_query_until($db, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event_type = 'Extension'}) or die 'none waits';
	my $told = $where->safe_psql($db, q{LISTEN "pgmq.q_orders.INSERT"; LISTEN "pgmq.q_Orders.INSERT"; SELECT pgmq.send('orders', '"told"') > 0});
	like($told, qr/^t\nAsynchronous notification "pgmq.q_orders.INSERT"/i, "$how: notifications");
	like(end_sql($waiter), qr/"told"$/, "$how: a session that waits is woken");
}

1;
