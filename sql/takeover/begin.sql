\echo Use "ALTER EXTENSION pgmq UPDATE" to load this file. \quit

-- Turns the objects of any version of the PL/pgSQL extension from 1.4.4 on into
-- ours.  This script runs as a superuser, also for a role that is none, and that
-- role may own the schema and the tables.  So it looks at the catalogs only: no row
-- of such a table is read, written, validated or indexed here, and no expression of its
-- owner is parsed or folded.  What has to be done to tables as_owner() does, with the
-- rights of their owner.  The Makefile
-- puts the declarations of pgmq--2.0.0.sql between begin.sql and end.sql.

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL check_function_bodies = off;
-- Names of types are compared as text
SET LOCAL quote_all_identifiers = off;

-- An older snapshot would show owners and columns of before
DO $snapshot$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'pgmq cannot be updated in a transaction of the isolation level %', current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction', HINT = 'Use READ COMMITTED.';
    END IF;
END
$snapshot$;

-- A role may own the schema pgmq, or have CREATE on it, and put a function there that the
-- parser prefers.  In a schema of the superuser no other role can.
DO $schema$
BEGIN
    CREATE SCHEMA pgmq_update;
EXCEPTION WHEN duplicate_schema THEN
    RAISE EXCEPTION 'schema "pgmq_update" already exists' USING ERRCODE = 'duplicate_schema',
        HINT = 'The update of pgmq uses this name for a moment. Rename or drop the schema.';
END
$schema$;

-- The tables of queues that lack columns: before 1.5 headers, before 1.10 last_read_at.
-- The queue comes before its archive, as in the functions.
CREATE FUNCTION pgmq_update.incomplete_tables()
RETURNS TABLE (rel oid, name text, owner oid, lacks_headers boolean, lacks_last_read_at boolean) LANGUAGE sql
AS $incomplete$
    SELECT c.oid, c.oid::regclass::text, c.relowner, NOT a.names @> '{headers}', NOT a.names @> '{last_read_at}'
      FROM pg_class AS c,
           LATERAL (SELECT array_agg(a.attname::text) AS names FROM pg_attribute AS a
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS a
     WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND c.relname ~ '^[qa]_'
       AND a.names @> '{msg_id,read_ct,enqueued_at,vt,message}'
       AND NOT a.names @> '{headers,last_read_at}'
     ORDER BY substr(c.relname, 3), c.relname DESC
$incomplete$;
REVOKE ALL ON FUNCTION pgmq_update.incomplete_tables() FROM PUBLIC;

-- All locks on tables, each in the mode that is needed in the end.  Transactions of users lock
-- these tables in any order.  So a session that waits for this one could be in a deadlock with
-- it, unless this one gives up first: then it releases what it has, and begins again.
DO $locks$
DECLARE
    -- Milliseconds: a waiting session looks for a deadlock after twice as many
    at_a_time float8 := (SELECT setting::float8 / 2 FROM pg_settings WHERE name = 'deadlock_timeout');
    lock_timeout constant float8 := (SELECT setting::float8 FROM pg_settings WHERE name = 'lock_timeout');
    began constant timestamptz := clock_timestamp();
    attempt_ends timestamptz;
    noticed timestamptz := began;
    rels oid[];
    names text[];
    other record;
    wanted text;
BEGIN
    IF lock_timeout > 0 THEN
        at_a_time := least(at_a_time, lock_timeout);
    END IF;
    LOOP
        BEGIN
            SELECT array_agg(t.rel), array_agg(t.name) INTO rels, names FROM pgmq_update.incomplete_tables() AS t;
            -- A role must not change tables of others by way of this script
            SELECT t.name, t.owner INTO other FROM pgmq_update.incomplete_tables() AS t
             WHERE NOT pg_has_role('@extowner@'::regrole, t.owner, 'USAGE') LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'table % belongs to role %', other.name, other.owner::regrole
                    USING ERRCODE = 'insufficient_privilege', DETAIL = 'It lacks columns, which the update adds.',
                          HINT = 'Update the extension as a member of that role, or as a superuser.';
            END IF;
            attempt_ends := clock_timestamp() + make_interval(secs => at_a_time / 1000);
            FOREACH wanted IN ARRAY coalesce(names, '{}') || ARRAY(
                SELECT c.oid::regclass::text FROM pg_class AS c
                 WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind = 'r'
                   AND c.relname IN ('notify_insert_throttle', 'topic_bindings', 'meta')
                 ORDER BY c.relname DESC)
            LOOP
                PERFORM set_config('lock_timeout', greatest(1, ceil(extract(epoch FROM attempt_ends - clock_timestamp()) * 1000))::text, true);
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', wanted);
            END LOOP;
            -- With the lock on meta no session of the old extension can complete a queue.  Later,
            -- the trigger on meta adds what a queue lacks.
            EXIT WHEN (rels, names) IS NOT DISTINCT FROM
                (SELECT (array_agg(t.rel), array_agg(t.name)) FROM pgmq_update.incomplete_tables() AS t);
            RAISE lock_not_available;
        EXCEPTION WHEN lock_not_available OR deadlock_detected OR undefined_table THEN
            IF lock_timeout > 0 AND clock_timestamp() - began >= make_interval(secs => lock_timeout / 1000) THEN
                RAISE EXCEPTION 'could not lock table %: it is in constant use', wanted
                    USING ERRCODE = 'lock_not_available',
                          HINT = 'Update when no long transactions use the table, or set a longer lock_timeout.';
            END IF;
            IF clock_timestamp() - noticed > interval '10 s' THEN
                RAISE NOTICE 'the update waits for table %, which other transactions have locked', wanted;
                noticed := clock_timestamp();
            END IF;
        END;
        PERFORM pg_sleep(at_a_time / 1000 * random());
    END LOOP;
    PERFORM set_config('lock_timeout', lock_timeout::text, true);
END
$locks$;

-- Is everything what it is taken for?
DO $check$
DECLARE
    extension constant oid := (SELECT oid FROM pg_extension WHERE extname = 'pgmq');
    own_tables constant jsonb := '{
        "meta": {"queue_name": "character varying", "is_partitioned": "boolean", "is_unlogged": "boolean",
                 "created_at": "timestamp with time zone"},
        "notify_insert_throttle": {"queue_name": "character varying", "throttle_interval_ms": "integer",
                                   "last_notified_at": "timestamp with time zone"},
        "topic_bindings": {"pattern": "text", "queue_name": "text", "bound_at": "timestamp with time zone",
                           "compiled_regex": "text"},
        "partition_config": {}}';
    own_types constant jsonb := '{
        "message_record": ["msg_id bigint, read_ct integer, enqueued_at timestamp with time zone, vt timestamp with time zone, message jsonb",
            "msg_id bigint, read_ct integer, enqueued_at timestamp with time zone, vt timestamp with time zone, message jsonb, headers jsonb",
            "msg_id bigint, read_ct integer, enqueued_at timestamp with time zone, vt timestamp with time zone, message jsonb, headers jsonb, last_read_at timestamp with time zone",
            "msg_id bigint, read_ct integer, enqueued_at timestamp with time zone, last_read_at timestamp with time zone, vt timestamp with time zone, message jsonb, headers jsonb"],
        "queue_record": ["queue_name character varying, is_partitioned boolean, is_unlogged boolean, created_at timestamp with time zone"],
        "metrics_result": ["queue_name text, queue_length bigint, newest_msg_age_sec integer, oldest_msg_age_sec integer, total_messages bigint, scrape_time timestamp with time zone",
            "queue_name text, queue_length bigint, newest_msg_age_sec integer, oldest_msg_age_sec integer, total_messages bigint, scrape_time timestamp with time zone, queue_visible_length bigint",
            "queue_name text, queue_length bigint, newest_msg_age_sec integer, oldest_msg_age_sec integer, total_messages bigint, scrape_time timestamp with time zone, queue_visible_length bigint, default_partition_length bigint"]}';
    new_tables text[] := '{}';
    name text;
    rel pg_class;
    attributes text;
    user_of_type text;
BEGIN
    FOR name IN SELECT jsonb_object_keys(own_tables) LOOP
        -- What is locked stays what it is
        SELECT * INTO rel FROM pg_class
         WHERE relname = name AND relnamespace = 'pgmq'::regnamespace;
        IF NOT FOUND AND name <> 'meta' THEN
            new_tables := new_tables || name;
            CONTINUE;
        END IF;
        IF rel.relkind IS DISTINCT FROM 'r' OR rel.relhassubclass OR rel.relispartition
            OR rel.relam IS DISTINCT FROM (SELECT oid FROM pg_am WHERE amname = 'heap')
            OR NOT EXISTS (SELECT FROM pg_depend
                            WHERE classid = 'pg_class'::regclass AND objid = rel.oid AND deptype = 'e'
                              AND refclassid = 'pg_extension'::regclass AND refobjid = extension)
            OR EXISTS (SELECT FROM jsonb_each_text(own_tables -> name) AS c (attname, type)
                        WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                                           WHERE a.attrelid = rel.oid AND a.attname = c.attname AND a.attnum > 0
                                             AND NOT a.attisdropped AND format_type(a.atttypid, NULL) = c.type))
            OR name = 'partition_config'
        THEN
            RAISE EXCEPTION '"pgmq.%" is not a table that the PL/pgSQL extension pgmq makes', name
                USING ERRCODE = 'wrong_object_type',
                      HINT = 'Give it another name, or put the extension''s table back in its place.';
        END IF;
    END LOOP;
    PERFORM set_config('pgmq.takeover_new_tables', array_to_string(new_tables, ','), true);

    FOR name IN SELECT jsonb_object_keys(own_types) LOOP
        SELECT string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
          INTO attributes
          FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid
          JOIN pg_attribute AS a ON a.attrelid = c.oid
          JOIN pg_depend AS d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
         WHERE t.typname = name AND t.typnamespace = 'pgmq'::regnamespace AND c.relkind = 'c'
           AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
           AND a.attnum > 0 AND NOT a.attisdropped;
        IF attributes IS NULL OR NOT (own_types -> name) ? attributes THEN
            RAISE EXCEPTION 'type "pgmq.%" is not one that the PL/pgSQL extension pgmq makes', name
                USING ERRCODE = 'datatype_mismatch',
                      DETAIL = format('Its attributes: %s.', coalesce(attributes, 'none')),
                      HINT = 'Give the type its attributes back.';
        END IF;
        -- A table OF the type cannot follow when the type gets an attribute
        IF (name = 'message_record' AND attributes !~ 'last_read_at')
            OR (name = 'metrics_result' AND attributes !~ 'default_partition_length') THEN
            SELECT c.oid::regclass INTO user_of_type FROM pg_class AS c
             WHERE c.reloftype = ('pgmq.' || name)::regtype;
            IF FOUND THEN
                RAISE EXCEPTION 'table % is of type "pgmq.%", which gets an attribute', user_of_type, name
                    USING ERRCODE = 'dependent_objects_still_exist',
                          HINT = format('Separate them: ALTER TABLE %s NOT OF. No data is changed by that.', user_of_type);
            END IF;
        END IF;
    END LOOP;
END
$check$;

-- What the old types lack comes last: rows are filled by the names of attributes
DO $types$
DECLARE
    added constant text[] := ARRAY[
        'message_record', 'headers', 'jsonb',
        'message_record', 'last_read_at', 'timestamp with time zone',
        'metrics_result', 'queue_visible_length', 'bigint',
        'metrics_result', 'default_partition_length', 'bigint'];
    i integer;
BEGIN
    FOR i IN 1 .. array_length(added, 1) BY 3 LOOP
        IF NOT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.typrelid = a.attrelid
                        WHERE t.oid = ('pgmq.' || added[i])::regtype AND a.attname = added[i + 1]
                          AND NOT a.attisdropped) THEN
            EXECUTE format('ALTER TYPE pgmq.%I ADD ATTRIBUTE %I %s', added[i], added[i + 1], added[i + 2]);
        END IF;
    END LOOP;
END
$types$;
ALTER TYPE pgmq.message_record OWNER TO CURRENT_USER;
ALTER TYPE pgmq.queue_record OWNER TO CURRENT_USER;
ALTER TYPE pgmq.metrics_result OWNER TO CURRENT_USER;

-- Functions get another owner below.  Where not everybody may execute one, its owner
-- may go on.
SELECT set_config('pgmq.takeover_executors',
                  coalesce(string_agg(format('%s=%s', p.oid, p.proowner), ' '), ''), true)
  FROM pg_proc AS p
  JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
 WHERE e.extname = 'pgmq' AND p.proowner <> CURRENT_USER::regrole
   AND EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = p.proowner)
   AND NOT EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0);

-- Functions that would make calls ambiguous, or have defaults that ours has not, step
-- aside.  end.sql goes on with them.
DO $aside$
DECLARE
    leftover text;
    aside text;
    asides jsonb := '{}';
    number integer;
BEGIN
    FOREACH leftover IN ARRAY ARRAY[
        'create_partitioned(text,text,text)', 'create_partitioned(text,text,text,integer)',
        'drop_queue(text,boolean)', 'enable_notify_insert(text)', 'pop(text)',
        'read(text,integer,integer)', 'read_with_poll(text,integer,integer,integer,integer)',
        'read_grouped(text,integer,integer,jsonb)', 'read_grouped_rr(text,integer,integer,jsonb)',
        'read_grouped_with_poll(text,integer,integer,integer,integer,jsonb)',
        'read_grouped_rr_with_poll(text,integer,integer,integer,integer,jsonb)',
        'send(text,jsonb,integer)', 'send_batch(text,jsonb[],integer)']
    LOOP
        -- These three stay, unless they have the defaults of 1.4
        IF EXISTS (SELECT FROM pg_proc AS p JOIN pg_depend AS d ON d.objid = p.oid
                    WHERE p.oid = to_regprocedure('pgmq.' || leftover)
                      AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
                      AND d.refclassid = 'pg_extension'::regclass
                      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgmq')
                      AND (p.pronargdefaults > 0 OR p.proname NOT IN ('drop_queue', 'send', 'send_batch')))
        THEN
            -- An earlier update may have left one of this name, if the old extension was installed again
            aside := '_before_2_' || split_part(leftover, '(', 1);
            number := 1;
            WHILE to_regprocedure(format('pgmq.%I%s', aside, substr(leftover, strpos(leftover, '(')))) IS NOT NULL LOOP
                number := number + 1;
                aside := format('_before_2_%s_%s', split_part(leftover, '(', 1), number);
            END LOOP;
            asides := asides || jsonb_build_object(leftover, aside);
            EXECUTE format('ALTER FUNCTION pgmq.%s RENAME TO %I', leftover, aside);
        END IF;
    END LOOP;
    PERFORM set_config('pgmq.takeover_asides', asides::text, true);
END
$aside$;

