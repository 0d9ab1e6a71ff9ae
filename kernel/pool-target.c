// SPDX-License-Identifier: GPL-2.0-only
/* "thin-pool": a pool, as device-mapper sees it. Its messages and lines are in message.c, status.c.
 */

#include <linux/module.h>
#include <linux/slab.h>

#include "pool.h"

/* ---- tables ------------------------------------------------------------------------------ */

static int parse_features(struct dm_arg_set *args, struct dtm_features *f, struct dm_target *ti)
{
	static const struct dm_arg count_arg = { 0, 4, "The number of features is not valid" };
	unsigned int n;
	int r;

	if (!args->argc)
		return 0; /* without any */
	r = dm_read_arg_group(&count_arg, args, &n, &ti->error);
	if (r)
		return -EINVAL;
	while (n--) {
		const char *name = dm_shift_arg(args);

		if (!strcasecmp(name, "skip_block_zeroing")) {
			f->zero_new_blocks = false;
		} else if (!strcasecmp(name, "ignore_discard")) {
			f->discard = false;
		} else if (!strcasecmp(name, "no_discard_passdown")) {
			f->discard_passdown = false;
		} else if (!strcasecmp(name, "read_only")) {
			f->mode = DTM_READ_ONLY;
		} else if (!strcasecmp(name, "error_if_no_space")) {
			f->error_if_no_space = true;
		} else {
			ti->error = "A feature is not known";
			return -EINVAL;
		}
	}
	if (args->argc) {
		ti->error = "There are more arguments than features";
		return -EINVAL;
	}
	return 0;
}

/* May the data device be told of blocks given back, and can it be? */
static bool can_pass_down(struct dtm_pool_line *line, u32 block_sectors)
{
	struct block_device *bdev = line->data_dev->bdev;
	const unsigned int most = bdev_max_discard_sectors(bdev);

	if (!line->asked.discard || !line->asked.discard_passdown)
		return false;
	if (most >= block_sectors)
		return true;
	DMWARN("%s: the data device %pg %s; blocks given back are not discarded on it",
	       dm_table_device_name(line->ti->table), bdev,
	       most ? "discards less than a block at once" : "does not support discard");
	return false;
}

static void free_line(struct dm_target *ti, struct dtm_pool_line *line)
{
	if (line->pool)
		dtm_pool_put(line->pool);
	if (line->metadata_dev)
		dm_put_device(ti, line->metadata_dev);
	if (line->data_dev)
		dm_put_device(ti, line->data_dev);
	kfree(line);
}

/* A pool that may not grow refuses a longer table now, while the live one goes on, rather than at
 * the resume, or silently. */
static int check_growth(struct dtm_pool *pool, struct dm_target *ti)
{
	const u64 blocks = dtm_block_of(pool, ti->len);
	struct dtm_metadata_sizes sizes;
	int r = 0;

	dtm_engine_lock(pool);
	if (pool->line && !dtm_metadata_sizes(pool->metadata, &sizes) &&
	    blocks > sizes.data_blocks && dtm_metadata_needs_check(pool->metadata)) {
		ti->error = "The pool cannot grow until its metadata was checked (needs_check)";
		r = -EPERM;
	}
	dtm_engine_unlock(pool);
	return r;
}

/* <metadata dev> <data dev> <block sectors> <low water blocks> [<#features> <feature>...] */
static int pool_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dtm_pool_line *line;
	struct dm_arg_set args = { .argc = argc, .argv = argv };
	unsigned long block_sectors;
	unsigned long long low_water;
	bool made;
	int r;

	if (argc < 4) {
		ti->error = "Give the metadata device, the data device, the block size and the "
			    "low-water mark";
		return -EINVAL;
	}
	line = kzalloc(sizeof(*line), GFP_KERNEL);
	if (!line) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	line->ti = ti;
	line->asked = (struct dtm_features){
		.zero_new_blocks = true,
		.discard = true,
		.discard_passdown = true,
		.mode = DTM_WRITE,
	};
	dm_consume_args(&args, 4);
	r = parse_features(&args, &line->asked, ti);
	if (r)
		goto fail;
	if (!strcmp(argv[0], argv[1])) {
		ti->error = "The metadata and the data device are the same";
		r = -EINVAL;
		goto fail;
	}
	if (kstrtoul(argv[2], 10, &block_sectors) || block_sectors < DTM_MIN_BLOCK_SECTORS ||
	    block_sectors > DTM_MAX_BLOCK_SECTORS || block_sectors % DTM_MIN_BLOCK_SECTORS) {
		ti->error = "The block size is not a multiple of 128 sectors from 128 to 2097152";
		r = -EINVAL;
		goto fail;
	}
	if (kstrtoull(argv[3], 10, &low_water)) {
		ti->error = "The low-water mark is not a number of blocks";
		r = -EINVAL;
		goto fail;
	}
	line->low_water = low_water;
	r = dm_get_device(ti, argv[0],
			  DTM_OPEN_READ | (line->asked.mode == DTM_READ_ONLY ? 0 : DTM_OPEN_WRITE),
			  &line->metadata_dev);
	if (r) {
		ti->error = "Cannot open the metadata device";
		goto fail;
	}
	dtm_pool_warn_oversized(line->metadata_dev->bdev);
	r = dm_get_device(ti, argv[1], DTM_OPEN_READ | DTM_OPEN_WRITE, &line->data_dev);
	if (r) {
		ti->error = "Cannot open the data device";
		goto fail;
	}
	if (line->data_dev->bdev == line->metadata_dev->bdev) { /* by two names */
		ti->error = "The metadata and the data device are the same";
		r = -EINVAL;
		goto fail;
	}
	line->pool = dtm_pool_get(dm_table_get_md(ti->table), line->metadata_dev->bdev,
				  line->data_dev->bdev, block_sectors,
				  line->asked.mode == DTM_READ_ONLY, &ti->error, &made);
	if (IS_ERR(line->pool)) {
		r = PTR_ERR(line->pool);
		line->pool = NULL;
		goto fail;
	}
	if (READ_ONCE(line->pool->mode) == DTM_FAIL) {
		ti->error = "The pool failed; take it down before it is made again";
		r = -EINVAL;
		goto fail;
	}
	/* Devices that were told that they can discard would not learn otherwise. */
	if (!made && line->pool->features.discard != line->asked.discard) {
		ti->error = "Whether a pool takes discards cannot be changed while it is there";
		r = -EINVAL;
		goto fail;
	}
	if (made)
		line->pool->features.discard = line->asked.discard;
	if (dtm_metadata_is_stale(line->pool->metadata)) {
		ti->error = "The metadata was changed while the pool was not there (the kernel log "
			    "says more)";
		r = -ESTALE;
		goto fail;
	}
	r = check_growth(line->pool, ti);
	if (r)
		goto fail;
	line->passdown = can_pass_down(line, block_sectors);
	ti->num_flush_bios = 1;
	ti->limit_swap_bios = true;
	if (line->passdown) {
		/* Discards sent to the pool device itself go to the data device. */
		ti->num_discard_bios = 1;
		ti->discards_supported = true;
	}
	ti->private = line;
	return 0;
fail:
	free_line(ti, line);
	return r;
}

static void pool_dtr(struct dm_target *ti)
{
	struct dtm_pool_line *line = ti->private;
	struct dtm_pool *pool = line->pool;

	dtm_engine_lock(pool);
	if (pool->line == line) {
		/* What a message changed since the suspend. */
		(void)dtm_pool_commit(pool);
		pool->line = NULL;
		/* Thin devices keep the pool, but not the devices below it: a removal by force puts
		 * another target in its place. */
		dtm_metadata_detach(pool->metadata);
	}
	dtm_engine_unlock(pool);
	free_line(ti, line);
}

/* I/O to the pool device itself goes where its own address says. */
static int pool_map(struct dm_target *ti, struct bio *bio)
{
	struct dtm_pool_line *line = ti->private;

	bio_set_dev(bio, line->data_dev->bdev);
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	return DM_MAPIO_REMAPPED;
}

/* ---- suspend and resume ------------------------------------------------------------------ */

/* Nothing of the pool moves after this. Thin devices keep what comes meanwhile. */
static void pool_presuspend(struct dm_target *ti)
{
	struct dtm_pool_line *line = ti->private;

	dtm_pool_close_gate(line->pool);
}

static void pool_resume(struct dm_target *ti)
{
	struct dtm_pool_line *line = ti->private;

	dtm_pool_open_gate(line->pool);
	dtm_engine_lock(line->pool);
	dtm_pool_retry_waiting(line->pool);
	dtm_engine_unlock(line->pool);
}

static void pool_postsuspend(struct dm_target *ti)
{
	struct dtm_pool_line *line = ti->private;
	struct dtm_pool *pool = line->pool;

	dtm_engine_lock(pool);
	/* An error changes the mode, and is seen in the status. A thin device may be suspended
	 * next, and wait for its writes. */
	dtm_pool_commit_and_tell(pool);
	dtm_engine_unlock(pool);
}

/*
 * A pool that did not grow is better than one that stays suspended, with all that waits for it. So
 * what stands in the way is said, and the resume goes on; but not where that would be with less
 * space than there was.
 */
static int grow_result(struct dtm_pool *pool, const char *what, u64 from, u64 to, int r)
{
	const bool needs_check = dtm_metadata_needs_check(pool->metadata);

	if (!r)
		return 0;
	if (!dtm_mode_may_change(pool->mode) || needs_check) {
		DMWARN("%s: %s is not grown from %llu to %llu blocks: it is read-only%s",
		       dm_device_name(pool->md), what, from, to,
		       needs_check ? ", and needs_check is set" : "");
		return 0;
	}
	if (r != -ENOSPC)
		return r;
	DMWARN("%s: %s is not grown from %llu to %llu blocks: too little metadata is left",
	       dm_device_name(pool->md), what, from, to);
	return 0;
}

/* The size the table asks for. It may be shorter only where it was live when the pool was grown by
 * a message: then it says what was once. */
static int grow_data(struct dtm_pool *pool, struct dtm_pool_line *line)
{
	const u64 blocks = dtm_block_of(pool, line->ti->len);
	struct dtm_metadata_sizes sizes;
	int r = dtm_metadata_sizes(pool->metadata, &sizes);

	if (r)
		return 0; /* it cannot be read now, but what it has is served */
	if (blocks == sizes.data_blocks || (blocks < sizes.data_blocks && line->grown))
		return 0;
	if (blocks < sizes.data_blocks) {
		DMERR("%s: the table is for %llu data blocks, and the pool has %llu",
		      dm_device_name(pool->md), blocks, sizes.data_blocks);
		return -EINVAL;
	}
	r = dtm_pool_grow_data(pool, blocks);
	if (!r)
		r = dtm_pool_commit(pool);
	return grow_result(pool, "data space", sizes.data_blocks, blocks, r);
}

static int grow_metadata(struct dtm_pool *pool)
{
	const u64 blocks = dtm_metadata_device_blocks(pool->metadata_bdev);
	struct dtm_metadata_sizes sizes;
	int r = dtm_metadata_sizes(pool->metadata, &sizes);

	if (r || blocks == sizes.metadata_blocks)
		return 0;
	if (blocks < sizes.metadata_blocks) {
		DMERR("%s: the metadata device has %llu blocks, and the metadata needs %llu",
		      dm_device_name(pool->md), blocks, sizes.metadata_blocks);
		return -EINVAL;
	}
	r = dtm_pool_grow_metadata(pool, blocks);
	return grow_result(pool, "metadata", sizes.metadata_blocks, blocks, r);
}

static int pool_preresume(struct dm_target *ti)
{
	struct dtm_pool_line *line = ti->private;
	struct dtm_pool *pool = line->pool;
	struct dtm_metadata_sizes sizes = { 0 };
	int r;

	dtm_engine_lock(pool);
	if (pool->line != line) {
		r = dtm_pool_mend(pool); /* detached, if there was no line for a while */
		if (r == -ESTALE) {
			dtm_engine_unlock(pool);
			return r;
		}
		/* What a message changed since the suspend: in another mode it may have to stay
		 * undone. */
		(void)dtm_pool_commit(pool);
		(void)dtm_metadata_sizes(pool->metadata, &sizes);
		pool->line = line;
		WRITE_ONCE(pool->sectors, ti->len);
		pool->low_water = line->low_water;
		pool->features = line->asked;
		dtm_pool_set_marks(pool);
		if (dtm_pool_bind_mode(pool, dtm_block_of(pool, ti->len) > sizes.data_blocks))
			DMWARN("%s: the mode that the table asks for is not possible: the pool is "
			       "%s",
			       dm_device_name(pool->md), dtm_mode_text(pool->mode));
	} else {
		dtm_pool_set_marks(pool); /* what is low is told again after a resume */
		dtm_pool_event(pool, DTM_EV_RESUME);
	}
	r = grow_metadata(pool); /* first: more data space needs some */
	if (!r)
		r = grow_data(pool, line);
	dtm_engine_unlock(pool);
	return r;
}

/* ---- limits ------------------------------------------------------------------------------ */

static int pool_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct dtm_pool_line *line = ti->private;

	return fn(ti, line->data_dev, 0, ti->len, data);
}

static void pool_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct dtm_pool_line *line = ti->private;
	const u32 block = line->pool->block_sectors;
	const u32 opt = limits->io_opt >> SECTOR_SHIFT;

	/* So that blocks are not split at odd places: a part of a block that divides it. */
	if (limits->max_sectors < block) {
		unsigned int most = rounddown_pow_of_two(limits->max_sectors);

		while (block % most)
			most >>= 1;
		limits->max_sectors = most;
	}
	/* What the data device says is better where it fits: a stripe of some blocks. */
	if (opt < block || opt % block) {
		limits->io_min = (limits->max_sectors < block ? limits->max_sectors : block)
				 << SECTOR_SHIFT;
		limits->io_opt = block << SECTOR_SHIFT;
	}
	if (!line->passdown) {
		dtm_set_max_discard(limits, 0);
		limits->discard_granularity = 0;
	}
}

struct target_type dtm_pool_target = {
	.name = "thin-pool",
	.features = DM_TARGET_SINGLETON | DM_TARGET_ALWAYS_WRITEABLE | DM_TARGET_IMMUTABLE,
	.version = { 1, 23, 0 },
	.module = THIS_MODULE,
	.ctr = pool_ctr,
	.dtr = pool_dtr,
	.map = pool_map,
	.presuspend = pool_presuspend,
	.presuspend_undo = pool_resume,
	.postsuspend = pool_postsuspend,
	.preresume = pool_preresume,
	.resume = pool_resume,
	.message = dtm_pool_message,
	.status = dtm_pool_status,
	.iterate_devices = pool_iterate_devices,
	.io_hints = pool_io_hints,
};
