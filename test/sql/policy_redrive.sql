-- redrive: messages go back from a dead-letter queue, as they were, and nowhere else.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = error;
SELECT pgmq.create('Back'), pgmq.create('back_2'), pgmq.create('back_dead'), pgmq.create_unlogged('back_other');
INSERT INTO pgmq.policy (queue_name, dead_letter_queue) VALUES ('Back', 'back_DEAD'), ('back_2', 'back_dead');
RESET client_min_messages;
CREATE VIEW public.back_left AS SELECT msg_id, message, headers FROM pgmq.q_back_dead;
CREATE VIEW public.back_sent AS SELECT 'back' AS queue, msg_id, read_ct, message, headers FROM pgmq.q_back
UNION ALL SELECT 'back_2', msg_id, read_ct, message, headers FROM pgmq.q_back_2
UNION ALL SELECT 'back_other', msg_id, read_ct, message, headers FROM pgmq.q_back_other;
-- headers as a move writes them, and whatever else there may be
SELECT count(*) FROM pgmq.send_batch('back_dead', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 12) AS i), ARRAY[
	'{"x-dlq-reason": "max_reads", "x-dlq-origin-queue": "Back", "x-dlq-origin-msg-id": 7, "x-dlq-read-ct": 3, "x-dlq-error": "e", "x-dlq-at": "2026", "traceparent": "00-1", "a": {"x-dlq-b": 1}}',
	'{"x-dlq-reason": "expired", "x-dlq-origin-queue": "BACK", "x-dlq-ttl": 30, "x-pgmq-group": "g", "x-pgmq-error": "later"}',
	'{"x-dlq-reason": "expired", "x-dlq-origin-queue": "back", "x-dlq-ttl": "no"}',
	'{"x-dlq-reason": "rejected", "x-dlq-origin-queue": "back_2", "x-dlq-headers": [1, "two"]}',
	'{"x-dlq-reason": "rejected", "x-dlq-origin-queue": "back", "x-dlq-headers": [1], "b": null}',
	'{"x-dlq-reason": "rejected", "x-dlq-origin-queue": "back"}',
	'{"x-dlq-reason": "forged", "x-dlq-origin-queue": "back_other"}',
	'{"x-dlq-reason": "forged", "x-dlq-origin-queue": "back_dead"}',
	'{"x-dlq-reason": "forged", "x-dlq-origin-queue": "no queue; at all"}',
	'{"x-dlq-origin-queue": ["back"]}',
	'["x-dlq-origin-queue"]',
	NULL]::jsonb[]);
-- nothing wanted
SELECT pgmq.redrive('back_dead', max_messages => 0);
SELECT pgmq.redrive('back_dead', msg_ids => '{}');
SELECT pgmq.redrive('back_dead', msg_ids => '{7,8,99}');
SELECT pgmq.redrive('back');
-- oldest first, to where they came from; what came from nowhere stays
SELECT pgmq.redrive('BACK_dead', max_messages => 2);
SELECT * FROM public.back_sent ORDER BY queue, msg_id;
SELECT pgmq.redrive('back_dead', msg_ids => '{4,NULL,4,7}');
SELECT pgmq.redrive('back_dead');
SELECT * FROM public.back_sent ORDER BY queue, msg_id;
SELECT * FROM public.back_left ORDER BY msg_id;
SELECT pgmq.redrive('back_dead');
-- with a destination everything goes there
SELECT pgmq.redrive('back_dead', 'Back_Other', msg_ids => '{10}');
SELECT pgmq.redrive('back_dead', 'back_other', NULL);
SELECT * FROM public.back_sent WHERE queue = 'back_other' ORDER BY queue, msg_id;
SELECT count(*) FROM public.back_left;
-- the messages are new ones: visible, and nothing has failed yet
SELECT msg_id, read_ct, message FROM pgmq.read('back', 0, 2);
-- leased, delayed and locked messages stay; those that were read once and are visible again go
SELECT count(*) FROM pgmq.send_batch('back_dead', ARRAY(SELECT to_jsonb(i) FROM generate_series(13, 17) AS i), array_fill('{"x-dlq-origin-queue": "back_2"}'::jsonb, ARRAY[5]));
SELECT msg_id FROM pgmq.read('back_dead', 3600, 1);
SELECT count(*) FROM pgmq.set_vt('back_dead', 14, 3600);
SELECT msg_id FROM pgmq.read('back_dead', 0, 1);
SELECT pgmq.redrive('back_dead', msg_ids => '{13,14}'), pgmq.redrive('back_dead');
SELECT * FROM public.back_left ORDER BY msg_id;
SELECT queue, read_ct, message, headers FROM public.back_sent WHERE queue = 'back_2' ORDER BY queue, msg_id;
-- a policy that names another dead-letter queue today
SELECT count(*) FROM pgmq.set_vt('back_dead', '{13,14}'::bigint[], 0);
UPDATE pgmq.policy SET dead_letter_queue = 'back_other' WHERE queue_name = 'back_2';
SELECT pgmq.redrive('back_dead');
-- an origin that was dropped, and its policy with it
UPDATE pgmq.policy SET dead_letter_queue = 'back_dead' WHERE queue_name = 'back_2';
SELECT pgmq.send('back_dead', '18', '{"x-dlq-origin-queue": "back"}'::jsonb);
SET client_min_messages = error;
DROP VIEW public.back_sent;
SELECT pgmq.drop_queue('back_2');
RESET client_min_messages;
SELECT pgmq.redrive('back_dead');
SELECT * FROM public.back_left ORDER BY msg_id;
-- a paused dead-letter queue can be redriven
SELECT pgmq.pause_queue('back_dead');
SELECT pgmq.redrive('back_dead', 'back');
SELECT pgmq.resume_queue('back_dead');
-- errors
SELECT pgmq.redrive('back_none');
SELECT pgmq.redrive('back_dead', 'back_none');
SELECT pgmq.redrive('back_dead', 'BACK_DEAD');
SELECT pgmq.redrive('back_dead', max_messages => -1);
SELECT pgmq.redrive(NULL);
-- a message that cannot be sent stays where it is, with the others
SELECT count(*) FROM pgmq.send_batch('back_dead', '{71,72}'::jsonb[], array_fill('{"x-dlq-origin-queue": "back"}'::jsonb, ARRAY[2]));
ALTER TABLE pgmq.q_back ADD CONSTRAINT not_two CHECK (message <> '72');
SELECT pgmq.redrive('back_dead');
SELECT count(*) FROM public.back_left;
ALTER TABLE pgmq.q_back DROP CONSTRAINT not_two;
-- in a group, with its order; from there, with its order
SET client_min_messages = error;
SELECT pgmq.create_fifo_index('back'), pgmq.create_fifo_index('back_dead');
SELECT pgmq.purge_queue('back'), pgmq.purge_queue('back_dead');
RESET client_min_messages;
SELECT count(*) FROM pgmq.send_batch('back_dead', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 6) AS i),
	ARRAY(SELECT jsonb_build_object('x-dlq-origin-queue', 'back', 'x-pgmq-group', i % 2) FROM generate_series(1, 6) AS i));
SELECT message FROM pgmq.read_grouped_head('back_dead', 3600, 1);
SELECT pgmq.redrive('back_dead', max_messages => 3);
SELECT message, headers FROM pgmq.read_grouped('back', 3600, 3);
SELECT message FROM pgmq.read_grouped_rr('back_dead', 3600, 3);
-- as the caller
CREATE ROLE regress_back;
GRANT USAGE ON SCHEMA pgmq TO regress_back;
SELECT count(*) FROM pgmq.set_vt('back_dead', ARRAY(SELECT msg_id FROM pgmq.q_back_dead), 0);
SET ROLE regress_back;
SELECT pgmq.redrive('back_dead');
RESET ROLE;
GRANT SELECT, DELETE ON pgmq.q_back_dead TO regress_back;
SET ROLE regress_back;
SELECT pgmq.redrive('back_dead');
RESET ROLE;
GRANT UPDATE ON pgmq.q_back_dead TO regress_back;
SET ROLE regress_back;
SELECT pgmq.redrive('back_dead', 'back');
SELECT pgmq.redrive('back_dead');
RESET ROLE;
GRANT INSERT, SELECT ON pgmq.q_back TO regress_back;
ALTER TABLE pgmq.q_back_dead ENABLE ROW LEVEL SECURITY;
CREATE POLICY back_few ON pgmq.q_back_dead TO regress_back USING (message <> '5');
SET ROLE regress_back;
SELECT pgmq.redrive('back_dead');
RESET ROLE;
SELECT * FROM public.back_left ORDER BY msg_id;
DROP OWNED BY regress_back;
DROP ROLE regress_back;
DROP VIEW public.back_left;
SET client_min_messages = error;
SELECT pgmq.drop_queue(q) FROM unnest('{back,back_dead,back_other}'::text[]) AS q;
-- many, of partitioned queues
CREATE EXTENSION pg_partman;
SELECT pgmq.create_partitioned('back', '700', NULL), pgmq.create_partitioned('back_dead', '1 day', NULL);
INSERT INTO pgmq.policy (queue_name, dead_letter_queue) VALUES ('back', 'back_dead');
SELECT count(*) FROM pgmq.send_batch('back_dead', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 2500) AS i),
	array_fill('{"x-dlq-origin-queue": "back"}'::jsonb, ARRAY[2500]));
SELECT pgmq.redrive('back_dead'), pgmq.redrive('back_dead', max_messages => 5000);
SELECT count(*), sum((msg_id = message::bigint)::int) FROM pgmq.q_back;
SELECT pgmq.drop_queue('back'), pgmq.drop_queue('back_dead');
DROP EXTENSION pg_partman;
-- A policy that names a queue of the future: the origin is another owner's, so a forged header opens nothing
CREATE ROLE regress_trap;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_trap;
GRANT SELECT, INSERT ON pgmq.meta TO regress_trap;
SET ROLE regress_trap;
SELECT pgmq.create('trap'), pgmq.create('back_dead');
SELECT pgmq.set_policy('trap', dead_letter_queue => 'back_dead');
SELECT pgmq.drop_queue('back_dead');
GRANT ALL ON pgmq.q_trap TO PUBLIC;
RESET ROLE;
SELECT pgmq.create('back_dead');
SELECT pgmq.send('back_dead', '1', '{"x-dlq-origin-queue": "trap"}'::jsonb);
SELECT pgmq.redrive('back_dead'), (SELECT count(*) FROM pgmq.q_trap);
SELECT pgmq.redrive('back_dead', 'trap');
SELECT pgmq.drop_queue('trap'), pgmq.drop_queue('back_dead');
DROP OWNED BY regress_trap;
DROP ROLE regress_trap;
-- many large bodies in one call: together they would be larger than an array can be
SELECT pgmq.create('back'), pgmq.create('back_dead');
SELECT pgmq.set_policy('back', dead_letter_queue => 'back_dead');
SELECT count(*) FROM pgmq.send_batch('back_dead', ARRAY(SELECT to_jsonb(repeat('a', 11000000)) FROM generate_series(1, 50)),
	array_fill('{"x-dlq-origin-queue": "back"}'::jsonb, ARRAY[50]));
SELECT count(*) FROM pgmq.send_batch('back_dead', ARRAY(SELECT to_jsonb(repeat('a', 11000000)) FROM generate_series(1, 50)),
	array_fill('{"x-dlq-origin-queue": "back"}'::jsonb, ARRAY[50]));
SELECT pgmq.redrive('back_dead');
SELECT count(*), min(length(message::text)) FROM pgmq.q_back;
SELECT pgmq.drop_queue('back'), pgmq.drop_queue('back_dead');
-- a table of that name that send_unique() did not make
SELECT pgmq.create('back');
CREATE TABLE pgmq.k_back (x integer);
SELECT pgmq.set_policy('back', dedup_window => '1 hour');
DROP TABLE pgmq.k_back;
SELECT pgmq.drop_queue('back');
