-- Statements on so many messages by groups that the server keeps them on disk
SET client_min_messages = warning;
SET work_mem = '64kB';
SELECT FROM pgmq.create('spilled');
SELECT FROM pgmq.create_fifo_index('spilled');
SELECT count(*) FROM pgmq.send_batch('spilled', array_fill('"some body"'::jsonb, '{12000}'),
    (SELECT array_agg(jsonb_build_object('x-pgmq-group', i % 7)) FROM generate_series(1, 12000) AS i));
SELECT count(*) FROM pgmq.delete('spilled', (SELECT array_agg(i) FROM generate_series(1, 10500) AS i));
SELECT count(*) FROM pgmq.archive('spilled', (SELECT array_agg(i) FROM generate_series(10501, 11000) AS i));
INSERT INTO pgmq.q_spilled (vt, message, headers)
 SELECT now(), '"some body"', jsonb_build_object('x-pgmq-group', i % 7) FROM generate_series(1, 12000) AS i;
UPDATE pgmq.q_spilled SET headers = jsonb_build_object('x-pgmq-group', msg_id % 5) WHERE msg_id <= 11500;
SELECT count(*) FROM pgmq.read_grouped('spilled', 0, 20000);
SELECT count(*) FROM pgmq.archive('spilled', (SELECT array_agg(i) FROM generate_series(11001, 18000) AS i));
SELECT count(*) FROM pgmq.pop('spilled', NULL);
DELETE FROM pgmq.q_spilled;
SELECT FROM pgmq.bind_topic('spilled.*', 'spilled');
SELECT count(*) FROM pgmq.send_batch_topic('spilled.x', array_fill('"some body"'::jsonb, '{12000}'));
SELECT count(*) FROM pgmq.read_grouped('spilled', 0, 20000);
DELETE FROM pgmq.q_spilled;
SELECT count(*) FROM pgmq.read_grouped('spilled', 0, 20000);
SELECT FROM pgmq.drop_queue('spilled');
