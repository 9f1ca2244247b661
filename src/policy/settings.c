/*
 * settings.c
 *	  The functions that users set policies with.
 *
 * Only the owner of a queue may change its policy.  The row is written as the owner of
 * pgmq.policy (queue_write_row()), so no role needs a privilege on that table.
 *
 * 1. set_policy() and reset_policy() hold lock_queue() of the queue, and of the
 *	  dead-letter queue that is set, in the order of their names.  Two calls that could
 *	  build a chain together (A to B, and B to C) have a queue in common, and so a lock.
 *	  Neither queue is dropped meanwhile.
 * 2. The queue's table is locked before the row, as by other functions that need both.
 * 3. pause_queue() and resume_queue() lock the row only: they must work while a
 *	  transaction that changes the queue is open.
 * 4. Waiting sessions look when the change is committed.
 */
#include "pgmq.h"

#include "catalog/pg_class.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "wait/wait.h"
#include "policy/limits.h"
#include "policy/policy.h"
#include "policy/values.h"

PG_FUNCTION_INFO_V1(pgmq_set_policy);
PG_FUNCTION_INFO_V1(pgmq_reset_policy);
PG_FUNCTION_INFO_V1(pgmq_list_policies);
PG_FUNCTION_INFO_V1(pgmq_pause_queue);
PG_FUNCTION_INFO_V1(pgmq_resume_queue);

/* Whose row it is */
#define IS_OF_QUEUE "identity OPERATOR(pg_catalog.=) $1"

/* ---- the row ---- */

/* The spelling of the queue; a policy refers to it */
static char *
require_spelling(const QueueName *name)
{
	char	   *spelling = registered_spelling(name);

	if (spelling == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("queue \"%s\" is not listed in pgmq.meta", name->canonical),
				 errhint("List it with pgmq.create(), which changes nothing else if its tables exist.")));
	return spelling;
}

/* A row that says nothing goes */
static void
delete_empty_row(const QueueName *name)
{
	const char *canonical = name->canonical;
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "DELETE FROM pgmq.policy WHERE " IS_OF_QUEUE " AND paused_until IS NULL");
	for (i = 0; i < POLICY_SETTINGS; i++)
		appendStringInfo(&sql, " AND %s IS NULL", policy_settings[i].name);
	queue_write_row(OWN_POLICY, name, ACL_NO_RIGHTS, sql.data, 1, &canonical);
}

/* Set columns to NULL; "columns" are assignments */
static void
clear_row(const QueueName *name, const char *assignments)
{
	const char *canonical = name->canonical;

	queue_write_row(OWN_POLICY, name, ACL_NO_RIGHTS,
					psprintf("UPDATE pgmq.policy SET %s WHERE " IS_OF_QUEUE, assignments), 1, &canonical);
	delete_empty_row(name);
}

/* ---- the dead-letter queue ---- */

static void
refuse_dead_letter_queue(const QueueName *name, const QueueName *target, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("queue \"%s\" cannot be the dead-letter queue of queue \"%s\"",
					target->canonical, name->canonical),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* Whether the queue is the dead-letter queue of another one */
static bool
is_dead_letter_queue(const QueueName *name)
{
	const char *canonical = name->canonical;

	return queue_write_row(OWN_POLICY, name, ACL_NO_RIGHTS,
						   "SELECT FROM pgmq.policy"
						   " WHERE pg_catalog.lower(dead_letter_queue) OPERATOR(pg_catalog.=) $1"
						   " LIMIT 1", 1, &canonical) > 0;
}

/* Both queues are locked */
static void
check_dead_letter_queue(const QueueName *name, const QueueName *target)
{
	Oid			relid = queue_relid(name, QUEUE_TABLE);
	Oid			target_relid;

	queue_require(target);
	target_relid = queue_relid(target, QUEUE_TABLE);
	if (memcmp(name, target, sizeof(*name)) == 0)
		refuse_dead_letter_queue(name, target, "It is the same queue.",
								 "Create another queue for dead letters.");
	if (owner_of(relid) != owner_of(target_relid))
		refuse_dead_letter_queue(name, target, "The two queues have different owners.",
								 "Messages are moved with the rights of the owner, so both need the same one.");
	if ((policy_of(target)->set & POLICY_DEAD_LETTER_QUEUE) != 0)
		refuse_dead_letter_queue(name, target, "It has a dead-letter queue itself.",
								 "Use a queue without one, or reset the setting of that queue.");
	if (is_dead_letter_queue(name))
		refuse_dead_letter_queue(name, target,
								 psprintf("Queue \"%s\" is the dead-letter queue of another queue.", name->canonical),
								 "A dead-letter queue has no dead-letter queue itself.");
	if (get_rel_persistence(target_relid) == RELPERSISTENCE_UNLOGGED &&
		get_rel_persistence(relid) != RELPERSISTENCE_UNLOGGED)
		ereport(NOTICE,
				(errmsg("dead-letter queue \"%s\" is unlogged, and queue \"%s\" is not",
						target->canonical, name->canonical),
				 errdetail("A crash of the server deletes the messages in an unlogged queue.")));
}

/* ---- set_policy, reset_policy ---- */

/* The queue, and it must be the caller's */
static void
require_queue(const QueueName *name)
{
	queue_require(name);
	queue_require_owner(name);
}

static void
lock_queues(const QueueName *name, const QueueName *target)
{
	if (target == NULL || strcmp(name->canonical, target->canonical) == 0)
		lock_queue(name);
	else if (strcmp(name->canonical, target->canonical) < 0)
	{
		lock_queue(name);
		lock_queue(target);
	}
	else
	{
		lock_queue(target);
		lock_queue(name);
	}
	require_queue(name);
}

static void
refuse_value(const PolicySetting *setting, Datum value)
{
	const char *shown = policy_value_text(setting, value);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must be %s, got: %s", setting->name, setting->allowed,
					setting->type == TEXTOID ? psprintf("\"%s\"", shown) : shown),
			 errhint("To switch a setting off, use pgmq.reset_policy().")));
}

/* Which settings have a value; all of the values are right */
static uint32
settings_given(FunctionCallInfo fcinfo)
{
	uint32		given = 0;
	int			i;

	for (i = 0; i < POLICY_SETTINGS; i++)
	{
		if (PG_ARGISNULL(i + 1))
			continue;
		if (!policy_value_is_valid(&policy_settings[i], PG_GETARG_DATUM(i + 1)))
			refuse_value(&policy_settings[i], PG_GETARG_DATUM(i + 1));
		given |= 1 << i;
	}
	return given;
}

/* Write the settings that have a value; all arguments but the first are in the order of the settings */
static void
write_settings(FunctionCallInfo fcinfo, const QueueName *name, const QueueName *target)
{
	const char *args[POLICY_SETTINGS + 1];
	int			nargs = 1;
	StringInfoData columns;
	StringInfoData values;
	StringInfoData updates;
	int			i;

	initStringInfo(&columns);
	initStringInfo(&values);
	initStringInfo(&updates);
	args[0] = require_spelling(name);
	for (i = 0; i < POLICY_SETTINGS; i++)
	{
		const PolicySetting *setting = &policy_settings[i];

		if (PG_ARGISNULL(i + 1))
			continue;
		if (i == SETTING_DEAD_LETTER_QUEUE)
			args[nargs] = require_spelling(target);
		else if (i == SETTING_PRIORITY && !PG_GETARG_BOOL(i + 1))
			args[nargs] = NULL;
		else
			args[nargs] = policy_value_text(setting, PG_GETARG_DATUM(i + 1));
		nargs++;
		appendStringInfo(&columns, ", %s", setting->name);
		appendStringInfo(&values, ", $%d::%s", nargs, format_type_be_qualified(setting->type));
		appendStringInfo(&updates, "%s%s = EXCLUDED.%s", nargs > 2 ? ", " : "", setting->name, setting->name);
	}
	queue_write_row(OWN_POLICY, name, ACL_NO_RIGHTS,
					psprintf("INSERT INTO pgmq.policy (queue_name%s) VALUES ($1%s)"
							 " ON CONFLICT ON CONSTRAINT policy_pkey DO UPDATE SET %s",
							 columns.data, values.data, updates.data), nargs, args);
}

/* pgmq.set_policy(queue_name text, ...) -> void; what is NULL stays as it is */
Datum
pgmq_set_policy(PG_FUNCTION_ARGS)
{
	QueueName	name;
	QueueName	target_name;
	QueueName  *target = NULL;
	uint32		given;
	uint32		set;

	name_from_arg(fcinfo, 0, &name);
	require_queue(&name);
	given = settings_given(fcinfo);
	if (given == 0)
		PG_RETURN_VOID();
	if ((given & POLICY_DEAD_LETTER_QUEUE) != 0)
	{
		target = &target_name;
		name_from_arg(fcinfo, SETTING_DEAD_LETTER_QUEUE + 1, target);
	}
	SPI_connect();
	lock_queues(&name, target);
	if (target != NULL)
		check_dead_letter_queue(&name, target);
	if ((given & POLICY_PRIORITY) != 0 && !PG_GETARG_BOOL(SETTING_PRIORITY + 1))
		given &= ~POLICY_PRIORITY;
	set = policy_of(&name)->set;
	policy_fit(&name, set | given);
	write_settings(fcinfo, &name, target);
	if ((given & POLICY_LIMITS) != 0)
		limits_require(&name, (given & ~set & POLICY_RATE_LIMIT) != 0);
	delete_empty_row(&name);
	effect_unknown(&name);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Which settings an array names */
static uint32
settings_of(ArrayType *array)
{
	Datum	   *names;
	bool	   *nulls;
	int			count;
	uint32		set = 0;
	int			i;
	int			j;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &count);
	for (i = 0; i < count; i++)
	{
		char	   *name = nulls[i] ? NULL : TextDatumGetCString(names[i]);

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("settings must not contain nulls")));
		for (j = 0; j < POLICY_SETTINGS && strcmp(policy_settings[j].name, name) != 0; j++)
			;
		if (j == POLICY_SETTINGS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there is no setting \"%s\"", name),
					 errhint("The settings are the arguments of pgmq.set_policy(). pgmq.resume_queue() ends a pause.")));
		set |= 1 << j;
	}
	return set;
}

/* pgmq.reset_policy(queue_name text, settings text[]) -> void; NULL: all settings */
Datum
pgmq_reset_policy(PG_FUNCTION_ARGS)
{
	QueueName	name;
	uint32		reset = (1 << POLICY_SETTINGS) - 1;
	StringInfoData assignments;
	int			i;

	name_from_arg(fcinfo, 0, &name);
	require_queue(&name);
	if (!PG_ARGISNULL(1))
		reset = settings_of(PG_GETARG_ARRAYTYPE_P(1));
	if (reset == 0)
		PG_RETURN_VOID();
	SPI_connect();
	lock_queues(&name, NULL);
	initStringInfo(&assignments);
	for (i = 0; i < POLICY_SETTINGS; i++)
	{
		if ((reset & (1 << i)) != 0)
			appendStringInfo(&assignments, "%s%s = NULL", assignments.len > 0 ? ", " : "", policy_settings[i].name);
	}
	policy_unfit(&name, policy_of(&name)->set & ~reset);
	clear_row(&name, assignments.data);
	effect_unknown(&name);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- list_policies ---- */

/* pgmq.list_policies() -> TABLE (queue_name text, ..., paused_until timestamp with time zone) */
Datum
pgmq_list_policies(PG_FUNCTION_ARGS)
{
	static const OwnKey by_name[] = {{0, DEFAULT_COLLATION_OID, false}};
	const char *columns[POLICY_SETTINGS + 2];
	OwnRow	   *rows;
	uint64		count;
	int			i;

	columns[0] = "queue_name";
	for (i = 0; i < POLICY_SETTINGS; i++)
		columns[i + 1] = policy_settings[i].name;
	columns[POLICY_SETTINGS + 1] = "paused_until";
	InitMaterializedSRF(fcinfo, 0);
	count = ownread(OWN_POLICY, VIEW_OF_CALLER, columns, lengthof(columns), &rows);
	ownread_sort(rows, count, by_name, lengthof(by_name));
	ownread_put(fcinfo, rows, count);
	return (Datum) 0;
}

/* ---- pause_queue, resume_queue ---- */

/* pgmq.pause_queue(queue_name text, until timestamp with time zone) -> void */
Datum
pgmq_pause_queue(PG_FUNCTION_ARGS)
{
	QueueName	name;
	const char *args[2];

	name_from_arg(fcinfo, 0, &name);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("until must not be NULL"),
				 errhint("To end a pause, use pgmq.resume_queue().")));
	require_queue(&name);
	SPI_connect();
	args[0] = require_spelling(&name);
	args[1] = pstrdup(timestamptz_to_str(PG_GETARG_TIMESTAMPTZ(1)));
	queue_write_row(OWN_POLICY, &name, ACL_NO_RIGHTS,
					"INSERT INTO pgmq.policy (queue_name, paused_until) VALUES ($1, $2::pg_catalog.timestamptz)"
					" ON CONFLICT ON CONSTRAINT policy_pkey DO UPDATE SET paused_until = EXCLUDED.paused_until",
					lengthof(args), args);
	effect_unknown(&name);
	SPI_finish();
	PG_RETURN_VOID();
}

/* pgmq.resume_queue(queue_name text) -> void */
Datum
pgmq_resume_queue(PG_FUNCTION_ARGS)
{
	QueueName	name;

	name_from_arg(fcinfo, 0, &name);
	require_queue(&name);
	SPI_connect();
	clear_row(&name, "paused_until = NULL");
	effect_unknown(&name);
	SPI_finish();
	PG_RETURN_VOID();
}
