-- Topics that lead to streams: what is sent is published, too.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT pgmq.create('q'), pgmq.create_stream('Events', 4), pgmq.create_stream('other');

-- bind: by any spelling of the name; shown with the bindings of queues
SELECT pgmq.bind_topic('a.*', 'q'), pgmq.bind_topic_stream('a.*', 'events'), pgmq.bind_topic_stream('a.*', 'EVENTS'), pgmq.bind_topic_stream('#', 'Events');
SELECT pattern, queue_name, compiled_regex FROM pgmq.list_topic_bindings() ORDER BY 1, 2;
SELECT pattern, queue_name FROM pgmq.list_topic_bindings('EVENTS') ORDER BY 1;
SELECT pattern, queue_name FROM pgmq.test_routing('a.b');
SELECT pgmq.bind_topic_stream('a..b', 'events');
SELECT pgmq.bind_topic_stream('a', 'q');
SELECT pgmq.bind_topic_stream('a', 'none');
SELECT pgmq.bind_topic_stream(NULL, 'events');
SELECT pgmq.bind_topic_stream('a', NULL);
SELECT pgmq.bind_topic('a', 'events');
SELECT pgmq.unbind_topic_stream(NULL, 'events');
SELECT pgmq.unbind_topic_stream('a', NULL);

-- send: one event, however many bindings match; the group is the key; a delay is ignored
SELECT pgmq.send_topic('a.b', '1'), pgmq.send_topic('z', '2');
SELECT pgmq.send_topic('a.b', '3', 600);
SELECT pgmq.send_topic('a.b', '4', '{"x-pgmq-group": "ada"}', 600);
SELECT pgmq.send_topic('z', 'null', jsonb_build_object('x-pgmq-group', g), 0) FROM unnest(ARRAY['5', 'true', 'null', '""', '{"b": [1]}', '[2]']::jsonb[]) AS g;
SELECT pgmq.send_topic('z', '5', '["x-pgmq-group"]', NULL);
SELECT * FROM pgmq.send_batch_topic('a.b', '{6,7}', ARRAY['{"x-pgmq-group": "ada"}', NULL]::jsonb[]);
SELECT * FROM pgmq.send_batch_topic('a.b', '{8}', now() + '1 day');
SELECT * FROM pgmq.send_batch_topic('z', '{9}', ARRAY['{"x-pgmq-group": "ada"}']::jsonb[], 60);
SELECT event_id, key, message, headers, CASE WHEN key IS NOT NULL THEN shard = min(shard) OVER (PARTITION BY key) END AS same FROM pgmq.s_events ORDER BY event_id;
SELECT vt > enqueued_at AS delayed, message FROM pgmq.q_q ORDER BY msg_id;
SELECT pgmq.send_topic('a.b', NULL);
SELECT pgmq.send_topic('a.b', '1', -1);

-- all or nothing
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.s_events FOR EACH ROW WHEN (NEW.message = '"bad"') EXECUTE FUNCTION refuse();
SELECT pgmq.send_topic('a.b', '"bad"');
SELECT count(*) FROM pgmq.q_q WHERE message = '"bad"';
DROP TRIGGER refuse ON pgmq.s_events;
DROP FUNCTION refuse;

-- a binding of this transaction counts, and goes with a savepoint
BEGIN;
SELECT pgmq.send_topic('z', '10');
SAVEPOINT s;
SELECT pgmq.bind_topic_stream('z', 'other');
SELECT pgmq.send_topic('z', '11');
ROLLBACK TO s;
SELECT pgmq.send_topic('z', '12');
COMMIT;
SELECT count(*) FROM pgmq.s_other;

-- privileges: SELECT on the bindings of queues, and INSERT on each log
CREATE ROLE regress_topic_sender;
CREATE ROLE regress_topic_binder;
GRANT USAGE ON SCHEMA pgmq TO regress_topic_sender, regress_topic_binder;
GRANT SELECT ON pgmq.topic_bindings TO regress_topic_sender;
SET ROLE regress_topic_sender;
SELECT pgmq.send_topic('z', '13');
SELECT pgmq.send_topic('nowhere.at', '13');
SELECT pattern, queue_name FROM pgmq.test_routing('z');
SELECT pgmq.bind_topic_stream('z', 'other');
SELECT pgmq.unbind_topic_stream('#', 'events');
SELECT * FROM pgmq.topic_stream_bindings;
RESET ROLE;
GRANT INSERT ON pgmq.s_events TO regress_topic_sender;
SET ROLE regress_topic_sender;
SELECT pgmq.send_topic('z', '14');
RESET ROLE;
GRANT SELECT, INSERT, DELETE ON pgmq.topic_stream_bindings TO regress_topic_binder;
SET ROLE regress_topic_binder;
SELECT pgmq.bind_topic_stream('y', 'other');
SELECT pgmq.unbind_topic_stream('y', 'OTHER'), pgmq.unbind_topic_stream('y', 'other');
SELECT pgmq.send_topic('y', '1');
TRUNCATE pgmq.topic_stream_bindings;
RESET ROLE;

-- a dropped stream takes its bindings along; a new one has none
SELECT pgmq.bind_topic_stream('x', 'other'), pgmq.drop_stream('other');
SELECT pgmq.send_topic('x', '1');
SELECT pgmq.create_stream('other');
SELECT pgmq.send_topic('x', '1');
SELECT pattern, queue_name FROM pgmq.list_topic_bindings('other');
-- by hand, without a stream
INSERT INTO pgmq.topic_stream_bindings VALUES ('x', 'never');
SELECT pgmq.send_topic('x', '1');
SELECT pgmq.unbind_topic_stream('x', 'never');

-- arrays of the same length, with different numbers of elements: a stream gets the same as a queue
SELECT pgmq.create('both'), pgmq.create_stream('sharded', 3);
SELECT pgmq.bind_topic('both', 'both'), pgmq.bind_topic_stream('both', 'sharded');
SELECT queue_name, count(*) FROM pgmq.send_batch_topic('both', array_fill('1'::jsonb, '{3,2}'),
	ARRAY['{"x-pgmq-group": "a"}', '{"x-pgmq-group": 5}', '{"x-pgmq-group": null}']::jsonb[]) GROUP BY 1 ORDER BY 1;
SELECT queue_name, count(*) FROM pgmq.send_batch_topic('both', ARRAY['1', '2']::jsonb[],
	array_fill('{"x-pgmq-group": "a"}'::jsonb, '{2,2}')) GROUP BY 1 ORDER BY 1;
SELECT event_id, shard, key, message, headers FROM pgmq.s_sharded ORDER BY event_id;
SELECT message, headers FROM pgmq.q_both EXCEPT ALL SELECT message, headers FROM pgmq.s_sharded;
SELECT pgmq.drop_stream('sharded'), pgmq.drop_queue('both');

SELECT pgmq.drop_stream('events'), pgmq.drop_stream('other'), pgmq.drop_queue('q');
SELECT * FROM pgmq.topic_stream_bindings;
DROP OWNED BY regress_topic_sender, regress_topic_binder;
DROP ROLE regress_topic_sender, regress_topic_binder;
