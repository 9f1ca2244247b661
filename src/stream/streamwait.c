/*
 * streamwait.c
 *	  Wait for events of a subscription: pgmq.receive_with_poll() and pgmq.wait_stream().
 *
 * A session that waits makes the looks of a receive, and takes the mutex of a shard only if that has events.  So it has
 * no transaction id while it waits, and writes nothing.  What calls it is in held.c; a lease that will be over is in the
 * outlook of each attempt.
 *
 * An attempt reads by the latest snapshots.  So a session is called at every isolation level.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "wait/wait.h"
#include "message/message.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_receive_with_poll);
PG_FUNCTION_INFO_V1(pgmq_wait_stream);

#define DEFAULT_POLL_SECONDS 5

static bool
wait_for_events(const ReceiveRequest *request, WaitAttempt attempt, int64 timeout_ms, WakeEnd success)
{
	WaitRequest wait = {0};

	wait.queues = &request->name;
	wait.nqueues = 1;
	wait.attempt = attempt;
	wait.arg = unconstify(ReceiveRequest *, request);
	wait.timeout_ms = timeout_ms;
	wait.interval_ms = INT_MAX;
	wait.success = success;
	wait.picky = true;
	wait.subscription = request->subscription;
	return wait_for(&wait);
}

static int64
receive(void *arg, int queue, Outlook *outlook)
{
	int64		count;

	AcceptInvalidationMessages();	/* the stream may have been dropped */
	SPI_connect();
	count = receive_attempt(arg, outlook);
	SPI_finish();
	return count;
}

/*
 * pgmq.receive_with_poll(stream_name text, subscription text, vt integer, qty integer,
 *	 max_poll_seconds integer) -> SETOF pgmq.event_record
 */
Datum
pgmq_receive_with_poll(PG_FUNCTION_ARGS)
{
	ReceiveRequest request;
	int64		seconds = PG_ARGISNULL(4) ? DEFAULT_POLL_SECONDS : PG_GETARG_INT32(4);

	receive_from_args(fcinfo, &request);
	PreventCommandIfReadOnly("pgmq.receive_with_poll()");
	SPI_connect();
	receive_check_rights(&request);
	SPI_finish();
	if (request.qty == 0)
		seconds = 0;			/* there is nothing to wait for */
	(void) wait_for_events(&request, receive, seconds * 1000, WAKE_TOOK);
	return (Datum) 0;
}

/* One look, and with it the end of a transaction.  What it allocates must not add up. */
static int64
look(void *arg, int queue, Outlook *outlook)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "pgmq.wait_stream", ALLOCSET_DEFAULT_SIZES);
	int64		found;

	AcceptInvalidationMessages();
	MemoryContextSwitchTo(context);
	found = receive_attempt(arg, outlook);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	SPI_commit();
	return found;
}

/* pgmq.wait_stream(stream_name text, subscription text, timeout_ms integer, INOUT ready boolean) */
Datum
pgmq_wait_stream(PG_FUNCTION_ARGS)
{
	ReceiveRequest request = {.qty = 1};
	bool		ready;

	check_refuse_transaction(fcinfo, "pgmq.wait_stream", "pgmq.receive_with_poll");
	stream_from_arg(fcinfo, 0, &request.name);
	request.subscription = subscription_from_arg(fcinfo, 1);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	receive_check_rights(&request);
	ready = wait_for_events(&request, look, PG_ARGISNULL(2) ? CHECK_TIMEOUT_MS : PG_GETARG_INT32(2), WAKE_SAW);
	SPI_finish();
	return check_result_row(BOOLOID, BoolGetDatum(ready));
}
