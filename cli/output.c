/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "output.h"

#include <errno.h>
#include <langinfo.h>
#include <libsmartcols/libsmartcols.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "sanitise.h"

static const struct {
	const char *sequence; /* for text of our own */
	const char *name;     /* for libsmartcols */
} tones[] = {
	[CLI_PLAIN] = { "", NULL },
	[CLI_GOOD] = { "\033[32m", "green" },
	[CLI_WARN] = { "\033[33m", "yellow" },
	[CLI_BAD] = { "\033[1;31m", "\033[1;31m" },
	[CLI_FAINT] = { "\033[2m", "\033[2m" },
	[CLI_STRONG] = { "\033[1m", "\033[1m" },
};
static const char tone_end[] = "\033[0m";

int cli_output_init(struct cli_output *o, FILE *out, FILE *err_stream, const char *color,
		    struct tm_error *err)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	bool plain = (no_color && *no_color) || (term && strcmp(term, "dumb") == 0);

	*o = (struct cli_output){ .out = out, .err = err_stream };
	o->err_terminal = isatty(fileno(err_stream)) == 1;
	o->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	if (strcmp(color, "always") == 0) {
		o->out_color = true;
		o->err_color = true;
	} else if (strcmp(color, "auto") == 0) {
		o->out_color = !plain && isatty(fileno(out)) == 1;
		o->err_color = !plain && o->err_terminal;
	} else if (strcmp(color, "never") != 0) {
		return tm_error_set(err, TM_ERR_BAD_QUERY, EINVAL,
				    "--color: '%s' is not auto, always or never", color);
	}
	return 0;
}

/* Formatted and safe; the caller's to free; NULL when out of memory. */
static char *safe_text(const struct cli_output *o, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
static char *safe_text(const struct cli_output *o, const char *fmt, va_list ap)
{
	char *text, *safe;

	if (vasprintf(&text, fmt, ap) < 0)
		return NULL;
	safe = cli_sanitise(text, strlen(text), o->utf8);
	free(text);
	return safe;
}

static void put(FILE *f, bool color, enum cli_tone tone, const char *text)
{
	/* A failed write stays in the stream's error flag; cli_output_finish reports it. */
	if (color && tone != CLI_PLAIN && *text)
		(void)fprintf(f, "%s%s%s", tones[tone].sequence, text, tone_end);
	else
		(void)fputs(text, f);
}

void cli_say(struct cli_output *o, enum cli_tone tone, const char *fmt, ...)
{
	tm_auto_free char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = safe_text(o, fmt, ap);
	va_end(ap);
	put(o->out, o->out_color, tone, text ? text : "out of memory");
	(void)fputc('\n', o->out);
}

/* Of the labels of fields, without their colon. */
#define LABEL_COLUMNS 18

void cli_field(struct cli_output *o, const char *label, enum cli_tone tone, const char *fmt, ...)
{
	tm_auto_free char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = safe_text(o, fmt, ap);
	va_end(ap);
	(void)fprintf(o->out, "%s%s%*s", label, *label ? ":" : " ",
		      (int)(strlen(label) < LABEL_COLUMNS ? LABEL_COLUMNS - strlen(label) : 1), "");
	put(o->out, o->out_color, tone, text ? (*text ? text : "-") : "out of memory");
	(void)fputc('\n', o->out);
}

void cli_complain(struct cli_output *o, enum cli_tone tone, const char *prefix, const char *fmt,
		  ...)
{
	tm_auto_free char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = safe_text(o, fmt, ap);
	va_end(ap);
	put(o->err, o->err_color, tone, prefix);
	(void)fprintf(o->err, "%s%s\n", *prefix ? " " : "", text ? text : "out of memory");
}

void cli_raw(struct cli_output *o, const char *text, size_t len)
{
	(void)fwrite(text, 1, len, o->out);
	if (len == 0 || text[len - 1] != '\n')
		(void)fputc('\n', o->out);
}

int cli_output_finish(struct cli_output *o, struct tm_error *err)
{
	int earlier = ferror(o->out);

	errno = 0;
	if (fflush(o->out) == 0 && !earlier)
		return 0;
	return tm_error_set(err, TM_ERR_IO, errno ? errno : EIO,
			    "the output could not be written: %s", strerror(errno ? errno : EIO));
}

#define BAR_CELLS 8

const char *cli_bar(const struct cli_output *o, uint64_t used, uint64_t size, char *buf, size_t len)
{
	uint64_t percent, cells;
	size_t n = 0;

	if (size == 0) {
		(void)snprintf(buf, len, "-");
		return buf;
	}
	if (used > size)
		used = size;
	/* Never "100%" with room left, never "0%" with something in it. */
	percent = tm_mul_div(used, 100, size);
	if (percent == 0 && used > 0)
		percent = 1;
	cells = tm_mul_div(percent, BAR_CELLS, 100);
	if (cells == 0 && used > 0)
		cells = 1;
	for (uint64_t i = 0; i < BAR_CELLS; i++) {
		const char *cell;

		if (o->utf8)
			cell = i < cells ? "\xe2\x96\x88" : "\xe2\x96\x91";
		else
			cell = i < cells ? "#" : "-";
		if (n + strlen(cell) < len) {
			memcpy(buf + n, cell, strlen(cell));
			n += strlen(cell);
		}
	}
	(void)snprintf(buf + n, len - n, " %2llu%%", (unsigned long long)percent);
	return buf;
}

enum cli_tone cli_bar_tone(uint64_t used, uint64_t size)
{
	uint64_t percent = size ? tm_mul_div(used, 100, size) : 0;

	/* A healthy pool that grows by itself lives between 60 and 85 percent. */
	if (percent >= 95)
		return CLI_BAD;
	return percent >= 85 ? CLI_WARN : CLI_GOOD;
}

const char *cli_size(uint64_t bytes, char *buf, size_t len)
{
	return tm_size_format(bytes, buf, len);
}

const char *cli_time(const char *rfc3339, char *buf, size_t len)
{
	uint64_t usec;
	time_t seconds;
	struct tm tm;

	if (rfc3339[0] == '\0') {
		(void)snprintf(buf, len, "-");
		return buf;
	}
	if (tm_time_parse(rfc3339, &usec) < 0)
		goto verbatim;
	seconds = (time_t)(usec / TM_USEC_PER_SEC);
	if (!localtime_r(&seconds, &tm) || strftime(buf, len, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		goto verbatim;
	return buf;

verbatim:
	(void)snprintf(buf, len, "%s", rfc3339);
	return buf;
}

const char *cli_usec(uint64_t usec, char *buf, size_t len)
{
	if (usec < TM_USEC_PER_MSEC)
		(void)snprintf(buf, len, "%llu us", (unsigned long long)usec);
	else if (usec < TM_USEC_PER_SEC)
		(void)snprintf(buf, len, "%.1f ms", (double)usec / 1e3);
	else
		(void)snprintf(buf, len, "%.1f s", (double)usec / 1e6);
	return buf;
}

struct cli_table {
	struct cli_output *output;
	struct libscols_table *scols;
	struct libscols_line *line; /* owned by scols */
	size_t column, n_columns;
	size_t n_rows;
	int failed;
};

int cli_table_new(struct cli_output *o, const struct cli_column *columns, size_t n,
		  struct cli_table **ret, struct tm_error *err)
{
	cli_auto_table struct cli_table *t = calloc(1, sizeof(*t));

	if (!t)
		goto no_memory;
	t->output = o;
	t->n_columns = n;
	t->scols = scols_new_table();
	if (!t->scols)
		goto no_memory;
	if (scols_table_set_stream(t->scols, o->out) < 0 ||
	    scols_table_enable_colors(t->scols, o->out_color) < 0)
		goto no_memory;
	if (isatty(fileno(o->out)) != 1 &&
	    scols_table_set_termforce(t->scols, SCOLS_TERMFORCE_NEVER) < 0)
		goto no_memory;
	for (size_t i = 0; i < n; i++) {
		int flags = (columns[i].right ? SCOLS_FL_RIGHT : 0) |
			    (columns[i].wrap ? SCOLS_FL_WRAP : 0);

		if (!scols_table_new_column(t->scols, columns[i].title, 0, flags))
			goto no_memory;
	}
	*ret = TM_TAKE(t);
	return 0;

no_memory:
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
}

struct cli_table *cli_table_free(struct cli_table *t)
{
	if (t) {
		scols_unref_table(t->scols);
		free(t);
	}
	return NULL;
}

void cli_table_row(struct cli_table *t)
{
	t->line = scols_table_new_line(t->scols, NULL);
	t->column = 0;
	t->n_rows++;
	if (!t->line)
		t->failed = -ENOMEM;
}

void cli_table_cell(struct cli_table *t, enum cli_tone tone, const char *fmt, ...)
{
	struct libscols_cell *cell;
	size_t column = t->column++;
	char *text;
	va_list ap;

	if (t->failed || !t->line || column >= t->n_columns)
		return;
	va_start(ap, fmt);
	text = safe_text(t->output, fmt, ap);
	va_end(ap);
	if (text && !*text) {
		free(text);
		text = strdup("-");
	}
	if (!text) {
		t->failed = -ENOMEM;
		return;
	}
	if (scols_line_refer_data(t->line, column, text) < 0) {
		free(text);
		t->failed = -ENOMEM;
		return;
	}
	cell = scols_line_get_cell(t->line, column);
	if (cell && tones[tone].name && scols_cell_set_color(cell, tones[tone].name) < 0)
		t->failed = -ENOMEM;
}

int cli_table_print(struct cli_table *t, struct tm_error *err)
{
	/* A heading alone tells nobody anything. */
	if (!t->failed && t->n_rows > 0)
		t->failed = scols_print_table(t->scols);
	if (t->failed)
		return tm_error_set(err, TM_ERR_NO_MEMORY, -t->failed,
				    "the table could not be printed: %s", strerror(-t->failed));
	return 0;
}
