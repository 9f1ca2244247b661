/*
 * result.h
 *	  Rows into the set that a function returns.
 */
#ifndef PGMQ_RESULT_H
#define PGMQ_RESULT_H

#include "pgmq.h"

#include "tcop/dest.h"
#include "utils/timestamp.h"

typedef struct MessageSet MessageSet;

extern MessageSet *result_messages(FunctionCallInfo fcinfo);
extern DestReceiver *result_dest(MessageSet *set);
extern int64 result_highest(MessageSet *set);
extern TimestampTz result_earliest(const MessageSet *set);
extern void result_finish(MessageSet *set);
extern void result_arrange(MessageSet *set, const int64 *ids, int64 count);
extern int64 result_remove(MessageSet *set, bool (*unwanted) (void *arg, int64 msg_id, int32 read_ct), void *arg);
extern DestReceiver *result_scalars(FunctionCallInfo fcinfo);

typedef struct ValueList ValueList;

/* No caller needs more */
#define VALUE_COLUMNS 3

extern ValueList *result_values(Oid type);
extern ValueList *result_columns(int columns, const Oid *types);
extern DestReceiver *result_values_dest(ValueList *list);
extern uint64 result_values_got(const ValueList *list, const NullableDatum **values);

#endif							/* PGMQ_RESULT_H */
