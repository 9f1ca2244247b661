/*
 * message.h
 *	  Messages are sent, handed out, and deleted or archived.
 *
 * A message is handed out once in its visibility timeout, and never lost.  No row stays locked that
 * is not handed out, unless it was changed while the lock was taken.  A call that fails leaves nothing behind.
 *
 * send_*()			What a call sends, checked once, to one queue or to many.
 * route_by_id()	A statement on messages by id, to the partitions that these are in.
 * finish_by_id()	The same, with what belongs to it: privileges, locks, and effects on waiting sessions.
 * read_into()		A read as a part of another call.
 * read_outlook()	When there is a reason for another read.
 * move_dead()		Messages that may not be delivered any more go to the dead-letter queue, or the archive.
 * check_wait()		A procedure that waits until there is something to read, without reading it.
 */
#ifndef PGMQ_MESSAGE_H
#define PGMQ_MESSAGE_H

#include "policy/policy.h"
#include "wait/wait.h"
#include "message/move.h"

/* ---- route.c ---- */

extern uint64 route_by_id(const QueueName *name, const PlanSpec *spec,
						  Datum *values, bool *nulls, bool makes_due,
						  DestReceiver *dest);
extern uint64 route_variant(const QueueName *name, const PlanSpec *spec, PlanVariant variant,
							Datum *values, bool *nulls, bool makes_due,
							DestReceiver *dest);

/* ---- finish.c ---- */

/* What a statement by id does to messages */
typedef enum Finish
{
	FINISH_DELETE,
	FINISH_ARCHIVE,
	FINISH_RETIME
} Finish;

extern uint64 finish_by_id(const QueueName *name, const PlanSpec *spec, Finish what, Datum *values, bool *nulls,
						   DestReceiver *dest);
extern void finish_retimed(const QueueName *name, int64 messages, TimestampTz due);

/* ---- read.c ---- */

extern NullableDatum condition_from_arg(FunctionCallInfo fcinfo, int arg);
extern int64 read_into(FunctionCallInfo fcinfo, Oid locked, MessageSet *messages);
extern void read_outlook(const QueueName *name, Horizon *h, TimestampTz moment, int64 found,
						 Outlook *outlook);

/* ---- send.c ---- */

/* How a call says when its messages become visible */
typedef enum Delay
{
	DELAY_NONE,
	DELAY_SECONDS,
	DELAY_UNTIL
} Delay;

/* A statement, and the same with the rank as one more parameter */
typedef struct SpecPair
{
	const PlanSpec *plain;
	const PlanSpec *ranked;
} SpecPair;

/* What a call sends, to one queue or to many */
typedef struct Outgoing
{
	SpecPair	specs;
	bool		many;
	Datum		values[3];
	bool		nulls[3];
	Delay		delay;			/* as it is after NULLs and the past */
} Outgoing;

extern void send_take_one(FunctionCallInfo fcinfo, int headers_arg,
						  Delay delay, int delay_arg, Outgoing *out);
extern void send_take_many(FunctionCallInfo fcinfo, int headers_arg,
						   Delay delay, int delay_arg, Outgoing *out);
extern void send_take_arrays(Datum messages, Datum headers, Outgoing *out);
extern void send_to(const QueueName *name, const Outgoing *out, DestReceiver *dest);
extern void require_all_arrived(uint64 taken, uint64 arrived);
extern uint64 send_moved(const QueueName *name, Datum messages, Datum headers);
extern void send_validate_batch(FunctionCallInfo fcinfo, int msgs_arg, int headers_arg);

/* ---- overflow.c ---- */

extern void overflow_check(const QueueName *name, const QueuePolicy *policy, const Outgoing *out);

/* ---- metrics.c ---- */

extern Oid	metrics_lock_queue(const QueueName *name, const char *const *columns, int ncolumns);

/* ---- rank.c ---- */

extern bool rank_to_send(const QueueName *name, const QueuePolicy *policy, Datum headers, bool many,
						 Datum *rank);

/* ---- check.c ---- */

/* How many messages are available, up to a limit */
typedef int64 (*CheckCount) (const QueueName *name, Outlook *outlook);

/* The default */
#define CHECK_TIMEOUT_MS 5000

extern void check_refuse_transaction(FunctionCallInfo fcinfo, const char *procedure, const char *instead);
extern Datum check_result_row(Oid type, Datum value);
extern Datum check_wait(FunctionCallInfo fcinfo, const char *procedure, bool grouped, CheckCount count);

#endif							/* PGMQ_MESSAGE_H */
