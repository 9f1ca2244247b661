-- create, drop, purge, list and the helpers.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('a'), pgmq.create_non_partitioned('b'), pgmq.create_unlogged('u');
-- columns, types, order: tools read these tables
SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null, attidentity AS identity,
       pg_get_expr(adbin, adrelid) AS default
  FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
 WHERE attrelid = 'pgmq.q_a'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null, attidentity AS identity,
       pg_get_expr(adbin, adrelid) AS default
  FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
 WHERE attrelid = 'pgmq.a_a'::regclass AND attnum > 0 ORDER BY attnum;
SELECT (SELECT array_agg((attname, atttypid, attnotnull) ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'pgmq.q_a'::regclass AND attnum > 0)
     = ALL (SELECT array_agg((attname, atttypid, attnotnull) ORDER BY attnum) FROM pg_attribute
             WHERE attrelid IN ('pgmq.q_b'::regclass, 'pgmq.q_u'::regclass) AND attnum > 0 GROUP BY attrelid) AS same;
SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'pgmq' AND tablename ~ '^[qa]_' ORDER BY tablename, indexname;
-- an unlogged queue is unlogged, but its archive is not, nor the sequence: its ids never start again
SELECT relname, relkind, relpersistence FROM pg_class
 WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'i', 'S') AND relname ~ '^([qa]_|archived_at_idx_)[abu]' ORDER BY relname;
-- queue tables are no members of the extension: a dump would skip them
SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid IN (SELECT oid FROM pg_class WHERE relname ~ '^[qa]_');
SELECT pgmq._belongs_to_pgmq('meta'), pgmq._belongs_to_pgmq('q_a'), pgmq._belongs_to_pgmq('no such'), pgmq._belongs_to_pgmq(NULL);
SELECT queue_name, is_partitioned, is_unlogged, created_at <= now() AS created FROM pgmq.list_queues() ORDER BY 1;
SELECT * FROM pgmq.list_queues() \gdesc

-- idempotent, whatever the kind asked for; the kind stays
SELECT pgmq.send('a', '1'), pgmq.send('u', '1');
SELECT pgmq.create('a');
SELECT pgmq.create_non_partitioned('a');
SELECT pgmq.create_unlogged('u');
SELECT pgmq.create_unlogged('a');
SELECT pgmq.create('u');
SELECT queue_name, is_unlogged FROM pgmq.list_queues() ORDER BY 1;
SELECT relname, relpersistence FROM pg_class WHERE relname IN ('q_a', 'q_u') ORDER BY 1;
SELECT message FROM pgmq.pop('a') UNION ALL SELECT message FROM pgmq.pop('u');

-- a create that is rolled back leaves nothing, and can be repeated in the same session
BEGIN;
SELECT pgmq.create('tx');
SELECT pgmq.send('tx', '1');
SELECT msg_id FROM pgmq.read('tx', 30, 1);
SAVEPOINT one;
SELECT pgmq.drop_queue('tx');
SELECT pgmq.create_unlogged('tx');
SELECT pgmq.send('tx', '2');
ROLLBACK TO one;
SELECT msg_id, message FROM pgmq.set_vt('tx', 1, 0);
ROLLBACK;
SELECT pgmq.send('tx', '1');
SELECT count(*) FROM pg_class WHERE relname LIKE '%\_tx%';
SELECT count(*) FROM pgmq.meta WHERE queue_name = 'tx';
SELECT pgmq.create_unlogged('tx');
SELECT pgmq.send('tx', '1');
SELECT msg_id, message FROM pgmq.read('tx', 30, 1);
SELECT is_unlogged FROM pgmq.list_queues() WHERE queue_name = 'tx';
-- drop, re-create and use within one transaction
BEGIN;
SELECT pgmq.drop_queue('tx');
SELECT pgmq.create('tx');
SELECT pgmq.send('tx', '"new"');
COMMIT;
SELECT msg_id, message FROM pgmq.read('tx', 30, 1);
SELECT pgmq.archive('tx', 1);
-- a drop that is rolled back
BEGIN;
SELECT pgmq.drop_queue('tx');
ROLLBACK;
SELECT pgmq.send('tx', '"kept"');
SELECT msg_id, message FROM pgmq.read('tx', 30, 1);

-- drop: both tables and the record; true if there was one
SELECT pgmq.drop_queue(queue_name => 'tx');
SELECT count(*) FROM pg_class WHERE relname LIKE '%\_tx%';
SELECT count(*) FROM pgmq.meta WHERE queue_name = 'tx';
SELECT pgmq.drop_queue('tx');
SELECT pgmq.drop_queue('No Such %s');
SELECT pgmq.drop_queue('');
SELECT pgmq.drop_queue(NULL);
SELECT length(format('%s', pgmq.drop_queue('x')));
-- no CASCADE: what depends on the table is an error, and nothing is dropped
CREATE VIEW of_b AS SELECT * FROM pgmq.q_b;
SELECT pgmq.drop_queue('b');
\echo :LAST_ERROR_SQLSTATE
SELECT pgmq.send('b', '1');
DROP VIEW of_b;
SELECT pgmq.drop_queue('b');
-- a record without tables, as a database taken over may have; two spellings of one queue
INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('Orphan', false, false), ('Twice', false, false), ('twice', false, false);
SELECT pgmq.drop_queue('orphan');
SELECT pgmq.create('TWICE');
SELECT queue_name FROM pgmq.list_queues() WHERE lower(queue_name) = 'twice' ORDER BY queue_name COLLATE "C";
SELECT pgmq.drop_queue('twice');
SELECT count(*) FROM pgmq.list_queues() WHERE lower(queue_name) IN ('orphan', 'twice');
-- tables without a record: create takes them over
SELECT pgmq.create('lost');
SELECT pgmq.send('lost', '1');
DELETE FROM pgmq.meta WHERE queue_name = 'lost';
SELECT pgmq.create('lost');
SELECT message FROM pgmq.pop('lost');
DELETE FROM pgmq.meta WHERE queue_name = 'lost';
SELECT pgmq.drop_queue('lost');
-- a queue that has lost its archive
SELECT pgmq.create('half');
DROP TABLE pgmq.a_half;
SELECT pgmq.send('half', '1');
\set VERBOSITY sqlstate
SELECT pgmq.archive('half', 1);
\set VERBOSITY terse
SELECT msg_id FROM pgmq.read('half', 0, 1);
SELECT pgmq.create('half');
SELECT pgmq.archive('half', 1);
DROP TABLE pgmq.a_half;
SELECT pgmq.drop_queue('half');

-- deprecated: both warn; the first always says true
SELECT pgmq.create('old');
SELECT pgmq.drop_queue('old', true);
SELECT pgmq.drop_queue(queue_name => 'old', partitioned => false);
SELECT pgmq.drop_queue(NULL, NULL);
SELECT pgmq.detach_archive('a');
SELECT pgmq.detach_archive('no such'), pgmq.detach_archive(NULL);
SELECT count(*) FROM pgmq.a_a;

-- purge: how many there were, hidden ones too; ids go on; delete triggers do not fire
CREATE FUNCTION pg_temp.shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'deleted'; RETURN OLD; END $$;
CREATE TRIGGER shout BEFORE DELETE ON pgmq.q_a FOR EACH ROW EXECUTE FUNCTION pg_temp.shout();
SELECT pgmq.purge_queue('a');
SELECT pgmq.send_batch('a', '{1,2}'), pgmq.send_batch('a', '{3,4}', 60), pgmq.send_batch('a', '{5,6}', 'infinity'::timestamptz);
SELECT msg_id FROM pgmq.read('a', 60, 1);
SELECT pgmq.archive('a', 2);
BEGIN;
SELECT pgmq.purge_queue('a'), pg_typeof(pgmq.purge_queue('a'));
SELECT count(*) FROM pgmq.q_a;
ROLLBACK;
SELECT pgmq.send('a', '7');
SELECT pgmq.purge_queue(queue_name => 'A');
SELECT pgmq.purge_queue('a');
SELECT pgmq.send('a', '8');
SELECT count(*) FROM pgmq.a_a;
SELECT msg_id FROM pgmq.read('a', 60, 10);
BEGIN READ ONLY;
SELECT pgmq.purge_queue('a');
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
-- what others hold on to: foreign keys, as with TRUNCATE
CREATE TABLE refers (id bigint REFERENCES pgmq.q_a);
SELECT pgmq.purge_queue('a');
\echo :LAST_ERROR_SQLSTATE
DROP TABLE refers;

-- the lock that create and drop take: held to the end of the transaction, one key for all spellings, the one that programs know
BEGIN;
SELECT pgmq.acquire_queue_lock('Some Queue');
SELECT pgmq.acquire_queue_lock('some queue');
SELECT pgmq.acquire_queue_lock(NULL);
SELECT mode, granted, objsubid, (classid::bigint << 32 | objid::bigint) = hashtext('pgmq.queue_some queue') AS same_key
  FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
COMMIT;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
BEGIN;
SELECT pgmq.create('Locked');
SELECT pgmq.drop_queue('lockeD');
SELECT (classid::bigint << 32 | objid::bigint) = hashtext('pgmq.queue_locked') AS same_key
  FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
ROLLBACK;
-- in a transaction that may not write
BEGIN READ ONLY;
SELECT pgmq.create('ro');
ROLLBACK;
BEGIN READ ONLY;
SELECT pgmq.drop_queue('a');
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
SELECT queue_name FROM pgmq.list_queues() ORDER BY 1;
SELECT pgmq.drop_queue('a'), pgmq.drop_queue('u');
SELECT count(*) FROM pgmq.list_queues();

-- DROP EXTENSION leaves the queues' tables; a new extension takes them over
SELECT pgmq.create('stays');
SELECT pgmq.send('stays', '1');
DROP EXTENSION pgmq;
SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r' ORDER BY 1;
CREATE EXTENSION pgmq;
SELECT count(*) FROM pgmq.list_queues();
SELECT pgmq.create('stays');
SELECT pgmq.send('stays', '2');
SELECT msg_id, message FROM pgmq.read('stays', 30, 5);
SELECT pgmq.drop_queue('stays');
