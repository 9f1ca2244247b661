/*
 * count.c
 *	  Count the messages in a table without running any code of its owner.
 *
 * A monitoring role has rights that the owner of a queue does not have.  A
 * SELECT runs code of the owner with these rights: the functions of a view,
 * policies, casts and operators of another column type, and, when it is
 * planned, functions in index expressions and CHECK constraints.  So the table
 * is scanned here, by a snapshot, and no statement is planned:
 *
 * 1. Only tables and partitions that the server stores itself are scanned.
 * 2. The columns that are read have the types that the code expects, exactly.
 * 3. Row-level security: the caller asks count_policed() first.
 * 4. The caller has checked the privileges of its own caller.
 *
 * Locks are released at once; the snapshot decides what is counted.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "queue/count.h"
#include "queue/sequence.h"

/* Whether row-level security decides which rows the current role sees */
bool
count_policed(Oid relid)
{
	return check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

static void
require_stored(Relation rel)
{
	if (!relcheck_is_heap(rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
				 errdetail("It is not an ordinary table of the access method heap.")));
	if (RecoveryInProgress() && rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot access temporary or unlogged relations during recovery")));
}

static AttrNumber
find_column(Relation rel, const CountColumn *column)
{
	AttrNumber	attno = relcheck_column(RelationGetDescr(rel), column->name, column->type);

	if (attno == InvalidAttrNumber && !column->optional)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("table \"%s\" has no column \"%s\" of type %s",
						RelationGetRelationName(rel), column->name, format_type_be(column->type))));
	return attno;
}

static void
count_table(Relation rel, const CountColumn *columns, int ncolumns, Snapshot snapshot, CountRow row, void *arg)
{
	AttrNumber	attnos[COUNT_MAX_COLUMNS];
	NullableDatum values[COUNT_MAX_COLUMNS];
	MemoryContext of_row = AllocSetContextCreate(CurrentMemoryContext, "pgmq row", ALLOCSET_SMALL_SIZES);
	MemoryContext caller;
	TupleTableSlot *slot;
	TableScanDesc scan;
	int			i;

	for (i = 0; i < ncolumns; i++)
	{
		attnos[i] = find_column(rel, &columns[i]);
		values[i].value = (Datum) 0;
		values[i].isnull = true;
	}
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		for (i = 0; i < ncolumns; i++)
		{
			if (attnos[i] != InvalidAttrNumber)
				values[i].value = slot_getattr(slot, attnos[i], &values[i].isnull);
		}
		caller = MemoryContextSwitchTo(of_row);
		row(values, arg);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(of_row);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(of_row);
}

/*
 * Pass the rows that the current role sees in a table and its partitions to a
 * function; what it reads of them is NULL where an optional column is missing.
 * Like a statement, this sees what was committed before it began and what the
 * transaction has done so far.  *now is the clock after the snapshot.  False if the
 * table is gone.
 */
bool
count_rows(Oid relid, const CountColumn *columns, int ncolumns, CountRow row, void *arg, TimestampTz *now)
{
	List	   *relids;
	List	   *rels = NIL;
	ListCell   *lc;

	LockRelationOid(relid, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
	{
		UnlockRelationOid(relid, AccessShareLock);
		return false;
	}
	relids = find_all_inheritors(relid, AccessShareLock, NULL);
	foreach(lc, relids)
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);

		rels = lappend(rels, rel);
		if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			require_stored(rel);
	}
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	*now = GetCurrentTimestamp();
	foreach(lc, rels)
	{
		Relation	rel = lfirst(lc);

		if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			count_table(rel, columns, ncolumns, GetActiveSnapshot(), row, arg);
		relation_close(rel, AccessShareLock);
	}
	PopActiveSnapshot();
	list_free(rels);
	list_free(relids);
	return true;
}

/* vt and enqueued_at, for messages with times */
static void
count_message(const NullableDatum *values, void *arg)
{
	Counts	   *counts = arg;
	TimestampTz vt = DatumGetTimestampTz(values[0].value);
	TimestampTz enqueued = DatumGetTimestampTz(values[1].value);

	counts->messages++;
	if (!values[0].isnull && (vt <= counts->now || (!values[1].isnull && vt == enqueued)))
		counts->visible++;
	if (values[1].isnull)
		return;
	counts->newest = counts->aged ? Max(counts->newest, enqueued) : enqueued;
	counts->oldest = counts->aged ? Min(counts->oldest, enqueued) : enqueued;
	counts->aged = true;
}

static void
count_any(const NullableDatum *values, void *arg)
{
	((Counts *) arg)->messages++;
}

/* Count messages; "times": visible ones and ages, too.  False if the table is gone. */
bool
count_messages(Oid relid, bool times, Counts *counts)
{
	static const CountColumn columns[] = {{"vt", TIMESTAMPTZOID, false}, {"enqueued_at", TIMESTAMPTZOID, false}};

	memset(counts, 0, sizeof(*counts));
	return count_rows(relid, columns, times ? lengthof(columns) : 0, times ? count_message : count_any,
					  counts, &counts->now);
}

/* How many ids were drawn from a sequence, if it counts from 1 */
int64
count_drawn(Oid sequence)
{
	int64		last_value;
	bool		is_called;

	if (!sequence_read(sequence, true, &last_value, &is_called))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the sequence of a queue was dropped concurrently")));
	return is_called ? last_value : 0;
}
