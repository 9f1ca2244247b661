/*
 * leases.c
 *	  How many messages of a queue are leased, as it is in all transactions at once.
 *
 * The limit of leases must hold whichever open transactions commit.  So this does not
 * ask what a snapshot sees.  It counts each version of a row that is leased and that may
 * still be there afterwards:
 *
 * 1. A version that an open or prepared transaction has written counts: it may commit.
 * 2. A version that an open transaction has deleted or replaced counts: it may be
 *	  rolled back.  "ours" says how many of them we have removed ourselves, because
 *	  what we take instead goes with the same commit or rollback.
 * 3. A version that was deleted or replaced after we began to count also counts.  The
 *	  scan may have passed the place where its successor is.
 *
 * So a message can be counted twice, and never be missed.
 *
 * A message is leased if it has been read, its vt is not over, and its last delivery
 * was not given back (pgmq_settled).  No privilege is needed: the count only decides
 * whether messages are handed out.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "queue/descriptor.h"
#include "queue/leases.h"
#include "queue/place.h"
#include "queue/tuple.h"

/* What the opening of a partition costs, in index entries */
#define PARTITION_COST 50

typedef struct LeaseScan
{
	Place		place;
	Snapshot	before;			/* taken when the count began */
	TimestampTz now;
	int64		most;			/* more leases do not matter */
	LeaseCount *count;
} LeaseScan;

static bool
is_enough(const LeaseScan *scan)
{
	return scan->count->found - scan->count->ours >= scan->most;
}

/* A number of the row; 0 if the column is missing or NULL */
static int32
number_in(TupleTableSlot *slot, AttrNumber attno)
{
	bool		null = true;
	Datum		value = attno != InvalidAttrNumber ? slot_getattr(slot, attno, &null) : (Datum) 0;

	return null ? 0 : DatumGetInt32(value);
}

/* Whether this version, if it is there, is a leased message; until when */
static bool
is_leased(const LeaseScan *scan, TupleTableSlot *slot, TimestampTz *until)
{
	bool		null;
	int32		reads = number_in(slot, scan->place.read_ct_attno);
	int32		settled = number_in(slot, scan->place.settled_attno);

	*until = DatumGetTimestampTz(slot_getattr(slot, scan->place.vt_attno, &null));
	return !null && *until > scan->now && reads > 0 && settled != reads && settled != -reads;
}

static void
count_version(LeaseScan *scan, TupleTableSlot *slot)
{
	TimestampTz until;

	CHECK_FOR_INTERRUPTS();
	scan->count->walked++;
	if (!is_leased(scan, slot, &until))
		return;
	switch (slot_remains(slot, scan->before))
	{
		case ROW_GONE:
			return;
		case ROW_REMOVED_BY_US:
			scan->count->ours++;
			break;
		case ROW_ENDED_SINCE:
			scan->count->ended++;
			break;
		case ROW_REMAINS:
			break;
	}
	scan->count->found++;
	scan->count->earliest = Min(scan->count->earliest, until);
}

/* In the order of vt, so that "earliest" is right also if the scan stops */
static void
scan_index(Relation rel, TimestampTz from, LeaseScan *scan)
{
	Relation	index = index_open(scan->place.vt_index, AccessShareLock);
	ScanKeyData key;
	SysScanDesc rows;

	ScanKeyInit(&key, scan->place.vt_attno, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	rows = systable_beginscan_ordered(rel, index, SnapshotAny, 1, &key);
	while (!is_enough(scan) && systable_getnext_ordered(rows, ForwardScanDirection) != NULL)
		count_version(scan, rows->slot);
	systable_endscan_ordered(rows);
	index_close(index, AccessShareLock);
}

/* A queue without an index on vt, as the PL/pgSQL extension makes them if they are partitioned */
static void
scan_table(Relation rel, LeaseScan *scan)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc rows = table_beginscan(rel, SnapshotAny, 0, NULL);

	while (table_scan_getnextslot(rows, ForwardScanDirection, slot))
		count_version(scan, slot);
	table_endscan(rows);
	ExecDropSingleTupleTableSlot(slot);
}

/* Only tables that the server stores itself: the lease of a row elsewhere is not known */
static void
count_in(Relation rel, bool indexed, TimestampTz from, LeaseScan *scan)
{
	if (!relcheck_is_heap(rel))
		return;
	if (indexed)
		scan_index(rel, from, scan);
	else if (place_columns(rel, &scan->place))
		scan_table(rel, scan);
}

/* All of them, to the end: the first lease that ends can be in any.  The first relation is the parent, which the caller has. */
static void
count_partitions(Oid relid, TimestampTz from, LeaseScan *scan)
{
	List	   *relids = find_all_inheritors(relid, AccessShareLock, NULL);
	ListCell   *lc;

	for_each_from(lc, relids, 1)
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);

		scan->count->walked += PARTITION_COST;
		count_in(rel, place_describe(rel, &scan->place), from, scan);
		relation_close(rel, AccessShareLock);
	}
	list_free(relids);
}

/*
 * Count the leases that end after "now", up to "most" of those that we have not
 * removed.  The caller knows that none of them ends before "from".
 */
void
leases_count(const QueueName *name, TimestampTz now, TimestampTz from, int64 most, LeaseCount *count)
{
	LeaseScan	scan = {.now = now, .most = most, .count = count};
	Relation	rel = queue_open_table(name, QUEUE_TABLE, AccessShareLock, NULL);

	memset(count, 0, sizeof(*count));
	count->earliest = DT_NOEND;
	if (rel == NULL)
		return;
	scan.before = RegisterSnapshot(GetLatestSnapshot());
	if (rel->rd_rel->relhassubclass)
	{
		scan.most = PG_INT64_MAX;
		count_partitions(RelationGetRelid(rel), from, &scan);
	}
	else
		count_in(rel, queue_describe(name, QUEUE_TABLE, rel, &scan.place), from, &scan);
	UnregisterSnapshot(scan.before);
	relation_close(rel, AccessShareLock);
}
