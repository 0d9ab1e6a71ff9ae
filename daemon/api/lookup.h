/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What handlers have in common: finding what a request names, reading its body, cutting lists into
 * pages. */
#ifndef TM_API_LOOKUP_H
#define TM_API_LOOKUP_H

#include "api/request.h"

#define TM_LIST_MAX 1000

/* The pool that the path names. Borrowed from @view; NULL with request->error (NOT_FOUND). */
const struct tm_pool_view *tm_lookup_pool(struct tm_request *request, const struct tm_view *view);
/* The volume that the path names. */
const struct tm_volume_view *tm_lookup_volume(struct tm_request *request,
					      const struct tm_pool_view *pool);

/*
 * The id of the pool that the query parameter `pool` names: 1, 0 when it is absent, -EINVAL or
 * -ENOENT with request->error. An id need not be of a pool that is there.
 */
int tm_lookup_query_pool(struct tm_request *request, struct tm_uuid *ret);

/* The body as a JSON object: new reference, or NULL with request->error. */
json_t *tm_request_json(struct tm_request *request);

/* A new command for what the path names; NULL with request->error. */
struct tm_command *tm_request_command(struct tm_request *request, enum tm_command_kind kind);

/*
 * The volumes whose names come after the query's cursor, sorted by name, at most its limit: an
 * array of pointers into @pool (to be freed), one more than the limit when there are more.
 * @snapshots: only those with an origin.
 */
int tm_list_volumes(struct tm_request *request, const struct tm_pool_view *pool, bool snapshots,
		    const struct tm_volume_view ***ret, size_t *ret_n, size_t *ret_limit);

#endif
