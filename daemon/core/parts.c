/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What operations, looks and start-up do with a pool's devices. Every function can be called
 * again after it was cut off, and only ever changes devices that carry our UUID.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "logic/descriptor.h"
#include "logic/superblock.h"
#include "logic/thin-status.h"

#define REMOVE_WAIT_MS  10000
#define LINK_WAIT_MS    30000
#define PROBE_WAIT_USEC (1000 * TM_USEC_PER_MSEC)
/* A pool that is being extended is suspended for 20 ms, on a busy machine for longer. */
#define SUSPENDED_WAIT_MS  10000
#define SUSPENDED_PAUSE_MS 10

void tm_device_path(char buf[TM_PATH_SIZE], const char *pool, const char *volume)
{
	(void)snprintf(buf, TM_PATH_SIZE, "/dev/thinmgr/%s/%s", pool, volume);
}

int tm_parts_ours(struct tm_core *core, const struct tm_pool_record *pool, enum tm_dm_role role,
		  const struct tm_volume_record *volume, struct tm_dm_info *ret,
		  struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], uuid[TM_DM_UUID_SIZE];
	int r;

	tm_dm_name(name, role, pool->name, volume ? volume->name : NULL);
	tm_dm_uuid(uuid, role, &pool->id, volume ? &volume->id : NULL);
	r = tm_dm_info(core->dm, name, ret, err);
	if (r < 0)
		return r;
	if (!ret->exists)
		return 0;
	if (strcmp(ret->uuid, uuid) != 0) {
		r = tm_error_set(
			err, TM_ERR_EXISTS, EEXIST,
			"The device-mapper name %s is taken by a device that is not this pool's.",
			name);
		tm_error_hint(
			err,
			"Remove or rename that device (dmsetup info %s), or choose another name.",
			name);
		return r;
	}
	return 1;
}

/* Create the device when it is not there. Its table is not touched. */
static int ensure_device(struct tm_core *core, const struct tm_pool_record *pool,
			 enum tm_dm_role role, const struct tm_volume_record *volume,
			 struct tm_dm_info *info, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], uuid[TM_DM_UUID_SIZE];
	int r;

	r = tm_parts_ours(core, pool, role, volume, info, err);
	if (r != 0)
		return r;
	tm_dm_name(name, role, pool->name, volume ? volume->name : NULL);
	tm_dm_uuid(uuid, role, &pool->id, volume ? &volume->id : NULL);
	r = tm_dm_create(core->dm, name, uuid,
			 role == TM_ROLE_VOLUME ? TM_DM_UDEV_FULL : TM_DM_UDEV_HIDDEN, err);
	return r < 0 ? r : 0;
}

static int remove_device(struct tm_core *core, const struct tm_pool_record *pool,
			 enum tm_dm_role role, const struct tm_volume_record *volume,
			 struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE];
	struct tm_dm_info info;
	int r;

	r = tm_parts_ours(core, pool, role, volume, &info, err);
	if (r == -EEXIST) { /* a stranger's: ours is not there */
		if (err)
			*err = (struct tm_error){ 0 };
		return 0;
	}
	if (r <= 0)
		return r;
	tm_dm_name(name, role, pool->name, volume ? volume->name : NULL);
	/* A suspended device cannot be removed without losing what it queues: let it go on first.
	 */
	if (info.suspended && info.live_table) {
		r = tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS,
				 role == TM_ROLE_VOLUME ? TM_DM_UDEV_FULL : TM_DM_UDEV_HIDDEN, err);
		if (r < 0)
			return r;
	}
	r = tm_dm_remove(core->dm, name,
			 role == TM_ROLE_VOLUME ? TM_DM_UDEV_FULL : TM_DM_UDEV_HIDDEN,
			 REMOVE_WAIT_MS, err);
	return r == -ENXIO ? 0 : r;
}

static void part_name(char name[TM_DM_NAME_SIZE], const struct tm_pool_record *pool,
		      enum tm_part part)
{
	tm_dm_name(name, part == TM_PART_DATA ? TM_ROLE_DATA : TM_ROLE_META, pool->name, NULL);
}

/* Which device a linear one lies on now, and how much of it. */
static bool lies_on(struct tm_core *core, const char *name, unsigned int *ret_major,
		    unsigned int *ret_minor, uint64_t *ret_sectors)
{
	char type[32], params[64];

	return tm_dm_line(core->dm, name, true, type, sizeof(type), ret_sectors, params,
			  sizeof(params), NULL) >= 0 &&
	       strcmp(type, "linear") == 0 && sscanf(params, "%u:%u ", ret_major, ret_minor) == 2;
}

/* Nothing that it has, is about to get or waits for keeps it from being used as it is. */
static bool in_order(struct tm_core *core, const struct tm_pool_record *pool, enum tm_part part)
{
	struct tm_dm_info info;

	return tm_parts_ours(core, pool, part == TM_PART_DATA ? TM_ROLE_DATA : TM_ROLE_META, NULL,
			     &info, NULL) > 0 &&
	       info.live_table && !info.inactive_table && !info.suspended;
}

static int load_linear(struct tm_core *core, const struct tm_pool_record *pool, enum tm_part part,
		       const struct tm_attachment *a, uint64_t bytes, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], params[64];
	struct tm_dm_target target = { .type = "linear", .params = params };
	unsigned int major, minor;
	struct tm_dm_info up;
	uint64_t has = 0;
	bool same, lies;
	int r;

	part_name(name, pool, part);
	lies = lies_on(core, name, &major, &minor, &has);
	same = lies && major == a->segment.major && minor == a->segment.minor;
	/* A copy has the same name, but not what was written since. */
	if (lies && !same && tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &up, NULL) > 0 &&
	    up.live_table) {
		r = tm_error_set(err, TM_ERR_BACKING_GONE, ESTALE,
				 "The %s file in %s is not the one that pool %s is using.",
				 part == TM_PART_DATA ? "data" : "metadata", pool->directory,
				 pool->name);
		tm_error_hint(err, "Put the pool's own file back, or unmount what hides it. "
				   "Deactivate a pool before its files are moved.");
		return r;
	}
	target.length_sectors = bytes / TM_SECTOR;
	if (a->segment.length_sectors < target.length_sectors) {
		r = tm_error_set(err, TM_ERR_BACKING_GONE, EIO,
				 "The %s file of pool %s has %" PRIu64 " bytes, but %" PRIu64
				 " are in use.",
				 part == TM_PART_DATA ? "data" : "metadata", pool->name,
				 a->segment.length_sectors * TM_SECTOR, bytes);
		tm_error_hint(err, "The file in %s was cut short; restore it from a copy.",
			      pool->directory);
		return r;
	}
	/*
	 * To load a table anew suspends the device and so whatever is above it, for as long as
	 * readers of the old one may take: 16 ms at 250 ticks a second. So that of data is as long
	 * as it may ever have to be; how much of it is used says the pool's own.
	 */
	if (part == TM_PART_DATA) {
		if (same && has >= target.length_sectors && in_order(core, pool, part))
			return 0;
		target.length_sectors = tm_round_down(a->segment.room_sectors,
						      pool->block_bytes / TM_SECTOR);
	}
	(void)snprintf(params, sizeof(params), "%u:%u %" PRIu64, a->segment.major, a->segment.minor,
		       a->segment.offset_sectors);
	r = tm_dm_load(core->dm, name, &target, 1, false, err);
	if (r < 0)
		return r;
	return tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, err);
}

int tm_parts_load_linear(struct tm_core *core, const struct tm_pool_record *pool, enum tm_part part,
			 uint64_t bytes, struct tm_error *err)
{
	tm_cleanup(tm_attachment_done) struct tm_attachment a = { .fd = -1 };
	int r = tm_backing_attach(pool, part, &a, err);

	return r < 0 ? r : load_linear(core, pool, part, &a, bytes, err);
}

int tm_parts_lay(struct tm_core *core, const struct tm_pool_record *pool, enum tm_part part,
		 uint64_t bytes, struct tm_error *err)
{
	tm_cleanup(tm_attachment_done) struct tm_attachment a = { .fd = -1 };
	unsigned int major = 0, minor = 0;
	char name[TM_DM_NAME_SIZE];
	int r;

	/* What the device lies on now saves a search through all loop devices. */
	part_name(name, pool, part);
	if (!lies_on(core, name, &major, &minor, NULL))
		major = 0;
	r = tm_backing_grow_attached(pool, part, bytes, major, minor, &a, err);
	return r < 0 ? r : load_linear(core, pool, part, &a, bytes, err);
}

/* More is in use than was recorded: it came out of the reserve. */
static void found_more(uint64_t *bytes, uint64_t *reserve, uint64_t found)
{
	uint64_t more;

	if (found <= *bytes)
		return;
	more = found - *bytes;
	*reserve -= more < *reserve ? more : *reserve;
	*bytes = found;
}

int tm_parts_trim(struct tm_core *core, const struct tm_pool_record *pool, struct tm_error *err)
{
	uint64_t end = tm_sat_add(pool->data_bytes, pool->data_reserve_bytes), table = 0, used = 0;
	struct tm_thin_pool_status status = { 0 };
	struct tm_superblock sb;
	struct tm_dm_info info = { 0 };
	int r;

	r = tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &info, err);
	if (r > 0 && info.live_table) {
		r = tm_parts_status(core, pool->name, &status, &table, err);
		if (r >= 0 && (status.failed || info.inactive_table))
			return 0; /* not known, or about to be more */
		used = r >= 0 ? tm_sat_mul(status.data_total, pool->block_bytes) : 0;
	} else if (r >= 0) {
		r = tm_parts_read_superblock(pool, &sb, err);
		used = r > 0 ? tm_sat_mul(sb.data_blocks, pool->block_bytes) : 0;
	}
	if (r < 0)
		return r;
	if (table > end)
		end = table;
	if (used > end)
		end = used;
	return tm_backing_shrink_part(pool, TM_PART_DATA, end, err);
}

int tm_parts_attach(struct tm_core *core, struct tm_pool_record *pool, bool *ret_direct_io,
		    struct tm_error *err)
{
	static const struct {
		enum tm_part part;
		enum tm_dm_role role;
	} parts[] = { { TM_PART_METADATA, TM_ROLE_META }, { TM_PART_DATA, TM_ROLE_DATA } };
	uint64_t file_bytes, table_bytes = 0;
	struct tm_thin_pool_status status = { 0 };
	struct tm_dm_info up;
	int r;

	/* Below a pool that is up nothing may become shorter than what it uses. */
	r = tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &up, err);
	if (r > 0 && up.live_table)
		r = tm_parts_status(core, pool->name, &status, &table_bytes, err);
	if (r < 0)
		return r;
	if (table_bytes && status.failed)
		found_more(&pool->data_bytes, &pool->data_reserve_bytes, table_bytes);
	if (table_bytes && !status.failed) {
		found_more(&pool->data_bytes, &pool->data_reserve_bytes,
			   tm_sat_mul(status.data_total, pool->block_bytes));
		found_more(&pool->metadata_bytes, &pool->metadata_reserve_bytes,
			   tm_sat_mul(status.metadata_total, TM_METADATA_BLOCK));
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(parts); i++) {
		tm_cleanup(tm_attachment_done) struct tm_attachment a = { .fd = -1 };
		uint64_t bytes = parts[i].part == TM_PART_DATA
					 ? pool->data_bytes + pool->data_reserve_bytes
					 : pool->metadata_bytes + pool->metadata_reserve_bytes;
		struct tm_dm_info info;

		r = tm_backing_part_size(pool, parts[i].part, &file_bytes, err);
		if (r < 0)
			return r;
		/* A reserve that was recorded but not yet made is no loss. */
		if (parts[i].part == TM_PART_DATA && file_bytes < bytes &&
		    file_bytes >= pool->data_bytes) {
			pool->data_reserve_bytes = tm_round_down(file_bytes - pool->data_bytes,
								 pool->block_bytes);
			bytes = pool->data_bytes + pool->data_reserve_bytes;
		}
		if (parts[i].part == TM_PART_METADATA && file_bytes < bytes &&
		    file_bytes >= pool->metadata_bytes) {
			pool->metadata_reserve_bytes =
				tm_round_down(file_bytes - pool->metadata_bytes, TM_METADATA_BLOCK);
			bytes = pool->metadata_bytes + pool->metadata_reserve_bytes;
		}
		r = tm_backing_attach(pool, parts[i].part, &a, err);
		if (r < 0)
			return r;
		if (parts[i].part == TM_PART_DATA && ret_direct_io)
			*ret_direct_io = a.direct_io;
		r = ensure_device(core, pool, parts[i].role, NULL, &info, err);
		if (r < 0)
			return r;
		r = load_linear(core, pool, parts[i].part, &a, bytes, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int tm_parts_load_pool(struct tm_core *core, const struct tm_pool_record *pool, uint64_t data_bytes,
		       uint64_t low_water_bytes, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], params[256];
	struct tm_dm_info meta, data;
	struct tm_dm_target target = { .type = "thin-pool",
				       .params = params,
				       .length_sectors = data_bytes / TM_SECTOR };
	struct tm_thin_pool_table table = {
		.block_sectors = pool->block_bytes / TM_SECTOR,
		.low_water_blocks = low_water_bytes / pool->block_bytes,
		.skip_block_zeroing = !pool->zeroing,
		.ignore_discard = !pool->discard,
		.no_discard_passdown = pool->discard && (!pool->discard_passdown || !pool->sparse),
		.error_if_no_space = pool->when_full == TM_WHEN_FULL_ERROR,
	};
	int r;

	r = tm_parts_ours(core, pool, TM_ROLE_META, NULL, &meta, err);
	if (r > 0)
		r = tm_parts_ours(core, pool, TM_ROLE_DATA, NULL, &data, err);
	if (r < 0)
		return r;
	if (r == 0)
		return tm_error_set(err, TM_ERR_KERNEL, ENXIO,
				    "The data or metadata device of pool %s is not there.",
				    pool->name);
	table.metadata_major = meta.major;
	table.metadata_minor = meta.minor;
	table.data_major = data.major;
	table.data_minor = data.minor;
	r = tm_thin_pool_table_format(&table, params, sizeof(params));
	if (r < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, -r, "The table of pool %s does not fit.",
				    pool->name);
	tm_dm_name(name, TM_ROLE_POOL, pool->name, NULL);
	return tm_dm_load(core->dm, name, &target, 1, false, err);
}

int tm_parts_let_go(struct tm_core *core, const struct tm_pool_record *pool, struct tm_error *err)
{
	struct tm_thin_pool_status status = { 0 };
	char name[TM_DM_NAME_SIZE];
	uint64_t bytes = pool->data_bytes;
	struct tm_dm_info info;
	int r;

	r = tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &info, err);
	if (r <= 0 || !info.suspended || !info.live_table)
		return r < 0 ? r : 0;
	tm_dm_name(name, TM_ROLE_POOL, pool->name, NULL);
	if (info.inactive_table)
		(void)tm_dm_clear(core->dm, name, NULL);
	r = tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, NULL);
	if (r >= 0)
		return 0;
	/* What is live is the table that was refused. No shorter one fits what is in use. */
	if (tm_parts_status(core, pool->name, &status, NULL, NULL) >= 0 && !status.failed &&
	    tm_sat_mul(status.data_total, pool->block_bytes) > bytes)
		bytes = tm_sat_mul(status.data_total, pool->block_bytes);
	r = tm_parts_load_pool(core, pool, bytes, pool->low_water_bytes, err);
	if (r < 0)
		return r;
	return tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, err);
}

int tm_parts_switch_pool(struct tm_core *core, const struct tm_pool_record *former,
			 bool *ret_suspended, struct tm_error *err)
{
	struct tm_log_fields fields = { .pool = former->name };
	struct tm_error local = { 0 };
	char name[TM_DM_NAME_SIZE];
	int r;

	*ret_suspended = false;
	tm_dm_name(name, TM_ROLE_POOL, former->name, NULL);
	r = tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, err);
	if (r >= 0)
		return 0;
	if (err && !err->hint[0])
		tm_error_hint(err, "The kernel log says why (journalctl -k).");
	if (tm_parts_let_go(core, former, &local) < 0) {
		*ret_suspended = true;
		fields.error = &local;
		tm_log_fields(LOG_CRIT, &fields,
			      "Pool %s is left suspended and its volumes stand still: %s. It is "
			      "tried again every few seconds.",
			      former->name, local.detail);
	}
	return r;
}

int tm_parts_status(struct tm_core *core, const char *pool_name, struct tm_thin_pool_status *ret,
		    uint64_t *ret_table_bytes, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], type[32], params[512];
	uint64_t sectors = 0;
	int r;

	tm_dm_name(name, TM_ROLE_POOL, pool_name, NULL);
	r = tm_dm_line(core->dm, name, false, type, sizeof(type), &sectors, params, sizeof(params),
		       err);
	if (r < 0)
		return r;
	if (strcmp(type, "thin-pool") != 0 || tm_thin_pool_status_parse(params, ret) < 0)
		return tm_error_set(err, TM_ERR_KERNEL, EBADMSG,
				    "The kernel's status of pool %s was not understood: \"%s %s\".",
				    pool_name, type, params);
	if (ret_table_bytes)
		*ret_table_bytes = sectors * TM_SECTOR;
	return 0;
}

bool tm_parts_saw(struct tm_core *core, const struct tm_pool_record *pool,
		  struct tm_thin_pool_status *ret, uint64_t *ret_backing_free_bytes)
{
	struct tm_dm_info info;

	*ret_backing_free_bytes = 0;
	(void)tm_backing_free_bytes(pool, ret_backing_free_bytes, NULL);
	return pool->name[0] && tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &info, NULL) > 0 &&
	       info.live_table && tm_parts_status(core, pool->name, ret, NULL, NULL) >= 0;
}

int tm_parts_read_superblock(const struct tm_pool_record *pool, struct tm_superblock *ret,
			     struct tm_error *err)
{
	_Alignas(8) unsigned char block[TM_SUPERBLOCK_SIZE];
	static const unsigned char zero[TM_SUPERBLOCK_SIZE];
	int r;

	r = tm_backing_read(pool, TM_PART_METADATA, block, sizeof(block), err);
	if (r < 0)
		return r;
	/* Where volumes were made once it was not new: formatting would end all hope for them. */
	if (memcmp(block, zero, sizeof(zero)) == 0 && !pool->transaction_id)
		return 0;
	r = tm_superblock_parse(block, ret);
	if (r < 0) {
		(void)tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
				   "The metadata of pool %s has no valid superblock.", pool->name);
		tm_error_hint(err, "Nothing was changed. To mend it: thinmgr pool repair %s",
			      pool->name);
		return -EBADMSG;
	}
	return 1;
}

int tm_parts_metadata_whole(const struct tm_pool_record *pool, const struct tm_superblock *sb,
			    struct tm_error *err)
{
	const uint64_t wanted = tm_sat_mul(sb->metadata_blocks, TM_METADATA_BLOCK);
	uint64_t bytes;
	int r = tm_backing_part_size(pool, TM_PART_METADATA, &bytes, err);

	if (r < 0 || bytes >= wanted)
		return r;
	(void)tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			   "The metadata file of pool %s was cut short: it has %" PRIu64
			   " of %" PRIu64 " bytes.",
			   pool->name, bytes, wanted);
	tm_error_hint(err, "What is left may be enough to mend it: thinmgr pool repair %s",
		      pool->name);
	return -EBADMSG;
}

/* What the metadata says is the truth about sizes: a table must not be shorter. */
int tm_parts_learn_sizes(struct tm_pool_record *pool, struct tm_error *err)
{
	struct tm_superblock sb;
	int r;

	r = tm_parts_read_superblock(pool, &sb, err);
	if (r <= 0)
		return r;
	if ((uint64_t)sb.block_sectors * TM_SECTOR != pool->block_bytes)
		return tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
				    "The metadata of pool %s is for blocks of %u sectors, not %u.",
				    pool->name, sb.block_sectors,
				    (unsigned int)(pool->block_bytes / TM_SECTOR));
	found_more(&pool->data_bytes, &pool->data_reserve_bytes,
		   tm_sat_mul(sb.data_blocks, pool->block_bytes));
	found_more(&pool->metadata_bytes, &pool->metadata_reserve_bytes,
		   tm_sat_mul(sb.metadata_blocks, TM_METADATA_BLOCK));
	return 0;
}

int tm_parts_check_metadata(struct tm_core *core, struct tm_progress *progress,
			    const struct tm_pool_record *pool, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 16];
	struct tm_tool_result result = { 0 };
	struct tm_superblock sb;
	int r;

	r = tm_parts_read_superblock(pool, &sb, err);
	if (r <= 0)
		return r;
	r = tm_parts_metadata_whole(pool, &sb, err);
	if (r < 0)
		return r;
	if (sb.needs_check)
		return 0; /* the kernel brings it up read-only, and the state says so */
	tm_backing_part_path(pool, TM_PART_METADATA, path);
	r = tm_metadata_check(core, progress, path, pool->name, &result, err);
	if (r != 0)
		return r < 0 ? r : 0;
	(void)tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			   "thin_check found the metadata of pool %s damaged%s%s", pool->name,
			   result.output[0] ? ": " : ".", result.output);
	tm_error_hint(
		err,
		"The pool was not activated and nothing was changed. To mend it: thinmgr pool "
		"repair %s",
		pool->name);
	return -EBADMSG;
}

int tm_parts_start_pool(struct tm_core *core, struct tm_pool_record *pool, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE];
	struct tm_thin_pool_status status = { 0 };
	struct tm_dm_info info;
	uint64_t table_bytes = 0;
	int r;

	tm_dm_name(name, TM_ROLE_POOL, pool->name, NULL);
	r = ensure_device(core, pool, TM_ROLE_POOL, NULL, &info, err);
	if (r < 0)
		return r;
	if (r == 0 || !info.live_table) {
		/* While no pool had a table, the one module may have been put in the other's place.
		 */
		tm_system_want_target(core);
		r = tm_parts_load_pool(core, pool, pool->data_bytes, pool->low_water_bytes, err);
		if (r < 0)
			return r;
		tm_system_target_taken(core);
	}
	r = tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, err);
	if (r < 0) {
		tm_error_hint(err, "The kernel log says why (journalctl -k).");
		return r;
	}
	r = tm_parts_status(core, pool->name, &status, &table_bytes, err);
	if (r < 0)
		return r;
	if (status.failed) {
		(void)tm_error_set(
			err, TM_ERR_DAMAGED, EIO,
			"Pool %s came up in fail mode: the kernel cannot use its metadata.",
			pool->name);
		tm_error_hint(err, "The kernel log says more. To mend it: thinmgr pool repair %s",
			      pool->name);
		return -EIO;
	}
	/* The live table rules: it may be larger than what was recorded before a crash. */
	found_more(&pool->data_bytes, &pool->data_reserve_bytes, table_bytes);
	pool->metadata_bytes = tm_sat_mul(status.metadata_total, TM_METADATA_BLOCK);
	pool->metadata_reserve_bytes = 0; /* any resume takes all there is into use */
	return 0;
}

int tm_parts_detach(struct tm_core *core, const struct tm_pool_record *pool, struct tm_error *err)
{
	int r, first = 0;

	r = remove_device(core, pool, TM_ROLE_DATA, NULL, err);
	if (r < 0)
		first = r;
	r = remove_device(core, pool, TM_ROLE_META, NULL, first ? NULL : err);
	return first ? first : r;
}

int tm_parts_remove_pool(struct tm_core *core, const struct tm_pool_record *pool,
			 struct tm_error *err)
{
	int r;

	r = remove_device(core, pool, TM_ROLE_POOL, NULL, err);
	if (r < 0)
		return r;
	return tm_parts_detach(core, pool, err);
}

static void names_path(char buf[TM_PATH_SIZE], const struct tm_pool_record *pool,
		       const struct tm_volume_record *volume)
{
	char uuid[TM_DM_UUID_SIZE];

	tm_dm_uuid(uuid, TM_ROLE_VOLUME, &pool->id, &volume->id);
	(void)snprintf(buf, TM_PATH_SIZE, TM_RUN_DIRECTORY "/names/%s", uuid);
}

/* udev imports this file to name the links; it lives as long as the device can. */
int tm_parts_write_names(const struct tm_pool_record *pool, const struct tm_volume_record *volume,
			 struct tm_error *err)
{
	char path[TM_PATH_SIZE], text[256];
	tm_auto_free char *there = NULL;
	tm_auto_fclose FILE *f = NULL;
	size_t len;
	int n;

	if (mkdir(TM_RUN_DIRECTORY "/names", 0755) < 0 && errno != EEXIST)
		return tm_error_set(err, TM_ERR_IO, errno,
				    "Cannot make " TM_RUN_DIRECTORY "/names: %s.", strerror(errno));
	names_path(path, pool, volume);
	n = snprintf(text, sizeof(text), "THINMGR_POOL=%s\nTHINMGR_VOLUME=%s\n", pool->name,
		     volume->name);
	/* Not while udev may be reading it, unless there is something to say. */
	if (tm_read_file(path, sizeof(text), &there, &len) == 0 && len == (size_t)n &&
	    memcmp(there, text, len) == 0)
		return 0;
	/* No fsync: it need not outlive this boot. */
	f = fopen(path, "we");
	if (!f || fwrite(text, 1, (size_t)n, f) != (size_t)n || fflush(f) != 0)
		return tm_error_set(err, TM_ERR_IO, errno ? errno : EIO, "Cannot write %s: %s.",
				    path, strerror(errno));
	return 0;
}

void tm_parts_forget_names(const struct tm_pool_record *pool, const struct tm_volume_record *volume)
{
	char path[TM_PATH_SIZE];

	names_path(path, pool, volume);
	(void)unlink(path);
}

/*
 * Loads a thin table. A pool refuses one (EINVAL) while it is suspended, as it is for a moment
 * whenever it is extended. It may be over by the time one asks, hence a few tries whatever is seen.
 */
static int load_thin(struct tm_core *core, const struct tm_pool_record *pool, const char *name,
		     const struct tm_dm_target *target, bool read_only, struct tm_error *err)
{
	const uint64_t until = tm_now_monotonic_usec() + SUSPENDED_WAIT_MS * TM_USEC_PER_MSEC;
	const struct timespec pause = { .tv_nsec = SUSPENDED_PAUSE_MS * 1000000 };
	int more = 3;

	for (;;) {
		struct tm_dm_info info = { 0 };
		struct tm_error local = { 0 };
		int r = tm_dm_load(core->dm, name, target, 1, read_only, &local);
		bool suspended;

		if (r != -EINVAL) {
			if (r < 0 && err)
				*err = local;
			return r;
		}
		suspended = tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &info, NULL) > 0 &&
			    info.suspended;
		if (tm_now_monotonic_usec() >= until || (!suspended && --more == 0)) {
			if (suspended) {
				local.hint[0] = '\0';
				tm_error_hint(&local,
					      "Pool %s is suspended. Find out by whom (dmsetup "
					      "info %s:_pool), and have it resumed.",
					      pool->name, pool->name);
			}
			if (err)
				*err = local;
			return r;
		}
		(void)nanosleep(&pause, NULL);
	}
}

int tm_parts_load_volume(struct tm_core *core, const struct tm_pool_record *pool,
			 const struct tm_volume_record *volume, uint64_t bytes,
			 struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], params[64];
	struct tm_dm_target target = { .type = "thin",
				       .params = params,
				       .length_sectors = bytes / TM_SECTOR };
	struct tm_dm_info pool_info;
	int r;

	r = tm_parts_ours(core, pool, TM_ROLE_POOL, NULL, &pool_info, err);
	if (r < 0)
		return r;
	if (r == 0)
		return tm_error_set(err, TM_ERR_KERNEL, ENXIO, "Pool %s has no device.",
				    pool->name);
	r = tm_thin_table_format(pool_info.major, pool_info.minor, volume->dev_id, params,
				 sizeof(params));
	if (r < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, -r,
				    "The table of volume %s/%s does not fit.", pool->name,
				    volume->name);
	tm_dm_name(name, TM_ROLE_VOLUME, pool->name, volume->name);
	return load_thin(core, pool, name, &target, volume->read_only, err);
}

int tm_parts_activate_volume(struct tm_core *core, const struct tm_pool_record *pool,
			     const struct tm_volume_record *volume, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], path[TM_PATH_SIZE];
	struct tm_dm_info info;
	bool was_up;
	int r;

	tm_dm_name(name, TM_ROLE_VOLUME, pool->name, volume->name);
	tm_device_path(path, pool->name, volume->name);
	r = tm_parts_write_names(pool, volume, err);
	if (r < 0)
		return r;
	r = ensure_device(core, pool, TM_ROLE_VOLUME, volume, &info, err);
	if (r < 0)
		return r;
	was_up = r > 0 && info.live_table;
	if (r == 0 || !info.live_table) {
		r = tm_parts_load_volume(core, pool, volume, volume->size_bytes, err);
		if (r < 0)
			goto fail;
	}
	if (r == 0 || !info.live_table || info.suspended) {
		r = tm_dm_resume(core->dm, name, TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_FULL,
				 err);
		if (r < 0)
			goto fail;
	}
	r = tm_parts_ours(core, pool, TM_ROLE_VOLUME, volume, &info, err);
	if (r < 0)
		goto fail;
	r = tm_udev_wait_link(path, info.major, info.minor, LINK_WAIT_MS);
	if (r < 0) {
		(void)tm_error_set(err, TM_ERR_TIMEOUT, -r,
				   "%s did not appear within %d s of activating volume %s/%s.",
				   path, LINK_WAIT_MS / 1000, pool->name, volume->name);
		tm_error_hint(err, "See whether systemd-udevd runs and has thinmgr's rules.");
		goto fail;
	}
	return 0;
fail:
	if (!was_up) /* somebody may be using it */
		(void)remove_device(core, pool, TM_ROLE_VOLUME, volume, NULL);
	return r;
}

int tm_parts_unused(struct tm_core *core, const struct tm_pool_record *pool,
		    const struct tm_volume_record *volume, struct tm_dm_info *ret,
		    struct tm_error *err)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	const uint64_t until = tm_now_monotonic_usec() + PROBE_WAIT_USEC;
	int r;

	for (;;) {
		r = tm_parts_ours(core, pool, TM_ROLE_VOLUME, volume, ret, err);
		if (r <= 0 || ret->open_count == 0 || tm_now_monotonic_usec() >= until)
			return r;
		(void)nanosleep(&pause, NULL);
	}
}

int tm_parts_deactivate_volume(struct tm_core *core, const struct tm_pool_record *pool,
			       const struct tm_volume_record *volume, struct tm_error *err)
{
	char path[TM_PATH_SIZE];
	struct tm_dm_info info;
	int r;

	r = tm_parts_unused(core, pool, volume, &info, err);
	if (r == -EEXIST) { /* a stranger's: ours is not there */
		if (err)
			*err = (struct tm_error){ 0 };
		tm_parts_forget_names(pool, volume);
		return 0;
	}
	if (r < 0)
		return r;
	if (r > 0) {
		if (info.open_count > 0) {
			char text[128];

			(void)snprintf(text, sizeof(text), "%d", info.open_count);
			r = tm_error_set(
				err, TM_ERR_BUSY, EBUSY,
				"Volume %s/%s is open %s time%s (mounted, or held by a program).",
				pool->name, volume->name, text, info.open_count == 1 ? "" : "s");
			tm_device_path(path, pool->name, volume->name);
			tm_error_hint(err, "Find who holds it with: lsblk %s; fuser -vm %s", path,
				      path);
			return r;
		}
		r = remove_device(core, pool, TM_ROLE_VOLUME, volume, err);
		if (r < 0)
			return r;
		tm_device_path(path, pool->name, volume->name);
		/* The device is gone; a link that lingers is only ugly. */
		(void)tm_udev_wait_gone(path, LINK_WAIT_MS);
	}
	tm_parts_forget_names(pool, volume);
	return 0;
}

int tm_parts_move_transaction(struct tm_core *core, const struct tm_pool_record *pool,
			      uint64_t from, uint64_t to, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], message[96];
	struct tm_thin_pool_status status = { 0 };
	int r;

	r = tm_parts_status(core, pool->name, &status, NULL, err);
	if (r < 0)
		return r;
	if (status.failed)
		return tm_error_set(err, TM_ERR_NEEDS_CHECK, EIO, "Pool %s is in fail mode.",
				    pool->name);
	if (status.transaction_id == to)
		return 0;
	if (status.transaction_id != from)
		return tm_error_set(err, TM_ERR_WRONG_STATE, ESTALE,
				    "Pool %s is at transaction %" PRIu64
				    " in the kernel, where %" PRIu64
				    " was expected: somebody else changes it.",
				    pool->name, status.transaction_id, from);
	tm_dm_name(name, TM_ROLE_POOL, pool->name, NULL);
	(void)snprintf(message, sizeof(message), "set_transaction_id %" PRIu64 " %" PRIu64, from,
		       to);
	return tm_dm_message(core->dm, name, message, err);
}

int tm_parts_delete_thin(struct tm_core *core, const struct tm_pool_record *pool, uint32_t dev_id,
			 struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], message[64];
	struct tm_error local = { 0 };
	int r;

	tm_dm_name(name, TM_ROLE_POOL, pool->name, NULL);
	(void)snprintf(message, sizeof(message), "delete %" PRIu32, dev_id);
	r = tm_dm_message(core->dm, name, message, &local);
	if (r == -ENODATA)
		return 0;
	if (r < 0 && err && !err->code)
		*err = local;
	return r;
}

static int pool_message(struct tm_core *core, const struct tm_pool_record *pool, const char *what,
			uint64_t blocks, struct tm_error *err)
{
	char name[TM_DM_NAME_SIZE], message[64];

	tm_dm_name(name, TM_ROLE_POOL, pool->name, NULL);
	(void)snprintf(message, sizeof(message), "%s %" PRIu64, what, blocks);
	return tm_dm_message(core->dm, name, message, err);
}

int tm_parts_grow_pool(struct tm_core *core, const struct tm_pool_record *pool, uint64_t data_bytes,
		       uint64_t metadata_bytes, uint64_t mark_bytes, struct tm_error *err)
{
	int r = 0;

	/* Metadata first: more data needs some. The mark last, so that it is held against the
	 * larger space. */
	if (metadata_bytes)
		r = pool_message(core, pool, "grow_metadata", metadata_bytes / TM_METADATA_BLOCK,
				 err);
	if (r >= 0 && data_bytes)
		r = pool_message(core, pool, "grow_data", data_bytes / pool->block_bytes, err);
	if (r >= 0 && mark_bytes != pool->low_water_bytes)
		r = pool_message(core, pool, "set_low_water", mark_bytes / pool->block_bytes, err);
	return r;
}

int tm_parts_mark_metadata(struct tm_core *core, const struct tm_pool_record *pool, uint64_t blocks,
			   struct tm_error *err)
{
	return pool_message(core, pool, "set_metadata_low_water", blocks, err);
}

int tm_parts_write_descriptor(struct tm_core *core, const struct tm_uuid *pool,
			      struct tm_error *err)
{
	tm_cleanup(tm_descriptor_done) struct tm_descriptor d = { 0 };
	tm_auto_free char *text = NULL, *there = NULL;
	char path[TM_PATH_SIZE + 16];
	size_t len, there_len;
	int r;

	TM_LOCK_SCOPE(&core->descriptor_lock);
	r = tm_store_load_pool(core->store, pool, &d.pool, err);
	if (r < 0)
		return r;
	r = tm_store_load_volumes(core->store, pool, &d.volumes, &d.n_volumes, err);
	if (r < 0)
		return r;
	r = tm_descriptor_format(&d, &text, &len);
	if (r < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	tm_backing_descriptor_path(d.pool.directory, path);
	if (tm_read_file(path, TM_DESCRIPTOR_LIMIT, &there, &there_len) == 0 && there_len == len &&
	    memcmp(there, text, len) == 0)
		return 0;
	r = tm_write_file_atomic(path, text, len, 0600);
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "Cannot write the descriptor %s: %s.", path,
				    strerror(-r));
	return 0;
}

void tm_parts_claim_path(char buf[TM_PATH_SIZE + 64], const struct tm_pool_record *pool)
{
	(void)snprintf(buf, TM_PATH_SIZE + 64, "%s/creating.%s", pool->directory, pool->id.text);
}

int tm_parts_drop_claim(const struct tm_pool_record *pool, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 64];

	tm_parts_claim_path(path, pool);
	if (unlink(path) < 0 && errno != ENOENT)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot delete %s: %s.", path,
				    strerror(errno));
	return 0;
}
