/*
 * wake.c
 *	  Who waits for a queue, and who is woken.
 *
 * In shared memory, where there is some, is a board: a fixed number of
 * places, one for each backend and queue that it waits for.  A transaction
 * marks what it does to queues in a static set of this backend; when it ends,
 * the marks say whom to wake (xact.c calls wake_committed() and so on).
 *
 * WHO IS WOKEN
 *
 * As many as there are messages: who sleeps for longest comes first, and is
 * given a token.  A token is spent by a look that ends well, with a message
 * or with the certainty that there is none.  Who leaves without that (an
 * error, a cancel, a termination) passes his tokens on.
 *
 * Somebody has to look at the clock, and for what nobody announces: rows
 * written by hand, COMMIT PREPARED elsewhere.  Of all that wait for a queue
 * one does, the leader: who allows the shortest time between two looks.  The
 * others sleep without a timer.  When the leader leaves, another is called
 * to look at once, and leads from then on.  So messages that become due
 * together are handed out one after the other, and nobody looks in vain but
 * the last.
 *
 * Picky waiters may pass by what others would take (a condition, row
 * security).  They are told of everything, take no token away from the others,
 * and keep their own time.
 *
 * WHY NO WAKE-UP IS LOST
 *
 * Let a waiter W and a transaction T be such that T makes a message visible
 * for W.  W's looks happen while W is on the board.
 *
 * - T becomes visible before it looks at the board: the callbacks of xact.c
 *	 run after the transaction has left the list of running ones.  W enters the
 *	 board before it takes the snapshot of a look.  Between the two steps
 *	 there is a full barrier on both sides.  So either T finds W on the board,
 *	 or W's look sees what T did.
 * - If T finds W asleep, T calls it, or calls another in its place.
 * - If T finds W looking, W's snapshot may be older than T.  T raises the
 *	 queue's generation, always.  wake_sleep() lets W sleep only if the
 *	 generation is still what it was before the look began; that is decided
 *	 under the mutex.  Else W looks again.
 * - A call is a flag on the board, set before the latch.  W tests the flag
 *	 after it reset its latch, and before it sleeps.
 * - If T calls W1 in place of W, then W1 either takes the message, or finds that
 *	 somebody else has (whose rollback is another T), or leaves without having
 *	 looked, and then passes the token on under the same rules.  A look that left
 *	 something out because it would have taken long does not spend the token:
 *	 W1 looks again, soon.
 * - A message that becomes due later is T's too: T lowers the time until which
 *	 the leader sleeps.  If the leader is looking, this time is reset before
 *	 the look's snapshot is taken: what was committed before, the look finds
 *	 itself; what is committed after, lowers the time that the leader then
 *	 reads in wake_sleep().
 * - There is a leader while there is anybody who is not picky: this is kept
 *	 under the mutex by entering and leaving.  Every way out of a wait leaves the
 *	 board: errors through wait.c's PG_CATCH, an end of the process through
 *	 before_shmem_exit.  (A process that crashes takes the board with it.)
 * - A rolled-back read: a row is free for others as soon as the server lists
 *	 its transaction as ended, which is before the callbacks; SKIP LOCKED asks
 *	 for that and not for the locks that are released later.
 * - A statement that fails half-way has held rows for a moment, which others have
 *	 passed by.  What it might take is marked before it runs, so its end is
 *	 announced like that of any other rolled-back read.
 * - If the set of marks is full, everybody in this database is called.
 *
 * What is not announced at all (see above; and whoever has no place on the
 * board) is found by looking at intervals: wait.c.
 *
 * NOTHING HERE CAN FAIL after a commit: no memory is allocated, nothing is
 * looked up, the one lock is a spinlock that is held for a few assignments,
 * and SetLatch() raises no errors.  All that could fail is done by wake_mark()
 * and wake_join(), inside the transaction.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/spin.h"

/* ---- the board ---- */

/* Lists go by index: a segment may lie elsewhere in each process. */
typedef struct List32
{
	int32		first;
	int32		last;
} List32;

typedef struct Link32
{
	int32		next;
	int32		prev;
} Link32;

typedef enum LinkKind
{
	LINK_PEERS,					/* in the queue's ordinary or picky waiters */
	LINK_SLEEPERS,				/* in the queue's sleepers */
	LINK_KINDS
} LinkKind;

/* One backend's waiting for one queue */
typedef struct Waiter
{
	Link32		links[LINK_KINDS];
	int32		next_of_mine;	/* the backend's next, or the next free place */
	int32		proc;			/* the backend's place in the list of processes */
	int32		queue;
	int32		interval_ms;	/* longest time between two looks */
	bool		picky;
	bool		sleeping;
	bool		called;			/* to look, since it fell asleep */
	bool		in_sleepers;	/* may be given a token */
	int32		tokens;			/* to be spent or passed on */
	uint32		generation;		/* of the queue, when the last look began */
	TimestampTz due;			/* sleeps no longer, if it looks at the clock */
} Waiter;

/*
 * A queue by two hashes of its name, together 128 bits: places must be small where
 * there are only a few kB for all of them.
 */
typedef struct WakeKey
{
	uint64		hash[2];
} WakeKey;

/* A queue that somebody waits for */
typedef struct WakeQueue
{
	WakeKey		key;
	Oid			database;
	int32		next;			/* in its bucket, or the next free place */
	uint32		generation;		/* how often something was announced */
	int32		leader;			/* of the ordinary waiters */
	List32		ordinary;
	List32		picky;
	List32		sleepers;		/* ordinary ones that nobody has called, longest first */
} WakeQueue;

typedef struct Board
{
	slock_t		mutex;			/* held for a few assignments only */
	pg_atomic_uint32 waiting;	/* places taken; read without the mutex */
	int32		free_waiter;
	int32		free_queue;
	/* buckets, queues and waiters follow */
} Board;

typedef struct BoardSize
{
	int			buckets;		/* a power of two */
	int			queues;
	int			waiters;
} BoardSize;

static const BoardSize ample_size = {1024, 2048, 4096};
static const BoardSize scant_size = {64, 256, 256};

static bool Attached = false;	/* or found that there is nothing to attach to */
static Board *TheBoard = NULL;
static BoardSize Dimensions;
static int32 *Buckets;
static WakeQueue *Queues;
static Waiter *Waiters;

/* Places of this backend */
static int32 Mine = WAKE_NOBODY;

static Size
board_size(const BoardSize *size)
{
	return MAXALIGN(sizeof(Board)) +
		MAXALIGN(sizeof(int32) * size->buckets) +
		MAXALIGN(sizeof(WakeQueue) * size->queues) +
		sizeof(Waiter) * size->waiters;
}

Size
wake_shared_size(bool ample)
{
	return board_size(ample ? &ample_size : &scant_size);
}

static void
find_parts(void *area)
{
	char	   *p = (char *) area + MAXALIGN(sizeof(Board));

	Buckets = (int32 *) p;
	p += MAXALIGN(sizeof(int32) * Dimensions.buckets);
	Queues = (WakeQueue *) p;
	p += MAXALIGN(sizeof(WakeQueue) * Dimensions.queues);
	Waiters = (Waiter *) p;
}

static void
init_board(void *area)
{
	Board	   *board = area;
	int			i;

	find_parts(area);
	memset(area, 0, board_size(&Dimensions));
	SpinLockInit(&board->mutex);
	pg_atomic_init_u32(&board->waiting, 0);
	for (i = 0; i < Dimensions.buckets; i++)
		Buckets[i] = WAKE_NOBODY;
	for (i = 0; i < Dimensions.queues; i++)
		Queues[i].next = i + 1 < Dimensions.queues ? i + 1 : WAKE_NOBODY;
	for (i = 0; i < Dimensions.waiters; i++)
	{
		Waiters[i].proc = Waiters[i].queue = WAKE_NOBODY;
		Waiters[i].next_of_mine = i + 1 < Dimensions.waiters ? i + 1 : WAKE_NOBODY;
	}
	board->free_queue = board->free_waiter = 0;
}

/* May fail, and so must have been called before anything can't. */
static bool
attach(void)
{
	if (Attached)
		return TheBoard != NULL;
	Dimensions = shared_is_ample() ? ample_size : scant_size;
	TheBoard = shared_area("pgmq-wake-v1", board_size(&Dimensions), init_board);
	Attached = true;
	if (TheBoard != NULL)
		find_parts(TheBoard);
	else
		ereport(LOG,
				(errmsg("pgmq: no shared memory for waking those who wait for messages"),
				 errdetail("This session looks at intervals, and wakes nobody."),
				 errhint("Add pgmq to shared_preload_libraries.")));
	return TheBoard != NULL;
}

/* ---- lists ---- */

static void
list32_append(List32 *list, LinkKind kind, int32 waiter)
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

static void
list32_remove(List32 *list, LinkKind kind, int32 waiter)
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

static void
sleepers_add(WakeQueue *queue, int32 waiter)
{
	if (!Waiters[waiter].in_sleepers)
		list32_append(&queue->sleepers, LINK_SLEEPERS, waiter);
	Waiters[waiter].in_sleepers = true;
}

static void
sleepers_remove(WakeQueue *queue, int32 waiter)
{
	if (Waiters[waiter].in_sleepers)
		list32_remove(&queue->sleepers, LINK_SLEEPERS, waiter);
	Waiters[waiter].in_sleepers = false;
}

/* ---- queues; the caller holds the mutex ---- */

static WakeKey
key_of(const QueueName *name)
{
	const unsigned char *bytes = (const unsigned char *) name->canonical;
	int			length = (int) strlen(name->canonical);
	WakeKey		key;

	key.hash[0] = hash_bytes_extended(bytes, length, MyDatabaseId);
	key.hash[1] = hash_bytes_extended(bytes, length, ~(uint64) MyDatabaseId);
	return key;
}

static bool
same_key(const WakeKey *a, const WakeKey *b)
{
	return a->hash[0] == b->hash[0] && a->hash[1] == b->hash[1];
}

static int32 *
bucket_of(const WakeKey *key)
{
	return &Buckets[key->hash[0] & (Dimensions.buckets - 1)];
}

static WakeQueue *
find_queue(const WakeKey *key)
{
	int32		i = *bucket_of(key);

	while (i != WAKE_NOBODY)
	{
		WakeQueue  *queue = &Queues[i];

		if (same_key(&queue->key, key) && queue->database == MyDatabaseId)
			return queue;
		i = queue->next;
	}
	return NULL;
}

/* NULL if there is no place left */
static WakeQueue *
add_queue(const WakeKey *key)
{
	int32	   *bucket = bucket_of(key);
	int32		place = TheBoard->free_queue;
	WakeQueue  *queue;

	if (place == WAKE_NOBODY)
		return NULL;
	queue = &Queues[place];
	TheBoard->free_queue = queue->next;
	queue->key = *key;
	queue->database = MyDatabaseId;
	queue->generation = 0;
	queue->leader = WAKE_NOBODY;
	queue->ordinary.first = queue->ordinary.last = WAKE_NOBODY;
	queue->picky = queue->sleepers = queue->ordinary;
	queue->next = *bucket;
	*bucket = place;
	return queue;
}

static void
remove_queue(WakeQueue *queue)
{
	int32	   *link = bucket_of(&queue->key);
	int32		place = (int32) (queue - Queues);

	while (*link != place)
		link = &Queues[*link].next;
	*link = queue->next;
	queue->next = TheBoard->free_queue;
	TheBoard->free_queue = place;
}

/* ---- calls: decided on under the mutex, made without it ---- */

#define CALLS_AT_ONCE 32

typedef struct Calls
{
	int			count;
	int32		procs[CALLS_AT_ONCE];
} Calls;

static bool
no_room(const Calls *calls)
{
	return calls->count == CALLS_AT_ONCE;
}

static void
disturb(Calls *calls, const Waiter *waiter)
{
	calls->procs[calls->count++] = waiter->proc;
}

/* The caller has seen that there is room */
static void
call(Calls *calls, Waiter *waiter)
{
	waiter->called = true;
	disturb(calls, waiter);
}

/* A process that has gone on meanwhile, or ended, is disturbed for nothing. */
static void
make_calls(Calls *calls)
{
	while (calls->count > 0)
		SetLatch(&GetPGProcByNumber(calls->procs[--calls->count])->procLatch);
}

/* ---- announcements ---- */

/* What a transaction has done to a queue */
typedef struct Announcement
{
	int64		messages;		/* that can be had now */
	TimestampTz due;			/* when the earliest can be had that can't now */
} Announcement;

/* Ordinary sleepers, longest first, and then the leader */
static void
hand_out_tokens(WakeQueue *queue, int64 *messages, Calls *calls)
{
	Waiter	   *leader;

	while (*messages > 0 && queue->sleepers.first != WAKE_NOBODY && !no_room(calls))
	{
		Waiter	   *waiter = &Waiters[queue->sleepers.first];

		sleepers_remove(queue, queue->sleepers.first);
		waiter->tokens++;
		call(calls, waiter);
		(*messages)--;
	}
	if (*messages == 0 || queue->leader == WAKE_NOBODY || no_room(calls))
		return;
	leader = &Waiters[queue->leader];
	if (leader->sleeping && !leader->called)
	{
		leader->tokens++;
		call(calls, leader);
	}
	*messages = 0;				/* the others are up */
}

/* Who looks at the clock sleeps no longer than until then. */
static void
lower_due(Waiter *waiter, TimestampTz due, Calls *calls)
{
	if (due >= waiter->due || no_room(calls))
		return;
	waiter->due = due;
	if (waiter->sleeping && !waiter->called)
		disturb(calls, waiter);
}

/*
 * As far as there is room for calls.  What is done is taken off the
 * announcement, or is found done when this goes on.
 */
static void
announce_some(WakeQueue *queue, Announcement *what, Calls *calls)
{
	int32		i;

	if (what->messages > 0)
	{
		queue->generation++;
		for (i = queue->picky.first; i != WAKE_NOBODY && !no_room(calls);
			 i = Waiters[i].links[LINK_PEERS].next)
		{
			if (Waiters[i].sleeping && !Waiters[i].called)
				call(calls, &Waiters[i]);
		}
		if (!no_room(calls))
			hand_out_tokens(queue, &what->messages, calls);
	}
	if (what->due == DT_NOEND)
		return;
	if (queue->leader != WAKE_NOBODY)
		lower_due(&Waiters[queue->leader], what->due, calls);
	for (i = queue->picky.first; i != WAKE_NOBODY; i = Waiters[i].links[LINK_PEERS].next)
		lower_due(&Waiters[i], what->due, calls);
}

static void
announce(const WakeKey *key, Announcement what)
{
	Calls		calls = {0};
	bool		more;

	do
	{
		WakeQueue  *queue;

		SpinLockAcquire(&TheBoard->mutex);
		queue = find_queue(key);
		if (queue != NULL)
			announce_some(queue, &what, &calls);
		SpinLockRelease(&TheBoard->mutex);
		more = no_room(&calls);
		make_calls(&calls);
	} while (more);
}

/* Call everybody who waits for any queue of this database. */
static void
announce_to_all(void)
{
	Calls		calls = {0};
	int			i = 0;

	while (i < Dimensions.waiters)
	{
		SpinLockAcquire(&TheBoard->mutex);
		for (; i < Dimensions.waiters && !no_room(&calls); i++)
		{
			Waiter	   *waiter = &Waiters[i];

			if (waiter->queue == WAKE_NOBODY ||
				Queues[waiter->queue].database != MyDatabaseId)
				continue;
			Queues[waiter->queue].generation++;
			if (waiter->sleeping && !waiter->called)
				call(&calls, waiter);
		}
		SpinLockRelease(&TheBoard->mutex);
		make_calls(&calls);
	}
}

/* ---- marks: what this transaction does to queues ---- */

/* What overflows calls everybody */
#define MARKS 64

typedef struct Mark
{
	WakeKey		key;
	SubTransactionId taken_in;	/* the latest that took messages */
	int64		messages;		/* there to be had with the commit */
	int64		taken;			/* there to be had with a rollback */
	TimestampTz due;			/* after the commit, the earliest becomes due */
} Mark;

static Mark Marks[MARKS];
static int	NumMarks = 0;

/* There were more queues, or it is not known which */
static bool AllCommitted = false;
static bool AllRolledBack = false;
static SubTransactionId AllTakenIn = InvalidSubTransactionId;

/* NULL if there is no place left */
static Mark *
mark_of(const QueueName *name)
{
	WakeKey		key;
	Mark	   *mark;
	int			i;

	attach();
	key = key_of(name);
	for (i = NumMarks - 1; i >= 0; i--)
	{
		if (same_key(&Marks[i].key, &key))
			return &Marks[i];
	}
	if (NumMarks == MARKS)
		return NULL;
	mark = &Marks[NumMarks++];
	mark->key = key;
	mark->messages = mark->taken = 0;
	mark->due = DT_NOEND;
	mark->taken_in = InvalidSubTransactionId;
	return mark;
}

/* With the commit of this transaction, so many messages can be had. */
void
wake_mark(const QueueName *name, int64 messages)
{
	Mark	   *mark;

	if (messages <= 0)
		return;
	mark = mark_of(name);
	if (mark != NULL)
		mark->messages += messages;
	else
		AllCommitted = true;
}

/* After the commit of this transaction, messages become due at a time. */
void
wake_mark_due(const QueueName *name, TimestampTz due)
{
	Mark	   *mark = mark_of(name);

	if (mark != NULL)
		mark->due = Min(mark->due, due);
	else
		AllCommitted = true;
}

/*
 * Before a statement that takes up to so many messages: if it fails half-way, others
 * may have passed by what it had locked.  wake_mark_taken() must follow.
 */
void
wake_mark_taking(const QueueName *name, int64 messages)
{
	Mark	   *mark = mark_of(name);

	if (mark != NULL)
	{
		mark->taken += messages;
		mark->taken_in = GetCurrentSubTransactionId();
	}
	else
	{
		AllRolledBack = true;
		AllTakenIn = GetCurrentSubTransactionId();
	}
}

/* Of those, so many were taken: if this is rolled back they can be had again. */
void
wake_mark_taken(const QueueName *name, int64 taking, int64 messages)
{
	Mark	   *mark = mark_of(name);

	if (mark == NULL)
		return;
	mark->taken = Max(mark->taken - (taking - messages), 0);
	/* A poll that found nothing uses up no place */
	if (mark->taken == 0 && mark->messages == 0 && mark->due == DT_NOEND &&
		mark == &Marks[NumMarks - 1])
		NumMarks--;
}

/* This transaction ends others, and it is not known which queues they touched. */
void
wake_mark_all(void)
{
	attach();
	AllCommitted = true;
}

/*
 * Whether anybody waits at all.  What this transaction did is visible by now;
 * who enters the board after this was read sees it.
 */
static bool
anybody_waits(void)
{
	if (TheBoard == NULL)
		return false;
	pg_memory_barrier();
	return pg_atomic_read_u32(&TheBoard->waiting) > 0;
}

void
wake_forget(void)
{
	NumMarks = 0;
	AllCommitted = AllRolledBack = false;
}

void
wake_committed(void)
{
	int			i;

	if ((NumMarks > 0 || AllCommitted) && anybody_waits())
	{
		for (i = 0; i < NumMarks; i++)
		{
			Announcement what = {Marks[i].messages, Marks[i].due};

			if (what.messages > 0 || what.due != DT_NOEND)
				announce(&Marks[i].key, what);
		}
		if (AllCommitted)
			announce_to_all();
	}
	wake_forget();
}

/*
 * Subtransactions are numbered in the order of their start, so those that end
 * with this one have higher numbers.  What was taken earlier than in "since" is
 * still held; it can't be told apart here, and costs a look in vain.
 */
static void
rolled_back_since(SubTransactionId since)
{
	int			i;

	if ((NumMarks == 0 && !AllRolledBack) || !anybody_waits())
		return;
	for (i = 0; i < NumMarks; i++)
	{
		Announcement what = {Marks[i].taken, DT_NOEND};

		if (what.messages == 0 || Marks[i].taken_in < since)
			continue;
		announce(&Marks[i].key, what);
		Marks[i].taken_in = since - 1;
	}
	if (AllRolledBack && AllTakenIn >= since)
	{
		announce_to_all();
		AllTakenIn = since - 1;
	}
}

void
wake_rolled_back(void)
{
	rolled_back_since(InvalidSubTransactionId);
	wake_forget();
}

void
wake_subtransaction_rolled_back(SubTransactionId id)
{
	rolled_back_since(id);
}

/* ---- waiting ---- */

static void
leave_at_exit(int code, Datum arg)
{
	wake_leave_all();
}

/* Once per backend, and not while something is happening */
static void
register_exit(void)
{
	static bool registered = false;

	if (registered)
		return;
	before_shmem_exit(leave_at_exit, (Datum) 0);
	registered = true;
}

static void
complain_of_no_place(void)
{
	static bool complained = false;

	if (complained)
		return;
	complained = true;
	ereport(LOG,
			(errmsg("pgmq: no place left for another session that waits for messages"),
			 errdetail("This session looks at intervals."),
			 errhint("Add pgmq to shared_preload_libraries.")));
}

/* Who looks at the clock is called, and is given no token otherwise. */
static void
make_leader(WakeQueue *queue, int32 waiter)
{
	if (queue->leader != WAKE_NOBODY && Waiters[queue->leader].sleeping &&
		!Waiters[queue->leader].called)
		sleepers_add(queue, queue->leader);
	queue->leader = waiter;
	if (waiter != WAKE_NOBODY)
		sleepers_remove(queue, waiter);
}

/*
 * Enter the board.  "picky" and the interval as described at the top.  Returns
 * a place for the functions below, or WAKE_NOBODY if there is none: then who
 * waits must look at intervals.
 */
int
wake_join(const QueueName *name, bool picky, int interval_ms)
{
	WakeKey		key = key_of(name);
	WakeQueue  *queue;
	int32		place;
	Waiter	   *me;

	if (!attach())
		return WAKE_NOBODY;
	register_exit();

	SpinLockAcquire(&TheBoard->mutex);
	place = TheBoard->free_waiter;
	queue = find_queue(&key);
	if (queue == NULL && place != WAKE_NOBODY)
		queue = add_queue(&key);
	if (place != WAKE_NOBODY && queue != NULL)
	{
		me = &Waiters[place];
		TheBoard->free_waiter = me->next_of_mine;
		memset(me, 0, sizeof(*me));
		me->next_of_mine = Mine;
		Mine = place;
		me->proc = MyProcNumber;
		me->queue = (int32) (queue - Queues);
		me->interval_ms = interval_ms;
		me->picky = picky;
		me->generation = queue->generation;
		me->due = DT_NOEND;
		list32_append(picky ? &queue->picky : &queue->ordinary, LINK_PEERS, place);
		if (!picky && (queue->leader == WAKE_NOBODY ||
					   interval_ms < Waiters[queue->leader].interval_ms))
			make_leader(queue, place);
		pg_atomic_fetch_add_u32(&TheBoard->waiting, 1);
	}
	else
		place = WAKE_NOBODY;
	SpinLockRelease(&TheBoard->mutex);
	if (place == WAKE_NOBODY)
		complain_of_no_place();
	return place;
}

/* Whether this backend is on the board already */
bool
wake_joined(void)
{
	return Mine != WAKE_NOBODY;
}

/* A look begins; its snapshot is taken after this. */
void
wake_look(int place)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];

	SpinLockAcquire(&TheBoard->mutex);
	sleepers_remove(queue, place);
	me->sleeping = me->called = false;
	me->generation = queue->generation;
	me->due = DT_NOEND;
	SpinLockRelease(&TheBoard->mutex);
	pg_memory_barrier();
}

/*
 * Fall asleep, or go on sleeping; false if there is a reason to look first.
 * "outlook" is what the last look said.  In "due" comes the time to sleep until,
 * and in "timed" whether it is up to this waiter to look at the clock.
 */
bool
wake_sleep(int place, const Outlook *outlook, TimestampTz *due, bool *timed)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];
	bool		sleep;

	SpinLockAcquire(&TheBoard->mutex);
	if (!me->sleeping)
	{
		me->due = Min(me->due, outlook->next);
		if (outlook->conclusive)
			me->tokens = 0;
		sleep = me->generation == queue->generation;
	}
	else
		sleep = !me->called;
	if (sleep && !me->sleeping)
	{
		me->sleeping = true;
		if (!me->picky && queue->leader != place)
			sleepers_add(queue, place);
	}
	*due = me->due;
	*timed = me->picky || queue->leader == place || me->tokens > 0;
	SpinLockRelease(&TheBoard->mutex);
	return sleep;
}

/* Whether somebody has called; "due" and "timed" as above */
bool
wake_called(int place, TimestampTz *due, bool *timed)
{
	Waiter	   *me = &Waiters[place];
	bool		called;

	SpinLockAcquire(&TheBoard->mutex);
	called = me->called;
	*due = me->due;
	*timed = me->picky || Queues[me->queue].leader == place || me->tokens > 0;
	SpinLockRelease(&TheBoard->mutex);
	return called;
}

/* Of those that are left, who allows the shortest time; the caller holds the mutex */
static int32
shortest_interval(const WakeQueue *queue)
{
	int32		shortest = queue->ordinary.first;
	int32		i;

	for (i = shortest; i != WAKE_NOBODY; i = Waiters[i].links[LINK_PEERS].next)
	{
		if (Waiters[i].interval_ms < Waiters[shortest].interval_ms)
			shortest = i;
	}
	return shortest;
}

/*
 * The leader has left.  The next one looks at once, unless what there was to
 * see has been seen: then it goes on with the old one's time.
 */
static void
replace_leader(WakeQueue *queue, bool look, TimestampTz due, Calls *calls)
{
	Waiter	   *leader;

	queue->leader = WAKE_NOBODY;
	make_leader(queue, shortest_interval(queue));
	if (queue->leader == WAKE_NOBODY)
		return;
	leader = &Waiters[queue->leader];
	leader->due = Min(leader->due, due);
	if (!leader->sleeping || leader->called)
		return;
	if (look)
		call(calls, leader);
	else
		disturb(calls, leader);
}

/*
 * Leave the board, with messages taken, or only seen (and then there is no
 * need for the others to look at the same ones, only at the further ones), or
 * with none.  "next" is when there is a reason to look again, after messages
 * were seen.
 */
void
wake_leave(int place, WakeEnd end, int64 messages, TimestampTz next)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];
	WakeKey		key = queue->key;
	int32	   *link = &Mine;
	Announcement owed = {0, DT_NOEND};
	Calls		calls = {0};

	while (*link != place)
		link = &Waiters[*link].next_of_mine;

	SpinLockAcquire(&TheBoard->mutex);
	owed.messages = me->tokens;
	if (end != WAKE_EMPTY && me->tokens > 0)
		owed.messages = me->tokens - 1;
	else if (end == WAKE_SAW && queue->leader == place)
		owed.messages = messages - 1;	/* nobody has announced them */

	*link = me->next_of_mine;
	sleepers_remove(queue, place);
	list32_remove(me->picky ? &queue->picky : &queue->ordinary, LINK_PEERS, place);
	me->proc = me->queue = WAKE_NOBODY;
	me->next_of_mine = TheBoard->free_waiter;
	TheBoard->free_waiter = place;
	pg_atomic_fetch_sub_u32(&TheBoard->waiting, 1);
	if (queue->leader == place)
		replace_leader(queue, end != WAKE_SAW, next, &calls);
	if (queue->ordinary.first == WAKE_NOBODY && queue->picky.first == WAKE_NOBODY)
		remove_queue(queue);
	SpinLockRelease(&TheBoard->mutex);

	make_calls(&calls);
	if (owed.messages > 0)
		announce(&key, owed);
}

/* After an error, or at the end of the process: the others are told what I was. */
void
wake_leave_all(void)
{
	while (Mine != WAKE_NOBODY)
		wake_leave(Mine, WAKE_EMPTY, 0, DT_NOEND);
}
