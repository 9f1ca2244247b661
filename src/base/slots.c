/*
 * slots.c
 *	  A table of things that were in use lately, for all sessions.
 */
#include "pgmq.h"

#include "utils/memutils.h"

#include "base/slots.h"

Size
slots_size(int nbuckets, int per_bucket, Size slot_size)
{
	return slots_bucket_size(per_bucket, slot_size) * nbuckets;
}

/* An empty table */
void
slots_init(void *memory, int nbuckets, int per_bucket, Size slot_size)
{
	SlotTable	table = {memory, nbuckets, per_bucket, slot_size};
	int			i;

	memset(memory, 0, slots_size(nbuckets, per_bucket, slot_size));
	for (i = 0; i < nbuckets; i++)
		SpinLockInit(&slots_bucket(&table, i)->mutex);
}

/* One of this session alone, for those that can't have a shared one */
void *
slots_private(int nbuckets, int per_bucket, Size slot_size)
{
	void	   *memory = MemoryContextAlloc(TopMemoryContext, slots_size(nbuckets, per_bucket, slot_size));

	slots_init(memory, nbuckets, per_bucket, slot_size);
	return memory;
}

/* Of a name that is unique with the seed, as far as 128 bits of hash can tell */
SlotKey
slots_hash(const void *name, int length, uint64 seed)
{
	SlotKey		key;

	key.hash[0] = hash_bytes_extended(name, length, seed);
	key.hash[1] = hash_bytes_extended(name, length, ~seed);
	if (key.hash[0] == 0 && key.hash[1] == 0)
		key.hash[1] = 1;
	return key;
}
