/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Thin-pool metadata in memory, for tests: nodes put together by hand, trees from sorted lists. How
 * full nodes are is the test's choice, so a few entries make several levels. Space maps are left
 * out.
 */
#ifndef TM_TESTS_THIN_IMAGE_H
#define TM_TESTS_THIN_IMAGE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "logic/le.h"
#include "logic/thin-survey.h"

struct image {
	unsigned char *bytes;
	uint64_t blocks, used;
	uint64_t reads;   /* since it was made */
	uint64_t failing; /* a block that cannot be read; 0: all can */
	int failure;
};

static inline void put32(unsigned char *p, uint32_t v)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

static inline void put64(unsigned char *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

static inline unsigned char *image_at(const struct image *m, uint64_t block)
{
	assert(block < m->blocks);
	return m->bytes + block * TM_SURVEY_BLOCK;
}

static inline void image_init(struct image *m, uint64_t blocks)
{
	*m = (struct image){ .blocks = blocks, .used = 1 };
	m->bytes = calloc(blocks, TM_SURVEY_BLOCK);
	assert(m->bytes);
}

static inline void image_done(struct image *m)
{
	free(m->bytes);
	m->bytes = NULL;
}

static inline int image_read(void *userdata, uint64_t block, void *buf)
{
	struct image *m = userdata;

	assert(block < m->blocks);
	m->reads++;
	if (m->failing && block == m->failing)
		return m->failure;
	memcpy(buf, image_at(m, block), TM_SURVEY_BLOCK);
	return 0;
}

static inline struct tm_survey_source image_source(struct image *m)
{
	return (struct tm_survey_source){ .read = image_read, .userdata = m, .blocks = m->blocks };
}

/* The checksum of what lies there now. */
static inline void image_seal(const struct image *m, uint64_t block, uint32_t csum_xor)
{
	unsigned char *b = image_at(m, block);

	put32(b, tm_crc32c(UINT32_MAX, b + 4, TM_SURVEY_BLOCK - 4) ^ csum_xor);
}

static inline void image_seal_node(const struct image *m, uint64_t block)
{
	image_seal(m, block, 121107);
}

static inline uint64_t image_alloc(struct image *m)
{
	assert(m->used < m->blocks);
	return m->used++;
}

/* Room as the kernel makes it: a multiple of three. */
static inline uint32_t image_room(uint32_t value_size)
{
	return (TM_SURVEY_BLOCK - 32) / (8 + value_size) / 3 * 3;
}

static inline void image_put_entry(const struct image *m, uint64_t block, uint32_t i, uint64_t key,
				   const void *value, uint32_t value_size)
{
	unsigned char *b = image_at(m, block);

	put64(b + 32 + (size_t)8 * i, key);
	memcpy(b + 32 + (size_t)8 * image_room(value_size) + (size_t)value_size * i, value,
	       value_size);
}

/* Values of upper nodes, and of both mapping trees. */
static inline void image_put_u64(const struct image *m, uint64_t block, uint32_t i, uint64_t key,
				 uint64_t value)
{
	unsigned char v[8];

	put64(v, value);
	image_put_entry(m, block, i, key, v, sizeof(v));
}

/* A node without entries yet, not sealed. */
static inline void image_put_node(const struct image *m, uint64_t block, bool leaf, uint32_t n,
				  uint32_t value_size)
{
	unsigned char *b = image_at(m, block);

	memset(b, 0, TM_SURVEY_BLOCK);
	put32(b + 4, leaf ? 2 : 1);
	put64(b + 8, block);
	put32(b + 16, n);
	put32(b + 20, image_room(value_size));
	put32(b + 24, value_size);
}

/* What an entry of an upper node, or of a mapping tree, says. */
static inline uint64_t image_child(const struct image *m, uint64_t node, uint32_t i)
{
	return tm_le64(image_at(m, node) + 32 + (size_t)8 * image_room(8) + (size_t)8 * i);
}

struct image_entry {
	uint64_t key;
	unsigned char value[24];
};

static inline struct image_entry image_u64(uint64_t key, uint64_t value)
{
	struct image_entry e = { .key = key };

	put64(e.value, value);
	return e;
}

static inline struct image_entry image_mapping(uint64_t block, uint64_t data, uint32_t time)
{
	return image_u64(block, data << 24 | time);
}

static inline struct image_entry image_details(uint32_t dev_id, uint64_t mapped,
					       uint64_t transaction, uint32_t created,
					       uint32_t snapshotted)
{
	struct image_entry e = { .key = dev_id };

	put64(e.value, mapped);
	put64(e.value + 8, transaction);
	put32(e.value + 16, created);
	put32(e.value + 20, snapshotted);
	return e;
}

/* A tree of sorted entries, at most @fill in a node; its root. */
static inline uint64_t image_tree(struct image *m, const struct image_entry *entries, size_t n,
				  uint32_t value_size, uint32_t fill)
{
	struct image_entry *level;
	size_t n_level, i, n_nodes;
	uint64_t block = 0;
	bool leaf = true;

	level = calloc(n ? n : 1, sizeof(*level));
	assert(level);
	if (n)
		memcpy(level, entries, n * sizeof(*level));
	for (n_level = n;; n_level = n_nodes, leaf = false, value_size = 8) {
		n_nodes = 0;
		i = 0;
		do {
			uint32_t k, in_node = n_level - i < fill ? (uint32_t)(n_level - i) : fill;
			uint64_t first = level[i].key;

			block = image_alloc(m);
			image_put_node(m, block, leaf, in_node, value_size);
			for (k = 0; k < in_node; k++)
				image_put_entry(m, block, k, level[i + k].key, level[i + k].value,
						value_size);
			image_seal_node(m, block);
			level[n_nodes++] = image_u64(first, block);
			i += in_node;
		} while (i < n_level);
		if (n_nodes == 1)
			break;
	}
	free(level);
	return block;
}

/* A superblock in a block; of a snapshot of the metadata where that is not block 0. */
static inline void image_superblock(const struct image *m, uint64_t block, uint64_t mapping_root,
				    uint64_t details_root, uint64_t data_blocks, uint64_t held_root)
{
	unsigned char *b = image_at(m, block);

	memset(b, 0, TM_SURVEY_BLOCK);
	put64(b + 8, block);
	put64(b + 32, 27022010);
	put32(b + 40, 2);
	put32(b + 44, 3);
	put64(b + 48, 17);
	put64(b + 56, held_root);
	if (!block) {
		put64(b + 64, data_blocks);
		put64(b + 192, m->blocks);
		put64(b + 200, m->used);
	}
	put64(b + 320, mapping_root);
	put64(b + 328, details_root);
	put32(b + 336, 128);
	put32(b + 340, 8);
	image_seal(m, block, 160774);
}

#endif
