/*
 * passed.c
 *	  Which subscriptions have not passed a range of ids; and that none moves back meanwhile.
 *
 * Maintenance empties a part when all subscriptions have passed it.  A position moves back with seek(), and a new one
 * may begin at old events.  Both hold the lock of this file until their transaction ends, as set_stream_retention()
 * does.  Maintenance takes it before it looks.  So what it finds stays true until the part is empty,
 * whatever is open.  A consumer that advances needs no lock: positions that move on are passed all the more.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "stream/internal.h"

/* ---- the lock ---- */

static void
lock_passed(const QueueName *name, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, queue_relid(name, STREAM_TABLE), InvalidOid, 0);
	(void) LockAcquire(&tag, mode, false, false);
}

/* Until the transaction ends, no part of the stream is emptied.  Take it before the log is locked. */
void
passed_hold(const QueueName *name)
{
	lock_passed(name, ShareLock);
}

/* Until the transaction ends, no position of the stream moves back. */
void
passed_lock(const QueueName *name)
{
	lock_passed(name, ExclusiveLock);
}

/* ---- subscriptions that have not passed ---- */

static void
add_behind(Behind **behind, int *count, const char *subscription, int shard, int64 passed_id)
{
	*behind = repalloc(*behind, sizeof(Behind) * (*count + 1));
	(*behind)[(*count)++] = (Behind) {pstrdup(subscription), shard, passed_id, 0};
}

/*
 * The subscriptions and shards that have an event in from .. until before them.  What is left of a
 * subscription whose row was deleted by hand does not count.
 */
Behind *
passed_behind(const StreamLog *log, Snapshot snapshot, int64 from, int64 until, int *count)
{
	Behind	   *behind = palloc(sizeof(Behind));
	Positions	positions;
	char	   *subscription = NULL;
	Oid			role;
	int			shard;

	*count = 0;
	positions_open(&log->name, "", &positions);
	while ((subscription = state_next_subscription(&positions, snapshot, subscription)) != NULL)
	{
		positions.subscription = subscription;
		positions.key = CStringGetTextDatum(subscription);
		if (!subscription_find(&log->name, subscription, &role))
			continue;
		for (shard = 0; shard < log->shards; shard++)
		{
			ShardState	state;
			FoundEvent	next;

			if (state_read(&positions, shard, snapshot, &state) && state.passed_id < until &&
				log_next(log, snapshot, shard, Max(state.passed_id + 1, from), until, &next))
				add_behind(&behind, count, subscription, shard, Max(state.passed_id, from - 1));
		}
	}
	positions_close(&positions);
	return behind;
}
