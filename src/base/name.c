/*
 * name.c
 *	  Queue name -> valid, canonical, table names.
 *
 * No other file knows that the queue "Orders" is in pgmq.q_orders and its
 * archive in pgmq.a_orders.  Every identifier in our SQL is quoted here,
 * always: a name may contain spaces, dots, quotes, percent signs and
 * backslashes.
 */
#include "pgmq.h"

#include "catalog/pg_collation.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/formatting.h"

#include "base/name.h"

PG_FUNCTION_INFO_V1(pgmq_format_table_name);
PG_FUNCTION_INFO_V1(pgmq_validate_queue_name);

/*
 * The characters that the PL/pgSQL extension refuses.  Quoting makes them
 * harmless, but programs rely on the error.
 */
static bool
has_only_good_characters(const char *name, int len)
{
	int			i;

	for (i = 0; i < len; i++)
	{
		if (name[i] == '$' || name[i] == ';' || name[i] == '\'' ||
			(name[i] == '-' && i + 1 < len && name[i + 1] == '-'))
			return false;
	}
	return true;
}

static void
check_characters(const char *name, int len)
{
	if (!has_only_good_characters(name, len))
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("queue name contains invalid characters: $, ;, --, or \\'")));
}

/*
 * As lower() does under the database's collation.  Lower-case ASCII stays as it
 * is under every collation; that is the fast path of every call.
 */
static char *
lower_name(const char *name, int len)
{
	int			i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) name[i];

		if (c >= 0x80 || (c >= 'A' && c <= 'Z'))
			return str_tolower(name, len, DEFAULT_COLLATION_OID);
	}
	return pnstrdup(name, len);
}

/*
 * The identity of a queue.  A name of any length is accepted, because only
 * create() and create_stream() limit it.  A name that is too long for a table becomes an identity
 * that no table can have: cut between characters and filled up to the last
 * byte, so that there is no room for the prefix.
 */
void
name_canonical(const text *queue_name, QueueName *name)
{
	const char *raw = VARDATA_ANY(queue_name);
	int			len = VARSIZE_ANY_EXHDR(queue_name);
	char	   *lower;
	int			lower_len;

	check_characters(raw, len);
	/* So many characters are always too long, so the rest does not matter */
	len = Min(len, NAMEDATALEN * MAX_MULTIBYTE_CHAR_LEN);
	lower = lower_name(raw, pg_mbcharcliplen(raw, len, NAMEDATALEN));
	lower_len = (int) strlen(lower);
	memset(name, 0, sizeof(*name));
	if (lower_len > NAMEDATALEN - 1)
	{
		lower_len = pg_mbcliplen(lower, lower_len, NAMEDATALEN - 1);
		memset(name->canonical, '~', NAMEDATALEN - 1);
	}
	memcpy(name->canonical, lower, lower_len);
	pfree(lower);
}

/* The same for a name that was found in a table; false if no queue can have it */
bool
name_try_canonical(const text *queue_name, QueueName *name)
{
	if (!has_only_good_characters(VARDATA_ANY(queue_name), VARSIZE_ANY_EXHDR(queue_name)))
		return false;
	name_canonical(queue_name, name);
	return true;
}

void
name_from_arg(FunctionCallInfo fcinfo, int argno, QueueName *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("null values cannot be formatted as an SQL identifier")));
	name_canonical(PG_GETARG_TEXT_PP(argno), name);
}

static void
check_length(const char *name, int len)
{
	if (len > MAX_QUEUE_NAME_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("queue name is too long, maximum length is 47 characters"),
				 errdetail("The name has %d bytes; a byte counts as one character.", len)));
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RAISE_EXCEPTION),
				 errmsg("queue_name cannot be NULL or empty")));
}

/*
 * The additional rule for the name of a new queue or stream.  Both spellings become
 * part of identifiers, and lower() may lengthen a name.
 */
void
name_validate_new(const text *queue_name, QueueName *name)
{
	const char *raw = VARDATA_ANY(queue_name);
	int			len = VARSIZE_ANY_EXHDR(queue_name);

	name_canonical(queue_name, name);
	check_length(raw, len);
	check_length(name->canonical, (int) strlen(name->canonical));
}

/* "q_orders", not quoted; palloc'd */
char *
name_bare(const QueueName *name, char prefix, const char *suffix)
{
	return psprintf("%c_%s%s", prefix, name->canonical, suffix);
}

/* The quoted, qualified name of the queue's table or its archive; palloc'd */
const char *
name_table(const QueueName *name, char prefix)
{
	return quote_qualified_identifier(PGMQ_SCHEMA, name_bare(name, prefix, ""));
}

/* "pgmq.q_orders", not quoted, as only pg_partman wants it; palloc'd */
const char *
name_unquoted(const QueueName *name, char prefix)
{
	return psprintf("%s.%s", PGMQ_SCHEMA, name_bare(name, prefix, ""));
}

/* The quoted, qualified sequence that the queue's ids come from; palloc'd */
const char *
name_sequence(const QueueName *name)
{
	return quote_qualified_identifier(PGMQ_SCHEMA,
									  psprintf("q_%s_msg_id_seq", name->canonical));
}

/* A quoted identifier made from the canonical name, not qualified; palloc'd */
char *
name_object(const QueueName *name, const char *prefix, const char *suffix)
{
	return pstrdup(quote_identifier(psprintf("%s%s%s", prefix,
											 name->canonical, suffix)));
}

/*
 * Put the names in place of {queue}, {archive}, {notes}, {keys}, {sequence}, {stream} and {positions}, and
 * conditions in place of {leaf} and {live}; palloc'd.  What was put in is not looked
 * at again.
 */
char *
name_expand_leaf(const char *sql_template, const QueueName *name, const char *leaf,
				 const char *live, const char *releases)
{
	const struct
	{
		const char *token;
		const char *value;
	}			tokens[] = {
		{"{queue}", name_table(name, QUEUE_TABLE)},
		{"{archive}", name_table(name, ARCHIVE_TABLE)},
		{"{notes}", name_table(name, NOTES_TABLE)},
		{"{keys}", name_table(name, KEYS_TABLE)},
		{"{sequence}", name_sequence(name)},
		{"{stream}", name_table(name, STREAM_TABLE)},
		{"{positions}", name_table(name, POSITIONS_TABLE)},
		{"{leaf}", leaf},
		{"{live}", live},
		{"{releases}", releases}
	};
	StringInfoData sql;
	const char *p = sql_template;

	initStringInfo(&sql);
	while (*p)
	{
		int			i;

		for (i = 0; i < lengthof(tokens); i++)
		{
			size_t		len = strlen(tokens[i].token);

			if (strncmp(p, tokens[i].token, len) == 0)
			{
				appendStringInfoString(&sql, tokens[i].value);
				p += len;
				break;
			}
		}
		if (i == lengthof(tokens))
			appendStringInfoChar(&sql, *p++);
	}
	return sql.data;
}

/* The same for all of the queue: {leaf} and {live} restrict nothing */
char *
name_expand(const char *sql_template, const QueueName *name)
{
	return name_expand_leaf(sql_template, name, "", "", "");
}

/*
 * pgmq.format_table_name(queue_name text, prefix text) -> text
 *
 * lower(prefix || '_' || queue_name), not quoted; NULL for NULL.
 */
Datum
pgmq_format_table_name(PG_FUNCTION_ARGS)
{
	text	   *queue_name;
	text	   *prefix;
	char	   *joined;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	queue_name = PG_GETARG_TEXT_PP(0);
	prefix = PG_GETARG_TEXT_PP(1);
	check_characters(VARDATA_ANY(queue_name), VARSIZE_ANY_EXHDR(queue_name));
	joined = psprintf("%s_%s", text_to_cstring(prefix), text_to_cstring(queue_name));
	PG_RETURN_TEXT_P(cstring_to_text(lower_name(joined, strlen(joined))));
}

/*
 * pgmq.validate_queue_name(queue_name text) -> void
 *
 * An error for a name that create() would refuse for its length.
 */
Datum
pgmq_validate_queue_name(PG_FUNCTION_ARGS)
{
	text	   *queue_name;

	if (!PG_ARGISNULL(0))
	{
		queue_name = PG_GETARG_TEXT_PP(0);
		check_length(VARDATA_ANY(queue_name), VARSIZE_ANY_EXHDR(queue_name));
	}
	PG_RETURN_VOID();
}
