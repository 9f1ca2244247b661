/*
 * keys.c
 *	  The table with the keys that were sent to a queue: pgmq.k_<queue>.
 *
 * send_unique() keeps a key there as long as it is taken (unique.c).  The table is made
 * when it is needed first.  It belongs to the owner of the queue, is unlogged if the
 * queue is, is dumped as the queue is, and goes with it.  No role needs a privilege on it.
 *
 * A table counts as one of keys for what it is, not for its name: an ordinary table with
 * these columns, of the queue's owner.  What create() finds when it makes the queue is
 * left over from another queue of the same name, whose ids meant other messages.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "policy/values.h"

#define KEY_COLUMNS 3
#define KEY_INDEXES 1

/* Whether it is a table of keys, and not a user's table with that name */
static bool
holds_keys(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	return relcheck_is_heap(rel) &&
		relcheck_column(desc, "dedup_key", TEXTOID) == 1 &&
		relcheck_column(desc, "msg_id", INT8OID) == 2 &&
		relcheck_column(desc, "expires_at", TIMESTAMPTZOID) == 3;
}

/* Whether there is a table of keys that the current user may drop */
bool
keys_exist(const QueueName *name)
{
	Oid			relid = queue_relid(name, KEYS_TABLE);
	Relation	rel = OidIsValid(relid) && rights_owns(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	bool		exist = rel != NULL && holds_keys(rel);

	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	return exist;
}

static void
refuse(const QueueName *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("%s cannot hold the keys of queue \"%s\"", name_table(name, KEYS_TABLE), name->canonical),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Lock the table as a writer does, until the transaction ends; false if there is none.
 * The queue is locked.
 */
bool
keys_lock(const QueueName *name, KeysTable *keys)
{
	Relation	rel = queue_open_table(name, KEYS_TABLE, RowExclusiveLock, NULL);

	if (rel == NULL)
		return false;
	if (!holds_keys(rel))
		refuse(name, "It is not the table that send_unique() makes.", "Rename it.");
	if (rel->rd_rel->relowner != owner_of(queue_relid(name, QUEUE_TABLE)))
		refuse(name, "It does not belong to the owner of the queue.",
			   "If you have given the queue to another role, give this table to it as well. Otherwise drop it.");
	keys->relid = RelationGetRelid(rel);
	keys->owner = rel->rd_rel->relowner;
	keys->has_code = owner_has_code(rel, KEY_COLUMNS, KEY_INDEXES);
	relation_close(rel, NoLock);
	return true;
}

/* Its own code, and the planner's, must not run in the caller's search path */
void
keys_begin(const KeysTable *keys, OwnerScope *scope)
{
	if (keys->has_code)
		owner_begin(keys->owner, scope);
	else
		owner_begin_bare(keys->owner, scope);
}

static void
require_create(const QueueName *name, Oid owner)
{
	if (object_aclcheck(NamespaceRelationId, get_namespace_oid(PGMQ_SCHEMA, false), owner, ACL_CREATE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of queue \"%s\" may not make a table for keys", name->canonical),
				 errhint("Grant CREATE on schema " PGMQ_SCHEMA " to role \"%s\".", GetUserNameFromId(owner, false))));
}

/*
 * Make the table if there is none of that name.  The caller holds lock_queue(), and has
 * connected to SPI.  The index has a name that no queue's tables can have.
 */
void
keys_make(const QueueName *name)
{
	Oid			queue = queue_relid(name, QUEUE_TABLE);
	Oid			owner = owner_of(queue);
	OwnerScope	scope;
	KeysTable	existing;

	if (keys_lock(name, &existing))
		return;
	require_create(name, owner);
	owner_begin(owner, &scope);
	run_ddl("CREATE %sTABLE %s ("
			"dedup_key pg_catalog.text COLLATE pg_catalog.\"C\" CONSTRAINT %s PRIMARY KEY,"
			" msg_id bigint, expires_at timestamp with time zone) USING heap WITH (fillfactor = 90)",
			get_rel_persistence(queue) == RELPERSISTENCE_UNLOGGED ? "UNLOGGED " : "",
			name_table(name, KEYS_TABLE), name_object(name, "dedup_key_idx_", ""));
	run_ddl("COMMENT ON TABLE %s IS 'Which keys of the queue are taken, by which message, and until when'",
			name_table(name, KEYS_TABLE));
	owner_end(&scope);
}

/* The caller owns the table, and has connected to SPI */
void
keys_drop(const QueueName *name)
{
	run_ddl("DROP TABLE %s", name_table(name, KEYS_TABLE));
}

/* What may be set may be given */
void
keys_require_window(Datum window)
{
	const PolicySetting *setting = &policy_settings[SETTING_DEDUP_WINDOW];

	if (!policy_value_is_valid(setting, window))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be %s, got: %s", setting->name, setting->allowed,
						policy_value_text(setting, window)),
				 errhint("Without a window, a key is taken until its message has left the queue.")));
}
