/*
 * move.h
 *	  Messages that may not be delivered any more go to the dead-letter queue, or the archive.
 */
#ifndef PGMQ_MOVE_H
#define PGMQ_MOVE_H

#include "policy/policy.h"

/* Reasons, beside those of survey.h and those that callers give */
#define MOVED_OVERFLOW "overflow"

/* Returns up to "most" ids.  "written_before": this transaction had written to the queue. */
typedef int (*MoveFind) (void *arg, bool written_before, int most, int64 *ids);

/* Which messages a caller wants to have moved, and how */
typedef struct MoveOrder
{
	const QueueName *name;
	const QueuePolicy *policy;
	TimestampTz now;			/* messages are visible or dead by this time */
	const char *reason;			/* NULL: only messages that are dead, for the reason that they are */
	int32		attempt;		/* only if this is the last delivery; 0: any */
	bool		leased_too;		/* also messages that are not visible */
	bool		in_order;		/* none before an earlier one of the same call */
	bool		waits;			/* waits for locks, and raises errors */
	bool		deletes;		/* where there is no dead-letter queue, the messages are deleted */
	MoveFind	find;			/* finds and locks the messages, as the owner of the queue; may be NULL */
	void	   *find_arg;
	bool	   *try_later;		/* set if that was not possible now, because of other transactions; may be NULL */
} MoveOrder;

extern int64 move_messages(const MoveOrder *order, const int64 *ids, int count);
extern int64 move_dead(const QueueName *name, const QueuePolicy *policy, TimestampTz now,
					   const int64 *ids, int count);
extern int64 move_nacked(const QueueName *name, const QueuePolicy *policy, const int64 *ids, int count);
extern bool move_now(const QueueName *name, const QueuePolicy *policy, int64 msg_id, int32 attempt,
					 const char *reason);

#endif							/* PGMQ_MOVE_H */
