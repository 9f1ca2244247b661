/*
 * slowgroup.c
 *	  Grouped reads of a queue without a group index, or with one that the role may
 *	  not use: by statements, which sort the whole queue, on disk if it is large.
 *
 * The promise is weaker than with the index.  Order covers the messages that are committed when the call begins, at
 * any isolation level.  A message is taken only if every earlier one of its group that the statement sees is taken,
 * too:
 *
 * 1. One statement finds, in each group, the messages from the first one on that are all visible.  A group is left
 *	  out if its first message was never handed out while others of it are held: that message came late.
 * 2. A group is also left out if another open transaction has locked, updated or deleted its first message.  The
 *	  same is true if the caller's snapshot does not show that message.  Then the first statement may have to find
 *	  others.
 * 3. Another one locks them, and skips what it cannot lock at once or what is not visible any more.  Everything
 *	  after the first skipped message of a group is released.  A caller that only asks whether there is something to
 *	  read locks nothing.
 *
 * So of two readers only one gets the first message, and the other gets none of its group.  Row-level security
 * applies to both statements, as to any other.
 *
 * If messages of the queue can be dead, the same is done twice.  First what counts as visible are the dead ones, so
 * those at the beginning of each group are found, which the caller moves.  Then it is the live ones: a dead message
 * that is left is in the way of those after it, as if it were delayed.  Which groups will have their turn is known only
 * after the first time.  So the caller moves dead messages of other groups, too, and these wait for its transaction.
 */
#include "pgmq.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/queue.h"
#include "group/internal.h"

/*
 * $1 now, $2 how many (NULL: all), $3 first messages of groups to leave out.  In place of %s: where the rows are, and
 * which messages are meant.
 */
#define FIND_MESSAGES \
	"SELECT msg_id, head, relid, tid FROM (SELECT msg_id," \
	" pg_catalog.first_value(msg_id) OVER in_order AS head, relid, tid," \
	" pg_catalog.row_number() OVER in_order AS place," \
	" pg_catalog.bool_and(visible) OVER in_order AS all_visible," \
	" pg_catalog.first_value(read_ct) OVER in_order AS first_read_ct," \
	" pg_catalog.bool_or(held) OVER (PARTITION BY grp) AS any_held" \
	" FROM (SELECT msg_id, read_ct, %s, (" GROUP_NAME ") COLLATE pg_catalog.\"C\" AS grp," \
	" COALESCE(vt OPERATOR(pg_catalog.<=) $1 OR vt OPERATOR(pg_catalog.=) enqueued_at, false)%s AS visible," \
	" COALESCE(read_ct OPERATOR(pg_catalog.>) 0 AND vt OPERATOR(pg_catalog.>) $1" \
	" AND vt OPERATOR(pg_catalog.<>) enqueued_at, false) AS held FROM {queue}) AS messages" \
	" WINDOW in_order AS (PARTITION BY grp ORDER BY msg_id)) AS messages" \
	" WHERE all_visible AND NOT (any_held AND first_read_ct OPERATOR(pg_catalog.=) 0)" \
	" AND head OPERATOR(pg_catalog.<>) ALL ($3) "

static const char *const find_messages[] = {
	[FILL] = FIND_MESSAGES "ORDER BY head, msg_id LIMIT $2",
	[ROUND_ROBIN] = FIND_MESSAGES "ORDER BY place, head LIMIT $2",
	[HEADS] = FIND_MESSAGES "AND place OPERATOR(pg_catalog.=) 1 ORDER BY head LIMIT $2"
};

/* Column privileges do not cover the place of a row; then (3) leaves out what is claimed */
#define PLACE "tableoid AS relid, ctid AS tid"
#define NO_PLACE "NULL::pg_catalog.oid AS relid, NULL::pg_catalog.tid AS tid"

/* $4 to $6 are those of survey_rule_args(), %s how often a message was released */
#define DEAD_REASON \
	" AND pgmq._dead_reason(read_ct, %s, enqueued_at, headers, $4, $5, $6) IS "

static const char *const kinds[] = {
	[SLOW_ALL] = "",
	[SLOW_LIVE] = DEAD_REASON "NULL",
	[SLOW_DEAD] = DEAD_REASON "NOT NULL"
};

/* $1 which, $2 now */
#define LOCK_MESSAGES \
	"SELECT msg_id FROM {queue} WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND (vt OPERATOR(pg_catalog.<=) $2 OR vt OPERATOR(pg_catalog.=) enqueued_at)" \
	" FOR UPDATE SKIP LOCKED"

static int
compare_ids(const void *a, const void *b)
{
	return pg_cmp_s64(*(const int64 *) a, *(const int64 *) b);
}

static int
compare_messages(const void *a, const void *b)
{
	const SlowMessage *message_a = a;
	const SlowMessage *message_b = b;

	if (message_a->head != message_b->head)
		return pg_cmp_s64(message_a->head, message_b->head);
	return pg_cmp_s64(message_a->msg_id, message_b->msg_id);
}

static Datum
column(uint64 row, int number)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, &isnull);
}

/* Ids in an array that grows */
typedef struct IdList
{
	Datum	   *ids;
	int			count;
	int			max;
} IdList;

static void
add_id(IdList *list, int64 id)
{
	if (list->count == list->max)
	{
		list->max = Max(list->max * 2, 16);
		list->ids = list->ids == NULL ? palloc(sizeof(Datum) * list->max) :
			repalloc_huge(list->ids, sizeof(Datum) * list->max);
	}
	list->ids[list->count++] = Int64GetDatum(id);
}

static Datum
array_of(const IdList *list)
{
	return PointerGetDatum(construct_array(list->ids, list->count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* On what "snapshot" shows, or (InvalidSnapshot) on what the transaction sees */
static void
run(const char *statement, const QueueName *name, int nargs, Oid *argtypes, Datum *values, const char *nulls,
	Snapshot snapshot)
{
	(void) run_prepared(run_prepare(name_expand(statement, name), nargs, argtypes), values, nulls, snapshot, false);
}

/* Those of the messages that could be locked, sorted */
static int64 *
lock_messages(const QueueName *name, const SlowMessage *messages, int count, TimestampTz moment, int *nlocked)
{
	Oid			argtypes[] = {INT8ARRAYOID, TIMESTAMPTZOID};
	IdList		ids = {0};
	Datum		values[2];
	int64	   *locked;
	int			i;

	for (i = 0; i < count; i++)
		add_id(&ids, messages[i].msg_id);
	values[0] = array_of(&ids);
	values[1] = TimestampTzGetDatum(moment);
	run(LOCK_MESSAGES, name, 2, argtypes, values, NULL, InvalidSnapshot);
	*nlocked = (int) SPI_processed;
	locked = palloc_extended(sizeof(int64) * (*nlocked + 1), MCXT_ALLOC_HUGE);
	for (i = 0; i < *nlocked; i++)
		locked[i] = DatumGetInt64(column(i, 1));
	SPI_freetuptable(SPI_tuptable);
	qsort(locked, *nlocked, sizeof(int64), compare_ids);
	return locked;
}

/* Whether another transaction has claimed the first message of a group in the result, or this one does not see it (2) */
static bool
is_claimed(uint64 row)
{
	bool		isnull;
	Datum		relid = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3, &isnull);
	Relation	rel;
	TupleTableSlot *slot;
	bool		claimed;

	if (isnull)
		return false;
	rel = table_open(DatumGetObjectId(relid), AccessShareLock);
	slot = table_slot_create(rel, NULL);
	claimed = !table_tuple_fetch_row_version(rel, (ItemPointer) DatumGetPointer(column(row, 4)),
											 IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : SnapshotAny,
											 slot) || slot_is_claimed(slot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return claimed;
}

/*
 * The messages in the result, without those of claimed groups.  In each order the first messages
 * come before the others of their groups, and by their ids.  So what is added to "claimed" is sorted.
 */
static int
keep_free(SlowMessage *messages, IdList *claimed)
{
	int			before = claimed->count;
	int			kept = 0;
	uint64		row;

	for (row = 0; row < SPI_processed; row++)
	{
		SlowMessage message = {DatumGetInt64(column(row, 1)), DatumGetInt64(column(row, 2))};
		Datum		head = Int64GetDatum(message.head);

		CHECK_FOR_INTERRUPTS();
		if (message.msg_id == message.head && is_claimed(row))
			add_id(claimed, message.head);
		if (claimed->count == before ||
			bsearch(&head, claimed->ids + before, claimed->count - before, sizeof(Datum), compare_ids) == NULL)
			messages[kept++] = message;
	}
	return kept;
}

/* How many messages are found beyond those wanted, in case that some groups are claimed; and the factor if they are */
#define SPARE 16
#define SPARE_FACTOR 8

static const char *
find_statement(const GroupQueue *queue, GroupMode mode, SlowKind kind)
{
	bool		may_ask = pg_class_aclcheck(RelationGetRelid(queue->queue), GetUserId(), ACL_SELECT) == ACLCHECK_OK;
	Place		place = {0};

	if (kind != SLOW_ALL)
		(void) place_columns(queue->queue, &place);
	return psprintf(find_messages[mode], may_ask ? PLACE : NO_PLACE,
					psprintf(kinds[kind], place.releases_attno ? "pgmq_releases" : "NULL::pg_catalog.int4"));
}

/* The arguments that all of its runs have in common; how many arguments there are */
static int
find_arguments(const GroupQueue *queue, SlowKind kind, Datum *values, char *nulls)
{
	bool		isnull[3];
	int			i;

	memset(nulls, ' ', 6);
	if (kind == SLOW_ALL)
		return 3;
	survey_rule_args(queue->rule, &values[3], isnull);
	for (i = 0; i < 3; i++)
		nulls[3 + i] = isnull[i] ? 'n' : ' ';
	return 6;
}

/* Messages as (1) finds them, that are not claimed, in the order of the policy */
static SlowMessage *
find_free(const GroupQueue *queue, GroupMode mode, SlowKind kind, int64 limit, TimestampTz moment, int *count)
{
	const char *sql = find_statement(queue, mode, kind);
	Oid			argtypes[] = {TIMESTAMPTZOID, INT8OID, INT8ARRAYOID, INT4OID, INT8OID, TIMESTAMPTZOID};
	Datum		values[lengthof(argtypes)] = {TimestampTzGetDatum(moment)};
	char		nulls[lengthof(argtypes) + 1] = {0};
	int			nargs = find_arguments(queue, kind, values, nulls);
	int64		most = limit < 0 ? -1 : limit + SPARE;
	IdList		claimed = {0};

	for (;;)
	{
		int			before = claimed.count;
		SlowMessage *messages;
		bool		all;

		values[1] = Int64GetDatum(most);
		nulls[1] = most < 0 ? 'n' : ' ';
		values[2] = array_of(&claimed);
		run(sql, &queue->name, nargs, argtypes, values, nulls, GetLatestSnapshot());
		all = most < 0 || SPI_processed < most;
		messages = palloc_extended(sizeof(SlowMessage) * (SPI_processed + 1), MCXT_ALLOC_HUGE);
		*count = keep_free(messages, &claimed);
		SPI_freetuptable(SPI_tuptable);
		if (limit >= 0)
			*count = (int) Min(*count, limit);
		if (all || *count == limit || claimed.count == before)
			return messages;
		pfree(messages);
		most *= SPARE_FACTOR;
	}
}

/*
 * Messages to be handed out, group by group, each in order; all are locked if
 * "lock" says so.  "limit" is how many, or -1.  The caller has connected to SPI.
 */
int
slow_messages(const GroupQueue *queue, GroupMode mode, SlowKind kind, int64 limit, TimestampTz moment, bool lock,
			  SlowMessage **found)
{
	int			count;
	SlowMessage *messages = find_free(queue, mode, kind, limit, moment, &count);
	int64	   *locked;
	int			nlocked;
	int			kept = 0;
	int			i;

	*found = messages;
	qsort(messages, count, sizeof(SlowMessage), compare_messages);
	if (!lock || count == 0)
		return count;

	locked = lock_messages(&queue->name, messages, count, moment, &nlocked);
	for (i = 0; i < count; i++)
	{
		bool		first = messages[i].msg_id == messages[i].head;
		bool		follows = kept > 0 && i > 0 && messages[kept - 1].msg_id == messages[i - 1].msg_id;

		CHECK_FOR_INTERRUPTS();
		if ((first || follows) &&
			bsearch(&messages[i].msg_id, locked, nlocked, sizeof(int64), compare_ids) != NULL)
			messages[kept++] = messages[i];
	}
	return kept;
}
