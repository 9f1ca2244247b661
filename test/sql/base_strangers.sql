-- What a role with USAGE on the schema alone can do to the queues of others
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE strangers_role;
GRANT USAGE ON SCHEMA pgmq TO strangers_role;
-- Each verb is refused by name of the table
SELECT FROM pgmq.create('strange');
SELECT count(*) FROM pgmq.send('strange', '1');
SET SESSION AUTHORIZATION strangers_role;
SELECT pgmq.send('strange', '1');
SELECT pgmq.send_batch('strange', ARRAY['1']::jsonb[]);
SELECT pgmq.read('strange', 0, 1);
SELECT pgmq.pop('strange');
SELECT pgmq.read_grouped('strange', 0, 1);
SELECT pgmq.delete('strange', 1);
SELECT pgmq.archive('strange', 1);
SELECT pgmq.set_vt('strange', 1, 0);
SELECT pgmq.metrics('strange');
SELECT pgmq.bind_topic('x', 'strange');
SELECT pgmq.unbind_topic('x', 'strange');
-- The interval of a queue is not used up by a trigger on another table
RESET SESSION AUTHORIZATION;
SELECT FROM pgmq.enable_notify_insert('strange', 20000);
GRANT TEMPORARY ON DATABASE :DBNAME TO strangers_role;
SET SESSION AUTHORIZATION strangers_role;
CREATE TEMP TABLE q_strange (i int);
CREATE TRIGGER t AFTER INSERT ON q_strange FOR EACH STATEMENT EXECUTE FUNCTION pgmq.notify_queue_listeners('strange');
CREATE TRIGGER u AFTER INSERT ON q_strange FOR EACH STATEMENT EXECUTE FUNCTION pgmq.notify_queue_listeners();
INSERT INTO q_strange VALUES (1);
RESET SESSION AUTHORIZATION;
SELECT last_notified_at = to_timestamp(0) AS never FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'strange';
SELECT count(*) FROM pgmq.send('strange', '1');
SELECT last_notified_at = to_timestamp(0) AS never FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'strange';
DROP TABLE q_strange;
SELECT FROM pgmq.drop_queue('strange');
-- Rows about queues that don't exist, and rows that name no queue, cost next to nothing
INSERT INTO pgmq.meta SELECT 'bad;' || i, false, false FROM generate_series(10, 99) AS i;
SELECT count(*) FROM pgmq.metrics_all();
DELETE FROM pgmq.meta WHERE queue_name LIKE 'bad;%';
-- A view of a partition keeps that partition, and no other one
CREATE EXTENSION pg_partman;
SELECT FROM pgmq.create_partitioned('strange', '10', '20', 2, true);
SELECT count(*) FROM pgmq.send_batch('strange', array_fill('{}'::jsonb, '{15}'));
SET SESSION AUTHORIZATION strangers_role;
CREATE TEMP VIEW strange AS SELECT 1 AS x FROM pgmq.q_strange_p0;
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM pgmq.send_batch('strange', array_fill('{}'::jsonb, '{85}'));
CALL pgmq.maintain();
SELECT partition FROM pgmq.list_partitions('strange') WHERE past_retention;
CALL pgmq.maintain();
SELECT partition FROM pgmq.list_partitions('strange') WHERE past_retention;
-- The owner ends it
SELECT pgmq.drop_queue('strange');
DROP TABLE pgmq.q_strange CASCADE;
SELECT pgmq.drop_queue('strange');
DROP EXTENSION pg_partman;
REVOKE TEMPORARY ON DATABASE :DBNAME FROM strangers_role;
DROP OWNED BY strangers_role;
DROP ROLE strangers_role;
