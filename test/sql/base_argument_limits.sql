-- Arguments of any length: what is too much is refused, and what is not takes no longer than it must.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('limits');
SELECT count(pgmq.create('limits_' || i)) FROM generate_series(1, 5) AS i;
SELECT pgmq.send('limits', '1');
-- each of a million names is looked up, not compared with all before it
DO $$
DECLARE
    names text[];
    ready text[];
BEGIN
    names := (SELECT array_agg('LIMITS_' || 1 + i % 5) FROM generate_series(1, 1000000) AS i);
    CALL pgmq.wait_any(names || 'limits'::text, 600000, ready);
    RAISE NOTICE '%', ready;
END $$;
-- a thousand are the limit
DO $$
DECLARE
    names text[] := (SELECT array_agg('nothing_' || i) FROM generate_series(1, 1000) AS i);
    ready text[];
BEGIN
    CALL pgmq.wait_any(names, 10, ready);
END $$;
DO $$
DECLARE
    names text[] := (SELECT array_agg('nothing_' || i) FROM generate_series(1, 1000000) AS i);
    ready text[];
BEGIN
    CALL pgmq.wait_any(names, 10, ready);
END $$;
\echo :LAST_ERROR_SQLSTATE
-- ids, many times the same and many that are none
SELECT count(*) FROM pgmq.set_vt('limits', array_fill(1::bigint, ARRAY[300000]), 0);
SELECT count(*) FROM pgmq.archive('limits', array_fill(1::bigint, ARRAY[300000]));
SELECT count(*) FROM pgmq.delete('limits', (SELECT array_agg(i) FROM generate_series(1000000, 1300000) AS i));
SELECT count(*) FROM pgmq.delete('limits', '{{1,2},{3,NULL}}'::bigint[]);
-- names: one that is too long is no other queue, whatever follows
SELECT pgmq.send('limits' || repeat('x', 10000000), '1');
SELECT pgmq.send(repeat('LIMITS', 2000000), '1');
SELECT pgmq.send(repeat('x', 10000000) || '$', '1');
SELECT pgmq.send(repeat('x', 63), '1');
SELECT pgmq.send(repeat('x', 62), '1');
SELECT pgmq.create(repeat('x', 48));
-- keys and patterns
SELECT pgmq.validate_routing_key(repeat('k', 10000000));
SELECT pgmq.validate_topic_pattern(repeat('#', 10000000));
SELECT pgmq.unbind_topic(repeat('#', 10000000), 'limits');
SELECT count(pgmq.bind_topic(p, 'limits')) FROM (VALUES (repeat('*a', 127)), (repeat('#a', 127)), (repeat('#.', 127) || '#')) AS v (p);
INSERT INTO pgmq.topic_bindings (pattern, queue_name) SELECT repeat('#a', i % 120) || 'z' || i || '#b*', 'limits' FROM generate_series(1, 5000) AS i;
SELECT count(*) FROM pgmq.test_routing(repeat('a', 255));
SELECT pgmq.send_topic(repeat('a', 255), '1');
DELETE FROM pgmq.topic_bindings WHERE queue_name = 'limits';
SELECT pgmq.drop_queue('limits');
SELECT count(pgmq.drop_queue('limits_' || i)) FROM generate_series(1, 5) AS i;
