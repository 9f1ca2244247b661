-- A queue with partitions by msg_id whose ids come to their end: what has no room
-- for a partition stays in the default one, and maintenance says nothing
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;
SELECT FROM pgmq.create_partitioned('last', '5', NULL, 3);
SELECT setval('pgmq.q_last_msg_id_seq', 9223372036854775797);
SELECT count(*) FROM pgmq.send_batch('last', array_fill('{}'::jsonb, '{10}'));
CALL pgmq.maintain();
CALL pgmq.maintain();
SELECT partition, lower_bound, upper_bound, messages FROM pgmq.list_partitions('last') WHERE messages > 0;
SELECT pgmq.send('last', '1');
SELECT array_agg(9223372036854775807 - msg_id) FROM pgmq.read('last', 0, 5);
SELECT count(*) FROM pgmq.archive('last', ARRAY[9223372036854775804, 9223372036854775805, 9223372036854775807]);
SELECT count(*) FROM pgmq.pop('last', 10);
CALL pgmq.maintain();

-- More of them than are moved in a moment
SELECT FROM pgmq.create_partitioned('many', '10050', NULL, 2);
SELECT setval('pgmq.q_many_msg_id_seq', 9223372036854775807 - 20200);
SELECT count(*) FROM pgmq.send_batch('many', array_fill('{}'::jsonb, '{20200}'));
CALL pgmq.maintain();
CALL pgmq.maintain();
SELECT lower_bound, upper_bound, messages FROM pgmq.list_partitions('many') WHERE messages > 0;
SELECT count(*) FROM pgmq.read('many', 0, 30000);

-- An archive whose next partition has no room
SELECT FROM pgmq.create('end');
SELECT setval('pgmq.q_end_msg_id_seq', 9223372036854775800);
SELECT count(*) FROM pgmq.send_batch('end', array_fill('{}'::jsonb, '{7}'));
SELECT count(*) FROM pgmq.archive('end', ARRAY(SELECT msg_id FROM pgmq.q_end));
SELECT FROM pgmq.convert_archive_partitioned('end', '5', NULL, 2);
SELECT count(*) FROM pgmq.a_end;
SELECT pgmq.drop_queue('last'), pgmq.drop_queue('many'), pgmq.drop_queue('end');
DROP EXTENSION pg_partman;
DROP SCHEMA partman;
