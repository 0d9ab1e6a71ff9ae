// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/mountinfo.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "common/utf8.h"

/* What systemd allows, with the final NUL. */
#define UNIT_NAME_SIZE 256

/* No more than @max. */
static bool take_number(const char **at, uint64_t max, uint64_t *ret)
{
	return tm_take_number(at, ret) && *ret <= max;
}

static bool whole_number(const char *text, uint64_t max, uint64_t *ret)
{
	return take_number(&text, max, ret) && !*text;
}

/* ---- escapes -------------------------------------------------------------------------------- */

static bool octal(char c)
{
	return c >= '0' && c <= '7';
}

void tm_mount_unescape(char *text)
{
	char *to = text;

	while (*text) {
		/* The first digit of a byte is at most 3; a NUL cannot be in a path. */
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && octal(text[2]) &&
		    octal(text[3]) && (text[1] != '0' || text[2] != '0' || text[3] != '0')) {
			*to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 +
				       (text[3] - '0'));
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

int tm_mount_escape(const char *text, char *buf, size_t len)
{
	size_t at = 0, left = strlen(text);

	while (left) {
		const unsigned char c = (unsigned char)*text;
		size_t n = tm_utf8_char(text, left);

		if (n == 0 || c < ' ' || c == 0x7f || c == '\\') {
			if (at + 4 >= len)
				return -ENOSPC;
			(void)snprintf(buf + at, len - at, "\\%03o", (unsigned int)c);
			at += 4;
			n = 1;
		} else {
			if (at + n >= len)
				return -ENOSPC;
			memcpy(buf + at, text, n);
			at += n;
		}
		text += n;
		left -= n;
	}
	if (at >= len)
		return -ENOSPC;
	buf[at] = '\0';
	return 0;
}

/* ---- mountinfo ------------------------------------------------------------------------------ */

/* Cut the next word off, which may be empty: single spaces lie between them. NULL after the last.
 */
static char *next_field(char **at)
{
	char *field = *at, *space;

	if (!field)
		return NULL;
	space = strchr(field, ' ');
	if (space)
		*space++ = '\0';
	*at = space;
	return field;
}

static bool optional_field(const char *field, struct tm_mount_line *m)
{
	if (!strncmp(field, "shared:", 7))
		return whole_number(field + 7, UINT64_MAX, &m->shared);
	if (!strncmp(field, "master:", 7))
		return whole_number(field + 7, UINT64_MAX, &m->master);
	if (!strcmp(field, "unbindable"))
		m->unbindable = true;
	return true;
}

static bool device_field(const char *field, struct tm_mount_line *m)
{
	uint64_t major, minor;

	if (!take_number(&field, UINT_MAX, &major) || *field++ != ':' ||
	    !whole_number(field, UINT_MAX, &minor))
		return false;
	m->major = (unsigned int)major;
	m->minor = (unsigned int)minor;
	return true;
}

int tm_mountinfo_parse(char *line, struct tm_mount_line *ret)
{
	enum { ID, PARENT, DEVICE, ROOT, POINT, OPTIONS, FIXED };
	struct tm_mount_line m = { 0 };
	char *at = line, *field[FIXED], *type, *source, *super_options;

	for (size_t i = 0; i < FIXED; i++) {
		field[i] = next_field(&at);
		if (!field[i])
			return -EINVAL;
	}
	if (!whole_number(field[ID], UINT64_MAX, &m.id) ||
	    !whole_number(field[PARENT], UINT64_MAX, &m.parent) ||
	    !device_field(field[DEVICE], &m) || field[POINT][0] != '/')
		return -EINVAL;
	for (;;) {
		const char *optional = next_field(&at);

		if (!optional)
			return -EINVAL;
		if (!strcmp(optional, "-"))
			break;
		if (!optional_field(optional, &m))
			return -EINVAL;
	}
	type = next_field(&at);
	source = next_field(&at);
	super_options = next_field(&at);
	if (!type || !type[0] || !source || !super_options || at)
		return -EINVAL;
	tm_mount_unescape(field[ROOT]);
	tm_mount_unescape(field[POINT]);
	tm_mount_unescape(field[OPTIONS]);
	tm_mount_unescape(type);
	tm_mount_unescape(source);
	tm_mount_unescape(super_options);
	m.root = field[ROOT];
	m.point = field[POINT];
	m.options = field[OPTIONS];
	m.type = type;
	m.source = source;
	m.super_options = super_options;
	*ret = m;
	return 0;
}

char *tm_mount_next_option(char **at, char **ret_value)
{
	char *option = *at, *comma, *value;

	while (option && *option == ',')
		option++;
	if (!option || !*option) {
		*at = NULL;
		return NULL;
	}
	comma = strchr(option, ',');
	if (comma)
		*comma++ = '\0';
	*at = comma;
	value = strchr(option, '=');
	if (value)
		*value++ = '\0';
	*ret_value = value;
	return option;
}

/* ---- swaps ---------------------------------------------------------------------------------- */

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Cut the next word off; the kernel lines columns up with any number of spaces and tabs. */
static char *next_column(char **at)
{
	char *start = *at;

	while (blank(*start))
		start++;
	*at = start;
	while (**at && !blank(**at))
		(*at)++;
	if (**at)
		*(*at)++ = '\0';
	return start;
}

int tm_swaps_parse(char *line, struct tm_swap_line *ret)
{
	struct tm_swap_line s = { 0 };
	char *path = next_column(&line);
	const char *type = next_column(&line), *kib = next_column(&line);
	const char *used = next_column(&line), *priority = next_column(&line);
	uint64_t value;
	bool negative;

	s.is_file = !strcmp(type, "file");
	if (path[0] != '/' || (!s.is_file && strcmp(type, "partition") != 0) ||
	    !whole_number(kib, UINT64_MAX, &s.kib) || !whole_number(used, UINT64_MAX, &s.used_kib))
		return -EINVAL;
	negative = priority[0] == '-';
	if (!whole_number(priority + negative, INT_MAX, &value) || *next_column(&line))
		return -EINVAL;
	s.priority = negative ? -(int)value : (int)value;
	tm_mount_unescape(path);
	s.path = path;
	*ret = s;
	return 0;
}

/* ---- systemd's names ------------------------------------------------------------------------ */

static bool ends_with(const char *text, size_t len, const char *suffix)
{
	const size_t n = strlen(suffix);

	return len > n && !memcmp(text + len - n, suffix, n);
}

static bool is_unit(const char *name, size_t len)
{
	static const char *const kinds[] = { ".service", ".scope", ".mount", ".socket", ".swap" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(kinds); i++)
		if (ends_with(name, len, kinds[i]))
			return true;
	return false;
}

/* The path of a line that systemd keeps ("0::/a" or "1:name=systemd:/a"), or NULL. */
static const char *systemd_path(const char *line, size_t len)
{
	static const char *const prefixes[] = { "0::", "name=systemd:" };
	const char *colon = memchr(line, ':', len);

	if (len > 3 && !memcmp(line, prefixes[0], 3))
		return line + 3;
	if (!colon)
		return NULL;
	colon++;
	len -= (size_t)(colon - line);
	return len > 13 && !memcmp(colon, prefixes[1], 13) ? colon + 13 : NULL;
}

void tm_cgroup_unit(const char *text, char *buf, size_t len)
{
	if (len)
		buf[0] = '\0';
	while (*text) {
		const char *end = text + strcspn(text, "\n");
		const char *at = systemd_path(text, (size_t)(end - text));

		while (at && at < end) {
			size_t n = strcspn(at, "/\n");
			/* An underscore keeps names apart from the kernel's own. */
			const size_t skip = n && *at == '_';

			if (is_unit(at + skip, n - skip)) {
				if (n - skip >= len)
					return;
				memcpy(buf, at + skip, n - skip);
				buf[n - skip] = '\0';
				tm_utf8_clean(buf);
				return;
			}
			at += n;
			if (at < end)
				at++;
		}
		text = *end ? end + 1 : end;
	}
}

static bool unit_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == ':' || c == '_' || c == '.';
}

int tm_unit_name(const char *path, const char *suffix, char *buf, size_t len)
{
	const size_t size = len < UNIT_NAME_SIZE ? len : UNIT_NAME_SIZE;
	size_t at = 0;

	if (path[0] != '/')
		return -EINVAL;
	path += strspn(path, "/");
	/* Room for what one character may become, and the end. */
	for (bool first = true; *path; first = false) {
		const size_t slashes = strspn(path, "/");

		if (at + 5 > size)
			return -ENAMETOOLONG;
		if (slashes) {
			path += slashes;
			if (*path)
				buf[at++] = '-';
			continue;
		}
		if (unit_char(*path) && !(first && *path == '.')) {
			buf[at++] = *path;
		} else {
			(void)snprintf(buf + at, size - at, "\\x%02x", (unsigned char)*path);
			at += 4;
		}
		path++;
	}
	if (at == 0 && size > 1)
		buf[at++] = '-';
	if (at + strlen(suffix) + 1 > size)
		return -ENAMETOOLONG;
	memcpy(buf + at, suffix, strlen(suffix) + 1);
	return 0;
}
