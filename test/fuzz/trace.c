/*
 * trace.c: loaded before everything else into the servers of the fuzzer, it has
 * a process that crashes write where it was.  Debuggers aren't everywhere.
 */
#define _GNU_SOURCE
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static char alternate[65536];

static void
on_crash(int number)
{
	void	   *frames[60];
	char		line[80];
	int			length = snprintf(line, sizeof(line), "FUZZTRACE %d signal %d\n", (int) getpid(), number);

	if (write(2, line, length) > 0)
		backtrace_symbols_fd(frames, backtrace(frames, 60), 2);
	signal(number, SIG_DFL);
	raise(number);
}

__attribute__((constructor)) static void
trace_crashes(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL};
	stack_t		stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
	void	   *frames[4];

	/* Loads what backtrace() needs, for which a crash is no time */
	backtrace(frames, 4);
	sigaltstack(&stack, NULL);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}
