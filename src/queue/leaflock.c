/*
 * leaflock.c
 *	  Locks on several partitions that cannot deadlock with statements that lock
 *	  them all.
 *
 * REINDEX CONCURRENTLY of a partitioned table takes SHARE on all partitions, in the order of
 * their oids.  REINDEX CONCURRENTLY of a partitioned index does the same with all parts of
 * the index.  Its lock on the parent lets writers pass.  So a call that waits for a writer's
 * lock on one partition while it holds that on another could deadlock with it.  The same is
 * true of indexes: a plan made in this transaction keeps all of them locked, and its scan
 * keeps one.
 *
 * 1. A call that knows its partitions locks them before its first statement, in the order of
 *	  the oids.  Then it locks their indexes in the same way: leaves_lock().
 * 2. A call that finds its partitions one by one waits for the first of them only.  Any
 *	  other partition it locks at once, with its indexes, or not at all: leaf_lock_at_once().
 * 3. A scan that changes nothing takes a lock that does not conflict with SHARE.
 *
 * The server decides on the partition of a row first, and locks it then.  If it decides on
 * the default partition, and a partition for the row is attached in between, the statement
 * fails with 23514.  So:
 *
 * 4. A statement that inserts holds the default partition from before it begins until it
 *	  ends: default_hold().  Attaching a partition takes ACCESS EXCLUSIVE there.  So it
 *	  happens before the statement looks for partitions, or after its end.  The lock does not
 *	  conflict with SHARE, as in 3.
 */
#include "pgmq.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class_d.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "queue/descriptor.h"
#include "queue/partition.h"

/* The indexes of partitions, in the order of their oids; a partition that is gone has none */
static List *
indexes_of(Oid relid)
{
	Relation	rel = try_table_open(relid, AccessShareLock);
	List	   *oids = rel != NULL ? RelationGetIndexList(rel) : NIL;

	if (rel != NULL)
		table_close(rel, AccessShareLock);
	return oids;
}

static void
lock_in_order(List *oids)
{
	ListCell   *lc;

	list_sort(oids, list_oid_cmp);
	foreach(lc, oids)
		LockRelationOid(lfirst_oid(lc), RowExclusiveLock);
	list_free(oids);
}

/* Lock partitions for statements that will change rows.  A single partition is locked by its statement. */
void
leaves_lock(Leaf **leaves, int count)
{
	List	   *oids = NIL;
	int			i;

	if (count < 2)
		return;
	for (i = 0; i < count; i++)
		oids = lappend_oid(oids, leaves[i]->relid);
	lock_in_order(oids);
	oids = NIL;
	for (i = 0; i < count; i++)
		oids = list_concat(oids, indexes_of(leaves[i]->relid));
	lock_in_order(oids);
}

static void
unlock_all(List *oids, int count)
{
	int			i;

	for (i = 0; i < count; i++)
		UnlockRelationOid(list_nth_oid(oids, i), RowExclusiveLock);
}

/*
 * Lock the first partition of a read.  The sub-select of its statement may take a
 * weaker lock on the partition than the rest does, and then lock its indexes.  A
 * plain REINDEX, which holds SHARE on the partition and waits for the indexes,
 * could come in between.
 */
void
leaf_lock(const Leaf *leaf)
{
	LockRelationOid(leaf->relid, RowExclusiveLock);
}

/* Lock another partition, if that does not make the caller wait */
bool
leaf_lock_at_once(Leaf *leaf)
{
	List	   *oids;
	int			locked = 0;

	if (!ConditionalLockRelationOid(leaf->relid, RowExclusiveLock))
		return false;
	oids = indexes_of(leaf->relid);
	while (locked < list_length(oids) &&
		   ConditionalLockRelationOid(list_nth_oid(oids, locked), RowExclusiveLock))
		locked++;
	if (locked == list_length(oids))
		return true;
	unlock_all(oids, locked);
	UnlockRelationOid(leaf->relid, RowExclusiveLock);
	return false;
}

/* Wait until one partition can be locked.  False if the other is still locked. */
bool
leaf_wait(Oid locked, Oid blocked)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, locked);
	if (LockHeldByMe(&tag, RowExclusiveLock, true))
		return false;
	LockRelationOid(blocked, RowExclusiveLock);
	UnlockRelationOid(blocked, RowExclusiveLock);
	return true;
}

/*
 * Hold the default partition of a queue's table for a statement that inserts.  Returns it for
 * default_release(), or InvalidOid where there is none.
 */
Oid
default_hold(const QueueName *name, char prefix)
{
	Relation	parent = NULL;
	Oid			held = InvalidOid;

	/* Lock the parent first, as all calls do; and then its default partition stays what it is */
	if (queue_is_partitioned(name, prefix))
		parent = queue_open_table(name, prefix, RowExclusiveLock, NULL);
	if (parent == NULL)
		return InvalidOid;
	if (parent->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		held = get_default_partition_oid(RelationGetRelid(parent));
	if (OidIsValid(held))
		LockRelationOid(held, AccessShareLock);
	table_close(parent, NoLock);
	return held;
}

/* If the statement has put rows there, it has locked the partition itself, until the transaction ends. */
void
default_release(Oid held)
{
	if (OidIsValid(held))
		UnlockRelationOid(held, AccessShareLock);
}
