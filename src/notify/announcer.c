/*
 * announcer.c
 *	  The background worker that announces, when an interval ends, what its
 *	  senders were kept silent about (announce.c).
 *
 * The first sender that stays silent has the postmaster start one for its
 * database; no preloading is needed.  It goes when there has been nothing to do
 * for a few seconds.  It runs no SQL, opens no table and holds no snapshot: all
 * it does is NOTIFY.
 *
 * That an announcer is never missing: a sender counts itself as committing
 * first and looks for the announcer then; an announcer that wants to go says
 * that it leaves first and looks for committing senders then.  Between the two
 * there are spinlocks, so at least one sees the other.  A sender that finds
 * nobody to count on announces at once.
 *
 * An announcer that fails or is killed is started again by the postmaster, and
 * goes on with what it finds in shared memory.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"

#include "base/base.h"
#include "notify/announce.h"

/* Microseconds */
#define LINGER INT64CONST(5000000)		/* stays so long without anything to do */
#define LOOK_UP INT64CONST(500000)		/* and looks so often whether it is in the way */
#define ASK_AGAIN INT64CONST(1000000)	/* after the postmaster had no place for it */

/* Seconds after which the postmaster starts a failed one again; and how often it may fail */
#define RESTART_AFTER 1
#define MAX_STARTS 5

#define CHANNELS_PER_TRANSACTION 64

/* What an announcer is told about itself, in bgw_extra */
typedef struct Assignment
{
	Oid			db;
	int64		id;
} Assignment;

/* The one that this session is asking the postmaster for; 0: none */
static int64 Asking = 0;

extern PGDLLEXPORT void pgmq_announcer_main(Datum main_arg);

/* ---- for senders ---- */

/* The caller holds the area's mutex. */
static Announcer *
find_announcer(AnnounceArea *area, Oid db)
{
	int			i;

	for (i = 0; i < MAX_ANNOUNCERS; i++)
	{
		if (area->announcers[i].db == db)
			return &area->announcers[i];
	}
	return NULL;
}

/* Have the postmaster start one; false if it has no place for it. */
static bool
register_announcer(int64 id)
{
	BackgroundWorker worker;
	Assignment	assignment;
	static bool complained = false;

	StaticAssertStmt(sizeof(Assignment) <= BGW_EXTRALEN, "assignment does not fit");
	memset(&assignment, 0, sizeof(assignment));
	assignment.db = MyDatabaseId;
	assignment.id = id;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_AFTER;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pgmq");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "pgmq_announcer_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "pgmq announcer");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "pgmq announcer");
	memcpy(worker.bgw_extra, &assignment, sizeof(assignment));
	if (RegisterDynamicBackgroundWorker(&worker, NULL))
		return true;
	if (!complained)
		ereport(LOG,
				(errmsg("pgmq cannot start a background worker, so it does not throttle notifications"),
				 errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
	complained = true;
	return false;
}

/*
 * Enter a new one into the list, for the caller to ask for, unless there is
 * one.  True if there is one to count on: not one that another session is
 * still asking for, because that may fail, nor one that leaves.
 */
static bool
find_or_enter(AnnounceArea *area)
{
	int64		now = ticks();
	int64		id = GetCurrentTimestamp();
	Announcer  *announcer;
	bool		there = false;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, MyDatabaseId);
	if (announcer != NULL)
		there = announcer->state == ANNOUNCER_REGISTERED || announcer->state == ANNOUNCER_RUNNING;
	else if (now >= area->not_before &&
			 (announcer = find_announcer(area, InvalidOid)) != NULL)
	{
		memset(announcer, 0, sizeof(*announcer));
		announcer->db = MyDatabaseId;
		announcer->id = Asking = id;
		announcer->state = ANNOUNCER_WANTED;
	}
	SpinLockRelease(&area->mutex);
	return there;
}

/* What has become of our asking */
static void
stop_asking(AnnounceArea *area, bool registered)
{
	Announcer  *announcer;
	int64		now = ticks();

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, MyDatabaseId);
	/* It may run already, or be gone again. */
	if (announcer != NULL && announcer->id == Asking && announcer->state == ANNOUNCER_WANTED)
	{
		if (registered)
			announcer->state = ANNOUNCER_REGISTERED;
		else
			announcer->db = InvalidOid;
	}
	if (!registered)
		area->not_before = now + ASK_AGAIN;
	SpinLockRelease(&area->mutex);
	Asking = 0;
}

/* Whether this database has an announcer; starts it if it hasn't. */
bool
announcer_is_there(AnnounceArea *area)
{
	bool		registered;

	if (find_or_enter(area))
		return true;
	if (Asking == 0)
		return false;
	registered = register_announcer(Asking);
	stop_asking(area, registered);
	return registered;
}

/* For after a rollback: an error may have come while we were asking.  Cannot fail. */
void
announcer_give_up_asking(AnnounceArea *area)
{
	if (Asking != 0)
		stop_asking(area, false);
}

/* There is something for it to do.  One that is on its way will see.  Cannot fail. */
void
announcer_wake(AnnounceArea *area)
{
	Announcer  *announcer;
	Latch	   *latch;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, MyDatabaseId);
	latch = announcer != NULL ? announcer->latch : NULL;
	SpinLockRelease(&area->mutex);

	/* If it has just gone, another process is woken: all can stand that. */
	if (latch != NULL)
		SetLatch(latch);
}

/* ---- the worker ---- */

/*
 * False if this one isn't wanted: shared memory is another than the one it was
 * entered in, or it could not connect several times: the database is gone.
 */
static bool
report_for_duty(AnnounceArea *area, const Assignment *me)
{
	Announcer  *announcer;
	bool		wanted;
	bool		hopeless;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, me->db);
	wanted = announcer != NULL && announcer->id == me->id;
	hopeless = wanted && announcer->starts++ >= MAX_STARTS;
	if (hopeless)
		announcer->db = InvalidOid;
	SpinLockRelease(&area->mutex);
	if (hopeless)
		announce_forget(me->db);
	return wanted && !hopeless;
}

/*
 * The entry is this worker's from report_for_duty() until strike_off().  False if it is
 * not, whatever the reason; then another worker may be at work, and this one ends.
 */
static bool
set_state(AnnounceArea *area, const Assignment *me, AnnouncerState state)
{
	Announcer  *announcer;
	bool		mine;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, me->db);
	mine = announcer != NULL && announcer->id == me->id;
	if (mine)
	{
		announcer->state = state;
		announcer->starts = 0;
		announcer->latch = MyLatch;
	}
	SpinLockRelease(&area->mutex);
	return mine;
}

static void
strike_off(AnnounceArea *area, const Assignment *me)
{
	Announcer  *announcer;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, me->db);
	if (announcer != NULL && announcer->id == me->id)
		announcer->db = InvalidOid;
	SpinLockRelease(&area->mutex);
}

/* Go, unless a sender has just come to count on us. */
static bool
retire(AnnounceArea *area, const Assignment *me)
{
	int64		due;

	if (!set_state(area, me, ANNOUNCER_LEAVING))
		return true;
	if (announce_outstanding(me->db, &due))
		return !set_state(area, me, ANNOUNCER_RUNNING);
	strike_off(area, me);
	return true;
}

static void
notify(Oid db, bool all)
{
	Channel		channels[CHANNELS_PER_TRANSACTION];
	int			n;
	int			i;

	while ((n = announce_take(db, all, channels, CHANNELS_PER_TRANSACTION)) > 0)
	{
		SetCurrentStatementStartTimestamp();
		pgstat_report_activity(STATE_RUNNING, "NOTIFY");
		StartTransactionCommand();
		for (i = 0; i < n; i++)
			Async_Notify(channels[i].name, NULL);
		CommitTransactionCommand();
		announce_taken(db, true);
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
	}
}

/*
 * Whether somebody wants the database for himself, to drop, rename, move or
 * copy it: he holds a lock on it that keeps new sessions out, and waits five
 * seconds for those that are there.
 */
static bool
in_the_way(void)
{
	LOCKTAG		tag;
	bool		free;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	free = LockAcquire(&tag, RowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
	CommitTransactionCommand();
	return !free;
}

static void
work(AnnounceArea *area, const Assignment *me)
{
	int64		last_needed = ticks();
	int64		next_look = 0;
	int64		told_to_go = 0;
	bool		go = false;

	for (;;)
	{
		int64		now = ticks();
		int64		due;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (ShutdownRequestPending && told_to_go == 0)
			told_to_go = now;
		if (now >= next_look)
		{
			go = in_the_way();
			next_look = now + LOOK_UP;
		}

		/* Who must go announces early rather than not at all. */
		notify(me->db, go || told_to_go != 0);

		if (announce_outstanding(me->db, &due))
			last_needed = now;
		else if ((go || told_to_go != 0 || now - last_needed >= LINGER) && retire(area, me))
			return;

		/* A sender is at its commit for long.  If the server goes on, the postmaster starts us again. */
		if (told_to_go != 0 && now - told_to_go >= LOOK_UP)
			proc_exit(1);

		due = Min(due, next_look);
		now = ticks();
		if (due > now)
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 (long) ((due - now + 999) / 1000), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
pgmq_announcer_main(Datum main_arg)
{
	AnnounceArea *area;
	Assignment	me;

	memcpy(&me, MyBgworkerEntry->bgw_extra, sizeof(me));
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	area = announce_area();
	if (area == NULL || !report_for_duty(area, &me))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(me.db, InvalidOid, BGWORKER_BYPASS_ALLOWCONN);

	/* Nothing that it writes has to last, and the lock of NOTIFY is held until it is written. */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);

	pgstat_report_activity(STATE_IDLE, NULL);

	if (!set_state(area, &me, ANNOUNCER_RUNNING))
		proc_exit(0);
	announce_taken(me.db, false);	/* what one before us has left half done */
	work(area, &me);
	proc_exit(0);
}
