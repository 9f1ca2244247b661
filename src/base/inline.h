/*
 * inline.h
 *	  Small functions that every folder may use.
 */
#ifndef PGMQ_INLINE_H
#define PGMQ_INLINE_H

#include "pgmq.h"

#include "access/transam.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

/*
 * Microseconds of a monotonic clock that all processes share: intervals must not
 * depend on the time of day.
 */
static inline int64
ticks(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/*
 * A number of seconds from now, for "clock_timestamp() + $n".  Never backwards:
 * no visibility time before the moment of its writing is ever stored.
 */
static inline Datum
interval_from_seconds(int32 seconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) Max(seconds, 0) * USECS_PER_SEC;
	return IntervalPGetDatum(interval);
}

/*
 * An argument that may be NULL, as SPI wants it.
 */
static inline void
arg_to_param(FunctionCallInfo fcinfo, int argno, Datum *value, bool *null)
{
	*null = PG_ARGISNULL(argno);
	*value = *null ? (Datum) 0 : PG_GETARG_DATUM(argno);
}

/* A hash table in a context of its own below this one.  Keys begin their entries, and are compared as bytes. */
static inline HTAB *
hash_in_context(const char *name, long size, Size key, Size entry, MemoryContext context)
{
	HASHCTL		ctl;

	ctl.keysize = key;
	ctl.entrysize = entry;
	ctl.hcxt = context;
	return hash_create(name, size, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * How many transactions that wrote something have ended in this cluster, including
 * subtransactions that were rolled back.  While the number is the same, a new
 * snapshot shows the same.  It is read without its lock, before the snapshot that it
 * is compared with later.
 */
static inline uint64
transactions_ended(void)
{
	pg_memory_barrier();
	return *(volatile uint64 *) &TransamVariables->xactCompletionCount;
}

#endif							/* PGMQ_INLINE_H */
