/*
 * sequence.c
 *	  How far the sequence of a queue has come.
 *
 * Its one row is read from its page, as the server's own functions do, and not by
 * SQL: a reader of messages needs no privilege on the sequence.  A caller that
 * shows the number to its user checks the privilege before.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/sequence.h"

/*
 * The last value, and whether it was drawn.  False if there is no such
 * sequence, or if it cannot be read here; without "wait" also if it is locked.
 */
bool
sequence_read(Oid sequence, bool wait, int64 *last_value, bool *is_called)
{
	Relation	seq;
	Buffer		buffer;
	HeapTupleHeader tuple;
	Form_pg_sequence_data data;

	if (wait)
		LockRelationOid(sequence, AccessShareLock);
	else if (!ConditionalLockRelationOid(sequence, AccessShareLock))
		return false;
	seq = try_relation_open(sequence, NoLock);
	if (seq == NULL)
	{
		UnlockRelationOid(sequence, AccessShareLock);
		return false;
	}
	/* On a standby an unlogged one has no page */
	if (seq->rd_rel->relkind != RELKIND_SEQUENCE ||
		(RecoveryInProgress() && seq->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT))
	{
		relation_close(seq, AccessShareLock);
		return false;
	}
	buffer = ReadBuffer(seq, 0);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	tuple = (HeapTupleHeader) PageGetItem(BufferGetPage(buffer),
										  PageGetItemId(BufferGetPage(buffer), FirstOffsetNumber));
	data = (Form_pg_sequence_data) ((char *) tuple + tuple->t_hoff);
	*last_value = data->last_value;
	*is_called = data->is_called;
	UnlockReleaseBuffer(buffer);
	relation_close(seq, AccessShareLock);
	return true;
}
