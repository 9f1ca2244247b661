/*
 * publish.c
 *	  Publish events.
 *
 * The statement is an ordinary INSERT, with the rights of the caller, and knows no subscription.  Its ids are known
 * before it runs (draw.c), so it returns nothing, and INSERT is the only privilege that it needs.
 */
#include "pgmq.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_publish);
PG_FUNCTION_INFO_V1(pgmq_publish_batch);

/* $1 event_id, $2 shard, $3 published_at, $4 key, $5 message, $6 headers */
static const PlanSpec publish_one = {
	PLAN_PUBLISH,
	"INSERT INTO {stream} (event_id, shard, published_at, key, message, headers) OVERRIDING SYSTEM VALUE"
	" VALUES ($1, $2, $3, $4, $5, $6)",
	6, {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID, JSONBOID, JSONBOID}
};

/*
 * The same of arrays, but of the time.  In a FROM clause, each array would go through a tuplestore.  An array that is
 * NULL gives NULLs, as one that is too short.  The columns are in the order of the table's: then the plan needs no step
 * that brings them into it.
 */
#define PUBLISH_MANY(shard) \
	"INSERT INTO {stream} (event_id, published_at, shard, key, message, headers) OVERRIDING SYSTEM VALUE" \
	" SELECT pg_catalog.unnest($1), $3, " shard ", pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)"

static const PlanSpec publish_many = {
	PLAN_PUBLISH_BATCH, PUBLISH_MANY("pg_catalog.unnest($2)"),
	6, {INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID}
};

/* The same with one shard for all */
static const PlanSpec publish_many_to_one = {
	PLAN_PUBLISH_BATCH_TO_ONE, PUBLISH_MANY("$2"),
	6, {INT8ARRAYOID, INT4OID, TIMESTAMPTZOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID}
};

/* Open the log for a publisher: rights come before the first lock */
static void
open_to_publish(const QueueName *name, StreamLog *log)
{
	PreventCommandIfReadOnly("pgmq.publish()");
	stream_require(name);
	rights_require_columns(queue_relid(name, STREAM_TABLE), ACL_INSERT, NULL, 0);
	log_open(name, log);
	log_parts(log);
	log_check_sequence(log);
	log_check_positions(log);
}

/* Ids from first to last have a part of their own.  It cannot go as long as the log is locked. */
static bool
have_part(const StreamLog *log, int64 first, int64 last)
{
	const Segment *segment = partitions_segment(log->parts, first);

	return segment != NULL && segment->last >= last && !segment->leaf->is_default;
}

/*
 * Lock the log as a publisher does, until the transaction ends, for a call that publishes to it later; false if there is
 * no such stream.  What follows finds that it has the lock, and a record (draw.c).
 */
bool
stream_lock(const QueueName *name)
{
	char	   *table = name_bare(name, STREAM_TABLE, "");
	StreamLog	log;

	if (strlen(table) >= NAMEDATALEN ||
		!OidIsValid(RangeVarGetRelid(makeRangeVar(PGMQ_SCHEMA, table, -1), AccessShareLock, true)))
		return false;
	SPI_connect();
	open_to_publish(name, &log);
	(void) draw_begin(&log);
	log_close(&log);
	SPI_finish();
	return true;
}

/*
 * Insert events with ids from first to last, and close the log, which stays locked as by any INSERT.  If they may go to
 * the default part, it is held meanwhile (see leaflock.c).
 */
static uint64
insert_events(StreamLog *log, int64 first, int64 last, const PlanSpec *spec, const Datum *values, const bool *nulls)
{
	Oid			held = have_part(log, first, last) ? InvalidOid : default_hold(&log->name, STREAM_TABLE);
	uint64		published;

	log_close(log);
	published = plan_run(&log->name, spec, values, nulls, None_Receiver);
	default_release(held);
	return published;
}

/*
 * Publish one event: its message, key and headers.  0 if a trigger has suppressed the insert.  The caller has connected
 * to SPI.
 */
uint64
stream_publish_one(const QueueName *name, const NullableDatum *event, int64 *id)
{
	StreamLog	log;
	Datum		values[6];
	bool		nulls[6] = {false};

	open_to_publish(name, &log);
	values[2] = TimestampTzGetDatum(draw_ids(&log, id, 1));
	values[0] = Int64GetDatum(*id);
	values[1] = Int32GetDatum(event[1].isnull ? shard_of_id(*id, log.shards) :
							  shard_of_key(DatumGetTextPP(event[1].value), log.shards));
	values[3] = event[1].value;
	values[4] = event[0].value;
	values[5] = event[2].value;
	nulls[3] = event[1].isnull;
	nulls[4] = event[0].isnull;
	nulls[5] = event[2].isnull;
	return insert_events(&log, *id, *id, &publish_one, values, nulls);
}

/* ---- batches ---- */

/* How many elements an array has; 0 for NULL */
static int
elements_of(FunctionCallInfo fcinfo, int argno)
{
	ArrayType  *array;

	if (PG_ARGISNULL(argno))
		return 0;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
}

static void
require_same_length(FunctionCallInfo fcinfo, int argno, const char *what, int count)
{
	if (!PG_ARGISNULL(argno) && elements_of(fcinfo, argno) != count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s array length (%d) must match msgs array length (%d)", what,
						elements_of(fcinfo, argno), count)));
}

/* An array to be filled in place.  construct_array() would take each element as a Datum. */
static ArrayType *
array_of(Oid type, int width, int count)
{
	Size		size = ARR_OVERHEAD_NONULLS(1) + (Size) width * count;
	ArrayType  *array = palloc0(size);

	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->elemtype = type;
	ARR_DIMS(array)[0] = count;
	ARR_LBOUND(array)[0] = 1;
	return array;
}

/* The shards of events with these keys.  An array that is too short has no more of them, as in the statement. */
static Datum
shards_of(NullableDatum array_of_keys, const int64 *ids, int count, int shards)
{
	ArrayType  *array = array_of(INT4OID, sizeof(int32), count);
	int32	   *values = (int32 *) ARR_DATA_PTR(array);
	Datum	   *keys = NULL;
	bool	   *nulls = NULL;
	int			nkeys = 0;
	int			i;

	if (!array_of_keys.isnull)
		deconstruct_array(DatumGetArrayTypeP(array_of_keys.value), TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls, &nkeys);
	for (i = 0; i < count; i++)
		values[i] = i >= nkeys || nulls[i] ? shard_of_id(ids[i], shards) :
			shard_of_key(DatumGetTextPP(keys[i]), shards);
	return PointerGetDatum(array);
}

static void
return_ids(FunctionCallInfo fcinfo, const int64 *ids, int count)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			i;

	for (i = 0; i < count; i++)
	{
		Datum		value = Int64GetDatum(ids[i]);
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
	}
}

/*
 * Publish events: arrays of as many messages, keys and headers.  Their ids, palloc'd.  The caller has connected to SPI.
 */
int64 *
stream_publish_many(const QueueName *name, const NullableDatum *events, int count)
{
	StreamLog	log;
	Datum		values[6];
	bool		nulls[6] = {false};
	ArrayType  *array;
	int64	   *ids;

	open_to_publish(name, &log);
	array = array_of(INT8OID, sizeof(int64), count);
	ids = (int64 *) ARR_DATA_PTR(array);
	values[2] = TimestampTzGetDatum(draw_ids(&log, ids, count));
	values[0] = PointerGetDatum(array);
	values[1] = log.shards == 1 ? Int32GetDatum(0) : shards_of(events[1], ids, count, log.shards);
	values[3] = events[1].value;
	values[4] = events[0].value;
	values[5] = events[2].value;
	nulls[3] = events[1].isnull;
	nulls[5] = events[2].isnull;
	(void) insert_events(&log, ids[0], ids[count - 1], log.shards == 1 ? &publish_many_to_one : &publish_many,
						 values, nulls);
	return ids;
}

/* The arguments of both functions behind the name, as the statements take them: message, key, headers */
static void
take_args(FunctionCallInfo fcinfo, NullableDatum *event)
{
	int			i;

	for (i = 0; i < 3; i++)
		arg_to_param(fcinfo, i + 1, &event[i].value, &event[i].isnull);
}

/*
 * pgmq.publish(stream_name text, msg jsonb, key text, headers jsonb) -> bigint
 *
 * NULL if a trigger has suppressed the insert.
 */
Datum
pgmq_publish(PG_FUNCTION_ARGS)
{
	QueueName	name;
	NullableDatum event[3];
	int64		id;
	uint64		published;

	stream_from_arg(fcinfo, 0, &name);
	SPI_connect();
	take_args(fcinfo, event);
	published = stream_publish_one(&name, event, &id);
	SPI_finish();
	if (published == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

/*
 * pgmq.publish_batch(stream_name text, msgs jsonb[], keys text[], headers jsonb[]) -> SETOF bigint
 *
 * Ids come in array order, also those of events whose insert a trigger has suppressed.
 */
Datum
pgmq_publish_batch(PG_FUNCTION_ARGS)
{
	int			count = elements_of(fcinfo, 1);
	QueueName	name;
	NullableDatum events[3];

	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("msgs cannot be NULL or empty")));
	require_same_length(fcinfo, 2, "keys", count);
	require_same_length(fcinfo, 3, "headers", count);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	stream_from_arg(fcinfo, 0, &name);
	SPI_connect();
	take_args(fcinfo, events);
	return_ids(fcinfo, stream_publish_many(&name, events, count), count);
	SPI_finish();
	return (Datum) 0;
}
