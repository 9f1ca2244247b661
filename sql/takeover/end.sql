
-- A role may own the schema pgmq, or have CREATE on it, and put a function there that the
-- parser prefers.  In a schema of the superuser no other role can.
CREATE SCHEMA pgmq_update;
CREATE FUNCTION pgmq_update.as_owner(rel regclass, statement text) RETURNS void LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq__as_owner';
REVOKE ALL ON FUNCTION pgmq_update.as_owner(regclass, text) FROM PUBLIC;

-- What stepped aside: its privileges go to its successor.  Then it is dropped, unless
-- a view or a function of a user depends on it.  That keeps it, as a call of its
-- successor and no longer as a member of the extension, so that a dump contains it.
DO $leftovers$
DECLARE
    extension constant oid := (SELECT oid FROM pg_extension WHERE extname = 'pgmq');
    messages constant text := 'SETOF pgmq.message_record';
    polling constant text := ', max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100';
    condition constant text := ', conditional jsonb DEFAULT ''{}''';
    reading constant text := 'queue_name text, vt integer, qty integer';
    making constant text := 'queue_name text, partition_interval text DEFAULT ''10000'', retention_interval text DEFAULT ''100000''';
    -- Name, types, parameters, result, types of the successor.  Not those in the catalog:
    -- parsing a default of a plain role again could run code of that role.
    leftovers constant text[] := ARRAY[
        ['create_partitioned', 'text,text,text', making, 'void', 'text,text,text,integer,boolean,boolean'],
        ['create_partitioned', 'text,text,text,integer', making || ', premake integer DEFAULT 4', 'void',
            'text,text,text,integer,boolean,boolean'],
        ['drop_queue', 'text,boolean', 'queue_name text, partitioned boolean DEFAULT false', 'boolean', 'text,boolean'],
        ['enable_notify_insert', 'text', 'queue_name text', 'void', 'text,integer'],
        ['pop', 'text', 'queue_name text', messages, 'text,integer'],
        ['read', 'text,integer,integer', reading, messages, 'text,integer,integer,jsonb'],
        ['read_with_poll', 'text,integer,integer,integer,integer', reading || polling, messages,
            'text,integer,integer,integer,integer,jsonb'],
        ['read_grouped', 'text,integer,integer,jsonb', reading || condition, messages, 'text,integer,integer'],
        ['read_grouped_rr', 'text,integer,integer,jsonb', reading || condition, messages, 'text,integer,integer'],
        ['read_grouped_with_poll', 'text,integer,integer,integer,integer,jsonb', reading || polling || condition, messages,
            'text,integer,integer,integer,integer'],
        ['read_grouped_rr_with_poll', 'text,integer,integer,integer,integer,jsonb', reading || polling || condition, messages,
            'text,integer,integer,integer,integer'],
        ['send', 'text,jsonb,integer', 'queue_name text, msg jsonb, delay integer DEFAULT 0', 'SETOF bigint', 'text,jsonb,integer'],
        ['send_batch', 'text,jsonb[],integer', 'queue_name text, msgs jsonb[], delay integer DEFAULT 0', 'SETOF bigint',
            'text,jsonb[],integer']];
    leftover text[];
    old record;
    granted record;
    name text;
    signature text;
    successor text;
    body text;
BEGIN
    FOREACH leftover SLICE 1 IN ARRAY leftovers LOOP
        name := '_before_2_' || leftover[1];
        signature := format('pgmq.%I(%s)', name, leftover[2]);
        successor := format('pgmq.%I(%s)', leftover[1], leftover[5]);
        SELECT p.oid, p.pronargs, p.proacl INTO old
          FROM pg_proc AS p
          JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
         WHERE p.oid = to_regprocedure(signature)
           AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension;
        CONTINUE WHEN NOT FOUND;
        IF old.proacl IS NOT NULL THEN
            IF NOT EXISTS (SELECT FROM aclexplode(old.proacl) WHERE grantee = 0) THEN
                EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', successor);
            END IF;
            FOR granted IN SELECT grantee, is_grantable FROM aclexplode(old.proacl) WHERE grantee <> 0 LOOP
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', successor, granted.grantee::regrole,
                               CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
            END LOOP;
        END IF;
        IF NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_proc'::regclass AND refobjid = old.oid) THEN
            EXECUTE format('DROP FUNCTION %s', signature);
            CONTINUE;
        END IF;
        body := (SELECT string_agg('$' || i, ', ' ORDER BY i)
                   FROM generate_series(1, array_length(string_to_array(leftover[5], ','), 1)) AS i WHERE i <= old.pronargs);
        body := format('SELECT %s pgmq.%I(%s)', CASE leftover[4] WHEN messages THEN '* FROM' ELSE '' END, leftover[1], body);
        IF leftover[1] LIKE 'read\_grouped%' THEN
            body := format(E'BEGIN\n IF $%s OPERATOR(pg_catalog.<>) ''{}'' THEN\n'
                '  RAISE EXCEPTION ''groups cannot be read with a condition'' USING ERRCODE = ''0A000'';\n END IF;\n'
                ' RETURN QUERY %s;\nEND', old.pronargs, body);
        END IF;
        EXECUTE format('CREATE OR REPLACE FUNCTION pgmq.%I(%s) RETURNS %s LANGUAGE %s AS %L', name, leftover[3], leftover[4],
                       CASE WHEN leftover[1] LIKE 'read\_grouped%' THEN 'plpgsql' ELSE 'sql' END, body);
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', signature,
                       'Left by the update to 2.0.0 because something depends on it: a call of ' || successor);
        EXECUTE format('ALTER EXTENSION pgmq DROP FUNCTION %s', signature);
    END LOOP;
END
$leftovers$;

-- The owners of before, where not everybody may execute a function
DO $executors$
DECLARE
    pair text;
    function oid;
BEGIN
    FOREACH pair IN ARRAY string_to_array(current_setting('pgmq.takeover_executors'), ' ') LOOP
        function := split_part(pair, '=', 1);
        IF EXISTS (SELECT FROM pg_proc WHERE oid = function AND proowner = CURRENT_USER::regrole) THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s WITH GRANT OPTION',
                           function::regprocedure, split_part(pair, '=', 2)::oid::regrole);
        END IF;
    END LOOP;
END
$executors$;

-- New tables belong to the owner of the extension, like the tables that were there before
DO $owners$
DECLARE
    owner constant regrole := (SELECT extowner FROM pg_extension WHERE extname = 'pgmq');
    name text;
BEGIN
    FOREACH name IN ARRAY string_to_array(current_setting('pgmq.takeover_new_tables'), ',') LOOP
        EXECUTE format('ALTER TABLE pgmq.%I OWNER TO %s', name, owner);
    END LOOP;
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA pgmq GRANT SELECT ON TABLES TO pg_monitor', owner);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA pgmq GRANT SELECT ON SEQUENCES TO pg_monitor', owner);
END
$owners$;

-- The tables of queues.  Before 1.6 they are members of the extension: then they could
-- not be dropped, and a dump would not contain them.  Before 1.10 they lack columns.
-- A column without a default is an entry in the catalog.
DO $queues$
DECLARE
    extension constant oid := (SELECT oid FROM pg_extension WHERE extname = 'pgmq');
    rel record;
    name text;
BEGIN
    FOR rel IN
        SELECT c.oid::regclass AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
          FROM pg_depend AS d JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
         WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
           AND c.relnamespace = 'pgmq'::regnamespace AND c.relkind IN ('r', 'p', 'S')
           AND c.relname ~ '^[qa]_'
         ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER EXTENSION pgmq DROP %s %s', rel.kind, rel.name);
    END LOOP;

    FOR rel IN
        SELECT c.oid::regclass AS name, c.relowner, a.names
          FROM pg_class AS c,
               LATERAL (SELECT array_agg(a.attname::text) AS names FROM pg_attribute AS a
                         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS a
         WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND c.relname ~ '^[qa]_'
           AND a.names @> '{msg_id,read_ct,enqueued_at,vt,message}'
           AND NOT a.names @> '{headers,last_read_at}'
         ORDER BY c.relname
    LOOP
        -- A role must not change tables of others by way of this script
        IF NOT pg_has_role('@extowner@'::regrole, rel.relowner, 'USAGE') THEN
            RAISE EXCEPTION 'table % belongs to role %', rel.name, rel.relowner::regrole
                USING ERRCODE = 'insufficient_privilege', DETAIL = 'It lacks columns, which the update adds.',
                      HINT = 'Update the extension as a member of that role, or as a superuser.';
        END IF;
        IF NOT 'headers' = ANY (rel.names) THEN
            PERFORM pgmq_update.as_owner(rel.name, format('ALTER TABLE %s ADD COLUMN headers jsonb', rel.name));
        END IF;
        IF NOT 'last_read_at' = ANY (rel.names) THEN
            PERFORM pgmq_update.as_owner(rel.name, format('ALTER TABLE %s ADD COLUMN last_read_at timestamp with time zone', rel.name));
        END IF;
    END LOOP;
END
$queues$;

-- What opens indexes or rewrites a table can run code of its owner
SELECT pgmq_update.as_owner('pgmq.meta', 'CREATE INDEX IF NOT EXISTS meta_identity_idx ON pgmq.meta (pg_catalog.lower(queue_name))');
SELECT pgmq_update.as_owner('pgmq.meta', 'ALTER TABLE pgmq.meta REPLICA IDENTITY USING INDEX meta_queue_name_key');
SELECT pgmq_update.as_owner('pgmq.topic_bindings',
    'CREATE INDEX IF NOT EXISTS idx_topic_bindings_covering ON pgmq.topic_bindings (pattern) INCLUDE (queue_name, compiled_regex)');
SELECT pgmq_update.as_owner('pgmq.topic_bindings',
    'ALTER TABLE pgmq.topic_bindings REPLICA IDENTITY USING INDEX topic_bindings_unique_pattern_queue');
SELECT pgmq_update.as_owner('pgmq.notify_insert_throttle',
    'CREATE INDEX IF NOT EXISTS idx_notify_throttle_active ON pgmq.notify_insert_throttle (queue_name, last_notified_at)'
    ' WHERE throttle_interval_ms OPERATOR(pg_catalog.>) 0');
SELECT pgmq_update.as_owner('pgmq.notify_insert_throttle',
    'ALTER TABLE pgmq.notify_insert_throttle REPLICA IDENTITY USING INDEX notify_insert_throttle_queue_name_key');
-- A crash empties an unlogged table, and with it goes every setting
SELECT pgmq_update.as_owner('pgmq.notify_insert_throttle', 'ALTER TABLE pgmq.notify_insert_throttle SET LOGGED')
 WHERE EXISTS (SELECT FROM pg_class WHERE oid = 'pgmq.notify_insert_throttle'::regclass AND relpersistence = 'u');
DROP FUNCTION pgmq_update.as_owner(regclass, text);
DROP SCHEMA pgmq_update;
