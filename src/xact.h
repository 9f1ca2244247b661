/*
 * xact.h
 *	  What is done when transactions end.
 */
#ifndef PGMQ_XACT_H
#define PGMQ_XACT_H

extern void xact_init(void);

#endif							/* PGMQ_XACT_H */
