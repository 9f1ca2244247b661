/*
 * front.c
 *	  SAFETY: the messages of a group are handed out in order, and to one consumer at a
 *	  time.
 *
 * A message is handed out only when every earlier one of its group is gone, or was handed
 * out earlier in the same call.  An earlier one that is delayed, leased or locked is not
 * gone.  Neither is one that an open transaction is sending or removing.  Earlier means a
 * lower msg_id, of a message whose send had returned when the call looked.  Notes have no
 * part in this, except in R4.
 *
 * R3	The first message is the mutex.  A reader locks it, then looks again whether it
 *		is the first in all transactions.  Its lock, then its lease, make it unavailable
 *		to others until it is gone, and they take nothing after it.  The next messages are
 *		taken one by one, as far as each is available and can be locked at once.
 * R4	A message may come late: its msg_id was drawn before that of another message which
 *		a consumer holds by now.  Its sender adds a note that says so (grouptrigger.c),
 *		and a reader looks at all of such a group before it takes anything.
 *
 * THE LOOK.  A snapshot does not show what an open transaction has inserted, nor that it
 * has deleted a row.  So looks scan the group index with a dirty snapshot, which shows
 * every version that is not dead for good.  They tell for each what other open transactions
 * do to it.  A version that dies between the reading of its index page and the visit of its
 * row counts as being changed (changed_meanwhile).  Every session writes first and looks
 * then.  Index page and heap page are each changed under the exclusive lock of their
 * buffer.  So of two sessions that do this at the same time at least one sees the other.
 * No session waits for that.
 *
 * A look starts where starts.c says.  That is proved there: below it there is no message,
 * now or later.  Messages that were written without the triggers may be below, until the
 * sweep finds them.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "queue/queue.h"
#include "group/internal.h"

/* How many partitions are near */
#define NEAR_TABLES 2

/* Whether the message in the slot is dead; each version of a message says so for itself */
static bool
is_dead(const GroupQueue *queue, const Place *place, TupleTableSlot *slot, const Peeked *peeked)
{
	bool		isnull[3];
	TimestampTz enqueued_at = DatumGetTimestampTz(slot_getattr(slot, place->enqueued_attno, &isnull[0]));
	Datum		headers = slot_getattr(slot, place->headers_attno, &isnull[1]);
	int32		releases = 0;
	bool		exhausted;

	if (place->releases_attno)
		releases = DatumGetInt32(slot_getattr(slot, place->releases_attno, &isnull[2]));
	return !isnull[0] &&
		survey_is_dead(queue->rule, peeked->read_ct, place->releases_attno && !isnull[2] ? releases : 0,
					   enqueued_at, headers, isnull[1], &exhausted);
}

/* Describe what a dirty snapshot has just found; a row with NULL columns cannot be handed out */
void
front_peek(GroupQueue *queue, GroupTable *table, TupleTableSlot *slot,
		   const SnapshotData *dirty, Peeked *peeked)
{
	HeapTupleHeaderData header;
	TransactionId changer;
	bool		claimed;
	bool		isnull[4];
	TimestampTz enqueued_at;

	peeked->msg_id = DatumGetInt64(slot_getattr(slot, table->place.id_attno, &isnull[0]));
	peeked->vt = DatumGetTimestampTz(slot_getattr(slot, table->place.vt_attno, &isnull[1]));
	enqueued_at = DatumGetTimestampTz(slot_getattr(slot, table->place.enqueued_attno, &isnull[2]));
	peeked->read_ct = DatumGetInt32(slot_getattr(slot, table->place.read_ct_attno, &isnull[3]));
	if (isnull[1])
		peeked->vt = DT_NOEND;
	else if (!isnull[2] && peeked->vt == enqueued_at)
		peeked->vt = DT_NOBEGIN;
	if (isnull[3])
		peeked->read_ct = 0;
	peeked->dead = queue->rule != NULL && peeked->vt <= queue->rule->now &&
		is_dead(queue, &table->place, slot, peeked);
	peeked->table = table;
	peeked->tid = slot->tts_tid;

	header_copy(slot, &header);
	claimed = header_is_claimed(&header, &changer);
	peeked->mine = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(&header));
	peeked->arriving = TransactionIdIsValid(dirty->xmin);
	/* For a version that is arriving, the snapshot does not say what happened to it since */
	if (TransactionIdIsValid(dirty->xmax))
		changer = dirty->xmax;
	else if (peeked->arriving && !TransactionIdIsValid(changer))
		changer = header_committed_changer(&header);
	peeked->changing = TransactionIdIsValid(changer);
	peeked->locked = claimed && !TransactionIdIsValid(changer);
	peeked->unseen = queue->fixed != NULL &&
		!table_tuple_satisfies_snapshot(table->rel, slot, queue->fixed);
}

/* One index of a scan, with its current entry */
typedef struct LeafScan
{
	GroupTable *table;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		has;
	Peeked		peeked;
} LeafScan;

struct GroupScan
{
	GroupQueue *queue;
	ScanKeyData keys[2];
	int64		from;
	SnapshotData dirty;
	Snapshot	before;
	GroupRange *ranges;			/* of the queue, when the scan began */
	int			nranges;
	int			next;			/* the next one */
	int			first;			/* the first scanned range of those whose ids are known */
	List	   *leaves;			/* that are scanned: of LeafScan */
};

/*
 * An index page is read at once and its rows are visited one by one.  Suppose
 * that a message is changed in between.  Its old version is dead at the visit,
 * and the entry of its new version is not among those that were read.  The
 * snapshot from before the scan still sees the old version: then the change
 * counts as still open.  If the snapshot does not see it because it was being
 * sent then, it may have been sent and changed since: that counts as open, too.
 */
static bool
changed_meanwhile(GroupScan *scan, LeafScan *leaf)
{
	HeapTupleHeaderData header;
	bool		seen;

	leaf->scan->xs_snapshot = scan->before;
	seen = index_fetch_heap(leaf->scan, leaf->slot);
	leaf->scan->xs_snapshot = &scan->dirty;
	leaf->scan->xs_heap_continue = false;
	if (!seen)
		return entry_ended_since(leaf->scan, scan->before, leaf->slot);
	/* A row that the current command has changed is as the command has left it */
	header_copy(leaf->slot, &header);
	return !TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(&header));
}

static void
leaf_next(GroupScan *scan, LeafScan *leaf)
{
	GroupTable *table = leaf->table;

	for (;;)
	{
		bool		same_entry = leaf->scan->xs_heap_continue;

		CHECK_FOR_INTERRUPTS();
		leaf->has = same_entry ||
			index_getnext_tid(leaf->scan, ForwardScanDirection) != NULL;
		if (!leaf->has)
			return;
		if (index_fetch_heap(leaf->scan, leaf->slot))
		{
			front_peek(scan->queue, table, leaf->slot, &scan->dirty, &leaf->peeked);
			return;
		}
		if (!same_entry && changed_meanwhile(scan, leaf))
		{
			front_peek(scan->queue, table, leaf->slot, &scan->dirty, &leaf->peeked);
			leaf->peeked.changing = true;
			return;
		}
	}
}

/* An order of groups, for sorting; not the order of the index */
int
front_compare_keys(const text *a, const text *b)
{
	int			len_a = VARSIZE_ANY_EXHDR(a);
	int			len_b = VARSIZE_ANY_EXHDR(b);
	int			order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(len_a, len_b));

	return order != 0 ? order : len_a - len_b;
}

/* Scan one more table. */
static void
add_leaf_scan(GroupScan *scan, GroupTable *table)
{
	LeafScan   *added = palloc(sizeof(LeafScan));

	scan->leaves = lappend(scan->leaves, added);
	added->table = table;
	added->scan = index_beginscan(table->rel, table->index, &scan->dirty, NULL, 2, 0);
	index_rescan(added->scan, scan->keys, 2, NULL, 0);
	added->slot = table_slot_create(table->rel, NULL);
	leaf_next(scan, added);
}

/* The scan with the lowest current id, or NULL */
static LeafScan *
lowest_leaf(const GroupScan *scan)
{
	LeafScan   *lowest = NULL;
	ListCell   *lc;

	foreach(lc, scan->leaves)
	{
		LeafScan   *leaf = lfirst(lc);

		if (leaf->has && (lowest == NULL || leaf->peeked.msg_id < lowest->peeked.msg_id))
			lowest = leaf;
	}
	return lowest;
}

/* The same, after opening all tables that may have a lower id */
static LeafScan *
next_scan(GroupScan *scan)
{
	GroupQueue *queue = scan->queue;
	LeafScan   *lowest = lowest_leaf(scan);

	while (scan->next < scan->nranges)
	{
		GroupRange *range = &scan->ranges[scan->next];

		if (lowest != NULL && range->lowest > lowest->peeked.msg_id)
			break;
		if (scan->next++ < scan->first && range->lowest > PG_INT64_MIN)
			continue;
		if (range->highest < scan->from || !front_open_table(queue, range->table) ||
			(range->table->part && RelationGetNumberOfBlocks(range->table->rel) == 0))
			continue;
		add_leaf_scan(scan, range->table);
		lowest = lowest_leaf(scan);
	}
	return lowest;
}

/* Scan a group's messages in msg_id order, in every version that is not dead for good. */
GroupScan *
front_begin(GroupQueue *queue, const text *key, int64 from)
{
	GroupScan  *scan = palloc0(sizeof(GroupScan));

	scan->queue = queue;
	scan->from = from;
	/* The default partition's lock keeps rows where they are; see the top of open.c. */
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (queue->has_default)
			(void) front_open_table(queue, queue->ranges[0].table);
	} while (!front_is_current(queue));
	scan->ranges = queue->ranges;
	scan->nranges = queue->nranges;
	InitDirtySnapshot(scan->dirty);
	scan->before = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	ScanKeyInit(&scan->keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
	return scan;
}

/*
 * The same, but of the partitions that may have messages up to "until" only the
 * last few are scanned: for callers that may miss a message.
 */
GroupScan *
front_begin_near(GroupQueue *queue, const text *key, int64 from, int64 until)
{
	GroupScan  *scan = front_begin(queue, key, from);
	int			behind = scan->nranges;

	while (behind > 0 && scan->ranges[behind - 1].lowest > until)
		behind--;
	scan->first = behind - NEAR_TABLES;
	return scan;
}

/* The next version of a message */
bool
front_next(GroupScan *scan, Peeked *peeked)
{
	LeafScan   *lowest = next_scan(scan);

	if (lowest == NULL)
		return false;
	*peeked = lowest->peeked;
	leaf_next(scan, lowest);
	return true;
}

/*
 * The next message, all of its versions taken together.  A flag of one version is a
 * flag of the message, and its vt is the earliest.  It is idle if one version is
 * idle: no other transaction is changing it.  Row locks do not count.
 */
bool
front_next_message(GroupScan *scan, Peeked *peeked)
{
	Peeked		version;
	LeafScan   *next;

	if (!front_next(scan, peeked))
		return false;
	peeked->idle = !peeked_is_busy(peeked);
	while ((next = next_scan(scan)) != NULL && next->peeked.msg_id == peeked->msg_id &&
		   front_next(scan, &version))
	{
		peeked->idle |= !peeked_is_busy(&version);
		peeked->vt = Min(peeked->vt, version.vt);
		peeked->read_ct = Max(peeked->read_ct, version.read_ct);
		peeked->arriving |= version.arriving;
		peeked->changing |= version.changing;
		peeked->locked |= version.locked;
		peeked->unseen |= version.unseen;
	}
	return true;
}

void
front_end(GroupScan *scan)
{
	ListCell   *lc;

	foreach(lc, scan->leaves)
	{
		LeafScan   *leaf = lfirst(lc);

		index_endscan(leaf->scan);
		ExecDropSingleTupleTableSlot(leaf->slot);
	}
	UnregisterSnapshot(scan->before);
	list_free_deep(scan->leaves);
	pfree(scan);
}

/* How many messages of open transactions a look skips at most */
#define MOST_PASSED 32

/*
 * Whether there is an earlier message of the group that is idle: the session that
 * removes it will look at the group after that.  Not all partitions are searched.
 * "doubtful": it may have been handed out, and others after it.
 */
bool
front_follows(GroupQueue *queue, const text *key, int64 msg_id, bool *doubtful)
{
	GroupStart	start;
	GroupScan  *scan;
	Peeked		peeked;
	TimestampTz now = GetCurrentTimestamp();
	bool		follows = false;
	int			passed = 0;

	*doubtful = true;
	starts_find(queue, key, &start);
	if (start.from >= msg_id)
		return false;
	scan = front_begin_near(queue, key, start.from, msg_id);
	while (!follows && front_next_message(scan, &peeked) && peeked.msg_id < msg_id && passed++ < MOST_PASSED)
	{
		follows = peeked.idle;
		*doubtful = peeked.changing || peeked.locked || peeked_is_held(&peeked, now);
	}
	front_end(scan);
	return follows;
}

/*
 * The look of a claimer (notes.c), after which it writes a verdict.  Messages that open
 * transactions are sending, removing or changing may exist in the end or not, so the
 * look goes on after them.  The verdict is the earliest time of all versions up to the
 * first message that is idle.
 */
void
front_judge(GroupQueue *queue, const text *key, bool ours, Verdict *verdict)
{
	TimestampTz now = GetCurrentTimestamp();
	GroupStart	start;
	GroupScan  *scan;
	Peeked		peeked = {0};
	int			passed = 0;

	memset(verdict, 0, sizeof(*verdict));
	verdict->until = DT_NOEND;
	starts_find(queue, key, &start);
	scan = front_begin(queue, key, start.from);
	while (!peeked.idle && verdict->until > now && front_next_message(scan, &peeked))
	{
		if (passed++ == 0)
		{
			verdict->head = peeked.msg_id;
			verdict->found = true;
			verdict->unseen = peeked.unseen && peeked.idle && !peeked.locked;
		}
		verdict->until = Min(verdict->until, passed > MOST_PASSED ? DT_NOBEGIN : peeked.vt);
	}
	front_end(scan);
	if (verdict->found)
		starts_advance(&start, verdict->head, ours);
}

/*
 * Whether another consumer holds messages after the first one of a group, which
 * has never been handed out: then it came late (grouptrigger.c).  "until" is
 * the end of that, or DT_NOBEGIN if an open transaction has them locked.
 */
bool
front_is_held_behind(GroupQueue *queue, const text *key, const Peeked *first,
					 TimestampTz moment, TimestampTz *until)
{
	GroupScan  *scan;
	Peeked		peeked;
	bool		busy = false;
	bool		held = false;

	/* A message that was handed out before became visible again, by set_vt or by time */
	if (first->read_ct > 0)
		return false;
	scan = front_begin(queue, key, first->msg_id + 1);
	while (!busy && !held && front_next(scan, &peeked))
	{
		busy = peeked.changing || peeked.locked;
		held = !busy && peeked_is_held(&peeked, moment);
	}
	front_end(scan);
	if (busy || held)
		*until = busy || peeked.arriving ? DT_NOBEGIN : peeked.vt;
	return busy || held;
}

/* Lock this version of a message, if that is possible at once and it is still the newest. */
bool
front_lock(GroupQueue *queue, const Peeked *peeked)
{
	GroupTable *table = peeked->table;
	ItemPointerData tid = peeked->tid;
	SnapshotData dirty;
	TM_FailureData failure;
	TM_Result	result;

	if (table->lock_slot == NULL)
		table->lock_slot = table_slot_create(table->rel, NULL);
	InitDirtySnapshot(dirty);
	result = table_tuple_lock(table->rel, &tid, &dirty, table->lock_slot,
							  GetCurrentCommandId(true), LockTupleExclusive, LockWaitSkip, 0, &failure);
	ExecClearTuple(table->lock_slot);
	return result == TM_Ok;
}
