/*
 * fifo.c
 *	  create_fifo_index: make the objects that grouped reads need.
 *
 * They are an index on the queue by group and msg_id, the table of notes
 * (notes.c), and the triggers that write to it.  Each group gets a note.  All
 * are made under a lock that keeps writers out, so that the notes are complete.
 *
 * The index contains only built-in functions: it must survive DROP EXTENSION as
 * the queue does.  A long group name would not fit in an index entry, and its
 * send would fail.  So its beginning and two hashes of it replace it.  If two
 * names ever had the same key, their messages would form one group, which
 * breaks no order.
 */
#include "pgmq.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "group/group.h"
#include "group/internal.h"

PG_FUNCTION_INFO_V1(pgmq_create_fifo_index);
PG_FUNCTION_INFO_V1(pgmq_create_fifo_indexes_all);

/*
 * A note for each group, in the order of their first messages.  It is late if
 * the first message was never handed out and a consumer holds others of the
 * group.  That is judged by now(), which may be too early.  Then a note is late
 * without need, and readers find out.
 */
#define FILL_NOTES \
	"INSERT INTO {notes} (enqueued_at, vt, grp, head, late)" \
	" SELECT c.now, GREATEST(c.now, CASE WHEN g.vt OPERATOR(pg_catalog.<>) g.enqueued_at THEN g.vt END), g.key, g.msg_id," \
	" h.key IS NOT NULL AND COALESCE(g.read_ct OPERATOR(pg_catalog.=) 0, false)" \
	" FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS c," \
	" (SELECT DISTINCT ON (k.key) k.key, k.msg_id, k.vt, k.enqueued_at, k.read_ct" \
	" FROM (SELECT " GROUP_KEY " COLLATE pg_catalog.\"C\" AS key, msg_id, vt, enqueued_at, read_ct FROM {queue}) AS k" \
	" ORDER BY k.key, k.msg_id) AS g" \
	" LEFT JOIN (SELECT DISTINCT " GROUP_KEY " COLLATE pg_catalog.\"C\" AS key FROM {queue}" \
	" WHERE read_ct OPERATOR(pg_catalog.>) 0 AND vt OPERATOR(pg_catalog.>) pg_catalog.now()) AS h" \
	" ON h.key OPERATOR(pg_catalog.=) g.key" \
	" ORDER BY g.msg_id"

static void
run_expanded(const char *sql, const QueueName *name)
{
	run_ddl("%s", name_expand(sql, name));
}

/* An index of that name that is not ours, as the PL/pgSQL extension makes it, is replaced. */
static void
make_index(const QueueName *name)
{
	Oid			oid = queue_index_relid(name, QUEUE_TABLE, GROUP_INDEX_SUFFIX);
	char		relkind = OidIsValid(oid) ? get_rel_relkind(oid) : '\0';
	const char *index = name_object(name, "q_", GROUP_INDEX_SUFFIX);
	int			nest;

	if (relkind == RELKIND_INDEX || relkind == RELKIND_PARTITIONED_INDEX)
		run_ddl("DROP INDEX %s.%s", PGMQ_SCHEMA, index);
	else if (OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s exists and belongs to another queue", index),
				 errhint("The group index of the queue needs this name.")));
	nest = begin_partitioned_ddl();
	run_ddl("CREATE INDEX %s ON %s ((%s COLLATE pg_catalog.\"C\"), msg_id)",
				  index, name_table(name, QUEUE_TABLE), GROUP_KEY);
	AtEOXact_GUC(false, nest);
}

/* Whatever has the name of the helper table must be one */
void
group_require_notes_name(const QueueName *name)
{
	if (OidIsValid(queue_index_relid(name, NOTES_TABLE, "")) && !group_has_notes(name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s exists and is not the helper table of a queue", name_table(name, NOTES_TABLE)),
				 errhint("The helper table of the queue needs this name.")));
}

/*
 * A new table of notes, as durable as the queue and of the same owner.  Earlier
 * notes are not kept: they may have been made for another table.
 *
 * Ids need not be unique: if the notes are restored before the messages, the
 * triggers draw ids that exist already.  Together with its time each id is
 * unique.
 */
static void
make_notes(const QueueName *name)
{
	const char *notes = name_table(name, NOTES_TABLE);
	Oid			queue = queue_relid(name, QUEUE_TABLE);
	bool		unlogged = get_rel_persistence(queue) == RELPERSISTENCE_UNLOGGED;
	Oid			owner = owner_of(queue);

	group_require_notes_name(name);
	if (group_has_notes(name))
		run_ddl("DROP TABLE %s", notes);
	run_ddl("CREATE %sTABLE %s ("
				  "msg_id bigint GENERATED ALWAYS AS IDENTITY,"
				  " enqueued_at timestamp with time zone,"
				  " vt timestamp with time zone NOT NULL,"
				  " grp pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL,"
				  " head bigint NOT NULL,"
				  " late boolean NOT NULL DEFAULT false,"
				  " PRIMARY KEY (msg_id, enqueued_at)) USING heap",
				  unlogged ? "UNLOGGED " : "", notes);
	run_ddl("CREATE INDEX %s ON %s (vt, msg_id) WHERE vt OPERATOR(pg_catalog.<>) enqueued_at",
				  name_object(name, "g_", "_vt_idx"), notes);
	run_ddl("CREATE INDEX %s ON %s (grp, head)", name_object(name, "fifo_head_idx_", ""), notes);
	run_ddl("CREATE INDEX %s ON %s (grp) WHERE late", name_object(name, "fifo_late_idx_", ""), notes);
	run_ddl("COMMENT ON TABLE %s IS 'Which groups of the queue to look at, and when'", notes);

	if (owner != GetUserId())
		run_ddl("ALTER TABLE %s OWNER TO %s", notes,
					  quote_identifier(GetUserNameFromId(owner, false)));
}

static void
make_trigger(const QueueName *name, const char *trigger, const char *when, const char *how,
			 const char *function)
{
	run_ddl("CREATE OR REPLACE TRIGGER %s %s ON %s %s EXECUTE FUNCTION pgmq.%s(%s)",
				  trigger, when, name_table(name, QUEUE_TABLE), how, function, quote_literal_cstr(name->canonical));
}

/*
 * A message is visible earlier, or has another place in the index.  For any UPDATE: a
 * trigger of a user may write what the statement does not.  Names are compared as text:
 * headers that are equal as jsonb may name two groups, 5 and 5.0.
 */
#define CHANGED \
	"NEW.vt OPERATOR(pg_catalog.<) OLD.vt OR NEW.msg_id OPERATOR(pg_catalog.<>) OLD.msg_id" \
	" OR " GROUP_NAME_OF("NEW.headers") " COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.<>) " GROUP_NAME_OF("OLD.headers")

static void
make_triggers(const QueueName *name)
{
	make_trigger(name, TRIGGER_SENT, "AFTER INSERT",
				 "REFERENCING NEW TABLE AS pgmq_sent FOR EACH STATEMENT", "_group_sent");
	make_trigger(name, TRIGGER_REMOVED, "AFTER DELETE",
				 "REFERENCING OLD TABLE AS pgmq_removed FOR EACH STATEMENT", "_group_removed");
	make_trigger(name, TRIGGER_UPDATED, "AFTER UPDATE", "FOR EACH ROW WHEN (" CHANGED ")", "_group_updated");
	make_trigger(name, TRIGGER_TRUNCATED, "AFTER TRUNCATE",
				 "FOR EACH STATEMENT", "_group_truncated");
}

/* Whether all objects exist and are usable */
static bool
is_in_place(const QueueName *name)
{
	GroupQueue	queue;
	Place		place;
	bool		in_place = group_open(&queue, name, true);

	if (in_place)
	{
		in_place = queue.notes != NULL && place_describe(queue.notes, &place) &&
			OidIsValid(queue.head_index) && OidIsValid(queue.late_index);
		group_close(&queue, !in_place || queue.locked_before);
	}
	return in_place;
}

/*
 * All committed messages must get their notes, at any isolation level.  As the
 * owner: the planner may run the owner's functions.  Policies can hide messages
 * from the owner (FORCE ROW LEVEL SECURITY).  These need notes as well, for
 * other roles that read them.
 */
static void
fill_notes(const QueueName *name)
{
	(void) owner_run(owner_of(queue_relid(name, QUEUE_TABLE)), true, name_expand(FILL_NOTES, name), 0, NULL);
}

/* Checked before anything is locked: a refused call makes no other session wait */
static void
require_own_queue(const QueueName *name)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);

	queue_require(name);
	rights_require_owner(relid);
	if (get_rel_relkind(relid) != RELKIND_RELATION && get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", name_table(name, QUEUE_TABLE))));
}

static bool
replaces_something(const QueueName *name)
{
	return OidIsValid(queue_index_relid(name, QUEUE_TABLE, GROUP_INDEX_SUFFIX)) || group_has_notes(name);
}

/* The caller has connected to SPI. */
static void
create_fifo_index(const QueueName *name)
{
	OwnerScope	scope;
	bool		in_place;

	require_own_queue(name);
	lock_queue(name);
	require_own_queue(name);
	/* A queue whose policies hide messages from its owner has all of this as well */
	owner_pass_policies(&scope);
	in_place = is_in_place(name);
	owner_end(&scope);
	if (in_place)
		return;
	/* The strongest lock comes first: a reader that has looked would wait for the weaker one, and we for the reader */
	if (replaces_something(name))
		run_expanded("LOCK TABLE {queue} IN ACCESS EXCLUSIVE MODE", name);
	else
		run_expanded("LOCK TABLE {queue} IN SHARE ROW EXCLUSIVE MODE", name);
	make_index(name);
	make_notes(name);
	make_triggers(name);
	fill_notes(name);
	notes_set_marker(name);
}

/*
 * pgmq.create_fifo_index(queue_name text) -> void
 * pgmq._create_fifo_index_if_not_exists(queue_name text) -> void
 */
Datum
pgmq_create_fifo_index(PG_FUNCTION_ARGS)
{
	QueueName	name;

	name_from_arg(fcinfo, 0, &name);
	SPI_connect();
	create_fifo_index(&name);
	SPI_finish();
	PG_RETURN_VOID();
}

/* The suffix of its name, and what follows the name of the table */
void
group_index_shape(const char **suffix, const char **definition)
{
	*suffix = GROUP_INDEX_SUFFIX;
	*definition = "((" GROUP_KEY " COLLATE pg_catalog.\"C\"), msg_id)";
}

/*
 * For a queue that gets a group index which was built before: writers wait for an
 * instant only.  The notes are empty and have no marker, so readers find all groups
 * by themselves (groupsweep.c).  The caller has connected to SPI.
 */
void
group_begin_notes(const QueueName *name)
{
	run_expanded("LOCK TABLE {queue} IN ACCESS EXCLUSIVE MODE", name);
	make_notes(name);
	make_triggers(name);
}

/* Waits for locks of all queues together, in milliseconds */
#define LOCK_BUDGET_MS 10000

/*
 * All of it runs as the owner of the queue: to describe a table, the server runs
 * functions in its partition key, its indexes and its constraints, and these are
 * the owner's.
 */
static void
create_listed(const ListedQueue *queue, void *arg)
{
	Oid			relid = queue_relid(&queue->name, QUEUE_TABLE);
	OwnerScope	scope;

	if (!OidIsValid(relid))
		return;
	owner_begin(owner_of(relid), &scope);
	SPI_connect();
	create_fifo_index(&queue->name);
	SPI_finish();
	owner_end(&scope);
}

/*
 * pgmq.create_fifo_indexes_all() -> void
 *
 * In the order of the names, so that two such calls do not deadlock.  A queue
 * that is recorded but has no table must not prevent the others from getting
 * their index.
 */
Datum
pgmq_create_fifo_indexes_all(PG_FUNCTION_ARGS)
{
	ListedQueue *queues;
	int			count = queues_list(&queues);
	int			i;

	for (i = 0; i < count; i++)
		rights_require_owner(queue_relid(&queues[i].name, QUEUE_TABLE));
	queues_visit(queues, count, LOCK_BUDGET_MS, true, create_listed, NULL);
	PG_RETURN_VOID();
}
