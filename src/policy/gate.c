/*
 * gate.c
 *	  Whether messages may be handed out now, and how many.
 *
 * A read asks before it looks, after its privileges were checked.  While the queue is
 * paused, or a limit is reached, there is nothing to hand out.  That does not mean that the
 * queue is empty: nothing may be recorded about what is in it.
 */
#include "pgmq.h"

#include "access/xact.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "wait/wait.h"
#include "policy/limits.h"
#include "policy/policy.h"

static bool
is_paused(const QueuePolicy *policy)
{
	return (policy->set & POLICY_PAUSED) != 0 && policy->paused_until > GetCurrentTimestamp();
}

/* Whether the gate is open by the policy that it has */
static bool
is_open(Gate *gate, int64 lease)
{
	if (is_paused(gate->policy))
	{
		gate->next = gate->policy->paused_until;
		return false;
	}
	return (gate->policy->set & POLICY_LIMITS) == 0 || limits_reserve(gate, lease > 0);
}

/* Whether they are the same for the gate */
static bool
is_same(const QueuePolicy *a, const QueuePolicy *b)
{
	return a->set == b->set && a->paused_until == b->paused_until &&
		a->max_in_flight == b->max_in_flight && a->rate_limit == b->rate_limit &&
		memcmp(&a->rate_period, &b->rate_period, sizeof(Interval)) == 0;
}

/*
 * Whether a read that wants so many messages may go on; then with gate->most of them, by
 * gate->policy, and it must say in the end how many it got: policy_gate_done().  A look that
 * takes nothing wants 0.  Otherwise gate->next says when to ask again.  "lease" is how long the
 * messages will be leased, in microseconds; 0: not at all.
 */
bool
policy_gate(const QueueName *name, int64 wanted, int64 lease, Gate *gate)
{
	const QueuePolicy *before = policy_of(name);
	bool		same;

	gate->most = wanted;
	gate->next = DT_NOEND;
	gate->call = NO_CALL;
	gate->policy = before;
	gate->name = name;
	if ((before->set & (POLICY_PAUSED | POLICY_LIMITS)) == 0)
		return true;
	gate->until = GetCurrentTimestamp() + lease;
	if (is_open(gate, lease))
		return true;
	/* Before a session is sent to sleep, ask the table: a change of the policy may have woken it */
	gate->policy = policy_reread(name);
	same = is_same(before, gate->policy);
	policy_release(before);
	return !same && is_open(gate, lease);
}

/*
 * The read may not hand out anything: what it returns, and when a waiting session tries
 * again.  That is no look at the queue.  But a credit is spent, as when there is nothing
 * left: a session that has seen messages in the end calls others for what it has seen.
 */
int64
policy_gate_closed(const Gate *gate, Outlook *outlook)
{
	queue_require(gate->name);
	if (outlook != NULL)
	{
		outlook->next = gate->next;
		outlook->conclusive = true;
		outlook->thorough = false;
	}
	return 0;
}

/* The read got so many messages */
void
policy_gate_done(Gate *gate, int64 got)
{
	if (gate->call != NO_CALL)
		limits_done(gate->call, got, gate->until);
	gate->call = NO_CALL;
}

/*
 * Messages of the queue were re-timed.  "due" is computed after the statement, so they can be
 * due earlier by as much as the client's statement has taken.  Where leases are limited,
 * there may be room now.
 */
void
policy_retimed(const QueueName *name, const QueuePolicy *policy, int64 count, TimestampTz due)
{
	if ((policy->set & POLICY_MAX_IN_FLIGHT) == 0)
		return;
	if (due > GetCurrentStatementStartTimestamp())
		limits_retimed(name, count, due - (GetCurrentTimestamp() - GetCurrentStatementStartTimestamp()));
	effect_messages(name, count);
}

/* So many messages were removed from the queue */
void
policy_removed(const QueueName *name, const QueuePolicy *policy, int64 count)
{
	length_removed(name, policy, count, false);
	/* Their leases end with the commit, if they had some: there is room for others */
	if ((policy->set & POLICY_MAX_IN_FLIGHT) != 0)
		effect_messages(name, count);
}
