/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Volumes whose pool lost writes: marked in the database before anything that may make the pool
 * look healthy again, since after that nobody can tell any more; then in the model, with an event.
 */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "logic/suspect.h"

int tm_parts_suspect(struct tm_core *core, const struct tm_pool_record *pool,
		     const struct tm_thin_pool_status *status, struct tm_loss *ret,
		     struct tm_error *err)
{
	struct tm_thin_pool_status now;
	enum tm_suspicion why;
	int r;

	if (!status) {
		r = tm_parts_status(core, pool->name, &now, NULL, NULL);
		if (r < 0)
			return 0; /* it is not up: what it was is known already */
		status = &now;
	}
	why = tm_suspect_by_status(status);
	if (why == TM_SUSPECT_NOT)
		return 0;
	ret->why = why;
	ret->usec = tm_now_realtime_usec();
	return tm_store_suspect_pool(core->store, &pool->id, why, ret->usec, 0, err);
}

static const char *because(enum tm_suspicion why)
{
	switch (why) {
	case TM_SUSPECT_NO_SPACE:
		return "its pool ran out of data space, and writes failed";
	case TM_SUSPECT_READ_ONLY:
		return "its pool went read-only: writes were taken back, or failed";
	case TM_SUSPECT_FAIL:
		return "its pool failed: writes were taken back, or failed";
	case TM_SUSPECT_REPAIRED:
		return "the repair of its pool left it other than it was";
	case TM_SUSPECT_RESTORED:
		return "going back to kept metadata left it other than it was";
	case TM_SUSPECT_NOT:
		break;
	}
	return "";
}

void tm_volume_suspect(struct tm_pool *pool, struct tm_volume *v, enum tm_suspicion why,
		       uint64_t usec)
{
	struct tm_event_spec spec = { .type = TM_EVENT_VOLUME_SUSPECT,
				      .pool = pool,
				      .volume = v->record.name };
	json_t *data = json_pack("{s:s}", "reason", tm_suspicion_name(why));

	spec.data = data ? json_dumps(data, JSON_COMPACT) : NULL;
	json_decref(data);
	v->record.suspect = why;
	v->record.suspect_usec = usec;
	pool->generation++;
	tm_pool_touch(pool);
	tm_record_event(pool->core, &spec,
			"Volume %s/%s may have lost writes: %s. Check its file system.",
			pool->record.name, v->record.name, because(why));
}

void tm_pool_suspect(struct tm_pool *pool, enum tm_suspicion why, uint64_t usec,
		     uint64_t happened_usec)
{
	for (size_t i = 0; why != TM_SUSPECT_NOT && i < pool->n_volumes; i++)
		if (tm_suspect_touches(&pool->volumes[i].record, happened_usec))
			tm_volume_suspect(pool, &pool->volumes[i], why, usec);
}

struct asked {
	struct tm_core *core;
	struct tm_uuid pool;
};

/* What comes of it is told by events; that it could not even be asked for is not. */
static void asked_check(void *userdata, const struct tm_operation_record *op,
			const struct tm_error *err)
{
	tm_auto_free struct asked *a = userdata;
	struct tm_pool *pool;

	(void)op;
	if (!err)
		return;
	tm_log(LOG_WARNING, "A suspect volume is not checked by itself: %s", err->detail);
	pool = tm_core_find_pool(a->core, a->pool.text);
	if (pool) /* the others are not to wait for one that nobody checks */
		tm_pool_check_next(pool);
}

static bool used(struct tm_pool *pool, const struct tm_volume *v)
{
	struct tm_dm_info info;

	return tm_parts_ours(pool->core, &pool->record, TM_ROLE_VOLUME, &v->record, &info, NULL) >
		       0 &&
	       info.open_count > 0;
}

void tm_pool_check_next(struct tm_pool *pool)
{
	for (size_t i = 0; i < pool->n_volumes; i++) {
		struct tm_volume *v = &pool->volumes[i];
		struct tm_command *cmd;
		struct asked *a;

		if (!v->check_due)
			continue;
		v->check_due = false;
		if (v->record.suspect == TM_SUSPECT_NOT || !v->active || used(pool, v))
			continue;
		cmd = calloc(1, sizeof(*cmd));
		a = calloc(1, sizeof(*a));
		if (!cmd || !a) {
			free(cmd);
			free(a);
			return;
		}
		*a = (struct asked){ pool->core, pool->record.id };
		cmd->kind = TM_CMD_VOLUME_CHECK;
		(void)snprintf(cmd->pool, sizeof(cmd->pool), "%s", pool->record.id.text);
		(void)snprintf(cmd->volume, sizeof(cmd->volume), "%s", v->record.id.text);
		tm_core_submit(pool->core, cmd, false, asked_check, a);
		return;
	}
}

void tm_pool_check_suspects(struct tm_pool *pool)
{
	for (size_t i = 0; i < pool->n_volumes; i++)
		pool->volumes[i].check_due = true;
	tm_pool_check_next(pool);
}

bool tm_pool_may_become_suspect(const struct tm_pool *pool)
{
	for (size_t i = 0; i < pool->n_volumes; i++)
		if (tm_suspect_touches(&pool->volumes[i].record, 0))
			return true;
	return false;
}

void tm_volume_take(struct tm_volume *v, const struct tm_volume_record *record)
{
	const enum tm_suspicion suspect = v->record.suspect;
	const uint64_t usec = v->record.suspect_usec;

	v->record = *record;
	v->record.suspect = suspect;
	v->record.suspect_usec = usec;
}
