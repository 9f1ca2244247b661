-- The owner of a queue has dropped an index of its notes: reads by groups do without them.
\set VERBOSITY terse
-- Fills a queue, drops the index of its notes on these keys, and reads by all policies; then makes it again.
CREATE PROCEDURE read_without(keys text) LANGUAGE plpgsql AS $$
DECLARE
  target regclass;
  definition text;
  call text;
  messages text;
BEGIN
  PERFORM pgmq.create('broken'), pgmq.create_fifo_index('broken');
  PERFORM pgmq.send_batch('broken', array_fill('1'::jsonb, '{6}'),
    ARRAY(SELECT jsonb_build_object('x-pgmq-group', g) FROM unnest('{a,b,a,c,b,a}'::text[]) AS g));
  SELECT i.indexrelid, pg_get_indexdef(i.indexrelid) INTO STRICT target, definition FROM pg_index i
    WHERE i.indrelid = 'pgmq.g_broken'::regclass AND pg_get_indexdef(i.indexrelid) LIKE '%USING btree (' || keys || ')%';
  IF keys = 'msg_id, enqueued_at' THEN
    ALTER TABLE pgmq.g_broken DROP CONSTRAINT g_broken_pkey;
  ELSE
    EXECUTE 'DROP INDEX ' || target;
  END IF;
  COMMIT;
  FOREACH call IN ARRAY '{"_head(''broken'', 0, 2)", "_rr(''broken'', 0, 5)", "(''broken'', 0, 4)", "_head_with_poll(''broken'', 0, 9, 1, 10)",
    "_rr_with_poll(''broken'', 0, 3, 1, 10)", "_with_poll(''broken'', 0, 2, 1, 10)"}'::text[]
  LOOP
    EXECUTE 'SELECT string_agg(msg_id::text, '','') FROM pgmq.read_grouped' || call INTO messages;
    RAISE NOTICE 'read_grouped%: %', call, messages;
    COMMIT;
  END LOOP;
  PERFORM pgmq.send('broken', '1'::jsonb, '{"x-pgmq-group":"d"}'::jsonb), pgmq.delete('broken', 4);
  COMMIT;
  EXECUTE definition;
  COMMIT;
  -- what no note tells of the sweep finds, a step in each read
  FOR i IN 1..1000 LOOP
    SELECT string_agg(msg_id::text, ',') INTO messages FROM pgmq.read_grouped_rr_with_poll('broken', 0, 20, 1, 10);
    COMMIT;
    EXIT WHEN messages = '1,2,7,3,5,6';
  END LOOP;
  RAISE NOTICE 'with the index again: %', messages;
  -- create_fifo_index() misses it, and makes all of it anew
  EXECUTE 'DROP INDEX ' || (SELECT i.indexrelid::regclass FROM pg_index i WHERE i.indrelid = 'pgmq.g_broken'::regclass
    AND NOT i.indisprimary AND pg_get_indexdef(i.indexrelid) LIKE '%USING btree (' || keys || ')%');
  PERFORM pgmq.create_fifo_index('broken');
  RAISE NOTICE 'indexes of the notes: %', (SELECT count(*) FROM pg_index WHERE indrelid = 'pgmq.g_broken'::regclass);
  PERFORM pgmq.drop_queue('broken');
END
$$;
CALL read_without('msg_id, enqueued_at');
CALL read_without('vt, msg_id');
CALL read_without('grp, head');
CALL read_without('grp');
DROP PROCEDURE read_without;
