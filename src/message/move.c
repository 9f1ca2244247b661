/*
 * move.c
 *	  Messages that may not be delivered any more go to the dead-letter queue, or the archive.
 */
#include "pgmq.h"

#include "message/message.h"

/* Move those of the messages that are dead, at most 100; how many were moved */
int64
move_dead(const QueueName *name, const QueuePolicy *policy, const int64 *ids, int count)
{
	return 0;
}

/* Move a message whatever its policy says, if this is still its attempt; 0: any attempt */
MoveEnd
move_now(const QueueName *name, const QueuePolicy *policy, int64 msg_id, int32 attempt, const char *reason)
{
	return KEPT;
}
