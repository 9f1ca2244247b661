/*
 * xact.c
 *	  What reading and waiting do when transactions end, and in what order.
 *
 * An ERROR in XACT_EVENT_COMMIT is a PANIC of the whole cluster, so what is
 * called from here must be unable to fail: no allocation, no look-up, no lock
 * but a spinlock.
 *
 * COMMIT PREPARED and ROLLBACK PREPARED end a transaction of which this
 * session knows nothing.  A hook notes that they are run, and who waits in this
 * database is told to look.  (Other sessions may have no library loaded, and so
 * no hook.  Then it takes until the next look at intervals.)
 */
#include "pgmq.h"

#include "access/xact.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"

static ProcessUtility_hook_type next_utility_hook = NULL;

static void
at_transaction_end(XactEvent event, void *arg)
{
	starts_forget_own();
	switch (event)
	{
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			/* Who is woken must find what has come back */
			horizon_rolled_back();
			wake_rolled_back();
			horizon_forget();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			horizon_forget();
			wake_committed();
			break;
		case XACT_EVENT_PREPARE:
			horizon_forget();
			wake_forget();
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	/* What it has deleted has come back */
	starts_forget_own();
	/* Perhaps more than this subtransaction moved: that costs a short walk. */
	horizon_rolled_back();
	wake_subtransaction_rolled_back(id);
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
			wake_mark_all();
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
	static bool hooked = false;

	/* Each can run out of memory; the library is then loaded again */
	if (!xact_registered)
		RegisterXactCallback(at_transaction_end, NULL);
	xact_registered = true;
	if (!subxact_registered)
		RegisterSubXactCallback(at_subtransaction_end, NULL);
	subxact_registered = true;
	if (hooked)
		return;
	next_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = watch_prepared;
	hooked = true;
}
