/*
 * gate.c
 *	  Whether messages may be handed out now, and how many.
 *
 * A read asks before it looks, after its privileges were checked.  While the queue is
 * paused, the answer is that there is nothing to hand out, which is not the same as an
 * empty queue: nothing may be recorded about what is in it.
 */
#include "pgmq.h"

#include "utils/timestamp.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "policy/policy.h"

static bool
is_paused(const QueuePolicy *policy)
{
	return (policy->set & POLICY_PAUSED) != 0 && policy->paused_until > GetCurrentTimestamp();
}

/*
 * Whether a read that wants so many messages may go on; then with gate->most of them,
 * and it must say in the end how many it got: policy_gate_done().  A look that takes
 * nothing wants 0.  Otherwise gate->next says when to ask again.  "leases" is false for
 * pop.
 */
bool
policy_gate(const QueueName *name, const QueuePolicy *policy, int64 wanted, bool leases, Gate *gate)
{
	gate->most = wanted;
	gate->next = DT_NOEND;
	gate->taken = 0;
	gate->policy = policy;
	gate->name = name;
	if ((policy->set & (POLICY_PAUSED | POLICY_LIMITS)) == 0)
		return true;
	/* Before a session is sent to sleep, ask the table: it may have been woken by the end of the pause */
	if (is_paused(policy))
	{
		policy = policy_reread(name);
		if (is_paused(policy))
		{
			gate->next = policy->paused_until;
			policy_release(policy);
			return false;
		}
		gate->policy = policy;
	}
	return true;
}

/*
 * The read may not hand out anything: what it returns, and when a waiting session tries
 * again.  That is no look at the queue.  But a token is spent, as when there is nothing
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
}

/* So many leases have ended by our functions: messages were removed before their leases were over */
void
policy_ended(const QueueName *name, const QueuePolicy *policy, int64 count)
{
}

/* So many messages are about to be sent */
void
policy_sending(const QueueName *name, const QueuePolicy *policy, int64 count)
{
}

/* So many messages were removed from the queue */
void
policy_removed(const QueueName *name, const QueuePolicy *policy, int64 count)
{
}
