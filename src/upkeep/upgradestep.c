/*
 * upgradestep.c
 *	  What a queue of the PL/pgSQL extension lacks, and what to do about it next.
 *
 * Each answer is found in the catalogs, so an upgrade that was interrupted goes on
 * where it was.  The view pgmq.queues_to_upgrade shows the same answers.
 *
 * An index that is to replace another gets a second name, "...$new", then both
 * names are changed in one transaction.  The old one is "...$old" until it is
 * dropped.  No queue can have a name with a dollar.  An index of the second name
 * that an earlier call has left is dropped, whatever it is.
 *
 * The index of a partitioned table is made on the table only, which makes it
 * invalid; then on each partition, and attached.  The last one makes it valid.
 * New partitions get their part of it from the start.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "queue/queue.h"
#include "notify/notify.h"
#include "admin/admin.h"
#include "upkeep/upgrade.h"

PG_FUNCTION_INFO_V1(pgmq__queues_to_upgrade);

#define SECOND_NAME "$new"
#define FORMER_NAME "$old"

#define EQUALS " OPERATOR(pg_catalog.=) "

/*
 * $1 the tables of queues.  An index by msg_id may have any name; the shape says that
 * the index of our name is one, even if it is not valid.  Under quote_all_identifiers
 * the server quotes the names of columns.
 */
#define INDEX_NAMED(suffix) \
	"(SELECT x.* FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid" EQUALS "x.indexrelid" \
	" WHERE x.indrelid" EQUALS "c.oid" \
	" AND i.relname" EQUALS "pg_catalog.concat(c.relname, '" suffix "')"

#define HAS_VT_SHAPE \
	"(SELECT a.amname" EQUALS "'btree' FROM pg_catalog.pg_class AS i" \
	" JOIN pg_catalog.pg_am AS a ON a.oid" EQUALS "i.relam WHERE i.oid" EQUALS "x.indexrelid)" \
	" AND x.indnatts" EQUALS "2" \
	" AND pg_catalog.replace(pg_catalog.pg_get_indexdef(x.indexrelid, 1, false), '\"', '')" EQUALS "'vt'" \
	" AND pg_catalog.replace(pg_catalog.pg_get_indexdef(x.indexrelid, 2, false), '\"', '')" EQUALS "'msg_id'" \
	" AND pg_catalog.replace(pg_catalog.pg_get_expr(x.indpred, x.indrelid), '\"', '')" EQUALS "'(vt <> enqueued_at)'"

#define HAS_ID_SHAPE \
	"(SELECT a.amname" EQUALS "'btree' FROM pg_catalog.pg_class AS i" \
	" JOIN pg_catalog.pg_am AS a ON a.oid" EQUALS "i.relam WHERE i.oid" EQUALS "x.indexrelid)" \
	" AND pg_catalog.replace(pg_catalog.pg_get_indexdef(x.indexrelid, 1, false), '\"', '')" EQUALS "'msg_id' AND x.indpred IS NULL"

#define IS_LEFT_OVER(suffix) \
	"EXISTS (SELECT FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid" EQUALS "x.indexrelid" \
	" WHERE x.indrelid" EQUALS "c.oid AND i.relname" EQUALS "ANY (ARRAY[" \
	"pg_catalog.concat(c.relname, '" suffix SECOND_NAME "'), pg_catalog.concat(c.relname, '" suffix FORMER_NAME "')]))"

/*
 * The statements that complete the queue's table and its archive.  An old create() that was at work during
 * the update leaves an archive without columns, if the queue is partitioned; before 1.6 it makes the
 * tables and the sequence members of the extension, and a dump does not contain those.
 */
#define TABLE_CHANGES \
	"(SELECT pg_catalog.string_agg(s.statement, '; ' ORDER BY t.relname DESC)" \
	" FROM pg_catalog.pg_class AS t, LATERAL (" \
	"SELECT pg_catalog.format('ALTER TABLE pgmq.%I ADD COLUMN %s', t.relname, n.definition)" \
	" FROM (VALUES ('headers', 'headers pg_catalog.jsonb')," \
	" ('last_read_at', 'last_read_at pg_catalog.timestamptz')) AS n (name, definition)" \
	" WHERE t.relkind OPERATOR(pg_catalog.<>) 'S'" \
	" AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid" EQUALS "t.oid" \
	" AND a.attname" EQUALS "n.name AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)" \
	" UNION ALL SELECT pg_catalog.format('ALTER EXTENSION pgmq DROP %s pgmq.%I'," \
	" CASE t.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, t.relname)" \
	" FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid" EQUALS "d.refobjid" \
	" WHERE d.classid" EQUALS "'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid" EQUALS "t.oid" \
	" AND d.refclassid" EQUALS "'pg_catalog.pg_extension'::pg_catalog.regclass" \
	" AND d.deptype" EQUALS "'e' AND e.extname" EQUALS "'pgmq') AS s (statement)" \
	" WHERE t.relnamespace" EQUALS "c.relnamespace AND NOT t.relispartition" \
	" AND t.relkind" EQUALS "ANY (ARRAY['p', 'r', 'S']::pg_catalog.\"char\"[])" \
	" AND t.relname" EQUALS "ANY (ARRAY[c.relname, pg_catalog.concat(c.relname, '_msg_id_seq')::pg_catalog.name," \
	" pg_catalog.concat('a_', pg_catalog.substr(c.relname::pg_catalog.text, 3))::pg_catalog.name]))"

#define FIND_NEEDS \
	"SELECT" \
	" NOT EXISTS " INDEX_NAMED("_vt_idx") " AND x.indisvalid AND " HAS_VT_SHAPE ")," \
	" EXISTS " INDEX_NAMED("_vt_idx") " AND " HAS_VT_SHAPE ")," \
	" c.relkind" EQUALS "'p' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS x" \
	" WHERE x.indrelid" EQUALS "c.oid AND x.indisvalid AND " HAS_ID_SHAPE ")," \
	" EXISTS " INDEX_NAMED("_msg_id_idx") " AND " HAS_ID_SHAPE ")," \
	" EXISTS " INDEX_NAMED("_fifo_idx") " AND" \
	" (SELECT a.amname" EQUALS "'gin' FROM pg_catalog.pg_class AS i" \
	" JOIN pg_catalog.pg_am AS a ON a.oid" EQUALS "i.relam WHERE i.oid" EQUALS "x.indexrelid))," \
	" (SELECT s.oid::pg_catalog.regclass::text FROM pg_catalog.pg_depend AS d" \
	" JOIN pg_catalog.pg_class AS s ON d.objid" EQUALS "s.oid" \
	" WHERE d.classid" EQUALS "'pg_catalog.pg_class'::pg_catalog.regclass" \
	" AND d.refclassid" EQUALS "'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid" EQUALS "c.oid" \
	" AND d.deptype" EQUALS "ANY (ARRAY['a', 'i']::\"char\"[])" \
	" AND s.relkind" EQUALS "'S' AND s.relpersistence" EQUALS "'u' LIMIT 1)," \
	" EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid" EQUALS "c.oid" \
	" AND t.tgname" EQUALS "'trigger_notify_queue_insert_listeners' AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'" \
	" AND (t.tgtype OPERATOR(pg_catalog.&) 1::pg_catalog.int2)" EQUALS "1" \
	" AND t.tgfoid" EQUALS "'pgmq.notify_queue_listeners()'::pg_catalog.regprocedure)," \
	" c.relkind" EQUALS "'p'," \
	" " IS_LEFT_OVER("_vt_idx") ", " IS_LEFT_OVER("_msg_id_idx") ", " IS_LEFT_OVER("_fifo_idx") ", u.place::pg_catalog.int4," \
	" " TABLE_CHANGES \
	" FROM (SELECT relid, pg_catalog.min(place) AS place" \
	" FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[])) WITH ORDINALITY AS u (relid, place) GROUP BY relid) AS u" \
	" JOIN pg_catalog.pg_class AS c ON c.oid" EQUALS "u.relid" \
	" WHERE c.relkind" EQUALS "ANY (ARRAY['p', 'r']::pg_catalog.\"char\"[]) ORDER BY u.place"

/* The columns of FIND_NEEDS */
enum
{
	NEEDS_VT_INDEX = 1,
	HAS_VT_INDEX,
	NEEDS_ID_INDEX,
	HAS_ID_INDEX,
	NEEDS_GROUP_INDEX,
	UNLOGGED_SEQUENCE,
	NEEDS_TRIGGER,
	IS_PARTITIONED,
	VT_INDEX_LEFT_OVER,
	ID_INDEX_LEFT_OVER,
	GROUP_INDEX_LEFT_OVER,
	PLACE,						/* of the table in $1, from 1 on */
	CHANGES_OF_TABLES
};

/* One of the indexes, as the queue has it now */
typedef struct NeededIndex
{
	int			number;			/* in QueueUpgrade.built */
	const char *what;
	const char *suffix;
	const char *definition;		/* behind the name of the table */
	bool		needed;
	bool		shaped;			/* the index of its name is one, though it may not be valid */
	bool		partitioned;
	void		(*require) (const QueueName *name); /* an error if "change" would fail, before the index is built */
	void		(*change) (const QueueName *name);	/* with the change of names */
} NeededIndex;

static bool
row_bool(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return !isnull && DatumGetBool(value);
}

static const char *
qualified(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

/* ---- one index ---- */

/* The index of that name; InvalidOid if there is none */
static Oid
find_index(const QueueUpgrade *upgrade, const NeededIndex *index, const char *which)
{
	const char *suffix = psprintf("%s%s", index->suffix, which);
	Oid			oid = queue_index_relid(&upgrade->name, QUEUE_TABLE, suffix);

	if (!OidIsValid(oid))
		return InvalidOid;
	if ((get_rel_relkind(oid) != RELKIND_INDEX && get_rel_relkind(oid) != RELKIND_PARTITIONED_INDEX) ||
		IndexGetRelation(oid, true) != upgrade->relid)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s exists and is no index of queue \"%s\"", qualified(oid), upgrade->name.canonical),
				 errhint("Give it another name: an index of the queue needs this one.")));
	return oid;
}

static bool
is_valid_index(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(oid));
	bool		valid = HeapTupleIsValid(tuple) && ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return valid;
}

/* A partitioned index cannot be dropped concurrently; all of its parts go in an instant */
static void
drop_index(Oid oid, UpgradeStep *step)
{
	step->concurrently = get_rel_relkind(oid) == RELKIND_INDEX;
	step->sql = psprintf("DROP INDEX %s%s", step->concurrently ? "CONCURRENTLY " : "", qualified(oid));
}

static void
build_index(QueueUpgrade *upgrade, const NeededIndex *index, const char *which, UpgradeStep *step)
{
	const char *suffix = psprintf("%s%s", index->suffix, which);

	if (strlen(name_bare(&upgrade->name, QUEUE_TABLE, suffix)) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name of queue \"%s\" is too long for those of its indexes", upgrade->name.canonical),
				 errhint("Move the messages to a queue with a shorter name.")));
	if (index->require != NULL)
		index->require(&upgrade->name);
	step->concurrently = !index->partitioned;
	step->sql = psprintf("CREATE INDEX %s%s ON %s%s %s",
						 index->partitioned ? "" : "CONCURRENTLY ",
						 name_object(&upgrade->name, "q_", suffix),
						 index->partitioned ? "ONLY " : "",
						 name_table(&upgrade->name, QUEUE_TABLE), index->definition);
	upgrade->built[index->number] = *which != '\0';
}

/*
 * $1 the queue's table, $2 its index.  The first table in the tree of partitions that
 * has no part of the index: the part that its own parent has, and an index of the
 * same shape that is no part of another.
 */
#define FIND_PART \
	"WITH parts AS (SELECT x.* FROM pg_catalog.pg_partition_tree($2::pg_catalog.oid::pg_catalog.regclass) AS p" \
	" JOIN pg_catalog.pg_index AS x ON x.indexrelid" EQUALS "p.relid)" \
	" SELECT t.relid::pg_catalog.oid, t.isleaf, p.indexrelid," \
	" (SELECT x.indexrelid FROM pg_catalog.pg_index AS x" \
	" JOIN pg_catalog.pg_class AS i ON i.oid" EQUALS "x.indexrelid" \
	" JOIN pg_catalog.pg_class AS j ON j.oid" EQUALS "p.indexrelid" \
	" WHERE x.indrelid" EQUALS "t.relid AND i.relam" EQUALS "j.relam AND NOT i.relispartition" \
	" AND NOT x.indisunique AND x.indnatts" EQUALS "p.indnatts AND x.indnkeyatts" EQUALS "p.indnkeyatts" \
	" AND x.indclass" EQUALS "p.indclass AND x.indcollation" EQUALS "p.indcollation" \
	" AND x.indoption::pg_catalog.text" EQUALS "p.indoption::pg_catalog.text" \
	" AND NOT EXISTS (SELECT FROM pg_catalog.generate_series(1, x.indnatts::pg_catalog.int4) AS k" \
	" WHERE pg_catalog.pg_get_indexdef(x.indexrelid, k, false)" \
	" OPERATOR(pg_catalog.<>) pg_catalog.pg_get_indexdef(p.indexrelid, k, false))" \
	" AND pg_catalog.concat(pg_catalog.pg_get_expr(x.indpred, x.indrelid))" \
	EQUALS "pg_catalog.concat(pg_catalog.pg_get_expr(p.indpred, p.indrelid))" \
	" ORDER BY x.indisvalid DESC, x.indexrelid LIMIT 1)" \
	" FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid::pg_catalog.regclass) AS t" \
	" JOIN parts AS p ON p.indrelid" EQUALS "t.parentrelid" \
	" WHERE NOT EXISTS (SELECT FROM parts AS x WHERE x.indrelid" EQUALS "t.relid)" \
	" ORDER BY t.level, t.relid LIMIT 1"

/* All tables have their part, but it is not valid: the last table without one was dropped.  Begin anew, once. */
static void
begin_anew(QueueUpgrade *upgrade, const NeededIndex *index, Oid whole, UpgradeStep *step)
{
	if (upgrade->retries++ > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("index %s does not become valid", qualified(whole)),
				 errhint("Drop it, and call pgmq.upgrade_queues() again.")));
	upgrade->built[index->number] = false;
	drop_index(whole, step);
}

static void
complete_index(QueueUpgrade *upgrade, const NeededIndex *index, Oid whole, UpgradeStep *step)
{
	const char *args[] = {psprintf("%u", upgrade->relid), psprintf("%u", whole)};
	Oid			table;
	Oid			parent_index;
	Oid			candidate;
	bool		is_leaf;

	if (run_with_texts(FIND_PART, lengthof(args), args) == 0)
	{
		begin_anew(upgrade, index, whole, step);
		return;
	}
	table = row_oid(0, 1);
	is_leaf = row_bool(0, 2);
	parent_index = row_oid(0, 3);
	candidate = row_oid(0, 4);
	if (OidIsValid(candidate) && (!is_leaf || is_valid_index(candidate)))
		step->sql = psprintf("ALTER INDEX %s ATTACH PARTITION %s", qualified(parent_index), qualified(candidate));
	else if (OidIsValid(candidate))
		drop_index(candidate, step);
	else
	{
		step->concurrently = is_leaf;
		step->sql = psprintf("CREATE INDEX %sON %s%s %s", is_leaf ? "CONCURRENTLY " : "", is_leaf ? "" : "ONLY ",
							 qualified(table), index->definition);
	}
}

static void
exchange_indexes(const QueueUpgrade *upgrade, const NeededIndex *index, UpgradeStep *step)
{
	const QueueName *name = &upgrade->name;
	char	   *second = name_object(name, "q_", psprintf("%s%s", index->suffix, SECOND_NAME));
	char	   *former = name_object(name, "q_", psprintf("%s%s", index->suffix, FORMER_NAME));
	char	   *own = name_object(name, "q_", index->suffix);

	step->change = index->change;
	step->sql = psprintf("ALTER INDEX %s.%s RENAME TO %s; ALTER INDEX %s.%s RENAME TO %s",
						 PGMQ_SCHEMA, own, former, PGMQ_SCHEMA, second, own);
}

/* Whether the index of the second name is, or is becoming, what this call builds */
static bool
is_being_built(const QueueUpgrade *upgrade, const NeededIndex *index, Oid second)
{
	return upgrade->built[index->number] && index->needed &&
		(index->partitioned || is_valid_index(second));
}

/* The next step for this index; none: step->what stays NULL */
static void
index_step(QueueUpgrade *upgrade, const NeededIndex *index, UpgradeStep *step)
{
	Oid			own;
	Oid			second;
	Oid			former;

	step->what = index->what;
	own = find_index(upgrade, index, "");
	second = find_index(upgrade, index, SECOND_NAME);
	former = find_index(upgrade, index, FORMER_NAME);
	if (OidIsValid(former))
		drop_index(former, step);
	else if (OidIsValid(second) && !is_being_built(upgrade, index, second))
		drop_index(second, step);
	else if (!index->needed)
		step->what = NULL;
	else if (!OidIsValid(own))
		build_index(upgrade, index, "", step);
	else if (index->partitioned && index->shaped && !is_valid_index(own))
		complete_index(upgrade, index, own, step);
	else if (!OidIsValid(second))
		build_index(upgrade, index, SECOND_NAME, step);
	else if (index->partitioned && !is_valid_index(second))
		complete_index(upgrade, index, second, step);
	else
		exchange_indexes(upgrade, index, step);
}

/* ---- a queue ---- */

static bool
needs_retention(const QueueName *name)
{
	static const char *const columns[] = {"queue_name"};
	static const Oid types[] = {VARCHAROID};
	OwnRow		row;

	return !ownread_find(relcheck_own_table(OWN_PARTITION_CONFIG, AccessShareLock), VIEW_OF_LATEST, "queue_name", VARCHAROID,
						 name->canonical, columns, types, lengthof(columns), &row);
}

static void
find_indexes(NeededIndex *indexes)
{
	bool		partitioned = row_bool(0, IS_PARTITIONED);
	NeededIndex *vt = &indexes[0];
	NeededIndex *id = &indexes[1];
	NeededIndex *groups = &indexes[2];
	int			i;

	*id = (NeededIndex) {
		.what = "index on msg_id", .suffix = "_msg_id_idx", .definition = "(msg_id)",
		.needed = row_bool(0, NEEDS_ID_INDEX), .shaped = row_bool(0, HAS_ID_INDEX)
	};
	*vt = (NeededIndex) {
		.what = "index on vt", .suffix = "_vt_idx",
		.definition = "(vt, msg_id) WHERE vt OPERATOR(pg_catalog.<>) enqueued_at",
		.needed = row_bool(0, NEEDS_VT_INDEX), .shaped = row_bool(0, HAS_VT_INDEX)
	};
	*groups = (NeededIndex) {
		.what = "index for groups", .needed = row_bool(0, NEEDS_GROUP_INDEX),
		.require = group_require_notes_name, .change = group_begin_notes
	};
	group_index_shape(&groups->suffix, &groups->definition);
	for (i = 0; i < UPGRADE_INDEXES; i++)
	{
		indexes[i].number = i;
		indexes[i].partitioned = partitioned;
	}
}

/*
 * Ids that a sequence has taken in advance without writing that to the log stay with it when it
 * becomes a logged one: after a crash they would be given again.  setval() takes them back.
 */
static const char *
log_sequence(const char *sequence)
{
	return psprintf("ALTER SEQUENCE %s SET LOGGED; SELECT pg_catalog.setval(%s, last_value, is_called) FROM %s",
					sequence, quote_literal_cstr(sequence), sequence);
}

/*
 * The caller has connected to SPI, holds lock_queue() and has the rights of the queue's
 * owner.  What does not take long comes first.
 */
void
upgrade_next_step(QueueUpgrade *upgrade, UpgradeStep *step)
{
	const char *relid = psprintf("{%u}", upgrade->relid);
	NeededIndex indexes[UPGRADE_INDEXES];
	const char *changes;
	const char *sequence;
	bool		trigger;
	int			i;

	memset(step, 0, sizeof(*step));
	if (run_with_texts(FIND_NEEDS, 1, &relid) == 0)
		return;
	changes = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, CHANGES_OF_TABLES);
	sequence = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, UNLOGGED_SEQUENCE);
	trigger = row_bool(0, NEEDS_TRIGGER);
	find_indexes(indexes);
	if (changes != NULL)
		*step = (UpgradeStep) {"tables", NULL, changes, false};
	else if (sequence != NULL)
		*step = (UpgradeStep) {"sequence", NULL, log_sequence(sequence), false};
	else if (trigger)
		*step = (UpgradeStep) {"trigger for notifications", notify_renew_trigger, NULL, false};
	else if (indexes[0].partitioned && needs_retention(&upgrade->name))
		*step = (UpgradeStep) {"retention", queue_take_over_retention, NULL, false};
	for (i = 0; i < UPGRADE_INDEXES && step->what == NULL; i++)
		index_step(upgrade, &indexes[i], step);
}

/* ---- the view ---- */

/* The tables of queues as a list of oids, for FIND_NEEDS; those that are gone are 0 */
static const char *
tables_of(ListedQueue **queues)
{
	int			count = queues_list(queues);
	StringInfoData list;
	int			i;

	initStringInfo(&list);
	for (i = 0; i < count; i++)
		appendStringInfo(&list, "%c%u", i == 0 ? '{' : ',', queue_relid(&(*queues)[i].name, QUEUE_TABLE));
	appendStringInfoString(&list, count == 0 ? "{}" : "}");
	return list.data;
}

/* A row of the view, unless the queue lacks nothing */
static void
put_queue(ReturnSetInfo *result, const ListedQueue *queues, uint64 row)
{
	bool		isnull;
	int			place = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, PLACE, &isnull));
	const ListedQueue *queue = &queues[place - 1];
	bool		is_partitioned = row_bool(row, IS_PARTITIONED);
	bool		needs[] = {
		row_bool(row, NEEDS_VT_INDEX) || row_bool(row, VT_INDEX_LEFT_OVER),
		row_bool(row, NEEDS_ID_INDEX) || row_bool(row, ID_INDEX_LEFT_OVER),
		row_bool(row, NEEDS_GROUP_INDEX) || row_bool(row, GROUP_INDEX_LEFT_OVER),
		SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, UNLOGGED_SEQUENCE) != NULL,
		row_bool(row, NEEDS_TRIGGER),
		is_partitioned && needs_retention(&queue->name),
		SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, CHANGES_OF_TABLES) != NULL
	};
	Datum		values[lengthof(needs) + 2];
	bool		nulls[lengthof(needs) + 2] = {false};
	bool		needed = false;
	int			i;

	values[0] = CStringGetTextDatum(queue->spelling);
	values[1] = BoolGetDatum(is_partitioned);
	for (i = 0; i < lengthof(needs); i++)
	{
		values[i + 2] = BoolGetDatum(needs[i]);
		needed |= needs[i];
	}
	if (needed)
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* pgmq._queues_to_upgrade() -> TABLE (queue_name text, is_partitioned boolean, and what it needs) */
Datum
pgmq__queues_to_upgrade(PG_FUNCTION_ARGS)
{
	ListedQueue *queues;
	const char *tables;
	uint64		count;
	uint64		i;
	int			nest;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	tables = tables_of(&queues);
	/* Conditions of indexes are compared as text: without names of schemas */
	nest = NewGUCNestLevel();
	set_option("search_path", "pg_catalog, pg_temp");
	count = run_with_texts(FIND_NEEDS, 1, &tables);
	AtEOXact_GUC(false, nest);
	for (i = 0; i < count; i++)
		put_queue((ReturnSetInfo *) fcinfo->resultinfo, queues, i);
	SPI_finish();
	return (Datum) 0;
}
