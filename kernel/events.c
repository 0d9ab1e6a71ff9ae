// SPDX-License-Identifier: GPL-2.0-only
/* What happened to a pool lately: a ring with causes, values and times. */

#include <linux/ktime.h>

#include "pool.h"

static const char *cause_text(enum dtm_cause cause)
{
	switch (cause) {
	case DTM_CAUSE_DATA_LOW:
		return "data_low";
	case DTM_CAUSE_METADATA_LOW:
		return "metadata_low";
	case DTM_CAUSE_MODE:
		return "mode";
	case DTM_CAUSE_NEEDS_CHECK:
		return "needs_check";
	case DTM_CAUSE_TIMEOUT:
		return "no_space_timeout";
	case DTM_CAUSE_DATA_GROWN:
		return "data_grown";
	case DTM_CAUSE_METADATA_GROWN:
		return "metadata_grown";
	case DTM_N_CAUSES:
		break;
	}
	return "?";
}

void dtm_events_init(struct dtm_events *e)
{
	spin_lock_init(&e->lock);
	e->last = 0;
}

u64 dtm_events_add(struct dtm_events *e, enum dtm_cause cause, u64 value)
{
	s64 now = ktime_get_real_ns();
	u64 number;

	spin_lock_irq(&e->lock);
	number = ++e->last;
	e->ring[number % DTM_EVENTS].cause = cause;
	e->ring[number % DTM_EVENTS].value = value;
	e->ring[number % DTM_EVENTS].time_ns = now;
	spin_unlock_irq(&e->lock);
	return number;
}

bool dtm_events_print(struct dtm_events *e, u64 since, char *buf, unsigned int size)
{
	unsigned int at;
	u64 number;

	spin_lock_irq(&e->lock);
	at = scnprintf(buf, size, "%llu", e->last);
	number = e->last > DTM_EVENTS ? e->last - DTM_EVENTS : 0;
	for (number = max(number, min(since, e->last)) + 1; number <= e->last; number++) {
		const enum dtm_cause cause = e->ring[number % DTM_EVENTS].cause;
		const u64 value = e->ring[number % DTM_EVENTS].value;

		at += scnprintf(buf + at, size - at, "\n%llu %lld %s ", number,
				e->ring[number % DTM_EVENTS].time_ns, cause_text(cause));
		if (cause == DTM_CAUSE_MODE)
			at += scnprintf(buf + at, size - at, "%s",
					dtm_mode_text((enum dtm_mode)value));
		else
			at += scnprintf(buf + at, size - at, "%llu", value);
	}
	spin_unlock_irq(&e->lock);
	return at + 1 < size;
}
