/*
 * lag.c
 *	  How far subscriptions are behind, and what holds a stream up: pgmq.stream_lag().
 *
 * The looks ask for no privilege on logs and positions: they show ids and times.  The caller needs SELECT on the tables that
 * list streams and subscriptions.
 */
#include "pgmq.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_stream_lag);

/* Waits for locks of all streams together, in milliseconds */
#define LOCK_BUDGET_MS 1000

/* Events are counted up to here; then the ids that follow are taken to be as dense */
#define COUNT_AT_MOST 1000

enum
{
	LAG_STREAM,
	LAG_SUBSCRIPTION,
	LAG_SHARD,
	LAG_PASSED_ID,
	LAG_LAST_ID,
	LAG_BEHIND,
	LAG_SECONDS_BEHIND,
	LAG_LEASED_UNTIL,
	LAG_HELD_UP_BY,
	LAG_COLUMNS
};

/* One stream, looked at once */
typedef struct LagStream
{
	StreamLog	log;
	int64		last_id;
	int64		end;
	char	   *held_up_by;		/* or NULL */
	Snapshot	snapshot;
	FoundEvent	last[MAX_SHARDS];	/* below the end; the id 0: there is none */
} LagStream;

static void
open_stream(const QueueName *name, LagStream *stream)
{
	int			shard;

	stream->end = log_open_to_end(name, &stream->log, &stream->last_id);
	stream->held_up_by = stream_held_up_by(&stream->log, stream->last_id, stream->end);
	stream->snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (shard = 0; shard < stream->log.shards; shard++)
	{
		if (!log_last(&stream->log, stream->snapshot, shard, stream->end - 1, &stream->last[shard]))
			stream->last[shard].id = 0;
	}
}

static void
close_stream(LagStream *stream)
{
	UnregisterSnapshot(stream->snapshot);
	log_close(&stream->log);
}

/* About how many events of the shard a subscription has not passed */
static int64
count_behind(const LagStream *stream, int shard, int64 passed_id)
{
	int64		last_id = stream->last[shard].id;
	int64		counted_to;
	int64		counted;

	if (passed_id >= last_id)
		return 0;
	counted = log_count(&stream->log, stream->snapshot, shard, passed_id + 1, last_id, COUNT_AT_MOST, &counted_to);
	if (counted < COUNT_AT_MOST)
		return counted;
	return counted + (int64) ((double) counted / (double) (counted_to - passed_id) * (double) (last_id - counted_to));
}

static double
seconds_behind(const LagStream *stream, int shard, int64 passed_id)
{
	FoundEvent	next;

	if (passed_id >= stream->last[shard].id ||
		!log_next(&stream->log, stream->snapshot, shard, passed_id + 1, stream->end - 1, &next))
		return 0;
	return Max(GetCurrentTimestamp() - next.published_at, 0) / (double) USECS_PER_SEC;
}

static HeapTuple
form_shard(TupleDesc desc, const LagStream *stream, const OwnRow *row, const ShardState *state)
{
	Datum		values[LAG_COLUMNS];
	bool		nulls[LAG_COLUMNS] = {false};
	int			shard = state->shard;

	values[LAG_STREAM] = row->values[0];
	values[LAG_SUBSCRIPTION] = row->values[1];
	values[LAG_SHARD] = Int32GetDatum(shard);
	values[LAG_PASSED_ID] = Int64GetDatum(state->passed_id);
	values[LAG_LAST_ID] = Int64GetDatum(stream->last[shard].id);
	nulls[LAG_LAST_ID] = stream->last[shard].id == 0;
	values[LAG_BEHIND] = Int64GetDatum(count_behind(stream, shard, state->passed_id));
	values[LAG_SECONDS_BEHIND] = Float8GetDatum(seconds_behind(stream, shard, state->passed_id));
	values[LAG_LEASED_UNTIL] = TimestampTzGetDatum(state->leased_until);
	nulls[LAG_LEASED_UNTIL] = state_is_free(state, GetCurrentTimestamp());
	nulls[LAG_HELD_UP_BY] = stream->held_up_by == NULL;
	values[LAG_HELD_UP_BY] = stream->held_up_by ? CStringGetTextDatum(stream->held_up_by) : (Datum) 0;
	return relcheck_row(desc, values, nulls);
}

/* The shards of a subscription, added to a list of tuples */
static List *
add_subscription(List *tuples, TupleDesc desc, const LagStream *stream, const OwnRow *row)
{
	Positions	positions;
	int			shard;

	positions_open(&stream->log.name, ownread_text(row, 1), &positions);
	for (shard = 0; shard < stream->log.shards; shard++)
	{
		ShardState	state;

		/* It can have been dropped meanwhile */
		if (state_read(&positions, shard, stream->snapshot, &state))
			tuples = lappend(tuples, form_shard(desc, stream, row, &state));
	}
	positions_close(&positions);
	return tuples;
}

/* The rows of one call, and which of them are about each stream */
typedef struct LagCall
{
	ReturnSetInfo *rsinfo;
	OwnRow	   *rows;
	ListedQueue *streams;
	uint64	   *first;			/* row, of each stream and behind the last one */
	int			count;
} LagCall;

/* A QueueVisit.  Rows of a stream that fails are not put. */
static void
visit_stream(const ListedQueue *listed, void *arg)
{
	const LagCall *call = arg;
	uint64		i = call->first[listed - call->streams];
	List	   *tuples = NIL;
	LagStream	stream;
	ListCell   *lc;

	SPI_connect();
	open_stream(&listed->name, &stream);
	for (; i < call->first[listed - call->streams + 1]; i++)
		tuples = add_subscription(tuples, call->rsinfo->setDesc, &stream, &call->rows[i]);
	close_stream(&stream);
	foreach(lc, tuples)
		tuplestore_puttuple(call->rsinfo->setResult, lfirst(lc));
	SPI_finish();
}

/* List the subscriptions, by stream and name: those of one stream, or of all */
static void
list_subscriptions(const QueueName *wanted, LagCall *call)
{
	static const char *const columns[] = {"stream_name", "subscription"};
	static const OwnKey by_name[] = {{0, C_COLLATION_OID, false}, {1, C_COLLATION_OID, false}};
	uint64		count = ownread(OWN_SUBSCRIPTION, VIEW_OF_LATEST, columns, lengthof(columns), &call->rows);
	uint64		found = 0;
	uint64		i;

	ownread_sort(call->rows, count, by_name, lengthof(by_name));
	call->streams = palloc_extended(sizeof(ListedQueue) * (count + 1), MCXT_ALLOC_HUGE);
	call->first = palloc_extended(sizeof(uint64) * (count + 1), MCXT_ALLOC_HUGE);
	call->count = 0;
	for (i = 0; i < count; i++)
	{
		OwnRow		row = call->rows[i];
		ListedQueue *listed = &call->streams[call->count];

		if (row.nulls[0] || row.nulls[1] || (wanted != NULL && !ownread_is_of(&row, 0, wanted)) ||
			!name_try_canonical(DatumGetTextPP(row.values[0]), &listed->name))
			continue;
		if (call->count == 0 || !ownread_is_of(&row, 0, &listed[-1].name))
		{
			listed->spelling = ownread_text(&row, 0);
			listed->table = STREAM_TABLE;
			call->first[call->count++] = found;
		}
		call->rows[found++] = row;
	}
	call->first[call->count] = found;
}

/* pgmq.stream_lag(stream_name text) -> SETOF record; NULL: of all streams, except those that cannot be used */
Datum
pgmq_stream_lag(PG_FUNCTION_ARGS)
{
	LagCall		call = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	QueueName	wanted;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	log_require_primary();
	if (PG_ARGISNULL(0))
	{
		list_subscriptions(NULL, &call);
		queues_visit(call.streams, call.count, LOCK_BUDGET_MS, false, visit_stream, &call);
		return (Datum) 0;
	}
	stream_from_arg(fcinfo, 0, &wanted);
	stream_require(&wanted);
	list_subscriptions(&wanted, &call);
	for (i = 0; i < call.count; i++)
		visit_stream(&call.streams[i], &call);
	return (Datum) 0;
}
