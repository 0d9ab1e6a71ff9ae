/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What thinmgr knows of the world: plain records without behaviour. A *record*
 * is what the store keeps; a *status* is what the kernel said last.
 */
#ifndef TM_LOGIC_MODEL_H
#define TM_LOGIC_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/name.h"

#define TM_PATH_SIZE 1024 /* longest path kept, with its NUL */

#define TM_BLOCK_SIZE_MIN (64 * 1024)
#define TM_BLOCK_SIZE_MAX (1024 * 1024 * 1024)
#define TM_METADATA_BLOCK 4096
/* 255 bitmap entries of 2^14-64 blocks: what the format can address. */
#define TM_METADATA_MAX_BYTES ((uint64_t)255 * ((1 << 14) - 64) * TM_METADATA_BLOCK)
#define TM_DATA_MIN_BYTES     ((uint64_t)16 << 20)
#define TM_DATA_MAX_BYTES     ((uint64_t)INT64_MAX) /* what JSON's integers hold */
/* More where the size of data asks for more. */
#define TM_METADATA_MIN_BYTES ((uint64_t)128 << 10)
#define TM_VOLUME_MIN_BYTES   ((uint64_t)64 << 10)
#define TM_VOLUME_MAX_BYTES   ((uint64_t)1 << 62)
#define TM_DEV_ID_MAX         ((1u << 24) - 1)
#define TM_DEV_ID_NONE        (TM_DEV_ID_MAX + 1) /* within an operation: not ours to delete */

/* Ordered by degradation: a larger value is a worse mode. */
enum tm_pool_mode {
	TM_MODE_WRITE,
	TM_MODE_OUT_OF_DATA_SPACE,
	TM_MODE_READ_ONLY,
	TM_MODE_FAIL,
};

enum tm_when_full { TM_WHEN_FULL_QUEUE, TM_WHEN_FULL_ERROR };

/* When a pool whose metadata broke is repaired by itself. */
enum tm_repair_policy {
	TM_REPAIR_MANUAL,    /* never */
	TM_REPAIR_WHEN_IDLE, /* the moment nobody uses its volumes */
	TM_REPAIR_FORCE,     /* at once: they are unmounted, and mounted again afterwards */
};

/* Why the content of a volume is in doubt. */
enum tm_suspicion {
	TM_SUSPECT_NOT,
	TM_SUSPECT_NO_SPACE,  /* its pool had no data space, and writes failed */
	TM_SUSPECT_READ_ONLY, /* its pool's metadata could not be written: commits were taken back
			       */
	TM_SUSPECT_FAIL,      /* and could not be read either */
	TM_SUSPECT_REPAIRED,  /* a repair of the pool left it other than it was */
	TM_SUSPECT_RESTORED,  /* so did going back to metadata that was kept */
};

enum tm_backing_kind { TM_BACKING_FILE }; /* block, lvm, adopted: later */

/* How one of a pool's two spaces grows by itself. */
struct tm_extend_policy {
	bool enabled;
	uint32_t low_water_percent; /* 1..90: free space, of the size, below which it is always
				       extended */
	uint32_t step_percent;      /* 1..1000: growth, of the size */
	uint64_t step_min_bytes;    /* growth is at least this */
	uint64_t maximum_bytes;     /* never grow past this; 0: as far as the backing has room */
};

struct tm_policy {
	struct tm_extend_policy data;
	struct tm_extend_policy metadata;
	bool activate_at_start;  /* come back after a reboot */
	uint32_t sample_seconds; /* 5..3600: how often space is sampled */
	enum tm_repair_policy repair;
	/* Copies of metadata go that are over both: 0..1000 newer ones, 0..3650 days old. */
	uint32_t keep_copies, keep_days;
	uint32_t copy_hours; /* 0..8760: between safety copies; 0: none are made */
	uint32_t check_days; /* 0..365: between checks, which those are as well; 0: none are made */
	bool check_volumes;  /* those a repair leaves suspect have their file systems checked */
};

struct tm_volume_record {
	struct tm_uuid id;
	char name[TM_NAME_MAX + 1];
	uint32_t dev_id; /* in the pool's metadata, 24 bits */
	uint64_t size_bytes;
	struct tm_uuid origin; /* the volume this is a snapshot of; "" for none */
	bool active;           /* wanted: is activated with the pool */
	bool read_only;
	uint64_t created_usec; /* real time */
	/* Not for operations to change: it may come at any time, see logic/suspect.h. */
	enum tm_suspicion suspect;
	uint64_t suspect_usec; /* real time: since when; or when that was cleared, 0: never */
};

struct tm_pool_record {
	struct tm_uuid id;
	char name[TM_NAME_MAX + 1];
	enum tm_backing_kind backing;
	char directory[TM_PATH_SIZE]; /* file backing: holds data, metadata, pool.json */
	bool sparse;                  /* file backing: space is not preallocated */
	uint32_t block_bytes;
	bool zeroing;          /* new blocks are zeroed */
	bool discard;          /* discards free blocks */
	bool discard_passdown; /* and reach the backing */
	enum tm_when_full when_full;
	uint64_t data_bytes;         /* size of the pool's table */
	uint64_t data_reserve_bytes; /* already under the data device, not yet in the table */
	uint64_t metadata_bytes;     /* size the pool uses */
	uint64_t metadata_reserve_bytes;
	uint64_t low_water_bytes; /* of data, as last loaded */
	uint64_t transaction_id;
	uint32_t next_dev_id;
	bool active; /* wanted state */
	struct tm_policy policy;
	uint64_t checked_usec; /* when its metadata was last found sound; 0: never */
	uint64_t copied_usec;  /* when a safety copy was last made of it; 0: never */
	uint64_t created_usec;
};

/* The kernel's status line of a thin-pool. */
struct tm_thin_pool_status {
	bool failed; /* "Fail" or "Error": nothing else is valid */
	enum tm_pool_mode mode;
	uint64_t transaction_id;
	uint64_t metadata_used, metadata_total; /* 4 KiB blocks */
	uint64_t data_used, data_total;         /* data blocks */
	bool held_root_valid;
	uint64_t held_root;
	bool discard, discard_passdown;
	bool error_if_no_space;
	bool needs_check;
	bool metadata_low_water_valid; /* older targets do not say */
	uint64_t metadata_low_water;   /* 4 KiB blocks */
};

/* The kernel's status line of a thin device. */
struct tm_thin_status {
	bool failed;
	uint64_t mapped_sectors;
	bool highest_valid;
	uint64_t highest_sector;
};

/* One sample of a pool, as kept in history. */
struct tm_sample {
	uint64_t time_usec; /* real time */
	uint64_t data_used_bytes, data_total_bytes;
	uint64_t metadata_used_bytes, metadata_total_bytes;
	enum tm_pool_mode mode;
	uint32_t count;               /* raw samples it stands for: 1, or more when rolled up */
	uint64_t data_used_max_bytes; /* the highest of them */
};

enum tm_severity { TM_SEV_INFO, TM_SEV_NOTICE, TM_SEV_WARNING, TM_SEV_ERROR, TM_SEV_CRITICAL };

enum tm_event_type {
#define TM_EVENT(sym, slug, sev, text) TM_EVENT_##sym,
#include "events.def"
#undef TM_EVENT
	TM_EVENT_COUNT,
};

const char *tm_event_slug(enum tm_event_type type);
enum tm_severity tm_event_severity(enum tm_event_type type);
const char *tm_severity_name(enum tm_severity severity);
/* 0 or -EINVAL. */
int tm_event_from_slug(const char *slug, enum tm_event_type *ret);

const char *tm_mode_name(
	enum tm_pool_mode mode); /* "write", "out_of_data_space", "read_only", "fail" */
const char *tm_when_full_name(enum tm_when_full w); /* "queue", "error" */
int tm_when_full_parse(const char *text, enum tm_when_full *ret);
const char *tm_repair_policy_name(enum tm_repair_policy p); /* "manual", "when_idle", ... */
int tm_repair_policy_parse(const char *text, enum tm_repair_policy *ret); /* 0 or -EINVAL */

/* "" (not suspect), "no_space", "read_only", "fail", "repaired", "restored" */
const char *tm_suspicion_name(enum tm_suspicion s);
int tm_suspicion_parse(const char *text, enum tm_suspicion *ret); /* 0 or -EINVAL */

/* The policy of a pool whose creator said nothing. */
void tm_policy_default(struct tm_policy *ret);

#endif
