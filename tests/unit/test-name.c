// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/name.h"

#define A63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID  "01234567-89ab-cdef-0123-456789abcdef"
#define HEX "0123456789abcdef0123456789abcdef"

static void test_name_valid(void **state)
{
	static const struct {
		const char *name;
		bool valid;
	} cases[] = {
		{ "a", true },
		{ "0", true },
		{ "pool.1-x_Y", true },
		{ A63, true },
		{ "a..b", true },
		{ "0123456789abcdef0123456789abcdef", true },
		{ ID "x", true },
		{ "", false },
		{ A63 "a", false },
		{ "-a", false },
		{ ".a", false },
		{ "..", false },
		{ "_pool", false },
		{ "a/b", false },
		{ "../x", false },
		{ "a b", false },
		{ "a:b", false },
		{ "a\n", false },
		{ "a\\x2d", false },
		{ "\xc3\xa9", false },
		{ "a\xc3\xa9", false },
		{ ID, false },
		{ "01234567-89AB-CDEF-0123-456789abcdef", false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++)
		assert_int_equal(tm_name_valid(cases[i].name), cases[i].valid);
	assert_false(tm_name_valid(NULL));
}

static void test_uuid_parse(void **state)
{
	static const char *const bad[] = {
		"",
		"0",
		HEX,
		"01234567-89ab-cdef-0123-456789abcde",
		"01234567-89ab-cdef-0123-456789abcdef0",
		"01234567-89ab-cdef-0123-456789abcdeg",
		"01234567_89ab-cdef-0123-456789abcdef",
		"{1234567-89ab-cdef-0123-456789abcdef",
		"01234567-89ab-cdef-0123456789abcdef-",
		" 01234567-89ab-cdef-0123-456789abcdef",
		"01234567-89ab-cdef-0123-456789abcdef ",
	};
	struct tm_uuid id = { "kept" }, other;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		assert_int_equal(tm_uuid_parse(bad[i], &id), -EINVAL);
		assert_string_equal(id.text, "kept");
	}
	assert_int_equal(tm_uuid_parse("01234567-89AB-CDEF-0123-456789ABCDEF", &id), 0);
	assert_string_equal(id.text, ID);
	assert_int_equal(tm_uuid_parse(ID, &other), 0);
	assert_true(tm_uuid_equal(&id, &other));
	other.text[35] = '0';
	assert_false(tm_uuid_equal(&id, &other));
}

static void test_uuid_generate(void **state)
{
	struct tm_uuid seen[64], parsed;
	size_t i, j;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(seen); i++) {
		tm_uuid_generate(&seen[i]);
		assert_int_equal(strlen(seen[i].text), 36);
		assert_int_equal(tm_uuid_parse(seen[i].text, &parsed), 0);
		assert_true(tm_uuid_equal(&seen[i], &parsed));
		/* Random (version 4), RFC 4122's variant. */
		assert_int_equal(seen[i].text[14], '4');
		assert_non_null(strchr("89ab", seen[i].text[19]));
		for (j = 0; j < i; j++)
			assert_false(tm_uuid_equal(&seen[i], &seen[j]));
	}
}

static void test_dm_names(void **state)
{
	char buf[TM_DM_NAME_SIZE];

	(void)state;
	tm_dm_name(buf, TM_ROLE_POOL, "p", NULL);
	assert_string_equal(buf, "p:_pool");
	tm_dm_name(buf, TM_ROLE_DATA, "p", NULL);
	assert_string_equal(buf, "p:_data");
	tm_dm_name(buf, TM_ROLE_META, "p", NULL);
	assert_string_equal(buf, "p:_meta");
	tm_dm_name(buf, TM_ROLE_VOLUME, "p", "v");
	assert_string_equal(buf, "p:v");
	tm_dm_name(buf, TM_ROLE_VOLUME, A63, A63);
	assert_string_equal(buf, A63 ":" A63);
	assert_int_equal(strlen(buf), 127);
}

static void test_dm_uuid(void **state)
{
	static const struct {
		enum tm_dm_role role;
		const char *text;
	} cases[] = {
		{ TM_ROLE_POOL, "THINMGR-" HEX "-pool" },
		{ TM_ROLE_DATA, "THINMGR-" HEX "-data" },
		{ TM_ROLE_META, "THINMGR-" HEX "-meta" },
		{ TM_ROLE_VOLUME, "THINMGR-" HEX "-vol-ffffffffffffffffffffffffffffffff" },
	};
	const struct tm_uuid pool = { ID };
	const struct tm_uuid volume = { "ffffffff-ffff-ffff-ffff-ffffffffffff" };
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		char buf[TM_DM_UUID_SIZE];
		struct tm_uuid got_pool, got_volume = { "x" };
		enum tm_dm_role role;
		bool is_volume = cases[i].role == TM_ROLE_VOLUME;

		tm_dm_uuid(buf, cases[i].role, &pool, &volume);
		assert_string_equal(buf, cases[i].text);
		assert_int_equal(tm_dm_uuid_parse(buf, &role, &got_pool, &got_volume), 0);
		assert_int_equal(role, cases[i].role);
		assert_true(tm_uuid_equal(&got_pool, &pool));
		assert_string_equal(got_volume.text, is_volume ? volume.text : "");
		assert_int_equal(tm_dm_uuid_parse(buf, &role, &got_pool, NULL), 0);
	}
}

static void test_dm_uuid_foreign(void **state)
{
	static const char *const foreign[] = {
		"",
		"THINMGR-",
		"LVM-" HEX "-tpool",
		"thinmgr-" HEX "-pool",
		"THINMGR-" HEX,
		"THINMGR-" HEX "-",
		"THINMGR-" HEX "-pool2",
		"THINMGR-" HEX "-tpool",
		"THINMGR-" HEX "-POOL",
		"THINMGR-" HEX "-vol-",
		"THINMGR-" HEX "-vol-" HEX "0",
		"THINMGR-" HEX "-vol-0123",
		"THINMGR-" ID "-pool",
		"THINMGR-0123456789ABCDEF0123456789abcdef-pool",
		"THINMGR-g123456789abcdef0123456789abcdef-pool",
		"THINMGR-012345",
		"xTHINMGR-" HEX "-pool",
	};
	enum tm_dm_role role = TM_ROLE_DATA;
	struct tm_uuid pool = { "kept" };
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(foreign); i++)
		assert_int_equal(tm_dm_uuid_parse(foreign[i], &role, &pool, NULL), -EINVAL);
	assert_int_equal(role, TM_ROLE_DATA);
	assert_string_equal(pool.text, "kept");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name_valid),    cmocka_unit_test(test_uuid_parse),
		cmocka_unit_test(test_uuid_generate), cmocka_unit_test(test_dm_names),
		cmocka_unit_test(test_dm_uuid),       cmocka_unit_test(test_dm_uuid_foreign),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
