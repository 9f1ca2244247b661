/*
 * owner.h
 *	  Run something with the rights of the role that owns a relation.
 */
#ifndef PGMQ_OWNER_H
#define PGMQ_OWNER_H

#include "pgmq.h"

#include "utils/relcache.h"

/* What owner_end() restores */
typedef struct OwnerScope
{
	Oid			user;
	int			sec_context;
	int			guc_nest_level;
} OwnerScope;

extern Oid	owner_of(Oid relid);
extern bool owner_has_code(Relation rel, int columns, int indexes);
extern void owner_begin_bare(Oid owner, OwnerScope *scope);
extern void owner_begin(Oid owner, OwnerScope *scope);
extern void owner_pass_policies(OwnerScope *scope);
extern void owner_end(const OwnerScope *scope);
extern uint64 owner_run(Oid owner, bool all_rows, const char *sql, int nargs, const char *const *args);

#endif							/* PGMQ_OWNER_H */
