/*
 * state.c
 *	  How far a subscription has come in each shard, and whose the shard is now.
 *
 * 1. The mutex of a shard is a lock of the server on an object of its own, exclusive, until the transaction ends.  A
 *	  session that has it changes the state; others see the new state when its transaction has ended.  It writes
 *	  nothing, so a look for work needs no transaction id.  PREPARE keeps it.  ROLLBACK TO SAVEPOINT releases it together
 *	  with the rows that were written under it.
 * 2. The state is the row with the highest number.  The next one is inserted, and this one deleted by its key.  The
 *	  index is read backwards, so the newest row is met first, and dead rows are behind it: a snapshot that keeps them
 *	  costs nothing.
 * 3. A state is read by the latest snapshot, after the mutex was taken, at every isolation level.
 * 4. Rows are written with the rights of the owner of the table, as notes of groups are.  The caller was checked.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "wait/wait.h"
#include "stream/internal.h"

/* The columns, in the order in which the table is made */
enum
{
	STATE_SUBSCRIPTION,
	STATE_SHARD,
	STATE_NUMBER,
	STATE_PASSED_ID,
	STATE_LEASE,
	STATE_LEASED_UNTIL,
	STATE_LEASED_ID,
	STATE_ATTEMPTS,
	STATE_COLUMNS
};

#define STATE_INDEXES 1

static const struct
{
	const char *name;
	Oid			type;
}			state_columns[STATE_COLUMNS] = {
	{"subscription", TEXTOID}, {"shard", INT4OID}, {"state", INT8OID}, {"passed_id", INT8OID}, {"lease", INT8OID},
	{"leased_until", TIMESTAMPTZOID}, {"leased_id", INT8OID}, {"attempts", INT8ARRAYOID}
};

/* $3 the number of the state that this one replaces; the rest are the columns */
static const PlanSpec write_plan = {
	PLAN_STATE_WRITE,
	"WITH old AS (DELETE FROM {positions} WHERE subscription OPERATOR(pg_catalog.=) $1"
	" AND shard OPERATOR(pg_catalog.=) $2 AND state OPERATOR(pg_catalog.=) $3)"
	" INSERT INTO {positions} (subscription, shard, state, passed_id, lease, leased_until, leased_id, attempts)"
	" VALUES ($1, $2, $3 OPERATOR(pg_catalog.+) 1, $4, $5, $6, $7, $8)",
	STATE_COLUMNS, {TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8ARRAYOID}
};

/* ---- the table ---- */

static void
refuse_positions(const QueueName *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("table %s is not the table of positions that create_stream() makes",
					name_table(name, POSITIONS_TABLE))));
}

static Oid
find_index(Relation rel)
{
	const IndexKey keys[] = {
		{STATE_SUBSCRIPTION + 1, TEXTOID, C_COLLATION_OID}, {STATE_SHARD + 1, INT4OID, InvalidOid},
		{STATE_NUMBER + 1, INT8OID, InvalidOid}
	};
	List	   *indexes = RelationGetIndexList(rel);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (relcheck_index(index, RelationGetRelid(rel), keys, lengthof(keys)) && relcheck_index_is_whole(index))
			found = lfirst_oid(lc);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

static void
set_subscription(Positions *positions, const char *subscription)
{
	positions->subscription = subscription;
	positions->key = CStringGetTextDatum(subscription);
}

/* Whether the table is as it was made; then its index is found */
static bool
is_as_made(Positions *positions)
{
	TupleDesc	desc = RelationGetDescr(positions->rel);
	int			i;

	for (i = 0; i < STATE_COLUMNS; i++)
	{
		if (!relcheck_is_heap(positions->rel) ||
			relcheck_column(desc, state_columns[i].name, state_columns[i].type) != i + 1)
			return false;
	}
	positions->index = find_index(positions->rel);
	return OidIsValid(positions->index);
}

/* Open the table for a look.  It must be as it was made. */
void
positions_open(const QueueName *name, const char *subscription, Positions *positions)
{
	positions->name = *name;
	set_subscription(positions, subscription);
	positions->rel = queue_open_table(name, POSITIONS_TABLE, AccessShareLock, NULL);
	if (positions->rel == NULL || !is_as_made(positions))
		refuse_positions(name);
}

void
positions_close(Positions *positions)
{
	relation_close(positions->rel, AccessShareLock);
}

/* ---- the mutex ---- */

/* Each subscription of a stream has another one: subscribe() refuses a name that would not */
uint32
state_mutex_key(const char *subscription)
{
	return hash_bytes((const unsigned char *) subscription, (int) strlen(subscription));
}

static void
mutex_tag(const Positions *positions, int shard, LOCKTAG *tag)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, RelationGetRelid(positions->rel), state_mutex_key(positions->subscription),
					   shard + 1);
}

/* Take the mutex of a shard until the transaction ends; false if that would mean to wait and "wait" says not to. */
bool
state_lock(const Positions *positions, int shard, bool wait)
{
	LOCKTAG		tag;
	LockAcquireResult result;

	mutex_tag(positions, shard, &tag);
	result = LockAcquire(&tag, ExclusiveLock, false, !wait);
	if (result == LOCKACQUIRE_OK)
		held_taken(&positions->name, positions->subscription);
	return result != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Nothing was written under it.  "for_others" says that a session that found it taken meanwhile may get what this one
 * has not got.
 */
void
state_unlock(const Positions *positions, int shard, bool for_others)
{
	LOCKTAG		tag;

	mutex_tag(positions, shard, &tag);
	(void) LockRelease(&tag, ExclusiveLock, false);
	if (!LockHeldByMe(&tag, ExclusiveLock, false))
		held_released(&positions->name, positions->subscription, for_others);
}

/* Whether another transaction has the mutex.  This does not take it, not even for a moment. */
bool
state_is_locked(const Positions *positions, int shard)
{
	LOCKTAG		tag;
	int			count;

	mutex_tag(positions, shard, &tag);
	pfree(GetLockConflicts(&tag, ExclusiveLock, &count));
	return count > 0;
}

/* ---- reading ---- */

static void
read_attempts(Datum value, ShardState *state)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(value), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &values, &nulls, &count);
	for (i = 0; i + 1 < count && state->nattempts < MAX_ATTEMPTS; i += 2)
	{
		if (nulls[i] || nulls[i + 1])
			continue;
		state->attempts[state->nattempts].until = DatumGetInt64(values[i]);
		state->attempts[state->nattempts++].count = Max(Min(DatumGetInt64(values[i + 1]), PG_INT32_MAX), 0);
	}
}

/* The owner of the table can have written anything: what is read stays in the range that our own calls write. */
static void
read_row(HeapTuple tuple, TupleDesc desc, int shard, ShardState *state)
{
	Datum		values[STATE_COLUMNS];
	bool		nulls[STATE_COLUMNS];
	int			i;

	for (i = 0; i < STATE_COLUMNS; i++)
		values[i] = heap_getattr(tuple, i + 1, desc, &nulls[i]);
	memset(state, 0, sizeof(*state));
	state->shard = shard;
	state->number = nulls[STATE_NUMBER] ? 0 : DatumGetInt64(values[STATE_NUMBER]);
	state->passed_id = nulls[STATE_PASSED_ID] ? 0 : Max(DatumGetInt64(values[STATE_PASSED_ID]), 0);
	state->leased = !nulls[STATE_LEASE] && !nulls[STATE_LEASED_UNTIL] && !nulls[STATE_LEASED_ID];
	if (state->leased)
	{
		state->lease = DatumGetInt64(values[STATE_LEASE]);
		state->leased_until = DatumGetTimestampTz(values[STATE_LEASED_UNTIL]);
		state->leased_id = DatumGetInt64(values[STATE_LEASED_ID]);
	}
	if (!nulls[STATE_ATTEMPTS])
		read_attempts(values[STATE_ATTEMPTS], state);
}

/* The state of a shard that the snapshot sees; false if there is none, so that there is no subscription */
bool
state_read(const Positions *positions, int shard, Snapshot snapshot, ShardState *state)
{
	Relation	index = index_open(positions->index, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyEntryInitialize(&keys[0], 0, STATE_SUBSCRIPTION + 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, positions->key);
	ScanKeyInit(&keys[1], STATE_SHARD + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(shard));
	scan = systable_beginscan_ordered(positions->rel, index, snapshot, lengthof(keys), keys);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
		read_row(tuple, RelationGetDescr(positions->rel), shard, state);
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/*
 * The next subscription before one that has states, downwards by their names; NULL: there is none; palloc'd.  Backwards,
 * because then the newest state of the last shard is met first, and what was deleted is behind it (2).
 */
char *
state_next_subscription(const Positions *positions, Snapshot snapshot, const char *before)
{
	Relation	index = index_open(positions->index, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *next = NULL;

	if (before != NULL)
		ScanKeyEntryInitialize(&key, 0, STATE_SUBSCRIPTION + 1, BTLessStrategyNumber, InvalidOid, C_COLLATION_OID,
							   F_TEXT_LT, CStringGetTextDatum(before));
	scan = systable_beginscan_ordered(positions->rel, index, snapshot, before ? 1 : 0, &key);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		next = TextDatumGetCString(heap_getattr(tuple, STATE_SUBSCRIPTION + 1, RelationGetDescr(positions->rel), &isnull));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	return next;
}

/* The highest id that the state speaks of */
int64
state_highest(const ShardState *state)
{
	return state->leased ? Max(state->passed_id, state->leased_id) : state->passed_id;
}

static int64
highest_of_all(Positions *positions, int shards)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	char	   *subscription = NULL;
	int64		highest = 0;
	int			shard;

	while ((subscription = state_next_subscription(positions, snapshot, subscription)) != NULL)
	{
		set_subscription(positions, subscription);
		for (shard = 0; shard < shards; shard++)
		{
			ShardState	state;

			if (state_read(positions, shard, snapshot, &state))
				highest = Max(highest, state_highest(&state));
		}
	}
	UnregisterSnapshot(snapshot);
	return highest;
}

/* Lock the table and its indexes for a look, without waiting; false if that is not possible */
static bool
try_lock(Oid relid, List **locked)
{
	Relation	rel;
	ListCell   *lc;
	bool		all = true;

	*locked = NIL;
	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	*locked = list_make1_oid(relid);
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		return false;
	foreach(lc, RelationGetIndexList(rel))
	{
		all = all && ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock);
		if (all)
			*locked = lappend_oid(*locked, lfirst_oid(lc));
	}
	relation_close(rel, NoLock);
	return all;
}

/*
 * The highest id that a state of any subscription speaks of.  This is for publishers, which do not depend on the table and do
 * not wait for it: false if it is locked, or not as it was made.
 */
bool
positions_highest(const QueueName *name, int shards, int64 *highest)
{
	Positions	positions = {.name = *name};
	Oid			relid = queue_relid(name, POSITIONS_TABLE);
	bool		known = false;
	List	   *locked;
	ListCell   *lc;

	if (try_lock(relid, &locked))
	{
		positions.rel = relation_open(relid, NoLock);
		known = is_as_made(&positions);
		if (known)
			*highest = highest_of_all(&positions, shards);
		relation_close(positions.rel, NoLock);
	}
	foreach(lc, locked)
		UnlockRelationOid(lfirst_oid(lc), AccessShareLock);
	list_free(locked);
	return known;
}

/* The same by a new snapshot: for a caller that has the mutex (3) */
bool
state_read_latest(const Positions *positions, int shard, ShardState *state)
{
	Snapshot	snapshot;
	bool		found;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = state_read(positions, shard, snapshot, state);
	UnregisterSnapshot(snapshot);
	return found;
}

/* ---- writing ---- */

static Datum
attempts_datum(const ShardState *state)
{
	Datum		values[MAX_ATTEMPTS * 2];
	int			i;

	for (i = 0; i < state->nattempts; i++)
	{
		values[(Size) i * 2] = Int64GetDatum(state->attempts[i].until);
		values[(Size) i * 2 + 1] = Int64GetDatum(state->attempts[i].count);
	}
	return PointerGetDatum(construct_array(values, state->nattempts * 2, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

static void
refuse_unwritten(const Positions *positions)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not write the position of subscription \"%s\" to %s", positions->subscription,
					name_table(&positions->name, POSITIONS_TABLE)),
			 errhint("Look for a trigger or a rule on the table.")));
}

/* The next state of a shard.  "state" has the number of the one that it replaces.  The caller has the mutex. */
void
state_write(const Positions *positions, const ShardState *state)
{
	Datum		values[STATE_COLUMNS] = {0};
	bool		nulls[STATE_COLUMNS] = {false};
	OwnerScope	scope;
	uint64		written;

	values[STATE_SUBSCRIPTION] = positions->key;
	values[STATE_SHARD] = Int32GetDatum(state->shard);
	values[STATE_NUMBER] = Int64GetDatum(state->number);
	values[STATE_PASSED_ID] = Int64GetDatum(state->passed_id);
	nulls[STATE_LEASE] = nulls[STATE_LEASED_UNTIL] = nulls[STATE_LEASED_ID] = !state->leased;
	values[STATE_LEASE] = Int64GetDatum(state->lease);
	values[STATE_LEASED_UNTIL] = TimestampTzGetDatum(state->leased_until);
	values[STATE_LEASED_ID] = Int64GetDatum(state->leased_id);
	nulls[STATE_ATTEMPTS] = state->nattempts == 0;
	if (state->nattempts > 0)
		values[STATE_ATTEMPTS] = attempts_datum(state);
	if (owner_has_code(positions->rel, STATE_COLUMNS, STATE_INDEXES))
		owner_begin(positions->rel->rd_rel->relowner, &scope);
	else
		owner_begin_bare(positions->rel->rd_rel->relowner, &scope);
	written = plan_run_latest_leaf(&positions->name, &write_plan, NULL, values, nulls, None_Receiver);
	owner_end(&scope);
	if (written != 1)
		refuse_unwritten(positions);
}

static uint64
run_as_owner(const Positions *positions, const char *sql, int nargs, const char *const *args)
{
	return owner_run(positions->rel->rd_rel->relowner, true, name_expand(sql, &positions->name), nargs, args);
}

/* The first states of a subscription, one for each shard */
void
states_begin(const Positions *positions, const int64 *passed, int shards)
{
	StringInfoData array;
	int			shard;
	const char *args[2] = {positions->subscription};

	initStringInfo(&array);
	for (shard = 0; shard < shards; shard++)
		appendStringInfo(&array, "%c" INT64_FORMAT, shard == 0 ? '{' : ',', passed[shard]);
	appendStringInfoChar(&array, '}');
	args[1] = array.data;
	if (run_as_owner(positions, "INSERT INTO {positions} (subscription, shard, state, passed_id)"
					 " SELECT $1, s.number OPERATOR(pg_catalog.-) 1, 1, s.passed_id"
					 " FROM pg_catalog.unnest($2::pg_catalog.int8[]) WITH ORDINALITY AS s (passed_id, number)", 2,
					 args) != (uint64) shards)
		refuse_unwritten(positions);
}

void
states_delete(const Positions *positions)
{
	(void) run_as_owner(positions, "DELETE FROM {positions} WHERE subscription OPERATOR(pg_catalog.=) $1",
						1, &positions->subscription);
}

/* ---- what a state says ---- */

bool
state_is_free(const ShardState *state, TimestampTz now)
{
	return !state->leased || state->leased_until <= now;
}

void
state_end_lease(ShardState *state)
{
	state->leased = false;
	state->lease = 0;
	state->leased_until = 0;
	state->leased_id = 0;
}

/* How often an event will have been received, this time included */
int
state_attempt(const ShardState *state, int64 event_id)
{
	int			i;

	for (i = 0; i < state->nattempts; i++)
	{
		if (event_id <= state->attempts[i].until)
			return (int) Min(state->attempts[i].count + 1, PG_INT32_MAX);
	}
	return 1;
}

static void
add_pair(ShardState *state, int64 until, int64 count)
{
	if (state->nattempts < MAX_ATTEMPTS)
		state->attempts[state->nattempts++] = (Attempts) {until, count};
	else
		state->attempts[MAX_ATTEMPTS - 1].until = until;	/* counts too high */
}

/* The events up to this one were received once more */
void
state_count_attempt(ShardState *state, int64 until)
{
	ShardState	old = *state;
	int64		counted = PG_INT64_MIN;	/* up to here */
	int			i;

	state->nattempts = 0;
	for (i = 0; i < old.nattempts; i++)
	{
		const Attempts *pair = &old.attempts[i];

		if (pair->until <= until)
			add_pair(state, pair->until, pair->count + 1);
		else
		{
			if (counted < until)
				add_pair(state, until, pair->count + 1);
			add_pair(state, pair->until, pair->count);
		}
		counted = Min(pair->until, until);
	}
	if (counted < until)
		add_pair(state, until, 1);
}

/* The position moves: what was received up to there does not matter any more */
void
state_pass(ShardState *state, int64 passed_id)
{
	int			gone = 0;

	while (gone < state->nattempts && state->attempts[gone].until <= passed_id)
		gone++;
	state->nattempts -= gone;
	memmove(state->attempts, state->attempts + gone, sizeof(Attempts) * state->nattempts);
	state->passed_id = passed_id;
}
