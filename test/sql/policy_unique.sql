-- A key sends one message as long as it is taken: for a window, or until the message has left the queue.
SET client_min_messages = warning;
SELECT pgmq.create('once');
RESET client_min_messages;
SELECT * FROM pgmq.send_unique('once', '1', 'k');
SELECT * FROM pgmq.send_unique('once', '2', 'k');
SELECT * FROM pgmq.send_unique('once', '3', 'K');
SELECT * FROM pgmq.send_unique('once', '4', '');
SELECT * FROM pgmq.send_unique('once', '5', '');
-- while a consumer has it, and with a delay, too
SELECT msg_id, message FROM pgmq.read('once', 60, 1);
SELECT * FROM pgmq.send_unique('once', '6', 'k');
SELECT * FROM pgmq.send_unique('once', '7', 'later', delay => 60);
SELECT * FROM pgmq.send_unique('once', '8', 'later');
SELECT msg_id, message, headers, vt > now() + '50 s' AS delayed FROM pgmq.q_once ORDER BY msg_id;
-- deleted, archived, popped, purged
SELECT pgmq.delete('once', 1), pgmq.archive('once', 2);
SELECT msg_id FROM pgmq.pop('once');
SELECT key, s.* FROM unnest('{k,K,"",later}'::text[]) AS key, pgmq.send_unique('once', '9', key, headers => '{"h": 1}') AS s;
SELECT pgmq.purge_queue('once');
SELECT key, s.* FROM unnest('{k,later,k,later}'::text[]) AS key, pgmq.send_unique('once', '10', key) AS s;
SELECT msg_id, message, headers FROM pgmq.q_once ORDER BY msg_id;
-- a table of keys has one row for a key
SELECT dedup_key, msg_id, expires_at IS NULL AS without_window FROM pgmq.k_once ORDER BY 1;

-- A window: that of the first send, which a second one does not renew; it outlives the message
SELECT * FROM pgmq.send_unique('once', '11', 'w', '1 hour');
SELECT pgmq.delete('once', 10);
SELECT * FROM pgmq.send_unique('once', '12', 'w', '1 second');
SELECT * FROM pgmq.send_unique('once', '13', 'w');
SELECT expires_at BETWEEN now() + '59 minutes' AND now() + '1 hour' AS first FROM pgmq.k_once WHERE dedup_key = 'w';
SELECT * FROM pgmq.send_unique('once', '14', 'short', '1 millisecond');
SELECT pg_sleep(0.01) AS past;
SELECT * FROM pgmq.send_unique('once', '15', 'short', '1 hour');
SELECT * FROM pgmq.send_unique('once', '16', 'short', '1 millisecond');
-- by the policy, unless the call has one
SELECT pgmq.set_policy('once', dedup_window => '1 day');
SELECT * FROM pgmq.send_unique('once', '17', 'by policy');
SELECT * FROM pgmq.send_unique('once', '18', 'by call', '1 hour');
SELECT dedup_key, date_trunc('hour', expires_at - now() + '1 minute') AS left FROM pgmq.k_once WHERE dedup_key LIKE 'by%' ORDER BY 1;
SELECT pgmq.reset_policy('once', '{dedup_window}');
SELECT * FROM pgmq.send_unique('once', '19', 'by policy');
SELECT * FROM pgmq.send_unique('once', '20', 'without');
SELECT expires_at FROM pgmq.k_once WHERE dedup_key = 'without';

-- Many messages: rows in the order of the array, the first of a key is sent
SELECT * FROM pgmq.send_unique_batch('once', '{1,2,3,4,5,6}', '{z,y,z,k,y,a}');
SELECT * FROM pgmq.send_unique_batch('once', '{1,2}', '{y,a}');
SELECT * FROM pgmq.send_unique_batch('once', '{7,8,9}', '{c,z,b}', '1 hour', ARRAY['{"n": 7}', '{"n": 8}', NULL]::jsonb[], 60);
SELECT msg_id, message, headers, vt > now() + '50 s' AS delayed FROM pgmq.q_once WHERE msg_id >= 17 ORDER BY msg_id;
SELECT dedup_key, msg_id, expires_at > now() AS window FROM pgmq.k_once WHERE dedup_key ~ '^[abcyz]$' ORDER BY 1;
SELECT * FROM pgmq.send_unique_batch('once', '{{1,2},{3,4}}', '{{p,q},{p,r}}');

-- Arguments
SELECT pgmq.send_unique('once', '1', NULL);
SELECT pgmq.send_unique('once', '1', repeat('x', 256));
SELECT pgmq.send_unique('once', '1', repeat('ä', 128));
SELECT (pgmq.send_unique('once', '1', repeat('x', 255))).is_duplicate;
SELECT pgmq.send_unique('once', '1', 'x', '0');
SELECT pgmq.send_unique('once', '1', 'x', '-1 second');
SELECT pgmq.send_unique('once', '1', 'x', '1 day -1 second');
SELECT pgmq.send_unique('once', '1', 'x', '1001 years');
\set VERBOSITY terse
SELECT pgmq.send_unique('once', '1', 'x', delay => NULL);
\set VERBOSITY default
SELECT is_duplicate FROM pgmq.send_unique('once', NULL, 'no message');
SELECT pgmq.send_unique('nothing', '1', 'x');
SELECT pgmq.send_unique(NULL, '1', 'x');
SELECT pgmq.send_unique_batch('once', NULL, '{x}');
SELECT pgmq.send_unique_batch('once', '{}', '{}');
SELECT pgmq.send_unique_batch('once', '{1}', NULL);
SELECT pgmq.send_unique_batch('once', '{1,2}', '{x}');
SELECT pgmq.send_unique_batch('once', '{1,2}', '{x,NULL}');
SELECT pgmq.send_unique_batch('once', '{1,2}', '{x,y}', headers => '{1}');
SELECT pgmq.send_unique_batch('once', ARRAY['1', '2']::jsonb[], ARRAY['x', repeat('x', 256)]);
SELECT pgmq.send_unique_batch('once', '{1,2}', '{x,y}', '0');
-- none of them has left a key
SELECT count(*) FROM pgmq.k_once WHERE dedup_key LIKE 'x%';

-- A trigger that suppresses messages leaves their keys free
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RETURN CASE WHEN NEW.message = '0' THEN NULL ELSE NEW END; END$$;
CREATE TRIGGER suppress BEFORE INSERT ON pgmq.q_once FOR EACH ROW EXECUTE FUNCTION suppress();
SELECT * FROM pgmq.send_unique('once', '0', 'suppressed');
SELECT * FROM pgmq.send_unique_batch('once', '{0,0,0}', '{suppressed,also,also}');
SELECT pgmq.send_unique_batch('once', '{0,1}', '{suppressed,not}');
SELECT count(*) FROM pgmq.k_once WHERE dedup_key IN ('suppressed', 'also', 'not');
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'suppressed');
DROP TRIGGER suppress ON pgmq.q_once;
-- One that sends the same key meanwhile
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE NOTICE 'again: %', (SELECT s FROM pgmq.send_unique('once', '1', 'nested') AS s); RETURN NEW; END$$;
CREATE TRIGGER again AFTER INSERT ON pgmq.q_once FOR EACH ROW EXECUTE FUNCTION again();
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'nested');
DROP TRIGGER again ON pgmq.q_once;
DROP FUNCTION suppress(), again();

-- In one transaction: what is rolled back frees its key, the own delete as well
BEGIN;
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'own');
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'own');
SELECT count(*) > 0 AS popped FROM pgmq.pop('once', 1000);
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'own');
SAVEPOINT s;
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'undone');
ROLLBACK TO s;
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'undone');
ROLLBACK;
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'undone');
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'undone');
BEGIN READ ONLY;
SELECT pgmq.send_unique('once', '1', 'undone');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'serializable');
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'serializable');
COMMIT;

-- maintain() deletes the keys that are free
SELECT pgmq.purge_queue('once') > 0 AS purged;
SELECT is_duplicate FROM pgmq.send_unique_batch('once', '{1,2,3}', '{stays,window,over}', '1 hour');
UPDATE pgmq.k_once SET expires_at = now() WHERE dedup_key = 'over';
UPDATE pgmq.k_once SET expires_at = NULL WHERE dedup_key = 'stays';
SELECT pgmq.delete('once', msg_id) FROM pgmq.k_once WHERE dedup_key = 'window';
CALL pgmq.maintain();
SELECT dedup_key FROM pgmq.k_once WHERE dedup_key IN ('stays', 'window', 'over', 'undone', 'k', 'own') ORDER BY 1;
SELECT count(*) FROM pgmq.k_once WHERE expires_at IS NULL;

-- An unlogged queue has unlogged keys; the table belongs to the owner of the queue, and goes with it
SELECT pgmq.create_unlogged('Once Unlogged');
SELECT is_duplicate FROM pgmq.send_unique('once unlogged', '1', 'k');
SELECT relname, relpersistence, pg_get_userbyid(relowner) = current_user AS mine, obj_description(oid, 'pg_class')
FROM pg_class WHERE relname LIKE 'k\_once%' ORDER BY 1;
-- the longest name
SELECT pgmq.create(repeat('n', 47));
SELECT is_duplicate FROM pgmq.send_unique(repeat('N', 47), '1', 'k');
SELECT pgmq.drop_queue('once unlogged'), pgmq.drop_queue(repeat('n', 47));
SELECT relname FROM pg_class WHERE relname ~ '^(k|dedup_key_idx)_' ORDER BY 1;
-- What is left of a queue that was dropped by hand says nothing about a new one
UPDATE pgmq.k_once SET msg_id = 1 WHERE dedup_key = 'stays';
DROP TABLE pgmq.q_once, pgmq.a_once;
SELECT pgmq.create('once');
SELECT pgmq.send('once', '1');
SELECT * FROM pgmq.send_unique('once', '2', 'stays');
-- A table by that name that is not one of keys
DROP TABLE pgmq.k_once;
CREATE TABLE pgmq.k_once (dedup_key text PRIMARY KEY, msg_id int, expires_at timestamptz);
SELECT pgmq.send_unique('once', '3', 'k');
DROP TABLE pgmq.k_once;
CREATE VIEW pgmq.k_once AS SELECT 'k'::text AS dedup_key, 1::bigint AS msg_id, now() AS expires_at;
SELECT pgmq.send_unique('once', '3', 'k');
CALL pgmq.maintain();
SELECT pgmq.drop_queue('once');
SELECT count(*) FROM pgmq.k_once;
DROP VIEW pgmq.k_once;
-- prepare_downgrade() drops it
SELECT pgmq.create('once'), pgmq.set_policy('once', dedup_window => '1 day');
SELECT is_duplicate FROM pgmq.send_unique('once', '1', 'k');
BEGIN;
SELECT * FROM pgmq.prepare_downgrade() AS dropped WHERE dropped LIKE '%k_once%';
ROLLBACK;
SELECT pgmq.drop_queue('once');
