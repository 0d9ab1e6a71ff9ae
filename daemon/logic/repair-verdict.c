// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/repair-verdict.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/units.h"

const char *tm_verdict_name(enum tm_verdict verdict)
{
	static const char *const names[] = {
		[TM_VERDICT_ACCEPT] = "accept",
		[TM_VERDICT_ACCEPT_LOSSES] = "accept_losses",
		[TM_VERDICT_REFUSE] = "refuse",
	};

	return (size_t)verdict < TM_ARRAY_SIZE(names) ? names[verdict] : "refuse";
}

const char *tm_fate_name(enum tm_fate fate)
{
	static const char *const names[] = {
		[TM_FATE_INTACT] = "intact",   [TM_FATE_LOST_BLOCKS] = "lost_blocks",
		[TM_FATE_LOST] = "lost",       [TM_FATE_CHANGED] = "changed",
		[TM_FATE_UNKNOWN] = "unknown",
	};

	return (size_t)fate < TM_ARRAY_SIZE(names) ? names[fate] : "unknown";
}

/* Blocks as a size; into the caller's buffer. */
struct size_text {
	char s[32];
};

static const char *size_of(const struct tm_verdict_input *in, uint64_t blocks, struct size_text *t)
{
	return tm_size_format(tm_sat_mul(blocks, in->block_bytes), t->s, sizeof(t->s));
}

/* Is every device that was there known? */
static bool lists_all(const struct tm_survey *s)
{
	return !s->superblock_error && s->mappings.readable && !s->mappings.bad_nodes &&
	       !s->truncated;
}

static bool counted_exactly(const struct tm_survey_device *d)
{
	return d->root_found && !d->bad_nodes && !d->bad_mappings;
}

/* ---- one volume -------------------------------------------------------------------------- */

static void weigh_evidence(const struct tm_verdict_input *in, const struct tm_verdict_volume *v,
			   const struct tm_survey_device *before, struct tm_verdict_line *l)
{
	uint64_t readable = before ? before->mapped : 0;

	if (before && counted_exactly(before)) {
		l->evidence = TM_EVIDENCE_COUNTED;
		l->before_blocks = readable;
	} else if (before && before->details_found) {
		l->evidence = TM_EVIDENCE_DETAILS;
		l->before_blocks = before->details_mapped;
	} else if (!before && lists_all(in->before)) {
		l->evidence = TM_EVIDENCE_COUNTED;
	} else if (v && v->last_known) {
		l->evidence = TM_EVIDENCE_LAST_KNOWN;
		l->before_blocks = v->last_mapped_bytes / in->block_bytes;
	} else if (before) {
		l->evidence = TM_EVIDENCE_PART;
	} else if (v && v->copied) {
		l->evidence = TM_EVIDENCE_COPY;
		l->before_blocks = v->copied_bytes / in->block_bytes;
	}
	if (l->before_blocks < readable)
		l->before_blocks = readable;
}

/* What is there: is it what could be read, as far as that can be told from digests? */
static bool changed(const struct tm_survey_device *before, const struct tm_survey_device *after,
		    const struct tm_verdict_line *l)
{
	if (!before)
		return l->evidence == TM_EVIDENCE_COUNTED; /* it was not there */
	if (!before->root_found)
		return false;
	if (after->mapped == before->mapped)
		return after->digest != before->digest;
	return counted_exactly(before) && after->mapped > before->mapped;
}

static enum tm_fate fate_of(const struct tm_survey_device *before,
			    const struct tm_survey_device *after, const struct tm_verdict_line *l)
{
	if (!after)
		return TM_FATE_LOST;
	if (changed(before, after, l))
		return TM_FATE_CHANGED;
	if (l->after_blocks < l->before_blocks)
		return TM_FATE_LOST_BLOCKS;
	switch (l->evidence) {
	case TM_EVIDENCE_NONE:
	case TM_EVIDENCE_COPY:
	case TM_EVIDENCE_PART:
		return TM_FATE_UNKNOWN;
	case TM_EVIDENCE_DETAILS:
		/* More than the metadata itself knew of: nobody can say what that is. */
		return l->after_blocks > l->before_blocks ? TM_FATE_UNKNOWN : TM_FATE_INTACT;
	case TM_EVIDENCE_LAST_KNOWN:
	case TM_EVIDENCE_COUNTED:
		break;
	}
	return TM_FATE_INTACT;
}

/* What could be read is not there any more, or not as it was. */
static bool unexplained(const struct tm_survey_device *before, const struct tm_survey_device *after,
			const struct tm_verdict_line *l)
{
	if (l->fate == TM_FATE_CHANGED)
		return true;
	if (!before || !before->root_found)
		return false;
	if (l->after_blocks < before->mapped)
		return true;
	return !after && counted_exactly(before); /* it was empty, but it was there */
}

static const char *known_how(enum tm_evidence evidence)
{
	switch (evidence) {
	case TM_EVIDENCE_LAST_KNOWN:
		return " that it was last known to have";
	case TM_EVIDENCE_PART:
		return " that could be read, and what could not";
	case TM_EVIDENCE_COPY:
		return " that it has in the newest safety copy";
	case TM_EVIDENCE_NONE:
	case TM_EVIDENCE_DETAILS:
	case TM_EVIDENCE_COUNTED:
		break;
	}
	return " that it had";
}

static const char *before_what(const struct tm_verdict_input *in)
{
	return in->restore ? "before" : "before the repair";
}

static void say_line(const struct tm_verdict_input *in, const struct tm_verdict_volume *v,
		     const struct tm_survey_device *before, struct tm_verdict_line *l)
{
	struct size_text had, has, lost, size, readable;
	char who[160], why[96] = "";
	int n = 0;

	(void)size_of(in, l->before_blocks, &had);
	(void)size_of(in, l->after_blocks, &has);
	(void)size_of(in, l->lost_blocks, &lost);
	(void)size_of(in, before ? before->mapped : 0, &readable);
	if (v)
		(void)snprintf(who, sizeof(who), "volume \"%s\" (%s)", v->name,
			       tm_size_format(v->size_bytes, size.s, sizeof(size.s)));
	else
		(void)snprintf(who, sizeof(who), "device %" PRIu32 ", which no record knows",
			       l->dev_id);
	if (l->unexplained && l->fate != TM_FATE_CHANGED)
		(void)snprintf(why, sizeof(why), ", although %s could be read %s", readable.s,
			       before_what(in));
	switch (l->fate) {
	case TM_FATE_INTACT:
		if (l->evidence == TM_EVIDENCE_LAST_KNOWN)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: %s mapped, no less than the %s it was last known to have",
				     who, has.s, had.s);
		else
			n = snprintf(l->text, sizeof(l->text), "%s: intact, %s mapped", who, has.s);
		break;
	case TM_FATE_LOST_BLOCKS:
		n = snprintf(l->text, sizeof(l->text),
			     "%s: lost %s (%" PRIu64 " of %" PRIu64 " blocks) of the %s%s%s", who,
			     lost.s, l->lost_blocks, l->before_blocks, had.s,
			     known_how(l->evidence), why);
		break;
	case TM_FATE_LOST:
		if (l->evidence == TM_EVIDENCE_COUNTED && !before)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: is missing; it was not there %s either", who,
				     before_what(in));
		else if (l->evidence >= TM_EVIDENCE_LAST_KNOWN && !l->before_blocks)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: gone, but nothing of it was mapped", who);
		else if (l->evidence == TM_EVIDENCE_NONE ||
			 (l->evidence <= TM_EVIDENCE_PART && !l->before_blocks))
			n = snprintf(l->text, sizeof(l->text),
				     "%s: gone; how much of it was mapped is not known", who);
		else
			n = snprintf(l->text, sizeof(l->text),
				     "%s: gone, with the %s (%" PRIu64 " blocks)%s%s", who, had.s,
				     l->before_blocks, known_how(l->evidence), why);
		break;
	case TM_FATE_CHANGED:
		if (!before)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: has come up with %s mapped, but was not there before",
				     who, has.s);
		else
			n = snprintf(l->text, sizeof(l->text),
				     "%s: maps other blocks than could be read %s"
				     " (%s then, %s now)",
				     who, before_what(in), readable.s, has.s);
		break;
	case TM_FATE_UNKNOWN:
		if (l->evidence == TM_EVIDENCE_DETAILS)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: %s mapped, more than the %s that it should have had", who,
				     has.s, had.s);
		else if (l->evidence == TM_EVIDENCE_PART)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: %s mapped; part of it was damaged, and how much is not"
				     " known",
				     who, has.s);
		else if (l->evidence == TM_EVIDENCE_COPY)
			n = snprintf(l->text, sizeof(l->text),
				     "%s: %s mapped, no less than the %s in the newest safety copy;"
				     " what came since is not known",
				     who, has.s, had.s);
		else
			n = snprintf(l->text, sizeof(l->text),
				     "%s: %s mapped; how much was mapped before is not known", who,
				     has.s);
		break;
	}
	(void)n; /* cut where it is too long */
}

static void judge_volume(const struct tm_verdict_input *in, const struct tm_verdict_volume *v,
			 uint32_t dev_id, struct tm_repair_verdict *ret)
{
	const struct tm_survey_device *before = tm_survey_find(in->before, dev_id);
	const struct tm_survey_device *after = tm_survey_find(in->after, dev_id);
	struct tm_verdict_line *l = &ret->lines[ret->n_lines++];

	/* Without a tree it is as good as gone. */
	if (after && !after->root_found)
		after = NULL;
	*l = (struct tm_verdict_line){
		.dev_id = dev_id,
		.name = v ? v->name : NULL,
		.after_blocks = after ? after->mapped : 0,
	};
	weigh_evidence(in, v, before, l);
	if (l->after_blocks < l->before_blocks)
		l->lost_blocks = l->before_blocks - l->after_blocks;
	l->fate = fate_of(before, after, l);
	l->unexplained = unexplained(before, after, l);
	say_line(in, v, before, l);
	ret->before_blocks = tm_sat_add(ret->before_blocks, l->before_blocks);
	ret->after_blocks = tm_sat_add(ret->after_blocks, l->after_blocks);
	ret->lost_blocks = tm_sat_add(ret->lost_blocks, l->lost_blocks);
}

/* ---- all of them ------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* The devices of both surveys that the record does not know, in order. */
static int judge_unrecorded(const struct tm_verdict_input *in, struct tm_repair_verdict *ret)
{
	const struct tm_survey *b = in->before, *a = in->after;
	tm_auto_free uint32_t *known = NULL;
	size_t i, k = 0, n = 0;

	known = calloc(in->n_volumes ? in->n_volumes : 1, sizeof(*known));
	if (!known)
		return -ENOMEM;
	for (i = 0; i < in->n_volumes; i++)
		known[i] = in->volumes[i].dev_id;
	qsort(known, in->n_volumes, sizeof(*known), by_number);
	for (i = 0; k < b->n_devices || n < a->n_devices;) {
		uint32_t dev_id = k < b->n_devices ? b->devices[k].dev_id : UINT32_MAX;

		if (n < a->n_devices && a->devices[n].dev_id < dev_id)
			dev_id = a->devices[n].dev_id;
		if (k < b->n_devices && b->devices[k].dev_id == dev_id)
			k++;
		if (n < a->n_devices && a->devices[n].dev_id == dev_id)
			n++;
		while (i < in->n_volumes && known[i] < dev_id)
			i++;
		if (i == in->n_volumes || known[i] != dev_id)
			judge_volume(in, NULL, dev_id, ret);
	}
	return 0;
}

/* May there have been anything? Only what was counted says for certain that there was not. */
static bool something_was_mapped(const struct tm_verdict_input *in,
				 const struct tm_repair_verdict *v)
{
	size_t i;

	for (i = 0; i < v->n_lines; i++) {
		const struct tm_verdict_line *l = &v->lines[i];

		if (l->before_blocks || l->evidence <= TM_EVIDENCE_PART)
			return true;
	}
	return !lists_all(in->before) && in->before->superblock.data_used;
}

static enum tm_refusal why_refused(const struct tm_verdict_input *in,
				   const struct tm_repair_verdict *v)
{
	uint64_t before = v->before_blocks, lost = v->lost_blocks;
	size_t i;

	if (!tm_survey_sound(in->after))
		return TM_REFUSAL_UNSOUND;
	if (in->after->superblock.block_sectors * TM_SECTOR != in->block_bytes)
		return TM_REFUSAL_BLOCK_SIZE;
	if (!in->after->mapped && something_was_mapped(in, v))
		return TM_REFUSAL_EMPTY;
	for (i = 0; i < v->n_lines; i++)
		if (v->lines[i].unexplained)
			return TM_REFUSAL_UNEXPLAINED;
	/* What is not in it any more was perhaps discarded since the copy was made. */
	for (i = 0; i < v->n_lines; i++) {
		if (v->lines[i].evidence != TM_EVIDENCE_COPY)
			continue;
		before -= v->lines[i].before_blocks < before ? v->lines[i].before_blocks : before;
		lost -= v->lines[i].lost_blocks < lost ? v->lines[i].lost_blocks : lost;
	}
	if (lost > before / 2)
		return TM_REFUSAL_TOO_MUCH;
	return TM_REFUSAL_NONE;
}

/* What is the matter with a result that is not sound. */
static const char *unsound_how(const struct tm_survey *s, char *buf, size_t len)
{
	int i;

	if (s->superblock_error)
		return "its superblock cannot be read";
	for (i = 0; i < TM_SURVEY_DAMAGE_COUNT; i++)
		if (s->damage[i]) {
			(void)snprintf(buf, len, "it has %" PRIu64 " %s%s %s", s->damage[i],
				       i == TM_SURVEY_DATA ? "mapping" : "node",
				       s->damage[i] == 1 ? "" : "s",
				       tm_survey_damage_text((enum tm_survey_damage)i));
			return buf;
		}
	if (s->superblock.metadata_blocks > s->blocks)
		return "its device is smaller than it should be";
	return s->truncated ? "it has too many devices to compare"
			    : "its trees say different things of its devices";
}

static void say_verdict(const struct tm_verdict_input *in, struct tm_repair_verdict *v)
{
	size_t i, n_missing = 0, n_unknown = 0, n_unexplained = 0, n_last_known = 0;
	struct size_text had, has, lost;
	char how[128];

	for (i = 0; i < v->n_lines; i++) {
		const struct tm_verdict_line *l = &v->lines[i];

		n_missing += l->fate == TM_FATE_LOST || l->fate == TM_FATE_LOST_BLOCKS;
		n_unknown += l->fate == TM_FATE_UNKNOWN;
		n_unexplained += l->unexplained;
		n_last_known += l->evidence == TM_EVIDENCE_LAST_KNOWN;
	}
	(void)size_of(in, v->before_blocks, &had);
	(void)size_of(in, v->after_blocks, &has);
	(void)size_of(in, v->lost_blocks, &lost);
	switch (v->refusal) {
	case TM_REFUSAL_UNSOUND:
		(void)snprintf(v->text, sizeof(v->text),
			       "the result is refused: it is damaged itself, %s",
			       unsound_how(in->after, how, sizeof(how)));
		return;
	case TM_REFUSAL_BLOCK_SIZE:
		(void)snprintf(v->text, sizeof(v->text),
			       "the result is refused: it is for blocks of %" PRIu64
			       " bytes, the pool's have %" PRIu32,
			       in->after->superblock.block_sectors * TM_SECTOR, in->block_bytes);
		return;
	case TM_REFUSAL_EMPTY:
		if (v->before_blocks)
			(void)snprintf(v->text, sizeof(v->text),
				       "the result is refused: it maps nothing, where %s was"
				       " mapped before",
				       had.s);
		else
			(void)snprintf(v->text, sizeof(v->text),
				       "the result is refused: it maps nothing, and nothing says"
				       " that nothing was mapped before");
		return;
	case TM_REFUSAL_UNEXPLAINED:
		(void)snprintf(v->text, sizeof(v->text),
			       "the result is refused: of %zu of %zu volumes it lacks, or has"
			       " otherwise, what could be read before the repair",
			       n_unexplained, v->n_lines);
		return;
	case TM_REFUSAL_TOO_MUCH:
		(void)snprintf(v->text, sizeof(v->text),
			       "the result is refused: it lacks %s of the %s that was mapped, which"
			       " is more than half",
			       lost.s, had.s);
		return;
	case TM_REFUSAL_NONE:
		break;
	}
	if (n_missing && v->lost_blocks)
		(void)snprintf(v->text, sizeof(v->text),
			       "repaired with losses: %s of the %s that was mapped is lost, %zu of"
			       " %zu volumes are hit%s",
			       lost.s, had.s, n_missing, v->n_lines,
			       n_unknown ? ", and of others it is not known" : "");
	else if (n_missing)
		(void)snprintf(v->text, sizeof(v->text),
			       "repaired, but %zu of %zu volumes are missing", n_missing,
			       v->n_lines);
	else if (n_unknown)
		(void)snprintf(v->text, sizeof(v->text),
			       "repaired, %s is mapped; of %zu of %zu volumes it is not known"
			       " whether anything was lost",
			       has.s, n_unknown, v->n_lines);
	else if (n_last_known)
		(void)snprintf(v->text, sizeof(v->text),
			       "repaired, nothing is missing of what was last known: %s is mapped",
			       has.s);
	else
		(void)snprintf(v->text, sizeof(v->text), "repaired, nothing was lost: %s is mapped",
			       has.s);
}

int tm_repair_judge(const struct tm_verdict_input *in, struct tm_repair_verdict *ret)
{
	struct tm_repair_verdict v = { .verdict = TM_VERDICT_ACCEPT };
	size_t i;
	int r;

	v.lines = calloc(in->n_volumes + in->before->n_devices + in->after->n_devices + 1,
			 sizeof(*v.lines));
	if (!v.lines)
		return -ENOMEM;
	for (i = 0; i < in->n_volumes; i++)
		judge_volume(in, &in->volumes[i], in->volumes[i].dev_id, &v);
	r = judge_unrecorded(in, &v);
	if (r < 0) {
		free(v.lines);
		return r;
	}
	for (i = 0; i < v.n_lines; i++)
		if (v.lines[i].fate != TM_FATE_INTACT)
			v.verdict = TM_VERDICT_ACCEPT_LOSSES;
	v.refusal = why_refused(in, &v);
	if (v.refusal != TM_REFUSAL_NONE)
		v.verdict = TM_VERDICT_REFUSE;
	say_verdict(in, &v);
	*ret = v;
	return 0;
}

void tm_repair_verdict_done(struct tm_repair_verdict *v)
{
	free(v->lines);
	*v = (struct tm_repair_verdict){ 0 };
}
