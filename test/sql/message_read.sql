-- read and pop: the lease, the order, the quantity, the condition.
\set VERBOSITY terse
\set SHOW_CONTEXT never
-- messages are re-timed by hand here, around the functions: look for that every time
SET pgmq.rescan_interval = 0;
SELECT pgmq.create('r');
SELECT * FROM pgmq.read('r', 30, 1) \gdesc
SELECT * FROM pgmq.pop('r') \gdesc
-- an empty queue
SELECT * FROM pgmq.read('r', 30, 10);
SELECT * FROM pgmq.pop('r');
SELECT * FROM pgmq.read('r', NULL, NULL, NULL);

-- a lease hides a message; what it changes
SELECT pgmq.send_batch('r', '{1,2,3,4,5}');
SELECT msg_id, read_ct, message, headers, last_read_at >= enqueued_at AS read_now,
       vt - last_read_at BETWEEN '29 s' AND '60 s' AS leased, vt > clock_timestamp() AS hidden
  FROM pgmq.read('r', 30, 2);
SELECT msg_id, read_ct, last_read_at IS NULL AS never_read FROM pgmq.q_r ORDER BY msg_id;
SELECT msg_id FROM pgmq.read('r', 30, 2);
SELECT msg_id FROM pgmq.read('r', 30, 2);
SELECT msg_id FROM pgmq.read('r', 30, 2);
SELECT queue_length, queue_visible_length FROM pgmq.metrics('r');
-- a lease of 0 or less leaves it visible, and never stores a time before now
SELECT pgmq.drop_queue('r');
SELECT pgmq.create('r');
SELECT pgmq.send('r', '1');
SELECT msg_id, read_ct, vt >= last_read_at AS not_past FROM pgmq.read('r', 0, 1);
SELECT msg_id, read_ct, vt >= last_read_at AS not_past FROM pgmq.read('r', -1, 1);
SELECT msg_id, read_ct, vt >= last_read_at AS not_past FROM pgmq.read('r', -2147483648, 1);
SELECT msg_id, read_ct, vt >= last_read_at AS not_past FROM pgmq.read('r', 0, 1);
-- the longest lease; NULL is the table's error
SELECT msg_id, read_ct, vt - last_read_at > '24855 days' AS leased FROM pgmq.read('r', 2147483647, 1);
SELECT pgmq.send('r', '2');
SELECT pgmq.read('r', NULL, 1);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.read('r', NULL, 1, '2');
SELECT msg_id, read_ct FROM pgmq.read('r', 0, 1);

-- quantities
SELECT pgmq.send_batch('r', '{3,4,5}');
SELECT msg_id FROM pgmq.read('r', 0, 0);
SELECT pgmq.read('r', 0, -1);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.read('r', 0, -1, '{"a": 1}');
SELECT msg_id FROM pgmq.pop('r', 0);
SELECT pgmq.pop('r', -1);
\echo :LAST_ERROR_SQLSTATE
SELECT msg_id, read_ct FROM pgmq.read('r', 0, NULL);
SELECT msg_id, read_ct FROM pgmq.read('r', 0, 2147483647);
SELECT msg_id, read_ct FROM pgmq.pop('r');
SELECT msg_id, read_ct, message FROM pgmq.pop(queue_name => 'r', qty => 2);
SELECT msg_id FROM pgmq.pop('r', NULL);
SELECT msg_id FROM pgmq.pop('r', NULL);
-- the one that is still leased
SELECT msg_id, read_ct FROM pgmq.q_r;

-- pop changes neither read_ct nor last_read_at
SELECT pgmq.drop_queue('r');
SELECT pgmq.create('r');
SELECT pgmq.send_batch('r', '{1,2}', '{"{\"h\": 1}", null}'::jsonb[]);
SELECT msg_id FROM pgmq.read('r', 0, 1);
SELECT msg_id, read_ct, last_read_at IS NULL AS never_read, vt = enqueued_at AS fresh, message, headers FROM pgmq.pop('r', 2);
SELECT count(*) FROM pgmq.q_r;

-- rows come in msg_id order, also where due messages mix with fresh ones
SELECT pgmq.drop_queue('r');
SELECT pgmq.create('r');
SELECT pgmq.send_batch('r', '{1,2,3,4,5,6,7}');
SELECT msg_id FROM pgmq.set_vt('r', 6, 0);
SELECT msg_id FROM pgmq.set_vt('r', 4, 0);
SELECT msg_id FROM pgmq.set_vt('r', 1, 30);
SELECT msg_id FROM pgmq.read('r', 0, 5);
-- which ones: first what is due, longest due first, then fresh in msg_id order
SELECT pgmq.drop_queue('r');
SELECT pgmq.create('r');
SELECT pgmq.send_batch('r', '{1,2,3,4,5,6,7}');
SELECT msg_id FROM pgmq.set_vt('r', 6, 0);
SELECT msg_id FROM pgmq.set_vt('r', 4, 0);
SELECT msg_id FROM pgmq.set_vt('r', 1, 30);
SELECT msg_id FROM pgmq.read('r', 30, 1);
SELECT msg_id FROM pgmq.read('r', 30, 2);
SELECT msg_id FROM pgmq.read('r', 30, 1);
SELECT msg_id FROM pgmq.read('r', 30, 3);
-- the same with pop; deferred rows of the same time come in msg_id order
UPDATE pgmq.q_r SET vt = '2001-01-01' WHERE msg_id IN (3, 5, 7);
UPDATE pgmq.q_r SET vt = '2000-01-01' WHERE msg_id = 6;
SELECT msg_id FROM pgmq.pop('r', 2);
SELECT msg_id FROM pgmq.pop('r', 1);
SELECT msg_id FROM pgmq.pop('r', 5);
-- order kept in large results, which spill to disk
SET work_mem = '64kB';
SELECT count(*) FROM pgmq.send_batch('r', ARRAY(SELECT to_jsonb(repeat('x', 100)) FROM generate_series(1, 5000)));
UPDATE pgmq.q_r SET vt = '2000-01-01'::timestamptz + msg_id % 7 * interval '1 s' WHERE msg_id % 3 <> 0;
SELECT count(*), bool_and(msg_id > before) FILTER (WHERE before IS NOT NULL) AS ascending
  FROM (SELECT msg_id, lag(msg_id) OVER (ORDER BY ordinality) AS before FROM pgmq.read('r', 0, 4000) WITH ORDINALITY) AS r;
SELECT count(*), bool_and(msg_id > before) FILTER (WHERE before IS NOT NULL) AS ascending
  FROM (SELECT msg_id, lag(msg_id) OVER (ORDER BY ordinality) AS before FROM pgmq.pop('r', NULL) WITH ORDINALITY) AS r;
RESET work_mem;
-- many small reads hand out everything once
SELECT pgmq.purge_queue('r');
SELECT count(*) FROM pgmq.send_batch('r', ARRAY(SELECT to_jsonb(g) FROM generate_series(1, 1000) AS g));
SELECT count(*), count(DISTINCT msg_id) FROM generate_series(1, 150) AS g, pgmq.read('r', 60, 7 + 0 * g) AS m;
SELECT min(read_ct), max(read_ct) FROM pgmq.q_r;

-- in one transaction: what was sent can be read, what was leased can't, and a rollback gives it back
SELECT pgmq.drop_queue('r');
SELECT pgmq.create('r');
BEGIN;
SELECT pgmq.send('r', '1');
SAVEPOINT unread;
SELECT msg_id, read_ct FROM pgmq.read('r', 30, 5);
SELECT msg_id, read_ct FROM pgmq.read('r', 30, 5);
ROLLBACK TO unread;
SELECT msg_id, read_ct FROM pgmq.read('r', 30, 5);
ROLLBACK TO unread;
SELECT msg_id FROM pgmq.pop('r');
SELECT msg_id FROM pgmq.pop('r');
ROLLBACK TO unread;
COMMIT;
SELECT msg_id, read_ct FROM pgmq.read('r', 0, 5);
-- 'infinity' is never; taken back, it is due
SELECT pgmq.send('r', '2', 'infinity'::timestamptz);
SELECT msg_id FROM pgmq.read('r', 0, 5);
SELECT msg_id FROM pgmq.set_vt('r', 2, '-infinity'::timestamptz);
SELECT msg_id FROM pgmq.read('r', 0, 5);
-- rows written by hand
INSERT INTO pgmq.q_r (vt, message) VALUES (now(), '"by hand"'), (now() - interval '1 day', '"by hand, past"'), (now() + interval '1 day', '"by hand, later"');
UPDATE pgmq.q_r SET vt = now() + interval '1 day' WHERE msg_id = 1;
SELECT msg_id, message FROM pgmq.read('r', 30, 10);

-- the condition is containment in the body
SELECT pgmq.drop_queue('r');
SELECT pgmq.create('r');
SELECT pgmq.send_batch('r', ARRAY['{"a": 1}', '{"a": 1, "b": {"c": [1, 2]}}', '{"a": 2}', '5', '[5, 6]', '[]', '{}', 'null', NULL, '"5"', '[null]']::jsonb[],
                       array_fill('{"a": 3}'::jsonb, ARRAY[11]));
CREATE FUNCTION pg_temp.matches(conditional jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(message::text, '  ' ORDER BY msg_id) FROM pgmq.read('r', 0, 20, conditional)
$$;
SELECT c AS conditional, pg_temp.matches(c) FROM unnest(ARRAY['{"a": 1}', '{"b": {"c": [2]}}', '{"b": {}}', '{"a": 3}', '{"z": null}', '5', '"5"', '[]',
    '[5]', '[[5]]', 'null', '[null]', '""', 'true']::jsonb[]) WITH ORDINALITY AS v (c, n) ORDER BY n;
SELECT count(*) FROM pgmq.read('r', 0, 20, '{}');
SELECT count(*) FROM pgmq.read('r', 0, 20, NULL);
SELECT count(*) FROM pgmq.read(queue_name => 'r', vt => 0, qty => 20, conditional => '{"a": 1}');
-- the quantity counts what matches, and only that is leased
SELECT msg_id FROM pgmq.read('r', 30, 1, '{"a": 2}');
SELECT msg_id FROM pgmq.read('r', 30, 1, '{"a": 2}');
SELECT msg_id FROM pgmq.read('r', 30, 2, '{"a": 1}');
SELECT msg_id FROM pgmq.read('r', 30, 20);

-- wrong types
SELECT pgmq.read('r', '1 minute', 1);
SELECT pgmq.read('r', interval '1 minute', 1);
SELECT pgmq.read('r', 1, 5000000000);
SELECT pgmq.read('r', 1, 1, 'x');
SELECT pgmq.read('r', 1);
SELECT pgmq.pop('r', 1.5);
-- in a transaction that may not write
BEGIN READ ONLY;
SELECT pgmq.read('r', 1, 1);
ROLLBACK;
BEGIN READ ONLY;
SELECT pgmq.pop('r');
ROLLBACK;
-- both may stand wherever a set may
SELECT pgmq.purge_queue('r');
SELECT pgmq.send_batch('r', '{1,2,3,4}');
WITH m AS (SELECT * FROM pgmq.read('r', 30, 2)) SELECT array_agg(msg_id) FROM m;
SELECT (pgmq.pop('r')).message;
SELECT g, message FROM generate_series(1, 2) AS g LEFT JOIN LATERAL pgmq.pop('r', g) ON true;
DO $$
DECLARE m pgmq.message_record;
BEGIN
    PERFORM pgmq.send('r', '"plpgsql"');
    SELECT * INTO m FROM pgmq.read('r', 30, 1);
    RAISE NOTICE 'got %', m.message;
END $$;
SELECT pgmq.drop_queue('r');
