/*
 * group.c
 *	  Hand out messages by groups: read_grouped, read_grouped_rr,
 *	  read_grouped_head and their waiting forms; and wait_grouped.
 *
 * Notes say which groups to look at (notes.c).  A read takes those that are due and the
 * oldest fresh ones, from where horizon.c says.  So it touches neither blocked groups,
 * whose notes are deferred, nor the messages after their first ones.  take.c says which
 * group comes first, and takes its messages.
 *
 * A waiting session would keep its writes to the end of its wait.  Its locks on the
 * queue and its notes would hold back their floors, and make DDL wait.  No other session
 * could see the notes that it has written.  So it looks first whether a group is
 * available, and reads only then.
 *
 * Without a group index statements on the whole queue do it (slowgroup.c).
 */
#include "pgmq.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "wait/wait.h"
#include "message/message.h"
#include "group/request.h"

PG_FUNCTION_INFO_V1(pgmq_read_grouped);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_with_poll);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_rr);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_rr_with_poll);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_head);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_head_with_poll);
PG_FUNCTION_INFO_V1(pgmq_wait_grouped);

/* With more notes of unavailable groups than this, looking at them every time costs more than writing */
#define MOST_UNAVAILABLE 64

/* $1 the messages, all locked; $2 now, $3 the end of the lease */
static const PlanSpec lease_messages = {
	PLAN_READ_GROUPED,
	"UPDATE {queue} SET read_ct = " NEXT_READ_CT ", last_read_at = $2, vt = $3"
	" WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1){leaf}"
	" RETURNING " MESSAGE_COLUMNS,
	3, {INT8ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/*
 * A late message may have been committed, together with its note, after we
 * checked for late notes.  Release its group.
 */
static void
check_late(GroupRequest *request)
{
	int			kept = 0;
	int			i;

	if (request->nfronts == 0 || !notes_any_late(&request->queue, NULL))
		return;
	for (i = 0; i < request->nfronts; i++)
	{
		Front	   *front = request->fronts[i];
		TimestampTz until;

		if (!notes_any_late(&request->queue, front->key) ||
			!front_is_held_behind(&request->queue, front->key, &front->first, request->moment, &until))
			request->fronts[kept++] = front;
		else
		{
			request->total -= front->count;
			request_release(request, front, until);
		}
	}
	request->nfronts = kept;
}

/* Groups without a note: take them, or add notes for the next reads. */
static void
take_overlooked(GroupRequest *request, List *overlooked)
{
	ListCell   *lc;

	foreach(lc, overlooked)
	{
		const Note *note = lfirst(lc);
		int			nfronts = request->nfronts;

		if (request_wants(request) && !note->late)
			request_consider_anyway(request, note);
		if (request->nfronts == nfronts || request->check)
			notes_add(&request->notes, note->key, note->vt, note->head, note->late);
	}
}

/* Continue the sweep over all groups, if it is time */
static void
sweep(GroupRequest *request)
{
	SweepOccasion occasion = SWEEP_AFTER_FULL_READ;
	int64		enough = PG_INT32_MAX;

	/* This transaction cannot take what it does not see, and would hide its notes while it stays open */
	if (request->queue.fixed != NULL || XactReadOnly)
		return;
	if (request_wants(request))
	{
		occasion = request->waiting ? SWEEP_IN_WAIT : SWEEP_AFTER_SHORT_READ;
		if (!request->unlimited)
			enough = request->quantity;
	}
	take_overlooked(request, sweep_step(&request->queue, occasion, (int) enough));
}

/* ---- without a group index ---- */

/* The dead messages at the beginnings of groups; or ("check") whether there is one */
static void
move_slowly(GroupRequest *request)
{
	SlowMessage *messages;
	int			count = slow_messages(&request->queue, FILL, SLOW_DEAD, request->check ? 1 : SURVEY_MAX_DEAD,
									  request->moment, !request->check, &messages);

	if (request->check)
		request->total += count;
	else
		run_move_found(request, messages, count);
}

static void
read_slowly(GroupRequest *request)
{
	SlowMessage *messages;
	Front	   *front = NULL;
	int			count;
	int			i;

	group_forget_index(&request->queue);
	front_open_all(&request->queue);
	if (request->queue.rule != NULL && !request->moves_nothing)
		move_slowly(request);
	count = slow_messages(&request->queue, request->mode, request->queue.rule != NULL ? SLOW_LIVE : SLOW_ALL,
						  request->unlimited ? -1 : request->quantity, request->moment, !request->check, &messages);
	for (i = 0; i < count; i++)
	{
		Peeked		peeked = {.msg_id = messages[i].msg_id};

		if (front == NULL || messages[i].msg_id == messages[i].head)
		{
			front = palloc0(sizeof(Front));
			front->ended = true;
			front_add(front, &peeked);
			request_add_front(request, front);
		}
		else
		{
			front_add(front, &peeked);
			request->total++;
		}
	}
}

/* ---- handing out ---- */

/* The result of a round robin is in its order: all first messages, then all second ones ... */
static void
arrange(GroupRequest *request)
{
	int64	   *ids = palloc_extended(sizeof(int64) * (request->total + 1), MCXT_ALLOC_HUGE);
	int64		count = 0;
	int			rank;
	int			i;

	qsort(request->fronts, request->nfronts, sizeof(Front *), compare_fronts);
	for (rank = 0; count < request->total; rank++)
	{
		for (i = 0; i < request->nfronts; i++)
		{
			if (rank < request->fronts[i]->count)
				ids[count++] = request->fronts[i]->ids[rank];
		}
	}
	result_arrange(request->messages, ids, count);
}

/*
 * Lease what was taken.  One reading of the clock is used for all messages, so
 * that the leases of a group's messages end together.  It is made after the
 * queue's table was locked (floors.c).  False if row-level security or a trigger of a
 * user has excluded a message, or has shortened a lease.
 */
static bool
lease(GroupRequest *request, TimestampTz now)
{
	Datum	   *ids = palloc_extended(sizeof(Datum) * (request->total + 1), MCXT_ALLOC_HUGE);
	Datum		values[3];
	bool		nulls[3] = {false};
	int			count = 0;
	int			i;
	int			j;

	for (i = 0; i < request->nfronts; i++)
	{
		for (j = 0; j < request->fronts[i]->count; j++)
			ids[count++] = Int64GetDatum(request->fronts[i]->ids[j]);
	}
	values[0] = PointerGetDatum(construct_array(ids, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = TimestampTzGetDatum(now);
	values[2] = TimestampTzGetDatum(now + request->lease);
	nulls[2] = request->lease_null;
	front_close_indexes(&request->queue);	/* open.c says why */
	request->handed_out = (int64) route_by_id(&request->name, &lease_messages, values, nulls,
											  request->lease == 0, result_dest(request->messages));
	return request->handed_out == count &&
		result_earliest(request->messages) >= now + request->lease;
}

static void
hand_out(GroupRequest *request)
{
	TimestampTz now;
	bool		leased;
	int			i;

	run_move_all(request);
	now = GetCurrentTimestamp();
	leased = request->nfronts > 0 && !request->check && lease(request, now);
	if (request->queue.notes == NULL)
		return;
	/* If not, the unchanged notes say to look at these groups again */
	for (i = 0; leased && i < request->nfronts; i++)
	{
		const Front *front = request->fronts[i];

		notes_drop(&request->notes, &front->claim);
		notes_add(&request->notes, front->key, now + request->lease, front->ids[0], false);
	}
	notes_write(&request->queue, &request->notes);
}

/* False, and nothing is done, if an index of the notes is missing */
static bool
read_by_notes(GroupRequest *request)
{
	Horizon    *h = horizon_begin(&request->name, NOTES_TABLE, true,
								!request->queue.notes_locked_before);
	Oid			index;

	if (!horizon_indexes(h, &index, &index))
	{
		horizon_end(h, 1);
		return false;
	}
	request_forget_seen(request);
	(void) notes_any_late(&request->queue, NULL);
	do
		request_look(request, h);
	while (request_wants(request) && horizon_look_again(h));
	if (request_wants(request))
		request_consider_claimed(request);
	sweep(request);
	if (request->mode == ROUND_ROBIN)
		request_go_round(request);
	check_late(request);
	hand_out(request);
	request->look_in = Max(request->look_in, horizon_sweep_in(h));
	if (request->handed_out == 0 && request->queue.rule != NULL)
		horizon_took_nothing(h);
	horizon_end(h, request->nfronts + request->ndead);
	return true;
}

/* Reset the state of an attempt */
static void
begin_attempt(GroupRequest *request)
{
	request->max_fronts = 16;
	request->fronts = palloc(sizeof(Front *) * request->max_fronts);
	request->nfronts = 0;
	request->total = request->handed_out = request->look_in = 0;
	request->claimed = NIL;
	request->unavailable = 0;
	request->runs = NIL;
	request->ndead = 0;
	request->deadline = 0;
	request->unmoved = false;
	memset(&request->notes, 0, sizeof(request->notes));
	/* Row versions that this transaction has written before can be locked */
	CommandCounterIncrement();
	request->moment = GetCurrentTimestamp() - 1;
}

/*
 * A caller that may not take messages must not lock any.  The statement,
 * without any message to take, raises the error.
 */
static bool
may_read(const GroupRequest *request)
{
	return !XactReadOnly && !RecoveryInProgress() &&
		horizon_may_take(RelationGetRelid(request->queue.queue));
}

/*
 * When the clock gives a reason for another attempt.  Messages whose delay or
 * lease ends are in the queue's own index.  Notes that wait for an open
 * transaction are looked at again at intervals, and when it ends.
 */
static void
tell_outlook(GroupRequest *request, Outlook *outlook)
{
	Horizon    *h = horizon_begin(&request->name, QUEUE_TABLE, false, false);

	read_outlook(&request->name, h, request->moment, 0, outlook);
	outlook->thorough = false;
	if (request->look_in > 0)
	{
		outlook->conclusive = false;
		outlook->next = Min(outlook->next, GetCurrentTimestamp() + Max(request->look_in, 1000));
	}
	horizon_end(h, 0);
}

/* One attempt; returns how many messages it got, or how many groups it saw */
static int64
take_groups(GroupRequest *request, Outlook *outlook)
{
	bool		written;
	int64		got;

	horizon_move(&request->name);
	if (!group_open(&request->queue, &request->name, true))
	{
		queue_require(&request->name);
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the queue's table does not have the columns of a queue"),
				 errdetail("Groups are read from ordinary tables of the access method heap, and their partitions.")));
	}
	if ((request->policy->set & POLICY_DEAD) != 0)
	{
		request->rule = policy_rule(request->policy, request->moment);
		request->queue.rule = &request->rule;
	}
	if (!request->check)
		effect_taking(&request->name, PG_INT32_MAX);
	if (!request->check && !may_read(request))
		(void) lease(request, request->moment);
	else if (request->quantity < 0 && request->mode != ROUND_ROBIN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROW_COUNT_IN_LIMIT_CLAUSE),
				 errmsg("LIMIT must not be negative")));
	else if (request_wants(request) &&
			 (request->queue.notes == NULL || !read_by_notes(request)))
	{
		/* Finding the messages is all the work */
		if (request->check && request->waiting)
			request->unavailable = PG_INT32_MAX;
		else
		{
			read_slowly(request);
			hand_out(request);
		}
	}
	/* A rollback gives them back, the clock at the end of the lease */
	if (!request->check)
		effect_taken(&request->name, PG_INT32_MAX, request->total);
	if (request->handed_out > 0)
		effect_due(&request->name, GetCurrentTimestamp() + request->lease);
	if (request->mode == ROUND_ROBIN && request->total > 0)
		arrange(request);
	/* An empty read releases its lock, so that it holds up no floors (horizon.c) */
	written = request->queue.locked_before || TransactionIdIsValid(GetTopTransactionIdIfAny());
	group_close(&request->queue, written);
	got = request->check ? request->total : request->handed_out;
	if (got == 0 && outlook != NULL)
		tell_outlook(request, outlook);
	return got;
}

/* The same, as far as the policy of the queue allows it.  "outlook" may be NULL. */
static int64
request_run(GroupRequest *request, Outlook *outlook)
{
	bool		unlimited = request->unlimited;
	int64		quantity = request->quantity;
	int64		wanted = request->check ? 0 : request->unlimited ? PG_INT32_MAX : Max(request->quantity, 0);
	int64		lease = request->check || request->lease_null ? 1 : request->lease;
	Gate		gate;
	int64		got;

	queue_require_privilege(&request->name, ACL_UPDATE);
	SPI_connect();
	begin_attempt(request);
	if (!policy_gate(&request->name, wanted, lease, &gate))
		got = policy_gate_closed(&gate, outlook);
	else
	{
		if (gate.most < wanted)
		{
			request->unlimited = false;
			request->quantity = gate.most;
		}
		request->policy = gate.policy;
		request->moves_nothing = false;
		got = take_groups(request, outlook);
		if (got == 0 && request->unmoved)
		{
			request->moves_nothing = true;
			begin_attempt(request);
			got = take_groups(request, outlook);
		}
		policy_gate_done(&gate, got);
		request->unlimited = unlimited;
		request->quantity = quantity;
	}
	SPI_finish();
	return got;
}

/* Whether to look first: a read might be the transaction's first write, and the session then goes on waiting */
static bool
looks_first(const GroupRequest *request)
{
	Oid			relid = queue_relid(&request->name, QUEUE_TABLE);

	return request->waiting && request_wants(request) && request->quantity >= 0 &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		OidIsValid(relid) && !XactReadOnly && !RecoveryInProgress() && horizon_may_take(relid);
}

static int64
attempt(void *arg, int queue, Outlook *outlook)
{
	GroupRequest    *request = arg;
	GroupRequest		look = {
		.name = request->name, .mode = HEADS, .quantity = 1, .check = true, .waiting = true
	};

	if (!looks_first(request))
		return request_run(request, outlook);
	if (request_run(&look, outlook) > 0 || look.unavailable > MOST_UNAVAILABLE)
		return request_run(request, outlook);
	request->unavailable = look.unavailable;
	return 0;
}

/* How many groups a look counts: a session that sees more does not wake more sessions. */
#define CHECK_LIMIT 16

/*
 * How many groups could be handed out now, up to a limit.  Notes that others
 * have locked are handled as by a read.
 */
static int64
group_check(const QueueName *name, Outlook *outlook)
{
	GroupRequest		request;

	memset(&request, 0, sizeof(request));
	request.name = *name;
	request.mode = HEADS;
	request.quantity = CHECK_LIMIT;
	request.check = true;
	return request_run(&request, outlook);
}

static void
request_init(GroupRequest *request, FunctionCallInfo fcinfo, GroupMode mode)
{
	memset(request, 0, sizeof(*request));
	name_from_arg(fcinfo, 0, &request->name);
	request->mode = mode;
	if (!PG_ARGISNULL(2))
		request->quantity = PG_GETARG_INT32(2);
	else
		request->unlimited = mode == HEADS;
	request->lease_null = PG_ARGISNULL(1);
	if (!request->lease_null)
		request->lease = (int64) Max(PG_GETARG_INT32(1), 0) * USECS_PER_SEC;
	request->messages = result_messages(fcinfo);
}

static void
request_finish(GroupRequest *request)
{
	if (request->mode != ROUND_ROBIN)
		result_finish(request->messages);
}

static Datum
read_groups(FunctionCallInfo fcinfo, GroupMode mode)
{
	GroupRequest		request;

	request_init(&request, fcinfo, mode);
	request_run(&request, NULL);
	request_finish(&request);
	return (Datum) 0;
}

static Datum
wait_for_groups(FunctionCallInfo fcinfo, GroupMode mode)
{
	GroupRequest		request;
	WaitRequest wait;

	request_init(&request, fcinfo, mode);
	wait_to_take(&wait, fcinfo, &request.name, attempt, &request);
	wait.grouped = true;
	wait.picky = queue_hides_rows(&request.name);
	wait.unwakeable = IsolationUsesXactSnapshot() || !request_wants(&request);
	request.waiting = wait.timeout_ms > 0;
	/* Notes that were left as they are must not slow down all reads */
	if (!wait_for(&wait) && request.unavailable > 0)
	{
		request.waiting = false;
		request_run(&request, NULL);
	}
	request_finish(&request);
	return (Datum) 0;
}

/* pgmq.read_grouped(queue_name text, vt integer, qty integer) -> SETOF message_record */
Datum
pgmq_read_grouped(PG_FUNCTION_ARGS)
{
	return read_groups(fcinfo, FILL);
}

/* pgmq.read_grouped_rr(queue_name text, vt integer, qty integer) -> SETOF message_record */
Datum
pgmq_read_grouped_rr(PG_FUNCTION_ARGS)
{
	return read_groups(fcinfo, ROUND_ROBIN);
}

/* pgmq.read_grouped_head(queue_name text, vt integer, qty integer) -> SETOF message_record */
Datum
pgmq_read_grouped_head(PG_FUNCTION_ARGS)
{
	return read_groups(fcinfo, HEADS);
}

/*
 * pgmq.read_grouped_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer,
 *							   poll_interval_ms integer) -> SETOF message_record
 */
Datum
pgmq_read_grouped_with_poll(PG_FUNCTION_ARGS)
{
	return wait_for_groups(fcinfo, FILL);
}

/* pgmq.read_grouped_rr_with_poll(...) -> SETOF message_record; arguments as above */
Datum
pgmq_read_grouped_rr_with_poll(PG_FUNCTION_ARGS)
{
	return wait_for_groups(fcinfo, ROUND_ROBIN);
}

/* pgmq.read_grouped_head_with_poll(...) -> SETOF message_record; arguments as above */
Datum
pgmq_read_grouped_head_with_poll(PG_FUNCTION_ARGS)
{
	return wait_for_groups(fcinfo, HEADS);
}

/* pgmq.wait_grouped(queue_name text, timeout_ms integer, INOUT ready boolean) */
Datum
pgmq_wait_grouped(PG_FUNCTION_ARGS)
{
	return check_wait(fcinfo, "pgmq.wait_grouped", true, group_check);
}
