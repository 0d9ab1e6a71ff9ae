/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Other metadata for a pool: the steps that a repair and going back to a copy share. What the new
 * metadata is made of, in the file beside the old, is each operation's own matter; that the pool is
 * down meanwhile, what is lost, the swap, and how the pool comes up again are here.
 *
 * All are steps of operations (operation.h), on a crew's thread. They use op->repair.
 */
#ifndef TM_CORE_METADATA_SWAP_H
#define TM_CORE_METADATA_SWAP_H

#include "core/operation.h"
#include "logic/repair-verdict.h"

/* First of all: without thin_check and thin_repair the pool need not go down. TOOL_MISSING. */
int tm_swap_check_tools(struct tm_op *op, struct tm_error *err);

/*
 * What to undo of tm_step_deactivate_volumes and tm_step_stop_pool: as it was. A pool that was
 * broken comes up broken, or not at all, and that is no failure of undoing.
 */
int tm_swap_deactivate_undo(struct tm_op *op, struct tm_error *err);
int tm_swap_stop_undo(struct tm_op *op, struct tm_error *err);

/* Delete the new metadata. */
int tm_swap_drop_new(struct tm_op *op, struct tm_error *err);

/*
 * What the new metadata maps, against what is in place. @restore: the administrator chose it, and
 * it is not called a repair. Names in *ret are those of op->volumes. 0; IO or NO_MEMORY.
 */
int tm_swap_compare(const struct tm_op *op, bool restore, struct tm_repair_verdict *ret,
		    struct tm_error *err);
/*
 * Keep the comparison: op->repair.report for the event, op->repair.lost for the record. Volumes
 * that are no more stay known, so that their loss is; they are not activated again.
 */
int tm_swap_report(struct tm_op *op, const struct tm_repair_verdict *v, struct tm_error *err);

/* The new metadata in the place of the old, which is kept as op->repair.copy_name. */
int tm_swap_swap(struct tm_op *op, struct tm_error *err);
int tm_swap_swap_undo(struct tm_op *op, struct tm_error *err);

/* What the new metadata says of sizes and the transaction is so from here on. */
int tm_swap_learn(struct tm_op *op, struct tm_error *err);
int tm_swap_learn_undo(struct tm_op *op, struct tm_error *err);

/* Unlike those of the shared steps: it was this operation that brought it up. */
int tm_swap_attach_undo(struct tm_op *op, struct tm_error *err);

/* The pool comes up if it shall, and has to be writable then. */
int tm_swap_start(struct tm_op *op, struct tm_error *err);
int tm_swap_start_undo(struct tm_op *op, struct tm_error *err);

/* Pool and volumes as they are now: the point of no return. */
int tm_swap_record(struct tm_op *op, struct tm_error *err);

/* Remove copies that the policy does not keep, but for the one just made. */
int tm_swap_rotate(struct tm_op *op, struct tm_error *err);
/* The same at any time when no such operation runs on the pool; @spare may be NULL. */
int tm_metadata_rotate(const struct tm_pool_record *pool, const char *spare, struct tm_error *err);

#endif
