/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Server-sent events: read from the database by number, so that none is lost; woken by the core. */
#ifndef TM_API_STREAM_H
#define TM_API_STREAM_H

#include "api/request.h"

struct tm_stream;

/*
 * Answer @request with a stream of the events that match @filter and have larger numbers than
 * filter->after_seq (limit and order are the stream's own). Returns what libmicrohttpd is told.
 */
int tm_stream_start(struct tm_request *request, const struct tm_event_filter *filter);

/* Was nothing sent for @beat microseconds? Then one will be: wake the stream. The server's lock is
 * held. */
bool tm_stream_heartbeat_due(struct tm_stream *stream, uint64_t now_usec, uint64_t beat_usec);

#endif
