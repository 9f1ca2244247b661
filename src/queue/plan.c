/*
 * plan.c
 *	  The prepared statements of a queue in this backend: find, prepare, keep,
 *	  evict, run.
 *
 * Every statement is prepared once per backend and queue, and once for each
 * partition that needs it (partition.c says why).  It gets a generic plan and
 * is kept.  It survives DROP TABLE and CREATE TABLE: the server parses it again
 * by name when its table has changed.
 *
 * A generic plan that is made while the table is empty would be a sequential
 * scan or a sort.  It would stay one when the queue fills.  So plans are made
 * under fixed settings (planner.c).  Those are in force during planning only,
 * never while a statement runs: queries in triggers of users must be planned as
 * in any other statement.
 *
 * The plan that was made is the plan that runs: the statements are passed to
 * the executor here.  SPI_execute_plan() would choose again, and prefer a
 * custom plan under plan_cache_mode = force_custom_plan.
 *
 * Memory: the table of entries is in PlanContext, a child of TopMemoryContext;
 * a kept plan belongs to the server's CacheMemoryContext until SPI_freeplan().
 * No more than pgmq.plan_cache_size queues, or partitions of queues, have
 * plans; the least recently used one is dropped first.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/descriptor.h"
#include "queue/partition.h"
#include "queue/plan.h"

/*
 * The statements on a partition are kept by its bounds, too, and each variant by
 * itself: they are part of their text.  Zero-padded, for it is hashed.
 */
typedef struct PlanKey
{
	QueueName	name;
	Oid			leaf;			/* or InvalidOid, for the queue as a whole */
	uint32		bounds;
	uint32		variant;
} PlanKey;

typedef struct PlanEntry
{
	PlanKey		key;			/* hash key, must be first */
	dlist_node	recency;		/* in Recency, most recent first */
	int			pins;			/* calls that are using a plan of this entry */
	SPIPlanPtr	plans[PLAN_KINDS];
} PlanEntry;

/* setting: pgmq.plan_cache_size */
int			plan_max_queues = 256;

static MemoryContext PlanContext = NULL;
static HTAB *Entries = NULL;
static dlist_head Recency = DLIST_STATIC_INIT(Recency);

/* Memory may run out anywhere here; the next call continues. */
static void
create_entries(void)
{
	if (PlanContext == NULL)
		PlanContext = AllocSetContextCreate(TopMemoryContext, "pgmq plans",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextDeleteChildren(PlanContext);	/* half a table */
	Entries = hash_in_context("pgmq plans", 64, sizeof(PlanKey), sizeof(PlanEntry), PlanContext);
}

static void
remove_entry(PlanEntry *entry)
{
	int			i;

	for (i = 0; i < PLAN_KINDS; i++)
	{
		/* Clear the pointer before it is freed, so that an error cannot leave it dangling */
		SPIPlanPtr	plan = entry->plans[i];

		entry->plans[i] = NULL;
		if (plan != NULL)
			SPI_freeplan(plan);
	}
	dlist_delete(&entry->recency);
	hash_search(Entries, &entry->key, HASH_REMOVE, NULL);
}

/*
 * Make room for one more entry.  An entry whose plan is being run further up
 * the stack (a trigger on one queue that sends to others) stays.
 */
static void
evict_entries(void)
{
	dlist_node *node = dlist_is_empty(&Recency) ? NULL : dlist_tail_node(&Recency);

	while (node != NULL && hash_get_num_entries(Entries) >= plan_max_queues)
	{
		PlanEntry  *entry = dlist_container(PlanEntry, recency, node);

		node = dlist_has_prev(&Recency, node) ? dlist_prev_node(&Recency, node) : NULL;
		if (entry->pins == 0)
			remove_entry(entry);
	}
}

static void
make_key(const QueueName *name, const Leaf *leaf, PlanVariant variant, PlanKey *key)
{
	key->name = *name;
	key->leaf = leaf ? leaf->relid : InvalidOid;
	key->bounds = leaf ? leaf->bounds : 0;
	key->variant = variant;
}

static PlanEntry *
find_entry(const QueueName *name, const Leaf *leaf, PlanVariant variant)
{
	PlanKey		key;
	PlanEntry  *entry;
	bool		found;

	if (Entries == NULL)
		create_entries();
	make_key(name, leaf, variant, &key);
	entry = hash_search(Entries, &key, HASH_FIND, NULL);
	if (entry != NULL)
	{
		dlist_move_head(&Recency, &entry->recency);
		return entry;
	}
	evict_entries();
	entry = hash_search(Entries, &key, HASH_ENTER, &found);
	entry->pins = 0;
	memset(entry->plans, 0, sizeof(entry->plans));
	dlist_push_head(&Recency, &entry->recency);
	return entry;
}

static void
unpin_entry(void *arg)
{
	((PlanEntry *) arg)->pins--;
}

/*
 * Hold the entry until the current SPI call ends, by success or by error: the
 * memory of that call goes in both cases, and takes the pin with it.
 */
static void
pin_entry(PlanEntry *entry)
{
	MemoryContextCallback *release = palloc(sizeof(MemoryContextCallback));

	release->func = unpin_entry;
	release->arg = entry;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, release);
	entry->pins++;
}

/*
 * A valid generic plan, which the current resource owner holds.  This takes the
 * locks of its execution, so that nothing can invalidate the plan between here
 * and there.
 *
 * A waiting session has no snapshot.  If the planner ignores an index that is
 * too new for older snapshots, the plan remembers the oldest snapshot, so there
 * must be one.  The statement gets another, taken under its locks.
 */
static CachedPlan *
get_generic_plan(SPIPlanPtr plan)
{
	CachedPlan *volatile cplan = NULL;
	PlannerSettings saved;
	bool		pushed = !ActiveSnapshotSet();

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	planner_begin(&saved);
	PG_TRY();
	{
		for (;;)
		{
			/* Without parameters it never makes a custom one */
			cplan = SPI_plan_get_cached_plan(plan);
			if (cplan == NULL)
				elog(ERROR, "statement of a queue has no plan");
			/* An invalidation that came during planning asks for another round */
			if (cplan->is_valid)
				break;
			ReleaseCachedPlan(cplan, CurrentResourceOwner);
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_FINALLY();
	{
		planner_end(&saved);
	}
	PG_END_TRY();
	if (pushed)
		PopActiveSnapshot();
	return cplan;
}

static const char *const live_conditions[] = {
	[LIVE_ANY] = "",
	[LIVE_BY_RELEASES] = " AND pgmq._dead_reason(read_ct, pgmq_releases, enqueued_at, headers, $7, $8, $9) IS NULL",
	[LIVE_BY_READS] =
	" AND pgmq._dead_reason(read_ct, NULL::pg_catalog.int4, enqueued_at, headers, $7, $8, $9) IS NULL"
};

static SPIPlanPtr
prepare(const QueueName *name, const PlanSpec *spec, const Leaf *leaf, PlanVariant variant)
{
	char	   *sql = name_expand_leaf(spec->sql, name, leaf ? leaf_condition(leaf) : "",
									   live_conditions[variant],
									   variant == LIVE_BY_RELEASES ? "pgmq_releases" : "NULL::pg_catalog.int4");
	SPIPlanPtr	plan;

	plan = SPI_prepare_cursor(sql, spec->nargs, (Oid *) spec->argtypes, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

/*
 * A rule DO INSTEAD NOTHING or NOTIFY leaves no statement on a table.  The server does not know on which table such a plan
 * depends, so it would not notice that the rule is gone.
 */
static bool
does_nothing(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	ListCell   *lc;

	foreach(lc, source->query_list)
	{
		if (lfirst_node(Query, lc)->commandType != CMD_UTILITY)
			return false;
	}
	return true;
}

/* The statement of one queue, prepared */
static SPIPlanPtr
plan_get(const QueueName *name, const PlanSpec *spec, const Leaf *leaf, PlanVariant variant)
{
	PlanEntry  *entry = find_entry(name, leaf, variant);
	SPIPlanPtr *plan = &entry->plans[spec->kind];

	if (*plan != NULL && entry->pins == 0 && does_nothing(*plan))
	{
		SPIPlanPtr	old = *plan;

		*plan = NULL;
		SPI_freeplan(old);
	}
	pin_entry(entry);
	if (*plan == NULL || !SPI_plan_is_valid(*plan))
	{
		if (spec->kind >= PLAN_PUBLISH)
			stream_require(name);
		else
			queue_require(name);
	}
	if (*plan == NULL)
		*plan = prepare(name, spec, leaf, variant);
	return *plan;
}

/* What an error in a statement shows of it: the same as SPI */
static void
show_statement(void *arg)
{
	const char *query = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(query);
	}
	else
		errcontext("SQL statement \"%s\"", query);
}

static ParamListInfo
make_params(const PlanSpec *spec, int clock_arg, const Datum *values, const bool *nulls)
{
	ParamListInfo params = makeParamList(spec->nargs);
	int			i;

	for (i = 0; i < spec->nargs; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = spec->argtypes[i];
	}
	if (clock_arg >= 0)
		params->params[clock_arg].value = TimestampTzGetDatum(GetCurrentTimestamp());
	return params;
}

/* One statement, on what has been committed and what this transaction has done by now */
static uint64
run_statement(PlannedStmt *stmt, const char *query, ParamListInfo params, DestReceiver *dest)
{
	QueryDesc  *desc;
	uint64		processed;

	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
	if (stmt->utilityStmt != NULL)	/* NOTIFY, the only one that a rule can have */
	{
		ProcessUtility(stmt, query, true, PROCESS_UTILITY_QUERY, params, NULL,
					   None_Receiver, NULL);
		return 0;
	}
	desc = CreateQueryDesc(stmt, query, GetActiveSnapshot(), InvalidSnapshot,
						   stmt->canSetTag ? dest : None_Receiver, params, NULL, 0);
	ExecutorStart(desc, 0);
	ExecutorRun(desc, ForwardScanDirection, 0);
	processed = desc->estate->es_processed;
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	return stmt->canSetTag ? processed : 0;
}

/*
 * Run a prepared statement.  "clock_arg" is the parameter that gets the clock,
 * or -1.  The clock is read now, while the plan's locks are held.  Rules of
 * users may have rewritten the statement to several, or to none.
 */
static uint64
execute(SPIPlanPtr plan, const PlanSpec *spec, int clock_arg, bool latest,
		const Datum *values, const bool *nulls, DestReceiver *dest)
{
	ResourceOwner owner = CurrentResourceOwner;
	CachedPlan *cplan = get_generic_plan(plan);
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	ParamListInfo params = make_params(spec, clock_arg, values, nulls);
	ErrorContextCallback context;
	uint64		processed = 0;
	ListCell   *lc;

	context.callback = show_statement;
	context.arg = unconstify(char *, source->query_string);
	context.previous = error_context_stack;
	error_context_stack = &context;

	/* The statement, the snapshot, then the counter, all in the order of SPI */
	EnsurePortalSnapshotExists();
	PushActiveSnapshot(latest ? GetLatestSnapshot() : GetTransactionSnapshot());
	foreach(lc, cplan->stmt_list)
		processed += run_statement(lfirst_node(PlannedStmt, lc), source->query_string, params, dest);
	ReleaseCachedPlan(cplan, owner);
	CommandCounterIncrement();
	PopActiveSnapshot();
	error_context_stack = context.previous;
	return processed;
}

/*
 * Run a statement of a queue.  The caller has connected to SPI.  Rows go to
 * "dest".  Returns how many rows the statement processed.
 */
uint64
plan_run(const QueueName *name, const PlanSpec *spec,
		 const Datum *values, const bool *nulls, DestReceiver *dest)
{
	return execute(plan_get(name, spec, NULL, LIVE_ANY), spec, -1, false, values, nulls, dest);
}

/* The same by a new snapshot, even if the caller's snapshot is fixed; without rows */
uint64
plan_run_latest(const QueueName *name, const PlanSpec *spec, const Datum *values)
{
	return execute(plan_get(name, spec, NULL, LIVE_ANY), spec, -1, true, values, NULL, None_Receiver);
}

/* The same with the clock as a parameter, read when the queue is locked */
uint64
plan_run_now(const QueueName *name, const PlanSpec *spec, int clock_arg,
			 const Datum *values, const bool *nulls, DestReceiver *dest)
{
	return execute(plan_get(name, spec, NULL, LIVE_ANY), spec, clock_arg, false, values, nulls, dest);
}

/* The same on one partition, or on the whole queue if "leaf" is NULL */
uint64
plan_run_leaf(const QueueName *name, const PlanSpec *spec, const Leaf *leaf, PlanVariant variant,
			  const Datum *values, const bool *nulls, DestReceiver *dest)
{
	return execute(plan_get(name, spec, leaf, variant), spec, -1, false, values, nulls, dest);
}

/* The same by a new snapshot, even if the caller's snapshot is fixed */
uint64
plan_run_latest_leaf(const QueueName *name, const PlanSpec *spec, const Leaf *leaf,
					 const Datum *values, const bool *nulls, DestReceiver *dest)
{
	return execute(plan_get(name, spec, leaf, LIVE_ANY), spec, -1, true, values, nulls, dest);
}

/* The queue is gone: free its plans, unless one is running. */
void
plan_forget(const QueueName *name)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &Recency)
	{
		PlanEntry  *entry = dlist_container(PlanEntry, recency, iter.cur);

		if (entry->pins == 0 && memcmp(&entry->key.name, name, sizeof(*name)) == 0)
			remove_entry(entry);
	}
}
