// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/extend.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "logic/meta-size.h"

#define REACTION_DEFAULT_USEC (200 * TM_USEC_PER_MSEC)
#define ARM_DEFAULT_USEC      (500 * TM_USEC_PER_MSEC)
#define STEP_RATE_SECONDS     5
#define RATE_JOIN_USEC        TM_USEC_PER_MSEC

#define BACKOFF_FIRST_USEC TM_USEC_PER_SEC
#define BACKOFF_MOST_USEC  (60 * TM_USEC_PER_SEC)

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* a * b / c rounded up, saturating. */
static uint64_t mul_div_up(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 result = ((unsigned __int128)a * b + (c - 1)) / c;

	return result > UINT64_MAX ? UINT64_MAX : (uint64_t)result;
}

static uint64_t free_of(uint64_t total, uint64_t used)
{
	return used < total ? total - used : 0;
}

/* Blocks written in @usec at the observed rate. */
static uint64_t rate_blocks(const struct tm_extend_input *in, uint64_t usec)
{
	uint64_t bytes = mul_div_up(in->rate_bytes_per_sec, usec, TM_USEC_PER_SEC);

	return mul_div_up(bytes, 1, in->unit_bytes);
}

static uint64_t reaction_usec(const struct tm_extend_input *in)
{
	return in->reaction_usec ? in->reaction_usec : REACTION_DEFAULT_USEC;
}

static uint64_t arm_usec(const struct tm_extend_input *in)
{
	return in->arm_usec ? in->arm_usec : ARM_DEFAULT_USEC;
}

/* What must be left so that it outlasts the extension that it sets off. */
static uint64_t rate_mark(const struct tm_extend_input *in)
{
	return rate_blocks(
		in, tm_sat_add(tm_sat_mul(reaction_usec(in), 4), tm_sat_mul(arm_usec(in), 2)));
}

/*
 * The mark at which the kernel speaks up in a table of @total: given for the live one. In another,
 * that of metadata follows from the size, and that of data will be ours.
 */
static uint64_t kernel_mark(const struct tm_extend_input *in, uint64_t total)
{
	if (in->kernel_low_water_blocks && total == in->total_blocks)
		return in->kernel_low_water_blocks;
	return in->arm_only_near ? tm_metadata_low_water_blocks(total) : 0;
}

static uint64_t mark_of(const struct tm_extend_input *in, uint64_t total)
{
	uint64_t mark = mul_div_up(total, in->policy->low_water_percent, 100);

	/* Where nothing is extended the mark is a notice, at the percentage that was asked for. */
	if (in->policy->enabled)
		mark = max64(mark, rate_mark(in));
	mark = max64(mark, kernel_mark(in, total));
	/* More than half would have a pool extended that nobody writes to. */
	return min64(mark, total / 2);
}

/*
 * Share of the size that is to be free after an extension for the percentage's sake, and at most.
 */
static void target_shares(const struct tm_extend_input *in, uint64_t *ret_share, uint64_t *ret_most)
{
	uint64_t percent = in->policy->low_water_percent;

	/*
	 * In thousandths. Metadata has to end up with twice its mark free, for below that
	 * it would be armed again at once, and then grown by whatever resumes the pool.
	 */
	*ret_most = in->arm_only_near ? 750 : 625;
	*ret_share = min64(in->arm_only_near ? percent * 20
					     : min64(percent * 20, percent * 10 + 125),
			   *ret_most);
}

/* The target for a table of @total: what should be free in it after an extension. */
static uint64_t target_of(const struct tm_extend_input *in, uint64_t total)
{
	uint64_t share, most, target;

	target_shares(in, &share, &most);
	target = mul_div_up(total, share, 1000);
	target = max64(target, tm_sat_mul(rate_mark(in), 2));
	target = max64(target, tm_sat_mul(kernel_mark(in, total), 2));
	return min64(target, mul_div_up(total, most, 1000));
}

/* The smallest size that leaves @thousandths of itself free of @used. */
static uint64_t size_leaving_share(uint64_t used, uint64_t thousandths)
{
	return mul_div_up(used, 1000, 1000 - thousandths);
}

/*
 * The smallest size in which @used leaves the target free, but for rounding. Solved for each part
 * of the target alone; each grows with the rate or not at all.
 */
static uint64_t size_for_target(const struct tm_extend_input *in, uint64_t used)
{
	uint64_t share, most, size;

	target_shares(in, &share, &most);
	size = size_leaving_share(used, share);
	size = max64(size, tm_sat_add(used, tm_sat_mul(rate_mark(in), 2)));
	/* Twice the kernel's mark is half the size while that is small, then constant. */
	if (in->arm_only_near)
		size = max64(size,
			     min64(tm_sat_mul(used, 2),
				   tm_sat_add(used, 2 * tm_metadata_low_water_blocks(UINT64_MAX))));
	return min64(size, size_leaving_share(used, most));
}

/* The size that a pool of @total with @used should grow to, were there no limits. */
static uint64_t wanted_size(const struct tm_extend_input *in, uint64_t total, uint64_t used)
{
	const struct tm_extend_policy *policy = in->policy;
	uint64_t step = mul_div_up(total, policy->step_percent, 100), size, room;
	unsigned int i;

	step = max64(step, mul_div_up(policy->step_min_bytes, 1, in->unit_bytes));
	/* At most doubled for the rate: one burst must not take all that the backing has. */
	step = max64(step, min64(rate_blocks(in, STEP_RATE_SECONDS * TM_USEC_PER_SEC), total));
	step = max64(step, 1);
	size = max64(tm_sat_add(total, step), size_for_target(in, used));
	/* Each part was rounded by itself, which may leave it a few blocks short. */
	for (i = 0; i < 16; i++) {
		room = free_of(size, used);
		if (room > mark_of(in, size) && room >= target_of(in, size))
			break;
		size = tm_sat_add(size, 1);
	}
	return size;
}

/* The largest size allowed by policy, format and arithmetic. */
static uint64_t allowed_size(const struct tm_extend_input *in)
{
	uint64_t allowed = (uint64_t)INT64_MAX / in->unit_bytes;

	if (in->limit_blocks)
		allowed = min64(allowed, in->limit_blocks);
	if (in->policy->maximum_bytes)
		allowed = min64(allowed, in->policy->maximum_bytes / in->unit_bytes);
	return allowed;
}

/* Would waiting for the backing outlast what is free? Then whatever is armed is better. */
static bool urgent(const struct tm_extend_input *in, uint64_t room)
{
	uint64_t wait = tm_sat_add(tm_sat_mul(arm_usec(in), 2), reaction_usec(in));

	return in->rate_bytes_per_sec && room < rate_blocks(in, wait);
}

/* How far to go now: to @size, or only as far as the reserve reaches. */
static uint64_t armed_first(const struct tm_extend_input *in, uint64_t size, uint64_t allowed)
{
	uint64_t armed = tm_sat_add(in->total_blocks, in->reserve_blocks);
	uint64_t mark, target, room;

	if (!in->reserve_blocks)
		return size;
	if (armed >= size) {
		/* The kernel leaves no rest of metadata unused. */
		return in->arm_only_near ? max64(size, min64(armed, allowed)) : size;
	}
	/* Half the way from the mark to the target will do; less would only be a series of small
	 * steps. */
	room = free_of(armed, in->used_blocks);
	mark = mark_of(in, armed);
	target = target_of(in, armed);
	if (room > mark && (room >= target || room - mark >= (target - mark) / 2))
		return armed;
	/* A reserve that does not outlast its own extension is not worth one. */
	if (urgent(in, free_of(in->total_blocks, in->used_blocks)) &&
	    in->reserve_blocks >= rate_blocks(in, tm_sat_mul(reaction_usec(in), 2)))
		return armed;
	return size;
}

/* How much should lie armed behind a table of @total. */
static uint64_t wanted_reserve(const struct tm_extend_input *in, uint64_t total, uint64_t allowed,
			       uint64_t available)
{
	uint64_t mark, used;

	if (!in->policy->enabled || in->frozen || total >= allowed)
		return 0;
	if (in->arm_only_near && free_of(total, in->used_blocks) >= target_of(in, total))
		return 0;
	/* The next step is taken when what is used has come up to the mark. */
	mark = mark_of(in, total);
	used = max64(in->used_blocks, total - mark);
	return min64(min64(wanted_size(in, total, used) - total, allowed - total), available);
}

static enum tm_extend_verdict verdict_of(const struct tm_extend_input *in, uint64_t mark,
					 uint64_t allowed, uint64_t available)
{
	if (free_of(in->total_blocks, in->used_blocks) > mark)
		return TM_EXTEND_NOT_NEEDED;
	if (!in->policy->enabled)
		return TM_EXTEND_DISABLED;
	if (in->frozen)
		return TM_EXTEND_FROZEN;
	if (in->total_blocks >= allowed)
		return TM_EXTEND_AT_MAXIMUM;
	if (!available)
		return TM_EXTEND_NO_BACKING;
	return TM_EXTEND_NOW;
}

void tm_extend_decide(const struct tm_extend_input *in, struct tm_extend_plan *ret)
{
	uint64_t allowed = allowed_size(in);
	uint64_t available = tm_sat_add(in->reserve_blocks,
					in->backing_free_bytes / in->unit_bytes);
	uint64_t total = in->total_blocks, size;
	struct tm_extend_plan plan = { 0 };

	plan.mark_blocks = mark_of(in, total);
	plan.verdict = verdict_of(in, plan.mark_blocks, allowed, available);
	if (plan.verdict == TM_EXTEND_NOW) {
		size = min64(wanted_size(in, total, in->used_blocks), allowed);
		size = min64(size, tm_sat_add(total, available));
		size = armed_first(in, size, allowed);
		available -= size - total;
		plan.new_total_blocks = total = size;
		plan.new_mark_blocks = mark_of(in, total);
	}
	plan.want_reserve_blocks = wanted_reserve(in, total, allowed, available);
	*ret = plan;
}

static uint64_t decayed(uint64_t peak, uint64_t age_usec)
{
	uint64_t halvings = age_usec / TM_RATE_HALF_LIFE_USEC;
	uint64_t rest = age_usec % TM_RATE_HALF_LIFE_USEC;

	if (halvings >= 64)
		return 0;
	peak >>= halvings;
	return peak - tm_mul_div(peak, rest, 2 * TM_RATE_HALF_LIFE_USEC);
}

uint64_t tm_rate_get(const struct tm_rate *rate, uint64_t now_usec)
{
	return decayed(rate->peak_bytes_per_sec,
		       now_usec > rate->peak_usec ? now_usec - rate->peak_usec : 0);
}

void tm_rate_observe(struct tm_rate *rate, uint64_t now_usec, uint64_t used_bytes)
{
	bool usable = rate->primed && now_usec >= rate->last_usec &&
		      used_bytes >= rate->last_used_bytes;
	uint64_t seen;

	if (usable && now_usec - rate->last_usec < RATE_JOIN_USEC)
		return;
	if (usable) {
		seen = tm_mul_div(used_bytes - rate->last_used_bytes, TM_USEC_PER_SEC,
				  now_usec - rate->last_usec);
		if (seen && seen >= tm_rate_get(rate, now_usec)) {
			rate->peak_bytes_per_sec = seen;
			rate->peak_usec = now_usec;
		}
	}
	rate->last_usec = now_usec;
	rate->last_used_bytes = used_bytes;
	rate->primed = true;
}

void tm_latency_add(struct tm_latency *l, uint64_t usec)
{
	l->ring_usec[l->next] = usec;
	l->next = (l->next + 1) % TM_ARRAY_SIZE(l->ring_usec);
	if (l->n < TM_ARRAY_SIZE(l->ring_usec))
		l->n++;
	l->count++;
	l->total_usec = tm_sat_add(l->total_usec, usec);
	l->max_usec = max64(l->max_usec, usec);
	l->last_usec = usec;
}

uint64_t tm_latency_slowest(const struct tm_latency *l)
{
	uint64_t slowest = 0;
	unsigned int i;

	for (i = 0; i < l->n; i++)
		slowest = max64(slowest, l->ring_usec[i]);
	return slowest;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t tm_latency_median(const struct tm_latency *l)
{
	uint64_t sorted[TM_ARRAY_SIZE(l->ring_usec)];
	unsigned int mid = l->n / 2;

	if (!l->n)
		return 0;
	memcpy(sorted, l->ring_usec, l->n * sizeof(sorted[0]));
	qsort(sorted, l->n, sizeof(sorted[0]), compare_u64);
	if (l->n % 2)
		return sorted[mid];
	return sorted[mid - 1] + (sorted[mid] - sorted[mid - 1]) / 2;
}

bool tm_backoff_fail(struct tm_backoff *b, uint64_t now_usec)
{
	uint64_t delay = b->failures < 6 ? BACKOFF_FIRST_USEC << b->failures : BACKOFF_MOST_USEC;

	b->not_before_usec = tm_sat_add(now_usec, min64(delay, BACKOFF_MOST_USEC));
	if (b->failures < UINT32_MAX)
		b->failures++;
	return b->failures == 1;
}

bool tm_backoff_allows(const struct tm_backoff *b, uint64_t now_usec)
{
	return now_usec >= b->not_before_usec;
}

bool tm_backoff_clear(struct tm_backoff *b)
{
	bool failed = b->failures > 0;

	*b = (struct tm_backoff){ 0 };
	return failed;
}
