/*
 * queues.h
 *	  Do something for each queue of the database, or for each stream.
 */
#ifndef PGMQ_QUEUES_H
#define PGMQ_QUEUES_H

#include "base/base.h"

/* A queue as pgmq.meta has it, or a stream */
typedef struct ListedQueue
{
	char	   *spelling;
	QueueName	name;
	char		table;			/* QUEUE_TABLE, or STREAM_TABLE */
} ListedQueue;

typedef void (*QueueVisit) (const ListedQueue *queue, void *arg);

extern int	queues_list(ListedQueue **queues);
extern void queues_visit(const ListedQueue *queues, int count, int lock_budget_ms,
						 bool as_owner, QueueVisit visit, void *arg);
extern bool is_cancellation(const ErrorData *error);

#endif							/* PGMQ_QUEUES_H */
