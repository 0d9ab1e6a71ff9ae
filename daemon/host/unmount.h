/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking mounts and swap off devices for a while, and putting them back as they were. Mounts of
 * other namespaces are reached without entering them with more than a short-lived process. Nothing
 * hangs for longer than its limit. host/unit.h does the same with the help of systemd,
 * host/release.h chooses between them.
 *
 * A mount that is put back has its former options, root and kind of propagation, but is in no peer
 * group with others that it was in before: mounts that were copies of one another by propagation
 * become that again only when the one they came from is put back first.
 */
#ifndef TM_HOST_UNMOUNT_H
#define TM_HOST_UNMOUNT_H

#include "common/error.h"
#include "host/holders.h"
#include "host/mount.h"

/* Where the kernel shows what it does, and how long one thing may take. */
struct tm_host {
	const char *proc, *sys; /* "/proc", "/sys" */
	unsigned int limit_seconds;
};

/*
 * Could @m be mounted again, if it was unmounted? To be asked first. Changes nothing. 0, or
 * UNSUPPORTED: its file system runs in a program (FUSE), it lies below a directory that was
 * deleted, it maps users, or the kernel shows options that cannot be told apart.
 */
int tm_unmount_check(const struct tm_mount *m, struct tm_error *err);

/*
 * Unmount @m. Never lazily: after success it is really off. 0 as well when it is not there any
 * more, by itself or with its namespace; who has to be sure looks for holders again, also because
 * another mount may have been made meanwhile. Errors:
 *
 * BUSY         naming who has files open in it, or what is mounted below or over it
 * TIMEOUT      not within the limit, for it waits for the device; it may still happen
 * UNSUPPORTED  it is locked into a container's namespace
 * IO           any other refusal of the kernel
 */
int tm_unmount(const struct tm_mount *m, const struct tm_host *host, struct tm_error *err);

/*
 * Mount @m again. @device is what to mount, or NULL for what was mounted before: names like
 * /dev/dm-3 may stand for another device by now. 0 as well when it is mounted already, as by
 * propagation: then only its options are made what they were. And when there is nothing to do: its
 * namespace has ended, or the machine was booted since, and what is mounted then is the system's
 * affair. Errors: UNSUPPORTED as above, TIMEOUT as above, and IO with what the kernel says.
 */
int tm_mount_again(const struct tm_mount *m, const char *device, const struct tm_host *host,
		   struct tm_error *err);

/*
 * Take swap off. All that is on it has to fit into memory, and is read within the limit. 0 as well
 * when it is not in use. Errors: TIMEOUT (it goes on being used), IO, NO_MEMORY.
 */
int tm_swap_off(const struct tm_swap *swap, const struct tm_host *host, struct tm_error *err);
/*
 * Use it again, at its former priority; the kernel does not tell whether it was discarding. Its
 * device as for tm_mount_again, but a file is named by its own path. 0 as well when it is in use.
 */
int tm_swap_on(const struct tm_swap *swap, const char *device, const struct tm_host *host,
	       struct tm_error *err);

#endif
