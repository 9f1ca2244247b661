-- send and send_batch: every overload, what is stored, what is refused.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('s');
-- What is in the queue.  A function, because a view would keep the queue from being dropped.
CREATE FUNCTION pg_temp.stored() RETURNS TABLE (msg_id bigint, read_ct integer, last_read_at timestamptz, message jsonb, headers jsonb, visible text)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE $sql$
        SELECT msg_id, read_ct, last_read_at, message, headers,
               CASE WHEN vt = enqueued_at THEN 'fresh' WHEN vt = 'infinity' THEN 'never'
                    WHEN vt > enqueued_at THEN 'after ' || extract(epoch FROM vt - enqueued_at)::bigint ELSE 'in the past' END
          FROM pgmq.q_s ORDER BY msg_id $sql$;
END $$;

-- one message: the column has the function's name, the ids go up
SELECT send FROM pgmq.send('s', '{"a": 1}');
SELECT pgmq.send('s', '2');
SELECT g, send FROM generate_series(3, 5) AS g, pgmq.send('s', to_jsonb(g));
SELECT pgmq.send('s', to_jsonb(g)) FROM generate_series(6, 7) AS g;
-- beside a longer set in a select list it still sends once
SELECT pgmq.send('s', '8'), generate_series(1, 3);
SELECT * FROM pg_temp.stored();
SELECT pgmq.purge_queue('s');

-- every overload, by position and by name
SELECT pgmq.send('s', '1'), pgmq.send(queue_name => 's', msg => '2');
SELECT pgmq.send('s', '3', '{"h": 3}'::jsonb), pgmq.send(queue_name => 's', msg => '4', headers => '{"h": 4}');
SELECT pgmq.send('s', '5', 5), pgmq.send(queue_name => 's', msg => '6', delay => 6);
SELECT pgmq.send('s', '7', 'infinity'::timestamptz), pgmq.send(queue_name => 's', msg => '8', delay => 'infinity'::timestamptz);
SELECT pgmq.send('s', '9', '{"h": 9}', 9), pgmq.send(queue_name => 's', msg => '10', headers => '{"h": 10}', delay => 10);
SELECT pgmq.send('s', '11', '{"h": 11}', 'infinity'::timestamptz),
       pgmq.send(queue_name => 's', msg => '12', headers => '{"h": 12}', delay => 'infinity'::timestamptz);
SELECT * FROM pg_temp.stored();
SELECT pgmq.purge_queue('s');

-- ambiguous where the published interface is: no overload may be added, none dropped
SELECT pgmq.send('s', '{}', '{}');
SELECT pgmq.send('s', '{}', NULL);
SELECT pgmq.send('s', '{}', '2030-01-01');
SELECT pgmq.send('s', '{}', delay => '2030-01-01');
SELECT pgmq.send('s', '{}', delay => NULL);
SELECT pgmq.send_batch('s', ARRAY['{}']::jsonb[], NULL);
-- drivers leave parameters untyped; these resolve
PREPARE untyped AS SELECT pgmq.send($1, $2);
EXECUTE untyped('s', '{"untyped": true}');
PREPARE untyped_headers AS SELECT pgmq.send($1, $2, headers => $3);
EXECUTE untyped_headers('s', '1', '{"h": 1}');
PREPARE untyped_batch AS SELECT pgmq.send_batch($1, $2);
EXECUTE untyped_batch('s', '{1,2}');
DEALLOCATE ALL;
SELECT pgmq.purge_queue('s');

-- wrong types
SELECT pgmq.send('s', 5);
SELECT pgmq.send('s', '{}'::text);
SELECT pgmq.send('s', 'not json');
SELECT pgmq.send('s', '');
SELECT pgmq.send(5, '{}');
SELECT pgmq.send('s', '{}'::jsonb, 1.5);
SELECT pgmq.send('s', '{}'::jsonb, 5::bigint);
SELECT pgmq.send('s', '{}'::jsonb, '2999-01-01'::timestamp);
SELECT pgmq.send('s', '{}'::jsonb, 99999999999999);
SELECT pgmq.send_batch('s', '{}'::jsonb);
SELECT pgmq.send_batch('s', ARRAY['{}']);
SELECT pgmq.send_batch('s', '{{1,2},{3}}');
SELECT msg_id, message, visible LIKE 'after %' AS delayed FROM pg_temp.stored();
SELECT pgmq.purge_queue('s');

-- SQL NULL is not JSON null; headers may be any JSON
SELECT pgmq.send('s', NULL), pgmq.send('s', 'null'), pgmq.send('s', 'null', 'null'::jsonb), pgmq.send('s', NULL, NULL::jsonb);
SELECT pgmq.send('s', '""', '5'::jsonb), pgmq.send('s', '[]', '"x"'::jsonb), pgmq.send('s', '{}', '[1]'::jsonb);
SELECT msg_id, message, message IS NULL AS sql_null, headers, headers IS NULL AS no_headers FROM pg_temp.stored();
SELECT msg_id, message, message IS NULL AS sql_null, headers, headers IS NULL AS no_headers FROM pgmq.read('s', 30, 10);
SELECT pgmq.purge_queue('s');

-- 1 byte and 10 MB
SELECT pgmq.send('s', '1');
SELECT pgmq.send('s', to_jsonb(repeat('0123456789', 1024 * 1024)), to_jsonb(repeat('abcdefghij', 1024 * 1024)));
-- not compressible
SELECT pgmq.send('s', (SELECT to_jsonb(string_agg(md5(g::text), '')) FROM generate_series(1, 327680) AS g));
SELECT msg_id, length(message #>> '{}'), md5(message #>> '{}') IN (md5('1'), md5(repeat('0123456789', 1024 * 1024)),
       (SELECT md5(string_agg(md5(g::text), '')) FROM generate_series(1, 327680) AS g)) AS intact,
       md5(headers #>> '{}') = md5(repeat('abcdefghij', 1024 * 1024)) AS headers_intact
  FROM pgmq.read('s', 30, 10);
SELECT pgmq.archive('s', ARRAY(SELECT msg_id FROM pgmq.q_s WHERE octet_length(message::text) > 10000000)) IS NOT NULL AS archived;
SELECT count(*), min(length(message #>> '{}')) FROM pgmq.a_s;

-- delays; what is past means now, and so the message is as fresh as one without a delay
SELECT pgmq.drop_queue('s');
SELECT pgmq.create('s');
SELECT pgmq.send('s', '"0"', 0), pgmq.send('s', '"-1"', -1), pgmq.send('s', '"min"', -2147483648);
SELECT pgmq.send('s', '"max"', 2147483647);
SELECT pgmq.send('s', '"a second ago"', clock_timestamp() - interval '1 s'), pgmq.send('s', '"-infinity"', '-infinity'::timestamptz);
SELECT pgmq.send('s', '"infinity"', 'infinity'::timestamptz), pgmq.send('s', '"date"', '4713-01-01 BC'::timestamptz);
SELECT pgmq.send_batch('s', '{1,2}'::jsonb[], -1), pgmq.send_batch('s', '{3,4}'::jsonb[], '-infinity'::timestamptz);
SELECT pgmq.send_batch('s', '{5,6}'::jsonb[], '{7,8}'::jsonb[], 'infinity'::timestamptz);
SELECT msg_id, message, headers, visible FROM pg_temp.stored();
SELECT msg_id, message FROM pgmq.read('s', 30, 100);
SELECT count(*) FROM pgmq.q_s WHERE vt < last_read_at OR last_read_at < enqueued_at;
SELECT pgmq.purge_queue('s');
-- a time to come is kept as given
SELECT pgmq.send('s', '1', '2999-12-31 23:59:59.123456+00'::timestamptz);
SELECT vt = '2999-12-31 23:59:59.123456+00' AS as_given FROM pgmq.q_s;
-- the clock at the send, not the start of the transaction, in ascending order
SELECT pgmq.purge_queue('s');
BEGIN;
SELECT pgmq.send('s', '1'), pgmq.send('s', '2', 10), pgmq.send('s', '3', now());
SELECT pgmq.send_batch('s', '{4,5}');
SELECT bool_and(enqueued_at > now()) AS after_begin, bool_and(enqueued_at <= clock_timestamp()) AS not_ahead,
       array_agg(msg_id ORDER BY enqueued_at, msg_id) = array_agg(msg_id ORDER BY msg_id) AS ascending FROM pgmq.q_s;
-- a batch has one time
SELECT count(DISTINCT enqueued_at) FROM pgmq.q_s WHERE message IN ('4', '5');
COMMIT;
SELECT pgmq.drop_queue('s');
SELECT pgmq.create('s');

-- a NULL delay is the table's error, in every overload, and costs an id
SELECT pgmq.send('s', '1', NULL::integer);
SELECT pgmq.send('s', '1', NULL::timestamptz);
SELECT pgmq.send('s', '1', '{}', NULL::integer);
SELECT pgmq.send('s', '1', '{}', NULL::timestamptz);
SELECT pgmq.send_batch('s', '{1}', NULL::integer);
SELECT pgmq.send_batch('s', '{1}', NULL::timestamptz);
SELECT pgmq.send_batch('s', '{1}', '{1}'::jsonb[], NULL::integer);
SELECT pgmq.send_batch('s', '{1}', '{1}'::jsonb[], NULL::timestamptz);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.send('s', '9');
-- so does a send that is rolled back
BEGIN;
SELECT pgmq.send('s', '10');
SAVEPOINT one;
SELECT pgmq.send('s', '11');
ROLLBACK TO one;
COMMIT;
SELECT pgmq.send('s', '12');
SELECT msg_id, message FROM pgmq.pop('s', 10);
SELECT pgmq.drop_queue('s');
SELECT pgmq.create('s');

-- batches: array order, one column of the function's name
SELECT send_batch FROM pgmq.send_batch('s', ARRAY['"c"', '"a"', '"b"']::jsonb[]);
SELECT send_batch FROM pgmq.send_batch(queue_name => 's', msgs => '{4}'::jsonb[], headers => '{"{\"h\": 4}"}'::jsonb[]);
SELECT pgmq.send_batch(queue_name => 's', msgs => '{5,6}'::jsonb[], delay => 5);
SELECT pgmq.send_batch(queue_name => 's', msgs => '{7}'::jsonb[], delay => 'infinity'::timestamptz);
SELECT pgmq.send_batch(queue_name => 's', msgs => '{8,9}'::jsonb[], headers => '{1,2}'::jsonb[], delay => 8);
SELECT pgmq.send_batch(queue_name => 's', msgs => '{10}'::jsonb[], headers => '{3}'::jsonb[], delay => 'infinity'::timestamptz);
SELECT * FROM pg_temp.stored();
SELECT pgmq.drop_queue('s');
SELECT pgmq.create('s');
-- NULL elements, SQL and JSON; several dimensions; other lower bounds
SELECT pgmq.send_batch('s', ARRAY[NULL, 'null', '1']::jsonb[], ARRAY['1', NULL, 'null']::jsonb[]);
SELECT pgmq.send_batch('s', '{{4,5},{6,7}}');
SELECT pgmq.send_batch('s', '{{8,9},{10,11}}', '{1,2}'::jsonb[]);
SELECT pgmq.send_batch('s', '{{12,13},{14,15}}', '{{1,2},{3,4}}'::jsonb[]);
SELECT pgmq.send_batch('s', '[5:6]={16,17}', '[-3:-2]={1,2}'::jsonb[]);
SELECT pgmq.send_batch('s', '[0:1][7:7]={{18},{19}}', NULL::jsonb[]);
SELECT msg_id, message, message IS NULL AS sql_null, headers, headers IS NULL AS no_headers FROM pg_temp.stored();
-- refused
SELECT pgmq.send_batch('s', NULL);
SELECT pgmq.send_batch('s', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.send_batch('s', NULL, 1);
SELECT pgmq.send_batch('s', '{}', now());
SELECT pgmq.send_batch('s', NULL, NULL::jsonb[]);
SELECT pgmq.send_batch('s', '{}', '{}'::jsonb[], 1);
SELECT pgmq.send_batch('s', NULL, '{1}'::jsonb[], now());
SELECT pgmq.send_batch('s', '{1,2}', '{1}'::jsonb[]);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.send_batch('s', '{1}', '{1,2}'::jsonb[], 1);
SELECT pgmq.send_batch('s', '{1}', '{}'::jsonb[], now());
SELECT pgmq.send_batch('s', '{{1,2}}', '{1,2}'::jsonb[]);
-- nothing of a refused batch is stored; NULL headers are no headers
SELECT pgmq.send_batch('s', '{20}', NULL::jsonb[], 0), pgmq.send_batch('s', '{21}', NULL::jsonb[], now());
SELECT msg_id, message, headers FROM pg_temp.stored() WHERE msg_id > 19;
-- a long batch
SELECT count(*), bool_and(send_batch = 21 + ordinality) AS in_order
  FROM pgmq.send_batch('s', ARRAY(SELECT to_jsonb(g) FROM generate_series(22, 10021) AS g)) WITH ORDINALITY;
SELECT count(*) FROM pgmq.q_s WHERE msg_id > 21 AND message <> to_jsonb(msg_id);
SELECT pgmq.drop_queue('s');
SELECT pgmq.create('s');

-- the private helpers
SELECT pgmq._validate_batch_params('{1}', NULL), pgmq._validate_batch_params('{1}', '{1}');
SELECT pgmq._validate_batch_params(NULL, NULL);
SELECT pgmq._validate_batch_params('{}', NULL);
SELECT pgmq._validate_batch_params('{1,2,3}', '{1,2}');
SELECT _send_batch FROM pgmq._send_batch('s', '{1,2,3}', '{1}', '-infinity');
SELECT pgmq._send_batch('s', NULL, NULL, now());
SELECT pgmq._send_batch('s', '{}', '{}', now());
SELECT pgmq._send_batch('s', '{4}', NULL, 'infinity');
SELECT pgmq._send_batch('s', '{5}', NULL, NULL);
SELECT msg_id, message, headers, visible FROM pg_temp.stored();

-- in a transaction that may not write
BEGIN READ ONLY;
SELECT pgmq.send('s', '1');
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.drop_queue('s');
