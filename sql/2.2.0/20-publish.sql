
CREATE TYPE pgmq.event_record AS (
    shard integer,
    event_id bigint,
    published_at timestamp with time zone,
    key pg_catalog.text,
    message pg_catalog.jsonb,
    headers pg_catalog.jsonb,
    attempt integer,
    lease bigint
);
COMMENT ON TYPE pgmq.event_record IS 'An event of a stream';

CREATE FUNCTION pgmq.publish(
    stream_name pg_catalog.text,
    msg pg_catalog.jsonb,
    key pg_catalog.text DEFAULT NULL,
    headers pg_catalog.jsonb DEFAULT NULL
)
RETURNS bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_publish';
COMMENT ON FUNCTION pgmq.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text, pg_catalog.jsonb) IS
    'Publish an event to a stream; its id';

CREATE FUNCTION pgmq.publish_batch(
    stream_name pg_catalog.text,
    msgs pg_catalog.jsonb[],
    keys pg_catalog.text[] DEFAULT NULL,
    headers pg_catalog.jsonb[] DEFAULT NULL
)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_publish_batch';
COMMENT ON FUNCTION pgmq.publish_batch(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.text[], pg_catalog.jsonb[]) IS
    'Publish events to a stream; their ids, in the order of the array';

CREATE FUNCTION pgmq.fetch(stream_name pg_catalog.text, shard integer, after_id bigint, qty integer)
RETURNS SETOF pgmq.event_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_fetch';
COMMENT ON FUNCTION pgmq.fetch(pg_catalog.text, integer, bigint, integer) IS
    'The next events of a shard after an event, for consumers that keep their position themselves';
