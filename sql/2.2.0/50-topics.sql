
-- Which routing keys lead to which streams.  The privileges to send and to list are those of pgmq.topic_bindings.
CREATE TABLE pgmq.topic_stream_bindings (
    pattern pg_catalog.text NOT NULL,
    stream_name pg_catalog.text NOT NULL,
    bound_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),
    compiled_regex pg_catalog.text GENERATED ALWAYS AS (
        '^' OPERATOR(pg_catalog.||)
        pg_catalog.replace(
            pg_catalog.replace(
                pg_catalog.regexp_replace(pattern, E'[][+.?(){}|^$\\\\]', E'\\\\\\&', 'g'),
                '*', '[^.]+'),
            '#', '.*')
        OPERATOR(pg_catalog.||) '$'
    ) STORED,
    CONSTRAINT topic_stream_bindings_pkey PRIMARY KEY (pattern, stream_name)
);
COMMENT ON TABLE pgmq.topic_stream_bindings IS 'Which routing keys lead to which streams';

CREATE TRIGGER topic_bindings_changed AFTER INSERT OR UPDATE OR DELETE ON pgmq.topic_stream_bindings
    FOR EACH ROW EXECUTE FUNCTION pgmq._topic_bindings_changed();
CREATE TRIGGER topic_bindings_truncated AFTER TRUNCATE ON pgmq.topic_stream_bindings
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._topic_bindings_changed();
ALTER TABLE pgmq.topic_stream_bindings ENABLE ALWAYS TRIGGER topic_bindings_changed;
ALTER TABLE pgmq.topic_stream_bindings ENABLE ALWAYS TRIGGER topic_bindings_truncated;
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.topic_stream_bindings
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();

SELECT pg_catalog.pg_extension_config_dump('pgmq.topic_stream_bindings', '');

DO $owner$
DECLARE
    meta constant pg_catalog.oid := 'pgmq.meta'::pg_catalog.regclass;
BEGIN
    EXECUTE pg_catalog.format('ALTER TABLE pgmq.topic_stream_bindings OWNER TO %s', (
        SELECT c.relowner::pg_catalog.regrole FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) meta));
    IF EXISTS (
        SELECT FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a
         WHERE c.oid OPERATOR(pg_catalog.=) meta AND a.privilege_type OPERATOR(pg_catalog.=) 'SELECT'
           AND a.grantee OPERATOR(pg_catalog.=) 'pg_monitor'::pg_catalog.regrole::pg_catalog.oid)
    THEN
        GRANT SELECT ON TABLE pgmq.topic_stream_bindings TO pg_monitor;
    END IF;
END
$owner$;

CREATE FUNCTION pgmq.bind_topic_stream(pattern pg_catalog.text, stream_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_bind_topic_stream';
COMMENT ON FUNCTION pgmq.bind_topic_stream(pg_catalog.text, pg_catalog.text) IS
    'Let messages whose routing key matches the pattern be published to a stream';

CREATE FUNCTION pgmq.unbind_topic_stream(pattern pg_catalog.text, stream_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_unbind_topic_stream';
COMMENT ON FUNCTION pgmq.unbind_topic_stream(pg_catalog.text, pg_catalog.text) IS
    'Remove the binding of a stream to a pattern; false if there is no such binding';
