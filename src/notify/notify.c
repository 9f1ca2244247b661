/*
 * notify.c
 *	  LISTEN and NOTIFY: the trigger on a queue's table, and its settings.
 *
 * The trigger fires once for each statement that inserts, and requests an
 * announcement of the queue (announce.c).  Triggers that the PL/pgSQL extension
 * has made fire for each row, have the queue's name or nothing as their
 * argument, and may sit on partitions.  They call the same function.
 *
 * The interval is in pgmq.notify_insert_throttle, which survives a crash.
 * Senders only read it, without privileges and without SPI, and keep what they
 * read.  A trigger on that table invalidates this in all sessions, after any
 * write: by our functions, a cascade from pgmq.meta, a restore or a user.  (If
 * the interval were an argument of the trigger, changing it would need a lock
 * on the queue's table that waits for all senders.)  Sending messages writes
 * nothing there; last_notified_at is in shared memory.
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation_d.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "notify/notify.h"
#include "notify/announce.h"

PG_FUNCTION_INFO_V1(pgmq_enable_notify_insert);
PG_FUNCTION_INFO_V1(pgmq_disable_notify_insert);
PG_FUNCTION_INFO_V1(pgmq_update_notify_insert);
PG_FUNCTION_INFO_V1(pgmq_list_notify_insert_throttles);
PG_FUNCTION_INFO_V1(pgmq_notify_queue_listeners);
PG_FUNCTION_INFO_V1(pgmq__notify_settings_changed);

#define TRIGGER_NAME "trigger_notify_queue_insert_listeners"

/* For a trigger without a setting; a crash under the PL/pgSQL extension leaves one */
#define DEFAULT_INTERVAL_MS 250

/*
 * "pgmq.q_<queue>.INSERT", with the name as it was created.  False if that is
 * too long, as a name from the PL/pgSQL extension can be.
 */
static bool
fits_channel(const char *queue_name, const char *operation, Channel *channel)
{
	memset(channel, 0, sizeof(*channel));
	return snprintf(channel->name, sizeof(channel->name), PGMQ_SCHEMA ".q_%s.%s",
					queue_name, operation) < sizeof(channel->name);
}

static void
make_channel(const char *queue_name, const char *operation, Channel *channel)
{
	if (!fits_channel(queue_name, operation, channel))
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("queue name \"%s\" is too long for notifications", queue_name)));
}

/* ---- the settings, as senders see them ---- */

typedef struct Setting
{
	char		queue_name[NAMEDATALEN];	/* hash key, must be first */
	int			interval_ms;
} Setting;

/* The settings of so many queues are kept; then all are dropped. */
#define MAX_SETTINGS 1024

static HTAB *Settings = NULL;
static Oid	SettingsRelid = InvalidOid;
static uint64 SettingsChanges = 0;	/* of the table, before it was read; 0: they are not known */

/* This transaction has read some, perhaps its own that will never be committed */
static bool SettingsRead = false;

/*
 * The transaction, or a part of it, was rolled back (xact.c).  The server
 * repeats the invalidations of what it has changed.  But a trigger may have
 * read a change before its invalidation was registered.  Nothing here can fail.
 */
void
notify_rolled_back(void)
{
	if (SettingsRead)
		SettingsChanges = 0;
}

/* The transaction is over (xact.c) */
void
notify_forget(void)
{
	SettingsRead = false;
}

/* Make the hash table of settings empty, and remember which table to read them from */
static void
begin_settings(void)
{
	if (Settings != NULL)
		hash_destroy(Settings);
	Settings = NULL;
	SettingsChanges = 0;
	Settings = hash_in_context("pgmq notify settings", 16, NAMEDATALEN, sizeof(Setting), TopMemoryContext);
	SettingsRelid = relcheck_own_table(OWN_NOTIFY_SETTINGS, AccessShareLock);
	UnlockRelationOid(SettingsRelid, AccessShareLock);
	/* Before the table is read: a change from here on counts */
	SettingsChanges = changes_of_relation(SettingsRelid);
}

/*
 * A sender needs no privilege on the table.  The lock is released at once; it
 * conflicts only with commands that rebuild the table.
 */
static int
read_setting(const char *queue_name)
{
	static const char *const columns[] = {"throttle_interval_ms"};
	static const Oid types[] = {INT4OID};
	Oid			relid = relcheck_own_table(OWN_NOTIFY_SETTINGS, AccessShareLock);
	OwnRow		row;
	bool		found = ownread_find(relid, VIEW_OF_LATEST, "queue_name", VARCHAROID, queue_name,
									 columns, types, lengthof(columns), &row);

	UnlockRelationOid(relid, AccessShareLock);
	return found && !row.nulls[0] ? Max(DatumGetInt32(row.values[0]), 0) : DEFAULT_INTERVAL_MS;
}

static int
interval_of(const char *queue_name)
{
	char		key[NAMEDATALEN] = {0};
	Setting    *setting;
	int			interval_ms;
	bool		good;

	strlcpy(key, queue_name, sizeof(key));

	/* A transaction that goes on sending takes no new lock, which would accept them. */
	AcceptInvalidationMessages();
	good = Settings != NULL && SettingsChanges == changes_of_relation(SettingsRelid);
	if (good)
	{
		setting = hash_search(Settings, key, HASH_FIND, NULL);
		if (setting != NULL)
			return setting->interval_ms;
	}
	if (!good || hash_get_num_entries(Settings) >= MAX_SETTINGS)
		begin_settings();
	SettingsRead = true;
	interval_ms = read_setting(key);
	setting = hash_search(Settings, key, HASH_ENTER, NULL);
	setting->interval_ms = interval_ms;
	return interval_ms;
}

/*
 * pgmq._notify_settings_changed() -> trigger
 *
 * On the table of settings, for each row that is written and for TRUNCATE, under
 * session_replication_role = replica too.
 */
Datum
pgmq__notify_settings_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("trigger functions can only be called as triggers")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	PG_RETURN_POINTER(NULL);
}

/* ---- the trigger ---- */

/* Whether this is the table of the queue that a trigger names as its argument */
static bool
is_queue(Oid relid, const char *queue_name)
{
	QueueName	name;

	return name_try_canonical(cstring_to_text(queue_name), &name) &&
		queue_relid(&name, QUEUE_TABLE) == relid;
}

/*
 * The queue that a trigger speaks for; NULL if it does not sit on the table of
 * that queue, or on a partition of it.  Any role can use the function on a table
 * of its own, and must not use up the interval of another role's queue with it.
 */
static const char *
queue_of(const TriggerData *trigdata)
{
	Oid			relid = RelationGetRelid(trigdata->tg_relation);
	List	   *ancestors = NIL;
	const char *relname;

	if (trigdata->tg_relation->rd_rel->relispartition)
		ancestors = get_partition_ancestors(relid);
	if (ancestors != NIL)
		relid = llast_oid(ancestors);
	if (trigdata->tg_trigger->tgnargs > 0)
		return is_queue(relid, trigdata->tg_trigger->tgargs[0]) ? trigdata->tg_trigger->tgargs[0] : NULL;
	relname = get_rel_name(relid);
	if (relname == NULL || get_rel_namespace(relid) != get_namespace_oid(PGMQ_SCHEMA, true) ||
		strncmp(relname, "q_", 2) != 0)
		return NULL;
	return relname + 2;
}

/*
 * Whether this transaction has inserted a row.  A trigger for each statement
 * also fires when a statement inserts nothing.  The server counts what a
 * transaction has done to a table, unless counting is off.  (A transition table
 * would show it as well, but would copy every message.)
 */
static bool
has_inserted(const TriggerData *trigdata)
{
	Relation	rel = trigdata->tg_relation;
	PgStat_TableXactStatus *counts;

	if (!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) || TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID ||
		!rel->pgstat_enabled || !pgstat_track_counts)
		return true;
	if (rel->pgstat_info == NULL)
		return false;			/* nothing has been counted in this session */
	for (counts = rel->pgstat_info->trans; counts != NULL; counts = counts->upper)
	{
		if (counts->tuples_inserted > 0)
			return true;
	}
	return false;
}

static const char *
operation_of(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "INSERT";
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return "UPDATE";
	if (TRIGGER_FIRED_BY_DELETE(event))
		return "DELETE";
	return "TRUNCATE";
}

/* pgmq.notify_queue_listeners() -> trigger */
Datum
pgmq_notify_queue_listeners(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const char *queue_name;
	Channel		channel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("trigger functions can only be called as triggers")));
	queue_name = queue_of(trigdata);
	if (queue_name != NULL && has_inserted(trigdata))
	{
		make_channel(queue_name, operation_of(trigdata->tg_event), &channel);
		announce_at_commit(&channel, interval_of(queue_name));
	}

	/* A trigger that a user has made to fire before the row must still return the row. */
	if (TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) && TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		return PointerGetDatum(trigdata->tg_newtuple);
	return PointerGetDatum(trigdata->tg_trigtuple);
}

/* ---- enable, disable, update, list ---- */

/*
 * Whether the queue's table has the trigger, and whether it is as we make it.
 * Not by the relation cache: it may be out of date under the locks that we
 * hold.
 */
static bool
find_trigger(const QueueName *name, const char *spelling, bool *as_ours)
{
	const char *args[2];
	char	   *same;

	args[0] = name_table(name, QUEUE_TABLE);
	args[1] = spelling;
	same = run_for_text(
						"SELECT tgfoid OPERATOR(pg_catalog.=) 'pgmq.notify_queue_listeners()'::pg_catalog.regprocedure"
						" AND tgtype OPERATOR(pg_catalog.=) 4"	/* after insert, for each statement */
						" AND tgenabled OPERATOR(pg_catalog.=) ANY (ARRAY['O', 'A']::\"char\"[])"
						" AND tgqual IS NULL AND tgnewtable IS NULL"
						" AND tgargs OPERATOR(pg_catalog.=) (pg_catalog.convert_to($2, pg_catalog.getdatabaseencoding())"
						" OPERATOR(pg_catalog.||) pg_catalog.decode('00', 'hex'))"
						" FROM pg_catalog.pg_trigger"
						" WHERE tgrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
						" AND tgname OPERATOR(pg_catalog.=) '" TRIGGER_NAME "'",
						2, args);
	*as_ours = same != NULL && strcmp(same, "t") == 0;
	return same != NULL;
}

static void
notice_no_trigger(const QueueName *name)
{
	ereport(NOTICE,
			(errmsg("trigger \"" TRIGGER_NAME "\" for relation \"" PGMQ_SCHEMA ".q_%s\" does not exist, skipping",
					name->canonical)));
}

/*
 * A trigger that is as it should be stays.  So enabling again takes no lock on
 * the table.
 */
static void
ensure_trigger(const QueueName *name, const char *spelling)
{
	const char *table = name_table(name, QUEUE_TABLE);
	bool		as_ours;
	Channel		channel;

	make_channel(spelling, "INSERT", &channel);
	if (!find_trigger(name, spelling, &as_ours))
		notice_no_trigger(name);
	else if (as_ours)
		return;
	else
		run_ddl("DROP TRIGGER " TRIGGER_NAME " ON %s", table);
	run_ddl("CREATE TRIGGER " TRIGGER_NAME " AFTER INSERT ON %s"
			" FOR EACH STATEMENT EXECUTE FUNCTION pgmq.notify_queue_listeners(%s)",
			table, quote_literal_cstr(spelling));
}

/*
 * In place of a trigger for each row, which exists.  The channel stays: without an
 * argument its name is that of the table.
 */
void
notify_renew_trigger(const QueueName *name)
{
	const char *table = name_table(name, QUEUE_TABLE);
	const char *argument = run_for_text(
		"SELECT CASE WHEN tgnargs OPERATOR(pg_catalog.=) 1 THEN"
		" pg_catalog.convert_from(pg_catalog.substr(tgargs, 1, pg_catalog.octet_length(tgargs) OPERATOR(pg_catalog.-) 1),"
		" pg_catalog.getdatabaseencoding()) END"
		" FROM pg_catalog.pg_trigger"
		" WHERE tgrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass"
		" AND tgname OPERATOR(pg_catalog.=) '" TRIGGER_NAME "'", 1, &table);

	ensure_trigger(name, argument != NULL ? argument : name->canonical);
}

static void
setting_changed(const char *spelling)
{
	Channel		channel;

	make_channel(spelling, "INSERT", &channel);
	announce_forget_last(&channel);
}

/* An argument as an error message shows it */
static const char *
shown(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? "<NULL>" : text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/* An interval as text, or NULL */
static const char *
interval_arg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : psprintf("%d", PG_GETARG_INT32(argno));
}

/*
 * pgmq.enable_notify_insert(queue_name text, throttle_interval_ms integer) -> void
 *
 * Locks in the order of create and drop_queue: the queue, its table, pgmq.meta
 * (through the foreign key), the setting.
 */
Datum
pgmq_enable_notify_insert(PG_FUNCTION_ARGS)
{
	QueueName	name;
	const char *args[2];

	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("throttle_interval_ms must be non-negative")));
	SPI_connect();
	if (!PG_ARGISNULL(0))
	{
		name_from_arg(fcinfo, 0, &name);
		queue_require_owner(&name);
		lock_queue(&name);
		queue_require_owner(&name);
	}
	if (PG_ARGISNULL(0) || !OidIsValid(queue_relid(&name, QUEUE_TABLE)))
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("Queue \"%s\" does not exist. Create it first using pgmq.create()",
						shown(fcinfo, 0))));

	args[0] = registered_spelling(&name);
	if (args[0] == NULL)
		args[0] = shown(fcinfo, 0);
	args[1] = interval_arg(fcinfo, 1);
	ensure_trigger(&name, args[0]);
	queue_write_row(OWN_NOTIFY_SETTINGS, &name, ACL_NO_RIGHTS,
					"INSERT INTO pgmq.notify_insert_throttle AS t (queue_name, throttle_interval_ms)"
					" VALUES ($1, $2::pg_catalog.int4)"
					" ON CONFLICT ON CONSTRAINT notify_insert_throttle_queue_name_key DO UPDATE"
					" SET throttle_interval_ms = EXCLUDED.throttle_interval_ms,"
					" last_notified_at = pg_catalog.to_timestamp(0)",
					2, args);
	setting_changed(args[0]);
	SPI_finish();
	PG_RETURN_VOID();
}

/* pgmq.disable_notify_insert(queue_name text) -> void */
Datum
pgmq_disable_notify_insert(PG_FUNCTION_ARGS)
{
	QueueName	name;
	const char *canonical = name.canonical;
	bool		as_ours;

	name_from_arg(fcinfo, 0, &name);
	queue_require_owner(&name);
	SPI_connect();
	lock_queue(&name);
	if (!OidIsValid(queue_relid(&name, QUEUE_TABLE)))
		ereport(NOTICE,
				(errmsg("relation \"" PGMQ_SCHEMA ".q_%s\" does not exist, skipping", name.canonical)));
	else if (!find_trigger(&name, "", &as_ours))
		notice_no_trigger(&name);
	else
		run_ddl("DROP TRIGGER " TRIGGER_NAME " ON %s", name_table(&name, QUEUE_TABLE));
	queue_write_row(OWN_NOTIFY_SETTINGS, &name, OidIsValid(queue_relid(&name, QUEUE_TABLE)) ? ACL_NO_RIGHTS : ACL_DELETE,
					"DELETE FROM pgmq.notify_insert_throttle WHERE " HAS_IDENTITY, 1, &canonical);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * pgmq.update_notify_insert(queue_name text, throttle_interval_ms integer) -> void
 *
 * Locks the setting only: senders go on.
 */
Datum
pgmq_update_notify_insert(PG_FUNCTION_ARGS)
{
	QueueName	name;
	const char *args[2];
	uint64		i;

	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("throttle_interval_ms must be non-negative, got: %d", PG_GETARG_INT32(1))));
	SPI_connect();
	if (!PG_ARGISNULL(0))
	{
		name_from_arg(fcinfo, 0, &name);
		queue_require_owner(&name);
	}
	if (PG_ARGISNULL(0) || registered_spelling(&name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("Queue \"%s\" does not exist. Create the queue first using pgmq.create()",
						shown(fcinfo, 0))));
	args[0] = name.canonical;
	args[1] = interval_arg(fcinfo, 1);
	if (queue_write_row(OWN_NOTIFY_SETTINGS, &name, OidIsValid(queue_relid(&name, QUEUE_TABLE)) ? ACL_NO_RIGHTS : ACL_UPDATE,
						"UPDATE pgmq.notify_insert_throttle"
						" SET throttle_interval_ms = $2::pg_catalog.int4,"
						" last_notified_at = pg_catalog.to_timestamp(0)"
						" WHERE " HAS_IDENTITY " RETURNING queue_name", 2, args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("Queue \"%s\" does not have notify_insert enabled. Enable it first using pgmq.enable_notify_insert()",
						shown(fcinfo, 0))));
	for (i = 0; i < SPI_processed; i++)
		setting_changed(relcheck_text(i, 1, "the name of the queue in pgmq.notify_insert_throttle"));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * pgmq.list_notify_insert_throttles()
 *	-> TABLE (queue_name text, throttle_interval_ms integer, last_notified_at timestamp with time zone)
 */
Datum
pgmq_list_notify_insert_throttles(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"queue_name", "throttle_interval_ms", "last_notified_at"};
	static const OwnKey by_name[] = {{0, DEFAULT_COLLATION_OID, false}};
	OwnRow	   *rows;
	uint64		count;
	uint64		i;

	InitMaterializedSRF(fcinfo, 0);
	count = ownread(OWN_NOTIFY_SETTINGS, VIEW_OF_CALLER, columns, lengthof(columns), &rows);
	ownread_sort(rows, count, by_name, lengthof(by_name));
	for (i = 0; i < count; i++)
	{
		OwnRow	   *row = &rows[i];
		Channel		channel;
		TimestampTz last;

		if (!row->nulls[0] && fits_channel(ownread_text(row, 0), "INSERT", &channel) &&
			announce_last(&channel, &last))
		{
			if (row->nulls[2] || last > DatumGetTimestampTz(row->values[2]))
				row->values[2] = TimestampTzGetDatum(last);
			row->nulls[2] = false;
		}
	}
	ownread_put(fcinfo, rows, count);
	return (Datum) 0;
}
