/*
 * held.c
 *	  Locks of streams that a transaction holds until it ends, and the calls when they are released.
 *
 * h1  A publisher has the log of its stream locked, which holds up the end of the stream.  A session that changes a
 *	   subscription has the mutex of a shard.  A session that waits for events may look meanwhile, and find less
 *	   than there is when the lock is released.  So it is called then: after a commit, and after a rollback.
 * h2  A lock is released after the callbacks of xact.c, with ROLLBACK TO SAVEPOINT too.  A session that is called
 *	   earlier finds it held, and sleeps again.  So xact.c says what ended, and the calls are made when the server
 *	   reports that the locks are released.
 * h3  A mutex that was of no use is released at once.  Another session may have found it taken, so it is called at once.
 * h4  Nothing here allocates after the board was attached.  A transaction that holds more locks than there are places
 *	   calls all waiting sessions of the database.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "wait/wait.h"
#include "wait/board.h"

typedef struct Held
{
	WakeKey		key;
	uint32		subscription;	/* 0: the log */
	int			mutexes;
	SubTransactionId last_in;
	bool		changed;		/* something becomes available with a commit, */
	TimestampTz due;			/* or else then */
} Held;

#define MAX_HELD 32

/* What ended; the locks are released in a moment */
typedef enum Ended
{
	ENDED_NOTHING,
	ENDED_SUBTRANSACTION,
	ENDED_COMMITTED,
	ENDED_ROLLED_BACK
} Ended;

static Held HeldLocks[MAX_HELD];
static int	NumHeld = 0;
static bool HeldMore = false;
static Ended HasEnded = ENDED_NOTHING;
static SubTransactionId EndedSince;

/* NULL if there is no entry for it, and none is made */
static Held *
held_entry(const QueueName *name, const char *subscription, bool create)
{
	uint32		hash = board_subscription(subscription);
	WakeKey		key;
	Held	   *held;
	int			i;

	if (!board_attach())
		return NULL;
	key = board_key(name, false);
	for (i = 0; i < NumHeld; i++)
	{
		if (HeldLocks[i].subscription == hash && board_same_key(&HeldLocks[i].key, &key))
			return &HeldLocks[i];
	}
	if (!create)
		return NULL;
	if (NumHeld == MAX_HELD)
	{
		HeldMore = true;
		return NULL;
	}
	held = &HeldLocks[NumHeld++];
	memset(held, 0, sizeof(*held));
	held->key = key;
	held->subscription = hash;
	held->due = DT_NOEND;
	return held;
}

/* This transaction has taken the mutex of a shard of the subscription; or, if that is NULL, has locked the log. */
void
held_taken(const QueueName *name, const char *subscription)
{
	Held	   *held = held_entry(name, subscription, true);

	if (held == NULL)
		return;
	held->mutexes++;
	held->last_in = GetCurrentSubTransactionId();
}

/* It has released a mutex before its end (h3).  "for_others" says that other sessions may have use for it. */
void
held_released(const QueueName *name, const char *subscription, bool for_others)
{
	Held	   *held = held_entry(name, subscription, false);

	if (held == NULL)
		return;
	if (for_others)
		board_announce_stream(&held->key, held->subscription, DT_NOEND);
	if (--held->mutexes == 0)
		*held = HeldLocks[--NumHeld];
}

/* It has changed the subscription: with its commit, something may become available. */
void
held_changed(const QueueName *name, const char *subscription)
{
	Held	   *held = held_entry(name, subscription, false);

	if (held != NULL)
		held->changed = true;
}

/* The same, but not before a time */
void
held_due(const QueueName *name, const char *subscription, TimestampTz due)
{
	Held	   *held = held_entry(name, subscription, false);

	if (held != NULL)
		held->due = Min(held->due, due);
}

/* ---- when a transaction or a part of it ends: nothing here can fail ---- */

void
held_forget(void)
{
	NumHeld = 0;
	HeldMore = false;
	HasEnded = ENDED_NOTHING;
}

/* The transaction has ended; its locks are released in a moment. */
void
held_ended(bool committed)
{
	HasEnded = committed ? ENDED_COMMITTED : ENDED_ROLLED_BACK;
}

void
held_subtransaction_rolled_back(SubTransactionId id)
{
	HasEnded = ENDED_SUBTRANSACTION;
	EndedSince = id;
}

/* Subtransactions are numbered in the order of their start: those that end with it have higher numbers. */
static void
announce_held(const Held *held)
{
	if (HasEnded == ENDED_SUBTRANSACTION && held->last_in < EndedSince)
		return;
	board_announce_stream(&held->key, held->subscription,
						  HasEnded == ENDED_COMMITTED && !held->changed ? held->due : DT_NOEND);
}

/* Locks have been released (h2).  This may be called for parts of a transaction, and more than once. */
void
held_after_locks(void)
{
	int			i;

	if (HasEnded == ENDED_NOTHING)
		return;
	for (i = 0; i < NumHeld; i++)
		announce_held(&HeldLocks[i]);
	if (HeldMore)
		board_announce_to_all();
	if (HasEnded == ENDED_SUBTRANSACTION)
		HasEnded = ENDED_NOTHING;
	else
		held_forget();
}
