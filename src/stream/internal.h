/*
 * internal.h
 *	  What the files of this folder share.
 */
#ifndef PGMQ_STREAM_INTERNAL_H
#define PGMQ_STREAM_INTERNAL_H

#include "storage/lock.h"
#include "tcop/dest.h"
#include "utils/snapshot.h"

#include "position/position.h"
#include "stream/stream.h"

/* ---- registry.c: rows about streams and subscriptions ---- */

extern int	stream_shards(const QueueName *name);
extern bool subscription_find(const QueueName *name, const char *subscription, Oid *role);
extern void subscription_is_missing(const QueueName *name, const char *subscription);
extern void subscription_require(const QueueName *name, const char *subscription);
extern char *subscription_from_arg(FunctionCallInfo fcinfo, int argno);

/* ---- records.c: what sessions tell one another ---- */

typedef struct Holder
{
	VirtualTransactionId vxid;
	int64		first;			/* it has drawn no id below */
} Holder;

typedef struct Listing
{
	bool		listed;
	int64		last_id;		/* that was drawn before the list was made */
	int64		end;			/* each id below is stable */
	int			nholders;
	Holder		holders[FLEXIBLE_ARRAY_MEMBER];
} Listing;

extern void record_make(Oid log, int64 first);
extern bool record_find(VirtualTransactionId vxid, Oid log, int64 *first);
extern bool record_find_own(Oid log, int64 *first);
extern int64 listing_end(Oid log);
extern Listing *listing_copy(Oid log);
extern void listing_store(Oid log, const Listing *listing);

/* ---- end.c: the stable end ---- */

extern void end_refuse_sequence(const StreamLog *log, const char *detail);
extern int64 end_last_id_checked(const StreamLog *log, int64 *end);
extern int64 stream_end(const StreamLog *log, int64 *last_id);
extern char *stream_held_up_by(const StreamLog *log, int64 last_id, int64 end);

/* ---- shard.c ---- */

extern int	shard_of_key(const text *key, int shards);
extern int	shard_of_id(int64 event_id, int shards);

/* ---- draw.c: ids ---- */

extern int64 draw_begin(StreamLog *log);
extern TimestampTz draw_ids(StreamLog *log, int64 *ids, int count);

/* ---- state.c: how far a subscription has come in each shard ---- */

#define MAX_ATTEMPTS 8

/* Events up to this one, and above those of the pair before, were received so often */
typedef struct Attempts
{
	int64		until;
	int64		count;
} Attempts;

typedef struct ShardState
{
	int			shard;
	int64		number;			/* of the state */
	int64		passed_id;
	bool		leased;			/* or its lease is over: see state_is_free() */
	int64		lease;
	TimestampTz leased_until;
	int64		leased_id;		/* the last event that was handed out with the lease */
	int			nattempts;
	Attempts	attempts[MAX_ATTEMPTS];
} ShardState;

/* The table of positions, opened */
typedef struct Positions
{
	QueueName	name;
	Relation	rel;
	Oid			index;
	const char *subscription;
	Datum		key;			/* the same as text */
} Positions;

extern void positions_open(const QueueName *name, const char *subscription, Positions *positions);
extern void positions_close(Positions *positions);
extern bool positions_highest(const QueueName *name, int shards, int64 *highest);
extern char *state_next_subscription(const Positions *positions, Snapshot snapshot, const char *before);
extern bool state_read(const Positions *positions, int shard, Snapshot snapshot, ShardState *state);
extern bool state_read_latest(const Positions *positions, int shard, ShardState *state);
extern void state_write(const Positions *positions, const ShardState *state);
extern void states_begin(const Positions *positions, const int64 *passed, int shards);
extern void states_delete(const Positions *positions);
extern bool state_lock(const Positions *positions, int shard, bool wait);
extern void state_unlock(const Positions *positions, int shard, bool for_others);
extern bool state_is_locked(const Positions *positions, int shard);
extern uint32 state_mutex_key(const char *subscription);
extern int64 state_highest(const ShardState *state);
extern bool state_is_free(const ShardState *state, TimestampTz now);
extern void state_end_lease(ShardState *state);
extern int	state_attempt(const ShardState *state, int64 event_id);
extern void state_count_attempt(ShardState *state, int64 until);
extern void state_pass(ShardState *state, int64 passed_id);

/* ---- events.c, fetch.c: events into a set ---- */

typedef struct EventSet EventSet;

extern EventSet *events_set(FunctionCallInfo fcinfo);
extern void events_lease(EventSet *set, const ShardState *state, int64 lease);
extern DestReceiver *events_dest(EventSet *set);
extern int64 events_last_id(const EventSet *set);
extern int64 events_read(const StreamLog *log, int shard, int64 from, int64 until, int64 limit, EventSet *set);

/* ---- receive.c ---- */

typedef struct ReceiveRequest
{
	QueueName	name;
	char	   *subscription;
	int			vt;				/* seconds */
	int			qty;
	EventSet   *events;			/* NULL: only look whether there are some */
} ReceiveRequest;

extern void receive_from_args(FunctionCallInfo fcinfo, ReceiveRequest *request);
extern void receive_check_rights(const ReceiveRequest *request);
extern int64 receive_attempt(const ReceiveRequest *request, Outlook *outlook);

#endif							/* PGMQ_STREAM_INTERNAL_H */
