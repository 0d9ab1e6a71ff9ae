// SPDX-License-Identifier: GPL-2.0-or-later
/* What is read from a thin_dump, however it is cut into pieces. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "logic/dump-scan.h"

#define HEAD                                                                          \
	"<superblock uuid=\"\" time=\"1\" transaction=\"2\" data_block_size=\"128\" " \
	"nr_data_blocks=\"256\">\n"
#define ONE                                                                                        \
	"  <device dev_id=\"1\" mapped_blocks=\"40\" transaction=\"0\" creation_time=\"0\" "       \
	"snap_time=\"1\">\n    <single_mapping origin_block=\"0\" data_block=\"0\" time=\"0\"/>\n" \
	"  </device>\n"
#define TWO  "  <device dev_id=\"16777215\" mapped_blocks=\"2\" transaction=\"1\">\n  </device>\n"
#define TAIL "</superblock>"

static void reads_pieces(void **state)
{
	static const char text[] = HEAD ONE TWO TAIL;

	(void)state;
	for (size_t piece = 1; piece <= sizeof(text); piece++) {
		tm_cleanup(tm_dump_scan_done) struct tm_dump_scan scan = { 0 };

		for (size_t at = 0; at < sizeof(text) - 1; at += piece) {
			const size_t left = sizeof(text) - 1 - at;

			assert_false(tm_dump_scan_whole(&scan));
			assert_int_equal(
				tm_dump_scan_feed(&scan, text + at, left < piece ? left : piece),
				0);
		}
		assert_true(tm_dump_scan_whole(&scan));
		assert_int_equal(scan.n_devices, 2);
		assert_int_equal(tm_dump_scan_mapped(&scan), 42);
		assert_true(tm_dump_scan_has(&scan, 1));
		assert_true(tm_dump_scan_has(&scan, 16777215));
		assert_false(tm_dump_scan_has(&scan, 2));
	}
}

/* Many volumes. */
static void grows(void **state)
{
	tm_cleanup(tm_dump_scan_done) struct tm_dump_scan scan = { 0 };

	(void)state;
	assert_int_equal(tm_dump_scan_feed(&scan, HEAD, strlen(HEAD)), 0);
	for (unsigned int i = 1; i <= 1000; i++) {
		char line[80];
		int n = snprintf(line, sizeof(line),
				 "<device dev_id=\"%u\" mapped_blocks=\"3\">\n</device>\n", i);

		assert_int_equal(tm_dump_scan_feed(&scan, line, (size_t)n), 0);
	}
	assert_int_equal(tm_dump_scan_feed(&scan, TAIL, strlen(TAIL)), 0);
	assert_true(tm_dump_scan_whole(&scan));
	assert_int_equal(scan.n_devices, 1000);
	assert_int_equal(tm_dump_scan_mapped(&scan), 3000);
	assert_true(tm_dump_scan_has(&scan, 1000));
}

static void knows_what_is_not_whole(void **state)
{
	static const char *const bad[] = {
		"",
		HEAD,
		HEAD ONE,
		HEAD ONE "</superblock",
		ONE TAIL,
		TAIL,
		HEAD TAIL TAIL,
		HEAD HEAD TAIL,
		HEAD TAIL ONE,
		HEAD "<device dev_id=\"1\">" TAIL,
		HEAD "<device mapped_blocks=\"1\">" TAIL,
		HEAD "<device dev_id=\"16777216\" mapped_blocks=\"1\">" TAIL,
		HEAD "<device dev_id=\"x\" mapped_blocks=\"1\">" TAIL,
		HEAD "<device dev_id=\"1\" mapped_blocks=\"99999999999999999999\">" TAIL,
		HEAD "<device dev_id=\"1\" mapped_blocks=\"1x\">" TAIL,
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		tm_cleanup(tm_dump_scan_done) struct tm_dump_scan scan = { 0 };

		assert_int_equal(tm_dump_scan_feed(&scan, bad[i], strlen(bad[i])), 0);
		if (tm_dump_scan_whole(&scan))
			fail_msg("case %zu is taken for whole", i);
	}
}

/* A tag without end takes no memory. */
static void endless_tag(void **state)
{
	tm_cleanup(tm_dump_scan_done) struct tm_dump_scan scan = { 0 };

	(void)state;
	assert_int_equal(tm_dump_scan_feed(&scan, HEAD "<", strlen(HEAD) + 1), 0);
	for (size_t i = 0; i < (size_t)4 * TM_DUMP_TAG_MAX; i++)
		assert_int_equal(tm_dump_scan_feed(&scan, "a", 1), 0);
	assert_int_equal(tm_dump_scan_feed(&scan, ">" TAIL, strlen(TAIL) + 1), 0);
	assert_false(tm_dump_scan_whole(&scan));
	assert_int_equal(scan.n_devices, 0);
}

static void puts_the_head_right(void **state)
{
	static const char text[] =
		"<?xml?>\n<superblock uuid=\"\" nr_data_blocks=\"0\" flags=\"0\">\n  <device ";
	static const char *const bad[] = { "<superblock uuid=\"\">", "no dump" };

	(void)state;
	for (size_t piece = 1; piece <= sizeof(text); piece++) {
		struct tm_dump_head head = { 0 };
		size_t at = 0, taken = 0;
		int r = 0;

		while (r == 0 && at < sizeof(text) - 1) {
			const size_t left = sizeof(text) - 1 - at;

			r = tm_dump_head_feed(&head, text + at, left < piece ? left : piece,
					      123456789, &taken);
			at += taken;
		}
		assert_int_equal(r, 1);
		assert_true(head.done);
		assert_string_equal(head.text, "<?xml?>\n<superblock uuid=\"\" "
					       "nr_data_blocks=\"123456789\" flags=\"0\">");
		assert_int_equal(head.len, strlen(head.text));
		assert_string_equal(text + at, "\n  <device ");
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		struct tm_dump_head head = { 0 };
		size_t taken = 0;
		int r = 0;

		for (size_t k = 0; k < sizeof(head.text) && r == 0; k++)
			r = tm_dump_head_feed(&head, bad[i], strlen(bad[i]), 1, &taken);
		assert_int_equal(r, -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_pieces),
		cmocka_unit_test(grows),
		cmocka_unit_test(knows_what_is_not_whole),
		cmocka_unit_test(endless_tag),
		cmocka_unit_test(puts_the_head_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
