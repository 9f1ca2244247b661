/*
 * route.c
 *	  A statement on messages by id, for the partitions that contain them.
 *
 * By msg_id, the id determines the partition.  By time, it is the partition
 * whose range of ids contains the id.  That can be wrong for rows that were
 * written by hand.  So an id that is not found there is searched for in all
 * partitions, by their indexes.  An id that is not found at all may have been
 * moved to a new partition meanwhile.
 *
 * No id is tried twice in the same partition, so a message is returned once.
 * Partitions are handled in one order, and so are the ids in each of them: one
 * call can wait for another, but two cannot deadlock.  If there are several
 * partitions, all are locked before the first statement, in the order of their
 * oids.  REINDEX CONCURRENTLY of the whole table uses the same order.
 */
#include "pgmq.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "message/message.h"

typedef struct Route
{
	const QueueName *name;
	const PlanSpec *spec;
	Datum	   *values;
	bool	   *nulls;
	DestReceiver *dest;
	bool		makes_due;
	PlanVariant variant;
	Partitions *parts;
	int64	   *ids;			/* in order, each once */
	int			nids;
	uint64		processed;
	bool		stated;			/* a statement was run */
} Route;

static int
compare_ids(const void *a, const void *b)
{
	return pg_cmp_s64(*(const int64 *) a, *(const int64 *) b);
}

static void
sort_ids(Route *route)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			i;

	if (route->spec->argtypes[0] == INT8OID)
	{
		route->ids = palloc(sizeof(int64));
		route->ids[route->nids++] = DatumGetInt64(route->values[0]);
		return;
	}
	deconstruct_array(DatumGetArrayTypeP(route->values[0]), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, &count);
	route->ids = palloc(sizeof(int64) * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		if (!nulls[i])
			route->ids[route->nids++] = DatumGetInt64(elements[i]);
	}
	qsort(route->ids, route->nids, sizeof(int64), compare_ids);
	for (count = route->nids, route->nids = 0, i = 0; i < count; i++)
	{
		if (i == 0 || route->ids[i] != route->ids[i - 1])
			route->ids[route->nids++] = route->ids[i];
	}
}

/* The first of the ids that is not below "id" */
static int
find_id(const Route *route, int64 id)
{
	int			low = 0;
	int			high = route->nids;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (route->ids[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static Datum
ids_datum(const Route *route, int first, int behind)
{
	Datum	   *elements;
	int			i;

	if (route->spec->argtypes[0] == INT8OID)
		return Int64GetDatum(route->ids[first]);
	elements = palloc(sizeof(Datum) * (behind - first));
	for (i = first; i < behind; i++)
		elements[i - first] = Int64GetDatum(route->ids[i]);
	return PointerGetDatum(construct_array(elements, behind - first, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Run the statement for ids[first] to the one before ids[behind]. */
static void
run_on_leaf(Route *route, Leaf *leaf, int first, int behind)
{
	if (first >= behind)
		return;
	route->values[0] = ids_datum(route, first, behind);
	route->processed += plan_run_leaf(route->name, route->spec, leaf, route->variant, route->values, route->nulls,
								 route->dest);
	route->stated = true;
	if (route->makes_due)
		leaf_note_due(leaf, GetCurrentTimestamp());
}

/* ---- queues that are partitioned by msg_id ---- */

/*
 * Only the partitions that are newer than a generation of the list.  "run": run
 * the statement; otherwise the partitions are only collected to be locked.
 */
static void
visit_by_bounds(Route *route, uint32 since, bool run, Leaf **leaves, int *nleaves)
{
	int			first = 0;

	while (first < route->nids)
	{
		Segment    *segment = partitions_segment(route->parts, route->ids[first]);
		int			behind = first + 1;

		if (segment != NULL && segment->last < KEY_MAX)
			behind = find_id(route, segment->last + 1);
		else if (segment != NULL)
			behind = route->nids;
		if (segment != NULL && segment->leaf->born > since)
		{
			if (run)
				run_on_leaf(route, segment->leaf, first, behind);
			else if (*nleaves == 0 || leaves[*nleaves - 1] != segment->leaf)
				leaves[(*nleaves)++] = segment->leaf;
		}
		first = behind;
	}
}

static void
route_by_bounds(Route *route, uint32 since)
{
	Leaf	  **leaves = palloc(sizeof(Leaf *) * Max(route->nids, 1));
	int			nleaves = 0;

	visit_by_bounds(route, since, false, leaves, &nleaves);
	leaves_lock(leaves, nleaves);
	visit_by_bounds(route, since, true, NULL, NULL);
	pfree(leaves);
}

/* ---- by enqueued_at ---- */

/* Which of the ids a leaf was tried for */
typedef struct Tried
{
	int			first;
	int			behind;
} Tried;

/* Which of the ids are in the leaf's range */
static Tried
ids_of_leaf(const Route *route, const Leaf *leaf)
{
	Tried		ids = {0, 0};

	if (!leaf->has_ids)
		return ids;
	ids.first = find_id(route, leaf->lowest_id);
	ids.behind = route->nids;
	/* While messages are still sent to a partition, its highest id is already out of date */
	if (leaf->ids_known && leaf->highest_id < PG_INT64_MAX)
		ids.behind = find_id(route, leaf->highest_id + 1);
	return ids;
}

/* The partitions where the ids should be */
static void
route_by_range(Route *route, Tried *tried)
{
	TimestampTz now = GetCurrentTimestamp();
	Leaf	  **leaves = palloc(sizeof(Leaf *) * Max(route->parts->nleaves, 1));
	int			nleaves = 0;
	int			i;

	for (i = 0; i < route->parts->nleaves; i++)
	{
		Leaf	   *leaf = &route->parts->leaves[i];

		if (leaf_closed(leaf) ||
			(!leaf->has_ids && !leaf->is_default && leaf->first <= now))
			leaf_learn_ids(leaf, false);
		tried[i] = ids_of_leaf(route, leaf);
		if (tried[i].first < tried[i].behind)
			leaves[nleaves++] = leaf;
	}
	leaves_lock(leaves, nleaves);
	for (i = 0; i < route->parts->nleaves; i++)
		run_on_leaf(route, &route->parts->leaves[i], tried[i].first, tried[i].behind);
	pfree(leaves);
}

/*
 * All other partitions that may contain them: by the range of a leaf as it is
 * now, including rows that were written by hand.  A single id can be looked up
 * itself.
 */
static void
look_for_ids(const Route *route, Leaf *leaf)
{
	Relation	rel = route->nids == 1 ? leaf_open(leaf) : NULL;

	if (rel == NULL)
	{
		leaf_learn_ids(leaf, true);
		return;
	}
	if (RelationGetNumberOfBlocks(rel) > 0 && place_has_id(rel, &leaf->description.place, route->ids[0]))
	{
		leaf->lowest_id = leaf->has_ids ? Min(leaf->lowest_id, route->ids[0]) : route->ids[0];
		leaf->highest_id = leaf->has_ids ? Max(leaf->highest_id, route->ids[0]) : route->ids[0];
		leaf->has_ids = true;
	}
	table_close(rel, AccessShareLock);
}

static void
route_everywhere(Route *route, const Tried *tried, uint32 since)
{
	int			i;

	for (i = 0; i < route->parts->nleaves; i++)
	{
		Leaf	   *leaf = &route->parts->leaves[i];
		Tried		done = {0, 0};
		Tried		ids;

		if (leaf->born <= since)
			continue;
		look_for_ids(route, leaf);
		ids = ids_of_leaf(route, leaf);
		if (tried != NULL)
			done = tried[i];
		if (done.first >= done.behind)
			run_on_leaf(route, leaf, ids.first, ids.behind);
		else
		{
			run_on_leaf(route, leaf, ids.first, Min(ids.behind, done.first));
			run_on_leaf(route, leaf, Max(ids.first, done.behind), ids.behind);
		}
	}
}

/* Whether the list has a partition that a list of this generation did not have */
static bool
has_born_since(const Partitions *parts, uint32 since)
{
	int			i;

	for (i = 0; i < parts->nleaves; i++)
	{
		if (parts->leaves[i].born > since)
			return true;
	}
	return false;
}

/*
 * Run a statement whose $1 is a msg_id or an array of them, in all partitions
 * that contain them.  "makes_due" says that it may make them visible at once.
 * The caller has connected to SPI.  Returns how many rows it processed.
 */
uint64
route_variant(const QueueName *name, const PlanSpec *spec, PlanVariant variant,
			  Datum *values, bool *nulls, bool makes_due, DestReceiver *dest)
{
	Route		route = {.name = name, .spec = spec, .values = values, .nulls = nulls,
	.dest = dest, .makes_due = makes_due, .variant = variant};
	uint32		since = 0;

	if (nulls[0] || (route.parts = horizon_partitions(name)) == NULL ||
		!(route.parts->by_id || route.parts->looks))
		return plan_run_leaf(name, spec, NULL, variant, values, nulls, dest);
	sort_ids(&route);
	if (!route.parts->by_id)
	{
		Tried	   *tried = palloc(sizeof(Tried) * Max(route.parts->nleaves, 1));

		route_by_range(&route, tried);
		if (route.processed < route.nids)
			route_everywhere(&route, tried, 0);
	}
	else
		route_by_bounds(&route, 0);
	/*
	 * A row that was moved meanwhile is in a new partition.  A new list alone is no
	 * reason to go on: the server may invalidate each list as soon as it is made.
	 */
	while (route.processed < route.nids)
	{
		CHECK_FOR_INTERRUPTS();
		since = Max(since, route.parts->generation);
		route.parts = horizon_partitions(name);
		if (route.parts == NULL || !has_born_since(route.parts, since))
			break;
		if (route.parts->by_id)
			route_by_bounds(&route, since);
		else
			route_everywhere(&route, NULL, since);
	}
	/* Run a statement at least once, because it raises the error of a missing privilege. */
	if (!route.stated)
	{
		nulls[0] = true;
		plan_run_leaf(name, spec,
					  route.parts && route.parts->nleaves > 0 ? &route.parts->leaves[0] : NULL,
					  variant, values, nulls, dest);
	}
	return route.processed;
}

/* The same for a statement that has no variants */
uint64
route_by_id(const QueueName *name, const PlanSpec *spec, Datum *values, bool *nulls,
			bool makes_due, DestReceiver *dest)
{
	return route_variant(name, spec, LIVE_ANY, values, nulls, makes_due, dest);
}
