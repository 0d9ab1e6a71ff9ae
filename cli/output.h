/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Printing for people. Whatever came from the daemon (or from a name on a disk) may hold
 * anything, so every function here makes its text harmless first: no control
 * character, no broken UTF-8, no text-direction trick ever reaches a terminal.
 * Colour is asked for by tone, never by escape sequences in the text.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/error.h"

enum cli_tone { CLI_PLAIN, CLI_GOOD, CLI_WARN, CLI_BAD, CLI_FAINT, CLI_STRONG };

struct cli_output {
	FILE *out, *err; /* borrowed */
	bool out_color, err_color;
	bool err_terminal;
	bool utf8; /* the locale can show it */
};

/*
 * Set up for the streams given. @color is "auto", "always" or "never"; auto is a terminal, unless
 * NO_COLOR is set to something or TERM is "dumb". 0, or -EINVAL with @err.
 */
int cli_output_init(struct cli_output *o, FILE *out, FILE *err_stream, const char *color,
		    struct tm_error *err);

/* A line on the standard output. */
void cli_say(struct cli_output *o, enum cli_tone tone, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* "label:   value" on the standard output; an empty label goes on with the one before. */
void cli_field(struct cli_output *o, const char *label, enum cli_tone tone, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* A line on the standard error, after @prefix (which may be ""; is coloured). */
void cli_complain(struct cli_output *o, enum cli_tone tone, const char *prefix, const char *fmt,
		  ...) __attribute__((format(printf, 4, 5)));
/* Bytes as they are, for --json; a missing final line end is added. */
void cli_raw(struct cli_output *o, const char *text, size_t len);

/* Flush, and tell whether everything could be written: 0 or -errno with @err. */
int cli_output_finish(struct cli_output *o, struct tm_error *err);

/* "█████░░░ 62%" (or "#####--- 62%"); "-" for an empty whole. At least 64 bytes. Returns buf. */
const char *cli_bar(const struct cli_output *o, uint64_t used, uint64_t size, char *buf,
		    size_t len);
/* How alarming that is. */
enum cli_tone cli_bar_tone(uint64_t used, uint64_t size);

/* "1.5 GiB". At least 32 bytes. Returns buf. */
const char *cli_size(uint64_t bytes, char *buf, size_t len);

/* RFC 3339 to local "2026-01-31 08:15:30"; what is not a time is copied; "-" for "". Returns buf.
 */
const char *cli_time(const char *rfc3339, char *buf, size_t len);

/* "1.2 ms", "3.4 s". Returns buf. */
const char *cli_usec(uint64_t usec, char *buf, size_t len);

/* Tables. Faults inside (no memory) are remembered and reported by cli_table_print. */
struct cli_column {
	const char *title;
	bool right; /* aligned to the right */
	bool wrap;  /* may be broken into lines on a narrow terminal */
};
struct cli_table;
int cli_table_new(struct cli_output *o, const struct cli_column *columns, size_t n,
		  struct cli_table **ret, struct tm_error *err);
struct cli_table *cli_table_free(struct cli_table *t); /* NULL in, NULL out */
void cli_table_row(struct cli_table *t);
/* The next cell of the row; "" shows as "-". */
void cli_table_cell(struct cli_table *t, enum cli_tone tone, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int cli_table_print(struct cli_table *t, struct tm_error *err);

static inline void cli_table_freep(struct cli_table **t)
{
	(void)cli_table_free(*t);
}
#define cli_auto_table __attribute__((cleanup(cli_table_freep)))

#endif
