/*
 * length.c
 *	  How many messages a queue has, about, for the policy max_length.
 *
 * All sessions share a number for each queue with max_length.  A send adds to it before it
 * writes anything, if there is room.  What is removed is subtracted.
 *
 * 1. The number counts rows of open transactions: those that were sent, and those that were
 *	  removed as long as the removal is not committed.  So a rollback of a send subtracts
 *	  what it has added, and a commit subtracts what was removed.  In its own transaction a
 *	  removal makes room at once.
 * 2. Rows that are written or removed by SQL, or by COMMIT PREPARED, are not told here.  So
 *	  the rows are estimated (estimate.c) for a new number every 10 seconds.  The same is done
 *	  before a send is refused, if the last estimate is not from just now.  An estimate takes at most 1
 *	  percent of the time, unless it takes more than a tenth of a second.
 * 3. An estimate sees what (1) counts, and what a send that makes room for itself has removed
 *	  without a commit yet.  That is subtracted: else the next send would remove as much again.  What the number changed by meanwhile is added to it,
 *	  even if the estimate has seen it: so it may be wrong by what was sent and removed
 *	  while it was made, until the next one.
 *
 * Nothing is on disk: after a restart a number begins with an estimate.  Without shared memory
 * each session has its own numbers, and estimates more often.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"

#define AMPLE_BUCKETS 256
#define SCANT_BUCKETS 8

/* Microseconds: an estimate is made after this time, if it is asked for, and after this time at the latest */
#define SHORT_INTERVAL 10000
#define LONG_INTERVAL (10 * USECS_PER_SEC)
#define PART_OF_TIME 100

typedef struct Slot
{
	SlotHead	head;
	uint64		number;			/* of this use of the slot */
	int64		rows;
	int64		dropped;		/* to make room, by open transactions: an estimate still sees it */
	int64		changes;		/* by sessions, not by estimates; of all time */
	bool		known;			/* rows begin with an estimate */
	bool		doubted;		/* a transaction had more to tell than it can keep */
	int64		estimated_at;	/* by ticks() */
	int64		not_before;
} Slot;

static SlotTable Slots = {NULL, 0, sizeof(Slot)};

/* What this transaction has changed; fixed size, because code after a commit must not allocate */
#define MAX_CHANGES 32

typedef struct Change
{
	SlotKey		key;
	uint64		number;
	SubTransactionId subid;
	int64		sent;			/* is in the slot's number */
	int64		removed;		/* is not yet */
	int64		dropped;		/* is in the slot's */
} Change;

static Change Changes[MAX_CHANGES];
static int	NumChanges = 0;

/* ---- shared memory ---- */

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

static const SharedUse lengths = {
	"pgmq-length-v1", size_of_buckets, init_buckets,
	"could not allocate shared memory for the lengths of queues",
	"This session counts for itself."
};

/* Called while the library is loaded */
void
length_init(void)
{
	shared_register(&lengths);
}

static void
attach(void)
{
	void	   *buckets;

	if (Slots.buckets != NULL)
		return;
	Slots.nbuckets = number_of_buckets(shared_is_ample());
	buckets = shared_area(&lengths);
	if (buckets == NULL)
	{
		Slots.nbuckets = number_of_buckets(false);
		buckets = slots_private(Slots.nbuckets, sizeof(Slot));
	}
	Slots.buckets = buckets;
}

static void
add_rows(Slot *slot, int64 rows)
{
	slot->rows += rows;
	slot->changes += rows;
}

/* ---- what this transaction has changed ---- */

/* The caller holds the bucket's spinlock */
static void
note_change(Slot *slot, int64 sent, int64 removed, int64 dropped)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	int			i = 0;

	while (i < NumChanges && !(Changes[i].number == slot->number && Changes[i].subid == subid &&
							   slots_same_key(&Changes[i].key, &slot->head.key)))
		i++;
	if (i == MAX_CHANGES)
	{
		slot->doubted = true;
		return;
	}
	if (i == NumChanges)
		Changes[NumChanges++] = (Change) {.key = slot->head.key, .number = slot->number, .subid = subid};
	Changes[i].sent += sent;
	Changes[i].removed += removed;
	Changes[i].dropped += dropped;
	slot->dropped += dropped;
}

/* What this transaction has removed and the number still counts */
static int64
removed_here(const Slot *slot)
{
	int64		removed = 0;
	int			i;

	for (i = 0; i < NumChanges; i++)
	{
		if (Changes[i].number == slot->number && slots_same_key(&Changes[i].key, &slot->head.key))
			removed += Changes[i].removed;
	}
	return removed;
}

/* An estimate does not see what its own transaction has dropped */
static int64
dropped_elsewhere(const Slot *slot)
{
	int64		dropped = slot->dropped;
	int			i;

	for (i = 0; i < NumChanges; i++)
	{
		if (Changes[i].number == slot->number && slots_same_key(&Changes[i].key, &slot->head.key))
			dropped -= Changes[i].dropped;
	}
	return dropped;
}

/* A part of the transaction is over: add to the number, or doubt it */
static void
settle(const Change *change, int64 rows, bool doubt)
{
	SlotBucket *bucket = slots_lock(&Slots, &change->key);
	Slot	   *slot = slots_find(&Slots, bucket, &change->key);

	if (slot != NULL && slot->number == change->number)
	{
		add_rows(slot, rows);
		slot->dropped -= change->dropped;
		slot->doubted |= doubt;
	}
	slots_unlock(bucket);
}

/* The transaction is over (xact.c) */
void
length_end(bool committed)
{
	int			i;

	for (i = 0; i < NumChanges; i++)
		settle(&Changes[i], committed ? -Changes[i].removed : -Changes[i].sent, false);
	NumChanges = 0;
}

/* It goes on as a prepared one: what was sent stays counted */
void
length_prepared(void)
{
	int			i;

	for (i = 0; i < NumChanges; i++)
		settle(&Changes[i], 0, true);
	NumChanges = 0;
}

void
length_subtransaction_end(bool committed, SubTransactionId id, SubTransactionId parent)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < NumChanges; i++)
	{
		Change		change = Changes[i];

		if (change.subid == id && !committed)
		{
			settle(&change, -change.sent, false);
			continue;
		}
		if (change.subid == id)
			change.subid = parent;
		Changes[kept++] = change;
	}
	NumChanges = kept;
}

/* ---- the number ---- */

static SlotKey
key_of(Oid relid)
{
	return slots_key(((uint64) MyDatabaseId << 32) | relid);
}

static Slot *
lock_slot(const SlotKey *key, SlotBucket **bucket)
{
	Slot	   *slot;
	bool		made;

	*bucket = slots_lock(&Slots, key);
	slot = slots_use(&Slots, *bucket, key, NULL, 0, &made);
	if (made)
		slot->number = slots_number(*bucket);
	return slot;
}

/* Whether an estimate is due before the number decides (2) */
static bool
is_due(const Slot *slot, bool over, int64 now)
{
	if (!slot->known)
		return true;
	if (now < slot->not_before)
		return false;
	return over || slot->doubted || now - slot->estimated_at > LONG_INTERVAL;
}

/* False if the rows of the table cannot be counted */
static bool
estimate(Oid relid, const SlotKey *key)
{
	int64		began = ticks();
	SlotBucket *bucket;
	Slot	   *slot = lock_slot(key, &bucket);
	Slot		noted = *slot;
	int64		rows;
	int64		now;

	/* Others go on with the number as it is */
	slot->not_before = began + SHORT_INTERVAL;
	slot->doubted = false;
	slots_unlock(bucket);
	if (!estimate_rows(relid, &rows))
		return false;
	now = ticks();
	slot = lock_slot(key, &bucket);
	if (slot->number == noted.number)
	{
		slot->rows = rows + removed_here(slot) - dropped_elsewhere(&noted) + slot->changes - noted.changes;
		slot->known = true;
		slot->estimated_at = now;
		slot->not_before = now + Min(Max(SHORT_INTERVAL, (now - began) * PART_OF_TIME), LONG_INTERVAL);
	}
	slots_unlock(bucket);
	return true;
}

/*
 * Before so many messages are sent.  They are counted if there is room for them; "over_too":
 * even if there is none.  Returns by how many the queue would be too long.
 */
int64
length_reserve(const QueueName *name, const QueuePolicy *policy, int64 count, bool over_too)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	SlotKey		key = key_of(relid);
	bool		estimated = false;
	SlotBucket *bucket;
	Slot	   *slot;
	int64		over;

	attach();
	for (;;)
	{
		int64		now = ticks();

		slot = lock_slot(&key, &bucket);
		over = Max(slot->rows - removed_here(slot) + count - policy->max_length, 0);
		if (estimated || over_too || !is_due(slot, over > 0, now))
			break;
		slots_unlock(bucket);
		if (!estimate(relid, &key))
			return 0;
		estimated = true;
	}
	if (over == 0 || over_too)
	{
		add_rows(slot, count);
		note_change(slot, count, 0, 0);
	}
	slots_unlock(bucket);
	return over;
}

/*
 * So many messages were removed from the queue.  They count until the transaction is
 * committed; "at_once": no more, as they make room for others.
 */
void
length_removed(const QueueName *name, const QueuePolicy *policy, int64 count, bool at_once)
{
	SlotBucket *bucket;
	SlotKey		key;
	Slot	   *slot;

	if ((policy->set & POLICY_MAX_LENGTH) == 0 || count <= 0)
		return;
	attach();
	key = key_of(queue_relid(name, QUEUE_TABLE));
	slot = lock_slot(&key, &bucket);
	if (at_once)
	{
		add_rows(slot, -count);
		note_change(slot, -count, -count, count);
	}
	else
		note_change(slot, 0, count, 0);
	slots_unlock(bucket);
}
