// SPDX-License-Identifier: GPL-2.0-or-later
/* Running and finished changes. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/change.h"
#include "api/encode.h"
#include "api/handlers.h"
#include "api/lookup.h"
#include "common/cleanup.h"
#include "common/units.h"

static int read_status(struct tm_request *request, int *ret)
{
	const char *text = tm_url_query_text(&request->query, "status");

	if (!text)
		return 0;
	for (int status = TM_OP_QUEUED; status <= TM_OP_FAILED; status++) {
		if (strcmp(text, tm_op_status_name((enum tm_op_status)status)) == 0) {
			*ret = status;
			return 1;
		}
	}
	return tm_error_field(
		&request->error, TM_ERR_BAD_QUERY, "status",
		"The query parameter status is \"%.32s\", it must be queued, running, "
		"undoing, done or failed.",
		text);
}

int tm_handle_operation_list(struct tm_request *request)
{
	struct tm_readers *readers = &request->http->readers;
	struct tm_operation_filter filter = { .status = -1 };
	struct tm_operation_record *list = NULL;
	struct tm_error *err = &request->error;
	struct tm_store_reader *reader;
	uint64_t limit = TM_LIST_MAX;
	struct tm_uuid pool;
	char next[24] = "";
	json_t *items;
	size_t n = 0;
	int r;

	r = tm_lookup_query_pool(request, &pool);
	if (r > 0)
		filter.pool = &pool;
	if (r < 0 || read_status(request, &filter.status) < 0 ||
	    tm_url_query_uint(&request->query, "limit", 1, TM_LIST_MAX, &limit, err) < 0 ||
	    tm_url_query_uint(&request->query, "cursor", 1, INT64_MAX, &filter.before_usec, err) <
		    0)
		return tm_answer_error(request, err);
	filter.limit = (uint32_t)limit;
	reader = tm_readers_take(readers, err);
	if (!reader)
		return tm_answer_error(request, err);
	r = tm_store_read_operations(reader, &filter, &list, &n, err);
	tm_readers_give(readers, reader);
	if (r < 0)
		return tm_answer_error(request, err);

	items = json_array();
	for (size_t i = 0; i < n; i++) {
		struct tm_operation_record live = { 0 };
		/* Of one that has just ended the row says so before what it did can be seen. */
		const bool goes_on = tm_core_operation(request->http->core, &list[i].id, &live) ==
				     0;
		const struct tm_operation_record *op = goes_on ? &live : &list[i];

		if (filter.status < 0 || filter.status == (int)op->status)
			(void)json_array_append_new(items, tm_encode_operation(op));
		tm_operation_record_done(&live);
		if (i + 1 == limit)
			(void)snprintf(next, sizeof(next), "%" PRIu64, list[i].created_usec);
		tm_operation_record_done(&list[i]);
	}
	free(list);
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_list(items, next[0] ? next : NULL));
}

static bool has_ended(const struct tm_operation_record *op)
{
	return op->status == TM_OP_DONE || op->status == TM_OP_FAILED;
}

/* The operation as it is now. Reading a failed one has not failed. */
static int read_operation(struct tm_request *request, struct tm_operation_record *ret)
{
	const char *ref = request->match.params[0];
	struct tm_uuid id;

	if (tm_uuid_parse(ref, &id) < 0)
		return tm_error_set(&request->error, TM_ERR_NOT_FOUND, ENOENT,
				    "Operations have no names: %s is not an id.", ref);
	return tm_change_read_operation(request->http, &id, ret, &request->error);
}

static int after_wait(struct tm_request *request)
{
	tm_cleanup(tm_operation_record_done) struct tm_operation_record op = { 0 };
	int ret;

	if (tm_change_interrupted(request, &ret))
		return ret;
	if (read_operation(request, &op) < 0)
		return tm_answer_error(request, &request->error);
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_operation(&op));
}

/* Asking for an end is no change of its own: the answer is the operation that shall end. */
int tm_handle_operation_cancel(struct tm_request *request)
{
	tm_cleanup(tm_operation_record_done) struct tm_operation_record op = { 0 };

	/* One that never was is told from one that has ended. */
	if (read_operation(request, &op) < 0)
		return tm_answer_error(request, &request->error);
	if (!op.live && !has_ended(&op)) {
		(void)tm_error_set(&request->error, TM_ERR_WRONG_STATE, EBUSY,
				   "Operation %s was cut off by a restart, and is finished or "
				   "undone as soon as that can be.",
				   op.id.text);
		return tm_answer_error(request, &request->error);
	}
	return tm_change_cancel(request, &op.id);
}

int tm_handle_operation_get(struct tm_request *request)
{
	tm_cleanup(tm_operation_record_done) struct tm_operation_record op = { 0 };
	struct tm_error *err = &request->error;
	uint64_t wait = 0;

	if (tm_url_query_uint(&request->query, "wait", 0, TM_WAIT_MAX, &wait, err) < 0 ||
	    read_operation(request, &op) < 0)
		return tm_answer_error(request, err);
	if (!wait || has_ended(&op))
		return tm_answer_json(request, MHD_HTTP_OK, tm_encode_operation(&op));
	if (tm_change_wait(request, &op.id, wait * TM_USEC_PER_SEC, after_wait) == 0)
		return MHD_YES;
	(void)tm_error_set(err, TM_ERR_SHUTTING_DOWN, ESHUTDOWN, "The daemon is stopping.");
	return tm_answer_error(request, err);
}
