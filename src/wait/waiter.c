/*
 * waiter.c
 *	  A session's side of waiting: it joins the board, looks, sleeps, is called, and
 *	  leaves.  The numbers in comments are those of the argument in board.c.
 */
#include "pgmq.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"

#include "base/base.h"
#include "position/position.h"
#include "wait/wait.h"
#include "wait/board.h"
#include "wait/waiter.h"

/* Places of this session */
static int32 Mine = WAKE_NOBODY;

static void
leave_at_exit(int code, Datum arg)
{
	wake_leave_all();
}

/* Once per session, and before it is on the board */
static void
register_exit(void)
{
	static bool registered = false;

	if (registered)
		return;
	before_shmem_exit(leave_at_exit, (Datum) 0);
	registered = true;
}

static void
report_no_place(void)
{
	static bool reported = false;

	if (reported)
		return;
	reported = true;
	ereport(LOG,
			(errmsg("pgmq: too many waits for messages to wake this session"),
			 errdetail("This session checks for messages at intervals."),
			 shared_is_ample() ? 0 : errhint("Add pgmq to shared_preload_libraries.")));
}

/* A leader has a timer, and gets a credit only if no other waiter sleeps. */
static void
make_leader(WakeQueue *queue, int32 waiter)
{
	if (queue->leader != WAKE_NOBODY && Waiters[queue->leader].sleeping &&
		!Waiters[queue->leader].called)
		board_sleepers_add(queue, queue->leader);
	queue->leader = waiter;
	if (waiter != WAKE_NOBODY)
		board_sleepers_remove(queue, waiter);
}

/*
 * Enter the board, as described at the top of board.c.  Returns a place for the functions below, or
 * WAKE_NOBODY if there is none: then the session must look at intervals.
 */
int
wake_join(const QueueName *name, const WaitRequest *request, int interval_ms)
{
	WakeKey		key = board_key(name, request->grouped);
	bool		picky = request->picky;
	WakeBucket *bucket;
	WakeQueue  *queue;
	int32		place = WAKE_NOBODY;
	int32		queue_place = WAKE_NOBODY;

	if (!board_attach())
		return WAKE_NOBODY;
	register_exit();

	bucket = board_lock(&key);
	queue = board_find_queue(bucket, &key);
	if (board_take_places(Mine != WAKE_NOBODY, &place, queue == NULL ? &queue_place : NULL))
	{
		Waiter	   *me = &Waiters[place];

		if (queue == NULL)
			queue = board_add_queue(bucket, &key, queue_place);
		memset(me, 0, sizeof(*me));
		me->next_of_mine = Mine;
		Mine = place;
		me->proc = MyProcNumber;
		me->queue = (int32) (queue - Queues);
		me->interval_ms = interval_ms;
		me->picky = picky;
		me->subscription = board_subscription(request->subscription);
		me->generation = queue->generation;
		me->due = DT_NOEND;
		board_list_append(picky ? &queue->picky : &queue->ordinary, LINK_PEERS, place);
		if (!picky && (queue->leader == WAKE_NOBODY ||
					   interval_ms < Waiters[queue->leader].interval_ms))
			make_leader(queue, place);
	}
	LWLockRelease(&bucket->lock);
	if (place == WAKE_NOBODY)
		report_no_place();
	return place;
}

/* Whether this session is on the board already */
bool
wake_joined(void)
{
	return Mine != WAKE_NOBODY;
}

/* A look begins; its snapshot is taken after this. */
void
wake_look(int place)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];
	WakeBucket *bucket = board_lock(&queue->key);

	board_sleepers_remove(queue, place);
	me->sleeping = me->called = false;
	me->generation = queue->generation;
	me->due = DT_NOEND;
	LWLockRelease(&bucket->lock);
	pg_memory_barrier();
}

/*
 * Fall asleep, or go on sleeping; false if there is a reason to look first.
 * "outlook" is what the last look said.  In "due" comes the time to sleep until,
 * and in "timed" whether this session has a timer.
 */
bool
wake_sleep(int place, const Outlook *outlook, TimestampTz *due, bool *timed)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];
	WakeBucket *bucket = board_lock(&queue->key);
	bool		sleep;

	if (!me->sleeping)
	{
		me->due = Min(me->due, outlook->next);
		if (outlook->conclusive)
			me->credits = 0;
		sleep = me->generation == queue->generation && !me->called;
	}
	else
		sleep = !me->called;
	if (sleep && !me->sleeping)
	{
		me->sleeping = true;
		if (!me->picky && queue->leader != place)
			board_sleepers_add(queue, place);
	}
	*due = me->due;
	*timed = me->picky || queue->leader == place || me->credits > 0;
	LWLockRelease(&bucket->lock);
	return sleep;
}

/* Whether another session has called this one; "due" and "timed" as above */
bool
wake_called(int place, TimestampTz *due, bool *timed)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];
	WakeBucket *bucket = board_lock(&queue->key);
	bool		called = me->called;

	*due = me->due;
	*timed = me->picky || queue->leader == place || me->credits > 0;
	LWLockRelease(&bucket->lock);
	return called;
}

/* Of the remaining waiters, the one that allows the shortest time; the caller holds the lock */
static int32
shortest_interval(const WakeQueue *queue)
{
	int32		shortest = queue->ordinary.first;
	int32		i;

	for (i = shortest; i != WAKE_NOBODY; i = Waiters[i].links[LINK_PEERS].next)
	{
		if (Waiters[i].interval_ms < Waiters[shortest].interval_ms)
			shortest = i;
	}
	return shortest;
}

/*
 * The leader has left.  The next one looks at once, unless the old one has seen all
 * messages: then it continues with the old one's time.
 */
static void
replace_leader(WakeQueue *queue, bool look, TimestampTz due, Calls *calls)
{
	Waiter	   *leader;

	queue->leader = WAKE_NOBODY;
	make_leader(queue, shortest_interval(queue));
	if (queue->leader == WAKE_NOBODY)
		return;
	leader = &Waiters[queue->leader];
	leader->due = Min(leader->due, due);
	if (!leader->sleeping || leader->called)
		return;
	if (look)
		board_call(calls, leader);
	else
		board_wake(calls, leader);
}

/* Take it off the list of this session's places */
static void
forget_place(int place)
{
	int32	   *link = &Mine;

	while (*link != place)
		link = &Waiters[*link].next_of_mine;
	*link = Waiters[place].next_of_mine;
}

/*
 * How many other sessions must look because this one leaves.  If a leader has
 * seen messages that were not announced, no other session knows of them.
 */
static int64
messages_owed(const WakeQueue *queue, int place, WakeEnd end, int64 messages)
{
	int32		credits = Waiters[place].credits;

	if (end != WAKE_EMPTY && credits > 0)
		return credits - 1;
	if (end == WAKE_SAW && queue->leader == place)
		return messages - 1;
	return credits;
}

/*
 * Leave the board, with messages taken, or only seen, or with none.  If they were
 * only seen, the other sessions need to look at further ones only.  "next" is when
 * there is a reason to look again, after messages were seen.
 */
void
wake_leave(int place, WakeEnd end, int64 messages, TimestampTz next)
{
	Waiter	   *me = &Waiters[place];
	WakeQueue  *queue = &Queues[me->queue];
	WakeKey		key = queue->key;
	int32		queue_place = WAKE_NOBODY;
	int64		owed;
	Calls		calls = {0};
	WakeBucket *bucket = board_lock(&key);

	owed = messages_owed(queue, place, end, messages);
	forget_place(place);
	board_sleepers_remove(queue, place);
	board_list_remove(me->picky ? &queue->picky : &queue->ordinary, LINK_PEERS, place);
	/* Its look may have been before the last announcement of unknown number (10) */
	if (queue->leader == place)
		replace_leader(queue, end != WAKE_SAW || (int32) (queue->unknown - me->generation) > 0,
					   next, &calls);
	if (queue->ordinary.first == WAKE_NOBODY && queue->picky.first == WAKE_NOBODY)
	{
		queue_place = me->queue;
		board_remove_queue(bucket, queue);
	}
	board_free_places(place, queue_place);
	LWLockRelease(&bucket->lock);

	board_make_calls(&calls);
	if (owed > 0)
		board_announce(&key, owed, DT_NOEND);
}

/* After an error, or at the end of the process.  The other waiters are told. */
void
wake_leave_all(void)
{
	while (Mine != WAKE_NOBODY)
		wake_leave(Mine, WAKE_EMPTY, 0, DT_NOEND);
}
