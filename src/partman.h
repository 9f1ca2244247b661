/*
 * partman.h
 *	  pg_partman as the rest of the extension sees it.
 */
#ifndef PGMQ_PARTMAN_H
#define PGMQ_PARTMAN_H

#include "pgmq.h"

typedef struct Partman
{
	char	   *schema;			/* quoted */
	int			major;
} Partman;

/* How pg_partman is to treat a table */
typedef struct PartmanSet
{
	const char *control;		/* the column that decides on the partition */
	const char *interval;
	const char *retention;		/* NULL: pg_partman drops nothing */
	int			premake;
	bool		by_time;
} PartmanSet;

extern bool partman_by_time(const char *partition_interval);
extern bool partman_find(Partman *pm);
extern void partman_require(Partman *pm);
extern bool partman_knows(const Partman *pm, const QueueName *name, char prefix);
extern void partman_check_name(const Partman *pm, const QueueName *name, const PartmanSet *set);
extern void partman_create_parent(const Partman *pm, const QueueName *name, char prefix,
								  const PartmanSet *set);
extern void partman_forget(const Partman *pm, const QueueName *name, char prefix);

#endif							/* PGMQ_PARTMAN_H */
