/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The REST interface, for main(): libmicrohttpd on a Unix socket, and on loopback TCP if asked.
 *
 * Requests run on libmicrohttpd's threads. Long waits and event streams suspend their connection
 * and hold no thread. While any is suspended, one thread more looks after them (heartbeats, callers
 * that have gone); when none is, nothing in here wakes up.
 */
#ifndef TM_API_HTTP_SERVER_H
#define TM_API_HTTP_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "api/router.h"
#include "core/core.h"

struct tm_http;

struct tm_http_config {
	const char *socket_path; /* NULL: no Unix socket */
	const char *admin_group; /* NULL: "thinmgr" */
	const char *view_group;  /* NULL: "thinmgr-view" */
	uint16_t tcp_port;       /* on 127.0.0.1; 0: none. Whoever is on this machine can connect */
	enum tm_permission tcp_permission; /* what a caller by TCP may do */
	/* 0 in any of these: the default */
	unsigned int threads;           /* 2 */
	unsigned int max_connections;   /* 256 */
	unsigned int max_streams;       /* 64 */
	size_t body_limit;              /* 256 KiB */
	unsigned int idle_seconds;      /* 30: a connection on which nothing moves is closed */
	unsigned int receive_seconds;   /* 60: a body has to be there by then */
	unsigned int heartbeat_seconds; /* 15: a comment on a quiet stream */
};

/*
 * tm_http_new - listen and serve. On the main loop; @core must outlive the server.
 *
 * A group that does not exist lets nobody in. The socket is replaced when a dead one is there;
 * -EADDRINUSE when another process listens on it. Errors: IO, STORE, NO_MEMORY.
 */
int tm_http_new(struct tm_core *core, const struct tm_http_config *cfg, struct tm_http **ret,
		struct tm_error *err);

/*
 * Stop listening, answer what is suspended, end the streams, and stop. On the main loop. Callbacks
 * of the core that are still to come find nothing and are harmless. NULL in, NULL out.
 */
struct tm_http *tm_http_free(struct tm_http *http);

#endif
