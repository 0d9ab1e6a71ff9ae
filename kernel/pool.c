// SPDX-License-Identifier: GPL-2.0-only
/*
 * A pool's life. Tables come and go while the pool stays: the next table's line uses the pool
 * that the live one made, and thin devices keep it as well.
 */

#include <linux/module.h>
#include <linux/slab.h>

#include "pool.h"

static DEFINE_MUTEX(pools_lock);
static LIST_HEAD(pools);

static void free_pool(struct dtm_pool *pool)
{
	dtm_metadata_close(pool->metadata);
	if (pool->copier)
		dm_kcopyd_client_destroy(pool->copier);
	bioset_exit(&pool->discards);
	bioset_exit(&pool->zeroes);
	if (pool->queue)
		destroy_workqueue(pool->queue);
	mutex_destroy(&pool->engine);
	kfree(pool);
}

static struct dtm_pool *make_pool(struct mapped_device *md, struct block_device *metadata_bdev,
				  struct block_device *data_bdev, u32 block_sectors, bool read_only,
				  char **error)
{
	struct dtm_pool *pool = kzalloc(sizeof(*pool), GFP_KERNEL);
	int r;

	if (!pool) {
		*error = "Out of memory for the pool";
		return ERR_PTR(-ENOMEM);
	}
	INIT_LIST_HEAD(&pool->list);
	pool->users = 1;
	pool->md = md;
	pool->metadata_bdev = metadata_bdev;
	pool->data_bdev = data_bdev;
	pool->block_sectors = block_sectors;
	pool->block_shift = is_power_of_2(block_sectors) ? __ffs(block_sectors) : -1;
	pool->mode = DTM_READ_ONLY; /* until a line is bound */
	mutex_init(&pool->engine);
	atomic_set(&pool->engine_wanted, 0);
	dtm_events_init(&pool->events);
	INIT_WORK(&pool->work, dtm_pool_work);
	INIT_DELAYED_WORK(&pool->commit_tick, dtm_pool_commit_tick);
	INIT_DELAYED_WORK(&pool->no_space_timeout, dtm_pool_no_space_timeout);
	spin_lock_init(&pool->lock);
	pool->gate_closing = true; /* until it is resumed */
	pool->gate_closed = true;
	INIT_LIST_HEAD(&pool->after_commit);
	INIT_LIST_HEAD(&pool->ready);
	bio_list_init(&pool->flushes);
	bio_list_init(&pool->completing);
	INIT_LIST_HEAD(&pool->thins);
	init_waitqueue_head(&pool->idle);
	pool->last_commit = jiffies;

	pool->metadata = dtm_metadata_open(metadata_bdev, block_sectors, !read_only);
	if (IS_ERR(pool->metadata)) {
		r = PTR_ERR(pool->metadata);
		pool->metadata = NULL;
		*error = "Cannot open the metadata (the kernel log says why)";
		goto fail;
	}
	dtm_metadata_set_read_only(pool->metadata, true);
	pool->copier = dm_kcopyd_client_create(&dtm_copy_throttle);
	if (IS_ERR(pool->copier)) {
		r = PTR_ERR(pool->copier);
		pool->copier = NULL;
		*error = "Cannot create a client of kcopyd";
		goto fail;
	}
	r = bioset_init(&pool->discards, BIO_POOL_SIZE, 0, 0);
	if (r) {
		*error = "Out of memory for discards";
		goto fail;
	}
	r = bioset_init(&pool->zeroes, BIO_POOL_SIZE, 0, BIOSET_NEED_BVECS);
	if (r) {
		*error = "Out of memory for zeroes";
		goto fail;
	}
	/* One thread: changes of metadata are one after the other anyway. */
	pool->queue = alloc_ordered_workqueue("dm-thinmgr", WQ_MEM_RECLAIM);
	if (!pool->queue) {
		r = -ENOMEM;
		*error = "Cannot create the pool's worker";
		goto fail;
	}
	list_add(&pool->list, &pools);
	return pool;
fail:
	free_pool(pool);
	return ERR_PTR(r);
}

struct dtm_pool *dtm_pool_get(struct mapped_device *md, struct block_device *metadata_bdev,
			      struct block_device *data_bdev, u32 block_sectors, bool read_only,
			      char **error, bool *ret_made)
{
	struct dtm_pool *pool, *found = NULL;

	mutex_lock(&pools_lock);
	list_for_each_entry(pool, &pools, list) {
		if (pool->md != md && pool->metadata_bdev == metadata_bdev) {
			*error = "The metadata device is in use by another pool";
			found = ERR_PTR(-EBUSY);
			break;
		}
		if (pool->md != md)
			continue;
		if (pool->metadata_bdev != metadata_bdev) {
			*error = "A pool cannot be replaced by another while it is there";
			found = ERR_PTR(-EINVAL);
		} else if (pool->data_bdev != data_bdev) {
			*error = "The data device cannot be replaced while the pool is there";
			found = ERR_PTR(-EBUSY); /* as mainline says it */
		} else if (pool->block_sectors != block_sectors) {
			*error = "The block size is not that of the pool";
			found = ERR_PTR(-EINVAL);
		} else {
			pool->users++;
			found = pool;
			*ret_made = false;
		}
		break;
	}
	if (!found) {
		found = make_pool(md, metadata_bdev, data_bdev, block_sectors, read_only, error);
		*ret_made = true;
	}
	mutex_unlock(&pools_lock);
	return found;
}

struct dtm_pool *dtm_pool_find(struct mapped_device *md)
{
	struct dtm_pool *pool, *found = NULL;

	mutex_lock(&pools_lock);
	list_for_each_entry(pool, &pools, list) {
		if (pool->md != md)
			continue;
		pool->users++;
		found = pool;
		break;
	}
	mutex_unlock(&pools_lock);
	return found;
}

void dtm_pool_put(struct dtm_pool *pool)
{
	mutex_lock(&pools_lock);
	if (!--pool->users) {
		list_del(&pool->list);
		/* Work that was noted before the gate closed for good may still be queued. */
		cancel_delayed_work_sync(&pool->commit_tick);
		cancel_delayed_work_sync(&pool->no_space_timeout);
		cancel_work_sync(&pool->work);
		free_pool(pool);
	}
	mutex_unlock(&pools_lock);
}
