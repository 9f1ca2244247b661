
----------------------------------------------------------------------- tokens

CREATE FUNCTION pgmq.read_where(
    queue_name pg_catalog.text, vt integer, qty integer,
    conditional pg_catalog.jsonb DEFAULT '{}', headers_conditional pg_catalog.jsonb DEFAULT '{}'
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_where';
COMMENT ON FUNCTION pgmq.read_where(pg_catalog.text, integer, integer, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Read up to qty messages whose body and headers contain the given ones';
