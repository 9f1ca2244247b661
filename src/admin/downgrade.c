/*
 * downgrade.c
 *	  Remove from the queues what the PL/pgSQL extension does not know.
 *
 * These are the triggers that call our functions, what create_fifo_index() has made
 * (the index and the notes), and what a policy has added.  Then DROP EXTENSION needs no CASCADE, and the tables
 * of queues serve the other extension.
 *
 * All of it runs as the owner of the queue: a table may run code of its owner when it is
 * opened to be described.  An object counts as ours for what it is, not for its name.
 */
#include "pgmq.h"

#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "group/group.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq_prepare_downgrade);

/*
 * The triggers on a table that call a function of the extension.  Those of a partition
 * that were cloned from the whole table go with its triggers.
 */
#define OUR_TRIGGERS \
	"SELECT t.tgname FROM pg_catalog.pg_trigger AS t" \
	" JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass" \
	" AND d.objid OPERATOR(pg_catalog.=) t.tgfoid AND d.deptype OPERATOR(pg_catalog.=) 'e'" \
	" AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass" \
	" JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid" \
	" WHERE e.extname OPERATOR(pg_catalog.=) 'pgmq' AND NOT t.tgisinternal" \
	" AND t.tgparentid OPERATOR(pg_catalog.=) 0" \
	" AND t.tgrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass" \
	" ORDER BY t.tgname"

static void
report(FunctionCallInfo fcinfo, const char *what)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		value = CStringGetTextDatum(what);
	bool		isnull = false;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
}

/* The names of our triggers on the queue's table: a list of char * */
static List *
find_triggers(const QueueName *name)
{
	const char *table = name_table(name, QUEUE_TABLE);
	uint64		count = run_with_texts(OUR_TRIGGERS, 1, &table);
	List	   *triggers = NIL;
	uint64		i;

	for (i = 0; i < count; i++)
		triggers = lappend(triggers, row_text(i, 1));
	return triggers;
}

static void
drop_triggers(FunctionCallInfo fcinfo, const QueueName *name)
{
	const char *table = name_table(name, QUEUE_TABLE);
	ListCell   *lc;

	foreach(lc, find_triggers(name))
	{
		const char *trigger = quote_identifier(lfirst(lc));

		run_ddl("DROP TRIGGER %s ON %s", trigger, table);
		report(fcinfo, psprintf("trigger %s on %s", trigger, table));
	}
}

/* Whether there is something to drop, which is asked before the queue is locked */
static bool
has_something(const QueueName *name)
{
	return group_index(name) != NULL || group_has_notes(name) || find_triggers(name) != NIL ||
		keys_exist(name) || policy_fitted(name) != NIL;
}

static void
clean_queue(FunctionCallInfo fcinfo, const QueueName *name)
{
	const char *index;
	ListCell   *lc;

	if (!has_something(name))
		return;
	lock_queue(name);
	run_ddl("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", name_table(name, QUEUE_TABLE));
	drop_triggers(fcinfo, name);
	index = group_index(name);
	if (index != NULL)
	{
		run_ddl("DROP INDEX %s", index);
		report(fcinfo, psprintf("index %s", index));
	}
	if (group_has_notes(name))
	{
		run_ddl("DROP TABLE %s", name_table(name, NOTES_TABLE));
		report(fcinfo, psprintf("table %s", name_table(name, NOTES_TABLE)));
	}
	if (keys_exist(name))
	{
		keys_drop(name);
		report(fcinfo, psprintf("table %s", name_table(name, KEYS_TABLE)));
	}
	foreach(lc, policy_fitted(name))
		report(fcinfo, lfirst(lc));
	policy_unfit(name, 0);
}

/*
 * A queue of a role that the caller is not a member of stays as it is.  The catalog says
 * whether it has triggers of ours, and nothing else about it is looked at.
 */
static void
warn_of_skipped(const QueueName *name)
{
	if (find_triggers(name) != NIL)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("queue \"%s\" is skipped: must be owner of table q_%s", name->canonical, name->canonical)));
}

static void
visit(FunctionCallInfo fcinfo, const QueueName *name)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	OwnerScope	scope;

	if (!OidIsValid(relid))
		return;
	SPI_connect();
	if (rights_owns(relid))
	{
		owner_begin(owner_of(relid), &scope);
		clean_queue(fcinfo, name);
		owner_end(&scope);
	}
	else
		warn_of_skipped(name);
	SPI_finish();
}

/*
 * pgmq.prepare_downgrade() -> SETOF text: what it has dropped
 *
 * In the order of the names, so that two such calls do not deadlock.  Unlike other
 * functions over all queues it fails with the first queue that fails: nothing is
 * gained if some of them are ready.
 */
Datum
pgmq_prepare_downgrade(PG_FUNCTION_ARGS)
{
	ListedQueue *queues;
	int			count;
	int			i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	count = queues_list(&queues);
	for (i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		visit(fcinfo, &queues[i].name);
	}
	return (Datum) 0;
}
