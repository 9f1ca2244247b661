/*
 * leaf.c
 *	  One partition: its condition in a statement, and which ids it may have.
 *
 * If a queue is partitioned by msg_id, the id determines the partition.  If it
 * is partitioned by time, ids still rise with time, except for messages that
 * were sent at the same moment.  So each partition has a range of ids, which is
 * looked up at the two ends of its index.  A partition is closed when no more
 * can be sent to it.  A send reads the clock when it has locked the queue's
 * table, so the argument of floors.c says when its sends are over.  Rows that
 * are written by hand can break that.  So ids that are not found where they
 * should be are searched for everywhere, and a rescan drops all that was
 * learned.
 */
#include "pgmq.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/datetime.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/partition.h"
#include "queue/place.h"

/* ---- one leaf ---- */

/* Whether the leaf is closed: no message will be sent to it any more */
bool
leaf_closed(const Leaf *leaf)
{
	const Partitions *parts = leaf->parts;

	if (leaf->is_default)
		return false;
	return parts->by_id ? leaf->last < parts->sent.fresh : leaf->last < parts->sent.due;
}

/* Whether the leaf is only for messages that had not been sent when the look began */
bool
leaf_ahead(const Leaf *leaf)
{
	return !leaf->is_default && leaf->first > leaf->parts->reach;
}

/*
 * Open it for a look; NULL if that is not possible.  table_close(rel,
 * AccessShareLock) releases the lock.
 */
Relation
leaf_open(Leaf *leaf)
{
	Relation	rel = try_table_open(leaf->relid, AccessShareLock);

	if (rel == NULL)
		return NULL;
	if (place_remember(rel, &leaf->description))
		return rel;
	table_close(rel, AccessShareLock);
	return NULL;
}

/*
 * Look up the range of its ids.  If a leaf is closed and its last transaction
 * has ended, its range does not change any more, and an empty leaf stays empty.
 */
void
leaf_learn_ids(Leaf *leaf, bool again)
{
	bool		closed = leaf_closed(leaf);
	Relation	rel;

	if (leaf->ids_known && !again)
		return;
	rel = leaf_open(leaf);
	if (rel == NULL)
	{
		/* It cannot be looked into, so it may have any ids */
		leaf->has_ids = true;
		leaf->lowest_id = PG_INT64_MIN;
		leaf->highest_id = PG_INT64_MAX;
		return;
	}
	leaf->has_ids = place_ids(rel, &leaf->description.place, &leaf->lowest_id, &leaf->highest_id);
	leaf->ids_known = closed;
	leaf->drained = closed && !leaf->has_ids && RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, AccessShareLock);
}

/* A message in it will be visible from "vt" on. */
void
leaf_note_due(Leaf *leaf, TimestampTz vt)
{
	leaf->due_at = Min(leaf->due_at, vt);
}

/* As a constant that means the same under every setting */
static char *
key_literal(const Partitions *parts, int64 key)
{
	char		buf[MAXDATELEN + 1];
	struct pg_tm tm;
	fsec_t		fsec;

	if (parts->by_id)
		return psprintf("'" INT64_FORMAT "'::bigint", key);
	if (!IS_VALID_TIMESTAMP(key))
		return psprintf("'%sinfinity'::timestamp with time zone", key < 0 ? "-" : "");
	if (timestamp2tm(key, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	tm.tm_isdst = 0;			/* or the time zone would be left out */
	EncodeDateTime(&tm, fsec, true, 0, NULL, USE_ISO_DATES, buf);
	return psprintf("'%s'::timestamp with time zone", buf);
}

/* The condition for one segment; empty if the segment contains all keys */
static char *
segment_condition(const Partitions *parts, const Segment *segment)
{
	const char *column = parts->column;
	char	   *from = "";
	char	   *until = "";

	if (segment->first > KEY_MIN)
		from = psprintf(" AND %s OPERATOR(pg_catalog.>=) %s", column,
						key_literal(parts, segment->first));
	if (segment->last < KEY_MAX)
		until = psprintf(" AND %s OPERATOR(pg_catalog.<=) %s", column,
						 key_literal(parts, segment->last));
	return psprintf("%s%s", from, until);
}

/*
 * A condition that is true for the messages of this leaf and for no others, to
 * be appended to another condition; palloc'd.  For the default partition it is
 * an OR of segments.
 */
char *
leaf_condition(const Leaf *leaf)
{
	const Partitions *parts = leaf->parts;
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	for (i = 0; i < parts->nsegments; i++)
	{
		if (parts->segments[i].leaf != leaf)
			continue;
		if (!leaf->is_default)
			return segment_condition(parts, &parts->segments[i]);
		appendStringInfo(&sql, "%s(true%s)", sql.len > 0 ? " OR " : " AND (",
						 segment_condition(parts, &parts->segments[i]));
	}
	appendStringInfoString(&sql, sql.len > 0 ? ")" : " AND false");
	return sql.data;
}

/* ---- which leaves may have the messages with certain ids ---- */

static void
add_range(IdRange **end, Leaf *leaf, int64 next, int64 last)
{
	if (next > last)
		return;
	(*end)->leaf = leaf;
	(*end)->next = next;
	(*end)->last = last;
	(*end)->seen = (*end)->blind = (*end)->stopped = (*end)->done = false;
	(*end)++;
}

/* The first segment that does not end below "key", or nsegments */
int
partitions_find(const Partitions *parts, int64 key)
{
	int			low = 0;
	int			high = parts->nsegments;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (parts->segments[middle].last < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The segment with this key, or NULL */
Segment *
partitions_segment(const Partitions *parts, int64 key)
{
	int			i = partitions_find(parts, key);

	return i < parts->nsegments && parts->segments[i].first <= key ? &parts->segments[i] : NULL;
}

/*
 * For queues partitioned by msg_id.  Leaves are looked into one after the
 * other, so later ones cost nothing while the first has enough.
 */
static void
ranges_by_id(Partitions *parts, int64 from, int64 until, bool likely, IdRange **end)
{
	int			first = partitions_find(parts, from);
	int			i;

	for (i = first; i < parts->nsegments; i++)
	{
		Segment    *segment = &parts->segments[i];

		if (segment->first > until || (likely && i > first + 1))
			break;
		if (!segment->leaf->drained && !leaf_ahead(segment->leaf))
			add_range(end, segment->leaf, Max(segment->first, from), Min(segment->last, until));
	}
}

/* By enqueued_at, all leaves that may have such an id */
static void
ranges_by_time(Partitions *parts, int64 from, int64 until, IdRange **end)
{
	int			i;

	for (i = 0; i < parts->nleaves; i++)
	{
		Leaf	   *leaf = &parts->leaves[i];

		if (leaf_ahead(leaf))
			continue;
		if (leaf_closed(leaf))
		{
			leaf_learn_ids(leaf, false);
			if (leaf->ids_known && !leaf->has_ids)
				continue;
		}
		if (leaf->ids_known)
			add_range(end, leaf, Max(leaf->lowest_id, from), Min(leaf->highest_id, until));
		else
			add_range(end, leaf, from, until);
	}
}

/* Whether all ids of a closed leaf are below "from"; an empty leaf counts like the one before it. */
static bool
ends_before(Partitions *parts, int low, int i, int64 from)
{
	for (; i >= low; i--)
	{
		Leaf	   *leaf = parts->segments[i].leaf;

		if (!leaf_closed(leaf))
			continue;
		leaf_learn_ids(leaf, false);
		if (leaf->has_ids)
			return leaf->highest_id < from;
	}
	return true;
}

/*
 * By enqueued_at, the leaves where they most likely are: the first one whose
 * ids reach as far, and the next.
 */
static void
likely_ranges_by_time(Partitions *parts, int64 from, int64 until, IdRange **end)
{
	TimestampTz now = GetCurrentTimestamp();
	int			low = 0;
	int			high = Min(partitions_find(parts, now), parts->nsegments - 1);
	int			added = 0;
	int			i;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (leaf_closed(parts->segments[middle].leaf) && ends_before(parts, low, middle, from))
			low = middle + 1;
		else
			high = middle;
	}
	for (i = low; i < parts->nsegments && added < 2; i++)
	{
		Leaf	   *leaf = parts->segments[i].leaf;

		if (added > 0 && parts->segments[i].first > now)
			break;
		if (leaf->is_default)
			continue;
		if (!leaf->has_ids)
			leaf_learn_ids(leaf, false);
		if (!leaf->has_ids && added > 0)
			continue;
		add_range(end, leaf, Max(leaf->has_ids ? leaf->lowest_id : from, from),
				  leaf->ids_known && leaf->has_ids ? Min(leaf->highest_id, until) : until);
		added++;
	}
	for (i = 0; i < parts->nleaves; i++)
	{
		if (parts->leaves[i].is_default && parts->leaves[i].rows_likely)
			add_range(end, &parts->leaves[i], from, until);
	}
}

/*
 * The ranges of ids in from .. until, by leaf, where there are messages, or are
 * likely to be.  Returns their number.
 */
int
partitions_ids(Partitions *parts, int64 from, int64 until, bool likely, IdRange **ranges)
{
	IdRange    *end;

	end = *ranges = palloc(sizeof(IdRange) * (parts->nsegments + parts->nleaves + 2));
	if (parts->by_id)
		ranges_by_id(parts, from, until, likely, &end);
	else if (likely)
		likely_ranges_by_time(parts, from, until, &end);
	else
		ranges_by_time(parts, from, until, &end);
	return (int) (end - *ranges);
}
