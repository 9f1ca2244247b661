-- Reading by groups, with and without a group index: the same in both.
\set VERBOSITY terse
CREATE SCHEMA groups;
SET search_path = groups, public;
SELECT pgmq.create('plain'), pgmq.create('fifo'), pgmq.create_fifo_index('fifo');

-- send to both: 'a b a' sends three messages, to the groups a, b and a
CREATE FUNCTION send(spec text) RETURNS void LANGUAGE sql AS $$
  SELECT pgmq.send(q, to_jsonb(n), CASE WHEN g <> '-' THEN jsonb_build_object('x-pgmq-group', g) END)
    FROM unnest(ARRAY['plain', 'fifo']) AS q, unnest(string_to_array(spec, ' ')) WITH ORDINALITY AS s (g, n)
$$;
-- read from both by one function: the ids as they come, once if both agree
CREATE FUNCTION read(how text, vt integer, qty integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE plain text; fifo text;
BEGIN
  EXECUTE format('SELECT string_agg(msg_id::text, '' '') FROM pgmq.%I(''plain'', %L, %L)', how, vt, qty) INTO plain;
  EXECUTE format('SELECT string_agg(msg_id::text, '' '') FROM pgmq.%I(''fifo'', %L, %L)', how, vt, qty) INTO fifo;
  RETURN CASE WHEN plain IS NOT DISTINCT FROM fifo THEN plain ELSE format('plain: %s fifo: %s', plain, fifo) END;
END $$;
-- all of them, one after the other, without a lease: everything stays to be had
CREATE FUNCTION reads(qty integer, OUT grouped text, OUT rr text, OUT head text) LANGUAGE sql AS $$
  SELECT groups.read('read_grouped', 0, qty), groups.read('read_grouped_rr', 0, qty), groups.read('read_grouped_head', 0, qty)
$$;
CREATE FUNCTION set_vt(ids bigint[], vt integer) RETURNS void LANGUAGE sql AS $$
  SELECT pgmq.set_vt('plain', ids, vt); SELECT pgmq.set_vt('fifo', ids, vt)
$$;
CREATE FUNCTION remove(VARIADIC ids bigint[]) RETURNS void LANGUAGE sql AS $$
  SELECT pgmq.delete('plain', ids); SELECT pgmq.delete('fifo', ids)
$$;
-- start again with ids from 1
CREATE FUNCTION empty() RETURNS void LANGUAGE sql AS $$
  TRUNCATE pgmq.q_plain, pgmq.q_fifo RESTART IDENTITY
$$;

-- the three ways
SELECT send('a b a b c a');
SELECT * FROM reads(10);
SELECT * FROM reads(4);
SELECT * FROM reads(2);
SELECT * FROM reads(1);
-- a quantity of 0 and NULL, and a negative one
SELECT * FROM reads(0);
SELECT read('read_grouped', 0, NULL), read('read_grouped_rr', 0, NULL), read('read_grouped_head', 0, NULL);
SELECT read('read_grouped', 0, -1);
SELECT read('read_grouped_rr', 0, -1);
SELECT read('read_grouped_head', 0, -1);
-- what a message looks like; NULL for the lease
SELECT msg_id, read_ct, vt = last_read_at + interval '60 s' AS leased, message, headers FROM pgmq.read_grouped('fifo', 60, 1);
SELECT msg_id, read_ct, vt = last_read_at + interval '60 s' AS leased, message, headers FROM pgmq.read_grouped('plain', 60, 1);
SELECT read('read_grouped', NULL, 1);
SELECT read('read_grouped', -5, 1);

-- a leased first message blocks its group, and no other
SELECT * FROM reads(10);
-- a message that is gone makes way
SELECT remove(1);
SELECT * FROM reads(10);
-- the group with the oldest first message comes first: b with 2, a with 3, c with 5
SELECT * FROM reads(1);
SELECT pgmq.archive('plain', 2), pgmq.archive('fifo', 2);
SELECT * FROM reads(10);
-- two leased ones of a group, the first of which is set free
SELECT read('read_grouped', 60, 2);
SELECT * FROM reads(10);
SELECT set_vt('{3}', 0);
SELECT * FROM reads(10);
SELECT set_vt('{3, 6}', 0);
-- plain reads don't know of groups
SELECT msg_id FROM pgmq.read('plain', 60, 1);
SELECT msg_id FROM pgmq.read('fifo', 60, 1);
SELECT * FROM reads(10);
SELECT msg_id FROM pgmq.pop('plain');
SELECT msg_id FROM pgmq.pop('fifo');
SELECT * FROM reads(10);

-- a delayed message in the middle, and in front
SELECT empty();
SELECT send('a a a b b');
SELECT set_vt('{2}', 60);
SELECT * FROM reads(10);
SELECT set_vt('{1}', 60);
SELECT * FROM reads(10);
SELECT set_vt('{2}', 0);
SELECT * FROM reads(10);
SELECT set_vt('{1}', 0);
SELECT * FROM reads(10);
SELECT empty();
SELECT pgmq.send('plain', '1', '{"x-pgmq-group": "a"}', 60), pgmq.send('fifo', '1', '{"x-pgmq-group": "a"}', 60);
SELECT send('a b a');
SELECT * FROM reads(10);
SELECT remove(1);
SELECT * FROM reads(10);

-- the oldest first message comes first, also where an older one of another group has gone while it was not to be had
SELECT empty();
SELECT send('a b a');
SELECT set_vt('{1}', 60), set_vt('{3}', 60);
SELECT remove(1), set_vt('{3}', 0);
SELECT * FROM reads(1);

-- what is a group
SELECT empty();
CREATE FUNCTION send_headers(h jsonb) RETURNS void LANGUAGE sql AS $$
  SELECT pgmq.send('plain', 'null', h), pgmq.send('fifo', 'null', h)
$$;
SELECT send_headers(h::jsonb) FROM (VALUES (1, NULL), (2, '{}'), (3, '{"x-pgmq-group": null}'), (4, '[1, "x-pgmq-group"]'), (5, '"x-pgmq-group"'),
  (6, '7'), (7, 'null'), (8, '{"x-pgmq-group": "_default_fifo_group"}'),
  (9, '{"x-pgmq-group": ""}'), (10, '{"x-pgmq-group": 5}'), (11, '{"x-pgmq-group": "5"}'), (12, '{"x-pgmq-group": {"a": 1}}'),
  (13, '{"x-pgmq-group": "{\"a\": 1}"}'), (14, '{"x-pgmq-group": true}'), (15, '{"x-pgmq-group": "A"}'), (16, '{"x-pgmq-group": "a"}'),
  (17, '{"x-pgmq-group": "ä \" \\ %s"}')) AS v (n, h) ORDER BY n;
SELECT * FROM reads(100);
-- long names, of more than an index entry holds; they differ at the end
SELECT empty();
SELECT send(string_agg(repeat('x', 5000) || g, ' ')) FROM unnest(ARRAY['1', '2', '1', '2']) AS g;
SELECT send(string_agg(repeat('y', 250 + g), ' ')) FROM generate_series(0, 12) AS g;
SELECT * FROM reads(100);

-- the header is changed by hand
SELECT empty();
SELECT send('a a b');
SELECT read('read_grouped', 60, 1);
UPDATE pgmq.q_plain SET headers = '{"x-pgmq-group": "z"}' WHERE msg_id = 1;
UPDATE pgmq.q_fifo SET headers = '{"x-pgmq-group": "z"}' WHERE msg_id = 1;
SELECT * FROM reads(10);
UPDATE pgmq.q_plain SET headers = '{"x-pgmq-group": "b"}' WHERE msg_id = 1;
UPDATE pgmq.q_fifo SET headers = '{"x-pgmq-group": "b"}' WHERE msg_id = 1;
SELECT * FROM reads(10);
SELECT set_vt('{1}', 0);
SELECT * FROM reads(10);
-- to what is the same in jsonb
SELECT empty();
SELECT send('5 5');
UPDATE pgmq.q_plain SET headers = '{"x-pgmq-group": 5}';
UPDATE pgmq.q_fifo SET headers = '{"x-pgmq-group": 5}';
SELECT read('read_grouped', 60, 1);
UPDATE pgmq.q_plain SET headers = '{"x-pgmq-group": 5.0}' WHERE msg_id = 2;
UPDATE pgmq.q_fifo SET headers = '{"x-pgmq-group": 5.0}' WHERE msg_id = 2;
SELECT * FROM reads(10);

-- in one transaction, and with parts of it taken back
SELECT empty();
SELECT send('a a b');
BEGIN;
SELECT read('read_grouped', 60, 1);
SELECT read('read_grouped', 60, 10);
SELECT remove(1);
SELECT * FROM reads(10);
SAVEPOINT s;
SELECT remove(2);
SELECT send('a');
SELECT * FROM reads(10);
ROLLBACK TO s;
SELECT * FROM reads(10);
ROLLBACK;
SELECT * FROM reads(10);

-- no note is left for what is gone
SELECT remove(1, 2, 3);
SELECT count(*) FROM pgmq.g_fifo WHERE head > 0;
SELECT send('a a b b c');
SELECT read('read_grouped_head', 60, 2);
SELECT pgmq.purge_queue('plain'), pgmq.purge_queue('fifo');
SELECT count(*) FROM pgmq.g_fifo WHERE head > 0;
SELECT * FROM reads(10);

-- the same after every step of a long random story
SELECT empty();
CREATE FUNCTION story(seed float8, steps integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE dice float8; got text; ids bigint[]; log text := '';
BEGIN
  PERFORM setseed(seed);
  FOR i IN 1 .. steps LOOP
    dice := random();
    IF dice < 0.4 THEN
      PERFORM groups.send((SELECT string_agg(chr(97 + (random() * 6)::int), ' ') FROM generate_series(1, (1 + random() * 3)::int)));
      CONTINUE;
    ELSIF dice < 0.7 THEN
      got := groups.read((ARRAY['read_grouped', 'read_grouped_rr', 'read_grouped_head'])[1 + (random() * 2)::int],
                         (ARRAY[0, 3600])[1 + (random())::int], (1 + random() * 6)::int);
      IF got LIKE 'plain%' THEN RETURN format('step %s: %s', i, got); END IF;
      CONTINUE;
    END IF;
    SELECT array_agg(msg_id) INTO ids FROM (SELECT msg_id FROM pgmq.q_fifo ORDER BY random() LIMIT 1 + (random() * 3)::int) AS m;
    CONTINUE WHEN ids IS NULL;
    IF dice < 0.8 THEN
      PERFORM groups.remove(VARIADIC (SELECT array_agg(msg_id) FROM (SELECT msg_id FROM pgmq.q_fifo ORDER BY msg_id LIMIT 2) AS m));
    ELSIF dice < 0.85 THEN
      PERFORM groups.remove(VARIADIC ids);
    ELSE
      PERFORM groups.set_vt(ids, (ARRAY[0, 0, 3600])[1 + (random() * 2)::int]);
    END IF;
  END LOOP;
  RETURN 'agreed';
END $$;
SELECT story(0.1, 1000);
SELECT empty(), story(0.2, 1000);

-- the waiting forms
SELECT empty();
SELECT send('a b a');
SELECT msg_id FROM pgmq.read_grouped_with_poll('fifo', 0, 10);
SELECT msg_id FROM pgmq.read_grouped_rr_with_poll('fifo', 0, 10, 1, 10);
SELECT msg_id FROM pgmq.read_grouped_head_with_poll('fifo', 60, 10, 0);
SELECT msg_id FROM pgmq.read_grouped_with_poll('fifo', 60, 10, 0);
SELECT msg_id FROM pgmq.set_vt('fifo', 1, clock_timestamp() + interval '0.3 s');
SELECT msg_id FROM pgmq.read_grouped_with_poll('fifo', 0, 1, 10);
SELECT msg_id FROM pgmq.read_grouped_with_poll('plain', 60, 1, 0);

-- errors
SELECT * FROM pgmq.read_grouped('nowhere', 0, 1);
SELECT * FROM pgmq.read_grouped('nowhere', 0, -1);
SELECT * FROM pgmq.read_grouped_head(NULL, 0, 1);
SELECT pgmq.create_fifo_index('nowhere');
SELECT pgmq.create_fifo_index(NULL);
SELECT pgmq._group_sent();

DROP SCHEMA groups CASCADE;
SELECT pgmq.drop_queue('plain'), pgmq.drop_queue('fifo');
SELECT to_regclass('pgmq.g_fifo') IS NULL AS gone;
