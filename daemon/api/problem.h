/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors as documents of type application/problem+json (RFC 9457). */
#ifndef TM_API_PROBLEM_H
#define TM_API_PROBLEM_H

#include <jansson.h>

#include "common/error.h"

#define TM_PROBLEM_TYPE_PREFIX "urn:thinmgr:error:"

/* @instance: path of the request. New reference, or NULL when there is no memory. An error without
 * a code is INTERNAL. */
json_t *tm_problem_to_json(const struct tm_error *err, const char *instance);

/* A JSON string of @text, with '?' for bytes that are not UTF-8 (a cut sentence may end inside a
 * character). */
json_t *tm_json_text(const char *text);

#endif
