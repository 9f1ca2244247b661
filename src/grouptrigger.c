/*
 * grouptrigger.c
 *	  What keeps the notes of a queue: triggers on its table.
 *
 * A trigger runs after the change: the message stands in the index, or is marked
 * as deleted.  Only then it looks at the group (front.c says why).  It neither
 * locks messages nor waits.
 *
 * - Who sends adds a note, unless there is an earlier message of the group that
 *	 is there whatever others do: then the group has a note, and who removes
 *	 that message will look.  In a partitioned queue only the last partitions are
 *	 searched for one.
 * - Who removes looks what is left, and sees to a note for that, unless the time
 *	 of the old one will do.
 * - Who makes a group's first message visible earlier adds a note.
 *
 * A message that is being sent or removed by an open transaction may be there
 * in the end or not; looks go past it, and the note's time is the earliest of
 * all that were passed.  They go past so many and no more: a note too many
 * does no harm.
 *
 * MESSAGES THAT COME LATE.  A msg_id is drawn before the message stands in the
 * index.  In between, another message with a higher one can be sent and be
 * handed out.  The sender then finds it behind his own, held by somebody: he
 * adds a note that says so (late), and while it is there, readers look at all of
 * the group before they take its first message, so that no two of them hold
 * the group.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "group.h"
#include "partition.h"

PG_FUNCTION_INFO_V1(pgmq__group_sent);
PG_FUNCTION_INFO_V1(pgmq__group_removed);
PG_FUNCTION_INFO_V1(pgmq__group_retimed);
PG_FUNCTION_INFO_V1(pgmq__group_moved);
PG_FUNCTION_INFO_V1(pgmq__group_truncated);

/* How many messages of open transactions a look goes past */
#define MOST_PASSED 32

/* A message that was sent or removed */
typedef struct Change
{
	text	   *key;
	int64		msg_id;
	TimestampTz vt;				/* DT_NOBEGIN of a fresh one */
	TimestampTz enqueued_at;
} Change;

/* What one call of a trigger works with */
typedef struct Work
{
	GroupQueue	queue;
	TimestampTz now;
	bool		first_write;	/* this statement is the transaction's first that writes */
	Snapshot	before;			/* the notes that were there before all walks over groups */
	NoteChanges notes;
	int			ready;			/* how many notes were added */
} Work;

/* ---- messages to changes ---- */

/* Where the messages of a table or a transition table are read */
typedef struct Reader
{
	GroupLeaf	columns;
	TupleTableSlot *slot;
} Reader;

static bool
reader_init(Reader *reader, Relation rel, const TupleTableSlotOps *ops)
{
	memset(reader, 0, sizeof(*reader));
	reader->columns.rel = rel;
	if (!front_columns(&reader->columns))
		return false;
	reader->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), ops);
	return true;
}

/* The group's key, as the index has it: see GROUP_KEY */
static text *
key_of(Datum headers, bool isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		name = (Datum) 0;
	const char *data;
	int			len;

	if (!isnull)
	{
		InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
		fcinfo->args[0].value = headers;
		fcinfo->args[0].isnull = false;
		fcinfo->args[1].value = CStringGetTextDatum(GROUP_HEADER);
		fcinfo->args[1].isnull = false;
		name = jsonb_object_field_text(fcinfo);
		isnull = fcinfo->isnull;
	}
	if (isnull)
		return cstring_to_text(DEFAULT_GROUP);
	data = VARDATA_ANY(DatumGetPointer(name));
	len = (int) VARSIZE_ANY_EXHDR(DatumGetPointer(name));
	if (len <= LONGEST_GROUP_KEY)
		return DatumGetTextPCopy(name);
	return cstring_to_text(psprintf("%.*s...%lld/%lld", pg_mbcharcliplen(data, len, LONG_KEY_CHARACTERS), data,
									(long long) DatumGetInt64(hash_any_extended((const unsigned char *) data, len, 0)),
									(long long) DatumGetInt64(hash_any_extended((const unsigned char *) data, len, 1))));
}

/* The message in the reader's slot; false if it is none */
static bool
make_change(Reader *reader, Change *change)
{
	TupleTableSlot *slot = reader->slot;
	const GroupLeaf *columns = &reader->columns;
	bool		isnull[4];
	Datum		headers = slot_getattr(slot, columns->headers_attno, &isnull[3]);
	TimestampTz enqueued_at;

	change->msg_id = DatumGetInt64(slot_getattr(slot, columns->id_attno, &isnull[0]));
	change->vt = DatumGetTimestampTz(slot_getattr(slot, columns->vt_attno, &isnull[1]));
	enqueued_at = DatumGetTimestampTz(slot_getattr(slot, columns->enqueued_attno, &isnull[2]));
	if (isnull[0])
		return false;
	if (isnull[1] || (!isnull[2] && change->vt == enqueued_at))
		change->vt = DT_NOBEGIN;
	change->enqueued_at = isnull[2] ? DT_NOEND : enqueued_at;
	change->key = key_of(headers, isnull[3]);
	return true;
}

/* By group, and in a group by msg_id */
static int
compare_changes(const void *a, const void *b)
{
	const Change *change_a = a;
	const Change *change_b = b;
	int			order = front_compare_keys(change_a->key, change_b->key);

	if (order != 0)
		return order;
	return change_a->msg_id < change_b->msg_id ? -1 : change_a->msg_id > change_b->msg_id;
}

/* How many messages of a statement are seen to at a time: it may be a COPY of millions */
#define MESSAGES_AT_A_TIME 5000

/*
 * The next messages of a transition table, sorted, in a context that is reset
 * before the ones after them; none at its end.  The slot keeps its last row for
 * longer, so it must not be filled in that context: a row that comes from disk
 * is allocated in the current one, and freed when the slot gets the next row.
 */
static Change *
next_changes(Reader *reader, Tuplestorestate *store, MemoryContext context, int *count)
{
	Change	   *changes = MemoryContextAlloc(context, sizeof(Change) * MESSAGES_AT_A_TIME);

	*count = 0;
	while (*count < MESSAGES_AT_A_TIME && tuplestore_gettupleslot(store, true, false, reader->slot))
	{
		MemoryContext caller = MemoryContextSwitchTo(context);

		if (make_change(reader, &changes[*count]))
			(*count)++;
		MemoryContextSwitchTo(caller);
	}
	qsort(changes, *count, sizeof(Change), compare_changes);
	return changes;
}

/* ---- what a change asks for ---- */

/*
 * Whether there is no group index to look into: it is being made, or was dropped.
 * Then each change leaves a note, which is never wrong.
 */
static bool
is_blind(const Work *work)
{
	return work->queue.fifo == NULL;
}

/* Somebody may hold a message behind ours: see "late" above. */
static bool
comes_late(Work *work, const Change *first, int count)
{
	bool		contiguous = first[count - 1].msg_id - first->msg_id + 1 == count;
	GroupScan  *scan = front_begin(&work->queue, first->key,
								   contiguous ? first[count - 1].msg_id + 1 : first->msg_id);
	Peeked		peeked;
	bool		late = false;
	int			passed = 0;

	while (!late && front_next(scan, &peeked))
	{
		/* What we have sent ourselves nobody else can hold; what we have read, we do */
		if (peeked.mine && !peeked_is_held(&peeked, work->now))
			continue;
		if (peeked.leaving || peeked.changing || peeked.locked ||
			peeked_is_held(&peeked, work->now) ||
			(peeked.arriving && ++passed > MOST_PASSED))
			late = true;
		else if (!peeked.arriving)
			break;				/* what is behind a message that nobody holds was not handed out */
	}
	front_end(scan);
	return late;
}

/* These messages of one group have come. */
static void
group_sent(Work *work, const Change *first, int count)
{
	GroupStart	start;
	GroupScan  *scan;
	Peeked		peeked;
	bool		follows = false;	/* an earlier message that is there for sure */
	bool		doubtful = true;	/* that one may have been handed out, and others behind it */
	bool		late = false;
	int			passed = 0;

	if (is_blind(work))
	{
		notes_add(&work->notes, first->key, first->vt, first->msg_id, true, 0);
		return;
	}
	starts_lower(&work->queue, first->key, first->msg_id, false);
	starts_find(&work->queue, first->key, &start);
	scan = front_begin_near(&work->queue, first->key, start.from, first->msg_id);
	while (!follows && front_next_message(scan, &peeked) &&
		   peeked.msg_id < first->msg_id && passed++ < MOST_PASSED)
	{
		follows = peeked.solid;
		doubtful = peeked.changing || peeked.locked || peeked_is_held(&peeked, work->now);
	}
	front_end(scan);
	if (!follows || doubtful)
		late = comes_late(work, first, count);
	if (!follows || late)
		notes_add(&work->notes, first->key, first->vt, first->msg_id, late, 0);
}

/*
 * Give up the notes that were written for this message, if they were there
 * before the walk over the group.  One that has come since may stand for a message
 * that has come since as well: who read the group meanwhile has put off the note of
 * that one to the end of our message's lease.
 *
 * Whether one of them was of a late message: the note that takes their place must
 * say it, too.
 */
static bool
drop_notes_of(Work *work, const Change *change)
{
	bool		late = false;
	ListCell   *lc;

	foreach(lc, notes_of_message(&work->queue, change->key, change->msg_id, change->vt, work->before))
	{
		Note	   *note = lfirst(lc);

		if (!notes_lock(&work->queue, note))
			continue;
		notes_drop(&work->notes, note);
		late |= note->late;
	}
	return late;
}

/*
 * A message that is not its group's first is not held any more.  An earlier one
 * is there, and so is its note; but if it came late, it may have waited for this.
 */
static void
look_if_late(Work *work, const text *key, int64 head)
{
	if (notes_any_late(&work->queue, key))
		notes_add(&work->notes, key, DT_NOBEGIN, head, true, 0);
}

/* A message of the group has gone, and perhaps others behind it in the same statement. */
static void
group_removed(Work *work, const Change *lowest)
{
	GroupStart	start;
	GroupScan  *scan;
	Peeked		peeked;
	TimestampTz until = DT_NOEND;
	int64		head = PG_INT64_MAX;
	int64		dead;			/* all that stands below */
	bool		solid = false;
	int			passed = 0;

	if (is_blind(work))
	{
		notes_add(&work->notes, lowest->key, DT_NOBEGIN, lowest->msg_id, false, 0);
		return;
	}
	starts_find(&work->queue, lowest->key, &start);
	scan = front_begin(&work->queue, lowest->key, start.from);
	while (!solid && until > work->now && front_next_message(scan, &peeked))
	{
		if (passed == 0)
			head = peeked.msg_id;
		solid = peeked.solid;
		until = Min(until, peeked.fresh ? DT_NOBEGIN : peeked.vt);
		if (++passed > MOST_PASSED)
			until = DT_NOBEGIN;
	}
	dead = Min(head, Min(front_ours(scan), lowest->msg_id));
	front_end(scan);
	if (work->first_write)
		starts_advance(&start, dead, false);
	else
		starts_advance(&start, passed == 0 ? lowest->msg_id : head, true);

	if (passed == 0)
	{
		drop_notes_of(work, lowest);
		return;
	}
	if (solid && peeked.msg_id < lowest->msg_id)
	{
		look_if_late(work, lowest->key, head);
		return;
	}
	/* When the old first message was to be had is soon enough, if that is to come */
	if (lowest->vt > work->now && until >= lowest->vt)
		return;
	notes_add(&work->notes, lowest->key, until, head, drop_notes_of(work, lowest), 0);
}

/* A message became visible earlier. */
static void
group_retimed(Work *work, const Change *old, const Change *new)
{
	GroupStart	start;
	GroupScan  *scan;
	Peeked		peeked;
	bool		follows = false;
	int			passed = 0;

	if (is_blind(work))
	{
		notes_add(&work->notes, new->key, new->vt, new->msg_id, false, 0);
		return;
	}
	starts_find(&work->queue, new->key, &start);
	scan = front_begin(&work->queue, new->key, start.from);
	while (!follows && front_next_message(scan, &peeked) &&
		   peeked.msg_id < new->msg_id && passed++ < MOST_PASSED)
		follows = peeked.solid;
	front_end(scan);
	if (follows)
		look_if_late(work, new->key, peeked.msg_id);
	else
		notes_add(&work->notes, new->key, new->vt, new->msg_id, drop_notes_of(work, old), 0);
}

/* ---- the triggers ---- */

static TriggerData *
trigger_data(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		data->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called by the triggers that create_fifo_index() makes")));
	return data;
}

/*
 * The queue that the trigger names.  False if it is not on that queue's table:
 * anybody may make a trigger of ours on a table of his own, and say any name.
 */
static bool
queue_of_trigger(const TriggerData *data, QueueName *name)
{
	Oid			queue;

	name_canonical(cstring_to_text(data->tg_trigger->tgargs[0]), name);
	queue = name_relid(name, QUEUE_TABLE);
	return RelationGetRelid(data->tg_relation) == queue ||
		(data->tg_relation->rd_rel->relispartition &&
		 list_member_oid(get_partition_ancestors(RelationGetRelid(data->tg_relation)), queue));
}

/*
 * False if the queue has no notes to be kept: create_fifo_index() writes them all.
 * Who may drop notes says so.
 */
static bool
work_begin(Work *work, const TriggerData *data, bool drops)
{
	QueueName	name;

	memset(work, 0, sizeof(*work));
	if (!queue_of_trigger(data, &name) || !group_open(&work->queue, &name, false))
		return false;
	if (work->queue.notes == NULL)
	{
		group_close(&work->queue, true);
		return false;
	}
	work->now = GetCurrentTimestamp();
	work->first_write = GetCurrentCommandId(false) == FirstCommandId;
	if (drops)
		work->before = notes_snapshot(&work->queue);
	return true;
}

static void
write_notes(Work *work)
{
	work->ready += work->notes.nadded;
	SPI_connect();
	notes_write(&work->queue, &work->notes, 0);
	SPI_finish();
}

static void
work_end(Work *work)
{
	write_notes(work);
	UnregisterSnapshot(work->before);	/* NULL is fine */
	group_close(&work->queue, true);
}

/* The same where messages have gone: those who wait for groups may have the next ones. */
static void
work_end_removal(Work *work)
{
	work_end(work);
	wake_mark_groups(&work->queue.name, work->ready);
}

/*
 * What was written by hand may be in a partition that is known to get no more
 * messages: then nobody must trust what he knows of partitions.
 */
static void
note_backdated(Work *work, const TriggerData *data, const Change *changes, int count)
{
	const Partitions *parts = work->queue.parts;
	bool		backdated = false;
	int			i;

	for (i = 0; i < count && parts != NULL; i++)
		backdated |= parts->by_id ? changes[i].msg_id < parts->sent.fresh :
			changes[i].enqueued_at < parts->sent.due;
	if (!backdated)
		return;
	horizon_belied(&work->queue.name);
	group_close(&work->queue, true);
	(void) work_begin(work, data, false);
}

/* Of the changes, those of the group of the first one */
static int
count_of_group(const Change *changes, int count)
{
	int			n = 1;

	while (n < count && front_compare_keys(changes[0].key, changes[n].key) == 0)
		n++;
	return n;
}

/* See to all messages of a statement, so many at a time, group by group */
static void
see_to_statement(Work *work, const TriggerData *data, Tuplestorestate *store, bool sent)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgmq changes", ALLOCSET_DEFAULT_SIZES);
	Reader		reader;
	Change	   *changes;
	int			count;
	int			i;

	if (!reader_init(&reader, data->tg_relation, &TTSOpsMinimalTuple))
		return;
	tuplestore_select_read_pointer(store, 0);
	tuplestore_rescan(store);
	for (;;)
	{
		changes = next_changes(&reader, store, context, &count);
		if (count == 0)
			break;
		if (sent)
			note_backdated(work, data, changes, count);
		for (i = 0; i < count; i += count_of_group(&changes[i], count - i))
		{
			if (sent)
				group_sent(work, &changes[i], count_of_group(&changes[i], count - i));
			else
				group_removed(work, &changes[i]);
		}
		if (count < MESSAGES_AT_A_TIME)
			break;
		/* From here on what the statement has deleted looks like what was deleted before */
		write_notes(work);
		work->first_write = false;
		MemoryContextReset(context);
	}
	ExecDropSingleTupleTableSlot(reader.slot);
}

/* pgmq._group_sent() -> trigger: AFTER INSERT FOR EACH STATEMENT */
Datum
pgmq__group_sent(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	Work		work;

	if (data->tg_newtable == NULL || tuplestore_tuple_count(data->tg_newtable) == 0 ||
		!work_begin(&work, data, false))
		return PointerGetDatum(NULL);
	see_to_statement(&work, data, data->tg_newtable, true);
	work_end(&work);
	return PointerGetDatum(NULL);
}

/* pgmq._group_removed() -> trigger: AFTER DELETE FOR EACH STATEMENT */
Datum
pgmq__group_removed(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	Work		work;

	/* An empty pop must take no locks (horizon.c) */
	if (data->tg_oldtable == NULL || tuplestore_tuple_count(data->tg_oldtable) == 0 ||
		!work_begin(&work, data, true))
		return PointerGetDatum(NULL);
	see_to_statement(&work, data, data->tg_oldtable, false);
	work_end_removal(&work);
	return PointerGetDatum(NULL);
}

/* The old and the new version of an updated message */
static bool
changes_of_row(const TriggerData *data, Change *old, Change *new)
{
	Reader		reader;
	bool		good;

	if (!reader_init(&reader, data->tg_relation, &TTSOpsHeapTuple))
		return false;
	ExecStoreHeapTuple(data->tg_trigtuple, reader.slot, false);
	good = make_change(&reader, old);
	ExecStoreHeapTuple(data->tg_newtuple, reader.slot, false);
	good &= make_change(&reader, new);
	ExecDropSingleTupleTableSlot(reader.slot);
	return good;
}

/* pgmq._group_retimed() -> trigger: AFTER UPDATE FOR EACH ROW, when vt is earlier than before */
Datum
pgmq__group_retimed(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	Work		work;
	Change		old;
	Change		new;

	if (data->tg_newtuple == NULL || !work_begin(&work, data, true))
		return PointerGetDatum(NULL);
	if (changes_of_row(data, &old, &new))
		group_retimed(&work, &old, &new);
	work_end(&work);
	return PointerGetDatum(NULL);
}

/* pgmq._group_moved() -> trigger: AFTER UPDATE FOR EACH ROW, when the group or msg_id has changed */
Datum
pgmq__group_moved(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	Work		work;
	Change		old;
	Change		new;

	if (data->tg_newtuple == NULL || !work_begin(&work, data, true))
		return PointerGetDatum(NULL);
	work.first_write = false;	/* the old version is ours, and may come back */
	if (changes_of_row(data, &old, &new) && compare_changes(&old, &new) != 0)
	{
		group_removed(&work, &old);
		group_sent(&work, &new, 1);
	}
	work_end_removal(&work);
	return PointerGetDatum(NULL);
}

/* pgmq._group_truncated() -> trigger: AFTER TRUNCATE FOR EACH STATEMENT */
Datum
pgmq__group_truncated(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	QueueName	name;

	if (!queue_of_trigger(data, &name))
		return PointerGetDatum(NULL);
	SPI_connect();
	notes_truncate(&name);
	SPI_finish();
	return PointerGetDatum(NULL);
}
