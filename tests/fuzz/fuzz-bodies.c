// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz request bodies: the first byte says which request, the rest is its body. A command that
 * comes out has to hold what the core takes for granted.
 */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/body.h"
#include "logic/json.h"
#include "logic/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_policy(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	struct tm_policy policy;

	tm_policy_default(&policy);
	return tm_body_policy_patch(body, &policy, cmd, err);
}

static void check_policy(const struct tm_policy *policy)
{
	struct tm_policy again;
	json_t *text;

	assert(tm_policy_check(policy, "", NULL) == 0);
	/* What is written is read as the same. */
	text = tm_policy_to_json(policy);
	tm_policy_default(&again);
	assert(text && tm_policy_from_json(text, "", &again, NULL) == 0);
	assert(again.data.maximum_bytes == policy->data.maximum_bytes);
	assert(again.metadata.step_min_bytes == policy->metadata.step_min_bytes);
	assert(again.sample_seconds == policy->sample_seconds);
	json_decref(text);
}

static void check_create(const struct tm_pool_record *record)
{
	assert(tm_name_valid(record->name));
	assert(tm_path_check(record->directory, "", NULL) == 0);
	assert(record->data_bytes >= TM_DATA_MIN_BYTES && record->data_bytes <= TM_DATA_MAX_BYTES);
	assert(!record->metadata_bytes || record->metadata_bytes >= TM_METADATA_MIN_BYTES);
	assert(!record->block_bytes || tm_block_size_check(record->block_bytes, "", NULL) == 0);
	assert((record->discard && record->sparse) || !record->discard_passdown);
	check_policy(&record->policy);
}

static void check(const struct tm_command *cmd)
{
	struct tm_uuid id;

	switch (cmd->kind) {
	case TM_CMD_POOL_CREATE:
		check_create(&cmd->pool_create.record);
		break;
	case TM_CMD_POOL_IMPORT:
		assert(tm_path_check(cmd->pool_import.directory, "", NULL) == 0);
		break;
	case TM_CMD_POOL_REPAIR:
	case TM_CMD_POOL_CHECK:
		break;
	case TM_CMD_POOL_EXTEND:
		assert(cmd->pool_extend.data_bytes || cmd->pool_extend.metadata_bytes);
		break;
	case TM_CMD_POOL_RESTORE:
		assert(tm_copy_name_valid(cmd->pool_restore.copy));
		break;
	case TM_CMD_POOL_POLICY:
		check_policy(&cmd->pool_policy.policy);
		break;
	case TM_CMD_VOLUME_CREATE:
		assert(tm_name_valid(cmd->volume_create.name));
		assert(cmd->volume_create.size_bytes >= TM_VOLUME_MIN_BYTES);
		break;
	case TM_CMD_VOLUME_RESIZE:
		assert(cmd->volume_resize.size_bytes >= TM_VOLUME_MIN_BYTES);
		break;
	case TM_CMD_VOLUME_RENAME:
		assert(tm_name_valid(cmd->volume_rename.name));
		break;
	case TM_CMD_SNAPSHOT_CREATE:
		assert(cmd->snapshot.n_items >= 1 && cmd->snapshot.n_items <= TM_SNAPSHOTS_MAX);
		for (size_t i = 0; i < cmd->snapshot.n_items; i++) {
			const struct tm_snapshot_item *item = &cmd->snapshot.items[i];

			assert(tm_name_valid(item->name));
			assert(tm_name_valid(item->volume) ||
			       tm_uuid_parse(item->volume, &id) == 0);
		}
		break;
	default:
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int (*const readers[])(json_t *, struct tm_command *, struct tm_error *) = {
		tm_body_pool_create,     tm_body_pool_import,
		tm_body_pool_extend,     read_policy,
		tm_body_volume_create,   tm_body_volume_patch,
		tm_body_snapshot_create, tm_body_pool_repair,
		tm_body_pool_restore,    tm_body_pool_check,
	};
	struct tm_error err = { 0 };
	struct tm_command *cmd;
	json_t *body;
	int r;

	if (!size)
		return 0;
	body = tm_json_parse((const char *)data + 1, size - 1, &err);
	if (!body) {
		assert(err.code != TM_OK);
		return 0;
	}
	cmd = calloc(1, sizeof(*cmd));
	if (!cmd)
		abort();
	r = readers[data[0] % TM_ARRAY_SIZE(readers)](body, cmd, &err);
	json_decref(body);
	assert((r == 0) == (err.code == TM_OK));
	if (r == 0)
		check(cmd);
	(void)tm_command_free(cmd);
	return 0;
}
