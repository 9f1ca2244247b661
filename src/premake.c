/*
 * premake.c
 *	  Room for what will be sent: partitions ahead of the current one, and a
 *	  default partition that stays empty.
 *
 * pg_partman makes partitions ahead of the highest row that it sees.  A queue
 * whose messages are consumed has none, however far its ids have gone; so here
 * they are made ahead of the last id that was handed out.
 *
 * Where there is no partition, rows go to the default one.  They are messages
 * like all others there, but no partition can be made for them any more: the
 * server refuses one whose rows lie in the default partition.  There are two
 * ways out, and every row is in exactly one place to whoever looks, at any time:
 *
 * Few rows are moved, within the transaction that makes their partition.
 * Nobody else writes to the queue meanwhile, which includes its readers.
 *
 * Many rows stay where they are: the default partition becomes the partition
 * that they need, and an empty one takes its place.  Nobody else uses the queue
 * meanwhile, for as long as it takes the server to see that the rows lie between
 * the bounds.  The partition can be wider than others.  pg_partman takes all of
 * them for equal, and would drop it too early; from then on the dropping is
 * left to retention.c.
 *
 * Who sends decides on the partition first and locks it then.  If that is the
 * default one, and waits for our lock, the server finds a partition for the
 * row when we are done and fails the send.  So senders are kept from the
 * queue's table itself while a partition is made that their ids can be in.  For
 * partitions further ahead this is not necessary, and they can be made beside
 * transactions that stay open.
 *
 * Either way the locks wait for those who have touched these rows and have not
 * ended their transactions, up to pgmq.maintenance_lock_timeout.
 */
#include "maintain.h"

#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "admin.h"

/* As many rows are moved in a moment */
#define MOVE_AT_MOST 10000

/* ---- partitions ahead ---- */

/* The last id that was handed out; 0 before the first one, and of an archive without a queue */
int64
queue_last_id(const QueueName *name)
{
	char	   *id;

	if (!OidIsValid(name_sequence_relid(name, QUEUE_TABLE)))
		return 0;
	id = run_for_text(name_expand("SELECT CASE WHEN is_called THEN last_value ELSE 0 END"
											  " FROM {sequence}", name), 0, NULL);

	return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(id)));
}

/*
 * How far the table has come.  All keys below are given out.  An archive has
 * come as far as the highest id in it.
 */
int64
upkeep_current(const Upkeep *upkeep)
{
	char	   *id;

	if (upkeep->set->by_time)
		return GetCurrentTimestamp();
	if (upkeep->prefix == QUEUE_TABLE)
		return queue_last_id(upkeep->name);
	id = run_for_text(psprintf("SELECT pg_catalog.max(msg_id) FROM %s", upkeep->set->parent), 0, NULL);
	return id ? DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(id))) : 0;
}

static void
lock_table(const char *table, const char *mode)
{
	run_ddl("LOCK TABLE ONLY %s IN %s MODE", table, mode);
}

static void
make_partition(const Upkeep *upkeep, int64 lower, int64 current)
{
	if (lower < partset_add(&upkeep->step, current, 1))
		lock_table(upkeep->set->parent, "SHARE ROW EXCLUSIVE");
	partman_create_partitions(upkeep->pm, upkeep->name, upkeep->prefix, upkeep->set, &lower, 1);
	if (partset_find(partset_get(upkeep->set->relid), lower) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("pg_partman made no partition of %s for %s", upkeep->set->parent,
						partset_key_text(upkeep->set, lower)),
				 errdetail("Another relation has its name.")));
}

/*
 * Make the next partition that is missing, one in a transaction.  Where the
 * owner's own partitions leave less room than pg_partman's need, nothing is
 * made; what goes there is moved on from the default partition.
 */
bool
premake_step(Upkeep *upkeep)
{
	int64		current = upkeep->set->by_time ? GetCurrentTimestamp() : queue_last_id(upkeep->name);
	int64		key = current;
	int			ahead;

	if (upkeep->pm == NULL)
		return false;
	for (ahead = 0; ahead <= upkeep->config.premake; ahead++)
	{
		const Partition *partition = partset_find(upkeep->set, key);
		int64		lower;
		int64		upper;

		if (partition != NULL)
		{
			if (partition->upper == PG_INT64_MAX)
				return false;
			key = partition->upper;
			continue;
		}
		partset_room(upkeep->set, &upkeep->step, key, &lower, &upper);
		if (partset_add(&upkeep->step, lower, 1) == upper)
		{
			make_partition(upkeep, lower, current);
			return true;
		}
		key = upper;
	}
	return false;
}

/* ---- the default partition ---- */

/* The lowest and the highest key of the default partition; false if it is empty */
static bool
default_keys(const Upkeep *upkeep, const char *table, int64 *lowest, int64 *highest)
{
	const char *column = upkeep->set->column;
	bool		isnull;

	run_with_texts(psprintf("SELECT pg_catalog.min(%s), pg_catalog.max(%s) FROM ONLY %s",
							column, column, table), 0, NULL);
	*lowest = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (isnull)
		return false;
	*highest = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return true;
}

#define WITHIN "%s OPERATOR(pg_catalog.>=) $1::%s AND %s OPERATOR(pg_catalog.<) $2::%s"

/* Whether more rows lie in a range than are moved in a moment */
static bool
too_many(const Upkeep *upkeep, const char *table, int64 lower, int64 upper)
{
	const char *type = upkeep->set->by_time ? "timestamp with time zone" : "bigint";
	const char *args[] = {partset_key_text(upkeep->set, lower), partset_key_text(upkeep->set, upper)};

	return run_with_texts(psprintf("SELECT FROM ONLY %s WHERE " WITHIN " LIMIT %d", table,
								   upkeep->set->column, type, upkeep->set->column, type,
								   MOVE_AT_MOST + 1), 2, args) > MOVE_AT_MOST;
}

/* All columns but generated ones, of which a table may have more than ours */
const char *
table_columns(const char *table)
{
	return run_for_text("SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum)"
						" FROM pg_catalog.pg_attribute"
						" WHERE attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						" AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped"
						" AND attgenerated OPERATOR(pg_catalog.=) ''", 1, &table);
}

static void
attach(const PartSet *set, const char *partition, int64 lower, int64 upper)
{
	run_ddl("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
			set->parent, partition, partset_key_text(set, lower), partset_key_text(set, upper));
}

/*
 * Move the rows of a range to a partition of their own.  To triggers nothing
 * happens: no message is sent or deleted.  (The setting that does this is for
 * superusers, but here it holds for one statement that the user can't choose.)
 */
static void
move_rows(const Upkeep *upkeep, const char *table, int64 lower, int64 upper)
{
	const PartSet *set = upkeep->set;
	const char *relname = partman_partition_name(upkeep->pm, upkeep->name, upkeep->prefix, set, lower);
	const char *partition = quote_qualified_identifier(PGMQ_SCHEMA, relname);
	const char *type = set->by_time ? "timestamp with time zone" : "bigint";
	const char *args[] = {partset_key_text(set, lower), partset_key_text(set, upper)};
	const char *columns = table_columns(set->parent);
	int			nest;

	lock_table(set->parent, "SHARE ROW EXCLUSIVE");
	lock_table(table, "ACCESS EXCLUSIVE");
	run_ddl("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY)", partition, set->parent);
	partman_inherit(upkeep->pm, upkeep->name, upkeep->prefix, relname);
	nest = NewGUCNestLevel();
	(void) set_config_option("session_replication_role", "replica",
							 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	run_with_texts(psprintf("WITH moved AS (DELETE FROM ONLY %s WHERE " WITHIN " RETURNING %s)"
							" INSERT INTO %s (%s) SELECT %s FROM moved",
							table, set->column, type, set->column, type, columns,
							partition, columns, columns), 2, args);
	AtEOXact_GUC(false, nest);
	attach(set, partition, lower, upper);
}

/* The range must have no partition in it. */
static void
become_partition(const Upkeep *upkeep, const char *table, int64 lower, int64 upper)
{
	const PartSet *set = upkeep->set;
	const char *old_relname = get_rel_name(set->default_relid);
	const char *relname = partman_partition_name(upkeep->pm, upkeep->name, upkeep->prefix, set, lower);

	run_ddl("ALTER TABLE %s DETACH PARTITION %s", set->parent, table);
	run_ddl("ALTER TABLE %s RENAME TO %s", table, quote_identifier(relname));
	attach(set, quote_qualified_identifier(PGMQ_SCHEMA, relname), lower, upper);
	run_ddl("CREATE TABLE %s PARTITION OF %s DEFAULT", table, set->parent);
	partman_inherit(upkeep->pm, upkeep->name, upkeep->prefix, old_relname);
}

/* The dropping is ours from now on: what pg_partman was told goes to our own record. */
static void
take_over_retention(const Upkeep *upkeep)
{
	const char *args[] = {upkeep->name->canonical, upkeep->config.retention};

	if (upkeep->config.retention == NULL)
		return;
	run_with_texts("INSERT INTO pgmq.partition_config (queue_name, retention_interval, drop_unread, drop_consumed)"
				   " VALUES ($1, $2, true, false) ON CONFLICT DO NOTHING", lengthof(args), args);
	partman_set_retention(upkeep->pm, upkeep->name, upkeep->prefix, NULL);
}

/*
 * The default partition as a whole, if it lies in one gap between the others
 * and has nothing else in it; false if it doesn't.
 */
static bool
turn_default(const Upkeep *upkeep, const char *table)
{
	const PartSet *set = upkeep->set;
	int64		lowest;
	int64		highest;
	int64		lower;
	int64		upper;
	int64		last_lower;
	int64		gap_lower;
	int64		gap_upper;

	lock_table(set->parent, "ACCESS EXCLUSIVE");
	lock_table(table, "ACCESS EXCLUSIVE");
	if (!default_keys(upkeep, table, &lowest, &highest))
		return true;
	if (!partset_room(set, &upkeep->step, lowest, &lower, &upper) ||
		!partset_room(set, &upkeep->step, highest, &last_lower, &upper))
		return true;			/* the list of partitions is out of date */
	partset_gap(set, lowest, &gap_lower, &gap_upper);
	if (upper > gap_upper)
		return false;
	become_partition(upkeep, table, lower, upper);
	if (last_lower != lower)
		take_over_retention(upkeep);
	return true;
}

/*
 * Make room for rows of the default partition.
 *
 * It is not truncated when it is empty again.  Whoever looks by a snapshot that
 * is older than the move, a dump for one, sees the rows where they were, as
 * long as vacuum leaves them; they are not consumed.
 */
bool
overrun_step(Upkeep *upkeep)
{
	const char *table = partset_relation(upkeep->set->default_relid);
	int64		lowest;
	int64		highest;
	int64		lower;
	int64		upper;

	/* Rows may wait here for the old archive, which convert_step() puts them into */
	if (table == NULL || upkeep->converted != NULL)
		return false;
	if (upkeep->pm == NULL || !default_keys(upkeep, table, &lowest, &highest) ||
		!partset_room(upkeep->set, &upkeep->step, lowest, &lower, &upper))
		return false;
	if (!too_many(upkeep, table, lower, upper) || !turn_default(upkeep, table))
		move_rows(upkeep, table, lower, upper);
	return true;
}
