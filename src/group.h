/*
 * group.h
 *	  Between group.c and what it stands on: starts.c, front.c, notes.c,
 *	  slowgroup.c, grouptrigger.c and fifo.c.
 */
#ifndef PGMQ_GROUP_H
#define PGMQ_GROUP_H

#include "access/genam.h"
#include "access/htup.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "pgmq.h"

/*
 * A group is known by its key: the text that the first column of the queue's
 * group index holds, which is the group's name, or if that is long its
 * beginning and two hashes of it.
 */
#define GROUP_NAME_OF(headers) \
	"COALESCE(" headers " OPERATOR(pg_catalog.->>) 'x-pgmq-group'::pg_catalog.text, '_default_fifo_group'::pg_catalog.text)"
#define GROUP_NAME GROUP_NAME_OF("headers")
#define DEFAULT_GROUP "_default_fifo_group"

/* What the first column of the group index holds: see fifo.c */
#define LONGEST_KEY "256"

#define GROUP_HASH(seed) \
	"pg_catalog.hashtextextended(" GROUP_NAME ", " seed ")::pg_catalog.text"

#define GROUP_KEY \
	"(CASE WHEN pg_catalog.octet_length(" GROUP_NAME ") OPERATOR(pg_catalog.<=) " LONGEST_KEY \
	" THEN " GROUP_NAME \
	" ELSE pg_catalog.\"left\"(" GROUP_NAME ", 32)" \
	" OPERATOR(pg_catalog.||) '...'::pg_catalog.text OPERATOR(pg_catalog.||) " GROUP_HASH("0") \
	" OPERATOR(pg_catalog.||) '/'::pg_catalog.text OPERATOR(pg_catalog.||) " GROUP_HASH("1") " END)"

#define GROUP_INDEX_SUFFIX "_fifo_idx"

/* The triggers on a queue that has groups; their names are their functions' */
#define TRIGGER_SENT "pgmq_group_sent"
#define TRIGGER_REMOVED "pgmq_group_removed"
#define TRIGGER_RETIMED "pgmq_group_retimed"
#define TRIGGER_MOVED "pgmq_group_moved"
#define TRIGGER_TRUNCATED "pgmq_group_truncated"

/* ---- front.c: the front of a group, as it is in all transactions at once ---- */

/* A table that holds messages: the queue's, or one of its partitions */
typedef struct GroupLeaf
{
	Relation	rel;
	Oid			index_oid;		/* of the group index */
	Relation	index;
	TupleTableSlot *lock_slot;
	AttrNumber	id_attno;
	AttrNumber	vt_attno;
	AttrNumber	enqueued_attno;
	AttrNumber	read_ct_attno;
	AttrNumber	headers_attno;
} GroupLeaf;

/* A table that may hold messages, and between which ids */
typedef struct GroupRange
{
	Oid			relid;
	Leaf	   *part;			/* NULL unless it is a partition that partition.c knows */
	int64		lowest;
	int64		highest;
	int			open;			/* where it stands among the leaves, or -1 */
} GroupRange;

typedef struct GroupQueue
{
	QueueName	name;
	Relation	queue;
	bool		locked_before;	/* this transaction had written to the queue */
	Relation	fifo;			/* the group index; NULL if there is none that can be used */
	Relation	notes;			/* its table of notes; NULL with it */
	bool		notes_locked_before;	/* this transaction had written to them */
	uint64		key;			/* database and file of the notes */
	Partitions *parts;			/* NULL: all tables have been opened, and there will be no others */
	bool		has_default;	/* a default partition: the first of the ranges */
	int			nranges;
	GroupRange *ranges;			/* all tables, in the order of their lowest ids */
	int			nleaves;
	int			max_leaves;
	GroupLeaf  *leaves;			/* those that were opened */
	Snapshot	fixed;			/* above READ COMMITTED: only what it sees can be taken */
	bool		policed;		/* row-level security hides messages from the current role */
} GroupQueue;

/* A version of a message as a look finds it; the flags are about other transactions that are still open */
typedef struct Peeked
{
	int64		msg_id;
	TimestampTz vt;
	bool		fresh;
	int32		read_ct;
	bool		mine;			/* written by this transaction */
	bool		arriving;		/* a version that one of them has written */
	bool		leaving;		/* deleted by one */
	bool		changing;		/* updated by one */
	bool		locked;			/* locked by one */
	bool		solid;			/* front_next_message() only: it stays, whatever they do */
	bool		unseen;			/* not in the fixed snapshot */
	int			leaf;
	ItemPointerData tid;
	ItemPointerData next;		/* of the version that has replaced it, if it is changing */
} Peeked;

static inline bool
peeked_is_busy(const Peeked *peeked)
{
	return peeked->arriving || peeked->leaving || peeked->changing;
}

/* Handed out, and its lease still running at that moment */
static inline bool
peeked_is_held(const Peeked *peeked, TimestampTz moment)
{
	return !peeked->fresh && peeked->read_ct > 0 && peeked->vt > moment;
}

typedef struct GroupScan GroupScan;

extern bool group_open(GroupQueue *queue, const QueueName *name, bool for_reading);
extern void group_close(GroupQueue *queue, bool keep_lock);
extern bool group_has_notes(const QueueName *name);
extern int	front_compare_keys(const text *a, const text *b);
extern GroupScan *front_begin(GroupQueue *queue, const text *key, int64 from);
extern GroupScan *front_begin_near(GroupQueue *queue, const text *key, int64 from, int64 until);
extern bool front_next(GroupScan *scan, Peeked *peeked);
extern bool front_next_message(GroupScan *scan, Peeked *peeked);
extern int64 front_ours(const GroupScan *scan);
extern void front_end(GroupScan *scan);
extern bool front_lock(GroupQueue *queue, const Peeked *peeked);
extern bool front_columns(GroupLeaf *leaf);
extern void front_open_all(GroupQueue *queue);
extern void front_peek(GroupQueue *queue, const GroupLeaf *leaf, TupleTableSlot *slot,
					   const SnapshotData *dirty, Peeked *peeked);
extern bool slot_is_claimed(TupleTableSlot *slot);
extern bool slot_ended_since(TupleTableSlot *slot, Snapshot before);
extern bool entry_ended_since(IndexScanDesc scan, Snapshot before, TupleTableSlot *slot);

/* ---- starts.c: where the look at a group may start ---- */

typedef struct GroupStart
{
	uint64		hash[2];
	int64		from;			/* below lies nothing, and never will */
	uint64		ticket;
	bool		own;			/* only the current transaction knows */
} GroupStart;

extern void starts_attach(void);
extern void starts_find(const GroupQueue *queue, const text *key, GroupStart *start);
extern void starts_advance(const GroupStart *start, int64 to);
extern void starts_advance_own(const GroupStart *start, int64 to);
extern void starts_lower(const GroupQueue *queue, const text *key, int64 msg_id);

/* ---- notes.c: notes, each of which says to look at a group from some time on ---- */

#define NOTE_ID 1
#define NOTE_ENQUEUED_AT 2
#define NOTE_VT 3
#define NOTE_GRP 4
#define NOTE_HEAD 5
#define NOTE_LATE 6
#define NOTE_TRIES 7
#define NOTE_COLUMNS 7
#define NOTE_INDEXES 4

typedef struct Note
{
	int64		id;
	TimestampTz vt;
	text	   *key;
	int64		head;			/* the group's first message when the note was written */
	bool		late;			/* see front.c about messages that come late */
	int32		tries;			/* how often the group was found busy in a row */
	bool		due;			/* deferred, and its time has come; else fresh */
	bool		claimed;		/* another transaction has locked or changed it */
	int64		place;			/* in the order of a look: the group's first message, as far as we know */
	ItemPointerData tid;
} Note;

/* What is to be written, all in one go */
typedef struct NoteChanges
{
	int			nleased;
	int			ndropped;
	int			nadded;
	int			max_leased;
	int			max_dropped;
	int			max_added;
	Datum	   *leased;			/* ids of notes whose groups were handed out */
	Datum	   *dropped;		/* ids */
	Datum	   *keys;			/* of notes to add */
	Datum	   *times;
	Datum	   *heads;
	Datum	   *lates;
	Datum	   *tries;
} NoteChanges;

typedef struct NoteScan NoteScan;

extern NoteScan *notes_scan_due(GroupQueue *queue, Oid index, TimestampTz from, TimestampTz until);
extern NoteScan *notes_scan_fresh(GroupQueue *queue, Oid index, int64 from, int64 until);
extern bool notes_next(NoteScan *scan, Note *note);
extern void notes_end(NoteScan *scan);
extern bool notes_lock(GroupQueue *queue, const Note *note);
extern Snapshot notes_snapshot(const GroupQueue *queue);
extern List *notes_of_message(GroupQueue *queue, const text *key, int64 msg_id, TimestampTz vt,
							  Snapshot snapshot);
extern bool notes_any_late(GroupQueue *queue, const text *key);
extern void notes_lease(NoteChanges *changes, const Note *note);
extern void notes_drop(NoteChanges *changes, const Note *note);
extern void notes_add(NoteChanges *changes, const text *key, TimestampTz time,
					  int64 head, bool late, int32 tries);
extern void notes_write(const GroupQueue *queue, NoteChanges *changes, TimestampTz lease_end);
extern void notes_truncate(const QueueName *name);

/* ---- slowgroup.c: the same without an index ---- */

typedef struct SlowGroup
{
	const text *key;
	Peeked	   *messages;		/* a version each, in msg_id order */
	int			count;
} SlowGroup;

extern SlowGroup *slow_groups(GroupQueue *queue, int *count);
extern const SlowGroup *slow_group_of(const SlowGroup *groups, int count, const text *key);

#endif							/* PGMQ_GROUP_H */
