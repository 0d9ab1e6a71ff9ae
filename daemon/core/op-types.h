/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operations there are: each a static table of steps, in op-*.c. */
#ifndef TM_CORE_OP_TYPES_H
#define TM_CORE_OP_TYPES_H

#include "core/operation.h"

extern const struct tm_op_type tm_op_pool_create, tm_op_pool_import, tm_op_pool_delete,
	tm_op_pool_activate, tm_op_pool_deactivate, tm_op_pool_extend, tm_op_pool_policy,
	tm_op_pool_repair, tm_op_pool_restore, tm_op_pool_check, tm_op_volume_create,
	tm_op_volume_delete, tm_op_volume_resize, tm_op_volume_rename, tm_op_volume_activate,
	tm_op_volume_deactivate, tm_op_volume_check, tm_op_volume_clear, tm_op_snapshot_create;

/* Steps used by several: see op-pool.c. */
int tm_step_check_metadata(struct tm_op *op, struct tm_error *err);
int tm_step_attach(struct tm_op *op, struct tm_error *err);
int tm_step_attach_undo(struct tm_op *op, struct tm_error *err);
int tm_step_start_pool(struct tm_op *op, struct tm_error *err);
int tm_step_start_pool_undo(struct tm_op *op, struct tm_error *err);
int tm_step_activate_volumes(struct tm_op *op, struct tm_error *err);
int tm_step_activate_volumes_undo(struct tm_op *op, struct tm_error *err);
int tm_step_deactivate_volumes(struct tm_op *op, struct tm_error *err);
int tm_step_deactivate_volumes_undo(struct tm_op *op, struct tm_error *err);
int tm_step_stop_pool(struct tm_op *op, struct tm_error *err);
int tm_step_stop_pool_undo(struct tm_op *op, struct tm_error *err);
int tm_step_write_descriptor(struct tm_op *op, struct tm_error *err);
/* Taking mounts and swap off the volumes, and giving them back: see op-release.c. */
int tm_step_plan_release(struct tm_op *op, struct tm_error *err);
int tm_step_release(struct tm_op *op, struct tm_error *err);
int tm_step_release_undo(struct tm_op *op, struct tm_error *err);
int tm_step_restore(struct tm_op *op, struct tm_error *err);
/* The pool's row and sizes; within a transaction. */
int tm_step_record_pool(struct tm_op *op, struct tm_error *err);

#endif
