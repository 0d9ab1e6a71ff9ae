// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changes: parsed on libmicrohttpd's thread, checked and queued by the core on the main loop,
 * answered on libmicrohttpd's thread again. In between the connection is suspended.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/change.h"
#include "api/encode.h"
#include "api/lookup.h"
#include "common/cleanup.h"
#include "common/units.h"

static int shutting_down(struct tm_request *request)
{
	struct tm_error err = { 0 };

	(void)tm_error_set(&err, TM_ERR_SHUTTING_DOWN, ESHUTDOWN, "The daemon is stopping.");
	tm_error_hint(&err, "An operation that was begun is finished or undone at the next start.");
	return tm_answer_error(request, &err);
}

bool tm_change_interrupted(struct tm_request *request, int *ret)
{
	bool finished, stopping;

	{
		TM_LOCK_SCOPE(&request->http->lock);
		finished = request->finished;
		stopping = request->http->stopping;
	}
	if (finished)
		return false;
	*ret = stopping ? shutting_down(request) : MHD_NO;
	return true;
}

int tm_change_read_operation(struct tm_http *http, const struct tm_uuid *id,
			     struct tm_operation_record *ret, struct tm_error *err)
{
	struct tm_store_reader *reader;
	int r;

	r = tm_core_operation(http->core, id, ret);
	if (r != -ENOENT)
		return r;
	reader = tm_readers_take(&http->readers, err);
	if (!reader)
		return -EIO;
	r = tm_store_read_operation(reader, id, ret, err);
	tm_readers_give(&http->readers, reader);
	if (r == -ENOENT && err)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "There is no operation %s.",
				    id->text);
	return r;
}

/* ---- waiting for an operation ---------------------------------------------------------------- */

static void wake_finished(struct tm_request *request)
{
	{
		TM_LOCK_SCOPE(&request->http->lock);
		if (request->parked) {
			request->finished = true;
			tm_request_wake_locked(request);
		}
	}
	(void)tm_request_unref(request);
}

static void on_ended(void *userdata, bool ended)
{
	(void)ended; /* its state is read again anyway */
	wake_finished(userdata);
}

/* With a reference for the core's callback. */
static int park_until(struct tm_request *request, int (*resume)(struct tm_request *request))
{
	int r;

	request->resume = resume;
	request->finished = false;
	(void)tm_request_ref(request);
	r = tm_request_park(request);
	if (r < 0) {
		request->resume = NULL;
		(void)tm_request_unref(request);
	}
	return r;
}

int tm_change_wait(struct tm_request *request, const struct tm_uuid *id, uint64_t timeout_usec,
		   int (*resume)(struct tm_request *request))
{
	struct tm_core *core = request->http->core;
	struct tm_uuid operation = *id;
	int r = park_until(request, resume);

	/* From here on the request may be answered at any moment: only its reference is ours. */
	if (r == 0)
		tm_core_wait(core, &operation, timeout_usec, on_ended, request);
	return r;
}

int tm_change_wait_recorded(struct tm_request *request, uint64_t timeout_usec,
			    int (*resume)(struct tm_request *request))
{
	struct tm_core *core = request->http->core;
	int r = park_until(request, resume);

	if (r == 0)
		tm_core_wait_recorded(core, timeout_usec, on_ended, request);
	return r;
}

/* ---- submitting ------------------------------------------------------------------------------ */

static int answer_operation(struct tm_request *request, const struct tm_operation_record *op)
{
	if (op->status == TM_OP_FAILED)
		return tm_answer_failed(request, op);
	if (op->status == TM_OP_DONE || request->dry_run)
		return tm_answer_json(request, MHD_HTTP_OK, tm_encode_operation(op));
	(void)snprintf(request->location, sizeof(request->location), "/v1/operations/%s",
		       op->id.text);
	return tm_answer_json(request, MHD_HTTP_ACCEPTED, tm_encode_operation(op));
}

static int after_submit(struct tm_request *request)
{
	tm_cleanup(tm_operation_record_done) struct tm_operation_record op = { 0 };
	int ret;

	if (tm_change_interrupted(request, &ret))
		return ret;
	if (!request->have_operation)
		return tm_answer_error(request, &request->error);
	if (!request->wait_usec || request->dry_run)
		return answer_operation(request, &request->operation);
	/* Waited for: what was recorded at the beginning is out of date. */
	if (tm_change_read_operation(request->http, &request->operation.id, &op, &request->error) <
	    0)
		return tm_answer_error(request, &request->error);
	return answer_operation(request, &op);
}

/* On the main loop. */
static void on_submitted(void *userdata, const struct tm_operation_record *op,
			 const struct tm_error *err)
{
	struct tm_request *request = userdata;
	struct tm_http *http = request->http;
	struct tm_uuid id = { "" };
	bool wait = false;

	{
		TM_LOCK_SCOPE(&http->lock);
		if (request->parked && op) {
			request->operation = *op;
			request->operation.state = NULL;
			request->operation.idempotency_key = NULL;
			request->have_operation = true;
			wait = request->wait_usec && !request->dry_run;
			id = op->id;
		} else if (request->parked) {
			request->error = *err;
		}
	}
	/* The caller waits on, and so does our reference. */
	if (wait)
		tm_core_wait(http->core, &id, request->wait_usec, on_ended, request);
	else
		wake_finished(request);
}

/*
 * If-Match: "*", or a list of our own tags, of which the one that is the pool's present generation
 * counts. Any other can match nothing.
 */
static int read_if_match(struct tm_request *request, struct tm_command *cmd, struct tm_error *err)
{
	const char *text = tm_request_header(request, "If-Match");
	tm_auto_view struct tm_view *view = NULL;
	const struct tm_pool_view *pool;
	char digits[24];
	uint64_t tag;

	if (!text || strcmp(text, "*") == 0)
		return 0;
	view = tm_core_view(request->http->core);
	pool = tm_view_pool(view, cmd->pool);
	for (const char *p = text + strspn(text, " \t,"); *p; p += strspn(p, " \t,")) {
		size_t len = strcspn(p, " \t,");

		if (len > 2 && len - 2 < sizeof(digits) && p[0] == '"' && p[len - 1] == '"') {
			memcpy(digits, p + 1, len - 2);
			digits[len - 2] = '\0';
			if (tm_decimal_parse(digits, &tag) == 0 &&
			    (!pool || tag == pool->generation)) {
				cmd->if_match_valid = true;
				cmd->if_match = tag;
				return 0;
			}
		}
		p += len;
	}
	(void)tm_error_set(err, TM_ERR_PRECONDITION, ESTALE,
			   "Pool %s has changed since it was read.", cmd->pool);
	tm_error_hint(err, "Read it again and use the ETag of that answer.");
	if (err)
		(void)snprintf(err->field, sizeof(err->field), "If-Match");
	return -ESTALE;
}

static int read_options(struct tm_request *request, struct tm_command *cmd, struct tm_error *err)
{
	const struct tm_url_query *query = &request->query;
	uint64_t seconds = 0;
	int r;

	r = tm_url_query_uint(query, "wait", 0, TM_WAIT_MAX, &seconds, err);
	if (r < 0)
		return r;
	request->wait_usec = seconds * TM_USEC_PER_SEC;
	r = tm_url_query_bool(query, "dry_run", &request->dry_run, err);
	if (r < 0)
		return r;
	if (request->match.route->method == TM_METHOD_PATCH ||
	    request->match.route->method == TM_METHOD_DELETE)
		return read_if_match(request, cmd, err);
	return 0;
}

int tm_change_submit(struct tm_request *request, struct tm_command *cmd)
{
	struct tm_http *http = request->http;
	bool dry_run;

	if (read_options(request, cmd, &request->error) < 0) {
		(void)tm_command_free(cmd);
		return tm_answer_error(request, &request->error);
	}
	dry_run = request->dry_run;
	request->resume = after_submit;
	request->finished = false;
	(void)tm_request_ref(request);
	if (tm_request_park(request) < 0) {
		request->resume = NULL;
		(void)tm_request_unref(request);
		(void)tm_command_free(cmd);
		return shutting_down(request);
	}
	/* From here on the request may be answered at any moment: only its reference is ours. */
	tm_core_submit(http->core, cmd, dry_run, on_submitted, request);
	return MHD_YES;
}

/* ---- cancelling ------------------------------------------------------------------------------ */

/* That one failed for being cancelled is what was asked for. */
static int after_cancel(struct tm_request *request)
{
	tm_cleanup(tm_operation_record_done) struct tm_operation_record op = { 0 };
	int ret;

	if (tm_change_interrupted(request, &ret))
		return ret;
	if (!request->have_operation ||
	    tm_change_read_operation(request->http, &request->operation.id, &op, &request->error) <
		    0)
		return tm_answer_error(request, &request->error);
	if (op.status == TM_OP_DONE || op.status == TM_OP_FAILED)
		return tm_answer_json(request, MHD_HTTP_OK, tm_encode_operation(&op));
	return answer_operation(request, &op);
}

int tm_change_cancel(struct tm_request *request, const struct tm_uuid *id)
{
	struct tm_core *core = request->http->core;
	const struct tm_uuid operation = *id;
	uint64_t seconds = 0;

	if (tm_url_query_uint(&request->query, "wait", 0, TM_WAIT_MAX, &seconds, &request->error) <
	    0)
		return tm_answer_error(request, &request->error);
	request->wait_usec = seconds * TM_USEC_PER_SEC;
	request->resume = after_cancel;
	request->finished = false;
	(void)tm_request_ref(request);
	if (tm_request_park(request) < 0) {
		request->resume = NULL;
		(void)tm_request_unref(request);
		return shutting_down(request);
	}
	/* From here on the request may be answered at any moment: only its reference is ours. */
	tm_core_cancel(core, &operation, on_submitted, request);
	return MHD_YES;
}

int tm_change(struct tm_request *request, enum tm_command_kind kind,
	      int (*read)(json_t *body, struct tm_command *cmd, struct tm_error *err))
{
	struct tm_command *cmd = tm_request_command(request, kind);
	bool ok = cmd;

	if (ok && read) {
		json_t *body = tm_request_json(request);

		ok = body && read(body, cmd, &request->error) == 0;
		json_decref(body);
	}
	if (ok)
		return tm_change_submit(request, cmd);
	(void)tm_command_free(cmd);
	return tm_answer_error(request, &request->error);
}
