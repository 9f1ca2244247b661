/*
 * topic.c
 *	  Routing: bind patterns to queues, and send to all queues whose patterns
 *	  match a routing key.
 *
 * A send goes to all of its queues or to none: it is one statement.  It sends
 * to them in the order of their names, whichever bindings matched.  So two
 * sends whose queues overlap take their locks in the same order.  A queue is
 * its lower-cased name here too: it gets one message, even if it is bound by
 * several patterns or in several spellings.
 *
 * All of this runs with the rights of the caller.
 */
#include "pgmq.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

#include "base/base.h"
#include "queue/queue.h"
#include "message/message.h"
#include "stream/stream.h"
#include "topic/topic.h"

PG_FUNCTION_INFO_V1(pgmq_bind_topic);
PG_FUNCTION_INFO_V1(pgmq_unbind_topic);
PG_FUNCTION_INFO_V1(pgmq_list_topic_bindings);
PG_FUNCTION_INFO_V1(pgmq_list_topic_bindings_of);
PG_FUNCTION_INFO_V1(pgmq_test_routing);
PG_FUNCTION_INFO_V1(pgmq_send_topic);
PG_FUNCTION_INFO_V1(pgmq_send_topic_delay);
PG_FUNCTION_INFO_V1(pgmq_send_topic_headers_delay);
PG_FUNCTION_INFO_V1(pgmq_send_batch_topic);
PG_FUNCTION_INFO_V1(pgmq_send_batch_topic_headers);
PG_FUNCTION_INFO_V1(pgmq_send_batch_topic_delay);
PG_FUNCTION_INFO_V1(pgmq_send_batch_topic_at);
PG_FUNCTION_INFO_V1(pgmq_send_batch_topic_headers_delay);
PG_FUNCTION_INFO_V1(pgmq_send_batch_topic_headers_at);

/* ---- bindings ---- */

/* A session that is creating or dropping the queue goes first */
#define SHARE_QUEUE_SQL \
	"SELECT pg_catalog.pg_advisory_xact_lock_shared(" QUEUE_LOCK_KEY("pg_catalog.lower($2)") ")" \
	" WHERE $1 IS NOT NULL"

#define BIND_SQL \
	"INSERT INTO pgmq.topic_bindings (pattern, queue_name) VALUES ($1, $2)" \
	" ON CONFLICT ON CONSTRAINT topic_bindings_unique_pattern_queue DO NOTHING"

#define UNBIND_SQL \
	"DELETE FROM pgmq.topic_bindings" \
	" WHERE pattern OPERATOR(pg_catalog.=) $1" \
	" AND pg_catalog.lower(queue_name) OPERATOR(pg_catalog.=) pg_catalog.lower($2)"

/* Run a statement on a pattern, $1, and a queue, $2; how many rows it processed */
static uint64
run_on_binding(const char *sql, const char *pattern, const char *queue_name)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(pattern);
	values[1] = CStringGetTextDatum(queue_name);
	return run_prepared(run_prepare(sql, lengthof(types), types), values, NULL, InvalidSnapshot, false);
}

/* The text of an argument; NULL is as good as empty */
static char *
text_or_empty(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

static char *
required_queue_name(FunctionCallInfo fcinfo, int argno)
{
	char	   *queue_name = text_or_empty(fcinfo, argno);

	if (queue_name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("queue_name cannot be NULL or empty")));
	return queue_name;
}

/* The columns that binding and unbinding read */
static const char *const meta_columns[] = {"queue_name", "created_at"};
static const char *const binding_columns[] = {"pattern", "queue_name"};

/* pgmq.bind_topic(pattern text, queue_name text) -> void */
Datum
pgmq_bind_topic(PG_FUNCTION_ARGS)
{
	char	   *pattern = pattern_valid_pattern(fcinfo, 0);
	char	   *queue_name = required_queue_name(fcinfo, 1);
	char	   *spelling = NULL;
	QueueName	name;

	/* A refused caller must not make other sessions wait */
	rights_require_columns(relcheck_own_relid(OWN_META), ACL_SELECT, meta_columns,
						   lengthof(meta_columns));
	rights_require_columns(relcheck_own_relid(OWN_TOPIC_BINDINGS), ACL_SELECT, binding_columns,
						   lengthof(binding_columns));
	rights_require_columns(relcheck_own_relid(OWN_TOPIC_BINDINGS), ACL_INSERT, binding_columns,
						   lengthof(binding_columns));
	SPI_connect();
	run_on_binding(SHARE_QUEUE_SQL, pattern, queue_name);
	if (name_try_canonical(cstring_to_text(queue_name), &name))
		spelling = registered_spelling(&name);
	relcheck_own_table(OWN_TOPIC_BINDINGS, RowExclusiveLock);
	if (spelling == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("Queue \"%s\" does not exist. Create the queue first using pgmq.create()",
						queue_name)));
	run_on_binding(BIND_SQL, pattern, spelling);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * pgmq.unbind_topic(pattern text, queue_name text) -> boolean
 *
 * Takes any pattern, so that one that was not bound by bind_topic() can go.
 */
Datum
pgmq_unbind_topic(PG_FUNCTION_ARGS)
{
	char	   *pattern = text_or_empty(fcinfo, 0);
	char	   *queue_name;
	bool		removed;

	if (pattern[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("pattern cannot be NULL or empty")));
	queue_name = required_queue_name(fcinfo, 1);
	rights_require_columns(relcheck_own_relid(OWN_TOPIC_BINDINGS), ACL_SELECT, binding_columns,
						   lengthof(binding_columns));
	rights_require_table(relcheck_own_relid(OWN_TOPIC_BINDINGS), ACL_DELETE);
	relcheck_own_table(OWN_TOPIC_BINDINGS, RowExclusiveLock);
	SPI_connect();
	removed = run_on_binding(UNBIND_SQL, pattern, queue_name) > 0;
	SPI_finish();
	PG_RETURN_BOOL(removed);
}

/* The bindings of one queue, or of all, that the calling query sees; the latest come first */
static void
list_bindings(FunctionCallInfo fcinfo, const QueueName *name)
{
	static const char *const columns[] = {"pattern", "queue_name", "bound_at", "compiled_regex"};
	static const char *const of_streams[] = {"pattern", "stream_name", "bound_at", "compiled_regex"};
	static const OwnKey by_age[] = {{2, InvalidOid, true}, {0, DEFAULT_COLLATION_OID, false},
	{1, DEFAULT_COLLATION_OID, false}};
	OwnRow	   *rows;
	uint64		count;
	uint64		used = 0;
	uint64		i;

	InitMaterializedSRF(fcinfo, 0);
	count = bindings_read(VIEW_OF_CALLER, columns, of_streams, lengthof(columns), &rows);
	for (i = 0; i < count; i++)
	{
		if (name == NULL || ownread_is_of(&rows[i], 1, name))
			rows[used++] = rows[i];
	}
	ownread_sort(rows, used, by_age, lengthof(by_age));
	ownread_put(fcinfo, rows, used);
}

/* pgmq.list_topic_bindings() -> TABLE(pattern, queue_name, bound_at, compiled_regex) */
Datum
pgmq_list_topic_bindings(PG_FUNCTION_ARGS)
{
	list_bindings(fcinfo, NULL);
	return (Datum) 0;
}

/* pgmq.list_topic_bindings(queue_name text) -> the same */
Datum
pgmq_list_topic_bindings_of(PG_FUNCTION_ARGS)
{
	QueueName	name;

	/* As long as this, it is of no queue */
	memset(&name, '~', sizeof(name));
	if (!PG_ARGISNULL(0))
		(void) name_try_canonical(PG_GETARG_TEXT_PP(0), &name);
	list_bindings(fcinfo, &name);
	return (Datum) 0;
}

/* ---- routing ---- */

/* A tree of the bindings' patterns; values are numbers of rows */
static PatternTree *
tree_of_rows(const OwnRow *rows, uint64 count)
{
	PatternEntry *entries;
	uint32		used = 0;
	uint64		i;

	entries = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(PatternEntry) * (Size) Max(count, 1));
	for (i = 0; i < count; i++)
	{
		/* Bindings of nothing, which the owner can have allowed */
		if (rows[i].nulls[0] || rows[i].nulls[1])
			continue;
		entries[used].pattern = ownread_text(&rows[i], 0);
		entries[used].len = (int) strlen(entries[used].pattern);
		entries[used++].value = (uint32) i;
	}
	return pattern_tree(entries, used);
}

/*
 * pgmq.test_routing(routing_key text) -> TABLE(pattern, queue_name, compiled_regex)
 *
 * The bindings that the calling query sees, matched as a send matches them.
 */
Datum
pgmq_test_routing(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"pattern", "queue_name", "compiled_regex"};
	static const char *const of_streams[] = {"pattern", "stream_name", "compiled_regex"};
	static const OwnKey by_pattern[] = {{0, DEFAULT_COLLATION_OID, false},
	{1, DEFAULT_COLLATION_OID, false}};
	char	   *key = pattern_valid_key(fcinfo, 0);
	OwnRow	   *rows;
	OwnRow	   *matching;
	uint32	   *numbers;
	uint64		all;
	uint32		count;
	uint32		i;

	InitMaterializedSRF(fcinfo, 0);
	all = bindings_read(VIEW_OF_CALLER, columns, of_streams, lengthof(columns), &rows);
	count = pattern_match(tree_of_rows(rows, all), key, &numbers);
	matching = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(OwnRow) * (Size) Max(count, 1));
	for (i = 0; i < count; i++)
		matching[i] = rows[numbers[i]];
	ownread_sort(matching, count, by_pattern, lengthof(by_pattern));
	ownread_put(fcinfo, matching, count);
	return (Datum) 0;
}

/* A queue or stream that a message goes to.  They share their names. */
typedef struct Destination
{
	QueueName	name;
	char	   *spelling;
	bool		is_stream;
} Destination;

/* As a query would order them, in this database */
static int
compare_routes(const void *a, const void *b)
{
	const char *left = ((const Destination *) a)->name.canonical;
	const char *right = ((const Destination *) b)->name.canonical;

	return varstr_cmp(left, (int) strlen(left), right, (int) strlen(right), DEFAULT_COLLATION_OID);
}

/* The queues and streams that a routing key leads to, in the order of their names; how many */
static uint32
find_routes(const char *key, Destination **routes)
{
	TopicTarget *targets;
	uint32		count = bindings_targets(key, &targets);
	uint32		i;

	*routes = palloc(sizeof(Destination) * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		(*routes)[i].spelling = targets[i].spelling;
		(*routes)[i].is_stream = targets[i].is_stream;
		name_canonical(cstring_to_text(targets[i].spelling), &(*routes)[i].name);
	}
	if (count > 1)
		qsort(*routes, count, sizeof(Destination), compare_routes);
	return qunique(*routes, count, sizeof(Destination), compare_routes);
}

static bool
lock_route(const Destination *route)
{
	return route->is_stream ? stream_lock(&route->name) : queue_lock(&route->name);
}

/*
 * The same, and the queues' tables are locked as an insert locks them, in that order.
 * A queue may have been dropped since its bindings were read, or before the lock was
 * granted.  Then its bindings are gone as well, and they are read again.  A queue
 * that is missing again is bound without a table, or this transaction's snapshot
 * still shows its bindings.  Then the send raises the usual error for an unknown
 * queue.
 */
static uint32
lock_routes(const char *key, Destination **routes)
{
	QueueName	missing;

	memset(&missing, 0, sizeof(missing));
	for (;;)
	{
		uint32		count = find_routes(key, routes);
		uint32		i = 0;

		while (i < count && lock_route(&(*routes)[i]))
			i++;
		if (i == count || memcmp(&missing, &(*routes)[i].name, sizeof(missing)) == 0)
			return count;
		missing = (*routes)[i].name;
		CHECK_FOR_INTERRUPTS();
		bindings_reread();
	}
}

/* ---- one message ---- */

static void
validate_message(FunctionCallInfo fcinfo, int msg_arg, Delay delay, int delay_arg)
{
	if (PG_ARGISNULL(msg_arg))
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("msg cannot be NULL")));
	if (delay == DELAY_SECONDS && !PG_ARGISNULL(delay_arg) && PG_GETARG_INT32(delay_arg) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("delay cannot be negative, got: %d", PG_GETARG_INT32(delay_arg))));
}

/*
 * An SPI call of its own for each queue: it holds the queue's plans until it
 * ends, and there may be more queues than the plans a session keeps.
 */
static Datum
route_one(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg)
{
	char	   *key = pattern_valid_key(fcinfo, 0);
	Outgoing	out;
	Destination	   *routes;
	uint32		count;
	uint32		i;

	validate_message(fcinfo, 1, delay, delay_arg);
	send_take_one(fcinfo, headers_arg, delay, delay_arg, &out);
	count = lock_routes(key, &routes);
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_connect();
		if (routes[i].is_stream)
			topic_publish_one(&routes[i].name, &out);
		else
			send_to(&routes[i].name, &out, None_Receiver);
		SPI_finish();
	}
	PG_RETURN_INT32((int32) count);
}

/* pgmq.send_topic(routing_key text, msg jsonb) -> integer */
Datum
pgmq_send_topic(PG_FUNCTION_ARGS)
{
	return route_one(fcinfo, 0, DELAY_NONE, 0);
}

/* pgmq.send_topic(routing_key text, msg jsonb, delay integer) -> integer */
Datum
pgmq_send_topic_delay(PG_FUNCTION_ARGS)
{
	return route_one(fcinfo, 0, DELAY_SECONDS, 2);
}

/* pgmq.send_topic(routing_key text, msg jsonb, headers jsonb, delay integer) -> integer */
Datum
pgmq_send_topic_headers_delay(PG_FUNCTION_ARGS)
{
	return route_one(fcinfo, 2, DELAY_SECONDS, 3);
}

/* ---- many messages ---- */

/* Send to one queue or stream, and put what that gives into the result: (queue_name, msg_id) */
static void
send_batch_to(const Destination *route, const Outgoing *out, ReturnSetInfo *rsinfo)
{
	Datum		values[2];
	bool		nulls[2] = {false, false};
	const NullableDatum *ids = NULL;
	int64	   *events = NULL;
	uint64		count;
	uint64		i;

	SPI_connect();
	values[0] = CStringGetTextDatum(route->spelling);
	if (route->is_stream)
		events = topic_publish_many(&route->name, out, &count);
	else
	{
		ValueList  *list = result_values(INT8OID);

		send_to(&route->name, out, result_values_dest(list));
		count = result_values_got(list, &ids);
	}
	for (i = 0; i < count; i++)
	{
		values[1] = route->is_stream ? Int64GetDatum(events[i]) : ids[i].value;
		nulls[1] = !route->is_stream && ids[i].isnull;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	SPI_finish();
}

static Datum
route_many(FunctionCallInfo fcinfo, int headers_arg, Delay delay, int delay_arg)
{
	char	   *key = pattern_valid_key(fcinfo, 0);
	Outgoing	out;
	Destination	   *routes;
	uint32		count;
	uint32		i;

	send_validate_batch(fcinfo, 1, headers_arg > 0 ? headers_arg : -1);
	InitMaterializedSRF(fcinfo, 0);
	send_take_many(fcinfo, headers_arg, delay, delay_arg, &out);
	count = lock_routes(key, &routes);
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		send_batch_to(&routes[i], &out, (ReturnSetInfo *) fcinfo->resultinfo);
	}
	return (Datum) 0;
}

/* pgmq.send_batch_topic(routing_key text, msgs jsonb[]) -> TABLE(queue_name text, msg_id bigint) */
Datum
pgmq_send_batch_topic(PG_FUNCTION_ARGS)
{
	return route_many(fcinfo, 0, DELAY_NONE, 0);
}

/* pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[]) -> the same */
Datum
pgmq_send_batch_topic_headers(PG_FUNCTION_ARGS)
{
	return route_many(fcinfo, 2, DELAY_NONE, 0);
}

/* pgmq.send_batch_topic(routing_key text, msgs jsonb[], delay integer) -> the same */
Datum
pgmq_send_batch_topic_delay(PG_FUNCTION_ARGS)
{
	return route_many(fcinfo, 0, DELAY_SECONDS, 2);
}

/* pgmq.send_batch_topic(routing_key text, msgs jsonb[], delay timestamptz) -> the same */
Datum
pgmq_send_batch_topic_at(PG_FUNCTION_ARGS)
{
	return route_many(fcinfo, 0, DELAY_UNTIL, 2);
}

/* pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay integer) -> the same */
Datum
pgmq_send_batch_topic_headers_delay(PG_FUNCTION_ARGS)
{
	return route_many(fcinfo, 2, DELAY_SECONDS, 3);
}

/* pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay timestamptz) -> the same */
Datum
pgmq_send_batch_topic_headers_at(PG_FUNCTION_ARGS)
{
	return route_many(fcinfo, 2, DELAY_UNTIL, 3);
}
