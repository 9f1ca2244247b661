/*
 * waited.c
 *	  A read by priority: messages that have waited too long come first, the oldest first.
 *
 * A deferred message has waited since its vt, a fresh one since it was sent.  Fresh ones are
 * found by msg_id: that is the order in which they were sent, except for those of the same
 * moment.  There are two sources, or two for each partition.  A read takes from the source
 * with the oldest message, up to where another one has an older message.
 *
 * These looks start at the floors, and skip messages that other readers hold.
 */
#include "pgmq.h"

#include "access/table.h"
#include "storage/bufmgr.h"
#include "utils/snapmgr.h"

#include "position/horizon.h"

/* How often a read goes from one source to another for the sake of the order */
#define WAITED_TURNS 16

/*
 * A scan looks at all entries of a page that are in its range.  The oldest fresh message is
 * mostly among so many ids, so they are a range of their own.
 */
#define FIRST_IDS 32

typedef struct Source
{
	Leaf	   *leaf;			/* or NULL */
	bool		fresh;
	bool		known;			/* what follows is the result of a look */
	int64		from;			/* the key of the oldest message; none is before it */
	TimestampTz since;			/* it has waited since then; DT_NOEND: there is none */
} Source;

struct Waited
{
	int			turns;
	int			nsources;
	Source		sources[FLEXIBLE_ARRAY_MEMBER];
};

/* A scan for messages that have waited since "until" or longer, up to "limit" of them */
typedef struct WaitedWalk
{
	bool		fresh;
	TimestampTz until;
	int64		limit;
	int64		found;
	int64		first;			/* the keys of the first one and the last one */
	int64		last;
	TimestampTz since;			/* when the first one began to wait */
	bool		ended;			/* before the end of the range */
} WaitedWalk;

static bool
visit(const PlaceRow *row, void *arg)
{
	WaitedWalk *walk = arg;
	TimestampTz since = walk->fresh ? row->enqueued_at : row->key;

	if (!row->wanted)
		return true;
	walk->ended = since > walk->until;
	if (walk->ended)
		return false;
	if (!slot_is_takeable(row->slot))
		return true;
	if (walk->found++ == 0)
	{
		walk->first = row->key;
		walk->since = since;
	}
	walk->last = row->key;
	walk->ended = walk->found >= walk->limit;
	return !walk->ended;
}

static void
walk_source(const Horizon *h, const Source *source, WaitedWalk *walk)
{
	Relation	rel = h->table.rel;
	const Place *place = &h->table.place;
	int64		from = source->from;
	Snapshot	snapshot;

	walk->fresh = source->fresh;
	if (source->leaf != NULL)
	{
		if (source->leaf->drained || leaf_ahead(source->leaf) || (rel = leaf_open(source->leaf)) == NULL)
			return;
		place = &source->leaf->description.place;
	}
	snapshot = look_snapshot();
	if (source->fresh && from < PG_INT64_MAX - FIRST_IDS)
	{
		place_walk(rel, place, snapshot, true, from, from + FIRST_IDS, visit, walk);
		from += FIRST_IDS + 1;
	}
	if (!walk->ended)
		place_walk(rel, place, snapshot, source->fresh, from,
				   source->fresh ? PG_INT64_MAX : walk->until, visit, walk);
	UnregisterSnapshot(snapshot);
	if (source->leaf != NULL)
		table_close(rel, AccessShareLock);
}

static void
find_oldest(const Horizon *h, Source *source, TimestampTz until)
{
	WaitedWalk	walk = {.until = until, .limit = 1};

	walk_source(h, source, &walk);
	source->known = true;
	source->since = walk.found > 0 ? walk.since : DT_NOEND;
	if (walk.found > 0)
		source->from = walk.first;
}

static void
begin_sources(Horizon *h)
{
	int			leaves = h->table.parts != NULL ? h->table.parts->nleaves : 1;
	int			i;

	h->waited = palloc(offsetof(Waited, sources) + sizeof(Source) * 2 * leaves);
	h->waited->turns = 0;
	h->waited->nsources = 2 * leaves;
	for (i = 0; i < 2 * leaves; i++)
	{
		bool		fresh = i % 2 == 1;

		h->waited->sources[i] = (Source) {
			.leaf = h->table.parts != NULL ? &h->table.parts->leaves[i / 2] : NULL,
			.fresh = fresh,
			.from = fresh ? h->floors.fresh : h->floors.due
		};
	}
}

/* The source with the oldest message, or NULL; "bound" is when that of the next one began to wait */
static Source *
oldest_source(Horizon *h, TimestampTz until, TimestampTz *bound)
{
	Source	   *oldest = NULL;
	int			i;

	*bound = until;
	for (i = 0; i < h->waited->nsources; i++)
	{
		Source	   *source = &h->waited->sources[i];

		if (!source->known)
			find_oldest(h, source, until);
		if (source->since == DT_NOEND)
			continue;
		if (oldest == NULL || source->since < oldest->since)
		{
			if (oldest != NULL)
				*bound = Min(*bound, oldest->since);
			oldest = source;
		}
		else
			*bound = Min(*bound, source->since);
	}
	return oldest;
}

/*
 * Where the messages are that have waited the longest, since "until" or longer, up to
 * "limit" of them; false if there are none.  The caller takes them.
 */
bool
horizon_next_waited(Horizon *h, TimestampTz until, int64 limit, HorizonRange *range, bool *fresh)
{
	Source	   *source;
	TimestampTz bound;

	h->table.place.rank = RANK_ALL;
	if (h->waited == NULL)
		begin_sources(h);
	source = oldest_source(h, until, &bound);
	if (source == NULL)
		return false;
	if (++h->waited->turns > WAITED_TURNS)
		bound = until;
	*fresh = source->fresh;
	range->leaf = source->leaf;
	range->from = source->from;
	range->until = bound;
	if (source->fresh)
	{
		WaitedWalk	walk = {.until = bound, .limit = limit};

		range->until = source->from;
		if (limit > 1)
			walk_source(h, source, &walk);
		if (walk.found > 0)
			range->until = walk.last;
	}
	source->from = range->until + 1;
	source->known = false;
	h->stated = true;
	horizon_add_leaf(h, range->leaf);
	h->noted |= positions_note_read(h->table.key);
	return true;
}
