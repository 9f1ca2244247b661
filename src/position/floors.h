/*
 * floors.h
 *	  Floors: between floors.c and pace.c.
 */
#ifndef PGMQ_FLOORS_H
#define PGMQ_FLOORS_H

#include "position/look.h"

extern bool floors_last_id(const QueueTable *table, int64 *last_id);
extern bool floors_may_move(const QueueTable *table);
extern bool floors_pending(uint64 key);
extern bool floors_move(const QueueTable *table, bool time_for_candidate,
						const Floors *old, Floors *floors, Floors *sent, int *holders);
extern bool floors_are_wrong(const QueueTable *table, const Floors *floors);

#endif							/* PGMQ_FLOORS_H */
