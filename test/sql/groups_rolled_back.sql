-- A command that takes away one message of a group by moving it to another group, and
-- a later one by deleting it, and is rolled back: both are there, in order.
SELECT pgmq.create('rolled'), pgmq.create_fifo_index('rolled');
SELECT pgmq.send_batch('rolled', '{1,2,3}'::jsonb[]);
BEGIN;
WITH moved AS (
	UPDATE pgmq.q_rolled SET headers = '{"x-pgmq-group": "b"}' WHERE msg_id = 1)
DELETE FROM pgmq.q_rolled WHERE msg_id = 2;
ROLLBACK;
SELECT msg_id FROM pgmq.read_grouped('rolled', 0, 10);

BEGIN;
MERGE INTO pgmq.q_rolled AS q USING (VALUES (1), (2)) AS v (id) ON q.msg_id = v.id
	WHEN MATCHED AND v.id = 1 THEN UPDATE SET headers = '{"x-pgmq-group": "b"}'
	WHEN MATCHED THEN DELETE;
ROLLBACK;
SELECT msg_id FROM pgmq.read_grouped('rolled', 0, 10);

-- not rolled back
WITH moved AS (
	UPDATE pgmq.q_rolled SET headers = '{"x-pgmq-group": "b"}' WHERE msg_id = 1)
DELETE FROM pgmq.q_rolled WHERE msg_id = 2;
SELECT msg_id, headers FROM pgmq.read_grouped('rolled', 0, 10);

SELECT pgmq.drop_queue('rolled');
