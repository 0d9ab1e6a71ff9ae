// SPDX-License-Identifier: GPL-2.0-or-later
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"

struct place {
	char dir[64];
	char path[128];
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/thinmgr-test-XXXXXX");
	if (!mkdtemp(p->dir))
		return -1;
	(void)snprintf(p->path, sizeof(p->path), "%s/file", p->dir);
	*state = p;
	return 0;
}

/* Names in the directory, and unlinks them. */
static unsigned int empty(const char *path)
{
	unsigned int n = 0;
	struct dirent *e;
	DIR *d = opendir(path);

	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, "..")))
			continue;
		assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
		n++;
	}
	assert_int_equal(closedir(d), 0);
	return n;
}

static int teardown(void **state)
{
	struct place *p = *state;

	(void)empty(p->dir);
	assert_int_equal(rmdir(p->dir), 0);
	free(p);
	return 0;
}

static void expect_content(const char *path, const char *content)
{
	tm_auto_free char *text = NULL;
	size_t len;

	assert_int_equal(tm_read_file(path, 1 << 20, &text, &len), 0);
	assert_int_equal(len, strlen(content));
	assert_string_equal(text, content);
}

static void test_write_read(void **state)
{
	struct place *p = *state;
	struct stat st;

	assert_int_equal(tm_write_file_atomic(p->path, "one", 3, 0600), 0);
	expect_content(p->path, "one");
	assert_int_equal(tm_write_file_atomic(p->path, "", 0, 0640), 0);
	expect_content(p->path, "");
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(tm_fsync_parent(p->path), 0);
	assert_int_equal(empty(p->dir), 1);
}

/* A temporary that a crash left, or that somebody put there, does not get in the way. */
static void test_stale_temporary(void **state)
{
	struct place *p = *state;
	char tmp[160], other[160];

	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", p->path);
	(void)snprintf(other, sizeof(other), "%s/other", p->dir);
	assert_int_equal(tm_write_file_atomic(tmp, "half", 4, 0444), 0);
	assert_int_equal(tm_write_file_atomic(p->path, "whole", 5, 0600), 0);
	expect_content(p->path, "whole");
	assert_int_equal(access(tmp, F_OK), -1);

	assert_int_equal(tm_write_file_atomic(other, "theirs", 6, 0600), 0);
	assert_int_equal(symlink(other, tmp), 0);
	assert_int_equal(tm_write_file_atomic(p->path, "again", 5, 0600), 0);
	expect_content(other, "theirs");
	expect_content(p->path, "again");
}

static void test_write_errors(void **state)
{
	struct place *p = *state;
	char path[512], name[300];

	(void)snprintf(path, sizeof(path), "%s/no/such", p->dir);
	assert_int_equal(tm_write_file_atomic(path, "x", 1, 0600), -ENOENT);
	assert_int_equal(tm_fsync_parent(path), -ENOENT);
	(void)snprintf(path, sizeof(path), "%s/", p->dir);
	assert_int_equal(tm_write_file_atomic(path, "x", 1, 0600), -EISDIR);
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	(void)snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	assert_int_equal(tm_write_file_atomic(path, "x", 1, 0600), -ENAMETOOLONG);
	/* Onto a directory: the rename fails, and the temporary goes. */
	(void)snprintf(path, sizeof(path), "%s/sub", p->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(tm_write_file_atomic(path, "x", 1, 0600), -EISDIR);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(empty(p->dir), 0);
}

/* A write that fails: the old file stays as it was. */
static void test_write_failure_keeps_old(void **state)
{
	struct place *p = *state;
	char tmp[160];
	pid_t child;
	int status;

	assert_int_equal(tm_write_file_atomic(p->path, "old", 3, 0600), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		const struct rlimit small = { 1000, 1000 };
		char text[5000] = { 0 };

		/* A limit on file sizes makes write(2) fail halfway, as a full device would. */
		if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || setrlimit(RLIMIT_FSIZE, &small) < 0)
			_exit(2);
		_exit(tm_write_file_atomic(p->path, text, sizeof(text), 0600) == -EFBIG ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	expect_content(p->path, "old");
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", p->path);
	assert_int_equal(access(tmp, F_OK), -1);
}

/* Writers at the same time: always one of the whole texts. */
static void test_concurrent_writers(void **state)
{
	struct place *p = *state;
	tm_auto_free char *text = NULL;
	char a[5000], b[5000];
	pid_t child;
	size_t len;
	int status, i;

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		for (i = 0; i < 30; i++)
			if (tm_write_file_atomic(p->path, b, sizeof(b), 0600) < 0)
				_exit(1);
		_exit(0);
	}
	for (i = 0; i < 30; i++) {
		assert_int_equal(tm_write_file_atomic(p->path, a, sizeof(a), 0600), 0);
		assert_int_equal(tm_read_file(p->path, 1 << 20, &text, &len), 0);
		assert_int_equal(len, sizeof(a));
		assert_true(!memcmp(text, a, len) || !memcmp(text, b, len));
		free(TM_TAKE(text));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(empty(p->dir), 1);
}

static void test_read_limits(void **state)
{
	static const size_t sizes[] = { 0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 20000 };
	struct place *p = *state;
	char *content = calloc(1, 20001);
	size_t i;

	assert_non_null(content);
	memset(content, 'c', 20000);
	for (i = 0; i < TM_ARRAY_SIZE(sizes); i++) {
		char *text = NULL;
		size_t len = 7;

		assert_int_equal(tm_write_file_atomic(p->path, content, sizes[i], 0600), 0);
		if (sizes[i]) {
			assert_int_equal(tm_read_file(p->path, sizes[i] - 1, &text, &len), -EFBIG);
			assert_null(text);
			assert_int_equal(len, 7);
		}
		assert_int_equal(tm_read_file(p->path, sizes[i], &text, &len), 0);
		assert_int_equal(len, sizes[i]);
		assert_int_equal(strlen(text), sizes[i]);
		free(text);
		assert_int_equal(tm_read_file(p->path, SIZE_MAX, &text, NULL), 0);
		free(text);
	}
	free(content);
}

static void test_read_errors(void **state)
{
	struct place *p = *state;
	char *text = NULL;
	size_t len;

	assert_int_equal(tm_read_file(p->path, 100, &text, &len), -ENOENT);
	assert_int_equal(tm_read_file(p->dir, 100, &text, &len), -EISDIR);
	assert_int_equal(mkfifo(p->path, 0600), 0);
	assert_int_equal(tm_read_file(p->path, 100, &text, &len), -EINVAL);
	assert_int_equal(tm_read_file("/dev/null", 100, &text, &len), -EINVAL);
	assert_int_equal(unlink(p->path), 0);
	assert_int_equal(symlink("/proc/self/stat", p->path), 0);
	assert_int_equal(tm_read_file_itself(p->path, 1 << 20, &text, &len), -ELOOP);
	assert_null(text);
	/* Files of procfs say they have no bytes. */
	assert_int_equal(tm_read_file("/proc/self/stat", 1 << 20, &text, &len), 0);
	assert_true(len > 10);
	free(text);
}

static void test_relative(void **state)
{
	struct place *p = *state;
	char cwd[4096];

	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_int_equal(chdir(p->dir), 0);
	assert_int_equal(tm_write_file_atomic("plain", "x", 1, 0600), 0);
	assert_int_equal(tm_fsync_parent("plain"), 0);
	assert_int_equal(tm_fsync_parent("/plain"), 0);
	assert_int_equal(chdir(cwd), 0);
	assert_int_equal(empty(p->dir), 1);
}

static void test_time_format(void **state)
{
	static const struct {
		uint64_t usec;
		const char *text;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00.000Z" },
		{ 1767323045678000, "2026-01-02T03:04:05.678Z" },
		{ 1767323045678999, "2026-01-02T03:04:05.678Z" },
		{ 951782399999000, "2000-02-28T23:59:59.999Z" },
		{ 951782400000000, "2000-02-29T00:00:00.000Z" },
		{ UINT64_MAX, "9999-12-31T23:59:59.999Z" },
	};
	char buf[32];
	uint64_t back;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_string_equal(tm_time_format(cases[i].usec, buf, sizeof(buf)), cases[i].text);
		assert_int_equal(tm_time_parse(buf, &back), 0);
		if (cases[i].usec != UINT64_MAX)
			assert_int_equal(back, cases[i].usec / 1000 * 1000);
	}
}

static void test_time_parse(void **state)
{
	static const struct {
		const char *text;
		uint64_t usec;
	} good[] = {
		{ "2026-01-02T03:04:05Z", 1767323045000000 },
		{ "2026-01-02t03:04:05z", 1767323045000000 },
		{ "2026-01-02T03:04:05.6Z", 1767323045600000 },
		{ "2026-01-02T03:04:05.678901Z", 1767323045678901 },
		{ "2026-01-02T03:04:05.678901999999Z", 1767323045678901 },
		{ "2026-01-02T05:34:05+02:30", 1767323045000000 },
		{ "2026-01-01T22:04:05-05:00", 1767323045000000 },
		{ "1970-01-01T00:00:00+00:00", 0 },
		{ "2016-12-31T23:59:60Z", 1483228800000000 },
		{ "2024-02-29T00:00:00Z", 1709164800000000 },
	};
	static const char *const bad[] = {
		"",
		"now",
		"2026-01-02",
		"2026-01-02T03:04:05",
		"2026-01-02 03:04:05Z",
		"2026-1-02T03:04:05Z",
		"2026-00-02T03:04:05Z",
		"2026-13-02T03:04:05Z",
		"2026-01-00T03:04:05Z",
		"2026-01-32T03:04:05Z",
		"2026-02-29T00:00:00Z",
		"1900-02-29T00:00:00Z",
		"2026-04-31T00:00:00Z",
		"2026-01-02T24:04:05Z",
		"2026-01-02T03:60:05Z",
		"2026-01-02T03:04:61Z",
		"2026-01-02T03:04:05.Z",
		"2026-01-02T03:04:05ZZ",
		"2026-01-02T03:04:05Z ",
		" 2026-01-02T03:04:05Z",
		"2026-01-02T03:04:05+0200",
		"2026-01-02T03:04:05+24:00",
		"2026-01-02T03:04:05+02:60",
		"2026-01-02T03:04:05+02:00x",
		"1969-12-31T23:59:59Z",
		"1970-01-01T00:00:00+00:01",
		"9999-12-31T23:59:59-00:01",
		"+026-01-02T03:04:05Z",
		"-026-01-02T03:04:05Z",
		"20261-01-02T03:04:05Z",
	};
	uint64_t usec;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(good); i++) {
		assert_int_equal(tm_time_parse(good[i].text, &usec), 0);
		assert_int_equal(usec, good[i].usec);
	}
	usec = 5;
	for (i = 0; i < TM_ARRAY_SIZE(bad); i++)
		assert_int_equal(tm_time_parse(bad[i], &usec), -EINVAL);
	assert_int_equal(usec, 5);
}

static void test_now(void **state)
{
	uint64_t a = tm_now_monotonic_usec(), b;

	(void)state;
	b = tm_now_monotonic_usec();
	assert_true(a > 0 && b >= a && b - a < 60000000);
	assert_true(tm_now_realtime_usec() > 1600000000000000);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_write_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_temporary, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_failure_keeps_old, setup, teardown),
		cmocka_unit_test_setup_teardown(test_concurrent_writers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relative, setup, teardown),
		cmocka_unit_test(test_time_format),
		cmocka_unit_test(test_time_parse),
		cmocka_unit_test(test_now),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
