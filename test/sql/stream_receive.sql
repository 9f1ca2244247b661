-- Subscriptions: receive, advance, leases, seek, lag.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create_stream('events');
SELECT count(*) FROM pgmq.publish_batch('events', array_fill('1'::jsonb, ARRAY[10]));
SELECT pgmq.subscribe('events', 'all', 'earliest');
SELECT pgmq.subscribe('events', 'new');
SELECT pgmq.subscribe('events', 'from 4', start_id => 4);
SELECT pgmq.subscribe('events', 'next', start_id => 11);
SELECT pgmq.subscribe('events', 'old', start_time => now() - '1 hour'::interval);
SELECT pgmq.subscribe('events', 'future', start_time => 'infinity');
SELECT pgmq.subscribe('events', 'all', 'latest');
SELECT stream_name, subscription, role, dropped_events FROM pgmq.list_subscriptions('EVENTS');
SELECT count(*) FROM pgmq.list_subscriptions();
SELECT subscription, shard, passed_id FROM pgmq.stream_lag('events');

-- wrong arguments
\set VERBOSITY default
SELECT pgmq.subscribe('events', 'bad', 'yesterday');
SELECT pgmq.subscribe('events', 'bad', start_id => 12);
SELECT pgmq.subscribe('events', 'bad', start_id => 1, start_time => now());
SELECT pgmq.subscribe('events', NULL);
SELECT pgmq.subscribe('events', '');
SELECT pgmq.subscribe('events', repeat('x', 64));
SELECT pgmq.subscribe('none', 'x');
SELECT pgmq.receive('events', 'none', 30, 1);
SELECT pgmq.receive('none', 'all', 30, 1);
SELECT pgmq.receive('events', 'all', -1, 1);
SELECT pgmq.receive('events', 'all', 30, -1);
SELECT pgmq.receive('events', 'all', NULL, 1);
SELECT pgmq.advance('events', 'none', 0, 1, 1);
SELECT pgmq.advance('events', 'all', 1, 1, 1);
SELECT pgmq.advance('events', 'all', 0, NULL, 1);
SELECT pgmq.extend_lease('events', 'all', 0, 1, -1);
SELECT pgmq.seek('events', 'all');
SELECT pgmq.seek('events', 'none', 'latest');
\set VERBOSITY terse

-- a batch: what was not returned is not passed
CREATE TEMPORARY TABLE got AS SELECT * FROM pgmq.receive('events', 'all', 30, 3);
SELECT shard, event_id, attempt, lease = min(lease) OVER () AS one_lease FROM got;
SELECT event_id FROM pgmq.receive('events', 'all', 30, 3);
SELECT min(lease) AS lease FROM got \gset
-- another lease moves nothing
SELECT pgmq.advance('events', 'all', 0, 3, :lease + 1);
SELECT pgmq.extend_lease('events', 'all', 0, :lease + 1, 5), pgmq.return_lease('events', 'all', 0, :lease + 1);
-- beyond, partly, again, below, to the end
SELECT pgmq.advance('events', 'all', 0, 4, :lease);
SELECT pgmq.advance('events', 'all', 0, 2, :lease);
SELECT pgmq.advance('events', 'all', 0, 2, :lease);
SELECT pgmq.advance('events', 'all', 0, 1, :lease);
SELECT passed_id, leased_until > now() AS leased FROM pgmq.stream_lag('events') WHERE subscription = 'all';
SELECT pgmq.advance('events', 'all', 0, 3, :lease);
SELECT pgmq.advance('events', 'all', 0, 3, :lease);
SELECT passed_id, last_id, behind, leased_until FROM pgmq.stream_lag('events') WHERE subscription = 'all';

-- a lease that ends: the same events again
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 0, 2);
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 0, 4);
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 0, 1);
CREATE TEMPORARY TABLE again AS SELECT * FROM pgmq.receive('events', 'all', 0, 10);
SELECT event_id, attempt FROM again;
-- a lease that is over, but the last one, still advances
SELECT pgmq.advance('events', 'all', 0, 5, (SELECT min(lease) FROM again));
SELECT attempts FROM pgmq.p_events WHERE subscription = 'all';
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 30, 2);
SELECT pgmq.advance('events', 'all', 0, 6, (SELECT min(lease) FROM again));
SELECT lease FROM pgmq.p_events WHERE subscription = 'all' \gset
-- prolong and give back
SELECT pgmq.extend_lease('events', 'all', 0, :lease, 3600);
SELECT leased_until > now() + '50 min'::interval FROM pgmq.stream_lag('events') WHERE subscription = 'all';
SELECT pgmq.return_lease('events', 'all', 0, :lease);
SELECT pgmq.return_lease('events', 'all', 0, :lease), pgmq.advance('events', 'all', 0, 6, :lease);
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 30, 2);

-- rolled back: as if it had not been, but its lease is not the last one any more
SELECT pgmq.seek('events', 'all', 'earliest', force => true);
BEGIN;
CREATE TEMPORARY TABLE rolled_back AS SELECT * FROM pgmq.receive('events', 'all', 30, 2);
SELECT min(lease) AS lease FROM rolled_back \gset
ROLLBACK;
SELECT pgmq.advance('events', 'all', 0, 2, :lease);
BEGIN;
SAVEPOINT s;
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 30, 2);
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 30, 2);
ROLLBACK TO s;
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 0, 2);
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 30, 2);
COMMIT;

-- seek
SELECT pgmq.seek('events', 'all', 'latest');
SELECT pgmq.seek('events', 'all', 'latest', force => true);
SELECT event_id FROM pgmq.receive('events', 'all', 30, 2);
SELECT pgmq.seek('events', 'all', start_id => 9);
SELECT event_id, attempt FROM pgmq.receive('events', 'all', 0, 5);
SELECT pgmq.seek('events', 'all', start_time => now() + '1 day'::interval);
SELECT passed_id FROM pgmq.p_events WHERE subscription = 'all';
SELECT pgmq.seek('events', 'all', start_time => '-infinity');
SELECT passed_id FROM pgmq.p_events WHERE subscription = 'all';
-- by time, in a log of a day
SELECT pgmq.create_stream('day', 3);
INSERT INTO pgmq.s_day (shard, published_at, message)
SELECT n % 3, '2026-01-01 00:00Z'::timestamptz + n * '1 min'::interval, to_jsonb(n) FROM generate_series(1, 1440) AS n;
SELECT pgmq.subscribe('day', 'noon', start_time => '2026-01-01 12:00Z');
SELECT shard, passed_id FROM pgmq.p_day ORDER BY 1;
SELECT shard, min(event_id), count(*) FROM pgmq.fetch('day', 0, (SELECT passed_id FROM pgmq.p_day WHERE shard = 0), 10000) GROUP BY 1;

-- shards: each goes to one session, the one with the oldest event first
SELECT pgmq.seek('day', 'noon', 'earliest');
SELECT shard, min(event_id), count(*) FROM pgmq.receive('day', 'noon', 30, 10) GROUP BY 1;
SELECT shard, min(event_id), count(*) FROM pgmq.receive('day', 'noon', 30, 10) GROUP BY 1;
SELECT shard, min(event_id), count(*) FROM pgmq.receive('day', 'noon', 30, 10) GROUP BY 1;
SELECT shard, min(event_id), count(*) FROM pgmq.receive('day', 'noon', 30, 10) GROUP BY 1;
SELECT bool_and(pgmq.advance('day', 'noon', shard, leased_id, lease)) FROM pgmq.p_day WHERE shard > 0;
SELECT shard, min(event_id), count(*) FROM pgmq.receive('day', 'noon', 30, 10) GROUP BY 1;
SELECT shard, passed_id, last_id, behind FROM pgmq.stream_lag('day');

-- many attempts with many lengths
SELECT pgmq.subscribe('events', 'attempts', 'earliest');
DO $$ BEGIN FOR n IN REVERSE 10 .. 1 LOOP PERFORM pgmq.receive('events', 'attempts', 0, n); END LOOP; END $$;
SELECT attempts FROM pgmq.p_events WHERE subscription = 'attempts';
SELECT event_id, attempt FROM pgmq.receive('events', 'attempts', 0, 10);

-- an idle call writes nothing
SELECT pgmq.seek('events', 'all', 'latest', force => true);
BEGIN;
SELECT event_id FROM pgmq.receive('events', 'all', 30, 10);
SELECT pg_current_xact_id_if_assigned();
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'object';
COMMIT;
-- the mutex is released by a call that changes nothing
BEGIN;
SELECT pgmq.advance('events', 'all', 0, 1, 1);
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'object';
COMMIT;
-- old states are not left
SELECT count(*) FROM pgmq.p_events WHERE subscription = 'all';

-- a name with the mutexes of another subscription
SELECT pgmq.subscribe('events', 'c1');
SELECT pgmq.subscribe('events', '4wxiaau2');
SELECT pgmq.unsubscribe('events', 'c1');
SELECT pgmq.subscribe('events', '4wxiaau2');
SELECT pgmq.unsubscribe('events', '4wxiaau2');

-- all in one transaction
BEGIN;
SELECT pgmq.create_stream('whole');
SELECT pgmq.publish('whole', '1');
SELECT pgmq.subscribe('whole', 'latest');
COMMIT;
SELECT event_id FROM pgmq.receive('whole', 'latest', 0, 10);
SELECT pgmq.drop_stream('whole');

-- a sequence that was set back
\set VERBOSITY default
TRUNCATE pgmq.s_events RESTART IDENTITY;
SELECT event_id FROM pgmq.receive('events', 'all', 30, 10);
SELECT setval(pg_get_serial_sequence('pgmq.s_events', 'event_id'), 10);
SELECT pgmq.publish('events', '"after it"');
SELECT event_id, message FROM pgmq.receive('events', 'all', 30, 10);
\set VERBOSITY terse

-- unsubscribe
SELECT pgmq.unsubscribe('events', 'all');
SELECT pgmq.unsubscribe('events', 'all');
SELECT pgmq.unsubscribe('none', 'all');
SELECT count(*) FROM pgmq.p_events WHERE subscription = 'all';
SELECT subscription FROM pgmq.list_subscriptions('events');
-- what was deleted by hand
DELETE FROM pgmq.subscription WHERE subscription = 'old';
SELECT pgmq.receive('events', 'old', 1, 1);
SELECT pgmq.subscribe('events', 'old');
DELETE FROM pgmq.p_events WHERE subscription = 'old';
SELECT pgmq.receive('events', 'old', 1, 1);
SELECT pgmq.unsubscribe('events', 'old');
SELECT pgmq.drop_stream('events');
SELECT pgmq.drop_stream('day');
SELECT count(*) FROM pgmq.subscription;
