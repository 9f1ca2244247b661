/*
 * receive.c
 *	  Hand out events of a subscription: pgmq.receive().
 *
 * r1  Find the end of the log, and take a snapshot.
 * r2  Read the states of all shards by it.  For each that is free, find its next event below the end.
 * r3  Of these, take the shard with the lowest next event whose mutex is free.  Without waiting: if another session is at
 *	   work on a shard, the next one is tried.
 * r4  Under the mutex read the state once more, by a new snapshot.  Another session may have leased the shard, or moved
 *	   it, meanwhile.
 * r5  Read the events, with the rights of the caller.  Write the new state, with a new lease.
 *
 * A look (streamwait.c) makes r1 and r2, and asks of each choice whether its mutex is taken, without taking it.  It is
 * there if the caller may see one of its events.
 *
 * Steps r1 and r2 write nothing and need no transaction id.  The end is computed before each snapshot.  A lease is a random
 * number, so nothing must remember which were issued.  It has 53 bits, because some clients keep numbers as doubles.
 */
#include "pgmq.h"

#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "wait/wait.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_receive);

/* A shard that may have something */
typedef struct Choice
{
	int			shard;
	int64		next_id;
} Choice;

/* A receive at work */
typedef struct Receive
{
	const ReceiveRequest *request;
	StreamLog	log;
	Positions	positions;
	int64		last_id;
	int64		end;
	TimestampTz next;			/* the first lease is over */
	Choice		choices[MAX_SHARDS];
	int			nchoices;
} Receive;

static void
require_subscription(const Receive *receive, bool found)
{
	if (!found)
		subscription_is_missing(&receive->request->name, receive->request->subscription);
}

/* Positions are ids that were drawn once; perhaps after this call has found the end */
static void
check_position(const Receive *receive, const ShardState *state)
{
	int64		highest = state_highest(state);

	if (highest > receive->last_id && highest > end_last_id(&receive->log))
		end_refuse_sequence(&receive->log,
							psprintf("Its last value is " INT64_FORMAT ", and subscription \"%s\" has passed event " INT64_FORMAT ".",
									 end_last_id(&receive->log), receive->request->subscription, highest));
}

/* Whether no session has the shard */
static bool
is_free(Receive *receive, const ShardState *state, TimestampTz now)
{
	if (state_is_free(state, now))
		return true;
	receive->next = Min(receive->next, state->leased_until);
	return false;
}

static int
compare_choices(const void *a, const void *b)
{
	return pg_cmp_s64(((const Choice *) a)->next_id, ((const Choice *) b)->next_id);
}

/* r2 */
static void
find_choices(Receive *receive)
{
	TimestampTz now = GetCurrentTimestamp();
	Snapshot	snapshot;
	int			shard;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	receive->nchoices = 0;
	for (shard = 0; shard < receive->log.shards; shard++)
	{
		ShardState	state;
		FoundEvent	next;

		require_subscription(receive, state_read(&receive->positions, shard, snapshot, &state));
		check_position(receive, &state);
		if (is_free(receive, &state, now) && state.passed_id < receive->end - 1 &&
			log_next(&receive->log, snapshot, shard, state.passed_id + 1, receive->end - 1, &next))
			receive->choices[receive->nchoices++] = (Choice) {shard, next.id};
	}
	UnregisterSnapshot(snapshot);
	qsort(receive->choices, receive->nchoices, sizeof(Choice), compare_choices);
}

/* r5; how many events */
static int64
take_events(Receive *receive, ShardState *state)
{
	const ReceiveRequest *request = receive->request;
	ShardState	old = *state;
	int64		lease = (int64) (pg_prng_uint64(&pg_global_prng_state) >> 11);
	int64		count;

	events_lease(request->events, &old, lease);
	count = events_read(&receive->log, state->shard, state->passed_id + 1, receive->end - 1, request->qty,
						request->events);
	if (count == 0)
		return 0;
	state->leased = true;
	state->lease = lease;
	state->leased_until = GetCurrentTimestamp() + request->vt * USECS_PER_SEC;
	state->leased_id = events_last_id(request->events);
	state_count_attempt(state, state->leased_id);
	state_write(&receive->positions, state);
	held_due(&request->name, request->subscription, state->leased_until);
	return count;
}

/* r3 to r5, for one shard */
static int64
try_shard(Receive *receive, const Choice *choice)
{
	ShardState	state;
	int64		count = 0;
	bool		free;

	if (!state_lock(&receive->positions, choice->shard, false))
		return 0;
	require_subscription(receive, state_read_latest(&receive->positions, choice->shard, &state));
	check_position(receive, &state);
	free = is_free(receive, &state, GetCurrentTimestamp());
	if (free)
		count = take_events(receive, &state);
	/*
	 * If the shard is free, its events are hidden by row-level security.  Two sessions from which they are hidden must not
	 * call each other again and again.
	 */
	if (count == 0)
		state_unlock(&receive->positions, choice->shard, !free);
	return count;
}

/* Whether a receive would get events of the shard */
static int64
look_at_shard(Receive *receive, const Choice *choice)
{
	if (state_is_locked(&receive->positions, choice->shard))
		return 0;
	return events_read(&receive->log, choice->shard, choice->next_id, receive->end - 1, 1, NULL);
}

/*
 * When there is a reason for another attempt.  If all shards were seen, up to the last event, only a lease that is over
 * or a transaction that ends gives something.
 */
static void
set_outlook(const Receive *receive, uint64 ended, Outlook *outlook)
{
	outlook->next = receive->next;
	outlook->conclusive = true;
	outlook->thorough = receive->nchoices == 0 && receive->end > receive->last_id;
	outlook->ended = ended;
}

/* The caller may receive events of the subscription. */
void
receive_check_rights(const ReceiveRequest *request)
{
	subscription_require(&request->name, request->subscription);
	rights_require_select(queue_relid(&request->name, STREAM_TABLE), NULL, 0);
}

/*
 * How many events; they go to the set of the request.  If that is NULL, it is a look: whether there is an event.
 * "outlook" may be NULL.  The caller has connected to SPI.
 */
int64
receive_attempt(const ReceiveRequest *request, Outlook *outlook)
{
	Receive		receive = {.request = request, .next = DT_NOEND};
	uint64		ended = transactions_ended();
	int64		count = 0;
	int			i;

	receive_check_rights(request);
	receive.end = log_open_to_end(&request->name, &receive.log, &receive.last_id);
	positions_open(&request->name, request->subscription, &receive.positions);
	find_choices(&receive);
	for (i = 0; i < receive.nchoices && count == 0 && request->qty > 0; i++)
		count = request->events ? try_shard(&receive, &receive.choices[i]) : look_at_shard(&receive, &receive.choices[i]);
	if (outlook != NULL)
		set_outlook(&receive, ended, outlook);
	positions_close(&receive.positions);
	log_close(&receive.log);
	return count;
}

/* The first four arguments of each form of receive().  Call before SPI_connect(). */
void
receive_from_args(FunctionCallInfo fcinfo, ReceiveRequest *request)
{
	request->events = events_set(fcinfo);
	stream_from_arg(fcinfo, 0, &request->name);
	request->subscription = subscription_from_arg(fcinfo, 1);
	if (PG_ARGISNULL(2) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("vt and qty must not be NULL")));
	request->vt = PG_GETARG_INT32(2);
	request->qty = PG_GETARG_INT32(3);
	if (request->vt < 0 || request->qty < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("vt and qty must not be negative")));
}

/* pgmq.receive(stream_name text, subscription text, vt integer, qty integer) -> SETOF pgmq.event_record */
Datum
pgmq_receive(PG_FUNCTION_ARGS)
{
	ReceiveRequest request;

	receive_from_args(fcinfo, &request);
	PreventCommandIfReadOnly("pgmq.receive()");
	SPI_connect();
	(void) receive_attempt(&request, NULL);
	SPI_finish();
	return (Datum) 0;
}
