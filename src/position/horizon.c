/*
 * horizon.c
 *	  Where a read may start.
 *
 * A read that began at the start of the indexes would scan everything that was
 * consumed and cannot be vacuumed yet.  It would also scan every message that
 * other readers hold.  So each queue has a slot, in shared memory if there is
 * some, with two pairs of positions:
 *
 * - The FLOORS are true (floors.c): below them there is no message, now or
 *   later.
 * - The MARKS are likely: up to them everything has been handed out.  A read
 *	 starts at the marks and moves them on.  They may skip a message wrongly:
 *	 its read was rolled back, or its sender committed late.  Such a message is
 *	 between floors and marks.  Sweeps find it, which are looks that start at
 *	 the floors (pace.c).
 *
 * Rows that were not written by our functions may be below the floors.  A read
 * that is still short looks there at most once per pgmq.rescan_interval.
 *
 * A partitioned queue has one slot, too: its positions are those of the queue,
 * not of a partition.  A read that starts at the marks looks only into
 * partitions that are likely to have messages.  A sweep looks into all that may
 * have some.  So only sweeps move the due mark of a partitioned queue.
 */
#include "pgmq.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/horizon.h"

PG_FUNCTION_INFO_V1(pgmq_rescan);

/* How often a look goes from one partition to another for the sake of the order */
#define DUE_TURNS 16

/* How many entries of an index a look passes in a queue where messages can be dead */
#define DEAD_ENTRIES 20000

/*
 * Until when the queue is known to be empty; DT_NOBEGIN: not known.  Some callers
 * must always look: those without all rights for a read or a pop, those that have
 * written to the queue themselves, and read-only transactions.  Triggers for empty
 * statements are another reason to look.
 */
static TimestampTz
known_empty(const Horizon *h)
{
	AclMode		all = ACL_SELECT | ACL_UPDATE | ACL_DELETE;
	Oid			relid = RelationGetRelid(h->table.rel);
	SlotBucket *bucket = positions_bucket(h->table.key);
	TimestampTz until = DT_NOBEGIN;
	Slot	   *slot;

	if (h->table.locked_before || IsolationUsesXactSnapshot() || XactReadOnly ||
		position_runs_code_of_others(h->table.rel) ||
		pg_class_aclmask(relid, GetUserId(), all, ACLMASK_ALL) != all)
		return DT_NOBEGIN;
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	if (slot != NULL && slot->empty_at == h->ended && slot->empty_until > 0)
		until = slot->empty_until;
	SpinLockRelease(&bucket->mutex);
	return until;
}

static Horizon *
begin(const QueueName *name, char prefix, bool everything, bool ours, bool by_rank, int64 limit)
{
	Horizon    *h = palloc0(sizeof(Horizon));

	h->floors = NO_FLOORS;
	h->table.place.rank = RANK_ALL;
	h->start_due = DT_NOBEGIN;
	h->start_fresh = PG_INT64_MIN;
	h->look = HORIZON_EVERYWHERE;
	/*
	 * A standby does not know the locks of its primary, and its floors would
	 * outlive its promotion.  The statement fails there anyway.
	 */
	if (RecoveryInProgress() || !position_open_table(name, prefix, RowExclusiveLock, &h->table))
		return h;
	if (ours)
		h->table.locked_before = false;
	h->table.limit = limit;
	positions_attach();
	h->ended = transactions_ended();
	h->indexes_locked_before = position_locked_indexes(&h->table);
	h->sees_all = everything && !IsolationUsesXactSnapshot() &&
		!h->table.rel->rd_rel->relrowsecurity;
	h->by_rank = by_rank && position_has_ranks(&h->table);
	h->likely = h->sees_all && !h->by_rank;
	h->empty_until = known_empty(h);
	if (h->empty_until == DT_NOBEGIN)
		pace_move_floors(h);
	pace_choose_start(h);
	return h;
}

/*
 * Begin a read.  "everything" says that it takes all that is visible.  A read
 * with a condition skips messages, so it neither uses the marks nor moves them.
 * The same is true under row security or with a fixed snapshot, where a read
 * does not see all messages. "ours" says that the lock that we hold on the
 * table belongs to this very call, which has written nothing yet.
 */
Horizon *
horizon_begin(const QueueName *name, char prefix, bool everything, bool ours)
{
	return begin(name, prefix, everything, ours, false, 0);
}

/*
 * Begin a read of a queue where messages can be dead, in any number.  Its surveys have a
 * budget, and its other looks this limit.
 */
Horizon *
horizon_begin_dead(const QueueName *name, bool everything)
{
	return begin(name, QUEUE_TABLE, everything, false, false, DEAD_ENTRIES);
}

/*
 * Begin a read by priority, if the queue has what that needs: horizon_by_rank() says so.
 * It starts at floors, and leaves the marks alone.
 */
Horizon *
horizon_begin_ranks(const QueueName *name, bool everything)
{
	return begin(name, QUEUE_TABLE, everything, false, true, 0);
}

/* Its locks are for horizon_end() to release, unless they were there before. */
void
horizon_add_leaf(Horizon *h, Leaf *leaf)
{
	int			i;

	if (leaf == NULL || h->nleaves > LEAVES)
		return;
	for (i = 0; i < h->nleaves; i++)
	{
		if (h->leaves[i]->relid == leaf->relid)
			return;
	}
	if (h->nleaves == LEAVES || position_holds_lock(leaf->relid, RowShareLock, true))
		h->nleaves = LEAVES + 1;
	else
		h->leaves[h->nleaves++] = leaf;
}

/* The indexes that the positions belong to; false if nothing is known about the table */
bool
horizon_indexes(const Horizon *h, Oid *id_index, Oid *vt_index)
{
	if (h->table.rel == NULL || h->table.parts != NULL)
		return false;
	*id_index = h->table.place.id_index;
	*vt_index = h->table.place.vt_index;
	return true;
}

/*
 * Whether no look is necessary: no transaction has ended since a session found
 * the queue empty.  Then "outlook", which may be NULL, gets what that session
 * found.
 */
bool
horizon_is_empty(const Horizon *h, TimestampTz moment, Outlook *outlook)
{
	if (h->empty_until <= moment)
		return false;
	if (outlook != NULL)
	{
		outlook->next = h->empty_until;
		outlook->conclusive = outlook->thorough = true;
		outlook->ended = h->ended;
	}
	return true;
}

/* In how many microseconds the sweep is due that this read has left out; 0: it has left out none */
int64
horizon_sweep_in(const Horizon *h)
{
	return h->sweep_in;
}

/*
 * This read has left dead messages, which the next one must find.  If it has looked at a part
 * of the queue only, a session that waits comes back in so many microseconds; otherwise 0.
 */
void
horizon_leave(Horizon *h, int64 microseconds)
{
	h->left_dead = true;
	h->sweep_in = Max(h->sweep_in, microseconds);
}

/*
 * This read has looked at a queue where messages can be dead, and has taken none that is live.  So
 * no other reader has skipped a live one because of it.  Its rollback brings back dead messages
 * that it has moved, and notes of groups that it has written.  The next sweep finds these in its
 * time.  If the rollback began the sweep anew, a program that ends empty reads with a rollback
 * would never get past many dead messages.
 */
void
horizon_took_nothing(Horizon *h)
{
	if (h->noted)
		positions_forget_read(h->table.key);
	h->noted = false;
}

/* Whether looks into this table are possible, or into its partitions */
bool
horizon_is_known(const Horizon *h)
{
	return h->table.rel != NULL;
}

/* Whether this read moves the marks, so that the next one goes on where it ends */
bool
horizon_is_likely(const Horizon *h)
{
	return h->likely;
}

/* How statements on the queue know which messages are live; its table is locked until then */
PlanVariant
horizon_variant(const Horizon *h, const QueueName *name)
{
	Relation	rel = h->table.rel;
	Place		place;

	if (rel == NULL)
	{
		rel = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, NULL);
		if (rel == NULL)
			return LIVE_BY_READS;
	}
	(void) place_columns(rel, &place);
	if (rel != h->table.rel)
		table_close(rel, NoLock);
	return place.releases_attno != 0 ? LIVE_BY_RELEASES : LIVE_BY_READS;
}

/* Which messages of a range are live, and which dead; false if no look is possible */
bool
horizon_survey(const Horizon *h, const HorizonRange *range, bool fresh, const SurveyRule *rule, Survey *s)
{
	Relation	rel = h->table.rel;
	Place		place = h->table.place;
	Snapshot	snapshot;

	if (rel == NULL)
		return false;
	if (h->table.parts != NULL)
	{
		if (range->leaf == NULL || (rel = leaf_open(range->leaf)) == NULL)
			return false;
		place = range->leaf->description.place;
		place.rank = h->table.place.rank;
	}
	if (place.rank != RANK_ALL && !place_has_ranks(&place))
	{
		if (rel != h->table.rel)
			table_close(rel, AccessShareLock);
		return false;
	}
	snapshot = look_snapshot();
	survey(rel, &place, snapshot, rule, fresh, range->from, range->until, s);
	UnregisterSnapshot(snapshot);
	if (rel != h->table.rel)
		table_close(rel, AccessShareLock);
	return true;
}

/*
 * The position of the whole queue, if a look has come so far in one of its partitions.  After
 * too many changes between partitions the look is ahead in this one.
 */
TimestampTz
horizon_due_position(const Horizon *h, TimestampTz position)
{
	int			i;

	for (i = 0; i < h->ndue; i++)
	{
		if (!h->due[i].stale)
			position = Min(position, h->due[i].vt - 1);
	}
	return position;
}

/* Whether horizon_check() can look into this table */
bool
horizon_knows(const Horizon *h)
{
	return h->table.rel != NULL && h->table.parts == NULL;
}

/*
 * In a partitioned queue: take from the leaf with the earliest message that is
 * due, up to where another leaf has earlier ones, and so on.  After too many
 * changes between leaves, the rest of a leaf is taken at once.
 */
static bool
next_due_leaf(Horizon *h, TimestampTz now, HorizonRange *range)
{
	Snapshot	snapshot;
	DueLeaf    *next;

	if (!h->due_begun)
	{
		snapshot = look_snapshot();
		h->ndue = look_due_leaves(&h->table, snapshot,
								  h->look == HORIZON_FROM_MARKS && !h->all_due, h->likely, h->start_due, now, &h->due);
		UnregisterSnapshot(snapshot);
	}
	next = look_next_due(h->due, &h->ndue, h->table.place.rank, now, &range->until);
	if (next == NULL)
		return false;
	if (++h->due_turns > DUE_TURNS)
		range->until = now;
	range->leaf = next->leaf;
	range->from = next->from;
	next->from = range->until + 1;
	next->stale = true;
	horizon_add_leaf(h, range->leaf);
	return true;
}

/* Whether nothing is known about the table, and its only useful index is by msg_id */
bool
horizon_is_by_id(const Horizon *h)
{
	return h->table.by_id;
}

/*
 * Where a deferred message may be due, and in what range of vt; false if there
 * is none, or none any more.  This looks at the index itself, which costs a
 * fraction of a statement; mostly there is none.
 */
bool
horizon_next_due(Horizon *h, TimestampTz now, HorizonRange *range)
{
	Snapshot	snapshot;
	TimestampTz vt;
	bool		found;

	range->leaf = NULL;
	range->from = h->start_due;
	range->until = now;
	if (range->from > range->until)
		return false;
	if (h->table.parts != NULL)
		found = next_due_leaf(h, now, range);
	else if (h->due_begun)
		return false;
	else if (h->table.rel == NULL)
		found = true;
	else if (h->table.place.rank != RANK_ALL)
		found = h->rank_has_due;
	else
	{
		snapshot = look_snapshot();
		found = look_earliest_due(&h->table, snapshot, range->from, range->until, NULL, &vt);
		UnregisterSnapshot(snapshot);
	}
	h->due_begun = true;
	/* Other readers may skip what this read takes; if it is rolled back, the mark is set back. */
	if (found && h->table.rel != NULL)
		h->noted |= positions_note_read(h->table.key);
	h->stated |= found;
	return found;
}

/*
 * From which msg_id to look for fresh messages.  A reader that wants "limit"
 * messages (0: no limit) also reserves as many ids.  So a reader that comes
 * before it has locked anything starts above them.  Only ids that were drawn
 * are reserved: a mark must not move beyond what is sent later.
 */
static int64
fresh_start(Horizon *h, int64 limit)
{
	int64		from = h->start_fresh;
	SlotBucket *bucket;
	Slot	   *slot;

	if (h->look == HORIZON_FROM_MARKS)
	{
		bucket = positions_bucket(h->table.key);
		SpinLockAcquire(&bucket->mutex);
		slot = positions_find(bucket, h->table.key, false);
		if (slot != NULL && slot->generation == h->generation)
		{
			from = Max(h->floors.fresh, slot->marks.fresh);
			if (limit > 0 && limit < slot->last_id && from <= slot->last_id - limit)
				slot->marks.fresh = from + limit;
		}
		SpinLockRelease(&bucket->mutex);
		h->start_fresh = from;
		h->noted |= positions_note_read(h->table.key);
	}
	else if (h->likely)
		h->noted |= positions_note_read(h->table.key);
	return from;
}

/*
 * In a partitioned queue: take from the leaf with the lowest fresh messages, up
 * to where another leaf has lower ones, and so on.  A read always runs at least
 * one statement, which raises the error of a missing privilege.
 */
static bool
next_fresh_leaf(Horizon *h, int64 from, HorizonRange *range)
{
	bool		likely = h->look == HORIZON_FROM_MARKS;
	PlaceLimit	limit;
	IdRange    *next;

	if (!h->fresh_begun)
		h->nranges = partitions_ids(h->table.parts, from, PG_INT64_MAX, likely, &h->ranges);
	next = look_next_range(h->ranges, h->nranges, h->table.place.rank, likely,
						   look_limit(&h->table, &limit), &range->until);
	if (next != NULL)
	{
		range->leaf = next->leaf;
		range->from = next->next;
		next->done = range->until == next->last;
		next->next = next->done ? next->last : range->until + 1;
		next->seen = false;
	}
	else if (h->stated)
		return false;
	else
	{
		range->leaf = h->table.parts->nleaves > 0 ? &h->table.parts->leaves[0] : NULL;
		range->from = from;
	}
	h->stated = true;
	horizon_add_leaf(h, range->leaf);
	return true;
}

/*
 * Where to look for "limit" fresh messages (0: no limit), and in what range of
 * msg_id; false if there is none, or none any more.
 */
bool
horizon_next_fresh(Horizon *h, int64 limit, HorizonRange *range)
{
	bool		begun = h->fresh_begun;
	bool		found = !begun && (h->table.place.rank == RANK_ALL || h->rank_has_fresh);

	range->leaf = NULL;
	range->from = begun ? PG_INT64_MAX : fresh_start(h, limit);
	range->until = PG_INT64_MAX;
	if (h->table.parts != NULL)
		found = next_fresh_leaf(h, range->from, range);
	h->fresh_begun = true;
	h->stated |= found;
	return found;
}

/*
 * How many messages a reader could take in this look, up to "limit"; this look
 * takes none.  Call horizon_look_again() if there is none.
 */
int64
horizon_check(Horizon *h, TimestampTz moment, int64 limit)
{
	HorizonFinds finds = {.fresh_highest = PG_INT64_MIN};
	HorizonRange due_range;
	HorizonRange range;
	Snapshot	snapshot;
	bool		due = horizon_next_due(h, moment, &due_range);

	finds.due_until = moment;
	(void) horizon_next_fresh(h, 0, &range);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (due)
		finds.messages = place_takeable_due(h->table.rel, &h->table.place, snapshot,
											due_range.from, due_range.until, limit);
	if (finds.messages < limit)
		finds.messages += place_takeable_fresh(h->table.rel, &h->table.place, snapshot,
											   range.from, range.until,
											   limit - finds.messages);
	UnregisterSnapshot(snapshot);
	/* A message that is only seen stays available, below the marks or not. */
	finds.due_exhausted = finds.fresh_exhausted = !due;
	if (finds.messages == 0)
		horizon_found(h, &finds);
	return finds.messages;
}

/*
 * After a read that wanted messages, or a check: when there is a reason for another,
 * and how sure that is.  "found" is how many messages there were: only if there was
 * none is the queue empty.  False if nothing is known about this table.
 */
bool
horizon_outlook(Horizon *h, TimestampTz moment, int64 found, Outlook *outlook)
{
	SlotBucket *bucket;
	Slot	   *slot;
	Snapshot	snapshot;
	bool		clean;
	bool		thorough;

	if (h->table.rel == NULL)
		return false;
	snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
								GetTransactionSnapshot() : GetLatestSnapshot());
	if (!look_earliest_due(&h->table, snapshot, moment + 1, outlook->until, NULL, &outlook->next))
		outlook->next = DT_NOEND;
	UnregisterSnapshot(snapshot);
	outlook->conclusive = h->sweep_in == 0;
	if (!outlook->conclusive)
		outlook->next = Min(outlook->next, GetCurrentTimestamp() + Max(h->sweep_in, 1000));

	thorough = found == 0 && outlook->conclusive && !h->left_dead && h->look == HORIZON_FROM_FLOORS &&
		h->table.parts == NULL && !position_runs_code_of_others(h->table.rel);

	bucket = positions_bucket(h->table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, h->table.key, false);
	clean = slot != NULL && slot->generation == h->generation &&
		(slot->clean_at == h->ended ||
		 (h->floors.fresh == PG_INT64_MIN && h->floors.due == DT_NOBEGIN));
	outlook->thorough = thorough && clean;
	if (outlook->thorough && h->sees_all && !h->table.locked_before)
	{
		slot->empty_at = h->ended;
		slot->empty_until = Min(outlook->until, outlook->next);
	}
	SpinLockRelease(&bucket->mutex);
	outlook->ended = h->ended;
	return true;
}

/*
 * The read is over.  If it found nothing and its transaction has written
 * nothing at all, release the locks that it and its statements took: a session
 * that polls inside a transaction must not hold up the floors.  No row was
 * touched, so there is nothing that the lock still protects.  The locks on
 * indexes are released as well.  REINDEX takes the table's lock first, and
 * would deadlock with the next read of a session that kept only those on
 * indexes.  Locks that a trigger has taken are not released.
 */
void
horizon_end(Horizon *h, uint64 messages)
{
	Oid			relid;
	bool		release;

	if (h->table.rel == NULL)
		return;
	relid = RelationGetRelid(h->table.rel);
	release = messages == 0 && !h->table.locked_before && !h->indexes_locked_before &&
		h->nleaves <= LEAVES &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		!position_runs_code_of_others(h->table.rel);
	if (release && h->table.parts != NULL)
		horizon_let_go_of_partitions(h);
	table_close(h->table.rel, NoLock);
	if (!release)
		return;
	position_let_go_of_all(&h->table, relid);
}

/*
 * The partitions of a queue, for statements on its messages by id; NULL if it
 * is not partitioned in a known way.  The queue's table is locked as the
 * statement locks it.  The caller has connected to SPI.
 */
Partitions *
horizon_partitions(const QueueName *name)
{
	Partitions *parts;
	Relation	rel;
	SlotBucket *bucket;
	Slot	   *slot;
	uint64		key;
	uint32		generation = 0;
	Floors		sent = NO_FLOORS;

	if (!queue_is_partitioned(name, QUEUE_TABLE) || RecoveryInProgress() ||
		(rel = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, NULL)) == NULL)
		return NULL;
	key = position_partitioned_key(RelationGetRelid(rel));
	/* By the time of the lock another table may have the name */
	parts = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? partitions_open(rel) : NULL;
	table_close(rel, NoLock);
	if (parts == NULL)
		return NULL;
	positions_attach();
	bucket = positions_bucket(key);
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, key, false);
	if (slot != NULL)
	{
		generation = slot->generation;
		sent = slot->sent;
	}
	SpinLockRelease(&bucket->mutex);
	partitions_refresh(parts, generation, &sent);
	return parts;
}

static void
rescan_table(const QueueName *name, char prefix)
{
	QueueTable	table;
	SlotBucket *bucket;
	Slot	   *slot;

	if (!position_open_table(name, prefix, AccessShareLock, &table))
		return;
	bucket = positions_bucket(table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, table.key, false);
	if (slot != NULL)
		positions_start_anew(bucket, slot);
	SpinLockRelease(&bucket->mutex);
	table_close(table.rel, AccessShareLock);
}

/*
 * Try to move the floors of a partitioned queue, for a caller that does not
 * read it by positions: floors say which partitions are closed.
 */
void
horizon_move(const QueueName *name)
{
	Horizon    *h;

	if (!queue_is_partitioned(name, QUEUE_TABLE))
		return;
	h = horizon_begin(name, QUEUE_TABLE, false, false);
	/* No statement was run, so the lock is not needed any more */
	if (h->table.rel != NULL)
		table_close(h->table.rel, RowExclusiveLock);
}

/*
 * A message was inserted into a partition believed closed.  Invalidate everything
 * that all sessions have learned about this queue's partitions.
 */
void
horizon_invalidate(const QueueName *name)
{
	uint64		key = position_partitioned_key(queue_relid(name, QUEUE_TABLE));
	SlotBucket *bucket;
	Slot	   *slot;

	positions_attach();
	bucket = positions_bucket(key);
	SpinLockAcquire(&bucket->mutex);
	slot = positions_find(bucket, key, false);
	if (slot != NULL)
		positions_start_anew(bucket, slot);
	SpinLockRelease(&bucket->mutex);
}

/*
 * pgmq.rescan(queue_name text) -> void
 *
 * The next read looks everywhere.  That makes it slower, so the caller must
 * have the right to read the queue.
 */
Datum
pgmq_rescan(PG_FUNCTION_ARGS)
{
	QueueName	name;

	name_from_arg(fcinfo, 0, &name);
	queue_require(&name);
	if (!horizon_may_take(queue_relid(&name, QUEUE_TABLE)))
		rights_refuse_table(queue_relid(&name, QUEUE_TABLE));
	if (RecoveryInProgress())
		PG_RETURN_VOID();
	positions_attach();
	rescan_table(&name, QUEUE_TABLE);
	rescan_table(&name, NOTES_TABLE);
	PG_RETURN_VOID();
}
