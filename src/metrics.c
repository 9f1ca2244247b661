/*
 * metrics.c
 *	  Numbers about queues.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(pgmq_metrics);
PG_FUNCTION_INFO_V1(pgmq_metrics_all);

/*
 * The queue's numbers in the order of pgmq.metrics_result, without its first
 * column.  One reading of the clock, inside the statement and so after its
 * snapshot was taken, decides both the ages and what is visible: a message
 * that the snapshot sees is not from the future, unless the clock was set
 * back, and then its age is 0.
 */
#define METRICS_SQL \
	"WITH c AS MATERIALIZED (SELECT pg_catalog.clock_timestamp() AS now)," \
	" m AS (SELECT pg_catalog.count(*) AS total," \
	" pg_catalog.count(*) FILTER (WHERE vt OPERATOR(pg_catalog.<=) (SELECT now FROM c)" \
	" OR vt OPERATOR(pg_catalog.=) enqueued_at) AS visible," \
	" pg_catalog.max(enqueued_at) AS newest, pg_catalog.min(enqueued_at) AS oldest" \
	" FROM {queue})" \
	" SELECT m.total," \
	AGE("m.newest") "," AGE("m.oldest") "," \
	" (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence})," \
	" c.now, m.visible, " DEFAULT_LENGTH \
	" FROM c, m"

/*
 * What lies in the default partitions of the queue and its archive, as of the
 * last analyze; NULL of a queue without one.  By the catalog and not by name:
 * "foo_default" may be a queue.
 */
#define DEFAULT_LENGTH \
	"(SELECT pg_catalog.sum(GREATEST(d.reltuples, 0))::bigint" \
	" FROM pg_catalog.pg_partitioned_table AS p" \
	" JOIN pg_catalog.pg_class AS d ON d.oid OPERATOR(pg_catalog.=) p.partdefid" \
	" WHERE p.partrelid OPERATOR(pg_catalog.=) ANY (ARRAY[" \
	"pg_catalog.to_regclass('{queue}'), pg_catalog.to_regclass('{archive}')])" \
	" HAVING pg_catalog.bool_or(p.partrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('{queue}')))"

/* Never negative; NULL of an empty queue stays NULL */
#define AGE(since) \
	" pg_catalog.round(EXTRACT(epoch FROM" \
	" GREATEST(c.now, " since ") OPERATOR(pg_catalog.-) " since "))::integer"

#define METRICS_COLUMNS 8

/* One row of pgmq.metrics_result; the caller has connected to SPI */
static HeapTuple
queue_metrics(const char *queue_name, const QueueName *name, TupleDesc desc)
{
	Datum		values[METRICS_COLUMNS];
	bool		nulls[METRICS_COLUMNS] = {false};
	int			rc;
	int			i;

	name_require_queue(name);
	rc = SPI_execute(name_expand(METRICS_SQL, name), false, 0);
	if (rc != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	values[0] = CStringGetTextDatum(queue_name);
	for (i = 1; i < METRICS_COLUMNS; i++)
		values[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i, &nulls[i]);
	return heap_form_tuple(desc, values, nulls);
}

/* pgmq.metrics(queue_name text) -> pgmq.metrics_result */
Datum
pgmq_metrics(PG_FUNCTION_ARGS)
{
	QueueName	name;
	TupleDesc	desc;
	HeapTuple	tuple;

	name_from_arg(fcinfo, 0, &name);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	SPI_connect();
	tuple = SPI_copytuple(queue_metrics(text_to_cstring(PG_GETARG_TEXT_PP(0)), &name, desc));
	SPI_finish();
	PG_RETURN_DATUM(HeapTupleGetDatum(tuple));
}

/* The names of all queues; copied, because each queue's numbers replace SPI_tuptable */
static int
all_queues(char ***queue_names)
{
	int			count;
	int			i;

	if (SPI_execute("SELECT queue_name FROM pgmq.meta ORDER BY queue_name", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(SPI_result));
	count = (int) SPI_processed;
	*queue_names = palloc(sizeof(char *) * Max(count, 1));
	for (i = 0; i < count; i++)
		(*queue_names)[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	return count;
}

/*
 * pgmq.metrics_all() -> SETOF pgmq.metrics_result
 *
 * A queue that is recorded but has no table (dropped by hand, or while we
 * look) must not cost the others their numbers.
 */
Datum
pgmq_metrics_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	  **queue_names;
	int			count;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	count = all_queues(&queue_names);
	for (i = 0; i < count; i++)
	{
		QueueName	name;

		name_canonical(cstring_to_text(queue_names[i]), &name);
		if (!OidIsValid(name_relid(&name, QUEUE_TABLE)))
			continue;
		tuplestore_puttuple(rsinfo->setResult,
							queue_metrics(queue_names[i], &name, rsinfo->setDesc));
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_finish();
	return (Datum) 0;
}
