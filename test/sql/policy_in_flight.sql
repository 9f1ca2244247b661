-- max_in_flight: no more messages are leased at once
SET client_min_messages = warning;
SELECT pgmq.create('flight'), pgmq.create('flight_grouped');
SELECT pgmq.create_fifo_index('flight_grouped');
RESET client_min_messages;
SELECT count(*) FROM pgmq.send_batch('flight', array_fill('{"a": 1}'::jsonb, ARRAY[40]));
SELECT count(*) FROM pgmq.send_batch('flight_grouped', array_fill('1'::jsonb, ARRAY[9]),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', i / 3) FROM generate_series(0, 8) AS i));
-- what is leased already counts; what is delayed does not
SELECT count(*) FROM pgmq.read('flight', 600, 2);
SELECT count(*) FROM pgmq.send_batch('flight', array_fill('"late"'::jsonb, ARRAY[9]), 600);
SELECT pgmq.set_policy('Flight', max_in_flight => 5), pgmq.set_policy('flight_grouped', max_in_flight => 4);
SELECT count(*) FROM pgmq.read('flight', 600, 2);
SELECT count(*) FROM pgmq.read('flight', 600, NULL);
CALL pgmq.wait('flight', 0);
-- neither what is popped nor a lease of no time needs room, and they are handed out when there is none
SELECT count(*) FROM pgmq.pop('flight', 2);
SELECT count(*) FROM pgmq.read('flight', 0, 1);
SELECT count(*) FROM pgmq.read('flight', 600, 1);
SELECT count(*) FROM pgmq.read('flight', 600, 1, '{"a": 1}');
SELECT count(*) FROM pgmq.read_where('flight', 600, 1);
SELECT count(*) FROM pgmq.read_with_poll('flight', 600, 1, 0);
-- each way to end leases makes room
SELECT pgmq.delete('flight', 1);
SELECT pgmq.archive('flight', 2);
SELECT msg_id FROM pgmq.set_vt('flight', 3, 0);
CALL pgmq.wait('flight', 0);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.delete('flight', ARRAY[3, 4]);
SELECT msg_id FROM pgmq.set_vt('flight', 5, clock_timestamp() + interval '100 ms');
SELECT pg_sleep(0.11);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
-- a lease that ends earlier than all others goes on to count
SELECT msg_id FROM pgmq.set_vt('flight', 5, 300);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.archive('flight', ARRAY(SELECT msg_id FROM pgmq.q_flight WHERE vt > now() AND read_ct > 0 AND msg_id <> 5));
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
-- what is given back with a delay is not in flight; what is touched is
SELECT pgmq.nack('flight', 5, 2, NULL, 600), pgmq.release('flight', 12, 1, 600), pgmq.touch('flight', 13, 1, 60);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT msg_id, outcome FROM pgmq.nack_batch('flight', ARRAY[13, 14, 15], ARRAY[1, 1, 1], NULL, 600);
SELECT ok FROM pgmq.touch_batch('flight', ARRAY[16, 17], ARRAY[1, 1], 30);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.nack('flight', 16, 1, NULL, 0), pgmq.ack('flight', 17, 1), pgmq.ack_archive('flight', 18, 1);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
-- groups
SELECT count(*) FROM pgmq.read_grouped_rr('flight_grouped', 600, 3);
CALL pgmq.wait_grouped('flight_grouped', 0);
SELECT count(*) FROM pgmq.read_grouped('flight_grouped', 600, 9);
SELECT pgmq.delete('flight_grouped', ARRAY[1, 4, 7]);
SELECT count(*) FROM pgmq.read_grouped_head('flight_grouped', 600, 2);
SELECT count(*) FROM pgmq.read_grouped('flight_grouped', 600, 9);
SELECT count(*) FROM pgmq.read_grouped('flight_grouped', 600, 9);
SELECT count(*) FROM pgmq.read_grouped_with_poll('flight_grouped', 600, 9, 0);
CALL pgmq.wait_grouped('flight_grouped', 0);
-- both limits; without one of them; the columns go with it
SELECT pgmq.set_policy('flight', max_in_flight => 8, rate_limit => 4, rate_period => '1 day');
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.set_policy('flight', max_in_flight => 20);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.reset_policy('flight', '{rate_limit}');
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.reset_policy('flight', '{max_in_flight}');
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT attname FROM pg_attribute WHERE attrelid = 'pgmq.q_flight'::regclass AND attname LIKE 'pgmq\_%' AND NOT attisdropped;
-- a dead message that cannot be moved is hidden, and not in flight
SELECT pgmq.drop_queue('flight'), pgmq.create('flight');
SELECT pgmq.set_policy('flight', max_in_flight => 1);
UPDATE pgmq.policy SET max_reads = 1 WHERE queue_name = 'flight';
SELECT count(*) FROM pgmq.send_batch('flight', array_fill('1'::jsonb, ARRAY[3]));
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.a_flight FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT msg_id FROM pgmq.read('flight', 0, 1);
SELECT msg_id FROM pgmq.read('flight', 600, 1);
SELECT stuck, in_flight FROM pgmq.queue_status('flight');
SELECT pgmq.delete('flight', 2);
SELECT msg_id FROM pgmq.read('flight', 600, 1);
DROP FUNCTION refuse CASCADE;
-- without an index on vt
SELECT pgmq.drop_queue('flight'), pgmq.create('flight');
DROP INDEX pgmq.q_flight_vt_idx;
SELECT pgmq.set_policy('flight', max_in_flight => 2);
SELECT count(*) FROM pgmq.send_batch('flight', array_fill('1'::jsonb, ARRAY[9]));
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
SELECT pgmq.delete('flight', 1);
SELECT count(*) FROM pgmq.read('flight', 600, 9);
-- a limit that is lowered and raised again: what was leased before still counts
SELECT pgmq.drop_queue('flight'), pgmq.create('flight');
SELECT count(*) FROM pgmq.send_batch('flight', array_fill('1'::jsonb, ARRAY[30]));
SELECT count(*) FROM pgmq.read('flight', 600, 10);
SELECT pgmq.set_policy('flight', max_in_flight => 3);
SELECT count(*) FROM pgmq.read('flight', 600, 1);
SELECT pgmq.set_policy('flight', max_in_flight => 9);
SELECT count(*) FROM pgmq.read('flight', 600, 5);
-- set_vt leases messages without asking, but they count
SELECT pgmq.set_policy('flight', max_in_flight => 12);
SELECT count(*) FROM pgmq.read('flight', 0, 5);
SELECT count(*) FROM pgmq.read('flight', 600, 1);
SELECT count(*) FROM pgmq.set_vt('flight', ARRAY[12, 13, 14], 600);
SELECT count(*) FROM pgmq.read('flight', 600, 1);
SELECT in_flight FROM pgmq.queue_status('flight');
SELECT pgmq.drop_queue('flight'), pgmq.drop_queue('flight_grouped');
-- partitions: counting keeps the locks of the caller
SET client_min_messages = warning;
CREATE EXTENSION pg_partman;
SELECT pgmq.create_partitioned('flight_parts', '10', '1000');
SELECT pgmq.set_policy('flight_parts', max_in_flight => 2);
SELECT count(*) FROM pgmq.send_batch('flight_parts', array_fill('1'::jsonb, ARRAY[35]));
SELECT count(*) FROM pgmq.read('flight_parts', 600, 5);
DO $$
BEGIN
	LOCK TABLE ONLY pgmq.q_flight_parts IN ACCESS SHARE MODE;
	ASSERT (SELECT count(*) FROM pgmq.read('flight_parts', 600, 5)) = 0;
	ASSERT (SELECT count(*) FROM pg_locks WHERE relation = 'pgmq.q_flight_parts'::regclass AND mode = 'AccessShareLock' AND pid = pg_backend_pid()) = 1;
END
$$;
SELECT pgmq.drop_queue('flight_parts');
DROP EXTENSION pg_partman;
RESET client_min_messages;
