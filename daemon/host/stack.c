// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/stack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/utf8.h"
#include "host/proc.h"

#define NODES_MAX 65536

/* A line of sysfs is at most a page. */
#define TEXT_MAX 4096

struct loop {
	dev_t dev, on;
	char name[32];
};

struct build {
	struct tm_stack *s;
	size_t room;
	struct loop *loops;
	size_t n_loops;
};

/* The text of a file, without the end of its line. False when it is not there. */
static bool read_line(int dir, const char *entry, const char *file, char **ret)
{
	char path[NAME_MAX + 64];
	size_t len;

	if (snprintf(path, sizeof(path), "%s/%s", entry, file) >= (int)sizeof(path) ||
	    tm_read_file_at(dir, path, TEXT_MAX, ret, &len) < 0)
		return false;
	if (len && (*ret)[len - 1] == '\n')
		(*ret)[len - 1] = '\0';
	return true;
}

static bool read_dev(int dir, const char *entry, dev_t *ret)
{
	tm_auto_free char *text = NULL;
	unsigned int ma, mi;
	char end;

	if (!read_line(dir, entry, "dev", &text) || sscanf(text, "%u:%u%c", &ma, &mi, &end) != 2)
		return false;
	*ret = makedev(ma, mi);
	return true;
}

static int grow(void **list, size_t size, size_t n)
{
	void *larger;

	if (n & (n - 1)) /* not a power of two: there is room */
		return 0;
	larger = realloc(*list, (n ? n * 2 : 1) * size);
	if (!larger)
		return -ENOMEM;
	*list = larger;
	return 0;
}

/* Of each device there is one node for each device asked for that it stands on. */
static int add_node(struct tm_stack *s, dev_t dev, size_t device, const char *name)
{
	struct tm_stack_node *node;

	for (size_t i = 0; i < s->n; i++)
		if (s->nodes[i].dev == dev && s->nodes[i].device == device)
			return 0;
	if (s->n >= NODES_MAX)
		return -E2BIG;
	if (grow((void **)&s->nodes, sizeof(*s->nodes), s->n) < 0)
		return -ENOMEM;
	node = &s->nodes[s->n++];
	*node = (struct tm_stack_node){ .dev = dev, .device = device, .stacked = name != NULL };
	(void)snprintf(node->name, sizeof(node->name), "%s", name ? name : "");
	tm_utf8_clean(node->name);
	return 0;
}

/* A device whose directory is @entry: as people know it. */
static int add_entry(struct tm_stack *s, int dir, const char *entry, size_t device)
{
	tm_auto_free char *name = NULL;
	dev_t dev;

	if (!read_dev(dir, entry, &dev))
		return 0;
	return add_node(s, dev, device,
			read_line(dir, entry, "dm/name", &name) && name[0] ? name : entry);
}

static int add_holders(struct tm_stack *s, DIR *of, size_t device)
{
	tm_auto_closedir DIR *dir = tm_open_dir(dirfd(of), "holders");
	const char *entry;
	int r = 0;

	while (dir && r == 0 && (entry = tm_next_entry(dir)) != NULL)
		r = add_entry(s, dirfd(dir), entry, device);
	return r;
}

static int add_partitions(struct tm_stack *s, DIR *of, size_t device)
{
	const char *entry;
	int r = 0;

	while (r == 0 && (entry = tm_next_entry(of)) != NULL) {
		tm_auto_free char *number = NULL;

		if (read_line(dirfd(of), entry, "partition", &number))
			r = add_entry(s, dirfd(of), entry, device);
	}
	return r;
}

/* What stands directly on node @i. */
static int add_above(const struct build *b, size_t i)
{
	struct tm_stack *s = b->s;
	const dev_t dev = s->nodes[i].dev;
	const size_t device = s->nodes[i].device;
	tm_auto_closedir DIR *dir = NULL;
	char path[64];
	int r = 0;

	(void)snprintf(path, sizeof(path), "dev/block/%u:%u", major(dev), minor(dev));
	dir = tm_open_dir(s->sys, path);
	if (dir)
		r = add_holders(s, dir, device);
	if (dir && r == 0)
		r = add_partitions(s, dir, device);
	for (size_t k = 0; r == 0 && k < b->n_loops; k++)
		if (b->loops[k].on == dev)
			r = add_node(s, b->loops[k].dev, device, b->loops[k].name);
	return r;
}

/* ---- what is looked at once ----------------------------------------------------------------- */

static int find_loops(struct build *b)
{
	tm_auto_closedir DIR *dir = tm_open_dir(b->s->sys, "block");
	const char *entry;

	while (dir && (entry = tm_next_entry(dir)) != NULL) {
		tm_auto_free char *file = NULL;
		struct loop loop = { 0 };

		if (strncmp(entry, "loop", 4) != 0 || strlen(entry) >= sizeof(loop.name) ||
		    !read_line(dirfd(dir), entry, "loop/backing_file", &file) ||
		    tm_stack_path_device(b->s, file, &loop.on) < 0 ||
		    !read_dev(dirfd(dir), entry, &loop.dev))
			continue;
		(void)snprintf(loop.name, sizeof(loop.name), "%s", entry);
		if (grow((void **)&b->loops, sizeof(*b->loops), b->n_loops) < 0)
			return -ENOMEM;
		b->loops[b->n_loops++] = loop;
	}
	return 0;
}

static int find_members(struct tm_stack *s)
{
	tm_auto_closedir DIR *dir = tm_open_dir(s->sys, "fs/btrfs");
	const char *fs, *entry;

	while (dir && (fs = tm_next_entry(dir)) != NULL) {
		char path[NAME_MAX + 16];
		tm_auto_closedir DIR *devices = NULL;

		(void)snprintf(path, sizeof(path), "%s/devices", fs);
		devices = tm_open_dir(dirfd(dir), path);
		while (devices && (entry = tm_next_entry(devices)) != NULL) {
			struct tm_btrfs_member m = { 0 };

			if (!read_dev(dirfd(devices), entry, &m.dev) || strlen(fs) >= sizeof(m.fs))
				continue;
			(void)snprintf(m.fs, sizeof(m.fs), "%s", fs);
			if (grow((void **)&s->members, sizeof(*s->members), s->n_members) < 0)
				return -ENOMEM;
			s->members[s->n_members++] = m;
		}
	}
	return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

int tm_stack_build(const dev_t *devices, size_t n, const char *sys, struct tm_stack *ret)
{
	struct tm_stack s = { .sys = -1 };
	struct build b = { .s = &s };
	int r = 0;

	s.sys = open(sys, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s.sys < 0)
		return -errno;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_node(&s, devices[i], i, NULL);
	if (r == 0)
		r = find_members(&s);
	if (r == 0)
		r = find_loops(&b);
	/* The list grows while it is walked, until nothing new stands on anything. */
	for (size_t i = 0; r == 0 && i < s.n; i++)
		r = add_above(&b, i);
	free(b.loops);
	if (r < 0) {
		tm_stack_done(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void tm_stack_done(struct tm_stack *s)
{
	if (s->sys >= 0)
		(void)close(s->sys);
	free(s->nodes);
	free(s->members);
	*s = (struct tm_stack){ .sys = -1 };
}

const struct tm_stack_node *tm_stack_next(const struct tm_stack *s, dev_t dev, size_t *at)
{
	while (*at < s->n) {
		const struct tm_stack_node *node = &s->nodes[(*at)++];

		if (node->dev == dev)
			return node;
	}
	return NULL;
}

int tm_stack_path_device(const struct tm_stack *s, const char *path, dev_t *ret)
{
	char block[NAME_MAX + 16];
	struct statx st;
	const char *name;
	size_t len;

	if (strncmp(path, "/dev/", 5) != 0)
		return -ENOENT;
	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) == 0) {
		if (!S_ISBLK(st.stx_mode))
			return -ENOENT;
		*ret = makedev(st.stx_rdev_major, st.stx_rdev_minor);
		return 0;
	}
	name = path + 5;
	/* The kernel's own mark of a node that is gone: "/dev/dm-3 (deleted)". */
	len = strcspn(name, " ");
	if (!len || len > NAME_MAX || name[0] == '.' || memchr(name, '/', len))
		return -ENOENT;
	(void)snprintf(block, sizeof(block), "class/block/%.*s", (int)len, name);
	return read_dev(s->sys, block, ret) ? 0 : -ENOENT;
}

const char *tm_stack_btrfs(const struct tm_stack *s, dev_t dev)
{
	for (size_t i = 0; i < s->n_members; i++)
		if (s->members[i].dev == dev)
			return s->members[i].fs;
	return NULL;
}
