/*
 * stream.h
 *	  Streams: each subscription sees all events, in order, at its own pace.
 *
 * The events of a stream are in its log.  Nothing there is changed or deleted; old parts are dropped
 * as a whole.  An event is handed out when all lower ids of the stream are stable: then nothing
 * can appear below it any more, and a position is one number.
 *
 * log		The log, opened; looks into it.
 * passed	Which subscriptions have not passed a range of ids.  A part is emptied only while none moves back.
 */
#ifndef PGMQ_STREAM_H
#define PGMQ_STREAM_H

#include "datatype/timestamp.h"

#include "queue/queue.h"
#include "stream/log.h"
#include "stream/passed.h"

/* How long events are kept */
typedef struct StreamSettings
{
	Interval	retention;
	bool		keeps;			/* also for longer, if a subscription has not passed them */
	Interval	keep_unconsumed;
} StreamSettings;

extern void stream_from_arg(FunctionCallInfo fcinfo, int argno, QueueName *name);
extern bool stream_is_registered(const QueueName *name);
extern void stream_require_none(const QueueName *name);
extern bool stream_settings(const QueueName *name, StreamSettings *settings);
extern int	streams_list(ListedQueue **streams);
extern char *stream_interval_arg(FunctionCallInfo fcinfo, int argno, const char *what, bool required);
extern uint64 stream_write_rows(OwnTable table, const char *sql, int nargs, const char *const *args);
extern char *stream_spelling(const QueueName *name);

/* ---- publish.c ---- */

extern bool stream_lock(const QueueName *name);
extern uint64 stream_publish_one(const QueueName *name, const NullableDatum *event, int64 *id);
extern int64 *stream_publish_many(const QueueName *name, const NullableDatum *events, int count);

#endif							/* PGMQ_STREAM_H */
