/*
 * wait.h
 *	  Sessions that wait for a queue, and what wakes them.
 *
 * effect_*()	say what this transaction does to a queue.  When it has ended, and not before,
 *				waiting sessions are told.  Functions called at that end cannot fail.
 * wait_for()	tries, sleeps until there is a reason to try again, and so on.  It knows no
 *				SQL: its caller passes the attempt.
 *
 * A call that is lost costs time only.  A waiting session looks again after
 * pgmq.recheck_interval at the latest.
 */
#ifndef PGMQ_WAIT_H
#define PGMQ_WAIT_H

#include "position/position.h"

/* How a wait ended: without a message, with some taken, with some seen */
typedef enum WakeEnd
{
	WAKE_EMPTY,
	WAKE_TOOK,
	WAKE_SAW
} WakeEnd;

extern void wake_init(void);

/* ---- effects.c ---- */

extern void effect_messages(const QueueName *name, int64 messages);
extern void effect_groups(const QueueName *name, int64 groups);
extern void effect_unknown(const QueueName *name);
extern void effect_due(const QueueName *name, TimestampTz due);
extern void effect_taking(const QueueName *name, int64 messages);
extern void effect_taken(const QueueName *name, int64 taking, int64 messages);
extern void effect_all(void);
extern void wake_committed(void);
extern void wake_rolled_back(void);
extern void wake_subtransaction_rolled_back(SubTransactionId id);
extern void wake_forget(void);

/* ---- held.c: locks of streams ---- */

extern void held_taken(const QueueName *name, const char *subscription);
extern void held_released(const QueueName *name, const char *subscription, bool for_others);
extern void held_changed(const QueueName *name, const char *subscription);
extern void held_due(const QueueName *name, const char *subscription, TimestampTz due);
extern void held_ended(bool committed);
extern void held_subtransaction_rolled_back(SubTransactionId id);
extern void held_after_locks(void);
extern void held_forget(void);

/* ---- wait.c ---- */

/*
 * Try a queue, given as its index in the request.  Returns the number of
 * messages taken or seen, and sets "outlook" for the next attempt.
 */
typedef int64 (*WaitAttempt) (void *arg, int queue, Outlook *outlook);

typedef struct WaitRequest
{
	const QueueName *queues;
	int			nqueues;
	WaitAttempt attempt;
	void	   *arg;
	int64		timeout_ms;		/* 0 or less: one attempt */
	int			interval_ms;	/* longest time between two attempts */
	WakeEnd		success;		/* WAKE_TOOK or WAKE_SAW */
	bool		grouped;		/* for groups, not for messages */
	bool		picky;			/* may skip what another would take */
	bool		unwakeable;		/* could not see what it was woken for */
	const char *subscription;	/* of a stream, or NULL.  The caller has checked that it may wait. */
} WaitRequest;

extern int	wait_recheck_interval;

extern void wait_to_take(WaitRequest *request, FunctionCallInfo fcinfo, const QueueName *name,
						 WaitAttempt attempt, void *arg);
extern bool wait_for(const WaitRequest *request);

#endif							/* PGMQ_WAIT_H */
