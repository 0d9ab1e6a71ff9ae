/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See watch.h. */

#include "watch/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "common/units.h"

#define RETRY_USEC TM_USEC_PER_SEC

struct tm_watch {
	struct tm_dm *dm;
	sd_event *event;
	sd_event_source *source, *retry;
	tm_watch_fn fn;
	void *userdata;
};

static int tried_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tm_watch *w = userdata;

	(void)source;
	(void)usec;
	(void)sd_event_source_set_enabled(w->source, SD_EVENT_ON);
	(void)tm_watch_round(w);
	return 0;
}

/* Nothing that moved may be missed, and a file that stays readable must not keep the loop busy. */
static void try_again(struct tm_watch *w)
{
	const uint64_t at = tm_now_monotonic_usec() + RETRY_USEC;
	int r;

	if (w->retry) {
		r = sd_event_source_set_time(w->retry, at);
		if (r >= 0)
			r = sd_event_source_set_enabled(w->retry, SD_EVENT_ONESHOT);
	} else {
		r = sd_event_add_time(w->event, &w->retry, CLOCK_MONOTONIC, at, 0, tried_again, w);
	}
	if (r >= 0)
		(void)sd_event_source_set_enabled(w->source, SD_EVENT_OFF);
}

static int round_at(struct tm_watch *w, uint64_t seen_usec)
{
	tm_auto_free struct tm_dm_entry *entries = NULL;
	struct tm_error err = { 0 };
	size_t n = 0;
	int r;

	/* Armed before looking: what moves from here on wakes the loop again. */
	r = tm_dm_poll_arm(w->dm, &err);
	if (r >= 0)
		r = tm_dm_list(w->dm, &entries, &n, &err);
	if (r < 0) {
		struct tm_log_fields fields = { .error = &err };

		tm_log_fields(LOG_ERR, &fields, "device-mapper events cannot be followed: %s",
			      err.detail);
		try_again(w);
		return r;
	}
	for (size_t i = 0; i < n; i++)
		w->fn(w->userdata, &entries[i], seen_usec);
	return 0;
}

static int woken(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	(void)source;
	(void)fd;
	(void)revents;
	(void)round_at(userdata, tm_now_monotonic_usec());
	return 0;
}

int tm_watch_new(sd_event *event, struct tm_dm *dm, tm_watch_fn fn, void *userdata,
		 struct tm_watch **ret, struct tm_error *err)
{
	struct tm_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	w->event = event;
	w->dm = dm;
	w->fn = fn;
	w->userdata = userdata;
	r = sd_event_add_io(event, &w->source, tm_dm_poll_fd(dm), EPOLLIN, woken, w);
	if (r >= 0)
		r = sd_event_source_set_priority(w->source, SD_EVENT_PRIORITY_IMPORTANT);
	if (r < 0) {
		tm_watch_free(w);
		return tm_error_set(err, TM_ERR_INTERNAL, -r,
				    "Cannot watch device-mapper events: %s.", strerror(-r));
	}
	r = tm_dm_poll_arm(dm, err);
	if (r < 0) {
		tm_watch_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

int tm_watch_round(struct tm_watch *w)
{
	return round_at(w, tm_now_monotonic_usec());
}

struct tm_watch *tm_watch_free(struct tm_watch *w)
{
	if (!w)
		return NULL;
	sd_event_source_disable_unref(w->source);
	sd_event_source_disable_unref(w->retry);
	free(w);
	return NULL;
}
