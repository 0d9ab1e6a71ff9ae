/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text of others made safe to show on a terminal. Pure. */
#ifndef CLI_SANITISE_H
#define CLI_SANITISE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * cli_sanitise - a copy of @len bytes that is safe to show, the caller's to free.
 *
 * Line ends and tabs become spaces; control characters, broken UTF-8 and characters that change
 * the direction of text become U+FFFD; without @utf8 they and all of non-ASCII become '?'.
 * NULL when out of memory.
 */
char *cli_sanitise(const char *text, size_t len, bool utf8);

#endif
