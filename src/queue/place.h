/*
 * place.h
 *	  A table that messages are in: a queue's own, or one of its partitions.
 */
#ifndef PGMQ_PLACE_H
#define PGMQ_PLACE_H

#include "pgmq.h"

#include "access/htup.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Positions in the two indexes */
typedef struct Floors
{
	int64		fresh;			/* a msg_id */
	TimestampTz due;			/* a vt */
} Floors;

/*
 * The rank of a message is its level of priority: 0 comes first.  A row by hand can have
 * any rank that the column can have.  Those are found last, negative ones in the end, so
 * an int with a rank has the 16 bits of the column.  RANK_ALL: whatever the rank.
 */
#define RANKS 10
#define RANK_DEFAULT 5
#define RANK_NONE (PG_UINT16_MAX + 1)
#define RANK_ALL (-1)

typedef struct Place
{
	AttrNumber	id_attno;
	AttrNumber	vt_attno;
	AttrNumber	enqueued_attno;
	Oid			id_index;		/* on (msg_id) */
	Oid			vt_index;		/* on (vt, ...), of deferred messages or all */

	/* For reading by groups; each can be missing */
	AttrNumber	read_ct_attno;
	AttrNumber	headers_attno;
	Oid			group_index;	/* of messages, on (GROUP_KEY, msg_id) */
	Oid			head_index;		/* of notes, on (grp, head) */
	Oid			late_index;		/* of notes that are late, on (grp) */
	bool		reindexing;		/* one of its indexes is not valid: it may be replaced now */

	/* What a policy adds to a queue; each can be missing, and can be there without a policy */
	AttrNumber	releases_attno;
	AttrNumber	settled_attno;
	AttrNumber	rank_attno;
	Oid			rank_fresh_index;	/* on (pgmq_rank, msg_id), of fresh messages */
	Oid			rank_due_index; /* on (pgmq_rank, vt, msg_id), of deferred messages */

	/* Looks see messages of this rank only, or RANK_ALL */
	int			rank;
} Place;

/* What was found out about a table, for as long as it is true */
typedef struct Description
{
	Oid			relid;
	uint64		changes;		/* of the table and these indexes; 0: it is not known */
	bool		looks;			/* C code can look into the table */
	Place		place;
} Description;

/*
 * A message that a scan has come to; the scan goes on while the callback says so.  The
 * index by msg_id also has the messages of the other kind, any number of which can be
 * in the way.
 */
typedef struct PlaceRow
{
	HeapTuple	tuple;
	TupleTableSlot *slot;
	bool		wanted;			/* fresh or deferred, as asked for */
	int64		key;			/* msg_id, or vt */
	TimestampTz enqueued_at;
} PlaceRow;

/*
 * How far a look for the first message may go.  One that has passed so many entries of the
 * index stops, and counts as if there were a message where it has stopped: it knows that
 * there is none below.
 */
typedef struct PlaceLimit
{
	int64		entries;
	bool		stopped;
} PlaceLimit;

typedef bool (*PlaceVisit) (const PlaceRow *row, void *arg);

extern bool place_columns(Relation rel, Place *place);
extern void place_walk(Relation rel, const Place *place, Snapshot snapshot, bool fresh,
					   int64 from, int64 until, PlaceVisit visit, void *arg);
extern bool place_describe(Relation rel, Place *place);
extern bool place_has_ranks(const Place *place);
extern bool place_remember(Relation rel, Description *description);
extern bool place_lowest_fresh(Relation rel, const Place *place, Snapshot snapshot,
							   int64 from, int64 until, PlaceLimit *limit, int64 *msg_id);
extern bool place_earliest_due(Relation rel, const Place *place, Snapshot snapshot,
							   TimestampTz from, TimestampTz until, PlaceLimit *limit, TimestampTz *vt);
extern int64 place_takeable_fresh(Relation rel, const Place *place, Snapshot snapshot,
								  int64 from, int64 until, int64 limit);
extern int64 place_takeable_due(Relation rel, const Place *place, Snapshot snapshot,
								TimestampTz from, TimestampTz until, int64 limit);
extern bool place_next_rank(Relation rel, const Place *place, Snapshot snapshot, bool fresh,
							const Floors *floors, int64 until, int end, int *rank, int64 *key);
extern int64 place_highest_fresh(const Floors *floors);
extern bool place_has_id(Relation rel, const Place *place, int64 msg_id);
extern bool place_ids(Relation rel, const Place *place, int64 *lowest, int64 *highest);

#endif							/* PGMQ_PLACE_H */
