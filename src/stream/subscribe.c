/*
 * subscribe.c
 *	  Make, drop and list subscriptions; where they start, and pgmq.seek().
 *
 * A subscription belongs to the role that made it.  It consists of a row in pgmq.subscription and a state for each shard.
 * A call that changes all of it takes the mutexes of all shards, in their order.  Then no other session is at work on it.
 *
 * A call that makes a position, or moves one back, keeps maintenance from old events until its transaction ends: see passed.c.
 */
#include "pgmq.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "wait/wait.h"
#include "stream/internal.h"

PG_FUNCTION_INFO_V1(pgmq_subscribe);
PG_FUNCTION_INFO_V1(pgmq_unsubscribe);
PG_FUNCTION_INFO_V1(pgmq_list_subscriptions);
PG_FUNCTION_INFO_V1(pgmq_seek);

/* ---- where to start ---- */

typedef enum StartKind
{
	START_EARLIEST,
	START_LATEST,
	START_ID,
	START_TIME
} StartKind;

typedef struct Start
{
	StartKind	kind;
	int64		id;
	TimestampTz time;
} Start;

static StartKind
start_from_text(const char *start)
{
	if (strcmp(start, "earliest") == 0)
		return START_EARLIEST;
	if (strcmp(start, "latest") == 0)
		return START_LATEST;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown start \"%s\"", start),
			 errhint("It is 'earliest' or 'latest'; or give start_id or start_time.")));
}

/* Arguments 2 to 4.  An id or a time counts before a start, which has a default in subscribe(). */
static void
start_from_args(FunctionCallInfo fcinfo, bool has_default, Start *start)
{
	int			given = !PG_ARGISNULL(3) + !PG_ARGISNULL(4) + (!has_default && !PG_ARGISNULL(2));

	if (given > 1 || (given == 0 && PG_ARGISNULL(2)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("give one of start, start_id and start_time")));
	start->id = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3);
	start->time = PG_ARGISNULL(4) ? 0 : PG_GETARG_TIMESTAMPTZ(4);
	if (!PG_ARGISNULL(3))
		start->kind = START_ID;
	else if (!PG_ARGISNULL(4))
		start->kind = START_TIME;
	else
		start->kind = start_from_text(text_to_cstring(PG_GETARG_TEXT_PP(2)));
}

static int64
passed_by_id(int64 id, int64 last_id)
{
	if (id > last_id + 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_id " INT64_FORMAT " was not reached by now", id),
				 errdetail("The last event_id is " INT64_FORMAT ".", last_id)));
	return Max(id, 1) - 1;
}

/*
 * After a crash, a prepared transaction can have any ids.  Until it is finished, it is not known
 * how far the ids are stable.  To start at the first event instead would replay all that is kept.
 */
static int64
passed_by_end(const StreamLog *log, int64 end)
{
	if (end == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the end of stream \"%s\" is not known", log->name.canonical),
				 errdetail("A transaction that has written to %s is open, and it is not known since when.",
						   name_table(&log->name, STREAM_TABLE)),
				 errhint("Finish the transaction that pgmq.stream_lag() shows, or start at an id.")));
	return end - 1;
}

/* For each shard the id that counts as passed */
static void
find_start(const Start *start, const StreamLog *log, int64 end, int64 last_id, int64 *passed)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			shard;

	for (shard = 0; shard < log->shards; shard++)
	{
		switch (start->kind)
		{
			case START_EARLIEST:
				passed[shard] = 0;
				break;
			case START_LATEST:
				passed[shard] = passed_by_end(log, end);
				break;
			case START_ID:
				passed[shard] = passed_by_id(start->id, last_id);
				break;
			case START_TIME:
				passed[shard] = log_before(log, snapshot, shard, start->time, passed_by_end(log, end));
				break;
		}
	}
	UnregisterSnapshot(snapshot);
}

/* ---- subscribe, unsubscribe ---- */

/* A role that could choose a name with the mutexes of another subscription could stop that one.  The caller holds lock_queue(). */
static void
require_own_mutex(const Positions *positions)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	char	   *other = NULL;

	while ((other = state_next_subscription(positions, snapshot, other)) != NULL)
	{
		if (strcmp(other, positions->subscription) != 0 &&
			state_mutex_key(other) == state_mutex_key(positions->subscription))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("the name \"%s\" cannot be used for a subscription of this stream", positions->subscription),
					 errdetail("Its locks would be those of another subscription."),
					 errhint("Choose another name.")));
	}
	UnregisterSnapshot(snapshot);
}

static bool
subscribe(const QueueName *name, const char *subscription, const Start *start)
{
	const char *args[] = {stream_spelling(name), subscription, GetUserNameFromId(GetUserId(), false)};
	StreamLog	log;
	Positions	positions;
	int64		passed[MAX_SHARDS];
	int64		last_id;
	int64		end;
	Oid			role;

	stream_require(name);
	rights_require_select(queue_relid(name, STREAM_TABLE), NULL, 0);
	lock_queue(name);
	passed_hold(name);
	end = log_open_to_end(name, &log, &last_id);
	if (subscription_find(name, subscription, &role))
	{
		log_close(&log);
		return false;
	}
	find_start(start, &log, end, last_id, passed);
	positions_open(name, subscription, &positions);
	require_own_mutex(&positions);
	/* What a subscription has left whose row was deleted by hand */
	states_delete(&positions);
	states_begin(&positions, passed, log.shards);
	(void) stream_write_rows(OWN_SUBSCRIPTION, "INSERT INTO pgmq.subscription (stream_name, subscription, role)"
							 " VALUES ($1, $2, $3::pg_catalog.name)", lengthof(args), args);
	positions_close(&positions);
	log_close(&log);
	return true;
}

/*
 * pgmq.subscribe(stream_name text, subscription text, start text, start_id bigint,
 *	 start_time timestamptz) -> boolean
 *
 * False if the subscription exists; it stays where it is.
 */
Datum
pgmq_subscribe(PG_FUNCTION_ARGS)
{
	QueueName	name;
	Start		start;
	char	   *subscription;
	bool		made;

	stream_from_arg(fcinfo, 0, &name);
	subscription = subscription_from_arg(fcinfo, 1);
	start_from_args(fcinfo, true, &start);
	PreventCommandIfReadOnly("pgmq.subscribe()");
	SPI_connect();
	made = subscribe(&name, subscription, &start);
	SPI_finish();
	PG_RETURN_BOOL(made);
}

/* pgmq.unsubscribe(stream_name text, subscription text) -> boolean */
Datum
pgmq_unsubscribe(PG_FUNCTION_ARGS)
{
	QueueName	name;
	char	   *subscription;
	const char *identity;
	Positions	positions;
	Oid			role;
	bool		existed;
	int			shards;
	int			shard;

	stream_from_arg(fcinfo, 0, &name);
	subscription = subscription_from_arg(fcinfo, 1);
	PreventCommandIfReadOnly("pgmq.unsubscribe()");
	SPI_connect();
	stream_require(&name);
	if (!subscription_find(&name, subscription, &role))
	{
		SPI_finish();
		PG_RETURN_BOOL(false);
	}
	subscription_require(&name, subscription);
	lock_queue(&name);
	shards = stream_shards(&name);
	positions_open(&name, subscription, &positions);
	for (shard = 0; shard < shards; shard++)
		(void) state_lock(&positions, shard, true);
	states_delete(&positions);
	held_changed(&name, subscription);
	identity = psprintf("%s;%s", name.canonical, subscription);
	/* Another session may have done it while we waited */
	existed = stream_write_rows(OWN_SUBSCRIPTION, "DELETE FROM pgmq.subscription"
								" WHERE identity OPERATOR(pg_catalog.=) $1", 1, &identity) > 0;
	positions_close(&positions);
	SPI_finish();
	PG_RETURN_BOOL(existed);
}

/* pgmq.list_subscriptions(stream_name text) -> SETOF record */
Datum
pgmq_list_subscriptions(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"stream_name", "subscription", "role", "created_at", "dropped_events"};
	static const OwnKey by_name[] = {{0, DEFAULT_COLLATION_OID, false}, {1, C_COLLATION_OID, false}};
	QueueName	name;
	OwnRow	   *rows;
	uint64		count;
	uint64		found = 0;
	uint64		i;

	if (!PG_ARGISNULL(0))
		stream_from_arg(fcinfo, 0, &name);
	InitMaterializedSRF(fcinfo, 0);
	count = ownread(OWN_SUBSCRIPTION, VIEW_OF_STATEMENT, columns, lengthof(columns), &rows);
	for (i = 0; i < count; i++)
	{
		if (PG_ARGISNULL(0) || ownread_is_of(&rows[i], 0, &name))
			rows[found++] = rows[i];
	}
	ownread_sort(rows, found, by_name, lengthof(by_name));
	ownread_put(fcinfo, rows, found);
	return (Datum) 0;
}

/* ---- seek ---- */

/* Under all mutexes: a lease that is not over is an error, unless it is taken away */
static void
require_no_lease(const Positions *positions, int shards, bool force)
{
	TimestampTz now = GetCurrentTimestamp();
	int			shard;

	for (shard = 0; shard < shards; shard++)
	{
		ShardState	state;

		(void) state_lock(positions, shard, true);
		if (!state_read_latest(positions, shard, &state))
			subscription_is_missing(&positions->name, positions->subscription);
		if (!force && !state_is_free(&state, now))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("shard %d of subscription \"%s\" is leased", shard, positions->subscription),
					 errhint("Wait until the lease is over, or take it away with force => true.")));
	}
}

static void
seek(const QueueName *name, const char *subscription, const Start *start, bool force)
{
	StreamLog	log;
	Positions	positions;
	int64		passed[MAX_SHARDS];
	int64		last_id;
	int64		end;
	int			shard;

	subscription_require(name, subscription);
	passed_hold(name);
	end = log_open_to_end(name, &log, &last_id);
	find_start(start, &log, end, last_id, passed);
	positions_open(name, subscription, &positions);
	require_no_lease(&positions, log.shards, force);
	for (shard = 0; shard < log.shards; shard++)
	{
		ShardState	state;

		if (!state_read_latest(&positions, shard, &state))
			subscription_is_missing(name, subscription);
		state_end_lease(&state);
		state.nattempts = 0;
		state.passed_id = passed[shard];
		state_write(&positions, &state);
	}
	held_changed(name, subscription);
	positions_close(&positions);
	log_close(&log);
}

/*
 * pgmq.seek(stream_name text, subscription text, start text, start_id bigint,
 *	 start_time timestamptz, force boolean) -> void
 */
Datum
pgmq_seek(PG_FUNCTION_ARGS)
{
	QueueName	name;
	Start		start;
	char	   *subscription;

	stream_from_arg(fcinfo, 0, &name);
	subscription = subscription_from_arg(fcinfo, 1);
	start_from_args(fcinfo, false, &start);
	PreventCommandIfReadOnly("pgmq.seek()");
	SPI_connect();
	seek(&name, subscription, &start, !PG_ARGISNULL(5) && PG_GETARG_BOOL(5));
	SPI_finish();
	PG_RETURN_VOID();
}
