/*
 * passed.h
 *	  Which subscriptions have not passed a range of ids.
 */
#ifndef PGMQ_STREAM_PASSED_H
#define PGMQ_STREAM_PASSED_H

#include "stream/log.h"

/* A subscription that has events of a shard in the range before it */
typedef struct Behind
{
	char	   *subscription;
	int			shard;
	int64		passed_id;		/* at least the id before the range */
	int64		events;			/* how many; the caller counts them */
} Behind;

extern void passed_hold(const QueueName *name);
extern void passed_lock(const QueueName *name);
extern Behind *passed_behind(const StreamLog *log, Snapshot snapshot, int64 from, int64 until, int *count);

#endif							/* PGMQ_STREAM_PASSED_H */
