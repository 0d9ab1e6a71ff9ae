/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bus/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "bus/manager.h"
#include "common/log.h"
#include "common/units.h"

#define RETRY_USEC     (5 * TM_USEC_PER_SEC)
#define RETRY_MAX_USEC (60 * TM_USEC_PER_SEC)

struct tm_bus_connection {
	sd_event *event;
	sd_event_source *timer; /* armed exactly while a new attempt is due */
	uint64_t first_retry_usec, retry_usec;
	sd_bus *bus; /* NULL: none */
	sd_bus_slot *object, *disconnected, *name;
	bool ready;      /* the name is ours */
	bool complained; /* since the last time it was */
	struct tm_bus_manager manager;
};

static void drop(struct tm_bus_connection *c)
{
	c->ready = false;
	c->name = sd_bus_slot_unref(c->name);
	c->disconnected = sd_bus_slot_unref(c->disconnected);
	c->object = sd_bus_slot_unref(c->object);
	/* Without a flush: a bus that does not read must not hold us up. */
	c->bus = sd_bus_close_unref(c->bus);
}

/*
 * Try again later. The connection itself is dropped by the timer, because this may be called from
 * one of its own callbacks. One message for each time it goes away, not one for each attempt.
 */
static void fail(struct tm_bus_connection *c, int r, const char *what)
{
	c->ready = false;
	tm_log(c->complained ? LOG_DEBUG : LOG_WARNING, "D-Bus: %s: %s; trying again in %u s", what,
	       strerror(-r), (unsigned int)(c->retry_usec / TM_USEC_PER_SEC));
	c->complained = true;
	r = sd_event_source_set_time_relative(c->timer, c->retry_usec);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
	if (r < 0)
		tm_log(LOG_ERR, "D-Bus: cannot set the timer for another attempt: %s",
		       strerror(-r));
	c->retry_usec *= 2;
	if (c->retry_usec > RETRY_MAX_USEC)
		c->retry_usec = RETRY_MAX_USEC;
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	(void)m, (void)ret_error;
	fail(userdata, -ECONNRESET, "the system bus went away");
	return 0;
}

static int on_name(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct tm_bus_connection *c = userdata;
	const sd_bus_error *error = sd_bus_message_get_error(m);
	/* The specification's answers to RequestName. */
	enum { PRIMARY_OWNER = 1, ALREADY_OWNER = 4 };
	uint32_t answer = 0;
	int r;

	(void)ret_error;
	if (error) {
		/* A connection that is lost meanwhile has its own message. */
		if (!sd_event_source_get_enabled(c->timer, NULL))
			fail(c, -sd_bus_error_get_errno(error),
			     "cannot take the name " TM_BUS_NAME);
		return 0;
	}
	r = sd_bus_message_read_basic(m, 'u', &answer);
	if (r < 0) {
		fail(c, r, "no good answer to the request for the name " TM_BUS_NAME);
	} else if (answer != PRIMARY_OWNER && answer != ALREADY_OWNER) {
		fail(c, -EEXIST, "another program has the name " TM_BUS_NAME);
	} else {
		if (c->complained)
			tm_log(LOG_INFO, "D-Bus: %s is on the system bus now", TM_BUS_NAME);
		c->ready = true;
		c->complained = false;
		c->retry_usec = c->first_retry_usec;
	}
	return 0;
}

static void attempt(struct tm_bus_connection *c)
{
	int r;

	drop(c);
	r = sd_bus_open_system_with_description(&c->bus, "thinmgrd");
	if (r < 0) {
		c->bus = NULL;
		fail(c, r, "cannot connect to the system bus");
		return;
	}
	r = sd_bus_match_signal_async(c->bus, &c->disconnected, "org.freedesktop.DBus.Local",
				      "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
				      "Disconnected", on_disconnected, NULL, c);
	if (r >= 0)
		r = tm_bus_manager_add(&c->manager, c->bus, &c->object);
	/* Asked for without waiting: the loop must not stand still for a slow bus. */
	if (r >= 0)
		r = sd_bus_request_name_async(c->bus, &c->name, TM_BUS_NAME, 0, on_name, c);
	if (r >= 0)
		r = sd_bus_attach_event(c->bus, c->event, SD_EVENT_PRIORITY_NORMAL);
	if (r < 0) {
		drop(c);
		fail(c, r, "cannot set up the connection to the system bus");
	}
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source, (void)usec;
	attempt(userdata);
	return 0;
}

int tm_bus_connection_new(sd_event *event, struct tm_view *view, uint64_t retry_usec,
			  struct tm_bus_connection **ret, struct tm_error *err)
{
	struct tm_bus_connection *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	c->event = sd_event_ref(event);
	c->first_retry_usec = c->retry_usec = retry_usec ? retry_usec : RETRY_USEC;
	r = sd_event_add_time_relative(event, &c->timer, CLOCK_MONOTONIC, 0, 0, on_timer, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	if (r < 0) {
		(void)tm_bus_connection_free(c);
		return tm_error_set(err, TM_ERR_INTERNAL, -r, "cannot make a timer for D-Bus: %s",
				    strerror(-r));
	}
	(void)sd_event_source_set_description(c->timer, "bus-retry");
	c->manager.view = view;
	attempt(c);
	*ret = c;
	return 0;
}

struct tm_bus_connection *tm_bus_connection_free(struct tm_bus_connection *c)
{
	if (!c)
		return NULL;
	drop(c);
	(void)sd_event_source_disable_unref(c->timer);
	(void)sd_event_unref(c->event);
	(void)tm_view_unref(c->manager.view);
	free(c);
	return NULL;
}

/* Not before the name was asked for, so that what is sent comes from its owner. */
static sd_bus *usable(struct tm_bus_connection *c)
{
	return c->bus && sd_bus_is_open(c->bus) > 0 ? c->bus : NULL;
}

void tm_bus_connection_set_view(struct tm_bus_connection *c, struct tm_view *view)
{
	int r = tm_bus_manager_set_view(&c->manager, view, usable(c));

	if (r < 0)
		tm_log(LOG_DEBUG, "D-Bus: cannot tell changed properties: %s", strerror(-r));
}

void tm_bus_connection_events(struct tm_bus_connection *c, const struct tm_event *events, size_t n)
{
	sd_bus *bus = usable(c);

	for (size_t i = 0; i < n && bus; i++) {
		int r = tm_bus_manager_emit(bus, &events[i]);

		if (r < 0)
			tm_log(LOG_DEBUG, "D-Bus: cannot tell event %llu: %s",
			       (unsigned long long)events[i].seq, strerror(-r));
	}
}

bool tm_bus_connection_ready(const struct tm_bus_connection *c)
{
	return c->ready;
}
