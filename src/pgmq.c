/*
 * pgmq.c
 *	  The module: magic and settings.
 */
#include "pgmq.h"

#include <limits.h>

#include "utils/guc.h"

#include "base/base.h"
#include "notify/notify.h"
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

/*
 * When memory runs out in here, the server calls it again the next time that
 * it needs the library; what has been done by then is not done again.
 */
void
_PG_init(void)
{
	static bool initialized = false;

	if (!setting_is_defined("pgmq.plan_cache_size"))
		DefineCustomIntVariable("pgmq.plan_cache_size",
								"Number of queues, or partitions, whose prepared statements a session keeps.",
								"The least recently used queue's statements go first.",
								&plan_max_queues,
								256, 1, INT_MAX / 2,
								PGC_USERSET, 0,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.rescan_interval"))
		DefineCustomIntVariable("pgmq.rescan_interval",
								"Least time between two looks for messages that were written around the functions.",
								"A read that is short of messages then looks where the functions can't have left any.",
								&horizon_rescan_interval,
								1000, 0, INT_MAX,
								PGC_USERSET, GUC_UNIT_MS,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.recheck_interval"))
		DefineCustomIntVariable("pgmq.recheck_interval",
								"Longest time between two looks at a queue that somebody waits for.",
								"Waits end because they are woken; this is for messages that nobody announces.",
								&wait_recheck_interval,
								1000, 1, INT_MAX,
								PGC_USERSET, GUC_UNIT_MS,
								NULL, NULL, NULL);

	if (!setting_is_defined("pgmq.maintenance_lock_timeout"))
		DefineCustomIntVariable("pgmq.maintenance_lock_timeout",
								"How long maintenance waits for a lock before it tries again later.",
								"Who uses the queue waits as long behind it.",
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

	if (!initialized)
	{
		shared_init();
		horizon_init();
		wake_init();
		announce_init();
		worker_init();
	}
	initialized = true;

	/* The prefix is not reserved: applications keep settings of their own under "pgmq.", and would lose them here. */
	xact_init();
}
