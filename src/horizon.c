/*
 * horizon.c
 *	  Where a read may start.
 */
#include "pgmq.h"

void
horizon_floors(const QueueName *name, Floors *floors)
{
	floors->fresh = PG_INT64_MIN;
	floors->due = DT_NOBEGIN;
}
