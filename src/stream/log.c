/*
 * log.c
 *	  The log of a stream, opened; looks into it without a statement.
 *
 * 1. The order is: open the log, find its end (end.c), then list its parts, then take a snapshot.  A part that has an
 *	  event below the end is then in the list.  Maintenance attaches a part that ids can be in soon only while no publisher
 *	  has the log locked.  So the publisher's lock came after that of maintenance, which was released when all
 *	  sessions could know of the part.
 * 2. The log stays locked as a reader does, from before the list until the caller is done.  Meanwhile no part is dropped
 *	  and no row is moved.
 * 3. A look sees what its snapshot sees.  It asks for no privilege, and no row-level security applies: it says where to look, and
 *	  the statement decides what the caller gets.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "stream/internal.h"

/* "Up to a second earlier": published_at and ids have the same order within that */
#define TIME_MARGIN USECS_PER_SEC

static void
refuse_log(const QueueName *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("table %s is not the log that create_stream() makes", name_table(name, STREAM_TABLE)),
			 errdetail("%s", detail)));
}

void
log_require_primary(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streams cannot be read on a standby"),
				 errdetail("Which transactions are still open is known on the primary only.")));
}

/* Open the log and lock it as a reader does.  The caller's rights were checked. */
void
log_open(const QueueName *name, StreamLog *log)
{
	log_require_primary();
	log->name = *name;
	log->parts = NULL;
	log->rel = queue_open_table(name, STREAM_TABLE, AccessShareLock, NULL);
	if (log->rel == NULL)
	{
		stream_require(name);
		elog(ERROR, "the log of stream \"%s\" cannot be opened", name->canonical);
	}
	if (log->rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		refuse_log(name, "It is not partitioned.");
	log->sequence = queue_sequence(name, STREAM_TABLE, log->rel);
	if (!OidIsValid(log->sequence))
		refuse_log(name, "Its column event_id has no sequence.");
	/* Under the lock: before that, the stream could be dropped and made again with another number */
	log->shards = stream_shards(name);
}

void
log_close(StreamLog *log)
{
	relation_close(log->rel, AccessShareLock);
}

/* List the parts (1).  The list is good until the current SPI call ends. */
void
log_parts(StreamLog *log)
{
	AcceptInvalidationMessages();
	log->parts = partitions_open(log->rel);
	if (log->parts == NULL || strcmp(log->parts->column, "event_id") != 0)
		refuse_log(&log->name, "It is not partitioned by ranges of event_id.");
}

/* ---- one part ---- */

typedef struct PartScan
{
	Relation	rel;
	Relation	index;
	SysScanDesc scan;
	AttrNumber	id_attno;
	AttrNumber	time_attno;
} PartScan;

/* The index on (shard, event_id), opened */
static Relation
open_index(Relation rel, AttrNumber shard, AttrNumber event_id)
{
	const IndexKey keys[] = {{shard, INT4OID, InvalidOid}, {event_id, INT8OID, InvalidOid}};
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (relcheck_index(index, RelationGetRelid(rel), keys, lengthof(keys)) && relcheck_index_is_whole(index))
		{
			list_free(indexes);
			return index;
		}
		index_close(index, AccessShareLock);
	}
	return NULL;
}

static void
part_begin(PartScan *scan, const StreamLog *log, Oid part, Snapshot snapshot, int shard, int64 from, int64 until)
{
	TupleDesc	desc;
	AttrNumber	shard_attno;
	ScanKeyData keys[3];

	scan->rel = table_open(part, AccessShareLock);
	desc = RelationGetDescr(scan->rel);
	shard_attno = relcheck_column(desc, "shard", INT4OID);
	scan->id_attno = relcheck_column(desc, "event_id", INT8OID);
	scan->time_attno = relcheck_column(desc, "published_at", TIMESTAMPTZOID);
	if (!relcheck_is_heap(scan->rel) || shard_attno == InvalidAttrNumber ||
		scan->id_attno == InvalidAttrNumber || scan->time_attno == InvalidAttrNumber)
		refuse_log(&log->name, "A part of it is not an ordinary table with these columns.");
	scan->index = open_index(scan->rel, shard_attno, scan->id_attno);
	if (scan->index == NULL)
		refuse_log(&log->name, "A part of it has no index on (shard, event_id).");
	ScanKeyInit(&keys[0], shard_attno, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(shard));
	ScanKeyInit(&keys[1], scan->id_attno, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&keys[2], scan->id_attno, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(until));
	scan->scan = systable_beginscan_ordered(scan->rel, scan->index, snapshot, lengthof(keys), keys);
}

static bool
part_next(PartScan *scan, ScanDirection direction, FoundEvent *found)
{
	HeapTuple	tuple = systable_getnext_ordered(scan->scan, direction);
	TupleDesc	desc = RelationGetDescr(scan->rel);
	bool		isnull;
	Datum		time;

	CHECK_FOR_INTERRUPTS();
	if (!HeapTupleIsValid(tuple))
		return false;
	found->id = DatumGetInt64(heap_getattr(tuple, scan->id_attno, desc, &isnull));
	time = heap_getattr(tuple, scan->time_attno, desc, &isnull);
	found->published_at = isnull ? DT_NOBEGIN : DatumGetTimestampTz(time);
	return true;
}

static void
part_end(PartScan *scan)
{
	systable_endscan_ordered(scan->scan);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, AccessShareLock);
}

static bool
part_first(const StreamLog *log, const Segment *segment, Snapshot snapshot, int shard, int64 from, int64 until,
		   ScanDirection direction, FoundEvent *found)
{
	PartScan	scan;
	bool		any;

	part_begin(&scan, log, segment->leaf->relid, snapshot, shard, Max(from, segment->first), Min(until, segment->last));
	any = part_next(&scan, direction, found);
	part_end(&scan);
	return any;
}

/* ---- all parts ---- */

/* The first event of a shard in from .. until */
bool
log_next(const StreamLog *log, Snapshot snapshot, int shard, int64 from, int64 until, FoundEvent *found)
{
	int			i;

	for (i = partitions_find(log->parts, from);
		 i < log->parts->nsegments && log->parts->segments[i].first <= until && from <= until; i++)
	{
		if (part_first(log, &log->parts->segments[i], snapshot, shard, from, until, ForwardScanDirection, found))
			return true;
	}
	return false;
}

/* The last event of a shard in from .. until */
bool
log_last_in(const StreamLog *log, Snapshot snapshot, int shard, int64 from, int64 until, FoundEvent *found)
{
	int			i;

	for (i = log->parts->nsegments - 1; i >= 0 && log->parts->segments[i].last >= from; i--)
	{
		if (log->parts->segments[i].first <= until &&
			part_first(log, &log->parts->segments[i], snapshot, shard, from, until, BackwardScanDirection, found))
			return true;
	}
	return false;
}

bool
log_last(const StreamLog *log, Snapshot snapshot, int shard, int64 until, FoundEvent *found)
{
	return log_last_in(log, snapshot, shard, PG_INT64_MIN, until, found);
}

/*
 * An id of which is known: events of the shard up to it were published before "time", and no event
 * above it was published more than a second earlier.  Not above "until".  It looks at
 * the halves of the ids that are left.
 */
int64
log_before(const StreamLog *log, Snapshot snapshot, int shard, TimestampTz time, int64 until)
{
	int64		low = 1;
	int64		high = until + 1;

	if (TIMESTAMP_IS_NOBEGIN(time))
		return 0;
	if (TIMESTAMP_IS_NOEND(time))
		return until;
	time -= TIME_MARGIN / 2;
	while (low < high)
	{
		int64		middle = low + (high - low) / 2;
		FoundEvent	found;

		if (log_next(log, snapshot, shard, middle, until, &found) && found.published_at < time)
			low = found.id + 1;
		else
			high = middle;
	}
	return low - 1;
}

/* How many events of a shard are in from .. until, counted up to "most"; and the last one that was counted */
int64
log_count(const StreamLog *log, Snapshot snapshot, int shard, int64 from, int64 until, int64 most, int64 *last)
{
	int64		count = 0;
	int			i;

	*last = from - 1;
	for (i = partitions_find(log->parts, from);
		 i < log->parts->nsegments && log->parts->segments[i].first <= until && count < most; i++)
	{
		const Segment *segment = &log->parts->segments[i];
		PartScan	scan;
		FoundEvent	found;

		part_begin(&scan, log, segment->leaf->relid, snapshot, shard,
				   Max(from, segment->first), Min(until, segment->last));
		while (count < most && part_next(&scan, ForwardScanDirection, &found))
		{
			*last = found.id;
			count++;
		}
		part_end(&scan);
	}
	return count;
}

/* ---- the sequence ---- */

/*
 * The logs of which this session knows that no event is above the last id, and since when.  Rows that replication writes
 * do not move the sequence, so it looks again from time to time; and at once if the last id is lower than it was.
 *
 * A publisher also compares the positions, once in a session and when the log has changed.  After a restart there is no listing,
 * and if TRUNCATE has left no event, only they say how far the ids had come.  Other calls compare their own position.
 */
#define CHECKED_LOGS 64
#define CHECK_INTERVAL USECS_PER_SEC

static struct
{
	uint64		changes;
	int64		at;				/* by ticks() */
	int64		last_id;
	Oid			relid;
	bool		positions;		/* they were compared, too */
}			Checked[CHECKED_LOGS];

/* Whether there is an event above the last id of the sequence, which moves meanwhile */
static bool
event_beyond(StreamLog *log, FoundEvent *found)
{
	int64		last_id = end_last_id(log);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		beyond = false;
	int			shard;

	for (shard = 0; shard < log->shards && !beyond; shard++)
		beyond = log_next(log, snapshot, shard, last_id + 1, PG_INT64_MAX, found) && found->id > end_last_id(log);
	UnregisterSnapshot(snapshot);
	return beyond;
}

/* At the first use of a log in this session, when it has changed, and once a second.  Its parts are listed. */
void
log_check_sequence(StreamLog *log)
{
	Oid			relid = RelationGetRelid(log->rel);
	int			i = (int) (relid % CHECKED_LOGS);
	uint64		changes = changes_of_relation(relid);
	FoundEvent	found;
	int64		last_id;

	if (Checked[i].relid == relid && Checked[i].changes == changes && ticks() < Checked[i].at + CHECK_INTERVAL)
		return;
	last_id = end_last_id(log);
	if (event_beyond(log, &found))
		end_refuse_sequence(log, psprintf("Its last value is " INT64_FORMAT ", and there is an event " INT64_FORMAT ".",
										  end_last_id(log), found.id));
	Checked[i].positions = Checked[i].positions && Checked[i].relid == relid && Checked[i].changes == changes;
	Checked[i].relid = relid;
	Checked[i].changes = changes;
	Checked[i].at = ticks();
	Checked[i].last_id = last_id;
}

/* For a call that will publish; the log was checked */
void
log_check_positions(StreamLog *log)
{
	int			i = (int) (RelationGetRelid(log->rel) % CHECKED_LOGS);
	int64		passed_id;

	if (Checked[i].positions || !positions_highest(&log->name, log->shards, &passed_id))
		return;
	if (passed_id > end_last_id(log))
		end_refuse_sequence(log, psprintf("Its last value is " INT64_FORMAT ", and a subscription has passed event " INT64_FORMAT ".",
										  end_last_id(log), passed_id));
	Checked[i].positions = true;
}

/* The log was checked, and now its last id is this one */
void
log_check_last_id(StreamLog *log, int64 last_id)
{
	Oid			relid = RelationGetRelid(log->rel);
	int			i = (int) (relid % CHECKED_LOGS);

	if (Checked[i].relid == relid && last_id < Checked[i].last_id)
	{
		Checked[i].relid = InvalidOid;
		log_check_sequence(log);
		log_check_positions(log);
	}
	else if (Checked[i].relid == relid)
		Checked[i].last_id = last_id;
}

/* All of it: the end, and the parts.  The caller takes its snapshot next. */
int64
log_open_to_end(const QueueName *name, StreamLog *log, int64 *last_id)
{
	int64		end;

	log_open(name, log);
	end = stream_end(log, last_id);
	log_parts(log);
	log_check_sequence(log);
	return end;
}
