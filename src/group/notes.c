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
 *		group is idle: written by a committed transaction, or its own, and not being
 *		updated or deleted.  A lock on the row does not count.
 * R2	A reader, a remover and a re-timer claim, then look, then write a verdict.  To
 *		claim is to lock the notes of the group that can be locked at once.  The look is
 *		front_judge().  The verdict replaces exactly the notes that were claimed.
 *		If there were none, one is added, unless the claimer has changed nothing.  A
 *		remover and a re-timer do none of this if R1 holds for them: an earlier message
 *		of the group is idle.
 *
 * Why no group is missed.  The index entry of a message, and the deletion of its row, are
 * each written under the exclusive lock of their page.  Suppose that M has no note because
 * it relies on an earlier message E.  The remover of E deleted it after M's sender had
 * looked, so the remover's look comes after M's entry.  It relies on a still earlier
 * message, or its verdict is not later than M's time.  Suppose that M has a note.  A
 * session that replaces this note has claimed it before its look.  The look comes after
 * M's entry, and ends at M or at an earlier message that is idle then.
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

/* Scan notes: deferred ones ("due") between two times, fresh ones between two ids */
NoteScan *
notes_scan(GroupQueue *queue, Oid index, bool due, int64 from, int64 until)
{
	NoteScan   *scan = palloc(sizeof(NoteScan));
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, due ? F_TIMESTAMPTZ_GE : F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, due ? F_TIMESTAMPTZ_LE : F_INT8LE, Int64GetDatum(until));
	scan->due = due;
	scan->index = index_open(index, AccessShareLock);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan->slot = table_slot_create(queue->notes, NULL);
	scan->scan = index_beginscan(queue->notes, scan->index, scan->snapshot, NULL, 2, 0);
	index_rescan(scan->scan, keys, 2, NULL, 0);
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
	note->tid = slot->tts_tid;
	note->pause = note->vt - DatumGetTimestampTz(slot->tts_values[NOTE_ENQUEUED_AT - 1]);
	note->due = note->pause != 0;
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
		{
			note->claimed = slot_is_claimed(scan->slot);
			return true;
		}
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

/*
 * Notes of one group, or all of an index, are read with a dirty snapshot.  "other" says
 * what another transaction has done to a note: added, locked, replaced or deleted it.
 * A replaced or deleted note still exists for us, even if that transaction has
 * committed since our look began.  The entry of its replacement may not be among those
 * that were read.  A claimer, which can lock no such note, does without that ("before"
 * is NULL).
 */
typedef enum Other
{
	OTHER_NONE,
	OTHER_ADDED,
	OTHER_CLAIMED
} Other;

#define ALL_NOTES INT_MAX

/* True ends the scan */
typedef bool (*NoteVisit) (TupleTableSlot *slot, Other other, void *arg);

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
	if (before == NULL)
		return false;
	*other = OTHER_CLAIMED;
	scan->xs_snapshot = before;
	found = index_fetch_heap(scan, slot);
	scan->xs_snapshot = dirty;
	return found || entry_ended_since(scan, before, slot);
}

/* Visit the notes of a group (NULL: all), or ("most") of its last entries, dead ones included; whether a visit was true */
static bool
visit_notes(GroupQueue *queue, Oid index_oid, const text *key, int most, NoteVisit visit, void *arg)
{
	Relation	index = index_open(index_oid, AccessShareLock);
	Snapshot	before = most == ALL_NOTES ? RegisterSnapshot(GetLatestSnapshot()) : NULL;
	TupleTableSlot *slot = table_slot_create(queue->notes, NULL);
	SnapshotData dirty;
	IndexScanDesc scan;
	ScanKeyData keys[1];
	Other		other;
	bool		ended = false;

	InitDirtySnapshot(dirty);
	scan = index_beginscan(queue->notes, index, &dirty, NULL, key ? 1 : 0, 0);
	if (key)
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	index_rescan(scan, keys, key ? 1 : 0, NULL, 0);
	while (!ended && most-- > 0 && index_getnext_tid(scan, BackwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		ended = fetch_note(scan, &dirty, before, slot, &other) && visit(slot, other, arg);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	if (before)
		UnregisterSnapshot(before);
	return ended;
}

/* How many notes of a group, and dead versions of them, a claimer visits; and how many it claims */
#define MOST_VISITED 64
#define MOST_CLAIMED 32

typedef struct Claiming
{
	GroupQueue *queue;
	const Note *told;
	Claim	   *claim;
} Claiming;

static void
claim_note(GroupQueue *queue, const Note *note, Claim *claim)
{
	if (!notes_lock(queue, note))
		return;
	claim->notes = lappend(claim->notes, (void *) note);
	claim->late |= note->late;
	if (note->pause <= LONGEST_PAUSE)
		claim->pause = Max(claim->pause, note->pause);
}

static bool
claim_visited(TupleTableSlot *slot, Other other, void *arg)
{
	Claiming   *claiming = arg;
	Note	   *note = palloc(sizeof(Note));

	if (other == OTHER_NONE && deform(slot, note) &&
		(claiming->told == NULL || !ItemPointerEquals(unconstify(ItemPointerData *, &claiming->told->tid), &note->tid)))
		claim_note(claiming->queue, note, claiming->claim);
	return list_length(claiming->claim->notes) >= MOST_CLAIMED;
}

/* Claim the note that has led to the group, if one has, and the others of it, those with the highest heads first. */
void
notes_claim(GroupQueue *queue, const text *key, const Note *told, Claim *claim)
{
	Claiming	claiming = {queue, told, claim};

	memset(claim, 0, sizeof(*claim));
	if (told)
		claim_note(queue, told, claim);
	if (OidIsValid(queue->head_index))
		(void) visit_notes(queue, queue->head_index, key, MOST_VISITED, claim_visited, &claiming);
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

	if (!OidIsValid(queue->late_index) || visit_notes(queue, queue->late_index, key, ALL_NOTES, is_late, &test))
		test.late = true;
	if (key != NULL)
		return test.late || !queue->marked;
	queue->marked = test.marked;
	queue->late_known = true;
	return queue->any_late = test.late || !test.marked;
}

/* The same of a group, as far as the index was not empty when it was asked first */
bool
notes_group_is_late(GroupQueue *queue, const text *key)
{
	return (queue->late_known ? queue->any_late : notes_any_late(queue, NULL)) && notes_any_late(queue, key);
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
	return OidIsValid(queue->head_index) && visit_notes(queue, queue->head_index, key, ALL_NOTES, tells, &until);
}

/* ---- writing ---- */

/* $1 now, $2 where the claimed notes are, then the new ones */
static const PlanSpec write_notes = {
	PLAN_NOTES,
	"WITH replaced AS (DELETE FROM {notes} WHERE ctid OPERATOR(pg_catalog.=) ANY ($2))"
	" INSERT INTO {notes} (enqueued_at, vt, grp, head, late) SELECT $1, pg_catalog.unnest($3), pg_catalog.unnest($4),"
	" pg_catalog.unnest($5), pg_catalog.unnest($6)",
	6, {TIMESTAMPTZOID, TIDARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID, BOOLARRAYOID}
};

/* DT_NOBEGIN as the time makes a fresh note.  Any other time makes a deferred one, which may be due at once. */
void
notes_add(NoteChanges *changes, const text *key, TimestampTz time, int64 head, bool late)
{
	Note	   *note = palloc0(sizeof(Note));

	note->key = unconstify(text *, key);
	note->vt = time;
	note->head = head;
	note->late = late;
	changes->added = lappend(changes->added, note);
}

/* The group is empty, or gets a new note. */
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
notes_replace(NoteChanges *changes, const Claim *claim, const text *key, TimestampTz time, int64 head, bool late)
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
		notes_add(changes, key, time > now ? time : DT_NOBEGIN, head, late);
}

/* The clock is read under the lock on the notes, as floors.c asks for. */
static void
write_as_owner(const GroupQueue *queue, const NoteChanges *changes)
{
	static const struct
	{
		Oid			type;
		int			length;
		bool		by_value;
		char		align;
	}			types[] = {
		{TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT},
		{TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TEXTOID, -1, false, TYPALIGN_INT},
		{INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{BOOLOID, 1, true, TYPALIGN_CHAR}
	};
	TimestampTz now = GetCurrentTimestamp();
	int			counts[lengthof(types)] = {list_length(changes->dropped)};
	Datum	   *columns[lengthof(types)];
	Datum		values[lengthof(types) + 1] = {TimestampTzGetDatum(now)};
	ListCell   *lc;
	int			i;

	for (i = 0; i < lengthof(types); i++)
	{
		if (i > 0)
			counts[i] = list_length(changes->added);
		columns[i] = palloc_extended(sizeof(Datum) * counts[i], MCXT_ALLOC_HUGE);
	}
	foreach(lc, changes->dropped)
		columns[0][foreach_current_index(lc)] = PointerGetDatum(&((Note *) lfirst(lc))->tid);
	foreach(lc, changes->added)
	{
		const Note *note = lfirst(lc);

		i = foreach_current_index(lc);
		columns[1][i] = TimestampTzGetDatum(note->vt == DT_NOBEGIN ? now : Max(note->vt, now + 1));
		columns[2][i] = PointerGetDatum(note->key);
		columns[3][i] = Int64GetDatum(note->head);
		columns[4][i] = BoolGetDatum(note->late);
	}
	for (i = 0; i < lengthof(types); i++)
		values[i + 1] = PointerGetDatum(construct_array(columns[i], counts[i], types[i].type, types[i].length,
														types[i].by_value, types[i].align));
	plan_run_latest(&queue->name, &write_notes, values);
}

/* Notes to be dropped were claimed.  The caller has connected to SPI. */
void
notes_write(const GroupQueue *queue, NoteChanges *changes)
{
	OwnerScope	scope;

	if (changes->dropped == NIL && changes->added == NIL)
		return;
	if (owner_has_code(queue->notes, NOTE_COLUMNS, NOTE_INDEXES))
		owner_begin(queue->notes->rd_rel->relowner, &scope);
	else
		owner_begin_bare(queue->notes->rd_rel->relowner, &scope);
	write_as_owner(queue, changes);
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
