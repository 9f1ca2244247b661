/*
 * partmake.h
 *	  Make partitions, and move rows to them.
 */
#ifndef PGMQ_PARTMAKE_H
#define PGMQ_PARTMAKE_H

#include "admin/partman.h"

/* The unit of time that pg_partman has the first partition of such an interval begin with, in SQL */
#define UNIT_OF(interval) \
	"CASE WHEN " interval " OPERATOR(pg_catalog.<) '1 minute' THEN 'minute'" \
	" WHEN " interval " OPERATOR(pg_catalog.<) '1 day' THEN 'hour'" \
	" WHEN " interval " OPERATOR(pg_catalog.<) '1 month' THEN 'day'" \
	" WHEN " interval " OPERATOR(pg_catalog.<) '1 year' THEN 'month'" \
	" WHEN " interval " OPERATOR(pg_catalog.<) '10 years' THEN 'year'" \
	" WHEN " interval " OPERATOR(pg_catalog.<) '100 years' THEN 'decade'" \
	" WHEN " interval " OPERATOR(pg_catalog.<) '1000 years' THEN 'century'" \
	" ELSE 'millennium' END"

extern void partmake_settings(void);
extern char *partmake_name(const PartSet *set, const char *datetime_string, int64 lower, bool other_too);
extern void partmake_table(const PartSet *set, const char *relname);
extern void partmake_attach(const PartSet *set, const char *partition, int64 lower, int64 upper);
extern void partmake_default(const PartSet *set, const char *last);
extern void partmake_first(const Partman *pm, const QueueName *name, char prefix, const PartmanSet *wanted);
extern void partmake_move(const PartSet *set, const char *target, int64 lower, int64 upper);

#endif							/* PGMQ_PARTMAKE_H */
