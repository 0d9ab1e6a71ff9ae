// SPDX-License-Identifier: GPL-2.0-only
/* See space-map-watch.h. */

#include "space-map-watch.h"

#include <linux/rculist.h>
#include <linux/spinlock.h>

/* One for each pool, so few. */
static LIST_HEAD(watches);
static DEFINE_SPINLOCK(watches_lock);

/* It stays valid after this: who uses the map keeps it, and with it the watch, from ending. */
static struct dtm_sm_watch *watch_of(const struct dm_space_map *sm)
{
	struct dtm_sm_watch *w, *found = NULL;

	rcu_read_lock();
	list_for_each_entry_rcu(w, &watches, list) {
		if (w->sm == sm) {
			found = w;
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

static int remember(struct dtm_sm_watch *w, int r)
{
	if (unlikely(r) && !*w->error)
		*w->error = r;
	return r;
}

static int watched_inc_blocks(struct dm_space_map *sm, dm_block_t begin, dm_block_t end)
{
	struct dtm_sm_watch *w = watch_of(sm);

	return remember(w, w->inc_blocks(sm, begin, end));
}

static int watched_dec_blocks(struct dm_space_map *sm, dm_block_t begin, dm_block_t end)
{
	struct dtm_sm_watch *w = watch_of(sm);

	return remember(w, w->dec_blocks(sm, begin, end));
}

static int watched_new_block(struct dm_space_map *sm, dm_block_t *ret)
{
	struct dtm_sm_watch *w = watch_of(sm);

	return remember(w, w->new_block(sm, ret));
}

void dtm_sm_watch_renew(struct dtm_sm_watch *w)
{
	struct dm_space_map *sm = w->sm;

	if (sm->inc_blocks == watched_inc_blocks)
		return;
	w->inc_blocks = sm->inc_blocks;
	w->dec_blocks = sm->dec_blocks;
	w->new_block = sm->new_block;
	sm->inc_blocks = watched_inc_blocks;
	sm->dec_blocks = watched_dec_blocks;
	sm->new_block = watched_new_block;
}

void dtm_sm_watch_begin(struct dtm_sm_watch *w, struct dm_space_map *sm, int *error)
{
	w->sm = sm;
	w->error = error;
	spin_lock(&watches_lock);
	list_add_rcu(&w->list, &watches);
	spin_unlock(&watches_lock);
	dtm_sm_watch_renew(w);
}

void dtm_sm_watch_end(struct dtm_sm_watch *w)
{
	if (!w->sm)
		return;
	w->sm->inc_blocks = w->inc_blocks;
	w->sm->dec_blocks = w->dec_blocks;
	w->sm->new_block = w->new_block;
	spin_lock(&watches_lock);
	list_del_rcu(&w->list);
	spin_unlock(&watches_lock);
	/* Others may be passing by on their way to theirs. */
	synchronize_rcu();
	w->sm = NULL;
}
