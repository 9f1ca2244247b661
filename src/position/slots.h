/*
 * slots.h
 *	  What all sessions know of a queue; see slots.c.
 */
#ifndef PGMQ_SLOTS_H
#define PGMQ_SLOTS_H

#include "storage/spin.h"

#include "position/position.h"

#define NO_FLOORS ((Floors) {PG_INT64_MIN, DT_NOBEGIN})

typedef struct Slot
{
	uint64		key;			/* database and file; 0: free */
	uint32		generation;		/* changes when floors start anew */
	uint32		handed;			/* messages since the last candidate */
	/* by ticks(), microseconds */
	int64		last_used;
	int64		next_move;
	int64		no_move_before;
	int64		next_sweep;
	int64		last_rescan;
	int64		rescan_cost;	/* of the last rescan */
	uint64		clean_at;		/* transactions_ended() when no message was below the floors, */
	uint64		empty_at;		/* and when no message was available at all */
	TimestampTz empty_until;	/* as long as that does not change */
	int64		sweep_cost;		/* of the last look from the floors, */
	int64		usual_sweep_cost;	/* and the smaller of the last two */
	bool		doubted;		/* one has taken long by the clock: measure the work of the next one */
	Floors		floors;
	Floors		marks;
	Floors		sent;			/* no message gets an id below, or is enqueued before */
	int64		sweep_fresh;	/* how far the current sweep has come */
	uint32		setbacks;		/* how often a message became available again below the marks */
	uint32		due_rounds;		/* how often a sweep of partitions left something due */
	int64		last_id;		/* drawn when the floors were last moved */
} Slot;

#define SLOTS_PER_BUCKET 4

typedef struct Bucket
{
	slock_t		mutex;			/* held for a few assignments only */
	uint32		last_generation;	/* of any slot: a slot that is made again is another one */
	Slot		slots[SLOTS_PER_BUCKET];
} Bucket;

extern void slots_attach(void);
extern Bucket *slots_bucket(uint64 key);
extern Slot *slots_find(Bucket *bucket, uint64 key, bool create);
extern void slots_start_anew(Bucket *bucket, Slot *slot);
extern void slots_set_back(Slot *slot);
extern void slots_note_read(uint64 key);

#endif							/* PGMQ_SLOTS_H */
