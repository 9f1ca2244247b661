/*
 * retire.c
 *	  Old rows of an archive are deleted, for the policy archive_retention.
 *
 * 1. A step deletes a limited number of rows and is a transaction of its own, so nothing is
 *	  locked for long.  Rows that another transaction has locked are left to the next
 *	  call.
 * 2. The rows are found by the index on archived_at.  The next step starts where the last
 *	  one ended: a scan from the start would read all the rows that earlier steps deleted.
 * 3. In a partitioned archive, retention_step() drops whole partitions first, for the
 *	  retention that the queue was created with.
 */
#include "pgmq.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "upkeep/maintain.h"

/* So many rows in a step */
#define RETIRE_ROWS 10000

/* $1: from here on, $2: older than this */
#define RETIRE_SQL \
	"DELETE FROM {archive} WHERE msg_id OPERATOR(pg_catalog.=) ANY (ARRAY(" \
	"SELECT msg_id FROM {archive}" \
	" WHERE archived_at OPERATOR(pg_catalog.>=) $1 AND archived_at OPERATOR(pg_catalog.<) $2" \
	" ORDER BY archived_at LIMIT " CppAsString2(RETIRE_ROWS) " FOR UPDATE SKIP LOCKED))" \
	" AND archived_at OPERATOR(pg_catalog.>=) $1 AND archived_at OPERATOR(pg_catalog.<) $2" \
	" RETURNING archived_at"

/* Whether the table is an archive whose rows have a retention */
bool
retire_is_set(const QueueName *name, char prefix)
{
	const QueuePolicy *policy;
	char		relkind;
	bool		set;

	if (prefix != ARCHIVE_TABLE)
		return false;
	policy = policy_of(name);
	set = (policy->set & POLICY_ARCHIVE_RETENTION) != 0;
	policy_release(policy);
	if (!set)
		return false;
	relkind = get_rel_relkind(queue_relid(name, ARCHIVE_TABLE));
	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE;
}

/* The time of the last row that was deleted */
static TimestampTz
latest_deleted(void)
{
	TimestampTz latest = DT_NOBEGIN;
	uint64		i;

	for (i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			latest = Max(latest, DatumGetTimestampTz(value));
	}
	return latest;
}

/* The plan is to read no more than the rows that go, whatever the statistics say */
static void
read_by_index(void)
{
	set_option("enable_seqscan", "off");
	set_option("enable_bitmapscan", "off");
	set_option("enable_sort", "off");
}

/* Delete the oldest rows that are past the retention, as they are now; the caller resets settings */
bool
retire_step(Upkeep *upkeep)
{
	const QueuePolicy *policy = policy_of(upkeep->name);
	Oid			types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[2];
	SPIPlanPtr	plan;
	uint64		deleted;

	if ((policy->set & POLICY_ARCHIVE_RETENTION) == 0)
		return false;
	values[0] = TimestampTzGetDatum(*upkeep->position);
	values[1] = DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
									IntervalPGetDatum(&policy->archive_retention));
	read_by_index();
	plan = run_prepare(name_expand(RETIRE_SQL, upkeep->name), 2, types);
	deleted = run_prepared(plan, values, NULL, GetLatestSnapshot(), false);
	if (deleted > 0)
		*upkeep->position = latest_deleted();
	return deleted >= RETIRE_ROWS;
}
