/*
 * worker.c
 *	  Maintenance by itself, where the library is preloaded.
 *
 * A launcher, which is connected to no database, starts a worker for each
 * database of pgmq.databases, every pgmq.maintenance_interval.  A worker calls
 * what pgmq.maintain() calls, and ends.
 *
 * 1. A worker begins no further step after WORK_SECONDS.  So DROP DATABASE,
 *	  which gives others 5 seconds to leave, usually goes through.
 * 2. A worker connects as the bootstrap superuser, because it works for the
 *	  queues of all owners.  Only reads of catalogs run with these rights: see
 *	  maintain.c.  Settings of the database do not affect it.
 * 3. The launcher terminates a worker that runs for too long.  If the worker
 *	  does not end even then, the launcher goes on to other databases.
 * 4. A worker that fails must not be started again in a tight loop.  The
 *	  launcher waits an interval after its own start.  After a worker that has
 *	  failed it waits twice as long as the last time for that database.  If it
 *	  had to be terminated in a step of some owner, only queues of that owner
 *	  wait: the worker is told to leave them out.
 * 5. Time is measured by a monotonic clock.
 *
 * Whatever ends a worker (a dropped database, pg_terminate_backend()) ends that
 * round for that database.  Without a launcher, CALL pgmq.maintain() does the
 * same work, by hand or by pg_cron.
 */
#include "pgmq.h"

#include <limits.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/base.h"
#include "upkeep/upkeep.h"
#include "upkeep/maintain.h"

/* pgmq.databases, pgmq.maintenance_interval (in seconds) */
static char *worker_databases = NULL;
static int	worker_interval = 60;

/* A worker begins no further step after that */
#define WORK_SECONDS 3

/* The launcher comes back after an error or pg_terminate_backend() */
#define RESTART_SECONDS 5

/* Time that a worker may take beyond a late step, and again to end when it is terminated */
#define GRACE_SECONDS 15
#define END_SECONDS 5

/* However often a database has failed, it has its turn after so long */
#define LONGEST_DELAY_SECONDS 3600

extern PGDLLEXPORT void pgmq_launcher_main(Datum arg);
extern PGDLLEXPORT void pgmq_worker_main(Datum arg);

/* ---- how a worker has ended ---- */

/* The server does not report this.  So a worker finally writes here the number that it was given. */
typedef struct WorkerArea
{
	pg_atomic_uint32 ended_well;
	pg_atomic_uint32 owner;		/* whose step was running when it did not end well */
} WorkerArea;

static void
init_area(void *area)
{
	pg_atomic_init_u32(&((WorkerArea *) area)->ended_well, 0);
	pg_atomic_init_u32(&((WorkerArea *) area)->owner, InvalidOid);
}

static Size
size_of_area(bool ample)
{
	return sizeof(WorkerArea);
}

static const SharedUse worker_memory = {
	"pgmq worker 2", size_of_area, init_area,
	"could not allocate shared memory for maintenance",
	"It is not known how its workers end."
};

static WorkerArea *
worker_area(void)
{
	return shared_area(&worker_memory);
}

/* ---- settings ---- */

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	bool		ok = SplitGUCList(copy, ',', &names);

	if (!ok)
		GUC_check_errdetail("The setting is a list of database names, separated by commas.");
	list_free(names);
	pfree(copy);
	return ok;
}

static void
register_launcher(void)
{
	BackgroundWorker worker = {0};

	bgworker_describe(&worker, "pgmq_launcher_main", "pgmq launcher", RESTART_SECONDS);
	RegisterBackgroundWorker(&worker);
}

/* Called while the library is loaded */
void
worker_init(void)
{
	shared_register(&worker_memory);
	/* Not while pg_upgrade is running */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	DefineCustomStringVariable("pgmq.databases",
							   "Databases whose queues are maintained in the background.",
							   "A list of names, separated by commas.",
							   &worker_databases,
							   "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);
	DefineCustomIntVariable("pgmq.maintenance_interval",
							"Time between two rounds of maintenance in the background.",
							NULL,
							&worker_interval,
							60, 1, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	register_launcher();
}

/* ---- the launcher ---- */

/* A database or an owner, which waits longer the more often in a row it has failed */
typedef struct Turn
{
	Oid			oid;			/* of a database, or of an owner in it */
	int			failures;
	int64		not_before;		/* by ticks() */
} Turn;

/* What the launcher tells a worker, in bgw_extra */
#define OWNERS 16

typedef struct Orders
{
	uint32		number;
	Oid			left_out[OWNERS];
} Orders;

/* A database that is in the list, or was in it when its worker was started */
typedef struct Attended
{
	Turn		turn;
	bool		listed;
	BackgroundWorkerHandle *handle; /* of a worker that would not end; else NULL */
	Turn		owners[OWNERS]; /* in whose steps a worker was terminated */
} Attended;

static bool
is_listed(const char *database, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), database) == 0)
			return true;
	}
	return false;
}

static List *
attend(List *attended, Oid oid)
{
	ListCell   *lc;
	Attended   *new;

	foreach(lc, attended)
	{
		Attended   *database = lfirst(lc);

		if (database->turn.oid == oid)
		{
			database->listed = true;
			return attended;
		}
	}
	new = palloc0(sizeof(Attended));
	new->turn.oid = oid;
	new->listed = true;
	return lappend(attended, new);
}

/*
 * Names without a database are left out, silently.  By a scan, as autovacuum's
 * launcher does it: a process without a database may have no index to use.
 */
static List *
attend_listed(List *attended, MemoryContext context)
{
	List	   *names;
	Relation	pg_database;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (!SplitGUCList(pstrdup(worker_databases), ',', &names))
		return attended;
	pg_database = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(pg_database, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && is_listed(NameStr(form->datname), names))
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			attended = attend(attended, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(pg_database, AccessShareLock);
	return attended;
}

/* The databases that are listed now, with their state; others only while their workers live */
static List *
refresh_attended(List *attended, MemoryContext context)
{
	ListCell   *lc;

	foreach(lc, attended)
		((Attended *) lfirst(lc))->listed = false;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	attended = attend_listed(attended, context);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	foreach(lc, attended)
	{
		Attended   *database = lfirst(lc);

		if (!database->listed && database->handle == NULL)
		{
			attended = foreach_delete_current(attended, lc);
			pfree(database);
		}
	}
	return attended;
}

/* Sleep until a time, or until something wakes the launcher */
static void
sleep_until(int64 next)
{
	int64		timeout = (next - ticks()) / 1000 + 1;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Max(Min(timeout, 60000), 1), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Wait for a worker's end; false if it has not ended by then */
static bool
wait_for_worker(BackgroundWorkerHandle *handle, int64 until)
{
	for (;;)
	{
		pid_t		pid;
		BgwHandleStatus status = GetBackgroundWorkerPid(handle, &pid);

		if (status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED)
			return true;
		if (ticks() >= until)
			return false;
		/* The postmaster signals the end; wake up each second in case that signal gets lost */
		sleep_until(Min(until, ticks() + 1000000));
	}
}

static void
end_worker(Attended *database, BackgroundWorkerHandle *handle)
{
	ereport(LOG,
			(errmsg("pgmq: terminating maintenance of database %u: it takes too long", database->turn.oid)));
	TerminateBackgroundWorker(handle);
	if (wait_for_worker(handle, ticks() + END_SECONDS * INT64CONST(1000000)))
		pfree(handle);
	else
		database->handle = handle;
}

/* When it has its turn again, after one more failure */
static int
put_off(Turn *turn)
{
	int64		delay;

	turn->failures = Min(turn->failures + 1, 20);
	delay = Max(Min((int64) worker_interval << turn->failures, LONGEST_DELAY_SECONDS), worker_interval);
	turn->not_before = ticks() + delay * 1000000;
	return (int) delay;
}

/* The entry of the owner, or else the one that is free first */
static Turn *
turn_of_owner(Attended *database, Oid owner)
{
	Turn	   *turn = &database->owners[0];
	int			i;

	for (i = 0; i < OWNERS; i++)
	{
		if (database->owners[i].oid == owner)
			return &database->owners[i];
		if (database->owners[i].not_before < turn->not_before)
			turn = &database->owners[i];
	}
	memset(turn, 0, sizeof(*turn));
	turn->oid = owner;
	return turn;
}

static void
record_end(Attended *database, WorkerArea *area, uint32 number)
{
	Oid			owner;

	if (area == NULL || pg_atomic_read_u32(&area->ended_well) == number)
	{
		database->turn.failures = 0;
		return;
	}
	owner = pg_atomic_read_u32(&area->owner);
	if (OidIsValid(owner))
		ereport(LOG,
				(errmsg("pgmq: maintenance of database %u failed in a step of role %u, next attempt for its queues in %d seconds",
						database->turn.oid, owner, put_off(turn_of_owner(database, owner)))));
	else
		ereport(LOG,
				(errmsg("pgmq: maintenance of database %u failed, next attempt in %d seconds",
						database->turn.oid, put_off(&database->turn))));
}

static void
give_orders(const Attended *database, uint32 number, Orders *orders)
{
	int			i;

	memset(orders, 0, sizeof(*orders));
	orders->number = number;
	for (i = 0; i < OWNERS; i++)
	{
		if (database->owners[i].not_before > ticks())
			orders->left_out[i] = database->owners[i].oid;
	}
}

/* False if the server has no room for one more background worker */
static bool
run_worker(Attended *database, WorkerArea *area)
{
	static uint32 number = 0;
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	Orders		orders;
	int64		limit = (WORK_SECONDS + GRACE_SECONDS) * INT64CONST(1000000) +
		maintain_step_timeout * INT64CONST(2000);

	number++;
	bgworker_describe(&worker, "pgmq_worker_main", "pgmq maintenance", BGW_NEVER_RESTART);
	worker.bgw_main_arg = ObjectIdGetDatum(database->turn.oid);
	give_orders(database, number, &orders);
	StaticAssertStmt(sizeof(orders) <= BGW_EXTRALEN, "orders must fit into bgw_extra");
	memcpy(worker.bgw_extra, &orders, sizeof(orders));
	if (area != NULL)
		pg_atomic_write_u32(&area->owner, InvalidOid);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	/* Workers run one after the other: they take one slot, and there is no hurry */
	if (wait_for_worker(handle, ticks() + limit))
		pfree(handle);
	else
		end_worker(database, handle);
	record_end(database, area, number);
	return true;
}

/* Whether a worker for the database may be started */
static bool
is_due(Attended *database)
{
	if (database->handle != NULL)
	{
		if (!wait_for_worker(database->handle, 0))
			return false;
		pfree(database->handle);
		database->handle = NULL;
	}
	return database->listed && (database->turn.failures == 0 || ticks() >= database->turn.not_before);
}

static List *
run_round(List *attended, MemoryContext context, WorkerArea *area)
{
	ListCell   *lc;

	attended = refresh_attended(attended, context);
	foreach(lc, attended)
	{
		Attended   *database = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (is_due(database) && !run_worker(database, area))
		{
			ereport(LOG,
					(errmsg("pgmq: could not start a background worker for maintenance"),
					 errhint("Consider increasing max_worker_processes.")));
			break;
		}
	}
	return attended;
}

void
pgmq_launcher_main(Datum arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pgmq launcher",
												  ALLOCSET_DEFAULT_SIZES);
	List	   *attended = NIL;
	WorkerArea *area;
	int64		last = ticks();

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	/* No database: the shared catalogs are enough */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	pgstat_report_activity(STATE_IDLE, NULL);
	area = worker_area();
	MemoryContextSwitchTo(context);
	for (;;)
	{
		int64		next = last + worker_interval * INT64CONST(1000000);

		if (ticks() < next)
		{
			sleep_until(next);
			continue;
		}
		last = ticks();
		attended = run_round(attended, context, area);
	}
}

/* ---- a worker ---- */

/* Not the PL/pgSQL extension, which a database has before an update or when it has gone back: that has no maintain() */
static bool
extension_is_there(void)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, true);

	return OidIsValid(get_extension_oid("pgmq", true)) &&
		OidIsValid(get_relname_relid("meta", schema)) &&
		SearchSysCacheExists3(PROCNAMEARGSNSP, CStringGetDatum("maintain"),
							  PointerGetDatum(buildoidvector(NULL, 0)), ObjectIdGetDatum(schema));
}

/* The owner of a database can give its sessions settings; these would matter here */
static void
reset_settings(void)
{
	static const char *const settings[][2] = {
		{"role", "none"},
		{"application_name", "pgmq maintenance"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "5s"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},
		{"exit_on_error", "off"},
		{"default_table_access_method", "heap"},
		{"row_security", "on"}
	};
	int			i;

	/* It can even give them another role to work as */
	SetSessionAuthorization(GetAuthenticatedUserId(), true);
	for (i = 0; i < lengthof(settings); i++)
	{
		/* An older server does not have all of them */
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

void
pgmq_worker_main(Datum arg)
{
	WorkerArea *area;
	Orders		orders;
	List	   *left_out = NIL;
	int			i;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	memcpy(&orders, MyBgworkerEntry->bgw_extra, sizeof(orders));
	for (i = 0; i < OWNERS; i++)
	{
		if (OidIsValid(orders.left_out[i]))
			left_out = lappend_oid(left_out, orders.left_out[i]);
	}
	area = worker_area();
	maintain_shown_owner = area ? &area->owner : NULL;
	reset_settings();
	/* SPI keeps here what outlives a transaction; elsewhere a portal provides this context */
	PortalContext = AllocSetContextCreate(TopMemoryContext, "pgmq worker", ALLOCSET_DEFAULT_SIZES);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, "pgmq.maintain()");
	if (extension_is_there())
	{
		SPI_connect_ext(SPI_OPT_NONATOMIC);
		maintain_all(false, ticks() + WORK_SECONDS * INT64CONST(1000000), left_out);
		SPI_finish();
	}
	CommitTransactionCommand();
	pgstat_report_stat(true);
	if (area != NULL)
		pg_atomic_write_u32(&area->ended_well, orders.number);
	proc_exit(0);
}
