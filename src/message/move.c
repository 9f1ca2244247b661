/*
 * move.c
 *	  Messages that may not be delivered any more go to the dead-letter queue, or the archive.
 *
 * A reader needs no privilege on the dead-letter queue, so a move runs as the owner of
 * the queue.
 *
 * 1. The caller chooses ids.  Which of them are dead, or of an attempt, the statement
 *	  decides, on the newest version of the row and under its lock.  What is not, or is
 *	  locked by another transaction, stays where it is.
 * 2. Messages are deleted and sent on in one subtransaction.  So a message is in one
 *	  place, whatever happens.
 * 3. The target is what the policy names, if it is the table of another queue of the same
 *	  owner that has no dead-letter queue itself.  Otherwise it is the archive.  That is
 *	  checked while the table is locked: its owner and its name stay what they are.  An
 *	  archive of another owner is an error.
 * 4. Code that is attached to both queues runs with the rights of their one owner, in a
 *	  security-restricted operation (owner.c).  No setting of the caller decides which
 *	  policies count.
 * 5. A read waits only LOCK_WAIT for any lock of a move.  Messages whose move did not get
 *	  its locks, or lost against another transaction, stay for the next read.
 * 6. After any other error each message is moved by itself.  A message whose move fails is
 *	  hidden for the retry_delay_max of the queue, and there is a warning.
 * 7. No effect on waiting sessions is recorded for messages that are taken away: none
 *	  waits for what is dead.  Otherwise a move that fails would wake sessions whose moves
 *	  fail as well, without end.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "message/message.h"
#include "message/taken.h"

/* Milliseconds */
#define LOCK_WAIT 10

/* So many messages of a call are hidden because their moves fail; the next read goes on */
#define MAX_FAILURES 10

/* Bytes of an error that are kept in a header */
#define STUCK_BYTES 1000

/* The arguments of all statements */
enum
{
	ARG_IDS,
	ARG_REASON,
	ARG_ORIGIN,
	ARG_ATTEMPT,
	ARG_LEASED_TOO,
	ARG_REASONS,				/* only messages that are dead for one of these */
	ARG_MAX_READS,				/* and the two others of survey_rule_args() */
	ARG_TTL,
	ARG_NOW,
	MOVE_ARGS
};

#define MOVE_ARG_TYPES \
	{INT8ARRAYOID, TEXTOID, TEXTOID, INT4OID, BOOLOID, TEXTARRAYOID, INT4OID, INT8OID, TIMESTAMPTZOID, TEXTOID}

#define REASON \
	"COALESCE($2, pgmq._dead_reason(read_ct, {releases}, enqueued_at, headers, $7, $8, $9))"

#define IS_WANTED \
	"msg_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND ($4 IS NULL OR read_ct OPERATOR(pg_catalog.=) $4)" \
	" AND ($5 OR vt OPERATOR(pg_catalog.<=) $9 OR vt OPERATOR(pg_catalog.=) enqueued_at)" \
	" AND " REASON " OPERATOR(pg_catalog.=) ANY ($6){leaf}"

/* This waits for the locks, in the order of the index by id */
#define WHERE_WANTED " WHERE " IS_WANTED

/* This does not wait */
#define WHERE_LOCKED \
	" WHERE msg_id OPERATOR(pg_catalog.=) ANY (ARRAY(" \
	"SELECT msg_id FROM {queue} WHERE " IS_WANTED " ORDER BY msg_id FOR UPDATE SKIP LOCKED)){leaf}"

#define IS_OBJECT "pg_catalog.jsonb_typeof(headers) OPERATOR(pg_catalog.=) 'object'"

/* What a message is sent on with: its headers without ours, and where it comes from */
#define DEAD_HEADERS \
	"CASE WHEN headers IS NULL THEN '{}'::pg_catalog.jsonb" \
	" WHEN " IS_OBJECT " THEN headers OPERATOR(pg_catalog.-)" \
	" '{x-dlq-reason,x-dlq-origin-queue,x-dlq-origin-msg-id,x-dlq-read-ct,x-dlq-error,x-dlq-at,x-dlq-ttl," \
	"x-dlq-headers,x-pgmq-ttl,x-pgmq-error,x-pgmq-stuck}'::pg_catalog.text[]" \
	" ELSE pg_catalog.jsonb_build_object('x-dlq-headers', headers) END" \
	" OPERATOR(pg_catalog.||) pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(" \
	"'x-dlq-reason', " REASON ", 'x-dlq-origin-queue', $3, 'x-dlq-origin-msg-id', msg_id," \
	" 'x-dlq-read-ct', read_ct, 'x-dlq-error', headers OPERATOR(pg_catalog.->) 'x-pgmq-error'," \
	" 'x-dlq-ttl', headers OPERATOR(pg_catalog.->) 'x-pgmq-ttl'," \
	" 'x-dlq-at', pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())," \
	" 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')))"

/* The two forms of a statement: the first waits for rows that are locked, the second skips them */
typedef struct MoveSpecs
{
	PlanSpec	waits;
	PlanSpec	skips;
} MoveSpecs;

#define MOVE_SPECS(kind, sql) \
	{{kind, sql(WHERE_WANTED), MOVE_ARGS, MOVE_ARG_TYPES}, {kind##_SKIPPING, sql(WHERE_LOCKED), MOVE_ARGS, MOVE_ARG_TYPES}}

#define TAKE(where) \
	"DELETE FROM {queue}" where " RETURNING msg_id, message, " DEAD_HEADERS

/* A NULL for each that the archive has taken */
#define ARCHIVE(where) \
	"WITH gone AS (DELETE FROM {queue}" where \
	" RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, " DEAD_HEADERS " AS headers)," \
	" archived AS (INSERT INTO {archive} (" MESSAGE_COLUMNS ")" \
	" SELECT " MESSAGE_COLUMNS " FROM gone RETURNING msg_id)" \
	" SELECT msg_id FROM gone UNION ALL SELECT NULL FROM archived"

#define DELETE(where) \
	"DELETE FROM {queue}" where " RETURNING msg_id"

static const MoveSpecs take_plans = MOVE_SPECS(PLAN_MOVE_TO_QUEUE, TAKE);
static const MoveSpecs archive_plans = MOVE_SPECS(PLAN_MOVE_TO_ARCHIVE, ARCHIVE);
static const MoveSpecs delete_plans = MOVE_SPECS(PLAN_MOVE_DELETE, DELETE);

/* $3 is the error, $10 for how long */
#define HIDE(settle) \
	"UPDATE {queue} SET vt = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $10," \
	" headers = CASE WHEN headers IS NULL OR " IS_OBJECT \
	" THEN COALESCE(headers, '{}'::pg_catalog.jsonb) OPERATOR(pg_catalog.||)" \
	" pg_catalog.jsonb_build_object('x-pgmq-stuck', $3) ELSE headers END" settle \
	WHERE_LOCKED

#define HIDE_ARGS \
	MOVE_ARGS + 1, \
	{INT8ARRAYOID, TEXTOID, TEXTOID, INT4OID, BOOLOID, TEXTARRAYOID, INT4OID, INT8OID, TIMESTAMPTZOID, INTERVALOID}

static const PlanSpec hide_plan = {
	PLAN_MOVE_HIDE,
	HIDE(""),
	HIDE_ARGS
};

/* Where the column is, that also says that the message is not leased; one that was released stays so */
static const PlanSpec hide_settled_plan = {
	PLAN_MOVE_HIDE,
	HIDE(", pgmq_settled = CASE WHEN pgmq_settled OPERATOR(pg_catalog.=) read_ct THEN read_ct"
		 " ELSE OPERATOR(pg_catalog.-) read_ct END"),
	HIDE_ARGS
};

static int
compare_taken(const void *a, const void *b)
{
	return pg_cmp_s64(((const TakenMessage *) a)->msg_id, ((const TakenMessage *) b)->msg_id);
}

/* ---- what one move is at ---- */

typedef struct Move
{
	const MoveOrder *order;
	MemoryContext context;		/* of the caller */
	PlanVariant variant;
	const QueueName *target;	/* NULL: the archive */
	uint64		sent;			/* to the target, by this subtransaction */
	int64	   *ids;			/* of the messages that this subtransaction has moved */
	int			nids;
	int			room;
	const char *error;			/* of the move that failed, for the header */
	int			failures;
	int64		first_failed;
	ErrorData  *first_error;
} Move;

static Datum
ids_array(const int64 *ids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));
	int			i;

	for (i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static Datum
texts_array(const char *first, const char *second)
{
	Datum		elements[2] = {CStringGetTextDatum(first)};

	if (second != NULL)
		elements[1] = CStringGetTextDatum(second);
	return PointerGetDatum(construct_array(elements, second != NULL ? 2 : 1, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Run a statement for those of the ids that are dead for one of these reasons */
static uint64
run(Move *move, const PlanSpec *spec, const int64 *ids, int count,
	const char *first_reason, const char *second_reason, const char *text, DestReceiver *dest)
{
	const MoveOrder *order = move->order;
	SurveyRule	rule = policy_rule(order->policy, order->now);
	Interval	hidden_for = order->policy->retry_delay_max;
	Datum		values[PLAN_MAX_ARGS];
	bool		nulls[PLAN_MAX_ARGS] = {false};

	values[ARG_IDS] = ids_array(ids, count);
	nulls[ARG_REASON] = order->reason == NULL;
	if (order->reason != NULL)
		values[ARG_REASON] = CStringGetTextDatum(order->reason);
	values[ARG_ORIGIN] = CStringGetTextDatum(text);
	values[ARG_ATTEMPT] = Int32GetDatum(order->attempt);
	nulls[ARG_ATTEMPT] = order->attempt == 0;
	values[ARG_LEASED_TOO] = BoolGetDatum(order->leased_too);
	values[ARG_REASONS] = order->reason != NULL ? texts_array(order->reason, NULL) :
		texts_array(first_reason, second_reason);
	survey_rule_args(&rule, &values[ARG_MAX_READS], &nulls[ARG_MAX_READS]);
	values[MOVE_ARGS] = IntervalPGetDatum(&hidden_for);
	return route_variant(order->name, spec, move->variant, values, nulls, spec->kind == PLAN_MOVE_HIDE, dest);
}

/* How the dead letter names its queue */
static const char *
origin_of(const Move *move)
{
	const char *spelling = move->order->policy->set != 0 ? move->order->policy->spelling :
		registered_spelling(move->order->name);

	return spelling != NULL ? spelling : move->order->name->canonical;
}

static uint64
run_of(Move *move, const MoveSpecs *specs, const int64 *ids, int count,
	   const char *first_reason, const char *second_reason, DestReceiver *dest)
{
	return run(move, move->order->waits ? &specs->waits : &specs->skips, ids, count, first_reason, second_reason,
			   origin_of(move), dest);
}

/* A row that was written by hand can have the id of another one */
static void
note_moved(Move *move, int64 msg_id)
{
	if (move->nids < move->room)
		move->ids[move->nids++] = msg_id;
}

/* The ids of a list; returns how many NULLs it has */
static uint64
note_all_moved(Move *move, const ValueList *list)
{
	const NullableDatum *values;
	uint64		count = result_values_got(list, &values);
	uint64		nulls = 0;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		if (values[i].isnull)
			nulls++;
		else
			note_moved(move, DatumGetInt64(values[i].value));
	}
	return nulls;
}

/* A trigger or a rule can keep rows from being inserted.  Then the messages would be nowhere. */
void
require_all_arrived(uint64 taken, uint64 arrived)
{
	if (arrived != taken)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or a rule keeps messages from being inserted where they were moved to")));
}

/* Delete messages, and send them on in their order */
static void
move_to_queue(Move *move, const int64 *ids, int count)
{
	TakenList  *list = taken_list();
	Datum	   *values[2];
	bool	   *nulls[2];
	Datum		arrays[2];
	int			bound = 1;
	int			i;

	run_of(move, &take_plans, ids, count, DEAD_EXHAUSTED, DEAD_EXPIRED, &list->pub);
	if (list->count == 0)
		return;
	qsort(list->messages, list->count, sizeof(TakenMessage), compare_taken);
	for (i = 0; i < 2; i++)
	{
		values[i] = palloc(sizeof(Datum) * list->count);
		nulls[i] = palloc(sizeof(bool) * list->count);
	}
	for (i = 0; i < list->count; i++)
	{
		const TakenMessage *taken = &list->messages[i];

		values[0][i] = taken->message.value;
		nulls[0][i] = taken->message.isnull;
		values[1][i] = taken->headers.value;
		nulls[1][i] = taken->headers.isnull;
		note_moved(move, taken->msg_id);
	}
	for (i = 0; i < 2; i++)
		arrays[i] = PointerGetDatum(construct_md_array(values[i], nulls[i], 1, &list->count, &bound,
													   JSONBOID, -1, false, TYPALIGN_INT));
	move->sent = send_moved(move->target, arrays[0], arrays[1]);
	require_all_arrived(list->count, move->sent);
}

/*
 * Code that is attached to the archive runs as the owner of the queue, and that role may not
 * have asked for this move.  So it must own the archive, too.
 */
static void
lock_archive(const Move *move)
{
	Relation	rel = queue_open_table(move->order->name, ARCHIVE_TABLE, RowExclusiveLock, NULL);
	bool		others = rel != NULL && rel->rd_rel->relowner != GetUserId();

	if (rel != NULL)
		relation_close(rel, NoLock);
	if (others)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("queue \"%s\" and its archive have different owners", move->order->name->canonical),
				 errhint("Messages are moved with the rights of the owner, so both need the same one.")));
}

static void
move_to_archive(Move *move, const int64 *ids, int count, const char *first_reason, const char *second_reason)
{
	ValueList  *list = result_values(INT8OID);
	const NullableDatum *values;
	uint64		archived;
	Oid			held;

	lock_archive(move);
	held = default_hold(move->order->name, ARCHIVE_TABLE);
	run_of(move, &archive_plans, ids, count, first_reason, second_reason, result_values_dest(list));
	default_release(held);
	archived = note_all_moved(move, list);
	require_all_arrived(result_values_got(list, &values) - archived, archived);
}

static void
delete_for_good(Move *move, const int64 *ids, int count)
{
	ValueList  *list = result_values(INT8OID);

	run_of(move, &delete_plans, ids, count, DEAD_EXPIRED, NULL, result_values_dest(list));
	(void) note_all_moved(move, list);
}

/*
 * Where messages go to (3).  Without a dead-letter queue, those that are only too old are
 * deleted.
 */
static void
move_all(Move *move, const int64 *ids, int count)
{
	const MoveOrder *order = move->order;

	if (move->target != NULL)
		move_to_queue(move, ids, count);
	else if ((order->policy->set & POLICY_DEAD_LETTER_QUEUE) != 0)
		move_to_archive(move, ids, count, DEAD_EXHAUSTED, DEAD_EXPIRED);
	else if (order->deletes)
		delete_for_good(move, ids, count);
	else
	{
		if (order->reason != NULL || (order->policy->set & POLICY_MAX_READS) != 0)
			move_to_archive(move, ids, count, DEAD_EXHAUSTED, NULL);
		if (order->reason == NULL && (order->policy->set & POLICY_MESSAGE_TTL) != 0)
			delete_for_good(move, ids, count);
	}
}

static void
hide(Move *move, const int64 *ids, int count)
{
	const PlanSpec *spec = move->variant == LIVE_BY_RELEASES ? &hide_settled_plan : &hide_plan;

	run(move, spec, ids, count, DEAD_EXHAUSTED, DEAD_EXPIRED, move->error, None_Receiver);
}

/* ---- as the owner ---- */

/* Lock the dead-letter queue, if there is one that may be used (3) */
static const QueueName *
lock_target(const MoveOrder *order, Oid owner)
{
	const QueueName *target = &order->policy->dead_letter_queue;
	Relation	rel;
	bool		usable;

	if ((order->policy->set & POLICY_DEAD_LETTER_QUEUE) == 0 ||
		memcmp(target, order->name, sizeof(*target)) == 0 ||
		(rel = queue_open_table(target, QUEUE_TABLE, RowExclusiveLock, NULL)) == NULL)
		return NULL;
	usable = rel->rd_rel->relowner == owner &&
		(rel->rd_rel->relkind == RELKIND_RELATION || rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE) &&
		(policy_of(target)->set & POLICY_DEAD_LETTER_QUEUE) == 0;
	relation_close(rel, NoLock);
	return usable ? target : NULL;
}

typedef void (*MoveWork) (Move *move, const int64 *ids, int count);

/* Do something as the owner of the queue, whose table is locked first */
static void
do_as_owner(Move *move, MoveWork work, const int64 *ids, int count)
{
	const MoveOrder *order = move->order;
	Relation	rel;
	Place		place;
	OwnerScope	scope;
	bool		written_before;

	move->nids = 0;
	move->sent = 0;
	SPI_connect();
	rel = queue_open_table(order->name, QUEUE_TABLE, RowExclusiveLock, &written_before);
	if (rel != NULL)
	{
		(void) place_columns(rel, &place);
		move->variant = place.releases_attno != 0 ? LIVE_BY_RELEASES : LIVE_BY_READS;
		owner_begin(rel->rd_rel->relowner, &scope);
		set_option("row_security", "on");
		if (!order->waits && (LockTimeout == 0 || LockTimeout > LOCK_WAIT))
			set_lock_timeout(LOCK_WAIT);
		move->target = work == hide ? NULL : lock_target(order, rel->rd_rel->relowner);
		relation_close(rel, NoLock);
		if (order->find != NULL)
		{
			int64	   *found = palloc(sizeof(int64) * count);

			count = order->find(order->find_arg, written_before, count, found);
			ids = found;
		}
		if (count > 0)
			work(move, ids, count);
		owner_end(&scope);
	}
	SPI_finish();
}

/* ---- in subtransactions ---- */

static bool
was_moved(const Move *move, int64 msg_id)
{
	int			i;

	for (i = 0; i < move->nids && move->ids[i] != msg_id; i++)
		;
	return i < move->nids;
}

/* How many of the first ids were moved; if others were moved as well, the order is not kept */
static int
moved_in_order(const Move *move, const int64 *ids, int count)
{
	int			first;

	for (first = 0; first < count && was_moved(move, ids[first]); first++)
		;
	return first;
}

/*
 * Do something in a subtransaction; its error, or NULL.  A move that does not keep the order
 * is rolled back: *count is how many may be tried again.
 */
static ErrorData *
try_work(Move *move, MoveWork work, const int64 *ids, int *count)
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	bool		passed = horizon_pass_rollback(true);

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(move->context);
	PG_TRY();
	{
		int			first;

		do_as_owner(move, work, ids, *count);
		first = moved_in_order(move, ids, *count);
		if (move->order->in_order && work != hide && first < move->nids)
		{
			RollbackAndReleaseCurrentSubTransaction();
			*count = first;
		}
		else
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(move->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(move->context);
	CurrentResourceOwner = owner;
	(void) horizon_pass_rollback(passed);
	if (error != NULL && is_cancellation(error))
		ReThrowError(error);
	return error;
}

/* The move may succeed when it is tried again: another transaction was faster, or has the lock (5) */
static bool
is_passing(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/* Move messages in a subtransaction.  With *moved how many. */
static ErrorData *
try_move(Move *move, const int64 *ids, int count, int64 *moved)
{
	ErrorData  *error;
	int			before;

	*moved = 0;
	do
	{
		before = count;
		error = try_work(move, move_all, ids, &count);
	} while (error == NULL && count > 0 && count < before);
	if (error != NULL && is_passing(error) && move->order->try_later != NULL)
		*move->order->try_later = true;
	if (error == NULL && count > 0)
	{
		*moved = move->nids;
		if (move->target != NULL)
			effect_messages(move->target, (int64) move->sent);
	}
	return error;
}

/* What could not be moved is not delivered and not moved for a while */
static void
hide_failed(Move *move, int64 msg_id, ErrorData *error)
{
	int			one = 1;
	int			length = pg_mbcliplen(error->message, (int) strlen(error->message), STUCK_BYTES);

	move->error = pnstrdup(error->message, length);
	if (move->failures++ == 0)
	{
		move->first_failed = msg_id;
		move->first_error = error;
	}
	/* If that fails as well, the next read tries again */
	(void) try_work(move, hide, &msg_id, &one);
}

static int64
move_one_by_one(Move *move, const int64 *ids, int count)
{
	int64		total = 0;
	int			i;

	for (i = 0; i < count && move->failures < MAX_FAILURES; i++)
	{
		int64		moved;
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		error = try_move(move, &ids[i], 1, &moved);
		total += moved;
		if (error != NULL && !is_passing(error))
			hide_failed(move, ids[i], error);
		if (moved == 0 && move->order->in_order)
			break;
	}
	return total;
}

static void
warn_of_failures(const Move *move)
{
	const ErrorData *error = move->first_error;

	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not move message " INT64_FORMAT " out of queue \"%s\": %s",
					move->first_failed, move->order->name->canonical, error->message),
			 errdetail("%d messages that must not be delivered are hidden, because they could not be moved.",
					   move->failures)));
}

/*
 * Move those of the messages, in the order of their ids, that are as the caller wants them; or
 * so many of those that the order finds.  The caller has connected to SPI.  Returns how many were
 * moved or deleted.
 */
int64
move_messages(const MoveOrder *order, const int64 *ids, int count)
{
	Move		move = {.order = order, .context = CurrentMemoryContext, .room = count};
	int64		moved = 0;
	ErrorData  *error;

	if (count == 0)
		return 0;
	move.ids = palloc(sizeof(int64) * count);
	if (order->waits)
	{
		do_as_owner(&move, move_all, ids, count);
		moved = move.nids;
		if (move.target != NULL)
			effect_messages(move.target, (int64) move.sent);
	}
	else
	{
		error = try_move(&move, ids, count, &moved);
		if (error != NULL && !is_passing(error))
			moved = move_one_by_one(&move, ids, count);
		if (move.failures > 0)
			warn_of_failures(&move);
	}
	policy_removed(order->name, order->policy, moved);
	return moved;
}

/* Move those that are visible and dead, for a read */
int64
move_dead(const QueueName *name, const QueuePolicy *policy, TimestampTz now, const int64 *ids, int count)
{
	MoveOrder	order = {.name = name, .policy = policy, .now = now};

	return move_messages(&order, ids, count);
}

/* Move those that are dead and that this transaction has hidden itself: nack() */
int64
move_nacked(const QueueName *name, const QueuePolicy *policy, const int64 *ids, int count)
{
	MoveOrder	order = {.name = name, .policy = policy, .now = GetCurrentTimestamp(), .leased_too = true};

	return move_messages(&order, ids, count);
}

/*
 * Move a message whatever its policy says, if this is still its attempt; 0: any attempt.
 * This waits as delete() does, and an error of the move is an error of the call.
 */
bool
move_now(const QueueName *name, const QueuePolicy *policy, int64 msg_id, int32 attempt, const char *reason)
{
	MoveOrder	order = {.name = name, .policy = policy, .now = GetCurrentTimestamp(), .reason = reason,
	.attempt = attempt, .leased_too = true, .waits = true};

	return move_messages(&order, &msg_id, 1) > 0;
}
