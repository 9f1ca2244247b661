/*
 * planner.c
 *	  The settings that plans are made under.
 *
 * The plan of a statement on a queue must be the same in every session,
 * whatever a session has set: the plan decides in which order rows are locked,
 * and how much of the queue is read.  So every setting that the choice of a
 * plan depends on has a fixed value while a statement of plan.c is planned:
 *
 * - every scan of a queue goes through an index and takes its order from it,
 *	 whatever the statistics say.  A queue of the PL/pgSQL extension has an index
 *	 on vt alone, and an incremental sort adds the order of ids to it;
 * - JIT is off: the planner assumes that an unknown LIMIT is a tenth of the
 *	 table.  So a long queue would make it compile every read of ten rows;
 * - everything else is as the server has it by default.
 *
 * (No plan of plan.c is parallel, and none is custom: see there.)  The
 * variables are set directly: this runs in every call, and no code in between
 * reads the settings by name.
 */
#include "pgmq.h"

#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"

#include "base/planner.h"

static const struct
{
	bool	   *variable;
	bool		value;
}			Switches[] =
{
	{&enable_seqscan, false},
	{&enable_bitmapscan, false},
	{&enable_sort, false},
	{&enable_incremental_sort, true},
	{&jit_enabled, false},
	{&enable_geqo, false},
	{&enable_indexscan, true},
	{&enable_indexonlyscan, true},
	{&enable_tidscan, true},
	{&enable_hashagg, true},
	{&enable_nestloop, true},
	{&enable_material, true},
	{&enable_memoize, true},
	{&enable_mergejoin, true},
	{&enable_hashjoin, true},
	{&enable_partition_pruning, true},
	{&enable_partitionwise_join, false},
	{&enable_partitionwise_aggregate, false},
	{&enable_async_append, true}
};

static const struct
{
	double	   *variable;
	double		value;
}			Costs[] =
{
	{&seq_page_cost, DEFAULT_SEQ_PAGE_COST},
	{&random_page_cost, DEFAULT_RANDOM_PAGE_COST},
	{&cpu_tuple_cost, DEFAULT_CPU_TUPLE_COST},
	{&cpu_index_tuple_cost, DEFAULT_CPU_INDEX_TUPLE_COST},
	{&cpu_operator_cost, DEFAULT_CPU_OPERATOR_COST},
	{&hash_mem_multiplier, 2.0}
};

static const struct
{
	int		   *variable;
	int			value;
}			Sizes[] =
{
	{&effective_cache_size, DEFAULT_EFFECTIVE_CACHE_SIZE},
	{&work_mem, 4096},
	{&from_collapse_limit, 8},
	{&join_collapse_limit, 8},
	{&constraint_exclusion, CONSTRAINT_EXCLUSION_PARTITION}
};

StaticAssertDecl(lengthof(Switches) == PLANNER_SWITCHES && lengthof(Costs) == PLANNER_COSTS &&
				 lengthof(Sizes) == PLANNER_SIZES, "planner.h does not fit");

/* Set the planner's settings until planner_end(), which must follow an error, too */
void
planner_begin(PlannerSettings *saved)
{
	int			i;

	for (i = 0; i < PLANNER_SWITCHES; i++)
	{
		saved->switches[i] = *Switches[i].variable;
		*Switches[i].variable = Switches[i].value;
	}
	for (i = 0; i < PLANNER_COSTS; i++)
	{
		saved->costs[i] = *Costs[i].variable;
		*Costs[i].variable = Costs[i].value;
	}
	for (i = 0; i < PLANNER_SIZES; i++)
	{
		saved->sizes[i] = *Sizes[i].variable;
		*Sizes[i].variable = Sizes[i].value;
	}
}

void
planner_end(const PlannerSettings *saved)
{
	int			i;

	for (i = 0; i < PLANNER_SWITCHES; i++)
		*Switches[i].variable = saved->switches[i];
	for (i = 0; i < PLANNER_COSTS; i++)
		*Costs[i].variable = saved->costs[i];
	for (i = 0; i < PLANNER_SIZES; i++)
		*Sizes[i].variable = saved->sizes[i];
}
