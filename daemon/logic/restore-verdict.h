/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * May a pool go back to a copy of its metadata? An administrator chose it, so losing blocks is no
 * reason against it; that is told. Against it are
 *
 *  1. a copy that is not sound itself, or has blocks of another size: always;
 *  2. unless it is forced, another transaction id than the recorded one: volumes were made or
 *     deleted since;
 *  3. unless it is forced, volumes that have something mapped now, or may have, and are not in it.
 */
#ifndef TM_LOGIC_RESTORE_VERDICT_H
#define TM_LOGIC_RESTORE_VERDICT_H

#include "logic/repair-verdict.h"

struct tm_restore_input {
	const struct tm_repair_verdict *compared; /* with .restore; what is there now is "before" */
	uint32_t block_bytes;
	uint64_t recorded_transaction, copy_transaction;
	bool force;
};

enum tm_restore_refusal {
	TM_RESTORE_ALLOWED,
	TM_RESTORE_UNSOUND,
	TM_RESTORE_TRANSACTION,
	TM_RESTORE_LOSES,
};

struct tm_restore_verdict {
	enum tm_restore_refusal refusal; /* the first rule against it */
	bool lossless;                   /* nothing is missing, by all that is known */
	char text[420]; /* for people: what of which volumes would be, or is, missing */
};

void tm_restore_judge(const struct tm_restore_input *in, struct tm_restore_verdict *ret);

#endif
