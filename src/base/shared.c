/*
 * shared.c
 *	  Where shared memory comes from.
 *
 * PostgreSQL 17 and later have named segments, which need no preloading.  Earlier
 * versions reserve an area if the library is in shared_preload_libraries.
 * Otherwise they use a small area from the reserve that the server keeps for such
 * uses.  If that is used up, the caller gets NULL and must work without shared
 * memory.
 *
 * A large area that is useless unless all sessions have it gets a segment in all
 * versions, preloaded or not: see shared_segment().
 *
 * All other sessions may wait for the session that holds a spinlock.  So spinlocks
 * are held for a few assignments: a bucket has four slots, at most 32, and a search for
 * one compares as many keys.  Code under a spinlock calls nothing that could raise
 * an error, allocate memory, or make a system call.
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

#include "base/shared.h"

/* Set in the postmaster, and inherited or set again in every backend */
static bool preloaded = false;

#ifndef HAVE_NAMED_DSM_SEGMENTS
static shmem_request_hook_type next_request_hook = NULL;

#define MAX_USES 8

/* Those for which space is to be reserved */
static const SharedUse *Uses[MAX_USES];
static int	NumUses = 0;

static void
request_areas(void)
{
	int			i;

	if (next_request_hook)
		next_request_hook();
	for (i = 0; i < NumUses; i++)
		RequestAddinShmemSpace(Uses[i]->size(true));
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

/* Called while the library is loaded, after shared_init() */
void
shared_register(const SharedUse *use)
{
#ifndef HAVE_NAMED_DSM_SEGMENTS
	if (!preloaded)
		return;
	if (NumUses == MAX_USES)
		elog(ERROR, "too many uses of shared memory");
	Uses[NumUses++] = use;
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

typedef struct AreaRequest
{
	const char *name;
	Size		size;
	void		(*init) (void *area);
	const char *message;		/* for the log, if there is no memory */
	const char *detail;
	bool		preloading_helps;
	SharedSegment *segment;
} AreaRequest;

static void
report_failure(const AreaRequest *request, const char *reason)
{
	ereport(LOG,
			(errmsg("pgmq: %s: %s", request->message, reason),
			 errdetail("%s", request->detail),
			 !request->preloading_helps ? 0 : errhint("Add pgmq to shared_preload_libraries.")));
}

/*
 * If there is no room, or no memory to map it, the server raises an error in the
 * middle of its work.  It holds locks on its registry.  It may have half attached to
 * an area, or half made an entry; then another attempt of this session, or of any
 * session, is an error as well.  The same name with another size is an error, too:
 * then another release of this library has made the memory.  Sessions must be able to
 * read nevertheless.  So the rollback of a subtransaction releases the locks, and the
 * log says what happened.  The session works without the area and does not try again.
 */
static void *
get_in_subtransaction(void *(*get) (AreaRequest *), AreaRequest *request)
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
		report_failure(request, error->message);
		FreeErrorData(error);
		area = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return area;
}

/* From the server's main shared memory.  The caller holds AddinShmemInitLock. */
static void *
main_area(const char *name, Size size, void (*init) (void *area))
{
	bool		found;
	void	   *area = ShmemInitStruct(name, size, &found);

	if (!found)
		init(area);
	return area;
}

static void *
get_area(AreaRequest *request)
{
	void	   *area;

#ifdef HAVE_NAMED_DSM_SEGMENTS
	bool		found;

	area = GetNamedDSMSegment(request->name, request->size, request->init, &found);
#else
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	area = main_area(request->name, request->size, request->init);
	LWLockRelease(AddinShmemInitLock);
#endif
	return area;
}

/*
 * NULL if there is none; then the log says so.  The layout's version is in the name:
 * an area lives until the server is restarted, and a later library with another layout
 * must not attach to it.
 *
 * A background worker outside of a transaction can have no subtransaction:
 * there an error ends it, and it is started again.
 */
void *
shared_area(const SharedUse *use)
{
	AreaRequest request = {
		use->name, use->size(shared_is_ample()), use->init, use->message, use->detail, !shared_is_ample(), NULL
	};

	if (!IsUnderPostmaster)		/* a stand-alone backend has no segments */
		return NULL;
	if (!IsTransactionState())
		return get_area(&request);
	return get_in_subtransaction(get_area, &request);
}

/* ---- segments that all sessions have, or none uses ---- */

/*
 * In the main shared memory, where a few bytes are available to all sessions or to none.
 * Sessions with libraries of different versions share this, so it never changes.
 */
struct SharedSegment
{
	dsm_handle	handle;			/* written under AddinShmemInitLock */
	pg_atomic_uint32 missed;	/* a session could not make it, or map it */
	uint32		layout;			/* of the segment, as its first session knows it; 0 before */
};

static void
init_segment(void *area)
{
	SharedSegment *segment = area;

	segment->handle = DSM_HANDLE_INVALID;
	pg_atomic_init_u32(&segment->missed, 0);
	segment->layout = 0;
}

/* The version in the name of an area, "pgmq name-v1" */
static uint32
layout_of(const char *name)
{
	const char *version = strstr(name, "-v");

	Assert(version != NULL);
	return (uint32) strtoul(version + 2, NULL, 10);
}

/*
 * By the name without its version.  So libraries of two versions find the same entry,
 * and each of them learns that not all sessions have the same segment.
 */
static SharedSegment *
find_segment(const char *name)
{
	return main_area(pnstrdup(name, strstr(name, "-v") - name), sizeof(SharedSegment), init_segment);
}

static void *
get_segment(AreaRequest *request)
{
	uint32		layout = layout_of(request->name);
	SharedSegment *segment;
	dsm_segment *mapping;
	void	   *area;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	segment = request->segment = find_segment(request->name);
	if (!shared_segment_is_good(segment))
	{
		LWLockRelease(AddinShmemInitLock);
		return NULL;
	}
	if (segment->layout == 0)
		segment->layout = layout;
	if (segment->layout != layout)
		elog(ERROR, "another version of the library has made it");
	if (segment->handle != DSM_HANDLE_INVALID)
		mapping = dsm_attach(segment->handle);
	else
		mapping = dsm_create(request->size, 0);
	if (mapping == NULL)
		elog(ERROR, "could not attach to the segment");
	dsm_pin_mapping(mapping);
	area = dsm_segment_address(mapping);
	if (segment->handle == DSM_HANDLE_INVALID)
	{
		request->init(area);
		dsm_pin_segment(mapping);
		segment->handle = dsm_segment_handle(mapping);
	}
	LWLockRelease(AddinShmemInitLock);
	return area;
}

/*
 * A segment of that size; NULL if there is none.  The name ends with the version of the
 * layout, as in "pgmq-starts-v4".  For data that are useless unless all
 * sessions keep them.  A session that cannot attach reports that to all others, and no
 * session uses the segment until the server is restarted: see shared_segment_is_good().
 * The log says so with the message and the detail.  Call this in a transaction, and not
 * again after it has returned NULL.  If "segment" is NULL, other sessions may use it
 * whether this one has it or not.
 */
void *
shared_segment(const char *name, Size size, void (*init) (void *area),
			   const char *message, const char *detail, SharedSegment **segment)
{
	AreaRequest request = {name, size, init, message, detail, false, NULL};
	void	   *area;

	if (segment != NULL)
		*segment = NULL;
	if (!IsUnderPostmaster)
		return NULL;
	area = get_in_subtransaction(get_segment, &request);
	if (segment != NULL)
		*segment = request.segment;
	if (area == NULL && segment != NULL && *segment != NULL)
		pg_atomic_write_u32(&(*segment)->missed, 1);
	pg_memory_barrier();
	return area;
}

/*
 * True if no session has failed to attach.  Changes made by a session before it reported
 * failure are visible to any session that sees the report.
 */
bool
shared_segment_is_good(SharedSegment *segment)
{
	pg_memory_barrier();
	return pg_atomic_read_u32(&segment->missed) == 0;
}
