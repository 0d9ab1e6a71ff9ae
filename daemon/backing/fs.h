/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can be decided about a place for a pool without touching it. */
#ifndef TM_BACKING_FS_H
#define TM_BACKING_FS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

/* File systems a pool must not be on. */
enum tm_fs_verdict {
	TM_FS_FINE,
	TM_FS_MEMORY,  /* gone with the next boot */
	TM_FS_NETWORK, /* may hang, has no reliable flush or direct I/O for loop devices */
	TM_FS_STACKED, /* what lies below is not known */
	TM_FS_IMAGE,   /* cannot be written, or has no allocation of space */
	TM_FS_PSEUDO,  /* holds no files */
	TM_FS_SPARSE,  /* copies on write: preallocated space is not kept, fine for sparse pools */
};

/* The verdict on statfs' f_type; *ret_name names it ("tmpfs"), "" when it is not in the table. */
enum tm_fs_verdict tm_fs_verdict(uint64_t f_type, const char **ret_name);

/*
 * Refuse a file system, with the reason and what to do: 0, or -EOPNOTSUPP with UNSUPPORTED.
 * @sparse: the pool is not preallocated.
 */
int tm_fs_check(uint64_t f_type, bool sparse, const char *directory, struct tm_error *err);

/*
 * The form of a pool's directory: absolute, not "/", without empty, "." and ".." parts, and short
 * enough for the names below it. 0 or -EINVAL with BAD_PATH.
 */
int tm_fs_check_path(const char *directory, struct tm_error *err);

/* What is left for pools: @available less the margin, less what sparse files were promised. */
uint64_t tm_fs_room(uint64_t fs_bytes, uint64_t available, uint64_t promised);

#endif
