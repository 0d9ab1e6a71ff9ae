/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_sse_restart(struct cli_sse *s)
{
	s->line_len = 0;
	s->data_len = 0;
	s->have_data = false;
	s->after_cr = false;
	s->started = false;
	s->type[0] = '\0';
}

void cli_sse_done(struct cli_sse *s)
{
	free(s->line);
	free(s->data);
	*s = (struct cli_sse){ 0 };
}

/* Append and keep a NUL after the end, so that the buffer is a string, too. */
static int append(char **buf, size_t *len, size_t *room, const char *bytes, size_t n)
{
	if (n > CLI_SSE_LIMIT || *len + n > CLI_SSE_LIMIT)
		return -EMSGSIZE;
	if (*len + n + 1 > *room) {
		size_t want = *room ? *room * 2 : 512;
		char *bigger;

		while (want < *len + n + 1)
			want *= 2;
		bigger = realloc(*buf, want);
		if (!bigger)
			return -ENOMEM;
		*buf = bigger;
		*room = want;
	}
	if (n > 0)
		memcpy(*buf + *len, bytes, n);
	*len += n;
	(*buf)[*len] = '\0';
	return 0;
}

static int dispatch(struct cli_sse *s, cli_sse_fn fn, void *userdata)
{
	struct cli_sse_event event = {
		.id = s->id, .type = s->type, .data = s->data, .data_len = s->data_len
	};
	int r = 0;

	/* An event without data is none (a lone id still counts for the resumption). */
	if (s->have_data)
		r = fn(userdata, &event);
	s->have_data = false;
	s->data_len = 0;
	s->type[0] = '\0';
	return r;
}

static int field(struct cli_sse *s, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	size_t name_len = colon ? (size_t)(colon - line) : len;
	const char *value = colon ? colon + 1 : line + len;
	size_t value_len = colon ? len - name_len - 1 : 0;
	int r;

	if (value_len > 0 && *value == ' ') {
		value++;
		value_len--;
	}
	if (name_len == 4 && memcmp(line, "data", 4) == 0) {
		if (s->have_data) {
			r = append(&s->data, &s->data_len, &s->data_room, "\n", 1);
			if (r < 0)
				return r;
		}
		s->have_data = true;
		return append(&s->data, &s->data_len, &s->data_room, value, value_len);
	}
	if (name_len == 2 && memcmp(line, "id", 2) == 0) {
		/* What cannot be sent back in a header line is not an id. */
		if (value_len < sizeof(s->id) && !memchr(value, '\0', value_len)) {
			memcpy(s->id, value, value_len);
			s->id[value_len] = '\0';
		}
		return 0;
	}
	if (name_len == 5 && memcmp(line, "event", 5) == 0) {
		if (value_len < sizeof(s->type) && !memchr(value, '\0', value_len)) {
			memcpy(s->type, value, value_len);
			s->type[value_len] = '\0';
		}
		return 0;
	}
	return 0; /* comments (an empty name), "retry" and what is not known */
}

static int end_of_line(struct cli_sse *s, cli_sse_fn fn, void *userdata)
{
	static const char bom[] = "\xef\xbb\xbf";
	const char *line = s->line ? s->line : "";
	size_t len = s->line_len;

	s->line_len = 0;
	if (!s->started && len >= 3 && memcmp(line, bom, 3) == 0) {
		line += 3;
		len -= 3;
	}
	s->started = true;
	return len == 0 ? dispatch(s, fn, userdata) : field(s, line, len);
}

int cli_sse_feed(struct cli_sse *s, const char *bytes, size_t len, cli_sse_fn fn, void *userdata)
{
	for (size_t i = 0; i < len;) {
		size_t n = 0;
		int r;

		if (s->after_cr) {
			s->after_cr = false;
			if (bytes[i] == '\n') {
				i++;
				continue;
			}
		}
		while (i + n < len && bytes[i + n] != '\n' && bytes[i + n] != '\r')
			n++;
		r = append(&s->line, &s->line_len, &s->line_room, bytes + i, n);
		if (r < 0)
			return r;
		i += n;
		if (i == len)
			break;
		s->after_cr = bytes[i] == '\r';
		i++;
		r = end_of_line(s, fn, userdata);
		if (r != 0)
			return r;
	}
	return 0;
}
