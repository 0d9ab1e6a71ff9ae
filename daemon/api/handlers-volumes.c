// SPDX-License-Identifier: GPL-2.0-or-later
/* Volumes and snapshots. */

#include <stdlib.h>

#include "api/body.h"
#include "api/change.h"
#include "api/encode.h"
#include "api/handlers.h"
#include "api/lookup.h"

static int answer_list(struct tm_request *request, bool snapshots)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);
	const struct tm_pool_view *pool = tm_lookup_pool(request, view);
	const struct tm_volume_view **list = NULL;
	size_t n = 0, limit = 0;
	json_t *items;
	int ret;

	if (!pool || tm_list_volumes(request, pool, snapshots, &list, &n, &limit) < 0)
		return tm_answer_error(request, &request->error);
	items = json_array();
	for (size_t i = 0; i < n && i < limit; i++)
		(void)json_array_append_new(items, tm_encode_volume(pool, list[i]));
	request->etag_valid = true;
	request->etag = pool->generation;
	ret = tm_answer_json(
		request, MHD_HTTP_OK,
		tm_encode_list(items, n > limit ? list[limit - 1]->record.name : NULL));
	free(list);
	return ret;
}

int tm_handle_volume_list(struct tm_request *request)
{
	return answer_list(request, false);
}

int tm_handle_snapshot_list(struct tm_request *request)
{
	return answer_list(request, true);
}

int tm_handle_volume_get(struct tm_request *request)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);
	const struct tm_pool_view *pool = tm_lookup_pool(request, view);
	const struct tm_volume_view *volume = pool ? tm_lookup_volume(request, pool) : NULL;

	if (!volume)
		return tm_answer_error(request, &request->error);
	request->etag_valid = true;
	request->etag = pool->generation;
	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_volume(pool, volume));
}

int tm_handle_volume_create(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_CREATE, tm_body_volume_create);
}

/* The body says whether it is a resize or a rename. */
int tm_handle_volume_patch(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_RESIZE, tm_body_volume_patch);
}

int tm_handle_volume_delete(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_DELETE, NULL);
}

int tm_handle_volume_activate(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_ACTIVATE, NULL);
}

int tm_handle_volume_deactivate(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_DEACTIVATE, NULL);
}

int tm_handle_volume_check(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_CHECK, NULL);
}

int tm_handle_volume_clear_suspect(struct tm_request *request)
{
	return tm_change(request, TM_CMD_VOLUME_CLEAR, NULL);
}

int tm_handle_snapshot_create(struct tm_request *request)
{
	return tm_change(request, TM_CMD_SNAPSHOT_CREATE, tm_body_snapshot_create);
}
