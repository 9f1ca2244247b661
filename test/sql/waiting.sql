-- wait and wait_any: what they say, what they refuse.  (Who wakes whom is in t/020_waiting.pl.)
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('Wa');
SELECT pgmq.create('wb');
SELECT pgmq.create('wc');
-- nothing there
CALL pgmq.wait('Wa', 10);
CALL pgmq.wait('wa', 0);
CALL pgmq.wait(queue_name => 'WA', timeout_ms => -5);
CALL pgmq.wait_any('{Wa,wb}', 10);
-- something there, which is not touched by being waited for
SELECT pgmq.send('wa', '1');
CALL pgmq.wait('Wa', 600000);
CALL pgmq.wait('wa');
CALL pgmq.wait('wa', NULL);
CALL pgmq.wait('wa', 0, true);
CALL pgmq.wait_any('{wb,Wa,WA,wc}', 600000);
CALL pgmq.wait_any(queue_names => '{wa}', timeout_ms => 0);
SELECT msg_id, read_ct, vt = enqueued_at AS fresh FROM pgmq.q_wa;
SELECT count(*) FROM pgmq.send_batch('wc', array_fill('1'::jsonb, ARRAY[200]));
CALL pgmq.wait_any('{wb,wa,wc}');
-- leased and delayed messages are none, until they are due
SELECT msg_id FROM pgmq.read('wa', 1, 1);
CALL pgmq.wait('wa', 0);
CALL pgmq.wait('wa', 600000);
SELECT msg_id FROM pgmq.read('wa', 600, 1);
SELECT pgmq.send('wa', '2', 600);
CALL pgmq.wait('wa', 10);
SELECT msg_id FROM pgmq.set_vt('wa', 2, 0);
CALL pgmq.wait('wa', 600000);
-- from a procedure and from a block; what is not committed is not committed by a wait
CREATE PROCEDURE wait_twice(INOUT n int DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE there boolean;
BEGIN
    FOR i IN 1..2 LOOP
        CALL pgmq.wait('wa', 600000, there);
        n := n + there::int;
        PERFORM pgmq.send('wb', to_jsonb(i));
        COMMIT;
    END LOOP;
END $$;
CALL wait_twice();
DROP PROCEDURE wait_twice;
DO $$
DECLARE names text[];
BEGIN
    CALL pgmq.wait_any('{wa,wb}', 10, names);
    RAISE NOTICE '%', names;
    PERFORM pgmq.send('wb', '3');
    CALL pgmq.wait_any('{wa,wb}', 10, names);
END $$;
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM pgmq.q_wb;
-- not inside a transaction
\set VERBOSITY default
BEGIN;
CALL pgmq.wait('wa', 10);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
\set VERBOSITY terse
BEGIN;
CALL pgmq.wait_any('{wa}', 10);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT 1 \; CALL pgmq.wait('wa', 10);
\echo :LAST_ERROR_SQLSTATE
DO $$
DECLARE there boolean;
BEGIN
    CALL pgmq.wait('wa', 10, there);
EXCEPTION WHEN active_sql_transaction THEN RAISE NOTICE 'not in a subtransaction';
END $$;
SET default_transaction_isolation = 'serializable';
CALL pgmq.wait('wa', 10);
CALL pgmq.wait('wa', 10);
RESET default_transaction_isolation;
-- no such queue, no name
CALL pgmq.wait('nothing', 10);
\echo :LAST_ERROR_SQLSTATE
CALL pgmq.wait(NULL, 10);
\echo :LAST_ERROR_SQLSTATE
CALL pgmq.wait('a;b', 10);
\echo :LAST_ERROR_SQLSTATE
CALL pgmq.wait_any('{wa,nothing}', 10);
CALL pgmq.wait_any('{wa,NULL}', 10);
\echo :LAST_ERROR_SQLSTATE
CALL pgmq.wait_any(NULL, 10);
CALL pgmq.wait_any('{}', 10);
\echo :LAST_ERROR_SQLSTATE
-- who may not read the queue learns nothing about it
CREATE ROLE regress_wait_stranger;
CREATE ROLE regress_wait_looker;
CREATE ROLE regress_wait_reader;
GRANT USAGE ON SCHEMA pgmq TO regress_wait_stranger, regress_wait_looker, regress_wait_reader;
GRANT SELECT ON pgmq.q_wa TO regress_wait_looker;
GRANT SELECT, UPDATE ON pgmq.q_wa TO regress_wait_reader;
SET ROLE regress_wait_stranger;
CALL pgmq.wait('wa', 10);
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_wait_looker;
CALL pgmq.wait('wa', 10);
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_wait_reader;
CALL pgmq.wait('wa', 10);
CALL pgmq.wait_any('{wa,wb}', 10);
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- under row security what counts is what one sees
ALTER TABLE pgmq.q_wa ENABLE ROW LEVEL SECURITY;
SET ROLE regress_wait_reader;
CALL pgmq.wait('wa', 10);
RESET ROLE;
CREATE POLICY p ON pgmq.q_wa USING (true);
SET ROLE regress_wait_reader;
CALL pgmq.wait('wa', 10);
SELECT msg_id FROM pgmq.read_with_poll('wa', 600, 1, 600);
RESET ROLE;
-- a queue of another make: no index to look at, but waited for all the same
CREATE TABLE pgmq.q_wplain (msg_id bigint GENERATED ALWAYS AS IDENTITY, read_ct int NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL, message jsonb, headers jsonb);
CALL pgmq.wait('wplain', 10);
SELECT pgmq.send('wplain', '1');
CALL pgmq.wait('wplain', 600000);
SELECT msg_id FROM pgmq.pop('wplain');
SELECT pgmq.send('wplain', '1', 1);
SELECT msg_id FROM pgmq.read_with_poll('wplain', 30, 1, 600, 600000);
DROP TABLE pgmq.q_wplain;
-- an empty queue is known to be empty as long as no transaction ends: one's own messages are seen all the same, and errors are made
SELECT pgmq.create('we');
SET pgmq.rescan_interval = 0;
SELECT msg_id FROM pgmq.read_with_poll('we', 30, 1, 1, 10);
BEGIN;
SELECT msg_id FROM pgmq.read('we', 30, 1);
SELECT pgmq.send('we', '1');
SELECT msg_id FROM pgmq.read('we', 0, 1);
SAVEPOINT s;
SELECT msg_id FROM pgmq.pop('we', 1);
SELECT msg_id FROM pgmq.read_with_poll('we', 0, 1, 0);
ROLLBACK TO s;
SELECT msg_id FROM pgmq.read_with_poll('we', 0, 1, 0);
ROLLBACK;
SELECT msg_id FROM pgmq.read_with_poll('we', 30, 1, 1, 10);
SELECT msg_id FROM pgmq.read('we', 30, -1);
INSERT INTO pgmq.q_we (enqueued_at, vt, message) VALUES ('2020-01-01', '2020-01-02', '2');
SELECT msg_id FROM pgmq.read_with_poll('we', 30, 1, 600, 10);
RESET pgmq.rescan_interval;
-- a trigger may make a time where there is none
CREATE FUNCTION pg_temp.make_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.vt := coalesce(new.vt, clock_timestamp()); RETURN new; END $$;
CREATE TRIGGER make_time BEFORE INSERT OR UPDATE ON pgmq.q_we FOR EACH ROW EXECUTE FUNCTION pg_temp.make_time();
SELECT pgmq.purge_queue('we');
SELECT count(*) FROM pgmq.send('we', '1', delay => NULL::integer);
SELECT count(*) FROM pgmq.send('we', '1', delay => NULL::timestamptz);
SELECT count(*) FROM pgmq.read('we', NULL, 1);
SELECT count(*) FROM pgmq.q_we AS q, pgmq.set_vt('we', q.msg_id, NULL::integer);
SELECT count(*) FROM pgmq.q_we AS q, pgmq.set_vt('we', q.msg_id, NULL::timestamptz);
CALL pgmq.wait('we', 600000);
-- the setting
SHOW pgmq.recheck_interval;
SELECT pgmq.drop_queue(q) FROM unnest('{wa,wb,wc,we}'::text[]) AS q;
REVOKE USAGE ON SCHEMA pgmq FROM regress_wait_stranger, regress_wait_looker, regress_wait_reader;
DROP ROLE regress_wait_stranger, regress_wait_looker, regress_wait_reader;
