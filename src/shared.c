/*
 * shared.c
 *	  Where shared memory comes from.
 *
 * From PostgreSQL 17 on a named segment, which needs no preloading.  Before,
 * an area that was reserved because the library is in
 * shared_preload_libraries, or else a small one from the slop that the server
 * keeps for such uses.  When there is none left the caller gets NULL and must
 * do without.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#ifdef HAVE_NAMED_DSM_SEGMENTS
#include "access/xact.h"
#include "storage/dsm_registry.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#endif

/* Set in the postmaster, and inherited or set again in every backend */
static bool preloaded = false;

#ifndef HAVE_NAMED_DSM_SEGMENTS
static shmem_request_hook_type next_request_hook = NULL;

static void
request_areas(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(horizon_shared_size(true));
	RequestAddinShmemSpace(wake_shared_size(true));
	RequestAddinShmemSpace(announce_shared_size(true));
	RequestAddinShmemSpace(starts_shared_size(true));
}
#endif

/* Called while the library is loaded */
void
shared_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	preloaded = true;
#ifndef HAVE_NAMED_DSM_SEGMENTS
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request_areas;
#endif
}

/* Whether there is room for more than a few kB */
bool
shared_is_ample(void)
{
#ifdef HAVE_NAMED_DSM_SEGMENTS
	return true;
#else
	return preloaded;
#endif
}

#ifdef HAVE_NAMED_DSM_SEGMENTS

/*
 * The layout's version is in the name: a segment lives until the server is
 * restarted, and a later library with another layout must not attach to it.
 *
 * When there is no room for a segment, or no memory to map it, the server
 * raises an error in the midst of its work: it holds locks on its registry, and
 * may have half attached to it, or have made half an entry, which is an error for
 * this session, or for all, whenever they try again.  They must be able to read all
 * the same: the roll-back of a subtransaction lets go of the locks, and the caller
 * does without and doesn't try again.  A background worker outside of a transaction
 * can have no such thing: there an error ends it, and it is started again.
 */
void *
shared_area(const char *name, Size size, void (*init) (void *area))
{
	void	   *volatile area = NULL;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		found;

	if (!IsUnderPostmaster)		/* a stand-alone backend has no segments */
		return NULL;
	if (!IsTransactionState())
		return GetNamedDSMSegment(name, size, init, &found);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		area = GetNamedDSMSegment(name, size, init, &found);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* First of all: what comes after it may run out of memory, too */
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		error = CopyErrorData();
		FlushErrorState();
		ereport(LOG,
				(errmsg("no shared memory for queues, each session keeps its own notes: %s",
						error->message)));
		FreeErrorData(error);
		area = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return area;
}

#else

void *
shared_area(const char *name, Size size, void (*init) (void *area))
{
	void	   *volatile area = NULL;
	MemoryContext context = CurrentMemoryContext;
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	PG_TRY();
	{
		area = ShmemInitStruct(name, size, &found);
		if (!found)
			init(area);
	}
	PG_CATCH();
	{
		/* "not enough shared memory": nothing is left behind but the error */
		MemoryContextSwitchTo(context);
		FlushErrorState();
		HOLD_INTERRUPTS();		/* the error let go of the lock's */
	}
	PG_END_TRY();
	LWLockRelease(AddinShmemInitLock);
	return area;
}

#endif
