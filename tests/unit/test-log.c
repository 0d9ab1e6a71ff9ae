// SPDX-License-Identifier: GPL-2.0-or-later
/* Only the plain form: what reaches a journal is seen on a real system. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/utf8.h"

struct capture {
	int saved;
	int pipe[2];
	char text[8192];
};

static void capture_start(struct capture *c)
{
	(void)fflush(stderr);
	assert_int_equal(pipe2(c->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	c->saved = dup(STDERR_FILENO);
	assert_true(c->saved >= 0);
	assert_true(dup2(c->pipe[1], STDERR_FILENO) >= 0);
}

static const char *capture_end(struct capture *c)
{
	ssize_t n = read(c->pipe[0], c->text, sizeof(c->text) - 1);

	assert_true(dup2(c->saved, STDERR_FILENO) >= 0);
	assert_int_equal(close(c->saved), 0);
	assert_int_equal(close(c->pipe[0]), 0);
	assert_int_equal(close(c->pipe[1]), 0);
	c->text[n > 0 ? n : 0] = '\0';
	return c->text;
}

static int setup(void **state)
{
	(void)state;
	tm_log_init(LOG_INFO);
	return 0;
}

static void test_plain(void **state)
{
	struct capture c;

	(void)state;
	capture_start(&c);
	errno = EXDEV;
	tm_log(LOG_WARNING, "the %s is %d", "answer", 42);
	assert_int_equal(errno, EXDEV);
	assert_string_equal(capture_end(&c), "warning: the answer is 42\n");
}

static void test_level(void **state)
{
	struct capture c;

	(void)state;
	assert_int_equal(tm_log_level(), LOG_INFO);
	capture_start(&c);
	tm_log(LOG_DEBUG, "not shown");
	tm_log_set_level(LOG_ERR);
	tm_log(LOG_WARNING, "not shown");
	tm_log(LOG_ERR, "shown");
	tm_log_set_level(LOG_DEBUG);
	tm_log(LOG_DEBUG, "shown too");
	assert_string_equal(capture_end(&c), "error: shown\ndebug: shown too\n");
}

static void test_fields(void **state)
{
	static const struct tm_error err = { .code = TM_ERR_NO_SPACE,
					     .errnum = ENOSPC,
					     .detail = "no room on /srv",
					     .hint = "Free some." };
	static const struct {
		struct tm_log_fields fields;
		const char *message, *line;
	} cases[] = {
		{ { .pool = NULL }, "m", "info: m\n" },
		{ { .pool = "p" }, "m", "info: m [p]\n" },
		{ { .pool = "p", .volume = "v" }, "m", "info: m [p/v]\n" },
		{ { .pool = "p", .volume = "v", .operation = "o" }, "m", "info: m [p/v o]\n" },
		{ { .pool = "p", .operation = "o" }, "m", "info: m [p o]\n" },
		{ { .pool = "", .volume = "" }, "m", "info: m\n" },
		{ { .error = &err },
		  "cannot extend",
		  "info: cannot extend: no room on /srv. Free some.\n" },
		{ { .error = &err }, "no room on /srv", "info: no room on /srv. Free some.\n" },
		{ { .error = &err },
		  "no room on /srv (Free some.)",
		  "info: no room on /srv (Free some.)\n" },
	};
	struct capture c;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		capture_start(&c);
		tm_log_fields(LOG_INFO, &cases[i].fields, "%s", cases[i].message);
		assert_string_equal(capture_end(&c), cases[i].line);
	}
}

/* A message is one line of valid text, whatever it is made of and however long it is. */
static void test_hostile(void **state)
{
	struct tm_error err = { .code = TM_ERR_IO, .detail = "d" };
	const struct tm_log_fields fields = { .pool = "p", .error = &err };
	struct capture c;
	char text[6000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[10] = '\n';
	text[11] = '\x1b';
	text[12] = '\xff';
	text[sizeof(text) - 1] = '\0';
	capture_start(&c);
	tm_log_fields(LOG_ERR, &fields, "%s", text);
	assert_true(strlen(capture_end(&c)) > 2000);
	assert_true(strlen(c.text) < 2400);
	assert_ptr_equal(strchr(c.text, '\n'), c.text + strlen(c.text) - 1);
	assert_null(strchr(c.text, '\x1b'));
	assert_true(tm_utf8_valid(c.text));
}

/* A JOURNAL_STREAM that is not about our stderr is inherited and means nothing. */
static void test_foreign_stream(void **state)
{
	static const char *const streams[] = { "",   "1:2", "x",     "1",
					       "1:", ":2",  "1:2:3", "99999999999999999999999:1" };
	struct capture c;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(streams); i++) {
		capture_start(&c);
		assert_int_equal(setenv("JOURNAL_STREAM", streams[i], 1), 0);
		tm_log_init(LOG_INFO);
		tm_log(LOG_INFO, "here");
		assert_string_equal(capture_end(&c), "info: here\n");
	}
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
}

/* When stderr is what JOURNAL_STREAM says, the journal is told and stderr is not. */
static void test_own_stream(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct capture c;
		struct stat st;
		char stream[64];

		capture_start(&c);
		assert_int_equal(fstat(STDERR_FILENO, &st), 0);
		(void)snprintf(stream, sizeof(stream), "%llu:%llu%s",
			       (unsigned long long)st.st_dev + (i == 1),
			       (unsigned long long)st.st_ino + (i == 2), i == 3 ? "x" : "");
		assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
		tm_log_init(LOG_INFO);
		tm_log_fields(LOG_INFO, NULL, "a line of thinmgr's unit tests");
		assert_string_equal(capture_end(&c),
				    i ? "info: a line of thinmgr's unit tests\n" : "");
	}
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
	tm_log_init(LOG_INFO);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_plain, setup),
		cmocka_unit_test_setup(test_level, setup),
		cmocka_unit_test_setup(test_fields, setup),
		cmocka_unit_test_setup(test_hostile, setup),
		cmocka_unit_test(test_foreign_stream),
		cmocka_unit_test(test_own_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
