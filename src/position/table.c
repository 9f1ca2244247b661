/*
 * table.c
 *	  A queue's table: opened for a look, and its locks released again.
 *
 * A read takes the locks that its statement will take, and no others.  If it
 * finds nothing it releases them.  Otherwise a session that polls inside a
 * transaction would keep the floors from moving (horizon_end()).
 */
#include "pgmq.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/horizon.h"

/*
 * Whether the caller may take messages.  A caller that may not must not move
 * marks or use up sweeps: a call that fails costs the others nothing.  False of a
 * queue that has been renamed: its statement says that it is missing.
 */
bool
horizon_may_take(Oid relid)
{
	AclMode		taking = ACL_UPDATE | ACL_DELETE;

	return OidIsValid(relid) &&
		(pg_class_aclcheck(relid, GetUserId(), taking) == ACLCHECK_OK ||
		 pg_attribute_aclcheck_all(relid, GetUserId(), ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK);
}

bool
position_holds_lock(Oid relid, LOCKMODE lockmode, bool orstronger)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, lockmode, orstronger);
}

/* Release a lock that was taken since horizon_begin() */
void
position_let_go(Oid relid, LOCKMODE lockmode)
{
	LOCKTAG		tag;
	bool		released = true;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	while (released && position_holds_lock(relid, lockmode, false))
		released = LockRelease(&tag, lockmode, false);
}

/* Such a table has no file, and no file has this key. */
uint64
position_partitioned_key(Oid relid)
{
	return ~(((uint64) MyDatabaseId << 32) | relid);
}

/* Whether the table, which may be partitioned, has an index on msg_id and none on vt */
static bool
is_by_id(const QueueTable *table)
{
	Place		place;

	return !queue_describe(&table->name, table->prefix, table->rel, &place) &&
		OidIsValid(place.id_index) && !OidIsValid(place.vt_index);
}

/* False if a look into it is not possible */
static bool
describe_table(QueueTable *table)
{
	Relation	rel = table->rel;

	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		table->key = position_partitioned_key(RelationGetRelid(rel));
		table->parts = partitions_open(rel);
		if (table->parts == NULL || !table->parts->looks)
			return false;
		/* A look sets this for itself; the floors cover everything that is sent until then */
		table->parts->reach = KEY_MAX;
		return true;
	}
	table->key = ((uint64) MyDatabaseId << 32) | RelationFileNumber(rel);
	/* Rows in inheritance children cannot be seen here */
	return !rel->rd_rel->relhassubclass &&
		queue_describe(&table->name, table->prefix, rel, &table->place);
}

/* Whether it can be read by rank: the answer for a partitioned table covers its partitions, too */
bool
position_has_ranks(QueueTable *table)
{
	if (table->parts != NULL && !queue_describe(&table->name, table->prefix, table->rel, &table->place) &&
		!OidIsValid(table->place.vt_index))
		return false;
	return place_has_ranks(&table->place);
}

/*
 * Open the table; false if it cannot have floors.  A read takes the lock of its
 * statement here already.  With a weaker lock first it would hold that while it
 * waits, and deadlock with a session that waits for a stronger one.
 */
bool
position_open_table(const QueueName *name, char prefix, LOCKMODE lockmode, QueueTable *table)
{
	memset(table, 0, sizeof(*table));
	table->name = *name;
	table->prefix = prefix;
	table->place.rank = RANK_ALL;
	table->rel = queue_open_table(name, prefix, lockmode, &table->locked_before);
	if (table->rel == NULL)
		return false;
	if (horizon_may_take(queue_relid(name, QUEUE_TABLE)))
	{
		if (describe_table(table))
			return true;
		table->by_id = is_by_id(table);
	}
	table_close(table->rel, lockmode);
	table->rel = NULL;
	table->parts = NULL;
	return false;
}

static bool
holds_index(Oid index)
{
	return position_holds_lock(index, RowShareLock, false) ||
		position_holds_lock(index, RowExclusiveLock, false);
}

/* Whether the table and its indexes have locks of the kind that our sub-selects take and keep */
bool
position_locked_indexes(const QueueTable *table)
{
	const Place *place = &table->place;

	return position_holds_lock(RelationGetRelid(table->rel), RowShareLock, false) ||
		holds_index(place->id_index) || holds_index(place->vt_index) ||
		(place->rank_attno && (holds_index(place->rank_fresh_index) || holds_index(place->rank_due_index)));
}

static void
let_go_of(Oid index)
{
	position_let_go(index, RowShareLock);
	position_let_go(index, RowExclusiveLock);
}

/* What position_locked_indexes() asks for, and the lock of a writer */
void
position_let_go_of_all(const QueueTable *table, Oid relid)
{
	const Place *place = &table->place;

	let_go_of(place->id_index);
	let_go_of(place->vt_index);
	if (place->rank_attno)
	{
		let_go_of(place->rank_fresh_index);
		let_go_of(place->rank_due_index);
	}
	let_go_of(relid);
}

/* Whether a statement that touches no row may call functions of users; the group triggers do nothing then */
bool
position_runs_code_of_others(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_ROW(trigger->tgtype) &&
			(TRIGGER_FOR_UPDATE(trigger->tgtype) || TRIGGER_FOR_DELETE(trigger->tgtype)) &&
			strcmp(trigger->tgname, TRIGGER_REMOVED) != 0)
			return true;
	}
	return rel->rd_rel->relrowsecurity;
}

static void
let_go_of_indexes(Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, oids)
		let_go_of(lfirst_oid(lc));
	list_free(oids);
}

void
horizon_let_go_of_partitions(Horizon *h)
{
	int			i;

	for (i = 0; i < h->nleaves; i++)
	{
		Relation	rel = try_table_open(h->leaves[i]->relid, AccessShareLock);

		if (rel == NULL)
			continue;
		let_go_of_indexes(rel);
		let_go_of(RelationGetRelid(rel));
		table_close(rel, AccessShareLock);
	}
	let_go_of_indexes(h->table.rel);
}
