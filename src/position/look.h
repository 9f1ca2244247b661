/*
 * look.h
 *	  A queue's table, opened for a look at what is in it.
 */
#ifndef PGMQ_LOOK_H
#define PGMQ_LOOK_H

#include "position/position.h"

typedef struct QueueTable
{
	QueueName	name;
	char		prefix;			/* QUEUE_TABLE, or NOTES_TABLE, which has its shape */
	Relation	rel;
	bool		locked_before;	/* this transaction had written to the queue */
	uint64		key;			/* the key of its floors */
	Place		place;			/* of a partitioned one the rank only, unless it is read by rank */
	Partitions *parts;			/* or NULL */
	bool		by_id;			/* no look is possible, but there is an index on msg_id */
	int64		limit;			/* of the looks for messages: see PlaceLimit; or 0 */
} QueueTable;

/* A leaf with a due message, the earliest at this vt */
typedef struct DueLeaf
{
	Leaf	   *leaf;
	TimestampTz vt;
	TimestampTz from;			/* earlier ones have been taken */
	bool		stale;			/* something was taken since the look */
	bool		blind;			/* no look was possible, so the message is an assumption */
} DueLeaf;

/* ---- table.c ---- */

extern bool position_open_table(const QueueName *name, char prefix, LOCKMODE lockmode, QueueTable *table);
extern uint64 position_partitioned_key(Oid relid);
extern bool position_holds_lock(Oid relid, LOCKMODE lockmode, bool orstronger);
extern void position_let_go(Oid relid, LOCKMODE lockmode);
extern bool position_locked_indexes(const QueueTable *table);
extern void position_let_go_of_all(const QueueTable *table, Oid relid);
extern bool position_has_ranks(QueueTable *table);
extern bool position_runs_code_of_others(Relation rel);

/* ---- look.c ---- */

extern PlaceLimit *look_limit(const QueueTable *table, PlaceLimit *limit);
extern bool look_lowest_fresh(const QueueTable *table, Snapshot snapshot,
							  int64 from, int64 until, PlaceLimit *limit, int64 *msg_id);
extern bool look_earliest_due(const QueueTable *table, Snapshot snapshot,
							  TimestampTz from, TimestampTz until, PlaceLimit *limit, TimestampTz *vt);
extern int	look_due_leaves(const QueueTable *table, Snapshot snapshot, bool likely,
							bool takes_all, TimestampTz from, TimestampTz until, DueLeaf **due);
extern DueLeaf *look_next_due(DueLeaf *due, int *count, int rank, TimestampTz now, TimestampTz *until);
extern void look_left_due(DueLeaf *due, int count);
extern bool look_next_rank(const QueueTable *table, Snapshot snapshot, bool fresh, const Floors *floors,
						   int64 until, int end, int *rank, int64 *key);
extern bool look_was_complete(const QueueTable *table);
extern IdRange *look_next_range(IdRange *ranges, int count, int rank, bool trust, PlaceLimit *limit,
								int64 *until);
extern Snapshot look_snapshot(void);

#endif							/* PGMQ_LOOK_H */
