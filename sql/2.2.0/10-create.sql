
CREATE FUNCTION pgmq.create_stream(
    stream_name pg_catalog.text,
    shards integer DEFAULT 1,
    retention interval DEFAULT '7 days',
    keep_unconsumed interval DEFAULT NULL
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_stream';
COMMENT ON FUNCTION pgmq.create_stream(pg_catalog.text, integer, interval, interval) IS
    'Create a stream, unless it exists';

CREATE FUNCTION pgmq.drop_stream(stream_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_drop_stream';
COMMENT ON FUNCTION pgmq.drop_stream(pg_catalog.text) IS
    'Drop a stream with its events and subscriptions; false if there is none';

CREATE FUNCTION pgmq.list_streams()
RETURNS TABLE (
    stream_name pg_catalog.text,
    shards integer,
    retention interval,
    keep_unconsumed interval,
    created_at timestamp with time zone
) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_streams';
COMMENT ON FUNCTION pgmq.list_streams() IS
    'The streams of the database, by name';
