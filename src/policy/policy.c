/*
 * policy.c
 *	  The policy of a queue, as this backend knows it.
 *
 * Each call asks for the policy of its queue, so a backend keeps what it has read.
 *
 * 1. The policy that counts is the one that was committed last, at every isolation
 *	  level, together with what this transaction has changed itself.
 * 2. A trigger on pgmq.policy puts an invalidation of the table into the transaction
 *	  that writes.  Each look here accepts invalidations first, so a call knows the
 *	  policies that were committed before it began.  (A commit is visible an instant
 *	  before its invalidation is sent: see bindings.c.)
 * 3. An answer is kept with the counts of the table's name and of the table (changes.c).
 *	  It is not kept if something was heard while it was read.
 * 4. A transaction that may have written the table keeps nothing: its own changes may
 *	  be rolled back.  It reads the row each time.
 * 5. In a database whose SQL objects are of version 2.0.0 there is no such table, and so
 *	  no policy.
 *
 * A session that has loaded the library of version 2.0.0 knows no policies until it
 * connects again.
 *
 * Memory: what is kept is in "pgmq policies", a child of TopMemoryContext.  When there
 * are more than pgmq.plan_cache_size, all are dropped.
 */
#include "pgmq.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "policy/values.h"

typedef struct KeptPolicy
{
	QueueName	name;			/* hash key, must be first */
	uint64		changes;		/* of the table when it was read; 0: not known */
	uint32		hash;			/* of the table's name */
	Oid			relid;			/* of the table, or InvalidOid */
	QueuePolicy policy;
} KeptPolicy;

static MemoryContext PolicyContext = NULL;
static HTAB *Policies = NULL;
static KeptPolicy *Latest = NULL;

static const QueuePolicy no_policy = {0};

/* ---- reading a row ---- */

/* The settings, in the order of their bits, then the end of a pause, and the name */
enum
{
	COLUMN_MAX_READS,
	COLUMN_DEAD_LETTER_QUEUE,
	COLUMN_RETRY_DELAY,
	COLUMN_RETRY_BACKOFF,
	COLUMN_RETRY_DELAY_MAX,
	COLUMN_MESSAGE_TTL,
	COLUMN_MAX_LENGTH,
	COLUMN_OVERFLOW,
	COLUMN_PRIORITY,
	COLUMN_PRIORITY_MAX_WAIT,
	COLUMN_MAX_IN_FLIGHT,
	COLUMN_RATE_LIMIT,
	COLUMN_RATE_PERIOD,
	COLUMN_DEDUP_WINDOW,
	COLUMN_ARCHIVE_RETENTION,
	COLUMN_PAUSED_UNTIL,
	COLUMN_QUEUE_NAME,
	POLICY_COLUMNS
};

StaticAssertDecl(COLUMN_PAUSED_UNTIL == POLICY_SETTINGS, "each setting has a column");

/* The row has no value that a setting could not have been given */
static uint32
which_are_set(const OwnRow *row)
{
	uint32		set = row->nulls[COLUMN_PAUSED_UNTIL] ? 0 : POLICY_PAUSED;
	int			i;

	for (i = 0; i < POLICY_SETTINGS; i++)
	{
		if (!row->nulls[i] && policy_value_is_valid(&policy_settings[i], row->values[i]))
			set |= 1 << i;
	}
	if (!row->nulls[COLUMN_PRIORITY] && !DatumGetBool(row->values[COLUMN_PRIORITY]))
		set &= ~POLICY_PRIORITY;
	return set;
}

/* What is not set counts as NULL from here on */
static void
hide_what_is_not_set(OwnRow *row, uint32 set)
{
	int			i;

	for (i = 0; i < POLICY_SETTINGS; i++)
	{
		if ((set & (1 << i)) == 0)
		{
			row->nulls[i] = true;
			row->values[i] = (Datum) 0;
		}
	}
}

/* An hour and a second are in microseconds */
static Interval
interval_of(const OwnRow *row, int column, int64 otherwise)
{
	Interval	none = {.time = otherwise};

	return row->nulls[column] ? none : *DatumGetIntervalP(row->values[column]);
}

static void
take_row(OwnRow *row, QueuePolicy *policy)
{
	char	   *overflow;
	char	   *spelling = ownread_text(row, COLUMN_QUEUE_NAME);

	policy->set = which_are_set(row);
	hide_what_is_not_set(row, policy->set);
	overflow = ownread_text(row, COLUMN_OVERFLOW);
	policy->max_reads = DatumGetInt32(row->values[COLUMN_MAX_READS]);
	policy->max_in_flight = DatumGetInt32(row->values[COLUMN_MAX_IN_FLIGHT]);
	policy->rate_limit = DatumGetInt32(row->values[COLUMN_RATE_LIMIT]);
	policy->max_length = row->nulls[COLUMN_MAX_LENGTH] ? 0 : DatumGetInt64(row->values[COLUMN_MAX_LENGTH]);
	policy->retry_backoff = row->nulls[COLUMN_RETRY_BACKOFF] ? 1 : DatumGetFloat8(row->values[COLUMN_RETRY_BACKOFF]);
	policy->retry_delay = interval_of(row, COLUMN_RETRY_DELAY, 0);
	policy->retry_delay_max = interval_of(row, COLUMN_RETRY_DELAY_MAX, USECS_PER_HOUR);
	if ((policy->set & POLICY_MESSAGE_TTL) != 0)
		policy->message_ttl = policy_microseconds(DatumGetIntervalP(row->values[COLUMN_MESSAGE_TTL]));
	if ((policy->set & POLICY_PRIORITY_MAX_WAIT) != 0)
		policy->priority_max_wait =
			policy_microseconds(DatumGetIntervalP(row->values[COLUMN_PRIORITY_MAX_WAIT]));
	policy->rate_period = interval_of(row, COLUMN_RATE_PERIOD, USECS_PER_SEC);
	policy->dedup_window = interval_of(row, COLUMN_DEDUP_WINDOW, 0);
	policy->archive_retention = interval_of(row, COLUMN_ARCHIVE_RETENTION, 0);
	policy->drop_oldest = overflow != NULL && strcmp(overflow, "drop_oldest") == 0;
	if ((policy->set & POLICY_PAUSED) != 0)
		policy->paused_until = DatumGetTimestampTz(row->values[COLUMN_PAUSED_UNTIL]);
	if ((policy->set & POLICY_DEAD_LETTER_QUEUE) != 0)
		name_canonical(DatumGetTextPP(row->values[COLUMN_DEAD_LETTER_QUEUE]), &policy->dead_letter_queue);
	if (spelling != NULL)
		strlcpy(policy->spelling, spelling, sizeof(policy->spelling));
}

/*
 * The row as it is now: what was committed, and what this transaction has written.  No
 * privilege is needed.  The lock is released at once; it conflicts only with commands
 * that rebuild the table.
 */
static void
read_policy(const QueueName *name, QueuePolicy *policy)
{
	const char *columns[POLICY_COLUMNS];
	Oid			types[POLICY_COLUMNS];
	Oid			relid = relcheck_own_table(OWN_POLICY, AccessShareLock);
	OwnRow		row;
	int			i;

	for (i = 0; i < POLICY_SETTINGS; i++)
	{
		columns[i] = policy_settings[i].name;
		types[i] = policy_settings[i].type;
	}
	columns[COLUMN_PAUSED_UNTIL] = "paused_until";
	types[COLUMN_PAUSED_UNTIL] = TIMESTAMPTZOID;
	columns[COLUMN_QUEUE_NAME] = "queue_name";
	types[COLUMN_QUEUE_NAME] = VARCHAROID;
	if (ownread_find(relid, VIEW_OF_LATEST, "identity", TEXTOID, name->canonical,
					 columns, types, POLICY_COLUMNS, &row))
		take_row(&row, policy);
	UnlockRelationOid(relid, AccessShareLock);
}

/* ---- what is kept ---- */

/* Memory may run out anywhere here: the next call goes on from what there is. */
static void
create_policies(void)
{
	HASHCTL		ctl;

	if (PolicyContext == NULL)
		PolicyContext = AllocSetContextCreate(TopMemoryContext, "pgmq policies",
											  ALLOCSET_DEFAULT_SIZES);
	Latest = NULL;
	Policies = NULL;
	MemoryContextReset(PolicyContext);	/* deletes the old table, or half of one */
	ctl.keysize = sizeof(QueueName);
	ctl.entrysize = sizeof(KeptPolicy);
	ctl.hcxt = PolicyContext;
	Policies = hash_create("pgmq policies", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Good until the next call of this function */
static KeptPolicy *
find_kept(const QueueName *name)
{
	KeptPolicy *kept;
	bool		found;

	if (Latest != NULL && memcmp(&Latest->name, name, sizeof(*name)) == 0)
		return Latest;
	kept = Policies != NULL ? hash_search(Policies, name, HASH_FIND, NULL) : NULL;
	if (kept == NULL)
	{
		if (Policies == NULL || hash_get_num_entries(Policies) >= plan_max_queues)
			create_policies();
		kept = hash_search(Policies, name, HASH_ENTER, &found);
		kept->changes = 0;
	}
	Latest = kept;
	return kept;
}

static uint64
changes_of(const KeptPolicy *kept)
{
	return changes_of_name(kept->hash) + changes_of_relation(kept->relid);
}

/* Whether this transaction may have changed the table */
static bool
is_written_by_us(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, RowExclusiveLock, true);
}

/* Read the policy; keep it if it may be kept */
static const QueuePolicy *
read_again(const QueueName *name)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, true);
	uint64		heard = changes_heard();
	KeptPolicy	read = {.name = *name};
	QueuePolicy *copy;

	read.hash = OidIsValid(schema) ?
		GetSysCacheHashValue2(RELNAMENSP, CStringGetDatum("policy"), ObjectIdGetDatum(schema)) : 0;
	read.relid = relcheck_own_relid(OWN_POLICY);
	if (OidIsValid(read.relid))
		read_policy(name, &read.policy);
	if (read.hash != 0 && heard == changes_heard() &&
		!(OidIsValid(read.relid) && is_written_by_us(read.relid)))
	{
		KeptPolicy *kept = find_kept(name);

		read.changes = changes_of(&read);
		*kept = read;
	}
	if (read.policy.set == 0)
		return &no_policy;
	copy = palloc(sizeof(QueuePolicy));
	*copy = read.policy;
	return copy;
}

/*
 * The same, not from what is kept.  A session that is woken by a commit which has
 * changed the policy can look before it gets the invalidation.
 */
const QueuePolicy *
policy_reread(const QueueName *name)
{
	find_kept(name)->changes = 0;
	return read_again(name);
}

/*
 * The policy of a queue.  It is in the current memory context, or a constant if the
 * queue has none.  A call asks once, and a call that waits asks before each attempt.
 */
const QueuePolicy *
policy_of(const QueueName *name)
{
	KeptPolicy *kept;
	QueuePolicy *copy;

	AcceptInvalidationMessages();
	kept = find_kept(name);
	if (kept->changes == 0 || kept->changes != changes_of(kept))
		return read_again(name);
	if (kept->policy.set == 0)
		return &no_policy;
	copy = palloc(sizeof(QueuePolicy));
	*copy = kept->policy;
	return copy;
}

/* For a caller that asks again and again in one memory context */
void
policy_release(const QueuePolicy *policy)
{
	if (policy != &no_policy)
		pfree(unconstify(QueuePolicy *, policy));
}

/* When a message of the queue is dead, for a call that looks at it now */
SurveyRule
policy_rule(const QueuePolicy *policy, TimestampTz now)
{
	SurveyRule	rule = {policy->max_reads, policy->message_ttl, now};

	return rule;
}
