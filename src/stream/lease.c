/*
 * lease.c
 *	  What the holder of a lease does with it: advance(), extend_lease(), return_lease().
 *
 * Each takes the mutex of the shard first, and waits for it.  Then it compares the lease with the newest state, at every
 * isolation level.  So a lease that is not the last one issued moves nothing, and nothing is lost to a transaction that
 * was open.  A call that changes nothing releases the mutex.
 */
#include "pgmq.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "wait/wait.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_advance);
PG_FUNCTION_INFO_V1(pgmq_extend_lease);
PG_FUNCTION_INFO_V1(pgmq_return_lease);

/* One call: the shard is locked, and its state read */
typedef struct LeaseCall
{
	QueueName	name;
	Positions	positions;
	ShardState	state;
	bool		current;		/* the lease is the last one issued */
} LeaseCall;

static void
require_args(FunctionCallInfo fcinfo)
{
	int			i;

	for (i = 2; i < PG_NARGS(); i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("arguments must not be NULL")));
	}
}

/* All begin with stream, subscription and shard */
static void
begin(FunctionCallInfo fcinfo, int64 lease, LeaseCall *call)
{
	int			shard = PG_GETARG_INT32(2);
	char	   *subscription = subscription_from_arg(fcinfo, 1);
	int			shards;

	PreventCommandIfReadOnly("a change of a lease");
	SPI_connect();
	subscription_require(&call->name, subscription);
	shards = stream_shards(&call->name);
	if (shard < 0 || shard >= shards)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no shard %d", call->name.canonical, shard),
				 errhint("Its shards are 0 to %d.", shards - 1)));
	positions_open(&call->name, subscription, &call->positions);
	(void) state_lock(&call->positions, shard, true);
	if (!state_read_latest(&call->positions, shard, &call->state))
		subscription_is_missing(&call->name, subscription);
	call->current = call->state.leased && call->state.lease == lease;
}

/* The new state is written; or nothing has changed */
static void
end(LeaseCall *call, bool changed)
{
	if (changed)
	{
		state_write(&call->positions, &call->state);
		held_changed(&call->name, call->positions.subscription);
	}
	else
		state_unlock(&call->positions, call->state.shard, true);
	positions_close(&call->positions);
	SPI_finish();
}

/*
 * pgmq.advance(stream_name text, subscription text, shard integer, event_id bigint, lease bigint) -> boolean
 *
 * Events up to this one are done.
 */
Datum
pgmq_advance(PG_FUNCTION_ARGS)
{
	LeaseCall	call;
	int64		event_id;
	bool		done;
	bool		moves;

	stream_from_arg(fcinfo, 0, &call.name);
	require_args(fcinfo);
	event_id = PG_GETARG_INT64(3);
	begin(fcinfo, PG_GETARG_INT64(4), &call);
	if (call.current && event_id > call.state.leased_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event " INT64_FORMAT " lies beyond the events that were received with this lease", event_id),
				 errdetail("The last of them is " INT64_FORMAT ".", call.state.leased_id)));
	done = call.current && event_id >= call.state.passed_id;
	moves = done && event_id > call.state.passed_id;
	if (moves)
	{
		state_pass(&call.state, event_id);
		if (event_id == call.state.leased_id)
			state_end_lease(&call.state);
	}
	end(&call, moves);
	PG_RETURN_BOOL(done);
}

/*
 * pgmq.extend_lease(stream_name text, subscription text, shard integer, lease bigint, vt integer) -> boolean
 *
 * The lease ends so many seconds from now.
 */
Datum
pgmq_extend_lease(PG_FUNCTION_ARGS)
{
	LeaseCall	call;
	int			vt;

	stream_from_arg(fcinfo, 0, &call.name);
	require_args(fcinfo);
	vt = PG_GETARG_INT32(4);
	if (vt < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("vt must not be negative")));
	begin(fcinfo, PG_GETARG_INT64(3), &call);
	if (call.current)
		call.state.leased_until = GetCurrentTimestamp() + vt * USECS_PER_SEC;
	end(&call, call.current);
	PG_RETURN_BOOL(call.current);
}

/*
 * pgmq.return_lease(stream_name text, subscription text, shard integer, lease bigint) -> boolean
 *
 * The shard is free at once.  What was received with the lease counts as received.
 */
Datum
pgmq_return_lease(PG_FUNCTION_ARGS)
{
	LeaseCall	call;

	stream_from_arg(fcinfo, 0, &call.name);
	require_args(fcinfo);
	begin(fcinfo, PG_GETARG_INT64(3), &call);
	if (call.current)
		state_end_lease(&call.state);
	end(&call, call.current);
	PG_RETURN_BOOL(call.current);
}
