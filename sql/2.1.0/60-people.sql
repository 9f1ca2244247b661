
-------------------------------------------------------------- for people who look

CREATE FUNCTION pgmq.queue_status(queue_name pg_catalog.text DEFAULT NULL)
RETURNS TABLE (
    queue pg_catalog.text,
    ready bigint,
    delayed bigint,
    in_flight bigint,
    paused boolean,
    dead bigint,
    stuck bigint,
    archived bigint,
    oldest_ready_age interval
) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_queue_status';
COMMENT ON FUNCTION pgmq.queue_status(pg_catalog.text) IS
    'What the messages of a queue are doing; NULL: of each queue';
