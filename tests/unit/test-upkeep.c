// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which pool is checked by itself, and that one is at a time. The check itself goes no further
 * than its steps that need the real kernel, or tools.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "running-core.h"

#define DAY_USEC (24 * 3600 * TM_USEC_PER_SEC)

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

/* Wait until all that the timer asks for is over: the newest of @wanted. */
static const struct tm_operation_record *settled(struct fixture *f, size_t wanted)
{
	const uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;
	static struct tm_operation_record found[4];
	struct tm_core *core = &f->base.core;
	uint64_t next = 0;
	int armed = SD_EVENT_ONESHOT;

	do {
		if (tm_now_monotonic_usec() > end)
			fail_msg("the timer does not come to rest");
		turn(f);
		assert_true(sd_event_source_get_enabled(core->upkeep_timer, &armed) >= 0);
		assert_true(sd_event_source_get_time(core->upkeep_timer, &next) >= 0);
	} while (core->upkeep_busy || core->n_unfinished || armed == SD_EVENT_OFF ||
		 next <= tm_now_monotonic_usec());
	rest(f);
	assert_int_equal(operations(f, found), wanted);
	return found;
}

/* The same once it was made to look. */
static const struct tm_operation_record *looked(struct fixture *f, size_t wanted)
{
	tm_upkeep_soon(&f->base.core);
	return settled(f, wanted);
}

/* A pool that is long overdue, and whose check fails: somebody holds a metadata snapshot. */
static int setup(void **state)
{
	int r = running_setup(state);
	struct fixture *f = *state;

	f->base.core.system.ready = true;
	f->pool->record.created_usec = tm_now_realtime_usec() - 30 * DAY_USEC;
	kernel.status.held_root_valid = true;
	kernel.status.held_root = 7;
	look(f);
	return r;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sd_event_source_disable_unref(f->base.core.upkeep_timer);
	return running_teardown(state);
}

static void overdue(void **state)
{
	struct fixture *f = *state;
	const struct tm_operation_record *op = looked(f, 1);

	assert_string_equal(op->kind, "pool-check");
	assert_int_equal(op->status, TM_OP_FAILED);
	assert_int_equal(f->pool->upkeep.failures.n, 1);
	told(f, "operation-failed");
	/* It is left alone for a while, and then not told again. */
	(void)looked(f, 1);
	f->pool->upkeep.failures.last_usec -= DAY_USEC;
	(void)looked(f, 2);
	assert_int_equal(f->pool->upkeep.failures.n, 2);
	told(f, "");
	/* Another reason is told. */
	f->pool->upkeep.told = TM_ERR_NO_SPACE;
	f->pool->upkeep.failures.last_usec -= DAY_USEC;
	(void)looked(f, 3);
	told(f, "operation-failed");
}

static void not_due(void **state)
{
	struct fixture *f = *state;

	f->pool->record.checked_usec = f->pool->record.copied_usec = tm_now_realtime_usec();
	(void)looked(f, 0);
	f->pool->record.checked_usec = f->pool->record.copied_usec = 0;
	f->pool->record.policy.copy_hours = f->pool->record.policy.check_days = 0;
	(void)looked(f, 0);
	f->pool->record.policy.check_days = 1;
	(void)looked(f, 1);
}

/* Nothing is asked of one in no state for it; as soon as it is in one, it has its turn. */
static void in_no_state(void **state)
{
	struct fixture *f = *state;

	f->pool->raising = true;
	(void)looked(f, 0);
	f->pool->raising = false;
	f->pool->unsettled = true;
	(void)looked(f, 0);
	f->pool->unsettled = false;
	f->pool->state = TM_POOL_UNCERTAIN;
	(void)looked(f, 0);
	f->pool->state = TM_POOL_ACTIVE;
	kernel.status.mode = TM_MODE_READ_ONLY;
	kernel.status.needs_check = true;
	look(f);
	(void)looked(f, 0);
	assert_true(f->pool->upkeep.waits);
	f->told[0] = '\0';
	kernel.status.mode = TM_MODE_WRITE;
	kernel.status.needs_check = false;
	look(f);
	(void)settled(f, 1);
}

static void before_ready(void **state)
{
	struct fixture *f = *state;

	f->base.core.system.ready = false;
	tm_upkeep_soon(&f->base.core);
	assert_null(f->base.core.upkeep_timer);
	f->base.core.system.ready = true;
	(void)looked(f, 1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(overdue),
		TEST(not_due),
		TEST(in_no_state),
		TEST(before_ready),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
