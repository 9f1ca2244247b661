/*
 * streamparts.c
 *	  The parts of a stream's log: room for what will be published, and parts that end in time.
 *
 * No publisher needs a part: the default partition takes what has none.  premake.c makes parts of that, and argues why
 * no row is lost and no insert fails.  Parts differ from the partitions of a queue in their width.  A part that has filled
 * soon is followed by a wider one, so a busy stream does not get too many.
 *
 * An old part is emptied as a whole, so a part that fills slowly would keep its first events for too long.  Such a part
 * ends early: the ids that are left are drawn, and not used.  Ids need not be dense.  So no bounds change, no
 * table is scanned, and no lock is needed: publishers draw beside it, and one that gets an id of this part still
 * writes to it.  To set the sequence would take 50 ms less, but all open publishers would have to end for it.
 */
#include "pgmq.h"

#include "commands/sequence.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "stream/stream.h"
#include "admin/admin.h"
#include "upkeep/maintain.h"

/* Besides the part of the last id, there are so many */
#define PARTS_AHEAD 2

#define MOST_WIDTH (INT64CONST(1) << 24)

/* A part has an eighth of the retention.  One that fills in half of that is followed by a wider one. */
#define PARTS_OF_RETENTION 8

/* Ids that are so far away are not drawn while an invalidation is under way */
#define FAR_AWAY FIRST_WIDTH

/* ---- times ---- */

/* So long before a time; -infinity if that is before all times, or if the span has no end */
TimestampTz
streamparts_ago(TimestampTz time, const Interval *span)
{
	/* 25 hours, 31 days; ends of time are years away from those that the server knows */
	const double longest = (double) span->time + span->day * (25.0 * USECS_PER_HOUR) +
		span->month * (31.0 * USECS_PER_DAY);
	const double margin = 10.0 * DAYS_PER_YEAR * USECS_PER_DAY;

	if (TIMESTAMP_NOT_FINITE(time) || INTERVAL_NOT_FINITE(span) ||
		(double) time - longest < (double) MIN_TIMESTAMP + margin)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(time),
												   IntervalPGetDatum(span)));
}

static Interval
divided(const Interval *span, int by)
{
	return *DatumGetIntervalP(DirectFunctionCall2(interval_div, IntervalPGetDatum(span), Float8GetDatum(by)));
}

/*
 * When the first and the last event of a range of ids were published, of those that begin and end a shard.  False
 * if there is none.  The range is stable, or all that counts is the first one.
 */
bool
streamparts_span(const StreamLog *log, int64 from, int64 until, EventSpan *span)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		any = false;
	int			shard;

	for (shard = 0; shard < log->shards; shard++)
	{
		FoundEvent	first;
		FoundEvent	last;

		if (!log_next(log, snapshot, shard, from, until, &first) || !log_last_in(log, snapshot, shard, from, until, &last))
			continue;
		span->first_at = any ? Min(span->first_at, first.published_at) : first.published_at;
		span->last_at = any ? Max(span->last_at, last.published_at) : last.published_at;
		span->last_id = any ? Max(span->last_id, last.id) : last.id;
		any = true;
	}
	UnregisterSnapshot(snapshot);
	return any;
}

/* ---- how wide a part is ---- */

static int64
power_of_two(int64 width)
{
	return width <= FIRST_WIDTH ? FIRST_WIDTH : Min((int64) pg_nextpower2_64((uint64) width), MOST_WIDTH);
}

/* Whether a part that is full has filled in less than half of its time */
static bool
has_filled_soon(const StreamLog *log, const Partition *part, const Interval *retention)
{
	Interval	half = divided(retention, PARTS_OF_RETENTION * 2);
	EventSpan	span;

	/* One that has ended early has no events near its end */
	return streamparts_span(log, part->lower, part->upper - 1, &span) &&
		span.last_id >= part->upper - (part->upper - part->lower) / 8 &&
		span.first_at > streamparts_ago(span.last_at, &half);
}

/* By the last part that is full */
static int64
next_width(const StreamLog *log, const PartSet *set, int64 last_id, const Interval *retention)
{
	int			i;

	for (i = set->count - 1; i >= 0; i--)
	{
		const Partition *part = &set->partitions[i];

		if (part->upper > last_id + 1 || part->lower == PG_INT64_MIN)
			continue;
		return has_filled_soon(log, part, retention) ? power_of_two((part->upper - part->lower) * 2) :
			power_of_two(part->upper - part->lower);
	}
	return FIRST_WIDTH;
}

/* What upkeep_begin() does for a log; false if it is not that of a stream */
bool
streamparts_begin(Upkeep *upkeep)
{
	StreamSettings settings;
	StreamLog	log;

	if (!stream_is_registered(upkeep->name) || !stream_settings(upkeep->name, &settings))
		return false;
	upkeep->set = partset_get(queue_relid(upkeep->name, STREAM_TABLE));
	if (upkeep->set == NULL)
		return false;
	upkeep->end = log_open_to_end(upkeep->name, &log, &upkeep->last_id);
	upkeep->step.ids = next_width(&log, upkeep->set, upkeep->last_id, &settings.retention);
	upkeep->can_make = true;
	log_close(&log);
	return true;
}

/* The last id that a part may be needed for by now: of the parts ahead, and the next one that is missing */
int64
streamparts_reach(const Upkeep *upkeep)
{
	int64		key = upkeep->last_id + 1;
	int64		lower;
	int64		upper;
	int			ahead;

	for (ahead = 0; ahead <= PARTS_AHEAD; ahead++)
	{
		const Partition *part = partset_find(upkeep->set, key);

		if (part == NULL)
			return partset_room(upkeep->set, &upkeep->step, key, &lower, &upper) ? upper - 1 : key;
		if (part->upper == PG_INT64_MAX)
			return PG_INT64_MAX;
		key = part->upper;
	}
	return key - 1;
}

/* ---- steps ---- */

/* Make the next missing part; or the default one, if it was dropped */
bool
stream_ahead_step(Upkeep *upkeep)
{
	int64		key = upkeep->last_id + 1;
	int			ahead;

	if (!OidIsValid(upkeep->set->default_relid))
	{
		upkeep_lock(upkeep->set->parent, "ACCESS EXCLUSIVE");
		partmake_default(upkeep->set, NULL);
		return true;
	}
	for (ahead = 0; ahead <= PARTS_AHEAD; ahead++)
	{
		const Partition *part = partset_find(upkeep->set, key);
		int64		lower;
		int64		upper;

		if (part == NULL)
		{
			if (!partset_room(upkeep->set, &upkeep->step, key, &lower, &upper) || upper <= key)
				return false;
			/* The lock that this takes holds up the end, so sessions that wait are called when it is released */
			held_taken(upkeep->name, NULL);
			return premake_partition(upkeep, lower, upper, lower - FAR_AWAY <= upkeep->last_id);
		}
		if (part->upper == PG_INT64_MAX)
			return false;
		key = part->upper;
	}
	return false;
}

/* The part that ids are drawn for, if it is to end now; NULL if not */
static const Partition *
find_ending(const Upkeep *upkeep, const StreamLog *log)
{
	const Partition *part = partset_find(upkeep->set, upkeep->last_id);
	StreamSettings settings;
	Interval	eighth;
	EventSpan	span;

	/* Ids are not drawn up to where there is no part */
	if (part == NULL || part->upper == PG_INT64_MAX || partset_find(upkeep->set, part->upper) == NULL ||
		!stream_settings(upkeep->name, &settings))
		return NULL;
	eighth = divided(&settings.retention, PARTS_OF_RETENTION);
	if (!streamparts_span(log, part->lower, upkeep->last_id, &span) ||
		span.first_at > streamparts_ago(GetCurrentTimestamp(), &eighth))
		return NULL;
	return part;
}

/* End the part that ids are drawn for, when its first event has the age */
bool
stream_end_step(Upkeep *upkeep)
{
	StreamLog	log;
	const Partition *part;
	int64		last_id = upkeep->last_id;

	log_open(upkeep->name, &log);
	log_parts(&log);
	part = find_ending(upkeep, &log);
	if (part != NULL)
		draw_require_sequence(&log);
	while (part != NULL && last_id < part->upper - 1)
	{
		CHECK_FOR_INTERRUPTS();
		last_id = nextval_internal(log.sequence, false);
	}
	log_close(&log);
	return false;
}
