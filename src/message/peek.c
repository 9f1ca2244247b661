/*
 * peek.c
 *	  Show messages without reading them: peek.
 *
 * A SELECT of the caller's, leased messages included.  It changes nothing and locks no
 * row, so it works on a standby.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"

#include "base/base.h"
#include "queue/queue.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_peek);

/* $1 how many (NULL: all), $2 what the body must contain, or NULL */
#define CONTAINS "($2 IS NULL OR message OPERATOR(pg_catalog.@>) $2)"
#define FIRST_ONES " ORDER BY msg_id LIMIT $1"

static const PlanSpec peek_all = {
	PLAN_PEEK,
	"SELECT " MESSAGE_COLUMNS " FROM {queue} WHERE " CONTAINS FIRST_ONES,
	2, {INT8OID, JSONBOID}
};

static const PlanSpec peek_ids = {
	PLAN_PEEK_IDS,
	"SELECT " MESSAGE_COLUMNS " FROM {queue}"
	" WHERE msg_id OPERATOR(pg_catalog.=) ANY ($3) AND " CONTAINS FIRST_ONES,
	3, {INT8OID, JSONBOID, INT8ARRAYOID}
};

/* pgmq.peek(queue_name text, qty integer, conditional jsonb, msg_ids bigint[]) -> SETOF message_record */
Datum
pgmq_peek(PG_FUNCTION_ARGS)
{
	MessageSet *messages = result_messages(fcinfo);
	NullableDatum body = condition_from_arg(fcinfo, 2);
	QueueName	name;
	Datum		values[3];
	bool		nulls[3];

	name_from_arg(fcinfo, 0, &name);
	nulls[0] = PG_ARGISNULL(1);
	values[0] = nulls[0] ? (Datum) 0 : Int64GetDatum(PG_GETARG_INT32(1));
	values[1] = body.value;
	nulls[1] = body.isnull;
	arg_to_param(fcinfo, 3, &values[2], &nulls[2]);
	SPI_connect();
	plan_run(&name, nulls[2] ? &peek_all : &peek_ids, values, nulls, result_dest(messages));
	SPI_finish();
	result_finish(messages);
	return (Datum) 0;
}
