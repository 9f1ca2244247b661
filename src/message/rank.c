/*
 * rank.c
 *	  The level of a message that is sent, by its header.
 *
 * The header x-pgmq-priority is a number from 0 to 9, or that digit as a string.  The
 * table has 9 - priority, the rank.  Any other value counts as if there were none.
 */
#include "pgmq.h"

#include "access/relation.h"
#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "message/message.h"

#define HEADER "x-pgmq-priority"

static int
rank_of_value(const JsonbValue *value)
{
	int			priority = -1;

	if (value->type == jbvNumeric)
	{
		double		number = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
																NumericGetDatum(value->val.numeric)));

		if (number >= 0 && number < RANKS && number == (int) number)
			priority = (int) number;
	}
	else if (value->type == jbvString && value->val.string.len == 1)
		priority = value->val.string.val[0] - '0';
	return priority >= 0 && priority < RANKS ? RANKS - 1 - priority : RANK_DEFAULT;
}

/* Of one message, by its headers */
static int
rank_of_headers(Datum headers)
{
	Jsonb	   *jsonb = DatumGetJsonbP(headers);
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(jsonb) ||
		getKeyJsonValueFromContainer(&jsonb->root, HEADER, strlen(HEADER), &value) == NULL)
		return RANK_DEFAULT;
	return rank_of_value(&value);
}

/* Of many: a smallint[]; false if all of them are the default */
static bool
ranks_of_headers(Datum headers, Datum *ranks)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	bool		found = false;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(headers), JSONBOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (i = 0; i < count; i++)
	{
		int			rank = nulls[i] ? RANK_DEFAULT : rank_of_headers(elements[i]);

		elements[i] = Int16GetDatum(rank);
		found |= rank != RANK_DEFAULT;
	}
	*ranks = PointerGetDatum(construct_array(elements, count, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
	return found;
}

/*
 * Whether the queue has ranks now.  Its table is locked as the statement of a send locks
 * it, so it keeps them until the transaction ends.
 */
static bool
has_ranks(const QueueName *name)
{
	Relation	rel;
	Place		place;

	rel = queue_open_table(name, QUEUE_TABLE, RowExclusiveLock, NULL);
	if (rel == NULL)
		return false;
	(void) queue_describe(name, QUEUE_TABLE, rel, &place);
	relation_close(rel, NoLock);
	return place.rank_attno != InvalidAttrNumber;
}

/*
 * The rank of a message, or the ranks of many, as a parameter of the statement that sends
 * them; false if it need not say them
 */
bool
rank_to_send(const QueueName *name, const QueuePolicy *policy, Datum headers, bool many, Datum *rank)
{
	if ((policy->set & POLICY_PRIORITY) == 0)
		return false;
	if (many)
		return ranks_of_headers(headers, rank) && has_ranks(name);
	*rank = Int16GetDatum(rank_of_headers(headers));
	return DatumGetInt16(*rank) != RANK_DEFAULT && has_ranks(name);
}
