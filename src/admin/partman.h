/*
 * partman.h
 *	  pg_partman as the rest of the extension sees it.
 */
#ifndef PGMQ_PARTMAN_H
#define PGMQ_PARTMAN_H

#include "admin/partset.h"

typedef struct Partman
{
	char	   *schema;			/* not quoted */
	int			major;
	Oid			extension;
	Oid			namespace;
} Partman;

/* How pg_partman is to treat a table */
typedef struct PartmanSet
{
	const char *control;		/* the column that decides on the partition */
	const char *interval;
	const char *retention;		/* NULL: pg_partman drops nothing */
	int			premake;
	bool		by_time;
	const char *start;			/* where the first partition begins; NULL: see partmake.c */
} PartmanSet;

/* What pg_partman was told about a table */
typedef struct PartmanConfig
{
	char	   *interval;
	int			premake;
	char	   *retention;		/* NULL: pg_partman drops nothing */
	char	   *datetime_string;	/* how a time is written into the name of a partition */
} PartmanConfig;

extern bool partman_by_time(const char *partition_interval);
extern void partman_wanted(FunctionCallInfo fcinfo, PartmanSet *set, const char **retention);
extern bool partman_find(Partman *pm);
extern void partman_require(Partman *pm);
extern Oid	partman_config_relid(const Partman *pm);
extern bool partman_knows(const Partman *pm, const QueueName *name, char prefix);
extern void partman_check_name(const Partman *pm, const QueueName *name, const PartmanSet *set);
extern const char *partman_datetime_string(const Partman *pm, const char *interval);
extern void partman_record(const Partman *pm, const QueueName *name, char prefix,
						   const PartmanSet *set);
extern void partman_forget_record(const Partman *pm, const QueueName *name, char prefix);
extern bool partman_config(const Partman *pm, const QueueName *name, char prefix,
						   PartmanConfig *config);
extern void partman_set_retention(const Partman *pm, const QueueName *name, char prefix,
								  const char *retention);
extern void partman_forget(const Partman *pm, const QueueName *name, char prefix);

#endif							/* PGMQ_PARTMAN_H */
