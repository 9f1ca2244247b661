/*
 * request.h
 *	  One read by groups: between group.c and take.c.
 */
#ifndef PGMQ_REQUEST_H
#define PGMQ_REQUEST_H

#include "access/xact.h"
#include "utils/hsearch.h"

#include "policy/policy.h"
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
	int64	   *dead;			/* the run at the front of the group, to be moved */
	int			ndead;
} Front;

/* The request of one call, which may take several attempts; and the state of an attempt */
typedef struct GroupRequest
{
	QueueName	name;
	GroupMode	mode;
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
	NoteChanges notes;
	HTAB	   *seen;			/* groups that were looked at: hashes of their keys */
	List	   *claimed;		/* notes that others have locked */
	bool		check;			/* take nothing, only count available groups */
	int			unavailable;		/* of which there were so many */
	bool		waiting;		/* another attempt follows, in this transaction */

	const QueuePolicy *policy;	/* of the queue */
	SurveyRule	rule;			/* of this policy */
	List	   *runs;			/* fronts with dead messages */
	int			ndead;			/* of which there are so many */
	bool		passed;			/* this look has skipped dead messages */
	int64		deadline;		/* by ticks(): no more groups are looked at; 0: none */
	bool		unmoved;		/* some could not be moved */
	bool		moves_nothing;	/* groups that begin with a dead message are left as they are */
} GroupRequest;

/* The call has spent enough time on what it does not take */
static inline bool
request_is_late(const GroupRequest *request)
{
	return request->deadline != 0 && ticks() > request->deadline;
}

/* A look that writes nothing, not even about groups that are not available */
static inline bool
request_is_quiet(const GroupRequest *request)
{
	return request->check && (request->waiting || XactReadOnly);
}

extern void front_add(Front *front, const Peeked *peeked);
extern void front_pause(Front *front);
extern bool request_wants(const GroupRequest *request);
extern void request_add_front(GroupRequest *request, Front *front);
extern int	compare_fronts(const void *a, const void *b);
extern void request_go_round(GroupRequest *request);
extern void request_forget_seen(GroupRequest *request);
extern void request_release(GroupRequest *request, Front *front, TimestampTz until);
extern void request_consider_anyway(GroupRequest *request, const Note *note);
extern void request_consider_claimed(GroupRequest *request);
extern void request_look(GroupRequest *request, Horizon *h);
extern bool request_judge(GroupRequest *request, const Claim *claim, const text *key, bool late);
extern void request_withdraw(GroupRequest *request, Front *front);

/* deadrun.c */
extern bool run_may_begin(GroupRequest *request);
extern bool run_take(GroupRequest *request, Front *front, const Peeked *first);
extern bool run_pass(GroupRequest *request, const text *key, const Peeked *first, Peeked *live);
extern void run_move_all(GroupRequest *request);
extern void run_move_found(GroupRequest *request, const SlowMessage *messages, int count);

#endif							/* PGMQ_REQUEST_H */
