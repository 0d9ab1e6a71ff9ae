/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The model of pools and volumes, owned by the main loop. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

struct tm_pool *tm_pool_new(struct tm_core *core, const struct tm_pool_record *record)
{
	struct tm_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->core = core;
	p->record = *record;
	p->state = TM_POOL_INACTIVE;
	/* An ETag says nothing of another pool of the same name, or of before a restart. */
	p->generation = tm_now_realtime_usec();
	return p;
}

struct tm_pool *tm_pool_free(struct tm_pool *p)
{
	if (!p)
		return NULL;
	while (p->queue) {
		struct tm_queued_op *q = p->queue;

		p->queue = q->next;
		tm_op_free(q->op);
		free(q);
	}
	sd_event_source_disable_unref(p->retry_timer);
	tm_pool_view_unref(p->view);
	free(p->mend.waits_for);
	free(p->volumes);
	free(p);
	return NULL;
}

int tm_core_add_pool(struct tm_core *core, struct tm_pool *pool)
{
	struct tm_pool **more = realloc(core->pools, (core->n_pools + 1) * sizeof(*more));
	size_t at;

	if (!more)
		return -ENOMEM;
	core->pools = more;
	for (at = 0; at < core->n_pools; at++)
		if (strcmp(core->pools[at]->record.name, pool->record.name) > 0)
			break;
	memmove(&more[at + 1], &more[at], (core->n_pools - at) * sizeof(*more));
	more[at] = pool;
	core->n_pools++;
	tm_core_publish_soon(core);
	return 0;
}

void tm_core_remove_pool(struct tm_core *core, struct tm_pool *pool)
{
	for (size_t i = 0; i < core->n_pools; i++) {
		if (core->pools[i] != pool)
			continue;
		memmove(&core->pools[i], &core->pools[i + 1],
			(core->n_pools - i - 1) * sizeof(core->pools[0]));
		core->n_pools--;
		break;
	}
	tm_pool_down(pool);
	tm_pool_free(pool);
	tm_core_publish_soon(core);
}

struct tm_pool *tm_core_find_pool(struct tm_core *core, const char *ref)
{
	for (size_t i = 0; i < core->n_pools; i++)
		if (strcmp(core->pools[i]->record.name, ref) == 0 ||
		    strcmp(core->pools[i]->record.id.text, ref) == 0)
			return core->pools[i];
	return NULL;
}

struct tm_volume *tm_pool_find_volume(struct tm_pool *pool, const char *ref)
{
	for (size_t i = 0; i < pool->n_volumes; i++)
		if (strcmp(pool->volumes[i].record.name, ref) == 0 ||
		    strcmp(pool->volumes[i].record.id.text, ref) == 0)
			return &pool->volumes[i];
	return NULL;
}

int tm_pool_set_volumes(struct tm_pool *pool, const struct tm_volume_record *records, size_t n)
{
	struct tm_volume *v = calloc(n ? n : 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct tm_volume *old = tm_pool_find_volume(pool, records[i].id.text);

		if (old)
			v[i] = *old;
		else
			v[i].record = records[i];
		tm_volume_take(&v[i], &records[i]);
	}
	free(pool->volumes);
	pool->volumes = v;
	pool->n_volumes = n;
	return 0;
}

void tm_pool_touch(struct tm_pool *pool)
{
	pool->view = tm_pool_view_unref(pool->view);
	tm_core_publish_soon(pool->core);
}

void tm_pool_up(struct tm_pool *pool)
{
	struct tm_core *core = pool->core;
	char name[TM_DM_NAME_SIZE];
	struct tm_dm_info info;

	tm_dm_name(name, TM_ROLE_POOL, pool->record.name, NULL);
	if (tm_dm_info(core->dm, name, &info, NULL) < 0 || !info.exists)
		return;
	if (info.minor >= core->n_by_minor) {
		size_t n = info.minor + 64;
		struct tm_pool **more = realloc(core->by_minor, n * sizeof(*more));

		if (!more)
			return;
		memset(&more[core->n_by_minor], 0, (n - core->n_by_minor) * sizeof(*more));
		core->by_minor = more;
		core->n_by_minor = n;
	}
	core->by_minor[info.minor] = pool;
	pool->dm_minor = info.minor;
	pool->dm_event_nr = info.event_nr;
	pool->state = TM_POOL_ACTIVE;
	pool->state_reason[0] = '\0';
	if (!pool->ring.floor_ns)
		pool->ring.floor_ns = tm_now_realtime_usec() * 1000;
}

void tm_pool_down(struct tm_pool *pool)
{
	struct tm_core *core = pool->core;

	if (pool->dm_minor < core->n_by_minor && core->by_minor[pool->dm_minor] == pool)
		core->by_minor[pool->dm_minor] = NULL;
	pool->retry_timer = sd_event_source_disable_unref(pool->retry_timer);
	pool->status_valid = false;
	pool->queueing_since_usec = pool->queueing_until_usec = 0;
	pool->data.rate = pool->metadata.rate = (struct tm_rate){ 0 };
	pool->data.backoff = pool->metadata.backoff = (struct tm_backoff){ 0 };
	/* Whoever takes it up again may have made room: all is tried anew then, and at once. */
	pool->arm_backoff = pool->spare_backoff = (struct tm_backoff){ 0 };
	pool->data.verdict = pool->metadata.verdict = TM_EXTEND_NOT_NEEDED;
	pool->look_again = false;
	pool->ring = (struct tm_kernel_ring){ 0 };
	pool->ring_off = false;
	pool->modes_seen = 0;
	for (size_t i = 0; i < pool->n_volumes; i++) {
		pool->volumes[i].active = false;
		pool->volumes[i].mapped_valid = false;
	}
}
