/*
 * survey.c
 *	  Which messages of a range are live, and which dead.
 *
 * A queue with max_reads or message_ttl can have any number of dead messages before
 * the live ones.  A read surveys a range before its statement runs there.  The survey
 * skips dead messages in a fraction of the time of a statement, and collects the ids of
 * some.  It stops when a call has spent its time on them.  It is a hint: the statement
 * decides.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/survey.h"
#include "queue/tuple.h"

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

/* ---- a range ---- */

/* The clock is read once for so many messages */
#define CLOCK_EVERY 64

typedef struct Walker
{
	Relation	rel;
	const Place *place;
	const SurveyRule *rule;
	Survey	   *survey;
	bool		fresh;
	int64		began;			/* by ticks() */
	int			until_clock;
	bool		over;			/* go no further than to the next key */
} Walker;

static void
note_dead(Survey *s, int64 msg_id)
{
	int			i;

	if (s->dead == SURVEY_MAX_DEAD)
		return;
	for (i = 0; i < s->dead; i++)
	{
		if (s->dead_ids[i] == msg_id)
			return;
	}
	s->dead_ids[s->dead++] = msg_id;
}

static bool
is_dead(const Walker *walker, const PlaceRow *row)
{
	const Place *place = walker->place;
	TupleDesc	desc = RelationGetDescr(walker->rel);
	bool		isnull = true;
	bool		headers_null = true;
	Datum		read_ct = 0;
	Datum		releases = 0;
	Datum		headers = 0;
	bool		exhausted;

	if (place->read_ct_attno != 0 && walker->rule->max_reads > 0)
		read_ct = heap_getattr(row->tuple, place->read_ct_attno, desc, &isnull);
	if (isnull)
		read_ct = Int32GetDatum(0);
	isnull = true;
	if (place->releases_attno != 0 && walker->rule->max_reads > 0)
		releases = heap_getattr(row->tuple, place->releases_attno, desc, &isnull);
	if (isnull)
		releases = Int32GetDatum(0);
	if (place->headers_attno != 0 && walker->rule->ttl > 0)
		headers = heap_getattr(row->tuple, place->headers_attno, desc, &headers_null);
	return survey_is_dead(walker->rule, DatumGetInt32(read_ct), DatumGetInt32(releases), row->enqueued_at,
						  headers, headers_null, &exhausted);
}

/* Whether so much time has gone to dead messages that the call must end */
static bool
is_out_of_time(Walker *walker)
{
	const Survey *s = walker->survey;

	if (--walker->until_clock > 0)
		return false;
	walker->until_clock = CLOCK_EVERY;
	return ticks() - walker->began > s->budget && s->all_dead + s->in_the_way > s->all_live;
}

static bool
survey_row(const PlaceRow *row, void *arg)
{
	Walker	   *walker = arg;
	Survey	   *s = walker->survey;

	/* Deferred messages with one vt stay together: the next look can only begin at another */
	if (walker->over && row->key != s->reached)
	{
		s->stopped = true;
		return false;
	}
	s->reached = row->key;
	if (!row->wanted)
	{
		s->last_passed = row->key;
		s->in_the_way += is_dead(walker, row);
	}
	else if (is_dead(walker, row))
	{
		bool		isnull;

		s->all_dead++;
		s->last_passed = row->key;
		if (s->dead < SURVEY_MAX_DEAD)
			note_dead(s, DatumGetInt64(heap_getattr(row->tuple, walker->place->id_attno,
													RelationGetDescr(walker->rel), &isnull)));
	}
	else if (slot_is_takeable(row->slot))
	{
		s->all_live++;
		if (s->live++ == 0)
			s->first_live = row->key;
		if (s->live >= s->wanted)
			return false;
	}
	walker->over |= is_out_of_time(walker);
	return true;
}

/*
 * Look at the messages of a range, until enough live ones were seen or the time is over.
 * Then s->reached is the key of the last one; otherwise it is the end of the range.
 */
void
survey(Relation rel, const Place *place, Snapshot snapshot, const SurveyRule *rule,
	   bool fresh, int64 from, int64 until, Survey *s)
{
	Walker		walker = {rel, place, rule, s, fresh, ticks(), CLOCK_EVERY, false};

	s->live = 0;
	s->last_passed = PG_INT64_MIN;
	s->reached = PG_INT64_MIN;
	s->stopped = false;
	place_walk(rel, place, snapshot, fresh, from, until, survey_row, &walker);
	s->budget -= ticks() - walker.began;
	if (s->live < s->wanted && !s->stopped)
		s->reached = until;
}
