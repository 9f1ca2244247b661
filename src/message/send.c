/*
 * send.c
 *	  Put messages in.
 *
 * A message that is available at once is fresh: vt and enqueued_at are the same
 * reading of the clock.  A message with a delay is deferred, and is found by
 * its vt.  The clock is read when the queue's table is locked.  Two arguments
 * depend on that: floors are true for deferred messages (floors.c), and a
 * partition by time is closed when no more messages can come (leaf.c).
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "utils/array.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_send);
PG_FUNCTION_INFO_V1(pgmq_send_headers);
PG_FUNCTION_INFO_V1(pgmq_send_delay);
PG_FUNCTION_INFO_V1(pgmq_send_at);
PG_FUNCTION_INFO_V1(pgmq_send_headers_delay);
PG_FUNCTION_INFO_V1(pgmq_send_headers_at);
PG_FUNCTION_INFO_V1(pgmq_send_batch);
PG_FUNCTION_INFO_V1(pgmq_send_batch_headers);
PG_FUNCTION_INFO_V1(pgmq_send_batch_delay);
PG_FUNCTION_INFO_V1(pgmq_send_batch_at);
PG_FUNCTION_INFO_V1(pgmq_send_batch_headers_delay);
PG_FUNCTION_INFO_V1(pgmq_send_batch_headers_at);
PG_FUNCTION_INFO_V1(pgmq__send_batch);
PG_FUNCTION_INFO_V1(pgmq__validate_batch_params);

/*
 * One message: $1 message, $2 headers, $3 when.  Of each statement there is one that
 * writes the rank as well, $4; without it the table's default counts.
 */

#define SEND_FRESH(column, rank) \
	"INSERT INTO {queue} (enqueued_at, vt, message, headers" column ")" \
	" VALUES ($3, $3, $1, $2" rank ")" \
	" RETURNING msg_id"

#define SEND_DELAYED(column, rank) \
	"INSERT INTO {queue} (enqueued_at, vt, message, headers" column ")" \
	" SELECT c.now, c.now OPERATOR(pg_catalog.+) $3, $1, $2" rank \
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c" \
	" RETURNING msg_id"

#define SEND_AT(column, rank) \
	"INSERT INTO {queue} (enqueued_at, vt, message, headers" column ")" \
	" SELECT c.now, GREATEST(c.now, $3), $1, $2" rank \
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c" \
	" RETURNING msg_id"

#define RANK_COLUMN ", pgmq_rank"
#define ONE(when) 3, {JSONBOID, JSONBOID, when}
#define ONE_RANK(when) 4, {JSONBOID, JSONBOID, when, INT2OID}

static const PlanSpec send_fresh = {PLAN_SEND, SEND_FRESH("", ""), ONE(TIMESTAMPTZOID)};
static const PlanSpec send_delayed = {PLAN_SEND_DELAYED, SEND_DELAYED("", ""), ONE(INTERVALOID)};
static const PlanSpec send_at = {PLAN_SEND_AT, SEND_AT("", ""), ONE(TIMESTAMPTZOID)};

static const PlanSpec send_fresh_rank = {PLAN_SEND_RANK, SEND_FRESH(RANK_COLUMN, ", $4"), ONE_RANK(TIMESTAMPTZOID)};
static const PlanSpec send_delayed_rank = {
	PLAN_SEND_RANK_DELAYED, SEND_DELAYED(RANK_COLUMN, ", $4"), ONE_RANK(INTERVALOID)
};
static const PlanSpec send_at_rank = {PLAN_SEND_RANK_AT, SEND_AT(RANK_COLUMN, ", $4"), ONE_RANK(TIMESTAMPTZOID)};

/* Many messages: $1 messages, $2 headers, $3 when; ids come in array order */

#define MOVED_BATCH(column, rank, rows) \
	"INSERT INTO {queue} (enqueued_at, vt, message, headers" column ")" \
	" SELECT $3, $3, m.message, m.headers" rank \
	" FROM " rows

#define BATCH_FRESH(column, rank, rows) \
	MOVED_BATCH(column, rank, rows) \
	" RETURNING msg_id"

#define BATCH_DELAYED(column, rank, rows) \
	"INSERT INTO {queue} (enqueued_at, vt, message, headers" column ")" \
	" SELECT c.now, c.now OPERATOR(pg_catalog.+) $3, m.message, m.headers" rank \
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c, " rows \
	" RETURNING msg_id"

#define BATCH_AT(column, rank, rows) \
	"INSERT INTO {queue} (enqueued_at, vt, message, headers" column ")" \
	" SELECT c.now, GREATEST(c.now, $3), m.message, m.headers" rank \
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c, " rows \
	" RETURNING msg_id"

#define ROWS \
	"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS m (message, headers)"
#define ROWS_RANK \
	"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($4)) AS m (message, headers, rank)"
#define RANK_OF_ROW ", COALESCE(m.rank, " CppAsString2(RANK_DEFAULT) ")"

#define MANY(when) 3, {JSONBARRAYOID, JSONBARRAYOID, when}
#define MANY_RANK(when) 4, {JSONBARRAYOID, JSONBARRAYOID, when, INT2ARRAYOID}

static const PlanSpec send_batch_fresh = {
	PLAN_SEND_BATCH, BATCH_FRESH("", "", ROWS), MANY(TIMESTAMPTZOID)
};
static const PlanSpec send_batch_delayed = {
	PLAN_SEND_BATCH_DELAYED, BATCH_DELAYED("", "", ROWS), MANY(INTERVALOID)
};
static const PlanSpec send_batch_at = {
	PLAN_SEND_BATCH_AT, BATCH_AT("", "", ROWS), MANY(TIMESTAMPTZOID)
};

static const PlanSpec send_batch_fresh_rank = {
	PLAN_SEND_BATCH_RANK, BATCH_FRESH(RANK_COLUMN, RANK_OF_ROW, ROWS_RANK), MANY_RANK(TIMESTAMPTZOID)
};
static const PlanSpec send_batch_delayed_rank = {
	PLAN_SEND_BATCH_RANK_DELAYED, BATCH_DELAYED(RANK_COLUMN, RANK_OF_ROW, ROWS_RANK), MANY_RANK(INTERVALOID)
};
static const PlanSpec send_batch_at_rank = {
	PLAN_SEND_BATCH_RANK_AT, BATCH_AT(RANK_COLUMN, RANK_OF_ROW, ROWS_RANK), MANY_RANK(TIMESTAMPTZOID)
};

/* The same for messages that were moved from another queue */
static const PlanSpec send_moved_plan = {
	PLAN_SEND_MOVED, MOVED_BATCH("", "", ROWS), MANY(TIMESTAMPTZOID)
};
static const PlanSpec send_moved_rank = {
	PLAN_SEND_MOVED_RANK, MOVED_BATCH(RANK_COLUMN, RANK_OF_ROW, ROWS_RANK), MANY_RANK(TIMESTAMPTZOID)
};

/* The three statements for a call with one message, or with many */
typedef struct SendSpecs
{
	bool		many;
	SpecPair	fresh;
	SpecPair	delayed;
	SpecPair	at;
} SendSpecs;

static const SendSpecs one_message = {
	false, {&send_fresh, &send_fresh_rank}, {&send_delayed, &send_delayed_rank}, {&send_at, &send_at_rank}
};
static const SendSpecs many_messages = {
	true, {&send_batch_fresh, &send_batch_fresh_rank}, {&send_batch_delayed, &send_batch_delayed_rank},
	{&send_batch_at, &send_batch_at_rank}
};

/* When messages that were just sent with a delay become visible, or a moment later */
static TimestampTz
visible_at(bool seconds, Datum when)
{
	TimestampTz now = GetCurrentTimestamp();

	return seconds ? now + DatumGetIntervalP(when)->time : Max(now, DatumGetTimestampTz(when));
}

/*
 * What a call sends, to one queue or to many.  The second argument is the
 * message or the messages.  A NULL delay goes through the statement whose vt it
 * makes NULL, so that the error is the table's own (23502).
 */
static void
take_arguments(FunctionCallInfo fcinfo, const SendSpecs *specs,
			   int headers_arg, Delay delay, int delay_arg, Outgoing *out)
{
	memset(out, 0, sizeof(*out));
	out->many = specs->many;
	out->specs = specs->fresh;
	arg_to_param(fcinfo, 1, &out->values[0], &out->nulls[0]);
	out->nulls[1] = true;
	out->delay = DELAY_NONE;
	if (headers_arg > 0)
		arg_to_param(fcinfo, headers_arg, &out->values[1], &out->nulls[1]);

	if (delay != DELAY_NONE && PG_ARGISNULL(delay_arg))
	{
		/* A NULL time is an error, unless a trigger sets one */
		out->specs = specs->delayed;
		out->nulls[2] = true;
	}
	else if (delay == DELAY_SECONDS && PG_GETARG_INT32(delay_arg) > 0)
	{
		out->specs = specs->delayed;
		out->delay = DELAY_SECONDS;
		out->values[2] = interval_from_seconds(PG_GETARG_INT32(delay_arg));
	}
	else if (delay == DELAY_UNTIL)
	{
		out->specs = specs->at;
		out->delay = DELAY_UNTIL;
		out->values[2] = PG_GETARG_DATUM(delay_arg);
	}
}

void
send_take_one(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg, Outgoing *out)
{
	take_arguments(fcinfo, &one_message, headers_arg, delay, delay_arg, out);
}

void
send_take_many(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg, Outgoing *out)
{
	take_arguments(fcinfo, &many_messages, headers_arg, delay, delay_arg, out);
}

/* Messages that are not the arguments of the call, available at once */
void
send_take_arrays(Datum messages, Datum headers, Outgoing *out)
{
	memset(out, 0, sizeof(*out));
	out->specs = many_messages.fresh;
	out->many = true;
	out->values[0] = messages;
	out->values[1] = headers;
	out->delay = DELAY_NONE;
}

/* With the rank as one more parameter, if the queue has ranks and it is not the default */
static uint64
insert(const QueueName *name, const QueuePolicy *policy, const Outgoing *out, DestReceiver *dest)
{
	int			clock_arg = out->delay == DELAY_NONE && !out->nulls[2] ? 2 : -1;
	Datum		values[4];
	bool		nulls[4];

	if (out->nulls[1] || !rank_to_send(name, policy, out->values[1], out->many, &values[3]))
		return plan_run_now(name, out->specs.plain, clock_arg, out->values, out->nulls, dest);
	memcpy(values, out->values, sizeof(out->values));
	memcpy(nulls, out->nulls, sizeof(out->nulls));
	nulls[3] = false;
	return plan_run_now(name, out->specs.ranked, clock_arg, values, nulls, dest);
}

/* Put it into a queue.  The caller has connected to SPI; the ids go to "dest". */
void
send_to(const QueueName *name, const Outgoing *out, DestReceiver *dest)
{
	const QueuePolicy *policy;
	Oid			held;
	uint64		sent;

	queue_require_privilege(name, ACL_INSERT);
	policy = policy_of(name);
	overflow_check(name, policy, out);
	held = default_hold(name, QUEUE_TABLE);
	sent = insert(name, policy, out, dest);
	default_release(held);
	if (out->delay == DELAY_NONE)
		effect_messages(name, (int64) sent);
	else if (sent > 0)
		effect_due(name, visible_at(out->delay == DELAY_SECONDS, out->values[2]));
}

/*
 * Messages that were moved from another queue, into the dead-letter queue; how many.  This
 * runs as the owner of both, and has a plan of its own, because the server plans again for
 * another search_path.  The caller records the effect when it is sure.
 */
uint64
send_moved(const QueueName *name, Datum messages, Datum headers)
{
	Datum		values[4] = {messages, headers};
	Oid			held = default_hold(name, QUEUE_TABLE);
	bool		ranked = rank_to_send(name, policy_of(name), headers, true, &values[3]);
	uint64		sent = plan_run_now(name, ranked ? &send_moved_rank : &send_moved_plan, 2, values, NULL,
									None_Receiver);

	default_release(held);
	return sent;
}

/*
 * One message: a set of one row, which needs no tuplestore.  The second call
 * ends the set.  Without isDone the server would call again, and send again,
 * for each row of a longer set in the same select list.  If a trigger on the
 * queue has suppressed the insert, there is no row.
 */
static Datum
send_one(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg)
{
	FuncCallContext *call;
	QueueName	name;
	Outgoing	out;
	ValueList  *ids;
	const NullableDatum *id;
	NullableDatum msg_id = {0};
	bool		sent;

	if (!SRF_IS_FIRSTCALL())
	{
		call = SRF_PERCALL_SETUP();
		SRF_RETURN_DONE(call);
	}
	SPI_connect();
	name_from_arg(fcinfo, 0, &name);
	send_take_one(fcinfo, headers_arg, delay, delay_arg, &out);
	ids = result_values(INT8OID);
	send_to(&name, &out, result_values_dest(ids));
	sent = result_values_got(ids, &id) > 0;
	if (sent)
		msg_id = *id;
	SPI_finish();

	call = SRF_FIRSTCALL_INIT();
	if (!sent)
		SRF_RETURN_DONE(call);
	if (msg_id.isnull)
		SRF_RETURN_NEXT_NULL(call);
	SRF_RETURN_NEXT(call, msg_id.value);
}

/* pgmq.send(queue_name text, msg jsonb) -> SETOF bigint */
Datum
pgmq_send(PG_FUNCTION_ARGS)
{
	return send_one(fcinfo, 0, DELAY_NONE, 0);
}

/* pgmq.send(queue_name text, msg jsonb, headers jsonb) -> SETOF bigint */
Datum
pgmq_send_headers(PG_FUNCTION_ARGS)
{
	return send_one(fcinfo, 2, DELAY_NONE, 0);
}

/* pgmq.send(queue_name text, msg jsonb, delay integer) -> SETOF bigint */
Datum
pgmq_send_delay(PG_FUNCTION_ARGS)
{
	return send_one(fcinfo, 0, DELAY_SECONDS, 2);
}

/* pgmq.send(queue_name text, msg jsonb, delay timestamptz) -> SETOF bigint */
Datum
pgmq_send_at(PG_FUNCTION_ARGS)
{
	return send_one(fcinfo, 0, DELAY_UNTIL, 2);
}

/* pgmq.send(queue_name text, msg jsonb, headers jsonb, delay integer) -> SETOF bigint */
Datum
pgmq_send_headers_delay(PG_FUNCTION_ARGS)
{
	return send_one(fcinfo, 2, DELAY_SECONDS, 3);
}

/* pgmq.send(queue_name text, msg jsonb, headers jsonb, delay timestamptz) -> SETOF bigint */
Datum
pgmq_send_headers_at(PG_FUNCTION_ARGS)
{
	return send_one(fcinfo, 2, DELAY_UNTIL, 3);
}

/* Length of the first dimension; 0 for an empty array or NULL */
static int
first_dimension(FunctionCallInfo fcinfo, int argno)
{
	ArrayType  *array;

	if (PG_ARGISNULL(argno))
		return 0;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	return ARR_NDIM(array) > 0 ? ARR_DIMS(array)[0] : 0;
}

/* The checks of a batch; headers_arg is -1 for a call that has none */
void
send_validate_batch(FunctionCallInfo fcinfo, int msgs_arg, int headers_arg)
{
	int			msgs = first_dimension(fcinfo, msgs_arg);
	int			headers;

	if (msgs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("msgs cannot be NULL or empty")));
	if (headers_arg < 0 || PG_ARGISNULL(headers_arg))
		return;
	headers = first_dimension(fcinfo, headers_arg);
	if (headers != msgs)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("headers array length (%d) must match msgs array length (%d)",
						headers, msgs)));
}

static Datum
insert_batch(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg)
{
	DestReceiver *dest = result_scalars(fcinfo);
	QueueName	name;
	Outgoing	out;

	SPI_connect();
	name_from_arg(fcinfo, 0, &name);
	send_take_many(fcinfo, headers_arg, delay, delay_arg, &out);
	send_to(&name, &out, dest);
	SPI_finish();
	return (Datum) 0;
}

static Datum
send_many(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg)
{
	send_validate_batch(fcinfo, 1, headers_arg > 0 ? headers_arg : -1);
	return insert_batch(fcinfo, headers_arg, delay, delay_arg);
}

/* pgmq.send_batch(queue_name text, msgs jsonb[]) -> SETOF bigint */
Datum
pgmq_send_batch(PG_FUNCTION_ARGS)
{
	return send_many(fcinfo, 0, DELAY_NONE, 0);
}

/* pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[]) -> SETOF bigint */
Datum
pgmq_send_batch_headers(PG_FUNCTION_ARGS)
{
	return send_many(fcinfo, 2, DELAY_NONE, 0);
}

/* pgmq.send_batch(queue_name text, msgs jsonb[], delay integer) -> SETOF bigint */
Datum
pgmq_send_batch_delay(PG_FUNCTION_ARGS)
{
	return send_many(fcinfo, 0, DELAY_SECONDS, 2);
}

/* pgmq.send_batch(queue_name text, msgs jsonb[], delay timestamptz) -> SETOF bigint */
Datum
pgmq_send_batch_at(PG_FUNCTION_ARGS)
{
	return send_many(fcinfo, 0, DELAY_UNTIL, 2);
}

/* pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer) -> SETOF bigint */
Datum
pgmq_send_batch_headers_delay(PG_FUNCTION_ARGS)
{
	return send_many(fcinfo, 2, DELAY_SECONDS, 3);
}

/* pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) -> SETOF bigint */
Datum
pgmq_send_batch_headers_at(PG_FUNCTION_ARGS)
{
	return send_many(fcinfo, 2, DELAY_UNTIL, 3);
}

/* pgmq._send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) -> SETOF bigint */
Datum
pgmq__send_batch(PG_FUNCTION_ARGS)
{
	return insert_batch(fcinfo, 2, DELAY_UNTIL, 3);
}

/* pgmq._validate_batch_params(msgs jsonb[], headers jsonb[]) -> void */
Datum
pgmq__validate_batch_params(PG_FUNCTION_ARGS)
{
	send_validate_batch(fcinfo, 0, 1);
	PG_RETURN_VOID();
}
