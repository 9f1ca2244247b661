-- What users hang on a queue's table goes on working: triggers, row-level
-- security, another column order, and schemas first in the search_path.
\set VERBOSITY terse
\set SHOW_CONTEXT never

-- a trigger that sends to another queue, and that one's to a third
SELECT pgmq.create('h1'), pgmq.create('h2'), pgmq.create('h3');
CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmq.send(TG_ARGV[0], NEW.message, jsonb_build_object('from', TG_TABLE_NAME));
    RETURN NULL;
END $$;
CREATE TRIGGER forward AFTER INSERT ON pgmq.q_h1 FOR EACH ROW EXECUTE FUNCTION forward('h2');
CREATE TRIGGER forward AFTER INSERT ON pgmq.q_h2 FOR EACH ROW EXECUTE FUNCTION forward('h3');
SELECT pgmq.send('h1', '1'), pgmq.send_batch('h1', '{2,3}'), pgmq.send('h1', '4', 60);
-- the same with plans kept for one queue only: those at work must not go
SET pgmq.plan_cache_size = 1;
SELECT pgmq.send('h1', '5'), pgmq.send_batch('h1', '{6,7}');
SELECT pgmq.send('h1', '8') FROM generate_series(1, 3);
SELECT message, headers FROM pgmq.read('h3', 60, 20);
SELECT count(*) FROM pgmq.pop('h2', 20);
RESET pgmq.plan_cache_size;
-- one that sends to its own queue
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.message #>> '{}')::int > 0 THEN
        PERFORM pgmq.send('h3', to_jsonb((NEW.message #>> '{}')::int - 1));
    END IF;
    RETURN NEW;
END $$;
SELECT pgmq.purge_queue('h3');
CREATE TRIGGER again BEFORE INSERT ON pgmq.q_h3 FOR EACH ROW EXECUTE FUNCTION again();
SELECT count(*) FROM pgmq.send('h3', '5');
SET pgmq.plan_cache_size = 1;
SELECT count(*) FROM pgmq.send('h3', '5');
RESET pgmq.plan_cache_size;
SELECT message, count(*) FROM pgmq.pop('h3', 20) GROUP BY 1 ORDER BY 1;
-- one that reads, archives and creates in the middle of a send and of a read
CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    FOR g IN 10..14 LOOP
        PERFORM pgmq.create('h' || g);
        PERFORM pgmq.send('h' || g, '"busy"');
    END LOOP;
    FOR g IN 10..14 LOOP
        ASSERT pgmq.archive('h' || g, (SELECT msg_id FROM pgmq.read('h' || g, 0, 1)));
        PERFORM pgmq.drop_queue('h' || g);
    END LOOP;
    RETURN NEW;
END $$;
SELECT pgmq.create('hb');
CREATE TRIGGER busy BEFORE INSERT OR UPDATE ON pgmq.q_hb FOR EACH ROW EXECUTE FUNCTION busy();
SET pgmq.plan_cache_size = 2;
SELECT pgmq.send('hb', '1'), pgmq.send('hb', '2', 0);
SELECT msg_id, message FROM pgmq.read('hb', 0, 5);
SELECT msg_id FROM pgmq.set_vt('hb', 1, 0);
SELECT msg_id FROM pgmq.pop('hb', 5);
RESET pgmq.plan_cache_size;
SELECT pgmq.drop_queue('hb');

-- a trigger that fails, in a block that goes on
CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.message = '"bad"' THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = 'PQ001';
    ELSIF NEW.message = '"silly"' THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
SELECT pgmq.create('hp');
CREATE TRIGGER picky BEFORE INSERT ON pgmq.q_hp FOR EACH ROW EXECUTE FUNCTION picky();
SET pgmq.plan_cache_size = 1;
DO $$
BEGIN
    FOR i IN 1..20 LOOP
        BEGIN
            PERFORM pgmq.send('hp', '"bad"');
        EXCEPTION WHEN SQLSTATE 'PQ001' THEN
            NULL;
        END;
        PERFORM pgmq.send('h2', '0');
    END LOOP;
END $$;
RESET pgmq.plan_cache_size;
SELECT pgmq.send('hp', '"bad"');
\echo :LAST_ERROR_SQLSTATE
-- one that turns rows down: they have no id
SELECT pgmq.send('hp', '"silly"');
SELECT count(*) FROM pgmq.send('hp', '"silly"');
SELECT g, send FROM generate_series(1, 2) AS g LEFT JOIN LATERAL pgmq.send('hp', to_jsonb(ARRAY['silly', 'good'])->(g - 1)) ON true;
SELECT count(*) FROM pgmq.send_batch('hp', '{1,"\"silly\"",3}');
SELECT message FROM pgmq.pop('hp', 10);
-- one that keeps rows as they are: what is not leased or deleted is not handed out
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON pgmq.q_hp FOR EACH ROW EXECUTE FUNCTION keep();
SELECT count(*) FROM pgmq.send('hp', '1');
SELECT count(*) FROM pgmq.read('hp', 60, 1);
SELECT count(*) FROM pgmq.pop('hp');
SELECT pgmq.delete('hp', (SELECT max(msg_id) FROM pgmq.q_hp)), pgmq.archive('hp', (SELECT max(msg_id) FROM pgmq.q_hp));
SELECT queue_length FROM pgmq.metrics('hp');
-- one that wants to drop or purge the queue at work
CREATE FUNCTION saw() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.message = '"drop"' THEN
        PERFORM pgmq.drop_queue('hp');
    ELSE
        PERFORM pgmq.purge_queue('hp');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER saw BEFORE INSERT ON pgmq.q_hp FOR EACH ROW EXECUTE FUNCTION saw();
\set VERBOSITY sqlstate
SELECT pgmq.send('hp', '"drop"');
SELECT pgmq.send('hp', '"purge"');
\set VERBOSITY terse
SELECT pgmq.drop_queue('hp'), pgmq.drop_queue('h1'), pgmq.drop_queue('h2'), pgmq.drop_queue('h3');

-- row-level security
CREATE ROLE regress_pgmq_tenant_a;
CREATE ROLE regress_pgmq_tenant_b;
SELECT pgmq.create('rls');
GRANT USAGE ON SCHEMA pgmq TO regress_pgmq_tenant_a, regress_pgmq_tenant_b;
GRANT ALL ON pgmq.q_rls, pgmq.a_rls TO regress_pgmq_tenant_a, regress_pgmq_tenant_b;
ALTER TABLE pgmq.q_rls ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON pgmq.q_rls USING (headers->>'tenant' = current_user);
-- one session, both roles: a plan that is kept must not carry a role's rights over
SET ROLE regress_pgmq_tenant_a;
SELECT pgmq.send('rls', '"a1"', '{"tenant": "regress_pgmq_tenant_a"}'::jsonb), pgmq.send('rls', '"a2"', '{"tenant": "regress_pgmq_tenant_a"}'::jsonb);
SELECT pgmq.send('rls', '"forged"', '{"tenant": "regress_pgmq_tenant_b"}'::jsonb);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.send_batch('rls', '{1}');
SET ROLE regress_pgmq_tenant_b;
SELECT pgmq.send('rls', '"b1"', '{"tenant": "regress_pgmq_tenant_b"}'::jsonb);
SELECT message FROM pgmq.read('rls', 0, 10);
SELECT message FROM pgmq.set_vt('rls', '{1,2,5}'::bigint[], 0);
SELECT pgmq.delete('rls', 1), pgmq.archive('rls', 1), pgmq.delete('rls', 5);
SET ROLE regress_pgmq_tenant_a;
SELECT message FROM pgmq.read('rls', 0, 10);
SELECT message FROM pgmq.pop('rls', 1);
SELECT pgmq.archive('rls', 2);
RESET ROLE;
-- groups: what a role doesn't see is neither taken nor held from others, and does not stand in front
DELETE FROM pgmq.q_rls;
SELECT pgmq.create_fifo_index('rls');
SELECT count(*) FROM pgmq.send_batch('rls', array_fill('1'::jsonb, '{6}'), ARRAY(SELECT jsonb_build_object('x-pgmq-group', g, 'tenant', 'regress_pgmq_tenant_' || t)
  FROM (VALUES ('one', 'a'), ('two', 'b'), ('one', 'b'), ('three', 'b'), ('one', 'a'), ('one', 'b')) AS m (g, t)));
SET ROLE regress_pgmq_tenant_b;
SELECT headers->>'x-pgmq-group' AS grp FROM pgmq.read_grouped_head('rls', 0, 1);
SELECT headers->>'x-pgmq-group' AS grp FROM pgmq.read_grouped_rr('rls', 3600, 3);
SELECT headers->>'x-pgmq-group' AS grp FROM pgmq.read_grouped('rls', 3600, 3);
SET ROLE regress_pgmq_tenant_a;
SELECT headers->>'x-pgmq-group' AS grp FROM pgmq.read_grouped('rls', 0, 3);
RESET ROLE;
SELECT count(*) FROM pgmq.read_grouped('rls', 0, 3);
-- a trigger that turns leases down, or makes them shorter: the group is to be had when its message is
SELECT pgmq.create('leases'), pgmq.create_fifo_index('leases');
SELECT pgmq.send('leases', '1');
CREATE FUNCTION shortens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.read_ct = 1 THEN
        RETURN NULL;
    END IF;
    NEW.vt := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER shortens BEFORE UPDATE ON pgmq.q_leases FOR EACH ROW EXECUTE FUNCTION shortens();
SELECT count(*) FROM pgmq.read_grouped_rr('leases', 3600, 1);
ALTER TABLE pgmq.q_leases DISABLE TRIGGER shortens;
SELECT msg_id FROM pgmq.read_grouped('leases', 0, 1);
ALTER TABLE pgmq.q_leases ENABLE TRIGGER shortens;
SELECT msg_id FROM pgmq.read_grouped('leases', 3600, 1);
SELECT msg_id FROM pgmq.read_grouped('leases', 3600, 1);
SELECT pgmq.drop_queue('leases');
DROP FUNCTION shortens();
-- a trigger that moves what was read twice to another group, though reading doesn't write headers
SELECT pgmq.create('moves'), pgmq.create_fifo_index('moves');
SELECT pgmq.send_batch('moves', ARRAY['1', '2', '3']::jsonb[]);
CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.headers := '{"x-pgmq-group": "troublesome"}';
    RETURN NEW;
END $$;
CREATE TRIGGER moves BEFORE UPDATE ON pgmq.q_moves FOR EACH ROW WHEN (NEW.read_ct > 1) EXECUTE FUNCTION moves();
SELECT msg_id FROM pgmq.read_grouped('moves', 0, 1);
SELECT msg_id FROM pgmq.read_grouped('moves', 0, 2);
SELECT msg_id, headers->>'x-pgmq-group' AS grp FROM pgmq.read_grouped_head('moves', 0, 10);
SELECT pgmq.drop_queue('moves');
DROP FUNCTION moves();
-- what the owner's policies hide from himself gets its note, too
CREATE ROLE regress_pgmq_owner;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_pgmq_owner;
SELECT pgmq.create('forced');
SELECT pgmq.send_batch('forced', ARRAY['1', '2']::jsonb[], ARRAY['{"x-pgmq-group": "seen"}', '{"x-pgmq-group": "hidden"}']::jsonb[]);
ALTER TABLE pgmq.q_forced OWNER TO regress_pgmq_owner;
ALTER TABLE pgmq.q_forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON pgmq.q_forced USING (message <> '2');
SET ROLE regress_pgmq_owner;
SELECT pgmq.create_fifo_index('forced');
SELECT count(*) FROM pgmq.read_grouped('forced', 0, 3);
RESET ROLE;
SELECT headers->>'x-pgmq-group' AS grp FROM pgmq.read_grouped('forced', 0, 3);
SELECT 'pgmq.g_forced'::regclass::oid AS notes \gset
SET ROLE regress_pgmq_owner;
SELECT pgmq.create_fifo_index('forced');
RESET ROLE;
SELECT 'pgmq.g_forced'::regclass::oid = :notes AS kept;
SELECT pgmq.drop_queue('forced');
REVOKE USAGE, CREATE ON SCHEMA pgmq FROM regress_pgmq_owner;
DROP ROLE regress_pgmq_owner;
SELECT pgmq.drop_queue('rls');
REVOKE USAGE ON SCHEMA pgmq FROM regress_pgmq_tenant_a, regress_pgmq_tenant_b;
DROP ROLE regress_pgmq_tenant_a, regress_pgmq_tenant_b;

-- a hostile schema first in the search_path: nothing in it may be used by us, all of it is there for the user's triggers
CREATE SCHEMA evil;
CREATE FUNCTION evil.evil() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil'; END $$;
DO $$
DECLARE
    t text;
    o text;
BEGIN
    FOREACH t IN ARRAY ARRAY['int', 'bigint', 'text', 'name', 'oid', 'timestamptz', '"char"', 'bool', 'regclass', 'pg_catalog.jsonb'] LOOP
        EXECUTE format('CREATE FUNCTION evil.f(a %1$s, b %1$s) RETURNS boolean LANGUAGE sql AS ''SELECT evil.evil()''', t);
        FOREACH o IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>=', '+', '-', '||', '@>'] LOOP
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = evil.f)', o, t);
        END LOOP;
    END LOOP;
END $$;
CREATE FUNCTION evil.f(a timestamptz, b interval) RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.evil()::text::timestamptz';
CREATE OPERATOR evil.+ (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = evil.f);
CREATE FUNCTION evil.f(a int, b bigint) RETURNS boolean LANGUAGE sql AS 'SELECT evil.evil()';
CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = bigint, FUNCTION = evil.f);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.evil()::text::timestamptz';
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.evil()::text::timestamptz';
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT evil.evil()::text';
CREATE FUNCTION evil.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT evil.evil()::text';
CREATE FUNCTION evil.hashtext(text) RETURNS int LANGUAGE sql AS 'SELECT evil.evil()::int';
CREATE FUNCTION evil.round(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT evil.evil()::int::numeric';
CREATE FUNCTION evil.unnest(pg_catalog.jsonb[]) RETURNS SETOF pg_catalog.jsonb LANGUAGE sql AS 'SELECT to_jsonb(evil.evil())';
CREATE FUNCTION evil.max(timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.evil()::text::timestamptz';
CREATE FUNCTION evil.count(pg_catalog.jsonb) RETURNS bigint LANGUAGE sql AS 'SELECT evil.evil()::int::bigint';
CREATE FUNCTION evil.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE sql AS 'SELECT evil.evil()';
CREATE FUNCTION evil.pg_advisory_xact_lock(int) RETURNS void LANGUAGE sql AS 'SELECT evil.evil()';
CREATE DOMAIN evil.jsonb AS text CHECK (evil.evil());
CREATE DOMAIN evil.timestamptz AS text CHECK (evil.evil());
CREATE DOMAIN evil.int8 AS text CHECK (evil.evil());
CREATE DOMAIN evil.regclass AS text CHECK (evil.evil());
CREATE TABLE evil.meta (queue_name text);
CREATE TABLE evil.q_path (msg_id text);
CREATE TABLE evil.pg_class (oid text);
CREATE TABLE evil.seen (message pg_catalog.jsonb, path text);
SET search_path = evil, pg_catalog, public;
-- the trap works
SELECT 1 = 1;
SELECT lower('X');
SELECT pgmq.create('Path'), pgmq.create_unlogged('path2');
-- a trigger that relies on the caller's path
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (NEW.message, current_setting('search_path'));
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON pgmq.q_path FOR EACH ROW EXECUTE FUNCTION public.note();
SELECT pgmq.send('path', '1'), pgmq.send('PATH', '2', '{"h": 2}'::pg_catalog.jsonb, 60), pgmq.send('path', '3', 'infinity'::pg_catalog.timestamptz);
SELECT pgmq.send_batch('path', '{4,5}'), pgmq.send_batch('path', '{6}', 60), pgmq.send_batch('path', '{7}', '-infinity'::pg_catalog.timestamptz);
SELECT msg_id FROM pgmq.read('path', 0, 1);
SELECT msg_id FROM pgmq.read('path', 0, 1, '4');
SELECT msg_id FROM pgmq.read_with_poll('path', 0, 2, 0);
SELECT msg_id FROM pgmq.set_vt('path', 2, 0) UNION ALL SELECT msg_id FROM pgmq.set_vt('path', 2, '-infinity'::pg_catalog.timestamptz);
SELECT msg_id FROM pgmq.set_vt('path', '{3,2}'::pg_catalog.int8[], 0);
SELECT msg_id FROM pgmq.set_vt('path', '{3,2}'::pg_catalog.int8[], '-infinity'::pg_catalog.timestamptz);
SELECT msg_id FROM pgmq.pop('path', 2);
SELECT pgmq.delete('path', 1), pgmq.delete('path', '{4}'::pg_catalog.int8[]), pgmq.archive('path', 5), pgmq.archive('path', '{6}'::pg_catalog.int8[]);
SELECT queue_name, queue_length, queue_visible_length FROM pgmq.metrics('path');
SELECT queue_name, queue_length FROM pgmq.metrics_all();
SELECT queue_name, is_unlogged FROM pgmq.list_queues();
SELECT pgmq.purge_queue('path'), pgmq._belongs_to_pgmq('meta'), pgmq.format_table_name('Path', 'q');
SELECT pgmq.acquire_queue_lock('path'), pgmq.validate_queue_name('path'), pgmq.detach_archive('path');
SELECT pgmq.create('path');
SELECT pgmq.drop_queue('path'), pgmq.drop_queue('path2');
RESET search_path;
SELECT message, path, count(*) FROM evil.seen GROUP BY 1, 2 ORDER BY 1;
SELECT count(*) FROM pgmq.list_queues();
SET client_min_messages = warning;
DROP SCHEMA evil CASCADE;
RESET client_min_messages;

-- a queue of an older version, taken over in place: columns in another order, one dropped, a plain index on vt
CREATE TABLE pgmq.q_old (
    msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    read_ct integer NOT NULL DEFAULT 0,
    gone text,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL,
    message jsonb);
CREATE INDEX q_old_vt_idx ON pgmq.q_old (vt);
CREATE TABLE pgmq.a_old (
    msg_id bigint PRIMARY KEY,
    read_ct integer NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL,
    message jsonb);
CREATE INDEX archived_at_idx_old ON pgmq.a_old (archived_at);
ALTER TABLE pgmq.q_old DROP COLUMN gone;
ALTER TABLE pgmq.q_old ADD COLUMN headers jsonb;
ALTER TABLE pgmq.q_old ADD COLUMN last_read_at timestamptz;
ALTER TABLE pgmq.a_old ADD COLUMN headers jsonb;
ALTER TABLE pgmq.a_old ADD COLUMN last_read_at timestamptz;
INSERT INTO pgmq.meta VALUES ('Old', false, false, '2024-01-01');
INSERT INTO pgmq.q_old (vt, message) VALUES ('2024-01-01', '"from before"'), ('2024-01-01', '"from before, too"'), ('infinity', '"never"');
SELECT pgmq.send('old', '"new"', '{"h": 1}'::jsonb), pgmq.send_batch('old', '{"\"newer\""}', '{"{\"h\": 2}"}'::jsonb[], 60);
SELECT msg_id, read_ct, last_read_at > enqueued_at AS read, vt > clock_timestamp() AS leased, message, headers FROM pgmq.read('old', 60, 2);
SELECT msg_id, read_ct, last_read_at > enqueued_at AS read, vt > clock_timestamp() AS leased, message, headers FROM pgmq.read_with_poll('old', 60, 2, 0);
SELECT msg_id, read_ct, message, headers FROM pgmq.set_vt('old', '{5,3}'::bigint[], 0);
SELECT pgmq.archive('old', 1), pgmq.archive('old', '{4}'::bigint[]), pgmq.delete('old', 2);
SELECT msg_id, read_ct, last_read_at > enqueued_at AS read, message, headers FROM pgmq.a_old ORDER BY 1;
SELECT msg_id, read_ct, message, headers FROM pgmq.pop('old', 5);
SELECT queue_name, queue_length, total_messages FROM pgmq.metrics('old');
-- create makes nothing twice and leaves the data
SELECT pgmq.send('old', '"kept"');
SELECT pgmq.create('old');
SELECT queue_name, created_at = '2024-01-01' AS created FROM pgmq.list_queues();
SELECT message FROM pgmq.read('old', 60, 5);
SELECT pgmq.drop_queue('OLD');

-- tables that are no queues: an error that says so, and the session lives
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.attempt_all() RETURNS TABLE (call text, outcome text) LANGUAGE sql AS $$
    SELECT call, pg_temp.attempt('SELECT ' || call) FROM (VALUES
        (1, 'pgmq.send(''w'', ''{}'')'), (2, 'pgmq.send(''w'', ''{}'', 1)'), (3, 'pgmq.send(''w'', ''{}'', ''infinity''::timestamptz)'),
        (4, 'pgmq.send_batch(''w'', ''{1,2}'')'), (5, 'pgmq.read(''w'', 0, 5)'), (6, 'pgmq.read(''w'', 0, 5, ''1'')'),
        (7, 'pgmq.set_vt(''w'', ''{1,2,3}''::bigint[], 0)'), (8, 'pgmq.set_vt(''w'', 1, now())'), (9, 'pgmq.archive(''w'', 1)'),
        (10, 'pgmq.archive(''w'', ''{2}''::bigint[])'), (11, 'pgmq.pop(''w'')'), (12, 'pgmq.delete(''w'', 3)'),
        (13, 'pgmq.delete(''w'', ''{4}''::bigint[])'), (14, 'pgmq.metrics(''w'')'), (15, 'pgmq.purge_queue(''w'')')) AS v (n, call) ORDER BY n
$$;
-- columns of other types, under plans that are kept
SELECT pgmq.create('w');
SELECT count(*) FILTER (WHERE outcome = 'ok'), count(*) FROM pg_temp.attempt_all();
ALTER TABLE pgmq.q_w ALTER COLUMN message TYPE text;
SELECT pgmq.read('w', 0, 5);
SELECT * FROM pg_temp.attempt_all();
ALTER TABLE pgmq.q_w ALTER COLUMN message TYPE jsonb USING message::jsonb, ALTER COLUMN read_ct TYPE bigint;
SELECT * FROM pg_temp.attempt_all();
ALTER TABLE pgmq.q_w ALTER COLUMN read_ct TYPE integer, ALTER COLUMN msg_id TYPE integer;
SELECT pgmq.send('w', '{}');
SELECT * FROM pg_temp.attempt_all();
-- a missing column
ALTER TABLE pgmq.q_w ALTER COLUMN msg_id TYPE bigint, DROP COLUMN headers;
SELECT * FROM pg_temp.attempt_all();
DROP TABLE pgmq.q_w, pgmq.a_w;
-- an id that is no number at all
CREATE TABLE pgmq.q_w (msg_id text PRIMARY KEY DEFAULT gen_random_uuid(), read_ct int DEFAULT 0, enqueued_at timestamptz, last_read_at timestamptz,
    vt timestamptz, message jsonb, headers jsonb);
SELECT * FROM pg_temp.attempt_all();
DROP TABLE pgmq.q_w;
-- a view, with nothing behind it that could be written; a sequence
CREATE VIEW pgmq.q_w AS SELECT 1::bigint AS msg_id, 0 AS read_ct, now() AS enqueued_at, now() AS last_read_at, now() AS vt, '{}'::jsonb AS message, NULL::jsonb AS headers;
SELECT count(*), count(*) FILTER (WHERE outcome = 'ok') FROM pg_temp.attempt_all();
DROP VIEW pgmq.q_w;
CREATE SEQUENCE pgmq.q_w;
SELECT count(*), count(*) FILTER (WHERE outcome = 'ok') FROM pg_temp.attempt_all();
DROP SEQUENCE pgmq.q_w;
-- and then a queue again, in the same session
DELETE FROM pgmq.meta;
SELECT pgmq.create('w');
SELECT count(*) FILTER (WHERE outcome = 'ok'), count(*) FROM pg_temp.attempt_all();
SELECT pgmq.drop_queue('w');
DROP FUNCTION forward, again, busy, picky, keep, saw, public.note;
