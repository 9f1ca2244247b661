/*
 * sequence.h
 *	  How far the sequence of a queue has come.
 */
#ifndef PGMQ_SEQUENCE_H
#define PGMQ_SEQUENCE_H

#include "pgmq.h"

extern bool sequence_read(Oid sequence, bool wait, int64 *last_value, bool *is_called);

#endif							/* PGMQ_SEQUENCE_H */
