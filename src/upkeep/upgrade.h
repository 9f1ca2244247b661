/*
 * upgrade.h
 *	  The upgrade of a queue of the PL/pgSQL extension: between upgrade.c and upgradestep.c.
 */
#ifndef PGMQ_UPGRADE_H
#define PGMQ_UPGRADE_H

#include "queue/queue.h"

/* Which of the indexes that upgradestep.c knows were built in this call, under their second names */
#define UPGRADE_INDEXES 3

typedef struct QueueUpgrade
{
	QueueName	name;
	Oid			relid;			/* of the queue's table */
	bool		built[UPGRADE_INDEXES];
	int			retries;		/* of an index of all partitions that did not become valid */
} QueueUpgrade;

/* What to do next; it is found and, unless it is concurrent, done in one transaction */
typedef struct UpgradeStep
{
	const char *what;			/* for messages; NULL: the queue lacks nothing */
	void		(*change) (const QueueName *name);	/* or NULL */
	const char *sql;			/* or NULL; after the change */
	bool		concurrently;	/* the statement ends transactions */
} UpgradeStep;

extern void upgrade_next_step(QueueUpgrade *upgrade, UpgradeStep *step);

#endif							/* PGMQ_UPGRADE_H */
