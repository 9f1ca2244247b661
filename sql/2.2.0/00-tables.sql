\echo Use "ALTER EXTENSION pgmq UPDATE" to load this file. \quit

-- The update from 2.1.0, put together from the files of this directory.  It runs as a superuser, where a plain role
-- owns the extension's tables and perhaps the schema.  So every name is qualified, nothing is replaced, and no
-- row is read or written.

---------------------------------------------------------------------- streams

-- The streams of the database.  identity gives a stream one row, in whatever spelling.
CREATE TABLE pgmq.stream (
    stream_name pg_catalog.text NOT NULL CONSTRAINT stream_stream_name_key UNIQUE,
    identity pg_catalog.text NOT NULL GENERATED ALWAYS AS (pg_catalog.lower(stream_name)) STORED
        CONSTRAINT stream_pkey PRIMARY KEY,
    shards integer NOT NULL,
    retention interval NOT NULL,
    keep_unconsumed interval,
    created_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE pgmq.stream IS 'The streams of this database; create_stream, drop_stream and set_stream_retention write it';

-- Which subscriptions each stream has.  No name of a stream has a semicolon.  A role is its name, so that the rows can be
-- restored where that role does not exist.
CREATE TABLE pgmq.subscription (
    stream_name pg_catalog.text NOT NULL,
    subscription pg_catalog.text NOT NULL,
    identity pg_catalog.text NOT NULL GENERATED ALWAYS AS (
        (pg_catalog.lower(stream_name) OPERATOR(pg_catalog.||) ';') OPERATOR(pg_catalog.||) subscription) STORED
        CONSTRAINT subscription_pkey PRIMARY KEY,
    role pg_catalog.name NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),
    dropped_events bigint NOT NULL DEFAULT 0,
    CONSTRAINT subscription_stream_name_subscription_key UNIQUE (stream_name, subscription)
);
COMMENT ON TABLE pgmq.subscription IS 'The subscriptions of streams; subscribe and unsubscribe write it';

-- From PostgreSQL 18 on, rows whose replica identity has a generated column cannot be deleted once they are published
ALTER TABLE pgmq.stream REPLICA IDENTITY USING INDEX stream_stream_name_key;
ALTER TABLE pgmq.subscription REPLICA IDENTITY USING INDEX subscription_stream_name_subscription_key;

-- Sessions keep what they have read of these tables.  The C function makes all of them forget what they keep of the
-- table that it fires on.
CREATE FUNCTION pgmq._stream_changed()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__notify_settings_changed';
COMMENT ON FUNCTION pgmq._stream_changed() IS
    'Private: make all sessions read the rows about streams again';

CREATE TRIGGER stream_changed AFTER INSERT OR UPDATE OR DELETE ON pgmq.stream
    FOR EACH ROW EXECUTE FUNCTION pgmq._stream_changed();
CREATE TRIGGER stream_truncated AFTER TRUNCATE ON pgmq.stream
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._stream_changed();
CREATE TRIGGER subscription_changed AFTER INSERT OR UPDATE OR DELETE ON pgmq.subscription
    FOR EACH ROW EXECUTE FUNCTION pgmq._stream_changed();
CREATE TRIGGER subscription_truncated AFTER TRUNCATE ON pgmq.subscription
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._stream_changed();
ALTER TABLE pgmq.stream ENABLE ALWAYS TRIGGER stream_changed;
ALTER TABLE pgmq.stream ENABLE ALWAYS TRIGGER stream_truncated;
ALTER TABLE pgmq.subscription ENABLE ALWAYS TRIGGER subscription_changed;
ALTER TABLE pgmq.subscription ENABLE ALWAYS TRIGGER subscription_truncated;

CREATE TRIGGER check_queue_owner BEFORE INSERT OR UPDATE OR DELETE ON pgmq.stream
    FOR EACH ROW EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.stream
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_queue_owner BEFORE INSERT OR UPDATE OR DELETE ON pgmq.subscription
    FOR EACH ROW EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.subscription
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();

SELECT pg_catalog.pg_extension_config_dump('pgmq.stream', '');
SELECT pg_catalog.pg_extension_config_dump('pgmq.subscription', '');

-- The tables belong to the owner of meta.  pg_monitor may read them if it may read meta: a privilege that was revoked
-- stays revoked.
DO $owner$
DECLARE
    meta constant pg_catalog.oid := 'pgmq.meta'::pg_catalog.regclass;
    owner constant pg_catalog.text := (
        SELECT c.relowner::pg_catalog.regrole FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) meta);
BEGIN
    EXECUTE pg_catalog.format('ALTER TABLE pgmq.stream OWNER TO %s', owner);
    EXECUTE pg_catalog.format('ALTER TABLE pgmq.subscription OWNER TO %s', owner);
    IF EXISTS (
        SELECT FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a
         WHERE c.oid OPERATOR(pg_catalog.=) meta AND a.privilege_type OPERATOR(pg_catalog.=) 'SELECT'
           AND a.grantee OPERATOR(pg_catalog.=) 'pg_monitor'::pg_catalog.regrole::pg_catalog.oid)
    THEN
        GRANT SELECT ON TABLE pgmq.stream, pgmq.subscription TO pg_monitor;
    END IF;
END
$owner$;
