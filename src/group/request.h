/*
 * request.h
 *	  One read by groups: between group.c, take.c and turns.c.
 */
#ifndef PGMQ_REQUEST_H
#define PGMQ_REQUEST_H

#include "utils/hsearch.h"

#include "group/internal.h"

/* A group that is handed out, with its messages in order */
typedef struct Front
{
	const text *key;
	int64	   *ids;
	int			count;
	int			max;
	Peeked		first;			/* as it was before */
	bool		ended;			/* no more is available */
	GroupScan  *scan;			/* open while the front is being taken from */
	Claim		claim;			/* of its notes */
} Front;

/* The request of one call, which may take several attempts; and the state of an attempt */
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
	int64		handed_out;		/* of these; a trigger of a user may suppress some */
	int64		look_in;		/* some notes were left out until so many microseconds from now; or 0 */
	bool		any_late;
	NoteChanges notes;
	HTAB	   *seen;			/* notes, and groups that are taken */
	List	   *claimed;		/* notes that others have locked */
	bool		peek;			/* take nothing, only count available groups */
	bool		quiet;			/* and write nothing about the others */
	int			in_vain;		/* of which there were so many */
	bool		waiting;		/* another attempt follows, in this transaction */
} Request;

/* A group or a note that this call has seen */
typedef struct Seen
{
	uint64		what[2];
	bool		done;			/* the group is taken, the note claimed */
} Seen;

/* ---- take.c ---- */

extern void front_add(Front *front, const Peeked *peeked);
extern void front_pause(Front *front);
extern bool request_look_for_first(Request *request, const text *key, Peeked *first);
extern bool request_wants(const Request *request);
extern void request_add_front(Request *request, Front *front);
extern int	compare_fronts(const void *a, const void *b);
extern void request_go_round(Request *request);
extern void request_forget_seen(Request *request);
extern Seen *request_see_group(Request *request, const text *key);
extern Seen *request_see_note(Request *request, const Note *note, bool *before);
extern void request_let_go(Request *request, Front *front, TimestampTz until);
extern bool request_consider(Request *request, const Note *note, const Peeked *first, bool anyway);
extern void request_consider_anyway(Request *request, const Note *note);
extern void request_consider_claimed(Request *request);

/* ---- turns.c ---- */

extern void request_look(Request *request, Horizon *h);

#endif							/* PGMQ_REQUEST_H */
