/*
 * status.c
 *	  queue_status(): what the messages of a queue are doing.
 *
 * Each message counts once: as ready, stuck, in flight or delayed.  Count.c reads the
 * messages and runs no code of the queue's owner.  If policies of the server decide which
 * rows the caller sees, a statement counts instead.  That is code of the owner, so it does
 * not run for a caller that asks about all queues.
 *
 * A caller that asks about all queues gets NULLs for what it may not read.  So one queue
 * of another role does not hide the others.
 */
#include "pgmq.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_queue_status);

#define STATUS_COLUMNS 9

/* Waits for locks of all queues together, in milliseconds */
#define LOCK_BUDGET_MS 1000

typedef struct Status
{
	TimestampTz now;
	int64		ready;
	int64		stuck;
	int64		in_flight;
	int64		delayed;
	TimestampTz oldest;			/* when the message that is ready longest became so; DT_NOEND: there is none */
} Status;

/* ---- the messages of a queue ---- */

static const CountColumn message_columns[] = {
	{"vt", TIMESTAMPTZOID, false},
	{"enqueued_at", TIMESTAMPTZOID, false},
	{"read_ct", INT4OID, false},
	{"headers", JSONBOID, false},
	{"pgmq_settled", INT4OID, true}
};

/* The same for the privilege.  A policy adds the last one. */
static const char *const message_names[] = {"vt", "enqueued_at", "read_ct", "headers", "pgmq_settled"};

#define COLUMNS_OF_ALL 4

static bool
has_settled(Oid queue)
{
	return get_attnum(queue, "pgmq_settled") != InvalidAttrNumber;
}

/* Whether headers are an object with this key; its value in *value */
static bool
find_header(NullableDatum headers, const char *key, JsonbValue *value)
{
	Jsonb	   *json;

	if (headers.isnull)
		return false;
	json = DatumGetJsonbP(headers.value);
	return JB_ROOT_IS_OBJECT(json) &&
		getKeyJsonValueFromContainer(&json->root, key, (int) strlen(key), value) != NULL;
}

/* See POLICED_SQL for the same in SQL */
static void
count_message(const NullableDatum *values, void *arg)
{
	Status	   *status = arg;
	TimestampTz vt = DatumGetTimestampTz(values[0].value);
	int32		read_ct = values[2].isnull ? 0 : DatumGetInt32(values[2].value);
	JsonbValue	value;

	if (values[0].isnull)
		return;
	if (vt <= status->now || (!values[1].isnull && vt == DatumGetTimestampTz(values[1].value)))
	{
		status->ready++;
		if (!TIMESTAMP_NOT_FINITE(vt))
			status->oldest = Min(status->oldest, vt);
	}
	else if (find_header(values[3], "x-pgmq-stuck", &value))
		status->stuck++;
	else if (read_ct > 0 && (values[4].isnull || abs(DatumGetInt32(values[4].value)) != read_ct))
		status->in_flight++;
	else
		status->delayed++;
}

#define POLICED_SQL \
	"SELECT pg_catalog.count(*) FILTER (WHERE m.place OPERATOR(pg_catalog.=) 1)," \
	" pg_catalog.count(*) FILTER (WHERE m.place OPERATOR(pg_catalog.=) 2)," \
	" pg_catalog.count(*) FILTER (WHERE m.place OPERATOR(pg_catalog.=) 3)," \
	" pg_catalog.count(*) FILTER (WHERE m.place OPERATOR(pg_catalog.=) 4)," \
	" pg_catalog.min(m.vt) FILTER (WHERE m.place OPERATOR(pg_catalog.=) 1 AND pg_catalog.isfinite(m.vt))" \
	" FROM (SELECT vt, CASE WHEN vt OPERATOR(pg_catalog.<=) $1 OR vt OPERATOR(pg_catalog.=) enqueued_at THEN 1" \
	" WHEN headers OPERATOR(pg_catalog.?) 'x-pgmq-stuck' THEN 2" \
	" WHEN read_ct OPERATOR(pg_catalog.>) 0%s THEN 3 ELSE 4 END AS place FROM {queue}) AS m"

#define NOT_SETTLED \
	" AND (pgmq_settled IS NULL OR pg_catalog.abs(pgmq_settled) OPERATOR(pg_catalog.<>) read_ct)"

/* One row of a statement with one parameter; the caller has connected to SPI */
static void
run_for_row(const char *sql, Oid type, Datum value)
{
	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(SPI_result));
}

static Datum
value_of(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

static void
count_policed_messages(const QueueName *name, Oid queue, Status *status)
{
	static const Oid types[] = {INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID};
	bool		isnull;
	Datum		oldest;

	status->now = GetCurrentTimestamp();
	SPI_connect();
	run_for_row(name_expand(psprintf(POLICED_SQL, has_settled(queue) ? NOT_SETTLED : ""), name),
				TIMESTAMPTZOID, TimestampTzGetDatum(status->now));
	rows_require_types(types, lengthof(types));
	status->ready = DatumGetInt64(value_of(1, &isnull));
	status->stuck = DatumGetInt64(value_of(2, &isnull));
	status->in_flight = DatumGetInt64(value_of(3, &isnull));
	status->delayed = DatumGetInt64(value_of(4, &isnull));
	oldest = value_of(5, &isnull);
	if (!isnull)
		status->oldest = DatumGetTimestampTz(oldest);
	SPI_finish();
}

/* ---- its dead letters ---- */

typedef struct Origin
{
	const QueueName *name;
	int64		letters;
} Origin;

static void
count_letter(const NullableDatum *values, void *arg)
{
	Origin	   *origin = arg;
	JsonbValue	value;
	QueueName	name;

	if (!find_header(values[0], "x-dlq-origin-queue", &value) || value.type != jbvString ||
		value.val.string.len >= NAMEDATALEN)
		return;
	if (name_try_canonical(cstring_to_text_with_len(value.val.string.val, value.val.string.len), &name) &&
		memcmp(&name, origin->name, sizeof(name)) == 0)
		origin->letters++;
}

#define POLICED_LETTERS_SQL \
	"SELECT pg_catalog.count(*) FROM {queue} WHERE pg_catalog.lower(headers" \
	" OPERATOR(pg_catalog.->>) 'x-dlq-origin-queue'::pg_catalog.text) OPERATOR(pg_catalog.=) $1"

/* How many messages of a queue are in its dead-letter queue; false if that cannot be said */
static bool
count_dead(const QueueName *name, const QueuePolicy *policy, bool all, int64 *letters)
{
	static const CountColumn column = {"headers", JSONBOID, false};
	const QueueName *target = &policy->dead_letter_queue;
	Origin		origin = {name, 0};
	TimestampTz now;
	Oid			relid;
	bool		isnull;
	bool		counted;

	if ((policy->set & POLICY_DEAD_LETTER_QUEUE) == 0)
		return false;
	relid = queue_relid(target, QUEUE_TABLE);
	if (!OidIsValid(relid) || !rights_may_select(relid, &column.name, 1) ||
		(queue_relkind(target, QUEUE_TABLE) != RELKIND_RELATION && !queue_is_partitioned(target, QUEUE_TABLE)))
		return false;
	if (count_policed(relid))
	{
		if (all)
			return false;
		SPI_connect();
		run_for_row(name_expand(POLICED_LETTERS_SQL, target), TEXTOID, CStringGetTextDatum(name->canonical));
		*letters = DatumGetInt64(value_of(1, &isnull));
		SPI_finish();
		return true;
	}
	counted = count_rows(relid, &column, 1, count_letter, &origin, &now);
	*letters = origin.letters;
	return counted;
}

static bool
estimate_archive(const QueueName *name, int64 *rows)
{
	static const char *const columns[] = {"msg_id"};
	Oid			relid = queue_relid(name, ARCHIVE_TABLE);

	return OidIsValid(relid) && rights_may_select(relid, columns, lengthof(columns)) &&
		estimate_rows(relid, rows);
}

/* ---- the rows ---- */

/* How long a message has been ready; the clock may have been set back */
static Datum
age(const Status *status)
{
	return DirectFunctionCall2(timestamp_mi, TimestampTzGetDatum(Max(status->now, status->oldest)),
							   TimestampTzGetDatum(status->oldest));
}

/* "counted" is false if the caller may not read the queue */
static void
put_status(ReturnSetInfo *rsinfo, const char *queue_name, const QueueName *name, const Status *status,
		   bool counted, bool all)
{
	const QueuePolicy *policy = policy_of(name);
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];
	int64		dead = 0;
	int64		archived = 0;

	nulls[0] = nulls[4] = false;
	nulls[1] = nulls[2] = nulls[3] = nulls[6] = !counted;
	nulls[5] = !count_dead(name, policy, all, &dead);
	nulls[7] = !estimate_archive(name, &archived);
	nulls[8] = !counted || status->oldest == DT_NOEND;
	values[0] = CStringGetTextDatum(queue_name);
	values[1] = Int64GetDatum(status->ready);
	values[2] = Int64GetDatum(status->delayed);
	values[3] = Int64GetDatum(status->in_flight);
	values[4] = BoolGetDatum((policy->set & POLICY_PAUSED) != 0 && policy->paused_until > GetCurrentTimestamp());
	values[5] = Int64GetDatum(dead);
	values[6] = Int64GetDatum(status->stuck);
	values[7] = Int64GetDatum(archived);
	values[8] = nulls[8] ? (Datum) 0 : age(status);
	tuplestore_puttuple(rsinfo->setResult, relcheck_row(rsinfo->setDesc, values, nulls));
}

static void
put_one(ReturnSetInfo *rsinfo, const char *queue_name, const QueueName *name)
{
	Status		status = {.oldest = DT_NOEND};
	Oid			queue;

	while (!OidIsValid(queue = metrics_lock_queue(name, message_names, COLUMNS_OF_ALL)))
		queue_require(name);
	rights_require_select(queue, message_names, COLUMNS_OF_ALL + has_settled(queue));
	if (count_policed(queue))
		count_policed_messages(name, queue, &status);
	else if (!count_rows(queue, message_columns, lengthof(message_columns), count_message, &status, &status.now))
		elog(ERROR, "table %u is gone", queue);
	put_status(rsinfo, queue_name, name, &status, true, false);
}

static void
visit(const ListedQueue *queue, void *arg)
{
	Oid			relid = queue_relid(&queue->name, QUEUE_TABLE);
	Status		status = {.oldest = DT_NOEND};
	bool		counted = OidIsValid(relid) && !count_policed(relid) &&
		rights_may_select(relid, message_names, COLUMNS_OF_ALL + has_settled(relid));

	/* Dropped by hand, or during the call */
	if (counted && !count_rows(relid, message_columns, lengthof(message_columns), count_message, &status, &status.now))
		return;
	put_status(arg, queue->spelling, &queue->name, &status, counted, true);
}

/*
 * pgmq.queue_status(queue_name text) -> TABLE (queue text, ready bigint,
 *	 delayed bigint, in_flight bigint, paused boolean, dead bigint, stuck bigint,
 *	 archived bigint, oldest_ready_age interval)
 */
Datum
pgmq_queue_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QueueName	name;
	ListedQueue *queues;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(0))
	{
		name_from_arg(fcinfo, 0, &name);
		put_one(rsinfo, text_to_cstring(PG_GETARG_TEXT_PP(0)), &name);
		return (Datum) 0;
	}
	count = queues_list(&queues);
	queues_visit(queues, count, LOCK_BUDGET_MS, false, visit, rsinfo);
	return (Datum) 0;
}
