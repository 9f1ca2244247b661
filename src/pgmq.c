/*
 * pgmq.c
 *	  The module: magic and settings.
 */
#include "pgmq.h"

#include <limits.h>

#include "utils/guc.h"

#include "base/base.h"
#include "notify/notify.h"
#include "policy/policy.h"
#include "position/position.h"
#include "upkeep/upkeep.h"
#include "wait/wait.h"
#include "xact.h"

PG_MODULE_MAGIC;

/* A placeholder, for a value that was set before the library was loaded, is none. */
static bool
setting_is_defined(const char *name)
{
	return GetConfigOption(name, true, false) != NULL &&
		(GetConfigOptionFlags(name, true) & GUC_CUSTOM_PLACEHOLDER) == 0;
}

static void
define_settings(void)
{
	if (!setting_is_defined("pgmq.plan_cache_size"))
		DefineCustomIntVariable("pgmq.plan_cache_size",
								"Number of queues, or partitions, whose prepared statements a session keeps.",
								"The statements of the least recently used queue are dropped first.",
								&plan_max_queues,
								256, 1, INT_MAX / 2,
								PGC_USERSET, 0,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.rescan_interval"))
		DefineCustomIntVariable("pgmq.rescan_interval",
								"Minimum time between two searches for messages that were not written by the functions of pgmq.",
								"A read that returns fewer messages than wanted then searches the whole queue.",
								&horizon_rescan_interval,
								1000, 0, INT_MAX,
								PGC_USERSET, GUC_UNIT_MS,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.recheck_interval"))
		DefineCustomIntVariable("pgmq.recheck_interval",
								"Maximum time between two checks of a queue that sessions wait for.",
								"A commit wakes waiting sessions; the checks find messages whose commit does not.",
								&wait_recheck_interval,
								1000, 1, INT_MAX,
								PGC_USERSET, GUC_UNIT_MS,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.maintenance_lock_timeout"))
		DefineCustomIntVariable("pgmq.maintenance_lock_timeout",
								"Maximum time that maintenance waits for a lock.",
								"Other sessions may wait behind the lock request for as long.",
								&maintain_lock_timeout,
								100, 1, INT_MAX,
								PGC_USERSET, GUC_UNIT_MS,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.maintenance_step_timeout"))
		DefineCustomIntVariable("pgmq.maintenance_step_timeout",
								"Maximum time that a step of maintenance may take.",
								"Functions of the queue's owner may run in a step.",
								&maintain_step_timeout,
								30000, 100, INT_MAX,
								PGC_SUSET, GUC_UNIT_MS,
								NULL, NULL, NULL);
}

/*
 * When memory runs out in here, the server calls it again the next time that
 * it needs the library; what has been done by then is not done again.
 */
void
_PG_init(void)
{
	static bool initialized = false;

	define_settings();
	if (!initialized)
	{
		shared_init();
		horizon_init();
		wake_init();
		announce_init();
		limits_init();
		length_init();
		worker_init();
	}
	initialized = true;

	/* The prefix is not reserved: applications keep settings of their own under "pgmq.", and would lose them here. */
	xact_init();
}
