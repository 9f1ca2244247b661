/*
 * relcheck.c
 *	  Whether an object that was found by name is what the code takes it for.
 *
 * The owner of a table can alter it, and can put another object in its place.
 * The owner of the extension can do the same with the extension's tables and
 * types.  A statement that finds something else raises the server's own error.
 * C code that reads tuples, scans an index or builds a row must ask first:
 *
 * 1. A table that C code scans is an ordinary table of the access method heap.
 *	  Each column that is read has exactly the expected type.  Views, foreign
 *	  tables and other access methods are left to statements.
 * 2. An index that C code scans is a valid btree on that very table.  Its keys
 *	  have the expected columns, types and order.  Its predicate is known.
 * 3. The sequence of a queue is the one that its msg_id column owns, whatever
 *	  it is called.
 * 4. A table of the extension is a member of the extension, an ordinary table
 *	  without children, and its columns have exactly the expected types.  It
 *	  stays what it is, for the caller holds a lock on it.
 * 5. NOT NULL is not asked for: the code that reads a value tests it for NULL.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "optimizer/optimizer.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "base/changes.h"
#include "base/relcheck.h"
#include "base/version.h"

/* ---- what is remembered ---- */

/* Answers are kept with the counts of changes that they had before they were asked for */

/*
 * An index never changes its expression.  But a column of the table can be renamed, and
 * then the expression is about another column.
 */
typedef struct KnownIndex
{
	Oid			index;			/* InvalidOid: a free place */
	const char *expression;		/* a constant */
	uint64		changes;		/* of the index and its table */
} KnownIndex;

/* An answer that needs a place takes it */
#define KNOWN 256

static KnownIndex KnownIndexes[KNOWN];

/* The extension's tables, as they were found right; see check_own_table() */
#define OWN_TABLES 8

static struct
{
	Oid			relid;
	uint64		changes;
}			Checked[OWN_TABLES];

/* ---- tables that messages or notes lie in ---- */

/* Whether C code can scan it */
bool
relcheck_is_heap(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID;
}

/*
 * A column by name: an adopted table may have its columns in another order.
 * InvalidAttrNumber unless a tuple has a value of exactly this type there.
 */
AttrNumber
relcheck_column(TupleDesc desc, const char *name, Oid type)
{
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->atttypid == type && is_stored(att) &&
			strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

/* ---- indexes ---- */

static bool
has_key(Relation index, int i, const IndexKey *key)
{
	const TypeCacheEntry *type = lookup_type_cache(key->type, TYPECACHE_BTREE_OPFAMILY);

	return index->rd_index->indkey.values[i] == key->attno &&
		TupleDescAttr(RelationGetDescr(index), i)->atttypid == key->type &&
		index->rd_opfamily[i] == type->btree_opf &&
		index->rd_opcintype[i] == type->btree_opintype &&
		index->rd_indcollation[i] == key->collation &&
		index->rd_indoption[i] == 0;	/* neither DESC nor NULLS FIRST */
}

/* Whether it can be scanned by these keys, perhaps followed by more; it may be partitioned */
bool
relcheck_index(Relation index, Oid table, const IndexKey *keys, int nkeys)
{
	Form_pg_index form = index->rd_index;
	int			i;

	if (form == NULL || form->indrelid != table || index->rd_rel->relam != BTREE_AM_OID ||
		!form->indisvalid || !form->indislive || form->indnkeyatts < nkeys)
		return false;
	for (i = 0; i < nkeys; i++)
	{
		if (!has_key(index, i, &keys[i]))
			return false;
	}
	return true;
}

/* Whether it has all rows: no predicate */
bool
relcheck_index_is_whole(Relation index)
{
	return heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

static bool
is_column(const Node *node, AttrNumber attno)
{
	return IsA(node, Var) && ((const Var *) node)->varattno == attno;
}

/* Whether its predicate compares the two columns by this function, and says nothing else */
static bool
has_comparison(Relation index, Oid function, AttrNumber vt, AttrNumber enqueued_at)
{
	List	   *predicate = RelationGetIndexPredicate(index);
	const OpExpr *op;

	if (list_length(predicate) != 1 || !IsA(linitial(predicate), OpExpr))
		return false;
	op = linitial_node(OpExpr, predicate);
	return op->opfuncid == function && list_length(op->args) == 2 &&
		((is_column(linitial(op->args), vt) && is_column(lsecond(op->args), enqueued_at)) ||
		 (is_column(linitial(op->args), enqueued_at) && is_column(lsecond(op->args), vt)));
}

/* Whether it has all deferred messages, by its predicate vt <> enqueued_at, or because it has all rows */
bool
relcheck_index_has_deferred(Relation index, AttrNumber vt, AttrNumber enqueued_at)
{
	return relcheck_index_is_whole(index) || has_comparison(index, F_TIMESTAMPTZ_NE, vt, enqueued_at);
}

/* Whether it has just the messages that are fresh, or just those that are deferred */
bool
relcheck_index_has_only(Relation index, bool fresh, AttrNumber vt, AttrNumber enqueued_at)
{
	return has_comparison(index, fresh ? F_TIMESTAMPTZ_EQ : F_TIMESTAMPTZ_NE, vt, enqueued_at);
}

/* Whether it has just the rows where a boolean column is true */
bool
relcheck_index_has_flagged(Relation index, AttrNumber flag)
{
	List	   *predicate = RelationGetIndexPredicate(index);

	return list_length(predicate) == 1 && is_column(linitial(predicate), flag);
}

/* An expression on a table as an index keeps it */
static Node *
parse_index_expression(Relation table, const char *sql)
{
	ParseState *state = make_parsestate(NULL);
	ParseNamespaceItem *item = addRangeTableEntryForRelation(state, table, AccessShareLock,
															 NULL, false, true);
	RawStmt    *raw = linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_PLPGSQL_EXPR));
	ResTarget  *target = linitial_node(ResTarget, castNode(SelectStmt, raw->stmt)->targetList);
	Node	   *expression;

	addNSItemToQuery(state, item, true, true, true);
	expression = transformExpr(state, target->val, EXPR_KIND_INDEX_EXPRESSION);
	assign_expr_collations(state, expression);
	expression = eval_const_expressions(NULL, expression);
	fix_opfuncids(expression);
	free_parsestate(state);
	return expression;
}

static bool
has_expression(Relation index, Relation table, const char *sql)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgmq index expression",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	List	   *expressions = RelationGetIndexExpressions(index);
	bool		same = list_length(expressions) == 1 &&
		equal(linitial(expressions), parse_index_expression(table, sql));

	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return same;
}

/*
 * Whether the only expression of an index is this one, in which all names are
 * qualified.  "sql" is a constant; the answer is remembered by its address.
 */
bool
relcheck_index_expression(Relation index, Relation table, const char *sql)
{
	Oid			relid = RelationGetRelid(index);
	uint64		changes = changes_of_relation(relid) + changes_of_relation(RelationGetRelid(table));
	KnownIndex *known = &KnownIndexes[relid % KNOWN];

	if (known->index == relid && known->expression == sql && known->changes == changes)
		return true;
	if (!has_expression(index, table, sql))
		return false;
	*known = (KnownIndex) {relid, sql, changes};
	return true;
}

/* ---- sequences ---- */

/* The sequence of a column that was declared as serial, as old queues have it */
static Oid
serial_sequence(Relation rel, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, getOwnedSequences(RelationGetRelid(rel)))
	{
		Oid			table;
		int32		column;

		if (sequenceIsOwned(lfirst_oid(lc), DEPENDENCY_AUTO, &table, &column) &&
			table == RelationGetRelid(rel) && column == attno)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/*
 * The sequence that the column msg_id of a table owns, or event_id of a log; InvalidOid if there is none.
 * "lasting": to give the column another one is a change of the table or of the sequence.
 */
Oid
relcheck_sequence(Relation rel, bool *lasting)
{
	AttrNumber	attno = relcheck_column(RelationGetDescr(rel), "msg_id", INT8OID);

	*lasting = false;
	if (attno == InvalidAttrNumber)
		attno = relcheck_column(RelationGetDescr(rel), "event_id", INT8OID);
	if (attno == InvalidAttrNumber)
		return InvalidOid;
	if (TupleDescAttr(RelationGetDescr(rel), attno - 1)->attidentity == '\0')
		return serial_sequence(rel, attno);
	*lasting = true;
	return getIdentitySequence(rel, attno, true);
}

/* ---- the extension's own tables ---- */

typedef struct OwnColumn
{
	const char *name;			/* NULL behind the last one */
	Oid			type;
} OwnColumn;

static const OwnColumn meta_columns[] = {
	{"queue_name", VARCHAROID}, {"is_partitioned", BOOLOID}, {"is_unlogged", BOOLOID},
	{"created_at", TIMESTAMPTZOID}, {NULL, InvalidOid}
};

static const OwnColumn topic_bindings_columns[] = {
	{"pattern", TEXTOID}, {"queue_name", TEXTOID}, {"bound_at", TIMESTAMPTZOID},
	{"compiled_regex", TEXTOID}, {NULL, InvalidOid}
};

static const OwnColumn notify_settings_columns[] = {
	{"queue_name", VARCHAROID}, {"throttle_interval_ms", INT4OID},
	{"last_notified_at", TIMESTAMPTZOID}, {NULL, InvalidOid}
};

static const OwnColumn partition_config_columns[] = {
	{"queue_name", VARCHAROID}, {"retention_interval", TEXTOID}, {"drop_unread", BOOLOID},
	{"drop_consumed", BOOLOID}, {"converted_archive", TEXTOID}, {NULL, InvalidOid}
};

static const OwnColumn policy_columns[] = {
	{"queue_name", VARCHAROID}, {"identity", TEXTOID},
	{"max_reads", INT4OID}, {"dead_letter_queue", TEXTOID},
	{"retry_delay", INTERVALOID}, {"retry_backoff", FLOAT8OID}, {"retry_delay_max", INTERVALOID},
	{"message_ttl", INTERVALOID}, {"max_length", INT8OID}, {"overflow", TEXTOID},
	{"priority", BOOLOID}, {"priority_max_wait", INTERVALOID}, {"max_in_flight", INT4OID},
	{"rate_limit", INT4OID}, {"rate_period", INTERVALOID}, {"dedup_window", INTERVALOID},
	{"archive_retention", INTERVALOID}, {"paused_until", TIMESTAMPTZOID}, {NULL, InvalidOid}
};

static const OwnColumn stream_columns[] = {
	{"stream_name", TEXTOID}, {"identity", TEXTOID}, {"shards", INT4OID}, {"retention", INTERVALOID},
	{"keep_unconsumed", INTERVALOID}, {"created_at", TIMESTAMPTZOID}, {NULL, InvalidOid}
};

static const OwnColumn subscription_columns[] = {
	{"stream_name", TEXTOID}, {"subscription", TEXTOID}, {"identity", TEXTOID}, {"role", NAMEOID},
	{"created_at", TIMESTAMPTZOID}, {"dropped_events", INT8OID}, {NULL, InvalidOid}
};

static const OwnColumn stream_bindings_columns[] = {
	{"pattern", TEXTOID}, {"stream_name", TEXTOID}, {"bound_at", TIMESTAMPTZOID},
	{"compiled_regex", TEXTOID}, {NULL, InvalidOid}
};

static const struct
{
	const char *relname;
	const OwnColumn *columns;
}			own_tables[OWN_TABLES] = {
	[OWN_META] = {"meta", meta_columns},
	[OWN_TOPIC_BINDINGS] = {"topic_bindings", topic_bindings_columns},
	[OWN_NOTIFY_SETTINGS] = {"notify_insert_throttle", notify_settings_columns},
	[OWN_PARTITION_CONFIG] = {"partition_config", partition_config_columns},
	[OWN_POLICY] = {"policy", policy_columns},
	[OWN_STREAM] = {"stream", stream_columns},
	[OWN_SUBSCRIPTION] = {"subscription", subscription_columns},
	[OWN_STREAM_BINDINGS] = {"topic_stream_bindings", stream_bindings_columns}
};

/* The relation that has the name now, not locked and not checked; or InvalidOid */
Oid
relcheck_own_relid(OwnTable table)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(own_tables[table].relname, schema) : InvalidOid;
}

/* The type that a column must have */
Oid
relcheck_own_type(OwnTable table, const char *column)
{
	int			i;

	for (i = 0; own_tables[table].columns[i].name != NULL; i++)
	{
		if (strcmp(own_tables[table].columns[i].name, column) == 0)
			return own_tables[table].columns[i].type;
	}
	elog(ERROR, "table %s has no column %s", own_tables[table].relname, column);
}

/* Lock the relation that has the name now; the lock keeps it from being renamed */
static Oid
lock_by_name(OwnTable table, LOCKMODE lockmode)
{
	for (;;)
	{
		Oid			relid = relcheck_own_relid(table);

		if (!OidIsValid(relid))
		{
			version_refuse_other(psprintf("There is no relation \"%s.%s\".", PGMQ_SCHEMA, own_tables[table].relname));
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation \"%s.%s\" does not exist", PGMQ_SCHEMA, own_tables[table].relname),
					 errhint("It is a table of the extension pgmq. Rename it back, or restore it.")));
		}
		LockRelationOid(relid, lockmode);
		if (relcheck_own_relid(table) == relid)
			return relid;
		UnlockRelationOid(relid, lockmode);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
refuse_own_table(const char *relname, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s.%s\" is not the table that the extension pgmq made", PGMQ_SCHEMA, relname),
			 errdetail("%s", detail),
			 errhint("Restore the table of the extension.")));
}

static void
check_own_table(OwnTable table, Relation rel)
{
	const char *relname = own_tables[table].relname;
	Oid			extension = get_extension_oid("pgmq", true);
	int			i;

	if (!relcheck_is_heap(rel))
		refuse_own_table(relname, "It is not an ordinary table of the access method heap.");
	if (!OidIsValid(extension) ||
		getExtensionOfObject(RelationRelationId, RelationGetRelid(rel)) != extension)
		refuse_own_table(relname, "It is not a member of the extension.");
	if (rel->rd_rel->relhassubclass && find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		refuse_own_table(relname, "Other tables inherit from it.");
	for (i = 0; own_tables[table].columns[i].name != NULL; i++)
	{
		const char *name = own_tables[table].columns[i].name;
		Oid			type = own_tables[table].columns[i].type;

		if (relcheck_column(RelationGetDescr(rel), name, type) == InvalidAttrNumber)
		{
			version_refuse_other(psprintf("Table \"%s.%s\" has no column \"%s\" of type %s.",
										  PGMQ_SCHEMA, relname, name, format_type_be(type)));
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("table \"%s.%s\" does not have the columns that the extension pgmq made",
							PGMQ_SCHEMA, relname),
					 errdetail("It has no column \"%s\" of type %s.", name, format_type_be(type)),
					 errhint("Restore the name and the type of the column.")));
		}
	}
}

/*
 * Lock a table of the extension, and check it.  The lock stays until the
 * transaction ends, so that a statement that follows finds the same table.
 * No privilege is asked for: that is left to the statement.
 */
Oid
relcheck_own_table(OwnTable table, LOCKMODE lockmode)
{
	Oid			relid = lock_by_name(table, lockmode);
	uint64		changes = changes_of_relation(relid);
	Relation	rel;

	if (Checked[table].relid == relid && Checked[table].changes == changes)
		return relid;
	rel = relation_open(relid, NoLock);
	check_own_table(table, rel);
	relation_close(rel, NoLock);
	Checked[table].relid = relid;
	Checked[table].changes = changes;
	return relid;
}

/* ---- values ---- */

/* A value of the last statement as text, which is NULL only if an object is broken; palloc'd */
char *
relcheck_text(uint64 row, int column, const char *what)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s is NULL", what)));
	return value;
}

/* ---- the rows that functions return ---- */

static bool
has_attributes(TupleDesc desc, const Oid *types, int count)
{
	int			live = 0;
	bool		same = desc->natts > 0 && !TupleDescAttr(desc, 0)->attisdropped;
	int			i;

	for (i = 0; same && i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped)
			same = live < count && att->atttypid == types[live++];
	}
	return same && live == count;
}

/*
 * Whether the type has the attributes by now.  While an update commits, a session can
 * learn of a function before it learns of the type.  What the session keeps of the type
 * does not tell: a commit is visible a moment before it invalidates that.
 */
static bool
has_attributes_now(TupleDesc desc, const Oid *types, int count)
{
	Oid			relid = desc->tdtypeid == RECORDOID ? InvalidOid : get_typ_typrelid(desc->tdtypeid);
	Relation	rel = table_open(AttributeRelationId, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	int			live = 0;
	bool		same = OidIsValid(relid);

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTGreaterStrategyNumber, F_INT2GT, Int16GetDatum(0));
	scan = systable_beginscan(rel, AttributeRelidNumIndexId, true, snapshot, lengthof(keys), keys);
	while (same && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

		if (!att->attisdropped)
			same = live < count && att->atttypid == types[live++];
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return same && live == count;
}

/*
 * The owner of the extension can alter the composite types that its functions return.
 * An attribute that was added and dropped again stays in the row, as a NULL.  The
 * first one must be ours: rows are sorted by it.
 */
void
relcheck_row_type(TupleDesc desc, const Oid *types, int count, const char *type_name)
{
	if (has_attributes(desc, types, count))
		return;
	if (has_attributes_now(desc, types, count))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("type \"%s.%s\" was altered concurrently", PGMQ_SCHEMA, type_name),
				 errhint("Run the statement again.")));
	version_refuse_other(psprintf("Type \"%s.%s\" has other attributes.", PGMQ_SCHEMA, type_name));
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type \"%s.%s\" does not have the attributes that the extension pgmq made",
					PGMQ_SCHEMA, type_name),
			 errhint("Restore the attributes of the type.")));
}

/* A row of a type that has passed the check, of the values of its attributes; palloc'd */
HeapTuple
relcheck_row(TupleDesc desc, const Datum *values, const bool *nulls)
{
	Datum	   *all_values = palloc0(sizeof(Datum) * desc->natts);
	bool	   *all_nulls = palloc(sizeof(bool) * desc->natts);
	int			live = 0;
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		all_nulls[i] = TupleDescAttr(desc, i)->attisdropped || nulls[live];
		if (!TupleDescAttr(desc, i)->attisdropped)
			all_values[i] = values[live++];
	}
	return heap_form_tuple(desc, all_values, all_nulls);
}
