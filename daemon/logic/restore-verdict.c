// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/restore-verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"

/* Room for ", and 4294967295 more" after what was said. */
#define MORE_SIZE 32

/* Is it gone, with something that was mapped, or nobody knows that nothing was? */
static bool loses(const struct tm_verdict_line *l)
{
	if (l->fate != TM_FATE_LOST)
		return false;
	return l->before_blocks || l->evidence <= TM_EVIDENCE_LAST_KNOWN;
}

static void say_one(const struct tm_restore_input *in, const struct tm_verdict_line *l, char *buf,
		    size_t len)
{
	char lost[32], number[48];
	const char *who = l->name;

	if (!who) {
		(void)snprintf(number, sizeof(number), "unrecorded device %" PRIu32, l->dev_id);
		who = number;
	}
	(void)tm_size_format(tm_sat_mul(l->lost_blocks, in->block_bytes), lost, sizeof(lost));
	switch (l->fate) {
	case TM_FATE_LOST:
		if (l->before_blocks)
			(void)snprintf(buf, len, "%s is missing, with %s", who, lost);
		else
			(void)snprintf(buf, len, "%s is missing%s", who,
				       loses(l) ? ", with whatever it has" : ", which is empty");
		break;
	case TM_FATE_LOST_BLOCKS:
		(void)snprintf(buf, len, "%s lacks %s", who, lost);
		break;
	case TM_FATE_CHANGED:
		(void)snprintf(buf, len, "%s maps other blocks", who);
		break;
	case TM_FATE_INTACT:
	case TM_FATE_UNKNOWN:
		(void)snprintf(buf, len, "%s may lack something", who);
		break;
	}
}

/* Those that are gone first: a list that is cut off must not lack them. */
static bool in_turn(const struct tm_verdict_line *l, int turn)
{
	if (l->fate == TM_FATE_INTACT)
		return false;
	return turn == 0 ? loses(l) : !loses(l);
}

static void say_list(const struct tm_restore_input *in, char *buf, size_t len)
{
	const struct tm_repair_verdict *c = in->compared;
	size_t at = 0, told = 0, all = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < c->n_lines; i++)
		all += c->lines[i].fate != TM_FATE_INTACT;
	for (int turn = 0; turn < 2; turn++)
		for (size_t i = 0; i < c->n_lines; i++) {
			char one[256];

			if (!in_turn(&c->lines[i], turn))
				continue;
			say_one(in, &c->lines[i], one, sizeof(one));
			if (at + strlen(one) + 2 + MORE_SIZE >= len) {
				(void)snprintf(buf + at, len - at, "%s%zu more", at ? ", and " : "",
					       all - told);
				return;
			}
			at += (size_t)snprintf(buf + at, len - at, "%s%s", at ? ", " : "", one);
			told++;
		}
}

void tm_restore_judge(const struct tm_restore_input *in, struct tm_restore_verdict *ret)
{
	const struct tm_repair_verdict *c = in->compared;
	bool lost = false;
	char list[300];

	*ret = (struct tm_restore_verdict){ .lossless = true };
	for (size_t i = 0; i < c->n_lines; i++) {
		ret->lossless = ret->lossless && c->lines[i].fate == TM_FATE_INTACT;
		lost = lost || loses(&c->lines[i]);
	}
	if (c->refusal == TM_REFUSAL_UNSOUND || c->refusal == TM_REFUSAL_BLOCK_SIZE) {
		ret->refusal = TM_RESTORE_UNSOUND;
		(void)snprintf(ret->text, sizeof(ret->text), "%s",
			       c->refusal == TM_REFUSAL_UNSOUND
				       ? "it is damaged itself"
				       : "it is for blocks of another size");
		return;
	}
	say_list(in, list, sizeof(list));
	if (!in->force && in->copy_transaction != in->recorded_transaction) {
		ret->refusal = TM_RESTORE_TRANSACTION;
		(void)snprintf(ret->text, sizeof(ret->text),
			       "it is of transaction %" PRIu64 ", the pool is at %" PRIu64 "%s%s",
			       in->copy_transaction, in->recorded_transaction,
			       list[0] ? "; against what is mapped now, "
				       : "; nothing that is mapped now is missing",
			       list);
		return;
	}
	if (!in->force && lost)
		ret->refusal = TM_RESTORE_LOSES;
	(void)snprintf(ret->text, sizeof(ret->text), "%s%s",
		       list[0] ? "against what is mapped now, "
			       : "nothing that is mapped now is missing",
		       list);
}
