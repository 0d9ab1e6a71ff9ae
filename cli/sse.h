/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reader of server-sent events (text/event-stream): bytes in, in pieces of any
 * size, whole events out. Pure: no I/O. Lines and events are limited, as the sender is not trusted.
 */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include <stdbool.h>
#include <stddef.h>

#define CLI_SSE_LIMIT (1024 * 1024) /* bytes of a line, and of an event's data */

struct cli_sse_event {
	const char *id;   /* the last id seen; "" for none */
	const char *type; /* "" for the default */
	const char *data; /* lines joined by \n */
	size_t data_len;
};

/* Returns 0 to go on; anything else ends cli_sse_feed with it. */
typedef int (*cli_sse_fn)(void *userdata, const struct cli_sse_event *event);

struct cli_sse {
	char *line, *data; /* owned */
	size_t line_len, line_room, data_len, data_room;
	bool have_data;
	bool after_cr; /* the next \n belongs to it */
	bool started;  /* past a byte order mark */
	char id[64];
	char type[64];
};

/* Zero-initialised is ready. Frees what it holds and is ready again, but for a new stream. */
void cli_sse_done(struct cli_sse *s);

/*
 * Forget an event cut off in the middle, keep the last id: for a new connection.
 */
void cli_sse_restart(struct cli_sse *s);

/* 0, -EMSGSIZE for a line or event over the limit, -ENOMEM, or what @fn returned. */
int cli_sse_feed(struct cli_sse *s, const char *bytes, size_t len, cli_sse_fn fn, void *userdata);

#endif
