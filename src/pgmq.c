/*
 * pgmq.c
 *	  The module: magic and settings.
 */
#include "pgmq.h"

#include <limits.h>

#include "utils/guc.h"

PG_MODULE_MAGIC;

void
_PG_init(void)
{
	DefineCustomIntVariable("pgmq.plan_cache_size",
							"Number of queues whose prepared statements a session keeps.",
							"The least recently used queue's statements go first.",
							&plan_max_queues,
							256, 1, INT_MAX / 2,
							PGC_USERSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("pgmq.rescan_interval",
							"Least time between two looks for messages that were written around the functions.",
							"A read that is short of messages then looks where the functions can't have left any.",
							&horizon_rescan_interval,
							1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("pgmq.recheck_interval",
							"Longest time between two looks at a queue that somebody waits for.",
							"Waits end because they are woken; this is for messages that nobody announces.",
							&wait_recheck_interval,
							1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	shared_init();

	MarkGUCPrefixReserved("pgmq");
	xact_init();
}
