/*
 * announce.c
 *	  When the listeners of a queue are told: at most once in an interval, and
 *	  never too late.
 *
 * NOTIFY takes a lock that all notifying transactions of the cluster share,
 * from just before the commit until after it.  So of many senders, few should
 * notify.  That is decided when a transaction commits, not when it sends: a
 * sender that stays open or is rolled back keeps no other sender silent.  No
 * row that senders write decides it, so no sender waits for another.  Senders
 * share a slot in shared memory for each channel, protected by a spinlock.
 *
 * A transaction that is about to commit finds in the slot that
 * - the interval since the last announcement is over: it takes the turn and
 *	 notifies, as part of its own commit.  The server hands that to listeners
 *	 when they can see the transaction's rows.
 *  - the interval is not over: it stays silent.  It makes sure that an
 *	 announcer runs (announcer.c), a background worker of the database.  It
 *	 counts itself as committing, which keeps the announcer from leaving.  When
 *	 it has committed it sets "unannounced".  At the interval's end the
 *	 announcer clears that and notifies.
 * - there is no announcer to rely on (no shared memory, no free slot, no
 *	 background worker available): it notifies at once.  Too often is harmless.
 *
 * Why every commit is announced by a notification that comes after it:
 * "unannounced" is set when the rows are visible to all sessions, because the
 * server calls XACT_EVENT_COMMIT after that.  The announcer clears it before it
 * begins the transaction that notifies.  So listeners that get the notification
 * see the rows of all transactions that had set the flag.  A transaction that
 * sets it later is left for the next notification.  If the announcer's
 * transaction fails, the flag is set again.  If the transaction that took the
 * turn fails, the silent ones have set the flag nevertheless.  A crash of the
 * server loses the flags, and every listener's connection: a listener must read
 * once after LISTEN, as always with NOTIFY.
 *
 * What is done after the commit can't fail: no allocation, no look-up, a
 * spinlock at most.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "notify/notify.h"
#include "notify/announce.h"

/* What is known about the announcements of a channel */
typedef struct ChannelSlot
{
	SlotHead	head;
	Oid			db;				/* InvalidOid: free */
	Channel		channel;
	int64		last;			/* by ticks(): when one was decided on; 0: never */
	TimestampTz last_at;		/* the same, for people */
	int64		interval;		/* microseconds */
	int			committing;		/* transactions that were kept silent and are about to commit */
	bool		unannounced;	/* one has committed since the last announcement */
	bool		announcing;		/* the announcer is at it */
} ChannelSlot;

/* A channel that this transaction has used */
typedef struct Pending
{
	Channel		channel;
	bool		forget_last;	/* its setting was changed, else messages were sent */
	int			interval_ms;
	int			nest_level;		/* of the subtransaction that did it */
	ChannelSlot *slot;			/* where we count as committing */
} Pending;

/*
 * In TopMemoryContext, not in that of the transaction: so it cannot dangle.
 * Its entries are dropped when the transaction ends (xact.c).
 */
static Pending *Pendings = NULL;
static int	NumPending = 0;
static int	MaxPending = 0;

/* An array that has grown beyond this is given back at the end of the transaction. */
#define KEEP_PENDING 64

static AnnounceArea *Area = NULL;
static SlotTable Slots = {NULL, 0, sizeof(ChannelSlot)};

/* ---- the slots ---- */

#define AMPLE_BUCKETS 256
#define SCANT_BUCKETS 8

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

static Size
size_of_area(bool ample)
{
	return MAXALIGN(sizeof(AnnounceArea)) + slots_size(number_of_buckets(ample), sizeof(ChannelSlot));
}

static char *
slots_of(void *area)
{
	return (char *) area + MAXALIGN(sizeof(AnnounceArea));
}

static void
init_area(void *memory)
{
	AnnounceArea *area = memory;

	memset(area, 0, sizeof(*area));
	SpinLockInit(&area->mutex);
	slots_init(slots_of(area), number_of_buckets(shared_is_ample()), sizeof(ChannelSlot));
}

static const SharedUse announcements = {
	"pgmq-announce-v2", size_of_area, init_area,
	"could not allocate shared memory for notifications",
	"This session notifies at each commit."
};

/* Called while the library is loaded */
void
announce_init(void)
{
	shared_register(&announcements);
}

/* NULL if there is no shared memory */
AnnounceArea *
announce_area(void)
{
	static bool tried = false;

	if (!tried)
	{
		Area = shared_area(&announcements);
		if (Area != NULL)
		{
			Slots.nbuckets = number_of_buckets(shared_is_ample());
			Slots.buckets = slots_of(Area);
		}
		tried = true;
	}
	return Area;
}

static SlotKey
key_of(const Channel *channel)
{
	return slots_hash(channel, sizeof(*channel), MyDatabaseId);
}

/*
 * Whether another channel may have the slot.  If the interval is not over, the next sender of this channel takes the turn
 * early.  Otherwise, channels that are not in use any more would keep their slots for a whole interval, even when their
 * database was dropped.  New channels would have none, and would notify at each commit.
 */
static bool
may_go(const void *arg, int64 now)
{
	const ChannelSlot *slot = arg;

	return slot->committing == 0 && !slot->unannounced && !slot->announcing;
}

/* A hash is not enough: the listeners of another channel would not be told. */
static ChannelSlot *
if_of_channel(ChannelSlot *slot, const Channel *channel)
{
	return slot != NULL && slot->db == MyDatabaseId &&
		memcmp(&slot->channel, channel, sizeof(*channel)) == 0 ? slot : NULL;
}

/* The channel's slot, or NULL; the caller has locked the bucket. */
static ChannelSlot *
find_slot(SlotBucket *bucket, const SlotKey *key, const Channel *channel)
{
	return if_of_channel(slots_find(&Slots, bucket, key), channel);
}

/* The same; if there is none, one that may go is taken over.  NULL if there is no such slot. */
static ChannelSlot *
use_slot(SlotBucket *bucket, const SlotKey *key, const Channel *channel, int64 now)
{
	bool		made;
	ChannelSlot *slot = slots_use(&Slots, bucket, key, may_go, now, &made);

	if (slot != NULL && made)
	{
		slot->db = MyDatabaseId;
		slot->channel = *channel;
	}
	return if_of_channel(slot, channel);
}

/* When listeners were last told, as far as that is remembered */
bool
announce_last(const Channel *channel, TimestampTz *at)
{
	SlotKey		key = key_of(channel);
	SlotBucket *bucket;
	ChannelSlot *slot;
	bool		known;
	int			i;

	if (announce_area() == NULL)
		return false;
	for (i = 0; i < NumPending; i++)
	{
		if (Pendings[i].forget_last && memcmp(&Pendings[i].channel, channel, sizeof(*channel)) == 0)
			return false;
	}
	bucket = slots_lock(&Slots, &key);
	slot = find_slot(bucket, &key, channel);
	known = slot != NULL && slot->last != 0;
	if (known)
		*at = slot->last_at;
	slots_unlock(bucket);
	return known;
}

/* ---- the announcer's side ---- */

/*
 * Do something with all slots of a database.  A bucket is locked meanwhile, so
 * that must be a few assignments.
 */
static void
for_each_slot(Oid db, void (*act) (ChannelSlot *slot, void *arg), void *arg)
{
	int			b,
				i;

	for (b = 0; b < Slots.nbuckets; b++)
	{
		SlotBucket *bucket = slots_bucket(&Slots, b);

		SpinLockAcquire(&bucket->mutex);
		for (i = 0; i < SLOTS_PER_BUCKET; i++)
		{
			ChannelSlot *slot = slots_at(&Slots, bucket, i);

			if (slot->db == db)
				act(slot, arg);
		}
		slots_unlock(bucket);
	}
}

typedef struct Taking
{
	int64		now;
	TimestampTz at;
	bool		all;
	Channel    *channels;
	int			count;
	int			max;
} Taking;

static void
take(ChannelSlot *slot, void *arg)
{
	Taking	   *taking = arg;

	if (taking->count == taking->max || !slot->unannounced ||
		!(taking->all || slot->last == 0 || taking->now - slot->last >= slot->interval))
		return;
	slot->unannounced = false;
	slot->announcing = true;
	slot->last = taking->now;
	slot->last_at = taking->at;
	taking->channels[taking->count++] = slot->channel;
}

/*
 * Take the channels of a database whose interval is over, or all that are
 * unannounced.  The caller notifies and then calls announce_taken().
 */
int
announce_take(Oid db, bool all, Channel *channels, int max)
{
	Taking		taking = {ticks(), GetCurrentTimestamp(), all, channels, 0, max};

	for_each_slot(db, take, &taking);
	return taking.count;
}

static void
taken(ChannelSlot *slot, void *done)
{
	if (slot->announcing && !*(bool *) done)
		slot->unannounced = true;
	slot->announcing = false;
}

/* The transaction that notifies has ended.  If it has not committed, its channels are unannounced again. */
void
announce_taken(Oid db, bool done)
{
	for_each_slot(db, taken, &done);
}

typedef struct Outstanding
{
	bool		any;
	int64		due;
} Outstanding;

static void
add_outstanding(ChannelSlot *slot, void *arg)
{
	Outstanding *outstanding = arg;

	if (slot->unannounced)
		outstanding->due = Min(outstanding->due, slot->last == 0 ? 0 : slot->last + slot->interval);
	outstanding->any |= slot->unannounced || slot->committing > 0;
}

/*
 * Whether the announcer of the database is needed, and at what time it has
 * something to do: PG_INT64_MAX if it depends on a transaction that is still to
 * commit.
 */
bool
announce_outstanding(Oid db, int64 *due)
{
	Outstanding outstanding = {false, PG_INT64_MAX};

	for_each_slot(db, add_outstanding, &outstanding);
	*due = outstanding.due;
	return outstanding.any;
}

static void
forget(ChannelSlot *slot, void *arg)
{
	slot->unannounced = slot->announcing = false;
}

/* The database is gone. */
void
announce_forget(Oid db)
{
	for_each_slot(db, forget, NULL);
}

/* ---- before the commit: here things may still fail ---- */

/*
 * Whether it is our turn.  If it isn't we count as committing, in
 * pending->slot.
 */
static bool
take_turn(Pending *pending)
{
	SlotKey		key = key_of(&pending->channel);
	TimestampTz at = GetCurrentTimestamp();
	int64		now = ticks();
	bool		ours = true;
	SlotBucket *bucket = slots_lock(&Slots, &key);
	ChannelSlot *slot = use_slot(bucket, &key, &pending->channel, now);

	if (slot != NULL)
	{
		slot->interval = pending->interval_ms * INT64CONST(1000);
		ours = slot->last == 0 || now - slot->last >= slot->interval;
		if (ours)
		{
			slot->last = now;
			slot->last_at = at;
		}
		else
		{
			slot->committing++;
			pending->slot = slot;
		}
	}
	slots_unlock(bucket);
	return ours;
}

/*
 * We are no longer about to commit.  A slot belongs to the channel while any
 * transaction is about to commit.  Returns whether the announcer should be
 * told.
 */
static bool
stop_committing(Pending *pending, bool committed)
{
	ChannelSlot *slot = pending->slot;
	SlotBucket *bucket = slots_lock(&Slots, &slot->head.key);
	bool		tell;

	slot->committing--;
	tell = committed && !slot->unannounced;
	slot->unannounced |= committed;
	slots_unlock(bucket);
	pending->slot = NULL;
	return tell;
}

static void
decide(Pending *pending)
{
	if (Area != NULL && !take_turn(pending))
	{
		if (announcer_is_there(Area))
			return;
		stop_committing(pending, false);
	}
	Async_Notify(pending->channel.name, NULL);
}

/* The transaction is about to commit. */
void
announce_before_commit(void)
{
	int			i;

	for (i = 0; i < NumPending; i++)
	{
		if (!Pendings[i].forget_last)
			decide(&Pendings[i]);
	}
}

/*
 * The server cannot send the notification of a prepared transaction, and
 * nothing tells us when that is committed.  Silence would leave its messages
 * unannounced.  So PREPARE TRANSACTION is an error, as it is with NOTIFY
 * itself.
 */
void
announce_before_prepare(void)
{
	int			i;

	for (i = 0; i < NumPending; i++)
	{
		if (!Pendings[i].forget_last)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"),
					 errdetail("It has sent to a queue that notifies of insertions."),
					 errhint("Disable notifications of the queue using pgmq.disable_notify_insert().")));
	}
}

/* ---- after the commit, or the rollback: nothing can fail here ---- */

/* The next sender takes the turn at once, and silent commits are announced. */
static void
forget_last(const Channel *channel)
{
	SlotKey		key = key_of(channel);
	SlotBucket *bucket = slots_lock(&Slots, &key);
	ChannelSlot *slot = find_slot(bucket, &key, channel);

	if (slot != NULL)
		slot->last = 0;
	slots_unlock(bucket);
}

/* The transaction is over: committed, or else rolled back or prepared. */
void
announce_end(bool committed)
{
	bool		tell = false;
	int			i;

	/* Where there is no shared memory, there are no slots. */
	for (i = 0; Area != NULL && i < NumPending; i++)
	{
		Pending    *pending = &Pendings[i];

		if (pending->slot != NULL)
			tell |= stop_committing(pending, committed);
		else if (pending->forget_last && committed)
		{
			forget_last(&pending->channel);
			tell = true;
		}
	}
	if (tell)
		announcer_wake(Area);
	if (!committed && Area != NULL)
		announcer_give_up_asking(Area);
	NumPending = 0;
	if (MaxPending > KEEP_PENDING)
	{
		pfree(Pendings);
		Pendings = NULL;
		MaxPending = 0;
	}
}

/* The entries of a subtransaction are dropped with it, or become its parent's. */
void
announce_subtransaction_end(bool committed)
{
	int			level = GetCurrentTransactionNestLevel();
	int			kept = 0;
	int			i;

	for (i = 0; i < NumPending; i++)
	{
		Pending    *pending = &Pendings[i];

		if (pending->nest_level >= level)
		{
			if (!committed)
				continue;
			pending->nest_level = level - 1;
		}
		Pendings[kept++] = *pending;
	}
	NumPending = kept;
}

static void
add_pending(const Channel *channel, bool forget, int interval_ms)
{
	Pending    *pending;
	int			i;

	/* Most transactions use the queue that they used last. */
	for (i = NumPending - 1; i >= 0; i--)
	{
		pending = &Pendings[i];
		if (pending->forget_last == forget &&
			memcmp(&pending->channel, channel, sizeof(*channel)) == 0)
		{
			pending->interval_ms = interval_ms;
			return;
		}
	}
	(void) announce_area();		/* callbacks after the commit must find it attached */
	if (NumPending == MaxPending)
	{
		int			max = Max(4, MaxPending * 2);

		if (Pendings == NULL)
			Pendings = MemoryContextAlloc(TopMemoryContext, sizeof(Pending) * max);
		else
			Pendings = repalloc(Pendings, sizeof(Pending) * max);
		MaxPending = max;
	}
	pending = &Pendings[NumPending];
	memset(pending, 0, sizeof(*pending));
	pending->channel = *channel;
	pending->forget_last = forget;
	pending->interval_ms = interval_ms;
	pending->nest_level = GetCurrentTransactionNestLevel();
	NumPending++;
}

/* This transaction has sent to a queue. */
void
announce_at_commit(const Channel *channel, int interval_ms)
{
	add_pending(channel, false, interval_ms);
}

/* This transaction has set the interval of a queue: when it commits, a new one begins. */
void
announce_forget_last(const Channel *channel)
{
	add_pending(channel, true, 0);
}
