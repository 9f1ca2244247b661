-- max_length: a send that would make the queue longer is refused as a whole.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = error;
SELECT pgmq.create('Len'), pgmq.create('len_other'), pgmq.create_unlogged('len_unlogged');
RESET client_min_messages;
CREATE VIEW public.len AS SELECT count(*) FROM pgmq.q_len;
SELECT pgmq.set_policy('len', max_length => 5);
SELECT count(*) FROM pgmq.send_batch('len', '{1,2,3}'::jsonb[]);
SELECT pgmq.send('len', '4');
-- batches go whole or not at all, whatever form the send has
SELECT count(*) FROM pgmq.send_batch('len', '{5,6}'::jsonb[]);
SELECT * FROM public.len;
SELECT pgmq.send('len', '5', 3600);
\set VERBOSITY default
SELECT pgmq.send('len', '6');
SELECT count(*) FROM pgmq.send_batch('len', '{6,7}'::jsonb[], '{1,2}'::jsonb[], 3600);
\set VERBOSITY terse
SELECT pgmq.send('len', '6', now() + interval '1 hour');
SELECT pgmq.send('len', '6', '{"a": 1}'::jsonb);
SELECT pgmq._send_batch('len', '{6}'::jsonb[], NULL, now());
SELECT count(*) FROM pgmq.send_batch('len', array_fill('1'::jsonb, ARRAY[6]));
SELECT * FROM public.len;
-- what is finished makes room, whichever way; leased and delayed messages count
SELECT count(*) FROM pgmq.read('len', 3600, 2);
SELECT pgmq.send('len', '6');
SELECT pgmq.delete('len', 1), pgmq.send('len', '6');
SELECT pgmq.archive('len', 2), pgmq.send('len', '7');
SELECT count(*) FROM pgmq.delete('len', '{3,4,99}'::bigint[]);
SELECT count(*) FROM pgmq.send_batch('len', '{8,9}'::jsonb[]);
SELECT pgmq.send('len', '10');
SELECT count(*) FROM pgmq.pop('len', 2);
SELECT count(*) FROM pgmq.send_batch('len', '{10,11}'::jsonb[]);
SELECT pgmq.send('len', '12');
SELECT count(*) FROM pgmq.archive('len', ARRAY(SELECT msg_id FROM pgmq.q_len ORDER BY 1 LIMIT 2));
SELECT count(*) FROM pgmq.send_batch('len', '{12,13}'::jsonb[]);
SELECT msg_id, pgmq.ack('len', msg_id, read_ct) FROM pgmq.read('len', 3600, 1);
SELECT pgmq.send('len', '14');
SELECT pgmq.purge_queue('len');
SELECT count(*) FROM pgmq.send_batch('len', '{1,2,3,4,5}'::jsonb[]);
SELECT pgmq.send('len', '6');
-- transactions and savepoints
BEGIN;
SELECT count(*) FROM pgmq.pop('len', 2);
SAVEPOINT a;
SELECT count(*) FROM pgmq.send_batch('len', '{6,7}'::jsonb[]);
SAVEPOINT b;
SELECT pgmq.send('len', '8');
ROLLBACK TO b;
SELECT count(*) FROM pgmq.pop('len', 1);
RELEASE b;
SELECT pgmq.send('len', '8');
ROLLBACK TO a;
SELECT count(*) FROM pgmq.send_batch('len', '{6,7}'::jsonb[]);
ROLLBACK TO a;
ROLLBACK;
SELECT pgmq.send('len', '6');
SELECT count(*) FROM pgmq.pop('len', 2);
BEGIN;
SELECT count(*) FROM pgmq.send_batch('len', '{6,7}'::jsonb[]);
ROLLBACK;
SELECT count(*) FROM pgmq.send_batch('len', '{6,7}'::jsonb[]);
SELECT pgmq.send('len', '8');
SELECT * FROM public.len;
-- a send that fails, or whose row a trigger keeps away
SELECT count(*) FROM pgmq.pop('len', 1);
ALTER TABLE pgmq.q_len ADD CONSTRAINT not_8 CHECK (message <> '8');
SELECT pgmq.send('len', '8');
SELECT pgmq.send('len', '9');
ALTER TABLE pgmq.q_len DROP CONSTRAINT not_8;
-- topics: all queues or none
SELECT pgmq.bind_topic('len.#', 'len'), pgmq.bind_topic('len.#', 'len_other');
SELECT pgmq.send_topic('len.a', '1');
SELECT * FROM pgmq.send_batch_topic('len.a', '{1,2}'::jsonb[]);
SELECT count(*) FROM pgmq.q_len_other;
SELECT count(*) FROM pgmq.pop('len', 1);
SELECT pgmq.send_topic('len.a', '1');
SELECT count(*) FROM pgmq.q_len_other;
-- redrive
SELECT pgmq.redrive('len_other', 'len');
SELECT count(*) FROM pgmq.q_len_other;
-- a limit below what is there, a higher one, and none
SELECT pgmq.set_policy('len', max_length => 2);
SELECT pgmq.send('len', '1');
SELECT pgmq.set_policy('len', max_length => 6);
SELECT pgmq.send('len', '1');
SELECT pgmq.reset_policy('len');
SELECT count(*) FROM pgmq.send_batch('len', '{1,2,3}'::jsonb[]);
-- rows that are written and removed by SQL count soon
SELECT pgmq.set_policy('len', max_length => 100);
INSERT INTO pgmq.q_len (vt, message) SELECT now(), to_jsonb(i) FROM generate_series(1, 100) AS i;
DO $$
DECLARE
	since timestamptz = clock_timestamp();
BEGIN
	LOOP
		PERFORM pgmq.send('len', '1');
		EXIT WHEN clock_timestamp() > since + interval '30 s';
	END LOOP;
EXCEPTION WHEN program_limit_exceeded THEN
	RAISE NOTICE 'refused';
END $$;
DELETE FROM pgmq.q_len;
DO $$
DECLARE
	since timestamptz = clock_timestamp();
BEGIN
	LOOP
		BEGIN
			PERFORM pgmq.send('len', '1');
			RAISE NOTICE 'sent';
			EXIT;
		EXCEPTION WHEN program_limit_exceeded THEN
			EXIT WHEN clock_timestamp() > since + interval '30 s';
		END;
	END LOOP;
END $$;
-- more queues in a transaction than it can keep in mind
SET client_min_messages = error;
SELECT count(pgmq.create('len_' || i)) FROM generate_series(1, 40) AS i;
SELECT count(pgmq.set_policy('len_' || i, max_length => 1)) FROM generate_series(1, 40) AS i;
BEGIN;
SELECT count(*) FROM generate_series(1, 40) AS i, pgmq.send('len_' || i, '1');
ROLLBACK;
BEGIN;
SELECT count(*) FROM generate_series(1, 32) AS i, pgmq.send('len_' || i, '1');
COMMIT;
SELECT pgmq.send('len_1', '1');
SELECT pgmq.send('len_32', '1');
SELECT count(pgmq.drop_queue('len_' || i)) FROM generate_series(1, 40) AS i;
-- unlogged and partitioned queues; a queue that was dropped and made again begins anew
SELECT pgmq.set_policy('len_unlogged', max_length => 2);
SELECT count(*) FROM pgmq.send_batch('len_unlogged', '{1,2}'::jsonb[]);
SELECT pgmq.send('len_unlogged', '3');
SELECT pgmq.drop_queue('len_unlogged');
CREATE EXTENSION pg_partman;
SELECT pgmq.create_partitioned('len_unlogged', '1', NULL);
SELECT pgmq.set_policy('len_unlogged', max_length => 4);
SELECT count(*) FROM pgmq.send_batch('len_unlogged', '{1,2,3,4}'::jsonb[]);
SELECT pgmq.send('len_unlogged', '5');
SELECT pgmq.delete('len_unlogged', 1), pgmq.send('len_unlogged', '5');
SELECT pgmq.drop_queue('len_unlogged');
DROP EXTENSION pg_partman;
DROP VIEW public.len;
SELECT pgmq.drop_queue('len'), pgmq.drop_queue('len_other');
