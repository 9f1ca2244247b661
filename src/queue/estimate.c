/*
 * estimate.c
 *	  How many rows a table has, about, in less than a millisecond.
 *
 * Up to ESTIMATE_PAGES pages are read.  A table that has no more is counted.  The pages of
 * a larger one are divided into as many equal parts, and one page of each is read at
 * random.  Partitions count as one table.  The messages of a queue usually lie together in
 * a part of the table: so the parts say more about it than pages from anywhere.
 *
 * Rows of open transactions count: those that were inserted, and those that are being
 * deleted by another one.  No statement is planned and no code of the owner runs.
 */
#include "pgmq.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/base.h"
#include "queue/estimate.h"

#define ESTIMATE_PAGES 256

/* One of the tables that rows are in, and how many pages it and those before it have */
typedef struct Sampled
{
	Relation	rel;
	int64		pages_until;
} Sampled;

/* A version that an open transaction is replacing: the row counts by the new one */
static bool
is_replaced(HeapTupleData *tuple, const SnapshotData *dirty)
{
	return TransactionIdIsValid(dirty->xmax) && !ItemPointerEquals(&tuple->t_data->t_ctid, &tuple->t_self);
}

static int64
rows_in_page(Relation rel, BlockNumber block)
{
	SnapshotData dirty;
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page;
		OffsetNumber offset;
	OffsetNumber last;
	int64		rows = 0;

	InitDirtySnapshot(dirty);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	last = PageGetMaxOffsetNumber(page);
	for (offset = FirstOffsetNumber; offset <= last; offset++)
	{
		ItemId		item = PageGetItemId(page, offset);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, block, offset);
		if (HeapTupleSatisfiesVisibility(&tuple, &dirty, buffer) && !is_replaced(&tuple, &dirty))
			rows++;
	}
	UnlockReleaseBuffer(buffer);
	return rows;
}

/* The server stores the table itself, and has its rows */
static bool
has_rows(Relation rel)
{
	return relcheck_is_heap(rel) &&
		(rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT || !RecoveryInProgress());
}

/* The rows of a page, counted through all tables */
static int64
rows_in(const Sampled *tables, int64 page)
{
	int64		before = 0;

	for (; page >= tables->pages_until; tables++)
		before = tables->pages_until;
	return rows_in_page(tables->rel, (BlockNumber) (page - before));
}

static int64
sample(const Sampled *tables, int64 pages)
{
	int64		read = Min(pages, ESTIMATE_PAGES);
	int64		rows = 0;
	int64		i;

	for (i = 0; i < read; i++)
	{
		int64		first = i * pages / read;
		int64		last = (i + 1) * pages / read - 1;

		CHECK_FOR_INTERRUPTS();
		rows += rows_in(tables, (int64) pg_prng_uint64_range(&pg_global_prng_state, first, last));
	}
	return read == 0 ? 0 : (int64) ((double) rows * (double) pages / (double) read);
}

/* False if that cannot be said: the table is gone, or is none that the server stores itself */
bool
estimate_rows(Oid relid, int64 *rows)
{
	List	   *relids;
	Sampled    *tables;
	ListCell   *lc;
	int			count = 0;
	int64		pages = 0;
	bool		stored = true;

	if (!OidIsValid(relid))
		return false;
	LockRelationOid(relid, AccessShareLock);
	relids = find_all_inheritors(relid, AccessShareLock, NULL);
	tables = palloc(sizeof(Sampled) * list_length(relids));
	foreach(lc, relids)
	{
		Relation	rel = try_relation_open(lfirst_oid(lc), NoLock);

		if (rel == NULL)
		{
			UnlockRelationOid(lfirst_oid(lc), AccessShareLock);
			stored = false;
			continue;
		}
		tables[count].rel = rel;
		if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		{
			stored = stored && has_rows(rel);
			pages += stored ? RelationGetNumberOfBlocks(rel) : 0;
		}
		tables[count++].pages_until = pages;
	}
	*rows = stored ? sample(tables, pages) : 0;
	while (count > 0)
		relation_close(tables[--count].rel, AccessShareLock);
	pfree(tables);
	list_free(relids);
	return stored;
}
