/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running operations: journal, do, undo. See operation.h. */

#include "core/operation.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "common/utf8.h"
#include "core/internal.h"
#include "core/op-types.h"
#include "logic/json.h"
#include "logic/policy.h"

static const struct tm_op_type *const types[TM_CMD_COUNT] = {
	[TM_CMD_POOL_CREATE] = &tm_op_pool_create,
	[TM_CMD_POOL_IMPORT] = &tm_op_pool_import,
	[TM_CMD_POOL_DELETE] = &tm_op_pool_delete,
	[TM_CMD_POOL_ACTIVATE] = &tm_op_pool_activate,
	[TM_CMD_POOL_DEACTIVATE] = &tm_op_pool_deactivate,
	[TM_CMD_POOL_EXTEND] = &tm_op_pool_extend,
	[TM_CMD_POOL_POLICY] = &tm_op_pool_policy,
	[TM_CMD_POOL_REPAIR] = &tm_op_pool_repair,
	[TM_CMD_POOL_RESTORE] = &tm_op_pool_restore,
	[TM_CMD_POOL_CHECK] = &tm_op_pool_check,
	[TM_CMD_VOLUME_CREATE] = &tm_op_volume_create,
	[TM_CMD_VOLUME_DELETE] = &tm_op_volume_delete,
	[TM_CMD_VOLUME_RESIZE] = &tm_op_volume_resize,
	[TM_CMD_VOLUME_RENAME] = &tm_op_volume_rename,
	[TM_CMD_VOLUME_ACTIVATE] = &tm_op_volume_activate,
	[TM_CMD_VOLUME_DEACTIVATE] = &tm_op_volume_deactivate,
	[TM_CMD_VOLUME_CHECK] = &tm_op_volume_check,
	[TM_CMD_VOLUME_CLEAR] = &tm_op_volume_clear,
	[TM_CMD_SNAPSHOT_CREATE] = &tm_op_snapshot_create,
};

const char *tm_command_name(enum tm_command_kind kind)
{
	static const char *const names[TM_CMD_COUNT] = {
		[TM_CMD_POOL_CREATE] = "pool-create",
		[TM_CMD_POOL_IMPORT] = "pool-import",
		[TM_CMD_POOL_DELETE] = "pool-delete",
		[TM_CMD_POOL_ACTIVATE] = "pool-activate",
		[TM_CMD_POOL_DEACTIVATE] = "pool-deactivate",
		[TM_CMD_POOL_EXTEND] = "pool-extend",
		[TM_CMD_POOL_POLICY] = "pool-policy",
		[TM_CMD_POOL_REPAIR] = "pool-repair",
		[TM_CMD_POOL_RESTORE] = "pool-restore",
		[TM_CMD_POOL_CHECK] = "pool-check",
		[TM_CMD_VOLUME_CREATE] = "volume-create",
		[TM_CMD_VOLUME_DELETE] = "volume-delete",
		[TM_CMD_VOLUME_RESIZE] = "volume-resize",
		[TM_CMD_VOLUME_RENAME] = "volume-rename",
		[TM_CMD_VOLUME_ACTIVATE] = "volume-activate",
		[TM_CMD_VOLUME_DEACTIVATE] = "volume-deactivate",
		[TM_CMD_VOLUME_CHECK] = "volume-check",
		[TM_CMD_VOLUME_CLEAR] = "volume-clear-suspect",
		[TM_CMD_SNAPSHOT_CREATE] = "snapshot-create",
	};

	return kind < TM_CMD_COUNT ? names[kind] : "unknown";
}

struct tm_command *tm_command_free(struct tm_command *cmd)
{
	if (cmd && cmd->kind == TM_CMD_SNAPSHOT_CREATE)
		free(cmd->snapshot.items);
	if (cmd && cmd->kind == TM_CMD_POOL_POLICY)
		free(cmd->pool_policy.patch);
	free(cmd);
	return NULL;
}

const struct tm_op_type *tm_op_type(enum tm_command_kind kind)
{
	return kind < TM_CMD_COUNT ? types[kind] : NULL;
}

const struct tm_op_type *tm_op_type_from_name(const char *name)
{
	for (unsigned int i = 0; i < TM_CMD_COUNT; i++)
		if (strcmp(name, tm_command_name(i)) == 0)
			return types[i];
	return NULL;
}

struct tm_op *tm_op_free(struct tm_op *op)
{
	if (!op)
		return NULL;
	tm_operation_record_done(&op->record);
	tm_command_free(op->cmd);
	free(op->volumes);
	free(op->items);
	free(op->before);
	free(op->repair.last_mapped);
	free(op->repair.lost);
	free(op->repair.suspect);
	free(op->repair.report);
	tm_released_done(&op->repair.released);
	json_decref(op->repair.back);
	json_decref(op->repair.off);
	free(op);
	return NULL;
}

static json_t *volumes_to_json(const struct tm_volume_record *v, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; list && v && i < n; i++)
		if (json_array_append_new(list,
					  json_pack("{s:s, s:s, s:I, s:I, s:s, s:b, s:b, s:I}",
						    "id", v[i].id.text, "name", v[i].name, "dev_id",
						    (json_int_t)v[i].dev_id, "size",
						    (json_int_t)v[i].size_bytes, "origin",
						    v[i].origin.text, "active", (int)v[i].active,
						    "read_only", (int)v[i].read_only, "created",
						    (json_int_t)v[i].created_usec)) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* The database is ours, but what it says goes to the kernel: a value that cannot be is refused. */
static bool in_range(json_int_t value, uint64_t most)
{
	return value >= 0 && (uint64_t)value <= most;
}

static int volumes_from_json(json_t *list, struct tm_volume_record **ret, size_t *ret_n)
{
	tm_auto_free struct tm_volume_record *v = NULL;
	size_t n = json_array_size(list);

	if (!json_is_array(list))
		return -EINVAL;
	v = calloc(n ? n : 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *id, *name, *origin;
		json_int_t dev_id, size, created;
		int active, read_only;

		if (json_unpack(json_array_get(list, i), "{s:s, s:s, s:I, s:I, s:s, s:b, s:b, s:I}",
				"id", &id, "name", &name, "dev_id", &dev_id, "size", &size,
				"origin", &origin, "active", &active, "read_only", &read_only,
				"created", &created) < 0 ||
		    tm_uuid_parse(id, &v[i].id) < 0 || !tm_name_valid(name) ||
		    !in_range(dev_id, TM_DEV_ID_NONE) || !in_range(size, INT64_MAX) ||
		    !in_range(created, INT64_MAX))
			return -EINVAL;
		if (origin[0] && tm_uuid_parse(origin, &v[i].origin) < 0)
			return -EINVAL;
		(void)snprintf(v[i].name, sizeof(v[i].name), "%s", name);
		v[i].dev_id = (uint32_t)dev_id;
		v[i].size_bytes = (uint64_t)size;
		v[i].active = active;
		v[i].read_only = read_only;
		v[i].created_usec = (uint64_t)created;
	}
	*ret = TM_TAKE(v);
	*ret_n = n;
	return 0;
}

char *tm_op_state_format(const struct tm_op *op)
{
	/* Only an import has volumes that the database does not know yet. */
	const bool import = op->type->kind == TM_CMD_POOL_IMPORT;
	json_t *root = json_pack(
		"{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:o, "
		"s:o, s:o, s:o, s:s, s:s, s:s, s:s, s:b, s:b, s:I}",
		"pool", op->pool.id.text, "name", op->pool.name, "directory", op->pool.directory,
		"sparse", (int)op->pool.sparse, "block_size", (json_int_t)op->pool.block_bytes,
		"pool_data", (json_int_t)op->pool.data_bytes, "pool_data_reserve",
		(json_int_t)op->pool.data_reserve_bytes, "pool_metadata",
		(json_int_t)op->pool.metadata_bytes, "pool_metadata_reserve",
		(json_int_t)op->pool.metadata_reserve_bytes, "transaction",
		(json_int_t)op->transaction_before, "data", (json_int_t)op->data_bytes, "metadata",
		(json_int_t)op->metadata_bytes, "activate", (int)op->activate, "with_volumes",
		(int)op->with_volumes, "was_active", (int)op->pool_was_active, "items",
		volumes_to_json(op->items, op->n_items), "before",
		volumes_to_json(op->before, op->before ? op->n_items : 0), "volumes",
		volumes_to_json(op->volumes, import ? op->n_volumes : 0), "policy",
		tm_policy_to_json(&op->policy), "when_full", tm_when_full_name(op->when_full),
		"copy", op->repair.copy_name, "from", op->repair.from, "report",
		op->repair.report ? op->repair.report : "", "lossless", (int)op->repair.lossless,
		"keep", (int)op->check.keep, "held", (json_int_t)op->check.held_root);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	return text;
}

int tm_op_state_parse(struct tm_op *op, const char *text, struct tm_error *err)
{
	const char *pool, *name, *directory, *when_full, *copy = "", *from = "", *report = "";
	json_int_t transaction, data, metadata, block, pool_data, pool_data_reserve, pool_metadata,
		pool_metadata_reserve, held = 0;
	int activate, with_volumes, was_active, sparse, lossless = 0, keep = 0;
	json_t *items, *before, *volumes, *policy, *root = json_loads(text, 0, NULL);
	size_t n_before = 0;
	int r = -EINVAL;

	if (!root ||
	    json_unpack(
		    root,
		    "{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
		    "s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:s, s?:s, s?:s, s?:s, s?:b, s?:b, s?:I}",
		    "pool", &pool, "name", &name, "directory", &directory, "sparse", &sparse,
		    "block_size", &block, "pool_data", &pool_data, "pool_data_reserve",
		    &pool_data_reserve, "pool_metadata", &pool_metadata, "pool_metadata_reserve",
		    &pool_metadata_reserve, "transaction", &transaction, "data", &data, "metadata",
		    &metadata, "activate", &activate, "with_volumes", &with_volumes, "was_active",
		    &was_active, "items", &items, "before", &before, "volumes", &volumes, "policy",
		    &policy, "when_full", &when_full, "copy", &copy, "from", &from, "report",
		    &report, "lossless", &lossless, "keep", &keep, "held", &held) < 0)
		goto out;
	/* An import knows neither id nor name before it has read the descriptor. */
	if ((pool[0] && tm_uuid_parse(pool, &op->pool.id) < 0) ||
	    (name[0] && !tm_name_valid(name)) || tm_path_check(directory, "", NULL) < 0)
		goto out;
	if (!in_range(block, TM_BLOCK_SIZE_MAX) || !in_range(pool_data, INT64_MAX) ||
	    !in_range(pool_data_reserve, INT64_MAX) || !in_range(pool_metadata, INT64_MAX) ||
	    !in_range(pool_metadata_reserve, INT64_MAX) || !in_range(data, INT64_MAX) ||
	    !in_range(metadata, INT64_MAX) || !in_range(held, INT64_MAX))
		goto out;
	op->check.keep = keep;
	op->check.held_root = (uint64_t)held;
	(void)snprintf(op->repair.copy_name, sizeof(op->repair.copy_name), "%s", copy);
	(void)snprintf(op->repair.from, sizeof(op->repair.from), "%s", from);
	op->repair.lossless = lossless;
	if (report[0] && !op->repair.report)
		op->repair.report = strdup(report);
	(void)snprintf(op->pool.name, sizeof(op->pool.name), "%s", name);
	(void)snprintf(op->pool.directory, sizeof(op->pool.directory), "%s", directory);
	op->pool.sparse = sparse;
	op->pool.block_bytes = (uint32_t)block;
	op->pool.data_bytes = (uint64_t)pool_data;
	op->pool.data_reserve_bytes = (uint64_t)pool_data_reserve;
	op->pool.metadata_bytes = (uint64_t)pool_metadata;
	op->pool.metadata_reserve_bytes = (uint64_t)pool_metadata_reserve;
	op->transaction_before = (uint64_t)transaction;
	op->data_bytes = (uint64_t)data;
	op->metadata_bytes = (uint64_t)metadata;
	op->activate = activate;
	op->with_volumes = with_volumes;
	op->pool_was_active = was_active;
	tm_policy_default(&op->policy);
	if (tm_policy_from_json(policy, "", &op->policy, NULL) < 0 ||
	    tm_when_full_parse(when_full, &op->when_full) < 0)
		goto out;
	r = volumes_from_json(items, &op->items, &op->n_items);
	if (r < 0)
		goto out;
	if (!json_is_array(before))
		r = -EINVAL;
	else if (json_array_size(before) > 0) {
		r = volumes_from_json(before, &op->before, &n_before);
		if (r == 0 && n_before != op->n_items)
			r = -EINVAL;
	}
	if (r == 0)
		r = volumes_from_json(volumes, &op->volumes, &op->n_volumes);
out:
	json_decref(root);
	if (r < 0)
		(void)tm_error_set(err, TM_ERR_STORE, -r,
				   "The recorded state of operation %s cannot be read.",
				   op->record.id.text);
	return r;
}

/* The step whose journal entry decides between undo and going on; n_steps when there is none. */
static size_t commit_step(const struct tm_op_type *type)
{
	for (size_t i = 0; i < type->n_steps; i++)
		if (type->steps[i].commit)
			return i;
	return type->n_steps;
}

bool tm_op_cancellable(const struct tm_op_type *type, const struct tm_operation_record *record)
{
	const size_t commit = commit_step(type);

	return record->status == TM_OP_QUEUED ||
	       (record->status == TM_OP_RUNNING && record->step < commit);
}

/* What others see of a running operation. */
static void show(struct tm_op *op, enum tm_op_status status, size_t step)
{
	atomic_store(&op->progress.percent, -1);
	op->progress.part_begin = op->progress.part_end = 0;
	TM_LOCK_SCOPE(&op->core->live_lock);
	op->record.status = status;
	op->record.step = (uint32_t)step;
	(void)snprintf(op->record.step_name, sizeof(op->record.step_name), "%s",
		       step < op->type->n_steps ? op->type->steps[step].name : "");
}

static int journal(struct tm_op *op, enum tm_op_status status, size_t step, struct tm_error *err)
{
	tm_auto_free char *state = tm_op_state_format(op);

	show(op, status, step);
	if (!state)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	return tm_store_step_operation(op->core->store, &op->record.id, status, (uint32_t)step,
				       op->record.step_name, state, err);
}

/* Undo step @from and those before it, in reverse. */
static void undo(struct tm_op *op, size_t from)
{
	struct tm_log_fields fields = { .pool = op->pool.name, .operation = op->record.id.text };

	(void)journal(op, TM_OP_UNDOING, from, NULL);
	for (size_t i = from + 1; i-- > 0;) {
		const struct tm_step *step = &op->type->steps[i];
		struct tm_error err = { 0 };

		if (!step->undo)
			continue;
		if (step->undo(op, &err) < 0) {
			op->undo_failed = true;
			if (!op->undo_error.code)
				(void)tm_error_set(
					&op->undo_error, err.code ? err.code : TM_ERR_INTERNAL, EIO,
					"step %s could not be undone: %s", step->name, err.detail);
			fields.error = &err;
			tm_log_fields(LOG_ERR, &fields,
				      "Undoing step %s of %s on pool %s failed: %s", step->name,
				      op->record.kind, op->pool.name, err.detail);
		}
	}
}

static int run_step(struct tm_op *op, size_t i, struct tm_error *err)
{
	const struct tm_step *step = &op->type->steps[i];
	int r;

	if (step->record) {
		r = tm_fault_hit(op->core, op->record.kind, step->name, false, err);
		if (r < 0)
			return r;
		r = tm_store_begin(op->core->store, err);
		if (r < 0)
			return r;
		r = step->run(op, err);
		if (r >= 0)
			r = journal(op, TM_OP_RUNNING, i, err);
		if (r >= 0)
			r = tm_store_commit(op->core->store, err);
		else
			tm_store_rollback(op->core->store);
		if (r < 0)
			return r;
		op->committed = op->committed || step->commit;
		return tm_fault_hit(op->core, op->record.kind, step->name, true, err);
	}
	r = journal(op, TM_OP_RUNNING, i, err);
	if (r < 0)
		return r;
	r = tm_fault_hit(op->core, op->record.kind, step->name, false, err);
	if (r < 0)
		return r;
	r = step->run(op, err);
	if (r < 0)
		return r;
	op->committed = op->committed || step->commit;
	return tm_fault_hit(op->core, op->record.kind, step->name, true, err);
}

/* A step that failed but can wait is as good as done. */
static bool put_off(struct tm_op *op, size_t i)
{
	struct tm_log_fields fields = { .pool = op->pool.name,
					.operation = op->record.id.text,
					.error = &op->error };

	if (!op->type->steps[i].can_wait || !op->committed)
		return false;
	tm_log_fields(LOG_ERR, &fields, "Step %s of %s on pool %s failed, the rest is done: %s",
		      op->type->steps[i].name, op->record.kind, op->pool.name, op->error.detail);
	op->error = (struct tm_error){ 0 };
	return true;
}

static void finish(struct tm_op *op, enum tm_op_status status)
{
	struct tm_log_fields fields = { .pool = op->pool.name, .operation = op->record.id.text };
	struct tm_error err = { 0 };

	{
		TM_LOCK_SCOPE(&op->core->live_lock);
		op->record.status = status;
		op->record.error = op->error;
		op->record.finished_usec = tm_now_realtime_usec();
		op->record.pool = op->pool.id;
		(void)snprintf(op->record.pool_name, sizeof(op->record.pool_name), "%s",
			       op->pool.name);
		free(op->record.state);
		op->record.state = tm_op_state_format(op);
	}
	if (op->undo_failed || (op->pool_was_uncertain && status == TM_OP_DONE)) {
		char why[sizeof(((struct tm_pool *)0)->state_reason)] = "";

		if (op->undo_failed)
			(void)snprintf(why, sizeof(why), "%.*s", (int)sizeof(why) - 1,
				       op->error.detail);
		if (tm_store_set_uncertain(op->core->store, &op->pool.id, why, &err) < 0) {
			fields.error = &err;
			tm_log_fields(LOG_ERR, &fields,
				      "That pool %s is uncertain could not be recorded: %s",
				      op->pool.name, err.detail);
		}
	}
	if (tm_store_put_operation(op->core->store, &op->record, &err) < 0) {
		fields.error = &err;
		tm_log_fields(LOG_ERR, &fields, "The end of operation %s could not be recorded: %s",
			      op->record.id.text, err.detail);
	}
}

/* Of an operation that failed: what became of what it had done. */
static const char *undone(const struct tm_op *op)
{
	return !op->undo_failed      ? "what had been done was undone."
	       : op->undo_error.code ? op->undo_error.detail
				     : "what had been done could not be undone.";
}

static int cancelled(struct tm_op *op)
{
	const bool stuck = op->undo_failed && op->undo_error.code;

	op->error = (struct tm_error){ 0 };
	return tm_error_set(&op->error, stuck ? op->undo_error.code : TM_ERR_CANCELLED, ECANCELED,
			    "Operation %s was cancelled; %s", op->record.kind, undone(op));
}

/* Who is told that it failed learns as well that it could not be taken back, and why. */
static void tell_undo(struct tm_op *op)
{
	char first[sizeof(op->error.detail)];

	if (!op->undo_error.code)
		return;
	memcpy(first, op->error.detail, sizeof(first));
	(void)snprintf(op->error.detail, sizeof(op->error.detail), "%.*s Then %.*s",
		       (int)sizeof(first) / 2, first, (int)sizeof(first) / 2 - 8,
		       op->undo_error.detail);
	tm_utf8_clean(op->error.detail); /* it may have been cut within a character */
}

void tm_op_execute(struct tm_op *op)
{
	const size_t commit = commit_step(op->type);
	bool begun = false;
	size_t i = 0;
	int r = 0;

	if (op->error.code) { /* refused when its turn came */
		finish(op, TM_OP_FAILED);
		return;
	}
	if (op->recovering && op->record.status != TM_OP_QUEUED &&
	    op->record.step >= op->type->n_steps) {
		(void)tm_error_set(&op->error, TM_ERR_STORE, EINVAL,
				   "The daemon stopped in step %s, which operation %s does not "
				   "have in this version.",
				   op->record.step_name, op->record.kind);
		tm_error_hint(&op->error,
			      "Start the version that began it, or look at the pool by hand.");
		op->undo_failed = true; /* not known what was done */
		finish(op, TM_OP_FAILED);
		return;
	}
	if (op->recovering) {
		const bool forward = op->record.status == TM_OP_RUNNING &&
				     op->record.step >= commit;

		if (!forward) {
			if (op->record.status != TM_OP_QUEUED)
				undo(op, op->record.step);
			if (op->record.status == TM_OP_QUEUED)
				(void)tm_error_set(&op->error, TM_ERR_INTERRUPTED, EINTR,
						   "The daemon stopped before its turn came.");
			else
				(void)tm_error_set(&op->error, TM_ERR_INTERRUPTED, EINTR,
						   "The daemon stopped in step %s; %s",
						   op->record.step_name, undone(op));
			finish(op, TM_OP_FAILED);
			return;
		}
		i = op->record.step;
		op->committed = i > commit || op->type->steps[i].record;
		if (op->type->steps[i].record)
			i++; /* it was one transaction with the entry that was found */
	} else {
		TM_LOCK_SCOPE(&op->core->live_lock);
		op->record.started_usec = tm_now_realtime_usec();
	}
	for (; i < op->type->n_steps; i++) {
		begun = false;
		if (i <= commit && !op->recovering && atomic_load(&op->core->stopping))
			r = tm_error_set(&op->error, TM_ERR_SHUTTING_DOWN, ECANCELED,
					 "The daemon is stopping.");
		else if (i <= commit && !op->recovering && atomic_load(&op->progress.cancelled))
			r = cancelled(op);
		else
			begun = true;
		if (begun)
			r = run_step(op, i, &op->error);
		if (r < 0 && put_off(op, i))
			r = 0;
		if (r < 0)
			break;
	}
	if (r < 0) {
		/* A step that has not begun has nothing to be undone, and may not know so. */
		if (op->committed)
			op->undo_failed = true; /* cannot go back, could not go on */
		else if (begun || i > 0)
			undo(op, begun ? i : i - 1);
		/* A program that was ended has its own words for it. */
		if (op->error.code == TM_ERR_CANCELLED && !atomic_load(&op->core->stopping)) {
			(void)cancelled(op);
		} else {
			if (op->error.code == TM_ERR_CANCELLED) {
				op->error = (struct tm_error){ 0 };
				(void)tm_error_set(&op->error, TM_ERR_SHUTTING_DOWN, ECANCELED,
						   "The daemon is stopping.");
			}
			if (!op->error.code)
				(void)tm_error_set(&op->error, TM_ERR_INTERNAL, -r,
						   "Step %s failed: %s.", op->type->steps[i].name,
						   strerror(-r));
			tell_undo(op);
		}
	}
	finish(op, r < 0 ? TM_OP_FAILED : TM_OP_DONE);
}

char *tm_op_list_json(void)
{
	json_t *root = json_object();
	char *text;

	for (unsigned int k = 0; root && k < TM_CMD_COUNT; k++) {
		json_t *steps = json_array();

		for (size_t i = 0; i < types[k]->n_steps; i++)
			(void)json_array_append_new(
				steps,
				json_pack("{s:s, s:b, s:b, s:b}", "name", types[k]->steps[i].name,
					  "commit", (int)types[k]->steps[i].commit, "record",
					  (int)types[k]->steps[i].record, "can_wait",
					  (int)types[k]->steps[i].can_wait));
		(void)json_object_set_new(root, tm_command_name(k), steps);
	}
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	return text;
}
