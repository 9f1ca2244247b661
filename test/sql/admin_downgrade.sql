-- What goes from the queues before another version of pgmq takes over.
\set VERBOSITY terse
CREATE ROLE regress_down_owner;
CREATE ROLE regress_down_other;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_down_owner, regress_down_other;
GRANT SELECT, INSERT ON pgmq.meta TO regress_down_owner, regress_down_other;
CREATE FUNCTION public.plain_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
-- what is not the table of extension, and not a table of a queue's user
CREATE VIEW left_over AS
SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass AS what FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
 WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ '^[qag]_' AND NOT tgisinternal
UNION ALL
SELECT 'relation ' || oid::regclass FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND (relname ~ '^g_' OR relname ~ 'fifo_idx$');

-- queues with nothing, with groups and notifications, under a name that needs quotes, unlogged, of another role
SELECT pgmq.create('plain'), pgmq.create('Two "words"'), pgmq.create_unlogged('fast');
SELECT pgmq.send_batch(q, '{1,2,3}', array_fill('{"x-pgmq-group": "g"}'::jsonb, '{3}')) FROM unnest('{plain,"two \"words\"",fast}'::text[]) AS q;
SET client_min_messages = warning;
SELECT pgmq.create_fifo_index('two "words"'), pgmq.create_fifo_index('fast'), pgmq.enable_notify_insert('fast'), pgmq.enable_notify_insert('two "words"');
SET ROLE regress_down_owner;
SELECT pgmq.create('theirs'), pgmq.create_fifo_index('theirs'), pgmq.enable_notify_insert('theirs');
RESET ROLE;
RESET client_min_messages;
-- triggers of users stay, unless they call a function of the extension
CREATE TRIGGER mine AFTER INSERT ON pgmq.q_plain EXECUTE FUNCTION public.plain_trigger();
CREATE TRIGGER "my Own" AFTER INSERT ON pgmq.q_plain EXECUTE FUNCTION pgmq.notify_queue_listeners();
-- objects that only have the names: another index, another table, in place of notes and group index
SELECT pgmq.create('named');
CREATE INDEX q_named_fifo_idx ON pgmq.q_named (read_ct);
CREATE TABLE pgmq.g_named (a int);
SELECT pgmq.create('gin');
CREATE INDEX q_gin_fifo_idx ON pgmq.q_gin USING gin (headers);
CREATE TABLE pgmq.q_other_fifo_idx (a int);
SELECT pgmq.create('other');

-- a role removes it from its own queues
SET ROLE regress_down_other;
SELECT pgmq.create('others own');
SELECT pgmq.prepare_downgrade();
SET ROLE regress_down_owner;
SELECT pgmq.prepare_downgrade();
RESET ROLE;
SELECT pgmq.create_fifo_index('theirs');
-- a superuser from all; it can be rolled back
BEGIN;
SELECT pgmq.prepare_downgrade();
ROLLBACK;
SELECT count(*) FROM left_over;
SELECT pgmq.prepare_downgrade();
SELECT * FROM left_over ORDER BY 1;
-- again
SELECT pgmq.prepare_downgrade();

-- the queues work, by groups too, and all of it can be made again
SELECT msg_id FROM pgmq.read_grouped('two "words"', 60, 1);
SELECT msg_id FROM pgmq.read_grouped('two "words"', 60, 1);
SELECT pgmq.create_fifo_index('two "words"');
SELECT pgmq.send('fast', '4');
SELECT * FROM pgmq.list_notify_insert_throttles() ORDER BY 1;
SELECT pgmq.prepare_downgrade();

-- a view in place of a queue, a queue without a table, and a name that no queue can have are nothing to it
ALTER TABLE pgmq.q_other RENAME TO q_elsewhere;
CREATE VIEW pgmq.q_other AS SELECT * FROM pgmq.q_elsewhere;
INSERT INTO pgmq.meta VALUES ('a;b', false, false), ('nowhere', false, false);
SELECT pgmq.create_fifo_index('fast');
SELECT pgmq.prepare_downgrade();
DROP VIEW pgmq.q_other;
ALTER TABLE pgmq.q_elsewhere RENAME TO q_other;
DELETE FROM pgmq.meta WHERE queue_name IN ('a;b', 'nowhere');

-- what depends on the notes: nothing is dropped
SELECT pgmq.create_fifo_index('plain'), pgmq.create_fifo_index('fast');
CREATE VIEW public.on_notes AS SELECT count(*) FROM pgmq.g_plain;
SELECT pgmq.prepare_downgrade();
SELECT pgmq.create_fifo_index('fast');
SELECT what FROM left_over WHERE what ~ 'relation.*fast' ORDER BY 1;
DROP VIEW public.on_notes;

-- partitions: the parts of the index and the triggers on partitions go with those of the whole
SELECT count(pgmq.drop_queue(q)) FROM unnest('{gin,named,other,fast,theirs,others own}'::text[]) AS q;
CREATE TABLE pgmq.q_parted (msg_id bigint GENERATED ALWAYS AS IDENTITY, read_ct integer NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz, vt timestamptz NOT NULL, message jsonb, headers jsonb)
    PARTITION BY RANGE (msg_id);
CREATE TABLE pgmq.q_parted_p0 PARTITION OF pgmq.q_parted FOR VALUES FROM (0) TO (100);
CREATE TABLE pgmq.a_parted (LIKE pgmq.a_plain INCLUDING ALL);
INSERT INTO pgmq.meta VALUES ('parted', true, false);
CREATE TRIGGER each_row AFTER INSERT ON pgmq.q_parted FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners('parted');
SELECT pgmq.create_fifo_index('parted');
SELECT pgmq.prepare_downgrade();
SELECT what FROM left_over WHERE what ~ 'parted';
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'pgmq.q_parted_p0'::regclass;

-- code of an owner runs as that owner, when a superuser calls it, too
SET ROLE regress_down_owner;
SELECT pgmq.create('evil');
CREATE FUNCTION pgmq.who(a int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'run as %, a superuser: %', current_user, (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
    RETURN 'x';
END $$;
CREATE INDEX q_evil_fifo_idx ON pgmq.q_evil ((pgmq.who(1) COLLATE "C"), msg_id);
RESET ROLE;
\c -
SELECT pgmq.prepare_downgrade();
SELECT pgmq.drop_queue('evil');
DROP FUNCTION pgmq.who(int);

-- then nothing needs CASCADE
SELECT * FROM left_over ORDER BY 1;
DROP EXTENSION pgmq;
SELECT oid::regclass FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname;
DROP TABLE pgmq.q_parted, pgmq.a_parted, pgmq.q_plain, pgmq.a_plain, pgmq."q_two ""words""", pgmq."a_two ""words""", pgmq.g_named, pgmq.q_other_fifo_idx;
DROP VIEW left_over;
DROP FUNCTION public.plain_trigger();
REVOKE ALL ON SCHEMA pgmq FROM regress_down_owner, regress_down_other;
DROP ROLE regress_down_owner;
DROP ROLE regress_down_other;
CREATE EXTENSION pgmq;
