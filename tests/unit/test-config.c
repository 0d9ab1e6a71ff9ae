/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration: every key, every way to get one wrong, drop-ins in their order. */
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
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "config/config.h"

#define DAY_USEC (86400 * TM_USEC_PER_SEC)

static void assert_same(const struct tm_config *a, const struct tm_config *b)
{
	assert_string_equal(a->state_directory, b->state_directory);
	assert_int_equal(a->log_level, b->log_level);
	assert_int_equal(a->worker_threads, b->worker_threads);
	assert_string_equal(a->socket, b->socket);
	assert_string_equal(a->socket_group, b->socket_group);
	assert_int_equal(a->loopback_port, b->loopback_port);
	assert_int_equal(a->loopback_admin, b->loopback_admin);
	assert_int_equal(a->max_body_bytes, b->max_body_bytes);
	assert_int_equal(a->http_threads, b->http_threads);
	assert_int_equal(a->max_connections, b->max_connections);
	assert_int_equal(a->bus_enabled, b->bus_enabled);
	assert_int_equal(a->keep_events_usec, b->keep_events_usec);
	assert_int_equal(a->tool_limit_usec, b->tool_limit_usec);
	assert_int_equal(a->load_module, b->load_module);
}

static int parse(const char *text, struct tm_config *config, struct tm_error *err)
{
	tm_config_default(config);
	return tm_config_parse("thinmgrd.conf", text, strlen(text), config, err);
}

static void test_defaults(void **state)
{
	struct tm_config config, expected;
	struct tm_error err = { 0 };

	(void)state;
	tm_config_default(&expected);
	assert_string_equal(expected.state_directory, "/var/lib/thinmgr");
	assert_int_equal(expected.log_level, LOG_INFO);
	assert_int_equal(expected.worker_threads, 4);
	assert_string_equal(expected.socket, "/run/thinmgr/thinmgr.sock");
	assert_string_equal(expected.socket_group, "thinmgr");
	assert_int_equal(expected.loopback_port, 0);
	assert_false(expected.loopback_admin);
	assert_int_equal(expected.max_body_bytes, TM_MIB);
	assert_int_equal(expected.http_threads, 2);
	assert_int_equal(expected.max_connections, 256);
	assert_true(expected.bus_enabled);
	assert_int_equal(expected.keep_events_usec, 365 * DAY_USEC);
	assert_int_equal(expected.tool_limit_usec, 600 * TM_USEC_PER_SEC);
	assert_true(expected.load_module);
	assert_int_equal(parse("", &config, &err), 0);
	assert_same(&config, &expected);
	assert_int_equal(parse("\n  \n# c\n ; c\n[http]\n", &config, &err), 0);
	assert_same(&config, &expected);
}

static void test_every_key(void **state)
{
	static const char text[] = "\xef\xbb\xbf[daemon]\r\n"
				   "state_directory = /srv/state\r\n"
				   "log_level=debug\n"
				   "worker_threads=32\n"
				   "[http]\n"
				   "socket=/run/x.sock ; for now\n"
				   "socket_group=storage-admins\n"
				   "loopback_port=8080\n"
				   "loopback_role=admin\n"
				   "max_body=64 KiB\n"
				   "threads=16\n"
				   "max_connections=10000\n"
				   "[bus]\n"
				   "enabled=off\n"
				   "[history]\n"
				   "keep_events=2w\n"
				   "[repair]\n"
				   "tool_limit=2h\n"
				   "[kernel]\n"
				   "load_module=false";
	static const struct tm_config expected = {
		.state_directory = "/srv/state",
		.log_level = LOG_DEBUG,
		.worker_threads = 32,
		.socket = "/run/x.sock",
		.socket_group = "storage-admins",
		.loopback_port = 8080,
		.loopback_admin = true,
		.max_body_bytes = 64 * 1024,
		.http_threads = 16,
		.max_connections = 10000,
		.bus_enabled = false,
		.keep_events_usec = 14 * DAY_USEC,
		.tool_limit_usec = 7200 * TM_USEC_PER_SEC,
		.load_module = false,
	};
	struct tm_config config;
	struct tm_error err = { 0 };

	(void)state;
	if (parse(text, &config, &err) < 0)
		fail_msg("%s", err.detail);
	assert_same(&config, &expected);
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t seconds;
	} cases[] = {
		{ "3600s", 3600 },     { "60min", 3600 },
		{ "1h", 3600 },        { "1d", 86400 },
		{ "2 d", 172800 },     { "1w", 604800 },
		{ "1y", 365 * 86400 }, { "100y", 100ULL * 365 * 86400 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_config config;
		struct tm_error err = { 0 };
		char text[64];

		(void)snprintf(text, sizeof(text), "[history]\nkeep_events=%s\n", cases[i].text);
		if (parse(text, &config, &err) < 0)
			fail_msg("%s", err.detail);
		assert_int_equal(config.keep_events_usec, cases[i].seconds * TM_USEC_PER_SEC);
	}
}

/* Each is refused at the line given, with words that say what it is about, and changes nothing. */
static void test_refused(void **state)
{
	static const struct {
		const char *text;
		int line;
		const char *says;
	} cases[] = {
		/* sections and keys */
		{ "[nothing]\n", 1, "unknown section [nothing]" },
		{ "\n\n[Daemon]\nlog_level=info\n", 3, "unknown section [Daemon]" },
		{ "[]\n", 1, "unknown section []" },
		{ "[daemon]\nlog_levle=info\n", 2,
		  "unknown key \"log_levle\" in section [daemon]" },
		{ "[daemon]\nsocket=/run/x\n", 2, "unknown key \"socket\"" },
		{ "log_level=info\n", 1, "before any section" },
		{ "[daemon]\nlog_level=info\n\nlog_level=info\n", 4, "set twice" },
		{ "[daemon]\nlog_level=info\n[http]\n[daemon]\nlog_level=debug\n", 5, "set twice" },
		{ "[daemon]\n=info\n", 2, "unknown key \"\"" },
		/* forms */
		{ "[daemon]\nlog_level\n", 2, "neither" },
		{ "[daemon\nlog_level=info\n", 1, "neither" },
		{ "hello\n[daemon]\nlog_levle=1\n", 1, "neither" },
		{ "[daemon] log_level=info\n", 1, "after a section's name" },
		{ "[daemon]\nlog_level=info\n  debug\n", 3, "white space" },
		{ "[daemon]\n\tlog_level=info\n", 2, "white space" },
		{ "[daemon]\nlog_level=in\001fo\n", 2, "control character" },
		{ "[daemon]\nlog_level=info\rx\n", 2, "control character" },
		{ "[daemon]\n# \033[31m\n", 2, "control character" },
		/* values */
		{ "[daemon]\nlog_level=\n", 2, "log_level=" },
		{ "[daemon]\nlog_level=loud\n", 2, "must be err, warning" },
		{ "[daemon]\nlog_level=6\n", 2, "must be err" },
		{ "[daemon]\nworker_threads=0\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=33\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=-1\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=+4\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=four\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=4.0\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=0x4\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=18446744073709551620\n", 2, "1 to 32" },
		{ "[daemon]\nworker_threads=4 4\n", 2, "1 to 32" },
		{ "[daemon]\nstate_directory=var/lib\n", 2, "absolute path" },
		{ "[daemon]\nstate_directory=/var/../lib\n", 2, "absolute path" },
		{ "[daemon]\nstate_directory=\n", 2, "absolute path" },
		{ "[http]\nsocket=/12345678901234567890123456789012345678901234567890"
		  "123456789012345678901234567890123456789012345678901234567\n",
		  2, "at most 107" },
		{ "[http]\nsocket_group=\n", 2, "name of a group" },
		{ "[http]\nsocket_group=-x\n", 2, "name of a group" },
		{ "[http]\nsocket_group=a b\n", 2, "name of a group" },
		{ "[http]\nsocket_group=../x\n", 2, "name of a group" },
		{ "[http]\nsocket_group=a23456789012345678901234567890123\n", 2,
		  "name of a group" },
		{ "[http]\nloopback_port=65536\n", 2, "65535" },
		{ "[http]\nloopback_port=http\n", 2, "65535" },
		{ "[http]\nloopback_role=operator\n", 2, "view or admin" },
		{ "[http]\nloopback_role=Admin\n", 2, "view or admin" },
		{ "[http]\nloopback_role=\n", 2, "view or admin" },
		{ "[http]\nmax_body=4095\n", 2, "4KiB to 64MiB" },
		{ "[http]\nmax_body=65MiB\n", 2, "4KiB to 64MiB" },
		{ "[http]\nmax_body=lots\n", 2, "4KiB to 64MiB" },
		{ "[http]\nmax_body=99999999999999999999E\n", 2, "4KiB to 64MiB" },
		{ "[http]\nthreads=17\n", 2, "1 to 16" },
		{ "[http]\nmax_connections=10001\n", 2, "1 to 10000" },
		{ "[bus]\nenabled=maybe\n", 2, "yes or no" },
		{ "[bus]\nenabled=YES\n", 2, "yes or no" },
		{ "[bus]\nenabled=2\n", 2, "yes or no" },
		{ "[history]\nkeep_events=365\n", 2, "with its unit" },
		{ "[history]\nkeep_events=d\n", 2, "1h to 100y" },
		{ "[history]\nkeep_events=59min\n", 2, "1h to 100y" },
		{ "[history]\nkeep_events=101y\n", 2, "1h to 100y" },
		{ "[history]\nkeep_events=-5d\n", 2, "1h to 100y" },
		{ "[history]\nkeep_events=1d 2h\n", 2, "1h to 100y" },
		{ "[history]\nkeep_events=99999999999999999999y\n", 2, "1h to 100y" },
		{ "[history]\nkeep_events=1 month\n", 2, "1h to 100y" },
		{ "[repair]\ntool_limit=0s\n", 2, "1s to 1d" },
		{ "[repair]\ntool_limit=25h\n", 2, "1s to 1d" },
		{ "[repair]\ntool_limit=600\n", 2, "1s to 1d" },
		{ "[kernel]\nload_module=\n", 2, "yes or no" },
		/* the first fault is the one told */
		{ "[daemon]\nlog_level=loud\nhello\n[what]\n", 2, "must be err" },
		{ "[daemon]\nhello\nlog_level=loud\n", 2, "neither" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_config config, expected;
		struct tm_error err = { 0 };
		char place[64];
		int r = parse(cases[i].text, &config, &err);

		if (r != -EINVAL)
			fail_msg("%s: accepted (%d)", cases[i].text, r);
		(void)snprintf(place, sizeof(place), "thinmgrd.conf:%d: ", cases[i].line);
		if (err.code != TM_ERR_BAD_CONFIG ||
		    strncmp(err.detail, place, strlen(place)) != 0 ||
		    !strstr(err.detail, cases[i].says))
			fail_msg("%s: \"%s\" (expected %s...%s)", cases[i].text, err.detail, place,
				 cases[i].says);
		for (const char *p = err.detail; *p; p++)
			assert_true(*p >= ' ' && *p <= '~');
		/* Nothing of it is taken, nor does it need somebody who listens. */
		tm_config_default(&expected);
		assert_same(&config, &expected);
		assert_int_equal(parse(cases[i].text, &config, NULL), -EINVAL);
	}
}

static void test_long_lines(void **state)
{
	static const size_t lengths[] = { 191, 198, 200, 255, 4096, 65536 };
	struct tm_config config;
	char *text = malloc(70000);

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < TM_ARRAY_SIZE(lengths); i++) {
		struct tm_error err = { 0 };

		/* Cut in two by a reader that is not careful, the rest would be a line of its own.
		 */
		(void)snprintf(text, 16, "[bus]\n#");
		memset(text + 7, '[', lengths[i] - 1);
		(void)snprintf(text + 6 + lengths[i], 70000 - 6 - lengths[i], "\nenabled=no\n");
		assert_int_equal(parse(text, &config, &err), -EINVAL);
		assert_non_null(strstr(err.detail, "thinmgrd.conf:2: "));
		assert_non_null(strstr(err.detail, "longer than 190"));
	}
	/* The longest that is allowed, with the fault on the line after it told right. */
	memset(text, 'x', 190);
	text[0] = '#';
	(void)snprintf(text + 190, 16, "\nfoo\n");
	{
		struct tm_error err = { 0 };

		assert_int_equal(parse(text, &config, &err), -EINVAL);
		assert_non_null(strstr(err.detail, "thinmgrd.conf:2: neither"));
	}
	free(text);
}

static void test_nul_bytes(void **state)
{
	static const char *const texts[] = { "[bus]\nenabled=no\0x\n", "[bus]\nenab\0led=no\n",
					     "[bus]\n#\0\n........", "[bus]\n\0.............." };

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(texts); i++) {
		struct tm_config config;
		struct tm_error err = { 0 };

		tm_config_default(&config);
		assert_int_equal(tm_config_parse("thinmgrd.conf", texts[i], 18, &config, &err),
				 -EINVAL);
		assert_string_equal(err.detail, "thinmgrd.conf:2: a NUL byte");
		assert_true(config.bus_enabled);
	}
}

struct place {
	char directory[64], file[96], drop_ins[128];
};

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	(void)close(fd);
}

static void write_drop_in(const struct place *p, const char *name, const char *text)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", p->drop_ins, name);
	write_text(path, text);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	(void)snprintf(p->directory, sizeof(p->directory), "/tmp/test-config-XXXXXX");
	assert_non_null(mkdtemp(p->directory));
	(void)snprintf(p->file, sizeof(p->file), "%s/thinmgrd.conf", p->directory);
	(void)snprintf(p->drop_ins, sizeof(p->drop_ins), "%s.d", p->file);
	assert_int_equal(mkdir(p->drop_ins, 0755), 0);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = { "10-a.conf", "20-b.conf", "9-c.conf", "30.conf",
					     ".hid.conf", "x.conf~",   "b.txt",    ".conf" };
	struct place *p = *state;
	char path[256];

	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", p->drop_ins, names[i]);
		if (unlink(path) < 0)
			(void)rmdir(path);
	}
	(void)unlink(p->file);
	(void)rmdir(p->drop_ins);
	assert_int_equal(rmdir(p->directory), 0);
	free(p);
	return 0;
}

static void test_drop_ins(void **state)
{
	const struct place *p = *state;
	struct tm_config config;
	struct tm_error err = { 0 };

	write_text(p->file, "[http]\nthreads=3\nmax_connections=5\n[bus]\nenabled=no\n");
	write_drop_in(p, "10-a.conf", "[http]\nthreads=4\nloopback_port=1\n");
	write_drop_in(p, "20-b.conf", "[http]\nthreads=5\n");
	write_drop_in(p, "9-c.conf", "[http]\nloopback_port=9\n"); /* by bytes: the last */
	write_drop_in(p, ".hid.conf", "junk\n");
	write_drop_in(p, ".conf", "junk\n");
	write_drop_in(p, "x.conf~", "junk\n");
	write_drop_in(p, "b.txt", "junk\n");
	if (tm_config_load(p->file, &config, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(config.http_threads, 5);
	assert_int_equal(config.loopback_port, 9);
	assert_int_equal(config.max_connections, 5);
	assert_false(config.bus_enabled);
}

static void test_faults_in_drop_ins(void **state)
{
	const struct place *p = *state;
	struct tm_config config = { .http_threads = 77 };
	struct tm_error err = { 0 };
	char expected[256];

	write_text(p->file, "[http]\nthreads=3\n");
	write_drop_in(p, "20-b.conf", "\n[http]\nthreads=no\n");
	assert_int_equal(tm_config_load(p->file, &config, &err), -EINVAL);
	(void)snprintf(expected, sizeof(expected), "%s/20-b.conf:3: threads=no", p->drop_ins);
	assert_non_null(strstr(err.detail, expected));
	assert_int_equal(err.code, TM_ERR_BAD_CONFIG);
	assert_int_equal(config.http_threads, 77);
}

static void test_missing_and_unreadable(void **state)
{
	const struct place *p = *state;
	struct tm_config config;
	struct tm_error err = { 0 };
	char path[256];
	int fd;

	assert_int_equal(tm_config_load(p->file, &config, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_BAD_CONFIG);
	assert_non_null(strstr(err.detail, p->file));

	/* Without the directory of drop-ins. */
	assert_int_equal(rmdir(p->drop_ins), 0);
	write_text(p->file, "");
	assert_int_equal(tm_config_load(p->file, &config, NULL), 0);
	/* A file in its place. */
	write_text(p->drop_ins, "");
	assert_int_equal(tm_config_load(p->file, &config, NULL), -ENOTDIR);
	assert_int_equal(unlink(p->drop_ins), 0);
	assert_int_equal(mkdir(p->drop_ins, 0755), 0);
	/* A directory that is named like a drop-in. */
	(void)snprintf(path, sizeof(path), "%s/30.conf", p->drop_ins);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(tm_config_load(p->file, &config, NULL), -EISDIR);
	assert_int_equal(rmdir(path), 0);
	/* More than a megabyte is no configuration. */
	fd = open(p->file, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1024 * 1024 + 1), 0);
	(void)close(fd);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_config_load(p->file, &config, &err), -EFBIG);
	assert_non_null(strstr(err.detail, "1 MiB"));
}

/* The file that is shipped shows every key, at its default. */
static void test_shipped_file(void **state)
{
	static const char *const keys[] = {
		"state_directory", "log_level",     "worker_threads", "socket",      "socket_group",
		"loopback_port",   "loopback_role", "max_body",       "threads",     "enabled",
		"max_connections", "keep_events",   "tool_limit",     "load_module",
	};
	const char *root = getenv("SOURCE_ROOT");
	tm_auto_free char *path = NULL, *text = NULL, *bare = NULL;
	struct tm_config config, expected;
	struct tm_error err = { 0 };
	size_t len = 0, n = 0;

	(void)state;
	assert_true(asprintf(&path, "%s/packaging/thinmgrd.conf", root ? root : ".") > 0);
	assert_int_equal(tm_read_file(path, 65536, &text, &len), 0);
	tm_config_default(&expected);
	assert_int_equal(parse(text, &config, &err), 0);
	assert_same(&config, &expected);

	/* With the keys' marks taken off ("#key=", while prose has "# "). */
	bare = calloc(len + 1, 1);
	assert_non_null(bare);
	for (size_t i = 0; i < len; i++) {
		bool line_begins = i == 0 || text[i - 1] == '\n';

		if (!(line_begins && text[i] == '#' && text[i + 1] >= 'a' && text[i + 1] <= 'z'))
			bare[n++] = text[i];
	}
	if (parse(bare, &config, &err) < 0)
		fail_msg("%s", err.detail);
	assert_same(&config, &expected);
	for (size_t i = 0; i < TM_ARRAY_SIZE(keys); i++) {
		char line[64];

		(void)snprintf(line, sizeof(line), "\n%s=", keys[i]);
		if (!strstr(bare, line))
			fail_msg("%s is not in the shipped file", keys[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_long_lines),
		cmocka_unit_test(test_nul_bytes),
		cmocka_unit_test_setup_teardown(test_drop_ins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults_in_drop_ins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing_and_unreadable, setup, teardown),
		cmocka_unit_test(test_shipped_file),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
