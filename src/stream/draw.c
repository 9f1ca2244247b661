/*
 * draw.c
 *	  The ids of events that are published.
 *
 * 1. A transaction records where its ids begin, then locks the log, then draws.  end.c says why.
 * 2. The sequence must give each id once, and rising: no cache, steps of 1, no cycle.  A cached id would be far below
 *	  the end.  Sessions may have cached ids before the cache was switched off.  So an id below the record is an error, too.
 * 3. The order of ids and that of published_at are the same within a second: the clock is read after the ids were drawn,
 *	  and ids that took longer than DRAW_AT_MOST are drawn again.
 *
 * Ids are drawn here and not by the table's default, because the shard of an event without a key depends on its id.  As
 * for that default, no privilege on the sequence is needed.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "wait/wait.h"
#include "stream/internal.h"

#define DRAW_AT_MOST (400 * INT64CONST(1000))
#define DRAW_ATTEMPTS 10

/* An error if the sequence is not fit to draw from (2) */
void
draw_require_sequence(const StreamLog *log)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(log->sequence));
	const char *problem = NULL;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_sequence form = (Form_pg_sequence) GETSTRUCT(tuple);

		if (form->seqcache != 1)
			problem = "It has a cache.";
		else if (form->seqincrement != 1)
			problem = "Its increment is not 1.";
		else if (form->seqcycle)
			problem = "It may cycle.";
		ReleaseSysCache(tuple);
	}
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the sequence of stream \"%s\" cannot give ids in order", log->name.canonical),
				 errdetail("%s", problem),
				 errhint("Alter the column event_id of %s: SET CACHE 1, SET INCREMENT 1, SET NO CYCLE.",
						 name_table(&log->name, STREAM_TABLE))));
}

/* Record where the ids of this transaction begin, and lock the log (1).  Returns what the record says. */
int64
draw_begin(StreamLog *log)
{
	Oid			relid = RelationGetRelid(log->rel);
	LOCKTAG		tag;
	int64		first;
	int64		end;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	if (!LockHeldByMe(&tag, RowExclusiveLock, true))
	{
		first = end_last_id_checked(log, &end) + 1;
		log_check_last_id(log, first - 1);
		record_make(relid, first);
		LockRelationOid(relid, RowExclusiveLock);
	}
	else if (!record_find_own(relid, &first))
	{
		/* It locked the log for something else, perhaps to create it: then all ids are its own or come later */
		first = 1;
		if (end_last_id(log) == 0)
			record_make(relid, first);
	}
	held_taken(&log->name, NULL);
	return first;
}

/* Draw ids for events that will be inserted now; they rise.  Returns when. */
TimestampTz
draw_ids(StreamLog *log, int64 *ids, int count)
{
	TimestampTz began;
	TimestampTz now;
	int64		first;
	int			attempts = 0;
	int			i;

	draw_require_sequence(log);
	first = draw_begin(log);
	do
	{
		began = GetCurrentTimestamp();
		for (i = 0; i < count; i++)
		{
			ids[i] = nextval_internal(log->sequence, false);
			if (ids[i] < first || (i > 0 && ids[i] <= ids[i - 1]))
				end_refuse_sequence(log, psprintf("It gave " INT64_FORMAT " after " INT64_FORMAT ".",
												  ids[i], i > 0 ? ids[i - 1] : first - 1));
		}
		now = GetCurrentTimestamp();
	} while (now - began > DRAW_AT_MOST && ++attempts < DRAW_ATTEMPTS);
	log_check_last_id(log, ids[count - 1]);
	return now;
}
