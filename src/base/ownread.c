/*
 * ownread.c
 *	  Read the extension's own tables.
 *
 * The owner of the extension can attach code to these tables: expressions of indexes
 * and statistics.  The planner runs such code with the rights of the caller, which
 * may be a superuser.  So no statement is planned here:
 *
 * 1. The caller's privileges are checked by hand, as the statement's would be:
 *	  SELECT on the table, or on each column.  They are checked before the lock is
 *	  taken, so that a refused caller does not wait.
 * 2. The table is scanned in C.  A scan sees the snapshot, and is known to the
 *	  server under SERIALIZABLE, as in a statement.
 * 3. Where row-level security applies to the caller, a statement is run.  Its policies are code of
 *	  the table's owner, and they run with the rights of the caller.  None applies to
 *	  a superuser.
 * 4. What the extension itself must know about a queue, whatever the caller's rights
 *	  are, is looked up by ownread_find().  It asks for no privilege, and no row-level security
 *	  applies.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

#include "base/name.h"
#include "base/ownread.h"
#include "base/relcheck.h"
#include "base/rights.h"
#include "base/sql.h"

typedef struct Reading
{
	OwnTable	table;
	Oid			relid;
	const char *const *columns;
	int			ncolumns;
	Oid			types[OWN_READ_MAX];
	OwnRow	   *rows;			/* they and their values are in this context */
	MemoryContext context;
	uint64		count;
	uint64		room;
} Reading;

/* Copy a row; what its values point to may go */
static void
add_row(Reading *reading, const Datum *values, const bool *nulls)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(reading->context);
	OwnRow	   *row;
	int			i;

	if (reading->count == reading->room)
	{
		reading->room *= 2;
		reading->rows = repalloc_huge(reading->rows, sizeof(OwnRow) * reading->room);
	}
	row = &reading->rows[reading->count++];
	for (i = 0; i < reading->ncolumns; i++)
	{
		row->nulls[i] = nulls[i];
		if (nulls[i])
			row->values[i] = (Datum) 0;
		else if (get_typlen(reading->types[i]) == -1)
			row->values[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[i]));
		else
			row->values[i] = datumCopy(values[i], get_typbyval(reading->types[i]),
									   get_typlen(reading->types[i]));
	}
	MemoryContextSwitchTo(oldcontext);
}

static void
scan_rows(Reading *reading, Snapshot snapshot)
{
	Relation	rel = table_open(reading->relid, NoLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	AttrNumber	attnos[OWN_READ_MAX];
	Datum		values[OWN_READ_MAX];
	bool		nulls[OWN_READ_MAX];
	int			i;

	for (i = 0; i < reading->ncolumns; i++)
		attnos[i] = relcheck_column(RelationGetDescr(rel), reading->columns[i], reading->types[i]);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		for (i = 0; i < reading->ncolumns; i++)
			values[i] = slot_getattr(slot, attnos[i], &nulls[i]);
		add_row(reading, values, nulls);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

static void
select_rows(Reading *reading, Snapshot snapshot)
{
	StringInfoData sql;
	uint64		row;
	int			i;

	initStringInfo(&sql);
	for (i = 0; i < reading->ncolumns; i++)
		appendStringInfo(&sql, "%s %s", i == 0 ? "SELECT" : ",", reading->columns[i]);
	appendStringInfo(&sql, " FROM " PGMQ_SCHEMA ".%s", get_rel_name(reading->relid));
	SPI_connect();
	(void) run_prepared(run_prepare(sql.data, 0, NULL), NULL, NULL, snapshot, true);
	for (row = 0; row < SPI_processed; row++)
	{
		Datum		values[OWN_READ_MAX];
		bool		nulls[OWN_READ_MAX];

		for (i = 0; i < reading->ncolumns; i++)
			values[i] = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
		add_row(reading, values, nulls);
	}
	SPI_finish();
}

static Snapshot
take_snapshot(OwnView view)
{
	if (view == VIEW_OF_CALLER)
		return GetActiveSnapshot();
	CommandCounterIncrement();
	return view == VIEW_OF_STATEMENT ? GetTransactionSnapshot() : GetLatestSnapshot();
}

/* All rows, for a caller whose privileges were checked otherwise */
uint64
ownread_all(OwnTable table, OwnView view, const char *const *columns, int ncolumns, OwnRow **rows)
{
	Reading		reading = {.table = table, .columns = columns, .ncolumns = ncolumns,
	.context = CurrentMemoryContext, .room = 64};
	Snapshot	snapshot;
	int			i;

	reading.relid = relcheck_own_table(table, AccessShareLock);
	for (i = 0; i < ncolumns; i++)
		reading.types[i] = relcheck_own_type(table, columns[i]);
	reading.rows = palloc(sizeof(OwnRow) * reading.room);
	snapshot = RegisterSnapshot(take_snapshot(view));
	scan_rows(&reading, snapshot);
	UnregisterSnapshot(snapshot);
	*rows = reading.rows;
	return reading.count;
}

/* All rows that the caller may see, in any order, in the current memory context; how many */
uint64
ownread(OwnTable table, OwnView view, const char *const *columns, int ncolumns, OwnRow **rows)
{
	Reading		reading = {.table = table, .columns = columns, .ncolumns = ncolumns,
	.context = CurrentMemoryContext, .room = 64};
	Snapshot	snapshot;
	int			i;

	reading.relid = relcheck_own_relid(table);
	rights_require_select(reading.relid, columns, ncolumns);
	reading.relid = relcheck_own_table(table, AccessShareLock);
	rights_require_select(reading.relid, columns, ncolumns);
	for (i = 0; i < ncolumns; i++)
		reading.types[i] = relcheck_own_type(table, columns[i]);
	reading.rows = palloc(sizeof(OwnRow) * reading.room);
	snapshot = RegisterSnapshot(take_snapshot(view));
	if (check_enable_rls(reading.relid, InvalidOid, true) == RLS_ENABLED)
		select_rows(&reading, snapshot);
	else
		scan_rows(&reading, snapshot);
	UnregisterSnapshot(snapshot);
	*rows = reading.rows;
	return reading.count;
}

/* ---- one row, for the extension itself ---- */

/* An index that finds rows by a text; InvalidOid if there is none */
static Oid
index_by(Relation rel, AttrNumber attno)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
	const IndexKey key = {attno, att->atttypid, att->attcollation};
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (relcheck_index(index, RelationGetRelid(rel), &key, 1) && relcheck_index_is_whole(index))
			found = lfirst_oid(lc);
		index_close(index, AccessShareLock);
	}
	return found;
}

/*
 * The row of a table in which a column of texts is "key"; false if there is none.
 * The caller has locked the table, and knows that its columns have these types.
 */
bool
ownread_find(Oid relid, OwnView view, const char *key_column, Oid key_type, const char *key,
			 const char *const *columns, const Oid *types, int ncolumns, OwnRow *row)
{
	Relation	rel = table_open(relid, NoLock);
	TupleDesc	desc = RelationGetDescr(rel);
	Reading		reading = {.columns = columns, .ncolumns = ncolumns, .rows = row,
	.context = CurrentMemoryContext, .room = 1};
	AttrNumber	key_attno = relcheck_column(desc, key_column, key_type);
	Snapshot	snapshot = RegisterSnapshot(take_snapshot(view));
	Oid			index = index_by(rel, key_attno);
	ScanKeyData scan_key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyEntryInitialize(&scan_key, 0, key_attno, BTEqualStrategyNumber, InvalidOid,
						   TupleDescAttr(desc, key_attno - 1)->attcollation,
						   F_TEXTEQ, CStringGetTextDatum(key));
	scan = systable_beginscan(rel, index, OidIsValid(index), snapshot, 1, &scan_key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[OWN_READ_MAX];
		bool		nulls[OWN_READ_MAX];
		int			i;

		for (i = 0; i < ncolumns; i++)
		{
			reading.types[i] = types[i];
			values[i] = heap_getattr(tuple, relcheck_column(desc, columns[i], types[i]), desc, &nulls[i]);
		}
		add_row(&reading, values, nulls);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return reading.count > 0;
}

/* ---- using the rows ---- */

typedef struct Order
{
	const OwnKey *keys;
	int			nkeys;
} Order;

static int
compare_values(Datum a, Datum b, Oid collation)
{
	text	   *left;
	text	   *right;

	if (!OidIsValid(collation))
		return timestamptz_cmp_internal(DatumGetTimestampTz(a), DatumGetTimestampTz(b));
	left = DatumGetTextPP(a);
	right = DatumGetTextPP(b);
	return varstr_cmp(VARDATA_ANY(left), (int) VARSIZE_ANY_EXHDR(left),
					  VARDATA_ANY(right), (int) VARSIZE_ANY_EXHDR(right), collation);
}

static int
compare_rows(const void *a, const void *b, void *arg)
{
	const OwnRow *left = a;
	const OwnRow *right = b;
	const Order *order = arg;
	int			i;

	CHECK_FOR_INTERRUPTS();
	for (i = 0; i < order->nkeys; i++)
	{
		const OwnKey *key = &order->keys[i];
		int			column = key->column;
		int			result;

		if (left->nulls[column] || right->nulls[column])
			result = (int) left->nulls[column] - (int) right->nulls[column];
		else
			result = compare_values(left->values[column], right->values[column], key->collation);
		if (result != 0)
			return key->descending ? -result : result;
	}
	return 0;
}

void
ownread_sort(OwnRow *rows, uint64 count, const OwnKey *keys, int nkeys)
{
	Order		order = {keys, nkeys};

	if (count > 1)
		qsort_arg(rows, count, sizeof(OwnRow), compare_rows, &order);
}

/* Into the set that the function returns; the caller has begun it */
void
ownread_put(FunctionCallInfo fcinfo, OwnRow *rows, uint64 count)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint64		i;

	for (i = 0; i < count; i++)
		tuplestore_puttuple(rsinfo->setResult, relcheck_row(rsinfo->setDesc, rows[i].values, rows[i].nulls));
}

/* palloc'd; NULL for NULL */
char *
ownread_text(const OwnRow *row, int column)
{
	return row->nulls[column] ? NULL : TextDatumGetCString(row->values[column]);
}

/* Whether the column, a queue's name in any spelling, names this queue */
bool
ownread_is_of(const OwnRow *row, int column, const QueueName *name)
{
	QueueName	other;

	return !row->nulls[column] &&
		name_try_canonical(DatumGetTextPP(row->values[column]), &other) &&
		memcmp(&other, name, sizeof(other)) == 0;
}
