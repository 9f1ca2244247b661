/*
 * topic.h
 *	  A message to all queues whose patterns match a routing key.
 *
 * A send by topic goes to the queues whose bindings were committed when it looked: to all of
 * them, or to none.  pattern.c has patterns and keys, bindings.c the bindings as this
 * backend knows them, topic.c the functions that use both.
 *
 * No other folder calls anything of this.
 */
#ifndef PGMQ_TOPIC_H
#define PGMQ_TOPIC_H

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

extern void bindings_reread(void);
extern uint32 bindings_queues(const char *key, char ***queue_names);

#endif							/* PGMQ_TOPIC_H */
