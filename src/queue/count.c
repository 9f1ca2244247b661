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
 * 2. The two columns that are compared have the type timestamptz, exactly.
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
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "queue/count.h"
#include "queue/sequence.h"

/* Whether policies decide which rows the current role sees */
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
time_column(Relation rel, const char *column)
{
	AttrNumber	attno = relcheck_column(RelationGetDescr(rel), column, TIMESTAMPTZOID);

	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("table \"%s\" has no column \"%s\" of type timestamp with time zone",
						RelationGetRelationName(rel), column)));
	return attno;
}

static void
count_times(TupleTableSlot *slot, AttrNumber vt_attno, AttrNumber enqueued_attno, Counts *counts)
{
	bool		no_vt;
	bool		no_enqueued;
	TimestampTz vt = DatumGetTimestampTz(slot_getattr(slot, vt_attno, &no_vt));
	TimestampTz enqueued = DatumGetTimestampTz(slot_getattr(slot, enqueued_attno, &no_enqueued));

	if (!no_vt && (vt <= counts->now || (!no_enqueued && vt == enqueued)))
		counts->visible++;
	if (no_enqueued)
		return;
	counts->newest = counts->aged ? Max(counts->newest, enqueued) : enqueued;
	counts->oldest = counts->aged ? Min(counts->oldest, enqueued) : enqueued;
	counts->aged = true;
}

static void
count_table(Relation rel, bool times, Snapshot snapshot, Counts *counts)
{
	AttrNumber	vt_attno = InvalidAttrNumber;
	AttrNumber	enqueued_attno = InvalidAttrNumber;
	TupleTableSlot *slot;
	TableScanDesc scan;

	if (times)
	{
		vt_attno = time_column(rel, "vt");
		enqueued_attno = time_column(rel, "enqueued_at");
	}
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		counts->messages++;
		if (times)
			count_times(slot, vt_attno, enqueued_attno, counts);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Count what the current role sees in a table, with its partitions.  "times":
 * count visible messages and ages, too.  Like a statement, this sees what was
 * committed before it began and what the transaction has done so far.  False if
 * the table is gone.
 */
bool
count_messages(Oid relid, bool times, Counts *counts)
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
	memset(counts, 0, sizeof(*counts));
	foreach(lc, relids)
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);

		rels = lappend(rels, rel);
		if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			require_stored(rel);
	}
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	counts->now = GetCurrentTimestamp();
	foreach(lc, rels)
	{
		Relation	rel = lfirst(lc);

		if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			count_table(rel, times, GetActiveSnapshot(), counts);
		relation_close(rel, AccessShareLock);
	}
	PopActiveSnapshot();
	list_free(rels);
	list_free(relids);
	return true;
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
