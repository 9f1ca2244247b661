/*
 * admin.h
 *	  What the functions that make, change and drop queues share: statements
 *	  that run once and are not kept.
 */
#ifndef PGMQ_ADMIN_H
#define PGMQ_ADMIN_H

#include "pgmq.h"

#define RUN_MAX_ARGS 8

/* A row of pgmq.meta, or one that refers to it, is of the queue $1 */
#define HAS_IDENTITY \
	"pg_catalog.lower(queue_name) OPERATOR(pg_catalog.=) $1"

extern void run_ddl(const char *fmt,...) pg_attribute_printf(1, 2);
extern uint64 run_with_texts(const char *sql, int nargs, const char *const *args);
extern char *run_for_text(const char *sql, int nargs, const char *const *args);
extern void lock_queue(const QueueName *name);
extern char *registered_spelling(const QueueName *name);

#endif							/* PGMQ_ADMIN_H */
