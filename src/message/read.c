/*
 * read.c
 *	  Hand messages out: read, read_with_poll, read_where, pop.
 *
 * A read takes what is due, then what is fresh.  Deferred messages (delayed,
 * leased, re-timed) are found through the partial index on (vt, msg_id), fresh
 * ones through the primary key.  Both scans start where horizon.c says.  They
 * are two statements.  The first runs only if something may be due, the second
 * only if messages are still wanted.  So no row is locked that is not handed
 * out, and the common read is one index scan.
 *
 * Two readers never get the same message: the sub-select locks the row, and
 * skips a row that another transaction has locked.  If another transaction has
 * changed a row since our snapshot, the conditions are tested again on its
 * newest version.  There "vt <= now" or "vt = enqueued_at" is false.
 *
 * A queue without an index on vt is read by one statement in the order of
 * msg_id, as the PL/pgSQL extension reads it.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/jsonb.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "wait/wait.h"
#include "message/message.h"
#include "message/reader.h"

PG_FUNCTION_INFO_V1(pgmq_read);
PG_FUNCTION_INFO_V1(pgmq_read_with_poll);
PG_FUNCTION_INFO_V1(pgmq_read_where);
PG_FUNCTION_INFO_V1(pgmq_pop);

/* $1 how many (NULL: all), $2 .. $3 the range that horizon.c gives */
#define TAKE_DUE_IN(range, filter, order) \
	"msg_id OPERATOR(pg_catalog.=) ANY (ARRAY(" \
	"SELECT msg_id FROM {queue}" \
	" WHERE vt OPERATOR(pg_catalog.<>) enqueued_at" range filter "{live}{leaf}" \
	" ORDER BY " order "vt, msg_id LIMIT $1 FOR UPDATE SKIP LOCKED)){leaf}"

#define TAKE_FRESH_IN(range, filter, order) \
	"msg_id OPERATOR(pg_catalog.=) ANY (ARRAY(" \
	"SELECT msg_id FROM {queue}" \
	" WHERE vt OPERATOR(pg_catalog.=) enqueued_at" range filter "{live}{leaf}" \
	" ORDER BY " order "msg_id LIMIT $1 FOR UPDATE SKIP LOCKED)){leaf}"

#define IN_RANGE(key) \
	" AND " key " OPERATOR(pg_catalog.>=) $2 AND " key " OPERATOR(pg_catalog.<=) $3"

#define TAKE_DUE(filter) TAKE_DUE_IN(IN_RANGE("vt"), filter, "")
#define TAKE_FRESH(filter) TAKE_FRESH_IN(IN_RANGE("msg_id"), filter, "")

/*
 * The same of the messages of one rank, $10.  Compared as rows, because then the rank
 * counts for the order, and no index but that by rank has this order.
 */
#define IN_RANGE_OF_RANK(key) \
	" AND ROW(pgmq_rank, " key ") OPERATOR(pg_catalog.>=) ROW($10, $2)" \
	" AND ROW(pgmq_rank, " key ") OPERATOR(pg_catalog.<=) ROW($10, $3)"

#define TAKE_DUE_OF_RANK(filter) TAKE_DUE_IN(IN_RANGE_OF_RANK("vt"), filter, "pgmq_rank, ")
#define TAKE_FRESH_OF_RANK(filter) TAKE_FRESH_IN(IN_RANGE_OF_RANK("msg_id"), filter, "pgmq_rank, ")

/*
 * For a queue without an index on vt, as the PL/pgSQL extension makes them if they are
 * partitioned: what is due would be found by a scan of the whole queue.  $2 is not used.
 */
#define TAKE_BY_ID(filter) \
	"msg_id OPERATOR(pg_catalog.=) ANY (ARRAY(" \
	"SELECT msg_id FROM {queue}" \
	" WHERE (vt OPERATOR(pg_catalog.<=) $3 OR vt OPERATOR(pg_catalog.=) enqueued_at)" filter "{live}" \
	" ORDER BY msg_id LIMIT $1 FOR UPDATE SKIP LOCKED))"

/* $4 the length of the lease */
#define LEASE \
	"UPDATE {queue} SET read_ct = " NEXT_READ_CT "," \
	" last_read_at = pg_catalog.clock_timestamp()," \
	" vt = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $4" \
	" WHERE "

/* $5 what the body must contain */
#define CONTAINS " AND message OPERATOR(pg_catalog.@>) $5"

/* The same, or NULL; $6 what the headers must contain */
#define HEADERS_CONTAIN \
	" AND ($5 IS NULL OR message OPERATOR(pg_catalog.@>) $5)" \
	" AND headers OPERATOR(pg_catalog.@>) $6"

#define RETURNING_MESSAGES " RETURNING " MESSAGE_COLUMNS

static const PlanSpec read_due = {
	PLAN_READ_DUE,
	LEASE TAKE_DUE("") RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec read_fresh = {
	PLAN_READ_FRESH,
	LEASE TAKE_FRESH("") RETURNING_MESSAGES,
	READ_ARGS(INT8OID)
};

static const PlanSpec read_due_where = {
	PLAN_READ_DUE_WHERE,
	LEASE TAKE_DUE(CONTAINS) RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec read_fresh_where = {
	PLAN_READ_FRESH_WHERE,
	LEASE TAKE_FRESH(CONTAINS) RETURNING_MESSAGES,
	READ_ARGS(INT8OID)
};

static const PlanSpec read_due_headers = {
	PLAN_READ_DUE_HEADERS,
	LEASE TAKE_DUE(HEADERS_CONTAIN) RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec read_fresh_headers = {
	PLAN_READ_FRESH_HEADERS,
	LEASE TAKE_FRESH(HEADERS_CONTAIN) RETURNING_MESSAGES,
	READ_ARGS(INT8OID)
};

static const PlanSpec pop_due = {
	PLAN_POP_DUE,
	"DELETE FROM {queue} WHERE " TAKE_DUE("") RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec pop_fresh = {
	PLAN_POP_FRESH,
	"DELETE FROM {queue} WHERE " TAKE_FRESH("") RETURNING_MESSAGES,
	READ_ARGS(INT8OID)
};

static const PlanSpec read_by_id = {
	PLAN_READ_BY_ID,
	LEASE TAKE_BY_ID("") RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec read_by_id_where = {
	PLAN_READ_BY_ID_WHERE,
	LEASE TAKE_BY_ID(CONTAINS) RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec read_by_id_headers = {
	PLAN_READ_BY_ID_HEADERS,
	LEASE TAKE_BY_ID(HEADERS_CONTAIN) RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec pop_by_id = {
	PLAN_POP_BY_ID,
	"DELETE FROM {queue} WHERE " TAKE_BY_ID("") RETURNING_MESSAGES,
	READ_ARGS(TIMESTAMPTZOID)
};

static const PlanSpec read_due_of_rank = {
	PLAN_READ_DUE_RANK,
	LEASE TAKE_DUE_OF_RANK("") RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(TIMESTAMPTZOID)
};

static const PlanSpec read_fresh_of_rank = {
	PLAN_READ_FRESH_RANK,
	LEASE TAKE_FRESH_OF_RANK("") RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(INT8OID)
};

static const PlanSpec read_due_of_rank_where = {
	PLAN_READ_DUE_RANK_WHERE,
	LEASE TAKE_DUE_OF_RANK(CONTAINS) RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(TIMESTAMPTZOID)
};

static const PlanSpec read_fresh_of_rank_where = {
	PLAN_READ_FRESH_RANK_WHERE,
	LEASE TAKE_FRESH_OF_RANK(CONTAINS) RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(INT8OID)
};

static const PlanSpec read_due_of_rank_headers = {
	PLAN_READ_DUE_RANK_HEADERS,
	LEASE TAKE_DUE_OF_RANK(HEADERS_CONTAIN) RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(TIMESTAMPTZOID)
};

static const PlanSpec read_fresh_of_rank_headers = {
	PLAN_READ_FRESH_RANK_HEADERS,
	LEASE TAKE_FRESH_OF_RANK(HEADERS_CONTAIN) RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(INT8OID)
};

static const PlanSpec pop_due_of_rank = {
	PLAN_POP_DUE_RANK,
	"DELETE FROM {queue} WHERE " TAKE_DUE_OF_RANK("") RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(TIMESTAMPTZOID)
};

static const PlanSpec pop_fresh_of_rank = {
	PLAN_POP_FRESH_RANK,
	"DELETE FROM {queue} WHERE " TAKE_FRESH_OF_RANK("") RETURNING_MESSAGES,
	READ_ARGS_OF_RANK(INT8OID)
};

/* Time after which an attempt that found a locked partition is repeated, in microseconds */
#define BLOCKED_PAUSE 10000

static const ReadSpecs read_any = {
	&read_due, &read_fresh, &read_by_id, &read_due_of_rank, &read_fresh_of_rank
};
static const ReadSpecs read_body = {
	&read_due_where, &read_fresh_where, &read_by_id_where, &read_due_of_rank_where, &read_fresh_of_rank_where
};
static const ReadSpecs read_headers = {
	&read_due_headers, &read_fresh_headers, &read_by_id_headers,
	&read_due_of_rank_headers, &read_fresh_of_rank_headers
};
static const ReadSpecs pop_any = {
	&pop_due, &pop_fresh, &pop_by_id, &pop_due_of_rank, &pop_fresh_of_rank
};

static const NullableDatum no_condition = {(Datum) 0, true};

static void
request_init(ReadRequest *request, FunctionCallInfo fcinfo, const ReadSpecs *specs, int qty_arg,
			 MessageSet *messages)
{
	memset(request, 0, sizeof(*request));
	name_from_arg(fcinfo, 0, &request->name);
	request->specs = specs;
	request->unlimited = PG_ARGISNULL(qty_arg);
	if (!request->unlimited)
		request->quantity = PG_GETARG_INT32(qty_arg);
	request->messages = messages;
	request->body = request->headers = no_condition;
}

static void
request_lease(ReadRequest *request, FunctionCallInfo fcinfo, int vt_arg)
{
	request->lease_null = PG_ARGISNULL(vt_arg);
	if (!request->lease_null)
	{
		request->lease = interval_from_seconds(PG_GETARG_INT32(vt_arg));
		request->seconds = Max(PG_GETARG_INT32(vt_arg), 0);
	}
}

/* A condition; NULL and '{}' mean that there is none. */
NullableDatum
condition_from_arg(FunctionCallInfo fcinfo, int arg)
{
	Jsonb	   *contained;

	if (PG_ARGISNULL(arg))
		return no_condition;
	contained = PG_GETARG_JSONB_P(arg);
	if (JB_ROOT_IS_OBJECT(contained) && JB_ROOT_COUNT(contained) == 0)
		return no_condition;
	return (NullableDatum) {JsonbPGetDatum(contained), false};
}

static void
request_conditions(ReadRequest *request, NullableDatum body, NullableDatum headers)
{
	request->body = body;
	request->headers = headers;
	if (!headers.isnull)
		request->specs = &read_headers;
	else if (!body.isnull)
		request->specs = &read_body;
}

/* Whether the read may skip messages that others would take */
static bool
has_conditions(const ReadRequest *request)
{
	return !request->body.isnull || !request->headers.isnull;
}

/* Whether to go on with a partition: see leaflock.c */
static bool
may_go_on(ReadRequest *request, Leaf *leaf)
{
	if (leaf == NULL || leaf->relid == request->leaf)
		return true;
	if (!OidIsValid(request->leaf))
	{
		request->leaf = leaf->relid;
		leaf_lock(leaf);
	}
	else if (!leaf_lock_at_once(leaf))
		request->blocked = leaf->relid;
	return !OidIsValid(request->blocked);
}

/*
 * Take up to "limit" messages in a range of one of the indexes.  If that is in
 * a partition, remember that they will be due again there.
 */
int64
read_take(ReadRequest *request, const PlanSpec *spec, int64 limit, const HorizonRange *range)
{
	Datum		values[PLAN_MAX_ARGS];
	bool		nulls[PLAN_MAX_ARGS] = {false};
	int64		taken;

	values[0] = Int64GetDatum(limit);
	nulls[0] = request->unlimited;
	values[1] = Int64GetDatum(range->from);
	values[2] = Int64GetDatum(range->until);
	/* Also what a statement does not use must be a value or NULL: auto_explain prints all parameters */
	values[3] = request->lease;
	nulls[3] = request->lease_null || DatumGetPointer(request->lease) == NULL;
	values[4] = request->body.value;
	nulls[4] = request->body.isnull || DatumGetPointer(request->body.value) == NULL;
	values[5] = request->headers.value;
	nulls[5] = request->headers.isnull || DatumGetPointer(request->headers.value) == NULL;
	survey_rule_args(&request->rule, &values[6], &nulls[6]);
	values[9] = Int16GetDatum(request->rank);
	taken = (int64) plan_run_leaf(&request->name, spec, range->leaf, request->variant, values, nulls,
						  result_dest(request->messages));
	request->stated = true;
	if (taken > 0 && range->leaf != NULL && request->specs != &pop_any)
		leaf_note_due(range->leaf, TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															   request->seconds * INT64CONST(1000)));
	return taken;
}

/* The messages were taken: when the lease ends they are available again. */
static void
mark_due(ReadRequest *request)
{
	Interval   *lease;

	if (request->specs->fresh == &pop_fresh || request->lease_null)
		return;					/* no lease, or one that a trigger has set */
	lease = DatumGetIntervalP(request->lease);
	effect_due(&request->name, GetCurrentTimestamp() + lease->time);
}

/* The statement for messages of the level at which the read is, or of all */
const PlanSpec *
read_spec(const ReadRequest *request, bool fresh)
{
	const ReadSpecs *specs = request->specs;

	if (request->rank == RANK_ALL)
		return fresh ? specs->fresh : specs->due;
	return fresh ? specs->fresh_of_rank : specs->due_of_rank;
}

/* The same, by what the horizon says.  Dead messages are not taken. */
static int64
take_from(ReadRequest *request, Horizon *h, bool fresh, int64 limit, const HorizonRange *range, HorizonFinds *finds)
{
	if (request->variant != LIVE_ANY && (request->unlimited || limit > 0))
		return dead_take_live(request, h, fresh, limit, *range, finds);
	return read_take(request, read_spec(request, fresh), limit, range);
}

/*
 * Take what was due at a moment, then what is fresh, from where the horizon
 * says.  The moment is before the read has taken any message.  So a message
 * that it took without a lease is not due again in its next look.
 */
static int64
read_look(ReadRequest *request, Horizon *h, TimestampTz moment, int64 wanted)
{
	HorizonFinds finds = {.fresh_highest = PG_INT64_MIN};
	HorizonRange range = {.from = DT_NOBEGIN, .until = moment};
	int64		highest;

	request->rank = horizon_rank(h);
	if (horizon_is_by_id(h))
		return read_take(request, request->specs->by_id, wanted, &range);
	finds.due_until = moment;
	finds.due_exhausted = true;
	while (finds.due_exhausted && !finds.stopped && horizon_next_due(h, moment, &range))
	{
		finds.due_exhausted = may_go_on(request, range.leaf);
		if (!finds.due_exhausted)
			break;
		finds.messages += take_from(request, h, false, wanted - finds.messages, &range, &finds);
		finds.due_exhausted = request->unlimited || finds.messages < wanted;
	}
	if (finds.due_exhausted && !finds.stopped)
		finds.due_until = moment;
	(void) result_highest(request->messages);
	finds.fresh_exhausted = finds.due_exhausted;
	while (finds.fresh_exhausted && !finds.stopped &&
		   horizon_next_fresh(h, request->unlimited ? 0 : wanted - finds.messages, &range))
	{
		int64		taken;

		finds.fresh_exhausted = may_go_on(request, range.leaf);
		if (!finds.fresh_exhausted)
			break;
		taken = take_from(request, h, true, wanted - finds.messages, &range, &finds);
		finds.fresh_messages += taken;
		finds.messages += taken;
		finds.fresh_exhausted = request->unlimited || finds.messages < wanted;
	}
	highest = result_highest(request->messages);
	finds.fresh_highest = Max(finds.fresh_highest, highest);
	horizon_found(h, &finds);
	request->stopped |= finds.stopped;
	return finds.messages;
}

/* Where messages can be dead, a statement looks at so many of those that have waited too long */
#define WAITED_AT_ONCE 1000

/* Messages that have been visible for longer than priority_max_wait, whatever their level */
static int64
take_waited(ReadRequest *request, Horizon *h, TimestampTz moment, int64 wanted)
{
	TimestampTz until = moment - request->policy->priority_max_wait;
	HorizonFinds finds = {.fresh_highest = PG_INT64_MIN};
	int64		most = request->variant == LIVE_ANY ? 0 : WAITED_AT_ONCE;
	HorizonRange range;
	bool		fresh;

	request->rank = RANK_ALL;
	while ((request->unlimited || finds.messages < wanted) &&
		   horizon_next_waited(h, until, request->unlimited ? PG_INT64_MAX : Max(most, wanted - finds.messages),
							   &range, &fresh) &&
		   may_go_on(request, range.leaf))
		finds.messages += take_from(request, h, fresh, wanted - finds.messages, &range, &finds);
	horizon_found(h, &finds);
	return finds.messages;
}

/* The same by priority: one level after the other, each as far as it goes */
static int64
look(ReadRequest *request, Horizon *h, TimestampTz moment, int64 wanted)
{
	int64		got = 0;

	if (!horizon_by_rank(h))
		return read_look(request, h, moment, wanted);
	if ((request->policy->set & POLICY_PRIORITY_MAX_WAIT) != 0)
		got = take_waited(request, h, moment, wanted);
	while ((request->unlimited || got < wanted) && !OidIsValid(request->blocked) &&
		   horizon_next_rank(h, moment))
		got += read_look(request, h, moment, wanted - got);
	return got;
}

/*
 * For a table about which the horizon knows nothing: when its next deferred
 * message becomes due, between $1 and $2
 */
static const PlanSpec next_due = {
	PLAN_NEXT_DUE,
	"SELECT vt FROM {queue}"
	" WHERE vt OPERATOR(pg_catalog.<>) enqueued_at"
	" AND vt OPERATOR(pg_catalog.>) $1 AND vt OPERATOR(pg_catalog.<=) $2"
	" ORDER BY vt LIMIT 1",
	2, {TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/* What a read that found nothing, or a check, knows about the next attempt */
void
read_outlook(const QueueName *name, Horizon *h, TimestampTz moment, int64 found,
			 Outlook *outlook)
{
	Datum		values[2];
	ValueList  *list;
	const NullableDatum *next;

	if (horizon_outlook(h, moment, found, outlook))
		return;
	values[0] = TimestampTzGetDatum(moment);
	values[1] = TimestampTzGetDatum(outlook->until);
	outlook->next = DT_NOEND;
	list = result_values(TIMESTAMPTZOID);
	plan_run(name, &next_due, values, NULL, result_values_dest(list));
	if (result_values_got(list, &next) > 0 && !next->isnull)
		outlook->next = DatumGetTimestampTz(next->value);
	outlook->conclusive = true;
	outlook->thorough = false;
}

/* A read of no messages, or of fewer, runs the statement that says so */
static Horizon *
begin(const ReadRequest *request)
{
	if ((request->policy->set & POLICY_PRIORITY) != 0 && (request->unlimited || request->quantity > 0))
		return horizon_begin_ranks(&request->name, !has_conditions(request));
	if ((request->policy->set & POLICY_DEAD) != 0)
		return horizon_begin_dead(&request->name, !has_conditions(request));
	return horizon_begin(&request->name, QUEUE_TABLE, !has_conditions(request), false);
}

/*
 * One attempt, up to "wanted" messages; returns how many it got.  All its looks use the
 * same "now".  So a message that the first look leased for no time is not due again in
 * this call.
 */
static int64
take_messages(ReadRequest *request, TimestampTz moment, int64 wanted, Outlook *outlook)
{
	Horizon    *h = begin(request);
	int64		got = 0;
	int64		dead = 0;

	dead_prepare(request, h, moment);
	if (request->quantity < 0 || !horizon_is_empty(h, moment, outlook))
	{
		effect_taking(&request->name, wanted);
		do
			got += look(request, h, moment, request->quantity - got);
		while ((request->unlimited || got < request->quantity) && !OidIsValid(request->blocked) &&
			   (request->stopped ? dead_turn_to_marks(request, h) : horizon_look_again(h)));
		effect_taken(&request->name, wanted, got);
		dead = dead_move(request, h, moment, got);
		if (got == 0 && outlook != NULL && (request->unlimited || request->quantity > 0))
			read_outlook(&request->name, h, moment, got, outlook);
		if (got == 0 && outlook != NULL && OidIsValid(request->blocked))
		{
			outlook->conclusive = outlook->thorough = false;
			outlook->next = Min(outlook->next, GetCurrentTimestamp() + BLOCKED_PAUSE);
		}
	}
	if (got == 0 && request->variant != LIVE_ANY)
		horizon_took_nothing(h);
	horizon_end(h, got + dead);
	return got;
}

/* The same, as far as the policy of the queue allows it.  "outlook" may be NULL. */
static int64
run_once(ReadRequest *request, Outlook *outlook)
{
	bool		unlimited = request->unlimited;
	int64		quantity = request->quantity;
	TimestampTz moment = GetCurrentTimestamp() - 1;
	int64		wanted = request->unlimited ? PG_INT32_MAX : Max(request->quantity, 0);
	bool		pops = request->specs == &pop_any;
	int64		lease = request->lease_null ? 1 : request->seconds * USECS_PER_SEC;
	Gate		gate;
	int64		got;

	queue_require_privilege(&request->name, pops ? ACL_DELETE : ACL_UPDATE);
	request->leaf = request->locked;
	request->blocked = InvalidOid;
	SPI_connect();
	if (!policy_gate(&request->name, wanted, pops ? 0 : lease, &gate))
		got = policy_gate_closed(&gate, outlook);
	else
	{
		request->policy = gate.policy;
		if (gate.most < wanted)
		{
			request->unlimited = false;
			request->quantity = wanted = gate.most;
		}
		got = take_messages(request, moment, wanted, outlook);
		policy_gate_done(&gate, got);
		if (pops)
			length_removed(&request->name, request->policy, got, false);
		request->unlimited = unlimited;
		request->quantity = quantity;
	}
	SPI_finish();
	if (got > 0)
		mark_due(request);
	return got;
}

/*
 * An attempt that finds a locked partition before any message releases its own locks;
 * then it waits.  If it has messages, or still holds a lock, it returns what it has.
 */
static int64
request_run(ReadRequest *request, Outlook *outlook)
{
	int64		got;

	while ((got = run_once(request, outlook)) == 0 && OidIsValid(request->blocked) &&
		   leaf_wait(request->leaf, request->blocked))
		CHECK_FOR_INTERRUPTS();
	return got;
}

/* pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb) -> SETOF message_record */
Datum
pgmq_read(PG_FUNCTION_ARGS)
{
	ReadRequest		request;

	request_init(&request, fcinfo, &read_any, 2, result_messages(fcinfo));
	request_lease(&request, fcinfo, 1);
	request_conditions(&request, condition_from_arg(fcinfo, 3), no_condition);
	request_run(&request, NULL);
	result_finish(request.messages);
	return (Datum) 0;
}

/*
 * pgmq.read_where(queue_name text, vt integer, qty integer, conditional jsonb,
 *				   headers_conditional jsonb) -> SETOF message_record
 */
Datum
pgmq_read_where(PG_FUNCTION_ARGS)
{
	ReadRequest		request;

	request_init(&request, fcinfo, &read_any, 2, result_messages(fcinfo));
	request_lease(&request, fcinfo, 1);
	request_conditions(&request, condition_from_arg(fcinfo, 3), condition_from_arg(fcinfo, 4));
	request_run(&request, NULL);
	result_finish(request.messages);
	return (Datum) 0;
}

/*
 * A read as a part of another call, which finishes the set.  Its first three arguments are those
 * of read.  "locked" is the queue's table if the call has locked partitions of it.
 */
int64
read_into(FunctionCallInfo fcinfo, Oid locked, MessageSet *messages)
{
	ReadRequest request;

	request_init(&request, fcinfo, &read_any, 2, messages);
	request_lease(&request, fcinfo, 1);
	request.locked = locked;
	return request_run(&request, NULL);
}

static int64
attempt(void *arg, int queue, Outlook *outlook)
{
	return request_run(arg, outlook);
}

/* Whether other sessions may take what this request skips */
static bool
is_picky(const ReadRequest *request)
{
	return has_conditions(request) || queue_hides_rows(&request->name);
}

/*
 * pgmq.read_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer,
 *					   poll_interval_ms integer, conditional jsonb) -> SETOF message_record
 *
 * With a fixed snapshot it only sees messages that are in the queue already, when they
 * become due.
 */
Datum
pgmq_read_with_poll(PG_FUNCTION_ARGS)
{
	ReadRequest		request;
	WaitRequest wait;

	request_init(&request, fcinfo, &read_any, 2, result_messages(fcinfo));
	request_lease(&request, fcinfo, 1);
	request_conditions(&request, condition_from_arg(fcinfo, 5), no_condition);
	wait_to_take(&wait, fcinfo, &request.name, attempt, &request);
	wait.picky = is_picky(&request);
	wait.unwakeable = IsolationUsesXactSnapshot() ||
		(!request.unlimited && request.quantity == 0);
	request.waiting = true;
	if (!wait_for(&wait) && request.left_dead)
	{
		request.waiting = false;
		request_run(&request, NULL);
	}
	result_finish(request.messages);
	return (Datum) 0;
}

/* pgmq.pop(queue_name text, qty integer) -> SETOF message_record */
Datum
pgmq_pop(PG_FUNCTION_ARGS)
{
	ReadRequest		request;

	request_init(&request, fcinfo, &pop_any, 1, result_messages(fcinfo));
	request_run(&request, NULL);
	result_finish(request.messages);
	return (Datum) 0;
}
