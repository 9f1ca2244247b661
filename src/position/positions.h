/*
 * positions.h
 *	  What all sessions know of a queue; see positions.c.
 */
#ifndef PGMQ_POSITIONS_H
#define PGMQ_POSITIONS_H

#include "base/base.h"
#include "position/position.h"

#define NO_FLOORS ((Floors) {PG_INT64_MIN, DT_NOBEGIN})

typedef struct Slot
{
	SlotHead	head;			/* its key is that of database and file */
	uint32		generation;		/* changes when floors start anew */
	uint32		handed;			/* messages since the last candidate */
	/* by ticks(), microseconds */
	int64		next_move;
	int64		no_move_before;
	int64		next_sweep;
	int64		last_rescan;	/* when the last rescan has begun, */
	int64		last_part;		/* and its last part */
	int64		rescan_cost;	/* of this part */
	Floors		rescanned;		/* below these it has found nothing; or NO_FLOORS: it is over */
	uint64		rescan_ended;	/* transactions_ended() before it */
	uint64		clean_at;		/* transactions_ended() when no message was below the floors, */
	uint64		empty_at;		/* and when no message was available at all */
	TimestampTz empty_until;	/* as long as that does not change */
	int64		sweep_cost;		/* of the last look from the floors, */
	int64		usual_sweep_cost;	/* and the smaller of the last two */
	bool		doubted;		/* one has taken long by the clock: measure the work of the next one */
	Floors		floors;
	Floors		marks;
	Floors		sent;			/* no message gets an id below, or is enqueued before */
	Floors		ranks[RANKS];	/* floors of the messages of each rank */
	Oid			ranked;			/* the index that these are of; another one has other ranks */
	int64		sweep_fresh;	/* how far the current sweep has come */
	TimestampTz sweep_due;		/* the same of deferred messages, if it has skipped dead ones */
	int64		lap_began;		/* when sweep_due was at the floor, */
	int64		next_lap;		/* and when it is to go back there; 0: no live ones were met since */
	uint32		setbacks;		/* how often a message became available again below the marks */
	uint32		due_rounds;		/* how often a sweep of partitions left something due */
	int64		last_id;		/* drawn when the floors were last moved */
} Slot;

extern void positions_attach(void);
extern SlotBucket *positions_bucket(uint64 key);
extern Slot *positions_find(SlotBucket *bucket, uint64 key, bool create);
extern void positions_start_anew(SlotBucket *bucket, Slot *slot);
extern Floors *positions_ranks(Slot *slot, Oid index);
extern void positions_set_back(Slot *slot);
extern bool positions_note_read(uint64 key);
extern void positions_forget_read(uint64 key);

#endif							/* PGMQ_POSITIONS_H */
