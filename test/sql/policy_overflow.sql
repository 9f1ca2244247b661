-- overflow => drop_oldest: a send makes room; leased, delayed and locked messages stay.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = error;
SELECT pgmq.create('Over'), pgmq.create('over_dead');
RESET client_min_messages;
CREATE VIEW public.over AS SELECT msg_id, message FROM pgmq.q_over;
CREATE VIEW public.over_dead AS SELECT message, headers - 'x-dlq-at' AS headers FROM pgmq.q_over_dead;
SELECT pgmq.set_policy('over', max_length => 4, overflow => 'drop_oldest');
SELECT count(*) FROM pgmq.send_batch('over', '{1,2,3}'::jsonb[]);
SELECT pgmq.send('over', '4'), pgmq.send('over', '5'), pgmq.send('over', '6', 3600);
SELECT * FROM public.over ORDER BY msg_id;
SELECT count(*) FROM pgmq.send_batch('over', '{7,8}'::jsonb[]);
SELECT * FROM public.over ORDER BY msg_id;
-- the delayed one and leased ones stay; what was read before and is due goes first, as a read would take it
SELECT msg_id FROM pgmq.read('over', 3600, 1);
SELECT msg_id FROM pgmq.read('over', 0, 1);
SELECT pgmq.send('over', '9');
SELECT * FROM public.over ORDER BY msg_id;
SELECT count(*) FROM pgmq.send_batch('over', '{10,11,12}'::jsonb[]);
SELECT count(*) FROM pgmq.send_batch('over', '{10,11,12,13,14}'::jsonb[]);
SELECT count(*) FROM pgmq.send_batch('over', '{10,11}'::jsonb[]);
SELECT * FROM public.over ORDER BY msg_id;
SELECT count(*) FROM pgmq.read('over', 3600, 2);
SELECT pgmq.send('over', '12');
-- in a transaction, and back
SELECT count(*) FROM pgmq.set_vt('over', ARRAY(SELECT msg_id FROM pgmq.q_over), 0);
BEGIN;
SELECT pgmq.send('over', '12');
SAVEPOINT s;
SELECT count(*) FROM pgmq.send_batch('over', '{13,14,15}'::jsonb[]);
SELECT * FROM public.over ORDER BY msg_id;
ROLLBACK TO s;
SELECT * FROM public.over ORDER BY msg_id;
ROLLBACK;
SELECT * FROM public.over ORDER BY msg_id;
-- to the dead-letter queue, whatever its own limit
UPDATE pgmq.policy SET dead_letter_queue = 'over_dead' WHERE queue_name = 'Over';
SELECT pgmq.set_policy('over_dead', max_length => 1);
SELECT count(*) FROM pgmq.send_batch('over', '{20,21}'::jsonb[], '{"{\"a\": 1}", "{\"x-pgmq-ttl\": 5}"}'::jsonb[]);
SELECT count(*) FROM pgmq.send_batch('over', '{22,23,24,25}'::jsonb[]);
SELECT message, headers - 'x-dlq-origin-msg-id' AS headers FROM public.over_dead ORDER BY message::int;
SELECT * FROM public.over ORDER BY msg_id;
SELECT pgmq.send('over_dead', '1');
SELECT pgmq.reset_policy('over_dead');
-- they go back like others
SELECT pgmq.redrive('over_dead', max_messages => 1);
SELECT * FROM public.over ORDER BY msg_id;
-- without the queue that the policy names, to the archive
UPDATE pgmq.policy SET dead_letter_queue = 'over_none' WHERE queue_name = 'Over';
SELECT pgmq.send('over', '30');
SELECT message, headers ->> 'x-dlq-reason' AS reason FROM pgmq.a_over;
UPDATE pgmq.policy SET dead_letter_queue = NULL WHERE queue_name = 'Over';
-- far too long: each send removes a hundred more
SELECT pgmq.set_policy('over', max_length => 1000);
SELECT count(*) FROM pgmq.send_batch('over', array_fill('1'::jsonb, ARRAY[900]));
SELECT pgmq.set_policy('over', max_length => 600);
SELECT pgmq.send('over', '1');
SELECT count(*) FROM public.over;
SELECT count(*) FROM pgmq.send_batch('over', '{1,2,3}'::jsonb[]);
SELECT count(*) FROM public.over;
SELECT pgmq.send('over', '1'), pgmq.send('over', '1'), pgmq.send('over', '1');
SELECT count(*) FROM public.over;
-- a sender that may only send; the owner's triggers run as the owner
CREATE ROLE regress_over;
GRANT USAGE ON SCHEMA pgmq TO regress_over;
GRANT INSERT, SELECT ON pgmq.q_over TO regress_over;
CREATE TABLE public.over_seen (who name);
CREATE FUNCTION public.over_see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.over_seen VALUES (current_user); RETURN old; END$$;
CREATE TRIGGER see BEFORE DELETE ON pgmq.q_over FOR EACH ROW EXECUTE FUNCTION public.over_see();
SET ROLE regress_over;
SELECT pgmq.send('over', '1') > 0 AS sent;
RESET ROLE;
SELECT count(*), min(who) = current_user AS owner FROM public.over_seen;
-- a removal that fails: the send is refused
CREATE OR REPLACE FUNCTION public.over_see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'keep it'; END$$;
SELECT pgmq.send('over', '1');
SELECT count(*) FROM public.over;
DROP TRIGGER see ON pgmq.q_over;
-- topics
SELECT pgmq.bind_topic('over.#', 'over'), pgmq.bind_topic('over.#', 'over_dead');
SELECT pgmq.send_topic('over.a', '1');
SELECT count(*) FROM public.over;
DROP OWNED BY regress_over;
DROP ROLE regress_over;
DROP TABLE public.over_seen;
DROP FUNCTION public.over_see;
DROP VIEW public.over, public.over_dead;
SET client_min_messages = error;
SELECT pgmq.drop_queue('over'), pgmq.drop_queue('over_dead');
-- partitioned queues, and one without an index on vt
CREATE EXTENSION pg_partman;
SELECT pgmq.create_partitioned('over', '3', NULL), pgmq.create_partitioned('over_2', '1 day', NULL), pgmq.create('over_3');
DROP INDEX pgmq.q_over_3_vt_idx;
SELECT pgmq.set_policy(q, max_length => 5, overflow => 'drop_oldest'), count(s)
  FROM unnest('{over,over_2,over_3}'::text[]) AS q, pgmq.send_batch(q, '{1,2,3,4,5}'::jsonb[]) AS s GROUP BY q ORDER BY q;
SELECT count(*) FROM pgmq.read('over', 600, 1), pgmq.read('over_2', 600, 1) AS a, pgmq.read('over_3', 600, 1) AS b;
SELECT q, count(s) FROM unnest('{over,over_2,over_3}'::text[]) AS q, pgmq.send_batch(q, '{6,7}'::jsonb[]) AS s GROUP BY q ORDER BY q;
SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.q_over;
SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.q_over_2;
SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.q_over_3;
SELECT pgmq.drop_queue(q) FROM unnest('{over,over_2,over_3}'::text[]) AS q;
DROP EXTENSION pg_partman;
