/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The superblock of thin-pool metadata (version 2), read only: the truth about a
 * pool that is not active. Block 0, 4 KiB, little endian; checksum CRC-32C of
 * everything after it, xor 160774; magic 27022010.
 */
#ifndef TM_LOGIC_SUPERBLOCK_H
#define TM_LOGIC_SUPERBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TM_SUPERBLOCK_SIZE 4096

struct tm_superblock {
	bool needs_check;
	uint32_t version;
	uint64_t transaction_id;
	uint32_t time;            /* counts snapshots */
	bool held_root;           /* a metadata snapshot is held */
	uint64_t held_root_block; /* the block of its superblock; 0: none */
	uint64_t mapping_root;    /* blocks of the trees' roots, as they stand there: unchecked */
	uint64_t details_root;
	uint64_t data_blocks; /* size the data space map knows */
	uint64_t data_used;
	uint64_t metadata_blocks; /* size the metadata space map knows */
	uint64_t metadata_used;
	uint32_t block_sectors;
};

/*
 * @block holds TM_SUPERBLOCK_SIZE bytes. 0, -EBADMSG (magic or checksum), -EPROTONOSUPPORT (version
 * or incompat flags).
 */
int tm_superblock_parse(const void *block, struct tm_superblock *ret);

/*
 * The same of a copy in block @location, as a metadata snapshot is: it knows the roots of its
 * trees, but nothing of sizes and of what is used (all 0).
 */
int tm_superblock_parse_at(const void *block, uint64_t location, struct tm_superblock *ret);

/* CRC-32C without inversions, as the kernel's crc32c(): the usual one is ~tm_crc32c(~0, ...). */
uint32_t tm_crc32c(uint32_t seed, const void *data, size_t len);

#endif
