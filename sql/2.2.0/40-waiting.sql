
CREATE FUNCTION pgmq.receive_with_poll(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5
)
RETURNS SETOF pgmq.event_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_receive_with_poll';
COMMENT ON FUNCTION pgmq.receive_with_poll(pg_catalog.text, pg_catalog.text, integer, integer, integer) IS
    'Like receive, but wait up to max_poll_seconds for an event';

CREATE PROCEDURE pgmq.wait_stream(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    timeout_ms integer DEFAULT 5000,
    INOUT ready boolean DEFAULT NULL
)
LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq_wait_stream';
COMMENT ON PROCEDURE pgmq.wait_stream(pg_catalog.text, pg_catalog.text, integer, boolean) IS
    'Wait up to timeout_ms milliseconds until receive can return an event, without holding a snapshot; true if it can';
