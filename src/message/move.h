/*
 * move.h
 *	  Messages that may not be delivered any more go to the dead-letter queue, or the archive.
 */
#ifndef PGMQ_MOVE_H
#define PGMQ_MOVE_H

#include "policy/policy.h"

/* What became of a message that was to be moved */
typedef enum MoveEnd
{
	MOVED,						/* or deleted */
	KEPT,						/* it is not as the caller says, or another transaction is at work on it */
	HIDDEN						/* the move failed */
} MoveEnd;

extern int64 move_dead(const QueueName *name, const QueuePolicy *policy, const int64 *ids, int count);
extern MoveEnd move_now(const QueueName *name, const QueuePolicy *policy, int64 msg_id, int32 attempt,
						const char *reason);

#endif							/* PGMQ_MOVE_H */
