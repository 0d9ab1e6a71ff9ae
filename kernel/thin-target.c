// SPDX-License-Identifier: GPL-2.0-only
/* "thin": a device of a pool, as device-mapper sees it. */

#include <linux/module.h>
#include <linux/slab.h>

#include "pool.h"

/* ---- tables ------------------------------------------------------------------------------ */

static void free_thin(struct dm_target *ti, struct dtm_thin *thin)
{
	dtm_device_close(thin->device);
	if (thin->pool)
		dtm_pool_put(thin->pool);
	if (thin->pool_dev)
		dm_put_device(ti, thin->pool_dev);
	if (thin->origin_dev)
		dm_put_device(ti, thin->origin_dev);
	if (thin->traffic && !thin->traffic->users)
		kfree(thin->traffic);
	kfree(thin);
}

static int find_pool(struct dtm_thin *thin, struct dm_target *ti)
{
	struct mapped_device *md = dm_get_md(thin->pool_dev->bdev->bd_dev);

	if (!md) {
		ti->error = "The pool device is not a device-mapper device";
		return -EINVAL;
	}
	thin->pool = dtm_pool_find(md);
	dm_put(md);
	if (!thin->pool) {
		ti->error = "There is no thin-pool on the pool device";
		return -EINVAL;
	}
	if (READ_ONCE(thin->pool->mode) == DTM_FAIL) {
		ti->error = "The pool failed";
		return -EINVAL;
	}
	return 0;
}

/* That of the other lines of the device, or the line's own. */
static void share_traffic(struct dtm_thin *thin)
{
	struct dtm_thin *other;

	list_for_each_entry(other, &thin->pool->thins, list) {
		if (other->device == thin->device) {
			kfree(thin->traffic);
			thin->traffic = other->traffic;
			break;
		}
	}
	thin->traffic->users++;
}

/* On the list of its pool, unless that is suspended. */
static int enlist(struct dtm_thin *thin, struct dm_target *ti)
{
	struct dtm_pool *pool = thin->pool;
	int r = 0;

	thin->traffic = kzalloc(sizeof(*thin->traffic), GFP_KERNEL);
	if (!thin->traffic) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	dtm_cells_init(&thin->traffic->cells);
	dtm_flights_init(&thin->traffic->flights);
	dtm_engine_lock(pool);
	spin_lock_irq(&pool->lock);
	if (pool->gate_closing) {
		ti->error = "The pool is suspended";
		r = -EINVAL;
	} else {
		share_traffic(thin);
		list_add_tail(&thin->list, &pool->thins);
	}
	spin_unlock_irq(&pool->lock);
	dtm_engine_unlock(pool);
	return r;
}

static int thin_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dtm_thin *thin;
	u32 id;
	int r;

	if (argc != 2 && argc != 3) {
		ti->error = "Give the pool device, the device id, and an external origin if there "
			    "is one";
		return -EINVAL;
	}
	thin = kzalloc(sizeof(*thin), GFP_KERNEL);
	if (!thin) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	thin->ti = ti;
	INIT_LIST_HEAD(&thin->list);
	spin_lock_init(&thin->lock);
	bio_list_init(&thin->deferred);
	INIT_LIST_HEAD(&thin->cells_todo);
	bio_list_init(&thin->no_space);

	if (argc == 3) {
		if (!strcmp(argv[0], argv[2])) {
			ti->error = "The external origin cannot be the pool";
			r = -EINVAL;
			goto fail;
		}
		r = dm_get_device(ti, argv[2], DTM_OPEN_READ, &thin->origin_dev);
		if (r) {
			ti->error = "Cannot open the external origin";
			goto fail;
		}
	}
	r = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &thin->pool_dev);
	if (r) {
		ti->error = "Cannot open the pool device";
		goto fail;
	}
	if (kstrtou32(argv[1], 10, &id) || id > DTM_MAX_DEVICE_ID) {
		ti->error = "The device id is not a number of 24 bits";
		r = -EINVAL;
		goto fail;
	}
	r = find_pool(thin, ti);
	if (r)
		goto fail;
	r = dtm_device_open(thin->pool->metadata, id, dtm_block_of(thin->pool, ti->len),
			    &thin->device);
	if (r) {
		ti->error = "Cannot open the thin device in the pool's metadata";
		goto fail;
	}
	r = dm_set_target_max_io_len(ti, thin->pool->block_sectors);
	if (r)
		goto fail;
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->accounts_remapped_io = true;
	ti->limit_swap_bios = true;
	ti->per_io_data_size = sizeof(struct dtm_io);
	if (thin->pool->features.discard) {
		ti->discards_supported = true;
		ti->num_discard_bios = 1;
	}
	r = enlist(thin, ti);
	if (r)
		goto fail;
	ti->private = thin;
	return 0;
fail:
	free_thin(ti, thin);
	return r;
}

static void thin_dtr(struct dm_target *ti)
{
	struct dtm_thin *thin = ti->private;

	dtm_engine_lock(thin->pool); /* the worker may be at it */
	spin_lock_irq(&thin->pool->lock);
	list_del(&thin->list);
	spin_unlock_irq(&thin->pool->lock);
	if (--thin->traffic->users)
		thin->traffic = NULL; /* another line's now */
	dtm_engine_unlock(thin->pool);
	free_thin(ti, thin);
}

/* ---- I/O --------------------------------------------------------------------------------- */

static int thin_map(struct dm_target *ti, struct bio *bio)
{
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	return dtm_map(ti->private, bio);
}

static int thin_endio(struct dm_target *ti, struct bio *bio, blk_status_t *status)
{
	dtm_end_flight(dtm_io_of(bio));
	return DM_ENDIO_DONE;
}

/* ---- suspend and resume ------------------------------------------------------------------ */

/* Flushes and writes with FUA that wait for a commit. */
static void take_flushes(struct dtm_thin *thin, struct bio_list *bios)
{
	struct dtm_pool *pool = thin->pool;
	struct bio_list all;
	struct bio *bio;

	bio_list_init(&all);
	spin_lock_irq(&pool->lock);
	bio_list_merge(&all, &pool->flushes);
	bio_list_init(&pool->flushes);
	while ((bio = bio_list_pop(&all)))
		bio_list_add(dtm_io_of(bio)->thin == thin ? bios : &pool->flushes, bio);
	spin_unlock_irq(&pool->lock);
}

static bool is_of(const struct bio *bio, const void *thin)
{
	return dtm_io_of((struct bio *)bio)->thin == thin;
}

void dtm_give_back(struct dtm_thin *thin)
{
	struct dtm_cell *cell, *more;
	struct bio_list bios;
	LIST_HEAD(cells);
	struct bio *bio;

	bio_list_init(&bios);
	take_flushes(thin, &bios);
	/* In cells that other lines hold; those of this one are let go below. */
	if (thin->traffic->users > 1)
		dtm_cells_leave(&thin->traffic->cells, is_of, thin, &bios);
	spin_lock_irq(&thin->lock);
	bio_list_merge(&bios, &thin->deferred);
	bio_list_init(&thin->deferred);
	bio_list_merge(&bios, &thin->no_space);
	bio_list_init(&thin->no_space);
	list_splice_init(&thin->cells_todo, &cells);
	spin_unlock_irq(&thin->lock);
	dtm_pool_gave_back(thin->pool);
	list_for_each_entry_safe(cell, more, &cells, list) {
		struct dtm_io *io = container_of(cell, struct dtm_io, cell);
		struct bio_list waiting;

		list_del_init(&cell->list);
		bio_list_init(&waiting);
		io->holds = false;
		dtm_cell_release(&thin->traffic->cells, cell, &waiting);
		/* In this moment those of this line are given back as well. */
		dtm_defer_list(&waiting);
		bio_list_add(&bios, dtm_bio_of(io));
	}
	while ((bio = bio_list_pop(&bios))) {
		bio->bi_status = BLK_STS_DM_REQUEUE;
		bio_endio(bio);
	}
}

static void thin_presuspend(struct dm_target *ti)
{
	struct dtm_thin *thin = ti->private;

	if (!dm_noflush_suspending(ti))
		return;
	/* What waits for the pool, or for space, is given back to device-mapper, which keeps it. */
	dtm_engine_lock(thin->pool);
	spin_lock_irq(&thin->lock);
	WRITE_ONCE(thin->requeue, true);
	spin_unlock_irq(&thin->lock);
	dtm_give_back(thin);
	dtm_engine_unlock(thin->pool);
}

/* Also where the suspend was given up. */
static void thin_postsuspend(struct dm_target *ti)
{
	struct dtm_thin *thin = ti->private;

	WRITE_ONCE(thin->requeue, false);
}

static int thin_preresume(struct dm_target *ti)
{
	struct dtm_thin *thin = ti->private;

	if (thin->origin_dev)
		thin->origin_sectors = bdev_nr_sectors(thin->origin_dev->bdev);
	return 0;
}

/* ---- what it looks like ------------------------------------------------------------------ */

/*
 * <mapped sectors> <highest mapped sector or ->, or Fail
 * <pool dev> <device id> [<external origin>]
 */
static void thin_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
			char *result, unsigned int maxlen)
{
	struct dtm_thin *thin = ti->private;
	struct dtm_pool *pool = thin->pool;
	char pool_name[BDEVNAME_SIZE], origin_name[BDEVNAME_SIZE];
	unsigned int sz = 0;
	u64 highest;
	int r;

	switch (type) {
	case STATUSTYPE_INFO:
		if (READ_ONCE(pool->mode) == DTM_FAIL) {
			DMEMIT("Fail");
			break;
		}
		DMEMIT("%llu ", dtm_device_mapped_blocks(thin->device) * pool->block_sectors);
		r = dtm_device_highest_mapped(thin->device, &highest);
		if (r && r != -ENODATA) {
			sz = 0;
			DMEMIT("Fail");
		} else if (r) {
			DMEMIT("-");
		} else {
			DMEMIT("%llu", (highest + 1) * pool->block_sectors - 1);
		}
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %u", format_dev_t(pool_name, thin->pool_dev->bdev->bd_dev),
		       dtm_device_id(thin->device));
		if (thin->origin_dev)
			DMEMIT(" %s", format_dev_t(origin_name, thin->origin_dev->bdev->bd_dev));
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int thin_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct dtm_thin *thin = ti->private;
	struct dtm_pool *pool = thin->pool;
	const sector_t sectors = READ_ONCE(pool->sectors);

	/* While the pool had no live table, nothing of it is known. */
	if (!sectors)
		return 0;
	return fn(ti, thin->pool_dev, 0, dtm_sector_of(pool, dtm_block_of(pool, sectors)), data);
}

static void thin_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct dtm_thin *thin = ti->private;
	struct dtm_pool *pool = thin->pool;

	if (pool->features.discard) {
		limits->discard_granularity = pool->block_sectors << SECTOR_SHIFT;
		dtm_set_max_discard(limits, DTM_MAX_DISCARD_SECTORS);
	}
}

struct target_type dtm_thin_target = {
	.name = "thin",
	.version = { 1, 23, 0 },
	.module = THIS_MODULE,
	.ctr = thin_ctr,
	.dtr = thin_dtr,
	.map = thin_map,
	.end_io = thin_endio,
	.preresume = thin_preresume,
	.presuspend = thin_presuspend,
	.presuspend_undo = thin_postsuspend,
	.postsuspend = thin_postsuspend,
	.status = thin_status,
	.iterate_devices = thin_iterate_devices,
	.io_hints = thin_io_hints,
};
