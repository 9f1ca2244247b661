/*
 * tuple.c
 *	  Which transactions are changing a row version.
 *
 * A snapshot says whether a version is visible.  It does not say what an open transaction is doing to
 * it; the header of the version does.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "queue/tuple.h"

static bool
is_open_elsewhere(TransactionId xid)
{
	return !TransactionIdIsCurrentTransactionId(xid) && TransactionIdIsInProgress(xid);
}

/*
 * Whether another transaction that is open has locked, updated or deleted this
 * version.  "changer" is the transaction that has updated or deleted it, or
 * invalid.
 */
bool
header_is_claimed(HeapTupleHeader header, TransactionId *changer)
{
	TransactionId xmax = HeapTupleHeaderGetRawXmax(header);
	MultiXactMember *members;
	bool		claimed = false;
	int			count;
	int			i;

	*changer = InvalidTransactionId;
	if ((header->t_infomask & HEAP_XMAX_INVALID) || HEAP_LOCKED_UPGRADED(header->t_infomask))
		return false;
	if ((header->t_infomask & HEAP_XMAX_IS_MULTI) == 0)
	{
		claimed = is_open_elsewhere(xmax);
		if (claimed && !HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask))
			*changer = xmax;
		return claimed;
	}
	count = GetMultiXactIdMembers(xmax, &members, false,
								  HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask));
	for (i = 0; i < count; i++)
	{
		if (!is_open_elsewhere(members[i].xid))
			continue;
		claimed = true;
		if (ISUPDATE_from_mxstatus(members[i].status))
			*changer = members[i].xid;
	}
	if (count > 0)
		pfree(members);
	return claimed;
}

/* The transaction that has updated or deleted the version, whatever has become of it; or invalid */
static TransactionId
header_changer(HeapTupleHeader header)
{
	if ((header->t_infomask & HEAP_XMAX_INVALID) || HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) ||
		HEAP_LOCKED_UPGRADED(header->t_infomask))
		return InvalidTransactionId;
	return HeapTupleHeaderGetUpdateXid(header);
}

/*
 * The same if it has committed.  A transaction may have written this version, and
 * deleted it again.  It may have been open when the snapshot looked at the version,
 * and have ended since.
 */
TransactionId
header_committed_changer(HeapTupleHeader header)
{
	TransactionId xid = header_changer(header);

	return TransactionIdIsValid(xid) && TransactionIdDidCommit(xid) ? xid : InvalidTransactionId;
}

/* Copy the header of the row in the slot at one moment: others may be writing to it. */
void
header_copy(TupleTableSlot *slot, HeapTupleHeader copy)
{
	BufferHeapTupleTableSlot *in_buffer = (BufferHeapTupleTableSlot *) slot;

	if (!TTS_IS_BUFFERTUPLE(slot))
		elog(ERROR, "row does not come from a table of the access method heap");
	LockBuffer(in_buffer->buffer, BUFFER_LOCK_SHARE);
	memcpy(copy, in_buffer->base.tuple->t_data, SizeofHeapTupleHeader);
	LockBuffer(in_buffer->buffer, BUFFER_LOCK_UNLOCK);
}

/* Whether another transaction that is open has locked, updated or deleted the row in the slot */
bool
slot_is_claimed(TupleTableSlot *slot)
{
	HeapTupleHeaderData header;
	TransactionId changer;

	header_copy(slot, &header);
	return header_is_claimed(&header, &changer);
}

/*
 * Whether a reader that skips locked rows would take this one, as far as that
 * is known without locking it: no other transaction has locked or changed it,
 * and it is the newest version.
 */
bool
slot_is_takeable(TupleTableSlot *slot)
{
	HeapTupleHeaderData header;
	TransactionId changer;

	header_copy(slot, &header);
	if (header_is_claimed(&header, &changer))
		return false;
	/* Only of a transaction that has ended is it final whether it has committed */
	changer = header_changer(&header);
	return !TransactionIdIsValid(changer) ||
		(!TransactionIdIsCurrentTransactionId(changer) && !TransactionIdDidCommit(changer));
}

/* A transaction that is open is asked for first: it may commit between the two questions */
static bool
was_rolled_back(TransactionId xid)
{
	return !TransactionIdIsCurrentTransactionId(xid) && !TransactionIdIsInProgress(xid) &&
		!TransactionIdDidCommit(xid);
}

/* What becomes of the version in the slot, in all transactions at once */
RowRemains
slot_remains(TupleTableSlot *slot, Snapshot before)
{
	HeapTupleHeaderData header;
	TransactionId changer;

	header_copy(slot, &header);
	if (!HeapTupleHeaderXminCommitted(&header) &&
		(HeapTupleHeaderXminInvalid(&header) || was_rolled_back(HeapTupleHeaderGetRawXmin(&header))))
		return ROW_GONE;
	changer = header_changer(&header);
	if (!TransactionIdIsValid(changer))
		return ROW_REMAINS;
	if (TransactionIdIsCurrentTransactionId(changer))
		return ROW_REMOVED_BY_US;
	if (is_open_elsewhere(changer) || was_rolled_back(changer))
		return ROW_REMAINS;
	return XidInMVCCSnapshot(changer, before) ? ROW_ENDED_SINCE : ROW_GONE;
}

/* Whether a dead version was replaced or deleted after a snapshot was taken, by another transaction */
static bool
slot_ended_since(TupleTableSlot *slot, Snapshot before)
{
	HeapTupleHeaderData header;
	TransactionId xid;

	header_copy(slot, &header);
	xid = header_committed_changer(&header);
	return TransactionIdIsValid(xid) && !TransactionIdIsCurrentTransactionId(xid) &&
		XidInMVCCSnapshot(xid, before);
}

/*
 * Whether a dead version that an index entry leads to died after the snapshot.
 * It is enough to check the first of a chain: its successors died later.
 */
bool
entry_ended_since(IndexScanDesc scan, Snapshot before, TupleTableSlot *slot)
{
	Snapshot	snapshot = scan->xs_snapshot;
	bool		found;

	if (scan->kill_prior_tuple)
		return false;			/* it was dead for all snapshots already */
	scan->xs_snapshot = SnapshotAny;
	found = index_fetch_heap(scan, slot);
	scan->xs_snapshot = snapshot;
	scan->xs_heap_continue = scan->kill_prior_tuple = false;
	return found && slot_ended_since(slot, before);
}
