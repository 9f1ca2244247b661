-- LISTEN and NOTIFY: the settings, the trigger, the errors.  What listeners get is tested in t/022_notify.pl.
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE VIEW triggers AS
SELECT tgrelid::regclass AS "table", tgisinternal AS internal, pg_get_triggerdef(oid) AS definition
  FROM pg_trigger WHERE tgname = 'trigger_notify_queue_insert_listeners' ORDER BY 1;

SELECT pgmq.create('Mixed');
SELECT pgmq.create('plain');

-- enable: the default, again, another interval, any case
SELECT pgmq.enable_notify_insert('plain');
SELECT pgmq.enable_notify_insert('plain', 100);
SELECT pgmq.enable_notify_insert(queue_name => 'MIXED', throttle_interval_ms => 0);
TABLE triggers;
SELECT * FROM pgmq.list_notify_insert_throttles();
-- enabling again leaves a trigger that is as it should be where it is
SELECT oid AS trigger_oid FROM pg_trigger
 WHERE tgrelid = 'pgmq.q_plain'::regclass AND tgname = 'trigger_notify_queue_insert_listeners' \gset
BEGIN;
SELECT pgmq.enable_notify_insert('plain', 200);
SELECT oid = :trigger_oid AS same FROM pg_trigger
 WHERE tgrelid = 'pgmq.q_plain'::regclass AND tgname = 'trigger_notify_queue_insert_listeners';
SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'pgmq.q_plain'::regclass;
COMMIT;
-- and replaces one that isn't
ALTER TABLE pgmq.q_plain DISABLE TRIGGER trigger_notify_queue_insert_listeners;
SELECT pgmq.enable_notify_insert('plain', 200);
SELECT oid <> :trigger_oid AS other, tgenabled FROM pg_trigger
 WHERE tgrelid = 'pgmq.q_plain'::regclass AND tgname = 'trigger_notify_queue_insert_listeners';
-- a rolled-back one leaves nothing
BEGIN;
SELECT pgmq.create('undone');
SELECT pgmq.enable_notify_insert('undone');
ROLLBACK;
SELECT queue_name FROM pgmq.list_notify_insert_throttles();

-- update
SELECT pgmq.update_notify_insert('PLAIN', 1);
SELECT pgmq.update_notify_insert('mixed', throttle_interval_ms => 2147483647);
SELECT * FROM pgmq.list_notify_insert_throttles();

-- when listeners were last told; a new setting begins a new interval
SELECT count(*) FROM pgmq.send('mixed', '1');
SELECT queue_name, last_notified_at > now() - interval '1 min' AND last_notified_at <= now() AS just_now
  FROM pgmq.list_notify_insert_throttles();
-- and nothing is written
SELECT queue_name, last_notified_at FROM pgmq.notify_insert_throttle ORDER BY 1;
BEGIN;
SELECT pgmq.update_notify_insert('mixed', 3600000);
SELECT queue_name, last_notified_at FROM pgmq.list_notify_insert_throttles();
ROLLBACK;
SELECT queue_name FROM pgmq.list_notify_insert_throttles() WHERE last_notified_at > now() - interval '1 min';
SELECT pgmq.update_notify_insert('mixed', 3600000);
SELECT queue_name, last_notified_at FROM pgmq.list_notify_insert_throttles();
SELECT count(*) FROM pgmq.send('mixed', '1');
SELECT pgmq.enable_notify_insert('mixed', 0);
SELECT queue_name, throttle_interval_ms, last_notified_at FROM pgmq.list_notify_insert_throttles();

-- what does not count: a statement that inserts nothing, an insertion that is taken back, other commands
INSERT INTO pgmq.q_mixed (vt, message) SELECT now(), '1' WHERE false;
BEGIN;
SAVEPOINT s;
SELECT count(*) FROM pgmq.send('mixed', '1');
ROLLBACK TO s;
INSERT INTO pgmq.q_mixed (vt, message) SELECT now(), '1' WHERE false;
COMMIT;
BEGIN;
SELECT count(*) FROM pgmq.send('mixed', '1');
ROLLBACK;
SELECT count(*) FROM pgmq.read('mixed', 0, 1);
SELECT count(pgmq.archive('mixed', msg_id)) FROM pgmq.read('mixed', 0, 1);
SELECT queue_name, last_notified_at FROM pgmq.list_notify_insert_throttles();
SET session_replication_role = replica;
SELECT count(*) FROM pgmq.send('mixed', '1');
RESET session_replication_role;
SELECT queue_name, last_notified_at FROM pgmq.list_notify_insert_throttles();
-- what counts: a batch, COPY, a savepoint that is kept, after an insertion that was taken back
CREATE FUNCTION told() RETURNS boolean LANGUAGE sql AS $$
	SELECT last_notified_at > to_timestamp(0) FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'Mixed' $$;
SELECT count(*) FROM pgmq.send_batch('mixed', array_fill('1'::jsonb, '{3}'));
SELECT told();
SELECT pgmq.update_notify_insert('mixed', 0);
COPY pgmq.q_mixed (vt, message) FROM stdin;
2030-01-01	1
\.
SELECT told();
SELECT pgmq.update_notify_insert('mixed', 0);
BEGIN;
SAVEPOINT s;
SELECT count(*) FROM pgmq.send('mixed', '1');
ROLLBACK TO s;
SAVEPOINT s;
SAVEPOINT t;
SELECT count(*) FROM pgmq.send('mixed', '1');
RELEASE t;
RELEASE s;
COMMIT;
SELECT told();
SELECT pgmq.update_notify_insert('mixed', 0);
SET track_counts = off;
SELECT count(*) FROM pgmq.send('mixed', '1');
RESET track_counts;
SELECT told();

-- a prepared transaction cannot notify
BEGIN;
SELECT count(*) FROM pgmq.send('mixed', '1');
PREPARE TRANSACTION 'notifies';
SELECT count(*) FROM pg_prepared_xacts;

-- triggers as an older version made them: for each row, deferrable, with and without an argument
SELECT pgmq.create('old');
SELECT pgmq.enable_notify_insert('old', 0);
DROP TRIGGER trigger_notify_queue_insert_listeners ON pgmq.q_old;
CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_old
   DEFERRABLE FOR EACH ROW EXECUTE PROCEDURE pgmq.notify_queue_listeners();
SELECT count(*) FROM pgmq.send_batch('old', array_fill('1'::jsonb, '{3}'));
SELECT queue_name FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'old' AND last_notified_at > to_timestamp(0);
SELECT pgmq.update_notify_insert('old', 0);
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
SELECT count(*) FROM pgmq.send('old', '1');
COMMIT;
SELECT queue_name FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'old' AND last_notified_at > to_timestamp(0);
SELECT pgmq.enable_notify_insert('old', 0);
TABLE triggers;
-- on a table that is no queue's it does nothing
CREATE TABLE no_queue (i int);
CREATE TRIGGER t BEFORE INSERT OR UPDATE ON no_queue FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners();
INSERT INTO no_queue VALUES (1);
UPDATE no_queue SET i = 2;
TABLE no_queue;
DROP TABLE no_queue;

-- whoever writes to the settings, senders know
UPDATE pgmq.notify_insert_throttle SET throttle_interval_ms = 3600000 WHERE queue_name = 'old';
SELECT count(*) FROM pgmq.send('old', '1');
SELECT last_notified_at AS first FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'old' \gset
SELECT count(*) FROM pgmq.send('old', '1');
SELECT last_notified_at = :'first' AS silent FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'old';
UPDATE pgmq.notify_insert_throttle SET throttle_interval_ms = 0 WHERE queue_name = 'old';
SELECT count(*) FROM pgmq.send('old', '1');
SELECT last_notified_at > :'first' AS told FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'old';

-- disable, again, and of no queue
SELECT pgmq.disable_notify_insert('OLD');
SELECT pgmq.disable_notify_insert('old');
SELECT pgmq.disable_notify_insert('no such');
SELECT queue_name FROM pgmq.list_notify_insert_throttles();
-- a dropped queue takes its setting along
SELECT pgmq.drop_queue('plain');
SELECT queue_name FROM pgmq.list_notify_insert_throttles();
TABLE triggers;

-- errors
\set VERBOSITY default
SELECT pgmq.enable_notify_insert('no such');
SELECT pgmq.enable_notify_insert(NULL);
SELECT pgmq.enable_notify_insert('old', -1);
SELECT pgmq.enable_notify_insert('no such', -1);
SELECT pgmq.enable_notify_insert('a$b');
SELECT pgmq.disable_notify_insert(NULL);
SELECT pgmq.update_notify_insert('no such', 1);
SELECT pgmq.update_notify_insert(NULL, 1);
SELECT pgmq.update_notify_insert('old', 1);
SELECT pgmq.update_notify_insert('mixed', -3);
SELECT pgmq.notify_queue_listeners();
SELECT pgmq._notify_settings_changed();
\set VERBOSITY sqlstate
SELECT pgmq.enable_notify_insert('old', NULL);
SELECT pgmq.update_notify_insert('mixed', NULL);
SELECT pgmq.enable_notify_insert('no such');
SELECT pgmq.notify_queue_listeners();
-- a queue that pgmq.meta does not know
DELETE FROM pgmq.meta WHERE queue_name = 'old';
SELECT pgmq.enable_notify_insert('old');
\set VERBOSITY terse

-- who sends needs nothing on the settings; who reads them SELECT
CREATE ROLE notify_sender;
GRANT USAGE ON SCHEMA pgmq TO notify_sender;
GRANT SELECT, INSERT ON pgmq.q_mixed TO notify_sender;
SELECT pgmq.update_notify_insert('mixed', 0);
SET ROLE notify_sender;
SELECT count(*) FROM pgmq.send('mixed', '1');
SELECT * FROM pgmq.list_notify_insert_throttles();
SELECT pgmq.update_notify_insert('mixed', 1);
SELECT pgmq.enable_notify_insert('mixed', 1);
SELECT pgmq.disable_notify_insert('mixed');
RESET ROLE;
SELECT told();

-- partitioned tables: the trigger sits on the parent; an older version's is cloned to the partitions
CREATE TABLE pgmq.q_parts (LIKE pgmq.q_mixed INCLUDING DEFAULTS INCLUDING IDENTITY) PARTITION BY RANGE (msg_id);
CREATE TABLE pgmq.q_parts_p0 PARTITION OF pgmq.q_parts FOR VALUES FROM (0) TO (1000);
INSERT INTO pgmq.meta VALUES ('Parts', true, false);
SELECT pgmq.enable_notify_insert('parts', 0);
TABLE triggers;
SELECT count(*) FROM pgmq.send('parts', '1');
SELECT queue_name FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'Parts' AND last_notified_at > to_timestamp(0);
SELECT pgmq.disable_notify_insert('parts');
CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_parts
   DEFERRABLE FOR EACH ROW EXECUTE PROCEDURE pgmq.notify_queue_listeners('Parts');
INSERT INTO pgmq.notify_insert_throttle VALUES ('Parts', 0);
TABLE triggers;
SELECT pgmq.update_notify_insert('parts', 0);
SELECT count(*) FROM pgmq.send('parts', '1');
SELECT queue_name FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'Parts' AND last_notified_at > to_timestamp(0);
SELECT pgmq.enable_notify_insert('parts', 0);
TABLE triggers;

DROP TABLE pgmq.q_parts, pgmq.q_old, pgmq.a_old;
DELETE FROM pgmq.meta WHERE queue_name = 'Parts';
SELECT pgmq.drop_queue('Mixed');
TABLE pgmq.notify_insert_throttle;
REVOKE USAGE ON SCHEMA pgmq FROM notify_sender;
DROP ROLE notify_sender;
DROP FUNCTION told();
DROP VIEW triggers;
