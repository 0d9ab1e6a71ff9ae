/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Taking over what an ended operation changed, on the main loop. */

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

void tm_pool_observe(struct tm_pool *pool)
{
	struct tm_core *core = pool->core;
	struct tm_dm_info info;

	if (tm_parts_ours(core, &pool->record, TM_ROLE_POOL, NULL, &info, NULL) > 0 &&
	    info.live_table) {
		if (pool->state != TM_POOL_ACTIVE)
			tm_pool_up(pool);
		for (size_t i = 0; i < pool->n_volumes; i++) {
			struct tm_volume *v = &pool->volumes[i];

			v->active = tm_parts_ours(core, &pool->record, TM_ROLE_VOLUME, &v->record,
						  &info, NULL) > 0 &&
				    info.live_table;
			if (!v->active)
				v->mapped_valid = false;
		}
	} else {
		tm_pool_down(pool);
		pool->state = TM_POOL_INACTIVE;
	}
	tm_pool_touch(pool);
}

/* What an operation may change in a pool's record; sizes belong to the extension path. */
static void take_record(struct tm_pool *pool, const struct tm_op *op)
{
	struct tm_pool_record r = op->pool;

	if (!op->type->stops_extension) {
		r.data_bytes = pool->record.data_bytes;
		r.data_reserve_bytes = pool->record.data_reserve_bytes;
		r.metadata_bytes = pool->record.metadata_bytes;
		r.metadata_reserve_bytes = pool->record.metadata_reserve_bytes;
		r.low_water_bytes = pool->record.low_water_bytes;
	}
	pool->record = r;
	/* The next status will say so; until then this is what is known. */
	if (pool->status_valid)
		pool->status.transaction_id = r.transaction_id;
}

static void told(struct tm_op *op, struct tm_pool *pool, enum tm_event_type type,
		 const char *volume, json_t *data, const char *text)
{
	struct tm_event_spec spec = { .type = type,
				      .pool = pool,
				      .volume = volume,
				      .operation = &op->record.id,
				      .data = data ? json_dumps(data, JSON_COMPACT) : NULL };

	json_decref(data);
	if (volume)
		tm_record_event(op->core, &spec, "Volume %s/%s %s.", pool->record.name, volume,
				text);
	else
		tm_record_event(op->core, &spec, "Pool %s %s.", pool->record.name, text);
}

static int add_volumes(struct tm_pool *pool, const struct tm_volume_record *items, size_t n)
{
	size_t total = pool->n_volumes + n;
	tm_auto_free struct tm_volume_record *all = calloc(total ? total : 1, sizeof(*all));

	if (!all)
		return -1;
	for (size_t i = 0; i < pool->n_volumes; i++)
		all[i] = pool->volumes[i].record;
	memcpy(&all[pool->n_volumes], items, n * sizeof(*items));
	return tm_pool_set_volumes(pool, all, total);
}

static void remove_volume(struct tm_pool *pool, const struct tm_uuid *id)
{
	for (size_t i = 0; i < pool->n_volumes; i++) {
		if (!tm_uuid_equal(&pool->volumes[i].record.id, id))
			continue;
		memmove(&pool->volumes[i], &pool->volumes[i + 1],
			(pool->n_volumes - i - 1) * sizeof(pool->volumes[0]));
		pool->n_volumes--;
		return;
	}
}

static void apply_more(struct tm_op *op, struct tm_pool *pool, struct tm_space *space,
		       const char *name, uint64_t from, uint64_t to)
{
	char text[64];

	if (to <= from)
		return;
	(void)snprintf(text, sizeof(text), "got more %s space as requested", name);
	space->extensions++;
	told(op, pool, TM_EVENT_EXTENDED, NULL,
	     json_pack("{s:s, s:I, s:I, s:I, s:s}", "space", name, "from", (json_int_t)from, "to",
		       (json_int_t)to, "reaction_usec", (json_int_t)0, "reason", "requested"),
	     text);
}

static void apply_extend(struct tm_op *op, struct tm_pool *pool,
			 const struct tm_pool_record *before)
{
	apply_more(op, pool, &pool->data, "data", before->data_bytes, op->pool.data_bytes);
	apply_more(op, pool, &pool->metadata, "metadata", before->metadata_bytes,
		   op->pool.metadata_bytes);
}

/* What became of mounts and swap that were taken off, among an event's figures. */
static void tell_released(const struct tm_op *op, json_t **data)
{
	if (!op->repair.back || !op->repair.off)
		return;
	if (!*data)
		*data = json_object();
	(void)json_object_set(*data, "given_back", op->repair.back);
	(void)json_object_set(*data, "left_off", op->repair.off);
}

static void apply_swap(struct tm_op *op, struct tm_pool *pool)
{
	json_t *report = op->repair.report ? json_loads(op->repair.report, 0, NULL) : NULL;
	char text[160];

	for (size_t i = 0; i < op->n_volumes; i++) {
		struct tm_volume *v = tm_pool_find_volume(pool, op->volumes[i].id.text);

		if (!v)
			continue;
		tm_volume_take(v, &op->volumes[i]);
		if (op->repair.suspect && op->repair.suspect[i] && !v->record.suspect)
			tm_volume_suspect(pool, v,
					  op->type->kind == TM_CMD_POOL_REPAIR
						  ? TM_SUSPECT_REPAIRED
						  : TM_SUSPECT_RESTORED,
					  tm_now_realtime_usec());
	}
	if (op->type->kind != TM_CMD_POOL_REPAIR) {
		told(op, pool, TM_EVENT_METADATA_RESTORED, NULL, report,
		     op->repair.lossless
			     ? "went back to metadata that was kept; nothing is missing"
			     : "went back to metadata that was kept, which lacks some of what was "
			       "mapped");
		return;
	}
	tell_released(op, &report);
	(void)snprintf(text, sizeof(text), "was repaired%s%s",
		       op->repair.lossless ? "; nothing was lost"
					   : ", but not everything could be saved",
		       json_array_size(op->repair.off)
			       ? "; of what was taken off its volumes, not all is back"
			       : "");
	told(op, pool, TM_EVENT_REPAIRED, NULL, report, text);
}

static void apply_cleared(struct tm_op *op, struct tm_pool *pool)
{
	const bool check = op->type->kind == TM_CMD_VOLUME_CHECK;
	struct tm_volume *v = tm_pool_find_volume(pool, op->items[0].id.text);

	if (!v)
		return;
	v->record.suspect_usec = op->cleared_usec;
	if (v->record.suspect == TM_SUSPECT_NOT)
		return;
	told(op, pool, TM_EVENT_SUSPECT_CLEARED, v->record.name,
	     json_pack("{s:s, s:s}", "reason", tm_suspicion_name(v->record.suspect), "by",
		       check ? "check" : "administrator"),
	     check ? "is no longer suspect: the check of its file system found nothing wrong"
		   : "is no longer suspect: an administrator cleared it");
	v->record.suspect = TM_SUSPECT_NOT;
	pool->generation++;
}

static struct tm_pool *apply_success(struct tm_op *op, struct tm_pool *pool)
{
	struct tm_core *core = op->core;
	const char *volume = op->n_items ? op->items[0].name : NULL;
	struct tm_pool_record before;

	if (op->type->kind == TM_CMD_POOL_IMPORT) {
		pool = tm_pool_new(core, &op->pool);
		if (!pool || tm_pool_set_volumes(pool, op->volumes, op->n_volumes) < 0 ||
		    tm_core_add_pool(core, pool) < 0) {
			tm_log(LOG_CRIT, "Out of memory; stopping so that a restart reads the pool "
					 "from the database.");
			abort();
		}
	}
	if (!pool)
		return NULL;
	before = pool->record;
	if (op->type->kind != TM_CMD_POOL_DELETE)
		take_record(pool, op);
	if (op->type->kind != TM_CMD_POOL_CHECK && op->type->kind != TM_CMD_VOLUME_CHECK &&
	    op->type->kind != TM_CMD_VOLUME_CLEAR) /* which only look, unless they clear */
		pool->generation++;
	switch (op->type->kind) {
	case TM_CMD_POOL_CREATE:
		pool->direct_io = op->direct_io;
		told(op, pool, TM_EVENT_POOL_CREATED, NULL, NULL, "was created");
		break;
	case TM_CMD_POOL_IMPORT:
		pool->direct_io = op->direct_io;
		told(op, pool, TM_EVENT_POOL_IMPORTED, NULL, NULL, "was imported");
		break;
	case TM_CMD_POOL_DELETE: {
		struct tm_queued_op *late = TM_TAKE(pool->queue);

		told(op, pool, TM_EVENT_POOL_DELETED, NULL, NULL, "was deleted");
		tm_released_forget(&op->pool.id);
		tm_core_remove_pool(core, pool);
		while (late) { /* without their pool they fail by themselves */
			struct tm_queued_op *q = late;

			late = q->next;
			tm_core_enqueue(core, TM_TAKE(q->op));
			free(q);
		}
		return NULL;
	}
	case TM_CMD_POOL_ACTIVATE:
		pool->direct_io = op->direct_io;
		told(op, pool, TM_EVENT_POOL_ACTIVATED, NULL, NULL, "was activated");
		break;
	case TM_CMD_POOL_DEACTIVATE:
		told(op, pool, TM_EVENT_POOL_DEACTIVATED, NULL, NULL, "was deactivated");
		break;
	case TM_CMD_POOL_EXTEND:
		apply_extend(op, pool, &before);
		break;
	case TM_CMD_POOL_POLICY:
		told(op, pool, TM_EVENT_POLICY_CHANGED, NULL, NULL, "has a new policy");
		break;
	case TM_CMD_POOL_REPAIR:
	case TM_CMD_POOL_RESTORE:
		pool->direct_io = op->direct_io;
		apply_swap(op, pool);
		break;
	case TM_CMD_POOL_CHECK:
		told(op, pool, TM_EVENT_CHECKED, NULL,
		     op->repair.report ? json_loads(op->repair.report, 0, NULL) : NULL,
		     op->check.keep ? "has sound metadata, of which a safety copy is kept"
				    : "has sound metadata");
		break;
	case TM_CMD_VOLUME_CREATE:
		(void)add_volumes(pool, op->items, op->n_items);
		told(op, pool, TM_EVENT_VOLUME_CREATED, volume,
		     json_pack("{s:I}", "size", (json_int_t)op->items[0].size_bytes),
		     "was created");
		break;
	case TM_CMD_VOLUME_DELETE:
		remove_volume(pool, &op->items[0].id);
		told(op, pool, TM_EVENT_VOLUME_DELETED, volume, NULL, "was deleted");
		break;
	case TM_CMD_VOLUME_RESIZE:
	case TM_CMD_VOLUME_RENAME:
	case TM_CMD_VOLUME_ACTIVATE:
	case TM_CMD_VOLUME_DEACTIVATE: {
		struct tm_volume *v = tm_pool_find_volume(pool, op->items[0].id.text);

		if (v)
			tm_volume_take(v, &op->items[0]);
		if (op->type->kind == TM_CMD_VOLUME_RESIZE)
			told(op, pool, TM_EVENT_VOLUME_RESIZED, volume,
			     json_pack("{s:I, s:I}", "from", (json_int_t)op->before[0].size_bytes,
				       "to", (json_int_t)op->items[0].size_bytes),
			     "was resized");
		else if (op->type->kind == TM_CMD_VOLUME_RENAME)
			told(op, pool, TM_EVENT_VOLUME_RENAMED, volume,
			     json_pack("{s:s}", "from", op->before[0].name), "has a new name");
		else if (op->type->kind == TM_CMD_VOLUME_ACTIVATE)
			told(op, pool, TM_EVENT_VOLUME_ACTIVATED, volume, NULL, "was activated");
		else
			told(op, pool, TM_EVENT_VOLUME_DEACTIVATED, volume, NULL,
			     "was deactivated");
		break;
	}
	case TM_CMD_VOLUME_CHECK:
	case TM_CMD_VOLUME_CLEAR:
		apply_cleared(op, pool);
		break;
	case TM_CMD_SNAPSHOT_CREATE:
		(void)add_volumes(pool, op->items, op->n_items);
		for (size_t i = 0; i < op->n_items; i++) {
			struct tm_volume *origin = tm_pool_find_volume(pool,
								       op->items[i].origin.text);

			told(op, pool, TM_EVENT_SNAPSHOT_CREATED, op->items[i].name,
			     json_pack("{s:s}", "origin", origin ? origin->record.name : ""),
			     "was made as a snapshot");
		}
		break;
	case TM_CMD_COUNT:
		break;
	}
	return pool;
}

static void tell_failure(struct tm_op *op, struct tm_pool *pool)
{
	const bool stuck = op->undo_failed;
	json_t *data = json_pack("{s:s, s:s, s:s, s:s}", "kind", op->record.kind, "step",
				 op->record.step_name, "error", tm_error_slug(op->error.code),
				 "detail", op->error.detail);
	const bool repair = op->type->kind == TM_CMD_POOL_REPAIR;
	/* That a check could not be made says nothing of what it would have found. */
	const bool found = op->type->kind == TM_CMD_POOL_CHECK && op->error.code == TM_ERR_DAMAGED;
	struct tm_event_spec spec = { .type = stuck    ? TM_EVENT_UNDO_FAILED
					      : repair ? TM_EVENT_REPAIR_FAILED
					      : found  ? TM_EVENT_CHECK_FAILED
						       : TM_EVENT_OPERATION_FAILED,
				      .pool = pool,
				      .operation = &op->record.id };

	if (tm_upkeep_told(op, pool) && !stuck) {
		json_decref(data);
		return;
	}
	if (data && op->error.hint[0])
		(void)json_object_set_new(data, "hint", json_string(op->error.hint));
	tell_released(op, &data);
	spec.data = data ? json_dumps(data, JSON_COMPACT) : NULL;
	json_decref(data);
	tm_record_event(op->core, &spec, "Operation %s on pool %s failed%s: %s", op->record.kind,
			op->record.pool_name[0] ? op->record.pool_name : op->pool.directory,
			stuck ? " and could not be undone" : "", op->error.detail);
}

/* Whether what it came to calls for a repair, or for no other. */
static void note_damage(const struct tm_op *op, struct tm_pool *pool)
{
	const bool done = op->record.status == TM_OP_DONE;

	if (op->type->kind == TM_CMD_POOL_REPAIR) {
		/* Who was in the way may go. */
		pool->mend.tried = !done && op->error.code != TM_ERR_BUSY;
		if (!done && op->repair.force && !pool->mend.tried)
			tm_pool_mend_later(pool);
		pool->damaged = pool->damaged && !done;
	} else if (done && (op->type->kind == TM_CMD_POOL_ACTIVATE ||
			    op->type->kind == TM_CMD_POOL_DEACTIVATE ||
			    op->type->kind == TM_CMD_POOL_RESTORE)) {
		pool->mend.tried = pool->damaged = false;
	}
}

void tm_op_apply_dropped(struct tm_op *op, struct tm_pool *pool)
{
	tm_upkeep_ended(op, pool);
	tell_failure(op, pool);
	if (!pool)
		return;
	/* Who cancels a repair does not want the next one. */
	pool->mend.tried = pool->mend.tried || op->type->kind == TM_CMD_POOL_REPAIR;
	if (op->type->kind == TM_CMD_VOLUME_CHECK)
		tm_pool_check_next(pool);
	tm_pool_mend(pool); /* perhaps it was in the way */
}

struct tm_pool *tm_op_apply(struct tm_op *op, struct tm_pool *pool)
{
	const enum tm_command_kind kind = op->type->kind;
	char why[sizeof(pool->state_reason)] = "";
	bool uncertain;

	tm_upkeep_ended(op, pool);
	if (op->record.status == TM_OP_DONE) {
		pool = apply_success(op, pool);
	} else {
		tell_failure(op, pool);
		if (kind == TM_CMD_POOL_CREATE && pool && !op->undo_failed) {
			tm_core_remove_pool(op->core, pool);
			pool = NULL;
		}
	}
	if (!pool)
		return NULL;
	if (op->type->stops_extension)
		pool->spare_bytes = 0; /* it may have been used up: it is looked for again */
	tm_pool_suspect(pool, op->loss.why, op->loss.usec, 0);
	/* What was refused or undone has not made anything certain. */
	uncertain = op->undo_failed ||
		    ((pool->state == TM_POOL_UNCERTAIN || op->pool_was_uncertain) &&
		     op->record.status != TM_OP_DONE);
	memcpy(why, pool->state_reason, sizeof(why));
	if (op->undo_failed)
		(void)snprintf(why, sizeof(why), "%.*s", (int)sizeof(why) - 1, op->error.detail);
	pool->state = TM_POOL_INACTIVE; /* observed anew */
	pool->state_reason[0] = '\0';
	tm_pool_observe(pool);
	if (uncertain) {
		pool->state = TM_POOL_UNCERTAIN;
		memcpy(pool->state_reason, why, sizeof(why));
		tm_pool_touch(pool);
	}
	pool->left_suspended = pool->left_suspended || op->left_suspended;
	note_damage(op, pool);
	if (pool->state == TM_POOL_ACTIVE) {
		if (op->status_valid)
			tm_pool_saw(pool, &op->status, op->backing_free_bytes);
		pool->sample_due = true;
		tm_pool_look(pool, 0);
		tm_core_sample_soon(op->core);
	} else if (pool->left_suspended) {
		tm_pool_look(pool, 0); /* uncertain, too, it must not stand still */
	}
	if (op->repair.back)
		pool->owes = false; /* it has done what it could */
	tm_pool_give_back(pool);
	if (op->record.status == TM_OP_DONE && pool->record.policy.check_volumes &&
	    (kind == TM_CMD_POOL_REPAIR || kind == TM_CMD_POOL_RESTORE))
		tm_pool_check_suspects(pool);
	else if (kind == TM_CMD_VOLUME_CHECK)
		tm_pool_check_next(pool);
	tm_pool_mend(pool);
	return pool;
}
