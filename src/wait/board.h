/*
 * board.h
 *	  The board in shared memory, for board.c, waiter.c and effects.c.
 */
#ifndef PGMQ_BOARD_H
#define PGMQ_BOARD_H

#include "storage/lwlock.h"

#include "wait/wait.h"

#define WAKE_NOBODY (-1)

/*
 * A queue by two hashes of its database and name, together 128 bits.  A place for
 * a name would take four times as much, and there may be only a few kB.
 */
typedef struct WakeKey
{
	uint64		hash[2];
} WakeKey;

/* Lists link indexes, because the area has another address in each process. */
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
	LINK_PEERS,					/* among the queue's ordinary or picky waiters */
	LINK_SLEEPERS,				/* in the queue's sleepers */
	LINK_KINDS
} LinkKind;

/* A place: one session's waiting for one queue */
typedef struct Waiter
{
	Link32		links[LINK_KINDS];
	int32		next_of_mine;	/* the session's next, or the next free place */
	int32		proc;			/* the session's place in the list of processes */
	int32		queue;
	int32		interval_ms;	/* longest time between two looks */
	bool		picky;
	bool		sleeping;
	bool		called;			/* to look, since it fell asleep; of a stream: since its last look began */
	bool		in_sleepers;	/* may be given a credit */
	int32		credits;		/* to be spent or passed on */
	uint32		generation;		/* of the queue, when the last look began */
	uint32		subscription;	/* of a stream: see board_subscription(); else 0 */
	TimestampTz due;			/* sleeps no longer, if it has a timer */
} Waiter;

/* A queue that a session waits for */
typedef struct WakeQueue
{
	WakeKey		key;
	Oid			database;
	int32		next;			/* in its bucket, or the next free one */
	uint32		generation;		/* how often something was announced */
	uint32		unknown;		/* this, when that was WAKE_UNKNOWN for the last time */
	int32		leader;			/* of the ordinary waiters */
	List32		ordinary;
	List32		picky;
	List32		sleepers;		/* ordinary ones that were not called, longest first */
} WakeQueue;

typedef struct WakeBucket
{
	LWLock		lock;
	int32		first;			/* queue, or WAKE_NOBODY */
} WakeBucket;

/* Instead of a number of messages */
#define WAKE_UNKNOWN (-1)

/* Sessions to be woken when the lock is released; further ones are woken at once. */
#define CALLS_LATER 32

typedef struct Calls
{
	int			count;
	int32		procs[CALLS_LATER];
} Calls;

extern WakeQueue *Queues;
extern Waiter *Waiters;

extern bool board_attach(void);
extern WakeKey board_key(const QueueName *name, bool grouped);
extern WakeKey board_grouped(const WakeKey *key);
extern uint32 board_subscription(const char *subscription);
extern bool board_same_key(const WakeKey *a, const WakeKey *b);

/* For sessions that end a transaction: these cannot fail */
extern void board_announce(const WakeKey *key, int64 messages, TimestampTz due);
extern void board_announce_queue(const WakeKey *key, int64 messages, int64 groups, TimestampTz due);
extern void board_announce_stream(const WakeKey *key, uint32 subscription, TimestampTz due);
extern void board_announce_to_all(void);

/* For waiting sessions */
extern WakeBucket *board_lock(const WakeKey *key);
extern WakeQueue *board_find_queue(const WakeBucket *bucket, const WakeKey *key);
extern WakeQueue *board_add_queue(WakeBucket *bucket, const WakeKey *key, int32 place);
extern void board_remove_queue(WakeBucket *bucket, WakeQueue *queue);
extern bool board_take_places(bool another, int32 *waiter, int32 *queue);
extern void board_free_places(int32 waiter, int32 queue);
extern void board_list_append(List32 *list, LinkKind kind, int32 waiter);
extern void board_list_remove(List32 *list, LinkKind kind, int32 waiter);
extern void board_sleepers_add(WakeQueue *queue, int32 waiter);
extern void board_sleepers_remove(WakeQueue *queue, int32 waiter);
extern void board_wake(Calls *calls, const Waiter *waiter);
extern void board_call(Calls *calls, Waiter *waiter);
extern void board_make_calls(Calls *calls);

#endif							/* PGMQ_BOARD_H */
