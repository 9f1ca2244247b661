
----------------------------------------------------------------------- tokens

CREATE FUNCTION pgmq.read_where(
    queue_name pg_catalog.text, vt integer, qty integer,
    conditional pg_catalog.jsonb DEFAULT '{}', headers_conditional pg_catalog.jsonb DEFAULT '{}'
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_where';
COMMENT ON FUNCTION pgmq.read_where(pg_catalog.text, integer, integer, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Read up to qty messages whose body and headers contain the given ones';

-- The token of a delivery is the read_ct that the read has returned.  It is stale once the message was delivered again;
-- a stale token changes nothing.
CREATE FUNCTION pgmq.ack(queue_name pg_catalog.text, msg_id bigint, attempt integer)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_ack';
COMMENT ON FUNCTION pgmq.ack(pg_catalog.text, bigint, integer) IS
    'Delete a message, if this is still its last delivery';

CREATE FUNCTION pgmq.ack_archive(queue_name pg_catalog.text, msg_id bigint, attempt integer)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_ack_archive';
COMMENT ON FUNCTION pgmq.ack_archive(pg_catalog.text, bigint, integer) IS
    'Move a message to the archive, if this is still its last delivery';

CREATE FUNCTION pgmq.nack(queue_name pg_catalog.text, msg_id bigint, attempt integer,
    error pg_catalog.text DEFAULT NULL, delay integer DEFAULT NULL)
RETURNS pg_catalog.text LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_nack';
COMMENT ON FUNCTION pgmq.nack(pg_catalog.text, bigint, integer, pg_catalog.text, integer) IS
    'Say that a delivery has failed: ''retry'', ''dead'', or ''stale'' if the message was delivered again';

CREATE FUNCTION pgmq.release(queue_name pg_catalog.text, msg_id bigint, attempt integer, delay integer DEFAULT 0)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_release';
COMMENT ON FUNCTION pgmq.release(pg_catalog.text, bigint, integer, integer) IS
    'Give a message back without a failure';

CREATE FUNCTION pgmq.touch(queue_name pg_catalog.text, msg_id bigint, attempt integer, vt integer)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_touch';
COMMENT ON FUNCTION pgmq.touch(pg_catalog.text, bigint, integer, integer) IS
    'Prolong a lease: it ends vt seconds from now; false if it has expired';

CREATE FUNCTION pgmq.dead_letter(queue_name pg_catalog.text, msg_id bigint, attempt integer,
    reason pg_catalog.text DEFAULT 'rejected')
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_dead_letter';
COMMENT ON FUNCTION pgmq.dead_letter(pg_catalog.text, bigint, integer, pg_catalog.text) IS
    'Move a message to the dead-letter queue, or the archive';

CREATE FUNCTION pgmq.next(
    queue_name pg_catalog.text, vt integer, qty integer, done bigint[], attempts integer[],
    skip_stale boolean DEFAULT true
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_next';
COMMENT ON FUNCTION pgmq.next(pg_catalog.text, integer, integer, bigint[], integer[], boolean) IS
    'Read the next messages and acknowledge the last ones';

CREATE FUNCTION pgmq.ack_batch(queue_name pg_catalog.text, msg_ids bigint[], attempts integer[])
RETURNS TABLE (msg_id bigint, ok boolean) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_ack_batch';
COMMENT ON FUNCTION pgmq.ack_batch(pg_catalog.text, bigint[], integer[]) IS
    'The same as ack for several messages';

CREATE FUNCTION pgmq.ack_archive_batch(queue_name pg_catalog.text, msg_ids bigint[], attempts integer[])
RETURNS TABLE (msg_id bigint, ok boolean) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_ack_archive_batch';
COMMENT ON FUNCTION pgmq.ack_archive_batch(pg_catalog.text, bigint[], integer[]) IS
    'The same as ack_archive for several messages';

CREATE FUNCTION pgmq.nack_batch(queue_name pg_catalog.text, msg_ids bigint[], attempts integer[],
    error pg_catalog.text DEFAULT NULL, delay integer DEFAULT NULL)
RETURNS TABLE (msg_id bigint, outcome pg_catalog.text) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_nack_batch';
COMMENT ON FUNCTION pgmq.nack_batch(pg_catalog.text, bigint[], integer[], pg_catalog.text, integer) IS
    'The same as nack for several messages';

CREATE FUNCTION pgmq.release_batch(queue_name pg_catalog.text, msg_ids bigint[], attempts integer[], delay integer DEFAULT 0)
RETURNS TABLE (msg_id bigint, ok boolean) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_release_batch';
COMMENT ON FUNCTION pgmq.release_batch(pg_catalog.text, bigint[], integer[], integer) IS
    'The same as release for several messages';

CREATE FUNCTION pgmq.touch_batch(queue_name pg_catalog.text, msg_ids bigint[], attempts integer[], vt integer)
RETURNS TABLE (msg_id bigint, ok boolean) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_touch_batch';
COMMENT ON FUNCTION pgmq.touch_batch(pg_catalog.text, bigint[], integer[], integer) IS
    'The same as touch for several messages';

CREATE FUNCTION pgmq.peek(
    queue_name pg_catalog.text, qty integer DEFAULT 10, conditional pg_catalog.jsonb DEFAULT '{}',
    msg_ids bigint[] DEFAULT NULL
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_peek';
COMMENT ON FUNCTION pgmq.peek(pg_catalog.text, integer, pg_catalog.jsonb, bigint[]) IS
    'Show messages without reading them, leased ones included';
