// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pool's worker. In a turn it finishes changes whose copies are made, begins those that bios
 * ask for, and commits when somebody waits for it or a second has passed. With nothing left to
 * commit it sleeps until it is woken.
 */

#include "pool.h"

#define COMMIT_PERIOD HZ
#define TURNS_AT_ONCE 64
/* At most, however many want it. */
#define ENGINE_LEFT_TO_OTHERS (HZ / 10)
/* I/O of one device, while somebody wants the engine. */
#define MAPPING_AT_ONCE (HZ / 100)

void dtm_pool_wake_locked(struct dtm_pool *pool)
{
	lockdep_assert_held(&pool->lock);
	if (pool->gate_closed)
		pool->work_noted = true;
	else if (pool->working)
		pool->again = true;
	else
		queue_work(pool->queue, &pool->work);
}

void dtm_pool_wake(struct dtm_pool *pool)
{
	unsigned long flags;

	spin_lock_irqsave(&pool->lock, flags);
	dtm_pool_wake_locked(pool);
	spin_unlock_irqrestore(&pool->lock, flags);
}

void dtm_pool_commit_tick(struct work_struct *work)
{
	dtm_pool_wake(container_of(to_delayed_work(work), struct dtm_pool, commit_tick));
}

/* ---- commits ------------------------------------------------------------------------------------
 */

int dtm_pool_commit(struct dtm_pool *pool)
{
	int r;

	lockdep_assert_held(&pool->engine);
	if (!dtm_metadata_changed(pool->metadata))
		return 0;
	if (!dtm_mode_may_change(pool->mode))
		return -EROFS;
	/*
	 * Blocks that are free already are being discarded: others may have them once this is
	 * committed, so not before that has ended. No more of it begins without the engine.
	 */
	wait_event(pool->idle, !atomic_read(&pool->passdowns));
	/* A mapping must not be found after a crash before the data it leads to. */
	r = blkdev_issue_flush(pool->data_bdev);
	if (r) {
		dtm_pool_metadata_failed(pool, "flush the data device before a commit", r);
		return r;
	}
	r = dtm_metadata_commit(pool->metadata);
	if (r) {
		dtm_pool_metadata_failed(pool, "commit", r);
		return r;
	}
	pool->last_commit = jiffies;
	pool->left_begin = pool->left_end = 0;
	/* What was committed is good; what is to follow it could not be prepared. Look-ups would
	 * fail until somebody else noticed. */
	if (dtm_metadata_must_abort(pool->metadata))
		dtm_pool_metadata_failed(pool, "begin a transaction", -EIO);
	return 0;
}

bool dtm_pool_commit_for_room(struct dtm_pool *pool, int r)
{
	return r == -ENOSPC && !dtm_metadata_must_abort(pool->metadata) &&
	       dtm_metadata_changed(pool->metadata) && !dtm_pool_commit(pool);
}

static bool commit_is_due(struct dtm_pool *pool)
{
	/* Not time_after_eq(): after weeks without a commit jiffies of 32 bits have gone half
	 * around, and it would take the last one for one that is yet to come. */
	return dtm_metadata_changed(pool->metadata) &&
	       !time_in_range(jiffies, pool->last_commit, pool->last_commit + COMMIT_PERIOD - 1);
}

bool dtm_commit_is_awaited(struct dtm_pool *pool)
{
	bool waits;

	spin_lock_irq(&pool->lock);
	waits = !bio_list_empty(&pool->flushes) || !bio_list_empty(&pool->completing);
	spin_unlock_irq(&pool->lock);
	return waits;
}

void dtm_pool_commit_and_tell(struct dtm_pool *pool)
{
	struct bio_list flushes, completing;
	bool data_flushed;
	struct bio *bio;
	int r;

	pool->commit_wanted = false;
	bio_list_init(&flushes);
	bio_list_init(&completing);
	spin_lock_irq(&pool->lock);
	bio_list_merge(&flushes, &pool->flushes);
	bio_list_init(&pool->flushes);
	bio_list_merge(&completing, &pool->completing);
	bio_list_init(&pool->completing);
	spin_unlock_irq(&pool->lock);

	data_flushed = dtm_metadata_changed(pool->metadata); /* by the commit, after they came */
	r = dtm_pool_commit(pool);
	while ((bio = bio_list_pop(&completing))) {
		bio->bi_status = r ? BLK_STS_IOERR : BLK_STS_OK;
		bio_endio(bio);
	}
	while ((bio = bio_list_pop(&flushes))) {
		struct dtm_io *io = dtm_io_of(bio);

		if (r) {
			bio_io_error(bio);
		} else if (data_flushed && !bio_sectors(bio)) {
			if (dtm_device_lost_changes(io->thin->device))
				bio->bi_status = BLK_STS_IOERR;
			bio_endio(bio);
		} else {
			io->committed = true;
			dtm_map_later(io->thin, bio);
		}
	}
	if (!list_empty(&pool->after_commit)) {
		spin_lock_irq(&pool->lock);
		list_splice_tail_init(&pool->after_commit, &pool->ready);
		spin_unlock_irq(&pool->lock);
		dtm_pool_wake(pool);
	}
}

static void commit_for_those_who_wait(struct dtm_pool *pool)
{
	if (!pool->commit_wanted && !dtm_commit_is_awaited(pool) && !commit_is_due(pool))
		return;
	/* What a commit has to wait for ends by itself, and wakes the worker; others go on
	 * meanwhile, but discards do not begin more of it. */
	pool->commit_wanted = true;
	if (!atomic_read(&pool->passdowns))
		dtm_pool_commit_and_tell(pool);
}

/* ---- a turn -------------------------------------------------------------------------------------
 */

/* False: there is more to do. */
static bool finish_ready(struct dtm_pool *pool)
{
	struct dtm_io *io;
	LIST_HEAD(ready);

	spin_lock_irq(&pool->lock);
	list_splice_init(&pool->ready, &ready);
	spin_unlock_irq(&pool->lock);
	while ((io = list_first_entry_or_null(&ready, struct dtm_io, list))) {
		list_del_init(&io->list);
		io->next(io);
		if (dtm_engine_is_wanted(pool))
			break;
	}
	if (list_empty(&ready))
		return true;
	spin_lock_irq(&pool->lock);
	list_splice(&ready, &pool->ready);
	spin_unlock_irq(&pool->lock);
	return false;
}

/* In the order of their blocks, so that what is next to each other in a device is allocated so. */
static int by_block(void *unused, const struct list_head *a, const struct list_head *b)
{
	const u64 first = list_entry(a, struct dtm_cell, list)->begin;
	const u64 second = list_entry(b, struct dtm_cell, list)->begin;

	return first < second ? -1 : first > second;
}

/* False: there is more to do. */
static bool process_thin(struct dtm_thin *thin)
{
	const unsigned long begun = jiffies;
	struct dtm_pool *pool = thin->pool;
	struct dtm_cell *cell, *more;
	struct bio_list deferred;
	struct blk_plug plug;
	LIST_HEAD(cells);
	struct bio *bio;
	bool all_mapped;

	bio_list_init(&deferred);
	spin_lock_irq(&thin->lock);
	bio_list_merge(&deferred, &thin->deferred);
	bio_list_init(&thin->deferred);
	spin_unlock_irq(&thin->lock);
	while ((bio = bio_list_pop(&deferred))) {
		dtm_map_later(thin, bio);
		/* It may have had to read metadata, and the next as well. */
		if (dtm_engine_is_wanted(pool) && time_after(jiffies, begun + MAPPING_AT_ONCE))
			break;
	}
	all_mapped = bio_list_empty(&deferred);

	spin_lock_irq(&thin->lock);
	bio_list_merge_head(&thin->deferred, &deferred);
	list_splice_init(&thin->cells_todo, &cells);
	spin_unlock_irq(&thin->lock);
	list_sort(NULL, &cells, by_block);
	blk_start_plug(&plug); /* blocks side by side may be filled with one request */
	list_for_each_entry_safe(cell, more, &cells, list) {
		struct dtm_io *io = container_of(cell, struct dtm_io, cell);

		list_del_init(&cell->list);
		if (bio_op(cell->holder) == REQ_OP_DISCARD)
			dtm_discard(io);
		else
			dtm_provision(io);
		/* Said in time: what is left may be used up before the turn is over. */
		dtm_pool_check_marks(pool);
		if (dtm_engine_is_wanted(pool))
			break;
	}
	blk_finish_plug(&plug);
	if (list_empty(&cells))
		return all_mapped;
	spin_lock_irq(&thin->lock);
	list_splice(&cells, &thin->cells_todo);
	spin_unlock_irq(&thin->lock);
	return false;
}

static void take_turn(struct dtm_pool *pool)
{
	struct dtm_thin *thin;
	bool closing, more;

	/* A mutex does not mind who waited longer. */
	wait_event_timeout(pool->idle, !dtm_engine_is_wanted(pool), ENGINE_LEFT_TO_OTHERS);
	mutex_lock(&pool->engine);
	dtm_metadata_prefetch(pool->metadata);
	(void)dtm_pool_mend(pool);
	more = !finish_ready(pool);
	spin_lock_irq(&pool->lock);
	closing = pool->gate_closing;
	spin_unlock_irq(&pool->lock);
	list_for_each_entry(thin, &pool->thins, list) {
		/* A suspend of the device alone must not wait for the pool's resume. */
		if (dtm_gives_back(thin))
			dtm_give_back(thin);
		else if (!closing && !process_thin(thin))
			more = true;
	}
	commit_for_those_who_wait(pool);
	dtm_pool_check_marks(pool);
	if (!closing && (dtm_metadata_changed(pool->metadata) ||
			 (pool->mode != DTM_FAIL && dtm_metadata_is_broken(pool->metadata)) ||
			 dtm_metadata_needs_check_unwritten(pool->metadata)))
		queue_delayed_work(pool->queue, &pool->commit_tick, COMMIT_PERIOD);
	mutex_unlock(&pool->engine);
	if (more)
		dtm_pool_wake(pool);
}

/*
 * Who wakes the worker meanwhile only says so: that is cheaper than to queue it each time. Now and
 * then it queues itself, for the timeout for space waits for its turn in the same queue.
 */
void dtm_pool_work(struct work_struct *work)
{
	struct dtm_pool *pool = container_of(work, struct dtm_pool, work);
	unsigned int turns = 0;
	bool again;

	spin_lock_irq(&pool->lock);
	pool->working = true;
	pool->again = false;
	spin_unlock_irq(&pool->lock);
	do {
		take_turn(pool);
		cond_resched();
		spin_lock_irq(&pool->lock);
		again = pool->again;
		pool->again = false;
		pool->working = again && ++turns < TURNS_AT_ONCE;
		spin_unlock_irq(&pool->lock);
	} while (again && turns < TURNS_AT_ONCE);
	if (again)
		dtm_pool_wake(pool);
}

/* ---- the gate ---------------------------------------------------------------------------- */

void dtm_pool_close_gate(struct dtm_pool *pool)
{
	struct dtm_thin *thin;

	spin_lock_irq(&pool->lock);
	pool->gate_closing = true;
	list_for_each_entry(thin, &pool->thins, list)
		dtm_flights_close(&thin->traffic->flights);
	spin_unlock_irq(&pool->lock);
	/* A turn that did not see it yet is over after this. Then nothing begins any more; what has
	 * begun may need the worker to end. */
	dtm_engine_lock(pool);
	dtm_engine_unlock(pool);
	wait_event(pool->idle, !atomic_read(&pool->busy) && !atomic_read(&pool->passdowns));
	dtm_engine_lock(pool); /* flights end without it; devices come and go with it */
	list_for_each_entry(thin, &pool->thins, list)
		dtm_flights_drain(&thin->traffic->flights);
	dtm_engine_unlock(pool);
	spin_lock_irq(&pool->lock);
	pool->gate_closed = true;
	pool->work_noted = true;
	spin_unlock_irq(&pool->lock);
	cancel_delayed_work_sync(&pool->commit_tick);
	cancel_delayed_work_sync(&pool->no_space_timeout);
	flush_work(&pool->work);
}

void dtm_pool_open_gate(struct dtm_pool *pool)
{
	struct dtm_thin *thin;

	spin_lock_irq(&pool->lock);
	pool->gate_closing = false;
	pool->gate_closed = false;
	list_for_each_entry(thin, &pool->thins, list)
		dtm_flights_open(&thin->traffic->flights);
	if (pool->work_noted)
		queue_work(pool->queue, &pool->work);
	pool->work_noted = false;
	spin_unlock_irq(&pool->lock);
}
