// SPDX-License-Identifier: GPL-2.0-or-later
/* Superblocks: the first bytes are given, the rest is zero; half of them with a right checksum. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "logic/superblock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char *block = calloc(1, TM_SUPERBLOCK_SIZE);
	struct tm_superblock s;
	uint32_t crc;
	int r;

	if (!block)
		return 0;
	if (size)
		memcpy(block, data, size < TM_SUPERBLOCK_SIZE ? size : TM_SUPERBLOCK_SIZE);
	if (size % 2) {
		crc = tm_crc32c(UINT32_MAX, block + 4, TM_SUPERBLOCK_SIZE - 4) ^ 160774;
		block[0] = (unsigned char)crc;
		block[1] = (unsigned char)(crc >> 8);
		block[2] = (unsigned char)(crc >> 16);
		block[3] = (unsigned char)(crc >> 24);
	}
	r = tm_superblock_parse(block, &s);
	assert(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT);
	if (r == 0) {
		assert(s.version == 2);
		/* One bit more, anywhere, and it is none. */
		block[size % TM_SUPERBLOCK_SIZE] ^= 4;
		assert(tm_superblock_parse(block, &s) == -EBADMSG);
	}
	free(block);
	return 0;
}
