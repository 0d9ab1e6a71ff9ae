/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core's life: start, sampling, stop. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

#define URGENT_THREADS    4
#define ARMING_THREADS    4
#define SAMPLE_TICK_USEC  (5 * TM_USEC_PER_SEC)
#define ROLLUP_EVERY_USEC (3600 * TM_USEC_PER_SEC)

const char *tm_core_state_directory(struct tm_core *core)
{
	return core->config.state_directory;
}

static void device_seen(void *userdata, const struct tm_dm_entry *device, uint64_t seen_usec)
{
	struct tm_core *core = userdata;
	struct tm_pool *pool;

	if (device->minor >= core->n_by_minor)
		return;
	pool = core->by_minor[device->minor];
	if (!pool || (device->event_nr_valid && device->event_nr == pool->dm_event_nr))
		return;
	pool->dm_event_nr = device->event_nr;
	tm_pool_look(pool, seen_usec);
}

/* When the next sample of any pool is due; the timer sleeps until then, never less than the tick.
 */
static int sample_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tm_core *core = userdata;
	const uint64_t now = tm_now_monotonic_usec();
	uint64_t next = now + 3600 * TM_USEC_PER_SEC;

	(void)usec;
	/* A look of the last round that hangs keeps nobody else's samples. */
	if (core->n_samples) {
		tm_record_samples(core, TM_TAKE(core->samples), core->n_samples);
		core->n_samples = 0;
	}
	for (size_t i = 0; i < core->n_pools; i++) {
		struct tm_pool *p = core->pools[i];
		uint64_t every = p->record.policy.sample_seconds * TM_USEC_PER_SEC;
		/* On a grid, so that pools sampled as often are looked at in one go. */
		uint64_t due = (p->sampled_usec / every + 1) * every;

		if (p->state != TM_POOL_ACTIVE && p->state != TM_POOL_UNCERTAIN)
			continue;
		if (due <= now) {
			p->sample_due = true;
			tm_pool_look(p, 0);
			due = (now / every + 1) * every;
		}
		if (due < next)
			next = due;
	}
	if (now - core->rolled_up_usec >= ROLLUP_EVERY_USEC) {
		core->rolled_up_usec = now;
		tm_record_rollup(core);
	}
	if (next < now + SAMPLE_TICK_USEC)
		next = now + SAMPLE_TICK_USEC;
	(void)sd_event_source_set_time(source, next);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void tm_core_sample_soon(struct tm_core *core)
{
	if (core->sample_timer)
		(void)sd_event_source_set_time(core->sample_timer,
					       tm_now_monotonic_usec() + SAMPLE_TICK_USEC);
}

int tm_core_new(sd_event *event, const struct tm_core_config *config, struct tm_core **ret,
		struct tm_error *err)
{
	struct tm_core *core = calloc(1, sizeof(*core));
	struct tm_event_spec spec = { .type = TM_EVENT_DAEMON_STARTED };
	int r;

	if (!core)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	core->event = sd_event_ref(event);
	core->config = *config;
	(void)pthread_mutex_init(&core->target_lock, NULL);
	(void)pthread_mutex_init(&core->view_lock, NULL);
	(void)pthread_mutex_init(&core->live_lock, NULL);
	(void)pthread_mutex_init(&core->descriptor_lock, NULL);
	tm_fault_read(&core->fault, getenv("THINMGR_FAULT"));

	r = tm_dm_new(&core->dm, err);
	if (r < 0)
		goto fail;
	r = tm_store_new(config->state_directory, &core->store, err);
	if (r < 0)
		goto fail;
	r = tm_mailbox_new(event, &core->mailbox);
	if (r >= 0)
		r = tm_crew_new(config->worker_threads, "worker", &core->workers);
	if (r >= 0)
		r = tm_crew_new(URGENT_THREADS, "urgent", &core->urgent);
	if (r >= 0)
		r = tm_crew_new(ARMING_THREADS, "arming", &core->arming);
	if (r >= 0)
		r = tm_crew_new(1, "recorder", &core->recorder);
	if (r < 0) {
		(void)tm_error_set(err, TM_ERR_INTERNAL, -r, "Cannot start threads: %s.",
				   strerror(-r));
		goto fail;
	}
	(void)tm_system_probe(core, err);
	tm_core_publish(core);
	tm_record_event(core, &spec, "thinmgrd %s started.", core->system.version);
	r = tm_watch_new(event, core->dm, device_seen, core, &core->watch, err);
	if (r < 0)
		goto fail;
	r = tm_core_restore(core, err);
	if (r < 0)
		goto fail;
	core->rolled_up_usec = tm_now_monotonic_usec();
	r = sd_event_add_time(event, &core->sample_timer, CLOCK_MONOTONIC,
			      tm_now_monotonic_usec() + SAMPLE_TICK_USEC, TM_USEC_PER_SEC,
			      sample_tick, core);
	if (r < 0) {
		(void)tm_error_set(err, TM_ERR_INTERNAL, -r, "Cannot make a timer: %s.",
				   strerror(-r));
		goto fail;
	}
	tm_core_publish(core);
	(void)tm_watch_round(core->watch);
	*ret = core;
	return 0;
fail:
	(void)tm_core_free(core);
	return r;
}

void tm_core_reconfigure(struct tm_core *core, const struct tm_core_config *config)
{
	core->config.keep_events_usec = config->keep_events_usec;
}

void tm_core_stop(struct tm_core *core)
{
	atomic_store(&core->stopping, true);
	core->watch = tm_watch_free(core->watch);
	core->sample_timer = sd_event_source_disable_unref(core->sample_timer);
	core->upkeep_timer = sd_event_source_disable_unref(core->upkeep_timer);
	tm_core_cancel_all(core);
}

bool tm_core_idle(const struct tm_core *core)
{
	if (core->n_unfinished)
		return false;
	for (size_t i = 0; i < core->n_pools; i++)
		if (core->pools[i]->looking || core->pools[i]->arming)
			return false;
	return true;
}

void tm_core_on_ready(struct tm_core *core, void (*fn)(void *userdata), void *userdata)
{
	core->on_ready = fn;
	core->on_ready_userdata = userdata;
	if (core->system.ready && fn)
		fn(userdata);
}

void tm_core_abandon(struct tm_core *core)
{
	tm_record_flush(core);
	core->recorder = tm_crew_free(core->recorder);
}

bool tm_core_raising(const struct tm_core *core)
{
	return core->n_raising > 0;
}

struct tm_core *tm_core_free(struct tm_core *core)
{
	if (!core)
		return NULL;
	atomic_store(&core->stopping, true);
	core->watch = tm_watch_free(core->watch);
	sd_event_source_disable_unref(core->sample_timer);
	sd_event_source_disable_unref(core->late_timer);
	sd_event_source_disable_unref(core->mend_timer);
	sd_event_source_disable_unref(core->upkeep_timer);
	if (core->recorder)
		tm_record_flush(core);
	sd_event_source_disable_unref(core->record_source);
	/* Threads end before what they use is taken away. */
	core->raisers = tm_crew_free(core->raisers);
	core->workers = tm_crew_free(core->workers);
	core->urgent = tm_crew_free(core->urgent);
	core->arming = tm_crew_free(core->arming);
	core->recorder = tm_crew_free(core->recorder);
	core->mailbox = tm_mailbox_free(core->mailbox);
	while (core->n_pools)
		tm_core_remove_pool(core, core->pools[core->n_pools - 1]);
	while (core->waiters) {
		struct tm_waiter *w = core->waiters;

		core->waiters = w->next;
		sd_event_source_disable_unref(w->timer);
		free(w);
	}
	while (core->listeners)
		(void)tm_core_unlisten(core, core->listeners);
	sd_event_source_disable_unref(core->publish_source);
	tm_view_unref(core->view);
	free(core->samples);
	free(core->pools);
	free(core->by_minor);
	core->store = tm_store_free(core->store);
	core->dm = tm_dm_free(core->dm);
	sd_event_unref(core->event);
	(void)pthread_mutex_destroy(&core->target_lock);
	(void)pthread_mutex_destroy(&core->view_lock);
	(void)pthread_mutex_destroy(&core->live_lock);
	(void)pthread_mutex_destroy(&core->descriptor_lock);
	free(core);
	return NULL;
}
