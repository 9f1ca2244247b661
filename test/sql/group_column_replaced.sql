-- The group index is on a column that is called headers no longer; a session that has used the index before notices
SET client_min_messages = warning;
SELECT pgmq.create('f');
SELECT pgmq.create_fifo_index('f');
SELECT count(*) FROM pgmq.send_batch('f', '{1,2,3}'::jsonb[],
  ARRAY['{"x-pgmq-group":"a"}', '{"x-pgmq-group":"b"}', '{"x-pgmq-group":"c"}']::jsonb[]);
SELECT msg_id FROM pgmq.read_grouped_head('f', 0, 10);
BEGIN;
ALTER TABLE pgmq.q_f RENAME headers TO old_headers;
ALTER TABLE pgmq.q_f ADD headers jsonb;
UPDATE pgmq.q_f SET headers = '{"x-pgmq-group":"same"}';
COMMIT;
-- one group now, which the first call holds
SELECT msg_id FROM pgmq.read_grouped_head('f', 30, 1);
SELECT msg_id FROM pgmq.read_grouped_head('f', 30, 1);
-- and a column that comes back is used again
ALTER TABLE pgmq.q_f RENAME headers TO new_headers;
ALTER TABLE pgmq.q_f RENAME old_headers TO headers;
SELECT msg_id FROM pgmq.read_grouped_head('f', 0, 10);
SELECT pgmq.drop_queue('f');
