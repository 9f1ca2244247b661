/*
 * token.c
 *	  End a delivery, or prolong it, if it is still the current one: ack, ack_archive,
 *	  nack, release, touch, dead_letter.
 *
 * Every read increases read_ct.  That number is the token of the delivery: the statements
 * here change a message only while it has this read_ct.  They lock the row as delete does.
 * If another transaction has changed it, READ COMMITTED tests its newest version again; above
 * that, the server raises 40001.  So the test of the token is part of the statement, and a
 * stale token changes nothing.
 *
 * Queues that count failures have two more columns.  pgmq_settled is the token that was nacked
 * last, as a negative number, or released last.  It needs no reset: it counts only while
 * it is the message's read_ct.  pgmq_releases is how many deliveries were released.  So
 *
 *	  failures = read_ct - pgmq_releases
 *
 * and the last nack or release of a token decides, and none counts twice.
 */
#include "pgmq.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "policy/policy.h"
#include "message/message.h"
#include "message/token.h"

PG_FUNCTION_INFO_V1(pgmq_ack);
PG_FUNCTION_INFO_V1(pgmq_ack_archive);
PG_FUNCTION_INFO_V1(pgmq_nack);
PG_FUNCTION_INFO_V1(pgmq_release);
PG_FUNCTION_INFO_V1(pgmq_touch);
PG_FUNCTION_INFO_V1(pgmq_dead_letter);

/* The longest error that is kept with a message */
#define MAX_ERROR_LENGTH 4096

/* Failed messages wait up to so much longer, so that those that failed together do not come back together */
#define RETRY_JITTER 0.1

#define WHERE_TOKEN(more) \
	" WHERE msg_id OPERATOR(pg_catalog.=) $1" \
	" AND read_ct OPERATOR(pg_catalog.=) $2" more "{leaf}"

/*
 * $3: the msg_ids of the call, sorted, $2: the attempt of each.  A message can be there with several attempts.
 * So the numbers of smaller msg_ids, and of those that are not greater, give the place of its attempts.
 */
#define WHERE_TOKENS(more) \
	" WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND read_ct OPERATOR(pg_catalog.=) ANY (($2)[" \
	"pg_catalog.width_bucket(GREATEST(msg_id, -9223372036854775807) OPERATOR(pg_catalog.-) 1, $3)" \
	" OPERATOR(pg_catalog.+) 1 : pg_catalog.width_bucket(msg_id, $3)])" more "{leaf}"

#define RETURNING_TOKEN " RETURNING msg_id, read_ct"

static const PlanSpec ack_one = {
	PLAN_ACK,
	"DELETE FROM {queue}" WHERE_TOKEN(""),
	2, {INT8OID, INT4OID}
};

static const PlanSpec ack_many = {
	PLAN_ACK_BATCH,
	"DELETE FROM {queue}" WHERE_TOKENS("") RETURNING_TOKEN,
	3, {INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID}
};

const TokenVerb token_ack = {FINISH_DELETE, &ack_one, &ack_many, .columns = 2};

/* The last column says whether the archive has taken all of them: a trigger can suppress rows */
#define ARCHIVE(where, returning) \
	"WITH gone AS (DELETE FROM {queue}" where " RETURNING " MESSAGE_COLUMNS ")," \
	" archived AS (INSERT INTO {archive} (" MESSAGE_COLUMNS ")" \
	" SELECT " MESSAGE_COLUMNS " FROM gone" returning ")" \
	" SELECT msg_id, read_ct, (SELECT pg_catalog.count(*) FROM archived)" \
	" OPERATOR(pg_catalog.>=) (SELECT pg_catalog.count(*) FROM gone) FROM gone"

static const PlanSpec ack_archive_one = {
	PLAN_ACK_ARCHIVE,
	ARCHIVE(WHERE_TOKEN(""), " RETURNING 1"),
	2, {INT8OID, INT4OID}
};

static const PlanSpec ack_archive_many = {
	PLAN_ACK_ARCHIVE_BATCH,
	ARCHIVE(WHERE_TOKENS(""), RETURNING_TOKEN),
	3, {INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID}
};

const TokenVerb token_ack_archive = {FINISH_ARCHIVE, &ack_archive_one, &ack_archive_many, .columns = 3};

/* $4 a time from now */
#define SET_VT "UPDATE {queue} SET vt = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $4"

/* A lease that has not expired.  A delivery that has ended at once has none, either. */
#define LEASED \
	" AND vt OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()" \
	" AND vt OPERATOR(pg_catalog.<>) enqueued_at"

static const PlanSpec touch_one = {
	PLAN_TOUCH,
	SET_VT WHERE_TOKEN(LEASED),
	4, {INT8OID, INT4OID, INT8ARRAYOID, INTERVALOID}
};

static const PlanSpec touch_many = {
	PLAN_TOUCH_BATCH,
	SET_VT WHERE_TOKENS(LEASED) RETURNING_TOKEN,
	4, {INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INTERVALOID}
};

const TokenVerb token_touch = {FINISH_RETIME, &touch_one, &touch_many, .columns = 2};

/* 1 if the last that was said of this delivery is that it was released, else 0 */
#define IS_RELEASED "CASE WHEN pgmq_settled OPERATOR(pg_catalog.=) read_ct THEN 1 ELSE 0 END"
#define RELEASES "COALESCE(pgmq_releases, 0)"

#define COUNT_RELEASE \
	", pgmq_releases = " RELEASES " OPERATOR(pg_catalog.+) 1 OPERATOR(pg_catalog.-) " IS_RELEASED \
	", pgmq_settled = read_ct"

#define RELEASE_ARGS(ids, attempts) 4, {ids, attempts, INT8ARRAYOID, INTERVALOID}

static const PlanSpec release_one = {
	PLAN_RELEASE,
	SET_VT WHERE_TOKEN(""),
	RELEASE_ARGS(INT8OID, INT4OID)
};

static const PlanSpec release_many = {
	PLAN_RELEASE_BATCH,
	SET_VT WHERE_TOKENS("") RETURNING_TOKEN,
	RELEASE_ARGS(INT8ARRAYOID, INT4ARRAYOID)
};

static const PlanSpec release_one_counted = {
	PLAN_RELEASE_COUNTED,
	SET_VT COUNT_RELEASE WHERE_TOKEN(""),
	RELEASE_ARGS(INT8OID, INT4OID)
};

static const PlanSpec release_many_counted = {
	PLAN_RELEASE_BATCH_COUNTED,
	SET_VT COUNT_RELEASE WHERE_TOKENS("") RETURNING_TOKEN,
	RELEASE_ARGS(INT8ARRAYOID, INT4ARRAYOID)
};

const TokenVerb token_release = {
	FINISH_RETIME, &release_one, &release_many, &release_one_counted, &release_many_counted, .columns = 2
};

/*
 * $4 the delay after the first failure, $5 the factor for each further one.  After more than $6 failures the delay is
 * $7.  Each is prolonged by up to $8 of it.  $9 is the error.  (Operators with a schema all have the same precedence.)
 */
#define FAIL(failures, count) \
	"UPDATE {queue} SET vt = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+)" \
	" (CASE WHEN " failures " OPERATOR(pg_catalog.>) $6 THEN $7" \
	" ELSE $4 OPERATOR(pg_catalog.*) pg_catalog.power($5," \
	" (GREATEST(" failures ", 1) OPERATOR(pg_catalog.-) 1)::pg_catalog.float8) END" \
	" OPERATOR(pg_catalog.*) (1 OPERATOR(pg_catalog.+) ($8 OPERATOR(pg_catalog.*) pg_catalog.random())))," \
	" headers = CASE WHEN $9 IS NULL THEN headers" \
	" WHEN headers IS NULL THEN pg_catalog.jsonb_build_object('x-pgmq-error', $9)" \
	" WHEN pg_catalog.jsonb_typeof(headers) OPERATOR(pg_catalog.=) 'object'" \
	" THEN headers OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('x-pgmq-error', $9)" \
	" ELSE headers END" count

/* SET sees the old values, RETURNING the new ones */
#define RELEASES_LEFT "(" RELEASES " OPERATOR(pg_catalog.-) " IS_RELEASED ")"
#define FAIL_COUNTED \
	FAIL("(read_ct OPERATOR(pg_catalog.-) " RELEASES_LEFT ")", \
		 ", pgmq_releases = " RELEASES_LEFT ", pgmq_settled = OPERATOR(pg_catalog.-) read_ct")
#define RETURNING_FAILURES RETURNING_TOKEN ", read_ct OPERATOR(pg_catalog.-) " RELEASES
#define RETURNING_READS RETURNING_TOKEN ", read_ct"

#define FAIL_ARGS(ids, attempts) \
	9, {ids, attempts, INT8ARRAYOID, INTERVALOID, FLOAT8OID, INT4OID, INTERVALOID, FLOAT8OID, TEXTOID}

static const PlanSpec nack_one = {
	PLAN_NACK,
	FAIL("read_ct", "") WHERE_TOKEN("") RETURNING_READS,
	FAIL_ARGS(INT8OID, INT4OID)
};

static const PlanSpec nack_many = {
	PLAN_NACK_BATCH,
	FAIL("read_ct", "") WHERE_TOKENS("") RETURNING_READS,
	FAIL_ARGS(INT8ARRAYOID, INT4ARRAYOID)
};

static const PlanSpec nack_one_counted = {
	PLAN_NACK_COUNTED,
	FAIL_COUNTED WHERE_TOKEN("") RETURNING_FAILURES,
	FAIL_ARGS(INT8OID, INT4OID)
};

static const PlanSpec nack_many_counted = {
	PLAN_NACK_BATCH_COUNTED,
	FAIL_COUNTED WHERE_TOKENS("") RETURNING_FAILURES,
	FAIL_ARGS(INT8ARRAYOID, INT4ARRAYOID)
};

const TokenVerb token_nack = {
	FINISH_RETIME, &nack_one, &nack_many, &nack_one_counted, &nack_many_counted, .columns = 3
};

/* ---- the arguments of a call ---- */

void
token_init(TokenCall *call, FunctionCallInfo fcinfo, const TokenVerb *verb)
{
	memset(call, 0, sizeof(*call));
	memset(call->nulls, true, sizeof(call->nulls));
	name_from_arg(fcinfo, 0, &call->name);
	call->verb = verb;
}

static void
set_value(TokenCall *call, int param, Datum value)
{
	call->values[param - 1] = value;
	call->nulls[param - 1] = false;
}

/* A number of seconds; NULL is an error of the statement, if there is a message */
void
token_delay(TokenCall *call, FunctionCallInfo fcinfo, int delay_arg)
{
	if (PG_ARGISNULL(delay_arg))
		return;
	set_value(call, 4, interval_from_seconds(PG_GETARG_INT32(delay_arg)));
	call->wait = *DatumGetIntervalP(call->values[3]);
}

/* The same; NULL: at once */
void
token_delay_or_none(TokenCall *call, FunctionCallInfo fcinfo, int delay_arg)
{
	set_value(call, 4, interval_from_seconds(0));
	token_delay(call, fcinfo, delay_arg);
}

/* After how many failures the delay is not yet the longest one.  power() must not overflow. */
static int32
failures_below_max(int64 delay, double backoff, int64 max)
{
	double		failures;

	if (delay <= 0)
		return 0;
	if (backoff <= 1)
		return delay > max ? 0 : PG_INT32_MAX;
	failures = floor(log((double) max / (double) delay) / log(backoff)) + 1;
	return (int32) Max(Min(failures, PG_INT32_MAX), 0);
}

static void
delay_by_policy(TokenCall *call)
{
	const QueuePolicy *policy = call->policy;
	Interval   *delay = palloc0(sizeof(Interval));
	Interval   *longest = palloc0(sizeof(Interval));
	int64		first;
	int64		last;

	if ((policy->set & POLICY_RETRY_DELAY) != 0)
	{
		*delay = policy->retry_delay;
		*longest = policy->retry_delay_max;
	}
	first = policy_microseconds(delay);
	last = policy_microseconds(longest);
	set_value(call, 4, IntervalPGetDatum(delay));
	set_value(call, 5, Float8GetDatum(Max(policy->retry_backoff, 1)));
	set_value(call, 6, Int32GetDatum(failures_below_max(first, policy->retry_backoff, last)));
	set_value(call, 7, IntervalPGetDatum(first > 0 ? longest : delay));
	set_value(call, 8, Float8GetDatum(RETRY_JITTER));
	call->wait = first > last ? *longest : *delay;
}

/* How long a failed message waits; NULL: as the policy says.  The error may be NULL. */
void
token_failure(TokenCall *call, FunctionCallInfo fcinfo, int error_arg, int delay_arg)
{
	call->policy = policy_of(&call->name);
	if (PG_ARGISNULL(delay_arg))
		delay_by_policy(call);
	else
	{
		token_delay(call, fcinfo, delay_arg);
		set_value(call, 5, Float8GetDatum(1));
		set_value(call, 8, Float8GetDatum(0));
	}
	if (!PG_ARGISNULL(error_arg))
	{
		text	   *error = PG_GETARG_TEXT_PP(error_arg);
		int			length = pg_mbcliplen(VARDATA_ANY(error), VARSIZE_ANY_EXHDR(error), MAX_ERROR_LENGTH);

		set_value(call, 9, PointerGetDatum(cstring_to_text_with_len(VARDATA_ANY(error), length)));
	}
}

/* Whether a message with so many failures will not be delivered any more */
bool
token_is_dead(const TokenCall *call, int32 failures)
{
	return (call->policy->set & POLICY_MAX_READS) != 0 && failures >= call->policy->max_reads;
}

/* Move messages that have failed too often.  If that fails, they are hidden: they are not delivered, either. */
void
token_move_dead(const TokenCall *call, const int64 *ids, int count)
{
	SPI_connect();
	(void) move_nacked(&call->name, call->policy, ids, count);
	SPI_finish();
}

/* ---- the statement ---- */

static const PlanSpec *
choose_spec(const TokenCall *call, bool many)
{
	const TokenVerb *verb = call->verb;

	if (verb->one_counted != NULL)
	{
		queue_require_privilege(&call->name, ACL_UPDATE);
		if (policy_counts_failures(&call->name))
			return many ? verb->many_counted : verb->one_counted;
	}
	return many ? verb->many : verb->one;
}

/* What the statements return, in a list for token_run() */
ValueList *
token_list(const TokenVerb *verb)
{
	static const Oid types[] = {INT8OID, INT4OID, INT4OID};
	static const Oid archive_types[] = {INT8OID, INT4OID, BOOLOID};

	return result_columns(verb->columns, verb->what == FINISH_ARCHIVE ? archive_types : types);
}

static void
require_archived(const ValueList *list)
{
	const NullableDatum *row;
	uint64		rows;

	for (rows = result_values_got(list, &row); rows > 0; rows--, row += token_ack_archive.columns)
		require_all_arrived(1, DatumGetBool(row[2].value) ? 1 : 0);
}

/* Run it for $1 to $3; how many messages it has changed.  ack_archive needs the list. */
uint64
token_run(TokenCall *call, bool many, ValueList *list)
{
	uint64		processed = finish_by_id(&call->name, choose_spec(call, many), call->verb->what,
										 call->values, call->nulls,
										 list != NULL ? result_values_dest(list) : None_Receiver);

	if (processed > 0 && call->verb->what == FINISH_RETIME)
		finish_retimed(&call->name, (int64) processed,
					   DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															   TimestampTzGetDatum(GetCurrentTimestamp()),
															   IntervalPGetDatum(&call->wait))));
	if (call->verb->what == FINISH_ARCHIVE)
		require_archived(list);
	return processed;
}

/* ---- one message ---- */

/* Of the call's second and third argument.  No delivery has a number below 1. */
static uint64
run_one(TokenCall *call, FunctionCallInfo fcinfo, ValueList *list)
{
	if (!PG_ARGISNULL(1))
		set_value(call, 1, PG_GETARG_DATUM(1));
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) > 0)
		set_value(call, 2, PG_GETARG_DATUM(2));
	return token_run(call, false, list);
}

/* pgmq.ack(queue_name text, msg_id bigint, attempt integer) -> boolean */
Datum
pgmq_ack(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_ack);
	PG_RETURN_BOOL(run_one(&call, fcinfo, NULL) > 0);
}

/* pgmq.ack_archive(queue_name text, msg_id bigint, attempt integer) -> boolean */
Datum
pgmq_ack_archive(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_ack_archive);
	PG_RETURN_BOOL(run_one(&call, fcinfo, token_list(call.verb)) > 0);
}

/* pgmq.touch(queue_name text, msg_id bigint, attempt integer, vt integer) -> boolean */
Datum
pgmq_touch(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_touch);
	token_delay(&call, fcinfo, 3);
	PG_RETURN_BOOL(run_one(&call, fcinfo, NULL) > 0);
}

/* pgmq.release(queue_name text, msg_id bigint, attempt integer, delay integer) -> boolean */
Datum
pgmq_release(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_release);
	token_delay_or_none(&call, fcinfo, 3);
	PG_RETURN_BOOL(run_one(&call, fcinfo, NULL) > 0);
}

/* pgmq.nack(queue_name text, msg_id bigint, attempt integer, error text, delay integer) -> text */
Datum
pgmq_nack(PG_FUNCTION_ARGS)
{
	ValueList  *list = token_list(&token_nack);
	TokenCall	call;
	const NullableDatum *values;
	int64		msg_id;

	token_init(&call, fcinfo, &token_nack);
	token_failure(&call, fcinfo, 3, 4);
	if (run_one(&call, fcinfo, list) == 0 || result_values_got(list, &values) == 0)
		PG_RETURN_TEXT_P(cstring_to_text("stale"));
	if (!token_is_dead(&call, DatumGetInt32(values[2].value)))
		PG_RETURN_TEXT_P(cstring_to_text("retry"));
	msg_id = PG_GETARG_INT64(1);
	token_move_dead(&call, &msg_id, 1);
	PG_RETURN_TEXT_P(cstring_to_text("dead"));
}

/*
 * Whether the policies of row-level security let the caller delete the message.  Only the
 * server knows, so it is deleted, and that is rolled back.
 */
static bool
policies_allow_delete(TokenCall *call, FunctionCallInfo fcinfo)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	volatile bool deleted = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		deleted = run_one(call, fcinfo, NULL) > 0;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL)
		ReThrowError(error);
	return deleted;
}

/*
 * pgmq.dead_letter(queue_name text, msg_id bigint, attempt integer, reason text) -> boolean
 *
 * The owner of the queue moves the message.  So what the caller may do is asked before.
 */
Datum
pgmq_dead_letter(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"msg_id", "read_ct"};
	const char *reason = PG_ARGISNULL(3) ? "rejected" : text_to_cstring(PG_GETARG_TEXT_PP(3));
	TokenCall	call;
	bool		moved;

	token_init(&call, fcinfo, &token_ack);
	queue_require(&call.name);
	rights_require_select(queue_relid(&call.name, QUEUE_TABLE), columns, lengthof(columns));
	rights_require_table(queue_relid(&call.name, QUEUE_TABLE), ACL_DELETE);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_GETARG_INT32(2) <= 0)
		PG_RETURN_BOOL(false);
	if (queue_hides_rows(&call.name) && !policies_allow_delete(&call, fcinfo))
		PG_RETURN_BOOL(false);
	SPI_connect();
	moved = move_now(&call.name, policy_of(&call.name), PG_GETARG_INT64(1), PG_GETARG_INT32(2), reason);
	SPI_finish();
	PG_RETURN_BOOL(moved);
}
