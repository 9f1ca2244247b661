/*
 * horizon.c
 *	  Where a read may start.
 *
 * A read that began at the start of the indexes would scan everything that was
 * consumed and cannot be vacuumed yet.  It would also scan every message that
 * other readers hold.  So each queue has a slot, in shared memory if there is
 * some, with two pairs of positions:
 *
 * - The FLOORS are true (floors.c): below them there is no message, now or
 *   later.
 * - The MARKS are likely: up to them everything has been handed out.  A read
 *	 starts at the marks and moves them on.  They may skip a message wrongly:
 *	 its read was rolled back, or its sender committed late.  Such a message is
 *	 between floors and marks.  Sweeps find it, which are reads that start at
 *	 the floors.  There is one every SWEEP_INTERVAL, one after each rollback of
 *	 a read, and further ones as long as they find something.  Any short read
 *	 sweeps, too.
 *
 * Rows that were not written by our functions may be below the floors.  A read
 * that is still short looks there at most once per pgmq.rescan_interval.
 *
 * Both pairs are hints only; nothing of them is on disk.  A slot belongs to a
 * file: a table that is truncated, rewritten or re-created starts anew.  If
 * another queue needs a slot, it takes that of the queue that was not read for
 * longest, which then starts anew.
 *
 * A partitioned queue has one slot, too: its positions are those of the queue,
 * not of a partition.  A read that starts at the marks looks only into
 * partitions that are likely to have messages.  A sweep looks into all that may
 * have some.  So only sweeps move the due mark of a partitioned queue.
 */
#include "pgmq.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_rusage.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "position/floors.h"
#include "position/look.h"

PG_FUNCTION_INFO_V1(pgmq_rescan);

/* setting: pgmq.rescan_interval, in milliseconds */
int			horizon_rescan_interval = 1000;

/* How far floors may lag behind: messages handed out, and microseconds */
#define MOVE_AFTER_MESSAGES 16
#define MOVE_INTERVAL 50000

/*
 * Listing the holders and waiting for each takes time.  With hundreds of them
 * floors move less often.  Microseconds for each holder.
 */
#define MOVE_PAUSE 20

/* Looking into many partitions takes time as well: microseconds for each partition. */
#define MOVE_PAUSE_LEAF 150

/* How long a message may stay below the marks: microseconds */
#define SWEEP_INTERVAL 50000

/*
 * Sweeps and rescans take at most one part in so many of the time.  That
 * matters only if floors cannot move, or if many rows were written below them.
 */
#define SWEEP_SHARE 10
#define RESCAN_SHARE 100

/*
 * A look from the floors that takes no longer than this is cheap and never left
 * out.  Under valgrind, where everything takes fifty times as long, all are
 * cheap.
 */
#ifndef CHEAP_SWEEP
#define CHEAP_SWEEP 2000
#endif
#define CHEAP_LEAF 50

/* Time for handing out a message; the rest of a look is scanning */
#define MESSAGE_COST 50

/* Time for reading a block that is not in the server's memory */
#define BLOCK_COST 50

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

#define AMPLE_BUCKETS 1024
#define SCANT_BUCKETS 16

static Bucket *Buckets = NULL;
static int	NumBuckets = 0;

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

static Size
size_of_buckets(bool ample)
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

static const SharedUse positions = {
	"pgmq-horizon-v3", size_of_buckets, init_buckets,
	"could not allocate shared memory for queue positions",
	"This session keeps its own."
};

/* Called while the library is loaded */
void
horizon_init(void)
{
	shared_register(&positions);
}

/* Shared if possible, else this backend's own */
static void
attach(void)
{
	Bucket	   *buckets;

	if (Buckets != NULL)
		return;
	NumBuckets = number_of_buckets(shared_is_ample());
	buckets = shared_area(&positions);
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
	memset(oldest, 0, sizeof(*oldest));
	oldest->key = key;
	oldest->generation = ++bucket->last_generation;
	oldest->floors = oldest->marks = oldest->sent = NO_FLOORS;
	oldest->sweep_fresh = PG_INT64_MIN;
	return oldest;
}

static void
start_anew(Bucket *bucket, Slot *slot)
{
	slot->floors = slot->marks = slot->sent = NO_FLOORS;
	slot->sweep_fresh = PG_INT64_MIN;
	slot->empty_until = 0;
	slot->generation = ++bucket->last_generation;
}

/* ---- queues that this transaction has read: its rollback asks for a sweep of them ---- */

#define READ_QUEUES 16

/* Fixed size: code after a rollback must not allocate.  Sweeps find what does not fit. */
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
 * A message has become available again below the marks; the caller holds the
 * mutex.  The next read begins a sweep.  Fresh messages are left to sweeps,
 * which one reader makes at a time.  If the fresh mark were set back, all
 * readers would scan what the others hold.  What is due is taken before what is
 * fresh, so the due mark is set back.
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

/*
 * Whether the caller may take messages.  A caller that may not must not move
 * marks or use up sweeps: a call that fails costs the others nothing.
 */
bool
horizon_may_take(Oid relid)
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

/* Release a lock that was taken since horizon_begin() */
static void
let_go(Oid relid, LOCKMODE lockmode)
{
	LOCKTAG		tag;
	bool		released = true;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	while (released && held_by_me(relid, lockmode, false))
		released = LockRelease(&tag, lockmode, false);
}

/* Such a table has no file, and no file has this key. */
static uint64
partitioned_key(Oid relid)
{
	return ~(((uint64) MyDatabaseId << 32) | relid);
}

/* False if a look into it is not possible */
static bool
describe_table(QueueTable *table)
{
	Relation	rel = table->rel;

	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		table->key = partitioned_key(RelationGetRelid(rel));
		table->parts = partitions_open(rel);
		if (table->parts == NULL || !table->parts->looks)
			return false;
		/* A look sets this for itself; the floors cover everything that is sent until then */
		table->parts->reach = KEY_MAX;
		return true;
	}
	table->key = ((uint64) MyDatabaseId << 32) | RelationFileNumber(rel);
	/* Rows in inheritance children cannot be seen here */
	return relcheck_is_heap(rel) && !rel->rd_rel->relhassubclass &&
		place_describe(rel, &table->place);
}

/*
 * Open the table; false if it cannot have floors.  A read takes the lock of its
 * statement here already.  With a weaker lock first it would hold that while it
 * waits, and deadlock with a session that waits for a stronger one.
 */
static bool
open_table(const QueueName *name, char prefix, LOCKMODE lockmode, QueueTable *table)
{
	Oid			relid = name_relid(name, prefix);
	Oid			queue = prefix == QUEUE_TABLE ? relid : name_relid(name, QUEUE_TABLE);

	memset(table, 0, sizeof(*table));
	table->name = *name;
	table->prefix = prefix;
	if (!OidIsValid(relid))
		return false;
	table->locked_before = held_by_me(relid, RowExclusiveLock, true);
	table->rel = try_table_open(relid, lockmode);
	if (table->rel == NULL)
		return false;
	if (horizon_may_take(queue) && describe_table(table))
		return true;
	table_close(table->rel, lockmode);
	table->rel = NULL;
	table->parts = NULL;
	return false;
}

/* ---- one read ---- */

/* How often a look goes from one partition to another for the sake of the order */
#define DUE_TURNS 16

/* An empty read needs a partition or two */
#define LEAVES 4

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
	bool		doubted;		/* as the slot said then */
	int64		work_before;	/* work_done() then */
	int64		sweep_in;		/* this read was spared a sweep, due in so many microseconds */
	uint64		ended;			/* transactions_ended(), before the read */
	TimestampTz empty_until;	/* no message is available until then; or DT_NOBEGIN */
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
	bool		stated;			/* this read has run a statement for what is fresh */

	/* Which partitions had a statement, for their locks */
	Leaf	   *leaves[LEAVES];
	int			nleaves;		/* more than LEAVES: not all are known, or one was locked before */
};

/*
 * Take over the floors of other sessions.  Each is true by itself, so the
 * highest one is kept, unless they were started anew meanwhile.
 */
static void
publish_floors(Horizon *h, const Floors *floors, const Floors *sent)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	Slot	   *slot;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->floors.fresh = Max(slot->floors.fresh, floors->fresh);
		slot->floors.due = Max(slot->floors.due, floors->due);
		slot->sent.fresh = Max(slot->sent.fresh, sent->fresh);
		slot->sent.due = Max(slot->sent.due, sent->due);
	}
	SpinLockRelease(&bucket->mutex);
}

/* Try to move the floors, before this read has written anything. */
static void
maybe_move_floors(Horizon *h)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	int64		now = ticks();
	Slot	   *slot;
	bool		time_for_candidate;
	Floors		floors;
	Floors		sent = NO_FLOORS;
	int			holders;
	int			leaves = h->table.parts ? h->table.parts->nleaves : 0;

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
		bool		has_last_id = floors_last_id(&h->table, &last_id);

		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, h->table.key, true);
		slot->handed = 0;
		slot->next_move = now + MOVE_INTERVAL;
		if (has_last_id)
			slot->last_id = last_id;
		/* A sequence that was set back gives ids below the floor */
		if (has_last_id && last_id < PG_INT64_MAX && last_id + 1 < h->floors.fresh &&
			slot->generation == h->generation)
			start_anew(bucket, slot);
		SpinLockRelease(&bucket->mutex);
	}
	if (floors_move(&h->table, time_for_candidate, &h->floors, &floors, &sent, &holders))
		publish_floors(h, &floors, &sent);
	if (holders > 0 || (leaves > 0 && time_for_candidate))
	{
		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, h->table.key, true);
		slot->no_move_before = now + (int64) holders * MOVE_PAUSE + (int64) leaves * MOVE_PAUSE_LEAF;
		SpinLockRelease(&bucket->mutex);
	}
}

/*
 * How far partitions can be filled by now.  This look need not see what is sent
 * from here on.
 */
static int64
find_reach(const Horizon *h)
{
	int64		last_id;

	if (!h->table.parts->by_id)
		return GetCurrentTimestamp();
	return floors_last_id(&h->table, &last_id) ? last_id : KEY_MAX;
}

/* Time for looking into many partitions, which does not count as cost of a sweep. */
static int64
cheap_sweep(const Horizon *h)
{
	return CHEAP_SWEEP + (h->table.parts ? h->table.parts->nleaves * CHEAP_LEAF : 0);
}

/*
 * The work that this process has done by now, in microseconds: time of a processor,
 * and blocks that were read.  Waiting for a processor does not count.
 */
static int64
work_done(void)
{
	PGRUsage	usage;

	pg_rusage_init(&usage);
	return (usage.ru.ru_utime.tv_sec + usage.ru.ru_stime.tv_sec) * USECS_PER_SEC +
		usage.ru.ru_utime.tv_usec + usage.ru.ru_stime.tv_usec +
		pgBufferUsage.shared_blks_read * BLOCK_COST;
}

static void
begin_look(Horizon *h)
{
	if (h->table.parts != NULL)
		h->table.parts->reach = h->look == HORIZON_FROM_FLOORS && !h->rescans ? find_reach(h) : KEY_MAX;
	h->due_begun = h->fresh_begun = false;
	h->ndue = h->due_turns = h->nranges = 0;
	h->look_began = ticks();
	h->work_before = h->doubted ? work_done() : 0;
}

/*
 * What this look has cost, beside the messages that it has handed out.  On a busy
 * machine, time by the clock includes the time for which this process waited for a
 * processor.  Measuring the work takes longer than reading the clock, so it is done only
 * in doubt.
 */
static int64
look_cost(const Horizon *h, int64 now, int64 messages)
{
	int64		cost = now - h->look_began;

	if (h->doubted)
		cost = Min(cost, work_done() - h->work_before);
	return Max(cost - messages * MESSAGE_COST, 0);
}

/* Begin a look: from the floors if it is time for a sweep, otherwise from the marks */
static void
choose_start(Horizon *h)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	int64		now = ticks();
	Slot	   *slot;
	Floors		sent;
	uint32		due_rounds;

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
		h->doubted = slot->doubted;
		h->start_due = slot->floors.due;
		h->start_fresh = slot->floors.fresh;
		if (h->likely)
			h->start_fresh = Max(h->start_fresh, slot->sweep_fresh);
		/* One sweep at a time */
		if (h->likely)
			slot->next_sweep = now + SWEEP_INTERVAL;
	}
	sent = slot->sent;
	due_rounds = slot->due_rounds;
	SpinLockRelease(&bucket->mutex);
	if (h->table.parts != NULL)
	{
		partitions_refresh(h->table.parts, h->generation, &sent);
		h->all_due = h->likely && h->table.parts->due_rounds != due_rounds;
		h->table.parts->due_rounds = due_rounds;
	}
	begin_look(h);
}

/* Whether there are such locks on the table and its indexes as our sub-selects take and keep */
static bool
has_locked_indexes(const QueueTable *table)
{
	return held_by_me(RelationGetRelid(table->rel), RowShareLock, false) ||
		held_by_me(table->place.id_index, RowShareLock, false) ||
		held_by_me(table->place.id_index, RowExclusiveLock, false) ||
		held_by_me(table->place.vt_index, RowShareLock, false) ||
		held_by_me(table->place.vt_index, RowExclusiveLock, false);
}

/* Whether a statement that touches no row may call functions of the users'; that of groups does nothing then */
static bool
runs_code_of_others(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_ROW(trigger->tgtype) &&
			(TRIGGER_FOR_UPDATE(trigger->tgtype) || TRIGGER_FOR_DELETE(trigger->tgtype)) &&
			strcmp(trigger->tgname, TRIGGER_REMOVED) != 0)
			return true;
	}
	return rel->rd_rel->relrowsecurity;
}

/*
 * Until when the queue is known to be empty; DT_NOBEGIN: not known.  Some callers
 * must always look: those without all rights for a read or a pop, those that have
 * written to the queue themselves, and read-only transactions.  Triggers for empty
 * statements are another reason to look.
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
 * Begin a read.  "everything" says that it takes all that is visible.  A read
 * with a condition skips messages, so it neither uses the marks nor moves them.
 * The same is true under row security or with a fixed snapshot, where a read
 * does not see all messages. "ours" says that the lock that we hold on the
 * table belongs to this very call, which has written nothing yet.
 */
Horizon *
horizon_begin(const QueueName *name, char prefix, bool everything, bool ours)
{
	Horizon    *h = palloc0(sizeof(Horizon));

	h->floors = NO_FLOORS;
	h->start_due = DT_NOBEGIN;
	h->start_fresh = PG_INT64_MIN;
	h->look = HORIZON_EVERYWHERE;
	/*
	 * A standby does not know the locks of its primary, and its floors would
	 * outlive its promotion.  The statement fails there anyway.
	 */
	if (RecoveryInProgress() || !open_table(name, prefix, RowExclusiveLock, &h->table))
		return h;
	if (ours)
		h->table.locked_before = false;
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

/* Its locks are for horizon_end() to release, unless they were there before. */
static void
note_leaf(Horizon *h, Leaf *leaf)
{
	int			i;

	if (leaf == NULL || h->nleaves > LEAVES)
		return;
	for (i = 0; i < h->nleaves; i++)
	{
		if (h->leaves[i]->relid == leaf->relid)
			return;
	}
	if (h->nleaves == LEAVES || held_by_me(leaf->relid, RowShareLock, true))
		h->nleaves = LEAVES + 1;
	else
		h->leaves[h->nleaves++] = leaf;
}

/* The indexes that the positions belong to; false if nothing is known about the table */
bool
horizon_indexes(const Horizon *h, Oid *id_index, Oid *vt_index)
{
	if (h->table.rel == NULL || h->table.parts != NULL)
		return false;
	*id_index = h->table.place.id_index;
	*vt_index = h->table.place.vt_index;
	return true;
}

/*
 * Whether no look is necessary: no transaction has ended since a session found
 * the queue empty.  Then "outlook", which may be NULL, gets what that session
 * found.
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

/* In how many microseconds the sweep is due that this read has left out; 0: it has left out none */
int64
horizon_sweep_in(const Horizon *h)
{
	return h->sweep_in;
}

/* Whether horizon_peek() can look into this table */
bool
horizon_knows(const Horizon *h)
{
	return h->table.rel != NULL && h->table.parts == NULL;
}

/*
 * In a partitioned queue: take from the leaf with the earliest message that is
 * due, up to where another leaf has earlier ones, and so on.  After too many
 * changes between leaves, the rest of a leaf is taken at once.
 */
static bool
next_due_leaf(Horizon *h, TimestampTz now, HorizonRange *range)
{
	Snapshot	snapshot;
	DueLeaf    *next;

	if (!h->due_begun)
	{
		snapshot = look_snapshot();
		h->ndue = look_due_leaves(&h->table, snapshot,
								  h->look == HORIZON_FROM_MARKS && !h->all_due, h->likely, h->start_due, now, &h->due);
		UnregisterSnapshot(snapshot);
	}
	next = look_next_due(h->due, &h->ndue, now, &range->until);
	if (next == NULL)
		return false;
	if (++h->due_turns > DUE_TURNS)
		range->until = now;
	range->leaf = next->leaf;
	range->from = next->from;
	next->from = range->until + 1;
	next->stale = true;
	note_leaf(h, range->leaf);
	return true;
}

/*
 * Where a deferred message may be due, and in what range of vt; false if there
 * is none, or none any more.  This looks at the index itself, which costs a
 * fraction of a statement; mostly there is none.
 */
bool
horizon_next_due(Horizon *h, TimestampTz now, HorizonRange *range)
{
	Snapshot	snapshot;
	TimestampTz vt;
	bool		found;

	range->leaf = NULL;
	range->from = h->start_due;
	range->until = now;
	if (range->from > range->until)
		return false;
	if (h->table.parts != NULL)
		found = next_due_leaf(h, now, range);
	else if (h->due_begun)
		return false;
	else if (h->table.rel == NULL)
		found = true;
	else
	{
		snapshot = look_snapshot();
		found = look_earliest_due(&h->table, snapshot, range->from, range->until, &vt);
		UnregisterSnapshot(snapshot);
	}
	h->due_begun = true;
	/* Other readers may skip what this read takes; if it is rolled back, the mark is set back. */
	if (found && h->table.rel != NULL)
		note_read(h->table.key);
	return found;
}

/*
 * From which msg_id to look for fresh messages.  A reader that wants "limit"
 * messages (0: no limit) also reserves as many ids.  So a reader that comes
 * before it has locked anything starts above them.  Only ids that were drawn
 * are reserved: a mark must not move beyond what is sent later.
 */
static int64
fresh_start(Horizon *h, int64 limit)
{
	int64		from = h->start_fresh;
	Bucket	   *bucket;
	Slot	   *slot;

	if (h->look == HORIZON_FROM_MARKS)
	{
		bucket = bucket_of(h->table.key);
		SpinLockAcquire(&bucket->mutex);
		slot = find_slot(bucket, h->table.key, false);
		if (slot != NULL && slot->generation == h->generation)
		{
			from = Max(h->floors.fresh, slot->marks.fresh);
			if (limit > 0 && limit < slot->last_id && from <= slot->last_id - limit)
				slot->marks.fresh = from + limit;
		}
		SpinLockRelease(&bucket->mutex);
		h->start_fresh = from;
		note_read(h->table.key);
	}
	else if (h->likely)
		note_read(h->table.key);
	return from;
}

/*
 * In a partitioned queue: take from the leaf with the lowest fresh messages, up
 * to where another leaf has lower ones, and so on.  A read always runs at least
 * one statement, which raises the error of a missing privilege.
 */
static bool
next_fresh_leaf(Horizon *h, int64 from, HorizonRange *range)
{
	bool		likely = h->look == HORIZON_FROM_MARKS;
	IdRange    *next;

	if (!h->fresh_begun)
		h->nranges = partitions_ids(h->table.parts, from, PG_INT64_MAX, likely, &h->ranges);
	next = look_next_range(h->ranges, h->nranges, likely, &range->until);
	if (next != NULL)
	{
		range->leaf = next->leaf;
		range->from = next->next;
		next->done = range->until == next->last;
		next->next = next->done ? next->last : range->until + 1;
		next->seen = false;
	}
	else if (h->stated)
		return false;
	else
	{
		range->leaf = h->table.parts->nleaves > 0 ? &h->table.parts->leaves[0] : NULL;
		range->from = from;
	}
	h->stated = true;
	note_leaf(h, range->leaf);
	return true;
}

/*
 * Where to look for "limit" fresh messages (0: no limit), and in what range of
 * msg_id; false if there is none, or none any more.
 */
bool
horizon_next_fresh(Horizon *h, int64 limit, HorizonRange *range)
{
	bool		begun = h->fresh_begun;
	bool		found = !begun;

	range->leaf = NULL;
	range->from = begun ? PG_INT64_MAX : fresh_start(h, limit);
	range->until = PG_INT64_MAX;
	if (h->table.parts != NULL)
		found = next_fresh_leaf(h, range->from, range);
	h->fresh_begun = true;
	return found;
}

/*
 * After a look from the floors or the marks; the caller holds the mutex.  A
 * look that began before a message became available again must not move the due
 * mark past it, because it has not seen the message.  The same is true of looks
 * from the marks that left partitions out.
 */
static void
move_marks(Slot *slot, const HorizonFinds *finds, const Horizon *h)
{
	if (finds->fresh_messages > 0)
		slot->marks.fresh = Max(slot->marks.fresh, finds->fresh_highest + 1);
	if (finds->due_exhausted && slot->setbacks == h->setbacks &&
		(h->table.parts == NULL || h->look == HORIZON_FROM_FLOORS))
		slot->marks.due = Max(slot->marks.due, finds->due_until);
}

/*
 * One long look may have had to plan, so the smaller of two counts.  By the clock a
 * look is also long when the process waited for a processor.  That is only a reason to
 * measure the work of the next one.
 */
static void
note_cost(Slot *slot, const Horizon *h, int64 cost)
{
	bool		cheap = cost <= cheap_sweep(h);

	if (cheap || h->doubted)
	{
		slot->usual_sweep_cost = Min(slot->sweep_cost, cost);
		slot->sweep_cost = cost;
	}
	slot->doubted = !cheap;
}

/*
 * After a sweep that took all it wanted.  If it found something below the
 * marks, there may be more right after that, and the next read continues from
 * there.  Otherwise the sweep is over.
 */
static void
after_sweep(Slot *slot, const HorizonFinds *finds, const Horizon *h, int64 now, int64 cost)
{
	int64		next = finds->fresh_highest + 1;

	note_cost(slot, h, cost);
	if (slot->setbacks != h->setbacks)
		return;					/* begin anew, at once */
	if (!finds->due_exhausted && h->table.parts == NULL)
	{
		/* There are more due messages, and the fresh ones are not swept yet */
		set_back(slot);
		return;
	}
	/* The other sessions don't know in which partitions that is */
	if (!finds->due_exhausted)
		h->table.parts->due_rounds = ++slot->due_rounds;
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
	look_left_due(h->due, h->ndue);
	bucket = bucket_of(h->table.key);
	now = ticks();
	cost = look_cost(h, now, finds->messages);

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
 * setting decides how long it accepts that.  0 means every time, at any cost.
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
 * Whether there is a message below the floors.  Then they are wrong: rows were
 * written by hand below them, and there may be more, so floors and marks start
 * anew.  This looks for any message, not only for those that this read would
 * take.  A read with a condition, or under row security, must not use up a
 * rescan that the others rely on.
 */
static bool
look_below_floors(Horizon *h)
{
	Bucket	   *bucket = bucket_of(h->table.key);
	int64		began = ticks();
	int64		cost;
	bool		wrong;
	Slot	   *slot;

	h->rescans = true;
	if (h->table.parts != NULL)
	{
		partitions_forget(h->table.parts);
		h->table.parts->reach = KEY_MAX;
	}
	wrong = floors_are_wrong(&h->table, &h->floors);
	cost = ticks() - began;

	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot != NULL && slot->generation == h->generation)
	{
		slot->rescan_cost = cost;
		if (wrong)
		{
			start_anew(bucket, slot);
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
	return wrong || h->table.parts != NULL;
}

/*
 * Whether partitions were attached or dropped since the read began, perhaps
 * with messages that were in others before.  Then the read gets a new list.
 */
static bool
partitions_changed(Horizon *h)
{
	Partitions *parts = h->table.parts;

	if (parts == NULL || parts->valid)
		return false;
	h->table.parts = partitions_open(h->table.rel);
	if (h->table.parts == NULL || !h->table.parts->looks)
	{
		h->table.parts = parts;
		return false;
	}
	return !partitions_same(h->table.parts, parts);
}

/*
 * The read is short of messages: whether to look at lower positions.  First
 * where messages are not likely to be, and then where only rows written by hand
 * can be.  If that takes long, not again so soon.
 */
bool
horizon_look_again(Horizon *h)
{
	Bucket	   *bucket;
	Slot	   *slot;
	int64		now = ticks();
	bool		again = false;
	bool		rescan = false;
	bool		changed;

	if (h->look == HORIZON_EVERYWHERE)
		return false;
	changed = partitions_changed(h);
	bucket = bucket_of(h->table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	if (slot == NULL || slot->generation != h->generation)
		h->sweep_in = 1;		/* begin anew */
	else if (changed || h->start_fresh > h->floors.fresh || h->start_due > h->floors.due ||
			 (h->look == HORIZON_FROM_MARKS && h->table.parts != NULL))
	{
		/* It began at the marks as they were then, went on with a sweep, or left partitions out */
		again = changed || slot->usual_sweep_cost <= cheap_sweep(h) || now >= slot->next_sweep;
		if (!again)
			h->sweep_in = slot->next_sweep - now;
		h->look = HORIZON_FROM_FLOORS;
		h->start_due = h->floors.due;
		h->start_fresh = h->floors.fresh;
		h->setbacks = slot->setbacks;
		h->doubted = slot->doubted;
	}
	else
	{
		h->look = HORIZON_FROM_FLOORS;	/* or from marks that are the same */
		rescan = !h->rescans && rescan_is_due(h, slot, now);
		if (rescan)
			slot->last_rescan = now;	/* no other session need do it meanwhile */
	}
	SpinLockRelease(&bucket->mutex);
	if (rescan)
		again = look_below_floors(h);
	if (again)
		begin_look(h);
	return again;
}

/*
 * How many messages a reader could take in this look, up to "limit"; this look
 * takes none.  Call horizon_look_again() if there is none.
 */
int64
horizon_peek(Horizon *h, TimestampTz moment, int64 limit)
{
	HorizonFinds finds = {0};
	HorizonRange due_range;
	HorizonRange range;
	Snapshot	snapshot;
	bool		due = horizon_next_due(h, moment, &due_range);

	finds.due_until = moment;
	(void) horizon_next_fresh(h, 0, &range);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (due)
		finds.messages = place_takeable_due(h->table.rel, &h->table.place, snapshot,
											due_range.from, due_range.until, limit);
	if (finds.messages < limit)
		finds.messages += place_takeable_fresh(h->table.rel, &h->table.place, snapshot,
											   range.from, range.until,
											   limit - finds.messages);
	UnregisterSnapshot(snapshot);
	/* A message that is only seen stays available, below the marks or not. */
	finds.due_exhausted = finds.fresh_exhausted = !due;
	if (finds.messages == 0)
		horizon_found(h, &finds);
	return finds.messages;
}

/*
 * After a read that wanted messages, or a peek: when there is a reason for another,
 * and how sure that is.  "found" is how many messages there were: only if there was
 * none is the queue empty.  False if nothing is known about this table.
 */
bool
horizon_outlook(Horizon *h, TimestampTz moment, int64 found, Outlook *outlook)
{
	Bucket	   *bucket;
	Slot	   *slot;
	Snapshot	snapshot;
	bool		clean;
	bool		thorough;

	if (h->table.rel == NULL)
		return false;
	snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
								GetTransactionSnapshot() : GetLatestSnapshot());
	if (!look_earliest_due(&h->table, snapshot, moment + 1, outlook->until, &outlook->next))
		outlook->next = DT_NOEND;
	UnregisterSnapshot(snapshot);
	outlook->conclusive = h->sweep_in == 0;
	if (!outlook->conclusive)
		outlook->next = Min(outlook->next, GetCurrentTimestamp() + Max(h->sweep_in, 1000));

	thorough = found == 0 && outlook->conclusive && h->look == HORIZON_FROM_FLOORS &&
		h->table.parts == NULL && !runs_code_of_others(h->table.rel);

	bucket = bucket_of(h->table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, h->table.key, false);
	clean = slot != NULL && slot->generation == h->generation &&
		(slot->clean_at == h->ended ||
		 (h->floors.fresh == PG_INT64_MIN && h->floors.due == DT_NOBEGIN));
	outlook->thorough = thorough && clean;
	if (outlook->thorough && h->likely && !h->table.locked_before)
	{
		slot->empty_at = h->ended;
		slot->empty_until = Min(outlook->until, outlook->next);
	}
	SpinLockRelease(&bucket->mutex);
	outlook->ended = h->ended;
	return true;
}

static void
let_go_of_indexes(Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, oids)
	{
		let_go(lfirst_oid(lc), RowShareLock);
		let_go(lfirst_oid(lc), RowExclusiveLock);
	}
	list_free(oids);
}

static void
let_go_of_partitions(Horizon *h)
{
	int			i;

	for (i = 0; i < h->nleaves; i++)
	{
		Relation	rel = try_table_open(h->leaves[i]->relid, AccessShareLock);

		if (rel == NULL)
			continue;
		let_go_of_indexes(rel);
		let_go(RelationGetRelid(rel), RowShareLock);
		let_go(RelationGetRelid(rel), RowExclusiveLock);
		table_close(rel, AccessShareLock);
	}
	let_go_of_indexes(h->table.rel);
}

/*
 * The read is over.  If it found nothing and its transaction has written
 * nothing at all, release the locks that it and its statements took: a session
 * that polls inside a transaction must not hold up the floors.  No row was
 * touched, so there is nothing that the lock still protects.  The locks on
 * indexes are released as well.  REINDEX takes the table's lock first, and
 * would deadlock with the next read of a session that kept only those on
 * indexes.  Locks that a trigger has taken are not released.
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
		h->nleaves <= LEAVES &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		!runs_code_of_others(h->table.rel);
	if (release && h->table.parts != NULL)
		let_go_of_partitions(h);
	table_close(h->table.rel, NoLock);
	if (!release)
		return;
	let_go(h->table.place.id_index, RowShareLock);
	let_go(h->table.place.id_index, RowExclusiveLock);
	let_go(h->table.place.vt_index, RowShareLock);
	let_go(h->table.place.vt_index, RowExclusiveLock);
	let_go(relid, RowShareLock);
	let_go(relid, RowExclusiveLock);
}

/*
 * The partitions of a queue, for statements on its messages by id; NULL if it
 * is not partitioned in a known way.  The queue's table is locked as the
 * statement locks it.  The caller has connected to SPI.
 */
Partitions *
horizon_partitions(const QueueName *name)
{
	Oid			relid = name_relid(name, QUEUE_TABLE);
	Partitions *parts = NULL;
	Relation	rel;
	Bucket	   *bucket;
	Slot	   *slot;
	uint64		key;
	uint32		generation = 0;
	Floors		sent = NO_FLOORS;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE ||
		RecoveryInProgress() || (rel = try_table_open(relid, RowExclusiveLock)) == NULL)
		return NULL;
	parts = partitions_open(rel);
	table_close(rel, NoLock);
	if (parts == NULL)
		return NULL;
	attach();
	key = partitioned_key(relid);
	bucket = bucket_of(key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, key, false);
	if (slot != NULL)
	{
		generation = slot->generation;
		sent = slot->sent;
	}
	SpinLockRelease(&bucket->mutex);
	partitions_refresh(parts, generation, &sent);
	return parts;
}

static void
rescan_table(const QueueName *name, char prefix)
{
	QueueTable	table;
	Bucket	   *bucket;
	Slot	   *slot;

	if (!open_table(name, prefix, AccessShareLock, &table))
		return;
	bucket = bucket_of(table.key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, table.key, false);
	if (slot != NULL)
		start_anew(bucket, slot);
	SpinLockRelease(&bucket->mutex);
	table_close(table.rel, AccessShareLock);
}

/*
 * Try to move the floors of a partitioned queue, for a caller that does not
 * read it by positions: floors say which partitions are closed.
 */
void
horizon_move(const QueueName *name)
{
	Oid			relid = name_relid(name, QUEUE_TABLE);
	Horizon    *h;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return;
	h = horizon_begin(name, QUEUE_TABLE, false, false);
	/* No statement was run, so the lock is not needed any more */
	if (h->table.rel != NULL)
		table_close(h->table.rel, RowExclusiveLock);
}

/*
 * A message was inserted into a partition believed closed.  Invalidate everything
 * that all sessions have learned about this queue's partitions.
 */
void
horizon_belied(const QueueName *name)
{
	uint64		key = partitioned_key(name_relid(name, QUEUE_TABLE));
	Bucket	   *bucket;
	Slot	   *slot;

	attach();
	bucket = bucket_of(key);
	SpinLockAcquire(&bucket->mutex);
	slot = find_slot(bucket, key, false);
	if (slot != NULL)
		start_anew(bucket, slot);
	SpinLockRelease(&bucket->mutex);
}

/*
 * pgmq.rescan(queue_name text) -> void
 *
 * The next read looks everywhere.  That makes it slower, so the caller must
 * have the right to read the queue.
 */
Datum
pgmq_rescan(PG_FUNCTION_ARGS)
{
	QueueName	name;

	name_from_arg(fcinfo, 0, &name);
	name_require_queue(&name);
	if (!horizon_may_take(name_relid(&name, QUEUE_TABLE)))
		rights_refuse_table(name_relid(&name, QUEUE_TABLE));
	if (RecoveryInProgress())
		PG_RETURN_VOID();
	attach();
	rescan_table(&name, QUEUE_TABLE);
	rescan_table(&name, NOTES_TABLE);
	PG_RETURN_VOID();
}
