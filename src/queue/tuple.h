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

extern void header_copy(TupleTableSlot *slot, HeapTupleHeader copy);
extern bool header_is_claimed(HeapTupleHeader header, TransactionId *changer);
extern TransactionId header_committed_changer(HeapTupleHeader header);
extern bool slot_is_claimed(TupleTableSlot *slot);
extern bool slot_is_takeable(TupleTableSlot *slot);
extern bool entry_ended_since(IndexScanDesc scan, Snapshot before, TupleTableSlot *slot);

#endif							/* PGMQ_TUPLE_H */
