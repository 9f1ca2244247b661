/*
 * admin.c
 *	  Drop, purge and list queues.
 *
 * These run rarely, so their statements are not kept.  They run with the rights of the
 * caller.  Only rows in the tables about queues are changed as the owner of those tables.
 */
#include "pgmq.h"

#include "catalog/namespace.h"
#include "catalog/pg_collation_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "group/group.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq_drop_queue);
PG_FUNCTION_INFO_V1(pgmq_drop_queue_partitioned);
PG_FUNCTION_INFO_V1(pgmq_purge_queue);
PG_FUNCTION_INFO_V1(pgmq_list_queues);
PG_FUNCTION_INFO_V1(pgmq_detach_archive);
PG_FUNCTION_INFO_V1(pgmq_acquire_queue_lock);
PG_FUNCTION_INFO_V1(pgmq__belongs_to_pgmq);

/* The table of a queue "foo_default" would have the name of the default partition of a queue "foo". */
void
require_no_partition(const QueueName *name, char prefix)
{
	Oid			relid = queue_relid(name, prefix);

	if (OidIsValid(relid) && get_rel_relispartition(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation %s is a partition of another queue", name_table(name, prefix)),
				 errhint("Choose another name for the queue.")));
}

static void
drop_table(const QueueName *name, char prefix)
{
	if (OidIsValid(queue_relid(name, prefix)))
		run_ddl("DROP TABLE %s", name_table(name, prefix));
}

/* Whether the queue or its archive is partitioned, or was until the table was dropped by hand */
static bool
is_partitioned(const QueueName *name)
{
	static const char *const columns[] = {"queue_name", "is_partitioned"};
	OwnRow	   *rows;
	uint64		count;

	if (queue_is_partitioned(name, QUEUE_TABLE) ||
		queue_is_partitioned(name, ARCHIVE_TABLE))
		return true;
	count = registered_rows(name, columns, lengthof(columns), &rows);
	while (count > 0)
	{
		count--;
		if (!rows[count].nulls[1] && DatumGetBool(rows[count].values[1]))
			return true;
	}
	return false;
}

/*
 * The table that was the archive of a queue before the archive was partitioned:
 * a table of the caller with the columns of an archive, and no queue has such a
 * name.
 */
static bool
is_old_archive(const QueueName *name, const char *relname)
{
	const char *prefix = psprintf("a_%s_old", name->canonical);
	QueueName	old;
	Oid			relid;

	if (strncmp(relname, prefix, strlen(prefix)) != 0 ||
		!name_try_canonical(cstring_to_text(relname + 2), &old))
		return false;
	relid = queue_relid(&old, ARCHIVE_TABLE);
	return OidIsValid(relid) && relid == get_relname_relid(relname, get_namespace_oid(PGMQ_SCHEMA, false)) &&
		rights_owns(relid) && get_rel_relkind(relid) == RELKIND_RELATION &&
		!get_rel_relispartition(relid) && get_attnum(relid, "archived_at") != InvalidAttrNumber &&
		!OidIsValid(queue_relid(&old, QUEUE_TABLE)) && registered_spelling(&old) == NULL;
}

static void
drop_old_archive(const QueueName *name, const char *relname)
{
	if (is_old_archive(name, relname))
		run_ddl("DROP TABLE %s", quote_qualified_identifier(PGMQ_SCHEMA, relname));
}

/* Delete the records about partitions of a queue whose tables are gone */
static void
forget_partitions(const QueueName *name, AclMode needs)
{
	const char *canonical = name->canonical;
	Partman		pm;
	bool		found = partman_find(&pm);
	char	   *converted;

	converted = queue_write_row(OWN_PARTITION_CONFIG, name, needs, "DELETE FROM pgmq.partition_config"
								" WHERE queue_name OPERATOR(pg_catalog.=) $1"
								" RETURNING converted_archive", 1, &canonical) > 0 ? row_text(0, 1) : NULL;

	/* A row of the settings is not trusted with the name of a table to drop */
	if (converted != NULL)
		drop_old_archive(name, converted);
	partman_forget(found ? &pm : NULL, name, QUEUE_TABLE);
	partman_forget(found ? &pm : NULL, name, ARCHIVE_TABLE);
}

/* Whether there was such a queue, or at least a record of one */
static bool
drop_queue(const QueueName *name)
{
	const char *canonical = name->canonical;
	bool		existed;
	AclMode		needs = ACL_NO_RIGHTS;
	bool		partitioned;

	queue_require_owner(name);
	SPI_connect();
	lock_queue(name);
	relcheck_own_table(OWN_META, RowExclusiveLock);
	if (!OidIsValid(queue_relid(name, QUEUE_TABLE)) && !OidIsValid(queue_relid(name, ARCHIVE_TABLE)))
		needs = ACL_DELETE;
	existed = OidIsValid(queue_relid(name, QUEUE_TABLE)) || registered_spelling(name) != NULL;
	if (existed)
	{
		partitioned = is_partitioned(name);
		require_no_partition(name, QUEUE_TABLE);
		require_no_partition(name, ARCHIVE_TABLE);
		/* convert_archive_partitioned() of the PL/pgSQL extension has left it */
		if (queue_is_partitioned(name, ARCHIVE_TABLE))
			drop_old_archive(name, psprintf("a_%s_old", name->canonical));
		drop_table(name, QUEUE_TABLE);
		if (group_has_notes(name))
			drop_table(name, NOTES_TABLE);
		if (keys_exist(name))
			keys_drop(name);
		drop_table(name, ARCHIVE_TABLE);
		if (partitioned)
			forget_partitions(name, needs);
		/* Every spelling: an adopted database may have several for one queue */
		(void) queue_write_row(OWN_META, name, needs, "DELETE FROM pgmq.meta WHERE " HAS_IDENTITY, 1, &canonical);
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

/*
 * pgmq.drop_queue(queue_name text, partitioned boolean) -> boolean; deprecated
 *
 * The warnings here and below are those of the PL/pgSQL extension, word for
 * word, because clients may know them.  "v2.0" is a version of that extension.
 */
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
 * The table is locked first and counted by a snapshot taken under the lock, at
 * any isolation level.  TRUNCATE removes every row, so those are the rows to
 * count.
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
	queue_require(&name);
	table = name_table(&name, QUEUE_TABLE);
	/* LOCK would accept the privilege UPDATE, which readers have */
	rights_require_table(queue_relid(&name, QUEUE_TABLE), ACL_TRUNCATE);
	rights_require_select(queue_relid(&name, QUEUE_TABLE), NULL, 0);
	SPI_connect();
	run_ddl("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", table);
	PushActiveSnapshot(GetLatestSnapshot());
	rc = SPI_execute(psprintf("SELECT pg_catalog.count(*) FROM %s", table), true, 0);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	PopActiveSnapshot();
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	run_ddl("TRUNCATE TABLE %s", table);
	policy_removed(&name, policy_of(&name), count);
	SPI_finish();
	PG_RETURN_INT64(count);
}

/* pgmq.list_queues() -> SETOF pgmq.queue_record */
Datum
pgmq_list_queues(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {VARCHAROID, BOOLOID, BOOLOID, TIMESTAMPTZOID};
	static const char *const columns[] = {"queue_name", "is_partitioned", "is_unlogged", "created_at"};
	static const OwnKey by_name[] = {{0, DEFAULT_COLLATION_OID, false}};
	TupleDesc	desc;
	OwnRow	   *rows;
	uint64		count;

	if (get_call_result_type(fcinfo, NULL, &desc) == TYPEFUNC_COMPOSITE)
		relcheck_row_type(desc, types, lengthof(types), "queue_record");
	InitMaterializedSRF(fcinfo, 0);
	count = ownread(OWN_META, VIEW_OF_STATEMENT, columns, lengthof(columns), &rows);
	ownread_sort(rows, count, by_name, lengthof(by_name));
	ownread_put(fcinfo, rows, count);
	return (Datum) 0;
}

/*
 * pgmq.acquire_queue_lock(queue_name text) -> void
 *
 * It needs no privilege: the server gives any role any advisory lock, including
 * this one.  Programs take it before they create a queue.
 */
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
