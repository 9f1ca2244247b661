/*
 * take.c
 *	  Which group comes first; and take its messages, or say in its notes when to look at
 *	  it again.
 *
 * A read takes the notes that are due and the oldest fresh ones, from where horizon.c says.
 * The group whose first message is the oldest comes first, among as many notes as are
 * taken at once (WINDOW).
 *
 * A look at a group ends with a new time in its notes.  Handed out: when the lease
 * ends.  Available later: then.  Blocked by an open transaction: soon.  Empty: the
 * notes are dropped.  All are written at the end.  A note that another transaction
 * has locked is skipped, and its group is looked at only when there is nothing
 * else.  So a transaction that stays open does not withhold a group from the
 * others.  front.c argues what may be taken of a group.
 */
#include "pgmq.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "base/base.h"
#include "position/position.h"
#include "group/request.h"

/* How many groups whose notes are locked are looked at, at most, beyond what is wanted */
#define MOST_CLAIMED 256

/* When a waiting session looks at others of them: microseconds */
#define LOOK_AT_OTHERS_IN 100000

/* ---- one group ---- */

void
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

void
front_pause(Front *front)
{
	if (front->scan)
		front_end(front->scan);
	front->scan = NULL;
}

/* The first message of a group, as a look finds it; false if there is none */
static bool
request_look_for_first(GroupRequest *request, const text *key, Peeked *first)
{
	GroupStart	start;
	GroupScan  *scan;
	bool		found;

	starts_find(&request->queue, key, &start);
	scan = front_begin(&request->queue, key, start.from);
	found = front_next(scan, first);
	/* What this transaction has deleted may come back */
	if (found)
		starts_advance(&start, first->msg_id, request->queue.locked_before);
	front_end(scan);
	return found;
}

/* R3: take the message that was found to be the first of its group.  Only its lock makes that certain. */
static bool
take_first(GroupRequest *request, Front *front, const Peeked *first)
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
	if (first->dead)
		return run_take(request, front, first);
	front_add(front, first);
	return true;
}

/* Take one more. */
static bool
take_next(GroupRequest *request, Front *front)
{
	Peeked		peeked;
	bool		found;

	if (front->ended)
		return false;
	if (front->scan == NULL)
		front->scan = front_begin(&request->queue, front->key, front->ids[front->count - 1] + 1);
	found = front_next(front->scan, &peeked);
	front->ended = !found || !peeked_is_available(&peeked, request->moment) || peeked.dead ||
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

bool
request_wants(const GroupRequest *request)
{
	if (request_is_late(request))
		return false;
	if (request->unlimited)
		return true;
	return (request->mode == FILL ? request->total : request->nfronts) < request->quantity;
}

/* The group's first message is taken; go on as the policy says. */
void
request_add_front(GroupRequest *request, Front *front)
{
	if (request->nfronts == request->max_fronts)
	{
		request->max_fronts *= 2;
		request->fronts = repalloc_huge(request->fronts, sizeof(Front *) * request->max_fronts);
	}
	request->fronts[request->nfronts++] = front;
	request->total++;
	if (request->mode == FILL)
	{
		while (request->total < request->quantity && take_next(request, front))
			;
	}
	front_pause(front);
}

/* What was taken of a group may not be handed out after all */
void
request_withdraw(GroupRequest *request, Front *front)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < request->nfronts; i++)
	{
		if (request->fronts[i] != front)
			request->fronts[kept++] = request->fronts[i];
	}
	request->nfronts = kept;
	request->total -= front->count;
	front->count = 0;
}

int
compare_fronts(const void *a, const void *b)
{
	return pg_cmp_s64((*(Front *const *) a)->ids[0], (*(Front *const *) b)->ids[0]);
}

/*
 * Round robin: every group has given one message.  While there is room for
 * whole rounds, each gives one more for each round.  Then the groups with the
 * oldest first messages give one more each.
 */
void
request_go_round(GroupRequest *request)
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

void
request_forget_seen(GroupRequest *request)
{
	request->seen = hash_in_context("pgmq groups seen", 64, sizeof(SlotKey), sizeof(SlotKey), CurrentMemoryContext);
}

/* Whether this call has looked at the group already; what it has found is in the notes that it will write */
static bool
request_has_seen(GroupRequest *request, const text *key, bool look_now)
{
	SlotKey		hash = slots_hash(VARDATA_ANY(key), (int) VARSIZE_ANY_EXHDR(key), 0);
	bool		found;

	(void) hash_search(request->seen, &hash, look_now ? HASH_ENTER : HASH_FIND, &found);
	return found;
}

/*
 * A group is not available before that time; without a time it is blocked by an open transaction.
 * Then the pause is twice as long as the one that the claimed notes have waited.
 */
static void
postpone(GroupRequest *request, const Claim *claim, const text *key, TimestampTz until, int64 head, bool late)
{
	TimestampTz now = GetCurrentTimestamp();

	if (until <= now)
		until = now + Min(Max(claim->pause * 2, SHORTEST_PAUSE), LONGEST_PAUSE);
	notes_replace(&request->notes, claim, key, until, head, late);
}

/* R2: the group was not taken.  Look, and write the verdict.  False if the notes are right as they are. */
bool
request_judge(GroupRequest *request, const Claim *claim, const text *key, bool late)
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

/* Its first message came late, and another consumer holds others after it. */
void
request_release(GroupRequest *request, Front *front, TimestampTz until)
{
	front_pause(front);
	if (front->claim.notes != NIL)
		postpone(request, &front->claim, front->key, until, front->ids[0], true);
	front->count = 0;
}

/*
 * Look at the group of a note; "first" is its first message as it was a moment ago, NULL
 * if there was none.  A note that others have locked is set aside, unless the group is
 * wanted "anyway": then it gets a note of its own if it is taken.  False if the note is
 * left as it is, and due, for the next read.
 *
 * The notes of a group of which nothing but dead messages is taken are left to the
 * trigger, which runs when these are moved.  A group whose dead messages have to wait is
 * for a sweep: reads must come to what is behind it.
 */
static bool
request_consider(GroupRequest *request, const Note *note, const Peeked *first, bool anyway)
{
	GroupQueue *queue = &request->queue;
	Front	   *front = palloc0(sizeof(Front));
	bool		available = first != NULL && peeked_is_available(first, request->moment);
	bool		late = note->late || notes_group_is_late(queue, note->key);
	bool		seen_to = false;
	Peeked		live;
	TimestampTz until;

	front->key = note->key;
	if (available && first->dead)
	{
		if (!request->check && !run_may_begin(request))
		{
			(void) request_has_seen(request, note->key, true);
			return true;
		}
		if (request->check)
		{
			available = run_pass(request, note->key, first, &live);
			first = &live;
		}
	}
	if (request->check && available &&
		!(late && front_is_held_behind(queue, note->key, first, request->moment, &until)))
		front_add(front, first);
	else if (request_is_quiet(request))
		request->unavailable += !anyway;
	else
	{
		notes_claim(queue, note->key, anyway ? NULL : note, &front->claim);
		late |= front->claim.late;
		seen_to = true;
		if (front->claim.notes == NIL && !anyway)
		{
			request->claimed = lappend(request->claimed, (void *) note);
			return true;
		}
		if (request->check || !available || !take_first(request, front, first))
			seen_to = request_judge(request, &front->claim, note->key, late);
		else if (late && front->count > 0 &&
				 front_is_held_behind(queue, note->key, &front->first, request->moment, &until))
			request_release(request, front, until);
	}
	(void) request_has_seen(request, note->key, true);
	if (front->ndead > 0)
		request->runs = lappend(request->runs, front);
	if (front->count > 0)
		request_add_front(request, front);
	return seen_to;
}

/* The same for a group whose notes are locked or missing */
void
request_consider_anyway(GroupRequest *request, const Note *note)
{
	Peeked		first;

	if (!request_has_seen(request, note->key, false) && request_look_for_first(request, note->key, &first))
		(void) request_consider(request, note, &first, true);
}

/*
 * Look at the groups whose notes are locked.  Mostly the groups are locked as well:
 * a transaction with thousands of them must not make each read look at them all.  So
 * a read looks at some of them, the next read at others.
 */
void
request_consider_claimed(GroupRequest *request)
{
	int			count = list_length(request->claimed);
	int64		most = request->unlimited ? count : Min(count, request->quantity + MOST_CLAIMED);
	int			first = most < count ? (int) pg_prng_uint64_range(&pg_global_prng_state, 0, count - 1) : 0;
	int			i;

	if (most < count)
		request->look_in = LOOK_AT_OTHERS_IN;
	for (i = 0; i < most && request_wants(request); i++)
	{
		CHECK_FOR_INTERRUPTS();
		request_consider_anyway(request, list_nth(request->claimed, (first + i) % count));
	}
}

/* ---- turns ---- */

/* How many notes of each kind are sorted at once, beyond what is wanted */
#define WINDOW 64

/* A note that reads have left is moved to the end when so many notes were written after it */
#define FAR_BEHIND 4096

static int
compare_notes(const void *a, const void *b)
{
	const Note *note_a = *(Note *const *) a;
	const Note *note_b = *(Note *const *) b;

	if (note_a->place != note_b->place)
		return note_a->place < note_b->place ? -1 : 1;
	return pg_cmp_s64(note_a->id, note_b->id);
}

/* Notes of both kinds, as many as are sorted at once */
typedef struct Window
{
	NoteScan   *due;			/* NULL: no more */
	NoteScan   *fresh;
	HorizonFinds finds;
	int64		highest[2];		/* id of a fresh note, and of a due one */
	TimestampTz due_from;
	TimestampTz due_highest;	/* vt of a due one */
	List	   *left;			/* those that stay as they are */
	Note	  **notes;
	int			count;
	int			max;
} Window;

/*
 * Look at the next group in order.  If its first message is gone since the note was
 * written, and other groups come before it now, it is ordered after those.  Its note
 * is not locked for that, because the group may not get its turn at all.
 */
static void
take_turn(GroupRequest *request, Window *window, int *next)
{
	int			i = *next;
	Note	   *note = window->notes[i];
	Peeked		first;
	bool		found;

	if (request_has_seen(request, note->key, false))
	{
		(*next)++;
		return;
	}
	found = request_look_for_first(request, note->key, &first);
	if (found)
		note->place = Max(note->place, first.msg_id);
	if (!found || i + 1 == window->count || note->place <= window->notes[i + 1]->place)
	{
		(*next)++;
		if (!request_consider(request, note, found ? &first : NULL, false))
			window->left = lappend(window->left, note);
		return;
	}
	for (; i + 1 < window->count && window->notes[i + 1]->place < note->place; i++)
		window->notes[i] = window->notes[i + 1];
	window->notes[i] = note;
}

static void
window_fill(GroupRequest *request, Window *window, NoteScan **scan)
{
	int64		most = Min(request->unlimited ? 1024 : request->quantity, 1024) + WINDOW;

	while (*scan && most > 0)
	{
		Note	   *note = palloc(sizeof(Note));
		bool		due;

		if (!notes_next(*scan, note))
		{
			notes_end(*scan);
			*scan = NULL;
			break;
		}
		due = note->due;
		window->highest[due] = Max(window->highest[due], note->id);
		if (due)
			window->due_highest = note->vt;
		window->finds.fresh_messages += !due;
		if (request_has_seen(request, note->key, false))
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
 * Notes that are in the window and not wanted any more stay for the next read.
 * Many reads may leave a group whose first message is among the newest.  Each
 * of them would scan from its note, including all dead notes after it.  So such
 * a note is replaced by a new one at the end of the fresh ones.
 */
static void
leave_notes(GroupRequest *request, Window *window)
{
	HorizonFinds *finds = &window->finds;
	ListCell   *lc;

	finds->surveyed = request->queue.rule != NULL;
	finds->passed = request->passed;
	finds->stopped = request_is_late(request);
	finds->due_exhausted = window->due == NULL;
	if (!finds->due_exhausted)
		finds->due_until = Max(window->due_highest - 1, window->due_from);
	finds->fresh_exhausted = window->fresh == NULL;
	finds->fresh_highest = window->highest[false];
	foreach(lc, window->left)
	{
		const Note *note = lfirst(lc);

		if (note->id < window->highest[note->due] - FAR_BEHIND && !request_is_quiet(request) &&
			notes_lock(&request->queue, note))
		{
			request->notes.dropped = lappend(request->notes.dropped, (void *) note);
			notes_add(&request->notes, note->key, DT_NOBEGIN, note->head, note->late);
		}
		else if (note->due)
		{
			finds->due_exhausted = false;
			finds->due_until = Min(finds->due_until, note->vt - 1);
		}
		else
		{
			finds->fresh_exhausted = false;
			finds->fresh_highest = Min(finds->fresh_highest, note->id - 1);
		}
	}
}

/* One look, from where the horizon says */
void
request_look(GroupRequest *request, Horizon *h)
{
	Window		window = {0};
	Oid			id_index;
	Oid			vt_index;
	HorizonRange range;
	int			i;

	(void) horizon_indexes(h, &id_index, &vt_index);
	window.notes = palloc(sizeof(Note *) * (window.max = WINDOW));
	window.finds.due_until = request->moment;
	request->passed = false;
	if (horizon_next_due(h, request->moment, &range))
	{
		window.due_from = range.from;
		window.due = notes_scan(&request->queue, vt_index, true, range.from, range.until);
	}
	if (horizon_next_fresh(h, 0, &range))
		window.fresh = notes_scan(&request->queue, id_index, false, range.from, range.until);
	do
	{
		window.count = 0;
		window_fill(request, &window, &window.due);
		window_fill(request, &window, &window.fresh);
		qsort(window.notes, window.count, sizeof(Note *), compare_notes);
		for (i = 0; i < window.count && request_wants(request); window.finds.messages++)
			take_turn(request, &window, &i);
		for (; i < window.count; i++)
			window.left = lappend(window.left, window.notes[i]);
	} while (request_wants(request) && (window.due || window.fresh));
	leave_notes(request, &window);
	if (window.due)
		notes_end(window.due);
	if (window.fresh)
		notes_end(window.fresh);
	horizon_found(h, &window.finds);
}
