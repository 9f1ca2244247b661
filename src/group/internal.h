/*
 * internal.h
 *	  What the files of this folder share.
 */
#ifndef PGMQ_GROUP_INTERNAL_H
#define PGMQ_GROUP_INTERNAL_H

#include "access/genam.h"
#include "access/htup.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "group/group.h"

/* A group that an open transaction blocks is looked at again after 10 ms, 20, ... 1.28 s; and after this at the latest */
#define SHORTEST_PAUSE INT64CONST(10000)
#define LONGEST_PAUSE (128 * SHORTEST_PAUSE)
#define MOST_BUSY_PAUSE (2 * USECS_PER_SEC)

/* ---- open.c: a queue that is open for a look at its groups ---- */

/* A table that may hold messages: the queue's, or one of its partitions */
typedef struct GroupTable
{
	Oid			relid;
	Leaf	   *part;			/* NULL unless it is a partition of a kind that partition.c knows */

	/* If it is open: */
	Relation	rel;			/* else NULL */
	Relation	index;			/* its part of the group index */
	TupleTableSlot *lock_slot;
	Place		place;
} GroupTable;

/* One of them, and the range of its ids */
typedef struct GroupRange
{
	int64		lowest;
	int64		highest;
	GroupTable *table;
} GroupRange;

typedef struct GroupQueue
{
	QueueName	name;
	Relation	queue;
	bool		locked_before;	/* this transaction had written to the queue */
	bool		indexed;		/* each table has a usable part of the group index */
	Relation	notes;			/* its table of notes; for reading, NULL without the index */
	bool		notes_locked_before;	/* this transaction had written to them */
	uint64		key;			/* database and file of the notes */
	Oid			head_index;		/* of the notes, by group and head; InvalidOid: none */
	Oid			late_index;		/* of the notes of messages that came late */
	bool		marked;			/* the notes have their marker: see notes_any_late() */
	bool		late_known;		/* "any_late" says whether there are late notes */
	bool		any_late;
	Partitions *parts;			/* NULL: all tables have been opened, and there will be no others */
	bool		has_default;	/* a default partition: the first of the ranges */
	int			nranges;
	GroupRange *ranges;			/* all tables, in the order of their lowest ids */
	List	   *opened;			/* those that are open */
	List	   *locked;			/* oids of those that were locked for writing: see front_open_all() */
	Snapshot	fixed;			/* above READ COMMITTED: only what it sees can be taken */
	bool		policed;		/* row-level security hides messages from the current role */
	const SurveyRule *rule;		/* when a message is dead; NULL: never, or the caller does not ask */
} GroupQueue;

extern bool group_open(GroupQueue *queue, const QueueName *name, bool for_reading);
extern void group_close(GroupQueue *queue, bool keep_lock);
extern void group_forget_index(GroupQueue *queue);
extern void front_open_all(GroupQueue *queue);
extern void front_close_indexes(GroupQueue *queue);
extern void front_lock_leaves(GroupQueue *queue);
extern bool front_open_table(GroupQueue *queue, GroupTable *table);
extern void front_close_table(GroupQueue *queue, GroupTable *table);
extern bool front_is_current(GroupQueue *queue);

/* ---- front.c: the front of a group, as it is in all transactions at once ---- */

/* A version of a message as a look finds it; the flags are about other transactions that are still open */
typedef struct Peeked
{
	int64		msg_id;
	TimestampTz vt;				/* DT_NOBEGIN of a fresh one */
	int32		read_ct;
	bool		mine;			/* written by this transaction */
	bool		arriving;		/* a version that one of them has written */
	bool		changing;		/* updated or deleted by one of them */
	bool		locked;			/* locked by one of them */
	bool		idle;			/* front_next_message() only: a version that no other transaction is changing */
	bool		unseen;			/* not in the fixed snapshot */
	bool		dead;			/* it may not be delivered any more */
	GroupTable *table;
	ItemPointerData tid;
} Peeked;

static inline bool
peeked_is_busy(const Peeked *peeked)
{
	return peeked->arriving || peeked->changing;
}

/* No other transaction has locked or changed it, and it is visible */
static inline bool
peeked_is_available(const Peeked *peeked, TimestampTz moment)
{
	return !peeked_is_busy(peeked) && !peeked->locked && !peeked->unseen && peeked->vt <= moment;
}

/* Handed out, and its lease still running at that moment */
static inline bool
peeked_is_held(const Peeked *peeked, TimestampTz moment)
{
	return peeked->read_ct > 0 && peeked->vt > moment;
}

/* What a claimer finds about a group */
typedef struct Verdict
{
	bool		found;			/* anything, open or not */
	bool		unseen;			/* what other sessions could take is not in the fixed snapshot */
	int64		head;			/* the first of what was found */
	TimestampTz until;			/* nothing is available before */
} Verdict;

typedef struct GroupScan GroupScan;

extern int	front_compare_keys(const text *a, const text *b);
extern GroupScan *front_begin(GroupQueue *queue, const text *key, int64 from);
extern GroupScan *front_begin_near(GroupQueue *queue, const text *key, int64 from, int64 until);
extern bool front_next(GroupScan *scan, Peeked *peeked);
extern bool front_next_message(GroupScan *scan, Peeked *peeked);
extern void front_end(GroupScan *scan);
extern bool front_lock(GroupQueue *queue, const Peeked *peeked);
extern bool front_follows(GroupQueue *queue, const text *key, int64 msg_id, bool *doubtful);
extern void front_judge(GroupQueue *queue, const text *key, bool ours, Verdict *verdict);
extern bool front_is_held_behind(GroupQueue *queue, const text *key, const Peeked *first,
								 TimestampTz moment, TimestampTz *until);
extern void front_peek(GroupQueue *queue, GroupTable *table, TupleTableSlot *slot,
					   const SnapshotData *dirty, Peeked *peeked);

/* ---- starts.c: where the look at a group may start ---- */

typedef struct GroupStart
{
	SlotKey		key;
	int64		from;			/* below it there is no message, now or later */
	uint64		round;			/* of the slot; 0: there is none */
	bool		own;			/* only the current transaction knows */
} GroupStart;

extern void starts_attach(void);
extern void starts_find(const GroupQueue *queue, const text *key, GroupStart *start);
extern void starts_advance(const GroupStart *start, int64 to, bool ours);
extern void starts_lower(const GroupQueue *queue, const text *key, int64 msg_id, bool only_if_below);

/* ---- notes.c: a note says from what time on to look at a group ---- */

/* The id of a row that is no note: see notes_set_marker() */
#define MARKER_ID 0

#define NOTE_ID 1
#define NOTE_ENQUEUED_AT 2
#define NOTE_VT 3
#define NOTE_GRP 4
#define NOTE_HEAD 5
#define NOTE_LATE 6
#define NOTE_COLUMNS 6
#define NOTE_INDEXES 4

typedef struct Note
{
	int64		id;
	TimestampTz vt;
	text	   *key;
	int64		head;			/* the group's first message when the note was written */
	bool		late;			/* see front.c about messages that come late */
	int64		pause;			/* from when it was written until then, in microseconds */
	bool		due;			/* deferred, and its time has come; else fresh */
	bool		claimed;		/* another transaction has locked or changed it */
	int64		place;			/* where it comes in a look: the group's first message, as far as known */
	ItemPointerData tid;
} Note;

/* What a claimer has locked of a group's notes */
typedef struct Claim
{
	List	   *notes;			/* of Note */
	bool		late;			/* one of them is */
	int64		pause;			/* the longest one, if it was for a group that was busy */
} Claim;

/* What is to be written, all at once: lists of Note */
typedef struct NoteChanges
{
	List	   *dropped;
	List	   *added;
} NoteChanges;

typedef struct NoteScan NoteScan;

extern NoteScan *notes_scan(GroupQueue *queue, Oid index, bool due, int64 from, int64 until);
extern bool notes_next(NoteScan *scan, Note *note);
extern void notes_end(NoteScan *scan);
extern bool notes_lock(GroupQueue *queue, const Note *note);
extern void notes_claim(GroupQueue *queue, const text *key, const Note *told, Claim *claim);
extern bool notes_any_late(GroupQueue *queue, const text *key);
extern bool notes_group_is_late(GroupQueue *queue, const text *key);
extern bool notes_tell(GroupQueue *queue, const text *key, TimestampTz until);
extern void notes_set_marker(const QueueName *name);
extern void notes_add(NoteChanges *changes, const text *key, TimestampTz time, int64 head, bool late);
extern void notes_drop(NoteChanges *changes, const Claim *claim);
extern void notes_replace(NoteChanges *changes, const Claim *claim, const text *key, TimestampTz time,
						  int64 head, bool late);
extern void notes_write(const GroupQueue *queue, NoteChanges *changes);
extern void notes_truncate(const QueueName *name);

/* ---- groupsweep.c: groups without a note ---- */

/* The kind of read that continues the sweep */
typedef enum SweepOccasion
{
	SWEEP_AFTER_FULL_READ,
	SWEEP_AFTER_SHORT_READ,
	SWEEP_IN_WAIT				/* after a short one, of a reader that waits */
} SweepOccasion;

extern void sweep_attach(void);
extern List *sweep_step(GroupQueue *queue, SweepOccasion occasion, int enough);

/* ---- slowgroup.c: the same without an index ---- */

/* How groups share what is handed out */
typedef enum GroupMode
{
	FILL,						/* from the oldest group, then the next */
	ROUND_ROBIN,				/* one of each group in turn */
	HEADS						/* one of each group only */
} GroupMode;

/* A message, and the first one of its group */
typedef struct SlowMessage
{
	int64		msg_id;
	int64		head;
} SlowMessage;

/* Which messages are meant: all, or, by the rule of the policy, the live or the dead ones */
typedef enum SlowKind
{
	SLOW_ALL,
	SLOW_LIVE,
	SLOW_DEAD
} SlowKind;

extern int	slow_messages(const GroupQueue *queue, GroupMode mode, SlowKind kind, int64 limit, TimestampTz moment,
						  bool lock, SlowMessage **found);

#endif							/* PGMQ_GROUP_INTERNAL_H */
