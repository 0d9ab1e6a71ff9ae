// SPDX-License-Identifier: GPL-2.0-or-later
/* Problem documents. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/problem.h"

static const char *text_of(json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static void tells_all(void **state)
{
	struct tm_error err = { 0 };
	json_t *p;

	(void)state;
	(void)tm_error_field(&err, TM_ERR_OUT_OF_RANGE, "/size", "It is %d.", 3);
	tm_error_hint(&err, "Make it larger.");
	p = tm_problem_to_json(&err, "/v1/pools");
	assert_int_equal(json_object_size(p), 7);
	assert_string_equal(text_of(p, "type"), "urn:thinmgr:error:out-of-range");
	assert_string_equal(text_of(p, "title"), tm_error_title(TM_ERR_OUT_OF_RANGE));
	assert_int_equal(json_integer_value(json_object_get(p, "status")), 400);
	assert_string_equal(text_of(p, "detail"), "It is 3.");
	assert_string_equal(text_of(p, "field"), "/size");
	assert_string_equal(text_of(p, "hint"), "Make it larger.");
	assert_string_equal(text_of(p, "instance"), "/v1/pools");
	json_decref(p);
}

static void leaves_out_what_is_not_known(void **state)
{
	struct tm_error err = { 0 };
	json_t *p;

	(void)state;
	p = tm_problem_to_json(&err, "/");
	assert_int_equal(json_object_size(p), 4);
	assert_string_equal(text_of(p, "type"), "urn:thinmgr:error:internal");
	assert_int_equal(json_integer_value(json_object_get(p, "status")), 500);
	json_decref(p);
}

static void knows_every_error(void **state)
{
	(void)state;
	for (int code = TM_OK + 1; code < TM_ERR_COUNT; code++) {
		struct tm_error err = { 0 };
		const char *type;
		json_t *p;

		(void)tm_error_set(&err, (enum tm_error_code)code, EIO, "x");
		p = tm_problem_to_json(&err, "/");
		type = text_of(p, "type");
		assert_int_equal(tm_error_from_slug(type + strlen(TM_PROBLEM_TYPE_PREFIX)), code);
		assert_in_range(json_integer_value(json_object_get(p, "status")), 400, 599);
		json_decref(p);
	}
}

static void takes_any_bytes(void **state)
{
	struct tm_error err = { .code = TM_ERR_IO };
	json_t *p, *text;

	(void)state;
	memcpy(err.detail, "a\xff\xc3\xa9\xc3", 6);
	p = tm_problem_to_json(&err, "/");
	assert_string_equal(text_of(p, "detail"), "a?\xc3\xa9?");
	json_decref(p);
	text = tm_json_text("");
	assert_string_equal(json_string_value(text), "");
	json_decref(text);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(tells_all),
		cmocka_unit_test(leaves_out_what_is_not_known),
		cmocka_unit_test(knows_every_error),
		cmocka_unit_test(takes_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
