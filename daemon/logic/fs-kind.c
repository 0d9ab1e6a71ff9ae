/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fs-kind.h. */

#include "logic/fs-kind.h"

#include <string.h>

#include "common/cleanup.h"

/* ext2, 3 and 4: superblock at 1 KiB. */
#define EXT_SUPERBLOCK 1024
#define EXT_MAGIC_AT   (EXT_SUPERBLOCK + 0x38)
#define EXT_MAGIC      0xef53
#define EXT_INCOMPAT   (EXT_SUPERBLOCK + 0x60)
#define EXT_RECOVER    0x4

/* Btrfs: superblock at 64 KiB; a log tree is there as long as it has to be replayed. */
#define BTRFS_SUPERBLOCK 65536
#define BTRFS_MAGIC_AT   (BTRFS_SUPERBLOCK + 0x40)
#define BTRFS_LOG_ROOT   (BTRFS_SUPERBLOCK + 0x60)

enum tm_fs_kind tm_fs_detect(const uint8_t *start, size_t len, bool *ret_replay)
{
	*ret_replay = false;
	if (len >= 4 && memcmp(start, "XFSB", 4) == 0)
		return TM_FS_XFS;
	if (len >= EXT_INCOMPAT + 4 &&
	    (start[EXT_MAGIC_AT] | start[EXT_MAGIC_AT + 1] << 8) == EXT_MAGIC) {
		*ret_replay = (start[EXT_INCOMPAT] & EXT_RECOVER) != 0;
		return TM_FS_EXT;
	}
	if (len >= BTRFS_LOG_ROOT + 8 && memcmp(start + BTRFS_MAGIC_AT, "_BHRfS_M", 8) == 0) {
		for (size_t i = 0; i < 8; i++)
			*ret_replay = *ret_replay || start[BTRFS_LOG_ROOT + i];
		return TM_FS_BTRFS;
	}
	return TM_FS_NONE;
}

const char *tm_fs_kind_name(enum tm_fs_kind kind)
{
	static const char *const names[] = { "none", "ext2/3/4", "XFS", "Btrfs" };

	return (size_t)kind < TM_ARRAY_SIZE(names) ? names[kind] : "none";
}
