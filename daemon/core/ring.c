/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What our target remembers of a pool, and its status does not show: when it spoke up, and modes
 * that began and ended between two looks. Asked for when all that is urgent is done; a pool whose
 * target does not answer, or not as expected, is managed by its status alone.
 */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "logic/suspect.h"

void tm_ring_ask(struct tm_core *core, const char *pool_name, uint64_t since,
		 struct tm_ring_answer *ret)
{
	char name[TM_DM_NAME_SIZE], message[32];
	tm_auto_free char *text = NULL;

	ret->asked = true;
	tm_dm_name(name, TM_ROLE_POOL, pool_name, NULL);
	(void)snprintf(message, sizeof(message), "events %" PRIu64, since);
	if (tm_dm_ask(core->dm, name, message, &text, &ret->error) < 0)
		return;
	if (tm_kernel_events_parse(text, since, &ret->events) < 0)
		(void)tm_error_set(&ret->error, TM_ERR_KERNEL, EBADMSG,
				   "the answer to the message \"%s\" makes no sense: \"%.80s\"",
				   message, text);
	else
		ret->valid = true;
}

bool tm_ring_there(struct tm_core *core, const char *pool_name)
{
	char name[TM_DM_NAME_SIZE];
	tm_auto_free char *text = NULL;
	int r;

	tm_dm_name(name, TM_ROLE_POOL, pool_name, NULL);
	r = tm_dm_ask(core->dm, name, "events 0", &text, NULL);
	/* The distribution's knows no such message, and in some modes none at all. */
	return r != -EINVAL && r != -EOPNOTSUPP;
}

static json_t *times(const struct tm_kernel_spell *s, char began[32], char ended[32])
{
	(void)tm_time_format(s->began_ns / 1000, began, 32);
	(void)tm_time_format(s->ended_ns / 1000, ended, 32);
	return json_pack("{s:s, s:s}", "began", began, "ended", ended);
}

/* Takes both. */
static char *joined(json_t *json, json_t *more)
{
	char *text = NULL;

	if (json && more && json_object_update(json, more) == 0)
		text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	json_decref(more);
	return text;
}

static char *mode_data(const struct tm_kernel_spell *s, enum tm_pool_mode from,
		       enum tm_pool_mode to, char began[32], char ended[32])
{
	return joined(json_pack("{s:s, s:s}", "from", tm_mode_name(from), "to", tm_mode_name(to)),
		      times(s, began, ended));
}

/* @followed: the next one to be told began as this ended. */
static void tell_spell(struct tm_pool *pool, const struct tm_kernel_spell *s, bool followed)
{
	struct tm_event_spec spec = { .type = TM_EVENT_MODE_CHANGED, .pool = pool };
	char began[32], ended[32];

	spec.data = mode_data(s, s->before, s->mode, began, ended);
	tm_record_event(pool->core, &spec, "Pool %s was in mode %s from %s to %s.",
			pool->record.name, tm_mode_name(s->mode), began, ended);
	if (s->mode == TM_MODE_OUT_OF_DATA_SPACE) {
		spec.type = TM_EVENT_OUT_OF_SPACE;
		spec.data = joined(json_pack("{s:n, s:b}", "until", "timed_out", (int)s->timed_out),
				   times(s, began, ended));
		tm_record_event(pool->core, &spec,
				s->timed_out
					? "Pool %s had no data space from %s to %s, and writes "
					  "that waited for it failed."
					: "Pool %s had no data space from %s to %s.",
				pool->record.name, began, ended);
	}
	if (followed)
		return;
	/* Who only follows the modes must not take it for the one it is in. */
	spec.type = TM_EVENT_MODE_CHANGED;
	spec.data = mode_data(s, s->mode, s->after, began, ended);
	tm_record_event(pool->core, &spec, "Pool %s went from mode %s to %s at %s.",
			pool->record.name, tm_mode_name(s->mode), tm_mode_name(s->after), ended);
}

void tm_ring_settle(struct tm_pool *pool, const struct tm_ring_answer *answer, unsigned int seen,
		    struct tm_kernel_news *ret)
{
	struct tm_log_fields fields = { .pool = pool->record.name, .error = &answer->error };
	enum tm_suspicion why;
	uint64_t happened;
	const int r = answer->error.code ? -answer->error.errnum : 0;

	*ret = (struct tm_kernel_news){ 0 };
	if (!answer->asked)
		return;
	if (!answer->valid) {
		/* A device that is gone is the look's to tell; the next answer will do. */
		if (r == -ENXIO || r == -ENOMEM)
			return;
		pool->ring_off = true;
		tm_log_fields(LOG_WARNING, &fields,
			      "The kernel's own record of what happened to pool %s cannot be read, "
			      "and thinmgrd goes on without it: %s",
			      pool->record.name, answer->error.detail);
		return;
	}
	if (answer->events.lost && pool->ring.since)
		tm_log_fields(LOG_NOTICE, &(struct tm_log_fields){ .pool = pool->record.name },
			      "More happened to pool %s than the kernel keeps: some of it is not "
			      "told.",
			      pool->record.name);
	why = tm_suspect_by_events(&answer->events, pool->ring.floor_ns, pool->record.when_full,
				   &happened);
	if (why != TM_SUSPECT_NOT && tm_pool_may_become_suspect(pool)) {
		tm_record_suspect(pool->core, pool, why, happened);
		tm_pool_suspect(pool, why, happened, happened);
	}
	tm_kernel_ring_follow(&pool->ring, &answer->events, seen, ret);
	for (size_t i = 0; i < ret->n_spells; i++)
		tell_spell(pool, &ret->spells[i],
			   i + 1 < ret->n_spells &&
				   ret->spells[i + 1].began_ns == ret->spells[i].ended_ns);
}
