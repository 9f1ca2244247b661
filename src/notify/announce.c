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
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "notify/notify.h"
#include "notify/announce.h"

/* A channel that this transaction has used */
typedef struct Pending
{
	Channel		channel;
	bool		forget_last;	/* its setting was changed, else messages were sent */
	int			interval_ms;
	int			nest_level;		/* of the subtransaction that did it */
	Slot	   *slot;			/* where we count as committing */
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

/* ---- the slots ---- */

#define AMPLE_BUCKETS 256
#define SCANT_BUCKETS 8

static Size
area_size(int nbuckets)
{
	return offsetof(AnnounceArea, buckets) + sizeof(Bucket) * nbuckets;
}

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

static Size
size_of_area(bool ample)
{
	return area_size(number_of_buckets(ample));
}

static void
init_area(void *memory)
{
	AnnounceArea *area = memory;
	int			nbuckets = number_of_buckets(shared_is_ample());
	int			i;

	memset(area, 0, area_size(nbuckets));
	area->nbuckets = nbuckets;
	SpinLockInit(&area->mutex);
	for (i = 0; i < nbuckets; i++)
		SpinLockInit(&area->buckets[i].mutex);
}

static const SharedUse announcements = {
	"pgmq-announce-v1", size_of_area, init_area,
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
		tried = true;
	}
	return Area;
}

static Bucket *
bucket_of(const Channel *channel)
{
	uint32		hash = hash_bytes((const unsigned char *) channel, sizeof(*channel));

	return &Area->buckets[(hash ^ murmurhash32(MyDatabaseId)) % Area->nbuckets];
}

static bool
is_at_rest(const Slot *slot, int64 now)
{
	return slot->committing == 0 && !slot->unannounced && !slot->announcing &&
		(slot->last == 0 || now - slot->last >= slot->interval);
}

/*
 * The channel's slot; the caller holds the bucket's mutex.  With "create" an
 * idle slot is reused, the one unused for longest.  NULL if there is none.
 */
static Slot *
find_slot(Bucket *bucket, const Channel *channel, bool create, int64 now)
{
	Slot	   *unused = NULL;
	int			i;

	for (i = 0; i < SLOTS_PER_BUCKET; i++)
	{
		Slot	   *slot = &bucket->slots[i];

		if (slot->db == MyDatabaseId &&
			memcmp(&slot->channel, channel, sizeof(*channel)) == 0)
			return slot;
		if (create && is_at_rest(slot, now) && (unused == NULL || slot->last < unused->last))
			unused = slot;
	}
	if (unused != NULL)
	{
		memset(unused, 0, sizeof(*unused));
		unused->db = MyDatabaseId;
		unused->channel = *channel;
	}
	return unused;
}

/* When listeners were last told, as far as that is remembered */
bool
announce_last(const Channel *channel, TimestampTz *at)
{
	Bucket	   *bucket;
	Slot	   *slot;
	bool		known;
	int			i;

	if (announce_area() == NULL)
		return false;
	for (i = 0; i < NumPending; i++)
	{
		if (Pendings[i].forget_last && memcmp(&Pendings[i].channel, channel, sizeof(*channel)) == 0)
			return false;
	}
	bucket = bucket_of(channel);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, channel, false, 0);
	known = slot != NULL && slot->last != 0;
	if (known)
		*at = slot->last_at;
	SpinLockRelease(&bucket->mutex);
	return known;
}

/* ---- the announcer's side ---- */

/*
 * Take the channels of a database whose interval is over, or all that are
 * unannounced.  The caller notifies and then calls announce_taken().
 */
int
announce_take(Oid db, bool all, Channel *channels, int max)
{
	int64		now = ticks();
	TimestampTz at = GetCurrentTimestamp();
	int			n = 0;
	int			b,
				i;

	for (b = 0; b < Area->nbuckets && n + SLOTS_PER_BUCKET <= max; b++)
	{
		Bucket	   *bucket = &Area->buckets[b];

		SpinLockAcquire(&bucket->mutex);
		for (i = 0; i < SLOTS_PER_BUCKET; i++)
		{
			Slot	   *slot = &bucket->slots[i];

			if (slot->db != db || !slot->unannounced ||
				!(all || slot->last == 0 || now - slot->last >= slot->interval))
				continue;
			slot->unannounced = false;
			slot->announcing = true;
			slot->last = now;
			slot->last_at = at;
			channels[n++] = slot->channel;
		}
		SpinLockRelease(&bucket->mutex);
	}
	return n;
}

/* The transaction that notifies has ended.  If it has not committed, its channels are unannounced again. */
void
announce_taken(Oid db, bool done)
{
	int			b,
				i;

	for (b = 0; b < Area->nbuckets; b++)
	{
		Bucket	   *bucket = &Area->buckets[b];

		SpinLockAcquire(&bucket->mutex);
		for (i = 0; i < SLOTS_PER_BUCKET; i++)
		{
			Slot	   *slot = &bucket->slots[i];

			if (slot->db != db || !slot->announcing)
				continue;
			slot->announcing = false;
			if (!done)
				slot->unannounced = true;
		}
		SpinLockRelease(&bucket->mutex);
	}
}

/*
 * Whether the announcer of the database is needed, and at what time it has
 * something to do: PG_INT64_MAX if it depends on a transaction that is still to
 * commit.
 */
bool
announce_outstanding(Oid db, int64 *due)
{
	bool		outstanding = false;
	int			b,
				i;

	*due = PG_INT64_MAX;
	for (b = 0; b < Area->nbuckets; b++)
	{
		Bucket	   *bucket = &Area->buckets[b];

		SpinLockAcquire(&bucket->mutex);
		for (i = 0; i < SLOTS_PER_BUCKET; i++)
		{
			Slot	   *slot = &bucket->slots[i];

			if (slot->db != db)
				continue;
			if (slot->unannounced)
				*due = Min(*due, slot->last == 0 ? 0 : slot->last + slot->interval);
			outstanding |= slot->unannounced || slot->committing > 0;
		}
		SpinLockRelease(&bucket->mutex);
	}
	return outstanding;
}

/* The database is gone. */
void
announce_forget(Oid db)
{
	int			b,
				i;

	for (b = 0; b < Area->nbuckets; b++)
	{
		Bucket	   *bucket = &Area->buckets[b];

		SpinLockAcquire(&bucket->mutex);
		for (i = 0; i < SLOTS_PER_BUCKET; i++)
		{
			if (bucket->slots[i].db == db)
				bucket->slots[i].unannounced = bucket->slots[i].announcing = false;
		}
		SpinLockRelease(&bucket->mutex);
	}
}

/* ---- before the commit: here things may still fail ---- */

/*
 * Whether it is our turn.  If it isn't we count as committing, in
 * pending->slot.
 */
static bool
take_turn(Pending *pending)
{
	Bucket	   *bucket = bucket_of(&pending->channel);
	TimestampTz at = GetCurrentTimestamp();
	int64		now = ticks();
	bool		ours = true;
	Slot	   *slot;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, &pending->channel, true, now);
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
	SpinLockRelease(&bucket->mutex);
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
	Bucket	   *bucket = bucket_of(&pending->channel);
	Slot	   *slot = pending->slot;
	bool		tell;

	SpinLockAcquire(&bucket->mutex);
	slot->committing--;
	tell = committed && !slot->unannounced;
	slot->unannounced |= committed;
	SpinLockRelease(&bucket->mutex);
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
	Bucket	   *bucket = bucket_of(channel);
	Slot	   *slot;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, channel, false, 0);
	if (slot != NULL)
		slot->last = 0;
	SpinLockRelease(&bucket->mutex);
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
