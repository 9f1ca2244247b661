/*
 * check.c
 *	  Wait until there is something to read, without reading it: the procedures
 *	  wait and wait_any, and what wait_grouped (group.c) and wait_stream (streamwait.c) share with them.
 *
 * They hold no snapshot while they wait, so vacuum goes on.  For that each look
 * is a transaction of its own, which is why they refuse to run inside one.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "wait/wait.h"
#include "message/message.h"

PG_FUNCTION_INFO_V1(pgmq_wait);
PG_FUNCTION_INFO_V1(pgmq_wait_any);

/* Count no more than so many: a session that sees more does not wake more sessions. */
#define COUNT_LIMIT 100

/* For a table about which the horizon knows nothing.  $1 how many */
static const PlanSpec check = {
	PLAN_CHECK,
	"SELECT 1 FROM {queue}"
	" WHERE vt OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
	" OR vt OPERATOR(pg_catalog.=) enqueued_at"
	" LIMIT $1",
	1, {INT8OID}
};

typedef struct Check
{
	QueueName  *queues;
	int			nqueues;
	bool	   *ready;			/* of each queue */
	bool		grouped;		/* to read by groups */
	CheckCount	count;
} Check;

/* A role that may not read or pop the queue may not learn what is in it either. */
static void
check_rights(const QueueName *name)
{
	Oid			relid;

	/* It can be renamed at any moment, and be back in the next one */
	while (!OidIsValid(relid = queue_relid(name, QUEUE_TABLE)))
		queue_require(name);
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		!horizon_may_take(relid))
		rights_refuse_table(relid);
}

/* How many messages are available, up to a limit; one look after the other, as a read does */
static int64
count_available(const QueueName *name, Outlook *outlook)
{
	TimestampTz moment = GetCurrentTimestamp();
	Horizon    *h;
	Gate		gate;
	bool		open = policy_gate(name, 0, 1, &gate);
	int64		found = 0;

	policy_release(gate.policy);
	if (!open)
		return policy_gate_closed(&gate, outlook);
	h = horizon_begin(name, QUEUE_TABLE, true, false);

	if (!horizon_knows(h) || queue_hides_rows(name))
	{
		Datum		limit = Int64GetDatum(COUNT_LIMIT);

		found = (int64) plan_run(name, &check, &limit, NULL, None_Receiver);
	}
	else
	{
		if (horizon_is_empty(h, moment, outlook))
		{
			horizon_end(h, 0);
			return 0;
		}
		do
			found = horizon_check(h, moment, COUNT_LIMIT);
		while (found == 0 && horizon_look_again(h));
	}
	read_outlook(name, h, moment, found, outlook);
	horizon_end(h, 0);
	return found;
}

/* One look, and with it the end of a transaction */
static int64
look_at(void *arg, int queue, Outlook *outlook)
{
	Check	   *request = arg;
	int64		found;

	check_rights(&request->queues[queue]);
	found = request->count(&request->queues[queue], outlook);
	request->ready[queue] = found > 0;
	SPI_commit();
	return found;
}

/*
 * The wait would commit a transaction that has done something, which its author
 * may not expect.
 */
void
check_refuse_transaction(FunctionCallInfo fcinfo, const char *procedure, const char *instead)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic;

	if (atomic || IsSubTransaction() || TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", procedure),
				 errdetail("It holds no snapshot while it waits, so it cannot be part of a transaction."),
				 errhint("Call it with autocommit, or use %s.", instead)));
	PreventCommandDuringRecovery(procedure);
}

static bool
wait_until_ready(FunctionCallInfo fcinfo, Check *request)
{
	WaitRequest wait = {0};
	int			i;

	request->ready = palloc0(sizeof(bool) * request->nqueues);
	wait.queues = request->queues;
	wait.nqueues = request->nqueues;
	wait.attempt = look_at;
	wait.arg = request;
	wait.timeout_ms = PG_ARGISNULL(1) ? CHECK_TIMEOUT_MS : PG_GETARG_INT32(1);
	wait.interval_ms = INT_MAX;
	wait.success = WAKE_SAW;
	wait.grouped = request->grouped;
	for (i = 0; i < request->nqueues; i++)
		wait.picky |= queue_hides_rows(&request->queues[i]);
	return wait_for(&wait);
}

/*
 * The row that a procedure with one INOUT argument returns.  The procedure itself
 * may have been dropped while the call waited, so its description is not asked for.
 */
Datum
check_result_row(Oid type, Datum value)
{
	TupleDesc	desc = CreateTemplateTupleDesc(1);
	bool		null = false;

	TupleDescInitEntry(desc, 1, "ready", type, -1, 0);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &null));
}

/* A procedure that waits for one queue, until there is something to count there */
Datum
check_wait(FunctionCallInfo fcinfo, const char *procedure, bool grouped, CheckCount count)
{
	Check		request = {.nqueues = 1, .grouped = grouped, .count = count};
	QueueName	name;
	bool		ready;

	check_refuse_transaction(fcinfo, procedure, "pgmq.read_with_poll");
	name_from_arg(fcinfo, 0, &name);
	request.queues = &name;
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	ready = wait_until_ready(fcinfo, &request);
	SPI_finish();
	return check_result_row(BOOLOID, BoolGetDatum(ready));
}

/* pgmq.wait(queue_name text, timeout_ms integer, INOUT ready boolean) */
Datum
pgmq_wait(PG_FUNCTION_ARGS)
{
	return check_wait(fcinfo, "pgmq.wait", false, count_available);
}

/*
 * Queues of one wait.  It takes a place in shared memory for each, and goes through
 * all of them whenever it is woken.
 */
#define MAX_QUEUES 1000

/* The queues that an array names; the same one twice counts once, as spelled first */
static int
queues_of(ArrayType *array, QueueName **queues, Datum **names)
{
	HTAB	   *known = hash_in_context("queues of pgmq.wait_any", 64, sizeof(QueueName), sizeof(QueueName),
									CurrentMemoryContext);
	bool	   *nulls;
	int			elements;
	int			count = 0;
	int			i;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, names, &nulls, &elements);
	*queues = palloc(sizeof(QueueName) * MAX_QUEUES);
	for (i = 0; i < elements; i++)
	{
		QueueName	name;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("queue_names must not contain nulls")));
		name_canonical(DatumGetTextPP((*names)[i]), &name);
		(void) hash_search(known, &name, HASH_ENTER, &found);
		if (found)
			continue;
		if (count == MAX_QUEUES)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("cannot wait for more than %d queues at a time", MAX_QUEUES),
					 errhint("Distribute the queues among several sessions.")));
		(*queues)[count] = name;
		(*names)[count] = (*names)[i];
		count++;
	}
	hash_destroy(known);
	return count;
}

/* pgmq.wait_any(queue_names text[], timeout_ms integer, INOUT ready text[]) */
Datum
pgmq_wait_any(PG_FUNCTION_ARGS)
{
	Check		request = {.count = count_available};
	Datum	   *names;
	Datum		row;
	int			count = 0;
	int			i;
	MemoryContext caller = CurrentMemoryContext;

	check_refuse_transaction(fcinfo, "pgmq.wait_any", "pgmq.read_with_poll");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	if (!PG_ARGISNULL(0))
		request.nqueues = queues_of(PG_GETARG_ARRAYTYPE_P_COPY(0), &request.queues, &names);
	if (request.nqueues == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("queue_names cannot be NULL or empty")));
	(void) wait_until_ready(fcinfo, &request);
	for (i = 0; i < request.nqueues; i++)
	{
		if (request.ready[i])
			names[count++] = names[i];
	}
	MemoryContextSwitchTo(caller);
	row = check_result_row(TEXTARRAYOID, PointerGetDatum(construct_array(names, count, TEXTOID, -1, false,
															   TYPALIGN_INT)));
	SPI_finish();
	return row;
}
