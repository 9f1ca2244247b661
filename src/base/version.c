/*
 * version.c
 *	  Whether the library of this session and the SQL objects of this database belong together.
 *
 * They can be of different versions.  New files were installed, and the database is not
 * updated yet.  Or it is updated, and a session has loaded the library before.  Most calls
 * work then as well, so nothing is refused for the version alone:
 *
 * 1. A function in C keeps its arguments and its result for ever.  A new form gets a new name,
 *	  and the old one stays.  So a script of any version finds functions that fit, or none:
 *	  then the server raises an error.
 * 2. Tables and types are checked before they are used (relcheck.c).  Where such a check
 *	  fails, it asks here whether the versions are the reason.
 * 3. Shared memory has the version of its layout in its name (shared.c).
 */
#include "pgmq.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "base/version.h"

/* Of the objects in this database; NULL if there is no extension */
static char *
installed_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	char	   *version = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("pgmq"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		version = isnull ? NULL : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/* An object is not as this library needs it: raise an error if that can be because of the versions */
void
version_refuse_other(const char *problem)
{
	char	   *installed = installed_version();

	if (installed != NULL && strcmp(installed, PGMQ_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of pgmq has version %s, and the extension in this database has version %s",
						PGMQ_VERSION, installed),
				 errdetail("%s", problem),
				 errhint("If the library is newer, use ALTER EXTENSION pgmq UPDATE. If it is older, connect again; if that does not help, install its files and restart the server.")));
}
