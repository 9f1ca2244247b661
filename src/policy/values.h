/*
 * values.h
 *	  The settings of a policy, and which values they may have.
 */
#ifndef PGMQ_VALUES_H
#define PGMQ_VALUES_H

#include "pgmq.h"

#include "datatype/timestamp.h"

typedef struct PolicySetting
{
	const char *name;			/* of the argument and of the column */
	double		low;			/* of a number; of an interval in microseconds */
	double		high;
	const char *allowed;		/* as an error says it */
	Oid			type;
} PolicySetting;

/* In the order of the arguments of set_policy(); the bit of a setting is 1 << its place */
#define POLICY_SETTINGS 15
#define SETTING_DEAD_LETTER_QUEUE 1
#define SETTING_PRIORITY 8
#define SETTING_DEDUP_WINDOW 13

extern const PolicySetting policy_settings[POLICY_SETTINGS];

extern bool policy_value_is_valid(const PolicySetting *setting, Datum value);
extern char *policy_value_text(const PolicySetting *setting, Datum value);

#endif							/* PGMQ_VALUES_H */
