/*
 * taken.h
 *	  Messages that a statement has deleted, to be sent on.
 */
#ifndef PGMQ_TAKEN_H
#define PGMQ_TAKEN_H

#include "pgmq.h"

#include "tcop/dest.h"

typedef struct TakenMessage
{
	int64		msg_id;
	NullableDatum message;
	NullableDatum headers;
} TakenMessage;

/* Receives them from the executor */
typedef struct TakenList
{
	DestReceiver pub;			/* must be first */
	TakenMessage *messages;
	int			count;
	int			room;
	MemoryContext context;
} TakenList;

extern TakenList *taken_list(void);

#endif							/* PGMQ_TAKEN_H */
