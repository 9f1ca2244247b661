/*
 * relcheck.h
 *	  Whether an object that was found by name is what the code takes it for.
 */
#ifndef PGMQ_RELCHECK_H
#define PGMQ_RELCHECK_H

#include "pgmq.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

/* ---- tables that messages or notes lie in ---- */

extern bool relcheck_is_heap(Relation rel);
extern AttrNumber relcheck_column(TupleDesc desc, const char *name, Oid type);

/* ---- indexes ---- */

/* One key of an index, in the default order of its type */
typedef struct IndexKey
{
	AttrNumber	attno;			/* 0: an expression */
	Oid			type;
	Oid			collation;		/* of a text */
} IndexKey;

extern bool relcheck_index(Relation index, Oid table, const IndexKey *keys, int nkeys);
extern bool relcheck_index_is_whole(Relation index);
extern bool relcheck_index_has_deferred(Relation index, AttrNumber vt, AttrNumber enqueued_at);
extern bool relcheck_index_has_only(Relation index, bool fresh, AttrNumber vt, AttrNumber enqueued_at);
extern bool relcheck_index_expression(Relation index, Relation table, const char *sql);
extern bool relcheck_index_has_flagged(Relation index, AttrNumber flag);

/* ---- sequences ---- */

extern Oid	relcheck_sequence(Relation rel, bool *lasting);

/* ---- the extension's own tables ---- */

typedef enum OwnTable
{
	OWN_META,
	OWN_TOPIC_BINDINGS,
	OWN_NOTIFY_SETTINGS,
	OWN_PARTITION_CONFIG,
	OWN_POLICY,
	OWN_STREAM,
	OWN_SUBSCRIPTION,
	OWN_STREAM_BINDINGS
} OwnTable;

extern Oid	relcheck_own_relid(OwnTable table);
extern Oid	relcheck_own_type(OwnTable table, const char *column);
extern Oid	relcheck_own_table(OwnTable table, LOCKMODE lockmode);

/* ---- values ---- */

extern char *relcheck_text(uint64 row, int column, const char *what);

/* ---- the rows that functions return ---- */

extern void relcheck_row_type(TupleDesc desc, const Oid *types, int count, const char *type_name);
extern HeapTuple relcheck_row(TupleDesc desc, const Datum *values, const bool *nulls);

#endif							/* PGMQ_RELCHECK_H */
