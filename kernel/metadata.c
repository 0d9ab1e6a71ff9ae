// SPDX-License-Identifier: GPL-2.0-only
/* See metadata.h: the transaction, and what is true of the metadata as a whole. */

#include "metadata-internal.h"

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/err.h>
#include <linux/math64.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#define DM_MSG_PREFIX "thin-pool metadata"

/*
 * Blocks one thread may hold at once, for which memory is set aside: a tree that is deleted holds
 * one per level, and meanwhile the space maps need four.
 */
#define MAX_HELD 16

/* The fewest entries a tree's node comes to. */
#define MIN_NODE_ENTRIES 42

/* Of metadata that is added, blocks that writing it down may take beside its bitmaps, at most. */
#define GROWTH_MIN 32

/* The reserve: a tenth, but no more than this. */
#define RESERVE_MAX  4096
#define RESERVE_PART 10

/*
 * 1. The reserve is what mainline keeps back, so that both say the same about free space. No
 *    data block is allocated and no device made once the reserve is touched (dtm_md_begin()): "out
 *    of metadata" is that state, found before anything is half done.
 * 2. A commit then allocates:
 *    a) for the details of devices: nothing. The nodes on the way to a device's details were
 *       shadowed when the device first changed in the transaction (dtm_device_touch()), and what
 *       was shadowed is overwritten in place.
 *    b) for the data space map: it keeps at most 64 changed index entries in memory, and writing
 *       one shadows the path to it, at most 3 deep in a tree of 170-fold nodes for the 2^40 data
 *       blocks the format can address: at most 192 blocks, and never more than that tree has:
 *       one for each 16320 * 42 data blocks and its path.
 *    c) for the metadata space map: its bitmaps, each once in a transaction: one for each 16320
 *       blocks of metadata, at most 255; and the one index block.
 *    So 448 blocks for the largest metadata, of a reserve of 4096; for the smallest pools a
 *    handful, of a tenth.
 * 3. The last change that began took from the reserve too. Allocating needs all of the reserve to
 *    be there; what follows it, what frees, and more data space, half. The largest that can be
 *    thought of is the first write to a block that shares every node with many snapshots: up to 5
 *    levels shadowed, each counting 252 children once more, which are as many counts in as many
 *    bitmaps or, above 2 uses, leaves of the tree of large counts. That is up to 2000 blocks; of
 *    those that happen, hardly any takes 20.
 * 4. Where the reserve does not cover 3., the change fails as a whole with -ENOSPC when the last
 *    block is gone, and is taken back with its transaction. That allocates nothing, nor does
 *    recording needs_check: the superblock has its place.
 */
static void set_reserve(struct dtm_metadata *m)
{
	m->reserve = min_t(u64, RESERVE_MAX, div_u64(dtm_sm_blocks(m->metadata_sm), RESERVE_PART));
}

/* ---- locking ----------------------------------------------------------------------------- */

/* What can still be given out in this transaction. */
static u64 data_free(const struct dtm_metadata *m)
{
	const u64 all = m->data_free_begin + m->data_added;

	return all - min(all, m->data_allocated);
}

static void renew_view(struct dtm_metadata *m)
{
	struct dtm_metadata_view *v = &m->view;
	struct dtm_metadata_sizes *s = &v->sizes;
	u64 free = m->metadata_free_begin;
	unsigned long flags;

	if (!m->broken)
		free = dtm_sm_free(m->metadata_sm);

	spin_lock_irqsave(&m->view_lock, flags);
	if (!m->broken) {
		s->data_blocks = m->data_blocks;
		s->metadata_blocks = dtm_sm_blocks(m->metadata_sm);
	}
	/*
	 * The space map's own number counts what was freed in this transaction too, but that is
	 * not given out before the next.
	 */
	s->data_free = data_free(m);
	s->metadata_free = free - min(free, m->reserve);
	s->metadata_free_at_rest = m->metadata_free_begin - min(m->metadata_free_begin, m->reserve);
	s->held_root = m->held_root;
	v->transaction_id = m->transaction_id;
	/* Each of these is also looked at by itself, without the view's lock. */
	WRITE_ONCE(v->changed, m->changed);
	WRITE_ONCE(v->must_abort, m->error);
	WRITE_ONCE(v->broken, m->broken);
	WRITE_ONCE(v->needs_check, m->needs_check);
	WRITE_ONCE(v->needs_check_unwritten, m->needs_check && m->needs_check_unwritten);
	spin_unlock_irqrestore(&m->view_lock, flags);
}

void dtm_md_lock(struct dtm_metadata *m)
{
	down_write(&m->lock);
	m->noio = memalloc_noio_save();
	blk_start_plug(&m->plug);
}

static void let_go(struct dtm_metadata *m)
{
	unsigned int noio = m->noio;

	blk_finish_plug(&m->plug);
	up_write(&m->lock);
	memalloc_noio_restore(noio);
}

void dtm_md_unlock(struct dtm_metadata *m)
{
	renew_view(m);
	let_go(m);
}

static bool has_room(struct dtm_metadata *m, enum dtm_md_room room)
{
	u64 free = dtm_sm_free(m->metadata_sm);

	switch (room) {
	case DTM_MD_ROOM_ANY:
		return true;
	case DTM_MD_ROOM_HALF:
		return free > m->reserve / 2;
	case DTM_MD_ROOM_ALL:
		break;
	}
	return free > m->reserve;
}

/* May the transaction be gone on with? */
static int usable(struct dtm_metadata *m)
{
	if (m->broken)
		return -EIO;
	/* Its blocks could be written over those of the superblock that may be on the device. */
	if (m->doubtful)
		return -EIO;
	return m->error;
}

int dtm_md_begin(struct dtm_metadata *m, enum dtm_md_room room)
{
	int r;

	dtm_md_lock(m);
	r = usable(m);
	if (!r && m->read_only)
		r = -EROFS;
	if (!r && !has_room(m, room))
		r = -ENOSPC;
	if (r)
		dtm_md_unlock(m);
	return r;
}

/* From now on there is only the abort. Answers what is to be told about it. */
static int spoil(struct dtm_metadata *m, int r)
{
	switch (r) {
	case -EBUSY:
	case -EEXIST:
	case -EINVAL:
	case -ENODATA:
	case -EPERM:
	case -EROFS:
		/* These say that nothing was changed. In the middle they mean damage. */
		r = -EILSEQ;
		break;
	}
	if (!m->error)
		m->error = r;
	return r;
}

int dtm_md_end(struct dtm_metadata *m, int r)
{
	if (!r)
		r = m->lost_error;
	if (r)
		r = spoil(m, r);
	m->changed = true;
	m->dirty = true;
	dtm_md_unlock(m);
	return r;
}

int dtm_md_unchanged(struct dtm_metadata *m, int r)
{
	dtm_md_unlock(m);
	return r;
}

/* ---- from the superblock in memory to everything else, and back -------------------------- */

/* What the transaction begins with. */
static void begin_transaction(struct dtm_metadata *m)
{
	const struct dtm_superblock *sb = &m->committed->sb;

	m->mapping_root = le64_to_cpu(sb->mapping_root);
	m->details_root = le64_to_cpu(sb->details_root);
	m->held_root = le64_to_cpu(sb->held_root);
	m->transaction_id = le64_to_cpu(sb->transaction_id);
	m->time = le32_to_cpu(sb->time);
	m->changed = false;
	m->dirty = false;
	m->error = 0;
	m->lost_error = 0;
	m->data_allocated = 0;
	m->data_added = 0;
	bitmap_zero(m->counted_valid, DTM_CACHED_BITMAPS);
	if (!m->broken) {
		m->data_blocks = dtm_sm_blocks(m->data_sm);
		m->data_free_begin = dtm_sm_free(m->data_sm);
		m->metadata_free_begin = dtm_sm_free(m->metadata_sm);
		set_reserve(m);
	}
}

static void unload(struct dtm_metadata *m)
{
	dtm_sm_watch_end(&m->watch);
	if (m->tm_nowait)
		dm_tm_destroy(m->tm_nowait);
	m->tm_nowait = NULL;
	if (m->data_sm)
		m->data_sm->destroy(m->data_sm);
	m->data_sm = NULL;
	if (m->tm)
		dm_tm_destroy(m->tm);
	m->tm = NULL;
	if (m->metadata_sm)
		m->metadata_sm->destroy(m->metadata_sm);
	m->metadata_sm = NULL;
}

/* What is left to do once both space maps are there. */
static int load_rest(struct dtm_metadata *m)
{
	dtm_sm_watch_begin(&m->watch, m->metadata_sm, &m->lost_error);
	m->tm_nowait = dm_tm_create_non_blocking_clone(m->tm);
	if (!m->tm_nowait)
		return -ENOMEM;
	dtm_md_setup_trees(m);
	return 0;
}

/* Reads what the superblock in memory says. */
static int load(struct dtm_metadata *m)
{
	struct dtm_superblock *sb = &m->committed->sb;
	struct dm_transaction_manager *tm;
	struct dtm_sm_root root;
	struct dm_space_map *sm;
	struct dm_block *b;
	int r;

	/* What is read first: where that fails time and again, the kernel's log shall not fill up.
	 */
	memcpy(&root, sb->metadata_sm_root, sizeof(root));
	r = dm_bm_read_lock(m->bm, le64_to_cpu(root.bitmap_root), NULL, &b);
	if (r)
		return r;
	dm_bm_unlock(b);

	r = dm_tm_open_with_sm(m->bm, DTM_SUPERBLOCK_LOCATION, sb->metadata_sm_root,
			       sizeof(sb->metadata_sm_root), &tm, &sm);
	if (r)
		return r;
	m->tm = tm;
	m->metadata_sm = sm;

	sm = dm_sm_disk_open(m->tm, sb->data_sm_root, sizeof(sb->data_sm_root));
	if (IS_ERR(sm)) {
		unload(m);
		return PTR_ERR(sm);
	}
	m->data_sm = sm;

	r = load_rest(m);
	if (r)
		unload(m);
	return r;
}

/* But for what is not kept up in memory, and for the flag that may be written at any time. */
static bool same_superblock(const union dtm_superblock_image *a,
			    const union dtm_superblock_image *b)
{
	const __le32 flag = cpu_to_le32(DTM_SUPERBLOCK_NEEDS_CHECK);
	const size_t skip = offsetofend(struct dtm_superblock, flags);

	BUILD_BUG_ON(offsetofend(struct dtm_superblock, checksum) !=
		     offsetof(struct dtm_superblock, flags));
	return !((a->sb.flags ^ b->sb.flags) & ~flag) &&
	       !memcmp((const u8 *)a + skip, (const u8 *)b + skip, sizeof(*a) - skip);
}

/*
 * What others wrote while nobody kept the device open (a repair, a check) must not be written over
 * with what is remembered here. Where a commit failed either may be there.
 */
static int compare(struct dtm_metadata *m)
{
	const __le32 flag = cpu_to_le32(DTM_SUPERBLOCK_NEEDS_CHECK);
	const bool committed = m->committed->sb.flags & flag;
	bool same, there;
	int r;

	r = dtm_superblock_read(m->bm, m->next);
	if (r && r != -EILSEQ && r != -ENOTBLK)
		return r;
	there = m->next->sb.flags & flag;
	same = !r && (same_superblock(m->next, m->committed) ||
		      (m->doubtful && same_superblock(m->next, m->attempted)));
	/* A flag that was written and is not there was taken away by a check; one that is there,
	 * and that nobody here tried to write, others set. */
	if (same && (there ? m->needs_check : !committed || m->doubtful))
		return 0;
	DMERR_LIMIT("%pg: the metadata was changed while the pool was not there: take the pool "
		    "down with all its devices, then make it again",
		    m->bdev);
	return -ESTALE;
}

static int attach(struct dtm_metadata *m)
{
	int r = compare(m);

	if (!r)
		m->detached = false;
	return r;
}

/*
 * Reads the committed metadata again. Whether or not that works, the transaction there was is
 * gone.
 */
static int reload(struct dtm_metadata *m)
{
	int r;

	unload(m);
	/*
	 * This writes what has changed before it forgets it. That does no harm: a transaction
	 * writes only to blocks that were free before it, and the superblock is never left behind
	 * unwritten. The flush is for an error of those writes, which would else be told to who
	 * writes next.
	 */
	dm_bm_set_read_write(m->bm);
	dm_block_manager_reset(m->bm);
	if (m->dirty && !bdev_read_only(m->bdev))
		(void)dm_bm_flush(m->bm);
	if (m->read_only)
		dm_bm_set_read_only(m->bm);

	r = m->detached ? attach(m) : 0;
	if (!r)
		r = load(m);
	m->broken = r != 0;
	begin_transaction(m);
	return r;
}

void dtm_md_counts_change(struct dtm_metadata *m, u64 begin, u64 end)
{
	u64 first, last, i;

	if (begin >= end)
		return;
	first = div_u64(begin, DTM_COUNTS_PER_BITMAP);
	last = div_u64(end - 1, DTM_COUNTS_PER_BITMAP);
	/* Of more than fit in the cache, the last ones will be there. */
	if (last - first >= DTM_CACHED_BITMAPS)
		first = last - (DTM_CACHED_BITMAPS - 1);
	for (i = first; i <= last; i++) {
		/* The kernel multiplies by an odd number: the same ones share a place. */
		unsigned int place = i % DTM_CACHED_BITMAPS;

		m->counted[place] = i;
		__set_bit(place, m->counted_valid);
	}
}

/*
 * The data space map keeps changed index entries in memory, and writes them to a tree when it is
 * committed; of the errors of that it tells only the last entry's. One that was not written would
 * lead to a bitmap that is used for something else. So what it will read is read here first, and an
 * error stops the commit; errors of allocating are noticed by the watch.
 */
static int read_index(struct dtm_metadata *m)
{
	u8 copy[DTM_SM_ROOT_SIZE] __aligned(8);
	struct dtm_index_entry entry;
	struct dm_btree_info info = {
		.tm = m->tm,
		.levels = 1,
		.value_type.size = sizeof(entry),
	};
	struct dtm_sm_root root;
	unsigned int place;
	int r;

	r = m->data_sm->copy_root(m->data_sm, copy, sizeof(copy));
	if (r)
		return r;
	memcpy(&root, copy, sizeof(root));
	for_each_set_bit(place, m->counted_valid, DTM_CACHED_BITMAPS) {
		r = dtm_md_lookup(m, &info, le64_to_cpu(root.bitmap_root), m->counted[place], true,
				  &entry);
		/* One that was added in this transaction is not in the tree yet. */
		if (r && r != -ENODATA)
			return r;
	}
	return 0;
}

static int fill_next(struct dtm_metadata *m)
{
	struct dtm_superblock *sb = &m->next->sb;
	size_t size;
	int r;

	*m->next = *m->committed;

	r = m->data_sm->root_size(m->data_sm, &size);
	if (!r && size > sizeof(sb->data_sm_root))
		r = -EINVAL;
	if (!r)
		r = m->data_sm->copy_root(m->data_sm, sb->data_sm_root, size);
	if (!r)
		r = m->metadata_sm->root_size(m->metadata_sm, &size);
	if (!r && size > sizeof(sb->metadata_sm_root))
		r = -EINVAL;
	if (!r)
		r = m->metadata_sm->copy_root(m->metadata_sm, sb->metadata_sm_root, size);
	if (r)
		return r;

	if (m->needs_check)
		sb->flags |= cpu_to_le32(DTM_SUPERBLOCK_NEEDS_CHECK);
	sb->time = cpu_to_le32(m->time);
	sb->transaction_id = cpu_to_le64(m->transaction_id);
	sb->held_root = cpu_to_le64(m->held_root);
	sb->mapping_root = cpu_to_le64(m->mapping_root);
	sb->details_root = cpu_to_le64(m->details_root);
	return 0;
}

/* The superblock in m->next is the one on the device now. */
static void next_is_committed(struct dtm_metadata *m)
{
	swap(m->committed, m->next);
	m->doubtful = false;
	if (m->committed->sb.flags & cpu_to_le32(DTM_SUPERBLOCK_NEEDS_CHECK))
		m->needs_check_unwritten = false;
}

/*
 * First everything the superblock leads to, flushed; then the superblock, flushed. What was
 * committed before stays readable all the time: it is not written over.
 */
static int write_transaction(struct dtm_metadata *m)
{
	struct dm_block *b;
	int r;

	r = dtm_devices_write_details(m);
	if (r)
		return r;
	r = read_index(m);
	if (r)
		return r;
	r = m->data_sm->commit(m->data_sm);
	if (r)
		return r;
	r = dm_tm_pre_commit(m->tm);
	if (r)
		return r;
	/* The last chance to notice that a count is not what it should be. */
	if (m->lost_error)
		return m->lost_error;

	r = fill_next(m);
	if (r)
		return r;
	r = dm_bm_write_lock_zero(m->bm, DTM_SUPERBLOCK_LOCATION, &dtm_superblock_validator, &b);
	if (r)
		return r;
	memcpy(dm_block_data(b), m->next, sizeof(*m->next));
	r = dm_tm_commit(m->tm, b);
	if (r) {
		m->doubtful = true;
		*m->attempted = *m->next;
		return r;
	}
	next_is_committed(m);
	return 0;
}

/* ---- blocks that are not mapped yet ------------------------------------------------------ */

/*
 * What is committed must not count them: nothing would lead to them after a crash, and nobody give
 * them back. So they are counted in memory only, and not while a transaction is written.
 */
static int hide_promises(struct dtm_metadata *m)
{
	struct dtm_promise *p;
	int bucket, r;

	hash_for_each(m->promises, bucket, p, node) {
		dtm_md_counts_change(m, p->block, p->block + 1);
		r = dtm_sm_dec(m->data_sm, p->block);
		if (r)
			return r;
	}
	return 0;
}

static void show_promises(struct dtm_metadata *m)
{
	struct dtm_promise *p;
	int bucket, r;

	hash_for_each(m->promises, bucket, p, node) {
		m->dirty = true;
		m->data_allocated++;
		dtm_md_counts_change(m, p->block, p->block + 1);
		r = dtm_sm_inc(m->data_sm, p->block);
		/* The commit was good; it is the next transaction that is not. */
		if (r)
			(void)spoil(m, r);
	}
}

static void end_promise(struct dtm_promise *p)
{
	hash_del(&p->node);
	kfree(p);
}

static void end_promises(struct dtm_metadata *m, u64 begin, u64 end)
{
	struct dtm_promise *p;
	struct hlist_node *next;
	int bucket;

	hash_for_each_safe(m->promises, bucket, next, p, node)
		if (p->block >= begin && p->block < end)
			end_promise(p);
}

void dtm_md_promise_kept(struct dtm_metadata *m, u64 block)
{
	struct dtm_promise *p;

	hash_for_each_possible(m->promises, p, node, block) {
		if (p->block == block) {
			end_promise(p);
			return;
		}
	}
}

/* ---- commit and abort -------------------------------------------------------------------- */

static int commit_locked(struct dtm_metadata *m)
{
	int r;

	r = usable(m);
	if (r)
		return r;
	if (!m->changed)
		return 0;
	if (m->read_only)
		return -EROFS;

	r = hide_promises(m);
	if (!r)
		r = write_transaction(m);
	if (r) {
		DMERR_LIMIT("%pg: the commit failed: error %d; its changes have to be taken back",
			    m->bdev, r);
		return spoil(m, r);
	}
	begin_transaction(m);
	dtm_devices_committed(m);
	show_promises(m);
	return 0;
}

int dtm_metadata_commit(struct dtm_metadata *m)
{
	int r;

	dtm_md_lock(m);
	r = commit_locked(m);
	dtm_md_unlock(m);
	return r;
}

/*
 * A superblock may be on the device that belongs to no transaction here: the one that is known is
 * written over it, for the blocks that only the other leads to will be used again. It is still
 * complete, as nothing was written after it.
 */
static int end_doubt(struct dtm_metadata *m)
{
	int r;

	if (!m->doubtful)
		return 0;
	if (m->detached)
		return -EIO;
	if (bdev_read_only(m->bdev))
		return -EROFS;
	r = dtm_superblock_write(m->bm, m->committed);
	if (!r)
		m->doubtful = false;
	return r;
}

int dtm_metadata_abort(struct dtm_metadata *m)
{
	int r;

	dtm_md_lock(m);
	dtm_devices_aborted(m);
	end_promises(m, 0, U64_MAX);
	r = reload(m);
	if (r)
		DMERR_LIMIT("%pg: what was committed last cannot be read: error %d", m->bdev, r);
	if (end_doubt(m))
		DMERR_LIMIT("%pg: the superblock cannot be written; that is tried again later",
			    m->bdev);
	dtm_md_unlock(m);
	return r;
}

int dtm_metadata_mend(struct dtm_metadata *m)
{
	int r = 0;

	dtm_md_lock(m);
	if (m->broken) {
		r = reload(m);
		if (!r)
			DMINFO("%pg: the metadata can be read again", m->bdev);
	}
	/* Only what changes metadata waits for this, and finds it out by itself. */
	(void)end_doubt(m);
	dtm_md_unlock(m);
	return r;
}

void dtm_metadata_detach(struct dtm_metadata *m)
{
	dtm_md_lock(m);
	unload(m);
	m->broken = true;
	m->detached = true;
	/* So that nothing is left that would be written some time, or be taken for what is there.
	 */
	dm_block_manager_reset(m->bm);
	dtm_md_unlock(m);
}

bool dtm_metadata_is_stale(struct dtm_metadata *m)
{
	bool stale = false;

	dtm_md_lock(m);
	if (m->detached) {
		stale = compare(m) == -ESTALE;
		dm_block_manager_reset(m->bm); /* whoever attaches it reads it again */
	}
	dtm_md_unlock(m);
	return stale;
}

void dtm_metadata_set_read_only(struct dtm_metadata *m, bool read_only)
{
	dtm_md_lock(m);
	m->read_only = read_only;
	/* The block manager holds to it too, in case a way round was forgotten here. */
	if (read_only)
		dm_bm_set_read_only(m->bm);
	else
		dm_bm_set_read_write(m->bm);
	dtm_md_unlock(m);
}

int dtm_metadata_set_needs_check(struct dtm_metadata *m)
{
	__le32 flag = cpu_to_le32(DTM_SUPERBLOCK_NEEDS_CHECK);
	bool told;
	int r = 0;

	dtm_md_lock(m);
	told = m->needs_check_unwritten; /* it is tried every second */
	m->needs_check = true;
	if (!(m->committed->sb.flags & flag) || m->doubtful) {
		m->needs_check_unwritten = true;
		*m->next = *m->committed;
		m->next->sb.flags |= flag;
		if (m->detached)
			r = -EIO;
		else if (bdev_read_only(m->bdev))
			r = -EROFS;
		else
			r = dtm_superblock_write(m->bm, m->next);
		if (!r)
			next_is_committed(m);
		else if (!told)
			DMERR_LIMIT("%pg: needs_check is not recorded yet: error %d", m->bdev, r);
	}
	dtm_md_unlock(m);
	return r;
}

/* ---- opening and closing ----------------------------------------------------------------- */

/* Empty metadata, in the order of blocks that mainline has too. */
static int format(struct dtm_metadata *m, u32 data_block_sectors)
{
	u64 sectors = min_t(u64, bdev_nr_sectors(m->bdev), DTM_METADATA_MAX_SECTORS);
	struct dtm_superblock *sb = &m->committed->sb;
	struct dm_transaction_manager *tm;
	struct dm_space_map *sm;
	dm_block_t root;
	int r;

	memset(m->committed, 0, sizeof(*m->committed));
	sb->magic = cpu_to_le64(DTM_SUPERBLOCK_MAGIC);
	sb->version = cpu_to_le32(DTM_SUPERBLOCK_VERSION);
	sb->data_block_sectors = cpu_to_le32(data_block_sectors);
	sb->metadata_block_sectors = cpu_to_le32(DTM_METADATA_BLOCK_SECTORS);
	sb->metadata_blocks = cpu_to_le64(div_u64(sectors, DTM_METADATA_BLOCK_SECTORS));

	r = dm_tm_create_with_sm(m->bm, DTM_SUPERBLOCK_LOCATION, &tm, &sm);
	if (r)
		return r;
	m->tm = tm;
	m->metadata_sm = sm;

	sm = dm_sm_disk_create(m->tm, 0);
	if (IS_ERR(sm)) {
		r = PTR_ERR(sm);
		goto fail;
	}
	m->data_sm = sm;

	r = load_rest(m);
	if (r)
		goto fail;
	begin_transaction(m);
	r = dm_btree_empty(&m->mappings, &root);
	if (r)
		goto fail;
	m->mapping_root = root;
	r = dm_btree_empty(&m->details, &root);
	if (r)
		goto fail;
	m->details_root = root;

	r = write_transaction(m);
	if (r)
		goto fail;
	return 0;

fail:
	unload(m);
	return r;
}

/* Is what the superblock says possible, and what the table says? */
static int check_superblock(struct dtm_metadata *m, sector_t data_block_sectors)
{
	const struct dtm_superblock *sb = &m->committed->sb;
	u64 there = div_u64(bdev_nr_sectors(m->bdev), DTM_METADATA_BLOCK_SECTORS);
	u32 sectors = le32_to_cpu(sb->data_block_sectors);
	struct dtm_sm_root root;
	u64 blocks;
	int r;

	r = dtm_superblock_check_features(sb, !bdev_read_only(m->bdev), m->bdev);
	if (r)
		return r;
	if (sectors != data_block_sectors) {
		DMERR("%pg: the pool's data blocks are of %u sectors, not of %llu", m->bdev,
		      sectors, (unsigned long long)data_block_sectors);
		return -EINVAL;
	}
	if (le32_to_cpu(sb->time) > DTM_TIME_MAX) {
		DMERR("%pg: more snapshots were taken than the format can count", m->bdev);
		return -EINVAL;
	}
	memcpy(&root, sb->metadata_sm_root, sizeof(root));
	blocks = le64_to_cpu(root.blocks);
	if (blocks > there) {
		DMERR("%pg: the metadata is of %llu blocks, but there is only room for %llu",
		      m->bdev, blocks, there);
		return -EINVAL;
	}
	return 0;
}

static int open_or_format(struct dtm_metadata *m, sector_t data_block_sectors, bool may_format)
{
	bool blank;
	int r;

	r = dtm_superblock_is_blank(m->bm, &blank);
	if (r) {
		DMERR("%pg: the superblock cannot be read: error %d", m->bdev, r);
		return r;
	}
	if (blank && !may_format) {
		DMERR("%pg: there is no metadata here", m->bdev);
		return -EPERM;
	}
	if (blank && bdev_read_only(m->bdev)) {
		DMERR("%pg: metadata cannot be made on a device that is read-only", m->bdev);
		return -EROFS;
	}
	if (blank) {
		r = format(m, data_block_sectors);
		if (r)
			DMERR("%pg: no metadata could be made: error %d", m->bdev, r);
	} else {
		r = dtm_superblock_read(m->bm, m->committed);
		if (!r)
			r = check_superblock(m, data_block_sectors);
		if (r)
			return r;
		r = load(m);
		if (r)
			DMERR("%pg: the metadata cannot be read: error %d", m->bdev, r);
	}
	if (r)
		return r;
	m->needs_check = le32_to_cpu(m->committed->sb.flags) & DTM_SUPERBLOCK_NEEDS_CHECK;
	begin_transaction(m);
	return 0;
}

static void free_metadata(struct dtm_metadata *m)
{
	kfree(m->committed);
	kfree(m->next);
	kfree(m->attempted);
	kfree(m);
}

struct dtm_metadata *dtm_metadata_open(struct block_device *bdev, sector_t data_block_sectors,
				       bool may_format)
{
	struct dtm_metadata *m;
	int r;

	m = kzalloc(sizeof(*m), GFP_KERNEL);
	if (!m)
		return ERR_PTR(-ENOMEM);
	init_rwsem(&m->lock);
	spin_lock_init(&m->view_lock);
	INIT_LIST_HEAD(&m->devices);
	hash_init(m->promises);
	m->bdev = bdev;
	m->committed = kzalloc(sizeof(*m->committed), GFP_KERNEL);
	m->next = kzalloc(sizeof(*m->next), GFP_KERNEL);
	m->attempted = kzalloc(sizeof(*m->attempted), GFP_KERNEL);
	if (!m->committed || !m->next || !m->attempted) {
		r = -ENOMEM;
		goto fail_memory;
	}

	m->bm = dm_block_manager_create(bdev, DTM_SUPERBLOCK_BLOCK_SIZE, MAX_HELD);
	if (IS_ERR(m->bm)) {
		r = PTR_ERR(m->bm);
		DMERR("%pg: no cache for the metadata: error %d", bdev, r);
		goto fail_memory;
	}
	/* Nobody else knows of it yet, but the helpers are those that run with the lock. */
	dtm_md_lock(m);
	r = open_or_format(m, data_block_sectors, may_format);
	if (r) {
		let_go(m);
		goto fail_manager;
	}
	dtm_md_unlock(m);
	return m;

fail_manager:
	dm_block_manager_destroy(m->bm);
fail_memory:
	free_metadata(m);
	return ERR_PTR(r);
}

void dtm_metadata_close(struct dtm_metadata *m)
{
	struct dtm_device *d;
	int r;

	if (!m)
		return;
	dtm_md_lock(m);
	if (!m->broken && !m->read_only && !m->error) {
		r = commit_locked(m);
		if (r)
			DMERR("%pg: changes were lost when the metadata was closed: error %d",
			      m->bdev, r);
	}
	dtm_devices_aborted(m); /* frees those that nobody has open */
	list_for_each_entry(d, &m->devices, list) {
		WARN(1, "thin device %u is still open", d->id);
		/* Who has it goes on using all of this: a leak is the lesser evil. */
		dtm_md_unlock(m);
		return;
	}
	end_promises(m, 0, U64_MAX);
	unload(m);
	let_go(m);

	dm_block_manager_destroy(m->bm);
	free_metadata(m);
}

/* ---- what is known without waiting ------------------------------------------------------- */

static struct dtm_metadata_view view_of(struct dtm_metadata *m)
{
	struct dtm_metadata_view v;
	unsigned long flags;

	spin_lock_irqsave(&m->view_lock, flags);
	v = m->view;
	spin_unlock_irqrestore(&m->view_lock, flags);
	return v;
}

bool dtm_metadata_changed(struct dtm_metadata *m)
{
	return READ_ONCE(m->view.changed);
}

bool dtm_metadata_must_abort(struct dtm_metadata *m)
{
	return READ_ONCE(m->view.must_abort);
}

bool dtm_metadata_is_broken(struct dtm_metadata *m)
{
	return READ_ONCE(m->view.broken);
}

bool dtm_metadata_needs_check(struct dtm_metadata *m)
{
	return READ_ONCE(m->view.needs_check);
}

bool dtm_metadata_needs_check_unwritten(struct dtm_metadata *m)
{
	return READ_ONCE(m->view.needs_check_unwritten);
}

u64 dtm_metadata_transaction_id(struct dtm_metadata *m)
{
	return view_of(m).transaction_id;
}

int dtm_metadata_sizes(struct dtm_metadata *m, struct dtm_metadata_sizes *ret)
{
	struct dtm_metadata_view v = view_of(m);

	*ret = v.sizes;
	return v.broken ? -EIO : 0;
}

/* ---- the rest ---------------------------------------------------------------------------- */

int dtm_metadata_set_transaction_id(struct dtm_metadata *m, u64 current_id, u64 new_id)
{
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ANY);
	if (r)
		return r;
	if (m->transaction_id != current_id)
		return dtm_md_unchanged(m, -EINVAL);
	m->transaction_id = new_id;
	return dtm_md_end(m, 0);
}

void dtm_metadata_prefetch(struct dtm_metadata *m)
{
	if (!READ_ONCE(m->wanted))
		return;
	WRITE_ONCE(m->wanted, false);
	down_read(&m->lock);
	if (!m->broken)
		dm_tm_issue_prefetches(m->tm);
	up_read(&m->lock);
}

/* Blocks of metadata that growing to so many data blocks takes at most. */
static u64 cost_of_data(u64 from, u64 to)
{
	u64 bitmaps = div_u64(to - 1, DTM_COUNTS_PER_BITMAP) + 1 -
		      div_u64(from, DTM_COUNTS_PER_BITMAP);

	/* A tree of their index entries, its nodes at worst as empty as may be. */
	return bitmaps + div_u64(bitmaps, MIN_NODE_ENTRIES) * 2 + 8;
}

int dtm_metadata_resize_data(struct dtm_metadata *m, u64 blocks)
{
	u64 now, free, keep;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ANY);
	if (r)
		return r;
	now = m->data_blocks;
	if (blocks == now)
		return dtm_md_unchanged(m, 0);
	if (blocks < now || blocks > DTM_DATA_BLOCKS_MAX) {
		DMERR("%pg: %llu data blocks cannot become %llu", m->bdev, now, blocks);
		return dtm_md_unchanged(m, -EINVAL);
	}
	/* As what frees space: a pool that is out of both needs either. */
	keep = m->reserve / 2;
	free = dtm_sm_free(m->metadata_sm);
	if (free <= keep || free - keep < cost_of_data(now, blocks)) {
		DMERR("%pg: not enough metadata for %llu data blocks: grow the metadata first",
		      m->bdev, blocks);
		return dtm_md_unchanged(m, -ENOSPC);
	}
	dtm_md_counts_change(m, now, blocks);
	m->data_blocks = blocks;
	r = m->data_sm->extend(m->data_sm, blocks - now);
	if (!r)
		m->data_added += blocks - now;
	return dtm_md_end(m, r);
}

/*
 * The new space has to hold what writing it down takes: a copy of the index, new bitmaps, and
 * copies of bitmaps whose counts change. Those lie anywhere, so one copy may ask for another.
 */
static u64 growth_min(u64 blocks)
{
	const u64 bitmaps = div_u64(blocks, DTM_COUNTS_PER_BITMAP) + 1;

	return bitmaps + min_t(u64, GROWTH_MIN, 6 + 2 * bitmaps);
}

int dtm_metadata_resize_metadata(struct dtm_metadata *m, u64 blocks)
{
	u64 now, there;
	int r;

	/* New blocks are counted in the new space: this is how a full pool gets room again. */
	r = dtm_md_begin(m, DTM_MD_ROOM_ANY);
	if (r)
		return r;
	there = div_u64(bdev_nr_sectors(m->bdev), DTM_METADATA_BLOCK_SECTORS);
	blocks = min_t(u64, blocks, DTM_METADATA_MAX_BLOCKS);
	now = dtm_sm_blocks(m->metadata_sm);
	if (blocks == now)
		return dtm_md_unchanged(m, 0);
	if (blocks < now || blocks > there) {
		DMERR("%pg: %llu blocks of metadata cannot become %llu; the device has %llu",
		      m->bdev, now, blocks, there);
		return dtm_md_unchanged(m, -EINVAL);
	}
	if (blocks - now < growth_min(blocks)) {
		DMINFO("%pg: %llu blocks of metadata are not enough to grow by, %llu would be",
		       m->bdev, blocks - now, growth_min(blocks));
		return dtm_md_unchanged(m, -ENOSPC);
	}
	r = m->metadata_sm->extend(m->metadata_sm, blocks - now);
	dtm_sm_watch_renew(&m->watch);
	return dtm_md_end(m, r);
}

/* ---- data blocks ------------------------------------------------------------------------- */

int dtm_metadata_alloc_data(struct dtm_metadata *m, u64 *ret_block)
{
	struct dtm_promise *p;
	dm_block_t block;
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ALL);
	if (r)
		return r == -ENOSPC ? -EXFULL : r;
	if (!data_free(m))
		return dtm_md_unchanged(m, -ENOSPC);
	p = kmalloc(sizeof(*p), GFP_NOIO);
	if (!p)
		return dtm_md_unchanged(m, -ENOMEM);

	/* What is free now and was at the last commit, or was not there then. */
	r = m->data_sm->new_block(m->data_sm, &block);
	if (!r) {
		dtm_md_counts_change(m, block, block + 1);
		p->block = block;
		hash_add(m->promises, &p->node, block);
		m->data_allocated++;
		m->dirty = true;
		*ret_block = block;
		if (m->lost_error)
			return dtm_md_end(m, 0);
		/* There is nothing to commit until it is mapped. */
		return dtm_md_unchanged(m, 0);
	}
	kfree(p);
	/* The data has no free block, or the metadata none to count that in. */
	if (r == -ENOSPC && !m->lost_error)
		return dtm_md_unchanged(m, -ENOSPC);
	return dtm_md_end(m, r == -ENOSPC ? -EXFULL : r);
}

/*
 * With the lock for writing: looking at a count may push another index entry out of the space map's
 * memory and into its tree, and changes that memory in any case.
 */
static int count_of_data(struct dtm_metadata *m, u64 block, u32 *ret)
{
	int r;

	if (block >= m->data_blocks)
		return -EINVAL;
	r = m->data_sm->get_count(m->data_sm, block, ret);
	if (!r)
		r = m->lost_error;
	/* What it pushed out may be lost. */
	return r && m->dirty ? spoil(m, r) : r;
}

int dtm_metadata_data_is_shared(struct dtm_metadata *m, u64 block, bool *ret_shared)
{
	u32 count;
	int r;

	dtm_md_lock(m);
	r = usable(m);
	if (!r)
		r = count_of_data(m, block, &count);
	dtm_md_unlock(m);
	if (!r)
		*ret_shared = count > 1;
	return r;
}

int dtm_metadata_find_unused_data(struct dtm_metadata *m, u64 *begin, u64 *end)
{
	u64 block, first = *end;
	u32 count;
	int r;

	dtm_md_lock(m);
	r = usable(m);
	for (block = *begin; !r && block < *end; block++) {
		r = count_of_data(m, block, &count);
		if (r)
			break;
		if (!count)
			first = min(first, block);
		else if (first < block)
			break;
	}
	dtm_md_unlock(m);
	if (r)
		return r;
	if (first == *end)
		return -ENODATA;
	*begin = first;
	*end = block;
	return 0;
}

int dtm_metadata_inc_data(struct dtm_metadata *m, u64 begin, u64 end)
{
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_ALL);
	if (r)
		return r;
	dtm_md_counts_change(m, begin, end);
	return dtm_md_end(m, m->data_sm->inc_blocks(m->data_sm, begin, end));
}

int dtm_metadata_dec_data(struct dtm_metadata *m, u64 begin, u64 end)
{
	int r;

	r = dtm_md_begin(m, DTM_MD_ROOM_HALF);
	if (r)
		return r;
	end_promises(m, begin, end);
	dtm_md_counts_change(m, begin, end);
	return dtm_md_end(m, m->data_sm->dec_blocks(m->data_sm, begin, end));
}
