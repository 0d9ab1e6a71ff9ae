// SPDX-License-Identifier: GPL-2.0-or-later
/* When checks and safety copies are due: by interval, after failures, and by clocks that jump. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "logic/due.h"

#define MINUTE (60 * TM_USEC_PER_SEC)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define NOW    (20000 * DAY)
#define NEVER  UINT64_MAX

static struct tm_pool_record pool_of(unsigned int n, uint32_t copy_hours, uint32_t check_days)
{
	struct tm_pool_record p = {
		.policy = { .copy_hours = copy_hours, .check_days = check_days },
		.created_usec = NOW - 100 * DAY,
	};

	(void)snprintf(p.id.text, sizeof(p.id.text), "00000000-0000-4000-8000-%012u", n);
	return p;
}

static void test_table(void **state)
{
	static const struct {
		uint32_t copy_hours, check_days;
		uint64_t created, copied, checked; /* ago; NEVER */
		enum tm_due due;
	} cases[] = {
		/* The first time: within the first hour, and not at once. */
		{ 24, 7, 0, NEVER, NEVER, TM_DUE_NOTHING },
		{ 24, 7, 50 * MINUTE, NEVER, NEVER, TM_DUE_NOTHING },
		{ 24, 7, HOUR, NEVER, NEVER, TM_DUE_COPY },
		{ 8760, 365, HOUR, NEVER, NEVER, TM_DUE_COPY },
		{ 0, 7, 50 * MINUTE, NEVER, NEVER, TM_DUE_NOTHING },
		{ 0, 7, HOUR, NEVER, NEVER, TM_DUE_CHECK },
		{ 0, 0, 100 * DAY, NEVER, NEVER, TM_DUE_NOTHING },
		/* Then at intervals, never later than those. */
		{ 24, 7, 100 * DAY, 20 * HOUR, 20 * HOUR, TM_DUE_NOTHING },
		{ 24, 7, 100 * DAY, 24 * HOUR, 24 * HOUR, TM_DUE_COPY },
		{ 0, 7, 100 * DAY, 6 * DAY, 6 * DAY, TM_DUE_NOTHING },
		{ 0, 7, 100 * DAY, 7 * DAY, 7 * DAY, TM_DUE_CHECK },
		{ 0, 7, 100 * DAY, NEVER, 7 * DAY, TM_DUE_CHECK },
		{ 24, 0, 100 * DAY, 24 * HOUR, NEVER, TM_DUE_COPY },
		{ 24, 0, 100 * DAY, HOUR, NEVER, TM_DUE_NOTHING },
		{ 0, 0, 100 * DAY, 99 * DAY, 99 * DAY, TM_DUE_NOTHING },
		/* A check is no copy, and more often than those where the policy says so. */
		{ 24, 7, 100 * DAY, 24 * HOUR, HOUR, TM_DUE_COPY },
		{ 8760, 1, 100 * DAY, 24 * HOUR, 24 * HOUR, TM_DUE_CHECK },
		/* Both: a copy is a check. */
		{ 24, 7, 100 * DAY, 8 * DAY, 8 * DAY, TM_DUE_COPY },
		/* The clock was set back: a little, and by years. */
		{ 24, 7, 100 * DAY, -HOUR, -HOUR, TM_DUE_NOTHING },
		{ 24, 7, 100 * DAY, -(3650 * DAY), -(3650 * DAY), TM_DUE_COPY },
		{ 24, 7, -(3650 * DAY), NEVER, NEVER, TM_DUE_COPY },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		/* Whatever its share is. */
		for (unsigned int n = 0; n < 50; n++) {
			struct tm_pool_record p = pool_of(n, cases[i].copy_hours,
							  cases[i].check_days);
			const struct tm_due_failures none = { 0 };
			uint64_t at = 0, again = 0;
			enum tm_due due;

			p.created_usec = NOW - cases[i].created;
			if (cases[i].copied != NEVER)
				p.copied_usec = NOW - cases[i].copied;
			if (cases[i].checked != NEVER)
				p.checked_usec = NOW - cases[i].checked;
			due = tm_due_decide(&p, &none, NOW, &at);
			if (due != cases[i].due)
				fail_msg("case %zu, pool %u: %d where %d was wanted", i, n,
					 (int)due, (int)cases[i].due);
			if (due != TM_DUE_NOTHING) {
				assert_true(at <= NOW);
			} else if (!cases[i].copy_hours && !cases[i].check_days) {
				assert_true(at == NEVER);
			} else {
				/* Then, and not before. */
				assert_true(at > NOW && at <= NOW + 25 * HOUR * 8);
				assert_int_equal(tm_due_decide(&p, &none, at - 1, &again),
						 TM_DUE_NOTHING);
				assert_int_not_equal(tm_due_decide(&p, &none, at, &again),
						     TM_DUE_NOTHING);
			}
		}
	}
}

/* Of many pools made at once, about as many are due in each part of the last eighth. */
static void test_spread(void **state)
{
	unsigned int parts[4] = { 0 };
	const unsigned int n = 1000;

	(void)state;
	for (unsigned int i = 0; i < n; i++) {
		struct tm_pool_record p = pool_of(i * 7919, 24, 7);
		const struct tm_due_failures none = { 0 };
		uint64_t at = 0, again = 1;

		p.copied_usec = p.checked_usec = NOW;
		assert_int_equal(tm_due_decide(&p, &none, NOW, &at), TM_DUE_NOTHING);
		assert_int_equal(tm_due_decide(&p, &none, NOW, &again), TM_DUE_NOTHING);
		assert_true(at == again); /* always the same */
		assert_true(at >= NOW + 21 * HOUR && at <= NOW + 24 * HOUR);
		parts[(at - NOW - 21 * HOUR) * 4 / (3 * HOUR + 1)]++;
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(parts); i++)
		if (parts[i] < n / 8)
			fail_msg("of %u pools only %u are due in quarter %zu", n, parts[i], i);
}

static void test_failures(void **state)
{
	static const uint64_t minutes[] = { 10, 20, 40, 80, 160, 320, 360, 360 };
	struct tm_pool_record p = pool_of(1, 24, 7);
	uint64_t at = 0;

	(void)state;
	for (unsigned int n = 1; n < 100; n++) {
		const size_t i = n <= TM_ARRAY_SIZE(minutes) ? n - 1 : TM_ARRAY_SIZE(minutes) - 1;
		struct tm_due_failures failures = { n, NOW };
		const uint64_t until = NOW + minutes[i] * MINUTE;

		assert_int_equal(tm_due_decide(&p, &failures, NOW, &at), TM_DUE_NOTHING);
		assert_true(at == until);
		assert_int_equal(tm_due_decide(&p, &failures, until - 1, &at), TM_DUE_NOTHING);
		assert_int_equal(tm_due_decide(&p, &failures, until, &at), TM_DUE_COPY);
		/* It failed in a future that did not come. */
		failures.last_usec = NOW + 1000 * DAY;
		assert_int_equal(tm_due_decide(&p, &failures, NOW, &at), TM_DUE_COPY);
	}
	/* What is not due does not become so. */
	p.copied_usec = p.checked_usec = NOW;
	assert_int_equal(tm_due_decide(&p, &(struct tm_due_failures){ 1, NOW - DAY }, NOW, &at),
			 TM_DUE_NOTHING);
	p.policy.copy_hours = p.policy.check_days = 0;
	assert_int_equal(tm_due_decide(&p, &(struct tm_due_failures){ 1, NOW }, NOW, &at),
			 TM_DUE_NOTHING);
	assert_true(at == NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
