-- Partitioned queues where pg_partman is not installed.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create_partitioned('p');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq._ensure_pg_partman_installed();
SELECT pgmq._get_pg_partman_schema(), pgmq._get_pg_partman_major_version();
SELECT pgmq._extension_exists('pg_partman'), pgmq._extension_exists('pgmq'), pgmq._extension_exists('PGMQ'), pgmq._extension_exists(NULL);
-- what fits an integer counts ids
SELECT interval, pgmq._get_partition_col(interval)
  FROM unnest('{10000,-1," 42 ",+7,2147483647,2147483648,10000000000,1e3,"1 day",daily,"",x}'::text[]) AS interval;
SELECT pgmq._get_partition_col(NULL);
SELECT pgmq.create('p');
SELECT pgmq.convert_archive_partitioned('p');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.convert_archive_partitioned('no such');
SELECT pgmq.convert_archive_partitioned(NULL);
SELECT pgmq.set_retention('p', '10');
SELECT pgmq.set_retention('no such', '10');
SELECT * FROM pgmq.list_partitions();
SELECT * FROM pgmq.list_partitions('p');
SELECT * FROM pgmq.list_partitions('no such');
SELECT default_partition_length FROM pgmq.metrics('p');
CALL pgmq.maintain();
BEGIN READ ONLY;
CALL pgmq.maintain();
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
-- a queue named like the default partition of another is just a queue
SELECT pgmq.create('p_default');
SELECT pgmq.send_batch('p_default', array_fill('1'::jsonb, '{3}'));
ANALYZE pgmq.q_p_default;
SELECT queue_name, default_partition_length FROM pgmq.metrics_all();
-- partitioned without pg_partman: nothing of ours, but it can be shown, told apart and dropped
CREATE TABLE pgmq.q_own (LIKE pgmq.q_p INCLUDING DEFAULTS) PARTITION BY RANGE (msg_id);
CREATE TABLE pgmq.q_own_low PARTITION OF pgmq.q_own FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE pgmq.q_own_default PARTITION OF pgmq.q_own DEFAULT;
INSERT INTO pgmq.meta VALUES ('own', true, false);
CREATE SEQUENCE pgmq.q_own_msg_id_seq;
INSERT INTO pgmq.q_own (msg_id, vt) VALUES (1, now()), (200, now());
SELECT queue, partition, lower_bound, upper_bound, messages, past_retention FROM pgmq.list_partitions('OWN');
CALL pgmq.maintain();
SELECT count(*) FROM pgmq.q_own;
SELECT pgmq.create('own_low');
SELECT pgmq.create('own');
SELECT pgmq.drop_queue('own_default');
SELECT pgmq.drop_queue('own');
DROP SEQUENCE IF EXISTS pgmq.q_own_msg_id_seq;
SELECT pgmq.drop_queue('p'), pgmq.drop_queue('p_default');
