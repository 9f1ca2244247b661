/*
 * create.c
 *	  Create, drop and list streams.
 *
 * This runs rarely, so its statements are not kept.  The two tables of a stream are made with the rights
 * of the caller, and belong to it.  Rows about streams are written as the owner of pgmq.stream.
 *
 * A relation that has the name of one of these tables already is an error of the server: it can belong to
 * another role, with code that would run with the rights of each publisher.
 */
#include "pgmq.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "wait/wait.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_create_stream);
PG_FUNCTION_INFO_V1(pgmq_drop_stream);
PG_FUNCTION_INFO_V1(pgmq_list_streams);

#define FIRST_PARTS 2

/* ---- create ---- */

typedef struct NewStream
{
	QueueName	name;
	char	   *spelling;
	int			shards;
	char	   *retention;
	char	   *keep_unconsumed;	/* or NULL */
} NewStream;

/* lower() may lengthen a name, so both spellings are checked */
static void
require_length(const char *name)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("stream_name must not be empty")));
	if (strlen(name) > MAX_QUEUE_NAME_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name of a stream must not be longer than %d bytes", MAX_QUEUE_NAME_BYTES),
				 errdetail("The name has %d bytes.", (int) strlen(name))));
}

static void
stream_from_args(FunctionCallInfo fcinfo, NewStream *stream)
{
	stream_from_arg(fcinfo, 0, &stream->name);
	stream->spelling = text_to_cstring(PG_GETARG_TEXT_PP(0));
	require_length(stream->spelling);
	require_length(stream->name.canonical);
	stream->shards = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	if (stream->shards < 1 || stream->shards > MAX_SHARDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("shards must be between 1 and %d", MAX_SHARDS)));
	stream->retention = stream_interval_arg(fcinfo, 2, "retention", true);
	stream->keep_unconsumed = stream_interval_arg(fcinfo, 3, "keep_unconsumed", false);
}

/* The caller may create queues, and there is no queue of that name.  The caller holds lock_queue(). */
static void
require_free_name(const QueueName *name)
{
	if (registered_spelling(name) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("a queue \"%s\" exists", name->canonical),
				 errhint("Queues and streams share their names. Choose another name for the stream.")));
}

/*
 * The log and its first parts.  The primary key is the only index.  Events without a part go
 * to the default one, so no publisher ever needs a part.
 */
static void
make_log(const QueueName *name)
{
	const char *log = name_table(name, STREAM_TABLE);
	int			nest = begin_partitioned_ddl();
	int			i;

	run_ddl("CREATE TABLE %s ("
			"event_id bigint GENERATED ALWAYS AS IDENTITY,"
			" published_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp(),"
			" shard integer NOT NULL,"
			" key pg_catalog.text,"
			" message pg_catalog.jsonb,"
			" headers pg_catalog.jsonb,"
			" PRIMARY KEY (shard, event_id)) PARTITION BY RANGE (event_id)", log);
	run_ddl("CREATE TABLE %s PARTITION OF %s DEFAULT USING heap",
			quote_qualified_identifier(PGMQ_SCHEMA, name_bare(name, STREAM_TABLE, "_default")), log);
	for (i = 0; i < FIRST_PARTS; i++)
	{
		int64		lower = Max(i * FIRST_WIDTH, 1);

		run_ddl("CREATE TABLE %s PARTITION OF %s FOR VALUES FROM ('" INT64_FORMAT "') TO ('" INT64_FORMAT "') USING heap",
				quote_qualified_identifier(PGMQ_SCHEMA, name_bare(name, STREAM_TABLE, psprintf("_p" INT64_FORMAT, lower))),
				log, lower, (i + 1) * FIRST_WIDTH);
	}
	AtEOXact_GUC(false, nest);
}

/* States are read from the newest to the oldest, and old ones are dead rows behind it */
static void
make_positions(const QueueName *name)
{
	run_ddl("CREATE TABLE %s ("
			"subscription pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL,"
			" shard integer NOT NULL,"
			" state bigint NOT NULL,"
			" passed_id bigint NOT NULL,"
			" lease bigint,"
			" leased_until timestamp with time zone,"
			" leased_id bigint,"
			" attempts bigint[],"
			" PRIMARY KEY (subscription, shard, state)) USING heap",
			name_table(name, POSITIONS_TABLE));
	run_ddl("COMMENT ON TABLE %s IS 'How far the subscriptions of the stream have come, and who has which shard'",
			name_table(name, POSITIONS_TABLE));
}

static void
register_stream(const NewStream *stream)
{
	const char *const args[] = {stream->spelling, psprintf("%d", stream->shards), stream->retention,
	stream->keep_unconsumed, stream->name.canonical};

	/* What a stream has left whose tables were dropped by hand */
	(void) stream_write_rows(OWN_STREAM, "DELETE FROM pgmq.stream WHERE identity OPERATOR(pg_catalog.=) $1",
							 1, &args[4]);
	(void) stream_write_rows(OWN_SUBSCRIPTION, "DELETE FROM pgmq.subscription"
							 " WHERE pg_catalog.lower(stream_name) OPERATOR(pg_catalog.=) $1", 1, &args[4]);
	(void) stream_write_rows(OWN_STREAM_BINDINGS, "DELETE FROM pgmq.topic_stream_bindings"
							 " WHERE pg_catalog.lower(stream_name) OPERATOR(pg_catalog.=) $1", 1, &args[4]);
	(void) stream_write_rows(OWN_STREAM, "INSERT INTO pgmq.stream (stream_name, shards, retention, keep_unconsumed)"
							 " VALUES ($1, $2::pg_catalog.int4, $3::pg_catalog.interval, $4::pg_catalog.interval)", 4, args);
}

/*
 * pgmq.create_stream(stream_name text, shards integer, retention interval,
 *	 keep_unconsumed interval) -> void
 *
 * A stream that exists stays as it is.
 */
Datum
pgmq_create_stream(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"queue_name", "is_partitioned", "is_unlogged"};
	NewStream	stream;

	stream_from_args(fcinfo, &stream);
	rights_require_create();
	/* This privilege is what makes a role a maker of queues, and of streams */
	rights_require_columns(relcheck_own_relid(OWN_META), ACL_INSERT, columns, lengthof(columns));
	SPI_connect();
	lock_queue(&stream.name);
	require_free_name(&stream.name);
	if (OidIsValid(queue_relid(&stream.name, STREAM_TABLE)) && stream_is_registered(&stream.name))
		ereport(NOTICE,
				(errmsg("stream \"%s\" exists, with %d shards", stream.name.canonical,
						stream_shards(&stream.name))));
	else
	{
		make_log(&stream.name);
		make_positions(&stream.name);
		register_stream(&stream);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- drop ---- */

static void
drop_table(const QueueName *name, char prefix)
{
	if (OidIsValid(queue_relid(name, prefix)))
		run_ddl("DROP TABLE %s", name_table(name, prefix));
}

static void
require_owner(const QueueName *name)
{
	rights_require_owner(queue_relid(name, STREAM_TABLE));
	rights_require_owner(queue_relid(name, POSITIONS_TABLE));
	/* A stream without tables has no owner */
	if (!OidIsValid(queue_relid(name, STREAM_TABLE)) && !OidIsValid(queue_relid(name, POSITIONS_TABLE)))
		rights_require_columns(relcheck_own_relid(OWN_STREAM), ACL_DELETE, NULL, 0);
}

static bool
drop_stream(const QueueName *name)
{
	const char *const args[] = {name->canonical};
	bool		existed;

	if (!stream_is_registered(name))
		return false;
	require_owner(name);
	SPI_connect();
	lock_queue(name);
	existed = stream_is_registered(name);
	if (existed)
	{
		require_owner(name);
		/* Sessions that wait for it find that it is gone */
		held_taken(name, NULL);
		drop_table(name, STREAM_TABLE);
		drop_table(name, POSITIONS_TABLE);
		(void) stream_write_rows(OWN_SUBSCRIPTION, "DELETE FROM pgmq.subscription"
								 " WHERE pg_catalog.lower(stream_name) OPERATOR(pg_catalog.=) $1", 1, args);
		(void) stream_write_rows(OWN_STREAM_BINDINGS, "DELETE FROM pgmq.topic_stream_bindings"
								 " WHERE pg_catalog.lower(stream_name) OPERATOR(pg_catalog.=) $1", 1, args);
		(void) stream_write_rows(OWN_STREAM, "DELETE FROM pgmq.stream"
								 " WHERE identity OPERATOR(pg_catalog.=) $1", 1, args);
	}
	SPI_finish();
	plan_forget(name);
	return existed;
}

/* pgmq.drop_stream(stream_name text) -> boolean */
Datum
pgmq_drop_stream(PG_FUNCTION_ARGS)
{
	QueueName	name;

	stream_from_arg(fcinfo, 0, &name);
	if (drop_stream(&name))
		PG_RETURN_BOOL(true);
	ereport(NOTICE,
			(errmsg("stream \"%s\" does not exist", name.canonical)));
	PG_RETURN_BOOL(false);
}

/* ---- list ---- */

/* pgmq.list_streams() -> SETOF record */
Datum
pgmq_list_streams(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"stream_name", "shards", "retention", "keep_unconsumed", "created_at"};
	static const OwnKey by_name[] = {{0, DEFAULT_COLLATION_OID, false}};
	OwnRow	   *rows;
	uint64		count;

	InitMaterializedSRF(fcinfo, 0);
	count = ownread(OWN_STREAM, VIEW_OF_STATEMENT, columns, lengthof(columns), &rows);
	ownread_sort(rows, count, by_name, lengthof(by_name));
	ownread_put(fcinfo, rows, count);
	return (Datum) 0;
}
