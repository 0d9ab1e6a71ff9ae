/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands on block devices, by sysfs: device-mapper, md and the like that took them, their
 * partitions, loop devices on them (not loop devices on files in a file system on them), and all
 * that stands on those in turn.
 */
#ifndef TM_HOST_STACK_H
#define TM_HOST_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct tm_stack_node {
	dev_t dev;
	size_t device;  /* which of the devices asked for it is, or stands on */
	bool stacked;   /* it is not that device itself */
	char name[128]; /* of a stacked device: its device-mapper name or "md0"; clean text */
};

struct tm_btrfs_member {
	dev_t dev;
	char fs[40]; /* the file system's id */
};

struct tm_stack {
	int sys;                     /* directory of sysfs */
	struct tm_stack_node *nodes; /* those asked for first, in their order */
	size_t n;
	struct tm_btrfs_member *members; /* of all Btrfs that are mounted */
	size_t n_members;
};

/*
 * Build it for @devices; @sys is where sysfs is mounted. Devices that are not there (any more) have
 * nothing on them. 0, or a negative errno: -ENOMEM, -E2BIG (more than 65536 devices), or why sysfs
 * cannot be opened.
 */
int tm_stack_build(const dev_t *devices, size_t n, const char *sys, struct tm_stack *ret);
void tm_stack_done(struct tm_stack *s);

/* The next node from *at on that is @dev, moving *at behind it; NULL when there is none. */
const struct tm_stack_node *tm_stack_next(const struct tm_stack *s, dev_t dev, size_t *at);

/*
 * The block device at @path, also where its node is gone ("/dev/dm-3" is still known to sysfs).
 * Only below "/dev/", as a look elsewhere may wait for a file server. 0 or -ENOENT.
 */
int tm_stack_path_device(const struct tm_stack *s, const char *path, dev_t *ret);

/* The Btrfs that @dev is a member of, or NULL. */
const char *tm_stack_btrfs(const struct tm_stack *s, dev_t dev);

#endif
