// SPDX-License-Identifier: GPL-2.0-or-later
/* Requests: their life, their answers, and waiting without a thread. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/encode.h"
#include "api/listen.h"
#include "api/problem.h"
#include "api/request.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/utf8.h"

struct tm_request *tm_request_new(struct tm_http *http, const char *uri)
{
	struct tm_request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	request->uri = strdup(uri);
	if (!request->uri) {
		free(request);
		return NULL;
	}
	request->refs = 1;
	request->path_len = strcspn(uri, "?");
	(void)snprintf(request->instance, sizeof(request->instance), "%.*s",
		       (int)(request->path_len < sizeof(request->instance)
				     ? request->path_len
				     : sizeof(request->instance) - 1),
		       uri);
	tm_utf8_clean(request->instance);
	request->started_usec = tm_now_monotonic_usec();
	request->http = http;
	tm_http_ref(http);
	return request;
}

struct tm_request *tm_request_ref(struct tm_request *request)
{
	(void)__atomic_add_fetch(&request->refs, 1, __ATOMIC_RELAXED);
	return request;
}

struct tm_request *tm_request_unref(struct tm_request *request)
{
	if (!request || __atomic_sub_fetch(&request->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return NULL;
	tm_operation_record_done(&request->operation);
	tm_http_unref(request->http);
	free(request->body);
	free(request->uri);
	free(request);
	return NULL;
}

const char *tm_request_header(struct tm_request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

static bool add_headers(struct tm_request *request, struct MHD_Response *response)
{
	char etag[32];
	bool ok = true;

	if (request->etag_valid) {
		(void)snprintf(etag, sizeof(etag), "\"%" PRIu64 "\"", request->etag);
		ok = MHD_add_response_header(response, "ETag", etag) == MHD_YES;
	}
	if (ok && request->location[0])
		ok = MHD_add_response_header(response, "Location", request->location) == MHD_YES;
	if (ok && request->match.allow[0] &&
	    (request->match.options || request->error.code == TM_ERR_METHOD))
		ok = MHD_add_response_header(response, "Allow", request->match.allow) == MHD_YES;
	/* What is true now may be wrong in a second. */
	return ok && MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_YES &&
	       MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES;
}

static int queue(struct tm_request *request, unsigned int status, struct MHD_Response *response)
{
	int ret = MHD_NO;

	if (response && add_headers(request, response))
		ret = MHD_queue_response(request->connection, status, response);
	if (response)
		MHD_destroy_response(response);
	return ret;
}

static int answer_document(struct tm_request *request, unsigned int status, const char *type,
			   json_t *document)
{
	struct MHD_Response *response = NULL;
	char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;

	json_decref(document);
	if (text)
		response = MHD_create_response_from_buffer(strlen(text), text,
							   MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO; /* no memory: the caller sees the connection close */
	}
	if (MHD_add_response_header(response, "Content-Type", type) != MHD_YES) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	return queue(request, status, response);
}

int tm_answer_json(struct tm_request *request, unsigned int status, json_t *document)
{
	return answer_document(request, status, "application/json", document);
}

int tm_answer_error(struct tm_request *request, const struct tm_error *err)
{
	return answer_document(request, tm_error_http_status(err->code), "application/problem+json",
			       tm_problem_to_json(err, request->instance));
}

int tm_answer_failed(struct tm_request *request, const struct tm_operation_record *op)
{
	json_t *problem = tm_problem_to_json(&op->error, request->instance);

	if (problem && json_object_set_new(problem, "operation", tm_encode_operation(op)) < 0) {
		json_decref(problem);
		problem = NULL;
	}
	return answer_document(request, tm_error_http_status(op->error.code),
			       "application/problem+json", problem);
}

int tm_answer_empty(struct tm_request *request, unsigned int status)
{
	return queue(request, status,
		     MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
}

int tm_answer_stream(struct tm_request *request, struct MHD_Response *response)
{
	if (MHD_add_response_header(response, "Content-Type", "text/event-stream") != MHD_YES) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	return queue(request, MHD_HTTP_OK, response);
}

int tm_request_park_locked(struct tm_request *request)
{
	struct tm_http *http = request->http;
	const union MHD_ConnectionInfo *info;

	if (http->stopping)
		return -ESHUTDOWN;
	info = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	request->fd = info ? info->connect_fd : -1;
	request->parked = true;
	request->prev = NULL;
	request->next = http->parked;
	if (http->parked)
		http->parked->prev = request;
	http->parked = request;
	http->n_parked++;
	MHD_suspend_connection(request->connection);
	if (http->n_parked == 1)
		(void)pthread_cond_broadcast(&http->changed);
	return 0;
}

int tm_request_park(struct tm_request *request)
{
	TM_LOCK_SCOPE(&request->http->lock);
	return tm_request_park_locked(request);
}

void tm_request_wake_locked(struct tm_request *request)
{
	struct tm_http *http = request->http;

	if (!request->parked)
		return;
	request->parked = false;
	if (request->prev)
		request->prev->next = request->next;
	else
		http->parked = request->next;
	if (request->next)
		request->next->prev = request->prev;
	http->n_parked--;
	MHD_resume_connection(request->connection);
}

struct tm_store_reader *tm_readers_take(struct tm_readers *readers, struct tm_error *err)
{
	struct tm_store_reader *reader = NULL;

	{
		TM_LOCK_SCOPE(&readers->lock);
		if (readers->n_idle)
			return readers->idle[--readers->n_idle];
	}
	return tm_store_reader_new(readers->directory, &reader, err) < 0 ? NULL : reader;
}

void tm_readers_give(struct tm_readers *readers, struct tm_store_reader *reader)
{
	{
		TM_LOCK_SCOPE(&readers->lock);
		if (reader && readers->n_idle < TM_ARRAY_SIZE(readers->idle)) {
			readers->idle[readers->n_idle++] = reader;
			return;
		}
	}
	(void)tm_store_reader_free(reader);
}

void tm_readers_done(struct tm_readers *readers)
{
	TM_LOCK_SCOPE(&readers->lock);
	while (readers->n_idle)
		(void)tm_store_reader_free(readers->idle[--readers->n_idle]);
}
