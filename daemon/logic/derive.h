/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happened between two looks at a pool. Pure: two statuses in, the list of
 * changes out. Reporting them is the caller's.
 */
#ifndef TM_LOGIC_DERIVE_H
#define TM_LOGIC_DERIVE_H

#include "logic/model.h"

enum tm_change {
	TM_CHANGE_LOW_WATER =
		1 << 0, /* free data <= mark now, was above (or the size changed since) */
	TM_CHANGE_METADATA_LOW_WATER = 1 << 1,
	TM_CHANGE_MODE = 1 << 2,
	TM_CHANGE_OUT_OF_SPACE = 1 << 3, /* entered out_of_data_space */
	TM_CHANGE_NEEDS_CHECK = 1 << 4,  /* flag newly set */
	TM_CHANGE_NEEDS_CHECK_CLEARED = 1 << 5,
	TM_CHANGE_SPACE_BACK = 1 << 6, /* left out_of_data_space, into whatever mode */
	TM_CHANGE_TRANSACTION = 1 << 7,
	TM_CHANGE_DATA_SIZE = 1 << 8,
	TM_CHANGE_METADATA_SIZE = 1 << 9,
	TM_CHANGE_NO_SPACE_TIMEOUT = 1 << 10, /* the kernel gave up queueing: queue_if_no_space
						 turned into error_if_no_space */
};

/* Do two looks say the same? */
bool tm_thin_pool_status_equal(const struct tm_thin_pool_status *a,
			       const struct tm_thin_pool_status *b);

/*
 * @before may be NULL (first look): then levels count as changes from a healthy pool.
 * Of a failed pool only the mode is known. The metadata's mark is the kernel's own.
 * Marks are in blocks of their space. Returns a set of enum tm_change.
 */
unsigned int tm_derive(const struct tm_thin_pool_status *before, uint64_t low_water_before,
		       const struct tm_thin_pool_status *now, uint64_t low_water_now);

#endif
