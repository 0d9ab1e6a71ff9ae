/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What look-ups of a device found lately, so that the next one of the same block needs no lock and
 * no tree. A table with a place for each block, which it shares with others; the last one found
 * has it.
 *
 * Looking takes no lock. Adding may be done by several at once; forgetting, and adding in place of
 * something else, only by one and with nobody adding: the metadata's lock, read for the one and
 * written for the other, sees to that. Who changes a mapping has told everybody who may still look
 * the block up to wait (cell.h), so what is found here is what is in the tree.
 */
#ifndef DTM_MAPPING_CACHE_H
#define DTM_MAPPING_CACHE_H

#include <linux/types.h>

struct dtm_mapping_place {
	unsigned long turn; /* odd while it is being changed */
	u64 block;          /* plus 1; 0: none */
	u64 value;          /* as in the tree */
};

struct dtm_mapping_cache {
	struct dtm_mapping_place *places; /* NULL: it remembers nothing */
	unsigned long mask;
};

/* For a device of so many blocks. Without memory for it, it remembers nothing. Sleeps. */
void dtm_mapping_cache_init(struct dtm_mapping_cache *c, u64 blocks);
void dtm_mapping_cache_free(struct dtm_mapping_cache *c);

/* False: not known here. Never sleeps. */
bool dtm_mapping_cache_find(const struct dtm_mapping_cache *c, u64 block, u64 *ret_value);
void dtm_mapping_cache_add(struct dtm_mapping_cache *c, u64 block, u64 value);
/* Blocks [begin, end). */
void dtm_mapping_cache_forget(struct dtm_mapping_cache *c, u64 begin, u64 end);

#endif
