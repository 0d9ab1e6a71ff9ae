/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The recorder, with a real database and main loop: what is told was committed before, in order,
 * and one thing that cannot be written takes nothing else with it.
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
#include <sqlite3.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core-fixture.h"
#include "logic/policy.h"

#define LIMIT_USEC (20 * TM_USEC_PER_SEC)

/* What one listener was told: messages joined by spaces. */
struct told {
	struct core_fixture *f;
	char messages[256];
	uint64_t last_seq;
	size_t n;
};

static void listen(void *userdata, const struct tm_event *events, size_t n)
{
	struct told *told = userdata;

	for (size_t i = 0; i < n; i++) {
		const size_t len = strlen(told->messages);
		uint64_t committed = 0;

		(void)snprintf(told->messages + len, sizeof(told->messages) - len, "%s%s",
			       len ? " " : "", events[i].message);
		assert_true(events[i].seq > told->last_seq);
		told->last_seq = events[i].seq;
		told->n++;
		/* Another process finds it by now. */
		assert_int_equal(tm_store_last_seq(told->f->reader, &committed, NULL), 0);
		assert_true(committed >= events[i].seq);
	}
}

static int setup(void **state)
{
	struct core_fixture *f;

	(void)core_setup(state);
	f = *state;
	assert_true(sd_event_new(&f->core.event) >= 0);
	assert_int_equal(tm_mailbox_new(f->core.event, &f->core.mailbox), 0);
	assert_int_equal(tm_crew_new(1, "recorder", &f->core.recorder), 0);
	return 0;
}

static int teardown(void **state)
{
	struct core_fixture *f = *state;

	sd_event_source_disable_unref(f->core.record_source);
	f->core.recorder = tm_crew_free(f->core.recorder);
	f->core.mailbox = tm_mailbox_free(f->core.mailbox);
	while (f->core.listeners)
		(void)tm_core_unlisten(&f->core, f->core.listeners);
	f->core.event = sd_event_unref(f->core.event);
	return core_teardown(state);
}

static void run_until(struct core_fixture *f, const size_t *n, size_t wanted)
{
	const uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;

	while (*n < wanted) {
		if (tm_now_monotonic_usec() > end)
			fail_msg("told of %zu events, not of %zu", *n, wanted);
		assert_true(sd_event_run(f->core.event, 100 * TM_USEC_PER_MSEC) >= 0);
	}
}

static void record(struct core_fixture *f, const struct tm_pool *pool, const char *message)
{
	struct tm_event_spec spec = { .type = TM_EVENT_EXTENDED, .pool = pool };

	spec.data = strdup("{\"space\":\"data\"}");
	assert_non_null(spec.data);
	tm_record_event(&f->core, &spec, "%s", message);
}

static struct tm_pool a_pool(unsigned int n, const char *name)
{
	struct tm_pool pool = { .record = { .id = id_of(n),
					    .data_bytes = 64 * TM_MIB,
					    .metadata_bytes = TM_MIB,
					    .block_bytes = 65536 } };

	(void)snprintf(pool.record.name, sizeof(pool.record.name), "%s", name);
	(void)snprintf(pool.record.directory, sizeof(pool.record.directory), "/pools/%s", name);
	tm_policy_default(&pool.record.policy);
	return pool;
}

static void put_pool(struct core_fixture *f, const struct tm_pool *pool)
{
	struct tm_error err = { 0 };

	if (tm_store_put_pool(f->core.store, &pool->record, &err) < 0)
		fail_msg("%s", err.detail);
}

static struct tm_pool_record recorded(struct core_fixture *f, const struct tm_pool *pool)
{
	struct tm_pool_record record;

	assert_int_equal(tm_store_load_pool(f->core.store, &pool->record.id, &record, NULL), 0);
	return record;
}

static void tells_in_order(void **state)
{
	struct core_fixture *f = *state;
	struct told told = { .f = f };
	struct tm_pool tank = a_pool(1, "tank");
	struct tm_event *events = NULL;
	size_t n = 0;

	put_pool(f, &tank);
	assert_non_null(tm_core_listen(&f->core, listen, &told));
	record(f, &tank, "one");
	tank.record.data_bytes = 128 * TM_MIB;
	tm_record_sizes(&f->core, &tank, false);
	record(f, NULL, "two");
	/* Not before this turn of the loop is over: it may have more to record. */
	assert_int_equal(told.n, 0);
	assert_int_equal(recorded(f, &tank).data_bytes, 64 * TM_MIB);
	run_until(f, &told.n, 2);
	record(f, &tank, "three");
	run_until(f, &told.n, 3);
	assert_string_equal(told.messages, "one two three");
	assert_int_equal(recorded(f, &tank).data_bytes, 128 * TM_MIB);

	assert_int_equal(tm_store_read_events(f->reader, &(struct tm_event_filter){ .type = -1 },
					      &events, &n, NULL),
			 0);
	assert_int_equal(n, 3);
	assert_string_equal(events[0].pool_name, "tank");
	assert_string_equal(events[0].data, "{\"space\":\"data\"}");
	assert_string_equal(events[1].pool_name, "");
	for (size_t i = 0; i < n; i++)
		tm_event_done(&events[i]);
	free(events);
}

/* Sizes of a pool that was deleted since are of no use, and no harm. */
static void sizes_without_a_pool(void **state)
{
	struct core_fixture *f = *state;
	struct told told = { .f = f };
	struct tm_pool tank = a_pool(1, "tank"), gone = a_pool(2, "gone");

	put_pool(f, &tank);
	assert_non_null(tm_core_listen(&f->core, listen, &told));
	record(f, &tank, "before");
	tm_record_sizes(&f->core, &gone, true);
	tank.record.data_bytes = 96 * TM_MIB;
	tm_record_sizes(&f->core, &tank, false);
	record(f, &tank, "after");
	run_until(f, &told.n, 2);
	assert_string_equal(told.messages, "before after");
	assert_int_equal(recorded(f, &tank).data_bytes, 96 * TM_MIB);
}

/* An event without a number could not be replayed: nobody is told. The others get theirs. */
static void event_that_cannot_be_written(void **state)
{
	struct core_fixture *f = *state;
	struct told told = { .f = f };
	struct tm_pool tank = a_pool(1, "tank"), bad = a_pool(2, "bad");
	tm_auto_free char *path = NULL;
	sqlite3 *db = NULL;

	assert_true(asprintf(&path, "%s/state.db", f->directory) > 0);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				      "CREATE TRIGGER refuse BEFORE INSERT ON events "
				      "WHEN NEW.pool_name = 'bad' "
				      "BEGIN SELECT RAISE(ABORT, 'refused'); END",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	put_pool(f, &tank);
	put_pool(f, &bad);
	assert_non_null(tm_core_listen(&f->core, listen, &told));
	record(f, &tank, "first");
	record(f, &bad, "lost");
	record(f, &tank, "last");
	run_until(f, &told.n, 2);
	assert_string_equal(told.messages, "first last");
	assert_int_equal(told.last_seq, 2);
}

static void listeners_come_and_go(void **state)
{
	struct core_fixture *f = *state;
	struct told a = { .f = f }, b = { .f = f }, c = { .f = f };
	struct tm_listener *middle;

	assert_non_null(tm_core_listen(&f->core, listen, &a));
	middle = tm_core_listen(&f->core, listen, &b);
	assert_non_null(middle);
	assert_non_null(tm_core_listen(&f->core, listen, &c));
	record(f, NULL, "x");
	run_until(f, &a.n, 1);
	assert_null(tm_core_unlisten(&f->core, middle));
	record(f, NULL, "y");
	run_until(f, &a.n, 2);
	assert_string_equal(a.messages, "x y");
	assert_string_equal(b.messages, "x");
	assert_string_equal(c.messages, "x y");
}

/* What is recorded when the daemon stops is written still: the crew ends its work first. */
static void written_at_the_end(void **state)
{
	struct core_fixture *f = *state;
	uint64_t seq = 0;

	record(f, NULL, "late");
	tm_record_flush(&f->core);
	f->core.recorder = tm_crew_free(f->core.recorder);
	assert_int_equal(tm_store_last_seq(f->reader, &seq, NULL), 0);
	assert_int_equal(seq, 1);
	/* Who would have been told is gone, and what was to be told with it. */
	while (sd_event_run(f->core.event, 0) > 0)
		;
	assert_int_equal(tm_crew_new(1, "recorder", &f->core.recorder), 0);
}

/* Each id that a message carries is explained, and nothing is that no message carries. */
static void ids_are_in_the_catalog(void **state)
{
	const char *root = getenv("SOURCE_ROOT");
	tm_auto_free char *path = NULL, *text = NULL;
	size_t len = 0, used = 0, explained = 0;

	(void)state;
	assert_true(asprintf(&path, "%s/packaging/thinmgr.catalog", root ? root : ".") > 0);
	assert_int_equal(tm_read_file(path, 65536, &text, &len), 0);
	for (unsigned int i = 0; i < TM_EVENT_COUNT; i++) {
		const char *id = tm_event_message_id(i);
		char head[64];
		bool before = false;

		if (!id)
			continue;
		/* After an empty line, or it is taken for text of the one before. */
		(void)snprintf(head, sizeof(head), "\n\n-- %s\n", id);
		if (!strstr(text, head))
			fail_msg("%s: %s is not in the catalog", tm_event_slug(i), id);
		for (unsigned int k = 0; k < i; k++)
			before = before || (tm_event_message_id(k) &&
					    strcmp(tm_event_message_id(k), id) == 0);
		used += before ? 0 : 1;
	}
	for (const char *at = text; (at = strstr(at, "\n-- ")); at++)
		explained++;
	assert_true(used > 0);
	assert_int_equal(explained, used);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(tells_in_order),
		TEST(sizes_without_a_pool),
		TEST(event_that_cannot_be_written),
		TEST(listeners_come_and_go),
		TEST(written_at_the_end),
		cmocka_unit_test(ids_are_in_the_catalog),
	};

	return cmocka_run_group_tests_name("recorder", tests, NULL, NULL);
}
