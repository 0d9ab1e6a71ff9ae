/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands against the state of a pool: what is refused, with which words, and what steps are
 * given. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "core-fixture.h"
#include "logic/meta-size.h"
#include "logic/policy.h"

#define POOL_BYTES (256 * TM_MIB)

struct fixture {
	struct core_fixture *core;
	struct tm_pool *pool;
	struct tm_command *cmd;
	struct tm_op *op;
};

/* A pool that is up, with the volumes "home" (active) and "monday", its snapshot. */
static int setup(void **state)
{
	static const char *const names[] = { "home", "monday" };
	struct fixture *f = calloc(1, sizeof(*f));
	struct tm_pool_record record = {
		.id = id_of(1),
		.name = "tank",
		.sparse = true,
		.block_bytes = TM_BLOCK_SIZE_MIN,
		.data_bytes = POOL_BYTES,
		.metadata_bytes = 4 * TM_MIB,
		.transaction_id = 7,
		.next_dev_id = 3,
		.active = true,
	};
	struct tm_volume_record volumes[2] = { 0 };
	void *core = NULL;

	assert_non_null(f);
	assert_int_equal(core_setup(&core), 0);
	f->core = core;
	(void)snprintf(record.directory, sizeof(record.directory), "%s", f->core->directory);
	tm_policy_default(&record.policy);
	f->pool = tm_pool_new(&f->core->core, &record);
	assert_non_null(f->pool);
	for (unsigned int i = 0; i < 2; i++) {
		volumes[i].id = id_of(10 + i);
		(void)snprintf(volumes[i].name, sizeof(volumes[i].name), "%s", names[i]);
		volumes[i].dev_id = i + 1;
		volumes[i].size_bytes = TM_GIB;
	}
	volumes[1].origin = volumes[0].id;
	assert_int_equal(tm_pool_set_volumes(f->pool, volumes, 2), 0);
	f->pool->volumes[0].active = true;
	f->pool->state = TM_POOL_ACTIVE;
	f->pool->status_valid = true;
	f->pool->status.mode = TM_MODE_WRITE;
	f->pool->status.transaction_id = 7;
	f->cmd = calloc(1, sizeof(*f->cmd));
	f->op = calloc(1, sizeof(*f->op));
	assert_true(f->cmd && f->op);
	f->op->cmd = f->cmd;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	void *core = f->core;

	(void)tm_op_free(f->op);
	(void)tm_pool_free(f->pool);
	free(f);
	return core_teardown(&core);
}

/* A new command of that kind; its members start as zeros. */
static struct tm_command *command(struct fixture *f, enum tm_command_kind kind, const char *volume)
{
	if (f->cmd->kind == TM_CMD_SNAPSHOT_CREATE)
		free(f->cmd->snapshot.items);
	if (f->cmd->kind == TM_CMD_POOL_POLICY)
		free(f->cmd->pool_policy.patch);
	*f->cmd = (struct tm_command){ .kind = kind };
	(void)snprintf(f->cmd->volume, sizeof(f->cmd->volume), "%s", volume ? volume : "");
	f->op->type = tm_op_type(kind);
	return f->cmd;
}

static void accept(struct fixture *f)
{
	struct tm_error err = { 0 };

	if (tm_op_prepare(f->op, f->pool, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(err.code, TM_OK);
}

static void refuse(struct fixture *f, enum tm_error_code code, int error, const char *field,
		   const char *says)
{
	struct tm_error err = { 0 };

	assert_int_equal(tm_op_prepare(f->op, f->pool, &err), -error);
	assert_int_equal(err.code, code);
	assert_string_equal(err.field, field);
	if (!strstr(err.detail, says) && !strstr(err.hint, says))
		fail_msg("\"%s\" is not in: %s %s", says, err.detail, err.hint);
}

static void volume_create(struct fixture *f, const char *name, uint64_t size)
{
	struct tm_command *cmd = command(f, TM_CMD_VOLUME_CREATE, NULL);

	(void)snprintf(cmd->volume_create.name, sizeof(cmd->volume_create.name), "%s", name);
	cmd->volume_create.size_bytes = size;
	cmd->volume_create.activate = true;
}

static void makes_volumes(void **state)
{
	struct fixture *f = *state;

	volume_create(f, "new", TM_GIB + 1);
	accept(f);
	assert_int_equal(f->op->n_items, 1);
	assert_null(f->op->before);
	assert_string_equal(f->op->items[0].name, "new");
	assert_int_equal(f->op->items[0].size_bytes, TM_GIB + 4096);
	assert_int_equal(f->op->items[0].dev_id, 3);
	assert_true(f->op->items[0].active && f->op->activate);
	assert_int_equal(strlen(f->op->items[0].id.text), 36);
	/* Steps work on a copy. */
	assert_int_equal(f->op->pool.next_dev_id, 4);
	assert_int_equal(f->pool->record.next_dev_id, 3);
	assert_int_equal(f->op->transaction_before, 7);
	assert_true(f->op->pool_was_active);
	assert_int_equal(f->op->n_volumes, 2);

	/* Ids in use are passed over, also behind the last one there can be. */
	f->pool->record.next_dev_id = TM_DEV_ID_MAX;
	f->pool->volumes[1].record.dev_id = TM_DEV_ID_MAX;
	accept(f);
	assert_int_equal(f->op->items[0].dev_id, 2);
	assert_int_equal(f->op->pool.next_dev_id, 3);

	volume_create(f, "home", TM_GIB);
	refuse(f, TM_ERR_EXISTS, EEXIST, "/name", "home");
	volume_create(f, "../x", TM_GIB);
	refuse(f, TM_ERR_BAD_NAME, EINVAL, "/name", "");
	volume_create(f, "new", TM_VOLUME_MIN_BYTES - 1);
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/size", "65536");
	volume_create(f, "new", TM_VOLUME_MAX_BYTES + 1);
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/size", "4611686018427387904");
}

/* What changes metadata needs a pool whose metadata can be changed. */
static void needs_a_writable_pool(void **state)
{
	static const struct {
		enum tm_pool_state state;
		enum tm_pool_mode mode;
		bool needs_check, failed;
		uint64_t transaction_id;
		enum tm_error_code code;
		int error;
		const char *says;
	} cases[] = {
		{ TM_POOL_INACTIVE, 0, false, false, 7, TM_ERR_WRONG_STATE, EBUSY,
		  "thinmgr pool activate tank" },
		{ TM_POOL_CREATING, 0, false, false, 7, TM_ERR_WRONG_STATE, EBUSY,
		  "being created" },
		{ TM_POOL_DELETING, 0, false, false, 7, TM_ERR_WRONG_STATE, EBUSY,
		  "being deleted" },
		{ TM_POOL_UNCERTAIN, 0, false, false, 7, TM_ERR_WRONG_STATE, EBUSY, "the reason" },
		{ TM_POOL_ACTIVE, TM_MODE_READ_ONLY, false, false, 7, TM_ERR_NEEDS_CHECK, EROFS,
		  "mode read_only:" },
		{ TM_POOL_ACTIVE, TM_MODE_READ_ONLY, true, false, 7, TM_ERR_NEEDS_CHECK, EROFS,
		  "with needs_check set" },
		{ TM_POOL_ACTIVE, TM_MODE_WRITE, true, false, 7, TM_ERR_NEEDS_CHECK, EROFS,
		  "needs_check" },
		{ TM_POOL_ACTIVE, TM_MODE_WRITE, false, true, 7, TM_ERR_NEEDS_CHECK, EROFS,
		  "fail" },
		{ TM_POOL_ACTIVE, TM_MODE_WRITE, false, false, 8, TM_ERR_WRONG_STATE, ESTALE,
		  "somebody else" },
	};
	struct fixture *f = *state;

	(void)snprintf(f->pool->state_reason, sizeof(f->pool->state_reason), "the reason");
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		f->pool->state = cases[i].state;
		f->pool->status.mode = cases[i].mode;
		f->pool->status.needs_check = cases[i].needs_check;
		f->pool->status.failed = cases[i].failed;
		f->pool->status.transaction_id = cases[i].transaction_id;
		volume_create(f, "new", TM_GIB);
		refuse(f, cases[i].code, cases[i].error, "", cases[i].says);
		(void)command(f, TM_CMD_VOLUME_DELETE, "home");
		refuse(f, cases[i].code, cases[i].error, "", cases[i].says);
		(void)command(f, TM_CMD_SNAPSHOT_CREATE, NULL);
		refuse(f, cases[i].code, cases[i].error, "", cases[i].says);
	}

	f->pool->state = TM_POOL_INACTIVE;
	f->pool->raising = true;
	volume_create(f, "new", TM_GIB);
	refuse(f, TM_ERR_WRONG_STATE, EBUSY, "", "being brought up");
}

static void snapshot(struct fixture *f, size_t n, const char *const (*items)[2])
{
	struct tm_command *cmd = command(f, TM_CMD_SNAPSHOT_CREATE, NULL);

	cmd->snapshot.items = calloc(n, sizeof(*cmd->snapshot.items));
	assert_non_null(cmd->snapshot.items);
	cmd->snapshot.n_items = n;
	cmd->snapshot.read_only = true;
	for (size_t i = 0; i < n; i++) {
		struct tm_snapshot_item *item = &cmd->snapshot.items[i];

		(void)snprintf(item->volume, sizeof(item->volume), "%s", items[i][0]);
		(void)snprintf(item->name, sizeof(item->name), "%s", items[i][1]);
	}
}

static void makes_snapshots(void **state)
{
	static const char *const good[][2] = { { "home", "s1" },
					       { "monday", "s2" },
					       { "home", "s3" } };
	static const char *const absent[][2] = { { "home", "s1" }, { "nothing", "s2" } };
	static const char *const taken[][2] = { { "home", "s1" }, { "home", "monday" } };
	static const char *const twice[][2] = { { "home", "s1" },
						{ "home", "s2" },
						{ "monday", "s1" } };
	struct fixture *f = *state;

	snapshot(f, 3, good);
	accept(f);
	assert_int_equal(f->op->n_items, 3);
	for (unsigned int i = 0; i < 3; i++) {
		const struct tm_volume_record *v = &f->op->items[i];

		assert_string_equal(v->name, good[i][1]);
		assert_int_equal(v->dev_id, 3 + i);
		assert_int_equal(v->size_bytes, TM_GIB);
		assert_string_equal(v->origin.text, id_of(i == 1 ? 11 : 10).text);
		assert_true(v->read_only);
		assert_false(v->active);
	}
	/* Asked again when its turn comes: from the beginning. */
	accept(f);
	assert_int_equal(f->op->n_items, 3);
	assert_int_equal(f->op->items[0].dev_id, 3);

	snapshot(f, 2, absent);
	refuse(f, TM_ERR_NOT_FOUND, ENOENT, "", "nothing");
	snapshot(f, 2, taken);
	refuse(f, TM_ERR_EXISTS, EEXIST, "/snapshots/1/name", "monday");
	snapshot(f, 3, twice);
	refuse(f, TM_ERR_EXISTS, EEXIST, "/snapshots/2/name", "twice");
}

static void resizes(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd = command(f, TM_CMD_VOLUME_RESIZE, "home");

	cmd->volume_resize.size_bytes = 2 * TM_GIB - 1;
	accept(f);
	assert_int_equal(f->op->before[0].size_bytes, TM_GIB);
	assert_true(f->op->before[0].active);
	assert_int_equal(f->op->items[0].size_bytes, 2 * TM_GIB);
	assert_string_equal(f->op->items[0].id.text, id_of(10).text);

	/* Cutting off an end has to be meant; both ways of saying so are told. */
	cmd->volume_resize.size_bytes = TM_GIB - 4096;
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/size", "\"shrink\": true");
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/size", "--shrink");
	cmd->volume_resize.shrink = true;
	accept(f);
	assert_int_equal(f->op->items[0].size_bytes, TM_GIB - 4096);
	cmd->volume_resize.size_bytes = 1;
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/size", "65536");
	(void)command(f, TM_CMD_VOLUME_RESIZE, "nothing");
	refuse(f, TM_ERR_NOT_FOUND, ENOENT, "", "nothing");
}

static void renames_and_switches(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd = command(f, TM_CMD_VOLUME_RENAME, id_of(10).text);

	(void)snprintf(cmd->volume_rename.name, sizeof(cmd->volume_rename.name), "house");
	accept(f);
	assert_string_equal(f->op->before[0].name, "home");
	assert_string_equal(f->op->items[0].name, "house");
	(void)snprintf(cmd->volume_rename.name, sizeof(cmd->volume_rename.name), "monday");
	refuse(f, TM_ERR_EXISTS, EEXIST, "/name", "monday");
	/* To the name it has: nothing is in the way. */
	(void)snprintf(cmd->volume_rename.name, sizeof(cmd->volume_rename.name), "home");
	accept(f);

	(void)command(f, TM_CMD_VOLUME_DEACTIVATE, "home");
	accept(f);
	assert_false(f->op->items[0].active);
	(void)command(f, TM_CMD_VOLUME_ACTIVATE, "monday");
	accept(f);
	assert_true(f->op->items[0].active);
	f->pool->state = TM_POOL_INACTIVE;
	refuse(f, TM_ERR_WRONG_STATE, EBUSY, "", "inactive");
}

/* What is still being lost is not cleared, and what is not there not checked. */
static void clears_suspects(void **state)
{
	struct fixture *f = *state;
	struct tm_volume *home = tm_pool_find_volume(f->pool, "home");

	home->record.active = home->active = true;
	(void)command(f, TM_CMD_VOLUME_CLEAR, "home");
	accept(f);
	(void)command(f, TM_CMD_VOLUME_CHECK, "home");
	accept(f);
	home->active = false;
	refuse(f, TM_ERR_WRONG_STATE, ENODEV, "", "volume activate");
	home->active = true;
	f->pool->status_valid = true;
	f->pool->status.mode = TM_MODE_READ_ONLY;
	refuse(f, TM_ERR_WRONG_STATE, EROFS, "", "read_only");
	(void)command(f, TM_CMD_VOLUME_CLEAR, "home");
	refuse(f, TM_ERR_WRONG_STATE, EROFS, "", "still");
	home->record.read_only = true;
	accept(f);
	f->pool->state = TM_POOL_INACTIVE;
	(void)command(f, TM_CMD_VOLUME_CHECK, "home");
	refuse(f, TM_ERR_WRONG_STATE, EBUSY, "", "inactive");
}

/* A copy of what lacks something lacks the same. */
static void snapshots_are_as_suspect(void **state)
{
	struct fixture *f = *state;
	struct tm_volume *home = tm_pool_find_volume(f->pool, "home");
	struct tm_command *cmd = command(f, TM_CMD_SNAPSHOT_CREATE, NULL);

	home->record.suspect = TM_SUSPECT_FAIL;
	home->record.suspect_usec = 7;
	cmd->snapshot.items = calloc(1, sizeof(*cmd->snapshot.items));
	assert_non_null(cmd->snapshot.items);
	cmd->snapshot.n_items = 1;
	(void)snprintf(cmd->snapshot.items[0].volume, sizeof(cmd->snapshot.items[0].volume),
		       "home");
	(void)snprintf(cmd->snapshot.items[0].name, sizeof(cmd->snapshot.items[0].name), "copy");
	accept(f);
	assert_int_equal(f->op->items[0].suspect, TM_SUSPECT_FAIL);
	assert_int_equal(f->op->items[0].suspect_usec, 7);
}

static void extend(struct fixture *f, uint64_t data, uint64_t metadata)
{
	struct tm_command *cmd = command(f, TM_CMD_POOL_EXTEND, NULL);

	cmd->pool_extend.data_bytes = data;
	cmd->pool_extend.metadata_bytes = metadata;
}

static void extends(void **state)
{
	struct fixture *f = *state;
	struct statvfs fs;

	extend(f, POOL_BYTES + 1, 4 * TM_MIB + 1);
	accept(f);
	assert_int_equal(f->op->data_bytes, POOL_BYTES + TM_BLOCK_SIZE_MIN);
	assert_int_equal(f->op->metadata_bytes, 4 * TM_MIB + TM_METADATA_BLOCK);
	extend(f, 0, 8 * TM_MIB);
	accept(f);
	assert_int_equal(f->op->data_bytes, 0);
	extend(f, POOL_BYTES - TM_BLOCK_SIZE_MIN, 0);
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/data_size", "cannot shrink");
	extend(f, 0, TM_MIB);
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/metadata_size", "cannot shrink");
	extend(f, 0, TM_METADATA_MAX_BYTES + 1);
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/metadata_size", "at most");

	/* A sparse pool promises nothing; another needs the room, less what it has in reserve. */
	assert_int_equal(statvfs(f->core->directory, &fs), 0);
	extend(f, POOL_BYTES + 2 * (uint64_t)fs.f_blocks * fs.f_frsize, 0);
	accept(f);
	f->pool->record.sparse = false;
	refuse(f, TM_ERR_NO_SPACE, ENOSPC, "", f->core->directory);
	f->pool->record.data_reserve_bytes = 2 * (uint64_t)fs.f_blocks * fs.f_frsize;
	accept(f);

	/* Out of metadata is read-only, which more metadata mends; and nothing else does. */
	f->pool->status.mode = TM_MODE_READ_ONLY;
	extend(f, 0, 8 * TM_MIB);
	accept(f);
	extend(f, 2 * POOL_BYTES, 0);
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "read_only");
	f->pool->status.needs_check = true;
	extend(f, 0, 8 * TM_MIB);
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "needs_check");
	/* One that is down can grow: it is done when it comes up. */
	f->pool->state = TM_POOL_INACTIVE;
	accept(f);
}

static void changes_pools(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd = command(f, TM_CMD_POOL_DELETE, NULL);

	refuse(f, TM_ERR_BUSY, ENOTEMPTY, "", "2 volumes");
	cmd->pool_delete.with_volumes = true;
	accept(f);
	assert_true(f->op->with_volumes);
	assert_int_equal(f->op->n_volumes, 2);
	cmd->pool_delete.with_volumes = false;
	assert_int_equal(tm_pool_set_volumes(f->pool, NULL, 0), 0);
	accept(f);

	cmd = command(f, TM_CMD_POOL_POLICY, NULL);
	cmd->pool_policy.policy = f->pool->record.policy;
	cmd->pool_policy.policy.sample_seconds = 77;
	accept(f);
	assert_int_equal(f->op->policy.sample_seconds, 77);
	assert_int_equal(f->op->when_full, TM_WHEN_FULL_QUEUE);
	cmd->pool_policy.when_full_valid = true;
	cmd->pool_policy.when_full = TM_WHEN_FULL_ERROR;
	accept(f);
	assert_int_equal(f->op->when_full, TM_WHEN_FULL_ERROR);
	cmd->pool_policy.policy.sample_seconds = 1;
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/sample_seconds", "");
	/* A change of one thing keeps what another change did to the rest meanwhile. */
	cmd->pool_policy.patch = strdup("{\"sample_seconds\":99}");
	f->pool->record.policy.data.step_percent = 41;
	accept(f);
	assert_int_equal(f->op->policy.sample_seconds, 99);
	assert_int_equal(f->op->policy.data.step_percent, 41);
	free(cmd->pool_policy.patch);
	cmd->pool_policy.patch = strdup("{\"sample_seconds\":1}");
	refuse(f, TM_ERR_OUT_OF_RANGE, EINVAL, "/sample_seconds", "");

	/* An operation that could not be settled keeps all others away, but for the pool's end. */
	f->pool->state = TM_POOL_UNCERTAIN;
	f->pool->unsettled = true;
	(void)command(f, TM_CMD_POOL_ACTIVATE, NULL);
	refuse(f, TM_ERR_WRONG_STATE, EBUSY, "", "cut off");
	(void)command(f, TM_CMD_POOL_DELETE, NULL);
	accept(f);
	f->pool->unsettled = false;

	/* What brings an uncertain pool back to a certain state is let through. */
	f->pool->state = TM_POOL_UNCERTAIN;
	(void)command(f, TM_CMD_POOL_DEACTIVATE, NULL);
	accept(f);
	(void)command(f, TM_CMD_POOL_ACTIVATE, NULL);
	accept(f);
	assert_true(f->op->activate);
	(void)command(f, TM_CMD_POOL_DELETE, NULL);
	accept(f);

	cmd = command(f, TM_CMD_POOL_IMPORT, NULL);
	(void)snprintf(cmd->pool_import.directory, sizeof(cmd->pool_import.directory), "/srv/x");
	assert_int_equal(tm_op_prepare(f->op, NULL, NULL), 0);
	assert_string_equal(f->op->pool.directory, "/srv/x");
	(void)snprintf(cmd->pool_import.directory, sizeof(cmd->pool_import.directory), "/srv/../x");
	refuse(f, TM_ERR_BAD_PATH, EINVAL, "/directory", "..");
}

static void repairs_what_is_broken(void **state)
{
	struct fixture *f = *state;

	(void)command(f, TM_CMD_POOL_REPAIR, NULL);
	refuse(f, TM_ERR_WRONG_STATE, EINVAL, "", "does not need a repair");

	f->pool->status.needs_check = true;
	f->pool->volumes[1].mapped_valid = true;
	f->pool->volumes[1].mapped_bytes = 4711;
	accept(f);
	assert_true(f->op->activate);
	assert_true(f->op->repair.last_mapped[0] == UINT64_MAX);
	assert_int_equal(f->op->repair.last_mapped[1], 4711);
	assert_non_null(strstr(f->op->repair.copy_name, "Z-repair"));
	assert_false(f->op->repair.force);
	f->op->cmd->pool_repair.force = true;
	accept(f);
	assert_true(f->op->repair.force);
	f->op->cmd->pool_repair.force = false;
	f->pool->record.policy.repair = TM_REPAIR_FORCE;
	accept(f);
	assert_true(f->op->repair.force);
	f->pool->status.needs_check = false;
	f->pool->status.mode = TM_MODE_READ_ONLY;
	accept(f);
	f->pool->status.mode = TM_MODE_OUT_OF_DATA_SPACE; /* space mends that */
	refuse(f, TM_ERR_WRONG_STATE, EINVAL, "", "out_of_data_space");
	f->pool->status.failed = true;
	accept(f);

	/* Of one that is down nothing is known before it is looked. */
	f->pool->state = TM_POOL_INACTIVE;
	f->pool->status_valid = false;
	f->pool->record.active = false;
	accept(f);
	assert_false(f->op->activate);
	f->pool->record.active = true; /* wanted up, and could not be brought up */
	accept(f);
	assert_true(f->op->activate);
	f->pool->state = TM_POOL_UNCERTAIN;
	accept(f);
	f->pool->unsettled = true;
	refuse(f, TM_ERR_WRONG_STATE, EBUSY, "", "cut off");
}

static void knows_generations(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd = command(f, TM_CMD_POOL_DEACTIVATE, NULL);

	cmd->if_match_valid = true;
	cmd->if_match = f->pool->generation;
	accept(f);
	cmd->if_match = f->pool->generation + 1;
	refuse(f, TM_ERR_PRECONDITION, ESTALE, "If-Match", "changed since");
	/* Also when its turn comes: others may have changed the pool meanwhile. */
	f->op->record.id = id_of(99);
	refuse(f, TM_ERR_PRECONDITION, ESTALE, "If-Match", "changed since");
}

static void fills_defaults(void **state)
{
	static const struct {
		uint64_t data, metadata, maximum;
		uint32_t block;
		enum tm_error_code code;
		const char *field;
	} cases[] = {
		{ TM_DATA_MIN_BYTES, 0, 0, 0, TM_OK, "" },
		{ TM_DATA_MIN_BYTES + 1, 0, 0, 1024 * 1024, TM_OK, "" },
		{ 100 * TM_TIB, 0, 0, 0, TM_OK, "" },
		{ POOL_BYTES, 0, 1024 * TM_TIB, 0, TM_OK, "" },
		{ POOL_BYTES, 8 * TM_MIB + 1, 2 * POOL_BYTES, 0, TM_OK, "" },
		{ TM_DATA_MIN_BYTES - 1, 0, 0, 0, TM_ERR_OUT_OF_RANGE, "/data_size" },
		{ POOL_BYTES, 0, POOL_BYTES - 1, 0, TM_ERR_OUT_OF_RANGE, "/policy/data/maximum" },
		{ POOL_BYTES, TM_METADATA_MAX_BYTES + 1, 0, 0, TM_ERR_OUT_OF_RANGE,
		  "/metadata_size" },
		{ TM_TIB, TM_METADATA_MIN_BYTES, 0, 65536, TM_ERR_OUT_OF_RANGE, "/metadata_size" },
		/* More blocks than any metadata holds. */
		{ 100 * TM_TIB, 0, 0, 65536, TM_ERR_OUT_OF_RANGE, "/data_size" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_pool_record p = {
			.data_bytes = cases[i].data,
			.metadata_bytes = cases[i].metadata,
			.block_bytes = cases[i].block,
			.discard = true,
			.discard_passdown = true,
		};
		struct tm_error err = { 0 };
		int r;

		tm_policy_default(&p.policy);
		p.policy.data.maximum_bytes = cases[i].maximum;
		r = tm_pool_fill_defaults(&p, &err);
		assert_int_equal(err.code, cases[i].code);
		assert_string_equal(err.field, cases[i].field);
		if (cases[i].code) {
			assert_int_equal(r, -EINVAL);
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(tm_block_size_check(p.block_bytes, "", NULL), 0);
		assert_int_equal(p.data_bytes % p.block_bytes, 0);
		assert_in_range(p.data_bytes, cases[i].data, cases[i].data + p.block_bytes - 1);
		assert_int_equal(p.metadata_bytes % TM_METADATA_BLOCK, 0);
		assert_true(p.metadata_bytes >=
			    tm_metadata_size_rule(p.data_bytes, p.block_bytes, 1));
		assert_in_range(p.low_water_bytes, 1, p.data_bytes);
		/* Preallocated files keep their space. */
		assert_false(p.discard_passdown);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* That the copy is there; the rest is seen when its turn comes. */
static void goes_back_to_what_is_kept(void **state)
{
	struct fixture *f = *state;
	char path[TM_PATH_SIZE + 128], kept[TM_PATH_SIZE + 32];
	struct tm_command *cmd = command(f, TM_CMD_POOL_RESTORE, NULL);
	int fd;

	(void)snprintf(cmd->pool_restore.copy, sizeof(cmd->pool_restore.copy),
		       "20261123T024512Z-repair");
	cmd->pool_restore.force = true;
	refuse(f, TM_ERR_NOT_FOUND, ENOENT, "", "no copy 20261123T024512Z-repair");

	(void)snprintf(kept, sizeof(kept), "%s/kept", f->pool->record.directory);
	(void)snprintf(path, sizeof(path), "%s/%s", kept, cmd->pool_restore.copy);
	assert_int_equal(mkdir(kept, 0700), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);
	f->pool->state = TM_POOL_UNCERTAIN;
	accept(f);
	assert_string_equal(f->op->repair.from, cmd->pool_restore.copy);
	assert_true(f->op->repair.force);
	assert_true(f->op->activate);
	assert_non_null(strstr(f->op->repair.copy_name, "Z-restore"));
	assert_int_equal(f->op->repair.metadata_bytes, 4 * TM_MIB);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(kept), 0);
}

/* One that is up has to be able to make a metadata snapshot; one that is down is read as it is. */
static void checks_what_can_be_read(void **state)
{
	struct fixture *f = *state;
	struct tm_command *cmd = command(f, TM_CMD_POOL_CHECK, NULL);

	accept(f);
	assert_false(f->op->check.keep);
	assert_string_equal(f->op->repair.copy_name, "");
	cmd->pool_check.copy = true;
	accept(f);
	assert_true(f->op->check.keep);
	assert_non_null(strstr(f->op->repair.copy_name, "Z-copy"));
	f->pool->status.needs_check = true;
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "needs_check");
	f->pool->state = TM_POOL_INACTIVE;
	accept(f);
	assert_false(f->op->pool_was_active);
	f->pool->state = TM_POOL_UNCERTAIN;
	refuse(f, TM_ERR_WRONG_STATE, EBUSY, "", "uncertain");
}

/* What is asked for while a repair is under way, or waits, has its turn afterwards. */
static void waits_for_a_repair(void **state)
{
	static const struct tm_op_type repair = { .kind = TM_CMD_POOL_REPAIR };
	static const struct tm_op_type restore = { .kind = TM_CMD_POOL_RESTORE };
	static const struct tm_op_type other = { .kind = TM_CMD_POOL_POLICY };
	struct tm_op before = { .type = &repair };
	struct tm_queued_op queued = { .op = &before };
	struct fixture *f = *state;

	extend(f, 2 * POOL_BYTES, 0);
	f->pool->status.needs_check = true;
	f->pool->status.mode = TM_MODE_READ_ONLY;
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "repaired by itself");
	f->pool->record.policy.repair = TM_REPAIR_MANUAL;
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "thinmgr pool repair");

	f->pool->running = &before;
	accept(f);
	before.type = &restore;
	accept(f);
	before.type = &other;
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "needs_check");
	f->pool->running = NULL;
	f->pool->queue = &queued;
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "needs_check");
	before.type = &repair;
	accept(f);

	/* When its turn has come, what is behind it does not count. */
	tm_uuid_generate(&f->op->record.id);
	refuse(f, TM_ERR_NEEDS_CHECK, EROFS, "", "needs_check");
	f->pool->queue = NULL;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(makes_volumes),
		TEST(needs_a_writable_pool),
		TEST(makes_snapshots),
		TEST(resizes),
		TEST(renames_and_switches),
		TEST(clears_suspects),
		TEST(snapshots_are_as_suspect),
		TEST(extends),
		TEST(changes_pools),
		TEST(repairs_what_is_broken),
		TEST(goes_back_to_what_is_kept),
		TEST(checks_what_can_be_read),
		TEST(waits_for_a_repair),
		TEST(knows_generations),
		cmocka_unit_test(fills_defaults),
	};

	return cmocka_run_group_tests_name("prepare", tests, NULL, NULL);
}
