/*
 * groupkey.h
 *	  Which group a message is in, as the queue's index by groups has it.
 */
#ifndef PGMQ_GROUPKEY_H
#define PGMQ_GROUPKEY_H

/*
 * A group is identified by its key: the text in the first column of the queue's
 * group index.  It is the group's name, or for a long name its beginning and
 * two hashes of it.
 */
#define GROUP_HEADER "x-pgmq-group"
#define DEFAULT_GROUP "_default_fifo_group"
#define GROUP_NAME_OF(headers) \
	"COALESCE(" headers " OPERATOR(pg_catalog.->>) '" GROUP_HEADER "'::pg_catalog.text, '" DEFAULT_GROUP "'::pg_catalog.text)"
#define GROUP_NAME GROUP_NAME_OF("headers")

/* Longest name in bytes that is its own key, much less than fits in an index entry; and the format of longer ones */
#define LONGEST_GROUP_KEY 256
#define LONG_KEY_CHARACTERS 32

#define STRING_OF(number) #number
#define AS_STRING(number) STRING_OF(number)

#define GROUP_HASH(seed) \
	"pg_catalog.hashtextextended(" GROUP_NAME ", " seed ")::pg_catalog.text"

#define GROUP_KEY \
	"(CASE WHEN pg_catalog.octet_length(" GROUP_NAME ") OPERATOR(pg_catalog.<=) " AS_STRING(LONGEST_GROUP_KEY) \
	" THEN " GROUP_NAME \
	" ELSE pg_catalog.\"left\"(" GROUP_NAME ", " AS_STRING(LONG_KEY_CHARACTERS) ")" \
	" OPERATOR(pg_catalog.||) '...'::pg_catalog.text OPERATOR(pg_catalog.||) " GROUP_HASH("0") \
	" OPERATOR(pg_catalog.||) '/'::pg_catalog.text OPERATOR(pg_catalog.||) " GROUP_HASH("1") " END)"

#define GROUP_INDEX_SUFFIX "_fifo_idx"

#endif							/* PGMQ_GROUPKEY_H */
