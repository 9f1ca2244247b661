/*
 * marks.c
 *	  What a transaction does to queues, for the sessions that wait for them.
 *
 * Each call marks the queue in a table of this session.  When the transaction ends, the
 * marks say which queues to announce (board.c).  A commit announces what was sent, a
 * rollback what was taken and is available again.
 *
 * 1. A statement that takes messages is marked before it runs.  If it fails half-way,
 *	  it has held rows for a moment, and other sessions may have skipped them.  A caller
 *	  that may not take messages cannot have held any.  It leaves no mark, so its calls
 *	  wake no session.
 * 2. A row that a transaction held is free for others when the server lists the
 *	  transaction as ended, which is before the callbacks (xact.c).  SKIP LOCKED asks
 *	  for that, and not for the locks that are released later.
 * 3. The table grows inside the transaction, where that may fail.  What runs when it
 *	  ends allocates nothing.  The memory is this session's and not the transaction's,
 *	  so nothing points to memory that is gone.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "position/position.h"
#include "wait/wait.h"
#include "wait/board.h"

typedef struct Mark
{
	WakeKey		key;
	int64		messages;		/* available with the commit */
	int64		groups;			/* the same, beside those of these messages */
	TimestampTz due;			/* after the commit, the first becomes due */
	int64		taken;			/* available with a rollback */
	SubTransactionId first_taken_in;
	SubTransactionId last_taken_in;
} Mark;

/* After a transaction with many queues, give the memory back */
#define KEEP_MARKS 1024

static Mark *Marks = NULL;
static int	NumMarks = 0;
static int	MaxMarks = 0;		/* a power of two */

/* Open addressing, twice as many as marks: indexes of marks + 1, or 0 */
static int *MarkTable = NULL;

/* This transaction ends others, and it is not known which queues they touched */
static bool EndsOthers = false;

static int *
table_entry(const WakeKey *key)
{
	int			mask = MaxMarks * 2 - 1;
	int			i = (int) (key->hash[1] & mask);

	while (MarkTable[i] != 0 && !board_same_key(&Marks[MarkTable[i] - 1].key, key))
		i = (i + 1) & mask;
	return &MarkTable[i];
}

static void
forget_marks(void)
{
	if (MaxMarks > KEEP_MARKS)
	{
		pfree(Marks);
		pfree(MarkTable);
		Marks = NULL;
		MarkTable = NULL;
		MaxMarks = 0;
	}
	else if (NumMarks > 0)
		memset(MarkTable, 0, sizeof(int) * MaxMarks * 2);
	NumMarks = 0;
}

static void
grow(void)
{
	int			max = Max(MaxMarks * 2, 16);
	Mark	   *marks = MemoryContextAllocHuge(TopMemoryContext, sizeof(Mark) * max);
	int		   *table = MemoryContextAllocExtended(TopMemoryContext, sizeof(int) * max * 2,
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM);
	int			i;

	if (table == NULL)
	{
		pfree(marks);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	if (Marks != NULL)
	{
		memcpy(marks, Marks, sizeof(Mark) * NumMarks);
		pfree(Marks);
		pfree(MarkTable);
	}
	Marks = marks;
	MarkTable = table;
	MaxMarks = max;
	for (i = 0; i < NumMarks; i++)
		*table_entry(&Marks[i].key) = i + 1;
}

/* NULL if there is no board, or if there is no mark and "create" doesn't ask for one */
static Mark *
mark_of(const QueueName *name, bool create)
{
	WakeKey		key;
	Mark	   *mark;
	int		   *entry;

	if (!board_attach())
		return NULL;
	key = board_key(name, false);
	/* Most transactions use the queue that they used last */
	if (NumMarks > 0 && board_same_key(&Marks[NumMarks - 1].key, &key))
		return &Marks[NumMarks - 1];
	if (NumMarks == MaxMarks)
		grow();
	entry = table_entry(&key);
	if (*entry != 0)
		return &Marks[*entry - 1];
	if (!create)
		return NULL;
	*entry = NumMarks + 1;
	mark = &Marks[NumMarks++];
	memset(mark, 0, sizeof(*mark));
	mark->key = key;
	mark->due = DT_NOEND;
	return mark;
}

/* With the commit of this transaction, so many messages become available. */
void
wake_mark(const QueueName *name, int64 messages)
{
	Mark	   *mark = messages > 0 ? mark_of(name, true) : NULL;

	if (mark != NULL)
		mark->messages += messages;
}

/* With the commit of this transaction, so many groups become available, though no messages do. */
void
wake_mark_groups(const QueueName *name, int64 groups)
{
	Mark	   *mark = groups > 0 ? mark_of(name, true) : NULL;

	if (mark != NULL)
		mark->groups += groups;
}

/* After the commit of this transaction, messages become due at a time. */
void
wake_mark_due(const QueueName *name, TimestampTz due)
{
	Mark	   *mark = mark_of(name, true);

	if (mark != NULL)
		mark->due = Min(mark->due, due);
}

/* Before a statement that takes up to so many messages (1).  wake_mark_taken() must follow. */
void
wake_mark_taking(const QueueName *name, int64 messages)
{
	Oid			relid = messages > 0 && !XactReadOnly ? name_relid(name, QUEUE_TABLE) : InvalidOid;
	Mark	   *mark;

	if (!OidIsValid(relid) || !horizon_may_take(relid) || (mark = mark_of(name, true)) == NULL)
		return;
	if (mark->taken == 0)
		mark->first_taken_in = GetCurrentSubTransactionId();
	mark->last_taken_in = GetCurrentSubTransactionId();
	mark->taken += messages;
}

/* Of those, so many were taken: with a rollback they become available again. */
void
wake_mark_taken(const QueueName *name, int64 taking, int64 messages)
{
	Mark	   *mark = mark_of(name, false);

	if (mark == NULL)
		return;
	mark->taken = Max(mark->taken - (taking - messages), 0);
	/* A poll that found nothing leaves no mark */
	if (mark->taken == 0 && mark->messages == 0 && mark->groups == 0 && mark->due == DT_NOEND &&
		mark == &Marks[NumMarks - 1])
	{
		*table_entry(&mark->key) = 0;
		NumMarks--;
	}
}

void
wake_mark_all(void)
{
	(void) board_attach();
	EndsOthers = true;
}

/* ---- when a transaction or a part of it ends: nothing here can fail ---- */

void
wake_forget(void)
{
	forget_marks();
	EndsOthers = false;
}

void
wake_committed(void)
{
	int			i;

	for (i = 0; i < NumMarks; i++)
		board_announce_queue(&Marks[i].key, Marks[i].messages, Marks[i].messages + Marks[i].groups,
							 Marks[i].due);
	if (EndsOthers)
		board_announce_to_all();
	wake_forget();
}

/*
 * Subtransactions are numbered in the order of their start, so those that end with
 * "since" have higher numbers.  If messages were taken before it as well, it is
 * unknown how many become available again.  One session is called for them, and
 * another when that one has taken or seen any.
 */
static void
rolled_back_since(SubTransactionId since)
{
	int			i;

	for (i = 0; i < NumMarks; i++)
	{
		Mark	   *mark = &Marks[i];

		if (mark->taken == 0 || mark->last_taken_in < since)
			continue;
		if (mark->first_taken_in >= since)
		{
			board_announce_queue(&mark->key, mark->taken, mark->taken, DT_NOEND);
			mark->taken = 0;
		}
		else
		{
			board_announce_queue(&mark->key, WAKE_UNKNOWN, WAKE_UNKNOWN, DT_NOEND);
			mark->last_taken_in = since - 1;
		}
	}
}

void
wake_rolled_back(void)
{
	rolled_back_since(InvalidSubTransactionId);
	wake_forget();
}

void
wake_subtransaction_rolled_back(SubTransactionId id)
{
	rolled_back_since(id);
}
