// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/meta-size.h"

#include "common/units.h"
#include "logic/model.h"

/* Entries in a leaf of the mapping tree, which splitting leaves half full. */
#define MAPPINGS_PER_BLOCK 126

#define INITIAL_THINS  100
#define INITIAL_LEAST  (2 * TM_MIB)
#define MAPPINGS_MOST  TM_GIB
#define LOW_WATER_MOST 1024

uint64_t tm_metadata_size_rule(uint64_t data_bytes, uint32_t block_bytes, uint32_t thins)
{
	uint64_t leaves = data_bytes / block_bytes / MAPPINGS_PER_BLOCK;

	return tm_sat_mul(tm_sat_add(leaves, (uint64_t)thins + 1), TM_METADATA_BLOCK);
}

uint64_t tm_metadata_low_water_blocks(uint64_t total_blocks)
{
	return total_blocks / 4 < LOW_WATER_MOST ? total_blocks / 4 : LOW_WATER_MOST;
}

uint64_t tm_metadata_size_initial(uint64_t data_bytes, uint32_t block_bytes)
{
	uint64_t bytes = tm_metadata_size_rule(data_bytes, block_bytes, INITIAL_THINS);

	if (bytes < INITIAL_LEAST)
		return INITIAL_LEAST;
	return bytes < TM_METADATA_MAX_BYTES ? bytes : TM_METADATA_MAX_BYTES;
}

uint32_t tm_block_size_default(uint64_t max_bytes)
{
	uint32_t block_bytes = TM_BLOCK_SIZE_MIN;

	while (block_bytes < TM_BLOCK_SIZE_MAX &&
	       tm_metadata_size_rule(max_bytes, block_bytes, 0) > MAPPINGS_MOST)
		block_bytes *= 2;
	return block_bytes;
}
