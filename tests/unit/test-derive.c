// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "logic/derive.h"

#define LOW  TM_CHANGE_LOW_WATER
#define META TM_CHANGE_METADATA_LOW_WATER
#define MODE TM_CHANGE_MODE
#define OUT  TM_CHANGE_OUT_OF_SPACE
#define BACK TM_CHANGE_SPACE_BACK
#define SIZE TM_CHANGE_DATA_SIZE

static const struct tm_thin_pool_status healthy = {
	.transaction_id = 3,
	.metadata_used = 10,
	.metadata_total = 512,
	.data_used = 100,
	.data_total = 1000,
	.discard = true,
	.metadata_low_water_valid = true,
	.metadata_low_water = 128,
};

static const struct tm_thin_pool_status failed = { .failed = true, .mode = TM_MODE_FAIL };

/* Used data and its mark, before and now. */
static void test_data_low_water(void **state)
{
	static const struct {
		uint64_t used_before, total_before, mark_before, used, total, mark;
		unsigned int changes;
	} cases[] = {
		{ 100, 1000, 200, 101, 1000, 200, 0 },
		{ 799, 1000, 200, 800, 1000, 200, LOW }, /* exactly at the mark */
		{ 100, 1000, 200, 900, 1000, 200, LOW },
		{ 800, 1000, 200, 801, 1000, 200, 0 }, /* told already */
		{ 900, 1000, 200, 700, 1000, 200, 0 }, /* freed */
		{ 700, 1000, 200, 900, 1000, 200, LOW },
		{ 700, 1000, 200, 700, 1000, 300, LOW }, /* the mark came up */
		{ 800, 1000, 200, 800, 1000, 100, 0 },   /* and went down */
		{ 800, 1000, 200, 800, 1200, 240, SIZE },
		{ 800, 1000, 200, 1100, 1200, 240, SIZE | LOW }, /* overtaken */
		{ 800, 1000, 200, 960, 1200, 240, SIZE | LOW },
		{ 1000, 1000, 0, 1000, 1000, 0, 0 },
		{ 999, 1000, 0, 1000, 1000, 0, LOW }, /* a mark of 0 is crossed when full */
		{ 100, 1000, 200, 2000, 1000, 200, LOW },
		{ 0, 0, 0, 0, 0, 0, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_thin_pool_status before = healthy, now = healthy;

		before.data_used = cases[i].used_before;
		before.data_total = cases[i].total_before;
		now.data_used = cases[i].used;
		now.data_total = cases[i].total;
		assert_int_equal(tm_derive(&before, cases[i].mark_before, &now, cases[i].mark),
				 cases[i].changes);
	}
}

static void test_metadata(void **state)
{
	static const struct {
		uint64_t used_before, total_before, used, total;
		unsigned int changes;
	} cases[] = {
		{ 383, 512, 383, 512, 0 },
		{ 383, 512, 384, 512, META },
		{ 384, 512, 385, 512, 0 },
		{ 384, 512, 384, 768, TM_CHANGE_METADATA_SIZE },
		{ 384, 512, 700, 768, TM_CHANGE_METADATA_SIZE | META },
	};
	size_t i;
	int valid;

	(void)state;
	/* A kernel that does not say its mark has the same one. */
	for (valid = 0; valid < 2; valid++) {
		for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
			struct tm_thin_pool_status before = healthy, now = healthy;

			before.metadata_used = cases[i].used_before;
			before.metadata_total = cases[i].total_before;
			now.metadata_used = cases[i].used;
			now.metadata_total = cases[i].total;
			before.metadata_low_water_valid = now.metadata_low_water_valid = valid;
			before.metadata_low_water = valid ? cases[i].total_before / 4 : 0;
			now.metadata_low_water = valid ? cases[i].total / 4 : 0;
			assert_int_equal(tm_derive(&before, 200, &now, 200), cases[i].changes);
		}
	}
}

static void test_modes(void **state)
{
	static const struct {
		enum tm_pool_mode before, now;
		unsigned int changes;
	} cases[] = {
		{ TM_MODE_WRITE, TM_MODE_WRITE, 0 },
		{ TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, MODE | OUT },
		{ TM_MODE_WRITE, TM_MODE_READ_ONLY, MODE },
		{ TM_MODE_WRITE, TM_MODE_FAIL, MODE },
		{ TM_MODE_OUT_OF_DATA_SPACE, TM_MODE_OUT_OF_DATA_SPACE, 0 },
		{ TM_MODE_OUT_OF_DATA_SPACE, TM_MODE_WRITE, MODE | BACK },
		{ TM_MODE_OUT_OF_DATA_SPACE, TM_MODE_READ_ONLY, MODE | BACK },
		{ TM_MODE_OUT_OF_DATA_SPACE, TM_MODE_FAIL, MODE | BACK },
		{ TM_MODE_READ_ONLY, TM_MODE_WRITE, MODE },
		{ TM_MODE_READ_ONLY, TM_MODE_OUT_OF_DATA_SPACE, MODE | OUT },
		{ TM_MODE_FAIL, TM_MODE_WRITE, MODE },
		{ TM_MODE_FAIL, TM_MODE_OUT_OF_DATA_SPACE, MODE | OUT },
		{ TM_MODE_FAIL, TM_MODE_FAIL, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_thin_pool_status before = healthy, now = healthy;

		before.mode = cases[i].before;
		now.mode = cases[i].now;
		if (before.mode == TM_MODE_FAIL)
			before = failed;
		if (now.mode == TM_MODE_FAIL)
			now = failed;
		assert_int_equal(tm_derive(&before, 200, &now, 200), cases[i].changes);
	}
}

static void test_flags(void **state)
{
	struct tm_thin_pool_status before = healthy, now = healthy;

	(void)state;
	now.needs_check = true;
	assert_int_equal(tm_derive(&before, 200, &now, 200), TM_CHANGE_NEEDS_CHECK);
	assert_int_equal(tm_derive(&now, 200, &now, 200), 0);
	assert_int_equal(tm_derive(&now, 200, &before, 200), TM_CHANGE_NEEDS_CHECK_CLEARED);
	/* Nothing is known of a failed pool, so the flag is news when it is back with it. */
	assert_int_equal(tm_derive(&failed, 200, &now, 200), MODE | TM_CHANGE_NEEDS_CHECK);
	assert_int_equal(tm_derive(&now, 200, &failed, 200), MODE);

	now = healthy;
	now.transaction_id = 4;
	assert_int_equal(tm_derive(&before, 200, &now, 200), TM_CHANGE_TRANSACTION);
}

static void test_no_space_timeout(void **state)
{
	struct tm_thin_pool_status before = healthy, now = healthy;

	(void)state;
	before.data_used = now.data_used = 1000;
	before.mode = now.mode = TM_MODE_OUT_OF_DATA_SPACE;
	now.error_if_no_space = true;
	assert_int_equal(tm_derive(&before, 200, &now, 200), TM_CHANGE_NO_SPACE_TIMEOUT);
	assert_int_equal(tm_derive(&now, 200, &now, 200), 0);
	/* Both since the last look. */
	before = healthy;
	assert_int_equal(tm_derive(&before, 200, &now, 200),
			 TM_CHANGE_NO_SPACE_TIMEOUT | MODE | OUT | LOW);
	/* A pool told to give errors from the start has not timed out. */
	before.error_if_no_space = true;
	assert_int_equal(tm_derive(&before, 200, &now, 200), MODE | OUT | LOW);
	/* Nor one whose table was changed while it had space. */
	before = healthy;
	now = healthy;
	now.error_if_no_space = true;
	assert_int_equal(tm_derive(&before, 200, &now, 200), 0);
}

static void test_first_look(void **state)
{
	struct tm_thin_pool_status now = healthy;

	(void)state;
	assert_int_equal(tm_derive(NULL, 0, &now, 200), 0);
	assert_int_equal(tm_derive(NULL, 0, &failed, 200), MODE);
	now.data_used = 850;
	now.metadata_used = 500;
	now.needs_check = true;
	now.mode = TM_MODE_READ_ONLY;
	assert_int_equal(tm_derive(NULL, 0, &now, 200), LOW | META | MODE | TM_CHANGE_NEEDS_CHECK);
	now = healthy;
	now.data_used = 1000;
	now.mode = TM_MODE_OUT_OF_DATA_SPACE;
	now.error_if_no_space = true;
	assert_int_equal(tm_derive(NULL, 0, &now, 200), LOW | MODE | OUT);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_low_water),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_no_space_timeout),
		cmocka_unit_test(test_first_look),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
