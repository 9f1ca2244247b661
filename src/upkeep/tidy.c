/*
 * tidy.c
 *	  Keys that are free again are deleted from the tables of keys (unique.c).
 *
 * Nothing depends on it: a send asks whether a key is still taken.  A step looks at some
 * blocks of the table, so one call reads all of it once.
 *
 * A sender may claim a key at the moment when it is deleted.  So the row is locked first,
 * if it can be locked at once.  It is deleted only if its msg_id is still the same: a key
 * that was claimed again has another one, or none.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "upkeep/maintain.h"

/* So many blocks in a step */
#define TIDY_BLOCKS 128

/* $1, $2: blocks */
#define TIDY_SQL \
	"WITH free AS MATERIALIZED (" \
	"SELECT k.dedup_key, k.msg_id FROM {keys} AS k" \
	" WHERE k.ctid OPERATOR(pg_catalog.>=) $1::pg_catalog.tid AND k.ctid OPERATOR(pg_catalog.<) $2::pg_catalog.tid" \
	" AND k.msg_id IS NOT NULL AND CASE WHEN k.expires_at IS NOT NULL" \
	" THEN k.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()" \
	" ELSE (SELECT q.msg_id FROM {queue} AS q WHERE q.msg_id OPERATOR(pg_catalog.=) k.msg_id LIMIT 1) IS NULL END)," \
	" locked AS MATERIALIZED (" \
	"SELECT k.dedup_key FROM free AS f JOIN {keys} AS k ON k.dedup_key OPERATOR(pg_catalog.=) f.dedup_key" \
	" AND k.msg_id OPERATOR(pg_catalog.=) f.msg_id FOR UPDATE OF k SKIP LOCKED)" \
	" DELETE FROM {keys} WHERE dedup_key OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT dedup_key FROM locked))"

/* Whether the table is a queue that has a table of keys of its owner; nothing is locked */
bool
tidy_is_due(const QueueName *name, char prefix)
{
	Oid			keys = queue_relid(name, KEYS_TABLE);

	return prefix == QUEUE_TABLE && OidIsValid(keys) && get_rel_relkind(keys) == RELKIND_RELATION &&
		owner_of(keys) == owner_of(queue_relid(name, QUEUE_TABLE));
}

static BlockNumber
blocks_of(Oid relid)
{
	Relation	rel = relation_open(relid, NoLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	relation_close(rel, NoLock);
	return blocks;
}

/* The plan is to look up each key and each message, whatever the statistics say; the caller resets settings */
static void
read_by_index(void)
{
	set_option("enable_seqscan", "off");
	set_option("enable_bitmapscan", "off");
	set_option("enable_mergejoin", "off");
	set_option("enable_hashjoin", "off");
	set_option("jit", "off");
}

/* Delete free keys in some blocks; the queue is locked.  Policies must not hide messages from its owner. */
bool
tidy_step(Upkeep *upkeep)
{
	int64		from = Max(*upkeep->position, 0);
	int64		until = from + TIDY_BLOCKS;
	const char *args[] = {psprintf("(" INT64_FORMAT ",0)", from), psprintf("(" INT64_FORMAT ",0)", until)};
	KeysTable	keys;
	OwnerScope	scope;

	if (!keys_lock(upkeep->name, &keys) || from >= blocks_of(keys.relid))
		return false;
	read_by_index();
	owner_pass_policies(&scope);
	(void) run_with_texts(name_expand(TIDY_SQL, upkeep->name), lengthof(args), args);
	owner_end(&scope);
	*upkeep->position = until;
	return true;
}
