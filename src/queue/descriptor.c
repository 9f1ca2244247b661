/*
 * descriptor.c
 *	  The descriptor of a queue: what its names lead to, and which columns,
 *	  indexes and sequences its tables have.
 *
 * A session looks up the tables of a queue once, and keeps the answer until the
 * catalogs may say something else (changes.c).  No other file looks up a queue's
 * objects by their names.
 *
 * 1. An answer is as new as a look-up in the server's own caches would be, because
 *	  the same messages end both.  The objects can be renamed, dropped and replaced
 *	  at any moment.  So a session that locks a table asks for its name once more
 *	  when it has the lock, as the server does: queue_open_table().
 * 2. Answers are returned as values.  Nothing points into a descriptor when a
 *	  function here has returned, so descriptors can be dropped at any time.
 * 3. An answer is stored when it is complete, so an error in a look-up leaves no
 *	  part of it.
 *
 * Memory: the descriptors are in QueueContext, a child of TopMemoryContext.  When
 * there are more than pgmq.plan_cache_size, all are dropped.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "nodes/makefuncs.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "queue/descriptor.h"
#include "queue/plan.h"

/* What a name leads to */
typedef struct Named
{
	uint64		changes;		/* changes_of_name(hash) when it was looked up; 0: not known */
	uint32		hash;
	Oid			relid;			/* InvalidOid: there is no such relation */
	char		relkind;
} Named;

/* Where a table has its ids from */
typedef struct IdSource
{
	Oid			relid;			/* of the table */
	Oid			sequence;
	uint64		changes;		/* of both; 0: it is not known */
} IdSource;

#define TABLES 6

typedef struct Descriptor
{
	QueueName	name;			/* hash key, must be first */
	Named		tables[TABLES];
	/* Of the tables that have, or had, these names */
	Description descriptions[TABLES];
	IdSource	sources[TABLES];
} Descriptor;

static MemoryContext QueueContext = NULL;
static HTAB *Descriptors = NULL;
static Descriptor *Latest = NULL;

/* ---- the descriptors of this session ---- */

/* Memory may run out anywhere here: the next call goes on from what there is. */
static void
create_descriptors(void)
{
	if (QueueContext == NULL)
		QueueContext = AllocSetContextCreate(TopMemoryContext, "pgmq queues",
											 ALLOCSET_DEFAULT_SIZES);
	Latest = NULL;
	Descriptors = NULL;
	MemoryContextReset(QueueContext);	/* deletes the old table, or half of one */
	Descriptors = hash_in_context("pgmq queues", 16, sizeof(QueueName), sizeof(Descriptor), QueueContext);
}

/* NULL if there is none and none is to be made; good until the next call of this function */
static Descriptor *
find_descriptor(const QueueName *name, bool create)
{
	Descriptor *d;
	bool		found;

	if (Latest != NULL && memcmp(&Latest->name, name, sizeof(*name)) == 0)
		return Latest;
	d = Descriptors != NULL ? hash_search(Descriptors, name, HASH_FIND, NULL) : NULL;
	if (d == NULL && create)
	{
		if (Descriptors == NULL || hash_get_num_entries(Descriptors) >= plan_max_queues)
			create_descriptors();
		d = hash_search(Descriptors, name, HASH_ENTER, &found);
		memset((char *) d + sizeof(*name), 0, sizeof(*d) - sizeof(*name));
	}
	if (d != NULL)
		Latest = d;
	return d;
}

/* ---- names ---- */

/*
 * An index or a sequence is no table: the queue "orders" has a relation
 * q_orders_vt_idx, which is no queue "orders_vt_idx".
 */
static bool
is_table(char relkind)
{
	switch (relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_FOREIGN_TABLE:
		case RELKIND_VIEW:
			return true;
		default:
			return false;
	}
}

/* What the caches of the server say now.  Without the schema there is no hash, either. */
static Named
look_up(const QueueName *name, char prefix, const char *suffix)
{
	Oid			schema = get_namespace_oid(PGMQ_SCHEMA, true);
	char	   *relation = name_bare(name, prefix, suffix);
	Named		named = {0};

	if (OidIsValid(schema) && strlen(relation) < NAMEDATALEN)
	{
		named.hash = GetSysCacheHashValue2(RELNAMENSP, CStringGetDatum(relation),
										   ObjectIdGetDatum(schema));
		named.relid = get_relname_relid(relation, schema);
		named.relkind = OidIsValid(named.relid) ? get_rel_relkind(named.relid) : '\0';
	}
	pfree(relation);
	return named;
}

static int
table_index(char prefix)
{
	switch (prefix)
	{
		case QUEUE_TABLE:
			return 0;
		case ARCHIVE_TABLE:
			return 1;
		case NOTES_TABLE:
			return 2;
		case STREAM_TABLE:
			return 3;
		case POSITIONS_TABLE:
			return 4;
		default:
			return 5;			/* KEYS_TABLE */
	}
}

static Named
find_table(const QueueName *name, char prefix)
{
	Descriptor *d = find_descriptor(name, false);
	int			i = table_index(prefix);
	uint64		heard;
	Named		named;

	if (d != NULL && d->tables[i].changes != 0 &&
		d->tables[i].changes == changes_of_name(d->tables[i].hash))
		return d->tables[i];
	heard = changes_heard();
	named = look_up(name, prefix, "");
	if (!is_table(named.relkind))
	{
		named.relid = InvalidOid;
		named.relkind = '\0';
	}
	d = find_descriptor(name, true);
	if (heard == changes_heard() && named.hash != 0)
		named.changes = changes_of_name(named.hash);
	d->tables[i] = named;
	return named;
}

/* InvalidOid if there is no such table */
Oid
queue_relid(const QueueName *name, char prefix)
{
	return find_table(name, prefix).relid;
}

/* '\0' if there is no such table */
char
queue_relkind(const QueueName *name, char prefix)
{
	return find_table(name, prefix).relkind;
}

bool
queue_is_partitioned(const QueueName *name, char prefix)
{
	return find_table(name, prefix).relkind == RELKIND_PARTITIONED_TABLE;
}

/* Whether this transaction holds the lock of a writer */
static bool
has_written(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, RowExclusiveLock, true);
}

/*
 * Open and lock what the name leads to; NULL if there is no such table.  A session
 * that has waited for the lock may have locked what had the name before.  With
 * "has_written_before" it is told whether it held the lock of a writer already.
 */
Relation
queue_open_table(const QueueName *name, char prefix, LOCKMODE lockmode, bool *has_written_before)
{
	Oid			relid;

	while (OidIsValid(relid = queue_relid(name, prefix)))
	{
		bool		before = has_written_before != NULL && has_written(relid);
		Relation	rel = try_relation_open(relid, lockmode);

		if (rel != NULL && queue_relid(name, prefix) == relid)
		{
			if (has_written_before != NULL)
				*has_written_before = before;
			return rel;
		}
		if (rel != NULL)
			relation_close(rel, lockmode);
		CHECK_FOR_INTERRUPTS();
	}
	return NULL;
}

/*
 * The columns and indexes of one of the queue's tables, which is open; false if C
 * code cannot look into it.
 */
bool
queue_describe(const QueueName *name, char prefix, Relation rel, Place *place)
{
	int			i = table_index(prefix);
	Description description = find_descriptor(name, true)->descriptions[i];

	/* This may run code of users in an index, which may drop descriptors */
	(void) place_remember(rel, &description);
	find_descriptor(name, true)->descriptions[i] = description;
	*place = description.place;
	return description.looks;
}

/* The sequence of one of the queue's tables, which is open; InvalidOid if it has none */
Oid
queue_sequence(const QueueName *name, char prefix, Relation rel)
{
	int			i = table_index(prefix);
	IdSource	source = find_descriptor(name, true)->sources[i];
	uint64		heard;
	bool		lasting;

	if (source.relid == RelationGetRelid(rel) && source.changes != 0 &&
		source.changes == changes_of_relation(source.relid) + changes_of_relation(source.sequence))
		return source.sequence;
	heard = changes_heard();
	source.relid = RelationGetRelid(rel);
	source.sequence = relcheck_sequence(rel, &lasting);
	source.changes = 0;
	if (lasting && heard == changes_heard())
		source.changes = changes_of_relation(source.relid) + changes_of_relation(source.sequence);
	find_descriptor(name, true)->sources[i] = source;
	return source.sequence;
}

/* Of what belongs to one of the queue's tables and is named after it; of any kind */
Oid
queue_index_relid(const QueueName *name, char prefix, const char *suffix)
{
	return look_up(name, prefix, suffix).relid;
}

/* Lock the queue's table as an insert does, until the transaction ends; false if there is none */
bool
queue_lock(const QueueName *name)
{
	char	   *table = name_bare(name, QUEUE_TABLE, "");

	return strlen(table) < NAMEDATALEN &&
		OidIsValid(RangeVarGetRelid(makeRangeVar(PGMQ_SCHEMA, table, -1), RowExclusiveLock, true));
}

/*
 * The message is the server's own for a missing table, as programs know it;
 * the rest says what it means here.
 */
void
queue_require(const QueueName *name)
{
	if (OidIsValid(queue_relid(name, QUEUE_TABLE)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation \"%s.%s\" does not exist", PGMQ_SCHEMA,
					name_bare(name, QUEUE_TABLE, "")),
			 errdetail("There is no queue \"%s\".", name->canonical),
			 errhint("Create the queue first using pgmq.create().")));
}

/* The same for a stream */
void
stream_require(const QueueName *name)
{
	if (OidIsValid(queue_relid(name, STREAM_TABLE)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation \"%s.%s\" does not exist", PGMQ_SCHEMA,
					name_bare(name, STREAM_TABLE, "")),
			 errdetail("There is no stream \"%s\".", name->canonical),
			 errhint("Create the stream first using pgmq.create_stream().")));
}
