/*
 * starts.c
 *	  Where the look at a group may start.
 *
 * A group's messages stand in the group index in msg_id order, and what was
 * consumed stands in front until it is vacuumed.  A look that began at the
 * group's first entry would walk past all of that, every time.  So for the
 * groups that were looked at lately there is a slot in shared memory that says:
 * below this msg_id the group has no message, and never will.
 *
 * That is true, not only likely:
 *
 * - Who sets a start has walked the group from the start before up to there and
 *	 found nothing alive, nothing that an open transaction is writing or
 *	 deleting, and is not the one who deleted it: then all of it is dead for good.
 *	 A transaction that has written to the queue in an earlier command does not
 *	 set starts; what the same command has deleted or moved, front_ours() tells.
 * - A message can only come below a start by an INSERT (or an UPDATE of its
 *	 headers), and that lowers the start, in its trigger, after the message
 *	 stands in the index.  A walk that began before the message was there must
 *	 not undo this: a slot keeps the lowest messages that came lately, and a walk
 *	 raises the start no higher than the lowest that came since it began.  So
 *	 senders cost a walk nothing unless they send below what it has found.
 *
 * What was written past the triggers may lie below a start.  The sweep
 * (groupsweep.c), which uses no starts, lowers the start when it finds that.
 *
 * So a look that starts from here finds every message whose send has returned,
 * committed or not.
 *
 * A transaction that deletes message by message would walk past all that it has
 * deleted itself, every time.  So it has starts of its own as well, known to nobody
 * else: below lies nothing that it has not deleted itself.  They are forgotten when
 * a part of it is rolled back, and one is void as soon as a message comes below any
 * such start of the group.
 *
 * A slot is known by two 64-bit hashes of the group's key and the file of the
 * notes, and is lost when others need its place: the next look then walks from
 * the front.  With more groups in use than there are slots that happens all the
 * time, and a look takes the longer the more of the group was consumed since the
 * last vacuum.  So there are many, in a segment of their own.  Who can't have that
 * makes all others do without: a start that not everybody can lower is of no use.
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

/* A message that came: the lowest since the arrival before it in the list */
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
	uint64		arrived;		/* how many messages have come */
	Arrival		arrivals[ARRIVALS];	/* each is lower than those behind it, and came earlier */
	int			narrivals;
	int64		own_highest;	/* of the starts that transactions have for themselves */
	uint64		own_good;		/* a number: those are void that were set under another */
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

/* What the current transaction has for itself.  Fixed size: what follows a rollback must not allocate. */
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
 * Before the first look at a group.  Not in the midst of one: this makes what
 * the current command has done so far visible.
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

/* Everybody has them, or nobody uses them. */
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
 * A message has come; the caller holds the mutex.  Those that came before and
 * are not lower need not be remembered: who must respect them must respect this
 * one.  When there are too many, the two oldest become one, which stands for more
 * walks than it should.
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

/* The lowest message that came since "arrived" was so many; the caller holds the mutex. */
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

/* From where to walk, and what it takes to say later how far it was in vain */
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
 * The walk that began with starts_find() has found that all below is dead for
 * good; or ("ours") dead for the current transaction, which may have deleted it.
 */
void
starts_advance(const GroupStart *start, int64 to, bool ours)
{
	OwnStart   *own = own_start(start->hash);
	StartBucket *bucket;
	StartSlot  *slot;

	/* A session that began at a start of its own has not seen what lies below */
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

/* A message has come; or ("only_if_below") was found, which may have come past the triggers. */
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
