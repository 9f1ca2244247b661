/*
 * redrive.c
 *	  redrive(): send messages back from a dead-letter queue.
 *
 * Everything is done with the caller's privileges.
 *
 * 1. The messages are chosen and locked in the order of their ids.  Those that are hidden
 *	  or locked by another transaction stay.
  * 2. Without a destination, a message goes to the queue that its header names.  The policy of
 *	  that queue must name this dead-letter queue today, and both must have one owner.
 *	  Every sender can write such a header, so a header alone opens no queue.
 * 3. They are deleted here and sent there, each destination in its turn, in the order of
 *	  their ids.  So the new ids are in the order of the old ones.
 * 4. A destination is a queue like any other: its max_length, priority and triggers count.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "policy/policy.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_redrive);

/*
 * Sent together, so that memory holds no more.  The size counts as it is stored, which can be compressed a
 * hundred times.
 */
#define REDRIVE_MESSAGES 1000
#define REDRIVE_BYTES 4000000

#define ORIGIN \
	"pg_catalog.lower(headers OPERATOR(pg_catalog.->>) 'x-dlq-origin-queue'::pg_catalog.text)"

/* $1 now, $2 the only ids or NULL, $3 the only origins or NULL, $4 how many */
#define FIND_SQL \
	"SELECT msg_id, " ORIGIN ", pg_catalog.int8(COALESCE(pg_catalog.pg_column_size(message), 0))" \
	" OPERATOR(pg_catalog.+) COALESCE(pg_catalog.pg_column_size(headers), 0) FROM {queue}" \
	" WHERE (vt OPERATOR(pg_catalog.<=) $1 OR vt OPERATOR(pg_catalog.=) enqueued_at)" \
	" AND ($2 IS NULL OR msg_id OPERATOR(pg_catalog.=) ANY ($2))" \
	" AND ($3 IS NULL OR " ORIGIN " OPERATOR(pg_catalog.=) ANY ($3))" \
	" ORDER BY msg_id LIMIT $4 FOR UPDATE SKIP LOCKED"

/*
 * What a move has added goes, and what it has changed is as it was.  Headers that were no
 * object stand in x-dlq-headers, with nothing but other keys of ours beside them.
 */
#define OWN_KEYS \
	"(SELECT pg_catalog.jsonb_object_agg(h.key, h.value) FROM pg_catalog.jsonb_each(headers) AS h" \
	" WHERE NOT pg_catalog.starts_with(h.key, 'x-dlq-') AND h.key OPERATOR(pg_catalog.<>) 'x-pgmq-error'" \
	" AND h.key OPERATOR(pg_catalog.<>) 'x-pgmq-stuck')"

#define LIVE_HEADERS \
	"CASE WHEN pg_catalog.jsonb_typeof(headers) OPERATOR(pg_catalog.<>) 'object' THEN headers" \
	" WHEN headers OPERATOR(pg_catalog.?) 'x-dlq-ttl' THEN COALESCE(" OWN_KEYS ", '{}'::pg_catalog.jsonb)" \
	" OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('x-pgmq-ttl', headers OPERATOR(pg_catalog.->) 'x-dlq-ttl')" \
	" ELSE COALESCE(" OWN_KEYS ", headers OPERATOR(pg_catalog.->) 'x-dlq-headers') END"

#define TAKE_SQL \
	"WITH gone AS (DELETE FROM {queue} WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1) RETURNING msg_id, message, headers)" \
	" SELECT pg_catalog.array_agg(message ORDER BY msg_id), pg_catalog.array_agg(" LIVE_HEADERS " ORDER BY msg_id)," \
	" pg_catalog.count(*) FROM gone"

/* A message that goes back */
typedef struct Candidate
{
	int64		msg_id;
	int64		size;			/* of its body and headers */
	QueueName	destination;
} Candidate;

typedef struct Redrive
{
	QueueName	name;			/* of the dead-letter queue */
	QueueName  *destination;	/* NULL: by origin */
	NullableDatum most;
	NullableDatum ids;
	Candidate  *candidates;		/* by destination, then by id */
	uint64		count;
} Redrive;

/* ---- which messages, and where they go ---- */

/* As a move requires it.  A policy can name a queue of the future, of whatever owner. */
static bool
has_same_owner(const char *origin, const QueueName *name)
{
	QueueName	queue;
	Oid			relid = name_try_canonical(cstring_to_text(origin), &queue) ? queue_relid(&queue, QUEUE_TABLE) : InvalidOid;

	return OidIsValid(relid) && owner_of(relid) == owner_of(queue_relid(name, QUEUE_TABLE));
}

/* The queues that have this dead-letter queue, as a text[]; in lower case */
static Datum
origins_of(const QueueName *name)
{
	Oid			relid = relcheck_own_table(OWN_POLICY, AccessShareLock);
	const char *canonical = name->canonical;
	uint64		count = owner_run(owner_of(relid), true,
								  "SELECT identity FROM pgmq.policy"
								  " WHERE pg_catalog.lower(dead_letter_queue) OPERATOR(pg_catalog.=) $1",
								  1, &canonical);
	Datum	   *origins = palloc(sizeof(Datum) * (count + 1));
	int			norigins = 0;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		char	   *origin = row_text(i, 1);

		if (origin != NULL && strcmp(origin, canonical) != 0 && has_same_owner(origin, name))
			origins[norigins++] = CStringGetTextDatum(origin);
	}
	return PointerGetDatum(construct_array(origins, norigins, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
take_candidate(Redrive *redrive, uint64 row)
{
	Candidate  *candidate = &redrive->candidates[redrive->count];
	bool		isnull;

	candidate->msg_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1, &isnull));
	candidate->size = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3, &isnull));
	if (redrive->destination != NULL)
		candidate->destination = *redrive->destination;
	else if (!name_try_canonical(cstring_to_text(row_text(row, 2)), &candidate->destination))
		return;
	redrive->count++;
}

static int
compare_candidates(const void *a, const void *b)
{
	const Candidate *left = a;
	const Candidate *right = b;
	int			result = strcmp(left->destination.canonical, right->destination.canonical);

	return result != 0 ? result : pg_cmp_s64(left->msg_id, right->msg_id);
}

/* Lock the messages that go back (1, 2) */
static void
find_candidates(Redrive *redrive)
{
	static const Oid found_types[] = {INT8OID, TEXTOID, INT8OID};
	Oid			types[] = {TIMESTAMPTZOID, INT8ARRAYOID, TEXTARRAYOID, INT8OID};
	Datum		values[lengthof(types)];
	char		nulls[] = {' ', ' ', ' ', ' ', '\0'};
	SPIPlanPtr	plan;
	uint64		count;
	uint64		i;

	values[2] = redrive->destination != NULL ? (Datum) 0 : origins_of(&redrive->name);
	values[1] = redrive->ids.value;
	values[3] = redrive->most.value;
	nulls[1] = redrive->ids.isnull ? 'n' : ' ';
	nulls[2] = redrive->destination != NULL ? 'n' : ' ';
	nulls[3] = redrive->most.isnull ? 'n' : ' ';
	plan = run_prepare(name_expand(FIND_SQL, &redrive->name), lengthof(types), types);
	values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	count = run_prepared(plan, values, nulls, InvalidSnapshot, false);
	rows_require_types(found_types, lengthof(found_types));
	redrive->candidates = palloc_extended(sizeof(Candidate) * (count + 1), MCXT_ALLOC_HUGE);
	for (i = 0; i < count; i++)
		take_candidate(redrive, i);
	qsort(redrive->candidates, redrive->count, sizeof(Candidate), compare_candidates);
}

/* ---- their way ---- */

static Datum
ids_of(const Candidate *candidates, int count)
{
	Datum	   *ids = palloc(sizeof(Datum) * count);
	int			i;

	for (i = 0; i < count; i++)
		ids[i] = Int64GetDatum(candidates[i].msg_id);
	return PointerGetDatum(construct_array(ids, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Send messages back that have the same destination; how many */
static int64
send_back(const Redrive *redrive, const Candidate *candidates, int count)
{
	static const Oid taken_types[] = {JSONBARRAYOID, JSONBARRAYOID, INT8OID};
	Oid			type = INT8ARRAYOID;
	Datum		ids = ids_of(candidates, count);
	SPIPlanPtr	plan = run_prepare(name_expand(TAKE_SQL, &redrive->name), 1, &type);
	Datum		row[3];
	bool		nulls[3];
	Outgoing	out;
	ValueList  *sent;
	const NullableDatum *values;
	int64		taken;
	int			i;

	effect_taking(&redrive->name, count);
	if (run_prepared(plan, &ids, NULL, InvalidSnapshot, false) != 1)
		elog(ERROR, "unexpected number of rows");
	rows_require_types(taken_types, lengthof(taken_types));
	for (i = 0; i < 3; i++)
		row[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
	taken = DatumGetInt64(row[2]);
	effect_taken(&redrive->name, count, taken);
	policy_removed(&redrive->name, policy_of(&redrive->name), taken);
	/* A trigger may have kept them */
	if (taken == 0)
		return 0;
	send_take_arrays(row[0], row[1], &out);
	sent = result_values(INT8OID);
	send_to(&candidates[0].destination, &out, result_values_dest(sent));
	require_all_arrived(taken, result_values_got(sent, &values));
	return taken;
}

/* How many of them to send together, at least one */
static int
next_step(const Candidate *candidates, uint64 count)
{
	int64		bytes = candidates->size;
	int			step = 1;

	while (step < REDRIVE_MESSAGES && step < count &&
		   strcmp(candidates[step].destination.canonical, candidates->destination.canonical) == 0 &&
		   (bytes += candidates[step].size) <= REDRIVE_BYTES)
		step++;
	return step;
}

static int64
run(Redrive *redrive)
{
	int64		sent = 0;
	uint64		first = 0;

	SPI_connect();
	find_candidates(redrive);
	while (first < redrive->count)
	{
		const Candidate *candidates = &redrive->candidates[first];
		int			count = next_step(candidates, redrive->count - first);

		CHECK_FOR_INTERRUPTS();
		/* What one step needs goes with its call: the candidates are in this one's memory */
		SPI_connect();
		sent += send_back(redrive, candidates, count);
		SPI_finish();
		first += count;
	}
	SPI_finish();
	return sent;
}

/* ---- the call ---- */

static NullableDatum
argument(FunctionCallInfo fcinfo, int argno)
{
	NullableDatum value;

	arg_to_param(fcinfo, argno, &value.value, &value.isnull);
	return value;
}

static void
take_destination(FunctionCallInfo fcinfo, Redrive *redrive, QueueName *destination)
{
	redrive->destination = NULL;
	if (PG_ARGISNULL(1))
		return;
	name_from_arg(fcinfo, 1, destination);
	if (memcmp(destination, &redrive->name, sizeof(QueueName)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue \"%s\" cannot be redriven to itself", destination->canonical),
				 errhint("Name another queue as the destination, or none.")));
	queue_require(destination);
	queue_require_privilege(destination, ACL_INSERT);
	redrive->destination = destination;
}

/*
 * pgmq.redrive(dead_letter_queue text, destination text, max_messages integer,
 *	 msg_ids bigint[]) -> bigint
 */
Datum
pgmq_redrive(PG_FUNCTION_ARGS)
{
	Redrive		redrive = {0};
	QueueName	destination;

	name_from_arg(fcinfo, 0, &redrive.name);
	queue_require(&redrive.name);
	queue_require_privilege(&redrive.name, ACL_DELETE);
	take_destination(fcinfo, &redrive, &destination);
	redrive.most = argument(fcinfo, 2);
	redrive.ids = argument(fcinfo, 3);
	if (!redrive.most.isnull && PG_GETARG_INT32(2) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must not be negative, got: %d", PG_GETARG_INT32(2))));
	if (!redrive.most.isnull)
		redrive.most.value = Int64GetDatum(PG_GETARG_INT32(2));
	PG_RETURN_INT64(run(&redrive));
}
