/*
 * streams.c
 *	  Topics that lead to streams: bind patterns, and publish what is sent.
 *
 * A message becomes an event.  Its header x-pgmq-group is the key, so what one group is for a queue has one order in a stream.
 * A delay is ignored, because an event is published when it is committed.
 *
 * The privileges of pgmq.topic_bindings decide which roles may send to a topic, and see where it leads.  So a role that could send
 * before there were streams still can.  To publish, it needs INSERT on the log, as with publish().
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "queue/queue.h"
#include "stream/stream.h"
#include "topic/topic.h"

PG_FUNCTION_INFO_V1(pgmq_bind_topic_stream);
PG_FUNCTION_INFO_V1(pgmq_unbind_topic_stream);

/* ---- bindings ---- */

static const char *const columns[] = {"pattern", "stream_name"};

#define BIND_SQL \
	"INSERT INTO pgmq.topic_stream_bindings (pattern, stream_name) VALUES ($1, $2)" \
	" ON CONFLICT ON CONSTRAINT topic_stream_bindings_pkey DO NOTHING"

#define UNBIND_SQL \
	"DELETE FROM pgmq.topic_stream_bindings" \
	" WHERE pattern OPERATOR(pg_catalog.=) $1" \
	" AND pg_catalog.lower(stream_name) OPERATOR(pg_catalog.=) $2"

static uint64
run_on_binding(const char *sql, const char *pattern, const char *stream_name)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(pattern);
	values[1] = CStringGetTextDatum(stream_name);
	return run_prepared(run_prepare(sql, lengthof(types), types), values, NULL, InvalidSnapshot, false);
}

/* pgmq.bind_topic_stream(pattern text, stream_name text) -> void */
Datum
pgmq_bind_topic_stream(PG_FUNCTION_ARGS)
{
	char	   *pattern = pattern_valid_pattern(fcinfo, 0);
	QueueName	name;

	stream_from_arg(fcinfo, 1, &name);
	/* A refused caller must not make other sessions wait */
	rights_require_columns(relcheck_own_relid(OWN_STREAM_BINDINGS), ACL_SELECT, columns, lengthof(columns));
	rights_require_columns(relcheck_own_relid(OWN_STREAM_BINDINGS), ACL_INSERT, columns, lengthof(columns));
	SPI_connect();
	lock_queue(&name);
	stream_require(&name);
	relcheck_own_table(OWN_STREAM_BINDINGS, RowExclusiveLock);
	run_on_binding(BIND_SQL, pattern, stream_spelling(&name));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * pgmq.unbind_topic_stream(pattern text, stream_name text) -> boolean
 *
 * Takes any pattern, as unbind_topic().
 */
Datum
pgmq_unbind_topic_stream(PG_FUNCTION_ARGS)
{
	QueueName	name;
	bool		removed;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pattern must not be NULL")));
	stream_from_arg(fcinfo, 1, &name);
	rights_require_columns(relcheck_own_relid(OWN_STREAM_BINDINGS), ACL_SELECT, columns, lengthof(columns));
	rights_require_table(relcheck_own_relid(OWN_STREAM_BINDINGS), ACL_DELETE);
	relcheck_own_table(OWN_STREAM_BINDINGS, RowExclusiveLock);
	SPI_connect();
	removed = run_on_binding(UNBIND_SQL, text_to_cstring(PG_GETARG_TEXT_PP(0)), name.canonical) > 0;
	SPI_finish();
	PG_RETURN_BOOL(removed);
}

/* ---- publishing ---- */

/* The header as text, as the operator ->> gives it */
static NullableDatum
key_of(Datum headers, bool isnull)
{
	NullableDatum key = {.isnull = true};
	Jsonb	   *jsonb = isnull ? NULL : DatumGetJsonbP(headers);
	JsonbValue	found;
	JsonbValue *value = &found;

	if (jsonb == NULL || !JB_ROOT_IS_OBJECT(jsonb) ||
		getKeyJsonValueFromContainer(&jsonb->root, GROUP_HEADER, (int) strlen(GROUP_HEADER), value) == NULL ||
		value->type == jbvNull)
		return key;
	key.isnull = false;
	if (value->type == jbvString)
		key.value = PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
	else
	{
		Jsonb	   *text = JsonbValueToJsonb(value);

		key.value = CStringGetTextDatum(JsonbToCString(NULL, &text->root, VARSIZE(text)));
	}
	return key;
}

/* The same for an array of headers */
static NullableDatum
keys_of(Datum headers, bool isnull)
{
	NullableDatum result = {.isnull = isnull};
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			lower = 1;
	int			i;

	if (isnull)
		return result;
	deconstruct_array(DatumGetArrayTypeP(headers), JSONBOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (i = 0; i < count; i++)
	{
		NullableDatum key = key_of(elements[i], nulls[i]);

		elements[i] = key.value;
		nulls[i] = key.isnull;
	}
	result.value = PointerGetDatum(construct_md_array(elements, nulls, 1, &count, &lower, TEXTOID, -1, false, TYPALIGN_INT));
	return result;
}

/* An event of a message.  The caller has connected to SPI. */
void
topic_publish_one(const QueueName *name, const Outgoing *out)
{
	NullableDatum event[3] = {{out->values[0], out->nulls[0]}, key_of(out->values[1], out->nulls[1]),
	{out->values[1], out->nulls[1]}};
	int64		id;

	(void) stream_publish_one(name, event, &id);
}

static int
elements_of(Datum array, bool isnull)
{
	return isnull ? 0 : ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(array)), ARR_DIMS(DatumGetArrayTypeP(array)));
}

/*
 * Events of messages; their ids, in the order of these.  The arrays have the same length in their first dimension, but
 * can have different numbers of elements.  As in a queue, what is missing is NULL.
 */
int64 *
topic_publish_many(const QueueName *name, const Outgoing *out, uint64 *count)
{
	NullableDatum events[3] = {{out->values[0], out->nulls[0]}, keys_of(out->values[1], out->nulls[1]),
	{out->values[1], out->nulls[1]}};
	int			number = Max(elements_of(out->values[0], out->nulls[0]), elements_of(out->values[1], out->nulls[1]));

	*count = (uint64) number;
	return stream_publish_many(name, events, number);
}
