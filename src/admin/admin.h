/*
 * admin.h
 *	  Queues and their partitions are made, changed and dropped.
 *
 * All of it runs with the rights of the caller.  A call that makes or drops a queue holds
 * lock_queue() before it locks a table.
 *
 * partset	The partitions of a table as they are in the catalogs now.
 * partman	pg_partman's record of a table.
 * partmake	Make partitions, and move rows to them.
 */
#ifndef PGMQ_ADMIN_H
#define PGMQ_ADMIN_H

#include "admin/partmake.h"
#include "admin/partman.h"
#include "admin/partset.h"
#include "group/group.h"

extern void require_no_partition(const QueueName *name, char prefix);
extern void require_no_default(const QueueName *name, char prefix);
extern void queue_take_over_retention(const QueueName *name);

#endif							/* PGMQ_ADMIN_H */
