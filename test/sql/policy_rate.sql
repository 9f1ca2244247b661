-- rate_limit: so many messages in a period.  These periods do not end while the test runs.
SET client_min_messages = warning;
SELECT pgmq.create('rated'), pgmq.create('rated_grouped'), pgmq.create('free');
SELECT pgmq.create_fifo_index('rated_grouped');
RESET client_min_messages;
SELECT count(*) FROM pgmq.send_batch('rated', array_fill('{"a": 1}'::jsonb, ARRAY[40]));
SELECT count(*) FROM pgmq.send_batch('rated_grouped', array_fill('1'::jsonb, ARRAY[9]),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', i / 3) FROM generate_series(0, 8) AS i));
-- the period without a limit is nothing; it is a second if it is not set
SELECT pgmq.set_policy('rated', rate_period => '1 day');
SELECT count(*) FROM pgmq.pop('rated', 3);
SELECT pgmq.set_policy('Rated', rate_limit => 8), pgmq.set_policy('rated_grouped', rate_limit => 4, rate_period => '1 day');
-- each kind of read counts, by what it has got
SELECT count(*) FROM pgmq.read('rated', 60, 1);
SELECT count(*) FROM pgmq.read('rated', 60, 10, '{"a": 2}');
SELECT count(*) FROM pgmq.read('rated', 60, 1, '{"a": 1}');
SELECT count(*) FROM pgmq.read('rated', 0, 1);
SELECT count(*) FROM pgmq.read_with_poll('rated', 60, 1);
SELECT count(*) FROM pgmq.pop('rated', 1);
SELECT count(*) FROM pgmq.read_where('rated', 60, 1);
CALL pgmq.wait('rated', 0);
SELECT count(*) FROM pgmq.read('rated', 60, NULL);
SELECT count(*) FROM pgmq.pop('rated', 1);
SELECT count(*) FROM pgmq.read_with_poll('rated', 60, 1, 0);
CALL pgmq.wait('rated', 0);
CALL pgmq.wait_any('{rated,rated_grouped}', 0);
SELECT count(*) FROM pgmq.read_grouped_rr('rated_grouped', 60, 2);
SELECT count(*) FROM pgmq.read_grouped('rated_grouped', 60, 4);
CALL pgmq.wait_grouped('rated_grouped', 0);
SELECT count(*) FROM pgmq.read_grouped_head('rated_grouped', 60, 9);
SELECT count(*) FROM pgmq.read_grouped('rated_grouped', 60, 9);
SELECT count(*) FROM pgmq.read_grouped_with_poll('rated_grouped', 60, 9, 0);
CALL pgmq.wait_grouped('rated_grouped', 0);
-- nothing else counts, and nothing is known about the queue from reads that were refused
SELECT count(*) FROM pgmq.send_batch('rated', array_fill('1'::jsonb, ARRAY[2]));
SELECT pgmq.delete('rated', 4), pgmq.archive('rated', 5), (SELECT count(*) FROM pgmq.set_vt('rated', 6, 0));
SELECT queue_length FROM pgmq.metrics('rated');
SELECT pgmq.reset_policy('rated', '{rate_limit}');
SELECT count(*) FROM pgmq.read('rated', 60, 3);
SELECT pgmq.set_policy('rated', rate_limit => 9);
SELECT count(*) FROM pgmq.read('rated', 60, 3);
-- within one transaction, at each isolation level, and undone with it
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM pgmq.pop('rated', 1);
SELECT pgmq.reset_policy('rated', '{rate_limit}');
SELECT count(*) FROM pgmq.pop('rated', 1);
ROLLBACK;
SELECT count(*) FROM pgmq.pop('rated', 1);
-- a queue that is made again, and what was written by hand
SELECT pgmq.drop_queue('rated'), pgmq.create('rated');
SELECT count(*) FROM pgmq.send_batch('rated', array_fill('1'::jsonb, ARRAY[4]));
SELECT count(*) FROM pgmq.pop('rated', 1);
INSERT INTO pgmq.policy (queue_name, rate_limit, rate_period) VALUES ('rated', 0, '1 day');
SELECT count(*) FROM pgmq.pop('rated', 1);
UPDATE pgmq.policy SET rate_limit = 1000000000, rate_period = '1 microsecond';
SELECT count(*) FROM pgmq.pop('rated', 1);
SELECT pgmq.drop_queue('rated'), pgmq.drop_queue('rated_grouped'), pgmq.drop_queue('free');
