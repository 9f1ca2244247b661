-- Queue names: one identity in any case and any language, never a way to inject SQL.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_encoding = 'UTF8';
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text;
    message text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN state || ' ' || message || CASE WHEN hint <> '' THEN ' | ' || hint ELSE '' END;
END $$;

-- The whole life of a queue, its name spelled in another case each time.
CREATE FUNCTION pg_temp.life(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    big text := upper(name);
    small text := lower(name);
    q text := format('pgmq.%I', 'q_' || lower(name));
    a text := format('pgmq.%I', 'a_' || lower(name));
    ids bigint[];
    n bigint;
BEGIN
    PERFORM pgmq.create(name);
    ASSERT (SELECT relkind = 'r' FROM pg_class WHERE oid = q::regclass), 'queue table';
    ASSERT (SELECT relkind = 'r' FROM pg_class WHERE oid = a::regclass), 'archive table';
    ASSERT (SELECT queue_name FROM pgmq.list_queues() WHERE lower(queue_name) = small) = name, 'spelling';
    ids := ARRAY(SELECT pgmq.send_batch(big, ARRAY['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}', '{"n":5}', '{"n":6}']::jsonb[]));
    ids := ids || ARRAY(SELECT pgmq.send(small, '{"n":7}'));
    ASSERT ids = '{1,2,3,4,5,6,7}', ids::text;
    ASSERT ARRAY(SELECT msg_id FROM pgmq.read(big, 30, 2)) = '{1,2}', 'read';
    ASSERT ARRAY(SELECT msg_id FROM pgmq.read_with_poll(small, 30, 1, 0)) = '{3}', 'poll';
    ASSERT ARRAY(SELECT msg_id FROM pgmq.set_vt(name, 3, 0)) = '{3}', 'set_vt';
    ASSERT ARRAY(SELECT msg_id FROM pgmq.set_vt(big, ARRAY[1::bigint], 0)) = '{1}', 'set_vt';
    ASSERT ARRAY(SELECT msg_id FROM pgmq.pop(big)) = '{3}', 'pop';
    ASSERT pgmq.delete(small, 1), 'delete';
    ASSERT ARRAY(SELECT pgmq.delete(big, ARRAY[2]::bigint[])) = '{2}', 'delete';
    ASSERT pgmq.archive(big, 4), 'archive';
    ASSERT ARRAY(SELECT pgmq.archive(small, ARRAY[5]::bigint[])) = '{5}', 'archive';
    EXECUTE format('SELECT count(*) FROM %s WHERE (message->>%L)::int IN (4, 5)', a, 'n') INTO n;
    ASSERT n = 2, 'archived';
    ASSERT (SELECT queue_length FROM pgmq.metrics(small)) = 2, 'metrics';
    ASSERT (SELECT count(*) FROM pgmq.metrics_all() WHERE queue_name = name) = 1, 'metrics_all';
    PERFORM pgmq.acquire_queue_lock(big);
    ASSERT pgmq.purge_queue(big) = 2, 'purge';
    ASSERT pgmq.drop_queue(big), 'drop';
    ASSERT to_regclass(q) IS NULL AND to_regclass(a) IS NULL, 'dropped';
    ASSERT NOT EXISTS (SELECT FROM pgmq.meta WHERE lower(queue_name) = small), 'meta';
    ASSERT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname !~ '^(meta|policy|stream|subscription|partition_config|queues_to_upgrade|(idx_)?topic_bindings|topic_stream_bindings|notify_insert_throttle|idx_notify)'
                       AND relkind <> 'c'), 'left behind';
    RETURN 'ok';
END $$;
CREATE TEMPORARY TABLE names (n serial, name text);
INSERT INTO names (name) VALUES
    ('plain'), ('MiXeD'), ('SHOUT'), ('with space'), (' around '), ('dot.ted.name'), ('a"quote'), ('"'), ('""'),
    ('%s %n %d'), ('%I%L%%'), (E'back\\slash'), (E'\\'), (E'tab\tnew\nline'), ('select'), ('null'), ('pg_temp'),
    ('{queue}'), ('{archive}{sequence}'), ('-'), ('a-b'), ('-a-'), ('1'), ('_'), ('a) FROM pg_class /*'),
    ('x" (msg_id) VALUES (1)'), ('q_x'), ('meta'), ('ÄÖÜ'), ('Ünï çødé'), ('日本語'), ('ДЛЯ'), ('🐘'),
    (repeat('x', 47)), (repeat('X', 47)), (repeat('é', 23) || 'x'), (repeat('"', 47)), (repeat('%s', 23)), (repeat('語', 15) || 'ab');
\pset format unaligned
SELECT to_json(name), octet_length(name) AS bytes, pg_temp.attempt(format('SELECT pg_temp.life(%L)', name)) FROM names ORDER BY n;
\pset format aligned

-- 47 bytes, not characters; both spellings must fit
SELECT octet_length(name) AS bytes, length(name) AS chars,
       pg_temp.attempt(format('SELECT pgmq.create(%L)', name)) AS "create",
       pg_temp.attempt(format('SELECT pgmq.create_non_partitioned(%L)', name)) AS create_non_partitioned,
       pg_temp.attempt(format('SELECT pgmq.create_unlogged(%L)', name)) AS create_unlogged,
       pg_temp.attempt(format('SELECT pgmq.validate_queue_name(%L)', name)) AS validate_queue_name
  FROM (VALUES (1, repeat('x', 48)), (2, repeat('é', 24)), (3, repeat('語', 16)), (4, repeat('x', 63)), (5, repeat('x', 64)),
               (6, repeat('x', 1000000)), (7, '')) AS v (n, name)
 ORDER BY n;
-- a letter whose lower case is longer: 46 bytes become 69
SELECT octet_length(lower(repeat('Ⱥ', 23))), pg_temp.attempt('SELECT pgmq.create(repeat(''Ⱥ'', 23))');
-- characters are checked before the length
SELECT pg_temp.attempt('SELECT pgmq.create('';'' || repeat(''x'', 60))');
SELECT pgmq.validate_queue_name(repeat('é', 23) || 'x'), pgmq.validate_queue_name(NULL);
SELECT pg_temp.attempt('SELECT pgmq.create(NULL)');
SELECT pg_temp.attempt('SELECT pgmq.create_unlogged(NULL)');
SELECT count(*) FROM pgmq.meta;
-- two names of the full length that differ in the last byte are two queues
SELECT pgmq.create(repeat('y', 46) || 'a'), pgmq.create(repeat('y', 46) || 'b');
SELECT pgmq.send(repeat('y', 46) || 'a', '1'), pgmq.send(repeat('Y', 46) || 'b', '2'), pgmq.send(repeat('y', 46) || 'b', '3');
SELECT right(queue_name, 2), queue_length FROM pgmq.metrics_all() ORDER BY 1;
SELECT pgmq.drop_queue(repeat('y', 46) || 'A');
SELECT msg_id, message FROM pgmq.pop(repeat('y', 46) || 'b', 5);
SELECT pgmq.drop_queue(repeat('y', 46) || 'b');

-- A second create in another case is the idempotent path; the first spelling stays.
SELECT pgmq.create('Orders');
SELECT pgmq.send('orders', '{"kept": true}');
SELECT pgmq.create('ORDERS');
SELECT pgmq.create_non_partitioned('orders');
SELECT queue_name, is_partitioned, is_unlogged FROM pgmq.list_queues();
SELECT queue_name, queue_length FROM pgmq.metrics('oRdErS');
SELECT queue_name, queue_length FROM pgmq.metrics_all();
SELECT pgmq.drop_queue('orderS');
SELECT count(*) FROM pgmq.list_queues();

-- Every function: what it says about a queue that is not there, NULL, a refused character, the empty name, a long one.
CREATE TEMPORARY TABLE calls (n serial, call text);
INSERT INTO calls (call) VALUES
    ('pgmq.send(%s, ''1''::jsonb)'),
    ('pgmq.send(%s, ''1''::jsonb, headers => ''{}''::jsonb)'),
    ('pgmq.send(%s, ''1''::jsonb, delay => 1)'),
    ('pgmq.send(%s, ''1''::jsonb, delay => now())'),
    ('pgmq.send(%s, ''1''::jsonb, ''{}''::jsonb, 1)'),
    ('pgmq.send(%s, ''1''::jsonb, ''{}''::jsonb, now())'),
    ('pgmq.send_batch(%s, ''{1}''::jsonb[])'),
    ('pgmq.send_batch(%s, ''{1}''::jsonb[], ''{1}''::jsonb[])'),
    ('pgmq.send_batch(%s, ''{1}''::jsonb[], 1)'),
    ('pgmq.send_batch(%s, ''{1}''::jsonb[], now())'),
    ('pgmq.send_batch(%s, ''{1}''::jsonb[], ''{1}''::jsonb[], 1)'),
    ('pgmq.send_batch(%s, ''{1}''::jsonb[], ''{1}''::jsonb[], now())'),
    ('pgmq._send_batch(%s, ''{1}''::jsonb[], NULL, now())'),
    ('pgmq.read(%s, 1, 1)'),
    ('pgmq.read(%s, 1, 1, ''{"a":1}'')'),
    ('pgmq.read_with_poll(%s, 1, 1, 0)'),
    ('pgmq.pop(%s)'),
    ('pgmq.delete(%s, 1)'),
    ('pgmq.delete(%s, ''{1}''::bigint[])'),
    ('pgmq.archive(%s, 1)'),
    ('pgmq.archive(%s, ''{1}''::bigint[])'),
    ('pgmq.set_vt(%s, 1, 1)'),
    ('pgmq.set_vt(%s, 1, now())'),
    ('pgmq.set_vt(%s, ''{1}''::bigint[], 1)'),
    ('pgmq.set_vt(%s, ''{1}''::bigint[], now())'),
    ('pgmq.purge_queue(%s)'),
    ('pgmq.metrics(%s)');
CREATE FUNCTION pg_temp.attempt_all(name text) RETURNS TABLE (calls bigint, outcome text) LANGUAGE sql AS $$
    SELECT count(*), outcome
      FROM (SELECT n, pg_temp.attempt('SELECT ' || format(call, quote_nullable(name) || '::text')) AS outcome FROM calls) AS c
     GROUP BY outcome ORDER BY min(n)
$$;
SELECT n, split_part(call, '(', 1) AS function, pg_temp.attempt('SELECT ' || format(call, '''no Such''')) FROM calls ORDER BY n;
SELECT * FROM pg_temp.attempt_all(NULL);
SELECT * FROM pg_temp.attempt_all('');
SELECT * FROM pg_temp.attempt_all('%s"\');
SELECT * FROM pg_temp.attempt_all('a;b');
SELECT * FROM pg_temp.attempt_all('a$b');
SELECT * FROM pg_temp.attempt_all('a--b');
SELECT * FROM pg_temp.attempt_all('a''b');
SELECT * FROM pg_temp.attempt_all('x"; DROP TABLE pgmq.meta; --');
SELECT * FROM pg_temp.attempt_all(repeat('x', 48));
SELECT calls, left(outcome, 5) AS outcome FROM pg_temp.attempt_all(repeat('x', 61));
SELECT calls, left(outcome, 5) AS outcome FROM pg_temp.attempt_all(repeat('x', 62));
SELECT calls, left(outcome, 5) AS outcome FROM pg_temp.attempt_all(repeat('é', 32));
SELECT calls, left(outcome, 5) AS outcome FROM pg_temp.attempt_all(repeat('é', 100000));
-- a name that is too long finds no table by its first bytes
SELECT pgmq.create(repeat('z', 47));
SELECT calls, left(outcome, 5) AS outcome FROM pg_temp.attempt_all(repeat('z', 48));
SELECT calls, left(outcome, 5) AS outcome FROM pg_temp.attempt_all(repeat('z', 70));
SELECT pgmq.drop_queue(repeat('z', 47));
-- functions on names that are not in that list
SELECT call, pg_temp.attempt('SELECT ' || call) FROM (VALUES
    ('pgmq.create(''a;b'')'), ('pgmq.create(''a$b'')'), ('pgmq.create(''a--b'')'), ('pgmq.create(''a''''b'')'),
    ('pgmq.create_non_partitioned(''$'')'), ('pgmq.create_unlogged(''a--'')'),
    ('pgmq.drop_queue(''a;b'')'), ('pgmq.drop_queue(''a$b'', true)'), ('pgmq.detach_archive(''a--b'')'),
    ('pgmq.acquire_queue_lock(''a''''b'')'), ('pgmq.format_table_name(''a;b'', ''q'')'), ('pgmq.format_table_name(''a--b'', ''q'')')) AS v (call);
-- nothing of that left anything behind
SELECT count(*) FROM pgmq.meta;
SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r' AND relname ~ '^[qa]_';

-- format_table_name: the bare table name, not quoted
SELECT pgmq.format_table_name('Orders', 'q'), pgmq.format_table_name('a "b".C', 'A'), pgmq.format_table_name('', 'q'),
       pgmq.format_table_name('ÄÖ', 'q'), pgmq.format_table_name('%s', '%n'), length(pgmq.format_table_name(repeat('x', 100), 'q'));
SELECT pgmq.format_table_name(NULL, 'q') IS NULL AS no_queue, pgmq.format_table_name('q', NULL) IS NULL AS no_prefix;
