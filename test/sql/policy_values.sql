-- Settings one by one and together: what they add to the queue's table, and what is removed again.
SET client_min_messages = warning;
SELECT pgmq.create('val'), pgmq.create('val_dead');
RESET client_min_messages;
\set columns 'SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $$pgmq.q_val$$::regclass AND attname ~ $$^pgmq_$$ AND NOT attisdropped ORDER BY 1'
SELECT pgmq.set_policy('val', 3, 'val_dead', '5 s', 2.5, '1 day 00:00:00.000001', '1 mon', 1000000000000, 'drop_oldest', true,
  '1 hour', 5, 10, '1 minute', '2 days', '1 year');
\x
SELECT * FROM pgmq.list_policies();
\x
:columns;
SELECT pgmq.set_policy('val', max_reads => 4, priority => false);
SELECT max_reads, priority, retry_backoff, overflow FROM pgmq.list_policies();
SELECT pgmq.reset_policy('val', '{max_reads}');
:columns;
SELECT pgmq.reset_policy('val', '{max_in_flight,overflow,overflow}');
:columns;
SELECT max_reads, overflow, rate_limit FROM pgmq.list_policies();
SELECT pgmq.reset_policy('val');
SELECT count(*) FROM pgmq.policy;
-- false is off
SELECT pgmq.set_policy('val', priority => false);
SELECT count(*) FROM pgmq.policy;
-- a column of the same name
ALTER TABLE pgmq.q_val ADD COLUMN pgmq_settled text;
SELECT pgmq.set_policy('val', max_reads => 4);
ALTER TABLE pgmq.q_val ALTER COLUMN pgmq_settled TYPE integer USING 1;
SELECT pgmq.set_policy('val', max_reads => 4);
:columns;
-- a view needs it
CREATE VIEW val AS SELECT pgmq_settled FROM pgmq.q_val;
SELECT pgmq.reset_policy('val');
DROP VIEW val;
SELECT pgmq.prepare_downgrade();
:columns;
SELECT pgmq.reset_policy('val');
SELECT pgmq.drop_queue('val'), pgmq.drop_queue('val_dead');
