/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Is a pool's metadata sound? Read without stopping it: of a pool that is up the kernel holds a
 * metadata snapshot, as it was at one moment, while that is read; of another the file is. On
 * request what was read is kept, as something to go back to (op-restore.c).
 *
 * A pool has one metadata snapshot at most, and others may have a use for it: one that is there
 * already is left alone. Ours is let go as soon as it was read, and by whatever undoes the
 * operation, also after a crash: where it is was journaled.
 */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "backing/copies.h"
#include "backing/packed.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "core/metadata-swap.h"
#include "core/op-types.h"
#include "logic/dump-scan.h"

static void packed_done(struct tm_packed **p)
{
	*p = tm_packed_free(*p);
}

static int check_tools(struct tm_op *op, struct tm_error *err)
{
	int r = tm_metadata_tool_there("thin_check", op->pool.name, err);

	return r < 0 ? r : tm_metadata_tool_there("thin_dump", op->pool.name, err);
}

/* ---- the metadata snapshot ---- */

static int held_by_others(const struct tm_op *op, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE];
	int r = tm_error_set(err, TM_ERR_BUSY, EBUSY,
			     "Somebody else holds a metadata snapshot of pool %s, and a pool can "
			     "have only one.",
			     op->pool.name);

	tm_dm_name(name, TM_ROLE_POOL, op->pool.name, NULL);
	tm_error_hint(err,
		      "Try again when it is released. If nobody needs it any more: dmsetup "
		      "message %s 0 release_metadata_snap",
		      name);
	return r;
}

static bool read_only(const struct tm_thin_pool_status *s)
{
	return s->failed || s->needs_check || s->mode >= TM_MODE_READ_ONLY;
}

static int reserve(struct tm_op *op, struct tm_error *err)
{
	struct tm_thin_pool_status status;
	struct tm_error local = { 0 };
	char name[TM_DM_NAME_SIZE];
	int r;

	if (!op->pool_was_active)
		return 0;
	r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
	if (r < 0)
		return r;
	if (read_only(&status)) {
		r = tm_error_set(err, TM_ERR_NEEDS_CHECK, EROFS,
				 "The metadata of pool %s cannot be read while it is up: it can "
				 "only be read from, or failed.",
				 op->pool.name);
		tm_error_hint(err, "It has to be repaired: thinmgr pool repair %s", op->pool.name);
		return r;
	}
	if (status.held_root_valid)
		return held_by_others(op, err);
	tm_dm_name(name, TM_ROLE_POOL, op->pool.name, NULL);
	r = tm_dm_message(op->core->dm, name, "reserve_metadata_snap", &local);
	if (r == -EBUSY)
		return held_by_others(op, err);
	if (r < 0) {
		if (err && !err->code)
			*err = local;
		return r;
	}
	op->check.held = true;
	r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
	if (r < 0)
		return r;
	if (!status.held_root_valid)
		return tm_error_set(err, TM_ERR_KERNEL, EIO,
				    "The kernel made a metadata snapshot of pool %s, but does not "
				    "hold it.",
				    op->pool.name);
	op->check.held_root = status.held_root;
	return 0;
}

/*
 * Whether the one at @root is ours. Cut off before it was journaled where ours is, nobody else held
 * one right before: the one that is there now is taken for ours.
 */
static bool is_ours(const struct tm_op *op, uint64_t root)
{
	if (op->check.held_root)
		return root == op->check.held_root;
	return op->check.held || op->recovering;
}

static int release(struct tm_op *op, struct tm_error *err)
{
	const struct tm_log_fields fields = { .pool = op->pool.name,
					      .operation = op->record.id.text };
	struct tm_thin_pool_status status;
	char name[TM_DM_NAME_SIZE];
	struct tm_dm_info info;
	int r;

	if (!op->pool_was_active ||
	    tm_parts_ours(op->core, &op->pool, TM_ROLE_POOL, NULL, &info, NULL) == 0)
		return 0;
	r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
	if (r < 0)
		return r;
	if (!status.held_root_valid || !is_ours(op, status.held_root))
		return 0;
	/* It broke meanwhile: nothing can be changed before the repair. */
	if (read_only(&status)) {
		tm_log_fields(LOG_WARNING, &fields,
			      "The metadata snapshot of pool %s stays: the pool is read-only now.",
			      op->pool.name);
		return 0;
	}
	tm_dm_name(name, TM_ROLE_POOL, op->pool.name, NULL);
	r = tm_dm_message(op->core->dm, name, "release_metadata_snap", err);
	if (r >= 0)
		op->check.held = false;
	return r;
}

/* ---- reading ---- */

/* Where what thin_dump prints goes. */
struct reading {
	struct tm_dump_scan scan;
	struct tm_packed *packed; /* NULL: it is not kept */
	struct tm_dump_head head; /* of a snapshot's */
	uint64_t data_blocks;     /* that go there; 0: it is right as it is */
};

static void reading_done(struct reading *r)
{
	tm_dump_scan_done(&r->scan);
	packed_done(&r->packed);
}

static int take(void *userdata, const char *data, size_t len, struct tm_error *err)
{
	struct reading *reading = userdata;

	if (tm_dump_scan_feed(&reading->scan, data, len) < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	if (!reading->packed)
		return 0;
	if (reading->data_blocks && !reading->head.done) {
		size_t taken = 0;
		int r = tm_dump_head_feed(&reading->head, data, len, reading->data_blocks, &taken);

		if (r < 0)
			return tm_error_set(err, TM_ERR_TOOL_FAILED, -r,
					    "What thin_dump prints cannot be understood.");
		if (r > 0)
			r = tm_packed_write(reading->packed, reading->head.text, reading->head.len,
					    err);
		if (r < 0)
			return r;
		data += taken;
		len -= taken;
	}
	return len ? tm_packed_write(reading->packed, data, len, err) : 0;
}

static int unsound(const struct tm_op *op, const char *what, const char *output,
		   struct tm_error *err)
{
	int r = tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			     "The metadata of pool %s is damaged: %s%s%s", op->pool.name, what,
			     output[0] ? ": " : ".", output);

	if (op->pool_was_active)
		tm_error_hint(err,
			      "Nothing was changed. Save what matters while it can be read; then "
			      "deactivate the pool, have it repaired, and activate it: thinmgr "
			      "pool repair %s",
			      op->pool.name);
	else
		tm_error_hint(err, "Nothing was changed. Have it repaired: thinmgr pool repair %s",
			      op->pool.name);
	return r;
}

/*
 * Every volume that the kernel has a device for is in its metadata. One that has none may be
 * missing since a repair, or since going back: that is known, and no damage.
 */
static int compare(const struct tm_op *op, const struct tm_dump_scan *scan, json_t *missing,
		   struct tm_error *err)
{
	for (size_t i = 0; i < op->n_volumes; i++) {
		const struct tm_volume_record *v = &op->volumes[i];
		struct tm_dm_info info;
		char what[TM_NAME_MAX + 64];

		if (tm_dump_scan_has(scan, v->dev_id))
			continue;
		if (op->pool_was_active &&
		    tm_parts_ours(op->core, &op->pool, TM_ROLE_VOLUME, v, &info, NULL) > 0) {
			(void)snprintf(what, sizeof(what),
				       "volume %s, which is active, is not in it", v->name);
			return unsound(op, what, "", err);
		}
		(void)json_array_append_new(missing, json_string(v->name));
	}
	return 0;
}

static int report(struct tm_op *op, const struct tm_dump_scan *scan, struct tm_error *err)
{
	json_t *missing = json_array();
	int r = compare(op, scan, missing, err);
	json_t *root;

	if (r < 0) {
		json_decref(missing);
		return r;
	}
	root = json_pack("{s:b, s:I, s:I, s:s?, s:o}", "in_use", (int)op->pool_was_active,
			 "volumes", (json_int_t)scan->n_devices, "mapped",
			 (json_int_t)tm_sat_mul(tm_dump_scan_mapped(scan), op->pool.block_bytes),
			 "copy", op->check.keep ? op->repair.copy_name : NULL, "missing", missing);
	free(op->repair.report);
	op->repair.report = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return op->repair.report ? 0
				 : tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

/* What the tools read: a device that goes past whatever was read of the file before, or the file.
 */
static int find_metadata(const struct tm_op *op, char path[TM_PATH_SIZE + 16], struct tm_error *err)
{
	struct tm_superblock sb;
	struct tm_dm_info info;
	int r;

	if (op->pool_was_active) {
		r = tm_parts_ours(op->core, &op->pool, TM_ROLE_META, NULL, &info, err);
		if (r == 0)
			r = tm_error_set(err, TM_ERR_KERNEL, ENXIO,
					 "The metadata device of pool %s is gone.", op->pool.name);
		if (r > 0)
			(void)snprintf(path, TM_PATH_SIZE + 16, "/dev/dm-%u", info.minor);
		return r;
	}
	tm_backing_part_path(&op->pool, TM_PART_METADATA, path);
	r = tm_parts_read_superblock(&op->pool, &sb, err);
	if (r == 0)
		r = tm_error_set(err, TM_ERR_WRONG_STATE, ENODATA,
				 "Pool %s was never activated: it has no metadata yet.",
				 op->pool.name);
	return r;
}

static int read_all(struct tm_op *op, struct tm_error *err)
{
	tm_cleanup(reading_done) struct reading reading = { 0 };
	struct tm_thin_pool_status status;
	struct tm_tool_result result = { 0 };
	char path[TM_PATH_SIZE + 16];
	int r = find_metadata(op, path, err);

	/* thin_dump reads once what thin_check reads once of a snapshot, and twice of a file. */
	op->progress.part_end = op->pool_was_active ? 50 : 67;
	if (r >= 0)
		r = op->pool_was_active ? tm_metadata_check_held(op->core, &op->progress, &op->pool,
								 path, &result, err)
					: tm_metadata_check(op->core, &op->progress, path,
							    op->pool.name, &result, err);
	if (r < 0)
		return r;
	if (r == 0)
		return unsound(op, "thin_check does not accept it", result.output, err);
	if (op->check.keep && op->pool_was_active) {
		r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
		if (r < 0)
			return r;
		/* Perhaps more than at the moment of the snapshot, never less. */
		reading.data_blocks = status.data_total;
	}
	/* A check that is too old for snapshots did not run; one that was seen stays done. */
	op->progress.part_begin = atomic_load(&op->progress.percent) < 0 ? 0
									 : op->progress.part_end;
	op->progress.part_end = 100;
	if (op->check.keep)
		r = tm_packed_begin(&op->pool, &reading.packed, err);
	if (r >= 0)
		r = tm_metadata_dump(op->core, &op->progress, &op->pool, path, op->pool_was_active,
				     take, &reading, &result, err);
	if (r < 0)
		return r;
	if (r == 0)
		return unsound(op, "thin_dump cannot read it", result.output, err);
	if (!tm_dump_scan_whole(&reading.scan))
		return unsound(op, "what thin_dump says of it is not whole", result.output, err);
	r = report(op, &reading.scan, err);
	return r >= 0 && reading.packed ? tm_packed_finish(reading.packed, err) : r;
}

static int read_undo(struct tm_op *op, struct tm_error *err)
{
	return tm_copies_drop_packed(&op->pool, err);
}

/* ---- keeping ---- */

static int keep(struct tm_op *op, struct tm_error *err)
{
	return op->check.keep ? tm_copies_keep_packed(&op->pool, op->repair.copy_name, err) : 0;
}

/* In time it stands for the moment at which the metadata was read. */
static int record(struct tm_op *op, struct tm_error *err)
{
	const uint64_t now = tm_now_realtime_usec();
	const uint64_t copied = op->check.keep ? now : op->pool.copied_usec;
	int r = tm_store_set_checked(op->core->store, &op->pool.id, now, copied, err);

	if (r < 0)
		return r;
	op->pool.checked_usec = now;
	op->pool.copied_usec = copied;
	return 0;
}

static int rotate(struct tm_op *op, struct tm_error *err)
{
	return op->check.keep ? tm_metadata_rotate(&op->pool, op->repair.copy_name, err) : 0;
}

static const struct tm_step check_steps[] = {
	{ .name = "check-tools", .run = check_tools },
	{ .name = "reserve", .run = reserve, .undo = release },
	{ .name = "read", .run = read_all, .undo = read_undo },
	{ .name = "release", .run = release },
	{ .name = "keep", .run = keep, .commit = true },
	{ .name = "record", .run = record, .record = true, .can_wait = true },
	{ .name = "rotate-copies", .run = rotate, .can_wait = true },
};

const struct tm_op_type tm_op_pool_check = {
	.kind = TM_CMD_POOL_CHECK,
	.steps = check_steps,
	.n_steps = TM_ARRAY_SIZE(check_steps),
	.wants_pool_up = true,
};
