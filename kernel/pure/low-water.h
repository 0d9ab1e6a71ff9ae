/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A low-water mark that speaks up once: when free space is at the mark or below it, and again only
 * after it had risen well above. Levels are judged, not edges, so a step over the mark counts, and
 * so does space that was low already when the mark was set. Pure C, as mode.h; the caller locks.
 */
#ifndef DTM_LOW_WATER_H
#define DTM_LOW_WATER_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stdint.h>
typedef uint64_t u64;
#endif

struct dtm_low_water {
	u64 mark;  /* blocks free; 0: speaks up when nothing is left */
	bool said; /* and not risen above mark and margin since */
};

/* A new mark, or the same at a resume: what is low then is told again. */
void dtm_low_water_set(struct dtm_low_water *w, u64 mark);

/* How far above the mark space has to rise before falling counts anew: an eighth of it, at least
 * one block. */
u64 dtm_low_water_margin(u64 mark);

/* After each change of free space: shall an event be raised? */
bool dtm_low_water_check(struct dtm_low_water *w, u64 free_blocks);

#endif
