/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who holds block devices: mounts in every mount namespace, swap, programs that have the device
 * open, and devices that stand on it (with all that holds those).
 *
 * Not seen, because the kernel tells nobody: what uses a device from within the kernel without
 * saying so in sysfs (a disk that is exported by iSCSI, say), memory mapped from a device that was
 * closed since, descriptors on their way through a socket, and mounts of a namespace that no
 * process is in, and that only a file or a descriptor keeps. A loop device on a file in a mounted
 * file system is not followed: the mount is the holder. The daemon itself is
 * left out.
 *
 * Everything changes while it is looked at. What ended or was unmounted meanwhile is not told of,
 * and no error.
 */
#ifndef TM_HOST_HOLDERS_H
#define TM_HOST_HOLDERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "host/mount.h"
#include "host/proc.h"

/* No more are told of; who has that many has a problem that a list does not solve. */
#define TM_HOLDERS_MAX 4096

enum tm_holder_kind { TM_HOLDER_MOUNT, TM_HOLDER_SWAP, TM_HOLDER_PROCESS, TM_HOLDER_DEVICE };

struct tm_swap {
	char *path; /* as the kernel knows it */
	bool is_file;
	int priority;
};

struct tm_holder {
	enum tm_holder_kind kind;
	size_t device;     /* which of the devices asked for is held */
	dev_t held;        /* through this one: itself, or one that stands on it */
	char through[128]; /* its name, when it stands on it; "" */
	char *text;        /* for people: "mounted at /srv/a", "open in process 4711 (dd)" */
	struct tm_process process; /* PROCESS; MOUNT in another namespace: one that is in it */
	struct tm_mount mount;     /* MOUNT */
	struct tm_swap swap;       /* SWAP */
	char name[128];            /* DEVICE: its device-mapper name, "md0", or what else it is */
};

struct tm_holders {
	/* Mounts: the daemon's namespace first, and each after those it lies in. Then swap,
	 * processes, devices. */
	struct tm_holder *list;
	size_t n, room;
	bool cut;      /* there are more */
	size_t unseen; /* processes of which something could not be read for want of rights */
};

/*
 * Find all holders of the @n @devices. @proc and @sys are where procfs and sysfs are mounted
 * ("/proc", "/sys"). May block: it reads from thousands of files, though none outside of procfs,
 * sysfs and /dev but swap files. A btrfs is found by all its devices.
 *
 * 0 with *ret for tm_holders_done, which holds nothing after an error: IO (procfs or sysfs cannot
 * be read: then nothing is known, which is not the same as no holders), NO_MEMORY.
 */
int tm_holders_find(const dev_t *devices, size_t n, const char *proc, const char *sys,
		    struct tm_holders *ret, struct tm_error *err);
void tm_holders_done(struct tm_holders *h);

/* Leave out those of which @which says so; the others stay in their order. */
void tm_holders_leave_out(struct tm_holders *h, bool (*which)(const struct tm_holder *holder));

/*
 * An array of objects, each with all of kind, text, device ("253:3", the one asked for), through,
 * mount_point, file_system, options, namespace, path, name, pid, comm and unit; null where there is
 * nothing to say. Clean UTF-8, made for people and their programs: a path in it that was cleaned is
 * not the path any more. New reference, or NULL when out of memory.
 */
json_t *tm_holders_json(const struct tm_holders *h, const dev_t *devices);

#endif
