/*
 * partset.h
 *	  The partitions of a table as they are in the catalog now.
 */
#ifndef PGMQ_PARTSET_H
#define PGMQ_PARTSET_H

#include "queue/queue.h"

#include "datatype/timestamp.h"

/*
 * A bound is a msg_id or, by time, a TimestampTz.  The lowest and the highest
 * number stand for MINVALUE and MAXVALUE.
 */
typedef struct Partition
{
	Oid			relid;
	int64		lower;			/* included */
	int64		upper;			/* not included */
} Partition;

typedef struct PartSet
{
	Oid			relid;			/* of the parent */
	const char *parent;			/* quoted and qualified, as all names here */
	const char *column;
	const char *attname;		/* the same, not quoted */
	bool		by_time;
	Oid			default_relid;	/* InvalidOid if there is none */
	int			count;			/* without the default partition */
	Partition  *partitions;		/* in the order of their bounds */
} PartSet;

/* How far it is from one partition to the next */
typedef struct PartStep
{
	bool		by_time;
	int64		ids;
	Interval	span;
} PartStep;

extern PartSet *partset_get(Oid relid);
extern const char *partset_relation(Oid relid);
extern const Partition *partset_find(const PartSet *set, int64 key);
extern void partset_gap(const PartSet *set, int64 key, int64 *lower, int64 *upper);
extern char *partset_key_text(const PartSet *set, int64 key);
extern char *partset_within(const PartSet *set, int64 lower, int64 upper);
extern int64 partset_key(bool by_time, const char *value);
extern void partset_step(bool by_time, const char *what, const char *value, bool zero_too,
						 PartStep *step);
extern int64 partset_add(const PartStep *step, int64 key, int32 times);
extern bool partset_room(const PartSet *set, const PartStep *step, int64 key,
						 int64 *lower, int64 *upper);

#endif							/* PGMQ_PARTSET_H */
