/*
 * overflow.c
 *	  A queue does not grow beyond its max_length.
 *
 * A send that has no room is refused, or makes room: then the messages go that a read would
 * hand out next.  Messages that are leased, delayed or locked stay, so a queue of nothing
 * else refuses the send.
 *
 * 1. A sender need have no right to remove messages.  So they are found, locked and removed as
 *	  the owner of the queue (move.c).  That is no subtransaction of its own.  A row that one
 *	  transaction locks and a part of it deletes has a multixact, which each later look has to
 *	  read.  If the removal fails, so does the send.
 * 2. A queue that is far too long, because the limit is new, is not emptied by one send:
 *	  each removes DROP_MORE more than it needs, at most.
 * 3. What was removed makes room at once, so that senders do not each remove messages for what
 *	  the others are sending.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "message/message.h"

#define DROP_MORE 100

/*
 * A scan without an upper bound compares all keys of its page of the index.  The oldest messages are
 * mostly the first behind the floor.  So a look tries these first: so many more ids than it needs.
 */
#define MORE_IDS 16

/* How often a send tries to make room, and microseconds between two tries */
#define DROP_TRIES 20
#define DROP_PAUSE 5000

/* As in a read: $1 how many, $2 and $3 where */

static const PlanSpec oldest_due = {
	PLAN_DROP_OLDEST_DUE,
	"SELECT msg_id FROM {queue} WHERE vt OPERATOR(pg_catalog.<>) enqueued_at"
	" AND vt OPERATOR(pg_catalog.>=) $2 AND vt OPERATOR(pg_catalog.<=) $3{leaf}"
	" ORDER BY vt, msg_id LIMIT $1 FOR UPDATE SKIP LOCKED",
	3, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static const PlanSpec oldest_fresh = {
	PLAN_DROP_OLDEST_FRESH,
	"SELECT msg_id FROM {queue} WHERE vt OPERATOR(pg_catalog.=) enqueued_at"
	" AND msg_id OPERATOR(pg_catalog.>=) $2 AND msg_id OPERATOR(pg_catalog.<=) $3{leaf}"
	" ORDER BY msg_id LIMIT $1 FOR UPDATE SKIP LOCKED",
	3, {INT8OID, INT8OID, INT8OID}
};

static const PlanSpec oldest_by_id = {
	PLAN_DROP_OLDEST_BY_ID,
	"SELECT msg_id FROM {queue}"
	" WHERE vt OPERATOR(pg_catalog.<=) $3 OR vt OPERATOR(pg_catalog.=) enqueued_at"
	" ORDER BY msg_id LIMIT $1 FOR UPDATE SKIP LOCKED",
	3, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

typedef struct Drop
{
	const QueueName *name;
	TimestampTz now;
	ValueList  *ids;
} Drop;

/* ---- which messages go ---- */

static int64
lock_oldest(Drop *drop, const PlanSpec *spec, int64 limit, const HorizonRange *range)
{
	Datum		values[PLAN_MAX_ARGS];
	bool		nulls[PLAN_MAX_ARGS] = {false};

	/* A statement that locks all partitions may wait for us; then this one is left out */
	if (range->leaf != NULL && !leaf_lock_at_once(range->leaf))
		return 0;
	values[0] = Int64GetDatum(limit);
	values[1] = Int64GetDatum(range->from);
	values[2] = Int64GetDatum(range->until);
	return (int64) plan_run_leaf(drop->name, spec, range->leaf, LIVE_ANY, values, nulls,
								 result_values_dest(drop->ids));
}

static int64
lock_fresh(Drop *drop, int64 limit, HorizonRange range)
{
	int64		until = range.until;
	int64		found = 0;

	if (range.from >= 0 && until - range.from > limit + MORE_IDS)
	{
		range.until = range.from + limit + MORE_IDS;
		found = lock_oldest(drop, &oldest_fresh, limit, &range);
		range.from = range.until + 1;
		range.until = until;
	}
	if (found < limit)
		found += lock_oldest(drop, &oldest_fresh, limit - found, &range);
	return found;
}

/* The same order as that of a read without priority */
static int64
look(Drop *drop, Horizon *h, int64 wanted)
{
	HorizonFinds finds = {.fresh_highest = PG_INT64_MIN, .due_until = drop->now};
	HorizonRange range = {.from = DT_NOBEGIN, .until = drop->now};

	if (horizon_is_by_id(h))
		return lock_oldest(drop, &oldest_by_id, wanted, &range);
	while (finds.messages < wanted && horizon_next_due(h, drop->now, &range))
		finds.messages += lock_oldest(drop, &oldest_due, wanted - finds.messages, &range);
	while (finds.messages < wanted && horizon_next_fresh(h, wanted - finds.messages, &range))
		finds.messages += lock_fresh(drop, wanted - finds.messages, range);
	horizon_found(h, &finds);
	return finds.messages;
}

/* From the floors, because the marks are for reads */
static int
find_oldest(void *arg, bool written_before, int most, int64 *ids)
{
	Drop	   *drop = arg;
	Horizon    *h = horizon_begin(drop->name, QUEUE_TABLE, false, !written_before);
	const NullableDatum *values;
	int64		found = 0;
	int			i;

	drop->ids = result_values(INT8OID);
	do
		found += look(drop, h, most - found);
	while (found < most && horizon_look_again(h));
	horizon_end(h, (uint64) found);
	(void) result_values_got(drop->ids, &values);
	for (i = 0; i < found; i++)
		ids[i] = DatumGetInt64(values[i].value);
	return (int) found;
}

/* Remove the oldest messages, up to so many; how many */
static int64
drop_oldest(const QueueName *name, const QueuePolicy *policy, int64 wanted)
{
	Drop		drop = {.name = name, .now = GetCurrentTimestamp() - 1};
	MoveOrder	order = {.name = name, .policy = policy, .now = drop.now, .reason = MOVED_OVERFLOW,
	.waits = true, .deletes = true, .find = find_oldest, .find_arg = &drop};

	return move_messages(&order, NULL, (int) wanted);
}

/* ---- before a send ---- */

static void
refuse(const QueueName *name, const QueuePolicy *policy, int64 count)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("queue \"%s\" is full", name->canonical),
			 errdetail_plural("It has no room for " INT64_FORMAT " more message: its max_length is " INT64_FORMAT ".",
							  "It has no room for " INT64_FORMAT " more messages: its max_length is " INT64_FORMAT ".",
							  (unsigned long) count, count, policy->max_length),
			 errhint("Send again when messages have been finished, or raise max_length with pgmq.set_policy().")));
}

static int64
messages_in(const Outgoing *out)
{
	ArrayType  *messages;

	if (!out->many || out->nulls[0])
		return 1;
	messages = DatumGetArrayTypeP(out->values[0]);
	return ArrayGetNItems(ARR_NDIM(messages), ARR_DIMS(messages));
}

/*
 * Remove up to "wanted" messages, at least "needed"; how many.  Other senders and readers lock
 * messages for a moment: if too few are left, this one tries again for a tenth of a second.
 */
static int64
make_room(const QueueName *name, const QueuePolicy *policy, int64 needed, int64 wanted)
{
	int64		removed = 0;
	int			tries;

	for (tries = 0; tries < DROP_TRIES; tries++)
	{
		if (tries > 0)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(DROP_PAUSE);
		}
		removed += drop_oldest(name, policy, wanted - removed);
		if (removed >= needed)
			break;
		wanted = needed;
	}
	return removed;
}

/* There is room for what a send sends, or it is refused */
void
overflow_check(const QueueName *name, const QueuePolicy *policy, const Outgoing *out)
{
	int64		count;
	int64		over;
	int64		removed;

	if ((policy->set & POLICY_MAX_LENGTH) == 0)
		return;
	count = messages_in(out);
	over = length_reserve(name, policy, count, false);
	if (over == 0)
		return;
	if (!policy->drop_oldest || count > policy->max_length)
		refuse(name, policy, count);
	removed = make_room(name, policy, Min(over, count), Min(over, count + DROP_MORE));
	if (removed < Min(over, count))
		refuse(name, policy, count);
	(void) length_reserve(name, policy, count, true);
	length_removed(name, policy, removed, true);
}
