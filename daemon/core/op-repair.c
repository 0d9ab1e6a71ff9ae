/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Repairing a pool: its metadata is checked, what is wrong with it mended in a new file, that
 * judged by what it maps, and put in the place of the old, which stays as it was and is kept. Until
 * the new metadata is live and recorded, whatever fails or is cut off brings the old back.
 */

#include <errno.h>
#include <stdio.h>

#include "backing/copies.h"
#include "common/cleanup.h"
#include "core/internal.h"
#include "core/metadata-swap.h"
#include "core/op-types.h"
#include "logic/extend.h"

/*
 * Free metadata that is too little to go on with: it is enlarged on the way. The kernel calls
 * metadata full when a tenth is left, 4 MiB at most, which it keeps for deletes and its last
 * commit; and one change that needs more than is left is taken back, so that what is on disk may
 * look as if there were still some.
 */
#define SCARCE_PERCENT 25
#define SCARCE_LEAST   (256 * TM_KIB)
#define SCARCE_MOST    (8 * TM_MIB)

/* ---- the new metadata ---- */

static int check_old(struct tm_op *op, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 16];
	struct tm_tool_result result = { 0 };
	struct tm_superblock sb;
	int r;

	op->repair.clean = op->repair.superblock_lost = false;
	r = tm_parts_read_superblock(&op->pool, &sb, err);
	if (r == 0)
		return tm_error_set(err, TM_ERR_WRONG_STATE, ENODATA,
				    "The metadata of pool %s is new: there is nothing to repair.",
				    op->pool.name);
	op->repair.superblock_lost = r == -EBADMSG || r == -ENODATA;
	if (r > 0)
		r = tm_parts_metadata_whole(&op->pool, &sb, err);
	if (r == -EBADMSG ||
	    r == -ENODATA) { /* no use checking it: what can be saved is seen next */
		if (err)
			*err = (struct tm_error){ 0 };
		return 0;
	}
	if (r < 0)
		return r;
	tm_backing_part_path(&op->pool, TM_PART_METADATA, path);
	r = tm_metadata_check(op->core, &op->progress, path, op->pool.name, &result, err);
	if (r < 0)
		return r;
	op->repair.clean = r > 0;
	return 0;
}

uint64_t tm_repair_extended(const struct tm_pool_record *p, uint64_t bytes)
{
	struct tm_extend_policy policy = p->policy.metadata;
	const struct tm_extend_input in = {
		.policy = &policy,
		.unit_bytes = TM_METADATA_BLOCK,
		.used_blocks = bytes / TM_METADATA_BLOCK,
		.total_blocks = bytes / TM_METADATA_BLOCK,
		.limit_blocks = TM_METADATA_MAX_BYTES / TM_METADATA_BLOCK,
		.backing_free_bytes = UINT64_MAX / 4, /* making it finds out */
	};
	struct tm_extend_plan plan;

	policy.enabled = true; /* full, it would only break again */
	tm_extend_decide(&in, &plan);
	return plan.verdict == TM_EXTEND_NOW ? plan.new_total_blocks * TM_METADATA_BLOCK : bytes;
}

/* How large the new metadata shall be: as the old was, and larger where that was full. */
static uint64_t new_bytes(const struct tm_op *op)
{
	const struct tm_pool_record *p = &op->pool;
	uint64_t bytes = p->metadata_bytes + p->metadata_reserve_bytes, there = 0, left, scarce;
	struct tm_superblock sb;

	if (tm_backing_part_size(p, TM_PART_METADATA, &there, NULL) >= 0 && there > bytes)
		bytes = tm_round_down(there, TM_METADATA_BLOCK);
	if (tm_parts_read_superblock(p, &sb, NULL) <= 0)
		return bytes;
	left = sb.metadata_blocks > sb.metadata_used ? sb.metadata_blocks - sb.metadata_used : 0;
	scarce = tm_mul_div(sb.metadata_blocks, SCARCE_PERCENT, 100);
	if (scarce < SCARCE_LEAST / TM_METADATA_BLOCK)
		scarce = SCARCE_LEAST / TM_METADATA_BLOCK;
	if (scarce > SCARCE_MOST / TM_METADATA_BLOCK)
		scarce = SCARCE_MOST / TM_METADATA_BLOCK;
	return left < scarce ? tm_repair_extended(p, bytes) : bytes;
}

/* Nothing could be saved of what there is: what there was before may be kept. Returns @r. */
static int hint_copies(const struct tm_op *op, int r, struct tm_error *err)
{
	tm_auto_free struct tm_copy *copies = NULL;
	char kept[TM_PATH_SIZE + TM_COPY_NAME_SIZE + 16];
	size_t n = 0;

	if (!err || err->code != TM_ERR_DAMAGED)
		return r;
	if (tm_copies_list(&op->pool, &copies, &n, NULL) < 0 || n == 0) {
		tm_error_hint(err, "The metadata was left as it was, and no earlier copy of it is "
				   "kept.");
		return r;
	}
	tm_copies_kept_path(&op->pool, copies[n - 1].name, kept);
	tm_error_hint(err,
		      "The metadata was left as it was. Go back to the newest copy with: thinmgr "
		      "pool restore-metadata %s %s (%s; %zu in all)",
		      op->pool.name, copies[n - 1].name, kept, n);
	return r;
}

static int make_new(struct tm_op *op, struct tm_error *err)
{
	char from[TM_PATH_SIZE + 16], to[TM_PATH_SIZE + 16];
	const uint64_t bytes = new_bytes(op);
	int r;

	tm_backing_part_path(&op->pool, TM_PART_METADATA, from);
	tm_copies_new_path(&op->pool, to);
	if (op->repair.clean) {
		r = tm_copies_clone_new(&op->pool, bytes, err);
		return r < 0 ? r
			     : tm_metadata_clear_flag(op->core, &op->progress, to, op->pool.name,
						      err);
	}
	r = tm_copies_make_new(&op->pool, bytes, err);
	if (r >= 0)
		r = tm_metadata_repair(op->core, &op->progress, &op->pool, from, to,
				       op->repair.superblock_lost, err);
	return hint_copies(op, r, err);
}

static int check_new(struct tm_op *op, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 16];
	struct tm_tool_result result = { 0 };
	int r;

	tm_copies_new_path(&op->pool, path);
	r = tm_metadata_check(op->core, &op->progress, path, op->pool.name, &result, err);
	if (r != 0)
		return r < 0 ? r : 0;
	r = tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			 "thin_check does not accept what was made of the metadata of pool "
			 "%s%s%s",
			 op->pool.name, result.output[0] ? ": " : ".", result.output);
	return hint_copies(op, r, err);
}

static int judge(struct tm_op *op, struct tm_error *err)
{
	tm_cleanup(tm_repair_verdict_done) struct tm_repair_verdict verdict = { 0 };
	char path[TM_PATH_SIZE];
	int r = tm_swap_compare(op, false, &verdict, err);

	if (r >= 0)
		r = tm_swap_report(op, &verdict, err);
	if (r < 0)
		return r;
	if (verdict.verdict == TM_VERDICT_REFUSE) {
		r = tm_error_set(err, TM_ERR_DAMAGED, EBADMSG, "%s", verdict.text);
		return hint_copies(op, r, err);
	}
	op->repair.lossless = verdict.verdict == TM_VERDICT_ACCEPT;
	tm_released_judge(&op->repair.released, op->volumes, op->n_volumes, &verdict);
	tm_released_path(path, &op->pool.id);
	return tm_released_save(path, &op->repair.released, err);
}

static const struct tm_step repair_steps[] = {
	{ .name = "check-tools", .run = tm_swap_check_tools },
	/* Gives back what an earlier repair owes as well, whether or not it comes to a release. */
	{ .name = "plan-release", .run = tm_step_plan_release, .undo = tm_step_release_undo },
	{ .name = "release", .run = tm_step_release },
	{ .name = "deactivate-volumes",
	  .run = tm_step_deactivate_volumes,
	  .undo = tm_swap_deactivate_undo },
	{ .name = "stop-pool", .run = tm_step_stop_pool, .undo = tm_swap_stop_undo },
	{ .name = "check-metadata", .run = check_old },
	{ .name = "make-new", .run = make_new, .undo = tm_swap_drop_new },
	{ .name = "check-new", .run = check_new },
	{ .name = "compare", .run = judge },
	{ .name = "swap", .run = tm_swap_swap, .undo = tm_swap_swap_undo },
	{ .name = "learn", .run = tm_swap_learn, .undo = tm_swap_learn_undo },
	{ .name = "attach", .run = tm_step_attach, .undo = tm_swap_attach_undo },
	{ .name = "start-pool", .run = tm_swap_start, .undo = tm_swap_start_undo },
	{ .name = "record", .run = tm_swap_record, .commit = true, .record = true },
	{ .name = "activate-volumes", .run = tm_step_activate_volumes, .can_wait = true },
	{ .name = "restore", .run = tm_step_restore, .can_wait = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
	{ .name = "rotate-copies", .run = tm_swap_rotate, .can_wait = true },
};

const struct tm_op_type tm_op_pool_repair = {
	.kind = TM_CMD_POOL_REPAIR,
	.steps = repair_steps,
	.n_steps = TM_ARRAY_SIZE(repair_steps),
	.stops_extension = true,
};
