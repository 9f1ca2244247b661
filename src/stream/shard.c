/*
 * shard.c
 *	  Which shard an event is in.
 *
 * That is part of the interface: the same key is in the same shard on every server, of every version and encoding.
 * The hash is FNV-1a of 64 bits over the UTF-8 bytes of the key, mixed by the last steps of MurmurHash3.  The docs
 * have test vectors.
 */
#include "pgmq.h"

#include "mb/pg_wchar.h"

#include "stream/internal.h"

static uint64
hash_of(const unsigned char *bytes, int length)
{
	uint64		hash = UINT64CONST(0xcbf29ce484222325);
	int			i;

	for (i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * UINT64CONST(0x100000001b3);
	hash = (hash ^ (hash >> 33)) * UINT64CONST(0xff51afd7ed558ccd);
	hash = (hash ^ (hash >> 33)) * UINT64CONST(0xc4ceb9fe1a85ec53);
	return hash ^ (hash >> 33);
}

int
shard_of_key(const text *key, int shards)
{
	char	   *bytes = VARDATA_ANY(key);
	int			length = VARSIZE_ANY_EXHDR(key);
	char	   *utf8 = bytes;
	int			shard;

	if (shards == 1)
		return 0;
	/* What an SQL_ASCII database means by its bytes is not known */
	if (length > 0 && GetDatabaseEncoding() != PG_SQL_ASCII)
		utf8 = pg_server_to_any(bytes, length, PG_UTF8);
	if (utf8 != bytes)
		length = (int) strlen(utf8);
	shard = (int) (hash_of((unsigned char *) utf8, length) % shards);
	if (utf8 != bytes)
		pfree(utf8);
	return shard;
}

int
shard_of_id(int64 event_id, int shards)
{
	return (int) (event_id % shards);
}
