/*
 * front.c
 *	  SAFETY: the messages of a group are handed out in order, and to one consumer at a
 *	  time.
 *
 * A message is handed out only when every earlier one of its group is gone or handed
 * out by the same call before it: also when an earlier one is delayed, leased, locked,
 * being sent or being removed by an open transaction.  Earlier means a lower msg_id, of a
 * message whose send had returned when the call looked.  Notes have no part in this, but
 * for R4.
 *
 * R3	The first message is the mutex.  A reader locks it, then looks again whether it
 *		is the first in all transactions.  Its lock, then its lease, make it unavailable
 *		to others until it is gone, and they take nothing behind it.  The next ones are
 *		taken one by one, as far as each is available and can be locked at once.
 * R4	A message may come late: its msg_id was drawn before that of another message which
 *		somebody holds by now.  Its sender adds a note that says so (grouptrigger.c),
 *		and a reader looks at all of such a group before it takes anything.
 *
 * THE LOOK.  A snapshot does not tell what is on its way in a transaction that has not
 * committed, or on its way out in one that may be rolled back.  So looks go to the group
 * index with a dirty snapshot, which shows every version that is not dead for good, and
 * say of each what other open transactions do to it.  A version that dies between the
 * reading of its index page and the visit of its row counts as being changed
 * (changed_meanwhile).  Everybody writes first and looks then: index page and heap page
 * are each changed under the exclusive lock of their buffer, so of two sessions that do
 * this at the same time at least one sees the other.  Nobody waits for that.
 *
 * A look starts where starts.c says.  That is provable: below lies nothing, and never will.
 * What was written past the triggers may lie below, until the sweep finds it.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "group/group.h"
#include "queue/partition.h"
#include "base/relcheck.h"

/* A lock on a partition for a scan, and for locking rows: see the top of this file */
#define LEAF_LOCK RowShareLock

/* How many partitions are near */
#define NEAR_TABLES 2

/* ---- opening ---- */

/*
 * PARTITIONS.  A queue may be partitioned; then a group's messages are in several indexes, which are
 * walked side by side.  Each is opened when the walk has come as far as the lowest id that
 * can be in it: where partitions go by msg_id that is their bound, where they go by time it
 * is what partition.c knows of those to which nothing is sent any more.  A table without a
 * page is passed by; a sender has made its page before it looks.
 *
 * A walk must know of all partitions.  Who has sent to one had it locked, and whoever made
 * it announced it before letting go of that lock.  So it is enough to hear what was
 * announced before a walk.  Rows are moved to a new partition out of the default one,
 * under a lock that keeps us from opening that; so the default partition is opened first,
 * and then we ask again whether the list is still good.
 *
 * LOCKS ON PARTITIONS.  REINDEX CONCURRENTLY of a partitioned table locks all
 * partitions, SHARE, in the order of their oids, and lets writers pass at the
 * parent.  A call that waits for a writer's lock on one partition while it holds
 * another can deadlock with that.  So a scan takes LEAF_LOCK only, which does not
 * conflict with SHARE.  Writers' locks on several partitions
 * are taken in the order of the oids, before the first row is changed (route.c).
 * A plain REINDEX of a partition holds SHARE on it and waits for its indexes: so
 * these are closed before a writer's lock is taken.
 */

static bool
held_by_me(Oid relid, bool orstronger)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, RowExclusiveLock, orstronger);
}

/* Whether this transaction holds the lock of a writer */
static bool
has_written(Oid relid)
{
	return held_by_me(relid, true);
}

bool
front_columns(GroupTable *table)
{
	TupleDesc	desc = RelationGetDescr(table->rel);

	table->id_attno = relcheck_column(desc, "msg_id", INT8OID);
	table->read_ct_attno = relcheck_column(desc, "read_ct", INT4OID);
	table->vt_attno = relcheck_column(desc, "vt", TIMESTAMPTZOID);
	table->enqueued_attno = relcheck_column(desc, "enqueued_at", TIMESTAMPTZOID);
	table->headers_attno = relcheck_column(desc, "headers", JSONBOID);
	return table->id_attno && table->read_ct_attno && table->vt_attno &&
		table->enqueued_attno && table->headers_attno;
}

/* One that is open is the same table again */
static GroupTable *
add_table(GroupQueue *queue, Oid relid, Leaf *part, int64 lowest, int64 highest)
{
	GroupTable *table = NULL;
	ListCell   *lc;
	int			i = queue->nranges++;

	foreach(lc, queue->opened)
	{
		if (((GroupTable *) lfirst(lc))->relid == relid)
			table = lfirst(lc);
	}
	if (table == NULL)
		table = palloc0(sizeof(GroupTable));
	table->relid = relid;
	table->part = part;
	/* They come in order, or nearly so */
	for (; i > 0 && queue->ranges[i - 1].lowest > lowest; i--)
		queue->ranges[i] = queue->ranges[i - 1];
	queue->ranges[i] = (GroupRange) {lowest, highest, table};
	return table;
}

/* Add a table that is open, and may have any ids; false if it is of no kind we know. */
static bool
add_opened(GroupQueue *queue, Relation rel)
{
	GroupTable *table = add_table(queue, RelationGetRelid(rel), NULL, PG_INT64_MIN, PG_INT64_MAX);

	table->rel = rel;
	queue->opened = lappend(queue->opened, table);
	return relcheck_is_heap(rel) && front_columns(table);
}

/* Partitions that partition.c doesn't understand: all are opened */
static bool
add_all_tables(GroupQueue *queue)
{
	List	   *children = find_all_inheritors(RelationGetRelid(queue->queue), LEAF_LOCK, NULL);
	ListCell   *lc;
	bool		good = true;

	queue->ranges = palloc(sizeof(GroupRange) * list_length(children));
	foreach(lc, children)
	{
		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_PARTITIONED_TABLE)
			good &= add_opened(queue, table_open(lfirst_oid(lc), NoLock));
	}
	return good;
}

/* Which ids can be in a partition; false if there are none. */
static bool
range_of_leaf(Leaf *leaf, int64 *lowest, int64 *highest)
{
	*lowest = PG_INT64_MIN;
	*highest = PG_INT64_MAX;
	if (leaf->is_default)
		return true;
	if (leaf->parts->by_id)
	{
		*lowest = leaf->first;
		*highest = leaf->last;
	}
	if (!leaf_closed(leaf))
		return true;
	leaf_learn_ids(leaf, false);
	if (!leaf->ids_known)
		return true;
	*lowest = Max(*lowest, leaf->lowest_id);
	*highest = Min(*highest, leaf->highest_id);
	return leaf->has_ids;
}

/* List the partitions there are now; those that are open stay so. */
static void
list_tables(GroupQueue *queue)
{
	Partitions *parts = queue->parts;
	Leaf	   *leaf = &parts->leaves[parts->nleaves - 1];
	int			i;

	queue->ranges = palloc(sizeof(GroupRange) * Max(parts->nleaves, 1));
	queue->nranges = 0;
	/* The default partition is the last of the list and has to be the first here. */
	queue->has_default = parts->nleaves > 0 && leaf->is_default;
	if (queue->has_default)
		(void) add_table(queue, leaf->relid, leaf, PG_INT64_MIN, PG_INT64_MAX);
	for (i = 0; i < parts->nleaves; i++)
	{
		int64		lowest;
		int64		highest;

		leaf = &parts->leaves[i];
		if (!leaf->is_default && range_of_leaf(leaf, &lowest, &highest))
			(void) add_table(queue, leaf->relid, leaf, lowest, highest);
	}
}

/* Whether the list of partitions is that of this moment; if not it is made anew. */
static bool
tables_are_current(GroupQueue *queue)
{
	Partitions *old = queue->parts;

	if (old == NULL)
		return true;
	AcceptInvalidationMessages();
	if (old->valid)
		return true;
	queue->parts = horizon_partitions(&queue->name);
	if (queue->parts == NULL)
		elog(ERROR, "queue \"%s\" is not partitioned any more", queue->name.canonical);
	list_tables(queue);
	return partitions_same(old, queue->parts);
}

/* The tables that hold the messages; false if one of them is of no kind we know */
static bool
find_tables(GroupQueue *queue)
{
	/* relhassubclass stays when the last child has gone */
	if (queue->queue->rd_rel->relkind == RELKIND_RELATION &&
		(!queue->queue->rd_rel->relhassubclass ||
		 find_inheritance_children(RelationGetRelid(queue->queue), NoLock) == NIL))
	{
		queue->ranges = palloc(sizeof(GroupRange));
		return add_opened(queue, queue->queue);
	}
	if (queue->queue->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	queue->parts = horizon_partitions(&queue->name);
	if (queue->parts == NULL || !queue->parts->looks)
	{
		queue->parts = NULL;
		return add_all_tables(queue);
	}
	list_tables(queue);
	return true;
}

/* Of our make, not of an older version's */
static bool
is_group_index(Relation table, Relation index)
{
	const IndexKey keys[] = {
		{0, TEXTOID, C_COLLATION_OID},
		{relcheck_column(RelationGetDescr(table), "msg_id", INT8OID), INT8OID, InvalidOid}
	};

	/* The index of a partition has the expression of the whole */
	return relcheck_index(index, RelationGetRelid(table), keys, lengthof(keys)) &&
		relcheck_index_is_whole(index) &&
		(index->rd_rel->relispartition || relcheck_index_expression(index, table, GROUP_KEY));
}

/* The part of the group index that is on a table; which takes long to find out. */
static Oid
leaf_index_oid(GroupQueue *queue, GroupTable *table)
{
	Oid			whole = RelationGetRelid(queue->fifo);
	Oid			oid;

	if (table->part && table->part->group_index_of == whole && OidIsValid(table->part->group_index))
		return table->part->group_index;
	oid = relcheck_index_of_partition(table->rel, whole);
	if (table->part)
	{
		table->part->group_index_of = whole;
		table->part->group_index = oid;
	}
	return oid;
}

/* How often what the caches say is asked for again */
#define MOST_RETRIES 10

/*
 * When an index is replaced (REINDEX CONCURRENTLY) the new one gets the name of the
 * old one, and becomes valid, when the old one becomes invalid.  The catalogs say so
 * a moment before the caches are told.  So where the caches lead to an index that is
 * not valid, they are emptied.
 */
static void
empty_caches(void)
{
	CHECK_FOR_INTERRUPTS();
	InvalidateSystemCaches();
}

/*
 * Open the index of a table; false if the table is no partition any more.  The
 * queue's index is valid, so each of its tables has a valid one.
 */
static bool
open_leaf_index(GroupQueue *queue, GroupTable *table)
{
	int			tries;

	/* It was valid a moment ago.  If it has been replaced since it is kept up until we let go of the table. */
	if (table->rel == queue->queue)
	{
		table->index = index_open(RelationGetRelid(queue->fifo), AccessShareLock);
		return true;
	}
	for (tries = 0; tries < MOST_RETRIES; tries++)
	{
		Oid			oid = leaf_index_oid(queue, table);

		table->index = OidIsValid(oid) ? try_index_open(oid, AccessShareLock) : NULL;
		if (table->index != NULL && is_group_index(table->rel, table->index))
			return true;
		if (table->index != NULL)
			index_close(table->index, AccessShareLock);
		table->index = NULL;
		if (!table->rel->rd_rel->relispartition)
			return false;
		if (table->part)
			table->part->group_index = InvalidOid;
		empty_caches();
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no valid group index", RelationGetRelationName(table->rel)),
			 errhint("Drop the queue's group index, and call pgmq.create_fifo_index().")));
	return false;
}

/* Open a table, with its index if that is used; false if it has gone. */
bool
front_open_table(GroupQueue *queue, GroupTable *table)
{
	if (table->rel == NULL)
	{
		/* Somebody may delete from the partition itself */
		queue->locked_before |= has_written(table->relid);
		table->rel = try_table_open(table->relid, LEAF_LOCK);
		if (table->rel == NULL)
			return false;
		queue->opened = lappend(queue->opened, table);
		if (!relcheck_is_heap(table->rel))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not an ordinary table of the access method heap",
							RelationGetRelationName(table->rel)),
					 errhint("Messages of groups cannot be read from it. Move them to a table that is.")));
		if (!front_columns(table))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("table \"%s\" does not have the columns of a queue",
							RelationGetRelationName(table->rel))));
	}
	return queue->fifo == NULL || table->index != NULL || open_leaf_index(queue, table);
}

/*
 * Close a table again that was opened only for a look, so that it is not locked until
 * the transaction ends.
 */
void
front_close_table(GroupQueue *queue, GroupTable *table)
{
	if (table->rel == queue->queue || table->lock_slot != NULL)
		return;
	if (table->index)
		index_close(table->index, AccessShareLock);
	table_close(table->rel, LEAF_LOCK);
	table->rel = table->index = NULL;
	queue->opened = list_delete_ptr(queue->opened, table);
}

/*
 * Open all tables, so that no rows are moved among them and a statement that is
 * planned now knows all.  The locks are those of a writer, and are kept unless
 * group_close() is told otherwise.
 */
void
front_open_all(GroupQueue *queue)
{
	Oid			relid = RelationGetRelid(queue->queue);
	int			i;

	do
	{
		for (i = 0; i < queue->nranges; i++)
			(void) front_open_table(queue, queue->ranges[i].table);
		front_close_indexes(queue);
		queue->locked = list_concat(queue->locked, find_all_inheritors(relid, RowExclusiveLock, NULL));
		CHECK_FOR_INTERRUPTS();
	} while (!tables_are_current(queue));
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

/* The group index; NULL if there is none that can be used */
static Relation
open_fifo(GroupQueue *queue)
{
	int			tries;

	for (tries = 0; tries < MOST_RETRIES; tries++)
	{
		Oid			oid = name_index_relid(&queue->name, QUEUE_TABLE, GROUP_INDEX_SUFFIX);
		char		relkind = OidIsValid(oid) ? get_rel_relkind(oid) : '\0';
		Relation	index = NULL;
		bool		valid;

		if (relkind == RELKIND_INDEX || relkind == RELKIND_PARTITIONED_INDEX)
			index = try_index_open(oid, AccessShareLock);
		if (index == NULL && !OidIsValid(oid))
			break;
		if (index != NULL && is_group_index(queue->queue, index))
			return index;
		valid = index != NULL && index->rd_index->indisvalid;
		if (index != NULL)
			index_close(index, AccessShareLock);
		if (valid)
			break;
		empty_caches();
	}
	return NULL;
}

/* Whether it is a table of notes, and not one of the users' that has its name */
static bool
holds_notes(Relation rel)
{
	static const Oid types[NOTE_COLUMNS] = {
		INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID, BOOLOID, INT4OID
	};
	static const char *const names[NOTE_COLUMNS] = {
		"msg_id", "enqueued_at", "vt", "grp", "head", "late", "tries"
	};
	int			i;

	if (!relcheck_is_heap(rel))
		return false;
	for (i = 0; i < NOTE_COLUMNS; i++)
	{
		if (relcheck_column(RelationGetDescr(rel), names[i], types[i]) != i + 1)
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
	queue->notes = notes;
	notes_find_indexes(queue);
	return notes;
}

/* Close the indexes of all tables.  A scan that begins later opens them again. */
void
front_close_indexes(GroupQueue *queue)
{
	ListCell   *lc;

	foreach(lc, queue->opened)
	{
		GroupTable *table = lfirst(lc);

		if (table->index)
			index_close(table->index, AccessShareLock);
		table->index = NULL;
	}
}

/*
 * From here on the queue has neither group index nor notes.  Who reads it without
 * them does not know the keys of groups, and could write no note.
 */
void
group_forget_index(GroupQueue *queue)
{
	front_close_indexes(queue);
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
	if (!find_tables(queue))
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
	if (queue->fifo == NULL && for_reading)
		return true;
	queue->notes = open_notes(queue);
	if (queue->notes == NULL)
	{
		group_forget_index(queue);
		return true;
	}
	starts_attach();
	sweep_attach();
	return true;
}

/* Locks that are not kept go, unless the transaction has had them before. */
void
group_close(GroupQueue *queue, bool keep_lock)
{
	Oid			notes = queue->notes ? RelationGetRelid(queue->notes) : InvalidOid;
	Oid			relid = RelationGetRelid(queue->queue);
	ListCell   *lc;

	group_forget_index(queue);
	/* Who has looked into the notes has let go of them already (horizon.c) */
	if (!keep_lock && OidIsValid(notes) && !queue->notes_locked_before && has_written(notes))
		UnlockRelationOid(notes, RowExclusiveLock);
	foreach(lc, queue->opened)
	{
		GroupTable *table = lfirst(lc);

		if (table->lock_slot)
			ExecDropSingleTupleTableSlot(table->lock_slot);
		if (table->rel != queue->queue)
			relation_close(table->rel, keep_lock ? NoLock : LEAF_LOCK);
	}
	foreach(lc, queue->locked)
	{
		/* It does not lock the queue's table itself */
		if (!keep_lock && lfirst_oid(lc) != relid)
			UnlockRelationOid(lfirst_oid(lc), RowExclusiveLock);
	}
	relation_close(queue->queue, NoLock);
	/* Asking for the partitions has locked the queue again */
	while (!keep_lock && held_by_me(relid, false))
		UnlockRelationOid(relid, RowExclusiveLock);
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

	if (!TTS_IS_BUFFERTUPLE(slot))
		elog(ERROR, "row does not come from a table of the access method heap");
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
front_peek(GroupQueue *queue, GroupTable *table, TupleTableSlot *slot,
		   const SnapshotData *dirty, Peeked *peeked)
{
	HeapTupleHeaderData header;
	TransactionId changer;
	bool		claimed;
	bool		isnull[4];
	TimestampTz enqueued_at;

	peeked->msg_id = DatumGetInt64(slot_getattr(slot, table->id_attno, &isnull[0]));
	peeked->vt = DatumGetTimestampTz(slot_getattr(slot, table->vt_attno, &isnull[1]));
	enqueued_at = DatumGetTimestampTz(slot_getattr(slot, table->enqueued_attno, &isnull[2]));
	peeked->read_ct = DatumGetInt32(slot_getattr(slot, table->read_ct_attno, &isnull[3]));
	peeked->fresh = !isnull[1] && !isnull[2] && peeked->vt == enqueued_at;
	if (isnull[1])
		peeked->vt = DT_NOEND;
	if (isnull[3])
		peeked->read_ct = 0;
	peeked->table = table;
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
		!table_tuple_satisfies_snapshot(table->rel, slot, queue->fixed);
}

/* One index of a walk, with the entry that it stands at */
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
	GroupRange *ranges;			/* of the queue, when the walk began */
	int			nranges;
	int			next;			/* the next one */
	int			first;			/* of those whose ids are known the first that is walked */
	List	   *leaves;			/* that are walked: of LeafScan */
};

/* Whether a dead version was replaced or deleted after a snapshot was taken, by another transaction */
static bool
slot_ended_since(TupleTableSlot *slot, Snapshot before)
{
	HeapTupleHeaderData header;
	TransactionId xid;

	copy_header(slot, &header);
	xid = committed_changer(&header);
	return TransactionIdIsValid(xid) && !TransactionIdIsCurrentTransactionId(xid) &&
		XidInMVCCSnapshot(xid, before);
}

/*
 * Whether a dead version that an index entry leads to is one that ended since the
 * snapshot.  The first of a chain tells: its successors have ended later.
 */
bool
entry_ended_since(IndexScanDesc scan, Snapshot before, TupleTableSlot *slot)
{
	Snapshot	snapshot = scan->xs_snapshot;
	bool		found;

	if (scan->kill_prior_tuple)
		return false;			/* it was dead to everybody already */
	scan->xs_snapshot = SnapshotAny;
	found = index_fetch_heap(scan, slot);
	scan->xs_snapshot = snapshot;
	scan->xs_heap_continue = scan->kill_prior_tuple = false;
	return found && slot_ended_since(slot, before);
}

/*
 * An index page is read at once and its rows are visited one by one.  If a
 * message is changed in between, its old version is dead by the time of the
 * visit, and the entry of its new one is not among those we have read.  The
 * snapshot from before the walk still sees the old one: then it is as if the
 * change were still under way.  So it is if the snapshot does not see it
 * because it was being sent then: it may have been sent and changed since.
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
	/* What the current command has changed is as it left it */
	copy_header(leaf->slot, &header);
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

/* Walk one table more. */
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

/* The walk that stands at the lowest id, or NULL */
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

/* The same when all tables are being walked that may have a lower one */
static LeafScan *
walk_on(GroupScan *scan)
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

/* Walk a group's messages in msg_id order, in every version that is not dead for good. */
GroupScan *
front_begin(GroupQueue *queue, const text *key, int64 from)
{
	GroupScan  *scan = palloc0(sizeof(GroupScan));

	scan->queue = queue;
	scan->from = from;
	/* The default partition's lock keeps rows where they are; see the top of this file. */
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (queue->has_default)
			(void) front_open_table(queue, queue->ranges[0].table);
	} while (!tables_are_current(queue));
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
 * last few are walked: for who would like to find one, but need not.
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
	LeafScan   *lowest = walk_on(scan);

	if (lowest == NULL)
		return false;
	*peeked = lowest->peeked;
	leaf_next(scan, lowest);
	return true;
}

/*
 * The next message, all of its versions taken together: anything that is said
 * of one of them is said of it, and its vt is the earliest.  It is settled if there
 * is a version that nobody is at work on: locks of rows do not count.
 */
bool
front_next_message(GroupScan *scan, Peeked *peeked)
{
	Peeked		version;
	LeafScan   *next;

	if (!front_next(scan, peeked))
		return false;
	peeked->settled = !peeked_is_busy(peeked);
	while ((next = walk_on(scan)) != NULL && next->peeked.msg_id == peeked->msg_id &&
		   front_next(scan, &version))
	{
		peeked->settled |= !peeked_is_busy(&version);
		peeked->fresh |= version.fresh;
		peeked->vt = Min(peeked->vt, version.vt);
		peeked->read_ct = Max(peeked->read_ct, version.read_ct);
		peeked->arriving |= version.arriving;
		peeked->leaving |= version.leaving;
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

/* How many messages that open transactions are at work on a look goes past */
#define MOST_PASSED 32

/*
 * Whether there is an earlier message of the group that is settled: whoever removes it
 * will look at the group after that.  Not all partitions are searched for one.
 * "doubtful": it may have been handed out, and others behind it.
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
		follows = peeked.settled;
		*doubtful = peeked.changing || peeked.locked || peeked_is_held(&peeked, now);
	}
	front_end(scan);
	return follows;
}

/*
 * The look of a claimer (notes.c), after which it writes a verdict.  Messages that open
 * transactions are sending, removing or changing may be there in the end or not: the
 * look goes past them, and the verdict is the earliest time of all versions that it
 * has come by, up to the first message that is settled.
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
	while (!peeked.settled && verdict->until > now && front_next_message(scan, &peeked))
	{
		if (passed++ == 0)
		{
			verdict->head = peeked.msg_id;
			verdict->found = true;
			verdict->unseen = peeked.unseen && peeked.settled && !peeked.locked;
		}
		verdict->until = Min(verdict->until, peeked.fresh || passed > MOST_PASSED ? DT_NOBEGIN : peeked.vt);
	}
	front_end(scan);
	if (verdict->found)
		starts_advance(&start, verdict->head, ours);
}

/*
 * Whether another consumer holds messages behind the first one of a group, which
 * has never been handed out: then it came late (grouptrigger.c).  Until when, or
 * DT_NOBEGIN: an open transaction is at work on them.
 */
bool
front_is_held_behind(GroupQueue *queue, const text *key, const Peeked *first,
					 TimestampTz moment, TimestampTz *until)
{
	GroupScan  *scan;
	Peeked		peeked;
	bool		busy = false;
	bool		held = false;

	/* One that was handed out before was given back, by hand or by time */
	if (first->read_ct > 0)
		return false;
	scan = front_begin(queue, key, first->msg_id + 1);
	while (!busy && !held && front_next(scan, &peeked))
	{
		busy = peeked.leaving || peeked.changing || peeked.locked;
		held = !busy && peeked_is_held(&peeked, moment);
	}
	front_end(scan);
	if (busy || held)
		*until = busy || peeked.arriving ? DT_NOBEGIN : peeked.vt;
	return busy || held;
}

/* Lock this version of a message, if that can be done at once and it is still the newest. */
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
