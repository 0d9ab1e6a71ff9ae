// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/model.h"

#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/units.h"

static const struct {
	const char *slug;
	enum tm_severity severity;
} events[TM_EVENT_COUNT] = {
#define TM_EVENT(sym, slug_, sev, text) \
	[TM_EVENT_##sym] = { .slug = (slug_), .severity = TM_SEV_##sev },
#include "events.def"
#undef TM_EVENT
};

const char *tm_event_slug(enum tm_event_type type)
{
	return (unsigned int)type < TM_EVENT_COUNT ? events[type].slug : "unknown";
}

enum tm_severity tm_event_severity(enum tm_event_type type)
{
	return (unsigned int)type < TM_EVENT_COUNT ? events[type].severity : TM_SEV_ERROR;
}

const char *tm_severity_name(enum tm_severity severity)
{
	static const char *const names[] = { "info", "notice", "warning", "error", "critical" };

	return (unsigned int)severity < TM_ARRAY_SIZE(names) ? names[severity] : "error";
}

int tm_event_from_slug(const char *slug, enum tm_event_type *ret)
{
	unsigned int i;

	for (i = 0; i < TM_EVENT_COUNT; i++) {
		if (!strcmp(events[i].slug, slug)) {
			*ret = (enum tm_event_type)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *tm_mode_name(enum tm_pool_mode mode)
{
	static const char *const names[] = { "write", "out_of_data_space", "read_only", "fail" };

	return (unsigned int)mode < TM_ARRAY_SIZE(names) ? names[mode] : "fail";
}

const char *tm_when_full_name(enum tm_when_full w)
{
	return w == TM_WHEN_FULL_ERROR ? "error" : "queue";
}

int tm_when_full_parse(const char *text, enum tm_when_full *ret)
{
	if (!strcmp(text, "queue"))
		*ret = TM_WHEN_FULL_QUEUE;
	else if (!strcmp(text, "error"))
		*ret = TM_WHEN_FULL_ERROR;
	else
		return -EINVAL;
	return 0;
}

static const char *const repair_names[] = {
	[TM_REPAIR_MANUAL] = "manual",
	[TM_REPAIR_WHEN_IDLE] = "when_idle",
	[TM_REPAIR_FORCE] = "force",
};

const char *tm_repair_policy_name(enum tm_repair_policy p)
{
	return (size_t)p < TM_ARRAY_SIZE(repair_names) ? repair_names[p] : "unknown";
}

int tm_repair_policy_parse(const char *text, enum tm_repair_policy *ret)
{
	for (size_t i = 0; i < TM_ARRAY_SIZE(repair_names); i++) {
		if (strcmp(text, repair_names[i]) != 0)
			continue;
		*ret = (enum tm_repair_policy)i;
		return 0;
	}
	return -EINVAL;
}

static const char *const suspicion_names[] = {
	[TM_SUSPECT_NOT] = "",
	[TM_SUSPECT_NO_SPACE] = "no_space",
	[TM_SUSPECT_READ_ONLY] = "read_only",
	[TM_SUSPECT_FAIL] = "fail",
	[TM_SUSPECT_REPAIRED] = "repaired",
	[TM_SUSPECT_RESTORED] = "restored",
};

const char *tm_suspicion_name(enum tm_suspicion s)
{
	return (size_t)s < TM_ARRAY_SIZE(suspicion_names) ? suspicion_names[s] : "unknown";
}

int tm_suspicion_parse(const char *text, enum tm_suspicion *ret)
{
	for (size_t i = 0; i < TM_ARRAY_SIZE(suspicion_names); i++) {
		if (strcmp(text, suspicion_names[i]) != 0)
			continue;
		*ret = (enum tm_suspicion)i;
		return 0;
	}
	return -EINVAL;
}

void tm_policy_default(struct tm_policy *ret)
{
	*ret = (struct tm_policy){
		.data = { .enabled = true,
			  .low_water_percent = 20,
			  .step_percent = 20,
			  .step_min_bytes = 64 * TM_MIB },
		.metadata = { .enabled = true,
			      .low_water_percent = 25,
			      .step_percent = 50,
			      .step_min_bytes = TM_MIB },
		.activate_at_start = true,
		.sample_seconds = 30,
		.repair = TM_REPAIR_WHEN_IDLE,
		.keep_copies = 8,
		.keep_days = 30,
		.copy_hours = 24,
		.check_days = 7,
	};
}
