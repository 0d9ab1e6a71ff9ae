// SPDX-License-Identifier: GPL-2.0-only
/* See superblock.h. */

#include "superblock.h"

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/string.h>

#define DM_MSG_PREFIX "thin-pool metadata"

#define CHECKSUM_XOR 160774

/* Features this code knows: none of them so far. */
#define INCOMPAT_KNOWN  0U
#define COMPAT_RO_KNOWN 0U

static u32 checksum_of(const struct dtm_superblock *sb, size_t size)
{
	return dm_bm_checksum(&sb->flags, size - sizeof(sb->checksum), CHECKSUM_XOR);
}

static void prepare_for_write(DTM_VALIDATOR_CONST struct dm_block_validator *v, struct dm_block *b,
			      size_t size)
{
	struct dtm_superblock *sb = dm_block_data(b);

	/* The place first: the checksum covers it. */
	sb->location = cpu_to_le64(dm_block_location(b));
	sb->checksum = cpu_to_le32(checksum_of(sb, size));
}

static int check(DTM_VALIDATOR_CONST struct dm_block_validator *v, struct dm_block *b, size_t size)
{
	const struct dtm_superblock *sb = dm_block_data(b);
	u64 here = dm_block_location(b);
	u64 location = le64_to_cpu(sb->location);
	u64 magic = le64_to_cpu(sb->magic);
	u32 wanted = checksum_of(sb, size);

	if (location != here) {
		DMERR("no superblock in block %llu: it says it belongs to block %llu", here,
		      location);
		return -ENOTBLK;
	}
	if (magic != DTM_SUPERBLOCK_MAGIC) {
		DMERR("no superblock in block %llu: its magic is %llu", here, magic);
		return -EILSEQ;
	}
	if (le32_to_cpu(sb->checksum) != wanted) {
		DMERR("the superblock in block %llu is damaged: checksum %u, it should be %u", here,
		      le32_to_cpu(sb->checksum), wanted);
		return -EILSEQ;
	}
	return 0;
}

DTM_VALIDATOR_CONST struct dm_block_validator dtm_superblock_validator = {
	.name = "superblock",
	.prepare_for_write = prepare_for_write,
	.check = check,
};

int dtm_superblock_is_blank(struct dm_block_manager *bm, bool *ret_blank)
{
	struct dm_block *b;
	int r;

	/* Zeroes would not pass the validator. It looks at the block when that is read below. */
	r = dm_bm_read_lock(bm, DTM_SUPERBLOCK_LOCATION, NULL, &b);
	if (r)
		return r;
	*ret_blank = !memchr_inv(dm_block_data(b), 0, DTM_SUPERBLOCK_BLOCK_SIZE);
	dm_bm_unlock(b);
	return 0;
}

int dtm_superblock_read(struct dm_block_manager *bm, union dtm_superblock_image *ret)
{
	struct dm_block *b;
	int r;

	r = dm_bm_read_lock(bm, DTM_SUPERBLOCK_LOCATION, &dtm_superblock_validator, &b);
	if (r)
		return r;
	memcpy(ret, dm_block_data(b), sizeof(*ret));
	dm_bm_unlock(b);
	return 0;
}

int dtm_superblock_write(struct dm_block_manager *bm, const union dtm_superblock_image *image)
{
	bool read_only = dm_bm_is_read_only(bm);
	struct dm_block *b;
	int r;

	dm_bm_set_read_write(bm);
	r = dm_bm_write_lock_zero(bm, DTM_SUPERBLOCK_LOCATION, &dtm_superblock_validator, &b);
	if (!r) {
		memcpy(dm_block_data(b), image, sizeof(*image));
		dm_bm_unlock(b);
		r = dm_bm_flush(bm);
	}
	if (read_only)
		dm_bm_set_read_only(bm);
	return r;
}

int dtm_superblock_check_features(const struct dtm_superblock *sb, bool writable,
				  struct block_device *bdev)
{
	u32 version = le32_to_cpu(sb->version);
	u32 incompat = le32_to_cpu(sb->incompat_flags) & ~INCOMPAT_KNOWN;
	u32 compat_ro = le32_to_cpu(sb->compat_ro_flags) & ~COMPAT_RO_KNOWN;

	if (version > DTM_SUPERBLOCK_VERSION) {
		DMERR("%pg: the metadata is of version %u; only up to %u is known", bdev, version,
		      DTM_SUPERBLOCK_VERSION);
		return -EINVAL;
	}
	if (incompat) {
		DMERR("%pg: the metadata uses features that are not known: %#x", bdev, incompat);
		return -EINVAL;
	}
	if (writable && compat_ro) {
		DMERR("%pg: the metadata may not be written: features that are not known: %#x",
		      bdev, compat_ro);
		return -EINVAL;
	}
	return 0;
}
