/*
 * fit.c
 *	  What a policy adds to the tables of a queue, made and removed on demand.
 *
 * A queue that counts failures has two more columns.  pgmq_releases is how often a
 * message was released, pgmq_settled the delivery that was released or failed last.
 * They have no default, so they are entries in the catalog: no row is read or written.
 *
 * A queue with priorities has the column pgmq_rank, which is 9 - priority: the lowest
 * rank comes first.  Its default is a constant, so no row is written, but there are two
 * indexes on it: of fresh messages by rank and msg_id, of deferred ones by rank and vt.
 * They go with the column.
 *
 * The caller has checked that the queue is the current user's, holds lock_queue(), and
 * has connected to SPI.  Statements run as the owner of the queue.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/pg_type_d.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"

typedef struct FitColumn
{
	const char *name;
	const char *type;
	Oid			type_oid;
	uint32		needed_for;		/* any of these settings */
	const char *constraints;
} FitColumn;

static const FitColumn fit_columns[] = {
	{"pgmq_releases", "pg_catalog.int4", INT4OID, POLICY_MAX_READS | POLICY_MAX_IN_FLIGHT, ""},
	{"pgmq_settled", "pg_catalog.int4", INT4OID, POLICY_MAX_READS | POLICY_MAX_IN_FLIGHT, ""},
	{"pgmq_rank", "pg_catalog.int2", INT2OID, POLICY_PRIORITY, " NOT NULL DEFAULT " CppAsString2(RANK_DEFAULT)}
};

/* Whether the queue's table has the column; an error if it has one of another type */
static bool
has_column(const QueueName *name, const FitColumn *column, bool refuse_other)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	AttrNumber	attno = get_attnum(relid, column->name);

	if (attno == InvalidAttrNumber)
		return false;
	if (get_atttype(relid, attno) == column->type_oid)
		return true;
	if (refuse_other)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table %s is not of type %s", column->name,
						name_table(name, QUEUE_TABLE), format_type_be(column->type_oid)),
				 errhint("The policy needs a column of this name. Rename the other one.")));
	return false;
}

static void
run_as_owner(const QueueName *name, const char *sql)
{
	(void) owner_run(owner_of(queue_relid(name, QUEUE_TABLE)), false, sql, 0, NULL);
}

static void
alter(const QueueName *name, const char *actions)
{
	run_as_owner(name, psprintf("ALTER TABLE %s %s", name_table(name, QUEUE_TABLE), actions));
}

/* The indexes that the queue has, as reads will find them */
static void
describe(const QueueName *name, Place *place)
{
	Relation	rel = queue_open_table(name, QUEUE_TABLE, AccessShareLock, NULL);

	if (rel == NULL)
		queue_require(name);
	(void) queue_describe(name, QUEUE_TABLE, rel, place);
	relation_close(rel, NoLock);
}

/*
 * The server chooses the names, because no name of ours is free for certain: the
 * queue "x_fresh_idx" has the table q_x_fresh_idx.
 */
static void
make_rank_indexes(const QueueName *name)
{
	const char *table = name_table(name, QUEUE_TABLE);
	Place		place;

	describe(name, &place);
	if (!OidIsValid(place.rank_fresh_index))
		run_as_owner(name, psprintf("CREATE INDEX ON %s (pgmq_rank, msg_id)"
									" WHERE vt OPERATOR(pg_catalog.=) enqueued_at", table));
	if (!OidIsValid(place.rank_due_index))
		run_as_owner(name, psprintf("CREATE INDEX ON %s (pgmq_rank, vt, msg_id)"
									" WHERE vt OPERATOR(pg_catalog.<>) enqueued_at", table));
	if (!OidIsValid(place.vt_index))
		ereport(NOTICE,
				(errmsg("priorities of queue \"%s\" have no effect yet: it has no index on vt", name->canonical),
				 errhint("Make the index with pgmq.upgrade_queues().")));
}

/* Add what these settings need.  This waits for all transactions that use the queue, if something is missing. */
void
policy_fit(const QueueName *name, uint32 set)
{
	StringInfoData actions;
	int			i;

	initStringInfo(&actions);
	for (i = 0; i < lengthof(fit_columns); i++)
	{
		const FitColumn *column = &fit_columns[i];

		if ((set & column->needed_for) != 0 && !has_column(name, column, true))
			appendStringInfo(&actions, "%sADD COLUMN %s %s%s", actions.len > 0 ? ", " : "",
							 column->name, column->type, column->constraints);
	}
	if (actions.len > 0)
		alter(name, actions.data);
	if ((set & POLICY_PRIORITY) != 0)
		make_rank_indexes(name);
	if ((set & POLICY_DEDUP_WINDOW) != 0)
		keys_make(name);
}

/* Remove what none of these settings needs.  The keys stay: send_unique() needs no setting. */
void
policy_unfit(const QueueName *name, uint32 set)
{
	StringInfoData actions;
	int			i;

	initStringInfo(&actions);
	for (i = 0; i < lengthof(fit_columns); i++)
	{
		const FitColumn *column = &fit_columns[i];

		if ((set & column->needed_for) == 0 && has_column(name, column, false))
			appendStringInfo(&actions, "%sDROP COLUMN %s", actions.len > 0 ? ", " : "", column->name);
	}
	if (actions.len > 0)
		alter(name, actions.data);
}

/*
 * Whether the queue has the columns that count failures.  It keeps them until the transaction
 * ends: its table is locked as a writer does.
 */
bool
policy_counts_failures(const QueueName *name)
{
	Relation	rel = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, NULL);
	bool		counts = rel != NULL;
	int			i;

	for (i = 0; counts && i < lengthof(fit_columns); i++)
	{
		if ((fit_columns[i].needed_for & POLICY_MAX_READS) != 0)
			counts = relcheck_column(RelationGetDescr(rel), fit_columns[i].name, fit_columns[i].type_oid) != 0;
	}
	if (rel != NULL)
		relation_close(rel, NoLock);
	return counts;
}

/* What the queue has of this, as a list of descriptions */
List *
policy_fitted(const QueueName *name)
{
	List	   *fitted = NIL;
	int			i;

	for (i = 0; i < lengthof(fit_columns); i++)
	{
		if (has_column(name, &fit_columns[i], false))
			fitted = lappend(fitted, psprintf("column %s of %s", fit_columns[i].name, name_table(name, QUEUE_TABLE)));
	}
	return fitted;
}
