/*
 * survey.c
 *	  Which messages of a range are live, and which dead.
 */
#include "pgmq.h"

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "queue/survey.h"

PG_FUNCTION_INFO_V1(pgmq__dead_reason);

/* The header by which a message overrides the time to live of its queue, in seconds */
#define TTL_HEADER "x-pgmq-ttl"
#define TTL_HEADER_BELOW 1e10

/* How long the message may live, in microseconds */
static int64
time_to_live(const SurveyRule *rule, Datum headers, bool headers_null)
{
	Jsonb	   *jsonb;
	JsonbValue *value;
	double		seconds;

	if (headers_null)
		return rule->ttl;
	jsonb = DatumGetJsonbP(headers);
	if (!JB_ROOT_IS_OBJECT(jsonb))
		return rule->ttl;
	value = getKeyJsonValueFromContainer(&jsonb->root, TTL_HEADER, (int) strlen(TTL_HEADER), NULL);
	if (value == NULL || value->type != jbvNumeric)
		return rule->ttl;
	seconds = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	if (!(seconds > 0 && seconds < TTL_HEADER_BELOW))
		return rule->ttl;
	return (int64) (seconds * USECS_PER_SEC);
}

/* Whether a message may not be delivered any more; "exhausted" if that is because of its failures */
bool
survey_is_dead(const SurveyRule *rule, int32 read_ct, int32 releases, TimestampTz enqueued_at,
			   Datum headers, bool headers_null, bool *exhausted)
{
	int64		oldest;

	*exhausted = rule->max_reads > 0 && (int64) read_ct - releases >= rule->max_reads;
	if (*exhausted)
		return true;
	return rule->ttl > 0 &&
		!pg_sub_s64_overflow(rule->now, time_to_live(rule, headers, headers_null), &oldest) &&
		enqueued_at <= oldest;
}

/* The rule as three arguments of a statement: max_reads, the time to live, now */
void
survey_rule_args(const SurveyRule *rule, Datum *values, bool *nulls)
{
	values[0] = Int32GetDatum(rule->max_reads);
	nulls[0] = rule->max_reads == 0;
	values[1] = Int64GetDatum(rule->ttl);
	nulls[1] = rule->ttl == 0;
	values[2] = TimestampTzGetDatum(rule->now);
	nulls[2] = false;
}

/*
 * pgmq._dead_reason(read_ct integer, releases integer, enqueued_at timestamptz, headers jsonb,
 *					 max_reads integer, ttl bigint, now timestamptz) -> text
 *
 * Why a message may not be delivered any more; NULL if it may.  A rule that is NULL does
 * not count.
 */
Datum
pgmq__dead_reason(PG_FUNCTION_ARGS)
{
	SurveyRule	rule = {0};
	bool		exhausted;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(6))
		PG_RETURN_NULL();
	rule.max_reads = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4);
	rule.ttl = PG_ARGISNULL(5) ? 0 : PG_GETARG_INT64(5);
	rule.now = PG_GETARG_TIMESTAMPTZ(6);
	if (!survey_is_dead(&rule, PG_GETARG_INT32(0), PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1),
						PG_GETARG_TIMESTAMPTZ(2), PG_GETARG_DATUM(3), PG_ARGISNULL(3), &exhausted))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(exhausted ? DEAD_EXHAUSTED : DEAD_EXPIRED));
}

/* Look at the messages of a range, until enough live ones were seen or the time is over */
void
survey(Relation rel, const Place *place, Snapshot snapshot, const SurveyRule *rule,
	   bool fresh, int64 from, int64 until, Survey *s)
{
	s->live = s->wanted;
	s->dead = 0;
	s->reached = until;
	s->stopped = false;
}
