/*
 * horizon.h
 *	  One read: between horizon.c, pace.c and table.c.
 */
#ifndef PGMQ_HORIZON_H
#define PGMQ_HORIZON_H

#include "position/look.h"
#include "position/positions.h"

/* An empty read needs a partition or two */
#define LEAVES 4

/* waited.c */
typedef struct Waited Waited;

struct Horizon
{
	QueueTable	table;			/* rel is NULL if there is nothing to know */
	bool		indexes_locked_before;
	bool		sees_all;		/* of what is visible, and takes it */
	bool		likely;			/* uses marks and moves them */
	HorizonLook look;
	uint32		generation;
	uint32		setbacks;		/* of the slot, when the look began */
	Floors		floors;			/* as they were known when the read began */
	TimestampTz start_due;
	int64		start_fresh;	/* for a look from the marks only once it has begun */
	int64		look_began;		/* by ticks() */
	bool		doubted;		/* as the slot said then */
	int64		work_before;	/* work_done() then */
	int64		sweep_in;		/* this read has left out a sweep, which is due in so many microseconds */
	bool		left_dead;		/* it has seen dead messages and has not moved them */
	uint64		ended;			/* transactions_ended(), before the read */
	TimestampTz empty_until;	/* no message is available until then; or DT_NOBEGIN */
	Floors		rescan_from;	/* where a rescan begins, or goes on, */
	uint64		rescan_ended;	/* and transactions_ended() when it began */
	bool		all_due;		/* look for what is due in all partitions */
	bool		rescans;		/* looks also where only rows written by hand can be */

	/* What this look has to look at */
	bool		due_begun;
	bool		fresh_begun;
	DueLeaf    *due;			/* of a partitioned queue */
	int			ndue;
	int			due_turns;
	IdRange    *ranges;
	int			nranges;
	bool		stated;			/* this read has run a statement */
	bool		noted;			/* its rollback sets the marks back, and that of no read before it */

	/* A read by priority */
	bool		by_rank;
	Floors		ranks[RANKS];	/* as "floors", for the messages of each rank */
	int			next_rank;		/* the levels before it have been read */
	int			due_rank;		/* the next one with something due, if it is not before next_rank, */
	int			fresh_rank;		/* and with something fresh */
	bool		rank_has_due;	/* the level at which the read is */
	bool		rank_has_fresh;
	Waited	   *waited;			/* where messages are that have waited too long; NULL: not known */

	/* Which partitions had a statement, for their locks */
	Leaf	   *leaves[LEAVES];
	int			nleaves;		/* more than LEAVES: not all are known, or one was locked before */
};

/* table.c */
extern void horizon_let_go_of_partitions(Horizon *h);

/* horizon.c */
extern void horizon_add_leaf(Horizon *h, Leaf *leaf);

/* ranks.c */
extern void ranks_begin(Horizon *h);
extern void ranks_probe(const QueueTable *table, Snapshot snapshot, const Floors *candidate,
						const Floors *old, Floors *floors);
extern bool ranks_are_wrong(const QueueTable *table, Snapshot snapshot, bool fresh, const Floors *floors);

/* pace.c */
extern void pace_move_floors(Horizon *h);
extern void pace_choose_start(Horizon *h);

#endif							/* PGMQ_HORIZON_H */
