/*
 * unique.c
 *	  Send a message once: a second send of the same key sends nothing.
 *
 * A key is taken by a row of the queue's table of keys (keys.c): for a window of time, or
 * without one until its message has left the queue.
 *
 * 1. The unique index on the keys is the only thing that senders wait for.  A claim waits
 *	  for the open transaction of another sender of the key, and for no other session:
 *	  reads and deletes do not touch the table.
 * 2. Whether a key that exists is still taken is asked afterwards, by the latest
 *	  snapshot.  A statement that claims and asks at once has a snapshot from before its
 *	  wait.  It does not see the message of the sender that it has waited for, and takes
 *	  the key for free.
 * 3. A key that is free is claimed again by an UPDATE of the row that was looked at: its
 *	  msg_id says whether that is still the same one, because no id is used twice.  If it
 *	  is not, or the row is gone, the look was too old and the claim begins again.
 * 4. A claim has no msg_id.  It gets one, and its time, when the message has been sent.
 *	  Both are rolled back together.  So a committed row has a msg_id, and one without is
 *	  the own transaction's: code on the queue sends the key that is being sent.
 * 5. The keys of a call are claimed one by one, in the order of their bytes.  So one
 *	  call can wait for another, but two cannot deadlock.
 * 6. The claims are made with the rights of the table's owner, the message is sent with
 *	  the caller's.  A duplicate runs no statement on the queue as the caller, so the
 *	  privileges of a send are checked first.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "queue/queue.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_send_unique);
PG_FUNCTION_INFO_V1(pgmq_send_unique_batch);

#define MAX_KEY_BYTES 255

static const PlanSpec claim_plan = {
	PLAN_KEYS_CLAIM,
	"INSERT INTO {keys} (dedup_key) VALUES ($1) ON CONFLICT (dedup_key) DO NOTHING",
	1, {TEXTOID}
};

static const PlanSpec message_plan = {
	PLAN_KEYS_MESSAGE,
	"SELECT FROM {queue} WHERE msg_id OPERATOR(pg_catalog.=) $1",
	1, {INT8OID}
};

static const PlanSpec reclaim_plan = {
	PLAN_KEYS_RECLAIM,
	"UPDATE {keys} SET msg_id = NULL, expires_at = NULL"
	" WHERE dedup_key OPERATOR(pg_catalog.=) $1 AND msg_id OPERATOR(pg_catalog.=) $2",
	2, {TEXTOID, INT8OID}
};

static const PlanSpec sent_plan = {
	PLAN_KEYS_SENT,
	"UPDATE {keys} SET msg_id = $2, expires_at = $3 WHERE dedup_key OPERATOR(pg_catalog.=) $1",
	3, {TEXTOID, INT8OID, TIMESTAMPTZOID}
};

static const PlanSpec drop_plan = {
	PLAN_KEYS_DROP,
	"DELETE FROM {keys} WHERE dedup_key OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}
};

/* A message of a call, and what becomes of it */
typedef struct UniqueItem
{
	text	   *key;
	struct UniqueItem *first;			/* with the same key in this call; itself, if it is the first one */
	bool		is_duplicate;
	NullableDatum msg_id;
} UniqueItem;

typedef struct Call
{
	QueueName	name;
	KeysTable	keys;
	Interval   *window;			/* NULL: a key is taken until its message has left the queue */
	Outgoing	out;
	UniqueItem	   *items;
	int			count;
	int			unique;			/* how many of them are sent */
	MemoryContext context;		/* for a statement */
} Call;

/* ---- a key ---- */

typedef struct TakenKey
{
	NullableDatum msg_id;
	NullableDatum expires_at;
} TakenKey;

/* The row of a key as it was committed last, or written by this transaction; false if there is none */
static bool
find_key(const Call *call, const UniqueItem *item, TakenKey *taken)
{
	static const char *const columns[] = {"msg_id", "expires_at"};
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID};
	OwnRow		row;

	if (!ownread_find(call->keys.relid, VIEW_OF_LATEST, "dedup_key", TEXTOID, text_to_cstring(item->key),
					  columns, types, lengthof(columns), &row))
		return false;
	taken->msg_id.value = row.values[0];
	taken->msg_id.isnull = row.nulls[0];
	taken->expires_at.value = row.values[1];
	taken->expires_at.isnull = row.nulls[1];
	return true;
}

/* Whether the message is in the queue; a delete that is not committed yet has not removed it */
static bool
is_in_queue(const Call *call, Datum msg_id)
{
	OwnerScope	scope;
	OwnerScope	unpoliced;
	bool		found;

	owner_begin(call->keys.owner, &scope);
	owner_pass_policies(&unpoliced);
	found = plan_run_latest(&call->name, &message_plan, &msg_id) > 0;
	owner_end(&unpoliced);
	owner_end(&scope);
	return found;
}

static bool
is_taken(const Call *call, const TakenKey *taken)
{
	if (taken->msg_id.isnull)
		return true;
	if (!taken->expires_at.isnull)
		return GetCurrentTimestamp() < DatumGetTimestampTz(taken->expires_at.value);
	return is_in_queue(call, taken->msg_id.value);
}

/* Claim the key, or learn which message has it */
static void
claim_key(const Call *call, UniqueItem *item)
{
	Datum		values[2] = {PointerGetDatum(item->key)};
	TakenKey	taken;

	while (plan_run(&call->name, &claim_plan, values, NULL, None_Receiver) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (!find_key(call, item, &taken))
			continue;
		if (is_taken(call, &taken))
		{
			item->msg_id = taken.msg_id;
			item->is_duplicate = true;
			return;
		}
		values[1] = taken.msg_id.value;
		if (plan_run(&call->name, &reclaim_plan, values, NULL, None_Receiver) > 0)
			return;
	}
}

/* The message has been sent; if a trigger on the queue has suppressed it, the key is free again */
static void
settle_key(const Call *call, UniqueItem *item)
{
	Datum		values[3] = {PointerGetDatum(item->key), item->msg_id.value};
	bool		nulls[3] = {false, false, call->window == NULL};

	if (item->msg_id.isnull)
	{
		(void) plan_run(&call->name, &drop_plan, values, NULL, None_Receiver);
		return;
	}
	if (call->window != NULL)
		values[2] = DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
										IntervalPGetDatum(call->window));
	(void) plan_run(&call->name, &sent_plan, values, nulls, None_Receiver);
}

typedef void (*KeyStep) (const Call *call, UniqueItem *item);

/* A step on a key, as the owner of the table of keys; what the statements leave behind goes at once */
static void
run_step(Call *call, KeyStep step, UniqueItem *item)
{
	MemoryContext caller = MemoryContextSwitchTo(call->context);
	OwnerScope	scope;

	keys_begin(&call->keys, &scope);
	step(call, item);
	owner_end(&scope);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(call->context);
}

/* ---- arguments ---- */

static void
require_key(const text *key)
{
	int			bytes = VARSIZE_ANY_EXHDR(key);

	if (bytes > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("dedup_key is too long, maximum length is %d bytes", MAX_KEY_BYTES),
				 errdetail("The key has %d bytes.", bytes),
				 errhint("Use a hash of it.")));
}

static void
refuse_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s", what),
			 errhint("To send a message without a key, use pgmq.send().")));
}

/* The window of the call, otherwise that of the policy; NULL if there is none */
static Interval *
window_of(FunctionCallInfo fcinfo, int argno, const QueueName *name)
{
	const QueuePolicy *policy;

	if (!PG_ARGISNULL(argno))
	{
		keys_require_window(PG_GETARG_DATUM(argno));
		return PG_GETARG_INTERVAL_P(argno);
	}
	policy = policy_of(name);
	return (policy->set & POLICY_DEDUP_WINDOW) != 0 ? unconstify(Interval *, &policy->dedup_window) : NULL;
}

/*
 * Lock the queue, then its keys, as everything that locks both.  The caller must be able
 * to do what a send does, whether there will be one or not.
 */
static void
open_keys(Call *call)
{
	static const char *const written[] = {"enqueued_at", "vt", "message", "headers"};
	static const char *const returned[] = {"msg_id"};
	const QueueName *name = &call->name;
	Oid			relid;
	Relation	queue;

	queue_require(name);
	relid = queue_relid(name, QUEUE_TABLE);
	rights_require_columns(relid, ACL_INSERT, written, lengthof(written));
	rights_require_select(relid, returned, lengthof(returned));
	if (!OidIsValid(queue_relid(name, KEYS_TABLE)))
	{
		lock_queue(name);
		keys_make(name);
	}
	queue = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, NULL);
	queue_require(name);
	relation_close(queue, NoLock);
	if (!keys_lock(name, &call->keys))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("table %s was dropped concurrently", name_table(name, KEYS_TABLE)),
				 errhint("Run the statement again.")));
}

static void
begin_call(FunctionCallInfo fcinfo, Call *call, int window_arg)
{
	memset(call, 0, sizeof(*call));
	name_from_arg(fcinfo, 0, &call->name);
	call->window = window_of(fcinfo, window_arg, &call->name);
	call->context = AllocSetContextCreate(CurrentMemoryContext, "pgmq keys", ALLOCSET_SMALL_SIZES);
	open_keys(call);
}

static void
put_results(FunctionCallInfo fcinfo, const Call *call)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			i;

	for (i = 0; i < call->count; i++)
	{
		const UniqueItem *item = &call->items[i];
		Datum		values[2] = {item->first->msg_id.value, BoolGetDatum(item->is_duplicate)};
		bool		nulls[2] = {item->first->msg_id.isnull, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/* ---- one message ---- */

/*
 * pgmq.send_unique(queue_name text, msg jsonb, dedup_key text, dedup_window interval,
 *	 headers jsonb, delay integer) -> TABLE (msg_id bigint, is_duplicate boolean)
 */
Datum
pgmq_send_unique(PG_FUNCTION_ARGS)
{
	Call		call;
	UniqueItem		item = {.first = &item};
	ValueList  *ids;
	const NullableDatum *id;

	if (PG_ARGISNULL(2))
		refuse_null("dedup_key must not be NULL");
	item.key = PG_GETARG_TEXT_PP(2);
	require_key(item.key);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	SPI_connect();
	begin_call(fcinfo, &call, 3);
	call.items = &item;
	call.count = 1;
	run_step(&call, claim_key, &item);
	if (!item.is_duplicate)
	{
		send_take_one(fcinfo, 4, DELAY_SECONDS, 5, &call.out);
		ids = result_values(INT8OID);
		send_to(&call.name, &call.out, result_values_dest(ids));
		item.msg_id.isnull = true;
		if (result_values_got(ids, &id) > 0)
			item.msg_id = *id;
		run_step(&call, settle_key, &item);
	}
	put_results(fcinfo, &call);
	SPI_finish();
	return (Datum) 0;
}

/* ---- many messages ---- */

/* The order of the keys, and equal ones in the order of the array */
static int
compare_items(const void *a, const void *b)
{
	const UniqueItem *left = *(UniqueItem *const *) a;
	const UniqueItem *right = *(UniqueItem *const *) b;
	int			left_len = VARSIZE_ANY_EXHDR(left->key);
	int			right_len = VARSIZE_ANY_EXHDR(right->key);
	int			result = memcmp(VARDATA_ANY(left->key), VARDATA_ANY(right->key), Min(left_len, right_len));

	if (result == 0)
		result = left_len - right_len;
	return result != 0 ? result : (left > right) - (left < right);
}

static bool
is_same_key(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* As many keys as messages */
static void
take_keys(FunctionCallInfo fcinfo, Call *call)
{
	int			msgs = ArrayGetNItems(ARR_NDIM(PG_GETARG_ARRAYTYPE_P(1)), ARR_DIMS(PG_GETARG_ARRAYTYPE_P(1)));
	Datum	   *keys;
	bool	   *nulls;
	int			i;

	if (PG_ARGISNULL(2))
		refuse_null("dedup_keys must not be NULL");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls, &call->count);
	if (call->count != msgs)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dedup_keys array length (%d) must match msgs array length (%d)", call->count, msgs)));
	call->items = palloc0(sizeof(UniqueItem) * call->count);
	for (i = 0; i < call->count; i++)
	{
		if (nulls[i])
			refuse_null("dedup_keys must not contain nulls");
		call->items[i].key = DatumGetTextPP(keys[i]);
		require_key(call->items[i].key);
	}
}

/* In the order of the keys, each once */
static void
claim_keys(Call *call)
{
	UniqueItem	  **order = palloc(sizeof(UniqueItem *) * call->count);
	int			i;

	for (i = 0; i < call->count; i++)
		order[i] = &call->items[i];
	qsort(order, call->count, sizeof(UniqueItem *), compare_items);
	for (i = 0; i < call->count; i++)
	{
		order[i]->first = order[i];
		if (i > 0 && is_same_key(order[i - 1]->key, order[i]->key))
		{
			order[i]->first = order[i - 1]->first;
			order[i]->is_duplicate = true;
			continue;
		}
		run_step(call, claim_key, order[i]);
		call->unique += !order[i]->is_duplicate;
	}
	pfree(order);
}

/* Of an array of the call, the elements of the messages that are sent */
static Datum
choose(const Call *call, Datum array)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			chosen = 0;
	int			lower = 1;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(array), JSONBOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	for (i = 0; i < Min(count, call->count); i++)
	{
		if (call->items[i].is_duplicate)
			continue;
		values[chosen] = values[i];
		nulls[chosen++] = nulls[i];
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &chosen, &lower, JSONBOID, -1, false, TYPALIGN_INT));
}

/* The ids come in the order of the messages.  If a trigger has suppressed some, it is not known which. */
static void
take_ids(Call *call, const NullableDatum *ids, uint64 sent)
{
	int			i;
	int			next = 0;

	if (sent != 0 && sent != call->unique)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or a rule on queue \"%s\" has suppressed some of the messages, and their keys are not known",
						call->name.canonical),
				 errhint("Send them one by one with pgmq.send_unique().")));
	for (i = 0; i < call->count; i++)
	{
		if (call->items[i].is_duplicate)
			continue;
		call->items[i].msg_id.isnull = true;
		if (sent > 0)
			call->items[i].msg_id = ids[next++];
	}
}

static void
send_chosen(FunctionCallInfo fcinfo, Call *call)
{
	ValueList  *list = result_values(INT8OID);
	const NullableDatum *ids;
	uint64		sent;
	int			i;

	send_take_many(fcinfo, 4, DELAY_SECONDS, 5, &call->out);
	for (i = 0; i < 2 && call->unique < call->count; i++)
	{
		if (!call->out.nulls[i])
			call->out.values[i] = choose(call, call->out.values[i]);
	}
	send_to(&call->name, &call->out, result_values_dest(list));
	sent = result_values_got(list, &ids);
	take_ids(call, ids, sent);
	for (i = 0; i < call->count; i++)
	{
		if (!call->items[i].is_duplicate)
			run_step(call, settle_key, &call->items[i]);
	}
}

/*
 * pgmq.send_unique_batch(queue_name text, msgs jsonb[], dedup_keys text[],
 *	 dedup_window interval, headers jsonb[], delay integer)
 *	 -> TABLE (msg_id bigint, is_duplicate boolean)
 */
Datum
pgmq_send_unique_batch(PG_FUNCTION_ARGS)
{
	Call		call;
	Call		keys = {0};

	send_validate_batch(fcinfo, 1, 4);
	take_keys(fcinfo, &keys);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	SPI_connect();
	begin_call(fcinfo, &call, 3);
	call.items = keys.items;
	call.count = keys.count;
	claim_keys(&call);
	if (call.unique > 0)
		send_chosen(fcinfo, &call);
	put_results(fcinfo, &call);
	SPI_finish();
	return (Datum) 0;
}
