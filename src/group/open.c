/*
 * open.c
 *	  Open a queue for a look at its groups: its tables, its group index, its notes.
 *
 * PARTITIONS.  In a partitioned queue a group's messages are in several indexes, which are scanned
 * side by side.  Each is opened when the scan has reached the lowest id that can be in it.  By
 * msg_id that is the partition's bound.  By time it is what leaf.c knows of closed partitions.  A
 * table without a page is skipped: a sender has made its page before it looks.
 *
 * A scan must know of all partitions.  A session that has sent to a partition had it locked, and its
 * maker sent the invalidation before it released its lock.  So it is enough to accept invalidations
 * before a scan.  Rows are moved to a new partition out of the default one, under a lock that keeps
 * us from opening that.  So the default partition is opened first, and then we check that the list
 * is still valid.
 *
 * LOCKS ON PARTITIONS.  REINDEX CONCURRENTLY of a partitioned table locks all partitions, SHARE, in
 * the order of their oids, and lets writers pass at the parent.  A call that waits for a writer's
 * lock on one partition while it holds that on another can deadlock with it.  So a scan takes
 * LEAF_LOCK only, which does not conflict with SHARE.  Writers' locks on several partitions are
 * taken in the order of the oids, before the first row is changed (route.c).  A plain REINDEX of a
 * partition holds SHARE on it and waits for its indexes: so these are closed before a writer's lock
 * is taken.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "group/group.h"
#include "group/internal.h"

/* A lock on a partition for a scan, and for locking rows: see the top of this file */
#define LEAF_LOCK RowShareLock

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

/* How often the caches are asked again */
#define MOST_RETRIES 10

/*
 * The columns and indexes of a table of the queue, which is open; false if it is not of a known kind.
 *
 * REINDEX CONCURRENTLY replaces an index.  The new one becomes valid at the moment when the old one becomes
 * invalid.  The catalogs say so a moment before the caches are told.  So if the caches lead to an index that is
 * not valid, and to no other, they are emptied.
 */
static bool
describe(GroupQueue *queue, Relation rel, Leaf *part, Place *place)
{
	Description unknown = {0};
	int			tries;

	for (tries = 0;; tries++)
	{
		if (rel == queue->queue)
			(void) queue_describe(&queue->name, QUEUE_TABLE, rel, place);
		else
		{
			Description *description = part ? &part->description : &unknown;

			(void) place_remember(rel, description);
			*place = description->place;
		}
		if (OidIsValid(place->group_index) || !place->reindexing || tries == MOST_RETRIES)
			break;
		CHECK_FOR_INTERRUPTS();
		InvalidateSystemCaches();
	}
	return place->id_attno && place->read_ct_attno && place->vt_attno && place->enqueued_attno && place->headers_attno;
}

/* A table that is open already is used again */
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
	/* They are in order, or nearly so */
	for (; i > 0 && queue->ranges[i - 1].lowest > lowest; i--)
		queue->ranges[i] = queue->ranges[i - 1];
	queue->ranges[i] = (GroupRange) {lowest, highest, table};
	return table;
}

/* Add a table that is open, and may have any ids; false if it is not of a known kind. */
static bool
add_opened(GroupQueue *queue, Relation rel)
{
	GroupTable *table = add_table(queue, RelationGetRelid(rel), NULL, PG_INT64_MIN, PG_INT64_MAX);

	table->rel = rel;
	queue->opened = lappend(queue->opened, table);
	return relcheck_is_heap(rel) && describe(queue, rel, NULL, &table->place);
}

/* Partitions of a kind that partition.c does not know: all are opened */
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

/* List the current partitions; those that are open stay open. */
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

/* Whether the list of partitions is the current one; if not it is made anew. */
bool
front_is_current(GroupQueue *queue)
{
	Partitions *old = queue->parts;

	if (old == NULL)
		return true;
	AcceptInvalidationMessages();
	if (partitions_valid(old))
		return true;
	queue->parts = horizon_partitions(&queue->name);
	if (queue->parts == NULL)
		elog(ERROR, "queue \"%s\" is not partitioned any more", queue->name.canonical);
	list_tables(queue);
	return partitions_same(old, queue->parts);
}

/* The tables that messages are in; false if one of them is not of a known kind */
static bool
find_tables(GroupQueue *queue)
{
	/* relhassubclass stays set when the last child is gone */
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

/* The group index of the queue, in SQL; NULL if there is no valid one of ours */
const char *
group_index(const QueueName *name)
{
	Relation	queue = queue_open_table(name, QUEUE_TABLE, AccessShareLock, NULL);
	Place		place = {0};

	if (queue != NULL)
	{
		(void) queue_describe(name, QUEUE_TABLE, queue, &place);
		relation_close(queue, AccessShareLock);
	}
	return OidIsValid(place.group_index) ?
		psprintf(PGMQ_SCHEMA ".%s", quote_identifier(get_rel_name(place.group_index))) : NULL;
}

/*
 * Open the index of a table; false if the table is no partition any more.  The
 * queue's index is valid, so each of its tables has a valid one.  If it was
 * replaced since, it is maintained until we release the table.
 */
static bool
open_index(GroupQueue *queue, GroupTable *table)
{
	if (!OidIsValid(table->place.group_index))
		(void) describe(queue, table->rel, table->part, &table->place);
	if (OidIsValid(table->place.group_index))
	{
		table->index = index_open(table->place.group_index, AccessShareLock);
		return true;
	}
	if (table->rel != queue->queue && !table->rel->rd_rel->relispartition)
		return false;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no valid group index", RelationGetRelationName(table->rel)),
			 errhint("Drop the queue's group index, and call pgmq.create_fifo_index().")));
	return false;
}

/* Open a table, with its index if that is used; false if it is gone. */
bool
front_open_table(GroupQueue *queue, GroupTable *table)
{
	if (table->rel == NULL)
	{
		/* This transaction may have deleted from the partition itself */
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
					 errhint("Grouped reads need an ordinary table. Move the messages to one.")));
		if (!describe(queue, table->rel, table->part, &table->place))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("table \"%s\" does not have the columns of a queue",
							RelationGetRelationName(table->rel))));
	}
	return !queue->indexed || table->index != NULL || open_index(queue, table);
}

/*
 * Close a table that was opened only for a look, so that it does not stay locked
 * until the transaction ends.
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
 * Open all tables, so that no rows are moved between them and a statement that
 * is planned now knows all of them.  The locks are those of a writer, and are
 * kept unless group_close() is told otherwise.
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
	} while (!front_is_current(queue));
}

/*
 * Lock the partitions in which rows are locked, before the first of several statements that
 * change these.  Closes all indexes.
 */
void
front_lock_leaves(GroupQueue *queue)
{
	Leaf	  **leaves = palloc(sizeof(Leaf *) * (list_length(queue->opened) + 1));
	int			count = 0;
	ListCell   *lc;

	front_close_indexes(queue);
	foreach(lc, queue->opened)
	{
		const GroupTable *table = lfirst(lc);

		if (table->part != NULL && table->lock_slot != NULL)
			leaves[count++] = table->part;
	}
	leaves_lock(leaves, count);
	pfree(leaves);
}

/*
 * Whether every change of the queue reaches its notes.  The triggers of a queue
 * that was renamed by hand still write to the notes of its old name.
 */
static bool
has_triggers(Relation rel, const QueueName *name)
{
	static const char *const needed[] = {
		TRIGGER_SENT, TRIGGER_REMOVED, TRIGGER_UPDATED
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

/* Whether it is a table of notes, and not a user's table with that name */
static bool
holds_notes(Relation rel)
{
	static const Oid types[NOTE_COLUMNS] = {
		INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID, BOOLOID
	};
	static const char *const names[NOTE_COLUMNS] = {
		"msg_id", "enqueued_at", "vt", "grp", "head", "late"
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
	Oid			oid = queue_relid(name, NOTES_TABLE);
	Relation	notes = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : NULL;
	bool		has = notes != NULL && holds_notes(notes);

	if (notes)
		relation_close(notes, AccessShareLock);
	return has;
}

/* NULL if there are none */
static Relation
open_notes(GroupQueue *queue)
{
	Relation	notes = queue_open_table(&queue->name, NOTES_TABLE, RowExclusiveLock, &queue->notes_locked_before);
	Place		place;

	if (notes == NULL)
		return NULL;
	if (!holds_notes(notes))
	{
		relation_close(notes, NoLock);
		return NULL;
	}
	(void) queue_describe(&queue->name, NOTES_TABLE, notes, &place);
	queue->key = ((uint64) MyDatabaseId << 32) | RelationFileNumber(notes);
	queue->head_index = place.head_index;
	queue->late_index = place.late_index;
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
 * From here on the queue counts as one without group index and notes.  A read
 * without the index does not know the keys of groups, and could not write a
 * note.
 */
void
group_forget_index(GroupQueue *queue)
{
	front_close_indexes(queue);
	if (queue->notes)
		table_close(queue->notes, NoLock);
	queue->notes = NULL;
	queue->indexed = false;
}

/*
 * Open a queue for a look at its groups.  False if no look into it is possible.
 * Locks are taken in one order: the queue's table, then its notes.
 */
bool
group_open(GroupQueue *queue, const QueueName *name, bool for_reading)
{
	Place		place;

	memset(queue, 0, sizeof(*queue));
	queue->name = *name;
	queue->queue = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, &queue->locked_before);
	if (queue->queue == NULL)
		return false;
	if (!find_tables(queue))
	{
		group_close(queue, true);
		return false;
	}
	if (for_reading && IsolationUsesXactSnapshot())
		queue->fixed = GetTransactionSnapshot();
	queue->policed = check_enable_rls(RelationGetRelid(queue->queue), InvalidOid, true) == RLS_ENABLED;
	if (for_reading && (queue->policed || !has_triggers(queue->queue, name)))
		return true;
	queue->indexed = describe(queue, queue->queue, NULL, &place) && OidIsValid(place.group_index);
	if (!queue->indexed && for_reading)
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

/* Release locks that are not to be kept, unless the transaction had them before. */
void
group_close(GroupQueue *queue, bool keep_lock)
{
	Oid			notes = queue->notes ? RelationGetRelid(queue->notes) : InvalidOid;
	Oid			relid = RelationGetRelid(queue->queue);
	ListCell   *lc;

	group_forget_index(queue);
	/* A look into the notes has released them already (horizon.c) */
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
		/* The queue's own table was not locked by it */
		if (!keep_lock && lfirst_oid(lc) != relid)
			UnlockRelationOid(lfirst_oid(lc), RowExclusiveLock);
	}
	relation_close(queue->queue, NoLock);
	/* The look-up of partitions has locked the queue again */
	while (!keep_lock && held_by_me(relid, false))
		UnlockRelationOid(relid, RowExclusiveLock);
}
