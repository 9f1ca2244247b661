/*
 * wait.c
 *	  The wait loop.  It is given something to try and knows no SQL.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

/*
 * No sleep is longer than this, however long an interval the caller allows: a
 * message that has become visible must not wait for it.
 */
#define LONGEST_SLEEP_MS 100

/*
 * Try until an attempt succeeds or max_seconds have passed.  One attempt is
 * always made, and one more at the end.  The time is measured by a clock that
 * nobody sets.
 */
bool
wait_for(WaitAttempt attempt, void *arg, int max_seconds, int interval_ms)
{
	instr_time	start;
	int64		budget_ms = (int64) Max(max_seconds, 0) * 1000;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		instr_time	elapsed;
		int64		left_ms;

		if (attempt(arg))
			return true;
		INSTR_TIME_SET_CURRENT(elapsed);
		INSTR_TIME_SUBTRACT(elapsed, start);
		left_ms = budget_ms - (int64) INSTR_TIME_GET_MILLISEC(elapsed);
		if (left_ms <= 0)
			return false;
		left_ms = Min(left_ms, Min(Max(interval_ms, 1), LONGEST_SLEEP_MS));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) left_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
