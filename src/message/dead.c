/*
 * dead.c
 *	  A read of a queue where messages can be dead: exhausted, or too old.
 *
 * 1. A read hands out no dead message: its statements test that on the row that they lock.
 * 2. It moves up to SURVEY_MAX_DEAD dead messages that its looks have seen, after it has
 *	  taken what is live, and skips the others.
 * 3. Any number of dead messages can be before the live ones.  A call that has spent
 *	  DEAD_BUDGET on them ends, with what it has.  The marks and the sweep stay where it has
 *	  come to, so the next call goes on there (pace.c).  The same is true if the call had no
 *	  message and is rolled back: horizon_took_nothing().  After a sweep it looks at the marks.
 *	  Exhausted messages are deferred.  They are before the fresh ones in the index by msg_id
 *	  as well, and there they count the same way.  Only dead messages end a call: it
 *	  passes all that are held, as it does without a policy.
 * 4. A session that waits moves nothing until it returns.  Its moves would stay uncommitted,
 *	  and their locks would hold the floors back for all sessions.
 * 5. Reads that do not use the marks skip all dead messages in each call: those with
 *	  conditions, under row-level security, or with a fixed snapshot.  Reads of tables about
 *	  which the horizon knows nothing do the same.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "message/message.h"
#include "message/reader.h"

/* After so many microseconds, a waiting session goes on with what a call has not looked at */
#define PAUSE_STOPPED 1000

/* How much time of a call may go to dead messages that it skips, in microseconds */
#define DEAD_BUDGET 5000
#define DEAD_BUDGET_MARKS 1000	/* the same at the marks, after a sweep that has spent the time */

/* For a table about which the horizon knows nothing: messages that are dead, by $3 */
static const PlanSpec find_dead_plan = {
	PLAN_MOVE_FIND_DEAD,
	"SELECT msg_id FROM {queue}"
	" WHERE (vt OPERATOR(pg_catalog.<=) $3 OR vt OPERATOR(pg_catalog.=) enqueued_at)"
	" AND pgmq._dead_reason(read_ct, {releases}, enqueued_at, headers, $7, $8, $9) IS NOT NULL"
	" ORDER BY msg_id LIMIT $1",
	READ_ARGS(TIMESTAMPTZOID)
};

static void
find_dead(ReadRequest *request, TimestampTz moment)
{
	Datum		values[PLAN_MAX_ARGS] = {0};
	bool		nulls[PLAN_MAX_ARGS];
	ValueList  *list = result_values(INT8OID);
	const NullableDatum *ids;
	uint64		count;
	uint64		i;

	memset(nulls, true, sizeof(nulls));
	values[0] = Int64GetDatum(SURVEY_MAX_DEAD);
	values[2] = TimestampTzGetDatum(moment);
	nulls[0] = nulls[2] = false;
	survey_rule_args(&request->rule, &values[6], &nulls[6]);
	plan_run_leaf(&request->name, &find_dead_plan, NULL, request->variant, values, nulls,
				  result_values_dest(list));
	count = Min(result_values_got(list, &ids), SURVEY_MAX_DEAD);
	for (i = 0; i < count; i++)
		request->survey.dead_ids[request->survey.dead++] = DatumGetInt64(ids[i].value);
	request->survey.all_dead = (int64) count;
}

/* Before an attempt: whether messages of the queue can be dead, and how its statements know */
void
dead_prepare(ReadRequest *request, Horizon *h, TimestampTz moment)
{
	request->stated = request->stopped = false;
	request->variant = LIVE_ANY;
	request->rule = policy_rule(request->policy, moment);
	if ((request->policy->set & POLICY_DEAD) == 0)
		return;
	memset(&request->survey, 0, sizeof(request->survey));
	request->survey.budget = DEAD_BUDGET;
	request->variant = horizon_variant(h, &request->name);
	if (!horizon_is_known(h) && (request->unlimited || request->quantity > 0))
		find_dead(request, moment);
}

/* A read runs a statement at least once, even if it takes nothing: that raises the error of a missing privilege */
static void
raise_missing_privilege(ReadRequest *request, const PlanSpec *spec, Leaf *leaf)
{
	const HorizonRange nothing = {.leaf = leaf, .from = 1, .until = 0};

	(void) read_take(request, spec, 1, &nothing);
}

/*
 * Take up to "limit" messages that are live in a range.  The survey says how far the statement
 * may go.  If other readers were faster, go on behind what the survey has seen.  The next
 * call of a read that does not use the marks could not go on there.  So its statement
 * looks at all of the range.
 */
int64
dead_take_live(ReadRequest *request, Horizon *h, bool fresh, int64 limit, HorizonRange range, HorizonFinds *finds)
{
	const PlanSpec *spec = read_spec(request, fresh);
	Survey	   *s = &request->survey;
	int64		end = range.until;
	int64		taken = 0;
	int64		got;

	do
	{
		s->wanted = request->unlimited ? PG_INT64_MAX : limit - taken;
		if (!horizon_survey(h, &range, fresh, &request->rule, s) || !horizon_is_likely(h))
			return taken + read_take(request, spec, limit - taken, &range);
		finds->surveyed = true;
		finds->passed |= s->last_passed != PG_INT64_MIN;
		finds->stopped |= s->stopped;
		if (!fresh && taken == 0)
			finds->due_until = horizon_due_position(h, s->live > 0 ? s->first_live - 1 : s->reached);
		else if (!fresh && s->stopped)
			finds->due_until = horizon_due_position(h, s->reached);
		if (fresh)
			finds->fresh_highest = Max(finds->fresh_highest, s->last_passed);
		range.until = s->reached;
		got = 0;
		if (s->live > 0)
			got = read_take(request, spec, limit - taken, &range);
		else if (!request->stated && (fresh || s->stopped))
			raise_missing_privilege(request, spec, range.leaf);
		taken += got;
		/* There can be more deferred messages at this vt */
		range.from = fresh || got == 0 ? s->reached + 1 : s->reached;
		range.until = end;
	} while (s->live > 0 && !s->stopped && s->reached < end && (request->unlimited || taken < limit));
	return taken;
}

/* The call has spent its time.  If that was in a sweep, messages can be available at the marks. */
bool
dead_turn_to_marks(ReadRequest *request, Horizon *h)
{
	request->survey.budget = DEAD_BUDGET_MARKS;
	return horizon_turn_to_marks(h);
}

/*
 * Move the dead messages that the looks have found; how many were tried.  If there are any,
 * the move has locks, which belong to the transaction now.
 */
int64
dead_move(ReadRequest *request, Horizon *h, TimestampTz moment, int64 got)
{
	const Survey *s = &request->survey;

	if (request->variant == LIVE_ANY || (s->all_dead == 0 && !request->stopped))
		return 0;
	if (request->waiting && got == 0)
	{
		request->left_dead = true;
		horizon_leave(h, request->stopped ? PAUSE_STOPPED : 0);
		return 0;
	}
	if (s->dead == 0)
		return 0;
	(void) move_dead(&request->name, request->policy, moment, s->dead_ids, s->dead);
	return s->dead;
}
