/*
 * partition.h
 *	  The partitions of a queue, as this backend knows them.
 */
#ifndef PGMQ_PARTITION_H
#define PGMQ_PARTITION_H

#include "lib/ilist.h"

#include "base/base.h"
#include "queue/place.h"

/* Of the partition key, which is a msg_id or an enqueued_at: both are 64 bits wide */
#define KEY_MIN PG_INT64_MIN
#define KEY_MAX PG_INT64_MAX

typedef struct Partitions Partitions;

typedef struct Leaf
{
	Partitions *parts;
	Oid			relid;
	uint32		bounds;			/* a hash of them */
	uint32		born;			/* the generation of the list in which it was new */
	bool		is_default;
	int64		first;			/* of the key; the default has all that no other has */
	int64		last;

	Description description;

	/*
	 * Facts, true as far as our functions write, until partitions_forget().  When
	 * no more is sent to a partition, its ids stay in a range.
	 */
	bool		ids_known;
	bool		drained;		/* no message is or will be here */

	/* Hints.  If the partition is not closed, its ids are hints, too. */
	bool		has_ids;
	int64		lowest_id;
	int64		highest_id;
	TimestampTz due_at;			/* from when on something may be due; DT_NOEND: not likely */
	bool		rows_likely;	/* there are messages here, although the hints say otherwise */
} Leaf;

/* A range of keys of a leaf; the default partition has several. */
typedef struct Segment
{
	int64		first;
	int64		last;
	Leaf	   *leaf;
} Segment;

struct Partitions
{
	Oid			relid;			/* of the parent; hash key, must be first */
	MemoryContext context;
	dlist_node	recency;
	int			pins;
	bool		current;		/* the hash has it */
	uint64		changes;		/* of the parent, when the list was made; 0: not to be used again */
	const char *column;			/* the key: a constant */
	bool		by_id;			/* else by enqueued_at */
	bool		looks;			/* all leaves have the indexes of a queue */
	uint32		generation;
	int			nleaves;
	Leaf	   *leaves;			/* in the order of their keys, the default last */
	Leaf	  **by_oid;			/* in the order of their oids */
	int			nsegments;
	Segment    *segments;		/* in the order of the key, without holes */

	/* From the shared slot: see Floors.  No message will be sent below these. */
	uint32		slot_generation;
	Floors		sent;

	uint32		due_rounds;		/* of the slot, when all leaves were last asked for what is due */

	/* From this key on, our functions cannot have written anything when this look began */
	int64		reach;
};

/* A range of ids in which a leaf may have messages */
typedef struct IdRange
{
	Leaf	   *leaf;
	int64		next;
	int64		last;
	bool		seen;			/* there is a message with the id "next" */
	bool		blind;			/* no look was possible, so that is an assumption */
	bool		stopped;		/* a look with a limit has stopped there, so it is one as well */
	bool		done;			/* there are no more */
} IdRange;

extern Partitions *partitions_open(Relation parent);
extern bool partitions_valid(const Partitions *parts);
extern bool partitions_same(const Partitions *a, const Partitions *b);
extern void partitions_forget(Partitions *parts);
extern void partitions_refresh(Partitions *parts, uint32 slot_generation, const Floors *sent);
extern int	partitions_ids(Partitions *parts, int64 from, int64 until, bool likely,
						   IdRange **ranges);
extern Segment *partitions_segment(const Partitions *parts, int64 key);
extern int	partitions_find(const Partitions *parts, int64 key);
extern bool leaf_closed(const Leaf *leaf);
extern bool leaf_ahead(const Leaf *leaf);
extern Relation leaf_open(Leaf *leaf);
extern void leaf_learn_ids(Leaf *leaf, bool again);
extern void leaf_note_due(Leaf *leaf, TimestampTz vt);
extern char *leaf_condition(const Leaf *leaf);

/* ---- leaflock.c: locks on several partitions ---- */

extern void leaves_lock(Leaf **leaves, int count);
extern void leaf_lock(const Leaf *leaf);
extern bool leaf_wait(Oid locked, Oid blocked);
extern bool leaf_lock_at_once(Leaf *leaf);
extern Oid	default_hold(const QueueName *name, char prefix);
extern void default_release(Oid held);

#endif							/* PGMQ_PARTITION_H */
