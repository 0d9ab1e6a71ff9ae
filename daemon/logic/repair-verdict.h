/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * May the result of a repair take the place of a pool's metadata, and what was lost? Judged by what
 * was mapped before, what is mapped now, and what was last known, and not by any tool's exit
 * status.
 *
 * The rule: **everything that could still be read before is there afterwards, the same; only what
 * could not be read may be missing.** Damage explains a loss as far as it goes: a tool that loses
 * more went wrong (or went back to older roots, whose blocks may be others' by now). So a result is
 * refused
 *
 *  1. that is not sound itself: superblock, trees, or counts;
 *  2. with another size of blocks than the pool's;
 *  3. that maps nothing, unless it is certain that nothing was mapped;
 *  4. that lacks, or has otherwise, what could be read before;
 *  5. that has lost more than half of all that was mapped. A damaged root explains that everything
 *     below is missing, but then most of it still lies there, and goes for good when the pool is
 *     written to: a safety copy or a person can do better than to go on with the lesser part.
 *
 * Otherwise it is accepted: with losses, where anything is missing or nobody knows what was there.
 *
 * What a volume had before is, in this order: what was counted, if nothing of its tree was damaged;
 * what the metadata's own details say; what the last sample said; of one of which nothing could be
 * read, what the newest safety copy says. The last two may be outdated both ways, and are told as
 * what they are. A sample is seconds old. A copy is hours old, or older: it shows that something
 * was there, but what agrees with it may lack what came since, and what does not may have been
 * discarded. So by it alone nothing is intact, and nothing too much to lose.
 */
#ifndef TM_LOGIC_REPAIR_VERDICT_H
#define TM_LOGIC_REPAIR_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logic/thin-survey.h"

/* A volume of the record. */
struct tm_verdict_volume {
	uint32_t dev_id; /* each once */
	const char *name;
	uint64_t size_bytes;
	bool last_known;
	uint64_t last_mapped_bytes; /* by the last sample; where last_known */
	bool copied;
	uint64_t copied_bytes; /* mapped by the newest safety copy; where copied */
};

struct tm_verdict_input {
	const struct tm_survey *before; /* of the damaged metadata; may have an error and no more */
	const struct tm_survey *after;  /* of the result */
	uint32_t block_bytes;           /* of the pool; not 0 */
	const struct tm_verdict_volume *volumes;
	size_t n_volumes;
	bool restore; /* not the result of a repair but a copy: only the words of the lines differ
		       */
};

enum tm_fate {
	TM_FATE_INTACT,      /* nothing is missing, by what is known of before */
	TM_FATE_LOST_BLOCKS, /* is there, with less than it had */
	TM_FATE_LOST,        /* is gone */
	TM_FATE_CHANGED,     /* maps something else than could be read before */
	TM_FATE_UNKNOWN,     /* is there, but what it had before is not known, or not all of it */
};

/* Where before_blocks comes from; the better comes later. */
enum tm_evidence {
	TM_EVIDENCE_NONE,       /* nowhere: it is 0 */
	TM_EVIDENCE_COPY,       /* the newest safety copy's; nothing could be read */
	TM_EVIDENCE_PART,       /* counted, but part of it was damaged: there was more */
	TM_EVIDENCE_LAST_KNOWN, /* what the caller gave; at least what was counted */
	TM_EVIDENCE_DETAILS,    /* the damaged metadata's own count; at least what was counted */
	TM_EVIDENCE_COUNTED,    /* exact; 0 for one that was not there */
};

struct tm_verdict_line {
	uint32_t dev_id;
	const char *name; /* the input's; NULL: the record does not know it */
	enum tm_fate fate;
	enum tm_evidence evidence;
	uint64_t before_blocks, after_blocks; /* mapped; 0 where gone */
	uint64_t lost_blocks;                 /* at least */
	bool unexplained;                     /* a loss or change that no damage explains: rule 4 */
	char text[400];                       /* for people: what became of which volume */
};

enum tm_verdict { TM_VERDICT_ACCEPT, TM_VERDICT_ACCEPT_LOSSES, TM_VERDICT_REFUSE };

enum tm_refusal {
	TM_REFUSAL_NONE,
	TM_REFUSAL_UNSOUND,
	TM_REFUSAL_BLOCK_SIZE,
	TM_REFUSAL_EMPTY,
	TM_REFUSAL_UNEXPLAINED,
	TM_REFUSAL_TOO_MUCH,
};

struct tm_repair_verdict {
	enum tm_verdict verdict;
	enum tm_refusal refusal; /* the first rule that was broken */
	/* Sums over all volumes, so that a block that is shared counts in each. */
	uint64_t before_blocks, after_blocks, lost_blocks;
	size_t n_lines;
	/* The record's volumes in its order, then by dev_id those it does not know. */
	struct tm_verdict_line *lines;
	char text[400]; /* for people: the verdict, and why */
};

/* 0 or -ENOMEM. Names are the input's, the rest is freed with tm_repair_verdict_done. */
int tm_repair_judge(const struct tm_verdict_input *in, struct tm_repair_verdict *ret);
void tm_repair_verdict_done(struct tm_repair_verdict *v);

const char *tm_verdict_name(enum tm_verdict verdict); /* "accept", "accept_losses", "refuse" */
/* "intact", "lost_blocks", "lost", "changed", "unknown" */
const char *tm_fate_name(enum tm_fate fate);

#endif
