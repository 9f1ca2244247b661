/*
 * partition.c
 *	  Which partitions a call must touch.
 *
 * A generic plan for a partitioned table locks every partition at every
 * execution.  So a statement on a partitioned queue is prepared once for each
 * partition that it is needed for: on the queue's table, with the bounds of the
 * partition as constants (leaf_condition()).  The planner prunes by them before
 * it opens anything, so that the plan has the queue's table and that one
 * partition, and locks no more.  Rights, row-level security and triggers are
 * those of the queue's table.
 *
 * The list of partitions is kept here, per backend, made from the relcache.  It
 * can be out of date by the time of the statement, which does no harm: a
 * statement takes what it finds between its bounds, in whatever partition that
 * is then.  Rows that were moved to a new partition meanwhile are found there,
 * because callers look again when the list has changed.
 *
 * Memory: a list has a context of its own, a child of PartitionContext, which
 * is a child of TopMemoryContext.  At most pgmq.plan_cache_size lists are kept.
 */
#include "pgmq.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/partition.h"
#include "queue/place.h"
#include "queue/plan.h"

typedef struct ListEntry
{
	Oid			relid;			/* hash key, must be first */
	Partitions *parts;
} ListEntry;

static MemoryContext PartitionContext = NULL;
static HTAB *Lists = NULL;
static dlist_head Recency = DLIST_STATIC_INIT(Recency);
static uint32 LastGeneration = 0;

/* ---- the leaves by their oids ---- */

static int
compare_oids(const void *a, const void *b)
{
	return pg_cmp_u32((*(Leaf *const *) a)->relid, (*(Leaf *const *) b)->relid);
}

/* The leaf that is this table, or NULL */
static Leaf *
find_leaf(const Partitions *parts, Oid relid)
{
	int			low = 0;
	int			high = parts->nleaves;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (parts->by_oid[middle]->relid == relid)
			return parts->by_oid[middle];
		if (parts->by_oid[middle]->relid < relid)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static void
create_lists(void)
{
	/* What an earlier call has done, before memory ran out, is not done again */
	if (PartitionContext == NULL)
		PartitionContext = AllocSetContextCreate(TopMemoryContext, "pgmq partitions",
												 ALLOCSET_SMALL_SIZES);
	MemoryContextDeleteChildren(PartitionContext);	/* half a table */
	Lists = hash_in_context("pgmq partitions", 16, sizeof(Oid), sizeof(ListEntry), PartitionContext);
}

/* ---- the lists of this backend ---- */

static void
drop_if_unused(Partitions *parts)
{
	if (!parts->current && parts->pins == 0)
		MemoryContextDelete(parts->context);
}

static void
unpin(void *arg)
{
	Partitions *parts = arg;

	parts->pins--;
	drop_if_unused(parts);
}

/* Keep it until the current SPI call ends, by success or by error. */
static void
pin(Partitions *parts)
{
	MemoryContextCallback *release = palloc(sizeof(MemoryContextCallback));

	release->func = unpin;
	release->arg = parts;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, release);
	parts->pins++;
}

static void
remove_list(Partitions *parts)
{
	hash_search(Lists, &parts->relid, HASH_REMOVE, NULL);
	dlist_delete(&parts->recency);
	parts->current = false;
	drop_if_unused(parts);
}

/* The list is complete: from now on it is found, and gets invalidations. */
static void
keep_list(Partitions *parts)
{
	ListEntry  *entry;

	while (hash_get_num_entries(Lists) >= plan_max_queues)
		remove_list(dlist_container(Partitions, recency, dlist_tail_node(&Recency)));
	entry = hash_search(Lists, &parts->relid, HASH_ENTER, NULL);
	entry->parts = parts;
	MemoryContextSetParent(parts->context, PartitionContext);
	dlist_push_head(&Recency, &parts->recency);
	parts->current = true;
}

/* ---- making a list ---- */

/*
 * On msg_id or enqueued_at alone, or on event_id as the log of a stream, by ranges.  The
 * name of the column, or NULL.
 */
static const char *
understood(Relation parent)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			columns[] = {{"msg_id", INT8OID}, {"event_id", INT8OID}, {"enqueued_at", TIMESTAMPTZOID}};
	PartitionKey key = RelationGetPartitionKey(parent);
	Form_pg_attribute att;
	int			i;

	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 || key->partattrs[0] == 0)
		return NULL;
	att = TupleDescAttr(RelationGetDescr(parent), key->partattrs[0] - 1);
	for (i = 0; i < lengthof(columns); i++)
	{
		if (att->atttypid == columns[i].type && strcmp(NameStr(att->attname), columns[i].name) == 0)
			return columns[i].name;
	}
	return NULL;
}

/* A bound, as the first key above it */
static int64
bound(PartitionBoundInfo info, int i)
{
	if (info->kind[i][0] == PARTITION_RANGE_DATUM_MINVALUE)
		return KEY_MIN;
	if (info->kind[i][0] == PARTITION_RANGE_DATUM_MAXVALUE)
		return KEY_MAX;
	return DatumGetInt64(info->datums[i][0]);
}

/*
 * Segment i reaches from one bound to the next.  A segment without a partition
 * of its own belongs to the default partition; without a default it cannot
 * contain anything.
 */
static void
make_segments(Partitions *parts, PartitionDesc desc)
{
	PartitionBoundInfo info = desc->boundinfo;
	int			i;

	parts->segments = MemoryContextAlloc(parts->context, sizeof(Segment) * (info->ndatums + 1));
	for (i = 0; i <= info->ndatums; i++)
	{
		Segment    *segment = &parts->segments[parts->nsegments];
		int			index = info->indexes[i] >= 0 ? info->indexes[i] : info->default_index;
		bool		to_end = i == info->ndatums ||
			info->kind[i][0] == PARTITION_RANGE_DATUM_MAXVALUE;
		int64		behind = to_end ? KEY_MAX : bound(info, i);

		segment->first = i == 0 ? KEY_MIN : bound(info, i - 1);
		segment->last = to_end ? KEY_MAX : behind - 1;
		if (index < 0 || (!to_end && behind == KEY_MIN) ||
			(i > 0 && info->kind[i - 1][0] == PARTITION_RANGE_DATUM_MAXVALUE))
			continue;
		segment->leaf = &parts->leaves[index];
		if (!segment->leaf->is_default)
		{
			segment->leaf->first = segment->first;
			segment->leaf->last = segment->last;
		}
		parts->nsegments++;
	}
}

static void
make_leaves(Partitions *parts, PartitionDesc desc, const Partitions *old)
{
	int			i;

	parts->nleaves = desc->nparts;
	parts->by_oid = MemoryContextAlloc(parts->context, sizeof(Leaf *) * Max(desc->nparts, 1));
	parts->leaves = MemoryContextAllocZero(parts->context, sizeof(Leaf) * Max(desc->nparts, 1));
	for (i = 0; i < desc->nparts; i++)
	{
		Leaf	   *leaf = &parts->leaves[i];
		const Leaf *known = old != NULL ? find_leaf(old, desc->oids[i]) : NULL;

		if (known != NULL)
		{
			*leaf = *known;
			/* If partitions were attached or dropped, messages may have been moved */
			leaf->ids_known = leaf->drained = false;
		}
		else
		{
			leaf->born = parts->generation;
			leaf->due_at = DT_NOEND;
		}
		leaf->parts = parts;
		leaf->relid = desc->oids[i];
		leaf->is_default = i == desc->boundinfo->default_index;
		parts->by_oid[i] = leaf;
	}
	qsort(parts->by_oid, parts->nleaves, sizeof(Leaf *), compare_oids);
}

/* A hash of a leaf's bounds, which its plans are kept by */
static void
hash_bounds(Partitions *parts)
{
	int			i;

	for (i = 0; i < parts->nleaves; i++)
		parts->leaves[i].bounds = 0;
	for (i = 0; i < parts->nsegments; i++)
	{
		Segment    *segment = &parts->segments[i];

		segment->leaf->bounds =
			hash_combine(segment->leaf->bounds,
						 hash_bytes((unsigned char *) segment, offsetof(Segment, leaf)));
	}
}

/*
 * Whether all leaves can be looked into, now and when more are added: tables of
 * their own, with indexes that come from the parent's.
 */
static bool
leaves_look(Partitions *parts, Relation parent)
{
	Place		place;
	int			i;

	for (i = 0; i < parts->nleaves; i++)
	{
		if (get_rel_relkind(parts->leaves[i].relid) != RELKIND_RELATION ||
			get_rel_relam(parts->leaves[i].relid) != HEAP_TABLE_AM_OID)
			return false;
	}
	return place_describe(parent, &place);
}

static Partitions *
make_list(Relation parent, const Partitions *old)
{
	PartitionDesc desc;
	MemoryContext context;
	Partitions *parts;
	uint64		changes;
	const char *column = understood(parent);

	if (column == NULL)
		return NULL;
	/* Until it is complete it is freed with the call */
	context = AllocSetContextCreate(CurrentMemoryContext, "pgmq partitions of a queue",
									ALLOCSET_SMALL_SIZES);
	parts = MemoryContextAllocZero(context, sizeof(Partitions));
	parts->context = context;
	parts->relid = RelationGetRelid(parent);
	parts->column = column;
	parts->by_id = strcmp(column, "enqueued_at") != 0;
	parts->generation = ++LastGeneration;
	parts->reach = KEY_MAX;
	if (old != NULL)
	{
		parts->slot_generation = old->slot_generation;
		parts->sent = old->sent;
		parts->due_rounds = old->due_rounds;
	}
	else
		parts->sent = (Floors) {PG_INT64_MIN, DT_NOBEGIN};
	(void) changes_heard();
	changes = changes_of_relation(parts->relid);
	desc = RelationGetPartitionDesc(parent, true);
	make_leaves(parts, desc, old);
	if (desc->boundinfo != NULL)
		make_segments(parts, desc);
	hash_bounds(parts);

	/* While a partition is being detached, the server's list depends on the snapshot */
	parts->changes = desc->detached_exist ? 0 : changes;
	return parts;
}

/*
 * The partitions of a queue's table, which the caller has opened and locked;
 * NULL if it is partitioned in an unknown way.  Valid until the current SPI
 * call ends.
 */
Partitions *
partitions_open(Relation parent)
{
	Oid			relid = RelationGetRelid(parent);
	ListEntry  *entry;
	Partitions *old;
	Partitions *parts;

	if (Lists == NULL)
		create_lists();
	entry = hash_search(Lists, &relid, HASH_FIND, NULL);
	old = entry ? entry->parts : NULL;
	if (old != NULL && partitions_valid(old))
	{
		dlist_move_head(&Recency, &old->recency);
		pin(old);
		return old;
	}

	if (old != NULL)
		pin(old);
	parts = make_list(parent, old);
	if (old != NULL && old->current)
		remove_list(old);
	if (parts == NULL)
		return NULL;
	keep_list(parts);
	pin(parts);
	parts->looks = leaves_look(parts, parent);
	return parts;
}

/* Whether nothing that this session has heard of has changed since the list was made */
bool
partitions_valid(const Partitions *parts)
{
	return parts->changes != 0 && parts->changes == changes_of_relation(parts->relid);
}

/* Whether these are the same partitions, with the same bounds */
bool
partitions_same(const Partitions *a, const Partitions *b)
{
	int			i;

	if (a->nleaves != b->nleaves)
		return false;
	for (i = 0; i < a->nleaves; i++)
	{
		if (a->leaves[i].relid != b->leaves[i].relid || a->leaves[i].bounds != b->leaves[i].bounds)
			return false;
	}
	return true;
}

/* Drop what was learned of the leaves: rows may have been written by hand. */
void
partitions_forget(Partitions *parts)
{
	int			i;

	for (i = 0; i < parts->nleaves; i++)
	{
		Leaf	   *leaf = &parts->leaves[i];

		leaf->ids_known = leaf->has_ids = leaf->drained = false;
		leaf->rows_likely = false;
	}
}

/* Take over what is in shared memory. */
void
partitions_refresh(Partitions *parts, uint32 slot_generation, const Floors *sent)
{
	if (parts->slot_generation != slot_generation)
		partitions_forget(parts);
	parts->slot_generation = slot_generation;
	parts->sent = *sent;
}
