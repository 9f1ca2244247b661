
CREATE FUNCTION pgmq.subscribe(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    start pg_catalog.text DEFAULT 'latest',
    start_id bigint DEFAULT NULL,
    start_time timestamp with time zone DEFAULT NULL
)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_subscribe';
COMMENT ON FUNCTION pgmq.subscribe(pg_catalog.text, pg_catalog.text, pg_catalog.text, bigint, timestamp with time zone) IS
    'Subscribe to a stream; false if the subscription exists';

CREATE FUNCTION pgmq.unsubscribe(stream_name pg_catalog.text, subscription pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_unsubscribe';
COMMENT ON FUNCTION pgmq.unsubscribe(pg_catalog.text, pg_catalog.text) IS
    'Drop a subscription; false if there is none';

CREATE FUNCTION pgmq.list_subscriptions(stream_name pg_catalog.text DEFAULT NULL)
RETURNS TABLE (
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    role pg_catalog.name,
    created_at timestamp with time zone,
    dropped_events bigint
) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_subscriptions';
COMMENT ON FUNCTION pgmq.list_subscriptions(pg_catalog.text) IS
    'The subscriptions of a stream, or of all streams';

CREATE FUNCTION pgmq.receive(stream_name pg_catalog.text, subscription pg_catalog.text, vt integer, qty integer)
RETURNS SETOF pgmq.event_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_receive';
COMMENT ON FUNCTION pgmq.receive(pg_catalog.text, pg_catalog.text, integer, integer) IS
    'Lease a shard of a subscription for some seconds, and return its next events';

CREATE FUNCTION pgmq.advance(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    shard integer,
    event_id bigint,
    lease bigint
)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_advance';
COMMENT ON FUNCTION pgmq.advance(pg_catalog.text, pg_catalog.text, integer, bigint, bigint) IS
    'Finish events of a shard up to this one; false if the lease is not the last one';

CREATE FUNCTION pgmq.extend_lease(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    shard integer,
    lease bigint,
    vt integer
)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_extend_lease';
COMMENT ON FUNCTION pgmq.extend_lease(pg_catalog.text, pg_catalog.text, integer, bigint, integer) IS
    'Let a lease end so many seconds from now; false if it is not the last one';

CREATE FUNCTION pgmq.return_lease(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    shard integer,
    lease bigint
)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_return_lease';
COMMENT ON FUNCTION pgmq.return_lease(pg_catalog.text, pg_catalog.text, integer, bigint) IS
    'Give a shard back, with its events that are not finished; false if the lease is not the last one';

CREATE FUNCTION pgmq.seek(
    stream_name pg_catalog.text,
    subscription pg_catalog.text,
    start pg_catalog.text DEFAULT NULL,
    start_id bigint DEFAULT NULL,
    start_time timestamp with time zone DEFAULT NULL,
    force boolean DEFAULT false
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_seek';
COMMENT ON FUNCTION pgmq.seek(
    pg_catalog.text, pg_catalog.text, pg_catalog.text, bigint, timestamp with time zone, boolean
) IS
    'Move a subscription back or forward';

CREATE FUNCTION pgmq.stream_lag(stream_name pg_catalog.text DEFAULT NULL)
RETURNS TABLE (
    stream pg_catalog.text,
    subscription pg_catalog.text,
    shard integer,
    passed_id bigint,
    last_id bigint,
    behind bigint,
    seconds_behind double precision,
    leased_until timestamp with time zone,
    held_up_by pg_catalog.text
) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_stream_lag';
COMMENT ON FUNCTION pgmq.stream_lag(pg_catalog.text) IS
    'How far each subscription is behind in each shard, and what holds the stream up';
