/*
 * rights.c
 *	  What a caller may do, asked before anything is done.
 *
 * A function asks here before it takes a lock or writes anything.  So a refused
 * call leaves no trace and makes no other session wait.  The answers and the
 * errors are those of the server for the plain statement.
 */
#include "pgmq.h"

#include "catalog/objectaddress.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "base/owner.h"
#include "base/rights.h"

bool
rights_owns(Oid relid)
{
	Oid			owner = owner_of(relid);

	return OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);
}

/* A table that is gone meanwhile is not refused: the statement says that it is missing */
static void
refuse(Oid relid, AclResult result)
{
	char	   *relname = get_rel_name(relid);

	if (relname != NULL)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relid)), relname);
}

void
rights_refuse_table(Oid relid)
{
	refuse(relid, ACLCHECK_NO_PRIV);
}

/* Nothing is asked of a table that does not exist */
void
rights_require_owner(Oid relid)
{
	if (OidIsValid(relid) && !rights_owns(relid))
		refuse(relid, ACLCHECK_NOT_OWNER);
}

/* CREATE on the schema pgmq */
void
rights_require_create(void)
{
	AclResult	result = object_aclcheck(NamespaceRelationId, get_namespace_oid(PGMQ_SCHEMA, false),
										 GetUserId(), ACL_CREATE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_SCHEMA, PGMQ_SCHEMA);
}

static bool
has_table_privilege(Oid relid, AclMode privilege)
{
	bool		missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), privilege, &missing) == ACLCHECK_OK || missing;
}

void
rights_require_table(Oid relid, AclMode privilege)
{
	if (!has_table_privilege(relid, privilege))
		rights_refuse_table(relid);
}

static bool
has_privilege(Oid relid, AclMode privilege, const char *const *columns, int ncolumns)
{
	Oid			user = GetUserId();
	int			i;

	if (has_table_privilege(relid, privilege))
		return true;
	if (ncolumns == 0)
		return pg_attribute_aclcheck_all(relid, user, privilege, ACLMASK_ANY) == ACLCHECK_OK;
	for (i = 0; i < ncolumns; i++)
	{
		AttrNumber	attno = get_attnum(relid, columns[i]);

		if (attno == InvalidAttrNumber ||
			pg_attribute_aclcheck(relid, attno, user, privilege) != ACLCHECK_OK)
			return false;
	}
	return true;
}

/*
 * A privilege on the table, or on each of the columns; on any column if none is
 * named.
 */
void
rights_require_columns(Oid relid, AclMode privilege, const char *const *columns, int ncolumns)
{
	if (!has_privilege(relid, privilege, columns, ncolumns))
		rights_refuse_table(relid);
}

bool
rights_may_select(Oid relid, const char *const *columns, int ncolumns)
{
	return has_privilege(relid, ACL_SELECT, columns, ncolumns);
}

void
rights_require_select(Oid relid, const char *const *columns, int ncolumns)
{
	rights_require_columns(relid, ACL_SELECT, columns, ncolumns);
}
