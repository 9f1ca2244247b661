/*
 * tuple.h
 *	  Which transactions are changing a row version.
 */
#ifndef PGMQ_TUPLE_H
#define PGMQ_TUPLE_H

#include "pgmq.h"

#include "access/htup.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

/* What becomes of a version of a row */
typedef enum RowRemains
{
	ROW_REMAINS,				/* it is there, or can be: whatever writes or removes it is open */
	ROW_REMOVED_BY_US,			/* the same, unless this transaction commits */
	ROW_ENDED_SINCE,			/* it was removed by another transaction after a snapshot was taken */
	ROW_GONE					/* it was removed before, or its transaction was rolled back */
} RowRemains;

extern void header_copy(TupleTableSlot *slot, HeapTupleHeader copy);
extern bool header_is_claimed(HeapTupleHeader header, TransactionId *changer);
extern TransactionId header_committed_changer(HeapTupleHeader header);
extern bool slot_is_claimed(TupleTableSlot *slot);
extern bool slot_is_takeable(TupleTableSlot *slot);
extern RowRemains slot_remains(TupleTableSlot *slot, Snapshot before);
extern bool entry_ended_since(IndexScanDesc scan, Snapshot before, TupleTableSlot *slot);

#endif							/* PGMQ_TUPLE_H */
