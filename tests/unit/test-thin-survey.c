// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "logic/thin-survey.h"
#include "skip.h"
#include "thin-image.h"
#include "thin-tools.h"

#define DATA_BLOCKS 100000

static void survey(struct image *m, struct tm_survey *s)
{
	struct tm_survey_source source = image_source(m);

	assert_int_equal(tm_survey_run(&source, s), 0);
}

/* ---- a pool to damage -------------------------------------------------------------------- */

/*
 * Devices 1, 2 and 7. 1 maps 100 blocks in leaves of 10 and upper nodes of 4: ten leaves, three
 * nodes above them, and the root. 2 is a snapshot of it with the same root. 7 has one leaf of 5.
 */
struct pool {
	struct image m;
	uint64_t root1, root7, mapping_root, details_root;
	uint64_t upper[3], leaf[10]; /* of device 1 */
};

static void make_pool(struct pool *p)
{
	struct image_entry mappings[100], few[5], roots[3], details[3];
	uint32_t i;

	image_init(&p->m, 64);
	/* Three runs: the second follows the first here and not there, the third the other way. */
	for (i = 0; i < 100; i++)
		mappings[i] = image_mapping(i + i / 50, (i < 30 ? 1000 : 4000) + i, 2);
	for (i = 0; i < 5; i++)
		few[i] = image_mapping((uint64_t)1000 * i, 50 - i, 3);
	p->root1 = image_tree(&p->m, mappings, 100, 8, 10);
	/* The builder's fill is for all levels: ten leaves have one root, so levels are made here.
	 */
	for (i = 0; i < 10; i++)
		p->leaf[i] = image_child(&p->m, p->root1, i);
	for (i = 0; i < 3; i++) {
		uint32_t k, n = i < 2 ? 4 : 2;

		p->upper[i] = image_alloc(&p->m);
		image_put_node(&p->m, p->upper[i], false, n, 8);
		for (k = 0; k < n; k++)
			image_put_u64(&p->m, p->upper[i], k, mappings[10 * (4 * i + k)].key,
				      p->leaf[4 * i + k]);
		image_seal_node(&p->m, p->upper[i]);
	}
	image_put_node(&p->m, p->root1, false, 3, 8);
	for (i = 0; i < 3; i++)
		image_put_u64(&p->m, p->root1, i, mappings[40 * i].key, p->upper[i]);
	image_seal_node(&p->m, p->root1);

	p->root7 = image_tree(&p->m, few, 5, 8, 10);
	roots[0] = image_u64(1, p->root1);
	roots[1] = image_u64(2, p->root1);
	roots[2] = image_u64(7, p->root7);
	details[0] = image_details(1, 100, 5, 0, 2);
	details[1] = image_details(2, 100, 6, 2, 2);
	details[2] = image_details(7, 5, 7, 3, 3);
	/* Two of three in a node, so that these trees have levels, too. */
	p->mapping_root = image_tree(&p->m, roots, 3, 8, 2);
	p->details_root = image_tree(&p->m, details, 3, 24, 2);
	image_superblock(&p->m, 0, p->mapping_root, p->details_root, DATA_BLOCKS, 0);
}

static void seal_all(struct pool *p)
{
	image_superblock(&p->m, 0, p->mapping_root, p->details_root, DATA_BLOCKS, 0);
}

/* ---- healthy ----------------------------------------------------------------------------- */

struct told {
	size_t n;
	struct {
		uint32_t dev_id;
		uint64_t first, data, count;
	} list[64];
	int answer; /* given at the third */
};

static int take(void *userdata, uint32_t dev_id, uint64_t first, uint64_t data, uint64_t count)
{
	struct told *t = userdata;

	if (t->n < TM_ARRAY_SIZE(t->list)) {
		t->list[t->n].dev_id = dev_id;
		t->list[t->n].first = first;
		t->list[t->n].data = data;
		t->list[t->n].count = count;
	}
	t->n++;
	return t->answer && t->n == 3 ? t->answer : 0;
}

static void assert_told(const struct told *t, size_t i, uint32_t dev_id, uint64_t first,
			uint64_t data, uint64_t count)
{
	assert_in_range(i, 0, t->n - 1);
	assert_int_equal(t->list[i].dev_id, dev_id);
	assert_int_equal(t->list[i].first, first);
	assert_int_equal(t->list[i].data, data);
	assert_int_equal(t->list[i].count, count);
}

static void test_healthy(void **state)
{
	const struct tm_survey_device *d;
	struct tm_survey_source source;
	struct tm_survey s;
	struct told t = { 0 };
	struct pool p;
	size_t i;

	(void)state;
	make_pool(&p);
	survey(&p.m, &s);
	assert_int_equal(s.superblock_error, 0);
	assert_int_equal(s.superblock.transaction_id, 17);
	assert_int_equal(s.blocks, 64);
	assert_true(s.mappings.readable);
	assert_int_equal(s.mappings.root, p.mapping_root);
	assert_int_equal(s.mappings.entries, 3);
	assert_int_equal(s.mappings.bad_nodes, 0);
	assert_int_equal(s.details.root, p.details_root);
	assert_int_equal(s.details.entries, 3);
	assert_int_equal(s.n_devices, 3);
	assert_int_equal(s.mapped, 205);
	for (i = 0; i < TM_SURVEY_DAMAGE_COUNT; i++)
		assert_int_equal(s.damage[i], 0);
	assert_true(tm_survey_sound(&s));

	d = tm_survey_find(&s, 1);
	assert_non_null(d);
	assert_true(d->root_found && d->details_found && tm_survey_device_sound(d));
	assert_int_equal(d->root, p.root1);
	assert_int_equal(d->mapped, 100);
	assert_int_equal(d->details_mapped, 100);
	assert_int_equal(d->transaction_id, 5);
	assert_int_equal(d->creation_time, 0);
	assert_int_equal(d->snapshotted_time, 2);
	assert_int_equal(d->digest, tm_survey_find(&s, 2)->digest);
	assert_int_not_equal(d->digest, tm_survey_find(&s, 7)->digest);
	assert_int_equal(tm_survey_find(&s, 7)->mapped, 5);
	assert_null(tm_survey_find(&s, 3));
	/* 14 + 1 nodes of mappings, 3 and 3 above and beside; the snapshot's were read once. */
	assert_int_equal(s.nodes_read, 21);
	assert_in_range(p.m.reads, 22, 22 + 6);

	source = image_source(&p.m);
	assert_int_equal(tm_survey_ranges(&s, &source, 1, take, &t), 0);
	assert_int_equal(t.n, 3);
	assert_told(&t, 0, 1, 0, 1000, 30);
	assert_told(&t, 1, 1, 30, 4030, 20);
	assert_told(&t, 2, 1, 51, 4050, 50);
	t.n = 0;
	assert_int_equal(tm_survey_ranges(&s, &source, 7, take, &t), 0);
	assert_int_equal(t.n, 5);
	for (i = 0; i < 5; i++)
		assert_told(&t, i, 7, 1000 * i, 50 - i, 1);
	/* The callback may stop it. */
	t.n = 0;
	t.answer = 42;
	assert_int_equal(tm_survey_ranges(&s, &source, 7, take, &t), 42);
	assert_int_equal(t.n, 3);
	assert_int_equal(tm_survey_ranges(&s, &source, 3, take, &t), -ENODATA);
	tm_survey_done(&s);
	tm_survey_done(&s);
	image_done(&p.m);
}

/* A pool that was just made, and a device without a mapping. */
static void test_empty(void **state)
{
	struct image_entry root = image_u64(3, 0), details = image_details(3, 0, 1, 0, 0);
	struct tm_survey_source source;
	struct told t = { 0 };
	uint64_t empty, none;
	struct tm_survey s;
	struct image m;

	(void)state;
	image_init(&m, 16);
	none = image_tree(&m, NULL, 0, 8, 10);
	image_superblock(&m, 0, none, image_tree(&m, NULL, 0, 24, 10), 0, 0);
	survey(&m, &s);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.n_devices, 0);
	assert_int_equal(s.mapped, 0);
	assert_null(tm_survey_find(&s, 0));
	tm_survey_done(&s);

	empty = image_tree(&m, NULL, 0, 8, 10);
	root = image_u64(3, empty);
	image_superblock(&m, 0, image_tree(&m, &root, 1, 8, 10),
			 image_tree(&m, &details, 1, 24, 10), 0, 0);
	survey(&m, &s);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.n_devices, 1);
	assert_int_equal(s.devices[0].mapped, 0);
	assert_int_equal(s.devices[0].digest, 0);
	source = image_source(&m);
	assert_int_equal(tm_survey_ranges(&s, &source, 3, take, &t), 0);
	assert_int_equal(t.n, 0);
	tm_survey_done(&s);
	image_done(&m);
}

/* The same mappings in trees of another shape are the same; any other mapping is not. */
static void test_digest(void **state)
{
	struct image_entry mappings[100], roots[4], details[4];
	struct tm_survey s;
	struct image m;
	uint32_t i;

	(void)state;
	image_init(&m, 256);
	for (i = 0; i < 100; i++)
		mappings[i] = image_mapping((uint64_t)3 * i, (uint64_t)7 * i, 1);
	roots[0] = image_u64(0, image_tree(&m, mappings, 100, 8, 100));
	for (i = 0; i < 100; i++)
		mappings[i] = image_mapping((uint64_t)3 * i, (uint64_t)7 * i, 9);
	roots[1] = image_u64(1, image_tree(&m, mappings, 100, 8, 3));
	mappings[50] = image_mapping(150, 351, 1);
	roots[2] = image_u64(2, image_tree(&m, mappings, 100, 8, 100));
	/* Two data blocks the other way round. */
	mappings[50] = image_mapping(150, 357, 1);
	mappings[51] = image_mapping(153, 350, 1);
	roots[3] = image_u64(3, image_tree(&m, mappings, 100, 8, 100));
	for (i = 0; i < 4; i++)
		details[i] = image_details(i, 100, 0, 0, 0);
	image_superblock(&m, 0, image_tree(&m, roots, 4, 8, 10), image_tree(&m, details, 4, 24, 10),
			 DATA_BLOCKS, 0);
	survey(&m, &s);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.devices[0].digest, s.devices[1].digest);
	assert_int_not_equal(s.devices[0].digest, s.devices[2].digest);
	assert_int_not_equal(s.devices[0].digest, s.devices[3].digest);
	tm_survey_done(&s);
	image_done(&m);
}

/*
 * Thousands of snapshots, each with one leaf of its own and the path to it: every node is read
 * once, and counts are those of each.
 */
static void test_snapshots(void **state)
{
	enum { LEAVES = 80, SNAPSHOTS = 3000 };
	struct image_entry mappings[10 * LEAVES];
	struct image_entry *roots = calloc(SNAPSHOTS, sizeof(*roots));
	struct image_entry *details = calloc(SNAPSHOTS, sizeof(*details));
	uint64_t first_root;
	struct tm_survey s;
	struct image m;
	uint32_t i;

	(void)state;
	assert_non_null(roots);
	assert_non_null(details);
	image_init(&m, 2 * SNAPSHOTS + 4 * LEAVES);
	for (i = 0; i < 10 * LEAVES; i++)
		mappings[i] = image_mapping(i, i, 0);
	first_root = image_tree(&m, mappings, 10 * LEAVES, 8, 10);
	/* The builder made two levels above; one is enough to share leaves. */
	image_put_node(&m, first_root, false, LEAVES, 8);
	for (i = 0; i < LEAVES; i++)
		image_put_u64(&m, first_root, i, (uint64_t)10 * i, 1 + i);
	image_seal_node(&m, first_root);
	for (i = 0; i < SNAPSHOTS; i++) {
		uint64_t leaf = image_alloc(&m), root = image_alloc(&m);
		uint32_t which = i % LEAVES, k;

		memcpy(image_at(&m, root), image_at(&m, first_root), TM_SURVEY_BLOCK);
		put64(image_at(&m, root) + 8, root);
		image_put_u64(&m, root, which, (uint64_t)10 * which, leaf);
		image_seal_node(&m, root);
		/* Without one of its mappings, and another written anew. */
		image_put_node(&m, leaf, true, 9, 8);
		for (k = 0; k < 9; k++)
			image_put_u64(&m, leaf, k, (uint64_t)10 * which + k,
				      (uint64_t)(k ? 10 * which + k : 10 * LEAVES + i) << 24);
		image_seal_node(&m, leaf);
		roots[i] = image_u64(i, root);
		details[i] = image_details(i, 10 * LEAVES - 1, 0, 0, 0);
	}
	image_superblock(&m, 0, image_tree(&m, roots, SNAPSHOTS, 8, 252),
			 image_tree(&m, details, SNAPSHOTS, 24, 126), DATA_BLOCKS, 0);
	survey(&m, &s);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.n_devices, SNAPSHOTS);
	assert_int_equal(s.mapped, (uint64_t)SNAPSHOTS * (10 * LEAVES - 1));
	/* A root and a leaf for each, the leaves they share, 12 + 1 nodes of roots, 24 + 1 of
	 * details. */
	assert_int_equal(s.nodes_read, 2 * SNAPSHOTS + LEAVES + 13 + 25);
	assert_true(m.reads < m.blocks);
	assert_int_equal(tm_survey_find(&s, SNAPSHOTS - 1)->dev_id, SNAPSHOTS - 1);
	tm_survey_done(&s);
	image_done(&m);
	free(roots);
	free(details);
}

/* ---- damaged ----------------------------------------------------------------------------- */

struct damage_case {
	const char *name;
	void (*make)(struct pool *p);
	enum tm_survey_damage found; /* TM_SURVEY_DAMAGE_COUNT: more than one kind, not compared */
	uint64_t times;              /* ditto */
	uint64_t mapped[3], bad_nodes[3], bad_mappings[3]; /* of devices 1, 2, 7 */
	uint64_t trees_bad[2];                             /* mappings, details */
};

static void flip(struct pool *p, uint64_t block, size_t at)
{
	image_at(&p->m, block)[at] ^= 4;
}

static void poke32(struct pool *p, uint64_t block, size_t at, uint32_t v)
{
	put32(image_at(&p->m, block) + at, v);
	image_seal_node(&p->m, block);
}

static void flip_leaf(struct pool *p)
{
	flip(p, p->leaf[2], 4000);
}

static void flip_checksum(struct pool *p)
{
	flip(p, p->leaf[2], 1);
}

static void zero_leaf(struct pool *p)
{
	memset(image_at(&p->m, p->leaf[9]), 0, TM_SURVEY_BLOCK);
}

static void flip_upper(struct pool *p)
{
	flip(p, p->upper[0], 100);
}

static void flip_root(struct pool *p)
{
	flip(p, p->root1, 100);
}

static void misplace(struct pool *p)
{
	memcpy(image_at(&p->m, p->leaf[3]), image_at(&p->m, p->leaf[4]), TM_SURVEY_BLOCK);
}

static void unreadable(struct pool *p)
{
	p->m.failing = p->upper[1];
	p->m.failure = -EIO;
}

static void no_flags(struct pool *p)
{
	poke32(p, p->leaf[0], 4, 0);
}

static void both_flags(struct pool *p)
{
	poke32(p, p->leaf[0], 4, 3);
}

static void too_many_entries(struct pool *p)
{
	poke32(p, p->leaf[0], 16, image_room(8) + 1);
}

static void too_much_room(struct pool *p)
{
	poke32(p, p->leaf[0], 20, 255);
}

static void much_too_much_room(struct pool *p)
{
	poke32(p, p->leaf[0], 20, UINT32_MAX);
}

static void other_values(struct pool *p)
{
	poke32(p, p->leaf[0], 24, 4);
}

static void huge_values(struct pool *p)
{
	poke32(p, p->leaf[0], 24, UINT32_MAX - 7);
}

static void empty_upper(struct pool *p)
{
	poke32(p, p->upper[2], 16, 0);
}

static void same_keys(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[1], 5, 14, (uint64_t)77 << 24);
	image_seal_node(&p->m, p->leaf[1]);
}

static void falling_keys(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[1], 5, 3, (uint64_t)77 << 24);
	image_seal_node(&p->m, p->leaf[1]);
}

/* In order by itself, but not where it is. */
static void key_too_large(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[1], 9, 20, (uint64_t)77 << 24);
	image_seal_node(&p->m, p->leaf[1]);
}

static void key_too_small(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[1], 0, 9, (uint64_t)77 << 24);
	image_seal_node(&p->m, p->leaf[1]);
}

/* The last of its node, so only the root knows. */
static void key_too_large_above(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[3], 9, 40, (uint64_t)77 << 24);
	image_seal_node(&p->m, p->leaf[3]);
}

static void key_too_small_above(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[4], 0, 39, (uint64_t)77 << 24);
	image_seal_node(&p->m, p->leaf[4]);
	image_put_u64(&p->m, p->upper[1], 0, 39, p->leaf[4]);
	image_seal_node(&p->m, p->upper[1]);
}

static void upper_keys_fall(struct pool *p)
{
	image_put_u64(&p->m, p->upper[0], 2, 5, p->leaf[2]);
	image_seal_node(&p->m, p->upper[0]);
}

static void twice(struct pool *p)
{
	image_put_u64(&p->m, p->upper[0], 1, 10, p->leaf[0]);
	image_seal_node(&p->m, p->upper[0]);
}

static void beyond(struct pool *p)
{
	image_put_u64(&p->m, p->upper[0], 1, 10, p->m.blocks);
	image_seal_node(&p->m, p->upper[0]);
}

static void far_beyond(struct pool *p)
{
	image_put_u64(&p->m, p->upper[0], 1, 10, UINT64_MAX);
	image_seal_node(&p->m, p->upper[0]);
}

static void loop(struct pool *p)
{
	image_put_u64(&p->m, p->upper[0], 1, 10, p->root1);
	image_seal_node(&p->m, p->upper[0]);
}

static void self_loop(struct pool *p)
{
	image_put_u64(&p->m, p->upper[0], 1, 10, p->upper[0]);
	image_seal_node(&p->m, p->upper[0]);
}

static void foreign(struct pool *p)
{
	/* The root of the upper tree has values of the same size, and keys that would fit. */
	image_put_u64(&p->m, p->upper[0], 0, 0, p->mapping_root);
	image_seal_node(&p->m, p->upper[0]);
}

static void data_outside(struct pool *p)
{
	image_put_u64(&p->m, p->leaf[0], 3, 3, (uint64_t)DATA_BLOCKS << 24 | 1);
	image_put_u64(&p->m, p->leaf[0], 4, 4, UINT64_MAX);
	image_seal_node(&p->m, p->leaf[0]);
}

static void roots_leaf(struct pool *p)
{
	/* Devices 1 and 2 are in it; their details stay. */
	flip(p, image_child(&p->m, p->mapping_root, 0), 200);
}

static void mapping_root(struct pool *p)
{
	flip(p, p->mapping_root, 200);
}

static void mapping_root_zero(struct pool *p)
{
	p->mapping_root = 0;
	seal_all(p);
}

static void mapping_root_beyond(struct pool *p)
{
	p->mapping_root = 1 << 20;
	seal_all(p);
}

static void details_leaf(struct pool *p)
{
	flip(p, image_child(&p->m, p->details_root, 1), 200);
}

static void details_root(struct pool *p)
{
	flip(p, p->details_root, 200);
}

static void details_is_mapping(struct pool *p)
{
	p->details_root = p->root7;
	seal_all(p);
}

static void roots_are_details(struct pool *p)
{
	p->mapping_root = image_child(&p->m, p->details_root, 0);
	seal_all(p);
}

static void huge_dev_id(struct pool *p)
{
	uint64_t leaf = image_child(&p->m, p->mapping_root, 1);

	image_put_u64(&p->m, leaf, 0, (uint64_t)1 << 24, p->root7);
	image_seal_node(&p->m, leaf);
}

static void root_beyond(struct pool *p)
{
	uint64_t leaf = image_child(&p->m, p->mapping_root, 1);

	image_put_u64(&p->m, leaf, 0, 7, 1000);
	image_seal_node(&p->m, leaf);
}

#define ALL                 \
	{                   \
		100, 100, 5 \
	}
#define NONE      \
	{         \
		0 \
	}

static void test_damage(void **state)
{
	static const struct damage_case cases[] = {
		{ "a leaf", flip_leaf, TM_SURVEY_CHECKSUM, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "a checksum", flip_checksum, TM_SURVEY_CHECKSUM, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "zeroes", zero_leaf, TM_SURVEY_CHECKSUM, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "an upper node", flip_upper, TM_SURVEY_CHECKSUM, 1, { 60, 60, 5 }, { 1, 1 } },
		{ "a device's root", flip_root, TM_SURVEY_CHECKSUM, 1, { 0, 0, 5 }, { 1, 1 } },
		{ "another's content", misplace, TM_SURVEY_LOCATION, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "unreadable", unreadable, TM_SURVEY_READ, 1, { 60, 60, 5 }, { 1, 1 } },
		{ "no flags", no_flags, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "leaf and not", both_flags, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "entries", too_many_entries, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "room", too_much_room, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "all room", much_too_much_room, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "value size", other_values, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "huge values", huge_values, TM_SURVEY_LAYOUT, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "empty upper node", empty_upper, TM_SURVEY_LAYOUT, 1, { 80, 80, 5 }, { 1, 1 } },
		{ "a key twice", same_keys, TM_SURVEY_ORDER, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "keys fall", falling_keys, TM_SURVEY_ORDER, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "key of the next", key_too_large, TM_SURVEY_ORDER, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "key before", key_too_small, TM_SURVEY_ORDER, 1, { 90, 90, 5 }, { 1, 1 } },
		/* All four leaves hang on what the root cannot place. */
		{ "key after", key_too_large_above, TM_SURVEY_ORDER, 1, { 60, 60, 5 }, { 1, 1 } },
		{ "key before it",
		  key_too_small_above,
		  TM_SURVEY_ORDER,
		  1,
		  { 60, 60, 5 },
		  { 1, 1 } },
		{ "upper keys", upper_keys_fall, TM_SURVEY_ORDER, 1, { 60, 60, 5 }, { 1, 1 } },
		{ "a node twice", twice, TM_SURVEY_ORDER, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "beyond", beyond, TM_SURVEY_BEYOND, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "far beyond", far_beyond, TM_SURVEY_BEYOND, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "a loop", loop, TM_SURVEY_LOOP, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "itself", self_loop, TM_SURVEY_LOOP, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "foreign", foreign, TM_SURVEY_FOREIGN, 1, { 90, 90, 5 }, { 1, 1 } },
		{ "data", data_outside, TM_SURVEY_DATA, 2, { 98, 98, 5 }, NONE, { 2, 2 } },
		{ "roots", roots_leaf, TM_SURVEY_CHECKSUM, 1, { 0, 0, 5 }, NONE, NONE, { 1, 0 } },
		{ "mapping root", mapping_root, TM_SURVEY_CHECKSUM, 1, NONE, NONE, NONE, { 1, 0 } },
		{ "root 0", mapping_root_zero, TM_SURVEY_CHECKSUM, 1, NONE, NONE, NONE, { 1, 0 } },
		{ "root beyond",
		  mapping_root_beyond,
		  TM_SURVEY_BEYOND,
		  1,
		  NONE,
		  NONE,
		  NONE,
		  { 1 } },
		{ "details", details_leaf, TM_SURVEY_CHECKSUM, 1, ALL, NONE, NONE, { 0, 1 } },
		{ "details root", details_root, TM_SURVEY_CHECKSUM, 1, ALL, NONE, NONE, { 0, 1 } },
		{ "not details",
		  details_is_mapping,
		  TM_SURVEY_FOREIGN,
		  1,
		  ALL,
		  NONE,
		  NONE,
		  { 0, 1 } },
		{ "not roots", roots_are_details, TM_SURVEY_LAYOUT, 1, NONE, NONE, NONE, { 1, 1 } },
		{ "device id", huge_dev_id, TM_SURVEY_ORDER, 1, { 100, 100 }, NONE, NONE, { 1 } },
		{ "device's root beyond",
		  root_beyond,
		  TM_SURVEY_BEYOND,
		  1,
		  { 100, 100 },
		  { 0, 0, 1 } },
	};
	static const uint32_t ids[3] = { 1, 2, 7 };
	size_t i, k;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const struct damage_case *c = &cases[i];
		uint64_t noted = 0;
		struct tm_survey s;
		struct pool p;

		make_pool(&p);
		c->make(&p);
		survey(&p.m, &s);
		for (k = 0; k < TM_SURVEY_DAMAGE_COUNT; k++)
			noted += s.damage[k];
		if (s.damage[c->found] != c->times || noted != c->times ||
		    s.mappings.bad_nodes != c->trees_bad[0] ||
		    s.details.bad_nodes != c->trees_bad[1])
			fail_msg("%s: %" PRIu64 " of its kind, %" PRIu64 " in all, %" PRIu64
				 " and %" PRIu64 " in the trees",
				 c->name, s.damage[c->found], noted, s.mappings.bad_nodes,
				 s.details.bad_nodes);
		for (k = 0; k < 3; k++) {
			const struct tm_survey_device *d = tm_survey_find(&s, ids[k]);
			struct tm_survey_source source = image_source(&p.m);
			struct told t = { 0 };
			uint64_t told = 0;
			size_t n;

			if ((d ? d->mapped : 0) != c->mapped[k] ||
			    (d ? d->bad_nodes : 0) != c->bad_nodes[k] ||
			    (d ? d->bad_mappings : 0) != c->bad_mappings[k])
				fail_msg("%s, device %u: %" PRIu64 " mapped, %" PRIu64
					 " bad nodes, %" PRIu64 " bad mappings",
					 c->name, ids[k], d ? d->mapped : 0, d ? d->bad_nodes : 0,
					 d ? d->bad_mappings : 0);
			if (!d)
				continue;
			assert_int_equal(tm_survey_ranges(&s, &source, ids[k], take, &t), 0);
			for (n = 0; n < t.n; n++)
				told += t.list[n].count;
			assert_int_equal(told, d->mapped);
		}
		assert_false(tm_survey_sound(&s));
		tm_survey_done(&s);
		image_done(&p.m);
	}
}

/* A device that only one of the two trees has, or of which they say different things. */
static void test_half_devices(void **state)
{
	struct image_entry details[3] = { image_details(1, 100, 5, 0, 2),
					  image_details(5, 9, 6, 2, 2),
					  image_details(7, 6, 7, 3, 3) };
	struct tm_survey s;
	struct pool p;

	(void)state;
	make_pool(&p);
	p.details_root = image_tree(&p.m, details, 3, 24, 10);
	seal_all(&p);
	survey(&p.m, &s);
	assert_int_equal(s.n_devices, 4);
	assert_int_equal(s.devices[1].dev_id, 2);
	assert_true(s.devices[1].root_found);
	assert_false(s.devices[1].details_found);
	assert_int_equal(s.devices[1].mapped, 100);
	assert_false(tm_survey_device_sound(&s.devices[1]));
	assert_int_equal(s.devices[2].dev_id, 5);
	assert_false(s.devices[2].root_found);
	assert_int_equal(s.devices[2].details_mapped, 9);
	assert_false(tm_survey_device_sound(&s.devices[2]));
	assert_true(tm_survey_device_sound(tm_survey_find(&s, 7)));
	assert_false(tm_survey_sound(&s));
	tm_survey_done(&s);

	/* Both know the same, but details count otherwise. */
	details[1] = image_details(2, 100, 6, 2, 2);
	p.details_root = image_tree(&p.m, details, 3, 24, 10);
	seal_all(&p);
	survey(&p.m, &s);
	assert_int_equal(s.n_devices, 3);
	assert_false(tm_survey_sound(&s));
	tm_survey_done(&s);
	details[2] = image_details(7, 5, 7, 3, 3);
	p.details_root = image_tree(&p.m, details, 3, 24, 10);
	seal_all(&p);
	survey(&p.m, &s);
	assert_true(tm_survey_sound(&s));
	tm_survey_done(&s);
	image_done(&p.m);
}

static void test_superblock(void **state)
{
	struct tm_survey_source source;
	struct tm_survey s;
	struct pool p;

	(void)state;
	make_pool(&p);
	flip(&p, 0, 330);
	survey(&p.m, &s);
	assert_int_equal(s.superblock_error, -EBADMSG);
	assert_int_equal(s.n_devices, 0);
	assert_int_equal(s.superblock.data_blocks, 0);
	assert_false(tm_survey_sound(&s));
	assert_null(tm_survey_find(&s, 1));
	tm_survey_done(&s);

	memset(image_at(&p.m, 0), 0, TM_SURVEY_BLOCK);
	survey(&p.m, &s);
	assert_int_equal(s.superblock_error, -EBADMSG);
	tm_survey_done(&s);

	seal_all(&p);
	put32(image_at(&p.m, 0) + 40, 3);
	image_seal(&p.m, 0, 160774);
	survey(&p.m, &s);
	assert_int_equal(s.superblock_error, -EPROTONOSUPPORT);
	tm_survey_done(&s);

	/* Nothing there at all. */
	source = image_source(&p.m);
	source.blocks = 0;
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(s.superblock_error, -EIO);
	tm_survey_done(&s);

	/* A block is missing that is not in use: all is there, but the kernel would not have it. */
	seal_all(&p);
	source = image_source(&p.m);
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_true(tm_survey_sound(&s));
	tm_survey_done(&s);
	source.blocks--;
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(s.mapped, 205);
	assert_false(tm_survey_sound(&s));
	tm_survey_done(&s);

	/* Cut off in the middle of device 1: what is before that is there. */
	seal_all(&p);
	source.blocks = p.leaf[8];
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(s.superblock_error, 0);
	assert_false(s.mappings.readable);
	assert_int_equal(s.damage[TM_SURVEY_BEYOND], 2);
	assert_int_equal(s.blocks, p.leaf[8]);
	assert_int_equal(s.superblock.metadata_blocks, 64);
	tm_survey_done(&s);
	image_done(&p.m);
}

/* What the pool holds for us, while it goes on. */
static void test_held(void **state)
{
	struct tm_survey_source source;
	struct tm_survey s;
	uint64_t held, none;
	struct pool p;

	(void)state;
	make_pool(&p);
	source = image_source(&p.m);
	source.held = true;
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(s.superblock_error, -ENODATA);
	tm_survey_done(&s);

	held = image_alloc(&p.m);
	image_superblock(&p.m, held, p.mapping_root, p.details_root, 0, 0);
	/* The present has no devices any more. */
	none = image_tree(&p.m, NULL, 0, 8, 10);
	image_superblock(&p.m, 0, none, image_tree(&p.m, NULL, 0, 24, 10), DATA_BLOCKS, held);
	survey(&p.m, &s);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.n_devices, 0);
	tm_survey_done(&s);
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.n_devices, 3);
	assert_int_equal(s.mapped, 205);
	assert_int_equal(s.superblock.data_blocks, DATA_BLOCKS);
	assert_int_equal(s.superblock.held_root_block, held);
	tm_survey_done(&s);

	image_at(&p.m, held)[4] ^= 1;
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(s.superblock_error, -EBADMSG);
	tm_survey_done(&s);
	image_superblock(&p.m, 0, none, none, DATA_BLOCKS, 64);
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(s.superblock_error, -EBADMSG);
	tm_survey_done(&s);
	image_done(&p.m);
}

/* ---- made to hurt ------------------------------------------------------------------------ */

/*
 * Sixteen levels of nodes whose 252 entries all lead to the one node below: as a tree that would be
 * 252^15 leaves. Empty ones at the end, since with a key the order would forbid it at once.
 */
static void test_sharing_bomb(void **state)
{
	struct image_entry root, details = image_details(1, 5, 0, 0, 0);
	uint64_t below, block = 0;
	struct tm_survey s;
	struct image m;
	uint32_t level, i, round;

	(void)state;
	for (round = 0; round < 2; round++) {
		struct image_entry one = image_mapping(7, 7, 0);

		image_init(&m, 64);
		below = image_tree(&m, &one, round, 8, 10);
		for (level = 1; level < 16; level++, below = block) {
			block = image_alloc(&m);
			image_put_node(&m, block, false, 252, 8);
			for (i = 0; i < 252; i++)
				image_put_u64(&m, block, i, i, below);
			image_seal_node(&m, block);
		}
		root = image_u64(1, below);
		image_superblock(&m, 0, image_tree(&m, &root, 1, 8, 10),
				 image_tree(&m, &details, 1, 24, 10), DATA_BLOCKS, 0);
		survey(&m, &s);
		assert_int_equal(s.nodes_read, 18);
		assert_in_range(m.reads, 19, 21);
		assert_int_equal(s.devices[0].mapped, round);
		if (round) {
			assert_int_equal(s.damage[TM_SURVEY_ORDER], 251 * 15);
			/* 251 at the lowest level, and with each level that many times more. */
			assert_int_equal(s.devices[0].bad_nodes, 251 * 15);
		}
		assert_false(tm_survey_sound(&s));
		tm_survey_done(&s);
		image_done(&m);
	}
}

/* The same with a node at the end that is none: what is said of it does not overflow. */
static void test_damage_bomb(void **state)
{
	struct image_entry root, details = image_details(1, 5, 0, 0, 0);
	uint64_t below, block = 0;
	struct tm_survey s;
	struct image m;
	uint32_t level, i;

	(void)state;
	image_init(&m, 64);
	below = image_alloc(&m);
	for (level = 1; level < 16; level++, below = block) {
		block = image_alloc(&m);
		image_put_node(&m, block, false, 252, 8);
		for (i = 0; i < 252; i++)
			image_put_u64(&m, block, i, i, below);
		image_seal_node(&m, block);
	}
	root = image_u64(1, below);
	image_superblock(&m, 0, image_tree(&m, &root, 1, 8, 10),
			 image_tree(&m, &details, 1, 24, 10), DATA_BLOCKS, 0);
	survey(&m, &s);
	assert_int_equal(s.nodes_read, 18);
	assert_int_equal(s.devices[0].mapped, 0);
	assert_int_equal(s.devices[0].bad_nodes, UINT32_MAX);
	assert_int_equal(s.damage[TM_SURVEY_CHECKSUM], 1);
	tm_survey_done(&s);
	image_done(&m);
}

/* A chain of single nodes: as deep as can be, and one deeper; also put together from two. */
static void test_depth(void **state)
{
	static const struct {
		uint32_t levels;
		uint64_t mapped;
	} cases[] = { { 1, 1 }, { 15, 1 }, { 16, 1 }, { 17, 0 }, { 40, 0 } };
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct image_entry roots[2], one = image_mapping(0, 7, 0);
		struct image_entry details[2] = { image_details(1, 1, 0, 0, 0),
						  image_details(2, 1, 0, 0, 0) };
		struct tm_survey_source source;
		uint64_t block, middle;
		struct told t = { 0 };
		struct tm_survey s;
		struct image m;
		uint32_t level;

		image_init(&m, 64);
		middle = block = image_tree(&m, &one, 1, 8, 10);
		for (level = 1; level < cases[i].levels; level++) {
			uint64_t above = image_alloc(&m);

			image_put_node(&m, above, false, 1, 8);
			image_put_u64(&m, above, 0, 0, block);
			image_seal_node(&m, above);
			block = above;
			if (level == 10)
				middle = block;
		}
		/* Device 1 begins half-way: what it found is known when device 2 is counted. */
		roots[0] = image_u64(1, middle);
		roots[1] = image_u64(2, block);
		image_superblock(&m, 0, image_tree(&m, roots, 2, 8, 10),
				 image_tree(&m, details, 2, 24, 10), DATA_BLOCKS, 0);
		survey(&m, &s);
		assert_int_equal(s.devices[0].mapped, 1);
		assert_int_equal(s.devices[1].mapped, cases[i].mapped);
		assert_int_equal(s.devices[1].bad_nodes, !cases[i].mapped);
		assert_int_equal(s.damage[TM_SURVEY_DEPTH], !cases[i].mapped);
		assert_int_equal(tm_survey_sound(&s), cases[i].mapped);
		source = image_source(&m);
		assert_int_equal(tm_survey_ranges(&s, &source, 2, take, &t), 0);
		assert_int_equal(t.n, cases[i].mapped);
		tm_survey_done(&s);
		image_done(&m);
	}
}

/*
 * Two nodes, each above the other, as the roots of two devices: whoever is first has the other, and
 * not the other way round, in counting as in listing.
 */
static void test_loop_of_two(void **state)
{
	struct image_entry roots[2], low = image_mapping(0, 7, 0), high = image_mapping(9, 8, 0);
	struct image_entry details[2] = { image_details(1, 2, 0, 0, 0),
					  image_details(2, 1, 0, 0, 0) };
	struct tm_survey_source source;
	struct told t = { 0 };
	uint64_t a, b, leaf;
	struct tm_survey s;
	struct image m;

	(void)state;
	image_init(&m, 16);
	a = image_alloc(&m);
	b = image_alloc(&m);
	leaf = image_tree(&m, &low, 1, 8, 10);
	image_put_node(&m, a, false, 2, 8);
	image_put_u64(&m, a, 0, 0, leaf);
	image_put_u64(&m, a, 1, 5, b);
	image_seal_node(&m, a);
	leaf = image_tree(&m, &high, 1, 8, 10);
	image_put_node(&m, b, false, 2, 8);
	image_put_u64(&m, b, 0, 0, a);
	image_put_u64(&m, b, 1, 9, leaf);
	image_seal_node(&m, b);
	roots[0] = image_u64(1, a);
	roots[1] = image_u64(2, b);
	image_superblock(&m, 0, image_tree(&m, roots, 2, 8, 10), image_tree(&m, details, 2, 24, 10),
			 DATA_BLOCKS, 0);
	survey(&m, &s);
	assert_int_equal(s.devices[0].mapped, 2);
	assert_int_equal(s.devices[0].bad_nodes, 1);
	assert_int_equal(s.devices[1].mapped, 1);
	assert_int_equal(s.devices[1].bad_nodes, 1);
	assert_int_equal(s.damage[TM_SURVEY_LOOP], 1);
	source = image_source(&m);
	assert_int_equal(tm_survey_ranges(&s, &source, 1, take, &t), 0);
	assert_int_equal(t.n, 2);
	t.n = 0;
	assert_int_equal(tm_survey_ranges(&s, &source, 2, take, &t), 0);
	assert_int_equal(t.n, 1);
	assert_told(&t, 0, 2, 9, 8, 1);
	tm_survey_done(&s);
	image_done(&m);
}

/* More devices than anybody has: those listed are right, and it is said. */
static void test_too_many_devices(void **state)
{
	size_t n = TM_SURVEY_DEVICES_MAX + 10, i;
	struct image_entry *roots = calloc(n, sizeof(*roots));
	struct image_entry mappings = image_mapping(0, 1, 0);
	uint64_t root, mapping_root;
	struct tm_survey s;
	struct image m;

	(void)state;
	assert_non_null(roots);
	image_init(&m, 4000);
	root = image_tree(&m, &mappings, 1, 8, 10);
	for (i = 0; i < n; i++)
		roots[i] = image_u64(2 * i, root);
	mapping_root = image_tree(&m, roots, n, 8, 252);
	for (i = 0; i < n; i++)
		roots[i] = image_details((uint32_t)(2 * i), 1, 0, 0, 0);
	image_superblock(&m, 0, mapping_root, image_tree(&m, roots, n, 24, 126), DATA_BLOCKS, 0);
	survey(&m, &s);
	assert_true(s.truncated);
	assert_int_equal(s.n_devices, TM_SURVEY_DEVICES_MAX);
	assert_int_equal(s.mapped, TM_SURVEY_DEVICES_MAX);
	assert_true(tm_survey_device_sound(&s.devices[s.n_devices - 1]));
	assert_false(tm_survey_sound(&s));
	tm_survey_done(&s);
	image_done(&m);
	free(roots);
}

/* ---- while it is read -------------------------------------------------------------------- */

static void test_cancelled(void **state)
{
	struct tm_survey_source source;
	struct told t = { 0 };
	struct tm_survey s;
	struct pool p;
	uint64_t block;

	(void)state;
	make_pool(&p);
	source = image_source(&p.m);
	p.m.failure = -ECANCELED;
	for (block = 1; block < p.m.used; block++) {
		p.m.failing = block;
		assert_int_equal(tm_survey_run(&source, &s), -ECANCELED);
	}
	p.m.failing = 0;
	survey(&p.m, &s);
	p.m.failing = p.leaf[5];
	assert_int_equal(tm_survey_ranges(&s, &source, 1, take, &t), -ECANCELED);
	p.m.failure = -EIO;
	assert_int_equal(tm_survey_ranges(&s, &source, 1, take, &t), -ESTALE);
	/* Another node than was counted, although a good one. */
	p.m.failing = 0;
	image_put_u64(&p.m, p.leaf[5], 3, 54, (uint64_t)99 << 24);
	image_seal_node(&p.m, p.leaf[5]);
	assert_int_equal(tm_survey_ranges(&s, &source, 1, take, &t), -ESTALE);
	tm_survey_done(&s);
	image_done(&p.m);
}

struct fickle {
	struct image *m;
	uint64_t block;
	unsigned int seen;
};

/* Reads well once. */
static int fickle_read(void *userdata, uint64_t block, void *buf)
{
	struct fickle *f = userdata;

	if (block == f->block && f->seen++)
		return -EIO;
	return image_read(f->m, block, buf);
}

static void test_fickle(void **state)
{
	struct pool p;
	struct fickle f = { .m = &p.m };
	struct tm_survey_source source = { .read = fickle_read, .userdata = &f };
	struct tm_survey s;

	(void)state;
	make_pool(&p);
	source.blocks = p.m.blocks;
	f.block = p.mapping_root;
	assert_int_equal(tm_survey_run(&source, &s), 0);
	assert_int_equal(f.seen, 2);
	assert_false(tm_survey_sound(&s));
	assert_int_equal(s.mappings.bad_nodes, 1);
	assert_int_equal(s.damage[TM_SURVEY_READ], 1);
	tm_survey_done(&s);
	image_done(&p.m);
}

static void test_texts(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < TM_SURVEY_DAMAGE_COUNT; i++)
		assert_true(strlen(tm_survey_damage_text((enum tm_survey_damage)i)) > 10);
	assert_non_null(tm_survey_damage_text(TM_SURVEY_DAMAGE_COUNT));
}

/* ---- real metadata ----------------------------------------------------------------------- */

/* Three devices: runs of different lengths, single blocks every other block, nothing at all. */
static void write_xml(const char *path)
{
	FILE *f = fopen(path, "we");
	uint32_t i;

	assert_non_null(f);
	assert_true(fprintf(f, "<superblock uuid=\"\" time=\"4\" transaction=\"9\" flags=\"0\""
			       " version=\"2\" data_block_size=\"128\""
			       " nr_data_blocks=\"200000\">\n"
			       "<device dev_id=\"1\" mapped_blocks=\"70000\" transaction=\"0\""
			       " creation_time=\"0\" snap_time=\"3\">\n") > 0);
	/* 700 runs of 100, each with a gap; never two that follow each other in both. */
	for (i = 0; i < 700; i++)
		assert_true(fprintf(f,
				    "<range_mapping origin_begin=\"%u\" data_begin=\"%u\""
				    " length=\"100\" time=\"%u\"/>\n",
				    i * 120, i * 130, i % 4) > 0);
	assert_true(fprintf(f, "</device>\n<device dev_id=\"4\" mapped_blocks=\"3000\""
			       " transaction=\"2\" creation_time=\"1\" snap_time=\"1\">\n") > 0);
	for (i = 0; i < 3000; i++)
		assert_true(fprintf(f,
				    "<single_mapping origin_block=\"%u\" data_block=\"%u\""
				    " time=\"1\"/>\n",
				    2 * i, 150000 + (i * 7919) % 3000) > 0);
	assert_true(fprintf(f, "</device>\n<device dev_id=\"16777215\" mapped_blocks=\"0\""
			       " transaction=\"8\" creation_time=\"4\" snap_time=\"4\">\n"
			       "</device>\n</superblock>\n") > 0);
	assert_int_equal(fclose(f), 0);
}

/* The value of an attribute in a line of thin_dump's. */
static uint64_t attribute(const char *line, const char *name)
{
	char quoted[32];
	const char *at;

	(void)snprintf(quoted, sizeof(quoted), " %s=\"", name);
	at = strstr(line, quoted);
	assert_non_null(at);
	return strtoull(at + strlen(quoted), NULL, 10);
}

struct dump {
	FILE *file;
	char *line;
	size_t size;
	uint64_t told;
	/* of the dump, not yet met by the survey */
	uint64_t first, data, count;
};

/* Takes lines until there is something to compare with. */
static void next_of_dump(struct dump *d)
{
	while (!d->count) {
		assert_true(getline(&d->line, &d->size, d->file) > 0);
		if (strstr(d->line, "<range_mapping ")) {
			d->first = attribute(d->line, "origin_begin");
			d->data = attribute(d->line, "data_begin");
			d->count = attribute(d->line, "length");
		} else if (strstr(d->line, "<single_mapping ")) {
			d->first = attribute(d->line, "origin_block");
			d->data = attribute(d->line, "data_block");
			d->count = 1;
		} else {
			assert_null(strstr(d->line, "_mapping "));
			assert_null(strstr(d->line, "</superblock"));
		}
	}
}

/* The dump breaks runs where the time changes as well. */
static int compare_range(void *userdata, uint32_t dev_id, uint64_t first, uint64_t data,
			 uint64_t count)
{
	struct dump *d = userdata;
	uint64_t n;

	(void)dev_id;
	d->told += count;
	for (; count; count -= n, first += n, data += n) {
		next_of_dump(d);
		assert_int_equal(first, d->first);
		assert_int_equal(data, d->data);
		n = count < d->count ? count : d->count;
		d->first += n;
		d->data += n;
		d->count -= n;
	}
	return 0;
}

static void test_real_metadata(void **state)
{
	char dir[] = "/tmp/thinmgr-test-XXXXXX", xml[64], bin[64], dump_xml[64];
	char *restore[] = { (char *)"thin_restore", (char *)"-i", xml, (char *)"-o", bin, NULL };
	char *thin_dump[] = { (char *)"thin_dump", bin, NULL };
	struct tm_survey_source source;
	struct image m;
	struct dump d = { 0 };
	struct tm_survey s;
	uint64_t leaf;
	uint64_t in_leaf;
	size_t i;

	(void)state;
	if (access("/usr/sbin/thin_restore", X_OK) < 0)
		TM_SKIP("thin_restore is not installed");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(xml, sizeof(xml), "%s/xml", dir);
	(void)snprintf(bin, sizeof(bin), "%s/bin", dir);
	(void)snprintf(dump_xml, sizeof(dump_xml), "%s/dump", dir);
	write_xml(xml);
	make_file(bin, 2048);
	assert_int_equal(run_tool(restore, "/dev/null"), 0);
	assert_int_equal(run_tool(thin_dump, dump_xml), 0);

	load_image(bin, &m);
	source = image_source(&m);
	survey(&m, &s);
	assert_true(tm_survey_sound(&s));
	assert_int_equal(s.superblock.transaction_id, 9);
	assert_int_equal(s.superblock.time, 4);
	assert_int_equal(s.superblock.data_blocks, 200000);
	assert_int_equal(s.n_devices, 3);
	assert_int_equal(s.mapped, 73000);
	assert_int_equal(s.devices[0].mapped, 70000);
	assert_int_equal(s.devices[0].snapshotted_time, 3);
	assert_int_equal(s.devices[1].dev_id, 4);
	assert_int_equal(s.devices[1].mapped, 3000);
	assert_int_equal(s.devices[1].transaction_id, 2);
	assert_int_equal(s.devices[1].creation_time, 1);
	assert_int_equal(s.devices[2].dev_id, 16777215);
	assert_int_equal(s.devices[2].mapped, 0);

	d.file = fopen(dump_xml, "re");
	assert_non_null(d.file);
	for (i = 0; i < s.n_devices; i++)
		assert_int_equal(
			tm_survey_ranges(&s, &source, s.devices[i].dev_id, compare_range, &d), 0);
	assert_int_equal(d.told, s.mapped);
	assert_int_equal(d.count, 0);
	while (getline(&d.line, &d.size, d.file) > 0)
		assert_null(strstr(d.line, "_mapping "));
	assert_int_equal(fclose(d.file), 0);

	/* And with a node of it broken, exactly that is missing. */
	leaf = image_child(&m, s.devices[1].root, 1);
	in_leaf = image_at(&m, leaf)[16];
	image_at(&m, leaf)[100] ^= 1;
	tm_survey_done(&s);
	survey(&m, &s);
	assert_int_equal(s.devices[0].mapped, 70000);
	assert_int_equal(s.devices[1].mapped, 3000 - in_leaf);
	assert_int_equal(s.devices[1].bad_nodes, 1);
	assert_int_equal(s.devices[1].details_mapped, 3000);
	tm_survey_done(&s);

	free(d.line);
	image_done(&m);
	assert_int_equal(unlink(xml), 0);
	assert_int_equal(unlink(bin), 0);
	assert_int_equal(unlink(dump_xml), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_healthy),       cmocka_unit_test(test_empty),
		cmocka_unit_test(test_digest),        cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_damage),        cmocka_unit_test(test_half_devices),
		cmocka_unit_test(test_superblock),    cmocka_unit_test(test_held),
		cmocka_unit_test(test_sharing_bomb),  cmocka_unit_test(test_damage_bomb),
		cmocka_unit_test(test_depth),         cmocka_unit_test(test_loop_of_two),
		cmocka_unit_test(test_cancelled),     cmocka_unit_test(test_too_many_devices),
		cmocka_unit_test(test_fickle),        cmocka_unit_test(test_texts),
		cmocka_unit_test(test_real_metadata),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
