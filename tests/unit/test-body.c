// SPDX-License-Identifier: GPL-2.0-or-later
/* Request bodies into commands. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/body.h"
#include "logic/json.h"

#define BACKING "\"backing\":{\"kind\":\"file\",\"directory\":\"/srv/tank\"}"
#define POOL    "\"name\":\"tank\"," BACKING ",\"data_size\":268435456"
#define ID      "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f"

typedef int (*reader)(json_t *body, struct tm_command *cmd, struct tm_error *err);

static struct tm_policy current;

static int policy_patch(json_t *body, struct tm_command *cmd, struct tm_error *err)
{
	return tm_body_policy_patch(body, &current, cmd, err);
}

/* A command, or NULL with *err. */
static struct tm_command *read_body(reader read, const char *text, struct tm_error *err)
{
	struct tm_command *cmd = calloc(1, sizeof(*cmd));
	json_t *body;
	int r;

	assert_non_null(cmd);
	*err = (struct tm_error){ 0 };
	body = tm_json_parse(text, strlen(text), err);
	if (!body)
		fail_msg("%s: %s", text, err->detail);
	r = read(body, cmd, err);
	json_decref(body);
	if (r == 0)
		return cmd;
	assert_true(r < 0);
	assert_int_not_equal(err->code, TM_OK);
	return tm_command_free(cmd);
}

static void makes_pools(void **state)
{
	struct tm_command *cmd;
	struct tm_policy policy;
	struct tm_error err;

	(void)state;
	cmd = read_body(tm_body_pool_create, "{" POOL "}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_CREATE);
	assert_string_equal(cmd->pool_create.record.name, "tank");
	assert_string_equal(cmd->pool_create.record.directory, "/srv/tank");
	assert_int_equal(cmd->pool_create.record.data_bytes, 268435456);
	assert_int_equal(cmd->pool_create.record.metadata_bytes, 0);
	assert_int_equal(cmd->pool_create.record.block_bytes, 0);
	assert_false(cmd->pool_create.record.sparse);
	assert_true(cmd->pool_create.record.zeroing);
	assert_true(cmd->pool_create.record.discard);
	assert_false(cmd->pool_create.record.discard_passdown);
	assert_int_equal(cmd->pool_create.record.when_full, TM_WHEN_FULL_QUEUE);
	assert_true(cmd->pool_create.activate);
	tm_policy_default(&policy);
	assert_memory_equal(&cmd->pool_create.record.policy, &policy, sizeof(policy));
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_pool_create,
			"{\"name\":\"a.b\",\"backing\":{\"kind\":\"file\",\"directory\":\"/x\","
			"\"sparse\":true},\"data_size\":16777216,\"metadata_size\":4194304,"
			"\"block_size\":131072,\"zeroing\":false,\"discard\":false,"
			"\"when_full\":\"error\",\"activate\":false,"
			"\"policy\":{\"data\":{\"maximum\":1610612736},\"sample_seconds\":7}}",
			&err);
	assert_non_null(cmd);
	assert_true(cmd->pool_create.record.sparse);
	assert_int_equal(cmd->pool_create.record.metadata_bytes, 4194304);
	assert_int_equal(cmd->pool_create.record.block_bytes, 131072);
	assert_false(cmd->pool_create.record.zeroing);
	assert_false(cmd->pool_create.record.discard);
	/* There is nothing to pass down. */
	assert_false(cmd->pool_create.record.discard_passdown);
	assert_int_equal(cmd->pool_create.record.when_full, TM_WHEN_FULL_ERROR);
	assert_false(cmd->pool_create.activate);
	assert_int_equal(cmd->pool_create.record.policy.data.maximum_bytes, 1610612736);
	assert_int_equal(cmd->pool_create.record.policy.sample_seconds, 7);
	assert_null(tm_command_free(cmd));
}

/* Not said: as the backing and discard are. Said: as said, where it can be. */
static void decides_passdown(void **state)
{
	static const struct {
		const char *sparse, *rest;
		bool passdown;
	} cases[] = {
		{ "false", "", false },
		{ "true", "", true },
		{ "true", ",\"discard\":false", false },
		{ "true", ",\"discard_passdown\":true", true },
		{ "true", ",\"discard_passdown\":false", false },
		{ "false", ",\"discard_passdown\":false", false },
		{ "false", ",\"discard\":false,\"discard_passdown\":false", false },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_command *cmd;
		struct tm_error err;
		char text[256];

		(void)snprintf(
			text, sizeof(text),
			"{\"name\":\"a\",\"backing\":{\"kind\":\"file\",\"directory\":\"/x\","
			"\"sparse\":%s},\"data_size\":16777216%s}",
			cases[i].sparse, cases[i].rest);
		cmd = read_body(tm_body_pool_create, text, &err);
		assert_non_null(cmd);
		assert_int_equal(cmd->pool_create.record.discard_passdown, cases[i].passdown);
		assert_null(tm_command_free(cmd));
	}
}

static void makes_others(void **state)
{
	struct tm_command *cmd;
	struct tm_error err;

	(void)state;
	cmd = read_body(tm_body_pool_import, "{\"directory\":\"/srv/tank\",\"activate\":false}",
			&err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_IMPORT);
	assert_string_equal(cmd->pool_import.directory, "/srv/tank");
	assert_false(cmd->pool_import.activate);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_pool_repair, "{\"force\":true}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_REPAIR);
	assert_true(cmd->pool_repair.force);
	assert_null(tm_command_free(cmd));
	cmd = read_body(tm_body_pool_repair, "{}", &err);
	assert_non_null(cmd);
	assert_false(cmd->pool_repair.force);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_pool_extend, "{\"metadata_size\":4194304}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_EXTEND);
	assert_int_equal(cmd->pool_extend.data_bytes, 0);
	assert_int_equal(cmd->pool_extend.metadata_bytes, 4194304);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_pool_check, "{\"copy\":true}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_CHECK);
	assert_true(cmd->pool_check.copy);
	assert_null(tm_command_free(cmd));
	cmd = read_body(tm_body_pool_check, "{}", &err);
	assert_non_null(cmd);
	assert_false(cmd->pool_check.copy);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_pool_restore,
			"{\"copy\":\"20261123T024512Z-repair\",\"force\":true}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_RESTORE);
	assert_string_equal(cmd->pool_restore.copy, "20261123T024512Z-repair");
	assert_true(cmd->pool_restore.force);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_volume_create, "{\"name\":\"home\",\"size\":4611686018427387904}",
			&err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_VOLUME_CREATE);
	assert_string_equal(cmd->volume_create.name, "home");
	assert_int_equal(cmd->volume_create.size_bytes, UINT64_C(1) << 62);
	assert_true(cmd->volume_create.activate);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_volume_patch, "{\"size\":65536,\"shrink\":true}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_VOLUME_RESIZE);
	assert_int_equal(cmd->volume_resize.size_bytes, 65536);
	assert_true(cmd->volume_resize.shrink);
	assert_null(tm_command_free(cmd));

	cmd = read_body(tm_body_volume_patch, "{\"name\":\"work\"}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_VOLUME_RENAME);
	assert_string_equal(cmd->volume_rename.name, "work");
	assert_null(tm_command_free(cmd));
}

static void makes_snapshots(void **state)
{
	struct tm_command *cmd;
	struct tm_error err;

	(void)state;
	cmd = read_body(tm_body_snapshot_create,
			"{\"snapshots\":[{\"volume\":\"home\",\"name\":\"a\"},"
			"{\"volume\":\"" ID "\",\"name\":\"b\"}],\"read_only\":true}",
			&err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_SNAPSHOT_CREATE);
	assert_int_equal(cmd->snapshot.n_items, 2);
	assert_string_equal(cmd->snapshot.items[0].volume, "home");
	assert_string_equal(cmd->snapshot.items[0].name, "a");
	assert_string_equal(cmd->snapshot.items[1].volume, ID);
	assert_true(cmd->snapshot.read_only);
	assert_false(cmd->snapshot.activate);
	assert_null(tm_command_free(cmd));
}

static void changes_policies(void **state)
{
	struct tm_command *cmd;
	struct tm_error err;

	(void)state;
	tm_policy_default(&current);
	current.sample_seconds = 33;
	cmd = read_body(policy_patch,
			"{\"data\":{\"low_water_percent\":31},\"when_full\":\"error\"}", &err);
	assert_non_null(cmd);
	assert_int_equal(cmd->kind, TM_CMD_POOL_POLICY);
	assert_int_equal(cmd->pool_policy.policy.data.low_water_percent, 31);
	assert_int_equal(cmd->pool_policy.policy.data.step_percent, current.data.step_percent);
	assert_int_equal(cmd->pool_policy.policy.sample_seconds, 33);
	assert_true(cmd->pool_policy.when_full_valid);
	assert_int_equal(cmd->pool_policy.when_full, TM_WHEN_FULL_ERROR);
	assert_string_equal(cmd->pool_policy.patch, "{\"data\":{\"low_water_percent\":31}}");
	assert_null(tm_command_free(cmd));

	cmd = read_body(policy_patch, "{\"activate_at_start\":false}", &err);
	assert_non_null(cmd);
	assert_false(cmd->pool_policy.when_full_valid);
	assert_false(cmd->pool_policy.policy.activate_at_start);
	assert_null(tm_command_free(cmd));
}

static void refuses(void **state)
{
	static const struct {
		reader read;
		const char *text;
		enum tm_error_code code;
		const char *field;
	} cases[] = {
		{ tm_body_pool_create, "{}", TM_ERR_MISSING_FIELD, "/name" },
		{ tm_body_pool_create, "{" POOL ",\"x\":1}", TM_ERR_UNKNOWN_FIELD, "/x" },
		{ tm_body_pool_create, "{\"name\":3}", TM_ERR_WRONG_TYPE, "/name" },
		{ tm_body_pool_create, "{\"name\":\"../x\"," BACKING ",\"data_size\":268435456}",
		  TM_ERR_BAD_NAME, "/name" },
		{ tm_body_pool_create, "{\"name\":\"" ID "\"," BACKING ",\"data_size\":268435456}",
		  TM_ERR_BAD_NAME, "/name" },
		{ tm_body_pool_create, "{\"name\":\"a\"," BACKING "}", TM_ERR_MISSING_FIELD,
		  "/data_size" },
		{ tm_body_pool_create, "{\"name\":\"a\"," BACKING ",\"data_size\":-1}",
		  TM_ERR_OUT_OF_RANGE, "/data_size" },
		{ tm_body_pool_create, "{\"name\":\"a\"," BACKING ",\"data_size\":1.5e9}",
		  TM_ERR_WRONG_TYPE, "/data_size" },
		{ tm_body_pool_create, "{\"name\":\"a\"," BACKING ",\"data_size\":16777215}",
		  TM_ERR_OUT_OF_RANGE, "/data_size" },
		{ tm_body_pool_create, "{" POOL ",\"block_size\":65537}", TM_ERR_OUT_OF_RANGE,
		  "/block_size" },
		{ tm_body_pool_create, "{" POOL ",\"block_size\":2147483648}", TM_ERR_OUT_OF_RANGE,
		  "/block_size" },
		{ tm_body_pool_create, "{" POOL ",\"metadata_size\":1}", TM_ERR_OUT_OF_RANGE,
		  "/metadata_size" },
		{ tm_body_pool_create, "{" POOL ",\"when_full\":\"wait\"}", TM_ERR_OUT_OF_RANGE,
		  "/when_full" },
		{ tm_body_pool_create, "{" POOL ",\"discard\":false,\"discard_passdown\":true}",
		  TM_ERR_OUT_OF_RANGE, "/discard_passdown" },
		{ tm_body_pool_create, "{" POOL ",\"discard_passdown\":true}", TM_ERR_UNSUPPORTED,
		  "/discard_passdown" },
		{ tm_body_pool_create, "{" POOL ",\"policy\":{\"data\":{\"step_percent\":0}}}",
		  TM_ERR_OUT_OF_RANGE, "/policy/data/step_percent" },
		{ tm_body_pool_create, "{" POOL ",\"policy\":{\"when_full\":\"error\"}}",
		  TM_ERR_UNKNOWN_FIELD, "/policy/when_full" },
		{ tm_body_pool_create, "{" POOL ",\"policy\":[]}", TM_ERR_WRONG_TYPE, "/policy" },
		{ tm_body_pool_create,
		  "{\"name\":\"a\",\"data_size\":268435456,\"backing\":{\"kind\":\"lvm\","
		  "\"directory\":\"/x\"}}",
		  TM_ERR_UNSUPPORTED, "/backing/kind" },
		{ tm_body_pool_create,
		  "{\"name\":\"a\",\"data_size\":268435456,\"backing\":{\"kind\":\"file\"}}",
		  TM_ERR_MISSING_FIELD, "/backing/directory" },
		{ tm_body_pool_create,
		  "{\"name\":\"a\",\"data_size\":268435456,\"backing\":{\"kind\":\"file\","
		  "\"directory\":\"/a/../etc\"}}",
		  TM_ERR_BAD_PATH, "/backing/directory" },
		{ tm_body_pool_create,
		  "{\"name\":\"a\",\"data_size\":268435456,\"backing\":{\"kind\":\"file\","
		  "\"directory\":\"srv\"}}",
		  TM_ERR_BAD_PATH, "/backing/directory" },
		{ tm_body_pool_create,
		  "{\"name\":\"a\",\"data_size\":268435456,\"backing\":{\"kind\":\"file\","
		  "\"directory\":\"/srv\",\"mode\":1}}",
		  TM_ERR_UNKNOWN_FIELD, "/backing/mode" },
		{ tm_body_pool_import, "{}", TM_ERR_MISSING_FIELD, "/directory" },
		{ tm_body_pool_import, "{\"directory\":\"/a//b\"}", TM_ERR_BAD_PATH, "/directory" },
		{ tm_body_pool_import, "{\"directory\":\"/a\",\"activate\":1}", TM_ERR_WRONG_TYPE,
		  "/activate" },
		{ tm_body_pool_repair, "{\"force\":1}", TM_ERR_WRONG_TYPE, "/force" },
		{ tm_body_pool_repair, "{\"Force\":true}", TM_ERR_UNKNOWN_FIELD, "/Force" },
		{ tm_body_pool_extend, "{}", TM_ERR_MISSING_FIELD, "/data_size" },
		{ tm_body_pool_extend, "{\"data_size\":0}", TM_ERR_OUT_OF_RANGE, "/data_size" },
		{ tm_body_pool_extend, "{\"data_size\":\"1G\"}", TM_ERR_WRONG_TYPE, "/data_size" },
		{ tm_body_pool_extend, "{\"metadata_size\":17112760321}", TM_ERR_OUT_OF_RANGE,
		  "/metadata_size" },
		{ tm_body_pool_check, "{\"copy\":1}", TM_ERR_WRONG_TYPE, "/copy" },
		{ tm_body_pool_restore, "{\"force\":true}", TM_ERR_MISSING_FIELD, "/copy" },
		{ tm_body_pool_restore, "{\"copy\":\"../metadata\"}", TM_ERR_BAD_NAME, "/copy" },
		{ tm_body_pool_restore, "{\"copy\":\"20261123T024512Z-repair\",\"force\":1}",
		  TM_ERR_WRONG_TYPE, "/force" },
		{ policy_patch, "{}", TM_ERR_MISSING_FIELD, "" },
		{ policy_patch, "{\"when_full\":1}", TM_ERR_WRONG_TYPE, "/when_full" },
		{ policy_patch, "{\"when_full\":\"x\"}", TM_ERR_OUT_OF_RANGE, "/when_full" },
		{ policy_patch, "{\"colour\":\"x\"}", TM_ERR_UNKNOWN_FIELD, "/colour" },
		{ policy_patch, "{\"metadata\":{\"low_water_percent\":91}}", TM_ERR_OUT_OF_RANGE,
		  "/metadata/low_water_percent" },
		{ tm_body_volume_create, "{\"size\":65536}", TM_ERR_MISSING_FIELD, "/name" },
		{ tm_body_volume_create, "{\"name\":\"a\"}", TM_ERR_MISSING_FIELD, "/size" },
		{ tm_body_volume_create, "{\"name\":\"a\",\"size\":65535}", TM_ERR_OUT_OF_RANGE,
		  "/size" },
		{ tm_body_volume_create, "{\"name\":\"_a\",\"size\":65536}", TM_ERR_BAD_NAME,
		  "/name" },
		{ tm_body_volume_patch, "{}", TM_ERR_MISSING_FIELD, "/size" },
		{ tm_body_volume_patch, "{\"shrink\":true}", TM_ERR_MISSING_FIELD, "/size" },
		{ tm_body_volume_patch, "{\"name\":\"a\",\"shrink\":false}", TM_ERR_MISSING_FIELD,
		  "/size" },
		{ tm_body_volume_patch, "{\"name\":\"a\",\"size\":65536}", TM_ERR_OUT_OF_RANGE,
		  "/name" },
		{ tm_body_volume_patch, "{\"name\":\"a b\"}", TM_ERR_BAD_NAME, "/name" },
		{ tm_body_snapshot_create, "{}", TM_ERR_MISSING_FIELD, "/snapshots" },
		{ tm_body_snapshot_create, "{\"snapshots\":{}}", TM_ERR_WRONG_TYPE, "/snapshots" },
		{ tm_body_snapshot_create, "{\"snapshots\":[]}", TM_ERR_OUT_OF_RANGE,
		  "/snapshots" },
		{ tm_body_snapshot_create, "{\"snapshots\":[1]}", TM_ERR_WRONG_TYPE,
		  "/snapshots/0" },
		{ tm_body_snapshot_create,
		  "{\"snapshots\":[{\"volume\":\"a\",\"name\":\"b\"},{\"volume\":\"a\"}]}",
		  TM_ERR_MISSING_FIELD, "/snapshots/1/name" },
		{ tm_body_snapshot_create, "{\"snapshots\":[{\"volume\":\"a/b\",\"name\":\"b\"}]}",
		  TM_ERR_BAD_NAME, "/snapshots/0/volume" },
		{ tm_body_snapshot_create, "{\"snapshots\":[{\"volume\":\"a\",\"name\":\"\"}]}",
		  TM_ERR_BAD_NAME, "/snapshots/0/name" },
		{ tm_body_snapshot_create,
		  "{\"snapshots\":[{\"volume\":\"a\",\"name\":\"b\"},"
		  "{\"volume\":\"c\",\"name\":\"b\"}]}",
		  TM_ERR_BAD_NAME, "/snapshots/1/name" },
		{ tm_body_snapshot_create,
		  "{\"snapshots\":[{\"volume\":\"a\",\"name\":\"b\",\"x\":0}]}",
		  TM_ERR_UNKNOWN_FIELD, "/snapshots/0/x" },
	};

	(void)state;
	tm_policy_default(&current);
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_error err;
		struct tm_command *cmd = read_body(cases[i].read, cases[i].text, &err);

		if (cmd || err.code != cases[i].code || strcmp(err.field, cases[i].field) != 0)
			fail_msg("%s: %s %s: %s", cases[i].text, tm_error_slug(err.code), err.field,
				 err.detail);
	}
}

static void limits_snapshots(void **state)
{
	(void)state;
	for (int extra = 0; extra < 2; extra++) {
		json_t *list = json_array(), *body;
		struct tm_command *cmd = calloc(1, sizeof(*cmd));
		struct tm_error err = { 0 };

		assert_non_null(cmd);
		for (int i = 0; i < TM_SNAPSHOTS_MAX + extra; i++) {
			char name[16];

			(void)snprintf(name, sizeof(name), "s%d", i);
			(void)json_array_append_new(
				list, json_pack("{s:s, s:s}", "volume", "a", "name", name));
		}
		body = json_pack("{s:o}", "snapshots", list);
		assert_int_equal(tm_body_snapshot_create(body, cmd, &err), extra ? -EINVAL : 0);
		json_decref(body);
		assert_null(tm_command_free(cmd));
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(makes_pools),      cmocka_unit_test(decides_passdown),
		cmocka_unit_test(makes_others),     cmocka_unit_test(makes_snapshots),
		cmocka_unit_test(changes_policies), cmocka_unit_test(refuses),
		cmocka_unit_test(limits_snapshots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
