/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The steps of a repair that take mounts and swap off the volumes, and give them back; and the same
 * for what a daemon that was killed in between has left.
 *
 * After a restart none of the steps gives anything back: a unit of systemd's that is ordered after
 * thinmgrd starts only once that is ready, which it is not before operations are settled, and
 * volumes may not be active yet. So it is done right after.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "core/internal.h"
#include "core/op-types.h"
#include "core/released.h"

/* What an earlier repair owes is not forgotten over this one. One that cannot be read is. */
static void take_over(const char *path, const char *pool, struct tm_released_list *l)
{
	struct tm_error err = { 0 };
	struct tm_log_fields fields = { .pool = pool, .error = &err };

	tm_released_done(l);
	if (tm_released_load(path, l, &err) < 0)
		tm_log_fields(LOG_ERR, &fields,
			      "What was unmounted of pool %s is not mounted again: %s", pool,
			      err.detail);
}

int tm_step_plan_release(struct tm_op *op, struct tm_error *err)
{
	tm_cleanup(tm_holding_done) struct tm_holding holding = { 0 };
	char path[TM_PATH_SIZE];
	int r;

	tm_released_path(path, &op->pool.id);
	take_over(path, op->pool.name, &op->repair.released);
	op->repair.released.repaired = false;
	tm_released_leave_nothing(&op->repair.released);
	if (!op->repair.force || !op->pool_was_active)
		return 0;
	r = tm_parts_holders(op->core, &op->pool, op->volumes, op->n_volumes, &holding, err);
	if (r >= 0)
		r = tm_released_plan(&holding, op->pool.name, op->volumes, op->n_volumes,
				     &op->repair.released, err);
	return r < 0 ? r : tm_released_save(path, &op->repair.released, err);
}

int tm_step_release(struct tm_op *op, struct tm_error *err)
{
	return op->repair.force ? tm_released_take(&op->repair.released, op->pool.name, err) : 0;
}

/* What fails is told, and tried again by the next repair or start; the pool is not worse for it. */
int tm_step_release_undo(struct tm_op *op, struct tm_error *err)
{
	struct tm_released_list *l = &op->repair.released;
	struct tm_error why = { 0 };
	struct tm_log_fields fields = { .pool = op->pool.name,
					.operation = op->record.id.text,
					.error = &why };
	char path[TM_PATH_SIZE];

	tm_released_path(path, &op->pool.id);
	if (op->recovering) {
		take_over(path, op->pool.name, l);
		tm_released_leave_nothing(l);
		l->repaired = false;
		return tm_released_save(path, l, err);
	}
	json_decref(op->repair.back);
	json_decref(op->repair.off);
	if (tm_released_give_back(l, op->pool.name, op->volumes, op->n_volumes, false,
				  &op->repair.back, &op->repair.off, &why))
		tm_log_fields(LOG_ERR, &fields,
			      "Not all that was taken off volumes of pool %s is back: %s",
			      op->pool.name, why.detail);
	return tm_released_save(path, l, err);
}

int tm_step_restore(struct tm_op *op, struct tm_error *err)
{
	struct tm_released_list *l = &op->repair.released;
	struct tm_error why = { 0 };
	char path[TM_PATH_SIZE];
	size_t failed;

	tm_released_path(path, &op->pool.id);
	if (op->recovering) {
		take_over(path, op->pool.name, l);
		l->repaired = true;
		return tm_released_save(path, l, err);
	}
	if (!l->n)
		return 0;
	json_decref(op->repair.back);
	json_decref(op->repair.off);
	failed = tm_released_give_back(l, op->pool.name, op->volumes, op->n_volumes, true,
				       &op->repair.back, &op->repair.off, &why);
	tm_released_done(l);
	if (tm_released_save(path, l, err) < 0)
		return -EIO;
	return failed ? tm_error_set(err, TM_ERR_IO, EIO,
				     "Not all that was taken off volumes of pool %s is back: %s",
				     op->pool.name, why.detail)
		      : 0;
}

/* ---- after a restart ------------------------------------------------------------------------ */

struct giving {
	struct tm_core *core;
	struct tm_pool_record pool;
	struct tm_volume_record *volumes; /* owned */
	size_t n_volumes;
	json_t *back, *off;
	struct tm_error err;
};

static void given(void *arg)
{
	struct giving *g = arg;
	struct tm_pool *pool = tm_core_find_pool(g->core, g->pool.id.text);
	struct tm_event_spec spec = { .type = TM_EVENT_RECOVERED, .pool = pool };
	const size_t n_back = json_array_size(g->back), n_off = json_array_size(g->off);
	json_t *data;

	if (pool) {
		pool->raising = false;
		data = json_pack("{s:O?, s:O?}", "given_back", g->back, "left_off", g->off);
		spec.data = data ? json_dumps(data, JSON_COMPACT) : NULL;
		json_decref(data);
		tm_record_event(
			g->core, &spec,
			"Of what a repair of pool %s had taken off its volumes %zu %s given "
			"back%s%.120s.",
			pool->record.name, n_back, n_back == 1 ? "was" : "were",
			!n_off        ? ""
			: g->err.code ? ", not all: "
				      : ", the rest left for a check",
			n_off && g->err.code ? g->err.detail : "");
		tm_pool_run_queue(pool);
		tm_pool_mend(pool);
	}
	json_decref(g->back);
	json_decref(g->off);
	free(g->volumes);
	free(g);
}

static void give(void *arg)
{
	struct giving *g = arg;
	tm_cleanup(tm_released_done) struct tm_released_list l = { 0 };
	struct tm_error why = { 0 };
	struct tm_log_fields fields = { .pool = g->pool.name, .error = &why };
	char path[TM_PATH_SIZE];

	tm_released_path(path, &g->pool.id);
	take_over(path, g->pool.name, &l);
	if (tm_released_give_back(&l, g->pool.name, g->volumes, g->n_volumes, true, &g->back,
				  &g->off, &g->err))
		tm_log_fields(LOG_ERR,
			      &(struct tm_log_fields){ .pool = g->pool.name, .error = &g->err },
			      "Not all that was taken off volumes of pool %s is back: %s",
			      g->pool.name, g->err.detail);
	if (l.repaired)
		tm_released_done(&l);
	if (tm_released_save(path, &l, &why) < 0)
		tm_log_fields(LOG_ERR, &fields, "%s", why.detail);
	tm_mailbox_post(g->core->mailbox, given, g);
}

static bool has_file(const struct tm_pool *pool)
{
	char path[TM_PATH_SIZE];

	tm_released_path(path, &pool->record.id);
	return access(path, F_OK) == 0;
}

void tm_pool_give_back(struct tm_pool *pool)
{
	struct giving *g;

	pool->owes = pool->owes && has_file(pool);

	/* A repair that is on its way does it. */
	if (!pool->owes || pool->running || pool->raising || pool->mend.asked ||
	    pool->state != TM_POOL_ACTIVE)
		return;
	g = calloc(1, sizeof(*g));
	if (g)
		g->volumes = calloc(pool->n_volumes ? pool->n_volumes : 1, sizeof(*g->volumes));
	if (!g || !g->volumes) { /* the next operation's end tries again */
		free(g);
		return;
	}
	pool->owes = false;
	pool->raising = true; /* what is queued waits */
	g->core = pool->core;
	g->pool = pool->record;
	g->n_volumes = pool->n_volumes;
	for (size_t i = 0; i < pool->n_volumes; i++)
		g->volumes[i] = pool->volumes[i].record;
	tm_crew_run(pool->core->workers, give, g);
}

void tm_core_give_back(struct tm_core *core)
{
	for (size_t i = 0; i < core->n_pools; i++) {
		core->pools[i]->owes = has_file(core->pools[i]);
		tm_pool_give_back(core->pools[i]);
	}
}

void tm_released_forget(const struct tm_uuid *pool)
{
	char path[TM_PATH_SIZE];

	tm_released_path(path, pool);
	(void)unlink(path);
}
