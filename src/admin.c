/*
 * admin.c
 *	  Make queues, drop, purge and list them.
 *
 * These run rarely, so their statements are not kept.  All of them run with
 * the rights of the caller.
 */
#include "admin.h"

#include <stdarg.h>

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(pgmq_create_non_partitioned);
PG_FUNCTION_INFO_V1(pgmq_create_unlogged);
PG_FUNCTION_INFO_V1(pgmq_drop_queue);
PG_FUNCTION_INFO_V1(pgmq_drop_queue_partitioned);
PG_FUNCTION_INFO_V1(pgmq_purge_queue);
PG_FUNCTION_INFO_V1(pgmq_list_queues);
PG_FUNCTION_INFO_V1(pgmq_detach_archive);
PG_FUNCTION_INFO_V1(pgmq_acquire_queue_lock);
PG_FUNCTION_INFO_V1(pgmq__belongs_to_pgmq);

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

/*
 * Run a statement on text parameters, which may be NULL; how many rows it
 * processed.  By the latest snapshot, whatever the isolation level of the
 * caller: these statements go with DDL, which sees what is committed now.  By
 * an older snapshot, a queue that another session has made meanwhile would be
 * dropped without its record.
 */
uint64
run_with_texts(const char *sql, int nargs, const char *const *args)
{
	Oid			types[RUN_MAX_ARGS];
	Datum		values[RUN_MAX_ARGS];
	char		nulls[RUN_MAX_ARGS];
	SPIPlanPtr	plan;
	int			rc;
	int			i;

	Assert(nargs <= RUN_MAX_ARGS);
	for (i = 0; i < nargs; i++)
	{
		types[i] = TEXTOID;
		values[i] = args[i] ? CStringGetTextDatum(args[i]) : (Datum) 0;
		nulls[i] = args[i] ? ' ' : 'n';
	}
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	rc = SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(),
							  InvalidSnapshot, false, true, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

/* The first column of the first row, palloc'd; NULL if there is none */
char *
run_for_text(const char *sql, int nargs, const char *const *args)
{
	if (run_with_texts(sql, nargs, args) == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * One at a time may create or drop a queue; the lock is held until the end of
 * the transaction.  The key is the one that programs of the published
 * interface know, made from the canonical name.
 *
 * What whoever had the lock before us has done to the catalogs is known to us
 * from here on: unlike a lock on a table, this one doesn't see to that.
 */
void
lock_queue(const QueueName *name)
{
	const char *canonical = name->canonical;

	run_with_texts("SELECT pg_catalog.pg_advisory_xact_lock(" QUEUE_LOCK_KEY("$1") ")",
				   1, &canonical);
	AcceptInvalidationMessages();
}

/* The spelling under which the queue was made, or NULL if it is new to us */
char *
registered_spelling(const QueueName *name)
{
	const char *canonical = name->canonical;

	return run_for_text("SELECT queue_name FROM pgmq.meta WHERE " HAS_IDENTITY
						" ORDER BY created_at LIMIT 1", 1, &canonical);
}

/*
 * Keep the queue's spelling and kind; the kind is read off its table, which
 * may be older than this call.
 */
static void
register_queue(const QueueName *name, const char *spelling)
{
	const char *args[2];

	args[0] = spelling;
	args[1] = name_table(name, QUEUE_TABLE);
	run_with_texts("INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)"
				   " SELECT $1, relkind OPERATOR(pg_catalog.=) 'p', relpersistence OPERATOR(pg_catalog.=) 'u'"
				   " FROM pg_catalog.pg_class"
				   " WHERE oid OPERATOR(pg_catalog.=) $2::pg_catalog.regclass"
				   " ON CONFLICT DO NOTHING", 2, args);
}

/*
 * The columns that a queue and its archive share, with the archive's own in
 * its place.  Tools read these tables: names, types and order are contract.
 */
#define TABLE_COLUMNS(archived_at) \
	" read_ct integer NOT NULL DEFAULT 0," \
	" enqueued_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now()," \
	" last_read_at timestamp with time zone," archived_at \
	" vt timestamp with time zone NOT NULL," \
	" message pg_catalog.jsonb," \
	" headers pg_catalog.jsonb"

/*
 * CREATE TABLE IF NOT EXISTS takes a relation of any kind for the table: the
 * index of another queue, for one, may have the name.
 */
static void
require_table(const QueueName *name, char prefix)
{
	if (!OidIsValid(name_relid(name, prefix)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation %s exists and is not a table", name_table(name, prefix)),
				 errhint("Choose another name for the queue.")));
}

/*
 * The queue's table.  The second index holds the deferred messages only, so a
 * message that is sent without delay goes into one index.
 */
static void
create_queue_table(const QueueName *name, bool unlogged)
{
	const char *table = name_table(name, QUEUE_TABLE);
	bool		exists = OidIsValid(name_relid(name, QUEUE_TABLE));

	run_ddl("CREATE %sTABLE IF NOT EXISTS %s ("
			"msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,"
			TABLE_COLUMNS("") ")",
			unlogged ? "UNLOGGED " : "", table);

	require_table(name, QUEUE_TABLE);

	/*
	 * The ids of an unlogged queue must not start again after a crash: its
	 * archive is logged and still has them.
	 */
	if (unlogged && !exists)
		run_ddl("ALTER SEQUENCE %s SET LOGGED", name_sequence(name));
}

static void
create_archive_table(const QueueName *name)
{
	run_ddl("CREATE TABLE IF NOT EXISTS %s ("
			"msg_id bigint PRIMARY KEY,"
			TABLE_COLUMNS(" archived_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),")
			")",
			name_table(name, ARCHIVE_TABLE));
	require_table(name, ARCHIVE_TABLE);
}

static void
create_indexes(const QueueName *name, const char *spelling)
{
	run_ddl("CREATE INDEX IF NOT EXISTS %s ON %s (vt, msg_id)"
			" WHERE vt OPERATOR(pg_catalog.<>) enqueued_at",
			name_object(name, "q_", "_vt_idx"),
			name_table(name, QUEUE_TABLE));
	run_ddl("CREATE INDEX IF NOT EXISTS %s ON %s (archived_at)",
			quote_identifier(psprintf("archived_at_idx_%s", spelling)),
			name_table(name, ARCHIVE_TABLE));
}

/*
 * Another queue's table may have the name of our index or sequence.  The
 * index would be skipped then, and the sequence get another name than the one
 * that metrics() looks for.
 */
static void
require_own(const QueueName *name, const char *suffix, char relkind)
{
	const char *relname = psprintf("q_%s%s", name->canonical, suffix);
	Oid			relid = get_relname_relid(relname, get_namespace_oid(PGMQ_SCHEMA, false));

	if (OidIsValid(relid) && get_rel_relkind(relid) != relkind)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" exists and belongs to another queue", relname),
				 errhint("Choose another name for the queue.")));
}

/* A queue that exists keeps its kind: say so instead of pretending. */
static void
notice_other_kind(const QueueName *name, bool unlogged)
{
	Oid			relid = name_relid(name, QUEUE_TABLE);
	bool		is_unlogged;

	if (!OidIsValid(relid))
		return;
	is_unlogged = get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED;
	if (is_unlogged != unlogged)
		ereport(NOTICE,
				(errmsg("queue \"%s\" exists and stays %s", name->canonical,
						is_unlogged ? "unlogged" : "logged")));
}

static void
create_queue(FunctionCallInfo fcinfo, bool unlogged)
{
	QueueName	name;
	char	   *spelling;

	name_from_arg(fcinfo, 0, &name);
	name_validate_new(PG_GETARG_TEXT_PP(0), &name);
	SPI_connect();
	lock_queue(&name);
	spelling = registered_spelling(&name);
	if (spelling == NULL)
		spelling = text_to_cstring(PG_GETARG_TEXT_PP(0));
	notice_other_kind(&name, unlogged);
	create_queue_table(&name, unlogged);
	create_archive_table(&name);
	create_indexes(&name, spelling);
	require_own(&name, "_vt_idx", RELKIND_INDEX);
	require_own(&name, "_msg_id_seq", RELKIND_SEQUENCE);
	register_queue(&name, spelling);
	SPI_finish();
}

/*
 * pgmq.create(queue_name text) -> void
 * pgmq.create_non_partitioned(queue_name text) -> void
 */
Datum
pgmq_create_non_partitioned(PG_FUNCTION_ARGS)
{
	create_queue(fcinfo, false);
	PG_RETURN_VOID();
}

/* pgmq.create_unlogged(queue_name text) -> void */
Datum
pgmq_create_unlogged(PG_FUNCTION_ARGS)
{
	create_queue(fcinfo, true);
	PG_RETURN_VOID();
}

static void
drop_table(const QueueName *name, char prefix)
{
	if (OidIsValid(name_relid(name, prefix)))
		run_ddl("DROP TABLE %s", name_table(name, prefix));
}

/* Whether there was such a queue, or at least a record of one */
static bool
drop_queue(const QueueName *name)
{
	const char *canonical = name->canonical;
	bool		existed;

	SPI_connect();
	lock_queue(name);
	existed = OidIsValid(name_relid(name, QUEUE_TABLE)) || registered_spelling(name) != NULL;
	if (existed)
	{
		drop_table(name, QUEUE_TABLE);
		drop_table(name, ARCHIVE_TABLE);
		/* Every spelling: an adopted database may have several for one queue */
		run_with_texts("DELETE FROM pgmq.meta WHERE " HAS_IDENTITY, 1, &canonical);
	}
	SPI_finish();
	plan_forget(name);
	return existed;
}

static bool
drop_queue_by_arg(FunctionCallInfo fcinfo)
{
	QueueName	name;

	if (!PG_ARGISNULL(0))
	{
		name_from_arg(fcinfo, 0, &name);
		if (drop_queue(&name))
			return true;
	}
	ereport(NOTICE,
			(errmsg("pgmq queue `%s` does not exist",
					PG_ARGISNULL(0) ? "<NULL>" : text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	return false;
}

/* pgmq.drop_queue(queue_name text) -> boolean */
Datum
pgmq_drop_queue(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(drop_queue_by_arg(fcinfo));
}

/* pgmq.drop_queue(queue_name text, partitioned boolean) -> boolean; deprecated */
Datum
pgmq_drop_queue_partitioned(PG_FUNCTION_ARGS)
{
	ereport(WARNING,
			(errmsg("drop_queue(queue_name, partitioned) is deprecated and will be removed in PGMQ v2.0. Use drop_queue(queue_name) instead")));
	(void) drop_queue_by_arg(fcinfo);
	PG_RETURN_BOOL(true);
}

/* pgmq.detach_archive(queue_name text) -> void; deprecated */
Datum
pgmq_detach_archive(PG_FUNCTION_ARGS)
{
	QueueName	name;

	if (!PG_ARGISNULL(0))
		name_from_arg(fcinfo, 0, &name);
	ereport(WARNING,
			(errmsg("detach_archive(queue_name) is deprecated and is a no-op. It will be removed in PGMQ v2.0. Archive tables are no longer member objects.")));
	PG_RETURN_VOID();
}

/*
 * pgmq.purge_queue(queue_name text) -> bigint
 *
 * The table is locked before it is counted, and counted by a snapshot taken
 * under the lock, whatever the isolation level of the caller: TRUNCATE takes
 * every row there is, so those are the rows to count.
 */
Datum
pgmq_purge_queue(PG_FUNCTION_ARGS)
{
	QueueName	name;
	const char *table;
	int64		count;
	bool		isnull;
	int			rc;

	name_from_arg(fcinfo, 0, &name);
	name_require_queue(&name);
	table = name_table(&name, QUEUE_TABLE);
	SPI_connect();
	run_ddl("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", table);
	PushActiveSnapshot(GetLatestSnapshot());
	rc = SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM %s", table), true, 0);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	PopActiveSnapshot();
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	run_ddl("TRUNCATE TABLE %s", table);
	SPI_finish();
	PG_RETURN_INT64(count);
}

/* pgmq.list_queues() -> SETOF pgmq.queue_record */
Datum
pgmq_list_queues(PG_FUNCTION_ARGS)
{
	result_read_only_sql(fcinfo,
						 "SELECT queue_name, is_partitioned, is_unlogged, created_at"
						 " FROM pgmq.meta ORDER BY queue_name");
	return (Datum) 0;
}

/* pgmq.acquire_queue_lock(queue_name text) -> void */
Datum
pgmq_acquire_queue_lock(PG_FUNCTION_ARGS)
{
	QueueName	name;

	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	name_from_arg(fcinfo, 0, &name);
	SPI_connect();
	lock_queue(&name);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * pgmq._belongs_to_pgmq(table_name text) -> boolean
 *
 * Whether a table of this name is a member of the extension.
 */
Datum
pgmq__belongs_to_pgmq(PG_FUNCTION_ARGS)
{
	char	   *table;
	bool		found;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	table = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SPI_connect();
	found = run_with_texts("SELECT FROM pg_catalog.pg_depend AS d"
						   " JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid"
						   " JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) d.objid"
						   " WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
						   " AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass"
						   " AND e.extname OPERATOR(pg_catalog.=) 'pgmq'"
						   " AND c.relname OPERATOR(pg_catalog.=) $1",
						   1, (const char *const *) &table) > 0;
	SPI_finish();
	PG_RETURN_BOOL(found);
}
