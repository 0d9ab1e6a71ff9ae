// SPDX-License-Identifier: GPL-2.0-or-later
/* What happened: a page of it, or a stream. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/change.h"
#include "api/encode.h"
#include "api/handlers.h"
#include "api/lookup.h"
#include "api/stream.h"
#include "common/cleanup.h"
#include "common/units.h"

/*
 * Who has seen a change, as the end of the operation that made it, finds its events: a page waits
 * for those that are being written. Not longer than this, where the disk hangs.
 */
#define RECORDED_USEC (5 * TM_USEC_PER_SEC)

static int read_type(struct tm_request *request, int *ret)
{
	const char *text = tm_url_query_text(&request->query, "type");
	enum tm_event_type type;

	if (!text)
		return 0;
	if (tm_event_from_slug(text, &type) < 0)
		return tm_error_field(&request->error, TM_ERR_BAD_QUERY, "type",
				      "There is no type of event \"%.48s\".", text);
	*ret = (int)type;
	return 1;
}

static int read_severity(struct tm_request *request, enum tm_severity *ret)
{
	const char *text = tm_url_query_text(&request->query, "severity");

	if (!text)
		return 0;
	for (int severity = TM_SEV_INFO; severity <= TM_SEV_CRITICAL; severity++) {
		if (strcmp(text, tm_severity_name((enum tm_severity)severity)) == 0) {
			*ret = (enum tm_severity)severity;
			return 1;
		}
	}
	return tm_error_field(&request->error, TM_ERR_BAD_QUERY, "severity",
			      "The query parameter severity is \"%.32s\", it must be info, notice, "
			      "warning, error or critical.",
			      text);
}

static int read_order(struct tm_request *request, bool *ret_newest_first)
{
	const char *text = tm_url_query_text(&request->query, "order");

	if (!text)
		return 0;
	*ret_newest_first = strcmp(text, "desc") == 0;
	if (*ret_newest_first || strcmp(text, "asc") == 0)
		return 1;
	return tm_error_field(&request->error, TM_ERR_BAD_QUERY, "order",
			      "The query parameter order is \"%.32s\", it must be asc or desc.",
			      text);
}

/* @pool: room for the id. */
static int read_filter(struct tm_request *request, struct tm_event_filter *filter,
		       struct tm_uuid *pool)
{
	const struct tm_url_query *query = &request->query;
	struct tm_error *err = &request->error;
	uint64_t limit = TM_LIST_MAX, cursor = 0;
	int r;

	*filter = (struct tm_event_filter){ .type = -1, .min_severity = TM_SEV_INFO };
	r = tm_lookup_query_pool(request, pool);
	if (r < 0)
		return r;
	if (r > 0)
		filter->pool = pool;
	if (tm_url_query_uint(query, "after", 0, INT64_MAX, &filter->after_seq, err) < 0 ||
	    tm_url_query_uint(query, "cursor", 0, INT64_MAX, &cursor, err) < 0 ||
	    tm_url_query_time(query, "since", &filter->since_usec, err) < 0 ||
	    tm_url_query_time(query, "until", &filter->until_usec, err) < 0 ||
	    read_type(request, &filter->type) < 0 ||
	    read_severity(request, &filter->min_severity) < 0 ||
	    tm_url_query_uint(query, "limit", 1, TM_LIST_MAX, &limit, err) < 0 ||
	    read_order(request, &filter->newest_first) < 0)
		return -EINVAL;
	if (filter->newest_first)
		filter->before_seq = cursor;
	else if (cursor > filter->after_seq)
		filter->after_seq = cursor;
	filter->limit = (uint32_t)limit;
	return 0;
}

/* Does the header list this media type? Its weight does not matter: whoever names a stream wants
 * one. */
static bool accepts_stream(struct tm_request *request)
{
	static const char stream[] = "text/event-stream";
	const char *p = tm_request_header(request, "Accept");

	while (p && *p) {
		p += strspn(p, " \t,");
		if (strncasecmp(p, stream, sizeof(stream) - 1) == 0 &&
		    strchr(" \t,;", p[sizeof(stream) - 1]))
			return true;
		p += strcspn(p, ",");
	}
	return false;
}

/* Where a stream begins: after Last-Event-ID, after `after`, or with the next event. */
static int read_start(struct tm_request *request, struct tm_event_filter *filter)
{
	const char *last = tm_request_header(request, "Last-Event-ID");
	struct tm_http *http = request->http;
	uint64_t newest;

	{
		TM_LOCK_SCOPE(&http->lock);
		newest = http->last_seq;
	}
	if (last && *last) {
		if (tm_decimal_parse(last, &filter->after_seq) < 0)
			return tm_error_field(&request->error, TM_ERR_BAD_QUERY, "Last-Event-ID",
					      "Last-Event-ID is \"%.32s\", it must be a number.",
					      last);
	} else if (!tm_url_query_text(&request->query, "after")) {
		filter->after_seq = newest;
	}
	/* Of another database: nothing of this one was seen. */
	if (filter->after_seq > newest)
		filter->after_seq = 0;
	return 0;
}

static int start_stream(struct tm_request *request, struct tm_event_filter *filter)
{
	static const char *const not_here[] = { "since", "until", "limit", "order", "cursor" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(not_here); i++) {
		if (tm_url_query_text(&request->query, not_here[i])) {
			(void)tm_error_field(&request->error, TM_ERR_BAD_QUERY, not_here[i],
					     "The query parameter %s has no meaning for a stream.",
					     not_here[i]);
			return tm_answer_error(request, &request->error);
		}
	}
	if (read_start(request, filter) < 0)
		return tm_answer_error(request, &request->error);
	return tm_stream_start(request, filter);
}

static int answer_page(struct tm_request *request, const struct tm_event_filter *filter)
{
	struct tm_readers *readers = &request->http->readers;
	struct tm_error *err = &request->error;
	struct tm_store_reader *reader;
	struct tm_event *events = NULL;
	char next[24] = "";
	json_t *items;
	size_t n = 0;
	int r;

	reader = tm_readers_take(readers, err);
	if (!reader)
		return tm_answer_error(request, err);
	r = tm_store_read_events(reader, filter, &events, &n, err);
	tm_readers_give(readers, reader);
	if (r < 0)
		return tm_answer_error(request, err);

	items = json_array();
	for (size_t i = 0; i < n; i++) {
		(void)json_array_append_new(items, tm_encode_event(&events[i]));
		if (i + 1 == filter->limit)
			(void)snprintf(next, sizeof(next), "%" PRIu64, events[i].seq);
		tm_event_done(&events[i]);
	}
	free(events);
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_list(items, next[0] ? next : NULL));
}

static int after_recorded(struct tm_request *request)
{
	struct tm_event_filter filter;
	struct tm_uuid pool;
	int ret;

	if (tm_change_interrupted(request, &ret))
		return ret;
	if (read_filter(request, &filter, &pool) < 0)
		return tm_answer_error(request, &request->error);
	return answer_page(request, &filter);
}

int tm_handle_event_list(struct tm_request *request)
{
	struct tm_error *err = &request->error;
	struct tm_event_filter filter;
	struct tm_uuid pool;

	if (read_filter(request, &filter, &pool) < 0)
		return tm_answer_error(request, err);
	if (!request->match.head && accepts_stream(request))
		return start_stream(request, &filter);
	if (!tm_core_recording(request->http->core))
		return answer_page(request, &filter);
	if (tm_change_wait_recorded(request, RECORDED_USEC, after_recorded) == 0)
		return MHD_YES;
	(void)tm_error_set(err, TM_ERR_SHUTTING_DOWN, ESHUTDOWN, "The daemon is stopping.");
	return tm_answer_error(request, err);
}
