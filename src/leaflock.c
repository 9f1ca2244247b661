/*
 * leaflock.c
 *	  Locks on several partitions that cannot deadlock with statements that lock
 *	  them all.
 *
 * REINDEX CONCURRENTLY of a partitioned table, or of its index, takes SHARE on all
 * partitions, or on all parts of the index, in the order of their oids.  Its lock on
 * the parent lets writers pass.  So a call that waits for the lock of a writer on one
 * partition, while it holds that on another, could wait in a circle with it.
 *
 * 1. A call that knows its partitions locks them before its first statement, in the
 *	  order of the oids, and then their indexes on msg_id, which its statements keep
 *	  locked, in theirs: leaves_lock().
 * 2. A call that finds its partitions one by one waits for the first of them only.
 *	  Any other it locks at once or not at all: leaf_lock_at_once().
 * 3. A scan that changes nothing takes a lock that does not conflict with SHARE.
 */
#include "pgmq.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"

#include "partition.h"

static int
compare_oids(const void *a, const void *b)
{
	Oid			x = *(const Oid *) a;
	Oid			y = *(const Oid *) b;

	return x < y ? -1 : x > y;
}

/* The index on msg_id; InvalidOid if there is none that is known */
static Oid
id_index_of(Leaf *leaf)
{
	Relation	rel = leaf->described ? NULL : leaf_open(leaf);

	if (rel != NULL)
		table_close(rel, AccessShareLock);
	return leaf->described && leaf->looks ? leaf->place.id_index : InvalidOid;
}

static void
lock_in_order(Oid *oids, int count)
{
	int			i;

	qsort(oids, count, sizeof(Oid), compare_oids);
	for (i = 0; i < count; i++)
		LockRelationOid(oids[i], RowExclusiveLock);
}

/* Lock partitions for statements that will change rows.  For a single one the statement does it. */
void
leaves_lock(Leaf **leaves, int count)
{
	Oid		   *oids;
	int			nindexes = 0;
	int			i;

	if (count < 2)
		return;
	oids = palloc(sizeof(Oid) * count);
	for (i = 0; i < count; i++)
		oids[i] = leaves[i]->relid;
	lock_in_order(oids, count);
	for (i = 0; i < count; i++)
	{
		oids[nindexes] = id_index_of(leaves[i]);
		nindexes += OidIsValid(oids[nindexes]) ? 1 : 0;
	}
	lock_in_order(oids, nindexes);
	pfree(oids);
}

/* The same for one, if that does not make the caller wait */
bool
leaf_lock_at_once(Leaf *leaf)
{
	Oid			index;

	if (!ConditionalLockRelationOid(leaf->relid, RowExclusiveLock))
		return false;
	index = id_index_of(leaf);
	if (!OidIsValid(index) || ConditionalLockRelationOid(index, RowExclusiveLock))
		return true;
	UnlockRelationOid(leaf->relid, RowExclusiveLock);
	return false;
}

/* Wait until one partition can be locked.  False if that would be while the other is still locked. */
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
