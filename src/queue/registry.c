/*
 * registry.c
 *	  Which queues are registered: the rows of pgmq.meta, and the lock for changing
 *	  a queue.
 */
#include "pgmq.h"

#include "utils/inval.h"

#include "base/base.h"
#include "queue/registry.h"

/*
 * One session at a time may create or drop a queue; the lock is held until the
 * end of the transaction.  The key is made from the canonical name.  Programs
 * know it from the PL/pgSQL extension.
 *
 * From here on this session knows what the previous holder of the lock has done
 * to the catalogs.  A lock on a table accepts invalidations; an advisory lock
 * does not.
 */
void
lock_queue(const QueueName *name)
{
	const char *canonical = name->canonical;

	run_with_texts("SELECT pg_catalog.pg_advisory_xact_lock(" QUEUE_LOCK_KEY("$1") ")",
				   1, &canonical);
	AcceptInvalidationMessages();
}

/*
 * The rows of a queue in pgmq.meta: an adopted database may have several.  By the
 * latest snapshot, as run_with_texts() does.  The first column is queue_name.
 */
uint64
registered_rows(const QueueName *name, const char *const *columns, int ncolumns, OwnRow **rows)
{
	uint64		count = ownread(OWN_META, VIEW_OF_LATEST, columns, ncolumns, rows);
	uint64		found = 0;
	uint64		i;

	for (i = 0; i < count; i++)
	{
		if (ownread_is_of(&(*rows)[i], 0, name))
			(*rows)[found++] = (*rows)[i];
	}
	return found;
}

/* The spelling under which the queue was made, or NULL if it is new to us */
char *
registered_spelling(const QueueName *name)
{
	static const char *const columns[] = {"queue_name", "created_at"};
	static const OwnKey by_age[] = {{1, InvalidOid, false}};
	OwnRow	   *rows;
	uint64		count = registered_rows(name, columns, lengthof(columns), &rows);

	ownread_sort(rows, count, by_age, lengthof(by_age));
	return count > 0 ? ownread_text(&rows[0], 0) : NULL;
}
