
-------------------------------------------------------------------- once only

-- A key of a message is taken for a window of time, or until the message has left the queue.  The keys are in the table
-- pgmq.k_<queue>.
CREATE FUNCTION pgmq.send_unique(
    queue_name pg_catalog.text,
    msg pg_catalog.jsonb,
    dedup_key pg_catalog.text,
    dedup_window interval DEFAULT NULL,
    headers pg_catalog.jsonb DEFAULT NULL,
    delay integer DEFAULT 0
)
RETURNS TABLE (msg_id bigint, is_duplicate boolean) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_unique';
COMMENT ON FUNCTION pgmq.send_unique(
    pg_catalog.text, pg_catalog.jsonb, pg_catalog.text, interval, pg_catalog.jsonb, integer
) IS
    'Send a message unless its key is taken; then return the id of the message that has taken it';

CREATE FUNCTION pgmq.send_unique_batch(
    queue_name pg_catalog.text,
    msgs pg_catalog.jsonb[],
    dedup_keys pg_catalog.text[],
    dedup_window interval DEFAULT NULL,
    headers pg_catalog.jsonb[] DEFAULT NULL,
    delay integer DEFAULT 0
)
RETURNS TABLE (msg_id bigint, is_duplicate boolean) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_unique_batch';
COMMENT ON FUNCTION pgmq.send_unique_batch(
    pg_catalog.text, pg_catalog.jsonb[], pg_catalog.text[], interval, pg_catalog.jsonb[], integer
) IS
    'Send those of the messages whose keys are not taken; a row for each message, in the order of the array';
