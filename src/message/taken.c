/*
 * taken.c
 *	  Messages that a statement has deleted, to be sent on: id, body and headers.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "utils/memutils.h"

#include "message/taken.h"

static void
taken_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	if (desc->natts != 3 || TupleDescAttr(desc, 0)->atttypid != INT8OID ||
		TupleDescAttr(desc, 1)->atttypid != JSONBOID || TupleDescAttr(desc, 2)->atttypid != JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the queue's table does not have the columns of a queue")));
}

static NullableDatum
copy_column(TupleTableSlot *slot, int column)
{
	NullableDatum copy = {0};

	copy.value = slot_getattr(slot, column, &copy.isnull);
	if (!copy.isnull)
		copy.value = PointerGetDatum(PG_DETOAST_DATUM_COPY(copy.value));
	return copy;
}

static bool
taken_receive(TupleTableSlot *slot, DestReceiver *self)
{
	TakenList  *list = (TakenList *) self;
	MemoryContext old = MemoryContextSwitchTo(list->context);
	TakenMessage *taken;
	bool		isnull;

	if (list->count == list->room)
	{
		list->room = list->room * 2 + 16;
		list->messages = list->messages == NULL ? palloc(sizeof(TakenMessage) * list->room) :
			repalloc(list->messages, sizeof(TakenMessage) * list->room);
	}
	taken = &list->messages[list->count++];
	taken->msg_id = DatumGetInt64(slot_getattr(slot, 1, &isnull));
	taken->message = copy_column(slot, 2);
	taken->headers = copy_column(slot, 3);
	MemoryContextSwitchTo(old);
	return true;
}

static void
taken_shutdown(DestReceiver *self)
{
}

/* A receiver; its memory goes with the SPI call */
TakenList *
taken_list(void)
{
	TakenList  *list = palloc0(sizeof(TakenList));

	list->pub.rStartup = taken_startup;
	list->pub.receiveSlot = taken_receive;
	list->pub.rShutdown = taken_shutdown;
	list->pub.rDestroy = taken_shutdown;
	list->pub.mydest = DestNone;
	list->context = CurrentMemoryContext;
	return list;
}
