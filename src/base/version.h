/*
 * version.h
 *	  Whether the library of this session and the SQL objects of this database belong together.
 */
#ifndef PGMQ_VERSION_H
#define PGMQ_VERSION_H

#include "pgmq.h"

extern void version_refuse_other(const char *problem);

#endif							/* PGMQ_VERSION_H */
