-- The end of a delivery, said with its token
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT pgmq.create('t');
SELECT count(*) FROM pgmq.send_batch('t', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 12) AS i));

-- ack: once, and only the last delivery; there is no delivery 0, and a message without a delivery has none
SELECT msg_id, read_ct FROM pgmq.read('t', 30, 3);
SELECT pgmq.ack('t', 1, 2), pgmq.ack('t', 1, 0), pgmq.ack('t', 1, -1), pgmq.ack('t', 1, NULL), pgmq.ack('t', NULL, 1), pgmq.ack('t', 99, 1), pgmq.ack('t', 12, 0);
SELECT pgmq.ack('t', 1, 1), pgmq.ack('t', 1, 1);
-- after the lease has expired, too, but not after the next delivery
SELECT msg_id, read_ct FROM pgmq.set_vt('t', '{2,3}'::bigint[], 0);
SELECT pgmq.ack('t', 2, 1);
SELECT msg_id, read_ct FROM pgmq.read('t', 30, 1);
SELECT pgmq.ack('t', 3, 1), pgmq.ack_archive('t', 3, 1), pgmq.touch('t', 3, 1, 60), pgmq.release('t', 3, 1), pgmq.nack('t', 3, 1, 'late');
SELECT msg_id, read_ct, headers, vt > now() AS leased FROM pgmq.peek('t', msg_ids => '{3}');
SELECT pgmq.ack_archive('t', 3, 2), pgmq.ack_archive('t', 3, 2);
SELECT msg_id, read_ct, message FROM pgmq.a_t;

-- touch: while the lease lasts
SELECT msg_id, read_ct FROM pgmq.read('t', 30, 2);
SELECT pgmq.touch('t', 4, 1, 1000), pgmq.touch('t', 5, 1, 0);
SELECT msg_id, vt > now() + '900 seconds'::interval AS long FROM pgmq.peek('t', msg_ids => '{4,5}');
SELECT pgmq.touch('t', 5, 1, 60), pgmq.touch('t', 12, 0, 60);
-- after a read without a lease there is none
SELECT msg_id, read_ct FROM pgmq.read('t', 0, 1);
SELECT pgmq.touch('t', 5, 2, 60), pgmq.touch('t', 4, 1, -5), pgmq.touch('t', 4, 1, 60);
SELECT pgmq.touch('t', 5, 2, NULL);
SELECT msg_id FROM pgmq.read('t', 30, 2);
SELECT pgmq.touch('t', 5, 3, NULL);

-- release and nack: with a delay, and again
SELECT pgmq.release('t', 4, 2, 100), pgmq.release('t', 5, 3);
SELECT msg_id, read_ct, vt > clock_timestamp() AS hidden FROM pgmq.peek('t', msg_ids => '{4,5}');
SELECT pgmq.release('t', 4, 2), pgmq.release('t', 5, 3, NULL);
SELECT pgmq.nack('t', 4, 2, 'first', 100), pgmq.nack('t', 5, 3);
SELECT msg_id, read_ct, headers, vt > clock_timestamp() AS hidden FROM pgmq.peek('t', msg_ids => '{4,5}');
SELECT pgmq.nack('t', 4, 2), pgmq.nack('t', 5, 3, 'second', -1), pgmq.nack('t', 99, 1), pgmq.nack('t', 5, 0);
SELECT msg_id, read_ct, headers, vt > clock_timestamp() AS hidden FROM pgmq.peek('t', msg_ids => '{4,5}');
-- the error: in headers that are an object, or none; cut in the middle of no character
SELECT id FROM (VALUES ('{"a": 1, "x-pgmq-error": "old"}'::jsonb), ('[1]'), ('null')) AS h (headers), pgmq.send('t', '"e"', headers) AS id;
SELECT msg_id FROM pgmq.read('t', 30, 3, '"e"');
SELECT pgmq.nack('t', 13, 1, 'new'), pgmq.nack('t', 14, 1, 'new'), pgmq.nack('t', 15, 1, 'new');
SELECT msg_id, headers FROM pgmq.peek('t', 3, '"e"');
SELECT msg_id FROM pgmq.read('t', 30, 1, '"e"');
SELECT pgmq.nack('t', 13, 2, 'a' || repeat('é', 3000));
SELECT octet_length(headers->>'x-pgmq-error'), headers->>'x-pgmq-error' = 'a' || repeat('é', 2047) AS cut FROM pgmq.peek('t', msg_ids => '{13}');

-- arrays: a row for each element, in its order
SELECT pgmq.purge_queue('t');
SELECT count(*) FROM pgmq.send_batch('t', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 10) AS i));
SELECT array_agg(msg_id) FROM pgmq.read('t', 30, 10);
SELECT array_agg(msg_id) FROM pgmq.set_vt('t', '{17,18}'::bigint[], 0);
SELECT msg_id, read_ct FROM pgmq.read('t', 30, 10);
SELECT * FROM pgmq.ack_batch('t', '{18,16,17,17,18,NULL,16,99,19,19,16}', '{2,1,1,2,1,1,1,1,NULL,0,2}');
SELECT * FROM pgmq.ack_batch('t', '{18,16}', '{2,1}');
SELECT * FROM pgmq.ack_archive_batch('t', '{20,19,20}', '{1,1,1}');
SELECT * FROM pgmq.touch_batch('t', '{22,21,20}', '{1,1,1}', 1000);
SELECT * FROM pgmq.release_batch('t', '{22,23,24}', '{1,1,2}', 100);
SELECT * FROM pgmq.nack_batch('t', '{25,24,23,25,25}', '{1,1,1,1,2}', 'why', 100);
SELECT msg_id, read_ct, headers, vt > now() + '900 seconds'::interval AS long, vt > now() + '50 seconds'::interval AS hidden FROM pgmq.peek('t');
SELECT msg_id FROM pgmq.a_t ORDER BY 1;
-- none, and others that name nothing
SELECT * FROM pgmq.ack_batch('t', '{}', '{}');
SELECT * FROM pgmq.ack_batch('t', NULL, NULL);
SELECT * FROM pgmq.ack_batch('t', NULL, '{}');
SELECT * FROM pgmq.nack_batch('t', '{NULL,21}', '{1,NULL}');
SELECT * FROM pgmq.ack_batch('t', '{9223372036854775807,-9223372036854775808,0,-1}', '{1,2147483647,1,1}');
SELECT * FROM pgmq.ack_batch('t', '{1,2}', '{1}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM pgmq.release_batch('t', '{1}', NULL);
SELECT * FROM pgmq.touch_batch('t', '{21}', '{1}', NULL);
SELECT pgmq.release('t', 21, 1, NULL), pgmq.touch('t', 21, 1, 60);
-- ids at the ends of the range
INSERT INTO pgmq.q_t (msg_id, vt, read_ct, message) OVERRIDING SYSTEM VALUE
    SELECT i, clock_timestamp(), 3, '1' FROM unnest('{-9223372036854775807,0,9223372036854775807}'::bigint[]) AS i;
SELECT * FROM pgmq.ack_batch('t', '{9223372036854775807,0,-9223372036854775807,0}', '{3,2,3,3}');

-- next: the new messages, and the old ones are gone
SELECT pgmq.purge_queue('t');
SELECT count(*) FROM pgmq.send_batch('t', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 10) AS i));
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 2, '{}', '{}');
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 2, '{26,27}', '{1,1}');
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 2, NULL, NULL);
SELECT msg_id FROM pgmq.peek('t', 3);
-- a stale token is skipped, or an error; then nothing is read, either
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 1, '{28,29,26}', '{1,2,1}');
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 1, '{29,26}', '{1,1}', false);
\echo :LAST_ERROR_SQLSTATE
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 1, '{NULL}', '{1}', false);
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 1, '{29}', '{1}', false);
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 1, '{1}', '{}', false);
SELECT msg_id, read_ct FROM pgmq.peek('t', 99);
-- one whose lease has expired is acknowledged, and not handed out again; nor are others instead, so there can be fewer
SELECT array_agg(msg_id) FROM pgmq.set_vt('t', '{30,31,32}'::bigint[], 0);
SELECT msg_id, read_ct FROM pgmq.next('t', 30, 2, '{31,30}', '{1,1}', false);
SELECT msg_id, read_ct FROM pgmq.next('t', 30, NULL, '{32,32}', '{2,1}');
SELECT msg_id, read_ct FROM pgmq.peek('t', 99);
SELECT pgmq.pause_queue('t');
SELECT msg_id FROM pgmq.next('t', 30, 1, '{33}', '{1}');
SELECT pgmq.resume_queue('t');
SELECT msg_id FROM pgmq.next('t', 30, -1, '{33}', '{1}');
SELECT msg_id FROM pgmq.peek('t');
SELECT msg_id FROM pgmq.peek('t', NULL, '35', NULL);
SELECT msg_id FROM pgmq.peek('t', 1, '{}', '{35,34}');
SELECT msg_id FROM pgmq.peek('t', 0);
SELECT msg_id FROM pgmq.peek('t', -1);

-- the delay of nack, by the policy: 10 seconds, 30, 90, then 100; up to a tenth longer
SELECT pgmq.set_policy('t', retry_delay => '10 seconds', retry_backoff => 3, retry_delay_max => '100 seconds');
CREATE FUNCTION delays(OUT delays text) LANGUAGE plpgsql AS $$
DECLARE
    d double precision;
BEGIN
    FOR i IN 1 .. 6 LOOP
        UPDATE pgmq.q_t SET read_ct = CASE WHEN i < 6 THEN i ELSE 2147483647 END WHERE msg_id = 34 RETURNING read_ct INTO i;
        PERFORM pgmq.nack('t', 34, i);
        d := (SELECT extract(epoch FROM vt - clock_timestamp()) FROM pgmq.q_t WHERE msg_id = 34);
        delays := concat_ws(' ', delays, (SELECT coalesce(max(b), '?') FROM unnest('{0,5,10,20,30,90,100,3600}'::int[]) AS s,
            LATERAL (SELECT s::text AS b WHERE d BETWEEN s - 3 AND s * 1.1) AS c));
    END LOOP;
END $$;
SELECT delays();
SELECT pgmq.nack('t', 34, 2147483647, delay => 5);
SELECT extract(epoch FROM vt - clock_timestamp()) BETWEEN 2 AND 5 FROM pgmq.q_t WHERE msg_id = 34;
-- without a backoff; without a delay; with more than the longest delay; with a huge backoff
SELECT pgmq.reset_policy('t', '{retry_backoff}');
SELECT delays();
SELECT pgmq.reset_policy('t', '{retry_delay}');
SELECT delays();
SELECT pgmq.set_policy('t', retry_delay => '1 hour', retry_backoff => 1000, retry_delay_max => '20 seconds');
SELECT delays();
SELECT pgmq.set_policy('t', retry_delay => '0', retry_delay_max => '1 hour');
SELECT delays();
SELECT pgmq.set_policy('t', retry_delay => '5 seconds');
SELECT delays();
SELECT pgmq.drop_queue('t');

-- on a queue that counts failures: a release is none, and the last word about a delivery counts
SELECT pgmq.create('t');
ALTER TABLE pgmq.q_t ADD pgmq_releases integer, ADD pgmq_settled integer;
SELECT pgmq.send('t', '1');
SELECT read_ct FROM pgmq.read('t', 30, 1);
CREATE VIEW counts AS SELECT read_ct, pgmq_releases, pgmq_settled FROM pgmq.q_t;
SELECT pgmq.release('t', 1, 1), pgmq.release('t', 1, 1);
SELECT * FROM counts;
SELECT pgmq.nack('t', 1, 1), pgmq.nack('t', 1, 1);
SELECT * FROM counts;
SELECT * FROM pgmq.release_batch('t', '{1,1}', '{1,1}');
SELECT * FROM counts;
SELECT read_ct FROM pgmq.read('t', 30, 1);
SELECT * FROM pgmq.release_batch('t', '{1,1}', '{1,2}');
SELECT * FROM counts;
SELECT * FROM pgmq.nack_batch('t', '{1,1}', '{1,2}');
SELECT * FROM counts;
SELECT pgmq.release('t', 1, 2), pgmq.touch('t', 1, 2, 30), pgmq.nack('t', 1, 1);
SELECT * FROM counts;
DROP VIEW counts;
-- columns of other types are not ours
ALTER TABLE pgmq.q_t ALTER pgmq_settled TYPE bigint;
SELECT pgmq.nack('t', 1, 2), pgmq.release('t', 1, 2);
SELECT pgmq_releases, pgmq_settled FROM pgmq.q_t;
ALTER TABLE pgmq.q_t DROP pgmq_settled;
SELECT pgmq.nack('t', 1, 2), pgmq.release('t', 1, 2);
SELECT pgmq.drop_queue('t');

-- groups: what is given back comes first again
SELECT pgmq.create('t'), pgmq.create_fifo_index('t');
SELECT count(*) FROM pgmq.send_batch('t', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 6) AS i), array_fill('{"x-pgmq-group": "g"}'::jsonb, '{6}'));
SELECT msg_id, read_ct FROM pgmq.read_grouped('t', 30, 3);
SELECT msg_id FROM pgmq.read_grouped('t', 30, 3);
SELECT pgmq.nack('t', 2, 1, 'why');
SELECT msg_id, read_ct, headers FROM pgmq.read_grouped('t', 30, 3);
SELECT pgmq.ack('t', 1, 1), pgmq.release('t', 3, 1);
SELECT msg_id, read_ct, headers FROM pgmq.read_grouped('t', 30, 1);
SELECT * FROM pgmq.release_batch('t', '{2,3}', '{2,1}');
SELECT msg_id, read_ct, headers FROM pgmq.read_grouped('t', 30, 9);
SELECT pgmq.drop_queue('t');

-- partitioned queues, by msg_id and by time
CREATE SCHEMA IF NOT EXISTS partman;
CREATE EXTENSION pg_partman SCHEMA partman;
SELECT pgmq.create_partitioned('t', '5', '1000'), pgmq.create_partitioned('d', '1 day', '10 days');
CREATE FUNCTION partitioned(name text) RETURNS TABLE (step text, outcome text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmq.send_batch(name, ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 14) AS i));
    PERFORM pgmq.read(name, 30, 14);
    RETURN QUERY SELECT 'ack', concat_ws(' ', pgmq.ack(name, 2, 1), pgmq.ack(name, 7, 2), pgmq.ack(name, 7, 1), pgmq.ack(name, 99, 1));
    RETURN QUERY SELECT 'archive', concat_ws(' ', pgmq.ack_archive(name, 3, 1), pgmq.ack_archive(name, 8, 2));
    RETURN QUERY SELECT 'batch', string_agg(b::text, ' ') FROM pgmq.ack_batch(name, '{14,1,9,1,9}', '{1,1,1,2,2}') AS b;
    RETURN QUERY SELECT 'nack', string_agg(b::text, ' ') FROM pgmq.nack_batch(name, '{13,4,10}', '{1,1,2}', 'why') AS b;
    RETURN QUERY SELECT 'release', string_agg(b::text, ' ') FROM pgmq.release_batch(name, '{11,5}', '{1,1}', 100) AS b;
    RETURN QUERY SELECT 'touch', string_agg(b::text, ' ') FROM pgmq.touch_batch(name, '{13,6,4}', '{1,1,1}', 1000) AS b;
    RETURN QUERY SELECT 'next', string_agg(m.msg_id || ':' || m.read_ct, ' ') FROM pgmq.next(name, 30, 2, '{10,12}', '{1,1}') AS m;
    RETURN QUERY SELECT 'peek', string_agg(p.msg_id || ':' || p.read_ct || coalesce(p.headers->>'x-pgmq-error', ''), ' ') FROM pgmq.peek(name) AS p;
    RETURN QUERY SELECT 'peek', string_agg(p.msg_id::text, ' ') FROM pgmq.peek(name, 2, '{}', '{13,11,99,4}') AS p;
END $$;
SELECT * FROM partitioned('t');
SELECT * FROM partitioned('d');
SELECT pgmq.drop_queue('t'), pgmq.drop_queue('d');
DROP EXTENSION pg_partman;
DROP SCHEMA partman;
DROP FUNCTION partitioned, delays;

-- no queue, no message_record that is ours
SELECT pgmq.ack('nowhere', 1, 1);
SELECT pgmq.nack_batch('nowhere', '{}', '{}');
SELECT pgmq.next('nowhere', 1, 1, '{1}', '{1}');
SELECT pgmq.peek('nowhere');

-- what has failed too often goes to the dead-letter queue, in whatever way it failed last; so does what is rejected
SELECT pgmq.create('t'), pgmq.create('dead');
SELECT pgmq.set_policy('t', dead_letter_queue => 'dead', retry_delay => '100 seconds');
UPDATE pgmq.policy SET max_reads = 2;
ALTER TABLE pgmq.q_t ADD pgmq_releases integer, ADD pgmq_settled integer;
SELECT count(*) FROM pgmq.send_batch('t', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 5) AS i));
SELECT count(*) FROM pgmq.read('t', 0, 9);
SELECT pgmq.release('t', 3, 1), pgmq.nack('t', 4, 1, 'first', 0);
SELECT msg_id, read_ct FROM pgmq.read('t', 30, 9);
SELECT pgmq.nack('t', 1, 1), pgmq.nack('t', 1, 2, 'too often', 0), pgmq.nack('t', 1, 2);
SELECT pgmq.release('t', 2, 2), pgmq.nack('t', 3, 2);
SELECT * FROM pgmq.nack_batch('t', '{5,4,2,1,4}', '{1,2,2,2,2}', 'many');
SELECT pgmq.dead_letter('t', 5, 1), pgmq.dead_letter('t', 5, 2), pgmq.dead_letter('t', 5, 2), pgmq.dead_letter('t', 3, 0), pgmq.dead_letter('t', NULL, 1), pgmq.dead_letter('t', 3, NULL);
SELECT pgmq.dead_letter('t', 3, 2, 'no such customer');
SELECT msg_id, message, headers - 'x-dlq-at' AS headers FROM pgmq.peek('dead');
SELECT count(*) FROM pgmq.peek('t');
SELECT pgmq.dead_letter('nowhere', 1, 1);
-- without a policy: the archive; an error of the move is one of the call
SELECT pgmq.drop_queue('dead'), pgmq.reset_policy('t');
SELECT count(*) FROM pgmq.send_batch('t', '{6,7}'::jsonb[]), pgmq.read('t', 30, 2);
SELECT pgmq.dead_letter('t', 6, 1, NULL);
INSERT INTO pgmq.a_t (msg_id, read_ct, enqueued_at, vt) VALUES (7, 1, now(), now());
SELECT pgmq.dead_letter('t', 7, 1);
SELECT msg_id, headers - 'x-dlq-at' AS headers FROM pgmq.a_t ORDER BY 1;
SELECT msg_id, read_ct FROM pgmq.peek('t');
SELECT pgmq.drop_queue('t');

-- a move runs as the owner, but the caller needs what a DELETE needs, by privileges and by policies
CREATE ROLE regress_pgmq_worker;
GRANT USAGE ON SCHEMA pgmq TO regress_pgmq_worker;
SELECT pgmq.create('t');
SELECT count(*) FROM pgmq.send_batch('t', '{1,2,3}'::jsonb[]), pgmq.read('t', 30, 3);
GRANT DELETE ON pgmq.q_t TO regress_pgmq_worker;
SET ROLE regress_pgmq_worker;
SELECT pgmq.dead_letter('t', 1, 1);
RESET ROLE;
REVOKE DELETE ON pgmq.q_t FROM regress_pgmq_worker;
GRANT SELECT, UPDATE ON pgmq.q_t TO regress_pgmq_worker;
SET ROLE regress_pgmq_worker;
SELECT pgmq.dead_letter('t', 1, 1);
SELECT pgmq.dead_letter('t', NULL, 1);
RESET ROLE;
GRANT DELETE ON pgmq.q_t TO regress_pgmq_worker;
CREATE POLICY sees ON pgmq.q_t FOR SELECT TO regress_pgmq_worker USING (msg_id <= 2);
CREATE POLICY deletes ON pgmq.q_t FOR DELETE TO regress_pgmq_worker USING (msg_id >= 2);
ALTER TABLE pgmq.q_t ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
SELECT count(*) FROM pgmq.read('t', 30, 3);
SET ROLE regress_pgmq_worker;
SELECT pgmq.dead_letter('t', 1, 1), pgmq.dead_letter('t', 2, 1), pgmq.dead_letter('t', 3, 1);
RESET ROLE;
SELECT msg_id FROM pgmq.peek('t');
CREATE TRIGGER fails BEFORE DELETE ON pgmq.q_t FOR EACH ROW EXECUTE FUNCTION fails();
ALTER POLICY sees ON pgmq.q_t USING (true);
SET ROLE regress_pgmq_worker;
BEGIN;
SAVEPOINT s;
SELECT pgmq.dead_letter('t', 3, 1);
ROLLBACK TO s;
SELECT msg_id FROM pgmq.peek('t');
COMMIT;
RESET ROLE;
SELECT pgmq.drop_queue('t');
DROP OWNED BY regress_pgmq_worker;
DROP ROLE regress_pgmq_worker;
DROP FUNCTION fails;
-- a trigger that suppresses rows of the archive: the messages stay
SELECT pgmq.create('kept');
SELECT count(*) FROM pgmq.send_batch('kept', ARRAY['1', '2', '3']::jsonb[]);
SELECT msg_id, read_ct FROM pgmq.read('kept', 600, 3);
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.msg_id = 2 THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER suppress BEFORE INSERT ON pgmq.a_kept FOR EACH ROW EXECUTE FUNCTION suppress();
SELECT pgmq.ack_archive('kept', 2, 1);
SELECT * FROM pgmq.ack_archive_batch('kept', ARRAY[1, 2, 3], ARRAY[1, 1, 1]);
SELECT pgmq.ack_archive('kept', 2, 2), pgmq.ack_archive('kept', 1, 1);
SELECT msg_id FROM pgmq.q_kept ORDER BY 1;
SELECT msg_id FROM pgmq.a_kept;
DROP FUNCTION suppress CASCADE;
SELECT pgmq.drop_queue('kept');
