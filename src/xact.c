/*
 * xact.c
 *	  What is done when transactions and subtransactions end, and in what order.
 *
 * This is the only file that registers callbacks for that.  Every module that keeps something of
 * a transaction in static memory has a function that resets it; docs/internals.md (Static
 * variables) lists them.
 *
 * An ERROR in XACT_EVENT_COMMIT is a PANIC of the whole cluster, so what is called from here must
 * be unable to fail: no allocation, no look-up, no lock but a spinlock or an LWLock.  Only what
 * comes before a commit may fail.
 *
 * COMMIT PREPARED and ROLLBACK PREPARED end a transaction of which this session knows nothing.  A
 * hook records that they are run, and for each queue of this database a waiting session is told
 * to look.  (A session without the library has no hook.  Then the messages are found by the next
 * look at intervals.)
 */
#include "pgmq.h"

#include "access/xact.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/resowner.h"

#include "group/group.h"
#include "notify/notify.h"
#include "policy/policy.h"
#include "position/position.h"
#include "wait/wait.h"
#include "xact.h"

static ProcessUtility_hook_type next_utility_hook = NULL;

/* Reset what belongs to the transaction, however it ends. */
static void
forget_transaction(void)
{
	horizon_forget();
	wake_forget();
	notify_forget();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	starts_forget_own();
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			announce_before_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			announce_before_prepare();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			length_end(true);
			wake_committed();
			announce_end(true);
			forget_transaction();
			held_ended(true);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			notify_rolled_back();
			/* First, so that the sessions that are woken find what has come back */
			horizon_rolled_back();
			limits_rolled_back(InvalidSubTransactionId);
			length_end(false);
			wake_rolled_back();
			announce_end(false);
			forget_transaction();
			held_ended(false);
			break;
		case XACT_EVENT_PREPARE:
			length_prepared();
			announce_end(false);
			forget_transaction();
			held_forget();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	switch (event)
	{
		case SUBXACT_EVENT_COMMIT_SUB:
			length_subtransaction_end(true, id, parent);
			announce_subtransaction_end(true);
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			/* What it has deleted has come back */
			starts_forget_own();
			notify_rolled_back();
			/* Perhaps more than this subtransaction has moved: that costs a short scan. */
			horizon_rolled_back();
			limits_rolled_back(id);
			length_subtransaction_end(false, id, parent);
			wake_subtransaction_rolled_back(id);
			announce_subtransaction_end(false);
			held_subtransaction_rolled_back(id);
			break;
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;
	}
}

/* The only step that comes after the locks of what ended */
static void
at_release(ResourceReleasePhase phase, bool committed, bool top_level, void *arg)
{
	if (phase == RESOURCE_RELEASE_AFTER_LOCKS)
		held_after_locks();
}

static void
watch_prepared(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			   ProcessUtilityContext context, ParamListInfo params,
			   QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (IsA(pstmt->utilityStmt, TransactionStmt))
	{
		TransactionStmtKind kind = ((TransactionStmt *) pstmt->utilityStmt)->kind;

		if (kind == TRANS_STMT_COMMIT_PREPARED || kind == TRANS_STMT_ROLLBACK_PREPARED)
			effect_all();
	}
	if (next_utility_hook)
		next_utility_hook(pstmt, query, read_only_tree, context, params, environment,
						  dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);
}

/* Called while the library is loaded, as the last thing that can fail */
void
xact_init(void)
{
	static bool xact_registered = false;
	static bool subxact_registered = false;
	static bool release_registered = false;
	static bool hooked = false;

	/* Each can run out of memory; the library is then loaded again */
	if (!xact_registered)
		RegisterXactCallback(at_transaction_end, NULL);
	xact_registered = true;
	if (!subxact_registered)
		RegisterSubXactCallback(at_subtransaction_end, NULL);
	subxact_registered = true;
	if (!release_registered)
		RegisterResourceReleaseCallback(at_release, NULL);
	release_registered = true;
	if (hooked)
		return;
	next_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = watch_prepared;
	hooked = true;
}
