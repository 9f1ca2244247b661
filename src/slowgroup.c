/*
 * slowgroup.c
 *	  Hand out messages by groups of a queue that has no group index, or none that
 *	  the role may use: by statements, which sort the whole queue, on disk if it is
 *	  large.
 *
 * What holds is less than with the index: order among messages that are committed
 * when the call begins.  A message is taken only if every earlier one of its group
 * that the statement sees is taken, too:
 *
 * 1. One statement finds, in each group, the messages from the first one on that
 *	  are all visible.  A group whose first message was never handed out, while
 *	  others of it are held, is left out: that message came late.
 * 2. Another one locks them, and skips what it can't lock at once or what is not
 *	  visible any more.  Of a group everything behind the first one that was
 *	  skipped is let go of.
 *
 * So of two readers only one gets the first message, and the other none of its
 * group.  Row-level security holds for both statements, as for any other.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/snapmgr.h"

#include "group.h"

/* $1 now, $2 how many (NULL: all) */
#define FIND_MESSAGES \
	"SELECT msg_id, head FROM (SELECT msg_id," \
	" pg_catalog.first_value(msg_id) OVER in_order AS head," \
	" pg_catalog.row_number() OVER in_order AS place," \
	" pg_catalog.bool_and(visible) OVER in_order AS all_visible," \
	" pg_catalog.first_value(read_ct) OVER in_order AS first_read_ct," \
	" pg_catalog.bool_or(held) OVER (PARTITION BY grp) AS any_held" \
	" FROM (SELECT msg_id, read_ct, (" GROUP_NAME ") COLLATE pg_catalog.\"C\" AS grp," \
	" COALESCE(vt OPERATOR(pg_catalog.<=) $1 OR vt OPERATOR(pg_catalog.=) enqueued_at, false) AS visible," \
	" COALESCE(read_ct OPERATOR(pg_catalog.>) 0 AND vt OPERATOR(pg_catalog.>) $1" \
	" AND vt OPERATOR(pg_catalog.<>) enqueued_at, false) AS held FROM {queue}) AS messages" \
	" WINDOW in_order AS (PARTITION BY grp ORDER BY msg_id)) AS messages" \
	" WHERE all_visible AND NOT (any_held AND first_read_ct OPERATOR(pg_catalog.=) 0) "

static const char *const find_messages[] = {
	[FILL] = FIND_MESSAGES "ORDER BY head, msg_id LIMIT $2",
	[ROUND_ROBIN] = FIND_MESSAGES "ORDER BY place, head LIMIT $2",
	[HEADS] = FIND_MESSAGES "AND place OPERATOR(pg_catalog.=) 1 ORDER BY head LIMIT $2"
};

/* $1 which, $2 now */
#define LOCK_MESSAGES \
	"SELECT msg_id FROM {queue} WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND (vt OPERATOR(pg_catalog.<=) $2 OR vt OPERATOR(pg_catalog.=) enqueued_at)" \
	" FOR UPDATE SKIP LOCKED"

static int
compare_ids(const void *a, const void *b)
{
	int64		id_a = *(const int64 *) a;
	int64		id_b = *(const int64 *) b;

	return id_a < id_b ? -1 : id_a > id_b;
}

static int
compare_messages(const void *a, const void *b)
{
	const SlowMessage *message_a = a;
	const SlowMessage *message_b = b;

	if (message_a->head != message_b->head)
		return message_a->head < message_b->head ? -1 : 1;
	return compare_ids(&message_a->msg_id, &message_b->msg_id);
}

static int64
column(uint64 row, int number)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, &isnull));
}

/* Those of the messages that could be locked, sorted */
static int64 *
lock_messages(const QueueName *name, const SlowMessage *messages, int count, TimestampTz moment, int *nlocked)
{
	static const Oid types[] = {INT8ARRAYOID, TIMESTAMPTZOID};
	Oid			argtypes[] = {types[0], types[1]};
	Datum	   *ids = palloc_extended(sizeof(Datum) * (count + 1), MCXT_ALLOC_HUGE);
	Datum		values[2];
	int64	   *locked;
	int			i;

	for (i = 0; i < count; i++)
		ids[i] = Int64GetDatum(messages[i].msg_id);
	values[0] = PointerGetDatum(construct_array(ids, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = TimestampTzGetDatum(moment);
	if (SPI_execute_with_args(name_expand(LOCK_MESSAGES, name), 2, argtypes, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(SPI_result));
	*nlocked = (int) SPI_processed;
	locked = palloc_extended(sizeof(int64) * (*nlocked + 1), MCXT_ALLOC_HUGE);
	for (i = 0; i < *nlocked; i++)
		locked[i] = column(i, 1);
	SPI_freetuptable(SPI_tuptable);
	qsort(locked, *nlocked, sizeof(int64), compare_ids);
	return locked;
}

/*
 * Messages to be handed out, group by group, each in order; all are locked if
 * "lock" says so.  "limit" is how many, or -1.  The caller has connected to SPI.
 */
int
slow_messages(const QueueName *name, Policy policy, int64 limit, TimestampTz moment, bool lock,
			  SlowMessage **found)
{
	Oid			argtypes[] = {TIMESTAMPTZOID, INT8OID};
	Datum		values[] = {TimestampTzGetDatum(moment), Int64GetDatum(limit)};
	SlowMessage *messages;
	int64	   *locked;
	int			nlocked;
	int			count;
	int			kept = 0;
	int			i;

	if (SPI_execute_with_args(name_expand(find_messages[policy], name), 2, argtypes, values,
							  limit < 0 ? " n" : NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(SPI_result));
	count = (int) SPI_processed;
	*found = messages = palloc_extended(sizeof(SlowMessage) * (count + 1), MCXT_ALLOC_HUGE);
	for (i = 0; i < count; i++)
		messages[i] = (SlowMessage) {column(i, 1), column(i, 2)};
	SPI_freetuptable(SPI_tuptable);
	qsort(messages, count, sizeof(SlowMessage), compare_messages);
	if (!lock || count == 0)
		return count;

	locked = lock_messages(name, messages, count, moment, &nlocked);
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
