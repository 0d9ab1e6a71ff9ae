/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object /org/thinmgr1 with its interface org.thinmgr1.Manager, on whatever connection. */
#ifndef TM_BUS_MANAGER_H
#define TM_BUS_MANAGER_H

#include <stdio.h>
#include <systemd/sd-bus.h>

#include "core/view.h"
#include "store/store.h"

#define TM_BUS_NAME      "org.thinmgr1"
#define TM_BUS_PATH      "/org/thinmgr1"
#define TM_BUS_INTERFACE "org.thinmgr1.Manager"

/* What the properties say: the object's userdata. The view is owned and never NULL while in use. */
struct tm_bus_manager {
	struct tm_view *view;
};

/* Adds the object to @bus. @manager must outlive the slot. 0 or negative errno. */
int tm_bus_manager_add(struct tm_bus_manager *manager, sd_bus *bus, sd_bus_slot **ret_slot);

/* Takes @view, and tells @bus (may be NULL) what is different. 0 or the bus's negative errno. */
int tm_bus_manager_set_view(struct tm_bus_manager *manager, struct tm_view *view, sd_bus *bus);

/* Sends the signals of one event. 0 or negative errno. */
int tm_bus_manager_emit(sd_bus *bus, const struct tm_event *event);

#endif
