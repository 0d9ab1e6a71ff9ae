/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pool's mode machine as the kernel module has it: every combination of mode, what is asked
 * for, needs_check, space and event is in the table below, and in one row of it only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../kernel/pure/mode.h"
#include "common/cleanup.h"

/* Sets of what a row is about. */
#define W    (1 << DTM_WRITE)
#define O    (1 << DTM_OUT_OF_DATA_SPACE)
#define R    (1 << DTM_READ_ONLY)
#define F    (1 << DTM_FAIL)
#define NO   1
#define YES  2
#define ANY  3
#define RW   1 /* asked for by the table */
#define RO   2
#define SAME DTM_N_MODES

#define ABORT   DTM_DO_ABORT
#define CHECK   DTM_DO_NEEDS_CHECK
#define ERROR   DTM_DO_ERROR_QUEUED
#define RETRY   DTM_DO_RETRY_QUEUED
#define STOP    DTM_DO_STOP_TIMEOUT
#define TELL    DTM_DO_EVENT
#define NOTHING 0u

struct row {
	enum dtm_event event;
	unsigned int modes, requested, needs_check, data_free, metadata_free, error_if_no_space;
	enum dtm_mode mode;
	unsigned int todo;
	bool refused;
};

static const struct row rows[] = {
	/* event            mode      table needs data  meta  error      mode, what to do */
	/* A table is bound: read-only is always to be had, but by one that failed. */
	{ DTM_EV_BIND, F, ANY, ANY, ANY, ANY, ANY, DTM_FAIL, NOTHING, true },
	{ DTM_EV_BIND, W, RO, ANY, ANY, ANY, ANY, DTM_READ_ONLY, ERROR | TELL, false },
	{ DTM_EV_BIND, O, RO, ANY, ANY, ANY, ANY, DTM_READ_ONLY, ERROR | STOP | TELL, false },
	{ DTM_EV_BIND, R, RO, ANY, ANY, ANY, ANY, DTM_READ_ONLY, NOTHING, false },
	/* With needs_check there is no way to write mode, whatever space there is. */
	{ DTM_EV_BIND, W, RW, YES, ANY, ANY, ANY, DTM_READ_ONLY, ERROR | TELL, true },
	{ DTM_EV_BIND, O, RW, YES, ANY, ANY, ANY, DTM_READ_ONLY, ERROR | STOP | TELL, true },
	{ DTM_EV_BIND, R, RW, YES, ANY, ANY, ANY, DTM_READ_ONLY, NOTHING, true },
	/* Without it, it depends on data space. */
	{ DTM_EV_BIND, W, RW, NO, YES, ANY, ANY, DTM_WRITE, NOTHING, false },
	{ DTM_EV_BIND, O, RW, NO, YES, ANY, ANY, DTM_WRITE, RETRY | STOP | TELL, false },
	{ DTM_EV_BIND, R, RW, NO, YES, ANY, ANY, DTM_WRITE, RETRY | TELL, false },
	{ DTM_EV_BIND, W | R, RW, NO, NO, ANY, NO, DTM_OUT_OF_DATA_SPACE, TELL, false },
	{ DTM_EV_BIND, O, RW, NO, NO, ANY, NO, DTM_OUT_OF_DATA_SPACE, NOTHING, false },
	{ DTM_EV_BIND, W | R, RW, NO, NO, ANY, YES, DTM_OUT_OF_DATA_SPACE, ERROR | TELL, false },
	{ DTM_EV_BIND, O, RW, NO, NO, ANY, YES, DTM_OUT_OF_DATA_SPACE, ERROR | STOP, false },

	/* A resume with the table there was changes no mode by itself. */
	{ DTM_EV_RESUME, W | O | R | F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },

	/* Data ran out: a level, so what was freed meanwhile counts. Aborts nothing. */
	{ DTM_EV_DATA_EXHAUSTED, W, ANY, ANY, NO, ANY, NO, DTM_OUT_OF_DATA_SPACE, TELL, false },
	{ DTM_EV_DATA_EXHAUSTED, W, ANY, ANY, NO, ANY, YES, DTM_OUT_OF_DATA_SPACE, ERROR | TELL,
	  false },
	{ DTM_EV_DATA_EXHAUSTED, W, ANY, ANY, YES, ANY, ANY, SAME, NOTHING, false },
	{ DTM_EV_DATA_EXHAUSTED, O | R | F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },

	/* Data came back. */
	{ DTM_EV_DATA_FREED, O, ANY, NO, YES, ANY, ANY, DTM_WRITE, RETRY | STOP | TELL, false },
	{ DTM_EV_DATA_FREED, O, ANY, NO, NO, ANY, ANY, SAME, NOTHING, false },
	{ DTM_EV_DATA_FREED, O, ANY, YES, ANY, ANY, ANY, SAME, NOTHING, false },
	{ DTM_EV_DATA_FREED, W | R | F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },

	/* Waiting took too long. */
	{ DTM_EV_NO_SPACE_TIMEOUT, O, ANY, ANY, ANY, ANY, ANY, SAME, ERROR | TELL, false },
	{ DTM_EV_NO_SPACE_TIMEOUT, W | R | F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },

	/* Metadata ran out: like any other failure of it, where it could change. */
	{ DTM_EV_METADATA_EXHAUSTED, W, ANY, NO, ANY, NO, ANY, DTM_READ_ONLY,
	  ABORT | CHECK | ERROR | TELL, false },
	{ DTM_EV_METADATA_EXHAUSTED, W, ANY, YES, ANY, NO, ANY, DTM_READ_ONLY, ABORT | ERROR | TELL,
	  false },
	{ DTM_EV_METADATA_EXHAUSTED, O, ANY, NO, ANY, NO, ANY, DTM_READ_ONLY,
	  ABORT | CHECK | ERROR | STOP | TELL, false },
	{ DTM_EV_METADATA_EXHAUSTED, O, ANY, YES, ANY, NO, ANY, DTM_READ_ONLY,
	  ABORT | ERROR | STOP | TELL, false },
	{ DTM_EV_METADATA_EXHAUSTED, W | O, ANY, ANY, ANY, YES, ANY, SAME, NOTHING, false },
	{ DTM_EV_METADATA_EXHAUSTED, R | F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },

	/* An operation on metadata failed: a read may fail in read-only mode, too. */
	{ DTM_EV_METADATA_FAILED, W, ANY, NO, ANY, ANY, ANY, DTM_READ_ONLY,
	  ABORT | CHECK | ERROR | TELL, false },
	{ DTM_EV_METADATA_FAILED, W, ANY, YES, ANY, ANY, ANY, DTM_READ_ONLY, ABORT | ERROR | TELL,
	  false },
	{ DTM_EV_METADATA_FAILED, O, ANY, NO, ANY, ANY, ANY, DTM_READ_ONLY,
	  ABORT | CHECK | ERROR | STOP | TELL, false },
	{ DTM_EV_METADATA_FAILED, O, ANY, YES, ANY, ANY, ANY, DTM_READ_ONLY,
	  ABORT | ERROR | STOP | TELL, false },
	{ DTM_EV_METADATA_FAILED, R, ANY, NO, ANY, ANY, ANY, DTM_READ_ONLY, CHECK | ERROR | TELL,
	  false },
	{ DTM_EV_METADATA_FAILED, R, ANY, YES, ANY, ANY, ANY, DTM_READ_ONLY, ERROR, false },
	{ DTM_EV_METADATA_FAILED, F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },

	/* The end. */
	{ DTM_EV_ABORT_FAILED, W | R, ANY, ANY, ANY, ANY, ANY, DTM_FAIL, ERROR | TELL, false },
	{ DTM_EV_ABORT_FAILED, O, ANY, ANY, ANY, ANY, ANY, DTM_FAIL, ERROR | STOP | TELL, false },
	{ DTM_EV_ABORT_FAILED, F, ANY, ANY, ANY, ANY, ANY, SAME, NOTHING, false },
};

static bool within(unsigned int set, bool value)
{
	return set & (value ? YES : NO);
}

static bool matches(const struct row *row, const struct dtm_mode_in *in)
{
	return row->event == in->event && (row->modes & (1u << in->mode)) &&
	       (row->requested & (in->requested == DTM_WRITE ? RW : RO)) &&
	       within(row->needs_check, in->needs_check) && within(row->data_free, in->data_free) &&
	       within(row->metadata_free, in->metadata_free) &&
	       within(row->error_if_no_space, in->error_if_no_space);
}

static void every_combination(void **state)
{
	unsigned int n = 0;

	(void)state;
	for (unsigned int c = 0; c < DTM_N_EVENTS * DTM_N_MODES * 32; c++) {
		const struct dtm_mode_in in = {
			.needs_check = c & 1,
			.data_free = c & 2,
			.metadata_free = c & 4,
			.error_if_no_space = c & 8,
			.requested = c & 16 ? DTM_READ_ONLY : DTM_WRITE,
			.mode = (c >> 5) % DTM_N_MODES,
			.event = (c >> 5) / DTM_N_MODES,
		};
		const struct dtm_mode_out out = dtm_mode_next(&in);
		const struct row *row = NULL;

		for (size_t i = 0; i < TM_ARRAY_SIZE(rows); i++) {
			if (!matches(&rows[i], &in))
				continue;
			assert_null(row); /* in one row only */
			row = &rows[i];
		}
		assert_non_null(row);
		if (out.mode != (row->mode == SAME ? in.mode : row->mode) ||
		    out.todo != row->todo || out.refused != row->refused)
			fail_msg("event %d, mode %d, table %d, needs_check %d, data %d, metadata "
				 "%d, error %d: mode %d, todo %#x, refused %d",
				 in.event, in.mode, in.requested, in.needs_check, in.data_free,
				 in.metadata_free, in.error_if_no_space, out.mode, out.todo,
				 out.refused);
		n++;
	}
	assert_int_equal(n, 1024);
}

/* What must hold whatever the table above says. */
static void laws(void **state)
{
	(void)state;
	for (unsigned int c = 0; c < DTM_N_EVENTS * DTM_N_MODES * 32; c++) {
		struct dtm_mode_in in = {
			.needs_check = c & 1,
			.data_free = c & 2,
			.metadata_free = c & 4,
			.error_if_no_space = c & 8,
			.requested = c & 16 ? DTM_READ_ONLY : DTM_WRITE,
			.mode = (c >> 5) % DTM_N_MODES,
			.event = (c >> 5) / DTM_N_MODES,
		};
		const struct dtm_mode_out out = dtm_mode_next(&in);

		/* A change of mode is always told, and needs_check as well. */
		if (out.mode != in.mode || (out.todo & DTM_DO_NEEDS_CHECK))
			assert_true(out.todo & DTM_DO_EVENT);
		/* Nothing comes back from fail, and nothing from needs_check to write. */
		if (in.mode == DTM_FAIL)
			assert_int_equal(out.mode, DTM_FAIL);
		if (in.needs_check && in.mode == DTM_READ_ONLY)
			assert_true(out.mode >= DTM_READ_ONLY);
		/* After an abort nothing may be tried again. */
		if (out.todo & DTM_DO_ABORT)
			assert_false(out.todo & DTM_DO_RETRY_QUEUED);
		/* Once is enough: the same event again does not abort or tell again. */
		if (in.event != DTM_EV_NO_SPACE_TIMEOUT) {
			struct dtm_mode_out again;

			in.mode = out.mode;
			in.needs_check = in.needs_check || (out.todo & DTM_DO_NEEDS_CHECK);
			again = dtm_mode_next(&in);
			assert_int_equal(again.mode, out.mode);
			assert_false(again.todo & (DTM_DO_ABORT | DTM_DO_EVENT));
		}
	}
}

static void what_modes_allow(void **state)
{
	static const struct {
		enum dtm_mode mode;
		const char *text;
		bool change;
	} modes[] = {
		{ DTM_WRITE, "rw", true },
		{ DTM_OUT_OF_DATA_SPACE, "out_of_data_space", true },
		{ DTM_READ_ONLY, "ro", false },
		{ DTM_FAIL, "Fail", false },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(modes); i++) {
		const enum dtm_mode mode = modes[i].mode;

		assert_string_equal(dtm_mode_text(mode), modes[i].text);
		assert_int_equal(dtm_mode_may_change(mode), modes[i].change);
		assert_int_equal(dtm_mode_may_grow(mode, false), modes[i].change);
		assert_false(dtm_mode_may_grow(mode, true));
		for (unsigned int c = 0; c < 8; c++)
			assert_int_equal(dtm_mode_may_queue(mode, c & 1, c & 2, c & 4),
					 modes[i].change && c == 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_combination),
		cmocka_unit_test(laws),
		cmocka_unit_test(what_modes_allow),
	};

	return cmocka_run_group_tests_name("kernel-mode", tests, NULL, NULL);
}
