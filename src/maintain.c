/*
 * maintain.c
 *	  pgmq.maintain(): what is due for all queues, a step at a time.
 *
 * Maintenance must not be felt.  So each step is a transaction of its own, and
 * waits no longer than pgmq.maintenance_lock_timeout for a lock: whoever uses
 * the queue waits behind a lock that waits.  A step that does not get its locks
 * is tried again a few times, and then left to the next call.
 *
 * A step that fails is a warning, and all others go on.  Two sessions may call
 * at the same time: each step takes a lock for the table that it is for, and a
 * session that does not get this at once goes on to the next table.
 *
 * Steps run as the owner of the table, as far as the caller may act as him, in
 * a security-restricted operation: code of that owner's (triggers, defaults)
 * never runs with the rights of a superuser or of the background worker.  And a
 * partition belongs to the owner of its queue, whoever has it made.
 *
 * Called in a transaction block, all is one transaction; then the locks are
 * held until it ends, and nothing is tried twice.
 */
#include "maintain.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
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
#include "utils/timestamp.h"

#include "admin.h"
#include "owner.h"

PG_FUNCTION_INFO_V1(pgmq_maintain);

/* pgmq.maintenance_lock_timeout, in milliseconds */
int			maintain_lock_timeout = 100;

#define ATTEMPTS 5
#define PAUSE_MS 100

/* One call of maintain() */
typedef struct Maintenance
{
	bool		atomic;			/* all in the caller's transaction */
	TimestampTz until;			/* begin nothing after this */
	MemoryContext context;		/* outlives transactions */
} Maintenance;

typedef struct Task
{
	QueueName	name;
	char		prefix;
	const char *what;			/* for messages */
	UpkeepStep	step;
	int64		position;
} Task;

typedef enum StepResult
{
	STEP_DONE,
	STEP_AGAIN,					/* there is more of the same */
	STEP_BUSY,					/* a lock was not to be had */
	STEP_FAILED
} StepResult;

/* ---- who, and how ---- */

/* Held to the end of the step.  Not in the key space of advisory locks, which is the application's. */
static bool
try_lock_table(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, 0);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* pg_partman's own maintenance of the table */
static bool
partman_step(Upkeep *upkeep)
{
	if (upkeep->pm != NULL)
		partman_run_maintenance(upkeep->pm, upkeep->name, upkeep->prefix);
	return false;
}

/* The step itself, as the owner */
static StepResult
run_as_owner(Task *task, Oid owner)
{
	OwnerScope	scope;
	Upkeep		upkeep = {0};
	Partman		pm;
	bool		more = false;

	owner_begin(owner, &scope);
	owner_set_option("lock_timeout", psprintf("%dms", maintain_lock_timeout));
	upkeep.position = task->position;
	if (upkeep_begin(&upkeep, &task->name, task->prefix, partman_find(&pm) ? &pm : NULL))
		more = task->step(&upkeep);
	task->position = upkeep.position;
	owner_end(&scope);
	return more ? STEP_AGAIN : STEP_DONE;
}

static StepResult
run_locked(Task *task)
{
	Oid			relid = name_relid(&task->name, task->prefix);
	Oid			owner = owner_of(relid);

	if (!OidIsValid(owner) || get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE ||
		!try_lock_table(relid))
		return STEP_DONE;
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to maintain %s", name_table(&task->name, task->prefix)),
				 errhint("Only its owner and superusers may.")));
	return run_as_owner(task, owner);
}

/* ---- transactions and errors ---- */

/* A step's error has been caught and its subtransaction is over */
static StepResult
report_failure(const Task *task, ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
		return STEP_BUSY;
	/* A queue that was dropped meanwhile is no failure */
	if (OidIsValid(name_relid(&task->name, task->prefix)))
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("maintenance of queue \"%s\" failed (%s): %s",
						task->name.canonical, task->what, error->message),
				 error->detail ? errdetail("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	return STEP_FAILED;
}

/* A step in a subtransaction, so that its error is its own */
static StepResult
run_step(Maintenance *m, Task *task)
{
	ResourceOwner owner = CurrentResourceOwner;
	StepResult volatile result = STEP_FAILED;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		/* The background worker has no portal that would give one */
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		result = run_locked(task);
		SPI_finish();
		PopActiveSnapshot();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(m->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(m->context);
	CurrentResourceOwner = owner;
	return error == NULL ? result : report_failure(task, error);
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
	return m->until != 0 && GetCurrentTimestamp() >= m->until;
}

/* What the background worker is at; a caller's session shows his CALL */
static void
show_activity(const Maintenance *m, const Task *task)
{
	if (m->until != 0)
		pgstat_report_activity(STATE_RUNNING,
							   psprintf("pgmq.maintain(): %s, %s",
										name_table(&task->name, task->prefix), task->what));
}

/* Steps of one kind for one table, until there is nothing more to do; how the last one went */
static StepResult
run_task(Maintenance *m, Task *task)
{
	StepResult	result = STEP_DONE;
	int			attempts = 0;

	show_activity(m, task);
	while (!time_is_up(m))
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
					(errmsg("queue \"%s\" is busy, its maintenance is left to the next call (%s)",
							task->name.canonical, task->what)));
			break;
		}
		else
			pause_maintenance();
	}
	return result;
}

/* ---- all queues ---- */

/* What can be due for a table, in this order: pg_partman fails over what the others mend */
static const struct
{
	const char *what;
	UpkeepStep	step;
}			steps[] = {
	{"converted archive", convert_step},
	{"default partition", overrun_step},
	{"new partitions", premake_step},
	{"old partitions", retention_step},
	{"pg_partman", partman_step}
};

/*
 * A table that is busy is left alone for now.  pg_partman is not asked to do
 * what has just failed.
 */
static void
maintain_table(Maintenance *m, const QueueName *name, char prefix)
{
	bool		failed = false;
	int			i;

	if (get_rel_relkind(name_relid(name, prefix)) != RELKIND_PARTITIONED_TABLE)
		return;
	for (i = 0; i < lengthof(steps); i++)
	{
		Task		task = {*name, prefix, steps[i].what, steps[i].step, PG_INT64_MIN};
		StepResult	result;

		if (failed && steps[i].step == partman_step)
			return;
		result = run_task(m, &task);
		if (result == STEP_BUSY)
			return;
		failed = failed || result == STEP_FAILED;
	}
}

static int
all_queues(Maintenance *m, QueueName **names)
{
	uint64		count = run_with_texts("SELECT queue_name FROM pgmq.meta ORDER BY queue_name", 0, NULL);
	uint64		i;

	*names = MemoryContextAllocZero(m->context, sizeof(QueueName) * Max(count, 1));
	for (i = 0; i < count; i++)
		name_canonical(cstring_to_text(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1)),
					   &(*names)[i]);
	return (int) count;
}

static void
warn_without_partman(void)
{
	Partman		pm;

	if (!partman_find(&pm) &&
		run_with_texts("SELECT FROM pgmq.meta WHERE is_partitioned LIMIT 1", 0, NULL) > 0)
		ereport(WARNING,
				(errmsg("pg_partman is not installed, no partitions are made for partitioned queues"),
				 errhint("Install it with CREATE EXTENSION pg_partman.")));
}

/*
 * All that is due.  The caller has connected to SPI, as non-atomic if he says
 * so.  If there is not time for all queues, each has its turn some time:
 * begin with another one at each call.
 */
void
maintain_all(bool atomic, TimestampTz until)
{
	Maintenance m = {atomic, until, NULL};
	MemoryContext caller = CurrentMemoryContext;
	QueueName  *names;
	int			count;
	int			first;
	int			i;

	m.context = AllocSetContextCreate(caller, "pgmq maintenance", ALLOCSET_DEFAULT_SIZES);
	warn_without_partman();
	count = all_queues(&m, &names);
	first = until != 0 && count > 0 ? (int) (GetCurrentTimestamp() % count) : 0;
	if (!atomic)
		SPI_commit();
	MemoryContextSwitchTo(m.context);
	for (i = 0; i < count; i++)
	{
		const QueueName *name = &names[(first + i) % count];

		maintain_table(&m, name, QUEUE_TABLE);
		maintain_table(&m, name, ARCHIVE_TABLE);
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
	maintain_all(atomic, 0);
	SPI_finish();
	PG_RETURN_VOID();
}
