// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Metadata of small nodes: each block of the image is 128 bytes of input and zeroes. The first
 * eight bytes are what to put right (checksums, numbers of blocks, or not), and what the superblock
 * says.
 *
 * Whatever it is: nothing is read more than once for counting and once for listing, what is listed
 * is in order and as much as was counted, and a look-up as the kernel does it finds the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "logic/le.h"
#include "logic/thin-survey.h"

#define PIECE      128
#define HEAD       8
#define BLOCKS_MAX 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct image {
	unsigned char *bytes;
	uint64_t blocks, reads;
};

static void put(unsigned char *p, unsigned int bytes, uint64_t v)
{
	unsigned int i;

	for (i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

static void seal(unsigned char *b, uint32_t csum_xor)
{
	put(b, 4, tm_crc32c(UINT32_MAX, b + 4, TM_SURVEY_BLOCK - 4) ^ csum_xor);
}

static int image_read(void *userdata, uint64_t block, void *buf)
{
	struct image *m = userdata;

	assert(block < m->blocks);
	m->reads++;
	memcpy(buf, m->bytes + block * TM_SURVEY_BLOCK, TM_SURVEY_BLOCK);
	return 0;
}

/* The last key that is not above this one, from the root down to a leaf. */
static bool look_up(const struct image *m, uint64_t block, uint64_t key, uint64_t *ret)
{
	for (;;) {
		const unsigned char *b = m->bytes + block * TM_SURVEY_BLOCK;
		uint32_t n = tm_le32(b + 16), room = tm_le32(b + 20), i = 0;

		assert(block < m->blocks);
		while (i < n && tm_le64(b + 32 + (size_t)8 * i) <= key)
			i++;
		if (!i--)
			return false;
		*ret = tm_le64(b + 32 + (size_t)8 * room + (size_t)8 * i);
		if (tm_le32(b + 4) == 2)
			return tm_le64(b + 32 + (size_t)8 * i) == key;
		block = *ret;
	}
}

struct told {
	const struct image *m;
	const struct tm_survey *s;
	const struct tm_survey_device *d;
	uint64_t n, last, last_data;
};

static int take(void *userdata, uint32_t dev_id, uint64_t first, uint64_t data, uint64_t count)
{
	struct told *t = userdata;
	uint64_t value, root;

	assert(dev_id == t->d->dev_id && count);
	assert(data + count <= t->s->superblock.data_blocks);
	if (t->n) {
		assert(first > t->last);
		assert(first != t->last + 1 || data != t->last_data + 1);
	}
	t->n += count;
	t->last = first + count - 1;
	t->last_data = data + count - 1;
	assert(look_up(t->m, t->s->mappings.root, dev_id, &root) && root == t->d->root);
	assert(look_up(t->m, root, first, &value) && value >> 24 == data);
	assert(look_up(t->m, root, t->last, &value) && value >> 24 == t->last_data);
	return 0;
}

static void build(struct image *m, const uint8_t *data, size_t size)
{
	uint64_t i;

	for (i = 1; i < m->blocks; i++) {
		unsigned char *b = m->bytes + i * TM_SURVEY_BLOCK;
		size_t at = HEAD + (i - 1) * PIECE;

		memcpy(b, data + at, size - at < PIECE ? size - at : PIECE);
		if (data[0] & 1)
			put(b + 8, 8, i);
		if (data[0] & 2)
			seal(b, 121107);
	}
	put(m->bytes + 32, 4, 27022010);
	put(m->bytes + 40, 4, 2);
	put(m->bytes + 56, 8, data[0] & 4 ? data[4] : 0);
	put(m->bytes + 64, 8, tm_le32(data + 4) & 0xffffff);
	put(m->bytes + 192, 8, m->blocks);
	put(m->bytes + 320, 8, data[1]);
	put(m->bytes + 328, 8, data[2]);
	put(m->bytes + 336, 4, 128);
	put(m->bytes + 340, 4, 8);
	seal(m->bytes, 160774);
}

static void check(struct image *m, bool held)
{
	struct tm_survey_source source = {
		.read = image_read, .userdata = m, .blocks = m->blocks, .held = held
	};
	uint64_t mapped = 0, damage = 0, told_bad = 0, n_read;
	struct tm_survey s, again;
	size_t i;
	int r;

	m->reads = 0;
	r = tm_survey_run(&source, &s);
	assert(r == 0);
	assert(s.nodes_read <= m->blocks);
	assert(m->reads <= 2 + 2 * m->blocks);
	n_read = s.nodes_read;
	for (i = 0; i < TM_SURVEY_DAMAGE_COUNT; i++)
		damage += s.damage[i];
	for (i = 0; i < s.n_devices; i++) {
		const struct tm_survey_device *d = &s.devices[i];
		struct told t = { .m = m, .s = &s, .d = d };

		assert(!i || d->dev_id > s.devices[i - 1].dev_id);
		assert(tm_survey_find(&s, d->dev_id) == d);
		assert(d->root_found || d->details_found);
		m->reads = 0;
		r = tm_survey_ranges(&s, &source, d->dev_id, take, &t);
		assert(r == 0);
		assert(m->reads <= n_read);
		assert(t.n == d->mapped);
		mapped += t.n;
		told_bad += d->bad_nodes + d->bad_mappings;
	}
	assert(mapped == s.mapped);
	/* All damage that was found is seen in what is told of trees and devices, and no other. */
	told_bad += s.mappings.bad_nodes + s.details.bad_nodes;
	assert(!damage == !told_bad);
	assert(!damage || !tm_survey_sound(&s));
	/* The same again. */
	r = tm_survey_run(&source, &again);
	assert(r == 0);
	assert(again.mapped == s.mapped && again.nodes_read == n_read);
	for (i = 0; i < s.n_devices; i++)
		assert(again.devices[i].digest == s.devices[i].digest);
	tm_survey_done(&again);
	tm_survey_done(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image m = { 0 };

	if (size < HEAD)
		return 0;
	m.blocks = 1 + (size - HEAD + PIECE - 1) / PIECE;
	if (m.blocks > BLOCKS_MAX)
		return 0;
	m.bytes = calloc(m.blocks, TM_SURVEY_BLOCK);
	if (!m.bytes)
		return 0;
	build(&m, data, size);
	check(&m, false);
	if (data[0] & 4)
		check(&m, true);
	free(m.bytes);
	return 0;
}
