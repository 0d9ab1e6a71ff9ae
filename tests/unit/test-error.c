// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/utf8.h"

static const char *const symbols[TM_ERR_COUNT] = {
#define TM_ERROR(sym, slug, http, exitcode, title) [TM_ERR_##sym] = #sym,
#include "errors.def"
#undef TM_ERROR
};

/* WRONG_STATE gives WrongState. */
static void camel_case(const char *symbol, char *out)
{
	bool upper = true;

	for (; *symbol; symbol++) {
		if (*symbol == '_') {
			upper = true;
			continue;
		}
		*out++ = (char)(upper ? *symbol : *symbol + ('a' - 'A'));
		upper = false;
	}
	*out = '\0';
}

static void test_catalogue(void **state)
{
	char camel[64], name[128];
	int i, j;

	(void)state;
	for (i = TM_OK + 1; i < TM_ERR_COUNT; i++) {
		enum tm_error_code code = (enum tm_error_code)i;

		assert_non_null(symbols[i]);
		camel_case(symbols[i], camel);
		(void)snprintf(name, sizeof(name), "org.thinmgr1.Error.%s", camel);
		assert_string_equal(tm_error_dbus_name(code), name);
		assert_int_equal(tm_error_from_slug(tm_error_slug(code)), code);
		assert_true(tm_error_http_status(code) >= 400 && tm_error_http_status(code) < 600);
		assert_true(tm_error_exit_code(code) >= 2 && tm_error_exit_code(code) <= 9);
		assert_true(strlen(tm_error_title(code)) > 10);
		for (j = TM_OK + 1; j < i; j++)
			assert_string_not_equal(tm_error_slug(code),
						tm_error_slug((enum tm_error_code)j));
	}
	assert_int_equal(tm_error_from_slug("no-such-thing"), TM_OK);
	assert_int_equal(tm_error_from_slug(""), TM_OK);
	assert_int_equal(tm_error_from_slug(NULL), TM_OK);
}

static void test_bad_codes(void **state)
{
	static const int codes[] = { TM_OK, TM_ERR_COUNT, TM_ERR_COUNT + 7, -3 };
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(codes); i++) {
		/* Through a volatile, or a compiler may reason about the enum's range. */
		volatile int raw = codes[i];
		enum tm_error_code code = (enum tm_error_code)raw;

		assert_string_equal(tm_error_slug(code), "internal");
		assert_string_equal(tm_error_dbus_name(code), "org.thinmgr1.Error.Internal");
		assert_int_equal(tm_error_http_status(code), 500);
		assert_int_equal(tm_error_exit_code(code), 9);
		assert_string_equal(tm_error_title(code), tm_error_title(TM_ERR_INTERNAL));
	}
}

static void test_first_report_wins(void **state)
{
	struct tm_error err = { .code = TM_OK };

	(void)state;
	assert_int_equal(tm_error_set(&err, TM_ERR_IO, ENOSPC, "cannot write %s: %d", "x", 5),
			 -ENOSPC);
	tm_error_hint(&err, "Free %s.", "space");
	assert_int_equal(tm_error_set(&err, TM_ERR_STORE, EPERM, "later"), -EPERM);
	tm_error_hint(&err, "Something else.");
	assert_int_equal(tm_error_field(&err, TM_ERR_WRONG_TYPE, "/a", "later"), -EINVAL);
	assert_int_equal(err.code, TM_ERR_IO);
	assert_int_equal(err.errnum, ENOSPC);
	assert_string_equal(err.detail, "cannot write x: 5");
	assert_string_equal(err.hint, "Free space.");
	assert_string_equal(err.field, "");
}

static void test_returns(void **state)
{
	struct tm_error err = { .code = TM_OK };

	(void)state;
	assert_int_equal(tm_error_set(NULL, TM_ERR_IO, EBUSY, "x"), -EBUSY);
	assert_int_equal(tm_error_set(NULL, TM_ERR_IO, 0, "x"), -EIO);
	assert_int_equal(tm_error_field(NULL, TM_ERR_BAD_NAME, "/name", "x"), -EINVAL);
	tm_error_hint(NULL, "x");
	assert_int_equal(tm_error_set(&err, TM_OK, 0, "x"), -EIO);
	assert_int_equal(err.code, TM_ERR_INTERNAL);
	assert_int_equal(err.errnum, 0);

	err.code = TM_OK;
	assert_int_equal(tm_error_field(&err, TM_ERR_BAD_NAME, NULL, "y"), -EINVAL);
	assert_string_equal(err.field, "");
	assert_int_equal(err.errnum, EINVAL);

	err.code = TM_OK;
	assert_int_equal(tm_error_field(&err, TM_ERR_BAD_NAME, "/name", "y"), -EINVAL);
	assert_string_equal(err.field, "/name");
}

/* Whatever goes in, what comes out can be put into JSON and onto one line of a log. */
static void test_text_is_clean(void **state)
{
	struct tm_error err = { .code = TM_OK };
	char text[2048];
	size_t i;

	(void)state;
	for (i = 0; i + 2 < sizeof(text); i += 2)
		memcpy(text + i, "\xc3\xa9", 2);
	text[i] = '\0';
	/* An odd prefix has the cut fall into the middle of a character. */
	(void)tm_error_field(&err, TM_ERR_IO, text, "%s%s", "a", text);
	tm_error_hint(&err, "a%s", text);
	assert_true(tm_utf8_valid(err.detail));
	assert_true(tm_utf8_valid(err.field));
	assert_true(tm_utf8_valid(err.hint));
	assert_int_equal(strlen(err.detail), sizeof(err.detail) - 1);

	err = (struct tm_error){ .code = TM_OK };
	(void)tm_error_set(&err, TM_ERR_IO, EIO, "a\nb\x1b[31m\xff\xc0\x80z");
	assert_string_equal(err.detail, "a b [31m???z");
}

static void test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t first;
		bool valid;
	} cases[] = {
		{ "", 0, true },
		{ "a", 1, true },
		{ "\x7f", 1, true },
		{ "\xc3\xa9", 2, true },
		{ "\xe2\x82\xac", 3, true },
		{ "\xf0\x9f\x98\x80", 4, true },
		{ "\xf4\x8f\xbf\xbf", 4, true },
		{ "\xed\x9f\xbf", 3, true },
		{ "ab\xc3\xa9z", 1, true },
		{ "\x80", 0, false },         /* continuation alone */
		{ "\xc3", 0, false },         /* cut */
		{ "\xe2\x82", 0, false },     /* cut */
		{ "\xf0\x9f\x98", 0, false }, /* cut */
		{ "\xc0\x80", 0, false },     /* overlong */
		{ "\xc1\xbf", 0, false },     /* overlong */
		{ "\xe0\x80\x80", 0, false }, /* overlong */
		{ "\xe0\x9f\xbf", 0, false }, /* overlong */
		{ "\xf0\x8f\xbf\xbf", 0, false },
		{ "\xed\xa0\x80", 0, false },     /* surrogate */
		{ "\xed\xbf\xbf", 0, false },     /* surrogate */
		{ "\xf4\x90\x80\x80", 0, false }, /* past U+10FFFF */
		{ "\xf8\x88\x80\x80\x80", 0, false },
		{ "\xff", 0, false },
		{ "\xc3"
		  "a",
		  0, false },
		{ "ab\xc3", 1, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		char text[16];

		assert_int_equal(tm_utf8_char(cases[i].text, strlen(cases[i].text)),
				 cases[i].first);
		assert_int_equal(tm_utf8_valid(cases[i].text), cases[i].valid);
		(void)snprintf(text, sizeof(text), "%s", cases[i].text);
		tm_utf8_clean(text);
		assert_true(tm_utf8_valid(text));
		if (cases[i].valid && cases[i].text[0] != 0x7f)
			assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_catalogue),         cmocka_unit_test(test_bad_codes),
		cmocka_unit_test(test_first_report_wins), cmocka_unit_test(test_returns),
		cmocka_unit_test(test_text_is_clean),     cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
