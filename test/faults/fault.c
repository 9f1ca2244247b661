/*
 * fault.c
 *	  For tests only, never installed: let the Nth allocation of the session's
 *	  next statement fail, or have a cancel arrive at its Nth
 *	  CHECK_FOR_INTERRUPTS(), or let it wait there, or at the Nth allocation
 *	  that a function of the extension asks for itself.
 *
 * fault_alloc(n), fault_cancel(n), fault_terminate(n), fault_pause(n) and fault_pause_alloc(n) arm a
 * fault for the executor's part of the next statement, planning and execution
 * of all that the called function runs included.  n = 0 only counts.  fault_disarm() then
 * says whether the fault came, fault_seen() how many opportunities there were,
 * and fault_sites() which of them were the first of their place in the code:
 * all of these, or those near our functions only.
 *
 * Allocations: every memory context points to the table of methods of its
 * kind, and the server allocates through that table, always.  So it is enough
 * to put our own functions into these few tables.
 *
 * A pause lasts as long as another session holds pg_advisory_lock(1).
 *
 * Interrupts: with InterruptPending set, each CHECK_FOR_INTERRUPTS() calls
 * ProcessInterrupts().  While armed, that function begins with a jump to ours.
 */
#include "postgres.h"

#include <execinfo.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/memutils.h"
#ifdef HAVE_ALLOC_FLAGS
#include "utils/memutils_internal.h"
#endif
#include "utils/typcache.h"
#ifdef HAVE_NAMED_DSM_SEGMENTS
#include "storage/dsm_registry.h"
#endif

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fault_alloc);
PG_FUNCTION_INFO_V1(fault_cancel);
PG_FUNCTION_INFO_V1(fault_terminate);
PG_FUNCTION_INFO_V1(fault_pause);
PG_FUNCTION_INFO_V1(fault_pause_alloc);
PG_FUNCTION_INFO_V1(fault_disarm);
PG_FUNCTION_INFO_V1(fault_seen);
PG_FUNCTION_INFO_V1(fault_sites);
PG_FUNCTION_INFO_V1(fault_segment);

typedef enum Fault
{
	FAULT_NONE,
	FAULT_ALLOC,
	FAULT_CANCEL,
	FAULT_TERMINATE,
	FAULT_PAUSE,
	FAULT_PAUSE_ALLOC
} Fault;

static Fault armed = FAULT_NONE;	/* for the next statement */
static Fault active = FAULT_NONE;	/* in this one */
static QueryDesc *watched = NULL;
static int64 target;			/* 0: count */
static int64 seen;
static bool fired;

/* ---- places in the code ---- */

/* What tells two places apart: so many return addresses */
#define FRAMES 8
#define OWN_FRAMES 3
#define PLACES 32768

/* So near above an allocation, a function of the extension has asked for it itself */
#define NEAR_FRAMES 4

static uint64 places[PLACES];
static int64 first_seen[PLACES];
static bool is_near[PLACES];
static int	nplaces;

static void
note_place(uint64 place, bool near)
{
	uint32		i = place % PLACES;

	if (nplaces >= PLACES / 2)
		return;
	for (; places[i] != 0; i = (i + 1) % PLACES)
	{
		if (places[i] == place)
			return;
	}
	places[i] = place;
	first_seen[i] = seen;
	is_near[i] = near;
	nplaces++;
}

/* Where the extension's code lies */
static uintptr_t ours_from = 0;
static uintptr_t ours_until = 0;

static int
look_for_ours(struct dl_phdr_info *info, size_t size, void *arg)
{
	int			i;

	if (strstr(info->dlpi_name, "/pgmq.so") == NULL)
		return 0;
	for (i = 0; i < info->dlpi_phnum; i++)
	{
		if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X))
		{
			ours_from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			ours_until = ours_from + info->dlpi_phdr[i].p_memsz;
		}
	}
	return 1;
}

/* The first allocations may come before the library is loaded */
static bool
is_ours(void *address)
{
	if (ours_until == 0)
		dl_iterate_phdr(look_for_ours, NULL);
	return (uintptr_t) address >= ours_from && (uintptr_t) address < ours_until;
}

static void
note_stack(void)
{
	void	   *frames[OWN_FRAMES + FRAMES];
	int			count = backtrace(frames, lengthof(frames));
	uint64		hash = UINT64CONST(14695981039346656037);
	bool		near = false;
	int			i;

	for (i = Min(OWN_FRAMES, count); i < count; i++)
	{
		hash = (hash ^ (uint64) (uintptr_t) frames[i]) * UINT64CONST(1099511628211);
		near |= i < OWN_FRAMES + NEAR_FRAMES && is_ours(frames[i]);
	}
	note_place(hash, near);
}

/* ---- allocations ---- */

/* How long a function of the server may be, and how far above an allocation it may be that it asks for */
#define ASKING_CODE 4096
#define ASKING_FRAMES 6

static bool
is_asked_by(uintptr_t function)
{
	void	   *frames[ASKING_FRAMES];
	int			count = backtrace(frames, lengthof(frames));
	int			i;

	for (i = 0; i < count; i++)
	{
		uintptr_t	caller = (uintptr_t) frames[i];

		if (caller >= function && caller < function + ASKING_CODE)
			return true;
	}
	return false;
}

/*
 * Three places in the server do not survive that they get no memory.  One such failure can
 * crash a session that has never heard of us, in a later call, so none is made there.
 *
 * pgstat_get_entry_ref_cached() (15, 17.11, 18.6) enters a reference in its hash before
 * it has memory for it.  The entry then keeps what its slot had before: a freed
 * reference, or another's.
 *
 * lookup_type_cache() takes its first hash as the sign that everything behind it is there:
 * another hash, and from 18 on a list.  If the memory for these fails, the next look-up in the
 * session follows a null pointer.
 *
 * LockAcquireExtended() leaves a lock without a list of its owners behind until the transaction ends.  If only a
 * subtransaction has ended, who takes that lock follows a null pointer.
 */
static bool
is_spared(MemoryContext context)
{
	return strcmp(context->name, "PgStat Shared Ref") == 0 ||
		((context == CacheMemoryContext || strcmp(context->name, "dynahash") == 0) &&
		 is_asked_by((uintptr_t) lookup_type_cache)) ||
		(context == TopMemoryContext && is_asked_by((uintptr_t) LockAcquireExtended));
}

/* What is above an allocation: functions of this file and of the server's memory, then who has asked for it */
#define NEXT_FRAMES 5

static void wait_for_the_lock(void);

static void
pause_at_allocation(void)
{
	void	   *frames[NEXT_FRAMES];
	bool		ours = false;
	int			count;
	int			i;

	/* Who holds a lock of the server's inside waits for nobody */
	if (InterruptHoldoffCount != 0 || CritSectionCount != 0 || QueryCancelHoldoffCount != 0)
		return;
	count = backtrace(frames, lengthof(frames));
	for (i = 0; i < count; i++)
		ours |= is_ours(frames[i]);
	if (!ours || ++seen != target)
		return;
	active = FAULT_NONE;
	fired = true;
	wait_for_the_lock();
}

static bool
allocation_fails(MemoryContext context)
{
	if (active == FAULT_PAUSE_ALLOC)
		pause_at_allocation();
	/* In a critical section the server allocates nothing that may fail */
	if (active != FAULT_ALLOC || CritSectionCount > 0 || is_spared(context))
		return false;
	seen++;
	if (target == 0)
		note_stack();
	if (target == 0 || seen != target)
		return false;
	active = FAULT_NONE;
	fired = true;
	return true;
}

#ifdef HAVE_ALLOC_FLAGS

#define METHODS(kind) \
	static void *(*kind##_alloc) (MemoryContext, Size, int); \
	static void *(*kind##_realloc) (void *, Size, int); \
	static void * \
	my_##kind##_alloc(MemoryContext context, Size size, int flags) \
	{ \
		return allocation_fails(context) ? MemoryContextAllocationFailure(context, size, flags) : \
			kind##_alloc(context, size, flags); \
	} \
	static void * \
	my_##kind##_realloc(void *pointer, Size size, int flags) \
	{ \
		MemoryContext context = GetMemoryChunkContext(pointer); \
		return allocation_fails(context) ? MemoryContextAllocationFailure(context, size, flags) : \
			kind##_realloc(pointer, size, flags); \
	}

#else

#define METHODS(kind) \
	static void *(*kind##_alloc) (MemoryContext, Size); \
	static void *(*kind##_realloc) (MemoryContext, void *, Size); \
	static void * \
	my_##kind##_alloc(MemoryContext context, Size size) \
	{ \
		return allocation_fails(context) ? NULL : kind##_alloc(context, size); \
	} \
	static void * \
	my_##kind##_realloc(MemoryContext context, void *pointer, Size size) \
	{ \
		return allocation_fails(context) ? NULL : kind##_realloc(context, pointer, size); \
	}

#endif

METHODS(aset)
METHODS(generation)
METHODS(slab)

static void
make_writable(void *start, size_t size, int protection)
{
	uintptr_t	page = sysconf(_SC_PAGESIZE);
	uintptr_t	from = (uintptr_t) start & ~(page - 1);

	if (mprotect((void *) from, (uintptr_t) start + size - from, protection) != 0)
		elog(ERROR, "mprotect: %m");
}

#define REPLACE(kind, context) \
	do { \
		MemoryContext c = (context); \
		MemoryContextMethods *methods = (MemoryContextMethods *) c->methods; \
		make_writable(methods, sizeof(*methods), PROT_READ | PROT_WRITE); \
		kind##_alloc = methods->alloc; \
		methods->alloc = my_##kind##_alloc; \
		kind##_realloc = methods->realloc; \
		methods->realloc = my_##kind##_realloc; \
		MemoryContextDelete(c); \
	} while (0)

static void
replace_methods(void)
{
	REPLACE(aset, AllocSetContextCreate(CurrentMemoryContext, "fault", ALLOCSET_SMALL_SIZES));
	REPLACE(generation, GenerationContextCreate(CurrentMemoryContext, "fault", ALLOCSET_SMALL_SIZES));
	REPLACE(slab, SlabContextCreate(CurrentMemoryContext, "fault", 8192, 64));
}

/* ---- interrupts ---- */

#if defined(__x86_64__)
#define JUMP_SIZE 12
static void
make_jump(uint8 *code, void (*to) (void))
{
	uint64		address = (uint64) (uintptr_t) to;

	memcpy(code, "\x48\xb8", 2);	/* movabs $address, %rax */
	memcpy(code + 2, &address, 8);
	memcpy(code + 10, "\xff\xe0", 2);	/* jmp *%rax */
}
#elif defined(__aarch64__)
#define JUMP_SIZE 16
static void
make_jump(uint8 *code, void (*to) (void))
{
	uint32		load = 0x58000050;	/* ldr x16, .+8 */
	uint32		jump = 0xd61f0200;	/* br x16 */
	uint64		address = (uint64) (uintptr_t) to;

	memcpy(code, &load, 4);
	memcpy(code + 4, &jump, 4);
	memcpy(code + 8, &address, 8);
}
#else
#define JUMP_SIZE 1
static void
make_jump(uint8 *code, void (*to) (void))
{
	elog(ERROR, "fault_cancel() does not know this processor");
}
#endif

static uint8 original[JUMP_SIZE];
static bool patched = false;

static void
patch(const uint8 *code)
{
	void	   *start = (void *) ProcessInterrupts;

	make_writable(start, JUMP_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(start, code, JUMP_SIZE);
	__builtin___clear_cache((char *) start, (char *) start + JUMP_SIZE);
#ifdef VALGRIND_DISCARD_TRANSLATIONS
	/* It doesn't look whether the code of a file has changed */
	VALGRIND_DISCARD_TRANSLATIONS(start, JUMP_SIZE);
#endif
}

static void
unpatch(void)
{
	if (patched)
		patch(original);
	patched = false;
}

static void
wait_for_the_lock(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 1, 1);
	(void) LockAcquire(&tag, ShareLock, true, false);
	(void) LockRelease(&tag, ShareLock, true);
}

/* How long ProcSleep() may be */
#define WAIT_CODE 8192

/* Who waits for a lock, or has just got it, can't wait for another one there. */
static bool
is_waiting_for_lock(uintptr_t caller)
{
	return caller >= (uintptr_t) ProcSleep && caller < (uintptr_t) ProcSleep + WAIT_CODE;
}

/* In place of ProcessInterrupts(); InterruptPending stays set */
static void
at_interrupt_check(void)
{
	if (InterruptHoldoffCount != 0 || CritSectionCount != 0 || QueryCancelHoldoffCount != 0)
		return;
	if (active == FAULT_PAUSE && is_waiting_for_lock((uintptr_t) __builtin_return_address(0)))
		return;
	seen++;
	if (target == 0)
		note_place((uint64) (uintptr_t) __builtin_return_address(0), true);
	if (target == 0 || seen != target)
		return;
	unpatch();
	fired = true;
	if (active == FAULT_PAUSE)
	{
		active = FAULT_NONE;
		wait_for_the_lock();
		return;
	}
	if (active == FAULT_TERMINATE)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	active = FAULT_NONE;
	ProcessInterrupts();
}

static void
watch_interrupts(void)
{
	uint8		jump[JUMP_SIZE];

	make_jump(jump, at_interrupt_check);
	memcpy(original, (void *) ProcessInterrupts, JUMP_SIZE);
	patch(jump);
	patched = true;
	InterruptPending = true;
}

/* ---- crashes ---- */

/* Where it was goes to the server's log; then the session ends as it would have. */
static void
at_crash(int signo)
{
	void	   *frames[64];

	backtrace_symbols_fd(frames, backtrace(frames, lengthof(frames)), STDERR_FILENO);
	signal(signo, SIG_DFL);
	raise(signo);
}

/* ---- from the start of a statement to its end ---- */

static ExecutorStart_hook_type next_start = NULL;
static ExecutorFinish_hook_type next_finish = NULL;

static void
deactivate(void)
{
	active = FAULT_NONE;
	watched = NULL;
	unpatch();
}

static void
at_start(QueryDesc *desc, int eflags)
{
	if (armed != FAULT_NONE)
	{
		seen = 0;
		nplaces = 0;
		memset(places, 0, sizeof(places));
		fired = false;
		watched = desc;
		active = armed;
		armed = FAULT_NONE;
		if (active != FAULT_ALLOC && active != FAULT_PAUSE_ALLOC)
			watch_interrupts();
	}
	if (next_start)
		next_start(desc, eflags);
	else
		standard_ExecutorStart(desc, eflags);
}

static void
at_finish(QueryDesc *desc)
{
	if (desc == watched)
		deactivate();
	if (next_finish)
		next_finish(desc);
	else
		standard_ExecutorFinish(desc);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		deactivate();
}

void
_PG_init(void)
{
	void	   *frames[1];

	(void) backtrace(frames, 1);	/* loads what it needs */
	signal(SIGSEGV, at_crash);
	signal(SIGABRT, at_crash);
	replace_methods();
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = at_start;
	next_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = at_finish;
	RegisterXactCallback(at_transaction_end, NULL);
}

static Datum
arm(FunctionCallInfo fcinfo, Fault fault)
{
	armed = fault;
	target = PG_GETARG_INT64(0);
	fired = false;
	PG_RETURN_VOID();
}

/* fault_alloc(n bigint) -> void */
Datum
fault_alloc(PG_FUNCTION_ARGS)
{
	return arm(fcinfo, FAULT_ALLOC);
}

/* fault_cancel(n bigint) -> void */
Datum
fault_cancel(PG_FUNCTION_ARGS)
{
	return arm(fcinfo, FAULT_CANCEL);
}

/* fault_pause(n bigint) -> void */
Datum
fault_pause(PG_FUNCTION_ARGS)
{
	return arm(fcinfo, FAULT_PAUSE);
}

/* fault_pause_alloc(n bigint) -> void */
Datum
fault_pause_alloc(PG_FUNCTION_ARGS)
{
	return arm(fcinfo, FAULT_PAUSE_ALLOC);
}

/* fault_terminate(n bigint) -> void */
Datum
fault_terminate(PG_FUNCTION_ARGS)
{
	return arm(fcinfo, FAULT_TERMINATE);
}

/* fault_disarm() -> boolean: whether the fault came */
Datum
fault_disarm(PG_FUNCTION_ARGS)
{
	armed = FAULT_NONE;
	deactivate();
	PG_RETURN_BOOL(fired);
}

/* fault_seen() -> bigint */
Datum
fault_seen(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(seen);
}

/* fault_sites(near boolean) -> bigint[]: after a count, the n of the first time at each place */
Datum
fault_sites(PG_FUNCTION_ARGS)
{
	Datum	   *values = palloc(sizeof(Datum) * (nplaces + 1));
	int			count = 0;
	int			i;

	for (i = 0; i < PLACES; i++)
	{
		if (places[i] != 0 && (is_near[i] || !PG_GETARG_BOOL(0)))
			values[count++] = Int64GetDatum(first_seen[i]);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(values, count, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE));
}

/* fault_segment() -> void: make the server's registry of shared segments, with one that is not ours */
Datum
fault_segment(PG_FUNCTION_ARGS)
{
#ifdef HAVE_NAMED_DSM_SEGMENTS
	bool		found;

	(void) GetNamedDSMSegment("fault", 64, NULL, &found);
#endif
	PG_RETURN_VOID();
}
