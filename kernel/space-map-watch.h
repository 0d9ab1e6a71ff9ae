/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The B-trees count uses of metadata blocks by functions that return nothing, and one loop of the
 * space maps keeps only the last of its errors: what fails there is lost, and a later commit would
 * make wrong counts durable. So the methods of the metadata's space map are replaced by ones that
 * call them and remember the first error; the commit asks for it.
 */
#ifndef DTM_SPACE_MAP_WATCH_H
#define DTM_SPACE_MAP_WATCH_H

#include <linux/list.h>

#include "persistent-data.h"

struct dtm_sm_watch {
	struct list_head list;
	struct dm_space_map *sm;
	int (*inc_blocks)(struct dm_space_map *sm, dm_block_t begin, dm_block_t end);
	int (*dec_blocks)(struct dm_space_map *sm, dm_block_t begin, dm_block_t end);
	int (*new_block)(struct dm_space_map *sm, dm_block_t *ret);
	int *error; /* the first one is put here */
};

/* From now on until the end. What uses the map is locked by the caller. */
void dtm_sm_watch_begin(struct dtm_sm_watch *w, struct dm_space_map *sm, int *error);
void dtm_sm_watch_end(struct dtm_sm_watch *w);
/* To be called after the map was extended, which puts its own methods back. */
void dtm_sm_watch_renew(struct dtm_sm_watch *w);

#endif
