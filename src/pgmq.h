/*
 * pgmq.h
 *	  What the modules share.  A file calls its own floor and those below:
 *	  ground (name, pattern), state (plan, horizon, bindings), verbs (send, read,
 *	  finish, wait, topic, admin, metrics), roof (pgmq).
 */
#ifndef PGMQ_H
#define PGMQ_H

#include "postgres.h"

#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#define PGMQ_SCHEMA "pgmq"

/* ---- name.c: from what the caller typed to the tables ---- */

/*
 * The one identity of a queue: its lower-cased name.  Zero-padded, so that it
 * serves as a hash key.
 */
typedef struct QueueName
{
	char		canonical[NAMEDATALEN];
} QueueName;

#define QUEUE_TABLE 'q'
#define ARCHIVE_TABLE 'a'

extern void name_canonical(const text *queue_name, QueueName *name);
extern void name_from_arg(FunctionCallInfo fcinfo, int argno, QueueName *name);
extern void name_validate_new(const text *queue_name, QueueName *name);
extern Oid	name_index_relid(const QueueName *name, const char *suffix);
extern Oid	name_sequence_relid(const QueueName *name);
extern Oid	name_relid(const QueueName *name, char prefix);
extern const char *name_table(const QueueName *name, char prefix);
extern const char *name_sequence(const QueueName *name);
extern char *name_object(const QueueName *name, const char *prefix, const char *suffix);
extern char *name_expand(const char *sql_template, const QueueName *name);
extern bool name_lock_queue(const QueueName *name);
extern void name_require_queue(const QueueName *name);

/*
 * The advisory lock of a queue, in SQL: who creates or drops it holds it, who
 * needs it to stay shares it.
 */
#define QUEUE_LOCK_KEY(canonical) \
	"pg_catalog.hashtext('pgmq.queue_' OPERATOR(pg_catalog.||) " canonical ")"

/* ---- plan.c: the prepared statements of a queue in this backend ---- */

typedef enum PlanKind
{
	PLAN_SEND,
	PLAN_SEND_DELAYED,
	PLAN_SEND_AT,
	PLAN_SEND_BATCH,
	PLAN_SEND_BATCH_DELAYED,
	PLAN_SEND_BATCH_AT,
	PLAN_READ_DUE,
	PLAN_READ_DUE_WHERE,
	PLAN_READ_FRESH,
	PLAN_READ_FRESH_WHERE,
	PLAN_POP_DUE,
	PLAN_POP_FRESH,
	PLAN_DELETE,
	PLAN_DELETE_ARRAY,
	PLAN_ARCHIVE,
	PLAN_ARCHIVE_ARRAY,
	PLAN_SET_VT,
	PLAN_SET_VT_AT,
	PLAN_SET_VT_ARRAY,
	PLAN_SET_VT_ARRAY_AT,
	PLAN_KINDS
} PlanKind;

#define PLAN_MAX_ARGS 6

/*
 * A statement as it stands beside the function that runs it.  name_expand()
 * puts the queue's names in.
 */
typedef struct PlanSpec
{
	PlanKind	kind;
	const char *sql;
	int			nargs;
	Oid			argtypes[PLAN_MAX_ARGS];
} PlanSpec;

/* The columns of pgmq.message_record, in its order */
#define MESSAGE_COLUMNS \
	"msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers"

extern int	plan_max_queues;

extern uint64 plan_run(const QueueName *name, const PlanSpec *spec,
					   const Datum *values, const bool *nulls,
					   DestReceiver *dest);
extern void plan_forget(const QueueName *name);

/* ---- result.c: rows into the set a function returns ---- */

typedef struct MessageSet MessageSet;

extern MessageSet *result_messages(FunctionCallInfo fcinfo);
extern DestReceiver *result_dest(MessageSet *set);
extern int64 result_highest(MessageSet *set);
extern void result_finish(MessageSet *set);
extern DestReceiver *result_scalars(FunctionCallInfo fcinfo);
extern void result_read_only_sql(FunctionCallInfo fcinfo, const char *sql);
extern void result_stable_sql(FunctionCallInfo fcinfo, const char *sql, ParamListInfo params);

/* ---- shared.c: where shared memory comes from ---- */

extern void shared_init(void);
extern bool shared_is_ample(void);
extern void *shared_area(const char *name, Size size, void (*init) (void *area));

/* ---- floors.c, horizon.c: where a read may start ---- */

/* Positions in the two indexes */
typedef struct Floors
{
	int64		fresh;			/* a msg_id */
	TimestampTz due;			/* a vt */
} Floors;

/* A read looks from the first of these that it may, and goes on when it is short */
typedef enum HorizonLook
{
	HORIZON_FROM_MARKS,
	HORIZON_FROM_FLOORS,
	HORIZON_EVERYWHERE			/* nothing is known about this table */
} HorizonLook;

/* What one look has found */
typedef struct HorizonFinds
{
	int64		messages;
	bool		due_exhausted;	/* no deferred message up to due_until is left */
	TimestampTz due_until;
	int64		fresh_messages;
	bool		fresh_exhausted;
	int64		fresh_highest;	/* of the fresh messages */
} HorizonFinds;

typedef struct Horizon Horizon;

extern int	horizon_rescan_interval;

extern Size horizon_shared_size(bool ample);
extern Horizon *horizon_begin(const QueueName *name, bool everything);
extern bool horizon_due(Horizon *h, TimestampTz now, TimestampTz *from, TimestampTz *until);
extern bool horizon_fresh(Horizon *h, int64 limit, int64 *from, int64 *until);
extern void horizon_found(Horizon *h, const HorizonFinds *finds);
extern bool horizon_look_again(Horizon *h);
extern void horizon_end(Horizon *h, uint64 messages);

/* ---- send.c: put messages in ---- */

/* How a call says when its messages become visible */
typedef enum Delay
{
	DELAY_NONE,
	DELAY_SECONDS,
	DELAY_UNTIL
} Delay;

/* What a call sends, to one queue or to many */
typedef struct Outgoing
{
	const PlanSpec *spec;
	Datum		values[3];
	bool		nulls[3];
} Outgoing;

extern void send_take_one(FunctionCallInfo fcinfo, int headers_arg,
						  Delay delay, int delay_arg, Outgoing *out);
extern void send_take_many(FunctionCallInfo fcinfo, int headers_arg,
						   Delay delay, int delay_arg, Outgoing *out);
extern void send_to(const QueueName *name, const Outgoing *out, DestReceiver *dest);
extern Datum send_returned_id(uint64 row, bool *isnull);
extern void send_validate_batch(FunctionCallInfo fcinfo, int msgs_arg, int headers_arg);

/* ---- wait.c: the wait loop; knows no SQL ---- */

typedef bool (*WaitAttempt) (void *arg);
extern bool wait_for(WaitAttempt attempt, void *arg,
					 int max_seconds, int interval_ms);

/*
 * A number of seconds from now, for "clock_timestamp() + $n".  Never backwards:
 * no visibility time before the moment of its writing is ever stored.
 */
static inline Datum
interval_from_seconds(int32 seconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) Max(seconds, 0) * USECS_PER_SEC;
	return IntervalPGetDatum(interval);
}

/*
 * An argument that may be NULL, as SPI wants it.
 */
static inline void
arg_to_param(FunctionCallInfo fcinfo, int argno, Datum *value, bool *null)
{
	*null = PG_ARGISNULL(argno);
	*value = *null ? (Datum) 0 : PG_GETARG_DATUM(argno);
}

#endif							/* PGMQ_H */
