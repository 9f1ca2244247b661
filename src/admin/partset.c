/*
 * partset.c
 *	  The partitions of a table as they are in the catalog now, and the steps
 *	  from one to the next.
 *
 * Nothing is locked: a caller that wants to change a partition locks it and
 * asks again.
 *
 * queue/partition.c has another list, for calls that hand out messages.  It
 * needs the lock on the queue's table, and it is kept in the session.  It knows
 * queues only: an archive by time is partitioned by archived_at.  That list says
 * where messages are.  This one is for changing what partitions there are.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_partitioned_table.h"
#include "catalog/pg_type_d.h"
#include "common/int.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "admin/admin.h"

/* The quoted, qualified name of a relation, or NULL if it is gone */
const char *
partset_relation(Oid relid)
{
	char	   *relname = get_rel_name(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	/* Without its schema, the name could be that of another one */
	if (relname == NULL || schema == NULL)
		return NULL;
	return quote_qualified_identifier(schema, relname);
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

/* False for the default partition, and for a table that is no partition any more */
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
	return pg_cmp_s64(((const Partition *) a)->lower, ((const Partition *) b)->lower);
}

/* NULL unless the key is one that we use: one column, a number of 64 bits or a time */
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
		set->attname = get_attname(relid, attnum, true);
		set->by_time = type == TIMESTAMPTZOID;
		/* Dropped meanwhile */
		if (set->parent == NULL || set->attname == NULL)
			set = NULL;
		else
			set->column = quote_identifier(set->attname);
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

/* The condition for keys from "lower" on and below "upper", which are no ends; palloc'd */
char *
partset_within(const PartSet *set, int64 lower, int64 upper)
{
	const char *type = set->by_time ? "timestamp with time zone" : "bigint";

	return psprintf("%s OPERATOR(pg_catalog.>=) '%s'::%s AND %s OPERATOR(pg_catalog.<) '%s'::%s",
					set->column, partset_key_text(set, lower), type,
					set->column, partset_key_text(set, upper), type);
}

/* A key as SQL has written it; an error for NULL */
int64
partset_key(bool by_time, const char *value)
{
	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the key of a partition must not be NULL")));
	if (!by_time)
		return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(value)));
	return DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(value),
												   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static void
refuse_interval(const char *what, const char *value, const char *must_be)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must be %s, got %s", what, must_be, value)));
}

/*
 * An interval from its text.  All of its units have one sign, so that a key
 * always moves the same way, whatever month it lies in.
 */
static void
parse_span(const char *what, const char *value, bool zero_too, Interval *span)
{
	const char *positive = zero_too ? "at least 0" : "greater than 0";

	*span = *DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
												   ObjectIdGetDatum(InvalidOid),
												   Int32GetDatum(-1)));
	if (INTERVAL_NOT_FINITE(span))
		refuse_interval(what, value, "finite");
	if (span->time <= 0 && span->day <= 0 && span->month <= 0 &&
		!(zero_too && span->time == 0 && span->day == 0 && span->month == 0))
		refuse_interval(what, value, positive);
	if (span->time < 0 || span->day < 0 || span->month < 0)
		refuse_interval(what, value, "free of positive and negative units at a time");
	/* pg_partman cannot name shorter partitions */
	if (!zero_too && span->month == 0 && span->day == 0 && span->time < USECS_PER_SEC)
		refuse_interval(what, value, "at least 1 second");
}

/*
 * The step from one partition to the next, or how long partitions are kept:
 * only the latter may be 0.  "what" is for errors.
 */
void
partset_step(bool by_time, const char *what, const char *value, bool zero_too, PartStep *step)
{
	memset(step, 0, sizeof(*step));
	step->by_time = by_time;
	if (by_time)
	{
		parse_span(what, value, zero_too, &step->span);
		return;
	}
	step->ids = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(value)));
	if (step->ids < (zero_too ? 0 : 1))
		refuse_interval(what, value, zero_too ? "at least 0" : "greater than 0");
}

/* Roughly, in microseconds; never too much */
static double
span_length(const Interval *span)
{
	return (double) span->time + span->day * (23.0 * USECS_PER_HOUR) +
		span->month * (28.0 * USECS_PER_DAY);
}

/* Ends of time are years away from the ends that the server knows, so nothing overflows */
#define TIME_MARGIN (10.0 * DAYS_PER_YEAR * USECS_PER_DAY)

/* Beyond the last time that can be written down comes infinity */
static int64
add_time(const Interval *one, int64 key, int32 times)
{
	double		longest = times * (span_length(one) * 1.12);	/* 25 of 23 hours, 31 of 28 days */
	Interval	span = *one;

	if ((double) key + longest > (double) END_TIMESTAMP - TIME_MARGIN)
		return PG_INT64_MAX;
	if ((double) key + longest < (double) MIN_TIMESTAMP + TIME_MARGIN)
		return PG_INT64_MIN;
	span.time *= times;
	span.day *= times;
	span.month *= times;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(key),
												   IntervalPGetDatum(&span)));
}

static int64
add_ids(int64 step, int64 key, int32 times)
{
	int64		distance;
	int64		sum;

	if (pg_mul_s64_overflow(step, times, &distance))
		return times < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	if (pg_add_s64_overflow(key, distance, &sum))
		return distance < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return sum;
}

/* The key that is so many steps ahead, or back; never beyond the range of keys */
int64
partset_add(const PartStep *step, int64 key, int32 times)
{
	if (key == PG_INT64_MIN || key == PG_INT64_MAX)
		return key;
	return step->by_time ? add_time(&step->span, key, times) : add_ids(step->ids, key, times);
}

/* Steps that surely fit between two times; a month has 31 days at most, a day 25 hours */
static int32
sure_steps(const PartStep *step, int64 from, int64 to)
{
	double		longest = Max(span_length(&step->span) * 1.12, 1);

	return (int32) Min(((double) to - (double) from) / longest, (double) (PG_INT32_MAX / 64));
}

/* Each leap leaves less than a fifth of the way, so that is far more than it takes */
#define MOST_LEAPS 1000

static void
count_leap(int *leaps)
{
	CHECK_FOR_INTERRUPTS();
	if (++*leaps > MOST_LEAPS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("could not find the bounds of a partition in %d steps", MOST_LEAPS)));
}

/*
 * The beginning of the step that a time lies in; "from" begins some other step.
 * By leaps, because there may be many steps between.
 */
static int64
time_floor(const PartStep *step, int64 from, int64 key)
{
	int			leaps = 0;
	int32		steps;

	if (key == PG_INT64_MIN || key == PG_INT64_MAX)
		return key;
	for (; from > key; count_leap(&leaps))
		from = partset_add(step, from, -Max(sure_steps(step, key, from), 1));
	if (from == PG_INT64_MIN)
		return key;
	for (; (steps = sure_steps(step, from, key)) > 0; count_leap(&leaps))
		from = partset_add(step, from, steps);
	for (; partset_add(step, from, 1) <= key; count_leap(&leaps))
		from = partset_add(step, from, 1);
	return from;
}

static int64
id_floor(int64 ids, int64 key)
{
	int64		below = key % ids < 0 ? key % ids + ids : key % ids;
	int64		floor;

	return pg_sub_s64_overflow(key, below, &floor) ? PG_INT64_MIN : floor;
}

/*
 * The bounds of the partition to be made for a key.  They continue the existing
 * partitions and do not overlap them.  False if the key has a partition, or if
 * it is an id so high that the next partition would end beyond the last id.
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
		*lower = id_floor(step->ids, key);
	else
		*lower = time_floor(step, gap_lower != PG_INT64_MIN ? gap_lower :
							gap_upper != PG_INT64_MAX ? gap_upper : key, key);
	*upper = Min(partset_add(step, *lower, 1), gap_upper);
	*lower = Max(*lower, gap_lower);
	return step->by_time || *upper < PG_INT64_MAX;
}
