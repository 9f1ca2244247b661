/*
 * leases.h
 *	  How many messages of a queue are leased, as it is in all transactions at once.
 */
#ifndef PGMQ_LEASES_H
#define PGMQ_LEASES_H

#include "datatype/timestamp.h"

#include "base/base.h"

typedef struct LeaseCount
{
	int64		found;			/* leases, also of open transactions, and until these end also what they remove */
	int64		ours;			/* of these, removed by this transaction */
	int64		ended;			/* of these, removed by others while we counted */
	int64		walked;			/* what it cost, in index entries */
	TimestampTz earliest;		/* when the first of them ends, or DT_NOEND */
} LeaseCount;

extern void leases_count(const QueueName *name, TimestampTz now, TimestampTz from, int64 most, LeaseCount *count);

#endif							/* PGMQ_LEASES_H */
