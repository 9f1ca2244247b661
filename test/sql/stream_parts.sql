-- maintain() for streams: parts ahead, parts that end, old events that go, and what subscriptions lose with them.
-- published_at is set back by hand, so nothing has to be waited for.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE FUNCTION parts(log text DEFAULT 'pgmq.s_s') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(coalesce(substring(pg_get_expr(c.relpartbound, c.oid) FROM '\(''(\d+)''\) TO'), 'default'), ' '
		ORDER BY substring(pg_get_expr(c.relpartbound, c.oid) FROM '\(''(\d+)''\) TO')::bigint)
	  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = log::regclass $$;
CREATE FUNCTION publish(n integer) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(*) FROM pgmq.publish_batch('s', array_fill('{}'::jsonb, ARRAY[n])) $$;
CREATE FUNCTION dropped() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(subscription || ': ' || dropped_events, ', ' ORDER BY subscription) FROM pgmq.list_subscriptions('s') $$;

-- Room ahead
SELECT pgmq.create_stream('s', 2, '8 hours');
CREATE FUNCTION age_by(age interval) RETURNS void LANGUAGE sql AS 'UPDATE pgmq.s_s SET published_at = published_at - age';
SELECT parts();
CALL pgmq.maintain();
SELECT parts();
CALL pgmq.maintain();
SELECT parts();

-- A part ends when its first event is as old as an eighth of the retention.  Then no id is drawn for it any more.
SELECT publish(100);
SELECT age_by('59 minutes');
CALL pgmq.maintain();
SELECT last_value FROM pgmq.s_s_event_id_seq;
SELECT age_by('1 minute');
CALL pgmq.maintain();
SELECT last_value FROM pgmq.s_s_event_id_seq;
CALL pgmq.maintain();
SELECT last_value, parts() FROM pgmq.s_s_event_id_seq;
SELECT event_id, shard FROM pgmq.fetch('s', 0, 90, 100) UNION ALL SELECT pgmq.publish('s', '"after it"'), 0 ORDER BY 1;

-- Retention is a minimum age, and a second: the last event of each shard counts
SELECT age_by('6 hours 59 minutes');
UPDATE pgmq.s_s SET published_at = clock_timestamp() - interval '7 hours 59 minutes' WHERE event_id = 99;
UPDATE pgmq.s_s SET published_at = clock_timestamp() - interval '9 hours' WHERE event_id <> 99 AND event_id < 131072;
CALL pgmq.maintain();
SELECT parts();
UPDATE pgmq.s_s SET published_at = clock_timestamp() - interval '8 hours 2 seconds' WHERE event_id = 99;
CALL pgmq.maintain();
SELECT parts(), count(*), min(message::text) FROM pgmq.s_s;

-- A subscription that has passed nothing loses the events, which is counted; and goes on with the first that remains
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 2, '8 hours');
SELECT pgmq.subscribe('s', 'none', 'earliest'), pgmq.subscribe('s', 'some', 'earliest'), pgmq.subscribe('s', 'also none', 'earliest'),
	pgmq.subscribe('s', 'all', 'earliest'), pgmq.subscribe('s', 'far', start_id => 1);
SELECT publish(100);
SELECT count(pgmq.advance('s', 'all', shard, event_id, lease)) FROM pgmq.receive('s', 'all', 60, 100);
SELECT count(pgmq.advance('s', 'all', shard, event_id, lease)) FROM pgmq.receive('s', 'all', 60, 100);
SELECT count(pgmq.advance('s', 'some', shard, event_id, lease)) FROM pgmq.receive('s', 'some', 60, 20);
SELECT age_by('9 hours');
CALL pgmq.maintain();
SELECT parts(), dropped();
SELECT publish(10);
SELECT shard, event_id, attempt FROM pgmq.receive('s', 'none', 60, 2) AS r;
SELECT dropped_events FROM pgmq.list_subscriptions('s') WHERE subscription = 'none';
SELECT age_by('9 hours');
CALL pgmq.maintain();
SELECT parts(), dropped();
-- leased events may go as well; their lease goes on
SELECT bool_and(pgmq.advance('s', 'none', shard, leased_id, lease)) FROM pgmq.p_s WHERE subscription = 'none' AND lease IS NOT NULL;

-- keep_unconsumed: so much longer for a subscription that has not passed a part
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 2, '8 hours', '1 hour');
SELECT pgmq.subscribe('s', 'slow', 'earliest');
SELECT publish(100);
SELECT age_by('8 hours 50 minutes');
CALL pgmq.maintain();
SELECT parts(), dropped(), count(*) FROM pgmq.s_s;
-- shard 0 has passed it, shard 1 has not
SELECT shard, count(pgmq.advance('s', 'slow', shard, event_id, lease)) FROM pgmq.receive('s', 'slow', 60, 100) GROUP BY 1;
CALL pgmq.maintain();
SELECT parts(), dropped(), count(*) FROM pgmq.s_s;
SELECT age_by('11 minutes');
CALL pgmq.maintain();
SELECT parts(), dropped(), count(*) FROM pgmq.s_s;
-- for ever; until it is passed, or the subscription is gone, or the owner changes his mind
SELECT pgmq.set_stream_retention('s', '8 hours', '100000 years');
SELECT publish(100);
SELECT age_by('100 years');
CALL pgmq.maintain();
SELECT parts(), dropped(), count(*) FROM pgmq.s_s;
BEGIN;
SELECT pgmq.unsubscribe('s', 'slow');
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
ROLLBACK;
BEGIN;
-- what is left of a subscription that was deleted by hand does not count
DELETE FROM pgmq.subscription WHERE subscription = 'slow';
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
ROLLBACK;
BEGIN;
SELECT pgmq.seek('s', 'slow', 'latest', force => true);
CALL pgmq.maintain();
SELECT parts(), dropped(), count(*) FROM pgmq.s_s;
ROLLBACK;
SELECT pgmq.set_stream_retention('s', '8 hours');
SELECT retention, keep_unconsumed FROM pgmq.list_streams();
CALL pgmq.maintain();
SELECT parts(), dropped(), count(*) FROM pgmq.s_s;
-- a retention that no event can reach
SELECT pgmq.set_stream_retention('s', '170000000 years');
SELECT publish(100);
SELECT age_by('4000 years');
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
-- none at all
SELECT pgmq.set_stream_retention('s', '0');
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;

-- A part without events goes: here all were rolled back
BEGIN;
SELECT publish(10);
SELECT setval('pgmq.s_s_event_id_seq', 400000);
ROLLBACK;
CALL pgmq.maintain();
SELECT parts();

-- A part that has filled soon is followed by wider ones
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 2, '8 hours');
CALL pgmq.maintain();
SELECT setval('pgmq.s_s_event_id_seq', 131000);
SELECT publish(200);
CALL pgmq.maintain();
SELECT parts();
SELECT setval('pgmq.s_s_event_id_seq', 262100);
SELECT publish(200);
CALL pgmq.maintain();
SELECT parts();
-- one that took longer is not
UPDATE pgmq.s_s SET published_at = published_at - interval '31 minutes' WHERE event_id = 262144;
SELECT setval('pgmq.s_s_event_id_seq', 393200);
SELECT publish(200);
CALL pgmq.maintain();
SELECT parts();
SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname ~ '^s_s_p(393216|524288|655360|786432)$' ORDER BY 1;

-- Publishing does not need a part, however far it is from the last one
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 2, '8 hours');
SELECT pgmq.subscribe('s', 'all', 'earliest');
SELECT setval('pgmq.s_s_event_id_seq', 5000000);
SELECT publish(50);
SELECT setval('pgmq.s_s_event_id_seq', 90000000);
SELECT publish(12000);
SELECT count(*) FROM pgmq.s_s_default;
SELECT count(pgmq.advance('s', 'all', shard, event_id, lease)) FROM pgmq.receive('s', 'all', 60, 30);
CALL pgmq.maintain();
SELECT parts();
SELECT count(*) FROM pgmq.s_s_default_2;
SELECT shard, count(*), min(event_id), max(event_id) FROM pgmq.receive('s', 'all', 60, 100000) GROUP BY 1;
SELECT shard, count(*), min(event_id), max(event_id) FROM pgmq.receive('s', 'all', 60, 100000) GROUP BY 1;

-- The name of the next part is taken: it gets another one
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 1, '8 hours');
CREATE VIEW pgmq.s_s_p262144 AS SELECT 1;
CALL pgmq.maintain();
SELECT parts();
SELECT relname FROM pg_class WHERE relname ~ '^s_s_p262144.*' AND relkind IN ('r', 'v') ORDER BY 1;
-- all of them are: a warning, and events go to the default partition
SELECT setval('pgmq.s_s_event_id_seq', 393215);
CREATE TABLE pgmq.s_s_p393216 ();
DO $$ BEGIN FOR i IN 2..10 LOOP EXECUTE format('CREATE SEQUENCE pgmq.s_s_p393216_%s', i); END LOOP; END $$;
SELECT publish(3);
\set VERBOSITY default
CALL pgmq.maintain();
\set VERBOSITY terse
SELECT parts(), count(*) FROM pgmq.s_s;
SELECT message FROM pgmq.fetch('s', 0, 393215, 10);
DROP TABLE pgmq.s_s_p393216;
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;

-- The default partition is gone
DROP TABLE pgmq.s_s_default;
CALL pgmq.maintain();
SELECT setval('pgmq.s_s_event_id_seq', 4000000);
SELECT publish(3);
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
-- Parts that were detached and attached by hand
ALTER TABLE pgmq.s_s DETACH PARTITION pgmq.s_s_p3932160;
SELECT publish(3);
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
SELECT relname FROM pg_class WHERE relname ~ '^s_s_p3932160.*' AND relkind IN ('r', 'v') ORDER BY 1;
CREATE TABLE pgmq.by_hand (LIKE pgmq.s_s INCLUDING ALL EXCLUDING IDENTITY);
INSERT INTO pgmq.by_hand SELECT 100, now() - interval '1 day', 0, NULL, '"attached"', NULL;
ALTER TABLE pgmq.s_s ATTACH PARTITION pgmq.by_hand FOR VALUES FROM (100) TO (200);
SELECT message FROM pgmq.fetch('s', 0, 0, 1);
CALL pgmq.maintain();
SELECT parts(), to_regclass('pgmq.by_hand') FROM pgmq.s_s LIMIT 1;
-- One without an end
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 1, '0');
DROP TABLE pgmq.s_s_p131072;
CREATE TABLE pgmq.rest PARTITION OF pgmq.s_s FOR VALUES FROM (131072) TO (MAXVALUE);
CREATE TABLE pgmq.below PARTITION OF pgmq.s_s FOR VALUES FROM (MINVALUE) TO (1);
SELECT setval('pgmq.s_s_event_id_seq', 131071);
SELECT publish(1);
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;

-- A view of a part: its events go, the part stays
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 1, '8 hours');
CREATE VIEW dependent AS SELECT * FROM pgmq.s_s_p1;
SELECT publish(5);
SELECT age_by('9 hours');
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
SELECT publish(5);
SELECT age_by('9 hours');
CALL pgmq.maintain();
SELECT parts(), count(*) FROM pgmq.s_s;
DROP VIEW dependent;
CALL pgmq.maintain();
SELECT parts();
-- Policies hide events from the owner himself: they go all the same, and are counted
CREATE ROLE regress_stream_owner;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_stream_owner;
GRANT SELECT, INSERT ON pgmq.meta TO regress_stream_owner;
SET ROLE regress_stream_owner;
SELECT pgmq.create_stream('hidden', 1, '8 hours');
SELECT pgmq.subscribe('hidden', 'all', 'earliest');
SELECT count(*) FROM pgmq.publish_batch('hidden', '{1,2,3}');
UPDATE pgmq.s_hidden SET published_at = published_at - interval '9 hours';
ALTER TABLE pgmq.s_hidden_p1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT count(*) FROM pgmq.s_hidden_p1;
CALL pgmq.maintain();
RESET ROLE;
SELECT dropped_events, parts('pgmq.s_hidden') FROM pgmq.list_subscriptions('hidden');
SELECT relname, relowner::regrole FROM pg_class WHERE relname ~ '^s_hidden_p\d+$' AND relowner <> 'regress_stream_owner'::regrole;

-- A part of another role: nothing is done for this stream
CREATE ROLE regress_stream_other;
CREATE TABLE pgmq.foreign_part PARTITION OF pgmq.s_hidden FOR VALUES FROM (10000000) TO (10000001);
ALTER TABLE pgmq.foreign_part OWNER TO regress_stream_other;
SELECT pgmq.publish('hidden', '4') > 0, pgmq.publish('s', '4') > 0;
UPDATE pgmq.s_hidden SET published_at = published_at - interval '9 hours';
SELECT age_by('9 hours');
SELECT parts(), parts('pgmq.s_hidden');
\set VERBOSITY default
CALL pgmq.maintain();
\set VERBOSITY terse
SELECT count(*) FROM pgmq.s_hidden UNION ALL SELECT count(*) FROM pgmq.s_s;
DROP TABLE pgmq.foreign_part;
GRANT USAGE ON SCHEMA pgmq TO regress_stream_other;

-- set_stream_retention()
SELECT pgmq.set_stream_retention('nothing', '1 day');
SELECT pgmq.set_stream_retention('s', NULL);
SELECT pgmq.set_stream_retention('s', '-1 day');
SELECT pgmq.set_stream_retention('s', '1 day', '-1 day');
SELECT pgmq.set_stream_retention(NULL, '1 day');
SET ROLE regress_stream_other;
SELECT pgmq.set_stream_retention('hidden', '1 day');
SET ROLE regress_stream_owner;
SELECT pgmq.set_stream_retention('HIDDEN', '1 day', '2 days');
SELECT pgmq.set_stream_retention('s', '1 day');
RESET ROLE;
SELECT stream_name, retention, keep_unconsumed FROM pgmq.list_streams();

-- Events written by hand above all ids that were drawn: in a shard that there is not, no call meets them, and they get no parts
SELECT pgmq.create_stream('far');
SELECT pgmq.publish('far', '1');
INSERT INTO pgmq.s_far (event_id, shard, message) OVERRIDING SYSTEM VALUE SELECT 1000000000::bigint * g, 7, '1' FROM generate_series(1, 5) AS g;
CALL pgmq.maintain();
SELECT count(*) < 8 AS few_parts FROM pg_partition_tree('pgmq.s_far') WHERE isleaf;
SELECT pgmq.publish('far', '2');
-- but one in the next part does not keep that from being made
INSERT INTO pgmq.s_far (event_id, shard, message) OVERRIDING SYSTEM VALUE VALUES (400000, 7, '1');
SELECT setval('pgmq.s_far_event_id_seq', 140000);
CALL pgmq.maintain();
SELECT tableoid::regclass FROM pgmq.s_far WHERE event_id = 400000;
SELECT pgmq.drop_stream('far');

-- A sequence that was set back, or that does not rise
SELECT setval('pgmq.s_s_event_id_seq', 1);
\set VERBOSITY default
CALL pgmq.maintain();
\set VERBOSITY terse
SELECT pgmq.drop_stream('s'), pgmq.create_stream('s', 1, '8 hours');
SELECT publish(5);
SELECT age_by('9 hours');
ALTER TABLE pgmq.s_s ALTER COLUMN event_id SET INCREMENT -1;
CALL pgmq.maintain();
SELECT count(*) FROM pgmq.s_s;

SELECT pgmq.drop_stream('s'), pgmq.drop_stream('hidden');
DROP VIEW pgmq.s_s_p262144;
DROP TABLE pgmq.s_s_p3932160;
DROP FUNCTION parts, publish, dropped, age_by;
DO $$ BEGIN FOR i IN 2..10 LOOP EXECUTE format('DROP SEQUENCE pgmq.s_s_p393216_%s', i); END LOOP; END $$;
REVOKE ALL ON SCHEMA pgmq FROM regress_stream_owner, regress_stream_other;
REVOKE ALL ON pgmq.meta FROM regress_stream_owner;
DROP ROLE regress_stream_owner, regress_stream_other;
