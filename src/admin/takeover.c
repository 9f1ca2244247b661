/*
 * takeover.c
 *	  What an update from the PL/pgSQL extension does to tables.
 *
 * The script of the update runs as a superuser, and a plain role may own the
 * extension's tables.  Building an index or writing a table anew can run code that
 * the owner has attached to it.  So this runs with the rights of that owner.
 */
#include "pgmq.h"
#include "catalog/pg_class.h"
#include "utils/lsyscache.h"
#include "base/base.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq__settle_tables);

/* The two existed before, so they may belong to any role */
static void
settle_meta(void)
{
	Oid			relid = relcheck_own_table(OWN_META, ShareLock);
	OwnerScope	scope;

	owner_begin(owner_of(relid), &scope);
	run_ddl("CREATE INDEX IF NOT EXISTS meta_identity_idx ON " PGMQ_SCHEMA ".meta (pg_catalog.lower(queue_name))");
	owner_end(&scope);
}

/* A crash empties an unlogged table, and with it goes every setting */
static void
settle_notify_settings(void)
{
	Oid			relid = relcheck_own_table(OWN_NOTIFY_SETTINGS, AccessExclusiveLock);
	OwnerScope	scope;

	if (get_rel_persistence(relid) != RELPERSISTENCE_UNLOGGED)
		return;
	owner_begin(owner_of(relid), &scope);
	run_ddl("ALTER TABLE " PGMQ_SCHEMA ".notify_insert_throttle SET LOGGED");
	owner_end(&scope);
}

/*
 * pgmq._settle_tables() -> void
 *
 * The script of the update makes this function and drops it again.
 */
Datum
pgmq__settle_tables(PG_FUNCTION_ARGS)
{
	SPI_connect();
	settle_meta();
	settle_notify_settings();
	(void) relcheck_own_table(OWN_TOPIC_BINDINGS, AccessShareLock);
	(void) relcheck_own_table(OWN_PARTITION_CONFIG, AccessShareLock);
	SPI_finish();
	PG_RETURN_VOID();
}
