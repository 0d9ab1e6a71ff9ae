// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's answers, as they might be damaged. The first byte is the driver's minor version, the
 * rest the payload. Nothing may be read or written out of bounds, and what is accepted is sane:
 * strings that end, names that are not empty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "dm/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void list(const struct dm_ioctl *io, size_t size)
{
	tm_auto_free struct tm_dm_entry *entries = NULL;
	size_t n = 0;
	int r = tm_dm_wire_parse_list(io, size, &entries, &n);

	require(r == 0 || r == -EBADMSG);
	require(r == 0 || (!entries && n == 0));
	require((n == 0) == (entries == NULL));
	for (size_t i = 0; i < n; i++) {
		size_t len = strnlen(entries[i].name, sizeof(entries[i].name));

		require(len > 0 && len < sizeof(entries[i].name));
		require(memchr(entries[i].uuid, '\0', sizeof(entries[i].uuid)) != NULL);
		require(entries[i].event_nr_valid == (io->version[1] >= 37));
	}
}

static void line(const struct dm_ioctl *io, size_t size)
{
	char type[16], params[32];
	uint64_t sectors;
	int r = tm_dm_wire_parse_line(io, size, type, sizeof(type), &sectors, params,
				      sizeof(params));

	require(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
	if (r == 0)
		require(memchr(type, '\0', sizeof(type)) && memchr(params, '\0', sizeof(params)));
}

static void message(struct dm_ioctl *io, size_t size)
{
	tm_auto_free char *text = NULL;
	int r;

	require(tm_dm_wire_parse_message(io, size, &text) == -ENODATA && !text);
	io->flags |= DM_DATA_OUT_FLAG;
	r = tm_dm_wire_parse_message(io, size, &text);
	require(r == 0 || r == -EBADMSG);
	require((r == 0) == (text != NULL));
	if (r == 0)
		require(strlen(text) < size - sizeof(*io));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;

	/* Exactly as large as it says, so that the sanitizer sees the first byte too many. */
	size_t total = sizeof(struct dm_ioctl) + size - 1;
	tm_auto_free struct dm_ioctl *io = malloc(total);
	if (!io)
		return 0;
	require(tm_dm_wire_header(io, (uint32_t)total, NULL, DM_ACTIVE_PRESENT_FLAG) == 0);
	io->version[1] = data[0];
	io->target_count = 1;
	memcpy((char *)io + sizeof(*io), data + 1, size - 1);
	list(io, total);
	line(io, total);
	message(io, total);
	return 0;
}
