
CREATE FUNCTION pgmq_update.as_owner(rel regclass, statement text) RETURNS void LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq__as_owner';
REVOKE ALL ON FUNCTION pgmq_update.as_owner(regclass, text) FROM PUBLIC;

-- What stepped aside: its privileges go to its successor.  Then it is dropped, unless
-- a view or a function of a user depends on it.  That keeps it, as a call of its
-- successor and no longer as a member of the extension, so that a dump contains it.
DO $leftovers$
DECLARE
    extension constant oid := (SELECT oid FROM pg_extension WHERE extname = 'pgmq');
    asides constant jsonb := current_setting('pgmq.takeover_asides');
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
        name := asides ->> format('%s(%s)', leftover[1], leftover[2]);
        CONTINUE WHEN name IS NULL;
        signature := format('pgmq.%I(%s)', name, leftover[2]);
        successor := format('pgmq.%I(%s)', leftover[1], leftover[5]);
        SELECT p.oid, p.pronargs, p.proacl, p.proowner INTO old
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
                               CASE WHEN granted.is_grantable OR granted.grantee = old.proowner THEN ' WITH GRANT OPTION' ELSE '' END);
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

-- New tables and the view belong to the owner of meta.  pg_monitor may read them if it may read meta:
-- a privilege that was revoked stays revoked.
DO $owners$
DECLARE
    meta constant pg_class := (SELECT c FROM pg_class AS c WHERE c.oid = 'pgmq.meta'::regclass);
    owner constant regrole := (SELECT extowner FROM pg_extension WHERE extname = 'pgmq');
    name text;
    kind record;
BEGIN
    FOREACH name IN ARRAY string_to_array(current_setting('pgmq.takeover_new_tables'), ',') || ARRAY['queues_to_upgrade'] LOOP
        EXECUTE format('ALTER TABLE pgmq.%I OWNER TO %s', name, meta.relowner::regrole);
        IF EXISTS (SELECT FROM aclexplode(meta.relacl) AS a WHERE a.grantee = 'pg_monitor'::regrole AND a.privilege_type = 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON TABLE pgmq.%I TO pg_monitor', name);
        END IF;
    END LOOP;
    -- Any role can set default privileges for what it makes itself
    FOR kind IN SELECT * FROM (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES')) AS k (type, name) LOOP
        IF EXISTS (SELECT FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
                    WHERE d.defaclrole = owner AND d.defaclnamespace = 'pgmq'::regnamespace AND d.defaclobjtype = kind.type::"char"
                      AND a.grantee = 'pg_monitor'::regrole AND a.privilege_type = 'SELECT') THEN
            EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA pgmq GRANT SELECT ON %s TO pg_monitor', owner, kind.name);
        END IF;
    END LOOP;
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

    FOR rel IN SELECT * FROM pgmq_update.incomplete_tables() LOOP
        IF rel.lacks_headers THEN
            PERFORM pgmq_update.as_owner(rel.rel, format('ALTER TABLE %s ADD COLUMN headers jsonb', rel.name));
        END IF;
        IF rel.lacks_last_read_at THEN
            PERFORM pgmq_update.as_owner(rel.rel, format('ALTER TABLE %s ADD COLUMN last_read_at timestamp with time zone', rel.name));
        END IF;
    END LOOP;
END
$queues$;

-- What opens indexes or rewrites a table can run code of its owner.  Its owner may have
-- no CREATE on the schema; then an index stays missing that only makes some statements faster.
DO $indexes$
DECLARE
    -- Table, index, the rest of its definition, what identifies rows for replication
    indexes constant text[] := ARRAY[
        ['meta', 'meta_identity_idx', '(pg_catalog.lower(queue_name))', 'meta_queue_name_key'],
        ['topic_bindings', 'idx_topic_bindings_covering', '(pattern) INCLUDE (queue_name, compiled_regex)',
            'topic_bindings_unique_pattern_queue'],
        ['notify_insert_throttle', 'idx_notify_throttle_active',
            '(queue_name, last_notified_at) WHERE throttle_interval_ms OPERATOR(pg_catalog.>) 0',
            'notify_insert_throttle_queue_name_key']];
    index text[];
    rel regclass;
    owner oid;
BEGIN
    FOREACH index SLICE 1 IN ARRAY indexes LOOP
        SELECT c.oid, c.relowner INTO rel, owner FROM pg_class AS c
         WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relname = index[1];
        IF EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relname = index[2]) THEN
            NULL;
        ELSIF has_schema_privilege(owner, 'pgmq'::regnamespace, 'CREATE') THEN
            PERFORM pgmq_update.as_owner(rel, format('CREATE INDEX %I ON pgmq.%I %s', index[2], index[1], index[3]));
        ELSE
            RAISE NOTICE 'the index pgmq.% was not made: role % has no CREATE on the schema pgmq', index[2], owner::regrole;
        END IF;
        PERFORM pgmq_update.as_owner(rel, format('ALTER TABLE pgmq.%I REPLICA IDENTITY USING INDEX %I', index[1], index[4]));
    END LOOP;
END
$indexes$;
-- A crash empties an unlogged table, and with it goes every setting
SELECT pgmq_update.as_owner('pgmq.notify_insert_throttle', 'ALTER TABLE pgmq.notify_insert_throttle SET LOGGED')
 WHERE EXISTS (SELECT FROM pg_class WHERE oid = 'pgmq.notify_insert_throttle'::regclass AND relpersistence = 'u');
DROP FUNCTION pgmq_update.incomplete_tables();
DROP FUNCTION pgmq_update.as_owner(regclass, text);
DROP SCHEMA pgmq_update;
