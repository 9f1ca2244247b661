/*
 * maintain.c
 *	  pgmq.maintain(): what is due for all queues and streams, a step at a time.
 *
 * 1. Each step is a transaction of its own.  It waits no longer than
 *	  pgmq.maintenance_lock_timeout for a lock, because sessions that use the
 *	  queue wait behind a lock that waits.  A step without its locks is tried
 *	  again a few times, and then left to the next call.
 * 2. A step that fails is a warning, and all others go on.  A step that takes
 *	  longer than pgmq.maintenance_step_timeout is cancelled, and fails.  Code
 *	  of an owner that ignores this ends the session: see step_is_late().
 * 3. Two sessions may call at the same time: each step takes a lock for the
 *	  table that it is for.  A session that does not get it at once goes on to
 *	  the next.
 * 4. The list of queues, and what is to be done for each, are read without a
 *	  statement, see queues.c and ownread.c.  The tables are checked first.  Their
 *	  contents are data that any role may have written.
 * 5. A step runs as the owner of its table, in a security-restricted operation,
 *	  with a fixed search path and time zone.  So code of that owner never runs
 *	  with the rights of the caller or of the background worker.  And a
 *	  partition belongs to the owner of its queue, not to the caller.
 * 6. The table is locked before its owner is read.  All of its partitions must
 *	  belong to the same owner, because code of each runs in the step.
 * 7. A superuser's queue is maintained only if the tables that tell what to do
 *	  belong to superusers, too.
 * 8. The background worker first goes through all queues with OWNER_SHARE_MS
 *	  for each owner.  What a step takes beyond that is not taken from others.
 *	  So neither many queues nor slow code of one owner keep the worker from
 *	  queues of another.  In the time that is left, the worker goes on where it
 *	  stopped.
 *
 * Called in a transaction block, all is one transaction; then the locks are
 * held until it ends, and nothing is tried twice.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "admin/admin.h"
#include "upkeep/upkeep.h"
#include "upkeep/maintain.h"

PG_FUNCTION_INFO_V1(pgmq_maintain);

/* pgmq.maintenance_lock_timeout and pgmq.maintenance_step_timeout, in milliseconds */
int			maintain_lock_timeout = 100;
int			maintain_step_timeout = 30000;

/* In the background worker: the owner whose step is running, for the launcher that has to terminate the worker */
pg_atomic_uint32 *maintain_shown_owner = NULL;

#define ATTEMPTS 5
#define PAUSE_MS 100

/* One call of maintain() */
typedef struct Maintenance
{
	bool		atomic;			/* all in the caller's transaction */
	int64		until;			/* begin nothing after this, by ticks(); 0: no limit */
	MemoryContext context;		/* outlives transactions */
	List	   *slow_owners;	/* their code took too long: no further steps in this call */
	bool		sharing;		/* each owner has its share of the time */
	bool		used_up;		/* one of them has used all of it */
	List	   *shares;			/* of OwnerShare: what they have used */
	int64		share_until;	/* the share of the owner whose turn it is, by ticks() */
} Maintenance;

#define OWNER_SHARE_MS 1000

typedef struct OwnerShare
{
	Oid			owner;
	int64		used;			/* microseconds */
} OwnerShare;

typedef struct Task
{
	QueueName	name;
	char		prefix;
	const char *what;			/* for messages */
	UpkeepStep	step;
	bool		any_table;		/* it need not be partitioned */
	int64		position;
	Oid			owner;			/* as whom it ran last */
} Task;

typedef enum StepResult
{
	STEP_DONE,
	STEP_AGAIN,					/* there is more of the same */
	STEP_BUSY,					/* a lock was not available */
	STEP_FAILED,
	STEP_REFUSED				/* nor will another step for this table run */
} StepResult;

/* What the table is of, for messages */
static const char *
kind_of(const Task *task)
{
	return task->prefix == STREAM_TABLE ? "stream" : "queue";
}

/* ---- the time that a step may take ---- */

static TimeoutId step_timeout;
static bool step_timeout_registered = false;

/* How often the running step was told to end */
static volatile sig_atomic_t step_told = 0;

/* After so many requests, a second apart, the session is terminated */
#define PATIENCE 5
#define PATIENCE_MS 1000

/*
 * Called by the signal handler for timers.  Code of the owner can catch a
 * cancellation and go on.  It cannot catch the end of the session.
 */
static void
step_is_late(void)
{
	step_told++;
	if (step_told > PATIENCE)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
start_timer(void)
{
	if (!step_timeout_registered)
		step_timeout = RegisterTimeout(USER_TIMEOUT, step_is_late);
	step_timeout_registered = true;
	step_told = 0;
	enable_timeout_every(step_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), maintain_step_timeout), PATIENCE_MS);
}

/* Whether the step was told to end.  If it has ended by itself, the pending cancellation is dropped */
static bool
stop_timer(void)
{
	disable_timeout(step_timeout, false);
	if (step_told == 0)
		return false;
	QueryCancelPending = false;
	return true;
}

/* ---- the owner of the table, as which the step runs ---- */

/* Held to the end of the step.  Not in the key space of advisory locks, which is the application's. */
static bool
try_lock_table(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, 0);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Lock the table as a reader does, so that its name and its owner stay.
 * InvalidOid if it is not a table for this step, or if another session maintains it.
 */
static Oid
lock_table(const Task *task)
{
	Oid			relid = queue_relid(&task->name, task->prefix);
	char		relkind;

	if (!OidIsValid(relid) || !try_lock_table(relid))
		return InvalidOid;
	LockRelationOid(relid, AccessShareLock);
	if (queue_relid(&task->name, task->prefix) != relid)
		return InvalidOid;
	relkind = get_rel_relkind(relid);
	return relkind == RELKIND_PARTITIONED_TABLE || (task->any_table && relkind == RELKIND_RELATION) ?
		relid : InvalidOid;
}

static bool
is_superusers(Oid relid)
{
	Oid			owner = owner_of(relid);

	return OidIsValid(owner) && superuser_arg(owner);
}

static bool
tables_are_superusers(const Task *task, const Partman *pm)
{
	if (task->prefix == STREAM_TABLE)
		return is_superusers(relcheck_own_table(OWN_STREAM, AccessShareLock)) &&
			is_superusers(relcheck_own_table(OWN_SUBSCRIPTION, AccessShareLock));
	if (task->any_table && !is_superusers(relcheck_own_table(OWN_POLICY, AccessShareLock)))
		return false;
	return is_superusers(relcheck_own_table(OWN_META, AccessShareLock)) &&
		is_superusers(relcheck_own_table(OWN_PARTITION_CONFIG, AccessShareLock)) &&
		(pm == NULL || is_superusers(partman_config_relid(pm)));
}

/* A partition of another role's whose code would run as the owner; NULL if there is none */
static const char *
partition_of_another(Oid relid, Oid owner)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			partition_owner = owner_of(lfirst_oid(lc));

		if (OidIsValid(partition_owner) && !has_privs_of_role(partition_owner, owner))
			return partset_relation(lfirst_oid(lc));
	}
	return NULL;
}

/* Why the table must not be maintained; NULL if it may be */
static const char *
find_objection(const Task *task, Oid relid, Oid owner, const Partman *pm)
{
	const char *partition;

	if (!has_privs_of_role(GetUserId(), owner))
		return psprintf("permission denied to maintain %s", name_table(&task->name, task->prefix));
	if (superuser_arg(owner) && !tables_are_superusers(task, pm))
		return psprintf("%s belongs to a superuser, the tables of the extensions do not",
						name_table(&task->name, task->prefix));
	partition = partition_of_another(relid, owner);
	if (partition != NULL)
		return psprintf("its partition %s belongs to another role", partition);
	return NULL;
}

static void
show_owner(Oid owner)
{
	if (maintain_shown_owner != NULL)
		pg_atomic_write_u32(maintain_shown_owner, owner);
}

/* The step itself, as the owner */
static StepResult
run_as_owner(Task *task, Oid owner, const Partman *pm)
{
	OwnerScope	scope;
	Upkeep		upkeep = {0};
	bool		more = false;

	owner_begin(owner, &scope);
	partmake_settings();
	upkeep.position = &task->position;
	upkeep.name = &task->name;
	upkeep.prefix = task->prefix;
	if (task->any_table || upkeep_begin(&upkeep, &task->name, task->prefix, pm))
		more = task->step(&upkeep);
	owner_end(&scope);
	return more ? STEP_AGAIN : STEP_DONE;
}

/*
 * Lock a table, for pgmq.maintenance_lock_timeout at most.
 *
 * The server looks for a deadlock when a session has waited for deadlock_timeout.  REINDEX CONCURRENTLY and its like hold SHARE
 * UPDATE EXCLUSIVE and wait for our transaction to end.  If one has done that almost so long, and now we wait for its lock, it
 * looks just then, and fails.  So we do not wait for such a statement.  One that comes later cannot have waited long.
 */
void
upkeep_lock(const char *table, const char *mode)
{
	Oid			relid = DatumGetObjectId(DirectFunctionCall1(regclassin, CStringGetDatum(table)));

	if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("table %s is being changed by another session", table)));
	UnlockRelationOid(relid, ShareUpdateExclusiveLock);
	run_ddl("LOCK TABLE ONLY %s IN %s MODE", table, mode);
}

static StepResult
run_locked(Task *task)
{
	Oid			relid = lock_table(task);
	Partman		pm;
	const Partman *found;
	const char *objection;

	if (!OidIsValid(relid))
		return STEP_DONE;
	task->owner = owner_of(relid);
	found = task->prefix != STREAM_TABLE && partman_find(&pm) ? &pm : NULL;
	objection = find_objection(task, relid, task->owner, found);
	if (objection != NULL)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("maintenance of %s \"%s\" failed: %s", kind_of(task), task->name.canonical, objection),
				 errhint("Only the owner of a %s and superusers may maintain it; its partitions must belong to its owner.",
						 kind_of(task))));
		return STEP_REFUSED;
	}
	show_owner(task->owner);
	return run_as_owner(task, task->owner, found);
}

/* ---- transactions and errors ---- */

static void
warn_of_failure(const Task *task, const ErrorData *error, bool late)
{
	if (late)
		ereport(WARNING,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("maintenance of %s \"%s\" took too long (%s)", kind_of(task), task->name.canonical, task->what),
				 errhint("The limit is pgmq.maintenance_step_timeout, %d ms. Look for slow functions in constraints and indexes.",
						 maintain_step_timeout)));
	else
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("maintenance of %s \"%s\" failed (%s): %s",
						kind_of(task), task->name.canonical, task->what, error->message),
				 error->detail ? errdetail("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
}

/* A step's error has been caught and its subtransaction is over */
static StepResult
report_failure(Maintenance *m, const Task *task, int64 began_at, ErrorData *error, bool late)
{
	late = late && is_cancellation(error);
	/* The caller's own cancellation or time limit is not the step's */
	if (is_cancellation(error) && !late)
		ReThrowError(error);
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
		return STEP_BUSY;
	/* A queue that was dropped meanwhile is no failure */
	if (OidIsValid(queue_relid(&task->name, task->prefix)))
		warn_of_failure(task, error, late);
	if (late)
		m->slow_owners = lappend_oid(m->slow_owners, task->owner);
	/* Any role can make a view of a partition, which then cannot be dropped; others can */
	if (error->sqlerrcode == ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST && task->position > began_at)
		return STEP_AGAIN;
	/* The log of a stream is not fit to work with */
	if (task->prefix == STREAM_TABLE && (error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE ||
										 error->sqlerrcode == ERRCODE_WRONG_OBJECT_TYPE))
		return STEP_REFUSED;
	return late ? STEP_REFUSED : STEP_FAILED;
}

/* A step in a subtransaction, so that its error is its own */
static StepResult
run_step(Maintenance *m, Task *task)
{
	ResourceOwner owner = CurrentResourceOwner;
	StepResult volatile result = STEP_FAILED;
	ErrorData  *volatile error = NULL;
	int64		began_at = task->position;
	bool		limited = get_timeout_active(STATEMENT_TIMEOUT);
	bool		late;

	BeginInternalSubTransaction(NULL);
	start_timer();
	PG_TRY();
	{
		int			nest = NewGUCNestLevel();

		/* The background worker has no portal that would give one */
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		set_lock_timeout(maintain_lock_timeout);
		result = run_locked(task);
		SPI_finish();
		PopActiveSnapshot();
		AtEOXact_GUC(false, nest);
		late = stop_timer();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* If the caller's limit has ended it as well, it is not the step's failure */
		late = stop_timer() && (!limited || get_timeout_active(STATEMENT_TIMEOUT));
		MemoryContextSwitchTo(m->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	show_owner(InvalidOid);
	MemoryContextSwitchTo(m->context);
	CurrentResourceOwner = owner;
	if (error != NULL)
		result = report_failure(m, task, began_at, error, late);
	/* A step that is tried again starts at the same position */
	if (error != NULL && result != STEP_AGAIN)
		task->position = began_at;
	return result;
}

static void
pause_maintenance(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 PAUSE_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static bool
time_is_up(const Maintenance *m)
{
	return m->until != 0 && (ticks() >= m->until || (m->sharing && ticks() >= m->share_until));
}

/* What the background worker is doing; a caller's session shows its CALL */
static void
show_activity(const Maintenance *m, const Task *task)
{
	if (m->until != 0)
		pgstat_report_activity(STATE_RUNNING,
							   psprintf("pgmq.maintain(): %s, %s",
										name_table(&task->name, task->prefix), task->what));
}

/*
 * Steps of one kind for one table, until there is nothing more to do.  Returns
 * the result of the last one.  All of them begin within the time that one step
 * may take.  The rest is left to the next call: a table may always have
 * something to do.
 */
static StepResult
run_task(Maintenance *m, Task *task)
{
	StepResult	result = STEP_DONE;
	int			attempts = 0;
	int64		until = ticks() + maintain_step_timeout * INT64CONST(1000);

	show_activity(m, task);
	while (!time_is_up(m) && (result != STEP_AGAIN || ticks() < until))
	{
		CHECK_FOR_INTERRUPTS();
		result = run_step(m, task);
		if (!m->atomic)
			SPI_commit();
		if (result == STEP_AGAIN)
			attempts = 0;
		else if (result != STEP_BUSY)
			break;
		else if (m->atomic || ++attempts == ATTEMPTS)
		{
			ereport(NOTICE,
					(errmsg("%s \"%s\" is busy, its maintenance is left to the next call (%s)",
							kind_of(task), task->name.canonical, task->what)));
			break;
		}
		else
			pause_maintenance();
	}
	return result;
}

/* ---- all queues ---- */

/* What can be due for a table, in this order */
static const struct
{
	bool		of_streams;
	const char *what;
	UpkeepStep	step;
	bool		(*is_due) (const QueueName *name, char prefix); /* NULL: of a partitioned table */
}			steps[] = {
	{false, "converted archive", convert_step, NULL},
	{false, "default partition", overrun_step, NULL},
	{false, "new partitions", premake_step, NULL},
	{false, "old partitions", retention_step, NULL},
	{false, "old rows of the archive", retire_step, retire_is_set},
	{false, "free keys", tidy_step, tidy_is_due},
	{true, "end of a partition", stream_end_step, NULL},
	{true, "old events", stream_empty_step, NULL},
	{true, "default partition", overrun_step, NULL},
	{true, "new partitions", stream_ahead_step, NULL},
	{true, "empty partitions", stream_drop_step, NULL}
};

static OwnerShare *
share_of(Maintenance *m, Oid owner)
{
	OwnerShare *share;
	ListCell   *lc;

	foreach(lc, m->shares)
	{
		share = lfirst(lc);
		if (share->owner == owner)
			return share;
	}
	share = palloc0(sizeof(OwnerShare));
	share->owner = owner;
	m->shares = lappend(m->shares, share);
	return share;
}

/* Run all of a kind that is due for a table, at the cost of its owner */
static StepResult
run_for_owner(Maintenance *m, Task *task, OwnerShare *share)
{
	const int64 most = OWNER_SHARE_MS * INT64CONST(1000);
	int64		began = ticks();
	StepResult	result;

	m->share_until = began + most - share->used;
	result = run_task(m, task);
	share->used += ticks() - began;
	/* The other owners keep their shares of the time */
	if (m->sharing && share->used >= most)
	{
		m->until += share->used - most;
		share->used = most;
		m->used_up = true;
	}
	return result;
}

/* A table that is busy is left to the next call.  The steps for a stream lock different tables, so each has its turn. */
static void
maintain_table(Maintenance *m, const QueueName *name, char prefix)
{
	Oid			relid = queue_relid(name, prefix);
	Oid			owner = owner_of(relid);
	bool		partitioned = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;
	int			i;

	if (!OidIsValid(relid) || list_member_oid(m->slow_owners, owner))
		return;
	for (i = 0; i < lengthof(steps); i++)
	{
		bool		any_table = steps[i].is_due != NULL;
		Task		task = {*name, prefix, steps[i].what, steps[i].step, any_table, PG_INT64_MIN, InvalidOid};
		StepResult	result;

		if (steps[i].of_streams != (prefix == STREAM_TABLE) ||
			!(any_table ? steps[i].is_due(name, prefix) : partitioned))
			continue;
		result = run_for_owner(m, &task, share_of(m, owner));
		if (result == STEP_REFUSED || (result == STEP_BUSY && !steps[i].of_streams))
			return;
	}
}

/* Once through all queues and streams, starting at a random one, so that each has its turn when calls end early */
static void
maintain_queues(Maintenance *m, const ListedQueue *queues, int count)
{
	int			first = count > 0 ? (int) pg_prng_uint64_range(&pg_global_prng_state, 0, count - 1) : 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		const QueueName *name = &queues[(first + i) % count].name;

		CHECK_FOR_INTERRUPTS();
		maintain_table(m, name, QUEUE_TABLE);
		maintain_table(m, name, ARCHIVE_TABLE);
		maintain_table(m, name, STREAM_TABLE);
	}
}

static bool
is_partitioned(const QueueName *name)
{
	return queue_is_partitioned(name, QUEUE_TABLE) ||
		queue_is_partitioned(name, ARCHIVE_TABLE);
}

static void
warn_without_partman(const ListedQueue *queues, int count)
{
	Partman		pm;
	int			i;

	for (i = 0; i < count && !is_partitioned(&queues[i].name); i++)
		;
	if (i < count && !partman_find(&pm))
		ereport(WARNING,
				(errmsg("pg_partman is not installed, no partitions are made for partitioned queues"),
				 errhint("Install it with CREATE EXTENSION pg_partman.")));
}

/*
 * All that is due.  The caller has connected to SPI, as non-atomic if "atomic"
 * is false.  Queues of some owners are left out.
 */
void
maintain_all(bool atomic, int64 until, List *left_out)
{
	Maintenance m = {.atomic = atomic, .until = until, .slow_owners = left_out, .sharing = until != 0};
	MemoryContext caller = CurrentMemoryContext;
	ListedQueue *queues;
	ListedQueue *streams;
	int			count;
	int			nstreams;

	m.context = AllocSetContextCreate(caller, "pgmq maintenance", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(m.context);
	count = queues_list(&queues);
	warn_without_partman(queues, count);
	nstreams = streams_list(&streams);
	if (nstreams > 0)
	{
		queues = repalloc_huge(queues, sizeof(ListedQueue) * (count + nstreams));
		memcpy(queues + count, streams, sizeof(ListedQueue) * nstreams);
		count += nstreams;
	}
	if (!atomic)
		SPI_commit();
	MemoryContextSwitchTo(m.context);
	maintain_queues(&m, queues, count);
	if (m.used_up)
	{
		m.sharing = false;
		maintain_queues(&m, queues, count);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(m.context);
}

/* pgmq.maintain(): a procedure */
Datum
pgmq_maintain(PG_FUNCTION_ARGS)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;

	PreventCommandIfReadOnly("CALL");
	SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC);
	maintain_all(atomic, 0, NIL);
	SPI_finish();
	PG_RETURN_VOID();
}
