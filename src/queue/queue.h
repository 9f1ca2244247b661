/*
 * queue.h
 *	  One queue: its row in pgmq.meta, its tables, their partitions, and statements on them.
 *
 * descriptor	What the names of a queue lead to, and which columns, indexes and sequences its tables
 *				have.  It is looked up once; after a lock it says what is true then.
 * access		What a caller may do with a queue, and with the rows about it.
 * columns		Columns that queues of old versions lack are added.
 * queues		Do something for each queue of the database.  An error ends the work on one queue.
 * registry		Which queues are registered.  With lock_queue() no other session makes or drops this
 *				one, and the catalogs are up to date.
 * place		A table that messages are in.  A look at it sees what its snapshot sees, and locks no row.
 * partition	Which partitions a call must touch.  The list may be out of date; that costs a
 *				second look, and loses nothing.  Locks on several partitions cannot deadlock.
 * plan			The prepared statements of a queue in this backend.  A statement is planned once,
 *				and again when one of its objects has changed.
 * count		Count messages without running any code of the table's owner.
 * estimate		How many rows a table has, about.
 * sequence		How far the ids of a queue have come.  The caller checks the privilege, if one is needed.
 * survey		Which messages of a range are live, and which dead: to be moved, not handed out.
 * leases		How many messages are leased, in all transactions at once.
 * tuple		Which transactions are at work on a row version.
 */
#ifndef PGMQ_QUEUE_H
#define PGMQ_QUEUE_H

#include "base/base.h"
#include "queue/access.h"
#include "queue/columns.h"
#include "queue/count.h"
#include "queue/descriptor.h"
#include "queue/estimate.h"
#include "queue/groupkey.h"
#include "queue/leases.h"
#include "queue/partition.h"
#include "queue/place.h"
#include "queue/plan.h"
#include "queue/queues.h"
#include "queue/registry.h"
#include "queue/sequence.h"
#include "queue/survey.h"
#include "queue/tuple.h"

/*
 * The triggers on a queue that has groups; their names are their functions'.
 * A search for triggers of users skips these.
 */
#define TRIGGER_SENT "pgmq_group_sent"
#define TRIGGER_REMOVED "pgmq_group_removed"
#define TRIGGER_UPDATED "pgmq_group_updated"
#define TRIGGER_TRUNCATED "pgmq_group_truncated"

#endif							/* PGMQ_QUEUE_H */
