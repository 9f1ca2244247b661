/*
 * partman.c
 *	  All that is said to pg_partman is said here, in SQL.
 *
 * pg_partman is another extension.  It may come, go, move to another schema or
 * to another version while sessions live, so it is looked up at each call.
 * Versions 4 and 5 differ: the partition type is called 'native' in 4 and
 * 'range' in 5, arguments stand in another order (hence they are always
 * named), and only 4 analyzes the whole table unless told not to.
 *
 * A table goes by the unquoted text "schema.table" there.  So a name with a dot
 * is out of reach, and partition names are cut where they get too long.  See
 * partman_check_name().
 */
#include "partman.h"

#include <ctype.h>

#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "admin.h"

PG_FUNCTION_INFO_V1(pgmq__ensure_pg_partman_installed);
PG_FUNCTION_INFO_V1(pgmq__get_pg_partman_schema);
PG_FUNCTION_INFO_V1(pgmq__get_pg_partman_major_version);
PG_FUNCTION_INFO_V1(pgmq__get_partition_col);
PG_FUNCTION_INFO_V1(pgmq__extension_exists);

/* False if pg_partman is not there; the caller has connected to SPI */
bool
partman_find(Partman *pm)
{
	if (run_with_texts("SELECT extnamespace::pg_catalog.regnamespace::pg_catalog.text,"
					   " pg_catalog.split_part(extversion, '.', 1)"
					   " FROM pg_catalog.pg_extension"
					   " WHERE extname OPERATOR(pg_catalog.=) 'pg_partman'", 0, NULL) == 0)
		return false;
	pm->schema = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	pm->major = pg_strtoint32(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
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

/* SQL with pg_partman's schema in place of {partman} */
static char *
in_schema(const Partman *pm, const char *sql)
{
	StringInfoData expanded;
	const char *p;

	initStringInfo(&expanded);
	for (p = sql; *p; p++)
	{
		if (strncmp(p, "{partman}", 9) == 0)
		{
			appendStringInfoString(&expanded, pm->schema);
			p += 8;
		}
		else
			appendStringInfoChar(&expanded, *p);
	}
	return expanded.data;
}

/*
 * Run a statement with pg_partman's schema in place of {partman}.  Version 4
 * sets search_path for the session and sets it back the same way, which would
 * outlast a SET LOCAL of the caller's.  Not here.
 */
static uint64
call_partman(const Partman *pm, const char *sql, int nargs, const char *const *args)
{
	int			nest = NewGUCNestLevel();
	uint64		rows = run_with_texts(in_schema(pm, sql), nargs, args);

	AtEOXact_GUC(false, nest);
	return rows;
}

/* Whether pg_partman maintains the table */
bool
partman_knows(const Partman *pm, const QueueName *name, char prefix)
{
	const char *parent = name_unquoted(name, prefix);

	return call_partman(pm, "SELECT FROM {partman}.part_config"
									" WHERE parent_table OPERATOR(pg_catalog.=) $1",
						  1, &parent) > 0;
}

/*
 * The longest thing that pg_partman appends to the name of a table with
 * partitions of at least a day, and with shorter ones.
 */
#define SUFFIX_SQL \
	"CASE WHEN $2::interval OPERATOR(pg_catalog.>=) '1 day'" \
	" THEN '9999_99_99' ELSE '9999_99_99_999999' END"

/*
 * Refuse what pg_partman can't do.  It takes what follows a dot for something
 * else.  And it counts characters where the server counts bytes (up to version
 * 4): then the end of the name, which tells one partition from another, is
 * cut.  With ids that needs more than 10^12 messages.
 */
void
partman_check_name(const Partman *pm, const QueueName *name, const PartmanSet *set)
{
	const char *args[2];

	if (strchr(name->canonical, '.') != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot be partitioned", name->canonical),
				 errdetail("pg_partman does not support table names with a dot."),
				 errhint("Choose a name without a dot, or a queue that is not partitioned.")));
	args[0] = strchr(name_unquoted(name, QUEUE_TABLE), '.') + 1;
	args[1] = set->interval;
	if (set->by_time &&
		call_partman(pm, "SELECT FROM {partman}.check_name_length($1, " SUFFIX_SQL ", true) AS partition"
								 " WHERE pg_catalog.octet_length(partition) OPERATOR(pg_catalog.>)"
								 " pg_catalog.current_setting('max_identifier_length')::integer",
					   2, args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot be partitioned by time", name->canonical),
				 errdetail("pg_partman %d would cut the names of its partitions.", pm->major),
				 errhint("Choose a shorter name; characters outside ASCII take more than one byte.")));
}

#define CREATE_PARENT_SQL \
	"SELECT {partman}.create_parent(p_parent_table := $1, p_control := $2," \
	" p_interval := $3, p_premake := $4::integer, p_type := $5, p_template_table := $6," \
	" p_start_partition := $7)"

/*
 * infinite_time_partitions: partitions for the time to come are made although
 * no message has come for a while.
 */
#define CONFIGURE_SQL \
	"UPDATE {partman}.part_config SET retention = $2," \
	" retention_keep_table = false, retention_keep_index = $4::boolean," \
	" automatic_maintenance = 'on', infinite_time_partitions = $3::boolean" \
	" WHERE parent_table OPERATOR(pg_catalog.=) $1"

/*
 * pg_partman takes a relation that has the name of a partition for the
 * partition and makes none.  What it should have made: one after the other
 * without a hole, premake of them ahead of the current one.
 */
#define PARTITIONS_SQL \
	"SELECT FROM pg_catalog.pg_inherits AS i" \
	" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid" \
	" WHERE i.inhparent OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"

/* The name of the template table that pg_partman makes for a table */
static const char *
template_name(const QueueName *name, char prefix)
{
	return psprintf("template_%s_%s", PGMQ_SCHEMA,
					strchr(name_unquoted(name, prefix), '.') + 1);
}

/*
 * Where the name of pg_partman's schema must be quoted it fails to make its
 * template table.  So make it; the result is its unquoted name.
 */
static const char *
create_template(const Partman *pm, const QueueName *name, char prefix)
{
	const char *template = template_name(name, prefix);
	const char *args[] = {pm->schema, template};

	if (pm->schema[0] != '"')
		return NULL;
	run_ddl("CREATE TABLE %s.%s (LIKE %s)", pm->schema, quote_identifier(template),
			name_table(name, prefix));
	return run_for_text("SELECT nspname OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) $2"
						" FROM pg_catalog.pg_namespace"
						" WHERE oid OPERATOR(pg_catalog.=) $1::pg_catalog.regnamespace",
						lengthof(args), args);
}

/* The table is there, partitioned, and has no partitions yet */
void
partman_create_parent(const Partman *pm, const QueueName *name, char prefix,
					  const PartmanSet *set)
{
	const char *table = name_table(name, prefix);
	const char *create_args[] = {name_unquoted(name, prefix), set->control, set->interval,
		psprintf("%d", set->premake), pm->major >= 5 ? "range" : "native",
	create_template(pm, name, prefix), set->start};
	const char *config_args[] = {create_args[0], set->retention, set->by_time ? "true" : "false",
	set->start == NULL ? "true" : "false"};
	uint64		expected = !set->by_time ? (uint64) set->premake + 2 :
		set->start == NULL ? 2 * (uint64) set->premake + 2 : 2;

	call_partman(pm, CREATE_PARENT_SQL, lengthof(create_args), create_args);
	if (run_with_texts(PARTITIONS_SQL, 1, &table) < expected)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("pg_partman could not make all partitions of %s", table),
				 errdetail("Another relation has the name of a partition."),
				 errhint("Choose another name for the queue.")));
	call_partman(pm, CONFIGURE_SQL, lengthof(config_args), config_args);
}

/* False if pg_partman does not maintain the table */
bool
partman_config(const Partman *pm, const QueueName *name, char prefix, PartmanConfig *config)
{
	const char *parent = name_unquoted(name, prefix);
	SPITupleTable *rows;

	if (call_partman(pm, "SELECT partition_interval, premake, retention"
								 " FROM {partman}.part_config"
								 " WHERE parent_table OPERATOR(pg_catalog.=) $1", 1, &parent) == 0)
		return false;
	rows = SPI_tuptable;
	config->interval = SPI_getvalue(rows->vals[0], rows->tupdesc, 1);
	config->premake = pg_strtoint32(SPI_getvalue(rows->vals[0], rows->tupdesc, 2));
	config->retention = SPI_getvalue(rows->vals[0], rows->tupdesc, 3);
	return true;
}

/* Have pg_partman drop what is older, with all that is in it; NULL: nothing */
void
partman_set_retention(const Partman *pm, const QueueName *name, char prefix,
					  const char *retention)
{
	const char *args[] = {name_unquoted(name, prefix), retention};

	call_partman(pm, "UPDATE {partman}.part_config SET retention = $2"
							 " WHERE parent_table OPERATOR(pg_catalog.=) $1", lengthof(args), args);
}

/* Version 4 analyzes the whole table, unless told not to. */
#define CREATE_IDS_SQL \
	"SELECT {partman}.create_partition_id(p_parent_table := $1, p_partition_ids := $2::bigint[]%s)"
#define CREATE_TIMES_SQL \
	"SELECT {partman}.create_partition_time(p_parent_table := $1," \
	" p_partition_times := $2::timestamp with time zone[]%s)"

/* The partitions that begin at these bounds */
void
partman_create_partitions(const Partman *pm, const QueueName *name, char prefix,
						  const PartSet *set, const int64 *lower, int count)
{
	StringInfoData array;
	const char *args[2];
	int			i;

	initStringInfo(&array);
	for (i = 0; i < count; i++)
		appendStringInfo(&array, "%s\"%s\"", i == 0 ? "{" : ",", partset_key_text(set, lower[i]));
	appendStringInfoChar(&array, '}');
	args[0] = name_unquoted(name, prefix);
	args[1] = array.data;
	call_partman(pm, psprintf(set->by_time ? CREATE_TIMES_SQL : CREATE_IDS_SQL,
										  pm->major >= 5 ? "" : ", p_analyze := false"),
				   lengthof(args), args);
}

#define PARTITION_NAME_SQL \
	"SELECT {partman}.check_name_length($2," \
	" CASE WHEN $4::boolean THEN pg_catalog.to_char($3::timestamp with time zone, datetime_string)" \
	" ELSE $3 END, true) FROM {partman}.part_config WHERE parent_table OPERATOR(pg_catalog.=) $1"

/* What pg_partman would call the partition that begins there; not quoted */
const char *
partman_partition_name(const Partman *pm, const QueueName *name, char prefix,
					   const PartSet *set, int64 lower)
{
	const char *parent = name_unquoted(name, prefix);
	const char *args[] = {parent, strchr(parent, '.') + 1, partset_key_text(set, lower),
	set->by_time ? "true" : "false"};
	const char *partition = run_for_text(in_schema(pm, PARTITION_NAME_SQL),
										 lengthof(args), args);

	if (partition == NULL)
		elog(ERROR, "pg_partman has no name for a partition of %s", parent);
	return partition;
}

/* Give a partition that we have made what is on the owner's template table */
void
partman_inherit(const Partman *pm, const QueueName *name, char prefix, const char *partition)
{
	const char *args[] = {name_unquoted(name, prefix), PGMQ_SCHEMA, partition};

	call_partman(pm, "SELECT {partman}.inherit_template_properties(p_parent_table := $1,"
							 " p_child_schema := $2, p_child_tablename := $3)"
							 " FROM {partman}.part_config WHERE parent_table OPERATOR(pg_catalog.=) $1"
							 " AND template_table IS NOT NULL", lengthof(args), args);
}

/* All else that pg_partman does: subpartitions, subscriptions, its own bookkeeping */
void
partman_run_maintenance(const Partman *pm, const QueueName *name, char prefix)
{
	const char *parent = name_unquoted(name, prefix);

	call_partman(pm, "SELECT {partman}.run_maintenance(p_parent_table := $1, p_analyze := false)",
				   1, &parent);
}

#define FORGET_SQL \
	"DELETE FROM {partman}.part_config WHERE parent_table OPERATOR(pg_catalog.=) $1"

/*
 * The template tables that pg_partman has made for the table.  They are no
 * members of it, and so outlive it; then nothing but their names and columns
 * tells them.
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

#define NOT_OF_OTHERS_SQL \
	" AND NOT EXISTS (SELECT FROM {partman}.part_config AS p WHERE p.template_table" \
	" OPERATOR(pg_catalog.=) (n.nspname OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) c.relname))"

/*
 * Leave no trace of the table there, and none of it where pg_partman was: pm is
 * NULL if it isn't any more.  A template table under another name is its
 * owner's own and stays.
 */
void
partman_forget(const Partman *pm, const QueueName *name, char prefix)
{
	const char *parent = name_unquoted(name, prefix);
	const char *template = template_name(name, prefix);
	uint64		count;
	uint64		i;
	char	  **tables;

	if (pm != NULL)
		call_partman(pm, FORGET_SQL, 1, &parent);
	count = run_with_texts(pm == NULL ? TEMPLATES_SQL
						   : in_schema(pm, TEMPLATES_SQL NOT_OF_OTHERS_SQL), 1, &template);
	tables = palloc(sizeof(char *) * Max(count, 1));
	for (i = 0; i < count; i++)
		tables[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	for (i = 0; i < count; i++)
		run_ddl("DROP TABLE %s", tables[i]);
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

		schema = cstring_to_text(pm.schema);
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
