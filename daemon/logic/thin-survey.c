// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How a tree lies on disk, by drivers/md/persistent-data/ and drivers/md/dm-thin-metadata.c in
 * Linux 6.1 and 6.12. A node is a block, little endian:
 *
 *      0  CRC-32C of the rest of the block, xor 121107     16  entries in use
 *      4  flags: 1 upper node, 2 leaf                      20  entries there is room for
 *      8  number of this block                             24  bytes in a value
 *     32  the keys, 8 bytes each, ascending; after the room for them the values
 *
 * The values of an upper node are blocks of nodes. Below entry i are keys from its key on, up to
 * but without the next entry's key; an insert below all keys lowers the first ones on its way. A
 * tree without entries is an empty leaf. All leaves' values: of the upper mapping tree the roots of
 * the devices' trees; of those data block << 24 | time; of the details tree mapped blocks (8),
 * transaction id (8), creation time (4), time of the last snapshot (4). Device ids have 24 bits.
 */
#include "logic/thin-survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "logic/le.h"
#include "logic/model.h"

#define NODE_CSUM_XOR   ((uint32_t)121107)
#define FLAG_INTERNAL   1
#define FLAG_LEAF       2
#define TIME_BITS       24
#define HEIGHT_MAX      16 /* the kernel's own cursor gives up there; real trees have 4 */
#define FORMAT_BLOCKS   (TM_METADATA_MAX_BYTES / TM_SURVEY_BLOCK)
#define NO_NODE         UINT32_MAX
#define DETAILS_SIZE    24
#define ENTRIES_AT_ONCE 1024

enum {
	AT_CSUM = 0,
	AT_FLAGS = 4,
	AT_BLOCKNR = 8,
	AT_ENTRIES = 16,
	AT_ROOM = 20,
	AT_VALUE_SIZE = 24,
	AT_KEYS = 32,
};

enum kind { KIND_DEVICES, KIND_MAPPINGS, KIND_DETAILS };

/*
 * What was found of a node and all below it. Added once that is complete: what a node refers to
 * stands before it, or was not accepted.
 */
struct node {
	uint64_t first, last; /* keys; first > last: none */
	uint64_t digest;
	uint32_t block;
	uint32_t csum;
	uint32_t entries; /* no more than there are in all leaves, so it fits */
	uint32_t bad_nodes, bad_mappings;
	uint8_t kind, height;
	bool bad;
};

struct tm_survey_nodes {
	struct node *list;
	uint32_t n, room;
	uint32_t *slots; /* index in the list, by a hash of the block; NO_NODE: free */
	uint32_t n_slots;
	uint32_t crc_table[8][256];
};

struct frame {
	unsigned char block[TM_SURVEY_BLOCK];
	uint64_t number;
	bool leaf;
	uint32_t n, room, value_size;
};

struct walk {
	const struct tm_survey_source *source;
	uint64_t blocks, data_blocks;
	struct tm_survey_nodes *nodes;
	struct tm_survey *s;  /* NULL while ranges are listed: nothing is noted then */
	struct frame *frames; /* from the root down, HEIGHT_MAX of them */
	int (*leaf)(void *context, const struct frame *f);
	void *context;
};

static const char *const damage_text[TM_SURVEY_DAMAGE_COUNT] = {
	[TM_SURVEY_READ] = "that could not be read",
	[TM_SURVEY_CHECKSUM] = "with a wrong checksum",
	[TM_SURVEY_LOCATION] = "with what belongs elsewhere",
	[TM_SURVEY_LAYOUT] = "without any sense",
	[TM_SURVEY_ORDER] = "with keys out of order",
	[TM_SURVEY_BEYOND] = "outside of the metadata device",
	[TM_SURVEY_LOOP] = "above itself, in a loop",
	[TM_SURVEY_DEPTH] = "deeper than a tree can be",
	[TM_SURVEY_FOREIGN] = "of another kind of tree",
	[TM_SURVEY_DATA] = "to outside of the data device",
};

const char *tm_survey_damage_text(enum tm_survey_damage damage)
{
	return (unsigned int)damage < TM_SURVEY_DAMAGE_COUNT ? damage_text[damage] : "damaged";
}

/* ---- checksums --------------------------------------------------------------------------- */

/* Eight bytes at a time: of all that a survey does, most is this. */
static void crc_prepare(struct tm_survey_nodes *nodes)
{
	uint32_t i, k;

	for (i = 0; i < 256; i++) {
		unsigned char byte = (unsigned char)i;

		nodes->crc_table[0][i] = tm_crc32c(0, &byte, 1);
	}
	for (k = 1; k < 8; k++)
		for (i = 0; i < 256; i++) {
			uint32_t before = nodes->crc_table[k - 1][i];

			nodes->crc_table[k][i] = before >> 8 ^ nodes->crc_table[0][before & 255];
		}
}

static uint32_t crc_block(const struct tm_survey_nodes *nodes, const unsigned char *p, size_t len)
{
	const uint32_t(*t)[256] = nodes->crc_table;
	uint32_t crc = UINT32_MAX;

	for (; len >= 8; len -= 8, p += 8) {
		uint32_t a = tm_le32(p) ^ crc, b = tm_le32(p + 4);

		crc = t[7][a & 255] ^ t[6][a >> 8 & 255] ^ t[5][a >> 16 & 255] ^ t[4][a >> 24] ^
		      t[3][b & 255] ^ t[2][b >> 8 & 255] ^ t[1][b >> 16 & 255] ^ t[0][b >> 24];
	}
	return tm_crc32c(crc, p, len);
}

/* ---- what was found of nodes ------------------------------------------------------------- */

static uint32_t first_slot(const struct tm_survey_nodes *nodes, uint64_t block)
{
	return (uint32_t)(block * 0x9e3779b97f4a7c15 >> 32) & (nodes->n_slots - 1);
}

static uint32_t find_node(const struct tm_survey_nodes *nodes, uint64_t block)
{
	uint32_t slot, i;

	if (!nodes->n_slots)
		return NO_NODE;
	for (slot = first_slot(nodes, block);; slot = (slot + 1) & (nodes->n_slots - 1)) {
		i = nodes->slots[slot];
		if (i == NO_NODE || nodes->list[i].block == block)
			return i;
	}
}

static void put_slot(struct tm_survey_nodes *nodes, uint32_t index)
{
	uint32_t slot = first_slot(nodes, nodes->list[index].block);

	while (nodes->slots[slot] != NO_NODE)
		slot = (slot + 1) & (nodes->n_slots - 1);
	nodes->slots[slot] = index;
}

static int make_room(struct tm_survey_nodes *nodes)
{
	uint32_t room = nodes->room ? nodes->room + nodes->room / 2 : ENTRIES_AT_ONCE;
	uint32_t n_slots = nodes->n_slots ? nodes->n_slots : 2 * ENTRIES_AT_ONCE, i;
	struct node *list;
	uint32_t *slots;

	list = reallocarray(nodes->list, room, sizeof(*list));
	if (!list)
		return -ENOMEM;
	nodes->list = list;
	nodes->room = room;
	/* A power of two, a quarter of it free. */
	while (n_slots - n_slots / 4 < room)
		n_slots *= 2;
	if (n_slots == nodes->n_slots)
		return 0;
	slots = reallocarray(NULL, n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(nodes->slots);
	nodes->slots = slots;
	nodes->n_slots = n_slots;
	memset(slots, 0xff, n_slots * sizeof(*slots));
	for (i = 0; i < nodes->n; i++)
		put_slot(nodes, i);
	return 0;
}

/* Blocks are below FORMAT_BLOCKS, and added once, so that is how many there can be. */
static int add_node(struct tm_survey_nodes *nodes, const struct node *node, uint32_t *ret_index)
{
	int r;

	if (nodes->n == nodes->room) {
		r = make_room(nodes);
		if (r < 0)
			return r;
	}
	nodes->list[nodes->n] = *node;
	put_slot(nodes, nodes->n);
	*ret_index = nodes->n++;
	return 0;
}

static void nodes_free(struct tm_survey_nodes *nodes)
{
	if (nodes) {
		free(nodes->list);
		free(nodes->slots);
	}
	free(nodes);
}

static void nodes_freep(struct tm_survey_nodes **nodes)
{
	nodes_free(*nodes);
}

/* ---- one node ---------------------------------------------------------------------------- */

static uint64_t key_at(const struct frame *f, uint32_t i)
{
	return tm_le64(f->block + AT_KEYS + (size_t)8 * i);
}

static const unsigned char *value_at(const struct frame *f, uint32_t i)
{
	return f->block + AT_KEYS + (size_t)8 * f->room + (size_t)f->value_size * i;
}

static void note(const struct walk *w, enum tm_survey_damage damage, uint64_t times)
{
	if (w->s)
		w->s->damage[damage] += times;
}

/* Reads and checks what can be told of a node by itself: 0, a damage + 1, or a negative error. */
static int read_node(const struct walk *w, enum kind kind, uint64_t number, struct frame *f)
{
	const unsigned char *b = f->block;
	uint32_t flags, i;
	uint64_t key, before = 0;
	int r;

	if (w->s)
		w->s->nodes_read++;
	r = w->source->read(w->source->userdata, number, f->block);
	if (r == -ECANCELED)
		return r;
	if (r)
		return 1 + TM_SURVEY_READ;
	if (tm_le32(b + AT_CSUM) !=
	    (crc_block(w->nodes, b + AT_FLAGS, TM_SURVEY_BLOCK - AT_FLAGS) ^ NODE_CSUM_XOR))
		return 1 + TM_SURVEY_CHECKSUM;
	if (tm_le64(b + AT_BLOCKNR) != number)
		return 1 + TM_SURVEY_LOCATION;
	flags = tm_le32(b + AT_FLAGS);
	f->number = number;
	f->leaf = flags == FLAG_LEAF;
	f->n = tm_le32(b + AT_ENTRIES);
	f->room = tm_le32(b + AT_ROOM);
	f->value_size = tm_le32(b + AT_VALUE_SIZE);
	if ((flags != FLAG_INTERNAL && flags != FLAG_LEAF) ||
	    f->value_size != (f->leaf && kind == KIND_DETAILS ? DETAILS_SIZE : 8) ||
	    f->room > (TM_SURVEY_BLOCK - AT_KEYS) / (8 + f->value_size) || f->n > f->room ||
	    (!f->leaf && !f->n))
		return 1 + TM_SURVEY_LAYOUT;
	for (i = 0; i < f->n; i++, before = key) {
		key = key_at(f, i);
		if ((i && key <= before) || (kind != KIND_MAPPINGS && key > TM_DEV_ID_MAX))
			return 1 + TM_SURVEY_ORDER;
	}
	return 0;
}

/* Has that node its place in an entry of this one, with these keys? */
static bool belongs(const struct frame *f, uint32_t i, const struct node *below)
{
	if (below->first > below->last)
		return true;
	return below->first >= key_at(f, i) && (i + 1 == f->n || below->last < key_at(f, i + 1));
}

/* ---- counting ---------------------------------------------------------------------------- */

static uint32_t add_up(uint32_t a, uint32_t b)
{
	return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* Of single mappings: a digest is their sum, so it can be made of those of parts. */
static uint64_t digest_mapping(uint64_t block, uint64_t data_block)
{
	uint64_t x = block * 0x9e3779b97f4a7c15 ^ (data_block + 1) * 0xd6e8feb86659fd93;

	x = (x ^ x >> 32) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 29) * 0x94d049bb133111eb;
	return x ^ x >> 32;
}

static void count_leaf(const struct walk *w, const struct frame *f, struct node *n)
{
	uint32_t i;

	n->height = 1;
	if (f->n) {
		n->first = key_at(f, 0);
		n->last = key_at(f, f->n - 1);
	}
	if (n->kind != KIND_MAPPINGS) {
		n->entries = f->n;
		return;
	}
	for (i = 0; i < f->n; i++) {
		uint64_t data = tm_le64(value_at(f, i)) >> TIME_BITS;

		if (data >= w->data_blocks) {
			n->bad_mappings++;
			continue;
		}
		n->entries++;
		n->digest += digest_mapping(key_at(f, i), data);
	}
	note(w, TM_SURVEY_DATA, n->bad_mappings);
}

/*
 * A node of a kind in a block, @depth below the root: *ret is its index, or NO_NODE where nothing
 * can be there. 0 or a negative error. Goes at most HEIGHT_MAX deep.
 */
static int count_node(const struct walk *w, enum kind kind, uint64_t block, unsigned int depth,
		      uint32_t *ret);

/* Adds what is below an entry. */
static int count_below(const struct walk *w, const struct frame *f, uint32_t i, unsigned int depth,
		       struct node *n)
{
	const struct node *below;
	uint32_t index;
	int r;

	r = count_node(w, n->kind, tm_le64(value_at(f, i)), depth + 1, &index);
	if (r < 0)
		return r;
	if (index == NO_NODE) {
		n->bad_nodes = add_up(n->bad_nodes, 1);
		return 0;
	}
	below = &w->nodes->list[index];
	if (below->height >= HEIGHT_MAX || !belongs(f, i, below)) {
		note(w, below->height >= HEIGHT_MAX ? TM_SURVEY_DEPTH : TM_SURVEY_ORDER, 1);
		n->bad_nodes = add_up(n->bad_nodes, 1);
		return 0;
	}
	if (below->first <= below->last) {
		if (n->first > n->last)
			n->first = below->first;
		n->last = below->last;
	}
	if (n->height <= below->height)
		n->height = below->height + 1;
	n->digest += below->digest;
	n->entries += below->entries;
	n->bad_nodes = add_up(n->bad_nodes, below->bad_nodes);
	n->bad_mappings = add_up(n->bad_mappings, below->bad_mappings);
	return 0;
}

static int count_node(const struct walk *w, enum kind kind, uint64_t block, unsigned int depth,
		      uint32_t *ret)
{
	struct frame *f;
	struct node n = { .first = UINT64_MAX, .kind = (uint8_t)kind, .height = 1 };
	unsigned int k;
	uint32_t i;
	int r;

	*ret = NO_NODE;
	if (block >= w->blocks) {
		note(w, TM_SURVEY_BEYOND, 1);
		return 0;
	}
	if (depth >= HEIGHT_MAX) {
		note(w, TM_SURVEY_DEPTH, 1);
		return 0;
	}
	for (k = 0; k < depth; k++)
		if (w->frames[k].number == block) {
			note(w, TM_SURVEY_LOOP, 1);
			return 0;
		}
	i = find_node(w->nodes, block);
	if (i != NO_NODE) {
		if (!w->nodes->list[i].bad && w->nodes->list[i].kind != kind)
			note(w, TM_SURVEY_FOREIGN, 1);
		else
			*ret = i;
		return 0;
	}
	f = &w->frames[depth];
	r = read_node(w, kind, block, f);
	if (r < 0)
		return r;
	n.block = (uint32_t)block;
	n.csum = tm_le32(f->block + AT_CSUM);
	if (r > 0) {
		note(w, (enum tm_survey_damage)(r - 1), 1);
		n.bad = true;
		n.bad_nodes = 1;
	} else if (f->leaf) {
		count_leaf(w, f, &n);
	} else {
		for (i = 0; i < f->n; i++) {
			r = count_below(w, f, i, depth, &n);
			if (r < 0)
				return r;
		}
	}
	return add_node(w->nodes, &n, ret);
}

/* ---- listing ----------------------------------------------------------------------------- */

/*
 * Calls back for each leaf that was counted, in order. The same nodes are accepted as then, by what
 * is known of them: those that were complete before what refers to them, so that there is an end.
 */
static int list_node(const struct walk *w, uint32_t index, unsigned int depth)
{
	const struct node *n = &w->nodes->list[index], *below;
	struct frame *f = &w->frames[depth];
	uint32_t i, k;
	int r;

	r = read_node(w, (enum kind)n->kind, n->block, f);
	if (r < 0)
		return r;
	if (r > 0 || tm_le32(f->block + AT_CSUM) != n->csum)
		return -ESTALE;
	if (f->leaf)
		return w->leaf(w->context, f);
	for (i = 0; i < f->n; i++) {
		k = find_node(w->nodes, tm_le64(value_at(f, i)));
		if (k == NO_NODE || k >= index)
			continue;
		below = &w->nodes->list[k];
		if (!below->entries || below->kind != n->kind || below->height >= HEIGHT_MAX ||
		    !belongs(f, i, below))
			continue;
		r = list_node(w, k, depth + 1);
		if (r)
			return r;
	}
	return 0;
}

static int list_tree(struct walk *w, uint32_t index, int (*leaf)(void *, const struct frame *),
		     void *context)
{
	struct tm_survey *s = w->s;
	int r;

	if (index == NO_NODE || !w->nodes->list[index].entries)
		return 0;
	w->s = NULL; /* what is read again is not counted again */
	w->leaf = leaf;
	w->context = context;
	r = list_node(w, index, 0);
	w->s = s;
	return r;
}

/* ---- devices ----------------------------------------------------------------------------- */

struct device_list {
	struct tm_survey *s;
	size_t room;
	size_t n_sorted; /* those of the mapping tree come first */
};

static int by_dev_id(const void *a, const void *b)
{
	const struct tm_survey_device *d = a, *e = b;

	return d->dev_id < e->dev_id ? -1 : d->dev_id > e->dev_id;
}

/* *ret is NULL where there are too many. */
static int add_device(struct device_list *l, uint32_t dev_id, struct tm_survey_device **ret)
{
	struct tm_survey *s = l->s;
	struct tm_survey_device *devices;
	size_t room;

	*ret = NULL;
	if (s->n_devices == TM_SURVEY_DEVICES_MAX) {
		s->truncated = true;
		return 0;
	}
	if (s->n_devices == l->room) {
		room = l->room ? 2 * l->room : 16;
		devices = reallocarray(s->devices, room, sizeof(*devices));
		if (!devices)
			return -ENOMEM;
		s->devices = devices;
		l->room = room;
	}
	*ret = &s->devices[s->n_devices++];
	**ret = (struct tm_survey_device){ .dev_id = dev_id };
	return 0;
}

static int take_roots(void *context, const struct frame *f)
{
	struct device_list *l = context;
	struct tm_survey_device *d;
	uint32_t i;
	int r;

	for (i = 0; i < f->n; i++) {
		r = add_device(l, (uint32_t)key_at(f, i), &d);
		if (r < 0)
			return r;
		if (!d)
			break;
		d->root_found = true;
		d->root = tm_le64(value_at(f, i));
	}
	return 0;
}

static int take_details(void *context, const struct frame *f)
{
	struct device_list *l = context;
	struct tm_survey_device key = { 0 }, *d;
	const unsigned char *v;
	uint32_t i;
	int r;

	for (i = 0; i < f->n; i++) {
		key.dev_id = (uint32_t)key_at(f, i);
		v = value_at(f, i);
		d = NULL;
		if (l->n_sorted)
			d = bsearch(&key, l->s->devices, l->n_sorted, sizeof(key), by_dev_id);
		if (!d) {
			r = add_device(l, key.dev_id, &d);
			if (r < 0)
				return r;
			if (!d)
				continue;
		}
		d->details_found = true;
		d->details_mapped = tm_le64(v);
		d->transaction_id = tm_le64(v + 8);
		d->creation_time = tm_le32(v + 16);
		d->snapshotted_time = tm_le32(v + 20);
	}
	return 0;
}

/* ---- all of it --------------------------------------------------------------------------- */

static int read_superblock(const struct walk *w, struct tm_survey *s)
{
	unsigned char *block = w->frames[0].block;
	struct tm_superblock held;
	int r;

	if (!w->blocks)
		return -EIO;
	r = w->source->read(w->source->userdata, 0, block);
	if (r)
		return r < 0 ? r : -EIO;
	r = tm_superblock_parse(block, &s->superblock);
	if (r < 0 || !w->source->held)
		return r;
	if (!s->superblock.held_root)
		return -ENODATA;
	if (s->superblock.held_root_block >= w->blocks)
		return -EBADMSG;
	r = w->source->read(w->source->userdata, s->superblock.held_root_block, block);
	if (r)
		return r < 0 ? r : -EIO;
	r = tm_superblock_parse_at(block, s->superblock.held_root_block, &held);
	if (r < 0)
		return r;
	s->superblock.transaction_id = held.transaction_id;
	s->superblock.time = held.time;
	s->superblock.mapping_root = held.mapping_root;
	s->superblock.details_root = held.details_root;
	return 0;
}

/* One of the two trees that the superblock names. */
static int survey_tree(struct walk *w, enum kind kind, uint64_t root, struct tm_survey_tree *ret,
		       struct device_list *devices)
{
	const struct node *n;
	uint32_t index;
	int r;

	*ret = (struct tm_survey_tree){ .root = root };
	r = count_node(w, kind, root, 0, &index);
	if (r < 0)
		return r;
	if (index == NO_NODE || w->nodes->list[index].bad) {
		ret->bad_nodes = 1;
		return 0;
	}
	n = &w->nodes->list[index];
	ret->readable = true;
	ret->entries = n->entries;
	ret->bad_nodes = n->bad_nodes;
	r = list_tree(w, index, kind == KIND_DEVICES ? take_roots : take_details, devices);
	if (r == -ESTALE) {
		/* Read well before: a device that cannot make up its mind, or is being written. */
		note(w, TM_SURVEY_READ, 1);
		ret->bad_nodes++;
		r = 0;
	}
	return r;
}

static int survey_device(const struct walk *w, struct tm_survey_device *d)
{
	const struct node *n;
	uint32_t index;
	int r;

	r = count_node(w, KIND_MAPPINGS, d->root, 0, &index);
	if (r < 0)
		return r;
	if (index == NO_NODE) {
		d->bad_nodes = 1;
		return 0;
	}
	n = &w->nodes->list[index];
	d->mapped = n->entries;
	d->bad_nodes = n->bad_nodes;
	d->bad_mappings = n->bad_mappings;
	d->digest = n->digest;
	return 0;
}

static int survey(struct walk *w, struct tm_survey *s)
{
	struct device_list devices = { .s = s };
	size_t i;
	int r;

	s->superblock_error = read_superblock(w, s);
	if (s->superblock_error) {
		s->superblock = (struct tm_superblock){ 0 };
		return s->superblock_error == -ECANCELED ? -ECANCELED : 0;
	}
	w->data_blocks = s->superblock.data_blocks;
	r = survey_tree(w, KIND_DEVICES, s->superblock.mapping_root, &s->mappings, &devices);
	if (r < 0)
		return r;
	devices.n_sorted = s->n_devices;
	for (i = 0; i < s->n_devices; i++) {
		r = survey_device(w, &s->devices[i]);
		if (r < 0)
			return r;
		s->mapped += s->devices[i].mapped;
	}
	r = survey_tree(w, KIND_DETAILS, s->superblock.details_root, &s->details, &devices);
	if (r < 0)
		return r;
	if (s->n_devices > devices.n_sorted)
		qsort(s->devices, s->n_devices, sizeof(*s->devices), by_dev_id);
	return 0;
}

int tm_survey_run(const struct tm_survey_source *source, struct tm_survey *ret)
{
	tm_cleanup(nodes_freep) struct tm_survey_nodes *nodes = calloc(1, sizeof(*nodes));
	tm_auto_free struct frame *frames = calloc(HEIGHT_MAX, sizeof(*frames));
	struct tm_survey s = { .blocks = source->blocks };
	struct walk w = {
		.source = source,
		.blocks = source->blocks < FORMAT_BLOCKS ? source->blocks : FORMAT_BLOCKS,
		.nodes = nodes,
		.s = &s,
		.frames = frames,
	};
	int r;

	if (!nodes || !frames)
		return -ENOMEM;
	crc_prepare(nodes);
	r = survey(&w, &s);
	if (r < 0) {
		free(s.devices);
		return r;
	}
	s.nodes = TM_TAKE(nodes);
	*ret = s;
	return 0;
}

void tm_survey_done(struct tm_survey *s)
{
	free(s->devices);
	nodes_free(s->nodes);
	*s = (struct tm_survey){ 0 };
}

const struct tm_survey_device *tm_survey_find(const struct tm_survey *s, uint32_t dev_id)
{
	struct tm_survey_device key = { .dev_id = dev_id };

	if (!s->n_devices)
		return NULL;
	return bsearch(&key, s->devices, s->n_devices, sizeof(key), by_dev_id);
}

bool tm_survey_device_sound(const struct tm_survey_device *d)
{
	return d->root_found && d->details_found && !d->bad_nodes && !d->bad_mappings;
}

static bool tree_sound(const struct tm_survey_tree *t)
{
	return t->readable && !t->bad_nodes;
}

bool tm_survey_sound(const struct tm_survey *s)
{
	size_t i;

	if (s->superblock_error || !tree_sound(&s->mappings) || !tree_sound(&s->details) ||
	    s->truncated || s->superblock.metadata_blocks > s->blocks)
		return false;
	for (i = 0; i < s->n_devices; i++)
		if (!tm_survey_device_sound(&s->devices[i]) ||
		    s->devices[i].mapped != s->devices[i].details_mapped)
			return false;
	return true;
}

/* ---- ranges ------------------------------------------------------------------------------ */

struct ranges {
	uint64_t data_blocks;
	uint32_t dev_id;
	uint64_t first, data, count;
	tm_survey_range_fn range;
	void *userdata;
};

static int end_range(const struct ranges *a)
{
	return a->count ? a->range(a->userdata, a->dev_id, a->first, a->data, a->count) : 0;
}

static int take_mappings(void *context, const struct frame *f)
{
	struct ranges *a = context;
	uint32_t i;
	int r;

	for (i = 0; i < f->n; i++) {
		uint64_t block = key_at(f, i);
		uint64_t data = tm_le64(value_at(f, i)) >> TIME_BITS;

		if (data >= a->data_blocks)
			continue;
		if (a->count && block == a->first + a->count && data == a->data + a->count) {
			a->count++;
			continue;
		}
		r = end_range(a);
		if (r)
			return r;
		a->first = block;
		a->data = data;
		a->count = 1;
	}
	return 0;
}

int tm_survey_ranges(const struct tm_survey *s, const struct tm_survey_source *source,
		     uint32_t dev_id, tm_survey_range_fn range, void *userdata)
{
	const struct tm_survey_device *d = tm_survey_find(s, dev_id);
	tm_auto_free struct frame *frames = NULL;
	struct ranges a = {
		.data_blocks = s->superblock.data_blocks,
		.dev_id = dev_id,
		.range = range,
		.userdata = userdata,
	};
	struct walk w = { .source = source, .nodes = s->nodes };
	int r;

	if (!d)
		return -ENODATA;
	if (!d->mapped)
		return 0;
	frames = calloc(HEIGHT_MAX, sizeof(*frames));
	if (!frames)
		return -ENOMEM;
	w.frames = frames;
	r = list_tree(&w, find_node(s->nodes, d->root), take_mappings, &a);
	return r ? r : end_range(&a);
}
