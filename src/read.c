/*
 * read.c
 *	  Hand messages out: read, read_with_poll, pop.
 *
 * A read takes what is due, then what is fresh.  Deferred messages (delayed,
 * leased, re-timed) are found through the partial index on (vt, msg_id),
 * fresh ones through the primary key; each arm stops at the first rows it
 * gets, so that nothing that lies in front of them is walked past.  Append
 * runs its arms in turn and the outer LIMIT stops pulling, so no row is locked
 * that is not handed out.
 *
 * Two readers never get the same message: the sub-select locks the row, and
 * a row that another transaction has locked is skipped; one that another
 * transaction has changed since our snapshot was taken is looked at again in
 * its newest version, and fails "vt <= now" or "vt = enqueued_at" there.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(pgmq_read);
PG_FUNCTION_INFO_V1(pgmq_read_with_poll);
PG_FUNCTION_INFO_V1(pgmq_pop);

/* Defaults of the published interface, which NULL stands for */
#define DEFAULT_POLL_SECONDS 5
#define DEFAULT_POLL_INTERVAL_MS 100

/* $1 quantity (NULL: all), $2 now, $3 due floor, $4 fresh floor */
#define TAKE_VISIBLE(filter) \
	"msg_id OPERATOR(pg_catalog.=) ANY (ARRAY(" \
	"SELECT msg_id FROM (" \
	"SELECT msg_id FROM {queue}" \
	" WHERE vt OPERATOR(pg_catalog.<>) enqueued_at" \
	" AND vt OPERATOR(pg_catalog.<=) $2 AND vt OPERATOR(pg_catalog.>=) $3" filter \
	" ORDER BY vt, msg_id LIMIT $1 FOR UPDATE SKIP LOCKED) AS due" \
	" UNION ALL " \
	"SELECT msg_id FROM (" \
	"SELECT msg_id FROM {queue}" \
	" WHERE vt OPERATOR(pg_catalog.=) enqueued_at" \
	" AND msg_id OPERATOR(pg_catalog.>=) $4" filter \
	" ORDER BY msg_id LIMIT $1 FOR UPDATE SKIP LOCKED) AS fresh" \
	" LIMIT $1))"

/* $5 the lease */
#define LEASE \
	"UPDATE {queue} SET read_ct = read_ct OPERATOR(pg_catalog.+) 1," \
	" last_read_at = pg_catalog.clock_timestamp()," \
	" vt = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $5" \
	" WHERE "

static const PlanSpec read_plan = {
	PLAN_READ,
	LEASE TAKE_VISIBLE("") " RETURNING " MESSAGE_COLUMNS,
	5, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INTERVALOID}
};

/* $6 what the body must contain */
static const PlanSpec read_where_plan = {
	PLAN_READ_WHERE,
	LEASE TAKE_VISIBLE(" AND message OPERATOR(pg_catalog.@>) $6") " RETURNING " MESSAGE_COLUMNS,
	6, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INTERVALOID, JSONBOID}
};

static const PlanSpec pop_plan = {
	PLAN_POP,
	"DELETE FROM {queue} WHERE " TAKE_VISIBLE("") " RETURNING " MESSAGE_COLUMNS,
	4, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}
};

/* What one call asks for, good for any number of attempts */
typedef struct Request
{
	QueueName	name;
	const PlanSpec *spec;
	Datum		values[PLAN_MAX_ARGS];
	bool		nulls[PLAN_MAX_ARGS];
	MessageSet *messages;
} Request;

static void
request_init(Request *request, FunctionCallInfo fcinfo, const PlanSpec *spec, int qty_arg)
{
	memset(request, 0, sizeof(*request));
	name_from_arg(fcinfo, 0, &request->name);
	request->spec = spec;
	request->nulls[0] = PG_ARGISNULL(qty_arg);
	if (!request->nulls[0])
		request->values[0] = Int64GetDatum(PG_GETARG_INT32(qty_arg));
	request->messages = result_messages(fcinfo);
}

/* The lease and the condition; NULL and '{}' mean that there is none. */
static void
request_lease(Request *request, FunctionCallInfo fcinfo, int vt_arg, int conditional_arg)
{
	Jsonb	   *conditional;

	request->nulls[4] = PG_ARGISNULL(vt_arg);
	if (!request->nulls[4])
		request->values[4] = interval_from_seconds(PG_GETARG_INT32(vt_arg));
	if (PG_ARGISNULL(conditional_arg))
		return;
	conditional = PG_GETARG_JSONB_P(conditional_arg);
	if (JB_ROOT_IS_OBJECT(conditional) && JB_ROOT_COUNT(conditional) == 0)
		return;
	request->spec = &read_where_plan;
	request->values[5] = JsonbPGetDatum(conditional);
}

/* One attempt: whether it got anything */
static bool
request_run(void *arg)
{
	Request    *request = arg;
	Floors		floors;
	uint64		got;

	SPI_connect();
	horizon_floors(&request->name, &floors);
	request->values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	request->values[2] = TimestampTzGetDatum(floors.due);
	request->values[3] = Int64GetDatum(floors.fresh);
	got = plan_run(&request->name, request->spec, request->values, request->nulls,
				   result_dest(request->messages));
	SPI_finish();
	return got > 0;
}

/* pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb) -> SETOF message_record */
Datum
pgmq_read(PG_FUNCTION_ARGS)
{
	Request		request;

	request_init(&request, fcinfo, &read_plan, 2);
	request_lease(&request, fcinfo, 1, 3);
	request_run(&request);
	result_finish(request.messages);
	return (Datum) 0;
}

/*
 * pgmq.read_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer,
 *					   poll_interval_ms integer, conditional jsonb) -> SETOF message_record
 */
Datum
pgmq_read_with_poll(PG_FUNCTION_ARGS)
{
	Request		request;
	int			max_seconds = PG_ARGISNULL(3) ? DEFAULT_POLL_SECONDS : PG_GETARG_INT32(3);
	int			interval_ms = PG_ARGISNULL(4) ? DEFAULT_POLL_INTERVAL_MS : PG_GETARG_INT32(4);

	request_init(&request, fcinfo, &read_plan, 2);
	request_lease(&request, fcinfo, 1, 5);
	wait_for(request_run, &request, max_seconds, interval_ms);
	result_finish(request.messages);
	return (Datum) 0;
}

/* pgmq.pop(queue_name text, qty integer) -> SETOF message_record */
Datum
pgmq_pop(PG_FUNCTION_ARGS)
{
	Request		request;

	request_init(&request, fcinfo, &pop_plan, 1);
	request_run(&request);
	result_finish(request.messages);
	return (Datum) 0;
}
