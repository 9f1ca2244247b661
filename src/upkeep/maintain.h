/*
 * maintain.h
 *	  One table of a queue or a stream under maintenance, and what can be due for it.
 */
#ifndef PGMQ_MAINTAIN_H
#define PGMQ_MAINTAIN_H

#include "nodes/pg_list.h"
#include "port/atomics.h"

#include "stream/stream.h"
#include "admin/admin.h"
#include "upkeep/upkeep.h"

/* As it is at the beginning of a step; a step is a transaction */
typedef struct Upkeep
{
	const QueueName *name;
	char		prefix;
	PartSet    *set;
	const Partman *pm;			/* NULL: pg_partman or its record of the table is gone */
	PartmanConfig config;
	PartStep	step;
	bool		can_make;		/* new partitions: it is known how wide they are */

	/* Of the log of a stream, when the step began */
	int64		last_id;
	int64		end;			/* all ids below are stable */

	/* What the owner wants; see pgmq.partition_config */
	char	   *retention;
	bool		drop_unread;
	bool		drop_consumed;
	char	   *converted;		/* the archive before its conversion, not attached yet */

	/* What a step leaves for the next one of its kind */
	int64	   *position;
} Upkeep;

/* True if there is more of the same to do, in another transaction */
typedef bool (*UpkeepStep) (Upkeep *upkeep);

extern pg_atomic_uint32 *maintain_shown_owner;

/* ---- what the files about streams share ---- */

/* Of the events in a range of ids: those that come first and last in a shard */
typedef struct EventSpan
{
	TimestampTz first_at;
	TimestampTz last_at;
	int64		last_id;
} EventSpan;

extern int64 streamparts_reach(const Upkeep *upkeep);
extern bool streamparts_begin(Upkeep *upkeep);
extern bool streamparts_span(const StreamLog *log, int64 from, int64 until, EventSpan *span);
extern TimestampTz streamparts_ago(TimestampTz time, const Interval *span);

/* ---- steps ---- */

extern bool convert_step(Upkeep *upkeep);
extern bool overrun_step(Upkeep *upkeep);
extern bool premake_step(Upkeep *upkeep);
extern bool premake_partition(Upkeep *upkeep, int64 lower, int64 upper, bool soon);
extern bool retention_step(Upkeep *upkeep);
extern bool retire_is_set(const QueueName *name, char prefix);
extern bool retire_step(Upkeep *upkeep);
extern bool stream_ahead_step(Upkeep *upkeep);
extern bool stream_drop_step(Upkeep *upkeep);
extern bool stream_empty_step(Upkeep *upkeep);
extern bool stream_end_step(Upkeep *upkeep);
extern bool tidy_is_due(const QueueName *name, char prefix);
extern bool tidy_step(Upkeep *upkeep);

extern bool upkeep_begin(Upkeep *upkeep, const QueueName *name, char prefix, const Partman *pm);
extern int64 queue_last_id(const QueueName *name);
extern int64 upkeep_current(const Upkeep *upkeep);
extern void upkeep_lock(const char *table, const char *mode);
extern void maintain_all(bool atomic, int64 until, List *left_out);

#endif							/* PGMQ_MAINTAIN_H */
