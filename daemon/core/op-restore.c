/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Going back to metadata that is kept: a copy of it is checked, held against what is there now, and
 * put in its place. That is kept in turn, and brought back by whatever fails or is cut off before
 * the pool is up and recorded.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backing/copies.h"
#include "backing/packed.h"
#include "common/cleanup.h"
#include "core/internal.h"
#include "core/metadata-swap.h"
#include "core/op-types.h"
#include "logic/restore-verdict.h"

static bool is_dump(const struct tm_op *op)
{
	struct tm_copy copy;

	return tm_copies_find(&op->pool, op->repair.from, &copy, NULL) >= 0 &&
	       tm_copy_is_dump(&copy);
}

static int check_tools(struct tm_op *op, struct tm_error *err)
{
	int r = tm_swap_check_tools(op, err);

	return r >= 0 && is_dump(op) ? tm_metadata_tool_there("thin_restore", op->pool.name, err)
				     : r;
}

/* A safety copy is text, from which thin_restore makes metadata anew. */
static int from_dump(struct tm_op *op, uint64_t bytes, struct tm_error *err)
{
	tm_auto_close int text = tm_packed_open(&op->pool, op->repair.from, err);
	char from[64], to[TM_PATH_SIZE + 16];
	int r;

	if (text < 0)
		return text;
	r = tm_copies_make_new(&op->pool, bytes, err);
	if (r < 0)
		return r;
	/* It has no other name. */
	(void)snprintf(from, sizeof(from), "/proc/%d/fd/%d", (int)getpid(), text);
	tm_copies_new_path(&op->pool, to);
	return tm_metadata_restore(op->core, &op->progress, &op->pool, from, to, err);
}

/* As large as the metadata is now, at least: it grew for a reason. */
static int make_new(struct tm_op *op, struct tm_error *err)
{
	const struct tm_pool_record *p = &op->pool;
	uint64_t bytes = p->metadata_bytes + p->metadata_reserve_bytes, there = 0;
	struct tm_copy copy;
	int r = tm_copies_find(p, op->repair.from, &copy, err);

	if (r < 0)
		return r;
	if (tm_backing_part_size(p, TM_PART_METADATA, &there, NULL) >= 0 && there > bytes)
		bytes = there;
	if (copy.bytes > bytes)
		bytes = copy.bytes;
	bytes = tm_round_up(bytes, TM_METADATA_BLOCK);
	return tm_copy_is_dump(&copy) ? from_dump(op, bytes, err)
				      : tm_copies_take_new(p, op->repair.from, bytes, err);
}

static int read_superblock(const struct tm_op *op, struct tm_superblock *ret, struct tm_error *err)
{
	unsigned char block[TM_SUPERBLOCK_SIZE];
	char path[TM_PATH_SIZE + 16];

	tm_copies_new_path(&op->pool, path);
	tm_auto_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || pread(fd, block, sizeof(block), 0) != (ssize_t)sizeof(block))
		return tm_error_set(err, TM_ERR_IO, EIO, "Cannot read %s.", path);
	if (tm_superblock_parse(block, ret) < 0)
		return tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
				    "The copy %s of the metadata of pool %s has no superblock that "
				    "can be used.",
				    op->repair.from, op->pool.name);
	return 0;
}

static void hint_repair(const struct tm_op *op, struct tm_error *err)
{
	tm_error_hint(err,
		      "Nothing was changed. Choose another copy (thinmgr pool copies %s), or mend "
		      "what is there: thinmgr pool repair %s",
		      op->pool.name, op->pool.name);
}

/* A flag of a time when something failed says nothing of what thin_check finds sound. */
static int check_new(struct tm_op *op, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 16];
	struct tm_tool_result result = { 0 };
	struct tm_superblock sb = { 0 };
	int r;

	tm_copies_new_path(&op->pool, path);
	r = tm_metadata_check(op->core, &op->progress, path, op->pool.name, &result, err);
	if (r < 0)
		return r;
	if (r == 0) {
		r = tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
				 "thin_check does not accept the copy %s of the metadata of pool "
				 "%s%s%s",
				 op->repair.from, op->pool.name, result.output[0] ? ": " : ".",
				 result.output);
		hint_repair(op, err);
		return r;
	}
	r = read_superblock(op, &sb, err);
	return r >= 0 && sb.needs_check
		       ? tm_metadata_clear_flag(op->core, &op->progress, path, op->pool.name, err)
		       : r;
}

static int refuse(const struct tm_op *op, const struct tm_restore_verdict *v, struct tm_error *err)
{
	int r;

	if (v->refusal == TM_RESTORE_UNSOUND) {
		r = tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
				 "Pool %s cannot go back to the copy %s: %s.", op->pool.name,
				 op->repair.from, v->text);
		hint_repair(op, err);
		return r;
	}
	r = tm_error_set(err, TM_ERR_WRONG_STATE, ESTALE,
			 "Pool %s does not go back to the copy %s: %s.", op->pool.name,
			 op->repair.from, v->text);
	tm_error_hint(err, "Nothing was changed. With force (--force) it does. Blocks that the "
			   "copy maps may have been given to other volumes since: their content "
			   "would appear in the wrong place, and be overwritten there.");
	return r;
}

static int judge(struct tm_op *op, struct tm_error *err)
{
	tm_cleanup(tm_repair_verdict_done) struct tm_repair_verdict compared = { 0 };
	struct tm_restore_verdict verdict;
	struct tm_superblock sb = { 0 };
	int r = read_superblock(op, &sb, err);

	if (r >= 0)
		r = tm_swap_compare(op, true, &compared, err);
	if (r < 0)
		return r;
	tm_restore_judge(
		&(struct tm_restore_input){
			.compared = &compared,
			.block_bytes = op->pool.block_bytes,
			.recorded_transaction = op->pool.transaction_id,
			.copy_transaction = sb.transaction_id,
			.force = op->repair.force,
		},
		&verdict);
	if (verdict.refusal != TM_RESTORE_ALLOWED)
		return refuse(op, &verdict, err);
	op->repair.lossless = verdict.lossless;
	compared.verdict = verdict.lossless ? TM_VERDICT_ACCEPT : TM_VERDICT_ACCEPT_LOSSES;
	(void)snprintf(compared.text, sizeof(compared.text), "%.*s", (int)sizeof(compared.text) - 1,
		       verdict.text);
	return tm_swap_report(op, &compared, err);
}

static const struct tm_step restore_steps[] = {
	{ .name = "check-tools", .run = check_tools },
	{ .name = "deactivate-volumes",
	  .run = tm_step_deactivate_volumes,
	  .undo = tm_swap_deactivate_undo },
	{ .name = "stop-pool", .run = tm_step_stop_pool, .undo = tm_swap_stop_undo },
	{ .name = "make-new", .run = make_new, .undo = tm_swap_drop_new },
	{ .name = "check-new", .run = check_new },
	{ .name = "compare", .run = judge },
	{ .name = "swap", .run = tm_swap_swap, .undo = tm_swap_swap_undo },
	{ .name = "learn", .run = tm_swap_learn, .undo = tm_swap_learn_undo },
	{ .name = "attach", .run = tm_step_attach, .undo = tm_swap_attach_undo },
	{ .name = "start-pool", .run = tm_swap_start, .undo = tm_swap_start_undo },
	{ .name = "record", .run = tm_swap_record, .commit = true, .record = true },
	{ .name = "activate-volumes", .run = tm_step_activate_volumes, .can_wait = true },
	{ .name = "write-descriptor", .run = tm_step_write_descriptor, .can_wait = true },
	{ .name = "rotate-copies", .run = tm_swap_rotate, .can_wait = true },
};

const struct tm_op_type tm_op_pool_restore = {
	.kind = TM_CMD_POOL_RESTORE,
	.steps = restore_steps,
	.n_steps = TM_ARRAY_SIZE(restore_steps),
	.stops_extension = true,
};
