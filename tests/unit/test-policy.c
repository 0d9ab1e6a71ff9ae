// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "common/utf8.h"
#include "logic/policy.h"

struct policy_case {
	const char *field; /* NULL: good */
	size_t offset;
	bool wide; /* 64 bits */
	uint64_t value;
};

#define NARROW(member) offsetof(struct tm_policy, member), false
#define WIDE(member)   offsetof(struct tm_policy, member), true

static void test_policy(void **state)
{
	static const struct policy_case cases[] = {
		{ NULL, NARROW(data.low_water_percent), 1 },
		{ NULL, NARROW(data.low_water_percent), 90 },
		{ "/p/data/low_water_percent", NARROW(data.low_water_percent), 0 },
		{ "/p/data/low_water_percent", NARROW(data.low_water_percent), 91 },
		{ NULL, NARROW(data.step_percent), 1 },
		{ NULL, NARROW(data.step_percent), 1000 },
		{ "/p/data/step_percent", NARROW(data.step_percent), 0 },
		{ "/p/data/step_percent", NARROW(data.step_percent), 1001 },
		{ NULL, WIDE(data.step_min_bytes), 65536 },
		{ NULL, WIDE(data.step_min_bytes), (uint64_t)1 << 50 },
		{ "/p/data/step_min", WIDE(data.step_min_bytes), 65535 },
		{ "/p/data/step_min", WIDE(data.step_min_bytes), 0 },
		{ "/p/data/step_min", WIDE(data.step_min_bytes), ((uint64_t)1 << 50) + 1 },
		{ NULL, WIDE(data.maximum_bytes), 0 },
		{ NULL, WIDE(data.maximum_bytes), INT64_MAX },
		{ "/p/data/maximum", WIDE(data.maximum_bytes), 1 },
		{ "/p/data/maximum", WIDE(data.maximum_bytes), UINT64_MAX },
		{ "/p/metadata/low_water_percent", NARROW(metadata.low_water_percent), 0 },
		{ "/p/metadata/step_percent", NARROW(metadata.step_percent), 0 },
		{ "/p/metadata/step_min", WIDE(metadata.step_min_bytes), 0 },
		{ "/p/metadata/maximum", WIDE(metadata.maximum_bytes), 1 },
		{ NULL, NARROW(sample_seconds), 5 },
		{ NULL, NARROW(sample_seconds), 3600 },
		{ "/p/sample_seconds", NARROW(sample_seconds), 4 },
		{ "/p/sample_seconds", NARROW(sample_seconds), 3601 },
		{ NULL, NARROW(keep_copies), 0 },
		{ NULL, NARROW(keep_copies), 1000 },
		{ "/p/keep_copies", NARROW(keep_copies), 1001 },
		{ NULL, NARROW(keep_days), 0 },
		{ "/p/keep_days", NARROW(keep_days), 3651 },
		{ NULL, NARROW(copy_hours), 0 },
		{ NULL, NARROW(copy_hours), 8760 },
		{ "/p/copy_hours", NARROW(copy_hours), 8761 },
		{ NULL, NARROW(check_days), 0 },
		{ NULL, NARROW(check_days), 365 },
		{ "/p/check_days", NARROW(check_days), 366 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct policy_case *c = &cases[i];
		struct tm_error err = { .code = TM_OK };
		struct tm_policy policy;
		uint32_t narrow = (uint32_t)c->value;

		tm_policy_default(&policy);
		memcpy((char *)&policy + c->offset, c->wide ? (const void *)&c->value : &narrow,
		       c->wide ? sizeof(c->value) : sizeof(narrow));
		assert_int_equal(tm_policy_check(&policy, "/p", &err), c->field ? -EINVAL : 0);
		assert_int_equal(err.code, c->field ? TM_ERR_OUT_OF_RANGE : TM_OK);
		assert_string_equal(err.field, c->field ? c->field : "");
		assert_int_equal(err.hint[0] != 0, c->field != NULL);
		assert_int_equal(tm_policy_check(&policy, "", NULL), c->field ? -EINVAL : 0);
	}
}

static void test_block_size(void **state)
{
	static const struct {
		uint64_t bytes;
		bool good;
	} cases[] = {
		{ 65536, true },       { 131072, true },
		{ 196608, true },      { TM_GIB, true },
		{ 0, false },          { 512, false },
		{ 65535, false },      { 65537, false },
		{ 98304, false },      { TM_GIB + 65536, false },
		{ UINT64_MAX, false }, { ((uint64_t)1 << 32) + 65536, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err = { .code = TM_OK };

		assert_int_equal(tm_block_size_check(cases[i].bytes, "/block_size", &err),
				 cases[i].good ? 0 : -EINVAL);
		assert_string_equal(err.field, cases[i].good ? "" : "/block_size");
	}
}

static void test_path(void **state)
{
	static const char *const good[] = { "/a",        "/srv/pools/one", "/a/..b",
					    "/a/...",    "/a/.hidden",     "/a b/c",
					    "/\xc3\xa9", "/a\\b",          "/a/b.c/d..e",
					    "/-" };
	static const char *const bad[] = {
		"",      "a",      "a/b",    "./a",    "../a",  "/",       "//",   "/a/",
		"/a//b", "/.",     "/..",    "/a/.",   "/a/..", "/a/../b", "/./a", "/../a",
		"/a\nb", "/a\x7f", "/a\x01", "/a\xff", "/\xc3", " /a",     "~/a",  "//a",
	};
	char path[TM_PATH_SIZE + 1];
	struct tm_error err;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(good); i++)
		assert_int_equal(tm_path_check(good[i], "/d", NULL), 0);
	for (i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		err = (struct tm_error){ .code = TM_OK };
		assert_int_equal(tm_path_check(bad[i], "/d", &err), -EINVAL);
		assert_int_equal(err.code, TM_ERR_BAD_PATH);
		assert_string_equal(err.field, "/d");
		assert_true(tm_utf8_valid(err.detail));
	}
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[TM_PATH_SIZE] = '\0';
	err = (struct tm_error){ .code = TM_OK };
	assert_int_equal(tm_path_check(path, "/d", &err), -EINVAL);
	assert_non_null(strstr(err.detail, "too long"));
	path[TM_PATH_SIZE - 1] = '\0';
	assert_int_equal(tm_path_check(path, "/d", NULL), 0);
}

static void test_name(void **state)
{
	struct tm_error err = { .code = TM_OK };
	char huge[70000];

	(void)state;
	assert_int_equal(tm_name_check("one", "pool", "/name", &err), 0);
	assert_int_equal(err.code, TM_OK);

	assert_int_equal(tm_name_check("../x", "pool", "/name", &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_NAME);
	assert_string_equal(err.field, "/name");
	assert_string_equal(err.detail, "the pool name \"../x\" is not valid");
	assert_true(strlen(err.hint) > 0);

	err = (struct tm_error){ .code = TM_OK };
	assert_int_equal(
		tm_name_check("01234567-89ab-cdef-0123-456789abcdef", "volume", "/n", &err),
		-EINVAL);
	assert_non_null(strstr(err.detail, "form of an id"));

	memset(huge, 'x', sizeof(huge));
	huge[sizeof(huge) - 1] = '\0';
	err = (struct tm_error){ .code = TM_OK };
	assert_int_equal(tm_name_check(huge, "pool", "/name", &err), -EINVAL);
	assert_non_null(strstr(err.detail, "(cut)"));
	assert_int_equal(tm_name_check("", "pool", "/name", NULL), -EINVAL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_block_size),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
