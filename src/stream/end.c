/*
 * end.c
 *	  The stable end of a log: the transactions that drew the ids below it have all ended.
 *
 * An event is handed out only if it lies below.  So nothing appears later below an event that was handed out, and a
 * position is one number.
 *
 * HOW IT IS FOUND
 *
 * e1  Read the last value of the sequence, L.  If the end is L + 1 by the last listing, that is the answer.
 * e2  List the holders: the transactions that hold a write lock on the log, our own among them.
 * e3  Find the first id of each: its record (records.c); else what the last listing says of it; else the L of that
 *	   listing, plus 1.
 * e4  The end is the lowest of these and of L + 1.  Store the listing.
 * e5  The caller takes a snapshot after that.
 *
 * WHY IT IS TRUE
 *
 * - A transaction locks the log before it draws an id, and keeps the lock until it ends.  So one that has drawn an
 *	 id up to L is a holder, or has ended by e2.  What it has committed then is in the snapshot of e5.  If L were read after
 *	 the list, two could come between: one that stays open, and one with a higher id that ends.
 * - A record is made before the lock is taken, by the sequence as it is then.  So it is not above the first id that its
 *	 transaction draws under the lock.
 * - A holder without a record that the last listing does not have has taken its lock after that listing.  So all its ids
 *	 are above that L.  If there is no listing, nothing is known of its ids, and its first one counts as 0.
 * - A transaction is known by its virtual transaction, which PREPARE keeps.  After a crash a prepared transaction has
 *	 another identity, but then there is no listing.
 * - A lock that ROLLBACK TO SAVEPOINT releases has protected rows that are gone with it.  What the transaction publishes
 *	 after that gets ids above all that were drawn before.
 * - An end that was true stays true.  So the higher of two is right.
 *
 * WHY IT MOVES
 *
 * A holder is unknown in one listing only.  When all that held up the end have ended, the next listing moves it,
 * however many others have come.
 *
 * A SEQUENCE THAT WAS SET BACK
 *
 * L below the stable end means that ids are drawn again: after TRUNCATE ... RESTART IDENTITY, or setval().  An
 * event above L means the same, or a restore that is not finished, or a subscriber of logical replication.  log.c looks
 * for such an event from time to time.  Positions are compared by the calls
 * of their consumers, and by publishers.
 */
#include "pgmq.h"

#include "access/twophase.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "position/position.h"
#include "stream/internal.h"

/* ---- the sequence ---- */

void
end_refuse_sequence(const StreamLog *log, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the sequence of stream \"%s\" was set back", log->name.canonical),
			 errdetail("%s", detail),
			 errhint("Set %s to the highest event_id and the highest position, or above it.",
					 quote_qualified_identifier(PGMQ_SCHEMA, get_rel_name(log->sequence)))));
}

/* The last id that was drawn; 0 before the first one */
int64
end_last_id(const StreamLog *log)
{
	int64		last_id;
	bool		is_called;

	if (!sequence_read(log->sequence, true, &last_id, &is_called))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the ids of stream \"%s\" do not come from a sequence that can be read", log->name.canonical)));
	return is_called ? last_id : last_id - 1;
}

/* The same, and the end by the last listing, which the ids have reached before */
int64
end_last_id_checked(const StreamLog *log, int64 *end)
{
	int64		last_id;

	*end = listing_end(RelationGetRelid(log->rel));
	pg_read_barrier();
	last_id = end_last_id(log);
	if (last_id + 1 < *end)
		end_refuse_sequence(log, psprintf("Its last value is " INT64_FORMAT ", but ids up to " INT64_FORMAT " were used.",
										  last_id, *end - 1));
	return last_id;
}

/* ---- holders ---- */

static bool
holds_lock(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, RowExclusiveLock, true);
}

/* e3; 0 if it can have drawn any id up to "last_id" */
static int64
first_id(VirtualTransactionId vxid, Oid relid, int64 last_id, const Listing *last)
{
	int64		first;
	int			i;

	if (record_find(vxid, relid, &first))
		return first;
	for (i = 0; i < last->nholders; i++)
	{
		if (VirtualTransactionIdEquals(last->holders[i].vxid, vxid))
			return last->holders[i].first;
	}
	if (last->listed)
		return last->last_id + 1;
	return last_id == 0 ? 1 : 0;
}

/* e2 to e4 */
static Listing *
make_listing(const StreamLog *log, int64 last_id, const Listing *last)
{
	Oid			relid = RelationGetRelid(log->rel);
	int			count;
	VirtualTransactionId *holders = holders_list(relid, &count);
	Listing    *listing = palloc0(offsetof(Listing, holders) + sizeof(Holder) * (count + 1));
	int			i;

	for (i = 0; i < count; i++)
		listing->holders[i].vxid = holders[i];
	if (holds_lock(relid))
	{
		GET_VXID_FROM_PGPROC(listing->holders[count].vxid, *MyProc);
		count++;
	}
	listing->listed = true;
	listing->last_id = last_id;
	listing->end = last_id + 1;
	listing->nholders = count;
	for (i = 0; i < count; i++)
	{
		Holder	   *holder = &listing->holders[i];

		holder->first = first_id(holder->vxid, relid, last_id, last);
		listing->end = Min(listing->end, holder->first);
	}
	listing->end = Max(listing->end, last->end);
	pfree(holders);
	return listing;
}

/*
 * The stable end, and the last id that was drawn.  The caller has opened the log, and takes its
 * snapshot afterwards.
 */
int64
stream_end(const StreamLog *log, int64 *last_id)
{
	Oid			relid = RelationGetRelid(log->rel);
	Listing    *last;
	Listing    *listing;
	int64		end;

	*last_id = end_last_id_checked(log, &end);
	if (end == *last_id + 1)
		return end;
	last = listing_copy(relid);
	listing = make_listing(log, *last_id, last);
	listing_store(relid, listing);
	end = listing->end;
	pfree(listing);
	pfree(last);
	return end;
}

/* ---- what holds it up ---- */

static char *
gid_of(TransactionId xid)
{
	const char *args[] = {psprintf("%u", xid)};

	return run_for_text("SELECT gid FROM pg_catalog.pg_prepared_xacts"
						" WHERE transaction OPERATOR(pg_catalog.=) $1::pg_catalog.xid", 1, args);
}

/* The pid of the session, or the gid of the prepared transaction; NULL if it has ended */
static char *
name_holder(VirtualTransactionId vxid)
{
	TransactionId xid;
	PGPROC	   *proc;
	bool		more;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return gid_of(vxid.localTransactionId);
	proc = VirtualTransactionProc(vxid);
	if (proc != NULL && ProcLocalTransactionId(proc) == vxid.localTransactionId)
		return psprintf("%d", proc->pid);
	xid = TwoPhaseGetXidByVirtualXID(vxid, &more);
	return TransactionIdIsValid(xid) ? gid_of(xid) : NULL;
}

/*
 * Which transaction holds up the end, if one does; palloc'd.  The caller has called
 * stream_end(), and has connected to SPI.
 */
char *
stream_held_up_by(const StreamLog *log, int64 last_id, int64 end)
{
	Listing    *listing;
	int			lowest = -1;
	int			i;

	if (end > last_id)
		return NULL;
	listing = listing_copy(RelationGetRelid(log->rel));
	for (i = 0; i < listing->nholders; i++)
	{
		if (lowest < 0 || listing->holders[i].first < listing->holders[lowest].first)
			lowest = i;
	}
	return lowest < 0 ? NULL : name_holder(listing->holders[lowest].vxid);
}
