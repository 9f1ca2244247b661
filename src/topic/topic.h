/*
 * topic.h
 *	  A message to all queues and streams whose patterns match a routing key.
 *
 * A send by topic goes to those whose bindings were committed when it looked: to all of
 * them, or to none.  pattern.c has patterns and keys, bindings.c the bindings as this
 * backend knows them, streams.c what concerns streams only.  topic.c has the functions that use these.
 *
 * No other folder calls anything of this.
 */
#ifndef PGMQ_TOPIC_H
#define PGMQ_TOPIC_H

#include "base/base.h"
#include "message/message.h"

/* A routing key and a pattern have at most so many characters */
#define TOPIC_MAX_LENGTH 255

/* ---- pattern.c ---- */

/* A pattern and what to report when it matches */
typedef struct PatternEntry
{
	const char *pattern;
	int			len;
	uint32		value;
} PatternEntry;

typedef struct PatternTree PatternTree;

extern char *pattern_valid_key(FunctionCallInfo fcinfo, int argno);
extern char *pattern_valid_pattern(FunctionCallInfo fcinfo, int argno);
extern PatternTree *pattern_tree(PatternEntry *entries, uint32 count);
extern uint32 pattern_match(PatternTree *tree, const char *key, uint32 **values);

/* ---- bindings.c ---- */

/* What a binding leads to */
typedef struct TopicTarget
{
	char	   *spelling;
	bool		is_stream;
} TopicTarget;

extern void bindings_reread(void);
extern uint64 bindings_read(OwnView view, const char *const *of_queues, const char *const *of_streams, int ncolumns,
							OwnRow **rows);
extern uint32 bindings_targets(const char *key, TopicTarget **targets);

/* ---- streams.c ---- */

extern void topic_publish_one(const QueueName *name, const Outgoing *out);
extern int64 *topic_publish_many(const QueueName *name, const Outgoing *out, uint64 *count);

#endif							/* PGMQ_TOPIC_H */
