/*
 * takeover.c
 *	  What an update from the PL/pgSQL extension does to tables.
 *
 * The script of the update runs as a superuser, and a plain role may own the
 * tables.  A statement that opens indexes or rewrites a table can run code of the
 * owner, even at planning.  So such statements run with the rights of the owner.
 */
#include "pgmq.h"

#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq__as_owner);

/*
 * pgmq_update.as_owner(rel regclass, statement text) -> void
 *
 * The script of the update makes this function and drops it again.  In between, code of
 * an owner runs, for a statement of the script.  It must not call this for the tables of others.
 */
Datum
pgmq__as_owner(PG_FUNCTION_ARGS)
{
	OwnerScope	scope;

	if (!creating_extension || !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the script of an update can call this function")));
	SPI_connect();
	owner_begin(owner_of(PG_GETARG_OID(0)), &scope);
	run_ddl("%s", text_to_cstring(PG_GETARG_TEXT_PP(1)));
	owner_end(&scope);
	SPI_finish();
	PG_RETURN_VOID();
}
