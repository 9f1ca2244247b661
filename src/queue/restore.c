/*
 * restore.c
 *	  Rows about queues may be restored in any order.
 *
 * Rows of pgmq.topic_bindings, pgmq.notify_insert_throttle and pgmq.policy refer to
 * rows of pgmq.meta.  pg_dump does not record such an order for the data of an extension's
 * tables, so pg_restore -j loads these tables side by side.  So:
 *
 * 1. A row about a queue that has a table, but is not in pgmq.meta, puts it there.  Such
 *	  a placeholder has the time of creation -infinity, which no function writes.  An
 *	  adopted database may list a queue in two spellings, so there may be two.
 * 2. A row for pgmq.meta fills in the placeholder that it meets.
 * 3. So it does with the row of a queue that is a part of another extension.  The script of
 *	  that extension makes the queue, and has run before the rows come.
 * 4. Writers of placeholders lock pgmq.meta against all other writers, and look again
 *	  under the lock.  So either of the two sessions waits for the other.
 *
 * All of this is for the owner of pgmq.meta, if that role owns the queue's table as
 * well: an owner may lock its table anyway.  For other roles the foreign key fails, as
 * it does for a queue that has no table, and for enable_notify_insert(), which is no
 * restore.
 */
#include "pgmq.h"

#include "catalog/dependency.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/access.h"
#include "queue/descriptor.h"
#include "queue/registry.h"

PG_FUNCTION_INFO_V1(pgmq__restore_in_any_order);

#define LIST_SQL \
	"INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged, created_at)" \
	" VALUES ($1, $2::pg_catalog.bool, $3::pg_catalog.bool, '-infinity')"

#define FILL_IN_SQL \
	"UPDATE pgmq.meta SET is_partitioned = $2::pg_catalog.bool, is_unlogged = $3::pg_catalog.bool," \
	" created_at = $4::pg_catalog.timestamptz" \
	" WHERE queue_name OPERATOR(pg_catalog.=) $1 AND (created_at OPERATOR(pg_catalog.=) '-infinity'" \
	" OR is_partitioned OPERATOR(pg_catalog.=) $2::pg_catalog.bool" \
	" AND is_unlogged OPERATOR(pg_catalog.=) $3::pg_catalog.bool)"

static const char *
text_of_bool(bool value)
{
	return value ? "true" : "false";
}

/* Whether pgmq.meta, which is locked, has a row of this spelling; "created_at" is of that row */
static bool
find_row(Oid meta, const char *spelling, TimestampTz *created_at)
{
	static const char *const columns[] = {"created_at"};
	static const Oid types[] = {TIMESTAMPTZOID};
	OwnRow		row;

	if (!ownread_find(meta, VIEW_OF_LATEST, "queue_name", VARCHAROID, spelling, columns, types, lengthof(columns), &row))
		return false;
	*created_at = row.nulls[0] ? DT_NOEND : DatumGetTimestampTz(row.values[0]);
	return true;
}

/*
 * Whether the queue is listed, under any spelling, by a row that was restored or that create() wrote.
 * A restore brings these rows all at once.
 */
static bool
is_listed(const QueueName *name)
{
	static const char *const columns[] = {"queue_name", "created_at"};
	OwnRow	   *rows;
	uint64		count = registered_rows(name, columns, lengthof(columns), &rows);
	uint64		i;

	for (i = 0; i < count; i++)
	{
		if (rows[i].nulls[1] || !TIMESTAMP_IS_NOBEGIN(DatumGetTimestampTz(rows[i].values[1])))
			return true;
	}
	return false;
}

/* A row refers to a queue, which perhaps will be listed later */
static void
list_queue(const char *spelling, const QueueName *name)
{
	Oid			table = queue_relid(name, QUEUE_TABLE);
	TimestampTz created_at;
	const char *args[3];

	if (!OidIsValid(table) || !rights_owns(table) ||
		find_row(relcheck_own_table(OWN_META, AccessShareLock), spelling, &created_at) ||
		find_row(relcheck_own_table(OWN_META, ShareRowExclusiveLock), spelling, &created_at) ||
		is_listed(name))
		return;
	args[0] = spelling;
	args[1] = text_of_bool(queue_is_partitioned(name, QUEUE_TABLE));
	args[2] = text_of_bool(get_rel_persistence(table) == RELPERSISTENCE_UNLOGGED);
	SPI_connect();
	queue_write_row(OWN_META, name, ACL_NO_RIGHTS, LIST_SQL, lengthof(args), args);
	SPI_finish();
}

/* Whether the queue's table is a member of an extension */
static bool
is_of_extension(const QueueName *name)
{
	Oid			table = queue_relid(name, QUEUE_TABLE);

	return OidIsValid(table) && OidIsValid(getExtensionOfObject(RelationRelationId, table));
}

/* A row for pgmq.meta: whether it went into one that is there */
static bool
fill_in(const char *spelling, const QueueName *name, Relation rel, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	TimestampTz created_at;
	bool		partitioned_null;
	bool		unlogged_null;
	bool		created_null;
	Datum		partitioned;
	Datum		unlogged;
	Datum		created;
	const char *args[4];
	uint64		filled;

	if (!find_row(relcheck_own_table(OWN_META, AccessShareLock), spelling, &created_at) ||
		(!TIMESTAMP_IS_NOBEGIN(created_at) && !is_of_extension(name)))
		return false;
	partitioned = heap_getattr(row, relcheck_column(desc, "is_partitioned", BOOLOID), desc, &partitioned_null);
	unlogged = heap_getattr(row, relcheck_column(desc, "is_unlogged", BOOLOID), desc, &unlogged_null);
	created = heap_getattr(row, relcheck_column(desc, "created_at", TIMESTAMPTZOID), desc, &created_null);
	if (partitioned_null || unlogged_null || created_null)
		return false;
	args[0] = spelling;
	args[1] = text_of_bool(DatumGetBool(partitioned));
	args[2] = text_of_bool(DatumGetBool(unlogged));
	args[3] = timestamptz_to_str(DatumGetTimestampTz(created));
	SPI_connect();
	filled = queue_write_row(OWN_META, name, ACL_NO_RIGHTS, FILL_IN_SQL, lengthof(args), args);
	SPI_finish();
	return filled > 0;
}

/*
 * pgmq._restore_in_any_order() -> trigger
 *
 * BEFORE INSERT, for each row.  On other tables than those of the extension it does
 * nothing.
 */
Datum
pgmq__restore_in_any_order(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Oid			meta = relcheck_own_relid(OWN_META);
	Relation	rel;
	HeapTuple	row;
	int			column;
	char	   *spelling;
	QueueName	name;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || !TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("pgmq._restore_in_any_order() can only be called as a trigger that fires before a row is inserted")));
	rel = trigdata->tg_relation;
	row = trigdata->tg_trigtuple;
	column = SPI_fnumber(RelationGetDescr(rel), "queue_name");
	if (!OidIsValid(meta) || !rights_owns(meta) || column <= 0)
		return PointerGetDatum(row);
	spelling = SPI_getvalue(row, RelationGetDescr(rel), column);
	if (spelling == NULL || !name_try_canonical(cstring_to_text(spelling), &name))
		return PointerGetDatum(row);
	if (RelationGetRelid(rel) == meta)
		return PointerGetDatum(fill_in(spelling, &name, rel, row) ? NULL : row);
	if (!queue_row_is_checked(rel) &&
		(RelationGetRelid(rel) == relcheck_own_relid(OWN_TOPIC_BINDINGS) ||
		 RelationGetRelid(rel) == relcheck_own_relid(OWN_NOTIFY_SETTINGS) ||
		 RelationGetRelid(rel) == relcheck_own_relid(OWN_POLICY)))
		list_queue(spelling, &name);
	return PointerGetDatum(row);
}
