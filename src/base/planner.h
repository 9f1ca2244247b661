/*
 * planner.h
 *	  The settings that plans are made under.
 */
#ifndef PGMQ_PLANNER_H
#define PGMQ_PLANNER_H

#define PLANNER_SWITCHES 19
#define PLANNER_COSTS 6
#define PLANNER_SIZES 5

/* What the session's own settings are, while others are in force */
typedef struct PlannerSettings
{
	bool		switches[PLANNER_SWITCHES];
	double		costs[PLANNER_COSTS];
	int			sizes[PLANNER_SIZES];
} PlannerSettings;

extern void planner_begin(PlannerSettings *saved);
extern void planner_end(const PlannerSettings *saved);

#endif							/* PGMQ_PLANNER_H */
