/*
 * wait.c
 *	  The wait loop.  It is given something to try and knows no SQL.
 *
 * A wait ends because another session calls (board.c), because a message becomes due,
 * or because its time is over.  In addition one of the sessions that wait for a
 * queue, its leader, looks at intervals for messages that are not announced.  A
 * session without a place on the board cannot be called, and looks for itself.
 *
 * A look at intervals is left out while no transaction has ended since the last one,
 * if that was thorough: without a transaction there is no new message, announced or
 * not.  So waiting costs an idle server almost nothing.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "base/base.h"
#include "position/position.h"
#include "wait/wait.h"
#include "wait/board.h"
#include "wait/waiter.h"

/* setting: pgmq.recheck_interval, in milliseconds */
int			wait_recheck_interval = 1000;

/* A session that cannot be called looks this often, however long an interval was allowed. */
#define UNCALLED_INTERVAL_MS 100

/* How far ahead a thorough look may see, so that the next can be left out for as long */
#define LONGEST_FORESIGHT_MS 10000

#define MICROSECONDS(ms) ((ms) * INT64CONST(1000))

/* One queue of a wait */
typedef struct Watch
{
	int			place;			/* on the board, or WAKE_NOBODY */
	bool		look;			/* there is a reason to */
	bool		awake;			/* something was announced during the last look */
	bool		timed;			/* this session has the timer */
	int64		found;
	TimestampTz due;			/* sleep no longer */
	int64		next_look_ms;	/* the interval's end */
	bool		quiet;			/* there is no message until a transaction ends */
	Outlook		outlook;		/* what the last look said */
} Watch;

typedef struct Wait
{
	const WaitRequest *request;
	Watch	   *watches;		/* one for each queue */
	instr_time	start;
	int64		interval_ms;
} Wait;

/* By a monotonic clock */
static int64
elapsed_ms(const Wait *wait)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, wait->start);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

/* ---- sleeping ---- */

/* What pg_stat_activity shows.  Allocates, so not while on the board. */
static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("PgmqWait");
	return event;
}

/*
 * Also ends when the client has gone: a session whose connection is lost must
 * not take a message.  The set of events is the one with which the server reads
 * the client's commands.  It has places for the socket, the latch and the
 * postmaster's end.  Before each use it is told what to watch the socket for.
 */
static void
sleep_with_client(int64 ms)
{
	WaitEvent	event;

	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, WL_SOCKET_CLOSED, NULL);
	if (WaitEventSetWait(FeBeWaitSet, (long) ms, &event, 1, wait_event()) == 0)
		return;
	if (event.events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (event.events & WL_SOCKET_CLOSED)
		ClientConnectionLost = InterruptPending = true;
	if (event.events & WL_POSTMASTER_DEATH)
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("terminating connection due to unexpected postmaster exit")));
}

static void
sleep_for(int64 ms)
{
	ms = Min(ms, INT_MAX);
	if (FeBeWaitSet != NULL && WaitEventSetCanReportClosed())
		sleep_with_client(ms);
	else if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					   (long) ms, wait_event()) & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* ---- looking ---- */

/*
 * Try a queue.  If nothing has happened since the last look, this one looks further
 * ahead in time, so that the next ones can be left out.
 */
static void
try_queue(Wait *wait, int queue)
{
	Watch	   *watch = &wait->watches[queue];
	bool		still_quiet = watch->quiet && watch->outlook.ended == transactions_ended();
	int64		foresight_ms = wait->interval_ms;

	if (still_quiet)
		foresight_ms = Max(foresight_ms, LONGEST_FORESIGHT_MS);
	if (watch->place != WAKE_NOBODY)
		wake_look(watch->place);
	memset(&watch->outlook, 0, sizeof(watch->outlook));
	watch->outlook.until = GetCurrentTimestamp() + MICROSECONDS(foresight_ms);
	watch->outlook.next = DT_NOEND;
	watch->found = wait->request->attempt(wait->request->arg, queue, &watch->outlook);
	watch->quiet = watch->outlook.thorough;
	watch->next_look_ms = elapsed_ms(wait) + wait->interval_ms;
}

/* The interval begins when this session learns that it has the timer. */
static void
set_timed(const Wait *wait, Watch *watch, bool timed)
{
	if (timed && !watch->timed)
		watch->next_look_ms = elapsed_ms(wait) + wait->interval_ms;
	watch->timed = timed;
}

/* How long this queue lets us sleep: 0 if there is a reason to look */
static int64
time_to_sleep(const Wait *wait, Watch *watch)
{
	bool		timed = true;
	int64		ms;

	watch->due = watch->outlook.next;
	if (watch->place != WAKE_NOBODY)
		watch->awake = !wake_sleep(watch->place, &watch->outlook, &watch->due, &timed);
	if (watch->awake)
		return 0;
	set_timed(wait, watch, timed);
	if (!timed)
		return PG_INT64_MAX;
	ms = watch->next_look_ms - elapsed_ms(wait);
	if (watch->due != DT_NOEND)
	{
		int64		until_due = Max(watch->due - GetCurrentTimestamp(), 0);

		ms = Min(ms, (until_due + 999) / 1000);
	}
	return Max(ms, 0);
}

/* Whether the result of the last look is still complete */
static bool
nothing_new(const Watch *watch, TimestampTz now)
{
	return watch->quiet && now < watch->outlook.until &&
		watch->outlook.ended == transactions_ended();
}

/* Whether to look at this queue now; "over" says that this is the last chance. */
static bool
has_reason(const Wait *wait, Watch *watch, bool over)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		timed = true;

	if (watch->awake)
		return true;
	if (watch->place != WAKE_NOBODY)
	{
		if (wake_called(watch->place, &watch->due, &timed))
			return true;
		set_timed(wait, watch, timed);
	}
	if (!timed)
		return false;
	if (watch->due <= now)
		return true;
	if (!over && elapsed_ms(wait) < watch->next_look_ms)
		return false;
	if (!nothing_new(watch, now))
		return true;
	watch->next_look_ms = elapsed_ms(wait) + wait->interval_ms;
	return false;
}

/* One round over all queues: whether anything was found */
static bool
look_where_needed(Wait *wait)
{
	bool		found = false;
	int			i;

	for (i = 0; i < wait->request->nqueues; i++)
	{
		if (!wait->watches[i].look)
			continue;
		try_queue(wait, i);
		found |= wait->watches[i].found > 0;
	}
	return found;
}

/*
 * Sleep until there is a reason to look at one of the queues.  At the end of
 * the time, the queues whose messages are not announced to us get a last look.
 */
static void
sleep_until_needed(Wait *wait)
{
	bool		needed = false;
	int			i;

	while (!needed)
	{
		int64		ms = wait->request->timeout_ms - elapsed_ms(wait);
		bool		over;

		for (i = 0; i < wait->request->nqueues; i++)
			ms = Min(ms, time_to_sleep(wait, &wait->watches[i]));
		if (ms > 0)
			sleep_for(ms);
		else
			CHECK_FOR_INTERRUPTS();
		over = elapsed_ms(wait) >= wait->request->timeout_ms;
		for (i = 0; i < wait->request->nqueues; i++)
		{
			wait->watches[i].look = has_reason(wait, &wait->watches[i], over);
			needed |= wait->watches[i].look;
		}
		needed |= over;
	}
}

static bool
wait_loop(Wait *wait)
{
	for (;;)
	{
		if (look_where_needed(wait))
			return true;
		if (elapsed_ms(wait) >= wait->request->timeout_ms)
			return false;
		sleep_until_needed(wait);
	}
}

static bool
may_take(const WaitRequest *request, const QueueName *name)
{
	return request->subscription != NULL || horizon_may_take(queue_relid(name, QUEUE_TABLE));
}

/*
 * Before the first look: a session that can be called when it looks misses nothing.  A
 * wait inside another one (a trigger that reads) is not called.  A caller that may not
 * take messages gets an error from its first look.  It must neither use up a place nor
 * wake other sessions when it leaves.
 */
static void
join_all(Wait *wait)
{
	const WaitRequest *request = wait->request;
	bool		join = !request->unwakeable && request->timeout_ms > 0 && !wake_joined();
	int			i;

	for (i = 0; i < request->nqueues; i++)
	{
		Watch	   *watch = &wait->watches[i];

		if (join && may_take(request, &request->queues[i]))
			watch->place = wake_join(&request->queues[i], request, (int) wait->interval_ms);
		if (watch->place == WAKE_NOBODY)
			wait->interval_ms = Min(wait->interval_ms, UNCALLED_INTERVAL_MS);
	}
}

static void
leave_all(Wait *wait, bool failed)
{
	int			i;

	/* The last to join is the first in the session's list of places */
	for (i = wait->request->nqueues - 1; i >= 0; i--)
	{
		Watch	   *watch = &wait->watches[i];

		if (watch->place != WAKE_NOBODY)
			wake_leave(watch->place,
					   !failed && watch->found > 0 ? wait->request->success : WAKE_EMPTY,
					   watch->found, watch->outlook.next);
		watch->place = WAKE_NOBODY;
	}
}

/* Defaults, which NULL stands for; they are those of the PL/pgSQL extension */
#define DEFAULT_POLL_SECONDS 5
#define DEFAULT_POLL_INTERVAL_MS 100

/*
 * The request of a function that takes messages from one queue.  It has the
 * arguments max_poll_seconds and poll_interval_ms behind three others.
 */
void
wait_to_take(WaitRequest *request, FunctionCallInfo fcinfo, const QueueName *name,
			 WaitAttempt attempt, void *arg)
{
	int			max_seconds = PG_ARGISNULL(3) ? DEFAULT_POLL_SECONDS : PG_GETARG_INT32(3);

	memset(request, 0, sizeof(*request));
	request->queues = name;
	request->nqueues = 1;
	request->attempt = attempt;
	request->arg = arg;
	request->timeout_ms = max_seconds * INT64CONST(1000);
	request->interval_ms = PG_ARGISNULL(4) ? DEFAULT_POLL_INTERVAL_MS : PG_GETARG_INT32(4);
	request->success = WAKE_TOOK;
}

/*
 * Try until an attempt succeeds or the time is over; true if one did.  There is
 * always at least one attempt.
 */
bool
wait_for(const WaitRequest *request)
{
	Wait		wait;
	bool		found;
	int			i;

	wait.request = request;
	wait.watches = palloc0(sizeof(Watch) * request->nqueues);
	for (i = 0; i < request->nqueues; i++)
	{
		wait.watches[i].place = WAKE_NOBODY;
		wait.watches[i].look = wait.watches[i].timed = true;
	}
	wait.interval_ms = Min(Max(request->interval_ms, 1), wait_recheck_interval);
	INSTR_TIME_SET_CURRENT(wait.start);
	if (request->timeout_ms > 0)
		(void) wait_event();
	PG_TRY();
	{
		join_all(&wait);
		found = wait_loop(&wait);
	}
	PG_CATCH();
	{
		leave_all(&wait, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	leave_all(&wait, false);
	return found;
}
