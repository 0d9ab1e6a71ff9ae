// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "logic/extend.h"
#include "logic/meta-size.h"
#include "logic/policy.h"

#define BLOCK   (64 * TM_KIB)
#define PER_MIB (TM_MIB / BLOCK)

static const struct tm_extend_policy data_policy = {
	.enabled = true, .low_water_percent = 20, .step_percent = 20, .step_min_bytes = 64 * TM_MIB
};

#define ANY UINT64_MAX /* not looked at */

/* Sizes in MiB with blocks of 64 KiB. */
struct data_case {
	const char *name;
	uint64_t used, total, reserve, maximum, backing, rate;
	bool disabled, frozen;
	enum tm_extend_verdict verdict;
	uint64_t mark, new_total, want;
};

static void test_data(void **state)
{
	static const struct data_case cases[] = {
		{ "plenty free", 100, 1000, 0, 0, 10000, 0, false, false, TM_EXTEND_NOT_NEEDED, 200,
		  0, 200 },
		{ "one MiB above the mark", 799, 1000, 0, 0, 10000, 0, false, false,
		  TM_EXTEND_NOT_NEEDED, 200, 0, 200 },
		{ "exactly at the mark", 800, 1000, 0, 0, 10000, 0, false, false, TM_EXTEND_NOW,
		  200, 1200, 240 },
		{ "full", 1000, 1000, 0, 0, 10000, 0, false, false, TM_EXTEND_NOW, 200, ANY, ANY },
		{ "small: at least the minimum", 80, 100, 0, 0, 10000, 0, false, false,
		  TM_EXTEND_NOW, 20, 164, 64 },
		{ "cut by the maximum", 800, 1000, 0, 1100, 10000, 0, false, false, TM_EXTEND_NOW,
		  200, 1100, 0 },
		{ "reserve cut by the maximum", 800, 1000, 0, 1250, 10000, 0, false, false,
		  TM_EXTEND_NOW, 200, 1200, 50 },
		{ "at the maximum", 800, 1000, 0, 1000, 10000, 0, false, false,
		  TM_EXTEND_AT_MAXIMUM, 200, 0, 0 },
		{ "maximum below the size", 800, 1000, 0, 500, 10000, 0, false, false,
		  TM_EXTEND_AT_MAXIMUM, 200, 0, 0 },
		{ "maximum below the size, not needed", 100, 1000, 0, 500, 10000, 0, false, false,
		  TM_EXTEND_NOT_NEEDED, 200, 0, 0 },
		{ "cut by the backing", 800, 1000, 0, 0, 50, 0, false, false, TM_EXTEND_NOW, 200,
		  1050, 0 },
		{ "no backing", 800, 1000, 0, 0, 0, 0, false, false, TM_EXTEND_NO_BACKING, 200, 0,
		  0 },
		{ "no backing, but a reserve", 800, 1000, 30, 0, 0, 0, false, false, TM_EXTEND_NOW,
		  200, 1030, 0 },
		{ "from the reserve", 800, 1000, 200, 0, 10000, 0, false, false, TM_EXTEND_NOW, 200,
		  1200, 240 },
		{ "larger reserve than needed", 800, 1000, 500, 0, 0, 0, false, false,
		  TM_EXTEND_NOW, 200, 1200, 240 },
		{ "reserve enough for now", 800, 1000, 150, 0, 10000, 0, false, false,
		  TM_EXTEND_NOW, 200, 1150, 230 },
		{ "reserve not enough, and time", 800, 1000, 10, 0, 10000, 0, false, false,
		  TM_EXTEND_NOW, 200, 1200, 240 },
		{ "reserve not enough, but no time", 995, 1000, 50, 0, 10000, 50, false, false,
		  TM_EXTEND_NOW, 200, 1050, 424 },
		{ "a reserve too small to help", 995, 1000, 10, 0, 10000, 50, false, false,
		  TM_EXTEND_NOW, 200, ANY, ANY },
		{ "disabled, not needed", 100, 1000, 0, 0, 10000, 0, true, false,
		  TM_EXTEND_NOT_NEEDED, 200, 0, 0 },
		{ "disabled", 800, 1000, 0, 0, 10000, 0, true, false, TM_EXTEND_DISABLED, 200, 0,
		  0 },
		{ "frozen", 800, 1000, 200, 0, 10000, 0, false, true, TM_EXTEND_FROZEN, 200, 0, 0 },
		{ "frozen, not needed", 100, 1000, 0, 0, 10000, 0, false, true,
		  TM_EXTEND_NOT_NEEDED, 200, 0, 0 },
		/* 1.8 s of the rate: 4 reactions of 200 ms and 2 armings of 500 ms. */
		{ "slow writer", 100, 1000, 0, 0, 10000, 50, false, false, TM_EXTEND_NOT_NEEDED,
		  200, 0, 250 },
		{ "fast writer", 100, 1000, 0, 0, 10000, 200, false, false, TM_EXTEND_NOT_NEEDED,
		  360, 0, 1000 },
		{ "fast writer at its mark", 640, 1000, 0, 0, 10000, 200, false, false,
		  TM_EXTEND_NOW, 360, 2000, 1000 },
		{ "faster than the pool is large", 500, 1000, 0, 0, 100000, 5000, false, false,
		  TM_EXTEND_NOW, 500, 2000, 2000 },
	};
	struct tm_extend_policy policy;
	struct tm_extend_plan plan;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct data_case *c = &cases[i];
		const struct tm_extend_input in = {
			.policy = &policy,
			.unit_bytes = BLOCK,
			.used_blocks = c->used * PER_MIB,
			.total_blocks = c->total * PER_MIB,
			.reserve_blocks = c->reserve * PER_MIB,
			.backing_free_bytes = c->backing * TM_MIB,
			.rate_bytes_per_sec = c->rate * TM_MIB,
			.frozen = c->frozen,
		};

		policy = data_policy;
		policy.enabled = !c->disabled;
		policy.maximum_bytes = c->maximum * TM_MIB;
		tm_extend_decide(&in, &plan);
		if (plan.verdict != c->verdict || plan.mark_blocks != c->mark * PER_MIB ||
		    (c->new_total != ANY && plan.new_total_blocks != c->new_total * PER_MIB) ||
		    (c->want != ANY && plan.want_reserve_blocks / PER_MIB != c->want))
			fail_msg("%s: verdict %d, mark %llu MiB, to %llu MiB, reserve %llu MiB",
				 c->name, (int)plan.verdict,
				 (unsigned long long)(plan.mark_blocks / PER_MIB),
				 (unsigned long long)(plan.new_total_blocks / PER_MIB),
				 (unsigned long long)(plan.want_reserve_blocks / PER_MIB));
		assert_int_equal(plan.new_mark_blocks == 0, plan.verdict != TM_EXTEND_NOW);
	}
}

/* The pool of the demonstration, written at different speeds: never full, and in several steps. */
static void test_race(void **state)
{
	static const uint64_t rates_mib[] = { 0, 10, 100, 300, 1000, 5000 };
	struct tm_extend_policy policy = data_policy;
	struct tm_extend_plan plan;
	size_t i;

	(void)state;
	policy.maximum_bytes = 1536 * TM_MIB;
	for (i = 0; i < TM_ARRAY_SIZE(rates_mib); i++) {
		struct tm_extend_input in = {
			.policy = &policy,
			.unit_bytes = BLOCK,
			.total_blocks = 256 * PER_MIB,
			.backing_free_bytes = 100 * TM_GIB,
			.rate_bytes_per_sec = rates_mib[i] * TM_MIB,
		};
		unsigned int extensions = 0;

		for (in.used_blocks = 0; in.used_blocks < 1100 * PER_MIB; in.used_blocks++) {
			tm_extend_decide(&in, &plan);
			assert_true(in.used_blocks < in.total_blocks);
			if (plan.verdict == TM_EXTEND_NOW) {
				in.total_blocks = plan.new_total_blocks;
				extensions++;
			}
		}
		assert_true(extensions >= 3);
		assert_true(extensions <= 10);
		assert_true(in.total_blocks <= 1536 * PER_MIB);
	}
}

static void test_metadata(void **state)
{
	/* Blocks of 4 KiB; a mark of 25 %, which is the kernel's too, a step of 50 %. */
	static const struct {
		uint64_t used, total, reserve, limit;
		enum tm_extend_verdict verdict;
		uint64_t mark, new_total, want;
	} cases[] = {
		{ 10, 512, 0, 0, TM_EXTEND_NOT_NEEDED, 128, 0, 0 },
		{ 256, 512, 0, 0, TM_EXTEND_NOT_NEEDED, 128, 0, 0 },
		/* Less than twice the mark is free: arm. */
		{ 257, 512, 0, 0, TM_EXTEND_NOT_NEEDED, 128, 0, 256 },
		{ 383, 512, 256, 0, TM_EXTEND_NOT_NEEDED, 128, 0, 256 },
		{ 384, 512, 256, 0, TM_EXTEND_NOW, 128, 768, 0 },
		{ 384, 512, 0, 0, TM_EXTEND_NOW, 128, 768, 0 },
		{ 511, 512, 0, 0, TM_EXTEND_NOW, 128, 1022, 0 },
		/* What is armed is taken whole: the kernel leaves no rest. */
		{ 384, 512, 400, 0, TM_EXTEND_NOW, 128, 912, 0 },
		{ 384, 512, 400, 600, TM_EXTEND_NOW, 128, 600, 0 },
		{ 384, 512, 0, 600, TM_EXTEND_NOW, 128, 600, 0 },
		{ 590, 600, 0, 600, TM_EXTEND_AT_MAXIMUM, 150, 0, 0 },
		/* Large: 25 % is far above the kernel's 1024 blocks. */
		{ 75000, 100000, 0, 0, TM_EXTEND_NOW, 25000, 150000, 0 },
	};
	struct tm_policy policy;
	struct tm_extend_plan plan;
	size_t i;

	(void)state;
	tm_policy_default(&policy);
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct tm_extend_input in = {
			.policy = &policy.metadata,
			.unit_bytes = 4096,
			.used_blocks = cases[i].used,
			.total_blocks = cases[i].total,
			.reserve_blocks = cases[i].reserve,
			.kernel_low_water_blocks = tm_metadata_low_water_blocks(cases[i].total),
			.limit_blocks = cases[i].limit,
			.backing_free_bytes = TM_GIB,
			.arm_only_near = true,
		};

		tm_extend_decide(&in, &plan);
		assert_int_equal(plan.verdict, cases[i].verdict);
		assert_int_equal(plan.mark_blocks, cases[i].mark);
		assert_int_equal(plan.new_total_blocks, cases[i].new_total);
		assert_int_equal(plan.want_reserve_blocks, cases[i].want);
	}
}

/* The kernel's own mark holds where the policy's is lower: else the kernel tells us first. */
static void test_kernel_mark(void **state)
{
	struct tm_extend_policy policy = { .enabled = true,
					   .low_water_percent = 1,
					   .step_percent = 1,
					   .step_min_bytes = TM_STEP_MIN_LEAST };
	struct tm_extend_input in = { .policy = &policy,
				      .unit_bytes = 4096,
				      .total_blocks = 512,
				      .used_blocks = 384,
				      .kernel_low_water_blocks = 128,
				      .backing_free_bytes = TM_GIB,
				      .arm_only_near = true };
	struct tm_extend_plan plan;

	(void)state;
	tm_extend_decide(&in, &plan);
	assert_int_equal(plan.verdict, TM_EXTEND_NOW);
	assert_int_equal(plan.mark_blocks, 128);
	assert_true(plan.new_total_blocks - 384 > plan.new_total_blocks / 4);
	assert_int_equal(plan.new_mark_blocks, plan.new_total_blocks / 4);

	in.used_blocks = 383;
	tm_extend_decide(&in, &plan);
	assert_int_equal(plan.verdict, TM_EXTEND_NOT_NEEDED);

	in.total_blocks = 100000;
	in.used_blocks = 100000 - 1024;
	in.kernel_low_water_blocks = 1024;
	tm_extend_decide(&in, &plan);
	assert_int_equal(plan.verdict, TM_EXTEND_NOW);
	assert_int_equal(plan.mark_blocks, 1024);
	assert_int_equal(plan.new_mark_blocks,
			 tm_round_up(plan.new_total_blocks, 100) / 100 > 1024
				 ? tm_round_up(plan.new_total_blocks, 100) / 100
				 : 1024);
}

/* The mark that the live table of data has: the kernel tells of it once, so it holds till the next.
 */
static void test_loaded_mark(void **state)
{
	struct tm_extend_input in = { .policy = &data_policy,
				      .unit_bytes = BLOCK,
				      .total_blocks = 256 * PER_MIB,
				      .used_blocks = 150 * PER_MIB,
				      .kernel_low_water_blocks = 106 * PER_MIB,
				      .backing_free_bytes = TM_GIB };
	struct tm_extend_plan plan;

	(void)state;
	tm_extend_decide(&in, &plan);
	assert_int_equal(plan.verdict, TM_EXTEND_NOW);
	assert_int_equal(plan.mark_blocks, 106 * PER_MIB);
	/* The next table has the policy's, and neither the old one's nor that of metadata. */
	assert_int_equal(plan.new_total_blocks, 320 * PER_MIB);
	assert_int_equal(plan.new_mark_blocks, 64 * PER_MIB);

	in.kernel_low_water_blocks--;
	tm_extend_decide(&in, &plan);
	assert_int_equal(plan.verdict, TM_EXTEND_NOT_NEEDED);
	in.kernel_low_water_blocks = 10;
	tm_extend_decide(&in, &plan);
	assert_int_equal(plan.mark_blocks, tm_round_up(256 * PER_MIB, 5) / 5);
}

/* xorshift: the same inputs each time. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Mostly of some order of magnitude, sometimes an edge. */
static uint64_t random_size(uint64_t *seed, unsigned int max_bits)
{
	uint64_t r = next_random(seed);

	switch (r % 32) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return max_bits >= 64 ? UINT64_MAX : ((uint64_t)1 << max_bits) - 1;
	default:
		return next_random(seed) >> (64 - 1 - (r >> 8) % max_bits);
	}
}

static void random_input(uint64_t *seed, unsigned int bits, struct tm_extend_policy *policy,
			 struct tm_extend_input *in)
{
	bool metadata = next_random(seed) % 2;

	*policy = (struct tm_extend_policy){
		.enabled = next_random(seed) % 8 != 0,
		.low_water_percent = (uint32_t)(1 + next_random(seed) % 90),
		.step_percent = (uint32_t)(1 + next_random(seed) % 1000),
		.step_min_bytes = (uint64_t)TM_STEP_MIN_LEAST << next_random(seed) % 34,
		.maximum_bytes = next_random(seed) % 2 ? random_size(seed, 63) : 0,
	};
	*in = (struct tm_extend_input){
		.policy = policy,
		.unit_bytes = metadata ? 4096 : BLOCK << next_random(seed) % 15,
		.total_blocks = random_size(seed, bits),
		.reserve_blocks = next_random(seed) % 2 ? random_size(seed, bits) : 0,
		.limit_blocks = next_random(seed) % 2 ? random_size(seed, bits) : 0,
		.backing_free_bytes = random_size(seed, 64),
		.rate_bytes_per_sec = next_random(seed) % 2 ? random_size(seed, bits) : 0,
		.reaction_usec = next_random(seed) % 2 ? random_size(seed, bits / 2) : 0,
		.arm_usec = next_random(seed) % 2 ? random_size(seed, bits / 2) : 0,
		.arm_only_near = metadata,
		.frozen = next_random(seed) % 8 == 0,
	};
	if (metadata)
		in->kernel_low_water_blocks = tm_metadata_low_water_blocks(in->total_blocks);
	else if (next_random(seed) % 2)
		in->kernel_low_water_blocks = in->total_blocks / (2 + next_random(seed) % 20);
	/* Used: near the marks, anywhere, or nonsense. */
	switch (next_random(seed) % 4) {
	case 0:
		in->used_blocks = random_size(seed, bits);
		break;
	case 1:
		in->used_blocks = in->total_blocks - in->total_blocks / 5;
		break;
	default:
		in->used_blocks = in->total_blocks ? next_random(seed) % in->total_blocks : 0;
		break;
	}
}

static uint64_t free_blocks(uint64_t total, uint64_t used)
{
	return used < total ? total - used : 0;
}

/* What has to hold for every plan. */
static void check_plan(const struct tm_extend_input *in, const struct tm_extend_plan *plan)
{
	const struct tm_extend_policy *policy = in->policy;
	uint64_t available = tm_sat_add(in->reserve_blocks,
					in->backing_free_bytes / in->unit_bytes);
	uint64_t base = in->total_blocks;
	bool needed = free_blocks(in->total_blocks, in->used_blocks) <= plan->mark_blocks;

	assert_true(plan->mark_blocks <= in->total_blocks / 2);
	assert_int_equal(plan->verdict == TM_EXTEND_NOT_NEEDED, !needed);
	if (plan->verdict == TM_EXTEND_NOW) {
		base = plan->new_total_blocks;
		assert_true(policy->enabled && !in->frozen);
		assert_true(base > in->total_blocks);
		assert_true(base - in->total_blocks <= available);
		assert_true(plan->new_mark_blocks <= base / 2);
		/* Bytes of it still fit everywhere. */
		assert_true(tm_sat_mul(base, in->unit_bytes) <= INT64_MAX);
		if (in->limit_blocks)
			assert_true(base <= in->limit_blocks);
		if (policy->maximum_bytes)
			assert_true(base * in->unit_bytes <= policy->maximum_bytes);
		available -= base - in->total_blocks;
	} else {
		assert_int_equal(plan->new_total_blocks, 0);
	}
	if (!plan->want_reserve_blocks)
		return;
	assert_true(policy->enabled && !in->frozen);
	assert_true(plan->want_reserve_blocks <= available);
	base = tm_sat_add(base, plan->want_reserve_blocks);
	assert_true(tm_sat_mul(base, in->unit_bytes) <= INT64_MAX);
	if (in->limit_blocks)
		assert_true(base <= in->limit_blocks);
	if (policy->maximum_bytes)
		assert_true(base * in->unit_bytes <= policy->maximum_bytes);
}

/* The size that no limit and no reserve kept it from. */
static bool was_cut(const struct tm_extend_input *in, uint64_t size)
{
	uint64_t available = tm_sat_add(in->reserve_blocks,
					in->backing_free_bytes / in->unit_bytes);

	return (in->limit_blocks && size >= in->limit_blocks) ||
	       (in->policy->maximum_bytes && size >= in->policy->maximum_bytes / in->unit_bytes) ||
	       size - in->total_blocks >= available || size >= INT64_MAX / in->unit_bytes ||
	       size == tm_sat_add(in->total_blocks, in->reserve_blocks);
}

static void test_properties(void **state)
{
	static const unsigned int widths[] = { 12, 24, 40, 64 };
	uint64_t seed = 0x9e3779b97f4a7c15, verdicts[TM_EXTEND_FROZEN + 1] = { 0 }, uncut = 0;
	struct tm_extend_policy policy;
	struct tm_extend_input in, next;
	struct tm_extend_plan plan, after;
	unsigned int i;

	(void)state;
	for (i = 0; i < 200000; i++) {
		random_input(&seed, widths[i % 4], &policy, &in);
		tm_extend_decide(&in, &plan);
		check_plan(&in, &plan);
		verdicts[plan.verdict]++;
		if (plan.verdict != TM_EXTEND_NOW || was_cut(&in, plan.new_total_blocks) ||
		    in.used_blocks > in.total_blocks)
			continue;
		uncut++;

		/* One extension is enough, and an idle pool is left alone after it. */
		assert_true(plan.new_total_blocks - in.used_blocks > plan.new_mark_blocks);
		next = in;
		next.total_blocks = plan.new_total_blocks;
		next.reserve_blocks = plan.want_reserve_blocks;
		next.kernel_low_water_blocks =
			in.arm_only_near ? tm_metadata_low_water_blocks(next.total_blocks)
					 : plan.new_mark_blocks;
		tm_extend_decide(&next, &after);
		assert_int_equal(after.verdict, TM_EXTEND_NOT_NEEDED);
		assert_int_equal(after.mark_blocks, plan.new_mark_blocks);
		/* Metadata is not armed straight away: the next resume would take it. */
		if (in.arm_only_near)
			assert_int_equal(plan.want_reserve_blocks, 0);
	}
	/* The generator reaches everything. */
	for (i = 0; i < TM_ARRAY_SIZE(verdicts); i++)
		assert_true(verdicts[i] > 500);
	assert_true(uncut > 5000);
}

/* Faster writing never means a lower mark, a smaller step or a smaller reserve. */
static void test_monotone_in_rate(void **state)
{
	static const unsigned int widths[] = { 12, 24, 40, 64 };
	uint64_t seed = 0x2545f4914f6cdd1d, slower;
	struct tm_extend_policy policy;
	struct tm_extend_input in;
	struct tm_extend_plan slow, fast;
	unsigned int i;

	(void)state;
	for (i = 0; i < 100000; i++) {
		random_input(&seed, widths[i % 4], &policy, &in);
		in.reserve_blocks = 0;
		in.arm_only_near = false;
		slower = random_size(&seed, 40);
		if (slower > in.rate_bytes_per_sec) {
			uint64_t swap = in.rate_bytes_per_sec;

			in.rate_bytes_per_sec = slower;
			slower = swap;
		}
		tm_extend_decide(&in, &fast);
		in.rate_bytes_per_sec = slower;
		tm_extend_decide(&in, &slow);
		assert_true(fast.mark_blocks >= slow.mark_blocks);
		if (slow.verdict == TM_EXTEND_NOT_NEEDED)
			continue;
		assert_int_equal(fast.verdict, slow.verdict);
		assert_true(fast.new_total_blocks >= slow.new_total_blocks);
		assert_true(fast.new_mark_blocks >= slow.new_mark_blocks);
	}
}

/* A pool filled block by block, arming as told: the reserve suffices for the next step. */
static void test_arming_follows(void **state)
{
	struct tm_extend_input in = { .policy = &data_policy,
				      .unit_bytes = BLOCK,
				      .total_blocks = 512 * PER_MIB,
				      .backing_free_bytes = 8 * TM_GIB,
				      .rate_bytes_per_sec = 120 * TM_MIB };
	struct tm_extend_plan plan;
	unsigned int extensions = 0;

	(void)state;
	for (in.used_blocks = 0; in.used_blocks < 4096 * PER_MIB; in.used_blocks += 3) {
		tm_extend_decide(&in, &plan);
		if (plan.verdict == TM_EXTEND_NOW) {
			uint64_t step = plan.new_total_blocks - in.total_blocks;

			/* All of it was armed: nothing to wait for. */
			if (extensions)
				assert_true(step <= in.reserve_blocks);
			extensions++;
			in.backing_free_bytes +=
				(in.reserve_blocks > step ? 0 : in.reserve_blocks) * BLOCK;
			in.backing_free_bytes -= (in.reserve_blocks > step ? 0 : step) * BLOCK;
			in.reserve_blocks = in.reserve_blocks > step ? in.reserve_blocks - step : 0;
			in.total_blocks = plan.new_total_blocks;
		}
		if (plan.want_reserve_blocks > in.reserve_blocks) {
			in.backing_free_bytes -= (plan.want_reserve_blocks - in.reserve_blocks) *
						 BLOCK;
			in.reserve_blocks = plan.want_reserve_blocks;
		}
		assert_true(in.used_blocks < in.total_blocks);
	}
	assert_true(extensions >= 4 && extensions <= 12);
}

static void test_rate(void **state)
{
	struct tm_rate rate = { .primed = false };
	const uint64_t start = 1000 * TM_USEC_PER_SEC;

	(void)state;
	assert_int_equal(tm_rate_get(&rate, start), 0);
	tm_rate_observe(&rate, start, 50 * TM_GIB);
	assert_int_equal(tm_rate_get(&rate, start), 0);
	/* 100 MiB in 2 s. */
	tm_rate_observe(&rate, start + 2 * TM_USEC_PER_SEC, 50 * TM_GIB + 100 * TM_MIB);
	assert_int_equal(tm_rate_get(&rate, start + 2 * TM_USEC_PER_SEC), 50 * TM_MIB);
	/* Slower does not lower the peak, nor does less use. */
	tm_rate_observe(&rate, start + 3 * TM_USEC_PER_SEC, 50 * TM_GIB + 101 * TM_MIB);
	tm_rate_observe(&rate, start + 4 * TM_USEC_PER_SEC, TM_GIB);
	assert_int_equal(tm_rate_get(&rate, start + 2 * TM_USEC_PER_SEC), 50 * TM_MIB);
	/* It halves in its half-life, and asking about the past gives the peak. */
	assert_int_equal(tm_rate_get(&rate, start + 2 * TM_USEC_PER_SEC + TM_RATE_HALF_LIFE_USEC),
			 25 * TM_MIB);
	assert_int_equal(
		tm_rate_get(&rate, start + 2 * TM_USEC_PER_SEC + 3 * TM_RATE_HALF_LIFE_USEC),
		50 * TM_MIB / 8);
	assert_int_equal(tm_rate_get(&rate, 0), 50 * TM_MIB);
	assert_int_equal(tm_rate_get(&rate, UINT64_MAX), 0);
	/* From the new base: 75 MiB in 1 s. */
	tm_rate_observe(&rate, start + 5 * TM_USEC_PER_SEC, TM_GIB + 75 * TM_MIB);
	assert_int_equal(tm_rate_get(&rate, start + 5 * TM_USEC_PER_SEC), 75 * TM_MIB);
}

static void test_rate_joins_short_intervals(void **state)
{
	struct tm_rate rate = { .primed = false };
	unsigned int i;

	(void)state;
	tm_rate_observe(&rate, 0, 0);
	/* 1 MiB every 100 us: 10000 MiB/s, seen over whole milliseconds. */
	for (i = 1; i < 10; i++) {
		tm_rate_observe(&rate, i * 100, i * TM_MIB);
		assert_int_equal(tm_rate_get(&rate, i * 100), 0);
	}
	tm_rate_observe(&rate, 1000, 10 * TM_MIB);
	assert_int_equal(tm_rate_get(&rate, 1000), 10000 * TM_MIB);
	/* A clock that goes back moves the base only. */
	tm_rate_observe(&rate, 500, 11 * TM_MIB);
	assert_int_equal(rate.last_usec, 500);
	assert_int_equal(tm_rate_get(&rate, 1000), 10000 * TM_MIB);
	/* No overflow. */
	tm_rate_observe(&rate, 1500, UINT64_MAX);
	assert_int_equal(tm_rate_get(&rate, 1500), UINT64_MAX);
}

static void test_rate_decays_steadily(void **state)
{
	struct tm_rate rate = { .peak_bytes_per_sec = 1000003, .primed = true };
	uint64_t last = UINT64_MAX, now, t;

	(void)state;
	for (t = 0; t < 25 * TM_RATE_HALF_LIFE_USEC; t += TM_RATE_HALF_LIFE_USEC / 37) {
		now = tm_rate_get(&rate, t);
		assert_true(now <= last);
		last = now;
	}
	assert_int_equal(last, 0);
}

static void test_latency(void **state)
{
	struct tm_latency l = { .n = 0 };
	unsigned int i;

	(void)state;
	assert_int_equal(tm_latency_slowest(&l), 0);
	assert_int_equal(tm_latency_median(&l), 0);
	tm_latency_add(&l, 40);
	assert_int_equal(tm_latency_median(&l), 40);
	tm_latency_add(&l, 20);
	assert_int_equal(tm_latency_median(&l), 30);
	tm_latency_add(&l, 1000);
	assert_int_equal(tm_latency_median(&l), 40);
	assert_int_equal(tm_latency_slowest(&l), 1000);
	assert_int_equal(l.count, 3);
	assert_int_equal(l.total_usec, 1060);
	assert_int_equal(l.max_usec, 1000);
	assert_int_equal(l.last_usec, 1000);
	/* The slow one is remembered for fifteen more, in the ring; for ever in the maximum. */
	for (i = 0; i < 15; i++) {
		tm_latency_add(&l, 10 + i);
		assert_int_equal(tm_latency_slowest(&l), 1000);
	}
	tm_latency_add(&l, 30);
	assert_int_equal(tm_latency_slowest(&l), 30);
	assert_int_equal(l.max_usec, 1000);
	assert_int_equal(l.n, 16);
	assert_int_equal(l.count, 19);
	tm_latency_add(&l, UINT64_MAX);
	tm_latency_add(&l, UINT64_MAX);
	assert_int_equal(l.total_usec, UINT64_MAX);
	assert_int_equal(tm_latency_slowest(&l), UINT64_MAX);
}

static void test_backoff(void **state)
{
	static const unsigned int seconds[] = { 1, 2, 4, 8, 16, 32, 60, 60, 60 };
	struct tm_backoff b = { .failures = 0 };
	uint64_t now = 5;
	size_t i;

	(void)state;
	assert_true(tm_backoff_allows(&b, 0));
	assert_false(tm_backoff_clear(&b));
	for (i = 0; i < TM_ARRAY_SIZE(seconds); i++) {
		assert_int_equal(tm_backoff_fail(&b, now), i == 0);
		assert_false(tm_backoff_allows(&b, now));
		assert_false(tm_backoff_allows(&b, now + seconds[i] * TM_USEC_PER_SEC - 1));
		now += seconds[i] * TM_USEC_PER_SEC;
		assert_true(tm_backoff_allows(&b, now));
	}
	assert_true(tm_backoff_clear(&b));
	assert_true(tm_backoff_allows(&b, 0));
	assert_true(tm_backoff_fail(&b, UINT64_MAX));
	assert_int_equal(b.not_before_usec, UINT64_MAX);
	b.failures = UINT32_MAX;
	assert_false(tm_backoff_fail(&b, 0));
	assert_int_equal(b.failures, UINT32_MAX);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_kernel_mark),
		cmocka_unit_test(test_loaded_mark),
		cmocka_unit_test(test_properties),
		cmocka_unit_test(test_monotone_in_rate),
		cmocka_unit_test(test_arming_follows),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_rate_joins_short_intervals),
		cmocka_unit_test(test_rate_decays_steadily),
		cmocka_unit_test(test_latency),
		cmocka_unit_test(test_backoff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
