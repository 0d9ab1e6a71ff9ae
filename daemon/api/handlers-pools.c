// SPDX-License-Identifier: GPL-2.0-or-later
/* Pools, their policy and their history. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/body.h"
#include "api/change.h"
#include "api/encode.h"
#include "api/handlers.h"
#include "api/lookup.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"

#define HISTORY_MAX       10000
#define HISTORY_DEFAULT   1000
#define HISTORY_STEP_MAX  ((uint64_t)31536000)
#define HISTORY_SPAN_USEC (24 * 3600 * TM_USEC_PER_SEC)

int tm_handle_pool_list(struct tm_request *request)
{
	const char *cursor = tm_url_query_text(&request->query, "cursor"), *next = NULL;
	tm_auto_view struct tm_view *view = NULL;
	uint64_t limit = TM_LIST_MAX;
	json_t *items;

	if (tm_url_query_uint(&request->query, "limit", 1, TM_LIST_MAX, &limit, &request->error) <
	    0)
		return tm_answer_error(request, &request->error);
	view = tm_core_view(request->http->core);
	items = json_array();
	for (size_t i = 0; i < view->n_pools; i++) {
		const struct tm_pool_view *pool = view->pools[i];

		if (cursor && strcmp(pool->record.name, cursor) <= 0)
			continue;
		if (json_array_size(items) == limit) {
			next = view->pools[i - 1]->record.name;
			break;
		}
		if (json_array_append_new(items, tm_encode_pool(pool)) < 0) {
			json_decref(items);
			return MHD_NO; /* no memory, also to say so */
		}
	}
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_list(items, next));
}

static int answer_pool(struct tm_request *request, json_t *(*encode)(const struct tm_pool_view *))
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);
	const struct tm_pool_view *pool = tm_lookup_pool(request, view);

	if (!pool)
		return tm_answer_error(request, &request->error);
	request->etag_valid = true;
	request->etag = pool->generation;
	return tm_answer_json(request, MHD_HTTP_OK, encode(pool));
}

int tm_handle_pool_get(struct tm_request *request)
{
	return answer_pool(request, tm_encode_pool);
}

int tm_handle_policy_get(struct tm_request *request)
{
	return answer_pool(request, tm_encode_pool_policy);
}

int tm_handle_pool_create(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_CREATE, tm_body_pool_create);
}

int tm_handle_pool_import(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_IMPORT, tm_body_pool_import);
}

int tm_handle_pool_activate(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_ACTIVATE, NULL);
}

int tm_handle_pool_deactivate(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_DEACTIVATE, NULL);
}

int tm_handle_pool_repair(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_REPAIR,
			 request->body_len ? tm_body_pool_repair : NULL);
}

int tm_handle_pool_check(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_CHECK, request->body_len ? tm_body_pool_check : NULL);
}

int tm_handle_pool_restore(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_RESTORE, tm_body_pool_restore);
}

/* Their directory is the truth: it may be changed by hand. */
int tm_handle_pool_copies(struct tm_request *request)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);
	const struct tm_pool_view *pool = tm_lookup_pool(request, view);
	tm_auto_free struct tm_copy *copies = NULL;
	json_t *items;
	size_t n = 0;

	if (!pool || tm_copies_list(&pool->record, &copies, &n, &request->error) < 0)
		return tm_answer_error(request, &request->error);
	items = json_array();
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(items, tm_encode_copy(&copies[i]));
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_list(items, NULL));
}

int tm_handle_pool_extend(struct tm_request *request)
{
	return tm_change(request, TM_CMD_POOL_EXTEND, tm_body_pool_extend);
}

int tm_handle_pool_delete(struct tm_request *request)
{
	struct tm_command *cmd = tm_request_command(request, TM_CMD_POOL_DELETE);

	if (!cmd)
		return tm_answer_error(request, &request->error);
	if (tm_url_query_bool(&request->query, "with_volumes", &cmd->pool_delete.with_volumes,
			      &request->error) < 0 ||
	    tm_url_query_bool(&request->query, "forget", &cmd->pool_delete.forget,
			      &request->error) < 0) {
		(void)tm_command_free(cmd);
		return tm_answer_error(request, &request->error);
	}
	return tm_change_submit(request, cmd);
}

int tm_handle_policy_patch(struct tm_request *request)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);
	const struct tm_pool_view *pool = tm_lookup_pool(request, view);
	struct tm_command *cmd;
	json_t *body;
	bool ok;

	if (!pool)
		return tm_answer_error(request, &request->error);
	cmd = tm_request_command(request, TM_CMD_POOL_POLICY);
	body = cmd ? tm_request_json(request) : NULL;
	ok = body && tm_body_policy_patch(body, &pool->record.policy, cmd, &request->error) == 0;
	json_decref(body);
	if (ok)
		return tm_change_submit(request, cmd);
	(void)tm_command_free(cmd);
	return tm_answer_error(request, &request->error);
}

struct history {
	uint64_t from, until, step, limit;
};

static int read_history_query(struct tm_request *request, struct history *ret)
{
	const struct tm_url_query *query = &request->query;
	struct tm_error *err = &request->error;
	uint64_t seconds = 0;
	int from, r;

	*ret = (struct history){ .until = tm_now_realtime_usec(), .limit = HISTORY_DEFAULT };
	r = tm_url_query_time(query, "until", &ret->until, err);
	if (r < 0)
		return r;
	ret->from = ret->until > HISTORY_SPAN_USEC ? ret->until - HISTORY_SPAN_USEC : 0;
	from = tm_url_query_time(query, "from", &ret->from, err);
	if (from < 0)
		return from;
	r = tm_url_query_uint(query, "step", 0, HISTORY_STEP_MAX, &seconds, err);
	if (r < 0)
		return r;
	ret->step = seconds * TM_USEC_PER_SEC;
	r = tm_url_query_uint(query, "limit", 1, HISTORY_MAX, &ret->limit, err);
	if (r < 0)
		return r;
	if (from && ret->from > ret->until)
		return tm_error_field(err, TM_ERR_BAD_QUERY, "from", "from is later than until.");
	/* The cursor is where the next page begins, finer than times are written. */
	return tm_url_query_uint(query, "cursor", 0, INT64_MAX, &ret->from, err);
}

int tm_handle_pool_history(struct tm_request *request)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);
	const struct tm_pool_view *pool = tm_lookup_pool(request, view);
	struct tm_readers *readers = &request->http->readers;
	struct tm_sample *samples = NULL;
	struct tm_store_reader *reader;
	struct history query;
	char next[24] = "";
	json_t *items;
	size_t n = 0;
	int r;

	if (!pool || read_history_query(request, &query) < 0)
		return tm_answer_error(request, &request->error);
	reader = tm_readers_take(readers, &request->error);
	if (!reader)
		return tm_answer_error(request, &request->error);
	r = tm_store_read_samples(reader, &pool->record.id, query.from, query.until, query.step,
				  (uint32_t)query.limit, &samples, &n, &request->error);
	tm_readers_give(readers, reader);
	if (r < 0)
		return tm_answer_error(request, &request->error);

	items = json_array();
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(items, tm_encode_sample(&samples[i]));
	if (n == query.limit)
		(void)snprintf(next, sizeof(next), "%" PRIu64,
			       samples[n - 1].time_usec + (query.step ? query.step : 1));
	free(samples);
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_list(items, next[0] ? next : NULL));
}
