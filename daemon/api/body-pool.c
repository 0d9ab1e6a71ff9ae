// SPDX-License-Identifier: GPL-2.0-or-later
/* Bodies of requests about pools. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/body.h"
#include "logic/json.h"
#include "logic/policy.h"

static int read_backing(json_t *object, struct tm_pool_record *record, struct tm_error *err)
{
	const char *kind = NULL, *directory = NULL;
	struct tm_json_reader r;
	int got;

	tm_json_reader_init(&r, object, "/backing", err);
	got = tm_json_get_string(&r, "kind", &kind);
	(void)tm_json_require(&r, "kind", got);
	got = tm_json_get_string(&r, "directory", &directory);
	(void)tm_json_require(&r, "directory", got);
	(void)tm_json_get_bool(&r, "sparse", &record->sparse);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;

	if (strcmp(kind, "file") != 0) {
		(void)tm_error_field(err, TM_ERR_UNSUPPORTED, "/backing/kind",
				     "There is no backing of kind \"%.32s\".", kind);
		tm_error_hint(err, "Use \"file\".");
		return -EINVAL;
	}
	record->backing = TM_BACKING_FILE;
	if (tm_path_check(directory, "/backing/directory", err) < 0)
		return -EINVAL;
	(void)snprintf(record->directory, sizeof(record->directory), "%s", directory);
	return 0;
}

static int read_when_full(const char *text, enum tm_when_full *ret, struct tm_error *err)
{
	if (tm_when_full_parse(text, ret) == 0)
		return 0;
	return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/when_full",
			      "when_full is \"%.32s\", it must be \"queue\" or \"error\".", text);
}

/* Asked for by name, so what it needs has to be there. */
static int check_passdown(const struct tm_pool_record *record, struct tm_error *err)
{
	if (!record->discard_passdown)
		return 0;
	if (!record->discard)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/discard_passdown",
				      "discard_passdown needs discard.");
	if (record->sparse)
		return 0;
	/* Punching holes would give away the space that preallocation secures. */
	(void)tm_error_field(err, TM_ERR_UNSUPPORTED, "/discard_passdown",
			     "A preallocated backing keeps its space: discards cannot reach it.");
	tm_error_hint(err, "Leave discard_passdown out, or make the backing sparse.");
	return -EINVAL;
}

int tm_body_pool_create(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	struct tm_pool_record *record = &cmd->pool_create.record;
	json_t *backing = NULL, *policy = NULL;
	const char *name = NULL, *when_full = NULL;
	struct tm_json_reader r;
	uint64_t block = 0;
	int got, passdown_given;

	cmd->kind = TM_CMD_POOL_CREATE;
	*record = (struct tm_pool_record){
		.zeroing = true,
		.discard = true,
		.when_full = TM_WHEN_FULL_QUEUE,
	};
	tm_policy_default(&record->policy);
	cmd->pool_create.activate = true;

	tm_json_reader_init(&r, body, "", err);
	got = tm_json_get_string(&r, "name", &name);
	(void)tm_json_require(&r, "name", got);
	got = tm_json_get_object(&r, "backing", &backing);
	(void)tm_json_require(&r, "backing", got);
	got = tm_json_get_uint(&r, "data_size", TM_DATA_MIN_BYTES, TM_DATA_MAX_BYTES,
			       &record->data_bytes);
	(void)tm_json_require(&r, "data_size", got);
	(void)tm_json_get_uint(&r, "metadata_size", TM_METADATA_MIN_BYTES, TM_METADATA_MAX_BYTES,
			       &record->metadata_bytes);
	(void)tm_json_get_uint(&r, "block_size", TM_BLOCK_SIZE_MIN, TM_BLOCK_SIZE_MAX, &block);
	(void)tm_json_get_bool(&r, "zeroing", &record->zeroing);
	(void)tm_json_get_bool(&r, "discard", &record->discard);
	passdown_given = tm_json_get_bool(&r, "discard_passdown", &record->discard_passdown);
	(void)tm_json_get_string(&r, "when_full", &when_full);
	(void)tm_json_get_object(&r, "policy", &policy);
	(void)tm_json_get_bool(&r, "activate", &cmd->pool_create.activate);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;

	if (tm_name_check(name, "pool", "/name", err) < 0)
		return -EINVAL;
	(void)snprintf(record->name, sizeof(record->name), "%s", name);
	if (read_backing(backing, record, err) < 0)
		return -EINVAL;
	if (block && tm_block_size_check(block, "/block_size", err) < 0)
		return -EINVAL;
	record->block_bytes = (uint32_t)block;
	if (passdown_given != 1)
		record->discard_passdown = record->discard && record->sparse;
	else if (check_passdown(record, err) < 0)
		return -EINVAL;
	if (when_full && read_when_full(when_full, &record->when_full, err) < 0)
		return -EINVAL;
	if (policy)
		return tm_policy_from_json(policy, "/policy", &record->policy, err);
	return 0;
}

int tm_body_pool_import(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	const char *directory = NULL;
	struct tm_json_reader r;
	int got;

	cmd->kind = TM_CMD_POOL_IMPORT;
	cmd->pool_import.activate = true;
	tm_json_reader_init(&r, body, "", err);
	got = tm_json_get_string(&r, "directory", &directory);
	(void)tm_json_require(&r, "directory", got);
	(void)tm_json_get_bool(&r, "activate", &cmd->pool_import.activate);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (tm_path_check(directory, "/directory", err) < 0)
		return -EINVAL;
	(void)snprintf(cmd->pool_import.directory, sizeof(cmd->pool_import.directory), "%s",
		       directory);
	return 0;
}

int tm_body_pool_repair(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	struct tm_json_reader r;

	cmd->kind = TM_CMD_POOL_REPAIR;
	cmd->pool_repair.force = false;
	tm_json_reader_init(&r, body, "", err);
	(void)tm_json_get_bool(&r, "force", &cmd->pool_repair.force);
	return tm_json_reader_finish(&r);
}

int tm_body_pool_check(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	struct tm_json_reader r;

	cmd->kind = TM_CMD_POOL_CHECK;
	cmd->pool_check.copy = false;
	tm_json_reader_init(&r, body, "", err);
	(void)tm_json_get_bool(&r, "copy", &cmd->pool_check.copy);
	return tm_json_reader_finish(&r);
}

int tm_body_pool_restore(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	const char *copy = NULL;
	struct tm_json_reader r;
	int got;

	cmd->kind = TM_CMD_POOL_RESTORE;
	cmd->pool_restore.force = false;
	tm_json_reader_init(&r, body, "", err);
	got = tm_json_get_string(&r, "copy", &copy);
	(void)tm_json_require(&r, "copy", got);
	(void)tm_json_get_bool(&r, "force", &cmd->pool_restore.force);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (!tm_copy_name_valid(copy))
		return tm_error_field(err, TM_ERR_BAD_NAME, "/copy",
				      "\"%.64s\" is not the name of kept metadata.", copy);
	(void)snprintf(cmd->pool_restore.copy, sizeof(cmd->pool_restore.copy), "%s", copy);
	return 0;
}

int tm_body_pool_extend(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	struct tm_json_reader r;

	cmd->kind = TM_CMD_POOL_EXTEND;
	cmd->pool_extend.data_bytes = 0;
	cmd->pool_extend.metadata_bytes = 0;
	tm_json_reader_init(&r, body, "", err);
	(void)tm_json_get_uint(&r, "data_size", TM_DATA_MIN_BYTES, TM_DATA_MAX_BYTES,
			       &cmd->pool_extend.data_bytes);
	(void)tm_json_get_uint(&r, "metadata_size", TM_METADATA_MIN_BYTES, TM_METADATA_MAX_BYTES,
			       &cmd->pool_extend.metadata_bytes);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (!cmd->pool_extend.data_bytes && !cmd->pool_extend.metadata_bytes)
		return tm_error_field(err, TM_ERR_MISSING_FIELD, "/data_size",
				      "Neither data_size nor metadata_size is given.");
	return 0;
}

int tm_body_policy_patch(json_t *body, const struct tm_policy *current, struct tm_command *cmd,
			 struct tm_error *err)
{
	json_t *rest, *when_full;
	int r = 0;

	cmd->kind = TM_CMD_POOL_POLICY;
	cmd->pool_policy.policy = *current;
	cmd->pool_policy.when_full_valid = false;
	if (json_object_size(body) == 0)
		return tm_error_field(err, TM_ERR_MISSING_FIELD, "", "The body names no change.");

	/* when_full is the pool's, not the policy's: taken out before the policy is read strictly.
	 */
	when_full = json_object_get(body, "when_full");
	if (when_full) {
		if (!json_is_string(when_full))
			return tm_error_field(err, TM_ERR_WRONG_TYPE, "/when_full",
					      "when_full must be a string.");
		r = read_when_full(json_string_value(when_full), &cmd->pool_policy.when_full, err);
		if (r < 0)
			return r;
		cmd->pool_policy.when_full_valid = true;
	}
	rest = json_copy(body);
	if (!rest)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	if (when_full)
		(void)json_object_del(rest, "when_full");
	r = tm_policy_from_json(rest, "", &cmd->pool_policy.policy, err);
	if (r >= 0) {
		cmd->pool_policy.patch = json_dumps(rest, JSON_COMPACT);
		if (!cmd->pool_policy.patch)
			r = tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	}
	json_decref(rest);
	return r;
}
