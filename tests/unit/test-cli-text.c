// SPDX-License-Identifier: GPL-2.0-or-later
/* What the command shows and reads, without a daemon: bars, times, safe text, addresses, problems,
 * streams. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../cli/cli.h"
#include "../../cli/document.h"
#include "../../cli/progress.h"
#include "../../cli/sanitise.h"
#include "../../cli/sse.h"
#include "common/cleanup.h"
#include "common/units.h"

static void test_bars(void **state)
{
	static const struct {
		uint64_t used, size;
		const char *bar;
		enum cli_tone tone;
	} cases[] = {
		{ 0, 0, "-", CLI_GOOD },
		{ 0, 100, "--------  0%", CLI_GOOD },
		{ 1, 1000000, "#-------  1%", CLI_GOOD },
		{ 50, 100, "####---- 50%", CLI_GOOD },
		{ 84, 100, "######-- 84%", CLI_GOOD },
		{ 85, 100, "######-- 85%", CLI_WARN },
		{ 95, 100, "#######- 95%", CLI_BAD },
		{ 999999, 1000000, "#######- 99%", CLI_BAD },
		{ 100, 100, "######## 100%", CLI_BAD },
		{ 200, 100, "######## 100%", CLI_BAD },
		{ UINT64_MAX, UINT64_MAX, "######## 100%", CLI_BAD },
	};
	struct cli_output o = { .utf8 = false };
	char text[64];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_string_equal(cli_bar(&o, cases[i].used, cases[i].size, text, sizeof(text)),
				    cases[i].bar);
		assert_int_equal(cli_bar_tone(cases[i].used, cases[i].size), cases[i].tone);
	}
	o.utf8 = true;
	assert_string_equal(cli_bar(&o, 25, 100, text, sizeof(text)), "██░░░░░░ 25%");
	/* Too little room cuts, and never in the middle of a character. */
	for (size_t len = 1; len < sizeof(text); len++) {
		memset(text, 'x', sizeof(text));
		(void)cli_bar(&o, 25, 100, text, len);
		assert_true(strlen(text) < len);
	}
}

static void test_figures(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	tzset();
	assert_string_equal(cli_usec(999, text, sizeof(text)), "999 us");
	assert_string_equal(cli_usec(36000, text, sizeof(text)), "36.0 ms");
	assert_string_equal(cli_usec(1500000, text, sizeof(text)), "1.5 s");
	assert_string_equal(cli_time("2026-03-01T10:00:00.999Z", text, sizeof(text)),
			    "2026-03-01 10:00:00");
	assert_string_equal(cli_time("2026-03-01T10:00:00+01:00", text, sizeof(text)),
			    "2026-03-01 09:00:00");
	assert_string_equal(cli_time("", text, sizeof(text)), "-");
	assert_string_equal(cli_time("soon", text, sizeof(text)), "soon");
	assert_string_equal(cli_size(TM_GIB, text, sizeof(text)), "1 GiB");
}

static void test_safe_text(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		const char *utf8, *ascii;
	} cases[] = {
		{ "", 0, "", "" },
		{ "plain", 5, "plain", "plain" },
		{ "a\nb\tc\rd", 7, "a b c d", "a b c d" },
		{ "\033[2J", 4, "\xef\xbf\xbd[2J", "?[2J" },
		{ "a\0b", 3,
		  "a\xef\xbf\xbd"
		  "b",
		  "a?b" },
		{ "\x7f\x01", 2, "\xef\xbf\xbd\xef\xbf\xbd", "??" },
		{ "\xc3\xa4", 2, "\xc3\xa4", "?" },                  /* ä */
		{ "\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80", "?" },  /* an emoji */
		{ "\xc2\x9b", 2, "\xef\xbf\xbd", "?" },              /* C1: CSI */
		{ "\x9b", 1, "\xef\xbf\xbd", "?" },                  /* the same as a byte */
		{ "\xe2\x80\xae", 3, "\xef\xbf\xbd", "?" },          /* right-to-left override */
		{ "\xe2\x81\xa6", 3, "\xef\xbf\xbd", "?" },          /* isolate */
		{ "\xc0\x9b", 2, "\xef\xbf\xbd\xef\xbf\xbd", "??" }, /* overlong */
		{ "\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
		  "???" },                          /* surrogate */
		{ "\xc3", 1, "\xef\xbf\xbd", "?" }, /* cut */
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		char *text = cli_sanitise(cases[i].text, cases[i].len, true);

		assert_string_equal(text, cases[i].utf8);
		free(text);
		text = cli_sanitise(cases[i].text, cases[i].len, false);
		assert_string_equal(text, cases[i].ascii);
		free(text);
	}
}

static void test_addresses(void **state)
{
	struct cli_url url;

	(void)state;
	cli_url_init(&url, "/v1/pools");
	cli_url_segment(&url, "a/../b c%?#&\xff");
	cli_url_add(&url, "/volumes");
	cli_url_query(&url, "since", "2026-01-01T00:00:00+01:00");
	cli_url_query_uint(&url, "limit", 7);
	assert_string_equal(url.text, "/v1/pools/a%2F..%2Fb%20c%25%3F%23%26%FF/volumes"
				      "?since=2026-01-01T00%3A00%3A00%2B01%3A00&limit=7");
	assert_false(url.overflow);
	for (int i = 0; i < 1000; i++)
		cli_url_segment(&url, "longer");
	assert_true(url.overflow);
	assert_true(strlen(url.text) < sizeof(url.text));
}

static void test_problems(void **state)
{
	static const struct {
		const char *problem;
		long status;
		enum tm_error_code code;
		bool known;
		const char *detail;
	} cases[] = {
		{ "{\"type\":\"urn:thinmgr:error:busy\",\"detail\":\"d\",\"title\":\"t\"}", 409,
		  TM_ERR_BUSY, true, "d" },
		{ "{\"type\":\"urn:thinmgr:error:busy\",\"title\":\"t\"}", 409, TM_ERR_BUSY, true,
		  "t" },
		{ "{\"type\":\"urn:thinmgr:error:new\",\"title\":\"t\"}", 404, TM_ERR_NOT_FOUND,
		  false, "t" },
		{ "{\"type\":\"urn:other:busy\",\"detail\":\"d\"}", 507, TM_ERR_NO_SPACE, false,
		  "d" },
		{ "{\"type\":[],\"detail\":{}}", 503, TM_ERR_INTERNAL, false, NULL },
		{ "[]", 403, TM_ERR_FORBIDDEN, false, NULL },
		{ NULL, 500, TM_ERR_INTERNAL, false, NULL },
	};
	char *longer = malloc(100000);
	struct tm_error err;
	json_t *problem;
	bool known;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		problem = cases[i].problem ? json_loads(cases[i].problem, 0, NULL) : NULL;
		cli_problem_to_error(problem, cases[i].status, &err, &known);
		assert_int_equal(err.code, cases[i].code);
		assert_int_equal(known, cases[i].known);
		assert_true(err.detail[0]);
		if (cases[i].detail)
			assert_string_equal(err.detail, cases[i].detail);
		json_decref(problem);
	}
	assert_non_null(longer);
	memset(longer, 'x', 99999);
	longer[99999] = '\0';
	problem = json_pack("{s:s, s:s, s:s}", "detail", longer, "hint", longer, "field", longer);
	assert_non_null(problem);
	cli_problem_to_error(problem, 500, &err, &known);
	assert_int_equal(strlen(err.detail), sizeof(err.detail) - 1);
	assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
	assert_int_equal(strlen(err.field), sizeof(err.field) - 1);
	json_decref(problem);
	free(longer);
}

static void test_documents(void **state)
{
	json_t *d =
		json_loads("{\"s\":\"x\",\"n\":7,\"m\":-7,\"t\":true,\"z\":null,\"o\":{},\"a\":[],"
			   "\"r\":1.5}",
			   0, NULL);

	(void)state;
	assert_string_equal(cli_string(d, "s"), "x");
	assert_string_equal(cli_string(d, "n"), "");
	assert_string_equal(cli_string(d, "none"), "");
	assert_string_equal(cli_string(NULL, "s"), "");
	assert_int_equal(cli_uint(d, "n"), 7);
	assert_int_equal(cli_uint(d, "m"), 0);
	assert_int_equal(cli_uint(d, "r"), 0);
	assert_int_equal(cli_uint(d, "s"), 0);
	assert_true(cli_bool(d, "t"));
	assert_false(cli_bool(d, "n"));
	assert_non_null(cli_object(d, "o"));
	assert_null(cli_object(d, "a"));
	assert_non_null(cli_array(d, "a"));
	assert_null(cli_array(d, "z"));
	assert_true(cli_present(d, "n"));
	assert_false(cli_present(d, "z"));
	assert_false(cli_present(d, "none"));
	json_decref(d);
}

static void test_progress_text(void **state)
{
	static const char *const cases[][2] = {
		{ "{\"kind\":\"volume-create\",\"pool\":\"tank\",\"volume\":\"home\",\"status\":"
		  "\"running\","
		  "\"step\":1,\"steps\":5,\"step_name\":\"table\"}",
		  "volume-create of 'tank/home': step 2 of 5, table (3 s)" },
		{ "{\"kind\":\"pool-create\",\"pool\":\"tank\",\"volume\":null,\"status\":"
		  "\"running\","
		  "\"step\":5,\"steps\":5,\"step_name\":null}",
		  "pool-create of 'tank': step 5 of 5 (3 s)" },
		{ "{\"kind\":\"pool-repair\",\"pool\":\"tank\",\"volume\":null,\"status\":"
		  "\"running\","
		  "\"step\":5,\"steps\":17,\"step_name\":\"check-metadata\",\"percent\":0}",
		  "pool-repair of 'tank': step 6 of 17, check-metadata 0 % (3 s)" },
		{ "{\"kind\":\"pool-import\",\"pool\":null,\"status\":\"queued\"}",
		  "pool-import: queued (3 s)" },
		{ "{}", ":  (3 s)" },
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		json_t *operation = json_loads(cases[i][0], 0, NULL);

		assert_non_null(operation);
		assert_string_equal(cli_progress_text(operation, 3, text, sizeof(text)),
				    cases[i][1]);
		json_decref(operation);
	}
}

/* ---- event streams -------------------------------------------------------------------------- */

struct heard {
	char text[4096];
	size_t len;
	int stop_at; /* what the reader returns at the first event */
};

static int hear(void *userdata, const struct cli_sse_event *e)
{
	struct heard *h = userdata;

	h->len += (size_t)snprintf(h->text + h->len, sizeof(h->text) - h->len, "[%s|%s|%s]", e->id,
				   e->type, e->data);
	return h->stop_at;
}

static void test_streams(void **state)
{
	static const struct {
		const char *bytes;
		size_t len; /* 0: strlen */
		const char *heard, *id;
	} cases[] = {
		{ "", 0, "", "" },
		{ "data: a\n\n", 0, "[||a]", "" },
		{ "data:a\n\n", 0, "[||a]", "" },
		{ "data:  a\n\n", 0, "[|| a]", "" },
		{ "data\n\n", 0, "[||]", "" },
		{ "data: a\ndata: b\n\n", 0, "[||a\nb]", "" },
		{ "data: a\n", 0, "", "" }, /* not complete */
		{ "id: 7\nevent: x\ndata: a\n\ndata: b\n\n", 0, "[7|x|a][7||b]", "7" },
		{ "id: 7\n\n", 0, "", "7" },
		{ "id: 7\ndata: a\n\nid\n\n", 0, "[7||a]", "" },
		{ "data: a\r\n\r\ndata: b\r\rdata: c\n\n", 0, "[||a][||b][||c]", "" },
		{ ": comment\n\n:\n\nretry: 5\nwhat: ever\nnonsense\n\n", 0, "", "" },
		{ "\xef\xbb\xbf"
		  "data: a\n\n",
		  0, "[||a]", "" },
		{ "data: a\n\n\xef\xbb\xbf"
		  "data: b\n\n",
		  0, "[||a]", "" },
		{ "id: 1\0002\ndata: a\n\n", 17, "[||a]", "" },
		{ "id: 0123456789012345678901234567890123456789012345678901234567890123\ndata: "
		  "a\n\n",
		  0, "[||a]", "" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		size_t len = cases[i].len ? cases[i].len : strlen(cases[i].bytes);

		for (size_t step = 1; step <= len + 1; step++) {
			struct cli_sse sse = { 0 };
			struct heard h = { 0 };

			for (size_t at = 0; at < len; at += step)
				assert_int_equal(cli_sse_feed(&sse, cases[i].bytes + at,
							      len - at < step ? len - at : step,
							      hear, &h),
						 0);
			assert_string_equal(h.text, cases[i].heard);
			assert_string_equal(sse.id, cases[i].id);
			cli_sse_done(&sse);
		}
	}
}

static void test_stream_limits(void **state)
{
	struct cli_sse sse = { 0 };
	struct heard h = { 0 };
	char piece[4096];
	int r = 0;
	size_t n;

	(void)state;
	memset(piece, 'x', sizeof(piece));
	for (n = 0; r == 0 && n < 2 * CLI_SSE_LIMIT; n += sizeof(piece))
		r = cli_sse_feed(&sse, piece, sizeof(piece), hear, &h);
	assert_int_equal(r, -EMSGSIZE);
	assert_true(n <= CLI_SSE_LIMIT + 2 * sizeof(piece));
	cli_sse_done(&sse);

	/* Many lines of one event. */
	memcpy(piece, "data:", 5);
	piece[sizeof(piece) - 1] = '\n';
	for (n = 0, r = 0; r == 0 && n < 2 * CLI_SSE_LIMIT; n += sizeof(piece))
		r = cli_sse_feed(&sse, piece, sizeof(piece), hear, &h);
	assert_int_equal(r, -EMSGSIZE);
	cli_sse_done(&sse);

	/* A reader that stops is told no more; a new connection forgets the half event, not the id.
	 */
	h = (struct heard){ .stop_at = 3 };
	assert_int_equal(cli_sse_feed(&sse, "id:1\ndata:a\n\ndata:b\n\n", 20, hear, &h), 3);
	assert_string_equal(h.text, "[1||a]");
	h = (struct heard){ 0 };
	assert_int_equal(cli_sse_feed(&sse, "data:half", 9, hear, &h), 0);
	cli_sse_restart(&sse);
	assert_int_equal(cli_sse_feed(&sse, "data:c\n\n", 8, hear, &h), 0);
	assert_string_equal(h.text, "[1||c]");
	cli_sse_done(&sse);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bars),          cmocka_unit_test(test_figures),
		cmocka_unit_test(test_safe_text),     cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_problems),      cmocka_unit_test(test_documents),
		cmocka_unit_test(test_progress_text), cmocka_unit_test(test_streams),
		cmocka_unit_test(test_stream_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
