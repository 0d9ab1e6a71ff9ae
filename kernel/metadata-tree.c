// SPDX-License-Identifier: GPL-2.0-only
/*
 * See metadata-internal.h: what is not in a tree, told from what cannot be read; what lies next to
 * what was found; taking out at once what lies next to what was taken out; and trees that are
 * higher than they need to be.
 *
 * The kernel's B-trees say -ENODATA of a key that is not there. The block layer says the same of a
 * sector that the disk cannot read any more (BLK_STS_MEDIUM), and the trees pass that on. Taken for
 * a hole, it would be read as zeroes, and a write would put another block in the place of what is
 * there. So before -ENODATA is believed, it is made sure that the way to the key could be read.
 */

#include "metadata-internal.h"

#include <linux/dm-bufio.h>
#include <linux/err.h>
#include <linux/string.h>

/* A node as on disk; behind the keys, for as many as fit, the values. */
struct node {
	__le32 checksum;
	__le32 flags;
	__le64 location;
	__le32 entries;
	__le32 most;
	__le32 value_size;
	__le32 unused;
	__le64 keys[];
} __packed;

#define NODE_INTERNAL BIT(0)
/* Of a node above the leaves: keys and the locations of the nodes below. */
#define NODE_MOST ((DTM_SUPERBLOCK_BLOCK_SIZE - sizeof(struct node)) / (2 * sizeof(__le64)))
/* More than any tree in the metadata that the format can address. */
#define MAX_DEPTH 16

/* How many of the first entries have keys that are not above the key. */
static u32 entries_up_to(const struct node *n, u32 entries, u64 key)
{
	u32 low = 0, high = entries;

	while (low < high) {
		const u32 middle = low + (high - low) / 2;

		if (le64_to_cpu(n->keys[middle]) <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Where the way to a key goes on from a node, or 0: it ends here, or what is here is no node. */
static u64 next_of(const struct node *n, u64 key)
{
	const u32 most = le32_to_cpu(n->most);
	u32 n_up_to;

	if (!(le32_to_cpu(n->flags) & NODE_INTERNAL) || most > NODE_MOST)
		return 0;
	n_up_to = entries_up_to(n, min(le32_to_cpu(n->entries), most), key);
	return n_up_to ? le64_to_cpu(n->keys[most + n_up_to - 1]) : 0;
}

/* Is the key in a leaf after all? */
static bool is_in(const struct node *n, u64 key)
{
	const u32 most = (DTM_SUPERBLOCK_BLOCK_SIZE - sizeof(*n)) / sizeof(__le64);
	u32 i;

	if (le32_to_cpu(n->flags) & NODE_INTERNAL)
		return false;
	for (i = 0; i < min(le32_to_cpu(n->entries), most); i++)
		if (le64_to_cpu(n->keys[i]) == key)
			return true;
	return false;
}

/* -ENODATA: the key is not there, sure enough. */
static int is_missing(struct dtm_metadata *m, u64 root, u64 key, bool wait)
{
	unsigned int depth;
	u64 at = root;

	for (depth = 0; at && depth < MAX_DEPTH; depth++) {
		struct dm_buffer *b;
		const struct node *n;
		bool found;

		n = wait ? dm_bufio_read(m->bm->bufio, at, &b) : dm_bufio_get(m->bm->bufio, at, &b);
		if (!n)
			return -EWOULDBLOCK;
		if (IS_ERR(n))
			return -EIO;
		at = next_of(n, key);
		found = !at && is_in(n, key);
		dm_bufio_release(b);
		if (found) /* it could not be read a moment ago */
			return -EIO;
	}
	return -ENODATA;
}

static bool is_leaf_of_mappings(const struct node *n)
{
	const u32 most = le32_to_cpu(n->most);

	return !(le32_to_cpu(n->flags) & NODE_INTERNAL) &&
	       le32_to_cpu(n->value_size) == sizeof(__le64) && most <= NODE_MOST &&
	       le32_to_cpu(n->entries) <= most;
}

/* The leaf to which the way to a key leads, to be released; or NULL. All of the way is cached. */
static struct node *get_leaf(struct dtm_metadata *m, u64 root, u64 key, struct dm_buffer **ret)
{
	unsigned int depth;
	u64 at = root;

	for (depth = 0; at && depth < MAX_DEPTH; depth++) {
		struct node *n = dm_bufio_get(m->bm->bufio, at, ret);

		if (IS_ERR_OR_NULL(n))
			return NULL;
		at = next_of(n, key);
		if (!at && is_leaf_of_mappings(n))
			return n;
		dm_bufio_release(*ret);
	}
	return NULL;
}

unsigned int dtm_md_rest_of_leaf(struct dtm_metadata *m, u64 root, u64 key, struct dtm_entry *ret,
				 unsigned int most)
{
	unsigned int found = 0;
	const struct node *n;
	struct dm_buffer *b;
	u32 room, entries, at;

	n = get_leaf(m, root, key, &b);
	if (!n)
		return 0;
	room = le32_to_cpu(n->most);
	entries = le32_to_cpu(n->entries);
	at = entries_up_to(n, entries, key);
	if (!at || le64_to_cpu(n->keys[at - 1]) != key)
		at = entries;
	for (; at < entries && found < most; at++, found++) {
		ret[found].key = le64_to_cpu(n->keys[at]);
		ret[found].value = n->keys[room + at];
	}
	dm_bufio_release(b);
	return found;
}

unsigned int dtm_md_remove_rest_of_leaf(struct dtm_metadata *m, const struct dm_btree_info *tree,
					u64 root, u64 removed, u64 end, unsigned int most,
					u64 *ret_last)
{
	u32 room, entries, keep, at, n;
	struct dm_buffer *b;
	struct node *leaf;

	leaf = get_leaf(m, root, removed, &b);
	if (!leaf)
		return 0;
	room = le32_to_cpu(leaf->most);
	entries = le32_to_cpu(leaf->entries);
	/* The kernel's functions make sure that no leaf but the root gets below a third. */
	keep = dm_bufio_get_block_number(b) == root ? 0 : room / 3 + 1;
	at = entries_up_to(leaf, entries, removed);
	n = entries_up_to(leaf, entries, end - 1) - at;
	n = min3(n, entries > keep ? entries - keep : 0, most);
	if (n) {
		__le64 *keys = leaf->keys + at, *values = keys + room;
		const size_t behind = (entries - at - n) * sizeof(*keys);

		*ret_last = le64_to_cpu(keys[n - 1]);
		tree->value_type.dec(tree->value_type.context, values, n);
		memmove(keys, keys + n, behind);
		memmove(values, values + n, behind);
		leaf->entries = cpu_to_le32(entries - n);
		dm_bufio_mark_buffer_dirty(b);
	}
	dm_bufio_release(b);
	return n;
}

int dtm_md_shorten(struct dtm_metadata *m, u64 *root)
{
	const struct node *n;
	struct dm_buffer *b;
	u64 below = 0;
	u32 uses;
	int r;

	n = dm_bufio_read(m->bm->bufio, *root, &b);
	if (IS_ERR(n))
		return -EIO;
	if (le32_to_cpu(n->entries) == 1)
		below = next_of(n, U64_MAX);
	dm_bufio_release(b);
	if (!below)
		return 0;

	/* The last use of the root ends, and its use of what is below goes over; or both go on. */
	r = m->metadata_sm->get_count(m->metadata_sm, *root, &uses);
	if (!r && uses > 1)
		r = dtm_sm_inc(m->metadata_sm, below);
	if (!r)
		r = dtm_sm_dec(m->metadata_sm, *root);
	if (!r)
		*root = below;
	return r;
}

int dtm_md_lookup(struct dtm_metadata *m, struct dm_btree_info *tree, u64 root, u64 key, bool wait,
		  void *value_le)
{
	const u32 size = tree->value_type.size;
	int r;

	/* The kernel puts the value of the next lower key here, so mostly it is plain that it got
	 * to the leaf. No value looks like this. */
	memset(value_le, 0xff, size);
	r = dm_btree_lookup(tree, root, &key, value_le);
	if (r != -ENODATA || memchr_inv(value_le, 0xff, size))
		return r;
	return is_missing(m, root, key, wait);
}
