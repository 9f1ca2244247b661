/*
 * partmake.c
 *	  Make partitions, and move rows to them.
 *
 * 1. Bounds and names of partitions by time are computed in UTC, whatever the
 *	  time zone of the session is.  So sessions in different zones agree on
 *	  them, and no hour of the year has two names or none.
 * 2. Partitions that were made in another zone keep their bounds.  The next one
 *	  begins where the last one ends.  If its name is in use, it gets a longer one.
 * 3. Rows are moved without their triggers: no message is sent or deleted.
 *	  The table that takes them has no triggers that could fire.  They are
 *	  deleted below the executor, where no trigger, rule or foreign key acts.
 *	  Functions of the owner (checks, generated columns, index expressions) run
 *	  as in any insert by the owner.
 */
#include "pgmq.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "commands/tablespace.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "admin/admin.h"

/* Lasts until the end of the nest level of settings that the caller has begun */
void
partmake_settings(void)
{
	set_option("timezone", "UTC");
	set_option("datestyle", "ISO");
	set_option("intervalstyle", "postgres");
}

/* ---- names ---- */

/* The name of the table with a suffix, cut so that the suffix stays */
static char *
with_suffix(const PartSet *set, const char *suffix)
{
	char	   *relname = get_rel_name(set->relid);
	int			room = Max(NAMEDATALEN - 1 - (int) strlen(suffix), 0);

	if (relname == NULL)
		elog(ERROR, "relation %u is gone", set->relid);
	if ((int) strlen(relname) > room)
		relname[pg_mbcliplen(relname, (int) strlen(relname), room)] = '\0';
	return psprintf("%s%s", relname, suffix);
}

/* A table needs a type of its name as well */
static bool
is_free(const char *relname)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, false);

	return strlen(relname) < NAMEDATALEN && !OidIsValid(get_relname_relid(relname, schema)) &&
		!SearchSysCacheExists2(TYPENAMENSP, CStringGetDatum(relname), ObjectIdGetDatum(schema));
}

static char *
time_suffix(int64 lower, const char *format, int attempt)
{
	const char *args[] = {DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(lower))),
	attempt > 0 && strstr(format, "HH24") == NULL ? psprintf("%s_HH24MISS", format) : format};
	char	   *suffix = run_for_text("SELECT pg_catalog.to_char($1::pg_catalog.timestamptz, $2)",
									  lengthof(args), args);

	if (suffix == NULL || suffix[0] == '\0' || strlen(suffix) > NAMEDATALEN / 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("datetime_string \"%s\" in part_config of pg_partman gives no name", format)));
	return attempt > 1 ? psprintf("%s_%d", suffix, attempt) : suffix;
}

static char *
id_suffix(int64 lower, int attempt)
{
	return attempt > 0 ? psprintf(INT64_FORMAT "_%d", lower, attempt + 1) : psprintf(INT64_FORMAT, lower);
}

#define NAME_ATTEMPTS 10

/*
 * A free name for the partition that begins there, as pg_partman would choose
 * it; not quoted.  NULL if it is in use.  "other_too": then another one, for a
 * table whose bounds pg_partman does not read from the name.
 */
char *
partmake_name(const PartSet *set, const char *datetime_string, int64 lower, bool other_too)
{
	int			attempts = other_too ? NAME_ATTEMPTS : 1;
	int			attempt;

	for (attempt = 0; attempt < attempts; attempt++)
	{
		char	   *suffix = set->by_time
			? time_suffix(lower, datetime_string ? datetime_string : "YYYYMMDD_HH24MISS", attempt)
			: id_suffix(lower, attempt);
		char	   *relname = with_suffix(set, psprintf("_p%s", suffix));

		if (is_free(relname))
			return relname;
	}
	return NULL;
}

/* ---- partitions ---- */

static const char *
tablespace_clause(Oid relid)
{
	Oid			tablespace = get_rel_tablespace(relid);
	char	   *name = OidIsValid(tablespace) ? get_tablespace_name(tablespace) : NULL;

	return name ? psprintf(" TABLESPACE %s", quote_identifier(name)) : "";
}

/* A table that can become a partition without more locks than an ATTACH takes */
void
partmake_table(const PartSet *set, const char *relname)
{
	run_ddl("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY) USING heap%s",
			quote_qualified_identifier(PGMQ_SCHEMA, relname), set->parent, tablespace_clause(set->relid));
}

void
partmake_attach(const PartSet *set, const char *partition, int64 lower, int64 upper)
{
	run_ddl("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
			set->parent, partition, partset_key_text(set, lower), partset_key_text(set, upper));
}

#define DEFAULT_SUFFIX "_default"

/* A free name for the next default partition, with the number after that of the last one; not quoted */
static char *
next_default_name(const PartSet *set, const char *last)
{
	char	   *usual = with_suffix(set, DEFAULT_SUFFIX "_");
	size_t		length = strlen(usual);
	/* The owner may have renamed it */
	int			number = strncmp(last, usual, length) == 0 ? (int) Min(strtoul(last + length, NULL, 10), 1000000) : 1;
	int			attempt;

	for (attempt = 0; attempt < NAME_ATTEMPTS; attempt++)
	{
		char	   *relname = with_suffix(set, psprintf(DEFAULT_SUFFIX "_%d", ++number));

		if (is_free(relname))
			return relname;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("could not make a default partition of %s", set->parent),
			 errdetail("Other relations have all the names that it can get.")));
}

/*
 * "last" is the name of the table that was the default partition until now, or NULL.  It is not used again.  A dump locks
 * tables by name.  With a snapshot from before, it would lock a new table of this name, and lack the rows of the old
 * one.  Without such a table, it fails.
 */
void
partmake_default(const PartSet *set, const char *last)
{
	const char *relname = last != NULL ? next_default_name(set, last) : with_suffix(set, DEFAULT_SUFFIX);

	run_ddl("CREATE TABLE %s PARTITION OF %s DEFAULT USING heap%s",
			quote_qualified_identifier(PGMQ_SCHEMA, relname), set->parent, tablespace_clause(set->relid));
}

/* ---- the first partitions of a table ---- */

static void
make_first(const PartSet *set, const char *datetime_string, int64 lower, int64 upper)
{
	char	   *relname = partmake_name(set, datetime_string, lower, false);

	if (relname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("pg_partman could not make all partitions of %s", set->parent),
				 errdetail("Another relation has the name of a partition."),
				 errhint("Choose another name for the queue.")));
	partmake_table(set, relname);
	partmake_attach(set, quote_qualified_identifier(PGMQ_SCHEMA, relname), lower, upper);
}

static void
make_first_by_id(const PartSet *set, const PartStep *step, const PartmanSet *wanted)
{
	int64		start = wanted->start ? DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(wanted->start))) : 0;
	int			i;

	start -= start % step->ids;
	for (i = 0; i <= wanted->premake; i++)
	{
		int64		upper = partset_add(step, start, 1);

		CHECK_FOR_INTERRUPTS();
		if (upper == PG_INT64_MAX)
			break;				/* the last ids are for the default partition */
		make_first(set, NULL, start, upper);
		start = upper;
	}
}

#define BEGINNING_SQL \
	"SELECT pg_catalog.date_trunc(" UNIT_OF("$1::interval") ", $2::pg_catalog.timestamptz)"

static int64
beginning(const char *interval, int64 time)
{
	const char *args[] = {interval,
	DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(time)))};
	char	   *value = run_for_text(BEGINNING_SQL, lengthof(args), args);

	return partset_key(true, value);
}

static void
make_first_by_time(const Partman *pm, const PartSet *set, const PartStep *step, const PartmanSet *wanted)
{
	const char *datetime_string = partman_datetime_string(pm, wanted->interval);
	TimestampTz now = GetCurrentTimestamp();
	int64		first = partset_add(step, now, -wanted->premake);
	int64		until = partset_add(step, now, wanted->premake);
	int64		lower;

	if (first == PG_INT64_MIN || until == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("%d partitions of %s go beyond the times that the server knows",
						wanted->premake, wanted->interval)));
	lower = wanted->start ? partset_key(true, wanted->start) : beginning(wanted->interval, first);
	do
	{
		int64		upper = partset_add(step, lower, 1);

		CHECK_FOR_INTERRUPTS();
		make_first(set, datetime_string, lower, upper);
		lower = upper;
	} while (lower < until);
}

/* The table exists, is partitioned, and has no partitions yet */
void
partmake_first(const Partman *pm, const QueueName *name, char prefix, const PartmanSet *wanted)
{
	int			nest = NewGUCNestLevel();
	PartSet    *set = partset_get(queue_relid(name, prefix));
	PartStep	step;

	partmake_settings();
	if (set == NULL || set->by_time != wanted->by_time)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not partitioned by %s", name_table(name, prefix), wanted->control)));
	partset_step(set->by_time, "partition_interval", wanted->interval, false, &step);
	partman_record(pm, name, prefix, wanted);
	if (set->by_time)
		make_first_by_time(pm, set, &step, wanted);
	else
		make_first_by_id(set, &step, wanted);
	partmake_default(set, NULL);
	AtEOXact_GUC(false, nest);
}

/* ---- rows of the default partition ---- */

/* The caller has locked the table already, so that nothing changes */
static uint64
delete_range(const PartSet *set, int64 lower, int64 upper)
{
	Relation	rel = table_open(set->default_relid, AccessExclusiveLock);
	AttrNumber	attno = relcheck_column(RelationGetDescr(rel), set->attname,
										set->by_time ? TIMESTAMPTZOID : INT8OID);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan;
	uint64		count = 0;

	if (!relcheck_is_heap(rel) || attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the default partition of %s is not an ordinary table", set->parent)));
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		int64		key = DatumGetInt64(slot_getattr(slot, attno, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (isnull || key < lower || key >= upper)
			continue;
		simple_table_tuple_delete(rel, &slot->tts_tid, snapshot);
		count++;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	return count;
}

/* A move acts on no foreign key (3).  One that refers to the queue's table stays right, as the rows stay there. */
static void
require_not_referenced(const char *table)
{
	const char *key = run_for_text("SELECT conname::pg_catalog.text FROM pg_catalog.pg_constraint"
								   " WHERE contype OPERATOR(pg_catalog.=) 'f'"
								   " AND confrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
								   " AND conparentid OPERATOR(pg_catalog.=) 0 LIMIT 1", 1, &table);

	if (key != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("could not move rows of %s to their partition", table),
				 errdetail("The foreign key \"%s\" refers to this partition.", key)));
}

/* All columns but generated ones, of which a table may have more than ours */
static const char *
table_columns(const char *table)
{
	return run_for_text("SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum)"
						" FROM pg_catalog.pg_attribute"
						" WHERE attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						" AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped"
						" AND attgenerated OPERATOR(pg_catalog.=) ''", 1, &table);
}

/*
 * Move the rows of a range from the default partition to a table, which is not
 * a partition yet.  Both are locked against all other sessions.  Row-level security or a
 * rule may hide rows from the owner, or keep some out: then nothing is moved.
 */
void
partmake_move(const PartSet *set, const char *target, int64 lower, int64 upper)
{
	const char *columns = table_columns(set->parent);
	uint64		inserted;
	uint64		deleted;

	if (get_default_partition_oid(set->relid) != set->default_relid)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the default partition of %s was replaced concurrently", set->parent)));
	require_not_referenced(partset_relation(set->default_relid));
	inserted = run_with_texts(psprintf("INSERT INTO %s (%s) SELECT %s FROM ONLY %s WHERE %s",
									   target, columns, columns, partset_relation(set->default_relid),
									   partset_within(set, lower, upper)), 0, NULL);
	deleted = delete_range(set, lower, upper);
	if (inserted != deleted)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not move rows of %s to their partition", set->parent),
				 errdetail("The table accepted %llu of %llu rows.",
						   (unsigned long long) inserted, (unsigned long long) deleted),
				 errhint("Look for a policy with FORCE ROW LEVEL SECURITY, and for a rule.")));
}
