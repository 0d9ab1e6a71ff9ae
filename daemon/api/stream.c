// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Streams of events. The core only says up to which number events are committed; the events
 * themselves are read from the database after the last number sent. So a stream cannot miss one,
 * however slow its reader is or how long it was away, and a slow one holds no more than a batch.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/encode.h"
#include "api/stream.h"
#include "common/cleanup.h"
#include "common/fsutil.h"

#define BATCH 64

struct tm_stream {
	struct tm_request *request;    /* a reference */
	struct tm_event_filter filter; /* after_seq: up to where it was sent */
	struct tm_uuid pool;
	char *text; /* to be sent */
	size_t len, sent;
	/* under the server's lock */
	uint64_t sent_usec;
	bool heartbeat;
};

bool tm_stream_heartbeat_due(struct tm_stream *stream, uint64_t now_usec, uint64_t beat_usec)
{
	if (now_usec - stream->sent_usec < beat_usec)
		return false;
	stream->heartbeat = true;
	return true;
}

static int set_text(struct tm_stream *stream, const char *text)
{
	free(stream->text);
	stream->text = strdup(text);
	stream->len = stream->text ? strlen(stream->text) : 0;
	stream->sent = 0;
	return stream->text ? 0 : -ENOMEM;
}

static int print_event(FILE *out, const struct tm_event *event)
{
	json_t *document = tm_encode_event(event);
	tm_auto_free char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;

	json_decref(document);
	if (!text)
		return -ENOMEM;
	if (fprintf(out, "id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", event->seq,
		    tm_event_slug(event->type), text) < 0)
		return -ENOMEM;
	return 0;
}

/* Read the next events; @known: those up to it are committed. */
static int fill(struct tm_stream *stream, uint64_t known)
{
	struct tm_readers *readers = &stream->request->http->readers;
	struct tm_store_reader *reader;
	struct tm_event *events = NULL;
	FILE *out;
	size_t n = 0;
	int r;

	free(stream->text);
	stream->text = NULL;
	stream->len = 0;
	stream->sent = 0;
	reader = tm_readers_take(readers, NULL);
	if (!reader)
		return -EIO;
	r = tm_store_read_events(reader, &stream->filter, &events, &n, NULL);
	tm_readers_give(readers, reader);
	if (r < 0)
		return r;

	out = open_memstream(&stream->text, &stream->len);
	if (!out)
		r = -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = print_event(out, &events[i]);
		if (r == 0)
			stream->filter.after_seq = events[i].seq;
		tm_event_done(&events[i]);
	}
	free(events);
	if (out && fclose(out) != 0)
		r = -ENOMEM;
	/* Nothing is left: what the filter leaves out need not be looked at again. */
	if (r == 0 && n == 0 && stream->filter.after_seq < known)
		stream->filter.after_seq = known;
	return r;
}

static ssize_t copy(struct tm_stream *stream, char *buf, size_t max)
{
	size_t len = stream->len - stream->sent;

	if (len > max)
		len = max;
	memcpy(buf, stream->text + stream->sent, len);
	stream->sent += len;
	TM_LOCK_SCOPE(&stream->request->http->lock);
	stream->sent_usec = tm_now_monotonic_usec();
	stream->heartbeat = false;
	return (ssize_t)len;
}

/* libmicrohttpd wants bytes. 0 after the connection was suspended. */
static ssize_t on_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct tm_stream *stream = cls;
	struct tm_http *http = stream->request->http;

	(void)pos;
	for (;;) {
		uint64_t known;

		if (stream->sent < stream->len)
			return copy(stream, buf, max);
		{
			TM_LOCK_SCOPE(&http->lock);
			if (http->stopping)
				return MHD_CONTENT_READER_END_OF_STREAM;
			known = http->last_seq;
			if (stream->filter.after_seq >= known) {
				if (!stream->heartbeat)
					return tm_request_park_locked(stream->request) < 0
						       ? MHD_CONTENT_READER_END_OF_STREAM
						       : 0;
				stream->heartbeat = false;
				if (set_text(stream, ": nothing new\n\n") < 0)
					return MHD_CONTENT_READER_END_WITH_ERROR;
				continue;
			}
		}
		if (fill(stream, known) < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
	}
}

static void stream_free(void *cls)
{
	struct tm_stream *stream = cls;
	struct tm_http *http = stream->request->http;

	{
		TM_LOCK_SCOPE(&http->lock);
		stream->request->stream = NULL;
		http->n_streams--;
	}
	(void)tm_request_unref(stream->request);
	free(stream->text);
	free(stream);
}

static int refuse_stream(struct tm_request *request, bool stopping)
{
	struct tm_error err = { 0 };

	if (stopping)
		(void)tm_error_set(&err, TM_ERR_SHUTTING_DOWN, ESHUTDOWN,
				   "The daemon is stopping.");
	else
		(void)tm_error_set(&err, TM_ERR_TOO_MANY, EAGAIN,
				   "There are %u event streams already, which is the most.",
				   request->http->config.max_streams);
	return tm_answer_error(request, &err);
}

int tm_stream_start(struct tm_request *request, const struct tm_event_filter *filter)
{
	struct tm_http *http = request->http;
	struct tm_stream *stream = calloc(1, sizeof(*stream));
	struct MHD_Response *response;
	bool stopping, full;

	if (!stream)
		return MHD_NO;
	stream->filter = *filter;
	stream->filter.limit = BATCH;
	stream->filter.newest_first = false;
	if (filter->pool) {
		stream->pool = *filter->pool;
		stream->filter.pool = &stream->pool;
	}
	/* Something to read at once: the caller knows that it is connected, and how soon to come
	 * back. */
	if (set_text(stream, "retry: 2000\n: connected\n\n") < 0) {
		free(stream);
		return MHD_NO;
	}
	{
		TM_LOCK_SCOPE(&http->lock);
		stopping = http->stopping;
		full = http->n_streams >= http->config.max_streams;
		if (!stopping && !full)
			http->n_streams++;
		stream->sent_usec = tm_now_monotonic_usec();
	}
	if (stopping || full) {
		free(stream->text);
		free(stream);
		return refuse_stream(request, stopping);
	}
	stream->request = tm_request_ref(request);
	request->stream = stream;
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, on_read, stream,
						     stream_free);
	if (!response) {
		stream_free(stream);
		return MHD_NO;
	}
	return tm_answer_stream(request, response);
}
