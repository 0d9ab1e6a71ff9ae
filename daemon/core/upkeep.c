/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks and safety copies of metadata at intervals, by themselves: of one pool at a time, as they
 * read much, and only of those that are up and well. One timer sleeps until the next is due. Of a
 * pool that is due but in no state for it nothing is asked meanwhile: the end of an operation, and
 * the looks at it, come here.
 */

#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

/* The longest sleep: the real time may be set, and the timer does not see it. */
#define SLEEP_USEC    (3600 * TM_USEC_PER_SEC)
#define ACCURACY_USEC TM_USEC_PER_SEC
/* When there was no memory. */
#define AGAIN_USEC (60 * TM_USEC_PER_SEC)

/* A check that was asked for: by the time of the answer the pool may be gone. */
struct asked {
	struct tm_core *core;
	struct tm_uuid pool;
};

/* Up, well, and with nothing under way that it would be in the way of. */
static bool can(const struct tm_pool *pool)
{
	return pool->state == TM_POOL_ACTIVE && pool->status_valid && !pool->status.failed &&
	       !pool->status.needs_check && pool->status.mode == TM_MODE_WRITE && !pool->running &&
	       !pool->queue && !pool->raising && !pool->unsettled;
}

static void note_failure(struct tm_pool *pool)
{
	pool->upkeep.failures.n++;
	pool->upkeep.failures.last_usec = tm_now_realtime_usec();
}

static void submitted(void *userdata, const struct tm_operation_record *op,
		      const struct tm_error *err)
{
	tm_auto_free struct asked *asked = userdata;
	struct tm_core *core = asked->core;
	struct tm_pool *pool = tm_core_find_pool(core, asked->pool.text);
	struct tm_log_fields fields = { .error = err };

	(void)op;
	if (!err)
		return; /* its end comes to tm_upkeep_ended */
	core->upkeep_busy = false;
	if (pool) {
		fields.pool = pool->record.name;
		tm_log_fields(LOG_WARNING, &fields,
			      "The metadata of pool %s is not checked by itself: %s",
			      pool->record.name, err->detail);
		note_failure(pool);
	}
	tm_upkeep_soon(core);
}

static bool ask(struct tm_pool *pool, bool copy)
{
	tm_auto_free struct tm_command *cmd = calloc(1, sizeof(*cmd));
	tm_auto_free struct asked *asked = calloc(1, sizeof(*asked));

	if (!cmd || !asked)
		return false;
	cmd->kind = TM_CMD_POOL_CHECK;
	(void)snprintf(cmd->pool, sizeof(cmd->pool), "%s", pool->record.id.text);
	cmd->pool_check.copy = copy;
	cmd->pool_check.by_itself = true;
	asked->core = pool->core;
	asked->pool = pool->record.id;
	pool->core->upkeep_busy = true;
	tm_core_submit(pool->core, TM_TAKE(cmd), false, submitted, TM_TAKE(asked));
	return true;
}

static int tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tm_core *core = userdata;
	const uint64_t now = tm_now_realtime_usec();
	struct tm_pool *chosen = NULL;
	uint64_t chosen_at = 0, sleep = SLEEP_USEC;
	bool copy = false;

	(void)usec;
	if (core->upkeep_busy) /* its end comes back here */
		return sd_event_source_set_enabled(source, SD_EVENT_OFF);
	for (size_t i = 0; i < core->n_pools; i++) {
		struct tm_pool *pool = core->pools[i];
		enum tm_due due;
		uint64_t at;

		pool->upkeep.waits = false;
		if (pool->state != TM_POOL_ACTIVE)
			continue;
		due = tm_due_decide(&pool->record, &pool->upkeep.failures, now, &at);
		if (due == TM_DUE_NOTHING) {
			if (at - now < sleep)
				sleep = at - now;
			continue;
		}
		pool->upkeep.waits = true;
		/* Who has waited longest has its turn. */
		if (!can(pool) || (chosen && at >= chosen_at))
			continue;
		chosen = pool;
		chosen_at = at;
		copy = due == TM_DUE_COPY;
	}
	if (chosen) {
		if (ask(chosen, copy))
			return sd_event_source_set_enabled(source, SD_EVENT_OFF);
		sleep = AGAIN_USEC;
	}
	(void)sd_event_source_set_time(source, tm_now_monotonic_usec() + sleep);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void tm_upkeep_soon(struct tm_core *core)
{
	const uint64_t now = tm_now_monotonic_usec();

	if (!core->system.ready || core->upkeep_busy || atomic_load(&core->stopping))
		return;
	if (!core->upkeep_timer) {
		(void)sd_event_add_time(core->event, &core->upkeep_timer, CLOCK_MONOTONIC, now,
					ACCURACY_USEC, tick, core);
		return;
	}
	(void)sd_event_source_set_time(core->upkeep_timer, now);
	(void)sd_event_source_set_enabled(core->upkeep_timer, SD_EVENT_ONESHOT);
}

void tm_upkeep_looked(struct tm_pool *pool)
{
	if (pool->upkeep.waits && can(pool))
		tm_upkeep_soon(pool->core);
}

void tm_upkeep_ended(const struct tm_op *op, struct tm_pool *pool)
{
	if (op->check.by_itself)
		op->core->upkeep_busy = false;
	if (pool && op->type->kind == TM_CMD_POOL_CHECK) {
		if (op->record.status == TM_OP_DONE)
			pool->upkeep = (struct tm_upkeep){ 0 };
		else
			note_failure(pool);
	}
	tm_upkeep_soon(op->core);
}

bool tm_upkeep_told(const struct tm_op *op, struct tm_pool *pool)
{
	const enum tm_error_code before = pool ? pool->upkeep.told : TM_OK;

	if (!pool || op->type->kind != TM_CMD_POOL_CHECK)
		return false;
	pool->upkeep.told = op->error.code;
	return op->check.by_itself && before == op->error.code;
}
