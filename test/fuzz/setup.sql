-- Objects of the fuzzer's own, in each of its databases.  Roles are made once.
CREATE SCHEMA fuzz;
GRANT USAGE, CREATE ON SCHEMA fuzz TO PUBLIC;
CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;
CREATE EXTENSION file_fdw;
CREATE SERVER nowhere FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN DATA WRAPPER nohandler;
CREATE SERVER noserver FOREIGN DATA WRAPPER nohandler;
GRANT USAGE ON FOREIGN SERVER nowhere, noserver TO PUBLIC;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
GRANT pg_read_server_files TO maker, dbowner;

-- What was sent and what was taken out, written by the statements that did it: a rollback takes back both
CREATE TABLE fuzz.ledger (queue text, msg_id bigint, tag text);
CREATE TABLE fuzz.gone (queue text, msg_id bigint);
CREATE UNLOGGED TABLE fuzz.ledger_unlogged (queue text, msg_id bigint, tag text);
CREATE UNLOGGED TABLE fuzz.gone_unlogged (queue text, msg_id bigint);
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA fuzz TO PUBLIC;

CREATE DOMAIN fuzz.id AS bigint CHECK (VALUE IS NULL OR VALUE > -1000);
CREATE TYPE fuzz.pair AS (x bigint, y text);
CREATE FUNCTION fuzz.pair_id(fuzz.pair) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1.x';
CREATE FUNCTION fuzz.pair_flag(fuzz.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x > 0';
CREATE CAST (fuzz.pair AS bigint) WITH FUNCTION fuzz.pair_id(fuzz.pair) AS IMPLICIT;
CREATE CAST (fuzz.pair AS boolean) WITH FUNCTION fuzz.pair_flag(fuzz.pair) AS IMPLICIT;
GRANT USAGE ON TYPE fuzz.id, fuzz.pair TO PUBLIC;

CREATE FUNCTION fuzz.slow(anyelement) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.pg_sleep(0.2); RETURN true; END $$;
CREATE FUNCTION fuzz.very_slow(anyelement) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.pg_sleep(30); RETURN true; END $$;
CREATE FUNCTION fuzz.fails(anyelement) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'fuzz'; END $$;
CREATE FUNCTION fuzz.number(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1';

-- A lease of some shard.  Not in the statement of a call itself: after ROLLBACK in a procedure, a plan with a table can fail an
-- assertion of the server itself.
CREATE FUNCTION fuzz.lease(positions text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	found bigint;
BEGIN
	EXECUTE 'SELECT lease FROM ' || positions || ' WHERE lease IS NOT NULL ORDER BY pg_catalog.random() LIMIT 1' INTO found;
	RETURN found;
END $$;

-- A user's trigger: it fails now and then, or calls the extension for another queue or this one
CREATE FUNCTION fuzz.trigger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	other text := 'z' || pg_catalog.floor(pg_catalog.random() * 8)::text;
	what float := pg_catalog.random();
	-- The end of an EXCEPTION block during a commit, in a deferred trigger or a cursor WITH HOLD, fails an assertion of
	-- the server itself, without any extension
	may_catch boolean := NOT pg_catalog.current_setting('debug_assertions')::boolean;
BEGIN
	IF pg_catalog.pg_trigger_depth() < 4 THEN
		IF what < 0.1 THEN RAISE EXCEPTION 'fuzz';
		ELSIF what < 0.2 THEN PERFORM pgmq.send(other, '{"by": "trigger"}'::jsonb);
		ELSIF what < 0.3 THEN PERFORM pgmq.read(other, 0, 2);
		ELSIF what < 0.35 THEN PERFORM pgmq.pop(other, 1);
		ELSIF what < 0.4 THEN PERFORM pgmq.delete(other, 1::bigint);
		ELSIF what < 0.45 THEN PERFORM pgmq.set_vt(other, 1::bigint, 0);
		ELSIF what < 0.5 THEN PERFORM pgmq.read_grouped(other, 0, 2);
		ELSIF what < 0.51 THEN PERFORM pgmq.publish('y0', '{"by": "trigger"}'::jsonb);
		ELSIF what < 0.515 THEN PERFORM pgmq.receive('y0', 'sub0', 0, 2);
		ELSIF what < 0.52 THEN PERFORM pgmq.send_topic('f.a.b', '{"by": "trigger"}'::jsonb);
		ELSIF what < 0.6 AND may_catch THEN
			BEGIN
				PERFORM pgmq.send(other, '{"by": "trigger"}'::jsonb, '{"x-pgmq-group": "a"}'::jsonb);
				RAISE EXCEPTION 'fuzz';
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		ELSIF what < 0.62 THEN RETURN NULL;
		ELSIF what < 0.63 THEN PERFORM pgmq.drop_queue(other);
		ELSIF what < 0.64 THEN PERFORM pgmq.purge_queue(other);
		END IF;
	END IF;
	IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
	RETURN NEW;
END $$;

-- A dead-letter queue that refuses messages now and then
CREATE FUNCTION fuzz.sometimes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_catalog.random() < 0.1 THEN RAISE EXCEPTION 'fuzz'; END IF;
	RETURN NEW;
END $$;

-- All that has the name of this queue, and what the extension's tables say of it
CREATE FUNCTION fuzz.wipe(queue text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r record;
	kind text;
BEGIN
	-- parents first: what goes with them is passed over
	FOR r IN SELECT c.oid, c.relname, c.relkind FROM pg_catalog.pg_class AS c
			 WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
			 AND c.relname ~ ('^(old_)*[qagksp]_' || pg_catalog.regexp_replace(pg_catalog.lower(queue), '([^[:alnum:] ])', '\\\1', 'g') || '(\d*$|_)')
			 ORDER BY c.relispartition, c.relkind = 'S', c.oid LOOP
		kind := CASE r.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
							   WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END;
		IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = r.oid) THEN
			EXECUTE pg_catalog.format('DROP %s pgmq.%I CASCADE', kind, r.relname);
		END IF;
	END LOOP;
	DELETE FROM pgmq.topic_bindings WHERE pg_catalog.lower(queue_name) = pg_catalog.lower(queue);
	DELETE FROM pgmq.notify_insert_throttle WHERE pg_catalog.lower(queue_name) = pg_catalog.lower(queue);
	DELETE FROM pgmq.policy WHERE pg_catalog.lower(queue_name) = pg_catalog.lower(queue);
	DELETE FROM pgmq.partition_config WHERE queue_name = pg_catalog.lower(queue);
	DELETE FROM partman.part_config WHERE parent_table IN ('pgmq.q_' || pg_catalog.lower(queue), 'pgmq.a_' || pg_catalog.lower(queue));
	DELETE FROM pgmq.subscription WHERE pg_catalog.lower(stream_name) = pg_catalog.lower(queue);
	DELETE FROM pgmq.stream WHERE pg_catalog.lower(stream_name) = pg_catalog.lower(queue);
	DELETE FROM pgmq.meta WHERE pg_catalog.lower(queue_name) = pg_catalog.lower(queue);
END $$;
