/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on one volume. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "core/internal.h"
#include "core/op-types.h"

#define LINK_WAIT_MS 30000

static int step_move_transaction(struct tm_op *op, struct tm_error *err)
{
	int r = tm_parts_move_transaction(op->core, &op->pool, op->transaction_before,
					  op->transaction_before + 1, err);

	if (r < 0)
		return r;
	op->pool.transaction_id = op->transaction_before + 1;
	return 0;
}

static int step_move_transaction_undo(struct tm_op *op, struct tm_error *err)
{
	op->pool.transaction_id = op->transaction_before;
	return tm_parts_move_transaction(op->core, &op->pool, op->transaction_before + 1,
					 op->transaction_before, err);
}

/* ---- create ---- */

static int create_thin(struct tm_op *op, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], message[64];
	struct tm_error local = { 0 };
	int r;

	tm_dm_name(name, TM_ROLE_POOL, op->pool.name, NULL);
	(void)snprintf(message, sizeof(message), "create_thin %" PRIu32, op->items[0].dev_id);
	r = tm_dm_message(op->core->dm, name, message, &local);
	if (r == -EEXIST) {
		/* Not made by us: make sure undoing does not delete it. */
		op->items[0].dev_id = TM_DEV_ID_NONE;
		return tm_error_set(err, TM_ERR_WRONG_STATE, EEXIST,
				    "Pool %s has a device in its metadata that is not recorded; it "
				    "was changed by somebody else.",
				    op->pool.name);
	}
	if (r < 0 && err)
		*err = local;
	return r;
}

/*
 * Is its device id one of a recorded volume? Settled late, because the pool could not be brought up
 * at the start, an operation may find that its id was given to another meanwhile.
 */
static bool given_away(const struct tm_op *op, const struct tm_volume_record *item)
{
	for (size_t i = 0; i < op->n_volumes; i++)
		if (op->volumes[i].dev_id == item->dev_id &&
		    !tm_uuid_equal(&op->volumes[i].id, &item->id))
			return true;
	return false;
}

static int create_thin_undo(struct tm_op *op, struct tm_error *err)
{
	if (op->items[0].dev_id > TM_DEV_ID_MAX || given_away(op, &op->items[0]))
		return 0;
	return tm_parts_delete_thin(op->core, &op->pool, op->items[0].dev_id, err);
}

static int activate_item(struct tm_op *op, struct tm_error *err)
{
	if (!op->activate)
		return 0;
	return tm_parts_activate_volume(op->core, &op->pool, &op->items[0], err);
}

static int deactivate_item(struct tm_op *op, struct tm_error *err)
{
	return tm_parts_deactivate_volume(op->core, &op->pool, &op->items[0], err);
}

/* The pool's row (transaction id, next device id) and the volume's. */
static int record_item(struct tm_op *op, struct tm_error *err)
{
	int r = tm_store_put_pool(op->core->store, &op->pool, err);

	if (r < 0)
		return r;
	return tm_store_put_volume(op->core->store, &op->pool.id, &op->items[0], err);
}

static const struct tm_step create_steps[] = {
	{ .name = "create-thin", .run = create_thin, .undo = create_thin_undo },
	{ .name = "move-transaction",
	  .run = step_move_transaction,
	  .undo = step_move_transaction_undo },
	{ .name = "activate", .run = activate_item, .undo = deactivate_item },
	{ .name = "record", .run = record_item, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_volume_create = {
	.kind = TM_CMD_VOLUME_CREATE,
	.steps = create_steps,
	.n_steps = TM_ARRAY_SIZE(create_steps),
	.needs_pool_up = true,
};

/* ---- delete ---- */

static int delete_activate_again(struct tm_op *op, struct tm_error *err)
{
	if (!op->pool_was_active || !op->before[0].active)
		return 0;
	return tm_parts_activate_volume(op->core, &op->pool, &op->before[0], err);
}

static int delete_thin(struct tm_op *op, struct tm_error *err)
{
	return tm_parts_delete_thin(op->core, &op->pool, op->items[0].dev_id, err);
}

static int delete_record(struct tm_op *op, struct tm_error *err)
{
	int r = tm_store_put_pool(op->core->store, &op->pool, err);

	if (r < 0)
		return r;
	return tm_store_delete_volume(op->core->store, &op->items[0].id, err);
}

static const struct tm_step delete_steps[] = {
	{ .name = "deactivate", .run = deactivate_item, .undo = delete_activate_again },
	{ .name = "delete-thin", .run = delete_thin, .commit = true },
	{ .name = "move-transaction", .run = step_move_transaction },
	{ .name = "record", .run = delete_record, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_volume_delete = {
	.kind = TM_CMD_VOLUME_DELETE,
	.steps = delete_steps,
	.n_steps = TM_ARRAY_SIZE(delete_steps),
	.needs_pool_up = true,
};

/* ---- resize ---- */

static int set_size(struct tm_op *op, const struct tm_volume_record *v, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE];
	struct tm_dm_info info;
	int r;

	r = tm_parts_ours(op->core, &op->pool, TM_ROLE_VOLUME, v, &info, err);
	if (r <= 0)
		return r;
	r = tm_parts_load_volume(op->core, &op->pool, v, v->size_bytes, err);
	if (r < 0)
		return r;
	tm_dm_name(name, TM_ROLE_VOLUME, op->pool.name, v->name);
	/* I/O in flight is kept, and no file system need be frozen to add space behind it. */
	return tm_dm_resume(op->core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_FULL,
			    err);
}

static int resize_device(struct tm_op *op, struct tm_error *err)
{
	return set_size(op, &op->items[0], err);
}

static int resize_device_undo(struct tm_op *op, struct tm_error *err)
{
	return set_size(op, &op->before[0], err);
}

static const struct tm_step resize_steps[] = {
	{ .name = "resize-device", .run = resize_device, .undo = resize_device_undo },
	{ .name = "record", .run = record_item, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_volume_resize = {
	.kind = TM_CMD_VOLUME_RESIZE,
	.steps = resize_steps,
	.n_steps = TM_ARRAY_SIZE(resize_steps),
};

/* ---- rename ---- */

static int rename_to(struct tm_op *op, const struct tm_volume_record *from,
		     const struct tm_volume_record *to, struct tm_error *err)
{
	char old_name[TM_DM_NAME_SIZE], new_name[TM_DM_NAME_SIZE], path[TM_PATH_SIZE];
	struct tm_dm_info info;
	int r;

	r = tm_parts_ours(op->core, &op->pool, TM_ROLE_VOLUME, from, &info, NULL);
	if (r <= 0) {
		/* Inactive, or renamed already; or it was not, and udev must not be told so. */
		if (tm_parts_ours(op->core, &op->pool, TM_ROLE_VOLUME, to, &info, NULL) > 0)
			return tm_parts_write_names(&op->pool, to, err);
		return 0;
	}
	r = tm_parts_write_names(&op->pool, to, err);
	if (r < 0)
		return r;
	tm_dm_name(old_name, TM_ROLE_VOLUME, op->pool.name, from->name);
	tm_dm_name(new_name, TM_ROLE_VOLUME, op->pool.name, to->name);
	r = tm_dm_rename(op->core->dm, old_name, new_name, err);
	if (r < 0)
		return r;
	tm_device_path(path, op->pool.name, to->name);
	r = tm_udev_wait_link(path, info.major, info.minor, LINK_WAIT_MS);
	if (r < 0)
		return tm_error_set(err, TM_ERR_TIMEOUT, -r, "%s did not appear within %d s.", path,
				    LINK_WAIT_MS / 1000);
	return 0;
}

static int rename_device(struct tm_op *op, struct tm_error *err)
{
	return rename_to(op, &op->before[0], &op->items[0], err);
}

static int rename_device_undo(struct tm_op *op, struct tm_error *err)
{
	return rename_to(op, &op->items[0], &op->before[0], err);
}

static const struct tm_step rename_steps[] = {
	{ .name = "rename-device", .run = rename_device, .undo = rename_device_undo },
	{ .name = "record", .run = record_item, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_volume_rename = {
	.kind = TM_CMD_VOLUME_RENAME,
	.steps = rename_steps,
	.n_steps = TM_ARRAY_SIZE(rename_steps),
};

/* ---- activate, deactivate ---- */

static int activate_undo(struct tm_op *op, struct tm_error *err)
{
	return op->before[0].active ? 0 : deactivate_item(op, err);
}

static const struct tm_step activate_steps[] = {
	{ .name = "activate", .run = activate_item, .undo = activate_undo },
	{ .name = "record", .run = record_item, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_volume_activate = {
	.kind = TM_CMD_VOLUME_ACTIVATE,
	.steps = activate_steps,
	.n_steps = TM_ARRAY_SIZE(activate_steps),
	.needs_pool_up = true,
};

static const struct tm_step deactivate_steps[] = {
	{ .name = "deactivate", .run = deactivate_item, .undo = delete_activate_again },
	{ .name = "record", .run = record_item, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_volume_deactivate = {
	.kind = TM_CMD_VOLUME_DEACTIVATE,
	.steps = deactivate_steps,
	.n_steps = TM_ARRAY_SIZE(deactivate_steps),
	.needs_pool_up = true,
};

/* ---- snapshots ---- */

static const struct tm_volume_record *origin_of(const struct tm_op *op, size_t i)
{
	for (size_t k = 0; k < op->n_volumes; k++)
		if (tm_uuid_equal(&op->volumes[k].id, &op->items[i].origin))
			return &op->volumes[k];
	return NULL;
}

/*
 * Freezing writes out what is dirty while the volume's suspend is under way, and a pool cannot be
 * extended in that time (its own suspend waits for the volume's). So flush before, while extension
 * still works, and do not begin without room.
 */
static int snapshot_flush(struct tm_op *op, struct tm_error *err)
{
	struct tm_thin_pool_status status;
	uint64_t free_bytes, dirty;
	int r;

	for (size_t i = 0; i < op->n_items; i++) {
		const struct tm_volume_record *origin = origin_of(op, i);
		struct tm_dm_info info;

		if (!origin)
			return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT,
					    "A volume of pool %s to be snapshotted is gone.",
					    op->pool.name);
		r = tm_parts_ours(op->core, &op->pool, TM_ROLE_VOLUME, origin, &info, err);
		if (r < 0)
			return r;
		if (r > 0)
			tm_flush_mounted(info.major, info.minor);
	}
	r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
	if (r < 0)
		return r;
	if (status.failed || status.mode != TM_MODE_WRITE) {
		(void)tm_error_set(err, TM_ERR_WRONG_STATE, EROFS,
				   "Pool %s is in mode %s; a snapshot needs mode write.",
				   op->pool.name,
				   status.failed ? "fail" : tm_mode_name(status.mode));
		return -EROFS;
	}
	free_bytes = tm_sat_mul(status.data_total - status.data_used, op->pool.block_bytes);
	dirty = tm_dirty_bytes();
	if (free_bytes < dirty && free_bytes < op->pool.low_water_bytes) {
		r = tm_error_set(
			err, TM_ERR_NO_SPACE, ENOSPC,
			"Pool %s has too little free space to freeze its file systems safely.",
			op->pool.name);
		tm_error_hint(
			err, "Extend the pool (thinmgr pool extend %s --data +SIZE) and try again.",
			op->pool.name);
		return r;
	}
	return 0;
}

/* @suspend or resume every active origin; each once. */
static int origins(struct tm_op *op, bool suspend, struct tm_error *err)
{
	int first = 0;

	for (size_t i = 0; i < op->n_items; i++) {
		const struct tm_volume_record *origin = origin_of(op, i);
		char name[TM_DM_NAME_SIZE];
		struct tm_dm_info info;
		int r;

		if (!origin)
			continue;
		r = tm_parts_ours(op->core, &op->pool, TM_ROLE_VOLUME, origin, &info,
				  first ? NULL : err);
		if (r > 0 && info.suspended != suspend) {
			tm_dm_name(name, TM_ROLE_VOLUME, op->pool.name, origin->name);
			if (suspend)
				r = tm_dm_suspend(op->core->dm, name, 0, err);
			else
				r = tm_dm_resume(op->core->dm, name, 0, TM_DM_UDEV_FULL,
						 first ? NULL : err);
		}
		if (r < 0) {
			if (suspend)
				return r;
			if (!first)
				first = r; /* resume the others whatever happens */
		}
	}
	return first;
}

static int snapshot_suspend(struct tm_op *op, struct tm_error *err)
{
	return origins(op, true, err);
}

static int snapshot_resume(struct tm_op *op, struct tm_error *err)
{
	return origins(op, false, err);
}

static int snapshot_make(struct tm_op *op, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], message[96];

	tm_dm_name(name, TM_ROLE_POOL, op->pool.name, NULL);
	for (size_t i = 0; i < op->n_items; i++) {
		const struct tm_volume_record *origin = origin_of(op, i);
		struct tm_error local = { 0 };
		int r;

		(void)snprintf(message, sizeof(message), "create_snap %" PRIu32 " %" PRIu32,
			       op->items[i].dev_id, origin ? origin->dev_id : 0);
		r = tm_dm_message(op->core->dm, name, message, &local);
		if (r == -EEXIST) {
			for (size_t k = i; k < op->n_items; k++)
				op->items[k].dev_id = TM_DEV_ID_NONE;
			return tm_error_set(err, TM_ERR_WRONG_STATE, EEXIST,
					    "Pool %s has a device in its metadata that is not "
					    "recorded; it was changed by somebody else.",
					    op->pool.name);
		}
		if (r < 0) {
			if (err)
				*err = local;
			return r;
		}
	}
	return 0;
}

static int snapshot_make_undo(struct tm_op *op, struct tm_error *err)
{
	int first = 0;

	for (size_t i = 0; i < op->n_items; i++) {
		int r;

		if (op->items[i].dev_id > TM_DEV_ID_MAX || given_away(op, &op->items[i]))
			continue;
		r = tm_parts_delete_thin(op->core, &op->pool, op->items[i].dev_id,
					 first ? NULL : err);
		if (r < 0 && !first)
			first = r;
	}
	return first;
}

static int snapshot_activate(struct tm_op *op, struct tm_error *err)
{
	for (size_t i = 0; op->activate && i < op->n_items; i++) {
		int r = tm_parts_activate_volume(op->core, &op->pool, &op->items[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int snapshot_activate_undo(struct tm_op *op, struct tm_error *err)
{
	int first = 0;

	for (size_t i = 0; i < op->n_items; i++) {
		int r = tm_parts_deactivate_volume(op->core, &op->pool, &op->items[i],
						   first ? NULL : err);

		if (r < 0 && !first)
			first = r;
	}
	return first;
}

static int snapshot_record(struct tm_op *op, struct tm_error *err)
{
	int r = tm_store_put_pool(op->core->store, &op->pool, err);

	for (size_t i = 0; r >= 0 && i < op->n_items; i++)
		r = tm_store_put_volume(op->core->store, &op->pool.id, &op->items[i], err);
	return r;
}

static const struct tm_step snapshot_steps[] = {
	{ .name = "flush", .run = snapshot_flush },
	{ .name = "suspend-origins", .run = snapshot_suspend, .undo = snapshot_resume },
	{ .name = "create-snapshots", .run = snapshot_make, .undo = snapshot_make_undo },
	{ .name = "move-transaction",
	  .run = step_move_transaction,
	  .undo = step_move_transaction_undo },
	{ .name = "resume-origins", .run = snapshot_resume },
	{ .name = "activate", .run = snapshot_activate, .undo = snapshot_activate_undo },
	{ .name = "record", .run = snapshot_record, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_snapshot_create = {
	.kind = TM_CMD_SNAPSHOT_CREATE,
	.steps = snapshot_steps,
	.n_steps = TM_ARRAY_SIZE(snapshot_steps),
	.needs_pool_up = true,
};
