-- Functions over all queues: one bad queue costs nobody the others, and no code of a queue's owner runs.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_pgmq_maker;
CREATE ROLE regress_pgmq_watcher;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_pgmq_maker;
GRANT SELECT, INSERT ON pgmq.meta TO regress_pgmq_maker;
-- whatever runs a maker's code leaves its mark here
CREATE TABLE public.regress_ran (what text, who text);
GRANT INSERT ON public.regress_ran TO PUBLIC;
GRANT CREATE ON SCHEMA public TO regress_pgmq_maker;
SELECT pgmq.create('good'), pgmq.create('zoo');
SELECT pgmq.send('good', '1'::jsonb), pgmq.send('zoo', '2'::jsonb);

SET ROLE regress_pgmq_maker;
CREATE FUNCTION public.regress_mark(what text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO public.regress_ran VALUES (what, current_user);
    RETURN true;
END $$;
CREATE FUNCTION public.regress_mark_id(what text, id bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM public.regress_mark(what); RETURN id; END';
CREATE FUNCTION public.regress_mark_true(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM public.regress_mark(what); RETURN true; END';
-- a view, and a view over a queue
CREATE VIEW pgmq.q_view AS SELECT 1::bigint AS msg_id, now() AS vt, now() AS enqueued_at, public.regress_mark('view');
CREATE SEQUENCE pgmq.q_view_msg_id_seq;
INSERT INTO pgmq.meta VALUES ('view', false, false);
-- what the planner runs: an index expression and a constraint with nothing but constants
SELECT pgmq.create('planner');
CREATE INDEX regress_planner ON pgmq.q_planner ((msg_id + public.regress_mark_id('index', 1)));
ALTER TABLE pgmq.q_planner ADD CHECK (public.regress_mark_true('check'));
SELECT pgmq.send('planner', '1'::jsonb);
-- another type, with a cast and operators of the maker's
SELECT pgmq.create('typed');
CREATE TYPE public.regress_time AS (t timestamptz);
CREATE FUNCTION public.regress_time(public.regress_time) RETURNS timestamptz LANGUAGE plpgsql AS
    'BEGIN PERFORM public.regress_mark(''cast''); RETURN $1.t; END';
CREATE CAST (public.regress_time AS timestamptz) WITH FUNCTION public.regress_time(public.regress_time) AS IMPLICIT;
DROP INDEX pgmq.q_typed_vt_idx;
ALTER TABLE pgmq.q_typed ALTER enqueued_at DROP DEFAULT, ALTER enqueued_at TYPE public.regress_time USING ROW(enqueued_at)::public.regress_time;
-- a missing column, a missing sequence, no table at all, a table that is a table of others
SELECT pgmq.create('missing'), pgmq.create('unnumbered'), pgmq.create('gone');
ALTER TABLE pgmq.q_missing RENAME vt TO vtt;
ALTER TABLE pgmq.q_unnumbered ALTER msg_id DROP IDENTITY;
DROP TABLE pgmq.q_gone;
-- policies
SELECT pgmq.create('policed');
ALTER TABLE pgmq.q_policed ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pgmq.q_policed USING (public.regress_mark('policy') AND msg_id > 1);
SELECT pgmq.send('policed', '1'::jsonb), pgmq.send('policed', '2'::jsonb);
-- names that are none
INSERT INTO pgmq.meta VALUES ('a;b', false, false), ('$', false, false), ('', false, false), (repeat('long', 20), false, false);
RESET ROLE;
TRUNCATE public.regress_ran;

-- a superuser looks, in a session that has planned nothing yet
\c -
SET client_min_messages = warning;
SELECT queue_name, queue_length, queue_visible_length, total_messages FROM pgmq.metrics_all();
SELECT * FROM pgmq.list_partitions();
SELECT pgmq.metrics('view');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.metrics('typed');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.metrics('missing');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.metrics('unnumbered');
\echo :LAST_ERROR_SQLSTATE
SELECT queue_length FROM pgmq.metrics('planner');
SELECT queue_length FROM pgmq.metrics('policed');
SELECT pgmq.purge_queue('view');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM public.regress_ran;
-- making indexes, which the owner's code has a part in, runs that as the owner
\c -
SET client_min_messages = warning;
SELECT pgmq.create_fifo_indexes_all();
SELECT pgmq.create_fifo_index('view');
\echo :LAST_ERROR_SQLSTATE
SELECT DISTINCT who FROM public.regress_ran;
SELECT relname, relowner = 'regress_pgmq_maker'::regrole AS makers FROM pg_class WHERE relname ~ '^g_' AND relkind = 'r' ORDER BY 1;
TRUNCATE public.regress_ran;

-- a plain role needs its rights on every queue, and where policies apply to it the queue is skipped
GRANT USAGE ON SCHEMA pgmq TO regress_pgmq_watcher;
GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO regress_pgmq_watcher;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA pgmq TO regress_pgmq_watcher;
REVOKE SELECT ON pgmq.q_planner FROM regress_pgmq_watcher;
GRANT SELECT (enqueued_at, vt) ON pgmq.q_planner TO regress_pgmq_watcher;
SET ROLE regress_pgmq_watcher;
SELECT queue_name, queue_length, queue_visible_length, total_messages FROM pgmq.metrics_all();
RESET ROLE;
SELECT * FROM public.regress_ran;
-- by itself, a policed queue shows what the policy lets the role see, as SELECT does
SET ROLE regress_pgmq_watcher;
SELECT queue_length, queue_visible_length, total_messages FROM pgmq.metrics('policed');
SELECT pgmq.create_fifo_indexes_all();
RESET ROLE;
REVOKE SELECT (vt) ON pgmq.q_planner FROM regress_pgmq_watcher;
SET ROLE regress_pgmq_watcher;
SELECT count(*) FROM pgmq.metrics_all();
RESET ROLE;
GRANT SELECT ON pgmq.q_planner TO regress_pgmq_watcher;
REVOKE SELECT ON SEQUENCE pgmq.q_zoo_msg_id_seq FROM regress_pgmq_watcher;
SET ROLE regress_pgmq_watcher;
SELECT count(*) FROM pgmq.metrics_all();
RESET ROLE;
-- the list itself has policies: it shows what they let the role see
GRANT SELECT ON SEQUENCE pgmq.q_zoo_msg_id_seq TO regress_pgmq_watcher;
BEGIN;
ALTER TABLE pgmq.meta ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON pgmq.meta USING (queue_name ~ 'o');
SET LOCAL ROLE regress_pgmq_watcher;
SELECT queue_name, queue_length FROM pgmq.metrics_all();
ROLLBACK;
-- a list that somebody has replaced is not trusted
BEGIN;
ALTER TABLE pgmq.meta RENAME TO meta_old;
CREATE VIEW pgmq.meta AS SELECT 'good'::varchar AS queue_name, public.regress_mark('meta') AS is_partitioned, false AS is_unlogged, now() AS created_at;
SELECT count(*) FROM pgmq.metrics_all();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE pgmq.meta REPLICA IDENTITY NOTHING; ALTER TABLE pgmq.meta ALTER queue_name DROP NOT NULL;
INSERT INTO pgmq.meta VALUES (NULL, false, false);
SELECT count(*) FROM pgmq.metrics_all();
SELECT count(*) FROM pgmq.list_partitions();
SELECT count(*) FROM pgmq.create_fifo_indexes_all();
ROLLBACK;

-- what one statement has done is counted by the same statement's next call
SELECT pgmq.send('good', '2'::jsonb), (pgmq.metrics('good')).queue_length;
-- a message that was sent at no time, or at the end of all times
INSERT INTO pgmq.q_good (enqueued_at, vt) VALUES ('-infinity', now());
SELECT oldest_msg_age_sec FROM pgmq.metrics('good');
UPDATE pgmq.q_good SET enqueued_at = 'infinity';
SELECT newest_msg_age_sec, oldest_msg_age_sec FROM pgmq.metrics('good');
UPDATE pgmq.q_good SET enqueued_at = clock_timestamp() - interval '200 years';
SELECT newest_msg_age_sec, oldest_msg_age_sec FROM pgmq.metrics('good');

DELETE FROM pgmq.meta WHERE queue_name IN ('a;b', '$', '', repeat('long', 20));
DROP VIEW pgmq.q_view;
SELECT queue_name, pgmq.drop_queue(queue_name) FROM pgmq.list_queues() ORDER BY queue_name;
DROP OWNED BY regress_pgmq_maker, regress_pgmq_watcher CASCADE;
DROP ROLE regress_pgmq_maker, regress_pgmq_watcher;
DROP TABLE public.regress_ran;
