/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a pool's metadata is to be checked, or copied, by itself. Times are real ones, and the
 * clock may be set: what it says of the past never keeps anything from being done for longer than
 * two intervals.
 */
#ifndef TM_LOGIC_DUE_H
#define TM_LOGIC_DUE_H

#include <stdint.h>

#include "logic/model.h"

/* What is known of earlier tries by itself that failed. */
struct tm_due_failures {
	unsigned int n;     /* in a row */
	uint64_t last_usec; /* when the last of them ended */
};

enum tm_due {
	TM_DUE_NOTHING,
	TM_DUE_CHECK,
	TM_DUE_COPY, /* which is a check as well */
};

/*
 * What is due of @pool at @now_usec. *ret_usec becomes since when, or, of nothing, when there will
 * be something; UINT64_MAX: never.
 *
 * A pool that is new is first looked after within its first hour, when there is something in it;
 * then at the policy's intervals, less up to an eighth of each: by how much depends on the pool's
 * id, so that those made together do not all have their turn together. After failures nothing is
 * due for ten minutes, then twenty, in the end six hours.
 */
enum tm_due tm_due_decide(const struct tm_pool_record *pool, const struct tm_due_failures *failures,
			  uint64_t now_usec, uint64_t *ret_usec);

#endif
