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

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
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
	return relcheck_is_heap(rel) && front_columns(table);
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

/* Whether it is our index, not that of the PL/pgSQL extension */
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

/* The group index of the queue, in SQL; NULL if there is no valid one of ours */
const char *
group_index(const QueueName *name)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	Oid			oid = queue_index_relid(name, QUEUE_TABLE, GROUP_INDEX_SUFFIX);
	char		relkind = OidIsValid(oid) ? get_rel_relkind(oid) : '\0';
	Relation	queue = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	Relation	index = NULL;
	bool		ours;

	if (queue != NULL && (relkind == RELKIND_INDEX || relkind == RELKIND_PARTITIONED_INDEX))
		index = try_index_open(oid, AccessShareLock);
	ours = index != NULL && is_group_index(queue, index);
	if (index)
		index_close(index, AccessShareLock);
	if (queue)
		relation_close(queue, AccessShareLock);
	return ours ? psprintf(PGMQ_SCHEMA ".%s", name_object(name, "q_", GROUP_INDEX_SUFFIX)) : NULL;
}

/* The part of the group index that is on a table.  Finding it takes long. */
static Oid
leaf_index_oid(GroupQueue *queue, GroupTable *table)
{
	Oid			whole = RelationGetRelid(queue->fifo);
	uint64		changes = changes_of_relation(table->relid);
	Oid			oid;

	if (table->part && table->part->group_index_of == whole && OidIsValid(table->part->group_index) &&
		table->part->group_index_at == changes)
		return table->part->group_index;
	oid = relcheck_index_of_partition(table->rel, whole);
	if (table->part)
	{
		table->part->group_index_of = whole;
		table->part->group_index = oid;
		table->part->group_index_at = changes;
	}
	return oid;
}

/* How often the caches are asked again */
#define MOST_RETRIES 10

/*
 * REINDEX CONCURRENTLY replaces an index.  The new one gets the name of the old one
 * and becomes valid, at the moment when the old one becomes invalid.  The catalogs
 * say so a moment before the caches are told.  So if the caches lead to an index
 * that is not valid, they are emptied.
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

	/* It was valid a moment ago.  If it was replaced since, it is maintained until we release the table. */
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
		if (!front_columns(table))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("table \"%s\" does not have the columns of a queue",
							RelationGetRelationName(table->rel))));
	}
	return queue->fifo == NULL || table->index != NULL || open_leaf_index(queue, table);
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
 * Whether every change of the queue reaches its notes.  The triggers of a queue
 * that was renamed by hand still write to the notes of its old name.
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

/* The group index; NULL if there is no usable one */
static Relation
open_fifo(GroupQueue *queue)
{
	int			tries;

	for (tries = 0; tries < MOST_RETRIES; tries++)
	{
		Oid			oid = queue_index_relid(&queue->name, QUEUE_TABLE, GROUP_INDEX_SUFFIX);
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

/* Whether it is a table of notes, and not a user's table with that name */
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
	Oid			oid = queue_relid(name, NOTES_TABLE);
	Relation	notes = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : NULL;
	bool		has = notes != NULL && holds_notes(notes);

	if (notes)
		relation_close(notes, AccessShareLock);
	return has;
}

static Relation
open_notes(GroupQueue *queue)
{
	Oid			oid = queue_relid(&queue->name, NOTES_TABLE);
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
 * From here on the queue counts as one without group index and notes.  A read
 * without the index does not know the keys of groups, and could not write a
 * note.
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
 * Open a queue for a look at its groups.  False if no look into it is possible.
 * Locks are taken in one order: the queue's table, then its notes.
 */
bool
group_open(GroupQueue *queue, const QueueName *name, bool for_reading)
{
	Oid			relid;

	memset(queue, 0, sizeof(*queue));
	queue->name = *name;
	/* Before the lock was granted the table may have been dropped and made again */
	do
	{
		CHECK_FOR_INTERRUPTS();
		relid = queue_relid(name, QUEUE_TABLE);
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
