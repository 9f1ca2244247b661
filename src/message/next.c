/*
 * next.c
 *	  Read the next messages and acknowledge the last ones: one round trip, one commit.
 *
 * The read comes first.  It can find a message that is to be acknowledged, if its lease has
 * expired.  Then this call has made its own token stale: the message is acknowledged as it is
 * now and not handed out, so the call returns fewer.
 *
 * In two kinds of queues the read comes last.  With a limit of leases it would find no room.
 * And a call must not wait for the lock of one partition while it holds that of another
 * (leaflock.c).  A read can do without a partition that it cannot lock at once; the
 * acknowledgement needs its own.
 */
#include "pgmq.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "message/message.h"
#include "message/token.h"

PG_FUNCTION_INFO_V1(pgmq_next);

/* One of the rows that this call has read is a new delivery of a message that is to be acknowledged */
static bool
is_done(void *arg, int64 msg_id, int32 read_ct)
{
	Token	   *token = tokens_find(arg, msg_id, read_ct - 1);

	if (token == NULL || token->ended)
		return false;
	token->attempt = read_ct;
	return true;
}

static bool
has_stale(const Tokens *tokens)
{
	int			i;

	for (i = 0; i < tokens->nsorted; i++)
	{
		if (!tokens->sorted[i].ended)
			return true;
	}
	return false;
}

/* Whether an element names nothing that could have been acknowledged */
static bool
has_impossible(const Tokens *tokens)
{
	int			i;

	for (i = 0; i < tokens->count; i++)
	{
		if (tokens_element(tokens, i) == NULL)
			return true;
	}
	return false;
}

static void
refuse_stale(const TokenCall *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("a message of queue \"%s\" has been delivered again, or is gone", call->name.canonical),
			 errhint("Nothing was read or acknowledged. To acknowledge the others, pass skip_stale => true.")));
}

/* "messages" is what this call has read before, or NULL */
static void
acknowledge(TokenCall *call, Tokens *tokens, MessageSet *messages, bool skip_stale)
{
	/* Changes the tokens that it compares with, so this is asked first */
	bool		impossible = !skip_stale && has_impossible(tokens);

	if (tokens->count == 0)
		return;
	tokens_run(call, tokens);
	if (messages != NULL && has_stale(tokens) && result_remove(messages, is_done, tokens) > 0)
		tokens_run(call, tokens);
	if (impossible || (!skip_stale && has_stale(tokens)))
		refuse_stale(call);
}

/*
 * pgmq.next(queue_name text, vt integer, qty integer, done bigint[], attempts integer[], skip_stale boolean)
 *	  -> SETOF message_record
 */
Datum
pgmq_next(PG_FUNCTION_ARGS)
{
	bool		skip_stale = PG_ARGISNULL(5) || PG_GETARG_BOOL(5);
	MessageSet *messages = result_messages(fcinfo);
	bool		partitioned;
	TokenCall	call;
	Tokens		tokens;

	token_init(&call, fcinfo, &token_ack);
	tokens_from_args(fcinfo, 3, "done", &tokens);
	partitioned = queue_is_partitioned(&call.name, QUEUE_TABLE);
	if (partitioned || (policy_of(&call.name)->set & POLICY_MAX_IN_FLIGHT) != 0)
	{
		acknowledge(&call, &tokens, NULL, skip_stale);
		read_into(fcinfo, partitioned && tokens.count > 0 ? queue_relid(&call.name, QUEUE_TABLE) : InvalidOid,
				  messages);
	}
	else
	{
		read_into(fcinfo, InvalidOid, messages);
		acknowledge(&call, &tokens, messages, skip_stale);
	}
	result_finish(messages);
	return (Datum) 0;
}
