/*
 * streamretention.c
 *	  When old events of a stream go.
 *
 * 1. Retention is a minimum age.  Parts go as a whole, each when its last events are old enough.  published_at and ids
 *	  have the same order within a second, so that second is added.
 * 2. With keep_unconsumed, a part stays for longer while a subscription has an event in it that it has not passed.
 * 3. First a part is emptied, then it is dropped.  To empty it locks no more than the part, which publishers and most
 *	  consumers do not touch.  To drop it locks the log as well, and may have to wait for a moment without open consumers.
 *	  So events go in time however busy the stream is, and publishers wait behind the second step only: for
 *	  pgmq.maintenance_lock_timeout at most, because all waits of the step together are no longer.
 * 4. Only a part whose ids are all stable is emptied: no publisher can still write to it.  The lock on the part keeps
 *	  off sessions that write to it by hand.  passed_lock() keeps positions from moving back, and settings from changing, from
 *	  before the check until the step has ended.
 * 5. Events that a subscription has not passed are counted for it.  To count them can take long, so it is done before
 *	  the locks are taken.  Under the locks the difference is counted, of positions that have moved meanwhile.
 * 6. A part that is emptied gets another name.  TRUNCATE is seen by snapshots that are older, such as that of a dump which
 *	  has not locked its tables yet.  It would lack the events, but have positions from before they were passed.  A dump
 *	  locks tables by name, so it fails instead, as it does when a part is dropped.
 *
 * A consumer that comes to an emptied part goes on with the first event that remains.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "stream/stream.h"
#include "admin/admin.h"
#include "upkeep/maintain.h"

PG_FUNCTION_INFO_V1(pgmq_set_stream_retention);

/* How far published_at can be from the order of ids */
#define ORDER_MARGIN USECS_PER_SEC

/* So many events are counted under the locks */
#define COUNT_AT_MOST 10000

/* A part that is looked at */
typedef struct OldPart
{
	const Partition *part;
	const char *name;			/* quoted and qualified */
	Behind	   *behind;
	int			nbehind;
} OldPart;

/* ---- locks: all waits of a step together are no longer than one may be ---- */

static int64
begin_waiting(void)
{
	return ticks() + maintain_lock_timeout * INT64CONST(1000);
}

static void
limit_waiting(int64 until)
{
	set_lock_timeout((int) Max((until - ticks()) / 1000, 1));
}

/* Lock a part of the log; an error if it is no longer that part */
static void
lock_part(const Upkeep *upkeep, const OldPart *old, int64 until)
{
	PartSet    *set;
	const Partition *now;

	limit_waiting(until);
	upkeep_lock(old->name, "ACCESS EXCLUSIVE");
	set = partset_get(upkeep->set->relid);
	now = set ? partset_find(set, old->part->lower) : NULL;
	if (now == NULL || now->relid != old->part->relid || now->upper != old->part->upper ||
		!CheckRelationOidLockedByMe(now->relid, AccessExclusiveLock, false))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("partitions of %s were changed concurrently", upkeep->set->parent)));
}

/* ---- is a part due? ---- */

/* Whether its events are to go now, as far as it is known; and which subscriptions have not passed them */
static bool
is_due(const Upkeep *upkeep, const StreamLog *log, OldPart *old)
{
	int64		from = old->part->lower;
	int64		until = old->part->upper - 1;
	StreamSettings settings;
	EventSpan	span;
	TimestampTz kept_since;
	Snapshot	snapshot;

	if (!stream_settings(upkeep->name, &settings) || !streamparts_span(log, from, until, &span))
		return false;
	kept_since = streamparts_ago(GetCurrentTimestamp() - ORDER_MARGIN, &settings.retention);
	if (span.last_at > kept_since)
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	old->behind = passed_behind(log, snapshot, from, until, &old->nbehind);
	UnregisterSnapshot(snapshot);
	return old->nbehind == 0 || !settings.keeps ||
		span.last_at <= streamparts_ago(kept_since, &settings.keep_unconsumed);
}

/* ---- events that a subscription loses ---- */

/* By an index-only scan where that is possible.  Policies must not hide events from the owner. */
static int64
count_events(const OldPart *old, const Behind *behind)
{
	const char *args[] = {psprintf("%d", behind->shard), psprintf(INT64_FORMAT, behind->passed_id)};
	OwnerScope	scope;
	char	   *count;

	owner_pass_policies(&scope);
	count = run_for_text(psprintf("SELECT pg_catalog.count(*) FROM ONLY %s"
								  " WHERE shard OPERATOR(pg_catalog.=) $1::pg_catalog.int4"
								  " AND event_id OPERATOR(pg_catalog.>) $2::pg_catalog.int8", old->name),
						 lengthof(args), args);
	owner_end(&scope);
	return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(count)));
}

/* Most subscriptions that have not passed a part are before all of it: they lose the same */
static void
count_all(OldPart *old)
{
	int			i;
	int			j;

	for (i = 0; i < old->nbehind; i++)
	{
		Behind	   *behind = &old->behind[i];

		for (j = 0; j < i && (old->behind[j].shard != behind->shard ||
							  old->behind[j].passed_id != behind->passed_id); j++)
			;
		CHECK_FOR_INTERRUPTS();
		behind->events = j < i ? old->behind[j].events : count_events(old, behind);
	}
}

/* How many events are between two positions; an error if those are too many to be counted now */
static int64
count_between(const StreamLog *log, Snapshot snapshot, int shard, int64 passed_id, int64 until)
{
	int64		last;
	int64		count = log_count(log, snapshot, shard, passed_id + 1, until, COUNT_AT_MOST, &last);

	if (count >= COUNT_AT_MOST)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("positions of stream \"%s\" were moved concurrently", log->name.canonical)));
	return count;
}

static int64
recount(const StreamLog *log, Snapshot snapshot, const Behind *now, const OldPart *before)
{
	int			i;

	for (i = 0; i < before->nbehind; i++)
	{
		const Behind *then = &before->behind[i];

		if (then->shard != now->shard || strcmp(then->subscription, now->subscription) != 0)
			continue;
		if (now->passed_id >= then->passed_id)
			return then->events - count_between(log, snapshot, now->shard, then->passed_id, now->passed_id);
		return then->events + count_between(log, snapshot, now->shard, now->passed_id, then->passed_id);
	}
	return count_between(log, snapshot, now->shard, now->passed_id, before->part->upper - 1);
}

/* Positions as they are under the locks */
static void
recount_all(const StreamLog *log, OldPart *old, const OldPart *before)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			i;

	for (i = 0; i < old->nbehind; i++)
		old->behind[i].events = recount(log, snapshot, &old->behind[i], before);
	UnregisterSnapshot(snapshot);
}

static void
record_dropped(const Upkeep *upkeep, const OldPart *old)
{
	int			i;

	for (i = 0; i < old->nbehind; i++)
	{
		const char *args[] = {
			psprintf("%s;%s", upkeep->name->canonical, old->behind[i].subscription),
			psprintf(INT64_FORMAT, old->behind[i].events)
		};

		if (old->behind[i].events > 0)
			(void) stream_write_rows(OWN_SUBSCRIPTION, "UPDATE pgmq.subscription"
									 " SET dropped_events = dropped_events OPERATOR(pg_catalog.+) $2::pg_catalog.int8"
									 " WHERE identity OPERATOR(pg_catalog.=) $1", lengthof(args), args);
	}
}

/* ---- steps ---- */

/* Give an emptied part another name (6) */
static void
rename_part(const Upkeep *upkeep, const OldPart *old)
{
	char	   *relname = partmake_name(upkeep->set, NULL, old->part->lower, true);

	if (relname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("could not empty %s", old->name),
				 errdetail("It must be renamed, and other relations have all the names that it can get.")));
	run_ddl("ALTER TABLE %s RENAME TO %s", old->name, quote_identifier(relname));
}

/* Under all locks; the part may not be due any more */
static void
empty_part(Upkeep *upkeep, const OldPart *before)
{
	int64		until = begin_waiting();
	OldPart		old = *before;
	StreamLog	log;

	limit_waiting(until);
	passed_lock(upkeep->name);
	lock_part(upkeep, &old, until);
	limit_waiting(until);
	log_open(upkeep->name, &log);
	log_parts(&log);
	if (is_due(upkeep, &log, &old))
	{
		recount_all(&log, &old, before);
		record_dropped(upkeep, &old);
		run_ddl("TRUNCATE TABLE ONLY %s", old.name);
		rename_part(upkeep, &old);
	}
	log_close(&log);
}

/* The next part all of whose ids are stable; NULL: there is no more.  Each is found once in a call. */
static const Partition *
next_stable(Upkeep *upkeep)
{
	int			i;

	for (i = 0; i < upkeep->set->count; i++)
	{
		const Partition *part = &upkeep->set->partitions[i];

		if (part->lower < *upkeep->position || part->upper > upkeep->end || part->lower == PG_INT64_MIN)
			continue;
		*upkeep->position = part->lower + 1;
		return part;
	}
	return NULL;
}

/* Empty the next part that is due, one in each transaction */
bool
stream_empty_step(Upkeep *upkeep)
{
	OldPart		old = {0};
	StreamLog	log;
	bool		due = false;

	log_open(upkeep->name, &log);
	log_parts(&log);
	while (!due && (old.part = next_stable(upkeep)) != NULL)
	{
		old.name = partset_relation(old.part->relid);
		due = old.name != NULL && is_due(upkeep, &log, &old);
	}
	log_close(&log);
	if (due)
	{
		count_all(&old);
		empty_part(upkeep, &old);
	}
	return due;
}

static bool
is_empty(const char *part)
{
	OwnerScope	scope;
	bool		empty;

	owner_pass_policies(&scope);
	empty = run_with_texts(psprintf("SELECT FROM ONLY %s LIMIT 1", part), 0, NULL) == 0;
	owner_end(&scope);
	return empty;
}

/* Drop the next part that is empty, one in each transaction */
bool
stream_drop_step(Upkeep *upkeep)
{
	OldPart		old = {0};
	int64		until;

	do
	{
		old.part = next_stable(upkeep);
		old.name = old.part ? partset_relation(old.part->relid) : NULL;
	} while (old.part != NULL && (old.name == NULL || !is_empty(old.name)));
	if (old.part == NULL)
		return false;
	until = begin_waiting();
	upkeep_lock(upkeep->set->parent, "ACCESS EXCLUSIVE");
	lock_part(upkeep, &old, until);
	limit_waiting(until);
	if (is_empty(old.name))
		run_ddl("DROP TABLE %s", old.name);
	return true;
}

/* ---- pgmq.set_stream_retention() ---- */

/* pgmq.set_stream_retention(stream_name text, retention interval, keep_unconsumed interval) -> void */
Datum
pgmq_set_stream_retention(PG_FUNCTION_ARGS)
{
	QueueName	name;
	const char *args[3];

	stream_from_arg(fcinfo, 0, &name);
	args[0] = name.canonical;
	args[1] = stream_interval_arg(fcinfo, 1, "retention", true);
	args[2] = stream_interval_arg(fcinfo, 2, "keep_unconsumed", false);
	PreventCommandIfReadOnly("pgmq.set_stream_retention()");
	stream_require(&name);
	rights_require_owner(queue_relid(&name, STREAM_TABLE));
	SPI_connect();
	lock_queue(&name);
	stream_require(&name);
	rights_require_owner(queue_relid(&name, STREAM_TABLE));
	passed_hold(&name);
	(void) stream_write_rows(OWN_STREAM, "UPDATE pgmq.stream SET retention = $2::pg_catalog.interval,"
							 " keep_unconsumed = $3::pg_catalog.interval WHERE identity OPERATOR(pg_catalog.=) $1",
							 lengthof(args), args);
	SPI_finish();
	PG_RETURN_VOID();
}
