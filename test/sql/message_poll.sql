-- read_with_poll: one look at least, and no waiting for what is there.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('p');
SELECT * FROM pgmq.read_with_poll('p', 30, 1) \gdesc
-- Whether a statement took so many seconds, and not many more: the upper bound is one that a busy machine keeps.
CREATE FUNCTION pg_temp.takes(seconds numeric, statement text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE started timestamptz := clock_timestamp();
BEGIN
    EXECUTE statement;
    RETURN extract(epoch FROM clock_timestamp() - started) BETWEEN seconds - 0.01 AND seconds + 60;
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
SELECT pg_temp.takes(0, 'SELECT pgmq.read_with_poll(''p'', 30, 1, 0)') AS no_wait;
SELECT pg_temp.takes(0, 'SELECT pgmq.read_with_poll(''p'', 30, 1, -5, 600000)') AS no_wait;
SELECT pg_temp.takes(1, 'SELECT pgmq.read_with_poll(''p'', 30, 1, 1, 0)') AS a_second;
SELECT pg_temp.takes(1, 'SELECT pgmq.read_with_poll(''p'', 30, 1, 1, -1)') AS a_second;
SELECT pg_temp.takes(1, 'SELECT pgmq.read_with_poll(''p'', 30, 1, 1, NULL)') AS a_second;
SELECT pg_temp.takes(1, 'SELECT pgmq.read_with_poll(''p'', 30, 1, 1, 2147483647)') AS a_second;
SELECT pg_temp.takes(5, 'SELECT pgmq.read_with_poll(''p'', 30, 1, NULL)') AS five_seconds;
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

-- in another session: it waits while nothing is there and ends with the sender's commit
CREATE EXTENSION dblink;
\getenv host PGHOST
SELECT :{?host} AS has_host \gset
\if :has_host
\else
\set host ''
\endif
\set ECHO none
SELECT dblink_connect('poller', format('host=%L dbname=%L user=%L application_name=poller', :'host', current_database(), current_user)) \gset
\set ECHO all
SELECT dblink_send_query('poller', $$ SELECT msg_id, message FROM pgmq.read_with_poll('p', 30, 5, 600, 600000) $$);
DO $$
DECLARE deadline timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'poller' AND state = 'active' AND wait_event_type = 'Extension') LOOP
        ASSERT clock_timestamp() < deadline, 'the poller does not wait';
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END $$;
SELECT dblink_is_busy('poller');
BEGIN;
SELECT pgmq.send_batch('p', '{6,7}');
COMMIT;
SELECT * FROM dblink_get_result('poller') AS r (msg_id bigint, message jsonb);
SELECT dblink_disconnect('poller');
DROP EXTENSION dblink;

-- a wait can be stopped, and leaves a session that works
SET statement_timeout = '200ms';
SELECT pgmq.read_with_poll('p', 30, 1, 2147483647, 2147483647);
\echo :LAST_ERROR_SQLSTATE
RESET statement_timeout;
SELECT pgmq.send('p', '8');
SELECT msg_id FROM pgmq.read_with_poll('p', 30, 1);
SELECT pgmq.drop_queue('p');
