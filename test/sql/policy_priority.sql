-- priority: messages of a higher level come first.
\set VERBOSITY terse
CREATE FUNCTION pg_temp.took(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE took text; BEGIN EXECUTE 'SELECT string_agg(message #>> ''{}'', '' '' ORDER BY msg_id) FROM ' || sql INTO took; RETURN took; END $$;
-- one read after the other, of so many messages each: within a level they come in msg_id order
CREATE FUNCTION pg_temp.drain(queue text, qty integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE took text; all_took text := ''; BEGIN
    LOOP
        SELECT string_agg(message #>> '{}', ' ' ORDER BY msg_id) INTO took FROM pgmq.pop(queue, qty);
        EXIT WHEN took IS NULL;
        all_took := all_took || '[' || took || ']';
    END LOOP;
    RETURN all_took;
END $$;
CREATE FUNCTION pg_temp.headers(level text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT ('{"x-pgmq-priority": ' || level || '}')::jsonb $$;
-- a partitioned queue, by hand: pg_partman need not be there
CREATE FUNCTION pg_temp.partitioned(queue text, key text, bounds text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE pgmq.%I (LIKE pgmq.q_prio INCLUDING DEFAULTS INCLUDING IDENTITY) PARTITION BY RANGE (%I)', 'q_' || queue, key);
    EXECUTE format('CREATE INDEX ON pgmq.%I (msg_id)', 'q_' || queue);
    EXECUTE format('CREATE INDEX %I ON pgmq.%I (vt, msg_id) WHERE vt <> enqueued_at', 'q_' || queue || '_vt_idx', 'q_' || queue);
    EXECUTE format('CREATE TABLE pgmq.%I (LIKE pgmq.a_prio INCLUDING DEFAULTS)', 'a_' || queue);
    FOR i IN 2 .. array_length(bounds, 1) LOOP
        EXECUTE format('CREATE TABLE pgmq.%I PARTITION OF pgmq.%I FOR VALUES FROM (%L) TO (%L)',
            format('q_%s_p%s', queue, i), 'q_' || queue, bounds[i - 1], bounds[i]);
    END LOOP;
    INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES (queue, true, false);
END $$;

-- switched on with messages in the queue: these are of level 4
SELECT pgmq.create('prio');
SELECT pgmq.send('prio', '"old"', pg_temp.headers('9'));
SELECT pgmq.set_policy('prio', priority => true);
SELECT pgmq.set_policy('prio', priority => true);
SELECT attname, atttypid::regtype, attnotnull, atthasmissing FROM pg_attribute
    WHERE attrelid = 'pgmq.q_prio'::regclass AND attname LIKE 'pgmq%';
SELECT count(*) FROM pg_index WHERE indrelid = 'pgmq.q_prio'::regclass;
-- what a level may be; all else is as if there were none
SELECT pgmq.send('prio', to_jsonb(level), pg_temp.headers(level))
    FROM unnest(ARRAY['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '-1', '3.5', '9.0', '1e400', '9e0', '"0"', '"9"', '"10"', '" 9"', '""',
        'null', 'true', '[9]', '{"9": 9}', '"-"']) AS level;
SELECT pgmq.send('prio', '"array"', '[9]'::jsonb), pgmq.send('prio', '"none"'), pgmq.send('prio', '"null"', NULL::jsonb),
    pgmq.send('prio', '"case"', '{"X-PGMQ-Priority": 9}'::jsonb);
SELECT pg_temp.drain('prio', 1);
-- all ways to send
SELECT pgmq.send('prio', '"one"', pg_temp.headers('1')), pgmq.send('prio', '"delay"', pg_temp.headers('2'), 0),
    pgmq.send('prio', '"at"', pg_temp.headers('3'), now());
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY['"b0"', '"b9"', '"b-"', '"b9 again"']::jsonb[],
    ARRAY[pg_temp.headers('0'), pg_temp.headers('9'), NULL, pg_temp.headers('9')]);
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY['"c0"', '"c9"']::jsonb[], ARRAY[pg_temp.headers('0'), pg_temp.headers('9')], 0);
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY['"d0"', '"d9"']::jsonb[], ARRAY[pg_temp.headers('0'), pg_temp.headers('9')], now());
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY['"e"', '"f"']::jsonb[]);
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY['"e"', '"f"']::jsonb[], NULL::jsonb[]);
-- more messages than headers, by their dimensions
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY[ARRAY['"g0"', '"g-"']]::jsonb[], ARRAY[pg_temp.headers('0')]);
SELECT pgmq.bind_topic('prio.#', 'prio');
SELECT pgmq.send_topic('prio.x', '"topic"', pg_temp.headers('7'), 0);
SELECT pgmq.unbind_topic('prio.#', 'prio');
-- (what was sent with a time has a vt of its own, and is due before what is fresh)
SELECT pg_temp.drain('prio', 1);
-- rows by hand: level 4, unless they say a rank; ranks that are none come last
INSERT INTO pgmq.q_prio (vt, message) VALUES (now(), '"hand"');
INSERT INTO pgmq.q_prio (vt, message, headers) VALUES (now(), '"hand 9"', pg_temp.headers('9'));
INSERT INTO pgmq.q_prio (vt, message, pgmq_rank) VALUES (now(), '"rank 0"', 0), (now(), '"rank 9"', 9), (now(), '"rank 11"', 11),
    (now(), '"rank -1"', -1), (now() - interval '1 s', '"due -1"', -1), (now() - interval '1 s', '"due 11"', 11), (now() + interval '1 h', '"later"', 12);
SELECT pgmq.rescan('prio');
SELECT pg_temp.drain('prio', 1);
DELETE FROM pgmq.q_prio;

-- the order: by level; within a level what is due by its vt, then what is fresh by msg_id
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY(SELECT to_jsonb(level || '.' || n) FROM generate_series(0, 9) AS level, generate_series(1, 3) AS n),
    ARRAY(SELECT pg_temp.headers(level::text) FROM generate_series(0, 9) AS level, generate_series(1, 3)));
UPDATE pgmq.q_prio SET vt = now() - interval '1 s' WHERE message #>> '{}' IN ('8.3', '5.2', '1.3');
UPDATE pgmq.q_prio SET vt = now() - interval '2 s' WHERE message #>> '{}' IN ('8.2', '5.3');
SELECT pgmq.rescan('prio');
SELECT pg_temp.took($$pgmq.read('prio', 60, 4)$$);
SELECT pg_temp.took($$pgmq.read('prio', 60, 1)$$) FROM generate_series(1, 3);
-- the rest, by all ways to read: with conditions, with waiting, as a part of another call
SELECT pg_temp.took($$pgmq.read('prio', 60, 2, '"1.1"')$$), pg_temp.took($$pgmq.read('prio', 60, 1, '"none"')$$);
SELECT pg_temp.took($$pgmq.read_where('prio', 60, 2, '{}', '{"x-pgmq-priority": 3}')$$);
SELECT pg_temp.took($$pgmq.read_where('prio', 60, 2, '"6.2"', '{"x-pgmq-priority": 6}')$$);
SELECT pg_temp.took($$pgmq.read_with_poll('prio', 60, 2, 5, 100)$$);
SELECT pg_temp.took($$pgmq.next('prio', 60, 2, ARRAY[]::bigint[], ARRAY[]::integer[])$$);
SELECT pg_temp.took($$pgmq.pop('prio', 2)$$);
SELECT count(*) FROM pgmq.read('prio', 60, 0);
\set VERBOSITY sqlstate
SELECT count(*) FROM pgmq.read('prio', 60, -1);
\set VERBOSITY terse
SELECT pg_temp.drain('prio', 4);
-- leases end: in the order of the levels again
SELECT count(*) FROM pgmq.set_vt('prio', ARRAY(SELECT msg_id FROM pgmq.q_prio), 0);
SELECT pg_temp.took($$pgmq.read('prio', 60, 5)$$);
-- all of it; NULL means all
SELECT pg_temp.took($$pgmq.read('prio', 60, NULL)$$);
DELETE FROM pgmq.q_prio;
-- a fixed snapshot
SELECT pgmq.send('prio', '"low"', pg_temp.headers('0')), pgmq.send('prio', '"high"', pg_temp.headers('9'));
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.took($$pgmq.read('prio', 60, 1)$$);
ROLLBACK;
SELECT pg_temp.took($$pgmq.read('prio', 60, 1)$$);
-- groups ignore it
SELECT pgmq.send('prio', '"g low"', '{"x-pgmq-group": "g", "x-pgmq-priority": 0}'::jsonb),
    pgmq.send('prio', '"g high"', '{"x-pgmq-group": "g", "x-pgmq-priority": 9}'::jsonb);
SELECT pgmq.create_fifo_index('prio');
SELECT pg_temp.took($$pgmq.read_grouped('prio', 60, 2)$$);
SELECT pgmq.purge_queue('prio');

-- priority_max_wait: what has been visible for longer comes first, the oldest first
SELECT pgmq.set_policy('prio', priority_max_wait => '1 min');
SELECT count(*) FROM pgmq.send_batch('prio', ARRAY['"low 1"', '"low 2"', '"low 3"', '"low 4"', '"low 5"', '"low 6"', '"high 1"', '"high 2"', '"high 3"']::jsonb[],
    ARRAY(SELECT pg_temp.headers(CASE WHEN n < 7 THEN '0' ELSE '9' END) FROM generate_series(1, 9) AS n));
SELECT pg_temp.took($$pgmq.read('prio', 0, 1)$$);
UPDATE pgmq.q_prio SET enqueued_at = enqueued_at - interval '5 min', vt = vt - interval '5 min' WHERE message #>> '{}' IN ('low 1', 'low 2');
UPDATE pgmq.q_prio SET vt = enqueued_at - interval '6 min' WHERE message #>> '{}' = 'low 5';
UPDATE pgmq.q_prio SET vt = enqueued_at - interval '3 min' WHERE message #>> '{}' = 'low 6';
UPDATE pgmq.q_prio SET vt = enqueued_at - interval '59 s' WHERE message #>> '{}' = 'low 4';
SELECT pgmq.rescan('prio');
SELECT pg_temp.took($$pgmq.read('prio', 60, 1)$$), pg_temp.took($$pgmq.read('prio', 60, 2)$$);
SELECT pg_temp.took($$pgmq.read('prio', 60, 2)$$), pg_temp.drain('prio', 1);
SELECT count(*) FROM pgmq.q_prio WHERE vt > now();
-- it has no effect without the other setting
SELECT pgmq.reset_policy('prio', '{priority}');
SELECT attname FROM pg_attribute WHERE attrelid = 'pgmq.q_prio'::regclass AND attname LIKE 'pgmq%';
SELECT pgmq.purge_queue('prio');
SELECT pgmq.send('prio', '"low"', pg_temp.headers('0')), pgmq.send('prio', '"high"', pg_temp.headers('9'));
SELECT pg_temp.took($$pgmq.read('prio', 60, 1)$$);

-- dead messages of a high level are not delivered, and hide nothing
SELECT pgmq.create('prio_dead');
SELECT pgmq.set_policy('prio_dead', priority => true, priority_max_wait => '1 hour', max_reads => 1);
SELECT count(*) FROM pgmq.send_batch('prio_dead', array_fill('"high"'::jsonb, '{250}'), array_fill(pg_temp.headers('9'), '{250}'));
SELECT count(*) FROM pgmq.read('prio_dead', 0, 250);
SELECT pgmq.send('prio_dead', '"low"', pg_temp.headers('0'));
SELECT pg_temp.took($$pgmq.read('prio_dead', 60, 1)$$);
SELECT count(*) FROM pgmq.read('prio_dead', 60, 1);
SELECT count(*) FROM pgmq.read('prio_dead', 60, 1);
SELECT (SELECT count(*) FROM pgmq.q_prio_dead) AS left, (SELECT count(*) FROM pgmq.a_prio_dead) AS moved;
SELECT pgmq.drop_queue('prio_dead');

-- unlogged, and partitioned by id and by time
SELECT pgmq.create_unlogged('prio_unlogged');
SELECT pg_temp.partitioned('prio_ids', 'msg_id', '{0,10,20,100}');
SELECT pg_temp.partitioned('prio_time', 'enqueued_at', '{2000-01-01,2020-01-01,2100-01-01}');
SELECT pgmq.set_policy(q, priority => true) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q;
SELECT count(*) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q, generate_series(1, 25) AS n,
    pgmq.send(q, to_jsonb(n), pg_temp.headers((n % 3)::text));
-- a partition that comes later gets the column and the indexes
CREATE TABLE pgmq.q_prio_ids_new PARTITION OF pgmq.q_prio_ids FOR VALUES FROM (100) TO (200);
SELECT pgmq.send('prio_ids', '"in the new one"', pg_temp.headers('8')) FROM setval('pgmq.q_prio_ids_msg_id_seq', 150);
SELECT q, pg_temp.took(format($$pgmq.read(%L, 60, 9)$$, q)) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q;
SELECT q, pg_temp.took(format($$pgmq.read_where(%L, 60, 3, '{}', '{"x-pgmq-priority": 0}')$$, q)) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q;
SELECT count(*) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q, pgmq.set_vt(q, ARRAY[11, 17, 20, 2]::bigint[], 0);
SELECT q, pg_temp.took(format($$pgmq.read(%L, 60, 2)$$, q)) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q;
SELECT q, pg_temp.drain(q, 4) FROM unnest(ARRAY['prio_unlogged', 'prio_ids', 'prio_time']) AS q;
SELECT pgmq.set_policy(q, priority_max_wait => '1 min') FROM unnest(ARRAY['prio_ids', 'prio_time']) AS q;
SELECT count(*) FROM unnest(ARRAY['prio_ids', 'prio_time']) AS q, generate_series(1, 25) AS n,
    pgmq.send(q, to_jsonb(n), pg_temp.headers((n % 3)::text));
UPDATE pgmq.q_prio_ids SET enqueued_at = enqueued_at - interval '2 min', vt = vt - interval '2 min' WHERE message = '1';
UPDATE pgmq.q_prio_ids SET vt = enqueued_at - interval '3 min' WHERE message = '12';
UPDATE pgmq.q_prio_time SET vt = enqueued_at - interval '3 min' WHERE message = '12';
SELECT pgmq.rescan(q) FROM unnest(ARRAY['prio_ids', 'prio_time']) AS q;
SELECT q, pg_temp.took(format($$pgmq.read(%L, 60, 1)$$, q)), pg_temp.took(format($$pgmq.read(%L, 60, 3)$$, q)) FROM unnest(ARRAY['prio_ids', 'prio_time']) AS q;
-- a queue as the PL/pgSQL extension makes it, without an index on vt, has no priorities until it is upgraded
SELECT pg_temp.partitioned('prio_old', 'msg_id', '{0,1000}');
DROP INDEX pgmq.q_prio_old_vt_idx;
\set VERBOSITY default
SELECT pgmq.set_policy('prio_old', priority => true);
\set VERBOSITY terse
SELECT pgmq.send('prio_old', '"low"', pg_temp.headers('0')), pgmq.send('prio_old', '"high"', pg_temp.headers('9'));
SELECT pg_temp.took($$pgmq.read('prio_old', 0, 1)$$);
CALL pgmq.upgrade_queues();
SELECT pg_temp.took($$pgmq.read('prio_old', 0, 1)$$);

-- on the way back to the other extension it goes
BEGIN;
SELECT dropped FROM pgmq.prepare_downgrade() AS dropped WHERE dropped ~ 'prio' ORDER BY dropped COLLATE "C";
SELECT pg_temp.took($$pgmq.read('prio_ids', 60, 1)$$), count(*) FROM pg_attribute WHERE attname = 'pgmq_rank' AND NOT attisdropped;
ROLLBACK;

-- a column of that name that is another's
SELECT pgmq.create('prio_other');
ALTER TABLE pgmq.q_prio_other ADD COLUMN pgmq_rank text;
\set VERBOSITY default
SELECT pgmq.set_policy('prio_other', priority => true);
\set VERBOSITY terse
SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues() WHERE queue_name LIKE 'prio%';
SELECT count(*) FROM pgmq.policy;
