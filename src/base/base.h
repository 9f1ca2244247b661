/*
 * base.h
 *	  What all other folders use.  Nothing in here knows what a message is.
 *
 * name		The only place that knows the names of a queue's objects.  A queue has one
 *			QueueName, however the caller spells it.
 * relcheck	Objects are found by name, and their owners can replace them.  Ask here before you
 *			read a tuple, scan an index or build a row.
 * rights	What a caller may do, asked before anything is done.
 * owner	Run something with the rights of a table's owner.  Code of a user never runs
 *			with rights that its owner could not have.
 * sql		Statements that are not kept.  Text goes into them quoted, or as a parameter.
 * ownread	Rows of the extension's own tables, read without running any code of their owner.
 * changes	How often the catalogs have changed.  What is kept of them is true as long as its
 *			count is the same.
 * planner	The settings that plans are made under, whatever those of the session are.
 * result	Rows from the executor into the set that a function returns, in msg_id order.
 * shared	Shared memory for modules that have registered; or NULL, and they work without it.
 * slots	A table in shared memory of what was in use lately.  It never grows: a new key takes the
 *			slot that was unused for longest.
 * bgworker	What all background workers of this library are registered with.
 * version	An object is not as the library needs it: is that because their versions differ?
 * inline	Clocks, arguments and hash tables.
 */
#ifndef PGMQ_BASE_H
#define PGMQ_BASE_H

#include "base/bgworker.h"
#include "base/changes.h"
#include "base/inline.h"
#include "base/name.h"
#include "base/owner.h"
#include "base/ownread.h"
#include "base/planner.h"
#include "base/relcheck.h"
#include "base/result.h"
#include "base/rights.h"
#include "base/shared.h"
#include "base/slots.h"
#include "base/sql.h"
#include "base/version.h"

#endif							/* PGMQ_BASE_H */
