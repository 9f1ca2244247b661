/*
 * shared.h
 *	  Where shared memory comes from.
 */
#ifndef PGMQ_SHARED_H
#define PGMQ_SHARED_H

#include "pgmq.h"

extern void shared_init(void);
extern bool shared_is_ample(void);

/* What one part of the extension keeps there; each part has one, and registers it when the library is loaded */
typedef struct SharedUse
{
	const char *name;			/* with the version of the layout */
	Size		(*size) (bool ample);
	void		(*init) (void *area);
	const char *message;		/* for the log, if there is no memory */
	const char *detail;
} SharedUse;

extern void shared_register(const SharedUse *use);
extern void *shared_area(const SharedUse *use);

typedef struct SharedSegment SharedSegment;

extern void *shared_segment(const char *name, Size size, void (*init) (void *area),
							const char *message, const char *detail, SharedSegment **segment);
extern bool shared_segment_is_good(SharedSegment *segment);

#endif							/* PGMQ_SHARED_H */
