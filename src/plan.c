/*
 * plan.c
 *	  The prepared statements of a queue in this backend: find, prepare, keep,
 *	  evict, run.
 *
 * Every statement is prepared once per backend and queue, with a generic plan,
 * and kept.  It survives DROP TABLE and CREATE TABLE: the server parses it
 * again by name when its table has changed.
 *
 * A generic plan that is made while the table is empty would be a sequential
 * scan or a sort, and stay one when the queue floods.  So plans are made
 * while those are switched off; see plan_make_ready().  The switches are set
 * around planning only, never while a statement runs: triggers that users hang
 * on a queue's table must be planned as in any other statement.
 *
 * Memory: the table of entries is in PlanContext, a child of
 * TopMemoryContext; a kept plan belongs to the server's CacheMemoryContext
 * until SPI_freeplan().  No more than pgmq.plan_cache_size queues have plans;
 * the least recently used goes first.
 */
#include "pgmq.h"

#include "executor/spi_priv.h"
#include "jit/jit.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "optimizer/cost.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"

typedef struct PlanEntry
{
	QueueName	name;			/* hash key, must be first */
	dlist_node	recency;		/* in Recency, most recent first */
	int			pins;			/* calls at work with a plan of this entry */
	SPIPlanPtr	plans[PLAN_KINDS];
} PlanEntry;

/* setting: pgmq.plan_cache_size */
int			plan_max_queues = 256;

static MemoryContext PlanContext = NULL;
static HTAB *Entries = NULL;
static dlist_head Recency = DLIST_STATIC_INIT(Recency);

/* Memory may run out anywhere here: the next call goes on from what there is. */
static void
create_entries(void)
{
	HASHCTL		ctl;

	if (PlanContext == NULL)
		PlanContext = AllocSetContextCreate(TopMemoryContext, "pgmq plans",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextDeleteChildren(PlanContext);	/* half a table */
	ctl.keysize = sizeof(QueueName);
	ctl.entrysize = sizeof(PlanEntry);
	ctl.hcxt = PlanContext;
	Entries = hash_create("pgmq plans", 64, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
remove_entry(PlanEntry *entry)
{
	int			i;

	for (i = 0; i < PLAN_KINDS; i++)
	{
		/* Forget it before it goes, so that an error can't leave it dangling */
		SPIPlanPtr	plan = entry->plans[i];

		entry->plans[i] = NULL;
		if (plan != NULL)
			SPI_freeplan(plan);
	}
	dlist_delete(&entry->recency);
	hash_search(Entries, &entry->name, HASH_REMOVE, NULL);
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

static PlanEntry *
find_entry(const QueueName *name)
{
	PlanEntry  *entry;
	bool		found;

	if (Entries == NULL)
		create_entries();
	entry = hash_search(Entries, name, HASH_FIND, NULL);
	if (entry != NULL)
	{
		dlist_move_head(&Recency, &entry->recency);
		return entry;
	}
	evict_entries();
	entry = hash_search(Entries, name, HASH_ENTER, &found);
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
 * Have a valid generic plan, made with the access paths that a queue needs:
 * every scan of a queue goes through an index and takes its order from it,
 * whatever the statistics say.  JIT is off as well: the planner takes an
 * unknown LIMIT for a tenth of the table, so that a long queue would make it
 * compile every read of ten rows.
 *
 * When the plan is good this takes the locks that the execution takes anyway,
 * so that nothing can invalidate the plan between here and there.
 */
static void
plan_make_ready(SPIPlanPtr plan)
{
	bool		seqscan = enable_seqscan;
	bool		bitmapscan = enable_bitmapscan;
	bool		sort = enable_sort;
	bool		jit = jit_enabled;
	bool		valid;

	PG_TRY();
	{
		enable_seqscan = enable_bitmapscan = enable_sort = jit_enabled = false;
		do
		{
			CachedPlan *cplan = SPI_plan_get_cached_plan(plan);

			/* An invalidation that came during planning asks for another round */
			valid = cplan != NULL && cplan->is_valid;
			if (cplan != NULL)
				ReleaseCachedPlan(cplan, CurrentResourceOwner);
			CHECK_FOR_INTERRUPTS();
		} while (!valid);
	}
	PG_FINALLY();
	{
		enable_seqscan = seqscan;
		enable_bitmapscan = bitmapscan;
		enable_sort = sort;
		jit_enabled = jit;
	}
	PG_END_TRY();
}

static SPIPlanPtr
prepare(const QueueName *name, const PlanSpec *spec)
{
	SPIPlanPtr	plan;

	plan = SPI_prepare_cursor(name_expand(spec->sql, name), spec->nargs,
							  (Oid *) spec->argtypes,
							  CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

/* The plan for one statement of one queue, ready to be executed */
static SPIPlanPtr
plan_get(const QueueName *name, const PlanSpec *spec)
{
	PlanEntry  *entry = find_entry(name);
	SPIPlanPtr *plan = &entry->plans[spec->kind];

	pin_entry(entry);
	if (*plan == NULL || !SPI_plan_is_valid(*plan))
		name_require_queue(name);
	if (*plan == NULL)
		*plan = prepare(name, spec);
	plan_make_ready(*plan);
	return *plan;
}

/*
 * Run a statement of a queue.  The caller has connected to SPI.  Rows go to
 * "dest", or to SPI_tuptable when that is NULL.  Returns how many rows the
 * statement processed.
 */
uint64
plan_run(const QueueName *name, const PlanSpec *spec,
		 const Datum *values, const bool *nulls, DestReceiver *dest)
{
	SPIPlanPtr	plan = plan_get(name, spec);
	SPIExecuteOptions options = {0};
	ParamListInfo params = makeParamList(spec->nargs);
	int			rc;
	int			i;

	for (i = 0; i < spec->nargs; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = spec->argtypes[i];
	}
	options.params = params;
	options.read_only = false;
	options.dest = dest;
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

/* The queue is gone: let go of its plans, if nobody runs them. */
void
plan_forget(const QueueName *name)
{
	PlanEntry  *entry = Entries ? hash_search(Entries, name, HASH_FIND, NULL) : NULL;

	if (entry != NULL && entry->pins == 0)
		remove_entry(entry);
}
