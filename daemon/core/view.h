/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The published picture: an immutable, reference-counted snapshot of everything
 * a read request may ask. The core swaps it; a reader takes a reference and never
 * waits for a dm ioctl, the disk or the core. Unchanged pools are shared between pictures.
 */
#ifndef TM_CORE_VIEW_H
#define TM_CORE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "logic/extend.h"
#include "logic/model.h"

enum tm_pool_state {
	TM_POOL_CREATING,
	TM_POOL_INACTIVE,
	TM_POOL_ACTIVE,
	TM_POOL_DELETING,
	TM_POOL_UNCERTAIN, /* something could not be undone: watched, not changed, until an
			      administrator acts */
};
const char *tm_pool_state_name(
	enum tm_pool_state state); /* "creating", "inactive", "active", "deleting", "uncertain" */

struct tm_volume_view {
	struct tm_volume_record record;
	char origin_name[TM_NAME_MAX + 1]; /* "" when there is none, or it was deleted */
	bool active;                       /* has a device now */
	bool mapped_valid;
	uint64_t mapped_bytes;
	char device[TM_PATH_SIZE]; /* "/dev/thinmgr/POOL/VOLUME", or "" */
};

/* One space of a pool as the extension machinery sees it. */
struct tm_extend_view {
	struct tm_latency reaction; /* event seen to larger table live */
	struct tm_latency arming;
	uint64_t rate_bytes_per_sec;
	uint64_t extensions; /* made since the daemon started */
	enum tm_extend_verdict verdict;
	unsigned int failures;    /* in a row */
	uint64_t low_water_bytes; /* the mark in force */
};

struct tm_pool_view {
	int refs; /* atomic */
	struct tm_pool_record record;
	enum tm_pool_state state;
	char state_reason[256]; /* why uncertain or inactive though wanted active; "" otherwise */
	bool status_valid;      /* active and read at least once */
	struct tm_thin_pool_status status;
	uint64_t status_usec; /* real time of that look */
	uint64_t backing_free_bytes;
	bool direct_io;
	uint64_t queueing_since_usec; /* real time; 0: not queueing */
	uint64_t queueing_until_usec; /* when the kernel turns it into errors; 0: never or not
					 queueing */
	char *repair_waits_for; /* JSON text: who holds up its repair; owned; NULL: nobody does */
	struct tm_extend_view data, metadata;
	uint64_t virtual_bytes; /* sum of the volumes' sizes */
	uint64_t generation;    /* grows with each change of this pool: the ETag */
	size_t n_volumes;
	struct tm_volume_view volumes[];
};

struct tm_tool_view {
	char name[32];
	char path[128]; /* "" when it was not found */
};

struct tm_system_view {
	char version[32];
	uint64_t started_usec;
	char kernel_release[128];
	char target_module[32];       /* "dm_thin_pool" */
	char target_version[32];      /* "1.22.0", "" when missing */
	char target_origin[32];       /* "distribution" or "thinmgr" */
	bool target_grows;            /* by a message, without a suspend: ours does */
	int no_space_timeout_seconds; /* -1 unknown, 0 never */
	struct tm_tool_view tools[8];
	size_t n_tools;
	char degraded[8][256]; /* lasting warnings, sentences */
	size_t n_degraded;
	bool ready;
};

struct tm_view {
	int refs; /* atomic */
	uint64_t generation;
	struct tm_system_view system;
	size_t n_pools;
	struct tm_pool_view *pools[]; /* sorted by name */
};

/* One more reference; returns its argument. Any thread. */
struct tm_pool_view *tm_pool_view_ref(struct tm_pool_view *pool);
/* Give a reference back; the last one frees. NULL in, NULL out. */
struct tm_pool_view *tm_pool_view_unref(struct tm_pool_view *pool);

struct tm_view *tm_view_ref(struct tm_view *view);
/* The last one also gives back the references to the pools. NULL in, NULL out. */
struct tm_view *tm_view_unref(struct tm_view *view);
static inline void tm_view_unrefp(struct tm_view **v)
{
	(void)tm_view_unref(*v);
}
#define tm_auto_view tm_cleanup(tm_view_unrefp)

/* @ref is a name or an id. NULL when there is none. Borrowed from the view. */
const struct tm_pool_view *tm_view_pool(const struct tm_view *view, const char *ref);
const struct tm_volume_view *tm_pool_view_volume(const struct tm_pool_view *pool, const char *ref);

#endif
