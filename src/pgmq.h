/*
 * pgmq.h
 *	  What every file needs: the server's types, and what differs between its versions.
 *
 * All else is in the header of its folder, src/<folder>/<folder>.h.  Its top says what the
 * folder is for and what it promises to the others.  A file includes the headers of its own
 * folder and of those above it in this list:
 *
 *		base queue position wait notify policy message group stream topic admin upkeep
 *
 * Only pgmq.c and xact.c may include all of them.  test/includes.py checks it.
 */
#ifndef PGMQ_H
#define PGMQ_H

#include "postgres.h"

#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"

#define PGMQ_SCHEMA "pgmq"

/* Of the library; the same as default_version in pgmq.control */
#define PGMQ_VERSION "2.2.0"

#endif							/* PGMQ_H */
