/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The buffers of the device-mapper ioctls: built and taken apart here, without I/O, so that
 * every length and offset is tested without a kernel. What the kernel wrote is checked as if it
 * came from outside.
 */
#ifndef TM_DM_WIRE_H
#define TM_DM_WIRE_H

#include <linux/dm-ioctl.h>

#include "dm/dm.h"

/*
 * Fill the header of a request of @data_size bytes in all. 0, -ENAMETOOLONG or -EINVAL (no name).
 * @name may be NULL for requests about no device.
 */
int tm_dm_wire_header(struct dm_ioctl *io, uint32_t data_size, const char *name, uint32_t flags);

/* The kernel flags for tm_dm_suspend_flags. */
uint32_t tm_dm_wire_suspend_flags(unsigned int flags);

/* libdevmapper's DM_UDEV_* flags; dm.c checks that they are the same. */
enum {
	TM_DM_WIRE_UDEV_NO_SUBSYSTEM = 0x02,
	TM_DM_WIRE_UDEV_NO_DISK = 0x04,
	TM_DM_WIRE_UDEV_NO_OTHER = 0x08,
	TM_DM_WIRE_UDEV_RELY = 0x20,
	TM_DM_WIRE_UDEV_PRIMARY = 0x40,
	TM_DM_WIRE_UDEV_SHIFT = 16,
};

/* What udev's rules are told (DM_COOKIE): flags in the upper half, no semaphore in the lower. */
uint16_t tm_dm_wire_udev_flags(enum tm_dm_udev udev);
uint32_t tm_dm_wire_cookie(enum tm_dm_udev udev);

/*
 * A whole DM_TABLE_LOAD request. *ret is the caller's to free.
 * 0, -ENOMEM, -EINVAL (no target, a type too long, gaps), -E2BIG, -ENAMETOOLONG.
 */
int tm_dm_wire_load(const char *name, const struct tm_dm_target *targets, size_t n, bool read_only,
		    struct dm_ioctl **ret);

/* A whole DM_TARGET_MSG request for sector 0, the same way, with room for an answer of @answer
 * bytes.
 */
int tm_dm_wire_message(const char *name, const char *message, size_t answer, struct dm_ioctl **ret);

/*
 * What a message was answered with, in an answer of at most @size bytes. *ret is the caller's to
 * free. 0, -ENODATA when it was not answered, -ENOMEM, -EBADMSG when it makes no sense.
 */
int tm_dm_wire_parse_message(const struct dm_ioctl *io, size_t size, char **ret);

/*
 * The first target of a DM_TABLE_STATUS answer of at most @size bytes. 0, -ENODATA when no table is
 * live, -EMSGSIZE when @type or @params is too small, -EBADMSG when it makes no sense.
 */
int tm_dm_wire_parse_line(const struct dm_ioctl *io, size_t size, char *type, size_t type_len,
			  uint64_t *ret_length_sectors, char *params, size_t params_len);

/* A DM_LIST_DEVICES answer. *ret is the caller's to free, NULL when empty. 0, -ENOMEM, -EBADMSG. */
int tm_dm_wire_parse_list(const struct dm_ioctl *io, size_t size, struct tm_dm_entry **ret,
			  size_t *ret_n);

#endif
