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
 *	 for good.  A transaction that holds a writer's lock on the queue, in this command
 *	 or since an earlier one, sets starts of its own only.
 * - Only an INSERT (or an UPDATE of headers) can put a message below a start.  Its
 *	 trigger lowers the start after the message is in the index.  A scan that began
 *	 before the message was there must not undo this.  So time is divided into
 *	 rounds, and a slot keeps the lowest message that came in the current one.  A
 *	 scan raises the start no higher than that, and only if it began in the same
 *	 round.  Then the next round begins.  So senders cost a scan nothing unless they
 *	 send below what it has found, and of several scans at once one succeeds.
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

#include "base/base.h"
#include "queue/queue.h"
#include "group/group.h"
#include "group/internal.h"

typedef struct StartSlot
{
	SlotHead	head;
	int64		from;
	uint64		round;			/* its number, which no other slot of the bucket has had */
	int64		lowest;			/* of the messages that came in this round */
	int64		own_highest;	/* of the starts that transactions have for themselves */
	uint64		own_good;		/* a number; starts that were set under another number are void */
} StartSlot;

/* For 65,536 groups: 8 MB */
#define BUCKETS 16384

/* The current transaction's own starts.  Fixed size: code after a rollback must not allocate. */
typedef struct OwnStart
{
	SlotKey		key;
	int64		from;
	uint64		good;			/* as the slot's own_good was; 0: free */
} OwnStart;

#define OWN_STARTS 256

static OwnStart Own[OWN_STARTS];
static bool HaveOwn = false;

static SlotTable Starts = {NULL, BUCKETS, sizeof(StartSlot)};
static SharedSegment *StartsSegment = NULL;
static bool Attached = false;

static void
init_starts(void *area)
{
	slots_init(area, Starts.nbuckets, Starts.slot_size);
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
	Starts.buckets = shared_segment("pgmq-starts-v5", slots_size(Starts.nbuckets, Starts.slot_size), init_starts,
									"could not allocate shared memory for the starts of message groups",
									"Until the server is restarted, all sessions look at groups from the front.",
									&StartsSegment);
	Attached = true;			/* or, after an error, at the next call */
}

/* All sessions have them, or no session uses them. */
static bool
have_starts(void)
{
	return Starts.buckets != NULL && shared_segment_is_good(StartsSegment);
}

static SlotKey
key_of(const GroupQueue *queue, const text *key)
{
	return slots_hash(VARDATA_ANY(key), (int) VARSIZE_ANY_EXHDR(key), queue->key);
}

/* A slot that is new says nothing about the group. */
static void
init_slot(SlotBucket *bucket, StartSlot *slot)
{
	slot->from = slot->own_highest = PG_INT64_MIN;
	slot->round = slots_number(bucket);
	slot->lowest = PG_INT64_MAX;
	slot->own_good = slots_number(bucket);
}

static OwnStart *
own_start(const SlotKey *key)
{
	return &Own[key->hash[1] % OWN_STARTS];
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
	SlotBucket *bucket;
	StartSlot  *slot;
	OwnStart   *own;
	bool		made;

	start->from = PG_INT64_MIN;
	start->round = 0;
	start->own = false;
	if (!have_starts())
		return;
	start->key = key_of(queue, key);
	own = own_start(&start->key);
	bucket = slots_lock(&Starts, &start->key);
	slot = slots_use(&Starts, bucket, &start->key, NULL, 0, &made);
	if (made)
		init_slot(bucket, slot);
	start->from = slot->from;
	start->round = slot->round;
	if (HaveOwn && slots_same_key(&own->key, &start->key) &&
		own->good == slot->own_good && own->from > slot->from)
	{
		start->from = own->from;
		start->own = true;
	}
	slots_unlock(bucket);
}

/*
 * The scan that began with starts_find() has found that all below is dead for
 * good; or ("ours") dead for the current transaction, which may have deleted
 * it.
 */
void
starts_advance(const GroupStart *start, int64 to, bool ours)
{
	OwnStart   *own = own_start(&start->key);
	SlotBucket *bucket;
	StartSlot  *slot;

	/* A session that began at its own start has not seen what is below */
	if (start->round == 0 || (start->own && !ours))
		return;
	bucket = slots_lock(&Starts, &start->key);
	slot = slots_find(&Starts, bucket, &start->key);
	if (slot != NULL && slot->round == start->round)
	{
		to = Min(to, slot->lowest);
		if (!ours)
		{
			slot->from = Max(slot->from, to);
			slot->round = slots_number(bucket);
			slot->lowest = PG_INT64_MAX;
		}
		else if (to > start->from)
		{
			own->key = start->key;
			own->from = to;
			own->good = slot->own_good;
			slot->own_highest = Max(slot->own_highest, to);
			HaveOwn = true;
		}
	}
	slots_unlock(bucket);
}

/* A message has arrived; or ("only_if_below") was found, and may have been written without the triggers. */
void
starts_lower(const GroupQueue *queue, const text *key, int64 msg_id, bool only_if_below)
{
	SlotKey		slot_key;
	SlotBucket *bucket;
	StartSlot  *slot;

	if (!have_starts())
		return;
	slot_key = key_of(queue, key);
	bucket = slots_lock(&Starts, &slot_key);
	slot = slots_find(&Starts, bucket, &slot_key);
	if (slot != NULL && (!only_if_below || msg_id < Max(slot->from, slot->own_highest)))
	{
		slot->from = Min(slot->from, msg_id);
		slot->lowest = Min(slot->lowest, msg_id);
		if (msg_id < slot->own_highest)
			slot->own_good = slots_number(bucket);
	}
	slots_unlock(bucket);
}
