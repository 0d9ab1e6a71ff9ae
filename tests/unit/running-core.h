/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A core that runs: main loop, threads and a database, one pool that is up in the kernel of
 * fake-dm.h and at rest, and what is told of it.
 */
#ifndef TM_TESTS_RUNNING_CORE_H
#define TM_TESTS_RUNNING_CORE_H

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core-fixture.h"
#include "fake-dm.h"
#include "logic/policy.h"

#define LIMIT_USEC (20 * TM_USEC_PER_SEC)
#define BLOCK      ((uint64_t)65536)
#define BLOCKS     1024 /* of the pool; its mark is at half of that */
#define MARK       (BLOCKS / 2)

struct fixture {
	struct core_fixture base; /* first: core_teardown gets it */
	struct tm_pool *pool;
	char told[1024]; /* types of events, joined by spaces */
	char data[2048]; /* and their figures, a line each */
};

static inline void running_listen(void *userdata, const struct tm_event *events, size_t n)
{
	struct fixture *f = userdata;

	for (size_t i = 0; i < n; i++) {
		const size_t len = strlen(f->told);

		(void)snprintf(f->told + len, sizeof(f->told) - len, "%s%s", len ? " " : "",
			       tm_event_slug(events[i].type));
		(void)snprintf(f->data + strlen(f->data), sizeof(f->data) - strlen(f->data), "%s\n",
			       events[i].data ? events[i].data : "null");
	}
}

static inline void turn(struct fixture *f)
{
	assert_true(sd_event_run(f->base.core.event, 20 * TM_USEC_PER_MSEC) >= 0);
}

/* All that is pending now. */
static inline void drain(struct fixture *f)
{
	int r;

	do
		r = sd_event_run(f->base.core.event, 0);
	while (r > 0);
	assert_int_equal(r, 0);
}

/* Until the pool rests and all that is to be told was told. */
static inline void rest(struct fixture *f)
{
	const uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;
	struct tm_core *core = &f->base.core;

	while (f->pool->looking || f->pool->arming) {
		if (tm_now_monotonic_usec() > end)
			fail_msg("the look does not end");
		turn(f);
	}
	drain(f); /* hands what is to be recorded over */
	core->recorder = tm_crew_free(core->recorder);
	assert_int_equal(tm_crew_new(1, "recorder", &core->recorder), 0);
	drain(f);
}

static inline void told(struct fixture *f, const char *expected)
{
	assert_string_equal(f->told, expected);
	f->told[0] = f->data[0] = '\0';
}

/* Look as after an event, and wait for all that follows. */
static inline void look(struct fixture *f)
{
	tm_pool_look(f->pool, tm_now_monotonic_usec());
	rest(f);
}

static inline int running_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct tm_pool_record r = {
		.id = id_of(1),
		.name = "tank",
		.block_bytes = BLOCK,
		.data_bytes = BLOCKS * BLOCK,
		.data_reserve_bytes = BLOCKS * BLOCK,
		.metadata_bytes = 1024 * TM_METADATA_BLOCK,
		.low_water_bytes = MARK * BLOCK,
		.active = true,
	};
	struct tm_error err = { 0 };
	struct tm_core *core;
	void *base = NULL;

	assert_non_null(f);
	(void)core_setup(&base);
	f->base = *(struct core_fixture *)base;
	free(base);
	core = &f->base.core;
	assert_int_equal(pthread_mutex_init(&core->live_lock, NULL), 0);
	assert_int_equal(pthread_mutex_init(&core->target_lock, NULL), 0);
	assert_int_equal(pthread_mutex_init(&core->view_lock, NULL), 0);
	assert_int_equal(pthread_mutex_init(&core->descriptor_lock, NULL), 0);
	assert_true(sd_event_new(&core->event) >= 0);
	assert_int_equal(tm_mailbox_new(core->event, &core->mailbox), 0);
	assert_int_equal(tm_crew_new(2, "worker", &core->workers), 0);
	assert_int_equal(tm_crew_new(1, "urgent", &core->urgent), 0);
	assert_int_equal(tm_crew_new(1, "arming", &core->arming), 0);
	assert_int_equal(tm_crew_new(1, "recorder", &core->recorder), 0);
	assert_non_null(tm_core_listen(core, running_listen, f));

	/* There are no files in it: nothing more can be laid below than lies there. */
	(void)snprintf(r.directory, sizeof(r.directory), "%s", f->base.directory);
	tm_policy_default(&r.policy);
	r.policy.repair = TM_REPAIR_MANUAL; /* that is test-mend.c's matter */
	if (tm_store_put_pool(core->store, &r, &err) < 0)
		fail_msg("%s", err.detail);
	f->pool = tm_pool_new(core, &r);
	assert_non_null(f->pool);
	assert_int_equal(tm_core_add_pool(core, f->pool), 0);

	kernel = (struct fake_kernel){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.pool = "tank",
		.id = r.id,
		.status = { .mode = TM_MODE_WRITE,
			    .data_used = 10,
			    .data_total = BLOCKS,
			    .metadata_used = 10,
			    .metadata_total = 1024,
			    .metadata_low_water = 256 },
		.mark_blocks = MARK,
	};
	tm_pool_up(f->pool);
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 0);
	*state = f;
	return 0;
}

static inline int running_teardown(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;

	core->workers = tm_crew_free(core->workers);
	core->urgent = tm_crew_free(core->urgent);
	core->arming = tm_crew_free(core->arming);
	core->recorder = tm_crew_free(core->recorder);
	core->mailbox = tm_mailbox_free(core->mailbox);
	while (core->n_pools)
		tm_core_remove_pool(core, core->pools[0]);
	while (core->listeners)
		(void)tm_core_unlisten(core, core->listeners);
	sd_event_source_disable_unref(core->late_timer);
	sd_event_source_disable_unref(core->mend_timer);
	sd_event_source_disable_unref(core->record_source);
	sd_event_source_disable_unref(core->publish_source);
	core->view = tm_view_unref(core->view);
	free(core->pools);
	free(core->by_minor);
	core->event = sd_event_unref(core->event);
	(void)pthread_mutex_destroy(&core->target_lock);
	(void)pthread_mutex_destroy(&core->view_lock);
	(void)pthread_mutex_destroy(&core->descriptor_lock);
	return core_teardown(state);
}

#endif
