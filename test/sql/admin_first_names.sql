-- The functions of the earliest versions, as SQL functions over ours.
\set VERBOSITY terse
SET timezone = 'UTC';
CREATE SCHEMA "First names";

-- a session with them
SELECT pgmq.create_first_names('public');
SELECT p.oid::regprocedure, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
  FROM pg_proc AS p WHERE proname LIKE 'pgmq\_%' AND pronamespace = 'public'::regnamespace ORDER BY 1;
SELECT pgmq_create('my_queue');
SELECT pgmq_send('my_queue', '{"foo": "bar"}'), pgmq_send('my_queue', '{"foo": "baz"}'), pgmq_send('MY_queue', '3');
SELECT msg_id, read_ct, vt > now() + interval '25 seconds' AS hidden, enqueued_at <= clock_timestamp() AS sent, message
  FROM pgmq_read('my_queue', 30, 2);
SELECT msg_id, read_ct, vt <= clock_timestamp() AS visible, enqueued_at <= clock_timestamp() AS sent, message FROM pgmq_pop('my_queue');
SELECT * FROM pgmq_pop('my_queue');
SELECT pgmq_archive('my_queue', 1), pgmq_archive('my_queue', 1);
SELECT pgmq_delete('my_queue', 2), pgmq_delete('my_queue', 2);
SELECT msg_id, read_ct, message FROM pgmq.a_my_queue;
SELECT pgmq_send('my_queue', NULL), pgmq_send('my_queue', 'null');
SELECT msg_id, message FROM pgmq_read(queue_name => 'my_queue', vt => 0, "limit" => 10);
SELECT pgmq_send('no such', '1');
-- NULL does nothing
SELECT count(*) FROM pgmq_read(NULL, 1, 1);
SELECT count(*) FROM pgmq_read('my_queue', 30, NULL);
SELECT pgmq_create(NULL), pgmq_archive('my_queue', NULL), pgmq_delete('my_queue', NULL);

-- again: nothing changes; what is missing is made
SELECT pgmq.create_first_names('public');
DROP FUNCTION pgmq_delete(text, bigint);
SET client_min_messages = warning;
SELECT pgmq.create_first_names('public');
RESET client_min_messages;
SELECT pgmq_delete('my_queue', 4);
SELECT pgmq.send('my_queue', '1');

-- the name of the schema is taken as it is written
SELECT pgmq.create_first_names('First names');
SELECT "First names".pgmq_send('my_queue', '"quoted"');
SELECT pgmq.create_first_names('first names');
SELECT pgmq.create_first_names(NULL);
SELECT pgmq.drop_first_names('Public');
SELECT pgmq.drop_first_names(NULL);

-- functions that are not ours are neither replaced nor dropped: another body, another owner, more rights, other settings,
-- another language, a procedure
CREATE PROCEDURE pg_temp.check_refused(change text) LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text;
BEGIN
    EXECUTE change;
    BEGIN
        PERFORM pgmq.create_first_names('public');
        RAISE EXCEPTION 'not refused';
    EXCEPTION WHEN duplicate_function THEN
        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
        RAISE NOTICE '%: % %', change, message, detail;
    END;
    IF change !~ 'OWNER' THEN
        PERFORM pgmq.drop_first_names('public');
        IF to_regproc('public.pgmq_create') IS NULL OR to_regproc('public.pgmq_send') IS NOT NULL THEN
            RAISE EXCEPTION 'the wrong functions are gone';
        END IF;
    END IF;
    RAISE EXCEPTION SQLSTATE 'PQ000' USING MESSAGE = 'undo';
EXCEPTION WHEN SQLSTATE 'PQ000' THEN
    NULL;
END
$$;
CREATE ROLE regress_first_owner;
CREATE ROLE regress_first_user;
SET client_min_messages = warning;
SELECT pgmq.create_first_names('public');
SET client_min_messages = notice;
\set VERBOSITY default
\set SHOW_CONTEXT never
CALL pg_temp.check_refused('CREATE OR REPLACE FUNCTION public.pgmq_create(queue_name text) RETURNS void LANGUAGE sql STRICT AS ''SELECT pgmq.create($1) ''');
CALL pg_temp.check_refused('ALTER FUNCTION public.pgmq_create(text) SECURITY DEFINER');
CALL pg_temp.check_refused('ALTER FUNCTION public.pgmq_create(text) CALLED ON NULL INPUT');
CALL pg_temp.check_refused('ALTER FUNCTION public.pgmq_create(text) SET search_path = public');
CALL pg_temp.check_refused('CREATE OR REPLACE FUNCTION public.pgmq_create(queue_name text) RETURNS void LANGUAGE plpgsql STRICT AS ''BEGIN END''');
CALL pg_temp.check_refused('CREATE OR REPLACE FUNCTION public.pgmq_create(queue_name text) RETURNS void LANGUAGE sql STRICT BEGIN ATOMIC SELECT pgmq.create($1); END');
CALL pg_temp.check_refused('DROP FUNCTION public.pgmq_create(text); CREATE PROCEDURE public.pgmq_create(queue_name text) LANGUAGE sql AS ''SELECT pgmq.create($1)''');
CALL pg_temp.check_refused('DROP FUNCTION public.pgmq_create(text); CREATE FUNCTION public.pgmq_create(queue_name text) RETURNS SETOF void LANGUAGE sql STRICT AS ''SELECT pgmq.create($1)''');
CALL pg_temp.check_refused('GRANT ALL ON SCHEMA public TO regress_first_owner; ALTER FUNCTION public.pgmq_create(text) OWNER TO regress_first_owner; GRANT ALL ON SCHEMA pgmq, public TO regress_first_user; SET LOCAL ROLE regress_first_user');
CALL pg_temp.check_refused('GRANT ALL ON SCHEMA public TO regress_first_owner; ALTER FUNCTION public.pgmq_create(text) OWNER TO regress_first_owner');
\set VERBOSITY terse

-- another function of that name, with other arguments, is nothing to us
CREATE FUNCTION public.pgmq_create(queue_name text, more text) RETURNS void LANGUAGE sql AS 'SELECT pgmq.create($1)';
SELECT pgmq.drop_first_names('public');
SELECT pgmq.drop_first_names('public');
SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'pgmq\_%' AND pronamespace = 'public'::regnamespace;
DROP FUNCTION public.pgmq_create(text, text);

-- it takes CREATE on the schema, and the ownership to drop; they run with the rights of the caller
GRANT USAGE ON SCHEMA pgmq, "First names" TO regress_first_user;
SET ROLE regress_first_user;
SELECT pgmq.create_first_names('First names');
SELECT pgmq.drop_first_names('First names');
SELECT "First names".pgmq_send('my_queue', '1');
SELECT * FROM "First names".pgmq_read('my_queue', 0, 1);
RESET ROLE;
CREATE SCHEMA regress_first AUTHORIZATION regress_first_user;
SET ROLE regress_first_user;
SELECT pgmq.create_first_names('regress_first');
SELECT regress_first.pgmq_send('my_queue', '1');
RESET ROLE;
GRANT SELECT, INSERT ON pgmq.q_my_queue TO regress_first_user;
SET ROLE regress_first_user;
SELECT regress_first.pgmq_send('my_queue', '1');
SELECT count(*) FROM regress_first.pgmq_read('my_queue', 0, 1);
RESET ROLE;
-- all or nothing
DROP FUNCTION regress_first.pgmq_delete(text, bigint), regress_first.pgmq_create(text);
CREATE FUNCTION regress_first.pgmq_delete(text, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
SET ROLE regress_first_user;
SELECT pgmq.create_first_names('regress_first');
RESET ROLE;
SELECT to_regprocedure('regress_first.pgmq_create(text)') IS NULL;
-- other settings of the session change nothing
SET standard_conforming_strings = off;
SET search_path = regress_first, pg_catalog;
CREATE TYPE regress_first.text AS (a int);
SELECT pgmq.drop_first_names('regress_first');
DROP FUNCTION regress_first.pgmq_delete(pg_catalog.text, bigint);
SELECT pgmq.create_first_names('regress_first');
RESET search_path;
RESET standard_conforming_strings;
SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'regress_first'::regnamespace ORDER BY 1;

-- what depends on one keeps all of them
CREATE VIEW public.first_view AS SELECT msg_id FROM regress_first.pgmq_read('my_queue', 0, 1);
SELECT pgmq.drop_first_names('regress_first');
DROP VIEW public.first_view;

-- they stay when the extension goes, and work when there is one again
DROP EXTENSION pgmq;
SELECT "First names".pgmq_send('my_queue', '1');
CREATE EXTENSION pgmq;
SELECT "First names".pgmq_create('my_queue');
SELECT "First names".pgmq_send('my_queue', '1') > 7;

SELECT pgmq.drop_first_names('First names'), pgmq.drop_first_names('regress_first'), pgmq.drop_queue('my_queue');
DROP SCHEMA "First names";
DROP SCHEMA regress_first CASCADE;
-- from 17 on the extension remembers whom the schema was granted to when it was created
DROP OWNED BY regress_first_user;
DROP ROLE regress_first_owner;
DROP ROLE regress_first_user;
