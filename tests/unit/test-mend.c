// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * When a broken pool is repaired by itself, and when not. The repair itself goes no further than
 * its first steps, which this kernel refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "running-core.h"

static size_t operations(struct fixture *f, struct tm_operation_record ret[4])
{
	const struct tm_operation_filter filter = { .status = -1, .limit = 4 };
	struct tm_operation_record *ops = NULL;
	size_t n = 0;

	assert_int_equal(tm_store_read_operations(f->base.reader, &filter, &ops, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		ret[i] = ops[i];
		tm_operation_record_done(&ops[i]);
	}
	free(ops);
	return n;
}

/* Turn the loop until there are so many operations, and all have ended; the newest. */
static const struct tm_operation_record *ended(struct fixture *f, size_t wanted)
{
	const uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;
	static struct tm_operation_record found[4];
	size_t n;

	do {
		if (tm_now_monotonic_usec() > end)
			fail_msg("no operation ends");
		turn(f);
		n = operations(f, found);
	} while (n < wanted || f->base.core.n_unfinished || f->pool->mend.asked);
	rest(f);
	assert_int_equal(operations(f, found), wanted);
	return found;
}

static void with_volume(struct fixture *f, int open_count)
{
	const struct tm_volume_record volume = {
		.id = id_of(7), .name = "home", .dev_id = 1, .size_bytes = TM_GIB, .active = true
	};

	assert_int_equal(tm_pool_set_volumes(f->pool, &volume, 1), 0);
	f->pool->volumes[0].active = true;
	kernel.volume = "home";
	kernel.volume_id = volume.id;
	kernel.volume_open = open_count;
}

static void broken(struct fixture *f, enum tm_repair_policy policy)
{
	f->pool->record.policy.repair = policy;
	kernel.status.mode = TM_MODE_READ_ONLY;
	kernel.status.needs_check = true;
	look(f);
}

/* Ticks of the timer, some. */
static void ticks(struct fixture *f)
{
	const uint64_t until = tm_now_monotonic_usec() + 600 * TM_USEC_PER_MSEC;

	while (tm_now_monotonic_usec() < until)
		turn(f);
	rest(f);
}

static void idle(void **state)
{
	struct fixture *f = *state;
	const struct tm_operation_record *op;

	broken(f, TM_REPAIR_WHEN_IDLE);
	op = ended(f, 1);
	assert_string_equal(op->kind, "pool-repair");
	assert_int_equal(op->status, TM_OP_FAILED);
	assert_string_equal(op->step_name, "stop-pool");
	assert_true(f->pool->mend.tried);
	/* Not again and again. */
	look(f);
	ticks(f);
	(void)ended(f, 1);
	/* But when it was whole, and broke once more. */
	kernel.status.mode = TM_MODE_WRITE;
	kernel.status.needs_check = false;
	f->pool->state = TM_POOL_ACTIVE; /* what could not be undone here made it uncertain */
	look(f);
	assert_false(f->pool->mend.tried);
	broken(f, TM_REPAIR_WHEN_IDLE);
	(void)ended(f, 2);
}

static void manual(void **state)
{
	struct fixture *f = *state;

	broken(f, TM_REPAIR_MANUAL);
	ticks(f);
	(void)ended(f, 0);
}

static void in_use(void **state)
{
	struct fixture *f = *state;

	const uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;

	with_volume(f, 1);
	broken(f, TM_REPAIR_WHEN_IDLE);
	/* Nobody that can be seen: it may be udev, on its way out, unless it stays so. */
	ticks(f);
	assert_null(strstr(f->told, "repair-waits"));
	while (!strstr(f->told, "repair-waits")) {
		assert_true(tm_now_monotonic_usec() < end);
		turn(f);
	}
	assert_non_null(strstr(f->data, "holders"));
	f->told[0] = '\0';
	ticks(f);
	assert_null(strstr(f->told, "repair-waits")); /* once */
	(void)ended(f, 0);

	kernel.volume_open = 0;
	assert_string_equal(ended(f, 1)->kind, "pool-repair");
}

/* Nobody is waited for; who cannot let go is left in peace for a while. */
static void by_force(void **state)
{
	struct fixture *f = *state;
	const struct tm_operation_record *op;

	with_volume(f, 1);
	f->pool->volumes[0].record.active = false; /* this kernel cannot bring it back */
	broken(f, TM_REPAIR_FORCE);
	op = ended(f, 1);
	assert_string_equal(op->kind, "pool-repair");
	assert_string_equal(op->step_name, "deactivate-volumes");
	assert_int_equal(op->error.code, TM_ERR_BUSY);
	assert_null(strstr(f->told, "repair-waits"));
	assert_false(f->pool->mend.tried);
	ticks(f);
	(void)ended(f, 1);
	/* That is over. */
	assert_true(f->pool->mend.again_usec > tm_now_monotonic_usec());
	f->pool->mend.again_usec = 0;
	assert_int_equal(ended(f, 2)->error.code, TM_ERR_BUSY);
	assert_int_equal(f->pool->mend.refused, 2);
	ticks(f);
	(void)ended(f, 2);
	/* They went by themselves. */
	kernel.volume_open = 0;
	assert_string_equal(ended(f, 3)->step_name, "deactivate-volumes");
	assert_int_equal(ended(f, 3)->error.code, TM_ERR_KERNEL);
}

static void out_of_metadata(void **state)
{
	struct fixture *f = *state;

	/* More space is the cure for that. */
	f->pool->record.policy.repair = TM_REPAIR_WHEN_IDLE;
	f->pool->record.policy.metadata.enabled = false;
	kernel.status.mode = TM_MODE_READ_ONLY;
	look(f);
	ticks(f);
	(void)ended(f, 0);
}

static void at_start(void **state)
{
	struct fixture *f = *state;

	f->pool->record.policy.repair = TM_REPAIR_WHEN_IDLE;
	kernel.gone = true;
	tm_pool_down(f->pool);
	f->pool->state = TM_POOL_INACTIVE;
	tm_pool_mend(f->pool);
	ticks(f);
	(void)ended(f, 0); /* it is only down */
	f->pool->damaged = true;
	tm_pool_mend(f->pool);
	assert_string_equal(ended(f, 1)->kind, "pool-repair");
	assert_true(f->pool->mend.tried);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, running_setup, running_teardown)
	const struct CMUnitTest tests[] = {
		TEST(idle),     TEST(manual),          TEST(in_use),
		TEST(by_force), TEST(out_of_metadata), TEST(at_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
