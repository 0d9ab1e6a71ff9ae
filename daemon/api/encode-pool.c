// SPDX-License-Identifier: GPL-2.0-or-later
/* Documents of pools and volumes. */

#include "api/encode.h"
#include "api/problem.h"
#include "common/units.h"
#include "logic/json.h"

static const char *verdict_name(enum tm_extend_verdict verdict)
{
	switch (verdict) {
	case TM_EXTEND_NOW:
		return "extend";
	case TM_EXTEND_DISABLED:
		return "disabled";
	case TM_EXTEND_AT_MAXIMUM:
		return "at_maximum";
	case TM_EXTEND_NO_BACKING:
		return "no_backing";
	case TM_EXTEND_FROZEN:
		return "frozen";
	case TM_EXTEND_NOT_NEEDED:
		break;
	}
	return "not_needed";
}

static json_t *encode_latency(const struct tm_latency *latency)
{
	if (!latency->count)
		return json_pack("{s:n, s:n, s:n, s:i}", "last", "median", "slowest", "count", 0);
	return json_pack("{s:o, s:o, s:o, s:o}", "last", tm_encode_uint(latency->last_usec),
			 "median", tm_encode_uint(tm_latency_median(latency)), "slowest",
			 tm_encode_uint(tm_latency_slowest(latency)), "count",
			 tm_encode_uint(latency->count));
}

/* What a space is made of; the used size is only known from a look at the active pool. */
struct space {
	uint64_t size, used, reserve;
	bool used_valid;
};

static json_t *encode_space(const struct space *space, const struct tm_extend_view *extend)
{
	uint64_t left = space->size > space->used ? space->size - space->used : 0;

	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "size",
			 tm_encode_uint(space->size), "used",
			 space->used_valid ? tm_encode_uint(space->used) : json_null(), "free",
			 space->used_valid ? tm_encode_uint(left) : json_null(), "reserve",
			 tm_encode_uint(space->reserve), "low_water",
			 tm_encode_uint(extend->low_water_bytes), "extensions",
			 tm_encode_uint(extend->extensions), "write_rate",
			 tm_encode_uint(extend->rate_bytes_per_sec), "reaction_usec",
			 encode_latency(&extend->reaction), "verdict",
			 verdict_name(extend->verdict));
}

static json_t *encode_queueing(const struct tm_pool_view *pool)
{
	if (!pool->queueing_since_usec)
		return json_null();
	return json_pack("{s:o, s:o}", "since", tm_encode_time(pool->queueing_since_usec), "until",
			 tm_encode_time(pool->queueing_until_usec));
}

static json_t *encode_repair_waits_for(const struct tm_pool_view *pool)
{
	json_t *ret = pool->repair_waits_for ? json_loads(pool->repair_waits_for, 0, NULL) : NULL;

	return ret ? ret : json_null();
}

static json_t *encode_backing(const struct tm_pool_view *pool)
{
	return json_pack("{s:s, s:o, s:b, s:b, s:o}", "kind", "file", "directory",
			 tm_json_text(pool->record.directory), "sparse", pool->record.sparse,
			 "direct_io", pool->direct_io, "free",
			 tm_encode_uint(pool->backing_free_bytes));
}

json_t *tm_encode_pool(const struct tm_pool_view *pool)
{
	const struct tm_pool_record *record = &pool->record;
	const struct tm_thin_pool_status *status = &pool->status;
	bool active = pool->state == TM_POOL_ACTIVE || pool->state == TM_POOL_UNCERTAIN;
	bool looked = active && pool->status_valid;
	struct space data = {
		.size = record->data_bytes,
		.reserve = record->data_reserve_bytes,
	};
	struct space metadata = {
		.size = record->metadata_bytes,
		.reserve = record->metadata_reserve_bytes,
	};
	size_t suspect = 0;
	json_t *ret;

	for (size_t i = 0; i < pool->n_volumes; i++)
		suspect += pool->volumes[i].record.suspect != TM_SUSPECT_NOT;
	if (looked && !status->failed) {
		data.used_valid = true;
		data.size = tm_sat_mul(status->data_total, record->block_bytes);
		data.used = tm_sat_mul(status->data_used, record->block_bytes);
		metadata.used_valid = true;
		metadata.size = tm_sat_mul(status->metadata_total, TM_METADATA_BLOCK);
		metadata.used = tm_sat_mul(status->metadata_used, TM_METADATA_BLOCK);
	}
	ret = json_pack(
		"{s:s, s:s, s:s, s:o, s:s?, s:b, s:o, s:o, s:b, s:b, s:b, s:s}", "id",
		record->id.text, "name", record->name, "state", tm_pool_state_name(pool->state),
		"state_reason", tm_encode_text(pool->state_reason), "mode",
		!looked          ? NULL
		: status->failed ? tm_mode_name(TM_MODE_FAIL)
				 : tm_mode_name(status->mode),
		"needs_check", looked && !status->failed && status->needs_check, "backing",
		encode_backing(pool), "block_size", tm_encode_uint(record->block_bytes), "zeroing",
		record->zeroing, "discard", record->discard, "discard_passdown",
		record->discard_passdown, "when_full", tm_when_full_name(record->when_full));
	if (ret &&
	    json_object_update_new(
		    ret,
		    json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
			      "data", encode_space(&data, &pool->data), "metadata",
			      encode_space(&metadata, &pool->metadata), "virtual_size",
			      tm_encode_uint(pool->virtual_bytes), "volumes",
			      tm_encode_uint(pool->n_volumes), "suspect_volumes",
			      tm_encode_uint(suspect), "transaction_id",
			      tm_encode_uint(record->transaction_id), "queueing",
			      encode_queueing(pool), "repair_waits_for",
			      encode_repair_waits_for(pool), "policy",
			      tm_policy_to_json(&record->policy), "checked",
			      tm_encode_time(record->checked_usec), "copied",
			      tm_encode_time(record->copied_usec), "created",
			      tm_encode_time(record->created_usec), "generation",
			      tm_encode_uint(pool->generation))) < 0) {
		json_decref(ret);
		ret = NULL;
	}
	return ret;
}

json_t *tm_encode_pool_policy(const struct tm_pool_view *pool)
{
	json_t *ret = tm_policy_to_json(&pool->record.policy);

	if (ret &&
	    json_object_set_new(ret, "when_full",
				json_string(tm_when_full_name(pool->record.when_full))) < 0) {
		json_decref(ret);
		ret = NULL;
	}
	return ret;
}

static json_t *encode_suspect(const struct tm_volume_record *record)
{
	if (record->suspect == TM_SUSPECT_NOT)
		return json_null();
	return json_pack("{s:s, s:o}", "reason", tm_suspicion_name(record->suspect), "since",
			 tm_encode_time(record->suspect_usec));
}

json_t *tm_encode_volume(const struct tm_pool_view *pool, const struct tm_volume_view *volume)
{
	const struct tm_volume_record *record = &volume->record;

	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:b, s:o, s:o, s:o, s:o}", "id",
			 record->id.text, "name", record->name, "pool", pool->record.name, "size",
			 tm_encode_uint(record->size_bytes), "mapped",
			 volume->mapped_valid ? tm_encode_uint(volume->mapped_bytes) : json_null(),
			 "origin", tm_encode_text(volume->origin_name), "origin_id",
			 tm_encode_text(record->origin.text), "active", volume->active, "read_only",
			 record->read_only, "device", tm_encode_text(volume->device), "dev_id",
			 tm_encode_uint(record->dev_id), "suspect", encode_suspect(record),
			 "created", tm_encode_time(record->created_usec));
}

json_t *tm_encode_copy(const struct tm_copy *copy)
{
	const bool dump = tm_copy_is_dump(copy);

	return json_pack("{s:s, s:o, s:s, s:s, s:b, s:o}", "name", copy->name, "time",
			 tm_encode_time(copy->kept_usec), "why", tm_copy_why(copy), "kind",
			 dump ? "dump" : "image", "compressed", (int)dump, "bytes",
			 tm_encode_uint(copy->bytes));
}
