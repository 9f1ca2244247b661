-- The settings of delivery policies: what may be set, by whom, and how they are kept.
\set VERBOSITY terse
SET client_min_messages = warning;
SELECT pgmq.create('Pol'), pgmq.create('pol_dead'), pgmq.create('pol_dead2'), pgmq.create_unlogged('pol_unlogged');
RESET client_min_messages;
\set VERBOSITY default
-- nothing given, nothing changed
SELECT pgmq.set_policy('pol');
SELECT count(*) FROM pgmq.policy;
-- wrong values
SELECT pgmq.set_policy('pol', max_reads => 0);
SELECT pgmq.set_policy('pol', max_reads => 1000001);
\set VERBOSITY terse
SELECT pgmq.set_policy('pol', dead_letter_queue => '');
SELECT pgmq.set_policy('pol', dead_letter_queue => 'a;b');
SELECT pgmq.set_policy('pol', retry_delay => '-1 s');
SELECT pgmq.set_policy('pol', retry_delay => '1 year 1 s');
SELECT pgmq.set_policy('pol', retry_delay => '1 day -1 s');
SELECT pgmq.set_policy('pol', retry_backoff => 0.5);
SELECT pgmq.set_policy('pol', retry_backoff => 1000.5);
SELECT pgmq.set_policy('pol', retry_backoff => 'NaN');
SELECT pgmq.set_policy('pol', retry_backoff => 'infinity');
SELECT pgmq.set_policy('pol', retry_delay_max => '0');
SELECT pgmq.set_policy('pol', message_ttl => '-1 month');
SELECT pgmq.set_policy('pol', message_ttl => '1001 years');
SELECT pgmq.set_policy('pol', max_length => 0);
SELECT pgmq.set_policy('pol', max_length => 1000000000001);
SELECT pgmq.set_policy('pol', overflow => 'drop');
SELECT pgmq.set_policy('pol', overflow => NULL, priority_max_wait => '0 days');
SELECT pgmq.set_policy('pol', max_in_flight => 0);
SELECT pgmq.set_policy('pol', max_in_flight => 1000001);
SELECT pgmq.set_policy('pol', rate_limit => 0);
SELECT pgmq.set_policy('pol', rate_limit => 1000000001);
SELECT pgmq.set_policy('pol', rate_limit => 10, rate_period => '-00:00:01');
SELECT pgmq.set_policy('pol', dedup_window => '0');
SELECT pgmq.set_policy('pol', archive_retention => '0');
-- the first wrong one counts
SELECT pgmq.set_policy('pol', rate_limit => -1, retry_backoff => -1);
SELECT count(*) FROM pgmq.policy;
-- NULL, and queues that do not exist
\set VERBOSITY default
SELECT pgmq.set_policy(NULL, max_reads => 3);
SELECT pgmq.set_policy('pol_none', max_reads => 3);
SELECT pgmq.reset_policy('pol_none');
SELECT pgmq.pause_queue('pol_none');
SELECT pgmq.resume_queue('pol_none');
SELECT pgmq.pause_queue('pol', NULL);
SELECT pgmq.pause_queue(NULL);
SELECT pgmq.reset_policy('pol', ARRAY['max_read']);
SELECT pgmq.reset_policy('pol', ARRAY['paused_until']);
SELECT pgmq.reset_policy('pol', ARRAY['max_reads', NULL]);
SELECT pgmq.reset_policy('pol', '{}');
-- a row of a queue whose tables are gone, or that is not listed
CREATE TABLE pgmq.q_pol_alone (LIKE pgmq.q_pol);
SELECT pgmq.pause_queue('pol_alone');
DROP TABLE pgmq.q_pol_alone;
-- pause: one row for each queue, in whatever spelling it is given
SELECT pgmq.pause_queue('pol', '2030-01-01 12:00:00.123456+00');
SELECT pgmq.pause_queue('POL');
SELECT queue_name, identity, paused_until FROM pgmq.policy;
SELECT pgmq.reset_policy('pol');
SELECT queue_name, max_reads, paused_until FROM pgmq.list_policies();
SELECT pgmq.resume_queue('POL');
SELECT pgmq.resume_queue('pol');
SELECT count(*) FROM pgmq.policy;
BEGIN;
SELECT pgmq.pause_queue('pol');
SAVEPOINT s;
SELECT pgmq.pause_queue('pol_dead', '-infinity');
SELECT queue_name, paused_until FROM pgmq.list_policies();
ROLLBACK TO s;
SELECT queue_name, paused_until FROM pgmq.list_policies();
ROLLBACK;
SELECT count(*) FROM pgmq.policy;
-- the row goes with the queue
\set VERBOSITY terse
SELECT pgmq.pause_queue('pol_dead2');
SELECT pgmq.drop_queue('pol_dead2');
SELECT count(*) FROM pgmq.policy;
-- what was written by hand: values that could not have been set have no effect, and the row is the queue owner's
INSERT INTO pgmq.policy (queue_name, max_reads, retry_backoff, message_ttl, rate_limit, overflow, dead_letter_queue)
  VALUES ('Pol', -1, 'NaN', '-1 day', 0, 'nonsense', 'a;b');
INSERT INTO pgmq.policy (queue_name) VALUES ('pol');
SELECT msg_id FROM pgmq.send('pol', '1') AS msg_id;
SELECT msg_id FROM pgmq.read('pol', 0, 1);
SELECT msg_id FROM pgmq.pop('pol');
DELETE FROM pgmq.policy;
-- who may
CREATE ROLE regress_policy_owner;
CREATE ROLE regress_policy_other;
GRANT USAGE ON SCHEMA pgmq TO regress_policy_owner, regress_policy_other;
GRANT SELECT ON pgmq.meta TO regress_policy_owner, regress_policy_other;
ALTER TABLE pgmq.q_pol OWNER TO regress_policy_owner;
ALTER TABLE pgmq.a_pol OWNER TO regress_policy_owner;
SET ROLE regress_policy_other;
SELECT pgmq.set_policy('pol', max_reads => 3);
SELECT pgmq.reset_policy('pol');
SELECT pgmq.pause_queue('pol');
SELECT pgmq.resume_queue('pol');
SELECT pgmq.list_policies();
SET ROLE regress_policy_owner;
SELECT pgmq.pause_queue('pol');
SELECT pgmq.list_policies();
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.policy TO regress_policy_owner, regress_policy_other;
SET ROLE regress_policy_other;
SELECT queue_name FROM pgmq.list_policies();
UPDATE pgmq.policy SET max_reads = 3;
DELETE FROM pgmq.policy;
SET ROLE regress_policy_owner;
UPDATE pgmq.policy SET paused_until = '-infinity';
DELETE FROM pgmq.policy;
RESET ROLE;
SELECT pgmq.drop_queue('pol'), pgmq.drop_queue('pol_dead'), pgmq.drop_queue('pol_unlogged');
SELECT count(*) FROM pgmq.policy;
DROP OWNED BY regress_policy_owner, regress_policy_other;
DROP ROLE regress_policy_owner, regress_policy_other;
