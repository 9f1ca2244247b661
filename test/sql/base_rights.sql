-- Rows that decide about a queue are its owner's to write, and a refused call leaves no trace.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_pgmq_maker;
CREATE ROLE regress_pgmq_other;
CREATE ROLE regress_pgmq_stranger;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_pgmq_maker, regress_pgmq_other;
GRANT USAGE ON SCHEMA pgmq TO regress_pgmq_stranger;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.meta, pgmq.policy, pgmq.partition_config, pgmq.notify_insert_throttle, pgmq.topic_bindings
   TO regress_pgmq_maker, regress_pgmq_other;
SET ROLE regress_pgmq_other;
SELECT pgmq.create('al'), pgmq.create('Precious');
SELECT pgmq.bind_topic('a.*', 'al'), pgmq.enable_notify_insert('al');
INSERT INTO pgmq.partition_config VALUES ('al', '100', false, false);

-- another maker has all the rights on these tables, and none on that queue
SET ROLE regress_pgmq_maker;
INSERT INTO pgmq.meta VALUES ('AL', true, false);
INSERT INTO pgmq.meta VALUES ('al', true, false) ON CONFLICT DO NOTHING;
INSERT INTO pgmq.meta VALUES ('al', true, false) ON CONFLICT (queue_name) DO UPDATE SET is_partitioned = true;
UPDATE pgmq.meta SET is_partitioned = true WHERE queue_name = 'al';
UPDATE pgmq.meta SET queue_name = 'mine' WHERE queue_name = 'Precious';
DELETE FROM pgmq.meta WHERE queue_name = 'al';
UPDATE pgmq.partition_config SET converted_archive = 'q_precious' WHERE queue_name = 'al';
UPDATE pgmq.partition_config SET retention_interval = '0', drop_unread = true;
INSERT INTO pgmq.partition_config VALUES ('precious', '0', true, true);
INSERT INTO pgmq.partition_config VALUES ('PRECIOUS', '0', true, true);
DELETE FROM pgmq.partition_config;
MERGE INTO pgmq.partition_config AS c USING (VALUES ('al')) AS v (n) ON c.queue_name = v.n WHEN MATCHED THEN DELETE;
INSERT INTO pgmq.notify_insert_throttle VALUES ('al', 1) ON CONFLICT (queue_name) DO UPDATE SET throttle_interval_ms = 1;
UPDATE pgmq.notify_insert_throttle SET throttle_interval_ms = 2147483647;
DELETE FROM pgmq.notify_insert_throttle;
TRUNCATE pgmq.partition_config;
RESET ROLE;
GRANT TRUNCATE ON pgmq.meta, pgmq.policy, pgmq.partition_config, pgmq.notify_insert_throttle, pgmq.topic_bindings TO regress_pgmq_maker;
SET ROLE regress_pgmq_maker;
TRUNCATE pgmq.partition_config;
TRUNCATE pgmq.notify_insert_throttle;
TRUNCATE pgmq.policy;
TRUNCATE pgmq.topic_bindings;
TRUNCATE pgmq.meta CASCADE;
-- nor by an archive alone, which maintenance goes by as well
RESET ROLE;
CREATE TABLE pgmq.a_alone (msg_id bigint);
SET ROLE regress_pgmq_maker;
INSERT INTO pgmq.partition_config VALUES ('alone', '0', true, true);
-- its own queue: everything, and also a name that no queue has yet, or none can have
SELECT pgmq.create('mine');
UPDATE pgmq.meta SET is_unlogged = false WHERE queue_name = 'mine';
UPDATE pgmq.meta SET queue_name = 'precious' WHERE queue_name = 'mine';
INSERT INTO pgmq.partition_config VALUES ('mine', '0', true, true);
UPDATE pgmq.partition_config SET queue_name = 'precious' WHERE queue_name = 'mine';
DELETE FROM pgmq.partition_config WHERE queue_name = 'mine';
INSERT INTO pgmq.meta VALUES ('a;b', false, false), ('nobody''s', false, false), ('nobody', false, false);
DELETE FROM pgmq.meta WHERE queue_name IN ('a;b', 'nobody''s', 'nobody');
-- nothing has changed
RESET ROLE;
SELECT queue_name, is_partitioned FROM pgmq.meta ORDER BY 1;
SELECT * FROM pgmq.partition_config;
SELECT queue_name, throttle_interval_ms FROM pgmq.notify_insert_throttle;
SELECT pattern, queue_name FROM pgmq.topic_bindings;

-- the owner of the tables is no exception, but a cascade from a row of its own queue is not checked again
ALTER TABLE pgmq.partition_config OWNER TO regress_pgmq_maker;
ALTER TABLE pgmq.notify_insert_throttle OWNER TO regress_pgmq_maker;
ALTER TABLE pgmq.topic_bindings OWNER TO regress_pgmq_maker;
SET ROLE regress_pgmq_maker;
DELETE FROM pgmq.notify_insert_throttle WHERE queue_name = 'al';
UPDATE pgmq.partition_config SET drop_unread = true;
SET ROLE regress_pgmq_other;
BEGIN;
DELETE FROM pgmq.meta WHERE queue_name = 'al';
SELECT count(*) FROM pgmq.notify_insert_throttle;
SELECT count(*) FROM pgmq.topic_bindings;
ROLLBACK;
RESET ROLE;
ALTER TABLE pgmq.partition_config OWNER TO CURRENT_USER;
ALTER TABLE pgmq.notify_insert_throttle OWNER TO CURRENT_USER;
ALTER TABLE pgmq.topic_bindings OWNER TO CURRENT_USER;
-- a trigger of the maker's does not hide behind the server's own
SELECT pgmq._check_queue_owner();
\echo :LAST_ERROR_SQLSTATE
-- a restore by a superuser, and what replication brings, are not hindered
BEGIN;
GRANT SELECT, UPDATE ON pgmq.partition_config TO regress_pgmq_maker;
UPDATE pgmq.partition_config SET drop_unread = true;
SET LOCAL session_replication_role = replica;
SET LOCAL ROLE regress_pgmq_maker;
UPDATE pgmq.partition_config SET drop_unread = false;
ROLLBACK;

-- refused calls (t/053_rights.pl shows that they ask for no lock)
CREATE FUNCTION refused(call text) RETURNS TABLE (state text, message text) LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE 'SELECT ' || call;
        state := 'ok';
    EXCEPTION WHEN OTHERS THEN
        state := SQLSTATE;
        message := SQLERRM;
    END;
    RETURN NEXT;
END $$;
SET ROLE regress_pgmq_other;
SELECT pgmq.create_fifo_index('al');
RESET ROLE;
SET ROLE regress_pgmq_stranger;
SELECT c, r.* FROM unnest('{
    pgmq.create_fifo_index(''al''), pgmq._create_fifo_index_if_not_exists(''al''),
    pgmq.enable_notify_insert(''al''), pgmq.update_notify_insert(''al''\, 1), pgmq.disable_notify_insert(''al''),
    pgmq.set_retention(''al''\, ''0''\, true), pgmq.convert_archive_partitioned(''al''),
    pgmq.drop_queue(''al''), pgmq.purge_queue(''al''), pgmq.create(''al''), pgmq.create(''new'')}'::text[]) AS c, refused(c) AS r;
RESET ROLE;
-- a reader may not purge; the lock of a queue is for everybody, as any advisory lock
GRANT SELECT, UPDATE ON pgmq.q_al TO regress_pgmq_stranger;
SET ROLE regress_pgmq_stranger;
SELECT * FROM refused('pgmq.purge_queue(''al'')');
SELECT * FROM refused('pgmq.acquire_queue_lock(''al'')');
RESET ROLE;
-- drop_queue() drops nothing but an old archive of its caller's, whatever a row of the settings says
CREATE FUNCTION drop_with(converted text) RETURNS TABLE (dropped boolean, kept boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmq.create('later');
    UPDATE pgmq.meta SET is_partitioned = true WHERE queue_name = 'later';
    INSERT INTO pgmq.partition_config VALUES ('later', NULL, false, false, converted);
    dropped := pgmq.drop_queue('later');
    kept := to_regclass(format('pgmq.%I', converted)) IS NOT NULL;
    RETURN NEXT;
END $$;
SELECT * FROM drop_with('q_precious');
SELECT * FROM drop_with('a_precious');
SELECT * FROM drop_with('a_later_old; DROP TABLE pgmq.q_al');
CREATE TABLE pgmq.a_later_old (msg_id bigint);
SELECT * FROM drop_with('a_later_old');
ALTER TABLE pgmq.a_later_old ADD archived_at timestamptz;
SELECT * FROM drop_with('a_later_old');
SELECT pgmq.create('later_old');
SELECT * FROM drop_with('a_later_old');
SELECT pgmq.drop_queue('later_old');
-- one that another role has put there keeps nobody from dropping the queue
SET ROLE regress_pgmq_maker;
CREATE TABLE pgmq.a_later_old2 (msg_id bigint, archived_at timestamptz);
SET ROLE regress_pgmq_other;
SELECT * FROM drop_with('a_later_old2');
RESET ROLE;
DROP TABLE pgmq.a_later_old2;
DROP FUNCTION drop_with;

-- what an owner has attached to its notes does not go by the path of a sender
CREATE SCHEMA regress_evil AUTHORIZATION regress_pgmq_maker;
GRANT USAGE ON SCHEMA regress_evil TO PUBLIC;
CREATE TABLE public.regress_paths (what text, who text, path text);
GRANT INSERT, SELECT ON public.regress_paths TO PUBLIC;
SET ROLE regress_pgmq_other;
CREATE FUNCTION pgmq.regress_path(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.regress_paths VALUES (what, current_user, current_setting('search_path'));
    RETURN true;
END $$;
CREATE FUNCTION pgmq.regress_path_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmq.regress_path('trigger ' || TG_OP);
    RETURN NEW;
END $$;
CREATE FUNCTION pgmq.regress_path_index(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM pgmq.regress_path(''index''); RETURN 1; END';
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON pgmq.q_al TO regress_pgmq_maker;
RESET ROLE;
-- send, read, delete and purge by another role with its path, and what ran then
CREATE FUNCTION public.regress_use_al() RETURNS TABLE (what text, who text, path text) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM public.regress_paths;
    SET LOCAL ROLE regress_pgmq_maker;
    SET LOCAL search_path = regress_evil, public;
    PERFORM pgmq.send('al', '1'::jsonb);
    PERFORM pgmq.read_grouped('al', 0, 1);
    PERFORM pgmq.pop('al', 1);
    PERFORM pgmq.purge_queue('al');
    RETURN QUERY SELECT DISTINCT r.* FROM public.regress_paths AS r ORDER BY 1;
END $$;
GRANT DELETE ON public.regress_paths TO PUBLIC;
SELECT * FROM public.regress_use_al();
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON pgmq.g_al FOR EACH ROW EXECUTE FUNCTION pgmq.regress_path_trigger();
CREATE TRIGGER tt AFTER TRUNCATE ON pgmq.g_al FOR EACH STATEMENT EXECUTE FUNCTION pgmq.regress_path_trigger();
SELECT * FROM public.regress_use_al();
DROP TRIGGER t ON pgmq.g_al;
DROP TRIGGER tt ON pgmq.g_al;
ALTER TABLE pgmq.g_al ADD CHECK (pgmq.regress_path('check'));
SELECT * FROM public.regress_use_al();
ALTER TABLE pgmq.g_al DROP CONSTRAINT g_al_check, ADD extra boolean DEFAULT pgmq.regress_path('default');
SELECT * FROM public.regress_use_al();
ALTER TABLE pgmq.g_al DROP extra;
CREATE INDEX regress_index ON pgmq.g_al ((pgmq.regress_path_index(head)));
SELECT * FROM public.regress_use_al();
DROP INDEX pgmq.regress_index;
DROP FUNCTION public.regress_use_al, pgmq.regress_path_trigger;

DROP FUNCTION refused, pgmq.regress_path_index;
DROP FUNCTION pgmq.regress_path;
DROP TABLE public.regress_paths;
DROP SCHEMA regress_evil;
DROP TABLE pgmq.a_alone;
SELECT queue_name, pgmq.drop_queue(queue_name) FROM pgmq.list_queues() ORDER BY queue_name;
SELECT count(*) FROM pgmq.partition_config;
DROP OWNED BY regress_pgmq_maker, regress_pgmq_other, regress_pgmq_stranger;
DROP ROLE regress_pgmq_maker, regress_pgmq_other, regress_pgmq_stranger;
