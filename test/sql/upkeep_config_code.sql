-- The owners of pgmq.partition_config and of pg_partman's table attach code to them: what is read there
-- about a queue runs none of it, so none of it can keep list_partitions() or maintain() waiting.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA config_partman;
CREATE EXTENSION pg_partman SCHEMA config_partman;
CREATE ROLE config_owner;
CREATE SCHEMA config_code AUTHORIZATION config_owner;
CREATE SEQUENCE config_code.runs;
GRANT USAGE ON SCHEMA config_code TO PUBLIC;
GRANT USAGE ON SEQUENCE config_code.runs TO PUBLIC;
GRANT USAGE ON SCHEMA pgmq, config_partman TO config_owner;
SELECT FROM pgmq.create_partitioned('coded', '10', '100', 2);
SELECT count(*) FROM pgmq.send_batch('coded', array_fill('1'::jsonb, ARRAY[45]));
SELECT relowner::regrole AS owner_of_settings FROM pg_class WHERE oid = 'pgmq.partition_config'::regclass \gset
-- an expression of an index, which the planner computes; a policy, which applies to the owner, too
CREATE FUNCTION config_code.run() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN PERFORM nextval('config_code.runs'); RETURN true; END $$;
CREATE INDEX config_settings ON pgmq.partition_config ((config_code.run()));
CREATE INDEX config_record ON config_partman.part_config ((config_code.run()));
CREATE POLICY config_policy ON pgmq.partition_config USING (config_code.run());
CREATE POLICY config_policy ON config_partman.part_config USING (config_code.run());
ALTER TABLE pgmq.partition_config ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgmq.partition_config FORCE ROW LEVEL SECURITY;
ALTER TABLE config_partman.part_config ENABLE ROW LEVEL SECURITY;
ALTER TABLE config_partman.part_config FORCE ROW LEVEL SECURITY;
ALTER TABLE pgmq.partition_config OWNER TO config_owner;
ALTER TABLE config_partman.part_config OWNER TO config_owner;
ALTER SEQUENCE config_code.runs RESTART;
\c -
SET client_min_messages = warning;
SELECT queue, lower_bound, upper_bound, messages, past_retention FROM pgmq.list_partitions();
SELECT count(*) FROM pgmq.list_partitions('coded');
SELECT is_called FROM config_code.runs;
-- the retention is found: it is a queue of a superuser, so maintain() asks whose the tables are
ALTER TABLE pgmq.partition_config OWNER TO :owner_of_settings;
ALTER TABLE config_partman.part_config OWNER TO :owner_of_settings;
CALL pgmq.maintain();
SELECT lower_bound, upper_bound, messages FROM pgmq.list_partitions('coded');
SELECT is_called FROM config_code.runs;
-- without an index by which the queue is found
ALTER TABLE pgmq.partition_config DROP CONSTRAINT partition_config_pkey;
UPDATE pgmq.partition_config SET retention_interval = '5' WHERE queue_name = 'coded';
SELECT count(*) FILTER (WHERE past_retention) AS past FROM pgmq.list_partitions('coded');
ALTER TABLE pgmq.partition_config ADD PRIMARY KEY (queue_name);
-- and without a row
BEGIN;
DELETE FROM pgmq.partition_config;
SELECT count(*) FILTER (WHERE past_retention) AS past FROM pgmq.list_partitions('coded');
ROLLBACK;
DROP INDEX pgmq.config_settings;
DROP POLICY config_policy ON pgmq.partition_config;
ALTER TABLE pgmq.partition_config NO FORCE ROW LEVEL SECURITY;
ALTER TABLE pgmq.partition_config DISABLE ROW LEVEL SECURITY;
DROP INDEX config_partman.config_record;
DROP POLICY config_policy ON config_partman.part_config;
ALTER TABLE config_partman.part_config NO FORCE ROW LEVEL SECURITY;
ALTER TABLE config_partman.part_config DISABLE ROW LEVEL SECURITY;
SELECT pgmq.drop_queue('coded');
DROP EXTENSION pg_partman;
DROP SCHEMA config_partman, config_code CASCADE;
DROP OWNED BY config_owner;
DROP ROLE config_owner;
