// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/due.h"

#include "common/units.h"

#define HOUR_USEC (3600 * TM_USEC_PER_SEC)
#define DAY_USEC  (24 * HOUR_USEC)

/* Of a new pool. */
#define FIRST_USEC HOUR_USEC

#define AGAIN_USEC      (600 * TM_USEC_PER_SEC)
#define AGAIN_MOST_USEC (6 * HOUR_USEC)
#define AGAIN_DOUBLINGS 6 /* more than enough to get there */

/* The same for a pool always, and about evenly spread over pools: FNV-1a. */
static uint32_t hash_id(const struct tm_uuid *id)
{
	uint32_t hash = 2166136261;

	for (const char *c = id->text; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619;
	return hash;
}

/* When @span after @from has passed, less the pool's share; @now when the clock was set back far.
 */
static uint64_t after(const struct tm_pool_record *pool, uint64_t from_usec, uint64_t span_usec,
		      uint64_t now_usec)
{
	if (from_usec > tm_sat_add(now_usec, span_usec))
		return now_usec;
	return tm_sat_add(from_usec,
			  span_usec - tm_mul_div(span_usec / 8, hash_id(&pool->id), UINT32_MAX));
}

static uint64_t next(const struct tm_pool_record *pool, uint64_t last_usec, uint64_t interval_usec,
		     uint64_t now_usec)
{
	if (!interval_usec)
		return UINT64_MAX;
	return last_usec ? after(pool, last_usec, interval_usec, now_usec)
			 : after(pool, pool->created_usec, FIRST_USEC, now_usec);
}

/* Before when nothing is tried again. */
static uint64_t left_alone_until(const struct tm_due_failures *failures, uint64_t now_usec)
{
	uint64_t span;

	if (!failures->n)
		return 0;
	span = AGAIN_USEC << (failures->n <= AGAIN_DOUBLINGS ? failures->n - 1 : AGAIN_DOUBLINGS);
	if (span > AGAIN_MOST_USEC)
		span = AGAIN_MOST_USEC;
	if (failures->last_usec > tm_sat_add(now_usec, span))
		return now_usec;
	return tm_sat_add(failures->last_usec, span);
}

enum tm_due tm_due_decide(const struct tm_pool_record *pool, const struct tm_due_failures *failures,
			  uint64_t now_usec, uint64_t *ret_usec)
{
	const uint64_t copy = next(pool, pool->copied_usec, pool->policy.copy_hours * HOUR_USEC,
				   now_usec);
	const uint64_t check = next(pool, pool->checked_usec, pool->policy.check_days * DAY_USEC,
				    now_usec);
	const uint64_t alone = left_alone_until(failures, now_usec);
	uint64_t at = copy < check ? copy : check;

	if (at < alone)
		at = alone;
	*ret_usec = at;
	if (at > now_usec)
		return TM_DUE_NOTHING;
	return copy <= now_usec ? TM_DUE_COPY : TM_DUE_CHECK;
}
