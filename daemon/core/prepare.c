/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a command to an operation: checks against the state, and what the steps work on. */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"
#include "logic/json.h"
#include "logic/meta-size.h"
#include "logic/policy.h"
#include "logic/suspect.h"

#define VOLUME_UNIT ((uint64_t)4096)

uint64_t tm_pool_mark(const struct tm_pool_record *p)
{
	struct tm_extend_input in = { .policy = &p->policy.data,
				      .unit_bytes = p->block_bytes,
				      .total_blocks = p->data_bytes / p->block_bytes,
				      .backing_free_bytes = UINT64_MAX / 4,
				      .rate_bytes_per_sec = tm_rate_assume(0) };
	struct tm_extend_plan plan;

	tm_extend_decide(&in, &plan);
	return plan.mark_blocks * p->block_bytes;
}

int tm_pool_fill_defaults(struct tm_pool_record *p, struct tm_error *err)
{
	uint64_t most;
	int r;

	most = p->policy.data.maximum_bytes > p->data_bytes ? p->policy.data.maximum_bytes
							    : p->data_bytes;
	if (!p->block_bytes)
		p->block_bytes = tm_block_size_default(most);
	if (p->data_bytes < TM_DATA_MIN_BYTES)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/data_size",
				      "A pool needs at least %" PRIu64 " bytes of data space.",
				      TM_DATA_MIN_BYTES);
	p->data_bytes = tm_round_up(p->data_bytes, p->block_bytes);
	if (p->policy.data.maximum_bytes && p->policy.data.maximum_bytes < p->data_bytes)
		return tm_error_field(
			err, TM_ERR_OUT_OF_RANGE, "/policy/data/maximum",
			"The maximum of data space is below the size the pool starts with.");
	if (tm_metadata_size_rule(p->data_bytes, p->block_bytes, 1) > TM_METADATA_MAX_BYTES) {
		r = tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/data_size",
				   "No metadata can hold a pool of %" PRIu64
				   " bytes in blocks of %" PRIu32 ".",
				   p->data_bytes, p->block_bytes);
		tm_error_hint(err, "Ask for less, or for larger blocks.");
		return r;
	}
	if (!p->metadata_bytes)
		p->metadata_bytes = tm_metadata_size_initial(p->data_bytes, p->block_bytes);
	p->metadata_bytes = tm_round_up(p->metadata_bytes, TM_METADATA_BLOCK);
	if (p->metadata_bytes > TM_METADATA_MAX_BYTES)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/metadata_size",
				      "Metadata can have at most %" PRIu64 " bytes.",
				      TM_METADATA_MAX_BYTES);
	if (p->metadata_bytes < tm_metadata_size_rule(p->data_bytes, p->block_bytes, 1)) {
		r = tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/metadata_size",
				   "Metadata for this pool needs at least %" PRIu64 " bytes.",
				   tm_metadata_size_rule(p->data_bytes, p->block_bytes, 1));
		tm_error_hint(err, "Leave metadata_size out to have it computed.");
		return r;
	}
	/* Preallocated files must keep their space: punching holes would give it away again. */
	if (!p->sparse)
		p->discard_passdown = false;
	p->low_water_bytes = tm_pool_mark(p);
	return 0;
}

static int no_volume(const struct tm_pool *pool, const char *ref, struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "Pool %s has no volume %s.",
			    pool->record.name, ref);
}

static int name_free(struct tm_pool *pool, const char *name, const char *field,
		     struct tm_error *err)
{
	int r = tm_name_check(name, "volume", field, err);

	if (r < 0)
		return r;
	if (tm_pool_find_volume(pool, name)) {
		(void)tm_error_field(err, TM_ERR_EXISTS, field,
				     "Pool %s has a volume named %s already.", pool->record.name,
				     name);
		return -EEXIST;
	}
	return 0;
}

static int round_volume_size(uint64_t *bytes, struct tm_error *err)
{
	if (*bytes < TM_VOLUME_MIN_BYTES || *bytes > TM_VOLUME_MAX_BYTES)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/size",
				      "A volume has from %" PRIu64 " to %" PRIu64 " bytes.",
				      TM_VOLUME_MIN_BYTES, TM_VOLUME_MAX_BYTES);
	*bytes = tm_round_up(*bytes, VOLUME_UNIT);
	return 0;
}

/* A device id that no volume has. The next id only grows: none is used again soon. */
static int take_dev_id(struct tm_op *op, uint32_t *ret, struct tm_error *err)
{
	for (uint32_t tries = 0; tries <= op->n_volumes + op->n_items + 1; tries++) {
		uint32_t id = op->pool.next_dev_id;
		bool taken = false;

		op->pool.next_dev_id = id >= TM_DEV_ID_MAX ? 1 : id + 1;
		for (size_t i = 0; i < op->n_volumes; i++)
			taken = taken || op->volumes[i].dev_id == id;
		for (size_t i = 0; i < op->n_items; i++)
			taken = taken || op->items[i].dev_id == id;
		if (!taken && id) {
			*ret = id;
			return 0;
		}
	}
	return tm_error_set(err, TM_ERR_NO_SPACE, ENOSPC, "Pool %s has no device id left.",
			    op->pool.name);
}

static int need_active(const struct tm_pool *pool, struct tm_error *err)
{
	if (pool->state == TM_POOL_ACTIVE)
		return 0;
	(void)tm_error_set(err, TM_ERR_WRONG_STATE, EBUSY, "Pool %s is %s.", pool->record.name,
			   tm_pool_state_name(pool->state));
	if (pool->raising)
		tm_error_hint(err, "It is being brought up; try again when it is active.");
	else if (pool->state == TM_POOL_INACTIVE)
		tm_error_hint(err, "Activate it first: thinmgr pool activate %s",
			      pool->record.name);
	return -EBUSY;
}

static bool mends(const struct tm_op *op)
{
	return op->type->kind == TM_CMD_POOL_REPAIR || op->type->kind == TM_CMD_POOL_RESTORE;
}

/* Is it asked for while a repair is under way, or has its turn before? Then it is seen afterwards.
 */
static bool mended_first(const struct tm_op *op, const struct tm_pool *pool)
{
	if (op->record.id.text[0]) /* its turn has come */
		return false;
	if (pool->running && mends(pool->running))
		return true;
	for (const struct tm_queued_op *q = pool->queue; q; q = q->next)
		if (mends(q->op))
			return true;
	return false;
}

/* In the read-only modes the kernel refuses every message: say so before anything is tried. */
static int need_writable(const struct tm_op *op, const struct tm_pool *pool, struct tm_error *err)
{
	int r;

	if (mended_first(op, pool))
		return 0;
	r = need_active(pool, err);
	if (r < 0 || !pool->status_valid)
		return r;
	if (pool->status.needs_check || pool->status.failed ||
	    pool->status.mode >= TM_MODE_READ_ONLY) {
		(void)tm_error_set(err, TM_ERR_NEEDS_CHECK, EROFS,
				   "Pool %s is in mode %s%s: its metadata cannot be changed.",
				   pool->record.name,
				   pool->status.failed ? "fail" : tm_mode_name(pool->status.mode),
				   pool->status.needs_check ? " with needs_check set" : "");
		if (pool->record.policy.repair == TM_REPAIR_MANUAL || pool->mend.tried)
			tm_error_hint(err, "Have it repaired: thinmgr pool repair %s",
				      pool->record.name);
		else if (pool->record.policy.repair == TM_REPAIR_FORCE)
			tm_error_hint(err,
				      "It is being repaired by force; what is in the way is told "
				      "by: thinmgr event list --pool %s",
				      pool->record.name);
		else
			tm_error_hint(err,
				      "It is repaired by itself once nobody uses its volumes; who "
				      "does: thinmgr pool show %s",
				      pool->record.name);
		return -EROFS;
	}
	if (pool->status.transaction_id != pool->record.transaction_id) {
		(void)tm_error_set(err, TM_ERR_WRONG_STATE, ESTALE,
				   "Pool %s is at transaction %" PRIu64
				   " in the kernel and %" PRIu64
				   " in the record: somebody else changed it.",
				   pool->record.name, pool->status.transaction_id,
				   pool->record.transaction_id);
		return -ESTALE;
	}
	return 0;
}

static int one_item(struct tm_op *op, const struct tm_volume_record *before)
{
	op->items = calloc(1, sizeof(*op->items));
	if (before)
		op->before = calloc(1, sizeof(*op->before));
	if (!op->items || (before && !op->before))
		return -ENOMEM;
	op->n_items = 1;
	if (before) {
		op->before[0] = *before;
		op->items[0] = *before;
	}
	return 0;
}

static int prepare_volume_create(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;
	uint64_t size = cmd->volume_create.size_bytes;
	uint32_t dev_id;
	int r;

	r = need_writable(op, pool, err);
	if (r >= 0)
		r = name_free(pool, cmd->volume_create.name, "/name", err);
	if (r >= 0)
		r = round_volume_size(&size, err);
	if (r >= 0)
		r = take_dev_id(op, &dev_id, err);
	if (r < 0)
		return r;
	r = one_item(op, NULL);
	if (r < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	tm_uuid_generate(&op->items[0].id);
	(void)snprintf(op->items[0].name, sizeof(op->items[0].name), "%s", cmd->volume_create.name);
	op->items[0].dev_id = dev_id;
	op->items[0].size_bytes = size;
	op->items[0].active = op->activate = cmd->volume_create.activate;
	op->items[0].created_usec = tm_now_realtime_usec();
	return 0;
}

static int prepare_snapshot(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;
	int r;

	r = need_writable(op, pool, err);
	if (r < 0)
		return r;
	op->items = calloc(cmd->snapshot.n_items ? cmd->snapshot.n_items : 1, sizeof(*op->items));
	if (!op->items)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	op->activate = cmd->snapshot.activate;
	for (size_t i = 0; i < cmd->snapshot.n_items; i++) {
		const struct tm_snapshot_item *want = &cmd->snapshot.items[i];
		struct tm_volume *origin = tm_pool_find_volume(pool, want->volume);
		struct tm_volume_record *v = &op->items[i];
		char field[64];

		if (!origin)
			return no_volume(pool, want->volume, err);
		(void)snprintf(field, sizeof(field), "/snapshots/%zu/name", i);
		r = name_free(pool, want->name, field, err);
		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++) {
			if (strcmp(op->items[k].name, want->name) != 0)
				continue;
			(void)tm_error_field(err, TM_ERR_EXISTS, field,
					     "The name %s is used twice in this request.",
					     want->name);
			return -EEXIST;
		}
		r = take_dev_id(op, &v->dev_id, err);
		if (r < 0)
			return r;
		tm_uuid_generate(&v->id);
		(void)snprintf(v->name, sizeof(v->name), "%s", want->name);
		v->size_bytes = origin->record.size_bytes;
		v->origin = origin->record.id;
		v->active = cmd->snapshot.activate;
		v->read_only = cmd->snapshot.read_only;
		/* It has what its origin has, and lacks what that lacks. */
		v->suspect = origin->record.suspect;
		v->suspect_usec = origin->record.suspect_usec;
		v->created_usec = tm_now_realtime_usec();
		op->n_items = i + 1;
	}
	return 0;
}

/* What is cleared while it goes on would be marked again at once. */
static int still_losing(const struct tm_pool *pool, const struct tm_volume *v, struct tm_error *err)
{
	int r;

	if (!pool->status_valid || !v->record.active || v->record.read_only ||
	    tm_suspect_by_status(&pool->status) == TM_SUSPECT_NOT)
		return 0;
	r = tm_error_set(err, TM_ERR_WRONG_STATE, EROFS,
			 "Pool %s is in mode %s: writes to volume %s are still being lost.",
			 pool->record.name,
			 pool->status.failed ? "fail" : tm_mode_name(pool->status.mode),
			 v->record.name);
	tm_error_hint(err, "Extend or repair the pool first.");
	return r;
}

static int prepare_volume_check(const struct tm_pool *pool, const struct tm_volume *v,
				struct tm_error *err)
{
	int r;

	if (v->active)
		return still_losing(pool, v, err);
	r = tm_error_set(err, TM_ERR_WRONG_STATE, ENODEV, "Volume %s/%s is not active.",
			 pool->record.name, v->record.name);
	tm_error_hint(err, "Activate it first: thinmgr volume activate %s/%s", pool->record.name,
		      v->record.name);
	return r;
}

static int prepare_volume(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;
	struct tm_volume *volume = tm_pool_find_volume(pool, cmd->volume);
	struct tm_volume_record *item;
	uint64_t size;
	int r = 0;

	if (!volume)
		return no_volume(pool, cmd->volume, err);
	if (one_item(op, &volume->record) < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	item = &op->items[0];
	op->before[0].active = volume->active;
	switch (cmd->kind) {
	case TM_CMD_VOLUME_DELETE:
		return need_writable(op, pool, err);
	case TM_CMD_VOLUME_RESIZE:
		size = cmd->volume_resize.size_bytes;
		r = round_volume_size(&size, err);
		if (r < 0)
			return r;
		if (size < item->size_bytes && !cmd->volume_resize.shrink) {
			r = tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/size",
					   "Volume %s/%s has %" PRIu64
					   " bytes; making it smaller cuts off its end.",
					   pool->record.name, item->name, item->size_bytes);
			tm_error_hint(err, "Shrink the file system first, then say that a smaller "
					   "size is meant: \"shrink\": true, or --shrink.");
			return r;
		}
		item->size_bytes = size;
		return 0;
	case TM_CMD_VOLUME_RENAME:
		if (strcmp(item->name, cmd->volume_rename.name) != 0)
			r = name_free(pool, cmd->volume_rename.name, "/name", err);
		(void)snprintf(item->name, sizeof(item->name), "%s", cmd->volume_rename.name);
		return r;
	case TM_CMD_VOLUME_ACTIVATE:
		op->activate = true;
		item->active = true;
		return need_active(pool, err);
	case TM_CMD_VOLUME_DEACTIVATE:
		item->active = false;
		return 0;
	case TM_CMD_VOLUME_CHECK:
		r = need_active(pool, err);
		return r < 0 ? r : prepare_volume_check(pool, volume, err);
	case TM_CMD_VOLUME_CLEAR:
		return still_losing(pool, volume, err);
	default:
		return tm_error_set(err, TM_ERR_INTERNAL, EINVAL, "Unknown command.");
	}
}

static int prepare_extend(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;
	const struct tm_pool_record *p = &pool->record;
	uint64_t room, need = 0;
	int r;

	if (pool->state == TM_POOL_ACTIVE) {
		r = need_writable(op, pool, err);
		/* Out of metadata is read-only, yet just what more metadata would mend. */
		if (r == -EROFS && cmd->pool_extend.metadata_bytes && !pool->status.needs_check &&
		    !pool->status.failed) {
			*err = (struct tm_error){ 0 };
			r = 0;
		}
		if (r < 0)
			return r;
	}
	op->data_bytes = tm_round_up(cmd->pool_extend.data_bytes, p->block_bytes);
	op->metadata_bytes = tm_round_up(cmd->pool_extend.metadata_bytes, TM_METADATA_BLOCK);
	if (op->data_bytes && op->data_bytes < p->data_bytes)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/data_size",
				      "Pool %s has %" PRIu64
				      " bytes of data space; a pool cannot shrink.",
				      p->name, p->data_bytes);
	if (op->metadata_bytes && op->metadata_bytes < p->metadata_bytes)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/metadata_size",
				      "Pool %s has %" PRIu64
				      " bytes of metadata space; a pool cannot shrink.",
				      p->name, p->metadata_bytes);
	if (op->metadata_bytes > TM_METADATA_MAX_BYTES)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/metadata_size",
				      "Metadata can have at most %" PRIu64 " bytes.",
				      TM_METADATA_MAX_BYTES);
	if (!p->sparse) {
		if (op->data_bytes > p->data_bytes + p->data_reserve_bytes)
			need += op->data_bytes - p->data_bytes - p->data_reserve_bytes;
		if (op->metadata_bytes > p->metadata_bytes + p->metadata_reserve_bytes)
			need += op->metadata_bytes - p->metadata_bytes - p->metadata_reserve_bytes;
		r = tm_backing_free_bytes(p, &room, err);
		if (r < 0)
			return r;
		if (need > room) {
			r = tm_error_set(err, TM_ERR_NO_SPACE, ENOSPC,
					 "Extending pool %s needs %" PRIu64
					 " more bytes in %s, which can give %" PRIu64 ".",
					 p->name, need, p->directory, room);
			tm_error_hint(err, "Free space in that file system, or ask for less.");
			return r;
		}
	}
	return 0;
}

/* What it does not name stays as it is by then: another change may have come before. */
static int prepare_policy(struct tm_op *op, const struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;
	json_t *patch;
	int r;

	if (cmd->pool_policy.when_full_valid)
		op->when_full = cmd->pool_policy.when_full;
	op->policy = cmd->pool_policy.policy;
	if (!cmd->pool_policy.patch)
		return tm_policy_check(&op->policy, "", err);
	op->policy = pool->record.policy;
	patch = json_loads(cmd->pool_policy.patch, 0, NULL);
	if (!patch)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	r = tm_policy_from_json(patch, "", &op->policy, err);
	json_decref(patch);
	return r < 0 ? r : tm_policy_check(&op->policy, "", err);
}

/* A name for what will be kept. */
static int name_copy(struct tm_op *op, const struct tm_pool *pool, const char *why,
		     struct tm_error *err)
{
	uint64_t now = tm_now_realtime_usec();
	struct tm_copy taken;
	int r;

	/* Names have seconds, and some machines are fast. */
	do {
		r = tm_copy_name(now, why, op->repair.copy_name);
		now += TM_USEC_PER_SEC;
	} while (r >= 0 && tm_copies_find(&pool->record, op->repair.copy_name, &taken, NULL) >= 0);
	if (r < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, -r, "The time of day cannot be written.");
	return 0;
}

/* What both kinds of other metadata need to know of what is there. */
static int prepare_swap(struct tm_op *op, const struct tm_pool *pool, const char *why,
			struct tm_error *err)
{
	int r = name_copy(op, pool, why, err);

	if (r < 0)
		return r;
	free(op->repair.last_mapped);
	op->repair.last_mapped = calloc(pool->n_volumes ? pool->n_volumes : 1,
					sizeof(*op->repair.last_mapped));
	if (!op->repair.last_mapped)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	for (size_t i = 0; i < pool->n_volumes; i++)
		op->repair.last_mapped[i] = pool->volumes[i].mapped_valid
						    ? pool->volumes[i].mapped_bytes
						    : UINT64_MAX;
	op->repair.metadata_bytes = pool->record.metadata_bytes;
	op->repair.metadata_reserve_bytes = pool->record.metadata_reserve_bytes;
	op->activate = op->pool_was_active || pool->record.active;
	return 0;
}

/* Whether there is anything to be mended, as far as can be told from here. */
static int prepare_repair(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	const bool up = pool->state == TM_POOL_ACTIVE && pool->status_valid;
	int r;

	if (up && !pool->status.failed && !pool->status.needs_check &&
	    pool->status.mode < TM_MODE_READ_ONLY) {
		r = tm_error_set(err, TM_ERR_WRONG_STATE, EINVAL,
				 "Pool %s is in mode %s and does not need a repair.",
				 pool->record.name, tm_mode_name(pool->status.mode));
		tm_error_hint(err,
			      "To have its metadata checked all the same, deactivate it first.");
		return r;
	}
	op->repair.force = op->cmd->pool_repair.force ||
			   pool->record.policy.repair == TM_REPAIR_FORCE;
	return prepare_swap(op, pool, "repair", err);
}

static int prepare_restore(struct tm_op *op, const struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;
	struct tm_copy copy;
	int r = tm_copies_find(&pool->record, cmd->pool_restore.copy, &copy, err);

	if (r < 0)
		return r;
	(void)snprintf(op->repair.from, sizeof(op->repair.from), "%s", copy.name);
	op->repair.force = cmd->pool_restore.force;
	return prepare_swap(op, pool, "restore", err);
}

/* One that is up is read by a metadata snapshot, which it has to be able to make. */
static int prepare_check(struct tm_op *op, const struct tm_pool *pool, struct tm_error *err)
{
	int r = pool->raising || pool->state == TM_POOL_ACTIVE ? need_writable(op, pool, err) : 0;

	if (r < 0)
		return r;
	op->check.keep = op->cmd->pool_check.copy;
	op->check.by_itself = op->cmd->pool_check.by_itself;
	return op->check.keep ? name_copy(op, pool, TM_COPY_SAFETY, err) : 0;
}

static int prepare_delete(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	op->with_volumes = op->cmd->pool_delete.with_volumes;
	if (pool->n_volumes && !op->with_volumes) {
		(void)tm_error_set(err, TM_ERR_BUSY, ENOTEMPTY, "Pool %s still has %zu volume%s.",
				   pool->record.name, pool->n_volumes,
				   pool->n_volumes == 1 ? "" : "s");
		tm_error_hint(
			err,
			"Delete them first, or ask for the pool with its volumes to be deleted.");
		return -ENOTEMPTY;
	}
	return 0;
}

static void reset(struct tm_op *op)
{
	free(op->volumes);
	free(op->items);
	free(op->before);
	op->volumes = op->items = op->before = NULL;
	op->n_volumes = op->n_items = 0;
}

int tm_op_prepare(struct tm_op *op, struct tm_pool *pool, struct tm_error *err)
{
	const struct tm_command *cmd = op->cmd;

	reset(op);
	op->data_bytes = op->metadata_bytes = 0;
	tm_policy_default(&op->policy);
	if (cmd->kind == TM_CMD_POOL_CREATE) {
		op->pool = cmd->pool_create.record;
		op->activate = cmd->pool_create.activate;
		return 0;
	}
	if (cmd->kind == TM_CMD_POOL_IMPORT) {
		(void)snprintf(op->pool.directory, sizeof(op->pool.directory), "%s",
			       cmd->pool_import.directory);
		op->activate = cmd->pool_import.activate;
		return tm_path_check(op->pool.directory, "/directory", err);
	}
	if (pool->state == TM_POOL_CREATING || pool->state == TM_POOL_DELETING)
		return tm_error_set(err, TM_ERR_WRONG_STATE, EBUSY, "Pool %s is being %s.",
				    pool->record.name,
				    pool->state == TM_POOL_CREATING ? "created" : "deleted");
	if (pool->state == TM_POOL_UNCERTAIN && cmd->kind != TM_CMD_POOL_ACTIVATE &&
	    cmd->kind != TM_CMD_POOL_DEACTIVATE && cmd->kind != TM_CMD_POOL_REPAIR &&
	    cmd->kind != TM_CMD_POOL_RESTORE && cmd->kind != TM_CMD_POOL_DELETE) {
		(void)tm_error_set(err, TM_ERR_WRONG_STATE, EBUSY,
				   "Pool %s is in an uncertain state and is not changed: %s",
				   pool->record.name, pool->state_reason);
		tm_error_hint(err,
			      "Deactivate it, and activate it again once the cause is removed.");
		return -EBUSY;
	}
	if (pool->unsettled && cmd->kind != TM_CMD_POOL_DELETE) {
		(void)tm_error_set(
			err, TM_ERR_WRONG_STATE, EBUSY,
			"An operation on pool %s was cut off and can be settled only with "
			"the pool up: %s",
			pool->record.name, pool->state_reason);
		tm_error_hint(err, "Remove the cause, then: systemctl restart thinmgrd");
		return -EBUSY;
	}
	/* Also when its turn comes: what went before it may have changed the pool. */
	if (cmd->if_match_valid && cmd->if_match != pool->generation) {
		(void)tm_error_set(err, TM_ERR_PRECONDITION, ESTALE,
				   "Pool %s has changed since it was read.", pool->record.name);
		tm_error_hint(err, "Read it again and use the ETag of that answer.");
		(void)snprintf(err->field, sizeof(err->field), "If-Match");
		return -ESTALE;
	}
	op->pool = pool->record;
	op->policy = pool->record.policy;
	op->when_full = pool->record.when_full;
	op->transaction_before = pool->record.transaction_id;
	op->pool_was_active = pool->state == TM_POOL_ACTIVE ||
			      (pool->state == TM_POOL_UNCERTAIN && pool->status_valid);
	op->pool_was_uncertain = pool->state == TM_POOL_UNCERTAIN;
	op->volumes = calloc(pool->n_volumes ? pool->n_volumes : 1, sizeof(*op->volumes));
	if (!op->volumes)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	op->n_volumes = pool->n_volumes;
	for (size_t i = 0; i < pool->n_volumes; i++)
		op->volumes[i] = pool->volumes[i].record;
	switch (cmd->kind) {
	case TM_CMD_POOL_DELETE:
		return prepare_delete(op, pool, err);
	case TM_CMD_POOL_ACTIVATE:
		op->activate = true;
		return 0;
	case TM_CMD_POOL_DEACTIVATE:
		return 0;
	case TM_CMD_POOL_EXTEND:
		return prepare_extend(op, pool, err);
	case TM_CMD_POOL_REPAIR:
		return prepare_repair(op, pool, err);
	case TM_CMD_POOL_RESTORE:
		return prepare_restore(op, pool, err);
	case TM_CMD_POOL_CHECK:
		return prepare_check(op, pool, err);
	case TM_CMD_POOL_POLICY:
		return prepare_policy(op, pool, err);
	case TM_CMD_VOLUME_CREATE:
		return prepare_volume_create(op, pool, err);
	case TM_CMD_SNAPSHOT_CREATE:
		return prepare_snapshot(op, pool, err);
	default:
		return prepare_volume(op, pool, err);
	}
}
