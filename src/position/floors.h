/*
 * floors.h
 *	  Floors: between floors.c and pace.c.
 */
#ifndef PGMQ_FLOORS_H
#define PGMQ_FLOORS_H

#include "position/look.h"

/* What floors_move() has found */
typedef struct FloorsFound
{
	Floors		floors;
	Floors		ranks[RANKS];	/* of the messages of each rank, if they were asked for */
	Floors		sent;			/* no message gets an id below it any more, or is enqueued before it */
} FloorsFound;

extern bool floors_last_id(const QueueTable *table, int64 *last_id);
extern bool floors_may_move(const QueueTable *table);
extern bool floors_pending(uint64 key);
extern bool floors_move(const QueueTable *table, bool time_for_candidate,
						const Floors *old, const Floors *old_ranks, FloorsFound *found, int *holders);
extern bool floors_are_wrong(const QueueTable *table, const Floors *floors, const Floors *ranks,
							 int64 entries, Floors *from);

#endif							/* PGMQ_FLOORS_H */
