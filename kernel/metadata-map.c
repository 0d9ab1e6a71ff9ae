// SPDX-License-Identifier: GPL-2.0-only
/* See metadata.h: from the blocks of a device to those of the pool. */

#include "metadata-internal.h"

#include <linux/device-mapper.h>
#include <linux/sched.h>

#define DM_MSG_PREFIX "thin-pool metadata"

/* How many blocks are gone through before the lock is let go: some ten milliseconds. */
#define BLOCKS_AT_ONCE 8192
/* So many that follow in a leaf are taken from it without looking each up. */
#define NEIGHBOURS 32

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

/* ---- uses of what the trees refer to ----------------------------------------------------- */

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
	m->device_tree = (struct dm_btree_info){ .tm = m->tm, .levels = 1, .value_type = data };
	m->device_tree_nowait = m->device_tree;
	m->device_tree_nowait.tm = m->tm_nowait;
	m->devices_tree = (struct dm_btree_info){ .tm = m->tm, .levels = 1, .value_type = root };
	m->devices_tree_moved = m->devices_tree;
	m->devices_tree_moved.value_type.dec = NULL;
	m->details = (struct dm_btree_info){
		.tm = m->tm,
		.levels = 1,
		.value_type.size = sizeof(struct dtm_device_details_disk),
	};
}

/* ---- looking ----------------------------------------------------------------------------- */

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
	return READ_ONCE(d->now.snapshotted_time) > mapping_time(value);
}

static void set_mapping(const struct dtm_device *d, __le64 value, struct dtm_mapping *ret)
{
	ret->block = mapping_block(value);
	ret->shared = is_shared(d, value);
}

int dtm_device_find(struct dtm_device *d, u64 virtual_block, bool wait, struct dtm_mapping *ret)
{
	struct dtm_metadata *m = d->m;
	__le64 value;
	u64 known;
	int r;

	if (dtm_mapping_cache_find(&d->cache, virtual_block, &known)) {
		set_mapping(d, cpu_to_le64(known), ret);
		return 0;
	}
	if (wait)
		down_read(&m->lock);
	else if (!down_read_trylock(&m->lock))
		return -EWOULDBLOCK;

	r = may_look(d);
	if (r && !wait && !m->broken)
		r = -EWOULDBLOCK; /* until it is taken back */
	if (!r)
		r = dtm_md_lookup(m, wait ? &m->device_tree : &m->device_tree_nowait, d->root,
				  virtual_block, wait, &value);
	if (!r) {
		set_mapping(d, value, ret);
		dtm_mapping_cache_add(&d->cache, virtual_block, le64_to_cpu(value));
	}
	up_read(&m->lock);
	if (r == -EWOULDBLOCK)
		WRITE_ONCE(m->wanted, true);
	return r;
}

/* Where a run begins. */
static int find_first(struct dtm_device *d, u64 begin, u64 end, struct dtm_run *ret)
{
	__le64 value;
	u64 at;
	int r;

	r = dm_btree_lookup_next(&d->m->device_tree, d->root, &begin, &at, &value);
	if (r)
		return r;
	if (at >= end)
		return -ENODATA;
	ret->virtual_begin = at;
	ret->virtual_end = at + 1;
	ret->block = mapping_block(value);
	ret->shared = is_shared(d, value);
	return 0;
}

/* Does it go on with the block that is next in the device? */
static bool goes_on(const struct dtm_device *d, const struct dtm_run *run, __le64 value)
{
	return mapping_block(value) - run->block == run->virtual_end - run->virtual_begin &&
	       is_shared(d, value) == run->shared;
}

/*
 * Makes the run, whose last block was just looked up, longer, as far as end. -ENODATA: it ends
 * here.
 */
static int extend_run(struct dtm_device *d, u64 end, struct dtm_run *run)
{
	struct dtm_entry next[NEIGHBOURS];
	unsigned int n, i;
	__le64 value;
	int r;

	while (run->virtual_end < end) {
		n = dtm_md_rest_of_leaf(d->m, d->root, run->virtual_end - 1, next, NEIGHBOURS);
		for (i = 0; i < n && run->virtual_end < end; i++, run->virtual_end++)
			if (next[i].key != run->virtual_end || !goes_on(d, run, next[i].value))
				return -ENODATA;
		if (n)
			continue;
		/* The first of another leaf. */
		r = dm_btree_lookup(&d->m->device_tree, d->root, &run->virtual_end, &value);
		if (r)
			return r;
		if (!goes_on(d, run, value))
			return -ENODATA;
		run->virtual_end++;
	}
	return 0;
}

/* The lock was let go meanwhile: what is cached may have been read anew, and not been checked. */
static int look_again(struct dtm_device *d, const struct dtm_run *run)
{
	u64 key = run->virtual_end - 1;
	__le64 value;

	return dm_btree_lookup(&d->m->device_tree, d->root, &key, &value);
}

int dtm_device_find_run(struct dtm_device *d, u64 begin, u64 end, struct dtm_run *ret)
{
	struct dtm_metadata *m = d->m;
	u32 snapshotted_time;
	u64 stop;
	int r;

	if (begin >= end)
		return -ENODATA;
	down_read(&m->lock);
	r = may_look(d);
	if (!r)
		r = find_first(d, begin, end, ret);
	if (r) {
		up_read(&m->lock);
		return r;
	}
	snapshotted_time = d->now.snapshotted_time;
	for (;;) {
		stop = ret->virtual_end + min_t(u64, end - ret->virtual_end, BLOCKS_AT_ONCE);
		r = extend_run(d, stop, ret);
		if (r || ret->virtual_end == end)
			break;
		/* Others get their turn. */
		up_read(&m->lock);
		cond_resched();
		down_read(&m->lock);
		r = may_look(d);
		if (r)
			break;
		/* A snapshot, which has all of it by now. */
		if (d->now.snapshotted_time != snapshotted_time) {
			ret->shared = true;
			break;
		}
		r = look_again(d, ret);
		if (r)
			break;
	}
	up_read(&m->lock);
	return r == -ENODATA ? 0 : r;
}

int dtm_device_find_first(struct dtm_device *d, u64 begin, u64 end, u64 *ret)
{
	struct dtm_metadata *m = d->m;
	struct dtm_run run;
	int r;

	if (begin >= end)
		return -ENODATA;
	down_read(&m->lock);
	r = may_look(d);
	if (!r)
		r = find_first(d, begin, end, &run);
	up_read(&m->lock);
	if (!r)
		*ret = run.virtual_begin;
	return r;
}

static int highest(struct dtm_device *d, u64 *ret)
{
	struct dtm_metadata *m = d->m;
	u64 key;
	int r;

	r = dm_btree_find_highest_key(&m->device_tree, d->root, &key);
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

/* ---- changing ---------------------------------------------------------------------------- */

/* The device gets another tree; info says what becomes of the one it had. */
static int set_root(struct dtm_device *d, struct dm_btree_info *info, u64 root)
{
	struct dtm_metadata *m = d->m;
	__le64 value = cpu_to_le64(root);
	u64 key = d->id;
	dm_block_t upper;
	int r;

	r = dm_btree_insert(info, m->mapping_root, &key, &value, &upper);
	if (r)
		return r;
	m->mapping_root = upper;
	d->root = root;
	d->root_owned = true;
	return 0;
}

/*
 * Before the device's tree changes. The upper tree's path to it has to be the transaction's own
 * first: where the last commit, or a metadata snapshot, has that path too, the count of the root
 * does not say that two use it. Inserting what is there already copies the path, and counts.
 */
static int own_root(struct dtm_device *d)
{
	int r;

	r = dtm_device_touch(d);
	if (r || d->root_owned)
		return r;
	return set_root(d, &d->m->devices_tree, d->root);
}

/* After it changed: where its root was copied, the old one's use went over to the new one. */
static int root_moved(struct dtm_device *d, u64 root)
{
	return root == d->root ? 0 : set_root(d, &d->m->devices_tree_moved, root);
}

static int insert(struct dtm_device *d, u64 virtual_block, u64 block)
{
	struct dtm_metadata *m = d->m;
	__le64 value = make_mapping(block, m->time);
	dm_block_t root;
	int r, inserted;

	dtm_mapping_cache_forget(&d->cache, virtual_block, virtual_block + 1);
	r = own_root(d);
	if (r)
		return r;
	r = dm_btree_insert_notify(&m->device_tree, d->root, &virtual_block, &value, &root,
				   &inserted);
	if (r)
		return r;
	dtm_md_promise_kept(m, block);
	if (inserted)
		WRITE_ONCE(d->now.mapped_blocks, d->now.mapped_blocks + 1);
	r = root_moved(d, root);
	if (!r)
		dtm_mapping_cache_add(&d->cache, virtual_block, le64_to_cpu(value));
	return r;
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
static int covers_all(struct dtm_device *d, u64 begin, u64 end, bool *ret)
{
	struct dtm_metadata *m = d->m;
	u64 lowest, highest;
	int r;

	*ret = false;
	if (!d->now.mapped_blocks || end - begin < d->now.mapped_blocks)
		return 0;
	r = dm_btree_find_lowest_key(&m->device_tree, d->root, &lowest);
	if (r <= 0)
		return r;
	r = dm_btree_find_highest_key(&m->device_tree, d->root, &highest);
	if (r <= 0)
		return r;
	*ret = lowest >= begin && highest < end;
	return 0;
}

/* All of it, by putting an empty tree in its place: costs by leaf, or nothing where shared. */
static int remove_all(struct dtm_device *d)
{
	struct dtm_metadata *m = d->m;
	dm_block_t root;
	int r;

	r = dtm_device_touch(d);
	if (!r)
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

/* The first in [begin, end), and what follows it in its leaf. *ret: how many; 0: there is none. */
static int remove_next(struct dtm_device *d, struct dm_btree_info *info, u64 *root, u64 *begin,
		       u64 end, unsigned int most, unsigned int *ret)
{
	struct dtm_metadata *m = d->m;
	dm_block_t new_root;
	__le64 value;
	u64 key;
	int r;

	*ret = 0;
	r = dm_btree_lookup_next(&m->device_tree, *root, begin, &key, &value);
	if (r == -ENODATA || (!r && key >= end)) {
		*begin = end;
		return 0;
	}
	if (!r)
		r = dtm_md_shorten(m, root);
	if (!r)
		r = dm_btree_remove(info, *root, &key, &new_root);
	if (r)
		return r;
	*root = new_root;
	*ret = 1 + dtm_md_remove_rest_of_leaf(m, info, new_root, key, end, most - 1, &key);
	*begin = key + 1;
	WRITE_ONCE(d->now.mapped_blocks,
		   d->now.mapped_blocks - min_t(u64, *ret, d->now.mapped_blocks));
	return 0;
}

/*
 * Each that the kernel's function removes is found first, so that any error of that is one: the one
 * for several takes a sector that cannot be read (-ENODATA) for the end of them, and leaves the
 * tree half changed. No more than is done in a short time; begin says how far that was.
 */
static int remove_runs(struct dtm_device *d, u64 *root, u64 *begin, u64 end)
{
	struct dtm_metadata *m = d->m;
	struct uses u = { .m = m, .count = m->data_sm->dec_blocks };
	struct dm_btree_info info = m->device_tree;
	unsigned int left, n;
	int r = 0;

	/*
	 * The blocks come a few at a time, but are counted by run. That is later than they come;
	 * what is counted up in between only makes a count larger for a while.
	 */
	info.value_type.context = &u;
	info.value_type.inc = collect_inc;
	info.value_type.dec = collect_dec;
	for (left = BLOCKS_AT_ONCE; *begin < end && left && !r; left -= n)
		r = remove_next(d, &info, root, begin, end, left, &n);
	count_uses(&u);
	return r ?: dtm_md_shorten(m, root);
}

static int remove_some(struct dtm_device *d, u64 *begin, u64 end)
{
	u64 root = d->root;
	bool all;
	int r;

	r = covers_all(d, *begin, end, &all);
	if (r)
		return r;
	if (all) {
		*begin = end;
		return remove_all(d);
	}
	r = own_root(d);
	if (!r)
		r = remove_runs(d, &root, begin, end);
	if (!r)
		r = root_moved(d, root);
	return r;
}

int dtm_device_remove_some(struct dtm_device *d, u64 *begin, u64 end)
{
	struct dtm_metadata *m = d->m;
	const u64 from = *begin;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_HALF);
	if (r)
		return r;
	if (!d->exists)
		return dtm_md_unchanged(m, -ENODATA);
	r = remove_some(d, begin, end);
	/* After an error what was removed is not known. */
	dtm_mapping_cache_forget(&d->cache, from, r ? end : *begin);
	return dtm_md_end(m, r);
}

int dtm_device_remove_range(struct dtm_device *d, u64 begin, u64 end)
{
	int r;

	while (begin < end) {
		r = dtm_device_remove_some(d, &begin, end);
		if (r)
			return r;
		cond_resched();
	}
	return 0;
}
