/*
 * shared.c
 *	  Where shared memory comes from.
 *
 * From PostgreSQL 17 on a named segment, which needs no preloading.  Before,
 * an area that was reserved because the library is in
 * shared_preload_libraries, or else a small one from the slop that the server
 * keeps for such uses.  When there is none left the caller gets NULL and must
 * do without.
 *
 * What is large, and of no use unless everybody has it, gets a segment in all
 * versions, preloaded or not: see shared_segment().
 */
#include "pgmq.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#ifdef HAVE_NAMED_DSM_SEGMENTS
#include "storage/dsm_registry.h"
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

/* What is wanted, for who gets it in a subtransaction */
typedef struct AreaRequest
{
	const char *name;
	Size		size;
	void		(*init) (void *area);
	SharedSegment *segment;
} AreaRequest;

/*
 * When there is no room for a segment, or no memory to map it, the server
 * raises an error in the midst of its work: it holds locks on its registry, and
 * may have half attached to it, or have made half an entry, which is an error for
 * this session, or for all, whenever they try again.  They must be able to read all
 * the same: the roll-back of a subtransaction lets go of the locks, and the caller
 * does without and doesn't try again.  NULL then, and the log says so.
 */
static void *
get_in_subtransaction(void *(*get) (const AreaRequest *), const AreaRequest *request,
					  const char *consequence)
{
	void	   *volatile area = NULL;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		area = get(request);
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
				(errmsg("%s: %s", consequence, error->message)));
		FreeErrorData(error);
		area = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return area;
}

/* From the server's main shared memory; NULL if there is no room. */
static void *
main_area(const char *name, Size size, void (*init) (void *area))
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

#ifdef HAVE_NAMED_DSM_SEGMENTS

static void *
get_named(const AreaRequest *request)
{
	bool		found;

	return GetNamedDSMSegment(request->name, request->size, request->init, &found);
}

/*
 * The layout's version is in the name: a segment lives until the server is
 * restarted, and a later library with another layout must not attach to it.
 *
 * A background worker outside of a transaction can have no subtransaction:
 * there an error ends it, and it is started again.
 */
void *
shared_area(const char *name, Size size, void (*init) (void *area))
{
	AreaRequest request = {name, size, init, NULL};

	if (!IsUnderPostmaster)		/* a stand-alone backend has no segments */
		return NULL;
	if (!IsTransactionState())
		return get_named(&request);
	return get_in_subtransaction(get_named, &request,
								 "no shared memory for queues, each session keeps its own notes");
}

#else

void *
shared_area(const char *name, Size size, void (*init) (void *area))
{
	return main_area(name, size, init);
}

#endif

/* ---- segments that everybody has, or nobody ---- */

/* In the main shared memory, where a few bytes are to be had by everybody or by nobody */
struct SharedSegment
{
	dsm_handle	handle;			/* written under AddinShmemInitLock */
	pg_atomic_uint32 missed;	/* somebody could not make it, or map it */
};

static void
init_segment(void *area)
{
	SharedSegment *segment = area;

	segment->handle = DSM_HANDLE_INVALID;
	pg_atomic_init_u32(&segment->missed, 0);
}

static void *
get_segment(const AreaRequest *request)
{
	dsm_segment *mapping;
	void	   *area;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	if (request->segment->handle != DSM_HANDLE_INVALID)
		mapping = dsm_attach(request->segment->handle);
	else
		mapping = dsm_create(request->size, 0);
	if (mapping == NULL)
		elog(ERROR, "could not attach to the segment");
	dsm_pin_mapping(mapping);
	area = dsm_segment_address(mapping);
	if (request->segment->handle == DSM_HANDLE_INVALID)
	{
		request->init(area);
		dsm_pin_segment(mapping);
		request->segment->handle = dsm_segment_handle(mapping);
	}
	LWLockRelease(AddinShmemInitLock);
	return area;
}

/*
 * A segment of that size; NULL if there is none.  For what is of no use unless
 * everybody keeps it: who can't have it tells all the others, and from then on
 * until the server is restarted nobody uses it, see shared_segment_is_good().  The
 * log says so by "consequence".  Call this in a transaction, and no more after it has
 * returned NULL.
 */
void *
shared_segment(const char *name, Size size, void (*init) (void *area),
			   const char *consequence, SharedSegment **segment)
{
	AreaRequest request = {name, size, init, NULL};
	void	   *area;

	*segment = NULL;
	if (!IsUnderPostmaster)
		return NULL;
	request.segment = main_area(name, sizeof(SharedSegment), init_segment);
	if (request.segment == NULL || !shared_segment_is_good(request.segment))
		return NULL;
	area = get_in_subtransaction(get_segment, &request, consequence);
	if (area == NULL)
		pg_atomic_write_u32(&request.segment->missed, 1);
	pg_memory_barrier();
	*segment = request.segment;
	return area;
}

/* Whether nobody has failed to get it.  Who has changed something before he failed is seen by who asks after seeing that. */
bool
shared_segment_is_good(SharedSegment *segment)
{
	pg_memory_barrier();
	return pg_atomic_read_u32(&segment->missed) == 0;
}
