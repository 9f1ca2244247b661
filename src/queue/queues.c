/*
 * queues.c
 *	  Do something for each queue of the database, or for each stream.
 *
 * One bad queue must not keep a function from all others.  So each queue has a
 * subtransaction of its own, and its error becomes a warning.  Two kinds of
 * errors end the whole call: a cancellation, and a missing privilege of the
 * caller, which would take a shorter result for a complete one.  Code of a
 * queue's owner can raise any SQLSTATE.  So a cancellation is recognized by
 * where the server raised it, and a refusal does not end a call that visits as
 * another role.
 *
 * The owner of a queue can lock its tables for as long as it likes.  All queues
 * together may keep the call waiting for lock_budget_ms; after that, a queue is
 * skipped when its lock is not free at once.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/varlena.h"

#include "base/base.h"
#include "queue/descriptor.h"
#include "queue/queues.h"

/* ---- the list ---- */

typedef struct QueueList
{
	ListedQueue *queues;
	int			count;
	int			max;
	int64		nameless;		/* rows that name no queue */
} QueueList;

static void
warn_of(char table, const char *name, int sqlerrcode, const char *message, const char *detail)
{
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg("%s \"%s\" is skipped: %s", table == STREAM_TABLE ? "stream" : "queue", name, message),
			 detail ? errdetail("%s", detail) : 0));
}

/* Any maker of queues can write such rows, and maintenance reads them in each round */
#define MAX_NAME_WARNINGS 10

static void
warn_of_name(QueueList *list, const char *queue_name, int sqlerrcode, const char *message)
{
	if (list->nameless++ < MAX_NAME_WARNINGS)
		warn_of(QUEUE_TABLE, queue_name, sqlerrcode, message, NULL);
}

static void
add_queue(QueueList *list, char *queue_name)
{
	ListedQueue *queue;

	if (list->count == list->max)
	{
		list->max *= 2;
		list->queues = repalloc_huge(list->queues, sizeof(ListedQueue) * list->max);
	}
	queue = &list->queues[list->count];
	if (queue_name == NULL)
		warn_of_name(list, "<NULL>", ERRCODE_NULL_VALUE_NOT_ALLOWED, "a queue must have a name");
	else if (!name_try_canonical(cstring_to_text(queue_name), &queue->name))
		warn_of_name(list, queue_name, ERRCODE_INVALID_NAME, "no queue can have this name");
	else
	{
		queue->spelling = queue_name;
		queue->table = QUEUE_TABLE;
		list->count++;
	}
}

/* By name, and rows without one last */
static int
compare_names(const void *a, const void *b)
{
	const char *left = *(char *const *) a;
	const char *right = *(char *const *) b;

	if (left == NULL || right == NULL)
		return (left == NULL) - (right == NULL);
	return varstr_cmp(left, (int) strlen(left), right, (int) strlen(right), DEFAULT_COLLATION_OID);
}

/* The queues that the caller may see, by name; palloc'd.  Rows that name no queue are warnings, in the same order. */
int
queues_list(ListedQueue **queues)
{
	static const char *const columns[] = {"queue_name"};
	OwnRow	   *rows;
	uint64		count = ownread(OWN_META, VIEW_OF_STATEMENT, columns, lengthof(columns), &rows);
	char	  **names = palloc_extended(sizeof(char *) * (count + 1), MCXT_ALLOC_HUGE);
	QueueList	list = {NULL, 0, 64, 0};
	uint64		i;

	for (i = 0; i < count; i++)
		names[i] = ownread_text(&rows[i], 0);
	qsort(names, count, sizeof(char *), compare_names);
	list.queues = palloc(sizeof(ListedQueue) * list.max);
	for (i = 0; i < count; i++)
		add_queue(&list, names[i]);
	if (list.nameless > MAX_NAME_WARNINGS)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("pgmq.meta has " INT64_FORMAT " more rows that name no queue",
						list.nameless - MAX_NAME_WARNINGS)));
	*queues = list.queues;
	return list.count;
}

/* ---- one after the other ---- */

/* The caller's own lock_timeout stays if it is shorter */
static void
limit_lock_waits(int ms)
{
	if (LockTimeout == 0 || LockTimeout > ms)
		set_lock_timeout(ms);
}

/* Visit a queue in a subtransaction; returns its error, or NULL */
static ErrorData *
visit_one(const ListedQueue *queue, int lock_ms, QueueVisit visit, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			nest = NewGUCNestLevel();

		limit_lock_waits(lock_ms);
		visit(queue, arg);
		AtEOXact_GUC(false, nest);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* Whether the server has cancelled the statement; code that users wrote can raise the same SQLSTATE */
bool
is_cancellation(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL && strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/* Whether the visit has the caller's privileges: "as_owner" says that it runs as the owner of the queue */
static bool
visits_as_caller(const ListedQueue *queue, bool as_owner)
{
	return !as_owner || owner_of(queue_relid(&queue->name, queue->table)) == GetUserId();
}

void
queues_visit(const ListedQueue *queues, int count, int lock_budget_ms, bool as_owner,
			 QueueVisit visit, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "pgmq queue", ALLOCSET_DEFAULT_SIZES);
	int64		budget = lock_budget_ms;
	int			i;

	for (i = 0; i < count; i++)
	{
		int64		began = ticks();
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		/* Any maker of queues can write rows about queues that don't exist: they cost next to nothing */
		if (!OidIsValid(queue_relid(&queues[i].name, queues[i].table)))
			continue;
		MemoryContextSwitchTo(context);
		error = visit_one(&queues[i], (int) Max(budget, 1), visit, arg);
		if (error != NULL)
		{
			if (is_cancellation(error) ||
				(error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE && visits_as_caller(&queues[i], as_owner)))
				ReThrowError(error);
			if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
				budget -= (ticks() - began) / 1000;
			warn_of(queues[i].table, queues[i].spelling, error->sqlerrcode, error->message, error->detail);
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}
