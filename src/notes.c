/*
 * notes.c
 *	  Notes: each says to look at a group, from some time on.
 *
 * A queue with a group index has a table of them, pgmq.g_<queue>.  It is shaped
 * as a queue is: a note is fresh (vt = enqueued_at) when its group can be looked
 * at now, and deferred otherwise, so that the floors and marks of horizon.c
 * work for it as well.
 *
 * SPEED: notes say where to look first.  One that is missing, stale or there twice
 * costs time, and nothing else: order comes from the look (front.c), and what no
 * note tells of the sweep finds (groupsweep.c).
 *
 * What is aimed at: for each group that has messages there is a note, committed or
 * written by the very transaction that makes it necessary, whose time is not
 * later than the moment from which the group's first message can be handed out.
 * A note too many costs a look; so nobody waits for one, and who can't have one
 * that is there writes another.
 *
 * Notes are written with the rights of the table's owner: who may send to a
 * queue need not know of them.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "group.h"
#include "owner.h"
#include "relcheck.h"

/* ---- finding ---- */

/* By shape: names lag behind for a moment when an index is replaced (REINDEX CONCURRENTLY) */
void
notes_find_indexes(GroupQueue *queue)
{
	static const IndexKey keys[] = {{NOTE_GRP, TEXTOID, C_COLLATION_OID}, {NOTE_HEAD, INT8OID, InvalidOid}};
	Oid			relid = RelationGetRelid(queue->notes);
	List	   *oids = RelationGetIndexList(queue->notes);
	ListCell   *lc;

	queue->head_index = queue->late_index = InvalidOid;
	foreach(lc, oids)
	{
		Relation	index = try_index_open(lfirst_oid(lc), AccessShareLock);

		if (index == NULL)
			continue;
		if (relcheck_index(index, relid, keys, 2) && relcheck_index_is_whole(index))
			queue->head_index = lfirst_oid(lc);
		else if (relcheck_index(index, relid, keys, 1) && relcheck_index_has_flagged(index, NOTE_LATE))
			queue->late_index = lfirst_oid(lc);
		index_close(index, AccessShareLock);
	}
	list_free(oids);
}

struct NoteScan
{
	GroupQueue *queue;
	bool		due;
	Relation	index;
	IndexScanDesc scan;
	Snapshot	snapshot;
	TupleTableSlot *slot;
};

static NoteScan *
scan_begin(GroupQueue *queue, Oid index, bool due, Snapshot snapshot, ScanKey keys, int nkeys)
{
	NoteScan   *scan = palloc(sizeof(NoteScan));

	scan->queue = queue;
	scan->due = due;
	scan->index = index_open(index, AccessShareLock);
	scan->snapshot = RegisterSnapshot(snapshot);
	scan->slot = table_slot_create(queue->notes, NULL);
	scan->scan = index_beginscan(queue->notes, scan->index, scan->snapshot, NULL, nkeys, 0);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
	return scan;
}

static Snapshot
newest_snapshot(const GroupQueue *queue)
{
	return queue->fixed ? queue->fixed : GetLatestSnapshot();
}

/* What there is of notes now, to be unregistered */
Snapshot
notes_snapshot(const GroupQueue *queue)
{
	return RegisterSnapshot(newest_snapshot(queue));
}

/* Deferred notes whose time lies in from .. until */
NoteScan *
notes_scan_due(GroupQueue *queue, Oid index, TimestampTz from, TimestampTz until)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(until));
	return scan_begin(queue, index, true, newest_snapshot(queue), keys, 2);
}

/* Fresh notes whose id lies in from .. until */
NoteScan *
notes_scan_fresh(GroupQueue *queue, Oid index, int64 from, int64 until)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(until));
	return scan_begin(queue, index, false, newest_snapshot(queue), keys, 2);
}

/* False for a row that is no note: the marker, or one with a NULL that only the owner can have allowed */
static bool
deform(TupleTableSlot *slot, Note *note)
{
	int			i;

	slot_getallattrs(slot);
	for (i = 0; i < NOTE_COLUMNS; i++)
	{
		if (slot->tts_isnull[i])
			return false;
	}
	note->id = DatumGetInt64(slot->tts_values[NOTE_ID - 1]);
	if (note->id == MARKER_ID)
		return false;
	note->vt = DatumGetTimestampTz(slot->tts_values[NOTE_VT - 1]);
	note->key = DatumGetTextPCopy(slot->tts_values[NOTE_GRP - 1]);
	note->head = DatumGetInt64(slot->tts_values[NOTE_HEAD - 1]);
	note->late = DatumGetBool(slot->tts_values[NOTE_LATE - 1]);
	note->tries = DatumGetInt32(slot->tts_values[NOTE_TRIES - 1]);
	note->tid = slot->tts_tid;
	note->due = DatumGetTimestampTz(slot->tts_values[NOTE_ENQUEUED_AT - 1]) != note->vt;
	note->claimed = slot_is_claimed(slot);
	return true;
}

bool
notes_next(NoteScan *scan, Note *note)
{
	while (index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!deform(scan->slot, note))
			continue;
		if (note->due == scan->due)
			return true;
		pfree(note->key);
	}
	return false;
}

void
notes_end(NoteScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	UnregisterSnapshot(scan->snapshot);
	index_close(scan->index, AccessShareLock);
	pfree(scan);
}

/* Lock a note, if that can be done at once and it is as we saw it. */
bool
notes_lock(GroupQueue *queue, const Note *note)
{
	TupleTableSlot *slot = table_slot_create(queue->notes, NULL);
	ItemPointerData tid = note->tid;
	TM_FailureData failure;
	TM_Result	result;
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	result = table_tuple_lock(queue->notes, &tid, &dirty, slot, GetCurrentCommandId(true),
							  LockTupleExclusive, LockWaitSkip, 0, &failure);
	ExecDropSingleTupleTableSlot(slot);
	return result == TM_Ok;
}

/* How many notes of a group, and dead versions of them, a look for one goes past */
#define MOST_VISITED 64

/* Notes of the group whose heads are a message's, or else those below, the highest first */
static List *
notes_by_head(GroupQueue *queue, Oid index, const text *key, int64 msg_id, bool below,
			  Snapshot snapshot)
{
	List	   *found = NIL;
	ScanKeyData keys[2];
	NoteScan   *scan;
	int			visited = 0;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	if (below)
		ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(msg_id));
	else
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(msg_id));
	scan = scan_begin(queue, index, false, snapshot, keys, 2);
	while (visited++ < MOST_VISITED && index_getnext_tid(scan->scan, BackwardScanDirection) != NULL)
	{
		Note	   *note;

		CHECK_FOR_INTERRUPTS();
		if (!index_fetch_heap(scan->scan, scan->slot))
			continue;
		note = palloc(sizeof(Note));
		if (deform(scan->slot, note) && !note->claimed)
			found = lappend(found, note);
	}
	notes_end(scan);
	return found;
}

/*
 * The notes that the snapshot shows and that were written for this message being
 * its group's first: by their head, or, where several messages were handed out at
 * once, by the end of the lease, which is the same for all of them and for the note.
 * That note has the head next below, so it takes a few steps to find, however many
 * notes are for the very same time.
 */
List *
notes_of_message(GroupQueue *queue, const text *key, int64 msg_id, TimestampTz vt,
				 Snapshot snapshot)
{
	Oid			index = queue->head_index;
	List	   *found;
	ListCell   *lc;

	if (!OidIsValid(index))
		return NIL;
	found = notes_by_head(queue, index, key, msg_id, false, snapshot);
	if (found != NIL)
		return found;
	found = notes_by_head(queue, index, key, msg_id, true, snapshot);
	foreach(lc, found)
	{
		if (((Note *) lfirst(lc))->vt != vt)
			found = foreach_delete_current(found, lc);
	}
	return found;
}

/*
 * Whether a note that the dirty snapshot does not find by an index entry was there
 * when the snapshot "before" was taken, from before the index was read; or has come
 * since.  The entry of what has replaced it may not be among those that were read.
 */
static bool
is_ended_since(IndexScanDesc scan, Snapshot dirty, Snapshot before, TupleTableSlot *slot)
{
	bool		found;

	scan->xs_snapshot = before;
	found = index_fetch_heap(scan, slot);
	scan->xs_snapshot = dirty;
	return found || entry_ended_since(scan, before, slot);
}

static bool
fetch_either(IndexScanDesc scan, Snapshot dirty, Snapshot before, TupleTableSlot *slot)
{
	return index_fetch_heap(scan, slot) || is_ended_since(scan, dirty, before, slot);
}

/* Walk notes of a group, or (key NULL) all in the index, with a dirty snapshot */
static IndexScanDesc
begin_dirty(GroupQueue *queue, Relation index, const text *key, Snapshot dirty)
{
	IndexScanDesc scan = index_beginscan(queue->notes, index, dirty, NULL, key ? 1 : 0, 0);
	ScanKeyData keys[1];

	if (key)
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	index_rescan(scan, keys, key ? 1 : 0, NULL, 0);
	return scan;
}

/*
 * Whether there are notes of messages that came late: of this group, or (NULL) at
 * all.  In the latter case this also sees whether the marker is there.  Where that
 * can't be told, a message of any group may have come late.
 */
bool
notes_any_late(GroupQueue *queue, const text *key)
{
	Relation	index = OidIsValid(queue->late_index) ? try_index_open(queue->late_index, AccessShareLock) : NULL;
	IndexScanDesc scan;
	Snapshot	before;
	SnapshotData dirty;
	TupleTableSlot *slot;
	bool		found = false;

	if (index == NULL)
		return true;
	InitDirtySnapshot(dirty);
	before = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(queue->notes, NULL);
	scan = begin_dirty(queue, index, key, &dirty);
	while (!(found && (key || queue->marked)) &&
		   index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (!fetch_either(scan, &dirty, before, slot))
			continue;
		if (DatumGetInt64(slot_getattr(slot, NOTE_ID, &isnull)) != MARKER_ID)
			found = true;
		else if (!TransactionIdIsValid(dirty.xmin))
			queue->marked = true;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(before);
	return found || !queue->marked;
}

/*
 * Whether a note tells of the group until then.  One that another transaction
 * has locked, replaced or deleted does: it stays, or something is told instead.  One
 * that another transaction has only added does not, for that may stay open.
 */
bool
notes_tell(GroupQueue *queue, const text *key, TimestampTz until)
{
	Relation	index = OidIsValid(queue->head_index) ? try_index_open(queue->head_index, AccessShareLock) : NULL;
	IndexScanDesc scan;
	Snapshot	before;
	SnapshotData dirty;
	TupleTableSlot *slot;
	bool		told = false;

	if (index == NULL)
		return false;
	InitDirtySnapshot(dirty);
	before = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(queue->notes, NULL);
	scan = begin_dirty(queue, index, key, &dirty);
	while (!told && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (!index_fetch_heap(scan, slot))
		{
			told = is_ended_since(scan, &dirty, before, slot);
			continue;
		}
		if (TransactionIdIsValid(dirty.xmin))
			continue;
		told = TransactionIdIsValid(dirty.xmax) || slot_is_claimed(slot) ||
			DatumGetTimestampTz(slot_getattr(slot, NOTE_VT, &isnull)) <= until;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(before);
	return told;
}

/* ---- writing ---- */

/*
 * $1 where the notes are, $2 when the lease ends.  They keep their ids, so they must
 * not become fresh again, not even by a lease of no time.
 */
static const PlanSpec lease_notes = {
	PLAN_NOTES_LEASE,
	"UPDATE {notes} SET vt = GREATEST($2, pg_catalog.clock_timestamp(),"
	" enqueued_at OPERATOR(pg_catalog.+) '1 microsecond'::pg_catalog.interval), tries = 0"
	" WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)",
	2, {TIDARRAYOID, TIMESTAMPTZOID}
};

/* $1 where they are */
static const PlanSpec drop_notes = {
	PLAN_NOTES_DROP,
	"DELETE FROM {notes} WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)",
	1, {TIDARRAYOID}
};

/* What is to be looked at by now is fresh */
static const PlanSpec add_notes = {
	PLAN_NOTES_ADD,
	"INSERT INTO {notes} (enqueued_at, vt, grp, head, late, tries)"
	" SELECT c.now, GREATEST(c.now, n.vt), n.grp, n.head, n.late, n.tries"
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c,"
	" ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5)) AS n (grp, vt, head, late, tries)",
	5, {TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, BOOLARRAYOID, INT4ARRAYOID}
};

static Datum *
room(Datum *array, int count, int max)
{
	if (array == NULL)
		return palloc(sizeof(Datum) * max);
	if (count < max)
		return array;
	return repalloc_huge(array, sizeof(Datum) * max * 2);
}

#define FIRST_ROOM 32

static void
make_room(Datum **array, int count, int *max)
{
	*max = Max(*max, FIRST_ROOM);
	*array = room(*array, count, *max);
	if (count >= *max)
		*max *= 2;
}

/* The note's group was handed out: it is for the end of the lease now. */
void
notes_lease(NoteChanges *changes, const Note *note)
{
	make_room(&changes->leased, changes->nleased, &changes->max_leased);
	changes->leased[changes->nleased++] = PointerGetDatum(&note->tid);
}

void
notes_drop(NoteChanges *changes, const Note *note)
{
	make_room(&changes->dropped, changes->ndropped, &changes->max_dropped);
	changes->dropped[changes->ndropped++] = PointerGetDatum(&note->tid);
}

void
notes_add(NoteChanges *changes, const text *key, TimestampTz time,
		  int64 head, bool late, int32 tries)
{
	int			n = changes->nadded;
	int			max = changes->max_added;

	make_room(&changes->keys, n, &max);
	max = changes->max_added;
	make_room(&changes->times, n, &max);
	max = changes->max_added;
	make_room(&changes->heads, n, &max);
	max = changes->max_added;
	make_room(&changes->lates, n, &max);
	make_room(&changes->tries, n, &changes->max_added);
	changes->keys[n] = PointerGetDatum(key);
	changes->times[n] = TimestampTzGetDatum(time);
	changes->heads[n] = Int64GetDatum(head);
	changes->lates[n] = BoolGetDatum(late);
	changes->tries[n] = Int32GetDatum(tries);
	changes->nadded++;
}

static Datum
int8_array(Datum *values, int count)
{
	return PointerGetDatum(construct_array(values, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static Datum
tid_array(Datum *values, int count)
{
	return PointerGetDatum(construct_array(values, count, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
}

static void
write_as_owner(const GroupQueue *queue, NoteChanges *changes, TimestampTz lease_end)
{
	Datum		values[5];

	if (changes->nleased > 0)
	{
		values[0] = tid_array(changes->leased, changes->nleased);
		values[1] = TimestampTzGetDatum(lease_end);
		plan_run(&queue->name, &lease_notes, values, NULL, None_Receiver);
	}
	if (changes->ndropped > 0)
	{
		values[0] = tid_array(changes->dropped, changes->ndropped);
		plan_run(&queue->name, &drop_notes, values, NULL, None_Receiver);
	}
	if (changes->nadded > 0)
	{
		values[0] = PointerGetDatum(construct_array(changes->keys, changes->nadded,
													TEXTOID, -1, false, TYPALIGN_INT));
		values[1] = PointerGetDatum(construct_array(changes->times, changes->nadded,
													TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		values[2] = int8_array(changes->heads, changes->nadded);
		values[3] = PointerGetDatum(construct_array(changes->lates, changes->nadded,
													BOOLOID, 1, true, TYPALIGN_CHAR));
		values[4] = PointerGetDatum(construct_array(changes->tries, changes->nadded,
													INT4OID, 4, true, TYPALIGN_INT));
		plan_run(&queue->name, &add_notes, values, NULL, None_Receiver);
	}
}

/* Notes to be leased or dropped must have been locked.  The caller has connected to SPI. */
void
notes_write(const GroupQueue *queue, NoteChanges *changes, TimestampTz lease_end)
{
	OwnerScope	scope;

	if (changes->nleased + changes->ndropped + changes->nadded == 0)
		return;
	if (owner_has_code(queue->notes, NOTE_COLUMNS, NOTE_INDEXES))
		owner_begin(queue->notes->rd_rel->relowner, &scope);
	else
		owner_begin_bare(queue->notes->rd_rel->relowner, &scope);
	write_as_owner(queue, changes, lease_end);
	owner_end(&scope);
	memset(changes, 0, sizeof(*changes));
}

/* As the owner of the notes.  The caller has connected to SPI. */
static void
run_as_owner(const QueueName *name, Oid owner, const char *sql)
{
	OwnerScope	scope;
	int			rc;

	owner_begin(owner, &scope);
	rc = SPI_execute(name_expand(sql, name), false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	owner_end(&scope);
}

/*
 * The marker is a row that says of the table: since it was there, or since a full
 * lap of the sweep, no note has been lost of a message that came late.
 */
#define SET_MARKER \
	"INSERT INTO {notes} (msg_id, enqueued_at, vt, grp, head, late) OVERRIDING SYSTEM VALUE" \
	" VALUES (0, pg_catalog.clock_timestamp(), 'infinity', '', 0, true)"

void
notes_set_marker(const QueueName *name)
{
	run_as_owner(name, owner_of(name_relid(name, NOTES_TABLE)), SET_MARKER);
}

/* All messages are gone, and nobody else is at work on the queue. */
void
notes_truncate(const QueueName *name)
{
	Oid			owner = owner_of(name_relid(name, NOTES_TABLE));

	if (!OidIsValid(owner))
		return;
	run_as_owner(name, owner, "TRUNCATE TABLE {notes}");
	run_as_owner(name, owner, SET_MARKER);
}
