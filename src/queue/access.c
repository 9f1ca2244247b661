/*
 * access.c
 *	  What a caller may do with a queue, and with the rows about it.
 *
 * The rows of pgmq.meta, pgmq.partition_config and pgmq.notify_insert_throttle
 * decide what happens to a queue.  A role may need to write such rows for its
 * own queues, and a grant on these tables cannot be limited to them.  So a
 * trigger checks each row:
 *
 * 1. The caller must own the queue's table and the archive, as far as they
 *	  exist.  A row of a queue that has neither can be written: a restore loads
 *	  these rows before the tables, and drop_queue() deletes them after the
 *	  tables.  The same goes for rows about streams, and their two tables.
 * 2. An UPDATE must pass for the old row and for the new one.
 * 3. A referential action is not checked again.  It runs as the owner of the
 *	  table that it changes, because a row of pgmq.meta was deleted, and that
 *	  row was checked.  The same goes for queue_write_row().
 * 4. The row of a new queue may come from an old version.  Then the columns that it
 *	  lacks are added: columns.c.
 * 5. The trigger does not fire in the replica role.  Logical replication then
 *	  copies rows whose writer the publisher has checked.
 *
 * The owner of these tables can disable the trigger, and a row may be older
 * than the table that it is about.  So each use of a row checks once more
 * whether the row can be meant.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "base/base.h"
#include "queue/access.h"
#include "queue/columns.h"
#include "queue/descriptor.h"

PG_FUNCTION_INFO_V1(pgmq__check_queue_owner);

/* Whether row-level security hides messages from the caller that others may see and take */
bool
queue_hides_rows(const QueueName *name)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);

	return OidIsValid(relid) && check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

void
queue_require_owner(const QueueName *name)
{
	rights_require_owner(queue_relid(name, QUEUE_TABLE));
	rights_require_owner(queue_relid(name, ARCHIVE_TABLE));
}

/*
 * Check a privilege that a statement on the queue always needs, before it waits
 * for a lock.  The statement itself checks the rest.
 */
void
queue_require_privilege(const QueueName *name, AclMode privilege)
{
	rights_require_columns(queue_relid(name, QUEUE_TABLE), privilege, NULL, 0);
}

/* ---- rows about a queue ---- */

/*
 * Write rows about a queue to a table of the extension; how many.
 *
 * A role that owns the tables of the queue needs no privilege on the extension's
 * table ("needs" is ACL_NO_RIGHTS).  UPDATE and DELETE would be too much: either of
 * them lets a role lock the table against all other sessions.  If the queue has no
 * tables, the caller needs that privilege.  The statement runs as the owner of the
 * extension's table in both cases, in the way of a referential action: that role
 * may have put a trigger there, which must not get the rights of the caller.  Only
 * under row-level security the policies for the caller decide.
 */
uint64
queue_write_row(OwnTable table, const QueueName *name, AclMode needs,
				const char *sql, int nargs, const char *const *args)
{
	Oid			relid = relcheck_own_table(table, RowExclusiveLock);

	queue_require_owner(name);
	if (needs != ACL_NO_RIGHTS)
	{
		rights_require_columns(relid, ACL_SELECT, NULL, 0);
		rights_require_columns(relid, needs, NULL, 0);
		if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
			return run_with_texts(sql, nargs, args);
	}
	return owner_run(owner_of(relid), true, sql, nargs, args);
}

/* ---- the trigger ---- */

/* The server's code for foreign keys is at work, or queue_write_row(), for a row that was checked before */
bool
queue_row_is_checked(Relation rel)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	return (context & SECURITY_NOFORCE_RLS) != 0 && user == rel->rd_rel->relowner;
}

static void
require_stream_owner(const QueueName *name)
{
	rights_require_owner(queue_relid(name, STREAM_TABLE));
	rights_require_owner(queue_relid(name, POSITIONS_TABLE));
}

/*
 * The row's queue_name must be of no queue, or of one that is the caller's; or its
 * stream_name of such a stream.  A row of pgmq.meta that "registers" a queue may come from
 * an old version.
 */
static void
check_row(Relation rel, HeapTuple row, bool registers)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		of_stream = SPI_fnumber(desc, "queue_name") <= 0;
	int			column = SPI_fnumber(desc, of_stream ? "stream_name" : "queue_name");
	char	   *queue_name = column > 0 ? SPI_getvalue(row, desc, column) : NULL;
	QueueName	name;

	/* A value that no queue can have as its name has no effect */
	if (queue_name == NULL || !name_try_canonical(cstring_to_text(queue_name), &name))
		return;
	if (of_stream)
		require_stream_owner(&name);
	else
		queue_require_owner(&name);
	if (registers && RelationGetRelid(rel) == relcheck_own_relid(OWN_META))
	{
		SPI_connect();
		queue_add_columns(&name);
		SPI_finish();
	}
}

/*
 * pgmq._check_queue_owner() -> trigger
 *
 * BEFORE INSERT OR UPDATE OR DELETE, for each row, and BEFORE TRUNCATE: that
 * is about all queues at once, so it needs the ownership of the table.
 */
Datum
pgmq__check_queue_owner(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("pgmq._check_queue_owner() can only be called as a trigger that fires before")));
	rel = trigdata->tg_relation;
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
	{
		rights_require_owner(RelationGetRelid(rel));
		return PointerGetDatum(NULL);
	}
	if (!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		return PointerGetDatum(NULL);
	if (!queue_row_is_checked(rel))
	{
		check_row(rel, trigdata->tg_trigtuple, TRIGGER_FIRED_BY_INSERT(trigdata->tg_event));
		if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
			check_row(rel, trigdata->tg_newtuple, false);
	}
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
						   trigdata->tg_newtuple : trigdata->tg_trigtuple);
}
