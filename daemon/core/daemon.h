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
	uint64_t tool_limit_usec; /* thin_check and thin_repair, at least */
	bool load_module;
};

/*
 * tm_core_new - bring everything up: kernel target, store, operations cut off by a crash, pools.
 *
 * Blocks until operations are settled and the pools that are up already are watched. The loop
 * must be run afterwards: pools whose policy says so are brought up in the background, which may
 * take long where metadata is large. A pool that cannot be brought up does not fail the start: its
 * state says why. Errors: the store cannot be used, no device-mapper.
 */
int tm_core_new(sd_event *event, const struct tm_core_config *config, struct tm_core **ret,
		struct tm_error *err);

/* @fn is called once, on the main loop, when every pool that is to be up is up, or cannot be; at
 * once when that is so already. At most one. */
void tm_core_on_ready(struct tm_core *core, void (*fn)(void *userdata), void *userdata);
/* Whether pools are still being brought up. */
bool tm_core_raising(const struct tm_core *core);

/* From a reload: what may change at run time. */
void tm_core_reconfigure(struct tm_core *core, const struct tm_core_config *config);

/*
 * Begin to stop: new commands are refused, operations before their point of no return are undone,
 * later ones finished; pools and volumes stay active. Then the loop may end when tm_core_idle.
 */
void tm_core_stop(struct tm_core *core);
bool tm_core_idle(const struct tm_core *core);

/* The process is about to end without tm_core_free, because a thread would be waited for too long:
 * write down what is known. */
void tm_core_abandon(struct tm_core *core);

struct tm_core *tm_core_free(struct tm_core *core);

#endif
