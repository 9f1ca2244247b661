/*
 * token.h
 *	  The end of a delivery, said with its token: between token.c and its callers.
 */
#ifndef PGMQ_TOKEN_H
#define PGMQ_TOKEN_H

#include "message/message.h"

/*
 * What can be done with a delivery, as statements on one message and on several.  $1 is the msg_id, $2 the attempt;
 * $3 is used for several.  Where statements return rows, these begin with msg_id and read_ct: token_list().
 */
typedef struct TokenVerb
{
	Finish		what;
	const PlanSpec *one;
	const PlanSpec *many;
	/* For a queue with columns that count failures, if that makes a difference */
	const PlanSpec *one_counted;
	const PlanSpec *many_counted;
	int			columns;		/* that are returned */
} TokenVerb;

extern const TokenVerb token_ack;
extern const TokenVerb token_ack_archive;
extern const TokenVerb token_nack;
extern const TokenVerb token_release;
extern const TokenVerb token_touch;

typedef struct TokenCall
{
	QueueName	name;
	const TokenVerb *verb;
	Datum		values[PLAN_MAX_ARGS];
	bool		nulls[PLAN_MAX_ARGS];
	Interval	wait;			/* until the messages are available again, at least */
	const QueuePolicy *policy;	/* of nack */
} TokenCall;

extern void token_init(TokenCall *call, FunctionCallInfo fcinfo, const TokenVerb *verb);
extern void token_delay(TokenCall *call, FunctionCallInfo fcinfo, int delay_arg);
extern void token_delay_or_none(TokenCall *call, FunctionCallInfo fcinfo, int delay_arg);
extern void token_failure(TokenCall *call, FunctionCallInfo fcinfo, int error_arg, int delay_arg);
extern ValueList *token_list(const TokenVerb *verb);
extern uint64 token_run(TokenCall *call, bool many, ValueList *list);
extern void token_move_dead(const TokenCall *call, const int64 *ids, int count);
extern bool token_is_dead(const TokenCall *call, int32 failures);

/* ---- tokenbatch.c ---- */

/* One delivery */
typedef struct Token
{
	int64		msg_id;
	int32		attempt;
	bool		ended;			/* it was the current one: the statement has changed the message */
	int32		failures;		/* of nack */
} Token;

/* The deliveries that two arrays of a call name */
typedef struct Tokens
{
	int			count;
	Datum	   *ids;
	bool	   *id_nulls;
	Datum	   *attempts;
	bool	   *attempt_nulls;
	Token	   *sorted;			/* each once */
	int			nsorted;
} Tokens;

extern void tokens_from_args(FunctionCallInfo fcinfo, int ids_arg, const char *ids_name, Tokens *tokens);
extern Token *tokens_find(const Tokens *tokens, int64 msg_id, int32 attempt);
extern Token *tokens_element(const Tokens *tokens, int i);
extern void tokens_run(TokenCall *call, Tokens *tokens);

#endif							/* PGMQ_TOKEN_H */
