/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The only device-mapper surface. Only dm.c includes libdevmapper.h.
 *
 * Any thread may call any of these. libdevmapper keeps a process-wide list of
 * device node operations that CREATE, RESUME, RENAME and REMOVE push to, without a lock;
 * so the calls that may be slow (resume, suspend) go straight to the control
 * device (linux/dm-ioctl.h), and those that touch that list hold one mutex.
 * Node handling is udev's: no cookies, no fallback.
 *
 * Devices are named by their dm name. Errors: the ioctl's errno, with @err saying
 * which device and request. ENXIO: there is no such device.
 */
#ifndef TM_DM_DM_H
#define TM_DM_DM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/name.h"

struct tm_dm; /* one per process */

/* -ENOENT/-ENODEV with TM_ERR_TARGET_MISSING when the kernel has no device-mapper. */
int tm_dm_new(struct tm_dm **ret, struct tm_error *err);
struct tm_dm *tm_dm_free(struct tm_dm *dm);

struct tm_dm_target {
	uint64_t start_sectors, length_sectors;
	const char *type;
	const char *params;
};

struct tm_dm_info {
	bool exists;
	unsigned int major, minor;
	int open_count;
	bool suspended, live_table, inactive_table, read_only;
	uint32_t event_nr;
	char uuid[TM_DM_UUID_SIZE];
};

enum tm_dm_udev {
	TM_DM_UDEV_HIDDEN, /* internal device: no rules but dm's own, no links */
	TM_DM_UDEV_FULL,   /* a device for users */
};

/* Create without a table. -EEXIST/-EBUSY: name or uuid taken. */
int tm_dm_create(struct tm_dm *dm, const char *name, const char *uuid, enum tm_dm_udev udev,
		 struct tm_error *err);
/* Load into the inactive slot. @read_only marks the device read-only. */
int tm_dm_load(struct tm_dm *dm, const char *name, const struct tm_dm_target *targets, size_t n,
	       bool read_only, struct tm_error *err);
/* Drop the inactive table. */
int tm_dm_clear(struct tm_dm *dm, const char *name, struct tm_error *err);

enum tm_dm_suspend_flags {
	TM_DM_NOFLUSH = 1 << 0,  /* queued I/O is kept, not waited for */
	TM_DM_NOLOCKFS = 1 << 1, /* do not freeze the file system above */
};
int tm_dm_suspend(struct tm_dm *dm, const char *name, unsigned int flags, struct tm_error *err);
/*
 * Make the inactive table live, if there is one, and resume. With an inactive table
 * the kernel suspends first by itself, with @flags. @udev says what udev is told.
 */
int tm_dm_resume(struct tm_dm *dm, const char *name, unsigned int flags, enum tm_dm_udev udev,
		 struct tm_error *err);
/* Remove; retries while -EBUSY for up to @wait_ms (udev probing). -ENXIO when it is not there. */
int tm_dm_remove(struct tm_dm *dm, const char *name, enum tm_dm_udev udev, unsigned int wait_ms,
		 struct tm_error *err);
int tm_dm_rename(struct tm_dm *dm, const char *from, const char *to, struct tm_error *err);
/* Target message at sector 0. The errno is the target's (EEXIST, ENODATA, EINVAL, EOPNOTSUPP in
 * read-only modes). */
int tm_dm_message(struct tm_dm *dm, const char *name, const char *message, struct tm_error *err);
/* One that is answered; *ret is the caller's to free. -ENODATA: there was no answer. */
int tm_dm_ask(struct tm_dm *dm, const char *name, const char *message, char **ret,
	      struct tm_error *err);

/* No error when it does not exist: ret->exists is false. */
int tm_dm_info(struct tm_dm *dm, const char *name, struct tm_dm_info *ret, struct tm_error *err);

/*
 * First target's status (@table false) or table line. Status is read without flush: a plain status
 * makes a thin pool commit. -ENODATA when no table is live. @type may be NULL.
 */
int tm_dm_line(struct tm_dm *dm, const char *name, bool table, char *type, size_t type_len,
	       uint64_t *ret_length_sectors, char *params, size_t params_len, struct tm_error *err);

struct tm_dm_entry {
	char name[TM_DM_NAME_SIZE];
	char uuid[TM_DM_UUID_SIZE]; /* "" when the kernel's list does not tell it */
	unsigned int major, minor;
	uint32_t event_nr;
	bool event_nr_valid;
};
/* All device-mapper devices in one ioctl. *ret is the caller's to free. */
int tm_dm_list(struct tm_dm *dm, struct tm_dm_entry **ret, size_t *ret_n, struct tm_error *err);

/* Version of a registered target: 0, or -ENOENT when it is not registered. */
int tm_dm_target_version(struct tm_dm *dm, const char *target, unsigned int ret_version[3],
			 struct tm_error *err);

/*
 * The event poll: a control file of its own, readable when any device's event
 * counter moved since it was armed. Arm before looking (DM_DEV_ARM_POLL, kernel 4.13).
 */
int tm_dm_poll_fd(struct tm_dm *dm);
int tm_dm_poll_arm(struct tm_dm *dm, struct tm_error *err);

#endif
