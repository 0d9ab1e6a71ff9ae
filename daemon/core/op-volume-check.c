/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clearing a volume that is suspect: because an administrator says so, or because the checker of
 * its file system finds nothing wrong. That only reads, and is a program of its own: it may take
 * long, fall over what it reads, or be ended at its limit.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"
#include "core/op-types.h"
#include "logic/fs-kind.h"

/* Longer than is configured where there is much to read. */
#define LIMIT_S_PER_GIB 2

static int record_cleared(struct tm_op *op, struct tm_error *err)
{
	op->cleared_usec = tm_now_realtime_usec();
	return tm_store_set_suspect(op->core->store, &op->items[0].id, TM_SUSPECT_NOT,
				    op->cleared_usec, err);
}

static const struct tm_step clear_steps[] = {
	{ .name = "record", .run = record_cleared, .commit = true, .record = true },
};

const struct tm_op_type tm_op_volume_clear = {
	.kind = TM_CMD_VOLUME_CLEAR,
	.steps = clear_steps,
	.n_steps = TM_ARRAY_SIZE(clear_steps),
};

/* ---- check ---- */

struct checker {
	const char *program, *package;
	const char *options[2];
	const char *replay; /* it says that it left a journal aside; NULL: it does not say */
	bool exclusive;     /* it does not mind that the device is kept from others meanwhile */
};

static const struct checker *checker_of(enum tm_fs_kind kind)
{
	static const struct checker checkers[] = {
		[TM_FS_EXT] = { "e2fsck", "e2fsprogs", { "-fn" }, NULL, true },
		[TM_FS_XFS] = { "xfs_repair",
				"xfsprogs",
				{ "-n" },
				"valuable metadata changes in a log",
				true },
		[TM_FS_BTRFS] = { "btrfs", "btrfs-progs", { "check", "--readonly" }, NULL, false },
	};

	return &checkers[kind];
}

static int needs_replay(const struct tm_op *op, enum tm_fs_kind kind, struct tm_error *err)
{
	int r = tm_error_set(err, TM_ERR_WRONG_STATE, EUCLEAN,
			     "The %s file system of volume %s/%s was not unmounted: its journal "
			     "has to be replayed before a check says anything.",
			     tm_fs_kind_name(kind), op->pool.name, op->items[0].name);

	tm_error_hint(
		err, kind == TM_FS_EXT
			     ? "Have e2fsck -f replay and mend it, and check again."
			     : "Make a snapshot, then mount it once, unmount it, and check again.");
	return r;
}

static int read_start(int fd, const char *path, uint8_t *buf, size_t *ret, struct tm_error *err)
{
	size_t have = 0;

	while (have < TM_FS_KIND_BYTES) {
		ssize_t n = pread(fd, buf + have, TM_FS_KIND_BYTES - have, (off_t)have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tm_error_set(err, TM_ERR_IO, errno, "Cannot read %s: %s.", path,
					    strerror(errno));
		if (n == 0)
			break;
		have += (size_t)n;
	}
	*ret = have;
	return 0;
}

/* Kept from being mounted or opened exclusively by others, as long as it is open. */
static int claim(const struct tm_op *op, const char *path, struct tm_error *err)
{
	const struct tm_volume_record *v = &op->items[0];
	struct tm_dm_info info;
	int r = tm_parts_unused(op->core, &op->pool, v, &info, err);
	int fd = -1;

	if (r < 0)
		return r;
	if (r == 0)
		return tm_error_set(err, TM_ERR_WRONG_STATE, ENODEV,
				    "Volume %s/%s is not active any more.", op->pool.name, v->name);
	if (info.open_count == 0) {
		fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno != EBUSY)
			return tm_error_set(err, TM_ERR_IO, errno, "Cannot open %s: %s.", path,
					    strerror(errno));
	}
	r = tm_error_set(err, TM_ERR_BUSY, EBUSY,
			 "Volume %s/%s is in use (mounted, or held by a program): its file system "
			 "changes while it would be checked.",
			 op->pool.name, v->name);
	tm_error_hint(err, "Find who holds it with: lsblk %s; fuser -vm %s", path, path);
	return r;
}

static int run_checker(struct tm_op *op, enum tm_fs_kind kind, const char *path,
		       struct tm_error *err)
{
	const struct checker *c = checker_of(kind);
	const struct tm_volume_record *v = &op->items[0];
	const unsigned int limit =
		(unsigned int)(op->core->config.tool_limit_usec / TM_USEC_PER_SEC) +
		(unsigned int)(v->size_bytes / TM_GIB) * LIMIT_S_PER_GIB;
	const struct tm_tool_watch watch = { .progress = &op->progress };
	struct tm_tool_result *result;
	tm_auto_free void *owned = result = calloc(1, sizeof(*result));
	char tool[128];
	const char *const argv[] = { tool, c->options[0], c->options[1] ? c->options[1] : path,
				     c->options[1] ? path : NULL, NULL };
	int r;

	if (!owned)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	if (!tm_tool_path(c->program, tool, sizeof(tool))) {
		r = tm_error_set(err, TM_ERR_TOOL_MISSING, ENOENT,
				 "%s is not installed, and the %s file system of volume %s/%s "
				 "needs it.",
				 c->program, tm_fs_kind_name(kind), op->pool.name, v->name);
		tm_error_hint(err, "Install %s.", c->package);
		return r;
	}
	r = tm_tool_run(argv, limit, &watch, result, err);
	if (r < 0)
		return r;
	if (c->replay && strstr(result->output, c->replay))
		return needs_replay(op, kind, err);
	if (result->status == 0)
		return 0;
	r = tm_error_set(err, TM_ERR_DAMAGED, EUCLEAN,
			 "%s finds the file system of volume %s/%s damaged (status %d): %.300s",
			 c->program, op->pool.name, v->name, result->status,
			 result->output[0] ? result->output : "it does not say how");
	tm_error_hint(err, "Nothing was changed. Repair it with %s, then check again.", c->program);
	return r;
}

static int check_volume(struct tm_op *op, struct tm_error *err)
{
	tm_auto_free uint8_t *start = malloc(TM_FS_KIND_BYTES);
	tm_auto_close int fd = -1;
	char path[TM_PATH_SIZE];
	enum tm_fs_kind kind;
	bool replay;
	size_t len = 0;
	int r;

	if (!start)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	tm_device_path(path, op->pool.name, op->items[0].name);
	fd = claim(op, path, err);
	if (fd < 0)
		return fd;
	r = read_start(fd, path, start, &len, err);
	if (r < 0)
		return r;
	kind = tm_fs_detect(start, len, &replay);
	if (kind == TM_FS_NONE) {
		r = tm_error_set(err, TM_ERR_WRONG_STATE, ENODATA,
				 "Volume %s/%s has no file system that thinmgrd can check.",
				 op->pool.name, op->items[0].name);
		tm_error_hint(err,
			      "Check what is on it yourself; then: thinmgr volume clear-suspect "
			      "%s/%s",
			      op->pool.name, op->items[0].name);
		return r;
	}
	if (replay)
		return needs_replay(op, kind, err);
	if (!checker_of(kind)->exclusive)
		(void)close(TM_TAKE_FD(fd));
	return run_checker(op, kind, path, err);
}

static const struct tm_step check_steps[] = {
	{ .name = "check", .run = check_volume },
	{ .name = "record", .run = record_cleared, .commit = true, .record = true },
};

const struct tm_op_type tm_op_volume_check = {
	.kind = TM_CMD_VOLUME_CHECK,
	.steps = check_steps,
	.n_steps = TM_ARRAY_SIZE(check_steps),
};
