/*
 * firstnames.c
 *	  The functions of the earliest published versions, as SQL functions over ours.
 *
 * They belong to the role that has made them, are no members of the extension, and
 * have no dependency on it: a dump contains them, and DROP EXTENSION leaves them.  They
 * run with the rights of their caller.  All names in them are qualified, and all
 * arguments are given, so that no function of another role is preferred to ours.
 *
 * Names of parameters, the order of columns and what NULL does (nothing, as they are
 * STRICT) are those of the versions before 0.24.
 */
#include "pgmq.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "admin/admin.h"

PG_FUNCTION_INFO_V1(pgmq_create_first_names);
PG_FUNCTION_INFO_V1(pgmq_drop_first_names);

#define FIRST_NAME_ARGS 3

typedef struct FirstName
{
	const char *name;
	int			nargs;
	Oid			types[FIRST_NAME_ARGS];
	const char *parameters;
	const char *result;
	Oid			result_type;
	bool		returns_set;
	const char *body;
	const char *comment;
} FirstName;

#define MESSAGES \
	"TABLE (msg_id bigint, read_ct integer, vt timestamp with time zone," \
	" enqueued_at timestamp with time zone, message pg_catalog.jsonb)"
#define MESSAGE_OF(call) \
	"SELECT m.msg_id, m.read_ct, m.vt, m.enqueued_at, m.message FROM " call " AS m"

/* A function is ours if it is exactly this.  An older body of ours would have to stay known here. */
static const FirstName FirstNames[] = {
	{"pgmq_create", 1, {TEXTOID}, "queue_name pg_catalog.text", "void", VOIDOID, false,
	"SELECT pgmq.create($1)", "The first name of pgmq.create"},
	{"pgmq_send", 2, {TEXTOID, JSONBOID}, "queue_name pg_catalog.text, message pg_catalog.jsonb",
	"bigint", INT8OID, false,
	"SELECT s FROM pgmq.send($1, $2) AS s", "The first name of pgmq.send"},
	{"pgmq_read", 3, {TEXTOID, INT4OID, INT4OID}, "queue_name pg_catalog.text, vt integer, \"limit\" integer",
	MESSAGES, RECORDOID, true,
	MESSAGE_OF("pgmq.read($1, $2, $3, '{}'::pg_catalog.jsonb)"), "The first name of pgmq.read"},
	{"pgmq_pop", 1, {TEXTOID}, "queue_name pg_catalog.text", MESSAGES, RECORDOID, true,
	MESSAGE_OF("pgmq.pop($1, 1)"), "The first name of pgmq.pop"},
	{"pgmq_archive", 2, {TEXTOID, INT8OID}, "queue_name pg_catalog.text, msg_id bigint",
	"boolean", BOOLOID, false,
	"SELECT pgmq.archive($1, $2)", "The first name of pgmq.archive"},
	{"pgmq_delete", 2, {TEXTOID, INT8OID}, "queue_name pg_catalog.text, msg_id bigint",
	"boolean", BOOLOID, false,
	"SELECT pgmq.delete($1, $2)", "The first name of pgmq.delete"}
};

static Oid
schema_from_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("schema_name cannot be NULL")));
	return get_namespace_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);
}

/* What has this name and these arguments in the schema: NULL, or a tuple to release */
static HeapTuple
find_function(const FirstName *first, Oid schema)
{
	return SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(first->name),
						   PointerGetDatum(buildoidvector(first->types, first->nargs)),
						   ObjectIdGetDatum(schema));
}

static bool
has_body(HeapTuple tuple, const char *body)
{
	bool		isnull;
	Datum		source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);

	return !isnull && strcmp(TextDatumGetCString(source), body) == 0;
}

/*
 * Whether it does what our function does, any role may have made it.  The body alone is
 * not enough, because a function with SECURITY DEFINER or with settings does something else.
 */
static bool
is_ours(HeapTuple tuple, const FirstName *first)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);

	return form->prokind == PROKIND_FUNCTION && form->prolang == SQLlanguageId &&
		form->prorettype == first->result_type && form->proretset == first->returns_set &&
		form->proisstrict && !form->prosecdef && heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL) &&
		heap_attisnull(tuple, Anum_pg_proc_prosqlbody, NULL) && has_body(tuple, first->body);
}

/* For messages: with its schema and the types of its arguments */
static const char *
describe(const FirstName *first, Oid schema)
{
	return funcname_signature_string(quote_qualified_identifier(get_namespace_name(schema), first->name),
									 first->nargs, NIL, first->types);
}

/*
 * The owner of a function can replace it at any time, and it runs with the rights of
 * its callers.  So a function of another role is refused, even if it is like ours now
 * and the caller is a superuser.
 */
static void
require_ours(HeapTuple tuple, const FirstName *first, Oid schema)
{
	Oid			owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	bool		same = is_ours(tuple, first);

	if (!same || (owner != GetUserId() && !superuser_arg(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_FUNCTION),
				 errmsg("function %s already exists", describe(first, schema)),
				 same ?
				 errdetail("It belongs to role \"%s\".", GetUserNameFromId(owner, false)) :
				 errdetail("It is not the one that create_first_names makes."),
				 errhint("Drop it, give it another name, or use another schema.")));
}

/* Whether there is such a function of ours already */
static bool
exists(const FirstName *first, Oid schema)
{
	HeapTuple	tuple = find_function(first, schema);

	if (!HeapTupleIsValid(tuple))
		return false;
	require_ours(tuple, first, schema);
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_FUNCTION),
			 errmsg("function %s already exists, skipping", describe(first, schema))));
	ReleaseSysCache(tuple);
	return true;
}

/*
 * Only one session at a time works on these functions of a schema: programs may call
 * this when they start, several at once.  DDL on other objects of the schema is not
 * held up.  Roles that may not do anything here never take the lock.
 */
static void
lock_names(Oid schema)
{
	LockDatabaseObject(NamespaceRelationId, schema, 0, ShareUpdateExclusiveLock);
}

static void
require_create(Oid schema)
{
	AclResult	result = object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_CREATE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_SCHEMA, get_namespace_name(schema));
}

/* Not CREATE OR REPLACE: what a user makes at the same moment is an error */
static void
create_function(const FirstName *first, const char *schema)
{
	const char *name = quote_qualified_identifier(schema, first->name);

	run_ddl("CREATE FUNCTION %s(%s) RETURNS %s LANGUAGE sql STRICT AS %s",
			name, first->parameters, first->result, quote_literal_cstr(first->body));
	run_ddl("COMMENT ON FUNCTION %s(%s) IS %s",
			name, first->parameters, quote_literal_cstr(first->comment));
}

/* pgmq.create_first_names(schema_name text) -> void */
Datum
pgmq_create_first_names(PG_FUNCTION_ARGS)
{
	Oid			schema = schema_from_arg(fcinfo);
	const char *schema_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			i;

	require_create(schema);
	lock_names(schema);
	SPI_connect();
	for (i = 0; i < lengthof(FirstNames); i++)
	{
		if (!exists(&FirstNames[i], schema))
			create_function(&FirstNames[i], schema_name);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/* Whether one of the functions is ours, and the caller may drop it */
static bool
may_drop(Oid schema)
{
	bool		may = false;
	int			i;

	for (i = 0; i < lengthof(FirstNames); i++)
	{
		HeapTuple	tuple = find_function(&FirstNames[i], schema);

		if (!HeapTupleIsValid(tuple))
			continue;
		may |= is_ours(tuple, &FirstNames[i]) &&
			has_privs_of_role(GetUserId(), ((Form_pg_proc) GETSTRUCT(tuple))->proowner);
		ReleaseSysCache(tuple);
	}
	return may;
}

static bool
drop_function(const FirstName *first, Oid schema, const char *schema_name)
{
	HeapTuple	tuple = find_function(first, schema);
	bool		ours;

	if (!HeapTupleIsValid(tuple))
		return false;
	ours = is_ours(tuple, first);
	if (!ours)
		ereport(NOTICE,
				(errmsg("function %s stays: create_first_names has not made it", describe(first, schema))));
	ReleaseSysCache(tuple);
	if (ours)
		run_ddl("DROP FUNCTION %s(%s)", quote_qualified_identifier(schema_name, first->name),
				first->parameters);
	return ours;
}

/* pgmq.drop_first_names(schema_name text) -> boolean: whether there was one */
Datum
pgmq_drop_first_names(PG_FUNCTION_ARGS)
{
	Oid			schema = schema_from_arg(fcinfo);
	const char *schema_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		dropped = false;
	int			i;

	if (may_drop(schema))
		lock_names(schema);
	SPI_connect();
	for (i = 0; i < lengthof(FirstNames); i++)
		dropped |= drop_function(&FirstNames[i], schema, schema_name);
	SPI_finish();
	PG_RETURN_BOOL(dropped);
}
