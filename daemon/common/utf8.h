/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text from outside has to be UTF-8 before it goes into JSON, D-Bus or the journal. */
#ifndef TM_COMMON_UTF8_H
#define TM_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character at @s, of which @len are there: 1..4, or 0 when it is not valid UTF-8. */
size_t tm_utf8_char(const char *s, size_t len);

/* Is @s valid UTF-8 throughout? */
bool tm_utf8_valid(const char *s);

/* Replace control characters with a space, and bytes that are not UTF-8 with '?', in place. */
void tm_utf8_clean(char *s);

#endif
