/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands in, operations queued per pool, waiters told. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "logic/policy.h"

/* A command on its way from an interface to a durable operation. */
struct submission {
	struct tm_core *core;
	struct tm_command *cmd;
	bool dry_run;
	tm_submit_done done;
	void *userdata;
	struct tm_op *op;
	struct tm_error err;
};

int tm_core_enlist(struct tm_core *core, struct tm_op *op, struct tm_error *err)
{
	TM_LOCK_SCOPE(&core->live_lock);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++) {
		if (core->live[i])
			continue;
		core->live[i] = op;
		core->n_unfinished++;
		return 0;
	}
	return tm_error_set(err, TM_ERR_TOO_MANY, EAGAIN,
			    "%zu operations are waiting already; try again when some have ended.",
			    TM_ARRAY_SIZE(core->live));
}

void tm_core_delist(struct tm_core *core, struct tm_op *op)
{
	TM_LOCK_SCOPE(&core->live_lock);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++) {
		if (core->live[i] != op)
			continue;
		core->live[i] = NULL;
		core->n_unfinished--;
	}
}

int tm_core_operation(struct tm_core *core, const struct tm_uuid *id,
		      struct tm_operation_record *ret)
{
	TM_LOCK_SCOPE(&core->live_lock);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++) {
		if (!core->live[i] || !tm_uuid_equal(&core->live[i]->record.id, id))
			continue;
		*ret = core->live[i]->record;
		ret->state = NULL;
		ret->idempotency_key = NULL;
		ret->live = true;
		ret->cancellable = tm_op_cancellable(core->live[i]->type, ret) &&
				   !atomic_load(&core->live[i]->progress.cancelled);
		ret->percent = ret->status == TM_OP_RUNNING
				       ? atomic_load(&core->live[i]->progress.percent)
				       : -1;
		/* Nobody is told of the end before what it changed can be seen. */
		if (ret->status == TM_OP_DONE || ret->status == TM_OP_FAILED) {
			ret->status = TM_OP_RUNNING;
			ret->error = (struct tm_error){ 0 };
			ret->finished_usec = 0;
		}
		return 0;
	}
	return -ENOENT;
}

/* ---- waiting ---- */

struct wait_request {
	struct tm_core *core;
	struct tm_uuid operation;
	uint64_t timeout_usec;
	tm_wait_done done;
	void *userdata;
};

static void end_waiter(struct tm_waiter *w, bool ended)
{
	for (struct tm_waiter **at = &w->core->waiters; *at; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			break;
		}
	}
	sd_event_source_disable_unref(w->timer);
	w->done(w->userdata, ended);
	free(w);
}

static int waiter_timed_out(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	end_waiter(userdata, false);
	return 0;
}

/* False when it was answered at once, for want of memory. */
static bool add_waiter(const struct wait_request *req)
{
	struct tm_waiter *w = calloc(1, sizeof(*w));

	if (!w) {
		req->done(req->userdata, false);
		return false;
	}
	w->core = req->core;
	w->operation = req->operation;
	w->done = req->done;
	w->userdata = req->userdata;
	if (sd_event_add_time_relative(req->core->event, &w->timer, CLOCK_MONOTONIC,
				       req->timeout_usec, 100 * TM_USEC_PER_MSEC, waiter_timed_out,
				       w) < 0) {
		w->done(w->userdata, false);
		free(w);
		return false;
	}
	w->next = req->core->waiters;
	req->core->waiters = w;
	return true;
}

static void wait_on_main(void *arg)
{
	tm_auto_free struct wait_request *req = arg;
	struct tm_operation_record record;

	if (tm_core_operation(req->core, &req->operation, &record) < 0)
		req->done(req->userdata, true);
	else
		(void)add_waiter(req);
}

static void post_wait(struct tm_core *core, tm_job_fn fn, struct wait_request wait)
{
	struct wait_request *req = calloc(1, sizeof(*req));

	if (!req) {
		tm_log(LOG_CRIT, "Out of memory; stopping.");
		abort();
	}
	*req = wait;
	tm_mailbox_post(core->mailbox, fn, req);
}

void tm_core_wait(struct tm_core *core, const struct tm_uuid *operation, uint64_t timeout_usec,
		  tm_wait_done done, void *userdata)
{
	post_wait(core, wait_on_main,
		  (struct wait_request){ core, *operation, timeout_usec, done, userdata });
}

static void tell_waiters(struct tm_core *core, const struct tm_uuid *id)
{
	struct tm_waiter *w = core->waiters, *next;

	for (; w; w = next) {
		next = w->next;
		if (tm_uuid_equal(&w->operation, id))
			end_waiter(w, true);
	}
}

static void wait_recorded_on_main(void *arg)
{
	tm_auto_free struct wait_request *req = arg;

	if (!tm_core_recording(req->core)) {
		req->done(req->userdata, true);
		return;
	}
	tm_uuid_generate(&req->operation); /* a name for this wait */
	if (add_waiter(req))
		tm_record_mark(req->core, &req->operation, tell_waiters);
}

void tm_core_wait_recorded(struct tm_core *core, uint64_t timeout_usec, tm_wait_done done,
			   void *userdata)
{
	post_wait(core, wait_recorded_on_main,
		  (struct wait_request){ .core = core,
					 .timeout_usec = timeout_usec,
					 .done = done,
					 .userdata = userdata });
}

/* ---- running ---- */

static void op_ended(void *arg)
{
	struct tm_op *op = arg;
	struct tm_core *core = op->core;
	struct tm_uuid id = op->record.id;
	struct tm_pool *pool = op->pool.id.text[0] ? tm_core_find_pool(core, op->pool.id.text)
						   : NULL;

	if (core->global_running == op)
		core->global_running = NULL;
	if (pool && pool->running == op)
		pool->running = NULL;
	/* Another may be running: the pool is not looked at then. */
	if (op->dropped)
		tm_op_apply_dropped(op, pool);
	else
		pool = tm_op_apply(op, pool);
	/* Who waited for it must see what it did. */
	tm_core_publish(core);
	tm_core_delist(core, op);
	tm_op_free(op);
	tell_waiters(core, &id);
	if (pool)
		tm_pool_run_queue(pool);
	tm_core_run_global_queue(core);
}

static void op_job(void *arg)
{
	struct tm_op *op = arg;

	tm_op_execute(op);
	/* Who waited for it is to see how the pool is now, not how it was before. */
	if (op->type->stops_extension && !op->dropped)
		op->status_valid = tm_parts_saw(op->core, &op->pool, &op->status,
						&op->backing_free_bytes);
	tm_mailbox_post(op->core->mailbox, op_ended, op);
}

/* Take the head of a queue, prepared for running; a refusal is recorded as its failure. */
static struct tm_op *take(struct tm_queued_op **queue, struct tm_pool *pool)
{
	struct tm_queued_op *q = *queue;
	struct tm_op *op = q->op;
	struct tm_error err = { 0 };

	*queue = q->next;
	free(q);
	if (tm_op_prepare(op, pool, &err) < 0)
		op->error = err;
	return op;
}

void tm_pool_run_queue(struct tm_pool *pool)
{
	struct tm_core *core = pool->core;
	struct tm_op *op;

	if (pool->running || pool->raising || !pool->queue)
		return;
	if (pool->queue->op->type->stops_extension &&
	    (pool->looking || (pool->arming && !tm_pool_call_off_arm(pool))))
		return; /* its end comes back here */
	op = take(&pool->queue, pool);
	pool->running = op;
	pool->look_crossed = true;
	if (!op->error.code && op->type->kind == TM_CMD_POOL_REPAIR) {
		const struct tm_event_spec spec = { .type = TM_EVENT_REPAIR_STARTED,
						    .pool = pool,
						    .operation = &op->record.id };

		tm_record_event(core, &spec, "A repair of pool %s began.", pool->record.name);
	}
	if (!op->error.code && op->type->kind == TM_CMD_POOL_DELETE) {
		pool->state = TM_POOL_DELETING;
		tm_pool_touch(pool);
	}
	tm_crew_run(core->workers, op_job, op);
}

void tm_core_run_global_queue(struct tm_core *core)
{
	if (core->global_running || !core->global_queue)
		return;
	core->global_running = take(&core->global_queue, NULL);
	tm_crew_run(core->workers, op_job, core->global_running);
}

void tm_core_enqueue(struct tm_core *core, struct tm_op *op)
{
	struct tm_pool *pool = NULL;
	struct tm_queued_op *q, **tail;

	q = calloc(1, sizeof(*q));
	if (!q) {
		tm_log(LOG_CRIT, "Out of memory; stopping so that the journal can be replayed.");
		abort();
	}
	q->op = op;
	if (op->type->kind == TM_CMD_POOL_IMPORT) {
		tail = &core->global_queue;
	} else {
		pool = tm_core_find_pool(core, op->record.pool.text);
		if (!pool) { /* deleted while the row was being written */
			free(q);
			(void)tm_error_set(&op->error, TM_ERR_NOT_FOUND, ENOENT,
					   "There is no pool %s.", op->record.pool_name);
			tm_crew_run(core->workers, op_job, op);
			return;
		}
		tail = &pool->queue;
	}
	while (*tail)
		tail = &(*tail)->next;
	*tail = q;
	if (pool)
		tm_pool_run_queue(pool);
	else
		tm_core_run_global_queue(core);
}

/* ---- cancelling ---- */

struct cancellation {
	struct tm_core *core;
	struct tm_uuid id;
	tm_submit_done done;
	void *userdata;
};

static struct tm_op *find_live(struct tm_core *core, const struct tm_uuid *id)
{
	TM_LOCK_SCOPE(&core->live_lock);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++)
		if (core->live[i] && tm_uuid_equal(&core->live[i]->record.id, id))
			return core->live[i];
	return NULL;
}

/* Out of the queue, if it still waits in it: it fails at once. */
static void drop_queued(struct tm_op *op)
{
	struct tm_core *core = op->core;
	struct tm_pool *pool = tm_core_find_pool(core, op->record.pool.text);
	struct tm_queued_op **at = pool ? &pool->queue : &core->global_queue;

	while (*at && (*at)->op != op)
		at = &(*at)->next;
	/* A pool that is being made has its name from it. */
	if (!*at || op->type->kind == TM_CMD_POOL_CREATE)
		return;
	struct tm_queued_op *q = *at;

	*at = q->next;
	free(q);
	op->dropped = true;
	(void)tm_error_set(&op->error, TM_ERR_CANCELLED, ECANCELED,
			   "Operation %s was cancelled before its turn came.", op->record.kind);
	/* Only its row is written: it does not wait for workers that are busy for long. */
	tm_crew_run(core->recorder, op_job, op);
}

static int cancel(struct tm_core *core, const struct tm_uuid *id, struct tm_operation_record *ret,
		  struct tm_error *err)
{
	struct tm_op *op = find_live(core, id);

	if (!op || tm_core_operation(core, id, ret) < 0)
		return tm_error_set(err, TM_ERR_WRONG_STATE, EALREADY,
				    "Operation %s has ended: there is nothing left to cancel.",
				    id->text);
	if (atomic_load(&op->progress.cancelled)) /* asked for twice is asked for */
		return 0;
	if (!ret->cancellable) {
		int r = tm_error_set(
			err, TM_ERR_WRONG_STATE, EBUSY,
			ret->status == TM_OP_UNDOING
				? "Operation %s is being undone already."
				: "Operation %s is past the step after which it is always "
				  "finished.",
			id->text);

		tm_error_hint(err, "Wait for its end: thinmgr operation wait %s", id->text);
		return r;
	}
	atomic_store(&op->progress.cancelled, true);
	drop_queued(op);
	return 0;
}

void tm_core_cancel_all(struct tm_core *core)
{
	TM_LOCK_SCOPE(&core->live_lock);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++)
		if (core->live[i])
			atomic_store(&core->live[i]->progress.cancelled, true);
}

static void cancel_on_main(void *arg)
{
	tm_auto_free struct cancellation *c = arg;
	struct tm_operation_record record = { 0 };
	struct tm_error err = { 0 };

	if (cancel(c->core, &c->id, &record, &err) < 0)
		c->done(c->userdata, NULL, &err);
	else
		c->done(c->userdata, &record, NULL);
}

void tm_core_cancel(struct tm_core *core, const struct tm_uuid *operation, tm_submit_done done,
		    void *userdata)
{
	struct cancellation *c = calloc(1, sizeof(*c));

	if (!c) {
		tm_log(LOG_CRIT, "Out of memory; stopping.");
		abort();
	}
	*c = (struct cancellation){ core, *operation, done, userdata };
	tm_mailbox_post(core->mailbox, cancel_on_main, c);
}

/* ---- submitting ---- */

static void submission_end(struct submission *s)
{
	s->done(s->userdata, s->err.code ? NULL : &s->op->record, s->err.code ? &s->err : NULL);
	tm_op_free(s->op);
	tm_command_free(s->cmd);
	free(s);
}

static void drop_new_pool(struct submission *s)
{
	struct tm_pool *pool;

	if (s->op->type->kind != TM_CMD_POOL_CREATE)
		return;
	pool = tm_core_find_pool(s->core, s->op->record.pool.text);
	if (pool && pool->state == TM_POOL_CREATING)
		tm_core_remove_pool(s->core, pool);
}

/* The row is durable: from here on a restart knows of it. */
static void submitted(void *arg)
{
	struct submission *s = arg;

	if (s->err.code) {
		tm_core_delist(s->core, s->op);
		drop_new_pool(s);
	} else {
		struct tm_op *op = s->op;
		struct tm_operation_record copy = op->record;

		copy.state = NULL;
		s->done(s->userdata, &copy, NULL);
		s->op = NULL;
		tm_command_free(s->cmd);
		tm_core_enqueue(s->core, op);
		free(s);
		return;
	}
	submission_end(s);
}

static void write_row(void *arg)
{
	struct submission *s = arg;

	if (tm_store_put_operation(s->core->store, &s->op->record, &s->err) < 0 && !s->err.code)
		(void)tm_error_set(&s->err, TM_ERR_STORE, EIO,
				   "The operation could not be recorded.");
	tm_mailbox_post(s->core->mailbox, submitted, s);
}

/* Does one directory hold the other? Two pools must not share files. */
static bool overlaps(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), l = la < lb ? la : lb;

	return strncmp(a, b, l) == 0 && (la == lb || (la < lb ? b[l] == '/' : a[l] == '/'));
}

static int check_directory(struct tm_core *core, const char *directory, const char *field,
			   struct tm_error *err)
{
	for (size_t i = 0; i < core->n_pools; i++) {
		if (!overlaps(core->pools[i]->record.directory, directory))
			continue;
		(void)tm_error_field(err, TM_ERR_EXISTS, field,
				     "The directory %s belongs to pool %s.",
				     core->pools[i]->record.directory, core->pools[i]->record.name);
		tm_error_hint(err, "Give each pool a directory of its own, none inside another's.");
		return -EEXIST;
	}
	return 0;
}

static int check_new_pool(struct tm_core *core, struct tm_pool_record *record, struct tm_error *err)
{
	if (!core->system.target_version[0])
		tm_system_look_again(core); /* it may have come meanwhile */
	if (!core->system.target_version[0]) {
		(void)tm_error_set(err, TM_ERR_TARGET_MISSING, ENOENT,
				   "The kernel has no thin-pool target, so no pool can be made.");
		tm_error_hint(err, "Install the kernel's device-mapper modules (dm_thin_pool).");
		return -ENOENT;
	}
	if (tm_core_find_pool(core, record->name)) {
		(void)tm_error_field(err, TM_ERR_EXISTS, "/name",
				     "There is a pool named %s already.", record->name);
		return -EEXIST;
	}
	return check_directory(core, record->directory, "/backing/directory", err);
}

static int submit_checked(struct submission *s)
{
	struct tm_core *core = s->core;
	struct tm_command *cmd = s->cmd;
	struct tm_pool *pool = NULL;
	struct tm_op *op = s->op;
	int r;

	if (s->err.code)
		return -EINVAL;
	if (atomic_load(&core->stopping))
		return tm_error_set(&s->err, TM_ERR_SHUTTING_DOWN, ECANCELED,
				    "The daemon is stopping.");
	if (cmd->kind == TM_CMD_POOL_CREATE) {
		r = check_new_pool(core, &cmd->pool_create.record, &s->err);
		if (r < 0)
			return r;
	} else if (cmd->kind == TM_CMD_POOL_IMPORT) {
		r = check_directory(core, cmd->pool_import.directory, "/directory", &s->err);
		if (r < 0)
			return r;
	} else {
		pool = tm_core_find_pool(core, cmd->pool);
		if (!pool)
			return tm_error_set(&s->err, TM_ERR_NOT_FOUND, ENOENT,
					    "There is no pool %s.", cmd->pool);
	}
	r = tm_op_prepare(op, pool, &s->err);
	if (r < 0)
		return r;
	op->record.pool = op->pool.id;
	(void)snprintf(op->record.pool_name, sizeof(op->record.pool_name), "%s", op->pool.name);
	if (op->n_items)
		(void)snprintf(op->record.volume_name, sizeof(op->record.volume_name), "%s",
			       op->before ? op->before[0].name : op->items[0].name);
	return 0;
}

static void submit_on_main(void *arg)
{
	struct submission *s = arg;
	struct tm_core *core = s->core;
	struct tm_op *op = s->op;

	op->core = core;
	op->type = tm_op_type(s->cmd->kind);
	op->cmd = s->cmd;
	s->cmd = NULL;
	(void)snprintf(op->record.kind, sizeof(op->record.kind), "%s",
		       tm_command_name(op->type->kind));
	op->record.n_steps = (uint32_t)op->type->n_steps;
	op->record.created_usec = tm_now_realtime_usec();
	op->record.status = TM_OP_QUEUED;
	s->cmd = op->cmd;
	if (submit_checked(s) < 0) {
		s->cmd = NULL;
		if (!s->err.code)
			(void)tm_error_set(&s->err, TM_ERR_INTERNAL, EINVAL,
					   "The request was refused.");
		submission_end(s);
		return;
	}
	s->cmd = NULL;
	if (s->dry_run) {
		submission_end(s);
		return;
	}
	tm_uuid_generate(&op->record.id);
	op->record.state = tm_op_state_format(op);
	if (tm_core_enlist(core, op, &s->err) < 0) {
		submission_end(s);
		return;
	}
	if (op->type->kind == TM_CMD_POOL_CREATE) {
		struct tm_pool *pool = tm_pool_new(core, &op->pool);

		if (pool)
			pool->state = TM_POOL_CREATING; /* holds the name */
		if (!pool || tm_core_add_pool(core, pool) < 0) {
			tm_pool_free(pool);
			(void)tm_error_set(&s->err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
			tm_core_delist(core, op);
			submission_end(s);
			return;
		}
	}
	tm_crew_run(core->recorder, write_row, s);
}

/* Which part of the request was at fault, where the backing refused it. */
static void name_field(struct tm_error *err)
{
	const char *field = err->code == TM_ERR_NO_SPACE ? "/data_size" : "/backing/directory";

	if (!err->field[0])
		(void)snprintf(err->field, sizeof(err->field), "%s", field);
}

/* What looks at the disk before a pool is made is not for the main loop. */
static void probe_job(void *arg)
{
	struct submission *s = arg;
	struct tm_pool_record *record = &s->cmd->pool_create.record;

	if (!record->id.text[0])
		tm_uuid_generate(&record->id);
	record->created_usec = tm_now_realtime_usec();
	record->transaction_id = 0;
	record->next_dev_id = 1;
	if (tm_name_check(record->name, "pool", "/name", &s->err) >= 0 &&
	    tm_path_check(record->directory, "/backing/directory", &s->err) >= 0 &&
	    tm_policy_check(&record->policy, "/policy", &s->err) >= 0 &&
	    tm_pool_fill_defaults(record, &s->err) >= 0 && tm_backing_probe(record, &s->err) < 0)
		name_field(&s->err);
	tm_mailbox_post(s->core->mailbox, submit_on_main, s);
}

void tm_core_submit(struct tm_core *core, struct tm_command *cmd, bool dry_run, tm_submit_done done,
		    void *userdata)
{
	struct submission *s = calloc(1, sizeof(*s));
	struct tm_op *op = calloc(1, sizeof(*op));

	if (!s || !op) {
		tm_log(LOG_CRIT, "Out of memory; stopping.");
		abort();
	}
	s->core = core;
	s->cmd = cmd;
	s->dry_run = dry_run;
	s->done = done;
	s->userdata = userdata;
	s->op = op;
	if (cmd->kind == TM_CMD_POOL_CREATE)
		tm_crew_run(core->workers, probe_job, s);
	else
		tm_mailbox_post(core->mailbox, submit_on_main, s);
}
