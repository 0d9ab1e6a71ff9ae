// SPDX-License-Identifier: GPL-2.0-or-later
/* Which copies of metadata a pool goes back to, and what is said of what they lack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/name.h"
#include "common/units.h"
#include "logic/restore-verdict.h"

#define N 3

struct wanted {
	struct tm_verdict_line lines[N];
	enum tm_refusal unsound;
	uint64_t recorded, copy;
	enum tm_restore_refusal refusal, forced; /* without force, and with it */
	bool lossless;
	const char *says;
};

#define INTACT(what)                                                                    \
	{                                                                               \
		.name = (what), .fate = TM_FATE_INTACT, .evidence = TM_EVIDENCE_COUNTED \
	}
#define LOST(what, blocks, known)                                          \
	{                                                                  \
		.name = (what), .fate = TM_FATE_LOST, .evidence = (known), \
		.before_blocks = (blocks), .lost_blocks = (blocks)         \
	}

static const struct wanted table[] = {
	/* The pool has not moved since. */
	{ { INTACT("one"), INTACT("two") }, 0, 5, 5, 0, 0, true, "nothing that is mapped now is" },
	/* Blocks are the administrator's choice. */
	{ { INTACT("one"),
	    { .name = "two",
	      .fate = TM_FATE_LOST_BLOCKS,
	      .before_blocks = 40,
	      .after_blocks = 24,
	      .lost_blocks = 16 },
	    { .name = "three", .fate = TM_FATE_CHANGED } },
	  0,
	  5,
	  5,
	  0,
	  0,
	  false,
	  "against what is mapped now, two lacks 1 MiB, three maps other blocks" },
	{ { { .name = "one", .fate = TM_FATE_UNKNOWN } },
	  0,
	  5,
	  5,
	  0,
	  0,
	  false,
	  "one may lack something" },
	/* Whole volumes have to be meant; those first that are mapped. */
	{ { { .name = "one", .fate = TM_FATE_LOST_BLOCKS, .lost_blocks = 16 },
	    LOST("two", 32, TM_EVIDENCE_COUNTED) },
	  0,
	  5,
	  5,
	  TM_RESTORE_LOSES,
	  0,
	  false,
	  "now, two is missing, with 2 MiB, one lacks 1 MiB" },
	{ { LOST(NULL, 16, TM_EVIDENCE_COUNTED) },
	  0,
	  5,
	  5,
	  TM_RESTORE_LOSES,
	  0,
	  false,
	  "unrecorded device 0 is missing, with 1 MiB" },
	/* Of nothing there is nothing to lose; unless nobody knows. */
	{ { LOST("one", 0, TM_EVIDENCE_COUNTED) },
	  0,
	  5,
	  5,
	  0,
	  0,
	  false,
	  "one is missing, which is empty" },
	{ { LOST("one", 0, TM_EVIDENCE_DETAILS) }, 0, 5, 5, 0, 0, false, "which is empty" },
	{ { LOST("one", 0, TM_EVIDENCE_LAST_KNOWN) },
	  0,
	  5,
	  5,
	  TM_RESTORE_LOSES,
	  0,
	  false,
	  "one is missing, with whatever it has" },
	{ { LOST("one", 0, TM_EVIDENCE_NONE) }, 0, 5, 5, TM_RESTORE_LOSES, 0, false, "whatever" },
	/* Another transaction, to either side. */
	{ { INTACT("one") },
	  0,
	  7,
	  5,
	  TM_RESTORE_TRANSACTION,
	  0,
	  true,
	  "it is of transaction 5, the pool is at 7; nothing that is mapped now is missing" },
	{ { LOST("one", 16, TM_EVIDENCE_COUNTED) },
	  0,
	  5,
	  7,
	  TM_RESTORE_TRANSACTION,
	  0,
	  false,
	  "it is of transaction 7, the pool is at 5; against what is mapped now, one is missing" },
	/* What cannot be used cannot be forced either. */
	{ { INTACT("one") },
	  TM_REFUSAL_UNSOUND,
	  7,
	  5,
	  TM_RESTORE_UNSOUND,
	  TM_RESTORE_UNSOUND,
	  true,
	  "damaged itself" },
	{ { INTACT("one") },
	  TM_REFUSAL_BLOCK_SIZE,
	  5,
	  5,
	  TM_RESTORE_UNSOUND,
	  TM_RESTORE_UNSOUND,
	  true,
	  "blocks of another size" },
	/* What refuses the result of a repair does not refuse a copy. */
	{ { { .name = "one", .fate = TM_FATE_LOST_BLOCKS, .lost_blocks = 16 } },
	  TM_REFUSAL_TOO_MUCH,
	  5,
	  5,
	  0,
	  0,
	  false,
	  "one lacks 1 MiB" },
};

static size_t lines_of(const struct wanted *w)
{
	size_t n = 0;

	while (n < N && (w->lines[n].name || w->lines[n].fate != TM_FATE_INTACT))
		n++;
	return n;
}

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(table); i++) {
		const struct wanted *w = &table[i];
		struct tm_verdict_line lines[N];
		struct tm_repair_verdict compared = { .refusal = w->unsound, .lines = lines };
		struct tm_restore_input in = { .compared = &compared,
					       .block_bytes = 64 * TM_KIB,
					       .recorded_transaction = w->recorded,
					       .copy_transaction = w->copy };
		struct tm_restore_verdict got;

		memcpy(lines, w->lines, sizeof(lines));
		compared.n_lines = lines_of(w);
		tm_restore_judge(&in, &got);
		if (got.refusal != w->refusal || got.lossless != w->lossless ||
		    !strstr(got.text, w->says))
			fail_msg("case %zu: %d, %d, %s", i, got.refusal, got.lossless, got.text);
		in.force = true;
		tm_restore_judge(&in, &got);
		if (got.refusal != w->forced || got.lossless != w->lossless)
			fail_msg("case %zu, forced: %d, %s", i, got.refusal, got.text);
	}
}

/* However many there are, the text has an end, and says how many it does not name. */
static void test_many(void **state)
{
	struct tm_verdict_line *lines = calloc(500, sizeof(*lines));
	struct tm_repair_verdict compared = { .lines = lines, .n_lines = 500 };
	struct tm_restore_verdict got;
	char name[TM_NAME_MAX + 1];

	(void)state;
	assert_non_null(lines);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (size_t i = 0; i < 500; i++)
		lines[i] = (struct tm_verdict_line){ .name = name,
						     .fate = TM_FATE_LOST_BLOCKS,
						     .lost_blocks = 16 };
	lines[499] = (struct tm_verdict_line)LOST("last", 16, TM_EVIDENCE_COUNTED);
	tm_restore_judge(
		&(struct tm_restore_input){ .compared = &compared, .block_bytes = 64 * TM_KIB },
		&got);
	assert_int_equal(got.refusal, TM_RESTORE_LOSES);
	assert_non_null(strstr(got.text, "now, last is missing, with 1 MiB, xxx"));
	assert_string_equal(got.text + strlen(got.text) - strlen(", and 496 more"),
			    ", and 496 more");
	free(lines);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
