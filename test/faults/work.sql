-- The queue that faults are tried on, and what must be so after each of them.
-- test.begin() makes the queue ready for one call, test.note() gives all there is,
-- and test.settle() holds what there is then against that and what the call has answered.
CREATE SCHEMA test;
SELECT pgmq.create('work');
SELECT pgmq.create('empty');

CREATE VIEW test.now AS
	SELECT 'queue' AS place, msg_id, row(read_ct, enqueued_at, last_read_at, vt, message, headers)::text AS content,
		vt = enqueued_at OR vt <= clock_timestamp() AS visible, message FROM pgmq.q_work
	UNION ALL
	SELECT 'archive', msg_id, row(read_ct, enqueued_at, last_read_at, vt, message, headers)::text, false, message FROM pgmq.a_work;
-- Some forty messages: fresh ones, leased ones, and one due that is sent last, so
-- that it is read first and has the highest msg_id.  So many are handed out
-- before: from 16 on the call tries to move floors, of less it starts at the marks.
CREATE FUNCTION test.begin(handed integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	fresh bigint;
BEGIN
	DELETE FROM pgmq.a_work;
	DELETE FROM pgmq.q_work WHERE msg_id < (SELECT max(msg_id) - 60 FROM pgmq.q_work);
	SELECT count(*) INTO fresh FROM pgmq.q_work WHERE vt = enqueued_at;
	PERFORM pgmq.send_batch('work', array_fill('{"kind": "fresh"}'::jsonb, ARRAY[greatest(handed + 25 - fresh, 1)::integer]));
	PERFORM pgmq.set_vt('work', id, 0) FROM pgmq.send('work', '{"kind": "due"}') AS id;
	PERFORM pgmq.read('work', 3600, greatest(handed, 2));
	PERFORM pgmq.set_vt('work', (SELECT max(msg_id) FROM pgmq.q_work), 0);
END$$;

CREATE FUNCTION test.note() RETURNS text[] LANGUAGE sql AS $$
	SELECT array_agg(n::text) FROM test.now AS n$$;

-- All that is visible can be read and every kind of call works; then all of it is undone.
CREATE FUNCTION test.usable() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	there bigint[];
	got bigint[] = '{}';
	ids bigint[];
	taken bigint[];
	deadline timestamptz = clock_timestamp() + interval '10 s';
	wrong text = '';
	contexts integer;
BEGIN
	BEGIN
		SELECT coalesce(array_agg(msg_id ORDER BY msg_id), '{}') INTO there FROM test.now WHERE visible;
		WHILE cardinality(got) < cardinality(there) AND clock_timestamp() < deadline LOOP
			got := got || ARRAY(SELECT msg_id FROM pgmq.read('work', 60, 100000));
		END LOOP;
		IF ARRAY(SELECT g FROM unnest(got) AS g ORDER BY g) <> there THEN
			wrong := format('read gave %s of %s; ', got, there);
		END IF;
		ids := ARRAY(SELECT pgmq.send_batch('work', '{1,2,3,4,5,6}')) || ARRAY(SELECT pgmq.send('work', '7'));
		taken := ARRAY(SELECT msg_id FROM pgmq.pop('work', 2));
		IF taken <> ids[1:2] THEN wrong := wrong || format('pop gave %s; ', taken); END IF;
		taken := ARRAY(SELECT msg_id FROM pgmq.read('work', 60, 10));
		IF taken <> ids[3:7] THEN wrong := wrong || format('read gave %s; ', taken); END IF;
		taken := ARRAY(SELECT msg_id FROM pgmq.set_vt('work', ids[3:4], 0));
		IF taken <> ids[3:4] THEN wrong := wrong || format('set_vt gave %s; ', taken); END IF;
		taken := ARRAY(SELECT msg_id FROM pgmq.pop('work', 10));
		IF taken <> ids[3:4] THEN wrong := wrong || format('pop gave %s; ', taken); END IF;
		IF NOT pgmq.delete('work', ids[5]) THEN wrong := wrong || 'delete; '; END IF;
		IF NOT pgmq.archive('work', ids[6]) THEN wrong := wrong || 'archive; '; END IF;
		IF ARRAY(SELECT pgmq.archive('work', ids)) <> ids[7:7] THEN wrong := wrong || 'archive of many; '; END IF;
		-- Nothing of an attempt that failed is kept beside what came after it: floors, and two contexts each
		-- of the plans, of the descriptors and of the policies, one of them the hash table's
		SELECT count(*) INTO contexts FROM pg_backend_memory_contexts WHERE name LIKE 'pgmq%';
		IF contexts > 7 THEN wrong := wrong || format('%s memory contexts; ', contexts); END IF;
		RAISE 'undo' USING ERRCODE = 'XX999';
	EXCEPTION WHEN SQLSTATE 'XX999' THEN
		NULL;
	END;
	RETURN wrong;
END$$;

-- '' or what is wrong: a call that failed has changed nothing, one that did not
-- has done to the messages that it gave what its kind does, and nothing else.
CREATE FUNCTION test.settle(kind text, before text[], ids bigint[], failed boolean, try_all boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	done text;
	expected text;
BEGIN
	SELECT coalesce(string_agg(CASE WHEN b.msg_id IS NULL THEN '+' WHEN n.msg_id IS NULL THEN '-' ELSE '~' END ||
			' ' || place || ' ' || msg_id, ', ' ORDER BY place DESC, msg_id), '')
	  INTO done
	  FROM (SELECT (t::test.now).* FROM unnest(before) AS t) AS b FULL JOIN test.now AS n USING (place, msg_id)
	 WHERE b.content IS DISTINCT FROM n.content;
	IF failed THEN
		expected := '';
	ELSE
		SELECT coalesce(string_agg(change || ' ' || i, ', ' ORDER BY change !~ 'queue', i), '')
		  INTO expected
		  FROM unnest(ids) AS i, unnest(CASE kind
				WHEN 'send' THEN '{+ queue}'::text[]
				WHEN 'lease' THEN '{~ queue}'
				WHEN 'remove' THEN '{- queue}'
				WHEN 'archive' THEN '{- queue,+ archive}' END) AS change;
	END IF;
	RETURN CASE WHEN done <> expected THEN format('done: %s, expected: %s; ', done, expected) ELSE '' END ||
		CASE WHEN try_all THEN test.usable() ELSE '' END;
END$$;

-- For calls that make, empty and drop a queue: what there is of it
CREATE FUNCTION test.about(queue text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	messages bigint;
BEGIN
	IF to_regclass('pgmq.q_' || queue) IS NOT NULL THEN
		EXECUTE format('SELECT count(*) FROM pgmq.q_%s', queue) INTO messages;
	END IF;
	RETURN concat_ws(' ', 'recorded:', (SELECT count(*) FROM pgmq.meta WHERE queue_name = queue),
		'relations:', (SELECT count(*) FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ ('_' || queue || '\M|_' || queue || '_')),
		'messages:', messages);
END$$;
