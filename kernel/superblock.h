/* SPDX-License-Identifier: GPL-2.0-only */
/* The first block of a pool's metadata: where everything else is. Written last in a commit. */
#ifndef DTM_SUPERBLOCK_H
#define DTM_SUPERBLOCK_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/types.h>

#include "persistent-data.h"

#define DTM_SUPERBLOCK_LOCATION   0
#define DTM_SUPERBLOCK_MAGIC      27022010
#define DTM_SUPERBLOCK_VERSION    2
#define DTM_SUPERBLOCK_BLOCK_SIZE 4096
#define DTM_SM_ROOT_SIZE          128

/* In flags. */
#define DTM_SUPERBLOCK_NEEDS_CHECK BIT(0)

/* As on disk; what follows up to the end of the block is kept as it was found. */
struct dtm_superblock {
	__le32 checksum; /* of all that follows */
	__le32 flags;
	__le64 location; /* of this block */
	__u8 uuid[16];
	__le64 magic;
	__le32 version;
	__le32 time; /* counts snapshots */
	__le64 transaction_id;
	__le64 held_root; /* location of a superblock kept for user space; 0: none */
	__u8 data_sm_root[DTM_SM_ROOT_SIZE];
	__u8 metadata_sm_root[DTM_SM_ROOT_SIZE];
	__le64 mapping_root;
	__le64 details_root;
	__le32 data_block_sectors;
	__le32 metadata_block_sectors;
	__le64 metadata_blocks; /* when it was made */
	__le32 compat_flags;
	__le32 compat_ro_flags;
	__le32 incompat_flags;
} __packed;

static_assert(offsetof(struct dtm_superblock, flags) == 4);
static_assert(offsetof(struct dtm_superblock, location) == 8);
static_assert(offsetof(struct dtm_superblock, uuid) == 16);
static_assert(offsetof(struct dtm_superblock, magic) == 32);
static_assert(offsetof(struct dtm_superblock, version) == 40);
static_assert(offsetof(struct dtm_superblock, time) == 44);
static_assert(offsetof(struct dtm_superblock, transaction_id) == 48);
static_assert(offsetof(struct dtm_superblock, held_root) == 56);
static_assert(offsetof(struct dtm_superblock, data_sm_root) == 64);
static_assert(offsetof(struct dtm_superblock, metadata_sm_root) == 192);
static_assert(offsetof(struct dtm_superblock, mapping_root) == 320);
static_assert(offsetof(struct dtm_superblock, details_root) == 328);
static_assert(offsetof(struct dtm_superblock, data_block_sectors) == 336);
static_assert(offsetof(struct dtm_superblock, metadata_block_sectors) == 340);
static_assert(offsetof(struct dtm_superblock, metadata_blocks) == 344);
static_assert(offsetof(struct dtm_superblock, compat_flags) == 352);
static_assert(offsetof(struct dtm_superblock, compat_ro_flags) == 356);
static_assert(offsetof(struct dtm_superblock, incompat_flags) == 360);
/* All of it in one sector, so that a torn write leaves the old one or the new one. */
static_assert(sizeof(struct dtm_superblock) == 364);

/* How a space map's root begins. */
struct dtm_sm_root {
	__le64 blocks;
	__le64 allocated;
	__le64 bitmap_root;
	__le64 ref_count_root;
} __packed;
static_assert(sizeof(struct dtm_sm_root) == 32);

/* What the tree at bitmap_root says of a bitmap, by the bitmap's number. */
struct dtm_index_entry {
	__le64 location;
	__le32 free;
	__le32 none_free_before;
} __packed;
static_assert(sizeof(struct dtm_index_entry) == 16);

/* A superblock in memory, with the rest of its block. */
union dtm_superblock_image {
	struct dtm_superblock sb;
	u8 block[DTM_SUPERBLOCK_BLOCK_SIZE];
};

extern DTM_VALIDATOR_CONST struct dm_block_validator dtm_superblock_validator;

/* Is the first block all zeroes: never used? */
int dtm_superblock_is_blank(struct dm_block_manager *bm, bool *ret_blank);

/* -EILSEQ, -ENOTBLK: not a superblock, or a damaged one. */
int dtm_superblock_read(struct dm_block_manager *bm, union dtm_superblock_image *ret);

/* Writes and flushes it, without a read, also where the block manager is set read-only. */
int dtm_superblock_write(struct dm_block_manager *bm, const union dtm_superblock_image *image);

/* 0, or -EINVAL where something newer than this wrote it; name: for the message. */
int dtm_superblock_check_features(const struct dtm_superblock *sb, bool writable,
				  struct block_device *bdev);

#endif
