// SPDX-License-Identifier: GPL-2.0-only
/*
 * A block for a write that finds none of its own: a new one for a hole, a copy for one that is
 * shared with a snapshot.
 *
 * What keeps it safe over a crash, and from other readers:
 *
 * 1. The cell of the block is held: nobody else changes its mapping, and I/O to it waits.
 * 2. A data block is allocated. It was free when the last transaction was committed, so whatever
 *    happens now, nothing that is committed leads to it.
 * 3. It is filled: with zeroes, or with what the shared block or the external origin holds, or,
 * where one write covers all of it, by that write itself. Meanwhile I/O that had looked up the old
 *    place ends (flights).
 * 4. Only then is the mapping made, and the bios that wait are sent to the new place.
 * 5. The commit that makes the mapping durable flushes the data device first, so the filled block
 * is durable before. Before that commit a crash shows the state before the write, which nobody was
 *    told is durable.
 */

#include "pool.h"

/* Others wait for the worker while it sends them. */
#define ZERO_BIOS_AT_ONCE 4
#define ZERO_PAGES_IN_BIO (SZ_1M >> PAGE_SHIFT)

static bool covers_block(struct dtm_pool *pool, const struct bio *bio)
{
	return bio_op(bio) == REQ_OP_WRITE && bio_sectors(bio) == pool->block_sectors;
}

/* ---- allocation -------------------------------------------------------------------------- */

/* A data block, or an error that is dealt with already: the holder failed or waits. */
static int allocate(struct dtm_io *io, u64 *ret_block)
{
	struct dtm_pool *pool = io->thin->pool;
	struct dtm_metadata_sizes sizes;
	int r;

	if (pool->mode == DTM_OUT_OF_DATA_SPACE) {
		dtm_no_space(io);
		return -ENOSPC;
	}
	if (!dtm_mode_may_change(pool->mode)) {
		dtm_fail(io, BLK_STS_IOERR);
		return -EROFS;
	}
	r = dtm_metadata_sizes(pool->metadata, &sizes);
	/* Blocks that this transaction freed, of either kind, can be had once it is committed. */
	if (!r && (!sizes.data_free || !sizes.metadata_free)) {
		r = dtm_pool_commit(pool);
		if (r) {
			dtm_fail(io, BLK_STS_IOERR);
			return r;
		}
		r = dtm_metadata_sizes(pool->metadata, &sizes);
	}
	if (!r && !sizes.metadata_free) {
		DMERR("%s: metadata is full", dm_device_name(pool->md));
		dtm_pool_event(pool, DTM_EV_METADATA_EXHAUSTED);
		dtm_fail(io, BLK_STS_NOSPC);
		return -ENOSPC;
	}
	r = dtm_metadata_alloc_data(pool->metadata, ret_block);
	if (!r)
		return 0;
	if (r == -ENOSPC) {
		dtm_pool_event(pool, DTM_EV_DATA_EXHAUSTED);
		dtm_no_space(io);
	} else {
		dtm_pool_change_failed(pool, "allocate a data block", r);
		dtm_fail(io, BLK_STS_IOERR);
	}
	return r;
}

/* ---- the end: worker, under engine ------------------------------------------------------- */

static void complete_overwrite(struct dtm_pool *pool, struct bio *bio)
{
	if (bio->bi_opf & REQ_FUA) { /* durable is only what is committed */
		spin_lock_irq(&pool->lock);
		bio_list_add(&pool->completing, bio);
		spin_unlock_irq(&pool->lock);
		dtm_pool_wake(pool);
	} else {
		bio_endio(bio);
	}
}

/* What has it after a crash before the next commit: see discard.c. */
static void left(struct dtm_pool *pool, u64 block)
{
	if (pool->left_begin == pool->left_end) {
		pool->left_begin = block;
		pool->left_end = block + 1;
	} else {
		pool->left_begin = min(pool->left_begin, block);
		pool->left_end = max(pool->left_end, block + 1);
	}
}

static void map_block(struct dtm_io *io)
{
	struct dtm_thin *thin = io->thin;
	struct dtm_pool *pool = thin->pool;
	struct bio *bio = dtm_bio_of(io);
	int r;

	if (!dtm_mode_may_change(pool->mode)) {
		io->status = BLK_STS_IOERR; /* its transaction is gone */
	} else if (io->status) {
		/* Nothing leads to the block: it can be had again. */
		r = dtm_metadata_dec_data(pool->metadata, io->block, io->block + 1);
		if (dtm_pool_commit_for_room(pool, r))
			r = dtm_metadata_dec_data(pool->metadata, io->block, io->block + 1);
		if (r)
			dtm_pool_metadata_failed(pool, "give back a data block", r);
	} else {
		r = dtm_device_insert(thin->device, io->cell.begin, io->block);
		if (dtm_pool_commit_for_room(pool, r))
			r = dtm_device_insert(thin->device, io->cell.begin, io->block);
		if (r) {
			dtm_pool_metadata_failed(pool, "map a block", r);
			io->status = BLK_STS_IOERR;
		} else if (io->copied) {
			left(pool, io->old_block);
		}
	}
	if (io->status) {
		dtm_fail(io, io->status);
	} else {
		dtm_release(io);
		if (io->overwrites)
			complete_overwrite(pool, bio);
		else if (op_is_flush(bio->bi_opf))
			dtm_map_later(thin, bio); /* after a commit */
		else
			/* Without the cell, and without looking again: only the worker, which this
			 * is, could give the block to somebody else. */
			dtm_send(thin, bio, io->block);
	}
}

static void zero_some(struct dtm_io *io);

static void map_block_ready(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;

	if (io->zeroes_left && !io->status && dtm_mode_may_change(pool->mode)) {
		dtm_begin_change(io, map_block_ready, 1); /* one that is counted anew */
		zero_some(io);
	} else {
		map_block(io);
	}
	/* The bio may be gone; what counts it is the pool. */
	if (atomic_dec_and_test(&pool->busy))
		wake_up_all(&pool->idle);
}

/* ---- filling ----------------------------------------------------------------------------- */

static void filled(int read_err, unsigned long write_err, void *context)
{
	struct dtm_io *io = context;

	if (read_err || write_err)
		io->status = BLK_STS_IOERR;
	dtm_awaited(io);
}

static struct dm_io_region region(struct block_device *bdev, sector_t sector, sector_t count)
{
	return (struct dm_io_region){ .bdev = bdev, .sector = sector, .count = count };
}

static void zeroed(struct bio *bio)
{
	struct dtm_io *io = bio->bi_private;

	if (bio->bi_status)
		io->status = BLK_STS_IOERR;
	bio_put(bio);
	dtm_awaited(io);
}

/*
 * Writes zeroes to the next part of what is left, up to the end of the block; one awaited ends when
 * that is written. A disk that can make zeroes by itself is not asked to, as kcopyd would: it may
 * give back what is allocated below, as a loop device punches holes into its file, and a block that
 * has its place there must not lose it to its first write.
 */
static void zero_some(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	int n;

	for (n = 0; n < ZERO_BIOS_AT_ONCE && io->zeroes_left; n++) {
		const u32 pages = DIV_ROUND_UP(io->zeroes_left, PAGE_SECTORS);
		/* Not held back like what is written at leisure: somebody waits for it. */
		struct bio *bio = bio_alloc_bioset(
			pool->data_bdev, min_t(u32, pages, ZERO_PAGES_IN_BIO),
			REQ_OP_WRITE | REQ_SYNC | REQ_IDLE, GFP_NOIO, &pool->zeroes);

		bio->bi_iter.bi_sector = dtm_sector_of(pool, io->block + 1) - io->zeroes_left;
		bio->bi_private = io;
		bio->bi_end_io = zeroed;
		while (io->zeroes_left && bio->bi_vcnt < bio->bi_max_vecs) {
			const u32 count = min_t(u32, io->zeroes_left, PAGE_SECTORS);

			__bio_add_page(bio, ZERO_PAGE(0), count << SECTOR_SHIFT, 0);
			io->zeroes_left -= count;
		}
		atomic_inc(&io->awaited);
		submit_bio(bio);
	}
	dtm_awaited(io);
}

static void copy(struct dtm_io *io, struct block_device *bdev, sector_t sector, sector_t count)
{
	struct dtm_pool *pool = io->thin->pool;
	struct dm_io_region from = region(bdev, sector, count);
	struct dm_io_region to = region(pool->data_bdev, dtm_sector_of(pool, io->block), count);

	dm_kcopyd_copy(pool->copier, &from, 1, &to, 0, filled, io);
}

static void overwritten(struct bio *bio)
{
	struct dtm_io *io = dtm_io_of(bio);

	bio->bi_end_io = io->end_io;
	if (bio->bi_status)
		io->status = bio->bi_status;
	dtm_awaited(io);
}

/* The bio is sent to the new block as it is; its end is what is awaited. */
static void overwrite(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	struct bio *bio = dtm_bio_of(io);

	io->overwrites = true;
	io->end_io = bio->bi_end_io;
	bio->bi_end_io = overwritten;
	bio_set_dev(bio, pool->data_bdev);
	bio->bi_iter.bi_sector = dtm_sector_of(pool, io->block);
	dm_submit_bio_remap(bio, NULL);
}

static void fill_hole(struct dtm_io *io)
{
	struct dtm_thin *thin = io->thin;
	struct dtm_pool *pool = thin->pool;
	const sector_t begin = dtm_sector_of(pool, io->cell.begin);
	sector_t of_origin = 0;

	io->zeroes_left = 0;
	if (thin->origin_dev && begin < thin->origin_sectors)
		of_origin = min_t(sector_t, pool->block_sectors, thin->origin_sectors - begin);
	if (covers_block(pool, dtm_bio_of(io))) {
		dtm_begin_change(io, map_block_ready, 1);
		overwrite(io);
	} else if (of_origin == pool->block_sectors) {
		dtm_begin_change(io, map_block_ready, 1);
		copy(io, thin->origin_dev->bdev, begin, of_origin);
	} else if (of_origin) {
		/* Past its end there were zeroes, whatever is asked for of new blocks. */
		dtm_begin_change(io, map_block_ready, 2);
		io->zeroes_left = pool->block_sectors - of_origin;
		zero_some(io);
		copy(io, thin->origin_dev->bdev, begin, of_origin);
	} else if (pool->features.zero_new_blocks) {
		dtm_begin_change(io, map_block_ready, 1);
		io->zeroes_left = pool->block_sectors;
		zero_some(io);
	} else {
		io->status = BLK_STS_OK;
		map_block(io);
	}
}

static void fill_from_shared(struct dtm_io *io, u64 old_block)
{
	struct dtm_pool *pool = io->thin->pool;

	io->zeroes_left = 0;
	/* The copy, and the end of reads that are on their way to the old block. */
	dtm_begin_change(io, map_block_ready, 2);
	if (dtm_flights_after(&io->thin->traffic->flights, &io->list))
		dtm_awaited(io);
	if (covers_block(pool, dtm_bio_of(io)))
		overwrite(io);
	else
		copy(io, pool->data_bdev, dtm_sector_of(pool, old_block), pool->block_sectors);
}

void dtm_provision(struct dtm_io *io)
{
	struct dtm_thin *thin = io->thin;
	struct bio *bio = dtm_bio_of(io);
	struct dtm_mapping mapping;
	u64 block;
	int r;

	/* It may have changed since the bio was looked at. */
	r = dtm_device_find(thin->device, io->cell.begin, true, &mapping);
	if (r && r != -ENODATA) {
		dtm_fail(io, BLK_STS_IOERR);
		return;
	}
	if (!r && !mapping.shared) {
		dtm_release(io);
		dtm_map_later(thin, bio);
		return;
	}
	if (allocate(io, &block))
		return;
	io->block = block;
	io->copied = !r;
	io->old_block = r ? 0 : mapping.block;
	if (r)
		fill_hole(io);
	else
		fill_from_shared(io, mapping.block);
}
