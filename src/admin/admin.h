/*
 * admin.h
 *	  What the functions that make, change and drop queues share.
 */
#ifndef PGMQ_ADMIN_H
#define PGMQ_ADMIN_H

#include "base/sql.h"

/* A row of pgmq.meta, or one that refers to it, is of the queue $1 */
#define HAS_IDENTITY \
	"pg_catalog.lower(queue_name) OPERATOR(pg_catalog.=) $1"

extern void lock_queue(const QueueName *name);
extern void require_no_partition(const QueueName *name, char prefix);
extern char *registered_spelling(const QueueName *name);
extern void require_no_default(const QueueName *name, char prefix);
extern void check_interval(const char *argument, const char *value, bool by_time, bool zero_too);

#endif							/* PGMQ_ADMIN_H */
