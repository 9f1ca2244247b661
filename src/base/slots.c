/*
 * slots.c
 *	  A table of things that were in use lately, for all sessions.
 */
#include "pgmq.h"

#include "utils/memutils.h"

#include "base/slots.h"

void
slots_init_buckets(void *memory, int nbuckets, Size bucket_size)
{
	int			i;

	memset(memory, 0, bucket_size * nbuckets);
	for (i = 0; i < nbuckets; i++)
		SpinLockInit(&((SlotBucket *) ((char *) memory + bucket_size * i))->mutex);
}

void *
slots_private_buckets(int nbuckets, Size bucket_size)
{
	void	   *memory = MemoryContextAlloc(TopMemoryContext, bucket_size * nbuckets);

	slots_init_buckets(memory, nbuckets, bucket_size);
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
