/*
 * policy.h
 *	  Delivery policies: what a queue does with messages that fail, arrive twice, too
 *	  late or too often, or matter more than others.
 *
 * A queue without a policy runs the statements that it would run if there were no
 * policies.  All that this folder costs it is a look-up in a hash.
 *
 * policy	The policy of a queue, as it was committed last, at every isolation level.
 * gate		Whether messages may be handed out now, and how many: pause and limits.
 * limits	How many messages are handed out in a time, and how many are leased at once.
 * length		How many messages a queue has, about, for max_length.
 * settings	The functions that users set policies with.
 * values	Which values a setting may have.
 * fit		What a policy adds to the tables of a queue, made and removed on demand.
 * keys		The table with the keys that were sent to a queue.
 *
 * Code never infers from a policy what a queue's tables have: it asks for the columns,
 * indexes and tables that exist now, and works without them.
 */
#ifndef PGMQ_POLICY_H
#define PGMQ_POLICY_H

#include "utils/timestamp.h"

#include "position/position.h"

/* Which settings are on; in the order of the arguments of set_policy() */
#define POLICY_MAX_READS			(1 << 0)
#define POLICY_DEAD_LETTER_QUEUE	(1 << 1)
#define POLICY_RETRY_DELAY			(1 << 2)
#define POLICY_RETRY_BACKOFF		(1 << 3)
#define POLICY_RETRY_DELAY_MAX		(1 << 4)
#define POLICY_MESSAGE_TTL			(1 << 5)
#define POLICY_MAX_LENGTH			(1 << 6)
#define POLICY_OVERFLOW				(1 << 7)
#define POLICY_PRIORITY				(1 << 8)
#define POLICY_PRIORITY_MAX_WAIT	(1 << 9)
#define POLICY_MAX_IN_FLIGHT		(1 << 10)
#define POLICY_RATE_LIMIT			(1 << 11)
#define POLICY_RATE_PERIOD			(1 << 12)
#define POLICY_DEDUP_WINDOW			(1 << 13)
#define POLICY_ARCHIVE_RETENTION	(1 << 14)
#define POLICY_PAUSED				(1 << 15)	/* perhaps until a time that is over */

/* Messages can be dead; messages are handed out by limits */
#define POLICY_DEAD					(POLICY_MAX_READS | POLICY_MESSAGE_TTL)
#define POLICY_LIMITS				(POLICY_MAX_IN_FLIGHT | POLICY_RATE_LIMIT)

/* What is not set is 0, except where a default is named */
typedef struct QueuePolicy
{
	uint32		set;			/* bits as above; 0: the queue has no policy */
	int32		max_reads;
	int32		max_in_flight;
	int32		rate_limit;
	int64		max_length;
	double		retry_backoff;	/* 1 if it is not set */
	Interval	retry_delay;
	Interval	retry_delay_max;	/* an hour if it is not set */
	int64		message_ttl;	/* in microseconds: it must not depend on the time zone of the session */
	int64		priority_max_wait;	/* in microseconds */
	Interval	rate_period;	/* a second if it is not set */
	Interval	dedup_window;
	Interval	archive_retention;
	bool		drop_oldest;	/* overflow */
	TimestampTz paused_until;
	QueueName	dead_letter_queue;
	char		spelling[NAMEDATALEN];	/* of the queue's own name */
} QueuePolicy;

extern const QueuePolicy *policy_of(const QueueName *name);
extern const QueuePolicy *policy_reread(const QueueName *name);
extern void policy_release(const QueuePolicy *policy);
extern SurveyRule policy_rule(const QueuePolicy *policy, TimestampTz now);

/* ---- values.c ---- */

extern int64 policy_microseconds(const Interval *interval);

/* ---- fit.c ---- */

extern void policy_fit(const QueueName *name, uint32 set);
extern void policy_unfit(const QueueName *name, uint32 set);
extern bool policy_counts_failures(const QueueName *name);
extern List *policy_fitted(const QueueName *name);

/* ---- keys.c ---- */

typedef struct KeysTable
{
	Oid			relid;
	Oid			owner;
	bool		has_code;		/* of its owner, that statements on it can run */
} KeysTable;

extern bool keys_exist(const QueueName *name);
extern bool keys_lock(const QueueName *name, KeysTable *keys);
extern void keys_begin(const KeysTable *keys, OwnerScope *scope);
extern void keys_make(const QueueName *name);
extern void keys_drop(const QueueName *name);
extern void keys_require_window(Datum window);

/* ---- gate.c ---- */

#define NO_CALL (-1)

/* What a read may take, and what has to be given back */
typedef struct Gate
{
	int64		most;			/* messages that may be handed out */
	TimestampTz next;			/* if it is none: when to ask again; DT_NOEND: when a commit is announced */
	int			call;			/* the reservation in limits.c, or NO_CALL */
	TimestampTz until;			/* no lease that the read gives ends before this */
	const QueuePolicy *policy;	/* the one that counts for this read */
	const QueueName *name;
} Gate;

extern bool policy_gate(const QueueName *name, int64 wanted, int64 lease, Gate *gate);
extern int64 policy_gate_closed(const Gate *gate, Outlook *outlook);
extern void policy_gate_done(Gate *gate, int64 got);

extern void policy_retimed(const QueueName *name, const QueuePolicy *policy, int64 count, TimestampTz due);
extern void policy_removed(const QueueName *name, const QueuePolicy *policy, int64 count);

/* ---- length.c ---- */

extern int64 length_reserve(const QueueName *name, const QueuePolicy *policy, int64 count, bool over_too);
extern void length_removed(const QueueName *name, const QueuePolicy *policy, int64 count, bool at_once);
extern void length_init(void);
extern void length_end(bool committed);
extern void length_prepared(void);
extern void length_subtransaction_end(bool committed, SubTransactionId id, SubTransactionId parent);

/* ---- limits.c ---- */

extern void limits_init(void);
extern void limits_rolled_back(SubTransactionId since);

#endif							/* PGMQ_POLICY_H */
