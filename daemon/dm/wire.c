// SPDX-License-Identifier: GPL-2.0-or-later
#include "dm/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "common/cleanup.h"

/* More than any table of ours by far; the kernel's own limit is below INT_MAX. */
#define REQUEST_MAX  ((size_t)16 << 20)
#define RECORD_ALIGN 8

static size_t align_record(size_t n)
{
	return (n + RECORD_ALIGN - 1) & ~(size_t)(RECORD_ALIGN - 1);
}

int tm_dm_wire_header(struct dm_ioctl *io, uint32_t data_size, const char *name, uint32_t flags)
{
	memset(io, 0, sizeof(*io));
	/* The kernel refuses a minor version above its own: ask for the oldest, use what it has. */
	io->version[0] = DM_VERSION_MAJOR;
	io->data_size = data_size;
	io->data_start = sizeof(*io);
	io->flags = flags;
	if (name) {
		size_t len = strlen(name);

		if (len == 0)
			return -EINVAL;
		if (len >= sizeof(io->name))
			return -ENAMETOOLONG;
		memcpy(io->name, name, len + 1);
	}
	return 0;
}

uint32_t tm_dm_wire_suspend_flags(unsigned int flags)
{
	return (flags & TM_DM_NOFLUSH ? DM_NOFLUSH_FLAG : 0) |
	       (flags & TM_DM_NOLOCKFS ? DM_SKIP_LOCKFS_FLAG : 0);
}

uint16_t tm_dm_wire_udev_flags(enum tm_dm_udev udev)
{
	return udev == TM_DM_UDEV_HIDDEN
		       ? TM_DM_WIRE_UDEV_RELY | TM_DM_WIRE_UDEV_NO_SUBSYSTEM |
				 TM_DM_WIRE_UDEV_NO_DISK | TM_DM_WIRE_UDEV_NO_OTHER
		       : TM_DM_WIRE_UDEV_RELY;
}

uint32_t tm_dm_wire_cookie(enum tm_dm_udev udev)
{
	/* Without the last flag udev's rules take the event for a repetition and keep old
	 * properties. */
	return (uint32_t)(tm_dm_wire_udev_flags(udev) | TM_DM_WIRE_UDEV_PRIMARY)
	       << TM_DM_WIRE_UDEV_SHIFT;
}

static int check_target(const struct tm_dm_target *t, uint64_t expected_start)
{
	size_t type_len = strlen(t->type);

	if (type_len == 0 || type_len >= DM_MAX_TYPE_NAME)
		return -EINVAL;
	if (t->start_sectors != expected_start || t->length_sectors == 0)
		return -EINVAL;
	if (t->length_sectors > UINT64_MAX - t->start_sectors)
		return -EINVAL;
	return 0;
}

int tm_dm_wire_load(const char *name, const struct tm_dm_target *targets, size_t n, bool read_only,
		    struct dm_ioctl **ret)
{
	size_t size = sizeof(struct dm_ioctl);
	uint64_t next_start = 0;

	*ret = NULL;
	if (n == 0)
		return -EINVAL;
	if (n > REQUEST_MAX / sizeof(struct dm_target_spec))
		return -E2BIG;
	for (size_t i = 0; i < n; i++) {
		int r = check_target(&targets[i], next_start);

		if (r < 0)
			return r;
		next_start = targets[i].start_sectors + targets[i].length_sectors;
		size += align_record(sizeof(struct dm_target_spec) + strlen(targets[i].params) + 1);
		if (size > REQUEST_MAX)
			return -E2BIG;
	}

	struct dm_ioctl head;
	int r = tm_dm_wire_header(&head, (uint32_t)size, name, read_only ? DM_READONLY_FLAG : 0);
	if (r < 0)
		return r;
	tm_auto_free struct dm_ioctl *io = calloc(1, size);
	if (!io)
		return -ENOMEM;
	*io = head;
	io->target_count = (uint32_t)n;

	char *at = (char *)io + sizeof(*io);
	for (size_t i = 0; i < n; i++) {
		size_t params_len = strlen(targets[i].params) + 1;
		struct dm_target_spec spec = {
			.sector_start = targets[i].start_sectors,
			.length = targets[i].length_sectors,
			.next = (uint32_t)align_record(sizeof(spec) + params_len),
		};

		memcpy(spec.target_type, targets[i].type, strlen(targets[i].type));
		memcpy(at, &spec, sizeof(spec));
		memcpy(at + sizeof(spec), targets[i].params, params_len);
		at += spec.next;
	}
	*ret = TM_TAKE(io);
	return 0;
}

int tm_dm_wire_message(const char *name, const char *message, size_t answer, struct dm_ioctl **ret)
{
	size_t len = strlen(message) + 1;

	*ret = NULL;
	if (len == 1)
		return -EINVAL;
	if (len > REQUEST_MAX || answer > REQUEST_MAX)
		return -E2BIG;

	size_t size = align_record(sizeof(struct dm_ioctl) + sizeof(struct dm_target_msg) + len);
	/* The kernel puts the answer where the message was. */
	if (size < align_record(sizeof(struct dm_ioctl) + answer))
		size = align_record(sizeof(struct dm_ioctl) + answer);
	struct dm_ioctl head;
	int r = tm_dm_wire_header(&head, (uint32_t)size, name, 0);
	if (r < 0)
		return r;
	tm_auto_free struct dm_ioctl *io = calloc(1, size);
	if (!io)
		return -ENOMEM;
	*io = head;
	/* Sector 0 is there already: calloc. */
	memcpy((char *)io + sizeof(*io) + offsetof(struct dm_target_msg, message), message, len);
	*ret = TM_TAKE(io);
	return 0;
}

/* The part of the answer that holds data, as far as it lies in the buffer. */
static int payload(const struct dm_ioctl *io, size_t size, const char **ret, size_t *ret_len)
{
	size_t end = io->data_size < size ? io->data_size : size;

	if (size < sizeof(*io) || io->data_start < offsetof(struct dm_ioctl, data) ||
	    io->data_start > end)
		return -EBADMSG;
	*ret = (const char *)io + io->data_start;
	*ret_len = end - io->data_start;
	return 0;
}

/* Copy a string that must end within @len bytes. */
static int copy_string(const char *from, size_t len, char *to, size_t to_len)
{
	size_t n = strnlen(from, len);

	if (n == len)
		return -EBADMSG;
	if (n >= to_len)
		return -EMSGSIZE;
	memcpy(to, from, n + 1);
	return 0;
}

int tm_dm_wire_parse_line(const struct dm_ioctl *io, size_t size, char *type, size_t type_len,
			  uint64_t *ret_length_sectors, char *params, size_t params_len)
{
	const char *data;
	size_t len;
	struct dm_target_spec spec;
	int r;

	if (!(io->flags & DM_ACTIVE_PRESENT_FLAG) || io->target_count == 0)
		return -ENODATA;
	r = payload(io, size, &data, &len);
	if (r < 0)
		return r;
	if (len < sizeof(spec))
		return -EBADMSG;
	memcpy(&spec, data, sizeof(spec));
	if (type) {
		r = copy_string(spec.target_type, sizeof(spec.target_type), type, type_len);
		if (r < 0)
			return r;
	}
	r = copy_string(data + sizeof(spec), len - sizeof(spec), params, params_len);
	if (r < 0)
		return r;
	if (ret_length_sectors)
		*ret_length_sectors = spec.length;
	return 0;
}

int tm_dm_wire_parse_message(const struct dm_ioctl *io, size_t size, char **ret)
{
	const char *data;
	size_t len;
	int r;

	*ret = NULL;
	if (!(io->flags & DM_DATA_OUT_FLAG))
		return -ENODATA;
	r = payload(io, size, &data, &len);
	if (r < 0)
		return r;
	if (strnlen(data, len) == len)
		return -EBADMSG;
	*ret = strdup(data);
	return *ret ? 0 : -ENOMEM;
}

/* What the kernel's list tells beside the names grew with time. */
static bool version_at_least(const struct dm_ioctl *io, uint32_t minor)
{
	return io->version[0] > DM_VERSION_MAJOR ||
	       (io->version[0] == DM_VERSION_MAJOR && io->version[1] >= minor);
}

#define MINOR_EVENT_NR 37
#define MINOR_UUID     45

/* One record of the list, @len bytes from @at to the end of the answer. */
static int parse_entry(const struct dm_ioctl *io, const char *at, size_t len,
		       struct tm_dm_entry *ret, uint32_t *ret_next)
{
	struct dm_name_list head;
	const size_t head_len = offsetof(struct dm_name_list, name);
	size_t name_len, tail;
	struct {
		uint32_t event_nr, flags;
	} extra = { 0 };

	if (len < head_len)
		return -EBADMSG;
	memcpy(&head, at, head_len);
	*ret_next = head.next;
	if (head.next != 0) {
		if (head.next < head_len || head.next > len || head.next % RECORD_ALIGN != 0)
			return -EBADMSG;
		len = head.next;
	}
	name_len = strnlen(at + head_len, len - head_len);
	if (name_len == len - head_len || name_len == 0 || name_len >= sizeof(ret->name))
		return -EBADMSG;

	memset(ret, 0, sizeof(*ret));
	memcpy(ret->name, at + head_len, name_len);
	ret->major = major(head.dev);
	ret->minor = minor(head.dev);
	if (!version_at_least(io, MINOR_EVENT_NR))
		return 0;

	tail = align_record(head_len + name_len + 1);
	if (tail + sizeof(extra.event_nr) > len)
		return -EBADMSG;
	ret->event_nr_valid = true;
	if (!version_at_least(io, MINOR_UUID)) {
		memcpy(&ret->event_nr, at + tail, sizeof(ret->event_nr));
		return 0;
	}
	if (tail + sizeof(extra) > len)
		return -EBADMSG;
	memcpy(&extra, at + tail, sizeof(extra));
	ret->event_nr = extra.event_nr;
	if (!(extra.flags & DM_NAME_LIST_FLAG_HAS_UUID))
		return 0;
	tail += sizeof(extra);
	return copy_string(at + tail, len - tail, ret->uuid, sizeof(ret->uuid)) < 0 ? -EBADMSG : 0;
}

int tm_dm_wire_parse_list(const struct dm_ioctl *io, size_t size, struct tm_dm_entry **ret,
			  size_t *ret_n)
{
	tm_auto_free struct tm_dm_entry *entries = NULL;
	const char *data;
	size_t len, n = 0, room = 0, at = 0;
	uint64_t first_dev;
	uint32_t next;
	int r;

	*ret = NULL;
	*ret_n = 0;
	r = payload(io, size, &data, &len);
	if (r < 0)
		return r;
	if (len == 0)
		return 0;
	if (len < sizeof(first_dev))
		return -EBADMSG;
	memcpy(&first_dev, data, sizeof(first_dev));
	if (first_dev == 0)
		return 0;

	do {
		if (n == room) {
			/* First guess: names and uuids of ours take about 160 bytes a record. */
			room = room ? 2 * room : len / 128 + 1;
			struct tm_dm_entry *more = reallocarray(entries, room, sizeof(*more));
			if (!more)
				return -ENOMEM;
			entries = more;
		}
		r = parse_entry(io, data + at, len - at, &entries[n], &next);
		if (r < 0)
			return r;
		n++;
		at += next;
	} while (next != 0);

	*ret = TM_TAKE(entries);
	*ret_n = n;
	return 0;
}
