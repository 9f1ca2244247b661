/*
 * stream.h
 *	  Streams: each subscription sees all events, in order, at its own pace.
 *
 * The events of a stream are in its log.  Nothing there is changed or deleted; old parts are dropped
 * as a whole.  An event is handed out when all lower ids of the stream are settled: then nothing
 * can appear below it any more, and a position is one number.
 */
#ifndef PGMQ_STREAM_H
#define PGMQ_STREAM_H

#include "queue/queue.h"

extern void stream_require_none(const QueueName *name);

#endif							/* PGMQ_STREAM_H */
