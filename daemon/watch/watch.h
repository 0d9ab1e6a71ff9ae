/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watching device-mapper events: one poll on the control file for all devices, then one list to
 * see whose counter moved. Cost and latency do not depend on how many pools are quiet.
 */
#ifndef TM_WATCH_WATCH_H
#define TM_WATCH_WATCH_H

#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "dm/dm.h"

struct tm_watch;

/*
 * Called on the loop for every device-mapper device in each round. @seen_usec (monotonic) is when
 * the loop woke for it. The callback compares the counter with the one it knows.
 */
typedef void (*tm_watch_fn)(void *userdata, const struct tm_dm_entry *device, uint64_t seen_usec);

/* Arms at once. @dm is borrowed. Its io source has the highest priority of the loop. */
int tm_watch_new(sd_event *event, struct tm_dm *dm, tm_watch_fn fn, void *userdata,
		 struct tm_watch **ret, struct tm_error *err);
struct tm_watch *tm_watch_free(struct tm_watch *watch);

/* A round without an event: for the start, when counters may have moved before arming. */
int tm_watch_round(struct tm_watch *watch);

#endif
