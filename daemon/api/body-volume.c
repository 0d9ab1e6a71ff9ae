// SPDX-License-Identifier: GPL-2.0-or-later
/* Bodies of requests about volumes and snapshots. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/body.h"
#include "logic/json.h"
#include "logic/policy.h"

int tm_body_volume_create(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	const char *name = NULL;
	struct tm_json_reader r;
	int got;

	cmd->kind = TM_CMD_VOLUME_CREATE;
	cmd->volume_create.activate = true;
	tm_json_reader_init(&r, body, "", err);
	got = tm_json_get_string(&r, "name", &name);
	(void)tm_json_require(&r, "name", got);
	got = tm_json_get_uint(&r, "size", TM_VOLUME_MIN_BYTES, TM_VOLUME_MAX_BYTES,
			       &cmd->volume_create.size_bytes);
	(void)tm_json_require(&r, "size", got);
	(void)tm_json_get_bool(&r, "activate", &cmd->volume_create.activate);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (tm_name_check(name, "volume", "/name", err) < 0)
		return -EINVAL;
	(void)snprintf(cmd->volume_create.name, sizeof(cmd->volume_create.name), "%s", name);
	return 0;
}

int tm_body_volume_patch(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	const char *name = NULL;
	struct tm_json_reader r;
	uint64_t size = 0;
	bool shrink = false;
	int has_shrink;

	tm_json_reader_init(&r, body, "", err);
	(void)tm_json_get_uint(&r, "size", TM_VOLUME_MIN_BYTES, TM_VOLUME_MAX_BYTES, &size);
	has_shrink = tm_json_get_bool(&r, "shrink", &shrink);
	(void)tm_json_get_string(&r, "name", &name);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;

	if (name && size) {
		(void)tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/name",
				     "size and name cannot be changed in one request.");
		tm_error_hint(err, "Resize first, then rename.");
		return -EINVAL;
	}
	if (has_shrink && !size)
		return tm_error_field(err, TM_ERR_MISSING_FIELD, "/size", "shrink needs a size.");
	if (size) {
		cmd->kind = TM_CMD_VOLUME_RESIZE;
		cmd->volume_resize.size_bytes = size;
		cmd->volume_resize.shrink = shrink;
		return 0;
	}
	if (!name)
		return tm_error_field(err, TM_ERR_MISSING_FIELD, "/size",
				      "Neither size nor name is given.");
	if (tm_name_check(name, "volume", "/name", err) < 0)
		return -EINVAL;
	cmd->kind = TM_CMD_VOLUME_RENAME;
	(void)snprintf(cmd->volume_rename.name, sizeof(cmd->volume_rename.name), "%s", name);
	return 0;
}

static int read_item(json_t *object, size_t index, struct tm_snapshot_item *item,
		     struct tm_error *err)
{
	const char *volume = NULL, *name = NULL;
	struct tm_json_reader r;
	struct tm_uuid id;
	char prefix[48], field[64];
	int got;

	(void)snprintf(prefix, sizeof(prefix), "/snapshots/%zu", index);
	if (!json_is_object(object))
		return tm_error_field(err, TM_ERR_WRONG_TYPE, prefix, "%s must be an object.",
				      prefix + 1);
	tm_json_reader_init(&r, object, prefix, err);
	got = tm_json_get_string(&r, "volume", &volume);
	(void)tm_json_require(&r, "volume", got);
	got = tm_json_get_string(&r, "name", &name);
	(void)tm_json_require(&r, "name", got);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;

	(void)snprintf(field, sizeof(field), "%s/volume", prefix);
	if (tm_uuid_parse(volume, &id) < 0 && tm_name_check(volume, "volume", field, err) < 0)
		return -EINVAL;
	(void)snprintf(field, sizeof(field), "%s/name", prefix);
	if (tm_name_check(name, "snapshot", field, err) < 0)
		return -EINVAL;
	(void)snprintf(item->volume, sizeof(item->volume), "%s", volume);
	(void)snprintf(item->name, sizeof(item->name), "%s", name);
	return 0;
}

/* Two snapshots of one request cannot have one name. (One volume may be named twice.) */
static int check_names(const struct tm_snapshot_item *items, size_t n, struct tm_error *err)
{
	for (size_t i = 1; i < n; i++) {
		for (size_t j = 0; j < i; j++) {
			char field[64];

			if (strcmp(items[i].name, items[j].name) != 0)
				continue;
			(void)snprintf(field, sizeof(field), "/snapshots/%zu/name", i);
			return tm_error_field(err, TM_ERR_BAD_NAME, field,
					      "The name %s is asked for twice.", items[i].name);
		}
	}
	return 0;
}

int tm_body_snapshot_create(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	struct tm_json_reader r;
	json_t *array = NULL;
	size_t n;
	int got, result;

	cmd->kind = TM_CMD_SNAPSHOT_CREATE;
	cmd->snapshot.items = NULL;
	cmd->snapshot.n_items = 0;
	cmd->snapshot.activate = false;
	cmd->snapshot.read_only = false;
	tm_json_reader_init(&r, body, "", err);
	got = tm_json_get_array(&r, "snapshots", &array);
	(void)tm_json_require(&r, "snapshots", got);
	(void)tm_json_get_bool(&r, "activate", &cmd->snapshot.activate);
	(void)tm_json_get_bool(&r, "read_only", &cmd->snapshot.read_only);
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;

	n = json_array_size(array);
	if (n < 1 || n > TM_SNAPSHOTS_MAX)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/snapshots",
				      "snapshots has %zu items, it must have 1 to %d.", n,
				      TM_SNAPSHOTS_MAX);
	cmd->snapshot.items = calloc(n, sizeof(*cmd->snapshot.items));
	if (!cmd->snapshot.items)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	cmd->snapshot.n_items = n;
	for (size_t i = 0; i < n; i++) {
		result = read_item(json_array_get(array, i), i, &cmd->snapshot.items[i], err);
		if (result < 0)
			return result;
	}
	return check_names(cmd->snapshot.items, n, err);
}
