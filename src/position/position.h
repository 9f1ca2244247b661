/*
 * position.h
 *	  Where a read may start, so that its cost does not depend on what else is in the queue.
 *
 * Each queue has floors and marks, which all sessions share.  Floors are true: below them there
 * is no message that our functions have written.  Marks are likely: sweeps find what they have
 * skipped wrongly.  All of it can be dropped at any time; then reads start at the beginning of
 * the indexes.
 *
 * A read calls horizon_begin(), and looks where horizon_next_due() and horizon_next_fresh()
 * say.  It tells horizon_found() what it found.  While it is short of messages it asks
 * horizon_look_again().  It ends with horizon_end().  If nothing is known, the same calls
 * say: look everywhere.
 *
 * For waiting sessions, an Outlook says when there is a reason for another attempt.
 */
#ifndef PGMQ_POSITION_H
#define PGMQ_POSITION_H

#include "queue/queue.h"
#include "position/holders.h"

/* What an attempt knows about the next one; "until" is an argument */
typedef struct Outlook
{
	TimestampTz until;			/* look no further ahead than this */
	TimestampTz next;			/* a message becomes due, or else DT_NOEND */
	bool		conclusive;		/* nothing was left out that would have taken long */
	bool		thorough;		/* nothing comes until then, unless a transaction ends */
	uint64		ended;			/* transactions_ended() before the attempt */
} Outlook;

/* A read looks from the first of these that it may, and goes on when it is short */
typedef enum HorizonLook
{
	HORIZON_FROM_MARKS,
	HORIZON_FROM_FLOORS,
	HORIZON_EVERYWHERE			/* nothing is known about this table */
} HorizonLook;

/* What one look has found */
typedef struct HorizonFinds
{
	int64		messages;
	bool		due_exhausted;	/* no deferred message up to due_until is left */
	TimestampTz due_until;
	int64		fresh_messages;
	bool		fresh_exhausted;
	int64		fresh_highest;	/* of the fresh messages */

	/* Of a queue where messages can be dead */
	bool		surveyed;		/* no message that can be taken is left up to due_until, exhausted or not */
	bool		passed;			/* messages that cannot be taken were skipped; fresh_highest counts them */
	bool		stopped;		/* that took too long: what comes then was not looked at */
} HorizonFinds;

/* Where a statement is to look: in which leaf, or in the queue as a whole, and from where */
typedef struct HorizonRange
{
	Leaf	   *leaf;
	int64		from;			/* a msg_id, or a vt */
	int64		until;
} HorizonRange;

typedef struct Horizon Horizon;

extern int	horizon_rescan_interval;

extern void horizon_init(void);
extern Horizon *horizon_begin(const QueueName *name, char prefix, bool everything, bool ours);
extern Horizon *horizon_begin_dead(const QueueName *name, bool everything);
extern Horizon *horizon_begin_ranks(const QueueName *name, bool everything);
extern bool horizon_by_rank(const Horizon *h);
extern int	horizon_rank(const Horizon *h);
extern bool horizon_next_rank(Horizon *h, TimestampTz now);
extern bool horizon_next_waited(Horizon *h, TimestampTz until, int64 limit, HorizonRange *range, bool *fresh);
extern bool horizon_indexes(const Horizon *h, Oid *id_index, Oid *vt_index);
extern bool horizon_may_take(Oid relid);
extern bool horizon_next_due(Horizon *h, TimestampTz now, HorizonRange *range);
extern bool horizon_next_fresh(Horizon *h, int64 limit, HorizonRange *range);
extern void horizon_found(Horizon *h, const HorizonFinds *finds);
extern bool horizon_look_again(Horizon *h);
extern bool horizon_turn_to_marks(Horizon *h);
extern bool horizon_is_empty(const Horizon *h, TimestampTz moment, Outlook *outlook);
extern int64 horizon_sweep_in(const Horizon *h);
extern bool horizon_is_known(const Horizon *h);
extern bool horizon_is_likely(const Horizon *h);
extern PlanVariant horizon_variant(const Horizon *h, const QueueName *name);
extern bool horizon_survey(const Horizon *h, const HorizonRange *range, bool fresh, const SurveyRule *rule, Survey *s);
extern TimestampTz horizon_due_position(const Horizon *h, TimestampTz position);
extern void horizon_leave(Horizon *h, int64 microseconds);
extern void horizon_took_nothing(Horizon *h);
extern bool horizon_knows(const Horizon *h);
extern bool horizon_is_by_id(const Horizon *h);
extern int64 horizon_check(Horizon *h, TimestampTz moment, int64 limit);
extern bool horizon_outlook(Horizon *h, TimestampTz moment, int64 found, Outlook *outlook);
extern void horizon_end(Horizon *h, uint64 messages);
extern Partitions *horizon_partitions(const QueueName *name);
extern void horizon_move(const QueueName *name);
extern void horizon_invalidate(const QueueName *name);
extern void horizon_rolled_back(void);
extern bool horizon_pass_rollback(bool pass);
extern void horizon_forget(void);

#endif							/* PGMQ_POSITION_H */
