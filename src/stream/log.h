/*
 * log.h
 *	  The log of a stream, opened; looks into it.
 */
#ifndef PGMQ_STREAM_LOG_H
#define PGMQ_STREAM_LOG_H

#include "utils/snapshot.h"

#include "queue/queue.h"

/* More would make the looks of a receive too expensive */
#define MAX_SHARDS 64

/* How many ids the first parts of a log are for */
#define FIRST_WIDTH (INT64CONST(1) << 17)

typedef struct StreamLog
{
	QueueName	name;
	Relation	rel;
	Oid			sequence;
	int			shards;
	Partitions *parts;			/* NULL before log_parts() */
} StreamLog;

/* An event that a look has found */
typedef struct FoundEvent
{
	int64		id;
	TimestampTz published_at;
} FoundEvent;

extern void log_require_primary(void);
extern void log_open(const QueueName *name, StreamLog *log);
extern int64 log_open_to_end(const QueueName *name, StreamLog *log, int64 *last_id);
extern void log_parts(StreamLog *log);
extern void log_check_sequence(StreamLog *log);
extern void log_check_positions(StreamLog *log);
extern void log_check_last_id(StreamLog *log, int64 last_id);
extern void log_close(StreamLog *log);
extern bool log_next(const StreamLog *log, Snapshot snapshot, int shard, int64 from, int64 until, FoundEvent *found);
extern bool log_last_in(const StreamLog *log, Snapshot snapshot, int shard, int64 from, int64 until, FoundEvent *found);
extern bool log_last(const StreamLog *log, Snapshot snapshot, int shard, int64 until, FoundEvent *found);
extern int64 log_before(const StreamLog *log, Snapshot snapshot, int shard, TimestampTz time, int64 until);
extern int64 log_count(const StreamLog *log, Snapshot snapshot, int shard, int64 from, int64 until, int64 most,
					   int64 *last);

/* ---- draw.c, end.c: the sequence ---- */

extern void draw_require_sequence(const StreamLog *log);
extern int64 end_last_id(const StreamLog *log);

#endif							/* PGMQ_STREAM_LOG_H */
