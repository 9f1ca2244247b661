/*
 * tokenbatch.c
 *	  End several deliveries, or prolong them, by one statement: the forms of the verbs of
 *	  token.c that take arrays.
 *
 * The arrays can name a delivery twice, and a message with several attempts.  So the
 * statement gets each delivery once, in the order of msg_id, in which it locks the rows.
 * It returns those that were current.  A row of the result is looked up for each element of
 * the arrays.
 */
#include "pgmq.h"

#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/base.h"
#include "queue/queue.h"
#include "policy/policy.h"
#include "message/message.h"
#include "message/token.h"

PG_FUNCTION_INFO_V1(pgmq_ack_batch);
PG_FUNCTION_INFO_V1(pgmq_ack_archive_batch);
PG_FUNCTION_INFO_V1(pgmq_nack_batch);
PG_FUNCTION_INFO_V1(pgmq_release_batch);
PG_FUNCTION_INFO_V1(pgmq_touch_batch);

/* ---- the deliveries that a call names ---- */

static int
compare_tokens(const void *a, const void *b)
{
	const Token *x = a;
	const Token *y = b;
	int			ids = pg_cmp_s64(x->msg_id, y->msg_id);

	return ids != 0 ? ids : pg_cmp_s64(x->attempt, y->attempt);
}

/* The elements of an array of numbers; NULL has none */
static int
elements_of(FunctionCallInfo fcinfo, int arg, Oid type, int length, char align, Datum **values, bool **nulls)
{
	int			count = 0;

	if (!PG_ARGISNULL(arg))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(arg), type, length, true, align, values, nulls, &count);
	return count;
}

/* Whether an element can be a delivery: none has a number below 1 */
static bool
is_token(const Tokens *tokens, int i)
{
	return !tokens->id_nulls[i] && !tokens->attempt_nulls[i] && DatumGetInt32(tokens->attempts[i]) > 0;
}

static void
sort_tokens(Tokens *tokens)
{
	int			count = 0;
	int			i;

	tokens->sorted = palloc_extended(sizeof(Token) * Max(tokens->count, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (i = 0; i < tokens->count; i++)
	{
		if (!is_token(tokens, i))
			continue;
		tokens->sorted[count].msg_id = DatumGetInt64(tokens->ids[i]);
		tokens->sorted[count++].attempt = DatumGetInt32(tokens->attempts[i]);
	}
	qsort(tokens->sorted, count, sizeof(Token), compare_tokens);
	tokens->nsorted = 0;
	for (i = 0; i < count; i++)
	{
		if (i == 0 || compare_tokens(&tokens->sorted[i], &tokens->sorted[i - 1]) != 0)
			tokens->sorted[tokens->nsorted++] = tokens->sorted[i];
	}
}

/* The attempts are the next argument */
void
tokens_from_args(FunctionCallInfo fcinfo, int ids_arg, const char *ids_name, Tokens *tokens)
{
	int			attempts;

	memset(tokens, 0, sizeof(*tokens));
	tokens->count = elements_of(fcinfo, ids_arg, INT8OID, sizeof(int64), TYPALIGN_DOUBLE,
								&tokens->ids, &tokens->id_nulls);
	attempts = elements_of(fcinfo, ids_arg + 1, INT4OID, sizeof(int32), TYPALIGN_INT,
						   &tokens->attempts, &tokens->attempt_nulls);
	if (attempts != tokens->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attempts array length (%d) must match %s array length (%d)",
						attempts, ids_name, tokens->count),
				 errhint("Pass the read_ct of each message, in the same order.")));
	sort_tokens(tokens);
}

/* NULL if the call does not name it */
Token *
tokens_find(const Tokens *tokens, int64 msg_id, int32 attempt)
{
	Token		key = {.msg_id = msg_id, .attempt = attempt};

	return bsearch(&key, tokens->sorted, tokens->nsorted, sizeof(Token), compare_tokens);
}

/* The delivery that an element of the arrays names; NULL if it can be none */
Token *
tokens_element(const Tokens *tokens, int i)
{
	if (!is_token(tokens, i))
		return NULL;
	return tokens_find(tokens, DatumGetInt64(tokens->ids[i]), DatumGetInt32(tokens->attempts[i]));
}

/* ---- the statement ---- */

static void
set_params(TokenCall *call, const Tokens *tokens)
{
	Datum	   *ids = palloc_extended(sizeof(Datum) * tokens->nsorted, MCXT_ALLOC_HUGE);
	Datum	   *attempts = palloc_extended(sizeof(Datum) * tokens->nsorted, MCXT_ALLOC_HUGE);
	int			i;

	for (i = 0; i < tokens->nsorted; i++)
	{
		ids[i] = Int64GetDatum(tokens->sorted[i].msg_id);
		attempts[i] = Int32GetDatum(tokens->sorted[i].attempt);
	}
	call->values[0] = call->values[2] =
		PointerGetDatum(construct_array(ids, tokens->nsorted, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	call->values[1] =
		PointerGetDatum(construct_array(attempts, tokens->nsorted, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	call->nulls[0] = call->nulls[1] = call->nulls[2] = false;
}

/* End or prolong the deliveries that are current.  Without any, the statement runs all the same, for its errors. */
void
tokens_run(TokenCall *call, Tokens *tokens)
{
	ValueList  *list = token_list(call->verb);
	const NullableDatum *row;
	uint64		rows;

	if (tokens->nsorted > 0)
		set_params(call, tokens);
	(void) token_run(call, true, list);
	for (rows = result_values_got(list, &row); rows > 0; rows--, row += call->verb->columns)
	{
		Token	   *token = tokens_find(tokens, DatumGetInt64(row[0].value), DatumGetInt32(row[1].value));

		/* A trigger can have changed what is returned */
		if (token == NULL)
			continue;
		token->ended = true;
		if (call->verb == &token_nack)
			token->failures = DatumGetInt32(row[2].value);
	}
}

/* ---- a row for each element ---- */

static void
put_row(ReturnSetInfo *rsinfo, const Tokens *tokens, int i, Datum outcome)
{
	Datum		values[2] = {tokens->ids[i], outcome};
	bool		nulls[2] = {tokens->id_nulls[i], false};

	CHECK_FOR_INTERRUPTS();
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static Datum
run_batch(FunctionCallInfo fcinfo, TokenCall *call)
{
	Tokens		tokens;
	int			i;

	tokens_from_args(fcinfo, 1, "msg_ids", &tokens);
	InitMaterializedSRF(fcinfo, 0);
	tokens_run(call, &tokens);
	for (i = 0; i < tokens.count; i++)
	{
		const Token *token = tokens_element(&tokens, i);

		put_row((ReturnSetInfo *) fcinfo->resultinfo, &tokens, i, BoolGetDatum(token != NULL && token->ended));
	}
	return (Datum) 0;
}

/* pgmq.ack_batch(queue_name text, msg_ids bigint[], attempts integer[]) -> TABLE (msg_id bigint, ok boolean) */
Datum
pgmq_ack_batch(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_ack);
	return run_batch(fcinfo, &call);
}

/* pgmq.ack_archive_batch(queue_name text, msg_ids bigint[], attempts integer[]) -> the same */
Datum
pgmq_ack_archive_batch(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_ack_archive);
	return run_batch(fcinfo, &call);
}

/* pgmq.release_batch(queue_name text, msg_ids bigint[], attempts integer[], delay integer) -> the same */
Datum
pgmq_release_batch(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_release);
	token_delay_or_none(&call, fcinfo, 3);
	return run_batch(fcinfo, &call);
}

/* pgmq.touch_batch(queue_name text, msg_ids bigint[], attempts integer[], vt integer) -> the same */
Datum
pgmq_touch_batch(PG_FUNCTION_ARGS)
{
	TokenCall	call;

	token_init(&call, fcinfo, &token_touch);
	token_delay(&call, fcinfo, 3);
	return run_batch(fcinfo, &call);
}

/* Move the messages that have failed too often */
static void
move_exhausted(const TokenCall *call, const Tokens *tokens)
{
	int64		ids[SURVEY_MAX_DEAD];
	int			count = 0;
	int			i;

	for (i = 0; i < tokens->nsorted; i++)
	{
		if (tokens->sorted[i].ended && token_is_dead(call, tokens->sorted[i].failures))
			ids[count++] = tokens->sorted[i].msg_id;
		if (count == lengthof(ids) || (count > 0 && i == tokens->nsorted - 1))
		{
			token_move_dead(call, ids, count);
			count = 0;
		}
	}
}

/*
 * pgmq.nack_batch(queue_name text, msg_ids bigint[], attempts integer[], error text, delay integer)
 *	  -> TABLE (msg_id bigint, outcome text)
 */
Datum
pgmq_nack_batch(PG_FUNCTION_ARGS)
{
	TokenCall	call;
	Tokens		tokens;
	int			i;

	token_init(&call, fcinfo, &token_nack);
	token_failure(&call, fcinfo, 3, 4);
	tokens_from_args(fcinfo, 1, "msg_ids", &tokens);
	InitMaterializedSRF(fcinfo, 0);
	tokens_run(&call, &tokens);
	move_exhausted(&call, &tokens);
	for (i = 0; i < tokens.count; i++)
	{
		const Token *token = tokens_element(&tokens, i);

		put_row((ReturnSetInfo *) fcinfo->resultinfo, &tokens, i,
				CStringGetTextDatum(token == NULL || !token->ended ? "stale" :
									token_is_dead(&call, token->failures) ? "dead" : "retry"));
	}
	return (Datum) 0;
}
