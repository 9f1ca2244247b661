/*
 * result.c
 *	  Rows into the set that a function returns.
 *
 * Rows go from the executor straight into the caller's tuplestore, which
 * lives in the context of the query that called us; nothing is copied on the
 * way.
 */
#include "pgmq.h"

#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "executor/tstoreReceiver.h"
#include "utils/builtins.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"

#include "base/relcheck.h"
#include "base/result.h"

/*
 * A receiver of message rows that records whether they came in msg_id order,
 * which is what we promise.  They do if the statement scans the index on
 * msg_id; otherwise they are sorted.
 */
struct MessageSet
{
	DestReceiver pub;			/* must be first */
	DestReceiver *store;		/* writes to rsinfo->setResult */
	ReturnSetInfo *rsinfo;
	TupleTableSlot *reordered;	/* if the type has the old order, else NULL */
	int64		last_id;
	int64		highest;		/* since result_highest() was called */
	TimestampTz earliest;		/* of all vt */
	bool		ordered;
};

/* What a statement returns: MESSAGE_COLUMNS */
static const Oid message_types[] = {INT8OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
JSONBOID, JSONBOID};

/*
 * Types of versions before 1.10 lacked last_read_at.  An update adds it as the last
 * attribute, because views and clients know the others by their places.
 */
static const int old_order[] = {0, 1, 2, 4, 5, 6, 3};

static bool
has_old_order(TupleDesc desc)
{
	int			i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), "vt") == 0)
			return true;
		if (!att->attisdropped && strcmp(NameStr(att->attname), "last_read_at") == 0)
			return false;
	}
	return false;
}

/* A tuplestore would put a column of another type into the place of ours */
static void
require_message_columns(TupleDesc typeinfo)
{
	int			i;

	for (i = 0; i < lengthof(message_types); i++)
	{
		if (i >= typeinfo->natts || TupleDescAttr(typeinfo, i)->atttypid != message_types[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the queue's table does not have the columns of a queue")));
	}
}

static void
message_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	MessageSet *set = (MessageSet *) self;

	if (set->reordered != NULL)
	{
		require_message_columns(typeinfo);
		typeinfo = set->rsinfo->setDesc;
	}
	set->store->rStartup(set->store, operation, typeinfo);
}

static TupleTableSlot *
reorder(MessageSet *set, TupleTableSlot *slot)
{
	TupleDesc	desc = set->rsinfo->setDesc;
	TupleTableSlot *result = ExecClearTuple(set->reordered);
	int			live = 0;
	int			i;

	slot_getallattrs(slot);
	for (i = 0; i < desc->natts; i++)
	{
		int			from = TupleDescAttr(desc, i)->attisdropped ? -1 : old_order[live++];

		result->tts_values[i] = from < 0 ? (Datum) 0 : slot->tts_values[from];
		result->tts_isnull[i] = from < 0 || slot->tts_isnull[from];
	}
	return ExecStoreVirtualTuple(result);
}

static bool
message_receive(TupleTableSlot *slot, DestReceiver *self)
{
	MessageSet *set = (MessageSet *) self;
	bool		isnull;
	Datum		msg_id = slot_getattr(slot, 1, &isnull);
	Datum		vt;

	if (!isnull)
	{
		set->ordered &= DatumGetInt64(msg_id) >= set->last_id;
		set->last_id = DatumGetInt64(msg_id);
		set->highest = Max(set->highest, set->last_id);
	}
	vt = slot_getattr(slot, 5, &isnull);
	if (!isnull)
		set->earliest = Min(set->earliest, DatumGetTimestampTz(vt));
	if (set->reordered != NULL)
		slot = reorder(set, slot);
	return set->store->receiveSlot(slot, set->store);
}

static void
message_shutdown(DestReceiver *self)
{
	MessageSet *set = (MessageSet *) self;

	set->store->rShutdown(set->store);
}

static void
message_destroy(DestReceiver *self)
{
	MessageSet *set = (MessageSet *) self;

	set->store->rDestroy(set->store);
	pfree(set);
}

static DestReceiver *
tuplestore_dest(ReturnSetInfo *rsinfo)
{
	DestReceiver *dest = CreateTuplestoreDestReceiver();

	/* setDesc makes a table whose columns have other types an error (42804) */
	SetTuplestoreDestReceiverParams(dest, rsinfo->setResult,
									rsinfo->econtext->ecxt_per_query_memory,
									false, rsinfo->setDesc,
									"the queue's table does not have the columns of a queue");
	return dest;
}

/* Call before SPI_connect(). */
MessageSet *
result_messages(FunctionCallInfo fcinfo)
{
	MessageSet *set = palloc0(sizeof(MessageSet));
	TupleDesc	desc;

	InitMaterializedSRF(fcinfo, 0);
	set->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	desc = set->rsinfo->setDesc;
	if (has_old_order(desc))
	{
		Oid			types[lengthof(message_types)];
		int			i;

		for (i = 0; i < lengthof(types); i++)
			types[i] = message_types[old_order[i]];
		relcheck_row_type(desc, types, lengthof(types), "message_record");
		set->reordered = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	}
	else
		relcheck_row_type(desc, message_types, lengthof(message_types), "message_record");
	set->store = tuplestore_dest(set->rsinfo);
	set->pub.rStartup = message_startup;
	set->pub.receiveSlot = message_receive;
	set->pub.rShutdown = message_shutdown;
	set->pub.rDestroy = message_destroy;
	set->pub.mydest = DestTuplestore;
	set->last_id = set->highest = PG_INT64_MIN;
	set->earliest = DT_NOEND;
	set->ordered = true;
	return set;
}

DestReceiver *
result_dest(MessageSet *set)
{
	return &set->pub;
}

/* The highest msg_id since the last call */
int64
result_highest(MessageSet *set)
{
	int64		highest = set->highest;

	set->highest = PG_INT64_MIN;
	return highest;
}

/* The earliest vt of all rows */
TimestampTz
result_earliest(const MessageSet *set)
{
	return set->earliest;
}

static void
sort_by_msg_id(ReturnSetInfo *rsinfo)
{
	AttrNumber	column = 1;
	Oid			less = Int8LessOperator;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;
	Tuplesortstate *sort;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rsinfo->setDesc, &TTSOpsMinimalTuple);
	MemoryContext oldcontext;

	sort = tuplesort_begin_heap(rsinfo->setDesc, 1, &column, &less, &collation,
								&nulls_first, work_mem, NULL, TUPLESORT_NONE);
	while (tuplestore_gettupleslot(rsinfo->setResult, true, false, slot))
		tuplesort_puttupleslot(sort, slot);
	tuplesort_performsort(sort);
	tuplestore_clear(rsinfo->setResult);
	oldcontext = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
		tuplestore_puttupleslot(rsinfo->setResult, slot);
	MemoryContextSwitchTo(oldcontext);
	tuplesort_end(sort);
	ExecDropSingleTupleTableSlot(slot);
}

/* All rows were received: sort them if necessary. */
void
result_finish(MessageSet *set)
{
	if (!set->ordered)
		sort_by_msg_id(set->rsinfo);
}

/* Where a message stands in an order of msg_ids */
typedef struct Rank
{
	int64		msg_id;
	int			position;
} Rank;

static int
compare_ranks(const void *a, const void *b)
{
	return pg_cmp_s64(((const Rank *) a)->msg_id, ((const Rank *) b)->msg_id);
}

/* All rows were received: give them this order instead of that of their msg_ids. */
void
result_arrange(MessageSet *set, const int64 *ids, int64 count)
{
	ReturnSetInfo *rsinfo = set->rsinfo;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rsinfo->setDesc, &TTSOpsMinimalTuple);
	MinimalTuple *tuples = palloc0(sizeof(MinimalTuple) * Max(count, 1));
	Rank	   *ranks = palloc(sizeof(Rank) * Max(count, 1));
	MemoryContext oldcontext;
	int			i;

	for (i = 0; i < count; i++)
		ranks[i] = (Rank) {ids[i], i};
	qsort(ranks, count, sizeof(Rank), compare_ranks);
	while (tuplestore_gettupleslot(rsinfo->setResult, true, false, slot))
	{
		bool		isnull;
		Rank		key = {DatumGetInt64(slot_getattr(slot, 1, &isnull)), 0};
		Rank	   *found = bsearch(&key, ranks, count, sizeof(Rank), compare_ranks);

		if (found != NULL)
			tuples[found->position] = ExecCopySlotMinimalTuple(slot);
	}
	tuplestore_clear(rsinfo->setResult);
	oldcontext = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	for (i = 0; i < count; i++)
	{
		if (tuples[i] == NULL)
			continue;
		ExecStoreMinimalTuple(tuples[i], slot, false);
		tuplestore_puttupleslot(rsinfo->setResult, slot);
	}
	MemoryContextSwitchTo(oldcontext);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Rows were received: remove those that "unwanted" says, given the msg_id and the read_ct of each.
 * Returns how many.
 */
int64
result_remove(MessageSet *set, bool (*unwanted) (void *arg, int64 msg_id, int32 read_ct), void *arg)
{
	ReturnSetInfo *rsinfo = set->rsinfo;
	Tuplestorestate *all = rsinfo->setResult;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rsinfo->setDesc, &TTSOpsMinimalTuple);
	List	   *kept = NIL;
	ListCell   *lc;
	int64		removed = 0;
	MemoryContext oldcontext;

	while (tuplestore_gettupleslot(all, true, false, slot))
	{
		bool		isnull;
		int64		msg_id = DatumGetInt64(slot_getattr(slot, 1, &isnull));

		if (unwanted(arg, msg_id, DatumGetInt32(slot_getattr(slot, 2, &isnull))))
			removed++;
		else
			kept = lappend(kept, ExecCopySlotMinimalTuple(slot));
	}
	tuplestore_clear(all);
	oldcontext = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	foreach(lc, kept)
	{
		ExecStoreMinimalTuple(lfirst(lc), slot, false);
		tuplestore_puttupleslot(all, slot);
	}
	MemoryContextSwitchTo(oldcontext);
	ExecDropSingleTupleTableSlot(slot);
	list_free_deep(kept);
	return removed;
}

/* For a set of one scalar column.  Call before SPI_connect(). */
DestReceiver *
result_scalars(FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	return tuplestore_dest((ReturnSetInfo *) fcinfo->resultinfo);
}

/*
 * A receiver of columns that fit into a Datum: ids, times, counts.  Its memory
 * goes with the SPI call that it was made in.
 */
struct ValueList
{
	DestReceiver pub;			/* must be first */
	int			columns;
	Oid			types[VALUE_COLUMNS];
	uint64		count;			/* rows */
	uint64		room;
	NullableDatum *values;		/* row by row */
	NullableDatum first[VALUE_COLUMNS];	/* the usual case */
	MemoryContext context;
};

static void
value_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	ValueList  *list = (ValueList *) self;
	int			i;

	/* The value of any other type would be taken for a number */
	for (i = 0; i < list->columns; i++)
	{
		Form_pg_attribute att = i < typeinfo->natts ? TupleDescAttr(typeinfo, i) : NULL;

		if (att == NULL || att->atttypid != list->types[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the queue's table does not have the columns of a queue"),
					 att == NULL ? 0 : errdetail("The column %s is not of type %s.", NameStr(att->attname),
												 format_type_be(list->types[i]))));
	}
}

static bool
value_receive(TupleTableSlot *slot, DestReceiver *self)
{
	ValueList  *list = (ValueList *) self;
	Size		row = sizeof(NullableDatum) * list->columns;
	NullableDatum *value;
	int			i;

	if (list->count == list->room)
	{
		Size		room = list->room * 2 + 16;
		NullableDatum *values = MemoryContextAllocHuge(list->context, row * room);

		memcpy(values, list->values, row * list->count);
		if (list->values != list->first)
			pfree(list->values);
		list->values = values;
		list->room = room;
	}
	value = &list->values[list->columns * list->count++];
	for (i = 0; i < list->columns; i++)
		value[i].value = slot_getattr(slot, i + 1, &value[i].isnull);
	return true;
}

static void
value_shutdown(DestReceiver *self)
{
}

/* The first columns, of these types, of the rows that go to result_values_dest() */
ValueList *
result_columns(int columns, const Oid *types)
{
	ValueList  *list = palloc0(sizeof(ValueList));

	list->pub.rStartup = value_startup;
	list->pub.receiveSlot = value_receive;
	list->pub.rShutdown = value_shutdown;
	list->pub.rDestroy = value_shutdown;
	list->pub.mydest = DestNone;
	Assert(columns <= VALUE_COLUMNS);
	list->columns = columns;
	memcpy(list->types, types, sizeof(Oid) * columns);
	list->values = list->first;
	list->room = 1;
	list->context = CurrentMemoryContext;
	return list;
}

/* The first column */
ValueList *
result_values(Oid type)
{
	return result_columns(1, &type);
}

DestReceiver *
result_values_dest(ValueList *list)
{
	return &list->pub;
}

/* What came, row by row; returns how many rows */
uint64
result_values_got(const ValueList *list, const NullableDatum **values)
{
	*values = list->values;
	return list->count;
}
