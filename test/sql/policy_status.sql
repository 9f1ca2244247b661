-- queue_status: each message counts once; what the caller may not read is NULL; no code of an owner runs.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = error;
SELECT pgmq.create('St'), pgmq.create('st_dead'), pgmq.create_unlogged('st_unlogged');
RESET client_min_messages;
SELECT * FROM pgmq.queue_status('st') \gdesc
-- empty queues
SELECT * FROM pgmq.queue_status();
SELECT * FROM pgmq.queue_status(NULL) WHERE queue = 'St';
SELECT * FROM pgmq.queue_status('st');
SELECT * FROM pgmq.queue_status('st_none');
-- ready, delayed, in flight
SELECT count(*) FROM pgmq.send_batch('st', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 10) AS i));
SELECT count(*) FROM pgmq.send_batch('st', '{1,2}'::jsonb[], 3600);
SELECT count(*) FROM pgmq.read('st', 3600, 3);
SELECT count(*) FROM pgmq.read('st', 0, 1);
SELECT count(*) FROM pgmq.archive('st', '{1,2}'::bigint[]);
SELECT ready, delayed, in_flight, paused, dead, stuck, archived FROM pgmq.queue_status('st');
-- a message sent by the own transaction is ready
BEGIN;
SELECT pgmq.send('st', '1');
SELECT ready, oldest_ready_age >= '0' AS age FROM pgmq.queue_status('st');
ROLLBACK;
-- how long the oldest one has been ready: by the time when it became visible
UPDATE pgmq.q_st SET enqueued_at = now() - interval '3 days', vt = now() - interval '2 days' WHERE msg_id = 5;
UPDATE pgmq.q_st SET enqueued_at = now() - interval '9 days' WHERE msg_id = 11;
SELECT date_trunc('minute', oldest_ready_age) FROM pgmq.queue_status('st');
UPDATE pgmq.q_st SET vt = '-infinity' WHERE msg_id = 5;
SELECT ready, oldest_ready_age < '1 minute' AS age FROM pgmq.queue_status('st');
-- a clock that was set back
BEGIN;
DELETE FROM pgmq.q_st WHERE vt <= now();
INSERT INTO pgmq.q_st (enqueued_at, vt, message) VALUES (now() + interval '1 day', now() + interval '1 day', '1');
SELECT ready, oldest_ready_age FROM pgmq.queue_status('st');
ROLLBACK;
-- a move that failed; headers that are no object, or not there
UPDATE pgmq.q_st SET vt = now() + interval '1 hour', headers = '{"x-pgmq-stuck": "disk full"}' WHERE msg_id IN (6, 7);
UPDATE pgmq.q_st SET vt = now() + interval '1 hour', headers = '["x-pgmq-stuck"]' WHERE msg_id = 8;
SELECT ready, delayed, in_flight, stuck FROM pgmq.queue_status('st');
-- with the columns of a policy, a message that was given back is not in flight
ALTER TABLE pgmq.q_st ADD COLUMN pgmq_releases int, ADD COLUMN pgmq_settled int;
SELECT ready, delayed, in_flight, stuck FROM pgmq.queue_status('st');
UPDATE pgmq.q_st SET pgmq_settled = -read_ct WHERE msg_id = 3;
SELECT ready, delayed, in_flight, stuck FROM pgmq.queue_status('st');
-- paused
SELECT pgmq.pause_queue('st');
SELECT queue, ready, paused FROM pgmq.queue_status();
SELECT pgmq.pause_queue('st', now() - interval '1 s');
SELECT paused FROM pgmq.queue_status('st');
SELECT pgmq.resume_queue('st');
-- dead letters of this queue, whatever else is there
INSERT INTO pgmq.policy (queue_name, dead_letter_queue) VALUES ('St', 'ST_Dead');
SELECT count(*) FROM pgmq.send_batch('st_dead', '{1,2,3,4,5,6}'::jsonb[], ARRAY[
	'{"x-dlq-origin-queue": "St"}', '{"x-dlq-origin-queue": "st"}', '{"x-dlq-origin-queue": "other"}',
	'{"x-dlq-origin-queue": 1}', '["x-dlq-origin-queue"]', NULL]::jsonb[]);
SELECT queue, dead FROM pgmq.queue_status();
UPDATE pgmq.policy SET dead_letter_queue = 'st_none' WHERE queue_name = 'St';
SELECT queue, dead FROM pgmq.queue_status('st');
UPDATE pgmq.policy SET dead_letter_queue = 'st_dead' WHERE queue_name = 'St';
-- few rights
CREATE ROLE regress_st_some;
GRANT USAGE ON SCHEMA pgmq TO regress_st_some;
SET ROLE regress_st_some;
SELECT * FROM pgmq.queue_status();
SELECT * FROM pgmq.queue_status('st');
RESET ROLE;
GRANT SELECT ON pgmq.meta TO regress_st_some;
SET ROLE regress_st_some;
SELECT * FROM pgmq.queue_status();
RESET ROLE;
GRANT SELECT (vt, enqueued_at, read_ct, headers) ON pgmq.q_st TO regress_st_some;
SET ROLE regress_st_some;
SELECT ready, delayed FROM pgmq.queue_status() WHERE queue = 'St';
SELECT ready FROM pgmq.queue_status('st');
RESET ROLE;
ALTER TABLE pgmq.q_st DROP COLUMN pgmq_releases, DROP COLUMN pgmq_settled;
SET ROLE regress_st_some;
SELECT ready, delayed, in_flight, paused, dead, stuck, archived FROM pgmq.queue_status('st');
RESET ROLE;
GRANT SELECT (headers) ON pgmq.q_st_dead TO regress_st_some;
GRANT SELECT (msg_id) ON pgmq.a_st TO regress_st_some;
SET ROLE regress_st_some;
SELECT ready, delayed, in_flight, paused, dead, stuck, archived FROM pgmq.queue_status() WHERE queue = 'St';
RESET ROLE;
-- policies of the server: for one queue they apply; for all of them they do not run
CREATE FUNCTION public.st_loud() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'run by %', current_user; RETURN true; END$$;
ALTER TABLE pgmq.q_st ENABLE ROW LEVEL SECURITY;
CREATE POLICY st_few ON pgmq.q_st USING (msg_id <> 4);
CREATE POLICY loud ON pgmq.q_st AS RESTRICTIVE USING (msg_id > 0 OR public.st_loud());
ALTER TABLE pgmq.q_st_dead ENABLE ROW LEVEL SECURITY;
CREATE POLICY st_few ON pgmq.q_st_dead USING (msg_id = 1);
SELECT ready, delayed, in_flight, dead, stuck FROM pgmq.queue_status('st');
GRANT SELECT ON pgmq.q_st TO regress_st_some;
ALTER POLICY st_few ON pgmq.q_st USING (msg_id < 6);
SET ROLE regress_st_some;
SELECT ready, delayed, in_flight, paused, dead, stuck, oldest_ready_age < '1 minute' AS age FROM pgmq.queue_status('st');
RESET ROLE;
ALTER POLICY loud ON pgmq.q_st USING (public.st_loud());
SET ROLE regress_st_some;
SELECT ready, delayed, in_flight, paused, dead, stuck FROM pgmq.queue_status() WHERE queue = 'St';
RESET ROLE;
ALTER TABLE pgmq.q_st DISABLE ROW LEVEL SECURITY;
-- something else in place of the table
ALTER TABLE pgmq.q_st_unlogged RENAME TO st_moved;
SELECT queue, ready FROM pgmq.queue_status();
CREATE VIEW pgmq.q_st_unlogged AS SELECT * FROM pgmq.st_moved;
SELECT queue, ready FROM pgmq.queue_status();
SELECT queue, ready FROM pgmq.queue_status('st_unlogged');
DROP VIEW pgmq.q_st_unlogged;
ALTER TABLE pgmq.st_moved RENAME TO q_st_unlogged;
ALTER TABLE pgmq.q_st_unlogged ALTER read_ct TYPE bigint;
SELECT queue, ready FROM pgmq.queue_status();
-- an archive of some size is estimated
INSERT INTO pgmq.a_st (msg_id, enqueued_at, vt, message) SELECT i, now(), now(), to_jsonb(repeat('x', 100)) FROM generate_series(101, 60100) AS i;
SELECT archived BETWEEN 59000 AND 61000 AS about FROM pgmq.queue_status('st');
DELETE FROM pgmq.a_st WHERE msg_id > 100 AND msg_id % 2 = 0;
SELECT archived BETWEEN 28500 AND 31500 AS about FROM pgmq.queue_status('st');
DELETE FROM pgmq.a_st WHERE msg_id < 50000;
SELECT archived BETWEEN 4500 AND 5600 AS about FROM pgmq.queue_status('st');
DROP OWNED BY regress_st_some;
DROP ROLE regress_st_some;
DROP POLICY loud ON pgmq.q_st;
DROP FUNCTION public.st_loud;
SET client_min_messages = error;
SELECT pgmq.drop_queue(q) FROM unnest('{st,st_dead,st_unlogged}'::text[]) AS q;
