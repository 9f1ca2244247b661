/*
 * deadrun.c
 *	  The dead messages at the beginning of a group, a "run": they are moved, in order, by
 *	  the read that finds them, and the group goes on with the next message.
 *
 * A read takes a dead message as it takes a live one.  It locks the first message of the group,
 * and looks again whether it is the first (R3 of front.c).  It goes on as long as the next one is
 * available, can be locked at once, and is dead.  After the run it takes live ones.  A dead message
 * after a live one ends the front: the live one may have to be moved before it some day.  When all
 * looks are over, and no scan is open, the runs are moved.  Only then the live messages are handed
 * out, and only of groups whose runs were moved completely.
 *
 * ORDER.  The dead-letter queue gets the messages of a group in the order of their msg_id, as far
 * as grouped reads move them.  A message is moved only if every earlier one of its group is gone,
 * or is moved before it by the same transaction.  That has locked all of them.  While it is open,
 * its changes are in the way of every other look at the group.  So nothing after them is moved or
 * handed out before it has ended.  A rollback leaves the group as it was.
 *
 * FAILURES.  All runs are moved together.  If a message cannot be moved, it stays, with all that
 * follow in its group, and the others are moved without them.  move.c hides it, so it blocks its
 * group, as any delayed message does.  If the read has got nothing then, it looks again and leaves
 * groups alone that begin with a dead message.
 *
 * NOTES.  Moving deletes, so the trigger writes the verdict on the group (R2 of notes.c), after
 * the claim of the read, which it can repeat.  It may drop a note that the read wants to keep.  So
 * the read writes its own verdicts before the moves, and claims again for those that come after.
 * A read that hands out live messages after a run writes the notes of that group as always.
 *
 * A call moves so many messages at most (MOST_DEAD).  Then it skips the groups that begin
 * with dead ones, for a short time only.  Marks pass their notes, so that reads come to what is
 * behind them, and sweeps move the rest.
 */
#include "pgmq.h"

#include "nodes/pg_list.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "message/message.h"
#include "group/request.h"

/* How many messages a call moves at most, and how many it tries to move that cannot be moved */
#define MOST_DEAD SURVEY_MAX_DEAD
#define MOST_FAILURES 10

/* A message of a run */
typedef struct DeadMessage
{
	int64		msg_id;
	Front	   *front;
} DeadMessage;

/* Microseconds: how long a call looks for others after it has met more; when waiting sessions look again */
#define TIME_TO_PASS INT64CONST(5000)
#define LOOK_AGAIN_IN 1000
#define LOOK_AGAIN_AFTER_FAILURE 100000

static void
begin_to_pass(GroupRequest *request)
{
	if (request->deadline == 0)
		request->deadline = ticks() + TIME_TO_PASS;
}

/* Whether a group that begins with a dead message can have its turn in this call */
bool
run_may_begin(GroupRequest *request)
{
	if (!request->moves_nothing && request->ndead < MOST_DEAD)
		return true;
	begin_to_pass(request);
	request->passed = true;
	request->look_in = Max(request->look_in, LOOK_AGAIN_IN);
	return false;
}

static bool
next_is_available(GroupRequest *request, GroupScan *scan, Peeked *peeked)
{
	return front_next(scan, peeked) && peeked_is_available(peeked, request->moment);
}

/*
 * R3 for all that was locked: another message may have come in between.  How many of the
 * messages are the first ones of the group; "live" is the last one, NULL: there is none.
 */
static int
count_first(GroupRequest *request, const Front *front, const Peeked *live)
{
	int			count = front->ndead + (live != NULL);
	GroupStart	start;
	GroupScan  *scan;
	Peeked		again;
	int			n;

	starts_find(&request->queue, front->key, &start);
	scan = front_begin(&request->queue, front->key, start.from);
	for (n = 0; n < count; n++)
	{
		if (!front_next(scan, &again) || peeked_is_busy(&again) ||
			again.msg_id != (n < front->ndead ? front->dead[n] : live->msg_id))
			break;
	}
	front_end(scan);
	return n;
}

/*
 * Take the run that begins with "first", which is locked and the first message of its group.
 * The front's scan stands behind it.  Takes the live message after the run, too.
 */
bool
run_take(GroupRequest *request, Front *front, const Peeked *first)
{
	GroupQueue *queue = &request->queue;
	Peeked		peeked = *first;
	const Peeked *live = NULL;
	bool		locked = true;
	int			n;

	front->dead = palloc(sizeof(int64) * (MOST_DEAD - request->ndead));
	while (locked && peeked.dead)
	{
		front->dead[front->ndead++] = peeked.msg_id;
		locked = next_is_available(request, front->scan, &peeked) &&
			(!peeked.dead || request->ndead + front->ndead < MOST_DEAD) &&
			front_lock(queue, &peeked);
	}
	front_pause(front);
	if (locked)
		live = &peeked;
	n = count_first(request, front, live);
	if (n > front->ndead)
		front_add(front, live);
	front->ndead = Min(n, front->ndead);
	request->ndead += front->ndead;
	if (front->count == 0)
		(void) run_may_begin(request);	/* the rest of the run may have to wait */
	return front->ndead > 0;
}

/*
 * For a look that takes nothing: the first live message, if it comes right after a run.  If
 * there is none, a session that goes on waiting need not read: its last read moves the run.
 * Any other is told that there is something to read, and its read moves the run.
 */
bool
run_pass(GroupRequest *request, const text *key, const Peeked *first, Peeked *live)
{
	GroupScan  *scan = front_begin(&request->queue, key, first->msg_id + 1);
	int			passed = 0;
	bool		found;

	do
		found = next_is_available(request, scan, live);
	while (found && live->dead && ++passed < MOST_DEAD);
	front_end(scan);
	if (!found)
	{
		begin_to_pass(request);
		*live = *first;
	}
	return found || !request->waiting;
}

/* ---- moving ---- */

static int
compare_dead(const void *a, const void *b)
{
	return pg_cmp_s64(((const DeadMessage *) a)->msg_id, ((const DeadMessage *) b)->msg_id);
}

/* The messages of all runs, by msg_id */
static int
list_dead(const GroupRequest *request, DeadMessage *messages)
{
	int			count = 0;
	ListCell   *lc;

	foreach(lc, request->runs)
	{
		Front	   *front = lfirst(lc);
		int			i;

		for (i = 0; i < front->ndead; i++)
			messages[count++] = (DeadMessage) {front->dead[i], front};
	}
	qsort(messages, count, sizeof(DeadMessage), compare_dead);
	return count;
}

/* Move them; the number of the first one that was not moved */
static int
move_list(const GroupRequest *request, const DeadMessage *messages, int count, bool *try_later)
{
	MoveOrder	order = {
		.name = &request->name, .policy = request->policy, .now = request->rule.now,
		.in_order = true, .try_later = try_later
	};
	int64		ids[MOST_DEAD];
	int			i;

	for (i = 0; i < count; i++)
		ids[i] = messages[i].msg_id;
	return (int) move_messages(&order, ids, count);
}

/* The verdict on a group whose run was not moved, or not to its end.  Triggers may have replaced what was claimed before. */
static void
judge_left(GroupRequest *request, Front *front)
{
	Claim		before = front->claim;

	notes_claim(&request->queue, front->key, NULL, &front->claim);
	front->claim.pause = Max(front->claim.pause, before.pause);
	(void) request_judge(request, &front->claim, front->key, before.late || front->claim.late);
}

/* The messages of a group from one on stay; the number of the others, which are moved to the front of the list */
static int
leave_group(GroupRequest *request, DeadMessage *messages, int count, Front *front)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		if (messages[i].front != front)
			messages[kept++] = messages[i];
	}
	request->unmoved = true;
	request->look_in = Max(request->look_in, LOOK_AGAIN_AFTER_FAILURE);
	request_withdraw(request, front);
	if (request->queue.notes != NULL)
		judge_left(request, front);
	return kept;
}

/* Move all runs.  Of groups where that is not possible, nothing is handed out. */
void
run_move_all(GroupRequest *request)
{
	DeadMessage messages[MOST_DEAD];
	DeadMessage *rest = messages;
	int			count = list_dead(request, messages);
	int			failures = 0;
	bool		try_later = false;

	if (count == 0)
		return;
	if (request->queue.notes != NULL)
		notes_write(&request->queue, &request->notes);
	front_lock_leaves(&request->queue);
	/* What this transaction deletes may come back: looks from here on may raise no start (starts.c) */
	request->queue.locked_before = true;
	while (count > 0)
	{
		int			moved = 0;

		if (!try_later && failures < MOST_FAILURES)
			moved = move_list(request, rest, count, &try_later);
		rest += moved;
		count -= moved;
		if (count > 0)
		{
			failures++;
			count = leave_group(request, rest, count, rest->front);
		}
	}
}

/* Move runs that were found without the index: messages in the order of their groups, which are locked. */
void
run_move_found(GroupRequest *request, const SlowMessage *messages, int count)
{
	Front	   *front = NULL;
	int			i;

	for (i = 0; i < count; i++)
	{
		if (front == NULL || messages[i].msg_id == messages[i].head)
		{
			front = palloc0(sizeof(Front));
			front->dead = palloc(sizeof(int64) * (count - i));
			request->runs = lappend(request->runs, front);
		}
		front->dead[front->ndead++] = messages[i].msg_id;
	}
	request->ndead = count;
	run_move_all(request);
	request->runs = NIL;
}
