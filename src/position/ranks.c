/*
 * ranks.c
 *	  A read by priority: which level comes next.
 *
 * A read takes one level after the other, the lowest rank first, and of each level what
 * is due, then what is fresh.  No message of a lower level may be taken while one of a
 * higher level can be: so a level is read from its floors, which are true, and never from
 * marks, which are likely.
 *
 * The argument of floors.c holds for the messages of each rank, so each rank has floors
 * of its own.  A candidate is one for all of them, and so are its holders.
 */
#include "pgmq.h"

#include "access/table.h"
#include "utils/snapmgr.h"

#include "position/horizon.h"

/* Start with the first level again */
void
ranks_begin(Horizon *h)
{
	h->next_rank = 0;
	h->due_rank = h->fresh_rank = -1;
	h->table.place.rank = RANK_ALL;
	h->waited = NULL;
}

/* Whether something is due at all is one look at the other index, and mostly there is nothing */
static bool
has_due(Horizon *h, Snapshot snapshot, TimestampTz now)
{
	TimestampTz vt;

	return h->next_rank > 0 ||
		look_earliest_due(&h->table, snapshot, h->floors.due, now, NULL, &vt);
}

static int
next_due_rank(const Horizon *h, Snapshot snapshot, TimestampTz now)
{
	int			rank = h->next_rank;
	int64		key;

	return look_next_rank(&h->table, snapshot, false, h->ranks, now, RANK_NONE, &rank, &key) ? rank : RANK_NONE;
}

/*
 * A rank that had a message when its floor was moved is likely to have one still.  Its
 * statement will see; a look would cost a part of that.
 */
static int
next_fresh_rank(const Horizon *h, Snapshot snapshot)
{
	int64		highest = place_highest_fresh(h->ranks);
	int			likely = h->next_rank;
	int			rank = h->next_rank;
	int64		key;

	while (likely < RANKS && h->ranks[likely].fresh == highest)
		likely++;
	if (likely >= RANKS)
		likely = RANK_NONE;
	if (rank < likely &&
		look_next_rank(&h->table, snapshot, true, h->ranks, PG_INT64_MAX, likely, &rank, &key))
		return rank;
	return likely;
}

/*
 * Go to the next level that has a message, held or not; false if there is none.  A read
 * always runs at least one statement, which raises the error of a missing privilege.
 */
bool
horizon_next_rank(Horizon *h, TimestampTz now)
{
	Snapshot	snapshot = look_snapshot();
	int			rank;

	if (h->due_rank < h->next_rank)
		h->due_rank = has_due(h, snapshot, now) ? next_due_rank(h, snapshot, now) : RANK_NONE;
	if (h->fresh_rank < h->next_rank)
		h->fresh_rank = next_fresh_rank(h, snapshot);
	UnregisterSnapshot(snapshot);

	rank = Min(h->due_rank, h->fresh_rank);
	h->rank_has_due = h->due_rank == rank;
	h->rank_has_fresh = h->fresh_rank == rank;
	if (rank == RANK_NONE && h->stated)
	{
		h->table.place.rank = RANK_ALL;
		return false;
	}
	if (rank == RANK_NONE)
	{
		rank = RANK_DEFAULT;
		h->rank_has_due = false;
	}
	h->table.place.rank = rank;
	h->start_due = rank < RANKS ? h->ranks[rank].due : DT_NOBEGIN;
	h->start_fresh = rank < RANKS ? h->ranks[rank].fresh : PG_INT64_MIN;
	h->due_begun = h->fresh_begun = false;
	h->ndue = h->due_turns = h->nranges = 0;
	h->next_rank = rank + 1;
	return true;
}

/* Whether the read takes one level after the other */
bool
horizon_by_rank(const Horizon *h)
{
	return h->by_rank;
}

/* The rank of the level that it is at, as an argument of statements */
int
horizon_rank(const Horizon *h)
{
	return h->table.place.rank;
}

/* Each floor is the smaller of the candidate and the first message of its rank (floors.c) */
static void
probe(const QueueTable *table, Snapshot snapshot, bool fresh, int64 candidate, const Floors *old, Floors *floors)
{
	int			rank = 0;
	int64		key;

	while (rank < RANKS &&
		   look_next_rank(table, snapshot, fresh, old, candidate - 1, RANKS, &rank, &key))
	{
		if (fresh)
			floors[rank].fresh = Min(candidate, key);
		else
			floors[rank].due = Min(candidate, key);
		rank++;
	}
}

/* s2 of floors.c, for each rank */
void
ranks_probe(const QueueTable *table, Snapshot snapshot, const Floors *candidate, const Floors *old, Floors *floors)
{
	int			rank;

	for (rank = 0; rank < RANKS; rank++)
		floors[rank] = *candidate;
	if (candidate->fresh > PG_INT64_MIN)
		probe(table, snapshot, true, candidate->fresh, old, floors);
	probe(table, snapshot, false, candidate->due, old, floors);
}

/* Whether the snapshot sees a message below the floors of its rank */
bool
ranks_are_wrong(const QueueTable *table, Snapshot snapshot, bool fresh, const Floors *floors)
{
	Floors		none[RANKS];
	int64		highest = PG_INT64_MIN;
	int			rank;
	int64		key;

	for (rank = 0; rank < RANKS; rank++)
	{
		none[rank] = NO_FLOORS;
		highest = Max(highest, fresh ? floors[rank].fresh : floors[rank].due);
	}
	for (rank = 0; highest > PG_INT64_MIN && rank < RANKS; rank++)
	{
		if (!look_next_rank(table, snapshot, fresh, none, highest - 1, RANKS, &rank, &key))
			break;
		if (key < (fresh ? floors[rank].fresh : floors[rank].due))
			return true;
	}
	return false;
}
