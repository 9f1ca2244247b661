-- metrics and metrics_all: one clock decides what is visible and how old it is.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT * FROM pgmq.metrics('m') \gdesc
SELECT * FROM pgmq.metrics_all() \gdesc
SELECT * FROM pgmq.metrics_all();
SELECT pgmq.create('M');
-- an empty queue has no ages; the name is echoed as it was passed
SELECT queue_name, queue_length, newest_msg_age_sec, oldest_msg_age_sec, total_messages, queue_visible_length, default_partition_length,
       scrape_time BETWEEN now() AND clock_timestamp() AS scraped_now
  FROM pgmq.metrics('m');
SELECT queue_name, queue_length, newest_msg_age_sec, oldest_msg_age_sec, total_messages, queue_visible_length, default_partition_length,
       scrape_time BETWEEN now() AND clock_timestamp() AS scraped_now
  FROM pgmq.metrics_all();
-- inside the transaction that sent it a message counts as visible, and is not from the future
BEGIN;
SELECT pgmq.send('m', '1'), pgmq.send_batch('m', '{2,3}'), pgmq.send('m', '4', 60), pgmq.send('m', '5', 'infinity'::timestamptz);
SELECT queue_length, queue_visible_length, newest_msg_age_sec >= 0 AS newest, oldest_msg_age_sec >= 0 AS oldest, total_messages FROM pgmq.metrics('m');
SELECT count(*) FROM pgmq.read('m', 60, 2);
SELECT queue_length, queue_visible_length FROM pgmq.metrics('m');
SELECT queue_length, queue_visible_length FROM pgmq.metrics_all();
COMMIT;
-- a message younger than the transaction that looks at it: no negative ages
BEGIN;
SELECT pgmq.send('m', '6');
SELECT enqueued_at > now() AS younger FROM pgmq.q_m WHERE msg_id = 6;
SELECT newest_msg_age_sec >= 0 AS newest, oldest_msg_age_sec >= newest_msg_age_sec AS oldest FROM pgmq.metrics('m');
COMMIT;
-- a clock that was set back
SELECT pgmq.create('ahead');
INSERT INTO pgmq.q_ahead (enqueued_at, vt) VALUES (now() + interval '1 day', now());
SELECT newest_msg_age_sec, oldest_msg_age_sec FROM pgmq.metrics('ahead');
SELECT pgmq.drop_queue('ahead');
-- ages, of hidden messages too
UPDATE pgmq.q_m SET enqueued_at = clock_timestamp() - interval '1 hour' WHERE msg_id = 5;
UPDATE pgmq.q_m SET enqueued_at = clock_timestamp() - interval '1 minute' WHERE msg_id <> 5;
SELECT newest_msg_age_sec BETWEEN 60 AND 120 AS newest, oldest_msg_age_sec BETWEEN 3600 AND 3660 AS oldest FROM pgmq.metrics('m');
-- the total counts every id that was ever drawn, burnt ones too, and survives a purge
SELECT pgmq.drop_queue('m');
SELECT pgmq.create('m');
SELECT total_messages FROM pgmq.metrics('m');
SELECT pgmq.send('m', '1');
SELECT total_messages FROM pgmq.metrics('m');
BEGIN;
SELECT pgmq.send('m', '2');
ROLLBACK;
SELECT pgmq.send('m', '3', NULL::integer);
SELECT queue_length, total_messages FROM pgmq.metrics('m');
SELECT pgmq.purge_queue('m');
SELECT queue_length, total_messages, newest_msg_age_sec, oldest_msg_age_sec FROM pgmq.metrics('m');
-- a queue of another name that looks like a partition of this one
SELECT pgmq.create('m_default');
SELECT pgmq.send('m_default', '1');
ANALYZE pgmq.q_m_default;
SELECT queue_length, default_partition_length FROM pgmq.metrics('m');
SELECT pgmq.drop_queue('m_default');
-- a long queue
SELECT count(*) FROM pgmq.send_batch('m', ARRAY(SELECT to_jsonb(g) FROM generate_series(1, 3000) AS g));
SELECT count(*) FROM pgmq.read('m', 60, 1000);
SELECT queue_length, queue_visible_length, total_messages FROM pgmq.metrics('m');

-- metrics_all: every queue, under the spelling they were created with
SELECT pgmq.create('Zoo'), pgmq.create_unlogged('un'), pgmq.create('a "b".%s');
SELECT pgmq.send('zoo', '1'), pgmq.send_batch('un', '{1,2}'), pgmq.send('a "b".%s', '1', 60);
SELECT queue_name, queue_length, queue_visible_length, total_messages FROM pgmq.metrics_all() ORDER BY queue_name;
-- a queue that is recorded but has no table does not cost the others their numbers
INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('orphan', false, false);
SELECT pgmq.create('gone');
DROP TABLE pgmq.q_gone;
SELECT queue_name, queue_length, queue_visible_length FROM pgmq.metrics_all() ORDER BY queue_name;
SELECT pgmq.metrics('gone');
SELECT queue_name, pgmq.drop_queue(queue_name) FROM pgmq.list_queues() ORDER BY queue_name;
SELECT count(*) FROM pgmq.metrics_all();
SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r' AND relname ~ '^[qa]_';
-- in a transaction that may not write they work
SELECT pgmq.create('m');
BEGIN READ ONLY;
SELECT queue_length FROM pgmq.metrics('m');
SELECT queue_length FROM pgmq.metrics_all();
SELECT count(*) FROM pgmq.list_queues();
COMMIT;
SELECT pgmq.drop_queue('m');
