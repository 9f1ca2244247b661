/*
 * plan.h
 *	  The prepared statements of a queue in this backend.
 */
#ifndef PGMQ_PLAN_H
#define PGMQ_PLAN_H

#include "base/base.h"
#include "queue/partition.h"

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
	PLAN_READ_BY_ID,
	PLAN_READ_BY_ID_WHERE,
	PLAN_POP_BY_ID,
	PLAN_NEXT_DUE,
	PLAN_CHECK,
	PLAN_DELETE,
	PLAN_DELETE_ARRAY,
	PLAN_ARCHIVE,
	PLAN_ARCHIVE_ARRAY,
	PLAN_SET_VT,
	PLAN_SET_VT_AT,
	PLAN_SET_VT_ARRAY,
	PLAN_SET_VT_ARRAY_AT,
	PLAN_READ_GROUPED,
	PLAN_NOTES,

	/* Of policies */
	PLAN_ACK, PLAN_ACK_BATCH, PLAN_ACK_ARCHIVE, PLAN_ACK_ARCHIVE_BATCH,
	PLAN_NACK, PLAN_NACK_COUNTED, PLAN_NACK_BATCH, PLAN_NACK_BATCH_COUNTED,
	PLAN_RELEASE, PLAN_RELEASE_COUNTED, PLAN_RELEASE_BATCH, PLAN_RELEASE_BATCH_COUNTED,
	PLAN_TOUCH, PLAN_TOUCH_BATCH, PLAN_PEEK, PLAN_PEEK_IDS,
	PLAN_READ_DUE_HEADERS, PLAN_READ_FRESH_HEADERS, PLAN_READ_BY_ID_HEADERS,
	PLAN_MOVE_TO_QUEUE, PLAN_MOVE_TO_ARCHIVE, PLAN_MOVE_DELETE, PLAN_MOVE_HIDE,
	PLAN_MOVE_TO_QUEUE_SKIPPING, PLAN_MOVE_TO_ARCHIVE_SKIPPING, PLAN_MOVE_DELETE_SKIPPING,
	PLAN_MOVE_FIND_DEAD, PLAN_SEND_MOVED,
	PLAN_KEYS_CLAIM, PLAN_KEYS_MESSAGE, PLAN_KEYS_RECLAIM, PLAN_KEYS_SENT, PLAN_KEYS_DROP,
	PLAN_SEND_MOVED_RANK, PLAN_SEND_RANK, PLAN_SEND_RANK_DELAYED, PLAN_SEND_RANK_AT, PLAN_SEND_BATCH_RANK,
	PLAN_SEND_BATCH_RANK_DELAYED, PLAN_SEND_BATCH_RANK_AT,
	PLAN_READ_DUE_RANK, PLAN_READ_DUE_RANK_WHERE, PLAN_READ_DUE_RANK_HEADERS,
	PLAN_READ_FRESH_RANK, PLAN_READ_FRESH_RANK_WHERE, PLAN_READ_FRESH_RANK_HEADERS,
	PLAN_POP_DUE_RANK, PLAN_POP_FRESH_RANK,
	PLAN_DROP_OLDEST_DUE, PLAN_DROP_OLDEST_FRESH, PLAN_DROP_OLDEST_BY_ID,
	/* Of streams; PLAN_PUBLISH is the first one */
	PLAN_PUBLISH, PLAN_PUBLISH_BATCH, PLAN_PUBLISH_BATCH_TO_ONE, PLAN_EVENTS, PLAN_STATE_WRITE,
	PLAN_KINDS
} PlanKind;

#define PLAN_MAX_ARGS 10

/*
 * A statement as it stands beside the function that runs it.  name_expand_leaf()
 * puts the queue's names in; {leaf} is for the condition that restricts it to
 * one partition, and empty where there is none.  {live} is for the condition that
 * excludes dead messages, and says nothing in the variant LIVE_ANY.  {releases} is how
 * often a message was released: the column, or NULL where the queue has none.
 */
typedef struct PlanSpec
{
	PlanKind	kind;
	const char *sql;
	int			nargs;
	Oid			argtypes[PLAN_MAX_ARGS];
} PlanSpec;

/*
 * How a statement excludes dead messages: not; by the column of releases; or as if
 * no message had been released, where the queue has no such column.  $7 to $9 are
 * those of survey_rule_args().
 */
typedef enum PlanVariant
{
	LIVE_ANY,
	LIVE_BY_RELEASES,
	LIVE_BY_READS
} PlanVariant;

/* The columns of pgmq.message_record, in its order */
#define MESSAGE_COLUMNS \
	"msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers"

/* The next read_ct.  Plain SQL can write any count, so it does not go beyond the highest one. */
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
extern uint64 plan_run_leaf(const QueueName *name, const PlanSpec *spec, const Leaf *leaf, PlanVariant variant,
							const Datum *values, const bool *nulls,
							DestReceiver *dest);
extern uint64 plan_run_latest_leaf(const QueueName *name, const PlanSpec *spec, const Leaf *leaf,
								   const Datum *values, const bool *nulls, DestReceiver *dest);
extern void plan_forget(const QueueName *name);

#endif							/* PGMQ_PLAN_H */
