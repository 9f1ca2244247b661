\echo Use "CREATE EXTENSION pgmq VERSION 'unpackaged'" to load this file. \quit

-- Adopts what the SQL of the PL/pgSQL extension has made without CREATE EXTENSION.
-- It changes none of it; ALTER EXTENSION pgmq UPDATE does that.  This script runs
-- as a superuser, also for a role that is none.  So everything is adopted first,
-- which locks it, and then each owner is looked at.  @extowner@ is the role that
-- runs CREATE EXTENSION.

SET LOCAL search_path = pg_catalog, pg_temp;
-- Names are compared as text
SET LOCAL quote_all_identifiers = off;

DO $adopt$
DECLARE
    -- Functions that a released version had; other functions in the schema are
    -- left alone
    functions constant text[] := ARRAY[
        '_belongs_to_pgmq(text)', '_create_fifo_index_if_not_exists(text)',
        '_ensure_pg_partman_installed()', '_extension_exists(text)',
        '_get_partition_col(text)', '_get_pg_partman_major_version()', '_get_pg_partman_schema()',
        '_send_batch(text,jsonb[],jsonb[],timestamptz)', '_validate_batch_params(jsonb[],jsonb[])',
        'acquire_queue_lock(text)', 'archive(text,bigint)', 'archive(text,bigint[])',
        'bind_topic(text,text)', 'convert_archive_partitioned(text,text,text,integer)',
        'create(text)', 'create_fifo_index(text)', 'create_fifo_indexes_all()',
        'create_non_partitioned(text)', 'create_partitioned(text,text,text)',
        'create_partitioned(text,text,text,integer)', 'create_unlogged(text)',
        'delete(text,bigint)', 'delete(text,bigint[])', 'detach_archive(text)',
        'disable_notify_insert(text)', 'drop_queue(text)', 'drop_queue(text,boolean)',
        'enable_notify_insert(text)', 'enable_notify_insert(text,integer)',
        'format_table_name(text,text)', 'list_notify_insert_throttles()', 'list_queues()',
        'list_topic_bindings()', 'list_topic_bindings(text)', 'metrics(text)', 'metrics_all()',
        'notify_queue_listeners()', 'pop(text)', 'pop(text,integer)', 'purge_queue(text)',
        'read(text,integer,integer)', 'read(text,integer,integer,jsonb)',
        'read_grouped(text,integer,integer)', 'read_grouped(text,integer,integer,jsonb)',
        'read_grouped_head(text,integer,integer)',
        'read_grouped_head_with_poll(text,integer,integer,integer,integer)',
        'read_grouped_rr(text,integer,integer)', 'read_grouped_rr(text,integer,integer,jsonb)',
        'read_grouped_rr_with_poll(text,integer,integer,integer,integer)',
        'read_grouped_rr_with_poll(text,integer,integer,integer,integer,jsonb)',
        'read_grouped_with_poll(text,integer,integer,integer,integer)',
        'read_grouped_with_poll(text,integer,integer,integer,integer,jsonb)',
        'read_with_poll(text,integer,integer,integer,integer)',
        'read_with_poll(text,integer,integer,integer,integer,jsonb)',
        'send(text,jsonb)', 'send(text,jsonb,integer)', 'send(text,jsonb,timestamptz)',
        'send(text,jsonb,jsonb)', 'send(text,jsonb,jsonb,integer)', 'send(text,jsonb,jsonb,timestamptz)',
        'send_batch(text,jsonb[])', 'send_batch(text,jsonb[],integer)', 'send_batch(text,jsonb[],timestamptz)',
        'send_batch(text,jsonb[],jsonb[])', 'send_batch(text,jsonb[],jsonb[],integer)',
        'send_batch(text,jsonb[],jsonb[],timestamptz)',
        'send_batch_topic(text,jsonb[])', 'send_batch_topic(text,jsonb[],integer)',
        'send_batch_topic(text,jsonb[],timestamptz)', 'send_batch_topic(text,jsonb[],jsonb[])',
        'send_batch_topic(text,jsonb[],jsonb[],integer)',
        'send_batch_topic(text,jsonb[],jsonb[],timestamptz)',
        'send_topic(text,jsonb)', 'send_topic(text,jsonb,integer)', 'send_topic(text,jsonb,jsonb,integer)',
        'set_vt(text,bigint,integer)', 'set_vt(text,bigint,timestamptz)',
        'set_vt(text,bigint[],integer)', 'set_vt(text,bigint[],timestamptz)',
        'test_routing(text)', 'unbind_topic(text,text)', 'update_notify_insert(text,integer)',
        'validate_queue_name(text)', 'validate_routing_key(text)', 'validate_topic_pattern(text)'];
    name text;
    found record;
BEGIN
    -- An older snapshot would show owners of before
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'pgmq cannot be adopted in a transaction of the isolation level %', current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction', HINT = 'Use READ COMMITTED.';
    END IF;
    IF to_regclass('pgmq.meta') IS NULL OR to_regtype('pgmq.message_record') IS NULL THEN
        RAISE EXCEPTION 'there is no installation of pgmq in this database that could be adopted'
            USING ERRCODE = 'undefined_object', HINT = 'Use CREATE EXTENSION pgmq.';
    END IF;

    FOREACH name IN ARRAY ARRAY['message_record', 'queue_record', 'metrics_result'] LOOP
        IF to_regtype('pgmq.' || name) IS NOT NULL THEN
            EXECUTE format('ALTER EXTENSION pgmq ADD TYPE pgmq.%I', name);
        END IF;
    END LOOP;
    FOREACH name IN ARRAY ARRAY['meta', 'notify_insert_throttle', 'topic_bindings'] LOOP
        IF to_regclass('pgmq.' || name) IS NOT NULL THEN
            EXECUTE format('ALTER EXTENSION pgmq ADD TABLE pgmq.%I', name);
            -- From here on a dump has its rows only because of this
            PERFORM pg_extension_config_dump(('pgmq.' || name)::regclass, '');
        END IF;
    END LOOP;
    FOREACH name IN ARRAY functions LOOP
        IF to_regprocedure('pgmq.' || name) IS NOT NULL THEN
            EXECUTE format('ALTER EXTENSION pgmq ADD FUNCTION pgmq.%s', name);
        END IF;
    END LOOP;

    FOR found IN
        SELECT pg_describe_object(o.classid, o.objid, 0) AS what, o.owner
          FROM (SELECT d.classid, d.objid, coalesce(p.proowner, t.typowner, c.relowner) AS owner
                  FROM pg_depend AS d
                  JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                  LEFT JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                  LEFT JOIN pg_type AS t ON d.classid = 'pg_type'::regclass AND d.objid = t.oid
                  LEFT JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
                 WHERE e.extname = 'pgmq' AND d.deptype = 'e'
                UNION ALL
                SELECT 'pg_namespace'::regclass, n.oid, n.nspowner
                  FROM pg_namespace AS n WHERE n.nspname = 'pgmq') AS o
         WHERE o.owner IS NULL OR NOT pg_has_role('@extowner@'::regrole, o.owner, 'USAGE')
         ORDER BY 1
         LIMIT 1
    LOOP
        RAISE EXCEPTION '% cannot be adopted by role %', found.what, '@extowner@'::regrole
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('It belongs to role %s.', coalesce(found.owner::regrole::text, '?')),
                  HINT = 'Adopt it as a member of that role, or as a superuser.';
    END LOOP;
END
$adopt$;
