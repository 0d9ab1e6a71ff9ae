// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/units.h"
#include "logic/model.h"
#include "logic/policy.h"

static void test_events(void **state)
{
	enum tm_event_type back;
	int i, j;

	(void)state;
	for (i = 0; i < TM_EVENT_COUNT; i++) {
		const char *slug = tm_event_slug((enum tm_event_type)i);

		assert_true(strlen(slug) > 3);
		assert_true(strlen(slug) < 32);
		assert_int_equal(tm_event_from_slug(slug, &back), 0);
		assert_int_equal(back, i);
		for (j = 0; j < i; j++)
			assert_string_not_equal(slug, tm_event_slug((enum tm_event_type)j));
	}
	back = TM_EVENT_QUEUEING;
	assert_int_equal(tm_event_from_slug("", &back), -EINVAL);
	assert_int_equal(tm_event_from_slug("Extended", &back), -EINVAL);
	assert_int_equal(back, TM_EVENT_QUEUEING);
	assert_string_equal(tm_event_slug(TM_EVENT_COUNT), "unknown");
	assert_int_equal(tm_event_severity(TM_EVENT_COUNT), TM_SEV_ERROR);
	assert_int_equal(tm_event_severity(TM_EVENT_OUT_OF_SPACE), TM_SEV_CRITICAL);
	assert_int_equal(tm_event_severity(TM_EVENT_EXTENDED), TM_SEV_INFO);
}

static void test_names(void **state)
{
	enum tm_when_full when = TM_WHEN_FULL_ERROR;

	(void)state;
	assert_string_equal(tm_severity_name(TM_SEV_INFO), "info");
	assert_string_equal(tm_severity_name(TM_SEV_NOTICE), "notice");
	assert_string_equal(tm_severity_name(TM_SEV_WARNING), "warning");
	assert_string_equal(tm_severity_name(TM_SEV_ERROR), "error");
	assert_string_equal(tm_severity_name(TM_SEV_CRITICAL), "critical");
	assert_string_equal(tm_mode_name(TM_MODE_WRITE), "write");
	assert_string_equal(tm_mode_name(TM_MODE_OUT_OF_DATA_SPACE), "out_of_data_space");
	assert_string_equal(tm_mode_name(TM_MODE_READ_ONLY), "read_only");
	assert_string_equal(tm_mode_name(TM_MODE_FAIL), "fail");
	assert_string_equal(tm_when_full_name(TM_WHEN_FULL_QUEUE), "queue");
	assert_string_equal(tm_when_full_name(TM_WHEN_FULL_ERROR), "error");
	assert_int_equal(tm_when_full_parse("queue", &when), 0);
	assert_int_equal(when, TM_WHEN_FULL_QUEUE);
	assert_int_equal(tm_when_full_parse("error", &when), 0);
	assert_int_equal(when, TM_WHEN_FULL_ERROR);
	assert_int_equal(tm_when_full_parse("Queue", &when), -EINVAL);
	assert_int_equal(tm_when_full_parse("", &when), -EINVAL);
	assert_int_equal(when, TM_WHEN_FULL_ERROR);
}

static void test_default_policy(void **state)
{
	struct tm_policy policy;

	(void)state;
	tm_policy_default(&policy);
	assert_int_equal(tm_policy_check(&policy, "", NULL), 0);
	assert_true(policy.data.enabled && policy.metadata.enabled && policy.activate_at_start);
	assert_int_equal(policy.data.low_water_percent, 20);
	assert_int_equal(policy.data.step_percent, 20);
	assert_int_equal(policy.data.step_min_bytes, 64 * TM_MIB);
	assert_int_equal(policy.data.maximum_bytes, 0);
	assert_int_equal(policy.metadata.low_water_percent, 25);
	assert_int_equal(policy.metadata.step_percent, 50);
	assert_int_equal(policy.metadata.step_min_bytes, TM_MIB);
	assert_int_equal(policy.metadata.maximum_bytes, 0);
	assert_int_equal(policy.sample_seconds, 30);
	assert_int_equal(policy.keep_copies, 8);
	assert_int_equal(policy.keep_days, 30);
	assert_int_equal(policy.copy_hours, 24);
	assert_int_equal(policy.check_days, 7);
	assert_int_equal(policy.repair, TM_REPAIR_WHEN_IDLE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_default_policy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
