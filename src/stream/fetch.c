/*
 * fetch.c
 *	  Read events: the statement, one part after the other; and pgmq.fetch().
 *
 * The statement names the log, and the bounds of one part are constants in it.  So its plan has that part only, and the
 * rights and policies are those of the log (see partition.c).
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_fetch);

/* $1 shard, $2 and $3 the ids, $4 how many */
static const PlanSpec events_plan = {
	PLAN_EVENTS,
	"SELECT shard, event_id, published_at, key, message, headers FROM {stream}"
	" WHERE shard OPERATOR(pg_catalog.=) $1"
	" AND event_id OPERATOR(pg_catalog.>=) $2 AND event_id OPERATOR(pg_catalog.<=) $3{leaf}"
	" ORDER BY event_id LIMIT $4",
	4, {INT4OID, INT8OID, INT8OID, INT8OID}
};

/*
 * Events of a shard in from .. until, as the caller may see them; how many.  The caller has computed "until"
 * by the end of the log, then listed the parts.  Parts without events of the shard are not asked.  Without a set, they
 * are only counted.
 */
int64
events_read(const StreamLog *log, int shard, int64 from, int64 until, int64 limit, EventSet *set)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		count = 0;
	FoundEvent	next;

	while (count < limit && log_next(log, snapshot, shard, from, until, &next))
	{
		const Segment *segment = partitions_segment(log->parts, next.id);
		int64		last = Min(segment->last, until);
		Datum		values[] = {Int32GetDatum(shard), Int64GetDatum(next.id), Int64GetDatum(last),
		Int64GetDatum(limit - count)};

		CHECK_FOR_INTERRUPTS();
		count += (int64) plan_run_latest_leaf(&log->name, &events_plan, segment->leaf, values, NULL,
												 set ? events_dest(set) : None_Receiver);
		if (last == until)
			break;
		from = last + 1;
	}
	UnregisterSnapshot(snapshot);
	return count;
}

static void
require_fetch_args(FunctionCallInfo fcinfo, int64 *after_id)
{
	int			i;

	for (i = 1; i <= 3; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("shard, after_id and qty must not be NULL")));
	}
	if (PG_GETARG_INT32(3) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("qty must not be negative")));
	*after_id = Max(PG_GETARG_INT64(2), 0);
}

/* pgmq.fetch(stream_name text, shard integer, after_id bigint, qty integer) -> SETOF pgmq.event_record */
Datum
pgmq_fetch(PG_FUNCTION_ARGS)
{
	EventSet   *set = events_set(fcinfo);
	QueueName	name;
	StreamLog	log;
	int64		after_id;
	int64		last_id;
	int64		end;

	stream_from_arg(fcinfo, 0, &name);
	require_fetch_args(fcinfo, &after_id);
	SPI_connect();
	stream_require(&name);
	rights_require_select(queue_relid(&name, STREAM_TABLE), NULL, 0);
	end = log_open_to_end(&name, &log, &last_id);
	if (PG_GETARG_INT32(1) < 0 || PG_GETARG_INT32(1) >= log.shards)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no shard %d", name.canonical, PG_GETARG_INT32(1)),
				 errhint("Its shards are 0 to %d.", log.shards - 1)));
	if (after_id > last_id)
		end_refuse_sequence(&log, psprintf("Its last value is " INT64_FORMAT ", and events after " INT64_FORMAT " are asked for.",
										   last_id, after_id));
	(void) events_read(&log, PG_GETARG_INT32(1), after_id + 1, end - 1, PG_GETARG_INT32(3), set);
	log_close(&log);
	SPI_finish();
	return (Datum) 0;
}
