// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/utf8.h"

#include <stdint.h>
#include <string.h>

size_t tm_utf8_char(const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *)s;
	/* The smallest code point that needs 2, 3, 4 bytes: anything lower is overlong. */
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t code;
	size_t n, i;

	if (!len)
		return 0;
	if (u[0] < 0x80)
		return 1;
	if ((u[0] & 0xe0) == 0xc0) {
		n = 2;
		code = u[0] & 0x1f;
	} else if ((u[0] & 0xf0) == 0xe0) {
		n = 3;
		code = u[0] & 0x0f;
	} else if ((u[0] & 0xf8) == 0xf0) {
		n = 4;
		code = u[0] & 0x07;
	} else {
		return 0;
	}
	if (len < n)
		return 0;
	for (i = 1; i < n; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (u[i] & 0x3f);
	}
	if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return n;
}

bool tm_utf8_valid(const char *s)
{
	size_t len = strlen(s), n;

	for (; len; s += n, len -= n) {
		n = tm_utf8_char(s, len);
		if (!n)
			return false;
	}
	return true;
}

void tm_utf8_clean(char *s)
{
	size_t len = strlen(s), n;

	while (len) {
		n = tm_utf8_char(s, len);
		if (!n) {
			*s = '?';
			n = 1;
		} else if ((unsigned char)*s < 0x20 || *s == 0x7f) {
			*s = ' ';
		}
		s += n;
		len -= n;
	}
}
