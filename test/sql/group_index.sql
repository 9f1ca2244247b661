-- What create_fifo_index makes.
\set VERBOSITY terse
SELECT pgmq.create('Fifo');
-- on a full queue, with messages of all kinds
SELECT count(*) FROM pgmq.send_batch('fifo', array_fill('1'::jsonb, '{6}'),
  ARRAY(SELECT jsonb_build_object('x-pgmq-group', g) FROM unnest('{a,b,a,c,d,b}'::text[]) AS g));
SELECT msg_id FROM pgmq.set_vt('fifo', 4, 3600);
SELECT pgmq.delete('fifo', 5);
SELECT pgmq.create_fifo_index('FIFO');
SELECT grp, head, vt > now() + interval '1 min' AS later, vt = enqueued_at AS fresh FROM pgmq.g_fifo WHERE head > 0 ORDER BY msg_id;
SELECT msg_id FROM pgmq.read_grouped_head('fifo', 0, 10);
-- again, by all its names, changes nothing
SELECT 'pgmq.g_fifo'::regclass::oid AS notes, 'pgmq.q_fifo_fifo_idx'::regclass::oid AS index \gset
SELECT pgmq.create_fifo_index('fifo'), pgmq._create_fifo_index_if_not_exists('fifo'), pgmq.create_fifo_indexes_all();
SELECT 'pgmq.g_fifo'::regclass::oid = :notes AND 'pgmq.q_fifo_fifo_idx'::regclass::oid = :index AS the_same;
-- as the table's own statistics see it: metrics and the list of queues don't know of notes
SELECT queue_name, queue_length, queue_visible_length FROM pgmq.metrics('fifo');
SELECT queue_name FROM pgmq.list_queues();

-- in a transaction, with messages of its own; and taken back
SELECT pgmq.create('tx');
BEGIN;
SELECT pgmq.send('tx', '1');
SELECT pgmq.create_fifo_index('tx');
SELECT msg_id FROM pgmq.read_grouped('tx', 0, 1);
ROLLBACK;
SELECT to_regclass('pgmq.g_tx'), to_regclass('pgmq.q_tx_fifo_idx');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1;
SELECT pgmq.create_fifo_index('tx');
SELECT pgmq.send('tx', '1');
SELECT msg_id FROM pgmq.read_grouped('tx', 0, 1);
COMMIT;

-- an index that an older version has made
SELECT pgmq.create('old');
SELECT pgmq.send('old', '1');
CREATE INDEX q_old_fifo_idx ON pgmq.q_old USING gin (headers);
SELECT pgmq.create_fifo_index('old');
SELECT am.amname FROM pg_class c JOIN pg_am am ON am.oid = c.relam WHERE c.oid = 'pgmq.q_old_fifo_idx'::regclass;
SELECT msg_id FROM pgmq.read_grouped('old', 0, 1);

-- unlogged, and names that need quoting
SELECT pgmq.create_unlogged('it"s 50% \x'), pgmq.create_fifo_index('it"s 50% \x');
SELECT relpersistence, relkind FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname LIKE 'g\_it%' ORDER BY relkind;
SELECT pgmq.send('it"s 50% \x', '1');
SELECT msg_id FROM pgmq.read_grouped('it"s 50% \x', 0, 1);
SELECT pgmq.create(repeat('n', 47)), pgmq.create_fifo_index(repeat('n', 47));
SELECT pgmq.send(repeat('n', 47), '1');
SELECT msg_id FROM pgmq.read_grouped(repeat('n', 47), 0, 1);

-- the name of the index is another queue's
SELECT pgmq.create('x'), pgmq.create('x_fifo_idx');
SELECT pgmq.create_fifo_index('x');
SELECT pgmq.drop_queue('x_fifo_idx'), pgmq.create_fifo_index('x');
-- records without a queue don't matter
INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('orphan', false, false);
SELECT pgmq.create('later'), pgmq.create_fifo_indexes_all();
SELECT count(*) FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname LIKE 'g\_%' AND relkind = 'r';
DELETE FROM pgmq.meta WHERE queue_name = 'orphan';

-- who may use the queue need not know of the notes
CREATE ROLE fifo_owner;
CREATE ROLE fifo_user;
GRANT USAGE ON SCHEMA pgmq TO fifo_user, fifo_owner;
SELECT pgmq.create('mine');
ALTER TABLE pgmq.q_mine OWNER TO fifo_owner;
SELECT pgmq.create_fifo_index('mine');
SELECT tableowner FROM pg_tables WHERE tablename = 'g_mine';
SET ROLE fifo_user;
SELECT * FROM pgmq.read_grouped('mine', 0, 1);
RESET ROLE;
GRANT SELECT, INSERT ON pgmq.q_mine TO fifo_user;
SET ROLE fifo_user;
SELECT pgmq.send('mine', '1'), pgmq.send('mine', '2');
SELECT * FROM pgmq.read_grouped('mine', 0, 1);
SELECT * FROM pgmq.g_mine WHERE head > 0;
RESET ROLE;
GRANT UPDATE, DELETE ON pgmq.q_mine TO fifo_user;
SET ROLE fifo_user;
SELECT msg_id FROM pgmq.read_grouped('mine', 60, 1);
SELECT pgmq.delete('mine', 1);
SELECT msg_id FROM pgmq.read_grouped('mine', 0, 1);
SELECT msg_id FROM pgmq.set_vt('mine', 2, 0);
BEGIN READ ONLY;
SELECT * FROM pgmq.read_grouped('mine', 0, 1);
ROLLBACK;
RESET ROLE;
TRUNCATE pgmq.q_mine;
SELECT count(*) FROM pgmq.g_mine WHERE head > 0;

-- without its triggers, its notes or its index a queue is read the slow way, and right
SELECT pgmq.send('mine', '1', '{"x-pgmq-group": "a"}'::jsonb);
ALTER TABLE pgmq.q_mine DISABLE TRIGGER ALL;
SELECT pgmq.send('mine', '1', '{"x-pgmq-group": "b"}'::jsonb);
SELECT headers FROM pgmq.read_grouped('mine', 0, 10);
ALTER TABLE pgmq.q_mine ENABLE TRIGGER ALL;
DROP TABLE pgmq.g_mine;
SELECT pgmq.send('mine', '1', '{"x-pgmq-group": "c"}'::jsonb);
SELECT headers FROM pgmq.read_grouped('mine', 0, 10);
DROP INDEX pgmq.q_mine_fifo_idx;
SELECT headers FROM pgmq.read_grouped('mine', 0, 10);
SELECT pgmq.create_fifo_index('mine');
SELECT grp FROM pgmq.g_mine WHERE head > 0 ORDER BY 1;
SELECT headers FROM pgmq.read_grouped('mine', 0, 10);

-- who finds nothing holds no lock: others may purge or drop the queue while he waits
SELECT pgmq.create('idle'), pgmq.create_fifo_index('idle');
SELECT pgmq.send('idle', '1');
SELECT msg_id FROM pgmq.read_grouped('idle', 3600, 1);
BEGIN;
SELECT count(*) FROM pgmq.read_grouped('idle', 0, 1);
SELECT count(*) FROM pgmq.read('idle', 0, 1);
SELECT count(*) FROM pgmq.pop('idle', 1);
SELECT count(*) FROM pgmq.read_grouped_with_poll('idle', 0, 1, 0);
SELECT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN ('pgmq.q_idle'::regclass, 'pgmq.g_idle'::regclass);
COMMIT;
SELECT pgmq.drop_queue('idle');

-- tables of the users' that have the name of the notes are theirs
CREATE TABLE pgmq.g_taken AS SELECT 42 AS answer;
SELECT pgmq.create('taken');
SELECT pgmq.send('taken', '1');
SELECT msg_id FROM pgmq.read_grouped('taken', 0, 1);
SELECT pgmq.create_fifo_index('taken');
SELECT pgmq.drop_queue('taken');
SELECT * FROM pgmq.g_taken;
DROP TABLE pgmq.g_taken;

-- a table that no queue has; one that had a child
SELECT pgmq.create('odd');
CREATE TABLE pgmq.odd_child () INHERITS (pgmq.q_odd);
DROP TABLE pgmq.odd_child;
SELECT pgmq.send('odd', '1');
SELECT msg_id FROM pgmq.read_grouped('odd', 0, 1);
ALTER TABLE pgmq.q_odd ALTER read_ct TYPE bigint;
SELECT * FROM pgmq.read_grouped('odd', 0, 1);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.drop_queue('odd');

-- a queue that was made logged by hand: a crash takes its notes, and the sweep finds the groups
SELECT pgmq.create_unlogged('durable'), pgmq.create_fifo_index('durable');
SELECT pgmq.send('durable', '1');
ALTER TABLE pgmq.q_durable SET LOGGED;
TRUNCATE pgmq.g_durable;	-- as a crash does
SELECT msg_id FROM pgmq.read_grouped('durable', 0, 1);
SELECT pgmq.create_fifo_index('durable');
SELECT relpersistence FROM pg_class WHERE oid = 'pgmq.g_durable'::regclass;
SELECT msg_id FROM pgmq.read_grouped('durable', 0, 1);

-- a queue that was renamed by hand, with all that belongs to it
SELECT pgmq.create('former'), pgmq.create_fifo_index('former');
DO $$
DECLARE r record;
BEGIN
  FOR r IN SELECT relname, CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'i' THEN 'INDEX' ELSE 'SEQUENCE' END AS kind
    FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ 'former' AND relkind IN ('r', 'i', 'S') LOOP
    EXECUTE format('ALTER %s pgmq.%I RENAME TO %I', r.kind, r.relname, replace(r.relname, 'former', 'latter'));
  END LOOP;
END $$;
UPDATE pgmq.meta SET queue_name = 'latter' WHERE queue_name = 'former';
SELECT pgmq.send('latter', '1');
SELECT msg_id FROM pgmq.read_grouped('latter', 0, 1);
SELECT pgmq.create_fifo_index('latter');
SELECT pgmq.send('latter', '2', '{"x-pgmq-group": "b"}'::jsonb);
SELECT msg_id FROM pgmq.read_grouped('latter', 0, 2);

-- triggers of ours on tables of others do nothing, whatever queue they name
CREATE ROLE fifo_stranger;
GRANT USAGE ON SCHEMA pgmq TO fifo_stranger;
CREATE SCHEMA stranger AUTHORIZATION fifo_stranger;
SET ROLE fifo_stranger;
CREATE TABLE stranger.t (msg_id bigint, read_ct integer, enqueued_at timestamptz, vt timestamptz, headers jsonb);
CREATE TRIGGER a AFTER TRUNCATE ON stranger.t FOR EACH STATEMENT EXECUTE FUNCTION pgmq._group_truncated('latter');
CREATE TRIGGER b AFTER INSERT ON stranger.t REFERENCING NEW TABLE AS pgmq_sent FOR EACH STATEMENT EXECUTE FUNCTION pgmq._group_sent('latter');
CREATE TRIGGER c AFTER UPDATE ON stranger.t FOR EACH ROW EXECUTE FUNCTION pgmq._group_updated('latter');
TRUNCATE stranger.t;
BEGIN;
INSERT INTO stranger.t (msg_id, read_ct, enqueued_at, vt, headers) VALUES (1, 0, now(), now(), '{"x-pgmq-group": "c"}');
UPDATE stranger.t SET msg_id = 2;
SELECT count(*) FROM pg_locks WHERE relation IN ('pgmq.q_latter'::regclass, 'pgmq.g_latter'::regclass) AND mode <> 'AccessShareLock';
COMMIT;
RESET ROLE;
SELECT grp FROM pgmq.g_latter WHERE head > 0 ORDER BY 1;
DROP SCHEMA stranger CASCADE;
DROP OWNED BY fifo_stranger;
DROP ROLE fifo_stranger;

-- a queue in partitions
SELECT pgmq.create('parts');
DROP TABLE pgmq.q_parts;
CREATE TABLE pgmq.q_parts (msg_id bigint GENERATED BY DEFAULT AS IDENTITY, read_ct integer NOT NULL DEFAULT 0,
  enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL, message jsonb, headers jsonb)
  PARTITION BY RANGE (msg_id);
CREATE INDEX ON pgmq.q_parts (msg_id);
CREATE TABLE pgmq.q_parts_p2 PARTITION OF pgmq.q_parts FOR VALUES FROM (4) TO (8);
CREATE TABLE pgmq.q_parts_p1 (headers jsonb, message jsonb, vt timestamptz NOT NULL, last_read_at timestamptz,
  enqueued_at timestamptz NOT NULL, read_ct integer NOT NULL, msg_id bigint NOT NULL);
ALTER TABLE pgmq.q_parts ATTACH PARTITION pgmq.q_parts_p1 FOR VALUES FROM (1) TO (4);
CREATE TABLE pgmq.q_parts_default PARTITION OF pgmq.q_parts DEFAULT;
SELECT count(*) FROM pgmq.send_batch('parts', array_fill('1'::jsonb, '{10}'),
  ARRAY(SELECT jsonb_build_object('x-pgmq-group', CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END) FROM generate_series(1, 10) AS i));
SELECT array_agg(msg_id) FROM pgmq.read_grouped('parts', 0, 7);
SELECT array_agg(msg_id) FROM pgmq.read_grouped_rr('parts', 0, 10);
SELECT pgmq.create_fifo_index('parts');
SELECT grp, head FROM pgmq.g_parts WHERE head > 0 ORDER BY head;
SELECT array_agg(msg_id) FROM pgmq.read_grouped('parts', 0, 7);
SELECT array_agg(msg_id) FROM pgmq.read_grouped_rr('parts', 0, 10);
SELECT array_agg(msg_id) FROM pgmq.read_grouped_head('parts', 60, 10);
SELECT count(*) FROM pgmq.delete('parts', '{1, 3, 5}'::bigint[]);
SELECT array_agg(msg_id) FROM pgmq.read_grouped('parts', 60, 10);
SELECT msg_id FROM pgmq.set_vt('parts', 2, 0);
SELECT pgmq.send('parts', '1', '{"x-pgmq-group": "even"}'::jsonb);
SELECT array_agg(msg_id) FROM pgmq.read_grouped('parts', 60, 10);
SELECT count(*) FROM pgmq.delete('parts', '{2, 4, 6, 7, 8, 9, 10, 11}'::bigint[]);
SELECT count(*) FROM pgmq.g_parts WHERE head > 0;

SELECT count(pgmq.drop_queue(queue_name)) FROM pgmq.list_queues();
SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p', 'S') AND relname ~ '^[qag]_' ORDER BY 1;
DROP OWNED BY fifo_user, fifo_owner;
DROP ROLE fifo_user;
DROP ROLE fifo_owner;
