/*
 * floors.h
 *	  Between horizon.c and floors.c: a queue's table, opened for a look.
 */
#ifndef PGMQ_FLOORS_H
#define PGMQ_FLOORS_H

#include "utils/relcache.h"
#include "utils/snapshot.h"

typedef struct QueueTable
{
	QueueName	name;
	Relation	rel;
	bool		locked_before;	/* this transaction had written to the queue */
	uint64		key;			/* database and file: what floors are kept by */
	AttrNumber	id_attno;
	AttrNumber	vt_attno;
	AttrNumber	enqueued_attno;
	Oid			id_index;		/* on (msg_id) */
	Oid			vt_index;		/* on (vt, ...), of deferred messages or all */
} QueueTable;

extern bool floors_last_id(const QueueName *name, int64 *last_id);
extern bool floors_may_move(const QueueTable *table);
extern bool floors_pending(uint64 key);
extern bool floors_move(const QueueTable *table, bool time_for_candidate,
						const Floors *old, Floors *floors, int *holders);
extern bool floors_are_wrong(const QueueTable *table, const Floors *floors);
extern int64 floors_takeable_due(const QueueTable *table, Snapshot snapshot,
								 TimestampTz from, TimestampTz until, int64 limit);
extern int64 floors_takeable_fresh(const QueueTable *table, Snapshot snapshot,
								   int64 from, int64 until, int64 limit);
extern bool floors_earliest_due(const QueueTable *table, Snapshot snapshot,
								TimestampTz from, TimestampTz until, TimestampTz *vt);

#endif							/* PGMQ_FLOORS_H */
