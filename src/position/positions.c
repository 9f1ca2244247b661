/*
 * positions.c
 *	  What all sessions know of a queue: its slot, with its floors and marks.
 *
 * A slot belongs to a file: a table that is truncated, rewritten or re-created
 * starts anew.  If another queue needs a slot, it takes that of the queue that
 * was not read for longest, which then starts anew.  Floors and marks are hints
 * only; nothing of them is on disk.
 */
#include "pgmq.h"

#include "base/base.h"
#include "position/positions.h"

#define AMPLE_BUCKETS 1024
#define SCANT_BUCKETS 16

static SlotTable Positions = {NULL, 0, sizeof(Slot)};

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

static Size
size_of_buckets(bool ample)
{
	return slots_size(number_of_buckets(ample), sizeof(Slot));
}

static void
init_buckets(void *area)
{
	slots_init(area, number_of_buckets(shared_is_ample()), sizeof(Slot));
}

static const SharedUse positions = {
	"pgmq-horizon-v7", size_of_buckets, init_buckets,
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
positions_attach(void)
{
	void	   *buckets;

	if (Positions.buckets != NULL)
		return;
	Positions.nbuckets = number_of_buckets(shared_is_ample());
	buckets = shared_area(&positions);
	if (buckets == NULL)
	{
		Positions.nbuckets = number_of_buckets(false);
		buckets = slots_private(Positions.nbuckets, sizeof(Slot));
	}
	Positions.buckets = buckets;
}

SlotBucket *
positions_bucket(uint64 key)
{
	SlotKey		slot_key = slots_key(key);

	return slots_bucket_of(&Positions, &slot_key);
}

/*
 * The queue's slot; the caller holds the bucket's mutex.  Without "create"
 * NULL if it has none any more.
 */
Slot *
positions_find(SlotBucket *bucket, uint64 key, bool create)
{
	SlotKey		slot_key = slots_key(key);
	Slot	   *slot;
	bool		made;

	if (!create)
		return slots_find(&Positions, bucket, &slot_key);
	slot = slots_use(&Positions, bucket, &slot_key, NULL, 0, &made);
	if (made)
	{
		slot->generation = (uint32) slots_number(bucket);
		slot->floors = slot->marks = slot->sent = slot->rescanned = NO_FLOORS;
		slot->ranked = InvalidOid;
		slot->sweep_fresh = PG_INT64_MIN;
		slot->sweep_due = DT_NOBEGIN;
	}
	return slot;
}

void
positions_start_anew(SlotBucket *bucket, Slot *slot)
{
	slot->floors = slot->marks = slot->sent = slot->rescanned = NO_FLOORS;
	slot->ranked = InvalidOid;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->sweep_due = DT_NOBEGIN;
	slot->empty_until = 0;
	slot->generation = (uint32) slots_number(bucket);
}

/*
 * The floors of the ranks; the caller holds the mutex.  If the ranks were dropped and made
 * again, messages have other ranks than before, and the index is another one.
 */
Floors *
positions_ranks(Slot *slot, Oid index)
{
	int			i;

	if (slot->ranked != index)
	{
		slot->ranked = index;
		for (i = 0; i < RANKS; i++)
			slot->ranks[i] = NO_FLOORS;
	}
	return slot->ranks;
}

/* ---- queues that this transaction has read: its rollback asks for a sweep of them ---- */

#define READ_QUEUES 16

/* Fixed size: code after a rollback must not allocate.  Sweeps find what does not fit. */
static uint64 Read[READ_QUEUES];
static int	NumRead = 0;
static bool PassRollback = false;

/* False if it was noted before, or does not fit */
bool
positions_note_read(uint64 key)
{
	int			i;

	for (i = 0; i < NumRead; i++)
	{
		if (Read[i] == key)
			return false;
	}
	if (NumRead == READ_QUEUES)
		return false;
	Read[NumRead++] = key;
	return true;
}

void
positions_forget_read(uint64 key)
{
	int			i;

	for (i = 0; i < NumRead; i++)
	{
		if (Read[i] == key)
			Read[i--] = Read[--NumRead];
	}
}

/*
 * A message has become available again below the marks; the caller holds the
 * mutex.  The next read begins a sweep.  Fresh messages are left to sweeps,
 * which one reader makes at a time.  If the fresh mark were set back, all
 * readers would scan what the others hold.  What is due is taken before what is
 * fresh, so the due mark is set back.
 */
void
positions_set_back(Slot *slot)
{
	slot->marks.due = slot->floors.due;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->sweep_due = DT_NOBEGIN;
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
		SlotBucket *bucket = positions_bucket(Read[i]);
		Slot	   *slot;

		SpinLockAcquire(&bucket->mutex);
		slot = positions_find(bucket, Read[i], false);
		if (slot != NULL)
			positions_set_back(slot);
		SpinLockRelease(&bucket->mutex);
	}
}

/*
 * Until the next call, rollbacks of subtransactions set nothing back: they are moves of dead
 * messages that fail.  If those set the sweeps back, no sweep would come to an end.  Returns
 * what held until now.
 */
bool
horizon_pass_rollback(bool pass)
{
	bool		before = PassRollback;

	PassRollback = pass;
	return before;
}

/* A transaction or a part of it was rolled back (xact.c) */
void
horizon_rolled_back(void)
{
	if (Positions.buckets != NULL && !PassRollback)
		ask_for_sweeps();
}

/* The transaction is over (xact.c) */
void
horizon_forget(void)
{
	NumRead = 0;
	PassRollback = false;
}
