/*
 * announcer.c
 *	  The background worker that announces, when an interval ends, what its
 *	  senders were kept silent about (announce.c).
 *
 * The first sender that stays silent asks the postmaster for the announcer of
 * its database; no preloading is needed.  The announcer leaves when it has had
 * nothing to do for a few seconds.  It runs no SQL, opens no table and holds no
 * snapshot: it only notifies.
 *
 * Why an announcer is never missing: a sender counts itself as committing first
 * and looks for the announcer then.  An announcer that wants to leave says so
 * first and looks for committing senders then.  Both do this under spinlocks,
 * so at least one sees the other.  A sender that finds no announcer to rely on
 * announces at once.
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
#define LOOK_UP INT64CONST(500000)		/* and checks so often whether a session waits for the database */
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

	bgworker_describe(&worker, "pgmq_announcer_main", "pgmq announcer", RESTART_AFTER);
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
 * Enter a new announcer into the list, for the caller to ask for, unless there
 * is one.  True if a sender can rely on the existing one.  It cannot if another
 * session is still asking for it, because that may fail, or if the announcer is
 * leaving.
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

/* The result of our request to the postmaster */
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

/* There is something to announce.  An announcer that is starting will see it.  Cannot fail. */
void
announcer_wake(AnnounceArea *area)
{
	Announcer  *announcer;
	Latch	   *latch;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, MyDatabaseId);
	latch = announcer != NULL ? announcer->latch : NULL;
	SpinLockRelease(&area->mutex);

	/* If it has just left, another process is woken, which is harmless. */
	if (latch != NULL)
		SetLatch(latch);
}

/* ---- the worker ---- */

/*
 * False if this announcer is not wanted: shared memory was made anew since it
 * was entered, or several starts could not connect, because the database is
 * gone.
 */
static bool
take_entry(AnnounceArea *area, const Assignment *me)
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
 * The entry belongs to this worker from take_entry() until clear_entry().  False if
 * it does not, for any reason.  Then another worker may run, and this one ends.
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
clear_entry(AnnounceArea *area, const Assignment *me)
{
	Announcer  *announcer;

	SpinLockAcquire(&area->mutex);
	announcer = find_announcer(area, me->db);
	if (announcer != NULL && announcer->id == me->id)
		announcer->db = InvalidOid;
	SpinLockRelease(&area->mutex);
}

/* Leave, unless a sender has just begun to rely on this announcer. */
static bool
retire(AnnounceArea *area, const Assignment *me)
{
	int64		due;

	if (!set_state(area, me, ANNOUNCER_LEAVING))
		return true;
	if (announce_outstanding(me->db, &due))
		return !set_state(area, me, ANNOUNCER_RUNNING);
	clear_entry(area, me);
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
 * Whether a session wants the database for itself, to drop, rename, move or
 * copy it.  Such a session holds a lock on it that keeps new sessions out, and
 * waits five seconds for the existing ones.
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

		/* An announcer that must end announces early rather than not at all. */
		notify(me->db, go || told_to_go != 0);

		if (announce_outstanding(me->db, &due))
			last_needed = now;
		else if ((go || told_to_go != 0 || now - last_needed >= LINGER) && retire(area, me))
			return;

		/* A sender takes long to commit.  If the server goes on, the postmaster starts us again. */
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
	if (area == NULL || !take_entry(area, &me))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(me.db, InvalidOid, BGWORKER_BYPASS_ALLOWCONN);

	/* Its commits need not be durable, and the lock of NOTIFY is held until they are written. */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);

	pgstat_report_activity(STATE_IDLE, NULL);

	if (!set_state(area, &me, ANNOUNCER_RUNNING))
		proc_exit(0);
	announce_taken(me.db, false);	/* what an earlier announcer has left half done */
	work(area, &me);
	proc_exit(0);
}
