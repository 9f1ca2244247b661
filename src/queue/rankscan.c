/*
 * rankscan.c
 *	  Which level of priority comes next, and where its first message is.
 *
 * One scan is used again for each level, which takes a descent of the index.  That is a
 * fraction of what it takes to open the index.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "queue/place.h"

/*
 * A scan looks at all entries of a page that are in its range.  Where there are many
 * messages, the first one is mostly among so many ids.
 */
#define FIRST_IDS 32

typedef struct RankScan
{
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		fresh;
} RankScan;

/* The first message of these ranks, of one rank in the order of its keys; it is in the slot */
static bool
find_first(RankScan *s, int lowest, int highest, int64 from, int64 until)
{
	ScanKeyData keys[4];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_INT2GE, Int16GetDatum(lowest));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT2LE, Int16GetDatum(highest));
	ScanKeyInit(&keys[2], 2, BTGreaterEqualStrategyNumber,
				s->fresh ? F_INT8GE : F_TIMESTAMPTZ_GE, Int64GetDatum(from));
	ScanKeyInit(&keys[3], 2, BTLessEqualStrategyNumber,
				s->fresh ? F_INT8LE : F_TIMESTAMPTZ_LE, Int64GetDatum(until));
	if (lowest == highest)
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(lowest));
	index_rescan(s->scan, keys, lengthof(keys), NULL, 0);
	return index_getnext_slot(s->scan, ForwardScanDirection, s->slot);
}

static bool
find_first_of_rank(RankScan *s, int rank, const Floors *floors, int64 highest, int64 until)
{
	int64		from = s->fresh ? floors[rank].fresh : floors[rank].due;

	if (s->fresh && from < highest && from < until - FIRST_IDS)
	{
		if (find_first(s, rank, rank, from, from + FIRST_IDS))
			return true;
		from += FIRST_IDS + 1;
	}
	return from <= until && find_first(s, rank, rank, from, until);
}

/* The floor of the ranks that had no fresh message when the floors were moved, if there are any */
int64
place_highest_fresh(const Floors *floors)
{
	int64		highest = floors[0].fresh;
	int			rank;

	for (rank = 1; rank < RANKS; rank++)
		highest = Max(highest, floors[rank].fresh);
	return highest;
}

/* Rows by hand can have other ranks; they come last */
static bool
find_stray(RankScan *s, int rank)
{
	return (rank <= PG_INT16_MAX && find_first(s, rank, PG_INT16_MAX, PG_INT64_MIN, PG_INT64_MAX)) ||
		find_first(s, Max(rank, PG_INT16_MAX + 1), -1, PG_INT64_MIN, PG_INT64_MAX);
}

/*
 * The first message, fresh or deferred, of the first rank that has one in the snapshot.
 * Ranks from "rank" on and before "end" are looked at, each from its position in "floors"
 * to "until".
 */
bool
place_next_rank(Relation rel, const Place *place, Snapshot snapshot, bool fresh,
				const Floors *floors, int64 until, int end, int *rank, int64 *key)
{
	Relation	index = index_open(fresh ? place->rank_fresh_index : place->rank_due_index, AccessShareLock);
	RankScan	s = {.fresh = fresh, .slot = table_slot_create(rel, NULL)};
	int64		highest = place_highest_fresh(floors);
	bool		found = false;
	bool		isnull;

	s.scan = index_beginscan(rel, index, snapshot, NULL, 4, 0);
	for (; *rank < Min(end, RANKS) && !found; *rank += !found)
		found = find_first_of_rank(&s, *rank, floors, highest, until);
	if (!found && end > RANKS)
		found = find_stray(&s, *rank);
	if (found)
	{
		*rank = (uint16) DatumGetInt16(slot_getattr(s.slot, place->rank_attno, &isnull));
		*key = DatumGetInt64(slot_getattr(s.slot, fresh ? place->id_attno : place->vt_attno, &isnull));
	}
	index_endscan(s.scan);
	ExecDropSingleTupleTableSlot(s.slot);
	index_close(index, AccessShareLock);
	return found;
}
