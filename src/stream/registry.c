/*
 * registry.c
 *	  The rows about streams and subscriptions, as this backend knows them.
 *
 * Each call asks how many shards its stream has.  A backend keeps the answer, as policy.c keeps policies:
 *
 * 1. What counts is what was committed last, at every isolation level, together with what this transaction
 *	  has changed itself.
 * 2. A trigger on pgmq.stream puts an invalidation of the table into the transaction that writes.
 * 3. An answer is kept with the counts of the table's name and of the table (changes.c).  It is not kept
 *	  if something was heard while it was read, nor in a transaction that may have written the table.
 * 4. In a database whose SQL objects are older than version 2.2.0 there is no such table, and so no stream.
 *
 * Memory: what is kept is in "pgmq streams", a child of TopMemoryContext.  When there are more than
 * pgmq.plan_cache_size, all are dropped.
 */
#include "pgmq.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "stream/internal.h"

typedef struct KeptStream
{
	QueueName	name;			/* hash key, must be first */
	uint64		changes;		/* of the table when it was read; 0: not known */
	uint32		hash;			/* of the table's name */
	Oid			relid;			/* of the table, or InvalidOid */
	int			shards;			/* 0: there is no such stream */
} KeptStream;

static MemoryContext StreamContext = NULL;
static HTAB *Streams = NULL;

/* The rules are those for a queue's name, since both share one namespace */
void
stream_from_arg(FunctionCallInfo fcinfo, int argno, QueueName *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("stream_name must not be NULL")));
	if (!name_try_canonical(PG_GETARG_TEXT_PP(argno), name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("the name of a stream must not contain $, ;, -- or '")));
}

/* ---- what is kept ---- */

/* Memory may run out anywhere here: the next call goes on from what there is. */
static void
create_streams(void)
{
	if (StreamContext == NULL)
		StreamContext = AllocSetContextCreate(TopMemoryContext, "pgmq streams", ALLOCSET_SMALL_SIZES);
	Streams = NULL;
	MemoryContextReset(StreamContext);	/* deletes the old table, or half of one */
	Streams = hash_in_context("pgmq streams", 16, sizeof(QueueName), sizeof(KeptStream), StreamContext);
}

static void
keep(const KeptStream *read)
{
	KeptStream *kept;
	bool		found;

	if (Streams == NULL || hash_get_num_entries(Streams) >= plan_max_queues)
		create_streams();
	kept = hash_search(Streams, &read->name, HASH_ENTER, &found);
	*kept = *read;
}

static uint64
changes_of(const KeptStream *kept)
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

/* No privilege is needed.  The lock is released at once. */
static int
read_shards(const QueueName *name)
{
	static const char *const columns[] = {"shards"};
	static const Oid types[] = {INT4OID};
	Oid			relid = relcheck_own_table(OWN_STREAM, AccessShareLock);
	OwnRow		row;
	int			shards = 0;

	if (ownread_find(relid, VIEW_OF_LATEST, "identity", TEXTOID, name->canonical, columns, types, 1, &row) &&
		!row.nulls[0])
		shards = Max(Min(DatumGetInt32(row.values[0]), MAX_SHARDS), 1);
	UnlockRelationOid(relid, AccessShareLock);
	return shards;
}

static int
read_again(const QueueName *name)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, true);
	uint64		heard = changes_heard();
	KeptStream	read = {.name = *name};

	read.hash = OidIsValid(schema) ?
		GetSysCacheHashValue2(RELNAMENSP, CStringGetDatum("stream"), ObjectIdGetDatum(schema)) : 0;
	read.relid = relcheck_own_relid(OWN_STREAM);
	if (OidIsValid(read.relid))
		read.shards = read_shards(name);
	if (read.hash != 0 && heard == changes_heard() &&
		!(OidIsValid(read.relid) && is_written_by_us(read.relid)))
	{
		read.changes = changes_of(&read);
		keep(&read);
	}
	return read.shards;
}

static int
shards_of(const QueueName *name)
{
	KeptStream *kept;

	AcceptInvalidationMessages();
	kept = Streams != NULL ? hash_search(Streams, name, HASH_FIND, NULL) : NULL;
	if (kept == NULL || kept->changes == 0 || kept->changes != changes_of(kept))
		return read_again(name);
	return kept->shards;
}

/* ---- streams ---- */

bool
stream_is_registered(const QueueName *name)
{
	return shards_of(name) > 0;
}

/* How many shards the stream has; an error if there is no such stream */
int
stream_shards(const QueueName *name)
{
	int			shards;

	stream_require(name);
	shards = shards_of(name);
	if (shards == 0)
	{
		/* It may have been dropped meanwhile, and made again */
		stream_require(name);
		shards = shards_of(name);
	}
	if (shards == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" has no row in %s.stream", name->canonical, PGMQ_SCHEMA),
				 errhint("Restore the row, or drop the table %s.", name_table(name, STREAM_TABLE))));
	return shards;
}

/* The name under which the stream was made; palloc'd */
char *
stream_spelling(const QueueName *name)
{
	static const char *const columns[] = {"stream_name"};
	static const Oid types[] = {TEXTOID};
	Oid			relid = relcheck_own_table(OWN_STREAM, AccessShareLock);
	OwnRow		row;
	bool		found = ownread_find(relid, VIEW_OF_LATEST, "identity", TEXTOID, name->canonical, columns, types, 1, &row) &&
		!row.nulls[0];

	UnlockRelationOid(relid, AccessShareLock);
	return found ? ownread_text(&row, 0) : pstrdup(name->canonical);
}

/* For callers that make a queue.  The caller holds lock_queue(). */
void
stream_require_none(const QueueName *name)
{
	if (stream_is_registered(name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("a stream \"%s\" exists", name->canonical),
				 errhint("Queues and streams share their names. Choose another name for the queue.")));
}

/* All streams, for maintenance; no privilege is needed.  Rows that name no stream are left out; palloc'd. */
int
streams_list(ListedQueue **streams)
{
	static const char *const columns[] = {"stream_name"};
	Oid			relid = relcheck_own_relid(OWN_STREAM);
	OwnerScope	scope;
	OwnRow	   *rows;
	uint64		nrows;
	uint64		i;
	int			count = 0;

	*streams = NULL;
	if (!OidIsValid(relid))
		return 0;
	owner_begin(owner_of(relid), &scope);
	nrows = ownread(OWN_STREAM, VIEW_OF_STATEMENT, columns, lengthof(columns), &rows);
	owner_end(&scope);
	*streams = palloc_extended(sizeof(ListedQueue) * (nrows + 1), MCXT_ALLOC_HUGE);
	for (i = 0; i < nrows; i++)
	{
		ListedQueue *stream = &(*streams)[count];

		stream->spelling = ownread_text(&rows[i], 0);
		if (stream->spelling != NULL && name_try_canonical(DatumGetTextPP(rows[i].values[0]), &stream->name))
			count++;
	}
	return count;
}

/* How long events are kept, as of now; false if there is no such stream.  No privilege is needed. */
bool
stream_settings(const QueueName *name, StreamSettings *settings)
{
	static const char *const columns[] = {"retention", "keep_unconsumed"};
	static const Oid types[] = {INTERVALOID, INTERVALOID};
	Oid			relid = relcheck_own_table(OWN_STREAM, AccessShareLock);
	OwnRow		row;
	bool		found = ownread_find(relid, VIEW_OF_LATEST, "identity", TEXTOID, name->canonical, columns, types,
									 lengthof(columns), &row) && !row.nulls[0];

	UnlockRelationOid(relid, AccessShareLock);
	if (!found)
		return false;
	settings->retention = *DatumGetIntervalP(row.values[0]);
	settings->keeps = !row.nulls[1];
	if (settings->keeps)
		settings->keep_unconsumed = *DatumGetIntervalP(row.values[1]);
	return true;
}

/* An argument that says how long events are kept, as text; NULL for NULL */
char *
stream_interval_arg(FunctionCallInfo fcinfo, int argno, const char *what, bool required)
{
	Interval	zero = {0};

	if (PG_ARGISNULL(argno))
	{
		if (required)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be NULL", what)));
		return NULL;
	}
	if (DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(argno), IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", what)));
	return DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(argno)));
}

/*
 * Write rows about a stream, as the owner of the table, in the way of queue_write_row().
 * The caller has checked what the user may do, and has connected to SPI.
 */
uint64
stream_write_rows(OwnTable table, const char *sql, int nargs, const char *const *args)
{
	return owner_run(owner_of(relcheck_own_table(table, RowExclusiveLock)), true, sql, nargs, args);
}

/* ---- subscriptions ---- */

/* The name of a subscription, checked */
char *
subscription_from_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *subscription;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("subscription must not be NULL")));
	subscription = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (subscription[0] == '\0' || strlen(subscription) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a subscription must have 1 to %d bytes", NAMEDATALEN - 1)));
	return subscription;
}

/*
 * The role that a subscription belongs to, as of now; InvalidOid if there is no such role.  False if there is no such
 * subscription.  No privilege is needed.
 */
bool
subscription_find(const QueueName *name, const char *subscription, Oid *role)
{
	static const char *const columns[] = {"role"};
	static const Oid types[] = {NAMEOID};
	char	   *identity = psprintf("%s;%s", name->canonical, subscription);
	Oid			relid = relcheck_own_table(OWN_SUBSCRIPTION, AccessShareLock);
	OwnRow		row;
	bool		found = ownread_find(relid, VIEW_OF_LATEST, "identity", TEXTOID, identity, columns, types, 1, &row) &&
		!row.nulls[0];

	UnlockRelationOid(relid, AccessShareLock);
	pfree(identity);
	if (found)
		*role = get_role_oid(NameStr(*DatumGetName(row.values[0])), true);
	return found;
}

void
subscription_is_missing(const QueueName *name, const char *subscription)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("stream \"%s\" has no subscription \"%s\"", name->canonical, subscription),
			 errhint("Create the subscription first using pgmq.subscribe().")));
}

/* The subscription exists, and the current user may use it: it has the rights of its role, or of the stream's owner. */
void
subscription_require(const QueueName *name, const char *subscription)
{
	Oid			role;

	stream_require(name);
	if (!subscription_find(name, subscription, &role))
		subscription_is_missing(name, subscription);
	if (!(OidIsValid(role) && has_privs_of_role(GetUserId(), role)) &&
		!rights_owns(queue_relid(name, STREAM_TABLE)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("subscription \"%s\" of stream \"%s\" belongs to another role", subscription, name->canonical),
				 errhint("Members of that role and the owner of the stream may use it.")));
}
