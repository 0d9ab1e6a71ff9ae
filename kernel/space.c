// SPDX-License-Identifier: GPL-2.0-only
/* I/O that waits for space, marks, and growing. All of it under the pool's engine lock. */

#include "pool.h"

/* What mainline's status line shows, and user space knows: a quarter, 4 MiB at most. */
#define METADATA_MARK_MOST 1024

/* ---- waiting ------------------------------------------------------------------------------------
 */

void dtm_no_space(struct dtm_io *io)
{
	const unsigned long secs = READ_ONCE(dtm_no_space_timeout_secs);
	struct dtm_thin *thin = io->thin;
	struct dtm_pool *pool = thin->pool;
	struct bio *bio = dtm_bio_of(io);

	/* In another mode nobody would come to end the waiting: where counts say there is space,
	 * but there is none. */
	if (pool->mode != DTM_OUT_OF_DATA_SPACE ||
	    !dtm_mode_may_queue(pool->mode, dtm_metadata_needs_check(pool->metadata),
				pool->features.error_if_no_space, pool->timed_out)) {
		dtm_fail(io, dtm_mode_may_change(pool->mode) ? BLK_STS_NOSPC : BLK_STS_IOERR);
		return;
	}
	/* Those that waited for its cell look for themselves. */
	dtm_release(io);
	spin_lock_irq(&thin->lock);
	bio_list_add(&thin->no_space, bio);
	spin_unlock_irq(&thin->lock);
	/* From the first that waits, not from when there was no space: nobody may have wanted it.
	 */
	if (secs)
		queue_delayed_work(pool->queue, &pool->no_space_timeout, secs * HZ);
}

void dtm_pool_error_waiting(struct dtm_pool *pool)
{
	const bool full = dtm_mode_may_change(pool->mode);
	struct dtm_thin *thin;

	lockdep_assert_held(&pool->engine);
	list_for_each_entry(thin, &pool->thins, list) {
		struct bio_list bios;
		struct bio *bio;

		bio_list_init(&bios);
		spin_lock_irq(&thin->lock);
		bio_list_merge(&bios, &thin->no_space);
		bio_list_init(&thin->no_space);
		spin_unlock_irq(&thin->lock);
		while ((bio = bio_list_pop(&bios))) {
			bio->bi_status = full ? BLK_STS_NOSPC : BLK_STS_IOERR;
			bio_endio(bio);
		}
	}
}

void dtm_pool_retry_waiting(struct dtm_pool *pool)
{
	struct dtm_thin *thin;

	lockdep_assert_held(&pool->engine);
	list_for_each_entry(thin, &pool->thins, list) {
		spin_lock_irq(&thin->lock);
		bio_list_merge(&thin->deferred, &thin->no_space);
		bio_list_init(&thin->no_space);
		spin_unlock_irq(&thin->lock);
	}
	dtm_pool_wake(pool);
}

static bool somebody_waits(struct dtm_pool *pool)
{
	struct dtm_thin *thin;

	list_for_each_entry(thin, &pool->thins, list) {
		if (!bio_list_empty(&thin->no_space)) /* changed under engine */
			return true;
	}
	return false;
}

void dtm_pool_gave_back(struct dtm_pool *pool)
{
	lockdep_assert_held(&pool->engine);
	if (!somebody_waits(pool))
		cancel_delayed_work(&pool->no_space_timeout);
}

void dtm_pool_no_space_timeout(struct work_struct *work)
{
	struct dtm_pool *pool = container_of(to_delayed_work(work), struct dtm_pool,
					     no_space_timeout);

	dtm_engine_lock(pool);
	if (somebody_waits(pool)) {
		DMWARN("%s: no space came within the time that I/O may wait for it",
		       dm_device_name(pool->md));
		dtm_pool_event(pool, DTM_EV_NO_SPACE_TIMEOUT);
	}
	dtm_engine_unlock(pool);
}

/* ---- marks --------------------------------------------------------------------------------------
 */

u64 dtm_pool_metadata_mark(struct dtm_pool *pool, u64 metadata_blocks)
{
	return pool->set_metadata_mark ? pool->set_metadata_mark
				       : min_t(u64, METADATA_MARK_MOST, metadata_blocks / 4);
}

void dtm_pool_set_metadata_mark(struct dtm_pool *pool)
{
	struct dtm_metadata_sizes sizes = { 0 };

	(void)dtm_metadata_sizes(pool->metadata, &sizes);
	dtm_low_water_set(&pool->metadata_mark,
			  dtm_pool_metadata_mark(pool, sizes.metadata_blocks));
}

void dtm_pool_set_marks(struct dtm_pool *pool)
{
	dtm_low_water_set(&pool->data_mark, pool->low_water);
	dtm_pool_set_metadata_mark(pool);
}

void dtm_pool_check_marks(struct dtm_pool *pool)
{
	struct dtm_metadata_sizes sizes;
	bool speak = false;
	u64 metadata_free;

	if (dtm_metadata_sizes(pool->metadata, &sizes) || !pool->line)
		return;
	if (pool->mode == DTM_OUT_OF_DATA_SPACE && sizes.data_free)
		dtm_pool_event(pool, DTM_EV_DATA_FREED);
	if (!dtm_mode_may_change(pool->mode))
		return;
	if (dtm_low_water_check(&pool->data_mark, sizes.data_free)) {
		DMWARN("%s: %llu data blocks are free, and the low-water mark is %llu",
		       dm_device_name(pool->md), sizes.data_free, pool->data_mark.mark);
		dtm_events_add(&pool->events, DTM_CAUSE_DATA_LOW, sizes.data_free);
		speak = true;
	}
	/*
	 * Near the mark each transaction would cross it otherwise, and each commit go back. One
	 * that takes up half of what the mark keeps is told of at once: the next commit may come
	 * late.
	 */
	metadata_free = min(sizes.metadata_free_at_rest, 2 * sizes.metadata_free);
	if (dtm_low_water_check(&pool->metadata_mark, metadata_free)) {
		DMWARN("%s: %llu metadata blocks are free, and the low-water mark is %llu",
		       dm_device_name(pool->md), metadata_free, pool->metadata_mark.mark);
		dtm_events_add(&pool->events, DTM_CAUSE_METADATA_LOW, metadata_free);
		speak = true;
	}
	if (speak)
		dm_table_event(pool->line->ti->table);
}

/* ---- growing ------------------------------------------------------------------------------------
 */

u64 dtm_metadata_device_blocks(struct block_device *bdev)
{
	const u64 sectors = min_t(u64, bdev_nr_sectors(bdev), DTM_METADATA_MAX_SECTORS);

	return sectors / DTM_METADATA_BLOCK_SECTORS;
}

static int may_grow(struct dtm_pool *pool, struct dtm_metadata_sizes *ret)
{
	int r = dtm_metadata_sizes(pool->metadata, ret);

	if (r)
		return r;
	return dtm_mode_may_grow(pool->mode, dtm_metadata_needs_check(pool->metadata)) ? 0 : -EPERM;
}

int dtm_pool_grow_data(struct dtm_pool *pool, u64 blocks)
{
	struct dtm_metadata_sizes sizes;
	int r = may_grow(pool, &sizes);

	if (r)
		return r;
	if (blocks < sizes.data_blocks ||
	    blocks > dtm_block_of(pool, bdev_nr_sectors(pool->data_bdev)))
		return -EINVAL;
	if (blocks == sizes.data_blocks)
		return 0;
	r = dtm_metadata_resize_data(pool->metadata, blocks);
	if (dtm_pool_commit_for_room(pool, r))
		r = dtm_metadata_resize_data(pool->metadata, blocks);
	if (r) {
		dtm_pool_change_failed(pool, "grow the data space", r);
		return r;
	}
	DMINFO("%s: data space grown from %llu to %llu blocks", dm_device_name(pool->md),
	       sizes.data_blocks, blocks);
	dtm_events_add(&pool->events, DTM_CAUSE_DATA_GROWN, blocks);
	dtm_pool_event(pool, DTM_EV_DATA_FREED);
	return 0;
}

void dtm_pool_warn_oversized(struct block_device *metadata_bdev)
{
	if (bdev_nr_sectors(metadata_bdev) > DTM_METADATA_WARN_SECTORS)
		DMWARN("the metadata device %pg is larger than %llu sectors: the rest of it goes "
		       "unused",
		       metadata_bdev, DTM_METADATA_MAX_SECTORS);
}

int dtm_pool_grow_metadata(struct dtm_pool *pool, u64 blocks)
{
	struct dtm_metadata_sizes sizes;
	int r = may_grow(pool, &sizes);

	if (r)
		return r;
	if (blocks < sizes.metadata_blocks ||
	    blocks > dtm_metadata_device_blocks(pool->metadata_bdev))
		return -EINVAL;
	if (blocks == sizes.metadata_blocks)
		return 0;
	r = dtm_metadata_resize_metadata(pool->metadata, blocks);
	if (r) {
		dtm_pool_change_failed(pool, "grow the metadata space", r);
		return r;
	}
	r = dtm_pool_commit(pool);
	if (r)
		return r;
	dtm_pool_warn_oversized(pool->metadata_bdev);
	DMINFO("%s: metadata space grown from %llu to %llu blocks", dm_device_name(pool->md),
	       sizes.metadata_blocks, blocks);
	dtm_events_add(&pool->events, DTM_CAUSE_METADATA_GROWN, blocks);
	/* The mark of mainline's rule moves with the size; what is low by any is told again. */
	dtm_pool_set_metadata_mark(pool);
	return 0;
}
