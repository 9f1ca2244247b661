/*
 * create.c
 *	  Make queues.
 *
 * This runs rarely, so its statements are not kept.  They run with the rights of the
 * caller.  Only rows in the tables about queues are written as the owner of those tables.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "base/base.h"
#include "queue/queue.h"
#include "stream/stream.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq_create_non_partitioned);
PG_FUNCTION_INFO_V1(pgmq_create_unlogged);
PG_FUNCTION_INFO_V1(pgmq_create_partitioned);

/*
 * Record the queue's spelling and kind.  The kind is that of its table, which
 * may be older than this call.
 */
static void
register_queue(const QueueName *name, const char *spelling)
{
	static const char *const columns[] = {"queue_name", "is_partitioned", "is_unlogged"};
	const char *args[] = {spelling, name_table(name, QUEUE_TABLE)};

	/* This privilege is what makes a role a maker of queues */
	rights_require_columns(relcheck_own_table(OWN_META, RowExclusiveLock), ACL_INSERT,
						   columns, lengthof(columns));
	queue_write_row(OWN_META, name, ACL_NO_RIGHTS,
					"INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)"
					" SELECT $1, relkind OPERATOR(pg_catalog.=) 'p', relpersistence OPERATOR(pg_catalog.=) 'u'"
					" FROM pg_catalog.pg_class"
					" WHERE oid OPERATOR(pg_catalog.=) $2::pg_catalog.regclass"
					" ON CONFLICT DO NOTHING", lengthof(args), args);
}

/*
 * The columns that a queue and its archive share, with archived_at in its
 * place.  Tools read these tables, so names, types and order are part of the
 * contract.
 */
#define TABLE_COLUMNS(archived_at) \
	" read_ct integer NOT NULL DEFAULT 0," \
	" enqueued_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now()," \
	" last_read_at timestamp with time zone," archived_at \
	" vt timestamp with time zone NOT NULL," \
	" message pg_catalog.jsonb," \
	" headers pg_catalog.jsonb"

/*
 * How much of a queue exists.  The tables of an incomplete queue can have been
 * prepared by another role.
 */
typedef enum QueueState
{
	STATE_NEW,					/* pgmq.meta does not know it */
	STATE_HALF,					/* one of its tables is missing, or both are */
	STATE_WHOLE
} QueueState;

/*
 * A table that is older than the queue may belong to another role, with
 * triggers that would run with the rights of each sender.  Being a member of
 * that role, or a superuser, is not enough: the current user must have made the
 * table.
 */
static void
require_my_table(const QueueName *name, char prefix)
{
	Oid			relid = queue_relid(name, prefix);
	Oid			owner = owner_of(relid);

	if (owner == GetUserId())
	{
		/* The lock that CREATE INDEX takes: the table keeps its name and its owner */
		LockRelationOid(relid, ShareLock);
		if (queue_relid(name, prefix) == relid)
			owner = owner_of(relid);
		else
			owner = InvalidOid;
	}
	if (owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table %s exists, is not a whole queue, and belongs to another role",
						name_table(name, prefix)),
				 OidIsValid(owner) ?
				 errdetail("It belongs to role \"%s\".", GetUserNameFromId(owner, false)) : 0,
				 errhint("Drop the table, or create the queue as its owner.")));
}

/*
 * CREATE TABLE IF NOT EXISTS accepts a relation of any kind that has the name:
 * for example the index of another queue, or a partition of one.
 */
static void
require_table(const QueueName *name, char prefix, QueueState state)
{
	Oid			relid = queue_relid(name, prefix);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation %s exists and is not a table", name_table(name, prefix)),
				 errhint("Choose another name for the queue.")));
	require_no_partition(name, prefix);
	if (state != STATE_WHOLE)
		require_my_table(name, prefix);
}

/*
 * Another queue's table may have the name of our index or sequence, or another
 * role may have taken the name before.  The index would be skipped then, and the
 * sequence get another name than tools expect.
 */
static void
require_own_name(const char *relname, bool own)
{
	if (OidIsValid(get_relname_relid(relname, get_namespace_oid(PGMQ_SCHEMA, false))) && !own)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" exists and belongs to another queue", relname),
				 errhint("Choose another name for the queue.")));
}

/* If there is such an index, it is on the queue's table or archive */
static void
require_own_index(const QueueName *name, char prefix, const char *relname)
{
	Oid			relid = get_relname_relid(relname, get_namespace_oid(PGMQ_SCHEMA, false));

	require_own_name(relname, OidIsValid(relid) &&
					 (get_rel_relkind(relid) == RELKIND_INDEX ||
					  get_rel_relkind(relid) == RELKIND_PARTITIONED_INDEX) &&
					 IndexGetRelation(relid, true) == queue_relid(name, prefix));
}

static void
require_own_queue_index(const QueueName *name, const char *suffix)
{
	require_own_index(name, QUEUE_TABLE, psprintf("q_%s%s", name->canonical, suffix));
}

/* If there is a sequence of that name, the queue's ids come from it */
static void
require_own_sequence(const QueueName *name)
{
	const char *relname = psprintf("q_%s_msg_id_seq", name->canonical);
	Relation	rel;
	Oid			sequence;

	/* A table that existed before may be dropped by hand at this moment */
	while ((rel = try_relation_open(queue_relid(name, QUEUE_TABLE), AccessShareLock)) == NULL)
		queue_require(name);
	sequence = queue_sequence(name, QUEUE_TABLE, rel);
	relation_close(rel, NoLock);
	require_own_name(relname, OidIsValid(sequence) &&
					 sequence == get_relname_relid(relname, get_namespace_oid(PGMQ_SCHEMA, false)));
}

/*
 * The queue's table.  The second index holds the deferred messages only, so a
 * message that is sent without delay goes into one index.
 */
static void
create_queue_table(const QueueName *name, bool unlogged, QueueState state)
{
	const char *table = name_table(name, QUEUE_TABLE);
	bool		exists = OidIsValid(queue_relid(name, QUEUE_TABLE));

	run_ddl("CREATE %sTABLE IF NOT EXISTS %s ("
			"msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,"
			TABLE_COLUMNS("") ") USING heap",
			unlogged ? "UNLOGGED " : "", table);
	require_table(name, QUEUE_TABLE, state);
	if (state == STATE_NEW || !exists)
		require_own_sequence(name);

	/*
	 * The ids of an unlogged queue must not start again after a crash: its
	 * archive is logged and still has them.
	 */
	if (unlogged && !exists)
		run_ddl("ALTER SEQUENCE %s SET LOGGED", name_sequence(name));
}

static void
create_archive_table(const QueueName *name, QueueState state)
{
	run_ddl("CREATE TABLE IF NOT EXISTS %s ("
			"msg_id bigint PRIMARY KEY,"
			TABLE_COLUMNS(" archived_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),")
			") USING heap",
			name_table(name, ARCHIVE_TABLE));
	require_table(name, ARCHIVE_TABLE, state);
}

static void
create_indexes(const QueueName *name, const char *spelling, QueueState state)
{
	const char *archived_at = psprintf("archived_at_idx_%s", spelling);

	run_ddl("CREATE INDEX IF NOT EXISTS %s ON %s (vt, msg_id)"
			" WHERE vt OPERATOR(pg_catalog.<>) enqueued_at",
			name_object(name, "q_", "_vt_idx"),
			name_table(name, QUEUE_TABLE));
	run_ddl("CREATE INDEX IF NOT EXISTS %s ON %s (archived_at)",
			quote_identifier(archived_at), name_table(name, ARCHIVE_TABLE));
	require_own_queue_index(name, "_vt_idx");
	if (state == STATE_NEW)
		require_own_index(name, ARCHIVE_TABLE, archived_at);
}

typedef enum QueueKind
{
	QUEUE_LOGGED,
	QUEUE_UNLOGGED,
	QUEUE_PARTITIONED
} QueueKind;

static QueueKind
queue_kind(Oid relid)
{
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		return QUEUE_PARTITIONED;
	if (get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED)
		return QUEUE_UNLOGGED;
	return QUEUE_LOGGED;
}

/*
 * A queue that exists keeps its kind and its owner: report that.  The owner of
 * a queue can attach code to it, which runs with the rights of each role that
 * uses it.
 */
static void
notice_others(const QueueName *name, QueueKind wanted)
{
	static const char *const kinds[] = {"logged", "unlogged", "partitioned"};
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	Oid			owner = owner_of(relid);
	QueueKind	kind;

	if (!OidIsValid(relid))
		return;
	kind = queue_kind(relid);
	if (kind != wanted)
		ereport(NOTICE,
				(errmsg("queue \"%s\" exists and stays %s%s", name->canonical, kinds[kind],
						wanted == QUEUE_PARTITIONED ? ", not partitioned" : "")));
	if (OidIsValid(owner) && owner != GetUserId())
		ereport(NOTICE,
				(errmsg("queue \"%s\" exists and belongs to role \"%s\"", name->canonical,
						GetUserNameFromId(owner, false)),
				 errhint("Code that this role attaches to the queue runs with the rights of each role that uses it.")));
}

/*
 * The first steps of every function that creates a queue.  Returns the queue's
 * spelling.
 */
static char *
begin_create(FunctionCallInfo fcinfo, QueueName *name, QueueState *state)
{
	char	   *spelling;

	name_from_arg(fcinfo, 0, name);
	name_validate_new(PG_GETARG_TEXT_PP(0), name);
	rights_require_create();
	SPI_connect();
	/* For the queue of another owner this ends in an error, so raise it before the lock, not after it */
	if (OidIsValid(queue_relid(name, QUEUE_TABLE)) && registered_spelling(name) != NULL)
		queue_require_owner(name);
	lock_queue(name);
	stream_require_none(name);
	/* The keys of a queue that was dropped by hand, or by an old library */
	if (!OidIsValid(queue_relid(name, QUEUE_TABLE)) && keys_exist(name))
		keys_drop(name);
	spelling = registered_spelling(name);
	if (spelling == NULL)
		*state = STATE_NEW;
	else if (!OidIsValid(queue_relid(name, QUEUE_TABLE)) || !OidIsValid(queue_relid(name, ARCHIVE_TABLE)))
		*state = STATE_HALF;
	else
		*state = STATE_WHOLE;
	return spelling ? spelling : text_to_cstring(PG_GETARG_TEXT_PP(0));
}

static void
create_queue(FunctionCallInfo fcinfo, QueueKind kind)
{
	QueueName	name;
	QueueState	state;
	char	   *spelling = begin_create(fcinfo, &name, &state);

	notice_others(&name, kind);
	create_queue_table(&name, kind == QUEUE_UNLOGGED, state);
	create_archive_table(&name, state);
	queue_add_columns(&name);
	create_indexes(&name, spelling, state);
	register_queue(&name, spelling);
	SPI_finish();
}

/*
 * pgmq.create(queue_name text) -> void
 * pgmq.create_non_partitioned(queue_name text) -> void
 */
Datum
pgmq_create_non_partitioned(PG_FUNCTION_ARGS)
{
	create_queue(fcinfo, QUEUE_LOGGED);
	PG_RETURN_VOID();
}

/* pgmq.create_unlogged(queue_name text) -> void */
Datum
pgmq_create_unlogged(PG_FUNCTION_ARGS)
{
	create_queue(fcinfo, QUEUE_UNLOGGED);
	PG_RETURN_VOID();
}

/* The arguments of create_partitioned() */
typedef struct PartitionedQueue
{
	PartmanSet	set;			/* control and retention are each table's own */
	const char *retention;		/* NULL: for ever */
	bool		drop_unread;
	bool		drop_consumed;
	bool		is_new;			/* it had neither table nor archive */
} PartitionedQueue;

/*
 * The queue's table, partitioned by msg_id or by enqueued_at.
 *
 * Every partition has two indexes: one on msg_id for delete, archive and reads
 * of fresh messages, and one of the deferred messages.  They belong to the
 * parent, so new partitions get them.  The one on msg_id is a primary key: ids
 * are unique, as far as the server can tell across partitions, and a queue in a
 * publication has its replica identity.  The server wants the partition key in
 * it, so by time it has two columns, of which the first does the work.
 */
static void
create_partitioned_queue_table(const QueueName *name, const PartitionedQueue *queue, QueueState state)
{
	const char *table = name_table(name, QUEUE_TABLE);
	bool		exists = OidIsValid(queue_relid(name, QUEUE_TABLE));

	if (!queue->set.by_time)
		run_ddl("CREATE TABLE IF NOT EXISTS %s ("
				"msg_id bigint GENERATED BY DEFAULT AS IDENTITY,"
				TABLE_COLUMNS("") ", CONSTRAINT %s PRIMARY KEY (msg_id)"
				") PARTITION BY RANGE (msg_id)",
				table, name_object(name, "q_", "_part_idx"));
	else
		run_ddl("CREATE TABLE IF NOT EXISTS %s ("
				"msg_id bigint GENERATED BY DEFAULT AS IDENTITY,"
				TABLE_COLUMNS("") ", CONSTRAINT %s PRIMARY KEY (msg_id, enqueued_at)"
				") PARTITION BY RANGE (enqueued_at)",
				table, name_object(name, "q_", "_msg_id_idx"));
	require_table(name, QUEUE_TABLE, state);
	if (state == STATE_NEW || !exists)
		require_own_sequence(name);
}

/* The archive of such a queue, partitioned by msg_id or by archived_at */
static void
create_partitioned_archive_table(const QueueName *name, const PartitionedQueue *queue, QueueState state)
{
	run_ddl("CREATE TABLE IF NOT EXISTS %s ("
			"msg_id bigint,"
			TABLE_COLUMNS(" archived_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),")
			", CONSTRAINT %s PRIMARY KEY (msg_id%s)) PARTITION BY RANGE (%s)",
			name_table(name, ARCHIVE_TABLE),
			name_object(name, "a_", "_msg_id_idx"),
			queue->set.by_time ? ", archived_at" : "",
			queue->set.by_time ? "archived_at" : "msg_id");
	require_table(name, ARCHIVE_TABLE, state);
}

/* Make an index if it is missing; partitioned queues of the PL/pgSQL extension lack some */
static void
create_queue_index(const QueueName *name, const char *suffix, const char *definition)
{
	require_own_queue_index(name, suffix);
	if (!OidIsValid(queue_index_relid(name, QUEUE_TABLE, suffix)))
		run_ddl("CREATE INDEX %s ON %s %s", name_object(name, "q_", suffix),
				name_table(name, QUEUE_TABLE), definition);
}

/*
 * pg_partman would use any relation that has the name of the default partition
 * as the default partition.
 */
void
require_no_default(const QueueName *name, char prefix)
{
	const char *relname = psprintf("%c_%s_default", prefix, name->canonical);

	if (OidIsValid(get_relname_relid(relname, get_namespace_oid(PGMQ_SCHEMA, false))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" exists and belongs to another queue", relname),
				 errhint("Choose another name for the queue.")));
}

static bool
has_partitions(const QueueName *name, char prefix)
{
	PartSet    *set = partset_get(queue_relid(name, prefix));

	return set != NULL && (set->count > 0 || OidIsValid(set->default_relid));
}

/*
 * The table has partitions but no record: pg_partman was dropped and installed
 * anew after the partitions had been made.
 */
static void
require_no_partitions(const QueueName *name, char prefix)
{
	if (has_partitions(name, prefix))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_partman has no record of %s, which has partitions", name_table(name, prefix)),
				 errdetail("Such records are lost when pg_partman is dropped."),
				 errhint("Restore its row in part_config, or move the messages to a new queue.")));
}

/* Make the partitions of a table and its record in pg_partman, unless both exist */
static void
partition_table(const Partman *pm, const QueueName *name, char prefix,
				const PartitionedQueue *queue, const char *retention)
{
	PartmanSet	set = queue->set;

	if (!queue_is_partitioned(name, prefix))
		return;
	/* A record of a table without partitions is left over from another table */
	if (partman_knows(pm, name, prefix) && has_partitions(name, prefix))
		return;
	require_no_partitions(name, prefix);
	partman_check_name(pm, name, &set);
	require_no_default(name, prefix);
	set.control = !set.by_time ? "msg_id" :
		prefix == QUEUE_TABLE ? "enqueued_at" : "archived_at";
	set.retention = retention;
	set.start = NULL;
	partmake_first(pm, name, prefix, &set);
}

/* While a queue has no table, any role that may create queues may write its row */
#define OVERWRITE \
	"(queue_name) DO UPDATE SET retention_interval = EXCLUDED.retention_interval," \
	" drop_unread = EXCLUDED.drop_unread, drop_consumed = EXCLUDED.drop_consumed," \
	" converted_archive = NULL"

/*
 * Record the owner's settings for a queue's partitions; the first ones stay.  A
 * queue of the PL/pgSQL extension has its retention in pg_partman, which would
 * drop unread messages: so it moves to our record.
 */
static void
register_partitioned(const Partman *pm, const QueueName *name, const PartitionedQueue *queue)
{
	PartmanConfig config;
	bool		takes_over = pm != NULL && !queue->drop_unread &&
		partman_config(pm, name, QUEUE_TABLE, &config) && config.retention != NULL;
	const char *args[] = {name->canonical, takes_over ? config.retention : queue->retention,
	queue->drop_unread ? "true" : "false", queue->drop_consumed ? "true" : "false"};

	if (queue_write_row(OWN_PARTITION_CONFIG, name, ACL_NO_RIGHTS,
						psprintf("INSERT INTO pgmq.partition_config"
								 " (queue_name, retention_interval, drop_unread, drop_consumed)"
								 " VALUES ($1, $2, $3::boolean, $4::boolean) ON CONFLICT %s",
								 queue->is_new ? OVERWRITE : "DO NOTHING"),
						lengthof(args), args) > 0 && takes_over)
		partman_set_retention(pm, name, QUEUE_TABLE, NULL);
}

/*
 * The same for a queue of the PL/pgSQL extension without a call of
 * create_partitioned().  The caller has connected to SPI and holds lock_queue().
 */
void
queue_take_over_retention(const QueueName *name)
{
	PartitionedQueue queue = {.retention = NULL};
	Partman		pm;

	register_partitioned(partman_find(&pm) ? &pm : NULL, name, &queue);
}

/* Whether the existing queue is partitioned by time; false if it is not partitioned at all */
static bool
is_by_time(const QueueName *name)
{
	const char *table = name_table(name, QUEUE_TABLE);

	return run_with_texts("SELECT FROM pg_catalog.pg_partitioned_table AS p"
						  " JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) p.partrelid"
						  " AND a.attnum OPERATOR(pg_catalog.=) p.partattrs[0]"
						  " WHERE p.partrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						  " AND a.attname OPERATOR(pg_catalog.<>) 'msg_id'", 1, &table) > 0;
}

static void
create_partitioned_tables(const Partman *pm, const QueueName *name, const char *spelling,
						  const PartitionedQueue *queue, QueueState state)
{
	create_partitioned_queue_table(name, queue, state);
	create_partitioned_archive_table(name, queue, state);
	queue_add_columns(name);
	if (queue_is_partitioned(name, QUEUE_TABLE))
	{
		bool		by_time = is_by_time(name);

		create_queue_index(name, "_part_idx", by_time ? "(enqueued_at)" : "(msg_id)");
		if (by_time)
			create_queue_index(name, "_msg_id_idx", "(msg_id)");
	}
	create_indexes(name, spelling, state);
	partition_table(pm, name, QUEUE_TABLE, queue, queue->drop_unread ? queue->retention : NULL);
	partition_table(pm, name, ARCHIVE_TABLE, queue, queue->retention);
}

/* The arguments of create_partitioned(), checked; the caller has connected to SPI */
static void
partitioned_from_args(FunctionCallInfo fcinfo, PartitionedQueue *queue)
{
	if (PG_ARGISNULL(3) || PG_GETARG_INT32(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("premake must be at least 1, got %s",
						PG_ARGISNULL(3) ? "<NULL>" : psprintf("%d", PG_GETARG_INT32(3)))));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("partition_interval must not be NULL")));
	queue->drop_unread = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	queue->drop_consumed = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	partman_wanted(fcinfo, &queue->set, &queue->retention);
}

/*
 * pgmq.create_partitioned(queue_name text, partition_interval text,
 *	 retention_interval text, premake integer, drop_unread boolean,
 *	 drop_consumed boolean) -> void
 *
 * For a queue that exists it makes what is missing, and changes nothing.
 */
Datum
pgmq_create_partitioned(PG_FUNCTION_ARGS)
{
	QueueName	name;
	QueueState	state;
	char	   *spelling = begin_create(fcinfo, &name, &state);
	Partman		pm;
	PartitionedQueue queue;
	int			nest;

	partman_require(&pm);
	partitioned_from_args(fcinfo, &queue);
	queue.is_new = !OidIsValid(queue_relid(&name, QUEUE_TABLE)) &&
		!OidIsValid(queue_relid(&name, ARCHIVE_TABLE));
	notice_others(&name, QUEUE_PARTITIONED);
	nest = begin_partitioned_ddl();
	create_partitioned_tables(&pm, &name, spelling, &queue, state);
	AtEOXact_GUC(false, nest);
	register_queue(&name, spelling);
	if (queue_is_partitioned(&name, QUEUE_TABLE))
		register_partitioned(&pm, &name, &queue);
	SPI_finish();
	PG_RETURN_VOID();
}
