-- The stream that faults are tried on, and what there is of it.  Ids differ from one try to the next, so none is shown.
CREATE SCHEMA test;
SET check_function_bodies = off;
SELECT pgmq.create_stream('work', 2);

-- Two shards; 'a' has a lease on one, has advanced in it, and has the rest of both before it
-- What is as it should be is not touched, so that sessions need not read it again.
CREATE FUNCTION test.clear() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmq.drop_stream(stream_name) FROM pgmq.stream WHERE stream_name IN ('made', 'old');
	PERFORM pgmq.set_stream_retention(stream_name, '7 days') FROM pgmq.stream WHERE retention <> '7 days';
	PERFORM pgmq.unsubscribe('work', 'b'), pgmq.subscribe('work', 'a'), pgmq.subscribe('work', 'empty');
	PERFORM pgmq.unbind_topic_stream(pattern, stream_name) FROM pgmq.topic_stream_bindings WHERE pattern = 'other.*';
	PERFORM pgmq.bind_topic_stream('bound.*', 'work') WHERE NOT EXISTS (SELECT FROM pgmq.topic_stream_bindings);
	DELETE FROM pgmq.s_work;
	PERFORM pgmq.seek('work', 'a', 'latest', force => true);
END$$;
CREATE FUNCTION test.fill() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgmq.publish_batch('work', '{1,2,3,4,5,6}', '{a,b,a,b,a,b}');
	PERFORM pgmq.seek('work', 'empty', start_id => (SELECT max(event_id) + 1 FROM pgmq.s_work));
END$$;
CREATE VIEW test.lease AS
	SELECT shard, lease, leased_id FROM pgmq.p_work WHERE lease IS NOT NULL;
CREATE FUNCTION test.lease() RETURNS void LANGUAGE sql AS $$
	SELECT pgmq.advance('work', 'a', shard, event_id, lease) FROM pgmq.receive('work', 'a', 3600, 3) LIMIT 1 $$;

CREATE FUNCTION test.relations(stream text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ ('^[sp]_' || stream || '(\M|_)') $$;

CREATE FUNCTION test.work() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws('; ',
		(SELECT concat_ws(' ', stream_name, shards, retention, keep_unconsumed) FROM pgmq.stream WHERE stream_name = 'work'),
		'events: ' || (SELECT string_agg(concat_ws('/', shard, key, message, headers), ' ' ORDER BY event_id) FROM pgmq.s_work),
		'subscriptions: ' || (SELECT string_agg(subscription, ' ' ORDER BY subscription) FROM pgmq.subscription WHERE stream_name = 'work'),
		'states: ' || (SELECT string_agg(concat_ws('/', subscription, shard,
				(SELECT count(*) FROM pgmq.s_work AS e WHERE e.shard = p.shard AND event_id > passed_id),
				extract(epoch FROM leased_until - clock_timestamp())::integer / 1000,
				(SELECT count(*) FROM pgmq.s_work AS e WHERE e.shard = p.shard AND event_id > leased_id), attempts[2], attempts[4]), ' '
			ORDER BY subscription, shard) FROM pgmq.p_work AS p),
		'topics: ' || (SELECT string_agg(pattern, ' ' ORDER BY pattern) FROM pgmq.topic_stream_bindings WHERE stream_name = 'work')) $$;

-- A stream that is made or dropped
CREATE FUNCTION test.made() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	events bigint;
BEGIN
	IF to_regclass('pgmq.s_made') IS NOT NULL THEN
		SELECT count(*) INTO events FROM pgmq.s_made;
	END IF;
	RETURN concat_ws(' ', (SELECT shards FROM pgmq.stream WHERE stream_name = 'made'), 'relations:', test.relations('made'), 'events:', events,
		'subscriptions:', (SELECT count(*) FROM pgmq.subscription WHERE stream_name = 'made'),
		'topics:', (SELECT count(*) FROM pgmq.topic_stream_bindings WHERE stream_name = 'made'));
END$$;

-- A stream for maintenance: room is to be made, a part is to end and another to go, with an event that was not received
CREATE FUNCTION test.make_old() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM test.clear();
	PERFORM pgmq.create_stream('old', 1, '8 hours');
	PERFORM pgmq.publish_batch('old', '{1,2}'), pgmq.subscribe('old', 'a', 'earliest');
	PERFORM setval('pgmq.s_old_event_id_seq', 131080);
	PERFORM pgmq.publish('old', '3');
	UPDATE pgmq.s_old SET published_at = published_at - CASE WHEN event_id < 10 THEN interval '9 hours' ELSE interval '1 hour' END;
END$$;
CREATE FUNCTION test.maintain() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CALL pgmq.maintain();
END$$;
-- What there is when maintenance has done its work
CREATE FUNCTION test.maintained() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CALL pgmq.maintain();
	CALL pgmq.maintain();
	RETURN concat_ws(' ', 'parts:', (SELECT string_agg(relname || (SELECT count(*) FROM pgmq.s_old AS e WHERE e.tableoid = c.oid), ' ' ORDER BY relname)
			FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'pgmq.s_old'::regclass),
		'relations:', test.relations('old'), 'dropped:', (SELECT dropped_events FROM pgmq.list_subscriptions('old')));
END$$;

-- An event that was published just now is in the next look: nobody holds the stream up.  What is free can be received, in order
-- and as a whole, and what is leased cannot.  Then this is undone.
CREATE FUNCTION test.usable(probe bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	wrong text = '';
	expected bigint[];
	got bigint[];
BEGIN
	IF (SELECT max(event_id) FROM (VALUES (0), (1)) AS s (n), pgmq.fetch('work', n, 0, 1000)) IS DISTINCT FROM probe THEN
		wrong := 'the stream is held up; ';
	END IF;
	BEGIN
		expected := ARRAY(SELECT event_id FROM pgmq.s_work AS e JOIN pgmq.p_work AS p USING (shard)
			WHERE subscription = 'a' AND event_id > passed_id AND lease IS NULL ORDER BY shard, event_id);
		got := ARRAY(SELECT event_id FROM pgmq.list_subscriptions('work') AS s, generate_series(1, 3) AS n, pgmq.receive('work', s.subscription, 60 + n, 1000)
			WHERE s.subscription = 'a' ORDER BY shard, event_id);
		IF got <> expected THEN wrong := wrong || format('receive gave %s of %s; ', got, expected); END IF;
		RAISE 'undo' USING ERRCODE = 'XX999';
	EXCEPTION WHEN SQLSTATE 'XX999' THEN
		NULL;
	END;
	-- Of what is kept there is one context, and one of its hash table; and one of each stream whose parts were listed
	RETURN wrong || coalesce((SELECT string_agg(format('%s times %s', n, name), ', ')
		FROM (SELECT name, count(*) AS n FROM pg_backend_memory_contexts WHERE name LIKE 'pgmq%' GROUP BY name) AS c
		WHERE name <> 'pgmq partitions of a queue'
			AND (n > 2 OR name NOT IN ('pgmq partitions', 'pgmq plans', 'pgmq queues', 'pgmq streams', 'pgmq topics'))), '');
END$$;
