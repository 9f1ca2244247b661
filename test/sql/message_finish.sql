-- delete, archive and set_vt: one message or many, leased or not.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('f');
-- one message: true; missing or NULL: false
SELECT pgmq.send_batch('f', '{1,2,3,4,5,6}');
SELECT delete FROM pgmq.delete('f', 1);
SELECT archive FROM pgmq.archive('f', 2);
SELECT pgmq.delete(queue_name => 'f', msg_id => 1), pgmq.delete('f', 2), pgmq.delete('f', 0), pgmq.delete('f', -1),
       pgmq.delete('f', 9223372036854775807), pgmq.delete('f', NULL::bigint);
SELECT pgmq.archive(queue_name => 'f', msg_id => 2), pgmq.archive('f', 1), pgmq.archive('f', 0), pgmq.archive('f', -9223372036854775808),
       pgmq.archive('f', NULL::bigint);
SELECT msg_id, message FROM pgmq.q_f ORDER BY 1;
SELECT msg_id, message FROM pgmq.a_f ORDER BY 1;

-- arrays: the ids that existed, each once
SELECT pgmq.drop_queue('f');
SELECT pgmq.create('f');
SELECT count(*) FROM pgmq.send_batch('f', ARRAY(SELECT to_jsonb(g) FROM generate_series(1, 30) AS g));
SELECT delete FROM pgmq.delete('f', ARRAY[3, 1, 2]) ORDER BY 1;
SELECT archive FROM pgmq.archive('f', ARRAY[6, 4, 5]::bigint[]) ORDER BY 1;
SELECT array_agg(delete ORDER BY delete) FROM pgmq.delete(queue_name => 'f', msg_ids => '{7,7,NULL,1,0,99,8,7}');
SELECT array_agg(archive ORDER BY archive) FROM pgmq.archive(queue_name => 'f', msg_ids => '{9,9,NULL,1,0,99,10,9}');
SELECT array_agg(delete ORDER BY delete) FROM pgmq.delete('f', '{{11,12},{NULL,13}}'::bigint[]);
SELECT array_agg(archive ORDER BY archive) FROM pgmq.archive('f', '[7:7][-1:0]={{14,15}}'::bigint[]);
SELECT * FROM pgmq.delete('f', '{}'::bigint[]);
SELECT * FROM pgmq.delete('f', NULL::bigint[]);
SELECT * FROM pgmq.delete('f', '{NULL,NULL}'::bigint[]);
SELECT * FROM pgmq.archive('f', '{}'::bigint[]);
SELECT * FROM pgmq.archive('f', NULL::bigint[]);
SELECT * FROM pgmq.archive('f', '{NULL}'::bigint[]);
SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.q_f;
SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.a_f;
SELECT count(*) FROM pgmq.send_batch('f', ARRAY(SELECT to_jsonb(g) FROM generate_series(1, 5000) AS g));
SELECT count(*), count(DISTINCT delete), min(delete), max(delete) FROM pgmq.delete('f', ARRAY(SELECT g FROM generate_series(6000, 41, -2) AS g));
SELECT count(*), count(DISTINCT archive), min(archive), max(archive) FROM pgmq.archive('f', ARRAY(SELECT g FROM generate_series(6000, 41, -1) AS g));
SELECT queue_length FROM pgmq.metrics('f');

-- what is archived is the message as it was, and when
SELECT pgmq.drop_queue('f');
SELECT pgmq.create('f');
SELECT pgmq.send('f', '{"x": 1}', '{"h": 1}'::jsonb), pgmq.send('f', NULL), pgmq.send('f', 'null', 'null', 'infinity'::timestamptz);
SELECT msg_id FROM pgmq.read('f', 30, 1);
CREATE TEMPORARY TABLE before AS SELECT * FROM pgmq.q_f;
BEGIN;
SELECT pgmq.archive('f', 1), pgmq.archive('f', ARRAY[2, 3]::bigint[]);
SELECT msg_id, read_ct, a.archived_at = now() AS archived_at_begin, a.message, a.message IS NULL AS sql_null, a.headers,
       (a.enqueued_at, a.last_read_at, a.vt) IS NOT DISTINCT FROM (b.enqueued_at, b.last_read_at, b.vt) AS same_times
  FROM pgmq.a_f AS a JOIN before AS b USING (msg_id, read_ct) ORDER BY msg_id;
COMMIT;
-- an id that the archive has already: an error, and the message stays
INSERT INTO pgmq.q_f (msg_id, vt) OVERRIDING SYSTEM VALUE VALUES (1, now());
SELECT pgmq.archive('f', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.send('f', '4');
SELECT pgmq.archive('f', ARRAY[4, 1]::bigint[]);
SELECT msg_id FROM pgmq.q_f ORDER BY 1;
SELECT pgmq.archive('f', 4);

-- messages that are hidden can be finished: leased, delayed, never visible
SELECT pgmq.drop_queue('f');
SELECT pgmq.create('f');
SELECT pgmq.send_batch('f', '{1,2,3}', 60), pgmq.send_batch('f', '{4,5,6}', 'infinity'::timestamptz), pgmq.send_batch('f', '{7,8,9}');
SELECT msg_id FROM pgmq.read('f', 60, 3);
SELECT pgmq.delete('f', 1), pgmq.delete('f', 4), pgmq.delete('f', 7), pgmq.archive('f', 2), pgmq.archive('f', 5), pgmq.archive('f', 8);
SELECT msg_id FROM pgmq.set_vt('f', ARRAY[3, 6, 9]::bigint[], 0);
SELECT msg_id FROM pgmq.read('f', 60, 10);

-- set_vt: changes vt alone, returns the message
SELECT pgmq.drop_queue('f');
SELECT pgmq.create('f');
SELECT * FROM pgmq.set_vt('f', 1, 1) \gdesc
SELECT pgmq.send_batch('f', '{1,2,3,4,5}', '{11,12,13,14,15}'::jsonb[]);
SELECT msg_id FROM pgmq.read('f', 0, 1);
CREATE TEMPORARY TABLE before_vt AS SELECT * FROM pgmq.q_f;
SELECT s.msg_id, s.read_ct, s.message, s.headers, s.vt > clock_timestamp() + interval '50 s' AND s.vt < clock_timestamp() + interval '60 s' AS in_a_minute,
       (s.enqueued_at, s.last_read_at) IS NOT DISTINCT FROM (b.enqueued_at, b.last_read_at) AS others_same
  FROM pgmq.set_vt(queue_name => 'f', msg_id => 1, vt => 60) AS s JOIN before_vt AS b USING (msg_id) ORDER BY s.msg_id;
SELECT s.msg_id, s.read_ct, s.message, s.headers, s.vt = '2999-01-01 00:00:00.000001+00' AS as_given,
       (s.enqueued_at, s.last_read_at) IS NOT DISTINCT FROM (b.enqueued_at, b.last_read_at) AS others_same
  FROM pgmq.set_vt(queue_name => 'f', msg_id => 2, vt => '2999-01-01 00:00:00.000001+00'::timestamptz) AS s JOIN before_vt AS b USING (msg_id) ORDER BY s.msg_id;
SELECT s.msg_id, s.read_ct, s.message, s.headers, s.vt > clock_timestamp() + interval '50 s' AND s.vt < clock_timestamp() + interval '60 s' AS in_a_minute,
       (s.enqueued_at, s.last_read_at) IS NOT DISTINCT FROM (b.enqueued_at, b.last_read_at) AS others_same
  FROM pgmq.set_vt(queue_name => 'f', msg_ids => ARRAY[1, 3]::bigint[], vt => 60) AS s JOIN before_vt AS b USING (msg_id) ORDER BY s.msg_id;
SELECT s.msg_id, s.read_ct, s.message, s.headers, s.vt = '2999-01-01 00:00:00.000001+00' AS as_given,
       (s.enqueued_at, s.last_read_at) IS NOT DISTINCT FROM (b.enqueued_at, b.last_read_at) AS others_same
  FROM pgmq.set_vt(queue_name => 'f', msg_ids => ARRAY[4, 2]::bigint[], vt => '2999-01-01 00:00:00.000001+00'::timestamptz) AS s JOIN before_vt AS b USING (msg_id) ORDER BY s.msg_id;
-- rows in msg_id order, each once
SELECT msg_id FROM pgmq.set_vt('f', ARRAY[5, 3, 1, 4, 2]::bigint[], 0);
SELECT msg_id FROM pgmq.set_vt('f', '{{4,2},{99,4}}'::bigint[], now());
SELECT msg_id FROM pgmq.set_vt('f', '[8:10]={5,NULL,1}'::bigint[], 0);
-- what is past means now: vt is never earlier than the moment it was set
CREATE FUNCTION pg_temp.not_past(call text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz := clock_timestamp();
    result boolean;
BEGIN
    EXECUTE format('SELECT bool_and(vt >= $1 AND vt <= clock_timestamp()) FROM %s', call) INTO result USING started;
    RETURN result;
END $$;
SELECT call, pg_temp.not_past(call) FROM unnest(ARRAY[
    'pgmq.set_vt(''f'', 1, 0)', 'pgmq.set_vt(''f'', 1, -1)', 'pgmq.set_vt(''f'', 1, -2147483648)', 'pgmq.set_vt(''f'', ''{1,2}''::bigint[], -5)',
    'pgmq.set_vt(''f'', 1, now() - interval ''1 day'')', 'pgmq.set_vt(''f'', 1, ''-infinity''::timestamptz)',
    'pgmq.set_vt(''f'', ''{1,2}''::bigint[], ''-infinity''::timestamptz)', 'pgmq.set_vt(''f'', 1, ''4713-01-01 BC''::timestamptz)']) AS call;
-- a message made visible is handed out; one that is never visible is not
SELECT msg_id, vt = 'infinity' AS never FROM pgmq.set_vt('f', 1, 'infinity'::timestamptz);
SELECT msg_id, vt = 'infinity' AS never FROM pgmq.set_vt('f', ARRAY[2]::bigint[], 'infinity'::timestamptz);
SELECT msg_id, vt > now() + interval '24855 days' AS late FROM pgmq.set_vt('f', 3, 2147483647);
SELECT msg_id FROM pgmq.read('f', 60, 10);
SELECT msg_id FROM pgmq.set_vt('f', ARRAY[1, 2, 3]::bigint[], '-infinity'::timestamptz);
SELECT msg_id FROM pgmq.read('f', 60, 10);
-- missing, NULL, empty: no rows
SELECT count(*) FROM pgmq.set_vt('f', 99, 1);
SELECT count(*) FROM pgmq.set_vt('f', NULL::bigint, 1);
SELECT count(*) FROM pgmq.set_vt('f', NULL::bigint, now());
SELECT count(*) FROM pgmq.set_vt('f', '{}'::bigint[], 1);
SELECT count(*) FROM pgmq.set_vt('f', NULL::bigint[], 1);
SELECT count(*) FROM pgmq.set_vt('f', '{NULL}'::bigint[], now());
SELECT count(*) FROM pgmq.set_vt('f', 99, NULL::integer);
-- a NULL time is the table's error
SELECT pgmq.set_vt('f', 1, NULL::integer);
SELECT pgmq.set_vt('f', 1, NULL::timestamptz);
SELECT pgmq.set_vt('f', '{1}'::bigint[], NULL::integer);
SELECT pgmq.set_vt('f', '{1}'::bigint[], NULL::timestamptz);
\echo :LAST_ERROR_SQLSTATE

-- ambiguous where the published interface is
SELECT pgmq.delete('f', '{5}');
SELECT pgmq.delete('f', NULL);
SELECT pgmq.archive('f', '{5}');
SELECT pgmq.archive('f', NULL);
SELECT pgmq.set_vt('f', 1, '2030-01-01');
SELECT pgmq.set_vt('f', 1, NULL);
\echo :LAST_ERROR_SQLSTATE
-- wrong types
SELECT pgmq.delete('f', 1.5);
SELECT pgmq.delete('f', '1'::text);
SELECT pgmq.delete('f', 99999999999999999999);
SELECT pgmq.archive('f', ARRAY['1']);
SELECT pgmq.set_vt('f', 1, interval '1 min');
SELECT pgmq.set_vt('f', 1, 5000000000);
\echo :LAST_ERROR_SQLSTATE
-- undone by a rollback
BEGIN;
SELECT pgmq.delete('f', 1), pgmq.archive('f', 2);
SELECT msg_id FROM pgmq.set_vt('f', 3, 0);
ROLLBACK;
SELECT count(*) FROM pgmq.q_f;
SELECT count(*) FROM pgmq.a_f;
SELECT msg_id FROM pgmq.read('f', 60, 10);
-- in a transaction that may not write
BEGIN READ ONLY;
SELECT pgmq.delete('f', 1);
ROLLBACK;
BEGIN READ ONLY;
SELECT pgmq.archive('f', '{1}'::bigint[]);
ROLLBACK;
BEGIN READ ONLY;
SELECT pgmq.set_vt('f', 1, 1);
ROLLBACK;
SELECT pgmq.drop_queue('f');
