/*
 * sql.h
 *	  Run statements that are not kept: DDL, and statements on text parameters.
 */
#ifndef PGMQ_SQL_H
#define PGMQ_SQL_H

#include "pgmq.h"

#include "utils/snapshot.h"

#define RUN_MAX_ARGS 16

extern void run_ddl(const char *fmt,...) pg_attribute_printf(1, 2);
extern int	begin_partitioned_ddl(void);
extern void set_option(const char *name, const char *value);
extern void set_lock_timeout(int ms);
extern SPIPlanPtr run_prepare(const char *sql, int nargs, Oid *types);
extern uint64 run_prepared(SPIPlanPtr plan, Datum *values, const char *nulls, Snapshot snapshot, bool read_only);
extern uint64 run_with_texts(const char *sql, int nargs, const char *const *args);
extern char *run_for_text(const char *sql, int nargs, const char *const *args);
extern void rows_require_types(const Oid *types, int count);
extern char *row_text(uint64 row, int column);
extern Oid	row_oid(uint64 row, int column);

#endif							/* PGMQ_SQL_H */
