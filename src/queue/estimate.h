/*
 * estimate.h
 *	  How many rows a table has, about.
 */
#ifndef PGMQ_ESTIMATE_H
#define PGMQ_ESTIMATE_H

#include "pgmq.h"

extern bool estimate_rows(Oid relid, int64 *rows);

#endif							/* PGMQ_ESTIMATE_H */
