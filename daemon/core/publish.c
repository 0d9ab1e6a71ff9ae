/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Building and swapping the published view. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

static void extend_view(struct tm_extend_view *v, const struct tm_space *s,
			uint64_t low_water_bytes)
{
	v->reaction = s->reaction;
	v->arming = s->arming;
	v->rate_bytes_per_sec = tm_rate_get(&s->rate, tm_now_monotonic_usec());
	v->extensions = s->extensions;
	v->verdict = s->verdict;
	v->failures = s->backoff.failures;
	v->low_water_bytes = low_water_bytes;
}

static struct tm_pool_view *pool_view(const struct tm_pool *p)
{
	struct tm_pool_view *v = calloc(1, sizeof(*v) + p->n_volumes * sizeof(v->volumes[0]));

	if (!v)
		return NULL;
	v->refs = 1;
	v->record = p->record;
	v->state = p->state;
	memcpy(v->state_reason, p->state_reason, sizeof(v->state_reason));
	v->status_valid = p->status_valid;
	v->status = p->status;
	v->status_usec = p->status_usec;
	v->backing_free_bytes = p->backing_free_bytes;
	v->direct_io = p->direct_io;
	v->queueing_since_usec = p->queueing_since_usec;
	v->queueing_until_usec = p->queueing_until_usec;
	extend_view(&v->data, &p->data, p->record.low_water_bytes);
	extend_view(&v->metadata, &p->metadata,
		    p->status.metadata_low_water_valid
			    ? p->status.metadata_low_water * TM_METADATA_BLOCK
			    : 0);
	if (p->mend.waits_for)
		v->repair_waits_for = strdup(p->mend.waits_for);
	v->generation = p->generation;
	v->n_volumes = p->n_volumes;
	for (size_t i = 0; i < p->n_volumes; i++) {
		const struct tm_volume *vol = &p->volumes[i];
		struct tm_volume_view *vv = &v->volumes[i];

		vv->record = vol->record;
		vv->active = vol->active;
		vv->mapped_valid = vol->mapped_valid;
		vv->mapped_bytes = vol->mapped_bytes;
		if (vol->active)
			tm_device_path(vv->device, p->record.name, vol->record.name);
		for (size_t k = 0; vol->record.origin.text[0] && k < p->n_volumes; k++)
			if (tm_uuid_equal(&p->volumes[k].record.id, &vol->record.origin))
				(void)snprintf(vv->origin_name, sizeof(vv->origin_name), "%s",
					       p->volumes[k].record.name);
		v->virtual_bytes = tm_sat_add(v->virtual_bytes, vol->record.size_bytes);
	}
	return v;
}

void tm_core_publish(struct tm_core *core)
{
	struct tm_view *v = calloc(1, sizeof(*v) + core->n_pools * sizeof(v->pools[0]));
	struct tm_view *old;

	if (!v) {
		tm_log(LOG_ERR, "Out of memory: the published state is out of date.");
		return;
	}
	v->refs = 1;
	v->generation = ++core->view_generation;
	v->system = core->system;
	for (size_t i = 0; i < core->n_pools; i++) {
		struct tm_pool *p = core->pools[i];

		if (!p->view)
			p->view = pool_view(p);
		if (p->view)
			v->pools[v->n_pools++] = tm_pool_view_ref(p->view);
	}
	core->view_stale = false;
	{
		TM_LOCK_SCOPE(&core->view_lock);
		old = core->view;
		core->view = v;
	}
	tm_view_unref(old);
	if (core->on_view)
		core->on_view(core->on_view_userdata);
}

static int publish_now(sd_event_source *source, void *userdata)
{
	struct tm_core *core = userdata;

	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	if (core->view_stale)
		tm_core_publish(core);
	return 0;
}

void tm_core_publish_soon(struct tm_core *core)
{
	core->view_stale = true;
	if (!core->publish_source &&
	    sd_event_add_defer(core->event, &core->publish_source, publish_now, core) < 0) {
		tm_core_publish(core);
		return;
	}
	/* After everything else that is pending: one view for a round of changes. */
	(void)sd_event_source_set_priority(core->publish_source, SD_EVENT_PRIORITY_IDLE);
	(void)sd_event_source_set_enabled(core->publish_source, SD_EVENT_ONESHOT);
}

struct tm_view *tm_core_view(struct tm_core *core)
{
	TM_LOCK_SCOPE(&core->view_lock);
	return tm_view_ref(core->view);
}

void tm_core_on_view(struct tm_core *core, void (*fn)(void *userdata), void *userdata)
{
	core->on_view = fn;
	core->on_view_userdata = userdata;
}
