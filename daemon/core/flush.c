/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing out what is dirty above a volume. */

#include <fcntl.h>
#include <libmount/libmount.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "core/internal.h"

void tm_flush_mounted(unsigned int major, unsigned int minor)
{
	struct libmnt_table *table = mnt_new_table_from_file("/proc/self/mountinfo");
	struct libmnt_fs *fs;

	if (!table)
		return;
	/* One mount is enough: they share the file system. */
	fs = mnt_table_find_devno(table, makedev(major, minor), MNT_ITER_BACKWARD);
	if (fs) {
		tm_auto_close int fd = open(mnt_fs_get_target(fs),
					    O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0)
			(void)syncfs(fd); /* what remains is flushed by the freeze, which tells of
					     errors */
	}
	mnt_unref_table(table);
}

uint64_t tm_dirty_bytes(void)
{
	tm_auto_fclose FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib, sum = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Dirty: %llu kB", &kib) == 1 ||
		    sscanf(line, "Writeback: %llu kB", &kib) == 1)
			sum += kib;
	return sum * TM_KIB;
}
