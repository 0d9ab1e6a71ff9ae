/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon on the system bus: name org.thinmgr1, object /org/thinmgr1, interface
 * org.thinmgr1.Manager (daemon/bus/org.thinmgr1.xml): what there is as properties, what happens as
 * signals.
 *
 * The bus is a convenience: when it is not there, goes away or refuses the name, the daemon
 * goes on and tries again, 5 s later at first and at most once a minute. Main loop only.
 */
#ifndef TM_BUS_BUS_H
#define TM_BUS_BUS_H

#include <stdio.h>
#include <systemd/sd-event.h>

#include "core/core.h"

struct tm_bus;

/*
 * Appears on the bus, or begins to try, and from now on tells the core's events. @core and
 * @event must outlive it. Fails only for want of memory or of the loop, never for want of a bus.
 */
int tm_bus_new(struct tm_core *core, sd_event *event, struct tm_bus **ret, struct tm_error *err);
struct tm_bus *tm_bus_free(struct tm_bus *bus);

/* The core swapped its view: tells the properties that changed. Cheap when none did. */
void tm_bus_view_changed(struct tm_bus *bus);

/* The interface as D-Bus introspection XML, which daemon/bus/org.thinmgr1.xml has to equal. */
void tm_bus_introspect(FILE *out);

#endif
