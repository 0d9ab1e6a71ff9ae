// SPDX-License-Identifier: GPL-2.0-only
/* See mapping-cache.h. */

#include <linux/atomic.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/slab.h>

#include "mapping-cache.h"

/* With blocks of 64 KiB the most is 512 MiB that are in use at a time, for 192 KiB of memory. */
#define PLACES_MIN 64
#define PLACES_MAX 8192

void dtm_mapping_cache_init(struct dtm_mapping_cache *c, u64 blocks)
{
	const unsigned long n = roundup_pow_of_two(clamp_t(u64, blocks, PLACES_MIN, PLACES_MAX));

	c->places = kvcalloc(n, sizeof(*c->places), GFP_KERNEL | __GFP_NOWARN);
	c->mask = n - 1;
}

void dtm_mapping_cache_free(struct dtm_mapping_cache *c)
{
	kvfree(c->places);
	c->places = NULL;
}

bool dtm_mapping_cache_find(const struct dtm_mapping_cache *c, u64 block, u64 *ret_value)
{
	const struct dtm_mapping_place *p;
	unsigned long turn;
	u64 there;

	if (!c->places)
		return false;
	p = &c->places[block & c->mask];
	/* What belongs to this turn is read after it. */
	turn = smp_load_acquire(&p->turn);
	there = READ_ONCE(p->block);
	*ret_value = READ_ONCE(p->value);
	smp_rmb(); /* both belong together if the turn is still the same after they were read */
	return there == block + 1 && !(turn & 1) && READ_ONCE(p->turn) == turn;
}

static void set(struct dtm_mapping_place *p, u64 block, u64 value)
{
	const unsigned long turn = READ_ONCE(p->turn);

	/* Another one is just adding: one of the two is as good as the other. */
	if (turn & 1 || cmpxchg(&p->turn, turn, turn + 1) != turn)
		return;
	WRITE_ONCE(p->block, block);
	WRITE_ONCE(p->value, value);
	/* The new turn is seen only after what belongs to it. */
	smp_store_release(&p->turn, turn + 2);
}

void dtm_mapping_cache_add(struct dtm_mapping_cache *c, u64 block, u64 value)
{
	if (c->places)
		set(&c->places[block & c->mask], block + 1, value);
}

void dtm_mapping_cache_forget(struct dtm_mapping_cache *c, u64 begin, u64 end)
{
	unsigned long i, n;

	if (!c->places || begin >= end)
		return;
	/* The places of a large range are all there are. */
	n = min_t(u64, end - begin, c->mask + 1);
	for (i = 0; i < n; i++) {
		struct dtm_mapping_place *p = &c->places[(begin + i) & c->mask];

		if (p->block > begin && p->block <= end)
			set(p, 0, 0);
	}
}
