/*
 * place.c
 *	  A table that messages are in: its columns and its indexes, and looks at the
 *	  indexes that cost a fraction of a statement.
 *
 * These looks ignore row-level security and the caller's rights.  They only
 * decide where a statement looks; the statement hands the messages out.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/groupkey.h"
#include "queue/place.h"
#include "queue/tuple.h"

/* False if a column that every read needs is missing */
bool
place_columns(Relation rel, Place *place)
{
	TupleDesc	desc = RelationGetDescr(rel);

	memset(place, 0, sizeof(*place));
	place->rank = RANK_ALL;
	place->id_attno = relcheck_column(desc, "msg_id", INT8OID);
	place->vt_attno = relcheck_column(desc, "vt", TIMESTAMPTZOID);
	place->enqueued_attno = relcheck_column(desc, "enqueued_at", TIMESTAMPTZOID);
	place->read_ct_attno = relcheck_column(desc, "read_ct", INT4OID);
	place->headers_attno = relcheck_column(desc, "headers", JSONBOID);
	place->releases_attno = relcheck_column(desc, "pgmq_releases", INT4OID);
	place->settled_attno = relcheck_column(desc, "pgmq_settled", INT4OID);
	place->rank_attno = relcheck_column(desc, "pgmq_rank", INT2OID);
	return place->id_attno && place->vt_attno && place->enqueued_attno;
}

/* Whether it is an index on msg_id that has every message */
static bool
is_id_index(Relation rel, const Place *place, Relation index)
{
	const IndexKey key = {place->id_attno, INT8OID, InvalidOid};

	return relcheck_index(index, RelationGetRelid(rel), &key, 1) && relcheck_index_is_whole(index);
}

/*
 * Whether it is an index on vt that has every deferred message.  An index of
 * all messages, as the PL/pgSQL extension makes it, can be used as well, but is
 * slower.
 */
static bool
is_vt_index(Relation rel, const Place *place, Relation index)
{
	const IndexKey key = {place->vt_attno, TIMESTAMPTZOID, InvalidOid};

	return relcheck_index(index, RelationGetRelid(rel), &key, 1) &&
		relcheck_index_has_deferred(index, place->vt_attno, place->enqueued_attno);
}

/* Whether it has every message, by group and msg_id; the PL/pgSQL extension makes another one, of the same name */
static bool
is_group_index(Relation rel, const Place *place, Relation index)
{
	const IndexKey keys[] = {{0, TEXTOID, C_COLLATION_OID}, {place->id_attno, INT8OID, InvalidOid}};

	return relcheck_index(index, RelationGetRelid(rel), keys, 2) && relcheck_index_is_whole(index) &&
		relcheck_index_expression(index, rel, GROUP_KEY);
}

/* The same for the indexes by group of a table of notes */
static void
find_note_index(Relation rel, Place *place, Relation index)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const IndexKey keys[] = {
		{relcheck_column(desc, "grp", TEXTOID), TEXTOID, C_COLLATION_OID},
		{relcheck_column(desc, "head", INT8OID), INT8OID, InvalidOid}
	};

	if (!keys[0].attno || !keys[1].attno)
		return;
	if (relcheck_index(index, RelationGetRelid(rel), keys, 2) && relcheck_index_is_whole(index))
		place->head_index = RelationGetRelid(index);
	else if (relcheck_index(index, RelationGetRelid(rel), keys, 1) &&
			 relcheck_index_has_flagged(index, relcheck_column(desc, "late", BOOLOID)))
		place->late_index = RelationGetRelid(index);
}

/* The same for the indexes by level */
static void
find_rank_index(Relation rel, Place *place, Relation index)
{
	const IndexKey fresh[] = {
		{place->rank_attno, INT2OID, InvalidOid},
		{place->id_attno, INT8OID, InvalidOid}
	};
	const IndexKey deferred[] = {
		{place->rank_attno, INT2OID, InvalidOid},
		{place->vt_attno, TIMESTAMPTZOID, InvalidOid},
		{place->id_attno, INT8OID, InvalidOid}
	};

	if (!place->rank_attno)
		return;
	if (relcheck_index(index, RelationGetRelid(rel), fresh, lengthof(fresh)) &&
		relcheck_index_has_only(index, true, place->vt_attno, place->enqueued_attno))
		place->rank_fresh_index = RelationGetRelid(index);
	else if (relcheck_index(index, RelationGetRelid(rel), deferred, lengthof(deferred)) &&
			 relcheck_index_has_only(index, false, place->vt_attno, place->enqueued_attno))
		place->rank_due_index = RelationGetRelid(index);
}

/* Find the indexes by shape, not by name; preferably the primary key, and an index of deferred messages only */
static bool
find_indexes(Relation rel, Place *place)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, oids)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if ((!OidIsValid(place->id_index) || index->rd_index->indisprimary) &&
			is_id_index(rel, place, index))
			place->id_index = RelationGetRelid(index);
		if ((!OidIsValid(place->vt_index) || !relcheck_index_is_whole(index)) &&
			is_vt_index(rel, place, index))
			place->vt_index = RelationGetRelid(index);
		if (is_group_index(rel, place, index))
			place->group_index = RelationGetRelid(index);
		find_note_index(rel, place, index);
		find_rank_index(rel, place, index);
		place->reindexing |= !index->rd_index->indisvalid;
		index_close(index, AccessShareLock);
	}
	list_free(oids);
	return OidIsValid(place->id_index) && OidIsValid(place->vt_index);
}

/* False if a column or an index is missing.  For a partitioned table the answer covers its partitions, too. */
bool
place_describe(Relation rel, Place *place)
{
	return place_columns(rel, place) && find_indexes(rel, place);
}

/* Whether messages can be found by their level */
bool
place_has_ranks(const Place *place)
{
	return place->rank_attno && OidIsValid(place->rank_fresh_index) && OidIsValid(place->rank_due_index);
}

static uint64
changes_of(const Description *description)
{
	return changes_of_relation(description->relid) +
		changes_of_relation(description->place.id_index) +
		changes_of_relation(description->place.vt_index) +
		changes_of_relation(description->place.group_index) +
		changes_of_relation(description->place.head_index) +
		changes_of_relation(description->place.late_index) +
		changes_of_relation(description->place.rank_fresh_index) +
		changes_of_relation(description->place.rank_due_index);
}

/*
 * Whether C code can look into a table, which is open.  To find that out takes
 * an open of each index, so the answer is kept until something changes.  An
 * index that is made, dropped or becomes valid is a change of its table.
 */
bool
place_remember(Relation rel, Description *description)
{
	uint64		heard;

	if (description->relid == RelationGetRelid(rel) && description->changes != 0 &&
		description->changes == changes_of(description))
		return description->looks;
	description->changes = 0;
	description->relid = RelationGetRelid(rel);
	heard = changes_heard();
	description->looks = place_describe(rel, &description->place) && relcheck_is_heap(rel);
	if (heard == changes_heard())
		description->changes = changes_of(description);
	return description->looks;
}

/* Of the messages of one level, or of all */
static Oid
index_for(const Place *place, bool fresh)
{
	if (place->rank == RANK_ALL)
		return fresh ? place->id_index : place->vt_index;
	return fresh ? place->rank_fresh_index : place->rank_due_index;
}

/*
 * Scan the messages that the snapshot sees.  Fresh messages are found by msg_id, deferred
 * ones by vt; both are 64-bit numbers.  The callback gets the others in the range as well.
 */
void
place_walk(Relation rel, const Place *place, Snapshot snapshot, bool fresh,
		   int64 from, int64 until, PlaceVisit visit, void *arg)
{
	TupleDesc	desc = RelationGetDescr(rel);
	AttrNumber	key = (AttrNumber) (fresh ? place->id_attno : place->vt_attno);
	Relation	index = index_open(index_for(place, fresh), AccessShareLock);
	ScanKeyData keys[3];
	int			nkeys = 0;
	SysScanDesc scan;
	PlaceRow	row;

	if (place->rank != RANK_ALL)
		ScanKeyInit(&keys[nkeys++], place->rank_attno, BTEqualStrategyNumber, F_INT2EQ,
					Int16GetDatum(place->rank));
	ScanKeyInit(&keys[nkeys++], key, BTGreaterEqualStrategyNumber,
				fresh ? F_INT8GE : F_TIMESTAMPTZ_GE, Int64GetDatum(from));
	ScanKeyInit(&keys[nkeys++], key, BTLessEqualStrategyNumber,
				fresh ? F_INT8LE : F_TIMESTAMPTZ_LE, Int64GetDatum(until));
	scan = systable_beginscan_ordered(rel, index, snapshot, nkeys, keys);
	row.slot = scan->slot;
	while ((row.tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull[3];
		Datum		vt = heap_getattr(row.tuple, place->vt_attno, desc, &isnull[0]);
		Datum		enqueued = heap_getattr(row.tuple, place->enqueued_attno, desc, &isnull[1]);
		Datum		value = heap_getattr(row.tuple, key, desc, &isnull[2]);

		CHECK_FOR_INTERRUPTS();
		if (isnull[0] || isnull[1] || isnull[2])
			continue;
		row.wanted = (DatumGetTimestampTz(vt) == DatumGetTimestampTz(enqueued)) == fresh;
		row.key = DatumGetInt64(value);
		row.enqueued_at = DatumGetTimestampTz(enqueued);
		if (!visit(&row, arg))
			break;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
}

/* What a scan counts */
typedef struct Walk
{
	bool		takeable;		/* only those that no other transaction has locked or changed */
	int64		limit;
	int64		found;
	int64		first;			/* key of the first one */
} Walk;

static bool
count_row(const PlaceRow *row, void *arg)
{
	Walk	   *walk = arg;

	if (!row->wanted)
		return true;
	if (walk->takeable && !slot_is_takeable(row->slot))
		return true;
	if (walk->found++ == 0)
		walk->first = row->key;
	return walk->found < walk->limit;
}

/* The first of them, by its key */
static bool
walk_to_first(Relation rel, const Place *place, Snapshot snapshot, bool fresh, int64 from, int64 until, int64 *key)
{
	Walk		walk = {.limit = 1};

	place_walk(rel, place, snapshot, fresh, from, until, count_row, &walk);
	if (walk.found > 0)
		*key = walk.first;
	return walk.found > 0;
}

static bool
is_of_kind(TupleTableSlot *slot, const Place *place, bool fresh)
{
	bool		isnull[2];
	Datum		vt = slot_getattr(slot, place->vt_attno, &isnull[0]);
	Datum		enqueued = slot_getattr(slot, place->enqueued_attno, &isnull[1]);

	return !isnull[0] && !isnull[1] &&
		(DatumGetTimestampTz(vt) == DatumGetTimestampTz(enqueued)) == fresh;
}

/*
 * The same with a limit, for messages of all ranks.  It counts the entries of the index, and
 * takes the keys from them: rows that the snapshot does not see cost as much as others.  The
 * next look can only begin at another key, so it stops where the key changes.
 */
static bool
walk_within(Relation rel, const Place *place, Snapshot snapshot, bool fresh, int64 from, int64 until,
			PlaceLimit *limit, int64 *key)
{
	Relation	index = index_open(fresh ? place->id_index : place->vt_index, AccessShareLock);
	IndexScanDesc scan = index_beginscan(rel, index, snapshot, NULL, 2, 0);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int64		left = limit->entries;
	int64		last = from;
	bool		found = false;
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber,
				fresh ? F_INT8GE : F_TIMESTAMPTZ_GE, Int64GetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber,
				fresh ? F_INT8LE : F_TIMESTAMPTZ_LE, Int64GetDatum(until));
	scan->xs_want_itup = true;
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	limit->stopped = false;
	while (!found && !limit->stopped && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool		isnull;
		int64		entry = DatumGetInt64(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));

		CHECK_FOR_INTERRUPTS();
		limit->stopped = left-- <= 0 && entry > last;
		found = !limit->stopped && index_fetch_heap(scan, slot) && is_of_kind(slot, place, fresh);
		last = entry;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	if (found || limit->stopped)
		*key = last;
	return found || limit->stopped;
}

/* How many of them a reader could take, up to "limit" */
static int64
count_takeable(Relation rel, const Place *place, Snapshot snapshot, bool fresh, int64 from, int64 until, int64 limit)
{
	Walk		walk = {.takeable = true, .limit = limit};

	if (limit > 0)
		place_walk(rel, place, snapshot, fresh, from, until, count_row, &walk);
	return walk.found;
}

/* The lowest fresh msg_id in from .. until that the snapshot sees; the limit may be NULL */
bool
place_lowest_fresh(Relation rel, const Place *place, Snapshot snapshot,
				   int64 from, int64 until, PlaceLimit *limit, int64 *msg_id)
{
	if (limit != NULL)
		return walk_within(rel, place, snapshot, true, from, until, limit, msg_id);
	return walk_to_first(rel, place, snapshot, true, from, until, msg_id);
}

/* The earliest deferred vt in from .. until that the snapshot sees */
bool
place_earliest_due(Relation rel, const Place *place, Snapshot snapshot,
				   TimestampTz from, TimestampTz until, PlaceLimit *limit, TimestampTz *vt)
{
	if (limit != NULL)
		return walk_within(rel, place, snapshot, false, from, until, limit, vt);
	return walk_to_first(rel, place, snapshot, false, from, until, vt);
}

/* How many fresh messages a reader could take, up to "limit" */
int64
place_takeable_fresh(Relation rel, const Place *place, Snapshot snapshot,
					 int64 from, int64 until, int64 limit)
{
	return count_takeable(rel, place, snapshot, true, from, until, limit);
}

/* The same for deferred ones */
int64
place_takeable_due(Relation rel, const Place *place, Snapshot snapshot,
				   TimestampTz from, TimestampTz until, int64 limit)
{
	return count_takeable(rel, place, snapshot, false, from, until, limit);
}

/* Whether there is such a message, or was one, or an open transaction has written one */
bool
place_has_id(Relation rel, const Place *place, int64 msg_id)
{
	ScanKeyData key;
	Relation	index = index_open(place->id_index, AccessShareLock);
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, place->id_attno, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(msg_id));
	scan = systable_beginscan_ordered(rel, index, SnapshotAny, 1, &key);
	found = systable_getnext_ordered(scan, ForwardScanDirection) != NULL;
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	return found;
}

/* The msg_id at one end of the index, even if its row is dead */
static bool
end_of_ids(Relation rel, const Place *place, Relation index, ScanDirection direction, int64 *msg_id)
{
	SysScanDesc scan = systable_beginscan_ordered(rel, index, SnapshotAny, 0, NULL);
	HeapTuple	tuple = systable_getnext_ordered(scan, direction);
	bool		isnull = true;

	if (tuple != NULL)
		*msg_id = DatumGetInt64(heap_getattr(tuple, place->id_attno, RelationGetDescr(rel), &isnull));
	systable_endscan_ordered(scan);
	return !isnull;
}

/*
 * The lowest and the highest id of all rows of the place that any snapshot can
 * still see, or that open transactions have written.  False if there are none.
 */
bool
place_ids(Relation rel, const Place *place, int64 *lowest, int64 *highest)
{
	Relation	index = index_open(place->id_index, AccessShareLock);
	bool		found = end_of_ids(rel, place, index, ForwardScanDirection, lowest) &&
		end_of_ids(rel, place, index, BackwardScanDirection, highest);

	index_close(index, AccessShareLock);
	return found;
}
