/*
 * upgrade.c
 *	  pgmq.upgrade_queues(): queues of the PL/pgSQL extension get what they lack,
 *	  one after the other, while senders and readers go on.
 *
 * 1. An upgrade is a series of steps (upgradestep.c).  Each begins a transaction,
 *	  and is found in the catalogs anew.  So whatever ends the call, the next one
 *	  goes on where it was, and whatever other sessions do to the queue in between
 *	  is seen.
 * 2. Most steps take an instant.  They wait no longer than
 *	  pgmq.maintenance_lock_timeout for a lock, because sessions that use the
 *	  queue wait behind a lock that waits.  Then they are tried again.
 * 3. The others build or drop an index CONCURRENTLY.  Such a command commits
 *	  several transactions, so SQL refuses it inside a procedure.  The server
 *	  itself allows it wherever a statement of the client may commit: that is what
 *	  a CALL of the client may do, as long as no other code is on the stack.  So
 *	  this procedure refuses to be called by others, and leaves SPI and its snapshot.
 *	  Then it runs the command as the server runs one of the client.
 * 4. Steps of an instant run as the owner of the queue, in a security-restricted
 *	  operation with a fixed search path.  A concurrent command cannot, because that
 *	  cannot outlast a transaction.  The server itself runs whatever code of the
 *	  owner there is in an index build as the owner, security-restricted, and makes
 *	  the index the owner's.  The index has none: its columns and its condition are
 *	  built in, and names are looked up under a fixed search path.
 * 5. The caller must have the rights of the owner.  Queues of others are left out.
 * 6. A step that fails is a warning, and the next queue follows.  For this the
 *	  whole transaction is rolled back, as ROLLBACK in a procedure does it.
 * 7. Two sessions do not upgrade a queue at the same time: each build would wait for
 *	  the other.  Like the locks of the server's own concurrent commands, the lock
 *	  for this outlasts transactions and goes with an error.  Maintenance goes on.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/queue.h"
#include "upkeep/maintain.h"
#include "upkeep/upgrade.h"

PG_FUNCTION_INFO_V1(pgmq_upgrade_queues);

/* How often a step is tried whose locks are not free, and the pause in between */
#define ATTEMPTS 50
#define PAUSE_MS 200

typedef enum UpgradeResult
{
	UPGRADE_DONE,				/* nothing is left to do */
	UPGRADE_STEPPED,
	UPGRADE_BUSY,				/* a lock was not available */
	UPGRADE_FAILED
} UpgradeResult;

typedef struct Upgrade
{
	MemoryContext context;		/* outlives transactions */
	QueueUpgrade queue;
	bool		alone;			/* this queue was asked for: what fails is an error */
	bool		locked;			/* by lock_for_upgrade() */
	UpgradeStep step;			/* the one at work, or the last one */
	char	   *done;			/* the last statement that succeeded */
	ErrorData  *error;
} Upgrade;

/* ---- transactions ---- */

/* As at the beginning of a command of the client: no snapshot, no lock of a transaction */
static void
next_transaction(const Upgrade *upgrade)
{
	CommitTransactionCommand();
	StartTransactionCommand();
	MemoryContextSwitchTo(upgrade->context);
}

static void
roll_back(const Upgrade *upgrade)
{
	AbortCurrentTransaction();
	StartTransactionCommand();
	MemoryContextSwitchTo(upgrade->context);
}

/* ---- the lock ---- */

static void
upgrade_locktag(Oid relid, LOCKTAG *tag)
{
	/* Not the lock of maintain.c, which has 0 at the end */
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, RelationRelationId, relid, 1);
}

/* Of the session, so that it outlasts the transactions of a step */
static bool
lock_for_upgrade(Upgrade *upgrade)
{
	LOCKTAG		tag;

	upgrade_locktag(upgrade->queue.relid, &tag);
	if (!upgrade->locked)
		upgrade->locked = LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
	return upgrade->locked;
}

static void
unlock_after_upgrade(Upgrade *upgrade)
{
	LOCKTAG		tag;

	upgrade_locktag(upgrade->queue.relid, &tag);
	if (upgrade->locked)
		(void) LockRelease(&tag, ExclusiveLock, true);
	upgrade->locked = false;
}

/* ---- a step ---- */

static void
pin_search_path(void)
{
	set_option("search_path", "pg_catalog, pg_temp");
}

/*
 * A statement that ends transactions; settings that are made here end with the first
 * of them.  None of its names is looked up after that.
 */
static void
run_concurrently(const char *sql)
{
	RawStmt    *raw = linitial_node(RawStmt, pg_parse_query(sql));
	PlannedStmt *stmt = makeNode(PlannedStmt);

	stmt->commandType = CMD_UTILITY;
	stmt->canSetTag = true;
	stmt->utilityStmt = raw->stmt;
	stmt->stmt_location = raw->stmt_location;
	stmt->stmt_len = raw->stmt_len;
	(void) NewGUCNestLevel();
	pin_search_path();
	PushActiveSnapshot(GetTransactionSnapshot());
	ProcessUtility(stmt, sql, false, PROCESS_UTILITY_TOPLEVEL, NULL, NULL, None_Receiver, NULL);
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
}

static void
run_at_once(const QueueName *name, const UpgradeStep *step)
{
	int			nest = begin_partitioned_ddl();

	if (step->change != NULL)
		step->change(name);
	if (step->sql != NULL)
		run_ddl("%s", step->sql);
	AtEOXact_GUC(false, nest);
}

/* If a step is the same as the one before it, that has done nothing */
static void
require_progress(const Upgrade *upgrade, const UpgradeStep *step)
{
	if (step->sql != NULL && upgrade->done != NULL && strcmp(step->sql, upgrade->done) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" does not change the queue as it should", step->sql)));
}

/* Find the next step, and take it unless it is concurrent; its statement outlives the transaction */
static void
begin_step(Upgrade *upgrade)
{
	QueueUpgrade *queue = &upgrade->queue;
	UpgradeStep *step = &upgrade->step;
	Oid			owner = owner_of(queue->relid);
	OwnerScope	scope;

	PushActiveSnapshot(GetTransactionSnapshot());
	owner_begin(owner, &scope);
	SPI_connect();
	set_lock_timeout(maintain_lock_timeout);
	lock_queue(&queue->name);
	upgrade_next_step(queue, step);
	if (step->what != NULL)
		require_progress(upgrade, step);
	if (step->what != NULL && !step->concurrently)
		run_at_once(&queue->name, step);
	if (step->sql != NULL)
		step->sql = MemoryContextStrdup(upgrade->context, step->sql);
	SPI_finish();
	owner_end(&scope);
	PopActiveSnapshot();
}

static void
take_step(Upgrade *upgrade)
{
	UpgradeStep *step = &upgrade->step;

	memset(step, 0, sizeof(*step));
	begin_step(upgrade);
	next_transaction(upgrade);
	if (step->concurrently)
	{
		run_concurrently(step->sql);
		next_transaction(upgrade);
	}
	upgrade->done = step->sql != NULL ? pstrdup(step->sql) : NULL;
}

/* An error that ends the call goes on to the caller; of others the transaction is rolled back */
static UpgradeResult
try_step(Upgrade *upgrade)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		take_step(upgrade);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(upgrade->context);
		error = CopyErrorData();
		if (is_cancellation(error))
			PG_RE_THROW();
		FlushErrorState();
		roll_back(upgrade);
	}
	PG_END_TRY();
	if (error == NULL)
		return upgrade->step.what == NULL ? UPGRADE_DONE : UPGRADE_STEPPED;
	/* The server releases such locks with an error */
	upgrade->locked = false;
	upgrade->done = NULL;
	upgrade->error = error;
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
		return UPGRADE_BUSY;
	return UPGRADE_FAILED;
}

/* ---- a queue ---- */

static void
report(const Upgrade *upgrade, UpgradeResult result)
{
	const char *name = upgrade->queue.name.canonical;
	const ErrorData *error = upgrade->error;
	const char *what = upgrade->step.what != NULL ? upgrade->step.what : "search for what it lacks";

	/* A queue that was dropped meanwhile is no failure */
	if (queue_relid(&upgrade->queue.name, QUEUE_TABLE) != upgrade->queue.relid)
		return;
	if (result == UPGRADE_BUSY)
		ereport(upgrade->alone ? ERROR : NOTICE,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("queue \"%s\" is busy, its upgrade is left to the next call (%s)", name, what)));
	else
		ereport(upgrade->alone ? ERROR : WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("upgrade of queue \"%s\" failed (%s): %s", name, what, error->message),
				 error->detail ? errdetail("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
}

static void
pause_upgrade(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PAUSE_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Whether the queue is still there and the caller's; between transactions this can change */
static bool
may_go_on(const Upgrade *upgrade)
{
	const QueueUpgrade *queue = &upgrade->queue;
	Oid			owner;

	if (queue_relid(&queue->name, QUEUE_TABLE) != queue->relid)
		return false;
	owner = owner_of(queue->relid);
	if (OidIsValid(owner) && has_privs_of_role(GetUserId(), owner))
		return true;
	if (upgrade->alone)
		rights_require_owner(queue->relid);
	ereport(NOTICE,
			(errmsg("queue \"%s\" belongs to another role and is skipped", queue->name.canonical)));
	return false;
}

static void
upgrade_queue(Upgrade *upgrade, const QueueName *name)
{
	UpgradeResult result = UPGRADE_STEPPED;
	int			attempts = 0;

	memset(&upgrade->queue, 0, sizeof(upgrade->queue));
	upgrade->queue.name = *name;
	upgrade->queue.relid = queue_relid(name, QUEUE_TABLE);
	upgrade->done = NULL;
	if (get_rel_relkind(upgrade->queue.relid) != RELKIND_RELATION && !queue_is_partitioned(name, QUEUE_TABLE))
		return;
	while ((result == UPGRADE_STEPPED || result == UPGRADE_BUSY) && may_go_on(upgrade))
	{
		CHECK_FOR_INTERRUPTS();
		if (!lock_for_upgrade(upgrade))
		{
			ereport(NOTICE,
					(errmsg("queue \"%s\" is being upgraded by another session", name->canonical)));
			break;
		}
		result = try_step(upgrade);
		if (result != UPGRADE_BUSY)
			attempts = 0;
		else if (++attempts == ATTEMPTS)
			break;
		else
			pause_upgrade();
	}
	if (result == UPGRADE_BUSY || result == UPGRADE_FAILED)
		report(upgrade, result);
	unlock_after_upgrade(upgrade);
}

/* ---- the call ---- */

static void
require_client(FunctionCallInfo fcinfo)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;

	/* SPI: another procedure or a DO block has called this */
	if (atomic || SPI_inside_nonatomic_context() || TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("pgmq.upgrade_queues cannot run inside a transaction block, a procedure or a DO block"),
				 errdetail("It builds indexes concurrently."),
				 errhint("Call it by itself, with autocommit.")));
	PreventCommandDuringRecovery("pgmq.upgrade_queues");
	PreventCommandIfReadOnly("CALL");
}

/* What to upgrade, and whether it is one queue that was asked for */
static int
queues_of_call(FunctionCallInfo fcinfo, ListedQueue **queues)
{
	if (PG_ARGISNULL(0))
		return queues_list(queues);
	*queues = palloc0(sizeof(ListedQueue));
	name_from_arg(fcinfo, 0, &(*queues)->name);
	queue_require(&(*queues)->name);
	return 1;
}

/* pgmq.upgrade_queues(queue_name text): a procedure */
Datum
pgmq_upgrade_queues(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Upgrade		upgrade = {.alone = !PG_ARGISNULL(0)};
	MemoryContext round;
	ListedQueue *queues;
	int			count;
	int			i;

	require_client(fcinfo);
	round = AllocSetContextCreate(caller, "pgmq upgrade", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(round);
	count = queues_of_call(fcinfo, &queues);
	upgrade.context = AllocSetContextCreate(round, "pgmq queue", ALLOCSET_DEFAULT_SIZES);
	ForgetPortalSnapshots();
	next_transaction(&upgrade);
	for (i = 0; i < count; i++)
	{
		upgrade_queue(&upgrade, &queues[i].name);
		MemoryContextReset(upgrade.context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(round);
	PG_RETURN_VOID();
}
