/*
 * finish.c
 *	  Take messages out (delete, archive) and re-time them (set_vt).
 *
 * None of these looks at vt: any session that knows the msg_id of a leased
 * message can finish it.  Arrays lock their messages in msg_id order, because
 * the index on msg_id is scanned in order.  In a partitioned queue route.c
 * sends the ids to the partitions that have them.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/pg_type_d.h"
#include "utils/array.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_delete);
PG_FUNCTION_INFO_V1(pgmq_delete_array);
PG_FUNCTION_INFO_V1(pgmq_archive);
PG_FUNCTION_INFO_V1(pgmq_archive_array);
PG_FUNCTION_INFO_V1(pgmq_set_vt);
PG_FUNCTION_INFO_V1(pgmq_set_vt_at);
PG_FUNCTION_INFO_V1(pgmq_set_vt_array);
PG_FUNCTION_INFO_V1(pgmq_set_vt_array_at);

#define WHERE_ID " WHERE msg_id OPERATOR(pg_catalog.=) $1{leaf}"
#define WHERE_IDS " WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1){leaf}"

static const PlanSpec delete_plan = {
	PLAN_DELETE,
	"DELETE FROM {queue}" WHERE_ID,
	1, {INT8OID}
};

static const PlanSpec delete_array_plan = {
	PLAN_DELETE_ARRAY,
	"DELETE FROM {queue}" WHERE_IDS " RETURNING msg_id",
	1, {INT8ARRAYOID}
};

/* As in the PL/pgSQL extension, a message is gone if a trigger of the archive suppresses its row; see token.c */
#define MOVE_TO_ARCHIVE(where) \
	"WITH gone AS (DELETE FROM {queue}" where " RETURNING " MESSAGE_COLUMNS ")" \
	" INSERT INTO {archive} (" MESSAGE_COLUMNS ")" \
	" SELECT " MESSAGE_COLUMNS " FROM gone"

static const PlanSpec archive_plan = {
	PLAN_ARCHIVE,
	MOVE_TO_ARCHIVE(WHERE_ID),
	1, {INT8OID}
};

static const PlanSpec archive_array_plan = {
	PLAN_ARCHIVE_ARRAY,
	MOVE_TO_ARCHIVE(WHERE_IDS) " RETURNING msg_id",
	1, {INT8ARRAYOID}
};

/* $2: seconds from now, or a time; a time in the past means now, NULL is NULL */
#define SET_VT_IN \
	"UPDATE {queue} SET vt = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $2"
#define SET_VT_AT \
	"UPDATE {queue} SET vt = CASE WHEN $2 IS NOT NULL" \
	" THEN GREATEST($2, pg_catalog.clock_timestamp()) END"
#define RETURNING_MESSAGE " RETURNING " MESSAGE_COLUMNS

static const PlanSpec set_vt_plan = {
	PLAN_SET_VT,
	SET_VT_IN WHERE_ID RETURNING_MESSAGE,
	2, {INT8OID, INTERVALOID}
};

static const PlanSpec set_vt_at_plan = {
	PLAN_SET_VT_AT,
	SET_VT_AT WHERE_ID RETURNING_MESSAGE,
	2, {INT8OID, TIMESTAMPTZOID}
};

static const PlanSpec set_vt_array_plan = {
	PLAN_SET_VT_ARRAY,
	SET_VT_IN WHERE_IDS RETURNING_MESSAGE,
	2, {INT8ARRAYOID, INTERVALOID}
};

static const PlanSpec set_vt_array_at_plan = {
	PLAN_SET_VT_ARRAY_AT,
	SET_VT_AT WHERE_IDS RETURNING_MESSAGE,
	2, {INT8ARRAYOID, TIMESTAMPTZOID}
};

/*
 * The queue's table before the archive, as everything that locks both.  A kept plan
 * would lock the archive first.
 */
static void
lock_queue_first(const QueueName *name)
{
	Relation	rel = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, NULL);

	if (rel != NULL)
		relation_close(rel, NoLock);
}

/*
 * Run a statement whose $1 is one msg_id, or an array of them.  It takes as many
 * messages as there are ids, at most.
 */
uint64
finish_by_id(const QueueName *name, const PlanSpec *spec, Finish what, Datum *values, bool *nulls,
			 DestReceiver *dest)
{
	bool		archives = what == FINISH_ARCHIVE;
	bool		makes_due = what == FINISH_RETIME;
	int64		most = nulls[0] ? 0 : 1;
	Oid			held;
	uint64		processed;

	queue_require_privilege(name, makes_due ? ACL_UPDATE : ACL_DELETE);
	if (!nulls[0] && spec->argtypes[0] == INT8ARRAYOID)
	{
		ArrayType  *ids = DatumGetArrayTypeP(values[0]);

		values[0] = PointerGetDatum(ids);
		most = ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids));
	}
	SPI_connect();
	if (archives)
		lock_queue_first(name);
	effect_taking(name, most);
	held = archives ? default_hold(name, ARCHIVE_TABLE) : InvalidOid;
	processed = route_by_id(name, spec, values, nulls, makes_due, dest);
	default_release(held);
	effect_taken(name, most, (int64) processed);
	if (processed > 0 && !makes_due)
		policy_removed(name, policy_of(name), (int64) processed);
	SPI_finish();
	return processed;
}

/* The same, of the call's second argument */
static uint64
run_on_ids(FunctionCallInfo fcinfo, const PlanSpec *spec, Finish what, DestReceiver *dest)
{
	QueueName	name;
	Datum		ids;
	bool		null;

	name_from_arg(fcinfo, 0, &name);
	arg_to_param(fcinfo, 1, &ids, &null);
	return finish_by_id(&name, spec, what, &ids, &null, dest);
}

/* pgmq.delete(queue_name text, msg_id bigint) -> boolean */
Datum
pgmq_delete(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(run_on_ids(fcinfo, &delete_plan, FINISH_DELETE, None_Receiver) > 0);
}

/* pgmq.delete(queue_name text, msg_ids bigint[]) -> SETOF bigint */
Datum
pgmq_delete_array(PG_FUNCTION_ARGS)
{
	run_on_ids(fcinfo, &delete_array_plan, FINISH_DELETE, result_scalars(fcinfo));
	return (Datum) 0;
}

/* pgmq.archive(queue_name text, msg_id bigint) -> boolean */
Datum
pgmq_archive(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(run_on_ids(fcinfo, &archive_plan, FINISH_ARCHIVE, None_Receiver) > 0);
}

/* pgmq.archive(queue_name text, msg_ids bigint[]) -> SETOF bigint */
Datum
pgmq_archive_array(PG_FUNCTION_ARGS)
{
	run_on_ids(fcinfo, &archive_array_plan, FINISH_ARCHIVE, result_scalars(fcinfo));
	return (Datum) 0;
}

/* After a commit the messages are due at the new time, after a rollback at the old one */
void
finish_retimed(const QueueName *name, int64 messages, TimestampTz due)
{
	policy_retimed(name, policy_of(name), messages, due);
	if (due <= GetCurrentTimestamp())
		effect_messages(name, messages);
	else
		effect_due(name, due);
}

/* A NULL time is an error, unless a trigger has set one */
static TimestampTz
due_at(bool seconds, Datum when, bool null)
{
	if (null)
		return DT_NOBEGIN;
	return seconds ? GetCurrentTimestamp() + DatumGetIntervalP(when)->time : DatumGetTimestampTz(when);
}

static Datum
set_vt(FunctionCallInfo fcinfo, const PlanSpec *spec, bool seconds)
{
	QueueName	name;
	Datum		values[2];
	bool		nulls[2];
	MessageSet *messages;
	uint64		processed;

	name_from_arg(fcinfo, 0, &name);
	arg_to_param(fcinfo, 1, &values[0], &nulls[0]);
	arg_to_param(fcinfo, 2, &values[1], &nulls[1]);
	if (seconds && !nulls[1])
		values[1] = interval_from_seconds(PG_GETARG_INT32(2));
	messages = result_messages(fcinfo);
	processed = finish_by_id(&name, spec, FINISH_RETIME, values, nulls, result_dest(messages));
	result_finish(messages);
	if (processed > 0)
		finish_retimed(&name, (int64) processed, due_at(seconds, values[1], nulls[1]));
	return (Datum) 0;
}

/* pgmq.set_vt(queue_name text, msg_id bigint, vt integer) -> SETOF message_record */
Datum
pgmq_set_vt(PG_FUNCTION_ARGS)
{
	return set_vt(fcinfo, &set_vt_plan, true);
}

/* pgmq.set_vt(queue_name text, msg_id bigint, vt timestamptz) -> SETOF message_record */
Datum
pgmq_set_vt_at(PG_FUNCTION_ARGS)
{
	return set_vt(fcinfo, &set_vt_at_plan, false);
}

/* pgmq.set_vt(queue_name text, msg_ids bigint[], vt integer) -> SETOF message_record */
Datum
pgmq_set_vt_array(PG_FUNCTION_ARGS)
{
	return set_vt(fcinfo, &set_vt_array_plan, true);
}

/* pgmq.set_vt(queue_name text, msg_ids bigint[], vt timestamptz) -> SETOF message_record */
Datum
pgmq_set_vt_array_at(PG_FUNCTION_ARGS)
{
	return set_vt(fcinfo, &set_vt_array_at_plan, false);
}
