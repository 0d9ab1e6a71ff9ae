/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One request, from its first byte to its answer; only daemon/api/ includes this.
 *
 * A request is used by one thread at a time: libmicrohttpd's, or, while it is parked, whoever holds
 * the server's lock. It is reference counted: libmicrohttpd holds one reference until the request
 * is completed, a callback of the core one until it was called, whichever is last. So a caller who
 * hangs up, or a server that stops, leaves nothing dangling.
 */
#ifndef TM_API_REQUEST_H
#define TM_API_REQUEST_H

#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>

#include "api/http-server.h"
#include "api/query.h"
#include "api/router.h"
#include "core/core.h"

struct tm_stream;

struct tm_request {
	int refs;             /* atomic */
	struct tm_http *http; /* a reference */
	struct MHD_Connection *connection;
	char *uri; /* as it came */
	size_t path_len;
	char instance[128];    /* the path for problems, printable */
	uint64_t started_usec; /* monotonic */
	bool begun, refused;   /* headers were looked at; an error waits to be answered */
	bool secure_origin;    /* by Unix socket */
	enum tm_permission permission;
	struct tm_error error;
	struct tm_match match;
	struct tm_url_query query;
	char *body;
	size_t body_len, body_size, body_seen;

	/* headers of the answer */
	bool etag_valid;
	uint64_t etag;
	char location[64];

	/* parking; under the server's lock */
	bool parked, finished; /* finished: what was waited for has come */
	int fd;                /* of the connection, valid while parked */
	struct tm_request *prev, *next;
	int (*resume)(struct tm_request *request); /* runs on libmicrohttpd's thread afterwards */
	struct tm_stream *stream; /* parked with nothing to say; NULL: another wait */

	/* a change: what the core said */
	uint64_t wait_usec;
	bool dry_run, have_operation;
	struct tm_operation_record operation;
};

/* Readers of the database, one for a thread at a time. */
struct tm_readers {
	const char *directory;
	pthread_mutex_t lock;
	struct tm_store_reader *idle[4];
	size_t n_idle;
};

struct tm_http {
	int refs; /* atomic: the owner and each request */
	struct tm_core *core;
	struct tm_http_config config;
	struct tm_groups *groups;
	char *socket_path;
	struct MHD_Daemon *unix_daemon, *tcp_daemon;
	struct tm_listener *listener;
	struct tm_readers readers;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* something was parked, or we stop, or the last request is done */
	bool stopping;
	uint64_t last_seq; /* newest committed event */
	struct tm_request *parked;
	size_t n_parked, n_streams, n_requests;
	bool keeper_running;
	pthread_t keeper;
};

struct tm_request *tm_request_new(struct tm_http *http, const char *uri);
struct tm_request *tm_request_ref(struct tm_request *request);
struct tm_request *tm_request_unref(struct tm_request *request); /* NULL in, NULL out */
void tm_http_ref(struct tm_http *http);
void tm_http_unref(struct tm_http *http);

/* Answers: each queues a response and returns what libmicrohttpd is to be told. */
int tm_answer_json(struct tm_request *request, unsigned int status, json_t *document /* taken */);
int tm_answer_error(struct tm_request *request, const struct tm_error *err);
/* The problem of a failed operation, with the operation in it. */
int tm_answer_failed(struct tm_request *request, const struct tm_operation_record *op);
int tm_answer_empty(struct tm_request *request, unsigned int status);
int tm_answer_stream(struct tm_request *request, struct MHD_Response *response /* taken */);

/*
 * Suspend the connection until tm_request_wake; request->resume runs then. Returns 0, or
 * -ESHUTDOWN when the server stops (nothing is suspended then). The _locked forms: the server's
 * lock is held.
 */
int tm_request_park(struct tm_request *request);
int tm_request_park_locked(struct tm_request *request);
/* End the parking, if it is parked. */
void tm_request_wake_locked(struct tm_request *request);

/* A reader from the pool; give it back. NULL with @err. */
struct tm_store_reader *tm_readers_take(struct tm_readers *readers, struct tm_error *err);
void tm_readers_give(struct tm_readers *readers, struct tm_store_reader *reader);
void tm_readers_done(struct tm_readers *readers);

/* A header's value, or NULL. */
const char *tm_request_header(struct tm_request *request, const char *name);

#endif
