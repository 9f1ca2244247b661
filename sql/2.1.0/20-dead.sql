
----------------------------------------------------------------- dead letters

-- Statements on queues that have max_reads or message_ttl call it for each row.
CREATE FUNCTION pgmq._dead_reason(read_ct integer, releases integer, enqueued_at timestamp with time zone,
    headers pg_catalog.jsonb, max_reads integer, ttl bigint, now timestamp with time zone)
RETURNS pg_catalog.text LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgmq__dead_reason';
COMMENT ON FUNCTION pgmq._dead_reason(integer, integer, timestamp with time zone, pg_catalog.jsonb, integer, bigint,
    timestamp with time zone) IS
    'Private: why a message may not be delivered any more; NULL if it may';
