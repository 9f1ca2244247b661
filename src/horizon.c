/*
 * horizon.c
 *	  Where a read may start.
 *
 * A read that began at the front of the indexes would walk, every time, past
 * all that was consumed and can't be vacuumed yet, and past every message that
 * other readers hold.  So each queue has a slot, in shared memory where there
 * is some, with two pairs of positions:
 *
 * - The FLOORS are true (floors.c): in front of them lies nothing, for ever.
 * - The MARKS are likely: up to them everything has been handed out.  A read
 *	 starts at the marks and moves them on.  What they have passed wrongly (a
 *	 message whose read was rolled back, or whose sender committed late) lies
 *	 between floors and marks, and is found by sweeps, reads that start at
 *	 the floors: one every SWEEP_INTERVAL, one after each rollback of a read,
 *	 further ones as long as they find something, and any read that comes back
 *	 short.
 *
 * What was written around this extension may lie below the floors; a read that
 * is still short looks there at most once per pgmq.rescan_interval.
 *
 * Both pairs are hints only, nothing of them is on disk.  A slot belongs to a
 * file: a table that is truncated, rewritten or re-created starts anew.  A
 * slot that another queue needs is taken from the queue that was not read for
 * longest, which then starts anew.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "floors.h"

PG_FUNCTION_INFO_V1(pgmq_rescan);

/* setting: pgmq.rescan_interval, in milliseconds */
int			horizon_rescan_interval = 1000;

/* How far floors may lag behind: messages handed out, and microseconds */
#define MOVE_AFTER_MESSAGES 16
#define MOVE_INTERVAL 50000

/*
 * Listing the holders and waiting for each takes time; with hundreds of them
 * floors move the less often.  Microseconds a holder.
 */
#define MOVE_PAUSE 20

/* How long a message may stay behind the marks: microseconds */
#define SWEEP_INTERVAL 50000

/*
 * Sweeps and rescans take at most one part in so many of the time.  That
 * matters only where floors stand still, or where much was written below them.
 */
#define SWEEP_SHARE 10
#define RESCAN_SHARE 100

/*
 * A look from the floors that took no longer costs nothing worth sparing.
 * Under valgrind, where everything takes fifty times as long, all are cheap.
 */
#ifndef CHEAP_SWEEP
#define CHEAP_SWEEP 2000
#endif

/* What handing out a message may take; the rest of a look is walking */
#define MESSAGE_COST 50

#define RESCAN_MICROSECONDS (horizon_rescan_interval * INT64CONST(1000))

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
	int64		rescan_cost;	/* of that one */
	uint64		clean_at;		/* transactions_ended() when nothing lay below the floors, */
	uint64		empty_at;		/* and when there was no message to be had at all */
	TimestampTz empty_until;	/* as long as that does not change */
	int64		sweep_cost;		/* of the last look from the floors, */
	int64		usual_sweep_cost;	/* and the smaller of the last two */
	Floors		floors;
	Floors		marks;
	int64		sweep_fresh;	/* how far the sweep has come that is under way */
	uint32		setbacks;		/* how often something came back in front of the marks */
	int64		last_id;		/* drawn when the floors were last moved */
} Slot;

#define SLOTS_PER_BUCKET 4

typedef struct Bucket
{
	slock_t		mutex;			/* held for a few assignments only */
	Slot		slots[SLOTS_PER_BUCKET];
} Bucket;

#define AMPLE_BUCKETS 1024
#define SCANT_BUCKETS 16

static Bucket *Buckets = NULL;
static int	NumBuckets = 0;

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

Size
horizon_shared_size(bool ample)
{
	return sizeof(Bucket) * number_of_buckets(ample);
}

static void
init_buckets(void *area)
{
	Bucket	   *buckets = area;
	int			i;

	memset(buckets, 0, sizeof(Bucket) * NumBuckets);
	for (i = 0; i < NumBuckets; i++)
		SpinLockInit(&buckets[i].mutex);
}

/* Shared if possible, else this backend's own */
static void
attach(void)
{
	Bucket	   *buckets;

	if (Buckets != NULL)
		return;
	NumBuckets = number_of_buckets(shared_is_ample());
	buckets = shared_area("pgmq-horizon-v1", sizeof(Bucket) * NumBuckets, init_buckets);
	if (buckets == NULL)
	{
		NumBuckets = number_of_buckets(false);
		buckets = MemoryContextAllocExtended(TopMemoryContext, sizeof(Bucket) * NumBuckets, 0);
		init_buckets(buckets);
	}
	Buckets = buckets;
}

static Bucket *
bucket_of(uint64 key)
{
	return &Buckets[murmurhash32((uint32) (key ^ (key >> 32))) % NumBuckets];
}

/*
 * The queue's slot; the caller holds the bucket's mutex.  Without "create"
 * NULL if it has none any more.
 */
static Slot *
find_slot(Bucket *bucket, uint64 key, bool create)
{
	Slot	   *oldest = &bucket->slots[0];
	uint32		generation;
	int			i;

	for (i = 0; i < SLOTS_PER_BUCKET; i++)
	{
		Slot	   *slot = &bucket->slots[i];

		if (slot->key == key)
			return slot;
		if (slot->last_used < oldest->last_used)
			oldest = slot;
	}
	if (!create)
		return NULL;
	generation = oldest->generation + 1;
	memset(oldest, 0, sizeof(*oldest));
	oldest->key = key;
	oldest->generation = generation;
	oldest->floors = oldest->marks = NO_FLOORS;
	oldest->sweep_fresh = PG_INT64_MIN;
	return oldest;
}

static void
start_anew(Slot *slot)
{
	slot->floors = slot->marks = NO_FLOORS;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->empty_until = 0;
	slot->generation++;
}

/* ---- queues that this transaction has read: its rollback asks for a sweep of them ---- */

#define READ_QUEUES 16

/* Fixed size: what follows a rollback must not allocate.  What overflows is left to the sweeps. */
static uint64 Read[READ_QUEUES];
static int	NumRead = 0;

static void
note_read(uint64 key)
{
	int			i;

	for (i = 0; i < NumRead; i++)
	{
		if (Read[i] == key)
			return;
	}
	if (NumRead < READ_QUEUES)
		Read[NumRead++] = key;
}

/*
 * Something has come back in front of the marks; the caller holds the mutex.
 * The next read begins a sweep.  Fresh messages are left to sweeps, which one
 * reader makes at a time: with the mark set back, all of them would walk over
 * what the others hold.  What is due comes before what is fresh, so for that
 * the mark goes back.
 */
static void
set_back(Slot *slot)
{
	slot->marks.due = slot->floors.due;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->next_sweep = 0;
	slot->setbacks++;
}

/* Nothing here can fail: no allocation, no look-up, a spinlock at most. */
static void
ask_for_sweeps(void)
{
	int			i;

	for (i = 0; i < NumRead; i++)
	{
		Bucket	   *bucket = bucket_of(Read[i]);
		Slot	   *slot;

		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, Read[i], false);
		if (slot != NULL)
			set_back(slot);
		SpinLockRelease(&bucket->mutex);
	}
}

/* A transaction or a part of it was rolled back (xact.c) */
void
horizon_rolled_back(void)
{
	if (Buckets != NULL)
		ask_for_sweeps();
}

/* The transaction is over (xact.c) */
void
horizon_forget(void)
{
	NumRead = 0;
}

/* ---- the queue's table ---- */

/* By name: an adopted table may have its columns in another order */
static bool
find_columns(QueueTable *table)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		bool		time = att->atttypid == TIMESTAMPTZOID;

		if (att->attisdropped)
			continue;
		if (att->atttypid == INT8OID && strcmp(NameStr(att->attname), "msg_id") == 0)
			table->id_attno = att->attnum;
		else if (time && strcmp(NameStr(att->attname), "vt") == 0)
			table->vt_attno = att->attnum;
		else if (time && strcmp(NameStr(att->attname), "enqueued_at") == 0)
			table->enqueued_attno = att->attnum;
	}
	return table->id_attno && table->vt_attno && table->enqueued_attno;
}

/*
 * By shape: the first column decides.  An index on vt that holds all messages,
 * as older versions made it, does as well, only slower; one with another
 * predicate than ours is none of ours, and is told by its name.  The first entry
 * must be the earliest.
 */
static bool
find_indexes(QueueTable *table)
{
	List	   *oids = RelationGetIndexList(table->rel);
	Oid			vt_named = name_index_relid(&table->name, "_vt_idx");
	ListCell   *lc;

	foreach(lc, oids)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		AttrNumber	first = index->rd_index->indkey.values[0];

		if (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid)
		{
			if (first == table->id_attno && index->rd_index->indisprimary)
				table->id_index = RelationGetRelid(index);
			else if (first == table->vt_attno && RelationGetRelid(index) == vt_named &&
					 (index->rd_indoption[0] & INDOPTION_DESC) == 0)
				table->vt_index = RelationGetRelid(index);
		}
		index_close(index, AccessShareLock);
	}
	list_free(oids);
	return OidIsValid(table->id_index) && OidIsValid(table->vt_index);
}

/*
 * Whether the caller may take messages.  Who may not must not move marks, nor
 * use up sweeps: a call that fails costs the others nothing.
 */
static bool
may_take(Oid relid)
{
	AclMode		taking = ACL_UPDATE | ACL_DELETE;

	return pg_class_aclcheck(relid, GetUserId(), taking) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK;
}

static bool
held_by_me(Oid relid, LOCKMODE lockmode, bool orstronger)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, lockmode, orstronger);
}

/* Let go of a lock that was taken since horizon_begin() */
static void
let_go(Oid relid, LOCKMODE lockmode)
{
	LOCKTAG		tag;
	bool		released = true;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	while (released && held_by_me(relid, lockmode, false))
		released = LockRelease(&tag, lockmode, false);
}

/*
 * Have a look at the table; false if it can't have floors.  A read takes the
 * lock of its statement here already: a weaker one first would make it wait
 * with that in hand, and deadlock with who waits for a stronger one.
 */
static bool
open_table(const QueueName *name, LOCKMODE lockmode, QueueTable *table)
{
	Oid			relid = name_relid(name, QUEUE_TABLE);

	memset(table, 0, sizeof(*table));
	table->name = *name;
	if (!OidIsValid(relid))
		return false;
	table->locked_before = held_by_me(relid, RowExclusiveLock, true);
	table->rel = try_table_open(relid, lockmode);
	if (table->rel == NULL)
		return false;
	/* What lies in inheritance children can't be looked at here */
	if (table->rel->rd_rel->relkind == RELKIND_RELATION &&
		!table->rel->rd_rel->relhassubclass &&
		may_take(relid) && find_columns(table) && find_indexes(table))
	{
		table->key = ((uint64) MyDatabaseId << 32) | RelationFileNumber(table->rel);
		return true;
	}
	table_close(table->rel, lockmode);
	table->rel = NULL;
	return false;
}

/* ---- one read ---- */

struct Horizon
{
	QueueTable	table;			/* rel is NULL if there is nothing to know */
	bool		indexes_locked_before;
	bool		likely;			/* uses marks and moves them */
	HorizonLook look;
	uint32		generation;
	uint32		setbacks;		/* of the slot, when the look began */
	Floors		floors;			/* as they were known when the read began */
	TimestampTz start_due;
	int64		start_fresh;	/* for a look from the marks only once it has begun */
	int64		look_began;		/* by ticks() */
	int64		sweep_in;		/* this read was spared a sweep, due in so many microseconds */
	uint64		ended;			/* transactions_ended(), before the read */
	TimestampTz empty_until;	/* nothing to be had until then, or else DT_NOBEGIN */
};

/*
 * The floors of others only ever help: each is true by itself, so the highest
 * is the one to keep, unless they were started anew meanwhile.
 */
static void
publish_floors(Horizon *h, const Floors *floors)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	Slot	   *slot;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->floors.fresh = Max(slot->floors.fresh, floors->fresh);
		slot->floors.due = Max(slot->floors.due, floors->due);
	}
	SpinLockRelease(&bucket->mutex);
}

/* See whether the floors can be moved, before this read has written anything. */
static void
maybe_move_floors(Horizon *h)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	int64		now = ticks();
	Slot	   *slot;
	bool		time_for_candidate;
	Floors		floors;
	int			holders;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, true);
	if (slot->last_used == 0)
		slot->last_rescan = now;	/* there were no floors to look below */
	slot->last_used = now;
	h->generation = slot->generation;
	h->floors = slot->floors;
	time_for_candidate = now >= slot->next_move ||
		(slot->handed >= MOVE_AFTER_MESSAGES && now >= slot->no_move_before);
	SpinLockRelease(&bucket->mutex);

	if (h->table.locked_before || (!time_for_candidate && !floors_pending(h->table.key)) ||
		!floors_may_move(&h->table))
		return;
	if (time_for_candidate)
	{
		int64		last_id;
		bool		has_last_id = floors_last_id(&h->table.name, &last_id);

		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, h->table.key, true);
		slot->handed = 0;
		slot->next_move = now + MOVE_INTERVAL;
		if (has_last_id)
			slot->last_id = last_id;
		SpinLockRelease(&bucket->mutex);
	}
	if (floors_move(&h->table, time_for_candidate, &h->floors, &floors, &holders))
		publish_floors(h, &floors);
	if (holders > 0)
	{
		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, h->table.key, true);
		slot->no_move_before = now + (int64) holders * MOVE_PAUSE;
		SpinLockRelease(&bucket->mutex);
	}
}

/* From the floors when it is time for a sweep, else from the marks */
static void
choose_start(Horizon *h)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	int64		now = ticks();
	Slot	   *slot;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, true);
	h->generation = slot->generation;
	h->setbacks = slot->setbacks;
	h->floors = slot->floors;
	h->look = HORIZON_FROM_FLOORS;
	if (h->likely && now < slot->next_sweep)
	{
		h->look = HORIZON_FROM_MARKS;
		h->start_due = Max(slot->floors.due, slot->marks.due);
	}
	else
	{
		h->start_due = slot->floors.due;
		h->start_fresh = slot->floors.fresh;
		if (h->likely)
			h->start_fresh = Max(h->start_fresh, slot->sweep_fresh);
		/* One sweep at a time */
		if (h->likely)
			slot->next_sweep = now + SWEEP_INTERVAL;
	}
	SpinLockRelease(&bucket->mutex);
	h->look_began = ticks();
}

/* Whether there are such locks on the indexes as our statements take and keep */
static bool
has_locked_indexes(const QueueTable *table)
{
	return held_by_me(table->id_index, RowShareLock, false) ||
		held_by_me(table->id_index, RowExclusiveLock, false) ||
		held_by_me(table->vt_index, RowShareLock, false) ||
		held_by_me(table->vt_index, RowExclusiveLock, false);
}

/* Whether a statement that touches no row may call functions of the users' */
static bool
runs_code_of_others(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return rel->rd_rel->relrowsecurity ||
		(triggers != NULL &&
		 (triggers->trig_update_before_statement || triggers->trig_update_after_statement ||
		  triggers->trig_delete_before_statement || triggers->trig_delete_after_statement));
}

/*
 * Until when the queue is known to be empty; DT_NOBEGIN: not known.  Who has no right
 * to all that a read or a pop does, or has written to the queue itself, or may write
 * nothing, or has triggers for empty statements, must go and look.
 */
static TimestampTz
known_empty(const Horizon *h)
{
	AclMode		all = ACL_SELECT | ACL_UPDATE | ACL_DELETE;
	Oid			relid = RelationGetRelid(h->table.rel);
	Bucket	   *bucket = bucket_of(h->table.key);
	TimestampTz until = DT_NOBEGIN;
	Slot	   *slot;

	if (h->table.locked_before || IsolationUsesXactSnapshot() || XactReadOnly ||
		runs_code_of_others(h->table.rel) ||
		pg_class_aclmask(relid, GetUserId(), all, ACLMASK_ALL) != all)
		return DT_NOBEGIN;
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot != NULL && slot->empty_at == h->ended && slot->empty_until > 0)
		until = slot->empty_until;
	SpinLockRelease(&bucket->mutex);
	return until;
}

/*
 * Begin a read.  "everything" says that it takes whatever is visible: a read
 * with a condition passes messages by, so it neither uses the marks nor moves
 * them; nor does one under row security or with a fixed snapshot, which
 * doesn't see all there is.
 */
Horizon *
horizon_begin(const QueueName *name, bool everything)
{
	Horizon    *h = palloc0(sizeof(Horizon));

	h->floors = NO_FLOORS;
	h->start_due = DT_NOBEGIN;
	h->start_fresh = PG_INT64_MIN;
	h->look = HORIZON_EVERYWHERE;
	/*
	 * A standby doesn't know who holds locks on its primary, and what it
	 * believed would outlive its promotion.  The statement fails there anyway.
	 */
	if (RecoveryInProgress() || !open_table(name, RowExclusiveLock, &h->table))
		return h;
	attach();
	h->ended = transactions_ended();
	h->indexes_locked_before = has_locked_indexes(&h->table);
	h->likely = everything && !IsolationUsesXactSnapshot() &&
		!h->table.rel->rd_rel->relrowsecurity;
	h->empty_until = known_empty(h);
	if (h->empty_until == DT_NOBEGIN)
		maybe_move_floors(h);
	choose_start(h);
	return h;
}

/*
 * Whether nothing need be looked at: no transaction has ended since somebody found
 * the queue empty.  Then "outlook", which may be NULL, is what was found.
 */
bool
horizon_is_empty(const Horizon *h, TimestampTz moment, Outlook *outlook)
{
	if (h->empty_until <= moment)
		return false;
	if (outlook != NULL)
	{
		outlook->next = h->empty_until;
		outlook->conclusive = outlook->thorough = true;
		outlook->ended = h->ended;
	}
	return true;
}

/* Whether anything is known about this table */
bool
horizon_knows(const Horizon *h)
{
	return h->table.rel != NULL;
}

/*
 * Whether a deferred message may be due, and in what range of vt.  This looks
 * at the index itself, for a fraction of what a statement costs; mostly there
 * is none.
 */
bool
horizon_due(Horizon *h, TimestampTz now, TimestampTz *from, TimestampTz *until)
{
	Snapshot	snapshot;
	TimestampTz vt;
	bool		found;

	*from = h->start_due;
	*until = now;
	if (*from > *until)
		return false;
	if (h->table.rel == NULL)
		return true;
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
								GetTransactionSnapshot() : GetLatestSnapshot());
	found = floors_earliest_due(&h->table, snapshot, *from, *until, &vt);
	UnregisterSnapshot(snapshot);
	/* Others may pass by what this read takes: that takes their mark back. */
	if (found)
		note_read(h->table.key);
	return found;
}

/*
 * In what range of msg_id to look for fresh messages; false if there is none.
 * A reader that wants "limit" messages (0: no limit) also reserves as many
 * ids, so that one who comes before it has locked anything starts behind them.
 * Only ids that were drawn are reserved: a mark must not run ahead of what is
 * sent later.
 */
bool
horizon_fresh(Horizon *h, int64 limit, int64 *from, int64 *until)
{
	Bucket	   *bucket;
	Slot	   *slot;

	*from = h->start_fresh;
	*until = PG_INT64_MAX;
	if (h->look == HORIZON_FROM_MARKS)
	{
		bucket = bucket_of(h->table.key);
		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, h->table.key, false);
		if (slot != NULL && slot->generation == h->generation)
		{
			*from = Max(h->floors.fresh, slot->marks.fresh);
			if (limit > 0 && limit < slot->last_id && *from <= slot->last_id - limit)
				slot->marks.fresh = *from + limit;
		}
		SpinLockRelease(&bucket->mutex);
		h->start_fresh = *from;
		note_read(h->table.key);
	}
	else if (h->likely)
		note_read(h->table.key);
	return true;
}

/*
 * After a look from the floors or the marks; the caller holds the mutex.  Looks
 * that were on their way when something came back must not move the due mark
 * past it: they haven't seen what lies there.
 */
static void
move_marks(Slot *slot, const HorizonFinds *finds, const Horizon *h)
{
	if (finds->fresh_messages > 0)
		slot->marks.fresh = Max(slot->marks.fresh, finds->fresh_highest + 1);
	if (finds->due_exhausted && slot->setbacks == h->setbacks)
		slot->marks.due = Max(slot->marks.due, finds->due_until);
}

/*
 * After a sweep that took all it wanted: where it found something in front of
 * the marks there may be more, right behind, and the next read goes on from
 * there.  Else the sweep is over.
 */
static void
after_sweep(Slot *slot, const HorizonFinds *finds, const Horizon *h, int64 now, int64 cost)
{
	int64		next = finds->fresh_highest + 1;

	/* One long look may have had to plan, or to wait for a processor */
	slot->usual_sweep_cost = Min(slot->sweep_cost, cost);
	slot->sweep_cost = cost;
	if (slot->setbacks != h->setbacks)
		return;					/* begin anew, at once */
	if (!finds->due_exhausted)
	{
		/* There is more that is due, and what is fresh is not swept yet */
		set_back(slot);
		return;
	}
	if (finds->fresh_messages > 0 && !finds->fresh_exhausted && next < slot->marks.fresh)
	{
		slot->sweep_fresh = next;
		slot->next_sweep = 0;
		return;
	}
	slot->sweep_fresh = PG_INT64_MIN;
	slot->next_sweep = now + Max(SWEEP_INTERVAL, slot->usual_sweep_cost * SWEEP_SHARE);
}

/* The look is over: move the marks on, and say when to sweep and rescan again. */
void
horizon_found(Horizon *h, const HorizonFinds *finds)
{
	Bucket	   *bucket;
	Slot	   *slot;
	int64		now;
	int64		cost;

	if (h->table.rel == NULL)
		return;
	bucket = bucket_of(h->table.key);
	now = ticks();
	cost = Max(now - h->look_began - finds->messages * MESSAGE_COST, 0);

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->handed += finds->messages;
		if (h->likely)
			move_marks(slot, finds, h);
		if (h->likely && h->look == HORIZON_FROM_FLOORS)
			after_sweep(slot, finds, h, now, cost);
	}
	SpinLockRelease(&bucket->mutex);
}

/*
 * The time of the last rescan is kept, not that of the next: each session's own
 * setting decides how long it puts up with it.  0 means every time, whatever it costs.
 */
static bool
rescan_is_due(const Horizon *h, const Slot *slot, int64 now)
{
	if (h->floors.fresh == PG_INT64_MIN && h->floors.due == DT_NOBEGIN)
		return false;			/* there is nothing below */
	return horizon_rescan_interval == 0 ||
		now - slot->last_rescan >= Max(RESCAN_MICROSECONDS, slot->rescan_cost * RESCAN_SHARE);
}

/*
 * Whether there is anything below the floors.  Then they are wrong: others
 * wrote below them, and may have written more, so all start anew.  This looks
 * at what there is, not at what this read would take: one with a condition, or
 * under row security, must not use up a rescan that the others count on.
 */
static bool
look_below_floors(Horizon *h)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	int64		began = ticks();
	bool		wrong = floors_are_wrong(&h->table, &h->floors);
	Slot	   *slot;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->rescan_cost = ticks() - began;
		if (wrong)
		{
			start_anew(slot);
			h->generation = slot->generation;
		}
		else
			slot->clean_at = h->ended;
	}
	SpinLockRelease(&bucket->mutex);
	if (wrong)
	{
		h->look = HORIZON_FROM_FLOORS;
		h->floors = NO_FLOORS;
		h->start_due = DT_NOBEGIN;
		h->start_fresh = PG_INT64_MIN;
	}
	return wrong;
}

/*
 * The read is short of messages: whether to look further in front, where
 * messages are not likely to be, and then where none can be but for what
 * others wrote.  Not again so soon where that takes long.
 */
bool
horizon_look_again(Horizon *h)
{
	Bucket	   *bucket;
	Slot	   *slot;
	int64		now = ticks();
	bool		again = false;
	bool		rescan = false;

	if (h->look == HORIZON_EVERYWHERE)
		return false;
	bucket = bucket_of(h->table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot == NULL || slot->generation != h->generation)
		h->sweep_in = 1;		/* begin anew */
	else if (h->start_fresh > h->floors.fresh || h->start_due > h->floors.due)
	{
		/* It began at the marks as they were then, or went on with a sweep */
		again = slot->usual_sweep_cost <= CHEAP_SWEEP || now >= slot->next_sweep;
		if (!again)
			h->sweep_in = slot->next_sweep - now;
		h->look = HORIZON_FROM_FLOORS;
		h->start_due = h->floors.due;
		h->start_fresh = h->floors.fresh;
		h->setbacks = slot->setbacks;
	}
	else
	{
		h->look = HORIZON_FROM_FLOORS;	/* or from marks that are the same */
		rescan = rescan_is_due(h, slot, now);
		if (rescan)
			slot->last_rescan = now;	/* nobody else need do it meanwhile */
	}
	SpinLockRelease(&bucket->mutex);
	if (rescan)
		again = look_below_floors(h);
	h->look_began = ticks();
	return again;
}

/*
 * How many messages there are to be taken, up to "limit", in this look: one
 * that takes nothing.  Call horizon_look_again() if there is none.
 */
int64
horizon_peek(Horizon *h, TimestampTz moment, int64 limit)
{
	HorizonFinds finds = {0};
	TimestampTz due_from;
	Snapshot	snapshot;
	int64		from;
	int64		until;
	bool		due = horizon_due(h, moment, &due_from, &finds.due_until);

	(void) horizon_fresh(h, 0, &from, &until);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (due)
		finds.messages = floors_takeable_due(&h->table, snapshot, due_from,
											 finds.due_until, limit);
	if (finds.messages < limit)
		finds.messages += floors_takeable_fresh(&h->table, snapshot, from, until,
												limit - finds.messages);
	UnregisterSnapshot(snapshot);
	/* A message that is seen stays where it is, in front of the marks or not. */
	finds.due_exhausted = finds.fresh_exhausted = !due;
	if (finds.messages == 0)
		horizon_found(h, &finds);
	return finds.messages;
}

/*
 * After a read that wanted something, or a peek: when there is a reason for another,
 * and how sure that is.  "found" is how many messages there were: only if there was
 * none is the queue empty.  False if nothing can be told about this table.
 */
bool
horizon_outlook(Horizon *h, TimestampTz moment, int64 found, Outlook *outlook)
{
	Bucket	   *bucket;
	Slot	   *slot;
	Snapshot	snapshot;
	bool		clean;

	if (h->table.rel == NULL)
		return false;
	snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
								GetTransactionSnapshot() : GetLatestSnapshot());
	if (!floors_earliest_due(&h->table, snapshot, moment + 1, outlook->until, &outlook->next))
		outlook->next = DT_NOEND;
	UnregisterSnapshot(snapshot);
	outlook->conclusive = h->sweep_in == 0;
	if (!outlook->conclusive)
		outlook->next = Min(outlook->next, GetCurrentTimestamp() + Max(h->sweep_in, 1000));

	bucket = bucket_of(h->table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	clean = slot != NULL && slot->generation == h->generation &&
		(slot->clean_at == h->ended ||
		 (h->floors.fresh == PG_INT64_MIN && h->floors.due == DT_NOBEGIN));
	outlook->thorough = found == 0 && clean && outlook->conclusive &&
		h->look == HORIZON_FROM_FLOORS && !runs_code_of_others(h->table.rel);
	if (outlook->thorough && h->likely && !h->table.locked_before)
	{
		slot->empty_at = h->ended;
		slot->empty_until = Min(outlook->until, outlook->next);
	}
	SpinLockRelease(&bucket->mutex);
	outlook->ended = h->ended;
	return true;
}

/*
 * The read is over.  If it found nothing and its transaction has written
 * nothing at all, let go of the locks that it and its statements took: a
 * session that polls inside a transaction must not hold up the floors.  No row
 * was touched, so there is nothing that the lock still protects.  The locks on
 * indexes go with it: REINDEX takes the table's first, and would deadlock with
 * the next read of a session that kept only the others.  What a trigger has
 * locked is not ours to release.
 */
void
horizon_end(Horizon *h, uint64 messages)
{
	Oid			relid;
	bool		release;

	if (h->table.rel == NULL)
		return;
	relid = RelationGetRelid(h->table.rel);
	release = messages == 0 && !h->table.locked_before && !h->indexes_locked_before &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		!runs_code_of_others(h->table.rel);
	table_close(h->table.rel, NoLock);
	if (!release)
		return;
	let_go(h->table.id_index, RowShareLock);
	let_go(h->table.id_index, RowExclusiveLock);
	let_go(h->table.vt_index, RowShareLock);
	let_go(h->table.vt_index, RowExclusiveLock);
	let_go(relid, RowExclusiveLock);
}

/*
 * pgmq.rescan(queue_name text) -> void
 *
 * The next read looks everywhere.  That costs it something, so this is for who
 * may read the queue.
 */
Datum
pgmq_rescan(PG_FUNCTION_ARGS)
{
	QueueName	name;
	QueueTable	table;
	Bucket	   *bucket;
	Slot	   *slot;

	name_from_arg(fcinfo, 0, &name);
	name_require_queue(&name);
	if (!may_take(name_relid(&name, QUEUE_TABLE)))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE,
					   get_rel_name(name_relid(&name, QUEUE_TABLE)));
	if (RecoveryInProgress() || !open_table(&name, AccessShareLock, &table))
		PG_RETURN_VOID();
	attach();
	bucket = bucket_of(table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, table.key, false);
	if (slot != NULL)
		start_anew(slot);
	SpinLockRelease(&bucket->mutex);
	table_close(table.rel, AccessShareLock);
	PG_RETURN_VOID();
}
