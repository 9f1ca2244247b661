-- Which queue may be the dead-letter queue of another one.
SET client_min_messages = warning;
SELECT count(pgmq.create(q)) FROM unnest('{dlq_a,dlq_b,dlq_c,Dlq_D}'::text[]) AS q;
SELECT pgmq.create_unlogged('dlq_u');
RESET client_min_messages;
SELECT pgmq.set_policy('dlq_a', dead_letter_queue => 'dlq_none');
SELECT pgmq.set_policy('dlq_a', dead_letter_queue => 'DLQ_A');
SELECT pgmq.set_policy('dlq_a', dead_letter_queue => 'dlq_d');
SELECT queue_name, dead_letter_queue FROM pgmq.list_policies();
-- no chain, from either end
SELECT pgmq.set_policy('dlq_b', dead_letter_queue => 'dlq_a');
SELECT pgmq.set_policy('dlq_d', dead_letter_queue => 'dlq_b');
SELECT pgmq.set_policy('dlq_c', dead_letter_queue => 'DLQ_D');
SELECT pgmq.set_policy('dlq_a', dead_letter_queue => 'dlq_u');
SELECT pgmq.set_policy('dlq_u', dead_letter_queue => 'dlq_d');
SELECT pgmq.reset_policy('dlq_a', '{dead_letter_queue}');
SELECT pgmq.set_policy('dlq_u', dead_letter_queue => 'dlq_d');
SELECT pgmq.set_policy('dlq_d', dead_letter_queue => 'dlq_b');
SELECT queue_name, dead_letter_queue FROM pgmq.list_policies();
-- both have one owner
CREATE ROLE regress_dlq_owner;
ALTER TABLE pgmq.q_dlq_b OWNER TO regress_dlq_owner;
SELECT pgmq.set_policy('dlq_a', dead_letter_queue => 'dlq_b');
ALTER TABLE pgmq.q_dlq_b OWNER TO CURRENT_USER;
DROP ROLE regress_dlq_owner;
SELECT count(pgmq.drop_queue(q)) FROM unnest('{dlq_a,dlq_b,dlq_c,Dlq_D,dlq_u}'::text[]) AS q;
