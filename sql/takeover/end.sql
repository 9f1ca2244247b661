
-- What stepped aside: its privileges go to its successor.  Then it is dropped, unless
-- a view or a function of a user depends on it.  That keeps it, as a call of its
-- successor and no longer as a member of the extension, so that a dump contains it.
DO $leftovers$
DECLARE
    old record;
    granted record;
    successor text;
    parameters text;
BEGIN
    FOR old IN
        SELECT p.oid, p.proname, substr(p.proname, length('_before_2_') + 1) AS name, p.pronargs, p.proacl,
               p.oid::regprocedure::text AS signature, p.proargtypes[0:p.pronargs - 1] AS argtypes,
               pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
          FROM pg_proc AS p
          JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
         WHERE e.extname = 'pgmq' AND p.pronamespace = 'pgmq'::regnamespace
           AND starts_with(p.proname, '_before_2_')
    LOOP
        parameters := (SELECT string_agg('$' || i, ', ' ORDER BY i) FROM generate_series(1, old.pronargs) AS i);
        successor := CASE old.name
            WHEN 'create_partitioned' THEN '(text,text,text,integer,boolean,boolean)'
            WHEN 'drop_queue' THEN '(text,boolean)'
            WHEN 'enable_notify_insert' THEN '(text,integer)'
            WHEN 'pop' THEN '(text,integer)'
            WHEN 'read' THEN '(text,integer,integer,jsonb)'
            WHEN 'read_with_poll' THEN '(text,integer,integer,integer,integer,jsonb)'
            WHEN 'read_grouped' THEN '(text,integer,integer)'
            WHEN 'read_grouped_rr' THEN '(text,integer,integer)'
            WHEN 'read_grouped_with_poll' THEN '(text,integer,integer,integer,integer)'
            WHEN 'read_grouped_rr_with_poll' THEN '(text,integer,integer,integer,integer)'
            WHEN 'send' THEN '(text,jsonb,integer)'
            WHEN 'send_batch' THEN '(text,jsonb[],integer)'
        END;
        successor := format('pgmq.%I%s', old.name, successor);
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
            EXECUTE format('DROP FUNCTION %s', old.signature);
            CONTINUE;
        END IF;
        IF old.name LIKE 'read\_grouped%' THEN
            parameters := (SELECT string_agg('$' || i, ', ' ORDER BY i) FROM generate_series(1, old.pronargs - 1) AS i);
            EXECUTE format('CREATE OR REPLACE FUNCTION pgmq.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
                old.proname, old.arguments, old.result, format(
                    E'BEGIN\n IF $%s OPERATOR(pg_catalog.<>) ''{}'' THEN\n'
                    '  RAISE EXCEPTION ''groups cannot be read with a condition'' USING ERRCODE = ''0A000'';\n END IF;\n'
                    ' RETURN QUERY SELECT * FROM pgmq.%I(%s);\nEND', old.pronargs, old.name, parameters));
        ELSE
            EXECUTE format('CREATE OR REPLACE FUNCTION pgmq.%I(%s) RETURNS %s LANGUAGE sql AS %L',
                old.proname, old.arguments, old.result, format('SELECT %s pgmq.%I(%s)',
                    CASE WHEN old.result = 'SETOF pgmq.message_record' THEN '* FROM' ELSE '' END, old.name, parameters));
        END IF;
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', old.signature,
                       'Left by the update to 2.0.0 because something depends on it: a call of ' || successor);
        EXECUTE format('ALTER EXTENSION pgmq DROP FUNCTION %s', old.signature);
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

-- New tables belong to the owner of the extension, who has got the old ones as well
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
        IF NOT pg_has_role('@extowner@'::regrole, rel.relowner, 'MEMBER') THEN
            RAISE EXCEPTION 'table % belongs to role %', rel.name, rel.relowner::regrole
                USING ERRCODE = 'insufficient_privilege', DETAIL = 'It lacks columns, which the update adds.',
                      HINT = 'Update the extension as a member of that role, or as a superuser.';
        END IF;
        IF NOT 'headers' = ANY (rel.names) THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN headers jsonb', rel.name);
        END IF;
        IF NOT 'last_read_at' = ANY (rel.names) THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN last_read_at timestamp with time zone', rel.name);
        END IF;
    END LOOP;
END
$queues$;

-- Rows of tables, with the rights of their owner
CREATE FUNCTION pgmq._settle_tables() RETURNS void LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq__settle_tables';
SELECT pgmq._settle_tables();
DROP FUNCTION pgmq._settle_tables();
