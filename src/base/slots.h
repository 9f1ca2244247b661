/*
 * slots.h
 *	  A table of things that were in use lately, for all sessions.
 *
 * A key leads to a bucket of a few slots behind one spinlock.  The table never
 * grows: a new key takes the slot of its bucket that was not used for longest,
 * and what was known under the old key is lost.  So a slot holds hints, or says
 * by a number of its own (slots_number()) whose it is.
 *
 * A spinlock is held for a few assignments.  What a caller does between
 * slots_lock() and slots_unlock() must not fail, allocate memory or ask the
 * system.
 */
#ifndef PGMQ_SLOTS_H
#define PGMQ_SLOTS_H

#include "pgmq.h"

#include "common/hashfn.h"
#include "storage/spin.h"

/* A file defines this before it includes this header, if its buckets must be larger */
#ifndef SLOTS_PER_BUCKET
#define SLOTS_PER_BUCKET 4
#endif

/* Unique in the cluster: the database is a part of what was hashed, or of the number */
typedef struct SlotKey
{
	uint64		hash[2];		/* both 0: no key */
} SlotKey;

/* Each slot begins with this; what a user of the table adds is 0 when the slot is new. */
typedef struct SlotHead
{
	SlotKey		key;
	uint64		used;			/* the bucket's count of uses at the last one */
} SlotHead;

typedef struct SlotBucket
{
	slock_t		mutex;
	uint64		uses;
	uint64		last_number;
	/* the slots follow */
} SlotBucket;

/* Where the table is in this process */
typedef struct SlotTable
{
	char	   *buckets;		/* NULL: there is none */
	int			nbuckets;
	Size		slot_size;
} SlotTable;

/* Whether another key may have the slot now; called under the spinlock */
typedef bool (*SlotMayGo) (const void *slot, int64 now);

extern void slots_init_buckets(void *memory, int nbuckets, Size bucket_size);
extern void *slots_private_buckets(int nbuckets, Size bucket_size);
extern SlotKey slots_hash(const void *name, int length, uint64 seed);

/* Of a number that is unique in the cluster, and not 0 */
static inline SlotKey
slots_key(uint64 number)
{
	return (SlotKey) {{murmurhash32((uint32) (number ^ (number >> 32))), number}};
}

static inline Size
slots_bucket_size(Size slot_size)
{
	return MAXALIGN(sizeof(SlotBucket)) + MAXALIGN(slot_size) * SLOTS_PER_BUCKET;
}

static inline Size
slots_size(int nbuckets, Size slot_size)
{
	return slots_bucket_size(slot_size) * nbuckets;
}

/* An empty table */
static inline void
slots_init(void *memory, int nbuckets, Size slot_size)
{
	slots_init_buckets(memory, nbuckets, slots_bucket_size(slot_size));
}

/* One of this session alone, for those that can't have a shared one */
static inline void *
slots_private(int nbuckets, Size slot_size)
{
	return slots_private_buckets(nbuckets, slots_bucket_size(slot_size));
}

static inline SlotBucket *
slots_bucket(const SlotTable *table, uint32 number)
{
	return (SlotBucket *) (table->buckets + slots_bucket_size(table->slot_size) * number);
}

static inline void *
slots_at(const SlotTable *table, SlotBucket *bucket, int i)
{
	return (char *) bucket + MAXALIGN(sizeof(SlotBucket)) + MAXALIGN(table->slot_size) * i;
}

static inline bool
slots_same_key(const SlotKey *a, const SlotKey *b)
{
	return a->hash[0] == b->hash[0] && a->hash[1] == b->hash[1];
}

static inline SlotBucket *
slots_bucket_of(const SlotTable *table, const SlotKey *key)
{
	return slots_bucket(table, (uint32) (key->hash[0] % table->nbuckets));
}

/* Lock the bucket of a key. */
static inline SlotBucket *
slots_lock(const SlotTable *table, const SlotKey *key)
{
	SlotBucket *bucket = slots_bucket_of(table, key);

	SpinLockAcquire(&bucket->mutex);
	return bucket;
}

static inline void
slots_unlock(SlotBucket *bucket)
{
	SpinLockRelease(&bucket->mutex);
}

/* A number that no slot of this bucket has had before */
static inline uint64
slots_number(SlotBucket *bucket)
{
	return ++bucket->last_number;
}

/* The slot of a key, or NULL; this is no use.  The caller has locked the bucket. */
static inline void *
slots_find(const SlotTable *table, SlotBucket *bucket, const SlotKey *key)
{
	int			i;

	for (i = 0; i < SLOTS_PER_BUCKET; i++)
	{
		SlotHead   *slot = slots_at(table, bucket, i);

		if (slots_same_key(&slot->key, key))
			return slot;
	}
	return NULL;
}

/*
 * The slot of a key, which is in use now.  If it has none it gets one that may go
 * ("may_go" is NULL: any), the one unused for longest, and "made" says so.
 * NULL if none may.  The caller has locked the bucket.
 */
static inline void *
slots_use(const SlotTable *table, SlotBucket *bucket, const SlotKey *key,
		  SlotMayGo may_go, int64 now, bool *made)
{
	SlotHead   *slot = slots_find(table, bucket, key);
	int			i;

	*made = slot == NULL;
	for (i = 0; *made && i < SLOTS_PER_BUCKET; i++)
	{
		SlotHead   *other = slots_at(table, bucket, i);

		if ((slot == NULL || other->used < slot->used) && (may_go == NULL || may_go(other, now)))
			slot = other;
	}
	if (slot == NULL)
		return NULL;
	if (*made)
	{
		memset(slot, 0, table->slot_size);
		slot->key = *key;
	}
	slot->used = ++bucket->uses;
	return slot;
}

#endif							/* PGMQ_SLOTS_H */
