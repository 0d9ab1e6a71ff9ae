// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a bio goes. Most find their block mapped and are sent to the data device at once, by
 * whoever submitted them. What has to change a mapping takes a cell and is left to the worker; what
 * would have to wait for metadata to be read is left to it as well.
 */

#include "pool.h"

static void end_bio(struct bio *bio, blk_status_t status)
{
	bio->bi_status = status;
	bio_endio(bio);
}

void dtm_defer(struct dtm_thin *thin, struct bio *bio)
{
	unsigned long flags;
	bool back;

	spin_lock_irqsave(&thin->lock, flags);
	/* With the gate closed nobody would come to give it back. */
	back = dtm_gives_back(thin);
	if (!back)
		bio_list_add(&thin->deferred, bio);
	spin_unlock_irqrestore(&thin->lock, flags);
	if (back)
		end_bio(bio, BLK_STS_DM_REQUEUE);
	else
		dtm_pool_wake(thin->pool);
}

void dtm_defer_list(struct bio_list *bios)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios)))
		dtm_defer(dtm_io_of(bio)->thin, bio);
}

/* ---- flights ------------------------------------------------------------------------------------
 */

static void end_turn(struct dtm_thin *thin, int turn)
{
	struct dtm_io *io, *more;
	LIST_HEAD(ready);

	dtm_flights_end(&thin->traffic->flights, turn, &ready);
	list_for_each_entry_safe(io, more, &ready, list) {
		list_del_init(&io->list);
		dtm_awaited(io);
	}
}

void dtm_end_flight(struct dtm_io *io)
{
	int turn = io->turn;

	if (turn < 0)
		return;
	io->turn = -1;
	end_turn(io->thin, turn);
}

static void aim(struct dtm_pool *pool, struct bio *bio, u64 block)
{
	bio_set_dev(bio, pool->data_bdev);
	bio->bi_iter.bi_sector = dtm_sector_of(pool, block) +
				 dtm_offset_in_block(pool, bio->bi_iter.bi_sector);
}

void dtm_send(struct dtm_thin *thin, struct bio *bio, u64 block)
{
	struct dtm_io *io = dtm_io_of(bio);

	io->turn = dtm_flights_begin(&thin->traffic->flights);
	if (io->turn < 0) { /* the gate closes: it is looked up again when it is open */
		dtm_defer(thin, bio);
		return;
	}
	aim(thin->pool, bio, block);
	dm_submit_bio_remap(bio, NULL);
}

/* ---- changes ------------------------------------------------------------------------------------
 */

void dtm_begin_change(struct dtm_io *io, void (*next)(struct dtm_io *io), int awaited)
{
	atomic_inc(&io->thin->pool->busy);
	io->next = next;
	io->status = BLK_STS_OK;
	INIT_LIST_HEAD(&io->list);
	atomic_set(&io->awaited, awaited);
}

void dtm_end_change(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;

	if (atomic_dec_and_test(&pool->busy))
		wake_up_all(&pool->idle);
}

void dtm_awaited(struct dtm_io *io)
{
	struct dtm_pool *pool = io->thin->pool;
	unsigned long flags;

	if (!atomic_dec_and_test(&io->awaited))
		return;
	spin_lock_irqsave(&pool->lock, flags);
	list_add_tail(&io->list, &pool->ready);
	dtm_pool_wake_locked(pool); /* from now on there may be nothing of it any more */
	spin_unlock_irqrestore(&pool->lock, flags);
}

void dtm_release(struct dtm_io *io)
{
	struct bio_list waiting;

	bio_list_init(&waiting);
	io->holds = false;
	dtm_cell_release(&io->thin->traffic->cells, &io->cell, &waiting);
	dtm_defer_list(&waiting);
}

void dtm_fail(struct dtm_io *io, blk_status_t status)
{
	dtm_release(io);
	end_bio(dtm_bio_of(io), status);
}

/* ---- mapping ------------------------------------------------------------------------------------
 */

enum way {
	WAY_SEND,  /* it is aimed at its place: submit it */
	WAY_TAKEN, /* it is done, or waits somewhere: it may not be touched any more */
	WAY_LATER, /* the worker has to do it */
	WAY_FAIL,
};

static bool is_discard(const struct bio *bio)
{
	return bio_op(bio) == REQ_OP_DISCARD;
}

/* Takes the cell of blocks whose mapping it has to change, and asks the worker for that. */
static void want_change(struct dtm_thin *thin, struct bio *bio, u64 begin, u64 end)
{
	struct dtm_io *io = dtm_io_of(bio);
	unsigned long flags;

	if (!dtm_cell_take(&thin->traffic->cells, &io->cell, bio, begin, end))
		return;
	io->holds = true;
	io->at = begin;
	spin_lock_irqsave(&thin->lock, flags);
	list_add_tail(&io->cell.list, &thin->cells_todo);
	spin_unlock_irqrestore(&thin->lock, flags);
	dtm_pool_wake(thin->pool);
}

/* What lies in the origin is read there, and beyond its end there are zeroes. */
static enum way read_hole(struct dtm_thin *thin, struct bio *bio)
{
	if (!thin->origin_dev || bio->bi_iter.bi_sector >= thin->origin_sectors) {
		zero_fill_bio(bio);
		bio_endio(bio);
		return WAY_TAKEN;
	}
	if (bio_end_sector(bio) > thin->origin_sectors) {
		/* Beyond the end there are zeroes; the part before it is read over them. */
		zero_fill_bio(bio);
		bio->bi_iter.bi_size = (thin->origin_sectors - bio->bi_iter.bi_sector)
				       << SECTOR_SHIFT;
	}
	bio_set_dev(bio, thin->origin_dev->bdev);
	return WAY_SEND;
}

static enum way discard_way(struct dtm_thin *thin, struct bio *bio)
{
	struct dtm_pool *pool = thin->pool;
	const u64 begin = dtm_block_of(pool, bio->bi_iter.bi_sector + pool->block_sectors - 1);
	const u64 end = dtm_block_of(pool, bio_end_sector(bio));

	if (!READ_ONCE(pool->features.discard)) {
		end_bio(bio, BLK_STS_NOTSUPP);
		return WAY_TAKEN;
	}
	if (!dtm_mode_may_change(READ_ONCE(pool->mode)))
		return WAY_FAIL;
	if (begin < end)
		want_change(thin, bio, begin, end);
	else
		bio_endio(bio); /* no whole block is in it */
	return WAY_TAKEN;
}

static void wait_for_commit(struct dtm_pool *pool, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&pool->lock, flags);
	bio_list_add(&pool->flushes, bio);
	spin_unlock_irqrestore(&pool->lock, flags);
	dtm_pool_wake(pool);
}

/*
 * A flush, or FUA. What has to be durable first is not yet: it waits for a commit. The mapping is
 * looked up before this, for one that was just made is to be durable as well.
 */
static enum way flush_way(struct dtm_thin *thin, struct bio *bio, bool committed)
{
	if (!committed && dtm_device_changed(thin->device)) {
		wait_for_commit(thin->pool, bio);
		return WAY_TAKEN;
	}
	/* In this order: without changes to commit they may just have been lost. */
	return dtm_device_lost_changes(thin->device) ? WAY_FAIL : WAY_SEND;
}

static enum way look_up(struct dtm_thin *thin, struct bio *bio, bool wait, bool committed)
{
	struct dtm_pool *pool = thin->pool;
	const u64 block = dtm_block_of(pool, bio->bi_iter.bi_sector);
	struct dtm_mapping mapping;
	enum way way = WAY_SEND;
	int r;

	if (dtm_cell_join(&thin->traffic->cells, bio, block, block + 1))
		return WAY_TAKEN;
	r = dtm_device_find(thin->device, block, wait, &mapping);
	if (!r && !(mapping.shared && op_is_write(bio_op(bio)))) {
		if (op_is_flush(bio->bi_opf))
			way = flush_way(thin, bio, committed);
		if (way == WAY_SEND)
			aim(pool, bio, mapping.block);
		return way;
	}
	if (r == -EWOULDBLOCK)
		return WAY_LATER;
	if (r && r != -ENODATA)
		return WAY_FAIL;
	if (r && !op_is_write(bio_op(bio)))
		return read_hole(thin, bio);
	if (!dtm_mode_may_change(READ_ONCE(pool->mode)))
		return WAY_FAIL;
	want_change(thin, bio, block, block + 1);
	return WAY_TAKEN;
}

static enum way find_way(struct dtm_thin *thin, struct bio *bio, bool wait)
{
	struct dtm_pool *pool = thin->pool;
	struct dtm_io *io = dtm_io_of(bio);
	/* Good for this attempt: while it waits for anything, more may be changed. */
	const bool committed = io->committed;
	enum way way;
	int turn;

	io->committed = false;
	if (READ_ONCE(pool->mode) == DTM_FAIL)
		return WAY_FAIL;
	/* Counted first, then looked up: see flights.h. */
	turn = dtm_flights_begin(&thin->traffic->flights);
	if (turn < 0)
		return WAY_LATER;
	if (is_discard(bio)) {
		way = discard_way(thin, bio);
	} else if (!bio_sectors(bio)) { /* a flush */
		way = flush_way(thin, bio, committed);
		if (way == WAY_SEND)
			bio_set_dev(bio, pool->data_bdev);
	} else {
		way = look_up(thin, bio, wait, committed);
	}
	if (way == WAY_SEND) {
		io->turn = turn;
		return way;
	}
	/* It may wait in a cell by now, and those that are given back have been looked for. The
	 * gate is not closed before the flight has ended, so the worker comes once more. */
	if (way == WAY_TAKEN && dtm_gives_back(thin))
		dtm_pool_wake(pool);
	end_turn(thin, turn);
	return way;
}

int dtm_map(struct dtm_thin *thin, struct bio *bio)
{
	struct dtm_io *io = dtm_io_of(bio);

	io->thin = thin;
	io->turn = -1;
	io->committed = false;
	io->overwrites = false;
	io->holds = false;
	if (dtm_gives_back(thin))
		return DM_MAPIO_REQUEUE;
	switch (find_way(thin, bio, false)) {
	case WAY_SEND:
		return DM_MAPIO_REMAPPED;
	case WAY_FAIL:
		return DM_MAPIO_KILL;
	case WAY_LATER:
		dtm_defer(thin, bio);
		break;
	case WAY_TAKEN:
		break;
	}
	return DM_MAPIO_SUBMITTED;
}

void dtm_map_later(struct dtm_thin *thin, struct bio *bio)
{
	switch (find_way(thin, bio, true)) {
	case WAY_SEND:
		dm_submit_bio_remap(bio, NULL);
		break;
	case WAY_FAIL:
		bio_io_error(bio);
		break;
	case WAY_LATER:
		dtm_defer(thin, bio);
		break;
	case WAY_TAKEN:
		break;
	}
}
