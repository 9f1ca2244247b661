/*
 * worker.c
 *	  Maintenance by itself, where the library is preloaded.
 *
 * A launcher, which is connected to no database, starts a worker for each
 * database of pgmq.databases, every pgmq.maintenance_interval.  A worker calls
 * what pgmq.maintain() calls, and ends.  So nothing is connected to a database
 * for longer than WORK_SECONDS and the step that is under way then, and DROP
 * DATABASE, which gives others 5 seconds to leave, goes through.
 *
 * A worker connects as the bootstrap superuser, because it works for all
 * queues, whoever owns them; each step runs as the owner of its queue (see
 * maintain.c).
 *
 * What ends a worker (a database that is dropped, pg_terminate_backend()) ends
 * that round, for that database.  Without a launcher, or without this file, all
 * works by hand or by pg_cron.
 */
#include "worker.h"

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
#include "postmaster/bgworker.h"
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
#include "utils/varlena.h"

#include "maintain.h"

/* pgmq.databases, pgmq.maintenance_interval (in seconds) */
static char *worker_databases = NULL;
static int	worker_interval = 60;

/* A worker takes up no further step after that */
#define WORK_SECONDS 3

/* The launcher comes back after an error or pg_terminate_backend() */
#define RESTART_SECONDS 5

extern PGDLLEXPORT void pgmq_launcher_main(Datum arg);
extern PGDLLEXPORT void pgmq_worker_main(Datum arg);

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

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pgmq");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "pgmq_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pgmq launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pgmq launcher");
	RegisterBackgroundWorker(&worker);
}

/* Called while the library is loaded */
void
worker_init(void)
{
	/* Not while pg_upgrade is at work */
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

/*
 * Names that are no database (any more) are left out, without a word in each
 * round.  By a scan, as autovacuum's launcher does it: without a database
 * there may be no index to go by.
 */
static List *
existing_databases(MemoryContext context)
{
	List	   *names;
	List	   *oids = NIL;
	Relation	pg_database;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (!SplitGUCList(pstrdup(worker_databases), ',', &names))
		return NIL;
	pg_database = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(pg_database, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && is_listed(NameStr(database->datname), names))
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			oids = lappend_oid(oids, database->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(pg_database, AccessShareLock);
	return oids;
}

/* False if the server has no room for one more background worker */
static bool
start_worker(Oid database)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pgmq");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "pgmq_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pgmq maintenance");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pgmq maintenance");
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	/* One after the other: they take one slot, and there is no hurry */
	if (WaitForBackgroundWorkerStartup(handle, &pid) == BGWH_STARTED)
		(void) WaitForBackgroundWorkerShutdown(handle);
	pfree(handle);
	return true;
}

static void
run_round(MemoryContext context)
{
	List	   *oids;
	ListCell   *lc;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	oids = existing_databases(context);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	foreach(lc, oids)
	{
		CHECK_FOR_INTERRUPTS();
		if (!start_worker(lfirst_oid(lc)))
		{
			ereport(LOG,
					(errmsg("pgmq: no background worker is left for maintenance"),
					 errhint("Consider increasing max_worker_processes.")));
			break;
		}
	}
}

static void
wait_until(TimestampTz next)
{
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Max(timeout, 1), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
pgmq_launcher_main(Datum arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pgmq launcher",
												  ALLOCSET_DEFAULT_SIZES);
	TimestampTz last = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	/* No database: the catalogs that all share are enough */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	pgstat_report_activity(STATE_IDLE, NULL);
	for (;;)
	{
		TimestampTz next = TimestampTzPlusMilliseconds(last, (int64) worker_interval * 1000);

		if (GetCurrentTimestamp() < next)
		{
			wait_until(next);
			continue;
		}
		last = GetCurrentTimestamp();
		run_round(context);
		MemoryContextReset(context);
	}
}

/* ---- a worker ---- */

static bool
extension_is_there(void)
{
	return OidIsValid(get_extension_oid("pgmq", true)) &&
		OidIsValid(get_relname_relid("meta", get_namespace_oid(PGMQ_SCHEMA, true)));
}

void
pgmq_worker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);

	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	/* What SPI has outlive a transaction, a portal would keep */
	PortalContext = AllocSetContextCreate(TopMemoryContext, "pgmq worker", ALLOCSET_DEFAULT_SIZES);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, "pgmq.maintain()");
	if (extension_is_there())
	{
		SPI_connect_ext(SPI_OPT_NONATOMIC);
		maintain_all(false, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORK_SECONDS * INT64CONST(1000)));
		SPI_finish();
	}
	CommitTransactionCommand();
	pgstat_report_stat(true);
	proc_exit(0);
}
