/*
 * changes.h
 *	  How often the catalogs have changed, as far as this session has heard.
 */
#ifndef PGMQ_CHANGES_H
#define PGMQ_CHANGES_H

#include "pgmq.h"

extern uint64 changes_heard(void);
extern uint64 changes_of_relation(Oid relid);
extern uint64 changes_of_name(uint32 hash);

#endif							/* PGMQ_CHANGES_H */
