/*
 * events.c
 *	  Events into the set that a function returns: pgmq.event_record.
 *
 * A statement gives the columns of the log.  The attempt and the lease are added here, as rows pass.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "stream/internal.h"

enum
{
	EVENT_SHARD,
	EVENT_ID,
	EVENT_PUBLISHED_AT,
	EVENT_KEY,
	EVENT_MESSAGE,
	EVENT_HEADERS,
	EVENT_ATTEMPT,				/* from here on they are added */
	EVENT_LEASE,
	EVENT_COLUMNS
};

static const Oid event_types[EVENT_COLUMNS] = {
	INT4OID, INT8OID, TIMESTAMPTZOID, TEXTOID, JSONBOID, JSONBOID, INT4OID, INT8OID
};

struct EventSet
{
	DestReceiver pub;			/* must be first */
	ReturnSetInfo *rsinfo;
	const ShardState *state;	/* NULL: without a lease */
	int64		lease;
	int64		last_id;
};

static void
event_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	int			i;

	for (i = 0; i < EVENT_ATTEMPT; i++)
	{
		if (i >= typeinfo->natts || TupleDescAttr(typeinfo, i)->atttypid != event_types[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the log does not have the columns of a stream")));
	}
}

static bool
event_receive(TupleTableSlot *slot, DestReceiver *self)
{
	EventSet   *set = (EventSet *) self;
	TupleDesc	desc = set->rsinfo->setDesc;
	Datum		values[EVENT_COLUMNS];
	bool		nulls[EVENT_COLUMNS];

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(Datum) * EVENT_ATTEMPT);
	memcpy(nulls, slot->tts_isnull, sizeof(bool) * EVENT_ATTEMPT);
	set->last_id = DatumGetInt64(values[EVENT_ID]);
	nulls[EVENT_ATTEMPT] = nulls[EVENT_LEASE] = set->state == NULL;
	values[EVENT_ATTEMPT] = set->state ? Int32GetDatum(state_attempt(set->state, set->last_id)) : (Datum) 0;
	values[EVENT_LEASE] = Int64GetDatum(set->lease);
	if (desc->natts == EVENT_COLUMNS)
		tuplestore_putvalues(set->rsinfo->setResult, desc, values, nulls);
	else						/* an attribute was dropped */
	{
		HeapTuple	row = relcheck_row(desc, values, nulls);

		tuplestore_puttuple(set->rsinfo->setResult, row);
		heap_freetuple(row);
	}
	return true;
}

static void
event_shutdown(DestReceiver *self)
{
}

static void
event_destroy(DestReceiver *self)
{
	pfree(self);
}

/* Call before SPI_connect() */
EventSet *
events_set(FunctionCallInfo fcinfo)
{
	EventSet   *set = palloc0(sizeof(EventSet));

	InitMaterializedSRF(fcinfo, 0);
	set->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	relcheck_row_type(set->rsinfo->setDesc, event_types, lengthof(event_types), "event_record");
	set->pub.rStartup = event_startup;
	set->pub.receiveSlot = event_receive;
	set->pub.rShutdown = event_shutdown;
	set->pub.rDestroy = event_destroy;
	set->pub.mydest = DestTuplestore;
	set->last_id = PG_INT64_MIN;
	return set;
}

/* What follows is handed out with a lease, and was received before as the state says */
void
events_lease(EventSet *set, const ShardState *state, int64 lease)
{
	set->state = state;
	set->lease = lease;
}

DestReceiver *
events_dest(EventSet *set)
{
	return &set->pub;
}

/* The last event that has passed */
int64
events_last_id(const EventSet *set)
{
	return set->last_id;
}
