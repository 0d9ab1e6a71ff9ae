// SPDX-License-Identifier: GPL-2.0-or-later
/* Query strings. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/query.h"
#include "common/cleanup.h"

#define KNOWN "wait dry_run name from"

static int parse(const char *text, struct tm_url_query *ret, struct tm_error *err)
{
	*err = (struct tm_error){ 0 };
	return tm_url_query_parse(text, strlen(text), KNOWN, ret, err);
}

static void reads(void **state)
{
	struct tm_url_query q;
	struct tm_error err;

	(void)state;
	assert_int_equal(parse("", &q, &err), 0);
	assert_int_equal(q.n, 0);
	assert_null(tm_url_query_text(&q, "wait"));

	assert_int_equal(parse("wait=10&dry_run=true&name=a%26b=c+d&%66rom=x", &q, &err), 0);
	assert_int_equal(q.n, 4);
	assert_string_equal(tm_url_query_text(&q, "wait"), "10");
	assert_string_equal(tm_url_query_text(&q, "name"), "a&b=c+d");
	assert_string_equal(tm_url_query_text(&q, "from"), "x");
	assert_null(tm_url_query_text(&q, "unt"));
}

static void refuses(void **state)
{
	static const struct {
		const char *text, *field;
	} cases[] = {
		{ "x=1", "x" },
		{ "wai=1", "wai" },
		{ "waitt=1", "waitt" },
		{ "wait dry_run=1", "wait dry_run" },
		{ "=1", "" },
		{ "&", "" },
		{ "wait=1&", NULL },
		{ "wait=1&&name=a", "" },
		{ "wait", "wait" },
		{ "wait=", "wait" },
		{ "wait=1&wait=2", "wait" },
		{ "wait=%zz", "wait" },
		{ "wait=%00", "wait" },
		{ "wait=%ff", "wait" },
		{ "%00=1", "" },
		{ "WAIT=1", "WAIT" },
		{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1", "" },
	};
	struct tm_url_query q;
	struct tm_error err;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		int r = parse(cases[i].text, &q, &err);

		if (!cases[i].field) { /* an '&' at the end is nothing */
			assert_int_equal(r, 0);
			continue;
		}
		if (r != -EINVAL || err.code != TM_ERR_BAD_QUERY)
			fail_msg("%s: %d %s", cases[i].text, r, err.detail);
		assert_string_equal(err.field, cases[i].field);
		assert_true(err.detail[0]);
	}
}

static void limits(void **state)
{
	char text[TM_URL_QUERY_RAW_MAX + 16], known[512] = "";
	struct tm_url_query q;
	struct tm_error err = { 0 };
	size_t used = 0;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text, "name=", 5);
	assert_int_equal(tm_url_query_parse(text, TM_URL_QUERY_RAW_MAX, KNOWN, &q, &err), 0);
	assert_int_equal(strlen(tm_url_query_text(&q, "name")), TM_URL_QUERY_RAW_MAX - 5);
	assert_int_equal(tm_url_query_parse(text, TM_URL_QUERY_RAW_MAX + 1, KNOWN, &q, &err),
			 -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_QUERY);

	for (unsigned int i = 0; i <= TM_URL_QUERY_MAX; i++) {
		char pair[16];

		(void)snprintf(pair, sizeof(pair), "n%u ", i);
		(void)strncat(known, pair, sizeof(known) - strlen(known) - 1);
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%sn%u=1", i ? "&" : "",
					 i);
		err = (struct tm_error){ 0 };
		assert_int_equal(tm_url_query_parse(text, used, known, &q, &err),
				 i < TM_URL_QUERY_MAX ? 0 : -EINVAL);
	}
	/* A path that takes none says so. */
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_url_query_parse("a=1", 3, "", &q, &err), -EINVAL);
	assert_non_null(strstr(err.hint, "none"));
}

static void converts(void **state)
{
	struct tm_url_query q;
	struct tm_error err;
	uint64_t number = 7;
	bool yes = false;

	(void)state;
	assert_int_equal(parse("wait=600&dry_run=true&from=2026-01-31T12:00:00Z", &q, &err), 0);
	assert_int_equal(tm_url_query_uint(&q, "name", 0, 9, &number, &err), 0);
	assert_int_equal(number, 7);
	assert_int_equal(tm_url_query_uint(&q, "wait", 0, 600, &number, &err), 1);
	assert_int_equal(number, 600);
	assert_int_equal(tm_url_query_uint(&q, "wait", 0, 599, &number, &err), -EINVAL);
	assert_string_equal(err.field, "wait");
	assert_int_equal(parse("wait=1", &q, &err), 0);
	assert_int_equal(tm_url_query_uint(&q, "wait", 2, 3, &number, &err), -EINVAL);
	assert_int_equal(number, 600);

	assert_int_equal(parse("dry_run=true", &q, &err), 0);
	assert_int_equal(tm_url_query_bool(&q, "dry_run", &yes, &err), 1);
	assert_true(yes);
	assert_int_equal(parse("dry_run=false", &q, &err), 0);
	assert_int_equal(tm_url_query_bool(&q, "dry_run", &yes, &err), 1);
	assert_false(yes);
	assert_int_equal(tm_url_query_bool(&q, "wait", &yes, &err), 0);
	assert_int_equal(parse("dry_run=1", &q, &err), 0);
	assert_int_equal(tm_url_query_bool(&q, "dry_run", &yes, &err), -EINVAL);

	assert_int_equal(parse("from=2026-01-31T12:00:00Z", &q, &err), 0);
	assert_int_equal(tm_url_query_time(&q, "from", &number, &err), 1);
	assert_int_equal(number, UINT64_C(1769860800000000));
	assert_int_equal(tm_url_query_time(&q, "wait", &number, &err), 0);
	assert_int_equal(parse("from=yesterday", &q, &err), 0);
	assert_int_equal(tm_url_query_time(&q, "from", &number, &err), -EINVAL);
	assert_string_equal(err.field, "from");
}

static void reads_decimals(void **state)
{
	static const struct {
		const char *text;
		int result;
		uint64_t value;
	} cases[] = {
		{ "0", 0, 0 },
		{ "00012", 0, 12 },
		{ "9223372036854775807", 0, INT64_MAX },
		{ "9223372036854775808", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "0x1", -EINVAL, 0 },
		{ "1.0", -EINVAL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		uint64_t value = 0;

		assert_int_equal(tm_decimal_parse(cases[i].text, &value), cases[i].result);
		assert_int_equal(value, cases[i].value);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads),          cmocka_unit_test(refuses),
		cmocka_unit_test(limits),         cmocka_unit_test(converts),
		cmocka_unit_test(reads_decimals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
