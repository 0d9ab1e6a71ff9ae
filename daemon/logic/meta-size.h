/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much metadata a pool needs, by the field's own rule: thin_metadata_size of
 * thin-provisioning-tools estimates one 4 KiB block for the superblock, one for
 * every 126 data blocks (a mapping leaf half full), and one for every thin device.
 */
#ifndef TM_LOGIC_META_SIZE_H
#define TM_LOGIC_META_SIZE_H

#include <stdint.h>

/* Bytes by the rule alone, equal to what thin_metadata_size prints for the same arguments. */
uint64_t tm_metadata_size_rule(uint64_t data_bytes, uint32_t block_bytes, uint32_t thins);

/*
 * The mark at which the kernel reports metadata as low: a quarter of it, at most 1024 blocks. In 4
 * KiB blocks.
 */
uint64_t tm_metadata_low_water_blocks(uint64_t total_blocks);

/*
 * What a new pool gets: the rule for 100 thin devices, at least 2 MiB (the kernel's advice), at
 * most the format's limit.
 */
uint64_t tm_metadata_size_initial(uint64_t data_bytes, uint32_t block_bytes);

/*
 * A data block size for a pool that may grow to @max_bytes: 64 KiB, doubled until
 * the mappings of the full pool need at most 1 GiB of metadata by the rule.
 */
uint32_t tm_block_size_default(uint64_t max_bytes);

#endif
