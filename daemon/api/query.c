// SPDX-License-Identifier: GPL-2.0-or-later
/* Strict reading of a query string. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/query.h"
#include "api/router.h"
#include "common/fsutil.h"

static bool is_known(const char *known, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = known; *p; p += strspn(p, " ")) {
		size_t word = strcspn(p, " ");

		if (word == len && memcmp(p, name, len) == 0)
			return true;
		p += word;
	}
	return false;
}

static int read_pair(const char *text, size_t len, const char *known, struct tm_url_query *query,
		     size_t *used, struct tm_error *err)
{
	const char *equals = memchr(text, '=', len);
	size_t name_len = equals ? (size_t)(equals - text) : len;
	char *name = query->items[query->n].name;
	char *value = query->text + *used;
	int r;

	r = tm_percent_decode(text, name_len, name, sizeof(query->items[0].name));
	if (r < 0 || !is_known(known, name)) {
		if (r == 0 && name[0])
			r = tm_error_field(err, TM_ERR_BAD_QUERY, name,
					   "There is no query parameter \"%s\" here.", name);
		else
			r = tm_error_field(err, TM_ERR_BAD_QUERY, "",
					   "A query parameter's name is empty or malformed.");
		if (known[0])
			tm_error_hint(err, "Known here: %s.", known);
		else
			tm_error_hint(err, "This path takes none.");
		return r;
	}
	if (tm_url_query_text(query, name))
		return tm_error_field(err, TM_ERR_BAD_QUERY, name,
				      "The query parameter %s is given twice.", name);
	if (!equals || name_len + 1 == len)
		return tm_error_field(err, TM_ERR_BAD_QUERY, name,
				      "The query parameter %s has no value.", name);
	r = tm_percent_decode(equals + 1, len - name_len - 1, value, sizeof(query->text) - *used);
	if (r < 0)
		return tm_error_field(err, TM_ERR_BAD_QUERY, name,
				      "The query parameter %s has a bad percent escape, a control "
				      "character or invalid UTF-8.",
				      name);
	query->items[query->n++].value = value;
	*used += strlen(value) + 1;
	return 0;
}

int tm_url_query_parse(const char *raw, size_t len, const char *known, struct tm_url_query *ret,
		       struct tm_error *err)
{
	const char *p = raw, *end = raw + len;
	size_t used = 0;

	ret->n = 0;
	if (len > TM_URL_QUERY_RAW_MAX)
		return tm_error_field(err, TM_ERR_BAD_QUERY, "",
				      "The query is %zu bytes long, the most is %d.", len,
				      TM_URL_QUERY_RAW_MAX);
	while (p < end) {
		const char *stop = memchr(p, '&', (size_t)(end - p));
		int r;

		if (!stop)
			stop = end;
		if (ret->n == TM_URL_QUERY_MAX)
			return tm_error_field(err, TM_ERR_BAD_QUERY, "",
					      "The query has more than %d parameters.",
					      TM_URL_QUERY_MAX);
		r = read_pair(p, (size_t)(stop - p), known, ret, &used, err);
		if (r < 0)
			return r;
		p = stop < end ? stop + 1 : end;
	}
	return 0;
}

const char *tm_url_query_text(const struct tm_url_query *query, const char *name)
{
	for (size_t i = 0; i < query->n; i++) {
		if (strcmp(query->items[i].name, name) == 0)
			return query->items[i].value;
	}
	return NULL;
}

int tm_decimal_parse(const char *text, uint64_t *ret)
{
	uint64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (const char *p = text; *p; p++) {
		unsigned int digit = (unsigned int)(*p - '0');

		if (*p < '0' || *p > '9')
			return -EINVAL;
		if (value > ((uint64_t)INT64_MAX - digit) / 10)
			return -ERANGE;
		value = value * 10 + digit;
	}
	*ret = value;
	return 0;
}

int tm_url_query_uint(const struct tm_url_query *query, const char *name, uint64_t min,
		      uint64_t max, uint64_t *ret, struct tm_error *err)
{
	const char *text = tm_url_query_text(query, name);
	uint64_t value;
	int r;

	if (!text)
		return 0;
	r = tm_decimal_parse(text, &value);
	if (r == 0 && (value < min || value > max))
		r = -ERANGE;
	if (r < 0)
		return tm_error_field(
			err, TM_ERR_BAD_QUERY, name,
			"The query parameter %s is \"%.32s\", it must be a number from "
			"%" PRIu64 " to %" PRIu64 ".",
			name, text, min, max);
	*ret = value;
	return 1;
}

int tm_url_query_bool(const struct tm_url_query *query, const char *name, bool *ret,
		      struct tm_error *err)
{
	const char *text = tm_url_query_text(query, name);

	if (!text)
		return 0;
	if (strcmp(text, "true") == 0)
		*ret = true;
	else if (strcmp(text, "false") == 0)
		*ret = false;
	else
		return tm_error_field(err, TM_ERR_BAD_QUERY, name,
				      "The query parameter %s is \"%.32s\", it must be true or "
				      "false.",
				      name, text);
	return 1;
}

int tm_url_query_time(const struct tm_url_query *query, const char *name, uint64_t *ret,
		      struct tm_error *err)
{
	const char *text = tm_url_query_text(query, name);

	if (!text)
		return 0;
	if (tm_time_parse(text, ret) < 0) {
		int r = tm_error_field(err, TM_ERR_BAD_QUERY, name,
				       "The query parameter %s is \"%.40s\", which is not a time.",
				       name, text);

		tm_error_hint(err, "Write it as in 2026-01-31T12:00:00Z.");
		return r;
	}
	return 1;
}
