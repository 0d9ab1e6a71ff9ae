// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../cli/args.h"
#include "common/cleanup.h"
#include "common/units.h"

/* Every failed reader says what is wrong, with the exit status of a usage error. */
static void assert_usage(int r, const struct tm_error *err)
{
	assert_true(r < 0);
	assert_int_equal(tm_error_exit_code(err->code), 2);
	assert_true(err->detail[0]);
}

static void test_option_table(void **state)
{
	(void)state;
	for (int a = 0; a < CLI_OPT_COUNT; a++) {
		const struct cli_option *o = cli_option(a);

		assert_non_null(o->name);
		assert_non_null(o->help);
		for (int b = 0; b < a; b++) {
			assert_string_not_equal(o->name, cli_option(b)->name);
			if (o->letter)
				assert_int_not_equal(o->letter, cli_option(b)->letter);
		}
	}
}

#define ALL (((uint64_t)1 << CLI_OPT_COUNT) - 1)

static void test_parse(void **state)
{
	static const struct {
		const char *argv[8];
		uint64_t allowed;
		bool stop;
		int r, operands;
		enum cli_option_id id; /* that is given ... */
		const char *value;     /* ... with this value; NULL: is not given */
	} cases[] = {
		{ { "t" }, ALL, false, 0, 0, CLI_OPT_JSON, NULL },
		{ { "t", "--json" }, ALL, false, 0, 0, CLI_OPT_JSON, "" },
		{ { "t", "-j" }, ALL, false, 0, 0, CLI_OPT_JSON, "" },
		{ { "t", "a", "-j", "b" }, ALL, false, 0, 2, CLI_OPT_JSON, "" },
		{ { "t", "a", "-j", "b" }, ALL, true, 0, 3, CLI_OPT_JSON, NULL },
		{ { "t", "-j", "a" }, ALL, true, 0, 1, CLI_OPT_JSON, "" },
		{ { "t", "--", "-j" }, ALL, false, 0, 1, CLI_OPT_JSON, NULL },
		{ { "t", "-s", "1G" }, ALL, false, 0, 0, CLI_OPT_SIZE, "1G" },
		{ { "t", "-s1G" }, ALL, false, 0, 0, CLI_OPT_SIZE, "1G" },
		{ { "t", "--size=1G" }, ALL, false, 0, 0, CLI_OPT_SIZE, "1G" },
		{ { "t", "--size=" }, ALL, false, 0, 0, CLI_OPT_SIZE, "" },
		{ { "t", "--size", "1G", "--size", "2G" }, ALL, false, 0, 0, CLI_OPT_SIZE, "2G" },
		{ { "t", "-qjs", "1G" }, ALL, false, 0, 0, CLI_OPT_SIZE, "1G" },
		{ { "t", "--size" }, ALL, false, -EINVAL, 0, CLI_OPT_SIZE, NULL },
		{ { "t", "-s" }, ALL, false, -EINVAL, 0, CLI_OPT_SIZE, NULL },
		{ { "t", "--json=1" }, ALL, false, -EINVAL, 0, CLI_OPT_SIZE, NULL },
		{ { "t", "--nonsense" }, ALL, false, -EINVAL, 0, CLI_OPT_SIZE, NULL },
		{ { "t", "--s" }, ALL, false, -EINVAL, 0, CLI_OPT_SIZE, NULL }, /* of several */
		{ { "t", "-?" }, ALL, false, -EINVAL, 0, CLI_OPT_SIZE, NULL },
		{ { "t", "--size", "1" },
		  CLI_GLOBAL_OPTIONS,
		  false,
		  -EINVAL,
		  0,
		  CLI_OPT_SIZE,
		  NULL },
		{ { "t", "-s", "1" }, CLI_GLOBAL_OPTIONS, false, -EINVAL, 0, CLI_OPT_SIZE, NULL },
		{ { "t", "-" }, ALL, false, 0, 1, CLI_OPT_SIZE, NULL },
		{ { "t", "" }, ALL, false, 0, 1, CLI_OPT_SIZE, NULL },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct cli_args args = { 0 };
		struct tm_error err = { 0 };
		char *argv[9] = { 0 };
		int argc = 0, r;

		while (cases[i].argv[argc]) {
			argv[argc] = (char *)(uintptr_t)cases[i].argv[argc];
			argc++;
		}
		r = cli_args_parse(argc, argv, cases[i].allowed, cases[i].stop, &args, &err);
		assert_int_equal(r, cases[i].r);
		if (r < 0) {
			assert_usage(r, &err);
			continue;
		}
		assert_int_equal(args.n_operands, cases[i].operands);
		if (cases[i].value)
			assert_string_equal(args.values[cases[i].id], cases[i].value);
		else
			assert_null(args.values[cases[i].id]);
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t size;
		bool relative;
	} cases[] = {
		{ "1", 0, 1, false },           { "4G", 0, 4 * TM_GIB, false },
		{ "+4G", 0, 4 * TM_GIB, true }, { "1.5GiB", 0, 3 * TM_GIB / 2, false },
		{ "", -EINVAL, 0, false },      { "+", -EINVAL, 0, false },
		{ "++1", -EINVAL, 0, false },   { "0", -EINVAL, 0, false },
		{ "+0", -EINVAL, 0, false },    { "-1", -EINVAL, 0, false },
		{ "none", -EINVAL, 0, false },  { "99999999999T", -EINVAL, 0, false },
	};
	struct tm_error err = { 0 };
	uint64_t none = 7;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error e = { 0 };
		uint64_t size = 77;
		bool relative = false;
		int r = cli_read_size_change("--size", cases[i].text, &size, &relative, &e);

		assert_int_equal(r, cases[i].r);
		if (r == 0) {
			assert_int_equal(size, cases[i].size);
			assert_int_equal(relative, cases[i].relative);
		} else {
			assert_usage(r, &e);
			assert_int_equal(size, 77);
			assert_non_null(strstr(e.detail, "--size"));
		}
	}
	assert_int_equal(cli_read_size_or_none("--max", "none", &none, &err), 0);
	assert_int_equal(none, 0);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		uint64_t min, max;
		bool percent;
		int r;
		uint64_t value;
	} cases[] = {
		{ "0", 0, 9, false, 0, 0 },
		{ "9", 0, 9, false, 0, 9 },
		{ "007", 0, 9, false, 0, 7 },
		{ "50%", 1, 90, true, 0, 50 },
		{ "50", 1, 90, true, 0, 50 },
		{ "18446744073709551615", 0, UINT64_MAX, false, 0, UINT64_MAX },
		{ "18446744073709551616", 0, UINT64_MAX, false, -EINVAL, 0 },
		{ "10", 0, 9, false, -EINVAL, 0 },
		{ "0", 1, 9, false, -EINVAL, 0 },
		{ "5%", 0, 9, false, -EINVAL, 0 },
		{ "5%%", 0, 9, true, -EINVAL, 0 },
		{ "%", 0, 9, true, -EINVAL, 0 },
		{ "", 0, 9, false, -EINVAL, 0 },
		{ "-1", 0, 9, false, -EINVAL, 0 },
		{ "+1", 0, 9, false, -EINVAL, 0 },
		{ " 1", 0, 9, false, -EINVAL, 0 },
		{ "1 ", 0, 9, false, -EINVAL, 0 },
		{ "0x1", 0, 9, false, -EINVAL, 0 },
		{ "1.5", 0, 9, false, -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err = { 0 };
		uint64_t value = 77;
		int r = cli_read_number("--n", cases[i].text, cases[i].min, cases[i].max,
					cases[i].percent, &value, &err);

		assert_int_equal(r, cases[i].r);
		if (r < 0)
			assert_usage(r, &err);
		assert_int_equal(value, r < 0 ? 77 : cases[i].value);
	}
}

static void test_bools(void **state)
{
	static const char *const yes[] = { "yes", "on", "true", "1", "YES" };
	static const char *const no[] = { "no", "off", "false", "0", "Off" };
	static const char *const neither[] = { "", "y", "2", "maybe", "yes " };
	struct tm_error err = { 0 };
	bool value;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(yes); i++) {
		value = false;
		assert_int_equal(cli_read_bool("--b", yes[i], &value, &err), 0);
		assert_true(value);
		assert_int_equal(cli_read_bool("--b", no[i], &value, &err), 0);
		assert_false(value);
		assert_usage(cli_read_bool("--b", neither[i], &value, &err), &err);
		err = (struct tm_error){ 0 };
	}
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t seconds;
	} cases[] = {
		{ "0", 0, 0 },
		{ "90", 0, 90 },
		{ "90s", 0, 90 },
		{ "5min", 0, 300 },
		{ "5m", 0, 300 },
		{ "2h", 0, 7200 },
		{ "7d", 0, 604800 },
		{ "2w", 0, 1209600 },
		{ "1y", 0, 31536000 },
		{ "101y", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "h", -EINVAL, 0 },
		{ "1.5h", -EINVAL, 0 },
		{ "-1h", -EINVAL, 0 },
		{ "1 h", -EINVAL, 0 },
		{ "1hour", -EINVAL, 0 },
		{ "99999999999999999999", -EINVAL, 0 },
		{ "9999999999999999y", -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err = { 0 };
		uint64_t seconds = 77;
		int r = cli_read_duration("--wait", cases[i].text, &seconds, &err);

		assert_int_equal(r, cases[i].r);
		if (r < 0)
			assert_usage(r, &err);
		assert_int_equal(seconds, r < 0 ? 77 : cases[i].seconds);
	}
}

static void test_times(void **state)
{
	/* 2026-03-01 10:00:00 UTC */
	static const uint64_t now = (uint64_t)1772359200 * TM_USEC_PER_SEC;
	static const struct {
		const char *text, *rfc3339;
	} cases[] = {
		{ "now", "2026-03-01T10:00:00.000Z" },
		{ "2h", "2026-03-01T08:00:00.000Z" },
		{ "90", "2026-03-01T09:58:30.000Z" },
		{ "99y", "1970-01-01T00:00:00.000Z" },
		{ "2026-01-31", "2026-01-31T00:00:00.000Z" },
		{ "2026-01-31 08:15", "2026-01-31T08:15:00.000Z" },
		{ "2026-01-31 08:15:30", "2026-01-31T08:15:30.000Z" },
		{ "2026-01-31T08:15", "2026-01-31T08:15:00.000Z" },
		{ "2026-01-31T08:15:30.25Z", "2026-01-31T08:15:30.250Z" },
		{ "2026-01-31T08:15:30+01:00", "2026-01-31T07:15:30.000Z" },
		{ "", NULL },
		{ "yesterday", NULL },
		{ "2026-13-01", NULL },
		{ "2026-01-31 25:00", NULL },
		{ "2026-01-31 08:15 x", NULL },
		{ "1969-01-01", NULL },
	};

	(void)state;
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	tzset();
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err = { 0 };
		char text[32] = "";
		int r = cli_read_time("--since", cases[i].text, now, text, sizeof(text), &err);

		if (cases[i].rfc3339) {
			assert_int_equal(r, 0);
			assert_string_equal(text, cases[i].rfc3339);
		} else {
			assert_usage(r, &err);
		}
	}
}

static void test_references(void **state)
{
	static const char *const good[][3] = {
		{ "tank/home", "tank", "home" },
		{ "a/b", "a", "b" },
		{ "tank/6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f", "tank",
		  "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f" },
	};
	static const char *const bad[] = { "",       "tank",     "/",      "tank/", "/home",
					   "a/b/c",  "../b",     "a/..",   "a b/c", "a/b\n",
					   "a/\033", "ta%6ek/b", "\xff/b", "a//b" };
	char longest[2 * TM_NAME_MAX + 2], too_long[2 * TM_NAME_MAX + 4];
	struct cli_volume_ref ref;
	struct tm_error err = { 0 };

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(good); i++) {
		assert_int_equal(cli_read_volume(good[i][0], &ref, &err), 0);
		assert_string_equal(ref.pool, good[i][1]);
		assert_string_equal(ref.volume, good[i][2]);
		assert_int_equal(cli_read_pool(good[i][1], &err), 0);
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		err = (struct tm_error){ 0 };
		assert_usage(cli_read_volume(bad[i], &ref, &err), &err);
	}
	memset(longest, 'a', sizeof(longest) - 1);
	longest[TM_NAME_MAX] = '/';
	longest[sizeof(longest) - 1] = '\0';
	err = (struct tm_error){ 0 };
	assert_int_equal(cli_read_volume(longest, &ref, &err), 0);
	memset(too_long, 'a', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	for (size_t slash = TM_NAME_MAX - 1; slash <= TM_NAME_MAX + 1; slash++) {
		too_long[slash] = '/';
		err = (struct tm_error){ 0 };
		assert_usage(cli_read_volume(too_long, &ref, &err), &err);
		too_long[slash] = 'a';
	}
	err = (struct tm_error){ 0 };
	assert_usage(cli_read_pool("a/b", &err), &err);
	err = (struct tm_error){ 0 };
	assert_usage(cli_read_id("an operation", "tank", &err), &err);
	assert_int_equal(cli_read_id("an operation", "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f", &err),
			 0);
}

static void test_directories(void **state)
{
	static const char *const cases[][2] = {
		{ "/srv/web", "/srv/web" },
		{ "/srv//web/", "/srv/web" },
		{ "/./srv/./web/.", "/srv/web" },
		{ "/", "/" },
		{ "///", "/" },
		{ "/srv/../web", "/srv/../web" },
		{ "/srv/.web", "/srv/.web" },
		{ "/a/...", "/a/..." },
		{ "web", "/tmp/web" },
		{ "./web/", "/tmp/web" },
		{ ".", "/tmp" },
	};
	struct tm_error err = { 0 };
	char *path = NULL;

	(void)state;
	assert_int_equal(chdir("/tmp"), 0);
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(cli_read_directory("--directory", cases[i][0], &path, &err), 0);
		assert_string_equal(path, cases[i][1]);
		free(path);
	}
	assert_usage(cli_read_directory("--directory", "", &path, &err), &err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_option_table), cmocka_unit_test(test_parse),
		cmocka_unit_test(test_sizes),        cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_bools),        cmocka_unit_test(test_durations),
		cmocka_unit_test(test_times),        cmocka_unit_test(test_references),
		cmocka_unit_test(test_directories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
