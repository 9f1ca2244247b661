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
