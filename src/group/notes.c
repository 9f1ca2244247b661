/*
 * notes.c
 *	  SPEED: notes say which groups to look at, and when.
 *
 * A queue with a group index has a table of them, pgmq.g_<queue>.  It is shaped as a queue
 * is: a note is fresh (vt = enqueued_at) when its group can be looked at now, and deferred
 * otherwise.  So the floors and marks of horizon.c work for it as well.
 *
 * A note that is missing, stale or duplicate costs time, and nothing else: order comes
 * from the look (front.c), and the sweep finds groups without a note (groupsweep.c).  So
 * no session waits for a note.  The aim: each group that has messages has a note.  It is
 * committed, or written by the very transaction that makes it necessary.  Its time is not
 * later than the moment from which the group's first message can be handed out.  Two rules
 * achieve that:
 *
 * R1	A sender writes, then looks.  It adds a note unless an earlier message of the
 *		group is settled: written by a committed transaction, or its own, and not being
 *		updated or deleted.  A lock on the row does not count.
 * R2	A reader, a remover and a re-timer claim, then look, then write a verdict.  To
 *		claim is to lock the notes of the group that can be locked at once.  The look is
 *		front_judge().  The verdict replaces exactly the notes that were claimed.
 *		If there were none, one is added, unless the claimer has changed nothing.  A
 *		remover and a re-timer do none of this if R1 holds for them: an earlier message
 *		of the group is settled.
 *
 * Why no group is missed.  The index entry of a message, and the deletion of its row, are
 * each written under the exclusive lock of their page.  Suppose that M has no note because
 * it relies on an earlier message E.  The remover of E deleted it after M's sender had
 * looked, so the remover's look comes after M's entry.  It relies on a still earlier
 * message, or its verdict is not later than M's time.  Suppose that M has a note.  A
 * session that replaces this note has claimed it before its look.  The look comes after
 * M's entry, and ends at M or at an earlier message that is settled then.
 *
 * The verdict counts all versions.  Messages 1 and 2 are leased for an hour, 3 is fresh.
 * X deletes 1, claims the note, sees that 2 is leased, and writes "in an hour".  Y deletes
 * 2, cannot claim the note, and sees that 1 is being removed.  "In an hour", the time of
 * 1, would be wrong, because both may commit.  Y sees 3 as well, and writes "now".
 *
 * A transaction's own changes count as made.  If they are rolled back later, everything
 * that was written after them is rolled back, too, including the verdict.
 *
 * Notes are found and locked by the latest snapshot, at any isolation level.  They are
 * written with the rights of the table's owner, so a sender needs no rights on them.
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

#include "base/base.h"
#include "queue/queue.h"
#include "group/internal.h"

/* ---- finding ---- */

struct NoteScan
{
	bool		due;
	Relation	index;
	IndexScanDesc scan;
	Snapshot	snapshot;
	TupleTableSlot *slot;
};

static NoteScan *
scan_begin(GroupQueue *queue, Relation index, ScanKey keys, int nkeys)
{
	NoteScan   *scan = palloc(sizeof(NoteScan));

	scan->index = index;
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan->slot = table_slot_create(queue->notes, NULL);
	scan->scan = index_beginscan(queue->notes, index, scan->snapshot, NULL, nkeys, 0);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
	return scan;
}

/* Scan notes: deferred ones ("due") between two times, fresh ones between two ids */
NoteScan *
notes_scan(GroupQueue *queue, Oid index, bool due, int64 from, int64 until)
{
	ScanKeyData keys[2];
	NoteScan   *scan;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, due ? F_TIMESTAMPTZ_GE : F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, due ? F_TIMESTAMPTZ_LE : F_INT8LE, Int64GetDatum(until));
	scan = scan_begin(queue, index_open(index, AccessShareLock), keys, 2);
	scan->due = due;
	return scan;
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

/* Lock a note, if that is possible at once and it is as we saw it. */
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

/* How many notes of a group, and dead versions of them, a claimer visits; and how many it claims */
#define MOST_VISITED 64
#define MOST_CLAIMED 32

static void
claim_note(GroupQueue *queue, const Note *note, Claim *claim)
{
	if (note->claimed || !notes_lock(queue, note))
		return;
	claim->notes = lappend(claim->notes, (void *) note);
	claim->late |= note->late;
	claim->tries = Max(claim->tries, note->tries);
}

/* Claim the note that has led to the group, if one has, and the others of it, those with the highest heads first. */
void
notes_claim(GroupQueue *queue, const text *key, const Note *told, Claim *claim)
{
	Relation	index = OidIsValid(queue->head_index) ? try_index_open(queue->head_index, AccessShareLock) : NULL;
	ScanKeyData keys[1];
	NoteScan   *scan;
	int			visited = 0;

	memset(claim, 0, sizeof(*claim));
	if (told)
		claim_note(queue, told, claim);
	if (index == NULL)
		return;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	scan = scan_begin(queue, index, keys, 1);
	while (visited++ < MOST_VISITED && list_length(claim->notes) < MOST_CLAIMED &&
		   index_getnext_tid(scan->scan, BackwardScanDirection) != NULL)
	{
		Note	   *note;

		CHECK_FOR_INTERRUPTS();
		if (!index_fetch_heap(scan->scan, scan->slot))
			continue;
		note = palloc(sizeof(Note));
		if (deform(scan->slot, note) && (told == NULL || !ItemPointerEquals(unconstify(ItemPointerData *, &told->tid), &note->tid)))
			claim_note(queue, note, claim);
	}
	notes_end(scan);
}

/*
 * Whether one of the notes in an index, or of those of a group, is as wanted.  They
 * are read with a dirty snapshot.  "other" says what another transaction has done to a
 * note: added, locked, replaced or deleted it.  A replaced or deleted note still
 * exists for us, even if that transaction has committed since our look began.  The
 * entry of its replacement may not be among those that were read.
 */
typedef enum Other
{
	OTHER_NONE,
	OTHER_ADDED,
	OTHER_CLAIMED
} Other;

typedef bool (*NoteTest) (TupleTableSlot *slot, Other other, void *arg);

static bool
fetch_note(IndexScanDesc scan, Snapshot dirty, Snapshot before, TupleTableSlot *slot, Other *other)
{
	bool		found;

	if (index_fetch_heap(scan, slot))
	{
		*other = TransactionIdIsValid(dirty->xmin) ? OTHER_ADDED :
			TransactionIdIsValid(dirty->xmax) || slot_is_claimed(slot) ? OTHER_CLAIMED : OTHER_NONE;
		return true;
	}
	*other = OTHER_CLAIMED;
	scan->xs_snapshot = before;
	found = index_fetch_heap(scan, slot);
	scan->xs_snapshot = dirty;
	return found || entry_ended_since(scan, before, slot);
}

static bool
any_note(GroupQueue *queue, Oid index_oid, const text *key, bool without_index, NoteTest is_wanted, void *arg)
{
	Relation	index = OidIsValid(index_oid) ? try_index_open(index_oid, AccessShareLock) : NULL;
	ScanKeyData keys[1];
	IndexScanDesc scan;
	Snapshot	before;
	SnapshotData dirty;
	TupleTableSlot *slot;
	Other		other;
	bool		found = false;

	if (index == NULL)
		return without_index;
	InitDirtySnapshot(dirty);
	before = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(queue->notes, NULL);
	scan = index_beginscan(queue->notes, index, &dirty, NULL, key ? 1 : 0, 0);
	if (key)
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	index_rescan(scan, keys, key ? 1 : 0, NULL, 0);
	while (!found && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		found = fetch_note(scan, &dirty, before, slot, &other) && is_wanted(slot, other, arg);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(before);
	return found;
}

typedef struct LateTest
{
	bool		marked;
	bool		late;
	bool		all;			/* look at all, for the marker too */
} LateTest;

static bool
is_late(TupleTableSlot *slot, Other other, void *arg)
{
	LateTest   *test = arg;
	bool		isnull;

	if (DatumGetInt64(slot_getattr(slot, NOTE_ID, &isnull)) != MARKER_ID)
		test->late = true;
	else
		test->marked |= other != OTHER_ADDED;
	return test->late && (test->marked || !test->all);
}

/*
 * Whether there are late notes: of this group, or (NULL) of any.  In the latter
 * case this also checks that the marker exists.  If that is unknown, a message
 * of any group may have come late.
 */
bool
notes_any_late(GroupQueue *queue, const text *key)
{
	LateTest	test = {queue->marked, false, key == NULL};

	if (any_note(queue, queue->late_index, key, true, is_late, &test))
		test.late = true;
	if (key == NULL)
		queue->marked = test.marked;
	return test.late || !queue->marked;
}

static bool
tells(TupleTableSlot *slot, Other other, void *arg)
{
	bool		isnull;

	return other == OTHER_CLAIMED ||
		(other == OTHER_NONE && DatumGetTimestampTz(slot_getattr(slot, NOTE_VT, &isnull)) <= *(TimestampTz *) arg);
}

/*
 * Whether the group has a note for that time or earlier.  A note that another
 * transaction has locked, replaced or deleted counts: it stays, or that transaction
 * writes another.  A note that another transaction has only added does not count,
 * because it may stay open.
 */
bool
notes_tell(GroupQueue *queue, const text *key, TimestampTz until)
{
	return any_note(queue, queue->head_index, key, false, tells, &until);
}

/* ---- writing ---- */

/*
 * $1 the places of the notes, $2 the end of the lease.  They keep their ids, so they
 * must not become fresh again, not even by a lease of 0 seconds.
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

/* A note is fresh if its group is to be looked at by now */
static const PlanSpec add_notes = {
	PLAN_NOTES_ADD,
	"INSERT INTO {notes} (enqueued_at, vt, grp, head, late, tries)"
	" SELECT c.now, GREATEST(c.now, n.vt), n.grp, n.head, n.late, n.tries"
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c,"
	" ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
	" pg_catalog.unnest($4), pg_catalog.unnest($5)) AS n (grp, vt, head, late, tries)",
	5, {TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, BOOLARRAYOID, INT4ARRAYOID}
};

void
notes_add(NoteChanges *changes, const text *key, TimestampTz time, int64 head, bool late, int32 tries)
{
	Note	   *note = palloc0(sizeof(Note));

	note->key = unconstify(text *, key);
	note->vt = time;
	note->head = head;
	note->late = late;
	note->tries = tries;
	changes->added = lappend(changes->added, note);
}

/* The group is empty: drop its notes. */
void
notes_drop(NoteChanges *changes, const Claim *claim)
{
	changes->dropped = list_concat(changes->dropped, claim->notes);
}

/*
 * The verdict replaces the claimed notes.  One of them is kept if it says the same or
 * an earlier time: a look that is too early does no harm.
 */
void
notes_replace(NoteChanges *changes, const Claim *claim, const text *key, TimestampTz time, int64 head, bool late, int32 tries)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		kept = false;
	ListCell   *lc;

	time = Max(time, now);
	foreach(lc, claim->notes)
	{
		Note	   *note = lfirst(lc);

		if (!kept && note->late == late && note->vt <= time && (note->vt > now || time == now))
			kept = true;
		else
			changes->dropped = lappend(changes->dropped, note);
	}
	if (!kept)
		notes_add(changes, key, time, head, late, tries);
}

/* The verdict on a group that was handed out: look again when the lease ends. */
void
notes_lease(NoteChanges *changes, const Claim *claim, const text *key, TimestampTz lease_end, int64 head)
{
	bool		kept = false;
	ListCell   *lc;

	foreach(lc, claim->notes)
	{
		Note	   *note = lfirst(lc);

		if (!kept && note->head == head && !note->late)
		{
			changes->leased = lappend(changes->leased, note);
			kept = true;
		}
		else
			changes->dropped = lappend(changes->dropped, note);
	}
	if (!kept)
		notes_add(changes, key, lease_end, head, false, 0);
}

static Datum
array_of(Datum *values, int count, Oid type)
{
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_array(values, count, type, length, by_value, align));
}

/* The places of notes in their table */
static Datum
tid_array(const List *notes)
{
	Datum	   *tids = palloc_extended(sizeof(Datum) * list_length(notes), MCXT_ALLOC_HUGE);
	ListCell   *lc;

	foreach(lc, notes)
		tids[foreach_current_index(lc)] = PointerGetDatum(&((Note *) lfirst(lc))->tid);
	return array_of(tids, list_length(notes), TIDOID);
}

static void
write_added(const GroupQueue *queue, const List *notes)
{
	static const Oid types[] = {TEXTOID, TIMESTAMPTZOID, INT8OID, BOOLOID, INT4OID};
	int			count = list_length(notes);
	Datum	   *columns[lengthof(types)];
	Datum		values[lengthof(types)];
	ListCell   *lc;
	int			i;

	for (i = 0; i < lengthof(types); i++)
		columns[i] = palloc_extended(sizeof(Datum) * count, MCXT_ALLOC_HUGE);
	foreach(lc, notes)
	{
		const Note *note = lfirst(lc);

		i = foreach_current_index(lc);
		columns[0][i] = PointerGetDatum(note->key);
		columns[1][i] = TimestampTzGetDatum(note->vt);
		columns[2][i] = Int64GetDatum(note->head);
		columns[3][i] = BoolGetDatum(note->late);
		columns[4][i] = Int32GetDatum(note->tries);
	}
	for (i = 0; i < lengthof(types); i++)
		values[i] = array_of(columns[i], count, types[i]);
	plan_run_latest(&queue->name, &add_notes, values);
}

static void
write_as_owner(const GroupQueue *queue, NoteChanges *changes, TimestampTz lease_end)
{
	Datum		values[2] = {(Datum) 0, TimestampTzGetDatum(lease_end)};

	if (changes->leased != NIL)
	{
		values[0] = tid_array(changes->leased);
		plan_run_latest(&queue->name, &lease_notes, values);
	}
	if (changes->dropped != NIL)
	{
		values[0] = tid_array(changes->dropped);
		plan_run_latest(&queue->name, &drop_notes, values);
	}
	if (changes->added != NIL)
		write_added(queue, changes->added);
}

/* Notes to be leased or dropped were claimed.  The caller has connected to SPI. */
void
notes_write(const GroupQueue *queue, NoteChanges *changes, TimestampTz lease_end)
{
	OwnerScope	scope;

	if (changes->leased == NIL && changes->dropped == NIL && changes->added == NIL)
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
	(void) owner_run(owner, false, name_expand(sql, name), 0, NULL);
}

/*
 * The marker is a row that says: since the table was made, or since a full lap
 * of the sweep, no late note was lost.
 */
#define SET_MARKER \
	"INSERT INTO {notes} (msg_id, enqueued_at, vt, grp, head, late) OVERRIDING SYSTEM VALUE" \
	" VALUES (0, pg_catalog.clock_timestamp(), 'infinity', '', 0, true)"

void
notes_set_marker(const QueueName *name)
{
	run_as_owner(name, owner_of(queue_relid(name, NOTES_TABLE)), SET_MARKER);
}

/* All messages are gone, and no other session uses the queue. */
void
notes_truncate(const QueueName *name)
{
	Oid			owner = owner_of(queue_relid(name, NOTES_TABLE));

	if (!OidIsValid(owner))
		return;
	run_as_owner(name, owner, "TRUNCATE TABLE {notes}");
	run_as_owner(name, owner, SET_MARKER);
}
