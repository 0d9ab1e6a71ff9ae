// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/utf8.h"
#include "logic/json.h"

static json_t *parse(const char *text)
{
	struct tm_error err = { .code = TM_OK };
	json_t *object = tm_json_parse(text, strlen(text), &err);

	if (!object)
		fail_msg("%s: %s", text, err.detail);
	return object;
}

static void test_getters(void **state)
{
	json_t *object = parse("{\"s\":\"text\",\"b\":true,\"f\":false,\"n\":7,\"o\":{},\"a\":[1],"
			       "\"z\":null,\"m\":5,\"zero\":0}");
	struct tm_error err = { .code = TM_OK };
	const char *s = NULL, *absent = "kept", *null = "";
	uint64_t n = 0, z = 3, m = 0, kept = 8, zero = 4;
	json_t *o = NULL, *a = NULL;
	bool b = false, f = true;
	struct tm_json_reader r;

	(void)state;
	tm_json_reader_init(&r, object, "", &err);
	assert_int_equal(tm_json_get_string(&r, "s", &s), 1);
	assert_int_equal(tm_json_get_bool(&r, "b", &b), 1);
	assert_int_equal(tm_json_get_bool(&r, "f", &f), 1);
	assert_int_equal(tm_json_get_uint(&r, "n", 7, 7, &n), 1);
	assert_int_equal(tm_json_get_object(&r, "o", &o), 1);
	assert_int_equal(tm_json_get_array(&r, "a", &a), 1);
	assert_int_equal(tm_json_get_uint_or_null(&r, "z", 1, 9, &z), 1);
	assert_int_equal(tm_json_get_uint_or_null(&r, "m", 1, 9, &m), 1);
	assert_int_equal(tm_json_get_string_or_null(&r, "z", &null), 1);
	assert_null(null);
	assert_int_equal(tm_json_get_string_or_null(&r, "s", &null), 1);
	assert_string_equal(null, "text");
	assert_int_equal(tm_json_get_string(&r, "not", &absent), 0);
	assert_int_equal(tm_json_get_uint(&r, "nor", 0, 9, &kept), 0);
	assert_int_equal(tm_json_get_uint(&r, "zero", 0, 9, &zero), 1);
	assert_int_equal(zero, 0);
	assert_int_equal(tm_json_reader_finish(&r), 0);
	assert_string_equal(s, "text");
	assert_true(b && !f);
	assert_int_equal(n, 7);
	assert_int_equal(z, 0);
	assert_int_equal(m, 5);
	assert_int_equal(kept, 8);
	assert_string_equal(absent, "kept");
	assert_true(json_is_object(o) && json_array_size(a) == 1);
	assert_int_equal(err.code, TM_OK);
	json_decref(object);
}

enum getter { STRING, STRING_OR_NULL, BOOL, UINT, UINT_OR_NULL, OBJECT, ARRAY };

static int get(struct tm_json_reader *r, enum getter getter, const char *name)
{
	const char *s;
	uint64_t n;
	json_t *j;
	bool b;

	switch (getter) {
	case STRING:
		return tm_json_get_string(r, name, &s);
	case STRING_OR_NULL:
		return tm_json_get_string_or_null(r, name, &s);
	case BOOL:
		return tm_json_get_bool(r, name, &b);
	case UINT:
		return tm_json_get_uint(r, name, 10, 20, &n);
	case UINT_OR_NULL:
		return tm_json_get_uint_or_null(r, name, 10, 20, &n);
	case OBJECT:
		return tm_json_get_object(r, name, &j);
	case ARRAY:
		break;
	}
	return tm_json_get_array(r, name, &j);
}

static void test_faults(void **state)
{
	static const struct {
		enum getter getter;
		const char *value;
		enum tm_error_code code;
	} cases[] = {
		{ STRING, "1", TM_ERR_WRONG_TYPE },
		{ STRING, "null", TM_ERR_WRONG_TYPE },
		{ STRING, "[\"a\"]", TM_ERR_WRONG_TYPE },
		{ STRING_OR_NULL, "false", TM_ERR_WRONG_TYPE },
		{ BOOL, "0", TM_ERR_WRONG_TYPE },
		{ BOOL, "\"true\"", TM_ERR_WRONG_TYPE },
		{ BOOL, "null", TM_ERR_WRONG_TYPE },
		{ UINT, "\"15\"", TM_ERR_WRONG_TYPE },
		{ UINT, "15.0", TM_ERR_WRONG_TYPE },
		{ UINT, "1.5e1", TM_ERR_WRONG_TYPE },
		{ UINT, "true", TM_ERR_WRONG_TYPE },
		{ UINT, "null", TM_ERR_WRONG_TYPE },
		{ UINT, "9", TM_ERR_OUT_OF_RANGE },
		{ UINT, "21", TM_ERR_OUT_OF_RANGE },
		{ UINT, "-1", TM_ERR_OUT_OF_RANGE },
		{ UINT, "-15", TM_ERR_OUT_OF_RANGE },
		{ UINT, "9223372036854775807", TM_ERR_OUT_OF_RANGE },
		{ UINT, "-9223372036854775808", TM_ERR_OUT_OF_RANGE },
		{ UINT_OR_NULL, "0", TM_ERR_OUT_OF_RANGE },
		{ UINT_OR_NULL, "false", TM_ERR_WRONG_TYPE },
		{ OBJECT, "[]", TM_ERR_WRONG_TYPE },
		{ OBJECT, "null", TM_ERR_WRONG_TYPE },
		{ ARRAY, "{}", TM_ERR_WRONG_TYPE },
		{ ARRAY, "\"\"", TM_ERR_WRONG_TYPE },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err = { .code = TM_OK };
		struct tm_json_reader r;
		const char *other = "kept";
		char text[64];
		json_t *object;

		(void)snprintf(text, sizeof(text), "{\"f\":%s,\"g\":\"x\"}", cases[i].value);
		object = parse(text);
		tm_json_reader_init(&r, object, "/p", &err);
		assert_int_equal(get(&r, cases[i].getter, "f"), -EINVAL);
		assert_int_equal(err.code, cases[i].code);
		assert_string_equal(err.field, "/p/f");
		/* Everything after the first fault does nothing. */
		assert_int_equal(tm_json_get_string(&r, "g", &other), -EINVAL);
		assert_string_equal(other, "kept");
		assert_int_equal(tm_json_require(&r, "absent", 0), -EINVAL);
		assert_int_equal(tm_json_reader_finish(&r), -EINVAL);
		assert_string_equal(err.field, "/p/f");
		json_decref(object);
	}
}

static void test_require_and_unknown(void **state)
{
	json_t *object = parse("{\"a\":1,\"b\":2}");
	struct tm_error err = { .code = TM_OK };
	struct tm_json_reader r;
	uint64_t n = 0;

	(void)state;
	tm_json_reader_init(&r, object, "", &err);
	assert_int_equal(tm_json_require(&r, "a", tm_json_get_uint(&r, "a", 0, 9, &n)), 0);
	assert_int_equal(tm_json_reader_finish(&r), -EINVAL);
	assert_int_equal(err.code, TM_ERR_UNKNOWN_FIELD);
	assert_string_equal(err.field, "/b");

	err = (struct tm_error){ .code = TM_OK };
	tm_json_reader_init(&r, object, "/x", &err);
	assert_int_equal(tm_json_require(&r, "c", tm_json_get_uint(&r, "c", 0, 9, &n)), -EINVAL);
	assert_int_equal(err.code, TM_ERR_MISSING_FIELD);
	assert_string_equal(err.field, "/x/c");
	json_decref(object);
}

/* Names of unknown fields come from outside. */
static void test_hostile_names(void **state)
{
	static const struct {
		const char *name, *field;
	} cases[] = { { "a/b~c", "/a~1b~0c" },
		      { "", "/" },
		      { "a\\nb", "/a b" },
		      { "\\u00e9", "/\xc3\xa9" } };
	struct tm_error err;
	struct tm_json_reader r;
	char text[4096];
	json_t *object;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		(void)snprintf(text, sizeof(text), "{\"%s\":1}", cases[i].name);
		object = parse(text);
		err = (struct tm_error){ .code = TM_OK };
		tm_json_reader_init(&r, object, "", &err);
		assert_int_equal(tm_json_reader_finish(&r), -EINVAL);
		assert_string_equal(err.field, cases[i].field);
		json_decref(object);
	}
	/* Long, and cut within a character. */
	memset(text, 0, sizeof(text));
	memcpy(text, "{\"a", 3);
	for (i = 3; i < 2003; i += 2)
		memcpy(text + i, "\xc3\xa9", 2);
	memcpy(text + i, "\":1}", 4);
	object = parse(text);
	err = (struct tm_error){ .code = TM_OK };
	tm_json_reader_init(&r, object, "", &err);
	assert_int_equal(tm_json_reader_finish(&r), -EINVAL);
	assert_true(tm_utf8_valid(err.field) && tm_utf8_valid(err.detail));
	json_decref(object);
}

static void test_too_many_fields(void **state)
{
	char names[48][16];
	json_t *object = json_object();
	struct tm_error err = { .code = TM_OK };
	struct tm_json_reader r;
	uint64_t n;
	int i;

	(void)state;
	tm_json_reader_init(&r, object, "", &err);
	for (i = 0; i < 48; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "f%d", i);
		assert_int_equal(tm_json_get_uint(&r, names[i], 0, 1, &n), 0);
	}
	assert_true(tm_json_get_uint(&r, "last", 0, 1, &n) < 0);
	assert_int_equal(err.code, TM_ERR_INTERNAL);
	json_decref(object);
}

static void test_not_an_object(void **state)
{
	json_t *array = json_array();
	struct tm_error err = { .code = TM_OK };
	struct tm_json_reader r;
	uint64_t n;

	(void)state;
	tm_json_reader_init(&r, array, "/snapshots/3", &err);
	assert_int_equal(tm_json_get_uint(&r, "a", 0, 1, &n), -EINVAL);
	assert_int_equal(tm_json_reader_finish(&r), -EINVAL);
	assert_int_equal(err.code, TM_ERR_WRONG_TYPE);
	assert_string_equal(err.field, "/snapshots/3");
	tm_json_reader_init(&r, NULL, "", NULL);
	assert_int_equal(tm_json_reader_finish(&r), -EINVAL);
	json_decref(array);
}

static void test_parse_bad(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"{",
		"{}x",
		"{} {}",
		"[]",
		"1",
		"null",
		"\"{}\"",
		"{\"a\":1,}",
		"{\"a\":1,\"a\":2}",
		"{\"a\":{\"b\":1,\"b\":1}}",
		"{'a':1}",
		"{\"a\":01}",
		"{\"a\":9223372036854775808}",
		"{\"a\":1e999}",
		"{\"a\":NaN}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"\\u0000\"}",
		"{\"\\u0000\":1}",
		"{\"a\":\"\\ud800\"}",
		"{\"a\":\"\n\"}",
		"\xef\xbb\xbf{}",
		"{\"a\":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}",
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	};
	static const char with_nul[] = "{\"a\":\"x\0y\"}";
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		struct tm_error err = { .code = TM_OK };

		assert_null(tm_json_parse(bad[i], strlen(bad[i]), &err));
		assert_int_equal(err.code, TM_ERR_BAD_JSON);
		assert_true(err.detail[0] && tm_utf8_valid(err.detail));
		assert_null(tm_json_parse(bad[i], strlen(bad[i]), NULL));
	}
	assert_null(tm_json_parse(with_nul, sizeof(with_nul) - 1, NULL));
	/* Exactly as long as said, not as far as a NUL. */
	json_decref(tm_json_parse("{}garbage", 2, NULL));
	assert_null(tm_json_parse("{}garbage", 3, NULL));
}

static void test_parse_depth(void **state)
{
	json_t *object = parse("{\"a\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}");

	char nested[128];
	size_t i;

	(void)state;
	json_decref(object);
	/* Side by side there may be as many as one likes. */
	object = parse(
		"{\"a\":[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]],\"b\":[{},{},{},"
		"{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]}");
	assert_int_equal(json_object_size(object), 2);
	json_decref(object);
	/* What stands between the brackets makes no difference. */
	for (i = 0; i < 17; i++)
		memcpy(nested + 5 * i, "{\"a\":", 5);
	memset(nested + 5 * i, '1', 1);
	memset(nested + 5 * i + 1, '}', 17);
	assert_null(tm_json_parse(nested, 5 * i + 1 + 17, NULL));
	/* One less at each end is as deep as it may be. */
	object = tm_json_parse(nested + 5, 5 * (i - 1) + 1 + 16, NULL);
	assert_non_null(object);
	json_decref(object);
	/* Brackets in strings are none, whatever is escaped before them. */
	object =
		parse("{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[\\\\\",\"b\":\"{{{{{{{{{{{{{{{{{{{\"}");
	assert_int_equal(json_object_size(object), 2);
	json_decref(object);
}

static const char default_text[] =
	"{\"activate_at_start\":true,"
	"\"check_days\":7,\"check_volumes\":false,\"copy_hours\":24,"
	"\"data\":{\"auto_extend\":true,\"low_water_percent\":20,\"maximum\":null,"
	"\"step_min\":67108864,\"step_percent\":20},"
	"\"keep_copies\":8,\"keep_days\":30,"
	"\"metadata\":{\"auto_extend\":true,\"low_water_percent\":25,\"maximum\":null,"
	"\"step_min\":1048576,\"step_percent\":50},"
	"\"repair\":\"when_idle\",\"sample_seconds\":30}";

static void test_policy(void **state)
{
	struct tm_policy policy, back;
	json_t *object;
	char *text;

	(void)state;
	tm_policy_default(&policy);
	object = tm_policy_to_json(&policy);
	assert_non_null(object);
	text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, default_text);
	free(text);
	json_decref(object);

	policy = (struct tm_policy){
		.data = { false, 90, 1000, (uint64_t)1 << 50, INT64_MAX },
		.metadata = { false, 1, 1, 65536, 65536 },
		.activate_at_start = false,
		.sample_seconds = 3600,
		.repair = TM_REPAIR_MANUAL,
		.keep_copies = 1000,
		.keep_days = 0,
		.copy_hours = 8760,
		.check_days = 0,
		.check_volumes = true,
	};
	object = tm_policy_to_json(&policy);
	tm_policy_default(&back);
	assert_int_equal(tm_policy_from_json(object, "", &back, NULL), 0);
	assert_int_equal(back.data.enabled, policy.data.enabled);
	assert_int_equal(back.data.low_water_percent, 90);
	assert_int_equal(back.data.step_percent, 1000);
	assert_int_equal(back.data.step_min_bytes, (uint64_t)1 << 50);
	assert_int_equal(back.data.maximum_bytes, INT64_MAX);
	assert_int_equal(back.metadata.enabled, false);
	assert_int_equal(back.metadata.low_water_percent, 1);
	assert_int_equal(back.metadata.step_percent, 1);
	assert_int_equal(back.metadata.step_min_bytes, 65536);
	assert_int_equal(back.metadata.maximum_bytes, 65536);
	assert_int_equal(back.activate_at_start, false);
	assert_int_equal(back.sample_seconds, 3600);
	assert_int_equal(back.repair, TM_REPAIR_MANUAL);
	assert_int_equal(back.keep_copies, 1000);
	assert_int_equal(back.keep_days, 0);
	assert_int_equal(back.copy_hours, 8760);
	assert_int_equal(back.check_days, 0);
	assert_true(back.check_volumes);
	json_decref(object);
}

/* What is absent stays as it was: a change of one field. */
static void test_policy_partial(void **state)
{
	struct tm_policy policy;
	json_t *object;

	(void)state;
	tm_policy_default(&policy);
	policy.data.maximum_bytes = 1 << 30;
	object = parse("{\"data\":{\"step_percent\":33}}");
	assert_int_equal(tm_policy_from_json(object, "/policy", &policy, NULL), 0);
	json_decref(object);
	assert_int_equal(policy.data.step_percent, 33);
	assert_int_equal(policy.data.low_water_percent, 20);
	assert_int_equal(policy.data.maximum_bytes, 1 << 30);
	object = parse("{\"data\":{\"maximum\":null}}");
	assert_int_equal(tm_policy_from_json(object, "/policy", &policy, NULL), 0);
	json_decref(object);
	assert_int_equal(policy.data.maximum_bytes, 0);
	object = parse("{}");
	assert_int_equal(tm_policy_from_json(object, "/policy", &policy, NULL), 0);
	json_decref(object);
	assert_int_equal(policy.data.step_percent, 33);
}

static void test_policy_bad(void **state)
{
	static const struct {
		const char *text, *field;
		enum tm_error_code code;
	} cases[] = {
		{ "{\"date\":{}}", "/policy/date", TM_ERR_UNKNOWN_FIELD },
		{ "{\"data\":[]}", "/policy/data", TM_ERR_WRONG_TYPE },
		{ "{\"data\":null}", "/policy/data", TM_ERR_WRONG_TYPE },
		{ "{\"data\":{\"step\":1}}", "/policy/data/step", TM_ERR_UNKNOWN_FIELD },
		{ "{\"data\":{\"auto_extend\":1}}", "/policy/data/auto_extend", TM_ERR_WRONG_TYPE },
		{ "{\"data\":{\"low_water_percent\":0}}", "/policy/data/low_water_percent",
		  TM_ERR_OUT_OF_RANGE },
		{ "{\"data\":{\"low_water_percent\":4294967297}}", "/policy/data/low_water_percent",
		  TM_ERR_OUT_OF_RANGE },
		{ "{\"data\":{\"step_percent\":1001}}", "/policy/data/step_percent",
		  TM_ERR_OUT_OF_RANGE },
		{ "{\"data\":{\"step_min\":0}}", "/policy/data/step_min", TM_ERR_OUT_OF_RANGE },
		{ "{\"data\":{\"step_min\":null}}", "/policy/data/step_min", TM_ERR_WRONG_TYPE },
		{ "{\"data\":{\"maximum\":0}}", "/policy/data/maximum", TM_ERR_OUT_OF_RANGE },
		{ "{\"data\":{\"maximum\":-1}}", "/policy/data/maximum", TM_ERR_OUT_OF_RANGE },
		{ "{\"data\":{\"maximum\":\"1G\"}}", "/policy/data/maximum", TM_ERR_WRONG_TYPE },
		{ "{\"metadata\":{\"step_percent\":0}}", "/policy/metadata/step_percent",
		  TM_ERR_OUT_OF_RANGE },
		{ "{\"activate_at_start\":\"yes\"}", "/policy/activate_at_start",
		  TM_ERR_WRONG_TYPE },
		{ "{\"sample_seconds\":4}", "/policy/sample_seconds", TM_ERR_OUT_OF_RANGE },
		{ "{\"repair\":\"never\"}", "/policy/repair", TM_ERR_OUT_OF_RANGE },
		{ "{\"repair\":\"Force\"}", "/policy/repair", TM_ERR_OUT_OF_RANGE },
		{ "{\"keep_copies\":1001}", "/policy/keep_copies", TM_ERR_OUT_OF_RANGE },
		{ "{\"keep_days\":\"30\"}", "/policy/keep_days", TM_ERR_WRONG_TYPE },
		{ "{\"copy_hours\":8761}", "/policy/copy_hours", TM_ERR_OUT_OF_RANGE },
		{ "{\"check_days\":366}", "/policy/check_days", TM_ERR_OUT_OF_RANGE },
		{ "{\"check_days\":null}", "/policy/check_days", TM_ERR_WRONG_TYPE },
		{ "{\"repair\":true}", "/policy/repair", TM_ERR_WRONG_TYPE },
		{ "{\"data\":{\"step_percent\":5},\"sample_seconds\":3601}",
		  "/policy/sample_seconds", TM_ERR_OUT_OF_RANGE },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err = { .code = TM_OK };
		json_t *object = parse(cases[i].text);
		struct tm_policy policy, kept;

		memset(&policy, 0, sizeof(policy));
		tm_policy_default(&policy);
		memcpy(&kept, &policy, sizeof(policy));
		assert_int_equal(tm_policy_from_json(object, "/policy", &policy, &err), -EINVAL);
		assert_int_equal(err.code, cases[i].code);
		assert_string_equal(err.field, cases[i].field);
		assert_memory_equal(&policy, &kept, sizeof(kept));
		json_decref(object);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_getters),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_require_and_unknown),
		cmocka_unit_test(test_hostile_names),
		cmocka_unit_test(test_too_many_fields),
		cmocka_unit_test(test_not_an_object),
		cmocka_unit_test(test_parse_bad),
		cmocka_unit_test(test_parse_depth),
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_policy_partial),
		cmocka_unit_test(test_policy_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
