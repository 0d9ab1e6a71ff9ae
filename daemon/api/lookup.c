// SPDX-License-Identifier: GPL-2.0-or-later
/* What handlers have in common. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/lookup.h"
#include "logic/json.h"

const struct tm_pool_view *tm_lookup_pool(struct tm_request *request, const struct tm_view *view)
{
	const char *ref = request->match.params[0];
	const struct tm_pool_view *pool = tm_view_pool(view, ref);

	if (!pool)
		(void)tm_error_set(&request->error, TM_ERR_NOT_FOUND, ENOENT,
				   "There is no pool %s.", ref);
	return pool;
}

const struct tm_volume_view *tm_lookup_volume(struct tm_request *request,
					      const struct tm_pool_view *pool)
{
	const char *ref = request->match.params[1];
	const struct tm_volume_view *volume = tm_pool_view_volume(pool, ref);

	if (!volume)
		(void)tm_error_set(&request->error, TM_ERR_NOT_FOUND, ENOENT,
				   "Pool %s has no volume %s.", pool->record.name, ref);
	return volume;
}

int tm_lookup_query_pool(struct tm_request *request, struct tm_uuid *ret)
{
	const char *ref = tm_url_query_text(&request->query, "pool");
	tm_auto_view struct tm_view *view = NULL;
	const struct tm_pool_view *pool;

	if (!ref)
		return 0;
	if (tm_uuid_parse(ref, ret) == 0)
		return 1;
	if (!tm_name_valid(ref))
		return tm_error_field(
			&request->error, TM_ERR_BAD_QUERY, "pool",
			"The query parameter pool is \"%.64s\", which can be neither a "
			"name nor an id.",
			ref);
	view = tm_core_view(request->http->core);
	pool = tm_view_pool(view, ref);
	if (!pool) {
		(void)tm_error_set(&request->error, TM_ERR_NOT_FOUND, ENOENT,
				   "There is no pool %s.", ref);
		tm_error_hint(&request->error,
			      "What is known of a deleted pool is found by its id.");
		return -ENOENT;
	}
	*ret = pool->record.id;
	return 1;
}

json_t *tm_request_json(struct tm_request *request)
{
	return tm_json_parse(request->body ? request->body : "", request->body_len,
			     &request->error);
}

struct tm_command *tm_request_command(struct tm_request *request, enum tm_command_kind kind)
{
	struct tm_command *cmd = calloc(1, sizeof(*cmd));

	if (!cmd) {
		(void)tm_error_set(&request->error, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
		return NULL;
	}
	cmd->kind = kind;
	if (request->match.n_params > 0)
		(void)snprintf(cmd->pool, sizeof(cmd->pool), "%s", request->match.params[0]);
	if (request->match.n_params > 1)
		(void)snprintf(cmd->volume, sizeof(cmd->volume), "%s", request->match.params[1]);
	return cmd;
}

static int by_name(const void *a, const void *b)
{
	const struct tm_volume_view *const *x = a, *const *y = b;

	return strcmp((*x)->record.name, (*y)->record.name);
}

int tm_list_volumes(struct tm_request *request, const struct tm_pool_view *pool, bool snapshots,
		    const struct tm_volume_view ***ret, size_t *ret_n, size_t *ret_limit)
{
	const char *cursor = tm_url_query_text(&request->query, "cursor");
	const struct tm_volume_view **list;
	uint64_t limit = TM_LIST_MAX;
	size_t n = 0;
	int r;

	r = tm_url_query_uint(&request->query, "limit", 1, TM_LIST_MAX, &limit, &request->error);
	if (r < 0)
		return r;
	list = calloc(pool->n_volumes + 1, sizeof(*list));
	if (!list)
		return tm_error_set(&request->error, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	for (size_t i = 0; i < pool->n_volumes; i++) {
		const struct tm_volume_view *volume = &pool->volumes[i];

		if (snapshots && !volume->record.origin.text[0])
			continue;
		if (!cursor || strcmp(volume->record.name, cursor) > 0)
			list[n++] = volume;
	}
	qsort(list, n, sizeof(list[0]), by_name);
	*ret = list;
	*ret_limit = (size_t)limit;
	*ret_n = n > limit ? (size_t)limit + 1 : n;
	return 0;
}
