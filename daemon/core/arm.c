/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Arming: the next step's space is put under a pool's devices before it is needed, so that an
 * extension only has to change the pool's table. The kernel takes more data space into use only
 * with a longer table; metadata it takes at any resume, so that is armed only when it is near its
 * mark. And room for a repair is set aside, which nothing but a repair takes.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backing/spare.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

enum { WAITING, WORKING, CALLED_OFF };

struct tm_arm {
	struct tm_core *core;
	atomic_int state;
	struct tm_pool_record record;
	uint64_t data_bytes, metadata_bytes; /* to lie below; 0: leave it */
	uint64_t data_usec, metadata_usec;
	uint64_t spare_bytes; /* to be set aside for a repair; 0: leave it */
	bool spared;
	struct tm_error err, spare_err;
};

static int lay(struct tm_arm *a, enum tm_part part, uint64_t bytes, uint64_t *ret_usec)
{
	const uint64_t began = tm_now_monotonic_usec();
	int r;

	r = tm_parts_lay(a->core, &a->record, part, bytes, &a->err);
	if (r >= 0)
		*ret_usec = tm_now_monotonic_usec() - began;
	return r;
}

static void arm_done(void *arg)
{
	struct tm_arm *a = arg;
	struct tm_core *core = a->core;
	struct tm_pool *pool = tm_core_find_pool(core, a->record.id.text);

	if (pool && pool->arming == a) {
		pool->arming = NULL;
		if (a->data_usec) {
			tm_latency_add(&pool->data.arming, a->data_usec);
			pool->record.data_reserve_bytes = a->data_bytes - pool->record.data_bytes;
		}
		if (a->metadata_usec) {
			tm_latency_add(&pool->metadata.arming, a->metadata_usec);
			pool->record.metadata_reserve_bytes = a->metadata_bytes -
							      pool->record.metadata_bytes;
		}
		if (a->data_usec || a->metadata_usec) {
			(void)tm_backoff_clear(&pool->arm_backoff);
			tm_record_sizes(core, pool, false);
			tm_pool_touch(pool);
		}
		if (a->err.code && tm_backoff_fail(&pool->arm_backoff, tm_now_monotonic_usec())) {
			struct tm_log_fields fields = { .pool = pool->record.name,
							.error = &a->err };

			/* Not an event: an extension that really lacks space will be one. */
			tm_log_fields(LOG_WARNING, &fields,
				      "Space for the next extension of pool %s could not be set "
				      "aside: %s",
				      pool->record.name, a->err.detail);
		}
		if (a->spared) {
			pool->spare_bytes = a->spare_bytes;
			(void)tm_backoff_clear(&pool->spare_backoff);
		} else if (a->spare_bytes &&
			   tm_backoff_fail(&pool->spare_backoff, tm_now_monotonic_usec())) {
			struct tm_log_fields fields = { .pool = pool->record.name,
							.error = &a->spare_err };

			tm_log_fields(LOG_WARNING, &fields,
				      "Space for a repair of pool %s could not be set aside: %s",
				      pool->record.name, a->spare_err.detail);
		}
		if (pool->look_again) {
			pool->look_again = false;
			tm_pool_look(pool, pool->look_again_seen_usec);
		}
		tm_pool_run_queue(pool);
	}
	free(a);
}

static void arm_job(void *arg)
{
	struct tm_arm *a = arg;
	int waiting = WAITING;

	if (!atomic_compare_exchange_strong(&a->state, &waiting, WORKING)) {
		free(a);
		return;
	}
	/* One that cannot be had keeps none from the other. */
	if (a->metadata_bytes)
		(void)lay(a, TM_PART_METADATA, a->metadata_bytes, &a->metadata_usec);
	if (a->data_bytes)
		(void)lay(a, TM_PART_DATA, a->data_bytes, &a->data_usec);
	if (a->spare_bytes)
		a->spared = tm_spare_keep(&a->record, a->spare_bytes, &a->spare_err) >= 0;
	tm_mailbox_post(a->core->mailbox, arm_done, a);
}

bool tm_pool_call_off_arm(struct tm_pool *pool)
{
	int waiting = WAITING;

	if (!pool->arming ||
	    !atomic_compare_exchange_strong(&pool->arming->state, &waiting, CALLED_OFF))
		return false;
	pool->arming = NULL; /* the thread that comes upon it frees it */
	return true;
}

/* How much is to be set aside for a repair, if that is more than there is. */
static uint64_t wanted_spare(const struct tm_pool *pool)
{
	const struct tm_pool_record *p = &pool->record;
	const uint64_t wanted = tm_repair_extended(p,
						   p->metadata_bytes + p->metadata_reserve_bytes);

	return pool->spare_bytes < wanted &&
			       tm_backoff_allows(&pool->spare_backoff, tm_now_monotonic_usec())
		       ? wanted
		       : 0;
}

void tm_pool_arm(struct tm_pool *pool)
{
	struct tm_core *core = pool->core;
	const bool data = pool->data.want_reserve_bytes > pool->record.data_reserve_bytes;
	const bool metadata = pool->metadata.want_reserve_bytes >
			      pool->record.metadata_reserve_bytes;
	struct tm_arm *a;
	bool space;
	uint64_t spare;

	if (pool->arming || pool->looking || pool->state != TM_POOL_ACTIVE ||
	    (pool->running && pool->running->type->stops_extension))
		return;
	space = (data || metadata) &&
		tm_backoff_allows(&pool->arm_backoff, tm_now_monotonic_usec());
	spare = wanted_spare(pool);
	if (!space && !spare)
		return;
	/* Waiting operations go first only when they need the extension machinery to rest. */
	if (!pool->running && pool->queue && pool->queue->op->type->stops_extension)
		return;
	a = calloc(1, sizeof(*a));
	if (!a)
		return;
	a->core = core;
	a->record = pool->record;
	a->spare_bytes = spare;
	if (space && data)
		a->data_bytes = pool->record.data_bytes + pool->data.want_reserve_bytes;
	if (space && metadata)
		a->metadata_bytes = pool->record.metadata_bytes + pool->metadata.want_reserve_bytes;
	pool->arming = a;
	tm_crew_run(core->arming, arm_job, a);
}
