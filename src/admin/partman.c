/*
 * partman.c
 *	  What pg_partman knows of our tables: its table part_config.
 *
 * Our partitions are made in partmake.c.  pg_partman keeps a record of each
 * table, so that its own maintenance and other programs know the table.
 *
 * 1. No function of pg_partman is ever called.  They run with the rights of the
 *	  caller, under a search path with pg_partman's schema in it, and take parts
 *	  of SQL from part_config.  A role that can create a function in that
 *	  schema, or write to that table, would have the rights of every caller.
 * 2. part_config is used only if it is a member of pg_partman, and an ordinary
 *	  table whose columns have the expected types.  A lock keeps it so.
 * 3. The record of a table is read without a statement.  Statements on part_config
 *	  run as its owner.  So no other role needs rights on it.  The owner of the queue's table may have its record changed, if
 *	  USAGE on pg_partman's schema was granted.
 * 4. Only the owner of part_config can have code in it: see check_triggers().
 * 5. What the record says is checked like an argument of a call, since roles
 *	  that were granted more may have changed it.
 *
 * pg_partman may come, go, move to another schema or to another version while
 * sessions live, so it is looked up at each call.  Versions 4 and 5 differ in
 * the name of the partition type, and in how names of partitions are made.
 *
 * part_config names a table by the unquoted text "schema.table".  So a name
 * with a dot cannot be used.  See partman_check_name().
 */
#include "pgmq.h"

#include <ctype.h>

#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type_d.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq__ensure_pg_partman_installed);
PG_FUNCTION_INFO_V1(pgmq__get_pg_partman_schema);
PG_FUNCTION_INFO_V1(pgmq__get_pg_partman_major_version);
PG_FUNCTION_INFO_V1(pgmq__get_partition_col);
PG_FUNCTION_INFO_V1(pgmq__extension_exists);

/* False if pg_partman is not installed; the caller has connected to SPI */
bool
partman_find(Partman *pm)
{
	if (run_with_texts("SELECT n.nspname, pg_catalog.split_part(e.extversion, '.', 1), e.oid, n.oid"
					   " FROM pg_catalog.pg_extension AS e"
					   " JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
					   " WHERE e.extname OPERATOR(pg_catalog.=) 'pg_partman'", 0, NULL) == 0)
		return false;
	pm->schema = row_text(0, 1);
	pm->major = pg_strtoint32(row_text(0, 2));
	pm->extension = row_oid(0, 3);
	pm->namespace = row_oid(0, 4);
	return true;
}

void
partman_require(Partman *pm)
{
	if (!partman_find(pm))
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("pg_partman is required for partitioned queues"),
				 errhint("Install it with CREATE EXTENSION pg_partman.")));
}

/* ---- part_config ---- */

/* Columns that we read or write; all versions have them, except the last */
static const struct
{
	const char *name;
	Oid			type;
}			config_columns[] = {
	{"parent_table", TEXTOID}, {"control", TEXTOID}, {"partition_type", TEXTOID},
	{"partition_interval", TEXTOID}, {"premake", INT4OID}, {"retention", TEXTOID},
	{"retention_keep_table", BOOLOID}, {"retention_keep_index", BOOLOID},
	{"infinite_time_partitions", BOOLOID}, {"datetime_string", TEXTOID},
	{"automatic_maintenance", TEXTOID}
};

static void
refuse_config(const Partman *pm, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s.part_config\" is not the table that the extension pg_partman made", pm->schema),
			 errdetail("%s", detail)));
}

static Oid
function_owner(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/*
 * A role that was granted TRIGGER can add a trigger, which would run as the
 * table's owner here.  Its function must belong to a role that has the rights
 * of the table's owner anyway.  Rules, policies and constraints are the owner's.
 */
static void
check_triggers(const Partman *pm, Relation rel)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];
		Oid			owner = function_owner(trigger->tgfoid);

		if (!trigger->tgisinternal &&
			(!OidIsValid(owner) || !has_privs_of_role(owner, rel->rd_rel->relowner)))
			refuse_config(pm, psprintf("The function of its trigger \"%s\" belongs to a role"
									   " without the rights of the table's owner.", trigger->tgname));
	}
}

static void
check_config(const Partman *pm, Relation rel)
{
	int			i;

	if (!relcheck_is_heap(rel))
		refuse_config(pm, "It is not an ordinary table of the access method heap.");
	if (getExtensionOfObject(RelationRelationId, RelationGetRelid(rel)) != pm->extension)
		refuse_config(pm, "It is not a member of the extension.");
	for (i = 0; i < lengthof(config_columns); i++)
	{
		if (relcheck_column(RelationGetDescr(rel), config_columns[i].name,
							config_columns[i].type) == InvalidAttrNumber)
			refuse_config(pm, psprintf("It has no column \"%s\" of type %s.", config_columns[i].name,
									   format_type_be(config_columns[i].type)));
	}
	check_triggers(pm, rel);
}

/* Lock part_config, so that it stays as it is until the transaction ends.  Returns its owner */
static Oid
lock_config(const Partman *pm, LOCKMODE lockmode, Oid *relid)
{
	Relation	rel;
	Oid			owner;

	*relid = get_relname_relid("part_config", pm->namespace);
	if (!OidIsValid(*relid))
		refuse_config(pm, "There is no such relation.");
	LockRelationOid(*relid, lockmode);
	if (get_relname_relid("part_config", pm->namespace) != *relid)
		refuse_config(pm, "It was replaced concurrently.");
	rel = relation_open(*relid, NoLock);
	check_config(pm, rel);
	owner = rel->rd_rel->relowner;
	relation_close(rel, NoLock);
	return owner;
}

Oid
partman_config_relid(const Partman *pm)
{
	Oid			relid;

	(void) lock_config(pm, AccessShareLock, &relid);
	return relid;
}

/* Run a statement with part_config in place of the only %s, as the owner of that */
static uint64
run_on_config(const Partman *pm, LOCKMODE lockmode, const char *sql, int nargs, const char *const *args)
{
	OwnerScope	scope;
	Oid			relid;
	uint64		rows;

	owner_begin(lock_config(pm, lockmode, &relid), &scope);
	set_option("intervalstyle", "postgres");
	rows = run_with_texts(psprintf(sql, quote_qualified_identifier(pm->schema, "part_config")),
						  nargs, args);
	owner_end(&scope);
	return rows;
}

#define OF_TABLE " WHERE parent_table OPERATOR(pg_catalog.=) $1"

/* The record is changed as another role; so its rights are asked for here */
static void
write_config(const Partman *pm, const QueueName *name, char prefix,
			 const char *sql, int nargs, const char *const *args)
{
	Oid			relid = queue_relid(name, prefix);

	(void) LookupExplicitNamespace(pm->schema, false);
	if (OidIsValid(relid) && !has_privs_of_role(GetUserId(), owner_of(relid)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table %s", name_table(name, prefix))));
	run_on_config(pm, RowExclusiveLock, sql, nargs, args);
}

/* Whether pg_partman has a record of the table */
bool
partman_knows(const Partman *pm, const QueueName *name, char prefix)
{
	const char *parent = name_unquoted(name, prefix);

	return run_on_config(pm, AccessShareLock, "SELECT FROM ONLY %s" OF_TABLE, 1, &parent) > 0;
}

/* False if pg_partman does not know the table.  No code of part_config's owner runs. */
bool
partman_config(const Partman *pm, const QueueName *name, char prefix, PartmanConfig *config)
{
	static const char *const columns[] = {"partition_interval", "premake", "retention", "datetime_string"};
	static const Oid types[] = {TEXTOID, INT4OID, TEXTOID, TEXTOID};
	OwnRow		row;

	if (!ownread_find(partman_config_relid(pm), VIEW_OF_STATEMENT, "parent_table", TEXTOID,
					  name_unquoted(name, prefix), columns, types, lengthof(columns), &row))
		return false;
	if (row.nulls[0] || row.nulls[1])
		refuse_config(pm, psprintf("It says NULL where the partitions of %s are described.",
								   name_table(name, prefix)));
	config->interval = ownread_text(&row, 0);
	config->premake = DatumGetInt32(row.values[1]);
	config->retention = ownread_text(&row, 2);
	config->datetime_string = ownread_text(&row, 3);
	return true;
}

/*
 * infinite_time_partitions: pg_partman makes partitions for the future even if
 * no message has been sent for a while.
 */
#define RECORD \
	"INSERT INTO %%s (parent_table, control, partition_interval, premake, partition_type, datetime_string," \
	" retention, retention_keep_table, retention_keep_index, automatic_maintenance, infinite_time_partitions%s)" \
	" VALUES ($1, $2, $3, $4::pg_catalog.int4, $5, $6, $7, false, $8::pg_catalog.bool, 'on', $9::pg_catalog.bool%s)"

/* Have pg_partman know a table; its record is new */
void
partman_record(const Partman *pm, const QueueName *name, char prefix, const PartmanSet *set)
{
	const char *args[] = {
		name_unquoted(name, prefix), set->control, set->interval, psprintf("%d", set->premake),
		pm->major >= 5 ? "range" : "native",
		set->by_time ? partman_datetime_string(pm, set->interval) : NULL,
		set->retention, set->start == NULL ? "true" : "false", set->by_time ? "true" : "false",
		GetUserNameFromId(owner_of(queue_relid(name, prefix)), false)
	};
	Oid			relid;
	bool		has_role;

	if (set->by_time)
		args[2] = run_for_text("SELECT $1::pg_catalog.interval::pg_catalog.text", 1, &set->interval);
	partman_forget_record(pm, name, prefix);
	(void) lock_config(pm, RowExclusiveLock, &relid);
	has_role = get_attnum(relid, "maintenance_role") != InvalidAttrNumber;
	write_config(pm, name, prefix, psprintf(RECORD, has_role ? ", maintenance_role" : "", has_role ? ", $10" : ""),
				 lengthof(args) - (has_role ? 0 : 1), args);
}

/* Let pg_partman drop older partitions with all that is in them; NULL: none */
void
partman_set_retention(const Partman *pm, const QueueName *name, char prefix,
					  const char *retention)
{
	const char *args[] = {name_unquoted(name, prefix), retention};

	write_config(pm, name, prefix, "UPDATE %s SET retention = $2" OF_TABLE, lengthof(args), args);
}

void
partman_forget_record(const Partman *pm, const QueueName *name, char prefix)
{
	const char *parent = name_unquoted(name, prefix);

	if (partman_knows(pm, name, prefix))
		write_config(pm, name, prefix, "DELETE FROM %s" OF_TABLE, 1, &parent);
}

/* ---- names of partitions ---- */

#define AT_LEAST(span) "$1::interval OPERATOR(pg_catalog.>=) '" span "'"

/* How pg_partman writes the lower bound of a partition into its name */
const char *
partman_datetime_string(const Partman *pm, const char *interval)
{
	return run_for_text(pm->major >= 5
						? "SELECT CASE WHEN " AT_LEAST("1 day") " THEN 'YYYYMMDD' ELSE 'YYYYMMDD_HH24MISS' END"
						: "SELECT CASE WHEN " AT_LEAST("1 year") " THEN 'YYYY' WHEN " AT_LEAST("1 month") " THEN 'YYYY_MM'"
						" WHEN " AT_LEAST("1 day") " THEN 'YYYY_MM_DD' WHEN " AT_LEAST("1 minute")
						" THEN 'YYYY_MM_DD_HH24MI' ELSE 'YYYY_MM_DD_HH24MISS' END", 1, &interval);
}

/*
 * Refuse names that pg_partman's own maintenance cannot handle.  It misreads a name
 * with a dot.  It also cuts a name so that "_p" and a time fit.  Up to version 4 it
 * counts characters there, where the server counts bytes.
 */
void
partman_check_name(const Partman *pm, const QueueName *name, const PartmanSet *set)
{
	const char *relname = strchr(name_unquoted(name, QUEUE_TABLE), '.') + 1;
	int			suffix;
	int			characters;

	if (strchr(name->canonical, '.') != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot be partitioned", name->canonical),
				 errdetail("pg_partman does not support table names with a dot."),
				 errhint("Choose a name without a dot, or a queue that is not partitioned.")));
	if (!set->by_time || pm->major >= 5)
		return;
	suffix = run_with_texts("SELECT WHERE " AT_LEAST("1 day"), 1, &set->interval) > 0
		? (int) strlen("_p9999_99_99") : (int) strlen("_p9999_99_99_999999");
	characters = Min(pg_mbstrlen(relname), NAMEDATALEN - 1 - suffix);
	if (pg_mbcharcliplen(relname, (int) strlen(relname), characters) + suffix >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot be partitioned by time", name->canonical),
				 errdetail("pg_partman %d would cut the names of its partitions.", pm->major),
				 errhint("Choose a shorter name; characters outside ASCII take more than one byte.")));
}

/* ---- what earlier versions of this extension had made ---- */

/*
 * The template tables that pg_partman has made for the table.  They are no
 * members of pg_partman, and so outlive it.  Then only their names and columns
 * identify them.
 */
#define TEMPLATES_SQL \
	"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)" \
	" FROM pg_catalog.pg_class AS c" \
	" JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace" \
	" WHERE c.relname OPERATOR(pg_catalog.=) $1 AND c.relkind OPERATOR(pg_catalog.=) 'r'" \
	" AND pg_catalog.pg_has_role(c.relowner, 'USAGE')" \
	" AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute AS a" \
	"  WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid" \
	"  AND a.attname OPERATOR(pg_catalog.=) ANY ('{msg_id,read_ct,enqueued_at,vt,message}'))" \
	" OPERATOR(pg_catalog.=) 5"

/* Whether the record of another table names it as its template */
static bool
is_template_of_another(const Partman *pm, const char *table)
{
	return run_on_config(pm, AccessShareLock, "SELECT FROM ONLY %s WHERE template_table OPERATOR(pg_catalog.=)"
						 " pg_catalog.array_to_string(pg_catalog.parse_ident($1), '.')", 1, &table) > 0;
}

/*
 * Remove every trace of the table from pg_partman, and its template tables.  pm
 * is NULL if pg_partman was dropped.  A template table under another name is
 * its owner's own and stays.
 */
void
partman_forget(const Partman *pm, const QueueName *name, char prefix)
{
	const char *template = psprintf("template_%s_%s", PGMQ_SCHEMA,
									strchr(name_unquoted(name, prefix), '.') + 1);
	uint64		count;
	uint64		i;
	char	  **tables;

	if (pm != NULL)
		partman_forget_record(pm, name, prefix);
	count = run_with_texts(TEMPLATES_SQL, 1, &template);
	tables = palloc(sizeof(char *) * Max(count, 1));
	for (i = 0; i < count; i++)
		tables[i] = row_text(i, 1);
	for (i = 0; i < count; i++)
	{
		if (pm == NULL || !is_template_of_another(pm, tables[i]))
			run_ddl("DROP TABLE %s", tables[i]);
	}
}

/* pgmq._ensure_pg_partman_installed() -> void */
Datum
pgmq__ensure_pg_partman_installed(PG_FUNCTION_ARGS)
{
	Partman		pm;

	SPI_connect();
	partman_require(&pm);
	SPI_finish();
	PG_RETURN_VOID();
}

/* pgmq._get_pg_partman_schema() -> text, quoted; NULL without pg_partman */
Datum
pgmq__get_pg_partman_schema(PG_FUNCTION_ARGS)
{
	Partman		pm;
	bool		found;
	MemoryContext caller = CurrentMemoryContext;
	text	   *schema = NULL;

	SPI_connect();
	found = partman_find(&pm);
	if (found)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);

		schema = cstring_to_text(quote_identifier(pm.schema));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(schema);
}

/* pgmq._get_pg_partman_major_version() -> integer; NULL without pg_partman */
Datum
pgmq__get_pg_partman_major_version(PG_FUNCTION_ARGS)
{
	Partman		pm;
	bool		found;

	SPI_connect();
	found = partman_find(&pm);
	SPI_finish();
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_INT32(pm.major);
}

/* As integer's input takes it, without what only newer servers take */
static bool
is_integer(const char *value)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(value, &end, 10);
	while (isspace((unsigned char) *end))
		end++;
	return end != value && *end == '\0' && errno == 0 &&
		number >= PG_INT32_MIN && number <= PG_INT32_MAX;
}

/* An interval that is a number counts ids, another one is a time */
bool
partman_by_time(const char *partition_interval)
{
	return !is_integer(partition_interval);
}

/*
 * What create_partitioned() and convert_archive_partitioned() are asked for by
 * their arguments partition_interval (1), retention_interval (2) and the
 * number of partitions ahead (3).  The caller has refused NULL for the first and the last.
 */
void
partman_wanted(FunctionCallInfo fcinfo, PartmanSet *set, const char **retention)
{
	PartStep	step;

	set->interval = text_to_cstring(PG_GETARG_TEXT_PP(1));
	set->by_time = partman_by_time(set->interval);
	set->premake = PG_GETARG_INT32(3);
	*retention = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	partset_step(set->by_time, "partition_interval", set->interval, false, &step);
	if (*retention)
		partset_step(set->by_time, "retention_interval", *retention, true, &step);
}

/* pgmq._get_partition_col(partition_interval text) -> text: the column to partition by */
Datum
pgmq__get_partition_col(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0) && partman_by_time(text_to_cstring(PG_GETARG_TEXT_PP(0))))
		PG_RETURN_TEXT_P(cstring_to_text("enqueued_at"));
	PG_RETURN_TEXT_P(cstring_to_text("msg_id"));
}

/* pgmq._extension_exists(extension_name text) -> boolean: whether it is installed */
Datum
pgmq__extension_exists(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!PG_ARGISNULL(0) &&
				   OidIsValid(get_extension_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), true)));
}
