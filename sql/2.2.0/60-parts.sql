CREATE FUNCTION pgmq.set_stream_retention(
    stream_name pg_catalog.text,
    retention interval,
    keep_unconsumed interval DEFAULT NULL
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_stream_retention';
COMMENT ON FUNCTION pgmq.set_stream_retention(pg_catalog.text, interval, interval) IS
    'Change how long a stream keeps its events';
