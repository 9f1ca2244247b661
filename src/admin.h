/*
 * admin.h
 *	  What the functions that make, change and drop queues share: statements
 *	  that run once and are not kept.
 */
#ifndef PGMQ_ADMIN_H
#define PGMQ_ADMIN_H

#include "pgmq.h"

#define RUN_MAX_ARGS 12

/* A row of pgmq.meta, or one that refers to it, is of the queue $1 */
#define HAS_IDENTITY \
	"pg_catalog.lower(queue_name) OPERATOR(pg_catalog.=) $1"

extern void run_ddl(const char *fmt,...) pg_attribute_printf(1, 2);
extern uint64 run_with_texts(const char *sql, int nargs, const char *const *args);
extern char *run_for_text(const char *sql, int nargs, const char *const *args);
extern char *row_text(uint64 row, int column);
extern Oid	row_oid(uint64 row, int column);
extern void lock_queue(const QueueName *name);
extern char *registered_spelling(const QueueName *name);
extern void require_no_default(const QueueName *name, char prefix);
extern void check_interval(const char *argument, const char *value, bool by_time, bool zero_too);

#endif							/* PGMQ_ADMIN_H */
