// SPDX-License-Identifier: GPL-2.0-or-later
/* What makes volumes suspect, and which; and which file system a device has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "logic/fs-kind.h"
#include "logic/suspect.h"
#include "logic/thin-status.h"

static void test_by_status(void **state)
{
	static const struct {
		const char *line;
		enum tm_suspicion why;
	} cases[] = {
		{ "0 10/1024 20/100 - rw discard_passdown queue_if_no_space - 256",
		  TM_SUSPECT_NOT },
		{ "0 10/1024 20/100 - rw discard_passdown error_if_no_space - 256",
		  TM_SUSPECT_NOT },
		/* Waiting is not losing. */
		{ "0 10/1024 100/100 - out_of_data_space discard_passdown queue_if_no_space - 256",
		  TM_SUSPECT_NOT },
		{ "0 10/1024 100/100 - out_of_data_space discard_passdown error_if_no_space - 256",
		  TM_SUSPECT_NO_SPACE },
		{ "0 10/1024 20/100 - ro discard_passdown queue_if_no_space - 256",
		  TM_SUSPECT_READ_ONLY },
		{ "0 10/1024 20/100 - ro discard_passdown queue_if_no_space needs_check 256",
		  TM_SUSPECT_READ_ONLY },
		{ "0 10/1024 20/100 - rw discard_passdown queue_if_no_space needs_check 256",
		  TM_SUSPECT_READ_ONLY },
		{ "Fail", TM_SUSPECT_FAIL },
		{ "Error", TM_SUSPECT_FAIL },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_thin_pool_status status;

		assert_int_equal(tm_thin_pool_status_parse(cases[i].line, &status), 0);
		if (tm_suspect_by_status(&status) != cases[i].why)
			fail_msg("%s: \"%s\"", cases[i].line,
				 tm_suspicion_name(tm_suspect_by_status(&status)));
	}
}

static void test_by_events(void **state)
{
	static const struct {
		uint64_t floor_us;
		enum tm_when_full when_full;
		struct {
			uint64_t us;
			enum tm_kernel_cause cause;
			enum tm_pool_mode mode;
		} list[4];
		enum tm_suspicion why;
		uint64_t usec;
	} cases[] = {
		{ .why = TM_SUSPECT_NOT },
		/* Out of space and back: by what writes get meanwhile. */
		{ .list = { { 5, TM_CAUSE_MODE, TM_MODE_OUT_OF_DATA_SPACE },
			    { 6, TM_CAUSE_MODE, TM_MODE_WRITE } } },
		{ .when_full = TM_WHEN_FULL_ERROR,
		  .list = { { 5, TM_CAUSE_MODE, TM_MODE_OUT_OF_DATA_SPACE },
			    { 6, TM_CAUSE_MODE, TM_MODE_WRITE } },
		  .why = TM_SUSPECT_NO_SPACE,
		  .usec = 5 },
		{ .list = { { 5, TM_CAUSE_MODE, TM_MODE_OUT_OF_DATA_SPACE },
			    { 7, TM_CAUSE_NO_SPACE_TIMEOUT, TM_MODE_WRITE },
			    { 8, TM_CAUSE_DATA_GROWN, TM_MODE_WRITE },
			    { 8, TM_CAUSE_MODE, TM_MODE_WRITE } },
		  .why = TM_SUSPECT_NO_SPACE,
		  .usec = 7 },
		{ .list = { { 5, TM_CAUSE_MODE, TM_MODE_READ_ONLY },
			    { 6, TM_CAUSE_MODE, TM_MODE_WRITE } },
		  .why = TM_SUSPECT_READ_ONLY,
		  .usec = 5 },
		{ .list = { { 5, TM_CAUSE_NEEDS_CHECK, TM_MODE_WRITE } },
		  .why = TM_SUSPECT_READ_ONLY,
		  .usec = 5 },
		/* The worst, and the last time. */
		{ .list = { { 5, TM_CAUSE_MODE, TM_MODE_FAIL },
			    { 9, TM_CAUSE_MODE, TM_MODE_READ_ONLY } },
		  .why = TM_SUSPECT_FAIL,
		  .usec = 9 },
		/* What is not to be told of does not count; what happens at that time does. */
		{ .floor_us = 6, .list = { { 5, TM_CAUSE_MODE, TM_MODE_FAIL } } },
		{ .floor_us = 5,
		  .list = { { 5, TM_CAUSE_MODE, TM_MODE_FAIL } },
		  .why = TM_SUSPECT_FAIL,
		  .usec = 5 },
		/* Space that is low, or grows, and what is not known here. */
		{ .when_full = TM_WHEN_FULL_ERROR,
		  .list = { { 5, TM_CAUSE_DATA_LOW, TM_MODE_FAIL },
			    { 6, TM_CAUSE_METADATA_LOW, TM_MODE_FAIL },
			    { 7, TM_CAUSE_METADATA_GROWN, TM_MODE_FAIL },
			    { 8, TM_CAUSE_OTHER, TM_MODE_FAIL } } },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_kernel_events events = { 0 };
		uint64_t usec = 4711;

		for (size_t k = 0; k < 4 && cases[i].list[k].us; k++)
			events.list[events.n++] = (struct tm_kernel_event){
				.time_ns = cases[i].list[k].us * 1000,
				.cause = cases[i].list[k].cause,
				.mode = cases[i].list[k].mode,
			};
		if (tm_suspect_by_events(&events, cases[i].floor_us * 1000, cases[i].when_full,
					 &usec) != cases[i].why ||
		    usec != cases[i].usec)
			fail_msg("case %zu", i);
	}
}

static void test_touches(void **state)
{
	static const struct {
		bool active, read_only;
		enum tm_suspicion suspect;
		uint64_t created, since, happened;
		bool touched;
	} cases[] = {
		{ true, false, TM_SUSPECT_NOT, 10, 0, 0, true },
		{ false, false, TM_SUSPECT_NOT, 10, 0, 0, false },
		{ true, true, TM_SUSPECT_NOT, 10, 0, 0, false },
		/* It keeps its first reason. */
		{ true, false, TM_SUSPECT_NO_SPACE, 10, 20, 0, false },
		/* Before it was made, or cleared. */
		{ true, false, TM_SUSPECT_NOT, 10, 0, 9, false },
		{ true, false, TM_SUSPECT_NOT, 10, 0, 11, true },
		{ true, false, TM_SUSPECT_NOT, 10, 20, 19, false },
		{ true, false, TM_SUSPECT_NOT, 10, 20, 21, true },
		/* What lasts counts whatever the clock says. */
		{ true, false, TM_SUSPECT_NOT, 10, UINT64_MAX, 0, true },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct tm_volume_record v = {
			.active = cases[i].active,
			.read_only = cases[i].read_only,
			.suspect = cases[i].suspect,
			.created_usec = cases[i].created,
			.suspect_usec = cases[i].since,
		};

		if (tm_suspect_touches(&v, cases[i].happened) != cases[i].touched)
			fail_msg("case %zu", i);
	}
	assert_false(tm_suspect_by_fate(TM_FATE_INTACT));
	for (unsigned int fate = TM_FATE_INTACT + 1; fate <= TM_FATE_UNKNOWN; fate++)
		assert_true(tm_suspect_by_fate((enum tm_fate)fate));
}

static void test_names(void **state)
{
	enum tm_suspicion found;

	(void)state;
	for (unsigned int s = TM_SUSPECT_NOT; s <= TM_SUSPECT_RESTORED; s++) {
		assert_int_equal(
			tm_suspicion_parse(tm_suspicion_name((enum tm_suspicion)s), &found), 0);
		assert_int_equal(found, s);
	}
	assert_true(tm_suspicion_parse("else", &found) < 0);
	assert_string_equal(tm_suspicion_name((enum tm_suspicion)99), "unknown");
}

static void test_file_systems(void **state)
{
	uint8_t *d = calloc(1, TM_FS_KIND_BYTES);
	bool replay = true;

	(void)state;
	assert_non_null(d);
	assert_int_equal(tm_fs_detect(d, TM_FS_KIND_BYTES, &replay), TM_FS_NONE);
	assert_false(replay);
	memcpy(d + 65536 + 64, "_BHRfS_M", 8);
	assert_int_equal(tm_fs_detect(d, TM_FS_KIND_BYTES, &replay), TM_FS_BTRFS);
	assert_false(replay);
	d[65536 + 96 + 7] = 1;
	assert_int_equal(tm_fs_detect(d, TM_FS_KIND_BYTES, &replay), TM_FS_BTRFS);
	assert_true(replay);
	assert_int_equal(tm_fs_detect(d, 65536, &replay), TM_FS_NONE);
	d[1024 + 56] = 0x53;
	d[1024 + 57] = 0xef;
	d[1024 + 96] = 0x2;
	assert_int_equal(tm_fs_detect(d, TM_FS_KIND_BYTES, &replay), TM_FS_EXT);
	assert_false(replay);
	d[1024 + 96] = 0x6;
	assert_int_equal(tm_fs_detect(d, TM_FS_KIND_BYTES, &replay), TM_FS_EXT);
	assert_true(replay);
	assert_int_equal(tm_fs_detect(d, 1024, &replay), TM_FS_NONE);
	memcpy(d, "XFSB", 4);
	assert_int_equal(tm_fs_detect(d, 4, &replay), TM_FS_XFS);
	assert_false(replay);
	assert_int_equal(tm_fs_detect(d, 0, &replay), TM_FS_NONE);
	assert_string_equal(tm_fs_kind_name(TM_FS_XFS), "XFS");
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_status),    cmocka_unit_test(test_by_events),
		cmocka_unit_test(test_touches),      cmocka_unit_test(test_names),
		cmocka_unit_test(test_file_systems),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
