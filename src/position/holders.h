/*
 * holders.h
 *	  Which transactions may still write to a table.
 */
#ifndef PGMQ_HOLDERS_H
#define PGMQ_HOLDERS_H

#include "pgmq.h"

#include "storage/lock.h"

extern VirtualTransactionId *holders_list(Oid relid, int *count);

#endif							/* PGMQ_HOLDERS_H */
