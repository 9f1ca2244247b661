/*
 * bindings.c
 *	  The topic bindings of the database, as this backend knows them.
 *
 * A send must not read ten thousand rows to find its one queue.  So a backend keeps
 * the bindings that it has read, as a tree of patterns.  This file makes sure that the
 * kept bindings are those that a query would see now.
 *
 * 1. Other sessions.  A trigger on pgmq.topic_bindings, for each row that is written
 *	  and for TRUNCATE, puts an invalidation of the table into the transaction.  The
 *	  server sends it to all backends when the transaction commits, also by COMMIT
 *	  PREPARED, before the committing client gets its answer; a rollback sends nothing.
 *	  DROP EXTENSION, TRUNCATE and ALTER TABLE send one without our trigger.  A
 *	  callback here marks the kept bindings as stale.  Every call accepts invalidations
 *	  before it uses them (AcceptInvalidationMessages()).  It does so inside a long
 *	  transaction too, which takes no new lock that would accept them.  So a statement
 *	  sees what was committed before it began.  (The server makes a commit visible an
 *	  instant before it sends the invalidation.  A session that sees the new rows
 *	  within this instant, before the committing client has its answer, may still send
 *	  by the old bindings.)
 *
 * 2. Reading while others commit.  The mark "stale" is removed before the reading
 *	  query takes its snapshot.  A transaction that commits after this snapshot sends
 *	  its invalidation later, and the mark is set again for the next call.
 *
 * 3. Own changes.  The trigger marks the kept bindings as stale at once; the server
 *	  does so again when the statement ends, and when it is rolled back.  Bindings that
 *	  are read while this transaction holds a lock for writing on the table may contain
 *	  changes that are never committed.  They count only while the same subtransaction
 *	  of the same transaction runs.  Ids of subtransactions are not used again, so a
 *	  rollback (also to a savepoint) or PREPARE TRANSACTION needs no callback.  (A
 *	  trigger of a user may read in the middle of a statement that then fails, before
 *	  our trigger has fired: then there is nothing that the server could undo.  A read
 *	  there may also still find the bindings from before the statement.)
 *
 * 4. Fixed snapshots.  Under REPEATABLE READ a transaction sees the bindings of its
 *	  snapshot, and what it reads counts for itself only.  It may use bindings that an
 *	  earlier transaction read: if they are not stale, nothing was committed since
 *	  then.  Under SERIALIZABLE each transaction reads the table once, because the
 *	  server has to know about the read.
 *
 * 5. Rights.  The whole table is kept.  It is used for a role that may select from the
 *	  table and has no row-level security there.  A role with fewer rights reads the
 *	  table in each call, and gets the result of a query, or its error.
 *
 * The trigger fires under session_replication_role = replica as well, and for each
 * row, so that it notices changes by logical replication.
 *
 * 6. Streams.  Their bindings are in a table of their own, which has the same triggers.  A role that may
 *	  read the bindings of queues is routed by those of streams, too.
 *
 * Memory: one context, "pgmq topics", below TopMemoryContext.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rls.h"

#include "base/base.h"
#include "topic/topic.h"

PG_FUNCTION_INFO_V1(pgmq__topic_bindings_changed);

typedef struct Bindings
{
	MemoryContext context;		/* holds all of this */
	PatternTree *tree;			/* values are indexes of targets */
	TopicTarget *targets;
	LocalTransactionId transaction; /* if set, they count in this one only, */
	SubTransactionId subtransaction;	/* and, if set, in this part of it */
} Bindings;

/* The kept bindings, or NULL; the tables they were read from (of streams: or none); whether these have changed since */
static Bindings *Kept = NULL;
static Oid	KeptTable = InvalidOid;
static Oid	KeptStreams = InvalidOid;
static bool Stale = false;

static const char *const Columns[] = {"pattern", "queue_name"};
static const char *const StreamColumns[] = {"pattern", "stream_name"};

/* Called at any time: does nothing that can fail. */
static void
table_changed(Datum arg, Oid relid)
{
	if (relid == KeptTable || relid == KeptStreams || !OidIsValid(relid))
		Stale = true;
}

/*
 * pgmq._topic_bindings_changed() -> trigger
 *
 * On pgmq.topic_bindings.
 */
Datum
pgmq__topic_bindings_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(((TriggerData *) fcinfo->context)->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("pgmq._topic_bindings_changed() can only be called as a trigger")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	Stale = true;
	return PointerGetDatum(NULL);
}

/* Whether the current role may see the whole table */
static bool
may_read_all(Oid table)
{
	bool		missing = false;

	return pg_class_aclcheck_ext(table, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK &&
		!missing && check_enable_rls(table, InvalidOid, true) != RLS_ENABLED;
}

/* Whether the kept bindings are those that a query would find now */
static bool
kept_is_good(void)
{
	AcceptInvalidationMessages();
	if (Kept == NULL || Stale)
		return false;
	/* No invalidation tells of a table that an update of the extension has created */
	if (!OidIsValid(KeptStreams) && OidIsValid(relcheck_own_relid(OWN_STREAM_BINDINGS)))
		return false;
	if (Kept->transaction == InvalidLocalTransactionId)
	{
		if (IsolationIsSerializable())
			return false;
	}
	else if (Kept->transaction != ProcLocalTransactionId(MyProc) ||
			 (Kept->subtransaction != InvalidSubTransactionId &&
			  Kept->subtransaction != GetCurrentSubTransactionId()))
		return false;
	return may_read_all(KeptTable);
}

/* Everything goes to the context of the bindings.  The third value of a row says whether it is of a stream. */
static void
take_rows(Bindings *bindings, OwnRow *rows, uint64 count)
{
	/* Of one target in a row, so that each one's name is stored once */
	static const OwnKey by_target[] = {{1, C_COLLATION_OID, false}};
	PatternEntry *entries;
	uint32		targets = 0;
	uint32		used = 0;
	uint64		i;

	ownread_sort(rows, count, by_target, lengthof(by_target));
	entries = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(PatternEntry) * (Size) Max(count, 1));
	bindings->targets = MemoryContextAllocHuge(bindings->context, sizeof(TopicTarget) * (Size) Max(count, 1));
	for (i = 0; i < count; i++)
	{
		char	   *pattern = ownread_text(&rows[i], 0);
		char	   *target = ownread_text(&rows[i], 1);
		bool		is_stream = DatumGetBool(rows[i].values[2]);

		/* Bindings of nothing, which the owner can have allowed */
		if (target == NULL || pattern == NULL)
			continue;
		if (targets == 0 || bindings->targets[targets - 1].is_stream != is_stream ||
			strcmp(bindings->targets[targets - 1].spelling, target) != 0)
		{
			bindings->targets[targets].spelling = MemoryContextStrdup(bindings->context, target);
			bindings->targets[targets++].is_stream = is_stream;
		}
		pfree(target);
		entries[used].pattern = pattern;
		entries[used].len = (int) strlen(pattern);
		entries[used++].value = targets - 1;
	}
	MemoryContextSwitchTo(bindings->context);
	bindings->tree = pattern_tree(entries, used);
}

/*
 * The bindings of queues that the caller may see, and those of streams, for which it needs no privilege: these columns of
 * both, and then whether it is of a stream.  How many.  In a database whose SQL objects are older than version 2.2.0, there is no
 * such table, and so no such binding.
 */
uint64
bindings_read(OwnView view, const char *const *of_queues, const char *const *of_streams, int ncolumns, OwnRow **rows)
{
	OwnRow	   *streams = NULL;
	uint64		nqueues = ownread(OWN_TOPIC_BINDINGS, view, of_queues, ncolumns, rows);
	uint64		nstreams = 0;
	uint64		i;

	if (OidIsValid(relcheck_own_relid(OWN_STREAM_BINDINGS)))
		nstreams = ownread_all(OWN_STREAM_BINDINGS, view, of_streams, ncolumns, &streams);
	if (nstreams > 0)
	{
		*rows = repalloc_huge(*rows, sizeof(OwnRow) * (nqueues + nstreams));
		memcpy(*rows + nqueues, streams, sizeof(OwnRow) * nstreams);
	}
	for (i = 0; i < nqueues + nstreams; i++)
	{
		(*rows)[i].values[ncolumns] = BoolGetDatum(i >= nqueues);
		(*rows)[i].nulls[ncolumns] = false;
	}
	return nqueues + nstreams;
}

/*
 * Read the bindings, with the rights of the current role.  They live in a
 * child of the current memory context.
 */
static Bindings *
read_bindings(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgmq topics",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "pgmq topics as read",
												  ALLOCSET_DEFAULT_SIZES);
	Bindings   *bindings = MemoryContextAllocZero(context, sizeof(Bindings));
	MemoryContext oldcontext = MemoryContextSwitchTo(scratch);
	OwnRow	   *rows;
	uint64		count;

	bindings->context = context;
	count = bindings_read(VIEW_OF_STATEMENT, Columns, StreamColumns, lengthof(Columns), &rows);
	take_rows(bindings, rows, count);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(scratch);
	return bindings;
}

static void
forget_kept(void)
{
	Bindings   *bindings = Kept;

	Kept = NULL;
	if (bindings != NULL)
		MemoryContextDelete(bindings->context);
}

/* Whether this transaction may have changed the table */
static bool
is_written_by_us(Oid table)
{
	LOCKTAG		tag;

	if (!OidIsValid(table))
		return false;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, table);
	return LockHeldByMe(&tag, RowExclusiveLock, true);
}

/*
 * Read the bindings.  Keep them if the current role may see the whole table;
 * see the top of this file.
 */
static Bindings *
refresh(void)
{
	static bool registered = false;
	Oid			table;
	Bindings   *bindings;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
		registered = true;
	}
	rights_require_select(relcheck_own_relid(OWN_TOPIC_BINDINGS), Columns, lengthof(Columns));
	table = relcheck_own_table(OWN_TOPIC_BINDINGS, AccessShareLock);
	if (!may_read_all(table))
		return read_bindings();
	forget_kept();
	KeptTable = table;
	KeptStreams = relcheck_own_relid(OWN_STREAM_BINDINGS);
	Stale = false;
	bindings = read_bindings();
	if (is_written_by_us(table) || is_written_by_us(KeptStreams))
		bindings->subtransaction = GetCurrentSubTransactionId();
	if (bindings->subtransaction != InvalidSubTransactionId || IsolationUsesXactSnapshot())
		bindings->transaction = ProcLocalTransactionId(MyProc);
	MemoryContextSetParent(bindings->context, TopMemoryContext);
	Kept = bindings;
	return bindings;
}

/*
 * For a caller that finds the kept bindings out of date before the invalidation
 * arrives: the next call reads the table.
 */
void
bindings_reread(void)
{
	Stale = true;
}

/*
 * The queues and streams whose bindings match a routing key, with their names as pgmq.meta and pgmq.stream
 * spell them.  Returns their number.  They are copied to the current memory context: the kept bindings may
 * be replaced as soon as the caller runs a statement.
 */
uint32
bindings_targets(const char *key, TopicTarget **targets)
{
	Bindings   *bindings = kept_is_good() ? Kept : refresh();
	uint32	   *numbers;
	uint32		count = pattern_match(bindings->tree, key, &numbers);
	uint32		i;

	*targets = palloc(sizeof(TopicTarget) * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		(*targets)[i] = bindings->targets[numbers[i]];
		(*targets)[i].spelling = pstrdup((*targets)[i].spelling);
	}
	pfree(numbers);
	if (bindings != Kept)
		MemoryContextDelete(bindings->context);
	return count;
}
