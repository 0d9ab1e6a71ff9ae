/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on a whole pool. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"
#include "core/op-types.h"
#include "logic/descriptor.h"

/* How long those are waited for that let go by themselves, and how often it is looked. */
#define PASSING_USEC (5 * TM_USEC_PER_SEC)
#define PASSING_NSEC 20000000

/* ---- steps that several operations share ---- */

int tm_step_check_metadata(struct tm_op *op, struct tm_error *err)
{
	int r;

	/* In use it changes while it is read, and the kernel has accepted it. */
	if (!op->activate || op->pool_was_active)
		return 0;
	r = tm_parts_check_metadata(op->core, &op->progress, &op->pool, err);
	if (r < 0)
		return r;
	return tm_parts_learn_sizes(&op->pool, err);
}

int tm_step_attach(struct tm_op *op, struct tm_error *err)
{
	int r;

	if (!op->activate)
		return 0;
	r = tm_parts_attach(op->core, &op->pool, &op->direct_io, err);
	return r < 0 || op->pool_was_active ? r : tm_parts_trim(op->core, &op->pool, err);
}

int tm_step_attach_undo(struct tm_op *op, struct tm_error *err)
{
	if (op->pool_was_active)
		return 0;
	return tm_parts_detach(op->core, &op->pool, err);
}

int tm_step_start_pool(struct tm_op *op, struct tm_error *err)
{
	struct tm_thin_pool_status status;
	int r;

	if (!op->activate)
		return 0;
	r = tm_parts_start_pool(op->core, &op->pool, err);
	if (r < 0)
		return r;
	r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
	if (r < 0)
		return r;
	if (status.transaction_id != op->pool.transaction_id) {
		r = tm_error_set(err, TM_ERR_WRONG_STATE, ESTALE,
				 "The metadata of pool %s is at transaction %" PRIu64
				 ", the record at %" PRIu64 ": they do not belong together.",
				 op->pool.name, status.transaction_id, op->pool.transaction_id);
		tm_error_hint(
			err,
			"Nothing was changed. Bring back the metadata or the record that fits.");
		return r;
	}
	return 0;
}

int tm_step_start_pool_undo(struct tm_op *op, struct tm_error *err)
{
	if (op->pool_was_active)
		return 0;
	return tm_parts_remove_pool(op->core, &op->pool, err);
}

int tm_step_activate_volumes(struct tm_op *op, struct tm_error *err)
{
	for (size_t i = 0; op->activate && i < op->n_volumes; i++) {
		int r;

		if (!op->volumes[i].active)
			continue;
		r = tm_parts_activate_volume(op->core, &op->pool, &op->volumes[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

int tm_step_activate_volumes_undo(struct tm_op *op, struct tm_error *err)
{
	int first = 0;

	if (op->pool_was_active)
		return 0;
	for (size_t i = 0; i < op->n_volumes; i++) {
		int r = tm_parts_deactivate_volume(op->core, &op->pool, &op->volumes[i],
						   first ? NULL : err);

		if (r < 0 && !first)
			first = r;
	}
	return first;
}

/* The first active volume that is open, or NULL. */
static const struct tm_volume_record *first_busy(struct tm_op *op)
{
	for (size_t i = 0; i < op->n_volumes; i++) {
		struct tm_dm_info info;

		if (tm_parts_unused(op->core, &op->pool, &op->volumes[i], &info, NULL) > 0 &&
		    info.open_count > 0)
			return &op->volumes[i];
	}
	return NULL;
}

/* Who has them open, in one sentence. */
static int refuse_busy(struct tm_op *op, const struct tm_volume_record *first,
		       const struct tm_holding *holding, struct tm_error *err)
{
	char text[512], path[TM_PATH_SIZE];

	if (holding)
		(void)tm_holding_text(holding, text, sizeof(text));
	else /* in use it is, whether or not it can be found out by whom */
		(void)snprintf(text, sizeof(text), "%s, by somebody", first->name);
	(void)tm_error_set(err, TM_ERR_BUSY, EBUSY, "Volumes of pool %s are in use: %s.",
			   op->pool.name, text);
	tm_device_path(path, op->pool.name, first->name);
	tm_error_hint(
		err,
		"Unmount them, or end what uses them, and try again; lsblk %s and fuser -vm %s "
		"show more.",
		path, path);
	return -EBUSY;
}

/*
 * Succeeds when no volume is in use. Who is on the way out, as udev when somebody has just closed
 * one, is waited for; anybody else is a refusal at once.
 */
static int wait_unused(struct tm_op *op, struct tm_error *err)
{
	const uint64_t end = tm_now_monotonic_usec() + PASSING_USEC;

	for (;;) {
		tm_cleanup(tm_holding_done) struct tm_holding holding = { 0 };
		const struct tm_volume_record *busy = first_busy(op);
		int r;

		if (!busy)
			return 0;
		r = tm_parts_holders(op->core, &op->pool, op->volumes, op->n_volumes, &holding,
				     NULL);
		if (r < 0 || holding.holders.n || tm_now_monotonic_usec() > end)
			return refuse_busy(op, busy, r < 0 || !holding.n_devices ? NULL : &holding,
					   err);
		(void)nanosleep(&(struct timespec){ .tv_nsec = PASSING_NSEC }, NULL);
	}
}

int tm_step_deactivate_volumes(struct tm_op *op, struct tm_error *err)
{
	/* All or none: who is busy is said before the first is touched. */
	int r = wait_unused(op, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < op->n_volumes; i++) {
		r = tm_parts_deactivate_volume(op->core, &op->pool, &op->volumes[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

int tm_step_deactivate_volumes_undo(struct tm_op *op, struct tm_error *err)
{
	struct tm_dm_info info;
	int r;

	/* After a restart there may be no pool to put them back on: activation at start does it. */
	r = tm_parts_ours(op->core, &op->pool, TM_ROLE_POOL, NULL, &info, err);
	if (r <= 0)
		return r;
	for (size_t i = 0; op->pool_was_active && i < op->n_volumes; i++) {
		if (!op->volumes[i].active)
			continue;
		r = tm_parts_activate_volume(op->core, &op->pool, &op->volumes[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

int tm_step_stop_pool(struct tm_op *op, struct tm_error *err)
{
	/* What its status says is lost with its device. */
	int r = tm_parts_suspect(op->core, &op->pool, NULL, &op->loss, err);

	return r < 0 ? r : tm_parts_remove_pool(op->core, &op->pool, err);
}

int tm_step_stop_pool_undo(struct tm_op *op, struct tm_error *err)
{
	int r;

	if (!op->pool_was_active)
		return 0;
	r = tm_parts_attach(op->core, &op->pool, NULL, err);
	if (r < 0)
		return r;
	return tm_parts_start_pool(op->core, &op->pool, err);
}

int tm_step_write_descriptor(struct tm_op *op, struct tm_error *err)
{
	return tm_parts_write_descriptor(op->core, &op->pool.id, err);
}

static void sizes_of(const struct tm_pool_record *pool, struct tm_pool_sizes *ret)
{
	*ret = (struct tm_pool_sizes){
		.data_bytes = pool->data_bytes,
		.data_reserve_bytes = pool->data_reserve_bytes,
		.metadata_bytes = pool->metadata_bytes,
		.metadata_reserve_bytes = pool->metadata_reserve_bytes,
		.low_water_bytes = pool->low_water_bytes,
	};
}

int tm_step_record_pool(struct tm_op *op, struct tm_error *err)
{
	struct tm_pool_sizes sizes;
	int r;

	r = tm_store_put_pool(op->core->store, &op->pool, err);
	if (r < 0)
		return r;
	sizes_of(&op->pool, &sizes);
	return tm_store_set_sizes(op->core->store, &op->pool.id, &sizes, err);
}

/* ---- create ---- */

/* What the claim says where the directory was not there before. */
#define DIRECTORY_MADE "made\n"

static int create_claim(struct tm_op *op, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 64];
	bool made;
	int r;

	r = tm_backing_probe(&op->pool, err);
	if (r < 0)
		return r;
	r = tm_backing_create_dir(&op->pool, err);
	if (r < 0)
		return r;
	tm_parts_claim_path(path, &op->pool);
	made = r > 0;
	r = tm_write_file_atomic(path, DIRECTORY_MADE, made ? strlen(DIRECTORY_MADE) : 0, 0600);
	if (r < 0) {
		(void)tm_error_set(err, TM_ERR_IO, -r, "Cannot write in %s: %s.",
				   op->pool.directory, strerror(-r));
		if (made)
			(void)rmdir(op->pool.directory);
	}
	return r;
}

static int create_claim_undo(struct tm_op *op, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 64];
	tm_auto_free char *claim = NULL;
	size_t len;
	int r;

	tm_parts_claim_path(path, &op->pool);
	r = tm_read_file(path, sizeof(DIRECTORY_MADE), &claim, &len);
	if (r == -ENOENT)
		return 0; /* nothing is ours; at most an empty directory was made */
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "Cannot read %s: %s.", path, strerror(-r));
	r = tm_backing_destroy(&op->pool, err);
	if (r >= 0)
		r = tm_parts_drop_claim(&op->pool, err);
	if (r >= 0 && len)
		(void)rmdir(op->pool.directory); /* only works when it is empty */
	return r;
}

static int create_data(struct tm_op *op, struct tm_error *err)
{
	return tm_backing_create_part(&op->pool, TM_PART_DATA,
				      op->pool.data_bytes + op->pool.data_reserve_bytes, err);
}

static int create_metadata(struct tm_op *op, struct tm_error *err)
{
	return tm_backing_create_part(&op->pool, TM_PART_METADATA, op->pool.metadata_bytes, err);
}

static int create_record(struct tm_op *op, struct tm_error *err)
{
	op->pool.active = op->activate;
	return tm_step_record_pool(op, err);
}

static int create_finish(struct tm_op *op, struct tm_error *err)
{
	int r = tm_parts_write_descriptor(op->core, &op->pool.id, err);

	return r < 0 ? r : tm_parts_drop_claim(&op->pool, err);
}

static const struct tm_step create_steps[] = {
	{ .name = "claim-directory", .run = create_claim, .undo = create_claim_undo },
	{ .name = "make-data", .run = create_data },
	{ .name = "make-metadata", .run = create_metadata },
	{ .name = "attach", .run = tm_step_attach, .undo = tm_step_attach_undo },
	{ .name = "start-pool", .run = tm_step_start_pool, .undo = tm_step_start_pool_undo },
	{ .name = "record", .run = create_record, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = create_finish, .can_wait = true },
};

const struct tm_op_type tm_op_pool_create = {
	.kind = TM_CMD_POOL_CREATE,
	.steps = create_steps,
	.n_steps = TM_ARRAY_SIZE(create_steps),
	.stops_extension = true,
};

/* ---- import ---- */

static int mend_after_import(const struct tm_op *op, struct tm_error *err, int r)
{
	err->hint[0] = '\0'; /* which is for a pool that is known */
	tm_error_hint(err,
		      "Nothing was changed. Import it with --no-activate, and then have it "
		      "repaired: thinmgr pool repair %s",
		      op->pool.name);
	return r;
}

static int import_read(struct tm_op *op, struct tm_error *err)
{
	tm_auto_view struct tm_view *view = NULL;
	tm_cleanup(tm_descriptor_done) struct tm_descriptor d = { 0 };
	struct tm_pool_record known;
	struct tm_dm_info info;
	struct tm_error bad = { 0 };
	char path[TM_PATH_SIZE + 16];
	tm_auto_free char *text = NULL;
	uint64_t bytes;
	size_t len;
	int r;

	tm_backing_descriptor_path(op->pool.directory, path);
	r = tm_read_file_itself(path, TM_DESCRIPTOR_LIMIT, &text, &len);
	if (r < 0) {
		(void)tm_error_set(err, r == -ENOENT ? TM_ERR_NOT_FOUND : TM_ERR_IO, -r,
				   "Cannot read the descriptor %s: %s.", path,
				   r == -ELOOP ? "it is a symbolic link" : strerror(-r));
		tm_error_hint(
			err,
			"Name the directory that holds the pool's data, metadata and pool.json.");
		return r;
	}
	r = tm_descriptor_parse(text, len, &d, err);
	if (r < 0)
		return r;
	(void)snprintf(d.pool.directory, sizeof(d.pool.directory), "%s", op->pool.directory);
	if (tm_store_load_pool(op->core->store, &d.pool.id, &known, NULL) == 0)
		return tm_error_set(err, TM_ERR_EXISTS, EEXIST,
				    "The pool in %s is known already, as %s.", op->pool.directory,
				    known.name);
	view = tm_core_view(op->core);
	if (tm_view_pool(view, d.pool.name)) {
		(void)tm_error_set(
			err, TM_ERR_EXISTS, EEXIST,
			"The pool in %s is named %s, and so is another that is known here.",
			op->pool.directory, d.pool.name);
		tm_error_hint(err,
			      "Delete the other one first, or import this one on another machine.");
		return -EEXIST;
	}
	op->pool = d.pool;
	/* The database may have been lost with the pool up: then it stays up whatever happens. */
	r = tm_parts_ours(op->core, &op->pool, TM_ROLE_POOL, NULL, &info, err);
	if (r < 0)
		return r;
	op->pool_was_active = r > 0 && info.live_table;
	op->pool.data_reserve_bytes = 0;
	op->pool.metadata_reserve_bytes = 0;
	free(op->volumes);
	op->n_volumes = d.n_volumes;
	op->volumes = TM_TAKE(d.volumes);
	r = tm_parts_learn_sizes(&op->pool, &bad);
	if (r < 0 && (bad.code != TM_ERR_DAMAGED || op->pool_was_active || op->activate)) {
		*err = bad;
		return bad.code == TM_ERR_DAMAGED ? mend_after_import(op, err, r) : r;
	}
	r = tm_backing_part_size(&op->pool, TM_PART_DATA, &bytes, err);
	if (r < 0)
		return r;
	if (bytes < op->pool.data_bytes)
		return tm_error_set(err, TM_ERR_BACKING_GONE, EIO,
				    "The data file of pool %s has %" PRIu64
				    " bytes, but the pool uses %" PRIu64 ".",
				    op->pool.name, bytes, op->pool.data_bytes);
	op->pool.data_reserve_bytes = tm_round_down(bytes - op->pool.data_bytes,
						    op->pool.block_bytes);
	return tm_backing_part_size(&op->pool, TM_PART_METADATA, &bytes, err);
}

static int import_check(struct tm_op *op, struct tm_error *err)
{
	int r;

	/* One that stays down is taken as it is: it can be repaired once it is known here. */
	if (op->pool_was_active || !op->activate)
		return 0;
	r = tm_parts_check_metadata(op->core, &op->progress, &op->pool, err);
	return r < 0 && err->code == TM_ERR_DAMAGED ? mend_after_import(op, err, r) : r;
}

static int import_record(struct tm_op *op, struct tm_error *err)
{
	int r;

	op->pool.active = op->activate;
	r = tm_step_record_pool(op, err);
	for (size_t i = 0; r >= 0 && i < op->n_volumes; i++)
		r = tm_store_put_volume(op->core->store, &op->pool.id, &op->volumes[i], err);
	return r;
}

static const struct tm_step import_steps[] = {
	{ .name = "read-descriptor", .run = import_read },
	{ .name = "check-metadata", .run = import_check },
	{ .name = "attach", .run = tm_step_attach, .undo = tm_step_attach_undo },
	{ .name = "start-pool", .run = tm_step_start_pool, .undo = tm_step_start_pool_undo },
	{ .name = "activate-volumes",
	  .run = tm_step_activate_volumes,
	  .undo = tm_step_activate_volumes_undo },
	{ .name = "record", .run = import_record, .commit = true, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_pool_import = {
	.kind = TM_CMD_POOL_IMPORT,
	.steps = import_steps,
	.n_steps = TM_ARRAY_SIZE(import_steps),
	.stops_extension = true,
};

/* ---- activate, deactivate ---- */

static int activate_record(struct tm_op *op, struct tm_error *err)
{
	op->pool.active = true;
	return tm_step_record_pool(op, err);
}

static const struct tm_step activate_steps[] = {
	{ .name = "check-metadata", .run = tm_step_check_metadata },
	{ .name = "attach", .run = tm_step_attach, .undo = tm_step_attach_undo },
	{ .name = "start-pool", .run = tm_step_start_pool, .undo = tm_step_start_pool_undo },
	{ .name = "activate-volumes",
	  .run = tm_step_activate_volumes,
	  .undo = tm_step_activate_volumes_undo },
	{ .name = "record", .run = activate_record, .commit = true, .record = true },
};

const struct tm_op_type tm_op_pool_activate = {
	.kind = TM_CMD_POOL_ACTIVATE,
	.steps = activate_steps,
	.n_steps = TM_ARRAY_SIZE(activate_steps),
	.stops_extension = true,
};

static int deactivate_record(struct tm_op *op, struct tm_error *err)
{
	op->pool.active = false;
	return tm_step_record_pool(op, err);
}

static const struct tm_step deactivate_steps[] = {
	{ .name = "deactivate-volumes",
	  .run = tm_step_deactivate_volumes,
	  .undo = tm_step_deactivate_volumes_undo },
	{ .name = "stop-pool", .run = tm_step_stop_pool, .undo = tm_step_stop_pool_undo },
	{ .name = "record", .run = deactivate_record, .commit = true, .record = true },
};

const struct tm_op_type tm_op_pool_deactivate = {
	.kind = TM_CMD_POOL_DEACTIVATE,
	.steps = deactivate_steps,
	.n_steps = TM_ARRAY_SIZE(deactivate_steps),
	.stops_extension = true,
};

/* ---- delete ---- */

/* Files that are not there may only be out of reach, their file system not mounted: forgetting the
 * pool would leave them behind. */
static int delete_find(struct tm_op *op, struct tm_error *err)
{
	int r;

	if (op->pool_was_active || !op->cmd || op->cmd->pool_delete.forget ||
	    tm_backing_anything_left(&op->pool))
		return 0;
	r = tm_error_set(err, TM_ERR_BACKING_GONE, ENOENT, "None of the files of pool %s is in %s.",
			 op->pool.name, op->pool.directory);
	tm_error_hint(err,
		      "Mount the file system they are in. If they are lost, drop the record alone: "
		      "thinmgr pool delete %s --forget",
		      op->pool.name);
	return r;
}

static int delete_record(struct tm_op *op, struct tm_error *err)
{
	return tm_store_delete_pool(op->core->store, &op->pool.id, err);
}

static int delete_files(struct tm_op *op, struct tm_error *err)
{
	/* There only when the last step of creating it had failed. */
	(void)tm_parts_drop_claim(&op->pool, NULL);
	return tm_backing_destroy(&op->pool, err);
}

static const struct tm_step delete_steps[] = {
	{ .name = "find-files", .run = delete_find },
	{ .name = "deactivate-volumes",
	  .run = tm_step_deactivate_volumes,
	  .undo = tm_step_deactivate_volumes_undo },
	{ .name = "stop-pool", .run = tm_step_stop_pool, .undo = tm_step_stop_pool_undo },
	{ .name = "record", .run = delete_record, .commit = true, .record = true },
	{ .name = "delete-files", .run = delete_files },
};

const struct tm_op_type tm_op_pool_delete = {
	.kind = TM_CMD_POOL_DELETE,
	.steps = delete_steps,
	.n_steps = TM_ARRAY_SIZE(delete_steps),
	.stops_extension = true,
};

/* ---- extend ---- */

static int extend_files(struct tm_op *op, struct tm_error *err)
{
	int r = 0;

	if (op->data_bytes)
		r = tm_backing_grow_part(&op->pool, TM_PART_DATA, op->data_bytes, err);
	if (r >= 0 && op->metadata_bytes)
		r = tm_backing_grow_part(&op->pool, TM_PART_METADATA, op->metadata_bytes, err);
	return r;
}

static int extend_devices(struct tm_op *op, struct tm_error *err)
{
	struct tm_pool_record *p = &op->pool;
	int r = 0;

	if (!op->pool_was_active)
		return 0;
	if (op->data_bytes > p->data_bytes + p->data_reserve_bytes)
		r = tm_parts_load_linear(op->core, p, TM_PART_DATA, op->data_bytes, err);
	if (r >= 0 && op->metadata_bytes > p->metadata_bytes + p->metadata_reserve_bytes)
		r = tm_parts_load_linear(op->core, p, TM_PART_METADATA, op->metadata_bytes, err);
	return r;
}

/*
 * Give back what was put below the pool, but nothing that the kernel has taken into use: a failed
 * load or resume may have got as far as that.
 */
static int extend_undo(struct tm_op *op, struct tm_error *err)
{
	struct tm_pool_record *p = &op->pool;
	struct tm_thin_pool_status status;
	char name[TM_DM_NAME_SIZE];
	uint64_t data, metadata, table;
	struct tm_dm_info info;
	int r;

	r = tm_parts_ours(op->core, p, TM_ROLE_POOL, NULL, &info, err);
	/* The record of a pool that is down may lag behind its metadata: what that uses stays. */
	if (r == 0 || (r > 0 && !info.live_table))
		r = tm_parts_learn_sizes(p, err) < 0 ? -EIO : 0;
	if (r < 0)
		return r;
	data = p->data_bytes + p->data_reserve_bytes;
	metadata = p->metadata_bytes + p->metadata_reserve_bytes;
	if (r > 0) {
		uint64_t used;

		tm_dm_name(name, TM_ROLE_POOL, p->name, NULL);
		if (info.inactive_table)
			r = tm_dm_clear(op->core->dm, name, err);
		if (r >= 0)
			r = tm_parts_status(op->core, p->name, &status, &table, err);
		if (r < 0)
			return r;
		if (status.failed)
			return 0;                   /* nothing is known: leave all of it */
		data = table > data ? table : data; /* the kernel may yet grow to its table */
		used = tm_sat_mul(status.data_total, p->block_bytes);
		data = used > data ? used : data;
		p->data_bytes = used > p->data_bytes ? used : p->data_bytes;
		p->data_reserve_bytes = data - p->data_bytes;
		used = tm_sat_mul(status.metadata_total, TM_METADATA_BLOCK);
		metadata = used > metadata ? used : metadata;
		p->metadata_bytes = used > p->metadata_bytes ? used : p->metadata_bytes;
		p->metadata_reserve_bytes = metadata - p->metadata_bytes;
		if (op->data_bytes > data)
			r = tm_parts_load_linear(op->core, p, TM_PART_DATA, data, err);
		if (r >= 0 && op->metadata_bytes > metadata)
			r = tm_parts_load_linear(op->core, p, TM_PART_METADATA, metadata, err);
		if (r < 0)
			return r;
	}
	if (op->data_bytes > data)
		r = tm_backing_shrink_part(p, TM_PART_DATA, data, err);
	if (r >= 0 && op->metadata_bytes > metadata)
		r = tm_backing_shrink_part(p, TM_PART_METADATA, metadata, err);
	return r < 0 ? r : 0;
}

static int extend_pool(struct tm_op *op, struct tm_error *err)
{
	struct tm_pool_record next = op->pool, *p = &next;
	struct tm_thin_pool_status status;
	uint64_t under, mark;
	int r;

	under = p->data_bytes + p->data_reserve_bytes;
	if (op->data_bytes > p->data_bytes) {
		p->data_bytes = op->data_bytes;
		p->data_reserve_bytes = under > op->data_bytes ? under - op->data_bytes : 0;
	}
	under = p->metadata_bytes + p->metadata_reserve_bytes;
	if (op->metadata_bytes > p->metadata_bytes) {
		p->metadata_bytes = op->metadata_bytes;
		p->metadata_reserve_bytes = under > op->metadata_bytes ? under - op->metadata_bytes
								       : 0;
	}
	mark = tm_mul_div(p->data_bytes, p->policy.data.low_water_percent, 100);
	if (mark > p->low_water_bytes)
		p->low_water_bytes = tm_round_up(mark, p->block_bytes);
	if (!op->pool_was_active) {
		op->pool = next;
		return 0;
	}
	/* The machine may have been reset since what lies below grew; the files kept their size. */
	if (op->recovering) {
		r = extend_devices(op, err);
		if (r < 0)
			return r;
	}
	r = tm_parts_suspect(op->core, &op->pool, NULL, &op->loss, err);
	if (r >= 0)
		r = tm_parts_load_pool(op->core, p, p->data_bytes, p->low_water_bytes, err);
	if (r < 0)
		return r;
	r = tm_parts_switch_pool(op->core, &op->pool, &op->left_suspended, err);
	if (r < 0)
		return r;
	/* A resume succeeds even where the kernel refused to grow: look. */
	r = tm_parts_status(op->core, p->name, &status, NULL, err);
	if (r < 0)
		return r;
	if (status.failed || tm_sat_mul(status.data_total, p->block_bytes) < p->data_bytes ||
	    tm_sat_mul(status.metadata_total, TM_METADATA_BLOCK) <
		    (op->metadata_bytes ? op->metadata_bytes : 0)) {
		(void)tm_error_set(err, TM_ERR_NEEDS_CHECK, EROFS,
				   "The kernel did not take the new space of pool %s into use.",
				   p->name);
		tm_error_hint(err, "See the pool's mode and needs_check, and the kernel log.");
		return -EROFS;
	}
	p->metadata_bytes = status.metadata_total * TM_METADATA_BLOCK;
	p->metadata_reserve_bytes = 0;
	op->pool = next;
	return 0;
}

static int extend_record(struct tm_op *op, struct tm_error *err)
{
	return tm_step_record_pool(op, err);
}

static const struct tm_step extend_steps[] = {
	{ .name = "grow-files", .run = extend_files, .undo = extend_undo },
	{ .name = "grow-devices", .run = extend_devices },
	{ .name = "grow-pool", .run = extend_pool, .commit = true },
	{ .name = "record", .run = extend_record, .record = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_pool_extend = {
	.kind = TM_CMD_POOL_EXTEND,
	.steps = extend_steps,
	.n_steps = TM_ARRAY_SIZE(extend_steps),
	.stops_extension = true,
	.needs_pool_up = true,
};

/* ---- policy ---- */

static int policy_record(struct tm_op *op, struct tm_error *err)
{
	const bool remark = op->pool.policy.data.low_water_percent !=
			    op->policy.data.low_water_percent;

	op->pool.policy = op->policy;
	op->pool.when_full = op->when_full;
	/* Where it is written fast, the next look raises the mark again. */
	if (remark)
		op->pool.low_water_bytes = tm_pool_mark(&op->pool);
	return tm_step_record_pool(op, err);
}

static int policy_reload(struct tm_op *op, struct tm_error *err)
{
	struct tm_thin_pool_status status;
	struct tm_dm_info info;
	uint64_t bytes;
	int r;

	r = tm_parts_ours(op->core, &op->pool, TM_ROLE_POOL, NULL, &info, err);
	if (r <= 0)
		return r;
	r = tm_parts_status(op->core, op->pool.name, &status, &bytes, err);
	if (r < 0)
		return r;
	/* A broken pool may refuse any table; what mends it loads one of the new policy. */
	if (status.failed || status.needs_check || status.mode >= TM_MODE_READ_ONLY)
		return 0;
	r = tm_parts_load_pool(op->core, &op->pool, op->pool.data_bytes, op->pool.low_water_bytes,
			       err);
	return r < 0 ? r : tm_parts_switch_pool(op->core, &op->pool, &op->left_suspended, err);
}

static const struct tm_step policy_steps[] = {
	{ .name = "record", .run = policy_record, .commit = true, .record = true },
	{ .name = "reload-table", .run = policy_reload },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
};

const struct tm_op_type tm_op_pool_policy = {
	.kind = TM_CMD_POOL_POLICY,
	.steps = policy_steps,
	.n_steps = TM_ARRAY_SIZE(policy_steps),
	.stops_extension = true,
};
