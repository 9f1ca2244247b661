/*
 * compat.h
 *	  Every difference between the server versions we support.
 *
 * No other file asks for PG_VERSION_NUM.  A shim has the name the newest
 * server uses, so that the code reads as if written for that one.
 */
#ifndef PGMQ_COMPAT_H
#define PGMQ_COMPAT_H

#if PG_VERSION_NUM < 150001
#error "pgmq needs PostgreSQL 15.1 or later (InitMaterializedSRF came with 15.1)"
#endif
#if PG_VERSION_NUM >= 190000
#error "pgmq supports PostgreSQL 15 to 18"
#endif

/* These minors had an ABI break that the next release took back. */
#if PG_VERSION_NUM == 150009 || PG_VERSION_NUM == 160005 || PG_VERSION_NUM == 170001
#error "this minor release has a withdrawn ABI; build against the next one"
#endif

/* 16 split varatt.h out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 made PGDLLEXPORT mean something for others than Windows, and PG_FUNCTION_INFO_V1 say it of the function. */
#if PG_VERSION_NUM < 160000 && !defined(WIN32)
#include "fmgr.h"
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname) \
extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS); \
extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, funcname) (void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_, funcname) (void) \
{ \
	static const Pg_finfo_record my_finfo = {1}; \
	return &my_finfo; \
} \
extern int	no_such_variable
#endif

/* 16 asks for privileges on all kinds of objects by one function. */
#if PG_VERSION_NUM < 160000
#include "utils/acl.h"
#define object_aclcheck(classid, objid, roleid, mode) \
	((void) (classid), pg_namespace_aclcheck(objid, roleid, mode))
#endif

/* 16 declares _PG_init in fmgr.h. */
#if PG_VERSION_NUM < 160000
extern PGDLLEXPORT void _PG_init(void);
#endif

/* 16 renamed RelFileNode to RelFileLocator. */
#if PG_VERSION_NUM < 160000
#define RelationFileNumber(rel) ((rel)->rd_node.relNode)
#else
#define RelationFileNumber(rel) ((rel)->rd_locator.relNumber)
#endif

/* 17 named a backend by its PGPROC number, also in VirtualTransactionId. */
#if PG_VERSION_NUM < 170000
#define VirtualTransactionProc(vxid) BackendIdGetProc((vxid).backendId)
#define ProcLocalTransactionId(proc) ((proc)->lxid)
#define VirtualTransactionNumber(vxid) ((vxid).backendId)
#else
#define VirtualTransactionProc(vxid) ProcNumberGetProc((vxid).procNumber)
#define ProcLocalTransactionId(proc) ((proc)->vxid.lxid)
#define VirtualTransactionNumber(vxid) ((vxid).procNumber)
#endif

/* 17 taught LockHeldByMe() about stronger locks. */
#if PG_VERSION_NUM < 170000
#include "storage/lock.h"
static inline bool
lock_held_by_me(const LOCKTAG *locktag, LOCKMODE lockmode, bool orstronger)
{
	if (LockHeldByMe(locktag, lockmode))
		return true;
	while (orstronger && ++lockmode <= MaxLockMode)
	{
		if (LockHeldByMe(locktag, lockmode))
			return true;
	}
	return false;
}
#define LockHeldByMe(locktag, lockmode, orstronger) lock_held_by_me(locktag, lockmode, orstronger)
#endif

/* 17 gave MyProcNumber to what was in PGPROC, renamed the variable cache, and let names be given to wait events. */
#if PG_VERSION_NUM < 170000
#define MyProcNumber (MyProc->pgprocno)
#define TransamVariables ShmemVariableCache
#define WaitEventExtensionNew(name) PG_WAIT_EXTENSION
#endif

/* 17 brought comparisons for qsort(). */
#if PG_VERSION_NUM < 170000
static inline int
pg_cmp_s64(int64 a, int64 b)
{
	return (a > b) - (a < b);
}

static inline int
pg_cmp_u32(uint32 a, uint32 b)
{
	return (a > b) - (a < b);
}
#else
#include "common/int.h"
#endif

/* 17 brought infinite intervals. */
#if PG_VERSION_NUM < 170000
#define INTERVAL_NOT_FINITE(interval) false
#endif

/*
 * In libpq/libpq.h of all versions; that includes headers of Kerberos and OpenSSL,
 * which need not be installed.
 */
#include "storage/latch.h"
extern PGDLLIMPORT WaitEventSet *FeBeWaitSet;
#define FeBeWaitSetSocketPos 0

/* 18 runs a query once only. */
#if PG_VERSION_NUM < 180000
#include "executor/executor.h"
#define ExecutorRun(desc, direction, count) (ExecutorRun)(desc, direction, count, true)
#endif

/* 18 counts index searches for EXPLAIN. */
#if PG_VERSION_NUM < 180000
#include "access/genam.h"
#define index_beginscan(heap, index, snapshot, instrument, nkeys, norderbys) \
	(index_beginscan)(heap, index, snapshot, nkeys, norderbys)
#endif

/* 17 brought get_rel_relam(). */
#if PG_VERSION_NUM < 170000
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "utils/syscache.h"
static inline Oid
get_rel_relam(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			relam;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	relam = ((Form_pg_class) GETSTRUCT(tuple))->relam;
	ReleaseSysCache(tuple);
	return relam;
}
#endif

/* 17 asks for the table whose column has the sequence, not for its OID. */
#if PG_VERSION_NUM < 170000
#include "catalog/dependency.h"
#include "utils/rel.h"
#define getIdentitySequence(rel, attnum, missing_ok) \
	(getIdentitySequence)(RelationGetRelid(rel), attnum, missing_ok)
#endif

/* 18 has generated columns that are not stored. */
#if PG_VERSION_NUM >= 180000
#define is_stored(att) ((att)->attgenerated != ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define is_stored(att) true
#endif

/* 17 brought shared memory that needs no preloading. */
#if PG_VERSION_NUM >= 170000
#define HAVE_NAMED_DSM_SEGMENTS
#endif

/* 17 has a memory context's methods raise the error for lack of memory (test/faults). */
#if PG_VERSION_NUM >= 170000
#define HAVE_ALLOC_FLAGS
#endif

#endif							/* PGMQ_COMPAT_H */
