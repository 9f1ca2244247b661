/*
 * floors.c
 *	  What is true about a queue, and stays true.  Below the fresh floor there is
 *	  no fresh message, and below the due floor no deferred one, now or later.
 *	  That holds for what the functions of this extension write.
 *
 * HOW A FLOOR IS FOUND
 *
 * s1  Take a candidate: the last value of the queue's sequence, plus one, and
 *	   then the clock.  Only then list the transactions that hold a lock on the
 *	   queue's table that conflicts with SHARE: the holders.
 * s2  When all of the holders have ended, the candidate counts.  Take a
 *	   snapshot and look, without locking, for the lowest fresh msg_id and the
 *	   earliest deferred vt that it sees.  Each floor is the smaller of its
 *	   candidate and what was found.
 *
 * WHY IT IS TRUE
 *
 * Only one kind of transaction can still write a message below a candidate: it has drawn the
 * msg_id, or read the clock for the vt, before s1.  Our statements hold ROW EXCLUSIVE on the
 * table from before they draw a msg_id or evaluate clock_timestamp() until their transaction
 * ends: the executor locks before it runs.  So such a transaction has either ended before
 * the holders were listed, or is one of them.  In both cases it has ended at s2, and the
 * snapshot sees its messages.  A transaction that takes the lock later draws a higher msg_id
 * and reads a later clock, and no vt before the clock is ever stored.  Case by case:
 *
 * - Uncommitted lower ids, and transactions that commit late: their senders are holders, and
 *	 are waited for.
 *  - Rollback of a read, pop, delete, archive or set_vt: until the transaction has ended,
 *	 the snapshot sees the version from before.  A snapshot taken after the rollback sees it
 *	 too.  So a floor cannot pass a message that comes back.  A fresh message is never made
 *	 fresh again: every change of vt makes it deferred, at a time not before now.
 * - Subtransactions: table locks belong to the top transaction until it ends; a lock that
 *	 ROLLBACK TO SAVEPOINT releases early has protected rows that are gone with it.
 * - Prepared transactions keep their locks: they are in the list, and VirtualXactLock()
 *	 knows a holder that was prepared meanwhile.
 * - REPEATABLE READ: a fixed snapshot does not see what a holder left.  Such transactions
 *	 move nothing; they may well be holders.
 *  - The caller's own uncommitted writes: our snapshot shows our own changes as done, though
 *	 they may be rolled back.  A transaction that holds the lock itself moves nothing.
 * - set_vt: the clock is read inside the statement, GREATEST keeps times that a caller gives
 *	 from lying before it.
 *  - Row-level security: the probes ignore it and scan the index.
 *  - Partitions: all statements are on the queue's table, and lock it before they choose a
 *	 partition, so its holders are the ones that count.  The probe looks into all partitions
 *	 that may have messages (look.c), and counts only if its list of them was that of its
 *	 snapshot.
 * - VACUUM also holds a conflicting lock, for as long as a large table takes; it writes no
 *	 message, so it does not count as a holder.
 *  - TRUNCATE, drop and re-create, and everything else that rewrites the table gives it a
 *	 new file, and floors are kept by file (positions.c).  A partitioned table has no file, and
 *	 its floors outlive a TRUNCATE.  They are true for an empty table as well, unless the
 *	 sequence is set back, which pace.c notices.
 *
 * A sequence with a cache gives a session ids that it may use at any time later, below the
 * last value.  Such a queue has no candidate for its fresh floor, which stays where it is.
 *
 * Rows may be below a floor if they were written by hand (UPDATE, COPY with old times), or
 * after the clock was set back.  The rescan finds them (pace.c).
 *
 * Memory: candidates live in FloorsContext, a child of TopMemoryContext.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/floors.h"
#include "position/holders.h"
#include "position/horizon.h"

/*
 * Candidates that wait for their holders, one for each queue.  Their number is
 * fixed.  A queue may take the entry of another queue, whose move then begins
 * anew.
 */
typedef struct Candidate
{
	uint64		key;			/* of the queue's file; 0: no candidate */
	Floors		floors;
	VirtualTransactionId *holders;
	int			nholders;		/* how many of them may still be open */
} Candidate;

#define CANDIDATES 64

static MemoryContext FloorsContext = NULL;
static Candidate Candidates[CANDIDATES];

static Candidate *
candidate_place(uint64 key)
{
	return &Candidates[(key ^ (key >> 32)) % CANDIDATES];
}

static void
candidate_drop(Candidate *candidate)
{
	if (candidate->holders)
		pfree(candidate->holders);
	memset(candidate, 0, sizeof(*candidate));
}

/*
 * The last msg_id that was drawn; false if the column has no sequence of its own.
 * It does not wait for the sequence, for this is no more than a hint.
 */
bool
floors_last_id(const QueueTable *table, int64 *last_id)
{
	Oid			sequence = queue_sequence(&table->name, table->prefix, table->rel);
	bool		is_called;

	if (!OidIsValid(sequence) || !sequence_read(sequence, false, last_id, &is_called))
		return false;
	if (!is_called)
		(*last_id)--;
	return true;
}

/*
 * Whether sessions draw more than one id at a time from the queue's sequence.
 * Then a session may send one that is far below the last, at any time later.
 */
static bool
draws_ahead(const QueueTable *table)
{
	Oid			sequence = queue_sequence(&table->name, table->prefix, table->rel);
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	bool		ahead = true;

	if (HeapTupleIsValid(tuple))
	{
		ahead = ((Form_pg_sequence) GETSTRUCT(tuple))->seqcache > 1;
		ReleaseSysCache(tuple);
	}
	return ahead;
}

static void
candidate_take(Candidate *candidate, const QueueTable *table)
{
	VirtualTransactionId *holders;
	int			count;
	int64		last_id;
	MemoryContext oldcontext;

	candidate_drop(candidate);
	if (!floors_last_id(table, &last_id))
		return;
	candidate->floors.fresh = draws_ahead(table) ? PG_INT64_MIN : last_id + 1;
	candidate->floors.due = GetCurrentTimestamp();

	holders = holders_list(RelationGetRelid(table->rel), &count);
	if (FloorsContext == NULL)
		FloorsContext = AllocSetContextCreate(TopMemoryContext, "pgmq floors",
											  ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(FloorsContext);
	candidate->holders = palloc(sizeof(VirtualTransactionId) * Max(count, 1));
	MemoryContextSwitchTo(oldcontext);
	memcpy(candidate->holders, holders, sizeof(VirtualTransactionId) * count);
	candidate->nholders = count;
	pfree(holders);
	candidate->key = table->key;
}

/* Whether all holders have ended */
static bool
candidate_counts(Candidate *candidate)
{
	while (candidate->nholders > 0)
	{
		if (!VirtualXactLock(candidate->holders[candidate->nholders - 1], false))
			return false;
		candidate->nholders--;
	}
	return true;
}

/*
 * s2: the look need not go below the old floors.  For the due floor it need not
 * go above the candidate's clock, where the dead versions of all running leases
 * are.  A look that has stopped at its limit has found nothing below, so the floor is true
 * where it has stopped; the next probe goes on there.
 */
static void
probe(const QueueTable *table, const Floors *old, const Floors *old_ranks, FloorsFound *found)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Floors	   *floors = &found->floors;
	int64		msg_id;
	TimestampTz vt;
	PlaceLimit	limit;
	PlaceLimit *within = look_limit(table, &limit);

	if (floors->fresh > old->fresh &&
		look_lowest_fresh(table, snapshot, old->fresh, floors->fresh - 1, within, &msg_id))
		floors->fresh = msg_id;
	if (look_earliest_due(table, snapshot, old->due, floors->due, within, &vt))
		floors->due = Min(floors->due, vt);
	if (old_ranks != NULL)
		ranks_probe(table, snapshot, &found->sent, old_ranks, found->ranks);
	UnregisterSnapshot(snapshot);
}

/*
 * Whether a new snapshot sees a message below the floors.  "from" is where to begin.  It
 * gets where to go on, if that took so many entries; otherwise NO_FLOORS.
 */
bool
floors_are_wrong(const QueueTable *table, const Floors *floors, const Floors *ranks, int64 entries, Floors *from)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PlaceLimit	limit = {.entries = entries};
	bool		begins = from->fresh == PG_INT64_MIN && from->due == DT_NOBEGIN;
	bool		wrong = false;
	Floors		next = *floors;

	if (floors->due > from->due)
		wrong = look_earliest_due(table, snapshot, from->due, floors->due - 1, &limit, &next.due) && !limit.stopped;
	if (!wrong && limit.stopped)
		next.fresh = from->fresh;
	else if (!wrong && floors->fresh > from->fresh)
		wrong = look_lowest_fresh(table, snapshot, from->fresh, floors->fresh - 1, &limit, &next.fresh) && !limit.stopped;
	if (!wrong && begins && ranks != NULL)
		wrong = ranks_are_wrong(table, snapshot, true, ranks) || ranks_are_wrong(table, snapshot, false, ranks);
	UnregisterSnapshot(snapshot);
	*from = limit.stopped && !wrong ? next : NO_FLOORS;
	return wrong;
}

/*
 * Whether this transaction may move floors at all: its snapshots must be new,
 * and it must have written nothing to the queue.
 */
bool
floors_may_move(const QueueTable *table)
{
	return !IsolationUsesXactSnapshot() &&
		!table->locked_before;
}

/*
 * Continue with the queue's candidate.  Take one if there is none and the
 * caller thinks that it is time; "holders" gets the number of its holders.
 * True if there are new floors.  Then "sent" is the candidate itself: no
 * message will get an id below it any more, or an enqueued_at before it.  "old"
 * are the floors that are known to be true now; those of ranks may be NULL.
 */
bool
floors_move(const QueueTable *table, bool time_for_candidate,
			const Floors *old, const Floors *old_ranks, FloorsFound *found, int *holders)
{
	Candidate  *candidate = candidate_place(table->key);

	*holders = 0;
	if (candidate->key != table->key)
	{
		if (!time_for_candidate)
			return false;
		candidate_take(candidate, table);
		if (candidate->key == 0)
			return false;
		*holders = candidate->nholders;
	}
	if (!candidate_counts(candidate))
		return false;
	found->floors = found->sent = candidate->floors;
	candidate_drop(candidate);
	probe(table, old, old_ranks, found);
	return look_was_complete(table);
}

/* Whether it may be worth a look to continue with a candidate */
bool
floors_pending(uint64 key)
{
	return candidate_place(key)->key == key;
}
