/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The recorder: one thread that writes events, sizes and samples in the order they came, so
 * that neither the main loop nor an extension waits for the disk. An event is published once it is
 * committed: a number that anyone has seen is never given again.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

struct recorded_event {
	struct tm_core *core;
	struct tm_event event;
};

struct recorded_sizes {
	struct tm_core *core;
	struct tm_uuid pool;
	struct tm_pool_sizes sizes;
	bool descriptor;
};

struct recorded_samples {
	struct tm_core *core;
	struct tm_pool_sample *samples;
	size_t n;
};

static int severity_level(enum tm_severity s)
{
	switch (s) {
	case TM_SEV_CRITICAL:
		return LOG_CRIT;
	case TM_SEV_ERROR:
		return LOG_ERR;
	case TM_SEV_WARNING:
		return LOG_WARNING;
	case TM_SEV_NOTICE:
		return LOG_NOTICE;
	case TM_SEV_INFO:
		break;
	}
	return LOG_INFO;
}

static void publish_event(void *arg)
{
	struct recorded_event *e = arg;

	for (struct tm_listener *l = e->core->listeners; l; l = l->next)
		l->fn(l->userdata, &e->event, 1);
	tm_event_done(&e->event);
	free(e);
}

static void record_event(void *arg)
{
	struct recorded_event *e = arg;
	struct tm_error err = { 0 };

	if (tm_store_append_events(e->core->store, &e->event, 1, &err) < 0) {
		struct tm_log_fields fields = { .pool = e->event.pool_name, .error = &err };

		/* Without a number it cannot be replayed, so it is not published; the journal has
		 * it. */
		tm_log_fields(LOG_ERR, &fields, "An event could not be recorded (%s): %s",
			      tm_event_slug(e->event.type), err.detail);
		tm_event_done(&e->event);
		free(e);
		return;
	}
	tm_mailbox_post(e->core->mailbox, publish_event, e);
}

void tm_record_event(struct tm_core *core, const struct tm_event_spec *spec, const char *fmt, ...)
{
	struct recorded_event *e = calloc(1, sizeof(*e));
	struct tm_log_fields fields = { 0 };
	va_list ap;

	if (!e) {
		free(spec->data);
		return;
	}
	e->core = core;
	e->event.type = spec->type;
	e->event.time_usec = tm_now_realtime_usec();
	e->event.data = spec->data;
	if (spec->pool) {
		e->event.pool = spec->pool->record.id;
		(void)snprintf(e->event.pool_name, sizeof(e->event.pool_name), "%s",
			       spec->pool->record.name);
		fields.pool = e->event.pool_name;
	}
	if (spec->volume) {
		(void)snprintf(e->event.volume_name, sizeof(e->event.volume_name), "%s",
			       spec->volume);
		fields.volume = e->event.volume_name;
	}
	if (spec->operation) {
		(void)snprintf(e->event.operation, sizeof(e->event.operation), "%s",
			       spec->operation->text);
		fields.operation = e->event.operation;
	}
	va_start(ap, fmt);
	(void)vsnprintf(e->event.message, sizeof(e->event.message), fmt, ap);
	va_end(ap);
	fields.message_id = tm_event_message_id(spec->type);
	tm_log_fields(severity_level(tm_event_severity(spec->type)), &fields, "%s",
		      e->event.message);
	tm_crew_run(core->recorder, record_event, e);
}

/* Journal message ids of what an operator looks for; explained in packaging/thinmgr.catalog. */
const char *tm_event_message_id(enum tm_event_type type)
{
	switch (type) {
	case TM_EVENT_LOW_SPACE:
	case TM_EVENT_METADATA_LOW_SPACE:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a01";
	case TM_EVENT_EXTENDED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a02";
	case TM_EVENT_EXTEND_FAILED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a03";
	case TM_EVENT_OUT_OF_SPACE:
	case TM_EVENT_QUEUEING:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a04";
	case TM_EVENT_MODE_CHANGED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a05";
	case TM_EVENT_NEEDS_CHECK:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a06";
	default:
		return NULL;
	}
}

static void record_sizes(void *arg)
{
	struct recorded_sizes *s = arg;
	struct tm_error err = { 0 };
	int r;

	r = tm_store_set_sizes(s->core->store, &s->pool, &s->sizes, &err);
	if (r >= 0 && s->descriptor)
		r = tm_parts_write_descriptor(s->core, &s->pool, &err);
	if (r < 0 && r != -ENOENT) { /* ENOENT: deleted since */
		struct tm_log_fields fields = { .error = &err };

		tm_log_fields(LOG_ERR, &fields, "Sizes of pool %s could not be recorded: %s",
			      s->pool.text, err.detail);
	}
	free(s);
}

void tm_record_sizes(struct tm_core *core, const struct tm_pool *pool, bool descriptor)
{
	struct recorded_sizes *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->core = core;
	s->pool = pool->record.id;
	s->sizes = (struct tm_pool_sizes){
		.data_bytes = pool->record.data_bytes,
		.data_reserve_bytes = pool->record.data_reserve_bytes,
		.metadata_bytes = pool->record.metadata_bytes,
		.metadata_reserve_bytes = pool->record.metadata_reserve_bytes,
		.low_water_bytes = pool->record.low_water_bytes,
	};
	s->descriptor = descriptor;
	tm_crew_run(core->recorder, record_sizes, s);
}

struct recorded_descriptor {
	struct tm_core *core;
	struct tm_pool_record pool;
};

static void record_descriptor(void *arg)
{
	tm_auto_free struct recorded_descriptor *d = arg;
	struct tm_error err = { 0 };
	uint64_t bytes;

	/* Where the pool's files are not there, its file system is not mounted. */
	if (tm_backing_part_size(&d->pool, TM_PART_DATA, &bytes, NULL) < 0)
		return;
	if (tm_parts_write_descriptor(d->core, &d->pool.id, &err) < 0 ||
	    tm_parts_drop_claim(&d->pool, &err) < 0) {
		struct tm_log_fields fields = { .pool = d->pool.name, .error = &err };

		tm_log_fields(LOG_WARNING, &fields, "The descriptor of pool %s is out of date: %s",
			      d->pool.name, err.detail);
	}
}

void tm_record_descriptor(struct tm_core *core, const struct tm_pool *pool)
{
	struct recorded_descriptor *d = calloc(1, sizeof(*d));

	if (!d)
		return;
	d->core = core;
	d->pool = pool->record;
	tm_crew_run(core->recorder, record_descriptor, d);
}

static void record_samples(void *arg)
{
	struct recorded_samples *s = arg;
	struct tm_error err = { 0 };

	if (tm_store_append_samples(s->core->store, s->samples, s->n, &err) < 0) {
		struct tm_log_fields fields = { .error = &err };

		tm_log_fields(LOG_WARNING, &fields, "Samples could not be recorded: %s",
			      err.detail);
	}
	free(s->samples);
	free(s);
}

void tm_record_samples(struct tm_core *core, struct tm_pool_sample *samples, size_t n)
{
	struct recorded_samples *s = calloc(1, sizeof(*s));

	if (!s) {
		free(samples);
		return;
	}
	s->core = core;
	s->samples = samples;
	s->n = n;
	tm_crew_run(core->recorder, record_samples, s);
}

static void record_rollup(void *arg)
{
	struct tm_core *core = arg;
	struct tm_error err = { 0 };

	if (tm_store_rollup(core->store, tm_now_realtime_usec(), core->config.keep_events_usec,
			    &err) < 0) {
		struct tm_log_fields fields = { .error = &err };

		tm_log_fields(LOG_WARNING, &fields, "Old history could not be rolled up: %s",
			      err.detail);
	}
}

void tm_record_rollup(struct tm_core *core)
{
	tm_crew_run(core->recorder, record_rollup, core);
}

struct tm_listener *tm_core_listen(struct tm_core *core, tm_event_fn fn, void *userdata)
{
	struct tm_listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->fn = fn;
	l->userdata = userdata;
	l->next = core->listeners;
	core->listeners = l;
	return l;
}

struct tm_listener *tm_core_unlisten(struct tm_core *core, struct tm_listener *listener)
{
	for (struct tm_listener **at = &core->listeners; *at; at = &(*at)->next) {
		if (*at != listener)
			continue;
		*at = listener->next;
		free(listener);
		break;
	}
	return NULL;
}
