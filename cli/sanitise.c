/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sanitise.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* The code of a character of @n bytes that is known to be valid UTF-8. */
static uint32_t code_of(const unsigned char *p, size_t n)
{
	static const unsigned char lead[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint32_t code = p[0] & lead[n];

	for (size_t i = 1; i < n; i++)
		code = code << 6 | (p[i] & 0x3fu);
	return code;
}

static bool harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0x9f) ||     /* C0, DEL, C1 */
	       c == 0x61c || c == 0x200e || c == 0x200f || /* direction marks */
	       (c >= 0x2028 && c <= 0x202e) ||             /* separators, embeddings, overrides */
	       (c >= 0x2066 && c <= 0x2069) ||             /* isolates */
	       c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

char *cli_sanitise(const char *text, size_t len, bool utf8)
{
	static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
	size_t room, n = 0;
	char *copy;

	/* A byte becomes three at most. */
	if (__builtin_mul_overflow(len, (size_t)3, &room) || room == SIZE_MAX)
		return NULL;
	copy = malloc(room + 1);
	if (!copy)
		return NULL;
	while (len > 0) {
		size_t step = tm_utf8_char(text, len);
		uint32_t code = step ? code_of((const unsigned char *)text, step) : 0;

		if (code == '\n' || code == '\r' || code == '\t') {
			copy[n++] = ' ';
		} else if (step > 0 && !harmful(code) && (utf8 || code < 0x80)) {
			memcpy(copy + n, text, step);
			n += step;
		} else if (utf8) {
			memcpy(copy + n, replacement, sizeof(replacement) - 1);
			n += sizeof(replacement) - 1;
		} else {
			copy[n++] = '?';
		}
		if (step == 0)
			step = 1;
		text += step;
		len -= step;
	}
	copy[n] = '\0';
	return copy;
}
