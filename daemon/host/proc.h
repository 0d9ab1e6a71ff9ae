/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading procfs, and directories like it. A process may end between any two of these: then they
 * say that there is nothing.
 */
#ifndef TM_HOST_PROC_H
#define TM_HOST_PROC_H

#include <dirent.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/cleanup.h"

static inline void tm_closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}
#define tm_auto_closedir tm_cleanup(tm_closedirp)

/* A process: what it calls itself, and its systemd unit ("": none). Clean text. */
struct tm_process {
	pid_t pid;
	char comm[64];
	char unit[256];
};

/* Open directory @path below @at (or AT_FDCWD). NULL with errno. */
DIR *tm_open_dir(int at, const char *path);

/*
 * The name of the next entry that does not begin with a dot, or NULL: at the end, or on an error,
 * as of a directory that went away.
 */
const char *tm_next_entry(DIR *dir);

/*
 * The numbers among the names in a directory, sorted: processes or threads. *ret is the caller's to
 * free. 0 or -ENOMEM.
 */
int tm_list_pids(DIR *dir, pid_t **ret, size_t *ret_n);

/* Where the link @name leads, as text; "" when it cannot be read or does not fit. Returns buf. */
const char *tm_read_link(int dir, const char *name, char *buf, size_t len);

/*
 * The inode number of a mount namespace, by the link @name ("ns/mnt"): 0 when there is none, as of
 * a process that ended.
 */
uint64_t tm_mount_namespace(int dir, const char *name);

/* What is known of the process whose directory is @dir; what is not, becomes "". */
void tm_process_describe(int dir, pid_t pid, struct tm_process *ret);

/* When that process began, in clock ticks since the boot; UINT64_MAX when that cannot be read. */
uint64_t tm_process_began(int dir);

/* Clock ticks since the boot. */
uint64_t tm_boot_ticks(void);

/* The id of this boot, from the procfs that is open at @proc; "" when there is none. */
void tm_boot_id(int proc, char buf[37]);

#endif
