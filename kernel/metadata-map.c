// SPDX-License-Identifier: GPL-2.0-only
/* See metadata.h: from the blocks of a device to those of the pool. */

#include "metadata-internal.h"

#include <linux/device-mapper.h>
#include <linux/sched.h>

#define DM_MSG_PREFIX "thin-pool metadata"

static u64 mapping_block(__le64 value)
{
	return le64_to_cpu(value) >> DTM_TIME_BITS;
}

static u32 mapping_time(__le64 value)
{
	return le64_to_cpu(value) & DTM_TIME_MAX;
}

static __le64 make_mapping(u64 block, u32 time)
{
	return cpu_to_le64(block << DTM_TIME_BITS | time);
}

/* ---- uses of what the trees refer to --------------------------------------------------------- */

/*
 * Uses of data blocks that follow each other are counted at once: each call of the space map has
 * to find and copy its bitmap first.
 */
struct uses {
	struct dtm_metadata *m;
	int (*count)(struct dm_space_map *sm, dm_block_t begin, dm_block_t end);
	u64 begin, end;
};

/* The trees take no answer, so an error is kept for the end of the change. */
static void lost(struct dtm_metadata *m, int r)
{
	if (r && !m->lost_error)
		m->lost_error = r;
}

static void count_uses(struct uses *u)
{
	if (u->begin < u->end) {
		dtm_md_counts_change(u->m, u->begin, u->end);
		lost(u->m, u->count(u->m->data_sm, u->begin, u->end));
	}
	u->end = u->begin;
}

static void add_uses(struct uses *u, const __le64 *values, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		u64 block = mapping_block(values[i]);

		if (u->begin == u->end || block != u->end) {
			count_uses(u);
			u->begin = block;
		}
		u->end = block + 1;
	}
}

static void data_inc(void *context, const void *values, unsigned int n)
{
	struct dtm_metadata *m = context;
	struct uses u = { .m = m, .count = m->data_sm->inc_blocks };

	add_uses(&u, values, n);
	count_uses(&u);
}

static void data_dec(void *context, const void *values, unsigned int n)
{
	struct dtm_metadata *m = context;
	struct uses u = { .m = m, .count = m->data_sm->dec_blocks };

	add_uses(&u, values, n);
	count_uses(&u);
}

/* Replaced by a mapping to the same block, that block stays in use; the time does not matter. */
static int data_equal(void *context, const void *value1, const void *value2)
{
	return mapping_block(*(const __le64 *)value1) == mapping_block(*(const __le64 *)value2);
}

static void root_inc(void *context, const void *values, unsigned int n)
{
	struct dtm_metadata *m = context;
	const __le64 *roots = values;
	unsigned int i;

	for (i = 0; i < n; i++)
		lost(m, dtm_sm_inc(m->metadata_sm, le64_to_cpu(roots[i])));
}

static void root_dec(void *context, const void *values, unsigned int n)
{
	struct dtm_metadata *m = context;
	const __le64 *roots = values;
	unsigned int i;

	for (i = 0; i < n; i++)
		lost(m, dm_btree_del(&m->device_tree, le64_to_cpu(roots[i])));
}

static int root_equal(void *context, const void *value1, const void *value2)
{
	return *(const __le64 *)value1 == *(const __le64 *)value2;
}

void dtm_md_setup_trees(struct dtm_metadata *m)
{
	struct dm_btree_value_type data = {
		.context = m,
		.size = sizeof(__le64),
		.inc = data_inc,
		.dec = data_dec,
		.equal = data_equal,
	};
	struct dm_btree_value_type root = {
		.context = m,
		.size = sizeof(__le64),
		.inc = root_inc,
		.dec = root_dec,
		.equal = root_equal,
	};

	m->mappings = (struct dm_btree_info){ .tm = m->tm, .levels = 2, .value_type = data };
	m->mappings_nowait = m->mappings;
	m->mappings_nowait.tm = m->tm_nowait;
	m->device_tree = (struct dm_btree_info){ .tm = m->tm, .levels = 1, .value_type = data };
	m->devices_tree = (struct dm_btree_info){ .tm = m->tm, .levels = 1, .value_type = root };
	m->devices_tree_moved = m->devices_tree;
	m->devices_tree_moved.value_type.dec = NULL;
	m->details = (struct dm_btree_info){
		.tm = m->tm,
		.levels = 1,
		.value_type.size = sizeof(struct dtm_device_details_disk),
	};
}

/* ---- looking --------------------------------------------------------------------------------- */

/*
 * A change that failed half-way may have left a tree without what was in it: what is not found
 * there must not be taken for a hole. The same of a device that an abort did away with.
 */
static int may_look(const struct dtm_device *d)
{
	const struct dtm_metadata *m = d->m;

	if (m->broken || !d->exists)
		return -EIO;
	return m->error;
}

/* Mapped before the last snapshot was taken, so that has it too, or had. */
static bool is_shared(const struct dtm_device *d, __le64 value)
{
	return d->now.snapshotted_time > mapping_time(value);
}

int dtm_device_find(struct dtm_device *d, u64 virtual_block, bool wait, struct dtm_mapping *ret)
{
	struct dtm_metadata *m = d->m;
	u64 keys[2] = { d->id, virtual_block };
	__le64 value;
	int r;

	if (wait)
		down_read(&m->lock);
	else if (!down_read_trylock(&m->lock))
		return -EWOULDBLOCK;

	r = may_look(d);
	if (r && !wait && !m->broken)
		r = -EWOULDBLOCK; /* until it is taken back */
	if (!r)
		r = dm_btree_lookup(wait ? &m->mappings : &m->mappings_nowait, m->mapping_root,
				    keys, &value);
	if (!r) {
		ret->block = mapping_block(value);
		ret->shared = is_shared(d, value);
	}
	up_read(&m->lock);
	return r;
}

static int find_run(struct dtm_device *d, u64 begin, u64 end, struct dtm_run *ret)
{
	struct dtm_metadata *m = d->m;
	__le64 value;
	u64 root, at;
	int r;

	/* Found once, the device's own tree is all there is to search. */
	r = dtm_device_root(m, d->id, &root);
	if (r)
		return r;
	r = dm_btree_lookup_next(&m->device_tree, root, &begin, &at, &value);
	if (r)
		return r;
	if (at >= end)
		return -ENODATA;
	ret->virtual_begin = at;
	ret->block = mapping_block(value);
	ret->shared = is_shared(d, value);

	for (at++; at < end; at++) {
		r = dm_btree_lookup(&m->device_tree, root, &at, &value);
		if (r == -ENODATA)
			break;
		if (r)
			return r;
		if (mapping_block(value) - ret->block != at - ret->virtual_begin ||
		    is_shared(d, value) != ret->shared)
			break;
		cond_resched();
	}
	ret->virtual_end = at;
	return 0;
}

int dtm_device_find_run(struct dtm_device *d, u64 begin, u64 end, struct dtm_run *ret)
{
	struct dtm_metadata *m = d->m;
	int r;

	if (begin >= end)
		return -ENODATA;
	down_read(&m->lock);
	r = may_look(d);
	if (!r)
		r = find_run(d, begin, end, ret);
	up_read(&m->lock);
	return r;
}

static int highest(struct dtm_device *d, u64 *ret)
{
	struct dtm_metadata *m = d->m;
	u64 root, key;
	int r;

	r = dtm_device_root(m, d->id, &root);
	if (r)
		return r;
	r = dm_btree_find_highest_key(&m->device_tree, root, &key);
	if (r < 0)
		return r;
	if (!r)
		return -ENODATA;
	*ret = key;
	return 0;
}

int dtm_device_highest_mapped(struct dtm_device *d, u64 *ret)
{
	struct dtm_metadata *m = d->m;
	int r;

	down_read(&m->lock);
	r = may_look(d);
	if (!r)
		r = highest(d, ret);
	up_read(&m->lock);
	return r;
}

/* ---- changing -------------------------------------------------------------------------------- */

static int insert(struct dtm_device *d, u64 virtual_block, u64 block)
{
	struct dtm_metadata *m = d->m;
	u64 keys[2] = { d->id, virtual_block };
	__le64 value = make_mapping(block, m->time);
	dm_block_t root;
	int r, inserted;

	r = dtm_device_touch(d);
	if (r)
		return r;
	r = dm_btree_insert_notify(&m->mappings, m->mapping_root, keys, &value, &root, &inserted);
	if (r)
		return r;
	m->mapping_root = root;
	if (inserted)
		WRITE_ONCE(d->now.mapped_blocks, d->now.mapped_blocks + 1);
	return 0;
}

int dtm_device_insert(struct dtm_device *d, u64 virtual_block, u64 block)
{
	struct dtm_metadata *m = d->m;
	int r;

	/* The block was allocated when there was room; it shall not be lost now. */
	r = dtm_md_begin(m, DTM_MD_ROOM_HALF);
	if (r)
		return r;
	if (!d->exists)
		return dtm_md_unchanged(m, -ENODATA);
	if (block >= DTM_DATA_BLOCKS_MAX)
		return dtm_md_unchanged(m, -EINVAL);
	return dtm_md_end(m, insert(d, virtual_block, block));
}

/* Is every block that is mapped in [begin, end)? */
static int covers_all(struct dtm_device *d, u64 root, u64 begin, u64 end, bool *ret)
{
	struct dtm_metadata *m = d->m;
	u64 lowest, highest;
	int r;

	*ret = false;
	if (!d->now.mapped_blocks || end - begin < d->now.mapped_blocks)
		return 0;
	r = dm_btree_find_lowest_key(&m->device_tree, root, &lowest);
	if (r <= 0)
		return r;
	r = dm_btree_find_highest_key(&m->device_tree, root, &highest);
	if (r <= 0)
		return r;
	*ret = lowest >= begin && highest < end;
	return 0;
}

/* The device gets another tree; info says what becomes of the one it had. */
static int set_root(struct dtm_device *d, struct dm_btree_info *info, u64 root)
{
	struct dtm_metadata *m = d->m;
	__le64 value = cpu_to_le64(root);
	u64 key = d->id;
	dm_block_t new_root;
	int r;

	r = dm_btree_insert(info, m->mapping_root, &key, &value, &new_root);
	if (!r)
		m->mapping_root = new_root;
	return r;
}

/* All of it, by putting an empty tree in its place: costs by leaf, or nothing where shared. */
static int remove_all(struct dtm_device *d)
{
	struct dtm_metadata *m = d->m;
	dm_block_t root;
	int r;

	r = dm_btree_empty(&m->device_tree, &root);
	if (!r)
		r = set_root(d, &m->devices_tree, root);
	if (!r)
		WRITE_ONCE(d->now.mapped_blocks, 0);
	return r;
}

static void collect_inc(void *context, const void *values, unsigned int n)
{
	struct uses *u = context;

	data_inc(u->m, values, n);
}

static void collect_dec(void *context, const void *values, unsigned int n)
{
	add_uses(context, values, n);
}

/* Run by run, each found first: the kernel's function ends where a run does. */
static int remove_runs(struct dtm_device *d, u64 *root, u64 begin, u64 end)
{
	struct dtm_metadata *m = d->m;
	struct uses u = { .m = m, .count = m->data_sm->dec_blocks };
	struct dm_btree_info info = m->device_tree;
	unsigned int removed;
	dm_block_t new_root;
	__le64 value;
	u64 at;
	int r = 0;

	/*
	 * The blocks come one at a time, but are counted by run. That is later than they come; what
	 * is counted up in between only makes a count larger for a while.
	 */
	info.value_type.context = &u;
	info.value_type.inc = collect_inc;
	info.value_type.dec = collect_dec;
	while (begin < end) {
		r = dm_btree_lookup_next(&m->device_tree, *root, &begin, &at, &value);
		if (r == -ENODATA || (!r && at >= end)) {
			r = 0;
			break;
		}
		if (r)
			break;
		begin = at;
		r = dm_btree_remove_leaves(&info, *root, &begin, end, &new_root, &removed);
		if (r)
			break;
		*root = new_root;
		/* A key that was just found and is not there: the tree is not what it should be. */
		if (!removed) {
			r = -EILSEQ;
			break;
		}
		WRITE_ONCE(d->now.mapped_blocks,
			   d->now.mapped_blocks - min_t(u64, removed, d->now.mapped_blocks));
		cond_resched();
	}
	count_uses(&u);
	return r;
}

static int remove_range(struct dtm_device *d, u64 begin, u64 end)
{
	struct dtm_metadata *m = d->m;
	u64 root;
	bool all;
	int r;

	r = dtm_device_touch(d);
	if (!r)
		r = dtm_device_root(m, d->id, &root);
	if (!r)
		r = covers_all(d, root, begin, end, &all);
	if (r)
		return r;
	if (all)
		return remove_all(d);

	/*
	 * The upper tree's path to this device is made the transaction's own before the lower tree
	 * changes: as long as a metadata snapshot has that path too, the count of the root does
	 * not say that two use it. Then the root can be replaced: its use went over to the new one.
	 */
	r = set_root(d, &m->devices_tree, root);
	if (!r)
		r = remove_runs(d, &root, begin, end);
	if (!r)
		r = set_root(d, &m->devices_tree_moved, root);
	return r;
}

int dtm_device_remove_range(struct dtm_device *d, u64 begin, u64 end)
{
	struct dtm_metadata *m = d->m;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_HALF);
	if (r)
		return r;
	if (!d->exists)
		return dtm_md_unchanged(m, -ENODATA);
	if (begin >= end)
		return dtm_md_unchanged(m, 0);
	return dtm_md_end(m, remove_range(d, begin, end));
}
