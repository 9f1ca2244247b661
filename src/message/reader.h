/*
 * reader.h
 *	  One read: between read.c and dead.c.
 */
#ifndef PGMQ_READER_H
#define PGMQ_READER_H

#include "policy/policy.h"

/* Some statements do not use all of them; $7 to $9 are for {live} */
#define READ_ARGS(key) \
	9, {INT8OID, key, key, INTERVALOID, JSONBOID, JSONBOID, INT4OID, INT8OID, TIMESTAMPTZOID}

/* And $10, the rank */
#define READ_ARGS_OF_RANK(key) \
	10, {INT8OID, key, key, INTERVALOID, JSONBOID, JSONBOID, INT4OID, INT8OID, TIMESTAMPTZOID, INT2OID}

/* The statements for what is due and for what is fresh, and the one for both by msg_id */
typedef struct ReadSpecs
{
	const PlanSpec *due;
	const PlanSpec *fresh;
	const PlanSpec *by_id;
	const PlanSpec *due_of_rank;	/* for messages of one level only */
	const PlanSpec *fresh_of_rank;
} ReadSpecs;

/* The request of one call, which may take several attempts */
typedef struct ReadRequest
{
	QueueName	name;
	const ReadSpecs *specs;
	int64		quantity;
	Datum		lease;
	int64		seconds;		/* of the lease */
	NullableDatum body;			/* what the message must contain */
	NullableDatum headers;
	MessageSet *messages;
	Oid			locked;			/* the queue, if the call has locked partitions of it: then no attempt waits for one */
	Oid			leaf;			/* the first partition that an attempt has locked */
	Oid			blocked;		/* one that it could not lock at once: it takes no more */
	bool		unlimited;
	bool		lease_null;
	bool		waiting;		/* if it finds nothing, another attempt follows, in this transaction */
	bool		left_dead;		/* and there are dead messages, which it has not moved */

	/* Of one attempt */
	bool		stated;			/* a statement was run */
	bool		stopped;		/* it has spent its time on dead messages */
	int			rank;			/* the level at which the read is, or RANK_ALL */
	const QueuePolicy *policy;
	PlanVariant variant;		/* LIVE_ANY: no message can be dead */
	SurveyRule	rule;
	Survey		survey;
} ReadRequest;

/* read.c */
extern const PlanSpec *read_spec(const ReadRequest *request, bool fresh);
extern int64 read_take(ReadRequest *request, const PlanSpec *spec, int64 limit, const HorizonRange *range);

/* dead.c */
extern void dead_prepare(ReadRequest *request, Horizon *h, TimestampTz moment);
extern int64 dead_take_live(ReadRequest *request, Horizon *h, bool fresh, int64 limit, HorizonRange range,
							HorizonFinds *finds);
extern bool dead_turn_to_marks(ReadRequest *request, Horizon *h);
extern int64 dead_move(ReadRequest *request, Horizon *h, TimestampTz moment, int64 got);

#endif							/* PGMQ_READER_H */
