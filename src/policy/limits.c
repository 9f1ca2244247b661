/*
 * limits.c
 *	  How many messages of a queue are handed out in a time, and how many are leased
 *	  at once.
 *
 * All sessions share a slot for each queue with a limit.  A call that hands messages out
 * reserves as many as it wants there, or as many as the limits allow; then it looks for
 * them, and gives back what it has not found.
 *
 * THE RATE is a token bucket: a number of permits, one for each message, that grows steadily and holds as
 * many as the limit.  So k periods hand out at most k + 1 times the limit.  It was empty when the
 * server started, or was restarted after a crash; what a rollback returns to the queue is not
 * refunded.
 *
 * LEASES are not counted one by one.  Nothing but the table says how many there are, and
 * leases end in ways that no session of ours sees: by the clock, by statements on the table, by COMMIT
 * PREPARED elsewhere.  So a slot has a number that is never too low: what the last count
 * found (leases.c), and what was reserved since.  While it leaves room for what a call wants,
 * the call reserves without a count.  Otherwise it counts.
 *
 * Why the number is never too low:
 *
 * 1. A lease of a read is in the number from before it is written: it is reserved.  Re-timed
 *	  messages are added before their transaction ends, as they may not have been leased before.
 * 2. A count sees each lease that was written before it began, whichever open transactions
 *	  commit.  To what it found is added what calls had reserved that were still at work
 *	  when it began, and what was reserved since.  That may count a lease twice.
 * 3. Several sessions may count at once.  Each result is right by itself.  A count that has
 *	  stopped at the limit gives no number, because the limit can be raised.
 * 4. A transaction that has removed leased messages can lease as many others in their place,
 *	  beyond the limit as others see it: with a rollback both come back or go.  A savepoint
 *	  whose rollback returns the removed messages was set before the others were leased.  Only
 *	  its own count says how many: in a later one of another session a removed lease may be over.
 * 5. A call that fails gives back what it has reserved when its (sub)transaction is
 *	  rolled back.
 *
 * A count does not begin at the present, where the index has the entries of all messages
 * that were finished before their leases ended.  It begins at "lowest", before which no lease
 * ends.  A call that has written a lease lowers that before its reservation ends, and one that
 * re-times messages does so before its transaction ends; until then the message counts with
 * its old lease.  Leases written by SQL can be before it, so once a second a count begins
 * at the present.
 *
 * A count of many leases is not repeated at once: counting takes a twentieth of the time.
 *
 * The spinlock of a bucket is held for a few assignments and a little arithmetic.
 */
#include "pgmq.h"

#include <math.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"

/*
 * A queue whose bucket is full cannot be read.  So the buckets are large, and the table has twice
 * as many slots as we promise: then a queue finds its bucket full once in some thousand such tables.
 */
#define SLOTS_PER_BUCKET 32
#include "base/base.h"
#include "queue/queue.h"
#include "policy/limits.h"
#include "policy/policy.h"
#include "policy/values.h"

#define AMPLE_BUCKETS 128
#define SCANT_BUCKETS 4

/* After this time a call that found no room asks again, if another may give some back */
#define BUSY_PAUSE 10000

/* Within this time leases that were written by SQL are counted */
#define HAND_WRITTEN_INTERVAL USECS_PER_SEC

/* Counting an entry costs 0.2 us; a pause of 4 us for each of them, but not for a few */
#define PAUSE_PER_ENTRY 4
#define FEW_ENTRIES 256

/* Longer than any period: a bucket that was empty then is full now */
#define LONG_AGO (1001 * INT64CONST(366) * USECS_PER_DAY)

/* More than any limit */
#define NOT_COUNTED (PG_INT32_MAX)

typedef struct Slot
{
	SlotHead	head;
	uint64		number;			/* of this use of the slot */
	int64		at_work;		/* messages that calls at work have reserved */

	/* The rate */
	bool		rated;			/* a call has asked for permits */
	double		permits;
	TimestampTz filled_at;		/* when there were so many */
	TimestampTz full_at;		/* from then on a new slot says the same */

	/* Leases */
	int64		leases;			/* or more than there are */
	int64		reserved;		/* of these, by calls at work */
	int64		ever_reserved;	/* and not given back; with those re-timed */
	TimestampTz lowest;			/* no lease ends before this, unless it is over */
	uint32		lowered;		/* how often a lease was written */
	TimestampTz counted_all_at;	/* a count began at the present */
	TimestampTz next_count_at;
} Slot;

static SlotTable Slots = {NULL, 0, sizeof(Slot)};

/* Calls of this session at work: a trigger can call another one */
#define MAX_CALLS 32

typedef struct Call
{
	SlotKey		key;
	int64		reserved;
	SubTransactionId subid;
	bool		leases;
	bool		permits;
} Call;

static Call Calls[MAX_CALLS];
static int	NumCalls = 0;

/* What a call asks for, and what it has learned about leases */
typedef struct Request
{
	const QueueName *name;
	const QueuePolicy *policy;
	SlotKey		key;
	TimestampTz now;
	TimestampTz started;		/* of the server */
	int64		wanted;			/* at least 1 */
	bool		leases;			/* the limit of leases counts */
	bool		permits;			/* the rate counts */
	LeaseCount	count;			/* all 0 before a count */
	TimestampTz next;			/* when to ask again */
} Request;

/* ---- shared memory ---- */

static int
number_of_buckets(bool ample)
{
	return ample ? AMPLE_BUCKETS : SCANT_BUCKETS;
}

static Size
size_of_buckets(bool ample)
{
	return slots_size(number_of_buckets(ample), sizeof(Slot));
}

static void
init_buckets(void *area)
{
	slots_init(area, number_of_buckets(shared_is_ample()), sizeof(Slot));
}

static const SharedUse limits = {
	"pgmq-limits-v1", size_of_buckets, init_buckets,
	"could not allocate shared memory for the limits of queues",
	"Queues with max_in_flight or rate_limit cannot be read."
};

/* Called while the library is loaded */
void
limits_init(void)
{
	shared_register(&limits);
}

static void
refuse(const QueueName *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("no shared memory for the limits of queue \"%s\"", name->canonical),
			 errdetail("%s", detail),
			 shared_is_ample() ?
			 errhint("Set limits for fewer queues, or shorter periods.") :
			 errhint("Add pgmq to shared_preload_libraries, or do without max_in_flight and rate_limit.")));
}

static bool
try_to_attach(void)
{
	static bool tried = false;

	if (Slots.buckets == NULL && !tried)
	{
		Slots.nbuckets = number_of_buckets(shared_is_ample());
		Slots.buckets = shared_area(&limits);
		tried = true;
	}
	return Slots.buckets != NULL;
}

static void
attach(const QueueName *name)
{
	if (!try_to_attach())
		refuse(name, "This session has not got any.");
}

/*
 * Since when shared memory is as old as the server is.  After a crash the server starts
 * its processes again, and its statistics anew.  A session does not survive that.
 */
static TimestampTz
server_started(void)
{
	static TimestampTz started = 0;

	if (started == 0)
		started = Max(PgStartTime, pgstat_fetch_stat_archiver()->stat_reset_timestamp);
	return started;
}

static bool
may_go(const void *slot, int64 now)
{
	return ((const Slot *) slot)->at_work == 0 && ((const Slot *) slot)->full_at <= now;
}

static void
slot_init(Slot *slot, SlotBucket *bucket, TimestampTz empty_at)
{
	slot->number = slots_number(bucket);
	slot->filled_at = empty_at;
	slot->leases = NOT_COUNTED;
	slot->lowest = DT_NOBEGIN;
}

/* Lock the slot of a queue; an error if there is none */
static Slot *
lock_slot(const Request *request, SlotBucket **bucket)
{
	Slot	   *slot;
	bool		made;

	*bucket = slots_lock(&Slots, &request->key);
	slot = slots_use(&Slots, *bucket, &request->key, may_go, request->now, &made);
	if (slot == NULL)
	{
		slots_unlock(*bucket);
		refuse(request->name, "Too many other queues with limits are in use.");
	}
	else if (made)
		slot_init(slot, *bucket, request->started);
	return slot;
}

/* ---- the rate ---- */

static void
fill(Slot *slot, const Request *request)
{
	double		rate = request->policy->rate_limit;
	double		period = (double) policy_microseconds(&request->policy->rate_period);

	slot->rated = true;
	/* The clock may be set back, and others may have read it later than we did */
	if (request->now > slot->filled_at)
		slot->permits += (double) (request->now - slot->filled_at) * rate / period;
	if (request->now > slot->filled_at || request->now < slot->filled_at - USECS_PER_SEC)
		slot->filled_at = request->now;
	slot->permits = Min(slot->permits, rate);
}

/* In how many microseconds there are so many permits */
static int64
time_until(const Slot *slot, const Request *request, double permits)
{
	double		period = (double) policy_microseconds(&request->policy->rate_period);

	return (int64) ceil(Max(permits - slot->permits, 0) * period / request->policy->rate_limit);
}

/* ---- leases ---- */

static bool
must_count(const Slot *slot, const Request *request)
{
	return request->leases && slot->leases > request->policy->max_in_flight - request->wanted &&
		slot->next_count_at <= request->now;
}

/* What a count has found, if the slot is still the one of which it was noted */
static void
note_count(Slot *slot, const Slot *noted, Request *request, bool all)
{
	LeaseCount *count = &request->count;

	if (slot->number != noted->number)
	{
		count->ours = 0;
		return;
	}
	if (count->found - count->ours >= request->policy->max_in_flight)
		slot->leases = NOT_COUNTED;
	else
		slot->leases = count->found + noted->reserved + slot->ever_reserved - noted->ever_reserved;
	slot->lowest = slot->lowered == noted->lowered ? count->earliest : Min(slot->lowest, count->earliest);
	if (all)
		slot->counted_all_at = request->now;
	slot->next_count_at = count->walked > FEW_ENTRIES ? request->now + count->walked * PAUSE_PER_ENTRY : 0;
}

/* The slot was locked, and is again; what it says then is what we have found */
static Slot *
count_leases(Request *request, Slot *slot, SlotBucket **bucket)
{
	Slot		noted = *slot;
	TimestampTz since = request->now - noted.counted_all_at;
	bool		all = noted.lowest <= request->now || since < 0 || since > HAND_WRITTEN_INTERVAL;

	slots_unlock(*bucket);
	leases_count(request->name, request->now, all ? request->now : noted.lowest,
				 request->policy->max_in_flight, &request->count);
	slot = lock_slot(request, bucket);
	note_count(slot, &noted, request, all);
	return slot;
}

/* When there may be room again: when a lease ends, if this call has counted, or when a call may count again */
static TimestampTz
next_room(const Slot *slot, const Request *request)
{
	TimestampTz next = request->count.earliest;

	if (next == 0)
		next = slot->next_count_at > request->now ? slot->next_count_at : DT_NOEND;
	return request->count.ended > 0 ? Min(next, request->now + BUSY_PAUSE) : next;
}

/* ---- reserving ---- */

/* How many messages the call may have, up to what it wants; if none, when to ask again */
static int64
allowed(Slot *slot, Request *request)
{
	int64		room = request->policy->max_in_flight - slot->leases + request->count.ours;
	int64		most = request->wanted;

	request->next = DT_NOBEGIN;
	if (request->leases)
	{
		if (room <= 0)
			request->next = next_room(slot, request);
		most = Min(most, room);
	}
	if (request->permits)
	{
		fill(slot, request);
		if (slot->permits < 1)
			request->next = Max(request->next, request->now + time_until(slot, request, 1));
		most = Min(most, (int64) floor(slot->permits));
	}
	/* Another call may give back what it has reserved */
	if (most <= 0 && slot->at_work > 0)
		request->next = Min(request->next, request->now + BUSY_PAUSE);
	return Max(most, 0);
}

static void
reserve(Slot *slot, const Request *request, int64 messages)
{
	slot->at_work += messages;
	if (request->permits)
	{
		slot->permits -= (double) messages;
		slot->full_at = request->now + time_until(slot, request, request->policy->rate_limit);
	}
	if (request->leases)
	{
		slot->leases += messages;
		slot->reserved += messages;
		slot->ever_reserved += messages;
	}
}

/* The reservation ends, and what was not used is given back */
static void
end_reservation(Slot *slot, const Call *call, int64 used)
{
	int64		unused = call->reserved - used;

	slot->at_work -= call->reserved;
	if (call->permits)
		slot->permits += (double) unused;
	if (call->leases)
	{
		slot->leases -= unused;
		slot->reserved -= call->reserved;
		slot->ever_reserved -= unused;
	}
}

static void
lower(Slot *slot, TimestampTz until)
{
	slot->lowest = Min(slot->lowest, until);
	slot->lowered++;
}

/* This ends with limits_done(), or with a rollback */
static void
note_call(const Request *request, int64 messages)
{
	Calls[NumCalls++] = (Call) {
		.key = request->key, .subid = GetCurrentSubTransactionId(), .reserved = messages,
		.leases = request->leases, .permits = request->permits
	};
}

static void
request_init(Request *request, const QueueName *name, const QueuePolicy *policy, Oid relid)
{
	memset(request, 0, sizeof(*request));
	request->name = name;
	request->policy = policy;
	request->key = slots_key(((uint64) MyDatabaseId << 32) | relid);
	request->now = GetCurrentTimestamp();
}

/*
 * Reserve up to gate->most messages, and say there how many it may be.  False if none may
 * be handed out now; then gate->next says when to ask again.  If gate->most is 0, nothing is
 * reserved: the answer is whether one message would be allowed.
 */
bool
limits_reserve(Gate *gate, bool leases)
{
	Oid			relid = queue_relid(gate->name, QUEUE_TABLE);
	Request		request;
	SlotBucket *bucket;
	Slot	   *slot;
	int64		messages;

	/* The statement says what is wrong */
	if (!OidIsValid(relid) || (gate->most > 0 && XactReadOnly) || RecoveryInProgress())
		return true;
	request_init(&request, gate->name, gate->policy, relid);
	request.wanted = Max(gate->most, 1);
	request.leases = leases && (gate->policy->set & POLICY_MAX_IN_FLIGHT) != 0;
	request.permits = (gate->policy->set & POLICY_RATE_LIMIT) != 0;
	if (!request.leases && !request.permits)
		return true;
	if (NumCalls == MAX_CALLS)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("reads of queues with limits are nested too deeply")));
	attach(gate->name);
	request.started = server_started();
	slot = lock_slot(&request, &bucket);
	if (must_count(slot, &request))
		slot = count_leases(&request, slot, &bucket);
	messages = allowed(slot, &request);
	if (gate->most > 0 && messages > 0)
		reserve(slot, &request, messages);
	slots_unlock(bucket);
	gate->next = request.next;
	if (gate->most > 0 && messages > 0)
	{
		gate->most = messages;
		gate->call = NumCalls;
		note_call(&request, messages);
	}
	return messages > 0;
}

static void
end_call(int number, int64 used, TimestampTz until)
{
	const Call *call = &Calls[number];
	SlotBucket *bucket = slots_lock(&Slots, &call->key);
	Slot	   *slot = slots_find(&Slots, bucket, &call->key);

	if (slot != NULL)
	{
		if (used > 0 && call->leases)
			lower(slot, until);
		end_reservation(slot, call, used);
	}
	slots_unlock(bucket);
	NumCalls = number;
}

/*
 * The queue gets a limit.  That fails if it cannot be kept now: the caller that sets it should
 * learn that, and not only those that read.  Of a new rate, what was handed out before does not count: the first
 * period begins with all its messages, also if the server has just started.
 */
void
limits_require(const QueueName *name, bool new_rate)
{
	Request		request;
	SlotBucket *bucket;
	Slot	   *slot;

	request_init(&request, name, NULL, queue_relid(name, QUEUE_TABLE));
	attach(name);
	request.started = server_started();
	slot = lock_slot(&request, &bucket);
	if (new_rate && !slot->rated)
		slot->filled_at = request.now - LONG_AGO;
	slots_unlock(bucket);
}

/* The call has handed out so many of what it has reserved; none of their leases ends before "until" */
void
limits_done(int call, int64 used, TimestampTz until)
{
	end_call(call, Min(used, Calls[call].reserved), until);
}

/* This transaction has re-timed so many messages: they may be leased until then */
void
limits_retimed(const QueueName *name, int64 count, TimestampTz until)
{
	Request		request;
	SlotBucket *bucket;
	Slot	   *slot;

	if (!try_to_attach())
		return;
	request_init(&request, name, NULL, queue_relid(name, QUEUE_TABLE));
	bucket = slots_lock(&Slots, &request.key);
	slot = slots_find(&Slots, bucket, &request.key);
	if (slot != NULL)
	{
		lower(slot, until);
		slot->leases += count;
		slot->ever_reserved += count;
	}
	slots_unlock(bucket);
}

/*
 * A transaction, or a part of it that began with "since", was rolled back (xact.c).  Calls
 * that were at work there have handed out nothing.  Nothing here can fail.
 */
void
limits_rolled_back(SubTransactionId since)
{
	while (NumCalls > 0 && Calls[NumCalls - 1].subid >= since)
		end_call(NumCalls - 1, 0, DT_NOEND);
}
