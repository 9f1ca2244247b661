/*
 * columns.h
 *	  The columns that queues of old versions lack.
 */
#ifndef PGMQ_COLUMNS_H
#define PGMQ_COLUMNS_H

#include "base/base.h"

extern void queue_add_columns(const QueueName *name);

#endif							/* PGMQ_COLUMNS_H */
