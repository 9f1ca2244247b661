/*
 * sql.c
 *	  Run statements that are not kept: DDL, and statements on text parameters.
 *
 * All of them run with the rights of the current user.  owner.c runs them with
 * those of an owner.
 */
#include "pgmq.h"

#include <stdarg.h>

#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "commands/tablespace.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "base/sql.h"

/* Run DDL that was put together from quoted, qualified identifiers. */
void
run_ddl(const char *fmt,...)
{
	StringInfoData sql;
	va_list		args;
	int			needed;
	int			rc;

	initStringInfo(&sql);
	for (;;)
	{
		va_start(args, fmt);
		needed = appendStringInfoVA(&sql, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	rc = SPI_execute(sql.data, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
}

/* Until the nest level of settings ends that the caller has begun */
void
set_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* The same of lock_timeout */
void
set_lock_timeout(int ms)
{
	set_option("lock_timeout", psprintf("%dms", ms));
}

/*
 * The server makes no partitioned table where default_tablespace names the
 * tablespace that it would take anyway.  Returns the nest level of settings, for
 * AtEOXact_GUC().
 */
int
begin_partitioned_ddl(void)
{
	int			nest = NewGUCNestLevel();

	if (!OidIsValid(GetDefaultTablespace(RELPERSISTENCE_PERMANENT, false)))
		set_option("default_tablespace", "");
	return nest;
}

/* A statement for run_prepared(); this locks its tables, so the snapshot comes later */
SPIPlanPtr
run_prepare(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * Run it on what a snapshot shows, or (InvalidSnapshot) on what the transaction
 * sees; how many rows it processed.
 */
uint64
run_prepared(SPIPlanPtr plan, Datum *values, const char *nulls, Snapshot snapshot, bool read_only)
{
	int			rc = SPI_execute_snapshot(plan, values, nulls, snapshot, InvalidSnapshot, read_only, true, 0);

	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(rc));
	SPI_freeplan(plan);
	return SPI_processed;
}

/*
 * Run a statement on text parameters, which may be NULL; returns how many rows
 * it processed.  It uses the latest snapshot at any isolation level of the
 * caller.  These statements belong to DDL, which sees what is committed now.
 * With an older snapshot, a queue that another session has made meanwhile would
 * be dropped without its record.
 */
uint64
run_with_texts(const char *sql, int nargs, const char *const *args)
{
	Oid			types[RUN_MAX_ARGS];
	Datum		values[RUN_MAX_ARGS];
	char		nulls[RUN_MAX_ARGS];
	SPIPlanPtr	plan;
	int			i;

	if (nargs > RUN_MAX_ARGS)
		elog(ERROR, "%d parameters are too many", nargs);
	for (i = 0; i < nargs; i++)
	{
		types[i] = TEXTOID;
		values[i] = args[i] ? CStringGetTextDatum(args[i]) : (Datum) 0;
		nulls[i] = args[i] ? ' ' : 'n';
	}
	plan = run_prepare(sql, nargs, types);
	return run_prepared(plan, values, nulls, GetLatestSnapshot(), false);
}

/* The first column of the first row, palloc'd; NULL if there is none */
char *
run_for_text(const char *sql, int nargs, const char *const *args)
{
	if (run_with_texts(sql, nargs, args) == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* A column of a row that run_with_texts() has read, counted from 0 and 1; NULL for NULL */
char *
row_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/*
 * Before rows of a user's table are read as Datums: its owner can have given a column another type, and the
 * server then finds another function or operator for the statement.
 */
void
rows_require_types(const Oid *types, int count)
{
	int			i;

	for (i = 0; i < count; i++)
		if (TupleDescAttr(SPI_tuptable->tupdesc, i)->atttypid != types[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the queue's table does not have the columns of a queue")));
}

/* InvalidOid for NULL; the column is an oid */
Oid
row_oid(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}
