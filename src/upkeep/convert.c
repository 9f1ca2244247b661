/*
 * convert.c
 *	  convert_archive_partitioned(): partition an archive that has been in use.
 *
 * What was archived is not moved.  The old table becomes the first partition of
 * a new archive, and this partition is as wide as its rows require.  Before the
 * server attaches a table, it checks that every row belongs there.  By time the
 * table also needs another primary key.  A small archive stays locked during
 * this work.  A large one is only renamed, which takes a moment: archive() goes
 * on with the new archive at once.  The next pgmq.maintain() then prepares the
 * renamed table, which no session uses, and attaches it without a further
 * check.
 *
 * pg_partman assumes that all partitions are as wide as its interval, and would
 * drop a wider one too early.  So retention.c drops partitions of such a table.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "admin/admin.h"
#include "upkeep/upkeep.h"
#include "upkeep/maintain.h"

PG_FUNCTION_INFO_V1(pgmq_convert_archive_partitioned);

/* Up to this size the archive is converted at once */
#define AT_ONCE_BYTES "33554432"

/* The constraint that shows that a table is ready to be attached */
#define READY "pgmq_converted"

/* A conversion: its arguments and the tables that it works on */
typedef struct Conversion
{
	const QueueName *name;
	const Partman *pm;
	const char *archive;		/* quoted and qualified, as the next one */
	const char *old;
	PartmanSet	set;
	const char *retention;
} Conversion;

/* ---- the table that was the archive ---- */

/* Its lowest or highest key; false if it is empty */
static bool
old_key(const PartSet *set, const char *old, const char *which, int64 *key)
{
	char	   *value = run_for_text(psprintf("SELECT pg_catalog.%s(%s) FROM ONLY %s",
											  which, set->column, old), 0, NULL);

	if (value == NULL)
		return false;
	*key = partset_key(set->by_time, value);
	return true;
}

/* The bounds that it gets: from its first row to where the new partitions begin */
static void
old_bounds(const PartSet *set, const PartStep *step, const char *old, int64 *lower, int64 *upper)
{
	int64		first = set->by_time ? GetCurrentTimestamp() : 0;
	int64		gap_lower;

	(void) old_key(set, old, "min", &first);
	if (!partset_room(set, step, first, lower, upper))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has a partition for rows of %s", set->parent, old)));
	partset_gap(set, first, &gap_lower, upper);
}

static char *
primary_key_of(const char *table)
{
	return run_for_text("SELECT pg_catalog.quote_ident(conname) FROM pg_catalog.pg_constraint"
						" WHERE conrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						" AND contype OPERATOR(pg_catalog.=) 'p'", 1, &table);
}

/*
 * Prepare the table: the primary key by time has two columns.  A valid
 * constraint saves the server a second scan of the rows.
 */
static void
prepare_old(const PartSet *set, const char *old, int64 lower, int64 upper)
{
	if (set->by_time)
	{
		char	   *primary_key = primary_key_of(old);

		if (primary_key != NULL)
			run_ddl("ALTER TABLE %s DROP CONSTRAINT %s", old, primary_key);
		run_ddl("ALTER TABLE %s ADD PRIMARY KEY (msg_id, archived_at)", old);
	}
	run_ddl("ALTER TABLE %s ADD CONSTRAINT " READY " CHECK (%s IS NOT NULL AND %s)",
			old, set->column, partset_within(set, lower, upper));
}

/*
The statements that disable the user's triggers of a table, or enable them
again as they were.  The caller has locked the table.
 */
static List *
trigger_statements(const char *table, const char *enable)
{
	const char *args[] = {table, enable};
	uint64		count;
	uint64		i;
	List	   *statements = NIL;

	count = run_with_texts("SELECT pg_catalog.format('ALTER TABLE %s %s TRIGGER %I', $1,"
						   " CASE WHEN $2 IS NULL THEN 'DISABLE' WHEN tgenabled OPERATOR(pg_catalog.=) 'A' THEN 'ENABLE ALWAYS'"
						   " WHEN tgenabled OPERATOR(pg_catalog.=) 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE' END, tgname)"
						   " FROM pg_catalog.pg_trigger WHERE tgrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						   " AND NOT tgisinternal AND tgenabled OPERATOR(pg_catalog.<>) 'D'", lengthof(args), args);
	for (i = 0; i < count; i++)
		statements = lappend(statements, row_text(i, 1));
	return statements;
}

static void
run_all(List *statements)
{
	ListCell   *lc;

	foreach(lc, statements)
		run_ddl("%s", (char *) lfirst(lc));
}

/* What was archived meanwhile and belongs there is in the default partition. */
static void
fetch_from_default(const PartSet *set, const char *old, int64 lower, int64 upper)
{
	const char *fallback = partset_relation(set->default_relid);
	List	   *disable;
	List	   *enable;

	/* As premake.c does when it moves rows: no SELECT may have a list that lacks the new partition */
	upkeep_lock(set->parent, "ACCESS EXCLUSIVE");
	if (fallback == NULL)
		return;
	upkeep_lock(fallback, "ACCESS EXCLUSIVE");
	upkeep_lock(old, "ACCESS EXCLUSIVE");
	disable = trigger_statements(old, NULL);
	enable = trigger_statements(old, "enable");
	run_all(disable);
	partmake_move(set, old, lower, upper);
	run_all(enable);
}

static void
attach_old(const char *datetime_string, const PartSet *set, const char *old, int64 lower, int64 upper)
{
	const char *relname = partmake_name(set, datetime_string, lower, true);
	const char *partition;

	if (relname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("could not make %s a partition of %s", old, set->parent),
				 errdetail("Another relation has its name.")));
	partition = quote_qualified_identifier(PGMQ_SCHEMA, relname);
	fetch_from_default(set, old, lower, upper);
	run_ddl("ALTER TABLE %s RENAME TO %s", old, quote_identifier(relname));
	partmake_attach(set, partition, lower, upper);
	run_ddl("ALTER TABLE %s DROP CONSTRAINT " READY, partition);
}

/* Whether a queue has the table: as its own, its archive or its list of groups */
static bool
is_of_a_queue(const char *relname)
{
	return owner_run(owner_of(relcheck_own_table(OWN_META, AccessShareLock)), false,
					 "SELECT FROM ONLY pgmq.meta WHERE $1 OPERATOR(pg_catalog.=) ANY (ARRAY["
					 " 'q_' OPERATOR(pg_catalog.||) pg_catalog.lower(queue_name),"
					 " 'a_' OPERATOR(pg_catalog.||) pg_catalog.lower(queue_name),"
					 " 'g_' OPERATOR(pg_catalog.||) pg_catalog.lower(queue_name)])", 1, &relname) > 0;
}

static bool
has_columns_of_archive(Relation rel)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			columns[] = {
		{"msg_id", INT8OID}, {"read_ct", INT4OID}, {"enqueued_at", TIMESTAMPTZOID},
		{"last_read_at", TIMESTAMPTZOID}, {"archived_at", TIMESTAMPTZOID},
		{"vt", TIMESTAMPTZOID}, {"message", JSONBOID}, {"headers", JSONBOID}
	};
	int			i;

	for (i = 0; i < lengthof(columns); i++)
	{
		if (relcheck_column(RelationGetDescr(rel), columns[i].name, columns[i].type) == InvalidAttrNumber)
			return false;
	}
	return true;
}

/*
 * The table that convert_archive_partitioned() has renamed, whose name is in
 * pgmq.partition_config; locked.  Other roles may have written to that row.  So
 * the table is used only if it can be an old archive: a table of the archive's
 * owner, with such a name, that is no partition and belongs to no queue.  False
 * if there is none.
 */
static bool
find_old_archive(const QueueName *name, const char *relname, Oid archive_owner)
{
	const char *prefix = psprintf("a_%s_old", name->canonical);
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, false);
	Oid			relid = get_relname_relid(relname, schema);
	Relation	rel;
	bool		ours;

	if (!OidIsValid(relid))
		return false;
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return false;
	ours = strncmp(relname, prefix, strlen(prefix)) == 0 && get_relname_relid(relname, schema) == relid && relcheck_is_heap(rel) &&
		!rel->rd_rel->relispartition && !rel->rd_rel->relhasrules && !rel->rd_rel->relhassubclass &&
		rel->rd_rel->relowner == archive_owner && has_columns_of_archive(rel) && !is_of_a_queue(relname);
	relation_close(rel, NoLock);
	if (!ours)
		ereport(WARNING,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s.%s\" is not an archive that can be attached", PGMQ_SCHEMA, relname),
				 errdetail("It is named in pgmq.partition_config, column converted_archive."),
				 errhint("It must be an ordinary table of the archive's owner, with an archive's columns, and of no queue.")));
	return ours;
}

static bool
is_prepared(const char *old)
{
	return run_with_texts("SELECT FROM pg_catalog.pg_constraint"
						  " WHERE conrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						  " AND contype OPERATOR(pg_catalog.=) 'c' AND convalidated"
						  " AND conname OPERATOR(pg_catalog.=) '" READY "'", 1, &old) > 0;
}

/* Attach what convert_archive_partitioned() has renamed; called by pgmq.maintain() */
bool
convert_step(Upkeep *upkeep)
{
	const char *canonical = upkeep->name->canonical;
	const char *old;
	int64		lower;
	int64		upper;

	if (upkeep->converted == NULL || upkeep->pm == NULL)
		return false;
	old = quote_qualified_identifier(PGMQ_SCHEMA, upkeep->converted);
	if (find_old_archive(upkeep->name, upkeep->converted, owner_of(upkeep->set->relid)))
	{
		old_bounds(upkeep->set, &upkeep->step, old, &lower, &upper);
		if (!is_prepared(old))
		{
			prepare_old(upkeep->set, old, lower, upper);
			return true;
		}
		attach_old(upkeep->config.datetime_string, upkeep->set, old, lower, upper);
	}
	queue_write_row(OWN_PARTITION_CONFIG, upkeep->name, ACL_NO_RIGHTS,
					"UPDATE pgmq.partition_config SET converted_archive = NULL"
					" WHERE queue_name OPERATOR(pg_catalog.=) $1", 1, &canonical);
	return false;
}

/* ---- the new archive ---- */

/* Returns false if the lock was not granted in a moment; sessions that wait behind us then go on. */
static bool
try_lock(const char *table)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool volatile locked = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		upkeep_lock(table, "ACCESS EXCLUSIVE");
		ReleaseCurrentSubTransaction();
		locked = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return locked;
}

#define LOCK_ATTEMPTS 20
#define LOCK_PAUSE_MS 100

static void
lock_patiently(const char *table)
{
	int			nest = NewGUCNestLevel();
	int			attempt;

	set_lock_timeout(maintain_lock_timeout);
	for (attempt = 1; !try_lock(table); attempt++)
	{
		if (attempt == LOCK_ATTEMPTS)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not lock table %s: it is in constant use", table),
					 errhint("Try again later.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_PAUSE_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	AtEOXact_GUC(false, nest);
}

/* A free name for the table that was the archive: the one that the PL/pgSQL extension gives, if it is free */
static char *
choose_old_name(const QueueName *name)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, false);
	char	   *relname = psprintf("a_%s_old", name->canonical);
	int			i;

	for (i = 1; OidIsValid(get_relname_relid(relname, schema)); i++)
		relname = psprintf("a_%s_old%d", name->canonical, i);
	return relname;
}

/* Its index on archived_at has the name that the new archive's must have. */
static void
rename_index(const char *index)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, false);
	Oid			relid = get_relname_relid(index, schema);

	if (OidIsValid(relid))
		run_ddl("ALTER INDEX %s RENAME TO %s",
				quote_qualified_identifier(PGMQ_SCHEMA, index),
				quote_identifier(psprintf("archived_at_idx_of_%u", relid)));
}

/* ---- rights and policies of the archive go to the new one ---- */

/* Statements that give a table the rights and policies that another one has now */
#define GRANTS_SQL \
	"SELECT pg_catalog.format('GRANT %s%s ON %s TO %s%s', g.privilege_type," \
	" CASE WHEN g.attname IS NOT NULL THEN pg_catalog.format(' (%I)', g.attname) END, $1," \
	" CASE WHEN g.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'" \
	" ELSE g.grantee::pg_catalog.regrole::pg_catalog.text END," \
	" CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END)" \
	" FROM (SELECT a.privilege_type, a.grantee, a.is_grantable, NULL AS attname" \
	"  FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a" \
	"  WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass" \
	"  UNION ALL SELECT a.privilege_type, a.grantee, a.is_grantable, t.attname" \
	"  FROM pg_catalog.pg_attribute AS t, pg_catalog.aclexplode(t.attacl) AS a" \
	"  WHERE t.attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass AND NOT t.attisdropped) AS g" \
	" WHERE g.grantee OPERATOR(pg_catalog.<>)" \
	" (SELECT relowner FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass)"

#define POLICIES_SQL \
	"SELECT pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, $1," \
	" CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END," \
	" CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'" \
	" WHEN 'd' THEN 'DELETE' ELSE 'ALL' END," \
	" (SELECT pg_catalog.string_agg(CASE WHEN r OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'" \
	"  ELSE r::pg_catalog.regrole::pg_catalog.text END, ', ') FROM pg_catalog.unnest(p.polroles) AS r)," \
	" ' USING (' OPERATOR(pg_catalog.||) pg_catalog.pg_get_expr(p.polqual, p.polrelid) OPERATOR(pg_catalog.||) ')'," \
	" ' WITH CHECK (' OPERATOR(pg_catalog.||) pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) OPERATOR(pg_catalog.||) ')')" \
	" FROM pg_catalog.pg_policy AS p WHERE p.polrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"

#define SECURITY_SQL \
	"SELECT pg_catalog.format('ALTER TABLE %s %s', $1, s.clause)" \
	" FROM pg_catalog.pg_class AS c, LATERAL (VALUES" \
	"  (CASE WHEN c.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END)," \
	"  (CASE WHEN c.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END)," \
	"  ('OWNER TO ' OPERATOR(pg_catalog.||) c.relowner::pg_catalog.regrole::pg_catalog.text)) AS s (clause)" \
	" WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass AND s.clause IS NOT NULL"

/*
 * Read while the old table has the name of the new one, under a search path
 * without users' schemas: policies are written out with the names in them.
 */
static List *
rights_statements(const char *table)
{
	static const char *const sources[] = {POLICIES_SQL, GRANTS_SQL, SECURITY_SQL};
	List	   *statements = NIL;
	int			nest = NewGUCNestLevel();
	int			i;

	set_option("search_path", "pg_catalog, pg_temp");
	for (i = 0; i < lengthof(sources); i++)
	{
		uint64		count = run_with_texts(sources[i], 1, &table);
		uint64		row;

		for (row = 0; row < count; row++)
			statements = lappend(statements, row_text(row, 1));
	}
	AtEOXact_GUC(false, nest);
	return statements;
}

/* The partitions belong to the owner of the archive, not to the caller: the owner maintains them. */
static void
give_to_owner(const Conversion *c)
{
	Oid			relid = queue_relid(c->name, ARCHIVE_TABLE);
	PartSet    *set = partset_get(relid);
	const char *owner = run_for_text("SELECT relowner::pg_catalog.regrole::pg_catalog.text"
									 " FROM pg_catalog.pg_class"
									 " WHERE oid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass",
									 1, &c->archive);
	int			i;

	for (i = 0; i < set->count; i++)
		run_ddl("ALTER TABLE %s OWNER TO %s", partset_relation(set->partitions[i].relid), owner);
	if (OidIsValid(set->default_relid))
		run_ddl("ALTER TABLE %s OWNER TO %s", partset_relation(set->default_relid), owner);
}

/* Triggers are not copied: the owner decides which of them fit */
static void
warn_of_triggers(const char *old)
{
	if (run_with_texts("SELECT FROM pg_catalog.pg_trigger AS t"
					   " WHERE t.tgrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass AND NOT t.tgisinternal",
					   1, &old) > 0)
		ereport(WARNING,
				(errmsg("triggers of the archive are not on the partitioned archive"),
				 errhint("Create them again where they are still needed.")));
}

/*
 * Where the new partitions begin.  By id: after the last id that the queue has
 * drawn.  By time: at the beginning of the next unit, because pg_partman rounds
 * down to the unit that fits the interval.
 */
static const char *
first_start(const Conversion *c)
{
	const char *args[] = {c->set.interval, NULL};

	if (!c->set.by_time)
	{
		args[1] = psprintf(INT64_FORMAT, queue_last_id(c->name));
		return run_for_text(psprintf("SELECT (i OPERATOR(pg_catalog.-) (i OPERATOR(pg_catalog.%%) $1::bigint))"
									 " OPERATOR(pg_catalog.+) $1::bigint"
									 " FROM (SELECT GREATEST($2::bigint, (SELECT pg_catalog.max(msg_id) FROM %s)) AS i) AS s",
									 c->old), 2, args);
	}
	return run_for_text("SELECT pg_catalog.date_trunc(u, pg_catalog.clock_timestamp())"
						" OPERATOR(pg_catalog.+) ('1 ' OPERATOR(pg_catalog.||) u)::interval"
						" FROM (SELECT " UNIT_OF("$1::interval") " AS u) AS s", 1, args);
}

static void
create_new_archive(const Conversion *c, const char *index, List *rights)
{
	int			nest = begin_partitioned_ddl();

	run_ddl("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY,"
			" CONSTRAINT %s PRIMARY KEY (msg_id%s)) PARTITION BY RANGE (%s)",
			c->archive, c->old, name_object(c->name, "a_", "_msg_id_idx"),
			c->set.by_time ? ", archived_at" : "", c->set.control);
	run_ddl("CREATE INDEX %s ON %s (archived_at)", quote_identifier(index), c->archive);
	AtEOXact_GUC(false, nest);
	run_all(rights);
	warn_of_triggers(c->old);
	partmake_first(c->pm, c->name, ARCHIVE_TABLE, &c->set);
}

/* Record what the owner wants, and what is still to be done. */
static void
register_conversion(const Conversion *c, const char *pending)
{
	const char *args[] = {c->name->canonical, c->retention, pending};

	queue_write_row(OWN_PARTITION_CONFIG, c->name, ACL_NO_RIGHTS,
					"INSERT INTO pgmq.partition_config"
					" (queue_name, retention_interval, drop_unread, drop_consumed, converted_archive)"
					" VALUES ($1, $2, false, false, $3) ON CONFLICT (queue_name) DO UPDATE"
					" SET retention_interval = EXCLUDED.retention_interval,"
					" converted_archive = EXCLUDED.converted_archive", lengthof(args), args);
}

/* The archive is locked, or no session waits for it */
static void
attach_at_once(const Conversion *c)
{
	PartSet    *set = partset_get(queue_relid(c->name, ARCHIVE_TABLE));
	PartStep	step;
	int64		lower;
	int64		upper;

	partset_step(c->set.by_time, "partition_interval", c->set.interval, false, &step);
	old_bounds(set, &step, c->old, &lower, &upper);
	prepare_old(set, c->old, lower, upper);
	attach_old(c->set.by_time ? partman_datetime_string(c->pm, c->set.interval) : NULL, set,
			   c->old, lower, upper);
	if (partset_add(&step, lower, 1) == upper)
		partman_set_retention(c->pm, c->name, ARCHIVE_TABLE, c->retention);
}

static void
convert_archive(Conversion *c)
{
	const char *spelling = registered_spelling(c->name);
	const char *index = psprintf("archived_at_idx_%s", spelling ? spelling : c->name->canonical);
	char	   *old_name = choose_old_name(c->name);
	List	   *rights;
	bool		at_once;

	partman_check_name(c->pm, c->name, &c->set);
	require_no_default(c->name, ARCHIVE_TABLE);
	lock_patiently(c->archive);
	at_once = run_with_texts("SELECT WHERE pg_catalog.pg_relation_size($1::pg_catalog.regclass)"
							 " OPERATOR(pg_catalog.<=) " AT_ONCE_BYTES, 1, &c->archive) > 0;
	rights = rights_statements(c->archive);
	run_ddl("ALTER TABLE %s RENAME TO %s", c->archive, quote_identifier(old_name));
	c->old = quote_qualified_identifier(PGMQ_SCHEMA, old_name);
	rename_index(index);
	c->set.start = first_start(c);
	create_new_archive(c, index, rights);
	give_to_owner(c);
	if (at_once)
		attach_at_once(c);
	else
		ereport(NOTICE,
				(errmsg("existing archive rows remain in %s until pgmq.maintain() runs", c->old)));
	register_conversion(c, at_once ? NULL : old_name);
}

static void
conversion_from_args(FunctionCallInfo fcinfo, Conversion *c)
{
	memset(&c->set, 0, sizeof(c->set));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("partition_interval must not be NULL")));
	if (PG_ARGISNULL(3) || PG_GETARG_INT32(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("leading_partition must be at least 1, got %s",
						PG_ARGISNULL(3) ? "<NULL>" : psprintf("%d", PG_GETARG_INT32(3)))));
	partman_wanted(fcinfo, &c->set, &c->retention);
	c->set.control = c->set.by_time ? "archived_at" : "msg_id";
}

/*
 * pgmq.convert_archive_partitioned(table_name text, partition_interval text,
 *	 retention_interval text, leading_partition integer) -> void
 *
 * The notices are those of the PL/pgSQL extension, including the "s" after the
 * name, because programs know them.
 */
Datum
pgmq_convert_archive_partitioned(PG_FUNCTION_ARGS)
{
	QueueName	name;
	Conversion	c = {0};
	Partman		pm;

	name_from_arg(fcinfo, 0, &name);
	c.name = &name;
	c.pm = &pm;
	c.archive = name_table(&name, ARCHIVE_TABLE);
	queue_require_owner(&name);
	SPI_connect();
	lock_queue(&name);
	queue_require_owner(&name);
	if (!OidIsValid(queue_relid(&name, ARCHIVE_TABLE)))
		ereport(NOTICE, (errmsg("Table a_%ss does not exists", name.canonical)));
	else if (queue_is_partitioned(&name, ARCHIVE_TABLE))
		ereport(NOTICE, (errmsg("Table a_%ss is already partitioned", name.canonical)));
	else
	{
		int			nest = NewGUCNestLevel();

		partman_require(&pm);
		conversion_from_args(fcinfo, &c);
		partmake_settings();
		convert_archive(&c);
		AtEOXact_GUC(false, nest);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
