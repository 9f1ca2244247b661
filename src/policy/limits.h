/*
 * limits.h
 *	  How many messages of a queue are handed out in a time, and how many are leased
 *	  at once.
 */
#ifndef PGMQ_LIMITS_H
#define PGMQ_LIMITS_H

#include "policy/policy.h"

extern bool limits_reserve(Gate *gate, bool leases);
extern void limits_require(const QueueName *name, bool new_rate);
extern void limits_done(int call, int64 used, TimestampTz until);
extern void limits_retimed(const QueueName *name, int64 count, TimestampTz until);

#endif							/* PGMQ_LIMITS_H */
