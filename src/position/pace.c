/*
 * pace.c
 *	  How often floors are moved, and how often a read looks where messages are
 *	  not likely.
 *
 * A sweep is a look that starts at the floors.  There is one every
 * SWEEP_INTERVAL, one after each rollback of a read, and further ones as long as
 * they find something.  Any short read sweeps, too.  A rescan looks below the
 * floors, for rows that were not written by our functions.  If one of these takes
 * long it is made less often, and a rescan in parts.
 */
#include "pgmq.h"

#include "executor/instrument.h"
#include "storage/spin.h"
#include "utils/pg_rusage.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/floors.h"
#include "position/horizon.h"

/* setting: pgmq.rescan_interval, in milliseconds */
int			horizon_rescan_interval = 1000;

/* How far floors may lag behind: messages handed out, and microseconds */
#define MOVE_AFTER_MESSAGES 16
#define MOVE_INTERVAL 50000

/*
 * Listing the holders and waiting for each takes time.  With hundreds of them
 * floors move less often.  Microseconds for each holder.
 */
#define MOVE_PAUSE 20

/* Looking into many partitions takes time as well: microseconds for each partition. */
#define MOVE_PAUSE_LEAF 150

/* How long a message may stay below the marks: microseconds */
#define SWEEP_INTERVAL 50000

/*
 * Sweeps and rescans take at most one part in so many of the time.  That
 * matters only if floors cannot move, or if many rows were written below them.
 */
#define SWEEP_SHARE 10
#define RESCAN_SHARE 100

/*
 * How many entries of an index a rescan looks at in one call.  Below the floors are all
 * deferred messages that were sent before the first fresh one, and rows that are dead and
 * not vacuumed yet.
 */
#define RESCAN_ENTRIES 20000

/*
 * A look from the floors that takes no longer than this is cheap and never left
 * out.  Under valgrind, where everything takes fifty times as long, all are
 * cheap.
 */
#ifndef CHEAP_SWEEP
#define CHEAP_SWEEP 2000
#endif
#define CHEAP_LEAF 50

/* Time for handing out a message; the rest of a look is scanning */
#define MESSAGE_COST 50

/* Time for reading a block that is not in the server's memory */
#define BLOCK_COST 50

#define RESCAN_MICROSECONDS (horizon_rescan_interval * INT64CONST(1000))

static void
raise_floors(Floors *known, const Floors *found)
{
	known->fresh = Max(known->fresh, found->fresh);
	known->due = Max(known->due, found->due);
}

/* What the slot says of the ranks; the caller holds the mutex */
static void
copy_ranks(Horizon *h, Slot *slot)
{
	if (h->by_rank)
		memcpy(h->ranks, positions_ranks(slot, h->table.place.rank_fresh_index), sizeof(h->ranks));
}

/*
 * Take over the floors of other sessions.  Each is true by itself, so the
 * highest one is kept, unless they were started anew meanwhile.
 */
static void
publish_floors(Horizon *h, const FloorsFound *found)
{
	SlotBucket *bucket = positions_bucket(h->table.key);
	Slot	   *slot;
	int			i;

	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		raise_floors(&slot->floors, &found->floors);
		raise_floors(&slot->sent, &found->sent);
		for (i = 0; h->by_rank && i < RANKS; i++)
			raise_floors(&positions_ranks(slot, h->table.place.rank_fresh_index)[i], &found->ranks[i]);
	}
	SpinLockRelease(&bucket->mutex);
}

/* Try to move the floors, before this read has written anything. */
void
pace_move_floors(Horizon *h)
{
	SlotBucket *bucket = positions_bucket(h->table.key);
	int64		now = ticks();
	Slot	   *slot;
	bool		time_for_candidate;
	FloorsFound found;
	int			holders;
	int			leaves = h->table.parts ? h->table.parts->nleaves : 0;

	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, true);
	if (slot->last_rescan == 0)
		slot->last_rescan = now;	/* there were no floors to look below */
	h->generation = slot->generation;
	h->floors = slot->floors;
	copy_ranks(h, slot);
	time_for_candidate = now >= slot->next_move ||
		(slot->handed >= MOVE_AFTER_MESSAGES && now >= slot->no_move_before);
	SpinLockRelease(&bucket->mutex);

	if (h->table.locked_before || (!time_for_candidate && !floors_pending(h->table.key)) ||
		!floors_may_move(&h->table))
		return;
	if (time_for_candidate)
	{
		int64		last_id;
		bool		has_last_id = floors_last_id(&h->table, &last_id);

		SpinLockAcquire(&bucket->mutex);
		slot = positions_find(bucket, h->table.key, true);
		slot->handed = 0;
		slot->next_move = now + MOVE_INTERVAL;
		if (has_last_id)
			slot->last_id = last_id;
		/* A sequence that was set back gives ids below the floor */
		if (has_last_id && last_id < PG_INT64_MAX && last_id + 1 < h->floors.fresh &&
			slot->generation == h->generation)
			positions_start_anew(bucket, slot);
		SpinLockRelease(&bucket->mutex);
	}
	if (floors_move(&h->table, time_for_candidate, &h->floors, h->by_rank ? h->ranks : NULL, &found, &holders))
		publish_floors(h, &found);
	if (holders > 0 || (leaves > 0 && time_for_candidate))
	{
		SpinLockAcquire(&bucket->mutex);
		slot = positions_find(bucket, h->table.key, true);
		slot->no_move_before = now + (int64) holders * MOVE_PAUSE + (int64) leaves * MOVE_PAUSE_LEAF;
		SpinLockRelease(&bucket->mutex);
	}
}

/*
 * How far partitions can be filled by now.  This look need not see what is sent
 * from here on.
 */
static int64
find_reach(const Horizon *h)
{
	int64		last_id;

	if (!h->table.parts->by_id)
		return GetCurrentTimestamp();
	return floors_last_id(&h->table, &last_id) ? last_id : KEY_MAX;
}

/* Time for looking into many partitions, which does not count as cost of a sweep. */
static int64
cheap_sweep(const Horizon *h)
{
	return CHEAP_SWEEP + (h->table.parts ? h->table.parts->nleaves * CHEAP_LEAF : 0);
}

/*
 * The work that this process has done by now, in microseconds: time of a processor,
 * and blocks that were read.  Waiting for a processor does not count.
 */
static int64
work_done(void)
{
	PGRUsage	usage;

	pg_rusage_init(&usage);
	return (usage.ru.ru_utime.tv_sec + usage.ru.ru_stime.tv_sec) * USECS_PER_SEC +
		usage.ru.ru_utime.tv_usec + usage.ru.ru_stime.tv_usec +
		pgBufferUsage.shared_blks_read * BLOCK_COST;
}

static void
begin_look(Horizon *h)
{
	if (h->table.parts != NULL)
		h->table.parts->reach = h->look == HORIZON_FROM_FLOORS && !h->rescans ? find_reach(h) : KEY_MAX;
	h->due_begun = h->fresh_begun = false;
	h->ndue = h->due_turns = h->nranges = 0;
	if (h->by_rank)
		ranks_begin(h);
	h->look_began = ticks();
	h->work_before = h->doubted ? work_done() : 0;
}

/*
 * What this look has cost, beside the messages that it has handed out.  On a busy
 * machine, time by the clock includes the time for which this process waited for a
 * processor.  Measuring the work takes longer than reading the clock, so it is done only
 * in doubt.
 */
static int64
look_cost(const Horizon *h, int64 now, int64 messages)
{
	int64		cost = now - h->look_began;

	if (h->doubted)
		cost = Min(cost, work_done() - h->work_before);
	return Max(cost - messages * MESSAGE_COST, 0);
}

/* Begin a look: from the floors if it is time for a sweep, otherwise from the marks */
void
pace_choose_start(Horizon *h)
{
	SlotBucket *bucket = positions_bucket(h->table.key);
	int64		now = ticks();
	Slot	   *slot;
	Floors		sent;
	uint32		due_rounds;

	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, true);
	h->generation = slot->generation;
	h->setbacks = slot->setbacks;
	h->floors = slot->floors;
	copy_ranks(h, slot);
	h->look = HORIZON_FROM_FLOORS;
	if (h->likely && now < slot->next_sweep)
	{
		h->look = HORIZON_FROM_MARKS;
		h->start_due = Max(slot->floors.due, slot->marks.due);
	}
	else
	{
		h->doubted = slot->doubted;
		h->start_due = slot->floors.due;
		h->start_fresh = slot->floors.fresh;
		if (h->likely)
		{
			h->start_due = Max(h->start_due, slot->sweep_due);
			h->start_fresh = Max(h->start_fresh, slot->sweep_fresh);
		}
		/* One sweep at a time */
		if (h->likely)
			slot->next_sweep = now + SWEEP_INTERVAL;
	}
	sent = slot->sent;
	due_rounds = slot->due_rounds;
	SpinLockRelease(&bucket->mutex);
	if (h->table.parts != NULL)
	{
		partitions_refresh(h->table.parts, h->generation, &sent);
		h->all_due = h->likely && h->table.parts->due_rounds != due_rounds;
		h->table.parts->due_rounds = due_rounds;
	}
	begin_look(h);
}

/*
 * After a look from the floors or the marks; the caller holds the mutex.  A
 * look that began before a message became available again must not move the due
 * mark past it, because it has not seen the message.  The same is true of looks
 * from the marks that left partitions out.
 */
static void
move_marks(Slot *slot, const HorizonFinds *finds, const Horizon *h)
{
	if (finds->fresh_messages > 0 || finds->passed)
		slot->marks.fresh = Max(slot->marks.fresh, finds->fresh_highest + 1);
	if ((finds->due_exhausted || finds->passed) && slot->setbacks == h->setbacks &&
		(h->table.parts == NULL || h->look == HORIZON_FROM_FLOORS))
		slot->marks.due = Max(slot->marks.due, finds->due_until);
}

/*
 * One long look may have had to plan, so the smaller of two counts.  By the clock a
 * look is also long when the process waited for a processor.  That is only a reason to
 * measure the work of the next one.
 */
static void
record_cost(Slot *slot, const Horizon *h, int64 cost)
{
	bool		cheap = cost <= cheap_sweep(h);

	if (cheap || h->doubted)
	{
		slot->usual_sweep_cost = Min(slot->sweep_cost, cost);
		slot->sweep_cost = cost;
	}
	slot->doubted = !cheap;
}

/* Where a sweep begins that goes back to the floor of deferred messages, and keeps what it knows of the fresh ones */
#define FROM_THE_FLOOR (DT_NOBEGIN + 1)

static void
begin_lap(Slot *slot, int64 now)
{
	slot->sweep_due = FROM_THE_FLOOR;
	slot->lap_began = now;
	slot->next_lap = 0;
}

/*
 * A sweep that has skipped dead messages has met due ones, more than it wanted.  Behind these,
 * and among the fresh ones, it has not looked yet, so the next read goes on.  But due messages
 * may never end, and others become available late below them.  So from time to time it
 * goes back to the floor.  It is there at most half of the time, else it would not get on.
 */
static void
go_on_among_due(Slot *slot, int64 now)
{
	if (slot->next_lap == 0)
		slot->next_lap = now + Max(Max(SWEEP_INTERVAL, slot->usual_sweep_cost * SWEEP_SHARE), now - slot->lap_began);
	else if (now >= slot->next_lap)
		begin_lap(slot, now);
	slot->next_sweep = 0;
}

/*
 * A sweep that has skipped dead messages goes on where it is.  If it began at the
 * floors again, it would not come to what is behind them.  True if it goes on.
 */
static bool
goes_on(Slot *slot, const HorizonFinds *finds, const Horizon *h, int64 now)
{
	if (!finds->surveyed)
	{
		slot->sweep_due = DT_NOBEGIN;
		return false;
	}
	if (slot->sweep_due == DT_NOBEGIN)
	{
		if (!finds->passed)
			return false;
		begin_lap(slot, h->look_began);
	}
	slot->sweep_due = Max(slot->sweep_due, finds->due_until);
	if (finds->stopped)
	{
		if (finds->fresh_highest > PG_INT64_MIN)
			slot->sweep_fresh = Max(slot->sweep_fresh, finds->fresh_highest + 1);
		slot->next_sweep = now + Max(SWEEP_INTERVAL, slot->usual_sweep_cost * SWEEP_SHARE);
		return true;
	}
	if (!finds->due_exhausted && h->table.parts == NULL)
	{
		go_on_among_due(slot, now);
		return true;
	}
	return false;
}

/*
 * After a sweep that took all it wanted.  If it found something below the
 * marks, there may be more right after that, and the next read continues from
 * there.  Otherwise the sweep is over.
 */
static void
after_sweep(Slot *slot, const HorizonFinds *finds, const Horizon *h, int64 now, int64 cost)
{
	int64		next = finds->fresh_highest + 1;

	record_cost(slot, h, cost);
	if (slot->setbacks != h->setbacks)
		return;					/* begin anew, at once */
	if (goes_on(slot, finds, h, now))
		return;
	if (!finds->due_exhausted && h->table.parts == NULL)
	{
		/* There are more due messages, and the fresh ones are not swept yet */
		positions_set_back(slot);
		return;
	}
	/* The other sessions don't know in which partitions that is */
	if (!finds->due_exhausted)
		h->table.parts->due_rounds = ++slot->due_rounds;
	if (finds->fresh_messages > 0 && !finds->fresh_exhausted && next < slot->marks.fresh)
	{
		slot->sweep_fresh = next;
		slot->next_sweep = 0;
		return;
	}
	slot->sweep_fresh = PG_INT64_MIN;
	slot->sweep_due = DT_NOBEGIN;
	slot->next_sweep = now + Max(SWEEP_INTERVAL, slot->usual_sweep_cost * SWEEP_SHARE);
}

/* The look is over: move the marks on, and say when to sweep and rescan again. */
void
horizon_found(Horizon *h, const HorizonFinds *finds)
{
	SlotBucket *bucket;
	Slot	   *slot;
	int64		now;
	int64		cost;

	if (h->table.rel == NULL)
		return;
	look_left_due(h->due, h->ndue);
	bucket = positions_bucket(h->table.key);
	now = ticks();
	cost = look_cost(h, now, finds->messages);

	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->handed += finds->messages;
		if (h->likely)
			move_marks(slot, finds, h);
		if (h->likely && h->look == HORIZON_FROM_FLOORS)
			after_sweep(slot, finds, h, now, cost);
		else if (h->likely && finds->stopped && h->table.parts != NULL)
			slot->next_sweep = 0;	/* only sweeps move the due mark */
	}
	SpinLockRelease(&bucket->mutex);
}

/* A sweep has stopped before its end: look once more, where messages are likely.  False if this was no sweep. */
bool
horizon_turn_to_marks(Horizon *h)
{
	SlotBucket *bucket = positions_bucket(h->table.key);
	bool		turned = false;
	Slot	   *slot;

	if (!h->likely || h->look != HORIZON_FROM_FLOORS)
		return false;
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		turned = true;
		h->look = HORIZON_FROM_MARKS;
		h->setbacks = slot->setbacks;
		h->start_due = Max(h->floors.due, slot->marks.due);
	}
	SpinLockRelease(&bucket->mutex);
	if (turned)
		begin_look(h);
	return turned;
}

static bool
is_over(const Floors *rescanned)
{
	return rescanned->fresh == PG_INT64_MIN && rescanned->due == DT_NOBEGIN;
}

/*
 * The time of the last rescan is kept, not that of the next: each session's own
 * setting decides how long it accepts that.  0 means every time, at any cost.
 * The parts of a rescan take the same share of the time as a whole one would.  So it is
 * over when the next whole one would be due.
 */
static bool
rescan_is_due(const Horizon *h, const Slot *slot, int64 now)
{
	if (h->floors.fresh == PG_INT64_MIN && h->floors.due == DT_NOBEGIN)
		return false;			/* there is nothing below */
	return horizon_rescan_interval == 0 ||
		(now - slot->last_part >= slot->rescan_cost * RESCAN_SHARE &&
		 (!is_over(&slot->rescanned) || now - slot->last_rescan >= RESCAN_MICROSECONDS));
}

/*
 * Begin a rescan, or a part; the caller holds the mutex.  The slot says how far a rescan has
 * come only when a part is done.  So two sessions may look at the same part, and none is left out.
 */
static void
begin_rescan(Horizon *h, Slot *slot, int64 now)
{
	h->rescan_from = horizon_rescan_interval == 0 ? NO_FLOORS : slot->rescanned;
	h->rescan_ended = is_over(&h->rescan_from) ? h->ended : slot->rescan_ended;
	if (is_over(&h->rescan_from))
		slot->last_rescan = now;	/* no other session need do it meanwhile */
	slot->last_part = now;
}

/*
 * A part has found nothing; the caller holds the mutex.  If no transaction has ended since the
 * first part, what that has seen is still so.
 */
static void
rescan_found_nothing(const Horizon *h, Slot *slot)
{
	slot->rescanned = h->rescan_from;
	slot->rescan_ended = h->rescan_ended;
	if (is_over(&h->rescan_from) && h->rescan_ended == h->ended)
		slot->clean_at = h->ended;
}

/*
 * Whether there is a message below the floors.  Then they are wrong: rows were
 * written by hand below them, and there may be more, so floors and marks start
 * anew.  This looks for any message, not only for those that this read would
 * take.  A read with a condition, or under row security, must not use up a
 * rescan that the others rely on.  If this was a part, a session that waits comes back for
 * the next one.
 */
static bool
look_below_floors(Horizon *h)
{
	SlotBucket *bucket = positions_bucket(h->table.key);
	int64		began = ticks();
	int64		work_before = work_done();
	int64		cost;
	bool		wrong;
	Slot	   *slot;
	int			i;

	h->rescans = true;
	if (h->table.parts != NULL)
	{
		partitions_forget(h->table.parts);
		h->table.parts->reach = KEY_MAX;
	}
	wrong = floors_are_wrong(&h->table, &h->floors, h->by_rank ? h->ranks : NULL,
							 horizon_rescan_interval == 0 ? PG_INT64_MAX : RESCAN_ENTRIES, &h->rescan_from);
	cost = Min(ticks() - began, work_done() - work_before);
	if (!is_over(&h->rescan_from))
		h->sweep_in = Max(h->sweep_in, Max(cost * RESCAN_SHARE, 1));

	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->rescan_cost = cost;
		if (wrong)
		{
			positions_start_anew(bucket, slot);
			h->generation = slot->generation;
		}
		else
			rescan_found_nothing(h, slot);
	}
	SpinLockRelease(&bucket->mutex);
	if (wrong)
	{
		h->look = HORIZON_FROM_FLOORS;
		h->floors = NO_FLOORS;
		for (i = 0; i < RANKS; i++)
			h->ranks[i] = NO_FLOORS;
		h->start_due = DT_NOBEGIN;
		h->start_fresh = PG_INT64_MIN;
	}
	return wrong || h->table.parts != NULL;
}

/*
 * Whether partitions were attached or dropped since the read began, perhaps
 * with messages that were in others before.  Then the read gets a new list.
 */
static bool
partitions_changed(Horizon *h)
{
	Partitions *parts = h->table.parts;

	if (parts == NULL || partitions_valid(parts))
		return false;
	h->table.parts = partitions_open(h->table.rel);
	if (h->table.parts == NULL || !h->table.parts->looks)
	{
		h->table.parts = parts;
		return false;
	}
	return !partitions_same(h->table.parts, parts);
}

/*
 * The read is short of messages: whether to look at lower positions.  First
 * where messages are not likely to be, and then where only rows written by hand
 * can be.  If that takes long, not again so soon.
 */
bool
horizon_look_again(Horizon *h)
{
	SlotBucket *bucket;
	Slot	   *slot;
	int64		now = ticks();
	bool		again = false;
	bool		rescan = false;
	bool		changed;

	if (h->look == HORIZON_EVERYWHERE)
		return false;
	if (h->by_rank)
		h->table.place.rank = RANK_ALL;
	changed = partitions_changed(h);
	bucket = positions_bucket(h->table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	if (slot == NULL || slot->generation != h->generation)
		h->sweep_in = 1;		/* begin anew */
	else if (changed ||
			 (!h->by_rank && (h->start_fresh > h->floors.fresh || h->start_due > h->floors.due)) ||
			 (h->look == HORIZON_FROM_MARKS && h->table.parts != NULL))
	{
		/* It began at the marks as they were then, went on with a sweep, or left partitions out */
		again = changed || slot->usual_sweep_cost <= cheap_sweep(h) || now >= slot->next_sweep;
		if (!again)
			h->sweep_in = slot->next_sweep - now;
		h->look = HORIZON_FROM_FLOORS;
		h->start_due = h->floors.due;
		h->start_fresh = h->floors.fresh;
		h->setbacks = slot->setbacks;
		h->doubted = slot->doubted;
	}
	else
	{
		h->look = HORIZON_FROM_FLOORS;	/* or from marks that are the same */
		rescan = !h->rescans && rescan_is_due(h, slot, now);
		if (rescan)
			begin_rescan(h, slot, now);
	}
	SpinLockRelease(&bucket->mutex);
	if (rescan)
		again = look_below_floors(h);
	if (again)
		begin_look(h);
	return again;
}
