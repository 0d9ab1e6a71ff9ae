// SPDX-License-Identifier: GPL-2.0-or-later
#include "backing/fs.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>

#include "backing/backing.h"
#include "common/cleanup.h"
#include "common/units.h"

/* Magic numbers that linux/magic.h does not have, from the file systems' own documentation. */
#define MAGIC_CIFS     0xFF534D42
#define MAGIC_ZFS      0x2FC12FC1
#define MAGIC_BCACHEFS 0xCA451A4E
#define MAGIC_LUSTRE   0x0BD00BD0
#define MAGIC_GFS2     0x01161970
#define MAGIC_NTFS     0x5346544E
#define MAGIC_NTFS3    0x7366746E
#define MAGIC_AUFS     0x61756673
#define MAGIC_GPFS     0x47504653

static const struct {
	uint64_t magic;
	enum tm_fs_verdict verdict;
	const char *name;
} file_systems[] = {
	{ TMPFS_MAGIC, TM_FS_MEMORY, "tmpfs" },
	{ RAMFS_MAGIC, TM_FS_MEMORY, "ramfs" },
	{ HUGETLBFS_MAGIC, TM_FS_MEMORY, "hugetlbfs" },
	{ NFS_SUPER_MAGIC, TM_FS_NETWORK, "NFS" },
	{ SMB_SUPER_MAGIC, TM_FS_NETWORK, "SMB" },
	{ SMB2_SUPER_MAGIC, TM_FS_NETWORK, "SMB" },
	{ MAGIC_CIFS, TM_FS_NETWORK, "CIFS" },
	{ CEPH_SUPER_MAGIC, TM_FS_NETWORK, "Ceph" },
	{ AFS_SUPER_MAGIC, TM_FS_NETWORK, "AFS" },
	{ AFS_FS_MAGIC, TM_FS_NETWORK, "AFS" },
	{ CODA_SUPER_MAGIC, TM_FS_NETWORK, "Coda" },
	{ V9FS_MAGIC, TM_FS_NETWORK, "9p" },
	{ MAGIC_LUSTRE, TM_FS_NETWORK, "Lustre" },
	{ MAGIC_GPFS, TM_FS_NETWORK, "GPFS" },
	{ OCFS2_SUPER_MAGIC, TM_FS_NETWORK, "OCFS2" },
	{ MAGIC_GFS2, TM_FS_NETWORK, "GFS2" },
	{ FUSE_SUPER_MAGIC, TM_FS_STACKED, "FUSE" },
	{ OVERLAYFS_SUPER_MAGIC, TM_FS_STACKED, "overlay" },
	{ ECRYPTFS_SUPER_MAGIC, TM_FS_STACKED, "eCryptfs" },
	{ MAGIC_AUFS, TM_FS_STACKED, "aufs" },
	{ SQUASHFS_MAGIC, TM_FS_IMAGE, "squashfs" },
	{ EROFS_SUPER_MAGIC_V1, TM_FS_IMAGE, "EROFS" },
	{ ISOFS_SUPER_MAGIC, TM_FS_IMAGE, "ISO 9660" },
	{ CRAMFS_MAGIC, TM_FS_IMAGE, "cramfs" },
	{ UDF_SUPER_MAGIC, TM_FS_IMAGE, "UDF" },
	{ MSDOS_SUPER_MAGIC, TM_FS_IMAGE, "FAT" },
	{ EXFAT_SUPER_MAGIC, TM_FS_IMAGE, "exFAT" },
	{ MAGIC_NTFS, TM_FS_IMAGE, "NTFS" },
	{ MAGIC_NTFS3, TM_FS_IMAGE, "NTFS" },
	{ PROC_SUPER_MAGIC, TM_FS_PSEUDO, "proc" },
	{ SYSFS_MAGIC, TM_FS_PSEUDO, "sysfs" },
	{ CGROUP2_SUPER_MAGIC, TM_FS_PSEUDO, "cgroup" },
	{ DEBUGFS_MAGIC, TM_FS_PSEUDO, "debugfs" },
	{ BTRFS_SUPER_MAGIC, TM_FS_SPARSE, "Btrfs" },
	{ MAGIC_BCACHEFS, TM_FS_SPARSE, "bcachefs" },
	{ MAGIC_ZFS, TM_FS_SPARSE, "ZFS" },
	{ F2FS_SUPER_MAGIC, TM_FS_SPARSE, "F2FS" },
	{ NILFS_SUPER_MAGIC, TM_FS_SPARSE, "NILFS2" },
};

static const struct {
	const char *why;
	const char *hint;
} verdicts[] = {
	[TM_FS_MEMORY] = { "what is in it is lost when the machine stops",
			   "choose a directory on a disk, with ext4 or XFS" },
	[TM_FS_NETWORK] = { "a pool on it could hang or lose writes with the network",
			    "choose a directory on a local disk, with ext4 or XFS" },
	[TM_FS_STACKED] = { "it gives no promise about the space below it",
			    "choose a directory that is directly on ext4 or XFS" },
	[TM_FS_IMAGE] = { "space in it cannot be allocated ahead",
			  "choose a directory on ext4 or XFS" },
	[TM_FS_PSEUDO] = { "it holds no files on a disk", "choose a directory on ext4 or XFS" },
	[TM_FS_SPARSE] = { "it writes to new places, so preallocated space is not kept for the "
			   "pool",
			   "choose a directory on ext4 or XFS, or ask for a sparse pool" },
};

enum tm_fs_verdict tm_fs_verdict(uint64_t f_type, const char **ret_name)
{
	for (size_t i = 0; i < TM_ARRAY_SIZE(file_systems); i++) {
		if (file_systems[i].magic == f_type) {
			*ret_name = file_systems[i].name;
			return file_systems[i].verdict;
		}
	}
	*ret_name = "";
	return TM_FS_FINE;
}

int tm_fs_check(uint64_t f_type, bool sparse, const char *directory, struct tm_error *err)
{
	const char *name;
	enum tm_fs_verdict verdict = tm_fs_verdict(f_type, &name);
	int r;

	if (verdict == TM_FS_FINE || (verdict == TM_FS_SPARSE && sparse))
		return 0;
	r = tm_error_set(err, TM_ERR_UNSUPPORTED, EOPNOTSUPP, "\"%.300s\" is on %s: %s", directory,
			 name, verdicts[verdict].why);
	tm_error_hint(err, "%s", verdicts[verdict].hint);
	return r;
}

static int bad_path(const char *directory, const char *why, struct tm_error *err)
{
	int r = tm_error_set(err, TM_ERR_BAD_PATH, EINVAL, "\"%.300s\" %s", directory, why);

	tm_error_hint(err, "give the absolute path of the directory, as realpath prints it");
	return r;
}

int tm_fs_check_path(const char *directory, struct tm_error *err)
{
	const char *at = directory;

	if (*at != '/')
		return bad_path(directory, "is not an absolute path", err);
	if (strlen(directory) >= TM_PATH_SIZE)
		return bad_path(directory, "is too long", err);
	if (!at[1])
		return bad_path(directory, "cannot hold a pool", err);
	while (*at) {
		size_t len = strcspn(++at, "/");

		if (len == 0)
			return bad_path(directory, "has an empty part", err);
		if ((len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
			return bad_path(directory, "has a part that is \".\" or \"..\"", err);
		at += len;
	}
	return 0;
}

uint64_t tm_backing_margin(uint64_t fs_bytes)
{
	uint64_t margin = fs_bytes / 100;

	if (margin < 16 * TM_MIB)
		return 16 * TM_MIB;
	return margin > TM_GIB ? TM_GIB : margin;
}

uint64_t tm_fs_room(uint64_t fs_bytes, uint64_t available, uint64_t promised)
{
	uint64_t taken = tm_sat_add(tm_backing_margin(fs_bytes), promised);

	return available > taken ? available - taken : 0;
}
