-- Grouped reads move dead messages in the order of each group, and go on with the next.
SET client_min_messages = warning;
CREATE FUNCTION send_groups(queue text, VARIADIC groups text[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM pgmq.send_batch(queue, ARRAY(SELECT to_jsonb(n) FROM generate_subscripts(groups, 1) AS n),
        ARRAY(SELECT jsonb_build_object('x-pgmq-group', g) FROM unnest(groups) AS g)) $$;
SELECT pgmq.create('dead');
CREATE TABLE pgmq.q_jobs_partitioned (LIKE pgmq.q_dead INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY) PARTITION BY RANGE (msg_id);
CREATE INDEX q_jobs_partitioned_msg_id_idx ON pgmq.q_jobs_partitioned (msg_id);
CREATE INDEX q_jobs_partitioned_vt_idx ON pgmq.q_jobs_partitioned (vt, msg_id) WHERE vt <> enqueued_at;
CREATE TABLE pgmq.a_jobs_partitioned (LIKE pgmq.a_dead INCLUDING DEFAULTS) PARTITION BY RANGE (msg_id);
CREATE TABLE pgmq.a_jobs_partitioned_default PARTITION OF pgmq.a_jobs_partitioned DEFAULT;
INSERT INTO pgmq.meta VALUES ('jobs_partitioned', true, false);
DO $$
DECLARE
    queue text;
BEGIN
    FOR i IN 0 .. 99 LOOP
        EXECUTE format('CREATE TABLE pgmq.q_jobs_partitioned_%s PARTITION OF pgmq.q_jobs_partitioned FOR VALUES FROM (%s) TO (%s)', i, i * 2, i * 2 + 2);
    END LOOP;
    CREATE TABLE pgmq.q_jobs_partitioned_default PARTITION OF pgmq.q_jobs_partitioned DEFAULT;
    PERFORM pgmq.create('jobs'), pgmq.create('jobs_slow'), pgmq.create_unlogged('jobs_unlogged');
    PERFORM pgmq.create_fifo_index(q) FROM unnest('{jobs,jobs_unlogged,jobs_partitioned}'::text[]) AS q;
    FOREACH queue IN ARRAY '{jobs,jobs_slow,jobs_unlogged,jobs_partitioned}'::text[] LOOP
        PERFORM pgmq.set_policy(queue, max_reads => 1, dead_letter_queue => 'dead');
    END LOOP;
END $$;
RESET client_min_messages;

-- The first messages of groups are dead, and so is one that has to wait for those before it.
CREATE FUNCTION take_form(queue text, verb text, OUT got text, OUT dead text, OUT then_got text, OUT then_dead text)
LANGUAGE plpgsql AS $$
DECLARE
    sql text := format('SELECT string_agg(m.message::text, '' ''), array_agg(m.msg_id) FROM pgmq.%I(%L, 60, 10%s) AS m',
        verb, queue, CASE WHEN verb LIKE '%poll' THEN ', 0, 10' ELSE '' END);
    letters text := 'SELECT string_agg(format(''%s%s'', m.headers->>''x-pgmq-group'', m.message), '' '') FROM pgmq.pop(''dead'', 99) AS m';
    ids bigint[];
BEGIN
    PERFORM send_groups(queue, 'a', 'a', 'b', 'a', 'c', 'b', 'a');
    -- the first two of a, the first of b, all of c; and the last of a, behind a live one
    EXECUTE format('UPDATE pgmq.q_%I SET read_ct = 1 WHERE message <> ALL (''{4,6}''::jsonb[])', queue);
    EXECUTE sql INTO got, ids;
    EXECUTE letters INTO dead;
    PERFORM pgmq.delete(queue, ids);
    -- now it is the first one
    EXECUTE sql INTO then_got;
    EXECUTE letters INTO then_dead;
    PERFORM pgmq.purge_queue(queue);
END $$;
SELECT count(*), got, dead, then_got, then_dead
FROM unnest('{jobs,jobs_slow,jobs_unlogged,jobs_partitioned}'::text[]) AS queue,
    unnest('{read_grouped,read_grouped_rr,read_grouped_head,read_grouped_with_poll,read_grouped_rr_with_poll,read_grouped_head_with_poll}'::text[]) AS verb,
    take_form(queue, verb)
GROUP BY 2, 3, 4, 5;

-- a long run: a hundred in a call, and the rest of the queue goes on
SELECT send_groups('jobs', VARIADIC array_fill('long'::text, ARRAY[230]) || '{short}'::text[]);
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message <> ALL ('{230,231}'::jsonb[]);
SELECT message, read_ct FROM pgmq.read_grouped('jobs', 60, 2);
SELECT count(*) FROM pgmq.q_dead;
SELECT message FROM pgmq.read_grouped('jobs', 60, 2);
SELECT count(*) FROM pgmq.q_dead;
SELECT message FROM pgmq.read_grouped('jobs', 60, 2);
SELECT count(*), bool_and(in_order) FROM (SELECT (message)::int > lag((message)::int, 1, 0) OVER (ORDER BY msg_id) AS in_order FROM pgmq.q_dead) AS d;
-- many groups: those behind the hundred are left alone, and a live one after them is found
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
SELECT send_groups('jobs', VARIADIC ARRAY(SELECT 'g' || n FROM generate_series(1, 150) AS n));
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message <> '150';
SELECT message FROM pgmq.read_grouped('jobs', 60, 1);
SELECT count(*) FROM pgmq.q_dead;
SELECT message FROM pgmq.read_grouped('jobs', 60, 1);
SELECT count(*) FROM pgmq.q_dead;
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');

-- too old and failed too often, the default group and headers that are no object; each message can have its own time
SELECT pgmq.set_policy('jobs', max_reads => 2, message_ttl => '1 hour');
SELECT count(*) FROM pgmq.send_batch('jobs', ARRAY['1', '2', '3', '4', '5', '6']::jsonb[],
    ARRAY['5', '"x-pgmq-group"', NULL, '{"x-pgmq-ttl": 86400}', '{"x-pgmq-ttl": 60}', '[1]']::jsonb[]);
UPDATE pgmq.q_jobs SET vt = vt - interval '2 hours', enqueued_at = enqueued_at - interval '2 hours' WHERE message <> ALL ('{5,6}'::jsonb[]);
UPDATE pgmq.q_jobs SET read_ct = 2 WHERE message = '2';
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT message, headers - 'x-dlq-at' - 'x-dlq-origin-msg-id' AS headers FROM pgmq.pop('dead', 10);
-- without a dead-letter queue: into the archive, or deleted
SELECT pgmq.purge_queue('jobs'), pgmq.reset_policy('jobs', '{dead_letter_queue}');
SELECT send_groups('jobs', 'a', 'a', 'a', 'b');
UPDATE pgmq.q_jobs SET vt = vt - interval '2 hours', enqueued_at = enqueued_at - interval '2 hours' WHERE message = '1';
UPDATE pgmq.q_jobs SET read_ct = 2 WHERE message = '2';
SELECT message FROM pgmq.read_grouped_rr('jobs', 60, 10);
SELECT message, headers->'x-dlq-reason' AS reason FROM pgmq.a_jobs;
SELECT pgmq.purge_queue('jobs'), pgmq.set_policy('jobs', max_reads => 1, dead_letter_queue => 'dead'), pgmq.reset_policy('jobs', '{message_ttl}');

-- a move that fails blocks its group: what is behind it is neither moved nor handed out, and other groups go on
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused' USING ERRCODE = 'P0042'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.q_dead FOR EACH ROW WHEN (new.message = '3') EXECUTE FUNCTION refuse();
\set VERBOSITY terse
SELECT send_groups('jobs', 'a', 'b', 'a', 'b', 'a', 'a', 'b', 'c');
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message < '6';
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
SELECT message, read_ct, vt > now() + interval '59 minutes' AS hidden, headers->'x-pgmq-stuck' AS stuck FROM pgmq.q_jobs ORDER BY msg_id;
DROP TRIGGER refuse ON pgmq.q_dead;
SELECT s.message FROM pgmq.q_jobs AS q, pgmq.set_vt('jobs', q.msg_id, 0) AS s WHERE q.message = '3';
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
-- the only group: the read finds another one, although it wanted just one message
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.q_dead FOR EACH ROW WHEN (new.message = '1') EXECUTE FUNCTION refuse();
SELECT send_groups('jobs', 'a', 'a', 'b');
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message = '1';
SELECT message FROM pgmq.read_grouped_head('jobs', 60, 1);
SELECT send_groups('jobs_slow', 'a', 'a', 'b');
UPDATE pgmq.q_jobs_slow SET read_ct = 1 WHERE message = '1';
SELECT message FROM pgmq.read_grouped_head('jobs_slow', 60, 1);
DROP TRIGGER refuse ON pgmq.q_dead;
\set VERBOSITY default
-- a group always keeps a note: the trigger that runs when messages are moved, and the read, each drop one of two notes
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.q_dead FOR EACH ROW WHEN (new.message = '2') EXECUTE FUNCTION refuse();
SELECT send_groups('jobs', 'a', 'a', 'a');
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message < '3';
INSERT INTO pgmq.g_jobs (enqueued_at, vt, grp, head, late) SELECT enqueued_at, now() + interval '1 minute', grp, head, late FROM pgmq.g_jobs WHERE grp = 'a';
\set VERBOSITY terse
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
\set VERBOSITY default
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
SELECT count(*) > 0 AS has_note FROM pgmq.g_jobs WHERE grp = 'a';
DROP TRIGGER refuse ON pgmq.q_dead;
-- the same where the messages after those that are moved may not be handed out: one came late
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
SELECT send_groups('jobs', 'a', 'a', 'a');
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message = '1';
UPDATE pgmq.q_jobs SET read_ct = 1, vt = now() + interval '1 hour' WHERE message = '3';
UPDATE pgmq.g_jobs SET late = true WHERE grp = 'a';
INSERT INTO pgmq.g_jobs (enqueued_at, vt, grp, head, late) SELECT enqueued_at, now() + interval '1 minute', grp, head, late FROM pgmq.g_jobs WHERE grp = 'a';
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
SELECT count(*) > 0 AS has_note FROM pgmq.g_jobs WHERE grp = 'a';

-- a deletion that a trigger suppresses is no move: nothing behind it is moved or handed out
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON pgmq.q_jobs FOR EACH ROW WHEN (old.message = '2') EXECUTE FUNCTION keep();
SELECT send_groups('jobs', 'a', 'a', 'a', 'a', 'b');
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message < '4';
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
DROP TRIGGER keep ON pgmq.q_jobs;

-- a look that takes nothing: something to read is something to move, too
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
SELECT send_groups('jobs', 'a', 'a', 'b');
CALL pgmq.wait_grouped('jobs', 10);
UPDATE pgmq.q_jobs SET read_ct = 1;
CALL pgmq.wait_grouped('jobs', 10);
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
CALL pgmq.wait_grouped('jobs', 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
-- a session that waits moves them in the end, if there is nothing for it to return
SELECT send_groups('jobs', 'a', 'a', 'b');
UPDATE pgmq.q_jobs SET read_ct = 1;
SELECT message FROM pgmq.read_grouped_with_poll('jobs', 60, 10, 1, 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
SELECT pgmq.purge_queue('jobs_slow');
SELECT send_groups('jobs_slow', 'a', 'a');
UPDATE pgmq.q_jobs_slow SET read_ct = 1;
CALL pgmq.wait_grouped('jobs_slow', 10);
SELECT message FROM pgmq.read_grouped('jobs_slow', 60, 10);
CALL pgmq.wait_grouped('jobs_slow', 10);

-- a snapshot from before, a rollback, a savepoint
SELECT pgmq.purge_queue('jobs'), pgmq.purge_queue('dead');
SELECT send_groups('jobs', 'a', 'a', 'b', 'b');
UPDATE pgmq.q_jobs SET read_ct = 1 WHERE message = ANY ('{1,3}'::jsonb[]);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
ROLLBACK;
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;
BEGIN;
SAVEPOINT s;
SELECT message FROM pgmq.read_grouped('jobs', 60, 1);
ROLLBACK TO s;
SELECT message FROM pgmq.read_grouped('jobs', 60, 1);
SELECT message FROM pgmq.read_grouped('jobs', 60, 10);
COMMIT;
SELECT array_agg(message ORDER BY msg_id) AS dead FROM pgmq.q_dead;

SELECT pgmq._groups_healed('jobs') AS healed, pgmq._groups_healed('jobs_partitioned') AS healed_partitioned;
DO $$ BEGIN PERFORM pgmq.drop_queue(q) FROM unnest('{jobs,jobs_slow,jobs_unlogged,jobs_partitioned,dead}'::text[]) AS q; END $$;
DROP FUNCTION send_groups, take_form, refuse, keep;
