/*
 * columns.c
 *	  The columns that queues of old versions lack.
 *
 * Versions of the PL/pgSQL extension before 1.5 made queues without headers, and those
 * before 1.10 without last_read_at.  The update adds these columns.  But a call of the
 * old create() can be at work during the update, and a dump of an old version can be
 * restored.  Each of them writes a row to pgmq.meta when the tables exist; then the
 * trigger on that table comes here.
 */
#include "pgmq.h"

#include "catalog/pg_class.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "queue/columns.h"
#include "queue/descriptor.h"

/* Whether it has the other columns of a queue's table */
static bool
looks_like_queue(Oid relid)
{
	static const char *const columns[] = {"msg_id", "read_ct", "enqueued_at", "vt", "message"};
	int			i;

	for (i = 0; i < lengthof(columns); i++)
	{
		if (get_attnum(relid, columns[i]) == InvalidAttrNumber)
			return false;
	}
	return true;
}

static void
add_column(const QueueName *name, char prefix, const char *column, const char *type)
{
	Oid			relid = queue_relid(name, prefix);

	/* A column without a default is an entry in the catalog: no row is read or written */
	if (get_attnum(relid, column) == InvalidAttrNumber)
		(void) owner_run(owner_of(relid), false,
						 psprintf("ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s %s",
								  name_table(name, prefix), column, type), 0, NULL);
}

/*
 * Add what the queue's table and its archive lack, with the rights of their owners.
 * The caller has checked that the queue is the current user's, and has connected to SPI.
 */
void
queue_add_columns(const QueueName *name)
{
	static const char prefixes[] = {QUEUE_TABLE, ARCHIVE_TABLE};
	int			i;

	for (i = 0; i < lengthof(prefixes); i++)
	{
		Oid			relid = queue_relid(name, prefixes[i]);
		char		relkind = queue_relkind(name, prefixes[i]);

		if ((relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE) ||
			get_rel_relispartition(relid) || !looks_like_queue(relid))
			continue;
		add_column(name, prefixes[i], "headers", "pg_catalog.jsonb");
		add_column(name, prefixes[i], "last_read_at", "timestamp with time zone");
	}
}
