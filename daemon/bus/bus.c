/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between the core and the connection. */
#include "bus/bus.h"

#include <errno.h>
#include <stdlib.h>

#include "bus/connection.h"

struct tm_bus {
	struct tm_core *core;
	struct tm_listener *listener;
	struct tm_bus_connection *connection;
};

static void on_events(void *userdata, const struct tm_event *events, size_t n)
{
	const struct tm_bus *bus = userdata;

	tm_bus_connection_events(bus->connection, events, n);
}

int tm_bus_new(struct tm_core *core, sd_event *event, struct tm_bus **ret, struct tm_error *err)
{
	struct tm_view *view = tm_core_view(core);
	struct tm_bus *bus = calloc(1, sizeof(*bus));
	int r;

	if (!bus) {
		(void)tm_view_unref(view);
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	}
	r = tm_bus_connection_new(event, view, 0, &bus->connection, err);
	if (r < 0) {
		(void)tm_view_unref(view);
		free(bus);
		return r;
	}
	bus->core = core;
	bus->listener = tm_core_listen(core, on_events, bus);
	if (!bus->listener) {
		(void)tm_bus_free(bus);
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	}
	*ret = bus;
	return 0;
}

struct tm_bus *tm_bus_free(struct tm_bus *bus)
{
	if (!bus)
		return NULL;
	if (bus->listener)
		bus->listener = tm_core_unlisten(bus->core, bus->listener);
	bus->connection = tm_bus_connection_free(bus->connection);
	free(bus);
	return NULL;
}

void tm_bus_view_changed(struct tm_bus *bus)
{
	tm_bus_connection_set_view(bus->connection, tm_core_view(bus->core));
}
