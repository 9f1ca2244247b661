/*
 * count.h
 *	  Count the messages in a table without running any code of its owner.
 */
#ifndef PGMQ_COUNT_H
#define PGMQ_COUNT_H

#include "pgmq.h"

typedef struct Counts
{
	TimestampTz now;			/* read after the snapshot */
	int64		messages;
	int64		visible;
	bool		aged;			/* whether the next two are set */
	TimestampTz newest;			/* enqueued_at */
	TimestampTz oldest;
} Counts;

/* A column to be read; one that is optional is NULL where it is missing */
typedef struct CountColumn
{
	const char *name;
	Oid			type;
	bool		optional;
} CountColumn;

#define COUNT_MAX_COLUMNS 5

/* The values of the columns, in their order */
typedef void (*CountRow) (const NullableDatum *values, void *arg);

extern bool count_policed(Oid relid);
extern bool count_rows(Oid relid, const CountColumn *columns, int ncolumns, CountRow row, void *arg,
					   TimestampTz *now);
extern bool count_messages(Oid relid, bool times, Counts *counts);
extern int64 count_drawn(Oid sequence);

#endif							/* PGMQ_COUNT_H */
