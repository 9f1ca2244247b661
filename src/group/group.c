/*
 * group.c
 *	  Hand out messages by groups: read_grouped, read_grouped_rr,
 *	  read_grouped_head and their waiting forms; and wait_grouped.
 *
 * Which groups to look at is told by notes (notes.c), of which a read takes
 * those that are due and the oldest fresh ones, from where horizon.c says.  So
 * neither blocked groups, whose notes are for later, nor the messages behind
 * their first ones are ever touched.  The group whose first message is the
 * oldest comes first, among as many notes as are taken at once (WINDOW).  What is
 * taken of a group front.c argues.
 *
 * What a look finds about a group goes into its notes: handed out, look again
 * when the lease ends; to be had later, then; blocked by an open transaction,
 * soon; empty, the notes go.  All are written at the end.  A note that another
 * transaction has locked is passed by, and its group is looked at, without it, only
 * when there is nothing else: so a transaction that stays open keeps no group from
 * the others.
 *
 * A session that waits would hold what it has written to the end of its wait: locks on
 * the queue and its notes, which keep their floors where they are and DDL waiting, and
 * notes that nobody else can see.  So it looks first whether there is a group to be had,
 * and reads only then.
 *
 * Without a group index statements on the whole queue do it (slowgroup.c).
 */
#include "pgmq.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/rel.h"

#include "base/base.h"
#include "queue/queue.h"
#include "position/position.h"
#include "wait/wait.h"
#include "message/message.h"
#include "group/internal.h"

PG_FUNCTION_INFO_V1(pgmq_read_grouped);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_with_poll);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_rr);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_rr_with_poll);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_head);
PG_FUNCTION_INFO_V1(pgmq_read_grouped_head_with_poll);
PG_FUNCTION_INFO_V1(pgmq_wait_grouped);

/* How many notes of each kind are put in order at once, on top of what is wanted */
#define WINDOW 64

/* When a note that is left because others come first moves along: notes, and microseconds */
#define FAR_BEHIND_NOTES 4096
#define FAR_BEHIND_TIME (5 * USECS_PER_SEC)

/* How many groups, at most, are looked at whose notes are not to be had, on top of what is wanted */
#define MOST_CLAIMED 256

/* When who waits looks at others of them: microseconds */
#define LOOK_AT_OTHERS_IN 100000

/* With more notes than this whose groups are not to be had, to look at them every time costs more than to write */
#define MOST_IN_VAIN 64

/* A group that an open transaction blocks is looked at again after 10 ms, 20, ... 1.28 s */
#define BUSY_PAUSE 10000
#define BUSY_DOUBLINGS 7

/* $1 the messages, all locked; $2 now, $3 the end of the lease */
static const PlanSpec lease_messages = {
	PLAN_READ_GROUPED,
	"UPDATE {queue} SET read_ct = " NEXT_READ_CT ", last_read_at = $2, vt = $3"
	" WHERE msg_id OPERATOR(pg_catalog.=) ANY ($1){leaf}"
	" RETURNING " MESSAGE_COLUMNS,
	3, {INT8ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/* A group that is handed out, with its messages in order */
typedef struct Front
{
	const text *key;
	int64	   *ids;
	int			count;
	int			max;
	Peeked		first;			/* as it was before */
	bool		ended;			/* no more to be had */
	GroupScan  *scan;			/* open while the front is being taken from */
	Claim		claim;			/* of its notes */
} Front;

/* What one call asks for, good for any number of attempts; and what an attempt has */
typedef struct Request
{
	QueueName	name;
	Policy		policy;
	bool		unlimited;
	int64		quantity;
	int64		lease;			/* in microseconds */
	bool		lease_null;
	MessageSet *messages;

	GroupQueue	queue;
	TimestampTz moment;			/* what is visible after this is not due in this call */
	Front	  **fronts;
	int			nfronts;
	int			max_fronts;
	int64		total;			/* messages that were locked */
	int64		handed_out;		/* of these; a trigger of the users' may keep some */
	int64		look_in;		/* some notes were left out, to be looked at in so many microseconds; or 0 */
	bool		any_late;
	NoteChanges notes;
	HTAB	   *seen;			/* notes, and groups that are taken */
	List	   *claimed;		/* notes that others have locked */
	bool		peek;			/* take nothing, only tell how many groups could be had */
	bool		quiet;			/* and write nothing about the others */
	int			in_vain;		/* of which there were so many */
	bool		waiting;		/* another attempt follows, in this transaction */
} Request;

/* ---- one group ---- */

static void
front_add(Front *front, const Peeked *peeked)
{
	if (front->ids == NULL)
		front->ids = palloc(sizeof(int64) * (front->max = 4));
	else if (front->count == front->max)
		front->ids = repalloc_huge(front->ids, sizeof(int64) * (front->max *= 2));
	if (front->count == 0)
		front->first = *peeked;
	front->ids[front->count++] = peeked->msg_id;
}

static void
front_pause(Front *front)
{
	if (front->scan)
		front_end(front->scan);
	front->scan = NULL;
}

/* The first message of a group, as a look finds it; false if there is none */
static bool
look_for_first(Request *request, const text *key, Peeked *first)
{
	GroupStart	start;
	GroupScan  *scan;
	bool		found;

	starts_find(&request->queue, key, &start);
	scan = front_begin(&request->queue, key, start.from);
	found = front_next(scan, first);
	/* What we have deleted ourselves may come back */
	if (found)
		starts_advance(&start, first->msg_id, request->queue.locked_before);
	front_end(scan);
	return found;
}

/* R3: take the message that was found to be the first of its group.  Only its lock makes sure. */
static bool
take_first(Request *request, Front *front, const Peeked *first)
{
	GroupStart	start;
	Peeked		again;

	if (!front_lock(&request->queue, first))
		return false;
	starts_find(&request->queue, front->key, &start);
	front->scan = front_begin(&request->queue, front->key, start.from);
	if (!front_next(front->scan, &again) || again.msg_id != first->msg_id || peeked_is_busy(&again))
	{
		front_pause(front);
		return false;
	}
	front_add(front, first);
	return true;
}

/* Take one more. */
static bool
take_next(Request *request, Front *front)
{
	Peeked		peeked;
	bool		found;

	if (front->ended)
		return false;
	if (front->scan == NULL)
		front->scan = front_begin(&request->queue, front->key, front->ids[front->count - 1] + 1);
	found = front_next(front->scan, &peeked);
	front->ended = !found || !peeked_is_available(&peeked, request->moment) ||
		!front_lock(&request->queue, &peeked);
	if (front->ended)
	{
		front_pause(front);
		return false;
	}
	front_add(front, &peeked);
	request->total++;
	return true;
}

/* ---- all groups of a call ---- */

static bool
wanting(const Request *request)
{
	if (request->unlimited)
		return true;
	return (request->policy == FILL ? request->total : request->nfronts) < request->quantity;
}

/* The group's first message is taken; go on as the policy says. */
static void
add_front(Request *request, Front *front)
{
	if (request->nfronts == request->max_fronts)
	{
		request->max_fronts *= 2;
		request->fronts = repalloc_huge(request->fronts, sizeof(Front *) * request->max_fronts);
	}
	request->fronts[request->nfronts++] = front;
	request->total++;
	if (request->policy == FILL)
	{
		while (request->total < request->quantity && take_next(request, front))
			;
	}
	front_pause(front);
}

static int
compare_fronts(const void *a, const void *b)
{
	int64		head_a = (*(Front *const *) a)->ids[0];
	int64		head_b = (*(Front *const *) b)->ids[0];

	return head_a < head_b ? -1 : head_a > head_b;
}

/*
 * Round robin: every group has given one message.  As long as there is room
 * for a whole round each gives as many more as there is room for rounds; then
 * the groups with the oldest first messages give one more each.
 */
static void
go_round(Request *request)
{
	int			active = request->nfronts;

	qsort(request->fronts, request->nfronts, sizeof(Front *), compare_fronts);
	while (active > 0 && request->total < request->quantity)
	{
		int64		rounds = Max((request->quantity - request->total) / active, 1);
		int			i;

		active = 0;
		for (i = 0; i < request->nfronts && request->total < request->quantity; i++)
		{
			Front	   *front = request->fronts[i];
			int64		n;

			for (n = 0; n < rounds && take_next(request, front); n++)
				;
			front_pause(front);
			active += !front->ended;
		}
	}
}

/* ---- notes ---- */

/* A group or a note that this call has come by */
typedef struct Seen
{
	uint64		what[2];
	bool		done;			/* the group is taken, the note claimed */
} Seen;

static void
forget_seen(Request *request)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(((Seen *) NULL)->what);
	ctl.entrysize = sizeof(Seen);
	ctl.hcxt = CurrentMemoryContext;
	request->seen = hash_create("pgmq groups and notes seen", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static Seen *
see(Request *request, uint64 high, uint64 low, bool *before)
{
	uint64		what[2] = {high, low};
	Seen	   *seen = hash_search(request->seen, what, HASH_ENTER, before);

	if (!*before)
		seen->done = false;
	return seen;
}

static Seen *
see_group(Request *request, const text *key)
{
	const unsigned char *data = (const unsigned char *) VARDATA_ANY(key);
	int			len = VARSIZE_ANY_EXHDR(key);
	bool		before;

	return see(request, hash_bytes_extended(data, len, 0), hash_bytes_extended(data, len, 1), &before);
}

static Seen *
see_note(Request *request, const Note *note, bool *before)
{
	return see(request, ItemPointerGetBlockNumber(&note->tid), ItemPointerGetOffsetNumber(&note->tid), before);
}

static void
claim(Request *request, const text *key, const Note *told, Claim *claim)
{
	ListCell   *lc;
	bool		before;

	notes_claim(&request->queue, key, told, claim);
	foreach(lc, claim->notes)
		see_note(request, lfirst(lc), &before)->done = true;
}

/* A group is not to be had before that; or, if that is not to come, it is blocked by an open transaction. */
static void
postpone(Request *request, const Claim *claim, const text *key, TimestampTz until, int64 head, bool late)
{
	TimestampTz now = GetCurrentTimestamp();
	int32		tries = 0;

	if (until <= now)
	{
		until = now + (BUSY_PAUSE << Min(claim->tries, BUSY_DOUBLINGS));
		tries = claim->tries + 1;
	}
	notes_replace(&request->notes, claim, key, until, head, late, tries);
}

/* R2: the group was not taken.  Look, and write the verdict.  False if the notes are right as they are. */
static bool
judge(Request *request, const Claim *claim, const text *key, bool late)
{
	Verdict		verdict;

	if (claim->notes == NIL)
		return false;
	front_judge(&request->queue, key, request->queue.locked_before, &verdict);
	if (verdict.unseen && verdict.until <= request->moment)
		return false;
	if (!verdict.found)
		notes_drop(&request->notes, claim);
	else
		postpone(request, claim, key, verdict.until, verdict.head, late);
	return true;
}

/* Its first message came late, and another consumer holds others behind it. */
static void
let_go(Request *request, Front *front, TimestampTz until)
{
	front_pause(front);
	if (front->claim.notes != NIL)
		postpone(request, &front->claim, front->key, until, front->ids[0], true);
	front->count = 0;
}

static bool
group_is_late(Request *request, const text *key)
{
	return request->any_late && notes_any_late(&request->queue, key);
}

/*
 * Look at the group of a note; "first" is its first message as it was a moment ago,
 * NULL if there was none.  A note that others have locked is put aside, unless the group
 * is wanted "anyway": then it gets a note of its own if it is taken.  False if the note is
 * left as it is, and due.
 */
static bool
consider(Request *request, const Note *note, const Peeked *first, bool anyway)
{
	GroupQueue *queue = &request->queue;
	Front	   *front = palloc0(sizeof(Front));
	bool		available = first != NULL && peeked_is_available(first, request->moment);
	bool		late = note->late || group_is_late(request, note->key);
	bool		seen_to = false;
	TimestampTz until;

	front->key = note->key;
	if (request->peek && available &&
		!(late && front_is_held_behind(queue, note->key, first, request->moment, &until)))
		front_add(front, first);
	else if (request->quiet)
		request->in_vain += !anyway;
	else
	{
		claim(request, note->key, anyway ? NULL : note, &front->claim);
		late |= front->claim.late;
		seen_to = true;
		if (front->claim.notes == NIL && !anyway)
			request->claimed = lappend(request->claimed, (void *) note);
		else if (request->peek || !available || !take_first(request, front, first))
			seen_to = judge(request, &front->claim, note->key, late);
		else if (late && front_is_held_behind(queue, note->key, first, request->moment, &until))
			let_go(request, front, until);
	}
	if (front->count > 0)
	{
		see_group(request, note->key)->done = true;
		add_front(request, front);
	}
	return seen_to;
}

/* The same for a group whose notes are not to be had, or are not there */
static void
consider_anyway(Request *request, const Note *note)
{
	Peeked		first;

	if (!see_group(request, note->key)->done && look_for_first(request, note->key, &first))
		(void) consider(request, note, &first, true);
}

/*
 * Look at the groups whose notes are not to be had.  Mostly they are not, either:
 * who has locked thousands of them must not make each of our reads look at them all.
 * So a read looks at some of them, the next read at others.
 */
static void
consider_claimed(Request *request)
{
	int			count = list_length(request->claimed);
	int64		most = request->unlimited ? count : Min(count, request->quantity + MOST_CLAIMED);
	int			first = most < count ? (int) pg_prng_uint64_range(&pg_global_prng_state, 0, count - 1) : 0;
	int			i;

	if (most < count)
		request->look_in = LOOK_AT_OTHERS_IN;
	for (i = 0; i < most && wanting(request); i++)
	{
		CHECK_FOR_INTERRUPTS();
		consider_anyway(request, list_nth(request->claimed, (first + i) % count));
	}
}

static int
compare_notes(const void *a, const void *b)
{
	const Note *note_a = *(Note *const *) a;
	const Note *note_b = *(Note *const *) b;

	if (note_a->place != note_b->place)
		return note_a->place < note_b->place ? -1 : 1;
	return note_a->id < note_b->id ? -1 : note_a->id > note_b->id;
}

/* Notes of both kinds, as many as are put in order at once */
typedef struct Window
{
	NoteScan   *due;			/* NULL: no more */
	NoteScan   *fresh;
	HorizonFinds finds;
	TimestampTz due_highest;
	List	   *left;			/* those that stay as they are */
	Note	  **notes;
	int			count;
	int			max;
} Window;

/*
 * Look at the next group in order.  If its first message has gone since the note was
 * written, and other groups come before it now, it is put behind those: without a
 * lock on its note, for it may not come to its turn at all.
 */
static void
take_turn(Request *request, Window *window, int *next)
{
	int			i = *next;
	Note	   *note = window->notes[i];
	Peeked		first;
	bool		found;

	if (see_note(request, note, &found)->done || see_group(request, note->key)->done)
	{
		if (!see_note(request, note, &found)->done)
			window->left = lappend(window->left, note);
		(*next)++;
		return;
	}
	found = look_for_first(request, note->key, &first);
	if (found)
		note->place = Max(note->place, first.msg_id);
	if (!found || i + 1 == window->count || note->place <= window->notes[i + 1]->place)
	{
		(*next)++;
		if (!consider(request, note, found ? &first : NULL, false))
			window->left = lappend(window->left, note);
		return;
	}
	for (; i + 1 < window->count && window->notes[i + 1]->place < note->place; i++)
		window->notes[i] = window->notes[i + 1];
	window->notes[i] = note;
}

static void
window_fill(Request *request, Window *window, NoteScan **scan)
{
	int64		most = Min(request->unlimited ? 1024 : request->quantity, 1024) + WINDOW;

	while (*scan && most > 0)
	{
		Note	   *note = palloc(sizeof(Note));
		bool		before;

		if (!notes_next(*scan, note))
		{
			notes_end(*scan);
			*scan = NULL;
			break;
		}
		if (note->due)
			window->due_highest = Max(window->due_highest, note->vt);
		else
		{
			window->finds.fresh_messages++;
			window->finds.fresh_highest = Max(window->finds.fresh_highest, note->id);
		}
		(void) see_note(request, note, &before);
		if (before)
			continue;
		if (note->claimed)
		{
			request->claimed = lappend(request->claimed, note);
			continue;
		}
		note->place = note->head;
		if (window->count == window->max)
			window->notes = repalloc_huge(window->notes, sizeof(Note *) * (window->max *= 2));
		window->notes[window->count++] = note;
		most--;
	}
}

/*
 * What was taken into the window and is not wanted any more stays for the next
 * read.  A group whose first message is among the newest may stay in front for
 * long, and every read would walk from it past all notes that have come and gone
 * behind it: so it moves along, to the end of the fresh ones.
 */
static void
leave_notes(Request *request, Window *window)
{
	HorizonFinds *finds = &window->finds;
	int64		fresh_highest = finds->fresh_highest;
	ListCell   *lc;

	finds->due_exhausted = window->due == NULL;
	finds->fresh_exhausted = window->fresh == NULL;
	foreach(lc, window->left)
	{
		const Note *note = lfirst(lc);
		bool		far_behind = note->due ?
			note->vt + FAR_BEHIND_TIME < window->due_highest :
			note->id < fresh_highest - FAR_BEHIND_NOTES;

		if (far_behind && !request->quiet && notes_lock(&request->queue, note))
		{
			request->notes.dropped = lappend(request->notes.dropped, (void *) note);
			notes_add(&request->notes, note->key, DT_NOBEGIN, note->head, note->late, note->tries);
		}
		else if (note->due)
			finds->due_exhausted = false;
		else
		{
			finds->fresh_exhausted = false;
			finds->fresh_highest = Min(finds->fresh_highest, note->id - 1);
		}
	}
}

/* One look, from where the horizon says */
static void
look(Request *request, Horizon *h)
{
	Window		window = {0};
	Oid			id_index;
	Oid			vt_index;
	HorizonRange range;
	int			i;

	(void) horizon_indexes(h, &id_index, &vt_index);
	window.due_highest = DT_NOBEGIN;
	window.notes = palloc(sizeof(Note *) * (window.max = WINDOW));
	window.finds.due_until = request->moment;
	if (horizon_next_due(h, request->moment, &range))
		window.due = notes_scan(&request->queue, vt_index, true, range.from, range.until);
	if (horizon_next_fresh(h, 0, &range))
		window.fresh = notes_scan(&request->queue, id_index, false, range.from, range.until);
	do
	{
		window.count = 0;
		window_fill(request, &window, &window.due);
		window_fill(request, &window, &window.fresh);
		qsort(window.notes, window.count, sizeof(Note *), compare_notes);
		for (i = 0; i < window.count && wanting(request); window.finds.messages++)
			take_turn(request, &window, &i);
		for (; i < window.count; i++)
			window.left = lappend(window.left, window.notes[i]);
	} while (wanting(request) && (window.due || window.fresh));
	leave_notes(request, &window);
	if (window.due)
		notes_end(window.due);
	if (window.fresh)
		notes_end(window.fresh);
	horizon_found(h, &window.finds);
}

/*
 * A message that came late may have been committed, and its note with it, after
 * we asked whether there are such notes, at all or of its group.  Let go of it.
 */
static void
check_late(Request *request)
{
	int			kept = 0;
	int			i;

	if (request->nfronts == 0 || !notes_any_late(&request->queue, NULL))
		return;
	for (i = 0; i < request->nfronts; i++)
	{
		Front	   *front = request->fronts[i];
		TimestampTz until;

		if (!notes_any_late(&request->queue, front->key) ||
			!front_is_held_behind(&request->queue, front->key, &front->first, request->moment, &until))
			request->fronts[kept++] = front;
		else
		{
			request->total -= front->count;
			let_go(request, front, until);
		}
	}
	request->nfronts = kept;
}

/*
 * Groups that no note told of: take them, or else add notes for the next reads.
 */
static void
take_overlooked(Request *request, List *overlooked)
{
	ListCell   *lc;

	foreach(lc, overlooked)
	{
		const Overlooked *group = lfirst(lc);
		Note	   *note = palloc0(sizeof(Note));
		int			nfronts = request->nfronts;

		note->key = group->key;
		note->late = group->held;
		if (wanting(request) && !group->held)
			consider_anyway(request, note);
		if (request->nfronts == nfronts || request->peek)
			notes_add(&request->notes, group->key, group->until, group->head, group->held, 0);
	}
}

/* Go on with the sweep over all groups, if it is time */
static void
sweep(Request *request)
{
	SweepOccasion occasion = SWEEP_AFTER_FULL_READ;
	int64		enough = PG_INT32_MAX;

	/* What this transaction can't see it can't take, and its notes would be hidden by its age */
	if (request->queue.fixed != NULL || XactReadOnly)
		return;
	if (wanting(request))
	{
		occasion = request->waiting ? SWEEP_IN_WAIT : SWEEP_AFTER_SHORT_READ;
		if (!request->unlimited)
			enough = request->quantity;
	}
	take_overlooked(request, sweep_step(&request->queue, occasion, (int) enough));
}

/* ---- without a group index ---- */

static void
read_slowly(Request *request)
{
	SlowMessage *messages;
	Front	   *front = NULL;
	int			count;
	int			i;

	group_forget_index(&request->queue);
	front_open_all(&request->queue);
	count = slow_messages(&request->name, request->policy, request->unlimited ? -1 : request->quantity,
						  request->moment, !request->peek, &messages);
	for (i = 0; i < count; i++)
	{
		Peeked		peeked = {.msg_id = messages[i].msg_id};

		if (front == NULL || messages[i].msg_id == messages[i].head)
		{
			front = palloc0(sizeof(Front));
			front->ended = true;
			front_add(front, &peeked);
			add_front(request, front);
		}
		else
		{
			front_add(front, &peeked);
			request->total++;
		}
	}
}

/* ---- handing out ---- */

/* The result of a round robin is in its order: all first messages, then all second ones ... */
static void
arrange(Request *request)
{
	int64	   *ids = palloc_extended(sizeof(int64) * (request->total + 1), MCXT_ALLOC_HUGE);
	int64		count = 0;
	int			rank;
	int			i;

	qsort(request->fronts, request->nfronts, sizeof(Front *), compare_fronts);
	for (rank = 0; count < request->total; rank++)
	{
		for (i = 0; i < request->nfronts; i++)
		{
			if (rank < request->fronts[i]->count)
				ids[count++] = request->fronts[i]->ids[rank];
		}
	}
	result_arrange(request->messages, ids, count);
}

/*
 * Lease what was taken.  One reading of the clock, made after the queue's table
 * was locked (floors.c), is for all messages, so that the leases of a group's
 * messages end together.  False if a policy or a trigger of the users' has kept
 * a message from it, or has made a lease shorter.
 */
static bool
lease(Request *request, TimestampTz now)
{
	Datum	   *ids = palloc_extended(sizeof(Datum) * (request->total + 1), MCXT_ALLOC_HUGE);
	Datum		values[3];
	bool		nulls[3] = {false};
	int			count = 0;
	int			i;
	int			j;

	for (i = 0; i < request->nfronts; i++)
	{
		for (j = 0; j < request->fronts[i]->count; j++)
			ids[count++] = Int64GetDatum(request->fronts[i]->ids[j]);
	}
	values[0] = PointerGetDatum(construct_array(ids, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = TimestampTzGetDatum(now);
	values[2] = TimestampTzGetDatum(now + request->lease);
	nulls[2] = request->lease_null;
	front_close_indexes(&request->queue);	/* open.c says why */
	request->handed_out = (int64) route_by_id(&request->name, &lease_messages, values, nulls,
											  request->lease == 0, result_dest(request->messages));
	return request->handed_out == count &&
		result_earliest(request->messages) >= now + request->lease;
}

static void
hand_out(Request *request)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		leased = request->nfronts > 0 && !request->peek && lease(request, now);
	int			i;

	if (request->queue.notes == NULL)
		return;
	/* If not, the notes as they are say to look at these groups again */
	for (i = 0; leased && i < request->nfronts; i++)
		notes_lease(&request->notes, &request->fronts[i]->claim, request->fronts[i]->key, now + request->lease,
					request->fronts[i]->ids[0]);
	notes_write(&request->queue, &request->notes, now + request->lease);
}

/* False, and nothing is done, if the notes don't have the indexes that they are found by */
static bool
read_by_notes(Request *request)
{
	Horizon    *h = horizon_begin(&request->name, NOTES_TABLE, true,
								!request->queue.notes_locked_before);
	Oid			index;

	if (!horizon_indexes(h, &index, &index))
	{
		horizon_end(h, 1);
		return false;
	}
	forget_seen(request);
	request->any_late = notes_any_late(&request->queue, NULL);
	do
		look(request, h);
	while (wanting(request) && horizon_look_again(h));
	if (wanting(request))
		consider_claimed(request);
	sweep(request);
	if (request->policy == ROUND_ROBIN)
		go_round(request);
	check_late(request);
	hand_out(request);
	request->look_in = Max(request->look_in, horizon_sweep_in(h));
	horizon_end(h, request->nfronts);
	return true;
}

/* What an attempt has, anew */
static void
begin_attempt(Request *request)
{
	request->max_fronts = 16;
	request->fronts = palloc(sizeof(Front *) * request->max_fronts);
	request->nfronts = 0;
	request->total = request->handed_out = request->look_in = 0;
	request->claimed = NIL;
	request->in_vain = 0;
	request->quiet |= XactReadOnly;
	memset(&request->notes, 0, sizeof(request->notes));
	/* The row versions that this transaction has written before are there to be locked */
	CommandCounterIncrement();
	request->moment = GetCurrentTimestamp() - 1;
}

/*
 * Who may not take messages must not lock any, either; the statement reports
 * what is in the way, without any message to take.
 */
static bool
may_read(const Request *request)
{
	return !XactReadOnly && !RecoveryInProgress() &&
		horizon_may_take(RelationGetRelid(request->queue.queue));
}

/*
 * When there is a reason for another attempt, as far as the clock goes.  What a
 * delay or a lease makes available is in the queue's own index; notes that wait
 * for an open transaction are looked at again at intervals, and when it ends.
 */
static void
tell_outlook(Request *request, Outlook *outlook)
{
	Horizon    *h = horizon_begin(&request->name, QUEUE_TABLE, false, false);

	read_outlook(&request->name, h, request->moment, 0, outlook);
	outlook->thorough = false;
	if (request->look_in > 0)
	{
		outlook->conclusive = false;
		outlook->next = Min(outlook->next, GetCurrentTimestamp() + Max(request->look_in, 1000));
	}
	horizon_end(h, 0);
}

/* One attempt: how many messages it got, or how many groups it saw.  "outlook" may be NULL. */
static int64
request_run(Request *request, Outlook *outlook)
{
	bool		written;
	int64		got;

	rights_require_queue(&request->name, ACL_UPDATE);
	SPI_connect();
	begin_attempt(request);
	horizon_move(&request->name);
	if (!group_open(&request->queue, &request->name, true))
	{
		name_require_queue(&request->name);
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the queue's table does not have the columns of a queue"),
				 errdetail("Groups are read from ordinary tables of the access method heap, and their partitions.")));
	}
	if (!request->peek)
		wake_mark_taking(&request->name, PG_INT32_MAX);
	if (!request->peek && !may_read(request))
		(void) lease(request, request->moment);
	else if (request->quantity < 0 && request->policy != ROUND_ROBIN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROW_COUNT_IN_LIMIT_CLAUSE),
				 errmsg("LIMIT must not be negative")));
	else if (wanting(request) &&
			 (request->queue.notes == NULL || !read_by_notes(request)))
	{
		/* To find the messages is all the work there is */
		if (request->quiet && request->waiting)
			request->in_vain = PG_INT32_MAX;
		else
		{
			read_slowly(request);
			hand_out(request);
		}
	}
	/* A rollback gives them back, the clock at the end of the lease */
	if (!request->peek)
		wake_mark_taken(&request->name, PG_INT32_MAX, request->total);
	if (request->handed_out > 0)
		wake_mark_due(&request->name, GetCurrentTimestamp() + request->lease);
	if (request->policy == ROUND_ROBIN && request->total > 0)
		arrange(request);
	/* An empty read lets go of its lock, so that it holds up no floors (horizon.c) */
	written = request->queue.locked_before || TransactionIdIsValid(GetTopTransactionIdIfAny());
	group_close(&request->queue, written);
	got = request->peek ? request->total : request->handed_out;
	if (got == 0 && outlook != NULL)
		tell_outlook(request, outlook);
	SPI_finish();
	return got;
}

/* Whether to look first: to read might be the transaction's first write, while it goes on to wait */
static bool
looks_first(const Request *request)
{
	Oid			relid = name_relid(&request->name, QUEUE_TABLE);

	return request->waiting && wanting(request) && request->quantity >= 0 &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		OidIsValid(relid) && !XactReadOnly && !RecoveryInProgress() && horizon_may_take(relid);
}

static int64
attempt(void *arg, int queue, Outlook *outlook)
{
	Request    *request = arg;
	Request		look = {
		.name = request->name, .policy = HEADS, .quantity = 1, .peek = true, .quiet = true, .waiting = true
	};

	if (!looks_first(request))
		return request_run(request, outlook);
	if (request_run(&look, outlook) > 0 || look.in_vain > MOST_IN_VAIN)
		return request_run(request, outlook);
	request->in_vain = look.in_vain;
	return 0;
}

/* How many groups a look counts: who sees more wakes no more others. */
#define PEEK_LIMIT 16

/*
 * How many groups could be handed out now, up to a limit.  The notes of others are
 * seen to as by a read.
 */
static int64
group_peek(const QueueName *name, Outlook *outlook)
{
	Request		request;

	memset(&request, 0, sizeof(request));
	request.name = *name;
	request.policy = HEADS;
	request.quantity = PEEK_LIMIT;
	request.peek = true;
	return request_run(&request, outlook);
}

static void
request_init(Request *request, FunctionCallInfo fcinfo, Policy policy)
{
	memset(request, 0, sizeof(*request));
	name_from_arg(fcinfo, 0, &request->name);
	request->policy = policy;
	if (!PG_ARGISNULL(2))
		request->quantity = PG_GETARG_INT32(2);
	else
		request->unlimited = policy == HEADS;
	request->lease_null = PG_ARGISNULL(1);
	if (!request->lease_null)
		request->lease = (int64) Max(PG_GETARG_INT32(1), 0) * USECS_PER_SEC;
	request->messages = result_messages(fcinfo);
}

static void
request_finish(Request *request)
{
	if (request->policy != ROUND_ROBIN)
		result_finish(request->messages);
}

static Datum
read_groups(FunctionCallInfo fcinfo, Policy policy)
{
	Request		request;

	request_init(&request, fcinfo, policy);
	request_run(&request, NULL);
	request_finish(&request);
	return (Datum) 0;
}

static Datum
wait_for_groups(FunctionCallInfo fcinfo, Policy policy)
{
	Request		request;
	WaitRequest wait = {0};

	request_init(&request, fcinfo, policy);
	wait.queues = &request.name;
	wait.nqueues = 1;
	wait.attempt = attempt;
	wait.arg = &request;
	wait_arguments(&wait, fcinfo, 3);
	wait.success = WAKE_TOOK;
	wait.grouped = true;
	wait.picky = rights_hide_rows(&request.name);
	wait.unwakeable = IsolationUsesXactSnapshot() || !wanting(&request);
	request.waiting = wait.timeout_ms > 0;
	/* Notes that were left as they are must not be in the way of all reads */
	if (!wait_for(&wait) && request.in_vain > 0)
	{
		request.waiting = false;
		request_run(&request, NULL);
	}
	request_finish(&request);
	return (Datum) 0;
}

/* pgmq.read_grouped(queue_name text, vt integer, qty integer) -> SETOF message_record */
Datum
pgmq_read_grouped(PG_FUNCTION_ARGS)
{
	return read_groups(fcinfo, FILL);
}

/* pgmq.read_grouped_rr(queue_name text, vt integer, qty integer) -> SETOF message_record */
Datum
pgmq_read_grouped_rr(PG_FUNCTION_ARGS)
{
	return read_groups(fcinfo, ROUND_ROBIN);
}

/* pgmq.read_grouped_head(queue_name text, vt integer, qty integer) -> SETOF message_record */
Datum
pgmq_read_grouped_head(PG_FUNCTION_ARGS)
{
	return read_groups(fcinfo, HEADS);
}

/*
 * pgmq.read_grouped_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer,
 *							   poll_interval_ms integer) -> SETOF message_record
 */
Datum
pgmq_read_grouped_with_poll(PG_FUNCTION_ARGS)
{
	return wait_for_groups(fcinfo, FILL);
}

/* pgmq.read_grouped_rr_with_poll(...) -> SETOF message_record; arguments as above */
Datum
pgmq_read_grouped_rr_with_poll(PG_FUNCTION_ARGS)
{
	return wait_for_groups(fcinfo, ROUND_ROBIN);
}

/* pgmq.read_grouped_head_with_poll(...) -> SETOF message_record; arguments as above */
Datum
pgmq_read_grouped_head_with_poll(PG_FUNCTION_ARGS)
{
	return wait_for_groups(fcinfo, HEADS);
}

/* pgmq.wait_grouped(queue_name text, timeout_ms integer, INOUT ready boolean) */
Datum
pgmq_wait_grouped(PG_FUNCTION_ARGS)
{
	return peek_wait(fcinfo, "pgmq.wait_grouped", true, group_peek);
}
