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

-- A transaction need not walk again past what it has deleted itself; until it has not
CREATE FUNCTION consume(VARIADIC ids bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmq.delete('rolled', id) FROM unnest(ids) AS id;
	RETURN (SELECT array_agg(msg_id) FROM pgmq.read_grouped('rolled', 0, 10));
END $$;
SELECT pgmq.purge_queue('rolled');
SELECT setval('pgmq.q_rolled_msg_id_seq', 10);
SELECT pgmq.send_batch('rolled', '{1,2,3,4,5,6}'::jsonb[]);
BEGIN;
SELECT consume(11, 12);
SAVEPOINT here;
SELECT consume(13, 14);
ROLLBACK TO here;
SELECT consume(15);
SAVEPOINT here;
SELECT consume(13);
RELEASE here;
SELECT consume(14);
INSERT INTO pgmq.q_rolled (msg_id, vt, message) OVERRIDING SYSTEM VALUE VALUES (12, now(), '7');
SELECT consume(0);
INSERT INTO pgmq.q_rolled (msg_id, vt, message, headers) OVERRIDING SYSTEM VALUE VALUES (11, now(), '8', '{"x-pgmq-group": "b"}');
SELECT consume(12);
UPDATE pgmq.q_rolled SET headers = NULL WHERE msg_id = 11;
SELECT consume(0);
ROLLBACK;
SELECT consume(11);
-- in one block, of which a part fails
DO $$
BEGIN
	RAISE NOTICE '%', consume(12);
	BEGIN
		RAISE NOTICE '%', consume(13, 14);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE '%', consume(0);
	END;
END $$;
SELECT consume(0);
DROP FUNCTION consume;

SELECT pgmq.drop_queue('rolled');
