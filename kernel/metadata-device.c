// SPDX-License-Identifier: GPL-2.0-only
/* See metadata.h: the devices in the metadata, and its snapshot. */

#include "metadata-internal.h"

#include <linux/device-mapper.h>
#include <linux/slab.h>

#define DM_MSG_PREFIX "thin-pool metadata"

/* ---- details ----------------------------------------------------------------------------- */

static int read_details(struct dtm_metadata *m, u64 root, u64 id, struct dtm_device_details *ret)
{
	struct dtm_device_details_disk disk;
	int r;

	r = dtm_md_lookup(m, &m->details, root, id, true, &disk);
	if (r)
		return r;
	ret->mapped_blocks = le64_to_cpu(disk.mapped_blocks);
	ret->transaction_id = le64_to_cpu(disk.transaction_id);
	ret->creation_time = le32_to_cpu(disk.creation_time);
	ret->snapshotted_time = le32_to_cpu(disk.snapshotted_time);
	return 0;
}

static int write_details(struct dtm_metadata *m, u64 id, const struct dtm_device_details *details)
{
	struct dtm_device_details_disk disk = {
		.mapped_blocks = cpu_to_le64(details->mapped_blocks),
		.transaction_id = cpu_to_le64(details->transaction_id),
		.creation_time = cpu_to_le32(details->creation_time),
		.snapshotted_time = cpu_to_le32(details->snapshotted_time),
	};
	dm_block_t root;
	int r;

	r = dm_btree_insert(&m->details, m->details_root, &id, &disk, &root);
	if (!r)
		m->details_root = root;
	return r;
}

/* 0: there is such a device in the transaction; -ENODATA: there is not. */
static int find_id(struct dtm_metadata *m, u64 id)
{
	struct dtm_device_details details;

	return read_details(m, m->details_root, id, &details);
}

/* The root of the device's own tree, by that of the upper one. */
static int find_root(struct dtm_metadata *m, u64 upper, u64 id, u64 *ret_root)
{
	__le64 root;
	int r;

	r = dtm_md_lookup(m, &m->devices_tree, upper, id, true, &root);
	if (!r)
		*ret_root = le64_to_cpu(root);
	return r;
}

/* ---- devices in memory ------------------------------------------------------------------- */

static struct dtm_device *find_device(struct dtm_metadata *m, u32 id)
{
	struct dtm_device *d;

	list_for_each_entry(d, &m->devices, list)
		if (d->id == id)
			return d;
	return NULL;
}

static void free_device(struct dtm_device *d)
{
	list_del(&d->list);
	dtm_mapping_cache_free(&d->cache);
	kfree(d);
}

int dtm_device_touch(struct dtm_device *d)
{
	if (!d->exists)
		return -ENODATA;
	if (d->changed)
		return 0;
	WRITE_ONCE(d->changed, true);
	/* What they are to be is known at the commit only; this makes sure there is room then. */
	return write_details(d->m, d->id, &d->now);
}

int dtm_devices_write_details(struct dtm_metadata *m)
{
	struct dtm_device *d;
	int r;

	list_for_each_entry(d, &m->devices, list) {
		if (!d->changed)
			continue;
		r = write_details(m, d->id, &d->now);
		if (r)
			return r;
	}
	return 0;
}

void dtm_devices_committed(struct dtm_metadata *m)
{
	struct dtm_device *d, *next;

	list_for_each_entry_safe(d, next, &m->devices, list) {
		WRITE_ONCE(d->changed, false);
		d->existed = d->exists;
		d->committed = d->now;
		d->committed_root = d->root;
		d->root_owned = false;
		if (!d->open_count)
			free_device(d);
	}
}

void dtm_devices_aborted(struct dtm_metadata *m)
{
	struct dtm_device *d, *next;

	list_for_each_entry_safe(d, next, &m->devices, list) {
		if (d->changed || !d->existed)
			WRITE_ONCE(d->lost_changes, true);
		/* Nobody may see the one without the other. */
		smp_store_release(&d->changed, false);
		/* Some of it may be the transaction's. */
		dtm_mapping_cache_forget(&d->cache, 0, U64_MAX);
		d->exists = d->existed;
		d->root = d->committed_root;
		d->root_owned = false;
		d->now.transaction_id = d->committed.transaction_id;
		d->now.creation_time = d->committed.creation_time;
		WRITE_ONCE(d->now.snapshotted_time, d->committed.snapshotted_time);
		WRITE_ONCE(d->now.mapped_blocks, d->committed.mapped_blocks);
		if (!d->open_count)
			free_device(d);
	}
}

/* What it is now, and what it was when last committed. */
static int load_device(struct dtm_metadata *m, struct dtm_device *d)
{
	const struct dtm_superblock *sb = &m->committed->sb;
	int r;

	r = read_details(m, m->details_root, d->id, &d->now);
	if (!r)
		r = find_root(m, m->mapping_root, d->id, &d->root);
	if (r)
		return r;
	d->exists = true;
	d->existed = true;
	d->committed = d->now;
	d->committed_root = d->root;
	if (!m->changed)
		return 0;

	r = read_details(m, le64_to_cpu(sb->details_root), d->id, &d->committed);
	if (!r)
		r = find_root(m, le64_to_cpu(sb->mapping_root), d->id, &d->committed_root);
	if (r == -ENODATA) {
		d->existed = false;
		r = 0;
	}
	return r;
}

int dtm_device_open(struct dtm_metadata *m, u32 id, u64 blocks, struct dtm_device **ret)
{
	struct dtm_device *d;
	int r = 0;

	dtm_md_lock(m);
	d = find_device(m, id);
	if (d) {
		if (d->exists)
			d->open_count++;
		else
			r = -ENODATA;
		goto out;
	}
	r = m->broken ? -EIO : m->error;
	if (r)
		goto out;
	d = kzalloc(sizeof(*d), GFP_NOIO);
	if (!d) {
		r = -ENOMEM;
		goto out;
	}
	d->m = m;
	d->id = id;
	r = load_device(m, d);
	if (r) {
		kfree(d);
		goto out;
	}
	dtm_mapping_cache_init(&d->cache, blocks);
	d->open_count = 1;
	list_add(&d->list, &m->devices);

out:
	if (!r)
		*ret = d;
	dtm_md_unlock(m);
	return r;
}

void dtm_device_close(struct dtm_device *d)
{
	struct dtm_metadata *m;

	if (!d)
		return;
	m = d->m;
	dtm_md_lock(m);
	/* One with changes waits for the commit, which writes its details. */
	if (!--d->open_count && !d->changed)
		free_device(d);
	dtm_md_unlock(m);
}

u32 dtm_device_id(const struct dtm_device *d)
{
	return d->id;
}

bool dtm_device_changed(struct dtm_device *d)
{
	return smp_load_acquire(&d->changed); /* then lost_changes is up to date */
}

bool dtm_device_lost_changes(struct dtm_device *d)
{
	return READ_ONCE(d->lost_changes);
}

void dtm_device_set_lost_changes(struct dtm_device *d)
{
	WRITE_ONCE(d->lost_changes, true);
}

u64 dtm_device_mapped_blocks(struct dtm_device *d)
{
	return READ_ONCE(d->now.mapped_blocks);
}

/* ---- messages ---------------------------------------------------------------------------- */

/* 0: a device of this id can be made. Nothing was changed so far. */
static int id_is_free(struct dtm_metadata *m, u32 id)
{
	int r;

	if (id > DTM_MAX_DEVICE_ID)
		return -EINVAL;
	r = find_id(m, id);
	if (!r)
		return -EEXIST;
	if (r != -ENODATA)
		return r;
	/* Someone still has open what an abort did away with; it shall not become another one. */
	return find_device(m, id) ? -EBUSY : 0;
}

/* A value takes over the use of the root that the caller has. */
static int insert_root(struct dtm_metadata *m, u64 id, u64 root)
{
	__le64 value = cpu_to_le64(root);
	dm_block_t new_root;
	int r;

	r = dm_btree_insert(&m->devices_tree, m->mapping_root, &id, &value, &new_root);
	if (!r)
		m->mapping_root = new_root;
	return r;
}

int dtm_metadata_create_thin(struct dtm_metadata *m, u32 id)
{
	struct dtm_device_details details = { 0 };
	dm_block_t root;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ALL);
	if (r)
		return r;
	r = id_is_free(m, id);
	if (r)
		return dtm_md_unchanged(m, r);

	r = dm_btree_empty(&m->device_tree, &root);
	if (!r)
		r = insert_root(m, id, root);
	if (!r) {
		details.transaction_id = m->transaction_id;
		details.creation_time = m->time;
		details.snapshotted_time = m->time;
		r = write_details(m, id, &details);
	}
	return dtm_md_end(m, r);
}

int dtm_metadata_create_snap(struct dtm_metadata *m, u32 id, u32 origin)
{
	struct dtm_device_details origin_details, details;
	struct dtm_device *d;
	u64 root;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ALL);
	if (r)
		return r;
	r = id_is_free(m, id);
	if (r)
		return dtm_md_unchanged(m, r);
	if (m->time >= DTM_TIME_MAX) {
		DMERR("%pg: no more snapshots can be taken: there have been %u", m->bdev, m->time);
		return dtm_md_unchanged(m, -EPERM);
	}
	d = find_device(m, origin);
	if (d && !d->exists)
		return dtm_md_unchanged(m, -ENODATA);
	r = read_details(m, m->details_root, origin, &origin_details);
	if (!r)
		r = find_root(m, m->mapping_root, origin, &root);
	if (r)
		return dtm_md_unchanged(m, r);

	/* Both have the same tree from now on; who changes a block of it first, copies that. */
	r = dtm_sm_inc(m->metadata_sm, root);
	if (!r)
		r = insert_root(m, id, root);
	if (r)
		return dtm_md_end(m, r);

	/* Mappings made before this moment are shared, at both of them. */
	m->time++;
	if (d) {
		r = dtm_device_touch(d);
		WRITE_ONCE(d->now.snapshotted_time, m->time);
		origin_details = d->now;
	} else {
		origin_details.snapshotted_time = m->time;
	}
	if (!r)
		r = write_details(m, origin, &origin_details);
	if (!r) {
		details.mapped_blocks = origin_details.mapped_blocks;
		details.transaction_id = m->transaction_id;
		details.creation_time = m->time;
		details.snapshotted_time = m->time;
		r = write_details(m, id, &details);
	}
	return dtm_md_end(m, r);
}

/* The key is there. The look-up of it has to have been the last thing that was done to the tree. */
static int remove_id(struct dtm_metadata *m, struct dm_btree_info *tree, u64 *root, u64 id)
{
	dm_block_t new_root;
	int r;

	r = dtm_md_shorten(m, root);
	if (!r)
		r = dm_btree_remove(tree, *root, &id, &new_root);
	if (r)
		return r;
	*root = new_root;
	return dtm_md_shorten(m, root);
}

int dtm_metadata_delete(struct dtm_metadata *m, u32 id)
{
	struct dtm_device *d;
	u64 root;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_HALF);
	if (r)
		return r;
	d = find_device(m, id);
	if (d && d->open_count)
		return dtm_md_unchanged(m, d->exists ? -EBUSY : -ENODATA);
	r = find_id(m, id);
	if (r)
		return dtm_md_unchanged(m, r);

	if (d)
		free_device(d);
	r = remove_id(m, &m->details, &m->details_root, id);
	if (!r)
		r = find_root(m, m->mapping_root, id, &root);
	/* This ends the use of its tree, and where nobody else has that, of all in it. */
	if (!r)
		r = remove_id(m, &m->devices_tree, &m->mapping_root, id);
	return dtm_md_end(m, r);
}

/* ---- the metadata snapshot --------------------------------------------------------------- */

/*
 * A copy of the superblock in another block, which uses the two trees once more; so they stay as
 * they are. It has no space maps: those go on changing.
 */
static int copy_superblock(struct dtm_metadata *m, u64 *ret_location)
{
	struct dtm_superblock *sb;
	dm_block_t location;
	struct dm_block *b;
	int r;

	r = m->metadata_sm->new_block(m->metadata_sm, &location);
	if (r)
		return r;
	r = dm_bm_write_lock_zero(m->bm, location, &dtm_superblock_validator, &b);
	if (r)
		return r;
	memcpy(dm_block_data(b), m->committed, sizeof(*m->committed));
	sb = dm_block_data(b);
	memset(sb->data_sm_root, 0, sizeof(sb->data_sm_root));
	memset(sb->metadata_sm_root, 0, sizeof(sb->metadata_sm_root));
	dm_bm_unlock(b);
	*ret_location = location;
	return 0;
}

int dtm_metadata_reserve_snap(struct dtm_metadata *m)
{
	u64 location = 0;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ALL);
	if (r)
		return r;
	if (m->held_root)
		return dtm_md_unchanged(m, -EBUSY);
	/* Trees of a transaction under way still change in place. */
	if (m->mapping_root != le64_to_cpu(m->committed->sb.mapping_root) ||
	    m->details_root != le64_to_cpu(m->committed->sb.details_root))
		return dtm_md_unchanged(m, -EAGAIN);

	r = copy_superblock(m, &location);
	if (!r)
		r = dtm_sm_inc(m->metadata_sm, m->mapping_root);
	if (!r)
		r = dtm_sm_inc(m->metadata_sm, m->details_root);
	if (!r)
		m->held_root = location;
	return dtm_md_end(m, r);
}

int dtm_metadata_release_snap(struct dtm_metadata *m)
{
	u64 mapping_root, details_root;
	const struct dtm_superblock *sb;
	struct dm_block *b;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_HALF);
	if (r)
		return r;
	if (!m->held_root)
		return dtm_md_unchanged(m, -EINVAL);
	r = dm_tm_read_lock(m->tm, m->held_root, &dtm_superblock_validator, &b);
	if (r)
		return dtm_md_unchanged(m, r);
	sb = dm_block_data(b);
	mapping_root = le64_to_cpu(sb->mapping_root);
	details_root = le64_to_cpu(sb->details_root);
	dm_tm_unlock(m->tm, b);

	r = dm_btree_del(&m->mappings, mapping_root);
	if (!r)
		r = dm_btree_del(&m->details, details_root);
	if (!r)
		r = dtm_sm_dec(m->metadata_sm, m->held_root);
	if (!r)
		m->held_root = 0;
	return dtm_md_end(m, r);
}
