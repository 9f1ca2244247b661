/*
 * board.c
 *	  Which sessions wait for which queue, and which of them are woken.
 *
 * The board is in shared memory, if the server has some.  It has one place for each
 * session and queue that the session waits for.  effects.c collects what a transaction
 * does to queues and announces it here when the transaction ends.
 *
 * WHICH SESSIONS ARE WOKEN
 *
 * 1. As many as there are messages.  The session that has slept for longest comes first
 *	  and gets a credit.  A look that ends well spends the credit: it found a message, or
 *	  it is certain that there is none.  A session that leaves without such a look
 *	  (error, cancel, termination) passes its credits on.
 * 2. One of the sessions that wait for a queue is its leader: the one that allows the
 *	  shortest time between two looks.  Only the leader has a timer.  It looks for
 *	  messages that become due, and for what is not announced: rows written by hand,
 *	  COMMIT PREPARED elsewhere.  When it leaves, the next leader looks at once.  So
 *	  messages that become due together are handed out one after the other.
 * 3. Picky waiters may skip messages that others would take (a condition, row security).
 *	  They are told of everything, take no credit, and have timers of their own.  Sessions
 *	  that wait for groups skip messages behind one that is held.  They share credits and
 *	  a leader among themselves: the groups of a queue are a queue of their own here,
 *	  which gets a credit for each group that may have become available.
 *	  Sessions that wait for a stream are picky, because each subscription wants each event.
 *	  A call is for all of them, or for those that wait for one subscription (held.c).  It does
 *	  not raise the generation.  It sets the flag of the waiter, also while that looks.
 *
 * WHY NO WAKE-UP IS LOST
 *
 * A transaction T makes a message visible for a waiter W.  W looks only while it is on
 * the board.
 *
 * 4. T is visible before it looks at the board (xact.c).  W is on the board before it
 *	  takes the snapshot of a look.  A full barrier stands between the two steps on both
 *	  sides.  So T finds W on the board, or W's look sees what T did.
 * 5. If T finds W asleep, it calls W, or another session in W's place.
 * 6. If T finds W looking, W's snapshot may be older than T.  T always raises the
 *	  queue's generation.  W may sleep only if the generation is what it was before the
 *	  look began, which is decided under the lock.  Else W looks again.
 * 7. A call is a flag on the board, set before the latch.  W tests the flag after it has
 *	  reset its latch, and before it sleeps.
 * 8. If T calls W1 in W's place, there are three cases.  W1 takes the message; or it
 *	  finds that another session took it (whose rollback is another T); or it leaves
 *	  without a look and passes the credit on.  A look that left something out does not
 *	  spend the credit.
 * 9. If a message becomes due later, T lowers the time until which the leader sleeps.  A
 *	  leader that is looking resets this time before it takes the snapshot.
 * 10. If T does not know how many messages there are (COMMIT PREPARED), it calls the
 *	  leader without a credit.  Each leader that takes or sees messages has others look:
 *	  the next leader, or as many sessions as it has seen messages.
 * 11. There is a leader while there is a waiter that is not picky; joining and leaving
 *	  keep this under the lock.  Every way out of a wait leaves the board: errors through
 *	  wait.c's PG_CATCH, an end of the process through before_shmem_exit.  A process that
 *	  crashes takes the board with it.
 *
 * LOCKS
 *
 * 12. Each bucket of the hash table has an LWLock.  It covers the queues of the bucket
 *	  and their waiters, and is held while lists of waiters are scanned.  A transaction
 *	  that ends does not take it unless a session waits for a queue of that bucket.  At
 *	  most one of them is held at a time.
 * 13. The spinlock covers the lists of free places.  It is held for a few assignments,
 *	  and only by sessions that join or leave.
 * 14. Nothing that runs after a commit can fail: it allocates nothing, looks nothing up,
 *	  and LWLockAcquire() and SetLatch() raise no errors there.
 */
#include "pgmq.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/spin.h"

#include "base/base.h"
#include "wait/wait.h"
#include "wait/board.h"

typedef struct Board
{
	int			tranche;		/* of the buckets' locks */
	slock_t		mutex;			/* of the following; held for a few assignments only */
	int32		free_waiter;
	int32		free_queue;
	int32		nfree;			/* places for waiters */
	/* buckets, queues and waiters follow */
} Board;

/* There are as many queues as waiters: a waiter needs one at most. */
typedef struct BoardSize
{
	int			buckets;		/* a power of two */
	int			waiters;
} BoardSize;

static const BoardSize ample_size = {1024, 4096};
static const BoardSize scant_size = {64, 256};

static bool Attached = false;	/* or found that there is nothing to attach to */
static Board *TheBoard = NULL;
static BoardSize Dimensions;
static WakeBucket *Buckets;
WakeQueue  *Queues;
Waiter	   *Waiters;

static Size
board_size(const BoardSize *size)
{
	return MAXALIGN(sizeof(Board)) +
		MAXALIGN(sizeof(WakeBucket) * size->buckets) +
		MAXALIGN(sizeof(WakeQueue) * size->waiters) +
		sizeof(Waiter) * size->waiters;
}

static Size
size_of_board(bool ample)
{
	return board_size(ample ? &ample_size : &scant_size);
}

static void
find_parts(void *area)
{
	char	   *p = (char *) area + MAXALIGN(sizeof(Board));

	Buckets = (WakeBucket *) p;
	p += MAXALIGN(sizeof(WakeBucket) * Dimensions.buckets);
	Queues = (WakeQueue *) p;
	p += MAXALIGN(sizeof(WakeQueue) * Dimensions.waiters);
	Waiters = (Waiter *) p;
}

static void
init_board(void *area)
{
	Board	   *board = area;
	int			i;

	find_parts(area);
	memset(area, 0, board_size(&Dimensions));
	board->tranche = LWLockNewTrancheId();
	SpinLockInit(&board->mutex);
	for (i = 0; i < Dimensions.buckets; i++)
	{
		LWLockInitialize(&Buckets[i].lock, board->tranche);
		Buckets[i].first = WAKE_NOBODY;
	}
	for (i = 0; i < Dimensions.waiters; i++)
	{
		int32		next = i + 1 < Dimensions.waiters ? i + 1 : WAKE_NOBODY;

		Queues[i].next = Waiters[i].next_of_mine = next;
	}
	board->free_queue = board->free_waiter = 0;
	board->nfree = Dimensions.waiters;
}

static const SharedUse board_memory = {
	"pgmq-wake-v2", size_of_board, init_board,
	"could not allocate shared memory for waking waiting sessions",
	"This session looks for messages at intervals, and wakes no other session."
};

/* Called while the library is loaded */
void
wake_init(void)
{
	shared_register(&board_memory);
}

/* May fail.  So it is called before anything that must not, in the transaction. */
bool
board_attach(void)
{
	Board	   *board;

	if (Attached)
		return TheBoard != NULL;
	Dimensions = shared_is_ample() ? ample_size : scant_size;
	board = shared_area(&board_memory);
	if (board != NULL)
	{
		LWLockRegisterTranche(board->tranche, "PgmqBoard");
		find_parts(board);
	}
	TheBoard = board;
	Attached = true;
	return board != NULL;
}

/* ---- lists ---- */

void
board_list_append(List32 *list, LinkKind kind, int32 waiter)
{
	Link32	   *link = &Waiters[waiter].links[kind];

	link->next = WAKE_NOBODY;
	link->prev = list->last;
	if (list->last == WAKE_NOBODY)
		list->first = waiter;
	else
		Waiters[list->last].links[kind].next = waiter;
	list->last = waiter;
}

void
board_list_remove(List32 *list, LinkKind kind, int32 waiter)
{
	Link32	   *link = &Waiters[waiter].links[kind];

	if (link->prev == WAKE_NOBODY)
		list->first = link->next;
	else
		Waiters[link->prev].links[kind].next = link->next;
	if (link->next == WAKE_NOBODY)
		list->last = link->prev;
	else
		Waiters[link->next].links[kind].prev = link->prev;
}

void
board_sleepers_add(WakeQueue *queue, int32 waiter)
{
	if (!Waiters[waiter].in_sleepers)
		board_list_append(&queue->sleepers, LINK_SLEEPERS, waiter);
	Waiters[waiter].in_sleepers = true;
}

void
board_sleepers_remove(WakeQueue *queue, int32 waiter)
{
	if (Waiters[waiter].in_sleepers)
		board_list_remove(&queue->sleepers, LINK_SLEEPERS, waiter);
	Waiters[waiter].in_sleepers = false;
}

/* ---- queues ---- */

/* A queue, or ("grouped") its groups: see (3) */
WakeKey
board_key(const QueueName *name, bool grouped)
{
	const unsigned char *bytes = (const unsigned char *) name->canonical;
	int			length = (int) strlen(name->canonical);
	WakeKey		key;

	key.hash[0] = hash_bytes_extended(bytes, length, MyDatabaseId);
	key.hash[1] = hash_bytes_extended(bytes, length, ~(uint64) MyDatabaseId);
	return grouped ? board_grouped(&key) : key;
}

/* The key of a queue's groups.  It is in the same bucket. */
WakeKey
board_grouped(const WakeKey *key)
{
	return (WakeKey) {{key->hash[0], ~key->hash[1]}};
}

/* Of a stream.  Two names with one value are called together.  NULL, all of them, is 0. */
uint32
board_subscription(const char *subscription)
{
	return subscription == NULL ? 0 :
		hash_bytes((const unsigned char *) subscription, (int) strlen(subscription)) | 1;
}

bool
board_same_key(const WakeKey *a, const WakeKey *b)
{
	return a->hash[0] == b->hash[0] && a->hash[1] == b->hash[1];
}

static WakeBucket *
bucket_of(const WakeKey *key)
{
	return &Buckets[key->hash[0] & (Dimensions.buckets - 1)];
}

WakeBucket *
board_lock(const WakeKey *key)
{
	WakeBucket *bucket = bucket_of(key);

	LWLockAcquire(&bucket->lock, LW_EXCLUSIVE);
	return bucket;
}

/*
 * Whether no session waits for a queue of this bucket; read without the lock.
 * What this transaction did is visible by now, so a session that joins later
 * sees it (4).
 */
static bool
nobody_waits(const WakeBucket *bucket)
{
	pg_memory_barrier();
	return *(const volatile int32 *) &bucket->first == WAKE_NOBODY;
}

/* The caller holds the bucket's lock.  NULL if no session waits for it. */
WakeQueue *
board_find_queue(const WakeBucket *bucket, const WakeKey *key)
{
	int32		i = bucket->first;

	while (i != WAKE_NOBODY)
	{
		WakeQueue  *queue = &Queues[i];

		if (board_same_key(&queue->key, key) && queue->database == MyDatabaseId)
			return queue;
		i = queue->next;
	}
	return NULL;
}

/* The caller holds the bucket's lock, and has taken the place from the free ones. */
WakeQueue *
board_add_queue(WakeBucket *bucket, const WakeKey *key, int32 place)
{
	WakeQueue  *queue = &Queues[place];

	queue->key = *key;
	queue->database = MyDatabaseId;
	queue->generation = queue->unknown = 0;
	queue->leader = WAKE_NOBODY;
	queue->ordinary.first = queue->ordinary.last = WAKE_NOBODY;
	queue->picky = queue->sleepers = queue->ordinary;
	queue->next = bucket->first;
	bucket->first = place;
	return queue;
}

/* The caller holds the bucket's lock, and gives the place back to the free ones. */
void
board_remove_queue(WakeBucket *bucket, WakeQueue *queue)
{
	int32	   *link = &bucket->first;
	int32		place = (int32) (queue - Queues);

	while (*link != place)
		link = &Queues[*link].next;
	*link = queue->next;
}

/* ---- free places ---- */

/*
 * A place for a waiter, and one for its queue if "queue" is not NULL; false if there
 * are none.  "another" says that the session has a place already.  It gets more of them
 * only while half of all are free.  So waits for many queues cannot keep other sessions
 * from waiting for one.
 */
bool
board_take_places(bool another, int32 *waiter, int32 *queue)
{
	bool		taken = false;

	SpinLockAcquire(&TheBoard->mutex);
	if (TheBoard->nfree > (another ? Dimensions.waiters / 2 : 0))
	{
		*waiter = TheBoard->free_waiter;
		TheBoard->free_waiter = Waiters[*waiter].next_of_mine;
		TheBoard->nfree--;
		if (queue != NULL)
		{
			*queue = TheBoard->free_queue;
			TheBoard->free_queue = Queues[*queue].next;
		}
		taken = true;
	}
	SpinLockRelease(&TheBoard->mutex);
	return taken;
}

/* "queue" is WAKE_NOBODY if it is still needed */
void
board_free_places(int32 waiter, int32 queue)
{
	SpinLockAcquire(&TheBoard->mutex);
	Waiters[waiter].next_of_mine = TheBoard->free_waiter;
	TheBoard->free_waiter = waiter;
	TheBoard->nfree++;
	if (queue != WAKE_NOBODY)
	{
		Queues[queue].next = TheBoard->free_queue;
		TheBoard->free_queue = queue;
	}
	SpinLockRelease(&TheBoard->mutex);
}

/* ---- calls: decided under the lock, made after its release as far as there is room ---- */

void
board_wake(Calls *calls, const Waiter *waiter)
{
	if (calls->count < CALLS_LATER)
		calls->procs[calls->count++] = waiter->proc;
	else
		SetLatch(&GetPGProcByNumber(waiter->proc)->procLatch);
}

void
board_call(Calls *calls, Waiter *waiter)
{
	waiter->called = true;
	board_wake(calls, waiter);
}

/* A process that has gone on meanwhile, or ended, is woken without need. */
void
board_make_calls(Calls *calls)
{
	while (calls->count > 0)
		SetLatch(&GetPGProcByNumber(calls->procs[--calls->count])->procLatch);
}

/* ---- announcements ---- */

static bool
can_be_called(const Waiter *waiter)
{
	return waiter->sleeping && !waiter->called;
}

/* Ordinary sleepers, longest first, and then the leader */
static void
hand_out_credits(WakeQueue *queue, int64 messages, Calls *calls)
{
	Waiter	   *leader;

	for (; messages > 0 && queue->sleepers.first != WAKE_NOBODY; messages--)
	{
		Waiter	   *waiter = &Waiters[queue->sleepers.first];

		board_sleepers_remove(queue, queue->sleepers.first);
		waiter->credits++;
		board_call(calls, waiter);
	}
	if (messages == 0 || queue->leader == WAKE_NOBODY)
		return;
	leader = &Waiters[queue->leader];
	if (can_be_called(leader))
	{
		leader->credits++;
		board_call(calls, leader);
	}
}

/* It is not known how many messages there are (10). */
static void
call_leader(WakeQueue *queue, Calls *calls)
{
	Waiter	   *leader;

	if (queue->leader == WAKE_NOBODY)
		return;
	leader = &Waiters[queue->leader];
	leader->credits = 0;			/* it calls other sessions for these messages, too */
	if (can_be_called(leader))
		board_call(calls, leader);
}

static void
announce_messages(WakeQueue *queue, int64 messages, Calls *calls)
{
	int32		i;

	queue->generation++;
	for (i = queue->picky.first; i != WAKE_NOBODY; i = Waiters[i].links[LINK_PEERS].next)
	{
		if (can_be_called(&Waiters[i]))
			board_call(calls, &Waiters[i]);
	}
	if (messages == WAKE_UNKNOWN)
	{
		queue->unknown = queue->generation;
		call_leader(queue, calls);
	}
	else
		hand_out_credits(queue, messages, calls);
}

/* A session with a timer sleeps no longer than until then. */
static void
lower_due(Waiter *waiter, TimestampTz due, Calls *calls)
{
	if (due >= waiter->due)
		return;
	waiter->due = due;
	if (can_be_called(waiter))
		board_wake(calls, waiter);
}

static void
announce_due(WakeQueue *queue, TimestampTz due, Calls *calls)
{
	int32		i;

	if (queue->leader != WAKE_NOBODY)
		lower_due(&Waiters[queue->leader], due, calls);
	for (i = queue->picky.first; i != WAKE_NOBODY; i = Waiters[i].links[LINK_PEERS].next)
		lower_due(&Waiters[i], due, calls);
}

/* The caller holds the bucket's lock. */
static void
announce(const WakeBucket *bucket, const WakeKey *key, int64 messages, TimestampTz due, Calls *calls)
{
	WakeQueue  *queue = board_find_queue(bucket, key);

	if (queue != NULL && messages != 0)
		announce_messages(queue, messages, calls);
	if (queue != NULL && due != DT_NOEND)
		announce_due(queue, due, calls);
}

/* "of_groups" is NULL if it is not about groups */
static void
announce_both(const WakeKey *key, int64 messages, const WakeKey *of_groups, int64 groups, TimestampTz due)
{
	WakeBucket *bucket;
	Calls		calls = {0};

	if (TheBoard == NULL || nobody_waits(bucket_of(key)))
		return;
	bucket = board_lock(key);
	announce(bucket, key, messages, due, &calls);
	if (of_groups != NULL)
		announce(bucket, of_groups, groups, due, &calls);
	LWLockRelease(&bucket->lock);
	board_make_calls(&calls);
}

/*
 * Tell the sessions that wait for a queue how many more messages it has, or
 * WAKE_UNKNOWN, and when others become due.  Cannot fail.
 */
void
board_announce(const WakeKey *key, int64 messages, TimestampTz due)
{
	announce_both(key, messages, NULL, 0, due);
}

/*
 * The same for sessions that wait for its messages and for sessions that wait for
 * its groups.  "groups" is how many of these may have become available.  Cannot
 * fail.
 */
void
board_announce_queue(const WakeKey *key, int64 messages, int64 groups, TimestampTz due)
{
	WakeKey		of_groups = board_grouped(key);

	announce_both(key, messages, &of_groups, groups, due);
}

/*
 * Tell the sessions that wait for a stream; or, if "subscription" is not 0, those that wait for this subscription.
 * They look now, or, if "due" says so, then.  Cannot fail.
 */
void
board_announce_stream(const WakeKey *key, uint32 subscription, TimestampTz due)
{
	WakeBucket *bucket;
	WakeQueue  *queue;
	Calls		calls = {0};
	int32		i;

	if (TheBoard == NULL || nobody_waits(bucket_of(key)))
		return;
	bucket = board_lock(key);
	queue = board_find_queue(bucket, key);
	for (i = queue ? queue->picky.first : WAKE_NOBODY; i != WAKE_NOBODY; i = Waiters[i].links[LINK_PEERS].next)
	{
		if (subscription != 0 && Waiters[i].subscription != subscription)
			continue;
		if (due != DT_NOEND)
			lower_due(&Waiters[i], due, &calls);
		else if (!Waiters[i].called)
			board_call(&calls, &Waiters[i]);
	}
	LWLockRelease(&bucket->lock);
	board_make_calls(&calls);
}

/* Tell the sessions that wait for any queue of this database.  Cannot fail. */
void
board_announce_to_all(void)
{
	Calls		calls = {0};
	int			b;
	int32		i;

	for (b = 0; TheBoard != NULL && b < Dimensions.buckets; b++)
	{
		WakeBucket *bucket = &Buckets[b];

		if (nobody_waits(bucket))
			continue;
		LWLockAcquire(&bucket->lock, LW_EXCLUSIVE);
		for (i = bucket->first; i != WAKE_NOBODY; i = Queues[i].next)
		{
			if (Queues[i].database == MyDatabaseId)
				announce_messages(&Queues[i], WAKE_UNKNOWN, &calls);
		}
		LWLockRelease(&bucket->lock);
		board_make_calls(&calls);
	}
}
