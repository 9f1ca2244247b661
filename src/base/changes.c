/*
 * changes.c
 *	  How often the catalogs have changed, as far as this session knows.
 *
 * A session that keeps an answer of the catalogs must drop it when that answer may
 * have changed.  The server delivers invalidation messages for this.  Changes by other
 * sessions arrive when the session takes a lock on a relation.  Its own changes arrive
 * with each command, and again when a (sub)transaction is rolled back.  The callbacks
 * here count them.  Code that keeps an answer keeps with it the
 * sum of the counts that the answer depends on.  The answer is good as long as the
 * sum is the same: no count ever goes down.
 *
 * 1. Counts are kept by a hash.  Two objects may share a count.  Then a change of one
 *	  of them drops an answer about the other, which is looked up again.
 * 2. A reset of all caches, or a change of a schema's name, counts for everything.
 * 3. A row of pg_class that is made, changed or dropped counts for its name, and a
 *	  new name counts as well as the old one.  So a name's count covers the kind of the
 *	  relation that has the name.
 * 4. A look-up may itself deliver messages.  So the counts are read before it.  If only its
 *	  answer tells which counts matter, changes_heard() is read before it instead, and the answer
 *	  is kept only if that has not changed.
 *
 * A callback may be called at any time, so it does nothing that can fail.
 */
#include "pgmq.h"

#include "common/hashfn.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "base/changes.h"

#define COUNTS 1024

/* From 1 on: 0 is the sum of no answer */
static uint64 Heard = 1;
static uint64 ForAll = 1;
static uint64 OfRelations[COUNTS];
static uint64 OfNames[COUNTS];

static uint64 *
count_of(uint64 *counts, uint32 key)
{
	return &counts[murmurhash32(key) % COUNTS];
}

static void
relation_changed(Datum arg, Oid relid)
{
	Heard++;
	if (OidIsValid(relid))
		(*count_of(OfRelations, relid))++;
	else
		ForAll++;
}

static void
name_changed(Datum arg, int cacheid, uint32 hash)
{
	Heard++;
	if (cacheid == RELNAMENSP && hash != 0)
		(*count_of(OfNames, hash))++;
	else
		ForAll++;
}

/* Registering fails only where it ends the session */
static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(RELNAMENSP, name_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACENAME, name_changed, (Datum) 0);
	registered = true;
}

/* A number that changes with every change, to be read before a look-up */
uint64
changes_heard(void)
{
	register_callbacks();
	return Heard;
}

/* Of a relation: its columns, indexes, triggers, file, and what pg_class says of it */
uint64
changes_of_relation(Oid relid)
{
	register_callbacks();
	return ForAll + *count_of(OfRelations, relid);
}

/* Of what a name leads to; "hash" is that of the name and the schema in RELNAMENSP */
uint64
changes_of_name(uint32 hash)
{
	return ForAll + *count_of(OfNames, hash);
}
