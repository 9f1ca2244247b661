-- read_with_poll: one look at least, and no waiting for what is there.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('p');
SELECT * FROM pgmq.read_with_poll('p', 30, 1) \gdesc
-- How many seconds a statement took; compared with bounds that a busy machine keeps.
CREATE FUNCTION pg_temp.seconds(statement text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE started timestamptz := clock_timestamp();
BEGIN
    EXECUTE statement;
    RETURN extract(epoch FROM clock_timestamp() - started);
END $$;

-- what is there comes at once, the whole batch, in msg_id order, however long one may wait
SELECT pgmq.send_batch('p', '{1,2,3}');
SELECT msg_id FROM pgmq.set_vt('p', 2, 0);
BEGIN;
SELECT msg_id, read_ct, message, vt > last_read_at AS leased FROM pgmq.read_with_poll('p', 30, 2, 600, 600000);
SELECT clock_timestamp() - now() < '60 s' AS at_once;
COMMIT;
SELECT msg_id FROM pgmq.read_with_poll(queue_name => 'p', vt => 0, qty => 5, max_poll_seconds => 600, poll_interval_ms => 1, conditional => '3');
SELECT msg_id FROM pgmq.read_with_poll('p', 0, NULL);
-- one look is always made
SELECT msg_id FROM pgmq.read_with_poll('p', 0, 1, 0);
SELECT msg_id FROM pgmq.read_with_poll('p', 0, 1, -1);
SELECT msg_id FROM pgmq.read_with_poll('p', 0, 1, -2147483648, -2147483648);
-- NULL stands for the defaults
SELECT msg_id FROM pgmq.read_with_poll('p', 0, 1, NULL, NULL, NULL);
SELECT pgmq.purge_queue('p');

-- nothing there: 0 or less does not wait, an interval of 0, less or NULL still ends, a long one does not lengthen the wait
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, 0)') < 60 AS no_wait;
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, -5, 600000)') < 60 AS no_wait;
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, 1, 0)') BETWEEN 0.99 AND 60 AS a_second;
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, 1, -1)') BETWEEN 0.99 AND 60 AS a_second;
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, 1, NULL)') BETWEEN 0.99 AND 60 AS a_second;
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, 1, 2147483647)') BETWEEN 0.99 AND 60 AS a_second;
SELECT pg_temp.seconds('SELECT pgmq.read_with_poll(''p'', 30, 1, NULL)') BETWEEN 4.99 AND 60 AS five_seconds;
-- no quantity, no message
SELECT pgmq.send('p', '4');
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 0, 0);
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 0, 1);
SELECT pgmq.read_with_poll('p', 30, -1, 600);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.read_with_poll('p', NULL, 1, 600);
\echo :LAST_ERROR_SQLSTATE
-- what does not meet the condition is not there
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 1, 0, 100, '5');
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 1, 1, 100, '5');
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 1, 0, 100, '4');
SELECT pgmq.purge_queue('p');

-- the wait ends when a message becomes visible, not at the end of the interval or of the time: delayed, leased, re-timed
SELECT pgmq.send('p', '5', 1);
SELECT msg_id, clock_timestamp() < enqueued_at + interval '60 s' AS soon, last_read_at >= enqueued_at + interval '1 s' AS not_early
  FROM pgmq.read_with_poll('p', 1, 1, 600, 600000);
SELECT msg_id, read_ct, clock_timestamp() < enqueued_at + interval '60 s' AS soon FROM pgmq.read_with_poll('p', 30, 1, 600, 600000);
SELECT msg_id FROM pgmq.set_vt('p', 5, 1);
SELECT msg_id, read_ct, clock_timestamp() < enqueued_at + interval '60 s' AS soon FROM pgmq.read_with_poll('p', 30, 1, 600, 600000);

-- a wait can be stopped, and leaves a session that works
SET statement_timeout = '200ms';
SELECT pgmq.read_with_poll('p', 30, 1, 2147483647, 2147483647);
\echo :LAST_ERROR_SQLSTATE
RESET statement_timeout;
SELECT pgmq.send('p', '6');
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 1);
SELECT pgmq.drop_queue('p');
