/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What we call of the kernel's dm-persistent-data: it exports the functions, but header packages
 * come without the declarations. Only what is called is here, and only structures whose inside is
 * touched by us are spelled out. A wrong one would not be noticed by the compiler, so a test
 * compares each structure and prototype below with the kernel's own type information.
 *
 * How things go together: a block manager caches the metadata device. A space map counts the uses
 * of blocks, of the metadata device itself or of another. The transaction manager copies a block
 * before its first change in a transaction ("shadows" it), so what was committed stays as it was.
 * A B-tree has 64-bit keys and values of one size; the values of an upper level are roots of trees
 * below. Nothing here locks against concurrent changes: that is for the caller.
 */
#ifndef DTM_PERSISTENT_DATA_H
#define DTM_PERSISTENT_DATA_H

#include <linux/types.h>

#include "compat.h"

struct block_device;
struct dm_bufio_client;

typedef u64 dm_block_t;

/* ---- blocks ------------------------------------------------------------------------------ */

struct dm_block; /* cached, and held by whoever got it, until unlocked */
/* A test compares this with the kernel's own type information. */
struct dm_block_manager {
	struct dm_bufio_client *bufio; /* of the device; for reading blocks as they are */
	bool read_only : 1;
};

/* A test compares this with the kernel's own type information. */
struct dm_block_validator {
	const char *name;
	/* Called as a changed block is about to be written: fills in what check() looks at. */
	void (*prepare_for_write)(DTM_VALIDATOR_CONST struct dm_block_validator *v,
				  struct dm_block *b, size_t size);
	/* Called once after a block was read; an error of it is what locking answers. */
	int (*check)(DTM_VALIDATOR_CONST struct dm_block_validator *v, struct dm_block *b,
		     size_t size);
};

dm_block_t dm_block_location(struct dm_block *b);
void *dm_block_data(struct dm_block *b);

/* An ERR_PTR() on failure. max_held: blocks a thread may hold, for which memory is set aside. */
struct dm_block_manager *dm_block_manager_create(struct block_device *bdev, unsigned int block_size,
						 unsigned int max_held);
void dm_block_manager_destroy(struct dm_block_manager *bm);
/* Forgets every block; changed ones are written on the way, with errors or not. None is held. */
void dm_block_manager_reset(struct dm_block_manager *bm);

int dm_bm_read_lock(struct dm_block_manager *bm, dm_block_t where,
		    DTM_VALIDATOR_CONST struct dm_block_validator *v, struct dm_block **ret);
/* All zeroes, not read before, written at the next flush at the latest. */
int dm_bm_write_lock_zero(struct dm_block_manager *bm, dm_block_t where,
			  DTM_VALIDATOR_CONST struct dm_block_validator *v, struct dm_block **ret);
void dm_bm_unlock(struct dm_block *b);

/*
 * Writes what changed and flushes the device. The error may be that of an earlier write that
 * nobody waited for; it is told once.
 */
int dm_bm_flush(struct dm_block_manager *bm);

/* Read-only, nothing can be locked for writing nor flushed. */
bool dm_bm_is_read_only(struct dm_block_manager *bm);
void dm_bm_set_read_only(struct dm_block_manager *bm);
void dm_bm_set_read_write(struct dm_block_manager *bm);

/* CRC-32C of the data, xored with a number that tells kinds of blocks apart. */
u32 dm_bm_checksum(const void *data, size_t size, u32 xor_with);

/* ---- space maps -------------------------------------------------------------------------- */

typedef void (*dm_sm_threshold_fn)(void *context);

/*
 * Its methods, and behind them what is private. A test compares this with the kernel's own type
 * information.
 */
struct dm_space_map {
	void (*destroy)(struct dm_space_map *sm);

	int (*extend)(struct dm_space_map *sm, dm_block_t blocks);
	int (*get_nr_blocks)(struct dm_space_map *sm, dm_block_t *ret);
	int (*get_nr_free)(struct dm_space_map *sm, dm_block_t *ret);

	int (*get_count)(struct dm_space_map *sm, dm_block_t b, u32 *ret);
	int (*count_is_more_than_one)(struct dm_space_map *sm, dm_block_t b, int *ret);
	int (*set_count)(struct dm_space_map *sm, dm_block_t b, u32 count);

	int (*commit)(struct dm_space_map *sm);

	/* Of the blocks [begin, end). */
	int (*inc_blocks)(struct dm_space_map *sm, dm_block_t begin, dm_block_t end);
	int (*dec_blocks)(struct dm_space_map *sm, dm_block_t begin, dm_block_t end);

	/* Free now and when last committed; its count becomes one. */
	int (*new_block)(struct dm_space_map *sm, dm_block_t *ret);

	/* What has to be kept to open the map again: little endian, for a superblock. */
	int (*root_size)(struct dm_space_map *sm, size_t *ret);
	int (*copy_root)(struct dm_space_map *sm, void *ret_le, size_t size);

	int (*register_threshold_callback)(struct dm_space_map *sm, dm_block_t threshold,
					   dm_sm_threshold_fn fn, void *context);
};

struct dm_transaction_manager;

/* Of another device than that of the transaction manager. ERR_PTR() on failure. */
struct dm_space_map *dm_sm_disk_create(struct dm_transaction_manager *tm, dm_block_t blocks);
struct dm_space_map *dm_sm_disk_open(struct dm_transaction_manager *tm, void *root_le, size_t size);

/* ---- transactions ------------------------------------------------------------------------ */

/* The transaction manager and the space map of its own device; each is destroyed by itself. */
int dm_tm_create_with_sm(struct dm_block_manager *bm, dm_block_t superblock,
			 struct dm_transaction_manager **ret_tm, struct dm_space_map **ret_sm);
int dm_tm_open_with_sm(struct dm_block_manager *bm, dm_block_t superblock, void *root_le,
		       size_t size, struct dm_transaction_manager **ret_tm,
		       struct dm_space_map **ret_sm);
void dm_tm_destroy(struct dm_transaction_manager *tm);

/* For reading what is cached: other blocks are -EWOULDBLOCK. NULL: no memory. */
struct dm_transaction_manager *dm_tm_create_non_blocking_clone(struct dm_transaction_manager *real);
/* Begins to read what a clone was asked for in vain. */
void dm_tm_issue_prefetches(struct dm_transaction_manager *tm);

/* Everything but the superblock is written. */
int dm_tm_pre_commit(struct dm_transaction_manager *tm);
/* The superblock is unlocked and written. */
int dm_tm_commit(struct dm_transaction_manager *tm, struct dm_block *superblock);

int dm_tm_read_lock(struct dm_transaction_manager *tm, dm_block_t where,
		    DTM_VALIDATOR_CONST struct dm_block_validator *v, struct dm_block **ret);
void dm_tm_unlock(struct dm_transaction_manager *tm, struct dm_block *b);

/* ---- B-trees ----------------------------------------------------------------------------- */

/* A test compares this with the kernel's own type information. */
struct dm_btree_value_type {
	void *context; /* of the methods */
	u32 size;      /* of one value */

	/* Values next to each other that exist once more, or no more. Each may be NULL. */
	void (*inc)(void *context, const void *values, unsigned int count);
	void (*dec)(void *context, const void *values, unsigned int count);
	/* A value replaced by an equal one is not dec'ed. */
	int (*equal)(void *context, const void *value1, const void *value2);
};

/* A test compares this with the kernel's own type information. */
struct dm_btree_info {
	struct dm_transaction_manager *tm;
	unsigned int levels; /* of trees, one in the other */
	struct dm_btree_value_type value_type;
};

int dm_btree_empty(struct dm_btree_info *info, dm_block_t *ret_root);
int dm_btree_del(struct dm_btree_info *info, dm_block_t root);

/* One key per level. -ENODATA: it is not there. */
int dm_btree_lookup(struct dm_btree_info *info, dm_block_t root, u64 *keys, void *ret_le);
/* The key of the last level, or the next that exists. */
int dm_btree_lookup_next(struct dm_btree_info *info, dm_block_t root, u64 *keys, u64 *ret_key,
			 void *ret_le);
/* How many of the keys were found: fewer than levels where a tree is empty. */
int dm_btree_find_lowest_key(struct dm_btree_info *info, dm_block_t root, u64 *ret_keys);
int dm_btree_find_highest_key(struct dm_btree_info *info, dm_block_t root, u64 *ret_keys);

int dm_btree_insert(struct dm_btree_info *info, dm_block_t root, u64 *keys, void *value_le,
		    dm_block_t *ret_root);
/* Says whether the key is new. */
int dm_btree_insert_notify(struct dm_btree_info *info, dm_block_t root, u64 *keys, void *value_le,
			   dm_block_t *ret_root, int *ret_inserted);
int dm_btree_remove(struct dm_btree_info *info, dm_block_t root, u64 *keys, dm_block_t *ret_root);

#endif
