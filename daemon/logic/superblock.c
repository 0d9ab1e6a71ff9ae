// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/superblock.h"

#include <errno.h>

#include "logic/le.h"

#define MAGIC      ((uint64_t)27022010)
#define VERSION    2
#define CSUM_XOR   ((uint32_t)160774)
#define FLAG_CHECK ((uint32_t)1)

/* Where the fields lie. */
enum {
	AT_CSUM = 0,
	AT_FLAGS = 4,
	AT_BLOCKNR = 8,
	AT_MAGIC = 32,
	AT_VERSION = 40,
	AT_TIME = 44,
	AT_TRANSACTION = 48,
	AT_HELD_ROOT = 56,
	AT_DATA_SPACE_MAP = 64,
	AT_METADATA_SPACE_MAP = 192,
	AT_MAPPING_ROOT = 320,
	AT_DETAILS_ROOT = 328,
	AT_DATA_BLOCK_SECTORS = 336,
	AT_METADATA_BLOCK_SECTORS = 340,
	AT_INCOMPAT = 360,
	/* in a space map's root */
	SM_BLOCKS = 0,
	SM_ALLOCATED = 8,
};

/* Four bits at a time: for a block now and then, 64 bytes of table do. */
uint32_t tm_crc32c(uint32_t seed, const void *data, size_t len)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	const unsigned char *p = data;
	uint32_t crc = seed;

	for (; len; len--) {
		crc ^= *p++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

int tm_superblock_parse(const void *block, struct tm_superblock *ret)
{
	return tm_superblock_parse_at(block, 0, ret);
}

int tm_superblock_parse_at(const void *block, uint64_t location, struct tm_superblock *ret)
{
	const unsigned char *b = block;
	const unsigned char *data_map = b + AT_DATA_SPACE_MAP;
	const unsigned char *metadata_map = b + AT_METADATA_SPACE_MAP;
	uint32_t crc;

	if (tm_le64(b + AT_MAGIC) != MAGIC || tm_le64(b + AT_BLOCKNR) != location)
		return -EBADMSG;
	crc = tm_crc32c(UINT32_MAX, b + AT_FLAGS, TM_SUPERBLOCK_SIZE - AT_FLAGS);
	if (tm_le32(b + AT_CSUM) != (crc ^ CSUM_XOR))
		return -EBADMSG;
	if (tm_le32(b + AT_VERSION) != VERSION || tm_le32(b + AT_INCOMPAT) != 0)
		return -EPROTONOSUPPORT;
	/* The checksum holds, so another block size is another format and not damage. */
	if (tm_le32(b + AT_METADATA_BLOCK_SECTORS) != TM_SUPERBLOCK_SIZE / 512)
		return -EPROTONOSUPPORT;
	*ret = (struct tm_superblock){
		.needs_check = (tm_le32(b + AT_FLAGS) & FLAG_CHECK) != 0,
		.version = VERSION,
		.time = tm_le32(b + AT_TIME),
		.transaction_id = tm_le64(b + AT_TRANSACTION),
		.held_root = tm_le64(b + AT_HELD_ROOT) != 0,
		.held_root_block = tm_le64(b + AT_HELD_ROOT),
		.mapping_root = tm_le64(b + AT_MAPPING_ROOT),
		.details_root = tm_le64(b + AT_DETAILS_ROOT),
		.data_blocks = tm_le64(data_map + SM_BLOCKS),
		.data_used = tm_le64(data_map + SM_ALLOCATED),
		.metadata_blocks = tm_le64(metadata_map + SM_BLOCKS),
		.metadata_used = tm_le64(metadata_map + SM_ALLOCATED),
		.block_sectors = tm_le32(b + AT_DATA_BLOCK_SECTORS),
	};
	return 0;
}
