/*
 * retention.c
 *	  When partitions go.
 *
 * A partition of a queue that is past its retention is dropped when it is
 * empty.  With drop_unread it is dropped with its messages, too.  The owner can
 * also have consumed partitions dropped at once (drop_consumed).  Then the size
 * on disk is that of the partitions with unconsumed messages and of the current one,
 * whatever keeps vacuum from working.
 *
 * No message is lost.  A sender locks the queue's table before it draws an id,
 * then the partition, and holds these locks until its transaction ends.  A
 * reader or a deleter holds such locks on the partitions that it touches.
 * Before a drop the partition is examined again under locks that conflict with
 * those, by a snapshot taken then.  A partition that is empty in this snapshot
 * is empty, and stays empty until it is dropped.  Only a sender that gives ids
 * by hand can write an id of a dropped partition; such a message goes to the
 * default partition.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "group/group.h"
#include "admin/admin.h"
#include "upkeep/maintain.h"

PG_FUNCTION_INFO_V1(pgmq_list_partitions);
PG_FUNCTION_INFO_V1(pgmq_set_retention);

/* Any role may own the table and have code in it: none of that runs, and NULLs are checked for */
static bool
find_config_row(const QueueName *name, OwnRow *row)
{
	static const char *const columns[] = {"retention_interval", "drop_unread", "drop_consumed", "converted_archive"};
	static const Oid types[] = {TEXTOID, BOOLOID, BOOLOID, TEXTOID};

	return ownread_find(relcheck_own_table(OWN_PARTITION_CONFIG, AccessShareLock), VIEW_OF_STATEMENT,
						"queue_name", VARCHAROID, name->canonical, columns, types, lengthof(columns), row);
}

static bool
is_true(const OwnRow *row, int column)
{
	return !row->nulls[column] && DatumGetBool(row->values[column]);
}

/* What the owner wants for the table; the caller has set the rest of upkeep */
static void
read_retention(Upkeep *upkeep)
{
	bool		archive = upkeep->prefix == ARCHIVE_TABLE;
	OwnRow		row;

	upkeep->retention = NULL;
	upkeep->drop_unread = archive;
	upkeep->drop_consumed = false;
	upkeep->converted = NULL;
	if (find_config_row(upkeep->name, &row))
	{
		upkeep->retention = ownread_text(&row, 0);
		upkeep->drop_unread = archive || is_true(&row, 1);
		upkeep->drop_consumed = !archive && is_true(&row, 2);
		upkeep->converted = archive ? ownread_text(&row, 3) : NULL;
	}
	/* A queue of the PL/pgSQL extension has its retention in pg_partman only */
	else if (upkeep->pm != NULL && upkeep->config.retention != NULL)
	{
		upkeep->retention = upkeep->config.retention;
		upkeep->drop_unread = true;
	}
}

/* False if the table is not partitioned; the caller has connected to SPI */
bool
upkeep_begin(Upkeep *upkeep, const QueueName *name, char prefix, const Partman *pm)
{
	upkeep->name = name;
	upkeep->prefix = prefix;
	if (prefix == STREAM_TABLE)
		return streamparts_begin(upkeep);
	upkeep->set = partset_get(queue_relid(name, prefix));
	if (upkeep->set == NULL)
		return false;
	upkeep->pm = pm != NULL && partman_config(pm, name, prefix, &upkeep->config) ? pm : NULL;
	upkeep->can_make = upkeep->pm != NULL;
	if (upkeep->can_make)
		partset_step(upkeep->set->by_time, "partition_interval", upkeep->config.interval, false, &upkeep->step);
	read_retention(upkeep);
	return true;
}

/* Partitions that end there or before are past their retention */
static int64
retention_limit(const Upkeep *upkeep, int64 current)
{
	int			nest = NewGUCNestLevel();
	PartStep	step;
	int64		limit = PG_INT64_MIN;

	partmake_settings();
	if (upkeep->retention != NULL)
	{
		partset_step(upkeep->set->by_time, "retention_interval", upkeep->retention, true, &step);
		limit = partset_add(&step, current, -1);
	}
	AtEOXact_GUC(false, nest);
	return limit;
}

static bool
is_empty(const char *partition)
{
	return run_with_texts(psprintf("SELECT FROM ONLY %s LIMIT 1", partition), 0, NULL) == 0;
}

/*
 * A group whose first message is dropped with a partition must not wait until
 * that message would have become visible.  No session has a note locked,
 * because it would hold a lock on the queue's table as well.
 */
#define LOOK_AT_GROUPS \
	"UPDATE %s SET vt = GREATEST(pg_catalog.clock_timestamp()," \
	" enqueued_at OPERATOR(pg_catalog.+) '1 microsecond'::pg_catalog.interval)" \
	" WHERE vt OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() AND msg_id OPERATOR(pg_catalog.<>) 0" \
	" AND head OPERATOR(pg_catalog.<=) (SELECT pg_catalog.max(msg_id) FROM ONLY %s)"

static void
look_at_groups(const QueueName *name, const char *partition)
{
	if (!group_has_notes(name))
		return;
	run_with_texts(psprintf(LOOK_AT_GROUPS, name_table(name, NOTES_TABLE), partition), 0, NULL);
	effect_messages(name, PG_INT32_MAX);
}

/* Drop a partition, unless a message was written to it that must not be dropped */
static void
drop_partition(const Upkeep *upkeep, const char *partition, bool with_messages)
{
	upkeep_lock(upkeep->set->parent, "ACCESS EXCLUSIVE");
	upkeep_lock(partition, "ACCESS EXCLUSIVE");
	if (!with_messages && !is_empty(partition))
		return;
	if (with_messages && upkeep->prefix == QUEUE_TABLE)
		look_at_groups(upkeep->name, partition);
	run_ddl("DROP TABLE %s", partition);
}

/*
 * True if the partition was dropped.  None is truncated: a dump whose snapshot is older, and that has not locked
 * the partition yet, would find no message in it.  If it was dropped, the dump fails.
 */
static bool
retire_partition(const Upkeep *upkeep, const Partition *partition, int64 current, int64 limit)
{
	const char *name = partset_relation(partition->relid);
	bool		past = partition->upper <= limit;
	bool		over = partition->upper <= current;
	bool		with_messages = past && upkeep->drop_unread;

	if (name == NULL || !(past || (over && upkeep->drop_consumed)) || !(with_messages || is_empty(name)))
		return false;
	drop_partition(upkeep, name, with_messages);
	return true;
}

/* Drop the next partition that is due, one in a transaction */
bool
retention_step(Upkeep *upkeep)
{
	int64		current;
	int64		limit;
	int			i;

	if (upkeep->retention == NULL && !upkeep->drop_consumed)
		return false;
	current = upkeep_current(upkeep);
	limit = retention_limit(upkeep, current);
	for (i = 0; i < upkeep->set->count; i++)
	{
		const Partition *partition = &upkeep->set->partitions[i];

		if (partition->lower < *upkeep->position)
			continue;
		*upkeep->position = partition->lower + 1;
		if (retire_partition(upkeep, partition, current, limit))
			return true;
	}
	return false;
}

/* ---- for people ---- */

#define LIST_COLUMNS 8

/* NULL of a partition that was dropped a moment ago */
static Datum
total_size(Oid relid, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		size;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(relid);
	fcinfo->args[0].isnull = false;
	size = pg_total_relation_size(fcinfo);
	*isnull = fcinfo->isnull;
	return size;
}

/*
 * One row of list_partitions(); relid of the default partition: with NULL
 * bounds.  Messages are not counted where policies apply, since policies are
 * code of the queue's owner.  NULL if the partition is gone.
 */
static HeapTuple
partition_row(const Upkeep *upkeep, const char *queue, const Partition *partition,
			  int64 limit, TupleDesc desc)
{
	const char *name;
	Relation	rel;
	bool		is_default = partition->relid == upkeep->set->default_relid;
	bool		past = !is_default && partition->upper <= limit;
	Datum		values[LIST_COLUMNS];
	bool		nulls[LIST_COLUMNS] = {false};
	Counts		counts;

	rights_require_select(partition->relid, NULL, 0);
	if ((rel = try_relation_open(partition->relid, AccessShareLock)) == NULL)
		return NULL;
	name = partset_relation(partition->relid);
	nulls[4] = count_policed(partition->relid);
	if (!nulls[4])
		(void) count_messages(partition->relid, false, &counts);
	values[0] = CStringGetTextDatum(queue);
	values[1] = CStringGetTextDatum(name);
	nulls[2] = nulls[3] = is_default;
	values[2] = is_default ? (Datum) 0 : CStringGetTextDatum(partset_key_text(upkeep->set, partition->lower));
	values[3] = is_default ? (Datum) 0 : CStringGetTextDatum(partset_key_text(upkeep->set, partition->upper));
	values[4] = nulls[4] ? (Datum) 0 : Int64GetDatum(counts.messages);
	values[5] = total_size(partition->relid, &nulls[5]);
	if (nulls[5])
		return NULL;
	values[6] = BoolGetDatum(past);
	nulls[7] = nulls[4];
	values[7] = nulls[7] ? (Datum) 0 : BoolGetDatum(past && counts.messages > 0 && !upkeep->drop_unread);
	relation_close(rel, AccessShareLock);
	return heap_form_tuple(desc, values, nulls);
}

/*
 * Lock a queue's table before its partitions are listed.  So no partition comes
 * meanwhile, with rows of another one.  A refused caller does not wait.  False if the
 * table is gone.
 */
static bool
lock_queue_table(const QueueName *name)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	Relation	rel;

	rights_require_select(relid, NULL, 0);
	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	if (rel == NULL)
		return false;
	relation_close(rel, NoLock);
	return queue_relid(name, QUEUE_TABLE) == relid;
}

/* All rows of a queue or none: an error must not leave a part of them */
static void
list_partitions(const ListedQueue *queue, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	Partman		pm;
	Upkeep		upkeep = {0};
	List	   *rows = NIL;
	ListCell   *lc;
	int64		limit;
	int			i;

	if (!lock_queue_table(&queue->name))
		return;
	SPI_connect();
	if (upkeep_begin(&upkeep, &queue->name, QUEUE_TABLE, partman_find(&pm) ? &pm : NULL))
	{
		limit = retention_limit(&upkeep, upkeep_current(&upkeep));
		for (i = 0; i < upkeep.set->count; i++)
			rows = lappend(rows, partition_row(&upkeep, queue->spelling, &upkeep.set->partitions[i],
											   limit, rsinfo->setDesc));
		if (OidIsValid(upkeep.set->default_relid))
		{
			Partition	fallback = {upkeep.set->default_relid, 0, 0};

			rows = lappend(rows, partition_row(&upkeep, queue->spelling, &fallback, limit, rsinfo->setDesc));
		}
	}
	foreach(lc, rows)
	{
		if (lfirst(lc) != NULL)
			tuplestore_puttuple(rsinfo->setResult, lfirst(lc));
	}
	SPI_finish();
}

/* Waits for locks of all queues together, in milliseconds */
#define LOCK_BUDGET_MS 1000

/*
 * pgmq.list_partitions(queue_name text) -> TABLE (queue text, partition text,
 *	 lower_bound text, upper_bound text, messages bigint, bytes bigint,
 *	 past_retention boolean, held_back boolean)
 */
Datum
pgmq_list_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QueueName	name;
	ListedQueue *queues;
	int			count;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(0))
	{
		name_from_arg(fcinfo, 0, &name);
		queue_require(&name);
	}
	count = queues_list(&queues);
	if (PG_ARGISNULL(0))
		queues_visit(queues, count, LOCK_BUDGET_MS, false, list_partitions, rsinfo);
	else
	{
		for (i = 0; i < count; i++)
		{
			if (memcmp(&queues[i].name, &name, sizeof(name)) == 0)
				list_partitions(&queues[i], rsinfo);
		}
	}
	return (Datum) 0;
}

static bool
bool_arg(FunctionCallInfo fcinfo, int argno)
{
	return !PG_ARGISNULL(argno) && PG_GETARG_BOOL(argno);
}

/* Refuse a retention that cannot be subtracted from a time */
static void
check_retention(const Upkeep *upkeep, const char *retention)
{
	PartStep	step;

	partset_step(upkeep->set->by_time, "retention_interval", retention, true, &step);
}

#define SET_RETENTION_SQL \
	"INSERT INTO pgmq.partition_config (queue_name, retention_interval, drop_unread, drop_consumed)" \
	" VALUES ($1, $2, $3::boolean, $4::boolean)" \
	" ON CONFLICT (queue_name) DO UPDATE SET retention_interval = EXCLUDED.retention_interval," \
	" drop_unread = EXCLUDED.drop_unread, drop_consumed = EXCLUDED.drop_consumed"

/*
 * pgmq.set_retention(queue_name text, retention_interval text,
 *	 drop_unread boolean, drop_consumed boolean) -> void
 */
Datum
pgmq_set_retention(PG_FUNCTION_ARGS)
{
	QueueName	name;
	char	   *retention = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		drop_unread = bool_arg(fcinfo, 2);
	const char *args[4];
	Partman		pm;
	Upkeep		upkeep = {0};
	bool		partitioned = false;
	static const char prefixes[] = {QUEUE_TABLE, ARCHIVE_TABLE};
	int			i;

	name_from_arg(fcinfo, 0, &name);
	queue_require(&name);
	queue_require_owner(&name);
	SPI_connect();
	lock_queue(&name);
	queue_require_owner(&name);
	partman_require(&pm);
	for (i = 0; i < lengthof(prefixes); i++)
	{
		if (!upkeep_begin(&upkeep, &name, prefixes[i], &pm))
			continue;
		partitioned = true;
		if (retention)
			check_retention(&upkeep, retention);
		partman_set_retention(&pm, &name, prefixes[i],
							  prefixes[i] == ARCHIVE_TABLE || drop_unread ? retention : NULL);
	}
	if (!partitioned)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("queue \"%s\" is not partitioned", name.canonical)));
	args[0] = name.canonical;
	args[1] = retention;
	args[2] = drop_unread ? "true" : "false";
	args[3] = bool_arg(fcinfo, 3) ? "true" : "false";
	queue_write_row(OWN_PARTITION_CONFIG, &name, ACL_NO_RIGHTS, SET_RETENTION_SQL, lengthof(args), args);
	SPI_finish();
	PG_RETURN_VOID();
}
