/*
 * survey.h
 *	  Which messages of a range are live, and which dead.
 */
#ifndef PGMQ_SURVEY_H
#define PGMQ_SURVEY_H

#include "datatype/timestamp.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "queue/place.h"

/* When a message is dead.  A call uses the same rule for all of its looks. */
typedef struct SurveyRule
{
	int32		max_reads;		/* 0: no such rule */
	int64		ttl;			/* microseconds; 0: no such rule */
	TimestampTz now;
} SurveyRule;

/* The reasons why messages are dead */
#define DEAD_EXHAUSTED "max_reads"
#define DEAD_EXPIRED "expired"

#define SURVEY_MAX_DEAD 100

/* All surveys of one call */
typedef struct Survey
{
	/* What is asked for */
	int64		wanted;			/* live messages that can be taken */
	int64		budget;			/* microseconds of this call for dead messages */

	/* What the last range had */
	int64		live;
	int64		first_live;		/* the key of the first of them, if there is one */
	int64		last_passed;	/* the key of the last one that is dead, or of the other kind; or PG_INT64_MIN */
	int64		reached;		/* the last key that was looked at */
	bool		stopped;		/* for lack of time, before the end of the range */

	/* What all ranges had */
	int64		all_live;
	int64		all_dead;
	int64		in_the_way;		/* dead ones of the other kind: they are not looked for */
	int			dead;
	int64		dead_ids[SURVEY_MAX_DEAD];	/* each once */
} Survey;

extern bool survey_is_dead(const SurveyRule *rule, int32 read_ct, int32 releases, TimestampTz enqueued_at,
						   Datum headers, bool headers_null, bool *exhausted);
extern void survey_rule_args(const SurveyRule *rule, Datum *values, bool *nulls);
extern void survey(Relation rel, const Place *place, Snapshot snapshot, const SurveyRule *rule,
				   bool fresh, int64 from, int64 until, Survey *s);

#endif							/* PGMQ_SURVEY_H */
