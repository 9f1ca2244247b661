-- What the maker of one queue can do to the calls of others
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA hostile_partman;
CREATE EXTENSION pg_partman SCHEMA hostile_partman;
CREATE ROLE hostile_maker;
GRANT USAGE, CREATE ON SCHEMA pgmq TO hostile_maker;
GRANT USAGE ON SCHEMA hostile_partman TO hostile_maker;
GRANT SELECT, INSERT ON pgmq.meta TO hostile_maker;
GRANT SELECT, INSERT, UPDATE ON pgmq.partition_config TO hostile_maker;
GRANT SELECT, INSERT, UPDATE, DELETE ON hostile_partman.part_config TO hostile_maker;
CREATE SCHEMA hostile AUTHORIZATION hostile_maker;
-- An owner's code raises what the server raises to cancel a call, or to refuse it
SET SESSION AUTHORIZATION hostile_maker;
CREATE FUNCTION hostile.check_row() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('hostile.state', true) IS DISTINCT FROM '' THEN
        RAISE EXCEPTION 'hostile' USING ERRCODE = current_setting('hostile.state');
    END IF;
    RETURN true;
END $$;
CREATE FUNCTION hostile.predicate(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN hostile.check_row();
END $$;
SET hostile.state = '';
SELECT FROM pgmq.create_partitioned('hostile', '10', '20', 2);
ALTER TABLE pgmq.q_hostile ADD CONSTRAINT hostile CHECK (hostile.check_row());
SELECT count(*) FROM pgmq.send_batch('hostile', array_fill('{}'::jsonb, '{95}'));
SELECT FROM pgmq.create('hostile_index');
CREATE INDEX ON pgmq.q_hostile_index (msg_id) WHERE hostile.predicate(0);
RESET SESSION AUTHORIZATION;
SELECT FROM pgmq.create_partitioned('innocent', '10', '20', 2);
SELECT count(*) FROM pgmq.send_batch('innocent', array_fill('{}'::jsonb, '{95}'));
\c -
\set VERBOSITY terse
SET client_min_messages = warning;
SET hostile.state = '57014';
CALL pgmq.maintain();
SELECT count(*) FROM pgmq.q_innocent_default;
-- each new session plans, and so runs, the predicate anew
SELECT FROM pgmq.create_fifo_indexes_all();
\c -
\set VERBOSITY terse
SET client_min_messages = warning;
SET hostile.state = '42501';
SELECT FROM pgmq.create_fifo_indexes_all();
SELECT to_regclass('pgmq.q_innocent_fifo_idx') IS NOT NULL AS has_index;
-- A real cancellation still ends the call
SET hostile.state = '';
CREATE OR REPLACE FUNCTION hostile.check_row() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('hostile.state', true) = 'wait' THEN
        PERFORM pg_sleep(600);
    END IF;
    RETURN true;
END $$;
SET hostile.state = 'wait';
SET statement_timeout = '1s';
CALL pgmq.maintain();
RESET statement_timeout;
SET hostile.state = '';
SELECT FROM pgmq.drop_queue('hostile');
SELECT FROM pgmq.drop_queue('hostile_index');
SELECT FROM pgmq.drop_queue('innocent');
-- Half a queue is what its owner prepared, be the caller a superuser
SET SESSION AUTHORIZATION hostile_maker;
SELECT FROM pgmq.create('half_a');
DROP TABLE pgmq.q_half_a;
SELECT FROM pgmq.create('half_q');
DROP TABLE pgmq.a_half_q;
RESET SESSION AUTHORIZATION;
SELECT FROM pgmq.create('half_a');
SELECT FROM pgmq.create('half_q');
SELECT FROM pgmq.create_unlogged('half_a');
SELECT FROM pgmq.create_partitioned('half_q', '10', '20', 2);
-- its owner gets the rest of it
SET SESSION AUTHORIZATION hostile_maker;
SELECT FROM pgmq.create('half_a');
SELECT FROM pgmq.create('half_q');
RESET SESSION AUTHORIZATION;
SELECT relname, relowner::regrole FROM pg_class WHERE relname ~ '^[aq]_half_[aq]$' ORDER BY 1;
SELECT FROM pgmq.drop_queue('half_a');
SELECT FROM pgmq.drop_queue('half_q');
-- A superuser is told whose queue it is that exists already
SET SESSION AUTHORIZATION hostile_maker;
SELECT FROM pgmq.create('theirs');
RESET SESSION AUTHORIZATION;
SET client_min_messages = notice;
SELECT FROM pgmq.create('theirs');
SET client_min_messages = warning;
SELECT FROM pgmq.drop_queue('theirs');
-- Plain SQL writes a message that was read as often as an integer can count
SELECT FROM pgmq.create('counted');
SELECT FROM pgmq.create_fifo_index('counted');
INSERT INTO pgmq.q_counted (read_ct, enqueued_at, vt, message) VALUES (2147483647, '2020-01-01', '2020-01-01', '1');
SELECT msg_id, read_ct FROM pgmq.read('counted', 0, 10);
SELECT msg_id, read_ct FROM pgmq.read_grouped('counted', 0, 10);
SELECT msg_id, read_ct FROM pgmq.read_with_poll('counted', 0, 10, 1);
SELECT FROM pgmq.drop_queue('counted');
SELECT FROM pgmq.create('counted');
INSERT INTO pgmq.q_counted (read_ct, enqueued_at, vt, message) VALUES (2147483647, '2020-01-01', '2020-01-01', '1');
SELECT FROM pgmq.create_fifo_index('counted');
DROP INDEX pgmq.q_counted_fifo_idx;
SELECT msg_id, read_ct FROM pgmq.read_grouped('counted', 0, 10);
SELECT FROM pgmq.drop_queue('counted');
-- Rows that no partition can be made for keep nothing else in the default partition
SELECT FROM pgmq.create_partitioned('odd_ids', '10', '1000', 2);
INSERT INTO pgmq.q_odd_ids (msg_id, read_ct, enqueued_at, vt, message)
 VALUES (-9223372036854775807, 0, now(), now(), '1'), (-1, 0, now(), now(), '2'), (95, 0, now(), now(), '3');
SELECT FROM pgmq.create_partitioned('odd_times', '1 day', '10 days', 2);
INSERT INTO pgmq.q_odd_times (read_ct, enqueued_at, vt, message)
 VALUES (0, '-infinity', now(), '1'), (0, '4713-01-01 BC', now(), '2'), (0, '2020-01-01', now(), '3'), (0, 'infinity', now(), '4');
CALL pgmq.maintain();
SELECT tableoid::regclass, message FROM pgmq.q_odd_ids ORDER BY message;
SELECT replace(tableoid::regclass::text, '_01_01', '0101') AS tableoid, message FROM pgmq.q_odd_times ORDER BY message;
SELECT FROM pgmq.drop_queue('odd_ids');
SELECT FROM pgmq.drop_queue('odd_times');
-- Nor does an id that was never handed out make an archive old
SELECT FROM pgmq.create_partitioned('aged', '10', '100', 2);
SELECT count(*) FROM pgmq.send_batch('aged', array_fill('{}'::jsonb, '{35}'));
SELECT count(*) FROM pgmq.archive('aged', (SELECT array_agg(i) FROM generate_series(1, 35) AS i));
INSERT INTO pgmq.q_aged (msg_id, vt, message) VALUES (5000000, now(), '1');
SELECT pgmq.archive('aged', 5000000);
CALL pgmq.maintain();
CALL pgmq.maintain();
SELECT count(*) FROM pgmq.a_aged;
SELECT count(*) FROM pgmq.send_batch('aged', array_fill('{}'::jsonb, '{200}'));
SELECT count(*) FROM pgmq.archive('aged', (SELECT array_agg(i) FROM generate_series(36, 235) AS i));
CALL pgmq.maintain();
CALL pgmq.maintain();
SELECT min(msg_id) FROM pgmq.a_aged;
SELECT FROM pgmq.drop_queue('aged');
-- The maker of queues needs no privilege with which it could lock the extension's tables
REVOKE ALL ON pgmq.partition_config, hostile_partman.part_config FROM hostile_maker;
SET SESSION AUTHORIZATION hostile_maker;
SELECT FROM pgmq.create_partitioned('own', '10', '100', 2);
SELECT FROM pgmq.set_retention('own', '200');
SELECT FROM pgmq.enable_notify_insert('own', 10);
SELECT FROM pgmq.update_notify_insert('own', 20);
SELECT count(*) FROM pgmq.send_batch('own', array_fill('{}'::jsonb, '{95}'));
CALL pgmq.maintain();
SELECT count(*) FROM pgmq.q_own_default;
RESET SESSION AUTHORIZATION;
SELECT queue_name, retention_interval FROM pgmq.partition_config;
SELECT queue_name, throttle_interval_ms FROM pgmq.list_notify_insert_throttles();
SET SESSION AUTHORIZATION hostile_maker;
SELECT FROM pgmq.disable_notify_insert('own');
SELECT FROM pgmq.create('own_plain');
SELECT FROM pgmq.convert_archive_partitioned('own_plain', '10', '100');
SELECT FROM pgmq.drop_queue('own_plain');
SELECT FROM pgmq.drop_queue('own');
-- Rows of no queue need the privilege, as in plain SQL
INSERT INTO pgmq.meta VALUES ('ghost', false, false);
SELECT FROM pgmq.drop_queue('ghost');
RESET SESSION AUTHORIZATION;
SELECT queue_name FROM pgmq.list_queues();
SELECT FROM pgmq.drop_queue('ghost');
-- The tables may belong to a role without rights on the queues
CREATE ROLE hostile_extension;
GRANT USAGE ON SCHEMA pgmq TO hostile_extension;
SELECT 'ALTER TABLE pgmq.meta OWNER TO ' || relowner::regrole AS back FROM pg_class WHERE oid = 'pgmq.meta'::regclass \gset
ALTER TABLE pgmq.meta OWNER TO hostile_extension;
SET SESSION AUTHORIZATION hostile_maker;
SELECT FROM pgmq.create('own');
SELECT FROM pgmq.drop_queue('own');
RESET SESSION AUTHORIZATION;
:back;
DROP OWNED BY hostile_extension;
DROP ROLE hostile_extension;
DROP SCHEMA hostile CASCADE;
DROP OWNED BY hostile_maker;
DROP ROLE hostile_maker;
DROP EXTENSION pg_partman;
DROP SCHEMA hostile_partman;
