// SPDX-License-Identifier: GPL-2.0-or-later
/* What all documents are made of, and those of the system and of records. */

#include <stdint.h>
#include <stdio.h>

#include "api/encode.h"
#include "api/problem.h"
#include "common/fsutil.h"

json_t *tm_encode_uint(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

json_t *tm_encode_time(uint64_t realtime_usec)
{
	char buf[40];

	return realtime_usec ? json_string(tm_time_format(realtime_usec, buf, sizeof(buf)))
			     : json_null();
}

json_t *tm_encode_text(const char *text)
{
	return text[0] ? tm_json_text(text) : json_null();
}

json_t *tm_encode_list(json_t *items, const char *next)
{
	return json_pack("{s:o, s:s?}", "items", items, "next", next);
}

static json_t *encode_target(const struct tm_system_view *system)
{
	if (!system->target_version[0])
		return json_null();
	return json_pack("{s:o, s:o, s:o}", "module", tm_json_text(system->target_module),
			 "version", tm_json_text(system->target_version), "origin",
			 tm_json_text(system->target_origin));
}

json_t *tm_encode_system(const struct tm_view *view)
{
	const struct tm_system_view *system = &view->system;
	json_t *tools = json_array(), *degraded = json_array(), *kernel;

	for (size_t i = 0; i < system->n_tools; i++)
		(void)json_array_append_new(
			tools, json_pack("{s:o, s:o}", "name", tm_json_text(system->tools[i].name),
					 "path", tm_encode_text(system->tools[i].path)));
	for (size_t i = 0; i < system->n_degraded; i++)
		(void)json_array_append_new(degraded, tm_json_text(system->degraded[i]));
	kernel = json_pack("{s:o, s:o, s:o}", "release", tm_json_text(system->kernel_release),
			   "target", encode_target(system), "no_space_timeout",
			   system->no_space_timeout_seconds < 0
				   ? json_null()
				   : json_integer(system->no_space_timeout_seconds));
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "version",
			 tm_json_text(system->version), "started",
			 tm_encode_time(system->started_usec), "kernel", kernel, "tools", tools,
			 "degraded", degraded, "ready", system->ready, "pools",
			 tm_encode_uint(view->n_pools));
}

json_t *tm_encode_operation(const struct tm_operation_record *op)
{
	char instance[64];
	json_t *error;

	(void)snprintf(instance, sizeof(instance), "/v1/operations/%s", op->id.text);
	error = op->status == TM_OP_FAILED ? tm_problem_to_json(&op->error, instance) : json_null();
	return json_pack(
		"{s:o, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o}", "id",
		tm_encode_text(op->id.text), "kind", op->kind, "pool",
		tm_encode_text(op->pool_name), "volume", tm_encode_text(op->volume_name), "status",
		tm_op_status_name(op->status), "step", tm_encode_uint(op->step), "steps",
		tm_encode_uint(op->n_steps), "step_name", tm_encode_text(op->step_name), "percent",
		op->live && op->percent >= 0 ? json_integer(op->percent) : json_null(),
		"cancellable", (int)(op->live && op->cancellable), "error", error, "created",
		tm_encode_time(op->created_usec), "started", tm_encode_time(op->started_usec),
		"finished", tm_encode_time(op->finished_usec));
}

json_t *tm_encode_event(const struct tm_event *event)
{
	json_t *data = NULL;

	/* Our own text from the store; one that cannot be read is left out rather than the event.
	 */
	if (event->data)
		data = json_loads(event->data, JSON_REJECT_DUPLICATES, NULL);
	if (data && !json_is_object(data)) {
		json_decref(data);
		data = NULL;
	}
	return json_pack("{s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o?}", "seq",
			 tm_encode_uint(event->seq), "time", tm_encode_time(event->time_usec),
			 "type", tm_event_slug(event->type), "severity",
			 tm_severity_name(tm_event_severity(event->type)), "pool",
			 tm_encode_text(event->pool_name), "pool_id",
			 tm_encode_text(event->pool.text), "volume",
			 tm_encode_text(event->volume_name), "operation",
			 tm_encode_text(event->operation), "message", tm_json_text(event->message),
			 "data", data);
}

json_t *tm_encode_sample(const struct tm_sample *sample)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "time",
			 tm_encode_time(sample->time_usec), "data_used",
			 tm_encode_uint(sample->data_used_bytes), "data_used_max",
			 tm_encode_uint(sample->data_used_max_bytes), "data_size",
			 tm_encode_uint(sample->data_total_bytes), "metadata_used",
			 tm_encode_uint(sample->metadata_used_bytes), "metadata_size",
			 tm_encode_uint(sample->metadata_total_bytes), "mode",
			 tm_mode_name(sample->mode), "count", tm_encode_uint(sample->count));
}
