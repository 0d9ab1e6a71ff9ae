/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine that runs operations, on steps made for it and a real journal: what is done, undone
 * and recorded in which order, wherever it fails or is cut off. And the state that survives a
 * restart.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core-fixture.h"
#include "logic/json.h"
#include "logic/policy.h"

/* What steps did, "a b -b -a", and what they are told to do. */
static struct {
	struct core_fixture *f;
	char trace[128];
	const char *fail, *fail_undo; /* the step that fails */
	const char *stop;             /* the daemon is asked to stop in this step */
	const char *cancel;           /* the operation is cancelled in this step */
	bool silent;                  /* failing says nothing */
	bool unrecorded;              /* there is no row */
	bool cancellable;
} script;

static void note(const char *sign, const char *step)
{
	const size_t n = strlen(script.trace);

	(void)snprintf(script.trace + n, sizeof(script.trace) - n, "%s%s%s", n ? " " : "", sign,
		       step);
}

static bool is(const char *a, const char *b)
{
	return a && strcmp(a, b) == 0;
}

/* The row as another process would find it now. */
static struct tm_operation_record row_of(const struct tm_op *op)
{
	struct tm_operation_record row = { 0 };
	struct tm_error err = { 0 };

	if (tm_store_read_operation(script.f->reader, &op->record.id, &row, &err) < 0)
		fail_msg("%s", err.detail);
	return row;
}

static bool pool_is_recorded(const struct tm_uuid *id)
{
	struct tm_pool_record *pools = NULL;
	bool found = false;
	size_t n = 0;

	assert_int_equal(tm_store_load_pools(script.f->core.store, &pools, &n, NULL), 0);
	for (size_t i = 0; i < n; i++)
		found = found || strcmp(pools[i].id.text, id->text) == 0;
	free(pools);
	return found;
}

static int do_step(struct tm_op *op, const char *step, struct tm_error *err)
{
	note("", step);
	if (is(script.stop, step))
		atomic_store(&op->core->stopping, true);
	/* While it runs, its record says whether it still can be. */
	if (is(script.cancel, step)) {
		script.cancellable = tm_op_cancellable(op->type, &op->record);
		atomic_store(&op->progress.cancelled, true);
	}
	if (!is(script.fail, step))
		return 0;
	if (script.silent)
		return -EPIPE;
	return tm_error_set(err, TM_ERR_NO_SPACE, ENOSPC, "Step %s found no space.", step);
}

/* A step that does something is in the journal before. */
static int run_step(struct tm_op *op, const char *step, struct tm_error *err)
{
	struct tm_operation_record row = row_of(op);

	assert_int_equal(row.status, TM_OP_RUNNING);
	assert_string_equal(row.step_name, step);
	assert_string_equal(op->type->steps[row.step].name, step);
	tm_operation_record_done(&row);
	return do_step(op, step, err);
}

static int undo_step(struct tm_op *op, const char *step, struct tm_error *err)
{
	if (!script.unrecorded) {
		struct tm_operation_record row = row_of(op);

		assert_int_equal(row.status, TM_OP_UNDOING);
		tm_operation_record_done(&row);
	}
	note("-", step);
	if (is(script.fail_undo, step))
		return tm_error_set(err, TM_ERR_IO, EIO, "Step %s cannot be undone.", step);
	return 0;
}

#define STEP(name)                                                     \
	static int run_##name(struct tm_op *op, struct tm_error *err)  \
	{                                                              \
		return run_step(op, #name, err);                       \
	}                                                              \
	static int undo_##name(struct tm_op *op, struct tm_error *err) \
	{                                                              \
		return undo_step(op, #name, err);                      \
	}
STEP(a)
STEP(b)
STEP(k)
STEP(c)
STEP(d)

/* Changes the database, in one transaction with its entry: others see both or neither. */
static int run_rec(struct tm_op *op, struct tm_error *err)
{
	struct tm_operation_record row = row_of(op);

	assert_string_not_equal(row.step_name, "rec");
	tm_operation_record_done(&row);
	if (tm_store_put_pool(op->core->store, &op->pool, err) < 0)
		return -EIO;
	return do_step(op, "rec", err);
}

/* As most operations are: things are made, recorded, and then finished. */
static const struct tm_step recorded_steps[] = {
	{ .name = "a", .run = run_a, .undo = undo_a },
	{ .name = "b", .run = run_b, .undo = undo_b },
	{ .name = "rec", .run = run_rec, .commit = true, .record = true },
	{ .name = "c", .run = run_c },
	{ .name = "d", .run = run_d, .can_wait = true },
};
static const struct tm_op_type recorded = {
	.kind = TM_CMD_VOLUME_CREATE,
	.steps = recorded_steps,
	.n_steps = TM_ARRAY_SIZE(recorded_steps),
};

/* The point of no return is something done. */
static const struct tm_step deed_steps[] = {
	{ .name = "a", .run = run_a, .undo = undo_a },
	{ .name = "k", .run = run_k, .undo = undo_k, .commit = true },
	{ .name = "c", .run = run_c, .undo = undo_c },
	{ .name = "d", .run = run_d, .undo = undo_d },
};
static const struct tm_op_type deed = {
	.kind = TM_CMD_VOLUME_DELETE,
	.steps = deed_steps,
	.n_steps = TM_ARRAY_SIZE(deed_steps),
};

/* There is none. */
static const struct tm_op_type endless = {
	.kind = TM_CMD_POOL_ACTIVATE,
	.steps = recorded_steps,
	.n_steps = 2,
};

static struct tm_op *new_op(struct core_fixture *f, const struct tm_op_type *type)
{
	struct tm_op *op = calloc(1, sizeof(*op));

	assert_non_null(op);
	script.f = f;
	script.trace[0] = '\0';
	op->core = &f->core;
	op->type = type;
	tm_uuid_generate(&op->record.id);
	tm_uuid_generate(&op->pool.id);
	/* Names of pools are unique, and cases leave theirs behind. */
	(void)snprintf(op->pool.name, sizeof(op->pool.name), "p%.8s", op->pool.id.text);
	(void)snprintf(op->pool.directory, sizeof(op->pool.directory), "/srv/%s", op->pool.name);
	op->pool.block_bytes = TM_BLOCK_SIZE_MIN;
	tm_policy_default(&op->pool.policy);
	tm_policy_default(&op->policy);
	(void)snprintf(op->record.kind, sizeof(op->record.kind), "%s", tm_command_name(type->kind));
	op->record.created_usec = 1;
	op->record.n_steps = (uint32_t)type->n_steps;
	return op;
}

static void put_row(struct tm_op *op)
{
	struct tm_error err = { 0 };

	if (tm_store_put_operation(op->core->store, &op->record, &err) < 0)
		fail_msg("%s", err.detail);
}

static void assert_ended(struct tm_op *op, const char *trace, enum tm_op_status status,
			 enum tm_error_code code, bool undo_failed)
{
	struct tm_operation_record row;

	assert_string_equal(script.trace, trace);
	assert_int_equal(op->record.status, status);
	assert_int_equal(op->error.code, code);
	assert_int_equal(op->undo_failed, undo_failed);
	/* And so says the journal. */
	row = row_of(op);
	assert_int_equal(row.status, status);
	assert_int_equal(row.error.code, code);
	assert_string_equal(row.pool.text, op->pool.id.text);
	assert_string_equal(row.pool_name, op->pool.name);
	assert_true(row.finished_usec > 0);
	assert_non_null(row.state);
	tm_operation_record_done(&row);
}

static void runs(void **state)
{
	static const struct {
		const struct tm_op_type *type;
		const char *fail, *fail_undo, *stop, *fault;
		const char *trace;
		enum tm_error_code code; /* TM_OK: it was done */
		bool undo_failed, pool;
	} cases[] = {
		{ &recorded, .trace = "a b rec c d", .pool = true },
		{ &deed, .trace = "a k c d" },
		{ &endless, .trace = "a b" },
		/* Before the point of no return everything is undone, what failed first. */
		{ &recorded, "a", .trace = "a -a", .code = TM_ERR_NO_SPACE },
		{ &recorded, "b", .trace = "a b -b -a", .code = TM_ERR_NO_SPACE },
		{ &recorded, "rec", .trace = "a b rec -b -a", .code = TM_ERR_NO_SPACE },
		{ &deed, "k", .trace = "a k -k -a", .code = TM_ERR_NO_SPACE },
		{ &endless, "b", .trace = "a b -b -a", .code = TM_ERR_NO_SPACE },
		/* One undo that fails does not keep the others from being tried. */
		{ &recorded, "b", "b", .trace = "a b -b -a", .code = TM_ERR_NO_SPACE,
		  .undo_failed = true },
		{ &recorded, "b", "a", .trace = "a b -b -a", .code = TM_ERR_NO_SPACE,
		  .undo_failed = true },
		/* Behind it nothing is undone. */
		{ &recorded, "c", .trace = "a b rec c", .code = TM_ERR_NO_SPACE,
		  .undo_failed = true, .pool = true },
		{ &deed, "c", .trace = "a k c", .code = TM_ERR_NO_SPACE, .undo_failed = true },
		{ &deed, "d", .trace = "a k c d", .code = TM_ERR_NO_SPACE, .undo_failed = true },
		/* What can wait is no failure. */
		{ &recorded, "d", .trace = "a b rec c d", .pool = true },
		/* Asked to stop: back before the point of no return, on behind it. */
		{ &recorded, .stop = "a", .trace = "a -a", .code = TM_ERR_SHUTTING_DOWN },
		{ &recorded, .stop = "b", .trace = "a b -b -a", .code = TM_ERR_SHUTTING_DOWN },
		{ &recorded, .stop = "rec", .trace = "a b rec c d", .pool = true },
		{ &deed, .stop = "k", .trace = "a k c d" },
		{ &endless, .stop = "a", .trace = "a -a", .code = TM_ERR_SHUTTING_DOWN },
		/* Provoked faults fall where they are said to. */
		{ &recorded, .fault = "error:volume-create:b:before", .trace = "a -b -a",
		  .code = TM_ERR_INTERNAL },
		{ &recorded, .fault = "error:volume-create:b:after", .trace = "a b -b -a",
		  .code = TM_ERR_INTERNAL },
		{ &recorded, .fault = "error:volume-create:rec:before", .trace = "a b -b -a",
		  .code = TM_ERR_INTERNAL },
		{ &recorded, .fault = "error:volume-create:rec:after", .trace = "a b rec",
		  .code = TM_ERR_INTERNAL, .undo_failed = true, .pool = true },
		{ &recorded, .fault = "error:volume-create:d:before", .trace = "a b rec c",
		  .pool = true },
		{ &recorded, .fault = "error:volume-delete:b:before", .trace = "a b rec c d",
		  .pool = true },
	};
	struct core_fixture *f = *state;

	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_op *op = new_op(f, cases[i].type);

		script.fail = cases[i].fail;
		script.fail_undo = cases[i].fail_undo;
		script.stop = cases[i].stop;
		tm_fault_read(&f->core.fault, cases[i].fault);
		put_row(op);
		tm_op_execute(op);
		assert_ended(op, cases[i].trace, cases[i].code ? TM_OP_FAILED : TM_OP_DONE,
			     cases[i].code, cases[i].undo_failed);
		assert_int_equal(pool_is_recorded(&op->pool.id), cases[i].pool);
		assert_true(op->record.started_usec > 0);
		atomic_store(&f->core.stopping, false);
		assert_null(tm_op_free(op));
	}
}

/* Back before the point of no return, on behind it. */
static void ends_when_cancelled(void **state)
{
	static const struct {
		const struct tm_op_type *type;
		const char *cancel, *trace;
		bool cancellable;
	} cases[] = {
		{ &recorded, "a", "a -a", true },  { &recorded, "b", "a b -b -a", true },
		{ &recorded, "c", "a b rec c d" }, { &deed, "a", "a -a", true },
		{ &deed, "k", "a k c d" },         { &endless, "a", "a -a", true },
		{ &endless, "b", "a b", true }, /* it was the last */
	};
	struct core_fixture *f = *state;

	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const bool done = !strchr(cases[i].trace, '-');
		struct tm_op *op = new_op(f, cases[i].type);

		script.cancel = cases[i].cancel;
		put_row(op);
		tm_op_execute(op);
		assert_ended(op, cases[i].trace, done ? TM_OP_DONE : TM_OP_FAILED,
			     done ? TM_OK : TM_ERR_CANCELLED, false);
		assert_int_equal(script.cancellable, cases[i].cancellable);
		if (!done)
			assert_non_null(strstr(op->error.detail, "was cancelled"));
		assert_false(tm_op_cancellable(op->type, &op->record));
		(void)tm_op_free(op);
	}
}

/* What was asked for before the first step has nothing to undo, and leaves nothing uncertain. */
static void ends_before_the_first(void **state)
{
	struct core_fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		struct tm_op *op = new_op(f, &recorded);

		atomic_store(&op->progress.cancelled, i == 0);
		atomic_store(&f->core.stopping, i == 1);
		put_row(op);
		tm_op_execute(op);
		assert_ended(op, "", TM_OP_FAILED, i == 0 ? TM_ERR_CANCELLED : TM_ERR_SHUTTING_DOWN,
			     false);
		atomic_store(&f->core.stopping, false);
		(void)tm_op_free(op);
	}
}

/* Nobody is told that it was undone when it was not; why not is told. */
static void says_that_it_was_not_undone(void **state)
{
	struct core_fixture *f = *state;
	struct tm_op *op = new_op(f, &recorded);

	script.fail = "b";
	script.fail_undo = "a";
	put_row(op);
	tm_op_execute(op);
	assert_ended(op, "a b -b -a", TM_OP_FAILED, TM_ERR_NO_SPACE, true);
	assert_non_null(strstr(op->error.detail, "Step b found no space"));
	assert_non_null(strstr(op->error.detail, "step a could not be undone: "));
	(void)tm_op_free(op);

	op = new_op(f, &recorded);
	script.fail = NULL;
	script.cancel = "b";
	script.fail_undo = "a";
	put_row(op);
	tm_op_execute(op);
	assert_int_equal(op->record.status, TM_OP_FAILED);
	assert_true(op->undo_failed);
	assert_int_not_equal(op->error.code, TM_ERR_CANCELLED);
	assert_non_null(strstr(op->error.detail, "was cancelled; step a could not be undone: "));
	assert_null(strstr(op->error.detail, "was undone"));
	(void)tm_op_free(op);
}

/* A step that fails without a word gets one. */
static void says_something(void **state)
{
	struct tm_op *op = new_op(*state, &recorded);

	script.fail = "b";
	script.silent = true;
	put_row(op);
	tm_op_execute(op);
	assert_ended(op, "a b -b -a", TM_OP_FAILED, TM_ERR_INTERNAL, false);
	assert_int_equal(op->error.errnum, EPIPE);
	assert_non_null(strstr(op->error.detail, "Step b failed"));
	(void)tm_op_free(op);
}

/* Not allowed any more when its turn came. */
static void ends_what_was_refused(void **state)
{
	struct tm_op *op = new_op(*state, &recorded);

	put_row(op);
	(void)tm_error_set(&op->error, TM_ERR_NOT_FOUND, ENOENT, "It is gone.");
	tm_op_execute(op);
	assert_ended(op, "", TM_OP_FAILED, TM_ERR_NOT_FOUND, false);
	(void)tm_op_free(op);
}

/* After a restart: the journal alone decides. */
static void recovers(void **state)
{
	static const struct {
		const struct tm_op_type *type;
		enum tm_op_status status;
		uint32_t step;
		const char *fail;
		const char *trace;
		enum tm_error_code code;
		bool undo_failed;
	} cases[] = {
		{ &recorded, TM_OP_QUEUED, 0, NULL, "", TM_ERR_INTERRUPTED },
		{ &recorded, TM_OP_RUNNING, 0, NULL, "-a", TM_ERR_INTERRUPTED },
		{ &recorded, TM_OP_RUNNING, 1, NULL, "-b -a", TM_ERR_INTERRUPTED },
		/* A recorded step that has its entry was done. */
		{ &recorded, TM_OP_RUNNING, 2, NULL, "c d", TM_OK },
		{ &recorded, TM_OP_RUNNING, 3, NULL, "c d", TM_OK },
		{ &recorded, TM_OP_RUNNING, 4, NULL, "d", TM_OK },
		{ &recorded, TM_OP_RUNNING, 4, "d", "d", TM_OK },
		{ &recorded, TM_OP_RUNNING, 3, "c", "c", TM_ERR_NO_SPACE, true },
		{ &recorded, TM_OP_UNDOING, 1, NULL, "-b -a", TM_ERR_INTERRUPTED },
		{ &recorded, TM_OP_UNDOING, 2, NULL, "-b -a", TM_ERR_INTERRUPTED },
		{ &recorded, TM_OP_UNDOING, 0, NULL, "-a", TM_ERR_INTERRUPTED },
		/* A deed may be done or not: it is done (again), and can still be undone. */
		{ &deed, TM_OP_RUNNING, 0, NULL, "-a", TM_ERR_INTERRUPTED },
		{ &deed, TM_OP_RUNNING, 1, NULL, "k c d", TM_OK },
		{ &deed, TM_OP_RUNNING, 1, "k", "k -k -a", TM_ERR_NO_SPACE },
		{ &deed, TM_OP_RUNNING, 2, NULL, "c d", TM_OK },
		{ &deed, TM_OP_RUNNING, 2, "c", "c", TM_ERR_NO_SPACE, true },
		/* Undoing goes on, though the step was the point of no return. */
		{ &deed, TM_OP_UNDOING, 1, NULL, "-k -a", TM_ERR_INTERRUPTED },
		{ &endless, TM_OP_RUNNING, 1, NULL, "-b -a", TM_ERR_INTERRUPTED },
		/* A journal of another version. */
		{ &recorded, TM_OP_RUNNING, 5, NULL, "", TM_ERR_STORE, true },
		{ &recorded, TM_OP_UNDOING, UINT32_MAX, NULL, "", TM_ERR_STORE, true },
	};
	struct core_fixture *f = *state;

	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct tm_op_type *type = cases[i].type;
		struct tm_op *op = new_op(f, type);
		struct tm_operation_record *rows = NULL;
		size_t n = 0;

		op->recovering = true;
		op->record.status = cases[i].status;
		op->record.step = cases[i].step;
		(void)snprintf(op->record.step_name, sizeof(op->record.step_name), "%s",
			       cases[i].step < type->n_steps ? type->steps[cases[i].step].name
							     : "x");
		script.fail = cases[i].fail;
		put_row(op);
		tm_op_execute(op);
		assert_ended(op, cases[i].trace, cases[i].code ? TM_OP_FAILED : TM_OP_DONE,
			     cases[i].code, cases[i].undo_failed);
		/* It is over: the next start has nothing to settle. */
		assert_int_equal(tm_store_load_unfinished(f->core.store, &rows, &n, NULL), 0);
		assert_int_equal(n, 0);
		(void)tm_op_free(op);
	}
}

/* Killed at each step of a real run, in a process of its own: what is found is settled as above. */
static void survives_kills(void **state)
{
	static const struct {
		const char *fault, *trace;
		bool done;
	} cases[] = {
		{ "kill:volume-create:a:before", "-a", false },
		{ "kill:volume-create:a:after", "-a", false },
		{ "kill:volume-create:b:before", "-b -a", false },
		{ "kill:volume-create:b:after", "-b -a", false },
		{ "kill:volume-create:rec:before", "-b -a", false },
		{ "kill:volume-create:rec:after", "c d", true },
		{ "kill:volume-create:c:before", "c d", true },
		{ "kill:volume-create:c:after", "c d", true },
		{ "kill:volume-create:d:before", "d", true },
		{ "kill:volume-create:d:after", "d", true },
	};
	struct core_fixture *f = *state;

	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_op *op = new_op(f, &recorded);
		struct tm_operation_record *rows = NULL;
		struct tm_error err = { 0 };
		size_t n = 0;
		int status;
		pid_t pid;

		put_row(op);
		/* A connection to the database does not survive a fork. */
		f->reader = tm_store_reader_free(f->reader);
		f->core.store = tm_store_free(f->core.store);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			if (tm_store_new(f->directory, &f->core.store, NULL) < 0 ||
			    tm_store_reader_new(f->directory, &f->reader, NULL) < 0)
				_exit(3);
			tm_fault_read(&f->core.fault, cases[i].fault);
			tm_op_execute(op);
			_exit(4);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

		assert_int_equal(tm_store_new(f->directory, &f->core.store, NULL), 0);
		assert_int_equal(tm_store_reader_new(f->directory, &f->reader, NULL), 0);
		assert_int_equal(tm_store_load_unfinished(f->core.store, &rows, &n, NULL), 0);
		assert_int_equal(n, 1);
		(void)tm_op_free(op);
		op = calloc(1, sizeof(*op));
		assert_non_null(op);
		op->core = &f->core;
		op->type = &recorded;
		op->recovering = true;
		op->record = rows[0];
		free(rows);
		if (tm_op_state_parse(op, op->record.state, &err) < 0)
			fail_msg("%s", err.detail);
		assert_int_equal(pool_is_recorded(&op->pool.id), cases[i].done);
		tm_op_execute(op);
		assert_ended(op, cases[i].trace, cases[i].done ? TM_OP_DONE : TM_OP_FAILED,
			     cases[i].done ? TM_OK : TM_ERR_INTERRUPTED, false);
		(void)tm_op_free(op);
	}
}

/* A journal that cannot be written stops an operation before its next step. */
static void needs_the_journal(void **state)
{
	struct tm_op *op = new_op(*state, &recorded);

	/* Every entry fails without a row. */
	script.unrecorded = true;
	tm_op_execute(op);
	assert_string_equal(script.trace, "-a");
	assert_int_equal(op->record.status, TM_OP_FAILED);
	assert_int_equal(op->error.code, TM_ERR_NOT_FOUND);
	(void)tm_op_free(op);
}

/* ---- state ----------------------------------------------------------------------------------- */

static struct tm_volume_record *volumes_of(size_t n, bool origin)
{
	struct tm_volume_record *v = calloc(n, sizeof(*v));

	assert_non_null(v);
	for (size_t i = 0; i < n; i++) {
		v[i].id = id_of((unsigned int)i + 10);
		(void)snprintf(v[i].name, sizeof(v[i].name), "v.%zu-_x", i);
		v[i].dev_id = TM_DEV_ID_MAX - (uint32_t)i;
		v[i].size_bytes = ((uint64_t)1 << 62) - i * 4096;
		if (origin)
			v[i].origin = id_of(9);
		v[i].active = i % 2;
		v[i].read_only = i % 3 == 0;
		v[i].created_usec = 1234567890123456 + i;
	}
	return v;
}

static void fill(struct tm_op *op)
{
	op->pool.sparse = true;
	op->pool.data_bytes = 1 * TM_TIB;
	op->pool.data_reserve_bytes = 64 * TM_MIB;
	op->pool.metadata_bytes = 16 * TM_MIB;
	op->pool.metadata_reserve_bytes = 4096;
	op->n_items = 3;
	op->items = volumes_of(3, true);
	op->before = volumes_of(3, false);
	op->n_volumes = 2;
	op->volumes = volumes_of(2, true);
	op->transaction_before = 42;
	op->data_bytes = 2 * TM_TIB;
	op->metadata_bytes = 32 * TM_MIB;
	op->policy.data.maximum_bytes = 77 * TM_GIB;
	op->policy.sample_seconds = 33;
	op->when_full = TM_WHEN_FULL_ERROR;
	op->activate = op->with_volumes = op->pool_was_active = true;
	op->repair.report = strdup("{\"verdict\":\"accept\"}");
	assert_non_null(op->repair.report);
	op->repair.lossless = true;
}

static void assert_same_volumes(const struct tm_volume_record *a, const struct tm_volume_record *b,
				size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(a[i].id.text, b[i].id.text);
		assert_string_equal(a[i].name, b[i].name);
		assert_int_equal(a[i].dev_id, b[i].dev_id);
		assert_int_equal(a[i].size_bytes, b[i].size_bytes);
		assert_string_equal(a[i].origin.text, b[i].origin.text);
		assert_int_equal(a[i].active, b[i].active);
		assert_int_equal(a[i].read_only, b[i].read_only);
		assert_int_equal(a[i].created_usec, b[i].created_usec);
	}
}

static void state_comes_back(void **state)
{
	static const enum tm_command_kind kinds[] = { TM_CMD_POOL_IMPORT, TM_CMD_VOLUME_RESIZE,
						      TM_CMD_SNAPSHOT_CREATE };

	for (size_t i = 0; i < TM_ARRAY_SIZE(kinds); i++) {
		struct tm_op *op = new_op(*state, tm_op_type(kinds[i]));
		struct tm_op *again = calloc(1, sizeof(*again));
		tm_auto_free char *text = NULL, *text_again = NULL;
		struct tm_error err = { 0 };

		fill(op);
		text = tm_op_state_format(op);
		assert_non_null(text);
		assert_non_null(again);
		again->type = op->type;
		if (tm_op_state_parse(again, text, &err) < 0)
			fail_msg("%s", err.detail);
		text_again = tm_op_state_format(again);
		assert_string_equal(text_again, text);
		assert_string_equal(again->repair.report, op->repair.report);
		assert_true(again->repair.lossless);
		assert_string_equal(again->pool.id.text, op->pool.id.text);
		assert_string_equal(again->pool.name, op->pool.name);
		assert_string_equal(again->pool.directory, op->pool.directory);
		assert_true(again->pool.sparse);
		assert_int_equal(again->pool.block_bytes, op->pool.block_bytes);
		assert_int_equal(again->pool.data_bytes, op->pool.data_bytes);
		assert_int_equal(again->pool.data_reserve_bytes, op->pool.data_reserve_bytes);
		assert_int_equal(again->pool.metadata_bytes, op->pool.metadata_bytes);
		assert_int_equal(again->pool.metadata_reserve_bytes,
				 op->pool.metadata_reserve_bytes);
		assert_int_equal(again->n_items, 3);
		assert_same_volumes(again->items, op->items, 3);
		assert_same_volumes(again->before, op->before, 3);
		/* The database has those of a pool that it knows. */
		assert_int_equal(again->n_volumes, kinds[i] == TM_CMD_POOL_IMPORT ? 2 : 0);
		assert_same_volumes(again->volumes, op->volumes, again->n_volumes);
		assert_int_equal(again->transaction_before, 42);
		assert_int_equal(again->data_bytes, op->data_bytes);
		assert_int_equal(again->metadata_bytes, op->metadata_bytes);
		assert_int_equal(again->policy.data.maximum_bytes, 77 * TM_GIB);
		assert_int_equal(again->policy.sample_seconds, 33);
		assert_int_equal(again->when_full, TM_WHEN_FULL_ERROR);
		assert_true(again->activate && again->with_volumes && again->pool_was_active);
		(void)tm_op_free(op);
		(void)tm_op_free(again);
	}
}

static void assert_state_refused(struct core_fixture *f, const char *text)
{
	struct tm_op *op = new_op(f, &recorded);
	struct tm_error err = { 0 };

	if (tm_op_state_parse(op, text, &err) == 0)
		fail_msg("not refused: %s", text);
	assert_int_equal(err.code, TM_ERR_STORE);
	assert_non_null(strstr(err.detail, op->record.id.text));
	(void)tm_op_free(op);
}

static void bad_state_is_refused(void **state)
{
	/* One member at a time is made wrong. */
	static const struct {
		const char *member, *value;
	} cases[] = {
		{ "pool", "\"x\"" },
		{ "pool", "3" },
		{ "name", "\"../x\"" },
		{ "name", "\"a234567890123456789012345678901234567890123456789012345678901234\"" },
		{ "directory", "null" },
		{ "directory", "\"relative\"" },
		{ "sparse", "1" },
		{ "block_size", "-1" },
		{ "block_size", "1073741825" },
		{ "pool_data", "-1" },
		{ "pool_data", "1.5" },
		{ "pool_data", "99999999999999999999" },
		{ "pool_metadata_reserve", "-4096" },
		{ "transaction", "\"1\"" },
		{ "data", "-1" },
		{ "metadata", "true" },
		{ "activate", "\"yes\"" },
		{ "items", "{}" },
		{ "items", "[{}]" },
		{ "items", "[1]" },
		{ "before", "null" },
		{ "volumes", "7" },
		{ "policy", "[]" },
		{ "policy", "{\"unknown\":1}" },
		{ "when_full", "\"wait\"" },
	};
	static const struct {
		const char *member, *value;
	} item_cases[] = {
		{ "id", "\"\"" },      { "id", "\"x\"" },   { "name", "\"\"" },
		{ "name", "\"a/b\"" }, { "dev_id", "-1" },  { "dev_id", "16777217" },
		{ "size", "-1" },      { "size", "null" },  { "origin", "\"x\"" },
		{ "active", "0" },     { "created", "-1" }, { "read_only", "null" },
	};
	struct core_fixture *f = *state;
	struct tm_op *op = new_op(f, &recorded);
	tm_auto_free char *good = NULL;

	fill(op);
	good = tm_op_state_format(op);
	assert_non_null(good);
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		json_t *root = json_loads(good, 0, NULL);
		tm_auto_free char *text = NULL;

		assert_int_equal(
			json_object_set_new(root, cases[i].member,
					    json_loads(cases[i].value, JSON_DECODE_ANY, NULL)
						    ?: json_real(1e300)),
			0);
		text = json_dumps(root, 0);
		json_decref(root);
		assert_state_refused(f, text);
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(item_cases); i++) {
		json_t *root = json_loads(good, 0, NULL);
		tm_auto_free char *text = NULL;

		assert_int_equal(
			json_object_set_new(json_array_get(json_object_get(root, "items"), 1),
					    item_cases[i].member,
					    json_loads(item_cases[i].value, JSON_DECODE_ANY, NULL)),
			0);
		text = json_dumps(root, 0);
		json_decref(root);
		assert_state_refused(f, text);
	}
	/* Cut off anywhere. */
	for (size_t n = strlen(good); n-- > 0;) {
		good[n] = '\0';
		assert_state_refused(f, good);
	}
	(void)tm_op_free(op);
}

/* ---- the operations there are ---------------------------------------------------------------- */

static void types_are_sound(void **state)
{
	tm_auto_free char *text = tm_op_list_json();
	json_t *list;

	(void)state;
	assert_non_null(text);
	list = json_loads(text, 0, NULL);
	assert_non_null(list);
	assert_int_equal(json_object_size(list), TM_CMD_COUNT);
	for (unsigned int k = 0; k < TM_CMD_COUNT; k++) {
		const struct tm_op_type *type = tm_op_type(k);
		const char *name = tm_command_name(k);
		json_t *steps = json_object_get(list, name);
		size_t commits = 0;

		assert_non_null(type);
		assert_int_equal(type->kind, k);
		assert_ptr_equal(tm_op_type_from_name(name), type);
		assert_true(type->n_steps > 0);
		assert_int_equal(json_array_size(steps), type->n_steps);
		for (size_t i = 0; i < type->n_steps; i++) {
			const struct tm_step *step = &type->steps[i];

			assert_non_null(step->run);
			/* The form that faults are asked for in, and a row's column. */
			assert_in_range(strlen(step->name), 1, 31);
			assert_int_equal(strspn(step->name, "abcdefghijklmnopqrstuvwxyz-"),
					 strlen(step->name));
			for (size_t j = 0; j < i; j++)
				assert_string_not_equal(type->steps[j].name, step->name);
			assert_string_equal(json_string_value(json_object_get(
						    json_array_get(steps, i), "name")),
					    step->name);
			/* What was rolled back needs no undo. */
			assert_false(step->record && step->undo);
			/* Only what comes after the point of no return can wait. */
			assert_true(commits || !step->can_wait);
			commits += step->commit;
		}
		assert_true(commits <= 1);
	}
	json_decref(list);
	assert_null(tm_op_type(TM_CMD_COUNT));
	assert_null(tm_op_type_from_name("pool-explode"));
	assert_null(tm_op_type_from_name(""));
	assert_string_equal(tm_command_name(TM_CMD_COUNT), "unknown");
	assert_null(tm_op_free(NULL));
}

static void faults_are_read(void **state)
{
	static const struct {
		const char *text;
		enum tm_fault_action action;
		const char *kind, *step;
		bool after;
	} cases[] = {
		{ "kill:volume-create:record:before", TM_FAULT_KILL, "volume-create", "record" },
		{ "reset:pool-extend:a-b:after", TM_FAULT_RESET, "pool-extend", "a-b", true },
		{ "error:x:y:after", TM_FAULT_ERROR, "x", "y", true },
		{ NULL },
		{ "" },
		{ "kill" },
		{ "kill:volume-create:record" },
		{ "kill::record:before" },
		{ "explode:volume-create:record:before" },
		{ "KILL:volume-create:record:before" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_core core = { 0 };

		tm_fault_read(&core.fault, cases[i].text);
		assert_int_equal(core.fault.action, cases[i].action);
		if (cases[i].action == TM_FAULT_NONE) {
			assert_int_equal(
				tm_fault_hit(&core, "volume-create", "record", false, NULL), 0);
			continue;
		}
		assert_string_equal(core.fault.kind, cases[i].kind);
		assert_string_equal(core.fault.step, cases[i].step);
		assert_int_equal(core.fault.after, cases[i].after);
		if (cases[i].action != TM_FAULT_ERROR)
			continue;
		assert_int_equal(tm_fault_hit(&core, "x", "y", false, NULL), 0);
		assert_int_equal(tm_fault_hit(&core, "x", "z", true, NULL), 0);
		assert_int_equal(tm_fault_hit(&core, "z", "y", true, NULL), 0);
		assert_int_equal(tm_fault_hit(&core, "x", "y", true, NULL), -EIO);
	}
}

static int setup(void **state)
{
	memset(&script, 0, sizeof(script));
	return core_setup(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, core_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(runs),
		TEST(ends_when_cancelled),
		TEST(ends_before_the_first),
		TEST(says_that_it_was_not_undone),
		TEST(says_something),
		TEST(ends_what_was_refused),
		TEST(recovers),
		TEST(survives_kills),
		TEST(needs_the_journal),
		TEST(state_comes_back),
		TEST(bad_state_is_refused),
		cmocka_unit_test(types_are_sound),
		cmocka_unit_test(faults_are_read),
	};

	return cmocka_run_group_tests_name("operation", tests, NULL, NULL);
}
