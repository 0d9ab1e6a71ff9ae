/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an event says on the bus, and that the committed interface is the one in use. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "bus/signal.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/utf8.h"

static struct tm_event event_of(enum tm_event_type type, const char *data)
{
	return (struct tm_event){
		.seq = 42,
		.time_usec = 1,
		.type = type,
		.pool_name = "tank",
		.volume_name = "home",
		.message = "It happened.",
		.data = (char *)data,
	};
}

/* "LowSpace(tank,data,3,9,42)" */
static void render(const struct tm_bus_signal *s, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s(", s->member);

	for (size_t i = 0; s->signature[i]; i++) {
		const char *comma = i ? "," : "";

		assert_true(i < TM_ARRAY_SIZE(s->arguments));
		if (s->signature[i] == 's')
			n += (size_t)snprintf(buf + n, size - n, "%s%s", comma,
					      s->arguments[i].text);
		else
			n += (size_t)snprintf(buf + n, size - n, "%s%" PRIu64, comma,
					      s->arguments[i].number);
	}
	(void)snprintf(buf + n, size - n, ")");
}

static void test_special_signals(void **state)
{
	static const struct {
		enum tm_event_type type;
		const char *data, *expected;
	} cases[] = {
		{ TM_EVENT_LOW_SPACE, "{\"used\":3,\"total\":9,\"mark\":6}",
		  "LowSpace(tank,data,3,9,42)" },
		{ TM_EVENT_METADATA_LOW_SPACE, "{\"used\":9223372036854775807,\"total\":0}",
		  "LowSpace(tank,metadata,9223372036854775807,0,42)" },
		{ TM_EVENT_OUT_OF_SPACE, "{\"until\":\"1970-01-01T00:01:00.500Z\"}",
		  "OutOfSpace(tank,60500000,42)" },
		{ TM_EVENT_OUT_OF_SPACE, "{\"until\":null}", "OutOfSpace(tank,0,42)" },
		{ TM_EVENT_OUT_OF_SPACE, "{\"until\":\"tomorrow\"}", "OutOfSpace(tank,0,42)" },
		{ TM_EVENT_MODE_CHANGED, "{\"from\":\"write\",\"to\":\"read_only\"}",
		  "ModeChanged(tank,write,read_only,42)" },
		{ TM_EVENT_NEEDS_CHECK, NULL, "NeedsCheck(tank,42)" },
		{ TM_EVENT_REPAIR_WAITS, "{\"holders\":[]}",
		  "RepairWaits(tank,home,It happened.,42)" },
		{ TM_EVENT_REPAIR_STARTED, NULL, "RepairStarted(tank,42)" },
		{ TM_EVENT_REPAIRED, "{\"verdict\":\"accept\",\"volumes\":[]}",
		  "RepairFinished(tank,accept,It happened.,42)" },
		{ TM_EVENT_REPAIR_FAILED, "{\"verdict\":\"accept\"}",
		  "RepairFinished(tank,failed,It happened.,42)" },
		{ TM_EVENT_METADATA_RESTORED,
		  "{\"verdict\":\"accept\",\"copy\":\"20261123T024512Z-repair\"}",
		  "MetadataRestored(tank,20261123T024512Z-repair,It happened.,42)" },
		{ TM_EVENT_EXTENDED,
		  "{\"space\":\"data\",\"from\":1,\"to\":2,\"reaction_usec\":35000,"
		  "\"reason\":\"low-water\"}",
		  "Extended(tank,data,1,2,35000,42)" },
		{ TM_EVENT_EXTENDED, "{\"space\":\"metadata\",\"from\":1,\"to\":2}",
		  "Extended(tank,metadata,1,2,0,42)" },
		{ TM_EVENT_EXTEND_FAILED,
		  "{\"space\":\"data\",\"reason\":\"no-space\",\"detail\":\"full\"}",
		  "ExtendFailed(tank,data,no-space,42)" },
		/* figures of another form, or none at all */
		{ TM_EVENT_LOW_SPACE, NULL, "LowSpace(tank,data,0,0,42)" },
		{ TM_EVENT_LOW_SPACE, "", "LowSpace(tank,data,0,0,42)" },
		{ TM_EVENT_LOW_SPACE, "[1,2]", "LowSpace(tank,data,0,0,42)" },
		{ TM_EVENT_LOW_SPACE, "{\"used\":\"3\",\"total\":-1}",
		  "LowSpace(tank,data,0,0,42)" },
		{ TM_EVENT_MODE_CHANGED, "{\"from\":1,\"to\":[]}", "ModeChanged(tank,,,42)" },
		{ TM_EVENT_EXTEND_FAILED, "{\"space\":\"da\\u0000ta\"}",
		  "ExtendFailed(tank,,,42)" },
		{ TM_EVENT_EXTEND_FAILED, "{\"reason\":\"\xff\"}", "ExtendFailed(tank,,,42)" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_event e = event_of(cases[i].type, cases[i].data);
		struct tm_bus_signals signals;
		char text[256];

		tm_bus_signals_of(&e, &signals);
		assert_int_equal(signals.n, 2);
		render(&signals.list[0], text, sizeof(text));
		assert_string_equal(text, cases[i].expected);
		assert_string_equal(signals.list[1].member, "Event");
		tm_bus_signals_done(&signals);
	}
}

/* Every event is told, also those that have no signal of their own. */
static void test_general_signal(void **state)
{
	(void)state;
	for (int type = 0; type < TM_EVENT_COUNT; type++) {
		struct tm_event e = event_of((enum tm_event_type)type, "{}");
		struct tm_bus_signals signals;
		char text[256], expected[256];

		tm_bus_signals_of(&e, &signals);
		assert_in_range(signals.n, 1, 2);
		(void)snprintf(expected, sizeof(expected), "Event(42,%s,%s,tank,It happened.)",
			       tm_event_slug(e.type), tm_severity_name(tm_event_severity(e.type)));
		render(&signals.list[signals.n - 1], text, sizeof(text));
		assert_string_equal(text, expected);
		tm_bus_signals_done(&signals);
	}
}

/* The bus ends a connection that sends it text that is not UTF-8. */
static void test_text_is_clean(void **state)
{
	struct tm_event e = event_of(TM_EVENT_DAEMON_STARTED, NULL);
	struct tm_bus_signals signals;

	(void)state;
	(void)snprintf(e.message, sizeof(e.message), "the file /a\xff\xfe/\x1b is gone");
	tm_bus_signals_of(&e, &signals);
	assert_true(tm_utf8_valid(signals.list[0].arguments[4].text));
	assert_non_null(strstr(signals.list[0].arguments[4].text, "is gone"));
	tm_bus_signals_done(&signals);

	/* Cut in the middle of a character, as a full message may be. */
	memset(e.message, 'x', sizeof(e.message) - 2);
	e.message[sizeof(e.message) - 2] = '\xc3';
	e.message[sizeof(e.message) - 1] = '\0';
	tm_bus_signals_of(&e, &signals);
	assert_true(tm_utf8_valid(signals.list[0].arguments[4].text));
	tm_bus_signals_done(&signals);
}

static char *introspection(void)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	tm_bus_introspect(f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void test_committed_interface(void **state)
{
	const char *root = getenv("SOURCE_ROOT");
	tm_auto_free char *path = NULL, *committed = NULL, *ours = introspection();
	size_t len = 0;

	(void)state;
	assert_true(asprintf(&path, "%s/daemon/bus/org.thinmgr1.xml", root ? root : ".") > 0);
	assert_int_equal(tm_read_file(path, 65536, &committed, &len), 0);
	assert_string_equal(committed, ours);
}

/* What is sent is what the interface promises: same members, same signatures. */
static void test_signals_are_declared(void **state)
{
	tm_auto_free char *xml = introspection();

	(void)state;
	for (int type = 0; type < TM_EVENT_COUNT; type++) {
		struct tm_event e = event_of((enum tm_event_type)type, NULL);
		struct tm_bus_signals signals;

		tm_bus_signals_of(&e, &signals);
		for (size_t i = 0; i < signals.n; i++) {
			char head[64], types[16] = "";
			const char *at, *end;
			size_t n = 0;

			(void)snprintf(head, sizeof(head), "<signal name=\"%s\">",
				       signals.list[i].member);
			at = strstr(xml, head);
			assert_non_null(at);
			end = strstr(at, "</signal>");
			assert_non_null(end);
			while ((at = strstr(at, "type=\"")) && at < end) {
				at += strlen("type=\"");
				types[n++] = *at;
			}
			assert_string_equal(types, signals.list[i].signature);
		}
		tm_bus_signals_done(&signals);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_special_signals),
		cmocka_unit_test(test_general_signal),
		cmocka_unit_test(test_text_is_clean),
		cmocka_unit_test(test_committed_interface),
		cmocka_unit_test(test_signals_are_declared),
	};

	return cmocka_run_group_tests_name("bus-signal", tests, NULL, NULL);
}
