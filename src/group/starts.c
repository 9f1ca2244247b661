/*
 * starts.c
 *	  Where the look at a group may start.
 *
 * A group's messages are in the group index in msg_id order, and consumed ones stay
 * at its beginning until they are vacuumed.  A look from the group's first entry
 * would scan all of them, every time.  So groups that were looked at lately have a
 * slot in shared memory that says: below this msg_id the group has no message, now
 * or later.
 *
 * That is true, not only likely:
 *
 * - A session that sets a start has scanned the group from the earlier start up to
 *	 there.  It found nothing alive and nothing that an open transaction is writing
 *	 or deleting, and it has not deleted any of it itself.  Then all of it is dead
 *	 for good.  A transaction that has written to the queue in an earlier command
 *	 does not set starts; front_ours() tells what the same command has deleted or
 *	 moved.
 * - Only an INSERT (or an UPDATE of headers) can put a message below a start.  Its
 *	 trigger lowers the start after the message is in the index.  A scan that began
 *	 before the message was there must not undo this.  So a slot keeps the lowest
 *	 messages that came lately.  A scan raises the start no higher than the lowest
 *	 that came since it began.  So senders cost a scan nothing unless they send
 *	 below what it has found.
 *
 * Messages that were written without the triggers may be below a start.  The sweep
 * (groupsweep.c), which uses no starts, lowers the start when it finds one.
 *
 * So a look that starts from here finds every message whose send has returned,
 * committed or not.
 *
 * A transaction that deletes message by message would scan all that it has deleted
 * itself, every time.  So it has starts of its own as well, which no other session
 * knows: below them there is nothing that it has not deleted itself.  They are
 * dropped when a part of it is rolled back.  One is void as soon as a message comes
 * below any such start of the group.
 *
 * A slot is identified by two 64-bit hashes of the group's key and the file of the
 * notes.  It is lost when another group needs its place; then the next look scans
 * from the beginning.  With more groups in use than slots that happens all the
 * time.  Then a look takes longer the more of the group was consumed since the last
 * vacuum.  So there are many slots, in a segment of their own.  If a session cannot
 * attach to it, no session uses starts: a start that not every session can lower is
 * useless.
 */
#include "pgmq.h"

#include "common/hashfn.h"
#include "storage/spin.h"

#include "base/base.h"
#include "queue/queue.h"
#include "group/group.h"
#include "group/internal.h"

/* How many arrivals a slot tells apart */
#define ARRIVALS 3

/* A message that arrived: the lowest one since the previous arrival in the list */
typedef struct Arrival
{
	int64		msg_id;
	uint64		number;
} Arrival;

typedef struct StartSlot
{
	uint64		hash[2];		/* both 0: free */
	uint64		serial;			/* changes when the slot gets another group */
	uint64		used;			/* a number that grows with each use */
	int64		from;
	uint64		arrived;		/* how many messages have arrived */
	Arrival		arrivals[ARRIVALS];	/* each is lower than the next, and came earlier */
	int			narrivals;
	int64		own_highest;	/* of the starts that transactions have for themselves */
	uint64		own_good;		/* a number; starts that were set under another number are void */
} StartSlot;

#define SLOTS_PER_BUCKET 4

typedef struct StartBucket
{
	slock_t		mutex;			/* held for a few assignments only */
	uint64		last_number;	/* the source of serials and the like */
	StartSlot	slots[SLOTS_PER_BUCKET];
} StartBucket;

/* For 65,536 groups: 8 MB */
#define BUCKETS 16384

/* The current transaction's own starts.  Fixed size: code after a rollback must not allocate. */
typedef struct OwnStart
{
	uint64		hash[2];
	int64		from;
	uint64		good;			/* as the slot's own_good was; 0: free */
} OwnStart;

#define OWN_STARTS 256

static OwnStart Own[OWN_STARTS];
static bool HaveOwn = false;

static StartBucket *Buckets = NULL;
static SharedSegment *StartsSegment = NULL;
static bool Attached = false;

static void
init_buckets(void *area)
{
	StartBucket *buckets = area;
	int			i;

	memset(buckets, 0, sizeof(StartBucket) * BUCKETS);
	for (i = 0; i < BUCKETS; i++)
		SpinLockInit(&buckets[i].mutex);
}

/*
 * Call this before the first look at a group, not during one: it makes visible
 * what the current command has done so far.
 */
void
starts_attach(void)
{
	if (Attached)
		return;
	Buckets = shared_segment("pgmq-starts-v3", sizeof(StartBucket) * BUCKETS, init_buckets,
							 "could not allocate shared memory for the starts of message groups",
							 "Until the server is restarted, all sessions look at groups from the front.",
							 &StartsSegment);
	Attached = true;			/* or, after an error, at the next call */
}

/* All sessions have them, or no session uses them. */
static bool
have_starts(void)
{
	return Buckets != NULL && shared_segment_is_good(StartsSegment);
}

static void
hash_group(const GroupQueue *queue, const text *key, uint64 *hash)
{
	const unsigned char *data = (const unsigned char *) VARDATA_ANY(key);
	int			len = VARSIZE_ANY_EXHDR(key);

	hash[0] = hash_bytes_extended(data, len, queue->key);
	hash[1] = hash_bytes_extended(data, len, ~queue->key);
	if (hash[0] == 0 && hash[1] == 0)
		hash[1] = 1;
}

static StartBucket *
bucket_of(const uint64 *hash)
{
	return &Buckets[hash[0] % BUCKETS];
}

/* The caller holds the bucket's mutex. */
static StartSlot *
find_slot(StartBucket *bucket, const uint64 *hash, bool create)
{
	StartSlot  *oldest = &bucket->slots[0];
	int			i;

	for (i = 0; i < SLOTS_PER_BUCKET; i++)
	{
		StartSlot  *slot = &bucket->slots[i];

		if (slot->hash[0] == hash[0] && slot->hash[1] == hash[1])
			return slot;
		if (slot->used < oldest->used)
			oldest = slot;
	}
	if (!create)
		return NULL;
	memset(oldest, 0, sizeof(*oldest));
	oldest->hash[0] = hash[0];
	oldest->hash[1] = hash[1];
	oldest->serial = ++bucket->last_number;
	oldest->from = oldest->own_highest = PG_INT64_MIN;
	oldest->own_good = ++bucket->last_number;
	return oldest;
}

/*
 * A message has arrived; the caller holds the mutex.  Earlier arrivals that are
 * not lower need not be kept: a scan that must respect them must respect this
 * one.  If there are too many, the two oldest become one, which then limits
 * more scans than necessary.
 */
static void
note_arrival(StartSlot *slot, int64 msg_id)
{
	slot->arrived++;
	while (slot->narrivals > 0 && slot->arrivals[slot->narrivals - 1].msg_id >= msg_id)
		slot->narrivals--;
	if (slot->narrivals == ARRIVALS)
	{
		slot->arrivals[1].msg_id = slot->arrivals[0].msg_id;
		memmove(&slot->arrivals[0], &slot->arrivals[1], sizeof(Arrival) * (ARRIVALS - 1));
		slot->narrivals--;
	}
	slot->arrivals[slot->narrivals++] = (Arrival) {msg_id, slot->arrived};
}

/* The lowest message that arrived since the counter was "arrived"; the caller holds the mutex. */
static int64
lowest_since(const StartSlot *slot, uint64 arrived)
{
	int			i;

	for (i = 0; i < slot->narrivals; i++)
	{
		if (slot->arrivals[i].number > arrived)
			return slot->arrivals[i].msg_id;
	}
	return PG_INT64_MAX;
}

static OwnStart *
own_start(const uint64 *hash)
{
	return &Own[hash[1] % OWN_STARTS];
}

/* A part of the current transaction was rolled back, or it is over (xact.c).  Nothing here can fail. */
void
starts_forget_own(void)
{
	if (HaveOwn)
		memset(Own, 0, sizeof(Own));
	HaveOwn = false;
}

/* Where to start the scan, and what is needed later to raise the start */
void
starts_find(const GroupQueue *queue, const text *key, GroupStart *start)
{
	StartBucket *bucket;
	StartSlot  *slot;
	OwnStart   *own;

	start->from = PG_INT64_MIN;
	start->serial = 0;
	start->own = false;
	if (!have_starts())
		return;
	hash_group(queue, key, start->hash);
	own = own_start(start->hash);
	bucket = bucket_of(start->hash);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, start->hash, true);
	slot->used = ++bucket->last_number;
	start->from = slot->from;
	start->serial = slot->serial;
	start->arrived = slot->arrived;
	if (HaveOwn && own->hash[0] == start->hash[0] && own->hash[1] == start->hash[1] &&
		own->good == slot->own_good && own->from > slot->from)
	{
		start->from = own->from;
		start->own = true;
	}
	SpinLockRelease(&bucket->mutex);
}

/*
 * The scan that began with starts_find() has found that all below is dead for
 * good; or ("ours") dead for the current transaction, which may have deleted
 * it.
 */
void
starts_advance(const GroupStart *start, int64 to, bool ours)
{
	OwnStart   *own = own_start(start->hash);
	StartBucket *bucket;
	StartSlot  *slot;

	/* A session that began at its own start has not seen what is below */
	if (start->serial == 0 || to <= start->from || (start->own && !ours))
		return;
	bucket = bucket_of(start->hash);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, start->hash, false);
	if (slot != NULL && slot->serial == start->serial)
	{
		to = Min(to, lowest_since(slot, start->arrived));
		if (ours)
		{
			memcpy(own->hash, start->hash, sizeof(own->hash));
			own->from = to;
			own->good = slot->own_good;
			slot->own_highest = Max(slot->own_highest, to);
			HaveOwn = true;
		}
		else
			slot->from = Max(slot->from, to);
	}
	SpinLockRelease(&bucket->mutex);
}

/* A message has arrived; or ("only_if_below") was found, and may have been written without the triggers. */
void
starts_lower(const GroupQueue *queue, const text *key, int64 msg_id, bool only_if_below)
{
	uint64		hash[2];
	StartBucket *bucket;
	StartSlot  *slot;

	if (!have_starts())
		return;
	hash_group(queue, key, hash);
	bucket = bucket_of(hash);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, hash, false);
	if (slot != NULL && (!only_if_below || msg_id < Max(slot->from, slot->own_highest)))
	{
		slot->from = Min(slot->from, msg_id);
		note_arrival(slot, msg_id);
		if (msg_id < slot->own_highest)
			slot->own_good = ++bucket->last_number;
	}
	SpinLockRelease(&bucket->mutex);
}
