/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The handlers that the route table names: one for each operation of api/openapi.yaml. */
#ifndef TM_API_HANDLERS_H
#define TM_API_HANDLERS_H

struct tm_request;

#define TM_ROUTE(method, path, id, permission, handler, takes_body, query) \
	int handler(struct tm_request *request);
#include "api/routes.inc"
#undef TM_ROUTE

#endif
