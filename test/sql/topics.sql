-- Topics: validation, bindings, routing, sends. test/t/031_topics.pl has what needs many bindings.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET datestyle = 'ISO';

-- what a routing key may be; the first fault is reported
SELECT pgmq.validate_routing_key(k) FROM unnest(ARRAY['a', 'logs.error', 'A-1_b.c', '-', '_', repeat('k', 255)]) AS k;
SELECT pgmq.validate_routing_key(NULL);
SELECT pgmq.validate_routing_key('');
SELECT pgmq.validate_routing_key(repeat('k', 256));
SELECT pgmq.validate_routing_key(repeat('ä', 256));
SELECT pgmq.validate_routing_key('ä');
SELECT pgmq.validate_routing_key('.a b.');
SELECT pgmq.validate_routing_key('logs.*');
SELECT pgmq.validate_routing_key('logs.#');
SELECT pgmq.validate_routing_key(E'a\n');
SELECT pgmq.validate_routing_key('.a..b.');
SELECT pgmq.validate_routing_key('a..b.');
SELECT pgmq.validate_routing_key('a..b');
SELECT pgmq.validate_routing_key('.');

-- and a pattern
SELECT pgmq.validate_topic_pattern(p) FROM unnest(ARRAY['*', '#', 'a.*.#', 'a*b', 'c#d', '*.x.*', repeat('p', 255)]) AS p;
SELECT pgmq.validate_topic_pattern(NULL);
SELECT pgmq.validate_topic_pattern('');
SELECT pgmq.validate_topic_pattern(repeat('p', 256));
SELECT pgmq.validate_topic_pattern('.a b*');
SELECT pgmq.validate_topic_pattern('%s%n');
SELECT pgmq.validate_topic_pattern('.**.');
SELECT pgmq.validate_topic_pattern('**.');
SELECT pgmq.validate_topic_pattern('**..a');
SELECT pgmq.validate_topic_pattern('##.**.*#');
SELECT pgmq.validate_topic_pattern('##.*#');
SELECT pgmq.validate_topic_pattern('a.*#');
SELECT pgmq.validate_topic_pattern('a.#*');

-- bind
SELECT pgmq.create('Orders');
SELECT pgmq.create('billing');
SELECT pgmq.create('audit');
SELECT pgmq.bind_topic(NULL, NULL);
SELECT pgmq.bind_topic('a..b', 'nope');
SELECT pgmq.bind_topic('a.b', NULL);
SELECT pgmq.bind_topic('a.b', '');
SELECT pgmq.bind_topic('a.b', 'nope');
SELECT pgmq.bind_topic('a.b', 'no;pe');
SELECT pgmq.bind_topic('order.*', 'ORDERS');
SELECT pgmq.bind_topic('order.#', 'billing');
SELECT pgmq.bind_topic('#', 'audit');
SELECT pgmq.bind_topic('#.eu', 'audit');
-- again: nothing happens
UPDATE pgmq.topic_bindings SET bound_at = '2020-01-01 00:00:00Z';
SELECT pgmq.bind_topic('order.*', 'orders');
SELECT pattern, queue_name, bound_at = '2020-01-01 00:00:00Z' AS kept, compiled_regex FROM pgmq.list_topic_bindings();
-- the newest first
UPDATE pgmq.topic_bindings SET bound_at = '2021-01-01 00:00:00Z' WHERE pattern = '#.eu';
SELECT pattern, queue_name FROM pgmq.list_topic_bindings();
SELECT pattern, queue_name, compiled_regex FROM pgmq.list_topic_bindings('AUDIT');
SELECT * FROM pgmq.list_topic_bindings('orderS') \gset
\echo :pattern :queue_name :compiled_regex
SELECT * FROM pgmq.list_topic_bindings('nope');
SELECT * FROM pgmq.list_topic_bindings('no;pe');
SELECT * FROM pgmq.list_topic_bindings(NULL);

-- which bindings a key matches
SELECT * FROM pgmq.test_routing('order.new');
SELECT * FROM pgmq.test_routing('order.new.eu');
SELECT * FROM pgmq.test_routing('Order.new');
SELECT * FROM pgmq.test_routing(NULL);
SELECT * FROM pgmq.test_routing('order.');

-- matching: the whole key, dots and case matter, wildcards may be anywhere
CREATE FUNCTION matching(pattern text, keys text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	found text[];
BEGIN
	INSERT INTO pgmq.topic_bindings (pattern, queue_name) VALUES (matching.pattern, 'billing');
	SELECT array_agg(k) INTO found FROM unnest(keys) AS k
	 WHERE EXISTS (SELECT FROM pgmq.test_routing(k) AS r WHERE r.pattern = matching.pattern);
	-- the regular expression that others read means the same
	IF found IS DISTINCT FROM
		(SELECT array_agg(k) FROM unnest(keys) AS k, pgmq.topic_bindings AS b WHERE b.pattern = matching.pattern AND k ~ b.compiled_regex)
	THEN
		RAISE 'not what the regular expression matches';
	END IF;
	DELETE FROM pgmq.topic_bindings AS b WHERE b.pattern = matching.pattern;
	RETURN found;
END $$;
SELECT p, matching(p, ARRAY['logs', 'logs.a', 'logs.a.b', 'Logs.a', 'log', 'logsa', 'a.logs', 'a.logs.b', 'lo-gs'])
  FROM unnest(ARRAY['logs', 'logs.*', 'logs.#', 'logs#', 'logs*', '#.logs', '#logs', '*.logs.*', '*', '*.*', '#.a', '#a', 'l*s', 'l#s', 'lo*gs', 'lo#gs', 'lo*s',
		'logs.*.*', '#.#', '#.*', '*.#', 'a*', '-*', '*-*']) AS p;
-- rows that bind_topic would refuse
SELECT left(p, 12) AS p, matching(p, ARRAY['a', 'ab', 'abc', 'a.b', 'a.bc', 'a.b.c', 'a-b'])
  FROM unnest(ARRAY['', '**', '***', '##', '###.###', '*#', '#*', '#*#', '*#*', '**.*', '.', 'a.', '.a', '..', 'a..b', 'ä', 'ä*', 'a b', 'a?', '(a)', '[a]', 'a|b', '.+',
		'^a$', 'a\', '\a', '%', E'a\n', '*' || chr(233), repeat('#', 20), repeat('#b', 2) || '#', repeat('a', 300) || '#', '!#', '~']) AS p;
-- the longest that match, and longer; some are too much for a regular expression
DELETE FROM pgmq.topic_bindings;
INSERT INTO pgmq.topic_bindings (pattern, queue_name)
SELECT p, 'billing' FROM unnest(ARRAY[repeat('a', 255), repeat('*', 255), repeat('a#', 255), '#' || repeat('*#', 255), repeat('#', 2000), repeat('a', 254) || '*',
	repeat('a', 255) || '#', repeat('a', 256), repeat('*', 256), repeat('a*', 128), repeat('#a', 256), repeat('a', 255) || '*', repeat('a', 2000)]) AS p;
SELECT left(pattern, 8) AS pattern, length(pattern), pattern IN (SELECT r.pattern FROM pgmq.test_routing(repeat('a', 255)) AS r) AS matches
  FROM pgmq.topic_bindings ORDER BY bound_at, length(pattern), 1, 3;
DELETE FROM pgmq.topic_bindings;
SELECT pgmq.bind_topic(p, q) FROM (VALUES ('order.*', 'orders'), ('order.#', 'billing'), ('#', 'audit'), ('#.eu', 'audit')) AS b (p, q);

-- send: to each queue once, by however many bindings; none is no error
SELECT pgmq.send_topic('order.new', '1');
SELECT pgmq.send_topic('order.new.eu', '2', 0);
SELECT pgmq.send_topic(routing_key => 'order.new', msg => '3', headers => '{"h": 3}', delay => 3600);
SELECT pgmq.send_topic('other', '4', NULL, 0);
SELECT pgmq.unbind_topic('#', 'audit');
SELECT pgmq.send_topic('other', '5');
SELECT q, msg_id, message, headers, vt > enqueued_at + interval '59 min' AS delayed, vt = enqueued_at AS fresh
  FROM (SELECT 'orders' AS q, * FROM pgmq.q_orders UNION ALL SELECT 'billing', * FROM pgmq.q_billing UNION ALL SELECT 'audit', * FROM pgmq.q_audit) AS all_queues
 ORDER BY q, msg_id;
SELECT pgmq.send_topic(NULL, NULL);
SELECT pgmq.send_topic('a..b', NULL, -1);
SELECT pgmq.send_topic('order.new', NULL, -1);
SELECT pgmq.send_topic('order.new', '1', -1);
SELECT pgmq.send_topic('nowhere', '1', '{}', -2147483648);
SELECT pgmq.send_topic('nowhere', '1', NULL::integer);
\set VERBOSITY sqlstate
SELECT pgmq.send_topic('order.new', '1', NULL::integer);
SELECT pgmq.send_batch_topic('order.new', '{1}'::jsonb[], NULL::timestamptz);
\set VERBOSITY terse
SELECT pgmq.send_topic('order.new', 'null');

-- batches: rows by queue in the order of names, ids in array order
SELECT pgmq.bind_topic('#', 'audit');
SELECT pgmq.purge_queue(q) FROM unnest(ARRAY['orders', 'billing', 'audit']) AS q;
ALTER SEQUENCE pgmq.q_orders_msg_id_seq RESTART;
ALTER SEQUENCE pgmq.q_billing_msg_id_seq RESTART;
ALTER SEQUENCE pgmq.q_audit_msg_id_seq RESTART;
SELECT * FROM pgmq.send_batch_topic('order.new', ARRAY['"a"', '"b"']::jsonb[]);
SELECT * FROM pgmq.send_batch_topic('order.new', ARRAY['"c"', NULL]::jsonb[], ARRAY['{"h": 1}', NULL]::jsonb[]);
SELECT * FROM pgmq.send_batch_topic('order.x.y', ARRAY['"e"']::jsonb[], 3600);
SELECT * FROM pgmq.send_batch_topic('order.x.y', ARRAY['"f"']::jsonb[], -1);
SELECT * FROM pgmq.send_batch_topic('order.x.y', ARRAY['"g"']::jsonb[], 'infinity'::timestamptz);
SELECT * FROM pgmq.send_batch_topic('order.x.y', ARRAY['"h"']::jsonb[], ARRAY['[]']::jsonb[], 3600);
SELECT * FROM pgmq.send_batch_topic('order.x.y', ARRAY['"i"']::jsonb[], NULL, '2000-01-01'::timestamptz);
SELECT pgmq.unbind_topic('#', 'AUDIT');
SELECT * FROM pgmq.send_batch_topic('nowhere', ARRAY['"j"']::jsonb[], NULL::integer);
SELECT msg_id, message, headers, vt > enqueued_at + interval '59 min' AS delayed FROM pgmq.q_billing ORDER BY msg_id;
SELECT pgmq.send_batch_topic(NULL, NULL);
SELECT pgmq.send_batch_topic('order.new', NULL);
SELECT pgmq.send_batch_topic('nowhere', '{}'::jsonb[]);
SELECT pgmq.send_batch_topic('nowhere', ARRAY['1']::jsonb[], ARRAY['1', '2']::jsonb[]);
SELECT pgmq.send_batch_topic('order.new', ARRAY['1']::jsonb[], '{}'::jsonb[], 0);

-- unbind
SELECT pgmq.unbind_topic(NULL, NULL);
SELECT pgmq.unbind_topic('', 'orders');
SELECT pgmq.unbind_topic('a..b', NULL);
SELECT pgmq.unbind_topic('a..b', '');
SELECT pgmq.unbind_topic('a..b', 'orders'), pgmq.unbind_topic('order.*', 'billing'), pgmq.unbind_topic('order.*', 'nope');
SELECT pgmq.unbind_topic('order.*', 'oRDERS'), pgmq.unbind_topic('order.*', 'orders');
SELECT * FROM pgmq.send_batch_topic('order.z', ARRAY['1']::jsonb[]);

-- every way to change the bindings is seen by the next send, and so is every way to undo it
DELETE FROM pgmq.topic_bindings;
SELECT pgmq.send_topic('k', '1');
INSERT INTO pgmq.topic_bindings VALUES ('k', 'Orders'), ('k', 'billing');
SELECT pgmq.send_topic('k', '1');
UPDATE pgmq.topic_bindings SET pattern = 'l' WHERE queue_name = 'billing';
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('l', '1');
DELETE FROM pgmq.topic_bindings WHERE pattern = 'l';
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('l', '1');
TRUNCATE pgmq.topic_bindings;
SELECT pgmq.send_topic('k', '1');
COPY pgmq.topic_bindings (pattern, queue_name) FROM stdin;
k	billing
k	audit
\.
SELECT pgmq.send_topic('k', '1');
BEGIN;
SELECT pgmq.bind_topic('k', 'orders'), pgmq.send_topic('k', '1');
SELECT pgmq.send_topic('k', '1');
SAVEPOINT s;
SELECT pgmq.unbind_topic('k', 'audit');
SELECT pgmq.unbind_topic('k', 'billing');
SELECT pgmq.send_topic('k', '1');
SAVEPOINT s2;
TRUNCATE pgmq.topic_bindings;
INSERT INTO pgmq.topic_bindings VALUES ('k', 'audit');
SELECT pgmq.send_topic('k', '1');
-- the file is this subtransaction's own: truncated in place
TRUNCATE pgmq.topic_bindings;
SELECT pgmq.send_topic('k', '1');
ROLLBACK TO s2;
SELECT pgmq.send_topic('k', '1');
RELEASE s2;
SELECT pgmq.send_topic('k', '1');
ROLLBACK TO s;
SELECT pgmq.send_topic('k', '1');
ROLLBACK;
SELECT pgmq.send_topic('k', '1');
-- an error that is caught takes the binding with it
DO $$
BEGIN
	BEGIN
		PERFORM pgmq.bind_topic('k', 'orders');
		RAISE NOTICE 'bound';
		ASSERT pgmq.send_topic('k', '1') = 3;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		ASSERT pgmq.send_topic('k', '1') = 2;
	END;
	PERFORM pgmq.bind_topic('k', 'orders');
	ASSERT pgmq.send_topic('k', '1') = 3;
	PERFORM pgmq.unbind_topic('k', 'orders');
	ASSERT pgmq.send_topic('k', '1') = 2;
END $$;
-- the same transaction prepared
BEGIN;
SELECT pgmq.bind_topic('k', 'orders');
SELECT pgmq.send_topic('k', '1');
PREPARE TRANSACTION 'topics';
SELECT pgmq.send_topic('k', '1');
ROLLBACK PREPARED 'topics';
SELECT pgmq.send_topic('k', '1');
BEGIN;
SELECT pgmq.bind_topic('k', 'orders');
SELECT pgmq.send_topic('k', '1');
PREPARE TRANSACTION 'topics';
SELECT pgmq.send_topic('k', '1');
COMMIT PREPARED 'topics';
SELECT pgmq.send_topic('k', '1');
-- as pg_restore --disable-triggers does it
ALTER TABLE pgmq.topic_bindings DISABLE TRIGGER ALL;
INSERT INTO pgmq.topic_bindings VALUES ('without', 'audit');
ALTER TABLE pgmq.topic_bindings ENABLE TRIGGER ALL;
SELECT pgmq.send_topic('without', '1');
DELETE FROM pgmq.topic_bindings WHERE pattern = 'without';
ALTER TABLE pgmq.topic_bindings ENABLE ALWAYS TRIGGER topic_bindings_changed, ENABLE ALWAYS TRIGGER topic_bindings_truncated;
-- as replication applies it
SET session_replication_role = replica;
DELETE FROM pgmq.topic_bindings WHERE queue_name = 'Orders';
SELECT pgmq.send_topic('k', '1');
RESET session_replication_role;
-- triggers of others that send in the middle of a change, and undo it
CREATE FUNCTION sends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING '% % sends to %', tg_when, tg_op, pgmq.send_topic('k', '1');
	IF tg_when = 'AFTER' AND new.pattern = 'bad' THEN
		RAISE 'no such pattern';
	END IF;
	RETURN new;
END $$;
CREATE TRIGGER a_before BEFORE INSERT ON pgmq.topic_bindings FOR EACH ROW EXECUTE FUNCTION sends();
CREATE TRIGGER a_after AFTER INSERT ON pgmq.topic_bindings FOR EACH ROW EXECUTE FUNCTION sends();
CREATE TRIGGER z_after AFTER INSERT ON pgmq.topic_bindings FOR EACH ROW EXECUTE FUNCTION sends();
INSERT INTO pgmq.topic_bindings VALUES ('k', 'Orders'), ('bad', 'Orders');
SELECT pgmq.send_topic('k', '1');
INSERT INTO pgmq.topic_bindings VALUES ('k', 'Orders'), ('#', 'Orders') RETURNING pgmq.send_topic('k', '1');
SELECT pgmq.send_topic('k', '1');
DROP TRIGGER a_before ON pgmq.topic_bindings;
DROP TRIGGER a_after ON pgmq.topic_bindings;
DROP TRIGGER z_after ON pgmq.topic_bindings;
DROP FUNCTION sends();
-- one that reads the bindings for the first time in a session, when rows are in that never get committed
DELETE FROM pgmq.topic_bindings WHERE queue_name = 'Orders';
CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.pattern = 'bad' THEN
		RAISE 'refused, seen by then: %', pgmq.send_topic('k', '1');
	END IF;
	RETURN new;
END $$;
CREATE TRIGGER refuses BEFORE INSERT ON pgmq.topic_bindings FOR EACH ROW EXECUTE FUNCTION refuses();
\c -
\set VERBOSITY terse
SET client_min_messages = warning;
INSERT INTO pgmq.topic_bindings VALUES ('k', 'Orders'), ('bad', 'Orders');
SELECT pgmq.send_topic('k', '1');
\c -
\set VERBOSITY terse
SET client_min_messages = warning;
BEGIN;
SAVEPOINT s;
INSERT INTO pgmq.topic_bindings VALUES ('k', 'Orders'), ('bad', 'Orders');
ROLLBACK TO s;
SELECT pgmq.send_topic('k', '1');
COMMIT;
DROP TRIGGER refuses ON pgmq.topic_bindings;
DROP FUNCTION refuses();

-- a queue that is dropped loses its bindings
SELECT pgmq.drop_queue('ORDERS');
SELECT pgmq.send_topic('k', '1');
SELECT pattern, queue_name FROM pgmq.list_topic_bindings() ORDER BY 1, 2;
BEGIN;
SELECT pgmq.drop_queue('billing');
SELECT pgmq.send_topic('k', '1');
ROLLBACK;
SELECT pgmq.send_topic('k', '1');
-- one whose table is gone without its record: nothing is sent anywhere
CREATE TEMPORARY TABLE before AS SELECT count(*) FROM pgmq.q_audit;
DROP TABLE pgmq.q_billing;
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.send_batch_topic('k', ARRAY['1']::jsonb[]);
SELECT before.count = (SELECT count(*) FROM pgmq.q_audit) AS nothing_sent FROM before;
SELECT pgmq.drop_queue('billing');

-- REPEATABLE READ sees its snapshot and its own changes, whatever was read before
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.unbind_topic('k', 'audit'), pgmq.send_topic('k', '1');
SELECT pgmq.send_topic('k', '1');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.bind_topic('k.*', 'audit');
SELECT pgmq.send_topic('k.k', '1'), pgmq.send_topic('k', '1');
ROLLBACK;
SELECT pgmq.send_topic('k.k', '1'), pgmq.send_topic('k', '1');

-- two spellings of one queue, as a database taken over may have them: one message
INSERT INTO pgmq.meta VALUES ('AUDIT', false, false);
INSERT INTO pgmq.topic_bindings VALUES ('k', 'AUDIT');
SELECT * FROM pgmq.send_batch_topic('k', ARRAY['1']::jsonb[]) AS s (queue, id) WHERE lower(queue) <> 'audit';
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.unbind_topic('k', 'audit');
SELECT pgmq.send_topic('k', '1');
-- a record that no function can have made hurts its own topic only
INSERT INTO pgmq.meta VALUES ('a;b', false, false);
INSERT INTO pgmq.topic_bindings VALUES ('semicolon', 'a;b'), ('k', 'audit');
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.send_topic('semicolon', '1');
SELECT pgmq.unbind_topic('semicolon', 'a;b');
DELETE FROM pgmq.meta WHERE queue_name IN ('a;b', 'AUDIT');

-- a trigger on a queue sends on, to a topic it changes
CREATE FUNCTION sends_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmq.bind_topic('deeper', 'deep');
	PERFORM pgmq.send_topic('deeper', new.message);
	RETURN NULL;
END $$;
SELECT pgmq.create('deep');
SELECT pgmq.create('second');
SELECT pgmq.bind_topic('k', 'second');
CREATE TRIGGER on_send AFTER INSERT ON pgmq.q_audit FOR EACH ROW EXECUTE FUNCTION sends_on();
SELECT * FROM pgmq.send_batch_topic('k', ARRAY['"x"', '"y"']::jsonb[]) AS s (queue, id) WHERE queue = 'second';
SELECT message FROM pgmq.read('deep', 0, 10);
-- one that turns messages down: the queue counts, there are no ids
CREATE FUNCTION turns_down() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER no_send BEFORE INSERT ON pgmq.q_second FOR EACH ROW EXECUTE FUNCTION turns_down();
SELECT pgmq.send_topic('k', '1');
SELECT DISTINCT queue_name FROM pgmq.send_batch_topic('k', ARRAY['1', '2']::jsonb[]);

-- called as what it is not
SELECT pgmq._topic_bindings_changed();

-- rights: a sender needs SELECT on the bindings, and sees of them what a query shows it
CREATE ROLE topics_sender;
GRANT USAGE ON SCHEMA pgmq TO topics_sender;
GRANT SELECT, INSERT ON pgmq.q_audit, pgmq.q_deep, pgmq.q_second TO topics_sender;
DROP TRIGGER on_send ON pgmq.q_audit;
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('deeper', '1');
SET ROLE topics_sender;
SELECT pgmq.send_topic('k', '1');
SELECT * FROM pgmq.test_routing('k');
RESET ROLE;
GRANT SELECT (pattern, queue_name) ON pgmq.topic_bindings TO topics_sender;
SET ROLE topics_sender;
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.bind_topic('x', 'audit');
RESET ROLE;
GRANT SELECT ON pgmq.topic_bindings TO topics_sender;
SET ROLE topics_sender;
SELECT pgmq.send_topic('k', '1'), (SELECT count(*) FROM pgmq.test_routing('k'));
RESET ROLE;
ALTER TABLE pgmq.topic_bindings ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_queue ON pgmq.topic_bindings TO topics_sender USING (queue_name = 'audit');
SET ROLE topics_sender;
SELECT pgmq.send_topic('k', '1'), (SELECT count(*) FROM pgmq.test_routing('k')), pgmq.send_topic('deeper', '1');
RESET ROLE;
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('deeper', '1');
SET ROLE topics_sender;
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('deeper', '1');
RESET ROLE;
ALTER TABLE pgmq.topic_bindings DISABLE ROW LEVEL SECURITY;
DROP POLICY one_queue ON pgmq.topic_bindings;
SELECT has_table_privilege('pg_monitor', 'pgmq.topic_bindings', 'SELECT');
DROP OWNED BY topics_sender;
DROP ROLE topics_sender;

-- more queues than a session keeps plans for
SET pgmq.plan_cache_size = 3;
SELECT pgmq.create('many' || i) FROM generate_series(1, 12) AS i \g /dev/null
SELECT pgmq.bind_topic('many', 'many' || i) FROM generate_series(1, 12) AS i \g /dev/null
SELECT pgmq.send_topic('many', '1');
SELECT array_agg(queue_name) = array_agg(queue_name ORDER BY queue_name) AS in_order, count(*) FROM pgmq.send_batch_topic('many', ARRAY['1', '2']::jsonb[]);
SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'pgmq topics';
RESET pgmq.plan_cache_size;

-- the extension goes, and comes back with other bindings
SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues() \g /dev/null
SELECT pgmq.create('q');
SELECT pgmq.bind_topic('k', 'q');
SELECT pgmq.send_topic('k', '1');
BEGIN;
DROP EXTENSION pgmq;
CREATE EXTENSION pgmq;
SELECT pgmq.send_topic('k', '1');
SELECT pgmq.create('q');
SELECT pgmq.bind_topic('l', 'q');
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('l', '1');
ROLLBACK;
SELECT pgmq.send_topic('k', '1'), pgmq.send_topic('l', '1');
SELECT pgmq.drop_queue('q');
DROP FUNCTION matching;
DROP FUNCTION sends_on;
DROP FUNCTION turns_down;
