/*
 * effects.c
 *	  What a transaction does to queues, for the sessions that wait for them.
 *
 * Each call records its effect on the queue in a table of this session.  When the transaction ends, the
 * effects say which queues to announce (board.c).  A commit announces what was sent, a
 * rollback what was taken and is available again.
 *
 * 1. A statement that takes messages is recorded before it runs.  If it fails half-way,
 *	  it has held rows for a moment, and other sessions may have skipped them.  A caller
 *	  that may not take messages cannot have held any.  It records no effect, so its calls
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

typedef struct Effect
{
	WakeKey		key;
	int64		messages;		/* available with the commit */
	int64		groups;			/* the same, beside those of these messages */
	bool		unknown;		/* or it is not known how many */
	TimestampTz due;			/* after the commit, the first becomes due */
	int64		taken;			/* available with a rollback */
	SubTransactionId first_taken_in;
	SubTransactionId last_taken_in;
} Effect;

/* After a transaction with many queues, give the memory back */
#define KEEP_EFFECTS 1024

static Effect *Effects = NULL;
static int	NumEffects = 0;
static int	MaxEffects = 0;		/* a power of two */

/* Open addressing, twice as many as effects: indexes of effects + 1, or 0 */
static int *EffectTable = NULL;

/* This transaction ends others, and it is not known which queues they touched */
static bool EndsOthers = false;

static int *
table_entry(const WakeKey *key)
{
	int			mask = MaxEffects * 2 - 1;
	int			i = (int) (key->hash[1] & mask);

	while (EffectTable[i] != 0 && !board_same_key(&Effects[EffectTable[i] - 1].key, key))
		i = (i + 1) & mask;
	return &EffectTable[i];
}

static void
forget_effects(void)
{
	if (MaxEffects > KEEP_EFFECTS)
	{
		pfree(Effects);
		pfree(EffectTable);
		Effects = NULL;
		EffectTable = NULL;
		MaxEffects = 0;
	}
	else if (NumEffects > 0)
		memset(EffectTable, 0, sizeof(int) * MaxEffects * 2);
	NumEffects = 0;
}

static void
grow(void)
{
	int			max = Max(MaxEffects * 2, 16);
	Effect	   *effects = MemoryContextAllocHuge(TopMemoryContext, sizeof(Effect) * max);
	int		   *table = MemoryContextAllocExtended(TopMemoryContext, sizeof(int) * max * 2,
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM);
	int			i;

	if (table == NULL)
	{
		pfree(effects);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	if (Effects != NULL)
	{
		memcpy(effects, Effects, sizeof(Effect) * NumEffects);
		pfree(Effects);
		pfree(EffectTable);
	}
	Effects = effects;
	EffectTable = table;
	MaxEffects = max;
	for (i = 0; i < NumEffects; i++)
		*table_entry(&Effects[i].key) = i + 1;
}

/* NULL if there is no board, or if there is no entry and "create" does not ask for one */
static Effect *
effect_of(const QueueName *name, bool create)
{
	WakeKey		key;
	Effect	   *effect;
	int		   *entry;

	if (!board_attach())
		return NULL;
	key = board_key(name, false);
	/* Most transactions use the queue that they used last */
	if (NumEffects > 0 && board_same_key(&Effects[NumEffects - 1].key, &key))
		return &Effects[NumEffects - 1];
	if (NumEffects == MaxEffects)
		grow();
	entry = table_entry(&key);
	if (*entry != 0)
		return &Effects[*entry - 1];
	if (!create)
		return NULL;
	*entry = NumEffects + 1;
	effect = &Effects[NumEffects++];
	memset(effect, 0, sizeof(*effect));
	effect->key = key;
	effect->due = DT_NOEND;
	return effect;
}

/* With the commit of this transaction, so many messages become available. */
void
effect_messages(const QueueName *name, int64 messages)
{
	Effect	   *effect = messages > 0 ? effect_of(name, true) : NULL;

	if (effect != NULL)
		effect->messages += messages;
}

/* With the commit of this transaction, so many groups become available, though no messages do. */
void
effect_groups(const QueueName *name, int64 groups)
{
	Effect	   *effect = groups > 0 ? effect_of(name, true) : NULL;

	if (effect != NULL)
		effect->groups += groups;
}

/* With the commit of this transaction, messages may become available: it is not known how many. */
void
effect_unknown(const QueueName *name)
{
	Effect	   *effect = effect_of(name, true);

	if (effect != NULL)
		effect->unknown = true;
}

/* After the commit of this transaction, messages become due at a time. */
void
effect_due(const QueueName *name, TimestampTz due)
{
	Effect	   *effect = effect_of(name, true);

	if (effect != NULL)
		effect->due = Min(effect->due, due);
}

/* Before a statement that takes up to so many messages (1).  effect_taken() must follow. */
void
effect_taking(const QueueName *name, int64 messages)
{
	Oid			relid = messages > 0 && !XactReadOnly ? queue_relid(name, QUEUE_TABLE) : InvalidOid;
	Effect	   *effect;

	if (!OidIsValid(relid) || !horizon_may_take(relid) || (effect = effect_of(name, true)) == NULL)
		return;
	if (effect->taken == 0)
		effect->first_taken_in = GetCurrentSubTransactionId();
	effect->last_taken_in = GetCurrentSubTransactionId();
	effect->taken += messages;
}

/* Of those, so many were taken: with a rollback they become available again. */
void
effect_taken(const QueueName *name, int64 taking, int64 messages)
{
	Effect	   *effect = effect_of(name, false);

	if (effect == NULL)
		return;
	effect->taken = Max(effect->taken - (taking - messages), 0);
	/* A poll that found nothing leaves no effect */
	if (effect->taken == 0 && effect->messages == 0 && effect->groups == 0 && !effect->unknown &&
		effect->due == DT_NOEND && effect == &Effects[NumEffects - 1])
	{
		*table_entry(&effect->key) = 0;
		NumEffects--;
	}
}

void
effect_all(void)
{
	(void) board_attach();
	EndsOthers = true;
}

/* ---- when a transaction or a part of it ends: nothing here can fail ---- */

void
wake_forget(void)
{
	forget_effects();
	EndsOthers = false;
}

void
wake_committed(void)
{
	int			i;

	for (i = 0; i < NumEffects; i++)
	{
		const Effect *effect = &Effects[i];

		if (effect->unknown)
			board_announce_queue(&effect->key, WAKE_UNKNOWN, WAKE_UNKNOWN, effect->due);
		else
			board_announce_queue(&effect->key, effect->messages, effect->messages + effect->groups, effect->due);
	}
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

	for (i = 0; i < NumEffects; i++)
	{
		Effect	   *effect = &Effects[i];

		if (effect->taken == 0 || effect->last_taken_in < since)
			continue;
		if (effect->first_taken_in >= since)
		{
			board_announce_queue(&effect->key, effect->taken, effect->taken, DT_NOEND);
			effect->taken = 0;
		}
		else
		{
			board_announce_queue(&effect->key, WAKE_UNKNOWN, WAKE_UNKNOWN, DT_NOEND);
			effect->last_taken_in = since - 1;
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
