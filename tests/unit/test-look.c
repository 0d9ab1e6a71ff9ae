/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A look at a pool, with a kernel that only talks: what is decided from its status, what is asked
 * of it, and what is told of it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "running-core.h"
#include "skip.h"
#include "store/internal.h"

/* Levels decide: one block above the mark nothing happens, at it the pool grows. */
static void grows_at_its_mark(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record row;

	kernel.status.data_used = BLOCKS - MARK - 1;
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 0);

	kernel.status.data_used++;
	look(f);
	told(f, "low-space extended");
	assert_true(kernel.status.data_total > BLOCKS);
	assert_int_equal(kernel.n_loads, 1);
	assert_int_equal(kernel.n_resumes, 1);
	assert_int_equal(f->pool->record.data_bytes, kernel.status.data_total * BLOCK);
	assert_int_equal(f->pool->record.low_water_bytes, kernel.mark_blocks * BLOCK);
	/* What it grew by came out of the reserve. */
	assert_int_equal(f->pool->record.data_bytes + f->pool->record.data_reserve_bytes,
			 2 * BLOCKS * BLOCK);
	assert_int_equal(f->pool->data.extensions, 1);
	assert_int_equal(f->pool->data.reaction.count, 1);
	assert_int_equal(f->pool->metadata.extensions, 0);
	assert_int_equal(tm_store_load_pool(f->base.core.store, &f->pool->record.id, &row, NULL),
			 0);
	assert_int_equal(row.data_bytes, f->pool->record.data_bytes);
	assert_int_equal(row.low_water_bytes, f->pool->record.low_water_bytes);

	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 1);
}

/* What could not be had for long is asked for at once when the pool is taken up again. */
static void tries_anew_when_taken_up_again(void **state)
{
	struct fixture *f = *state;
	const uint64_t set_aside = f->pool->spare_bytes;

	assert_true(set_aside > 0);
	f->pool->spare_bytes = 0;
	for (unsigned int i = 0; i < 10; i++)
		(void)tm_backoff_fail(&f->pool->spare_backoff, tm_now_monotonic_usec());
	look(f);
	assert_int_equal(f->pool->spare_bytes, 0);

	tm_pool_down(f->pool);
	tm_pool_up(f->pool);
	look(f);
	assert_int_equal(f->pool->spare_bytes, set_aside);
}

struct marked {
	struct fixture *f;
	unsigned int n,
		times; /* volumes that were marked in the database when a table was loaded */
};

static void count_marked(void *userdata)
{
	struct marked *m = userdata;
	struct tm_volume_record *all = NULL;
	size_t n = 0;

	m->times++;
	m->n = 0;
	assert_int_equal(tm_store_load_volumes(m->f->base.core.store, &m->f->pool->record.id, &all,
					       &n, NULL),
			 0);
	for (size_t i = 0; i < n; i++)
		m->n += all[i].suspect == TM_SUSPECT_NO_SPACE;
	free(all);
}

static void give_volumes(struct fixture *f)
{
	const struct tm_volume_record v[] = {
		{ .id = id_of(50), .name = "written", .dev_id = 1, .active = true },
		{ .id = id_of(51), .name = "resting", .dev_id = 2 },
		{ .id = id_of(52), .name = "kept", .dev_id = 3, .active = true, .read_only = true },
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(v); i++)
		assert_int_equal(
			tm_store_put_volume(f->base.core.store, &f->pool->record.id, &v[i], NULL),
			0);
	assert_int_equal(tm_pool_set_volumes(f->pool, v, TM_ARRAY_SIZE(v)), 0);
}

/* Space that is added must not hide that writes were lost: that is in the database by then. */
static void lost_writes_are_marked_first(void **state)
{
	struct fixture *f = *state;
	struct marked m = { .f = f };

	give_volumes(f);
	kernel.before_load = count_marked;
	kernel.userdata = &m;
	kernel.status.mode = TM_MODE_OUT_OF_DATA_SPACE;
	kernel.status.error_if_no_space = true;
	kernel.status.data_used = BLOCKS;
	look(f);
	assert_true(m.times > 0);
	assert_int_equal(m.n, 1);
	assert_int_equal(kernel.status.mode, TM_MODE_WRITE);
	assert_non_null(strstr(f->told, "volume-suspect"));
	assert_null(strstr(strstr(f->told, "volume-suspect") + 1, "volume-suspect"));
	assert_int_equal(tm_pool_find_volume(f->pool, "written")->record.suspect,
			 TM_SUSPECT_NO_SPACE);
	assert_int_equal(tm_pool_find_volume(f->pool, "resting")->record.suspect, TM_SUSPECT_NOT);
	assert_int_equal(tm_pool_find_volume(f->pool, "kept")->record.suspect, TM_SUSPECT_NOT);
}

/* Nothing is lost of what waits. */
static void waiting_writes_are_not_lost(void **state)
{
	struct fixture *f = *state;
	struct marked m = { .f = f };

	give_volumes(f);
	kernel.before_load = count_marked;
	kernel.userdata = &m;
	kernel.status.mode = TM_MODE_OUT_OF_DATA_SPACE;
	kernel.status.data_used = BLOCKS;
	look(f);
	assert_true(m.times > 0);
	assert_int_equal(m.n, 0);
	assert_null(strstr(f->told, "volume-suspect"));
}

static void break_volumes(struct fixture *f, bool broken)
{
	assert_int_equal(tm_db_exec(&f->base.core.store->db,
				    broken ? "ALTER TABLE volumes RENAME TO hidden"
					   : "ALTER TABLE hidden RENAME TO volumes",
				    "test", NULL),
			 0);
}

/* Where the mark cannot be recorded the pool is left as it is. */
static void unrecorded_loss(void **state)
{
	struct fixture *f = *state;

	give_volumes(f);
	kernel.status.mode = TM_MODE_OUT_OF_DATA_SPACE;
	kernel.status.error_if_no_space = true;
	kernel.status.data_used = BLOCKS;
	break_volumes(f, true);
	look(f);
	assert_int_equal(kernel.n_loads, 0);
	assert_int_equal(kernel.status.mode, TM_MODE_OUT_OF_DATA_SPACE);
	assert_non_null(f->pool->retry_timer);
	break_volumes(f, false);
	f->pool->data.backoff.not_before_usec = 0;
	look(f);
	assert_int_equal(kernel.n_loads, 1);
	assert_non_null(strstr(f->told, "volume-suspect"));
}

/* Metadata takes all that lies below at once, by a resume of the same table. */
static void metadata_grows(void **state)
{
	struct fixture *f = *state;

	f->pool->record.metadata_reserve_bytes = 1024 * TM_METADATA_BLOCK;
	kernel.more_meta = 1024;
	kernel.status.metadata_used = 1024 - 256;
	look(f);
	told(f, "metadata-low-space extended");
	assert_int_equal(kernel.n_loads, 1);
	assert_int_equal(kernel.table_blocks, BLOCKS);
	assert_int_equal(kernel.status.metadata_total, 2048);
	assert_int_equal(f->pool->record.metadata_bytes, 2048 * TM_METADATA_BLOCK);
	assert_int_equal(f->pool->record.metadata_reserve_bytes, 0);
	assert_int_equal(f->pool->metadata.extensions, 1);
	assert_int_equal(f->pool->data.extensions, 0);
}

/* A resume succeeds where the kernel refuses: told once, tried again, and told when it goes on. */
static void says_when_it_does_not_grow(void **state)
{
	struct fixture *f = *state;

	kernel.refuses = true;
	kernel.status.data_used = BLOCKS - MARK;
	look(f);
	told(f, "low-space extend-failed");
	assert_int_equal(kernel.n_loads, 1);
	assert_int_equal(f->pool->data.extensions, 0);
	assert_int_equal(f->pool->data.reaction.count, 0);
	assert_int_equal(f->pool->record.data_bytes, BLOCKS * BLOCK);
	assert_int_equal(f->pool->record.data_reserve_bytes, BLOCKS * BLOCK);
	assert_int_equal(f->pool->data.backoff.failures, 1);
	assert_non_null(f->pool->retry_timer);

	/* Backing off, it is looked at and left alone. */
	f->pool->data.backoff.not_before_usec = tm_now_monotonic_usec() + 3600 * TM_USEC_PER_SEC;
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 1);

	/* A further failure is not told again. */
	f->pool->data.backoff.not_before_usec = 0;
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 2);
	assert_int_equal(f->pool->data.backoff.failures, 2);

	kernel.refuses = false;
	f->pool->data.backoff.not_before_usec = 0;
	look(f);
	told(f, "extended extend-resumed");
	assert_int_equal(f->pool->data.backoff.failures, 0);
}

static void load_is_refused(void **state)
{
	struct fixture *f = *state;

	kernel.load_error = ENOMEM;
	kernel.status.data_used = BLOCKS - MARK;
	look(f);
	told(f, "low-space extend-failed");
	assert_int_equal(kernel.n_resumes, 0);
	assert_int_equal(f->pool->record.data_bytes, BLOCKS * BLOCK);
}

static void policy_says_no(void **state)
{
	struct fixture *f = *state;

	f->pool->record.policy.data.enabled = false;
	kernel.status.data_used = BLOCKS - 1;
	look(f);
	told(f, "low-space");
	assert_int_equal(kernel.n_loads, 0);

	f->pool->record.policy.data.enabled = true;
	f->pool->record.policy.data.maximum_bytes = BLOCKS * BLOCK;
	look(f);
	told(f, "extend-failed");
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 0);
	assert_int_equal(f->pool->data.verdict, TM_EXTEND_AT_MAXIMUM);
}

/* Uncertain means hands off: it is watched, and what is seen is told. */
static void uncertain_is_left_alone(void **state)
{
	struct fixture *f = *state;

	f->pool->state = TM_POOL_UNCERTAIN;
	kernel.status.data_used = BLOCKS - 1;
	look(f);
	told(f, "low-space");
	assert_int_equal(kernel.n_loads, 0);
	assert_int_equal(f->pool->status.data_used, BLOCKS - 1);
	assert_int_equal(f->pool->state, TM_POOL_UNCERTAIN);
}

static void needs_check_first(void **state)
{
	struct fixture *f = *state;

	kernel.status.mode = TM_MODE_READ_ONLY;
	kernel.status.needs_check = true;
	kernel.status.data_used = BLOCKS - 1;
	look(f);
	told(f, "low-space mode-changed needs-check extend-failed");
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_loads, 0);
}

/* Writes wait for space: since when is told, and when they go on. */
static void queues_and_goes_on(void **state)
{
	struct fixture *f = *state;

	f->pool->record.policy.data.enabled = false;
	kernel.status.mode = TM_MODE_OUT_OF_DATA_SPACE;
	kernel.status.data_used = BLOCKS;
	look(f);
	told(f, "low-space mode-changed out-of-space queueing");
	assert_true(f->pool->queueing_since_usec > 0);
	look(f);
	told(f, "");

	f->pool->record.policy.data.enabled = true;
	f->pool->record.data_reserve_bytes = 4 * BLOCKS * BLOCK;
	look(f);
	told(f, "extended mode-changed queueing-ended");
	assert_int_equal(f->pool->queueing_since_usec, 0);
	assert_int_equal(f->pool->status.mode, TM_MODE_WRITE);
}

static void disappears(void **state)
{
	struct fixture *f = *state;

	kernel.gone = true;
	look(f);
	told(f, "pool-vanished");
	assert_int_equal(f->pool->state, TM_POOL_INACTIVE);
	assert_non_null(strstr(f->pool->state_reason, "removed"));
	look(f);
	told(f, "");
}

/* A transaction id that nobody here moved. */
static void changed_by_somebody_else(void **state)
{
	struct fixture *f = *state;

	kernel.status.transaction_id = 7;
	look(f);
	told(f, "transaction-mismatch");
	look(f);
	told(f, "");
}

/* One that an operation is just moving is nobody else's doing, whenever the look read it. */
static void moved_by_an_operation(void **state)
{
	struct fixture *f = *state;
	struct tm_op op = { .type = tm_op_type(TM_CMD_VOLUME_CREATE) };

	f->pool->running = &op;
	kernel.status.transaction_id = 1;
	look(f);
	told(f, "");
	assert_int_equal(f->pool->status.transaction_id, 0);

	/* It ends before what was read arrives. */
	tm_pool_look(f->pool, 0);
	f->pool->running = NULL;
	f->pool->record.transaction_id = f->pool->status.transaction_id = 2;
	rest(f);
	told(f, "");
	assert_int_equal(f->pool->status.transaction_id, 2);

	look(f);
	told(f, "transaction-mismatch");
	assert_int_equal(f->pool->status.transaction_id, 1);
}

/* However often it is asked for meanwhile: one more look, and what was seen first counts. */
static void asked_for_during_a_look(void **state)
{
	struct fixture *f = *state;
	const unsigned int before = kernel.n_status;

	tm_pool_look(f->pool, 0);
	assert_true(f->pool->looking);
	tm_pool_look(f->pool, 0);
	tm_pool_look(f->pool, 1000);
	tm_pool_look(f->pool, 2000);
	assert_true(f->pool->look_again);
	assert_int_equal(f->pool->look_again_seen_usec, 1000);
	rest(f);
	assert_false(f->pool->look_again);
	assert_int_equal(kernel.n_status, before + 2);
}

/* A pool that is not up is not looked at. */
static void not_up(void **state)
{
	struct fixture *f = *state;
	const unsigned int before = kernel.n_status;

	f->pool->state = TM_POOL_INACTIVE;
	look(f);
	assert_int_equal(kernel.n_status, before);
	told(f, "");
}

/* ---- with our own target --------------------------------------------------------------------- */

/* What our target answers when it is asked for its events; NULL: it knows no such message. */
static void ours_says(struct fixture *f, const char *text)
{
	f->base.core.system.target_grows = true;
	TM_LOCK_SCOPE(&kernel.lock);
	kernel.events = text;
}

/* The distribution's target is asked for nothing. */
static void stock_is_not_asked(void **state)
{
	struct fixture *f = *state;

	kernel.status.data_used = BLOCKS - MARK;
	look(f);
	assert_null(strstr(f->data, "kernel_usec"));
	told(f, "low-space extended");
	assert_int_equal(kernel.n_asked, 0);
}

/* It is asked once a look, for what is new; what began and ended unseen is told with its times. */
static void unseen_is_told(void **state)
{
	struct fixture *f = *state;
	const uint64_t at = f->pool->ring.floor_ns + 1000000000;
	char text[256], began[32], ended[32], expected[512];

	ours_says(f, "1\n1 5 mode rw");
	look(f);
	told(f, "");
	assert_int_equal(kernel.n_asked, 1);
	assert_int_equal(kernel.since, 0);

	(void)snprintf(text, sizeof(text),
		       "3\n2 %" PRIu64 " mode out_of_data_space\n3 %" PRIu64 " mode rw", at,
		       at + 2000000000);
	ours_says(f, text);
	look(f);
	(void)tm_time_format(at / 1000, began, sizeof(began));
	(void)tm_time_format(at / 1000 + 2 * TM_USEC_PER_SEC, ended, sizeof(ended));
	(void)snprintf(expected, sizeof(expected),
		       "{\"from\":\"write\",\"to\":\"out_of_data_space\",\"began\":\"%1$s\","
		       "\"ended\":\"%2$s\"}\n{\"until\":null,\"timed_out\":false,"
		       "\"began\":\"%1$s\",\"ended\":\"%2$s\"}\n"
		       "{\"from\":\"out_of_data_space\",\"to\":\"write\",\"began\":\"%1$s\","
		       "\"ended\":\"%2$s\"}\n",
		       began, ended);
	assert_string_equal(f->data, expected);
	told(f, "mode-changed out-of-space mode-changed");
	assert_int_equal(kernel.since, 1);
	assert_int_equal(kernel.n_asked, 2);

	ours_says(f, "3");
	look(f);
	told(f, "");
	assert_int_equal(kernel.since, 3);

	/* One into the other: out, read-only, and back. */
	(void)snprintf(text, sizeof(text),
		       "6\n4 %" PRIu64 " mode out_of_data_space\n5 %" PRIu64 " mode ro\n6 %" PRIu64
		       " mode rw",
		       at + 3000000000, at + 4000000000, at + 5000000000);
	ours_says(f, text);
	look(f);
	told(f, "mode-changed out-of-space mode-changed mode-changed");
}

/* What the status showed is told by it alone, whoever read it. */
static void seen_is_told_once(void **state)
{
	struct fixture *f = *state;
	const uint64_t at = f->pool->ring.floor_ns;
	struct tm_thin_pool_status s;
	char text[256];

	f->pool->record.policy.data.enabled = false;
	kernel.status.mode = TM_MODE_OUT_OF_DATA_SPACE;
	kernel.status.data_used = BLOCKS;
	(void)snprintf(text, sizeof(text), "2\n1 5 mode rw\n2 %" PRIu64 " mode out_of_data_space",
		       at + 1);
	ours_says(f, text);
	look(f);
	told(f, "low-space mode-changed out-of-space queueing");

	kernel.status.mode = TM_MODE_WRITE;
	(void)snprintf(text, sizeof(text), "3\n3 %" PRIu64 " mode rw", at + 2);
	ours_says(f, text);
	look(f);
	told(f, "mode-changed queueing-ended");

	s = kernel.status;
	s.mode = TM_MODE_READ_ONLY;
	tm_pool_saw(f->pool, &s, 0);
	rest(f);
	told(f, "mode-changed");
	(void)snprintf(text, sizeof(text), "5\n4 %" PRIu64 " mode ro\n5 %" PRIu64 " mode rw",
		       at + 3, at + 4);
	ours_says(f, text);
	look(f);
	told(f, "mode-changed");
}

/* How long it took from when the kernel said so; only of the growth that is told of. */
static void growth_is_timed(void **state)
{
	struct fixture *f = *state;
	const uint64_t at = f->pool->ring.floor_ns;
	uint64_t blocks;
	char text[256];

	/* To learn what it will grow to. */
	ours_says(f, "0");
	kernel.status.data_used = BLOCKS - MARK;
	look(f);
	assert_int_equal(kernel.n_grown, 1);
	assert_int_equal(kernel.n_loads, 0);
	assert_null(strstr(f->data, "kernel_usec"));
	told(f, "low-space extended");

	f->pool->record.data_reserve_bytes = 4 * BLOCKS * BLOCK;
	blocks = kernel.status.data_total;
	kernel.status.data_used = blocks - 1;
	(void)snprintf(text, sizeof(text),
		       "2\n1 %" PRIu64 " data_low 1\n2 %" PRIu64 " data_grown %" PRIu64, at + 1000,
		       at + 43000, blocks + 1);
	ours_says(f, text);
	look(f);
	assert_int_equal(kernel.n_grown, 2);
	assert_null(strstr(f->data, "kernel_usec"));
	told(f, "low-space extended");
}

static void growth_has_its_time(void **state)
{
	struct fixture *f = *state;
	const uint64_t at = f->pool->ring.floor_ns;
	char text[256];

	/* All that is armed: known beforehand. */
	f->pool->record.data_reserve_bytes = 64 * BLOCK;
	kernel.status.data_used = BLOCKS - 1;
	(void)snprintf(text, sizeof(text),
		       "2\n1 %" PRIu64 " data_low 1\n2 %" PRIu64 " data_grown %u", at + 1000,
		       at + 43000, BLOCKS + 64);
	ours_says(f, text);
	tm_pool_look(f->pool, tm_now_monotonic_usec());
	while (!strstr(f->told, "extended"))
		turn(f);
	assert_int_equal(kernel.status.data_total, BLOCKS + 64);
	assert_non_null(strstr(f->data, "\"kernel_usec\":42}"));
	rest(f);
}

/* Without an answer that is understood it goes on as with the distribution's, and asks no more. */
static void not_answered(void **state)
{
	static const char *const answers[] = { NULL, "", "nonsense", "3\n3 5 mode rw\n" };
	struct fixture *f = *state;

	for (size_t i = 0; i < TM_ARRAY_SIZE(answers); i++) {
		const unsigned int before = kernel.n_asked;

		ours_says(f, answers[i]);
		look(f);
		look(f);
		told(f, "");
		assert_true(f->pool->ring_off);
		assert_int_equal(kernel.n_asked, before + 1);

		/* Taken down and up it may have got another. */
		tm_pool_down(f->pool);
		tm_pool_up(f->pool);
		assert_false(f->pool->ring_off);
	}
}

/* Taken for ours, but the distribution's is in its place: it grows all the same, by a table. */
static void not_ours_any_more(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;

	if (access("/sys/module/dm_thinmgr", F_OK) == 0)
		TM_SKIP("dm_thinmgr is loaded on this machine");
	ours_says(f, NULL);
	f->pool->ring_off = true;
	(void)snprintf(core->system.target_module, sizeof(core->system.target_module),
		       "dm_thinmgr");
	kernel.version = 22;
	kernel.status.data_used = BLOCKS - MARK;
	look(f);
	told(f, "low-space extended");
	assert_int_equal(kernel.n_loads, 1);
	assert_int_equal(kernel.n_grown, 0);
	assert_int_equal(kernel.n_asked, 1);
	assert_false(core->system.target_grows);
	assert_string_equal(core->system.target_module, "dm_thin_pool");

	/* And is not taken for it again. */
	kernel.status.data_used = kernel.status.data_total - 1;
	look(f);
	assert_int_equal(kernel.n_asked, 1);
}

/* Ours that refuses is asked no other way. */
static void ours_refuses(void **state)
{
	struct fixture *f = *state;

	ours_says(f, "1\n1 5 mode rw");
	kernel.grow_error = EINVAL;
	kernel.status.data_used = BLOCKS - MARK;
	look(f);
	told(f, "low-space extend-failed");
	assert_int_equal(kernel.n_loads, 0);
	assert_true(f->base.core.system.target_grows);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, running_setup, running_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(grows_at_its_mark),
		TEST(tries_anew_when_taken_up_again),
		TEST(lost_writes_are_marked_first),
		TEST(waiting_writes_are_not_lost),
		TEST(unrecorded_loss),
		TEST(metadata_grows),
		TEST(says_when_it_does_not_grow),
		TEST(load_is_refused),
		TEST(policy_says_no),
		TEST(uncertain_is_left_alone),
		TEST(needs_check_first),
		TEST(queues_and_goes_on),
		TEST(disappears),
		TEST(changed_by_somebody_else),
		TEST(moved_by_an_operation),
		TEST(asked_for_during_a_look),
		TEST(not_up),
		TEST(stock_is_not_asked),
		TEST(unseen_is_told),
		TEST(seen_is_told_once),
		TEST(growth_is_timed),
		TEST(growth_has_its_time),
		TEST(not_answered),
		TEST(not_ours_any_more),
		TEST(ours_refuses),
	};

	return cmocka_run_group_tests_name("look", tests, NULL, NULL);
}
