/*
 * worker.h
 *	  Maintenance in the background; see worker.c.
 */
#ifndef PGMQ_WORKER_H
#define PGMQ_WORKER_H

#include "pgmq.h"

extern void worker_init(void);

#endif							/* PGMQ_WORKER_H */
