/*
 * topic.h
 *	  What routing is made of: patterns and keys (pattern.c), the bindings of
 *	  the database as this backend knows them (bindings.c), the functions that
 *	  use both (topic.c).
 */
#ifndef PGMQ_TOPIC_H
#define PGMQ_TOPIC_H

#include "pgmq.h"

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
