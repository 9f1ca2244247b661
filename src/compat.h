/*
 * compat.h
 *	  Every difference between the server versions we support.
 *
 * No other file asks for PG_VERSION_NUM.  A shim has the name the newest
 * server uses, so that the code reads as if written for that one.
 */
#ifndef PGMQ_COMPAT_H
#define PGMQ_COMPAT_H

#if PG_VERSION_NUM < 150001
#error "pgmq needs PostgreSQL 15.1 or later (InitMaterializedSRF came with 15.1)"
#endif
#if PG_VERSION_NUM >= 190000
#error "pgmq supports PostgreSQL 15 to 18"
#endif

/* These minors had an ABI break that the next release took back. */
#if PG_VERSION_NUM == 150009 || PG_VERSION_NUM == 160005 || PG_VERSION_NUM == 170001
#error "this minor release has a withdrawn ABI; build against the next one"
#endif

/* 16 split varatt.h out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 declares _PG_init in fmgr.h. */
#if PG_VERSION_NUM < 160000
extern PGDLLEXPORT void _PG_init(void);
#endif

#endif							/* PGMQ_COMPAT_H */
