/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From what the database and the kernel say to a running core: first let go what a crash left
 * suspended, then settle the operations it cut off, then bring up the pools that should be.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "core/metadata-swap.h"

/* Checking metadata is bound by the processor. */
#define RAISING_THREADS 4

/* A suspended volume is a frozen file system: nothing comes before resuming it. */
static void resume_suspended(struct tm_core *core)
{
	tm_auto_free struct tm_dm_entry *list = NULL;
	size_t n = 0;

	if (tm_dm_list(core->dm, &list, &n, NULL) < 0)
		return;
	/* Pools and what is below them first: a volume's resume needs them. */
	for (int volumes = 0; volumes < 2; volumes++) {
		for (size_t i = 0; i < n; i++) {
			struct tm_error err = { 0 };
			struct tm_dm_info info;
			enum tm_dm_role role;
			struct tm_uuid pool;

			if (tm_dm_info(core->dm, list[i].name, &info, NULL) < 0 ||
			    !info.suspended || !info.live_table ||
			    tm_dm_uuid_parse(info.uuid, &role, &pool, NULL) < 0 ||
			    (role == TM_ROLE_VOLUME) != (volumes == 1))
				continue;
			if (tm_dm_resume(core->dm, list[i].name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS,
					 volumes ? TM_DM_UDEV_FULL : TM_DM_UDEV_HIDDEN, &err) < 0)
				tm_log(LOG_ERR, "%s was left suspended and cannot be resumed: %s",
				       list[i].name, err.detail);
			else
				tm_log(LOG_NOTICE, "%s was left suspended and was resumed.",
				       list[i].name);
		}
	}
}

static int load_pools(struct tm_core *core, struct tm_error *err)
{
	tm_auto_free struct tm_pool_record *records = NULL;
	size_t n = 0;
	int r;

	r = tm_store_load_pools(core->store, &records, &n, err);
	for (size_t i = 0; r >= 0 && i < n; i++) {
		tm_auto_free struct tm_volume_record *volumes = NULL;
		struct tm_pool *pool = tm_pool_new(core, &records[i]);
		size_t n_volumes = 0;

		if (!pool)
			return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
		r = tm_store_get_uncertain(core->store, &records[i].id, pool->state_reason,
					   sizeof(pool->state_reason), err);
		if (pool->state_reason[0])
			pool->state = TM_POOL_UNCERTAIN;
		if (r >= 0)
			r = tm_store_load_volumes(core->store, &records[i].id, &volumes, &n_volumes,
						  err);
		if (r >= 0 && (tm_pool_set_volumes(pool, volumes, n_volumes) < 0 ||
			       tm_core_add_pool(core, pool) < 0))
			r = tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
		if (r < 0)
			tm_pool_free(pool);
	}
	return r;
}

static bool same_sizes(const struct tm_pool_record *a, const struct tm_pool_record *b)
{
	return a->data_bytes == b->data_bytes && a->data_reserve_bytes == b->data_reserve_bytes &&
	       a->metadata_bytes == b->metadata_bytes &&
	       a->metadata_reserve_bytes == b->metadata_reserve_bytes &&
	       a->low_water_bytes == b->low_water_bytes;
}

/* What bringing a pool up works on: copies, for a thread that owns no pool. */
struct raising {
	struct tm_core *core;
	struct tm_pool_record record;
	struct tm_volume_record *volumes; /* owned */
	size_t n_volumes;
	struct tm_error err;
	bool there;     /* its device was up already */
	bool direct_io; /* out, like what follows */
	struct tm_thin_pool_status status;
	bool status_valid;
	uint64_t backing_free_bytes;
	int r;
};

/* Bring the pool's device up as its record says, without journal: idempotent. */
static int raise_device(struct raising *x)
{
	struct tm_core *core = x->core;
	struct tm_error *err = &x->err;
	struct tm_dm_info info;
	int r;

	r = tm_parts_ours(core, &x->record, TM_ROLE_POOL, NULL, &info, err);
	if (r < 0)
		return r;
	x->there = r > 0 && info.live_table;
	if (!x->there) {
		r = tm_parts_check_metadata(core, NULL, &x->record, err);
		if (r >= 0)
			r = tm_parts_learn_sizes(&x->record, err);
		if (r >= 0)
			r = tm_parts_attach(core, &x->record, &x->direct_io, err);
	} else {
		tm_cleanup(tm_attachment_done) struct tm_attachment a = { .fd = -1 };

		if (tm_backing_attach(&x->record, TM_PART_DATA, &a, NULL) >= 0)
			x->direct_io = a.direct_io;
	}
	if (r >= 0)
		r = tm_parts_start_pool(core, &x->record, err);
	if (r >= 0)
		r = tm_parts_status(core, x->record.name, &x->status, NULL, err);
	x->status_valid = r >= 0;
	return r;
}

/* Of a pool that nothing is done to yet. What stays there only takes space. */
static void trim(const struct raising *x)
{
	struct tm_error err = { 0 };
	struct tm_log_fields fields = { .pool = x->record.name, .error = &err };

	if (tm_parts_trim(x->core, &x->record, &err) < 0)
		tm_log_fields(LOG_WARNING, &fields, "The data file of pool %s is not trimmed: %s",
			      x->record.name, err.detail);
}

/* And its volumes. */
static int raise_volumes(struct raising *x)
{
	int r;

	/* Operations are settled by now: what still differs is somebody else's doing. */
	if (x->status.transaction_id != x->record.transaction_id) {
		r = tm_error_set(&x->err, TM_ERR_WRONG_STATE, ESTALE,
				 "The metadata of pool %s is at transaction %" PRIu64
				 ", the record at %" PRIu64 ": they do not belong together.",
				 x->record.name, x->status.transaction_id,
				 x->record.transaction_id);
		tm_error_hint(
			&x->err,
			"Nothing was changed. Bring back the metadata or the record that fits.");
		return r;
	}
	for (size_t i = 0; i < x->n_volumes; i++) {
		const struct tm_volume_record *v = &x->volumes[i];
		struct tm_error local = { 0 };
		struct tm_log_fields fields = { .pool = x->record.name,
						.volume = v->name,
						.error = &local };

		/* One volume that does not come is no reason to keep the others down. */
		if (v->active && !atomic_load(&x->core->stopping) &&
		    tm_parts_activate_volume(x->core, &x->record, v, &local) < 0)
			tm_log_fields(LOG_ERR, &fields, "Volume %s/%s could not be activated: %s",
				      x->record.name, v->name, local.detail);
	}
	return 0;
}

static bool copy_pool(struct raising *x, const struct tm_pool *pool)
{
	x->core = pool->core;
	x->record = pool->record;
	x->volumes = calloc(pool->n_volumes ? pool->n_volumes : 1, sizeof(*x->volumes));
	if (!x->volumes)
		return false;
	for (size_t i = 0; i < pool->n_volumes; i++)
		x->volumes[i] = pool->volumes[i].record;
	x->n_volumes = pool->n_volumes;
	return true;
}

/* The sizes found, which may be larger than those recorded. */
static void take_raised(struct tm_pool *pool, const struct raising *x)
{
	const bool resized = !same_sizes(&pool->record, &x->record);

	pool->direct_io = x->direct_io;
	if (!x->status_valid || !resized)
		return;
	pool->record = x->record;
	tm_record_sizes(pool->core, pool, false);
}

static void mark_uncertain(struct tm_pool *pool, const char *why)
{
	pool->state = TM_POOL_UNCERTAIN;
	(void)snprintf(pool->state_reason, sizeof(pool->state_reason), "%.*s",
		       (int)sizeof(pool->state_reason) - 1, why);
	tm_pool_touch(pool);
}

/* Finish or undo one operation that a stop cut off. */
static void recover(struct tm_core *core, struct tm_operation_record *record)
{
	struct tm_event_spec spec = { .type = TM_EVENT_RECOVERED };
	struct tm_error err = { 0 };
	struct tm_op *op = calloc(1, sizeof(*op));
	struct tm_pool *pool;
	bool raised = false, begun;

	if (!op)
		return;
	op->core = core;
	op->recovering = true;
	op->type = tm_op_type_from_name(record->kind);
	op->record = *record;
	record->state = NULL; /* now the operation's */
	record->idempotency_key = NULL;
	if (!op->type || !op->record.state || tm_op_state_parse(op, op->record.state, &err) < 0) {
		op->type = op->type ? op->type : tm_op_type(TM_CMD_POOL_POLICY);
		tm_log(LOG_ERR, "Operation %s (%s) cannot be settled: its record cannot be read.",
		       op->record.id.text, op->record.kind);
		(void)tm_error_set(&op->error, TM_ERR_STORE, EINVAL, "Its record cannot be read.");
		/* In its history it stays that pool's. */
		op->pool.id = op->record.pool;
		(void)snprintf(op->pool.name, sizeof(op->pool.name), "%s", op->record.pool_name);
		pool = tm_core_find_pool(core, op->record.pool.text);
		begun = op->record.status != TM_OP_QUEUED;
		tm_op_execute(op); /* records the failure */
		if (pool && begun) /* not known what was done */
			mark_uncertain(pool,
				       "An operation was cut off, and its record cannot be read.");
		tm_op_free(op);
		return;
	}
	pool = op->pool.id.text[0] ? tm_core_find_pool(core, op->pool.id.text) : NULL;
	if (pool) {
		const struct tm_pool_record state = op->pool;

		op->pool = pool->record;
		/* What the operation itself had already made of the sizes counts. */
		if (op->type->kind == TM_CMD_POOL_EXTEND) {
			op->pool.data_bytes = state.data_bytes;
			op->pool.data_reserve_bytes = state.data_reserve_bytes;
			op->pool.metadata_bytes = state.metadata_bytes;
			op->pool.metadata_reserve_bytes = state.metadata_reserve_bytes;
		}
		free(op->volumes);
		op->volumes = calloc(pool->n_volumes ? pool->n_volumes : 1, sizeof(*op->volumes));
		op->n_volumes = op->volumes ? pool->n_volumes : 0;
		for (size_t i = 0; i < op->n_volumes; i++)
			op->volumes[i] = pool->volumes[i].record;
		/* One whose turn had not come has nothing to be settled. */
		if ((op->type->needs_pool_up || (op->type->wants_pool_up && op->pool_was_active)) &&
		    op->record.status != TM_OP_QUEUED) {
			struct raising x = { .core = core, .record = pool->record };
			int r = raise_device(&x);

			/* At once, not by the recorder: it would come after what the operation
			 * writes down. */
			if (x.status_valid && !same_sizes(&pool->record, &x.record)) {
				const struct tm_pool_sizes sizes = {
					.data_bytes = x.record.data_bytes,
					.data_reserve_bytes = x.record.data_reserve_bytes,
					.metadata_bytes = x.record.metadata_bytes,
					.metadata_reserve_bytes = x.record.metadata_reserve_bytes,
					.low_water_bytes = x.record.low_water_bytes,
				};

				pool->record = x.record;
				(void)tm_store_set_sizes(core->store, &pool->record.id, &sizes,
							 NULL);
			}
			if (r < 0 && op->type->needs_pool_up) {
				mark_uncertain(pool, x.err.detail);
				pool->unsettled = true;
				tm_log(LOG_ERR, "Operation %s on pool %s waits: %s",
				       op->record.kind, pool->record.name, x.err.detail);
				tm_op_free(op);
				return;
			}
			raised = r >= 0 && !x.there;
		}
	}
	tm_log(LOG_NOTICE, "Operation %s on pool %s was cut off in step %s; settling it.",
	       op->record.kind, op->record.pool_name, op->record.step_name);
	tm_op_execute(op);
	spec.operation = &op->record.id;
	spec.pool = pool;
	if (op->record.status == TM_OP_DONE && op->repair.report && !spec.data)
		spec.data = strdup(op->repair.report);
	tm_record_event(core, &spec, "Operation %s on pool %s was cut off by a stop and %s.",
			op->record.kind,
			op->record.pool_name[0] ? op->record.pool_name : op->pool.directory,
			op->undo_failed                   ? "could not be settled"
			: op->record.status == TM_OP_DONE ? "is finished now"
							  : "was undone");
	if (op->undo_failed && pool)
		mark_uncertain(pool, op->error.code ? op->error.detail
						    : "An operation could not be undone.");
	if (raised && pool && !(pool->record.active && pool->record.policy.activate_at_start))
		(void)tm_parts_remove_pool(core, &pool->record, NULL);
	tm_op_free(op);
}

static int settle_operations(struct tm_core *core, struct tm_error *err)
{
	struct tm_operation_record *ops = NULL;
	size_t n = 0;
	int r;

	r = tm_store_load_unfinished(core->store, &ops, &n, err);
	for (size_t i = 0; r >= 0 && i < n; i++) {
		recover(core, &ops[i]);
		tm_operation_record_done(&ops[i]);
	}
	free(ops);
	return r;
}

static void drop_pools(struct tm_core *core)
{
	while (core->n_pools)
		tm_core_remove_pool(core, core->pools[core->n_pools - 1]);
}

/* A pool as it is now, followed from here on. */
static void follow(struct tm_pool *pool, const struct raising *x)
{
	const bool uncertain = pool->state == TM_POOL_UNCERTAIN;
	char reason[sizeof(pool->state_reason)];
	bool up;

	memcpy(reason, pool->state_reason, sizeof(reason));
	tm_pool_observe(pool);
	up = pool->state == TM_POOL_ACTIVE;
	if (!up || uncertain)
		memcpy(pool->state_reason, reason, sizeof(reason));
	if (uncertain)
		pool->state = TM_POOL_UNCERTAIN;
	if (!up)
		return;
	if (x && x->status_valid)
		tm_pool_saw(pool, &x->status, x->backing_free_bytes);
	pool->sample_due = true;
	tm_pool_look(pool, 0);
	tm_core_sample_soon(pool->core);
}

static void free_raising(struct raising *x)
{
	free(x->volumes);
	free(x);
}

void tm_core_now_ready(struct tm_core *core)
{
	if (core->system.ready)
		return;
	core->system.ready = true;
	tm_core_publish(core);
	if (core->on_ready)
		core->on_ready(core->on_ready_userdata);
	tm_core_give_back(core);
	tm_upkeep_soon(core);
}

static void raised(void *arg)
{
	struct raising *x = arg;
	struct tm_core *core = x->core;
	struct tm_pool *pool = tm_core_find_pool(core, x->record.id.text);
	struct tm_log_fields fields = { .pool = x->record.name, .error = &x->err };

	core->n_raising--;
	if (pool) {
		pool->raising = false;
		pool->state_reason[0] = '\0';
		if (!x->there)
			take_raised(pool, x);
		else
			pool->direct_io = x->direct_io;
		if (x->r < 0) {
			tm_log_fields(LOG_ERR, &fields, "Pool %s could not be activated: %s %s",
				      x->record.name, x->err.detail, x->err.hint);
			if (x->there)
				mark_uncertain(pool, x->err.detail);
			(void)snprintf(pool->state_reason, sizeof(pool->state_reason), "%.*s",
				       (int)sizeof(pool->state_reason) - 1, x->err.detail);
			pool->damaged = x->err.code == TM_ERR_DAMAGED;
		}
		follow(pool, x->there ? NULL : x);
		tm_record_descriptor(core, pool); /* what could not be written the last time */
		tm_pool_touch(pool);
		tm_pool_run_queue(pool);
		tm_pool_mend(pool);
	}
	if (core->n_raising == 0) {
		/* Idle: nobody is waited for. */
		core->raisers = tm_crew_free(core->raisers);
		tm_core_now_ready(core);
	}
	free_raising(x);
}

static void raise_job(void *arg)
{
	struct raising *x = arg;

	if (!x->there && !atomic_load(&x->core->stopping)) {
		x->r = raise_device(x);
		x->there = false;
		if (x->r >= 0)
			trim(x);
	}
	if (x->r >= 0 && !atomic_load(&x->core->stopping))
		x->r = raise_volumes(x);
	/* Leave nothing half up that was not there before. */
	if (x->r < 0 && !x->there)
		(void)tm_parts_remove_pool(x->core, &x->record, NULL);
	x->status_valid = x->r >= 0 &&
			  tm_parts_saw(x->core, &x->record, &x->status, &x->backing_free_bytes);
	tm_mailbox_post(x->core->mailbox, raised, x);
}

/*
 * Pools that are up are followed before anything else; those that have to be checked and brought
 * up come in the background, side by side, and so do volumes, which wait for udev.
 */
static int raise_pools(struct tm_core *core, struct tm_error *err)
{
	int r;

	for (size_t i = 0; i < core->n_pools; i++) {
		struct tm_pool *pool = core->pools[i];
		struct tm_dm_info info;
		struct raising *x;
		bool there;

		there = tm_parts_ours(core, &pool->record, TM_ROLE_POOL, NULL, &info, NULL) > 0 &&
			info.live_table;
		/* What could not be resumed at once is tried again. */
		pool->left_suspended = there && info.suspended;
		if (pool->state == TM_POOL_UNCERTAIN || !pool->record.active ||
		    (!there && !pool->record.policy.activate_at_start)) {
			follow(pool, NULL);
			tm_record_descriptor(core, pool);
			continue;
		}
		x = calloc(1, sizeof(*x));
		if (!x || !copy_pool(x, pool)) {
			free(x);
			return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
		}
		x->there = there;
		if (there) {
			x->r = raise_device(x);
			if (x->r >= 0)
				trim(x); /* before it is followed, and so may be armed */
			take_raised(pool, x);
			x->backing_free_bytes = 0;
			follow(pool, x);
		} else {
			(void)snprintf(pool->state_reason, sizeof(pool->state_reason),
				       "It is being brought up.");
		}
		if (!core->raisers) {
			r = tm_crew_new(RAISING_THREADS, "raising", &core->raisers);
			if (r < 0) {
				free_raising(x);
				return tm_error_set(err, TM_ERR_INTERNAL, -r,
						    "Cannot start threads: %s.", strerror(-r));
			}
		}
		pool->raising = true;
		core->n_raising++;
		tm_crew_run(core->raisers, raise_job, x);
	}
	if (core->n_raising == 0)
		tm_core_now_ready(core);
	return 0;
}

static void rotate_job(void *arg)
{
	tm_auto_free struct tm_pool_record *record = arg;
	struct tm_error err = { 0 };
	const struct tm_log_fields fields = { .pool = record->name, .error = &err };

	/* What is not mounted is told where it matters. */
	if (tm_metadata_rotate(record, NULL, &err) < 0 && err.code != TM_ERR_BACKING_GONE)
		tm_log_fields(LOG_WARNING, &fields,
			      "Old copies of the metadata of pool %s could not be removed: %s",
			      record->name, err.detail);
}

/* Days may have passed: old copies go in the background, while nothing else is about them. */
static void rotate_copies(struct tm_core *core)
{
	for (size_t i = 0; i < core->n_pools; i++) {
		struct tm_pool_record *record;

		if (core->pools[i]->state == TM_POOL_UNCERTAIN)
			continue;
		record = malloc(sizeof(*record));
		if (!record)
			return; /* the next start does it */
		*record = core->pools[i]->record;
		tm_crew_run(core->workers, rotate_job, record);
	}
}

int tm_core_restore(struct tm_core *core, struct tm_error *err)
{
	int r;

	resume_suspended(core);
	r = load_pools(core, err);
	if (r >= 0)
		r = settle_operations(core, err);
	if (r < 0)
		return r;
	/* Settling changed rows: read them again, but keep what was found uncertain. */
	{
		tm_auto_free struct doubt {
			struct tm_uuid pool;
			char reason[sizeof(((struct tm_pool *)0)->state_reason)];
			bool unsettled;
		} *doubts = calloc(core->n_pools ? core->n_pools : 1, sizeof(*doubts));
		size_t n = 0;

		if (!doubts)
			return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
		for (size_t i = 0; i < core->n_pools; i++) {
			const struct tm_pool *pool = core->pools[i];

			if (pool->state != TM_POOL_UNCERTAIN)
				continue;
			doubts[n].pool = pool->record.id;
			doubts[n].unsettled = pool->unsettled;
			memcpy(doubts[n++].reason, pool->state_reason, sizeof(doubts->reason));
		}
		drop_pools(core);
		r = load_pools(core, err);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++) {
			struct tm_pool *pool = tm_core_find_pool(core, doubts[i].pool.text);

			if (!pool)
				continue;
			mark_uncertain(pool, doubts[i].reason);
			pool->unsettled = doubts[i].unsettled;
		}
	}
	rotate_copies(core);
	return raise_pools(core, err);
}
