// SPDX-License-Identifier: GPL-2.0-only
/* See low-water.h. */

#include "low-water.h"

void dtm_low_water_set(struct dtm_low_water *w, u64 mark)
{
	w->mark = mark;
	w->said = false;
}

u64 dtm_low_water_margin(u64 mark)
{
	return mark / 8 ? mark / 8 : 1;
}

bool dtm_low_water_check(struct dtm_low_water *w, u64 free_blocks)
{
	if (free_blocks <= w->mark) {
		bool say = !w->said;

		w->said = true;
		return say;
	}
	/* A difference, so that no mark is too large to add to. */
	if (free_blocks - w->mark > dtm_low_water_margin(w->mark))
		w->said = false;
	return false;
}
