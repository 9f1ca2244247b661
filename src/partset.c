/*
 * partset.c
 *	  The partitions of a table as they are in the catalog now.
 *
 * Nothing is locked: who wants to change a partition locks it and asks again.
 */
#include "partset.h"

#include "access/htup_details.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_partitioned_table.h"
#include "catalog/pg_type_d.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* The quoted, qualified name of a relation, or NULL if it is gone */
const char *
partset_relation(Oid relid)
{
	char	   *relname = get_rel_name(relid);

	if (relname == NULL)
		return NULL;
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), relname);
}

static int64
bound_value(List *datums, int64 least, int64 most)
{
	PartitionRangeDatum *datum = linitial_node(PartitionRangeDatum, datums);

	switch (datum->kind)
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return least;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return most;
		default:
			return DatumGetInt64(castNode(Const, datum->value)->constvalue);
	}
}

/* False for the default partition, and for a table that is none any more */
static bool
get_bounds(Oid relid, Partition *partition, bool *is_default)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum		bound;
	bool		isnull;
	PartitionBoundSpec *spec;

	*is_default = false;
	if (!HeapTupleIsValid(tuple))
		return false;
	bound = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relpartbound, &isnull);
	spec = isnull ? NULL : stringToNode(TextDatumGetCString(bound));
	ReleaseSysCache(tuple);
	if (spec == NULL)
		return false;
	*is_default = spec->is_default;
	if (spec->is_default || spec->strategy != PARTITION_STRATEGY_RANGE)
		return false;
	partition->relid = relid;
	partition->lower = bound_value(spec->lowerdatums, PG_INT64_MIN, PG_INT64_MAX);
	partition->upper = bound_value(spec->upperdatums, PG_INT64_MIN, PG_INT64_MAX);
	return true;
}

static int
by_lower(const void *a, const void *b)
{
	int64		x = ((const Partition *) a)->lower;
	int64		y = ((const Partition *) b)->lower;

	return x < y ? -1 : x > y;
}

/* NULL if the key is none of ours: one column, a number of 64 bits or a time */
static PartSet *
get_key(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(PARTRELID, ObjectIdGetDatum(relid));
	Form_pg_partitioned_table form;
	AttrNumber	attnum;
	Oid			type;
	PartSet    *set;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_partitioned_table) GETSTRUCT(tuple);
	attnum = form->partattrs.values[0];
	type = attnum > 0 ? get_atttype(relid, attnum) : InvalidOid;
	set = NULL;
	if (form->partstrat == PARTITION_STRATEGY_RANGE && form->partnatts == 1 &&
		(type == INT8OID || type == TIMESTAMPTZOID))
	{
		set = palloc0(sizeof(PartSet));
		set->relid = relid;
		set->parent = partset_relation(relid);
		set->column = quote_identifier(get_attname(relid, attnum, false));
		set->by_time = type == TIMESTAMPTZOID;
	}
	ReleaseSysCache(tuple);
	return set;
}

/* NULL if the table is not partitioned, or not as a queue's tables are; palloc'd */
PartSet *
partset_get(Oid relid)
{
	PartSet    *set = get_key(relid);
	List	   *children;
	ListCell   *lc;

	if (set == NULL)
		return NULL;
	children = find_inheritance_children(relid, NoLock);
	set->partitions = palloc(sizeof(Partition) * Max(list_length(children), 1));
	foreach(lc, children)
	{
		bool		is_default;

		if (get_bounds(lfirst_oid(lc), &set->partitions[set->count], &is_default))
			set->count++;
		else if (is_default)
			set->default_relid = lfirst_oid(lc);
	}
	qsort(set->partitions, set->count, sizeof(Partition), by_lower);
	return set;
}

/* The partition that a key belongs to; NULL if that is the default one */
const Partition *
partset_find(const PartSet *set, int64 key)
{
	int			i;

	for (i = 0; i < set->count; i++)
	{
		if (key >= set->partitions[i].lower && key < set->partitions[i].upper)
			return &set->partitions[i];
	}
	return NULL;
}

/* The range without a partition around a key that has none */
void
partset_gap(const PartSet *set, int64 key, int64 *lower, int64 *upper)
{
	int			i;

	*lower = PG_INT64_MIN;
	*upper = PG_INT64_MAX;
	for (i = 0; i < set->count; i++)
	{
		if (set->partitions[i].upper <= key)
			*lower = set->partitions[i].upper;
		else if (set->partitions[i].lower > key)
		{
			*upper = set->partitions[i].lower;
			break;
		}
	}
}

/* A bound as SQL takes it in quotes; palloc'd */
char *
partset_key_text(const PartSet *set, int64 key)
{
	Oid			output;
	bool		varlena;

	if (key == PG_INT64_MIN)
		return pstrdup(set->by_time ? "-infinity" : "MINVALUE");
	if (key == PG_INT64_MAX)
		return pstrdup(set->by_time ? "infinity" : "MAXVALUE");
	getTypeOutputInfo(set->by_time ? TIMESTAMPTZOID : INT8OID, &output, &varlena);
	return OidOutputFunctionCall(output, Int64GetDatum(key));
}

/* The interval as pg_partman keeps it */
void
partset_step(const PartSet *set, const char *interval, PartStep *step)
{
	memset(step, 0, sizeof(*step));
	step->by_time = set->by_time;
	if (set->by_time)
		step->span = *DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(interval),
															ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
	else
		step->ids = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(interval)));
}

/* A key that many steps on, or back */
int64
partset_add(const PartStep *step, int64 key, int32 times)
{
	Interval	span = step->span;

	if (!step->by_time)
		return key + times * step->ids;
	span.time *= times;
	span.day *= times;
	span.month *= times;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(key),
												   IntervalPGetDatum(&span)));
}

/* Steps that surely fit between two times; days have 25 hours at most */
static int32
sure_steps(const PartStep *step, int64 from, int64 to)
{
	int64		longest = step->span.time + step->span.day * (25 * USECS_PER_HOUR) +
		step->span.month * (31 * USECS_PER_DAY + USECS_PER_HOUR);

	return (int32) Min((to - from) / Max(longest, 1), PG_INT32_MAX / 64);
}

/*
 * Where the step that a time lies in begins, counted from one that another
 * begins with.  By leaps, because there may be many.
 */
static int64
time_floor(const PartStep *step, int64 from, int64 key)
{
	int32		steps;

	while (from > key)
		from = partset_add(step, from, -Max(sure_steps(step, key, from), 1));
	while ((steps = sure_steps(step, from, key)) > 0)
		from = partset_add(step, from, steps);
	while (partset_add(step, from, 1) <= key)
		from = partset_add(step, from, 1);
	return from;
}

/*
 * The bounds of the partition that a key without one should have: where the
 * others go on, and no further than they leave room.  False if it has one.
 */
bool
partset_room(const PartSet *set, const PartStep *step, int64 key,
			 int64 *lower, int64 *upper)
{
	int64		gap_lower;
	int64		gap_upper;

	if (partset_find(set, key) != NULL)
		return false;
	partset_gap(set, key, &gap_lower, &gap_upper);
	if (!step->by_time)
	{
		*lower = key - key % step->ids;
		if (*lower > key)
			*lower -= step->ids;
	}
	else
		*lower = time_floor(step, gap_lower != PG_INT64_MIN ? gap_lower :
							gap_upper != PG_INT64_MAX ? gap_upper : key, key);
	*upper = Min(partset_add(step, *lower, 1), gap_upper);
	*lower = Max(*lower, gap_lower);
	return true;
}
