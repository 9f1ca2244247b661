/*
 * values.c
 *	  Which values a setting may have.
 *
 * A wrong value is refused when it is set.  A row can also be written by hand or
 * restored, so a value that could not have been set has no effect (policy.c).
 */
#include "pgmq.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "common/shortest_dec.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/base.h"
#include "policy/policy.h"
#include "policy/values.h"

#define DAY ((double) USECS_PER_DAY)
#define YEAR (365 * DAY)

/* A time must be longer than 0, and so short that no point in time near now is out of range */
#define A_TIME 1, 1000 * YEAR, "longer than 0 and at most 1000 years"

const PolicySetting policy_settings[POLICY_SETTINGS] = {
	{"max_reads", 1, 1e6, "from 1 to 1000000", INT4OID},
	{"dead_letter_queue", 0, 0, "the name of a queue", TEXTOID},
	{"retry_delay", 0, YEAR, "from 0 to 1 year", INTERVALOID},
	{"retry_backoff", 1, 1000, "from 1 to 1000", FLOAT8OID},
	{"retry_delay_max", A_TIME, INTERVALOID},
	{"message_ttl", A_TIME, INTERVALOID},
	{"max_length", 1, 1e12, "from 1 to 1000000000000", INT8OID},
	{"overflow", 0, 0, "reject or drop_oldest", TEXTOID},
	{"priority", 0, 1, "true or false", BOOLOID},
	{"priority_max_wait", A_TIME, INTERVALOID},
	{"max_in_flight", 1, 1e6, "from 1 to 1000000", INT4OID},
	{"rate_limit", 1, 1e9, "from 1 to 1000000000", INT4OID},
	{"rate_period", A_TIME, INTERVALOID},
	{"dedup_window", A_TIME, INTERVALOID},
	{"archive_retention", A_TIME, INTERVALOID}
};

/* Microseconds; a month has 30 days, a year 365.  Negative if one of its parts is, whatever the others are. */
static double
length_of(const Interval *interval)
{
	int			years = interval->month / MONTHS_PER_YEAR;
	int			months = interval->month % MONTHS_PER_YEAR;

	if (interval->month < 0 || interval->day < 0 || interval->time < 0)
		return -1;
	return years * YEAR + months * 30 * DAY + interval->day * DAY + (double) interval->time;
}

/* An interval that a setting may have has so many at most */
int64
policy_microseconds(const Interval *interval)
{
	return (int64) length_of(interval);
}

static double
number_of(const PolicySetting *setting, Datum value)
{
	switch (setting->type)
	{
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return (double) DatumGetInt64(value);
		case FLOAT8OID:
			return isnan(DatumGetFloat8(value)) ? -1 : DatumGetFloat8(value);
		case INTERVALOID:
			return length_of(DatumGetIntervalP(value));
		default:
			return DatumGetBool(value);
	}
}

static bool
is_valid_text(const PolicySetting *setting, const text *value)
{
	QueueName	name;
	char	   *string;

	if (setting == &policy_settings[SETTING_DEAD_LETTER_QUEUE])
		return name_try_canonical(value, &name) && name.canonical[0] != '\0';
	string = text_to_cstring(value);
	return strcmp(string, "reject") == 0 || strcmp(string, "drop_oldest") == 0;
}

/* Whether a setting may have a value, which is not NULL */
bool
policy_value_is_valid(const PolicySetting *setting, Datum value)
{
	double		number;

	if (setting->type == TEXTOID)
		return is_valid_text(setting, DatumGetTextPP(value));
	number = number_of(setting, value);
	return number >= setting->low && number <= setting->high;
}

/* A value as text, exactly as it is; palloc'd */
char *
policy_value_text(const PolicySetting *setting, Datum value)
{
	switch (setting->type)
	{
		case INT4OID:
			return psprintf("%d", DatumGetInt32(value));
		case INT8OID:
			return psprintf(INT64_FORMAT, DatumGetInt64(value));
		case FLOAT8OID:
			return double_to_shortest_decimal(DatumGetFloat8(value));
		case INTERVALOID:
			return DatumGetCString(DirectFunctionCall1(interval_out, value));
		case TEXTOID:
			return TextDatumGetCString(value);
		default:
			return pstrdup(DatumGetBool(value) ? "true" : "false");
	}
}
