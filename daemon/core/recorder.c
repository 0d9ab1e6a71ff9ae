/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The recorder: one thread that writes events, sizes and samples in the order they came, so
 * that neither the main loop nor an extension waits for the disk. An event is published once it is
 * committed: a number that anyone has seen is never given again. What one turn of the main loop has
 * to record is one transaction: an extension is two events and the new sizes.
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

/* An event, the sizes of a pool, or that its volumes are suspect. */
struct tm_record {
	struct tm_record *next;
	bool is_event, failed;
	struct tm_event event;
	struct tm_uuid pool;
	struct tm_pool_sizes sizes;
	bool descriptor;
	enum tm_suspicion suspect;
	uint64_t happened_usec;
};

struct batch {
	struct tm_core *core;
	struct tm_record *first;
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

static void batch_free(struct batch *b)
{
	while (b->first) {
		struct tm_record *r = b->first;

		b->first = r->next;
		tm_event_done(&r->event);
		free(r);
	}
	free(b);
}

static void publish_batch(void *arg)
{
	struct batch *b = arg;

	for (struct tm_record *r = b->first; r; r = r->next) {
		if (!r->is_event || r->failed)
			continue;
		for (struct tm_listener *l = b->core->listeners; l; l = l->next)
			l->fn(l->userdata, &r->event, 1);
	}
	for (struct tm_record *r = b->first; r; r = r->next)
		(void)atomic_fetch_sub(&b->core->n_unpublished, 1);
	batch_free(b);
}

static int write_one(struct tm_store *store, struct tm_record *r, struct tm_error *err)
{
	if (r->suspect != TM_SUSPECT_NOT)
		return tm_store_suspect_pool(store, &r->pool, r->suspect, r->happened_usec,
					     r->happened_usec, err);
	return r->is_event ? tm_store_append_events(store, &r->event, 1, err)
			   : tm_store_set_sizes(store, &r->pool, &r->sizes, err);
}

static void write_alone(struct tm_core *core, struct tm_record *r)
{
	struct tm_error err = { 0 };
	struct tm_log_fields fields = { .error = &err };
	int result = write_one(core->store, r, &err);

	r->failed = result < 0;
	if (!r->failed)
		return;
	if (r->is_event) {
		/* Without a number it cannot be replayed, so it is not published; the journal has
		 * it. */
		fields.pool = r->event.pool_name;
		tm_log_fields(LOG_ERR, &fields, "An event could not be recorded (%s): %s",
			      tm_event_slug(r->event.type), err.detail);
	} else if (r->suspect != TM_SUSPECT_NOT) {
		tm_log_fields(LOG_ERR, &fields,
			      "That volumes of pool %s are suspect could not be recorded: %s",
			      r->pool.text, err.detail);
	} else if (result != -ENOENT) { /* ENOENT: deleted since */
		tm_log_fields(LOG_ERR, &fields, "Sizes of pool %s could not be recorded: %s",
			      r->pool.text, err.detail);
	}
}

static void record_batch(void *arg)
{
	struct batch *b = arg;
	struct tm_core *core = b->core;
	int result = tm_store_begin(core->store, NULL);

	if (result == 0) {
		for (struct tm_record *r = b->first; r && result == 0; r = r->next)
			result = write_one(core->store, r, NULL);
		if (result == 0)
			result = tm_store_commit(core->store, NULL);
		else
			tm_store_rollback(core->store);
	}
	/* One that fails must not take the others with it, and says why. */
	for (struct tm_record *r = b->first; r && result < 0; r = r->next)
		write_alone(core, r);
	for (struct tm_record *r = b->first; r; r = r->next) {
		struct tm_error err = { 0 };

		if (r->is_event || r->failed || !r->descriptor ||
		    tm_parts_write_descriptor(core, &r->pool, &err) >= 0 || err.errnum == ENOENT)
			continue;
		struct tm_log_fields fields = { .error = &err };

		tm_log_fields(LOG_ERR, &fields, "Sizes of pool %s could not be recorded: %s",
			      r->pool.text, err.detail);
	}
	tm_mailbox_post(core->mailbox, publish_batch, b);
}

void tm_record_flush(struct tm_core *core)
{
	struct batch *b;

	if (!core->unrecorded)
		return;
	b = calloc(1, sizeof(*b));
	if (!b)
		return; /* they stay for the next time */
	b->core = core;
	b->first = TM_TAKE(core->unrecorded);
	core->unrecorded_last = NULL;
	tm_crew_run(core->recorder, record_batch, b);
}

static int flush_now(sd_event_source *source, void *userdata)
{
	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	tm_record_flush(userdata);
	return 0;
}

/* Taken. Written when this turn of the main loop is over. */
static void put(struct tm_core *core, struct tm_record *r)
{
	if (core->unrecorded_last)
		core->unrecorded_last->next = r;
	else
		core->unrecorded = r;
	core->unrecorded_last = r;
	(void)atomic_fetch_add(&core->n_unpublished, 1);
	if (!core->record_source &&
	    sd_event_add_defer(core->event, &core->record_source, flush_now, core) < 0) {
		tm_record_flush(core);
		return;
	}
	(void)sd_event_source_set_enabled(core->record_source, SD_EVENT_ONESHOT);
}

void tm_record_event(struct tm_core *core, const struct tm_event_spec *spec, const char *fmt, ...)
{
	struct tm_record *e = calloc(1, sizeof(*e));
	struct tm_log_fields fields = { 0 };
	va_list ap;

	if (!e) {
		free(spec->data);
		return;
	}
	e->is_event = true;
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
	fields.event = tm_event_slug(spec->type);
	fields.message_id = tm_event_message_id(spec->type);
	tm_log_fields(severity_level(tm_event_severity(spec->type)), &fields, "%s",
		      e->event.message);
	put(core, e);
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
	case TM_EVENT_REPAIR_WAITS:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a07";
	case TM_EVENT_REPAIRED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a08";
	case TM_EVENT_REPAIR_FAILED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a09";
	case TM_EVENT_METADATA_RESTORED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a0a";
	case TM_EVENT_CHECK_FAILED:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a0b";
	case TM_EVENT_VOLUME_SUSPECT:
		return "5f0d3bd0c1a94b1c9f1e6a7a3f6f2a0c";
	default:
		return NULL;
	}
}

void tm_record_sizes(struct tm_core *core, const struct tm_pool *pool, bool descriptor)
{
	struct tm_record *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->pool = pool->record.id;
	s->sizes = (struct tm_pool_sizes){
		.data_bytes = pool->record.data_bytes,
		.data_reserve_bytes = pool->record.data_reserve_bytes,
		.metadata_bytes = pool->record.metadata_bytes,
		.metadata_reserve_bytes = pool->record.metadata_reserve_bytes,
		.low_water_bytes = pool->record.low_water_bytes,
	};
	s->descriptor = descriptor;
	put(core, s);
}

void tm_record_suspect(struct tm_core *core, const struct tm_pool *pool, enum tm_suspicion why,
		       uint64_t happened_usec)
{
	struct tm_record *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->pool = pool->record.id;
	s->suspect = why;
	s->happened_usec = happened_usec;
	put(core, s);
}

bool tm_core_recording(const struct tm_core *core)
{
	return atomic_load(&core->n_unpublished) != 0;
}

struct mark {
	struct tm_core *core;
	struct tm_uuid name;
	void (*passed)(struct tm_core *core, const struct tm_uuid *mark);
};

static void mark_passed(void *arg)
{
	tm_auto_free struct mark *m = arg;

	m->passed(m->core, &m->name);
}

static void pass_mark(void *arg)
{
	struct mark *m = arg;

	tm_mailbox_post(m->core->mailbox, mark_passed, m);
}

void tm_record_mark(struct tm_core *core, const struct tm_uuid *mark,
		    void (*passed)(struct tm_core *core, const struct tm_uuid *mark))
{
	struct mark *m = calloc(1, sizeof(*m));

	if (!m) {
		passed(core, mark); /* nobody is to wait for it in vain */
		return;
	}
	*m = (struct mark){ core, *mark, passed };
	tm_record_flush(core); /* in order */
	tm_crew_run(core->recorder, pass_mark, m);
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
	tm_record_flush(core); /* in order */
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
	tm_record_flush(core); /* in order */
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
	tm_record_flush(core); /* in order */
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
