/*
 * upkeep.h
 *	  Maintenance of queues, archives and streams, by a call or in the background.
 *
 * Each step is a transaction of its own, with the rights of the table's owner.  It waits for a
 * lock for pgmq.maintenance_lock_timeout at most, and can be repeated.  An error in one
 * queue does not keep the others from being maintained.
 *
 * Only the module calls this, when it is loaded.
 */
#ifndef PGMQ_UPKEEP_H
#define PGMQ_UPKEEP_H

#include "pgmq.h"

extern int	maintain_lock_timeout;
extern int	maintain_step_timeout;

extern void worker_init(void);

#endif							/* PGMQ_UPKEEP_H */
