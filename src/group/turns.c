/*
 * turns.c
 *	  Which group comes first: the notes that a read finds, in the order of their groups'
 *	  first messages.
 *
 * A read takes the notes that are due and the oldest fresh ones, from where horizon.c says.
 * The group whose first message is the oldest comes first, among as many notes as are
 * taken at once (WINDOW).
 */
#include "pgmq.h"

#include "nodes/pg_list.h"

#include "base/base.h"
#include "position/position.h"
#include "group/request.h"

/* How many notes of each kind are sorted at once, beyond what is wanted */
#define WINDOW 64

/* A note that reads have left is moved to the end when it is so many notes, or microseconds, behind the others */
#define FAR_BEHIND_NOTES 4096
#define FAR_BEHIND_TIME (5 * USECS_PER_SEC)

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
	TimestampTz due_highest;
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

	if (request_see_note(request, note, &found)->done || request_see_group(request, note->key)->done)
	{
		if (!request_see_note(request, note, &found)->done)
			window->left = lappend(window->left, note);
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
		(void) request_see_note(request, note, &before);
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
 * Notes that are in the window and not wanted any more stay for the next read.
 * Many reads may leave a group whose first message is among the newest.  Each
 * of them would scan from its note, including all dead notes after it.  So such
 * a note is replaced by a new one at the end of the fresh ones.
 */
static void
leave_notes(GroupRequest *request, Window *window)
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
			notes_add(&request->notes, note->key, DT_NOBEGIN, note->head, note->late);
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
void
request_look(GroupRequest *request, Horizon *h)
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
