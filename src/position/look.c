/*
 * look.c
 *	  Looks at a queue, in one table or in all its partitions: the lowest fresh
 *	  message, the earliest deferred one.
 *
 * A look into a partition may be impossible, because it is being dropped or
 * lacks an index.  Then it counts as if it had what was asked for.  So nothing
 * is skipped because a look was impossible: a floor stays where it is, a read
 * runs its statement.  A look with a limit that has stopped counts the same way.
 */
#include "pgmq.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "queue/queue.h"
#include "position/look.h"

/* The snapshot that a statement would get now; the caller unregisters it */
Snapshot
look_snapshot(void)
{
	CommandCounterIncrement();
	return RegisterSnapshot(IsolationUsesXactSnapshot() ?
							GetTransactionSnapshot() : GetLatestSnapshot());
}

/* The limit of the looks of a read; NULL if they have none */
PlaceLimit *
look_limit(const QueueTable *table, PlaceLimit *limit)
{
	limit->entries = table->limit;
	limit->stopped = false;
	return table->limit > 0 ? limit : NULL;
}

/*
 * Open it for a look at messages of this rank, or RANK_ALL; NULL if there is nothing in
 * it.  "blind" says that a look is not possible.
 */
static Relation
open_leaf(Leaf *leaf, int rank, Place *place, bool *blind)
{
	Relation	rel;

	*blind = false;
	if (leaf->drained || leaf_ahead(leaf))
		return NULL;
	rel = leaf_open(leaf);
	if (rel == NULL)
	{
		*blind = true;
		return NULL;
	}
	*place = leaf->description.place;
	place->rank = rank;
	*blind = rank != RANK_ALL && !place_has_ranks(place);
	if (!*blind)
	{
		if (RelationGetNumberOfBlocks(rel) > 0)
			return rel;
		leaf->drained = leaf_closed(leaf);
	}
	table_close(rel, AccessShareLock);
	return NULL;
}

/* Look for the lowest fresh message in a range of ids */
static void
look_into(IdRange *range, Snapshot snapshot, int rank, PlaceLimit *limit)
{
	Leaf	   *leaf = range->leaf;
	Place		place;
	Relation	rel = open_leaf(leaf, rank, &place, &range->blind);

	range->seen = range->blind;
	range->stopped = false;
	if (rel != NULL)
	{
		range->seen = place_lowest_fresh(rel, &place, snapshot, range->next, range->last, limit, &range->next);
		range->stopped = limit != NULL && limit->stopped;
		table_close(rel, AccessShareLock);
	}
	range->done = !range->seen;
	if (rank == RANK_ALL)
		leaf->rows_likely = range->seen;
}

/* "vt" is set if there is one */
static bool
due_in_leaf(Leaf *leaf, Snapshot snapshot, int rank, TimestampTz from, TimestampTz until,
			PlaceLimit *limit, TimestampTz *vt, bool *blind)
{
	Place		place;
	bool		found;
	Relation	rel = open_leaf(leaf, rank, &place, blind);

	if (rel == NULL)
	{
		*vt = from;
		return *blind;
	}
	found = place_earliest_due(rel, &place, snapshot, from, until, limit, vt);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * The range that begins first, and the id up to which no other begins.  A range
 * that was not looked into comes before one that was.  Where no look is possible,
 * nothing is known of the order: two such ranges would take turns at each id.  So
 * neither of them waits for the other.
 */
static IdRange *
first_range(IdRange *ranges, int count, int64 *until, bool *alone)
{
	IdRange    *first = NULL;
	int			i;

	for (i = 0; i < count; i++)
	{
		IdRange    *range = &ranges[i];

		if (!range->done &&
			(first == NULL || range->next < first->next ||
			 (range->next == first->next && first->seen && !range->seen)))
			first = range;
	}
	if (first == NULL)
		return NULL;
	*alone = true;
	*until = first->last;
	for (i = 0; i < count; i++)
	{
		IdRange    *range = &ranges[i];

		if (range == first || range->done || (range->blind && first->blind))
			continue;
		if (range->next > first->next)
			*until = Min(*until, range->next - 1);
		else
		{
			*alone = false;
			*until = first->next;
		}
	}
	return first;
}

/*
 * The range of ids, up to "until", that has the lowest fresh message of all
 * ranges; NULL if there is none.  With "trust" the range that begins first is
 * assumed to have one, unless it belongs to the default partition.
 */
IdRange *
look_next_range(IdRange *ranges, int count, int rank, bool trust, PlaceLimit *limit, int64 *until)
{
	Snapshot	snapshot = NULL;
	IdRange    *first;
	bool		alone;

	while ((first = first_range(ranges, count, until, &alone)) != NULL &&
		   !first->seen && !(trust && alone && !first->leaf->is_default))
	{
		if (snapshot == NULL)
			snapshot = look_snapshot();
		look_into(first, snapshot, rank, limit);
	}
	if (snapshot != NULL)
		UnregisterSnapshot(snapshot);
	return first;
}

/*
 * The lowest fresh msg_id in from .. until that the snapshot sees.  The limit, which may be
 * NULL, is that of a look into one partition.
 */
bool
look_lowest_fresh(const QueueTable *table, Snapshot snapshot,
				  int64 from, int64 until, PlaceLimit *limit, int64 *msg_id)
{
	IdRange    *ranges;
	IdRange    *first;
	int			count;
	int64		ignored;
	bool		alone;

	if (table->parts == NULL)
		return place_lowest_fresh(table->rel, &table->place, snapshot, from, until, limit, msg_id);
	count = partitions_ids(table->parts, from, until, false, &ranges);
	while ((first = first_range(ranges, count, &ignored, &alone)) != NULL && !first->seen)
		look_into(first, snapshot, table->place.rank, limit);
	if (first != NULL)
		*msg_id = first->next;
	if (limit != NULL)
		limit->stopped = first != NULL && first->stopped;
	pfree(ranges);
	return first != NULL;
}

/* The earliest deferred vt in from .. until that the snapshot sees */
bool
look_earliest_due(const QueueTable *table, Snapshot snapshot,
				  TimestampTz from, TimestampTz until, PlaceLimit *limit, TimestampTz *vt)
{
	TimestampTz earliest;
	bool		found = false;
	bool		stopped = false;
	bool		blind;
	int			i;

	if (table->parts == NULL)
		return place_earliest_due(table->rel, &table->place, snapshot, from, until, limit, vt);
	for (i = 0; i < table->parts->nleaves && from <= until; i++)
	{
		if (!due_in_leaf(&table->parts->leaves[i], snapshot, table->place.rank, from, until, limit, &earliest, &blind))
			continue;
		found = true;
		stopped = limit != NULL && !blind && limit->stopped;
		*vt = earliest;
		/* None is earlier, and "from" may be the least of all values */
		if (earliest == from)
			break;
		until = earliest - 1;
	}
	if (limit != NULL)
		limit->stopped = stopped;
	return found;
}

/* What place_next_rank() says of all partitions.  One that cannot be looked into may have any rank. */
static bool
next_rank_of_leaves(const QueueTable *table, Snapshot snapshot, bool fresh, const Floors *floors,
					int64 until, int end, int *rank, int64 *key)
{
	int			first = PG_INT32_MAX;
	int			i;

	for (i = 0; i < table->parts->nleaves; i++)
	{
		int			leaf_rank = *rank;
		int64		leaf_key = 0;
		Place		place;
		bool		blind;
		bool		found;
		Relation	rel = open_leaf(&table->parts->leaves[i], 0, &place, &blind);

		if (rel != NULL)
		{
			found = place_next_rank(rel, &place, snapshot, fresh, floors, until, end, &leaf_rank, &leaf_key);
			table_close(rel, AccessShareLock);
		}
		else
		{
			found = blind && leaf_rank < Min(end, RANKS);
			if (found)
				leaf_key = fresh ? floors[leaf_rank].fresh : floors[leaf_rank].due;
		}
		if (!found || leaf_rank > first || (leaf_rank == first && leaf_key >= *key))
			continue;
		first = leaf_rank;
		*key = leaf_key;
	}
	if (first < PG_INT32_MAX)
		*rank = first;
	return first < PG_INT32_MAX;
}

/* The first message of the first rank from "rank" on that has one above its floor */
bool
look_next_rank(const QueueTable *table, Snapshot snapshot, bool fresh, const Floors *floors,
			   int64 until, int end, int *rank, int64 *key)
{
	if (table->parts != NULL)
		return next_rank_of_leaves(table, snapshot, fresh, floors, until, end, rank, key);
	return place_next_rank(table->rel, &table->place, snapshot, fresh, floors, until, end, rank, key);
}

/*
 * The leaves in which the snapshot sees a due message; returns their number.
 * With "likely" it looks only into leaves that are likely to have one;
 * otherwise into all, and remembers which are likely.  "takes_all" says that
 * the leftovers will be recorded.
 */
int
look_due_leaves(const QueueTable *table, Snapshot snapshot, bool likely, bool takes_all,
				TimestampTz from, TimestampTz until, DueLeaf **due)
{
	Partitions *parts = table->parts;
	int			rank = table->place.rank;
	int			count = 0;
	int			i;

	*due = NULL;
	for (i = 0; i < parts->nleaves; i++)
	{
		Leaf	   *leaf = &parts->leaves[i];
		TimestampTz vt;
		bool		blind;

		if (likely && leaf->due_at > until)
			continue;
		/* look_left_due() records again what is left of it in the end */
		if (leaf->due_at <= until && rank == RANK_ALL)
			leaf->due_at = DT_NOEND;
		if (!due_in_leaf(leaf, snapshot, rank, from, until, NULL, &vt, &blind))
			continue;
		if (!takes_all)
			leaf_note_due(leaf, vt);
		if (*due == NULL)
			*due = palloc(sizeof(DueLeaf) * parts->nleaves);
		(*due)[count++] = (DueLeaf) {leaf, vt, from, false, blind};
	}
	return count;
}

/* Look again into the leaf from which messages were taken; false if it has no more. */
static bool
due_again(DueLeaf *due, int rank, TimestampTz now)
{
	Snapshot	snapshot;
	bool		found;

	if (due->from > now)
		return false;
	snapshot = look_snapshot();
	found = due_in_leaf(due->leaf, snapshot, rank, due->from, now, NULL, &due->vt, &due->blind);
	UnregisterSnapshot(snapshot);
	due->stale = false;
	return found;
}

/*
 * The leaf with the earliest due message, and the vt up to which no other leaf
 * has an earlier one; NULL if there is none.  As for fresh messages, leaves that
 * no look is possible into do not wait for one another.
 */
DueLeaf *
look_next_due(DueLeaf *due, int *count, int rank, TimestampTz now, TimestampTz *until)
{
	DueLeaf    *first = NULL;
	int			i;

	for (i = 0; i < *count; i++)
	{
		if (due[i].stale && !due_again(&due[i], rank, now))
			due[i--] = due[--*count];
	}
	for (i = 0; i < *count; i++)
	{
		if (first == NULL || due[i].vt < first->vt)
			first = &due[i];
	}
	*until = now;
	for (i = 0; i < *count; i++)
	{
		if (&due[i] != first && !(due[i].blind && first->blind))
			*until = Min(*until, due[i].vt > first->vt ? due[i].vt - 1 : first->vt);
	}
	return first;
}

/* The look is over: the next one will find what this one has found and not taken. */
void
look_left_due(DueLeaf *due, int count)
{
	int			i;

	for (i = 0; i < count; i++)
		leaf_note_due(due[i].leaf, due[i].vt);
}

/*
 * Whether the list of partitions was that of a snapshot that was taken since.
 * If it was not, a transaction that committed before the snapshot may have
 * moved messages to a partition that is not in the list.  Attaching takes SHARE
 * UPDATE EXCLUSIVE on the parent, and releases it when all other sessions can
 * know of the partition.  So either we find the lock, or the list is not valid
 * any more.
 */
bool
look_was_complete(const QueueTable *table)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	int			count;

	if (table->parts == NULL)
		return true;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, RelationGetRelid(table->rel));
	holders = GetLockConflicts(&tag, ShareUpdateExclusiveLock, &count);
	pfree(holders);
	AcceptInvalidationMessages();
	return count == 0 && partitions_valid(table->parts);
}
