/*
 * ownread.h
 *	  Read the extension's own tables.
 */
#ifndef PGMQ_OWNREAD_H
#define PGMQ_OWNREAD_H

#include "pgmq.h"

#include "base/name.h"
#include "base/relcheck.h"

/* Which rows: those that the calling query sees, a new statement, or a new transaction */
typedef enum OwnView
{
	VIEW_OF_CALLER,
	VIEW_OF_STATEMENT,
	VIEW_OF_LATEST
} OwnView;

/* So many columns at a time */
#define OWN_READ_MAX 20

/* The values of the columns that were asked for, in that order */
typedef struct OwnRow
{
	Datum		values[OWN_READ_MAX];
	bool		nulls[OWN_READ_MAX];
} OwnRow;

/* One key of an order; NULLs are as in ORDER BY */
typedef struct OwnKey
{
	int			column;			/* in the row */
	Oid			collation;		/* of a text; InvalidOid for a time */
	bool		descending;
} OwnKey;

extern uint64 ownread(OwnTable table, OwnView view, const char *const *columns, int ncolumns, OwnRow **rows);
extern uint64 ownread_all(OwnTable table, OwnView view, const char *const *columns, int ncolumns, OwnRow **rows);
extern bool ownread_find(Oid relid, OwnView view, const char *key_column, Oid key_type, const char *key,
						 const char *const *columns, const Oid *types, int ncolumns, OwnRow *row);
extern void ownread_sort(OwnRow *rows, uint64 count, const OwnKey *keys, int nkeys);
extern void ownread_put(FunctionCallInfo fcinfo, OwnRow *rows, uint64 count);
extern char *ownread_text(const OwnRow *row, int column);
extern bool ownread_is_of(const OwnRow *row, int column, const QueueName *name);

#endif							/* PGMQ_OWNREAD_H */
