/*
 * premake.c
 *	  Room for what will be sent: partitions ahead of the current one, and a
 *	  default partition that stays empty.
 *
 * pg_partman makes partitions ahead of the highest row that it sees.  A queue whose
 * messages are consumed has no row, however high its ids are.  So here partitions are
 * made ahead of the last id that was drawn.
 *
 * Rows without a partition go to the default one.  They are ordinary messages there,
 * but no partition can be made for them any more: the server refuses a partition
 * whose rows lie in the default partition.  There are two solutions.  In both of
 * them, every snapshot sees every row in exactly one place:
 *
 * Few rows are moved, within the transaction that makes their partition.  Meanwhile
 * no other session uses the queue.  A SELECT must not even begin: it would read the
 * list of partitions without the new one and then wait for the default partition.  So
 * it would find the rows in neither.
 *
 * Many rows stay where they are: the default partition becomes the partition that
 * they need, and an empty one, with another name, takes its place.  No other session uses the queue while
 * the server checks that the rows lie between the bounds.  The partition can be wider
 * than others.  pg_partman assumes equal widths and would drop it too early, so from
 * then on retention.c drops the table's partitions.
 *
 * The server decides on the partition of a row first and locks it then.  Suppose that
 * it has chosen the default partition and waits for our lock on that.  When we are
 * done, it finds that the row belongs to the new partition, and the insert fails.
 * Calls that send or archive lock the default partition before they insert
 * (leaflock.c), and we wait for the end of the call.  Plain inserts do not.  They are
 * kept from the table itself while a partition is made that their ids can be in.
 * Partitions further ahead do not need this: they can be made beside transactions
 * that stay open.
 *
 * In both cases the locks wait for open transactions that have touched these rows, up
 * to pgmq.maintenance_lock_timeout.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "admin/admin.h"
#include "upkeep/maintain.h"

/* Moving so many rows takes a moment; more than these stay where they are */
#define MOVE_AT_MOST 10000

/* ---- partitions ahead ---- */

/*
 * The last id that was drawn from the sequence that the column owns.  0 before
 * the first one, and for an archive without a queue
 */
int64
queue_last_id(const QueueName *name)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	Relation	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	Oid			sequence;
	int64		last_value;
	bool		is_called;

	if (rel == NULL)
		return 0;
	sequence = queue_sequence(name, QUEUE_TABLE, rel);
	relation_close(rel, NoLock);
	if (!OidIsValid(sequence))
		return 0;
	/* As pg_sequence_last_value() does */
	rights_require_table(sequence, ACL_SELECT | ACL_USAGE);
	return sequence_read(sequence, true, &last_value, &is_called) && is_called ? last_value : 0;
}

/*
 * The current key of the table: all keys below it were drawn.  For an archive
 * it is the highest id in it, but not above that of its queue.  Plain SQL can
 * write any id, and then retention must not consider the others old.
 */
int64
upkeep_current(const Upkeep *upkeep)
{
	int64		last_id;
	char	   *id;

	if (upkeep->set->by_time)
		return GetCurrentTimestamp();
	last_id = queue_last_id(upkeep->name);
	if (upkeep->prefix == QUEUE_TABLE)
		return last_id;
	id = run_for_text(psprintf("SELECT pg_catalog.max(msg_id) FROM %s", upkeep->set->parent), 0, NULL);
	if (id == NULL)
		return 0;
	if (!OidIsValid(queue_relid(upkeep->name, QUEUE_TABLE)))
		return partset_key(false, id);
	return Min(partset_key(false, id), last_id);
}



/* A name for a partition that is about to be made, not quoted */
static char *
name_partition(const Upkeep *upkeep, int64 lower)
{
	/* Where pg_partman reads bounds from names, there is no other one */
	bool		other_too = upkeep->set->by_time || upkeep->prefix == STREAM_TABLE;
	char	   *relname = partmake_name(upkeep->set, upkeep->config.datetime_string, lower, other_too);

	if (relname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("could not make a partition of %s for %s", upkeep->set->parent,
						partset_key_text(upkeep->set, lower)),
				 errdetail("Another relation has its name.")));
	return relname;
}

/* How many rows of a table lie in a range, counted up to "most" */
static uint64
rows_within(const Upkeep *upkeep, const char *table, int64 lower, int64 upper, int most)
{
	return run_with_texts(psprintf("SELECT FROM ONLY %s WHERE %s LIMIT %d",
								   table, partset_within(upkeep->set, lower, upper), most), 0, NULL);
}

/*
 * Until the default partition is locked, calls go on to put rows into it.  Rows of the range
 * can't be moved then: a call that waits for that lock has the table locked.  So the step begins anew.
 *
 * "soon": keys of the partition may come while it is being made.
 */
bool
premake_partition(Upkeep *upkeep, int64 lower, int64 upper, bool soon)
{
	const PartSet *set = upkeep->set;
	const char *rest = partset_relation(set->default_relid);
	const char *relname;

	if (rest != NULL && rows_within(upkeep, rest, lower, upper, 1) > 0)
		return overrun_step(upkeep);
	upkeep_lock(set->parent, soon ? "SHARE ROW EXCLUSIVE" : "SHARE UPDATE EXCLUSIVE");
	relname = name_partition(upkeep, lower);
	partmake_table(set, relname);
	if (rest != NULL)
	{
		upkeep_lock(rest, "ACCESS EXCLUSIVE");
		if (rows_within(upkeep, rest, lower, upper, 1) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("messages of the new partition %s have come into %s", relname, rest)));
	}
	partmake_attach(set, quote_qualified_identifier(PGMQ_SCHEMA, relname), lower, upper);
	return true;
}

/* An upper limit of partitions ahead, because any role may have written the number in pg_partman's table */
#define PREMAKE_AT_MOST 1000

/*
 * Make the next missing partition, one in each transaction.  Where partitions
 * that the owner has made leave too little room, nothing is made; rows for that
 * gap are moved on from the default partition.
 */
bool
premake_step(Upkeep *upkeep)
{
	int64		current = upkeep->set->by_time ? GetCurrentTimestamp() : queue_last_id(upkeep->name);
	int64		key = current;
	int			ahead;

	if (upkeep->pm == NULL)
		return false;
	for (ahead = 0; ahead <= Min(upkeep->config.premake, PREMAKE_AT_MOST); ahead++)
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
		if (!partset_room(upkeep->set, &upkeep->step, key, &lower, &upper) || upper <= key)
			return false;
		if (partset_add(&upkeep->step, lower, 1) == upper)
			return premake_partition(upkeep, lower, upper, lower < partset_add(&upkeep->step, current, 1));
		key = upper;
	}
	return false;
}

/* ---- the default partition ---- */

/*
 * Keys that a partition can be made for.  Only plain SQL writes others.  A
 * partition for them would have no name or no bounds; or no use, for events
 * with ids far above those that were drawn.  So their rows stay where they are.
 */
static const char *
ordinary_keys(const Upkeep *upkeep)
{
	const char *column = upkeep->set->column;

	if (upkeep->prefix == STREAM_TABLE)
		return psprintf("%s OPERATOR(pg_catalog.>=) 0 AND %s OPERATOR(pg_catalog.<=) " INT64_FORMAT,
						column, column, streamparts_reach(upkeep));
	if (!upkeep->set->by_time)
		return psprintf("%s OPERATOR(pg_catalog.>=) 0", column);
	return psprintf("%s OPERATOR(pg_catalog.>=) '0001-01-01 00:00:00+00'::timestamp with time zone"
					" AND pg_catalog.isfinite(%s)", column, column);
}

/* The lowest and the highest of these keys in the default partition; false if it has none */
static bool
default_keys(const Upkeep *upkeep, const char *table, int64 *lowest, int64 *highest)
{
	const char *column = upkeep->set->column;
	char	   *first;

	run_with_texts(psprintf("SELECT pg_catalog.min(%s), pg_catalog.max(%s) FROM ONLY %s WHERE %s",
							column, column, table, ordinary_keys(upkeep)), 0, NULL);
	first = row_text(0, 1);
	if (first == NULL)
		return false;
	*lowest = partset_key(upkeep->set->by_time, first);
	*highest = partset_key(upkeep->set->by_time, row_text(0, 2));
	return true;
}

/* Move the rows of a range to a partition of their own; there is no partition in the range */
static void
move_rows(const Upkeep *upkeep, const char *table, int64 lower, int64 upper)
{
	const PartSet *set = upkeep->set;
	const char *relname;
	const char *partition;

	upkeep_lock(set->parent, "ACCESS EXCLUSIVE");
	upkeep_lock(table, "ACCESS EXCLUSIVE");
	relname = name_partition(upkeep, lower);
	partition = quote_qualified_identifier(PGMQ_SCHEMA, relname);
	partmake_table(set, relname);
	partmake_move(set, partition, lower, upper);
	partmake_attach(set, partition, lower, upper);
}

/* The range must have no partition in it. */
static void
become_partition(const Upkeep *upkeep, const char *table, int64 lower, int64 upper)
{
	const PartSet *set = upkeep->set;
	const char *relname = name_partition(upkeep, lower);
	const char *last = get_rel_name(set->default_relid);

	run_ddl("ALTER TABLE %s DETACH PARTITION %s", set->parent, table);
	run_ddl("ALTER TABLE %s RENAME TO %s", table, quote_identifier(relname));
	partmake_attach(set, quote_qualified_identifier(PGMQ_SCHEMA, relname), lower, upper);
	partmake_default(set, last);
}

/*
 * From now on we drop the partitions, not pg_partman: its settings are copied to our own record.  As after an upgrade,
 * unread messages stay.
 */
static void
take_over_retention(const Upkeep *upkeep)
{
	const char *args[] = {upkeep->name->canonical, upkeep->config.retention};

	if (upkeep->config.retention == NULL)
		return;
	queue_write_row(OWN_PARTITION_CONFIG, upkeep->name, ACL_NO_RIGHTS,
					"INSERT INTO pgmq.partition_config (queue_name, retention_interval, drop_unread, drop_consumed)"
					" VALUES ($1, $2, false, false) ON CONFLICT DO NOTHING", lengthof(args), args);
	partman_set_retention(upkeep->pm, upkeep->name, upkeep->prefix, NULL);
}

static bool
has_other_keys(const Upkeep *upkeep, const char *table)
{
	return run_with_texts(psprintf("SELECT FROM ONLY %s WHERE NOT (%s) LIMIT 1",
								   table, ordinary_keys(upkeep)), 0, NULL) > 0;
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

	upkeep_lock(set->parent, "ACCESS EXCLUSIVE");
	upkeep_lock(table, "ACCESS EXCLUSIVE");
	if (!default_keys(upkeep, table, &lowest, &highest))
		return true;
	if (partset_find(set, lowest) != NULL || partset_find(set, highest) != NULL)
		return true;			/* the list of partitions is out of date */
	if (!partset_room(set, &upkeep->step, lowest, &lower, &upper) ||
		!partset_room(set, &upkeep->step, highest, &last_lower, &upper))
		return false;
	partset_gap(set, lowest, &gap_lower, &gap_upper);
	if (upper > gap_upper || has_other_keys(upkeep, table))
		return false;
	become_partition(upkeep, table, lower, upper);
	if (last_lower != lower)
		take_over_retention(upkeep);
	return true;
}

/*
 * Make room for rows of the default partition.
 *
 * The default partition is not truncated when it is empty again.  A snapshot
 * that is older than the move, such as a dump's, still sees the rows where they
 * were.  They are not consumed, and stay there until vacuum may remove them.
 */
bool
overrun_step(Upkeep *upkeep)
{
	const char *table = partset_relation(upkeep->set->default_relid);
	int64		lowest;
	int64		highest;
	int64		lower;
	int64		upper;

	/* Rows may be here that belong to the old archive; convert_step() moves them there */
	if (table == NULL || upkeep->converted != NULL)
		return false;
	if (!upkeep->can_make || !default_keys(upkeep, table, &lowest, &highest) ||
		!partset_room(upkeep->set, &upkeep->step, lowest, &lower, &upper))
		return false;
	if (rows_within(upkeep, table, lower, upper, MOVE_AT_MOST + 1) <= MOVE_AT_MOST ||
		!turn_default(upkeep, table))
		move_rows(upkeep, table, lower, upper);
	return true;
}
