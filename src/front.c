/*
 * front.c
 *	  The front of a group, as it is in all transactions at once.
 *
 * Whether a group's first message may be handed out can't be told from what a
 * snapshot sees: an earlier one may be on its way in a transaction that has not
 * committed, or on its way out in one that may be rolled back.  So looks go to
 * the group index itself with a dirty snapshot, which shows every version that
 * is not dead for good, and say of each who is at work on it.
 *
 * Everybody writes first and looks then: who sends a message looks for earlier
 * ones when his own is in the index; who removes one looks for what is left
 * when his is marked as deleted; who takes one has locked it when he looks
 * whether it is still the first.  The index page and the heap page are each
 * changed under the exclusive lock of its buffer, so of two who do this at the
 * same time at least one sees the other.  No one waits for that.
 *
 * A queue may be partitioned; then a group's messages are in several indexes,
 * which are walked side by side.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "group.h"

/* ---- opening ---- */

/* By name: an adopted table may have its columns in another order */
bool
front_columns(GroupLeaf *leaf)
{
	TupleDesc	desc = RelationGetDescr(leaf->rel);
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = NameStr(att->attname);

		if (att->attisdropped)
			continue;
		if (att->atttypid == INT8OID && strcmp(name, "msg_id") == 0)
			leaf->id_attno = att->attnum;
		else if (att->atttypid == INT4OID && strcmp(name, "read_ct") == 0)
			leaf->read_ct_attno = att->attnum;
		else if (att->atttypid == TIMESTAMPTZOID && strcmp(name, "vt") == 0)
			leaf->vt_attno = att->attnum;
		else if (att->atttypid == TIMESTAMPTZOID && strcmp(name, "enqueued_at") == 0)
			leaf->enqueued_attno = att->attnum;
		else if (att->atttypid == JSONBOID && strcmp(name, "headers") == 0)
			leaf->headers_attno = att->attnum;
	}
	return leaf->id_attno && leaf->read_ct_attno && leaf->vt_attno &&
		leaf->enqueued_attno && leaf->headers_attno;
}

static bool
add_leaf(GroupQueue *queue, Relation rel)
{
	GroupLeaf  *leaf = &queue->leaves[queue->nleaves++];

	memset(leaf, 0, sizeof(*leaf));
	leaf->rel = rel;
	return rel->rd_rel->relkind == RELKIND_RELATION && front_columns(leaf);
}

/* The tables that hold the messages; false if one of them is of no kind we know */
static bool
open_leaves(GroupQueue *queue)
{
	List	   *children;
	ListCell   *lc;
	bool		good = true;

	/* relhassubclass stays when the last child has gone */
	if (queue->queue->rd_rel->relkind == RELKIND_RELATION &&
		(!queue->queue->rd_rel->relhassubclass ||
		 find_inheritance_children(RelationGetRelid(queue->queue), NoLock) == NIL))
	{
		queue->leaves = palloc(sizeof(GroupLeaf));
		return add_leaf(queue, queue->queue);
	}
	if (queue->queue->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	children = find_all_inheritors(RelationGetRelid(queue->queue), RowExclusiveLock, NULL);
	queue->leaves = palloc(sizeof(GroupLeaf) * list_length(children));
	foreach(lc, children)
	{
		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_PARTITIONED_TABLE)
			good &= add_leaf(queue, table_open(lfirst_oid(lc), NoLock));
	}
	return good;
}

/*
 * Whether nothing can change the queue without its notes being told.  The
 * triggers of a queue that was renamed by hand still tell its old name's notes.
 */
static bool
has_triggers(Relation rel, const QueueName *name)
{
	static const char *const needed[] = {
		TRIGGER_SENT, TRIGGER_REMOVED, TRIGGER_RETIMED, TRIGGER_MOVED
	};
	TriggerDesc *triggers = rel->trigdesc;
	int			found = 0;
	int			i;
	int			j;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		for (j = 0; j < lengthof(needed); j++)
		{
			if (strcmp(trigger->tgname, needed[j]) == 0 &&
				trigger->tgnargs == 1 && strcmp(trigger->tgargs[0], name->canonical) == 0 &&
				(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
				 trigger->tgenabled == TRIGGER_FIRES_ALWAYS))
				found++;
		}
	}
	return found == lengthof(needed);
}

/* The group index: of our make, not of an older version's */
static Relation
open_fifo(GroupQueue *queue)
{
	Oid			oid = name_index_relid(&queue->name, QUEUE_TABLE, GROUP_INDEX_SUFFIX);
	Relation	index;
	char		relkind = OidIsValid(oid) ? get_rel_relkind(oid) : '\0';

	if (relkind != RELKIND_INDEX && relkind != RELKIND_PARTITIONED_INDEX)
		return NULL;
	index = index_open(oid, AccessShareLock);
	if (index->rd_index->indrelid == RelationGetRelid(queue->queue) &&
		index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
		index->rd_index->indnkeyatts == 2 && index->rd_index->indkey.values[0] == 0 &&
		TupleDescAttr(RelationGetDescr(index), 0)->atttypid == TEXTOID &&
		TupleDescAttr(RelationGetDescr(index), 1)->atttypid == INT8OID)
		return index;
	index_close(index, AccessShareLock);
	return NULL;
}

static bool
open_leaf_indexes(GroupQueue *queue)
{
	int			i;

	for (i = 0; i < queue->nleaves; i++)
	{
		GroupLeaf  *leaf = &queue->leaves[i];
		Oid			oid = RelationGetRelid(queue->fifo);

		if (leaf->rel != queue->queue)
			oid = index_get_partition(leaf->rel, oid);
		if (!OidIsValid(oid))
			return false;
		leaf->index = index_open(oid, AccessShareLock);
		if (!leaf->index->rd_index->indisvalid)
			return false;
	}
	return true;
}

/* Whether this transaction holds the lock of a writer */
static bool
has_written(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, RowExclusiveLock, true);
}

/* Whether it is a table of notes, and not one of the users' that has its name */
static bool
holds_notes(Relation rel)
{
	static const Oid types[NOTE_COLUMNS] = {
		INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID, BOOLOID, INT4OID
	};
	int			i;

	for (i = 0; i < NOTE_COLUMNS; i++)
	{
		if (rel->rd_rel->relkind != RELKIND_RELATION || RelationGetDescr(rel)->natts <= i ||
			TupleDescAttr(RelationGetDescr(rel), i)->atttypid != types[i])
			return false;
	}
	return true;
}

/* Whether the queue has such a table */
bool
group_has_notes(const QueueName *name)
{
	Oid			oid = name_relid(name, NOTES_TABLE);
	Relation	notes = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : NULL;
	bool		has = notes != NULL && holds_notes(notes);

	if (notes)
		relation_close(notes, AccessShareLock);
	return has;
}

static Relation
open_notes(GroupQueue *queue)
{
	Oid			oid = name_relid(&queue->name, NOTES_TABLE);
	Relation	notes;

	if (!OidIsValid(oid))
		return NULL;
	queue->notes_locked_before = has_written(oid);
	notes = try_table_open(oid, RowExclusiveLock);
	if (notes == NULL)
		return NULL;
	if (!holds_notes(notes))
	{
		table_close(notes, NoLock);
		return NULL;
	}
	queue->key = ((uint64) MyDatabaseId << 32) | RelationFileNumber(notes);
	return notes;
}

/* Whether a crash leaves the notes of what it leaves in the queue, which ALTER TABLE may have made logged */
static bool
notes_last(const GroupQueue *queue)
{
	int			i;

	if (queue->notes->rd_rel->relpersistence != RELPERSISTENCE_UNLOGGED)
		return true;
	for (i = 0; i < queue->nleaves; i++)
	{
		if (queue->leaves[i].rel->rd_rel->relpersistence != RELPERSISTENCE_UNLOGGED)
			return false;
	}
	return true;
}

static void
forget_index(GroupQueue *queue)
{
	int			i;

	for (i = 0; i < queue->nleaves; i++)
	{
		if (queue->leaves[i].index)
			index_close(queue->leaves[i].index, AccessShareLock);
		queue->leaves[i].index = NULL;
	}
	if (queue->fifo)
		index_close(queue->fifo, AccessShareLock);
	if (queue->notes)
		table_close(queue->notes, NoLock);
	queue->fifo = queue->notes = NULL;
}

/*
 * Open a queue for a look at its groups.  False if it can't be looked into at
 * all.  Locks are taken in one order: the queue's table, then its notes.
 */
bool
group_open(GroupQueue *queue, const QueueName *name, bool for_reading)
{
	Oid			relid;

	memset(queue, 0, sizeof(*queue));
	queue->name = *name;
	/* By the time of the lock the table may have been dropped, and made again */
	do
	{
		CHECK_FOR_INTERRUPTS();
		relid = name_relid(name, QUEUE_TABLE);
		if (!OidIsValid(relid))
			return false;
		queue->locked_before = has_written(relid);
		queue->queue = try_relation_open(relid, RowExclusiveLock);
	} while (queue->queue == NULL);
	if (!open_leaves(queue))
	{
		group_close(queue, true);
		return false;
	}
	if (for_reading && IsolationUsesXactSnapshot())
		queue->fixed = GetTransactionSnapshot();
	queue->policed = check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
	if (for_reading && (queue->policed || !has_triggers(queue->queue, name)))
		return true;
	queue->fifo = open_fifo(queue);
	if (queue->fifo == NULL)
		return true;
	queue->notes = open_notes(queue);
	if (queue->notes == NULL || !open_leaf_indexes(queue) ||
		(for_reading && !notes_last(queue)))
		forget_index(queue);
	return true;
}

/* Locks that are not kept go, unless the transaction has had them before. */
void
group_close(GroupQueue *queue, bool keep_lock)
{
	Oid			notes = queue->notes ? RelationGetRelid(queue->notes) : InvalidOid;
	int			i;

	forget_index(queue);
	/* Who has looked into the notes has let go of them already (horizon.c) */
	if (!keep_lock && OidIsValid(notes) && !queue->notes_locked_before && has_written(notes))
		UnlockRelationOid(notes, RowExclusiveLock);
	for (i = 0; i < queue->nleaves; i++)
	{
		GroupLeaf  *leaf = &queue->leaves[i];

		if (leaf->lock_slot)
			ExecDropSingleTupleTableSlot(leaf->lock_slot);
		if (leaf->rel != queue->queue)
			relation_close(leaf->rel, keep_lock ? NoLock : RowExclusiveLock);
	}
	relation_close(queue->queue, keep_lock ? NoLock : RowExclusiveLock);
}

/* ---- looking ---- */

static bool
is_open_elsewhere(TransactionId xid)
{
	return !TransactionIdIsCurrentTransactionId(xid) && TransactionIdIsInProgress(xid);
}

/*
 * Whether another transaction that is open has locked, updated or deleted this
 * version.  "changer" is who has updated or deleted it, or invalid.
 */
static bool
header_is_claimed(HeapTupleHeader header, TransactionId *changer)
{
	TransactionId xmax = HeapTupleHeaderGetRawXmax(header);
	MultiXactMember *members;
	bool		claimed = false;
	int			count;
	int			i;

	*changer = InvalidTransactionId;
	if ((header->t_infomask & HEAP_XMAX_INVALID) || HEAP_LOCKED_UPGRADED(header->t_infomask))
		return false;
	if ((header->t_infomask & HEAP_XMAX_IS_MULTI) == 0)
	{
		claimed = is_open_elsewhere(xmax);
		if (claimed && !HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask))
			*changer = xmax;
		return claimed;
	}
	count = GetMultiXactIdMembers(xmax, &members, false,
								  HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask));
	for (i = 0; i < count; i++)
	{
		if (!is_open_elsewhere(members[i].xid))
			continue;
		claimed = true;
		if (ISUPDATE_from_mxstatus(members[i].status))
			*changer = members[i].xid;
	}
	if (count > 0)
		pfree(members);
	return claimed;
}

/*
 * Who has updated or deleted a version and has committed; or invalid.  A transaction
 * that was open when the snapshot looked at the version that it has written may
 * have ended by now, with its deletion of it.
 */
static TransactionId
committed_changer(HeapTupleHeader header)
{
	TransactionId xid;

	if ((header->t_infomask & HEAP_XMAX_INVALID) || HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) ||
		HEAP_LOCKED_UPGRADED(header->t_infomask))
		return InvalidTransactionId;
	xid = HeapTupleHeaderGetUpdateXid(header);
	return TransactionIdIsValid(xid) && TransactionIdDidCommit(xid) ? xid : InvalidTransactionId;
}

/* The header of what is in the slot, as it is at one moment: others may be writing to it. */
static void
copy_header(TupleTableSlot *slot, HeapTupleHeader copy)
{
	BufferHeapTupleTableSlot *in_buffer = (BufferHeapTupleTableSlot *) slot;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	LockBuffer(in_buffer->buffer, BUFFER_LOCK_SHARE);
	memcpy(copy, in_buffer->base.tuple->t_data, SizeofHeapTupleHeader);
	LockBuffer(in_buffer->buffer, BUFFER_LOCK_UNLOCK);
}

/* Whether another transaction that is open has locked, updated or deleted what is in the slot */
bool
slot_is_claimed(TupleTableSlot *slot)
{
	HeapTupleHeaderData header;
	TransactionId changer;

	copy_header(slot, &header);
	return header_is_claimed(&header, &changer);
}

/* What a dirty snapshot has just found; NULL columns stand for nothing that could be handed out */
void
front_peek(GroupQueue *queue, const GroupLeaf *leaf, TupleTableSlot *slot,
		   const SnapshotData *dirty, Peeked *peeked)
{
	HeapTupleHeaderData header;
	TransactionId changer;
	bool		claimed;
	bool		isnull[4];
	TimestampTz enqueued_at;

	peeked->msg_id = DatumGetInt64(slot_getattr(slot, leaf->id_attno, &isnull[0]));
	peeked->vt = DatumGetTimestampTz(slot_getattr(slot, leaf->vt_attno, &isnull[1]));
	enqueued_at = DatumGetTimestampTz(slot_getattr(slot, leaf->enqueued_attno, &isnull[2]));
	peeked->read_ct = DatumGetInt32(slot_getattr(slot, leaf->read_ct_attno, &isnull[3]));
	peeked->fresh = !isnull[1] && !isnull[2] && peeked->vt == enqueued_at;
	if (isnull[1])
		peeked->vt = DT_NOEND;
	if (isnull[3])
		peeked->read_ct = 0;
	peeked->leaf = (int) (leaf - queue->leaves);
	peeked->tid = slot->tts_tid;

	copy_header(slot, &header);
	claimed = header_is_claimed(&header, &changer);
	peeked->mine = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(&header));
	peeked->arriving = TransactionIdIsValid(dirty->xmin);
	/* Of a version that is arriving the snapshot does not say what has become of it since */
	if (TransactionIdIsValid(dirty->xmax))
		changer = dirty->xmax;
	else if (peeked->arriving && !TransactionIdIsValid(changer))
		changer = committed_changer(&header);
	peeked->leaving = TransactionIdIsValid(changer) &&
		(HeapTupleHeaderIndicatesMovedPartitions(&header) ||
		 ItemPointerEquals(&slot->tts_tid, &header.t_ctid));
	peeked->changing = TransactionIdIsValid(changer) && !peeked->leaving;
	peeked->locked = claimed && !TransactionIdIsValid(changer);
	peeked->unseen = queue->fixed != NULL &&
		!table_tuple_satisfies_snapshot(leaf->rel, slot, queue->fixed);
}

/* One index of a walk, with the entry that it stands at */
typedef struct LeafScan
{
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		has;
	Peeked		peeked;
} LeafScan;

struct GroupScan
{
	GroupQueue *queue;
	SnapshotData dirty;
	Snapshot	before;
	int64		ours;			/* the lowest message that the current command has taken away */
	LeafScan   *leaves;
};

/*
 * An index page is read at once and its rows are visited one by one.  If a
 * message is changed in between, its old version is dead by the time of the
 * visit, and the entry of its new one is not among those we have read.  The
 * snapshot from before the walk still sees the old one: then it is as if the
 * change were still under way.
 */
static bool
changed_meanwhile(GroupScan *scan, LeafScan *leaf, const GroupLeaf *table)
{
	HeapTupleHeaderData header;
	bool		seen;
	Datum		msg_id;
	bool		isnull;

	leaf->scan->xs_snapshot = scan->before;
	seen = index_fetch_heap(leaf->scan, leaf->slot);
	leaf->scan->xs_snapshot = &scan->dirty;
	leaf->scan->xs_heap_continue = false;
	if (!seen)
		return false;
	/* What the current command has changed is as it left it */
	copy_header(leaf->slot, &header);
	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(&header)))
		return true;
	msg_id = slot_getattr(leaf->slot, table->id_attno, &isnull);
	if (!isnull)
		scan->ours = Min(scan->ours, DatumGetInt64(msg_id));
	return false;
}

static void
leaf_next(GroupScan *scan, int i)
{
	LeafScan   *leaf = &scan->leaves[i];
	GroupLeaf  *table = &scan->queue->leaves[i];

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
		if (!same_entry && changed_meanwhile(scan, leaf, table))
		{
			front_peek(scan->queue, table, leaf->slot, &scan->dirty, &leaf->peeked);
			leaf->peeked.changing = leaf->peeked.leaving = true;
			return;
		}
	}
}

/* An order of groups, for sorting; not that of the index */
int
front_compare_keys(const text *a, const text *b)
{
	int			len_a = VARSIZE_ANY_EXHDR(a);
	int			len_b = VARSIZE_ANY_EXHDR(b);
	int			order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(len_a, len_b));

	return order != 0 ? order : len_a - len_b;
}

/* Walk a group's messages in msg_id order, in every version that is not dead for good. */
GroupScan *
front_begin(GroupQueue *queue, const text *key, int64 from)
{
	GroupScan  *scan = palloc(sizeof(GroupScan));
	ScanKeyData keys[2];
	int			i;

	scan->queue = queue;
	InitDirtySnapshot(scan->dirty);
	scan->before = RegisterSnapshot(GetLatestSnapshot());
	scan->ours = PG_INT64_MAX;
	scan->leaves = palloc(sizeof(LeafScan) * queue->nleaves);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
	for (i = 0; i < queue->nleaves; i++)
	{
		GroupLeaf  *leaf = &queue->leaves[i];

		scan->leaves[i].scan = index_beginscan(leaf->rel, leaf->index, &scan->dirty, NULL, 2, 0);
		index_rescan(scan->leaves[i].scan, keys, 2, NULL, 0);
		scan->leaves[i].slot = table_slot_create(leaf->rel, NULL);
		leaf_next(scan, i);
	}
	return scan;
}

/* The index with the lowest message; -1 if there is none left */
static int
lowest_leaf(const GroupScan *scan)
{
	int			lowest = -1;
	int			i;

	for (i = 0; i < scan->queue->nleaves; i++)
	{
		if (scan->leaves[i].has &&
			(lowest < 0 || scan->leaves[i].peeked.msg_id < scan->leaves[lowest].peeked.msg_id))
			lowest = i;
	}
	return lowest;
}

/* The next version of a message */
bool
front_next(GroupScan *scan, Peeked *peeked)
{
	int			lowest = lowest_leaf(scan);

	if (lowest < 0)
		return false;
	*peeked = scan->leaves[lowest].peeked;
	leaf_next(scan, lowest);
	return true;
}

/*
 * The next message, all of its versions taken together: anything that is said
 * of one of them is said of it, and its vt is the earliest.
 *
 * It is solid if there is a version that nobody is at work on.  An update that is
 * under way leaves it where it is only if there is a new version in the group
 * that has not been deleted: the transaction may have read and deleted it, or
 * moved it to another group, and have had its look then.
 */
bool
front_next_message(GroupScan *scan, Peeked *peeked)
{
	Peeked		version;
	bool		settled;
	bool		renewed;
	int			next;

	if (!front_next(scan, peeked))
		return false;
	settled = !peeked_is_busy(peeked);
	renewed = peeked->arriving && !peeked->leaving && !peeked->changing;
	while ((next = lowest_leaf(scan)) >= 0 && scan->leaves[next].peeked.msg_id == peeked->msg_id)
	{
		(void) front_next(scan, &version);
		settled |= !peeked_is_busy(&version);
		renewed |= version.arriving && !version.leaving && !version.changing;
		peeked->fresh |= version.fresh;
		peeked->vt = Min(peeked->vt, version.vt);
		peeked->read_ct = Max(peeked->read_ct, version.read_ct);
		peeked->mine |= version.mine;
		peeked->arriving |= version.arriving;
		peeked->leaving |= version.leaving;
		peeked->changing |= version.changing;
		peeked->locked |= version.locked;
		peeked->unseen |= version.unseen;
	}
	peeked->solid = settled || (peeked->changing && renewed);
	return true;
}

/*
 * The lowest message so far that the command which is being executed has deleted,
 * or moved to another group: a rollback brings it back.
 */
int64
front_ours(const GroupScan *scan)
{
	return scan->ours;
}

void
front_end(GroupScan *scan)
{
	int			i;

	for (i = 0; i < scan->queue->nleaves; i++)
	{
		index_endscan(scan->leaves[i].scan);
		ExecDropSingleTupleTableSlot(scan->leaves[i].slot);
	}
	UnregisterSnapshot(scan->before);
	pfree(scan->leaves);
	pfree(scan);
}

/* Lock this version of a message, if that can be done at once and it is still the newest. */
bool
front_lock(GroupQueue *queue, const Peeked *peeked)
{
	GroupLeaf  *leaf = &queue->leaves[peeked->leaf];
	ItemPointerData tid = peeked->tid;
	SnapshotData dirty;
	TM_FailureData failure;
	TM_Result	result;

	if (leaf->lock_slot == NULL)
		leaf->lock_slot = table_slot_create(leaf->rel, NULL);
	InitDirtySnapshot(dirty);
	result = table_tuple_lock(leaf->rel, &tid, &dirty, leaf->lock_slot,
							  GetCurrentCommandId(true), LockTupleExclusive, LockWaitSkip, 0, &failure);
	ExecClearTuple(leaf->lock_slot);
	return result == TM_Ok;
}
