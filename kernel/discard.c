// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks given back. A discard holds the cell of all its whole blocks, waits once for the I/O that
 * is on its way to them, and goes from one mapped run to the next, or where the data device is not
 * told, over all of them.
 *
 * Telling the data device, safely:
 *
 * 1. A run that no snapshot shares is discarded while it is still mapped, and given back after
 *    that; so are those that follow it, together. A crash in between leaves them mapped with
 * undefined content, which is what a discard that was not acknowledged may do.
 * 2. A run that may be shared is given back first; only then can be told which of its blocks
 *    nobody uses any more. Those are discarded, with those of the runs that follow, and no
 *    transaction is committed until that has ended (pool->passdowns), for only a commit makes them
 *    free for others.
 * 3. A block that is unused by now only because another device has a copy of it instead, since the
 *    last commit, is what that device has after a crash. So that is committed first.
 */

#include "pool.h"

/* Each is a discard under way on the data device. */
#define RUNS_AT_ONCE 64
/* Blocks of runs that may be shared: who waits for a commit waits for their discards. */
#define SHARED_AT_ONCE 4096

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
	struct dtm_pool *pool = io->thin->pool;

	/* That the device did not want it is no error: the blocks are given back all the same. */
	bio_put(bio);
	if (io->run.shared && atomic_dec_and_test(&pool->passdowns))
		wake_up_all(&pool->idle);
	dtm_awaited(io);
}

/* Sends discards of data blocks [begin, end). Each is awaited. */
static void pass_down(struct dtm_io *io, u64 begin, u64 end)
{
	struct dtm_pool *pool = io->thin->pool;
	const sector_t most = rounddown(UINT_MAX >> SECTOR_SHIFT, pool->block_sectors);
	sector_t sector = dtm_sector_of(pool, begin);
	sector_t left = dtm_sector_of(pool, end) - sector;

	while (left) {
		const sector_t n = min(left, most);
		struct bio *bio = bio_alloc_bioset(pool->data_bdev, 0, REQ_OP_DISCARD, GFP_NOIO,
						   &pool->discards);

		bio->bi_iter.bi_sector = sector;
		bio->bi_iter.bi_size = n << SECTOR_SHIFT;
		bio->bi_private = io;
		bio->bi_end_io = passed_down;
		atomic_inc(&io->awaited);
		if (io->run.shared) /* it is free already */
			atomic_inc(&pool->passdowns);
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

static int unmap(struct dtm_io *io, u64 end)
{
	struct dtm_pool *pool = io->thin->pool;
	int r;

	if (!dtm_mode_may_change(pool->mode))
		return -EROFS;
	r = dtm_device_remove_range(io->thin->device, io->at, end);
	if (dtm_pool_commit_for_room(pool, r))
		r = dtm_device_remove_range(io->thin->device, io->at, end);
	if (r)
		dtm_pool_metadata_failed(pool, "give back blocks", r);
	else
		io->at = end;
	return r;
}

static void discarded(struct dtm_io *io)
{
	if (unmap(io, io->run.virtual_end))
		fail(io, BLK_STS_IOERR);
	else
		next_run(io);
}

/* Of runs that were shared and are given back already. */
static void discarded_shared(struct dtm_io *io)
{
	if (io->status)
		finish(io);
	else
		next_run(io);
}

/* Of a run that was shared and is given back: those that nobody uses any more. */
static int pass_down_unused(struct dtm_io *io, const struct dtm_run *run)
{
	struct dtm_pool *pool = io->thin->pool;
	const u64 end = run->block + (run->virtual_end - run->virtual_begin);
	u64 first = run->block, last;
	int r;

	for (; first < end; first = last) {
		last = end;
		r = dtm_metadata_find_unused_data(pool->metadata, &first, &last);
		if (r)
			return r == -ENODATA ? 0 : r;
		pass_down(io, first, last);
	}
	return 0;
}

/* Did a copy take the place of one of its blocks in this transaction? */
static bool was_left(const struct dtm_pool *pool, const struct dtm_run *run)
{
	return run->block < pool->left_end &&
	       run->block + (run->virtual_end - run->virtual_begin) > pool->left_begin;
}

/*
 * The run that was found, and those that follow it, as long as they are not shared: discarded on
 * the data device side by side, then unmapped with one call. io->run is what lies from the first to
 * the last of them; between them nothing is mapped, and nothing will be while the cell is held.
 */
static void pass_down_runs(struct dtm_io *io)
{
	struct dtm_run run = io->run;
	unsigned int n = 0;
	int r;

	for (;;) {
		pass_down(io, run.block, run.block + (run.virtual_end - run.virtual_begin));
		io->run.virtual_end = run.virtual_end;
		if (++n == RUNS_AT_ONCE)
			return;
		/* An error is met again when it is this run's turn. */
		r = dtm_device_find_run(io->thin->device, io->run.virtual_end, io->cell.end, &run);
		if (r || run.shared)
			return;
	}
}

/* Begun with 1: whether nothing more is awaited, so that the caller goes on. */
static bool all_here(struct dtm_io *io)
{
	return atomic_dec_and_test(&io->awaited);
}

/*
 * The run that was found, and those that follow it, as long as they may be shared as well: given
 * back one by one, and discarded side by side. True: go on with the next.
 */
static bool discard_shared(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	struct dtm_run run = io->run;
	unsigned int n = 0;
	u64 left = SHARED_AT_ONCE;
	int r;

	io->next = discarded_shared;
	atomic_set(&io->awaited, 1);
	for (;;) {
		run.virtual_end = min(run.virtual_end, run.virtual_begin + left);
		left -= run.virtual_end - run.virtual_begin;
		if (unmap(io, run.virtual_end)) {
			io->status = BLK_STS_IOERR; /* when those before it have ended */
			break;
		}
		r = pass_down_unused(io, &run);
		if (r) {
			DMERR("%s: cannot see which blocks are unused (%d): they are not discarded "
			      "on the data device",
			      dm_device_name(pool->md), r);
			dtm_pool_change_failed(pool, "count uses of blocks", r);
			break;
		}
		/* Many discards may be at it in one turn: together not more than one alone. */
		if (++n == RUNS_AT_ONCE || !left || dtm_engine_is_wanted(pool) ||
		    dtm_commit_is_awaited(pool) || atomic_read(&pool->passdowns) >= RUNS_AT_ONCE)
			break;
		/* An error is met again when it is this run's turn. */
		r = dtm_device_find_run(io->thin->device, io->at, io->cell.end, &run);
		if (r || !run.shared || was_left(pool, &run))
			break;
	}
	if (!all_here(io))
		return false;
	if (!io->status)
		return true;
	finish(io);
	return false;
}

/* The same of runs that are not. */
static bool discard_unshared(struct dtm_io *io)
{
	io->next = discarded;
	atomic_set(&io->awaited, 1);
	pass_down_runs(io);
	if (!all_here(io))
		return false;
	if (unmap(io, io->run.virtual_end)) {
		fail(io, BLK_STS_IOERR);
		return false;
	}
	return true;
}

/* Without telling the data device: run or not makes no difference. */
static bool discard_here(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	int r;

	r = dtm_device_remove_some(io->thin->device, &io->at, io->cell.end);
	if (dtm_pool_commit_for_room(pool, r))
		r = dtm_device_remove_some(io->thin->device, &io->at, io->cell.end);
	if (!r)
		return true;
	dtm_pool_metadata_failed(pool, "give back blocks", r);
	fail(io, BLK_STS_IOERR);
	return false;
}

static int find_next(struct dtm_io *io, bool passes_down)
{
	struct dtm_device *device = io->thin->device;

	return passes_down ? dtm_device_find_run(device, io->at, io->cell.end, &io->run)
			   : dtm_device_find_first(device, io->at, io->cell.end, &io->at);
}

/* It goes on from where it is in another turn. */
static void put_off(struct dtm_io *io)
{
	struct dtm_thin *thin = io->thin;

	spin_lock_irq(&thin->lock);
	list_add(&io->cell.list, &thin->cells_todo);
	spin_unlock_irq(&thin->lock);
	dtm_end_change(io);
}

static void next_run(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	bool on = true;
	int r;

	while (on) {
		const bool down = passes_down(pool);

		if (pool->gate_closing) { /* when the gate is open again */
			put_off(io);
			return;
		}
		if (!dtm_mode_may_change(pool->mode)) {
			fail(io, BLK_STS_IOERR);
			return;
		}
		r = find_next(io, down);
		if (r == -ENODATA) {
			finish(io);
			return;
		}
		if (r) {
			fail(io, BLK_STS_IOERR);
			return;
		}
		/* Or it would delay who waits for a commit for as long as discards come. */
		if (down && io->run.shared && (pool->commit_wanted || was_left(pool, &io->run))) {
			pool->commit_wanted = true;
			io->next = next_run;
			list_add_tail(&io->list, &pool->after_commit);
			return;
		}
		if (!down)
			on = discard_here(io);
		else if (io->run.shared)
			on = discard_shared(io);
		else
			on = discard_unshared(io);
		cond_resched();
		if (on && (dtm_engine_is_wanted(pool) || dtm_commit_is_awaited(pool))) {
			put_off(io);
			dtm_pool_wake(pool);
			return;
		}
	}
}

void dtm_discard(struct dtm_io *io)
{
	/* Those under way when the cell was taken; I/O that comes now waits for the cell. */
	dtm_begin_change(io, next_run, 1);
	if (dtm_flights_after(&io->thin->traffic->flights, &io->list))
		dtm_awaited(io);
}
