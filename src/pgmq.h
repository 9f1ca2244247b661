/*
 * pgmq.h
 *	  What the modules share.  A file calls its own floor and those below:
 *	  ground (name, pattern), state (plan, horizon, bindings, board, waiter, marks, announce), verbs
 *	  (send, read, peek, finish, wait, topic, notify, admin, metrics), roof (xact, pgmq).
 */
#ifndef PGMQ_H
#define PGMQ_H

#include "postgres.h"

#include "access/transam.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
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
#define NOTES_TABLE 'g'			/* of a queue that has groups: see group.h */

extern void name_canonical(const text *queue_name, QueueName *name);
extern bool name_try_canonical(const text *queue_name, QueueName *name);
extern void name_from_arg(FunctionCallInfo fcinfo, int argno, QueueName *name);
extern void name_validate_new(const text *queue_name, QueueName *name);
extern Oid	name_index_relid(const QueueName *name, char prefix, const char *suffix);
extern Oid	name_other_relid(const QueueName *name, const char *prefix);
extern Oid	name_sequence_relid(const QueueName *name, char prefix);
extern Oid	name_relid(const QueueName *name, char prefix);
extern const char *name_table(const QueueName *name, char prefix);
extern const char *name_unquoted(const QueueName *name, char prefix);
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

/* ---- partition.c: which partitions a call must touch; see partition.h ---- */

typedef struct Leaf Leaf;
typedef struct Partitions Partitions;

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
	PLAN_NEXT_DUE,
	PLAN_PEEK,
	PLAN_DELETE,
	PLAN_DELETE_ARRAY,
	PLAN_ARCHIVE,
	PLAN_ARCHIVE_ARRAY,
	PLAN_SET_VT,
	PLAN_SET_VT_AT,
	PLAN_SET_VT_ARRAY,
	PLAN_SET_VT_ARRAY_AT,
	PLAN_READ_GROUPED,
	PLAN_NOTES_LEASE,
	PLAN_NOTES_DROP,
	PLAN_NOTES_ADD,
	PLAN_KINDS
} PlanKind;

#define PLAN_MAX_ARGS 6

/*
 * A statement as it stands beside the function that runs it.  name_expand()
 * puts the queue's names in; {leaf} is for the condition that restricts it to
 * one partition, and empty where there is none.
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

/* How often a message will have been read.  Plain SQL can write any count: at the last one it stays. */
#define NEXT_READ_CT \
	"LEAST(read_ct, 2147483646) OPERATOR(pg_catalog.+) 1"

extern int	plan_max_queues;

extern uint64 plan_run(const QueueName *name, const PlanSpec *spec,
					   const Datum *values, const bool *nulls,
					   DestReceiver *dest);
extern uint64 plan_run_latest(const QueueName *name, const PlanSpec *spec, const Datum *values);
extern uint64 plan_run_now(const QueueName *name, const PlanSpec *spec, int clock_arg,
						   const Datum *values, const bool *nulls,
						   DestReceiver *dest);
extern uint64 plan_run_leaf(const QueueName *name, const PlanSpec *spec, const Leaf *leaf,
							const Datum *values, const bool *nulls,
							DestReceiver *dest);
extern bool plan_is_undivided(const QueueName *name, const PlanSpec *spec);
extern void plan_forget(const QueueName *name);

/* ---- route.c: statements by id, to the partitions that these are in ---- */

extern uint64 route_by_id(const QueueName *name, const PlanSpec *spec,
						  Datum *values, bool *nulls, bool makes_due,
						  DestReceiver *dest);

/* ---- leaflock.c: locks on several partitions; see also partition.h ---- */

extern Oid	default_hold(Oid parent);
extern void default_release(Oid held);

/* ---- result.c: rows into the set a function returns ---- */

typedef struct MessageSet MessageSet;

extern MessageSet *result_messages(FunctionCallInfo fcinfo);
extern DestReceiver *result_dest(MessageSet *set);
extern int64 result_highest(MessageSet *set);
extern TimestampTz result_earliest(const MessageSet *set);
extern void result_finish(MessageSet *set);
extern void result_arrange(MessageSet *set, const int64 *ids, int64 count);
extern DestReceiver *result_scalars(FunctionCallInfo fcinfo);

typedef struct ValueList ValueList;

extern ValueList *result_values(Oid type);
extern DestReceiver *result_values_dest(ValueList *list);
extern uint64 result_values_got(const ValueList *list, const NullableDatum **values);

/* ---- shared.c: where shared memory comes from ---- */

extern void shared_init(void);
extern bool shared_is_ample(void);
extern void *shared_area(const char *name, Size size, void (*init) (void *area),
						 const char *message, const char *detail);

typedef struct SharedSegment SharedSegment;

extern void *shared_segment(const char *name, Size size, void (*init) (void *area),
							const char *message, const char *detail, SharedSegment **segment);
extern bool shared_segment_is_good(SharedSegment *segment);

/* What an attempt says about the next; "until" is told to it */
typedef struct Outlook
{
	TimestampTz until;			/* look no further ahead than this */
	TimestampTz next;			/* a message becomes due, or else DT_NOEND */
	bool		conclusive;		/* nothing was left out that would have taken long */
	bool		thorough;		/* nothing comes until then, unless a transaction ends */
	uint64		ended;			/* transactions_ended() before the attempt */
} Outlook;

/*
 * Microseconds by a clock that nobody sets and that all processes share: what
 * is done how often must not depend on the time of day.
 */
static inline int64
ticks(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

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

/* Where a statement is to look: in which leaf, or in the queue as a whole, and from where */
typedef struct HorizonRange
{
	Leaf	   *leaf;
	int64		from;			/* a msg_id, or a vt */
	int64		until;
} HorizonRange;

/* starts.c: where the messages of a group begin */
extern void starts_forget_own(void);

typedef struct Horizon Horizon;

extern int	horizon_rescan_interval;

extern Size horizon_shared_size(bool ample);
extern Horizon *horizon_begin(const QueueName *name, char prefix, bool everything, bool ours);
extern bool horizon_indexes(const Horizon *h, Oid *id_index, Oid *vt_index);
extern bool horizon_may_take(Oid relid);
extern bool horizon_next_due(Horizon *h, TimestampTz now, HorizonRange *range);
extern bool horizon_next_fresh(Horizon *h, int64 limit, HorizonRange *range);
extern void horizon_found(Horizon *h, const HorizonFinds *finds);
extern bool horizon_look_again(Horizon *h);
extern bool horizon_is_empty(const Horizon *h, TimestampTz moment, Outlook *outlook);
extern int64 horizon_sweep_in(const Horizon *h);
extern bool horizon_knows(const Horizon *h);
extern int64 horizon_peek(Horizon *h, TimestampTz moment, int64 limit);
extern bool horizon_outlook(Horizon *h, TimestampTz moment, int64 found, Outlook *outlook);
extern void horizon_end(Horizon *h, uint64 messages);
extern Partitions *horizon_partitions(const QueueName *name);
extern void horizon_move(const QueueName *name);
extern void horizon_belied(const QueueName *name);
extern void horizon_rolled_back(void);
extern void horizon_forget(void);

/* ---- board.c, waiter.c, marks.c: which sessions wait for a queue, and which are woken ---- */

#define WAKE_NOBODY (-1)

/* How a wait ended: without a message, with some taken, with some seen */
typedef enum WakeEnd
{
	WAKE_EMPTY,
	WAKE_TOOK,
	WAKE_SAW
} WakeEnd;

extern Size wake_shared_size(bool ample);
extern void wake_mark(const QueueName *name, int64 messages);
extern void wake_mark_groups(const QueueName *name, int64 groups);
extern void wake_mark_due(const QueueName *name, TimestampTz due);
extern void wake_mark_taking(const QueueName *name, int64 messages);
extern void wake_mark_taken(const QueueName *name, int64 taking, int64 messages);
extern void wake_mark_all(void);
extern void wake_committed(void);
extern void wake_rolled_back(void);
extern void wake_subtransaction_rolled_back(SubTransactionId id);
extern void wake_forget(void);
extern int	wake_join(const QueueName *name, bool grouped, bool picky, int interval_ms);
extern bool wake_joined(void);
extern void wake_look(int place);
extern bool wake_sleep(int place, const Outlook *outlook, TimestampTz *due, bool *timed);
extern bool wake_called(int place, TimestampTz *due, bool *timed);
extern void wake_leave(int place, WakeEnd end, int64 messages, TimestampTz next);
extern void wake_leave_all(void);

/* ---- xact.c: what is done when transactions end ---- */

extern void xact_init(void);

/* ---- read.c: hand messages out ---- */

extern void read_outlook(const QueueName *name, Horizon *h, TimestampTz moment, int64 found,
						 Outlook *outlook);

/* ---- group.c: hand messages out by groups ---- */

extern int64 group_peek(const QueueName *name, Outlook *outlook);

/* ---- announce.c: when the listeners of a queue are told ---- */

/* Zero-padded, so that it serves as a hash key */
typedef struct Channel
{
	char		name[NAMEDATALEN];
} Channel;

extern Size announce_shared_size(bool ample);
extern void announce_at_commit(const Channel *channel, int interval_ms);
extern void announce_forget_last(const Channel *channel);
extern bool announce_last(const Channel *channel, TimestampTz *at);
extern void announce_before_commit(void);
extern void announce_before_prepare(void);
extern void announce_end(bool committed);
extern void announce_subtransaction_end(bool committed);

/* ---- notify.c: the settings of queues that notify ---- */

extern void notify_rolled_back(void);
extern void notify_forget(void);

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
	Delay		delay;			/* as it is after NULLs and the past */
} Outgoing;

extern void send_take_one(FunctionCallInfo fcinfo, int headers_arg,
						  Delay delay, int delay_arg, Outgoing *out);
extern void send_take_many(FunctionCallInfo fcinfo, int headers_arg,
						   Delay delay, int delay_arg, Outgoing *out);
extern void send_to(const QueueName *name, const Outgoing *out, DestReceiver *dest);
extern void send_validate_batch(FunctionCallInfo fcinfo, int msgs_arg, int headers_arg);

/* ---- wait.c: the wait loop; knows no SQL ---- */

/*
 * Try a queue, by its index among those that are waited for; returns the
 * number of messages got or seen, and says in "outlook" how it goes on.
 */
typedef int64 (*WaitAttempt) (void *arg, int queue, Outlook *outlook);

typedef struct WaitRequest
{
	const QueueName *queues;
	int			nqueues;
	WaitAttempt attempt;
	void	   *arg;
	int64		timeout_ms;		/* 0 or less: one attempt */
	int			interval_ms;	/* longest time between two attempts */
	WakeEnd		success;		/* WAKE_TOOK or WAKE_SAW */
	bool		grouped;		/* for groups, not for messages */
	bool		picky;			/* may pass by what another would take */
	bool		unwakeable;		/* could not see what it was woken for */
} WaitRequest;

extern int	wait_recheck_interval;

extern void wait_arguments(WaitRequest *request, FunctionCallInfo fcinfo, int argno);
extern bool wait_for(const WaitRequest *request);

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

/*
 * How many transactions that wrote something have ended in this cluster, parts that
 * were rolled back included.  As long as that is the same, so is what there is to be
 * seen.  Read without its lock, before the snapshot that it is compared with later.
 */
static inline uint64
transactions_ended(void)
{
	pg_memory_barrier();
	return *(volatile uint64 *) &TransamVariables->xactCompletionCount;
}

#endif							/* PGMQ_H */
