// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks given back. A discard holds the cell of all its whole blocks, waits once for the I/O that
 * is on its way to them, and goes from one mapped run to the next.
 *
 * Telling the data device, safely:
 *
 * 1. A run that no snapshot shares is discarded while it is still mapped, and given back after
 * that. A crash in between leaves it mapped with undefined content, which is what a discard that
 * was not acknowledged may do.
 * 2. A run that may be shared is given back first; only then can be told which of its blocks
 *    nobody uses any more. Those are discarded, and no transaction is committed until that has
 *    ended (pool->passdowns), for only a commit makes them free for others.
 */

#include "pool.h"

static void next_run(struct dtm_io *io);

static void finish(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	struct bio *bio = dtm_bio_of(io);
	const blk_status_t status = io->status;

	dtm_release(io);
	bio->bi_status = status;
	bio_endio(bio);
	if (atomic_dec_and_test(&pool->busy))
		wake_up_all(&pool->idle);
}

static void fail(struct dtm_io *io, blk_status_t status)
{
	io->status = status;
	finish(io);
}

/* ---- the data device --------------------------------------------------------------------- */

static void passed_down(struct bio *bio)
{
	struct dtm_io *io = bio->bi_private;

	/* That the device did not want it is no error: the blocks are given back all the same. */
	bio_put(bio);
	dtm_awaited(io);
}

/* Sends discards of data blocks [begin, end). Each is awaited. */
static void pass_down(struct dtm_io *io, u64 begin, u64 end)
{
	struct dtm_pool *pool = io->thin->pool;
	const sector_t most = round_down(UINT_MAX >> SECTOR_SHIFT, pool->block_sectors);
	sector_t sector = dtm_sector_of(pool, begin);
	sector_t left = dtm_sector_of(pool, end) - sector;

	while (left) {
		const sector_t n = min(left, most);
		struct bio *bio = bio_alloc(pool->data_bdev, 0, REQ_OP_DISCARD, GFP_NOIO);

		bio->bi_iter.bi_sector = sector;
		bio->bi_iter.bi_size = n << SECTOR_SHIFT;
		bio->bi_private = io;
		bio->bi_end_io = passed_down;
		atomic_inc(&io->awaited);
		submit_bio(bio);
		sector += n;
		left -= n;
	}
}

static bool passes_down(struct dtm_pool *pool)
{
	return pool->features.discard_passdown && pool->line && pool->line->passdown;
}

/* ---- runs -------------------------------------------------------------------------------- */

static int unmap(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	int r;

	if (!dtm_mode_may_change(pool->mode))
		return -EROFS;
	r = dtm_device_remove_range(io->thin->device, io->run.virtual_begin, io->run.virtual_end);
	if (r)
		dtm_pool_metadata_failed(pool, "give back blocks", r);
	return r;
}

static void discarded(struct dtm_io *io)
{
	if (unmap(io)) {
		fail(io, BLK_STS_IOERR);
		return;
	}
	io->at = io->run.virtual_end;
	next_run(io);
}

static void discarded_unshared(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;

	if (atomic_dec_and_test(&pool->passdowns))
		wake_up_all(&pool->idle);
	dtm_pool_wake(pool); /* somebody may wait for a commit */
	io->at = io->run.virtual_end;
	next_run(io);
}

/* Of a run that was shared and is given back: those that nobody uses any more. */
static int pass_down_unused(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	const u64 end = io->run.block + (io->run.virtual_end - io->run.virtual_begin);
	u64 first = io->run.block;

	while (first < end) {
		bool used = true;
		u64 last;
		int r;

		for (; first < end && used; first++) {
			r = dtm_metadata_data_is_used(pool->metadata, first, &used);
			if (r)
				return r;
			if (!used)
				break;
		}
		if (first == end)
			break;
		for (last = first + 1; last < end; last++) {
			r = dtm_metadata_data_is_used(pool->metadata, last, &used);
			if (r)
				return r;
			if (used)
				break;
		}
		pass_down(io, first, last);
		first = last;
	}
	return 0;
}

static void next_run(struct dtm_io *io)
{
	struct dtm_thin *thin = io->thin;
	struct dtm_pool *pool = thin->pool;
	int r;

	for (;;) {
		if (pool->gate_closing) { /* it goes on when the gate is open again */
			spin_lock_irq(&thin->lock);
			list_add(&io->cell.list, &thin->cells_todo);
			spin_unlock_irq(&thin->lock);
			dtm_end_change(io);
			return;
		}
		if (!dtm_mode_may_change(pool->mode)) {
			fail(io, BLK_STS_IOERR);
			return;
		}
		r = dtm_device_find_run(thin->device, io->at, io->cell.end, &io->run);
		if (r == -ENODATA) {
			finish(io);
			return;
		}
		if (r) {
			fail(io, BLK_STS_IOERR);
			return;
		}
		atomic_set(&io->awaited, 1);
		if (passes_down(pool) && !io->run.shared) {
			io->next = discarded;
			pass_down(io, io->run.block,
				  io->run.block + (io->run.virtual_end - io->run.virtual_begin));
			dtm_awaited(io);
			return;
		}
		if (unmap(io)) {
			fail(io, BLK_STS_IOERR);
			return;
		}
		if (passes_down(pool)) {
			io->next = discarded_unshared;
			atomic_inc(&pool->passdowns);
			r = pass_down_unused(io);
			if (r) {
				DMERR("%s: cannot see which blocks are unused (%d): they are not "
				      "discarded on the data device",
				      dm_device_name(pool->md), r);
				dtm_pool_change_failed(pool, "count uses of blocks", r);
			}
			dtm_awaited(io);
			return;
		}
		io->at = io->run.virtual_end;
		cond_resched();
	}
}

void dtm_discard(struct dtm_io *io)
{
	/* Those under way when the cell was taken; I/O that comes now waits for the cell. */
	dtm_begin_change(io, next_run, 1);
	if (dtm_flights_after(&io->thin->flights, &io->list))
		dtm_awaited(io);
}
