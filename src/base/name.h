/*
 * name.h
 *	  From what a caller typed to the objects of a queue.
 */
#ifndef PGMQ_NAME_H
#define PGMQ_NAME_H

#include "pgmq.h"

/*
 * The one identity of a queue: its lower-cased name.  Zero-padded, so that it
 * serves as a hash key.
 */
typedef struct QueueName
{
	char		canonical[NAMEDATALEN];
} QueueName;

/*
 * Bytes, not characters: "archived_at_idx_" + name is the longest identifier
 * made from a name, and 63 bytes is what the server keeps of one.
 */
#define MAX_QUEUE_NAME_BYTES 47

#define QUEUE_TABLE 'q'
#define ARCHIVE_TABLE 'a'
#define NOTES_TABLE 'g'			/* of a queue that has groups: see group.h */
#define KEYS_TABLE 'k'			/* of a queue that keys were sent to: see unique.c */
#define STREAM_TABLE 's'		/* the log of a stream */
#define POSITIONS_TABLE 'p'		/* the states of its subscriptions: see state.c */

extern void name_canonical(const text *queue_name, QueueName *name);
extern bool name_try_canonical(const text *queue_name, QueueName *name);
extern void name_from_arg(FunctionCallInfo fcinfo, int argno, QueueName *name);
extern void name_validate_new(const text *queue_name, QueueName *name);
extern char *name_bare(const QueueName *name, char prefix, const char *suffix);
extern const char *name_table(const QueueName *name, char prefix);
extern const char *name_unquoted(const QueueName *name, char prefix);
extern const char *name_sequence(const QueueName *name);
extern char *name_object(const QueueName *name, const char *prefix, const char *suffix);
extern char *name_expand(const char *sql_template, const QueueName *name);
extern char *name_expand_leaf(const char *sql_template, const QueueName *name, const char *leaf,
							  const char *live, const char *releases);

#endif							/* PGMQ_NAME_H */
