/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running programs: what they say and how they end, whatever they do. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fsutil.h"
#include "core/internal.h"
#include "skip.h"

static void finds_programs(void **state)
{
	char buf[64], small[8];

	(void)state;
	assert_ptr_equal(tm_tool_path("sh", buf, sizeof(buf)), buf);
	assert_non_null(strstr(buf, "bin/sh"));
	assert_int_equal(access(buf, X_OK), 0);
	assert_null(tm_tool_path("no-such-program-anywhere", buf, sizeof(buf)));
	assert_string_equal(buf, "");
	/* A path that is cut must not be taken for another program's. */
	assert_null(tm_tool_path("shuf", small, sizeof(small)));
	assert_string_equal(small, "");
}

static void tells_how_they_end(void **state)
{
	static const struct {
		const char *argv[4];
		int status;
		const char *output;
	} cases[] = {
		{ { "/bin/true" }, 0, "" },
		{ { "/bin/false" }, 1, "" },
		{ { "/bin/echo", "one", "two" }, 0, "one two" },
		/* Nothing comes in. */
		{ { "/bin/cat" }, 0, "" },
		{ { "/bin/sh", "-c", "exit 77" }, 77, "" },
		{ { "/bin/sh", "-c", "kill -ABRT $$" }, 128 + SIGABRT, "" },
		/* Both streams, in one line, without the end's newlines. */
		{ { "/bin/sh", "-c", "echo a; echo b >&2; echo; echo" }, 0, "a b" },
		/* No shell looks at arguments. */
		{ { "/bin/echo", "$HOME; `id` *" }, 0, "$HOME; `id` *" },
		/* Nothing of our environment. */
		{ { "/usr/bin/env" }, 0, "LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin" },
		/* Output may end long before the program does. */
		{ { "/bin/sh", "-c", "exec >&- 2>&-; exit 5" }, 5, "" },
	};
	sigset_t block, before;

	(void)state;
	assert_int_equal(setenv("THINMGR_TEST", "leaks", 1), 0);
	(void)sigemptyset(&block);
	(void)sigaddset(&block, SIGTERM);
	assert_int_equal(sigprocmask(SIG_BLOCK, &block, &before), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tm_tool_result result;
		struct tm_error err = { 0 };

		if (tm_tool_run(cases[i].argv, 20, NULL, &result, &err) < 0)
			fail_msg("%zu: %s", i, err.detail);
		assert_int_equal(result.status, cases[i].status);
		assert_string_equal(result.output, cases[i].output);
		assert_int_equal(err.code, TM_OK);
	}
	assert_int_equal(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

/* However much it says: the beginning is kept, and it is not held up. */
static void keeps_the_beginning(void **state)
{
	static const char *const argv[] = { "/usr/bin/seq", "1", "100000", NULL };
	struct tm_tool_result result;

	(void)state;
	assert_int_equal(tm_tool_run(argv, 20, NULL, &result, NULL), 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(strncmp(result.output, "1 2 3 4 ", 8), 0);
	assert_in_range(strlen(result.output), sizeof(result.output) - 2,
			sizeof(result.output) - 1);
}

static void needs_the_program(void **state)
{
	static const char *const absent[] = { "/nowhere/thin_check", NULL };
	static const char *const directory[] = { "/tmp", NULL };
	static const struct {
		const char *const *argv;
		int error;
	} cases[] = { { absent, ENOENT }, { directory, EACCES } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tm_tool_result result;
		struct tm_error err = { 0 };

		assert_int_equal(tm_tool_run(cases[i].argv, 20, NULL, &result, &err),
				 -cases[i].error);
		assert_int_equal(err.code, TM_ERR_TOOL_FAILED);
		assert_int_equal(err.errnum, cases[i].error);
		assert_non_null(strstr(err.detail, cases[i].argv[0]));
	}
}

/* Ended by others, as by the kernel for want of memory, it has not said what it thinks. */
static void ended_by_others(void **state)
{
	static const char *const argv[][4] = {
		{ "/bin/sh", "-c", "echo all is well; kill -KILL $$", NULL },
		/* The daemon blocks signals; what it runs has none blocked. */
		{ "/bin/sh", "-c", "kill -TERM $$; exit 3", NULL },
	};
	sigset_t block, before;

	(void)state;
	(void)sigemptyset(&block);
	(void)sigaddset(&block, SIGTERM);
	assert_int_equal(sigprocmask(SIG_BLOCK, &block, &before), 0);
	for (size_t i = 0; i < 2; i++) {
		struct tm_tool_result result;
		struct tm_error err = { 0 };

		assert_int_equal(tm_tool_run(argv[i], 20, NULL, &result, &err), -EINTR);
		assert_int_equal(err.code, TM_ERR_TOOL_FAILED);
		assert_non_null(strstr(err.detail, i ? "signal 15" : "signal 9"));
	}
	assert_int_equal(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

/* One that does not end is killed, whether it still holds its output or not. */
static void kills_after_the_limit(void **state)
{
	static const char *const argv[][4] = {
		{ "/bin/sleep", "600", NULL },
		{ "/bin/sh", "-c", "exec >&- 2>&-; exec sleep 600", NULL },
		{ "/bin/sh", "-c", "while :; do echo more; done", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(argv) / sizeof(argv[0]); i++) {
		const uint64_t begin = tm_now_monotonic_usec();
		struct tm_tool_result result;
		struct tm_error err = { 0 };

		assert_int_equal(tm_tool_run(argv[i], 1, NULL, &result, &err), -ETIMEDOUT);
		assert_int_equal(err.code, TM_ERR_TIMEOUT);
		assert_in_range(tm_now_monotonic_usec() - begin, TM_USEC_PER_SEC,
				20 * TM_USEC_PER_SEC);
	}
}

struct taken {
	size_t bytes, most;
	unsigned int sum;
};

static int take(void *userdata, const char *data, size_t len, struct tm_error *err)
{
	struct taken *t = userdata;

	for (size_t i = 0; i < len; i++)
		t->sum += (unsigned char)data[i];
	t->bytes += len;
	return t->most && t->bytes > t->most
		       ? tm_error_set(err, TM_ERR_NO_SPACE, ENOSPC, "That is too much.")
		       : 0;
}

/* All that one prints, with what it complains of kept apart. */
static void hands_on_everything(void **state)
{
	static const char *const much[] = { "/bin/sh", "-c",
					    "head -c 3000000 /dev/zero | tr '\\0' '\\1'; "
					    "echo broken >&2; exit 3",
					    NULL };
	static const char *const endless[] = { "/usr/bin/yes", NULL };
	static const char *const hangs[] = { "/bin/sleep", "600", NULL };
	struct tm_tool_result result;
	struct tm_error err = { 0 };
	struct taken t = { 0 };

	(void)state;
	assert_int_equal(tm_tool_read(much, 20, NULL, take, &t, &result, &err), 0);
	assert_int_equal(t.bytes, 3000000);
	assert_int_equal(t.sum, 3000000);
	assert_int_equal(result.status, 3);
	assert_string_equal(result.output, "broken");

	t = (struct taken){ .most = 100000 };
	assert_int_equal(tm_tool_read(endless, 600, NULL, take, &t, &result, &err), -ENOSPC);
	assert_int_equal(err.code, TM_ERR_NO_SPACE);
	assert_string_equal(err.detail, "That is too much.");

	err = (struct tm_error){ 0 };
	t = (struct taken){ 0 };
	assert_int_equal(tm_tool_read(endless, 1, NULL, take, &t, &result, &err), -ETIMEDOUT);
	assert_int_equal(tm_tool_read(hangs, 1, NULL, take, &t, &result, NULL), -ETIMEDOUT);
}

static void *cancel_soon(void *arg)
{
	struct tm_progress *progress = arg;
	const struct timespec moment = { .tv_nsec = 300 * 1000 * 1000 };

	(void)nanosleep(&moment, NULL);
	atomic_store(&progress->cancelled, true);
	return NULL;
}

/* Whether it is silent, has closed its output, or never stops printing. */
static void ends_when_cancelled(void **state)
{
	static const char *const argv[][4] = {
		{ "/bin/sleep", "600", NULL },
		{ "/bin/sh", "-c", "exec >&- 2>&-; exec sleep 600", NULL },
		{ "/usr/bin/yes", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(argv) / sizeof(argv[0]); i++) {
		struct tm_progress progress = { .percent = -1 };
		const struct tm_tool_watch watch = { .progress = &progress };
		struct tm_tool_result result;
		struct tm_error err = { 0 };
		struct taken t = { 0 };
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &progress), 0);
		assert_int_equal(tm_tool_read(argv[i], 60, &watch, take, &t, &result, &err),
				 -ECANCELED);
		assert_int_equal(err.code, TM_ERR_CANCELLED);
		assert_int_equal(atomic_load(&progress.percent), -1);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
}

/* What it wrote shows how far it is; its end alone says that it is done. */
static void tells_progress(void **state)
{
	char path[] = "/var/tmp/test-tool-XXXXXX", command[160];
	const char *const argv[] = { "/bin/sh", "-c", command, NULL };
	const struct {
		uint64_t expected;
		int begin, end; /* of its part of the step */
		int least, most;
	} cases[] = { { 8 * TM_MIB, 0, 0, 40, 60 },
		      { TM_MIB, 0, 0, 99, 99 },
		      { 0, 0, 0, -1, -1 },
		      { 8 * TM_MIB, 0, 50, 20, 30 },
		      { 8 * TM_MIB, 50, 100, 70, 80 } };
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	(void)snprintf(command, sizeof(command),
		       "n=0; while [ $n -lt 4194304 ]; do printf %%65536d 0; n=$((n+65536)); done "
		       ">%s; exec sleep 600",
		       path);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tm_progress progress = { .percent = -1,
						.part_begin = cases[i].begin,
						.part_end = cases[i].end };
		const struct tm_tool_watch watch = { &progress, cases[i].expected };
		struct tm_tool_result result;

		assert_int_equal(tm_tool_run(argv, 2, &watch, &result, NULL), -ETIMEDOUT);
		if (i == 0 && atomic_load(&progress.percent) == 0)
			TM_SKIP("the kernel does not count what is written here");
		assert_in_range(atomic_load(&progress.percent) + 1, cases[i].least + 1,
				cases[i].most + 1);
	}
	(void)close(fd);
	(void)unlink(path);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_programs),      cmocka_unit_test(tells_how_they_end),
		cmocka_unit_test(keeps_the_beginning), cmocka_unit_test(needs_the_program),
		cmocka_unit_test(ended_by_others),     cmocka_unit_test(kills_after_the_limit),
		cmocka_unit_test(hands_on_everything), cmocka_unit_test(ends_when_cancelled),
		cmocka_unit_test(tells_progress),
	};

	return cmocka_run_group_tests_name("tool", tests, NULL, NULL);
}
