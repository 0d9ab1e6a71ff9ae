/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A core for tests of the interfaces: all of core/core.h, over a view made by hand and a real
 * database, with a thread of its own in the part of the main loop. Include it in one file of a
 * program: because everything of core.h that interfaces use is defined here, the linker takes none
 * of the real core.
 */
#ifndef TM_TESTS_FAKE_CORE_H
#define TM_TESTS_FAKE_CORE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/core.h"

#define FAKE_MAX       64
#define FAKE_POOL_ID   "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f"
#define FAKE_VOLUME_ID "0e7c8f52-3a0c-4c57-b1de-2f8c1fb64c2c"

struct fake_job {
	struct tm_command *cmd;
	bool dry_run;
	tm_submit_done done;
	void *userdata;
};

struct fake_wait {
	struct tm_uuid id;
	uint64_t until_usec;
	tm_wait_done done;
	void *userdata;
};

struct tm_core {
	char directory[64];
	struct tm_store *store;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop;
	struct tm_view *view;
	struct fake_job jobs[FAKE_MAX];
	size_t n_jobs;
	struct fake_wait waits[FAKE_MAX];
	size_t n_waits;
	struct tm_operation_record live; /* of the last accepted command */
	bool live_valid;
	struct tm_command last; /* the last command, its items not to be read */
	unsigned int n_submitted;
	/* what the tests want */
	bool hold;             /* answer no submission */
	atomic_bool recording; /* events are on their way to the database */
	struct tm_error error; /* refuse submissions with this */
	/* the listener; its lock is held while it is called */
	pthread_mutex_t listen_lock;
	tm_event_fn listener;
	void *listener_userdata;
};

/* ---- what interfaces call -------------------------------------------------------------------- */

struct tm_view *tm_core_view(struct tm_core *core)
{
	TM_LOCK_SCOPE(&core->lock);
	return tm_view_ref(core->view);
}

const char *tm_core_state_directory(struct tm_core *core)
{
	return core->directory;
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

const char *tm_command_name(enum tm_command_kind kind)
{
	return kind == TM_CMD_POOL_CREATE ? "pool-create" : "volume-create";
}

void tm_core_submit(struct tm_core *core, struct tm_command *cmd, bool dry_run, tm_submit_done done,
		    void *userdata)
{
	TM_LOCK_SCOPE(&core->lock);
	if (core->n_jobs == FAKE_MAX)
		abort();
	core->jobs[core->n_jobs++] = (struct fake_job){ cmd, dry_run, done, userdata };
	core->n_submitted++;
	(void)pthread_cond_broadcast(&core->changed);
}

/* What is live ends at once. */
void tm_core_cancel(struct tm_core *core, const struct tm_uuid *operation, tm_submit_done done,
		    void *userdata)
{
	struct tm_operation_record op = { 0 };
	struct tm_error err = { 0 };

	{
		TM_LOCK_SCOPE(&core->lock);
		if (!core->live_valid || !tm_uuid_equal(&core->live.id, operation)) {
			(void)tm_error_set(&err, TM_ERR_WRONG_STATE, EALREADY, "It has ended.");
		} else {
			core->live.status = TM_OP_FAILED;
			(void)tm_error_set(&core->live.error, TM_ERR_CANCELLED, ECANCELED,
					   "It was cancelled.");
			op = core->live;
			core->live_valid = false;
			(void)tm_store_put_operation(core->store, &op, NULL);
		}
	}
	done(userdata, err.code ? NULL : &op, err.code ? &err : NULL);
}

void tm_core_wait(struct tm_core *core, const struct tm_uuid *operation, uint64_t timeout_usec,
		  tm_wait_done done, void *userdata)
{
	TM_LOCK_SCOPE(&core->lock);
	if (core->n_waits == FAKE_MAX)
		abort();
	core->waits[core->n_waits++] = (struct fake_wait){ *operation,
							   tm_now_monotonic_usec() + timeout_usec,
							   done, userdata };
	(void)pthread_cond_broadcast(&core->changed);
}

bool tm_core_recording(const struct tm_core *core)
{
	return atomic_load(&core->recording);
}

void tm_core_wait_recorded(struct tm_core *core, uint64_t timeout_usec, tm_wait_done done,
			   void *userdata)
{
	tm_core_wait(core, &(struct tm_uuid){ "" }, timeout_usec, done, userdata);
}

int tm_core_operation(struct tm_core *core, const struct tm_uuid *id,
		      struct tm_operation_record *ret)
{
	TM_LOCK_SCOPE(&core->lock);
	if (!core->live_valid || !tm_uuid_equal(&core->live.id, id))
		return -ENOENT;
	*ret = core->live;
	ret->live = true;
	return 0;
}

struct tm_listener *tm_core_listen(struct tm_core *core, tm_event_fn fn, void *userdata)
{
	TM_LOCK_SCOPE(&core->listen_lock);
	core->listener = fn;
	core->listener_userdata = userdata;
	return (struct tm_listener *)(void *)core;
}

struct tm_listener *tm_core_unlisten(struct tm_core *core, struct tm_listener *listener)
{
	(void)listener;
	TM_LOCK_SCOPE(&core->listen_lock);
	core->listener = NULL;
	return NULL;
}

void tm_core_on_view(struct tm_core *core, void (*fn)(void *userdata), void *userdata)
{
	(void)core;
	(void)fn;
	(void)userdata;
}

/* ---- its main loop --------------------------------------------------------------------------- */

static void fake_take_job(struct tm_core *core)
{
	struct tm_operation_record op = { .status = TM_OP_QUEUED, .n_steps = 3 };
	struct fake_job job = core->jobs[0];
	struct tm_error err = core->error;

	core->n_jobs--;
	memmove(core->jobs, core->jobs + 1, core->n_jobs * sizeof(core->jobs[0]));
	core->last = *job.cmd;
	(void)snprintf(op.kind, sizeof(op.kind), "%s", tm_command_name(job.cmd->kind));
	(void)snprintf(op.pool_name, sizeof(op.pool_name), "%s", job.cmd->pool);
	if (!job.dry_run) {
		tm_uuid_generate(&op.id);
		op.created_usec = tm_now_realtime_usec();
	}
	if (!err.code && !job.dry_run) {
		core->live = op;
		core->live_valid = true;
	}
	(void)pthread_mutex_unlock(&core->lock);
	(void)tm_command_free(job.cmd);
	job.done(job.userdata, err.code ? NULL : &op, err.code ? &err : NULL);
	(void)pthread_mutex_lock(&core->lock);
}

/* End the waits whose operation is not live any more, or whose time is over. True when there was
 * one. */
static bool fake_take_wait(struct tm_core *core)
{
	uint64_t now = tm_now_monotonic_usec();

	for (size_t i = 0; i < core->n_waits; i++) {
		struct fake_wait wait = core->waits[i];
		bool ended = wait.id.text[0]
				     ? !core->live_valid || !tm_uuid_equal(&core->live.id, &wait.id)
				     : !atomic_load(&core->recording);

		if (!ended && now < wait.until_usec)
			continue;
		core->waits[i] = core->waits[--core->n_waits];
		(void)pthread_mutex_unlock(&core->lock);
		wait.done(wait.userdata, ended);
		(void)pthread_mutex_lock(&core->lock);
		return true;
	}
	return false;
}

static void *fake_loop(void *userdata)
{
	struct tm_core *core = userdata;

	(void)pthread_mutex_lock(&core->lock);
	while (!core->stop) {
		struct timespec soon;

		if (core->n_jobs && !core->hold) {
			fake_take_job(core);
			continue;
		}
		if (fake_take_wait(core))
			continue;
		(void)clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec += 20 * 1000 * 1000;
		if (soon.tv_nsec >= 1000000000) {
			soon.tv_nsec -= 1000000000;
			soon.tv_sec++;
		}
		(void)pthread_cond_timedwait(&core->changed, &core->lock, &soon);
	}
	(void)pthread_mutex_unlock(&core->lock);
	return NULL;
}

/* ---- what tests call ------------------------------------------------------------------------- */

static struct tm_pool_view *fake_pool(const char *name, const char *id, size_t n_volumes)
{
	struct tm_pool_view *pool =
		calloc(1, sizeof(*pool) + n_volumes * sizeof(struct tm_volume_view));

	if (!pool)
		abort();
	pool->refs = 1;
	(void)snprintf(pool->record.name, sizeof(pool->record.name), "%s", name);
	(void)snprintf(pool->record.id.text, sizeof(pool->record.id.text), "%s", id);
	(void)snprintf(pool->record.directory, sizeof(pool->record.directory), "/srv/%s", name);
	pool->record.block_bytes = 65536;
	pool->record.data_bytes = (uint64_t)256 << 20;
	pool->record.metadata_bytes = (uint64_t)2 << 20;
	pool->record.created_usec = UINT64_C(1769860800000000);
	tm_policy_default(&pool->record.policy);
	pool->state = TM_POOL_INACTIVE;
	pool->generation = 17;
	pool->n_volumes = n_volumes;
	return pool;
}

/* "idle", inactive; "tank", active, with the volumes "snap" (of "home") and "home". */
static struct tm_view *fake_view(void)
{
	struct tm_view *view = calloc(1, sizeof(*view) + 2 * sizeof(struct tm_pool_view *));
	struct tm_pool_view *tank = fake_pool("tank", FAKE_POOL_ID, 2);

	if (!view)
		abort();
	tank->state = TM_POOL_ACTIVE;
	tank->status_valid = true;
	tank->status.data_used = 1024;
	tank->status.data_total = 4096;
	tank->status.metadata_used = 29;
	tank->status.metadata_total = 512;
	tank->virtual_bytes = (uint64_t)8 << 30;
	for (size_t i = 0; i < 2; i++) {
		struct tm_volume_view *volume = &tank->volumes[i];

		(void)snprintf(volume->record.name, sizeof(volume->record.name), "%s",
			       i ? "home" : "snap");
		(void)snprintf(volume->record.id.text, sizeof(volume->record.id.text), "%s",
			       i ? FAKE_VOLUME_ID : "11111111-2222-4333-8444-555555555555");
		volume->record.size_bytes = (uint64_t)4 << 30;
		volume->record.dev_id = (uint32_t)i + 1;
		volume->record.created_usec = UINT64_C(1769860800000000);
	}
	tank->volumes[0].record.origin = tank->volumes[1].record.id;
	(void)snprintf(tank->volumes[0].origin_name, sizeof(tank->volumes[0].origin_name), "home");
	tank->volumes[1].active = true;
	tank->volumes[1].mapped_valid = true;
	tank->volumes[1].mapped_bytes = 67108864;
	(void)snprintf(tank->volumes[1].device, sizeof(tank->volumes[1].device),
		       "/dev/thinmgr/tank/home");

	view->refs = 1;
	view->system.ready = true;
	view->system.started_usec = UINT64_C(1769860800000000);
	(void)snprintf(view->system.version, sizeof(view->system.version), "0.1");
	view->n_pools = 2;
	view->pools[0] = fake_pool("idle", "22222222-2222-4333-8444-555555555555", 0);
	view->pools[1] = tank;
	return view;
}

static struct tm_core *fake_core_new(void)
{
	struct tm_core *core = calloc(1, sizeof(*core));

	if (!core)
		abort();
	(void)snprintf(core->directory, sizeof(core->directory), "/tmp/thinmgr-test-XXXXXX");
	if (!mkdtemp(core->directory) || tm_store_new(core->directory, &core->store, NULL) < 0)
		abort();
	(void)pthread_mutex_init(&core->lock, NULL);
	(void)pthread_mutex_init(&core->listen_lock, NULL);
	(void)pthread_cond_init(&core->changed, NULL);
	core->view = fake_view();
	if (pthread_create(&core->thread, NULL, fake_loop, core) != 0)
		abort();
	return core;
}

static void fake_core_free(struct tm_core *core)
{
	static const char *const files[] = { "state.db", "state.db-wal", "state.db-shm" };
	char path[128];

	{
		TM_LOCK_SCOPE(&core->lock);
		core->stop = true;
		(void)pthread_cond_broadcast(&core->changed);
	}
	(void)pthread_join(core->thread, NULL);
	/* Whoever still waits is called, as the real core does when it stops. */
	while (core->n_jobs) {
		struct fake_job job = core->jobs[--core->n_jobs];
		struct tm_error err = { .code = TM_ERR_SHUTTING_DOWN };

		(void)tm_command_free(job.cmd);
		job.done(job.userdata, NULL, &err);
	}
	while (core->n_waits) {
		struct fake_wait wait = core->waits[--core->n_waits];

		wait.done(wait.userdata, false);
	}
	(void)tm_view_unref(core->view);
	(void)tm_store_free(core->store);
	for (size_t i = 0; i < TM_ARRAY_SIZE(files); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", core->directory, files[i]);
		(void)unlink(path);
	}
	(void)rmdir(core->directory);
	(void)pthread_cond_destroy(&core->changed);
	(void)pthread_mutex_destroy(&core->listen_lock);
	(void)pthread_mutex_destroy(&core->lock);
	free(core);
}

/* The live operation ends: into the database, and no longer live. */
static void fake_end_operation(struct tm_core *core, enum tm_op_status status,
			       enum tm_error_code code)
{
	TM_LOCK_SCOPE(&core->lock);
	core->live.status = status;
	core->live.step = core->live.n_steps;
	core->live.finished_usec = tm_now_realtime_usec();
	if (code)
		(void)tm_error_set(&core->live.error, code, EIO, "It went wrong.");
	if (tm_store_put_operation(core->store, &core->live, NULL) < 0)
		abort();
	core->live_valid = false;
	(void)pthread_cond_broadcast(&core->changed);
}

/* Commit @n events of a type and tell the listener; returns the number of the last. */
static uint64_t fake_events(struct tm_core *core, enum tm_event_type type, size_t n)
{
	uint64_t seq = 0;

	for (size_t i = 0; i < n; i++) {
		struct tm_event event = { .time_usec = tm_now_realtime_usec(), .type = type };

		(void)snprintf(event.pool_name, sizeof(event.pool_name), "tank");
		(void)snprintf(event.pool.text, sizeof(event.pool.text), FAKE_POOL_ID);
		(void)snprintf(event.message, sizeof(event.message), "event %zu", i);
		event.data = strdup("{\"figure\":1}");
		if (tm_store_append_events(core->store, &event, 1, NULL) < 0)
			abort();
		seq = event.seq;
		{
			TM_LOCK_SCOPE(&core->listen_lock);
			if (core->listener)
				core->listener(core->listener_userdata, &event, 1);
		}
		tm_event_done(&event);
	}
	return seq;
}

/* Wait until @n commands were submitted in all; false after five seconds. */
static bool fake_wait_submitted(struct tm_core *core, unsigned int n)
{
	for (int i = 0; i < 500; i++) {
		{
			TM_LOCK_SCOPE(&core->lock);
			if (core->n_submitted >= n)
				return true;
		}
		(void)usleep(10000);
	}
	return false;
}

/* Wait until somebody waits for the live operation. */
static bool fake_wait_waited(struct tm_core *core)
{
	for (int i = 0; i < 500; i++) {
		{
			TM_LOCK_SCOPE(&core->lock);
			if (core->n_waits)
				return true;
		}
		(void)usleep(10000);
	}
	return false;
}

#endif
