/*
 * registry.h
 *	  Which queues are registered, and the lock for changing a queue.
 */
#ifndef PGMQ_REGISTRY_H
#define PGMQ_REGISTRY_H

#include "base/base.h"

/*
 * The advisory lock of a queue, in SQL.  A session that creates or drops the
 * queue holds it; a session that needs the queue to stay shares it.
 */
#define QUEUE_LOCK_KEY(canonical) \
	"pg_catalog.hashtext('pgmq.queue_' OPERATOR(pg_catalog.||) " canonical ")"

/* A row of pgmq.meta, or one that refers to it, is of the queue $1 */
#define HAS_IDENTITY \
	"pg_catalog.lower(queue_name) OPERATOR(pg_catalog.=) $1"

extern void lock_queue(const QueueName *name);
extern uint64 registered_rows(const QueueName *name, const char *const *columns, int ncolumns, OwnRow **rows);
extern char *registered_spelling(const QueueName *name);

#endif							/* PGMQ_REGISTRY_H */
