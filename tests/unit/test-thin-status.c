// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "logic/thin-status.h"

#define U64MAX "18446744073709551615"

static void test_pool_status(void **state)
{
	static const struct {
		const char *line;
		struct tm_thin_pool_status status;
	} cases[] = {
		{ "0 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128 ",
		  { .metadata_used = 11,
		    .metadata_total = 512,
		    .data_total = 4096,
		    .discard = true,
		    .discard_passdown = true,
		    .metadata_low_water_valid = true,
		    .metadata_low_water = 128 } },
		{ "7 11/512 9/4096 83 ro no_discard_passdown error_if_no_space needs_check 1024",
		  { .mode = TM_MODE_READ_ONLY,
		    .transaction_id = 7,
		    .metadata_used = 11,
		    .metadata_total = 512,
		    .data_used = 9,
		    .data_total = 4096,
		    .held_root_valid = true,
		    .held_root = 83,
		    .discard = true,
		    .error_if_no_space = true,
		    .needs_check = true,
		    .metadata_low_water_valid = true,
		    .metadata_low_water = 1024 } },
		{ "1 2/3 4/4 - out_of_data_space ignore_discard queue_if_no_space - ",
		  { .mode = TM_MODE_OUT_OF_DATA_SPACE,
		    .transaction_id = 1,
		    .metadata_used = 2,
		    .metadata_total = 3,
		    .data_used = 4,
		    .data_total = 4 } },
		{ "1 2/3 4/4 - ro ignore_discard queue_if_no_space -",
		  { .mode = TM_MODE_READ_ONLY,
		    .transaction_id = 1,
		    .metadata_used = 2,
		    .metadata_total = 3,
		    .data_used = 4,
		    .data_total = 4 } },
		{ U64MAX " " U64MAX "/" U64MAX " " U64MAX "/" U64MAX " " U64MAX
			 " rw discard_passdown queue_if_no_space - " U64MAX,
		  { .transaction_id = UINT64_MAX,
		    .metadata_used = UINT64_MAX,
		    .metadata_total = UINT64_MAX,
		    .data_used = UINT64_MAX,
		    .data_total = UINT64_MAX,
		    .held_root_valid = true,
		    .held_root = UINT64_MAX,
		    .discard = true,
		    .discard_passdown = true,
		    .metadata_low_water_valid = true,
		    .metadata_low_water = UINT64_MAX } },
		{ "Fail", { .failed = true, .mode = TM_MODE_FAIL } },
		{ "Error", { .failed = true, .mode = TM_MODE_FAIL } },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct tm_thin_pool_status *want = &cases[i].status;
		struct tm_thin_pool_status s;

		memset(&s, 0xa5, sizeof(s));
		assert_int_equal(tm_thin_pool_status_parse(cases[i].line, &s), 0);
		assert_int_equal(s.failed, want->failed);
		assert_int_equal(s.mode, want->mode);
		assert_int_equal(s.transaction_id, want->transaction_id);
		assert_int_equal(s.metadata_used, want->metadata_used);
		assert_int_equal(s.metadata_total, want->metadata_total);
		assert_int_equal(s.data_used, want->data_used);
		assert_int_equal(s.data_total, want->data_total);
		assert_int_equal(s.held_root_valid, want->held_root_valid);
		assert_int_equal(s.held_root, want->held_root);
		assert_int_equal(s.discard, want->discard);
		assert_int_equal(s.discard_passdown, want->discard_passdown);
		assert_int_equal(s.error_if_no_space, want->error_if_no_space);
		assert_int_equal(s.needs_check, want->needs_check);
		assert_int_equal(s.metadata_low_water_valid, want->metadata_low_water_valid);
		assert_int_equal(s.metadata_low_water, want->metadata_low_water);
	}
}

static void test_pool_status_bad(void **state)
{
	static const char *const lines[] = {
		"",
		" ",
		"fail",
		"Fail  ",
		"Failed",
		"Error 1",
		"-",
		"0",
		"0 11/512",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space",
		"0 11/512 0/4096 - rw discard_passdown",
		"0 11/512 0/4096 - rw",
		" 0 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0  11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128  ",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128 9",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space -  ",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space - x",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space -128",
		"0 11/512 0/4096 - rx discard_passdown queue_if_no_space - 128",
		"0 11/512 0/4096 - rwx discard_passdown queue_if_no_space - 128",
		"0 11/512 0/4096 - rw passdown queue_if_no_space - 128",
		"0 11/512 0/4096 - rw discard_passdown queue - 128",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space check 128",
		"0 11/512 0/4096 -1 rw discard_passdown queue_if_no_space - 128",
		"0 11/512 0/4096 rw discard_passdown queue_if_no_space - 128",
		"-1 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"+1 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"01 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0x1 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 11 512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 /512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 11/ 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 11/512\t0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128\n",
		"18446744073709551616 11/512 0/4096 - rw discard_passdown queue_if_no_space - 128",
		"0 11/512 0/99999999999999999999999 - rw discard_passdown queue_if_no_space - 128",
		"0 11/512 0/4096 - rw discard_passdown queue_if_no_space - 18446744073709551616",
	};
	struct tm_thin_pool_status s, kept;
	size_t i;

	(void)state;
	memset(&s, 0xa5, sizeof(s));
	memcpy(&kept, &s, sizeof(s));
	for (i = 0; i < TM_ARRAY_SIZE(lines); i++) {
		assert_int_equal(tm_thin_pool_status_parse(lines[i], &s), -EINVAL);
		assert_memory_equal(&s, &kept, sizeof(s));
	}
}

/* No beginning of a good line is a line, but for the form of older kernels. */
static void test_pool_status_cut(void **state)
{
	static const char line[] = "7 11/512 9/40 83 rw discard_passdown queue_if_no_space - 1024";
	struct tm_thin_pool_status s;
	char cut[sizeof(line)];
	size_t i, good = 0;

	(void)state;
	for (i = 0; i < sizeof(line); i++) {
		(void)snprintf(cut, i + 1, "%s", line);
		good += tm_thin_pool_status_parse(cut, &s) == 0;
	}
	/* "... -", "... - ", and "1", "10", "102", "1024" after it. */
	assert_int_equal(good, 6);
}

static void test_thin_status(void **state)
{
	static const struct {
		const char *line;
		int r;
		struct tm_thin_status status;
	} cases[] = {
		{ "0 -", 0, { .mapped_sectors = 0 } },
		{ "0 - ", 0, { .mapped_sectors = 0 } },
		{ "2048 4095",
		  0,
		  { .mapped_sectors = 2048, .highest_valid = true, .highest_sector = 4095 } },
		{ "2048 4095 ",
		  0,
		  { .mapped_sectors = 2048, .highest_valid = true, .highest_sector = 4095 } },
		{ "Fail", 0, { .failed = true } },
		{ "Error", 0, { .failed = true } },
		{ "", -EINVAL, { .failed = false } },
		{ "-", -EINVAL, { .failed = false } },
		{ "5", -EINVAL, { .failed = false } },
		{ "5 ", -EINVAL, { .failed = false } },
		{ "5 x", -EINVAL, { .failed = false } },
		{ "5 --", -EINVAL, { .failed = false } },
		{ "5 6 7", -EINVAL, { .failed = false } },
		{ "5  6", -EINVAL, { .failed = false } },
		{ "-5 6", -EINVAL, { .failed = false } },
		{ "18446744073709551616 6", -EINVAL, { .failed = false } },
		{ "5 18446744073709551616", -EINVAL, { .failed = false } },
	};
	struct tm_thin_status s;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		memset(&s, 0, sizeof(s));
		assert_int_equal(tm_thin_status_parse(cases[i].line, &s), cases[i].r);
		assert_int_equal(s.failed, cases[i].status.failed);
		assert_int_equal(s.mapped_sectors, cases[i].status.mapped_sectors);
		assert_int_equal(s.highest_valid, cases[i].status.highest_valid);
		assert_int_equal(s.highest_sector, cases[i].status.highest_sector);
	}
}

static void test_table(void **state)
{
	struct tm_thin_pool_table t = { .metadata_major = 253,
					.metadata_minor = 4,
					.data_major = 253,
					.data_minor = 3,
					.block_sectors = 128,
					.low_water_blocks = 819 };
	struct tm_thin_pool_table back;
	unsigned int bits;
	char buf[256];

	(void)state;
	assert_int_equal(tm_thin_pool_table_format(&t, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "253:4 253:3 128 819 0");
	t.skip_block_zeroing = t.error_if_no_space = true;
	assert_int_equal(tm_thin_pool_table_format(&t, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "253:4 253:3 128 819 2 skip_block_zeroing error_if_no_space");

	for (bits = 0; bits < 32; bits++) {
		t.skip_block_zeroing = bits & 1;
		t.ignore_discard = bits & 2;
		t.no_discard_passdown = bits & 4;
		t.read_only = bits & 8;
		t.error_if_no_space = bits & 16;
		assert_int_equal(tm_thin_pool_table_format(&t, buf, sizeof(buf)), 0);
		memset(&back, 0, sizeof(back));
		assert_int_equal(tm_thin_pool_table_parse(buf, &back), 0);
		assert_memory_equal(&back, &t, sizeof(t));
	}
}

static void test_table_lines(void **state)
{
	static const struct {
		const char *line;
		bool good;
	} cases[] = {
		{ "253:4 253:3 128 819 0 ", true }, /* as the kernel prints it */
		{ "253:4 253:3 128 819 1 ignore_discard ", true },
		{ "253:4 253:3 128 819", true },
		{ "253:4 253:3 128 819 ", true },
		{ "4294967295:0 0:4294967295 1 18446744073709551615 0", true },
		{ "", false },
		{ "253:4 253:3 128", false },
		{ "253:4 253:3 128 819 1", false },
		{ "253:4 253:3 128 819 1 ", false },
		{ "253:4 253:3 128 819 2 ignore_discard", false },
		{ "253:4 253:3 128 819 2 ignore_discard ignore_discard", false },
		{ "253:4 253:3 128 819 0 ignore_discard", false },
		{ "253:4 253:3 128 819 1 ignore_discards", false },
		{ "253:4 253:3 128 819 1 new_feature", false },
		{ "253:4 253:3 128 819 99999999999 ignore_discard", false },
		{ "253:4 253:3 128 819 -1", false },
		{ "253 253:3 128 819 0", false },
		{ "253:4:5 253:3 128 819 0", false },
		{ "/dev/sda 253:3 128 819 0", false },
		{ "4294967296:4 253:3 128 819 0", false },
		{ "253:4 253:3  128 819 0", false },
	};
	struct tm_thin_pool_table t;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++)
		assert_int_equal(tm_thin_pool_table_parse(cases[i].line, &t),
				 cases[i].good ? 0 : -EINVAL);
}

static void test_format_limits(void **state)
{
	const struct tm_thin_pool_table t = { .metadata_major = 253, .data_major = 253 };
	static const char line[] = "253:0 253:0 0 0 0";
	char buf[64];
	size_t len;

	(void)state;
	for (len = 0; len <= sizeof(line); len++) {
		memset(buf, 'x', sizeof(buf));
		assert_int_equal(tm_thin_pool_table_format(&t, buf, len),
				 len >= sizeof(line) ? 0 : -ENOSPC);
		/* A line that was cut is none, and nothing is written past the end. */
		if (len)
			assert_string_equal(buf, len >= sizeof(line) ? line : "");
		assert_int_equal(buf[len], 'x');
	}
	assert_int_equal(tm_thin_table_format(253, 7, TM_DEV_ID_MAX, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "253:7 16777215");
	assert_int_equal(tm_thin_table_format(253, 7, TM_DEV_ID_MAX, buf, 14), -ENOSPC);
	assert_string_equal(buf, "");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool_status),     cmocka_unit_test(test_pool_status_bad),
		cmocka_unit_test(test_pool_status_cut), cmocka_unit_test(test_thin_status),
		cmocka_unit_test(test_table),           cmocka_unit_test(test_table_lines),
		cmocka_unit_test(test_format_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
