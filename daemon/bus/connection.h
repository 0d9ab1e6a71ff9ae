/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection to the system bus: made, lost and made again. Knows views and events, not the
 * core. */
#ifndef TM_BUS_CONNECTION_H
#define TM_BUS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/view.h"
#include "store/store.h"

struct tm_bus_connection;

/*
 * Takes @view on success. Without a bus it begins to try: after @retry_usec (0: 5 s), then in
 * doubling intervals up to a minute. Fails only for want of memory or of the loop.
 */
int tm_bus_connection_new(sd_event *event, struct tm_view *view, uint64_t retry_usec,
			  struct tm_bus_connection **ret, struct tm_error *err);
struct tm_bus_connection *tm_bus_connection_free(struct tm_bus_connection *c);

/* Takes @view. */
void tm_bus_connection_set_view(struct tm_bus_connection *c, struct tm_view *view);
/* Tells @n events, or drops them when there is no bus now: who missed them reads them by number. */
void tm_bus_connection_events(struct tm_bus_connection *c, const struct tm_event *events, size_t n);
/* Is the name ours on the bus now? */
bool tm_bus_connection_ready(const struct tm_bus_connection *c);

#endif
