/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See suspect.h. */

#include "logic/suspect.h"

#define NSEC_PER_USEC 1000

enum tm_suspicion tm_suspect_by_status(const struct tm_thin_pool_status *status)
{
	if (status->failed || status->mode == TM_MODE_FAIL)
		return TM_SUSPECT_FAIL;
	if (status->needs_check || status->mode == TM_MODE_READ_ONLY)
		return TM_SUSPECT_READ_ONLY;
	/* The kernel says so as well once writes have waited for too long. */
	if (status->mode == TM_MODE_OUT_OF_DATA_SPACE && status->error_if_no_space)
		return TM_SUSPECT_NO_SPACE;
	return TM_SUSPECT_NOT;
}

static enum tm_suspicion by_event(const struct tm_kernel_event *e, enum tm_when_full when_full)
{
	switch (e->cause) {
	case TM_CAUSE_NO_SPACE_TIMEOUT:
		return TM_SUSPECT_NO_SPACE;
	case TM_CAUSE_NEEDS_CHECK:
		return TM_SUSPECT_READ_ONLY;
	case TM_CAUSE_MODE:
		break;
	default:
		return TM_SUSPECT_NOT;
	}
	switch (e->mode) {
	case TM_MODE_FAIL:
		return TM_SUSPECT_FAIL;
	case TM_MODE_READ_ONLY:
		return TM_SUSPECT_READ_ONLY;
	case TM_MODE_OUT_OF_DATA_SPACE:
		return when_full == TM_WHEN_FULL_ERROR ? TM_SUSPECT_NO_SPACE : TM_SUSPECT_NOT;
	case TM_MODE_WRITE:
		break;
	}
	return TM_SUSPECT_NOT;
}

enum tm_suspicion tm_suspect_by_events(const struct tm_kernel_events *events, uint64_t floor_ns,
				       enum tm_when_full when_full, uint64_t *ret_usec)
{
	enum tm_suspicion found = TM_SUSPECT_NOT;

	*ret_usec = 0;
	for (size_t i = 0; i < events->n; i++) {
		const struct tm_kernel_event *e = &events->list[i];
		enum tm_suspicion s = e->time_ns >= floor_ns ? by_event(e, when_full)
							     : TM_SUSPECT_NOT;

		if (s == TM_SUSPECT_NOT)
			continue;
		found = s > found ? s : found;
		*ret_usec = e->time_ns / NSEC_PER_USEC;
	}
	return found;
}

bool tm_suspect_by_fate(enum tm_fate fate)
{
	return fate != TM_FATE_INTACT;
}

bool tm_suspect_touches(const struct tm_volume_record *volume, uint64_t happened_usec)
{
	if (volume->suspect != TM_SUSPECT_NOT || !volume->active || volume->read_only)
		return false;
	return !happened_usec ||
	       (volume->created_usec <= happened_usec && volume->suspect_usec <= happened_usec);
}
