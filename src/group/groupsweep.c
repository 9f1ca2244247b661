/*
 * groupsweep.c
 *	  LIVENESS: every group that has an available message is found within a
 *	  bounded time, whatever has happened to notes, triggers and shared memory.
 *
 * Readers scan the group index from group to group, a little in each call, with
 * a cursor that all sessions share.  A partitioned queue is scanned leaf by
 * leaf.  The scan needs the index and nothing else: neither notes nor starts.
 *
 * 1. The sweep looks at the first message of the group in this leaf.  If it is
 *	  not available now, some session will write a note, or the next lap finds
 *	  it.
 * 2. If the group has a note for now or soon, the reader of that note finds it.
 *	  A note that another transaction has locked or replaced counts: its
 *	  transaction decides what becomes of it.  A note that another transaction
 *	  has only added does not count.
 * 3. Otherwise the group was overlooked.  The reader takes it, or adds a note.
 *
 * So a lost note makes a message late.  A lap costs about one index entry for
 * each dead one, and some ten for each group and leaf.  It gets one part in
 * BUSY_SHARE of the time, and one in SHORT_SHARE after a short read, while any
 * session reads.
 *
 * A group counts as overlooked (see pgmq._groups_healed) only if its head was
 * available and it had no note.  Both must be true at two looks at the same
 * version of the head.  A note for the next MOST_BUSY_PAUSE is enough: an open
 * transaction blocked the group, and the reader that found this will look
 * again.
 *
 * LATE MESSAGES are known by their notes only (grouptrigger.c).  If the table
 * of notes was emptied or made anew it has no marker (notes.c).  Then readers
 * treat each group as one with a late message.  The sweep then begins at the
 * start of the index, without a budget, and sets the marker at the end of its
 * lap.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/itup.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/base.h"
#include "position/position.h"
#include "group/internal.h"

PG_FUNCTION_INFO_V1(pgmq__groups_healed);

/* The part of the time that is for the sweep */
#define BUSY_SHARE 100
#define SHORT_SHARE 10

/* Microseconds: the shortest step that is worth beginning, and the longest one in a call, and while a reader waits */
#define SHORTEST_STEP 50
#define LONGEST_STEP 1000
#define LONGEST_STEP_IN_WAIT 10000

/* The same without a marker, for a read that has what it wanted, and for a short one */
#define STEP_WITHOUT_BUDGET 10000
#define STEP_OF_SHORT_READ 100000

/* Work is counted in index entries, each of which takes about a microsecond */
#define LEAF_WORK 20
#define DESCENT_WORK 4
#define VISIT_WORK 6
#define MOST_PASSED_BY 6

/* After so long a step that has not ended is considered lost: microseconds */
#define STEP_LOST 10000000

/* ---- the cursor ---- */

/* The position in a leaf: at a message of a group, or behind all of that group */
typedef struct Cursor
{
	bool		begun;
	bool		without_marker;	/* since the lap began */
	Oid			leaf;
	bool		behind_group;
	int64		msg_id;
	int			key_len;
	char		key[LONGEST_GROUP_KEY];
} Cursor;

/* Of the file of the notes */
typedef struct SweepSlot
{
	SlotHead	head;
	int64		last_step;		/* by ticks() */
	int64		busy_until;
	uint64		healed;			/* how many groups were overlooked */
	Cursor		cursor;
} SweepSlot;

#define BUCKETS 128

static SlotTable Sweeps = {NULL, BUCKETS, sizeof(SweepSlot)};

static void
init_sweeps(void *area)
{
	slots_init(area, Sweeps.nbuckets, Sweeps.slot_size);
}

/* Before the first look at a group, as starts_attach().  A session that cannot share has its own cursor. */
void
sweep_attach(void)
{
	SharedSegment *segment;
	void	   *buckets;

	if (Sweeps.buckets != NULL)
		return;
	buckets = shared_segment("pgmq-sweep-v3", slots_size(Sweeps.nbuckets, Sweeps.slot_size), init_sweeps,
							 "could not allocate shared memory for the sweep over message groups",
							 "This session sweeps on its own.", &segment);
	if (buckets == NULL)
		buckets = slots_private(Sweeps.nbuckets, Sweeps.slot_size);
	Sweeps.buckets = buckets;
}

/* ---- one step ---- */

typedef struct Sweep
{
	GroupQueue *queue;
	TimestampTz moment;			/* what is visible after this is not available */
	int64		work;			/* that is left, in index entries */
	int			enough;			/* groups */
	bool		lap_done;
	List	   *found;
	int64		healed;
	Cursor		cursor;
} Sweep;

/* How much work this call may do; 0 if it is not time, or another session is sweeping */
static int64
begin_step(Sweep *sweep, SweepOccasion occasion)
{
	bool		marked = sweep->queue->marked;
	SlotKey		key = slots_key(sweep->queue->key);
	int64		now = ticks();
	int64		budget = 0;
	SlotBucket *bucket;
	SweepSlot  *slot;
	bool		made;

	bucket = slots_lock(&Sweeps, &key);
	slot = slots_use(&Sweeps, bucket, &key, NULL, 0, &made);
	if (now >= slot->busy_until)
	{
		budget = (now - slot->last_step) / (occasion == SWEEP_AFTER_FULL_READ ? BUSY_SHARE : SHORT_SHARE);
		budget = Min(budget, occasion == SWEEP_IN_WAIT ? LONGEST_STEP_IN_WAIT : LONGEST_STEP);
		if (!marked)
			budget = occasion == SWEEP_AFTER_FULL_READ ? STEP_WITHOUT_BUDGET : STEP_OF_SHORT_READ;
		if (budget < SHORTEST_STEP)
			budget = 0;
	}
	if (budget > 0)
	{
		slot->last_step = now;
		slot->busy_until = now + STEP_LOST;
		if (!slot->cursor.begun || (!marked && !slot->cursor.without_marker))
			slot->cursor = (Cursor) {.begun = true, .without_marker = !marked};
		sweep->cursor = slot->cursor;
	}
	slots_unlock(bucket);
	return budget;
}

static void
end_step(const Sweep *sweep)
{
	SlotKey		key = slots_key(sweep->queue->key);
	SlotBucket *bucket = slots_lock(&Sweeps, &key);
	SweepSlot  *slot = slots_find(&Sweeps, bucket, &key);

	if (slot != NULL)
	{
		slot->busy_until = 0;
		slot->healed += sweep->healed;
		slot->cursor = sweep->cursor;
		slot->cursor.begun = !sweep->lap_done;
	}
	slots_unlock(bucket);
}

/* ---- one group ---- */

/* The group's first message, by a scan from its beginning */
static bool
find_head(Sweep *sweep, const text *key, Peeked *head)
{
	GroupScan  *scan = front_begin(sweep->queue, key, PG_INT64_MIN);
	bool		found = front_next(scan, head);

	front_end(scan);
	return found && peeked_is_available(head, sweep->moment);
}

static bool
is_same_version(Peeked *a, Peeked *b)
{
	return a->table == b->table && ItemPointerEquals(&a->tid, &b->tid);
}

/* A message of the group was found in a leaf, and none before it. */
static void
visit(Sweep *sweep, text *key, const Peeked *first)
{
	GroupQueue *queue = sweep->queue;
	TimestampTz soon = sweep->moment + MOST_BUSY_PAUSE;
	TimestampTz until = DT_NOBEGIN;
	Peeked		head;
	Peeked		again;
	bool		held;
	Note	   *found;

	starts_lower(queue, key, first->msg_id, true);
	sweep->work -= VISIT_WORK;
	if (!peeked_is_available(first, sweep->moment) || notes_tell(queue, key, soon) ||
		!find_head(sweep, key, &head))
		return;
	/* A reader may have taken it between the first look and the look at the notes */
	if (notes_tell(queue, key, soon) || !find_head(sweep, key, &again) || !is_same_version(&head, &again))
		return;
	held = front_is_held_behind(queue, key, &head, sweep->moment, &until);
	if (held && queue->marked && notes_any_late(queue, key))
		return;
	found = palloc0(sizeof(Note));
	found->key = key;
	found->head = head.msg_id;
	found->late = held;
	found->vt = until;
	sweep->found = lappend(sweep->found, found);
	/* Triggers of the statement that contains this call may be about to write the note */
	sweep->healed += !held && !queue->locked_before;
}

/* ---- the scan ---- */

static void
set_position(Cursor *cursor, IndexScanDesc scan, TupleDesc desc)
{
	bool		isnull;
	text	   *key = DatumGetTextPP(index_getattr(scan->xs_itup, 1, desc, &isnull));

	cursor->key_len = (int) VARSIZE_ANY_EXHDR(key);
	memcpy(cursor->key, VARDATA_ANY(key), cursor->key_len);
	cursor->msg_id = DatumGetInt64(index_getattr(scan->xs_itup, 2, desc, &isnull));
}

/* Whether the current entry of the scan is valid, and of the cursor's group */
static bool
is_readable(IndexScanDesc scan, TupleDesc desc)
{
	bool		isnull[2];
	Datum		key = index_getattr(scan->xs_itup, 1, desc, &isnull[0]);

	(void) index_getattr(scan->xs_itup, 2, desc, &isnull[1]);
	return !isnull[0] && !isnull[1] && VARSIZE_ANY_EXHDR(DatumGetTextPP(key)) <= LONGEST_GROUP_KEY;
}

static bool
is_same_group(const Cursor *cursor, IndexScanDesc scan, TupleDesc desc)
{
	bool		isnull;
	text	   *key = DatumGetTextPP(index_getattr(scan->xs_itup, 1, desc, &isnull));

	return VARSIZE_ANY_EXHDR(key) == (Size) cursor->key_len &&
		memcmp(VARDATA_ANY(key), cursor->key, cursor->key_len) == 0;
}

static text *
cursor_key(const Cursor *cursor)
{
	text	   *key = palloc(VARHDRSZ + cursor->key_len);

	SET_VARSIZE(key, VARHDRSZ + cursor->key_len);
	memcpy(VARDATA(key), cursor->key, cursor->key_len);
	return key;
}

static void
go_to_front(Cursor *cursor, Oid leaf)
{
	cursor->leaf = leaf;
	cursor->behind_group = false;
	cursor->msg_id = PG_INT64_MIN;
	cursor->key_len = 0;		/* no key is lower */
}

/* Continue at the cursor: with the rest of its group, or (behind_group) with the others */
static void
descend(Sweep *sweep, IndexScanDesc scan)
{
	const Cursor *cursor = &sweep->cursor;
	Datum		key = PointerGetDatum(cursor_key(cursor));
	ScanKeyData keys[2];

	sweep->work -= DESCENT_WORK;
	if (cursor->behind_group)
		ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_TEXT_GT, key);
	else
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, key);
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(cursor->behind_group ? PG_INT64_MIN : cursor->msg_id));
	index_rescan(scan, keys, 2, NULL, 0);
}

/*
 * Look at an entry.  Entries of a group that was visited already, after its
 * first message, are skipped: a few of them one by one.
 */
static void
look_at_entry(Sweep *sweep, GroupTable *table, IndexScanDesc scan, TupleTableSlot *slot, int *passed)
{
	Cursor	   *cursor = &sweep->cursor;
	TupleDesc	desc = RelationGetDescr(scan->indexRelation);
	Peeked		first;

	if (cursor->behind_group && is_same_group(cursor, scan, desc))
	{
		if (++*passed == MOST_PASSED_BY)
			descend(sweep, scan);
		return;
	}
	set_position(cursor, scan, desc);
	cursor->behind_group = false;
	if (!index_fetch_heap(scan, slot))
		return;
	front_peek(sweep->queue, table, slot, scan->xs_snapshot, &first);
	visit(sweep, cursor_key(cursor), &first);
	cursor->behind_group = true;
	*passed = 0;
}

/* Scan the rest of a leaf, as far as the budget allows; true if that was all. */
static bool
scan_leaf(Sweep *sweep, GroupTable *table)
{
	bool		in_group = !sweep->cursor.behind_group;	/* the scan ends with the group */
	TupleTableSlot *slot = table_slot_create(table->rel, NULL);
	SnapshotData dirty;
	IndexScanDesc scan;
	int			passed = 0;
	bool		all = false;

	InitDirtySnapshot(dirty);
	scan = index_beginscan(table->rel, table->index, &dirty, NULL, 2, 0);
	scan->xs_want_itup = true;
	descend(sweep, scan);
	while (!all && sweep->work > 0 && list_length(sweep->found) < sweep->enough)
	{
		CHECK_FOR_INTERRUPTS();
		sweep->work--;
		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
		{
			all = !in_group;
			if (in_group)
			{
				sweep->cursor.behind_group = true;
				descend(sweep, scan);
			}
			in_group = false;
		}
		else if (is_readable(scan, RelationGetDescr(table->index)))
			look_at_entry(sweep, table, scan, slot, &passed);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return all;
}

/* The leaf of the cursor, or the next one in the order of their oids; NULL if there is none */
static GroupTable *
next_leaf(const Sweep *sweep)
{
	GroupQueue *queue = sweep->queue;
	GroupTable *next = NULL;
	int			i;

	for (i = 0; i < queue->nranges; i++)
	{
		GroupTable *table = queue->ranges[i].table;

		if (table->relid >= sweep->cursor.leaf && (next == NULL || table->relid < next->relid))
			next = table;
	}
	return next;
}

/* Scan as far as the budget allows; true if the lap is complete. */
static bool
sweep_leaf(Sweep *sweep, GroupTable *table)
{
	GroupQueue *queue = sweep->queue;
	bool		was_open = table->rel != NULL;
	bool		all = true;

	sweep->work -= LEAF_WORK;
	if (table->relid != sweep->cursor.leaf)
		go_to_front(&sweep->cursor, table->relid);
	if (!front_open_table(queue, table))
		return true;
	if (RelationGetNumberOfBlocks(table->rel) > 0)
		all = scan_leaf(sweep, table);
	if (!was_open)
		front_close_table(queue, table);
	return all;
}

/*
 * Continue the sweep, if it is time.  Returns groups that have an available
 * message and no note, as the notes that they should have; "enough" is how many the
 * caller can use at once.  The caller takes them, or adds these notes.
 */
List *
sweep_step(GroupQueue *queue, SweepOccasion occasion, int enough)
{
	Sweep		sweep = {.queue = queue, .enough = Max(enough, 1), .found = NIL};
	GroupTable *table;

	sweep.work = begin_step(&sweep, occasion);
	if (sweep.work == 0)
		return NIL;
	sweep.moment = GetCurrentTimestamp() - 1;
	while (!sweep.lap_done && sweep.work > 0 && list_length(sweep.found) < sweep.enough)
	{
		table = next_leaf(&sweep);
		sweep.lap_done = table == NULL;
		if (table != NULL && sweep_leaf(&sweep, table))
			go_to_front(&sweep.cursor, table->relid + 1);
	}
	if (sweep.lap_done && sweep.cursor.without_marker)
		notes_set_marker(&queue->name);
	end_step(&sweep);
	return sweep.found;
}

/*
 * pgmq._groups_healed(queue_name text) -> bigint
 *
 * How many groups without a note the sweep has found since the server was
 * started.  For tests: in normal operation it stays 0.
 */
Datum
pgmq__groups_healed(PG_FUNCTION_ARGS)
{
	QueueName	name;
	GroupQueue	queue;
	uint64		healed = 0;

	name_from_arg(fcinfo, 0, &name);
	queue_require(&name);
	if (!RecoveryInProgress() && horizon_may_take(queue_relid(&name, QUEUE_TABLE)) &&
		group_open(&queue, &name, false))
	{
		if (queue.notes != NULL)
		{
			SlotKey		key = slots_key(queue.key);
			SlotBucket *bucket = slots_lock(&Sweeps, &key);
			SweepSlot  *slot = slots_find(&Sweeps, bucket, &key);

			healed = slot ? slot->healed : 0;
			slots_unlock(bucket);
		}
		group_close(&queue, queue.locked_before);
	}
	PG_RETURN_INT64((int64) healed);
}
