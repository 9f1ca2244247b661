
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

CREATE FUNCTION pgmq.redrive(
    dead_letter_queue pg_catalog.text, destination pg_catalog.text DEFAULT NULL,
    max_messages integer DEFAULT 1000, msg_ids bigint[] DEFAULT NULL
)
RETURNS bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_redrive';
COMMENT ON FUNCTION pgmq.redrive(pg_catalog.text, pg_catalog.text, integer, bigint[]) IS
    'Send up to max_messages messages of a dead-letter queue back to where they came from, or to a queue';
