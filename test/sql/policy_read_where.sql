-- Reads with conditions on the body, on the headers and on both
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('w');
SELECT count(*) FROM (SELECT pgmq.send_batch('w', array_agg(jsonb_build_object('b', i % 2, 'n', i) ORDER BY i),
                            array_agg(CASE WHEN i <= 3 THEN NULL ELSE jsonb_build_object('h', i % 3) END ORDER BY i)) FROM generate_series(1, 24) AS i) AS sent;
SELECT msg_id FROM pgmq.read_where('w', 30, 2, '{"b": 1}', '{"h": 2}');
SELECT msg_id FROM pgmq.read_where('w', 30, 3, '{"b": 1}');
SELECT msg_id FROM pgmq.read_where('w', 30, 3, headers_conditional => '{"h": 0}');
-- no condition at all; NULL and '{}' mean the same
SELECT msg_id FROM pgmq.read_where('w', 30, 1);
SELECT msg_id FROM pgmq.read_where('w', 30, 1, NULL, NULL);
SELECT msg_id FROM pgmq.read_where('w', 30, 1, NULL, '{"h": 1}');
-- due messages before fresh ones, as in any read; the set is in the order of ids
SELECT msg_id, read_ct FROM pgmq.set_vt('w', '{5,11,6}'::bigint[], 0);
SELECT msg_id, read_ct FROM pgmq.read_where('w', 30, 3, '{"b": 1}', '{"h": 2}');
-- headers that are no object, and none
SELECT pgmq.send('w', '{"b": 7}', '["h"]'::jsonb), pgmq.send('w', '{"b": 7}');
SELECT msg_id, headers FROM pgmq.read_where('w', 30, 9, '{"b": 7}', '["h"]');
SELECT msg_id, headers FROM pgmq.read_where('w', 30, 9, '{"b": 7}');
-- NULL as quantity: all; none: none; a lease of 0
SELECT count(*) FROM pgmq.read_where('w', 0, NULL, '{"b": 0}', '{"h": 1}');
SELECT count(*) FROM pgmq.read_where('w', 30, 0, '{"b": 0}', '{"h": 1}');
SELECT count(*) FROM pgmq.read_where('w', 30, 99, '{"b": 0}', '{"h": 1}');
-- a paused queue gives none
SELECT pgmq.pause_queue('w');
SELECT count(*) FROM pgmq.read_where('w', 30, 99);
SELECT pgmq.resume_queue('w');
SELECT pgmq.read_where('nowhere', 30, 1);
SELECT pgmq.drop_queue('w');
