/*
 * access.h
 *	  What a caller may do with a queue, and with the rows about it.
 */
#ifndef PGMQ_ACCESS_H
#define PGMQ_ACCESS_H

#include "nodes/parsenodes.h"
#include "utils/relcache.h"

#include "base/base.h"

extern bool queue_hides_rows(const QueueName *name);
extern void queue_require_owner(const QueueName *name);
extern void queue_require_privilege(const QueueName *name, AclMode privilege);
extern bool queue_row_is_checked(Relation rel);
extern uint64 queue_write_row(OwnTable table, const QueueName *name, AclMode needs,
							  const char *sql, int nargs, const char *const *args);

#endif							/* PGMQ_ACCESS_H */
