/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One event per fall to the mark, none for hovering at it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../kernel/pure/low-water.h"
#include "common/cleanup.h"

static void speaks_once(void **state)
{
	/* mark 80: margin 10 */
	static const struct {
		u64 free_blocks;
		bool event;
		const char *what;
	} script[] = {
		{ 1000, false, "far above" },
		{ 81, false, "one above the mark" },
		{ 80, true, "exactly at it" },
		{ 80, false, "again" },
		{ 79, false, "below" },
		{ 85, false, "above, within the margin" },
		{ 80, false, "hovering" },
		{ 90, false, "at the end of the margin" },
		{ 80, false, "hovering still" },
		{ 0, false, "nothing left: it was told" },
		{ 91, false, "risen past the margin" },
		{ 80, true, "and fallen again" },
		{ 5000, false, "much was freed" },
		{ 3, true, "a step over the mark counts" },
	};
	struct dtm_low_water w;

	(void)state;
	dtm_low_water_set(&w, 80);
	for (size_t i = 0; i < TM_ARRAY_SIZE(script); i++)
		if (dtm_low_water_check(&w, script[i].free_blocks) != script[i].event)
			fail_msg("%zu: %s", i, script[i].what);
}

static void new_marks(void **state)
{
	struct dtm_low_water w;

	(void)state;
	dtm_low_water_set(&w, 10);
	assert_false(dtm_low_water_check(&w, 50));
	/* Low already when the mark comes: told at once, without a crossing. */
	dtm_low_water_set(&w, 60);
	assert_true(dtm_low_water_check(&w, 50));
	assert_false(dtm_low_water_check(&w, 50));
	/* The same mark at a resume tells again. */
	dtm_low_water_set(&w, 60);
	assert_true(dtm_low_water_check(&w, 50));
	/* No mark: the word is that nothing is left. */
	dtm_low_water_set(&w, 0);
	assert_false(dtm_low_water_check(&w, 1));
	assert_true(dtm_low_water_check(&w, 0));
	assert_false(dtm_low_water_check(&w, 1));
	assert_false(dtm_low_water_check(&w, 0));
	assert_false(dtm_low_water_check(&w, 2));
	assert_true(dtm_low_water_check(&w, 0));
}

static void extremes(void **state)
{
	struct dtm_low_water w;

	(void)state;
	dtm_low_water_set(&w, UINT64_MAX);
	assert_true(dtm_low_water_check(&w, UINT64_MAX));
	assert_false(dtm_low_water_check(&w, 0));
	dtm_low_water_set(&w, UINT64_MAX - 1);
	assert_true(dtm_low_water_check(&w, 7));
	assert_false(dtm_low_water_check(&w, UINT64_MAX)); /* no further than one above */
	assert_false(dtm_low_water_check(&w, 7));
	for (u64 mark = 0; mark < 8; mark++)
		assert_int_equal(dtm_low_water_margin(mark), 1);
	assert_int_equal(dtm_low_water_margin(16), 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(speaks_once),
		cmocka_unit_test(new_marks),
		cmocka_unit_test(extremes),
	};

	return cmocka_run_group_tests_name("kernel-low-water", tests, NULL, NULL);
}
