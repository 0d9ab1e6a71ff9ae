// SPDX-License-Identifier: GPL-2.0-or-later
/* Documents from views and records. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/encode.h"

#define ID "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f"

/* The value at a path of names: "data/reaction_usec/last". */
static json_t *at(json_t *document, const char *path)
{
	char name[64];

	while (*path) {
		size_t len = strcspn(path, "/");

		(void)snprintf(name, sizeof(name), "%.*s", (int)len, path);
		document = json_object_get(document, name);
		if (!document)
			fail_msg("no %s", name);
		path += len + (path[len] == '/');
	}
	return document;
}

static void expect_int(json_t *document, const char *path, json_int_t want)
{
	assert_true(json_is_integer(at(document, path)));
	assert_int_equal(json_integer_value(at(document, path)), want);
}

static void expect_text(json_t *document, const char *path, const char *want)
{
	assert_true(json_is_string(at(document, path)));
	assert_string_equal(json_string_value(at(document, path)), want);
}

static void expect_null(json_t *document, const char *path)
{
	assert_true(json_is_null(at(document, path)));
}

static struct tm_pool_view *make_pool(void)
{
	struct tm_pool_view *pool = calloc(1, sizeof(*pool) + 2 * sizeof(struct tm_volume_view));

	assert_non_null(pool);
	(void)snprintf(pool->record.id.text, sizeof(pool->record.id.text), ID);
	(void)snprintf(pool->record.name, sizeof(pool->record.name), "tank");
	(void)snprintf(pool->record.directory, sizeof(pool->record.directory), "/srv/t\xc3\xa4nk");
	pool->record.block_bytes = 65536;
	pool->record.data_bytes = 1048576;
	pool->record.data_reserve_bytes = 131072;
	pool->record.metadata_bytes = 2097152;
	pool->record.created_usec = UINT64_C(1769860800123456);
	pool->record.checked_usec = UINT64_C(1769860801000000);
	pool->record.transaction_id = 9;
	pool->record.when_full = TM_WHEN_FULL_ERROR;
	pool->generation = 5;
	tm_policy_default(&pool->record.policy);
	pool->n_volumes = 2;
	return pool;
}

static void encodes_pools(void **state)
{
	struct tm_pool_view *pool = make_pool();
	json_t *d;

	(void)state;
	pool->state = TM_POOL_ACTIVE;
	pool->status_valid = true;
	pool->status.mode = TM_MODE_OUT_OF_DATA_SPACE;
	pool->status.needs_check = true;
	pool->status.data_used = 20;
	pool->status.data_total = 20;
	pool->status.metadata_used = 100;
	pool->status.metadata_total = 512;
	pool->queueing_since_usec = UINT64_C(1769860800000000);
	pool->queueing_until_usec = UINT64_C(1769860860000000);
	pool->data.verdict = TM_EXTEND_NO_BACKING;
	pool->data.low_water_bytes = 262144;
	tm_latency_add(&pool->data.reaction, 100);
	tm_latency_add(&pool->data.reaction, 300);
	tm_latency_add(&pool->data.reaction, 200);
	pool->volumes[1].record.suspect = TM_SUSPECT_FAIL;
	d = tm_encode_pool(pool);
	assert_non_null(d);
	assert_int_equal(json_object_size(d), 25);
	expect_text(d, "id", ID);
	expect_text(d, "state", "active");
	expect_null(d, "state_reason");
	expect_text(d, "mode", "out_of_data_space");
	assert_true(json_is_true(at(d, "needs_check")));
	expect_text(d, "backing/directory", "/srv/t\xc3\xa4nk");
	/* The kernel's sizes go before the record's. */
	expect_int(d, "data/size", 20 * 65536);
	expect_int(d, "data/used", 20 * 65536);
	expect_int(d, "data/free", 0);
	expect_int(d, "data/reserve", 131072);
	expect_int(d, "data/low_water", 262144);
	expect_int(d, "data/reaction_usec/last", 200);
	expect_int(d, "data/reaction_usec/median", 200);
	expect_int(d, "data/reaction_usec/slowest", 300);
	expect_int(d, "data/reaction_usec/count", 3);
	expect_text(d, "data/verdict", "no_backing");
	expect_int(d, "metadata/used", 409600);
	expect_null(d, "metadata/reaction_usec/median");
	expect_text(d, "metadata/verdict", "not_needed");
	expect_text(d, "queueing/since", "2026-01-31T12:00:00.000Z");
	expect_text(d, "queueing/until", "2026-01-31T12:01:00.000Z");
	expect_text(d, "when_full", "error");
	expect_int(d, "volumes", 2);
	expect_int(d, "suspect_volumes", 1);
	expect_int(d, "transaction_id", 9);
	expect_int(d, "generation", 5);
	expect_text(d, "created", "2026-01-31T12:00:00.123Z");
	expect_text(d, "checked", "2026-01-31T12:00:01.000Z");
	expect_null(d, "copied");
	assert_true(json_is_true(at(d, "policy/data/auto_extend")));
	json_decref(d);

	/* It queues for ever. */
	pool->queueing_until_usec = 0;
	d = tm_encode_pool(pool);
	expect_null(d, "queueing/until");
	expect_null(d, "repair_waits_for");
	json_decref(d);

	/* In fail mode the kernel says nothing else. */
	pool->status.failed = true;
	d = tm_encode_pool(pool);
	expect_text(d, "mode", "fail");
	expect_null(d, "data/used");
	expect_int(d, "data/size", 1048576);
	assert_true(json_is_false(at(d, "needs_check")));
	json_decref(d);

	/* What was seen before it went inactive is not shown. */
	pool->status.failed = false;
	pool->state = TM_POOL_INACTIVE;
	pool->queueing_since_usec = 0;
	pool->repair_waits_for = strdup("[{\"volume\":\"v\"}]");
	assert_non_null(pool->repair_waits_for);
	(void)snprintf(pool->state_reason, sizeof(pool->state_reason), "The file is gone.");
	d = tm_encode_pool(pool);
	expect_null(d, "mode");
	expect_null(d, "data/used");
	expect_null(d, "data/free");
	expect_null(d, "queueing");
	expect_text(d, "state_reason", "The file is gone.");
	expect_text(json_array_get(at(d, "repair_waits_for"), 0), "volume", "v");
	json_decref(d);
	free(pool->repair_waits_for);
	free(pool);
}

static void names_verdicts(void **state)
{
	static const char *const names[] = { "not_needed", "extend",     "disabled",
					     "at_maximum", "no_backing", "frozen" };
	struct tm_pool_view *pool = make_pool();

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		json_t *d;

		pool->metadata.verdict = (enum tm_extend_verdict)i;
		d = tm_encode_pool(pool);
		expect_text(d, "metadata/verdict", names[i]);
		json_decref(d);
	}
	free(pool);
}

static void encodes_policies(void **state)
{
	struct tm_pool_view *pool = make_pool();
	json_t *d;

	(void)state;
	pool->record.policy.data.maximum_bytes = 0;
	pool->record.policy.metadata.maximum_bytes = 1 << 30;
	d = tm_encode_pool_policy(pool);
	expect_null(d, "data/maximum");
	expect_int(d, "metadata/maximum", 1 << 30);
	expect_text(d, "when_full", "error");
	json_decref(d);
	free(pool);
}

static void encodes_volumes(void **state)
{
	struct tm_pool_view *pool = make_pool();
	struct tm_volume_view *volume = &pool->volumes[0];
	json_t *d;

	(void)state;
	(void)snprintf(volume->record.id.text, sizeof(volume->record.id.text), ID);
	(void)snprintf(volume->record.name, sizeof(volume->record.name), "home");
	volume->record.size_bytes = UINT64_MAX;
	volume->record.dev_id = 7;
	d = tm_encode_volume(pool, volume);
	assert_int_equal(json_object_size(d), 13);
	expect_null(d, "suspect");
	expect_text(d, "pool", "tank");
	expect_int(d, "size", INT64_MAX);
	expect_null(d, "mapped");
	expect_null(d, "origin");
	expect_null(d, "origin_id");
	expect_null(d, "device");
	expect_null(d, "created");
	expect_int(d, "dev_id", 7);
	assert_true(json_is_false(at(d, "active")));
	json_decref(d);

	volume->active = true;
	volume->record.suspect = TM_SUSPECT_NO_SPACE;
	volume->record.suspect_usec = 1;
	volume->mapped_valid = true;
	volume->record.origin = volume->record.id; /* whose name is gone */
	(void)snprintf(volume->device, sizeof(volume->device), "/dev/thinmgr/tank/home");
	d = tm_encode_volume(pool, volume);
	expect_int(d, "mapped", 0);
	expect_text(at(d, "suspect"), "reason", "no_space");
	expect_text(at(d, "suspect"), "since", "1970-01-01T00:00:00.000Z");
	expect_null(d, "origin");
	expect_text(d, "origin_id", ID);
	expect_text(d, "device", "/dev/thinmgr/tank/home");
	json_decref(d);
	free(pool);
}

static void encodes_operations(void **state)
{
	struct tm_operation_record op = { .kind = "volume-create", .status = TM_OP_RUNNING };
	json_t *d;

	(void)state;
	d = tm_encode_operation(&op);
	assert_int_equal(json_object_size(d), 14);
	expect_null(d, "percent"); /* a row knows nothing of them */
	assert_true(json_is_false(at(d, "cancellable")));
	expect_null(d, "id");
	expect_null(d, "pool");
	expect_null(d, "step_name");
	expect_null(d, "error");
	expect_null(d, "finished");
	expect_text(d, "status", "running");
	json_decref(d);

	op.live = op.cancellable = true;
	op.percent = 42;
	d = tm_encode_operation(&op);
	expect_int(d, "percent", 42);
	assert_true(json_is_true(at(d, "cancellable")));
	json_decref(d);
	op.percent = -1;
	d = tm_encode_operation(&op);
	expect_null(d, "percent");
	json_decref(d);
	op.live = false;

	(void)snprintf(op.id.text, sizeof(op.id.text), ID);
	(void)snprintf(op.pool_name, sizeof(op.pool_name), "tank");
	op.status = TM_OP_FAILED;
	op.step = 2;
	op.n_steps = 5;
	(void)tm_error_set(&op.error, TM_ERR_NO_SPACE, ENOSPC, "It is full.");
	d = tm_encode_operation(&op);
	expect_text(d, "id", ID);
	expect_int(d, "step", 2);
	expect_int(d, "steps", 5);
	expect_text(d, "error/type", "urn:thinmgr:error:no-space");
	expect_text(d, "error/instance", "/v1/operations/" ID);
	json_decref(d);
}

static void encodes_events(void **state)
{
	static const struct {
		const char *data;
		bool object;
	} cases[] = {
		{ NULL, false }, { "{\"a\":1}", true }, { "", false },
		{ "{", false },  { "[1]", false },      { "3", false },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_event event = { .seq = 42, .type = TM_EVENT_OUT_OF_SPACE };
		json_t *d;

		event.time_usec = UINT64_C(1769860800000000);
		event.data = cases[i].data ? strdup(cases[i].data) : NULL;
		(void)snprintf(event.message, sizeof(event.message), "tank \xff is full");
		d = tm_encode_event(&event);
		assert_int_equal(json_object_size(d), 10);
		expect_int(d, "seq", 42);
		expect_text(d, "type", "out-of-space");
		expect_text(d, "severity", "critical");
		expect_text(d, "message", "tank ? is full");
		expect_null(d, "pool");
		expect_null(d, "volume");
		assert_int_equal(json_is_object(at(d, "data")), cases[i].object);
		assert_int_equal(json_is_null(at(d, "data")), !cases[i].object);
		json_decref(d);
		tm_event_done(&event);
	}
}

static void encodes_samples(void **state)
{
	static const struct tm_sample sample = {
		.time_usec = UINT64_C(1769860800000000),
		.data_used_bytes = 1,
		.data_total_bytes = 2,
		.metadata_used_bytes = 3,
		.metadata_total_bytes = 4,
		.mode = TM_MODE_READ_ONLY,
		.count = 60,
		.data_used_max_bytes = 5,
	};
	json_t *d = tm_encode_sample(&sample);

	(void)state;
	assert_int_equal(json_object_size(d), 8);
	expect_int(d, "data_used", 1);
	expect_int(d, "data_size", 2);
	expect_int(d, "metadata_used", 3);
	expect_int(d, "metadata_size", 4);
	expect_int(d, "data_used_max", 5);
	expect_int(d, "count", 60);
	expect_text(d, "mode", "read_only");
	json_decref(d);
}

static void encodes_the_system(void **state)
{
	struct tm_view *view = calloc(1, sizeof(*view));
	json_t *d;

	(void)state;
	assert_non_null(view);
	view->system.no_space_timeout_seconds = -1;
	d = tm_encode_system(view);
	expect_null(d, "kernel/target");
	expect_null(d, "kernel/no_space_timeout");
	assert_true(json_is_false(at(d, "ready")));
	json_decref(d);

	view->system.no_space_timeout_seconds = 60;
	(void)snprintf(view->system.target_version, sizeof(view->system.target_version), "1.22.0");
	(void)snprintf(view->system.target_origin, sizeof(view->system.target_origin),
		       "distribution");
	view->system.n_tools = 1;
	(void)snprintf(view->system.tools[0].name, sizeof(view->system.tools[0].name),
		       "thin_check");
	view->system.n_degraded = 1;
	(void)snprintf(view->system.degraded[0], sizeof(view->system.degraded[0]), "It hurts.");
	d = tm_encode_system(view);
	expect_text(d, "kernel/target/version", "1.22.0");
	expect_int(d, "kernel/no_space_timeout", 60);
	expect_null(json_array_get(at(d, "tools"), 0), "path");
	assert_string_equal(json_string_value(json_array_get(at(d, "degraded"), 0)), "It hurts.");
	expect_int(d, "pools", 0);
	json_decref(d);
	free(view);
}

static void makes_lists(void **state)
{
	json_t *d = tm_encode_list(json_array(), "a");

	(void)state;
	expect_text(d, "next", "a");
	json_decref(d);
	d = tm_encode_list(json_array(), NULL);
	expect_null(d, "next");
	json_decref(d);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(encodes_pools),      cmocka_unit_test(names_verdicts),
		cmocka_unit_test(encodes_policies),   cmocka_unit_test(encodes_volumes),
		cmocka_unit_test(encodes_operations), cmocka_unit_test(encodes_events),
		cmocka_unit_test(encodes_samples),    cmocka_unit_test(encodes_the_system),
		cmocka_unit_test(makes_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
