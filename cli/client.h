/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The HTTP client: requests to thinmgrd over its Unix socket. Knows addresses, documents
 * and problems, nothing of what they mean. One thread.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "sse.h"

/* A path and query, built piece by piece; what comes from outside is percent-encoded. */
struct cli_url {
	char text[4096];
	size_t len;
	bool query;    /* a '?' is there */
	bool overflow; /* reported by the request */
};
void cli_url_init(struct cli_url *u, const char *path);
void cli_url_add(struct cli_url *u, const char *literal);     /* "/activate" */
void cli_url_segment(struct cli_url *u, const char *segment); /* "/" and the encoded segment */
void cli_url_query(struct cli_url *u, const char *name, const char *value);
void cli_url_query_uint(struct cli_url *u, const char *name, unsigned long long value);

struct cli_response {
	long status;
	char *body; /* NUL terminated; owned */
	size_t len;
	json_t *document; /* the body, an object or array; NULL when it is empty; owned */
	bool event_stream;
};
void cli_response_done(struct cli_response *r); /* and ready to be used again */
#define cli_auto_response __attribute__((cleanup(cli_response_done)))

struct cli_client;
int cli_client_new(const char *socket, const char *user_agent, struct cli_client **ret,
		   struct tm_error *err);
struct cli_client *cli_client_free(struct cli_client *c); /* NULL in, NULL out */

/*
 * A file descriptor that ends a request with -EINTR as soon as it is readable; -1: none.
 */
void cli_client_set_interrupt(struct cli_client *c, int fd);

/*
 * cli_client_request - one request and its answer.
 *
 * @body is borrowed and may be NULL. @patience_seconds is how long the daemon may take to
 * answer. 0 with *ret filled, whatever the HTTP status; or -ECONNREFUSED (nobody answers; the
 * error is SHUTTING_DOWN), -EACCES (FORBIDDEN), -ECONNRESET (cut off), -ETIMEDOUT, -EPROTO (an
 * answer that is not thinmgrd's), -EINTR, -ENOMEM.
 */
int cli_client_request(struct cli_client *c, const char *method, const struct cli_url *url,
		       const json_t *body, unsigned int patience_seconds, struct cli_response *ret,
		       struct tm_error *err);

/*
 * cli_client_stream - GET an event stream until it ends.
 *
 * Each event goes to @fn; when that returns other than 0, so does this. @last_id is sent as
 * Last-Event-ID when it is not empty. 0: the daemon ended the stream, or (with *ret holding
 * the answer) refused it with a status that is not 200; errors as above.
 */
int cli_client_stream(struct cli_client *c, const struct cli_url *url, const char *last_id,
		      struct cli_sse *sse, cli_sse_fn fn, void *userdata, struct cli_response *ret,
		      struct tm_error *err);

/*
 * The error in a problem document. *ret_known: its type is one this program knows (else the
 * code was guessed from the status). The document's own words are kept.
 */
void cli_problem_to_error(const json_t *problem, long status, struct tm_error *err,
			  bool *ret_known);

static inline void cli_client_freep(struct cli_client **c)
{
	(void)cli_client_free(*c);
}
#define cli_auto_client __attribute__((cleanup(cli_client_freep)))

#endif
