/*
 * slots.c
 *	  What all sessions know of a queue: its slot, with its floors and marks.
 *
 * A slot belongs to a file: a table that is truncated, rewritten or re-created
 * starts anew.  If another queue needs a slot, it takes that of the queue that
 * was not read for longest, which then starts anew.  Floors and marks are hints
 * only; nothing of them is on disk.
 */
#include "pgmq.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "position/slots.h"

#define AMPLE_BUCKETS 1024
#define SCANT_BUCKETS 16

static Bucket *Buckets = NULL;
static int	NumBuckets = 0;

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

static Size
size_of_buckets(bool ample)
{
	return sizeof(Bucket) * number_of_buckets(ample);
}

static void
init_buckets(void *area)
{
	Bucket	   *buckets = area;
	int			i;

	memset(buckets, 0, sizeof(Bucket) * NumBuckets);
	for (i = 0; i < NumBuckets; i++)
		SpinLockInit(&buckets[i].mutex);
}

static const SharedUse positions = {
	"pgmq-horizon-v3", size_of_buckets, init_buckets,
	"could not allocate shared memory for queue positions",
	"This session keeps its own."
};

/* Called while the library is loaded */
void
horizon_init(void)
{
	shared_register(&positions);
}

/* Shared if possible, else this backend's own */
void
slots_attach(void)
{
	Bucket	   *buckets;

	if (Buckets != NULL)
		return;
	NumBuckets = number_of_buckets(shared_is_ample());
	buckets = shared_area(&positions);
	if (buckets == NULL)
	{
		NumBuckets = number_of_buckets(false);
		buckets = MemoryContextAllocExtended(TopMemoryContext, sizeof(Bucket) * NumBuckets, 0);
		init_buckets(buckets);
	}
	Buckets = buckets;
}

Bucket *
slots_bucket(uint64 key)
{
	return &Buckets[murmurhash32((uint32) (key ^ (key >> 32))) % NumBuckets];
}

/*
 * The queue's slot; the caller holds the bucket's mutex.  Without "create"
 * NULL if it has none any more.
 */
Slot *
slots_find(Bucket *bucket, uint64 key, bool create)
{
	Slot	   *oldest = &bucket->slots[0];
	int			i;

	for (i = 0; i < SLOTS_PER_BUCKET; i++)
	{
		Slot	   *slot = &bucket->slots[i];

		if (slot->key == key)
			return slot;
		if (slot->last_used < oldest->last_used)
			oldest = slot;
	}
	if (!create)
		return NULL;
	memset(oldest, 0, sizeof(*oldest));
	oldest->key = key;
	oldest->generation = ++bucket->last_generation;
	oldest->floors = oldest->marks = oldest->sent = NO_FLOORS;
	oldest->sweep_fresh = PG_INT64_MIN;
	return oldest;
}

void
slots_start_anew(Bucket *bucket, Slot *slot)
{
	slot->floors = slot->marks = slot->sent = NO_FLOORS;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->empty_until = 0;
	slot->generation = ++bucket->last_generation;
}

/* ---- queues that this transaction has read: its rollback asks for a sweep of them ---- */

#define READ_QUEUES 16

/* Fixed size: code after a rollback must not allocate.  Sweeps find what does not fit. */
static uint64 Read[READ_QUEUES];
static int	NumRead = 0;

void
slots_note_read(uint64 key)
{
	int			i;

	for (i = 0; i < NumRead; i++)
	{
		if (Read[i] == key)
			return;
	}
	if (NumRead < READ_QUEUES)
		Read[NumRead++] = key;
}

/*
 * A message has become available again below the marks; the caller holds the
 * mutex.  The next read begins a sweep.  Fresh messages are left to sweeps,
 * which one reader makes at a time.  If the fresh mark were set back, all
 * readers would scan what the others hold.  What is due is taken before what is
 * fresh, so the due mark is set back.
 */
void
slots_set_back(Slot *slot)
{
	slot->marks.due = slot->floors.due;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->next_sweep = 0;
	slot->setbacks++;
}

/* Nothing here can fail: no allocation, no look-up, a spinlock at most. */
static void
ask_for_sweeps(void)
{
	int			i;

	for (i = 0; i < NumRead; i++)
	{
		Bucket	   *bucket = slots_bucket(Read[i]);
		Slot	   *slot;

		SpinLockAcquire(&bucket->mutex);
		slot = slots_find(bucket, Read[i], false);
		if (slot != NULL)
			slots_set_back(slot);
		SpinLockRelease(&bucket->mutex);
	}
}

/* A transaction or a part of it was rolled back (xact.c) */
void
horizon_rolled_back(void)
{
	if (Buckets != NULL)
		ask_for_sweeps();
}

/* The transaction is over (xact.c) */
void
horizon_forget(void)
{
	NumRead = 0;
}
