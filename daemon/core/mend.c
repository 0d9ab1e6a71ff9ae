/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Repair by itself: a pool whose metadata broke, and whose policy says so, is repaired the moment
 * nobody uses its volumes. Whether somebody does is asked of the kernel a few times a second, only
 * while a pool waits, and of the volume that was last found in use first: one ioctl. By force it is
 * repaired at once, and who can let go of volumes is made to. Where somebody cannot, and so was in
 * the way, that is tried again less and less often, as it disturbs others.
 */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

#define ASK_USEC (250 * TM_USEC_PER_MSEC)

/* Who uses the volumes is found out again so often: some may have let go. */
#define HOLDERS_USEC (3 * TM_USEC_PER_SEC)

/* So often a volume may be found in use by nobody who can be seen before that is told. */
#define PASSING_TIMES 20

/* How long those in the way of a repair by force are left in peace, at first and at most. */
#define AGAIN_USEC      (10 * TM_USEC_PER_SEC)
#define AGAIN_DOUBLINGS 6

/* A repair that was asked for: by the time of the answer the pool may be gone. */
struct asked {
	struct tm_core *core;
	struct tm_uuid pool;
};

static bool broken(const struct tm_pool *pool)
{
	if (pool->state == TM_POOL_ACTIVE)
		/* Full metadata without needs_check is mended by more of it. */
		return pool->status_valid && (pool->status.failed || pool->status.needs_check ||
					      pool->status.mode == TM_MODE_FAIL);
	return pool->state == TM_POOL_INACTIVE && pool->damaged;
}

/* Broken, to be mended without being asked, and nothing under way that may do so. */
static bool waits(const struct tm_pool *pool)
{
	return pool->record.policy.repair != TM_REPAIR_MANUAL && !pool->mend.tried &&
	       !pool->mend.asked && !pool->running && !pool->queue && !pool->raising &&
	       !pool->unsettled && broken(pool);
}

static bool by_force(const struct tm_pool *pool)
{
	return pool->record.policy.repair == TM_REPAIR_FORCE;
}

/* Takes @text; NULL: it waits for nobody. */
static void set_waits_for(struct tm_pool *pool, char *text)
{
	struct tm_mend *m = &pool->mend;

	if (!text == !m->waits_for && (!text || strcmp(text, m->waits_for) == 0)) {
		free(text);
		return;
	}
	free(m->waits_for);
	m->waits_for = text;
	tm_pool_touch(pool);
}

static bool in_use(struct tm_pool *pool, size_t i)
{
	struct tm_dm_info info;

	return pool->volumes[i].active &&
	       tm_parts_ours(pool->core, &pool->record, TM_ROLE_VOLUME, &pool->volumes[i].record,
			     &info, NULL) > 0 &&
	       info.open_count > 0;
}

static bool any_in_use(struct tm_pool *pool)
{
	if (pool->mend.last_used < pool->n_volumes && in_use(pool, pool->mend.last_used))
		return true;
	for (size_t i = 0; i < pool->n_volumes; i++) {
		if (!in_use(pool, i))
			continue;
		pool->mend.last_used = i;
		return true;
	}
	return false;
}

static void submitted(void *userdata, const struct tm_operation_record *op,
		      const struct tm_error *err)
{
	struct asked *asked = userdata;
	struct tm_pool *pool = tm_core_find_pool(asked->core, asked->pool.text);
	struct tm_log_fields fields = { .error = err };

	(void)op;
	if (pool) {
		pool->mend.asked = false;
		/* Refused: what is in the way is told, and not run into again and again. */
		pool->mend.tried = err && err->code != TM_ERR_TOO_MANY;
		fields.pool = pool->record.name;
		if (err)
			tm_log_fields(LOG_ERR, &fields, "Pool %s is not repaired by itself: %s",
				      pool->record.name, err->detail);
	}
	free(asked);
}

static void ask(struct tm_pool *pool)
{
	struct tm_command *cmd = calloc(1, sizeof(*cmd));
	struct asked *asked = calloc(1, sizeof(*asked));

	if (!cmd || !asked) { /* the next tick tries again */
		free(cmd);
		free(asked);
		return;
	}
	cmd->kind = TM_CMD_POOL_REPAIR;
	(void)snprintf(cmd->pool, sizeof(cmd->pool), "%s", pool->record.id.text);
	asked->core = pool->core;
	asked->pool = pool->record.id;
	pool->mend.asked = true;
	tm_core_submit(pool->core, cmd, false, submitted, asked);
}

/* Who holds it is found out from thousands of files: not by the main loop. */
struct asking_holders {
	struct tm_core *core;
	struct tm_pool_record pool;
	struct tm_volume_record *volumes; /* owned */
	size_t n_volumes;
	struct tm_holding holding;
	struct tm_error err;
};

static void told_holders(void *arg)
{
	struct asking_holders *a = arg;
	struct tm_pool *pool = tm_core_find_pool(a->core, a->pool.id.text);
	struct tm_event_spec spec = { .type = TM_EVENT_REPAIR_WAITS, .pool = pool };
	char text[512];
	json_t *data, *holders;

	/* udev, perhaps: it is not worth telling unless it stays so. */
	if (pool && !a->err.code && !a->holding.holders.n && pool->mend.passing++ < PASSING_TIMES) {
		if (!pool->mend.told)
			pool->mend.seen_usec = 0;
		goto done;
	}
	if (a->err.code)
		(void)snprintf(text, sizeof(text), "who does could not be found out (%.200s)",
			       a->err.detail);
	else
		(void)tm_holding_text(&a->holding, text, sizeof(text));
	/* By now they may all have let go: then it is under way. */
	if (pool && (a->holding.n_devices || a->err.code) && waits(pool)) {
		holders = tm_holding_json(&a->holding);
		set_waits_for(pool, holders ? json_dumps(holders, JSON_COMPACT) : NULL);
		if (pool->mend.told) {
			json_decref(holders);
			goto done;
		}
		pool->mend.told = true;
		data = json_pack("{s:o}", "holders", holders);
		spec.data = data ? json_dumps(data, JSON_COMPACT) : NULL;
		spec.volume = a->holding.n_devices ? a->holding.names[0] : NULL;
		json_decref(data);
		tm_record_event(
			a->core, &spec,
			"Pool %s has to be repaired, and is once nobody uses its volumes: %s.",
			pool->record.name, text);
	}
done:
	tm_holding_done(&a->holding);
	free(a->volumes);
	free(a);
}

static void ask_holders(void *arg)
{
	struct asking_holders *a = arg;

	(void)tm_parts_holders(a->core, &a->pool, a->volumes, a->n_volumes, &a->holding, &a->err);
	tm_mailbox_post(a->core->mailbox, told_holders, a);
}

static void tell_waiting(struct tm_pool *pool)
{
	const uint64_t now = tm_now_monotonic_usec();
	struct asking_holders *a;

	if (pool->mend.seen_usec && now - pool->mend.seen_usec < HOLDERS_USEC)
		return;
	a = calloc(1, sizeof(*a));
	if (a)
		a->volumes = calloc(pool->n_volumes, sizeof(*a->volumes));
	if (!a || !a->volumes) { /* the next tick tries again */
		free(a);
		return;
	}
	pool->mend.seen_usec = now;
	a->core = pool->core;
	a->pool = pool->record;
	a->n_volumes = pool->n_volumes;
	for (size_t i = 0; i < pool->n_volumes; i++)
		a->volumes[i] = pool->volumes[i].record;
	tm_crew_run(pool->core->workers, ask_holders, a);
}

/* One look at a pool that may wait: whether it still does. */
static bool look_after(struct tm_pool *pool)
{
	if (!waits(pool)) {
		set_waits_for(pool, NULL);
		return false;
	}
	if (by_force(pool) ? tm_now_monotonic_usec() >= pool->mend.again_usec || !any_in_use(pool)
			   : !any_in_use(pool)) {
		ask(pool);
		if (pool->mend.asked)
			set_waits_for(pool, NULL);
		return !pool->mend.asked;
	}
	/* By force the repair itself has told who is in the way. */
	if (!by_force(pool))
		tell_waiting(pool);
	return true;
}

static int tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tm_core *core = userdata;
	bool more = false;

	for (size_t i = 0; i < core->n_pools; i++)
		more = look_after(core->pools[i]) || more;
	if (!more)
		return sd_event_source_set_enabled(source, SD_EVENT_OFF);
	(void)sd_event_source_set_time(source, usec + ASK_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void tm_pool_mend(struct tm_pool *pool)
{
	struct tm_core *core = pool->core;
	const uint64_t now = tm_now_monotonic_usec();

	/* Of one that has just come up it is not known yet. */
	if (pool->state == TM_POOL_ACTIVE && !pool->status_valid)
		return;
	if (!broken(pool)) {
		set_waits_for(pool, NULL);
		pool->mend = (struct tm_mend){ .asked = pool->mend.asked };
		return;
	}
	if (!waits(pool))
		return;
	if (!core->mend_timer) {
		(void)sd_event_add_time(core->event, &core->mend_timer, CLOCK_MONOTONIC, now,
					50 * TM_USEC_PER_MSEC, tick, core);
		return;
	}
	(void)sd_event_source_set_time(core->mend_timer, now);
	(void)sd_event_source_set_enabled(core->mend_timer, SD_EVENT_ONESHOT);
}

void tm_pool_mend_later(struct tm_pool *pool)
{
	struct tm_mend *m = &pool->mend;

	m->again_usec = tm_now_monotonic_usec() + (AGAIN_USEC << m->refused);
	if (m->refused < AGAIN_DOUBLINGS)
		m->refused++;
}
