/*
 * holders.c
 *	  Which transactions may still write to a table: those that hold a lock on it which conflicts with SHARE.
 *
 * A transaction that the server lists as ended is not one of them, though its locks are released a moment later.
 * A snapshot taken after the list sees what it has committed.  A vacuum holds such a lock for as long as a large
 * table takes; it writes no row, so it does not count.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"

#include "position/holders.h"

/*
 * A vacuum sets its flag before it locks its table and keeps it to its end.
 * The flag is read first: if the transaction is still the same after that, the
 * flag was its own and not that of its successor.
 */
static bool
is_vacuum(VirtualTransactionId vxid)
{
	PGPROC	   *proc;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return false;
	proc = VirtualTransactionProc(vxid);
	if (proc == NULL || (proc->statusFlags & PROC_IN_VACUUM) == 0)
		return false;
	pg_read_barrier();
	return ProcLocalTransactionId(proc) == vxid.localTransactionId;
}

/* The others, without our own transaction; palloc'd */
VirtualTransactionId *
holders_list(Oid relid, int *count)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	int			all;
	int			i;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, ShareLock, &all);
	*count = 0;
	for (i = 0; i < all; i++)
	{
		if (!is_vacuum(holders[i]))
			holders[(*count)++] = holders[i];
	}
	return holders;
}
