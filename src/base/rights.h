/*
 * rights.h
 *	  What a caller may do, asked before anything is done.
 */
#ifndef PGMQ_RIGHTS_H
#define PGMQ_RIGHTS_H

#include "pgmq.h"

#include "nodes/parsenodes.h"

extern bool rights_owns(Oid relid);
extern void rights_refuse_table(Oid relid);
extern void rights_require_owner(Oid relid);
extern void rights_require_create(void);
extern void rights_require_table(Oid relid, AclMode privilege);
extern void rights_require_columns(Oid relid, AclMode privilege, const char *const *columns,
								   int ncolumns);
extern bool rights_may_select(Oid relid, const char *const *columns, int ncolumns);
extern void rights_require_select(Oid relid, const char *const *columns, int ncolumns);

#endif							/* PGMQ_RIGHTS_H */
