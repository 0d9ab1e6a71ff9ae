/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The published picture: made anew only where something changed, once for a turn of the main loop,
 * and what a reader holds stays as it was.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core-fixture.h"

static unsigned int n_published;

static void on_view(void *userdata)
{
	(void)userdata;
	n_published++;
}

static int setup(void **state)
{
	struct core_fixture *f;

	(void)core_setup(state);
	f = *state;
	assert_true(sd_event_new(&f->core.event) >= 0);
	assert_int_equal(pthread_mutex_init(&f->core.view_lock, NULL), 0);
	tm_core_on_view(&f->core, on_view, NULL);
	tm_core_publish(&f->core);
	n_published = 0;
	return 0;
}

static int teardown(void **state)
{
	struct core_fixture *f = *state;

	while (f->core.n_pools)
		tm_core_remove_pool(&f->core, f->core.pools[0]);
	sd_event_source_disable_unref(f->core.publish_source);
	f->core.view = tm_view_unref(f->core.view);
	free(f->core.pools);
	f->core.event = sd_event_unref(f->core.event);
	(void)pthread_mutex_destroy(&f->core.view_lock);
	return core_teardown(state);
}

static struct tm_pool *add_pool(struct core_fixture *f, unsigned int n, const char *name)
{
	struct tm_pool_record record = { .id = id_of(n), .block_bytes = 65536 };
	struct tm_pool *pool;

	(void)snprintf(record.name, sizeof(record.name), "%s", name);
	pool = tm_pool_new(&f->core, &record);
	assert_non_null(pool);
	assert_int_equal(tm_core_add_pool(&f->core, pool), 0);
	return pool;
}

/* Let the loop do all that is pending. */
static void turn(struct core_fixture *f)
{
	int r;

	do
		r = sd_event_run(f->core.event, 0);
	while (r > 0);
	assert_int_equal(r, 0);
}

static void names_are(const struct tm_view *view, const char *const names[])
{
	size_t n = 0;

	for (; names[n]; n++) {
		assert_true(n < view->n_pools);
		assert_string_equal(view->pools[n]->record.name, names[n]);
	}
	assert_int_equal(view->n_pools, n);
}

static void once_a_turn(void **state)
{
	struct core_fixture *f = *state;
	tm_auto_view struct tm_view *before = tm_core_view(&f->core);
	tm_auto_view struct tm_view *after = NULL;
	struct tm_pool *tank = add_pool(f, 1, "tank");

	(void)add_pool(f, 2, "alpha");
	(void)add_pool(f, 3, "zeta");
	tm_pool_touch(tank);
	tm_pool_touch(tank);
	assert_int_equal(n_published, 0);
	turn(f);
	assert_int_equal(n_published, 1);
	after = tm_core_view(&f->core);
	assert_true(after->generation > before->generation);
	names_are(before, (const char *const[]){ NULL });
	names_are(after, (const char *const[]){ "alpha", "tank", "zeta", NULL });
	/* By name and by id, which the order is for. */
	assert_ptr_equal(tm_view_pool(after, "zeta"), after->pools[2]);
	assert_ptr_equal(tm_view_pool(after, id_of(1).text), after->pools[1]);
	assert_null(tm_view_pool(after, "tan"));

	/* Nothing changed, nothing is published; unless it is asked for. */
	turn(f);
	assert_int_equal(n_published, 1);
	tm_core_publish(&f->core);
	assert_int_equal(n_published, 2);
}

/* What was published at once, in between, is not published again when the turn ends. */
static void at_once(void **state)
{
	struct core_fixture *f = *state;
	struct tm_pool *tank = add_pool(f, 1, "tank");

	tm_pool_touch(tank);
	tm_core_publish(&f->core);
	assert_int_equal(n_published, 1);
	turn(f);
	assert_int_equal(n_published, 1);
}

static void only_what_changed(void **state)
{
	struct core_fixture *f = *state;
	struct tm_pool *tank = add_pool(f, 1, "tank");
	tm_auto_view struct tm_view *before = NULL, *after = NULL, *end = NULL;

	(void)add_pool(f, 2, "rest");
	turn(f);
	before = tm_core_view(&f->core);
	tank->status_valid = true;
	tank->status.data_used = 7;
	tank->state = TM_POOL_ACTIVE;
	tank->data.extensions = 3;
	tank->data.backoff.failures = 2;
	tank->record.low_water_bytes = 4 * TM_MIB;
	tm_pool_touch(tank);
	turn(f);
	after = tm_core_view(&f->core);
	names_are(after, (const char *const[]){ "rest", "tank", NULL });
	assert_ptr_equal(after->pools[0], before->pools[0]);
	assert_ptr_not_equal(after->pools[1], before->pools[1]);
	assert_int_equal(before->pools[1]->status.data_used, 0);
	assert_int_equal(before->pools[1]->state, TM_POOL_INACTIVE);
	assert_int_equal(after->pools[1]->status.data_used, 7);
	assert_int_equal(after->pools[1]->state, TM_POOL_ACTIVE);
	assert_int_equal(after->pools[1]->data.extensions, 3);
	assert_int_equal(after->pools[1]->data.failures, 2);
	assert_int_equal(after->pools[1]->data.low_water_bytes, 4 * TM_MIB);
	assert_int_equal(after->pools[1]->metadata.low_water_bytes, 0);

	tm_core_remove_pool(&f->core, tank);
	turn(f);
	end = tm_core_view(&f->core);
	names_are(end, (const char *const[]){ "rest", NULL });
	/* Gone, but not for who still looks at it. */
	assert_string_equal(after->pools[1]->record.name, "tank");
}

static void volumes(void **state)
{
	struct core_fixture *f = *state;
	struct tm_pool *tank = add_pool(f, 1, "tank");
	struct tm_volume_record records[] = {
		{ .id = id_of(11), .name = "root", .size_bytes = 4 * TM_GIB },
		{ .id = id_of(12), .name = "snap", .size_bytes = 4 * TM_GIB, .origin = id_of(11) },
		{ .id = id_of(13), .name = "orphan", .size_bytes = TM_GIB, .origin = id_of(99) },
	};
	tm_auto_view struct tm_view *view = NULL;
	const struct tm_volume_view *v;

	assert_int_equal(tm_pool_set_volumes(tank, records, TM_ARRAY_SIZE(records)), 0);
	tank->volumes[1].active = true;
	tank->volumes[1].mapped_valid = true;
	tank->volumes[1].mapped_bytes = TM_MIB;
	/* What is known of a volume outlives a new list; what is new knows nothing. */
	assert_int_equal(tm_pool_set_volumes(tank, records, TM_ARRAY_SIZE(records)), 0);
	tm_pool_touch(tank);
	turn(f);
	view = tm_core_view(&f->core);
	assert_int_equal(view->pools[0]->n_volumes, 3);
	assert_int_equal(view->pools[0]->virtual_bytes, 9 * TM_GIB);
	v = tm_pool_view_volume(view->pools[0], "root");
	assert_non_null(v);
	assert_false(v->active);
	assert_string_equal(v->device, "");
	assert_string_equal(v->origin_name, "");
	v = tm_pool_view_volume(view->pools[0], id_of(12).text);
	assert_non_null(v);
	assert_true(v->active && v->mapped_valid);
	assert_int_equal(v->mapped_bytes, TM_MIB);
	assert_string_equal(v->device, "/dev/thinmgr/tank/snap");
	assert_string_equal(v->origin_name, "root");
	v = tm_pool_view_volume(view->pools[0], "orphan");
	assert_non_null(v);
	assert_string_equal(v->origin_name, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(once_a_turn),
		TEST(at_once),
		TEST(only_what_changed),
		TEST(volumes),
	};

	return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
