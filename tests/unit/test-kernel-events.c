// SPDX-License-Identifier: GPL-2.0-or-later
/* What our target remembers: taken apart, and what is made of it over several answers. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "logic/kernel-events.h"

#define U64MAX "18446744073709551615"

static void test_every_cause(void **state)
{
	static const struct {
		const char *text;
		struct tm_kernel_event event;
	} cases[] = {
		{ "data_low 251", { .cause = TM_CAUSE_DATA_LOW, .value = 251 } },
		{ "metadata_low 0", { .cause = TM_CAUSE_METADATA_LOW } },
		{ "mode rw", { .cause = TM_CAUSE_MODE, .mode = TM_MODE_WRITE } },
		{ "mode out_of_data_space",
		  { .cause = TM_CAUSE_MODE, .mode = TM_MODE_OUT_OF_DATA_SPACE } },
		{ "mode ro", { .cause = TM_CAUSE_MODE, .mode = TM_MODE_READ_ONLY } },
		{ "mode Fail", { .cause = TM_CAUSE_MODE, .mode = TM_MODE_FAIL } },
		{ "needs_check 1", { .cause = TM_CAUSE_NEEDS_CHECK, .value = 1 } },
		{ "no_space_timeout 0", { .cause = TM_CAUSE_NO_SPACE_TIMEOUT } },
		{ "data_grown " U64MAX, { .cause = TM_CAUSE_DATA_GROWN, .value = UINT64_MAX } },
		{ "metadata_grown 700", { .cause = TM_CAUSE_METADATA_GROWN, .value = 700 } },
		/* of a newer module */
		{ "mode frozen", { .cause = TM_CAUSE_OTHER } },
		{ "mode rw-ish", { .cause = TM_CAUSE_OTHER } },
		{ "data_lower 7", { .cause = TM_CAUSE_OTHER } },
		{ "data 7", { .cause = TM_CAUSE_OTHER } },
		{ "scrubbed 7 of 9, -1 left", { .cause = TM_CAUSE_OTHER } },
		{ "scrubbed ", { .cause = TM_CAUSE_OTHER } },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct tm_kernel_event *want = &cases[i].event;
		struct tm_kernel_events e;
		char text[128];

		(void)snprintf(text, sizeof(text), "42\n42 1790000000123456789 %s", cases[i].text);
		assert_int_equal(tm_kernel_events_parse(text, 41, &e), 0);
		assert_int_equal(e.newest, 42);
		assert_false(e.lost);
		assert_false(e.anew);
		assert_int_equal(e.n, 1);
		assert_int_equal(e.list[0].number, 42);
		assert_int_equal(e.list[0].time_ns, 1790000000123456789);
		assert_int_equal(e.list[0].cause, want->cause);
		assert_int_equal(e.list[0].value, want->value);
		assert_int_equal(e.list[0].mode, want->mode);
	}
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		uint64_t since;
		bool good, anew, lost;
		size_t n;
	} cases[] = {
		{ "0", 0, true, false, false, 0 },
		{ "0", 5, true, true, false, 0 },
		{ "4", 5, true, true, false, 0 },
		{ "5", 5, true, false, false, 0 },
		{ U64MAX, UINT64_MAX, true, false, false, 0 },
		{ "2\n1 9 mode rw\n2 9 mode ro", 0, true, false, false, 2 },
		{ "7\n6 9 mode rw\n7 9 mode ro", 5, true, false, false, 2 },
		{ "7\n6 9 mode rw\n7 8 mode ro", 2, true, false, true, 2 },
		/* more than was asked for, less, out of order, twice */
		{ "7\n6 9 mode rw\n7 9 mode ro", 6, false, 0, 0, 0 },
		{ "7\n6 9 mode rw\n7 9 mode ro", 7, false, 0, 0, 0 },
		{ "7\n6 9 mode rw\n7 9 mode ro", 8, false, 0, 0, 0 },
		{ "7", 6, false, 0, 0, 0 },
		{ "8\n7 9 mode rw", 6, false, 0, 0, 0 },
		{ "8\n6 9 mode rw\n8 9 mode ro", 5, false, 0, 0, 0 },
		{ "7\n7 9 mode rw\n6 9 mode ro", 5, false, 0, 0, 0 },
		{ "7\n7 9 mode rw\n7 9 mode ro", 5, false, 0, 0, 0 },
		{ "6\n6 9 mode rw\n7 9 mode ro", 5, false, 0, 0, 0 },
		{ "0\n0 9 mode rw", 0, false, 0, 0, 0 },
		{ "1\n" U64MAX " 9 mode rw\n0 9 mode rw\n1 9 mode rw", 0, false, 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_kernel_events e = { .newest = 77 };

		assert_int_equal(tm_kernel_events_parse(cases[i].text, cases[i].since, &e),
				 cases[i].good ? 0 : -EINVAL);
		if (!cases[i].good) {
			assert_int_equal(e.newest, 77);
			continue;
		}
		assert_int_equal(e.anew, cases[i].anew);
		assert_int_equal(e.lost, cases[i].lost);
		assert_int_equal(e.n, cases[i].n);
	}
}

static void test_damaged(void **state)
{
	static const char good[] = "7\n6 1790000000000000000 mode rw\n7 1790000000000000001 "
				   "data_low 12";
	static const char *const bad[] = {
		"",
		"\n",
		" 6",
		"6 ",
		"-6",
		"+6",
		"06",
		"6x",
		"6\n",
		"6\r\n6 9 mode rw",
		"18446744073709551616",
		"6\n\n6 9 mode rw",
		"6\n6 9 mode rw\n",
		"6\n6 9 mode rw ",
		"6\n6  9 mode rw",
		"6\n 6 9 mode rw",
		"6\n6 -9 mode rw",
		"6\n6 9 mode",
		"6\n6 9 mode ",
		"6\n6 9 mode rw 1",
		"6\n6 9",
		"6\n6",
		"6\n6 9  rw",
		"6\n6 9 data_low",
		"6\n6 9 data_low ",
		"6\n6 9 data_low x",
		"6\n6 9 data_low 1x",
		"6\n6 9 data_low 01",
		"6\n6 9 data_low -1",
		"6\n6 9 data_low 18446744073709551616",
		"6\n6 18446744073709551616 data_low 1",
		"6\n6 9 other",
		"6\n6 9 other a\tb",
		"6\n6 9 other \xc3\xa4",
		"6\n6 9 m\001de rw",
	};
	struct tm_kernel_events e;
	char cut[sizeof(good)];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++)
		assert_int_equal(tm_kernel_events_parse(bad[i], 5, &e), -EINVAL);
	assert_int_equal(tm_kernel_events_parse(good, 5, &e), 0);
	assert_int_equal(e.list[1].value, 12);
	for (size_t len = 0; len < sizeof(good) - 1; len++) {
		memcpy(cut, good, len);
		cut[len] = '\0';
		/* Of a number that is cut within its digits nobody can tell. */
		assert_int_equal(tm_kernel_events_parse(cut, 5, &e),
				 len == sizeof(good) - 2 ? 0 : -EINVAL);
	}
}

/* A target that keeps more than is kept here: the newest count. */
static void test_more_than_fit(void **state)
{
	char text[8192];
	struct tm_kernel_events e;

	(void)state;
	for (unsigned int n = TM_KERNEL_EVENTS_MAX - 1; n <= TM_KERNEL_EVENTS_MAX + 9; n++) {
		int at = snprintf(text, sizeof(text), "%u", n);
		const size_t keep = n < TM_KERNEL_EVENTS_MAX ? n : TM_KERNEL_EVENTS_MAX;

		for (unsigned int i = 1; i <= n; i++)
			at += snprintf(text + at, sizeof(text) - (size_t)at, "\n%u 5 data_low %u",
				       i, i);
		assert_int_equal(tm_kernel_events_parse(text, 0, &e), 0);
		assert_int_equal(e.newest, n);
		assert_int_equal(e.n, keep);
		assert_int_equal(e.lost, n > TM_KERNEL_EVENTS_MAX);
		for (size_t i = 0; i < keep; i++)
			assert_int_equal(e.list[i].number, n - keep + 1 + i);
	}
}

/* ---- over several answers ------------------------------------------------------------------- */

#define OUT   (1U << TM_MODE_OUT_OF_DATA_SPACE)
#define WRITE (1U << TM_MODE_WRITE)

static struct tm_kernel_news follow(struct tm_kernel_ring *ring, const char *text,
				    unsigned int seen)
{
	struct tm_kernel_events e;
	struct tm_kernel_news news;

	if (tm_kernel_events_parse(text, ring->since, &e) < 0)
		fail_msg("not a good answer: %s", text);
	tm_kernel_ring_follow(ring, &e, seen, &news);
	return news;
}

static void assert_spell(const struct tm_kernel_spell *s, enum tm_pool_mode before,
			 enum tm_pool_mode mode, uint64_t began_ns, uint64_t ended_ns)
{
	assert_int_equal(s->before, before);
	assert_int_equal(s->mode, mode);
	assert_int_equal(s->began_ns, began_ns);
	assert_int_equal(s->ended_ns, ended_ns);
}

static void test_unseen_spell(void **state)
{
	struct tm_kernel_ring ring = { .floor_ns = 100 };
	struct tm_kernel_news news;

	(void)state;
	/* What lies before is nobody's news, also where it ends later. */
	news = follow(&ring,
		      "3\n1 10 mode rw\n2 20 mode out_of_data_space\n3 30 no_space_timeout 0",
		      WRITE);
	assert_int_equal(news.n_spells, 0);
	news = follow(&ring, "4\n4 110 mode rw", WRITE);
	assert_int_equal(news.n_spells, 0);

	news = follow(&ring, "6\n5 200 mode out_of_data_space\n6 300 mode rw", WRITE);
	assert_int_equal(news.n_spells, 1);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, 200, 300);
	assert_false(news.spells[0].timed_out);
	news = follow(&ring, "6", WRITE);
	assert_int_equal(news.n_spells, 0);

	/* It begins before one answer and ends before the next. */
	news = follow(&ring, "7\n7 400 mode out_of_data_space", WRITE);
	assert_int_equal(news.n_spells, 0);
	news = follow(&ring, "9\n8 450 no_space_timeout 0\n9 500 mode rw", WRITE);
	assert_int_equal(news.n_spells, 1);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, 400, 500);
	assert_true(news.spells[0].timed_out);

	/* Several, one into the other. */
	news = follow(&ring,
		      "14\n10 600 mode out_of_data_space\n11 610 mode ro\n12 620 mode rw\n"
		      "13 630 mode out_of_data_space\n14 640 mode rw",
		      WRITE);
	assert_int_equal(news.n_spells, 3);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, 600, 610);
	assert_spell(&news.spells[1], TM_MODE_OUT_OF_DATA_SPACE, TM_MODE_READ_ONLY, 610, 620);
	assert_spell(&news.spells[2], TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, 630, 640);
	assert_false(news.spells[0].timed_out);
}

/* What a status line showed is told by it. */
static void test_seen_spell(void **state)
{
	struct tm_kernel_ring ring = { 0 };
	struct tm_kernel_news news;

	(void)state;
	/* It still lasts; and its end is no news. */
	news = follow(&ring, "2\n1 10 mode rw\n2 20 mode out_of_data_space", OUT);
	assert_int_equal(news.n_spells, 0);
	news = follow(&ring, "3\n3 30 mode rw", WRITE);
	assert_int_equal(news.n_spells, 0);

	/* Found, and ended by the same look: one before it was not found. */
	news = follow(&ring,
		      "7\n4 40 mode out_of_data_space\n5 50 mode rw\n"
		      "6 60 mode out_of_data_space\n7 70 mode rw",
		      OUT | WRITE);
	assert_int_equal(news.n_spells, 1);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, 40, 50);

	/* Another mode than was seen. */
	news = follow(&ring, "9\n8 80 mode ro\n9 90 mode rw", OUT | WRITE);
	assert_int_equal(news.n_spells, 1);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_READ_ONLY, 80, 90);
}

static void test_ring_is_short(void **state)
{
	struct tm_kernel_ring ring = { 0 };
	struct tm_kernel_news news;

	(void)state;
	news = follow(&ring, "3\n1 10 mode rw\n2 15 data_low 7\n3 20 mode out_of_data_space",
		      WRITE);
	assert_int_equal(news.n_spells, 0);
	/* Nobody knows when what was left ended, nor what space was low. */
	news = follow(&ring,
		      "104\n100 110 data_grown 9\n101 120 mode ro\n102 130 mode rw\n"
		      "103 140 data_low 1\n104 3140 data_grown 10",
		      WRITE);
	assert_int_equal(news.n_spells, 1);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_READ_ONLY, 120, 130);
	assert_int_equal(news.data.blocks, 10);
	assert_int_equal(news.data.low_usec, 3);
}

/* The pool was taken down and up again between two answers. */
static void test_anew(void **state)
{
	struct tm_kernel_ring ring = { .floor_ns = 5 };
	struct tm_kernel_news news;

	(void)state;
	(void)follow(&ring, "3\n1 10 mode rw\n2 15 data_low 7\n3 20 mode out_of_data_space", OUT);
	news = follow(&ring, "2", WRITE);
	assert_int_equal(news.n_spells, 0);
	assert_int_equal(ring.since, 0);
	news = follow(&ring,
		      "4\n1 50 mode rw\n2 60 data_grown 9\n3 70 mode out_of_data_space\n"
		      "4 80 mode rw",
		      WRITE);
	assert_int_equal(news.data.blocks, 9);
	assert_int_equal(news.data.low_usec, 0);
	assert_int_equal(news.n_spells, 1);
	assert_spell(&news.spells[0], TM_MODE_WRITE, TM_MODE_OUT_OF_DATA_SPACE, 70, 80);
	assert_int_equal(ring.since, 4);
}

static void test_growth(void **state)
{
	struct tm_kernel_ring ring = { .floor_ns = 1000 };
	struct tm_kernel_news news;

	(void)state;
	news = follow(&ring, "2\n1 10 data_low 7\n2 20 metadata_low 7", WRITE);
	assert_int_equal(news.data.blocks, 0);
	news = follow(&ring, "4\n3 5000 data_grown 100\n4 6000 metadata_grown 200", WRITE);
	assert_int_equal(news.data.blocks, 100);
	assert_int_equal(news.data.low_usec, 0); /* it was low before */
	assert_int_equal(news.metadata.blocks, 200);
	assert_int_equal(news.metadata.low_usec, 0);

	/* Each space has its own, and a second growth is no answer to what was said once. */
	(void)follow(&ring, "5\n5 10000 data_low 7", WRITE);
	news = follow(&ring, "7\n6 20000 metadata_low 7\n7 52000 data_grown 101", WRITE);
	assert_int_equal(news.data.blocks, 101);
	assert_int_equal(news.data.low_usec, 42);
	assert_int_equal(news.metadata.blocks, 0);
	news = follow(&ring, "9\n8 53000 data_grown 102\n9 55000 metadata_grown 201", WRITE);
	assert_int_equal(news.data.blocks, 102);
	assert_int_equal(news.data.low_usec, 0);
	assert_int_equal(news.metadata.low_usec, 35);

	/* The last time it was said counts; a clock set back says nothing. */
	news = follow(&ring,
		      "12\n10 60000 data_low 7\n11 70000 data_low 7\n12 71000 data_grown 103",
		      WRITE);
	assert_int_equal(news.data.low_usec, 1);
	news = follow(&ring, "14\n13 80000 data_low 7\n14 79000 data_grown 104", WRITE);
	assert_int_equal(news.data.blocks, 104);
	assert_int_equal(news.data.low_usec, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cause),   cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_damaged),       cmocka_unit_test(test_more_than_fit),
		cmocka_unit_test(test_unseen_spell),  cmocka_unit_test(test_seen_spell),
		cmocka_unit_test(test_ring_is_short), cmocka_unit_test(test_anew),
		cmocka_unit_test(test_growth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
