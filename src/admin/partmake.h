/*
 * partmake.h
 *	  Make partitions, and move rows to them.
 */
#ifndef PGMQ_PARTMAKE_H
#define PGMQ_PARTMAKE_H

#include "admin/partman.h"

extern void partmake_settings(void);
extern char *partmake_name(const PartSet *set, const char *datetime_string, int64 lower, bool other_too);
extern void partmake_table(const PartSet *set, const char *relname);
extern void partmake_attach(const PartSet *set, const char *partition, int64 lower, int64 upper);
extern void partmake_default(const PartSet *set);
extern void partmake_first(const Partman *pm, const QueueName *name, char prefix, const PartmanSet *wanted);
extern void partmake_move(const PartSet *set, const char *target, int64 lower, int64 upper);

#endif							/* PGMQ_PARTMAKE_H */
