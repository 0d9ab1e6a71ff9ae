/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An operation's way from a command to its end: what is refused before anything is made, what is
 * durable when, in which order operations run, and who is told what.
 */
#include <errno.h>
#include <semaphore.h>
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

/* What became of a command. */
struct answer {
	struct fixture *f;
	bool come, accepted;
	enum tm_error_code code;
	struct tm_uuid id;
	enum tm_op_status recorded; /* what another process saw in that moment */
	/* of the wait for its end */
	bool over, ended;
	uint64_t published_percent; /* of the policy, in the view of that moment */
	unsigned int turn;          /* which of all answers it was */
};

static unsigned int n_over;

static void submitted(void *userdata, const struct tm_operation_record *op,
		      const struct tm_error *err)
{
	struct answer *a = userdata;
	struct tm_operation_record row = { 0 };

	assert_false(a->come);
	a->come = true;
	a->accepted = op != NULL;
	a->code = err ? err->code : TM_OK;
	if (!op)
		return;
	a->id = op->id;
	if (!op->id.text[0])
		return;
	assert_int_equal(tm_store_read_operation(a->f->base.reader, &op->id, &row, NULL), 0);
	a->recorded = row.status;
	tm_operation_record_done(&row);
}

static void over(void *userdata, bool ended)
{
	struct answer *a = userdata;
	tm_auto_view struct tm_view *view = tm_core_view(&a->f->base.core);
	const struct tm_pool_view *pool = tm_view_pool(view, "tank");

	assert_false(a->over);
	a->over = true;
	a->ended = ended;
	a->turn = ++n_over;
	a->published_percent = pool ? pool->record.policy.data.low_water_percent : 0;
}

/* A new policy for tank: an operation that only changes the database. */
static struct tm_command *policy_command(struct fixture *f, unsigned int percent)
{
	struct tm_command *cmd = calloc(1, sizeof(*cmd));

	assert_non_null(cmd);
	cmd->kind = TM_CMD_POOL_POLICY;
	(void)snprintf(cmd->pool, sizeof(cmd->pool), "tank");
	cmd->pool_policy.policy = f->pool->record.policy;
	cmd->pool_policy.policy.data.low_water_percent = percent;
	return cmd;
}

static void until(struct fixture *f, const bool *come)
{
	const uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;

	while (!*come) {
		if (tm_now_monotonic_usec() > end)
			fail_msg("no answer");
		turn(f);
	}
}

static void submit(struct fixture *f, struct tm_command *cmd, bool dry_run, struct answer *a)
{
	*a = (struct answer){ .f = f };
	tm_core_submit(&f->base.core, cmd, dry_run, submitted, a);
	until(f, &a->come);
}

static size_t n_recorded(struct fixture *f)
{
	struct tm_operation_record *rows = NULL;
	size_t n = 0;

	assert_int_equal(tm_store_read_operations(f->base.reader,
						  &(struct tm_operation_filter){ .status = -1 },
						  &rows, &n, NULL),
			 0);
	for (size_t i = 0; i < n; i++)
		tm_operation_record_done(&rows[i]);
	free(rows);
	return n;
}

static void runs_to_its_end(void **state)
{
	struct fixture *f = *state;
	struct tm_operation_record row = { 0 };
	struct tm_pool_record pool;
	struct answer a;

	submit(f, policy_command(f, 33), false, &a);
	assert_true(a.accepted);
	/* Whoever has its number finds it, whatever happens to the daemon. */
	assert_int_equal(a.recorded, TM_OP_QUEUED);
	tm_core_wait(&f->base.core, &a.id, LIMIT_USEC, over, &a);
	until(f, &a.over);
	assert_true(a.ended);
	/* Who waited for it sees what it did, and that there is news of it. */
	assert_true(tm_core_recording(&f->base.core));
	assert_int_equal(a.published_percent, 33);
	assert_int_equal(f->pool->record.policy.data.low_water_percent, 33);
	assert_int_equal(f->base.core.n_unfinished, 0);
	assert_int_equal(tm_core_operation(&f->base.core, &a.id, &row), -ENOENT);
	assert_int_equal(tm_store_read_operation(f->base.reader, &a.id, &row, NULL), 0);
	assert_int_equal(row.status, TM_OP_DONE);
	assert_true(row.finished_usec >= row.started_usec && row.started_usec >= row.created_usec);
	tm_operation_record_done(&row);
	assert_int_equal(tm_store_load_pool(f->base.core.store, &f->pool->record.id, &pool, NULL),
			 0);
	assert_int_equal(pool.policy.data.low_water_percent, 33);
	rest(f);
	told(f, "policy-changed");

	/* One that has ended is not waited for. */
	a.over = false;
	tm_core_wait(&f->base.core, &a.id, LIMIT_USEC, over, &a);
	until(f, &a.over);
	assert_true(a.ended);
}

static void hold_up(void *arg)
{
	sem_t *go_on = arg;

	while (sem_wait(go_on) < 0)
		;
}

static uint64_t last_event(struct fixture *f)
{
	uint64_t seq = 0;

	assert_int_equal(tm_store_last_seq(f->base.reader, &seq, NULL), 0);
	return seq;
}

/* Who wants the events of what it has seen waits for the one who writes them, but not for ever. */
static void events_can_be_waited_for(void **state)
{
	struct fixture *f = *state;
	const uint64_t before = last_event(f);
	struct tm_event_spec spec = { .type = TM_EVENT_EXTENDED, .pool = f->pool };
	struct answer events = { .f = f };
	sem_t go_on;

	assert_int_equal(sem_init(&go_on, 0, 0), 0);
	tm_crew_run(f->base.core.recorder, hold_up, &go_on);
	assert_false(tm_core_recording(&f->base.core));
	tm_record_event(&f->base.core, &spec, "an event");
	assert_true(tm_core_recording(&f->base.core));

	tm_core_wait_recorded(&f->base.core, 50 * TM_USEC_PER_MSEC, over, &events);
	until(f, &events.over);
	assert_false(events.ended);
	assert_int_equal(last_event(f), before);

	events.over = false;
	tm_core_wait_recorded(&f->base.core, LIMIT_USEC, over, &events);
	for (int i = 0; i < 3; i++)
		turn(f);
	assert_false(events.over);
	assert_int_equal(sem_post(&go_on), 0);
	until(f, &events.over);
	assert_true(events.ended);
	assert_true(last_event(f) > before);
	assert_false(tm_core_recording(&f->base.core));

	/* Nothing is on its way. */
	events.over = false;
	tm_core_wait_recorded(&f->base.core, LIMIT_USEC, over, &events);
	until(f, &events.over);
	assert_true(events.ended);
	told(f, "extended");
	assert_int_equal(sem_destroy(&go_on), 0);
}

/* All are accepted, and end. */
static void all_end(struct fixture *f, struct answer *a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		until(f, &a[i].come);
		assert_true(a[i].accepted);
		tm_core_wait(&f->base.core, &a[i].id, LIMIT_USEC, over, &a[i]);
	}
	for (size_t i = 0; i < n; i++)
		until(f, &a[i].over);
}

/* One at a time for a pool, in the order they came; meanwhile each can be asked for. */
static void one_after_the_other(void **state)
{
	struct fixture *f = *state;
	uint64_t finished_usec = 0;
	struct answer a[4];

	n_over = 0;
	for (size_t i = 0; i < TM_ARRAY_SIZE(a); i++) {
		a[i] = (struct answer){ .f = f };
		tm_core_submit(&f->base.core, policy_command(f, 20 + (unsigned int)i), false,
			       submitted, &a[i]);
	}
	all_end(f, a, TM_ARRAY_SIZE(a));
	for (size_t i = 0; i < TM_ARRAY_SIZE(a); i++) {
		struct tm_operation_record row = { 0 };

		assert_true(a[i].ended);
		assert_int_equal(a[i].turn, i + 1);
		assert_int_equal(tm_store_read_operation(f->base.reader, &a[i].id, &row, NULL), 0);
		assert_true(row.started_usec >= finished_usec);
		finished_usec = row.finished_usec;
		tm_operation_record_done(&row);
	}
	assert_int_equal(f->pool->record.policy.data.low_water_percent, 23);
	assert_null(f->pool->queue);
	assert_null(f->pool->running);
	assert_int_equal(n_recorded(f), TM_ARRAY_SIZE(a));
	rest(f);
	told(f, "policy-changed policy-changed policy-changed policy-changed");
}

/* Of two who want to change what they both have read, the second is told, also when both are early.
 */
static void only_the_first_of_two(void **state)
{
	struct fixture *f = *state;
	const uint64_t seen = f->pool->generation;
	struct tm_operation_record row = { 0 };
	struct answer a[2];

	for (size_t i = 0; i < TM_ARRAY_SIZE(a); i++) {
		struct tm_command *cmd = policy_command(f, 20 + (unsigned int)i);

		cmd->if_match_valid = true;
		cmd->if_match = seen;
		a[i] = (struct answer){ .f = f };
		tm_core_submit(&f->base.core, cmd, false, submitted, &a[i]);
	}
	all_end(f, a, TM_ARRAY_SIZE(a));
	assert_int_equal(tm_store_read_operation(f->base.reader, &a[0].id, &row, NULL), 0);
	assert_int_equal(row.status, TM_OP_DONE);
	tm_operation_record_done(&row);
	assert_int_equal(tm_store_read_operation(f->base.reader, &a[1].id, &row, NULL), 0);
	assert_int_equal(row.status, TM_OP_FAILED);
	assert_int_equal(row.error.code, TM_ERR_PRECONDITION);
	tm_operation_record_done(&row);
	assert_int_equal(f->pool->record.policy.data.low_water_percent, 20);
	assert_int_equal(f->pool->generation, seen + 1);
	rest(f);
	told(f, "policy-changed operation-failed");
}

static void cancel(struct fixture *f, const struct tm_uuid *id, struct answer *a)
{
	*a = (struct answer){ .f = f };
	tm_core_cancel(&f->base.core, id, submitted, a);
	until(f, &a->come);
}

/* One that waits ends at once, with those before and behind it left alone. */
static void cancels_what_waits(void **state)
{
	struct fixture *f = *state;
	const unsigned int before = f->pool->record.policy.data.low_water_percent;
	struct tm_op holder = { .core = &f->base.core };
	struct tm_operation_record row = { 0 };
	struct tm_uuid nobody;
	struct answer a[2], c;

	f->pool->running = &holder; /* nothing has its turn */
	for (size_t i = 0; i < TM_ARRAY_SIZE(a); i++) {
		submit(f, policy_command(f, 40 + (unsigned int)i), false, &a[i]);
		assert_true(a[i].accepted);
		tm_core_wait(&f->base.core, &a[i].id, LIMIT_USEC, over, &a[i]);
	}
	assert_int_equal(tm_core_operation(&f->base.core, &a[0].id, &row), 0);
	assert_true(row.live && row.cancellable);
	assert_int_equal(row.percent, -1);

	cancel(f, &a[0].id, &c);
	assert_true(c.accepted);
	until(f, &a[0].over);
	assert_true(a[0].ended);
	assert_false(a[1].over);
	assert_ptr_equal(f->pool->running, &holder);
	assert_int_equal(tm_store_read_operation(f->base.reader, &a[0].id, &row, NULL), 0);
	assert_int_equal(row.status, TM_OP_FAILED);
	assert_int_equal(row.error.code, TM_ERR_CANCELLED);
	tm_operation_record_done(&row);
	cancel(f, &a[0].id, &c);
	assert_int_equal(c.code, TM_ERR_WRONG_STATE);
	tm_uuid_generate(&nobody);
	cancel(f, &nobody, &c);
	assert_int_equal(c.code, TM_ERR_WRONG_STATE);
	assert_int_equal(f->pool->record.policy.data.low_water_percent, before);

	f->pool->running = NULL;
	tm_pool_run_queue(f->pool);
	until(f, &a[1].over);
	assert_int_equal(f->pool->record.policy.data.low_water_percent, 41);
	assert_int_equal(f->base.core.n_unfinished, 0);
	rest(f);
	told(f, "operation-failed policy-changed");
}

/* It ends while all workers are busy, and what is cancelled is not begun again by itself. */
static void block(void *arg)
{
	while (!atomic_load((atomic_bool *)arg))
		(void)usleep(1000);
}

static void cancels_a_repair(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd = calloc(1, sizeof(*cmd));
	struct tm_op holder = { .core = &f->base.core };
	atomic_bool go_on = false;
	struct answer a, c;

	assert_non_null(cmd);
	cmd->kind = TM_CMD_POOL_REPAIR;
	(void)snprintf(cmd->pool, sizeof(cmd->pool), "tank");
	f->pool->status_valid = true;
	f->pool->status.needs_check = true;
	f->pool->running = &holder;
	submit(f, cmd, false, &a);
	assert_true(a.accepted);
	tm_core_wait(&f->base.core, &a.id, LIMIT_USEC, over, &a);
	for (unsigned int i = 0; i < 16; i++)
		tm_crew_run(f->base.core.workers, block, &go_on);
	cancel(f, &a.id, &c);
	assert_true(c.accepted);
	until(f, &a.over);
	atomic_store(&go_on, true);
	assert_true(f->pool->mend.tried);
	assert_ptr_equal(f->pool->running, &holder);
	f->pool->running = NULL;
	rest(f);
	told(f, "repair-failed");
}

/* What was not known of a pool is not known by a deletion that came to nothing. */
static void stays_uncertain(void **state)
{
	struct fixture *f = *state;
	struct tm_op op = {
		.core = &f->base.core,
		.type = tm_op_type(TM_CMD_POOL_DELETE),
		.record = { .status = TM_OP_FAILED },
		.pool = f->pool->record,
		.pool_was_uncertain = true,
	};

	(void)tm_error_set(&op.error, TM_ERR_BUSY, EBUSY, "A volume is in use.");
	(void)snprintf(f->pool->state_reason, sizeof(f->pool->state_reason), "it was cut off");
	f->pool->state = TM_POOL_DELETING;
	assert_ptr_equal(tm_op_apply(&op, f->pool), f->pool);
	assert_int_equal(f->pool->state, TM_POOL_UNCERTAIN);
	assert_string_equal(f->pool->state_reason, "it was cut off");
	rest(f);
	told(f, "operation-failed");
}

/* Nothing is recorded, and nothing waits, for what was refused. */
static void refusals(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd;
	struct answer a;
	uint64_t seen;

	cmd = policy_command(f, 33);
	(void)snprintf(cmd->pool, sizeof(cmd->pool), "nowhere");
	submit(f, cmd, false, &a);
	assert_false(a.accepted);
	assert_int_equal(a.code, TM_ERR_NOT_FOUND);

	cmd = calloc(1, sizeof(*cmd));
	assert_non_null(cmd);
	cmd->kind = TM_CMD_VOLUME_DELETE;
	(void)snprintf(cmd->pool, sizeof(cmd->pool), "tank");
	(void)snprintf(cmd->volume, sizeof(cmd->volume), "none");
	submit(f, cmd, false, &a);
	assert_int_equal(a.code, TM_ERR_NOT_FOUND);

	cmd = policy_command(f, 33);
	cmd->if_match_valid = true;
	cmd->if_match = f->pool->generation + 1;
	submit(f, cmd, false, &a);
	assert_int_equal(a.code, TM_ERR_PRECONDITION);

	atomic_store(&f->base.core.stopping, true);
	submit(f, policy_command(f, 33), false, &a);
	assert_int_equal(a.code, TM_ERR_SHUTTING_DOWN);
	atomic_store(&f->base.core.stopping, false);

	assert_int_equal(n_recorded(f), 0);
	assert_int_equal(f->base.core.n_unfinished, 0);

	/* As it is, it may be changed: refused was what was wrong. */
	seen = f->pool->generation;
	cmd = policy_command(f, 33);
	cmd->if_match_valid = true;
	cmd->if_match = seen;
	submit(f, cmd, false, &a);
	assert_true(a.accepted);
	tm_core_wait(&f->base.core, &a.id, LIMIT_USEC, over, &a);
	until(f, &a.over);
	assert_int_equal(f->pool->generation, seen + 1);
	rest(f);
}

static void dry_run(void **state)
{
	struct fixture *f = *state;
	const unsigned int before = f->pool->record.policy.data.low_water_percent;
	struct answer a;

	submit(f, policy_command(f, 33), true, &a);
	assert_true(a.accepted);
	assert_string_equal(a.id.text, "");
	rest(f);
	told(f, "");
	assert_int_equal(n_recorded(f), 0);
	assert_int_equal(f->base.core.n_unfinished, 0);
	assert_int_equal(f->pool->record.policy.data.low_water_percent, before);
}

/* There is an end to what can wait, and it is said. */
static void too_many(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;
	struct tm_op *ops = calloc(TM_ARRAY_SIZE(core->live), sizeof(*ops));
	struct answer a;

	assert_non_null(ops);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++)
		assert_int_equal(tm_core_enlist(core, &ops[i], NULL), 0);
	submit(f, policy_command(f, 33), false, &a);
	assert_int_equal(a.code, TM_ERR_TOO_MANY);
	assert_int_equal(n_recorded(f), 0);

	tm_core_delist(core, &ops[7]);
	submit(f, policy_command(f, 33), false, &a);
	assert_true(a.accepted);
	tm_core_wait(core, &a.id, LIMIT_USEC, over, &a);
	until(f, &a.over);
	rest(f);
	for (size_t i = 0; i < TM_ARRAY_SIZE(core->live); i++)
		tm_core_delist(core, &ops[i]);
	assert_int_equal(core->n_unfinished, 0);
	free(ops);
}

/* One suspect volume that cannot be checked now does not keep the others waiting for ever. */
static void asks_for_all_checks(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;
	struct tm_volume_record volumes[3] = { 0 };

	for (size_t i = 0; i < TM_ARRAY_SIZE(volumes); i++) {
		volumes[i].id = id_of(60 + (unsigned int)i);
		volumes[i].dev_id = (uint32_t)i;
		volumes[i].suspect = TM_SUSPECT_REPAIRED;
		(void)snprintf(volumes[i].name, sizeof(volumes[i].name), "v%zu", i);
	}
	assert_int_equal(tm_pool_set_volumes(f->pool, volumes, TM_ARRAY_SIZE(volumes)), 0);
	for (size_t i = 0; i < f->pool->n_volumes; i++)
		f->pool->volumes[i].active = true;
	atomic_store(&core->stopping, true); /* all are refused */
	tm_pool_check_suspects(f->pool);
	for (size_t i = 0; i < f->pool->n_volumes; i++)
		drain(f);
	atomic_store(&core->stopping, false);
	for (size_t i = 0; i < f->pool->n_volumes; i++)
		assert_false(f->pool->volumes[i].check_due);
	assert_int_equal(n_recorded(f), 0);
}

/* Who waits is not kept longer than asked for; until it is published, an end is none. */
static void waits_no_longer_than_asked(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;
	struct tm_op op = { .core = core,
			    .type = tm_op_type(TM_CMD_POOL_POLICY),
			    .record = { .id = id_of(77), .status = TM_OP_DONE } };
	struct answer a = { .f = f };
	struct tm_operation_record row;

	assert_int_equal(tm_core_enlist(core, &op, NULL), 0);
	assert_int_equal(tm_core_operation(core, &op.record.id, &row), 0);
	assert_int_equal(row.status, TM_OP_RUNNING);
	tm_core_wait(core, &op.record.id, 1000, over, &a);
	until(f, &a.over);
	assert_false(a.ended);
	assert_null(core->waiters);
	tm_core_delist(core, &op);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, running_setup, running_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(runs_to_its_end),
		TEST(events_can_be_waited_for),
		TEST(one_after_the_other),
		TEST(only_the_first_of_two),
		TEST(cancels_what_waits),
		TEST(cancels_a_repair),
		TEST(stays_uncertain),
		TEST(refusals),
		TEST(dry_run),
		TEST(too_many),
		TEST(asks_for_all_checks),
		TEST(waits_no_longer_than_asked),
	};

	return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
