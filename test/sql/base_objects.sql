-- Objects that are found by name, after their owners have altered or replaced them.
-- No call crashes, and none returns a wrong answer.
\set VERBOSITY terse
SET client_min_messages = error;

-- Run a statement: "ok" with the number of its rows, or its error
CREATE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
  EXECUTE sql;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN 'ok ' || n;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
-- The same of each call that uses the extension's tables, after a change of one that is then undone
CREATE FUNCTION try_all(change text, OUT call text, OUT result text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE calls text[] := ARRAY['SELECT * FROM pgmq.list_queues()', 'SELECT pgmq.create(''fresh'')', 'SELECT pgmq.create(''n'')',
  'SELECT pgmq.drop_queue(''n'')', 'SELECT pgmq.bind_topic(''x.y'', ''n'')', 'SELECT pgmq.unbind_topic(''a'', ''n'')',
  'SELECT * FROM pgmq.list_topic_bindings()', 'SELECT * FROM pgmq.list_topic_bindings(''n'')', 'SELECT * FROM pgmq.test_routing(''a'')',
  'SELECT pgmq.send_topic(''a'', ''1'')', 'SELECT pgmq.send(''n'', ''1'')', 'SELECT pgmq.enable_notify_insert(''n'', 10)',
  'SELECT pgmq.update_notify_insert(''n'', 10)', 'SELECT pgmq.disable_notify_insert(''n'')', 'SELECT * FROM pgmq.list_notify_insert_throttles()',
  'SELECT pgmq.metrics(''n'')', 'SELECT * FROM pgmq.metrics_all()', 'SELECT * FROM pgmq.list_partitions()',
  'SELECT pgmq.create_fifo_index(''n'')', 'SELECT pgmq.create_fifo_indexes_all()', 'SELECT * FROM pgmq.read(''n'', 0, 10)'];
BEGIN
  FOREACH call IN ARRAY calls LOOP
    BEGIN
      EXECUTE change;
      result := try(call);
      RAISE EXCEPTION 'undo';
    EXCEPTION WHEN raise_exception THEN
      IF result NOT LIKE 'ok%' THEN RETURN NEXT; END IF;
    END;
  END LOOP;
END $$;
SELECT pgmq.create('n');
SELECT pgmq.enable_notify_insert('n', 0);
SELECT pgmq.bind_topic('a', 'n');
SELECT * FROM try_all('SELECT 1');

-- NULLs in the tables of the extension are no queue, no binding and no setting
SELECT * FROM try_all($$ALTER TABLE pgmq.topic_bindings REPLICA IDENTITY NOTHING; ALTER TABLE pgmq.topic_bindings ALTER queue_name DROP NOT NULL; INSERT INTO pgmq.topic_bindings (pattern, queue_name) VALUES ('a', NULL)$$);
SELECT * FROM try_all($$ALTER TABLE pgmq.topic_bindings REPLICA IDENTITY NOTHING; ALTER TABLE pgmq.topic_bindings ALTER pattern DROP NOT NULL, ALTER queue_name DROP NOT NULL, ALTER bound_at DROP NOT NULL;
  INSERT INTO pgmq.topic_bindings VALUES (NULL, NULL, NULL), (NULL, 'n', NULL)$$);
SELECT * FROM try_all($$ALTER TABLE pgmq.notify_insert_throttle REPLICA IDENTITY NOTHING; ALTER TABLE pgmq.notify_insert_throttle ALTER queue_name DROP NOT NULL, ALTER throttle_interval_ms DROP NOT NULL, ALTER last_notified_at DROP NOT NULL;
  INSERT INTO pgmq.notify_insert_throttle VALUES (NULL, NULL, NULL); UPDATE pgmq.notify_insert_throttle SET throttle_interval_ms = NULL, last_notified_at = NULL$$);
SELECT * FROM try_all($$ALTER TABLE pgmq.meta REPLICA IDENTITY NOTHING; ALTER TABLE pgmq.meta ALTER is_partitioned DROP NOT NULL, ALTER is_unlogged DROP NOT NULL, ALTER created_at DROP NOT NULL;
  UPDATE pgmq.meta SET is_partitioned = NULL, is_unlogged = NULL, created_at = NULL$$);
SELECT * FROM try_all($$ALTER TABLE pgmq.meta REPLICA IDENTITY NOTHING; ALTER TABLE pgmq.meta ALTER queue_name DROP NOT NULL; INSERT INTO pgmq.meta VALUES (NULL, false, false)$$);

-- A view, a partitioned table, another table in their place; children
SELECT * FROM try_all('ALTER TABLE pgmq.topic_bindings RENAME TO tb; CREATE VIEW pgmq.topic_bindings AS SELECT ''a''::text AS pattern, 1::bigint AS queue_name, 1::bigint AS compiled_regex, now() AS bound_at');
SELECT * FROM try_all('ALTER TABLE pgmq.topic_bindings RENAME TO tb; CREATE TABLE pgmq.topic_bindings (LIKE pgmq.tb INCLUDING ALL)');
SELECT * FROM try_all('ALTER TABLE pgmq.notify_insert_throttle RENAME TO nit; CREATE VIEW pgmq.notify_insert_throttle AS SELECT * FROM pgmq.nit');
SELECT * FROM try_all('ALTER TABLE pgmq.notify_insert_throttle RENAME TO nit; CREATE TABLE pgmq.notify_insert_throttle (LIKE pgmq.nit) PARTITION BY LIST (queue_name)');
SELECT * FROM try_all($$ALTER TABLE pgmq.notify_insert_throttle RENAME TO nit; CREATE TABLE pgmq.notify_insert_throttle (queue_name name, throttle_interval_ms int);
  INSERT INTO pgmq.notify_insert_throttle VALUES (E'\x01\x01AAAAAAAA', 1)$$);
SELECT * FROM try_all('ALTER TABLE pgmq.notify_insert_throttle RENAME TO nit');
SELECT * FROM try_all('CREATE TABLE child () INHERITS (pgmq.topic_bindings)');

-- The same tables with other columns
CREATE DOMAIN spelling AS varchar;
SELECT * FROM try_all('ALTER TABLE pgmq.notify_insert_throttle DROP CONSTRAINT notify_insert_throttle_meta_queue_name_fk; ALTER TABLE pgmq.notify_insert_throttle ALTER queue_name TYPE bigint USING 1');
SELECT * FROM try_all('DROP INDEX pgmq.idx_notify_throttle_active; ALTER TABLE pgmq.notify_insert_throttle ALTER throttle_interval_ms TYPE text');
SELECT * FROM try_all('ALTER TABLE pgmq.topic_bindings DROP compiled_regex');
SELECT * FROM try_all('ALTER TABLE pgmq.meta ALTER queue_name TYPE spelling');

-- Indexes of the settings: none, another, one of another table, a partial one
SELECT pgmq.update_notify_insert('n', 7);
SELECT * FROM try_all('ALTER TABLE pgmq.notify_insert_throttle DROP CONSTRAINT notify_insert_throttle_queue_name_key') WHERE call !~ 'enable';
SELECT * FROM try_all('ALTER INDEX pgmq.notify_insert_throttle_queue_name_key RENAME TO was_key; CREATE TABLE pgmq.t (queue_name varchar); CREATE INDEX notify_insert_throttle_queue_name_key ON pgmq.t (queue_name)') WHERE call !~ 'enable';
SELECT * FROM try_all('ALTER INDEX pgmq.notify_insert_throttle_queue_name_key RENAME TO was_key; CREATE INDEX notify_insert_throttle_queue_name_key ON pgmq.notify_insert_throttle (queue_name) WHERE false') WHERE call !~ 'enable';
SELECT * FROM try_all('ALTER INDEX pgmq.notify_insert_throttle_queue_name_key RENAME TO was_key; CREATE TABLE pgmq.notify_insert_throttle_queue_name_key ()') WHERE call !~ 'enable';

-- Types that the functions return
CREATE FUNCTION try_type(change text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
  EXECUTE change; result := try(call); RAISE EXCEPTION 'undo';
EXCEPTION WHEN raise_exception THEN RETURN result;
END $$;
SELECT count(*) FROM pgmq.send('n', '1');
SELECT try_type('ALTER TYPE pgmq.message_record ADD ATTRIBUTE x int', 'SELECT pgmq.read(''n'', 0, 1)');
SELECT try_type('ALTER TYPE pgmq.message_record DROP ATTRIBUTE headers', 'SELECT pgmq.pop(''n'')');
SELECT try_type('ALTER TYPE pgmq.message_record ALTER ATTRIBUTE vt TYPE text', 'SELECT pgmq.set_vt(''n'', 1, 1)');
SELECT try_type('ALTER TYPE pgmq.message_record ALTER ATTRIBUTE msg_id TYPE text; ALTER TABLE pgmq.q_n ALTER msg_id DROP IDENTITY; ALTER TABLE pgmq.q_n ALTER msg_id TYPE text', 'SELECT pgmq.read(''n'', 0, 1)');
SELECT try_type('ALTER TYPE pgmq.message_record ALTER ATTRIBUTE msg_id TYPE text', 'SELECT pgmq.read_grouped(''n'', 0, 1)');
SELECT try_type('ALTER TYPE pgmq.metrics_result ADD ATTRIBUTE x int', 'SELECT pgmq.metrics(''n'')');
SELECT try_type('ALTER TYPE pgmq.metrics_result DROP ATTRIBUTE scrape_time', 'SELECT pgmq.metrics(''n'')');
SELECT try_type('ALTER TYPE pgmq.metrics_result ALTER ATTRIBUTE queue_length TYPE text', 'SELECT pgmq.metrics(''n'')');
SELECT try_type('ALTER TYPE pgmq.metrics_result ALTER ATTRIBUTE queue_length TYPE text', 'SELECT pgmq.metrics_all()');
SELECT try_type('ALTER TYPE pgmq.queue_record ALTER ATTRIBUTE queue_name TYPE text', 'SELECT pgmq.list_queues()');
SELECT try_type('ALTER TYPE pgmq.queue_record DROP ATTRIBUTE is_unlogged', 'SELECT pgmq.list_queues()');
SELECT try_type('ALTER TYPE pgmq.metrics_result DROP ATTRIBUTE queue_length; ALTER TYPE pgmq.metrics_result ADD ATTRIBUTE queue_length bigint', 'SELECT pgmq.metrics(''n'')');
-- Attributes that were added and dropped again change nothing
ALTER TYPE pgmq.message_record ADD ATTRIBUTE x int;
ALTER TYPE pgmq.metrics_result ADD ATTRIBUTE x text;
ALTER TYPE pgmq.queue_record ADD ATTRIBUTE x int;
ALTER TYPE pgmq.message_record DROP ATTRIBUTE x;
ALTER TYPE pgmq.metrics_result DROP ATTRIBUTE x;
ALTER TYPE pgmq.queue_record DROP ATTRIBUTE x;
-- nor does one that is the last, and was dropped and added
ALTER TYPE pgmq.message_record DROP ATTRIBUTE headers;
ALTER TYPE pgmq.message_record ADD ATTRIBUTE headers jsonb;
SELECT count(*) FROM pgmq.send_batch('n', ARRAY['2', '3']::jsonb[], ARRAY['{"x-pgmq-group": "a"}', '{"x-pgmq-group": "b"}']::jsonb[]);
SELECT read_ct, message, headers FROM pgmq.read('n', 0, 10);
SELECT message, headers FROM pgmq.set_vt('n', (SELECT max(msg_id) FROM pgmq.q_n), 0);
SELECT message, headers FROM pgmq.read_grouped_rr('n', 0, 10);
SELECT message, headers FROM pgmq.read_with_poll('n', 0, 2);
SELECT message, headers FROM pgmq.pop('n', 3);
SELECT queue_name, queue_length, queue_visible_length FROM pgmq.metrics('n');
SELECT queue_name, queue_length, queue_visible_length FROM pgmq.metrics_all() WHERE queue_name = 'n';
SELECT queue_name, is_partitioned, is_unlogged FROM pgmq.list_queues() WHERE queue_name = 'n';
SELECT count(*) FROM pgmq.read('n', 0, 10);
SELECT pgmq.drop_queue('n');
DROP FUNCTION try, try_all, try_type;
DROP DOMAIN spelling;
