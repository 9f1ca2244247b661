/*
 * grouptrigger.c
 *	  The triggers on a queue's table that write its notes.
 *
 * A trigger runs after the change: the message is in the index, or its row is
 * marked as deleted.  Only then it looks at the group (front.c says why).  It
 * neither locks messages nor waits.
 *
 * A sender follows R1 of notes.c, a remover and a re-timer R2.
 *
 * MESSAGES THAT COME LATE.  A msg_id is drawn before the message is in the
 * index.  In between, another message with a higher msg_id can be sent and be
 * handed out.  The sender of the lower one finds it, held by a consumer, and
 * adds a late note.  While there is a late note, readers look at all of the
 * group before they take its first message.  So no two of them hold the group.
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

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "wait/wait.h"
#include "group/internal.h"

PG_FUNCTION_INFO_V1(pgmq__group_sent);
PG_FUNCTION_INFO_V1(pgmq__group_removed);
PG_FUNCTION_INFO_V1(pgmq__group_updated);
PG_FUNCTION_INFO_V1(pgmq__group_truncated);

/* How many messages of open transactions a sender skips at most when it checks for coming late */
#define MOST_PASSED 32

/* A message that was sent or removed */
typedef struct Change
{
	text	   *key;
	int64		msg_id;
	TimestampTz vt;				/* DT_NOBEGIN of a fresh one */
	TimestampTz enqueued_at;
} Change;

/* The state of one call of a trigger */
typedef struct Work
{
	GroupQueue	queue;
	TimestampTz now;
	NoteChanges notes;
	int			ready;			/* how many groups have an available message now */
} Work;

/* ---- messages to changes ---- */

/* Reads the messages of a table or a transition table */
typedef struct Reader
{
	Place		columns;
	TupleTableSlot *slot;
} Reader;

static bool
reader_init(Reader *reader, Relation rel, const TupleTableSlotOps *ops)
{
	if (!place_columns(rel, &reader->columns) || !reader->columns.headers_attno)
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

/* The message in the reader's slot; false if the row is no message */
static bool
make_change(Reader *reader, Change *change)
{
	TupleTableSlot *slot = reader->slot;
	const Place *columns = &reader->columns;
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
	return pg_cmp_s64(change_a->msg_id, change_b->msg_id);
}

/* How many messages of a statement are handled at a time: it may be a COPY of millions */
#define MESSAGES_AT_A_TIME 5000

/*
 * The next messages of a transition table, sorted; none at its end.  They are
 * in a context that is reset before the next batch.  The slot keeps its last
 * row for longer, so it must not be filled in that context.  A row from disk is
 * allocated in the current context, and freed when the slot gets the next row.
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
 * Whether there is no usable group index: it is being made, or was dropped.
 * Then each change leaves a note, which is never wrong.
 */
static bool
is_blind(const Work *work)
{
	return !work->queue.indexed;
}

/* A consumer may hold a message after ours: see "late" above. */
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
		/* No other session can hold what this transaction has sent; what it has read, it holds itself */
		if (peeked.mine && !peeked_is_held(&peeked, work->now))
			continue;
		if (peeked.changing || peeked.locked ||
			peeked_is_held(&peeked, work->now) ||
			(peeked.arriving && ++passed > MOST_PASSED))
			late = true;
		else if (!peeked.arriving)
			break;				/* messages after one that is not held were not handed out */
	}
	front_end(scan);
	return late;
}

/* R1: these messages of one group were inserted. */
static void
group_sent(Work *work, const Change *first, int count)
{
	bool		doubtful;
	bool		follows;
	bool		late = true;

	starts_lower(&work->queue, first->key, first->msg_id, false);
	if (!is_blind(work))
	{
		follows = front_follows(&work->queue, first->key, first->msg_id, &doubtful);
		late = (!follows || doubtful) && comes_late(work, first, count);
		if (follows && !late)
			return;
	}
	notes_add(&work->notes, first->key, first->vt, first->msg_id, late);
}

/*
 * R2: a message of the group was deleted, and perhaps others after it in the
 * same statement, or it became visible earlier.  If it was not the first one of
 * its group, there is usually nothing to do.  The exception is a first message
 * that came late and has waited for this.
 */
static void
group_changed(Work *work, const Change *lowest)
{
	const text *key = lowest->key;
	bool		doubtful;
	bool		follows;
	Claim		claim;
	Verdict		verdict;

	if (is_blind(work))
	{
		notes_add(&work->notes, key, DT_NOBEGIN, lowest->msg_id, false);
		return;
	}
	follows = front_follows(&work->queue, key, lowest->msg_id, &doubtful);
	if (follows && !notes_group_is_late(&work->queue, key))
		return;
	notes_claim(&work->queue, key, NULL, &claim);
	claim.late |= follows;
	front_judge(&work->queue, key, true, &verdict);
	if (claim.late)
		verdict.until = DT_NOBEGIN;
	work->ready += verdict.found && verdict.until <= work->now;
	if (!verdict.found)
		notes_drop(&work->notes, &claim);
	else
		notes_replace(&work->notes, &claim, key, verdict.until, verdict.head, claim.late);
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
 * any role may make a trigger of ours on its own table, with any name as the
 * argument.
 */
static bool
queue_of_trigger(const TriggerData *data, QueueName *name)
{
	Oid			queue;

	name_canonical(cstring_to_text(data->tg_trigger->tgargs[0]), name);
	queue = queue_relid(name, QUEUE_TABLE);
	return RelationGetRelid(data->tg_relation) == queue ||
		(data->tg_relation->rd_rel->relispartition &&
		 list_member_oid(get_partition_ancestors(RelationGetRelid(data->tg_relation)), queue));
}

/* False if there are no notes to write: create_fifo_index() writes them all. */
static bool
work_begin(Work *work, const TriggerData *data)
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
	return true;
}

static void
write_notes(Work *work)
{
	SPI_connect();
	notes_write(&work->queue, &work->notes);
	SPI_finish();
}

/* After a delete, sessions that wait for groups may take the next messages. */
static void
work_end(Work *work)
{
	write_notes(work);
	group_close(&work->queue, true);
	if (work->ready > 0)
		effect_groups(&work->queue.name, work->ready);
}

/*
 * A row that was written by hand may be in a closed partition.  Then no session may
 * trust what it knows of partitions.  False if a look into the queue is not
 * possible any more, because a table of another kind was attached.
 */
static bool
handle_backdated(Work *work, const TriggerData *data, const Change *changes, int count)
{
	const Partitions *parts = work->queue.parts;
	bool		backdated = false;
	int			i;

	for (i = 0; i < count && parts != NULL; i++)
		backdated |= parts->by_id ? changes[i].msg_id < parts->sent.fresh :
			changes[i].enqueued_at < parts->sent.due;
	if (!backdated)
		return true;
	horizon_invalidate(&work->queue.name);
	group_close(&work->queue, true);
	return work_begin(work, data);
}

/* How many of the changes are of the same group as the first one */
static int
count_of_group(const Change *changes, int count)
{
	int			n = 1;

	while (n < count && front_compare_keys(changes[0].key, changes[n].key) == 0)
		n++;
	return n;
}

/* Handle all messages of a statement, so many at a time, group by group; false if the queue is closed already */
static bool
handle_statement(Work *work, const TriggerData *data, Tuplestorestate *store, bool sent)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgmq changes", ALLOCSET_DEFAULT_SIZES);
	Reader		reader;
	Change	   *changes;
	int			count;
	int			i;
	bool		open = true;

	if (!reader_init(&reader, data->tg_relation, &TTSOpsMinimalTuple))
		return true;
	tuplestore_select_read_pointer(store, 0);
	tuplestore_rescan(store);
	for (;;)
	{
		changes = next_changes(&reader, store, context, &count);
		if (count == 0)
			break;
		open = !sent || handle_backdated(work, data, changes, count);
		if (!open)
			break;
		for (i = 0; i < count; i += count_of_group(&changes[i], count - i))
		{
			if (sent)
				group_sent(work, &changes[i], count_of_group(&changes[i], count - i));
			else
				group_changed(work, &changes[i]);
		}
		if (count < MESSAGES_AT_A_TIME)
			break;
		write_notes(work);
		MemoryContextReset(context);
	}
	ExecDropSingleTupleTableSlot(reader.slot);
	return open;
}

/* pgmq._group_sent() -> trigger: AFTER INSERT FOR EACH STATEMENT */
Datum
pgmq__group_sent(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	Work		work;

	if (data->tg_newtable == NULL || tuplestore_tuple_count(data->tg_newtable) == 0 ||
		!work_begin(&work, data))
		return PointerGetDatum(NULL);
	if (handle_statement(&work, data, data->tg_newtable, true))
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
		!work_begin(&work, data))
		return PointerGetDatum(NULL);
	(void) handle_statement(&work, data, data->tg_oldtable, false);
	work_end(&work);
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

/* pgmq._group_updated() -> trigger: AFTER UPDATE FOR EACH ROW, when vt is earlier, or the group or msg_id has changed */
Datum
pgmq__group_updated(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	Work		work;
	Change		old;
	Change		new;

	if (data->tg_newtuple == NULL || !work_begin(&work, data))
		return PointerGetDatum(NULL);
	if (changes_of_row(data, &old, &new))
	{
		group_changed(&work, &old);
		if (compare_changes(&old, &new) != 0)
			group_sent(&work, &new, 1);
		else
			work.ready = 0;		/* set_vt() itself tells waiting sessions */
	}
	work_end(&work);
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
