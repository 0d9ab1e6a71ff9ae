/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the interfaces (HTTP, D-Bus) see of the core: the published view, commands
 * that become operations, and committed events. Everything here may be called from
 * any thread unless it says otherwise; callbacks always run on the main loop and must not block.
 */
#ifndef TM_CORE_CORE_H
#define TM_CORE_CORE_H

#include "backing/copies.h"
#include "core/view.h"
#include "store/store.h"

struct tm_core;

/* A reference to the newest view; release with tm_view_unref. Never NULL, never waits. */
struct tm_view *tm_core_view(struct tm_core *core);

/* The state directory, for a reader of one's own (tm_store_reader_new). */
const char *tm_core_state_directory(struct tm_core *core);

enum tm_command_kind {
	TM_CMD_POOL_CREATE,
	TM_CMD_POOL_IMPORT,
	TM_CMD_POOL_DELETE,
	TM_CMD_POOL_ACTIVATE,
	TM_CMD_POOL_DEACTIVATE,
	TM_CMD_POOL_EXTEND,
	TM_CMD_POOL_POLICY,
	TM_CMD_POOL_REPAIR,
	TM_CMD_POOL_RESTORE,
	TM_CMD_POOL_CHECK,
	TM_CMD_VOLUME_CREATE,
	TM_CMD_VOLUME_DELETE,
	TM_CMD_VOLUME_RESIZE,
	TM_CMD_VOLUME_RENAME,
	TM_CMD_VOLUME_ACTIVATE,
	TM_CMD_VOLUME_DEACTIVATE,
	TM_CMD_VOLUME_CHECK,
	TM_CMD_VOLUME_CLEAR,
	TM_CMD_SNAPSHOT_CREATE,
	TM_CMD_COUNT,
};
const char *tm_command_name(enum tm_command_kind kind); /* "pool-create", "volume-resize", ... */

/* One volume of a snapshot request. */
struct tm_snapshot_item {
	char volume[TM_NAME_MAX + 1]; /* name or id of the origin */
	char name[TM_NAME_MAX + 1];   /* of the snapshot */
};

/* What a user asks for, already checked for form (types, ranges, names), not against the state. */
struct tm_command {
	enum tm_command_kind kind;
	char pool[TM_NAME_MAX + 1];   /* name or id; unused for create and import */
	char volume[TM_NAME_MAX + 1]; /* name or id */
	bool if_match_valid; /* refuse with PRECONDITION unless the pool's generation is this */
	uint64_t if_match;
	union {
		struct {
			/* id, transaction id, reserves, times and sizes given as 0 are filled in by
			 * the core; metadata_bytes 0: by the rule; block_bytes 0: the default for
			 * the maximum size. */
			struct tm_pool_record record;
			bool activate;
		} pool_create;
		struct {
			char directory[TM_PATH_SIZE];
			bool activate;
		} pool_import;
		struct {
			bool with_volumes; /* else a pool that has volumes is refused */
			bool forget;       /* also when none of its files can be found */
		} pool_delete;
		struct {
			bool force; /* mounts and swap are taken off meanwhile */
		} pool_repair;
		struct {
			uint64_t data_bytes;     /* new total, 0: unchanged */
			uint64_t metadata_bytes; /* new total, 0: unchanged */
		} pool_extend;
		struct {
			struct tm_policy policy; /* whole, as it would be now */
			char *patch; /* JSON text of the change, to be made when its turn comes;
					owned; NULL: the whole is meant */
			bool when_full_valid;
			enum tm_when_full when_full;
		} pool_policy;
		struct {
			char copy[TM_COPY_NAME_SIZE]; /* of metadata, that is kept */
			bool force;                   /* also when volumes would be lost */
		} pool_restore;
		struct {
			bool copy;      /* what is read is kept */
			bool by_itself; /* nobody asked for it: see upkeep.c */
		} pool_check;
		struct {
			char name[TM_NAME_MAX + 1];
			uint64_t size_bytes;
			bool activate;
		} volume_create;
		struct {
			uint64_t size_bytes;
			bool shrink; /* a smaller size is meant */
		} volume_resize;
		struct {
			char name[TM_NAME_MAX + 1];
		} volume_rename;
		struct {
			struct tm_snapshot_item *items; /* owned */
			size_t n_items;
			bool activate;
			bool read_only;
		} snapshot;
	};
};
/* Frees @cmd and what it owns; NULL in, NULL out. */
struct tm_command *tm_command_free(struct tm_command *cmd);

/*
 * tm_core_submit - check a command against the state and queue it as an operation.
 *
 * Takes @cmd. @done is called once, on the main loop, with the new operation's record,
 * already durable (borrowed for the call), or with an error and NULL. With @dry_run
 * nothing is made: the record has no id and only says what would be done.
 */
typedef void (*tm_submit_done)(void *userdata, const struct tm_operation_record *op,
			       const struct tm_error *err);
void tm_core_submit(struct tm_core *core, struct tm_command *cmd, bool dry_run, tm_submit_done done,
		    void *userdata);

/*
 * tm_core_cancel - ask an operation to end early.
 *
 * One whose turn has not come fails at once, with CANCELLED; one that runs does so at its next
 * step, or as soon as the program that it runs was ended, and what it has done is undone. @done is
 * called once, on the main loop, with its record as it is by then (it has not ended yet), or with
 * NULL and WRONG_STATE where there is nothing to cancel any more: it has ended, or is past its
 * point of no return. Asking again changes nothing.
 */
void tm_core_cancel(struct tm_core *core, const struct tm_uuid *operation, tm_submit_done done,
		    void *userdata);

/*
 * tm_core_wait - call @done on the main loop once the operation has ended, or after
 * @timeout_usec, whichever is first; @ended tells which. An unknown or already finished id ends at
 * once.
 */
typedef void (*tm_wait_done)(void *userdata, bool ended);
void tm_core_wait(struct tm_core *core, const struct tm_uuid *operation, uint64_t timeout_usec,
		  tm_wait_done done, void *userdata);

/*
 * Events are written by a thread of their own, so for some milliseconds they lag behind the state
 * that they tell of. tm_core_recording says whether any do (any thread; costs nothing), and
 * tm_core_wait_recorded waits, as tm_core_wait does, until all that had happened when it was called
 * can be read from the database; @ended is false when that takes longer than @timeout_usec.
 */
bool tm_core_recording(const struct tm_core *core);
void tm_core_wait_recorded(struct tm_core *core, uint64_t timeout_usec, tm_wait_done done,
			   void *userdata);

/*
 * Live state of a queued or running operation (the store's row may lag a step behind).
 * 0, or -ENOENT when it is not running: read it from the store. Free with tm_operation_record_done.
 */
int tm_core_operation(struct tm_core *core, const struct tm_uuid *id,
		      struct tm_operation_record *ret);

/*
 * Committed events, in the order of their numbers. Called on the main loop. Main loop only.
 * Returns a handle for tm_core_unlisten.
 */
struct tm_listener;
typedef void (*tm_event_fn)(void *userdata, const struct tm_event *events, size_t n);
struct tm_listener *tm_core_listen(struct tm_core *core, tm_event_fn fn, void *userdata);
struct tm_listener *tm_core_unlisten(struct tm_core *core, struct tm_listener *listener);

/* Called on the main loop after each swap of the view. At most one; main loop only. */
void tm_core_on_view(struct tm_core *core, void (*fn)(void *userdata), void *userdata);

#endif
