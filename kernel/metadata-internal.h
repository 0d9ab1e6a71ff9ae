/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files metadata*.c share; everybody else has metadata.h. */
#ifndef DTM_METADATA_INTERNAL_H
#define DTM_METADATA_INTERNAL_H

#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/hashtable.h>
#include <linux/list.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>

#include "mapping-cache.h"
#include "metadata.h"
#include "space-map-watch.h"
#include "superblock.h"

/* A mapping is one 64-bit value: the data block, and below it when it was made. */
#define DTM_TIME_BITS       24
#define DTM_TIME_MAX        ((1U << DTM_TIME_BITS) - 1)
#define DTM_DATA_BLOCKS_MAX (1ULL << (64 - DTM_TIME_BITS))

/* What is said of a device beside its mappings. */
struct dtm_device_details {
	u64 mapped_blocks;
	u64 transaction_id; /* when it was made */
	u32 creation_time;
	u32 snapshotted_time;
};

struct dtm_device_details_disk {
	__le64 mapped_blocks;
	__le64 transaction_id;
	__le32 creation_time;
	__le32 snapshotted_time;
} __packed;
static_assert(sizeof(struct dtm_device_details_disk) == 24);

/*
 * A device that is open, or was closed with changes that are not committed yet. Changed under the
 * metadata's lock for writing; the flags and the count of blocks are also looked at without it.
 */
struct dtm_device {
	struct list_head list;
	struct dtm_metadata *m;
	u32 id;
	unsigned int open_count;
	bool changed; /* in this transaction; its details are in the tree already, if outdated */
	bool lost_changes;
	bool exists, existed;     /* now; when committed last */
	u64 root, committed_root; /* of its tree of mappings; the upper tree always says the same */
	bool root_owned;          /* the upper tree's path to it is this transaction's own */
	struct dtm_device_details now, committed;
	/*
	 * What look-ups found. It holds what is in the tree, or less: a mapping is added with the
	 * lock for reading or writing, and forgotten or replaced with it for writing, by whoever
	 * changes it. Whether a block is shared is not in it, so a snapshot leaves it as it is.
	 */
	struct dtm_mapping_cache cache;
};

/* Data blocks whose counts are in one bitmap; bitmaps of which the kernel keeps index entries. */
#define DTM_COUNTS_PER_BITMAP ((4096 - 16) * 4)
#define DTM_CACHED_BITMAPS    64

/* A data block that was allocated, and is mapped once it is filled. */
struct dtm_promise {
	struct hlist_node node;
	u64 block;
};

/* What is told without waiting for a commit that has the lock: a copy, as of its last release. */
struct dtm_metadata_view {
	struct dtm_metadata_sizes sizes;
	u64 transaction_id;
	bool changed, must_abort, broken, needs_check, needs_check_unwritten;
};

struct dtm_metadata {
	struct rw_semaphore lock; /* of all below but the view */
	unsigned int noio;        /* what the holder for writing had set before */
	/*
	 * Of the holder for writing. The cache of metadata begins and ends one for each block that
	 * it is asked for, which costs less where there is one already.
	 */
	struct blk_plug plug;
	struct block_device *bdev;
	struct list_head devices;

	struct dm_block_manager *bm;
	/* These are NULL while broken. */
	struct dm_transaction_manager *tm;
	struct dm_transaction_manager *tm_nowait;
	struct dm_space_map *metadata_sm;
	struct dm_space_map *data_sm;
	struct dtm_sm_watch watch;

	struct dm_btree_info mappings;           /* device id, virtual block: a mapping */
	struct dm_btree_info devices_tree;       /* its upper level: device id: root of a tree */
	struct dm_btree_info devices_tree_moved; /* the old root owns nothing any more */
	struct dm_btree_info device_tree;        /* its lower level: virtual block: a mapping */
	struct dm_btree_info device_tree_nowait; /* the same for the non-blocking clone */
	struct dm_btree_info details;            /* device id: details */

	/* The transaction. */
	u64 mapping_root;
	u64 details_root;
	u64 held_root;
	u64 transaction_id;
	u32 time;
	bool changed;        /* so it has to be committed */
	bool dirty;          /* something is different in memory, if only for promises */
	int error;           /* why it can only be aborted */
	int lost_error;      /* met where it could not be answered */
	u64 data_blocks;     /* with those it adds */
	u64 data_free_begin; /* data blocks, when it began */
	u64 metadata_free_begin;
	u64 data_added;     /* by it; nothing that is committed leads there, so they are free */
	u64 data_allocated; /* in it, of both */
	u64 reserve;        /* metadata kept back, in blocks */
	/* Bitmaps in which counts of data blocks changed, the last of each place in the cache. */
	u64 counted[DTM_CACHED_BITMAPS];
	DECLARE_BITMAP(counted_valid, DTM_CACHED_BITMAPS);

	DECLARE_HASHTABLE(promises, 7);

	union dtm_superblock_image *committed; /* as on the device, but see doubtful */
	union dtm_superblock_image *next;      /* room for another */
	union dtm_superblock_image *attempted; /* where doubtful: the other that may be there */
	bool doubtful; /* a commit failed that may have replaced the superblock on the device */
	bool broken;
	bool detached; /* nobody keeps the device open; broken as well */
	bool wanted;   /* a look-up that could not wait missed something; also without the lock */
	bool read_only;
	bool needs_check;
	bool needs_check_unwritten;

	spinlock_t view_lock; /* of the view */
	struct dtm_metadata_view view;
};

/* ---- metadata.c -------------------------------------------------------------------------- */

/*
 * For writing, with nothing allocated in between doing I/O that may come back here. Letting go
 * renews the view.
 */
void dtm_md_lock(struct dtm_metadata *m);
void dtm_md_unlock(struct dtm_metadata *m);

enum dtm_md_room {
	DTM_MD_ROOM_ANY,  /* the change allocates next to nothing, or looks for itself */
	DTM_MD_ROOM_HALF, /* it frees, or ends what was begun: half of the reserve may be used */
	DTM_MD_ROOM_ALL,  /* the reserve has to be untouched */
};

/* Locks for a change; an error: nothing is locked, and nothing was changed. */
int dtm_md_begin(struct dtm_metadata *m, enum dtm_md_room room);
/* Unlocks. Any error, this or lost on the way, leaves the transaction to be aborted. */
int dtm_md_end(struct dtm_metadata *m, int r);
/* Unlocks where nothing was changed after all. */
int dtm_md_unchanged(struct dtm_metadata *m, int r);

/* A block that was allocated is mapped, or given back. */
void dtm_md_promise_kept(struct dtm_metadata *m, u64 block);

/* The counts of data blocks [begin, end) change. */
void dtm_md_counts_change(struct dtm_metadata *m, u64 begin, u64 end);

/* ---- metadata-device.c ------------------------------------------------------------------- */

/*
 * All with the lock for writing. Into the tree with what is in memory; what that is after a commit;
 * and after the transaction was taken back.
 */
int dtm_devices_write_details(struct dtm_metadata *m);
void dtm_devices_committed(struct dtm_metadata *m);
void dtm_devices_aborted(struct dtm_metadata *m);

/* To be called before the first change of a device. -ENODATA: it does not exist (any more). */
int dtm_device_touch(struct dtm_device *d);

/* ---- metadata-map.c ---------------------------------------------------------------------- */

/* How the trees count the uses of what their values refer to. */
void dtm_md_setup_trees(struct dtm_metadata *m);

/* ---- metadata-tree.c --------------------------------------------------------------------- */

/*
 * dm_btree_lookup() in a tree of one level, but with an error of the device never taken for a key
 * that is not there (-ENODATA). With wait false, tree is one for the non-blocking clone.
 */
int dtm_md_lookup(struct dtm_metadata *m, struct dm_btree_info *tree, u64 root, u64 key, bool wait,
		  void *value_le);

struct dtm_entry {
	u64 key;
	__le64 value;
};
/*
 * What follows a key in its leaf, at most so much, of a tree of values of 8 bytes. The key was just
 * found there by a look-up, with the lock held since: that has read the leaf, and checked it.
 * Answers how much it is; 0 where that is not known.
 */
unsigned int dtm_md_rest_of_leaf(struct dtm_metadata *m, u64 root, u64 key, struct dtm_entry *ret,
				 unsigned int most);

/*
 * Removes the keys below end that follow one in its leaf, at most so many, of a tree of values of 8
 * bytes with a dec(). That one was just removed, and the lock held since. Answers how many, and
 * which was the last; it may leave some, so that the leaf stays as full as the kernel's functions
 * want it.
 *
 * Removing the one has made the leaf, and the way to it, the transaction's own, with a count of one
 * each; so it can be changed where it is, as the block manager does it: changed in the cache and
 * marked as such there. Its checksum is made when it is written.
 */
unsigned int dtm_md_remove_rest_of_leaf(struct dtm_metadata *m, const struct dm_btree_info *tree,
					u64 root, u64 removed, u64 end, unsigned int most,
					u64 *ret_last);

/*
 * Where all of a tree is below a single node, that becomes its root. The way to the root is the
 * transaction's own, and a look-up has just read the root, and checked it.
 *
 * Before a change and after it, for the kernel's function that removes puts a copy of that node in
 * the root's place, and kernels without "dm-thin: fix metadata refcount underflow" (6.1.175,
 * 6.12.88) forget to count what is in it once more where a snapshot has it as well. Then what the
 * snapshot has is given away. So no removal meets a tree like this, and none is left to another.
 *
 * -EIO, or the space map's error; the transaction has to be given up then.
 */
int dtm_md_shorten(struct dtm_metadata *m, u64 *root);

/* ---- space maps, by their methods -------------------------------------------------------- */

static inline u64 dtm_sm_blocks(struct dm_space_map *sm)
{
	dm_block_t n = 0;

	/* No space map fails here: it is a number in memory. */
	if (sm->get_nr_blocks(sm, &n))
		return 0;
	return n;
}

static inline u64 dtm_sm_free(struct dm_space_map *sm)
{
	dm_block_t n = 0;

	if (sm->get_nr_free(sm, &n))
		return 0;
	/* A block that was given out twice in a transaction was subtracted twice. */
	return n > dtm_sm_blocks(sm) ? 0 : n;
}

static inline int dtm_sm_inc(struct dm_space_map *sm, u64 block)
{
	return sm->inc_blocks(sm, block, block + 1);
}

static inline int dtm_sm_dec(struct dm_space_map *sm, u64 block)
{
	return sm->dec_blocks(sm, block, block + 1);
}

#endif
