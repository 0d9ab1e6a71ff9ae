// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lines of mountinfo, swaps and cgroup, each after its own first byte ('m', 's', 'c'; what is none
 * of them is a path, for escapes and units' names). What points into a line has to lie in it, and
 * what was escaped to come back the same.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "logic/mountinfo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A string that lies within @line; and there and back again. */
static void check_text(const char *text, const char *line, size_t size)
{
	const size_t room = 4 * strlen(text) + 1;
	char *buf;

	assert(text >= line && text + strlen(text) <= line + size);
	buf = malloc(room);
	assert(buf && tm_mount_escape(text, buf, room) == 0 && tm_utf8_valid(buf));
	for (const char *c = buf; *c; c++)
		assert((unsigned char)*c >= ' ' && *c != 0x7f);
	assert(tm_mount_escape(text, buf, strlen(buf)) < 0);
	assert(tm_mount_escape(text, buf, room) == 0);
	tm_mount_unescape(buf);
	assert(!strcmp(buf, text));
	free(buf);
}

static void check_options(char *options)
{
	const char *end = options + strlen(options);
	char *at = options, *value;

	for (char *name; (name = tm_mount_next_option(&at, &value)) != NULL;) {
		assert(name >= options && name < end && !strchr(name, ',') && !strchr(name, '='));
		assert(!value || (value > name && value <= end && !strchr(value, ',')));
	}
}

static void check_mount(char *line, size_t size)
{
	struct tm_mount_line m;

	if (tm_mountinfo_parse(line, &m) < 0)
		return;
	check_text(m.root, line, size);
	check_text(m.point, line, size);
	check_text(m.options, line, size);
	check_text(m.type, line, size);
	check_text(m.source, line, size);
	check_text(m.super_options, line, size);
	assert(m.point[0] == '/');
	check_options(line + (m.super_options - line));
}

static void check_swap(char *line, size_t size)
{
	struct tm_swap_line s;

	if (tm_swaps_parse(line, &s) == 0)
		check_text(s.path, line, size);
}

static void check_unit(const char *text, size_t room)
{
	char *buf = malloc(room ? room : 1);

	assert(buf);
	tm_cgroup_unit(text, buf, room);
	assert(!room || (strlen(buf) < room && tm_utf8_valid(buf) && !strchr(buf, '/')));
	free(buf);
}

static void check_path(char *text, size_t size)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789:_.-\\";

	for (size_t room = 1; room < 300; room += 37) {
		char *buf = malloc(room);

		assert(buf);
		if (tm_unit_name(text, ".mount", buf, room) == 0)
			assert(strlen(buf) < 256 && strspn(buf, plain) == strlen(buf));
		free(buf);
	}
	tm_mount_unescape(text);
	check_text(text, text, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line;

	if (!size)
		return 0;
	/* Exactly as large as the text, so that reading past it is seen. */
	line = malloc(size);
	if (!line)
		return 0;
	memcpy(line, data + 1, size - 1);
	line[size - 1] = '\0';
	switch (data[0]) {
	case 'm':
		check_mount(line, size);
		break;
	case 's':
		check_swap(line, size);
		break;
	case 'c':
		for (size_t room = 0; room < 40; room += 13)
			check_unit(line, room);
		check_unit(line, 256);
		break;
	default:
		check_path(line, size);
	}
	free(line);
	return 0;
}
