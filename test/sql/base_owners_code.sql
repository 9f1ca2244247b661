-- Functions over all queues run no code of a queue's owner with the rights of their caller
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE owners_maker;
GRANT USAGE, CREATE ON SCHEMA pgmq TO owners_maker;
GRANT SELECT, INSERT ON pgmq.meta TO owners_maker;
CREATE SCHEMA owners_code AUTHORIZATION owners_maker;
CREATE TABLE owners_code.seen (run_by name);
GRANT INSERT, SELECT ON owners_code.seen TO PUBLIC;
SET SESSION AUTHORIZATION owners_maker;
CREATE FUNCTION owners_code.look() RETURNS void LANGUAGE sql AS $$ INSERT INTO owners_code.seen VALUES (current_user) $$;
CREATE FUNCTION owners_code.key(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM owners_code.look(); RETURN 0; END $$;
-- the server folds this while it describes the table to a session
CREATE TABLE pgmq.q_keyed (msg_id bigint GENERATED ALWAYS AS IDENTITY, read_ct int NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL DEFAULT now(),
    message jsonb, headers jsonb) PARTITION BY RANGE ((msg_id + owners_code.key(1)));
INSERT INTO pgmq.meta VALUES ('keyed', false, false);
SELECT pgmq.create('indexed');
CREATE INDEX ON pgmq.q_indexed ((msg_id + owners_code.key(1)));
RESET SESSION AUTHORIZATION;
\c -
SET client_min_messages = error;
TRUNCATE owners_code.seen;
SELECT FROM pgmq.create_fifo_indexes_all();
SELECT count(*) FROM pgmq.metrics_all() WHERE queue_name IN ('keyed', 'indexed');
SELECT count(*) FROM pgmq.list_partitions();
CALL pgmq.maintain();
-- it has run, and only with its owner's rights
SELECT DISTINCT run_by FROM owners_code.seen;
-- the index and the notes are the owner's
SELECT c.relname, c.relowner::regrole FROM pg_class AS c
 WHERE relname IN ('q_indexed_fifo_idx', 'g_indexed') ORDER BY 1;
SELECT FROM pgmq.drop_queue('indexed');
DROP TABLE IF EXISTS pgmq.g_keyed;
DROP TABLE pgmq.q_keyed;
DELETE FROM pgmq.meta WHERE queue_name = 'keyed';
DROP SCHEMA owners_code CASCADE;
DROP OWNED BY owners_maker;
DROP ROLE owners_maker;
-- The owner of the extension's tables attaches code to them: reading them does not run it
CREATE ROLE owners_extension;
GRANT USAGE, CREATE ON SCHEMA pgmq TO owners_extension;
CREATE SCHEMA owners_code AUTHORIZATION owners_extension;
CREATE TABLE owners_code.seen (run_by name);
GRANT INSERT, SELECT ON owners_code.seen TO PUBLIC;
GRANT USAGE ON SCHEMA owners_code TO PUBLIC;
SELECT FROM pgmq.create('routed');
SELECT FROM pgmq.bind_topic('a.*', 'routed');
SELECT FROM pgmq.bind_topic('a.b', 'routed');
SELECT FROM pgmq.enable_notify_insert('routed', 10);
SELECT relowner AS owner_of_meta FROM pg_class WHERE oid = 'pgmq.meta'::regclass \gset
SELECT :'owner_of_meta'::oid::regrole AS owner_of_meta \gset
ALTER TABLE pgmq.meta OWNER TO owners_extension;
ALTER TABLE pgmq.topic_bindings OWNER TO owners_extension;
ALTER TABLE pgmq.notify_insert_throttle OWNER TO owners_extension;
SET SESSION AUTHORIZATION owners_extension;
CREATE FUNCTION owners_code.look() RETURNS void LANGUAGE sql AS $$ INSERT INTO owners_code.seen VALUES (current_user) $$;
CREATE FUNCTION owners_code.key(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM owners_code.look(); RETURN 0; END $$;
CREATE INDEX owners_meta ON pgmq.meta ((owners_code.key(1)));
CREATE INDEX owners_bindings ON pgmq.topic_bindings ((owners_code.key(1)));
CREATE INDEX owners_throttle ON pgmq.notify_insert_throttle ((owners_code.key(1)));
RESET SESSION AUTHORIZATION;
CREATE ROLE owners_reader;
GRANT USAGE ON SCHEMA pgmq TO owners_reader;
GRANT SELECT ON pgmq.meta, pgmq.topic_bindings, pgmq.notify_insert_throttle TO owners_reader;
GRANT SELECT, INSERT ON pgmq.q_routed TO owners_reader;
\c -
SET client_min_messages = error;
TRUNCATE owners_code.seen;
SET ROLE owners_reader;
SELECT queue_name FROM pgmq.list_queues() WHERE queue_name = 'routed';
SELECT pattern, queue_name, compiled_regex FROM pgmq.list_topic_bindings();
SELECT pattern, queue_name FROM pgmq.list_topic_bindings('ROUTED');
SELECT pattern, queue_name FROM pgmq.list_topic_bindings(NULL);
SELECT * FROM pgmq.test_routing('a.b');
SELECT queue_name, throttle_interval_ms FROM pgmq.list_notify_insert_throttles();
SELECT * FROM pgmq.send_topic('a.b', '1');
RESET ROLE;
SELECT * FROM pgmq.send_topic('a.b', '1');
SELECT queue_name FROM pgmq.list_queues() WHERE queue_name = 'routed';
SELECT count(*) FROM pgmq.test_routing('a.b');
-- what the statement would ask for is asked for, column by column
REVOKE SELECT ON pgmq.topic_bindings FROM owners_reader;
GRANT SELECT (pattern, queue_name) ON pgmq.topic_bindings TO owners_reader;
SET ROLE owners_reader;
SELECT * FROM pgmq.send_topic('a.b', '1');
SELECT * FROM pgmq.test_routing('a.b');
RESET ROLE;
-- none of it has run anything
SELECT run_by FROM owners_code.seen;
-- with policies for the caller it is a statement, with the caller's rights
GRANT SELECT ON pgmq.topic_bindings TO owners_reader;
ALTER TABLE pgmq.topic_bindings ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners_policy ON pgmq.topic_bindings USING (pattern = 'a.b');
SET ROLE owners_reader;
SELECT * FROM pgmq.test_routing('a.b');
RESET ROLE;
SELECT pattern FROM pgmq.test_routing('a.b');
DROP POLICY owners_policy ON pgmq.topic_bindings;
ALTER TABLE pgmq.topic_bindings DISABLE ROW LEVEL SECURITY;
SELECT DISTINCT run_by FROM owners_code.seen;
-- rows about a queue that has lost its tables are written as the owner of the extension's table, too
SELECT FROM pgmq.create('lost');
SELECT FROM pgmq.enable_notify_insert('lost', 10);
DROP TABLE pgmq.q_lost, pgmq.a_lost;
SET SESSION AUTHORIZATION owners_extension;
CREATE FUNCTION owners_code.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM owners_code.look(); RETURN NULL; END $$;
CREATE TRIGGER owners_row AFTER UPDATE OR DELETE ON pgmq.meta FOR EACH ROW EXECUTE FUNCTION owners_code.on_row();
CREATE TRIGGER owners_row AFTER UPDATE OR DELETE ON pgmq.notify_insert_throttle FOR EACH ROW EXECUTE FUNCTION owners_code.on_row();
RESET SESSION AUTHORIZATION;
TRUNCATE owners_code.seen;
SET ROLE owners_reader;
SELECT FROM pgmq.update_notify_insert('lost', 20);
SELECT FROM pgmq.disable_notify_insert('lost');
SELECT FROM pgmq.drop_queue('lost');
RESET ROLE;
SELECT FROM pgmq.update_notify_insert('lost', 20);
SELECT FROM pgmq.disable_notify_insert('lost');
SELECT FROM pgmq.drop_queue('lost');
SELECT DISTINCT run_by FROM owners_code.seen;
SELECT count(*) FROM pgmq.meta WHERE queue_name = 'lost';
DROP TRIGGER owners_row ON pgmq.meta;
DROP TRIGGER owners_row ON pgmq.notify_insert_throttle;
DROP INDEX pgmq.owners_meta, pgmq.owners_bindings, pgmq.owners_throttle;
ALTER TABLE pgmq.meta OWNER TO :owner_of_meta;
ALTER TABLE pgmq.topic_bindings OWNER TO :owner_of_meta;
ALTER TABLE pgmq.notify_insert_throttle OWNER TO :owner_of_meta;
SELECT FROM pgmq.drop_queue('routed');
DROP SCHEMA owners_code CASCADE;
DROP OWNED BY owners_reader, owners_extension;
DROP ROLE owners_reader, owners_extension;
