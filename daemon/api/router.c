// SPDX-License-Identifier: GPL-2.0-or-later
/* From method and path to route. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/router.h"
#include "common/cleanup.h"
#include "common/utf8.h"

static const struct tm_route routes[] = {
#define TM_ROUTE(method_, path_, id_, permission_, handler_, body_, query_) \
	{ .method = TM_METHOD_##method_,                                    \
	  .path = path_,                                                    \
	  .operation_id = id_,                                              \
	  .permission = TM_PERMIT_##permission_,                            \
	  .handler = handler_,                                              \
	  .takes_body = body_,                                              \
	  .query = query_ },
#include "api/routes.inc"
#undef TM_ROUTE
};

static const char *const method_names[TM_METHOD_COUNT] = {
	[TM_METHOD_GET] = "GET",
	[TM_METHOD_POST] = "POST",
	[TM_METHOD_PATCH] = "PATCH",
	[TM_METHOD_DELETE] = "DELETE",
};

#define SEGMENTS_MAX 8
#define SEGMENT_SIZE \
	(2 * TM_NAME_MAX) /* longer than any name or literal; more is an error anyway */

struct segments {
	size_t n;
	char text[SEGMENTS_MAX][SEGMENT_SIZE];
};

const struct tm_route *tm_router_routes(size_t *ret_n)
{
	*ret_n = TM_ARRAY_SIZE(routes);
	return routes;
}

int tm_percent_decode(const char *text, size_t len, char *buf, size_t size)
{
	size_t n = 0;

	if (size)
		buf[0] = '\0';
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '%') {
			int high = len - i > 2 ? tm_hex_digit(text[i + 1]) : -1;
			int low = len - i > 2 ? tm_hex_digit(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return -EINVAL;
			c = (unsigned char)(high << 4 | low);
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return -EINVAL;
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		buf[n++] = (char)c;
	}
	if (size)
		buf[n] = '\0';
	return size == 0 || tm_utf8_valid(buf) ? 0 : -EINVAL;
}

static int split(const char *path, size_t len, struct segments *ret, struct tm_error *err)
{
	const char *p = path, *end = path + len;

	ret->n = 0;
	if (len > TM_PATH_RAW_MAX)
		return tm_error_set(err, TM_ERR_BAD_PATH, EINVAL,
				    "The path is %zu bytes long, the most is %d.", len,
				    TM_PATH_RAW_MAX);
	while (p < end) {
		const char *stop;
		char *text;
		int r;

		if (*p != '/')
			return tm_error_set(err, TM_ERR_NO_ROUTE, ENOENT,
					    "The path does not begin with '/'.");
		p++;
		stop = memchr(p, '/', (size_t)(end - p));
		if (!stop)
			stop = end;
		if (ret->n == SEGMENTS_MAX)
			return tm_error_set(err, TM_ERR_NO_ROUTE, ENOENT,
					    "The path has more than %d segments.", SEGMENTS_MAX);
		text = ret->text[ret->n];
		r = tm_percent_decode(p, (size_t)(stop - p), text, SEGMENT_SIZE);
		if (r == -ENAMETOOLONG) {
			r = tm_error_set(err, TM_ERR_BAD_PATH, EINVAL,
					 "Segment %zu of the path is too long.", ret->n + 1);
			tm_error_hint(err, "Names have at most %d characters.", TM_NAME_MAX);
			return r;
		}
		if (r < 0)
			return tm_error_set(err, TM_ERR_BAD_PATH, EINVAL,
					    "Segment %zu of the path has a bad percent escape, a "
					    "control character or invalid UTF-8.",
					    ret->n + 1);
		if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
			return tm_error_set(err, TM_ERR_BAD_PATH, EINVAL,
					    "The path has a \"%s\" segment.", text);
		ret->n++;
		p = stop;
	}
	return 0;
}

static bool fits(const char *path, const struct segments *segments)
{
	const char *p = path;

	for (size_t i = 0; i < segments->n; i++) {
		const char *text = segments->text[i];
		size_t len;

		if (*p++ != '/')
			return false;
		len = strcspn(p, "/");
		if (*p == '{') {
			if (!text[0])
				return false;
		} else if (strlen(text) != len || memcmp(p, text, len) != 0) {
			return false;
		}
		p += len;
	}
	return !*p;
}

static int take_params(const struct segments *segments, struct tm_match *match,
		       struct tm_error *err)
{
	const char *p = match->route->path;

	for (size_t i = 0; i < segments->n; i++) {
		const char *text = segments->text[i];
		size_t len = strcspn(++p, "/");
		struct tm_uuid id;

		if (*p == '{') {
			if (!tm_name_valid(text) && tm_uuid_parse(text, &id) < 0) {
				int r = tm_error_field(
					err, TM_ERR_BAD_NAME, "",
					"\"%s\" in the path can be neither a name nor "
					"an id.",
					text);

				tm_error_hint(err,
					      "Names are 1 to %d letters, digits, '.', '_' and "
					      "'-' and begin with a letter or digit.",
					      TM_NAME_MAX);
				return r;
			}
			(void)snprintf(match->params[match->n_params++], sizeof(match->params[0]),
				       "%s", text);
		}
		p += len;
	}
	return 0;
}

static void add_allow(struct tm_match *match, const char *name)
{
	size_t used = strlen(match->allow);

	(void)snprintf(match->allow + used, sizeof(match->allow) - used, "%s%s", used ? ", " : "",
		       name);
}

int tm_router_match(const char *method, const char *path, size_t len, struct tm_match *ret,
		    struct tm_error *err)
{
	const struct tm_route *found[TM_METHOD_COUNT] = { NULL };
	struct segments segments;
	int r;

	*ret = (struct tm_match){ 0 };
	r = split(path, len, &segments, err);
	if (r < 0)
		return r;

	/* No two routes of one method fit the same path: the generator sees to that. */
	for (size_t i = 0; i < TM_ARRAY_SIZE(routes); i++) {
		if (fits(routes[i].path, &segments))
			found[routes[i].method] = &routes[i];
	}
	for (unsigned int m = 0; m < TM_METHOD_COUNT; m++) {
		if (!found[m])
			continue;
		add_allow(ret, method_names[m]);
		if (m == TM_METHOD_GET)
			add_allow(ret, "HEAD");
		if (strcmp(method, method_names[m]) == 0)
			ret->route = found[m];
	}
	if (!ret->allow[0])
		return tm_error_set(err, TM_ERR_NO_ROUTE, ENOENT, "There is nothing at this path.");
	add_allow(ret, "OPTIONS");

	if (strcmp(method, "OPTIONS") == 0) {
		ret->options = true;
		return 0;
	}
	if (strcmp(method, "HEAD") == 0 && found[TM_METHOD_GET]) {
		ret->head = true;
		ret->route = found[TM_METHOD_GET];
	}
	if (!ret->route) {
		r = tm_error_set(err, TM_ERR_METHOD, EOPNOTSUPP, "This path does not take %.16s.",
				 method);
		tm_error_hint(err, "It takes %s.", ret->allow);
		return r;
	}
	return take_params(&segments, ret, err);
}
