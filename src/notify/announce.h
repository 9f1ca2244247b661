/*
 * announce.h
 *	  Channels: what announce.c and announcer.c share with all sessions, and what notify.c asks for.
 */
#ifndef PGMQ_ANNOUNCE_H
#define PGMQ_ANNOUNCE_H

#include "storage/latch.h"
#include "storage/spin.h"

#include "base/base.h"
#include "notify/notify.h"

/* Zero-padded, so that it serves as a hash key */
typedef struct Channel
{
	char		name[NAMEDATALEN];
} Channel;

/* Of the announcer of a database, which may not have started yet */
typedef enum AnnouncerState
{
	ANNOUNCER_WANTED,			/* a session is asking the postmaster for it */
	ANNOUNCER_REGISTERED,		/* it will start */
	ANNOUNCER_RUNNING,
	ANNOUNCER_LEAVING			/* unless a sender relies on it */
} AnnouncerState;

typedef struct Announcer
{
	Oid			db;				/* InvalidOid: free */
	int64		id;				/* the next announcer of this database has another */
	AnnouncerState state;
	int			starts;			/* in a row that did not get to work */
	Latch	   *latch;			/* once it is running */
} Announcer;

#define MAX_ANNOUNCERS 16

typedef struct AnnounceArea
{
	slock_t		mutex;			/* held for a few assignments only */
	int64		not_before;		/* by ticks(): the postmaster had no place for an announcer */
	Announcer	announcers[MAX_ANNOUNCERS];
	/* the slots of channels follow */
} AnnounceArea;

/* announce.c */
extern void announce_at_commit(const Channel *channel, int interval_ms);
extern void announce_forget_last(const Channel *channel);
extern bool announce_last(const Channel *channel, TimestampTz *at);
extern AnnounceArea *announce_area(void);
extern int	announce_take(Oid db, bool all, Channel *channels, int max);
extern void announce_taken(Oid db, bool done);
extern bool announce_outstanding(Oid db, int64 *due);
extern void announce_forget(Oid db);

/* announcer.c */
extern bool announcer_is_there(AnnounceArea *area);
extern void announcer_wake(AnnounceArea *area);
extern void announcer_give_up_asking(AnnounceArea *area);

#endif							/* PGMQ_ANNOUNCE_H */
