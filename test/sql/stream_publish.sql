-- Streams are made and dropped; events are published and fetched.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create_stream('Orders');
SELECT pgmq.create_stream('wide', 4, '1 day', '2 days');
SELECT stream_name, shards, retention, keep_unconsumed FROM pgmq.list_streams();
-- once more: nothing changes
SELECT pgmq.create_stream('ORDERS', 3);
SELECT shards FROM pgmq.list_streams() WHERE stream_name = 'Orders';
-- what its tables are
SELECT c.relname, c.relkind, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c
 WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relname ~ '^[sp]_orders' AND c.relkind IN ('r', 'p') ORDER BY 1;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' AND tablename IN ('s_orders', 'p_orders') ORDER BY 1;

-- one namespace with queues
SELECT pgmq.create('orders');
SELECT pgmq.create('jobs');
SELECT pgmq.create_stream('jobs');
SELECT pgmq.drop_queue('jobs');

-- wrong arguments
\set VERBOSITY default
SELECT pgmq.create_stream('bad', 0);
SELECT pgmq.create_stream('bad', 65);
SELECT pgmq.create_stream('bad', NULL);
SELECT pgmq.create_stream('bad', 1, NULL);
SELECT pgmq.create_stream('bad', 1, '-1 day');
SELECT pgmq.create_stream('bad', 1, '1 day', '-1 day');
SELECT pgmq.create_stream(NULL);
SELECT pgmq.create_stream('');
SELECT pgmq.create_stream('ba$d');
SELECT pgmq.publish('none', '1');
SELECT pgmq.publish_batch('none', ARRAY['1']::jsonb[]);
SELECT pgmq.fetch('none', 0, 0, 1);
SELECT pgmq.publish_batch('orders', NULL);
SELECT pgmq.publish_batch('orders', '{}');
SELECT pgmq.publish_batch('orders', ARRAY['1', '2']::jsonb[], ARRAY['k']);
SELECT pgmq.publish_batch('orders', ARRAY['1', '2']::jsonb[], NULL, ARRAY['{}']::jsonb[]);
SELECT pgmq.fetch('orders', 1, 0, 1);
SELECT pgmq.fetch('orders', 0, 0, -1);
SELECT pgmq.fetch('orders', 0, NULL, 1);
SELECT pgmq.fetch('orders', 0, 1, 1);
\set VERBOSITY terse

-- events
SELECT pgmq.publish('orders', '{"n": 1}');
SELECT pgmq.publish('ORDERS', '{"n": 2}', 'key', '{"h": true}');
SELECT pgmq.publish('orders', NULL, key => 'null');
SELECT * FROM pgmq.publish_batch('orders', ARRAY['4', '5', '6']::jsonb[], ARRAY['a', NULL, 'c'], ARRAY['{}', NULL, '[]']::jsonb[]);
SELECT shard, event_id, published_at BETWEEN now() - '1 minute'::interval AND clock_timestamp() AS lately, key, message, headers, attempt, lease
  FROM pgmq.fetch('orders', 0, 0, 100);
SELECT event_id FROM pgmq.fetch('orders', 0, 2, 2);
SELECT event_id FROM pgmq.fetch('orders', 0, 6, 2);
SELECT event_id FROM pgmq.fetch('orders', 0, 0, 0);
SELECT (pgmq.fetch('orders', 0, 5, 10)).event_id;

-- shards: by the key's hash, or by the id.  These are the test vectors of the docs.
SELECT pgmq.publish('wide', '1', key) IS NOT NULL AS published
  FROM unnest(ARRAY['', 'a', 'b', 'c', 'customer-1', 'customer-2', U&'\00e9', U&'\4e16\754c']) AS key;
SELECT key, shard FROM pgmq.s_wide ORDER BY event_id;
SELECT count(*) FROM pgmq.publish_batch('wide', array_fill('1'::jsonb, ARRAY[8]));
SELECT count(*) FILTER (WHERE shard = event_id % 4) FROM pgmq.s_wide WHERE key IS NULL;
SELECT shard, count(*) FROM (SELECT pgmq.publish('wide', '1', 'k' || n) FROM generate_series(1, 4000) AS n) AS p
  JOIN pgmq.s_wide ON event_id = publish GROUP BY 1 HAVING count(*) NOT BETWEEN 900 AND 1100;

-- what the own transaction has published is not settled, and what comes after it neither
BEGIN;
SELECT pgmq.publish('orders', '"own"');
SELECT event_id FROM pgmq.fetch('orders', 0, 5, 10);
SAVEPOINT s;
SELECT pgmq.publish('orders', '"rolled back"');
ROLLBACK TO s;
SELECT event_id FROM pgmq.fetch('orders', 0, 5, 10);
COMMIT;
SELECT event_id, message FROM pgmq.fetch('orders', 0, 5, 10);
-- a savepoint that is rolled back releases the log
BEGIN;
SAVEPOINT s;
SELECT pgmq.publish('orders', '"rolled back"');
ROLLBACK TO s;
SELECT event_id FROM pgmq.fetch('orders', 0, 6, 10);
SELECT pgmq.publish('orders', '"own"');
SELECT event_id FROM pgmq.fetch('orders', 0, 6, 10);
COMMIT;
SELECT event_id, message FROM pgmq.fetch('orders', 0, 6, 10);
-- rows by hand: the transaction is a holder without a record
BEGIN;
INSERT INTO pgmq.s_orders (shard, message) VALUES (0, '"by hand"');
SELECT pgmq.publish('orders', '"after it"');
SELECT event_id FROM pgmq.fetch('orders', 0, 9, 10);
COMMIT;
SELECT event_id, message FROM pgmq.fetch('orders', 0, 9, 10);
BEGIN READ ONLY;
SELECT event_id FROM pgmq.fetch('orders', 0, 11, 10);
SELECT pgmq.publish('orders', '1');
ROLLBACK;

-- parts: what has none goes to the default one, and is read in order
SELECT setval(pg_get_serial_sequence('pgmq.s_orders', 'event_id'), 131070);
SELECT count(*) FROM pgmq.publish_batch('orders', array_fill('"next part"'::jsonb, ARRAY[3]));
SELECT setval(pg_get_serial_sequence('pgmq.s_orders', 'event_id'), 262142);
SELECT count(*) FROM pgmq.publish_batch('orders', array_fill('"no part"'::jsonb, ARRAY[3]));
SELECT tableoid::regclass, min(event_id), max(event_id) FROM pgmq.s_orders GROUP BY 1 ORDER BY 2;
SELECT event_id, message FROM pgmq.fetch('orders', 0, 100, 10);
SELECT event_id FROM pgmq.fetch('orders', 0, 131071, 3);
-- each statement touches one part
BEGIN;
SELECT event_id FROM pgmq.fetch('orders', 0, 131071, 1);
SELECT relation::regclass FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text ~ 's_orders' AND relation::regclass::text !~ 'pkey|seq' ORDER BY 1;
COMMIT;

-- a sequence that does not give ids in order
\set VERBOSITY default
ALTER TABLE pgmq.s_orders ALTER event_id SET CACHE 10;
SELECT pgmq.publish('orders', '1');
ALTER TABLE pgmq.s_orders ALTER event_id SET CACHE 1 SET INCREMENT 2;
SELECT pgmq.publish('orders', '1');
ALTER TABLE pgmq.s_orders ALTER event_id SET INCREMENT 1 SET CYCLE;
SELECT pgmq.publish('orders', '1');
ALTER TABLE pgmq.s_orders ALTER event_id SET NO CYCLE;
SELECT pgmq.publish('orders', '1');
-- one that was set back
SELECT setval(pg_get_serial_sequence('pgmq.s_orders', 'event_id'), 5);
SELECT event_id FROM pgmq.fetch('orders', 0, 0, 1);
\c
SELECT event_id FROM pgmq.fetch('orders', 0, 0, 1);
SELECT pgmq.publish('orders', '1');
SELECT setval(pg_get_serial_sequence('pgmq.s_orders', 'event_id'), (SELECT max(event_id) FROM pgmq.s_orders));
SELECT pgmq.publish('orders', '1');
-- also if no session has looked for the end yet, and this one has looked for events above the last id a moment ago
SELECT pgmq.create_stream('back', 2);
SELECT pgmq.publish('back', '1');
SELECT count(pgmq.publish('back', '1', 'a')) FROM generate_series(1, 9);
SELECT setval(pg_get_serial_sequence('pgmq.s_back', 'event_id'), 3);
SELECT pgmq.publish('back', '2', 'key 3');
SELECT setval(pg_get_serial_sequence('pgmq.s_back', 'event_id'), 10);
SELECT pgmq.publish('back', '2', 'key 3');
SELECT pgmq.drop_stream('back');
TRUNCATE pgmq.s_wide RESTART IDENTITY;
SELECT event_id FROM pgmq.fetch('wide', 0, 4, 1);
\set VERBOSITY terse

-- a trigger that suppresses
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE INSERT ON pgmq.s_orders FOR EACH ROW EXECUTE FUNCTION suppress();
SELECT pgmq.publish('orders', '1') IS NULL;

-- a rule that suppresses the insert, and goes: the next call does not use its plan
DROP TRIGGER suppress ON pgmq.s_orders;
CREATE RULE nothing AS ON INSERT TO pgmq.s_orders DO INSTEAD NOTHING;
SELECT pgmq.publish('orders', '1') IS NULL, count(*) FROM pgmq.publish_batch('orders', '{1,2}');
DROP RULE nothing ON pgmq.s_orders;
CREATE RULE nothing AS ON INSERT TO pgmq.s_orders DO INSTEAD NOTIFY nothing;
SELECT pgmq.publish('orders', '1') IS NULL;
DROP RULE nothing ON pgmq.s_orders;
SELECT count(*) AS before FROM pgmq.s_orders \gset
SELECT pgmq.publish('orders', '1') IS NOT NULL, count(*) FROM pgmq.publish_batch('orders', '{1,2}');
SELECT count(*) - :before AS stored FROM pgmq.s_orders;

-- an attribute that was added to the type and dropped again
BEGIN;
ALTER TYPE pgmq.event_record ADD ATTRIBUTE extra integer;
ALTER TYPE pgmq.event_record DROP ATTRIBUTE extra;
SELECT shard, message, attempt, lease FROM pgmq.fetch('orders', 0, 0, 2);
ROLLBACK;

-- drop
SELECT pgmq.drop_stream('Orders');
SELECT pgmq.drop_stream('orders');
SELECT pgmq.drop_stream('wide');
SELECT pgmq.drop_stream(NULL);
SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ '^[sp]_(orders|wide)';
-- tables that were dropped by hand
SELECT pgmq.create_stream('orders');
SELECT pgmq.publish('orders', '1');
DROP TABLE pgmq.s_orders;
SELECT pgmq.publish('orders', '1');
SELECT pgmq.create_stream('orders');
DROP TABLE pgmq.p_orders;
SELECT pgmq.create_stream('orders', 2);
SELECT shards FROM pgmq.list_streams();
SELECT pgmq.publish('orders', '1');
SELECT pgmq.drop_stream('orders');
SELECT * FROM pgmq.list_streams();
DROP FUNCTION suppress;
