/*
 * group.h
 *	  Messages that are handed out by groups: in order, and to one consumer at a time.
 *
 * A message is handed out only when every earlier one of its group is gone, or was handed out
 * earlier in the same call.  Three arguments are kept apart.  Safety (front.c) rests on locks,
 * snapshots and the queue's own table.  Liveness (groupsweep.c) rests on a sweep that repeats
 * by itself.  Speed (notes.c) rests on notes, which may be wrong, missing or gone.
 *
 * Without a group index the same is done by statements on the whole queue (slowgroup.c).
 *
 * Other folders need to know whether a queue has notes, which are dropped with it, and its index.
 */
#ifndef PGMQ_GROUP_H
#define PGMQ_GROUP_H

#include "message/message.h"

extern bool group_has_notes(const QueueName *name);
extern const char *group_index(const QueueName *name);

/* For queues that get what create_fifo_index() makes while they are in use */
extern void group_index_shape(const char **suffix, const char **definition);
extern void group_require_notes_name(const QueueName *name);
extern void group_begin_notes(const QueueName *name);

/* At the end of a transaction; cannot fail */
extern void starts_forget_own(void);

#endif							/* PGMQ_GROUP_H */
