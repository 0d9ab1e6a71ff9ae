// SPDX-License-Identifier: GPL-2.0-only
/* Carries out what pure/mode.c decides. All of it under the pool's engine lock. */

#include "pool.h"

static void fill(struct dtm_pool *pool, struct dtm_mode_in *in, enum dtm_event event)
{
	struct dtm_metadata_sizes sizes = { 0 };

	(void)dtm_metadata_sizes(pool->metadata, &sizes); /* the last known ones will do */
	*in = (struct dtm_mode_in){
		.mode = pool->mode,
		.requested = pool->features.mode,
		.needs_check = dtm_metadata_needs_check(pool->metadata),
		.data_free = sizes.data_free > 0,
		.metadata_free = sizes.metadata_free > 0,
		.error_if_no_space = pool->features.error_if_no_space,
		.event = event,
	};
}

static void fail_completing(struct dtm_pool *pool)
{
	struct bio_list bios;
	struct bio *bio;

	bio_list_init(&bios);
	spin_lock_irq(&pool->lock);
	bio_list_merge(&bios, &pool->completing);
	bio_list_init(&pool->completing);
	spin_unlock_irq(&pool->lock);
	while ((bio = bio_list_pop(&bios)))
		bio_io_error(bio);
}

/*
 * It was read, and is not what was written. All else is the device's trouble, which has many names
 * (-EIO, -ENOLINK, -ETIMEDOUT, -ENODATA for a bad sector), or want of memory; it may be over soon.
 */
static bool is_damage(int r)
{
	return r == -EILSEQ || r == -ENOTBLK || r == -EINVAL;
}

static void abort_transaction(struct dtm_pool *pool)
{
	int r = dtm_metadata_abort(pool->metadata);

	fail_completing(pool);
	if (is_damage(r))
		dtm_pool_event(pool, DTM_EV_ABORT_FAILED);
	else if (r)
		DMERR("%s: what was committed cannot be read now (%d); it is tried again",
		      dm_device_name(pool->md), r);
}

static void need_check(struct dtm_pool *pool)
{
	dtm_events_add(&pool->events, DTM_CAUSE_NEEDS_CHECK, 1);
	if (dtm_metadata_set_needs_check(pool->metadata))
		DMERR("%s: needs_check could not be written yet; it is tried again",
		      dm_device_name(pool->md));
}

static bool apply(struct dtm_pool *pool, enum dtm_event event, bool more)
{
	const enum dtm_mode before = pool->mode;
	struct dtm_mode_out out;
	struct dtm_mode_in in;

	fill(pool, &in, event);
	in.data_free |= more;
	out = dtm_mode_next(&in);
	if (out.mode != before) {
		WRITE_ONCE(pool->mode, out.mode);
		dtm_events_add(&pool->events, DTM_CAUSE_MODE, out.mode);
		DMINFO("%s: %s -> %s", dm_device_name(pool->md), dtm_mode_text(before),
		       dtm_mode_text(out.mode));
	}
	if (out.todo & DTM_DO_ABORT)
		abort_transaction(pool);
	dtm_metadata_set_read_only(pool->metadata, !dtm_mode_may_change(pool->mode));
	if (out.todo & DTM_DO_NEEDS_CHECK)
		need_check(pool);
	if (event == DTM_EV_NO_SPACE_TIMEOUT && pool->mode == DTM_OUT_OF_DATA_SPACE) {
		pool->timed_out = true;
		dtm_events_add(&pool->events, DTM_CAUSE_TIMEOUT, 0);
	}
	if (out.todo & DTM_DO_ERROR_QUEUED)
		dtm_pool_error_waiting(pool);
	if (out.todo & DTM_DO_STOP_TIMEOUT || pool->mode != DTM_OUT_OF_DATA_SPACE) {
		pool->timed_out = false;
		cancel_delayed_work(&pool->no_space_timeout);
	}
	/* What waits is tried again after a resume, and waits anew. */
	if (event == DTM_EV_BIND || event == DTM_EV_RESUME)
		pool->timed_out = false;
	if (out.todo & DTM_DO_RETRY_QUEUED)
		dtm_pool_retry_waiting(pool);
	if ((out.todo & DTM_DO_EVENT) && pool->line)
		dm_table_event(pool->line->ti->table);
	return out.refused;
}

void dtm_pool_event(struct dtm_pool *pool, enum dtm_event event)
{
	lockdep_assert_held(&pool->engine);
	(void)apply(pool, event, false);
}

bool dtm_pool_bind_mode(struct dtm_pool *pool, bool more)
{
	lockdep_assert_held(&pool->engine);
	return apply(pool, DTM_EV_BIND, more);
}

void dtm_pool_metadata_failed(struct dtm_pool *pool, const char *what, int err)
{
	DMERR("%s: cannot %s: error %d; changes since the last commit are lost, the pool is "
	      "read-only until its metadata was checked",
	      dm_device_name(pool->md), what, err);
	dtm_pool_event(pool, DTM_EV_METADATA_FAILED);
	/* What of it could not be done now is the worker's to try again, and nothing else may come.
	 */
	dtm_pool_wake(pool);
}

void dtm_pool_change_failed(struct dtm_pool *pool, const char *what, int err)
{
	if (dtm_metadata_must_abort(pool->metadata))
		dtm_pool_metadata_failed(pool, what, err);
}

int dtm_pool_mend(struct dtm_pool *pool)
{
	int r = 0;

	lockdep_assert_held(&pool->engine);
	/* One that failed is not read any more: only another pool can take its place. */
	if (pool->mode != DTM_FAIL && dtm_metadata_is_broken(pool->metadata)) {
		r = dtm_metadata_mend(pool->metadata);
		if (!r)
			DMINFO("%s: metadata can be read again", dm_device_name(pool->md));
		else if (r == -ESTALE && pool->line) /* it could not be told at the resume */
			dtm_pool_event(pool, DTM_EV_ABORT_FAILED);
	}
	if (dtm_metadata_needs_check_unwritten(pool->metadata) &&
	    !dtm_metadata_set_needs_check(pool->metadata))
		DMINFO("%s: needs_check is written", dm_device_name(pool->md));
	return r;
}
