/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a method and the path of a request, as they came, to a route. Pure: no I/O, no state.
 * The table is made from api/openapi.yaml (routes.inc).
 */
#ifndef TM_API_ROUTER_H
#define TM_API_ROUTER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "common/name.h"

struct tm_request;

/* Ordered: a caller with a larger one may do all that a smaller one allows. */
enum tm_permission { TM_PERMIT_NONE, TM_PERMIT_VIEW, TM_PERMIT_ADMIN };

enum tm_method {
	TM_METHOD_GET,
	TM_METHOD_POST,
	TM_METHOD_PATCH,
	TM_METHOD_DELETE,
	TM_METHOD_COUNT,
};

/* Answers a request, or parks it until it can be answered; returns what libmicrohttpd is told. */
typedef int (*tm_handler)(struct tm_request *request);

struct tm_route {
	enum tm_method method;
	const char *path; /* "/v1/pools/{pool}" */
	const char *operation_id;
	enum tm_permission permission;
	tm_handler handler;
	bool takes_body;
	const char *query; /* names of the parameters it knows, a space between them */
};

#define TM_ROUTE_PARAMS_MAX 2
#define TM_PATH_RAW_MAX     1024 /* bytes of an encoded path */

struct tm_match {
	const struct tm_route *route; /* NULL for OPTIONS */
	bool head;                    /* asked by HEAD: as GET, without the body */
	bool options;                 /* OPTIONS: only the methods are asked for */
	unsigned int n_params;
	char params[TM_ROUTE_PARAMS_MAX][TM_NAME_MAX + 1]; /* decoded: names or ids, in order */
	char allow[48]; /* "GET, HEAD, OPTIONS": what the path takes; "" when there is no such path
			 */
};

/*
 * tm_router_match - find the route of a request.
 *
 * @path is the raw path without the query, @len bytes. Strict: bad percent encoding, NUL and other
 * control characters, invalid UTF-8, dot segments and over-long paths are BAD_PATH (-EINVAL); a
 * parameter that can be neither name nor id is BAD_NAME (-EINVAL). NO_ROUTE (-ENOENT), METHOD
 * (-EOPNOTSUPP, ret->allow filled). A pool may be called like an action: GET /v1/pools/import asks
 * for that pool. *ret is always initialised.
 */
int tm_router_match(const char *method, const char *path, size_t len, struct tm_match *ret,
		    struct tm_error *err);

/* The table, for tests: *ret_n routes. */
const struct tm_route *tm_router_routes(size_t *ret_n);

/*
 * Decode %XX of @len bytes into @buf (of @size, always terminated). 0, or -EINVAL for a bad escape,
 * a control character or invalid UTF-8, -ENAMETOOLONG when it does not fit.
 */
int tm_percent_decode(const char *text, size_t len, char *buf, size_t size);

#endif
