/*
 * owner.c
 *	  Run something with the rights of the role that owns a relation.
 *
 * Code that users attach to a table (triggers, defaults, constraints, index
 * expressions, policies) runs inside our statements.  Between owner_begin() and
 * owner_end() it has the rights of the table's owner and nothing else:
 *
 * 1. The current user is the owner, in a security-restricted operation, so the
 *	  code cannot switch to another role or leave anything behind in the session.
 * 2. The search path is pg_catalog, so the caller's path does not choose which
 *	  functions the owner's code calls.
 * 3. Settings that change the meaning of constants have fixed values.
 *
 * After an error the (sub)transaction's abort restores user and settings, so
 * callers need no PG_TRY.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/owner.h"
#include "base/sql.h"

/* InvalidOid if there is no such relation */
Oid
owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/*
 * Whether a statement on the table may run code that was attached to it: then
 * owner_begin() is needed.  "columns" and "indexes" are those that it was made
 * with, which have no such code.
 */
bool
owner_has_code(Relation rel, int columns, int indexes)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	List	   *list;
	ListCell   *lc;
	bool		found;

	if (rel->trigdesc != NULL || rel->rd_rules != NULL || rel->rd_rel->relrowsecurity ||
		rel->rd_rel->relhassubclass || RelationGetNumberOfAttributes(rel) != columns ||
		(constr != NULL && (constr->num_check > 0 || constr->has_generated_stored)))
		return true;
	list = RelationGetIndexList(rel);
	found = list_length(list) != indexes;
	foreach(lc, list)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));

		found = found || !HeapTupleIsValid(tuple) ||
			!heap_attisnull(tuple, Anum_pg_index_indexprs, NULL);
		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
	}
	list_free(list);
	return found;
}

/* The owner's rights for a statement that runs no code but ours, at no cost */
void
owner_begin_bare(Oid owner, OwnerScope *scope)
{
	/* The relation was looked up without a lock, so it may be gone */
	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a table was dropped concurrently")));
	GetUserIdAndSecContext(&scope->user, &scope->sec_context);
	scope->guc_nest_level = 0;
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

void
owner_begin(Oid owner, OwnerScope *scope)
{
	owner_begin_bare(owner, scope);
	scope->guc_nest_level = NewGUCNestLevel();
	set_option("search_path", "pg_catalog, pg_temp");
	set_option("datestyle", "ISO");
	set_option("standard_conforming_strings", "on");
}

void
owner_end(const OwnerScope *scope)
{
	if (scope->guc_nest_level > 0)
		AtEOXact_GUC(false, scope->guc_nest_level);
	SetUserIdAndSecContext(scope->user, scope->sec_context);
}

/*
 * Until owner_end(), no row-level security counts for the current user on its own tables
 * (FORCE ROW LEVEL SECURITY), as in a referential action.
 */
void
owner_pass_policies(OwnerScope *scope)
{
	GetUserIdAndSecContext(&scope->user, &scope->sec_context);
	scope->guc_nest_level = 0;
	SetUserIdAndSecContext(scope->user, scope->sec_context | SECURITY_NOFORCE_RLS);
}

/* A statement as the owner, as run_with_texts() runs it; "all_rows": no row-level security counts */
uint64
owner_run(Oid owner, bool all_rows, const char *sql, int nargs, const char *const *args)
{
	OwnerScope	scope;
	OwnerScope	unpoliced;
	uint64		rows;

	owner_begin(owner, &scope);
	if (all_rows)
		owner_pass_policies(&unpoliced);
	rows = run_with_texts(sql, nargs, args);
	if (all_rows)
		owner_end(&unpoliced);
	owner_end(&scope);
	return rows;
}
