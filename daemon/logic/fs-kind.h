/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which file system a device begins with, of those whose checkers are known. Pure. */
#ifndef TM_LOGIC_FS_KIND_H
#define TM_LOGIC_FS_KIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TM_FS_KIND_BYTES (72 * 1024) /* enough of a device's beginning to tell */

enum tm_fs_kind { TM_FS_NONE, TM_FS_EXT, TM_FS_XFS, TM_FS_BTRFS };

/*
 * By the first @len bytes. *ret_replay: the file system itself says that its journal has to be
 * replayed first; one of XFS does not say so in its superblock.
 */
enum tm_fs_kind tm_fs_detect(const uint8_t *start, size_t len, bool *ret_replay);

const char *tm_fs_kind_name(enum tm_fs_kind kind); /* "ext2/3/4", "XFS", "Btrfs"; "none" */

#endif
