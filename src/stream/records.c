/*
 * records.c
 *	  What sessions tell one another about the open ends of logs: records and listings (see end.c).
 *
 * A record says: this transaction draws no id of this log below "first".  A backend writes its own records only, each
 * behind a spinlock of its own.  A record counts as long as its virtual transaction holds a lock on the log, so it need
 * not be cleared.
 *
 * A listing says which transactions held a write lock on a log when it was made, and their first ids.  It has room
 * for all that there can be.  A slot belongs to the log that used it last; what was known of another log is lost, which
 * costs a listing.
 *
 * A session without the segment keeps its listings to itself.  To others it is a holder without a record.
 */
#include "pgmq.h"

#include "access/twophase.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "stream/internal.h"

/* A transaction that publishes to more streams has no record for the others */
#define RECORDS 4

typedef struct Record
{
	slock_t		mutex;
	LocalTransactionId lxid;	/* of this backend */
	Oid			log;
	int64		first;
} Record;

#define LISTINGS 64
#define OWN_LISTINGS 8
#define NEAR_LISTINGS 8			/* a log has one of so many slots */

typedef struct ListingSlot
{
	pg_atomic_uint64 key;		/* database and log; this and "end" are read without the lock, too */
	pg_atomic_uint64 end;		/* of the listing; 0 before there is one */
	pg_atomic_uint64 used;		/* by ticks() */
	LWLock		lock;
	Listing		listing;		/* with its holders behind it */
} ListingSlot;

typedef struct Area
{
	int			tranche;
	int			backends;
	int			listings;
	int			holders;		/* of a listing */
	/* records of the backends, then listings */
} Area;

static Area *TheArea = NULL;

/* ---- the area ---- */

static int
most_holders(void)
{
	return MaxBackends + max_prepared_xacts + 1;
}

static Size
listing_size(const Area *area)
{
	return MAXALIGN(offsetof(ListingSlot, listing) + offsetof(Listing, holders) + sizeof(Holder) * area->holders);
}

static Size
area_size(const Area *area)
{
	return MAXALIGN(sizeof(Area)) + MAXALIGN(sizeof(Record) * RECORDS * area->backends) +
		listing_size(area) * area->listings;
}

static ListingSlot *
listing_at(Area *area, int i)
{
	return (ListingSlot *) ((char *) area + MAXALIGN(sizeof(Area)) +
							MAXALIGN(sizeof(Record) * RECORDS * area->backends) + listing_size(area) * i);
}

static Record *
record_at(Area *area, int backend, int i)
{
	return (Record *) ((char *) area + MAXALIGN(sizeof(Area))) + (Size) backend * RECORDS + i;
}

static Area
dimensions(bool shared)
{
	Area		area = {.holders = most_holders()};

	area.backends = shared ? (int) ProcGlobal->allProcCount + 1 : 0;
	area.listings = shared ? LISTINGS : OWN_LISTINGS;
	return area;
}

static void
init_area(void *memory, const Area *size)
{
	Area	   *area = memory;
	int			i;
	int			j;

	memset(area, 0, area_size(size));
	*area = *size;
	area->tranche = LWLockNewTrancheId();
	for (i = 0; i < area->backends; i++)
	{
		for (j = 0; j < RECORDS; j++)
			SpinLockInit(&record_at(area, i, j)->mutex);
	}
	for (i = 0; i < area->listings; i++)
	{
		pg_atomic_init_u64(&listing_at(area, i)->key, 0);
		pg_atomic_init_u64(&listing_at(area, i)->end, 0);
		pg_atomic_init_u64(&listing_at(area, i)->used, 0);
		LWLockInitialize(&listing_at(area, i)->lock, area->tranche);
	}
}

static void
init_shared(void *memory)
{
	Area		size = dimensions(true);

	init_area(memory, &size);
}

static Area *
area_get(void)
{
	Area		size;
	Area	   *area;

	if (TheArea != NULL)
		return TheArea;
	size = dimensions(true);
	area = shared_segment("pgmq-streams-v1", area_size(&size), init_shared,
						  "could not allocate shared memory for the ends of streams",
						  "This session may see events later.", NULL);
	if (area == NULL)
	{
		size = dimensions(false);
		area = MemoryContextAlloc(TopMemoryContext, area_size(&size));
		init_area(area, &size);
	}
	LWLockRegisterTranche(area->tranche, "PgmqStreams");
	TheArea = area;
	return area;
}

/* ---- records ---- */

static VirtualTransactionId
own_vxid(void)
{
	VirtualTransactionId vxid;

	GET_VXID_FROM_PGPROC(vxid, *MyProc);
	return vxid;
}

/* From here on this transaction draws no id of the log below "first".  It has no lock on the log, or no id was drawn by now. */
void
record_make(Oid log, int64 first)
{
	Area	   *area = area_get();
	VirtualTransactionId own = own_vxid();
	Record	   *place = NULL;
	int			i;

	for (i = 0; i < RECORDS && area->backends > 0; i++)
	{
		Record	   *record = record_at(area, VirtualTransactionNumber(own), i);

		/* No other session writes here */
		if (record->lxid == own.localTransactionId && record->log == log)
		{
			place = record;
			break;
		}
		if (record->lxid != own.localTransactionId)
			place = record;
	}
	if (place == NULL)
		return;
	SpinLockAcquire(&place->mutex);
	place->lxid = own.localTransactionId;
	place->log = log;
	place->first = first;
	SpinLockRelease(&place->mutex);
}

/* Whether the transaction has a record for the log */
bool
record_find(VirtualTransactionId vxid, Oid log, int64 *first)
{
	Area	   *area = area_get();
	int			i;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid) || VirtualTransactionNumber(vxid) >= area->backends)
		return false;
	for (i = 0; i < RECORDS; i++)
	{
		Record	   *record = record_at(area, VirtualTransactionNumber(vxid), i);
		bool		found;

		SpinLockAcquire(&record->mutex);
		found = record->lxid == vxid.localTransactionId && record->log == log;
		*first = record->first;
		SpinLockRelease(&record->mutex);
		if (found)
			return true;
	}
	return false;
}

bool
record_find_own(Oid log, int64 *first)
{
	return record_find(own_vxid(), log, first);
}

/* ---- listings ---- */

static uint64
log_key(Oid log)
{
	return ((uint64) MyDatabaseId << 32) | log;
}

/* The slot of the log, or (with "make") one that it may take; it is not locked */
static ListingSlot *
find_slot(Oid log, bool make)
{
	Area	   *area = area_get();
	uint64		key = log_key(log);
	uint32		hash = murmurhash32((uint32) (key ^ (key >> 32)));
	ListingSlot *oldest = NULL;
	int			i;

	for (i = 0; i < Min(NEAR_LISTINGS, area->listings); i++)
	{
		ListingSlot *slot = listing_at(area, (int) ((hash + i) % area->listings));

		if (pg_atomic_read_u64(&slot->key) == key)
			return slot;
		if (oldest == NULL || pg_atomic_read_u64(&slot->used) < pg_atomic_read_u64(&oldest->used))
			oldest = slot;
	}
	return make ? oldest : NULL;
}

/* The end of the log by its last listing; 0 if there is none.  Another log that takes the slot sets the end to 0 first. */
int64
listing_end(Oid log)
{
	ListingSlot *slot = find_slot(log, false);
	int64		end;

	if (slot == NULL)
		return 0;
	pg_read_barrier();
	end = (int64) pg_atomic_read_u64(&slot->end);
	pg_read_barrier();
	return pg_atomic_read_u64(&slot->key) == log_key(log) ? end : 0;
}

/* The last listing of the log, palloc'd, with room for all holders */
Listing *
listing_copy(Oid log)
{
	Listing    *listing = palloc0(offsetof(Listing, holders) + sizeof(Holder) * area_get()->holders);
	ListingSlot *slot = find_slot(log, false);

	if (slot == NULL)
		return listing;
	LWLockAcquire(&slot->lock, LW_SHARED);
	if (pg_atomic_read_u64(&slot->key) == log_key(log))
		memcpy(listing, &slot->listing,
			   offsetof(Listing, holders) + sizeof(Holder) * slot->listing.nholders);
	LWLockRelease(&slot->lock);
	return listing;
}

/* A listing was made.  One that has come further stays; but what is known to be stable is kept. */
void
listing_store(Oid log, const Listing *listing)
{
	ListingSlot *slot = find_slot(log, true);
	int64		end = listing->end;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u64(&slot->key) != log_key(log))
	{
		memset(&slot->listing, 0, offsetof(Listing, holders));
		pg_atomic_write_u64(&slot->end, 0);
		pg_write_barrier();
		pg_atomic_write_u64(&slot->key, log_key(log));
		pg_write_barrier();
	}
	end = Max(end, slot->listing.end);
	if (listing->last_id >= slot->listing.last_id)
		memcpy(&slot->listing, listing, offsetof(Listing, holders) + sizeof(Holder) * listing->nholders);
	slot->listing.end = end;
	pg_atomic_write_u64(&slot->end, (uint64) end);
	pg_atomic_write_u64(&slot->used, (uint64) ticks());
	LWLockRelease(&slot->lock);
}
