-- What a publisher, a consumer and an owner of a stream need; and that a consumer cannot move the subscription of another one.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_stream_owner;
CREATE ROLE regress_stream_publisher;
CREATE ROLE regress_stream_consumer;
CREATE ROLE regress_stream_member;
CREATE ROLE regress_stream_other;
GRANT regress_stream_consumer TO regress_stream_member;
GRANT USAGE ON SCHEMA pgmq TO PUBLIC;
-- the creator
SET ROLE regress_stream_owner;
SELECT pgmq.create_stream('s', 2);
RESET ROLE;
GRANT CREATE ON SCHEMA pgmq TO regress_stream_owner;
SET ROLE regress_stream_owner;
SELECT pgmq.create_stream('s', 2);
RESET ROLE;
GRANT INSERT, SELECT ON pgmq.meta TO regress_stream_owner;
SET ROLE regress_stream_owner;
SELECT pgmq.create_stream('s', 2);
SELECT * FROM pgmq.list_streams();

-- the publisher: INSERT
SET ROLE regress_stream_publisher;
SELECT pgmq.publish('s', '1');
SELECT pgmq.publish_batch('s', '{1}');
SET ROLE regress_stream_owner;
GRANT INSERT ON pgmq.s_s TO regress_stream_publisher;
SET ROLE regress_stream_publisher;
SELECT pgmq.publish('s', '1');
SELECT pgmq.publish_batch('s', '{2,3}');
SELECT pgmq.fetch('s', 0, 0, 1);
SELECT pgmq.subscribe('s', 'mine');

-- the consumer: SELECT
SET ROLE regress_stream_consumer;
SELECT pgmq.subscribe('s', 'mine', 'earliest');
SELECT pgmq.fetch('s', 0, 0, 1);
SET ROLE regress_stream_owner;
GRANT SELECT ON pgmq.s_s TO regress_stream_consumer, regress_stream_other;
SET ROLE regress_stream_consumer;
SELECT pgmq.subscribe('s', 'mine', 'earliest');
SELECT shard, event_id FROM pgmq.receive('s', 'mine', 0, 1);
SELECT pgmq.advance('s', 'mine', 1, 1, 1), pgmq.extend_lease('s', 'mine', 1, 1, 1), pgmq.return_lease('s', 'mine', 1, 1);
SELECT pgmq.seek('s', 'mine', 'earliest');
SELECT * FROM pgmq.p_s;
SELECT pgmq.list_subscriptions();
SELECT pgmq.stream_lag('s');
UPDATE pgmq.p_s SET passed_id = 100;
SELECT pgmq.publish('s', '1');
-- a member of the role, through it
SET ROLE regress_stream_member;
SELECT shard, event_id FROM pgmq.receive('s', 'mine', 0, 1);
-- another consumer
SET ROLE regress_stream_other;
SELECT shard, event_id FROM pgmq.receive('s', 'mine', 0, 1);
SELECT pgmq.advance('s', 'mine', 1, 1, 1);
SELECT pgmq.extend_lease('s', 'mine', 1, 1, 1);
SELECT pgmq.return_lease('s', 'mine', 1, 1);
SELECT pgmq.seek('s', 'mine', 'latest', force => true);
SELECT pgmq.unsubscribe('s', 'mine');
SELECT pgmq.subscribe('s', 'mine');
SELECT event_id FROM pgmq.fetch('s', 1, 0, 1);
SELECT pgmq.drop_stream('s');
-- the owner of the stream may do all of it
SET ROLE regress_stream_owner;
SELECT shard, event_id FROM pgmq.receive('s', 'mine', 0, 1);
SELECT pgmq.seek('s', 'mine', 'latest', force => true);
SELECT subscription, role FROM pgmq.subscription;

-- a role that does not exist any more, or not yet after a restore
RESET ROLE;
UPDATE pgmq.subscription SET role = 'regress_stream_gone';
SET ROLE regress_stream_consumer;
SELECT pgmq.seek('s', 'mine', 'latest', force => true);
SET ROLE regress_stream_owner;
SELECT pgmq.seek('s', 'mine', 'latest', force => true);
RESET ROLE;
UPDATE pgmq.subscription SET role = 'regress_stream_consumer';

-- rows about streams
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON pgmq.stream, pgmq.subscription TO regress_stream_other;
SET ROLE regress_stream_other;
UPDATE pgmq.stream SET shards = 1;
DELETE FROM pgmq.stream;
TRUNCATE pgmq.stream;
UPDATE pgmq.subscription SET role = 'regress_stream_other';
DELETE FROM pgmq.subscription;
INSERT INTO pgmq.subscription (stream_name, subscription, role) VALUES ('S', 'theirs', 'regress_stream_other');
INSERT INTO pgmq.stream (stream_name, shards, retention) VALUES ('not there', 1, '1 day');
SELECT pgmq.drop_stream('not there');
SELECT subscription, shard, passed_id FROM pgmq.stream_lag();

-- row-level security of the log: events that a role may not see are skipped
SET ROLE regress_stream_owner;
ALTER TABLE pgmq.s_s ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON pgmq.s_s FOR SELECT TO regress_stream_consumer USING (message <> '2');
SET ROLE regress_stream_consumer;
SELECT pgmq.seek('s', 'mine', 'earliest');
SELECT shard, event_id, message FROM pgmq.receive('s', 'mine', 60, 10);
SELECT shard, event_id, message FROM pgmq.receive('s', 'mine', 60, 10);
SELECT shard, event_id, message FROM pgmq.fetch('s', 0, 0, 10);
SET ROLE regress_stream_owner;
ALTER TABLE pgmq.s_s DISABLE ROW LEVEL SECURITY;

-- code on the positions runs as their owner
CREATE TABLE pgmq.p_log (who name);
CREATE FUNCTION pgmq.log_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO pgmq.p_log VALUES (current_user); RETURN NEW; END $$;
CREATE TRIGGER log_user BEFORE INSERT ON pgmq.p_s FOR EACH ROW EXECUTE FUNCTION pgmq.log_user();
SET ROLE regress_stream_consumer;
SELECT pgmq.seek('s', 'mine', 'latest', force => true);
SET ROLE regress_stream_owner;
SELECT DISTINCT who FROM pgmq.p_log;
DROP TRIGGER log_user ON pgmq.p_s;
CREATE FUNCTION pgmq.suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER suppress BEFORE INSERT ON pgmq.p_s FOR EACH ROW EXECUTE FUNCTION pgmq.suppress();
SELECT pgmq.seek('s', 'mine', 'earliest');
SELECT pgmq.subscribe('s', 'new');
DROP TRIGGER suppress ON pgmq.p_s;
SELECT pgmq.subscribe('s', 'new'), pgmq.unsubscribe('s', 'new');
-- and tables that are not what they were
ALTER TABLE pgmq.p_s RENAME COLUMN lease TO lent;
SELECT pgmq.receive('s', 'mine', 0, 1);
ALTER TABLE pgmq.p_s RENAME COLUMN lent TO lease;
ALTER TABLE pgmq.p_s DROP CONSTRAINT p_s_pkey;
SELECT pgmq.receive('s', 'mine', 0, 1);
ALTER TABLE pgmq.p_s ADD PRIMARY KEY (subscription, shard, state);
ALTER TABLE pgmq.s_s DROP CONSTRAINT s_s_pkey;
SELECT pgmq.fetch('s', 0, 0, 1);
ALTER TABLE pgmq.s_s ADD PRIMARY KEY (event_id, shard);
SELECT pgmq.fetch('s', 0, 0, 1);
ALTER TABLE pgmq.s_s RENAME TO s_renamed;
CREATE TABLE pgmq.s_s (event_id bigint GENERATED ALWAYS AS IDENTITY, shard integer, published_at timestamptz, key text, message jsonb, headers jsonb);
SELECT pgmq.fetch('s', 0, 0, 1);
SELECT pgmq.publish('s', '1');
DROP TABLE pgmq.s_s;
ALTER TABLE pgmq.s_renamed RENAME TO s_s;
SELECT pgmq.unsubscribe('s', 'mine');
SELECT pgmq.drop_stream('s');
RESET ROLE;
DROP FUNCTION pgmq.log_user, pgmq.suppress;
DROP TABLE pgmq.p_log;
REVOKE USAGE ON SCHEMA pgmq FROM PUBLIC;
DROP OWNED BY regress_stream_owner, regress_stream_publisher, regress_stream_consumer, regress_stream_member, regress_stream_other;
DROP ROLE regress_stream_owner, regress_stream_publisher, regress_stream_consumer, regress_stream_member, regress_stream_other;
