/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thin-provisioning-tools, run on files that hold metadata. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "core/internal.h"

/* Longer than is configured where there is much to read. */
#define LIMIT_S_PER_MIB 2

/* Debian 12 has it. Older ones are said to be wrong about what they could not save. */
#define OLDEST_MAJOR 0
#define OLDEST_MINOR 9

/* The first major version whose thin_check reads metadata snapshots. */
#define FIRST_THAT_CHECKS_HELD 1

static unsigned int limit_for(const struct tm_core *core, const char *path)
{
	const unsigned int limit = (unsigned int)(core->config.tool_limit_usec / TM_USEC_PER_SEC);
	struct stat st;

	if (stat(path, &st) < 0 || st.st_size < 0)
		return limit;
	return limit + (unsigned int)((uint64_t)st.st_size / TM_MIB) * LIMIT_S_PER_MIB;
}

static int find(const char *name, const char *pool, char buf[128], struct tm_error *err)
{
	int r;

	if (tm_tool_path(name, buf, 128))
		return 0;
	r = tm_error_set(err, TM_ERR_TOOL_MISSING, ENOENT,
			 "%s is not installed, and the metadata of pool %s needs it.", name, pool);
	tm_error_hint(err, "Install thin-provisioning-tools.");
	return r;
}

/* "0.9.0", "thin_check 1.0.6": the first number with a dot in it. */
static bool parse_version(const char *text, unsigned int *ret_major, unsigned int *ret_minor)
{
	for (const char *at = text; *at; at++) {
		if (*at < '0' || *at > '9')
			continue;
		if (sscanf(at, "%4u.%4u", ret_major, ret_minor) == 2)
			return true;
		at += strspn(at, "0123456789") - 1;
	}
	return false;
}

/* What a tool calls itself, in @ret, and by which version. */
static int ask_version(struct tm_core *core, const char *name, const char *pool, char tool[128],
		       struct tm_tool_result *ret, unsigned int *ret_major, unsigned int *ret_minor,
		       struct tm_error *err)
{
	const char *const argv[] = { tool, "--version", NULL };
	int r = find(name, pool, tool, err);

	*ret_major = *ret_minor = 0;
	if (r >= 0)
		r = tm_tool_run(argv, limit_for(core, ""), NULL, ret, err);
	if (r < 0)
		return r;
	return ret->status == 0 && parse_version(ret->output, ret_major, ret_minor);
}

int tm_metadata_tools_ready(struct tm_core *core, const char *pool, struct tm_error *err)
{
	static const char *const names[] = { "thin_check", "thin_repair" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		unsigned int major = 0, minor = 0;
		struct tm_tool_result result = { 0 };
		char tool[128];
		int r = ask_version(core, names[i], pool, tool, &result, &major, &minor, err);

		if (r < 0)
			return r;
		if (r > 0 && (major > OLDEST_MAJOR || minor >= OLDEST_MINOR))
			continue;
		(void)tm_error_set(err, TM_ERR_TOOL_MISSING, ENOEXEC,
				   "%s is too old for the metadata of pool %s, or no such program: "
				   "it calls itself \"%.100s\".",
				   tool, pool, result.output);
		tm_error_hint(err, "Install thin-provisioning-tools %u.%u or newer.", OLDEST_MAJOR,
			      OLDEST_MINOR);
		return -ENOEXEC;
	}
	return 0;
}

/*
 * How a tool's progress is seen: by what it has read and written of what is used of the metadata at
 * @path, @times over. (Measured with a million mappings: thin_check 0.9 reads it twice, thin_repair
 * reads it and writes as much, thin_dump reads it once. None of them tells by itself when it is not
 * on a terminal.)
 */
static struct tm_tool_watch watch(struct tm_progress *progress, const char *path,
				  unsigned int times)
{
	tm_auto_close int fd = progress ? open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
	unsigned char block[TM_SUPERBLOCK_SIZE];
	struct tm_superblock sb = { 0 };
	uint64_t blocks = 0;

	if (fd >= 0 && pread(fd, block, sizeof(block), 0) == (ssize_t)sizeof(block) &&
	    tm_superblock_parse(block, &sb) >= 0 && sb.metadata_used <= sb.metadata_blocks)
		blocks = sb.metadata_used;
	return (struct tm_tool_watch){ progress, blocks * TM_METADATA_BLOCK * times };
}

int tm_metadata_check(struct tm_core *core, struct tm_progress *progress, const char *path,
		      const char *pool, struct tm_tool_result *ret, struct tm_error *err)
{
	const struct tm_tool_watch w = watch(progress, path, 2);
	char tool[128];
	const char *const argv[] = { tool, path, NULL };
	int r = find("thin_check", pool, tool, err);

	if (r >= 0)
		r = tm_tool_run(argv, limit_for(core, path), &w, ret, err);
	return r < 0 ? r : ret->status == 0;
}

int tm_metadata_clear_flag(struct tm_core *core, struct tm_progress *progress, const char *path,
			   const char *pool, struct tm_error *err)
{
	const struct tm_tool_watch w = watch(progress, path, 2);
	char tool[128];
	const char *const argv[] = { tool, "--clear-needs-check-flag", path, NULL };
	struct tm_tool_result result = { 0 };
	int r = find("thin_check", pool, tool, err);

	if (r >= 0)
		r = tm_tool_run(argv, limit_for(core, path), &w, &result, err);
	if (r < 0 || result.status == 0)
		return r;
	return tm_error_set(err, TM_ERR_TOOL_FAILED, EIO,
			    "thin_check could not clear needs_check of the metadata of pool %s "
			    "(status %d)%s%s",
			    pool, result.status, result.output[0] ? ": " : ".", result.output);
}

int tm_metadata_repair(struct tm_core *core, struct tm_progress *progress,
		       const struct tm_pool_record *pool, const char *from, const char *to,
		       bool superblock_lost, struct tm_error *err)
{
	const struct tm_tool_watch w = watch(progress, from, 2);
	char tool[128], transaction[24], block[24], blocks[24];
	const char *const argv[] = { tool,        "-i",
				     from,        "-o",
				     to,          superblock_lost ? "--transaction-id" : NULL,
				     transaction, "--data-block-size",
				     block,       "--nr-data-blocks",
				     blocks,      NULL };
	struct tm_tool_result result = { 0 };
	int r = find("thin_repair", pool->name, tool, err);

	(void)snprintf(transaction, sizeof(transaction), "%" PRIu64, pool->transaction_id);
	(void)snprintf(block, sizeof(block), "%" PRIu64, pool->block_bytes / TM_SECTOR);
	(void)snprintf(blocks, sizeof(blocks), "%" PRIu64, pool->data_bytes / pool->block_bytes);

	if (r >= 0)
		r = tm_tool_run(argv, limit_for(core, from), &w, &result, err);
	if (r < 0 || result.status == 0)
		return r;
	return tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			    "thin_repair could not save the metadata of pool %s (status %d)%s%s",
			    pool->name, result.status, result.output[0] ? ": " : ".",
			    result.output);
}

int tm_metadata_tool_there(const char *name, const char *pool, struct tm_error *err)
{
	char tool[128];

	return find(name, pool, tool, err);
}

/* As long as for the file that a pool's metadata device stands on. */
static unsigned int limit_of_pool(const struct tm_core *core, const struct tm_pool_record *pool)
{
	char path[TM_PATH_SIZE + 16];

	tm_backing_part_path(pool, TM_PART_METADATA, path);
	return limit_for(core, path);
}

int tm_metadata_check_held(struct tm_core *core, struct tm_progress *progress,
			   const struct tm_pool_record *pool, const char *device,
			   struct tm_tool_result *ret, struct tm_error *err)
{
	const struct tm_tool_watch w = watch(progress, device, 1);
	char tool[128];
	const char *const argv[] = { tool, "--metadata-snap", device, NULL };
	unsigned int major, minor;
	int r = ask_version(core, "thin_check", pool->name, tool, ret, &major, &minor, err);

	if (r < 0 || major < FIRST_THAT_CHECKS_HELD)
		return r < 0 ? r : 1;
	r = tm_tool_run(argv, limit_of_pool(core, pool), &w, ret, err);
	return r < 0 ? r : ret->status == 0;
}

int tm_metadata_dump(struct tm_core *core, struct tm_progress *progress,
		     const struct tm_pool_record *pool, const char *path, bool held,
		     tm_tool_sink_fn fn, void *userdata, struct tm_tool_result *ret,
		     struct tm_error *err)
{
	const struct tm_tool_watch w = watch(progress, path, 1);
	char tool[128];
	const char *const argv[] = { tool, held ? "--metadata-snap" : path, held ? path : NULL,
				     NULL };
	int r = find("thin_dump", pool->name, tool, err);

	if (r >= 0)
		r = tm_tool_read(argv, limit_of_pool(core, pool), &w, fn, userdata, ret, err);
	return r < 0 ? r : ret->status == 0;
}

int tm_metadata_restore(struct tm_core *core, struct tm_progress *progress,
			const struct tm_pool_record *pool, const char *from, const char *to,
			struct tm_error *err)
{
	const struct tm_tool_watch w = { .progress = progress }; /* the dump is compressed */
	char tool[128];
	const char *const argv[] = { tool, "-i", from, "-o", to, NULL };
	struct tm_tool_result result = { 0 };
	int r = find("thin_restore", pool->name, tool, err);

	if (r >= 0)
		r = tm_tool_run(argv, limit_for(core, to), &w, &result, err);
	if (r < 0 || result.status == 0)
		return r;
	return tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			    "thin_restore could not make metadata of the copy for pool %s (status "
			    "%d)%s%s",
			    pool->name, result.status, result.output[0] ? ": " : ".",
			    result.output);
}
