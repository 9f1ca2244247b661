-- Tables, indexes, sequences and triggers of queues, after their owners have altered or replaced them
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_objq_maker;
CREATE ROLE regress_objq_other;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_objq_maker, regress_objq_other;
GRANT SELECT, INSERT ON pgmq.meta TO regress_objq_maker, regress_objq_other;

-- A group index of another expression, order or size is none
SELECT pgmq.create(q), pgmq.create_fifo_index(q) FROM unnest(ARRAY['c2', 'c3', 'c4', 'c5', 'c6', 'c7']) AS q;
DROP INDEX pgmq.q_c2_fifo_idx;
CREATE INDEX q_c2_fifo_idx ON pgmq.q_c2 ((headers->>'x-pgmq-group') COLLATE "C", msg_id);
DROP INDEX pgmq.q_c3_fifo_idx;
CREATE INDEX q_c3_fifo_idx ON pgmq.q_c3 ((COALESCE(headers->>'x-pgmq-group', '')) COLLATE "C", msg_id DESC);
DROP INDEX pgmq.q_c4_fifo_idx;
CREATE INDEX q_c4_fifo_idx ON pgmq.q_c4 ((COALESCE(headers->>'x-pgmq-group', '')) COLLATE "C", (msg_id + 0));
DROP INDEX pgmq.q_c5_fifo_idx;
CREATE INDEX q_c5_fifo_idx ON pgmq.q_c5 ((COALESCE(headers->>'x-pgmq-group', '')) COLLATE "C", msg_id) WHERE msg_id > 100;
DROP INDEX pgmq.q_c6_fifo_idx;
CREATE INDEX q_c6_fifo_idx ON pgmq.q_c6 USING hash (msg_id);
DROP INDEX pgmq.q_c7_fifo_idx;
CREATE INDEX q_c7_fifo_idx ON pgmq.q_c2 (msg_id);
SELECT q, array_agg(id ORDER BY id) FROM unnest(ARRAY['c2', 'c3', 'c4', 'c5', 'c6', 'c7']) AS q,
  LATERAL pgmq.send_batch(q, ARRAY['1', '2', '3']::jsonb[], ARRAY['{"x-pgmq-group": "a"}', NULL, '{"x-pgmq-group": "a"}']::jsonb[]) AS id GROUP BY q ORDER BY q;
SELECT q, array_agg(msg_id) FROM unnest(ARRAY['c2', 'c3', 'c4', 'c5', 'c6', 'c7']) AS q, LATERAL pgmq.read_grouped(q, 60, 10) GROUP BY q ORDER BY q;
SELECT q, count(*) FROM unnest(ARRAY['c2', 'c3', 'c4', 'c5', 'c6', 'c7']) AS q, LATERAL pgmq.delete(q, ARRAY[1, 2, 3]) GROUP BY q ORDER BY q;

-- One that was dumped and restored is ours
CREATE FUNCTION uses_group_index(queue text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE before bigint; after bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM pgmq.g_%s WHERE NOT late', queue) INTO before;
  PERFORM pgmq.send(queue, '1', jsonb_build_object('x-pgmq-group', gen_random_uuid()));
  EXECUTE format('SELECT count(*) FROM pgmq.g_%s WHERE NOT late', queue) INTO after;
  RETURN after > before;
END $$;
SELECT uses_group_index('c2'), uses_group_index('c3');
SELECT pgmq.create_fifo_index('c3');
SELECT pg_get_indexdef('pgmq.q_c3_fifo_idx'::regclass) AS definition \gset
DROP INDEX pgmq.q_c3_fifo_idx;
:definition;
SELECT uses_group_index('c3');

-- The table of notes and its indexes
SELECT pgmq.create(q), pgmq.create_fifo_index(q) FROM unnest(ARRAY['g1', 'g2', 'g3', 'g4', 'g5']) AS q;
SELECT count(id) FROM unnest(ARRAY['g1', 'g2', 'g3', 'g4', 'g5']) AS q, LATERAL pgmq.send_batch(q, ARRAY['1', '2']::jsonb[]) AS id;
DROP INDEX pgmq.fifo_late_idx_g1;
CREATE INDEX fifo_late_idx_g1 ON pgmq.g_g1 (late, head);
UPDATE pgmq.g_g1 SET late = true;
DROP INDEX pgmq.fifo_head_idx_g2;
CREATE INDEX fifo_head_idx_g2 ON pgmq.g_g2 (head, grp);
DROP INDEX pgmq.fifo_head_idx_g3, pgmq.fifo_late_idx_g3;
CREATE TABLE pgmq.fifo_head_idx_g3 ();
CREATE INDEX fifo_late_idx_g3 ON pgmq.q_g3 (msg_id);
ALTER TABLE pgmq.g_g4 ALTER grp DROP NOT NULL, ALTER head DROP NOT NULL, ALTER late DROP NOT NULL, ALTER vt DROP NOT NULL;
INSERT INTO pgmq.g_g4 VALUES (DEFAULT, now(), now(), NULL, NULL, NULL), (DEFAULT, now(), NULL, 'x', 1, false);
ALTER TABLE pgmq.g_g5 ALTER grp TYPE text COLLATE "default", ALTER head TYPE numeric;
SELECT q, array_agg(msg_id) FROM unnest(ARRAY['g1', 'g2', 'g3', 'g4', 'g5']) AS q, LATERAL pgmq.read_grouped(q, 0, 10) GROUP BY q ORDER BY q;
SELECT q, array_agg(id) FROM unnest(ARRAY['g1', 'g2', 'g3', 'g4', 'g5']) AS q, LATERAL pgmq.delete(q, ARRAY[1]) AS id GROUP BY q ORDER BY q;
SELECT q, array_agg(msg_id) FROM unnest(ARRAY['g1', 'g2', 'g3', 'g4', 'g5']) AS q, LATERAL pgmq.read_grouped(q, 0, 10) GROUP BY q ORDER BY q;

-- Indexes on msg_id and vt: partial, descending, of another access method, under the expected name on another table
SELECT pgmq.create(q) FROM unnest(ARRAY['i1', 'i2', 'i3', 'i4', 'i5']) AS q;
DROP INDEX pgmq.q_i1_vt_idx;
CREATE INDEX q_i1_vt_idx ON pgmq.q_i1 (vt, msg_id) WHERE vt > '2100-01-01';
DROP INDEX pgmq.q_i2_vt_idx;
CREATE INDEX q_i2_vt_idx ON pgmq.q_i2 (vt DESC);
DROP INDEX pgmq.q_i3_vt_idx;
CREATE INDEX q_i3_vt_idx ON pgmq.q_i2 (vt);
DROP INDEX pgmq.q_i4_vt_idx;
CREATE INDEX q_i4_vt_idx ON pgmq.q_i4 (vt, msg_id) WHERE vt < enqueued_at;
ALTER TABLE pgmq.q_i5 DROP CONSTRAINT q_i5_pkey;
CREATE INDEX ON pgmq.q_i5 (msg_id) WHERE msg_id > 1;
SELECT count(id) FROM unnest(ARRAY['i1', 'i2', 'i3', 'i4', 'i5']) AS q, LATERAL pgmq.send_batch(q, ARRAY['1', '2']::jsonb[]) AS id;
SELECT count(*) FROM unnest(ARRAY['i1', 'i2', 'i3', 'i4', 'i5']) AS q, LATERAL pgmq.set_vt(q, 1, 0);
SELECT q, array_agg(msg_id ORDER BY msg_id) FROM unnest(ARRAY['i1', 'i2', 'i3', 'i4', 'i5']) AS q, LATERAL pgmq.read(q, 0, 10) GROUP BY q ORDER BY q;
SELECT q, array_agg(msg_id ORDER BY msg_id) FROM unnest(ARRAY['i1', 'i2', 'i3', 'i4', 'i5']) AS q, LATERAL pgmq.pop(q, 10) GROUP BY q ORDER BY q;
-- A descending index that is attached to an ascending one of a partitioned queue
CREATE TABLE pgmq.q_pd (LIKE pgmq.q_i1 INCLUDING DEFAULTS) PARTITION BY RANGE (msg_id);
ALTER TABLE pgmq.q_pd ALTER msg_id ADD GENERATED ALWAYS AS IDENTITY;
CREATE TABLE pgmq.q_pd_1 PARTITION OF pgmq.q_pd FOR VALUES FROM (0) TO (3);
CREATE TABLE pgmq.q_pd_2 PARTITION OF pgmq.q_pd FOR VALUES FROM (3) TO (100);
CREATE INDEX ON pgmq.q_pd_1 (msg_id DESC);
CREATE INDEX ON pgmq.q_pd_1 (vt DESC);
CREATE INDEX ON pgmq.q_pd (msg_id);
CREATE INDEX ON pgmq.q_pd (vt);
SELECT pgmq.create_fifo_index('pd');
INSERT INTO pgmq.meta VALUES ('pd', true, false);
SELECT count(*) FROM pgmq.send_batch('pd', array_fill('{}'::jsonb, '{40}'));
SELECT array_agg(msg_id) FROM pgmq.read('pd', 0, 4);
-- so many that the floors move before the next one
SELECT array_agg(msg_id) FROM pgmq.read('pd', 0, 20);
SELECT array_agg(msg_id) FROM pgmq.read('pd', 60, 6);
SELECT count(*) FROM pgmq.delete('pd', ARRAY(SELECT generate_series(1, 40)));

-- Two partitions that no look is possible into, for the same ids: a read of what is there ends
CREATE TABLE pgmq.q_pt (LIKE pgmq.q_i1 INCLUDING DEFAULTS) PARTITION BY RANGE (enqueued_at);
ALTER TABLE pgmq.q_pt ALTER msg_id ADD GENERATED ALWAYS AS IDENTITY;
CREATE TABLE pgmq.q_pt_1 PARTITION OF pgmq.q_pt FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE pgmq.q_pt_2 PARTITION OF pgmq.q_pt FOR VALUES FROM ('2020-01-01') TO ('infinity');
CREATE INDEX ON pgmq.q_pt_1 (msg_id DESC);
CREATE INDEX ON pgmq.q_pt_1 (vt DESC);
CREATE INDEX ON pgmq.q_pt_2 (msg_id DESC);
CREATE INDEX ON pgmq.q_pt_2 (vt DESC);
CREATE INDEX ON pgmq.q_pt (msg_id);
CREATE INDEX ON pgmq.q_pt (vt);
INSERT INTO pgmq.meta VALUES ('pt', true, false);
SELECT count(*) FROM pgmq.send_batch('pt', array_fill('{}'::jsonb, '{40}'));
INSERT INTO pgmq.q_pt (enqueued_at, vt, message) VALUES ('2010-01-01', '2010-01-01', '{}'), ('2010-01-01', '2010-01-02', '{}');
SET statement_timeout = '60s';
SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.read('pt', 0, 20);
SELECT count(*) FROM pgmq.read('pt', 60, 50);
SELECT count(*) FROM pgmq.read('pt', 60, 50);
SELECT count(*) FROM pgmq.send_batch('pt', array_fill('{}'::jsonb, '{3}'));
SELECT count(*) FROM pgmq.pop('pt', 50);
RESET statement_timeout;

-- Another access method is left to statements
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
SET default_table_access_method = heap2;
SELECT pgmq.create('am');
SELECT pgmq.create_fifo_index('am');
RESET default_table_access_method;
SELECT relname, amname FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam
  WHERE relname IN ('q_am', 'a_am', 'g_am') AND relnamespace = 'pgmq'::regnamespace ORDER BY 1;
SELECT pgmq.create('am2');
ALTER TABLE pgmq.q_am2 SET ACCESS METHOD heap2;
ALTER TABLE pgmq.a_am2 SET ACCESS METHOD heap2;
SELECT count(*) FROM pgmq.send_batch('am2', ARRAY['1', '2', '3']::jsonb[]);
SELECT msg_id FROM pgmq.read('am2', 0, 1);
SELECT msg_id FROM pgmq.pop('am2');
SELECT pgmq.archive('am2', 2);
CALL pgmq.wait('am2', 0);
SELECT pgmq.read_grouped('am2', 0, 1);
SELECT pgmq.create_fifo_index('am2');
SELECT pgmq.send('am2', '4');
ALTER TABLE pgmq.g_am SET ACCESS METHOD heap2;
SELECT pgmq.send('am', '1');
SELECT msg_id FROM pgmq.read_grouped('am', 0, 1);
-- One partition of another access method
CREATE TABLE pgmq.q_pd_3 PARTITION OF pgmq.q_pd FOR VALUES FROM (100) TO (200) USING heap2;
INSERT INTO pgmq.q_pd (msg_id, vt) OVERRIDING SYSTEM VALUE VALUES (50, now()), (150, now());
SELECT array_agg(msg_id) FROM pgmq.read('pd', 0, 10);
SELECT array_agg(msg_id) FROM pgmq.read_grouped('pd', 0, 10);

-- The sequence is the one that the column owns
SELECT pgmq.create('s1');
ALTER SEQUENCE pgmq.q_s1_msg_id_seq RENAME TO s1seq;
CREATE TABLE pgmq.q_s1_msg_id_seq (last_value bigint, is_called boolean);
SELECT count(*) FROM pgmq.send_batch('s1', ARRAY['1', '2']::jsonb[]);
SELECT array_agg(msg_id) FROM pgmq.read('s1', 0, 10);
DROP TABLE pgmq.q_s1_msg_id_seq;
CREATE SEQUENCE pgmq.q_s1_msg_id_seq;
SELECT setval('pgmq.q_s1_msg_id_seq', 4611686018427387904);
DO $$ BEGIN FOR i IN 1..60 LOOP PERFORM pgmq.send('s1', '3'); PERFORM pgmq.read('s1', 3600, 1); PERFORM pg_sleep(0.002); END LOOP; END $$;
SELECT count(*) FROM pgmq.read('s1', 3600, 100);
SELECT queue_length, total_messages FROM pgmq.metrics('s1');

-- A sequence or an index whose name is taken before the queue is made
SET ROLE regress_objq_maker;
CREATE SEQUENCE pgmq.q_seq1_msg_id_seq;
CREATE TABLE pgmq.oth (vt timestamptz, archived_at timestamptz);
CREATE INDEX q_idx1_vt_idx ON pgmq.oth (vt);
CREATE INDEX archived_at_idx_idx2 ON pgmq.oth (archived_at);
SET ROLE regress_objq_other;
SELECT pgmq.create('seq1');
SELECT pgmq.create_unlogged('seq1');
SELECT pgmq.create('idx1');
SELECT pgmq.create('idx2');
RESET ROLE;

-- A table that another role has prepared
GRANT SELECT ON pgmq.q_s1, pgmq.a_s1 TO regress_objq_maker;
SET ROLE regress_objq_maker;
CREATE TABLE pgmq.q_orders (LIKE pgmq.q_s1 INCLUDING ALL);
CREATE TABLE pgmq.a_bills (LIKE pgmq.a_s1 INCLUDING ALL);
CREATE VIEW pgmq.q_views AS SELECT * FROM pgmq.q_orders;
CREATE TABLE pgmq.q_mine (LIKE pgmq.q_orders INCLUDING ALL);
SELECT pgmq.create('mine');
RESET ROLE;
\set VERBOSITY default
SELECT pgmq.create('orders');
\set VERBOSITY terse
SELECT pgmq.create('bills');
SELECT pgmq.create_unlogged('views');
GRANT regress_objq_maker TO regress_objq_other;
SET ROLE regress_objq_other;
SELECT pgmq.create('orders');
-- A queue that is registered stays as it is, also for members of its owner
SELECT pgmq.create('mine');
RESET ROLE;
SELECT pgmq.create('mine');

-- Triggers of ours on any table
CREATE TABLE any_table (id bigint, t text);
CREATE TABLE pgmq.q_any (id bigint);
CREATE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE sql;
  RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION try_trigger(tab text, func text, timing text, event text, how text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
  EXECUTE format('CREATE TRIGGER x %s %s ON %s %s EXECUTE FUNCTION pgmq.%s', timing, event, tab, how, func);
  result := concat_ws(', ', nullif(try(format('INSERT INTO %s VALUES (1), (2)', tab)), 'ok'), nullif(try(format('UPDATE %s SET id = 3', tab)), 'ok'),
    nullif(try(format('DELETE FROM %s', tab)), 'ok'), nullif(try(format('TRUNCATE %s', tab)), 'ok'));
  RAISE EXCEPTION 'undo';
EXCEPTION
  WHEN raise_exception THEN RETURN coalesce(nullif(result, ''), 'ok');
  WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT f, result, count(*) FROM unnest(ARRAY['any_table', 'pgmq.q_any']) AS tab,
  unnest(ARRAY['_group_sent()', '_group_sent(''any'')', '_group_sent(''c2'')', '_group_removed(''any'')', '_group_truncated(''any'')', '_group_updated(''any'')',
    '_topic_bindings_changed()', '_notify_settings_changed()', '_restore_in_any_order()', 'notify_queue_listeners()', 'notify_queue_listeners(''n'')', 'notify_queue_listeners('''')']) AS f,
  unnest(ARRAY['BEFORE', 'AFTER']) AS timing, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS event,
  unnest(ARRAY['FOR EACH ROW', 'FOR EACH STATEMENT', 'REFERENCING NEW TABLE AS n FOR EACH STATEMENT', 'REFERENCING OLD TABLE AS o FOR EACH ROW']) AS how,
  LATERAL try_trigger(tab, f, timing, event, how) AS result
  WHERE result !~ '^(0A000|42P17)' GROUP BY f, result ORDER BY f, result COLLATE "C";
DROP TABLE any_table, pgmq.q_any;
DROP FUNCTION try, try_trigger, uses_group_index;
DROP TABLE pgmq.fifo_head_idx_g3;
DROP SEQUENCE pgmq.q_s1_msg_id_seq;
SELECT count(pgmq.drop_queue(queue_name)) FROM pgmq.meta;
DROP TABLE pgmq.g_g5;
DROP ACCESS METHOD heap2 CASCADE;
DROP OWNED BY regress_objq_maker, regress_objq_other;
DROP ROLE regress_objq_maker, regress_objq_other;
SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
  AND relname NOT IN ('meta', 'topic_bindings', 'topic_stream_bindings', 'notify_insert_throttle', 'partition_config', 'policy', 'stream', 'subscription', 'queues_to_upgrade');
