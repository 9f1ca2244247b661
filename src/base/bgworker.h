/*
 * bgworker.h
 *	  The common part of the registration of all background workers.
 */
#ifndef PGMQ_BGWORKER_H
#define PGMQ_BGWORKER_H

#include "pgmq.h"

#include "postmaster/bgworker.h"

/* One that connects to a database; "restart": seconds, or BGW_NEVER_RESTART */
static inline void
bgworker_describe(BackgroundWorker *worker, const char *function, const char *name, int restart)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = restart;
	snprintf(worker->bgw_library_name, sizeof(worker->bgw_library_name), "pgmq");
	snprintf(worker->bgw_function_name, sizeof(worker->bgw_function_name), "%s", function);
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "%s", name);
	snprintf(worker->bgw_type, sizeof(worker->bgw_type), "%s", name);
}

#endif							/* PGMQ_BGWORKER_H */
