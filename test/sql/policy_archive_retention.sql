-- archive_retention: maintain() deletes old rows from an archive, whatever its kind, and nothing else.
\set VERBOSITY terse
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_partman;
SELECT pgmq.create('ret'), pgmq.create('ret_without'), pgmq.create_unlogged('ret_unlogged'),
       pgmq.create_partitioned('ret_ids', '1000', NULL), pgmq.create_partitioned('ret_days', '1 day', NULL);
RESET client_min_messages;
-- two rows in a day, for ten days
CREATE FUNCTION pg_temp.fill(queue text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO pgmq.a_%s (msg_id, enqueued_at, vt, message, archived_at)
		SELECT i, now(), now(), to_jsonb(i), now() + interval ''1 hour'' - i * interval ''12 hours'' FROM generate_series(1, 20) AS i', queue);
END $$;
CREATE FUNCTION pg_temp.left(queue text) RETURNS TABLE (rows bigint, last bigint) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT count(*), max(msg_id) FROM pgmq.a_%s', queue);
END $$;
SELECT pg_temp.fill(q) FROM unnest('{ret,ret_without,ret_unlogged,ret_ids,ret_days}'::text[]) AS q;
SELECT pgmq.send('ret', '1');
UPDATE pgmq.q_ret SET enqueued_at = now() - interval '1 year', vt = now() - interval '1 year';
CALL pgmq.maintain();
SELECT q, l.* FROM unnest('{ret,ret_without,ret_unlogged,ret_ids,ret_days}'::text[]) AS q, pg_temp.left(q) AS l;
SELECT pgmq.set_policy(q, archive_retention => '5 days') FROM unnest('{ret,ret_unlogged,ret_ids,ret_days}'::text[]) AS q;
CALL pgmq.maintain();
SELECT q, l.* FROM unnest('{ret,ret_without,ret_unlogged,ret_ids,ret_days}'::text[]) AS q, pg_temp.left(q) AS l;
-- the queue keeps its messages
SELECT count(*) FROM pgmq.q_ret;
-- a month is subtracted as the calendar has it; a setting that is off, or without a possible value, deletes nothing
SELECT pgmq.set_policy('ret', archive_retention => '1 month');
CALL pgmq.maintain();
SELECT * FROM pg_temp.left('ret');
SELECT pgmq.set_policy('ret', archive_retention => '2 days');
SELECT pgmq.reset_policy('ret', '{archive_retention}');
CALL pgmq.maintain();
SELECT * FROM pg_temp.left('ret');
SELECT pgmq.set_policy('ret', archive_retention => '2 days');
UPDATE pgmq.policy SET archive_retention = '-1 day' WHERE queue_name = 'ret';
CALL pgmq.maintain();
SELECT * FROM pg_temp.left('ret');
-- more rows than a step deletes, many of the same time, in one call
SELECT pgmq.set_policy('ret', archive_retention => '2 days');
INSERT INTO pgmq.a_ret (msg_id, enqueued_at, vt, archived_at)
SELECT i, now(), now(), now() - interval '10 days' + (i / 15000) * interval '1 hour' FROM generate_series(101, 40100) AS i;
CALL pgmq.maintain();
SELECT * FROM pg_temp.left('ret');
-- in a transaction block it is part of that
SELECT pgmq.set_policy('ret', archive_retention => '1 day');
BEGIN;
CALL pgmq.maintain();
SELECT * FROM pg_temp.left('ret');
ROLLBACK;
SELECT * FROM pg_temp.left('ret');
-- an archive that fails does not keep the others from being maintained
CREATE FUNCTION public.ret_keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'keep it'; END$$;
CREATE TRIGGER keep BEFORE DELETE ON pgmq.a_ret FOR EACH ROW EXECUTE FUNCTION public.ret_keep();
SELECT pgmq.set_policy(q, archive_retention => '1 day') FROM unnest('{ret,ret_unlogged,ret_ids,ret_days}'::text[]) AS q;
CALL pgmq.maintain();
SELECT q, l.* FROM unnest('{ret,ret_without,ret_unlogged,ret_ids,ret_days}'::text[]) AS q, pg_temp.left(q) AS l;
DROP TRIGGER keep ON pgmq.a_ret;
-- not without an archive, or with something else in its place
ALTER TABLE pgmq.a_ret RENAME TO ret_moved;
CALL pgmq.maintain();
CREATE VIEW pgmq.a_ret AS SELECT * FROM pgmq.ret_moved;
CALL pgmq.maintain();
SELECT count(*) FROM pgmq.ret_moved;
DROP VIEW pgmq.a_ret;
ALTER TABLE pgmq.ret_moved RENAME TO a_ret;
-- as the owner of the archive: triggers on it run with that role's rights, and nothing of the caller's
CREATE ROLE regress_ret_owner;
GRANT regress_ret_owner TO CURRENT_USER;
GRANT USAGE ON SCHEMA pgmq TO regress_ret_owner;
ALTER TABLE pgmq.q_ret OWNER TO regress_ret_owner;
ALTER TABLE pgmq.a_ret OWNER TO regress_ret_owner;
CREATE TABLE public.ret_seen (who text);
GRANT INSERT ON public.ret_seen TO public;
CREATE FUNCTION public.ret_see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ret_seen SELECT current_user; RETURN old; END$$;
CREATE TRIGGER see BEFORE DELETE ON pgmq.a_ret FOR EACH ROW EXECUTE FUNCTION public.ret_see();
CALL pgmq.maintain();
SELECT * FROM pg_temp.left('ret');
SELECT DISTINCT who FROM public.ret_seen;
-- a caller without the owner's rights
CREATE ROLE regress_ret_other;
GRANT USAGE ON SCHEMA pgmq TO regress_ret_other;
GRANT SELECT ON pgmq.meta TO regress_ret_other;
INSERT INTO pgmq.a_ret (msg_id, enqueued_at, vt, archived_at) VALUES (50, now(), now(), now() - interval '3 days');
DELETE FROM pgmq.policy WHERE queue_name <> 'ret';
SET client_min_messages = error;
SELECT pgmq.drop_queue(q) FROM unnest('{ret_ids,ret_days}'::text[]) AS q;
RESET client_min_messages;
SET ROLE regress_ret_other;
CALL pgmq.maintain();
RESET ROLE;
SELECT * FROM pg_temp.left('ret');
SET client_min_messages = error;
SELECT pgmq.drop_queue(q) FROM unnest('{ret,ret_without,ret_unlogged}'::text[]) AS q;
DROP EXTENSION pg_partman;
DROP SCHEMA IF EXISTS partman;
DROP FUNCTION public.ret_keep, public.ret_see;
DROP TABLE public.ret_seen;
REVOKE ALL ON SCHEMA pgmq FROM regress_ret_other, regress_ret_owner;
REVOKE ALL ON pgmq.meta FROM regress_ret_other;
DROP ROLE regress_ret_other;
DROP ROLE regress_ret_owner;
