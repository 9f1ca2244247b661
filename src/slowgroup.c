/*
 * slowgroup.c
 *	  The groups of a queue that has no group index: by a walk over its table.
 *
 * The walk sees what those through the index see, every version that is not
 * dead for good, and says the same of it.  A version may be replaced by a newer
 * one that stands where the walk has been already: so what the snapshot from
 * before the walk sees counts as well, as changed by somebody, and so does what
 * came and was changed since.
 *
 * Under row-level security, what the role may not see does not exist for it,
 * but for messages of transactions that are still open: those hold back their
 * groups whoever sent them.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "group.h"

/* A message with its group */
typedef struct Found
{
	const text *key;
	Peeked		peeked;
} Found;

typedef struct Walk
{
	GroupQueue *queue;
	Found	   *found;
	int64		count;
	int64		max;
} Walk;

/* The name of the group: headers->>'x-pgmq-group', or the default */
static const text *
group_name(TupleTableSlot *slot, const GroupLeaf *leaf, Datum header)
{
	LOCAL_FCINFO(fcinfo, 2);
	bool		isnull;
	Datum		headers = slot_getattr(slot, leaf->headers_attno, &isnull);
	Datum		name = (Datum) 0;

	if (!isnull)
	{
		InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
		fcinfo->args[0].value = headers;
		fcinfo->args[0].isnull = false;
		fcinfo->args[1].value = header;
		fcinfo->args[1].isnull = false;
		name = jsonb_object_field_text(fcinfo);
		isnull = fcinfo->isnull;
	}
	return isnull ? cstring_to_text(DEFAULT_GROUP) : DatumGetTextPP(name);
}

static void
add_found(Walk *walk, const text *key, const Peeked *peeked)
{
	if (walk->count == walk->max)
	{
		walk->max *= 2;
		walk->found = repalloc_huge(walk->found, sizeof(Found) * walk->max);
	}
	walk->found[walk->count].key = key;
	walk->found[walk->count++].peeked = *peeked;
}

static void
walk_leaf(Walk *walk, const GroupLeaf *leaf)
{
	Snapshot	before = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(leaf->rel, SnapshotAny, 0, NULL);
	TupleTableSlot *slot = table_slot_create(leaf->rel, NULL);
	Datum		header = CStringGetTextDatum("x-pgmq-group");
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Peeked		peeked;
		bool		alive = table_tuple_satisfies_snapshot(leaf->rel, slot, &dirty);

		CHECK_FOR_INTERRUPTS();
		if (!alive && !table_tuple_satisfies_snapshot(leaf->rel, slot, before) &&
			!slot_ended_since(slot, before))
			continue;
		/* No statement can take a message without an id */
		if (slot_attisnull(slot, leaf->id_attno))
			continue;
		front_peek(walk->queue, leaf, slot, &dirty, &peeked);
		if (!alive)
			peeked.changing = peeked.leaving = true;
		add_found(walk, group_name(slot, leaf, header), &peeked);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(before);
}

#define ALLOWED_MESSAGES "SELECT msg_id FROM {queue}"

/* Those that the role sees, after the walk: a set of msg_ids */
static HTAB *
find_allowed(const QueueName *name)
{
	HASHCTL		ctl = {.keysize = sizeof(int64), .entrysize = sizeof(int64), .hcxt = CurrentMemoryContext};
	HTAB	   *allowed = hash_create("pgmq messages allowed", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	uint64		i;

	if (SPI_execute(name_expand(ALLOWED_MESSAGES, name), false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(SPI_result));
	for (i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		int64		msg_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		if (!isnull)
			(void) hash_search(allowed, &msg_id, HASH_ENTER, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
	return allowed;
}

static void
forget_hidden(Walk *walk)
{
	HTAB	   *allowed = find_allowed(&walk->queue->name);
	int64		kept = 0;
	int64		i;

	for (i = 0; i < walk->count; i++)
	{
		const Peeked *peeked = &walk->found[i].peeked;

		if (peeked->arriving || peeked->unseen ||
			hash_search(allowed, &peeked->msg_id, HASH_FIND, NULL) != NULL)
			walk->found[kept++] = walk->found[i];
	}
	walk->count = kept;
	hash_destroy(allowed);
}

static int
compare_found(const void *a, const void *b)
{
	const Found *found_a = a;
	const Found *found_b = b;
	int			order = front_compare_keys(found_a->key, found_b->key);

	if (order != 0)
		return order;
	return found_a->peeked.msg_id < found_b->peeked.msg_id ? -1 :
		found_a->peeked.msg_id > found_b->peeked.msg_id;
}

/* All groups, sorted by key */
SlowGroup *
slow_groups(GroupQueue *queue, int *count)
{
	Walk		walk = {queue, NULL, 0, 256};
	SlowGroup  *groups;
	Peeked	   *messages;
	int64		i;

	front_open_all(queue);
	walk.found = palloc(sizeof(Found) * walk.max);
	for (i = 0; i < queue->nleaves; i++)
		walk_leaf(&walk, &queue->leaves[i]);
	if (queue->policed)
		forget_hidden(&walk);
	qsort(walk.found, walk.count, sizeof(Found), compare_found);
	groups = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(SlowGroup) * (walk.count + 1));
	messages = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Peeked) * (walk.count + 1));
	*count = 0;
	for (i = 0; i < walk.count; i++)
	{
		messages[i] = walk.found[i].peeked;
		if (i == 0 || front_compare_keys(walk.found[i - 1].key, walk.found[i].key) != 0)
			groups[(*count)++] = (SlowGroup) {walk.found[i].key, &messages[i], 0};
		groups[*count - 1].count++;
	}
	pfree(walk.found);
	return groups;
}

static int
compare_groups(const void *a, const void *b)
{
	return front_compare_keys(((const SlowGroup *) a)->key, ((const SlowGroup *) b)->key);
}

/* One of slow_groups(), or NULL */
const SlowGroup *
slow_group_of(const SlowGroup *groups, int count, const text *key)
{
	SlowGroup	wanted = {key, NULL, 0};

	return bsearch(&wanted, groups, count, sizeof(SlowGroup), compare_groups);
}
