CREATE FUNCTION pgmq.set_stream_retention(
    stream_name pg_catalog.text,
    retention interval,
    keep_unconsumed interval DEFAULT NULL
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_stream_retention';
COMMENT ON FUNCTION pgmq.set_stream_retention(pg_catalog.text, interval, interval) IS
    'Change how long a stream keeps its events';

-- The current partition is not truncated any more
COMMENT ON COLUMN pgmq.partition_config.drop_consumed IS
    'True: empty partitions that get no more messages are dropped at any age';
