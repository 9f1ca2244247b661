/*
 * notify.h
 *	  NOTIFY for sessions that LISTEN to a queue.
 *
 * Commits are announced on the queue's channel, but not more often than its interval allows.
 * The others are announced at the end of the interval, by a background worker.  Senders share
 * no row and no lock.
 *
 * The module calls this: when it is loaded, and when transactions end.  Only
 * notify_renew_trigger() is for others.
 * announce_before_commit() and announce_before_prepare() may fail, the others cannot.
 */
#ifndef PGMQ_NOTIFY_H
#define PGMQ_NOTIFY_H

#include "queue/queue.h"

extern void announce_init(void);
extern void announce_before_commit(void);
extern void announce_before_prepare(void);
extern void announce_end(bool committed);
extern void announce_subtransaction_end(bool committed);

extern void notify_rolled_back(void);
extern void notify_forget(void);
extern void notify_renew_trigger(const QueueName *name);

#endif							/* PGMQ_NOTIFY_H */
