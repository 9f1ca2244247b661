/*
 * descriptor.h
 *	  The descriptor of a queue: what its names lead to, and what its tables have.
 */
#ifndef PGMQ_DESCRIPTOR_H
#define PGMQ_DESCRIPTOR_H

#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "base/base.h"
#include "queue/place.h"

extern Oid	queue_relid(const QueueName *name, char prefix);
extern char queue_relkind(const QueueName *name, char prefix);
extern bool queue_is_partitioned(const QueueName *name, char prefix);
extern Relation queue_open_table(const QueueName *name, char prefix, LOCKMODE lockmode,
								 bool *has_written_before);
extern bool queue_describe(const QueueName *name, char prefix, Relation rel, Place *place);
extern Oid	queue_sequence(const QueueName *name, char prefix, Relation rel);
extern Oid	queue_index_relid(const QueueName *name, char prefix, const char *suffix);
extern bool queue_lock(const QueueName *name);
extern void queue_require(const QueueName *name);
extern void stream_require(const QueueName *name);

#endif							/* PGMQ_DESCRIPTOR_H */
