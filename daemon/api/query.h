/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict reading of a query string. What a route does not know is refused, as is a parameter
 * given twice or without a value. '+' means itself.
 */
#ifndef TM_API_QUERY_H
#define TM_API_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define TM_URL_QUERY_MAX      16   /* parameters */
#define TM_URL_QUERY_RAW_MAX  2048 /* bytes, encoded */
#define TM_URL_QUERY_NAME_MAX 31

struct tm_url_query {
	size_t n;
	struct {
		char name[TM_URL_QUERY_NAME_MAX + 1];
		const char *value; /* into text */
	} items[TM_URL_QUERY_MAX];
	char text[TM_URL_QUERY_RAW_MAX + TM_URL_QUERY_MAX];
};

/*
 * Read the @len bytes after the '?'. @known: names a route takes, a space between them.
 * 0, or -EINVAL with BAD_QUERY naming the parameter.
 */
int tm_url_query_parse(const char *raw, size_t len, const char *known, struct tm_url_query *ret,
		       struct tm_error *err);

/* The value, or NULL when it is not there. Borrowed from the query. */
const char *tm_url_query_text(const struct tm_url_query *query, const char *name);

/*
 * 1 when it is there and right, 0 when it is absent (*ret is left alone), -EINVAL with BAD_QUERY.
 * A bool is "true" or "false"; a time RFC 3339, in microseconds of real time.
 */
int tm_url_query_uint(const struct tm_url_query *query, const char *name, uint64_t min,
		      uint64_t max, uint64_t *ret, struct tm_error *err);
int tm_url_query_bool(const struct tm_url_query *query, const char *name, bool *ret,
		      struct tm_error *err);
int tm_url_query_time(const struct tm_url_query *query, const char *name, uint64_t *ret,
		      struct tm_error *err);

/* A decimal number without sign or blanks: 0, -EINVAL, or -ERANGE when it needs more than 63 bits.
 */
int tm_decimal_parse(const char *text, uint64_t *ret);

#endif
