/*
 * metrics.c
 *	  Numbers about queues.
 *
 * The messages are counted by count.c, which runs no code of the queue's owner.
 * The caller needs the privileges that a SELECT would need.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "queue/queue.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_metrics);
PG_FUNCTION_INFO_V1(pgmq_metrics_all);

#define METRICS_COLUMNS 8

/* Waits for locks of all queues together, in milliseconds */
#define LOCK_BUDGET_MS 1000

/* ---- counting ---- */

/* If policies decide what the caller sees, a statement counts the messages; $1 is the clock */
#define POLICED_SQL \
	"SELECT pg_catalog.count(*)," \
	" pg_catalog.count(*) FILTER (WHERE vt OPERATOR(pg_catalog.<=) $1" \
	" OR vt OPERATOR(pg_catalog.=) enqueued_at)," \
	" pg_catalog.max(enqueued_at), pg_catalog.min(enqueued_at) FROM {queue}"

static Datum
policed_value(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

static void
count_policed_messages(const QueueName *name, Counts *counts)
{
	static const Oid types[] = {INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Oid			type = TIMESTAMPTZOID;
	Datum		now;
	bool		isnull;

	memset(counts, 0, sizeof(*counts));
	counts->now = GetCurrentTimestamp();
	now = TimestampTzGetDatum(counts->now);
	SPI_connect();
	if (SPI_execute_with_args(name_expand(POLICED_SQL, name), 1, &type, &now, NULL, false, 0) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(SPI_result));
	rows_require_types(types, lengthof(types));
	counts->messages = DatumGetInt64(policed_value(1, &isnull));
	counts->visible = DatumGetInt64(policed_value(2, &isnull));
	counts->newest = DatumGetTimestampTz(policed_value(3, &isnull));
	counts->oldest = DatumGetTimestampTz(policed_value(4, &isnull));
	counts->aged = !isnull;
	SPI_finish();
}

static float4
estimated_rows(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	float4		rows = 0;

	if (HeapTupleIsValid(tuple))
	{
		rows = Max(((Form_pg_class) GETSTRUCT(tuple))->reltuples, 0);
		ReleaseSysCache(tuple);
	}
	return rows;
}

static Oid
default_partition(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		get_default_partition_oid(relid) : InvalidOid;
}

/*
 * The number of rows in the default partitions of the queue and its archive, as
 * of the last analyze; false for a queue without one.  By the catalog and not
 * by name: "foo_default" may be a queue.
 */
static bool
default_length(const QueueName *name, int64 *length)
{
	Oid			queue = default_partition(queue_relid(name, QUEUE_TABLE));
	Oid			archive = default_partition(queue_relid(name, ARCHIVE_TABLE));

	*length = (int64) (estimated_rows(queue) + estimated_rows(archive));
	return OidIsValid(queue);
}

/* In seconds, never negative */
static int32
age(TimestampTz now, TimestampTz since)
{
	if (since >= now)
		return 0;
	if (TIMESTAMP_NOT_FINITE(since))
		return PG_INT32_MAX;
	return (int32) Min((now - since + USECS_PER_SEC / 2) / USECS_PER_SEC, PG_INT32_MAX);
}

/* ---- one queue ---- */

/* The sequence of msg_id; if the column has another type now, the only sequence that the table owns */
static Oid
sequence_of(const QueueName *name, Oid queue)
{
	Relation	rel = relation_open(queue, AccessShareLock);
	Oid			sequence = queue_sequence(name, QUEUE_TABLE, rel);
	List	   *owned;

	relation_close(rel, AccessShareLock);
	if (OidIsValid(sequence))
		return sequence;
	owned = getOwnedSequences(queue);
	if (list_length(owned) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("column \"msg_id\" of table %s has no sequence", name_table(name, QUEUE_TABLE))));
	return linitial_oid(owned);
}

/* The columns that a SELECT on the queue's table needs privileges for */
static const char *const queue_columns[] = {"enqueued_at", "vt"};
static const char *const sequence_columns[] = {"is_called", "last_value"};

/*
 * One row of pgmq.metrics_result.  One reading of the clock decides both the ages
 * and which messages are visible.  It follows the snapshot, so a message in the
 * snapshot is not from the future, unless the clock was set back; then its age is
 * 0.
 */
static HeapTuple
queue_metrics(const char *queue_name, const QueueName *name, Oid queue, TupleDesc desc)
{
	Oid			sequence = sequence_of(name, queue);
	Counts		counts;
	int64		in_default;
	Datum		values[METRICS_COLUMNS];
	bool		nulls[METRICS_COLUMNS] = {false};

	rights_require_select(queue, queue_columns, lengthof(queue_columns));
	rights_require_select(sequence, sequence_columns, lengthof(sequence_columns));
	if (count_policed(queue))
		count_policed_messages(name, &counts);
	else if (!count_messages(queue, true, &counts))
		elog(ERROR, "table %u is gone", queue);
	nulls[2] = nulls[3] = !counts.aged;
	nulls[7] = !default_length(name, &in_default);
	values[0] = CStringGetTextDatum(queue_name);
	values[1] = Int64GetDatum(counts.messages);
	values[2] = Int32GetDatum(age(counts.now, counts.newest));
	values[3] = Int32GetDatum(age(counts.now, counts.oldest));
	values[4] = Int64GetDatum(count_drawn(sequence));
	values[5] = TimestampTzGetDatum(counts.now);
	values[6] = Int64GetDatum(counts.visible);
	values[7] = Int64GetDatum(in_default);
	return relcheck_row(desc, values, nulls);
}

/* Check that the columns are as the extension has made them */
static void
check_result(TupleDesc desc)
{
	static const Oid types[METRICS_COLUMNS] = {TEXTOID, INT8OID, INT4OID, INT4OID, INT8OID,
	TIMESTAMPTZOID, INT8OID, INT8OID};

	relcheck_row_type(desc, types, METRICS_COLUMNS, "metrics_result");
}

/*
 * Lock a queue's table for a caller that may select the columns.  InvalidOid if the queue has
 * no table; an error if something else has its name.
 */
Oid
metrics_lock_queue(const QueueName *name, const char *const *columns, int ncolumns)
{
	Oid			relid;
	char		relkind;

	while (OidIsValid(relid = queue_relid(name, QUEUE_TABLE)))
	{
		/* A refused caller does not wait */
		rights_require_select(relid, columns, ncolumns);
		LockRelationOid(relid, AccessShareLock);
		if (queue_relid(name, QUEUE_TABLE) == relid)
			break;
		UnlockRelationOid(relid, AccessShareLock);
		CHECK_FOR_INTERRUPTS();
	}
	relkind = OidIsValid(relid) ? get_rel_relkind(relid) : RELKIND_RELATION;
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", name_table(name, QUEUE_TABLE))));
	return relid;
}

/* pgmq.metrics(queue_name text) -> pgmq.metrics_result */
Datum
pgmq_metrics(PG_FUNCTION_ARGS)
{
	QueueName	name;
	Oid			queue;
	TupleDesc	desc;

	name_from_arg(fcinfo, 0, &name);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	check_result(desc);
	while (!OidIsValid(queue = metrics_lock_queue(&name, queue_columns, lengthof(queue_columns))))
		queue_require(&name);
	PG_RETURN_DATUM(HeapTupleGetDatum(queue_metrics(text_to_cstring(PG_GETARG_TEXT_PP(0)), &name,
													queue, BlessTupleDesc(desc))));
}

/* ---- all queues ---- */

/*
 * A queue that is recorded but has no table (dropped by hand, or during the
 * call) must not cause an error for the others.  Policies are code of the
 * queue's owner, which must not run for a caller that asks about all queues.
 */
static void
put_metrics(const ListedQueue *queue, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	Oid			relid = metrics_lock_queue(&queue->name, queue_columns, lengthof(queue_columns));

	if (!OidIsValid(relid))
		return;
	if (count_policed(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("row-level security applies to it"),
				 errhint("Use pgmq.metrics().")));
	tuplestore_puttuple(rsinfo->setResult,
						queue_metrics(queue->spelling, &queue->name, relid, rsinfo->setDesc));
}

/* pgmq.metrics_all() -> SETOF pgmq.metrics_result */
Datum
pgmq_metrics_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListedQueue *queues;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	check_result(rsinfo->setDesc);
	count = queues_list(&queues);
	queues_visit(queues, count, LOCK_BUDGET_MS, false, put_metrics, rsinfo);
	return (Datum) 0;
}
