/*
 * waiter.h
 *	  Between wait.c and waiter.c: join, look, sleep, leave.
 */
#ifndef PGMQ_WAITER_H
#define PGMQ_WAITER_H

#include "wait/wait.h"

extern int	wake_join(const QueueName *name, const WaitRequest *request, int interval_ms);
extern bool wake_joined(void);
extern void wake_look(int place);
extern bool wake_sleep(int place, const Outlook *outlook, TimestampTz *due, bool *timed);
extern bool wake_called(int place, TimestampTz *due, bool *timed);
extern void wake_leave(int place, WakeEnd end, int64 messages, TimestampTz next);
extern void wake_leave_all(void);

#endif							/* PGMQ_WAITER_H */
