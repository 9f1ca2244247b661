-- Messages that may not be delivered any more: reads skip them and move them.
SET client_min_messages = warning;
\set VERBOSITY terse
SELECT pgmq.create('dead'), pgmq.create('letters');
CREATE VIEW places AS
	SELECT (SELECT count(*) FROM pgmq.q_dead) AS queue, (SELECT count(*) FROM pgmq.q_letters) AS letters,
		(SELECT count(*) FROM pgmq.a_dead) AS archive;
CREATE VIEW letters AS
	SELECT message, headers - 'x-dlq-at' AS headers, headers ? 'x-dlq-at' AND vt = enqueued_at AND read_ct = 0 AS fresh
	  FROM pgmq.q_letters ORDER BY msg_id;
CREATE FUNCTION empty() RETURNS void LANGUAGE sql
	AS $$ SELECT pgmq.purge_queue('dead'), pgmq.purge_queue('letters'); DELETE FROM pgmq.a_dead $$;

-- A message fails max_reads times, by leases of 0 seconds
SELECT pgmq.set_policy('dead', max_reads => 2, dead_letter_queue => 'Letters');
SELECT pgmq.send('dead', '1', '{"traceparent": "t", "x-dlq-reason": "forged", "x-dlq-headers": 1, "x-pgmq-error": "boom", "x-pgmq-ttl": 60}'::jsonb);
SELECT read_ct FROM pgmq.read('dead', 0, 10);
SELECT read_ct FROM pgmq.read('dead', 0, 10);
SELECT read_ct FROM pgmq.read('dead', 0, 10);
SELECT * FROM letters;
SELECT headers ->> 'x-dlq-at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$',
	(headers ->> 'x-dlq-at')::timestamptz BETWEEN enqueued_at - interval '1 minute' AND enqueued_at FROM pgmq.q_letters;
-- A delivery that was released is no failure
SELECT empty();
SELECT * FROM pgmq.send('dead', '"released"');
SELECT read_ct, pgmq.release('dead', msg_id, read_ct) FROM pgmq.read('dead', 30, 1);
SELECT read_ct FROM pgmq.read('dead', 0, 1);
SELECT read_ct FROM pgmq.read('dead', 0, 1);
SELECT read_ct FROM pgmq.read('dead', 0, 1);
SELECT message, headers -> 'x-dlq-read-ct' AS read_ct FROM pgmq.q_letters;
-- A message is not dead while its last lease lasts
SELECT empty();
SELECT * FROM pgmq.send('dead', '"acked"');
SELECT read_ct FROM pgmq.read('dead', 0, 1);
SELECT msg_id, read_ct FROM pgmq.read('dead', 30, 1) \gset
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT pgmq.ack('dead', :msg_id, :read_ct), places.* FROM places;

-- 250 dead messages before a live one
SELECT empty();
SELECT count(*) FROM pgmq.send_batch('dead', array_fill('{"k": 1}'::jsonb, '{251}'), array_fill('[1]'::jsonb, '{251}'));
UPDATE pgmq.q_dead SET read_ct = 2 WHERE msg_id <> (SELECT max(msg_id) FROM pgmq.q_dead);
SELECT message FROM pgmq.read('dead', 30, 5);
SELECT * FROM places;
CREATE FUNCTION calls() RETURNS TABLE (calls int, most bigint, delivered bigint) LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
	got bigint;
BEGIN
	calls := 0; most := 0; delivered := 0;
	LOOP
		SELECT letters INTO before FROM places;
		EXIT WHEN before = 250 OR calls = 10000;
		SELECT count(*) INTO got FROM pgmq.read('dead', 30, 5);
		delivered := delivered + got;
		most := greatest(most, (SELECT letters - before FROM places));
		calls := calls + 1;
	END LOOP;
	RETURN NEXT;
END $$;
SELECT calls < 10000 AS moved, most, delivered FROM calls();
SELECT * FROM places;
SELECT DISTINCT headers -> 'x-dlq-headers' AS h FROM pgmq.q_letters;
SELECT bool_and(headers -> 'x-dlq-origin-msg-id' = to_jsonb(msg_id + d)) FROM pgmq.q_letters,
	(SELECT (headers -> 'x-dlq-origin-msg-id')::bigint - msg_id AS d FROM pgmq.q_letters LIMIT 1) AS x;

-- message_ttl, and the header that overrides it; what is not a number of seconds is ignored
SELECT empty();
SELECT pgmq.reset_policy('dead');
SELECT pgmq.set_policy('dead', message_ttl => '1 hour');
CREATE PROCEDURE fill() LANGUAGE sql AS $$
	INSERT INTO pgmq.q_dead (message, enqueued_at, vt, headers)
	SELECT to_jsonb(name), clock - age, clock - age, headers
	  FROM (SELECT clock_timestamp() AS clock) AS c, (VALUES ('young', '1 min'::interval, NULL::jsonb), ('old', '2 hours', NULL), ('saved', '2 hours', '{"x-pgmq-ttl": 1e5}'),
		('short', '1 min', '{"x-pgmq-ttl": 0.5}'), ('text', '1 min', '{"x-pgmq-ttl": "0.5"}'), ('zero', '1 min', '{"x-pgmq-ttl": 0}'),
		('huge', '2 hours', '{"x-pgmq-ttl": 1e10}'), ('negative', '1 min', '{"x-pgmq-ttl": -1}'), ('array', '1 min', '[1]'),
		('null', '2 hours', 'null'), ('monster', '1 min', '{"x-pgmq-ttl": 1e400}')) AS m (name, age, headers) $$;
CALL fill();
SELECT message FROM pgmq.pop('dead', 20);
SELECT * FROM places;
SELECT pgmq.set_policy('dead', dead_letter_queue => 'letters');
CALL fill();
SELECT message FROM pgmq.read_where('dead', 30, 20, '{}', '{"x-pgmq-ttl": 1e5}');
SELECT * FROM letters;
-- Both reasons: exhausted.  Without a dead-letter queue these are kept in the archive, the others deleted.
SELECT empty();
SELECT pgmq.reset_policy('dead', '{dead_letter_queue}');
SELECT pgmq.set_policy('dead', max_reads => 1);
CALL fill();
UPDATE pgmq.q_dead SET read_ct = 1 WHERE message IN ('"old"', '"young"');
SELECT message FROM pgmq.read('dead', 30, 20, '{"none": 1}');
SELECT * FROM places;
SELECT message, headers -> 'x-dlq-reason' AS reason FROM pgmq.a_dead ORDER BY msg_id;

-- A dead-letter queue that cannot be used means the archive
CREATE FUNCTION dies() RETURNS TABLE (queue bigint, letters bigint, archive bigint, warned text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM empty();
	PERFORM pgmq.send('dead', '1');
	PERFORM pgmq.read('dead', 0, 1);
	PERFORM pgmq.read('dead', 0, 1);
	RETURN QUERY SELECT p.*, (SELECT headers ->> 'x-pgmq-stuck' FROM pgmq.q_dead) FROM places AS p;
END $$;
SELECT pgmq.reset_policy('dead', '{message_ttl}');
SELECT * FROM dies();
SELECT pgmq.set_policy('dead', dead_letter_queue => 'letters');
SELECT * FROM dies();
CREATE ROLE regress_dead_other;
ALTER TABLE pgmq.q_letters OWNER TO regress_dead_other;
SELECT * FROM dies();
ALTER TABLE pgmq.q_letters OWNER TO CURRENT_USER;
SELECT pgmq.create('third');
INSERT INTO pgmq.policy (queue_name, dead_letter_queue) VALUES ('letters', 'third');
SELECT * FROM dies();
DELETE FROM pgmq.policy WHERE queue_name = 'letters';
UPDATE pgmq.policy SET dead_letter_queue = 'DEAD' WHERE queue_name = 'dead';
SELECT * FROM dies();
UPDATE pgmq.policy SET dead_letter_queue = 'none' WHERE queue_name = 'dead';
SELECT * FROM dies();
SELECT pgmq.set_policy('dead', dead_letter_queue => 'letters');
ALTER TABLE pgmq.q_letters RENAME TO renamed;
CREATE VIEW pgmq.q_letters AS SELECT * FROM pgmq.renamed;
DELETE FROM pgmq.a_dead;
SELECT pgmq.send('dead', '1');
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT * FROM places;
DROP VIEW pgmq.q_letters;
ALTER TABLE pgmq.renamed RENAME TO q_letters;
SELECT * FROM dies();

-- A move that fails hides the message, and there is a warning; others are moved
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.message = '2' THEN RAISE 'no %', NEW.message USING ERRCODE = 'disk_full'; END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.q_letters FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT empty();
SELECT count(*) FROM pgmq.send_batch('dead', ARRAY['1', '2', '3', '2', '4']::jsonb[], ARRAY[NULL, '{"h": 1}', NULL, '[2]', NULL]::jsonb[]);
SELECT count(*) FROM pgmq.read('dead', 0, 4);
SELECT pgmq.set_policy('dead', retry_delay_max => '20 minutes');
SELECT message FROM pgmq.read('dead', 30, 10);
SELECT message, read_ct, headers, vt BETWEEN now() + interval '19 minutes' AND now() + interval '20 minutes' AS hidden FROM pgmq.q_dead ORDER BY msg_id;
SELECT message FROM pgmq.q_letters ORDER BY msg_id;
SELECT stuck FROM pgmq.queue_status('dead');
-- When it is visible again, the next read tries again
SELECT pgmq.set_vt('dead', msg_id, 0) IS NOT NULL AS retimed FROM pgmq.q_dead WHERE read_ct > 0 AND read_ct < 2 AND message = '2';
DROP TRIGGER refuse ON pgmq.q_letters;
SELECT message FROM pgmq.read('dead', 30, 10);
SELECT message, headers ? 'x-pgmq-stuck' AS stuck FROM pgmq.q_letters ORDER BY msg_id;
-- The archive has the id
SELECT empty();
SELECT pgmq.reset_policy('dead', '{dead_letter_queue}');
SELECT pgmq.send('dead', '1');
INSERT INTO pgmq.a_dead (msg_id, vt) SELECT msg_id, vt FROM pgmq.q_dead;
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT headers -> 'x-pgmq-stuck' AS stuck FROM pgmq.q_dead;
-- If nothing can be hidden either, the message stays, and is not delivered
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
SELECT pgmq.set_vt('dead', msg_id, 0) IS NOT NULL AS retimed FROM pgmq.q_dead;
CREATE TRIGGER never BEFORE UPDATE ON pgmq.q_dead FOR EACH ROW EXECUTE FUNCTION never();
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT count(*) FROM pgmq.read('dead', 0, 1);
DROP TRIGGER never ON pgmq.q_dead;
-- At most ten failures in a call, and an error that passes is none
SELECT empty();
SELECT pgmq.set_policy('dead', dead_letter_queue => 'letters');
CREATE FUNCTION passes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'later' USING ERRCODE = 'serialization_failure'; END $$;
CREATE TRIGGER passes BEFORE INSERT ON pgmq.q_letters FOR EACH ROW EXECUTE FUNCTION passes();
SELECT count(*) FROM pgmq.send_batch('dead', array_fill('1'::jsonb, '{25}'));
UPDATE pgmq.q_dead SET read_ct = 1;
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT count(*) FROM pgmq.q_dead WHERE headers IS NULL;
DROP TRIGGER passes ON pgmq.q_letters;
CREATE TRIGGER never BEFORE INSERT ON pgmq.q_letters FOR EACH ROW EXECUTE FUNCTION never();
SELECT count(*) FROM pgmq.read('dead', 0, 1);
SELECT count(*) FROM pgmq.q_dead WHERE headers IS NULL;
DROP TRIGGER never ON pgmq.q_letters;

-- Other reads
SELECT empty();
SELECT pgmq.purge_queue('dead');
SELECT count(*) FROM pgmq.send_batch('dead', ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 6) AS i));
UPDATE pgmq.q_dead SET read_ct = 1 WHERE (message -> 'n')::int <= 4;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT message FROM pgmq.read('dead', 30, 1);
SELECT * FROM places;
ROLLBACK;
SELECT * FROM places;
SELECT message FROM pgmq.read('dead', 30, 1, '{"n": 6}');
SELECT * FROM places;
BEGIN READ ONLY;
SELECT message FROM pgmq.read('dead', 30, 1);
ROLLBACK;
SELECT message FROM pgmq.read_with_poll('dead', 30, 1, 1);
-- Without an index on vt, and in partitions
DROP INDEX pgmq.q_dead_vt_idx;
SELECT count(*) FROM pgmq.send_batch('dead', ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 122) AS i));
UPDATE pgmq.q_dead SET read_ct = 1 WHERE (message -> 'n')::int <= 120 AND vt = enqueued_at;
SELECT message FROM pgmq.read('dead', 30, 1);
SELECT * FROM places;
SELECT message FROM pgmq.pop('dead', 2);
SELECT * FROM places;
CREATE PROCEDURE partition(kind text, low text, middle text, high text) LANGUAGE plpgsql AS $$
BEGIN
	DROP TABLE IF EXISTS pgmq.q_parts, pgmq.a_parts;
	DELETE FROM pgmq.meta WHERE queue_name = 'parts';
	EXECUTE format('CREATE TABLE pgmq.q_parts (msg_id bigint GENERATED ALWAYS AS IDENTITY, read_ct int NOT NULL DEFAULT 0,
		enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL,
		message jsonb, headers jsonb) PARTITION BY RANGE (%s)', kind);
	CREATE TABLE pgmq.a_parts (LIKE pgmq.q_parts, archived_at timestamptz NOT NULL DEFAULT now());
	CREATE INDEX ON pgmq.q_parts (msg_id);
	CREATE INDEX q_parts_vt_idx ON pgmq.q_parts (vt, msg_id) WHERE vt <> enqueued_at;
	EXECUTE format('CREATE TABLE pgmq.q_parts_1 PARTITION OF pgmq.q_parts FOR VALUES FROM (%L) TO (%L)', low, middle);
	EXECUTE format('CREATE TABLE pgmq.q_parts_2 PARTITION OF pgmq.q_parts FOR VALUES FROM (%L) TO (%L)', middle, high);
	INSERT INTO pgmq.meta VALUES ('parts', true, false);
	PERFORM pgmq.set_policy('parts', max_reads => 1, message_ttl => '10 days', dead_letter_queue => 'letters');
	PERFORM pgmq.purge_queue('letters');
END $$;
CALL partition('msg_id', '0', '21', '100');
SELECT count(*) FROM pgmq.send_batch('parts', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 40) AS i));
SELECT count(*) FROM pgmq.read('parts', 0, 30);
SELECT message FROM pgmq.read('parts', 30, 2);
SELECT count(*), min((message)::int), max(message::int) FROM pgmq.q_letters;
SELECT count(*) FROM pgmq.q_parts;
CALL partition('enqueued_at', (now() - interval '20 days')::text, (now() - interval '1 day')::text, (now() + interval '1 day')::text);
INSERT INTO pgmq.q_parts (message, enqueued_at, vt, read_ct)
	SELECT to_jsonb(i), t, t + s, i % 2 FROM generate_series(1, 40) AS i, LATERAL (SELECT now() - i * interval '12 hours' AS t,
		CASE WHEN i % 3 = 0 THEN interval '0' ELSE interval '1 hour' END AS s) AS x;
SELECT count(*) FROM pgmq.read('parts', 30, NULL);
SELECT headers ->> 'x-dlq-reason' AS reason, count(*), min(message::int), max(message::int) FROM pgmq.q_letters GROUP BY 1;
SELECT count(*) FROM pgmq.q_parts;
SELECT pgmq.purge_queue('letters');

-- Code on the dead-letter queue runs with the rights of the owner, and cannot become another role; the reader needs no
-- privilege there, and its settings do not count
CREATE INDEX q_dead_vt_idx ON pgmq.q_dead (vt, msg_id) WHERE vt <> enqueued_at;
CREATE ROLE regress_dead_owner;
CREATE ROLE regress_dead_reader;
GRANT USAGE ON SCHEMA pgmq TO regress_dead_owner, regress_dead_reader;
ALTER TABLE pgmq.q_dead OWNER TO regress_dead_owner;
ALTER TABLE pgmq.a_dead OWNER TO regress_dead_owner;
ALTER TABLE pgmq.q_letters OWNER TO regress_dead_owner;
GRANT SELECT, UPDATE, DELETE ON pgmq.q_dead TO regress_dead_reader;
CREATE TABLE seen (who text);
GRANT INSERT ON seen TO regress_dead_owner;
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.seen VALUES (format('%s, %s, %s', current_user, current_setting('search_path'), current_setting('row_security')));
	BEGIN
		SET LOCAL ROLE regress_dead_reader;
	EXCEPTION WHEN OTHERS THEN
		INSERT INTO public.seen VALUES (SQLERRM);
	END;
	RETURN NEW;
END $$;
CREATE TRIGGER look BEFORE INSERT ON pgmq.q_letters FOR EACH ROW EXECUTE FUNCTION look();
SELECT pgmq.purge_queue('dead');
SELECT count(*) FROM pgmq.send_batch('dead', ARRAY['1', '2']::jsonb[]);
UPDATE pgmq.q_dead SET read_ct = 1 WHERE message = '1';
SET ROLE regress_dead_reader;
SET row_security = off;
SELECT message FROM pgmq.read('dead', 30, 1);
RESET ROLE;
RESET row_security;
SELECT * FROM seen;
SELECT message FROM pgmq.q_letters;
DROP TRIGGER look ON pgmq.q_letters;
-- Policies count for the owner if it says so: then the message is hidden
ALTER TABLE pgmq.q_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgmq.q_letters FORCE ROW LEVEL SECURITY;
UPDATE pgmq.q_dead SET read_ct = 1, vt = enqueued_at;
SET ROLE regress_dead_reader;
SELECT message FROM pgmq.read('dead', 30, 1);
RESET ROLE;
SELECT headers -> 'x-pgmq-stuck' AS stuck FROM pgmq.q_dead;
ALTER TABLE pgmq.q_letters NO FORCE ROW LEVEL SECURITY;
-- An archive of another owner is not written with the rights of the queue's owner
ALTER TABLE pgmq.q_letters OWNER TO CURRENT_USER;
ALTER TABLE pgmq.a_dead OWNER TO regress_dead_other;
GRANT INSERT, SELECT ON pgmq.a_dead TO regress_dead_owner;
UPDATE pgmq.q_dead SET headers = NULL, vt = enqueued_at;
SET ROLE regress_dead_reader;
SELECT message FROM pgmq.read('dead', 30, 1);
RESET ROLE;
SELECT headers -> 'x-pgmq-stuck' AS stuck FROM pgmq.q_dead;
-- A role that may not read gets an error, and moves nothing
ALTER TABLE pgmq.a_dead OWNER TO regress_dead_owner;
UPDATE pgmq.q_dead SET headers = NULL, vt = enqueued_at;
REVOKE SELECT ON pgmq.q_dead FROM regress_dead_reader;
SET ROLE regress_dead_reader;
SELECT message FROM pgmq.read('dead', 30, 1);
RESET ROLE;
SELECT * FROM places;
-- Row-level security of the reader hides what is live, and not what is dead from a move
GRANT SELECT ON pgmq.q_dead TO regress_dead_reader;
ALTER TABLE pgmq.q_dead ENABLE ROW LEVEL SECURITY;
SET ROLE regress_dead_reader;
SELECT message FROM pgmq.read('dead', 30, 1);
RESET ROLE;
SELECT * FROM places;
-- A trigger of the target that suppresses the row: the message stays
ALTER TABLE pgmq.q_dead DISABLE ROW LEVEL SECURITY;
ALTER TABLE pgmq.q_dead OWNER TO CURRENT_USER;
ALTER TABLE pgmq.a_dead OWNER TO CURRENT_USER;
CREATE FUNCTION regress_no_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT pgmq.create('suppressed'), pgmq.create('suppressing');
SELECT pgmq.set_policy('suppressed', max_reads => 1, dead_letter_queue => 'suppressing');
CREATE TRIGGER no_row BEFORE INSERT ON pgmq.q_suppressing FOR EACH ROW EXECUTE FUNCTION regress_no_row();
CREATE TRIGGER no_row BEFORE INSERT ON pgmq.a_suppressed FOR EACH ROW EXECUTE FUNCTION regress_no_row();
SELECT pgmq.send('suppressed', '1');
SELECT message FROM pgmq.read('suppressed', 0, 1);
SELECT message FROM pgmq.read('suppressed', 0, 1);
SELECT pgmq.dead_letter('suppressed', 1, 1);
SELECT pgmq.reset_policy('suppressed', '{dead_letter_queue}');
SELECT pgmq.dead_letter('suppressed', 1, 1);
SELECT headers -> 'x-pgmq-stuck' AS stuck FROM pgmq.q_suppressed;
ALTER TABLE pgmq.q_suppressing DISABLE TRIGGER no_row;
SELECT pgmq.send('suppressing', '2');
CREATE TRIGGER no_row BEFORE INSERT ON pgmq.q_suppressed FOR EACH ROW EXECUTE FUNCTION regress_no_row();
SELECT pgmq.redrive('suppressing', 'suppressed');
SELECT message FROM pgmq.q_suppressing;
SELECT pgmq.drop_queue('suppressed'), pgmq.drop_queue('suppressing');
DROP FUNCTION regress_no_row;
DROP VIEW places, letters;
DROP TABLE seen;
DROP FUNCTION calls, empty, dies, refuse, never, passes, look;
DROP PROCEDURE fill, partition;
SELECT pgmq.drop_queue('dead'), pgmq.drop_queue('letters'), pgmq.drop_queue('third'), pgmq.drop_queue('parts');
DROP OWNED BY regress_dead_owner, regress_dead_reader, regress_dead_other;
DROP ROLE regress_dead_owner, regress_dead_reader, regress_dead_other;
