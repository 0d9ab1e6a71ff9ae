// SPDX-License-Identifier: GPL-2.0-or-later
/* Which copies of metadata go, and that the newest never does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "logic/rotation.h"

#define DAY (24 * 3600 * TM_USEC_PER_SEC)
#define NOW (20000 * DAY)
#define N   6

static void test_table(void **state)
{
	static const struct {
		uint32_t keep_copies, keep_days;
		int days[N]; /* ago, the oldest first; -1: the list ends */
		const char *gone;
	} cases[] = {
		{ 3, 10, { -1 }, "" },
		/* Over one limit only. */
		{ 3, 10, { 9, 8, 7, 6, 5, -1 }, "....." },
		{ 3, 10, { 100, 90, 80, -1 }, "..." },
		/* Over both. */
		{ 3, 10, { 100, 90, 80, 70, 60, -1 }, "xx..." },
		{ 3, 10, { 100, 90, 9, 8, 7, 6 }, "xx...." },
		{ 3, 10, { 11, 10, 10, 9, 8, -1 }, "x...." },
		/* No limit of days: by their number; none by number: by days, but for the last. */
		{ 2, 0, { 5, 4, 3, -1 }, "x.." },
		{ 0, 10, { 30, 20, 5, -1 }, "xx." },
		{ 0, 10, { 40, 30, 20, -1 }, "xx." },
		{ 0, 0, { 40, -1 }, "." },
		{ 1, 0, { 40, 30, -1 }, "x." },
		/* What was kept just now is not old, and what the clock says was kept tomorrow. */
		{ 0, 0, { 0, 0, -1 }, ".." },
		{ 0, 0, { 3, -2, -2, -1 }, "x.." },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_policy policy = { .keep_copies = cases[i].keep_copies,
					    .keep_days = cases[i].keep_days };
		char got[N + 1] = "";
		struct tm_rotation_copy kept[N] = { 0 };
		bool gone[N];
		size_t n = 0;

		for (; n < N && cases[i].days[n] != -1; n++)
			kept[n].kept_usec = NOW - (uint64_t)(int64_t)cases[i].days[n] * DAY;
		tm_rotation_decide(kept, n, NOW, &policy, gone);
		for (size_t k = 0; k < n; k++)
			got[k] = gone[k] ? 'x' : '.';
		if (strcmp(got, cases[i].gone) != 0)
			fail_msg("case %zu: %s where %s was wanted", i, got, cases[i].gone);
	}
}

/* Safety copies and what was replaced do not count for one another. */
static void test_classes(void **state)
{
	const struct tm_policy policy = { .keep_copies = 2, .keep_days = 10 };
	const struct tm_rotation_copy copies[] = {
		{ NOW - 90 * DAY, false }, { NOW - 80 * DAY, false }, { NOW - 70 * DAY, true },
		{ NOW - 60 * DAY, true },  { NOW - 50 * DAY, true },  { NOW - 40 * DAY, true },
	};
	const char *wanted = "..xx..";
	bool gone[TM_ARRAY_SIZE(copies)];

	(void)state;
	tm_rotation_decide(copies, TM_ARRAY_SIZE(copies), NOW, &policy, gone);
	for (size_t i = 0; i < TM_ARRAY_SIZE(copies); i++)
		assert_int_equal(gone[i], wanted[i] == 'x');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_classes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
