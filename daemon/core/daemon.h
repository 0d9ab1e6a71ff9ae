/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core's life, for main(). */
#ifndef TM_CORE_DAEMON_H
#define TM_CORE_DAEMON_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "core/core.h"

struct tm_core_config {
	char state_directory[TM_PATH_SIZE];
	unsigned int worker_threads;
	uint64_t keep_events_usec;
	bool load_module;
};

/*
 * tm_core_new - bring everything up: kernel target, store, operations cut off by a crash, pools.
 *
 * Blocks until pools whose policy says so are active; then watching has begun. The
 * loop must be run afterwards. A pool that cannot be brought up does not fail the start: its
 * state says why. Errors: the store cannot be used, no device-mapper.
 */
int tm_core_new(sd_event *event, const struct tm_core_config *config, struct tm_core **ret,
		struct tm_error *err);

/* From a reload: what may change at run time. */
void tm_core_reconfigure(struct tm_core *core, const struct tm_core_config *config);

/*
 * Begin to stop: new commands are refused, operations before their point of no return are undone,
 * later ones finished; pools and volumes stay active. Then the loop may end when tm_core_idle.
 */
void tm_core_stop(struct tm_core *core);
bool tm_core_idle(const struct tm_core *core);

struct tm_core *tm_core_free(struct tm_core *core);

#endif
